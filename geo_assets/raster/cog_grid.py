"""Where the pixels of a COG lie: the source's grid kept, or a north-up grid in another CRS.

What belongs here: how a source is placed, whether it must be warped, and the grid it is warped to.  What does not:
moving pixels (``cog``).

A raster that crosses the antimeridian gets a grid that goes on beyond 180° instead of one around the Earth.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio.crs
from pyproj.exceptions import CRSError, ProjError
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_gcps
from rasterio.warp import calculate_default_transform

from geo_assets.errors import RasterRefusedError
from geo_assets.raster.crs import crs_name, parse_crs, same_crs
from geo_assets.raster.open import reason_of

__all__ = ["Grid", "Placement", "extent_error", "placement_of", "target_grid", "transformer"]

Values = npt.NDArray[np.float64]

_TINY: Final = 1e-9
_WORLD_MERCATOR: Final = 2 * 20_037_508.342_789_244
_MERCATORS: Final = (3857, 3395)
_MERCATOR_LATITUDE: Final = 85.051_128_779_806_6
_ROUNDING: Final = 1e-6
_SAMPLES: Final = 33
_MOST_GROWTH: Final = 64
"""How many times more pixels than the source a grid may have before the CRS cannot be meant."""
_NEVER_TOO_MANY: Final = 1 << 24
"""Pixels that a grid may have in any case: a line of pixels is a curve in another CRS, and its box far larger."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How the source's pixels come to their places."""

    kind: str
    """``geotransform``, ``gcps``, ``rpcs`` or ``none``."""
    crs: rasterio.crs.CRS | None
    transform: Affine
    crs_given: bool = False
    """Whether the CRS comes from the user, as the file has none."""

    @property
    def north_up(self) -> bool:
        """Whether rows run east and columns run south, as a COG's must."""
        size = max(abs(self.transform.a), abs(self.transform.e))
        straight = max(abs(self.transform.b), abs(self.transform.d)) <= _TINY * size
        return self.kind == "none" or (
            self.kind == "geotransform" and straight and self.transform.e < 0 < self.transform.a
        )


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The grid of the COGs."""

    crs: rasterio.crs.CRS | None
    transform: Affine
    width: int
    height: int
    warped: bool
    reason: str
    """Why it is warped; empty where it is not."""
    beyond_antimeridian: bool = False

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top."""
        left, top = self.transform.c, self.transform.f
        return left, top + self.height * self.transform.e, left + self.width * self.transform.a, top


def placement_of(source: DatasetReader, input_crs: str | None) -> Placement:
    """How a source is placed, with the CRS that the user gives where the file has none."""
    given = parse_crs(input_crs) if input_crs is not None else None
    points, points_crs = source.gcps
    if source.crs is None and source.transform.is_identity and points:
        return Placement(
            kind="gcps", crs=points_crs or given, transform=from_gcps(points), crs_given=points_crs is None
        )  # fmt: skip
    if source.transform.is_identity and source.crs is None and source.rpcs:
        return Placement(kind="rpcs", crs=rasterio.crs.CRS.from_epsg(4326), transform=Affine.identity())
    if source.transform.is_identity and source.crs is None and given is None:
        return Placement(kind="none", crs=None, transform=Affine.identity())
    return Placement(
        kind="geotransform",
        crs=source.crs or given,
        transform=source.transform,
        crs_given=source.crs is None and given is not None,
    )


def target_grid(source: DatasetReader, place: Placement, target_crs: str | None) -> Grid:
    """The grid of the COGs of a source.

    Raises:
        RasterRefusedError: the source has no CRS to come from, or cannot be put into that CRS.
    """
    target = place.crs if target_crs is None else parse_crs(target_crs)
    if target is not None and place.crs is None:
        raise RasterRefusedError(
            f"the raster has no CRS, so it cannot be put into {crs_name(target)}; give input_crs, or target_crs null"
        )
    moved = target is not None and place.crs is not None and not same_crs(target, place.crs)
    if not moved and place.north_up:
        # the file's own words for its CRS stay
        return Grid(crs=place.crs, transform=place.transform, width=source.width, height=source.height,
                    warped=False, reason="")  # fmt: skip
    if not moved and place.kind == "geotransform":
        return _straightened(source, place)
    reason = f"to {crs_name(target)[:60]}" if moved and target is not None else f"placed by {place.kind}"
    return _projected(source, place, target, reason)


