"""Footprints of items in few numbers.

What belongs here: from an item to the rings that are drawn.  What does not: projecting and drawing them (``world``,
``page.js``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
import shapely.geometry
from shapely.geometry.base import BaseGeometry

from geo_assets.report.facts import Rings

__all__ = ["UNITS", "middle_of", "rings_of"]

UNITS: Final = 10_000
"""Units a degree: 0.0001°, some ten metres."""
_MOST_CORNERS = 32
_MOST_RINGS = 12
_WORLD = shapely.box(-180, -90, 180, 90)
_CORNERS_OF_BOX = {4: (0, 1, 2, 3), 6: (0, 1, 3, 4)}


def rings_of(item: Mapping[str, Any]) -> Rings:
    """The outline of an item: coarse, split at the antimeridian; empty where it has no place.

    Args:
        item: with ``geometry`` and ``bbox``, either of which may be missing or damaged.
    """
    box = _box(item.get("bbox"))
    shape = _shape(item.get("geometry"))
    if shape is None:
        shape = None if box is None else shapely.MultiPolygon([shapely.box(*part) for part in _parts_of(box)])
    elif box is not None and box[0] > box[2] and shape.bounds[2] - shape.bounds[0] > 180:  # noqa: PLR2004 - degrees
        shape = _split(shape)
    if shape is None:
        return ()
    return tuple(_steps(ring) for ring in _corners(_coarse(shape)))


def middle_of(rings: Rings) -> tuple[float, float]:
    """Longitude and latitude of the middle of the largest ring, in degrees."""
    boxes = []
    for ring in rings:
        corners = np.cumsum(np.asarray(ring, dtype=np.int64).reshape(-1, 2), axis=0)
        boxes.append((corners.min(axis=0), corners.max(axis=0)))
    low, high = max(boxes, key=lambda box: int(np.prod(box[1] - box[0])))
    middle = (low + high) / 2 / UNITS
    return float(middle[0]), float(middle[1])


def _box(given: object) -> tuple[float, float, float, float] | None:
    if not isinstance(given, Sequence) or len(given) not in _CORNERS_OF_BOX:
        return None
    numbers = [given[at] for at in _CORNERS_OF_BOX[len(given)]]
    if not all(isinstance(number, int | float) and abs(number) <= 360 for number in numbers):  # noqa: PLR2004
        return None
    west, south, east, north = numbers
    return float(west), float(south), float(east), float(north)


def _parts_of(box: tuple[float, float, float, float]) -> list[tuple[float, float, float, float]]:
    west, south, east, north = box
    return [box] if west <= east else [(west, south, 180.0, north), (-180.0, south, east, north)]


def _shape(geometry: object) -> BaseGeometry | None:
    if not isinstance(geometry, Mapping):
        return None
    try:
        shape: BaseGeometry = shapely.force_2d(shapely.geometry.shape(geometry))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError, shapely.errors.ShapelyError):
        return None
    return None if shape.is_empty or not np.isfinite(shapely.get_coordinates(shape)).all() else shape


def _split(shape: BaseGeometry) -> BaseGeometry:
    """A footprint whose corners jump from 180° to -180°, as two parts.

    RFC 7946 wants it split; whose box says that it crosses and whose parts all lie on one side already is left alone.
    """
    parts = []
    for part in shapely.get_parts(shape):
        if part.bounds[2] - part.bounds[0] <= 180 or part.geom_type != "Polygon":  # noqa: PLR2004
            parts.append(part)
            continue
        east = shapely.transform(part, lambda xy: np.column_stack((xy[:, 0] % 360, xy[:, 1])))
        east = shapely.make_valid(east)
        parts += [
            shapely.intersection(east, _WORLD),
            shapely.affinity.translate(shapely.intersection(east, shapely.box(180, -90, 540, 90)), -360),
        ]
    return shapely.GeometryCollection(parts)


def _coarse(shape: BaseGeometry) -> BaseGeometry:
    if shapely.get_num_coordinates(shape) <= _MOST_CORNERS:
        return shape
    west, south, east, north = shape.bounds
    tolerance = max(east - west, north - south) / 400
    while shapely.get_num_coordinates(simpler := shape.simplify(tolerance)) > _MOST_CORNERS:
        if tolerance > 360:  # noqa: PLR2004 - very many parts
            return shapely.box(west, south, east, north)
        tolerance *= 2
    return simpler if not simpler.is_empty else shapely.box(west, south, east, north)


def _corners(shape: BaseGeometry) -> Iterator[np.ndarray[Any, Any]]:
    lines: list[BaseGeometry] = []
    for part in _simple(shape):
        lines += [part.exterior, *part.interiors] if part.geom_type == "Polygon" else [part]
    for line in lines[:_MOST_RINGS]:
        corners = shapely.get_coordinates(line)
        if len(corners):
            closed = len(corners) > 2 and (corners[0] == corners[-1]).all()  # noqa: PLR2004
            yield corners[:-1] if closed else corners


def _simple(shape: BaseGeometry) -> Iterator[BaseGeometry]:
    for part in shapely.get_parts(shape):
        if hasattr(part, "geoms"):
            yield from _simple(part)
        elif not part.is_empty:
            yield part


def _steps(corners: np.ndarray[Any, Any]) -> tuple[int, ...]:
    inside = np.clip(corners, (-180, -90), (180, 90))
    units = np.rint(inside * UNITS).astype(np.int64)
    steps = np.diff(units, axis=0, prepend=np.zeros((1, 2), dtype=np.int64))
    kept = steps.any(axis=1)
    kept[0] = True
    return tuple(int(number) for number in steps[kept].ravel())
