"""Where on Earth a raster lies: its outline in longitude and latitude, its boxes, its ground resolution.

What belongs here: everything that turns a georeference into WGS 84 geometry.  What does not: the item around it
(``raster_item``), the checks of finished geometry (``validation``).

The outline is walked along the raster's edge in small steps, as a straight edge is not straight in another
projection.  Where an edge lies outside what the projection can show (the corners of a geostationary full disk), it is
found by bisection along rays from the middle.  ``antimeridian`` splits what crosses the line and closes what goes
round a pole.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import antimeridian
import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from rasterio.transform import GCPTransformer, RPCTransformer, TransformerBase

from geo_assets.errors import NoItemError
from geo_assets.stac.longitudes import bounding_box

__all__ = ["Footprint", "Georeference", "KnownCrs", "footprint", "georeference", "known_crs"]

_Floats = NDArray[np.float64]
_ToGround = Callable[[_Floats, _Floats], tuple[_Floats, _Floats]]
"""(columns, rows) of pixel corners → (x, y) in the CRS."""

_EDGE_STEPS = 24
_DENSE_EDGE_STEPS = 384
_RAYS = 180
_BISECTIONS = 24
_DECIMALS = 7
_JUMP = 180.0
_EARTH = Geod(ellps="WGS84")


class _Pixels(NamedTuple):
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class KnownCrs:
    """A CRS and its code; one object a CRS and process, so that it can be a key."""

    crs: CRS
    code: str | None
    """Authority and code, such as ``EPSG:32618``, where the CRS is exactly that one."""
    wkt2: str


@dataclass(frozen=True)
class Georeference:
    """How pixels of a raster become coordinates."""

    crs: KnownCrs
    to_ground: _ToGround
    source: str
    """``transform``, ``gcps`` or ``rpcs``."""


@dataclass(frozen=True)
class Footprint:
    """The outline of a raster and what follows from it."""

    geometry: dict[str, Any]
    """GeoJSON Polygon or MultiPolygon in longitude and latitude, counter-clockwise, within ±180 and ±90."""
    bbox: list[float]
    """West, south, east, north; west > east where it crosses the antimeridian."""
    centroid: tuple[float, float]
    """Longitude and latitude of the raster's middle (of its visible part)."""
    projected_bbox: list[float]
    """xmin, ymin, xmax, ymax in the raster's CRS."""
    pixel_metres: float | None
    """Mean side of a pixel on the ground at the middle, metres; ``None`` where it cannot be told."""


def georeference(dataset: Any) -> Georeference:
    """Find out how an open rasterio dataset is georeferenced.

    Raises:
        NoItemError: it has no CRS, or no way from pixels to coordinates.
    """
    if dataset.crs is not None and not _unset(dataset.transform):
        transform = dataset.transform

        def by_transform(columns: _Floats, rows: _Floats) -> tuple[_Floats, _Floats]:
            return (
                transform.a * columns + transform.b * rows + transform.c,
                transform.d * columns + transform.e * rows + transform.f,
            )

        return Georeference(known_crs(dataset.crs), by_transform, "transform")
    points, points_crs = dataset.gcps
    if points and points_crs is not None:
        return Georeference(known_crs(points_crs), _by_transformer(GCPTransformer(points)), "gcps")
    if dataset.rpcs is not None:
        return Georeference(
            _known_crs(CRS("OGC:CRS84").to_wkt()), _by_transformer(RPCTransformer(dataset.rpcs)), "rpcs"
        )
    if dataset.crs is None:
        raise NoItemError(
            "the raster has no CRS, so its place on Earth is unknown: add one to the file, or make a COG of it with"
            " input_crs"
        )
    raise NoItemError("the raster has a CRS but no geotransform, control points or RPCs: georeference it first")


def footprint(georeferenced: Georeference, *, width: int, height: int) -> Footprint:
    """Compute the outline of a raster of ``width`` by ``height`` pixels.

    Raises:
        NoItemError: no part of it lies on Earth, or its outline has no area there.
    """
    pixels = _Pixels(width, height)
    to_lonlat = _to_lonlat(georeferenced.crs)
    columns, rows = _edge(pixels, _EDGE_STEPS)
    x, y = georeferenced.to_ground(columns, rows)
    projected_bbox = [float(value) for value in (np.min(x), np.min(y), np.max(x), np.max(y))]
    lon, lat = to_lonlat(x, y)
    middle = (pixels.width / 2, pixels.height / 2)
    if not np.all(np.isfinite(lon) & np.isfinite(lat)):
        middle, lon, lat = _visible_edge(pixels, lambda c, r: to_lonlat(*georeferenced.to_ground(c, r)))
    elif np.max(np.abs(np.diff(lon))) > _JUMP / 4:
        # near a pole, or across the antimeridian: steps small enough to tell which
        lon, lat = to_lonlat(*georeferenced.to_ground(*_edge(pixels, _DENSE_EDGE_STEPS)))
    shape = _shape(lon, lat, tolerance=0.1 / max(width, height))
    geometry = shapely.geometry.mapping(shape)
    centre_lon, centre_lat, metres = _middle(georeferenced, to_lonlat, middle)
    return Footprint(
        geometry={"type": geometry["type"], "coordinates": _lists(geometry["coordinates"])},
        bbox=bounding_box(part.bounds for part in getattr(shape, "geoms", [shape])),
        centroid=(centre_lon, centre_lat),
        projected_bbox=projected_bbox,
        pixel_metres=metres,
    )


