"""Statistics of a raster from a sample, where nobody has had all its pixels in hand.

What belongs here: reading an overview and counting it.  What does not: exact statistics, which validation and the
COG step make while they read every block (``geo_assets.raster``); the shape of the result is the same.

A band's statistics are a dict: ``minimum``, ``maximum``, ``mean``, ``stddev``, ``count`` (pixels looked at),
``valid_percent``, and ``histogram`` (``count`` of buckets, ``min``, ``max``, ``buckets``).  A band without one valid
pixel has only ``count`` and ``valid_percent``.
"""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags

__all__ = ["band_statistics", "sampled_statistics"]

_BUCKETS = 64
_PART = 16_384
_BYTE_VALUES = 256


def sampled_statistics(dataset: Any, *, largest_side: int = 1024) -> list[dict[str, Any]]:
    """Count a sample of every band of an open rasterio dataset.

    The first overview whose longer side is at most ``largest_side`` is read as it is; without one the raster is
    decimated to that size.

    Args:
        dataset: an open dataset.
        largest_side: pixels of the longer side of the sample.
    """
    height, width = _sample_shape(dataset, largest_side)
    alpha = next((band for band, what in enumerate(dataset.colorinterp, 1) if what is ColorInterp.alpha), None)
    shared = _shared_mask(dataset, (height, width), alpha)
    found = []
    for band in range(1, dataset.count + 1):
        values = dataset.read(band, out_shape=(height, width))
        mask = None if band == alpha else shared
        if mask is None and band != alpha and MaskFlags.all_valid not in dataset.mask_flag_enums[band - 1]:
            mask = dataset.read_masks(band, out_shape=(height, width)) != 0
        found.append(band_statistics(values, mask))
    return found


def band_statistics(values: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> dict[str, Any]:
    """Count one band.

    Args:
        values: the pixels.
        mask: true where a pixel is valid; ``None``: everywhere.
    """
    looked_at = int(values.size)
    if np.iscomplexobj(values):
        values = np.abs(values)
    valid = values.ravel() if mask is None else values[mask]
    if valid.dtype.kind == "f" and not (finite := np.isfinite(valid)).all():
        valid = valid[finite]
    result: dict[str, Any] = {
        "count": looked_at,
        "valid_percent": round(100.0 * valid.size / looked_at, 4) if looked_at else 0.0,
    }
    if valid.size == 0:
        return result
    if valid.dtype == np.uint8:
        return {**_of_bytes(valid), **result}
    return {**(_of_counts(valid) if valid.dtype == np.uint16 else _of_wide(valid)), **result}


def _of_bytes(valid: NDArray[np.uint8]) -> dict[str, Any]:
    counts = np.bincount(valid, minlength=_BYTE_VALUES)
    return {
        **_moments(np.arange(_BYTE_VALUES, dtype=np.float64), counts, valid.size),
        "histogram": {"count": _BYTE_VALUES, "min": 0, "max": 255, "buckets": counts.tolist()},
    }


def _of_counts(valid: NDArray[np.uint16]) -> dict[str, Any]:
    """Counting first leaves at most 65,536 values to compute with."""
    counts = np.bincount(valid)
    present = np.flatnonzero(counts)
    levels, counts = present.astype(np.float64), counts[present]
    found = _moments(levels, counts, valid.size)
    return found | _histogram(levels, found["minimum"], found["maximum"], counts)


def _moments(levels: NDArray[np.float64], counts: NDArray[np.intp], total: int) -> dict[str, Any]:
    present = np.flatnonzero(counts)
    mean = float(counts @ levels / total)
    return {
        "minimum": int(levels[present[0]]),
        "maximum": int(levels[present[-1]]),
        "mean": mean,
        "stddev": float(np.sqrt(counts @ (levels - mean) ** 2 / total)),
    }


def _of_wide(valid: NDArray[Any]) -> dict[str, Any]:
    low, high = valid.min(), valid.max()
    result: dict[str, Any] = {"minimum": _plain(low), "maximum": _plain(high)}
    # in double precision, as the sum of a million float32 values is not exact to a digit
    squares = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(valid.mean(dtype=np.float64))
        for part in _parts(valid):
            off = part.astype(np.float64) - mean
            off *= off  # np.dot would start threads, which then wait busily
            squares += float(off.sum())
        stddev = float(np.sqrt(squares / valid.size))
    if not np.isfinite(stddev) or not np.isfinite(mean):
        return result
    return {**result, "mean": mean, "stddev": stddev, **_histogram(valid, float(low), float(high))}


def _parts(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Parts whose copies stay in a core's cache; memory for whole copies costs more than computing with them."""
    for start in range(0, values.size, _PART):
        yield values[start : start + _PART]


def _histogram(
    values: NDArray[Any], low: float, high: float, weights: NDArray[np.intp] | None = None
) -> dict[str, Any]:  # fmt: skip
    """Buckets of equal width; empty where all values are equal or too far apart."""
    if not (high > low and np.isfinite(high - low) and np.isfinite(_BUCKETS / (high - low))):
        return {}
    buckets = np.zeros(_BUCKETS + 1, dtype=np.int64)
    for part, counts in zip(_parts(values), repeat(None) if weights is None else _parts(weights), strict=False):
        # numpy's own looks at every value again, in case rounding put it on the wrong side of an edge
        places = part.astype(np.float64) - low
        places *= _BUCKETS / (high - low)
        buckets += np.bincount(places.astype(np.intp), counts, minlength=_BUCKETS + 1).astype(np.int64)
    buckets[_BUCKETS - 1] += buckets[_BUCKETS:].sum()  # the highest value belongs to the last bucket
    return {
        "histogram": {"count": _BUCKETS, "min": float(low), "max": float(high), "buckets": buckets[:_BUCKETS].tolist()}
    }


def _plain(value: Any) -> int | float:
    plain = value.item()
    return plain if isinstance(plain, int) else float(plain)


def _sample_shape(dataset: Any, largest_side: int) -> tuple[int, int]:
    longer = max(dataset.height, dataset.width)
    if longer <= largest_side:
        return dataset.height, dataset.width
    for factor in sorted(dataset.overviews(1)):
        if -(-longer // factor) <= largest_side:
            return -(-dataset.height // factor), -(-dataset.width // factor)
    scale = longer / largest_side
    return max(1, round(dataset.height / scale)), max(1, round(dataset.width / scale))


def _shared_mask(dataset: Any, shape: tuple[int, int], alpha: int | None) -> NDArray[np.bool_] | None:
    """The mask that all bands share, read once; ``None`` where each band has its own or none."""
    if alpha is not None:
        return np.asarray(dataset.read(alpha, out_shape=shape) != 0)
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return np.asarray(dataset.read_masks(1, out_shape=shape) != 0)
    return None