def extent_error(source: DatasetReader, place: Placement, grid: Grid) -> float:
    """How many pixels the grid's extent and the source's outline in that CRS differ by, at the worst edge.

    0 where the source was not placed by a geotransform, or nothing finite can be said.
    """
    if place.kind != "geotransform":
        return 0.0
    found = _outline(source, place, grid.crs)
    if found is None:
        return 0.0
    xs, ys = found
    if grid.crs is not None and grid.crs.to_epsg() in _MERCATORS:
        ys = np.clip(ys, grid.bounds[1], grid.bounds[3])  # near the poles it is cut off on purpose
    period = _period(grid.crs)
    if grid.beyond_antimeridian and period:
        middle = grid.transform.c + grid.width * grid.transform.a / 2
        xs = xs - np.round((xs - middle) / period) * period
    left, bottom, right, top = grid.bounds
    width, height = abs(grid.transform.a), abs(grid.transform.e)
    return float(max(
        abs(xs.min() - left) / width, abs(xs.max() - right) / width,
        abs(ys.min() - bottom) / height, abs(ys.max() - top) / height,
    ))  # fmt: skip


def _straightened(source: DatasetReader, place: Placement) -> Grid:
    """North-up in the same CRS: the same pixels mirrored, or the envelope of a rotated raster."""
    width, height = source.width, source.height
    corners = [place.transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    left, top = min(xs), max(ys)
    across = math.hypot(place.transform.a, place.transform.d)
    down = math.hypot(place.transform.b, place.transform.e)
    straight = max(abs(place.transform.b), abs(place.transform.d)) <= _TINY * max(across, down)
    columns = width if straight else math.ceil((max(xs) - left) / across - _TINY)
    rows = height if straight else math.ceil((top - min(ys)) / down - _TINY)
    return Grid(
        crs=place.crs,
        transform=Affine(across, 0.0, left, 0.0, -down, top),
        width=columns,
        height=rows,
        warped=True,
        reason="mirrored to north-up" if straight else "turned to north-up",
    )


def _projected(source: DatasetReader, place: Placement, target: rasterio.crs.CRS | None, reason: str) -> Grid:
    where: dict[str, Any] = {}
    rows = source.height
    if place.kind == "gcps":
        where = {"gcps": source.gcps[0]}
    elif place.kind == "rpcs":
        where = {"rpcs": source.rpcs}
    else:
        own = _across_antimeridian(source, place, target, reason) or _rotated(source, place, target, reason)
        if own is not None:
            return own
        rows, where = _within_mercator(source, place, target)
    try:
        transform, width, height = calculate_default_transform(
            place.crs, target or place.crs, source.width, rows, **where
        )
    except (RasterioError, ValueError) as error:
        raise RasterRefusedError(f"the raster cannot be put into that CRS ({reason}): {reason_of(error)}") from error
    pixels = (width or 0) * (height or 0)
    if not pixels or pixels > max(_MOST_GROWTH * source.width * source.height, _NEVER_TOO_MANY):
        raise RasterRefusedError(
            f"{reason}, a raster of {source.width} by {source.height} pixels would have {width} by {height};"
            " are its CRS and its positions right?"
        )
    return Grid(crs=target, transform=transform, width=int(width), height=int(height), warped=True, reason=reason)


def _across_antimeridian(
    source: DatasetReader, place: Placement, target: rasterio.crs.CRS | None, reason: str
) -> Grid | None:
    """A grid beyond the antimeridian for a raster that crosses it; GDAL's would go around the Earth."""
    period = _period(target)
    found = _outline(source, place, target) if period else None
    if found is None or period is None:
        return None
    xs, ys = found
    turned = np.sort(np.mod(xs, period))
    gaps = np.diff(np.append(turned, turned[0] + period))
    widest = int(np.argmax(gaps))
    if xs.max() - xs.min() <= period / 2 or gaps[widest] <= period / 2:
        return None
    start = turned[(widest + 1) % turned.size]
    xs = np.mod(xs - start, period) + start
    if start + 0.5 * (xs.max() - xs.min()) > period / 2 + _TINY * period and start >= period / 2:
        xs = xs - period  # the part west of 180° decides only if it is the smaller one
        start -= period
    return _around(source, xs, ys, target, reason=reason, beyond_antimeridian=True)


def _rotated(source: DatasetReader, place: Placement, target: rasterio.crs.CRS | None, reason: str) -> Grid | None:
    """A grid around a rotated or sheared raster, which GDAL's rule takes by its corner only."""
    size = max(abs(place.transform.a), abs(place.transform.e))
    if max(abs(place.transform.b), abs(place.transform.d)) <= _TINY * size:
        return None
    found = _outline(source, place, target)
    if found is None:
        raise RasterRefusedError(f"parts of the rotated raster have no place in that CRS ({reason})")
    return _around(source, *found, target, reason=reason)


def _around(
    source: DatasetReader,
    xs: Values,
    ys: Values,
    target: rasterio.crs.CRS | None,
    *,
    reason: str,
    beyond_antimeridian: bool = False,
) -> Grid:
    """A grid of square pixels around points, as many along its diagonal as the source has: GDAL's rule."""
    left, right, bottom, top = float(xs.min()), float(xs.max()), float(ys.min()), float(ys.max())
    size = math.hypot(right - left, top - bottom) / math.hypot(source.width, source.height)
    return Grid(
        crs=target,
        transform=Affine(size, 0.0, left, 0.0, -size, top),
        width=max(1, math.ceil((right - left) / size - _ROUNDING)),
        height=max(1, math.ceil((top - bottom) / size - _ROUNDING)),
        warped=True,
        reason=reason,
        beyond_antimeridian=beyond_antimeridian,
    )


def _within_mercator(
    source: DatasetReader, place: Placement, target: rasterio.crs.CRS | None
) -> tuple[int, dict[str, float]]:
    """Rows and bounds the grid is made for: Mercator has no poles, and near them no end of pixels."""
    t = place.transform
    top, bottom = t.f, t.f + source.height * t.e
    edges = {"left": t.c, "bottom": bottom, "right": t.c + source.width * t.a, "top": top}
    mercator = target is not None and target.to_epsg() in _MERCATORS
    if not mercator or place.crs is None or not place.crs.is_geographic:
        return source.height, edges
    edges["top"], edges["bottom"] = (min(max(y, -_MERCATOR_LATITUDE), _MERCATOR_LATITUDE) for y in (top, bottom))
    rows = round(source.height * (edges["top"] - edges["bottom"]) / (top - bottom))
    if rows < 1:
        raise RasterRefusedError("the raster lies too near a pole for Mercator; choose another target_crs")
    return rows, edges


def _period(crs: rasterio.crs.CRS | None) -> float | None:
    """After how many units eastings come round again, where they do."""
    if crs is None:
        return None
    if crs.is_geographic:
        return 360.0
    return _WORLD_MERCATOR if crs.to_epsg() == 3857 else None  # noqa: PLR2004 - web Mercator


def _outline(source: DatasetReader, place: Placement, target: rasterio.crs.CRS | None) -> tuple[Values, Values] | None:
    """Points all over the source, edges too, in another CRS; ``None`` unless all of them have a place there."""
    columns, rows = np.meshgrid(np.linspace(0, source.width, _SAMPLES), np.linspace(0, source.height, _SAMPLES))
    a = place.transform
    xs = a.a * columns.ravel() + a.b * rows.ravel() + a.c
    ys = a.d * columns.ravel() + a.e * rows.ravel() + a.f
    if target is not None and place.crs is not None and target != place.crs:
        try:
            # pyproj says "infinite" of a point that has no place, where GDAL gives up on all of them
            xs, ys = transformer(place.crs, target).transform(xs, ys)
        except (CRSError, ProjError):
            return None
    return (xs, ys) if bool(np.isfinite(xs).all() and np.isfinite(ys).all()) else None


def transformer(source: rasterio.crs.CRS, target: rasterio.crs.CRS) -> pyproj.Transformer:
    """From one CRS to another, in the order east, north."""
    return _transformer(source.to_wkt(), target.to_wkt())


@lru_cache(maxsize=64)  # making one takes a millisecond, a tenth of what a small COG takes
def _transformer(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(pyproj.CRS.from_wkt(source), pyproj.CRS.from_wkt(target), always_xy=True)