def _unset(transform: Any) -> bool:
    """Whether it is what GDAL gives for no geotransform."""
    return bool(transform.is_identity)


@lru_cache(maxsize=256)
def _known_crs(wkt: str) -> KnownCrs:
    crs = CRS.from_wkt(wkt)
    authority = crs.to_authority(min_confidence=100)
    return KnownCrs(crs, None if authority is None else ":".join(authority), crs.to_wkt("WKT2_2019"))


def known_crs(crs: Any) -> KnownCrs:
    """What there is to say about a rasterio CRS; looked up once a process, as that can take half a second.

    Raises:
        NoItemError: PROJ cannot read it.
    """
    try:
        return _known_crs(crs.to_wkt())
    except ProjError as error:
        raise NoItemError("the raster's CRS cannot be read: give its CRS when validating it") from error


def _by_transformer(transformer: TransformerBase) -> _ToGround:
    def ground(columns: _Floats, rows: _Floats) -> tuple[_Floats, _Floats]:
        x, y = transformer.xy(rows, columns, offset="ul")
        return np.asarray(x, float), np.asarray(y, float)

    return ground


@lru_cache(maxsize=256)
def _transformer(crs: KnownCrs) -> Transformer:
    return Transformer.from_crs(crs.crs, "OGC:CRS84", always_xy=True)


def _to_lonlat(crs: KnownCrs) -> _ToGround:
    if crs.code in ("EPSG:4326", "OGC:CRS84"):
        # nothing to compute, and a longitude of exactly 180 stays on its side
        return lambda x, y: (np.asarray(x, float), np.clip(y, -90.0, 90.0))
    try:
        transformer = _transformer(crs)
    except ProjError as error:
        raise NoItemError(
            "the raster's CRS has no way to longitude and latitude (a local or engineering CRS)"
        ) from error

    def lonlat(x: _Floats, y: _Floats) -> tuple[_Floats, _Floats]:
        lon, lat = transformer.transform(x, y)
        return np.asarray(lon, float), np.asarray(lat, float)

    return lonlat


def _edge(pixels: _Pixels, steps: int) -> tuple[_Floats, _Floats]:
    """Pixel coordinates along the raster's edge, from the upper left corner, without its repetition."""
    along = np.linspace(0.0, 1.0, steps, endpoint=False)
    none, full = np.zeros(steps), np.ones(steps)
    columns = np.concatenate([none, along, full, 1 - along]) * pixels.width
    rows = np.concatenate([along, full, 1 - along, none]) * pixels.height
    return columns, rows


def _visible_edge(pixels: _Pixels, to_lonlat: _ToGround) -> tuple[tuple[float, float], _Floats, _Floats]:
    """Middle and edge of the part of a raster that lies on Earth, by bisection from the middle outwards."""
    grid = np.linspace(0.0, 1.0, 65)
    columns, rows = (axis.ravel() for axis in np.meshgrid(grid * pixels.width, grid * pixels.height))
    lon, lat = to_lonlat(columns, rows)
    on_earth = np.isfinite(lon) & np.isfinite(lat)
    if not np.any(on_earth):
        raise NoItemError("no part of the raster lies on Earth in its CRS: its geotransform or CRS is wrong")
    centre_column, centre_row = float(columns[on_earth].mean()), float(rows[on_earth].mean())
    centre_lon, _ = to_lonlat(np.array([centre_column]), np.array([centre_row]))
    if not np.isfinite(centre_lon[0]):
        raise NoItemError("the part of the raster that lies on Earth is not of one piece: cut it into several")
    angles = np.linspace(0.0, -2 * np.pi, _RAYS, endpoint=False)
    # as far as the raster's own border lies in each direction
    with np.errstate(divide="ignore"):
        to_side = np.where(np.cos(angles) > 0, pixels.width - centre_column, centre_column) / np.abs(np.cos(angles))
        to_end = np.where(np.sin(angles) > 0, pixels.height - centre_row, centre_row) / np.abs(np.sin(angles))
    far = np.minimum(to_side, to_end)
    near = np.zeros(_RAYS)
    reach = far.copy()
    for _ in range(_BISECTIONS):
        lon, lat = to_lonlat(centre_column + reach * np.cos(angles), centre_row + reach * np.sin(angles))
        seen = np.isfinite(lon) & np.isfinite(lat)
        near, far = np.where(seen, reach, near), np.where(seen, far, reach)
        reach = (near + far) / 2
    lon, lat = to_lonlat(centre_column + near * np.cos(angles), centre_row + near * np.sin(angles))
    return (centre_column, centre_row), lon, lat


