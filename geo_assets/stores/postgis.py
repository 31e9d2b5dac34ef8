"""Vector tables in PostGIS: loaded beside their target, checked, and put in its place in one transaction.

What belongs here: :class:`PostgisTables`, the order of the steps, and their transactions.  What does not: the
statements: of the staging schema (``postgis_register``), of stagings (``postgis_staging``), of the end of a load
(``postgis_swap``), of looking at tables (``postgis_facts``, ``postgis_rows``).

A staging is a table of its own; each chunk is one transaction, which also notes that the chunk is there.  Once all are
there, rows are counted, key, index and statistics are made, all out of sight.  Then one transaction of milliseconds
replaces the table, or adds the rows to it.

**What readers see.**  A statement sees the old table or the new one.  One exception is PostgreSQL's own: a transaction
of isolation level *repeatable read* or above that began before the load, and looks at the table for the first time
after it, sees the new table with the rows that were there when it began.
"""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import pyarrow as pa
from psycopg import errors, sql

from geo_assets.errors import (
    ParameterError,
    PreconditionFailedError,
    StagingLostError,
    TableInUseError,
    TableNotFoundError,
    TableStoreUnavailableError,
)
from geo_assets.stores.postgis_copy import copy_rows
from geo_assets.stores.postgis_dependents import Index, View, blockers_of
from geo_assets.stores.postgis_register import Register, find_table
from geo_assets.stores.postgis_rows import read_rows
from geo_assets.stores.postgis_session import Connection, Sessions, advisory_lock, one
from geo_assets.stores.postgis_staging import (
    check_complete,
    comments_of,
    create_staging,
    drop_staging,
    finish_staging,
    relation_of,
)
from geo_assets.stores.postgis_swap import (
    add_rows,
    check_added,
    check_mode,
    check_survivors,
    dress_alike,
    fitted,
    keep_in_place,
    lock_target,
    put_in_place,
)
from geo_assets.stores.tables import GeometryValidity, LoadMode, PublishedTable, StagedTable, TableFacts, TableRecord
from geo_assets.vector.table import TableDefinition, TableLoad

__all__ = ["PostgisTables"]

_NAME_BYTES: Final = 63
_SWEEP_WAIT: Final = 1.0
_READABLE: Final = frozenset("rpvmf")
"""Kinds of relations that have rows: tables, also partitioned and foreign ones, and views, also materialized ones."""
_LOCKABLE: Final = frozenset("rpv")


