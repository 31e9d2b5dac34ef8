"""Geometry as bytes: kinds, promotion to multi, and dimensions, on Arrow buffers where that is enough.

What belongs here: whatever is done to a column of WKB without asking what the shapes mean.  What does not: checks,
repairs and reprojection (``geometry``), boxes and outlines (``footprint``).

Our own WKB is ISO (types 1001, 2001 and 3001 for Z, M and ZM), little endian, without SRID, so that a column's bytes
can go to a database or a file as they are.  What files hold may be anything; :func:`is_plain` tells them apart.
"""

import struct
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geo_assets.vector.table import Dimensions

__all__ = [
    "TYPE_NAMES",
    "conform",
    "from_points",
    "from_shapely",
    "is_plain",
    "kinds_of",
    "moved",
    "points_of",
    "read",
    "replace_rows",
    "to_shapely",
    "with_xy",
]

TYPE_NAMES: Final = (
    "Geometry",
    "Point",
    "LineString",
    "Polygon",
    "MultiPoint",
    "MultiLineString",
    "MultiPolygon",
    "GeometryCollection",
)
"""Names by the type code of WKB."""

_DIMENSIONS: Final[tuple[Dimensions, ...]] = ("XY", "XYZ", "XYM", "XYZM")
"""By the thousands of an ISO type code."""
_HEADER: Final = 5
_POINT: Final = 21
"""Bytes of a 2D point."""
_PLAIN_CODES: Final = 4000
_EWKB_Z: Final = np.uint32(0x80000000)
_EWKB_M: Final = np.uint32(0x40000000)
_EWKB_TYPE: Final = np.uint32(0x1FFFFFFF)
_FIRST_MULTI: Final = 4

type Floats = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]
type Geometries = npt.NDArray[np.object_]


