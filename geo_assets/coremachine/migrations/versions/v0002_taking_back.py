"""What was published can be taken back, and names belong to somebody.

Who took something back is audited, the attempts it came from no longer count, and partitions claim the names of what
they make.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

_JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the audit, the claims, and when an attempt was withdrawn."""
    for table in ("jobs", "attempts"):
        op.add_column(table, sa.Column("withdrawn_at", _TIME))
    op.create_table(
        "audit",
        sa.Column("audit_id", sa.String(32), primary_key=True),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("asset", sa.String(200), nullable=False),
        sa.Column("partition_key", sa.String(2048), nullable=False),
        sa.Column("inventory", _JSON, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("ended_at", _TIME),
    )
    op.create_index("ix_audit_partition", "audit", ["asset", "partition_key"])
    op.create_table(
        "claims",
        sa.Column("name", sa.String(2048), primary_key=True),
        sa.Column("asset", sa.String(200), nullable=False),
        sa.Column("partition_key", sa.String(2048), nullable=False),
        sa.Column("claimed_at", _TIME, nullable=False),
    )
    op.create_index("ix_claims_partition", "claims", ["asset", "partition_key"])


def downgrade() -> None:
    """Remove them."""
    op.drop_table("claims")
    op.drop_table("audit")
    for table in ("jobs", "attempts"):
        op.drop_column(table, "withdrawn_at")
