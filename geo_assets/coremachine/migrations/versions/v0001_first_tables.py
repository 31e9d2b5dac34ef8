"""The first tables: jobs, attempts, tasks, waves, as they were then.

No version imports the code's own table definitions, which describe the newest schema.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_TIME = sa.DateTime(timezone=True)
_tables = sa.MetaData()

sa.Table(
    "jobs",
    _tables,
    sa.Column("job_type", sa.String(100), primary_key=True),
    sa.Column("job_id", sa.String(64), primary_key=True),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("parameters", _JSON, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", sa.Text),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("total_stages", sa.Integer, nullable=False),
    sa.Column("stage_results", _JSON, nullable=False),
    sa.Column("metadata", _JSON, nullable=False),
    sa.Column("result_data", _JSON),
    sa.Column("error_details", sa.Text),
    sa.Column("source_version", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("latest_attempt", sa.String(32)),
    sa.Column("run_id", sa.String(64)),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False),
    sa.Column("completed_at", _TIME),
    sa.Index("ix_jobs_id", "job_id"),
    sa.Index("ix_jobs_status", "status"),
    sa.Index("ix_jobs_created", "created_at"),
    sa.Index("ix_jobs_updated", "updated_at"),
    sa.Index("ix_jobs_partition", "asset", "partition_key"),
    sa.Index("ix_jobs_latest", "latest_attempt"),
)

_OWED = sa.text("NOT event_emitted AND status IN ('completed', 'completed_with_errors')")

sa.Table(
    "attempts",
    _tables,
    sa.Column("attempt_id", sa.String(32), primary_key=True),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("job_id", sa.String(64), nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("asset", sa.String(200), nullable=False),
    sa.Column("partition_key", sa.String(2048), nullable=False),
    sa.Column("source_version", sa.Text),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", sa.Text),
    sa.Column("error_details", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("result_data", _JSON),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("stage_results", _JSON, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("submitted_by", sa.String(32), nullable=False),
    sa.Column("wave_id", sa.String(64)),
    sa.Column("position", sa.Integer),
    sa.Column("run_id", sa.String(64)),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("releases", sa.Integer, nullable=False),
    sa.Column("planned", sa.Boolean, nullable=False),
    sa.Column("event_emitted", sa.Boolean, nullable=False),
    sa.Column("heartbeat", _TIME),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("started_at", _TIME),
    sa.Column("ended_at", _TIME),
    sa.Index("ix_attempts_job", "job_type", "job_id", "number"),
    sa.Index("ix_attempts_queue", "status", "job_type", "priority", "attempt_id"),
    sa.Index("ix_attempts_wave", "wave_id"),
    sa.Index("ix_attempts_run", "run_id", "position"),
    sa.Index("ix_attempts_partition", "asset", "partition_key"),
    sa.Index("ix_attempts_owed", "run_id", sqlite_where=_OWED, postgresql_where=_OWED),
    sa.Index(
        "uq_attempts_active_partition",
        "asset",
        "partition_key",
        unique=True,
        sqlite_where=sa.text("status = 'processing'"),
        postgresql_where=sa.text("status = 'processing'"),
    ),
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

sa.Table(
    "tasks",
    _tables,
    sa.Column("attempt_id", sa.String(32), primary_key=True),
    sa.Column("stage", sa.Integer, primary_key=True),
    sa.Column("task_index", sa.Integer, primary_key=True),
    sa.Column("task_id", sa.String(100), nullable=False),
    sa.Column("parent_job_id", sa.String(64), nullable=False),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("task_type", sa.String(100), nullable=False),
    sa.Column("parameters", _JSON, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("outcome", sa.String(16)),
    sa.Column("reason", sa.Text),
    sa.Column("result_data", _JSON),
    sa.Column("metadata", _JSON, nullable=False),
    sa.Column("error_details", sa.Text),
    sa.Column("traceback", sa.Text),
    sa.Column("retry_count", sa.Integer, nullable=False),
    sa.Column("heartbeat", _TIME),
    sa.Column("next_stage_params", _JSON),
    sa.Column("execution_time_ms", sa.Integer),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("updated_at", _TIME, nullable=False),
    sa.Index("ix_tasks_job", "parent_job_id"),
    sa.Index("ix_tasks_status", "attempt_id", "stage", "status"),
    sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"], ondelete="CASCADE"),
)

sa.Table(
    "waves",
    _tables,
    sa.Column("wave_id", sa.String(64), primary_key=True),
    sa.Column("job_type", sa.String(100), nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("open", sa.Boolean, nullable=False),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("closed_at", _TIME),
    sa.Index("ix_waves_open", "open", "job_type"),
)


def upgrade() -> None:
    """Create every table."""
    _tables.create_all(op.get_bind())


def downgrade() -> None:
    """Drop every table."""
    _tables.drop_all(op.get_bind())
