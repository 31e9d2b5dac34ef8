"""Cloud Optimized GeoTIFFs from one raster: decoded and warped once, encoded once a tier, proven before given away.

What belongs here: the order of the work, the disk it needs, and the engine that moves pixels.  What does not: codecs
and what a user may choose (``cog_settings``), the target grid (``cog_grid``), the proof (``cog_proof``), blobs and
workflows.

**To be called in a worker process** (see the package's docstring): plain values and local paths in, plain values out.

The way: open the source through the one door → choose grid, codecs, resamplings → check the disk → the engine brings
the pixels onto the grid once, in a tiled scratch file with its overviews → each tier is encoded from it and proven.
With one tier and nothing to change about the pixels, the tier is encoded straight from the source.

An engine is a :class:`CogEngine`: whatever gives the pixels on the grid and writes tiers from them.  All that is
promised about a COG is checked outside of it.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.crs
import rasterio.shutil
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.warp import reproject
from rasterio.windows import Window

from geo_assets.errors import (
    CogProofError,
    DiskFullError,
    ParameterError,
    RasterRefusedError,
    RasterUnreadableError,
)
from geo_assets.raster.cog_grid import Grid, Placement, extent_error, placement_of, target_grid, transformer
from geo_assets.raster.cog_levels import build_levels, level_count, levels_suit, open_with_levels, remove_levels
from geo_assets.raster.cog_proof import LossyBoundError, Proof, has_mask, prove, require_meanings
from geo_assets.raster.cog_settings import (
    CogRequest,
    Encoding,
    PixelKind,
    check_overrides,
    encoding_for,
    lossless_instead,
    resamplings_for,
)
from geo_assets.raster.crs import crs_name
from geo_assets.raster.open import HARDENED, RasterBudget, open_raster, reason_of
from geo_assets.raster.statistics import BandAccumulator
from geo_assets.settings import Settings

__all__ = [
    "CogEngine",
    "CogJob",
    "GdalEngine",
    "Pixels",
    "Resources",
    "disk_needed",
    "gdal_options",
    "make_cogs",
    "make_cogs_task",
]

_MIB: Final = 1024 * 1024
_PIECE_BYTES: Final = 24 * _MIB
_STATISTICS_SIZE: Final = 1024
_SMALL_BYTES: Final = 8 * _MIB
"""Unpacked, up to which starting threads costs more than they save when other workers want the cores, too."""
_EXTENT_TOLERANCE: Final = 2.5
"""Pixels; GDAL rounds the grid of a reprojection to whole pixels of its own size."""
_PLACEHOLDER_CRS: Final = 3857
"""What a raster without CRS is called while it is turned within its own coordinates."""


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What an engine may use."""

    threads: int
    cache_mb: int
    """GDAL's block cache."""
    warp_mb: int
    """The warper's buffers."""


@dataclass(frozen=True, kw_only=True)
class CogJob:
    """What an engine is given: a source, where its pixels go, and how tiers are to be made of them."""

    source: DatasetReader
    place: Placement
    grid: Grid
    kind: PixelKind
    tiers: tuple[Encoding, ...]
    overview_resampling: str
    reproject_resampling: str
    blocksize: int
    folder: Path
    """For scratch files; the engine removes its own."""
    resources: Resources
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds by step; the engine adds its steps."""
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add the time of a step."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.timings[step] = round(self.timings.get(step, 0.0) + time.perf_counter() - start, 4)


class Pixels(Protocol):
    """A source's pixels on the target grid, decoded and warped once."""

    def reference(self) -> AbstractContextManager[DatasetReader]:
        """The pixels as a dataset, as the last written tier must hold them."""
        ...

    def write(self, encoding: Encoding, path: Path) -> None:
        """Write one tier. Lossless tiers come first."""
        ...


class CogEngine(Protocol):
    """What moves pixels."""

    name: str

    def pixels(self, job: CogJob) -> AbstractContextManager[Pixels]:
        """Bring the source's pixels onto the grid."""
        ...


# --- the work --------------------------------------------------------------------------------------------------


