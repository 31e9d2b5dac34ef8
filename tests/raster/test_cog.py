"""COGs made of local rasters: pixels, places, validity, tiers, and what happens when something is wrong."""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_origin
from rasterio.vrt import WarpedVRT
from rio_cogeo.cogeo import cog_validate

import geo_assets.raster.cog
import geo_assets.raster.cog_proof
from geo_assets.errors import CogProofError, DiskFullError, ParameterError, RasterRefusedError, RasterUnreadableError
from geo_assets.raster.cog import CogJob, GdalEngine, Pixels, make_cogs, make_cogs_task
from geo_assets.raster.cog_settings import Encoding
from geo_assets.raster.open import gdal_environment
from tests.raster.rasters import UTM, fields, hills, noise, real

ALL_TIERS = ["analysis", "visualization", "archive"]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def write(path: Path, pixels: Any, *, mask: Any = None, colormap: Any = None, **profile: Any) -> Path:
    """A GeoTIFF in a UTM zone unless the profile says otherwise."""
    bands, height, width = pixels.shape
    settings = {**UTM, "driver": "GTiff", "count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **{**settings, **profile}) as dataset,
    ):
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
        if colormap is not None:
            dataset.write_colormap(1, colormap)
    return path


def make(source: Path, scratch: Path, **params: Any) -> dict[str, Any]:
    return make_cogs({"source": str(source), "driver": "GTiff", "scratch": str(scratch), **params})


@contextmanager
def tier_of(facts: dict[str, Any], tier: str = "analysis") -> Iterator[DatasetReader]:
    with rasterio.open(facts["tiers"][tier]["path"]) as dataset:
        yield dataset


def picture(size: int = 700) -> Any:
    """A smooth RGB picture without black."""
    return np.stack([hills(size, low=20 + 10 * band, high=200 + 10 * band) for band in range(3)]).astype("uint8")


# --- real files ------------------------------------------------------------------------------------------------


class RealFile(NamedTuple):
    name: str
    raster_type: str
    validity: str
    """Of the analysis tier, with and without reprojection."""
    warped_validity: str


REAL = [
    RealFile("aerial_rgba_uint16_utm12n.tif", "rgba", "alpha", "alpha"),
    RealFile("albers_int16_nodata.tif", "dem", "nodata", "nodata"),
    RealFile("alpha_3857.tif", "rgba", "alpha", "alpha"),
    RealFile("elevation_float64_4326.tif", "dem", "none", "none"),
    RealFile("goes_geostationary.tif", "rgb", "mask", "mask"),
    RealFile("hillshade_3857.tif", "grayscale", "nodata", "nodata"),
    RealFile("landcover_palette_laea.tif", "categorical", "none", "mask"),
    RealFile("landsat_rgb_utm18n.tif", "rgb", "nodata", "nodata"),
    RealFile("landsat_rgba_utm18n.tif", "rgba", "alpha", "alpha"),
    RealFile("world_byte_4326.tif", "categorical", "none", "none"),
]


@pytest.mark.parametrize("file", REAL, ids=lambda file: str(file.name))
def test_real_rasters_keep_every_pixel_and_meaning(file: RealFile, scratch: Path) -> None:
    source = real(file.name)
    facts = make(source, scratch, raster_type=file.raster_type)
    with rasterio.open(source) as before, tier_of(facts) as after:
        np.testing.assert_array_equal(after.read(), before.read())
        np.testing.assert_array_equal(after.dataset_mask(), before.dataset_mask())
        assert after.transform == before.transform
        assert after.crs == before.crs
        assert after.colorinterp == before.colorinterp
        assert after.nodata == before.nodata
        assert list(after.bounds) == facts["bounds"]
        if ColorInterp.palette in before.colorinterp:
            assert after.colormap(1) == before.colormap(1)
    assert cog_validate(facts["tiers"]["analysis"]["path"], quiet=True)[0]
    assert facts["tiers"]["analysis"]["validity"] == file.validity
    assert not facts["reprojection_performed"]


