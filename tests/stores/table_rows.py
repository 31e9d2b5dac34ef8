"""Tables to load in tests: definitions, rows, and the whole way of a load.

What belongs here: what the tests of every table store share.  What does not: the tests.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import shapely

from geo_assets.stores.tables import LoadMode, PublishedTable, StagedTable, TableStore
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType, GeometryColumn, TableDefinition, TableLoad

__all__ = [
    "EVERY_TYPE",
    "EVERY_VALUE",
    "contents",
    "definition",
    "load",
    "points",
    "rows_of",
    "stage",
    "table_load",
]

EVERY_TYPE = tuple(
    Column(
        name=f"c_{kind.name.lower()}",
        type=kind,
        source_name=f"{kind.value} in the file",
        scale=6 if kind is ColumnType.NUMERIC else 0,
        description=f'a column of {kind.value}: it\'s "described"' if kind is not ColumnType.TEXT else None,
    )
    for kind in ColumnType
)

EVERY_VALUE: Mapping[ColumnType, Sequence[Any]] = {
    ColumnType.BOOLEAN: [True, False, None],
    ColumnType.SMALLINT: [-(2**15), 2**15 - 1, None, 0],
    ColumnType.INTEGER: [-(2**31), 2**31 - 1, None, 0],
    ColumnType.BIGINT: [-(2**63), 2**63 - 1, None, 2**53 + 1],
    ColumnType.REAL: [1.5, -math.inf, None, 2.0**-149],
    ColumnType.DOUBLE: [0.1, math.inf, None, -5e-324, 1.7976931348623157e308],
    ColumnType.NUMERIC: [Decimal("12345678901234567890123456789012.123456"), Decimal("-0.000001"), None, Decimal(0)],
    ColumnType.TEXT: ["", "ünïcode 😀 'quotes' \"double\" \\ back\tslash\n", None, "x" * 5000, "NULL", "\\N"],
    ColumnType.DATE: [date(1, 1, 1), date(9999, 12, 31), None, date(2024, 2, 29)],
    ColumnType.TIME: [time(0, 0), time(23, 59, 59, 999999), None],
    ColumnType.TIMESTAMP: [datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999), None],  # noqa: DTZ001
    ColumnType.TIMESTAMPTZ: [datetime(1583, 1, 1, tzinfo=UTC), datetime(2024, 2, 29, 12, 30, 0, 1, tzinfo=UTC), None],
    ColumnType.JSON: ['{"a": [1, null, "ü"]}', "[]", None, '"text"', "12.5"],
    ColumnType.BINARY: [b"", b"\x00\xff\\x41", None, bytes(range(256))],
}


_POINTS = GeometryColumn(type="Point")


def definition(
    table: str = "places",
    columns: Iterable[Column] = (Column(name="name", type=ColumnType.TEXT, source_name="Name"),),
    *,
    schema: str = "geo",
    geometry: GeometryColumn | None = _POINTS,
) -> TableDefinition:
    """A table; as default, of named points."""
    return TableDefinition(schema=schema, table=table, columns=tuple(columns), geometry=geometry)


def rows_of(
    table: TableDefinition,
    columns: Mapping[str, Sequence[Any]],
    geometries: Sequence[Any] | None = None,
    *,
    first_id: int = 1,
) -> pa.RecordBatch:
    """Rows with ids from ``first_id`` on; values are Python's, geometries shapely's or WKB."""
    count = len(geometries) if geometries is not None else len(next(iter(columns.values())))
    values: dict[str, Sequence[Any]] = {ID_COLUMN: range(first_id, first_id + count), **columns}
    if table.geometry is not None and geometries is not None:
        values[table.geometry.name] = [
            value if value is None or isinstance(value, bytes) else shapely.to_wkb(value, flavor="iso", byte_order=1)
            for value in geometries
        ]
    schema = table.chunk_schema
    return pa.RecordBatch.from_arrays(
        [pa.array(list(values[name]), field.type) for name, field in zip(schema.names, schema, strict=True)],
        schema=schema,
    )


def points(table: TableDefinition, count: int, *, first_id: int = 1, name: str = "") -> pa.RecordBatch:
    """Rows of a table as :func:`definition` makes it, at places that tell them apart."""
    numbers = range(first_id, first_id + count)
    names = [f"{name}{number}" for number in numbers]
    return rows_of(table, {"name": names}, [shapely.Point(n % 170, n % 80) for n in numbers], first_id=first_id)


def table_load(rows: int, key: str = "key", job_id: str = "job") -> TableLoad:
    """What is said of a load."""
    source = {"container": "bronze", "blob": "a/ü.gpkg", "layer": "places", "etag": '"1"'}
    return TableLoad(
        key=key, job_id=job_id, rows=rows, source=source, details={"repaired": {"ring": 1}, "notes": ["ä"]}
    )


def stage(
    store: TableStore, table: TableDefinition, chunks: Sequence[pa.RecordBatch], mode: LoadMode = "create"
) -> StagedTable:
    """Begin, and load all chunks."""
    staged = store.begin(table, mode)
    for number, chunk in enumerate(chunks):
        assert store.load_chunk(staged, number, [chunk]) == chunk.num_rows
    return staged


def load(
    store: TableStore,
    table: TableDefinition,
    *chunks: pa.RecordBatch,
    mode: LoadMode = "create",
    key: str = "key",
    job_id: str = "job",
    cluster: bool = False,
) -> PublishedTable:
    """The whole way of a load of one table."""
    rows = sum(chunk.num_rows for chunk in chunks)
    staged = stage(store, table, chunks, mode)
    [published] = store.publish([staged], [table_load(rows, key, job_id)], chunks=[len(chunks)], cluster=cluster)
    return published


def contents(store: TableStore, table: TableDefinition) -> pa.Table:
    """All rows of a table, as one."""
    batches = list(store.read(table.schema, table.table))
    return pa.Table.from_batches(batches, schema=table.chunk_schema).combine_chunks()
