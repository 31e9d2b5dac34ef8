"""Rows for a table that is there already: which types it takes, and the cast to them.

What belongs here: what fits into a column without loss, as a rule on definitions and as a cast of batches.  What does
not: finding out what a table's columns are (``stores``), and geometries of another type (``wkb.conform``).

The smallest type that holds the values of one file is not that of the next: a series is appended by casting.  Whole
numbers go into any integer (each value is checked), ``numeric`` or ``double precision``, ``real`` into ``double
precision``, a decimal into one with more digits.  A column without any value is text, as nothing told its type, and
fits anywhere but into JSON.  Nothing else is cast: a date is no timestamp, as nobody knows of which zone.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast

import pyarrow as pa

from geo_assets.errors import TableDataError
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType, GeometryColumn

__all__ = ["fit_batch", "fit_column", "fit_geometry"]

_WHOLE: Final = frozenset({ColumnType.SMALLINT, ColumnType.INTEGER, ColumnType.BIGINT})
_TAKEN_BY: Final[Mapping[ColumnType, frozenset[ColumnType]]] = {
    **dict.fromkeys(_WHOLE, _WHOLE | {ColumnType.NUMERIC, ColumnType.DOUBLE}),
    ColumnType.REAL: frozenset({ColumnType.DOUBLE}),
    ColumnType.TEXT: frozenset(ColumnType)
    - {ColumnType.JSON},  # which travels as text: nothing would tell the two apart
}
_SHOWN: Final = 60


def fit_column(column: Column, there: Column) -> Column | None:
    """The column with the type of the table's, where that takes such values; ``None`` where it does not.

    Text fits by its type, as it may be a column without values; :func:`fit_batch` tells.

    Args:
        column: of the rows.
        there: the table's, of which type and scale count.
    """
    same = column.type is there.type and column.scale <= there.scale
    if not same and there.type not in _TAKEN_BY.get(column.type, ()):
        return None
    return replace(column, type=there.type, scale=there.scale)


def fit_geometry(geometry: GeometryColumn, there: GeometryColumn) -> GeometryColumn | None:
    """The geometry with type and dimensions of the table's, where ``wkb.conform`` gets there without loss.

    Single parts fit into a multi column, anything into ``Geometry``; Z and M may be missing, never too many.
    """
    kinds = {"Geometry", geometry.type, f"Multi{geometry.type}"}
    if there.type not in kinds or there.srid != geometry.srid or not set(geometry.dimensions) <= set(there.dimensions):
        return None
    return replace(geometry, type=there.type, dimensions=there.dimensions)


def fit_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Cast a batch to the columns of a table, in the table's order, without losing anything.

    Args:
        batch: has the columns of ``schema``, in any order.
        schema: a ``TableDefinition.chunk_schema``; geometries pass as they are.

    Raises:
        TableDataError: other columns, or a value that a column does not take; names the first of it.
    """
    if batch.schema.equals(schema):
        return batch
    if sorted(batch.schema.names) != sorted(schema.names):
        raise TableDataError(f"rows have the columns {batch.schema.names}, their table has {schema.names}")
    columns = [_fitted(batch, field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _fitted(batch: pa.RecordBatch, field: "pa.Field[Any]") -> "pa.Array[Any]":
    column: pa.Array[Any] = batch.column(field.name)
    if column.type == field.type:
        return column
    if column.null_count == len(column):
        return cast("pa.Array[Any]", pa.nulls(len(column), field.type))
    if not _may_cast(column.type, field.type):
        raise _refused(batch, field, column.is_valid().index(True).as_py())
    try:
        return _cast(column, field.type)
    except pa.ArrowInvalid as error:
        raise _refused(batch, field, _first_refused(column, field.type)) from error


def _may_cast(given: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_integer(given):
        return pa.types.is_integer(wanted) or pa.types.is_float64(wanted) or pa.types.is_decimal(wanted)
    if pa.types.is_decimal(given):
        return pa.types.is_decimal(wanted)
    return pa.types.is_float32(given) and pa.types.is_float64(wanted)


def _cast(column: "pa.Array[Any]", wanted: pa.DataType) -> "pa.Array[Any]":
    if pa.types.is_integer(column.type) and pa.types.is_decimal(wanted):
        # at once, it is refused where the largest number of the type would not fit, whatever the values
        column = column.cast(pa.decimal128(38, 0))
    return cast("pa.Array[Any]", column.cast(wanted))


def _first_refused(column: "pa.Array[Any]", wanted: pa.DataType) -> int:
    """Row of the first value that cannot be cast, of which there is one."""
    first, end = 0, len(column)
    while end - first > 1:
        middle = (first + end) // 2
        try:
            _cast(column.slice(first, middle - first), wanted)
            first = middle
        except pa.ArrowInvalid:
            end = middle
    return first


def _refused(batch: pa.RecordBatch, field: "pa.Field[Any]", row: int) -> TableDataError:
    column = batch.column(field.name)
    shown = str(column[row].as_py())[:_SHOWN]
    where = f" in the row with the id {batch.column(ID_COLUMN)[row].as_py()}" if ID_COLUMN in batch.schema.names else ""
    return TableDataError(
        f"the table's column {field.name!r} is {field.type}, and does not take {shown!r} ({column.type}){where}: change"
        " the file or the table, or load a table of another name"
    )