def _buffers(wkb: pa.BinaryArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Offsets (one more than rows) and bytes, as views."""
    _, offsets, data = wkb.buffers()
    if offsets is None or len(wkb) == 0:
        return np.zeros(len(wkb) + 1, np.int32), np.zeros(0, np.uint8)
    bytes_ = np.zeros(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
    return np.frombuffer(offsets, np.int32)[wkb.offset : wkb.offset + len(wkb) + 1], bytes_


def _valid(wkb: pa.BinaryArray) -> Mask:
    return np.asarray(wkb.is_valid().to_numpy(zero_copy_only=False), bool)


def _headers(wkb: pa.BinaryArray) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32], Mask]:
    """Byte order, type code as it stands there (in this order), and whether there is a header at all."""
    offsets, data = _buffers(wkb)
    there = np.diff(offsets) >= _HEADER
    if wkb.null_count:
        there &= _valid(wkb)
    if not there.any():
        return np.zeros(len(wkb), np.uint8), np.zeros(len(wkb), np.uint32), there
    # one unaligned 32-bit view a byte: reading the codes is one indexing, without a copy of the data
    words = np.ndarray((len(data) - 3,), "<u4", buffer=data, strides=(1,))
    starts = np.where(there, offsets[:-1], 0)
    orders, codes = data[starts], words[np.minimum(starts + 1, len(words) - 1)]
    big = there & (orders == 0)
    if big.any():
        codes = np.where(big, codes.byteswap(), codes)
    return orders, codes, there


def kinds_of(wkb: pa.BinaryArray) -> npt.NDArray[np.uint16]:
    """ISO type code of every row; 0 for null and for what has no header.

    ``% 1000`` is the base type (see :data:`TYPE_NAMES`), ``// 1000`` the dimensions: 0 XY, 1 XYZ, 2 XYM, 3 XYZM.
    Understands big endian and EWKB, too.
    """
    _, codes, there = _headers(wkb)
    if codes.max(initial=0) >= _PLAIN_CODES:
        base = codes & _EWKB_TYPE
        z = ((codes & _EWKB_Z) != 0) | np.isin(base // 1000, (1, 3))
        m = ((codes & _EWKB_M) != 0) | np.isin(base // 1000, (2, 3))
        codes = base % 1000 + 1000 * z + 2000 * m
    kinds = codes.astype(np.uint16)
    return kinds if there.all() else np.where(there, kinds, np.uint16(0))


def is_plain(wkb: pa.BinaryArray) -> Mask:
    """Rows that are null, or little endian ISO WKB by their first header."""
    orders, codes, there = _headers(wkb)
    plain: Mask = ~there | ((orders == 1) & (codes < _PLAIN_CODES))
    return plain


def points_of(wkb: pa.BinaryArray) -> Floats | None:
    """Coordinates (n, 2) where all rows are plain 2D points, none null; else ``None``.

    A copy, as the values lie unaligned between headers.
    """
    offsets, data = _buffers(wkb)
    rows = len(wkb)
    if rows == 0 or wkb.null_count or int(offsets[-1]) - int(offsets[0]) != rows * _POINT:
        return None
    if (np.diff(offsets) != _POINT).any():
        return None
    table = data[offsets[0] : offsets[-1]].reshape(rows, _POINT)
    if (table[:, :_HEADER] != np.frombuffer(b"\x01\x01\0\0\0", np.uint8)).any():
        return None
    return table[:, _HEADER:].copy().view("<f8")


def from_points(xy: Floats) -> pa.BinaryArray:
    """WKB of 2D points from coordinates (n, 2)."""
    rows = len(xy)
    table = np.empty((rows, _POINT), np.uint8)
    table[:, :_HEADER] = np.frombuffer(b"\x01\x01\0\0\0", np.uint8)
    table[:, _HEADER:] = np.ascontiguousarray(xy, "<f8").view(np.uint8).reshape(rows, 16)
    offsets = np.arange(0, _POINT * rows + 1, _POINT, dtype=np.int32)
    built = pa.Array.from_buffers(pa.binary(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(table)])
    return cast("pa.BinaryArray", built)


def to_shapely(wkb: pa.BinaryArray) -> Geometries:
    """Geometry objects; ``None`` for null.

    Raises:
        shapely.errors.GEOSException: a row is no WKB, or has an open ring.
        NotImplementedError: a row is curved.
    """
    return read(wkb.to_numpy(zero_copy_only=False))


def read(values: npt.NDArray[np.object_], *, on_invalid: str = "raise") -> Geometries:
    """Geometry objects of WKB values; as :func:`to_shapely`, and as ``shapely.from_wkb`` says.

    A NaN among coordinates is no reason for a warning here.
    """
    with np.errstate(invalid="ignore"):
        return cast("Geometries", shapely.from_wkb(values, on_invalid=on_invalid))


def from_shapely(geometries: npt.ArrayLike) -> pa.BinaryArray:
    """ISO WKB, little endian, without SRID; null for ``None``."""
    return pa.array(_to_wkb(geometries), pa.binary())


def _to_wkb(geometries: npt.ArrayLike, dimensions: int = 4) -> Any:
    return shapely.to_wkb(geometries, flavor="iso", byte_order=1, include_srid=False, output_dimension=dimensions)


def replace_rows(wkb: pa.BinaryArray, rows: Mask, values: pa.BinaryArray) -> pa.BinaryArray:
    """The array with ``values``, in order, in the rows of the mask."""
    if rows.all():
        return values
    return cast("pa.BinaryArray", pc.replace_with_mask(wkb, pa.array(rows), values))


def conform(wkb: "pa.Array[Any]", *, type: str, dimensions: Dimensions) -> pa.BinaryArray:  # noqa: A002
    """Make prepared geometries those of a column: promote single to multi, drop or add Z and M.

    Promotion puts nine bytes before a value.  Z or M that a row does not have becomes 0.  An array that needs nothing
    comes back as it is.

    Args:
        wkb: plain WKB, as :mod:`geo_assets.vector.geometry` leaves it; nulls stay.
        type: of the column, as OGC names it; ``Geometry`` takes all.
        dimensions: of the column.

    Raises:
        ValueError: a row is of a type that cannot become the column's.
    """
    array = cast("pa.BinaryArray", wkb)
    kinds = kinds_of(array)
    wanted = _DIMENSIONS.index(dimensions)
    other = (kinds > 0) & (kinds // 1000 != wanted)
    if other.any():
        array = replace_rows(array, other, _redimensioned(array.filter(pa.array(other)), wanted))
    base = kinds % 1000
    column = TYPE_NAMES.index(type)
    single = (base > 0) & (base != column)
    if column == 0 or not single.any():
        return array
    if column < _FIRST_MULTI or (base[single] != column - 3).any():
        found = sorted({TYPE_NAMES[code] for code in base[single].tolist()})
        raise ValueError(f"a column of {type} takes no {', '.join(found)}")
    prefix = pa.scalar(struct.pack("<BII", 1, column + 1000 * wanted, 1), pa.binary())
    nothing = pa.scalar(b"", pa.binary())
    before: Any = prefix if single.all() else pc.if_else(pa.array(single), prefix, nothing)
    joined: Any = pc.binary_join_element_wise(before, array, nothing)
    return cast("pa.BinaryArray", joined)


def _redimensioned(wkb: pa.BinaryArray, wanted: int) -> pa.BinaryArray:
    """Rows with other dimensions, 0 for what they lack; GEOS does the common cases, which it can."""
    if wanted == 0:
        return pa.array(_to_wkb(to_shapely(wkb), 2), pa.binary())
    if wanted == 1 and not (kinds_of(wkb) // 1000).any():
        return from_shapely(shapely.force_3d(to_shapely(wkb), z=0.0))

    def columns(coordinates: Floats, has: int) -> Floats:
        xy, extra = coordinates[:, :2], coordinates[:, 2:]
        zero = np.zeros((len(coordinates), 1))
        z = extra[:, :1] if has & 1 else zero
        m = extra[:, -1:] if has & 2 else zero
        return np.hstack([xy, *([z] if wanted & 1 else []), *([m] if wanted & 2 else [])])

    return _each(wkb, columns, wanted)


def with_xy(wkb: pa.BinaryArray, xy: Floats) -> pa.BinaryArray:
    """The same geometries with other X and Y; Z and M stay, which GEOS does not do for M.

    Args:
        wkb: plain WKB without nulls.
        xy: coordinates (n, 2) in the order of ``shapely.get_coordinates``; empty points have none.
    """
    taken = 0

    def exchanged(coordinates: Floats, _: int) -> Floats:
        nonlocal taken
        if len(coordinates) == 1 and np.isnan(coordinates[0, :2]).all():
            return coordinates
        taken += len(coordinates)
        return np.hstack([xy[taken - len(coordinates) : taken], coordinates[:, 2:]])

    return _each(wkb, exchanged, None)


def moved(geometries: Geometries, move: Callable[[Floats], Floats]) -> Geometries:
    """Geometries whose X and Y went through ``move`` ((n, 2) to (n, 2), point by point); Z and M stay."""

    def horizontal(coordinates: Floats) -> Floats:
        return np.column_stack([move(coordinates[:, :2]), coordinates[:, 2:]])

    with_m = shapely.has_m(geometries)
    if not with_m.any():
        with_z = shapely.has_z(geometries)
        alike = bool(with_z.any()) if with_z.all() or not with_z.any() else None
        return cast("Geometries", shapely.transform(geometries, horizontal, include_z=alike))
    result = geometries.copy()
    result[with_m] = to_shapely(
        with_xy(from_shapely(geometries[with_m]), move(shapely.get_coordinates(geometries[with_m])))
    )
    if not with_m.all():
        result[~with_m] = moved(geometries[~with_m], move)
    return result


def _each(wkb: pa.BinaryArray, change: Callable[[Floats, int], Floats], dimensions: int | None) -> pa.BinaryArray:
    """All values, every run of coordinates through ``change(coordinates, dimensions code)``."""
    values: list[bytes | None] = []
    for value in wkb.to_pylist():
        pieces: list[bytes] = []
        _rewrite(cast("bytes", value), 0, pieces, change, dimensions)
        values.append(b"".join(pieces))
    return pa.array(values, pa.binary())


def _rewrite(
    value: bytes, at: int, pieces: list[bytes], change: Callable[[Floats, int], Floats], dimensions: int | None
) -> int:
    """Append the geometry at ``at``; returns where it ends."""
    code = struct.unpack_from("<I", value, at + 1)[0]
    base, has = code % 1000, code // 1000
    pieces.append(struct.pack("<BI", 1, base + 1000 * (has if dimensions is None else dimensions)))
    at += _HEADER

    def run(at: int, count: int) -> int:
        width = (2, 3, 3, 4)[has]
        found = np.frombuffer(value, "<f8", count * width, at).reshape(count, width)
        pieces.append(change(found, has).tobytes())
        return at + count * width * 8

    if base == 1:
        return run(at, 1)
    count = struct.unpack_from("<I", value, at)[0]
    pieces.append(value[at : at + 4])
    at += 4
    if base == 2:  # noqa: PLR2004 a line is one run
        return run(at, count)
    for _ in range(count):
        if base == 3:  # noqa: PLR2004 a polygon has rings, which have no headers
            pieces.append(value[at : at + 4])
            at = run(at + 4, struct.unpack_from("<I", value, at)[0])
        else:
            at = _rewrite(value, at, pieces, change, dimensions)
    return at
