"""The one door: every raster that someone uploaded is opened here, and only here.

What belongs here: the order of checks before the first pixel, GDAL's options for untrusted files, and the budget.
What does not: fetching the file (``local_copy``), and the process around it.

**To be called in a worker process.**  The limits of memory, CPU time and file size, and the environment without
credentials, are the sandbox's (``coremachine``): a handler in the run's process gives the path to a function of this
package by ``services["sandbox"].call``; see the package's docstring.

The order: a plain local file, by a path of our own making → magic bytes → defects and references that GDAL does not
notice → exactly one driver, with hardened options → nothing in the header that names other files → the header within
the budget.  Only then does the caller get the dataset.

What names other files although it is a true TIFF: the metadata domain ``OVERVIEWS`` holds the name of a file that GDAL
opens, with any driver and over the network, as soon as anybody asks for overviews; ``GEOLOCATION`` likewise when
something is warped.  Both are refused before anything asks.
"""

import os
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.enums import Interleaving
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.session import DummySession

from geo_assets.errors import RasterRefusedError, RasterUnreadableError
from geo_assets.raster.formats import SNIFFED_BYTES, RasterFormat, check_container, sniff
from geo_assets.settings import Settings

__all__ = ["HARDENED", "RasterBudget", "format_of", "gdal_environment", "open_overview", "open_raster", "reason_of"]

_MIB = 1024 * 1024
_GIB = 1024 * _MIB

HARDENED: Mapping[str, str] = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no .ovr, .msk, .aux.xml, world file beside it is looked for
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",  # else a JPEG cut off is filled with grey
    "GTIFF_IGNORE_READ_ERRORS": "NO",
    "PROJ_NETWORK": "OFF",
}
"""GDAL options for untrusted files."""

_NAMING_DOMAINS = ("OVERVIEWS", "GEOLOCATION", "ProxyOverviewRequest")
_RATIO_FROM_BYTES = _GIB
"""Below this unpacked size no compression ratio is suspicious: reading it all is cheap."""
_MULTI_FILE_DRIVERS = frozenset({"HFA"})


@dataclass(frozen=True, kw_only=True)
class RasterBudget:
    """What a header may declare; see the settings ``GEO_ASSETS_RASTER_MAX_*``."""

    pixels: int
    """Width times height."""
    bands: int
    unpacked_bytes: int
    """All bands together."""
    block_bytes: int
    """One strip or tile, all bands if they are interleaved by pixel: what GDAL must hold to give one pixel."""
    blocks: int
    """Strips or tiles, all bands."""
    ratio: int
    """Unpacked bytes a byte of the file, where more than 1 GiB unpacked."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "RasterBudget":
        """The budget of the settings."""
        return cls(
            pixels=settings.raster_max_pixels,
            bands=settings.raster_max_bands,
            unpacked_bytes=settings.raster_max_unpacked_gb * _GIB,
            block_bytes=settings.raster_max_block_mb * _MIB,
            blocks=settings.raster_max_blocks,
            ratio=settings.raster_max_ratio,
        )

    def as_dict(self) -> dict[str, int]:
        """Plain values, for a worker process."""
        return asdict(self)


@contextmanager
def gdal_environment(*, cache_mb: int = 128, **options: Any) -> Iterator[None]:
    """GDAL's options for untrusted files, no cloud session, and a bounded block cache (MB)."""
    # GDAL takes the number it gets from rasterio as bytes
    with rasterio.Env(DummySession(), **{**HARDENED, "GDAL_CACHEMAX": cache_mb * _MIB, **options}):
        yield


@contextmanager
def open_raster(path: Path, *, budget: RasterBudget, name: str = "") -> Iterator[DatasetReader]:
    """Open a local file that someone uploaded, after every check that can be made before reading pixels.

    Args:
        path: absolute path of a regular file, in a folder where nobody else can put sidecars.
        budget: what its header may declare.
        name: the blob's name, for SRTM heights and messages.

    Raises:
        RasterRefusedError: not a file of a format we open, one that names other files, or beyond the budget.
        RasterUnreadableError: of a format we open, but damaged or cut off.
    """
    form = format_of(path, name=name)
    with gdal_environment(), _opened(path, form.driver) as dataset:
        _refuse_references(dataset, path)
        _check_budget(dataset, path, budget)
        yield dataset


@contextmanager
def open_overview(path: Path, driver: str, level: int) -> Iterator[DatasetReader]:
    """Open one overview of a file that :func:`open_raster` has let in, by that driver; 0 is the largest."""
    with gdal_environment(), _opened(path, driver, OVERVIEW_LEVEL=level) as dataset:
        yield dataset


