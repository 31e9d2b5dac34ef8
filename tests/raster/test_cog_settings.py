"""What a user may choose for a COG, and what each tier becomes."""

from typing import Any

import pytest

from geo_assets.errors import ParameterError
from geo_assets.raster.cog_settings import (
    BLOCKSIZES,
    COMPRESSIONS,
    RESAMPLINGS,
    TIERS,
    CogRequest,
    PixelKind,
    check_overrides,
    encoding_for,
    resamplings_for,
)
from geo_assets.raster.raster_type import RASTER_TYPES

RGB = PixelKind(dtype="uint8", bands=3)
RGBA = PixelKind(dtype="uint8", bands=4, alpha=True)


def test_without_choices_the_lossless_tier_is_made_and_the_crs_kept() -> None:
    assert check_overrides({"source": "left alone"}) == CogRequest(tiers=("analysis",), target_crs=None)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("compression", "jpeg9000", COMPRESSIONS),
        ("compression", {"analysis": "brotli"}, COMPRESSIONS),
        ("compression", {"archive": "zstd"}, ["archive", "analysis"]),
        ("overview_resampling", "gauss", RESAMPLINGS),
        ("reproject_resampling", 3, RESAMPLINGS),
        ("quality", 0, ["1 to 100"]),
        ("jpeg_quality", 101, ["1 to 100"]),
        ("quality", True, ["1 to 100"]),
        ("quality", "85", ["1 to 100"]),
        ("blocksize", 500, [str(size) for size in BLOCKSIZES]),
        ("blocksize", True, [str(size) for size in BLOCKSIZES]),
        ("tiers", ["gold"], TIERS),
        ("tiers", [], TIERS),
        ("tiers", 7, TIERS),
        ("target_crs", "EPSG:99999999", ["target_crs"]),
        ("target_crs", 4326, ["target_crs"]),
        ("target_crs", "/vsicurl/http://127.0.0.1/a.prj", ["target_crs"]),
        ("raster_type", "painting", RASTER_TYPES),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_choices(name: str, value: Any, says: list[str]) -> None:
    with pytest.raises(ParameterError) as refusal:
        check_overrides({name: value})
    assert name in str(refusal.value)
    for choice in says:
        assert choice in str(refusal.value)


def test_one_codec_for_several_tiers_is_ambiguous() -> None:
    with pytest.raises(ParameterError, match="which tier"):
        check_overrides({"tiers": ["analysis", "archive"], "compression": "lzw"})
    asked = check_overrides({"tiers": ["analysis", "archive"], "compression": {"archive": "LZW"}})
    assert asked.compression == {"archive": "lzw"}


def test_two_qualities_that_differ_are_refused() -> None:
    with pytest.raises(ParameterError, match="differ"):
        check_overrides({"quality": 80, "jpeg_quality": 81})
    assert check_overrides({"jpeg_quality": 40}).quality == 40


@pytest.mark.parametrize(
    ("tier", "raster_type", "kind", "compression"),
    [
        ("analysis", "rgb", RGB, "zstd"),
        ("archive", "rgb", RGB, "deflate"),
        ("visualization", "rgb", RGB, "jpeg"),
        ("visualization", "rgba", RGBA, "webp"),
        ("visualization", "grayscale", PixelKind(dtype="uint8", bands=1), "jpeg"),
        ("visualization", "dem", PixelKind(dtype="float32", bands=1), "zstd"),
        ("visualization", "rgb", PixelKind(dtype="uint16", bands=3), "zstd"),
        ("visualization", "rgba", PixelKind(dtype="uint16", bands=4, alpha=True), "zstd"),
        ("visualization", "categorical", PixelKind(dtype="uint8", bands=1, palette=True), "zstd"),
    ],
)
def test_codec_by_tier_and_type(tier: str, raster_type: str, kind: PixelKind, compression: str) -> None:
    encoding = encoding_for(tier, CogRequest(tiers=(tier,), raster_type=raster_type), kind)
    assert encoding.compression == compression
    assert encoding.lossless == (compression not in ("jpeg", "webp"))
    assert bool(encoding.notes) == (tier == "visualization" and encoding.lossless)


@pytest.mark.parametrize(
    ("compression", "kind", "why"),
    [
        ("jpeg", PixelKind(dtype="uint16", bands=3), "uint16"),
        ("webp", PixelKind(dtype="uint16", bands=4, alpha=True), "uint16"),
        ("jpeg", PixelKind(dtype="uint8", bands=1, palette=True), "colour table"),
        ("jpeg", PixelKind(dtype="uint8", bands=4), "4"),
        ("webp", PixelKind(dtype="uint8", bands=1), "RGB"),
        ("jpeg", PixelKind(dtype="uint8", bands=1, bits=1), "1-bit"),
        ("lerc", PixelKind(dtype="complex64", bands=1), "complex64"),
        ("lerc_zstd", PixelKind(dtype="uint8", bands=1, bits=1), "1 bits"),
    ],
)
def test_a_codec_that_cannot_hold_the_data_gives_way_and_says_so(compression: str, kind: PixelKind, why: str) -> None:
    request = check_overrides({"compression": compression})
    encoding = encoding_for("analysis", request, kind)
    assert encoding.compression == "zstd"
    assert encoding.lossless
    assert any(why in note for note in encoding.notes)


def test_a_lossy_codec_asked_for_in_the_lossless_tier_is_taken_and_said() -> None:
    encoding = encoding_for("analysis", check_overrides({"compression": "jpeg", "quality": 70}), RGB)
    assert (encoding.compression, encoding.quality, encoding.lossless) == ("jpeg", 70, False)
    assert any("not lossless" in note for note in encoding.notes)


@pytest.mark.parametrize(
    ("kind", "predictor"),
    [
        (RGB, "STANDARD"),
        (PixelKind(dtype="float64", bands=1), "FLOATING_POINT"),
        (PixelKind(dtype="complex64", bands=1), "NO"),
        (PixelKind(dtype="uint8", bands=1, palette=True), "NO"),
        (PixelKind(dtype="uint8", bands=1, classes=True), "NO"),
        (PixelKind(dtype="uint8", bands=1, bits=1), "NO"),
    ],
)
def test_predictor_by_kind_of_number(kind: PixelKind, predictor: str) -> None:
    assert encoding_for("analysis", CogRequest(), kind).predictor == predictor


def test_resampling_follows_the_type_and_never_mixes_classes() -> None:
    assert resamplings_for(CogRequest(raster_type="dem"), RGB) == ("average", "bilinear", ())
    assert resamplings_for(CogRequest(raster_type="categorical"), RGB) == ("mode", "nearest", ())
    palette = PixelKind(dtype="uint8", bands=1, palette=True)
    assert resamplings_for(CogRequest(raster_type="rgb"), palette) == ("mode", "nearest", ())
    overviews, warping, notes = resamplings_for(check_overrides({"overview_resampling": "average"}), palette)
    assert (overviews, warping) == ("mode", "nearest")
    assert len(notes) == 1
    assert "colour table" in notes[0]
