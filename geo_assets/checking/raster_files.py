"""A published COG as a local file: whole, and like its source.

What belongs here: what the sandbox runs for the checks of rasters.  What does not: fetching the files and judging
versions (``rasters``).

**To be called in a worker process**: plain values and local paths in, plain values out.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geo_assets.errors import CogProofError, ParameterError, RasterRefusedError, RasterUnreadableError
from geo_assets.raster.cog_grid import Grid, Placement, placement_of, target_grid, transformer
from geo_assets.raster.cog_proof import lossy_bound, read_whole
from geo_assets.raster.crs import crs_name, same_crs
from geo_assets.raster.open import RasterBudget, open_raster, reason_of

__all__ = ["compare_task", "read_cog_task"]

Values = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

_EDGE: Final = 1.5
"""Pixels by which edges may differ: another version of PROJ rounds otherwise."""
_SIDE: Final = 12
"""Points are looked at on a grid of so many by so many, or as many blocks as that comes to."""
_WINDOWS: Final = 16
_WINDOW: Final = 256
_BANDS: Final = 4
_TOLERATED: Final = 0.05
"""Share of points that may differ where pixels were moved: an edge of the source is not where one expects it."""
_FAULTS = (CogProofError, RasterRefusedError, RasterUnreadableError, RasterioError, CPLE_BaseError, ParameterError)


def read_cog_task(params: dict[str, Any]) -> dict[str, Any]:
    """Check the structure of a COG and decode every block of every level.

    Args:
        params: ``path`` (absolute, of a private copy), ``name`` and ``budget`` (:meth:`RasterBudget.as_dict`).

    Returns:
        ``success`` true with ``blocks`` and ``levels`` as ``result``; or false with the ``message``.
    """
    path = Path(params["path"])
    try:
        with open_raster(path, budget=RasterBudget(**params["budget"]), name=params["name"]) as dataset:
            if dataset.driver != "GTiff":
                return _verdict(f"it is a {dataset.driver} file, no COG")
            levels = len(dataset.overviews(1)) + 1
            blocks = read_whole(path)
    except _FAULTS as error:
        return _verdict(_words(error, path))
    return {"success": True, "result": {"blocks": blocks, "levels": levels}}


def compare_task(params: dict[str, Any]) -> dict[str, Any]:
    """Compare a COG with the raster it was made of.

    Args:
        params: ``source``, ``cog`` (absolute paths of private copies), ``name`` (of the source) and ``budget``;
            ``input_crs`` and ``target_crs`` of the job, and of the tier: ``nodata``, ``quality``.

    Returns:
        ``success`` true with ``compared`` (in words) and ``count`` as ``result``; or false with the ``message``.
    """
    source_path, cog_path = Path(params["source"]), Path(params["cog"])
    budget = RasterBudget(**params["budget"])
    try:
        with (
            open_raster(source_path, budget=budget, name=params["name"]) as source,
            open_raster(cog_path, budget=budget) as cog,
        ):
            pair = _Pair.of(source, cog, params)
            problem = _header_problem(pair)
            if problem is not None:
                return _verdict(problem)
            found = _pixels_agree(pair)
    except _FAULTS as error:
        return _verdict(_words(error, source_path, cog_path))
    return _verdict(found.problem) if found.problem else {"success": True, "result": found.as_dict()}


def _verdict(message: str) -> dict[str, Any]:
    return {"success": False, "outcome": "invalid", "error": "CHECK_FAILED", "message": message, "reason": message}


def _words(error: BaseException, *paths: Path) -> str:
    message = str(error) if not isinstance(error, RasterioError | CPLE_BaseError) else reason_of(error)
    for path in paths:
        message = message.replace(str(path), "the file")
    return message.replace("the COG just written", "the COG").replace("what was written is", "it is")


# --- source and COG ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Pair:
    source: DatasetReader
    cog: DatasetReader
    place: Placement
    grid: Grid
    nodata: float | None
    quality: int | None
    """Of a lossy tier."""

    @classmethod
    def of(cls, source: DatasetReader, cog: DatasetReader, params: Mapping[str, Any]) -> "_Pair":
        place = placement_of(source, params["input_crs"] if source.crs is None else None)
        grid = target_grid(source, place, params["target_crs"])
        nodata = params["nodata"]
        return cls(
            source=source, cog=cog, place=place, grid=grid,
            nodata=None if nodata is None else float(nodata), quality=params["quality"],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Compared:
    problem: str = ""
    compared: str = ""
    count: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"compared": self.compared, "count": self.count}


def _header_problem(pair: _Pair) -> str | None:
    """What the headers say against each other; ``None`` where they agree."""
    return _place_problem(pair) or _values_problem(pair)


def _place_problem(pair: _Pair) -> str | None:
    source, cog, grid = pair.source, pair.cog, pair.grid
    slack = 1 if grid.warped else 0
    if abs(cog.width - grid.width) > slack or abs(cog.height - grid.height) > slack:
        return (
            f"the COG has {cog.width} x {cog.height} pixels; of the source's {source.width} x {source.height} come"
            f" {grid.width} x {grid.height}"
        )
    if (cog.crs is None) != (grid.crs is None) or (cog.crs and grid.crs and not same_crs(cog.crs, grid.crs)):
        have, want = ("none" if crs is None else crs_name(crs)[:80] for crs in (cog.crs, grid.crs))
        return f"the COG's CRS is {have}; the source's would be {want}"
    across, down = abs(grid.transform.a), abs(grid.transform.e)
    edges = (cog.bounds.left, cog.bounds.bottom, cog.bounds.right, cog.bounds.top)
    if cog.crs is None and cog.transform.is_identity:
        return None
    off = [abs(one - other) for one, other in zip(edges, grid.bounds, strict=True)]
    if max(off[0] / across, off[2] / across, off[1] / down, off[3] / down) > _EDGE:
        return f"the COG's bounds are {_box(edges)}; of the source come {_box(grid.bounds)}"
    return None


def _values_problem(pair: _Pair) -> str | None:
    source, cog = pair.source, pair.cog
    alpha = ColorInterp.alpha in source.colorinterp
    # an alpha band becomes a mask where the codec cannot hold it
    counts = {source.count, source.count - 1} if alpha and pair.quality is not None else {source.count}
    if cog.count not in counts:
        return f"the COG has {cog.count} bands, the source {source.count}"
    kinds = {_numpy_name(kind) for kind in source.dtypes}
    widest = str(np.result_type(*kinds))
    if cog.dtypes[0] not in {*source.dtypes, widest, "float32" if widest == "float16" else widest}:
        return f"the COG's pixels are {cog.dtypes[0]}, the source's {source.dtypes[0]}"
    if not _same_number(cog.nodata, pair.nodata):
        return f"the COG's nodata value is {cog.nodata}; the job recorded {pair.nodata}"
    both = cog.nodata is not None and source.nodata is not None
    if both and not _same_number(cog.nodata, source.nodata):
        return f"the COG's nodata value is {cog.nodata}, the source's {source.nodata}"
    return None


def _box(edges: Any) -> str:
    return ", ".join(f"{edge:.10g}" for edge in edges)


def _same_number(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-6)


def _numpy_name(kind: str) -> str:
    return "complex64" if kind == "complex_int16" else kind


# --- pixels ------------------------------------------------------------------------------------------------------


def _pixels_agree(pair: _Pair) -> _Compared:
    if np.dtype(_numpy_name(pair.source.dtypes[0])).kind == "c" and pair.grid.warped:
        return _Compared(compared="headers only: its pixels are complex numbers and were moved")
    if not pair.grid.warped:
        return _windows_agree(pair)
    if pair.place.kind != "geotransform":
        return _ranges_agree(pair)
    return _points_agree(pair)


def _windows_agree(pair: _Pair) -> _Compared:
    """Pixels that stayed where they are: windows spread over the raster, value by value."""
    source, cog = pair.source, pair.cog
    bands = list(range(1, cog.count + 1))
    compared = 0
    for window in _spread(cog):
        wanted, found = source.read(bands, window=window), cog.read(bands, window=window)
        compared += found.size
        if pair.quality is None:
            equal = _equal(found, wanted)
        else:
            valid = source.dataset_mask(window=window) > 0
            difference = (found.astype(np.float64) - wanted)[:, valid]
            off = float(np.sqrt(np.mean(np.square(difference)))) if difference.size else 0.0
            equal = off <= 2 * lossy_bound(pair.quality)  # of one window; the bound is one of all pixels
        if not equal:
            return _Compared(problem=f"pixels differ from the source's around column {window.col_off}, row"
                                     f" {window.row_off}")  # fmt: skip
    whole = compared == cog.width * cog.height * cog.count
    return _Compared(compared="all pixels" if whole else f"{compared:,} pixels in windows all over it", count=compared)


def _spread(dataset: DatasetReader) -> Iterator[Window]:
    columns, rows = -(-dataset.width // _WINDOW), -(-dataset.height // _WINDOW)
    total = columns * rows
    for number in sorted({round(at) for at in np.linspace(0, total - 1, min(_WINDOWS, total))}):
        column, row = number % columns * _WINDOW, number // columns * _WINDOW
        width, height = min(_WINDOW, dataset.width - column), min(_WINDOW, dataset.height - row)
        yield Window(column, row, width, height)  # type: ignore[call-arg, unused-ignore]


def _equal(one: Values, other: Values) -> bool:
    if np.array_equal(one, other):
        return True
    return one.dtype.kind in "fc" and bool(np.array_equal(one, other, equal_nan=True))


def _points_agree(pair: _Pair) -> _Compared:
    """Pixels that were moved: points of the COG, each within the values around its place in the source."""
    columns, rows, lefts, tops = _places(pair)
    step = _step(pair)
    good = bad = 0
    example = ""
    bands = _some_bands(pair.cog.count)
    for column, row, left, top in zip(columns, rows, lefts, tops, strict=True):
        verdict = _point_agrees(pair, bands, (int(column), int(row)), (float(left), float(top)), step)
        if verdict is None:
            continue
        good += verdict
        bad += not verdict
        example = example or ("" if verdict else f"column {column}, row {row}")
    looked = good + bad
    if bad > max(1, math.ceil(_TOLERATED * looked)):
        return _Compared(problem=f"{bad} of {looked} points differ from the source, the first at {example} of the COG")
    if not looked:
        return _Compared(compared="headers only: none of the points looked at has a value")
    shown = "" if len(bands) == pair.cog.count else f" in {len(bands)} of {pair.cog.count} bands"
    return _Compared(compared=f"{looked} points{shown}", count=looked)


def _some_bands(count: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(1, count, min(_BANDS, count))})


def _places(pair: _Pair) -> tuple[Floats, Floats, Floats, Floats]:
    """Columns and rows of points in the COG, and the fractional ones of the same places in the source."""
    cog = pair.cog
    columns, rows = (one.ravel() for one in np.meshgrid(_evenly(cog.width), _evenly(cog.height)))
    lefts, tops = _in_source(pair, columns + 0.5, rows + 0.5)
    return columns, rows, lefts, tops


def _evenly(size: int) -> Floats:
    """Some numbers from 0 to ``size - 1``, none of them at an end where there are others."""
    return np.unique(np.linspace(0, size - 1, _SIDE + 2)[1:-1].round()) if size > _SIDE else np.arange(float(size))


def _in_source(pair: _Pair, columns: Floats, rows: Floats) -> tuple[Floats, Floats]:
    """Fractional columns and rows of the source at these of the COG; NaN where there is no such place."""
    t = pair.cog.transform
    xs, ys = t.a * columns + t.c, t.e * rows + t.f
    if pair.grid.crs is not None and pair.place.crs is not None and not same_crs(pair.grid.crs, pair.place.crs):
        try:
            xs, ys = transformer(pair.grid.crs, pair.place.crs).transform(xs, ys)
        except (CRSError, ProjError):
            return np.full_like(xs, np.nan), np.full_like(ys, np.nan)
    back = ~pair.place.transform
    lefts, tops = back.a * xs + back.b * ys + back.c, back.d * xs + back.e * ys + back.f
    infinite = ~(np.isfinite(lefts) & np.isfinite(tops))
    lefts[infinite] = tops[infinite] = np.nan
    return lefts, tops


def _step(pair: _Pair) -> int:
    """How many source pixels around a place may have made a pixel of the COG."""
    ratio: float = max(pair.source.width / pair.cog.width, pair.source.height / pair.cog.height, 1.0)
    return math.ceil(2 * ratio) + 1


def _point_agrees(
    pair: _Pair, bands: list[int], pixel: tuple[int, int], place: tuple[float, float], step: int
) -> bool | None:
    """Whether a pixel's values lie within those around its place; ``None``: nothing can be said."""
    if not all(math.isfinite(one) for one in place):
        return None
    here = Window(*pixel, 1, 1)  # type: ignore[call-arg, unused-ignore]
    left, top = max(0, math.floor(place[0]) - step), max(0, math.floor(place[1]) - step)
    right = min(pair.source.width, math.floor(place[0]) + step + 1)
    bottom = min(pair.source.height, math.floor(place[1]) + step + 1)
    if right <= left or bottom <= top:
        return None
    around = Window(left, top, right - left, bottom - top)  # type: ignore[call-arg, unused-ignore]
    near = pair.source.read(bands, window=around).astype(np.float64)
    found = pair.cog.read(bands, window=here)[:, 0, 0].astype(np.float64)
    # NaN and infinity are no values, whether they were declared so or not
    valid = (pair.source.dataset_mask(window=around) > 0) & np.isfinite(near).all(axis=0)
    has_value = bool(pair.cog.dataset_mask(window=here)[0, 0]) and bool(np.isfinite(found).all())
    if not has_value:
        # at an edge it may have none; in the middle of values a hole is a difference
        return False if valid.all() else None
    if not valid.any():
        return False
    low, high = near[:, valid].min(axis=1), near[:, valid].max(axis=1)
    # cubic kernels shoot over by a share of the step
    slack = 0.5 * (high - low) + 1e-6 * np.maximum(np.abs(low), np.abs(high)) + _noise(pair)
    return bool(np.all((found >= low - slack) & (found <= high + slack)))


def _noise(pair: _Pair) -> float:
    whole = 1.0 if np.dtype(pair.cog.dtypes[0]).kind in "iu" else 0.0  # rounded to whole numbers
    return whole + (0.0 if pair.quality is None else 4 * lossy_bound(pair.quality))


def _ranges_agree(pair: _Pair) -> _Compared:
    """Pixels placed by control points: the range of each band's values."""
    for band in _some_bands(pair.cog.count):
        shape = (min(512, pair.source.height), min(512, pair.source.width))
        wanted = pair.source.read(band, masked=True, out_shape=shape)
        found = pair.cog.read(band, masked=True, out_shape=(min(512, pair.cog.height), min(512, pair.cog.width)))
        if not wanted.count() or not found.count():
            continue
        low, high = float(wanted.min()), float(wanted.max())
        slack = 0.5 * (high - low) + _noise(pair)
        if float(found.min()) < low - slack or float(found.max()) > high + slack:
            return _Compared(problem=f"band {band} of the COG goes from {found.min()} to {found.max()}, that of the"
                                     f" source from {low:g} to {high:g}")  # fmt: skip
    return _Compared(compared="the range of values (its pixels are placed by control points)")
