"""Verdicts: on the real rasters, on CRSs and positions, on nodata, on bit depth, in strict mode, on COGs.

What belongs here: whole validations of well-formed files.  What does not: hostile and damaged files (``test_open``)
and the rules for types (``test_raster_type``).
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import from_origin

from geo_assets.raster import validate as validate_module
from geo_assets.raster.validate import ERROR_CODES, validate_raster_file
from tests.raster.rasters import (
    BUDGET,
    convert,
    fields,
    hills,
    invalid,
    noise,
    real,
    valid,
    verdict,
    warnings_of,
    write,
)

# --- the real ones -----------------------------------------------------------------------------------------------

REAL: dict[str, tuple[str, dict[str, str], bool]] = {
    # file: type, warnings, valid COG
    "aerial_rgba_uint16_utm12n.tif": ("rgba", {}, False),
    "albers_int16_nodata.tif": ("continuous", {"READ_WARNING": "LOW"}, True),
    "alpha_3857.tif": ("rgba", {}, False),
    "elevation_float64_4326.tif": (
        "continuous", {"UNDECLARED_NAN": "LOW", "BIT_DEPTH_POLICY_VIOLATION": "CRITICAL"}, True,
    ),
    "goes_geostationary.tif": ("rgb", {}, True),
    "hillshade_3857.tif": ("categorical", {"CONSTANT_VALUES": "LOW"}, False),
    "landcover_palette_laea.tif": ("categorical", {}, False),
    "landsat_rgb_utm18n.tif": ("rgb", {}, False),
    "landsat_rgba_utm18n.tif": ("rgba", {}, False),
    "world_byte_4326.tif": ("categorical", {}, True),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_rasters_that_are_good(name: str) -> None:
    kind, warnings, is_cog = REAL[name]
    result = valid(real(name))
    assert result["raster_type"]["detected_type"] == kind
    assert warnings_of(result) == warnings
    assert result["cog"]["valid"] is is_cog
    assert bool(result["cog"]["errors"]) is not is_cog
    assert result["crs_source"] == "file_metadata"
    assert result["size_bytes"] == real(name).stat().st_size
    with rasterio.open(real(name)) as dataset:
        assert result["shape"] == [dataset.height, dataset.width]
        assert result["bounds"] == pytest.approx(list(dataset.bounds))
        assert result["band_count"] == dataset.count == len(result["statistics"])
        for band in result["statistics"]:
            pixels = dataset.read(band["band"], masked=True)
            pixels = np.ma.masked_invalid(pixels)
            assert band["minimum"] == pixels.min()
            assert band["maximum"] == pixels.max()
            assert band["mean"] == pytest.approx(float(pixels.mean(dtype=float)))
            assert band["valid_count"] == pixels.count()


@pytest.mark.parametrize("name", ["no_crs_float64.tif", "rotated_no_crs.tif"])
def test_real_rasters_that_are_bad_lack_a_crs(name: str) -> None:
    message = invalid(real(name), "CRS_MISSING")["message"]
    assert "input_crs" in message
    assert ("rotated" in message) == name.startswith("rotated")


@pytest.mark.parametrize(
    ("name", "warnings"),
    [
        ("no_crs_float64.tif",
         {"CRS_OVERRIDE_NO_FILE_CRS": "MEDIUM", "SOUTH_UP": "LOW", "BIT_DEPTH_POLICY_VIOLATION": "CRITICAL"}),
        ("rotated_no_crs.tif", {"CRS_OVERRIDE_NO_FILE_CRS": "MEDIUM", "ROTATED": "MEDIUM"}),
    ],
)  # fmt: skip
def test_real_rasters_without_a_crs_are_good_when_the_user_gives_one(name: str, warnings: dict[str, str]) -> None:
    result = valid(real(name), input_crs="EPSG:32618")
    assert (result["source_crs"], result["crs_source"]) == ("EPSG:32618", "user_override_required")
    assert warnings_of(result) == warnings


def test_of_the_real_rasters_strict_mode_refuses_64_bits() -> None:
    assert "float32 would do" in invalid(
        real("elevation_float64_4326.tif"), "BIT_DEPTH_POLICY_VIOLATION", strict_mode=True
    )["message"]  # fmt: skip
    for name in REAL:
        if "float64" not in name:
            valid(real(name), strict_mode=True)


# --- the answer --------------------------------------------------------------------------------------------------


def test_the_result_has_the_originals_fields_and_is_json(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", hills().astype("float32"), nodata=np.nan)
    result = valid(path)
    assert {
        "valid", "source_crs", "crs_source", "bounds", "shape", "band_count", "dtype", "size_mb", "nodata",
        "raster_type", "bit_depth_check", "warnings",
    } <= result.keys()  # fmt: skip
    assert set(result["raster_type"]) == {
        "detected_type", "confidence", "evidence", "type_source", "optimal_cog_settings",
    }  # fmt: skip
    assert set(result["bit_depth_check"]) == {"efficient", "current_dtype", "reason"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["nodata"] == "nan"
    assert result["size_mb"] == pytest.approx(path.stat().st_size / 2**20, abs=0.001)
    assert result["size_mb"] > 0


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "MISSING_PARAMETER"),
        ({"path": "/x"}, "MISSING_PARAMETER"),
        ({"path": "/x", "budget": BUDGET.as_dict(), "raster_type": "movie"}, "PARAMETER_ERROR"),
        ({"path": "/x", "budget": BUDGET.as_dict(), "input_crs": "nonsense"}, "PARAMETER_ERROR"),
        ({"path": "/there/is/none", "budget": BUDGET.as_dict()}, "FILE_UNREADABLE"),
    ],
)
def test_parameters_are_refused_with_a_code(params: dict[str, Any], code: str) -> None:
    answer = validate_raster_file(params)
    assert (answer["success"], answer["error"]) == (False, code)
    assert code in ERROR_CODES


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("_georeference", "CRS_VALIDATION_ERROR"),
        ("_bit_depth", "BIT_DEPTH_CHECK_ERROR"),
        ("detect", "TYPE_DETECTION_ERROR"),
        ("cog_settings", "COG_SETTINGS_ERROR"),
        ("cog_verdict", "RESULT_BUILD_ERROR"),
    ],
)
def test_a_bug_of_ours_fails_with_the_steps_code(
    function: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("planned")

    monkeypatch.setattr(validate_module, function, broken)
    answer = verdict(write(tmp_path / "x.tif", noise(16, 16)))
    assert (answer["success"], answer["outcome"], answer["error"]) == (False, "failed", code)
    assert "ZeroDivisionError: planned" in answer["message"]
    assert "broken" in answer["traceback"]


# --- CRS and position --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", ["EPSG:32633", "32633", "urn:ogc:def:crs:EPSG::32633", "+proj=utm +zone=33 +datum=WGS84"]
)
def test_the_same_crs_written_otherwise_confirms(given: str, tmp_path: Path) -> None:
    result = valid(write(tmp_path / "x.tif", noise(16, 16)), input_crs=given)
    assert (result["source_crs"], result["crs_source"]) == ("EPSG:32633", "user_confirmed")


def test_another_crs_is_a_mismatch(tmp_path: Path) -> None:
    message = invalid(write(tmp_path / "x.tif", noise(16, 16)), "CRS_MISMATCH", input_crs="EPSG:32634")["message"]
    assert "EPSG:32633" in message
    assert "EPSG:32634" in message


def test_a_crs_without_a_position_is_invalid(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(16, 16), transform=rasterio.Affine.identity())
    assert "no geotransform" in invalid(path, "CRS_VALIDATION_ERROR")["message"]
    assert "the file says" in invalid(path, "CRS_VALIDATION_ERROR")["message"]


def test_a_picture_without_a_place_needs_more_than_a_crs(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(16, 16), crs=None, transform=rasterio.Affine.identity())
    assert "give input_crs" not in invalid(path, "CRS_MISSING")["message"]
    assert "input_crs says" in invalid(path, "CRS_VALIDATION_ERROR", input_crs="EPSG:32633")["message"]


def test_suspicious_bounds_warn(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(16, 16), crs="EPSG:4326")
    warning = next(w for w in valid(path)["warnings"] if w["type"] == "SUSPICIOUS_BOUNDS")
    assert warning["severity"] == "MEDIUM"
    assert warning["source_crs"] == "EPSG:4326"


def test_ground_control_points_place_a_raster(tmp_path: Path) -> None:
    points = [GroundControlPoint(row, col, 15 + col / 100, 48 - row / 100) for row in (0, 64) for col in (0, 64)]
    path = write(tmp_path / "x.tif", noise(64, 64), gcps=points, crs="EPSG:4326", transform=None)
    result = valid(path)
    assert result["source_crs"] == "EPSG:4326"
    assert result["georeference"]["kind"] == "gcps"
    assert result["bounds"] == pytest.approx([15, 47.36, 15.64, 48])
    assert warnings_of(result) == {"GCP_GEOREFERENCED": "MEDIUM"}


def test_rational_polynomials_place_a_raster(tmp_path: Path) -> None:
    ones = [0.0] * 19
    rpc = RPC(height_off=0, height_scale=100, lat_off=48, lat_scale=0.1, line_den_coeff=[1.0, *ones],
              line_num_coeff=[0.0, 0.0, -1.0, *ones[:17]], line_off=32, line_scale=32, long_off=15, long_scale=0.1,
              samp_den_coeff=[1.0, *ones], samp_num_coeff=[0.0, 1.0, 0.0, *ones[:17]], samp_off=32, samp_scale=32,
              err_bias=None, err_rand=None)  # fmt: skip
    path = write(tmp_path / "x.tif", noise(64, 64), rpcs=rpc, crs=None, transform=None)
    result = valid(path)
    assert (result["source_crs"], result["georeference"]["kind"]) == ("EPSG:4326", "rpcs")
    assert result["bounds"] == pytest.approx([14.9, 47.9, 15.1, 48.1])
    assert warnings_of(result) == {"RPC_GEOREFERENCED": "MEDIUM"}


def test_rotated_and_south_up_are_said(tmp_path: Path) -> None:
    rotated = from_origin(500_000, 5_300_000, 10, 10) @ rasterio.Affine.rotation(30)
    result = valid(write(tmp_path / "r.tif", noise(16, 16), transform=rotated))
    assert warnings_of(result) == {"ROTATED": "MEDIUM"}
    left, bottom, right, top = result["bounds"]
    assert left < right
    assert bottom < top
    south_up = rasterio.Affine(10, 0, 500_000, 0, 10, 5_300_000)
    result = valid(write(tmp_path / "s.tif", noise(16, 16), transform=south_up))
    assert warnings_of(result) == {"SOUTH_UP": "LOW"}
    assert result["bounds"] == [500_000, 5_300_000, 500_160, 5_300_160]


# --- nodata and masks --------------------------------------------------------------------------------------------


def test_all_nodata_is_said_and_refused_in_strict_mode(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", np.full((32, 32), -9999, dtype="int16"), nodata=-9999)
    assert warnings_of(valid(path)) == {"ALL_NODATA": "HIGH"}
    assert "ALL_NODATA" in invalid(path, "VALIDATION_ERROR", strict_mode=True)["message"]


@pytest.mark.parametrize("written", [b"-99\0", b"999\0", b"nan\0"])
def test_nodata_that_the_type_cannot_hold_is_said(written: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(32, 32), nodata=255)
    content = path.read_bytes()
    place = content.index(b"255\0")
    path.write_bytes(content[:place] + written + content[place + 4 :])
    result = valid(path)
    assert warnings_of(result)["NODATA_OUT_OF_RANGE"] == "MEDIUM"
    assert result["nodata"] is None
    assert result["statistics"][0]["valid_percent"] == 100


def test_nan_counts_as_nodata_declared_or_not(tmp_path: Path) -> None:
    pixels = hills(64).astype("float32")
    pixels[:32] = np.nan
    declared = valid(write(tmp_path / "d.tif", pixels, nodata=np.nan))
    silent = valid(write(tmp_path / "s.tif", pixels))
    assert "UNDECLARED_NAN" not in warnings_of(declared)
    assert warnings_of(silent)["UNDECLARED_NAN"] == "LOW"
    assert declared["statistics"][0]["valid_percent"] == silent["statistics"][0]["valid_percent"] == 50


def test_nodata_beside_an_alpha_band_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(4, 64, 64), nodata=0, photometric="RGB", alpha="YES")
    assert warnings_of(valid(path))["NODATA_AND_MASK"] == "LOW"


def test_an_empty_band_among_others_is_said(tmp_path: Path) -> None:
    pixels = noise(3, 32, 32, dtype="int16")
    pixels[1] = -1
    result = valid(write(tmp_path / "x.tif", pixels, nodata=-1))
    assert [w["bands"] for w in result["warnings"] if w["type"] == "EMPTY_BAND"] == [[2]]


# --- bit depth ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "complex64", "complex128"])
def test_64_bits_are_a_violation_that_only_strict_mode_refuses(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", hills(64).astype(dtype))
    result = valid(path)
    assert warnings_of(result)["BIT_DEPTH_POLICY_VIOLATION"] == "CRITICAL"
    assert result["bit_depth_check"]["efficient"] is False
    invalid(path, "BIT_DEPTH_POLICY_VIOLATION", strict_mode=True)


def test_few_values_in_floats_are_a_high_warning_that_strict_mode_refuses(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", fields().astype("float32"))
    warning = valid(path)["warnings"][0]
    assert (warning["type"], warning["severity"], warning["recommended_dtype"]) == (
        "INEFFICIENT_BIT_DEPTH", "HIGH", "uint8",
    )  # fmt: skip
    assert "distinct values" in invalid(path, "BIT_DEPTH_POLICY_VIOLATION", strict_mode=True)["message"]


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.round(hills()).astype("float32"), ("MEDIUM", "uint16")),
        (np.round(hills(low=-500)).astype("float32"), ("MEDIUM", "int16")),
        (hills().astype("int32"), ("MEDIUM", "uint16")),
        (hills(low=0, high=1e6).astype("int32"), None),
        (hills().astype("float32"), None),
        (noise(64, 64), None),
    ],
)
def test_a_smaller_type_that_would_do_is_named(pixels: Any, expected: tuple[str, str] | None, tmp_path: Path) -> None:
    found = [w for w in valid(write(tmp_path / "x.tif", pixels))["warnings"] if w["type"] == "INEFFICIENT_BIT_DEPTH"]
    assert [(w["severity"], w["recommended_dtype"]) for w in found] == ([expected] if expected else [])


# --- COG ---------------------------------------------------------------------------------------------------------


def test_a_cog_is_called_one_and_others_are_told_why_not(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.tif", noise(600, 600), blockysize=8)
    assert valid(plain)["cog"]["valid"] is False
    assert "not tiled" in valid(plain)["cog"]["why"]
    cog = valid(convert(plain, tmp_path / "cog.tif", "COG"))
    assert cog["cog"]["valid"] is True
    assert cog["overviews"] == [2]
    image = valid(convert(plain, tmp_path / "x.img", "HFA"))
    assert image["cog"]["errors"] == ["it is HFA, not GeoTIFF"]


def test_the_second_directory_is_no_business_of_ours(tmp_path: Path) -> None:
    # a TIFF whose directory counts more entries than there are is read or refused, never a crash
    path = write(tmp_path / "x.tif", noise(16, 16))
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack("<I", content[4:8])
    content[start : start + 2] = struct.pack("<H", 60_000)
    path.write_bytes(content)
    answer = verdict(path)
    assert answer["success"] or answer["error"] in ERROR_CODES
