"""The staging schema: what is being loaded, which chunks are there, and which tables were loaded by us.

What belongs here: the tables of that schema and every statement about them.  What does not: the rows being loaded
(``postgis_staging``), and the tables that people see.

- ``stagings``: one row a staging, from ``begin`` until it is published or discarded.
- ``chunks``: one row a chunk that is loaded, written in the transaction that loads it.
- ``tables``: one row a table loaded by us.  It counts as long as its ``table_oid`` is that of the table of this name;
  where somebody puts another in its place, or restores the database from a dump, the table is one we do not know.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from psycopg import errors, sql
from psycopg.types.json import Jsonb

from geo_assets.errors import SettingsError, StagingLostError
from geo_assets.stores.postgis_session import Connection, advisory_lock, make_schema, one
from geo_assets.stores.tables import StagedTable, TableRecord
from geo_assets.vector.table import TableLoad

__all__ = ["Register", "find_table"]

VERSION: Final = 1
"""Of the staging schema: what a newer release changed, an older one leaves alone."""

_DEFINITION: Final = """
create table if not exists {schema}.version (version integer not null);
insert into {schema}.version select {version} where not exists (select from {schema}.version);
create table if not exists {schema}.stagings (
    token text primary key, schema_name text not null, table_name text not null,
    finished boolean not null default false, created_at timestamptz not null default now()
);
create table if not exists {schema}.chunks (
    token text not null references {schema}.stagings on delete cascade, chunk integer not null,
    rows bigint not null default 0, loaded_at timestamptz not null default clock_timestamp(),
    primary key (token, chunk)
);
create table if not exists {schema}.tables (
    schema_name text not null, table_name text not null, table_oid oid not null, version text not null,
    columns jsonb not null, comments jsonb not null, loads jsonb not null, tokens text[] not null,
    published_at timestamptz not null default now(), primary key (schema_name, table_name)
);
"""
_KNOWN: Final = (
    " from {schema}.tables t join pg_class c on c.oid = t.table_oid and c.relname = t.table_name"
    " join pg_namespace n on n.oid = c.relnamespace and n.nspname = t.schema_name"
)


def find_table(connection: Connection, schema: str, table: str) -> tuple[int, str] | None:
    """OID and kind (``relkind``) of what has this name; ``None``: nothing has."""
    return connection.execute(
        "select c.oid, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = %s and c.relname = %s",
        (schema, table),
    ).fetchone()


class Register:
    """The staging schema of one database."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self._ready = threading.Event()

    def ensure(self, connection: Connection) -> None:
        """Make the staging schema where it is not.

        Raises:
            SettingsError: a newer release made it.
        """
        if self._ready.is_set():
            return
        if not self.is_there(connection):
            # two that begin at once would each find it missing
            with connection.transaction():
                advisory_lock(connection, self.schema)
                make_schema(connection, self.schema)
                connection.execute(self._sql(_DEFINITION, version=sql.Literal(VERSION)))
        (found,) = one(connection, self._sql("select version from {schema}.version"))
        if found > VERSION:
            raise SettingsError(
                f"the schema '{self.schema}' is of version {found}, newer than ours ({VERSION}): install the release"
                " that made it, or name another in GEO_ASSETS_STAGING_SCHEMA"
            )
        self._ready.set()

    def is_there(self, connection: Connection) -> bool:
        """Whether there is a register that this role may read; asking makes nothing."""
        if self._ready.is_set():
            return True
        row = connection.execute(
            "select has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT')"
            " from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = %s and c.relname = 'tables'",
            (self.schema,),
        ).fetchone()
        return row is not None and bool(row[0])

    def identifier(self, name: str) -> sql.Composable:
        """A relation of the staging schema."""
        return sql.Identifier(self.schema, name)

    # --- stagings

    def add_staging(self, connection: Connection, staged: StagedTable) -> None:
        """Note a new staging."""
        connection.execute(
            self._sql("insert into {schema}.stagings (token, schema_name, table_name) values (%s, %s, %s)"),
            (staged.token, staged.definition.schema, staged.definition.table),
        )

    def lock_staging(self, connection: Connection, token: str) -> bool | None:
        """Hold a staging until the transaction ends; whether it is finished, ``None`` where it is gone."""
        row = connection.execute(
            self._sql("select finished from {schema}.stagings where token = %s for update"), (token,)
        ).fetchone()
        return None if row is None else bool(row[0])

    def set_finished(self, connection: Connection, token: str) -> None:
        """Note that a staging is checked and indexed."""
        connection.execute(self._sql("update {schema}.stagings set finished = true where token = %s"), (token,))

    def remove_staging(self, connection: Connection, token: str) -> None:
        """Forget a staging and its chunks."""
        connection.execute(self._sql("delete from {schema}.stagings where token = %s"), (token,))

    def untouched(self, connection: Connection, seconds: float) -> list[str]:
        """Stagings to which nothing was added for so long."""
        rows = connection.execute(
            self._sql(
                "select s.token from {schema}.stagings s left join {schema}.chunks c using (token)"
                " group by s.token, s.created_at having greatest(s.created_at, max(c.loaded_at))"
                " < clock_timestamp() - make_interval(secs => %s) order by 1"
            ),
            (seconds,),
        )
        return [row[0] for row in rows]

    @contextmanager
    def loading(self, connection: Connection, staged: StagedTable, chunk: int) -> Iterator["LoadingChunk"]:
        """A transaction that loads one chunk; where another is loading it now, this waits and finds it done.

        Raises:
            StagingLostError: the staging is gone.
        """
        try:
            with connection.transaction():
                cursor = connection.execute(
                    self._sql("insert into {schema}.chunks (token, chunk) values (%s, %s) on conflict do nothing"),
                    (staged.token, chunk),
                )
                loading = LoadingChunk(present=None if cursor.rowcount else self._rows(connection, staged, chunk))
                yield loading
                if loading.present is None:
                    connection.execute(
                        self._sql(
                            "update {schema}.chunks set rows = %s, loaded_at = clock_timestamp()"
                            " where token = %s and chunk = %s"
                        ),
                        (loading.rows, staged.token, chunk),
                    )
        except (errors.ForeignKeyViolation, errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise StagingLostError(
                f"the staging of {staged.definition.name} is gone, so chunk {chunk} cannot be loaded; run the job again"
            ) from error

    def _rows(self, connection: Connection, staged: StagedTable, chunk: int) -> int:
        (rows,) = one(
            connection,
            self._sql("select rows from {schema}.chunks where token = %s and chunk = %s"),
            (staged.token, chunk),
        )
        return int(rows)

    def chunks(self, connection: Connection, token: str) -> dict[int, int]:
        """Chunk → its rows, of all that are loaded."""
        rows = connection.execute(self._sql("select chunk, rows from {schema}.chunks where token = %s"), (token,))
        return dict(rows.fetchall())

    # --- tables

    def version(self, connection: Connection, schema: str, table: str) -> str | None:
        """Version of the table that is there; ``None``: there is none."""
        found = find_table(connection, schema, table)
        if found is None:
            return None
        row = self._known(connection, "t.version", schema, table)
        return f"oid:{found[0]}" if row is None else str(row[0])

    def record(self, connection: Connection, schema: str, table: str) -> TableRecord | None:
        """What is remembered of a table; ``None`` where it is not there, or not ours."""
        row = self._known(connection, "t.version, t.loads, t.columns", schema, table)
        return None if row is None else _record(schema, table, *row)

    def comments(self, connection: Connection, schema: str, table: str) -> Mapping[str, str]:
        """Column (or ``""``: the table) → the comment that we wrote; another is somebody's own."""
        row = self._known(connection, "t.comments", schema, table)
        return {} if row is None else dict(row[0])

    def records(self, connection: Connection) -> list[TableRecord]:
        """What is remembered of all tables."""
        if not self.is_there(connection):
            return []
        rows = connection.execute(
            self._sql("select t.schema_name, t.table_name, t.version, t.loads, t.columns" + _KNOWN)
        )
        return [_record(*row) for row in rows]

    def loaded_by(self, connection: Connection, job_id: str) -> list[TableRecord]:
        """The tables that hold rows of a job."""
        if not self.is_there(connection):
            return []
        rows = connection.execute(
            self._sql(
                "select t.schema_name, t.table_name, t.version, t.loads, t.columns" + _KNOWN + " where t.loads @> %s"
            ),
            (Jsonb([{"job_id": job_id}]),),
        )
        return sorted((_record(*row) for row in rows), key=lambda record: (record.schema, record.table))

    def holds(self, connection: Connection, schema: str, table: str, token: str) -> bool:
        """Whether a table was made of this staging, or its rows were added to it."""
        row = self._known(connection, "t.tokens", schema, table)
        return row is not None and token in row[0]

    def remember(
        self,
        connection: Connection,
        record: TableRecord,
        *,
        oid: int,
        comments: Mapping[str, str],
        token: str,
    ) -> None:
        """Note a table as it is now; ``token`` is the staging whose rows it got last."""
        connection.execute(
            self._sql(
                "insert into {schema}.tables"
                " as t (schema_name, table_name, table_oid, version, columns, comments, loads, tokens)"
                " values (%s, %s, %s, %s, %s, %s, %s, array[%s]) on conflict (schema_name, table_name) do update set"
                " table_oid = excluded.table_oid, version = excluded.version, columns = excluded.columns,"
                " comments = excluded.comments, loads = excluded.loads, published_at = now(), tokens ="
                " case when t.table_oid = excluded.table_oid then t.tokens || excluded.tokens else excluded.tokens end"
            ),
            (
                record.schema,
                record.table,
                oid,
                record.version,
                Jsonb(dict(record.columns)),
                Jsonb(dict(comments)),
                Jsonb([load.as_dict() for load in record.loads]),
                token,
            ),
        )

    def forget(self, connection: Connection, schema: str, table: str) -> None:
        """Remember nothing of a table any more."""
        if self.is_there(connection):
            connection.execute(
                self._sql("delete from {schema}.tables where schema_name = %s and table_name = %s"), (schema, table)
            )

    def _known(self, connection: Connection, what: str, schema: str, table: str) -> tuple[Any, ...] | None:
        if not self.is_there(connection):
            return None
        return connection.execute(
            self._sql("select " + what + _KNOWN + " where t.schema_name = %s and t.table_name = %s"), (schema, table)
        ).fetchone()

    def _sql(self, statement: str, **values: sql.Composable) -> sql.Composed:
        return sql.SQL(statement).format(schema=sql.Identifier(self.schema), **values)


class LoadingChunk:
    """A chunk while it is loaded."""

    def __init__(self, *, present: int | None) -> None:
        self.present = present
        """Its rows, where it is there already."""
        self.rows = 0
        """What the one who loads it counted."""


def _record(
    schema: str, table: str, version: str, loads: Sequence[Mapping[str, Any]], columns: Mapping[str, str]
) -> TableRecord:
    return TableRecord(
        schema=schema,
        table=table,
        version=version,
        loads=tuple(TableLoad.from_dict(load) for load in loads),
        columns=dict(columns),
    )
