"""Proof that a COG is one, whole, and holds the pixels it was made of; nothing is published without.

What belongs here: checks of a written file against the pixels it came from.  What does not: writing it (``cog``), and
comparing what arrived in the blob store (the workflow does, by the size and SHA-256 given here).

The structure is checked by rio-cogeo and by ourselves; but a COG that is cut off passes a check of structure, so every
block of every level and of its mask is decoded.  Values are compared everywhere in rasters below a size and in evenly
spread pieces above it.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geo_assets.errors import CogProofError
from geo_assets.raster.cog_grid import Grid
from geo_assets.raster.cog_settings import Encoding
from geo_assets.raster.crs import same_crs
from geo_assets.raster.open import reason_of
from geo_assets.raster.statistics import pieces

__all__ = [
    "LossyBoundError",
    "Proof",
    "has_mask",
    "lossy_bound",
    "prove",
    "read_whole",
    "require_meanings",
    "sha256_of",
]

COMPARE_ALL_BYTES: Final = 512 * 1024 * 1024
"""Up to so many unpacked bytes all pixels are compared; above, a share that comes to about as many."""
_PIECE_BYTES: Final = 8 * 1024 * 1024
_THIN: Final = 64
"""Side in pixels below which an overview need not be half of its predecessor on both sides."""
_HASH_BYTES: Final = 4 * 1024 * 1024
_NEVER_GUESSED: Final = frozenset({ColorInterp.alpha, ColorInterp.palette})
_KEPT_MEANINGS: Final = _NEVER_GUESSED | {ColorInterp.red, ColorInterp.green, ColorInterp.blue}
_GDAL_NAMES: Final[Mapping[str, str]] = {"none": ""}


class LossyBoundError(CogProofError):
    """A lossy COG is further from its source than its quality allows."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What was shown of one COG."""

    size: int
    sha256: str
    overviews: tuple[int, ...]
    blocks_read: int
    """Blocks decoded, all levels and bands."""
    pixels_compared: int
    compared: str
    """``all`` or ``sampled``."""
    rmse: float | None
    """Of a lossy COG, over valid pixels; ``None`` for a lossless one, where every compared pixel is equal."""
    nodata: float | None
    validity: str
    """What tells invalid pixels: ``alpha``, ``mask``, ``nodata`` or ``none``."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "structure_valid": True,
            "all_blocks_read": self.blocks_read,
            "pixels_compared": self.pixels_compared,
            "compared": self.compared,
            "equal": None if self.rmse is not None else True,
            "rmse": None if self.rmse is None else round(self.rmse, 3),
        }


def lossy_bound(quality: int) -> float:
    """Largest root mean square error, in grey levels of 255, that a lossy tier of this quality may have."""
    return 6.0 + 0.3 * (100 - quality)


def prove(
    path: Path,
    reference: DatasetReader,
    *,
    grid: Grid,
    encoding: Encoding,
    blocksize: int,
    threads: int,
    compare_all_bytes: int = COMPARE_ALL_BYTES,
) -> Proof:
    """Prove one COG.

    Args:
        path: the file, closed.
        reference: its pixels before they were encoded, on the same grid.
        grid: what its placement must be.
        encoding: how it was to be encoded.
        blocksize: of its tiles.
        threads: to decode with.
        compare_all_bytes: see :data:`COMPARE_ALL_BYTES`.

    Raises:
        LossyBoundError: a lossy one is too far from the reference.
        CogProofError: anything else that is not as it must be.
    """
    size = path.stat().st_size
    _check_structure(path, thin=min(grid.width, grid.height) < _THIN)
    with _opened(path, threads=threads) as cog:
        _check_header(cog, reference, grid=grid, encoding=encoding, blocksize=blocksize)
        levels = tuple(cog.overviews(1))
        blocks = _block_count(cog)
        comparison = _compare(cog, reference, encoding, compare_all_bytes)
        nodata, validity = cog.nodata, _validity(cog)
    for level in range(len(levels)):
        with _opened(path, threads=threads, OVERVIEW_LEVEL=level) as overview:
            blocks += _block_count(overview)
            for group, window in pieces(overview, limit_bytes=_PIECE_BYTES):
                _read(overview, group, window, f"overview {levels[level]}")
    if encoding.quality is not None and comparison.rmse > lossy_bound(encoding.quality):
        raise LossyBoundError(
            f"the {encoding.tier} tier ({encoding.compression}, quality {encoding.quality}) differs from its source by"
            f" {comparison.rmse:.1f} grey levels, more than the {lossy_bound(encoding.quality):.1f} allowed"
        )
    return Proof(
        size=size,
        sha256=sha256_of(path),
        overviews=levels,
        blocks_read=blocks,
        pixels_compared=comparison.pixels,
        compared="all" if comparison.every == 1 else "sampled",
        rmse=None if encoding.lossless else comparison.rmse,
        nodata=nodata,
        validity=validity,
    )


def read_whole(path: Path, *, threads: int = 1) -> int:
    """Check the structure of a COG that was published, and decode every block of every level; returns how many.

    To be called for a file that :func:`geo_assets.raster.open.open_raster` has let in, with its environment around.

    Raises:
        CogProofError: it is no valid COG, or a block cannot be read; says where.
    """
    with _opened(path, threads=threads) as cog:
        levels, thin = tuple(cog.overviews(1)), min(cog.width, cog.height) < _THIN
        _check_structure(path, thin=thin)
        blocks = _block_count(cog)
        for group, window in pieces(cog, limit_bytes=_PIECE_BYTES):
            _read(cog, group, window, "full resolution")
    for level in range(len(levels)):
        with _opened(path, threads=threads, OVERVIEW_LEVEL=level) as overview:
            blocks += _block_count(overview)
            for group, window in pieces(overview, limit_bytes=_PIECE_BYTES):
                _read(overview, group, window, f"overview {levels[level]}")
    return blocks


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASH_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def has_mask(dataset: DatasetReader) -> bool:
    """Whether a raster carries a mask of its own, which is neither nodata nor an alpha band."""
    flags = dataset.mask_flag_enums[0]
    return MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags


def _validity(dataset: DatasetReader) -> str:
    if ColorInterp.alpha in dataset.colorinterp:
        return "alpha"
    if has_mask(dataset):
        return "mask"
    return "none" if dataset.nodata is None else "nodata"


# --- structure -------------------------------------------------------------------------------------------------


def _check_structure(path: Path, *, thin: bool) -> None:
    from rio_cogeo.cogeo import cog_validate  # noqa: PLC0415 - brings much along

    try:
        _, errors, _ = cog_validate(path, quiet=True)
    except (RasterioError, CPLE_BaseError) as error:
        raise CogProofError(f"the COG just written cannot be opened: {reason_of(error)}") from error
    errors = [error for error in errors if not (thin and error.startswith("Invalid Decimation"))]
    if errors:
        raise CogProofError(f"what was written is no valid COG: {'; '.join(errors)}")


def _check_header(
    cog: DatasetReader, reference: DatasetReader, *, grid: Grid, encoding: Encoding, blocksize: int
) -> None:
    image = cog.tags(ns="IMAGE_STRUCTURE")
    _same("layout", image.get("LAYOUT"), "COG")
    _same("compression", image.get("COMPRESSION", ""), _gdal_compression(encoding, cog.count))
    _same("size", (cog.width, cog.height), (grid.width, grid.height))
    _same("block size", set(cog.block_shapes), {(blocksize, blocksize)})
    _same("data type", set(cog.dtypes), set(reference.dtypes))
    if (cog.crs is None) != (grid.crs is None) or (cog.crs and grid.crs and not same_crs(cog.crs, grid.crs)):
        raise CogProofError(f"the COG's CRS is {cog.crs}, not {grid.crs}")
    if not cog.transform.almost_equals(grid.transform, precision=abs(grid.transform.a) * 1e-6):
        raise CogProofError(f"the COG's geotransform is {cog.transform.to_gdal()}, not {grid.transform.to_gdal()}")
    _check_bands(cog, reference, encoding)
    _check_overviews(cog, blocksize)


def _check_bands(cog: DatasetReader, reference: DatasetReader, encoding: Encoding) -> None:
    alpha = ColorInterp.alpha in reference.colorinterp
    dropped = alpha and encoding.compression == "jpeg"
    kept = [color for color in reference.colorinterp if not (dropped and color is ColorInterp.alpha)]
    _same("bands", cog.count, len(kept))
    if encoding.compression not in ("jpeg", "webp"):
        require_meanings(kept, cog.colorinterp, where="the pixels it was made of")
    if ColorInterp.palette in kept:
        _same("colour table", cog.colormap(1), reference.colormap(1))
    if not _same_nodata(cog.nodata, reference.nodata):
        raise CogProofError(f"the COG's nodata value is {cog.nodata}, not {reference.nodata}")
    _same("mask", has_mask(cog), has_mask(reference) or dropped)


def require_meanings(meant: Sequence[ColorInterp], became: Sequence[ColorInterp], *, where: str) -> None:
    """Refuse a COG whose bands mean something else.

    Colours, alpha and colour tables must stay.  A band that the source says nothing of, or calls grey, may be called
    what a TIFF makes of it (the first is grey there, three of bytes are a picture), but neither alpha nor a table.

    Raises:
        CogProofError: a band means something else.
    """
    for band, (one, other) in enumerate(zip(meant, became, strict=True), start=1):
        if other is not one and (one in _KEPT_MEANINGS or other in _NEVER_GUESSED):
            raise CogProofError(f"band {band} is {other.name} in the COG and {one.name} in {where}")


def _check_overviews(cog: DatasetReader, blocksize: int) -> None:
    if min(cog.width, cog.height) < _THIN:
        return
    factors = cog.overviews(1)
    smallest = max(cog.width, cog.height) / (factors[-1] if factors else 1)
    if smallest > 2 * blocksize or any(later <= earlier for earlier, later in itertools.pairwise(factors)):
        raise CogProofError(f"the COG's overviews {factors} do not lead down to one tile of {blocksize} pixels")


def _gdal_compression(encoding: Encoding, bands: int) -> str:
    if encoding.compression == "jpeg":
        return "YCbCr JPEG" if bands == 3 else "JPEG"  # noqa: PLR2004
    return _GDAL_NAMES.get(encoding.compression, encoding.compression.upper())


def _same(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise CogProofError(f"the COG's {what} is {found!r:.200}, not {wanted!r:.200}")


def _same_nodata(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return one == other or (math.isnan(one) and math.isnan(other))


# --- pixels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    every: int
    pixels: int
    rmse: float


def _compare(cog: DatasetReader, reference: DatasetReader, encoding: Encoding, limit: int) -> _Comparison:
    """Read everything, compare every so many pieces."""
    unpacked = cog.width * cog.height * cog.count * np.dtype(_numpy_name(cog.dtypes[0])).itemsize
    every = max(1, -(-unpacked // limit))
    masked = has_mask(cog) or has_mask(reference)
    pixels, squares, counted = 0, 0.0, 0
    for number, (group, window) in enumerate(pieces(cog, limit_bytes=_PIECE_BYTES)):
        values = _read(cog, group, window, "full resolution")
        mask = _read_mask(cog, window) if masked else None
        if number % every:
            continue
        wanted = _read(reference, group, window, "the reference")
        pixels += values.size
        if mask is not None and not np.array_equal(mask, _read_mask(reference, window)):
            raise CogProofError(f"the COG's mask differs from its source's in {_place(window)}")
        if encoding.lossless:
            if not _equal(values, wanted):
                raise CogProofError(f"the lossless {encoding.tier} tier differs from its source in {_place(window)}")
        else:
            some, count = _squares(values, wanted, _valid(reference, window))
            squares, counted = squares + some, counted + count
    return _Comparison(every=every, pixels=pixels, rmse=math.sqrt(squares / counted) if counted else 0.0)


def _valid(reference: DatasetReader, window: Window) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = reference.dataset_mask(window=window) > 0
    return valid


def _squares(
    values: npt.NDArray[Any], wanted: npt.NDArray[Any], valid: npt.NDArray[np.bool_]
) -> tuple[float, int]:  # fmt: skip
    """Sum of squared differences of 8-bit values, and over how many pixels."""
    total, count = 0.0, 0
    everywhere = bool(valid.all())
    for one, other in zip(values, wanted, strict=True):
        difference = np.maximum(one, other) - np.minimum(one, other)
        if not everywhere:
            difference *= valid
        # of 16 bits, as 255 squared is; np.dot would start threads, which then wait busily
        total += float(np.multiply(difference, difference, dtype=np.uint16).sum(dtype=np.uint64))
        count += difference.size if everywhere else int(np.count_nonzero(valid))
    return total, count


def _equal(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if np.array_equal(one, other):
        return True
    return one.dtype.kind in "fc" and bool(np.array_equal(one, other, equal_nan=True))


def _read(dataset: DatasetReader, group: list[int], window: Window, what: str) -> npt.NDArray[Any]:
    try:
        values: npt.NDArray[Any] = dataset.read(group, window=window)
        if what != "the reference" and has_mask(dataset):
            _read_mask(dataset, window)
    except (RasterioError, CPLE_BaseError, OSError, ValueError) as error:
        raise CogProofError(f"{what} cannot be read in {_place(window)}: {reason_of(error)}") from error
    return values


def _read_mask(dataset: DatasetReader, window: Window) -> npt.NDArray[np.bool_]:
    mask: npt.NDArray[np.bool_] = dataset.read_masks(1, window=window) > 0
    return mask


def _place(window: Window) -> str:
    return (
        f"columns {window.col_off} to {window.col_off + window.width}, rows {window.row_off} to"
        f" {window.row_off + window.height}"
    )


def _block_count(dataset: DatasetReader) -> int:
    return sum(-(-dataset.height // rows) * -(-dataset.width // columns) for rows, columns in dataset.block_shapes)


def _numpy_name(kind: str) -> str:
    return "complex64" if kind == "complex_int16" else kind


@contextmanager
def _opened(path: Path, *, threads: int, **options: Any) -> Iterator[DatasetReader]:
    try:
        dataset = rasterio.open(path, driver="GTiff", sharing=False, NUM_THREADS=str(threads), **options)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise CogProofError(f"the COG just written cannot be opened: {reason_of(error)}") from error
    with dataset:
        yield dataset
