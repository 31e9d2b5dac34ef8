"""Where on Earth a table lies: its boxes, and an outline in longitude and latitude.

What belongs here: boxes and convex hulls, accumulated while batches pass.  What does not: the outline of a raster
(``stac.footprint``), checks of finished items (``stac.validation``), cutting geometries (``dateline``).

What is kept is small whatever the table's size: convex hulls so far in the table's own CRS, one a sector of longitudes,
and which whole degrees of longitude are taken.  The outline is a hull of at most some :data:`MOST_VERTICES` vertices,
never smaller than the data: where vertices are left out, its edges go round them.

**How exact.**  In a geographic CRS with the datum of WGS 84 the box is that of the coordinates.  In any other, the hull
is transformed in fine steps, so the box is larger than the data's by what the hull adds to them, and nowhere smaller by
more than 1e-6 degrees.  A hull that lies over a pole reaches all longitudes; so does one over the edge of a projection
that is no cylinder.

**Across the antimeridian.**  Longitudes lie on a circle, and the box leaves out their widest gap.  It crosses the
antimeridian (west > east) where that makes it narrower by at least :data:`SECTOR` degrees: tables of the whole world
keep the plain box.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj
import shapely
import shapely.geometry

from geo_assets.vector.coordinates import Reprojection
from geo_assets.vector.wkb import points_of, to_shapely

__all__ = ["MOST_VERTICES", "SECTOR", "Box", "FootprintBuilder", "first_longitude"]

MOST_VERTICES: Final = 64
"""About the most vertices of an outline before it is cut at the antimeridian; never more than 100 in all."""
SECTOR: Final = 45
"""Degrees of longitude a hull is kept for, from -180: a gap at least as wide ends in no sector's midst."""

type Box = tuple[float, float, float, float]
"""West, south, east, north; or left, bottom, right, top."""
type _Floats = npt.NDArray[np.float64]
type _Bins = npt.NDArray[np.int64]
type _Mask = npt.NDArray[np.bool_]

_HALF: Final = 180.0
_TURN: Final = 360.0
_DEGREES: Final = 360
_DECIMALS: Final = 7
_ROUNDING: Final = 1e-6
_LEAST_AREA: Final = 1e-9
"""Square degrees, some ten square metres: of smaller rings, doubles cannot tell which way they run."""
_FEW: Final = 64
_MOST_HULL: Final = 2_000
_STEPS: Final = 4_096
_GRID: Final = 65


