"""Alembic's entry point: runs the migrations on the connection :func:`ensure_schema` hands over."""

from alembic import context

from geo_assets.coremachine.ledger_tables import SCHEMA, VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
schema = SCHEMA if connection.dialect.name == "postgresql" else None
if schema is not None:
    # alembic's own statements do not go through the schema map of the tables
    connection.exec_driver_sql(f"SET LOCAL search_path TO {schema}, public")
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    version_table_schema=schema,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
