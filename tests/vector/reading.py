"""Reads a layer whole, as those who use it do, and looks at what every layer promises.

What belongs here: reading, and columns and shapes of what was read.  What does not: opening a file (each reader's own
test), other readers (``vectors``).
"""

from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import shapely

from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SchemaWidenedError

__all__ = ["column", "read", "rows", "shapes", "wkt"]

_MOST_STARTS = 4


def rows(layer: Layer) -> pa.Table:
    """All rows, after what every layer promises was looked at."""
    batches = list(layer.batches())
    names = [one.name for one in layer.fields] + ([GEOMETRY] if layer.has_geometry else [])
    types = [one.type for one in layer.fields] + ([pa.binary()] if layer.has_geometry else [])
    for batch in batches:
        assert batch.schema.names == names
        assert batch.schema.types == types
        assert batch.nbytes <= 2 * BATCH_BYTES or batch.num_rows == 1
    return pa.Table.from_batches(batches, schema=pa.schema(list(zip(names, types, strict=True))))


def read(opened: "Callable[[Mapping[str, pa.DataType]], Layer]") -> tuple[Layer, pa.Table]:
    """Read all, starting anew with wider types as ``prepare`` does; ``opened`` opens the layer with these."""
    types: dict[str, pa.DataType] = {}
    for _ in range(_MOST_STARTS):
        layer = opened(types)
        try:
            return layer, rows(layer)
        except SchemaWidenedError as error:
            types |= error.types
    raise AssertionError("too many restarts")


def column(table: pa.Table, name: str) -> list[Any]:
    """Its values."""
    return table[name].to_pylist()


def shapes(table: pa.Table) -> Any:
    """The geometries, in an array."""
    return shapely.from_wkb(table.column(table.num_columns - 1).to_numpy())


def wkt(table: pa.Table) -> list[str | None]:
    """The geometries as text."""
    return [None if shape is None else shapely.to_wkt(shape, trim=True) for shape in shapes(table)]
