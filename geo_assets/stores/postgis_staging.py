"""Tables of the staging schema: made in one statement, filled by chunks, then checked, indexed and commented.

What belongs here: what a table of ours looks like, and whether all of it arrived.  What does not: how it takes
another's place (``postgis_swap``), and what its rows are in a copy (``postgis_copy``).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from psycopg import sql

from geo_assets.errors import TableDataError
from geo_assets.stores.postgis_register import Register
from geo_assets.stores.postgis_session import Connection, one
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType, GeometryColumn, TableDefinition, TableLoad

__all__ = [
    "check_complete",
    "comments_of",
    "create_staging",
    "drop_staging",
    "finish_staging",
    "geometry_type",
    "relation_of",
    "type_name",
    "write_comments",
]

_TYPES: Final[Mapping[ColumnType, sql.SQL]] = {
    ColumnType.BOOLEAN: sql.SQL("boolean"),
    ColumnType.SMALLINT: sql.SQL("smallint"),
    ColumnType.INTEGER: sql.SQL("integer"),
    ColumnType.BIGINT: sql.SQL("bigint"),
    ColumnType.REAL: sql.SQL("real"),
    ColumnType.DOUBLE: sql.SQL("double precision"),
    ColumnType.TEXT: sql.SQL("text"),
    ColumnType.DATE: sql.SQL("date"),
    ColumnType.TIME: sql.SQL("time without time zone"),
    ColumnType.TIMESTAMP: sql.SQL("timestamp without time zone"),
    ColumnType.TIMESTAMPTZ: sql.SQL("timestamp with time zone"),
    ColumnType.JSON: sql.SQL("jsonb"),
    ColumnType.BINARY: sql.SQL("bytea"),
}
"""Named as ``format_type`` names them."""
_COMPRESSED: Final = frozenset({ColumnType.TEXT, ColumnType.JSON, ColumnType.BINARY})
_INDEX_MEMORY: Final = "512MB"
_SHOWN: Final = 10


def relation_of(token: str) -> str:
    """Name of a staging's table."""
    return f"load_{token}"


def type_name(column: Column) -> str:
    """Type of a column, as ``format_type`` names it."""
    if column.type is ColumnType.NUMERIC:
        return f"numeric(38,{column.scale})"
    return _TYPES[column.type].as_string()


def geometry_type(geometry: GeometryColumn) -> str:
    """Type of a geometry column, as ``format_type`` names it."""
    return f"geometry({geometry.type}{geometry.dimensions.removeprefix('XY')},{geometry.srid})"


# --- making and removing ------------------------------------------------------------------------------------------


def create_staging(connection: Connection, register: Register, token: str, definition: TableDefinition) -> None:
    """Make the table of a staging; it has no key or index yet, as rows come faster without."""
    (lz4,) = one(connection, "select 'lz4' = any(enumvals) from pg_settings where name = 'default_toast_compression'")
    compression = sql.SQL(" compression lz4") if lz4 else sql.SQL("")
    parts: list[sql.Composable] = [sql.SQL("{} bigint not null").format(sql.Identifier(ID_COLUMN))]
    for column in definition.columns:
        compressed = compression if column.type in _COMPRESSED else sql.SQL("")
        parts.append(sql.SQL("{} {}{}").format(sql.Identifier(column.name), _sql_type(column), compressed))
    geometry = definition.geometry
    if geometry is not None:
        parts.append(
            sql.SQL("{} geometry({}, {}){}").format(
                sql.Identifier(geometry.name),
                sql.Literal(f"{geometry.type}{geometry.dimensions.removeprefix('XY')}"),
                sql.Literal(geometry.srid),
                compression,
            )
        )
    connection.execute(
        sql.SQL("create table {} ({}) with (autovacuum_enabled = false)").format(
            register.identifier(relation_of(token)), sql.SQL(", ").join(parts)
        )
    )


def _sql_type(column: Column) -> sql.Composable:
    if column.type is ColumnType.NUMERIC:
        return sql.SQL("numeric(38, {})").format(sql.Literal(column.scale))
    return _TYPES[column.type]


def drop_staging(connection: Connection, register: Register, token: str) -> None:
    """Remove a staging; nothing happens where it is gone."""
    with connection.transaction():
        # first the row that chunks refer to: a chunk that is being loaded ends before this goes on
        register.remove_staging(connection, token)
        connection.execute(sql.SQL("drop table if exists {}").format(register.identifier(relation_of(token))))


# --- finishing ----------------------------------------------------------------------------------------------------


