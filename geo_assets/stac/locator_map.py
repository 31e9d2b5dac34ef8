"""Where on Earth a footprint lies, as a small SVG for Dagster's UI.

What belongs here: :func:`locator_map` and :func:`small_map`.  What does not: computing footprints (``footprint``).

``land.txt`` is one SVG path in whole degrees, south downwards, drawn once from Natural Earth's countries at 1:50
million (public domain): what crosses the antimeridian split there and Antarctica closed along 90° S, all united with
gaps of up to 0.6° filled (buffer by 0.3° and back), simplified by 1.2° (south of 60° S by 3°), without islands below 4
and lakes below 20 square degrees, rounded, and written as relative steps.  ``land_small.txt`` is the same in units of
3°: gaps of up to 2° filled, simplified by 3.8°, without Antarctica and islands below 40 square degrees.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import shapely
import shapely.affinity
import shapely.geometry
from shapely.geometry.base import BaseGeometry

__all__ = ["LIMIT_BYTES", "MEDIA_TYPE", "SMALL_LIMIT_BYTES", "locator_map", "small_map"]

MEDIA_TYPE: Final = "image/svg+xml"
LIMIT_BYTES: Final = 4_000
"""No map is larger."""
SMALL_LIMIT_BYTES: Final = 920
"""No small map is larger."""

_OUTLINE_BYTES = 900
_SMALL_OUTLINE_BYTES = 100
_SMALL_UNIT = 3.0
"""Degrees a unit of the small map."""
_TINY = 12.0
"""Degrees: a footprint no wider and higher than this gets a marker and a second frame around it."""
_FRAME = 40.0
"""Width and height of that frame, degrees."""
_FINEST = 0.01
_ROUND_THE_WORLD = 360.0


def locator_map(geometry: Mapping[str, Any] | None) -> str:
    """Draw a footprint on a map of the world; one that is small also with what lies around it.

    Args:
        geometry: GeoJSON in longitude and latitude, split at the antimeridian as RFC 7946 has it; ``None``: a map
            without a footprint.

    Returns:
        An SVG document of at most :data:`LIMIT_BYTES` bytes, ASCII only.

    Raises:
        ValueError: the geometry is not GeoJSON, or a coordinate is no number.
    """
    shape = None if geometry is None else _shape(geometry)
    if shape is None or shape.is_empty:
        return _document(360, "", "")
    outline = (
        "<path id='f' fill='#d33' fill-opacity='.45' stroke='#b00' vector-effect='non-scaling-stroke'"
        f" d='{_path(shape, limit=_OUTLINE_BYTES, decimals=2)}'/>"
    )
    x, y, small = _middle(shape)
    if not small:
        return _document(360, outline, "")
    marker = f"<circle cx='{x:.2f}' cy='{y:.2f}' r='7' fill='none' stroke='#b00' stroke-width='2.5'/>"
    return _document(548, outline + marker, _frame(x, y))


def small_map(geometry: Mapping[str, Any] | None) -> str:
    """Draw a footprint on a coarse map of the world, so small that Dagster's UI shows it without a click.

    Args:
        geometry: as for :func:`locator_map`.

    Returns:
        An SVG document of at most :data:`SMALL_LIMIT_BYTES` bytes, ASCII only.

    Raises:
        ValueError: the geometry is not GeoJSON, or a coordinate is no number.
    """
    shape = None if geometry is None else _shape(geometry)
    footprint = ""
    if shape is not None and not shape.is_empty:
        x, y, small = _middle(shape)
        if small:
            footprint = f"<circle cx='{x / _SMALL_UNIT:.1f}' cy='{y / _SMALL_UNIT:.1f}' r='2' fill='#d33'/>"
        else:
            units = shapely.affinity.scale(shape, 1 / _SMALL_UNIT, 1 / _SMALL_UNIT, origin=(0, 0))
            outline = _path(units, limit=_SMALL_OUTLINE_BYTES, decimals=0)
            footprint = f"<path fill='#d33' fill-opacity='.6' d='{outline}'/>"
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' width='240' height='120' viewBox='-60,-30,120,60'"
        f" style='background:#dbe9f4'><path fill='#a9b59b' d='{_land('land_small.txt')}'/>{footprint}</svg>"
    )


def _middle(shape: BaseGeometry) -> tuple[float, float, bool]:
    """Where a footprint's middle is on a map, and whether it is so small that it needs a marker."""
    west, south, east, north = _joined(shape).bounds
    return _wrapped((west + east) / 2), -(south + north) / 2, max(east - west, north - south) <= _TINY


