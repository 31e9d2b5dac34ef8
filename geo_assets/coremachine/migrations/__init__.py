"""Schema versions of the ledger and the step from one to the next (alembic).

What belongs here: one file a version in ``versions``, and the check at opening.  A test proves that migrating an
empty database gives exactly the tables of ``ledger_tables``.
"""

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from geo_assets.coremachine.ledger_tables import SCHEMA, VERSION_TABLE
from geo_assets.errors import SchemaVersionError

HEAD = "0003"
"""Schema version this code works with."""

_KNOWN = ("0001", "0002", "0003")
_LOCK = 0x67656F_6C6564  # "geoled": advisory lock so that two processes do not migrate at once


def ensure_schema(engine: Engine, label: str) -> None:
    """Create or migrate the ledger's tables; where they are of this version, one short read.

    Args:
        engine: whose transactions take the write lock at once, except with the option ``geo_assets_read``.
        label: the database's name in messages, without credentials.

    Raises:
        SchemaVersionError: the database is of a version this code does not know.
    """
    with engine.execution_options(geo_assets_read=True).begin() as connection:
        if _current(connection) == HEAD:
            return
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        version = _current(connection)
        if version == HEAD:  # another process was faster
            return
        if version is not None and version not in _KNOWN:
            msg = (
                f"the ledger {label} has schema version {version}, this code knows up to {HEAD}:"
                " upgrade geo_assets, or point GEO_ASSETS_LEDGER_URL at another database"
            )
            raise SchemaVersionError(msg)
        _upgrade(connection)


def _current(connection: Connection) -> str | None:
    schema = SCHEMA if connection.dialect.name == "postgresql" else None
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"), schema=schema)
    version: str | None = connection.execute(sa.select(table.c.version_num)).scalar()
    return version


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - 0.3 s of import that only a new database needs
    from alembic.config import Config  # noqa: PLC0415

    if connection.dialect.name == "postgresql":
        connection.execute(sa.schema.CreateSchema(SCHEMA, if_not_exists=True))
    config = Config()
    # the parser of ini files takes a percent sign for the beginning of a reference
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