def format_of(path: Path, *, name: str = "") -> RasterFormat:
    """Return the format of a local file, checked without GDAL.

    Raises:
        RasterRefusedError, RasterUnreadableError: as :func:`open_raster`.
    """
    _require_plain_file(path)
    with path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    form = sniff(head, size=path.stat().st_size, name=name)
    return check_container(path, form)


def reason_of(error: BaseException) -> str:
    """GDAL's own words for an error: rasterio's says "see previous exception"."""
    deepest: BaseException = error
    while (before := deepest.__cause__) is not None:
        deepest = before
    # the path is that of our copy, which means nothing to anybody
    return str(deepest) or type(deepest).__name__


def _require_plain_file(path: object) -> None:
    if not isinstance(path, Path):
        raise RasterRefusedError(
            "a raster is opened by a pathlib.Path of our own making, never by a text: texts are read by GDAL as"
            " addresses, archives and inline XML"
        )
    text = os.fspath(path)
    if not path.is_absolute() or text.startswith("/vsi") or "\0" in text:
        raise RasterRefusedError(f"{text!a} is not the absolute path of a local file")
    try:
        found = path.lstat()
    except OSError as error:
        raise RasterUnreadableError(f"the local copy cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(found.st_mode):
        raise RasterRefusedError("the local copy is not a regular file (a link, a folder or a pipe)")


@contextmanager
def _opened(path: Path, driver: str, **options: Any) -> Iterator[DatasetReader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # judged by the validation
        warnings.filterwarnings("ignore", category=FutureWarning, module="rasterio")
        try:
            dataset = rasterio.open(path, driver=driver, sharing=False, **options)
        except (RasterioError, OSError) as error:
            message = reason_of(error).replace(os.fspath(path), "the file")
            raise RasterUnreadableError(f"the {driver} driver cannot open the file: {message}") from error
    with dataset:
        yield dataset


def _refuse_references(dataset: DatasetReader, path: Path) -> None:
    for domain in _NAMING_DOMAINS:
        if dataset.tags(ns=domain):
            raise RasterRefusedError(
                f"the file's metadata names other files (domain {domain}); only files that hold their own pixels and"
                " positions are opened"
            )
    if dataset.driver in _MULTI_FILE_DRIVERS and dataset.count:
        dataset.overviews(1)  # the driver finds dependent files when asked for overviews
    # some drivers name the file of GDAL's own notes whether it is there or not; it is not read
    own = {os.fspath(path), f"{os.fspath(path)}.aux.xml"}
    others = [file for file in dataset.files if file not in own]
    if others:
        raise RasterRefusedError(f"the file names other files: {', '.join(Path(file).name for file in others[:3])!a}")


def _check_budget(dataset: DatasetReader, path: Path, budget: RasterBudget) -> None:
    if not dataset.count:
        inside = len(dataset.subdatasets)
        what = f"holds {inside} rasters; extract the one you mean" if inside else "holds no raster band"
        raise RasterRefusedError(f"the {dataset.driver} file {what}")
    size = [np.dtype(kind if kind != "complex_int16" else "int32").itemsize for kind in dataset.dtypes]
    pixels = dataset.width * dataset.height
    unpacked = pixels * sum(size)
    rows, columns = max(dataset.block_shapes)
    by_pixel = dataset.interleaving is Interleaving.pixel
    block = rows * columns * (sum(size) if by_pixel else max(size))
    blocks = -(-dataset.height // rows) * -(-dataset.width // columns) * (1 if by_pixel else dataset.count)
    _within("pixels", pixels, budget.pixels, "PIXELS")
    _within("bands", dataset.count, budget.bands, "BANDS")
    _within("bytes unpacked", unpacked, budget.unpacked_bytes, "UNPACKED_GB")
    _within("bytes in one block", block, budget.block_bytes, "BLOCK_MB")
    _within("blocks", blocks, budget.blocks, "BLOCKS")
    if unpacked > _RATIO_FROM_BYTES:
        _within("unpacked bytes a byte of the file", unpacked // path.stat().st_size, budget.ratio, "RATIO")


def _within(what: str, declared: int, most: int, setting: str) -> None:
    if declared > most:
        raise RasterRefusedError(
            f"the header declares {declared:,} {what}; at most {most:,} are read (GEO_ASSETS_RASTER_MAX_{setting})"
        )