def make_cogs(params: Mapping[str, Any], *, engine: CogEngine | None = None) -> dict[str, Any]:
    """Make the COGs of one local raster, prove them, and leave them in the scratch folder.

    Args:
        params: ``source`` (absolute path of a private copy) and ``scratch`` (absolute path of a folder); optional
            ``driver`` (which the file must turn out to be), ``name`` (of the blob), ``budget``
            (:meth:`RasterBudget.as_dict`), ``input_crs``, what :func:`check_overrides` checks (``tiers``,
            ``target_crs``, ``raster_type``, ``compression``, ``quality``, ``overview_resampling``,
            ``reproject_resampling``, ``blocksize``), and ``threads`` (default: the cores, but 1 for a small raster),
            ``cache_mb``, ``warp_mb``, ``disk_reserve_mb``.
        engine: what moves pixels; GDAL by default.

    Returns:
        Facts of the grid and, by tier, of each COG: path, size, SHA-256, codec, overviews, proof, timings.

    Raises:
        ParameterError: a parameter is not usable; lists the choices.
        RasterRefusedError, RasterUnreadableError: the source's own fault.
        DiskFullError: the scratch folder's disk has not enough room.
        CogProofError: what was written is not what it must be; nothing of it is left.
    """
    started = time.perf_counter()
    request = check_overrides(params)
    settings = _Work.from_params(params)
    made: list[Path] = []
    try:
        with open_raster(settings.source, budget=settings.budget, name=settings.name) as source, settings.env(source):
            settings.check_driver(source)
            facts = _make(source, request, settings, engine or GdalEngine(), made)
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    facts["timings"]["total"] = round(time.perf_counter() - started, 4)
    return facts


def make_cogs_task(params: dict[str, Any]) -> dict[str, Any]:
    """:func:`make_cogs` as a task's function: the source's own faults are an *invalid* answer, not an exception."""
    try:
        return {"success": True, "result": make_cogs(params)}
    except RasterRefusedError as error:
        code = "CRS_CHECK_FAILED"
        failure: Exception = error
    except RasterUnreadableError as error:
        code, failure = "FILE_UNREADABLE", error
    except ParameterError as error:
        code, failure = "PARAMETER_ERROR", error
    return {"success": False, "error": code, "message": str(failure), "outcome": "invalid", "reason": str(failure)}


