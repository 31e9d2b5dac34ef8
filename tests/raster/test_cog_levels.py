"""Overviews in files beside the pixels: the same as GDAL's own, and nothing invalid in them that counts as valid."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from rasterio.enums import Resampling

from geo_assets.raster.cog import make_cogs
from geo_assets.raster.cog_levels import build_levels, level_count, levels_suit, open_with_levels, remove_levels
from tests.raster.rasters import UTM, noise

SIDE = 1024, 2048
RAGGED = 701, 1303


def outside(height: int, width: int) -> Any:
    """Where a turned picture has nothing."""
    rows, columns = np.mgrid[:height, :width]
    return (rows + columns // 3 < height // 3) | (columns > width - 60)


def pixels_file(folder: Path, shape: tuple[int, int], validity: str = "none", **profile: Any) -> Path:
    height, width = shape
    path = folder / "pixels.tif"
    settings: dict[str, Any] = {
        **UTM, "driver": "GTiff", "count": 3, "height": height, "width": width, "dtype": "uint8", "tiled": True,
        "blockxsize": 256, "blockysize": 256, "interleave": "band", **profile,
    }  # fmt: skip
    if validity == "nodata":
        settings["nodata"] = 0
    values = np.maximum(noise(settings["count"], height, width), 1).astype(settings["dtype"])
    values[:, outside(height, width)] = 0 if validity != "none" else values[:, outside(height, width)]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **settings) as dataset:
        dataset.write(values)
        if validity == "mask":
            dataset.write_mask(~outside(height, width))
    return path


def levels(path: Path, count: int) -> list[tuple[Any, Any]]:
    """Values and mask of every overview."""
    found = []
    for level in range(count):
        with rasterio.open(path, OVERVIEW_LEVEL=level) as dataset:
            found.append((dataset.read(), dataset.read_masks(1)))
    return found


def build(path: Path, count: int, resampling: str, *, threads: int = 2) -> None:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        build_levels(path, count=count, resampling=resampling, block=256, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("validity", ["none", "nodata", "mask"])
@pytest.mark.parametrize("resampling", ["cubic", "bilinear"])
def test_levels_are_those_of_gdals_cog_driver(tmp_path: Path, validity: str, resampling: str, threads: int) -> None:
    path, peer = pixels_file(tmp_path, SIDE, validity), tmp_path / "peer.tif"
    with rasterio.open(path) as dataset:
        assert levels_suit(dataset, resampling)
        rasterio.shutil.copy(dataset, peer, driver="COG", BLOCKSIZE="256", OVERVIEW_RESAMPLING=resampling.upper())
    build(path, 3, resampling, threads=threads)
    for level, ((ours, _), (theirs, _)) in enumerate(zip(levels(path, 3), levels(peer, 3), strict=True)):
        assert ours.shape == theirs.shape
        # above the first level the edge of what is valid is where the mask of the level below has it, and ours has more
        most = 0.02 if validity == "mask" and level > 0 else 0
        assert (ours != theirs).any(axis=0).mean() <= most


@pytest.mark.parametrize("layout", [{"interleave": "pixel", "tiled": False}, {"interleave": "pixel"}, {}])
@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_layout_and_type_change_nothing(tmp_path: Path, layout: dict[str, Any], dtype: str) -> None:
    if layout.get("tiled") is False:
        layout = {**layout, "blockxsize": RAGGED[1], "blockysize": 5}
    path = pixels_file(tmp_path, RAGGED, dtype=dtype, **layout)
    build(path, 2, "cubic")
    with rasterio.open(path, "r") as dataset:
        first = dataset.read(out_shape=(3, -(-RAGGED[0] // 2), -(-RAGGED[1] // 2)))
    whole = pixels_file(tmp_path, RAGGED, dtype=dtype)
    remove_levels(whole)
    with rasterio.open(whole, "r+") as dataset:
        dataset.build_overviews([2, 4], Resampling.cubic)
    (expected, _), _ = levels(whole, 2)
    np.testing.assert_allclose(first, expected, rtol=1e-12)


def test_nothing_invalid_counts_as_valid(tmp_path: Path) -> None:
    path, cog = pixels_file(tmp_path, RAGGED, "mask"), tmp_path / "cog.tif"
    build(path, 3, "bilinear")
    with open_with_levels(path) as dataset:
        rasterio.shutil.copy(dataset, cog, driver="COG", BLOCKSIZE="256", OVERVIEW_RESAMPLING="NEAREST")
    for level, (values, mask) in enumerate(levels(cog, 3), start=1):
        assert values.shape[1:] == (-(-RAGGED[0] // 2**level), -(-RAGGED[1] // 2**level))
        assert (values[:, mask > 0] > 0).all()
        share = (mask > 0).mean() - (~outside(*RAGGED)).mean()
        assert abs(share) < 0.01 * 2**level


@pytest.mark.parametrize(
    ("profile", "resampling"),
    [({}, "average"), ({}, "mode"), ({}, "nearest"), ({"count": 4, "alpha": "yes"}, "cubic"), ({"nbits": 1}, "cubic"),
     ({"dtype": "complex64"}, "cubic"), ({"count": 1}, "cubic")],
)  # fmt: skip
def test_what_does_not_suit_is_left_to_gdal(tmp_path: Path, profile: dict[str, Any], resampling: str) -> None:
    path = pixels_file(tmp_path, (64, 64), **profile)
    if profile.get("count") == 1:
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, {1: (255, 0, 0, 255)})
    with rasterio.open(path) as dataset:
        assert not levels_suit(dataset, resampling)


@pytest.mark.parametrize(
    ("width", "height", "count"), [(512, 512, 0), (513, 1, 1), (1024, 1024, 1), (1025, 3, 2), (1, 9000, 5)]
)
def test_levels_lead_down_to_one_tile(width: int, height: int, count: int) -> None:
    assert level_count(width, height, 512) == count


@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_a_cog_has_the_levels_and_leaves_none_beside_it(tmp_path: Path, target: str | None) -> None:
    source, scratch = pixels_file(tmp_path, RAGGED, photometric="rgb"), tmp_path / "scratch"
    scratch.mkdir()
    facts = make_cogs({
        "source": str(source), "scratch": str(scratch), "raster_type": "rgb", "target_crs": target, "blocksize": 256,
        "overview_resampling": "cubic",
    })  # fmt: skip
    assert "overviews" in facts["timings"]
    assert sorted(path.name for path in scratch.iterdir()) == ["analysis.tif"]
    cog = Path(facts["tiers"]["analysis"]["path"])
    with rasterio.open(cog) as dataset:
        count = len(dataset.overviews(1))
        values = dataset.read()
    assert count == level_count(values.shape[2], values.shape[1], 256)
    smallest, mask = levels(cog, count)[-1]
    assert abs(smallest[:, mask > 0].mean() - values[values > 0].mean()) < 3