class PostgisTables:
    """Tables of a PostgreSQL database with PostGIS; see ``stores.tables.TableStore``."""

    def __init__(self, url: str, *, staging_schema: str = "geo_assets_staging", lock_seconds: float = 10) -> None:
        """Take the URL of the database; it is connected when something is wanted of it.

        Args:
            url: ``postgresql://…``; a driver in the scheme is ignored.
            staging_schema: schema of what is being loaded, and of the register; made with the first load.
            lock_seconds: how long a load that is ready waits for those who use its target.

        Raises:
            SettingsError: the URL is not one of PostgreSQL.
        """
        self._sessions = Sessions(url)
        self._register = Register(staging_schema)
        self._lock_seconds = lock_seconds

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return self._sessions.description

    @property
    def kind(self) -> Literal["postgis", "geoparquet"]:
        """Which kind."""
        return "postgis"

    def close(self) -> None:
        """Give back connections."""
        self._sessions.close()

    # --- loading

    def check_target(self, schema: str, table: str, mode: LoadMode) -> str | None:
        """Find out, before any work, whether a load can end well; returns the version of the table that is there."""
        _check_names(schema, table)
        with self._sessions.session(f"looking at {schema}.{table}") as connection, connection.transaction():
            return self._checked(connection, schema, table, mode)

    def begin(self, definition: TableDefinition, mode: LoadMode) -> StagedTable:
        """Make a staging."""
        schema, table = definition.schema, definition.table
        _check_names(schema, table)
        with self._sessions.session(f"beginning to load {definition.name}") as connection:
            self._register.ensure(connection)
            with connection.transaction():
                version = self._checked(connection, schema, table, mode)
                definition = self._fitted(connection, definition, mode)
                staged = StagedTable(token=uuid.uuid4().hex, definition=definition, mode=mode, target_version=version)
                self._register.add_staging(connection, staged)
                create_staging(connection, self._register, staged.token, definition)
        return staged

    def load_chunk(self, staged: StagedTable, chunk: int, batches: Iterable[pa.RecordBatch]) -> int:
        """Load one chunk; returns its rows. A chunk that is there already is not loaded again."""
        definition = staged.definition
        if chunk < 0:
            raise ParameterError(f"chunks of {definition.name} are numbered from 0, not {chunk}")
        with (
            self._sessions.session(f"loading chunk {chunk} of {definition.name}") as connection,
            self._register.loading(connection, staged, chunk) as loading,
        ):
            if loading.present is not None:
                return loading.present
            target = self._register.identifier(relation_of(staged.token))
            loading.rows = copy_rows(connection, target, definition, batches)
            return loading.rows

    def publish(
        self,
        staged: Sequence[StagedTable],
        loads: Sequence[TableLoad],
        *,
        chunks: Sequence[int],
        cluster: bool = False,
    ) -> list[PublishedTable]:
        """Check, index and put in place several stagings, all or none."""
        publications = [
            _Publication(staged=one_, load=load, chunks=count)
            for one_, load, count in zip(staged, loads, chunks, strict=True)
        ]
        targets = sorted({one_.name for one_ in publications})
        if len(targets) < len(publications):
            raise ParameterError("two stagings of one publication have the same table as their target")
        with self._sessions.session(f"publishing {', '.join(targets)}") as connection:
            self._register.ensure(connection)
            for one_ in publications:
                self._finish(connection, one_, cluster=cluster)
            with self._naming_holders(connection, publications), connection.transaction():
                self._wait_at_most(connection, self._lock_seconds)
                for name in targets:
                    advisory_lock(connection, name)
                return self._put_in_place(connection, publications)

    def discard(self, tokens: Iterable[str]) -> None:
        """Remove stagings; those that are gone are no matter."""
        with self._sessions.session("discarding stagings") as connection:
            if self._register.is_there(connection):
                for token in tokens:
                    drop_staging(connection, self._register, token)

    def sweep(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        """Remove (``dry_run``: count) stagings that nobody has touched for so long; returns how many."""
        removed = 0
        with self._sessions.session("sweeping stagings") as connection:
            if not self._register.is_there(connection):
                return 0
            untouched = self._register.untouched(connection, older_than_seconds)
            if dry_run:
                return len(untouched)
            for token in untouched:
                try:
                    with connection.transaction():
                        self._wait_at_most(connection, _SWEEP_WAIT)
                        drop_staging(connection, self._register, token)
                except errors.LockNotAvailable:
                    continue  # it is being loaded: not that old
                removed += 1
        return removed

    # --- looking

    def record(self, schema: str, table: str) -> TableRecord | None:
        """What the store remembers of a table; ``None`` where it is not there, or not as it was loaded."""
        with self._sessions.session(f"looking at {schema}.{table}") as connection:
            return self._register.record(connection, schema, table)

    def records(self) -> Iterator[TableRecord]:
        """What the store remembers of every table that is as it was loaded."""
        with self._sessions.session("looking for loaded tables") as connection:
            # a register of 100,000 tables is some 100 MB, a session that waits for its reader keeps locks
            found = self._register.records(connection)
        yield from found

    def loaded_by(self, job_id: str) -> list[TableRecord]:
        """The tables that hold rows loaded by a job, sorted by name."""
        with self._sessions.session("looking for loaded tables") as connection:
            return self._register.loaded_by(connection, job_id)

    def describe(
        self,
        schema: str,
        table: str,
        *,
        geometry_column: str | None = None,
        datetime_column: str | None = None,
        exact: bool = True,
    ) -> TableFacts:
        """Look at a table, whoever made it."""
        from geo_assets.stores.postgis_facts import describe_table  # noqa: PLC0415 - PROJ and shapely

        with self._looking(schema, table) as (connection, oid):
            facts = describe_table(
                connection,
                oid,
                schema,
                table,
                geometry_column=geometry_column,
                datetime_column=datetime_column,
                exact=exact,
            )
            return replace(
                facts,
                version=self._register.version(connection, schema, table),
                record=self._register.record(connection, schema, table),
                href=self._href(schema, table),
            )

    def validity(self, schema: str, table: str, *, most: int = 1_000_000) -> GeometryValidity:
        """Look whether geometries are valid: all of them, or about ``most`` where the table has more rows."""
        from geo_assets.stores.postgis_validity import validity_of  # noqa: PLC0415 - where a table is checked

        with self._looking(schema, table) as (connection, oid):
            return validity_of(connection, oid, schema, table, most=most)

    def list_tables(self, schema: str) -> list[str]:
        """Names of the tables and views in a schema, sorted, without those of extensions."""
        with self._sessions.session(f"listing the schema '{schema}'") as connection:
            rows = connection.execute(
                "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
                " where n.nspname = %s and c.relkind::text = any(%s) and not c.relispartition"
                " and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid"
                " and d.deptype = 'e')",
                (schema, sorted(_READABLE)),
            ).fetchall()
        return sorted(row[0] for row in rows)

    def read(self, schema: str, table: str, *, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Stream rows ordered by id, attributes as they travel in chunks, geometries as WKB."""
        with self._looking(schema, table) as (connection, oid):
            yield from read_rows(connection, oid, schema, table, limit=limit)

    def drop(self, schema: str, table: str, *, versions: Sequence[str] | None = None) -> bool:
        """Remove a table if it is there in one of these versions; whether it was."""
        name = f"{schema}.{table}"
        with self._sessions.session(f"removing {name}") as connection, connection.transaction():
            self._wait_at_most(connection, self._lock_seconds)
            advisory_lock(connection, name)
            found = find_table(connection, schema, table)
            if found is None:
                return False
            if found[1] not in ("r", "p"):
                raise TableInUseError(f"{name} of {self.description} is no table, and is not removed")
            version = self._register.version(connection, schema, table)
            if versions is not None and version not in versions:
                raise PreconditionFailedError(
                    f"{name} of {self.description} was not removed: it is there in version {version}, not"
                    f" {' or '.join(versions) or 'any that was asked for'}"
                )
            if versions is not None:
                connection.execute(
                    sql.SQL("lock table {} in access exclusive mode").format(sql.Identifier(schema, table))
                )
                self._check_untouched(connection, schema, table)
            connection.execute(sql.SQL("drop table {}").format(sql.Identifier(schema, table)))
            self._register.forget(connection, schema, table)
        return True

    def touched(self, schema: str, table: str) -> bool:
        """Whether a table holds other rows than the loads in its record."""
        with self._sessions.session(f"looking at {schema}.{table}") as connection, connection.transaction():
            keep_in_place(connection, schema, table)
            found = find_table(connection, schema, table)
            if found is None or found[1] not in _READABLE:
                return False
            there, loaded = self._rows(connection, schema, table)
            return there != loaded

    def blockers(self, schema: str, table: str) -> list[str]:
        """What depends on a table so that it cannot be dropped."""
        with self._sessions.session(f"looking at {schema}.{table}") as connection:
            found = find_table(connection, schema, table)
            return [] if found is None else blockers_of(connection, found[0])

    # --- inside: before a load

    def _rows(self, connection: Connection, schema: str, table: str) -> tuple[int, int | None]:
        """How many rows a table has, and how many were loaded into it; ``None``: it is not ours."""
        record = self._register.record(connection, schema, table)
        if record is None:
            return 0, None  # nothing to compare with: not worth counting
        (there,) = one(connection, sql.SQL("select count(*) from {}").format(sql.Identifier(schema, table)))
        return there, sum(load.rows for load in record.loads)

    def _check_untouched(self, connection: Connection, schema: str, table: str) -> None:
        there, loaded = self._rows(connection, schema, table)
        if loaded is not None and there != loaded:
            raise PreconditionFailedError(
                f"{schema}.{table} of {self.description} was not removed: rows were added or removed since it was"
                f" loaded ({there} are there, {loaded} were loaded)"
            )

    def _checked(self, connection: Connection, schema: str, table: str, mode: LoadMode) -> str | None:
        """Version of the target, which stays what it is until the transaction ends."""
        self._wait_at_most(connection, self._lock_seconds)
        keep_in_place(connection, schema, table)
        check_mode(connection, schema, table, mode)
        self._check_added(connection, schema, table, mode)
        return self._register.version(connection, schema, table)

    def _check_added(self, connection: Connection, schema: str, table: str, mode: LoadMode) -> None:
        found = find_table(connection, schema, table)
        record = self._register.record(connection, schema, table)
        if found is not None and record is not None and mode == "overwrite":
            check_added(connection, f"{schema}.{table}", found[0], record.columns)

    def _check_definition(self, connection: Connection, definition: TableDefinition, mode: LoadMode) -> list[Index]:
        """Whether the target takes such a table or rows; returns the indexes that people made on one to replace."""
        found = find_table(connection, definition.schema, definition.table)
        if found is not None and mode == "overwrite":
            return check_survivors(connection, found[0], definition)
        self._fitted(connection, definition, mode)
        return []

    def _fitted(self, connection: Connection, definition: TableDefinition, mode: LoadMode) -> TableDefinition:
        """The definition with the types of the table that rows are added to; else, once it is checked, as it is."""
        found = find_table(connection, definition.schema, definition.table)
        if found is None or mode == "create":
            return definition
        if mode == "overwrite":
            check_survivors(connection, found[0], definition)
            return definition
        record = self._register.record(connection, definition.schema, definition.table)
        return fitted(connection, found[0], definition, None if record is None else record.columns)

    # --- inside: publishing

    def _finish(self, connection: Connection, one_: "_Publication", *, cluster: bool) -> None:
        """Check and index a staging, unless an earlier try did."""
        definition, mode = one_.staged.definition, one_.staged.mode
        with connection.transaction():
            if self._register.lock_staging(connection, one_.token) is not False:
                return  # done, or gone: the last transaction tells
            # before the work; and in a transaction of its own, as nobody should wait for this one
            self._checked(connection, one_.schema, one_.table, mode)
            self._check_version(connection, one_)
            extra = self._check_definition(connection, definition, mode)
        with connection.transaction():
            if self._register.lock_staging(connection, one_.token) is not False:
                return
            finish_staging(
                connection,
                self._register,
                one_.token,
                definition,
                one_.load,
                chunks=one_.chunks,
                cluster=cluster,
                joins=one_.joins,
            )
            if mode == "overwrite":
                dress_alike(connection, self._register, one_.token, definition, extra)

    def _check_version(self, connection: Connection, one_: "_Publication") -> None:
        version = self._register.version(connection, one_.schema, one_.table)
        if version != one_.staged.target_version:
            raise PreconditionFailedError(
                f"{one_.name} of {self.description} was not published: the table is no longer what it was when loading"
                f" began (version {version or 'none'}, not {one_.staged.target_version or 'none'}); run the job again"
            )

    def _put_in_place(self, connection: Connection, publications: Sequence["_Publication"]) -> list[PublishedTable]:
        waiting = [one_ for one_ in publications if not self._is_published(connection, one_)]
        # readers wait while a table is replaced, so that one is not counted again
        counted = {one_.token: one_.load.rows for one_ in waiting if not one_.joins}
        # all are held and looked at before the first is replaced
        views = {one_.token: self._hold(connection, one_) for one_ in waiting}
        for one_ in waiting:
            definition = one_.staged.definition
            before = self._register.record(connection, one_.schema, one_.table)
            comments = self._register.comments(connection, one_.schema, one_.table)
            if one_.joins:
                oid = add_rows(connection, self._register, one_.token, definition)
            else:
                token = one_.token
                oid = put_in_place(connection, self._register, token, definition, views[token], comments)
                before, comments = None, comments_of(definition, one_.load)
            record = one_.record(before)
            self._register.remember(connection, record, oid=oid, comments=comments, token=one_.token)
            self._register.remove_staging(connection, one_.token)
        return [self._published(connection, one_, counted.get(one_.token)) for one_ in publications]

    def _is_published(self, connection: Connection, one_: "_Publication") -> bool:
        """Whether an earlier try put it in place.

        Raises:
            StagingLostError: it did not, and the staging is gone.
        """
        if self._register.lock_staging(connection, one_.token) is not None:
            return False
        if self._register.holds(connection, one_.schema, one_.table, one_.token):
            return True
        raise StagingLostError(f"what was loaded for {one_.name} is gone from {self.description}: run the job again")

    def _hold(self, connection: Connection, one_: "_Publication") -> tuple[View, ...]:
        """Hold the target, and see that it is what it was, and that the staging is still whole."""
        mode = one_.staged.mode
        views = lock_target(connection, one_.schema, one_.table, mode)
        if mode == "create":
            check_mode(connection, one_.schema, one_.table, mode)
        self._check_version(connection, one_)
        self._check_added(connection, one_.schema, one_.table, mode)
        self._check_definition(connection, one_.staged.definition, mode)
        check_complete(one_.name, self._register.chunks(connection, one_.token), one_.load, one_.chunks)
        return views

    def _published(self, connection: Connection, one_: "_Publication", rows: int | None) -> PublishedTable:
        if rows is None:
            table = sql.Identifier(one_.schema, one_.table)
            (rows,) = one(connection, sql.SQL("select count(*) from {}").format(table))
        return PublishedTable(
            schema=one_.schema,
            table=one_.table,
            version=self._register.version(connection, one_.schema, one_.table) or "",
            rows=rows,
            rows_loaded=one_.load.rows,
            replaced=one_.staged.target_version is not None,
            href=self._href(one_.schema, one_.table),
        )

    @contextmanager
    def _naming_holders(self, connection: Connection, publications: Sequence["_Publication"]) -> Iterator[None]:
        """Say who holds the tables, where waiting for them was in vain."""
        try:
            yield
        except errors.LockNotAvailable as error:
            rows = connection.execute(
                "select distinct format('%%s of %%s (process %%s, %%s)', coalesce(nullif(a.application_name, ''),"
                " 'a session'), a.usename, a.pid, a.state) from pg_locks l join pg_stat_activity a using (pid)"
                " join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace"
                " where l.granted and l.pid <> pg_backend_pid() and l.database ="
                " (select oid from pg_database where datname = current_database())"
                " and n.nspname || '.' || c.relname = any(%s) order by 1",
                ([one_.name for one_ in publications],),
            ).fetchall()
            holders = ", ".join(row[0] for row in rows) or "another session"
            names = ", ".join(one_.name for one_ in publications)
            raise TableStoreUnavailableError(
                f"{names} of {self.description} was not published, and is as it was: {holders} held it for more than"
                f" {self._lock_seconds:g} s; try again later"
            ) from error

    # --- inside: looking

    @contextmanager
    def _looking(self, schema: str, table: str) -> Iterator[tuple[Connection, int]]:
        """A transaction that sees one state of the database, in which a table stays what it is."""
        missing = TableNotFoundError(f"there is no table {schema}.{table} in {self.description}")
        with self._sessions.session(f"looking at {schema}.{table}") as connection:
            found = find_table(connection, schema, table)
            if found is None or found[1] not in _READABLE:
                raise missing
            with connection.transaction():
                connection.execute("set transaction isolation level repeatable read, read only")
                if found[1] in _LOCKABLE:
                    try:
                        # before the snapshot is taken: it then shows the table that is held
                        connection.execute(
                            sql.SQL("lock table {} in access share mode").format(sql.Identifier(schema, table))
                        )
                    except (errors.UndefinedTable, errors.InvalidSchemaName):
                        raise missing from None
                found = find_table(connection, schema, table)
                if found is None:
                    raise missing
                yield connection, found[0]

    def _href(self, schema: str, table: str) -> str:
        return f"{self._sessions.address}/{schema}.{table}"

    def _wait_at_most(self, connection: Connection, seconds: float) -> None:
        connection.execute("select set_config('lock_timeout', %s, true)", (f"{int(seconds * 1000)}ms",))


@dataclass(frozen=True, kw_only=True)
class _Publication:
    """One staging on its way into its place."""

    staged: StagedTable
    load: TableLoad
    chunks: int

    @property
    def token(self) -> str:
        """The staging's."""
        return self.staged.token

    @property
    def schema(self) -> str:
        """The target's."""
        return self.staged.definition.schema

    @property
    def table(self) -> str:
        """The target's name."""
        return self.staged.definition.table

    @property
    def name(self) -> str:
        """Schema and table."""
        return self.staged.definition.name

    @property
    def joins(self) -> bool:
        """Whether the rows are added to a table that was there."""
        return self.staged.mode == "append" and self.staged.target_version is not None

    def record(self, before: TableRecord | None) -> TableRecord:
        """What is to be remembered; the version is the staging's token."""
        columns = {column.name: column.source_name for column in self.staged.definition.columns}
        return TableRecord(
            schema=self.schema,
            table=self.table,
            version=self.token,
            loads=(*(() if before is None else before.loads), self.load),
            columns={**columns, **({} if before is None else before.columns)},
        )


def _check_names(*names: str) -> None:
    for name in names:
        if not name or "\0" in name or len(name.encode(errors="replace")) > _NAME_BYTES:
            raise ParameterError(
                f"{name!r} cannot name a schema or table: a name has 1 to {_NAME_BYTES} bytes, and no null character"
            )
