"""What the ledger keeps that nobody asks for any more: statements that find it and remove it.

What belongs here: tasks of old attempts, attempts that many newer ones have replaced, closed waves, old notices; and
what the clean-up must know of the rest (runs that are needed, partitions that are).  What does not: how long things are
kept (``geo_assets.clean_up``).

Ids of attempts sort by their time, so tasks of old attempts are found by their primary key.  An attempt that ended
never changes its status, so what was found to be over is still over when it is removed.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from geo_assets.coremachine.batches import IN_LIMIT, chunks
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Attempt, Ledger
from geo_assets.coremachine.ledger_tables import (
    MATERIALIZATION_OWED,
    attempts,
    jobs,
    notices,
    source_entries,
    source_looks,
    tasks,
    waves,
)

__all__ = ["LedgerRetention", "OldTasks", "SourceEntry"]

_ROWS = 2000
"""Rows a transaction."""
_PAUSE_SECONDS = 0.02
_GOOD = [JobStatus.COMPLETED.value, JobStatus.COMPLETED_WITH_ERRORS.value]
_WITH_RESULT = [*_GOOD, JobStatus.FAILED.value]
_ENDED = [*_WITH_RESULT, JobStatus.CANCELLED.value]
_GONE = "gone"
"""State of an entry that a source no longer sees."""


@dataclass(frozen=True, kw_only=True)
class OldTasks:
    """Attempts whose tasks may go."""

    by_attempt: Mapping[str, int]
    """Attempt → number of its tasks."""
    more: bool = False

    @property
    def tasks(self) -> int:
        """How many tasks."""
        return sum(self.by_attempt.values())


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """What a source says of a partition."""

    source: str
    partition_key: str
    gone_at: datetime | None
    """Since when; ``None`` where it is there."""
    reason: str | None = None


class LedgerRetention:
    """The ledger as the clean-up sees it."""

    def __init__(self, ledger: Ledger, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._ledger = ledger
        self._pause = pause_seconds

    # --- tasks ------------------------------------------------------------------------------------------------

    def old_tasks(self, before: datetime, *, at_most: int) -> OldTasks:
        """Attempts that ended before and still have tasks, oldest first, up to so many tasks."""
        query = (
            sa.select(tasks.c.attempt_id, sa.func.count().label("n"))
            .join(attempts, attempts.c.attempt_id == tasks.c.attempt_id)
            .where(tasks.c.attempt_id < _first_id(before), *_over(before))
            .group_by(tasks.c.attempt_id)
            .order_by(tasks.c.attempt_id)
        )
        found: dict[str, int] = {}
        for row in self._ledger.read(lambda c: c.execute(query.limit(at_most + 1)).all()):
            if found and sum(found.values()) + row.n > at_most:
                return OldTasks(by_attempt=found, more=True)
            found[row.attempt_id] = row.n
        return OldTasks(by_attempt=found)

    def remove_tasks(self, old: OldTasks, *, goes_on: Callable[[], bool] = lambda: True) -> int:
        """Remove them; returns how many."""
        return sum(self._remove_tasks_of(group) for group in _groups(old.by_attempt) if goes_on())

    def _remove_tasks_of(self, attempt_ids: Sequence[str]) -> int:
        removed = 0
        key = (tasks.c.attempt_id, tasks.c.stage, tasks.c.task_index)
        some = sa.select(*key).where(tasks.c.attempt_id.in_(attempt_ids)).order_by(*key).limit(_ROWS)

        def work(c: Connection) -> int:
            rows = c.execute(some).all()
            if not rows:
                return 0
            # one index range for all of them, which holds tasks of these attempts only where they are neighbours
            last = sa.tuple_(*(sa.literal(value) for value in rows[-1]))
            upto = (tasks.c.attempt_id.in_(attempt_ids), sa.tuple_(*key) <= last)
            return c.execute(tasks.delete().where(*upto)).rowcount

        while number := self._ledger.write(work):
            removed += number
            time.sleep(self._pause)
        return removed

    # --- attempts ---------------------------------------------------------------------------------------------

    def superseded(
        self, before: datetime, *, keep: int, publishing: Collection[str], at_most: int
    ) -> tuple[list[str], bool]:
        """Attempts in which nothing counts any more, oldest first, and whether there are more.

        They ended before, their job has ``keep`` newer ones with a result that counts (good ones, where they were
        good), and they have no result that still says what was published.

        Args:
            before: when they ended.
            keep: how many newer ones.
            publishing: job types whose results say what is in the stores.
            at_most: how many.
        """
        newer = attempts.alias("newer")
        standing = (
            sa.select(sa.func.count())
            .select_from(newer)
            .where(
                newer.c.job_type == attempts.c.job_type,
                newer.c.job_id == attempts.c.job_id,
                newer.c.number > attempts.c.number,
                newer.c.withdrawn_at.is_(None),
            )
        )
        good = standing.where(newer.c.status.in_(_GOOD)).scalar_subquery()
        with_result = standing.where(newer.c.status.in_(_WITH_RESULT)).scalar_subquery()
        query = (
            sa.select(attempts.c.attempt_id)
            .join(jobs, sa.and_(jobs.c.job_type == attempts.c.job_type, jobs.c.job_id == attempts.c.job_id))
            .where(
                jobs.c.attempts > keep,
                attempts.c.attempt_id < _first_id(before),
                *_over(before),
                jobs.c.latest_attempt != attempts.c.attempt_id,
                sa.or_(
                    attempts.c.result_data.is_(None),
                    attempts.c.withdrawn_at.is_not(None),
                    attempts.c.job_type.not_in(sorted(publishing)),
                ),
                sa.case((attempts.c.status.in_(_GOOD), good), else_=with_result) >= keep,
            )
            .order_by(attempts.c.attempt_id)
            .limit(at_most + 1)
        )
        found = self._ledger.read(lambda c: list(c.execute(query).scalars()))
        return found[:at_most], len(found) > at_most

    def remove_attempts(self, attempt_ids: Sequence[str], *, goes_on: Callable[[], bool] = lambda: True) -> int:
        """Remove attempts with their tasks; returns how many."""
        removed = 0
        for chunk in chunks(attempt_ids):
            if not goes_on():
                break
            self._remove_tasks_of(chunk)
            # the latest one of its job stays, whatever was found a moment ago
            latest = sa.select(jobs.c.latest_attempt).where(jobs.c.latest_attempt.in_(chunk))
            gone = attempts.delete().where(attempts.c.attempt_id.in_(chunk), attempts.c.attempt_id.not_in(latest))
            removed += self._ledger.write(lambda c, q=gone: c.execute(q).rowcount)  # type: ignore[misc]
            time.sleep(self._pause)
        return removed

    # --- waves and notices ------------------------------------------------------------------------------------

    def old_waves(self, before: datetime, *, at_most: int) -> list[str]:
        """Waves that were closed before and hold nothing that waits."""
        waiting = sa.select(attempts.c.wave_id).where(
            attempts.c.wave_id == waves.c.wave_id, attempts.c.status.not_in(_ENDED)
        )
        query = (
            sa.select(waves.c.wave_id)
            .where(waves.c.open.is_(False), waves.c.closed_at < before, ~waiting.exists())
            .order_by(waves.c.wave_id)
            .limit(at_most)
        )
        return self._ledger.read(lambda c: list(c.execute(query).scalars()))

    def remove_waves(self, wave_ids: Sequence[str]) -> int:
        """Remove closed waves; returns how many."""
        return self._remove(waves, waves.c.wave_id, wave_ids, waves.c.open.is_(False))

    def old_notices(self, before: datetime, *, at_most: int) -> list[str]:
        """Failures that somebody was told of, and nobody had to be since then."""
        query = sa.select(notices.c.fingerprint).where(notices.c.last_at < before, notices.c.sent_at.is_not(None))
        query = query.order_by(notices.c.fingerprint).limit(at_most)
        return self._ledger.read(lambda c: list(c.execute(query).scalars()))

    def remove_notices(self, fingerprints: Sequence[str], before: datetime) -> int:
        """Remove notices, but those that have come again meanwhile; returns how many."""
        over = sa.and_(notices.c.last_at < before, notices.c.sent_at.is_not(None))
        return self._remove(notices, notices.c.fingerprint, fingerprints, over)

    def _remove(
        self, table: sa.Table, key: sa.Column[Any], values: Sequence[str], condition: sa.ColumnElement[bool]
    ) -> int:
        removed = 0
        for chunk in chunks(values):
            query = table.delete().where(key.in_(chunk), condition)
            removed += self._ledger.write(lambda c, q=query: c.execute(q).rowcount)  # type: ignore[misc]
            time.sleep(self._pause)
        return removed

    # --- what others need -------------------------------------------------------------------------------------

    def needed_runs(self) -> set[str]:
        """Runs that hold attempts at work, or owe a materialization."""
        active = sa.select(attempts.c.run_id).where(attempts.c.status.not_in(_ENDED), attempts.c.run_id.is_not(None))
        owing = sa.select(attempts.c.run_id).where(MATERIALIZATION_OWED, attempts.c.run_id.is_not(None))
        return self._ledger.read(lambda c: {*c.execute(active).scalars(), *c.execute(owing).scalars()})

    def needed_listings(self) -> set[str]:
        """Keys of listings that a job that waits or is at work may read, or that a source was last told by."""
        active = sa.select(attempts.c.job_id).where(attempts.c.status.not_in(_ENDED))
        told = sa.select(source_looks.c.listing_job).where(source_looks.c.listing_job.is_not(None))
        return self._ledger.read(lambda c: {*c.execute(active).scalars(), *c.execute(told).scalars()})

    def attempts_of(self, assets: Sequence[str], keys: Sequence[str]) -> dict[str, list[Attempt]]:
        """Partition key → every attempt of these assets, oldest first."""
        found: dict[str, list[Attempt]] = {}
        for attempt in self._ledger.attempts_of_partitions(assets, keys):
            found.setdefault(attempt.partition_key, []).append(attempt)
        return found

    def entries_of(self, assets: Sequence[str], keys: Sequence[str]) -> dict[str, list[SourceEntry]]:
        """Partition key → what sources say of it."""
        found: dict[str, list[SourceEntry]] = {}
        said = source_entries.c
        columns = (said.source, said.partition_key, said.state, said.reason)
        for chunk in chunks(keys):
            query = sa.select(*columns, source_entries.c.gone_at).where(
                source_entries.c.asset.in_(assets), source_entries.c.partition_key.in_(chunk)
            )
            for row in self._ledger.read(lambda c, q=query: c.execute(q).all()):  # type: ignore[misc]
                gone_at = row.gone_at if row.state == _GONE else None
                found.setdefault(row.partition_key, []).append(
                    SourceEntry(source=row.source, partition_key=row.partition_key, gone_at=gone_at, reason=row.reason)
                )
        return found


def _over(before: datetime) -> list[sa.ColumnElement[bool]]:
    """Conditions on attempts that ended before and owe nothing."""
    return [
        attempts.c.status.in_(_ENDED),
        attempts.c.ended_at < before,
        sa.or_(attempts.c.event_emitted, attempts.c.status.not_in(_GOOD)),
    ]


def _first_id(moment: datetime) -> str:
    """What the ids of attempts made from this moment on do not sort before."""
    return f"{int(moment.timestamp() * 1e9):016x}"


def _groups(by_attempt: Mapping[str, int]) -> Iterator[list[str]]:
    """Attempts with few tasks together, those with many alone."""
    group: list[str] = []
    size = 0
    for attempt_id, number in by_attempt.items():
        if group and (size + number > _ROWS or len(group) >= IN_LIMIT):
            yield group
            group, size = [], 0
        group.append(attempt_id)
        size += number
    if group:
        yield group
