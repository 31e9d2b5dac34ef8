"""Every block of every band, once, in bounded memory; and what is learnt on the way.

What belongs here: reading whole rasters in pieces, and statistics that can be added up piece by piece.  What does
not: judging them (``validate``, ``raster_type``).

Values of at most 16 bits are counted exactly; minimum, maximum, mean and standard deviation are exact for all.  The
histogram and percentiles of wider values come from an even sample of at most about a million pixels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp, Interleaving, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geo_assets.errors import RasterUnreadableError
from geo_assets.raster.open import reason_of

__all__ = ["BandAccumulator", "BandStatistics", "Reading", "pieces", "read_everything", "read_through"]

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

MOST_DISTINCT = 4096
"""Distinct values are told apart up to so many."""
PIECE_BYTES = 48 * 1024 * 1024
_SAMPLE = 1_000_000
_SAMPLE_A_PIECE = 65_536
_NEIGHBOURS_A_PIECE = 262_144
_HISTOGRAM_BINS = 64
_COUNTED_BITS = 16
_COUNTED_AT_ONCE = 1 << 21
_WIDEST_COUNT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """What one band holds. Numbers are ``None`` where no valid pixel says any."""

    dtype: str
    pixels: int
    valid: int
    nan: int
    """Pixels that are NaN; never valid."""
    infinite: int
    """Pixels that are infinite; never valid."""
    minimum: float | None
    maximum: float | None
    mean: float | None
    stddev: float | None
    integers: bool
    """Whether every valid value is a whole number."""
    distinct: int | None
    """Number of distinct valid values; ``None``: more than could be told apart."""
    distinct_exact: bool
    """Whether every value was looked at for it; else an even sample."""
    values: tuple[float, ...]
    """The distinct values, where there are at most 256."""
    equal_neighbours: float | None
    """Share of horizontal neighbours with equal values."""
    mean_step: float | None
    """Mean absolute difference of neighbours that differ."""
    roughness: float | None
    """Mean absolute difference of neighbours over the standard deviation; small where values change smoothly."""
    percentiles: tuple[float, float] | None
    """2 % and 98 %."""
    histogram: tuple[int, ...]
    histogram_range: tuple[float, float] | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "dtype": self.dtype,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.mean,
            "stddev": self.stddev,
            "valid_percent": round(100 * self.valid / self.pixels, 4) if self.pixels else 0.0,
            "valid_count": self.valid,
            "nan_count": self.nan,
            "infinite_count": self.infinite,
            "distinct_values": self.distinct,
            "percentile_2": self.percentiles[0] if self.percentiles else None,
            "percentile_98": self.percentiles[1] if self.percentiles else None,
            "histogram": {
                "count": len(self.histogram),
                "min": self.histogram_range[0],
                "max": self.histogram_range[1],
                "buckets": list(self.histogram),
            }
            if self.histogram_range
            else None,
        }


class BandAccumulator:
    """Statistics of one band, added up from pieces in any order.

    Args:
        dtype: of the band.
        total_pixels: of the whole band; decides how thin the sample is.
        neighbours: whether neighbours are compared, which only the detection of types needs.
    """

    def __init__(self, dtype: str, total_pixels: int, *, neighbours: bool = True) -> None:
        self._dtype = dtype
        self._neighbours = neighbours
        kind = np.dtype(dtype)
        self._counted = kind.kind in "iu" and kind.itemsize * 8 <= _COUNTED_BITS
        self._offset = int(np.iinfo(kind).min) if self._counted else 0
        self._counts = np.zeros(1 << (kind.itemsize * 8) if self._counted else 0, dtype=np.int64)
        self._pixels = self._valid = self._nan = self._infinite = 0
        self._minimum, self._maximum = math.inf, -math.inf
        self._mean = self._squares = 0.0
        self._integers = kind.kind in "iub"
        self._maybe_integers = kind.kind != "c"
        self._distinct: set[float] | None = set() if kind.kind != "c" else None
        self._distinct_exact = True
        self._stride = max(1, -(-total_pixels // _SAMPLE))
        self._sample: list[Values] = []
        self._pairs = self._equal = 0
        self._steps = 0.0

    def add(self, values: Values, valid: Mask | None = None) -> None:
        """Add a piece: a two-dimensional array and which of its pixels count (``None``: all)."""
        self._pixels += values.size
        if values.dtype.kind == "c":
            values = np.abs(values)  # the magnitude; an order of complex numbers does not exist
        if values.dtype.kind == "f":
            values, valid = self._without_nan(values, valid)
        chosen = values.ravel() if valid is None else values[valid]
        if chosen.size:
            self._valid += chosen.size
            if self._counted:
                self._count(chosen)
            else:
                self._add_wide(chosen)
            if self._neighbours:
                self._compare_neighbours(values, valid)

    def _count(self, chosen: Values) -> None:
        # in parts, because numpy counts in a copy that is eight times as large
        for start in range(0, chosen.size, _COUNTED_AT_ONCE):
            part = chosen[start : start + _COUNTED_AT_ONCE]
            shifted = part.astype(np.intp) - self._offset if self._offset else part
            self._counts += np.bincount(shifted, minlength=self._counts.size)

    def _without_nan(self, values: Values, valid: Mask | None) -> tuple[Values, Mask | None]:
        finite = np.isfinite(values)
        if finite.all():
            return values, valid
        nan = int(np.isnan(values).sum())
        self._nan += nan
        self._infinite += int(finite.size - finite.sum()) - nan
        return values, finite if valid is None else finite & valid

    def _add_wide(self, chosen: Values) -> None:
        low, high = float(chosen.min()), float(chosen.max())
        self._minimum, self._maximum = min(self._minimum, low), max(self._maximum, high)
        # Chan's way of joining means and squares: no sum grows so large that small differences are lost
        count, before = chosen.size, self._valid - chosen.size
        with np.errstate(over="ignore", invalid="ignore"):
            wide = chosen.astype(np.float64)
            mean = float(wide.mean())
            wide -= mean
            # np.dot would start threads, which then wait busily
            squares = float(np.square(wide, out=wide).sum())
        delta = mean - self._mean
        self._mean += delta * count / (before + count)
        self._squares += squares + delta * delta * before * count / (before + count)
        if self._maybe_integers and not self._integers_so_far(chosen):
            self._maybe_integers = False
        self._tell_apart(chosen, low, high)
        self._sample.append(chosen[:: self._stride].astype(np.float64))

    def _integers_so_far(self, chosen: Values) -> bool:
        return chosen.dtype.kind != "f" or bool((np.floor(chosen) == chosen).all())

    def _tell_apart(self, chosen: Values, low: float, high: float) -> None:
        if self._distinct is None:
            return
        if self._maybe_integers and high - low < _WIDEST_COUNT:
            present = np.flatnonzero(np.bincount((chosen.astype(np.float64) - low).astype(np.intp)))
            found = present.astype(np.float64) + low
        else:
            stride = -(-chosen.size // _SAMPLE_A_PIECE)
            self._distinct_exact &= stride == 1
            found = np.unique(chosen[::stride]).astype(np.float64)
        if found.size > MOST_DISTINCT:
            self._distinct = None
            return
        self._distinct.update(found.tolist())
        if len(self._distinct) > MOST_DISTINCT:
            self._distinct = None

    def _compare_neighbours(self, values: Values, valid: Mask | None) -> None:
        rows, columns = values.shape
        if columns < 2:  # noqa: PLR2004 - no neighbours
            return
        step = -(-rows * columns // _NEIGHBOURS_A_PIECE)
        thin = values[::step].astype(np.float64)
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(np.diff(thin, axis=1))
        if valid is not None:
            both = valid[::step]
            difference = difference[both[:, 1:] & both[:, :-1]]
        self._pairs += difference.size
        self._equal += int((difference == 0).sum())
        self._steps += float(difference.sum())

    def result(self) -> BandStatistics:
        """The statistics of everything added so far."""
        if self._counted:
            self._finish_counts()
        something = self._valid > 0
        stddev = math.sqrt(max(self._squares, 0.0) / self._valid) if something else None
        different = self._pairs - self._equal
        distinct = self._distinct
        low_high = (_plain(self._minimum), _plain(self._maximum)) if something else (None, None)
        histogram, percentiles = self._distribution() if something else ((), None)
        ends = None if low_high[0] is None or low_high[1] is None else (low_high[0], low_high[1])
        return BandStatistics(
            dtype=self._dtype,
            pixels=self._pixels,
            valid=self._valid,
            nan=self._nan,
            infinite=self._infinite,
            minimum=low_high[0],
            maximum=low_high[1],
            mean=_plain(self._mean) if something else None,
            stddev=None if stddev is None else _plain(stddev),
            integers=self._integers or (self._maybe_integers and something),
            distinct=None if distinct is None else len(distinct),
            distinct_exact=self._distinct_exact,
            values=tuple(sorted(distinct)) if distinct is not None and len(distinct) <= 256 else (),  # noqa: PLR2004
            equal_neighbours=self._equal / self._pairs if self._pairs else None,
            mean_step=_plain(self._steps / different) if different else None,
            roughness=_plain(self._steps / self._pairs / stddev) if self._pairs and stddev else None,
            percentiles=percentiles,
            histogram=histogram if ends else (),
            histogram_range=ends,
        )

    def _finish_counts(self) -> None:
        present = np.flatnonzero(self._counts)
        if not present.size:
            return
        values, counts = (present + self._offset).astype(np.float64), self._counts[present]
        self._minimum, self._maximum = float(values[0]), float(values[-1])
        self._mean = float(np.dot(values, counts) / self._valid)
        self._squares = float(np.dot((values - self._mean) ** 2, counts))
        self._distinct = set(values.tolist()) if values.size <= MOST_DISTINCT else None

    def _distribution(self) -> tuple[tuple[int, ...], tuple[float, float] | None]:
        if self._counted:
            present = np.flatnonzero(self._counts)
            values, weights = (present + self._offset).astype(np.float64), self._counts[present]
        else:
            values = np.sort(np.concatenate(self._sample))
            weights = np.ones(values.size, dtype=np.int64)
        if not math.isfinite(self._maximum - self._minimum):
            return (), None
        buckets, _ = np.histogram(values, bins=_HISTOGRAM_BINS, range=(self._minimum, self._maximum), weights=weights)
        running = np.cumsum(weights)
        places = np.searchsorted(running, [0.02 * running[-1], 0.98 * running[-1]])
        low, high = (float(values[min(place, values.size - 1)]) for place in places)
        return tuple(int(count) for count in buckets), (low, high)


def _plain(value: float) -> float | None:
    """JSON knows neither NaN nor infinity."""
    return value if math.isfinite(value) else None


# --- reading -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What reading a whole raster gave."""

    bands: tuple[BandStatistics, ...]
    blocks: int
    """Blocks of full resolution read, all bands."""


