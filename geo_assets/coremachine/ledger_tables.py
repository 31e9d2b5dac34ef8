"""Tables of the ledger, their column types and the status changes they allow.

What belongs here: table definitions in SQLAlchemy Core and the transition table.  What does not: statements
(``ledger``) and schema changes over time (``migrations``; a test compares the two).

``jobs`` and ``tasks`` have the columns of the original (reference 1.14), keyed by (job_type, job_id) because ids
of two job types can be equal, and ours beside them.  An *attempt* is one execution of a job; tasks belong to one.
On PostgreSQL everything lives in the schema ``geo_assets``, so that Dagster's tables can share the database.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from geo_assets.coremachine.contract import JobStatus

SCHEMA = "geo_assets"
"""Schema of the tables on PostgreSQL."""

VERSION_TABLE = "geo_assets_ledger_version"


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC on every database; SQLite keeps no time zone of its own."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive values, store UTC."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            msg = f"the ledger stores aware datetimes only, got {value.isoformat()} without a time zone"
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Give back aware UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)  # type: ignore[no-any-return]


_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Text(TypeDecorator[str]):
    """Text that every database takes: NUL and lone surrogates, which PostgreSQL refuses, become U+FFFD.

    Messages quote names of files and text of other people's libraries; one odd byte must not lose a whole batch.
    """

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Replace what cannot be stored."""
        del dialect
        return None if value is None else _UNSTORABLE.sub("\ufffd", value)


def to_json(value: object) -> str:
    """JSON text that every database takes; the engine is given this for its JSON columns."""
    text = json.dumps(value)
    # a pair of surrogates is one character to Python, so what is escaped that way here is mostly an emoji
    return json.dumps(_storable(value)) if "\\u0000" in text or "\\ud" in text else text


def _storable(value: object) -> object:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


BEGINNING_LENGTH = 200


class Beginning(Text):
    """The first characters of a text, which an index takes; compared code point by code point on every database."""

    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """PostgreSQL compares as the database's language does, if it is not told otherwise."""
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(sa.String(BEGINNING_LENGTH, collation=collation))


Json = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("job_type", sa.String(100), primary_key=True),
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", Text),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("total_stages", sa.Integer, nullable=False),
    sa.Column("stage_results", Json, nullable=False),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("result_data", Json),
    sa.Column("error_details", Text),
    sa.Column("source_version", Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latest_attempt", sa.String(32)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Column("completed_at", UtcDateTime),
    sa.Column("withdrawn_at", UtcDateTime),
    sa.Index("ix_jobs_id", "job_id"),
    sa.Index("ix_jobs_status", "status"),
    sa.Index("ix_jobs_created", "created_at"),
    sa.Index("ix_jobs_updated", "updated_at"),
    sa.Index("ix_jobs_partition", "asset", "partition_key"),
    # every change of an attempt is mirrored in the job whose latest it is
    sa.Index("ix_jobs_latest", "latest_attempt"),
)

MATERIALIZATION_OWED = sa.text("NOT event_emitted AND status IN ('completed', 'completed_with_errors')")
"""Condition on an attempt whose materialization may still be due; in this very text, so that its index is used."""

WAITS_FOR_A_WAVE = sa.text("status = 'queued' AND wave_id IS NULL")
"""Condition on an attempt that is queued and in no wave; in this very text, so that its index is used."""

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("attempt_id", sa.String(32), primary_key=True),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("source_version", Text),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", Text),
    sa.Column("error_details", Text),
    sa.Column("traceback", Text),
    sa.Column("result_data", Json),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("stage_results", Json, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("submitted_by", sa.String(32), nullable=False),
    sa.Column("wave_id", sa.String(64)),
    sa.Column("position", sa.Integer),
    sa.Column("run_id", sa.String(64)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("releases", sa.Integer, nullable=False),
    sa.Column("planned", sa.Boolean, nullable=False),
    sa.Column("event_emitted", sa.Boolean, nullable=False),
    sa.Column("heartbeat", UtcDateTime),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("withdrawn_at", UtcDateTime),
    sa.Column("source", sa.String(100)),
    sa.Index("ix_attempts_job", "job_type", "job_id", "number"),
    sa.Index("ix_attempts_queue", "status", "job_type", "priority", "attempt_id"),
    sa.Index("ix_attempts_wave", "wave_id"),
    sa.Index("ix_attempts_run", "run_id", "position"),
    # whether a partition is at work or in a wave is asked for each of many queued attempts
    sa.Index("ix_attempts_partition", "asset", "partition_key"),
    sa.Index("ix_attempts_source", "source", "created_at"),
    # what waits of each source is taken in turn
    sa.Index(
        "ix_attempts_waiting",
        "job_type",
        "priority",
        "source",
        "attempt_id",
        sqlite_where=WAITS_FOR_A_WAVE,
        postgresql_where=WAITS_FOR_A_WAVE,
    ),
    sa.Index("ix_attempts_owed", "run_id", sqlite_where=MATERIALIZATION_OWED, postgresql_where=MATERIALIZATION_OWED),
    # at most one attempt of a partition at work, whatever happens
    sa.Index(
        "uq_attempts_active_partition",
        "asset",
        "partition_key",
        unique=True,
        sqlite_where=sa.text("status = 'processing'"),
        postgresql_where=sa.text("status = 'processing'"),
    ),
    # at most one attempt of a job waiting
    sa.Index(
        "uq_attempts_queued_job",
        "job_type",
        "job_id",
        unique=True,
        sqlite_where=sa.text("status = 'queued'"),
        postgresql_where=sa.text("status = 'queued'"),
    ),
    sa.ForeignKeyConstraint(["job_type", "job_id"], ["jobs.job_type", "jobs.job_id"], ondelete="CASCADE"),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("attempt_id", sa.String(32), primary_key=True),
    sa.Column("stage", sa.Integer, primary_key=True),
    sa.Column("task_index", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.String(100), nullable=False),
    sa.Column("parent_job_id", sa.String(64), nullable=False),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("task_type", sa.String(100), nullable=False),
    sa.Column("parameters", Json, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", Text),
    sa.Column("result_data", Json),
    sa.Column("metadata", Json, nullable=False),
    sa.Column("error_details", Text),
    sa.Column("traceback", Text),
    sa.Column("retry_count", sa.Integer, nullable=False),
    sa.Column("heartbeat", UtcDateTime),
    sa.Column("next_stage_params", Json),
    sa.Column("execution_time_ms", sa.Integer),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
    sa.Index("ix_tasks_job", "parent_job_id"),
    sa.Index("ix_tasks_status", "attempt_id", "stage", "status"),
    sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], ondelete="CASCADE"),
)

