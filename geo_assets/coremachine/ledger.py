"""The ledger: what is to be done, who is doing it, and what became of it.

What belongs here: every statement on the ledger's tables, one method a transaction.  What does not: when to call
them (``submission``, ``dispatch``, ``engine``), and Dagster.

Three rules hold everything together:

* an attempt belongs to the run whose id it carries; every write of a result checks that fence in the same
  transaction, so a stalled earlier run cannot overwrite a later one;
* a partition has at most one attempt at work and a job at most one waiting, by unique partial indexes;
* status changes go through the table in ``ledger_tables`` and nowhere else.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, Connection, Engine, make_url

from geo_assets.coremachine.batches import IN_LIMIT, chunks
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskResult, TaskStatus
from geo_assets.coremachine.ledger_tables import (
    MATERIALIZATION_OWED,
    SCHEMA,
    WAITS_FOR_A_WAVE,
    attempts,
    audit,
    claims,
    jobs,
    source_entries,
    sources_of,
    tasks,
    to_json,
    waves,
)
from geo_assets.coremachine.reasons import group_of
from geo_assets.errors import (
    AccessDeniedError,
    GeoAssetsError,
    IllegalTransitionError,
    JobNotFoundError,
    LedgerUnavailableError,
    ParameterError,
    SettingsError,
)
from geo_assets.redaction import redact

INTERACTIVE_PRIORITY = 10
BULK_PRIORITY = 0
INTERNAL = "internal"
"""Who submitted what nobody asked for, such as a listing for a source: Materialize does not go by its parameters."""


_DISPATCH_LOCK = 0x67656F_776176  # "geowav": advisory lock so that two dispatchers count open waves one by one


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """One job handed to :meth:`Ledger.submit`."""

    job_type: str
    job_id: str
    asset: str
    partition_key: str
    parameters: Mapping[str, Any]
    total_stages: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source_version: str | None = None
    max_age_seconds: float | None = None
    force: bool = False
    priority: int = BULK_PRIORITY
    submitted_by: str = "api"
    source: str | None = None
    """Name of the source whose look brought it about."""


class Decision(StrEnum):
    """What the ledger did with a submitted job."""

    CREATED = "created"
    REQUEUED = "requeued"
    RECORDED = "recorded"
    IN_PROGRESS = "in_progress"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A row of ``jobs``."""

    job_type: str
    job_id: str
    asset: str
    partition_key: str
    parameters: dict[str, Any]
    status: JobStatus
    outcome: OutcomeKind | None
    reason: str | None
    stage: int
    total_stages: int
    stage_results: dict[str, Any]
    metadata: dict[str, Any]
    result_data: dict[str, Any] | None
    error_details: str | None
    source_version: str | None
    attempts: int
    latest_attempt: str | None
    run_id: str | None
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    withdrawn_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A row of ``attempts`` with its job's parameters."""

    attempt_id: str
    job_type: str
    job_id: str
    number: int
    asset: str
    partition_key: str
    source_version: str | None
    status: JobStatus
    outcome: OutcomeKind | None
    reason: str | None
    error_details: str | None
    traceback: str | None
    result_data: dict[str, Any] | None
    stage: int
    stage_results: dict[str, Any]
    priority: int
    submitted_by: str
    wave_id: str | None
    position: int | None
    run_id: str | None
    cancel_requested: bool
    releases: int
    planned: bool
    event_emitted: bool
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    parameters: dict[str, Any]
    job_metadata: dict[str, Any]
    withdrawn_at: datetime | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """What became of one :class:`NewJob`: the decision and the job as it stands after it."""

    decision: Decision
    job: Job


@dataclass(frozen=True, kw_only=True)
class Wave:
    """A set of queued attempts of one workflow that one run is asked to do."""

    wave_id: str
    job_type: str
    priority: int
    size: int


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """One task row to insert."""

    attempt_id: str
    stage: int
    task_index: int
    task_id: str
    parent_job_id: str
    job_type: str
    task_type: str
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    status: TaskStatus = TaskStatus.QUEUED


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """One task as read back."""

    attempt_id: str
    stage: int
    task_index: int
    task_id: str
    task_type: str
    parameters: dict[str, Any]
    status: TaskStatus
    outcome: OutcomeKind | None
    reason: str | None
    result_data: dict[str, Any] | None
    metadata: dict[str, Any]
    error_details: str | None
    traceback: str | None
    retry_count: int
    execution_time_ms: int | None
    heartbeat: datetime | None
    created_at: datetime
    updated_at: datetime

    def as_result(self) -> TaskResult:
        """The form aggregations get."""
        return TaskResult.model_construct(
            task_id=self.task_id,
            task_type=self.task_type,
            status=self.status,
            result_data=self.result_data or {},
            error_details=self.error_details,
            execution_time_ms=self.execution_time_ms,
            timestamp=self.updated_at,
            metadata=self.metadata or None,
            stage=self.stage,
            task_index=self.task_index,
        )


@dataclass(frozen=True, kw_only=True)
class TaskUpdate:
    """How one task ended, or that it waits for another try (``status`` queued)."""

    attempt_id: str
    stage: int
    task_index: int
    status: TaskStatus
    outcome: OutcomeKind | None
    reason: str | None
    result_data: Mapping[str, Any] | None
    error_details: str | None
    traceback: str | None
    retry_count: int
    execution_time_ms: int | None


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How one attempt ended."""

    attempt_id: str
    status: JobStatus
    outcome: OutcomeKind
    reason: str | None = None
    error_details: str | None = None
    traceback: str | None = None
    result_data: Mapping[str, Any] | None = None
    stage: int = 1
    stage_results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The result of an attempt that counts: it ended, and what it left in the stores was not taken back."""

    attempt_id: str
    job_type: str
    asset: str
    partition_key: str
    result_data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AuditEntry:
    """A row of ``audit``: who did what to a partition, and what became of each thing."""

    audit_id: str
    action: str
    who: str
    asset: str
    partition_key: str
    inventory: list[dict[str, Any]]
    """One object a thing, with its ``outcome``; before the action has ended, what was found."""
    complete: bool
    """Whether nothing remains to be done; ``False`` also where the process was killed."""
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class TaskCounts:
    """Tasks of one attempt by status."""

    total: int = 0
    queued: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def done(self) -> int:
        """Tasks that have ended."""
        return self.completed + self.failed + self.cancelled


@dataclass(frozen=True, kw_only=True)
class JobFilter:
    """Which jobs to list or retry; ``None`` means any."""

    job_type: str | None = None
    asset: str | None = None
    statuses: tuple[JobStatus, ...] = ()
    reason_contains: str | None = None
    reason_group: str | None = None
    """As :func:`~geo_assets.coremachine.reasons.group_of` has it."""
    keys: tuple[str, ...] | None = None
    """Partition keys."""
    prefix: str | None = None
    """Beginning of the partition key."""
    source: str | None = None
    """Of the source that brought them about, whoever has queued them again since."""
    run_id: str | None = None
    """Of the run that the latest attempt belongs to."""
    newer_than: timedelta | None = None
    older_than: timedelta | None = None
    gone: bool | None = None
    """Whether the source that had the partition has seen its blob go; those of no source are not gone."""


class FailureGroup(NamedTuple):
    """Jobs that need attention for the same reason."""

    asset: str
    reason: str
    """As :func:`~geo_assets.coremachine.reasons.group_of` has it."""
    jobs: int
    example: str
    """Partition key of one of them."""


_GONE = "gone"
"""State of an entry that a source no longer sees."""
_WITH_RESULT = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS, JobStatus.FAILED)

FAILED_STATUSES = (JobStatus.FAILED, JobStatus.COMPLETED_WITH_ERRORS, JobStatus.CANCELLED)
"""Statuses of jobs that ``failures`` lists and ``retry`` queues again."""