def disk_needed(grid: Grid, kind: PixelKind, tiers: Sequence[Encoding], *, scratch: bool) -> int:
    """Bytes the work may need at the worst, scratch files and tiers together."""
    pixels = grid.width * grid.height
    raw = pixels * kind.bands * np.dtype(_numpy_name(kind.dtype)).itemsize
    with_overviews = raw * 4 // 3
    working = with_overviews + pixels // 4 if scratch else raw // 3
    # what cannot be compressed grows a little; a lossy tier may have to give way to a lossless one
    return working + len(tiers) * (with_overviews * 21 // 20 + pixels // 8) + _MIB


@dataclass(frozen=True, kw_only=True)
class _Work:
    source: Path
    scratch: Path
    driver: str | None
    name: str
    budget: RasterBudget
    input_crs: str | None
    threads: int | None
    cache_mb: int
    warp_mb: int
    disk_reserve: int

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "_Work":
        for name in ("source", "scratch"):
            if not params.get(name):
                raise ParameterError(f"{name} must be an absolute path; it is missing")
        budget = params.get("budget")
        return cls(
            source=Path(params["source"]),
            scratch=Path(params["scratch"]),
            driver=params.get("driver"),
            name=str(params.get("name") or ""),
            budget=RasterBudget(**budget) if budget else RasterBudget.from_settings(Settings.model_construct()),
            input_crs=params.get("input_crs"),
            threads=int(params["threads"]) if params.get("threads") else None,
            cache_mb=int(params.get("cache_mb") or 64),
            warp_mb=int(params.get("warp_mb") or 32),
            disk_reserve=int(params.get("disk_reserve_mb") or 0) * _MIB,
        )

    def resources(self, source: DatasetReader) -> Resources:
        """All cores for one raster; but one for a small one, as there are as many workers as cores."""
        unpacked = source.width * source.height * sum(np.dtype(_numpy_name(kind)).itemsize for kind in source.dtypes)
        threads = 1 if unpacked <= _SMALL_BYTES else len(os.sched_getaffinity(0))
        return Resources(threads=self.threads or threads, cache_mb=self.cache_mb, warp_mb=self.warp_mb)

    def env(self, source: DatasetReader) -> rasterio.Env:
        return rasterio.Env(**gdal_options(self.resources(source)))

    def check_driver(self, source: DatasetReader) -> None:
        if self.driver is not None and source.driver != self.driver:
            raise RasterRefusedError(f"the file is {source.driver}, not {self.driver} as it was validated")


def gdal_options(resources: Resources) -> dict[str, Any]:
    """GDAL's options for the work, for ``rasterio.Env``."""
    return {
        "GDAL_CACHEMAX": resources.cache_mb * _MIB,  # rasterio hands the number on as bytes
        "GDAL_NUM_THREADS": str(resources.threads),
        "GDAL_TIFF_INTERNAL_MASK": True,
        "GDAL_TIFF_OVR_BLOCKSIZE": "512",
        "GDAL_OVR_CHUNK_MAX_SIZE": str(_MIB),  # fits a core's cache: masked cubic overviews take a sixth less CPU
    }


def _make(
    source: DatasetReader, request: CogRequest, work: _Work, engine: CogEngine, made: list[Path]
) -> dict[str, Any]:
    place = placement_of(source, work.input_crs)
    grid = target_grid(source, place, request.target_crs)
    kind = _kind(source, request.raster_type)
    tiers = tuple(encoding_for(tier, request, kind) for tier in request.tiers)
    overviews, warping, notes = resamplings_for(request, kind)
    job = CogJob(
        source=source, place=place, grid=grid, kind=kind, tiers=tiers, overview_resampling=overviews,
        reproject_resampling=warping, blocksize=request.blocksize, folder=work.scratch,
        resources=work.resources(source), notes=list(notes),
    )  # fmt: skip
    _check_extent(job)
    _check_disk(job, work)
    facts: dict[str, dict[str, Any]] = {}
    with engine.pixels(job) as pixels:
        statistics: list[dict[str, Any]] = []
        for encoding in sorted(tiers, key=lambda tier: not tier.lossless):
            facts[encoding.tier] = _tier(pixels, encoding, job, made)
            if not statistics:
                with job.timed("statistics"), pixels.reference() as reference:
                    _check_colors(job, reference)
                    statistics = _statistics(reference)
    return {
        **_facts_of(job),
        "engine": engine.name,
        "threads": job.resources.threads,
        "statistics": statistics,
        "tiers": {tier: facts[tier] for tier in request.tiers},
        "timings": job.timings,
        "notes": job.notes,
    }


def _tier(pixels: Pixels, encoding: Encoding, job: CogJob, made: list[Path]) -> dict[str, Any]:
    path = job.folder / f"{encoding.tier}.tif"
    path.unlink(missing_ok=True)
    made.append(path)
    before = dict(job.timings)
    try:
        proof = _written(pixels, encoding, job, path)
    except LossyBoundError as error:
        path.unlink()
        encoding = lossless_instead(encoding, job.kind, str(error))
        proof = _written(pixels, encoding, job, path)
    return {
        "path": os.fspath(path),
        "size": proof.size,
        "sha256": proof.sha256,
        "compression": encoding.compression,
        "level": encoding.level,
        "predictor": encoding.predictor,
        "quality": encoding.quality,
        "lossless": encoding.lossless,
        "blocksize": [job.blocksize, job.blocksize],
        "overviews": list(proof.overviews),
        "overview_resampling": job.overview_resampling,
        "nodata": _json_number(proof.nodata),
        "validity": proof.validity,
        "proof": proof.as_dict(),
        "notes": list(encoding.notes),
        "timings": {
            step: round(job.timings[step] - before.get(step, 0.0), 4)
            for step in ("encode", "proof")
            if step in job.timings
        },
    }


def _written(pixels: Pixels, encoding: Encoding, job: CogJob, path: Path) -> Proof:
    with job.timed("encode"):
        pixels.write(encoding, path)
    with job.timed("proof"), pixels.reference() as reference:
        return prove(
            path, reference, grid=job.grid, encoding=encoding, blocksize=job.blocksize, threads=job.resources.threads
        )


def _check_colors(job: CogJob, reference: DatasetReader) -> None:
    require_meanings(job.source.colorinterp, reference.colorinterp, where="the source")


def _check_extent(job: CogJob) -> None:
    error = extent_error(job.source, job.place, job.grid)
    # a raster whose outline is no smooth curve in the new CRS has no extent to compare (poles, the Earth's edge)
    if job.grid.warped and error > _EXTENT_TOLERANCE and job.grid.crs == job.place.crs:
        raise CogProofError(f"the COG's extent would differ from the source's by {error:.1f} pixels")
    if job.grid.warped and error > _EXTENT_TOLERANCE:
        job.notes.append(f"the extent differs from the outline of the source by {error:.1f} pixels")


def _check_disk(job: CogJob, work: _Work) -> None:
    needed = disk_needed(job.grid, job.kind, job.tiers, scratch=_needs_scratch(job))
    free = shutil.disk_usage(work.scratch).free - work.disk_reserve
    if needed > free:
        raise DiskFullError(
            f"making {len(job.tiers)} COGs of {job.grid.width} by {job.grid.height} pixels may need"
            f" {needed / _MIB:,.0f} MiB of temporary files, and {max(free, 0) / _MIB:,.0f} MiB are free; give the"
            " scratch folder more room, or make fewer tiers in one job"
        )


def _facts_of(job: CogJob) -> dict[str, Any]:
    grid, place = job.grid, job.place
    crs = None if grid.crs is None else crs_name(grid.crs)
    return {
        "source_crs": None if place.crs is None else crs_name(place.crs),
        "target_crs": crs,
        "reprojection_performed": grid.warped,
        "reprojection": grid.reason or None,
        "reproject_resampling": _warp_resampling(job) if grid.warped else None,
        "overview_resampling": job.overview_resampling,
        "beyond_antimeridian": grid.beyond_antimeridian,
        "bounds": list(grid.bounds),
        "bounds_4326": _bounds_4326(grid),
        "transform": list(grid.transform)[:6],
        "shape": [grid.height, grid.width],
        "bands": job.kind.bands,
        "dtype": job.kind.dtype,
    }


def _bounds_4326(grid: Grid) -> list[float] | None:
    """West, south, east, north; west greater than east where the antimeridian is crossed."""
    if grid.crs is None:
        return None
    try:
        found = transformer(grid.crs, rasterio.crs.CRS.from_epsg(4326)).transform_bounds(*grid.bounds)
    except (CRSError, ProjError):
        return None
    if not all(math.isfinite(value) for value in found):
        return None
    west, south, east, north = found
    if grid.beyond_antimeridian:
        west, east = (west + 180) % 360 - 180, (east + 180) % 360 - 180
    return [west, south, east, north]


def _kind(source: DatasetReader, raster_type: str) -> PixelKind:
    alphas = [index for index, color in enumerate(source.colorinterp) if color is ColorInterp.alpha]
    bits = source.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")
    dtypes = set(source.dtypes)
    dtype = source.dtypes[0] if len(dtypes) == 1 else str(np.result_type(*(_numpy_name(kind) for kind in dtypes)))
    return PixelKind(
        dtype="float32" if dtype == "float16" else dtype,  # no COG of 16-bit floats can be written
        bands=source.count,
        alpha=len(alphas) == 1 and alphas[0] == source.count - 1 and source.count > 1,
        palette=ColorInterp.palette in source.colorinterp,
        classes=raster_type == "categorical",
        bits=int(bits) if bits and bits.isdigit() else None,
    )


def _statistics(reference: DatasetReader) -> list[dict[str, Any]]:
    """Of an overview of about a thousand pixels a side: what a catalogue shows, not what science computes with."""
    factor = max(1.0, max(reference.width, reference.height) / _STATISTICS_SIZE)
    shape = (max(1, round(reference.height / factor)), max(1, round(reference.width / factor)))
    found = []
    for index, kind, color in zip(reference.indexes, reference.dtypes, reference.colorinterp, strict=True):
        values = reference.read(index, out_shape=shape)
        mask = None if color is ColorInterp.alpha else reference.read_masks(index, out_shape=shape) > 0
        band = BandAccumulator(_numpy_name(kind), shape[0] * shape[1], neighbours=False)
        band.add(values, mask)
        found.append({**band.result().as_dict(), "approximate": factor > 1})
    return found


# --- GDAL ------------------------------------------------------------------------------------------------------


class GdalEngine:
    """Warps in pieces with GDAL's threaded warper into a tiled scratch file, then one run of its COG driver a tier."""

    name = "gdal"

    @contextmanager
    def pixels(self, job: CogJob) -> Iterator[Pixels]:
        """See :class:`CogEngine`."""
        scratch = job.folder / "pixels.scratch.tif"
        scratch.unlink(missing_ok=True)  # what a killed run left may be a link to the source
        try:
            if _needs_scratch(job):
                with _raster_errors("bringing the pixels onto the grid"):
                    _fill_scratch(job, scratch)
                yield _ScratchPixels(job, scratch)
                return
            if _takes_levels(job):
                with _raster_errors("making overviews"):
                    scratch.symlink_to(job.source.name)
                    _build_overviews(job, scratch)
            yield _SourcePixels(job, scratch if scratch.is_symlink() else None)
        finally:
            remove_levels(scratch)
            scratch.unlink(missing_ok=True)


def _takes_levels(job: CogJob) -> bool:
    """Whether levels can be put beside the source, so that GDAL need not make overviews in a file of its own."""
    source = job.source
    return (
        source.driver == "GTiff"
        and list(source.files) == [source.name]
        and not source.overviews(1)
        and level_count(source.width, source.height, job.blocksize) > 0
        and levels_suit(source, job.overview_resampling)
    )


def _needs_scratch(job: CogJob) -> bool:
    source = job.source
    lossy = any(not tier.lossless for tier in job.tiers)
    return (
        job.grid.warped
        or len(job.tiers) > 1
        or (lossy and source.nodata is not None)
        or job.place.crs_given
        or any(kind != job.kind.dtype for kind in source.dtypes)
    )


class _SourcePixels:
    """The source itself, where its pixels stay as and where they are."""

    def __init__(self, job: CogJob, linked: Path | None) -> None:
        self._job = job
        self._linked = linked
        """The source under another name, with levels beside it."""

    @contextmanager
    def reference(self) -> Iterator[DatasetReader]:
        yield self._job.source

    def write(self, encoding: Encoding, path: Path) -> None:
        with _raster_errors(f"encoding the {encoding.tier} tier"):
            if self._linked is None:
                _encode(self._job, self._job.source, encoding, path, overviews="IGNORE_EXISTING")
                return
            with open_with_levels(self._linked) as pixels:
                _encode(self._job, pixels, encoding, path, overviews="AUTO")


class _ScratchPixels:
    """A tiled, uncompressed file with the pixels on the grid, and their overviews in it or beside it."""

    def __init__(self, job: CogJob, path: Path) -> None:
        self._job = job
        self._path = path

    @contextmanager
    def reference(self) -> Iterator[DatasetReader]:
        with open_with_levels(self._path) as dataset:
            yield dataset

    def write(self, encoding: Encoding, path: Path) -> None:
        with _raster_errors(f"encoding the {encoding.tier} tier"):
            if not encoding.lossless:
                self._mask_instead_of_nodata()
            with self.reference() as pixels:
                _encode(self._job, pixels, encoding, path, overviews="AUTO")

    def _mask_instead_of_nodata(self) -> None:
        """A lossy codec changes values near nodata to nodata and back: a mask says the same and survives."""
        with rasterio.open(self._path, "r+", driver="GTiff") as pixels:
            if pixels.nodata is None:
                return
            if not has_mask(pixels):
                with rasterio.open(self._path, driver="GTiff", sharing=False) as before:
                    masks = _MaskWriter(pixels)
                    for window in _tiles(self._job, pixels.count, pixels.width, pixels.height):
                        masks.write(before.dataset_mask(window=window), window)
                    masks.finish()
            pixels.nodata = None
        _build_overviews(self._job, self._path)
        self._job.notes.append("lossy tiers carry a mask where the source has a nodata value")


def _encode(job: CogJob, pixels: DatasetReader, encoding: Encoding, path: Path, *, overviews: str) -> None:
    options: dict[str, Any] = {
        "COMPRESS": encoding.compression.upper(),
        "PREDICTOR": encoding.predictor,
        "OVERVIEW_PREDICTOR": encoding.predictor,
        "BLOCKSIZE": str(job.blocksize),
        "BIGTIFF": "IF_SAFER",
        "NUM_THREADS": str(job.resources.threads),
        "OVERVIEWS": overviews,
        # with overviews there it is for the mask's only: nearest keeps its outline where it is
        "OVERVIEW_RESAMPLING": _gdal_resampling("nearest" if overviews == "AUTO" else job.overview_resampling),
    }
    if encoding.level is not None:
        options["LEVEL"] = str(encoding.level)
    if encoding.quality is not None:
        options["QUALITY"] = options["OVERVIEW_QUALITY"] = str(encoding.quality)
    if encoding.compression.startswith("lerc"):
        options["MAX_Z_ERROR"] = options["MAX_Z_ERROR_OVERVIEW"] = "0"
    rasterio.shutil.copy(pixels, path, driver="COG", strict=False, **options)


def _gdal_resampling(name: str) -> str:
    return {"cubic_spline": "CUBICSPLINE"}.get(name, name.upper())


@contextmanager
def _raster_errors(doing: str) -> Iterator[None]:
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        if "space left" in reason_of(error).lower() or getattr(error, "errno", None) == 28:  # noqa: PLR2004 - ENOSPC
            raise DiskFullError(f"the scratch disk is full while {doing}; give it more room") from error
        raise RasterUnreadableError(f"{doing} failed: {reason_of(error)}") from error


# --- the scratch file ------------------------------------------------------------------------------------------


def _fill_scratch(job: CogJob, path: Path) -> None:
    with job.timed("warp" if job.grid.warped else "decode"):
        if not job.grid.warped:
            _copy_with_crs(job, path, job.grid.crs)
        elif job.source.crs is None and job.place.kind == "geotransform":
            _warp_named(job, path)
        else:
            _warp(job, job.source, path, job.grid.crs)
    _build_overviews(job, path)


def _copy_with_crs(job: CogJob, path: Path, crs: rasterio.crs.CRS | None) -> None:
    if set(job.source.dtypes) != {job.kind.dtype} and "complex_int16" not in job.source.dtypes:
        _convert(job, path)
    else:
        block = str(_scratch_block(job))
        rasterio.shutil.copy(
            job.source, path, driver="GTiff", strict=False, TILED="YES", BLOCKXSIZE=block, BLOCKYSIZE=block,
            BIGTIFF="YES", INTERLEAVE=_scratch_interleave(job).upper(),
        )  # fmt: skip
    if crs is not None and job.source.crs is None:
        with rasterio.open(path, "r+", driver="GTiff") as written:
            written.crs = crs


def _convert(job: CogJob, path: Path) -> None:
    """Copy with another data type: bands of several become one, and 16-bit floats 32-bit ones."""
    profile = _scratch_profile(job, _WarpPlan.of(job, job.source))
    profile.update(
        width=job.source.width, height=job.source.height, transform=job.source.transform, nodata=job.source.nodata
    )
    with rasterio.open(path, "w", **profile) as pixels:
        _describe(job.source, pixels)
        masks = _MaskWriter(pixels)
        for window in _tiles(job, job.kind.bands + 1, job.source.width, job.source.height):
            pixels.write(job.source.read(window=window).astype(job.kind.dtype), window=window)
            if has_mask(job.source):
                masks.write(job.source.read_masks(1, window=window), window)
        masks.finish()


def _warp_named(job: CogJob, path: Path) -> None:
    """GDAL's warper takes a source's CRS from the file only: a copy gets it written in."""
    named = job.folder / "source.scratch.tif"
    placeholder = rasterio.crs.CRS.from_epsg(_PLACEHOLDER_CRS)
    try:
        _copy_with_crs(job, named, job.place.crs or placeholder)
        with rasterio.open(named, driver="GTiff", sharing=False) as source:
            _warp(job, source, path, job.grid.crs or placeholder)
    finally:
        named.unlink(missing_ok=True)


def _warp_resampling(job: CogJob) -> str:
    return "nearest" if job.grid.reason.startswith("mirrored") else job.reproject_resampling


def _warp(job: CogJob, source: DatasetReader, path: Path, crs: rasterio.crs.CRS | None) -> None:
    plan = _WarpPlan.of(job, source)
    with rasterio.open(path, "w", **_scratch_profile(job, plan)) as pixels:
        _describe(source, pixels)
        masks = _MaskWriter(pixels)

        def write(array: npt.NDArray[Any], window: Window) -> None:
            if plan.validity == "mask":
                masks.write(np.where(array[-1] != 0, np.uint8(255), np.uint8(0)), window)
                array = array[:-1]
            pixels.write(array, window=window)

        with _one_behind(job, write) as written:
            for window in _tiles(job, job.kind.bands + 1, job.grid.width, job.grid.height):
                written(_warped(job, source, plan, window, crs), window)
        masks.finish()


@contextmanager
def _one_behind(
    job: CogJob, write: Callable[[npt.NDArray[Any], Window], None]
) -> Iterator[Callable[[npt.NDArray[Any], Window], None]]:
    """Write a piece while the next one is warped; never more than one waits, so memory stays bounded."""
    if job.resources.threads == 1:
        yield write
        return

    def in_thread(array: npt.NDArray[Any], window: Window) -> None:
        # options set outside the main thread hold for their own thread only; the cache's size is the process's
        options = {name: value for name, value in gdal_options(job.resources).items() if name != "GDAL_CACHEMAX"}
        with rasterio.Env(**HARDENED, **options):
            write(array, window)

    before: list[Future[None]] = []

    def hand_over(array: npt.NDArray[Any], window: Window) -> None:
        while before:
            before.pop().result()
        before.append(pool.submit(in_thread, array, window))

    with ThreadPoolExecutor(1) as pool:
        yield hand_over
        while before:
            before.pop().result()


@dataclass(frozen=True, kw_only=True)
class _WarpPlan:
    """How validity travels through the warper."""

    validity: str
    """``nodata``, ``alpha`` (a band of the source), or ``mask`` (what the warper says, kept as a mask)."""
    nodata: float | None
    data_bands: tuple[int, ...]
    dtype: str
    """numpy's name."""

    @classmethod
    def of(cls, job: CogJob, source: DatasetReader) -> "_WarpPlan":
        dtype = _numpy_name(job.kind.dtype)
        bands = tuple(source.indexes)
        if job.kind.alpha:
            return cls(validity="alpha", nodata=None, data_bands=bands[:-1], dtype=dtype)
        if source.nodata is not None:
            return cls(validity="nodata", nodata=source.nodata, data_bands=bands, dtype=dtype)
        if np.dtype(dtype).kind == "f" and not has_mask(source):
            return cls(validity="nodata", nodata=math.nan, data_bands=bands, dtype=dtype)
        return cls(validity="mask", nodata=None, data_bands=bands, dtype=dtype)


def _warped(
    job: CogJob, source: DatasetReader, plan: _WarpPlan, window: Window, crs: rasterio.crs.CRS | None
) -> npt.NDArray[Any]:
    """One piece of the grid; the last layer is alpha or validity unless there is a nodata value."""
    if plan.validity == "nodata" and source.nodata is None:
        # the warper takes half the time where it need not look for NaN
        array = _reprojected(job, source, replace(plan, validity="mask", nodata=None), window, crs)
        values = array[:-1]
        if not np.isnan(values).any():
            values[:, array[-1] == 0] = plan.nodata
            return values
    return _reprojected(job, source, plan, window, crs)


def _reprojected(
    job: CogJob, source: DatasetReader, plan: _WarpPlan, window: Window, crs: rasterio.crs.CRS | None
) -> npt.NDArray[Any]:
    layers = len(plan.data_bands) + (plan.validity != "nodata")
    array = np.zeros((layers, int(window.height), int(window.width)), dtype=plan.dtype)
    options: dict[str, Any] = {}
    if plan.validity == "nodata":
        array[:] = plan.nodata
        options = {"src_nodata": plan.nodata, "dst_nodata": plan.nodata}
    else:
        options["dst_alpha"] = layers
    if plan.validity == "alpha":
        options["src_alpha"] = source.count
    if job.place.kind == "rpcs":
        options["rpcs"] = source.rpcs
    reproject(
        rasterio.band(source, list(plan.data_bands)),
        array,
        dst_transform=rasterio.windows.transform(window, job.grid.transform),
        dst_crs=crs,
        resampling=Resampling[_warp_resampling(job)],
        num_threads=job.resources.threads,
        warp_mem_limit=job.resources.warp_mb,
        **options,
    )
    return array


def _scratch_block(job: CogJob) -> int:
    return min(job.blocksize, 512)


def _scratch_interleave(job: CogJob) -> str:
    """By band where levels are made, which is what GDAL resamples fastest; else by pixel, as GDAL's overviews go."""
    return "band" if levels_suit(job.source, job.overview_resampling) else "pixel"


def _scratch_profile(job: CogJob, plan: _WarpPlan) -> dict[str, Any]:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": job.grid.width,
        "height": job.grid.height,
        "count": job.kind.bands,
        "dtype": job.kind.dtype,
        "transform": job.grid.transform,
        "crs": job.grid.crs,
        "tiled": True,
        "blockxsize": _scratch_block(job),
        "blockysize": _scratch_block(job),
        "interleave": _scratch_interleave(job),
        "bigtiff": "YES",
        "nodata": plan.nodata,
    }
    if job.kind.alpha:
        profile["alpha"] = "yes"
    if job.source.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue):
        profile["photometric"] = "rgb"
    return profile