def pieces(dataset: DatasetReader, *, limit_bytes: int = PIECE_BYTES) -> Iterator[tuple[list[int], Window]]:
    """Cut a raster into pieces of whole blocks that fit ``limit_bytes``, each with the bands it is read for.

    Bands that are interleaved by pixel are read together, so that no block is decoded twice; others one by one.
    """
    rows, columns = dataset.block_shapes[0]
    size = max(np.dtype(_numpy_name(kind)).itemsize for kind in dataset.dtypes)
    together = dataset.interleaving is Interleaving.pixel
    groups = [list(dataset.indexes)] if together else [[index] for index in dataset.indexes]
    pixels = max(1, limit_bytes // (size * len(groups[0])))
    wide = min(dataset.width, max(columns, pixels // rows // columns * columns))
    high = min(dataset.height, max(rows, pixels // wide // rows * rows))
    for group in groups:
        for row in range(0, dataset.height, high):
            for column in range(0, dataset.width, wide):
                width, height = min(wide, dataset.width - column), min(high, dataset.height - row)
                yield group, Window(column, row, width, height)  # type: ignore[call-arg, unused-ignore]


def read_everything(dataset: DatasetReader, nodata: Sequence[float | None]) -> Reading:
    """Read every block of every band, and its masks, and return the statistics.

    Args:
        dataset: from :func:`geo_assets.raster.open.open_raster`.
        nodata: nodata value of each band; NaN is allowed.

    Raises:
        RasterUnreadableError: names the band and the place that cannot be read.
    """
    total = dataset.width * dataset.height
    bands = [BandAccumulator(_numpy_name(kind), total) for kind in dataset.dtypes]
    alpha = next((n for n, color in enumerate(dataset.colorinterp, start=1) if color is ColorInterp.alpha), None)
    for group, window in pieces(dataset):
        block = _read(dataset, group, window)
        for values, index in zip(block, group, strict=True):
            valid = _valid(dataset, window, values, index=index, alpha=alpha, nodata=nodata[index - 1])
            bands[index - 1].add(values, valid)
    return Reading(bands=tuple(band.result() for band in bands), blocks=_blocks(dataset))


def read_through(dataset: DatasetReader) -> None:
    """Read every block of every band, and the mask, without looking at them: for overviews.

    Raises:
        RasterUnreadableError: names the band and the place that cannot be read.
    """
    masked = any(_mask_source(dataset, index) for index in dataset.indexes)
    for group, window in pieces(dataset):
        _read(dataset, group, window)
        if masked:
            _read_mask(dataset, group[0], window)


def _read(dataset: DatasetReader, group: list[int], window: Window) -> Values:
    try:
        block: Values = dataset.read(group, window=window)
    except (RasterioError, OSError, ValueError) as error:
        raise _unreadable(error, f"band {group[0]}", window) from error
    return block


def _read_mask(dataset: DatasetReader, index: int, window: Window) -> Mask:
    try:
        mask: Mask = dataset.read_masks(index, window=window) > 0
    except (RasterioError, OSError, ValueError) as error:
        raise _unreadable(error, f"the mask of band {index}", window) from error
    return mask


def _unreadable(error: Exception, what: str, window: Window) -> RasterUnreadableError:
    right, below = window.col_off + window.width, window.row_off + window.height
    place = f"columns {window.col_off} to {right}, rows {window.row_off} to {below}"
    return RasterUnreadableError(f"{what} cannot be read within {place}: {reason_of(error)}")


def _mask_source(dataset: DatasetReader, index: int) -> bool:
    """Whether a band's mask must be read: an internal mask or an alpha band; nodata is told from the values."""
    flags = dataset.mask_flag_enums[index - 1]
    return MaskFlags.per_dataset in flags or MaskFlags.alpha in flags


def _valid(
    dataset: DatasetReader, window: Window, values: Values, *, index: int, alpha: int | None, nodata: float | None
) -> Mask | None:
    if index == alpha:
        return None
    valid = None
    if _mask_source(dataset, index):
        valid = _read_mask(dataset, index, window)
    elif alpha is not None:  # GDAL forgets the alpha band where there is a nodata value, too
        valid = _read(dataset, [alpha], window)[0] > 0
    if nodata is None or math.isnan(nodata):
        return valid  # NaN is never valid, whether it is called nodata or not
    differs: Mask = values != np.asarray(nodata).astype(values.dtype)
    return differs if valid is None else differs & valid


def _blocks(dataset: DatasetReader) -> int:
    return sum(-(-dataset.height // rows) * -(-dataset.width // columns) for rows, columns in dataset.block_shapes)


def _numpy_name(kind: str) -> str:
    return "complex64" if kind == "complex_int16" else kind
