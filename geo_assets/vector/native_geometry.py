"""Geometry in the native encodings of GeoParquet, made WKB.

What belongs here: coordinates in structs and lists.  What does not: finding out which column is geometry
(``parquet_layers``), and geometry that is WKB already (``wkb``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import shapely

from geo_assets.vector import wkb

__all__ = ["NATIVE_ENCODINGS", "fits", "to_wkb"]


@dataclass(frozen=True, kw_only=True)
class _Encoding:
    kind: shapely.GeometryType
    depth: int
    """Lists around a coordinate."""


NATIVE_ENCODINGS: Final[Mapping[str, _Encoding]] = {
    "point": _Encoding(kind=shapely.GeometryType.POINT, depth=0),
    "linestring": _Encoding(kind=shapely.GeometryType.LINESTRING, depth=1),
    "polygon": _Encoding(kind=shapely.GeometryType.POLYGON, depth=2),
    "multipoint": _Encoding(kind=shapely.GeometryType.MULTIPOINT, depth=1),
    "multilinestring": _Encoding(kind=shapely.GeometryType.MULTILINESTRING, depth=2),
    "multipolygon": _Encoding(kind=shapely.GeometryType.MULTIPOLYGON, depth=3),
}
"""By the name GeoParquet gives them."""

_COORDINATES: Final = (["x", "y"], ["x", "y", "z"])


def fits(kind: Any, encoding: str) -> bool:
    """Whether an Arrow type is what an encoding of :data:`NATIVE_ENCODINGS` says, in two or three dimensions."""
    for _ in range(NATIVE_ENCODINGS[encoding].depth):
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            return False
        kind = kind.value_type
    return bool(
        pa.types.is_struct(kind)
        and [field.name for field in kind] in _COORDINATES
        and all(pa.types.is_float64(field.type) for field in kind)
    )


def to_wkb(array: Any, encoding: str) -> pa.BinaryArray:
    """Make WKB of a column that :func:`fits`.

    Args:
        array: n values.
        encoding: one of :data:`NATIVE_ENCODINGS`.

    Returns:
        n values, ISO WKB or null.
    """
    native = NATIVE_ENCODINGS[encoding]
    there = np.asarray(array.is_valid())
    # without nulls, whose lists may have something in them, and without what lies before a slice
    dense = array.filter(pa.array(there))
    offsets: list[Any] = []
    for _ in range(native.depth):
        ends = np.asarray(dense.offsets, dtype=np.int64)
        offsets.insert(0, ends - ends[0])
        dense = dense.flatten()
    coordinates = np.column_stack([np.asarray(field, dtype=np.float64) for field in dense.flatten()])
    geometries = np.full(len(array), None, dtype=object)
    geometries[there] = shapely.from_ragged_array(native.kind, coordinates, tuple(offsets) or None)
    return wkb.from_shapely(geometries)
