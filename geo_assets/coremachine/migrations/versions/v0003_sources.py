"""Containers are watched: what was seen of them, which attempts came of it, and whom a failure was told to.

An attempt knows the source that brought it about.  ``source_entries`` holds what a source saw last of each of its
blobs or datasets, ``source_looks`` one row a source, ``notices`` one row a kind of failure.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_TIME = sa.DateTime(timezone=True)
_BEGINNING = sa.String(200).with_variant(sa.String(200, collation="C"), "postgresql")


def upgrade() -> None:
    """Add the tables of sources, and the notices."""
    op.add_column("attempts", sa.Column("source", sa.String(100)))
    op.create_index("ix_attempts_source", "attempts", ["source", "created_at"])
    waits = sa.text("status = 'queued' AND wave_id IS NULL")
    op.create_index(
        "ix_attempts_waiting",
        "attempts",
        ["job_type", "priority", "source", "attempt_id"],
        sqlite_where=waits,
        postgresql_where=waits,
    )
    op.create_table(
        "source_entries",
        sa.Column("source", sa.String(100), primary_key=True),
        sa.Column("entry", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("beginning", _BEGINNING, sa.Computed("substr(name, 1, 200)")),
        sa.Column("version", sa.Text),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("last_modified", _TIME),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("asset", sa.String(200)),
        sa.Column("partition_key", sa.String(2048)),
        sa.Column("submitted_version", sa.Text),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("submitted_at", _TIME),
        sa.Column("gone_at", _TIME),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("made_by", sa.String(32)),
        sa.Column("again", sa.String(16)),
    )
    op.create_index("ix_source_entries_state", "source_entries", ["source", "state", "sequence"])
    op.create_index("ix_source_entries_partition", "source_entries", ["asset", "partition_key"])
    op.create_index("ix_source_entries_beginning", "source_entries", ["source", "beginning", "entry"])
    op.create_table(
        "source_looks",
        sa.Column("source", sa.String(100), primary_key=True),
        sa.Column("looked_at", _TIME),
        sa.Column("seconds", sa.Float),
        sa.Column("entries", sa.BigInteger),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("by_run", sa.Boolean, nullable=False),
        sa.Column("listing_job", sa.String(64)),
        sa.Column("definition", sa.String(64)),
        sa.Column("error", sa.Text),
    )
    op.create_table(
        "notices",
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("first_at", _TIME, nullable=False),
        sa.Column("last_at", _TIME, nullable=False),
        sa.Column("sent_at", _TIME),
        sa.Column("suppressed", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    """Remove them."""
    op.drop_table("notices")
    op.drop_table("source_looks")
    op.drop_table("source_entries")
    op.drop_index("ix_attempts_waiting", "attempts")
    op.drop_index("ix_attempts_source", "attempts")
    op.drop_column("attempts", "source")
