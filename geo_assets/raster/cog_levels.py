"""Overviews of the pixels that COGs are made of, each level in a file of its own beside the level below.

What belongs here: making the levels.  What does not: the pixels (``cog``), and which resampling is right
(``cog_settings``).

GDAL resamples alike when its COG driver makes overviews and when a part of a raster is read into a smaller array.
Reading goes in several threads, band by band, and knows where nothing is masked: with a mask it takes a third of the
time.  GDAL finds ``x.tif.ovr`` beside ``x.tif``, ``x.tif.ovr.ovr`` beside that, and so on.
"""

import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geo_assets.raster.cog_proof import has_mask

__all__ = ["build_levels", "level_count", "levels_suit", "open_with_levels", "remove_levels"]

_SMOOTH: Final = frozenset({"bilinear", "cubic", "cubic_spline", "lanczos"})
"""Resamplings of which a part comes out as it does in the whole; the others count pixels from where a part begins."""
_PIECE_BYTES: Final = 12 * 1024 * 1024

_Part = tuple[Window, npt.NDArray[Any], npt.NDArray[np.uint8] | None]
_Ahead = Callable[[Callable[[Window], _Part], Iterator[Window]], Iterator[_Part]]


def level_count(width: int, height: int, blocksize: int) -> int:
    """How many times a raster is halved until it fits a tile of ``blocksize`` pixels."""
    count = 0
    while max(width, height) > blocksize << count:
        count += 1
    return count


def levels_suit(pixels: DatasetReader, resampling: str) -> bool:
    """Whether the levels made here are those that GDAL would make."""
    return (
        resampling in _SMOOTH
        and all(np.dtype(kind).kind in "iuf" for kind in pixels.dtypes if kind != "complex_int16")
        and "complex_int16" not in pixels.dtypes
        and not {ColorInterp.palette, ColorInterp.alpha} & set(pixels.colorinterp)
        and not any("NBITS" in pixels.tags(index, ns="IMAGE_STRUCTURE") for index in pixels.indexes)
    )


def build_levels(path: Path, *, count: int, resampling: str, block: int, threads: int) -> None:
    """Write the levels of a raster beside it.

    Args:
        path: a GeoTIFF without overviews.
        count: of levels, see :func:`level_count`.
        resampling: one that :func:`levels_suit`.
        block: side of the levels' tiles in pixels.
        threads: to read with.

    Raises:
        RasterioError, OSError: it cannot be read, or the levels cannot be written.
    """
    with ThreadPoolExecutor(threads, thread_name_prefix="levels") as pool:  # starts them when there is work
        for _ in range(count):
            above = _above(path)
            ahead = partial(_ahead, pool, most=threads + 1) if threads > 1 else map
            _halve(path, above, resampling=Resampling[resampling], block=block, threads=threads, ahead=ahead)
            path = above


@contextmanager
def open_with_levels(path: Path) -> Iterator[DatasetReader]:
    """Open a GeoTIFF and the levels beside it."""
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="FALSE"):
        dataset = _open(path)
        dataset.overviews(1)  # looked for when first asked for, and later nothing beside a file is looked for
    with dataset:
        yield dataset


def remove_levels(path: Path) -> None:
    """Remove the levels beside a raster, if there are any."""
    while (path := _above(path)).exists():
        path.unlink()


def _above(path: Path) -> Path:
    return path.with_name(f"{path.name}.ovr")


def _open(path: Path, mode: str = "r", **profile: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # where a level lies, the lowest one says
        return rasterio.open(path, mode, sharing=False, **{"driver": "GTiff", **profile})


def _halve(
    below: Path, above: Path, *, resampling: Resampling, block: int, threads: int, ahead: _Ahead
) -> None:  # fmt: skip
    with ExitStack() as stack:
        # a dataset of GDAL's is for one thread at a time
        readers: SimpleQueue[DatasetReader] = SimpleQueue()
        for _ in range(threads):
            dataset = stack.enter_context(_open(below))
            readers.put(dataset)
        profile, masked = _profile(dataset, block), has_mask(dataset)
        # with an odd size it is not quite two pixels that one is made of
        across, down = dataset.width / profile["width"], dataset.height / profile["height"]

        def read(window: Window) -> _Part:
            dataset = readers.get()
            try:
                left, top = window.col_off * across, window.row_off * down
                part = Window(left, top, window.width * across, window.height * down)
                shape = (int(window.height), int(window.width))
                values = dataset.read(window=part, out_shape=(dataset.count, *shape), resampling=resampling)
                # valid is what is made of any valid pixel, so that the next level has all there is
                mask = dataset.read_masks(1, window=part, out_shape=shape, resampling=Resampling.average)
            finally:
                readers.put(dataset)
            return window, values, mask if masked else None

        with _open(above, "w", **profile) as level:
            for window, values, mask in ahead(read, _windows(dataset, block)):
                level.write(values, window=window)
                if mask is not None:
                    level.write_mask(mask, window=window)


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[Window], _Part], windows: Iterator[Window], *, most: int
) -> Iterator[_Part]:
    """What was read, in order; never more than ``most`` parts in memory."""
    coming: deque[Future[_Part]] = deque()
    for window in windows:
        coming.append(pool.submit(read, window))
        if len(coming) == most:
            yield coming.popleft().result()
    while coming:
        yield coming.popleft().result()


def _profile(below: DatasetReader, block: int) -> dict[str, Any]:
    return {
        "width": -(-below.width // 2),
        "height": -(-below.height // 2),
        "count": below.count,
        "dtype": below.dtypes[0],
        "nodata": below.nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "interleave": "band",
        "photometric": "minisblack",
        "bigtiff": "YES",
    }


def _windows(below: DatasetReader, block: int) -> Iterator[Window]:
    """Parts of the level above: some of its tiles, or strips of it where the level below is in strips."""
    width, height = -(-below.width // 2), -(-below.height // 2)
    rows, columns = below.block_shapes[0]
    strips = columns >= below.width
    wide = width if strips else min(width, 2 * block)
    high = _PIECE_BYTES // (4 * below.count * np.dtype(below.dtypes[0]).itemsize * wide)
    high = min(height, max(high, rows // 2, 1) if strips else max(high // block, 1) * block)
    for row in range(0, height, high):
        for column in range(0, width, wide):
            yield Window(column, row, min(wide, width - column), min(high, height - row))