@pytest.mark.parametrize("file", REAL, ids=lambda file: str(file.name))
def test_real_rasters_reprojected_agree_with_a_warped_vrt(file: RealFile, scratch: Path) -> None:
    source = real(file.name)
    facts = make(source, scratch, raster_type=file.raster_type, target_crs="EPSG:4326", reproject_resampling="nearest")
    tier = facts["tiers"]["analysis"]
    assert tier["validity"] == file.warped_validity
    with rasterio.open(source) as before, tier_of(facts) as after:
        assert after.crs == CRS.from_epsg(4326)
        grid = {"crs": "EPSG:4326", "transform": after.transform, "width": after.width, "height": after.height}
        with gdal_environment(), WarpedVRT(before, resampling=Resampling.nearest, **grid) as oracle:
            wanted = oracle.read(out_dtype=after.dtypes[0])
        valid = after.dataset_mask() > 0
        # where a pixel's middle falls between two of the source's, rounding may go either way
        found, expected = after.read()[:, valid], wanted[:, valid]
        agree = ((found == expected) | ((found != found) & (expected != expected))).all(axis=0)  # noqa: PLR0124 - NaN
        assert agree.mean() > 0.99
        assert valid.any()
        assert after.colorinterp == before.colorinterp


# --- pixels under reprojection ---------------------------------------------------------------------------------


@pytest.mark.parametrize("resampling", ["bilinear", "cubic", "average"])
def test_a_smooth_surface_is_warped_as_gdal_does(resampling: str, tmp_path: Path, scratch: Path) -> None:
    surface = hills(600)[None].astype("float32")
    surface[0, 100:150, 200:300] = -9999
    source = write(tmp_path / "dem.tif", surface, nodata=-9999)
    facts = make(source, scratch, target_crs="EPSG:4326", raster_type="dem", reproject_resampling=resampling)
    with rasterio.open(source) as before, tier_of(facts) as after:
        grid = {"crs": "EPSG:4326", "transform": after.transform, "width": after.width, "height": after.height}
        with WarpedVRT(before, resampling=Resampling[resampling], **grid) as oracle:
            wanted = oracle.read(1, masked=True)
        found = after.read(1, masked=True)
        assert after.nodata == -9999
        assert (found.mask == wanted.mask).mean() > 0.999
        assert np.abs(found - wanted).max() < 3  # metres of 800, where slopes are steepest
        assert np.abs(found - wanted).mean() < 0.1
        # nodata never bleeds into what is beside it
        assert found.min() >= 99


def test_what_lies_outside_the_source_is_not_valid(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "rgb.tif", noise(3, 300, 400) | 1, transform=from_origin(100_000, 6_300_000, 100, 100))
    facts = make(source, scratch, target_crs="EPSG:4326", raster_type="rgb")
    with tier_of(facts) as after:
        mask = after.dataset_mask()
        assert after.count == 3
        assert after.nodata is None
        assert mask[0, 0] == 0
        assert 0.5 < (mask > 0).mean() < 1
        assert (after.read()[:, mask == 0] == 0).all()
    assert facts["tiers"]["analysis"]["validity"] == "mask"


def test_an_internal_mask_goes_along(tmp_path: Path, scratch: Path) -> None:
    mask = np.full((400, 500), 255, "uint8")
    mask[100:200, 50:150] = 0
    source = write(tmp_path / "masked.tif", noise(3, 400, 500), mask=mask)
    kept = make(source, scratch)
    with tier_of(kept) as after:
        np.testing.assert_array_equal(after.dataset_mask(), mask)
    warped = make(source, scratch, target_crs="EPSG:3857", reproject_resampling="nearest")
    with tier_of(warped) as after:
        hole = 1 - (after.dataset_mask() > 0).mean()
    assert hole == pytest.approx(0.05, abs=0.02)


def test_floats_without_nodata_get_nan_outside(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "f.tif", hills(256)[None].astype("float32"),
                   transform=from_origin(100_000, 6_300_000, 100, 100))  # fmt: skip
    facts = make(source, scratch, target_crs="EPSG:4326", raster_type="dem")
    assert facts["tiers"]["analysis"]["nodata"] == "nan"
    with tier_of(facts) as after:
        assert np.isnan(after.read(1)[0, 0])