waves = sa.Table(
    "waves",
    metadata,
    sa.Column("wave_id", sa.String(64), primary_key=True),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("closed_at", UtcDateTime),
    sa.Index("ix_waves_open", "open", "job_type"),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("audit_id", sa.String(32), primary_key=True),
    sa.Column("action", sa.String(32), nullable=False),
    sa.Column("who", Text, nullable=False),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("inventory", Json, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Index("ix_audit_partition", "asset", "partition_key"),
)

claims = sa.Table(
    "claims",
    metadata,
    sa.Column("name", sa.String(2048), primary_key=True),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("claimed_at", UtcDateTime, nullable=False),
    sa.Index("ix_claims_partition", "asset", "partition_key"),
)
"""Names in stores and the partitions that make what has them; see ``claims``."""

source_entries = sa.Table(
    "source_entries",
    metadata,
    sa.Column("source", sa.String(100), primary_key=True),
    # a digest of the name, which can be longer than an index of PostgreSQL takes
    sa.Column("entry", sa.String(32), primary_key=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("beginning", Beginning, sa.Computed(f"substr(name, 1, {BEGINNING_LENGTH})")),
    sa.Column("version", Text),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("last_modified", UtcDateTime),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", Text),
    sa.Column("asset", sa.String(200)),
    sa.Column("partition_key", sa.String(2048)),
    sa.Column("submitted_version", Text),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("submitted_at", UtcDateTime),
    sa.Column("gone_at", UtcDateTime),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("made_by", sa.String(32)),
    sa.Column("again", sa.String(16)),
    sa.Index("ix_source_entries_state", "source", "state", "sequence"),
    sa.Index("ix_source_entries_partition", "asset", "partition_key"),
    sa.Index("ix_source_entries_beginning", "source", "beginning", "entry"),
)
"""What a source saw last of each of its blobs or datasets; see ``geo_assets.sources``."""

source_looks = sa.Table(
    "source_looks",
    metadata,
    sa.Column("source", sa.String(100), primary_key=True),
    sa.Column("looked_at", UtcDateTime),
    sa.Column("seconds", sa.Float),
    sa.Column("entries", sa.BigInteger),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("by_run", sa.Boolean, nullable=False),
    sa.Column("listing_job", sa.String(64)),
    sa.Column("definition", sa.String(64)),
    sa.Column("error", Text),
)
"""One row a source: its latest look."""

notices = sa.Table(
    "notices",
    metadata,
    sa.Column("fingerprint", sa.String(64), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column("suppressed", sa.Integer, nullable=False),
)
"""Kinds of failure that somebody was told of, so that nobody is told the same a thousand times."""

_ENDS = frozenset({JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS, JobStatus.FAILED, JobStatus.CANCELLED})

ATTEMPT_TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    # to processing when a run claims it; straight to failed when it was released too often
    JobStatus.QUEUED: frozenset({JobStatus.PROCESSING, JobStatus.CANCELLED, JobStatus.FAILED}),
    # back to queued when the run that held it has died
    JobStatus.PROCESSING: _ENDS | {JobStatus.QUEUED},
    **{end: frozenset() for end in _ENDS},
}
"""Status changes of an attempt. A job takes the status of its latest attempt, so a finished job may start again."""


def sources_of(target: JobStatus) -> list[str]:
    """The statuses from which an attempt may change to ``target``."""
    return sorted(source.value for source, targets in ATTEMPT_TRANSITIONS.items() if target in targets)
