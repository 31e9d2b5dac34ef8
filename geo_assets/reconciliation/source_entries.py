"""Sources beside the ledger: entries that were queued and their jobs, entries that are gone and what was made of them.

What belongs here: these counts, made by the database.  What does not: what a source remembers (``sources.register``).
"""

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import attempts, source_entries
from geo_assets.reconciliation import wording
from geo_assets.reconciliation.findings import Direction, Fate, Finding, Line
from geo_assets.reconciliation.recorded import ACTIVE, FINISHED
from geo_assets.sources.register import FOLDER, PARTS, EntryState

__all__ = ["compare_sources"]


def compare_sources(ledger: Ledger, *, started: datetime, keep: int) -> tuple[list[Line], list[Finding]]:
    """Compare what sources queued, and what is gone from them, with the ledger.

    Args:
        ledger: the ledger.
        started: entries that were queued later are left to the next reconciliation.
        keep: most findings.
    """
    entries = source_entries.c
    queued = (entries.state == EntryState.QUEUED.value, entries.submitted_at < started)
    gone = (entries.state == EntryState.GONE.value, entries.partition_key.is_not(None))

    def read(c: sa.Connection) -> tuple[list[Line], list[Any]]:
        def number(*conditions: sa.ColumnElement[bool]) -> int:
            return c.execute(sa.select(sa.func.count()).select_from(source_entries).where(*conditions)).scalar_one()

        jobs = Line(direction=Direction.SOURCES_LEDGER, total=number(*queued))
        jobs.counts[Fate.WITH_JOB] = number(*queued, _has_job())
        jobs.counts[Fate.WITHOUT_JOB] = number(*queued, sa.not_(_has_job()))
        left = Line(direction=Direction.GONE_LEDGER, total=number(*gone))
        left.counts[Fate.AT_WORK] = number(*gone, _attempt_with(attempts.c.status.in_(ACTIVE)))
        left.counts[Fate.STANDS] = number(*gone, sa.not_(_attempt_with(attempts.c.status.in_(ACTIVE))), _stands())
        left.counts[Fate.TAKEN_BACK] = number(
            *gone, sa.not_(_attempt_with(attempts.c.status.in_(ACTIVE))), sa.not_(_stands())
        )
        query = source_entries.select().where(*queued, sa.not_(_has_job())).limit(keep)
        return [jobs, left], [row._mapping for row in c.execute(query)]  # noqa: SLF001

    lines, without = ledger.read(read)
    return lines, wording.without_job(without)


def _attempt_with(*conditions: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        attempts.c.asset == source_entries.c.asset,
        attempts.c.partition_key == source_entries.c.partition_key,
        *conditions,
    )


def _has_job() -> sa.ColumnElement[bool]:
    """A job of this version; of several files a job has a version of its own making."""
    entries = source_entries.c
    by_source = sa.and_(attempts.c.source == entries.source, attempts.c.created_at >= entries.seen_at)
    several = sa.or_(
        entries.submitted_version.startswith(PARTS, autoescape=True),
        entries.submitted_version.startswith(FOLDER, autoescape=True),
    )
    return _attempt_with(sa.or_(attempts.c.source_version == entries.submitted_version, by_source, several))


def _stands() -> sa.ColumnElement[bool]:
    return _attempt_with(attempts.c.status.in_(FINISHED), attempts.c.withdrawn_at.is_(None))
