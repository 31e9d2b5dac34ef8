"""Longitudes beyond ±180, and lines and areas that cross the antimeridian: brought into range, cut there.

What belongs here: single geometries in degrees of longitude and latitude.  What does not: deciding which rows need it,
and counting (``geometry``); the outlines of tables (``footprint``).

A segment longer than 180° of longitude is one that goes the short way, across ±180 (RFC 7946 section 3.1.9); one of
exactly 360° is an edge of the world and stays.  A ring that goes round the Earth once is closed over the pole that is
nearer to it.  Z of cut points is interpolated; M cannot be and is lost in what is cut.

The ``antimeridian`` library does the same to single shapes, at some 20 µs a vertex, without Z and trusting a ring's
winding, which shapefiles turn round; tests compare with it.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from geo_assets.vector.wkb import moved

__all__ = ["continuous", "within_range"]

_LINE: Final = 1
_AREA: Final = 2
_HALF: Final = 180.0
_TURN: Final = 360.0
_NO_JUMP: Final = 1e-9
_OVER: Final = 91.0
"""Beyond the poles, so that clipping leaves the ends of meridians alone."""

type Floats = npt.NDArray[np.float64]


def continuous(geometry: Any) -> Any:
    """The geometry with longitudes that do not jump, so partly beyond ±180; itself where none does.

    Args:
        geometry: a line, an area, or several of one of them.
    """
    runs = _runs(geometry)
    if not any(_jumps(run[:, 0]) for run in runs):
        return geometry
    if shapely.get_dimensions(geometry) == _LINE:
        return _with_longitudes(geometry, [_unwrapped(run[:, 0]) for run in runs])
    parts = [_continuous_area(part) for part in shapely.get_parts(geometry)]
    return _together([piece for part in parts for piece in shapely.get_parts(part)], _AREA)


def within_range(geometry: Any) -> Any:
    """The geometry with longitudes within ±180, cut where it crosses.

    Args:
        geometry: continuous, and valid.
    """
    dimension = int(shapely.get_dimensions(geometry))
    return _together([piece for part in shapely.get_parts(geometry) for piece in _pieces(part, dimension)], dimension)


def _pieces(part: Any, dimension: int) -> list[Any]:
    west, _, east, _ = shapely.bounds(part)
    first, last = int(np.floor((west + _HALF) / _TURN)), int(np.ceil((east - _HALF) / _TURN))
    if first == last:
        return [_shifted(part, first)]
    if first > last:  # all of it on one antimeridian
        return [_shifted(part, last)]
    found: list[Any] = []
    for turn in range(first, last + 1):
        edges = (turn * _TURN - _HALF, -_OVER, turn * _TURN + _HALF, _OVER)
        # clipping by GEOS's overlay would cut a line wherever it meets itself
        inside = (
            shapely.clip_by_rect(part, *edges)
            if dimension == _LINE
            else shapely.intersection(part, shapely.box(*edges))
        )
        found += [_shifted(piece, turn) for piece in _of_dimension(inside, dimension)]
    if dimension == _AREA and east - west >= _TURN:
        # a world from 0 to 360 is one again
        return _of_dimension(shapely.union_all(found), dimension)
    return found


def _of_dimension(geometry: Any, dimension: int) -> list[Any]:
    parts = shapely.get_parts(shapely.get_parts(geometry))
    parts = parts[(shapely.get_dimensions(parts) == dimension) & ~shapely.is_empty(parts)]
    # GEOS leaves winding to chance
    return list(shapely.orient_polygons(parts))


def _together(pieces: list[Any], dimension: int) -> Any:
    if len(pieces) <= 1:
        return pieces[0] if pieces else shapely.Polygon()
    return shapely.multipolygons(pieces) if dimension == _AREA else shapely.multilinestrings(pieces)


def _shifted(geometry: Any, turns: int) -> Any:
    if turns == 0:
        return geometry
    return moved(np.array([geometry], object), lambda xy: xy - np.array([turns * _TURN, 0.0]))[0]


def _runs(geometry: Any) -> list[Floats]:
    """Coordinates (n, 2) of every line or ring, in order."""
    parts = shapely.get_parts(geometry)
    if shapely.get_dimensions(geometry) == _AREA:
        parts = shapely.get_rings(parts)
    return [shapely.get_coordinates(part) for part in parts]


def _steps(longitudes: Floats) -> Floats:
    """Whole turns by which each longitude jumps from the one before; 0 for the first."""
    difference = np.diff(longitudes, prepend=longitudes[:1])
    return np.where(np.abs(difference) > _HALF, np.rint(difference / _TURN), 0.0)


def _jumps(longitudes: Floats) -> bool:
    difference = np.abs(np.diff(longitudes))
    return bool(((difference > _HALF) & (np.abs(difference - _TURN) > _NO_JUMP)).any())


def _unwrapped(longitudes: Floats) -> Floats:
    return longitudes - _TURN * np.cumsum(_steps(longitudes))


def _with_longitudes(geometry: Any, longitudes: list[Floats]) -> Any:
    x = np.concatenate(longitudes)
    return moved(np.array([geometry], object), lambda xy: np.column_stack([x, xy[:, 1]]))[0]


def _continuous_area(polygon: Any) -> Any:
    shell, *holes = (run for run in _runs(polygon))
    longitudes = _unwrapped(shell[:, 0])
    rings = [longitudes]
    round_pole = abs(longitudes[-1] - longitudes[0]) > _HALF
    for hole in holes:
        unwrapped = _unwrapped(hole[:, 0])
        round_pole |= bool(abs(unwrapped[-1] - unwrapped[0]) > _HALF)
        away = (longitudes.min() + longitudes.max() - unwrapped.min() - unwrapped.max()) / 2
        rings.append(unwrapped + _TURN * np.rint(away / _TURN))
    if round_pole:
        return _polar(polygon)
    return _with_longitudes(polygon, rings)


def _polar(polygon: Any) -> Any:
    """An area round a pole: its rings each closed and brought into range, and what lies in an odd number of them.

    Not the shell without the holes: files have such rings in any order.
    """
    first, *others = (_closed(ring) for ring in shapely.get_rings(polygon))
    for other in others:
        first = shapely.symmetric_difference(first, other)
    return _together(_of_dimension(first, _AREA), _AREA)


def _closed(ring: Any) -> Any:
    coordinates = shapely.get_coordinates(ring, include_z=bool(shapely.has_z(ring)))
    coordinates[:, 0] = _unwrapped(coordinates[:, 0])
    if abs(coordinates[-1, 0] - coordinates[0, 0]) > _HALF:
        corners = coordinates[[-1, 0, 0]]
        corners[:2, 1] = np.copysign(90.0, coordinates[:, 1].mean())
        coordinates = np.vstack([coordinates, corners])
    area = shapely.Polygon(coordinates)
    if not shapely.is_valid(area):
        area = shapely.make_valid(area, method="structure", keep_collapsed=False)
    return within_range(area)