def _document(width: int, footprint: str, beside: str) -> str:
    # single quotes and commas need no encoding in a data URI
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='180' viewBox='-180,-90,{width},180'>"
        "<path fill='#dbe9f4' d='M-180-90h360v180h-360z'/>"
        f"<path id='l' fill='#a9b59b' d='{_land('land.txt')}'/>{footprint}{beside}</svg>"
    )


def _frame(x: float, y: float) -> str:
    """The second frame, right of the world; land is there again beyond the antimeridian, which is not its edge."""
    left, top, side = f"{x - _FRAME / 2:.2f}", f"{y - _FRAME / 2:.2f}", f"{_FRAME:.0f}"
    again = "".join(f"<use href='#{what}' x='{shift}'/>" for what in "lf" for shift in _shifts(x))
    return (
        f"<svg x='188' y='-90' width='180' height='180' viewBox='{left},{top},{side},{side}'>"
        f"<path fill='#dbe9f4' d='M{left},{top}h{side}v{side}h-{side}z'/>{again}</svg>"
    )


def _shifts(x: float) -> Sequence[int]:
    if abs(x) + _FRAME / 2 <= 180:  # noqa: PLR2004 - degrees
        return (0,)
    return (0, 360 if x > 0 else -360)


@cache
def _land(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="ascii").strip()


def _shape(geometry: Mapping[str, Any]) -> BaseGeometry:
    try:
        shape: BaseGeometry = shapely.geometry.shape(geometry)
    except (KeyError, TypeError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ValueError(f"a footprint must be GeoJSON, not {geometry!r:.100}") from error
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise ValueError("a footprint has a coordinate that is no number")
    return shape


def _joined(shape: BaseGeometry) -> BaseGeometry:
    """The parts of a footprint that the antimeridian splits, side by side again."""
    west, _, east, _ = shape.bounds
    parts = shapely.get_parts(shape)
    if east - west < _ROUND_THE_WORLD / 2 or len(parts) == 1:
        return shape
    moved = [shapely.affinity.translate(part, _ROUND_THE_WORLD) if part.bounds[2] <= 0 else part for part in parts]
    return shapely.GeometryCollection(moved)


def _wrapped(longitude: float) -> float:
    return (longitude + 180) % 360 - 180


# --- outlines as paths -----------------------------------------------------------------------------------------


def _path(shape: BaseGeometry, *, limit: int, decimals: int) -> str:
    """The outline as coarse as it must be to stay below so many bytes."""
    tolerance = _FINEST
    while len(drawn := _drawn(shape, tolerance, decimals)) > limit:
        if tolerance > _ROUND_THE_WORLD:
            return _drawn(shapely.box(*shape.bounds), _FINEST, decimals)  # very many parts
        tolerance *= 2
    return drawn


def _drawn(shape: BaseGeometry, tolerance: float, decimals: int) -> str:
    return "".join(_ring(ring, decimals) for ring in _rings(shape.simplify(tolerance)))


def _rings(shape: BaseGeometry) -> Iterator[Sequence[tuple[float, float]]]:
    for part in shapely.get_parts(shape):
        lines = [part.exterior, *part.interiors] if part.geom_type == "Polygon" else [part]
        yield from (shapely.get_coordinates(line).tolist() for line in lines)


def _ring(points: Sequence[tuple[float, float]], decimals: int) -> str:
    numbers = ",".join(f"{_short(x, decimals)},{_short(-y, decimals)}" for x, y in points)
    return f"M{numbers}z"


def _short(number: float, decimals: int) -> str:
    written = f"{number:.{decimals}f}"
    return written.rstrip("0").rstrip(".") if decimals else written
