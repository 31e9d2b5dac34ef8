"""Rows of a table or view in PostGIS as Arrow batches, as they travel in chunks.

What belongs here: reading.  What does not: loading (``postgis_copy``), and what is known of a table without its rows
(``postgis_facts``).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from psycopg import sql

from geo_assets.stores.postgis_session import Connection
from geo_assets.vector.table import ARROW_TYPES, ID_COLUMN, ColumnType

__all__ = ["read_rows"]

_COLUMNS: Final = (
    "select attname, format_type(atttypid, atttypmod) from pg_attribute"
    " where attrelid = %s and attnum > 0 and not attisdropped order by attnum"
)
_ROWS: Final = 5_000
_TYPES: Final[Mapping[str, pa.DataType]] = {
    **{kind.value: arrow for kind, arrow in ARROW_TYPES.items() if kind is not ColumnType.JSON},
    "timestamp with time zone": ARROW_TYPES[ColumnType.TIMESTAMPTZ],
    "timestamp without time zone": ARROW_TYPES[ColumnType.TIMESTAMP],
    "time without time zone": ARROW_TYPES[ColumnType.TIME],
}
_NUMERIC: Final = re.compile(r"numeric\((\d+),(\d+)\)")
_PRECISION: Final = 38


@dataclass(frozen=True, kw_only=True)
class _Read:
    """How one column is read."""

    name: str
    value: sql.Composable
    type: pa.DataType


def read_rows(
    connection: Connection, oid: int, schema: str, table: str, *, limit: int | None
) -> Iterator[pa.RecordBatch]:
    """Stream the rows of a table that is held in a transaction; by id, where it has one.

    What has no type of ours comes as its text.
    """
    columns = [_read(name, kind) for name, kind in connection.execute(_COLUMNS, (oid,))]
    order = sql.SQL(" order by {}").format(sql.Identifier(ID_COLUMN))
    query = sql.SQL("select {} from {}{}{}").format(
        sql.SQL(", ").join(column.value for column in columns),
        sql.Identifier(schema, table),
        order if any(column.name == ID_COLUMN for column in columns) else sql.SQL(""),
        sql.SQL("") if limit is None else sql.SQL(" limit {}").format(sql.Literal(limit)),
    )
    arrow = pa.schema([pa.field(column.name, column.type) for column in columns])
    with connection.cursor(name="geo_assets_rows", binary=True) as cursor:
        cursor.execute(query)
        while rows := cursor.fetchmany(_ROWS):
            values: list[tuple[Any, ...]] = list(zip(*rows, strict=True)) or [()]
            arrays = [pa.array(value, column.type) for value, column in zip(values, columns, strict=False)]
            yield pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _read(name: str, kind: str) -> _Read:
    column = sql.Identifier(name)
    if kind.startswith(("geometry", "geography")):
        return _Read(name=name, value=sql.SQL("st_asbinary({}::geometry)").format(column), type=pa.binary())
    if kind in _TYPES:
        return _Read(name=name, value=column, type=_TYPES[kind])
    numeric = _NUMERIC.fullmatch(kind)
    if numeric is not None and int(numeric[1]) <= _PRECISION:
        return _Read(name=name, value=column, type=pa.decimal128(_PRECISION, int(numeric[2])))
    return _Read(name=name, value=sql.SQL("{}::text").format(column), type=pa.string())
