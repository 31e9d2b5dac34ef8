"""GeoJSON coordinates as WKB.

What belongs here: nested coordinates, as Arrow lists, made into WKB a column at a time, and any one geometry by itself.
What does not: parsing JSON (``geojson_layers``), and whether geometries are valid (``geometry``).
"""

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

__all__ = ["DEPTHS", "IrregularError", "encode", "pack"]

pc: Any = pyarrow.compute  # whose stubs know fewer overloads than it has

DEPTHS = {"Point": 1, "MultiPoint": 2, "LineString": 2, "Polygon": 3, "MultiLineString": 3, "MultiPolygon": 4}
"""How deep the coordinates of each type are nested."""

_CODES = {"Point": 1, "LineString": 2, "Polygon": 3, "MultiPoint": 4, "MultiLineString": 5, "MultiPolygon": 6}
_COLLECTION = 7
_Z = 1000
_PARTS = {"MultiPoint": "Point", "MultiLineString": "LineString", "MultiPolygon": "Polygon"}
_XY, _XYZ = 2, 3
_NESTED = 32


class IrregularError(ValueError):
    """Coordinates that are no positions of at least two finite numbers, nested as their type wants."""


# --- a column --------------------------------------------------------------------------------------------------


def encode(kind: str, coordinates: Any) -> "pa.BinaryArray":
    """Make WKB of the coordinates of geometries of one type.

    Where some positions of a geometry have a height and others not, these get 0, as with OGR; numbers beyond the third
    are dropped.

    Args:
        kind: the type, one of :data:`DEPTHS`.
        coordinates: lists of doubles, nested as the type wants; no null.

    Raises:
        IrregularError: a null, a position of fewer than two numbers, or a number that is not finite.
    """
    rows = len(coordinates)
    levels: list[NDArray[np.int64]] = []
    for _ in range(DEPTHS[kind]):
        if coordinates.null_count:
            raise IrregularError("a null among the coordinates")
        offsets = coordinates.offsets.to_numpy().astype(np.int64)
        levels.append(offsets - offsets[0])
        coordinates = coordinates.values.slice(offsets[0], offsets[-1] - offsets[0])
    if coordinates.null_count:
        raise IrregularError("a null among the coordinates")
    numbers = coordinates.to_numpy()
    starts = levels.pop()
    lengths = np.diff(starts)
    if kind == "Point":
        return _of_points(rows, numbers, starts, lengths)
    if len(lengths) and lengths.min() < _XY:
        raise IrregularError("a position of fewer than two numbers")
    high = _any_of(levels, lengths > _XY)
    if high.all() or not high.any():
        positions = _positions(numbers, starts, lengths, dimensions=_XYZ if high.any() else _XY)
        return _joined(kind, levels, positions)
    parts = [
        _joined(kind, *_chosen(levels, _positions(numbers, starts, lengths, dimensions=size), np.flatnonzero(which)))
        for which, size in ((~high, _XY), (high, _XYZ))
    ]
    order = np.empty(rows, np.int64)
    order[np.concatenate([np.flatnonzero(~high), np.flatnonzero(high)])] = np.arange(rows)
    both: Any = pa.concat_arrays(parts)
    joined: pa.BinaryArray = both.take(pa.array(order))
    return joined


def _positions(
    numbers: NDArray[np.float64], starts: NDArray[np.int64], lengths: NDArray[np.int64], *, dimensions: int
) -> NDArray[np.float64]:
    """Positions as a table of finite numbers."""
    if (lengths == dimensions).all():
        table = numbers.reshape(-1, dimensions)
    else:
        table = np.zeros((len(lengths), dimensions))
        for at in range(dimensions):
            has = lengths > at
            table[has, at] = numbers[starts[:-1][has] + at]
    if not np.isfinite(table).all():
        raise IrregularError("a coordinate that is not finite")
    return table