def _shape(lon: _Floats, lat: _Floats, *, tolerance: float) -> Any:
    """A valid polygon or multi-polygon, split at the antimeridian, closed over a pole it goes round.

    Args:
        lon: longitudes of the ring, not closed.
        lat: its latitudes.
        tolerance: how far a point may lie off the line to be left out, as a share of the extent.
    """
    # half a pixel beyond a pole is a way of writing grids, not a place
    ring = np.round(np.column_stack([lon, np.clip(lat, -90.0, 90.0)]), _DECIMALS)
    ring = _opened_at_pole(ring)
    turns, west, east = _windings(ring[:, 0])
    if turns or west < -_JUMP or east > _JUMP:
        shape = _split(ring)
    else:
        shape = shapely.Polygon(np.column_stack([_unwrapped(ring[:, 0]), ring[:, 1]]))
    # of the ring as it was walked (once split it may span the whole world), and of each axis: near a pole a degree
    # of longitude is nothing and one of latitude much
    extent = np.maximum([east - west, np.ptp(ring[:, 1])], 10.0**-_DECIMALS)
    shape = shapely.transform(shape, lambda points: points / extent).simplify(min(tolerance, 1e-3))
    shape = shapely.transform(shape, lambda points: points * extent)
    shape = shapely.set_precision(shape, 10.0**-_DECIMALS)
    if not shape.is_valid or not isinstance(shape, shapely.Polygon | shapely.MultiPolygon):
        shape = _areas(shapely.make_valid(shape))
    if shape.is_empty or shape.area == 0:
        raise NoItemError("the raster's outline has no area on Earth: its geotransform or CRS is wrong")
    # set_precision leaves 1e-16 behind the last digit
    shape = shapely.transform(shape, lambda points: np.round(points, _DECIMALS))
    return shapely.orient_polygons(shape)


def _opened_at_pole(ring: _Floats) -> _Floats:
    """A corner right at a pole has every longitude: that of the point before it and that of the one after."""
    at_pole = np.abs(ring[:, 1]) >= 90.0  # noqa: PLR2004
    lonely = np.flatnonzero(at_pole & ~np.roll(at_pole, 1) & ~np.roll(at_pole, -1))
    for index in lonely[::-1]:
        before, after = ring[index - 1, 0], ring[(index + 1) % len(ring), 0]
        ring = np.insert(ring, index, [before, ring[index, 1]], axis=0)
        ring[index + 1, 0] = after
    return ring


def _split(ring: _Floats) -> Any:
    with warnings.catch_warnings():
        # it says that it turned the ring round, which is what it is asked for
        warnings.simplefilter("ignore")
        shape = antimeridian.fix_polygon(shapely.Polygon(ring), great_circle=False)
    # pieces that only touch, as those of a world from 0 to 360, are one
    return shapely.union_all(list(getattr(shape, "geoms", [shape])))


def _unwrapped(lon: _Floats) -> _Floats:
    """Longitudes without jumps; of the copies 360 apart the one that lies within ±180, if one does."""
    unwrapped = np.unwrap(lon, period=360.0)
    middle = (unwrapped.min() + unwrapped.max()) / 2
    return np.asarray(np.round(unwrapped - 360.0 * np.round(middle / 360.0), _DECIMALS), float)


def _windings(lon: _Floats) -> tuple[int, float, float]:
    """How often a closed ring goes round a pole, and its west and east edge without jumps."""
    unwrapped = _unwrapped(np.append(lon, lon[0]))
    return round((unwrapped[-1] - unwrapped[0]) / 360.0), float(unwrapped.min()), float(unwrapped.max())


def _areas(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shapely.get_parts(shape)) if part.geom_type == "Polygon"]
    return shapely.union_all(parts)


def _lists(coordinates: Any) -> Any:
    if isinstance(coordinates, tuple | list):
        return [_lists(value) for value in coordinates]
    return float(coordinates)


def _middle(
    georeferenced: Georeference, to_lonlat: _ToGround, middle: tuple[float, float]
) -> tuple[float, float, float | None]:
    """Longitude and latitude of the middle, and the mean side of a pixel there in metres."""
    column, row = middle
    columns, rows = np.array([column, column + 1, column]), np.array([row, row, row + 1])
    lon, lat = to_lonlat(*georeferenced.to_ground(columns, rows))
    metres = None
    if np.all(np.isfinite(lon) & np.isfinite(lat)):
        _, _, sides = _EARTH.inv(lon[[0, 0]], lat[[0, 0]], lon[[1, 2]], lat[[1, 2]])
        metres = float(np.sqrt(sides[0] * sides[1]))
    wrapped = (float(lon[0]) + _JUMP) % 360.0 - _JUMP
    return round(wrapped, _DECIMALS), round(float(lat[0]), _DECIMALS), metres or None
