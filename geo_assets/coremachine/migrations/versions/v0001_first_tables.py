"""The first tables: jobs, attempts, tasks, waves.

Later versions must not import the table definitions, which describe the newest schema; this one may, for as long
as it is the only one, and freezes them when a second is added.
"""

from alembic import op

from geo_assets.coremachine.ledger_tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create every table."""
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Drop every table."""
    metadata.drop_all(op.get_bind())