def finish_staging(
    connection: Connection,
    register: Register,
    token: str,
    definition: TableDefinition,
    load: TableLoad,
    *,
    chunks: int,
    cluster: bool,
    joins: bool,
) -> None:
    """Check what was loaded; then key, index and statistics.  In the caller's transaction.

    Args:
        connection: in a transaction.
        register: of the staging.
        token: the staging's.
        definition: of its table.
        load: how many rows there must be.
        chunks: how many chunks.
        cluster: order the rows along a Hilbert curve.
        joins: its rows will join a table that is there: it needs no index of its own.

    Raises:
        TableDataError: rows or chunks are missing, too many, or there twice.
    """
    relation = relation_of(token)
    table = register.identifier(relation)
    rows = check_complete(definition.name, register.chunks(connection, token), load, chunks)
    connection.execute(sql.SQL("set local maintenance_work_mem = {}").format(sql.Literal(_INDEX_MEMORY)))
    if cluster and not joins and definition.geometry is not None:
        _order(connection, register, relation, sql.Identifier(definition.geometry.name))
    # also the proof that no row is there twice
    connection.execute(sql.SQL("alter table {} add primary key ({})").format(table, sql.Identifier(ID_COLUMN)))
    (counted,) = one(connection, sql.SQL("select count(*) from {}").format(table))
    if counted != rows:
        raise TableDataError(
            f"{counted} rows of {definition.name} are there, {rows} were loaded; nothing was published"
        )
    if not joins:
        _dress(connection, table, definition)
        write_comments(connection, table, comments_of(definition, load))
    register.set_finished(connection, token)


def check_complete(name: str, present: Mapping[int, int], load: TableLoad, chunks: int) -> int:
    """Check that all chunks are there, and no others; returns their rows.

    Raises:
        TableDataError: rows or chunks are missing or too many.
    """
    expected = set(range(chunks))
    if missing := sorted(expected - set(present)):
        raise TableDataError(
            f"chunks of {name} are missing: {_shown(missing)} (there must be {chunks}); nothing was published"
        )
    if beyond := sorted(set(present) - expected):
        raise TableDataError(
            f"chunks of {name} are too many: {_shown(beyond)} (there must be {chunks}); nothing was published"
        )
    rows = sum(present.values())
    if rows != load.rows:
        raise TableDataError(f"{name} has {rows} rows loaded, but its source has {load.rows}; nothing was published")
    return rows


def _shown(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return ", ".join(map(str, numbers[:_SHOWN])) + more


def _dress(connection: Connection, table: sql.Composable, definition: TableDefinition) -> None:
    """Identity, spatial index and statistics."""
    identifier = sql.Identifier(ID_COLUMN)
    (following,) = one(connection, sql.SQL("select coalesce(max({}), 0) + 1 from {}").format(identifier, table))
    connection.execute(
        sql.SQL("alter table {} alter column {} add generated by default as identity (start with {})").format(
            table, identifier, sql.Literal(following)
        )
    )
    if definition.geometry is not None:
        geometry = sql.Identifier(definition.geometry.name)
        connection.execute(sql.SQL("create index on {} using gist ({})").format(table, geometry))
    connection.execute(sql.SQL("alter table {} reset (autovacuum_enabled)").format(table))
    connection.execute(sql.SQL("analyze {}").format(table))


def _order(connection: Connection, register: Register, relation: str, geometry: sql.Composable) -> None:
    """Order the rows along a Hilbert curve, which takes a copy of them; before there is any index.

    That is how PostGIS compares geometries, by the middle of their boxes; of the boxes themselves, as they are small to
    sort.
    """
    table, ordered = register.identifier(relation), register.identifier(f"{relation}_ordered")
    connection.execute(sql.SQL("create table {} (like {} including all)").format(ordered, table))
    connection.execute(
        sql.SQL("insert into {} select * from {} order by st_envelope({})").format(ordered, table, geometry)
    )
    connection.execute(sql.SQL("drop table {}").format(table))
    connection.execute(sql.SQL("alter table {} rename to {}").format(ordered, sql.Identifier(relation)))


# --- comments -----------------------------------------------------------------------------------------------------


def comments_of(definition: TableDefinition, load: TableLoad) -> dict[str, str]:
    """Column (or ``""``: the table) → its comment."""
    origin = "/".join(str(load.source[part]) for part in ("container", "blob") if load.source.get(part))
    layer = f', layer "{load.source["layer"]}"' if load.source.get("layer") else ""
    comments = {"": f"Loaded by geo_assets from {origin}{layer}"} if origin else {}
    for column in definition.columns:
        source = f'source: "{column.source_name}"'
        comments[column.name] = f"{column.description}\n{source}" if column.description else source
    return comments


def write_comments(connection: Connection, table: sql.Composable, comments: Mapping[str, str]) -> None:
    """Write comments, in one go however many there are."""
    statements: Iterable[sql.Composable] = (
        sql.SQL("comment on column {}.{} is {}").format(table, sql.Identifier(name), sql.Literal(text))
        if name
        else sql.SQL("comment on table {} is {}").format(table, sql.Literal(text))
        for name, text in comments.items()
    )
    if comments:
        connection.execute(sql.SQL("; ").join(statements))