class Ledger:
    """The ledger database; safe to use from several threads and processes.

    Args:
        url: SQLAlchemy URL; SQLite's folder is created.
        patience_seconds: how long an operation waits for a database that is away or locked.

    Raises:
        SettingsError: the URL is malformed, or names a database that is not there or no database at all.
        AccessDeniedError: the database refuses the user or password.
        SchemaVersionError: the database was written by a newer version of this code.
        LedgerUnavailableError: it cannot be reached within the patience.
    """

    def __init__(self, url: str, *, patience_seconds: float = 60.0) -> None:
        self._patience = patience_seconds
        parsed = _parse_url(url)
        self._label = redact(parsed.render_as_string(hide_password=True))
        self._engine = _make_engine(parsed, self._label, patience_seconds)
        self._reader = self._engine.execution_options(geo_assets_read=True)
        from geo_assets.coremachine.migrations import ensure_schema  # noqa: PLC0415 - alembic only where needed

        try:
            self._retry(lambda: ensure_schema(self._engine, self._label))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @property
    def engine(self) -> Engine:
        """The SQLAlchemy engine, for queries of your own."""
        return self._engine

    # --- submission ---------------------------------------------------------------------------------------

    def submit(
        self,
        new_jobs: Sequence[NewJob],
        *,
        also: Callable[[Connection, Sequence[Submitted]], None] | None = None,
    ) -> list[Submitted]:
        """Record jobs and queue an attempt for each that needs one; one answer a job, in order.

        A job whose last attempt ended well is answered from the record if the source version is the same, the answer
        is not too old and what it published was not taken back; one that waits, or is at work on the same source
        version, is left alone; anything else (failed, cancelled, changed source, ``force``) gets a new attempt.  What
        waits reads the source when it starts, so it takes over the newest source version; asked for more urgently, it
        leaves its place in a bulk wave that no run has begun.

        ``also`` is written in the same transaction, once for each 1,000 jobs.
        """

        def work(c: Connection, chunk: Sequence[NewJob]) -> list[Submitted]:
            submitted = self._submit_chunk(c, chunk)
            if also is not None:
                also(c, submitted)
            return submitted

        answers: list[Submitted] = []
        for chunk in chunks(new_jobs):
            answers.extend(self._write(lambda c, chunk=chunk: work(c, chunk)))  # type: ignore[misc]
        return answers

    def _submit_chunk(self, c: Connection, new_jobs: Sequence[NewJob]) -> list[Submitted]:
        now = _now()
        existing = self._jobs_by_key(c, [(new.job_type, new.job_id) for new in new_jobs], lock=True)
        busy = self._active_attempts(c, list(existing))
        decisions: list[Decision] = []
        queued_here: set[tuple[str, str]] = set()
        job_rows: list[dict[str, Any]] = []
        attempt_rows: list[dict[str, Any]] = []
        for new in new_jobs:
            key = (new.job_type, new.job_id)
            job = existing.get(key)
            # the same job twice in one submission is one job
            decision = Decision.IN_PROGRESS if key in queued_here else _decide(new, job, busy.get(key, []), now)
            decisions.append(decision)
            if decision in (Decision.CREATED, Decision.REQUEUED):
                queued_here.add(key)
                attempt_id = _new_id()
                number = (job.attempts if job else 0) + 1
                job_rows.append(_job_row(new, job, attempt_id, number, now))
                attempt_rows.append(_attempt_row(new, attempt_id, number, now))
        if job_rows:
            self._upsert_jobs(c, job_rows)
            c.execute(attempts.insert(), attempt_rows)
        for new, decision in zip(new_jobs, decisions, strict=True):
            if decision is Decision.IN_PROGRESS:
                self._refresh_waiting(c, new, busy.get((new.job_type, new.job_id), []))
        after = self._jobs_by_key(c, [(new.job_type, new.job_id) for new in new_jobs])
        return [
            Submitted(decision=decision, job=after[new.job_type, new.job_id])
            for new, decision in zip(new_jobs, decisions, strict=True)
        ]

    def _refresh_waiting(self, c: Connection, new: NewJob, active: Sequence[Attempt]) -> None:
        waiting = next((attempt for attempt in active if attempt.status is JobStatus.QUEUED), None)
        if waiting is None:
            return
        values: dict[str, Any] = {}
        if new.source_version != waiting.source_version:
            values["source_version"] = new.source_version
        if new.priority > waiting.priority:
            values.update(priority=new.priority, wave_id=None, position=None)
        if values:
            c.execute(
                attempts.update()
                .where(
                    attempts.c.attempt_id == waiting.attempt_id,
                    attempts.c.status == JobStatus.QUEUED.value,
                )
                .values(**values)
            )

    def _upsert_jobs(self, c: Connection, rows: list[dict[str, Any]]) -> None:
        insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
        statement = insert(jobs)
        keep = {"job_type", "job_id", "created_at", "result_data", "completed_at"}
        c.execute(
            statement.on_conflict_do_update(
                index_elements=[jobs.c.job_type, jobs.c.job_id],
                set_={column.name: statement.excluded[column.name] for column in jobs.c if column.name not in keep},
            ),
            rows,
        )

    def _jobs_by_key(
        self, c: Connection, keys: Sequence[tuple[str, str]], *, lock: bool = False
    ) -> dict[tuple[str, str], Job]:
        found: dict[tuple[str, str], Job] = {}
        for job_type in {key[0] for key in keys}:
            ids = sorted({key[1] for key in keys if key[0] == job_type})
            for chunk in chunks(ids):
                query = jobs.select().where(jobs.c.job_type == job_type, jobs.c.job_id.in_(chunk))
                for row in c.execute(query.with_for_update() if lock else query):
                    job = _job(row)
                    found[job.job_type, job.job_id] = job
        return found

    def _active_attempts(self, c: Connection, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Attempt]]:
        found: dict[tuple[str, str], list[Attempt]] = {}
        for job_type in {key[0] for key in keys}:
            ids = [key[1] for key in keys if key[0] == job_type]
            for chunk in chunks(ids):
                query = _attempt_query().where(
                    attempts.c.job_type == job_type,
                    attempts.c.job_id.in_(chunk),
                    attempts.c.status.in_([JobStatus.QUEUED.value, JobStatus.PROCESSING.value]),
                )
                for row in c.execute(query):
                    attempt = _attempt(row)
                    found.setdefault((attempt.job_type, attempt.job_id), []).append(attempt)
        return found

    # --- waves --------------------------------------------------------------------------------------------

    def assign_waves(self, *, wave_size: int, waves_at_once: int, only_jobs: Sequence[Job] = ()) -> list[Wave]:
        """Put queued attempts into waves and return the new ones, most urgent first.

        A wave holds one workflow and one priority, and no partition twice; partitions at work or already in
        another wave wait.  Interactive attempts get a wave of their own whatever else is under way; of bulk
        waves at most ``waves_at_once`` of one workflow are open.  ``only_jobs`` restricts the choice.
        """
        made: list[Wave] = []
        only = {(job.job_type, job.job_id) for job in only_jobs}
        for job_type, priority in self._read(self._waiting_groups):
            ids = sorted(job_id for only_type, job_id in only if only_type == job_type)
            if only and not ids:
                continue
            while True:
                wave = self._write(
                    lambda c, t=job_type, p=priority, i=ids: self._assign_one(c, t, p, wave_size, waves_at_once, i)  # type: ignore[misc]
                )
                if wave is None:
                    break
                made.append(wave)
        return made

    def _waiting_groups(self, c: Connection) -> list[tuple[str, int]]:
        query = (
            sa.select(attempts.c.job_type, attempts.c.priority)
            .where(WAITS_FOR_A_WAVE)
            .distinct()
            .order_by(attempts.c.priority.desc(), attempts.c.job_type)
        )
        return [(row.job_type, row.priority) for row in c.execute(query)]

    def _assign_one(
        self,
        c: Connection,
        job_type: str,
        priority: int,
        wave_size: int,
        waves_at_once: int,
        only_ids: Sequence[str],
    ) -> Wave | None:
        if c.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
            c.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _DISPATCH_LOCK})
        if priority <= BULK_PRIORITY and self._open_bulk_waves(c, job_type) >= waves_at_once:
            return None
        chosen = self._choose(c, job_type, priority, wave_size, only_ids)
        if not chosen:
            return None
        wave = Wave(wave_id=f"wave-{_new_id()}", job_type=job_type, priority=priority, size=len(chosen))
        c.execute(
            attempts.update()
            .where(
                attempts.c.attempt_id == sa.bindparam("b_attempt"),
                attempts.c.status == JobStatus.QUEUED.value,
                attempts.c.wave_id.is_(None),
            )
            .values(wave_id=wave.wave_id, position=sa.bindparam("b_position")),
            [{"b_attempt": attempt_id, "b_position": index} for index, attempt_id in enumerate(chosen)],
        )
        won = c.execute(
            sa.select(sa.func.count()).select_from(attempts).where(attempts.c.wave_id == wave.wave_id)
        ).scalar_one()
        if won == 0:  # a run or a cancellation was faster with every one
            return None
        c.execute(
            waves.insert().values(
                wave_id=wave.wave_id,
                job_type=job_type,
                priority=priority,
                size=won,
                open=True,
                created_at=_now(),
            )
        )
        return replace(wave, size=won)

    def _open_bulk_waves(self, c: Connection, job_type: str) -> int:
        return c.execute(
            sa.select(sa.func.count())
            .select_from(waves)
            .where(waves.c.open, waves.c.job_type == job_type, waves.c.priority <= BULK_PRIORITY)
        ).scalar_one()

    def _choose(
        self, c: Connection, job_type: str, priority: int, wave_size: int, only_ids: Sequence[str]
    ) -> list[str]:
        """Waiting attempts for one wave, no partition twice nor one that is at work or in a wave."""
        other = attempts.alias("other")
        taken = (
            sa.select(sa.literal(1))
            .select_from(other)
            .where(
                other.c.asset == attempts.c.asset,
                other.c.partition_key == attempts.c.partition_key,
                sa.or_(
                    other.c.status == JobStatus.PROCESSING.value,
                    sa.and_(other.c.status == JobStatus.QUEUED.value, other.c.wave_id.is_not(None)),
                ),
            )
        )
        mine = (WAITS_FOR_A_WAVE, attempts.c.job_type == job_type, attempts.c.priority == priority)
        query = (
            sa.select(attempts.c.attempt_id, attempts.c.asset, attempts.c.partition_key)
            .where(*mine, attempts.c.cancel_requested.is_(False), ~taken.exists())
            .order_by(attempts.c.attempt_id)
        )
        if only_ids:
            named = (query.where(attempts.c.job_id.in_(ids)).limit(wave_size) for ids in chunks(only_ids))
            rows: Iterable[sa.Row[Any]] = (row for one in named for row in c.execute(one).all())
        else:
            rows = _in_turn(c, query, sa.select(attempts.c.source).where(*mine).distinct(), wave_size)
        chosen: dict[tuple[str, str], str] = {}
        for row in rows:
            chosen.setdefault((row.asset, row.partition_key), row.attempt_id)
            if len(chosen) >= wave_size:  # of many ids, those beyond are not read
                break
        return list(chosen.values())

    def open_waves(self) -> list[Wave]:
        """Waves whose run has not been seen to end, most urgent and oldest first."""

        def query(c: Connection) -> list[Wave]:
            rows = c.execute(waves.select().where(waves.c.open).order_by(waves.c.priority.desc(), waves.c.wave_id))
            return [
                Wave(wave_id=row.wave_id, job_type=row.job_type, priority=row.priority, size=row.size) for row in rows
            ]

        return self._read(query)

    def close_wave(
        self, wave_id: str, *, cancelled: bool = False, count_release: bool = False, max_releases: int
    ) -> int:
        """Close a wave and free the attempts it never handed to a run; returns how many those are.

        They wait for another wave, or are cancelled with their run; with ``count_release`` (the run failed before
        it claimed them) those that were freed too often are given up, so that a broken start does not loop.
        """

        def work(c: Connection) -> int:
            now = _now()
            left = self._attempts_where(
                c, attempts.c.wave_id == wave_id, attempts.c.status == JobStatus.QUEUED.value, lock=True
            )
            ending: list[Settlement] = []
            for attempt in left:
                if cancelled:
                    ending.append(_cancellation(attempt, "the run was terminated before it started"))
                elif count_release and attempt.releases >= max_releases:
                    message = (
                        f"no run could start this job, {attempt.releases + 1} times over; not tried again by itself"
                        " (look at the failed runs, then retry)"
                    )
                    ending.append(_failure(attempt, message))
            self._settle_all(c, ending, now)
            c.execute(
                attempts.update()
                .where(attempts.c.wave_id == wave_id, attempts.c.status == JobStatus.QUEUED.value)
                .values(wave_id=None, position=None, releases=attempts.c.releases + int(count_release))
            )
            c.execute(waves.update().where(waves.c.wave_id == wave_id, waves.c.open).values(open=False, closed_at=now))
            return len(left)

        return self._write(work)

    def waiting_in_wave(self, wave_id: str) -> int:
        """Attempts of the wave that no run has claimed yet."""
        return self._read(
            lambda c: c.execute(
                sa.select(sa.func.count())
                .select_from(attempts)
                .where(attempts.c.wave_id == wave_id, attempts.c.status == JobStatus.QUEUED.value)
            ).scalar_one()
        )

    def waiting_partitions(self, *, limit: int) -> dict[tuple[str, str], list[str]]:
        """Partition keys of queued attempts without a wave, by (asset, job type): those of the first ``limit``."""

        def query(c: Connection) -> dict[tuple[str, str], list[str]]:
            found: dict[tuple[str, str], dict[str, None]] = {}
            rows = c.execute(
                sa.select(attempts.c.asset, attempts.c.job_type, attempts.c.partition_key)
                .where(attempts.c.status == JobStatus.QUEUED.value, attempts.c.wave_id.is_(None))
                .order_by(attempts.c.priority.desc(), attempts.c.attempt_id)
                .limit(limit)
            )
            for row in rows:
                keys = found.setdefault((row.asset, row.job_type), {})
                keys[row.partition_key] = None
            return {key: list(partitions) for key, partitions in found.items()}

        return self._read(query)

    # --- claiming -----------------------------------------------------------------------------------------

    def claim_wave(self, wave_id: str, run_id: str) -> list[Attempt]:
        """Give the wave's queued attempts to a run; those whose partition is busy go back to waiting.

        Asking twice with the same run id gives the same answer; a second run gets nothing.
        """

        def work(c: Connection) -> list[Attempt]:
            rows = c.execute(
                sa.select(attempts.c.attempt_id)
                .where(attempts.c.wave_id == wave_id, attempts.c.status == JobStatus.QUEUED.value)
                .order_by(attempts.c.position, attempts.c.attempt_id)
            ).scalars()
            self._claim(c, list(rows), run_id)
            c.execute(
                attempts.update()
                .where(attempts.c.wave_id == wave_id, attempts.c.status == JobStatus.QUEUED.value)
                .values(wave_id=None, position=None)
            )
            return self._attempts_where(c, attempts.c.run_id == run_id)

        return self._write(work)

    def claim_now(self, new_jobs: Sequence[NewJob], run_id: str) -> tuple[list[Attempt], list[NewJob]]:
        """Start attempts for jobs at once, for a run that was not asked for by a wave.

        A job's waiting attempt is taken over; otherwise a new one is made, whatever the record says.

        Returns:
            The run's attempts of these jobs' types, and the jobs whose partition is busy (nothing is written for
            those).
        """

        def work(c: Connection) -> tuple[list[Attempt], list[NewJob]]:
            now = _now()
            busy: list[NewJob] = []
            ids: list[str] = []
            seen: set[tuple[str, str]] = set()
            for new in new_jobs:
                if (new.asset, new.partition_key) in seen:  # two jobs of one partition: the first has it
                    busy.append(new)
                    continue
                seen.add((new.asset, new.partition_key))
                held = c.execute(
                    sa.select(attempts.c.run_id).where(
                        attempts.c.asset == new.asset,
                        attempts.c.partition_key == new.partition_key,
                        attempts.c.status == JobStatus.PROCESSING.value,
                    )
                ).first()
                if held is not None:
                    if held.run_id != run_id:
                        busy.append(new)
                    continue
                waiting = c.execute(
                    sa.select(attempts.c.attempt_id).where(
                        attempts.c.job_type == new.job_type,
                        attempts.c.job_id == new.job_id,
                        attempts.c.status == JobStatus.QUEUED.value,
                    )
                ).scalar()
                if waiting is None:
                    job = self._jobs_by_key(c, [(new.job_type, new.job_id)], lock=True).get((new.job_type, new.job_id))
                    waiting = _new_id()
                    number = (job.attempts if job else 0) + 1
                    self._upsert_jobs(c, [_job_row(new, job, waiting, number, now)])
                    c.execute(attempts.insert(), [_attempt_row(new, waiting, number, now)])
                else:
                    c.execute(
                        attempts.update()
                        .where(attempts.c.attempt_id == waiting)
                        .values(source_version=new.source_version)
                    )
                ids.append(waiting)
            # where another run takes a partition meanwhile, all of this is done again and finds it busy
            self._claim(c, ids, run_id, whole=True)
            types = {new.job_type for new in new_jobs}
            return self._attempts_where(c, attempts.c.run_id == run_id, attempts.c.job_type.in_(types)), busy

        return self._write(work)

    def _claim(self, c: Connection, attempt_ids: Sequence[str], run_id: str, *, whole: bool = False) -> None:
        """Give queued attempts to a run; those of a busy partition are left out, or (``whole``) fail the lot."""
        offset = c.execute(
            sa.select(sa.func.coalesce(sa.func.max(attempts.c.position), -1)).where(attempts.c.run_id == run_id)
        ).scalar_one()
        now = _now()
        statement = (
            attempts.update()
            .where(
                attempts.c.attempt_id == sa.bindparam("b_attempt"),
                _may_become(JobStatus.PROCESSING),
                attempts.c.cancel_requested.is_(False),
            )
            .values(
                status=JobStatus.PROCESSING.value,
                run_id=run_id,
                position=sa.bindparam("b_position"),
                started_at=now,
                heartbeat=now,
                ended_at=None,
            )
        )
        parameters = [
            {"b_attempt": attempt_id, "b_position": offset + 1 + index} for index, attempt_id in enumerate(attempt_ids)
        ]
        try:
            with c.begin_nested():
                if parameters:
                    c.execute(statement, parameters)
        except sa.exc.IntegrityError:
            if whole:
                raise
            # another attempt of one of these partitions is at work: that one waits, the others go on
            for parameter in parameters:
                with contextlib.suppress(sa.exc.IntegrityError), c.begin_nested():
                    c.execute(statement, [parameter])
        at_work = attempts.c.status == JobStatus.PROCESSING.value
        claimed = [attempt.attempt_id for attempt in self._attempts_where(c, attempts.c.run_id == run_id, at_work)]
        self._mirror(c, claimed, {"status": JobStatus.PROCESSING.value, "run_id": run_id, "updated_at": now})

    def _mirror(self, c: Connection, attempt_ids: Sequence[str], values: Mapping[str, Any]) -> None:
        """Write values to the jobs whose latest attempt is one of these."""
        for chunk in chunks(attempt_ids):
            c.execute(jobs.update().where(jobs.c.latest_attempt.in_(chunk)).values(**values))

    def attempts_of_run(
        self,
        run_id: str,
        *,
        job_type: str | None = None,
        first: int | None = None,
        last: int | None = None,
        statuses: Sequence[JobStatus] = (),
    ) -> list[Attempt]:
        """Attempts the run holds or held, by position; ``first``/``last`` bound the position, inclusive.

        A run that materializes several assets, selected together in the UI, has attempts of several job types.
        """
        conditions = [attempts.c.run_id == run_id, _of_type(job_type)]
        if first is not None:
            conditions.append(attempts.c.position >= first)
        if last is not None:
            conditions.append(attempts.c.position <= last)
        if statuses:
            conditions.append(attempts.c.status.in_([status.value for status in statuses]))
        return self._read(lambda c: self._attempts_where(c, *conditions))

    def attempts_of_wave(self, wave_id: str) -> list[Attempt]:
        """Attempts now in the wave."""
        return self._read(lambda c: self._attempts_where(c, attempts.c.wave_id == wave_id))

    def attempts_of_job(self, job_type: str, job_id: str) -> list[Attempt]:
        """Every attempt of a job, oldest first."""

        def query(c: Connection) -> list[Attempt]:
            rows = c.execute(
                _attempt_query()
                .where(attempts.c.job_type == job_type, attempts.c.job_id == job_id)
                .order_by(attempts.c.number)
            )
            return [_attempt(row) for row in rows]

        return self._read(query)

    def _attempts_where(self, c: Connection, *conditions: sa.ColumnElement[bool], lock: bool = False) -> list[Attempt]:
        query = _attempt_query().where(*conditions).order_by(attempts.c.position, attempts.c.attempt_id)
        if lock:  # a run that writes a result at this moment is waited for, and what it settled is left alone
            query = query.with_for_update(of=attempts)
        return [_attempt(row) for row in c.execute(query)]

    # --- recovery -----------------------------------------------------------------------------------------

    def active_run_ids(self) -> list[str]:
        """Runs that hold attempts at work."""
        return self._read(
            lambda c: list(
                c.execute(
                    sa.select(attempts.c.run_id).where(attempts.c.status == JobStatus.PROCESSING.value).distinct()
                ).scalars()
            )
        )

    def release_run(self, run_id: str, *, max_releases: int) -> tuple[int, int]:
        """Queue again what a dead run left unfinished; give up what died too often.

        Returns:
            How many attempts were queued again, and how many given up as failed.
        """

        def work(c: Connection) -> tuple[int, int]:
            now = _now()
            held = self._attempts_where(
                c, attempts.c.run_id == run_id, attempts.c.status == JobStatus.PROCESSING.value, lock=True
            )
            ending: list[Settlement] = []
            for attempt in held:
                ended = f"the run {run_id} ended before this job did"
                if attempt.cancel_requested:
                    ending.append(_cancellation(attempt, "cancelled on request; its run had ended"))
                elif self._has_queued_sibling(c, attempt):
                    ending.append(_failure(attempt, f"{ended}; a newer attempt of the job waits already"))
                elif attempt.releases >= max_releases:
                    message = (
                        f"{ended}, {attempt.releases + 1} time(s) over; not tried again by itself"
                        " (look at the run's log, then retry)"
                    )
                    ending.append(_failure(attempt, message))
                else:
                    self._queue_again(c, attempt, now)
            self._settle_all(c, ending, now, ends_tasks=True)
            return len(held) - len(ending), len(ending)

        return self._write(work)

    def _queue_again(self, c: Connection, attempt: Attempt, now: datetime) -> None:
        fresh: dict[str, Any] = {
            "status": JobStatus.QUEUED.value,
            "run_id": None,
            "stage": 1,
            "stage_results": {},
        }
        c.execute(
            attempts.update()
            .where(attempts.c.attempt_id == attempt.attempt_id, _may_become(JobStatus.QUEUED))
            .values(**fresh, wave_id=None, position=None, planned=False, releases=attempt.releases + 1)
        )
        c.execute(tasks.delete().where(tasks.c.attempt_id == attempt.attempt_id))
        self._mirror(c, [attempt.attempt_id], {**fresh, "updated_at": now})

    def cancel_run(self, run_id: str, reason: str) -> list[str]:
        """Cancel what the run has not finished; returns the attempt ids."""

        def work(c: Connection) -> list[str]:
            now = _now()
            held = self._attempts_where(
                c, attempts.c.run_id == run_id, attempts.c.status == JobStatus.PROCESSING.value, lock=True
            )
            self._settle_all(c, [_cancellation(attempt, reason) for attempt in held], now)
            return [attempt.attempt_id for attempt in held]

        return self._write(work)

    def cancel(self, job_type: str, job_id: str) -> tuple[int, int]:
        """Cancel a job: what waits ends at once, what is at work is asked to stop between two tasks.

        Returns:
            How many attempts ended at once, and how many were asked to stop.
        """

        def work(c: Connection) -> tuple[int, int]:
            now = _now()
            mine = sa.and_(attempts.c.job_type == job_type, attempts.c.job_id == job_id)
            waiting = self._attempts_where(c, mine, attempts.c.status == JobStatus.QUEUED.value, lock=True)
            reason = "cancelled on request before it started"
            self._settle_all(c, [_cancellation(attempt, reason) for attempt in waiting], now)
            asked = c.execute(
                attempts.update()
                .where(mine, attempts.c.status == JobStatus.PROCESSING.value)
                .values(cancel_requested=True)
            ).rowcount
            return len(waiting), int(asked)

        return self._write(work)

    def _has_queued_sibling(self, c: Connection, attempt: Attempt) -> bool:
        return (
            c.execute(
                sa.select(attempts.c.attempt_id).where(
                    attempts.c.job_type == attempt.job_type,
                    attempts.c.job_id == attempt.job_id,
                    attempts.c.status == JobStatus.QUEUED.value,
                )
            ).first()
            is not None
        )

    # --- work: every method checks the fence -----------------------------------------------------------------

    def insert_tasks(self, run_id: str, rows: Sequence[NewTask]) -> set[str]:
        """Insert tasks of attempts the run holds; doing it twice changes nothing.

        Returns:
            The attempts among them that the run no longer holds; nothing was written for those.
        """

        def work(c: Connection) -> set[str]:
            wanted = {row.attempt_id for row in rows}
            owned = self._owned(c, run_id, wanted)
            now = _now()
            values = [
                {
                    "attempt_id": row.attempt_id,
                    "stage": row.stage,
                    "task_index": row.task_index,
                    "task_id": row.task_id,
                    "parent_job_id": row.parent_job_id,
                    "job_type": row.job_type,
                    "task_type": row.task_type,
                    "parameters": row.parameters,
                    "metadata": row.metadata,
                    "status": row.status.value,
                    "retry_count": 0,
                    "heartbeat": now if row.status is TaskStatus.PROCESSING else None,
                    "created_at": now,
                    "updated_at": now,
                }
                for row in rows
                if row.attempt_id in owned
            ]
            insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
            for chunk in chunks(values, 5000):
                c.execute(insert(tasks).on_conflict_do_nothing(), list(chunk))
            return wanted - owned

        return self._write(work)

    def start_tasks(self, run_id: str, keys: Sequence[tuple[str, int, int]]) -> set[str]:
        """Mark queued tasks as processing; returns the attempts the run no longer holds."""

        def work(c: Connection) -> set[str]:
            wanted = {key[0] for key in keys}
            owned = self._owned(c, run_id, wanted)
            now = _now()
            parameters = [{**_task_key(key), "now": now} for key in keys if key[0] in owned]
            if parameters:
                c.execute(
                    tasks.update()
                    .where(*_TASK_KEY, tasks.c.status == TaskStatus.QUEUED.value)
                    .values(
                        status=TaskStatus.PROCESSING.value,
                        heartbeat=sa.bindparam("now"),
                        updated_at=sa.bindparam("now"),
                    ),
                    parameters,
                )
            return wanted - owned

        return self._write(work)

    def finish_tasks(self, run_id: str, updates: Sequence[TaskUpdate]) -> set[str]:
        """Write how tasks ended, in one go; returns the attempts the run no longer holds."""

        def work(c: Connection) -> set[str]:
            wanted = {update.attempt_id for update in updates}
            owned = self._owned(c, run_id, wanted)
            now = _now()
            parameters = [
                {
                    **_task_key((update.attempt_id, update.stage, update.task_index)),
                    "new_status": update.status.value,
                    "new_outcome": update.outcome.value if update.outcome else None,
                    "new_reason": update.reason,
                    "new_result": update.result_data,
                    "new_error": update.error_details,
                    "new_traceback": update.traceback,
                    "new_retry": update.retry_count,
                    "new_time": update.execution_time_ms,
                    "now": now,
                }
                for update in updates
                if update.attempt_id in owned
            ]
            if parameters:
                c.execute(
                    tasks.update()
                    .where(*_TASK_KEY)
                    .values(
                        status=sa.bindparam("new_status"),
                        outcome=sa.bindparam("new_outcome"),
                        reason=sa.bindparam("new_reason"),
                        result_data=sa.bindparam("new_result"),
                        error_details=sa.bindparam("new_error"),
                        traceback=sa.bindparam("new_traceback"),
                        retry_count=sa.bindparam("new_retry"),
                        execution_time_ms=sa.bindparam("new_time"),
                        heartbeat=sa.bindparam("now"),
                        updated_at=sa.bindparam("now"),
                    ),
                    parameters,
                )
            return wanted - owned

        return self._write(work)

    def advance(self, run_id: str, stages: Mapping[str, tuple[int, Mapping[str, Any]]]) -> set[str]:
        """Write the stage each attempt has reached and its stage results; returns the attempts lost."""

        def work(c: Connection) -> set[str]:
            owned = self._owned(c, run_id, set(stages))
            now = _now()
            parameters = [
                {"b_attempt": attempt_id, "b_stage": stage, "b_results": dict(results), "now": now}
                for attempt_id, (stage, results) in stages.items()
                if attempt_id in owned
            ]
            if parameters:
                c.execute(
                    attempts.update()
                    .where(attempts.c.attempt_id == sa.bindparam("b_attempt"))
                    .values(
                        stage=sa.bindparam("b_stage"),
                        stage_results=sa.bindparam("b_results"),
                        heartbeat=sa.bindparam("now"),
                    ),
                    parameters,
                )
                c.execute(
                    jobs.update()
                    .where(jobs.c.latest_attempt == sa.bindparam("b_attempt"))
                    .values(
                        stage=sa.bindparam("b_stage"),
                        stage_results=sa.bindparam("b_results"),
                        updated_at=sa.bindparam("now"),
                    ),
                    parameters,
                )
            return set(stages) - owned

        return self._write(work)

    def settle(self, run_id: str, settlements: Sequence[Settlement]) -> set[str]:
        """End attempts; returns those the run no longer holds, for which nothing was written."""

        def work(c: Connection) -> set[str]:
            wanted = {settlement.attempt_id for settlement in settlements}
            owned = self._owned(c, run_id, wanted)
            now = _now()
            self._settle_all(c, [one for one in settlements if one.attempt_id in owned], now)
            # a commit whose answer was lost is asked for again: what this run settled in just this way is not lost;
            # what was cancelled or given up meanwhile is, though its run is still on record
            ours: set[str] = set()
            asked = {settlement.attempt_id: settlement for settlement in settlements}
            for chunk in chunks(sorted(wanted - owned)):
                rows = c.execute(
                    sa.select(attempts.c.attempt_id, attempts.c.status, attempts.c.outcome).where(
                        attempts.c.attempt_id.in_(chunk), attempts.c.run_id == run_id
                    )
                )
                ours.update(
                    row.attempt_id
                    for row in rows
                    if (row.status, row.outcome) == (asked[row.attempt_id].status, asked[row.attempt_id].outcome)
                )
            return wanted - owned - ours

        return self._write(work)

    def _settle_all(
        self, c: Connection, settlements: Iterable[Settlement], now: datetime, *, ends_tasks: bool = False
    ) -> None:
        """The one place where attempts end; with ``ends_tasks``, their unfinished tasks are cancelled."""
        by_status: dict[JobStatus, list[Settlement]] = {}
        for settlement in settlements:
            by_status.setdefault(settlement.status, []).append(settlement)
        for status, group in by_status.items():
            self._settle_alike(c, status, group, now)
            if ends_tasks or status is JobStatus.CANCELLED:
                self._end_tasks(c, [settlement.attempt_id for settlement in group], now)

    def _settle_alike(self, c: Connection, status: JobStatus, group: Sequence[Settlement], now: datetime) -> None:
        parameters = [
            {
                "b_attempt": settlement.attempt_id,
                "b_outcome": settlement.outcome.value,
                "b_reason": settlement.reason,
                "b_error": settlement.error_details,
                "b_traceback": settlement.traceback,
                "b_result": dict(settlement.result_data) if settlement.result_data is not None else None,
                "b_stage": settlement.stage,
                "b_results": dict(settlement.stage_results),
                "now": now,
            }
            for settlement in group
        ]
        values: dict[str, Any] = {
            "status": status.value,
            "outcome": sa.bindparam("b_outcome"),
            "reason": sa.bindparam("b_reason"),
            "error_details": sa.bindparam("b_error"),
            "stage": sa.bindparam("b_stage"),
            "stage_results": sa.bindparam("b_results"),
        }
        c.execute(
            attempts.update()
            .where(attempts.c.attempt_id == sa.bindparam("b_attempt"), _may_become(status))
            .values(
                **values,
                traceback=sa.bindparam("b_traceback"),
                result_data=sa.bindparam("b_result"),
                ended_at=sa.bindparam("now"),
            ),
            parameters,
        )
        self._require_settled(c, status, group, now)
        if status is not JobStatus.CANCELLED:  # a cancelled job keeps the result it had
            values["result_data"] = sa.bindparam("b_result")
        source = sa.select(attempts.c.source_version).where(attempts.c.attempt_id == sa.bindparam("b_attempt"))
        c.execute(
            jobs.update()
            .where(jobs.c.latest_attempt == sa.bindparam("b_attempt"))
            .values(
                **values,
                source_version=source.scalar_subquery(),
                updated_at=sa.bindparam("now"),
                completed_at=sa.bindparam("now"),
            ),
            parameters,
        )

    def _require_settled(self, c: Connection, status: JobStatus, group: Sequence[Settlement], now: datetime) -> None:
        for chunk in chunks(group):
            ids = [settlement.attempt_id for settlement in chunk]
            changed = set(
                c.execute(
                    sa.select(attempts.c.attempt_id).where(
                        attempts.c.attempt_id.in_(ids), attempts.c.status == status.value, attempts.c.ended_at == now
                    )
                ).scalars()
            )
            refused = next((attempt_id for attempt_id in ids if attempt_id not in changed), None)
            if refused is not None:
                msg = (
                    f"attempt {refused} cannot become {status.value} from where it stands;"
                    " look at its job with 'geo-assets status'"
                )
                raise IllegalTransitionError(msg)

    def _end_tasks(self, c: Connection, attempt_ids: Sequence[str], now: datetime) -> None:
        unfinished = [TaskStatus.QUEUED.value, TaskStatus.PROCESSING.value]
        for chunk in chunks(attempt_ids):
            c.execute(
                tasks.update()
                .where(tasks.c.attempt_id.in_(chunk), tasks.c.status.in_(unfinished))
                .values(status=TaskStatus.CANCELLED.value, outcome=OutcomeKind.CANCELLED.value, updated_at=now)
            )

    def heartbeat(self, run_id: str, keys: Sequence[tuple[str, int, int]]) -> set[str]:
        """Write a heartbeat for running tasks; returns the attempts among them that were asked to stop or lost."""

        def work(c: Connection) -> set[str]:
            now = _now()
            wanted = {key[0] for key in keys}
            owned = self._owned(c, run_id, wanted)
            parameters = [{**_task_key(key), "now": now} for key in keys if key[0] in owned]
            if parameters:
                c.execute(tasks.update().where(*_TASK_KEY).values(heartbeat=sa.bindparam("now")), parameters)
            going_on: set[str] = set()
            for chunk in chunks(sorted(owned)):
                mine = attempts.c.attempt_id.in_(chunk)
                c.execute(attempts.update().where(mine).values(heartbeat=now))
                going_on.update(
                    c.execute(
                        sa.select(attempts.c.attempt_id).where(mine, attempts.c.cancel_requested.is_(False))
                    ).scalars()
                )
            return wanted - going_on

        return self._write(work)

    def stop_requested(self, run_id: str, attempt_ids: Iterable[str]) -> set[str]:
        """Which of these attempts were asked to stop, or are no longer the run's."""
        wanted = sorted(set(attempt_ids))

        def query(c: Connection) -> set[str]:
            going_on: set[str] = set()
            for chunk in chunks(wanted):
                going_on.update(
                    c.execute(
                        sa.select(attempts.c.attempt_id).where(
                            attempts.c.attempt_id.in_(chunk),
                            attempts.c.run_id == run_id,
                            attempts.c.status == JobStatus.PROCESSING.value,
                            attempts.c.cancel_requested.is_(False),
                        )
                    ).scalars()
                )
            return set(wanted) - going_on

        return self._read(query)

    def _owned(self, c: Connection, run_id: str, attempt_ids: Iterable[str]) -> set[str]:
        owned: set[str] = set()
        for chunk in chunks(sorted(attempt_ids)):
            query = (
                sa.select(attempts.c.attempt_id)
                .where(
                    attempts.c.attempt_id.in_(chunk),
                    attempts.c.run_id == run_id,
                    attempts.c.status == JobStatus.PROCESSING.value,
                )
                .order_by(attempts.c.attempt_id)
                # chunks of one job write its tasks side by side; only a change of the attempt itself must wait
                .with_for_update(read=True)
            )
            owned.update(c.execute(query).scalars())
        return owned

    # --- events -------------------------------------------------------------------------------------------

    def mark_planned(self, attempt_ids: Sequence[str]) -> None:
        """Record that the planned event of these attempts is out."""
        self._flag(attempt_ids, planned=True)

    def mark_emitted(self, attempt_ids: Sequence[str]) -> None:
        """Record that the materialization of these attempts is out (or that none is due)."""
        self._flag(attempt_ids, event_emitted=True)

    def _flag(self, attempt_ids: Sequence[str], **flags: bool) -> None:
        def work(c: Connection) -> None:
            for chunk in chunks(attempt_ids):
                c.execute(attempts.update().where(attempts.c.attempt_id.in_(chunk)).values(**flags))

        if attempt_ids:
            self._write(work)

    def unemitted_runs(self, *, limit: int = 50) -> list[str]:
        """Runs with finished attempts whose materialization may still be due."""
        return self._read(
            lambda c: list(
                c.execute(
                    sa.select(attempts.c.run_id)
                    .where(MATERIALIZATION_OWED, attempts.c.run_id.is_not(None))
                    .distinct()
                    .limit(limit)
                ).scalars()
            )
        )

    def was_materialized(self, asset: str, partition_keys: Sequence[str]) -> set[str]:
        """Which of these partitions a finished attempt has materialized before."""

        def query(c: Connection) -> set[str]:
            found: set[str] = set()
            for chunk in chunks(partition_keys):
                found.update(
                    c.execute(
                        sa.select(attempts.c.partition_key)
                        .where(
                            attempts.c.asset == asset,
                            attempts.c.partition_key.in_(chunk),
                            # one that had nothing to do was either written itself or came after one that was
                            attempts.c.event_emitted,
                            attempts.c.status.in_([JobStatus.COMPLETED.value, JobStatus.COMPLETED_WITH_ERRORS.value]),
                            attempts.c.withdrawn_at.is_(None),
                        )
                        .distinct()
                    ).scalars()
                )
            return found

        return self._read(query)

    # --- taking back --------------------------------------------------------------------------------------

    def attempts_by_id(self, attempt_ids: Sequence[str]) -> list[Attempt]:
        """These attempts, those that there are, oldest first."""

        def query(c: Connection) -> list[Attempt]:
            found: list[Attempt] = []
            for chunk in chunks(attempt_ids):
                found += self._attempts_where(c, attempts.c.attempt_id.in_(chunk))
            return sorted(found, key=lambda attempt: attempt.attempt_id)

        return self._read(query)

    def attempts_of_partitions(self, assets: Sequence[str], partition_keys: Sequence[str]) -> list[Attempt]:
        """Every attempt of these assets for these partitions, oldest first."""

        def query(c: Connection) -> list[Attempt]:
            found: list[Attempt] = []
            for chunk in chunks(partition_keys):
                found += self._attempts_where(c, attempts.c.asset.in_(assets), attempts.c.partition_key.in_(chunk))
            return sorted(found, key=lambda attempt: attempt.attempt_id)

        return self._read(query)

    def recorded_results(self, job_types: Sequence[str], *, containing: Sequence[str] = ()) -> Iterator[Recorded]:
        """Results of attempts whose publications stand, oldest first, read 1,000 at a time.

        Args:
            job_types: of these workflows.
            containing: only results whose text has one of these, which are to be letters and digits (any case).
        """
        text = sa.cast(attempts.c.result_data, sa.Text)
        conditions: list[sa.ColumnElement[bool]] = [
            attempts.c.job_type.in_(job_types),
            attempts.c.result_data.is_not(None),
            attempts.c.withdrawn_at.is_(None),
        ]
        if containing:
            conditions.append(sa.or_(*(text.icontains(word, autoescape=True) for word in containing)))
        # ids first: pages by the order of the key would search and sort the whole table once a page
        wanted = sa.select(attempts.c.attempt_id).where(*conditions)
        ids = sorted(self._read(lambda c: list(c.execute(wanted).scalars())))
        columns = [attempts.c[name] for name in Recorded.__dataclass_fields__]
        for chunk in chunks(ids):
            query = sa.select(*columns).where(attempts.c.attempt_id.in_(chunk)).order_by(attempts.c.attempt_id)
            yield from self._read(lambda c, q=query: [Recorded(**row._mapping) for row in c.execute(q)])  # type: ignore[misc]  # noqa: SLF001

    def audit(
        self, action: str, *, who: str, asset: str, inventories: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> dict[str, str]:
        """Record that somebody begins to do something to partitions; :meth:`audit_ended` says how it ended.

        Args:
            action: such as ``unpublish``.
            who: the person or program.
            asset: whose partitions.
            inventories: partition key → one JSON object a thing, as it was found.

        Returns:
            Partition key → id of the new row.
        """
        now = _now()
        ids = {partition_key: _new_id() for partition_key in inventories}
        rows = [
            {
                "audit_id": audit_id,
                "action": action,
                "who": who,
                "asset": asset,
                "partition_key": partition_key,
                "inventory": [dict(thing) for thing in inventories[partition_key]],
                "complete": False,
                "started_at": now,
            }
            for partition_key, audit_id in ids.items()
        ]

        def work(c: Connection) -> None:
            insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
            for chunk in chunks(rows):
                c.execute(insert(audit).on_conflict_do_nothing(), list(chunk))

        if rows:
            self._write(work)
        return ids

    def audit_ended(
        self, audit_id: str, *, inventory: Sequence[Mapping[str, Any]], withdraw: Sequence[str] | None = None
    ) -> None:
        """Record what became of each thing; with ``withdraw`` nothing remains, and these attempts no longer count.

        An attempt that was withdrawn answers no submission, materializes nothing any more, and owes no event.
        """

        def work(c: Connection) -> None:
            now = _now()
            for chunk in chunks(withdraw or ()):
                c.execute(
                    attempts.update()
                    .where(attempts.c.attempt_id.in_(chunk), attempts.c.withdrawn_at.is_(None))
                    .values(withdrawn_at=now, event_emitted=True)
                )
            self._mirror(c, withdraw or (), {"withdrawn_at": now})
            c.execute(
                audit.update()
                .where(audit.c.audit_id == audit_id)
                .values(inventory=[dict(thing) for thing in inventory], complete=withdraw is not None, ended_at=now)
            )

        self._write(work)

    def audits(
        self, *, asset: str | None = None, partition_key: str | None = None, limit: int | None = 100
    ) -> list[AuditEntry]:
        """What was done to partitions, newest first."""
        query = audit.select().order_by(audit.c.audit_id.desc())
        if asset is not None:
            query = query.where(audit.c.asset == asset)
        if partition_key is not None:
            query = query.where(audit.c.partition_key == partition_key)
        if limit is not None:
            query = query.limit(limit)
        return self._read(lambda c: [AuditEntry(**row._mapping) for row in c.execute(query)])  # noqa: SLF001

    # --- names ----------------------------------------------------------------------------------------------

    def claims(self, names: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Name → asset and partition key that claim it, of those that somebody claims."""
        query = claims.select().where(claims.c.name.in_(list(names)))
        return self._read(lambda c: {row.name: (row.asset, row.partition_key) for row in c.execute(query)})

    def claim(self, names: Sequence[str], *, asset: str, partition_key: str) -> None:
        """Claim names for a partition, whoever claimed them before."""

        def work(c: Connection) -> None:
            insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
            statement = insert(claims)
            changed = {name: statement.excluded[name] for name in ("asset", "partition_key", "claimed_at")}
            owner = {"asset": asset, "partition_key": partition_key, "claimed_at": _now()}
            c.execute(
                statement.on_conflict_do_update(index_elements=[claims.c.name], set_=changed),
                # in one order for all writers, or two could wait for each other
                [{"name": name, **owner} for name in sorted(set(names))],
            )

        self._write(work)

    def release_claims(self, asset: str, partition_key: str) -> None:
        """Claim nothing for a partition any more."""
        mine = (claims.c.asset == asset, claims.c.partition_key == partition_key)
        self._write(lambda c: c.execute(claims.delete().where(*mine)))

    # --- reading ------------------------------------------------------------------------------------------

    def job(self, job_id: str, job_type: str | None = None) -> Job:
        """One job by id or by an unambiguous beginning of it (at least 8 characters).

        Raises:
            JobNotFoundError: none matches.
            ParameterError: several match (names their types), or the beginning is too short.
        """
        prefix_length = 8
        every = jobs.select() if job_type is None else jobs.select().where(jobs.c.job_type == job_type)
        # the whole id counts before a beginning: ids of legacy classes may be of any length and any case
        found = self._jobs_where(every, jobs.c.job_id == job_id)
        if not found and len(job_id) < prefix_length:
            msg = f"'{job_id}' is too short for a job id: give at least its first {prefix_length} characters"
            raise ParameterError(msg)
        if not found:
            found = self._jobs_where(every, sa.func.lower(jobs.c.job_id).startswith(job_id.lower(), autoescape=True))
        if not found:
            of_type = f" of type '{job_type}'" if job_type else ""
            msg = f"no job{of_type} with the id '{job_id}' is in the ledger; list them with 'geo-assets jobs'"
            raise JobNotFoundError(msg)
        if len(found) > 1:
            options = ", ".join(f"{job.job_type}/{job.job_id[:12]}" for job in found)
            msg = f"'{job_id}' matches several jobs ({options}); give the whole id and the job type"
            raise ParameterError(msg)
        return found[0]

    def _jobs_where(self, query: sa.Select[Any], condition: sa.ColumnElement[bool]) -> list[Job]:
        return self._read(lambda c: [_job(row) for row in c.execute(query.where(condition).limit(20))])

    def latest_job(self, asset: str, partition_key: str, job_type: str) -> Job | None:
        """The job that was last submitted for a partition, those left out that were only ever :data:`INTERNAL`."""
        of_job = (attempts.c.job_type == jobs.c.job_type, attempts.c.job_id == jobs.c.job_id)
        internal = sa.select(sa.literal(1)).where(*of_job, attempts.c.submitted_by == INTERNAL).exists()
        wanted = sa.select(sa.literal(1)).where(*of_job, attempts.c.submitted_by != INTERNAL).exists()

        def query(c: Connection) -> Job | None:
            row = c.execute(
                jobs.select()
                .where(jobs.c.asset == asset, jobs.c.partition_key == partition_key, jobs.c.job_type == job_type)
                .where(wanted | ~internal)
                .order_by(jobs.c.latest_attempt.desc())  # sorts by the time of its submission
                .limit(1)
            ).first()
            return _job(row) if row is not None else None

        return self._read(query)

    def history(self, current: Sequence[Attempt], *, limit: int = 10) -> dict[str, list[Attempt]]:
        """Attempts that ended before each of these, of the same workflow and partition, newest first; by attempt id.

        Those that were cancelled, or taken back since, are left out.
        """

        def query(c: Connection) -> dict[tuple[str, str, str], list[Attempt]]:
            found: dict[tuple[str, str, str], list[Attempt]] = {}
            same = (attempts.c.asset, attempts.c.partition_key, attempts.c.job_type)
            for chunk in chunks(sorted({attempt.partition_key for attempt in current})):
                ranked = (
                    sa.select(
                        attempts.c.attempt_id,
                        # ids sort by the time of submission
                        sa.func.row_number().over(partition_by=same, order_by=attempts.c.attempt_id.desc()).label("n"),
                    )
                    .where(
                        attempts.c.asset.in_(sorted({attempt.asset for attempt in current})),
                        attempts.c.partition_key.in_(chunk),
                        attempts.c.status.in_([status.value for status in _WITH_RESULT]),
                        attempts.c.withdrawn_at.is_(None),
                    )
                    .subquery()
                )
                newest = sa.select(ranked.c.attempt_id).where(ranked.c.n <= limit)
                for attempt in self._attempts_where(c, attempts.c.attempt_id.in_(newest)):
                    found.setdefault((attempt.asset, attempt.partition_key, attempt.job_type), []).append(attempt)
            return found

        known = self._read(query)
        for before in known.values():
            before.sort(key=lambda attempt: attempt.attempt_id, reverse=True)
        keys = {attempt.attempt_id: (attempt.asset, attempt.partition_key, attempt.job_type) for attempt in current}
        return {attempt_id: known[key] for attempt_id, key in keys.items() if key in known}

    def jobs(self, which: JobFilter | None = None, *, limit: int | None = 100) -> list[Job]:
        """Jobs that match, newest first."""
        which = which or JobFilter()
        query = _filtered(which)
        newest = (jobs.c.updated_at.desc(), jobs.c.job_id)
        if which.reason_group is None and len(which.keys or ()) <= IN_LIMIT:
            return self._read(lambda c: [_job(row) for row in c.execute(query.order_by(*newest).limit(limit))])
        # a database knows neither groups of reasons nor lists of any length: ids are sorted out here, jobs read then
        wanted = None if which.keys is None else frozenset(which.keys)
        columns = (jobs.c.job_type, jobs.c.job_id, jobs.c.partition_key, _WHY)

        def search(c: Connection) -> list[Job]:
            rows = _streamed(c, query.with_only_columns(*columns).order_by(*newest))
            matching = (
                (row.job_type, row.job_id)
                for row in rows
                if (wanted is None or row.partition_key in wanted)
                and (which.reason_group is None or group_of(row.why) == which.reason_group)
            )
            keys = list(islice(matching, limit))
            found = self._jobs_by_key(c, keys)
            return [found[key] for key in keys]

        return self._read(search)

    def failures_by_reason(self, which: JobFilter | None = None) -> list[FailureGroup]:
        """Jobs that need attention by asset and reason, most frequent first; however many there are, few are held."""
        which = which or JobFilter()
        base = _filtered(replace(which, statuses=which.statuses or FAILED_STATUSES))
        columns = (jobs.c.asset, _WHY, sa.func.count().label("n"), sa.func.min(jobs.c.partition_key).label("example"))
        # equal texts are counted by the database, a line in the order of the partitions where each differs
        query = base.with_only_columns(*columns).group_by(jobs.c.asset, _WHY.element)
        wanted = None if which.keys is None or len(which.keys) <= IN_LIMIT else frozenset(which.keys)
        if wanted is not None:
            query = query.group_by(jobs.c.partition_key)

        def count(c: Connection) -> list[FailureGroup]:
            groups: dict[tuple[str, str], tuple[int, str]] = {}
            for row in _streamed(c, query):
                if wanted is not None and row.example not in wanted:
                    continue
                key = (row.asset, group_of(row.why))
                number, example = groups.get(key, (0, row.example))
                groups[key] = (number + row.n, min(example, row.example))
            return [FailureGroup(*key, *counted) for key, counted in groups.items()]

        found = self._read(count)
        if which.reason_group is not None:
            found = [group for group in found if group.reason == which.reason_group]
        return sorted(found, key=lambda group: (-group.jobs, group.asset, group.reason))

    def status_counts(self) -> dict[str, dict[str, int]]:
        """Job type → status → number of jobs."""

        def query(c: Connection) -> dict[str, dict[str, int]]:
            counts: dict[str, dict[str, int]] = {}
            rows = c.execute(
                sa.select(jobs.c.job_type, jobs.c.status, sa.func.count().label("n")).group_by(
                    jobs.c.job_type, jobs.c.status
                )
            )
            for row in rows:
                counts.setdefault(row.job_type, {})[row.status] = row.n
            return counts

        return self._read(query)

    def task_counts(self, attempt_ids: Sequence[str]) -> dict[str, TaskCounts]:
        """Tasks by status for each attempt."""

        def query(c: Connection) -> dict[str, TaskCounts]:
            raw: dict[str, dict[str, int]] = {}
            for chunk in chunks(attempt_ids):
                rows = c.execute(
                    sa.select(tasks.c.attempt_id, tasks.c.status, sa.func.count().label("n"))
                    .where(tasks.c.attempt_id.in_(chunk))
                    .group_by(tasks.c.attempt_id, tasks.c.status)
                )
                for row in rows:
                    raw.setdefault(row.attempt_id, {})[row.status] = row.n
            return {
                attempt_id: TaskCounts(total=sum(by_status.values()), **by_status)
                for attempt_id, by_status in raw.items()
            }

        return self._read(query)

    def tasks_of(
        self,
        attempt_ids: Sequence[str],
        *,
        stage: int | None = None,
        first: int | None = None,
        last: int | None = None,
        statuses: Sequence[TaskStatus] = (),
        limit: int | None = None,
    ) -> Iterator[TaskRow]:
        """Tasks by (stage, integer index), read 2,000 at a time; ``first``/``last`` bound the index, inclusive."""
        conditions = [tasks.c.stage == stage] if stage is not None else []
        conditions += [tasks.c.task_index >= first] if first is not None else []
        conditions += [tasks.c.task_index <= last] if last is not None else []
        conditions += [tasks.c.status.in_([status.value for status in statuses])] if statuses else []
        for chunk in chunks(attempt_ids):
            query = (
                tasks.select()
                .where(tasks.c.attempt_id.in_(chunk), *conditions)
                .order_by(tasks.c.attempt_id, tasks.c.stage, tasks.c.task_index)
            )
            for rows in self._task_pages(query, limit):
                yield from rows
                limit = None if limit is None else limit - len(rows)

    def _task_pages(self, query: sa.Select[Any], limit: int | None) -> Iterator[list[TaskRow]]:
        page = 2000
        key = sa.tuple_(tasks.c.attempt_id, tasks.c.stage, tasks.c.task_index)
        paged = query
        while limit is None or limit > 0:
            wanted = page if limit is None else min(page, limit)
            now = paged.limit(wanted)
            rows = self._read(lambda c, q=now: [_task(row) for row in c.execute(q)])  # type: ignore[misc]
            yield rows
            if len(rows) < wanted:
                return
            if limit is not None:
                limit -= len(rows)
            after = (rows[-1].attempt_id, rows[-1].stage, rows[-1].task_index)
            paged = query.where(key > sa.tuple_(*(sa.literal(value) for value in after)))

    def task_spans(self, run_id: str, stage: int, *, job_type: str | None = None) -> list[tuple[str, int, int]]:
        """(attempt id, position, number of tasks) of the run's attempts at work that have tasks in a stage."""

        def query(c: Connection) -> list[tuple[str, int, int]]:
            rows = c.execute(
                sa.select(attempts.c.attempt_id, attempts.c.position, sa.func.count().label("n"))
                .join(tasks, tasks.c.attempt_id == attempts.c.attempt_id)
                .where(
                    attempts.c.run_id == run_id,
                    _of_type(job_type),
                    attempts.c.status == JobStatus.PROCESSING.value,
                    tasks.c.stage == stage,
                )
                .group_by(attempts.c.attempt_id, attempts.c.position)
                .order_by(attempts.c.position)
            )
            return [(row.attempt_id, row.position, row.n) for row in rows]

        return self._read(query)

    def stage_tally(self, attempt_ids: Sequence[str], stage: int) -> dict[str, dict[str, int]]:
        """Attempt → outcome (or status where there is none yet) → number of tasks, for one stage."""

        def query(c: Connection) -> dict[str, dict[str, int]]:
            tally: dict[str, dict[str, int]] = {}
            what = sa.func.coalesce(tasks.c.outcome, tasks.c.status)
            for chunk in chunks(attempt_ids):
                rows = c.execute(
                    sa.select(tasks.c.attempt_id, what.label("what"), sa.func.count().label("n"))
                    .where(tasks.c.attempt_id.in_(chunk), tasks.c.stage == stage)
                    .group_by(tasks.c.attempt_id, what)
                )
                for row in rows:
                    tally.setdefault(row.attempt_id, {})[row.what] = row.n
            return tally

        return self._read(query)

    def run_outcomes(self, run_id: str, *, job_type: str | None = None) -> dict[str, int]:
        """Outcome (``processing`` where there is none yet) → number of the run's attempts, of a type or of all."""

        def query(c: Connection) -> dict[str, int]:
            what = sa.func.coalesce(attempts.c.outcome, attempts.c.status)
            rows = c.execute(
                sa.select(what.label("what"), sa.func.count().label("n"))
                .where(attempts.c.run_id == run_id, _of_type(job_type))
                .group_by(what)
            )
            return {row.what: row.n for row in rows}

        return self._read(query)

    # --- plumbing -----------------------------------------------------------------------------------------

    def write[T](self, work: Callable[[Connection], T]) -> T:
        """Do ``work`` in one transaction, tried again as everything here is; for tables of the ledger's neighbours."""
        return self._write(work)

    def read[T](self, query: Callable[[Connection], T]) -> T:
        """As :meth:`write`, for a query."""
        return self._read(query)

    def _write[T](self, work: Callable[[Connection], T]) -> T:
        def attempt() -> T:
            with self._engine.begin() as connection:
                return work(connection)

        return self._retry(attempt)

    def _read[T](self, query: Callable[[Connection], T]) -> T:
        def attempt() -> T:
            with self._reader.begin() as connection:
                return query(connection)

        return self._retry(attempt)

    def _retry[T](self, operation: Callable[[], T]) -> T:
        """Run one transaction, again while the database is away, locked or asks for it.

        Safe because every write above can be repeated: inserts ignore what is there, updates name their state.
        """
        deadline = time.monotonic() + self._patience
        delay = 0.05
        while True:
            try:
                return operation()
            except GeoAssetsError:
                raise
            except sa.exc.DBAPIError as error:
                if not _worth_retrying(error):
                    clear = _explained(error, self._label)
                    if clear is None:
                        raise
                    raise clear from None
                if time.monotonic() >= deadline:
                    cause = " ".join(redact(str(error.orig)).split())
                    msg = (
                        f"the ledger {self._label} did not answer for {self._patience:g} s; check that the database is"
                        f" up and GEO_ASSETS_LEDGER_URL names it (queued work is safe). It said: {cause}"
                    )
                    raise LedgerUnavailableError(msg) from None
            time.sleep(delay)
            delay = min(delay * 2, 2.0)


# --- rows ----------------------------------------------------------------------------------------------------

_TASK_KEY = (
    tasks.c.attempt_id == sa.bindparam("k_attempt"),
    tasks.c.stage == sa.bindparam("k_stage"),
    tasks.c.task_index == sa.bindparam("k_index"),
)


def _of_type(job_type: str | None) -> sa.ColumnElement[bool]:
    return sa.true() if job_type is None else attempts.c.job_type == job_type


def _may_become(target: JobStatus) -> sa.ColumnElement[bool]:
    # OR rather than IN: an expanding parameter cannot be used for many rows at once
    return sa.or_(*(attempts.c.status == source for source in sources_of(target)))


def _task_key(key: tuple[str, int, int]) -> dict[str, Any]:
    return {"k_attempt": key[0], "k_stage": key[1], "k_index": key[2]}


def _attempt_query() -> sa.Select[Any]:
    return sa.select(attempts, jobs.c.parameters, jobs.c.metadata.label("job_metadata")).join(
        jobs, sa.and_(jobs.c.job_type == attempts.c.job_type, jobs.c.job_id == attempts.c.job_id)
    )


_WHY = sa.func.coalesce(jobs.c.reason, jobs.c.error_details, jobs.c.status).label("why")
"""Why a job needs attention; a cancelled one may say nothing."""


def _streamed(c: Connection, query: sa.Select[Any]) -> Iterator[sa.Row[Any]]:
    """Rows of a query that may have very many, a few thousand in memory at a time."""
    yield from c.execute(query, execution_options={"yield_per": 5000})


def _filtered(which: JobFilter) -> sa.Select[Any]:
    """The query of a filter, but for groups of reasons and long lists of keys."""
    return jobs.select().where(*_of_partitions(which), *_of_attempts(which), *_of_time(which), *_of_sources(which))


def _of_partitions(which: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    for column, value in ((jobs.c.job_type, which.job_type), (jobs.c.asset, which.asset)):
        if value is not None:
            yield column == value
    if which.keys is not None and len(which.keys) <= IN_LIMIT:
        yield jobs.c.partition_key.in_(which.keys)
    if which.prefix:
        # not LIKE, to which upper and lower case are one on SQLite
        yield sa.func.substr(jobs.c.partition_key, 1, len(which.prefix)) == which.prefix


def _of_attempts(which: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    if which.statuses:
        yield jobs.c.status.in_([status.value for status in which.statuses])
    if which.reason_contains:
        text = sa.func.coalesce(jobs.c.reason, "") + " " + sa.func.coalesce(jobs.c.error_details, "")
        yield sa.func.lower(text).contains(which.reason_contains.lower(), autoescape=True)
    if which.source is not None:  # a job stays its source's, whoever has queued it again since
        of_source = sa.select(attempts.c.job_type, attempts.c.job_id).where(attempts.c.source == which.source)
        yield sa.tuple_(jobs.c.job_type, jobs.c.job_id).in_(of_source)
    if which.run_id is not None:
        in_run = sa.select(attempts.c.attempt_id).where(attempts.c.run_id == which.run_id)
        yield jobs.c.latest_attempt.in_(in_run)


def _of_time(which: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    if which.newer_than is not None:
        yield jobs.c.updated_at >= _now() - which.newer_than
    if which.older_than is not None:
        yield jobs.c.updated_at < _now() - which.older_than


def _of_sources(which: JobFilter) -> Iterator[sa.ColumnElement[bool]]:
    if which.gone is None:
        return
    said = source_entries.c
    entry = sa.select(sa.literal(1)).where(said.asset == jobs.c.asset, said.partition_key == jobs.c.partition_key)
    # another source may have it still
    gone = sa.and_(entry.where(said.state == _GONE).exists(), ~entry.where(said.state != _GONE).exists())
    yield gone if which.gone else ~gone


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    values["status"] = JobStatus(values["status"])
    values["outcome"] = OutcomeKind(values["outcome"]) if values["outcome"] else None
    return Job(**values)


_ATTEMPT_FIELDS = frozenset(Attempt.__dataclass_fields__)


def _attempt(row: sa.Row[Any]) -> Attempt:
    values = {name: value for name, value in row._mapping.items() if name in _ATTEMPT_FIELDS}  # noqa: SLF001
    values["status"] = JobStatus(values["status"])
    values["outcome"] = OutcomeKind(values["outcome"]) if values["outcome"] else None
    return Attempt(**values)


_TASK_FIELDS = frozenset(TaskRow.__dataclass_fields__)


def _task(row: sa.Row[Any]) -> TaskRow:
    values = {name: value for name, value in row._mapping.items() if name in _TASK_FIELDS}  # noqa: SLF001
    values["status"] = TaskStatus(values["status"])
    values["outcome"] = OutcomeKind(values["outcome"]) if values["outcome"] else None
    return TaskRow(**values)


def _job_row(new: NewJob, job: Job | None, attempt_id: str, number: int, now: datetime) -> dict[str, Any]:
    return {
        "job_type": new.job_type,
        "job_id": new.job_id,
        "asset": new.asset,
        "partition_key": new.partition_key,
        "parameters": dict(new.parameters),
        "status": JobStatus.QUEUED.value,
        "outcome": None,
        "reason": None,
        "stage": 1,
        "total_stages": new.total_stages,
        "stage_results": {},
        "metadata": dict(new.metadata),
        "error_details": None,
        "source_version": job.source_version if job else None,
        "attempts": number,
        "latest_attempt": attempt_id,
        "run_id": None,
        "created_at": now,
        "updated_at": now,
        "withdrawn_at": None,
    }


def _attempt_row(new: NewJob, attempt_id: str, number: int, now: datetime) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "job_type": new.job_type,
        "job_id": new.job_id,
        "number": number,
        "asset": new.asset,
        "partition_key": new.partition_key,
        "source_version": new.source_version,
        "status": JobStatus.QUEUED.value,
        "stage": 1,
        "stage_results": {},
        "priority": new.priority,
        "submitted_by": new.submitted_by,
        "cancel_requested": False,
        "releases": 0,
        "planned": False,
        "event_emitted": False,
        "created_at": now,
        "source": new.source,
    }


def _decide(new: NewJob, job: Job | None, active: Sequence[Attempt], now: datetime) -> Decision:
    if job is None:
        return Decision.CREATED
    if any(attempt.status is JobStatus.QUEUED for attempt in active):
        return Decision.IN_PROGRESS
    at_work = next((attempt for attempt in active if attempt.status is JobStatus.PROCESSING), None)
    if at_work is not None:
        same = at_work.source_version == new.source_version and not new.force
        return Decision.IN_PROGRESS if same else Decision.REQUEUED
    stands = job.status is JobStatus.COMPLETED and job.withdrawn_at is None
    if new.force or not stands or job.source_version != new.source_version:
        return Decision.REQUEUED
    if new.max_age_seconds is not None and job.completed_at is not None:
        age = (now - job.completed_at).total_seconds()
        if age >= new.max_age_seconds:
            return Decision.REQUEUED
    return Decision.RECORDED


def _cancellation(attempt: Attempt, reason: str) -> Settlement:
    return Settlement(
        attempt_id=attempt.attempt_id,
        status=JobStatus.CANCELLED,
        outcome=OutcomeKind.CANCELLED,
        reason=reason,
        error_details=reason,
        stage=attempt.stage,
        stage_results=attempt.stage_results,
    )


def _failure(attempt: Attempt, reason: str) -> Settlement:
    return Settlement(
        attempt_id=attempt.attempt_id,
        status=JobStatus.FAILED,
        outcome=OutcomeKind.FAILED,
        reason=reason,
        error_details=reason,
        stage=attempt.stage,
        stage_results=attempt.stage_results,
    )


def _in_turn(c: Connection, query: sa.Select[Any], sources: sa.Select[Any], limit: int) -> list[sa.Row[Any]]:
    """Attempts of each source, and of none, in turn, of each the oldest first: no source waits until another is done.

    Each is asked for its share, and for what others leave of theirs, so that all that waits is never read.
    """
    source, number = attempts.c.source, attempts.c.attempt_id
    found: dict[str | None, list[sa.Row[Any]]] = {name: [] for name in c.execute(sources).scalars()}
    unread = list(found)
    while unread and (left := limit - sum(map(len, found.values()))) > 0:
        share = -(-left // len(unread))
        for name in tuple(unread):
            after = found[name][-1].attempt_id if found[name] else ""
            of_it = query.where(source.is_(None) if name is None else source == name, number > after)
            more = c.execute(of_it.limit(share)).all()
            found[name] += more
            if len(more) < share:
                unread.remove(name)
    turns = ([row for row in turn if row is not None] for turn in zip_longest(*found.values()))
    return [row for turn in turns for row in sorted(turn, key=lambda row: str(row.attempt_id))]


def _new_id() -> str:
    """An id that sorts by creation time: nanoseconds, then random bits, 28 hexadecimal digits."""
    return f"{time.time_ns():016x}{secrets.token_hex(6)}"


def _now() -> datetime:
    return datetime.now(UTC)


# --- engine --------------------------------------------------------------------------------------------------


_SQLITE_WAIT_MS = 2000
"""Longest wait for SQLite's lock inside the driver, where no signal is heard; the retries above add up to the rest."""

_CONNECT_SECONDS = 10


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # its text may be a password
        msg = "GEO_ASSETS_LEDGER_URL is not a database URL; examples: sqlite:////path/ledger.db, postgresql://…"
        raise SettingsError(msg) from None
    backend = parsed.get_backend_name()
    if backend not in ("sqlite", "postgresql"):
        msg = f"GEO_ASSETS_LEDGER_URL: {backend} is not supported; use sqlite or postgresql+psycopg2"
        raise SettingsError(msg)
    if backend == "sqlite" and parsed.database in (None, "", ":memory:"):
        msg = "GEO_ASSETS_LEDGER_URL: SQLite needs a file, as several processes share the ledger"
        raise SettingsError(msg)
    return parsed


def _make_engine(url: URL, label: str, patience_seconds: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        try:
            Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror or str(error)
            msg = f"the ledger {label} cannot be made: {why}; set GEO_ASSETS_HOME to a folder you may write to"
            raise SettingsError(msg) from None
        engine = sa.create_engine(url, hide_parameters=True, json_serializer=to_json)
        wait = min(_SQLITE_WAIT_MS, round(patience_seconds * 1000))
        sa.event.listen(engine, "connect", lambda connection, _record: _configure_sqlite(connection, wait))
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    return sa.create_engine(
        url,
        hide_parameters=True,
        json_serializer=to_json,
        executemany_mode="values_plus_batch",
        pool_pre_ping=True,
        execution_options={"schema_translate_map": {None: SCHEMA}},
        connect_args={
            "application_name": "geo_assets",
            "connect_timeout": _CONNECT_SECONDS,
            # a server that vanished without a word is noticed within a minute
            "keepalives_idle": 30,
            "keepalives_interval": 10,
            "keepalives_count": 3,
        },
    )


def _configure_sqlite(connection: Any, wait_ms: int) -> None:
    connection.isolation_level = None  # transactions are begun below, by us
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={wait_ms}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # a write transaction takes its lock at once: upgrading later fails where another writer came between
    reading = connection.get_execution_options().get("geo_assets_read", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _worth_retrying(error: sa.exc.DBAPIError) -> bool:
    if error.connection_invalidated or isinstance(error, sa.exc.InterfaceError):
        return True
    text = str(error.orig).lower()
    if isinstance(error, sa.exc.IntegrityError):
        # two submissions of one job, or two claims of one partition, at once: the second try sees the first's row
        return any(name in text for name in ("uq_attempts_", "attempts.job_", "attempts.asset"))
    if not isinstance(error, sa.exc.OperationalError):
        return False
    return not any(word in text for word in (*_REFUSALS, *_NO_DATABASE, *_BUGS))


_BUGS = ("no such table", "no such column", "syntax error")
_REFUSALS = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "permission denied")
_NO_DATABASE = ("does not exist", "unable to open database file", "readonly database", "file is not a database")


def _explained(error: sa.exc.DBAPIError, label: str) -> GeoAssetsError | None:
    """The error as one clear sentence where waiting would not help; ``None`` for what only a bug can cause."""
    text = str(error.orig).strip()
    cause = redact(text.splitlines()[-1]) if text else type(error).__name__
    if any(word in text.lower() for word in _REFUSALS):
        return AccessDeniedError(f"the ledger {label} refuses the user or password of GEO_ASSETS_LEDGER_URL: {cause}")
    if not isinstance(error, sa.exc.ProgrammingError) and any(word in text.lower() for word in _NO_DATABASE):
        return SettingsError(f"the ledger {label} cannot be used: {cause}; check GEO_ASSETS_LEDGER_URL")
    return None
