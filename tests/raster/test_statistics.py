"""Statistics added up piece by piece against numpy on the whole.

What belongs here: accumulators and pieces.  What does not: what is concluded from them (``test_raster_type``).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import RasterUnreadableError
from geo_assets.raster.open import open_raster
from geo_assets.raster.statistics import BandAccumulator, BandStatistics, pieces, read_everything
from tests.raster.rasters import BUDGET, convert, noise, write


def of(values: Any, valid: Any = None, *, rows: int = 7) -> BandStatistics:
    """Statistics of an array, fed in pieces of so many rows."""
    accumulator = BandAccumulator(values.dtype.name, values.size)
    for start in range(0, values.shape[0], rows):
        part = slice(start, start + rows)
        accumulator.add(values[part], None if valid is None else valid[part])
    return accumulator.result()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64", "float32", "float64"]
)
@pytest.mark.parametrize("masked", [False, True])
def test_the_numbers_are_numpys(dtype: str, masked: bool) -> None:  # noqa: FBT001
    values = noise(50, 41, dtype=dtype)
    valid = noise(50, 41, seed=5) > 100 if masked else None
    chosen = values.ravel() if valid is None else values[valid]
    stats = of(values, valid)
    assert stats.valid == chosen.size
    assert stats.pixels == values.size
    assert (stats.minimum, stats.maximum) == (float(chosen.min()), float(chosen.max()))
    assert stats.mean == pytest.approx(float(chosen.astype(float).mean()), rel=1e-9, abs=1e-6)
    assert stats.stddev == pytest.approx(float(chosen.astype(float).std()), rel=1e-9)
    assert sum(stats.histogram) == chosen.size
    assert stats.distinct == np.unique(chosen.astype(float)).size
    assert stats.integers == (np.dtype(dtype).kind in "iu")
    assert stats.percentiles is not None
    low, high = np.percentile(chosen.astype(float), [2, 98])
    width = float(chosen.max()) - float(chosen.min())
    assert stats.percentiles == pytest.approx((low, high), abs=width / 100)


def test_small_differences_of_large_values_are_kept() -> None:
    values = (1e8 + noise(60, 60, dtype="float64")).astype("float64")
    stats = of(values)
    assert stats.stddev == pytest.approx(values.std(), rel=1e-6)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_cut_into_pieces_does_not_matter(rows: int, seed: int) -> None:
    values = noise(30, 20, dtype="float32", seed=seed)
    one, other = of(values, rows=30), of(values, rows=rows)
    assert other.mean == pytest.approx(one.mean)
    assert other.stddev == pytest.approx(one.stddev)
    assert (other.minimum, other.maximum, other.distinct) == (one.minimum, one.maximum, one.distinct)


def test_nan_and_infinity_are_counted_and_left_out() -> None:
    values = np.array([[1.0, np.nan, 3.0], [np.inf, -np.inf, 5.0]], dtype="float32")
    stats = of(values)
    assert (stats.valid, stats.nan, stats.infinite) == (3, 1, 2)
    assert (stats.minimum, stats.maximum, stats.mean) == (1.0, 5.0, 3.0)


def test_nothing_valid_gives_no_numbers() -> None:
    stats = of(np.full((4, 4), np.nan, dtype="float32"))
    assert (stats.valid, stats.minimum, stats.mean, stats.percentiles, stats.histogram) == (0, None, None, None, ())
    assert stats.as_dict()["histogram"] is None
    empty = of(np.zeros((4, 4), dtype="uint8"), np.zeros((4, 4), dtype=bool))
    assert (empty.minimum, empty.distinct) == (None, 0)


def test_complex_values_count_by_magnitude() -> None:
    stats = of(np.array([[3 + 4j, 0j]], dtype="complex64"))
    assert (stats.minimum, stats.maximum, stats.integers) == (0.0, 5.0, False)


@pytest.mark.parametrize(
    "profile",
    [
        {"tiled": True, "blockxsize": 64, "blockysize": 64},
        {"tiled": True, "blockxsize": 64, "blockysize": 128, "interleave": "band"},
        {"blockysize": 3, "interleave": "pixel"},
        {"blockysize": 300, "compress": "deflate"},
    ],
)
@pytest.mark.parametrize("limit", [1, 50_000, 1 << 30])
def test_pieces_cover_every_pixel_of_every_band_once(profile: dict[str, Any], limit: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(3, 300, 200), **profile)
    covered = np.zeros((3, 300, 200), dtype=int)
    with open_raster(path, budget=BUDGET) as dataset:
        height, width = dataset.block_shapes[0]
        for bands, window in pieces(dataset, limit_bytes=limit):
            assert window.row_off % height == 0
            assert window.col_off % width == 0
            (top, bottom), (left, right) = window.toranges()
            for band in bands:
                covered[band - 1, top:bottom, left:right] += 1
    assert (covered == 1).all()


def test_masks_nodata_and_alpha_all_count(tmp_path: Path) -> None:
    pixels = noise(4, 64, 64)
    pixels[:3, :16] = 0
    pixels[3] = 255
    pixels[3, 32:] = 0
    path = write(tmp_path / "x.tif", pixels, nodata=0, photometric="RGB", alpha="YES")
    with open_raster(path, budget=BUDGET) as dataset:
        reading = read_everything(dataset, dataset.nodatavals)
    expected = int((pixels[0, :32] != 0).sum())
    assert reading.bands[0].valid == expected
    assert reading.bands[3].valid == 64 * 64
    assert reading.blocks >= 4


def test_the_place_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(512, 512), tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4 :] = bytes(len(content) - len(content) * 3 // 4)
    damaged = tmp_path / "y.tif"
    damaged.write_bytes(content)
    with (
        open_raster(damaged, budget=BUDGET) as dataset,
        pytest.raises(RasterUnreadableError, match=r"band 1 cannot be read within columns 0 to 512, rows"),
    ):
        read_everything(dataset, dataset.nodatavals)


def test_an_internal_mask_is_read(tmp_path: Path) -> None:
    source = write(tmp_path / "s.tif", noise(1, 256, 256), nodata=0)
    path = convert(source, tmp_path / "x.tif", "COG", COMPRESS="JPEG", ADD_ALPHA="NO")
    with open_raster(path, budget=BUDGET) as dataset:
        stats = read_everything(dataset, dataset.nodatavals).bands[0]
        assert stats.valid == int((dataset.read_masks(1) > 0).sum())
