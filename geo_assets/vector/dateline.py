"""Longitudes beyond ±180, and lines and areas that cross the antimeridian: brought into range, cut there.

What belongs here: single geometries in degrees of longitude and latitude.  What does not: deciding which rows need it,
and counting (``geometry``); the outlines of tables (``footprint``).

A segment of 270° of longitude and more is one that goes the short way, across ±180 (RFC 7946 section 3.1.9), if
nothing speaks against it.  One of exactly 360° is an edge of the world and stays.  So does all of a line or area that
has a segment between 180° and 270°, which may go either way, and a rectangle that would become a tall strip.  A ring
that goes round the Earth once is closed over the pole that is nearer to it, if it is near one, or no area otherwise.
What was drawn in a plane is never guessed at: its segments are followed there.

Z of cut points is interpolated; M cannot be and is lost in what is cut.

The ``antimeridian`` library does the same to single shapes, at some 20 µs a vertex, without Z and trusting a ring's
winding, which shapefiles turn round; tests compare with it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import shapely

from geo_assets.vector.wkb import moved

__all__ = ["continuous", "followed", "within_range"]

_LINE: Final = 1
_AREA: Final = 2
_HALF: Final = 180.0
_TURN: Final = 360.0
_NO_JUMP: Final = 1e-9
_SHORT: Final = 90.0
"""A segment that is no longer the short way goes it; one longer the short way may go either."""
_POLAR: Final = 45.0
"""A ring all beyond this latitude may go round the pole."""
_MOST_CORNERS: Final = 8
_FILLED: Final = 0.9
"""Share of its box that something like a rectangle fills, which may be the extent of nearly all the Earth."""
_TALL: Final = 45.0
_SLIM: Final = 2.0
_SAMPLES: Final = 33
"""Points of a segment that is followed, so that none is further than a few degrees from the next."""
_OVER: Final = 91.0
"""Beyond the poles, so that clipping leaves the ends of meridians alone."""

type Floats = npt.NDArray[np.float64]


def continuous(geometry: Any) -> Any:
    """The geometry with longitudes that do not jump, so partly beyond ±180; itself where none does for certain.

    Args:
        geometry: a line, an area, or several of one of them, in degrees.
    """
    return _turned(geometry, [_meant(part) for part in shapely.get_parts(geometry)])


def followed(geometry: Any, planar: Any, to_degrees: Callable[[Floats], Floats]) -> Any:
    """As :func:`continuous`, of something drawn in a plane, where every segment says which way it goes.

    Args:
        geometry: in degrees.
        planar: the same as it was drawn.
        to_degrees: what made degrees of it, (n, 2) to (n, 2).
    """
    pairs = zip(shapely.get_parts(geometry), shapely.get_parts(planar), strict=True)
    return _turned(
        geometry,
        [
            [
                _turns_in_plane(run[:, 0], drawn, to_degrees)
                for run, drawn in zip(_runs(part), _runs(original), strict=True)
            ]
            for part, original in pairs
        ],
    )


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


def _turned(geometry: Any, turns: Sequence[Sequence[Floats]]) -> Any:
    """The geometry with every run of each part shifted by so many whole turns a vertex."""
    if not any(run.any() for part in turns for run in part):
        return geometry
    parts = shapely.get_parts(geometry)
    if shapely.get_dimensions(geometry) == _LINE:
        longitudes = [run[:, 0] - _TURN * turn for run, (turn,) in zip(_runs(geometry), turns, strict=True)]
        return _with_longitudes(geometry, longitudes)
    whole = [_continuous_area(part, turn) if _any(turn) else part for part, turn in zip(parts, turns, strict=True)]
    return _together([piece for part in whole for piece in shapely.get_parts(part)], _AREA)


def _any(turns: Sequence[Floats]) -> bool:
    return any(run.any() for run in turns)


def _steps(longitudes: Floats) -> Floats:
    """Whole turns by which each longitude jumps from the one before; 0 for the first."""
    difference = np.diff(longitudes, prepend=longitudes[:1])
    return np.where(np.abs(difference) > _HALF, np.rint(difference / _TURN), 0.0)


def _meant(part: Any) -> list[Floats]:
    """Turns of each vertex of every run of a line or an area in degrees; all 0 where it is not certain that any is."""
    runs = _runs(part)
    turns = [np.cumsum(_steps(run[:, 0])) for run in runs]
    if any(_jumps(run[:, 0]) for run in runs) and _certain(part, runs, turns):
        return turns
    return [np.zeros(len(run)) for run in runs]


def _certain(part: Any, runs: Sequence[Floats], turns: Sequence[Floats]) -> bool:
    lengths = np.abs(np.concatenate([np.diff(run[:, 0]) for run in runs]))
    if ((lengths > _HALF) & (lengths < _TURN - _SHORT)).any():
        return False
    if shapely.get_dimensions(part) == _LINE:
        return True
    shell, longitudes = runs[0], runs[0][:, 0] - _TURN * turns[0]
    if abs(longitudes[-1] - longitudes[0]) > _HALF:
        near_pole = shell[:, 1].min() > _POLAR or shell[:, 1].max() < -_POLAR
        return bool(np.abs(np.diff(longitudes)).max() <= _SHORT and near_pole) or not shapely.is_valid(part)
    return not _extent(shell, longitudes)


def _extent(shell: Floats, turned: Floats) -> bool:
    """Whether a ring as it is written is a rectangle that would be an unlikely strip, turned."""
    (width, height), west_east = np.ptp(shell, axis=0), np.ptp(turned)
    like_box = len(shell) <= _MOST_CORNERS + 1 and shapely.Polygon(shell).area >= _FILLED * width * height
    return bool(like_box and (height > _TALL or height > _SLIM * west_east))


def _turns_in_plane(longitudes: Floats, drawn: Floats, to_degrees: Callable[[Floats], Floats]) -> Floats:
    """Turns of each vertex, found out by going along the long segments."""
    turns = np.zeros(len(longitudes))
    difference = np.diff(longitudes)
    at = np.flatnonzero(np.abs(difference) > _SHORT)
    if not len(at):
        return turns
    along = np.linspace(0, 1, _SAMPLES)[:, None, None]
    samples = drawn[at] + along * (drawn[at + 1] - drawn[at])
    way = to_degrees(samples.reshape(-1, 2))[:, 0].reshape(_SAMPLES, len(at))
    steps = np.diff(way, axis=0)
    gone = (steps - _TURN * np.rint(steps / _TURN)).sum(axis=0)
    found = np.rint((difference[at] - gone) / _TURN)
    turns[at + 1] = np.where(np.isfinite(found), found, 0.0)
    return np.cumsum(turns)


def _jumps(longitudes: Floats) -> bool:
    difference = np.abs(np.diff(longitudes))
    return bool(((difference > _HALF) & (np.abs(difference - _TURN) > _NO_JUMP)).any())


def _with_longitudes(geometry: Any, longitudes: list[Floats]) -> Any:
    x = np.concatenate(longitudes)
    return moved(np.array([geometry], object), lambda xy: np.column_stack([x, xy[:, 1]]))[0]


def _continuous_area(polygon: Any, turns: Sequence[Floats]) -> Any:
    shell, *holes = (run[:, 0] - _TURN * turn for run, turn in zip(_runs(polygon), turns, strict=True))
    if any(abs(ring[-1] - ring[0]) > _HALF for ring in (shell, *holes)):
        return _polar(polygon, [shell, *holes])
    rings = [shell]
    for hole in holes:
        away = (shell.min() + shell.max() - hole.min() - hole.max()) / 2
        rings.append(hole + _TURN * np.rint(away / _TURN))
    return _with_longitudes(polygon, rings)


def _polar(polygon: Any, longitudes: Sequence[Floats]) -> Any:
    """An area round a pole: its rings each closed and brought into range, and what lies in an odd number of them.

    Not the shell without the holes: files have such rings in any order.
    """
    rings = zip(shapely.get_rings(polygon), longitudes, strict=True)
    first, *others = (_closed(ring, unwrapped) for ring, unwrapped in rings)
    for other in others:
        first = shapely.symmetric_difference(first, other)
    return _together(_of_dimension(first, _AREA), _AREA)


def _closed(ring: Any, longitudes: Floats) -> Any:
    coordinates = shapely.get_coordinates(ring, include_z=bool(shapely.has_z(ring)))
    coordinates[:, 0] = longitudes
    if abs(coordinates[-1, 0] - coordinates[0, 0]) > _HALF:
        corners = coordinates[[-1, 0, 0]]
        corners[:2, 1] = np.copysign(90.0, coordinates[:, 1].mean())
        coordinates = np.vstack([coordinates, corners])
    area = shapely.Polygon(coordinates)
    if not shapely.is_valid(area):
        area = shapely.make_valid(area, method="structure", keep_collapsed=False)
    return within_range(area)
