"""What kind a raster is, told from its values, colours and bands; and the settings that follow.

What belongs here: the rules, each with a raster that shows it.  What does not: reading (``test_statistics``).
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.enums import ColorInterp

from geo_assets.jobs.validate_raster_job import RASTER_TYPES as JOB_TYPES
from geo_assets.raster.raster_type import RASTER_TYPES, cog_settings
from geo_assets.raster.validate import RASTER_TYPE_PARAMETERS
from tests.raster.rasters import Pixels, fields, hills, invalid, noise, valid, write


def detected(path: Path) -> tuple[str, str]:
    found = valid(path)["raster_type"]
    assert found["type_source"] == "auto_detected"
    assert found["evidence"]
    return found["detected_type"], found["confidence"]


def with_nodata(pixels: Pixels, value: float) -> Pixels:
    pixels = pixels.copy()
    pixels[:80, :] = value
    return pixels


@pytest.mark.parametrize(
    ("pixels", "profile", "expected"),
    [
        # the original called every single band of floats or signed integers a DEM
        (fields().astype("float32"), {}, "categorical"),
        (fields().astype("int16"), {}, "categorical"),
        (fields(classes=30).astype("int32"), {}, "categorical"),
        (fields(classes=200, patch=4).astype("uint8"), {}, "categorical"),
        (fields(classes=3000, patch=4).astype("int32") * 7, {}, "categorical"),
        (fields().astype("uint16"), {}, "categorical"),
        (noise(256, 256) % 12, {}, "categorical"),
        ((noise(256, 256) % 2).astype("float32"), {}, "categorical"),
        (hills().astype("float32"), {}, "dem"),
        (hills().astype("float64"), {}, "dem"),
        (hills().astype("int16"), {}, "dem"),
        (hills(low=0, high=120).astype("int16"), {}, "dem"),
        (hills(low=0, high=25).astype("int16"), {}, "dem"),
        (hills(low=-11_000, high=8800).astype("int32"), {}, "dem"),
        # the original called these unknown
        (noise(256, 256), {}, "grayscale"),
        (hills(low=0, high=255).astype("uint8"), {}, "grayscale"),
        (hills(low=0, high=60_000).astype("uint16"), {}, "continuous"),
        (noise(256, 256, dtype="uint16"), {}, "continuous"),
        (noise(2, 256, 256, dtype="float32"), {}, "continuous"),
        (noise(256, 256, dtype="float32"), {}, "continuous"),
        (hills(low=-1, high=1).astype("float32"), {}, "continuous"),
        (hills(low=0, high=90_000).astype("float32"), {}, "continuous"),
        # nodata does not count
        (with_nodata(fields().astype("int16"), -9999), {"nodata": -9999}, "categorical"),
        (with_nodata(hills().astype("float32"), -3.4e38), {"nodata": -3.4e38}, "dem"),
        (with_nodata(hills().astype("float32"), np.nan), {"nodata": np.nan}, "dem"),
        # several bands
        (noise(3, 64, 64), {"photometric": "MINISBLACK"}, "rgb"),
        (noise(3, 64, 64, dtype="uint16"), {"photometric": "MINISBLACK"}, "rgb"),
        (noise(3, 64, 64, dtype="float32"), {}, "multispectral"),
        (noise(4, 64, 64, dtype="float32"), {}, "multispectral"),
        (noise(4, 64, 64, dtype="uint16"), {"photometric": "MINISBLACK", "alpha": "NO"}, "nir"),
        (noise(5, 64, 64), {"photometric": "MINISBLACK"}, "multispectral"),
        (noise(13, 64, 64, dtype="uint16"), {}, "multispectral"),
        (noise(64, 64, dtype="float32").astype("complex64"), {}, "unknown"),
    ],
)
def test_the_values_tell_the_type(pixels: Pixels, profile: dict[str, Any], expected: str, tmp_path: Path) -> None:
    assert detected(write(tmp_path / "x.tif", pixels, **profile))[0] == expected


def test_classes_outside_the_corner_count(tmp_path: Path) -> None:
    # the original looked at the upper left 1000 x 1000 pixels
    pixels = np.ones((1200, 1200), dtype="float32")
    pixels[1100:, 1100:] = hills(100).astype("float32")
    assert detected(write(tmp_path / "x.tif", pixels))[0] != "categorical"


def test_a_colour_table_says_categorical(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(64, 64), photometric="palette")
    import rasterio  # noqa: PLC0415

    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {value: (value, 0, 0, 255) for value in range(256)})
    assert detected(path) == ("categorical", "VERY_HIGH")


RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


@pytest.mark.parametrize(
    ("colors", "expected"),
    [
        (RGB, ("rgb", "VERY_HIGH")),
        (RGB[::-1], ("rgb", "VERY_HIGH")),
        ([*RGB, ColorInterp.alpha], ("rgba", "VERY_HIGH")),
        ([*RGB, ColorInterp.undefined], ("nir", "MEDIUM")),
    ],
)
def test_declared_colours_count(colors: list[ColorInterp], expected: tuple[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(len(colors), 64, 64), photometric="MINISBLACK", colorinterp=colors)
    assert detected(path) == expected


def test_an_alpha_band_beside_one_band_does_not_count(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(2, 64, 64), photometric="MINISBLACK", alpha="YES")
    assert detected(path) == ("grayscale", "HIGH")


def test_a_fourth_band_of_nothing_and_all_is_taken_for_alpha(tmp_path: Path) -> None:
    pixels = noise(4, 64, 64)
    pixels[3] = np.where(pixels[3] > 128, 255, 0)
    path = write(tmp_path / "x.tif", pixels, photometric="MINISBLACK", alpha="NO")
    assert detected(path) == ("rgba", "HIGH")


@pytest.mark.parametrize(
    ("unit", "description", "expected"),
    [("m", "", "dem"), ("", "Elevation (EGM96)", "dem"), ("K", "", "continuous"), ("", "soil moisture", "continuous")],
)
def test_units_and_descriptions_count(unit: str, description: str, expected: str, tmp_path: Path) -> None:
    pixels = noise(64, 64, dtype="float32") * 30 + 280
    path = write(tmp_path / "x.tif", pixels, units=(unit,), descriptions=(description,))
    assert detected(path)[0] == expected


def test_what_the_user_says_is_taken_where_the_values_allow_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(64, 64, dtype="float32"))
    assert valid(path, raster_type="dem")["raster_type"]["detected_type"] == "dem"
    assert valid(path, raster_type="dem")["raster_type"]["type_source"] == "user_specified"
    message = invalid(path, "RASTER_TYPE_MISMATCH", raster_type="rgb")["message"]
    assert "'rgb', but the raster is 'continuous'" in message
    assert "dem" in message


def test_the_settings_are_the_originals_where_they_hold_the_data() -> None:
    table = {kind: tuple(cog_settings(kind, "uint8").values())[:3] for kind in RASTER_TYPES}
    assert table["rgb"] == ("jpeg", "cubic", "cubic")
    assert table["rgba"] == ("webp", "cubic", "cubic")
    assert table["dem"] == ("lerc_deflate", "average", "bilinear")
    assert table["categorical"] == ("deflate", "mode", "nearest")
    assert table["multispectral"] == ("deflate", "average", "bilinear")
    assert table["nir"] == table["unknown"] == ("deflate", "cubic", "cubic")
    assert cog_settings("rgb", "uint8")["jpeg_quality"] == 85


@pytest.mark.parametrize("kind", ["rgb", "rgba"])
def test_a_codec_that_cannot_hold_the_data_gives_way_and_says_so(kind: str) -> None:
    settings = cog_settings(kind, "uint16")
    assert settings["compression"] == "deflate"
    assert "8-bit" in settings["note"]


def test_the_job_takes_the_types_there_are() -> None:
    assert JOB_TYPES == RASTER_TYPE_PARAMETERS
