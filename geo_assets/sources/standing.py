"""How the entries of sources stand: done, failed, at work, waiting, refused, gone.

What belongs here: these counts, made by the database of what sources remember and of their entries' latest jobs, and
what keeps the entries that are no jobs yet.  What does not: what a source remembers itself (``register``).
"""

from collections.abc import Mapping
from enum import StrEnum

import sqlalchemy as sa

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import jobs, source_entries
from geo_assets.sources.register import EntryState

__all__ = ["Standing", "standing_of", "standings"]


class Standing(StrEnum):
    """Where an entry stands; each is in one of them."""

    DONE = "done"
    """The latest job of its partition has ended well, or with some errors."""
    FAILED = "failed"
    """It failed or was cancelled, or is on record no more."""
    AT_WORK = "at work"
    """It is queued, or a run works on it."""
    WAITING = "waiting"
    """It is to become a job: when it is whole, stable, readable, or when there is room."""
    REFUSED = "refused"
    GONE = "gone"


_OF_JOB = {
    JobStatus.QUEUED.value: Standing.AT_WORK,
    JobStatus.PROCESSING.value: Standing.AT_WORK,
    JobStatus.COMPLETED.value: Standing.DONE,
    JobStatus.COMPLETED_WITH_ERRORS.value: Standing.DONE,
}


def standings(ledger: Ledger, source: str | None = None) -> dict[str, dict[Standing, int]]:
    """Source → how many of its entries stand where; their sum is all that it remembers.

    Args:
        ledger: where it is remembered; 0.4 s for 100,000 entries on SQLite.
        source: only this one; default: all that have entries.
    """
    entries = source_entries.c
    mine = sa.true() if source is None else entries.source == source
    was_queued = entries.state == EntryState.QUEUED.value
    # a hundred thousand entries may share the job of their container
    partitions = (
        sa.select(entries.source, entries.asset, entries.partition_key, sa.func.count().label("n"))
        .where(mine, was_queued)
        .group_by(entries.source, entries.asset, entries.partition_key)
        .subquery()
    )
    latest = (
        sa.select(jobs.c.status)
        .where(jobs.c.asset == partitions.c.asset, jobs.c.partition_key == partitions.c.partition_key)
        .order_by(jobs.c.latest_attempt.desc())
        .limit(1)
        .scalar_subquery()
    )
    with_job = sa.select(partitions.c.source, latest.label("state"), partitions.c.n).subquery()
    others = (
        sa.select(entries.source, entries.state, sa.func.count())
        .where(mine, ~was_queued)
        .group_by(entries.source, entries.state)
    )
    query = sa.select(with_job.c.source, with_job.c.state, sa.func.sum(with_job.c.n).label("n")).group_by(
        with_job.c.source, with_job.c.state
    )
    found: dict[str, dict[Standing, int]] = {}
    for half, rows in enumerate(ledger.read(lambda c: (c.execute(others).all(), c.execute(query).all()))):
        for name, state, number in rows:
            counts = found.setdefault(name, dict.fromkeys(Standing, 0))
            counts[_OF_JOB.get(state, Standing.FAILED) if half else Standing(state)] += int(number)
    return found


def standing_of(ledger: Ledger, source: str) -> Mapping[Standing, int]:
    """The same of one source; zeros where it remembers nothing."""
    return standings(ledger, source).get(source, dict.fromkeys(Standing, 0))