def test_a_raster_across_the_antimeridian_stays_one_piece(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "fiji.tif", noise(1, 300, 400) | 1, crs="EPSG:32760",
                   transform=from_origin(650_000, 8_100_000, 500, 500))  # fmt: skip
    facts = make(source, scratch, target_crs="EPSG:4326")
    assert facts["beyond_antimeridian"]
    left, _, right, _ = facts["bounds"]
    assert 178 < left < 180 < right < 182
    west, _, east, _ = facts["bounds_4326"]
    assert west > 178
    assert east < -178
    with tier_of(facts) as after:
        assert (after.dataset_mask() > 0).mean() > 0.9
        # a pixel east of 180° is the right one
        row, column = after.height // 2, round((180.1 - left) / after.transform.a)
        x, y = after.xy(row, column)
        from rasterio.warp import transform as moved  # noqa: PLC0415

        xs, ys = moved("EPSG:4326", "EPSG:32760", [x], [y])
        with rasterio.open(source) as before:
            at = before.index(xs[0], ys[0])
            window = before.read(1)[at[0] - 2 : at[0] + 3, at[1] - 2 : at[1] + 3]
        near = make(source, scratch, target_crs="EPSG:4326", reproject_resampling="nearest")
    with tier_of(near) as nearest:
        assert nearest.read(1)[row, column] in window


def test_a_south_up_raster_is_mirrored_exactly(tmp_path: Path, scratch: Path) -> None:
    pixels = noise(2, 300, 200, dtype="uint16")
    source = write(tmp_path / "south.tif", pixels, transform=Affine(10, 0, 500_000, 0, 10, 5_000_000))
    facts = make(source, scratch)
    with tier_of(facts) as after:
        np.testing.assert_array_equal(after.read(), pixels[:, ::-1])
        assert after.transform == Affine(10, 0, 500_000, 0, -10, 5_003_000)
    assert make(source, scratch, target_crs="EPSG:4326")["shape"][1] > 200


@pytest.mark.parametrize("crs", ["EPSG:32633", None])
def test_a_rotated_raster_is_turned_to_north_up(crs: str | None, tmp_path: Path, scratch: Path) -> None:
    rotated = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    source = write(tmp_path / "rotated.tif", np.full((1, 200, 300), 7, "uint8"), crs=crs, transform=rotated)
    facts = make(source, scratch, raster_type="categorical")
    with tier_of(facts) as after:
        assert (after.transform.b, after.transform.d) == (0, 0)
        assert after.crs == (CRS.from_string(crs) if crs else None)
        valid = after.dataset_mask() > 0
        assert valid.sum() == pytest.approx(200 * 300, rel=0.02)
        assert (after.read(1)[valid] == 7).all()


def test_the_world_in_mercator_ends_before_the_poles(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "world.tif", noise(1, 180, 360), crs="EPSG:4326", transform=from_origin(-180, 90, 1, 1))
    facts = make(source, scratch, target_crs="EPSG:3857")
    _, bottom, _, top = facts["bounds"]
    assert top == pytest.approx(20_037_508, rel=0.01)
    assert bottom == pytest.approx(-20_037_508, rel=0.01)
    assert facts["shape"][0] == pytest.approx(facts["shape"][1], rel=0.1)


# --- tiers -----------------------------------------------------------------------------------------------------