class FootprintBuilder:
    """The boxes and the outline of geometries that come in batches.

    Args:
        crs: of the geometries; coordinates are in the order east, north, whatever its axes.

    Raises:
        VectorRefusedError: ``CRS_UNUSABLE``: there is no way from it to longitude and latitude.
    """

    def __init__(self, crs: pyproj.CRS) -> None:
        self._ground = _ground(crs)
        self._occupied = np.zeros(_DEGREES, bool)
        self._hulls = [_Hull() for _ in range(_DEGREES // SECTOR if self._ground.is_cylinder else 1)]
        self._native = np.array([np.inf, np.inf, -np.inf, -np.inf])
        self._finished: tuple[Box, dict[str, Any]] | None = None

    def add(self, wkb: pa.BinaryArray) -> None:
        """Take a batch; nulls and empty geometries are nowhere.

        Raises:
            shapely.errors.GEOSException: a row is no WKB.
        """
        self._finished = None
        points = points_of(wkb)
        if points is None:
            geometries = to_shapely(wkb)
            geometries = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
            dots = shapely.get_type_id(geometries) == 0
            self._add_shapes(geometries[~dots])
            points = shapely.get_coordinates(geometries[dots])
        self._add_points(points)

    @property
    def native_bbox(self) -> Box | None:
        """Left, bottom, right, top in the CRS of the geometries; ``None``: there is none."""
        if self._native[0] > self._native[2]:
            return None
        left, bottom, right, top = self._native.tolist()
        return left, bottom, right, top

    @property
    def bbox(self) -> Box | None:
        """West, south, east, north in degrees of EPSG:4326, west > east across the antimeridian; ``None``: nowhere."""
        built = self._built()
        return None if built is None else built[0]

    @property
    def footprint(self) -> dict[str, Any] | None:
        """GeoJSON in EPSG:4326, split at the antimeridian; a line or a point where there is no area; ``None``: nowhere.

        The box of this geometry is :attr:`bbox`, within 1e-7 degrees.
        """
        built = self._built()
        return None if built is None else built[1]

    def _add_points(self, points: _Floats) -> None:
        points = _finite(points)
        if len(points):
            self._widen(np.hstack([points.min(axis=0), points.max(axis=0)])[None])
            self._spread(points)

    def _spread(self, points: _Floats) -> None:
        """Points to the hulls of their sectors."""
        if not self._ground.is_cylinder:
            self._hulls[0].add(points)
            return
        points = self._ground.wrapped(points)
        bins = _bins(self._ground.longitude(points[:, 0]))
        self._occupied[bins] = True
        sectors = bins // SECTOR
        for sector in np.flatnonzero(np.bincount(sectors, minlength=len(self._hulls))).tolist():
            inside = sectors == sector
            self._hulls[sector].add(points if inside.all() else points[inside])

    def _add_shapes(self, geometries: Any) -> None:
        bounds = shapely.bounds(geometries)
        known = np.isfinite(bounds).all(axis=1)
        geometries, bounds = geometries[known], bounds[known]
        if not len(bounds):
            return
        self._widen(bounds)
        if not self._ground.is_cylinder:
            self._hulls[0].add_shapes(geometries, bounds)
            return
        first, last = self._span(bounds)
        several = (last > first) & (shapely.get_num_geometries(geometries) > 1)
        if several.any():
            # between the parts of one there may be a gap
            split = shapely.get_parts(shapely.get_parts(geometries[several]))
            split = split[~shapely.is_empty(split)]
            geometries = np.concatenate([geometries[~several], split])
            bounds = np.vstack([bounds[~several], shapely.bounds(split)])
            first, last = self._span(bounds)
        self._occupied |= _covered(first, last)
        west, east = self._ground.longitude(bounds[:, 0]), self._ground.longitude(bounds[:, 2])
        whole = (first // SECTOR == last // SECTOR) & (west >= -_HALF) & (east <= _HALF)
        for sector in np.unique(first[whole] // SECTOR).tolist():
            inside = whole & (first // SECTOR == sector)
            self._hulls[sector].add_shapes(geometries[inside], bounds[inside])
        self._spread(_finite(shapely.get_coordinates(geometries[~whole])))

    def _span(self, bounds: _Floats) -> tuple[_Bins, _Bins]:
        return _bins_between(self._ground.longitude(bounds[:, 0]), self._ground.longitude(bounds[:, 2]))

    def _widen(self, bounds: _Floats) -> None:
        np.minimum(self._native[:2], bounds[:, :2].min(axis=0), out=self._native[:2])
        np.maximum(self._native[2:], bounds[:, 2:].max(axis=0), out=self._native[2:])

    def _built(self) -> tuple[Box, dict[str, Any]] | None:
        if self._finished is None and any(len(hull.points) for hull in self._hulls):
            points = self._ground.unrolled([hull.points for hull in self._hulls], _cut(self._occupied))
            self._finished = _box_and_outline(points) if len(points) else None
        return self._finished


# --- longitudes on a circle ------------------------------------------------------------------------------------


def _wrapped(longitudes: _Floats) -> _Floats:
    """Within ±180; what is there already, both ends included, stays, and what is beyond by rounding."""
    if longitudes.min(initial=0) >= -_HALF and longitudes.max(initial=0) <= _HALF:
        return longitudes
    around = (longitudes + _HALF) % _TURN - _HALF
    return np.where(np.abs(longitudes) <= _HALF + _ROUNDING, np.clip(longitudes, -_HALF, _HALF), around)


def _bins(longitudes: _Floats) -> _Bins:
    """Whole degrees from -180; 180 itself belongs to the last."""
    return np.minimum((_wrapped(longitudes) + _HALF).astype(np.int64), _DEGREES - 1)


def _bins_between(west: _Floats, east: _Floats) -> tuple[_Bins, _Bins]:
    """First and last bin of intervals; the last is counted on beyond 359 where they cross."""
    first = _bins(west)
    beyond = _wrapped(west) + _HALF + np.minimum(east - west, _TURN)
    last = np.maximum(first, np.ceil(beyond - _ROUNDING).astype(np.int64) - 1)
    return first, np.minimum(last, first + _DEGREES - 1)


def _covered(first: _Bins, last: _Bins) -> _Mask:
    changes = np.zeros(2 * _DEGREES + 1, np.int64)
    np.add.at(changes, first, 1)
    np.add.at(changes, last + 1, -1)
    covered = np.cumsum(changes)[:-1] > 0
    return np.asarray(covered[:_DEGREES] | covered[_DEGREES:], bool)


def _cut(occupied: _Mask) -> float:
    """Longitude, a border of sectors, from which to count eastwards; -180 for the plain box."""
    taken = np.flatnonzero(occupied)
    if len(taken) == 0:
        return -_HALF
    left_out = int(taken[0]) + _DEGREES - 1 - int(taken[-1])
    gaps = np.diff(taken) - 1
    if not len(gaps) or gaps.max() < left_out + SECTOR:
        return -_HALF
    begins = int(taken[int(gaps.argmax())]) + 1
    return float(-(-begins // SECTOR) * SECTOR) - _HALF


def first_longitude(west: _Floats, east: _Floats) -> float:
    """The longitude from which to count eastwards so that intervals (n of each) stay together; -180: as they are."""
    return _cut(_covered(*_bins_between(west, east)))


def _unrolled(points: _Floats) -> _Floats:
    """All places (n, 2) there are, in longitudes that do not jump."""
    longitudes = _wrapped(points[:, 0])
    turned = np.where(longitudes < first_longitude(longitudes, longitudes), longitudes + _TURN, longitudes)
    return np.column_stack([turned, points[:, 1]])


# --- hulls -----------------------------------------------------------------------------------------------------


class _Hull:
    """The convex hull of what it was given."""

    def __init__(self) -> None:
        self.points: _Floats = np.zeros((0, 2))
        """Its vertices, counter-clockwise."""

    def add(self, points: _Floats) -> None:
        """Take points (n, 2)."""
        if len(points) > _FEW:
            around = _extremes(np.vstack([points[_extreme_rows(points)], self.points]))
            points = points[~_inside(points[:, 0], points[:, 1], around)]
            points = np.vstack([points, around])
        self.points = _thinned(_hull(np.vstack([self.points, points])))

    def add_shapes(self, geometries: Any, bounds: _Floats) -> None:
        """Take geometries and their bounds (n, 4): only those that can change the hull are looked into."""
        if len(geometries) > _FEW:
            corners = [bounds[:, at] for at in ([0, 1], [2, 1], [2, 3], [0, 3])]
            widest = np.unique(np.concatenate([_extreme_rows(corner) for corner in corners]))
            self.add(_finite(shapely.get_coordinates(geometries[widest])))
            around = _extremes(self.points)
            inside = np.logical_and.reduce([_inside(corner[:, 0], corner[:, 1], around) for corner in corners])
            geometries = geometries[~inside]
        if len(geometries):
            self.add(_finite(shapely.get_coordinates(geometries)))


def _convex(points: _Floats) -> Any:
    """The convex hull of points: a polygon, a line or a point."""
    if len(points) == 1:
        return shapely.Point(points[0])
    # of a line it is the same, and a line is one object
    return shapely.convex_hull(shapely.linestrings(points))


def _hull(points: _Floats) -> _Floats:
    """Vertices of the convex hull, counter-clockwise, not closed; two of a line, one of a point.

    Which is the first does not depend on the order of the points.
    """
    hull = _convex(points)
    if hull.geom_type == "Polygon":
        return np.asarray(shapely.get_coordinates(shapely.orient_polygons(hull))[:-1], float)
    ends = shapely.get_coordinates(hull)
    return np.asarray(ends[np.lexsort(ends.T[::-1])], float)


def _extreme_rows(points: _Floats) -> _Bins:
    """Rows of the points that lie furthest in eight directions, counter-clockwise from the east."""
    x, y = points[:, 0], points[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        stretch = (np.ptp(x) or 1.0) / (np.ptp(y) or 1.0)
    up, down = x + y * stretch, x - y * stretch
    rows = [x.argmax(), up.argmax(), y.argmax(), down.argmin(), x.argmin(), up.argmin(), y.argmin(), down.argmax()]
    return np.array(rows, np.int64)


def _extremes(points: _Floats) -> _Floats:
    return _hull(points[_extreme_rows(points)])


def _inside(x: _Floats, y: _Floats, around: _Floats) -> _Mask:
    """Which points lie strictly inside a convex polygon."""
    if len(around) < 3:  # noqa: PLR2004 - a line has no inside
        return np.zeros(len(x), bool)
    inside = np.ones(len(x), bool)
    for (left, bottom), (right, top) in zip(around, np.roll(around, -1, axis=0), strict=True):
        inside &= (right - left) * (y - bottom) > (top - bottom) * (x - left)
    return inside


def _thinned(hull: _Floats) -> _Floats:
    """Points on a circle are all vertices: leave out some, but none that the box needs."""
    if len(hull) <= _MOST_HULL:
        return hull
    kept = np.zeros(len(hull), bool)
    kept[:: len(hull) // (_MOST_HULL // 2)] = True
    kept[_extreme_rows(hull)] = True
    return hull[kept]


def _finite(points: _Floats) -> _Floats:
    known = np.isfinite(points).all(axis=1)
    return points if known.all() else points[known]


# --- from the CRS to longitude and latitude --------------------------------------------------------------------


class _Ground:
    """The way from one CRS to longitude and latitude."""

    def __init__(self, crs: pyproj.CRS) -> None:
        wgs84 = pyproj.CRS("OGC:CRS84")
        self._to_lonlat = Reprojection(crs, wgs84)
        from_lonlat = Reprojection(wgs84, crs)
        self._linear = _cylinder(from_lonlat)
        poles = from_lonlat(np.array([[lon, lat] for lat in (-90.0, 90.0) for lon in (-90.0, 0.0, 90.0, 180.0)]))
        self._poles = poles.reshape(2, 4, 2)
        """South and north; in a cone or cylinder a pole is a line, of which these are points."""

    @property
    def is_cylinder(self) -> bool:
        """Whether x alone tells the longitude, as in geographic CRS and Mercator."""
        return self._linear is not None

    def longitude(self, x: _Floats) -> _Floats:
        """Degrees of longitude for x of a cylinder, unbounded; within 0.01 where there is a shift of datum."""
        zero, degree = self._linear or (0.0, 1.0)
        return x if (zero, degree) == (0.0, 1.0) else (x - zero) / degree

    def wrapped(self, points: _Floats) -> _Floats:
        """Points of a cylinder with longitudes within ±180."""
        longitudes = self.longitude(points[:, 0])
        within = _wrapped(longitudes)
        if within is longitudes:
            return points
        zero, degree = self._linear or (0.0, 1.0)
        return np.column_stack([zero + within * degree, points[:, 1]])

    def unrolled(self, hulls: Sequence[_Floats], cut: float) -> _Floats:
        """Points (n, 2) on the hull of hulls, in longitudes that do not jump, and latitudes.

        Args:
            hulls: by sector if this is a cylinder, else one.
            cut: longitude to begin with, of a cylinder.
        """
        if self._linear is None:
            return self._around(hulls[0])
        zero, degree = self._linear
        places: list[_Floats] = []
        for sector, points in enumerate(hulls):
            # by sector, as what ends right at its border is no part of the next
            turn = _TURN if sector * SECTOR - _HALF < cut else 0.0
            places.append(np.column_stack([self.longitude(points[:, 0]) + turn, points[:, 1]]))
        hull = _hull(np.vstack(places))
        if not self._to_lonlat.needed:
            return hull

        def lonlat(places: _Floats) -> _Floats:
            moved = self._to_lonlat(np.column_stack([zero + places[:, 0] * degree, places[:, 1]]))
            turns = np.round((places[:, 0] - moved[:, 0]) / _TURN)
            return np.column_stack([moved[:, 0] + turns * _TURN, moved[:, 1]])

        return _finite(lonlat(hull) if len(hull) == 1 else _Path(hull).walk(lonlat))

    def _around(self, hull: _Floats) -> _Floats:
        """The edge of a hull, followed in the CRS."""
        if len(hull) == 1:
            return _finite(self._to_lonlat(hull))
        path = _Path(hull)
        reached = [
            pole for pole, places in zip((-90.0, 90.0), self._poles, strict=True) if _reaches(hull, places, path.step)
        ]
        if reached:
            latitudes = np.append(_finite(self._to_lonlat(path.places))[:, 1], reached)
            return _rectangle(latitudes)
        edge = path.walk(self._unwrapped)
        if np.isfinite(edge).all() and np.ptp(edge[[0, len(path.places) - 1], 0]) < _HALF:
            return edge
        return self._raster(hull)

    def _unwrapped(self, places: _Floats) -> _Floats:
        lonlat = self._to_lonlat(places)
        with np.errstate(invalid="ignore"):  # infinite where there is no place
            return np.column_stack([np.unwrap(lonlat[:, 0], period=_TURN), lonlat[:, 1]])

    def _raster(self, hull: _Floats) -> _Floats:
        """Places all over the box of a hull whose edge leaves the projection."""
        (left, bottom), (right, top) = hull.min(axis=0), hull.max(axis=0)
        x, y = np.meshgrid(np.linspace(left, right, _GRID), np.linspace(bottom, top, _GRID))
        places = np.vstack([hull, np.column_stack([x.ravel(), y.ravel()])])
        return _unrolled(_finite(self._to_lonlat(places)))


class _Path:
    """The edge of a hull in small steps."""

    def __init__(self, hull: _Floats) -> None:
        self._corners = np.vstack([hull, hull[:1]])
        lengths = np.hypot(*np.diff(self._corners, axis=0).T)
        self.step = float(lengths.sum()) / _STEPS
        """Length of the longest, in units of the CRS."""
        counts = np.maximum(np.ceil(lengths / self.step), 2).astype(np.int64)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        at = np.repeat(np.arange(len(counts)), counts) + within / np.repeat(counts, counts)
        self._at = np.append(at, float(len(counts)))
        self.places = self._places(self._at)
        """Points (n, 2), the last as the first."""

    def _places(self, at: _Floats) -> _Floats:
        corners = np.arange(len(self._corners))
        return np.column_stack([np.interp(at, corners, self._corners[:, axis]) for axis in (0, 1)])

    def walk(self, lonlat: Callable[[_Floats], _Floats]) -> _Floats:
        """All places through ``lonlat``; then, in finer steps, those around the four that lie furthest."""
        edge = lonlat(self.places)
        if not np.isfinite(edge).all():
            return edge
        found = [edge]
        for row in (*edge.argmin(axis=0), *edge.argmax(axis=0)):
            ends = self._at[max(row - 1, 0)], self._at[min(row + 1, len(edge) - 1)]
            near = lonlat(self._places(np.linspace(*ends, _GRID)))
            turns = np.round((edge[row, 0] - near[:, 0]) / _TURN)
            found.append(np.column_stack([near[:, 0] + turns * _TURN, near[:, 1]]))
        return np.vstack(found)


@lru_cache(maxsize=32)
def _ground(crs: pyproj.CRS) -> _Ground:
    """One a CRS and process: PROJ can take half a second to find the way."""
    return _Ground(crs)


def _cylinder(from_lonlat: Reprojection) -> tuple[float, float] | None:
    """The x of longitude 0, and x a degree, if longitude is nothing but a linear function of x."""
    longitudes, latitudes = np.meshgrid([0.0, 2.0, 90.0, -90.0], [0.0, -40.0, 40.0])
    x = from_lonlat(np.column_stack([longitudes.ravel(), latitudes.ravel()]))[:, 0]
    zero, degree = float(x[0]), float(x[1] - x[0]) / 2
    if not np.isfinite(x).all() or degree <= 0:
        return None
    difference = (x - zero) / degree - longitudes.ravel()
    difference -= np.round(difference / _TURN) * _TURN
    return (zero, degree) if np.abs(difference).max() < 0.01 else None  # noqa: PLR2004 - a shift of datum


def _reaches(hull: _Floats, places: _Floats, within: float) -> bool:
    shape = _convex(hull)
    places = _finite(places)
    return bool((shapely.distance(shape, shapely.points(places)) <= within).any()) if len(places) else False


# --- box and outline -------------------------------------------------------------------------------------------


def _box_and_outline(points: _Floats) -> tuple[Box, dict[str, Any]]:
    """From points in longitudes that do not jump, at least one.

    Everything about the antimeridian is decided on rounded longitudes, so that no part of the outline vanishes when it
    is rounded.
    """
    points = np.column_stack([points[:, 0], np.clip(points[:, 1], -90.0, 90.0)])
    if np.ptp(points[:, 0]) >= _TURN:
        points = _rectangle(points[:, 1])
    else:
        points = points - np.array([_turns(points[:, 0]) * _TURN, 0.0])
    (west, south), (east, north) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    hull = _hull(np.round(_outer(_hull(points)), _DECIMALS))
    crosses = round(east, _DECIMALS) > _HALF
    shape = _split(hull) if crosses else _shape(hull)
    geometry = shapely.geometry.mapping(shape)
    box = (max(west, -_HALF), south, east - _TURN if crosses else min(east, _HALF), north)
    return box, {"type": geometry["type"], "coordinates": _lists(geometry["coordinates"])}


def _rectangle(latitudes: _Floats) -> _Floats:
    """All longitudes between some latitudes."""
    low, high = float(latitudes.min()), float(latitudes.max())
    return np.array([[-_HALF, low], [_HALF, low], [_HALF, high], [-_HALF, high]])


def _turns(longitudes: _Floats) -> float:
    """How often round the Earth they are from where they begin within ±180; 0 where all are."""
    west, east = round(float(longitudes.min()), _DECIMALS), round(float(longitudes.max()), _DECIMALS)
    return 0.0 if west >= -_HALF and east <= _HALF else math.floor((west + _HALF) / _TURN)


def _outer(hull: _Floats) -> _Floats:
    """A hull with fewer vertices around the given one, within its box: its most telling edges, moved outwards."""
    if len(hull) <= MOST_VERTICES:
        return hull
    low = hull.min(axis=0)
    extent = hull.max(axis=0) - low
    unit = (hull - low) / extent
    tolerance = 1e-6
    while len(coarse := _hull(shapely.get_coordinates(shapely.Polygon(unit).simplify(tolerance)))) > MOST_VERTICES:
        tolerance *= 1.5
    along = np.roll(coarse, -1, axis=0) - coarse
    outwards = np.column_stack([along[:, 1], -along[:, 0]])
    reach = (unit @ outwards.T).max(axis=0)
    # where each line meets the next
    following, reach_of_following = np.roll(outwards, -1, axis=0), np.roll(reach, -1)
    turn = outwards[:, 0] * following[:, 1] - outwards[:, 1] * following[:, 0]
    x = (reach * following[:, 1] - reach_of_following * outwards[:, 1]) / turn
    y = (outwards[:, 0] * reach_of_following - following[:, 0] * reach) / turn
    around = _convex(np.column_stack([x, y]))
    clipped = shapely.get_coordinates(around.intersection(shapely.box(0.0, 0.0, 1.0, 1.0)))
    return np.asarray(clipped * extent + low, float)


def _split(hull: _Floats) -> Any:
    """A hull that crosses 180 as a part on either side."""
    shape = _convex(hull)
    south, north = shape.bounds[1], shape.bounds[3]
    parts: list[Any] = []
    for west, turn in ((-_HALF, 0.0), (_HALF, _TURN)):
        piece = shape.intersection(shapely.box(west, -90.0, west + _TURN, 90.0))
        if piece.area < _LEAST_AREA <= shape.area:
            # a mere tip: wider is right, and to be told from nothing
            piece = shapely.box(piece.bounds[0], south, piece.bounds[2], north)
        parts.append(_shape(np.round(_hull(shapely.get_coordinates(piece)) - [turn, 0.0], _DECIMALS)))
    if all(part.geom_type == "Polygon" for part in parts):
        return shapely.MultiPolygon(parts)
    return shapely.MultiLineString([part.exterior.coords if part.geom_type == "Polygon" else part for part in parts])


def _shape(hull: _Floats) -> Any:
    """A polygon, counter-clockwise; its edge alone where it is so small that doubles see no area."""
    shape = _convex(hull)
    if shape.geom_type == "Polygon":
        return (
            shapely.orient_polygons(shape) if shape.area >= _LEAST_AREA else shapely.LineString(shape.exterior.coords)
        )
    return shape


def _lists(coordinates: Any) -> Any:
    if isinstance(coordinates, tuple | list):
        return [_lists(value) for value in coordinates]
    return float(coordinates)