def _of_points(
    rows: int, numbers: NDArray[np.float64], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> "pa.BinaryArray":
    """Make points; those without a number are empty, which WKB says by NaN."""
    if (lengths == 1).any():
        raise IrregularError("a position of fewer than two numbers")
    high = lengths > _XY
    table = _positions(numbers, starts, lengths, dimensions=_XYZ if high.any() else _XY)
    table = np.where((lengths == 0)[:, np.newaxis], np.nan, table)
    if high.any() and not high.all():
        low = np.flatnonzero(~high)
        record = np.dtype([("order", "u1"), ("type", "<u4"), ("at", "<f8", (_XYZ,))])
        data = _headed(record, table, _Z + 1)
        sizes = np.where(high, record.itemsize, record.itemsize - 8)
        data["type"][low] = 1
        raw = data.view(np.uint8).reshape(rows, record.itemsize)
        kept = np.ones(raw.shape, bool)
        kept[low, -8:] = False
        return _binary(np.concatenate([[0], np.cumsum(sizes)]), raw[kept])
    record = np.dtype([("order", "u1"), ("type", "<u4"), ("at", "<f8", (table.shape[1],))])
    return _binary(np.arange(rows + 1) * record.itemsize, _headed(record, table, _Z + 1 if high.any() else 1))


def _headed(record: np.dtype[Any], table: NDArray[np.float64], code: int) -> NDArray[Any]:
    made = np.empty(len(table), record)
    made["order"], made["type"], made["at"] = 1, code, table
    return made


def _any_of(levels: Sequence[NDArray[np.int64]], which: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """For each row, whether it is so for one of its positions."""
    ends = levels[0]
    for level in levels[1:]:
        ends = level[ends]
    counts = np.concatenate([[0], np.cumsum(which)])
    return np.asarray(counts[ends[1:]] > counts[ends[:-1]], dtype=bool)


def _chosen(
    levels: Sequence[NDArray[np.int64]], positions: NDArray[np.float64], rows: NDArray[np.int64]
) -> tuple[list[NDArray[np.int64]], NDArray[np.float64]]:
    """Levels and positions of some rows."""
    chosen = []
    for level in levels:
        sizes = np.diff(level)[rows]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        chosen.append(ends)
        rows = np.repeat(level[rows] - ends[:-1], sizes) + np.arange(ends[-1])
    return chosen, positions[rows]


def _joined(kind: str, levels: Sequence[NDArray[np.int64]], positions: NDArray[np.float64]) -> "pa.BinaryArray":
    """Lay out headers and positions: the bytes of all headers are set, and positions fill what lies between."""
    z = _Z if positions.shape[1] == _XYZ else 0
    codes = _codes(kind)
    stride = positions.shape[1] * 8
    headers = [_header(code and code + z, np.diff(level)) for code, level in zip(codes, levels, strict=False)]
    if len(codes) > len(levels):
        headers.append(_header(codes[-1] + z, None, size=len(positions)))  # a header for each position
    sizes = [header.shape[1] for header in headers]
    total = sum(header.size for header in headers) + positions.size * 8
    data = np.empty(total, np.uint8)
    between = np.ones(total, bool)
    first_starts = np.zeros(1, np.int64)
    for at, header in enumerate(headers):
        starts = _starts(at, levels, sizes, stride, len(header))
        first_starts = first_starts if at else starts
        where = starts[:, np.newaxis] + np.arange(sizes[at])
        data[where] = header
        between[where] = False
    data[between] = np.ascontiguousarray(positions, "<f8").view(np.uint8).ravel()
    return _binary(np.append(first_starts, total), data)


def _codes(kind: str) -> list[int]:
    """Type codes of the headers of all levels; 0: a ring, which has but a count."""
    codes = [_CODES[kind]]
    if kind in _PARTS:
        codes.append(_CODES[_PARTS[kind]])
    return [*codes, 0] if kind.endswith("Polygon") else codes


def _header(code: int, counts: "NDArray[np.int64] | None", *, size: int = 0) -> NDArray[np.uint8]:
    """Headers of one level, one a row: order and type unless it is a ring, and a count unless it is a position."""
    rows = size if counts is None else len(counts)
    parts = []
    if code:
        parts.append(np.broadcast_to(np.frombuffer(struct.pack("<BI", 1, code), np.uint8), (rows, 5)))
    if counts is not None:
        parts.append(counts.astype("<u4").view(np.uint8).reshape(rows, 4))
    return np.concatenate(parts, axis=1)


def _starts(
    level: int, levels: Sequence[NDArray[np.int64]], sizes: Sequence[int], stride: int, items: int
) -> NDArray[np.int64]:
    """Byte at which each item of a level starts: all headers and positions before it are counted."""
    index = np.arange(items)
    starts = index * sizes[level]
    owner = index
    for upper in range(level - 1, -1, -1):
        owner = np.repeat(np.arange(len(levels[upper]) - 1), np.diff(levels[upper]))[owner]
        starts = starts + (owner + 1) * sizes[upper]
    first = index
    for lower in range(level, len(levels)):
        first = levels[lower][first]
        if lower + 1 < len(sizes):
            starts = starts + first * sizes[lower + 1]
    return np.asarray(starts + first * stride, dtype=np.int64)


def _binary(offsets: NDArray[Any], data: NDArray[Any]) -> "pa.BinaryArray":
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(np.ascontiguousarray(data))]
    made: Any = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
    binary: pa.BinaryArray = made
    return binary


# --- one geometry ----------------------------------------------------------------------------------------------


def pack(geometry: Any) -> bytes | None:
    """Make WKB of one geometry, as ``json`` gives it; of any type, collections too.

    Args:
        geometry: the object; ``None`` gives ``None``.

    Raises:
        IrregularError: it is no GeoJSON geometry; says why.
    """
    return None if geometry is None else _packed(geometry, _is_high(geometry, 0), 0)


def _is_high(geometry: Any, nested: int) -> bool:
    if not isinstance(geometry, dict) or nested > _NESTED:
        raise IrregularError("a geometry that is no object, or collections in collections without end")
    if geometry.get("type") == "GeometryCollection":
        return any(_is_high(part, nested + 1) for part in _list(geometry.get("geometries")))
    return _has_height(geometry.get("coordinates"))


def _has_height(coordinates: Any) -> bool:
    if not isinstance(coordinates, list) or not coordinates:
        return False
    if isinstance(coordinates[0], list):
        return any(_has_height(part) for part in coordinates)
    return len(coordinates) > _XY


def _packed(geometry: dict[str, Any], high: bool, nested: int) -> bytes:  # noqa: FBT001
    kind, z = geometry.get("type"), _Z * high
    if kind == "GeometryCollection":
        parts = [_packed(part, high, nested + 1) for part in _list(geometry.get("geometries"))]
        return struct.pack("<BII", 1, _COLLECTION + z, len(parts)) + b"".join(parts)
    if not isinstance(kind, str) or kind not in _CODES:
        raise IrregularError(f"a geometry of type {str(kind)[:40]!r}")
    return _shape(kind, _list(geometry.get("coordinates")), high)


def _shape(kind: str, coordinates: list[Any], high: bool) -> bytes:  # noqa: FBT001
    code = struct.pack("<BI", 1, _CODES[kind] + _Z * high)
    if kind == "Point":
        return code + (_position(coordinates, high) if coordinates else struct.pack("<d", math.nan) * (_XY + high))
    if kind == "LineString":
        return code + _line(coordinates, high)
    count = struct.pack("<I", len(coordinates))
    if kind == "Polygon":
        return code + count + b"".join(_line(_list(ring), high) for ring in coordinates)
    return code + count + b"".join(_shape(_PARTS[kind], _list(part), high) for part in coordinates)


def _line(positions: list[Any], high: bool) -> bytes:  # noqa: FBT001
    return struct.pack("<I", len(positions)) + b"".join(_position(_list(one), high) for one in positions)


def _position(numbers: list[Any], high: bool) -> bytes:  # noqa: FBT001
    if len(numbers) < _XY:
        raise IrregularError("a position of fewer than two numbers")
    wanted = [*numbers[: _XY + high]]
    if high and len(wanted) == _XY:
        wanted.append(0.0)
    if not all(isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in wanted):
        raise IrregularError("a coordinate that is no finite number")
    return struct.pack(f"<{len(wanted)}d", *wanted)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise IrregularError("coordinates that are no list, or not as deep as the geometry's type wants")
    return value