def test_three_tiers_are_warped_once(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    warp = geo_assets.raster.cog._warp

    def counted(*args: Any) -> None:
        calls.append(args)
        warp(*args)

    monkeypatch.setattr(geo_assets.raster.cog, "_warp", counted)
    source = write(tmp_path / "rgb.tif", picture(), nodata=0, photometric="rgb")
    facts = make(source, scratch, tiers=ALL_TIERS, target_crs="EPSG:4326", raster_type="rgb")
    assert len(calls) == 1
    assert list(facts["tiers"]) == ALL_TIERS
    assert sorted(path.name for path in scratch.iterdir()) == ["analysis.tif", "archive.tif", "visualization.tif"]
    with tier_of(facts) as analysis, tier_of(facts, "archive") as archive, tier_of(facts, "visualization") as shown:
        np.testing.assert_array_equal(analysis.read(), archive.read())
        np.testing.assert_array_equal(analysis.dataset_mask(), shown.dataset_mask())
        assert analysis.nodata == archive.nodata == 0
        assert shown.nodata is None
        valid = analysis.dataset_mask() > 0
        gap = np.abs(analysis.read().astype(int) - shown.read())[:, valid]
        assert 0 < gap.mean() < 3
    for tier in facts["tiers"].values():
        path = Path(tier["path"])
        assert tier["size"] == path.stat().st_size
        assert tier["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert tier["overviews"] == [2]
        assert tier["proof"]["compared"] == "all"


def test_quality_works(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "rgb.tif", picture() + noise(3, 700, 700) // 8, photometric="rgb")
    sizes = []
    for quality in (30, 90):
        facts = make(source, scratch, tiers=["visualization"], raster_type="rgb", jpeg_quality=quality)
        tier = facts["tiers"]["visualization"]
        assert (tier["compression"], tier["quality"], tier["lossless"]) == ("jpeg", quality, False)
        sizes.append(tier["size"])
    assert sizes[1] > 1.5 * sizes[0]


def test_alpha_becomes_a_mask_in_jpeg_and_stays_alpha_in_webp(tmp_path: Path, scratch: Path) -> None:
    alpha = np.full((1, 700, 700), 255, "uint8")
    alpha[:, :100] = 0
    source = write(tmp_path / "rgba.tif", np.concatenate([picture(), alpha]), photometric="rgb", alpha="yes")
    shown = make(source, scratch, tiers=["visualization"], raster_type="rgba")["tiers"]["visualization"]
    assert (shown["compression"], shown["validity"]) == ("webp", "alpha")
    asked = make(source, scratch, tiers=["visualization"], raster_type="rgba", compression="jpeg")
    with tier_of(asked, "visualization") as after:
        assert after.count == 3
        np.testing.assert_array_equal(after.dataset_mask(), alpha[0])


def test_noise_that_jpeg_spoils_is_kept_lossless_and_that_is_said(tmp_path: Path, scratch: Path) -> None:
    pixels = noise(3, 300, 300)
    source = write(tmp_path / "noise.tif", pixels, photometric="rgb")
    tier = make(source, scratch, tiers=["visualization"], raster_type="rgb")["tiers"]["visualization"]
    assert tier["lossless"]
    assert any("grey levels" in note for note in tier["notes"])
    with rasterio.open(tier["path"]) as after:
        np.testing.assert_array_equal(after.read(), pixels)


@pytest.mark.parametrize("compression", ["deflate", "zstd", "lzw", "lerc", "lerc_deflate", "lerc_zstd", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_lossless_codec_is_lossless(compression: str, dtype: str, tmp_path: Path, scratch: Path) -> None:
    pixels = noise(2, 200, 300, dtype=dtype)
    source = write(tmp_path / "a.tif", pixels)
    facts = make(source, scratch, compression=compression, blocksize=128)
    with tier_of(facts) as after:
        np.testing.assert_array_equal(after.read(), pixels)
        assert set(after.block_shapes) == {(128, 128)}
        assert after.overviews(1) == [2, 4]


@pytest.mark.parametrize(
    "dtype", ["int8", "uint32", "int32", "uint64", "int64", "float64", "complex64", "complex128", "float16"]
)
@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_every_data_type_goes_through(dtype: str, target: str | None, tmp_path: Path, scratch: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 100, (1, 120, 130)).astype(dtype)
    source = write(tmp_path / "a.tif", pixels)
    facts = make(source, scratch, target_crs=target)
    assert facts["dtype"] == ("float32" if dtype == "float16" else dtype)
    if target is None:
        with tier_of(facts) as after:
            np.testing.assert_array_equal(after.read(), pixels)


def test_one_bit_stays_one_bit(tmp_path: Path, scratch: Path) -> None:
    pixels = (noise(1, 700, 900) > 127).astype("uint8")
    source = write(tmp_path / "bits.tif", pixels, nbits=1)
    facts = make(source, scratch, raster_type="categorical")
    with tier_of(facts) as after:
        np.testing.assert_array_equal(after.read(), pixels)
        assert after.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "1"
    assert make(source, scratch, raster_type="categorical", target_crs="EPSG:4326")["tiers"]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 700), (20_000, 1), (513, 512)])
@pytest.mark.parametrize("target", [None, "EPSG:4326"])
def test_odd_sizes(width: int, height: int, target: str | None, tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "odd.tif", noise(1, height, width))
    facts = make(source, scratch, target_crs=target, tiers=["analysis", "archive"])
    assert facts["tiers"]["analysis"]["proof"]["equal"]


def test_class_numbers_are_never_mixed_in_overviews(tmp_path: Path, scratch: Path) -> None:
    classes = fields(1024).astype("uint8")[None] * 30
    colors = {index: (index, 255 - index, 0, 255) for index in range(256)}
    source = write(tmp_path / "classes.tif", classes, colormap=colors)
    facts = make(source, scratch, raster_type="categorical", overview_resampling="average", target_crs="EPSG:4326")
    assert any("colour table" in note for note in facts["notes"])
    with tier_of(facts) as after:
        assert after.colormap(1)[30] == (30, 225, 0, 255)
        small = after.read(1, out_shape=(after.height // 2, after.width // 2))
        assert set(np.unique(small)) <= set(np.unique(classes)) | {0}


def test_descriptions_units_and_tags_survive_reprojection(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "named.tif", noise(2, 100, 100, dtype="int16"))
    with rasterio.open(source, "r+") as dataset:
        dataset.descriptions = ("height", "error")
        dataset.units = ("m", "m")
        dataset.scales, dataset.offsets = (0.1, 0.1), (5.0, 0.0)
        dataset.update_tags(ACQUIRED="2020-01-01")
    facts = make(source, scratch, target_crs="EPSG:4326")
    with tier_of(facts) as after:
        assert after.descriptions == ("height", "error")
        assert after.units == ("m", "m")
        assert (after.scales, after.offsets) == ((0.1, 0.1), (5.0, 0.0))
        assert after.tags()["ACQUIRED"] == "2020-01-01"


def test_overviews_of_the_source_are_not_trusted(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "a.tif", np.full((1, 1100, 1100), 100, "uint8"), tiled=True)
    with rasterio.open(source, "r+") as dataset:
        dataset.build_overviews([2], Resampling.nearest)
    with rasterio.open(source, "r+", OVERVIEW_LEVEL=0) as overview:
        overview.write(np.zeros((1, 550, 550), "uint8"))
    with rasterio.open(source) as dataset:
        assert dataset.read(1, out_shape=(550, 550)).max() == 0
    with tier_of(make(source, scratch)) as after:
        assert after.read(1, out_shape=(550, 550)).min() == 100


def test_statistics_come_along(tmp_path: Path, scratch: Path) -> None:
    pixels = np.full((1, 100, 100), 50, "int16")
    pixels[0, :50] = -1
    source = write(tmp_path / "a.tif", pixels, nodata=-1)
    (band,) = make(source, scratch)["statistics"]
    assert (band["minimum"], band["maximum"], band["valid_percent"]) == (50.0, 50.0, 50.0)
    assert not band["approximate"]


# --- when something is wrong -----------------------------------------------------------------------------------


def test_a_raster_without_crs_keeps_none_takes_one_or_is_refused(tmp_path: Path, scratch: Path) -> None:
    pixels = noise(1, 300, 300)
    source = write(tmp_path / "nowhere.tif", pixels, crs=None)
    with pytest.raises(RasterRefusedError, match="input_crs"):
        make(source, scratch, target_crs="EPSG:4326")
    assert make(source, scratch)["target_crs"] is None
    given = make(source, scratch, input_crs="EPSG:32633")
    with tier_of(given) as after:
        assert after.crs == CRS.from_epsg(32633)
        np.testing.assert_array_equal(after.read(), pixels)
    warped = make(source, scratch, input_crs="EPSG:32633", target_crs="EPSG:4326")
    with tier_of(warped) as after:
        assert (after.dataset_mask() > 0).mean() > 0.9
        assert after.read().any()


def test_the_driver_must_be_the_one_that_was_validated(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "a.tif", noise(1, 10, 10))
    with pytest.raises(RasterRefusedError, match="not PNG"):
        make_cogs({"source": str(source), "driver": "PNG", "scratch": str(scratch)})


def test_a_full_disk_is_known_before_the_work(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    source = write(tmp_path / "a.tif", noise(1, 1000, 1000))

    def nothing_free(path: Path) -> Any:
        return SimpleNamespace(free=1000)

    monkeypatch.setattr("geo_assets.raster.cog.shutil.disk_usage", nothing_free)
    with pytest.raises(DiskFullError, match="1000 by 1000"):
        make(source, scratch)
    assert not list(scratch.iterdir())


def test_a_disk_that_fills_up_is_worth_another_try(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    source = write(tmp_path / "a.tif", noise(1, 100, 100))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geo_assets.raster.cog.rasterio.shutil.copy", full)
    with pytest.raises(DiskFullError):
        make(source, scratch)


def test_pieces_written_behind_are_the_same(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    # more rows than a tile, so that several pieces follow one another; the corners are masked
    monkeypatch.setattr(geo_assets.raster.cog, "_PIECE_BYTES", 1)
    source = write(tmp_path / "rgb.tif", noise(3, 1500, 700) | 1, photometric="rgb")
    made = []
    for threads in (1, 3):
        facts = make(source, scratch, target_crs="EPSG:4326", raster_type="rgb", threads=threads)
        assert facts["shape"][0] > 2 * 512
        made.append((facts["tiers"]["analysis"]["sha256"], facts["tiers"]["analysis"]["validity"]))
    assert made[0][1] == "mask"
    assert made[0] == made[1]


@pytest.mark.parametrize("holes", [0, 1])
def test_nan_is_invalid_whether_the_file_says_so_or_not(
    holes: int, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # several pieces, of which one has NaN in it: pieces without are warped another way
    monkeypatch.setattr(geo_assets.raster.cog, "_PIECE_BYTES", 1)
    values = noise(1, 1300, 900).astype("float32")
    values[0, 100:120, 300:330] = np.nan if holes else 7
    values[0, 140, 300] = np.inf if holes else 7
    made = []
    for nodata in (None, np.nan):
        source = write(tmp_path / f"{nodata}.tif", values, nodata=nodata)
        facts = make(source, scratch, target_crs="EPSG:4326", raster_type="dem")
        with tier_of(facts) as dataset:
            made.append(dataset.read())
            assert np.isnan(dataset.nodata)
    np.testing.assert_allclose(made[0], made[1], rtol=1e-5)


def test_small_rasters_leave_the_other_cores_to_other_workers(tmp_path: Path, scratch: Path) -> None:
    small = write(tmp_path / "small.tif", noise(1, 600, 700))
    large = write(tmp_path / "large.tif", np.zeros((9, 1000, 1000), "uint8"))
    assert make(small, scratch)["threads"] == 1
    assert make(small, scratch, threads=3)["threads"] == 3
    assert make(large, scratch)["threads"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("height", [300, 1500], ids=["last piece", "piece before"])
def test_a_disk_that_fills_up_behind_is_noticed(
    height: int, tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("geo_assets.raster.cog._MaskWriter.write", full)
    monkeypatch.setattr(geo_assets.raster.cog, "_PIECE_BYTES", 1)
    source = write(tmp_path / "rgb.tif", noise(3, height, 300) | 1)
    with pytest.raises(DiskFullError):
        make(source, scratch, target_crs="EPSG:4326", threads=2)
    assert not list(scratch.iterdir())


def test_a_source_cut_off_leaves_nothing_behind(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "cut.tif", noise(3, 500, 500), compress="deflate")
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 6 // 10])
    for target in (None, "EPSG:4326"):
        with pytest.raises(RasterUnreadableError):
            make(source, scratch, target_crs=target, tiers=["analysis", "archive"])
        assert not list(scratch.iterdir())


class Spoiling:
    """An engine whose tiers are spoiled after they were written."""

    name = "spoiling"

    def __init__(self, spoil: Any) -> None:
        self._spoil = spoil

    @contextmanager
    def pixels(self, job: CogJob) -> Iterator[Pixels]:
        with GdalEngine().pixels(job) as pixels:
            yield _SpoiledPixels(pixels, self._spoil)


class _SpoiledPixels:
    def __init__(self, pixels: Pixels, spoil: Any) -> None:
        self._pixels = pixels
        self._spoil = spoil

    def reference(self) -> AbstractContextManager[DatasetReader]:
        return self._pixels.reference()

    def write(self, encoding: Encoding, path: Path) -> None:
        self._pixels.write(encoding, path)
        self._spoil(path)


def cut(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 6 // 10])


def no_cog(path: Path) -> None:
    with rasterio.open(path) as dataset:
        pixels, profile = dataset.read(), dataset.profile
    profile.update(tiled=False, driver="GTiff", compress=None)
    for name in ("blockxsize", "blockysize"):
        profile.pop(name, None)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)


def remade(**changes: Any) -> Any:
    """Write the COG again, with something changed."""

    def spoil(path: Path) -> None:
        with rasterio.open(path) as dataset:
            pixels, profile = dataset.read(), dataset.profile
        profile = {key: profile[key] for key in ("count", "dtype", "width", "height", "crs", "transform", "nodata")}
        if "pixel" in changes:
            pixels[0, 600, 600] ^= changes["pixel"]
        profile.update({key: value for key, value in changes.items() if key != "pixel"})
        with rasterio.open(
            path, "w", driver="COG", compress="ZSTD", level=3, predictor="STANDARD", blocksize=512, **profile
        ) as dataset:
            dataset.write(pixels)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (cut, "cannot be read|cannot be opened"),
        (no_cog, "no valid COG"),
        (remade(pixel=1), "differs from its source in columns"),
        (remade(transform=from_origin(500_005, 5_300_000, 10, 10)), "geotransform"),
        (remade(crs="EPSG:32634"), "CRS"),
        (remade(nodata=3), "nodata"),
    ],
    ids=["cut off", "no COG", "one bit", "half a pixel", "other CRS", "other nodata"],
)
def test_what_is_not_proven_is_not_kept(spoil: Any, says: str, tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "a.tif", noise(1, 1300, 1300))
    with pytest.raises(CogProofError, match=says):
        make_cogs({"source": str(source), "scratch": str(scratch)}, engine=Spoiling(spoil))
    assert not list(scratch.iterdir())


def test_the_same_remade_cog_passes(tmp_path: Path, scratch: Path) -> None:
    """The spoiled ones above fail for what was changed, not for having been written again."""
    source = write(tmp_path / "a.tif", noise(1, 1300, 1300))
    facts = make_cogs({"source": str(source), "scratch": str(scratch)}, engine=Spoiling(remade()))
    assert facts["engine"] == "spoiling"
    assert facts["tiers"]["analysis"]["proof"]["equal"]


def test_big_rasters_are_compared_in_samples(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("geo_assets.raster.cog_proof._PIECE_BYTES", 512 * 512)
    prove = geo_assets.raster.cog_proof.prove
    monkeypatch.setattr(
        "geo_assets.raster.cog.prove",
        lambda *args, **more: prove(*args, compare_all_bytes=512 * 512 * 3, **more),
    )
    source = write(tmp_path / "a.tif", noise(1, 1536, 1536))
    proof = make(source, scratch)["tiers"]["analysis"]["proof"]
    assert proof["compared"] == "sampled"
    assert 0 < proof["pixels_compared"] < 1536 * 1536


def test_the_task_says_invalid_where_the_file_is_to_blame(tmp_path: Path, scratch: Path) -> None:
    source = write(tmp_path / "a.tif", noise(1, 100, 100), crs=None)
    params = {"source": str(source), "scratch": str(scratch)}
    assert make_cogs_task(params)["success"]
    refused = make_cogs_task({**params, "target_crs": "EPSG:4326"})
    assert (refused["success"], refused["error"], refused["outcome"]) == (False, "CRS_CHECK_FAILED", "invalid")
    wrong = make_cogs_task({**params, "compression": "zip"})
    assert wrong["error"] == "PARAMETER_ERROR"
    source.write_bytes(b"II*\0" + bytes(100))
    assert make_cogs_task(params)["error"] == "FILE_UNREADABLE"


def test_parameters_are_checked_before_the_file_is_opened(scratch: Path) -> None:
    with pytest.raises(ParameterError, match="compression"):
        make(Path("/nowhere/at/all.tif"), scratch, compression="zip")