def _describe(source: DatasetReader, pixels: DatasetWriter) -> None:
    """What bands mean, their units and colour tables: reprojection changes none of it."""
    if ColorInterp.palette in source.colorinterp:
        pixels.write_colormap(1, source.colormap(1))
    else:
        pixels.colorinterp = source.colorinterp
    pixels.update_tags(**{key: value for key, value in source.tags().items() if key != "AREA_OR_POINT"})
    for index in source.indexes:
        _describe_band(source, pixels, index)
    if any(scale != 1.0 for scale in source.scales) or any(offset != 0.0 for offset in source.offsets):
        pixels.scales, pixels.offsets = source.scales, source.offsets


def _describe_band(source: DatasetReader, pixels: DatasetWriter, index: int) -> None:
    tags = {key: value for key, value in source.tags(index).items() if not key.startswith("STATISTICS_")}
    if tags:
        pixels.update_tags(index, **tags)
    if source.descriptions[index - 1]:
        pixels.set_band_description(index, source.descriptions[index - 1])
    if source.units[index - 1]:
        pixels.set_band_unit(index, source.units[index - 1])


def _tiles(job: CogJob, layers: int, width: int, height: int) -> Iterator[Window]:
    """Pieces in whole tiles: strips of the full width, so that a source in strips is read once."""
    block = _scratch_block(job)
    pixels = max(block * block, _PIECE_BYTES // (layers * np.dtype(_numpy_name(job.kind.dtype)).itemsize))
    wide = min(width, max(block, pixels // block // block * block))
    high = min(height, max(block, pixels // wide // block * block))
    for row in range(0, height, high):
        for column in range(0, width, wide):
            yield Window(column, row, min(wide, width - column), min(high, height - row))


class _MaskWriter:
    """Writes an internal mask, but only if there is an invalid pixel to mask."""

    def __init__(self, pixels: DatasetWriter) -> None:
        self._pixels = pixels
        self._written = False
        self._solid: list[Window] = []

    def write(self, mask: npt.NDArray[np.uint8], window: Window) -> None:
        if not self._written and bool(mask.all()):
            self._solid.append(window)
            return
        self._written = True
        self._pixels.write_mask(mask, window=window)

    def finish(self) -> None:
        """Fill in the pieces that came before the first invalid pixel."""
        if not self._written:
            return
        for window in self._solid:
            shape = (int(window.height), int(window.width))
            self._pixels.write_mask(np.full(shape, 255, np.uint8), window=window)


def _build_overviews(job: CogJob, path: Path) -> None:
    count = level_count(job.grid.width, job.grid.height, job.blocksize)
    if not count:
        return
    with job.timed("overviews"):
        if levels_suit(job.source, job.overview_resampling):
            build_levels(
                path, count=count, resampling=job.overview_resampling, block=_scratch_block(job),
                threads=job.resources.threads,
            )  # fmt: skip
            return
        with rasterio.open(path, "r+", driver="GTiff") as pixels:
            pixels.build_overviews([2 << level for level in range(count)], Resampling[job.overview_resampling])


def _numpy_name(kind: str) -> str:
    return "complex64" if kind == "complex_int16" else kind


def _json_number(value: float | None) -> float | int | str | None:
    if value is None:
        return None
    if not math.isfinite(value):
        return str(value)
    return int(value) if value == math.floor(value) else value
