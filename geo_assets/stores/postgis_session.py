"""Sessions of the database that holds vector tables, and what goes wrong in them as errors of ours.

What belongs here: what a connection is set up with, and the translation of every error of psycopg.  What does not:
keeping connections (``postgres_connections``), any statement about tables.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from geo_assets.errors import (
    AccessDeniedError,
    GeoAssetsError,
    SettingsError,
    TableDataError,
    TableError,
    TableExistsError,
    TableInUseError,
    TableStoreUnavailableError,
)
from geo_assets.redaction import redact
from geo_assets.stores.postgres_connections import Connection, Connections, postgres_url

__all__ = ["Connection", "Sessions", "advisory_lock", "make_schema", "one", "translated"]

_POSTGRES_PORT: Final = 5432
_LOCK_SPACE: Final = 0x6765_6F74
"""``geot``: ours among the advisory locks of the database."""
_OPTIONS: Final = (
    "-c timezone=UTC -c datestyle=ISO -c intervalstyle=postgres -c client_min_messages=warning -c lock_timeout=10min"
)
_FIND_POSTGIS: Final = (
    "select n.nspname from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace"
    " where e.extname = 'postgis'"
)


class Sessions:
    """Connections to one database, each used by one thread at a time; a few are kept."""

    def __init__(self, url: str) -> None:
        """Take a URL; nothing is connected yet.

        Raises:
            SettingsError: it is not one of PostgreSQL.
        """
        parsed = postgres_url(url, setting="GEO_ASSETS_TABLES_URL", what="PostGIS")
        host = parsed.host or "localhost"
        self.description = f"PostGIS in {host}/{parsed.database}"
        port = "" if parsed.port in (None, _POSTGRES_PORT) else f":{parsed.port}"
        self.address = f"postgis://{f'[{host}]' if ':' in host else host}{port}/{parsed.database}"
        """Where the database is, without who may enter."""
        self._dsn = parsed.render_as_string(hide_password=False)
        self._options = f"{parsed.query.get('options', '')} {_OPTIONS}".strip()
        self._connections = Connections(self._connected, ask_first=True)

    def close(self) -> None:
        """Close what is kept; also done when nobody holds this any more."""
        self._connections.close()

    @contextmanager
    def session(self, doing: str) -> Iterator[Connection]:
        """A connection of one's own for a while, in autocommit.

        Args:
            doing: what for, as errors say it: ``loading geo.roads``.

        Raises:
            TableStoreUnavailableError: it cannot be reached, or something is held too long.
            AccessDeniedError, TableError: see :func:`translated`.
        """
        try:
            with self._connections.lent() as connection:
                yield connection
        except psycopg.Error as error:
            raise translated(error, f"{self.description}, {doing}") from error

    def _connected(self) -> Connection:
        connection = psycopg.connect(
            self._dsn,
            autocommit=True,
            connect_timeout=10,
            application_name="geo_assets tables",
            options=self._options,
            keepalives_idle=30,
            keepalives_interval=10,
            keepalives_count=3,
        )
        # what is looked up after a lock was got must be what is there then
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        try:
            where = connection.execute(_FIND_POSTGIS).fetchone() or _with_postgis(connection)
            connection.execute(sql.SQL("set search_path to pg_catalog, {}, pg_temp").format(sql.Identifier(where[0])))
        except BaseException:
            connection.close()
            raise
        return connection


def _with_postgis(connection: Connection) -> tuple[Any, ...]:
    try:
        with connection.transaction():
            advisory_lock(connection, "postgis")
            connection.execute("create extension if not exists postgis")
    except (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.UndefinedFile) as error:
        raise SettingsError(
            "the database of GEO_ASSETS_TABLES_URL has no PostGIS, and this role cannot make it"
            f" ({_words(error)}): have an administrator run CREATE EXTENSION postgis there"
        ) from error
    return one(connection, _FIND_POSTGIS)


def one(connection: Connection, query: Any, arguments: Any = None) -> tuple[Any, ...]:
    """The one row of a query that always has one."""
    row = connection.execute(query, arguments).fetchone()
    if row is None:
        raise TableError("the database gave no row where there is always one; see its log")
    return row


def advisory_lock(connection: Connection, name: str) -> None:
    """Hold a name against other sessions of ours until the transaction ends."""
    connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK_SPACE, name))


def make_schema(connection: Connection, schema: str) -> None:
    """Make a schema if it is not there, in a transaction; asking for one that is there takes no right."""
    wanted = "select from pg_namespace where nspname = %s"
    if connection.execute(wanted, (schema,)).fetchone() is None:
        # two that begin at once would each find it missing
        advisory_lock(connection, f"schema {schema}")
        if connection.execute(wanted, (schema,)).fetchone() is None:
            connection.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))


# --- errors ------------------------------------------------------------------------------------------------------

_BY_TYPE: Final[tuple[tuple[type[psycopg.Error], type[GeoAssetsError], str], ...]] = (
    (
        errors.QueryCanceled,
        TableStoreUnavailableError,
        "if that is the statement_timeout of the role or the database, raise it, else try again",
    ),
    (errors.LockNotAvailable, TableStoreUnavailableError, "another session is at work there, try again later"),
    (errors.DeadlockDetected, TableStoreUnavailableError, "another session is at work there, try again"),
    (errors.SerializationFailure, TableStoreUnavailableError, "another session is at work there, try again"),
    (errors.InsufficientPrivilege, AccessDeniedError, "grant the role that right, or use another role"),
    (errors.DependentObjectsStillExist, TableInUseError, "remove what depends on it first"),
    (errors.DuplicateTable, TableExistsError, "choose another name or load mode"),
)
_BY_CLASS: Final[dict[str, tuple[type[GeoAssetsError], str]]] = {
    **dict.fromkeys(("08", "53", "57", "58"), (TableStoreUnavailableError, "try again later")),
    **dict.fromkeys(("22", "23", "54"), (TableDataError, "nothing of it was kept")),
}
"""By class of SQLSTATE: connection, resources, operators, system; data, integrity, limits of the server."""
_COPY_COLUMN: Final = re.compile(r'\bCOPY .*?, line \d+, column ("?)(?P<name>.+?)\1(?::|$)', re.MULTILINE)
_CHANGING: Final = re.compile(r"could not open relation with OID|cache lookup failed|tuple concurrently")
"""What an internal error says of something that is replaced while it is looked at."""
_REFUSED_AT_THE_DOOR: Final = re.compile(r"authentication failed|no pg_hba\.conf entry|permission denied for database")


def translated(error: psycopg.Error, doing: str) -> GeoAssetsError:
    """What an error of psycopg means here; its text is redacted.

    Args:
        error: as it was caught.
        doing: where and what for; begins the message.
    """
    words, column = _words(error), _column(error)
    kind, advice = _kind(error, column, words)
    where = f"column '{column}': " if column is not None and kind is TableDataError else ""
    return kind(f"{doing}: {where}{words}; {advice}")


def _kind(error: psycopg.Error, column: str | None, words: str) -> tuple[type[GeoAssetsError], str]:
    for theirs, ours, advice in _BY_TYPE:
        if isinstance(error, theirs):
            return ours, advice
    state = error.sqlstate or ""
    if not state and _REFUSED_AT_THE_DOOR.search(words):
        return AccessDeniedError, "look at the user and password in GEO_ASSETS_TABLES_URL"
    if not state and isinstance(error, psycopg.OperationalError):
        return _BY_CLASS["08"]
    if column is not None:
        return _BY_CLASS["22"]
    if _CHANGING.search(words):
        return TableStoreUnavailableError, "another session is at work there, try again"
    return _BY_CLASS.get(state[:2], (TableError, "the database refused that"))


def _column(error: psycopg.Error) -> str | None:
    """The column whose value is refused, where the server says."""
    if error.diag.column_name:
        return error.diag.column_name
    found = _COPY_COLUMN.search(error.diag.context or "")
    return None if found is None else found["name"]


def _words(error: psycopg.Error) -> str:
    """What the server says, in one line."""
    said = error.diag.message_primary or str(error) or type(error).__name__
    detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
    return redact(" ".join(f"{said}{detail}".split()))[:500]
