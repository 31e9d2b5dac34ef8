"""Thumbnails show what is in a raster: its own colours, nothing where there are no data, and always a picture."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.transform import Affine

from geo_assets.errors import RasterUnreadableError
from geo_assets.raster.raster_type import RASTER_TYPES
from geo_assets.raster.thumbnail import (
    FULL_SIDE,
    SMALL_BYTES,
    SMALL_SIDE,
    TINY_BYTES,
    Thumbnail,
    encode,
    render,
    smaller,
    tiny,
)
from tests.raster.rasters import Pixels, fields, hills, noise, real, write

REAL = {
    "aerial_rgba_uint16_utm12n.tif": "rgba",
    "albers_int16_nodata.tif": "dem",
    "alpha_3857.tif": "rgba",
    "elevation_float64_4326.tif": "dem",
    "goes_geostationary.tif": "rgb",
    "hillshade_3857.tif": "grayscale",
    "landcover_palette_laea.tif": "categorical",
    "landsat_rgb_utm18n.tif": "rgb",
    "landsat_rgba_utm18n.tif": "rgba",
    "no_crs_float64.tif": "continuous",
    "rotated_no_crs.tif": "grayscale",
    "world_byte_4326.tif": "grayscale",
}
RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@contextmanager
def opened(path: Path) -> Iterator[DatasetReader]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as dataset:
            yield dataset


def drawn(path: Path, raster_type: str | None = None, **options: Any) -> Pixels:
    """The RGBA pixels of a thumbnail: (rows, columns, 4)."""
    with opened(path) as dataset:
        return np.asarray(render(dataset, raster_type=raster_type, **options).image)


def unpacked(data: bytes) -> Image.Image:
    with Image.open(BytesIO(data)) as image:
        assert image.format == "WEBP"
        return image.convert("RGBA")


# --- real files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "raster_type"), REAL.items())
def test_real_rasters_fit_into_their_limits(name: str, raster_type: str) -> None:
    with opened(real(name)) as dataset:
        thumbnail = render(dataset, raster_type=raster_type)
        shape = dataset.width / dataset.height
    width, height = thumbnail.image.size
    assert max(width, height) <= FULL_SIDE
    assert width / height == pytest.approx(shape, rel=0.02)
    assert unpacked(encode(thumbnail)).size == (width, height)
    small = smaller(thumbnail)
    assert max(small.image.size) <= SMALL_SIDE
    data = encode(small, limit_bytes=SMALL_BYTES)
    assert len(data) <= SMALL_BYTES
    assert unpacked(data).size == small.image.size, "the quality gives way before the size"
    assert len(tiny(thumbnail)) <= TINY_BYTES


@pytest.mark.parametrize("name", ["landsat_rgb_utm18n.tif", "landsat_rgba_utm18n.tif", "goes_geostationary.tif"])
def test_photographs_look_as_they_are_and_are_transparent_where_they_have_no_data(name: str) -> None:
    with opened(real(name)) as dataset:
        image = np.asarray(render(dataset, raster_type="rgb", largest_side=128).image)
        every = dataset.read()
        valid = dataset.dataset_mask() > 0
        means = [every[band][valid].mean() for band in range(3)]
    shown = image[..., 3] > 0
    assert shown.mean() == pytest.approx(valid.mean(), abs=0.03)
    assert image[..., :3][shown].mean(axis=0) == pytest.approx(means, abs=5)
    assert not image[~shown].any()


def test_real_classes_have_the_colours_of_their_table() -> None:
    with opened(real("landcover_palette_laea.tif")) as dataset:
        thumbnail = render(dataset, raster_type="categorical")
        table = {tuple(colour) for colour in dataset.colormap(1).values()}
        used = {tuple(dataset.colormap(1)[value]) for value in np.unique(dataset.read(1))}
    colours = {colour for _, colour in thumbnail.image.getcolors(1000) or ()}
    assert colours <= table
    assert len(colours) > len(used) / 2
    exact = {colour for _, colour in unpacked(encode(thumbnail)).getcolors(1000) or ()}
    assert exact == colours, "classes are encoded without loss"
    fewer = {colour for _, colour in smaller(thumbnail).image.getcolors(1000) or ()}
    assert fewer <= colours, "and not mixed when made smaller"


# --- colours ---------------------------------------------------------------------------------------------------


def test_each_pixel_of_a_palette_has_its_colour(tmp_path: Path) -> None:
    path = write(
        tmp_path / "p.tif", np.array([[0, 1], [2, 9]], np.uint8).repeat(64, 0).repeat(64, 1), photometric="palette"
    )
    table = {0: (10, 20, 30, 255), 1: (200, 0, 0, 255), 2: (0, 0, 250, 255)}
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, dict.fromkeys(range(256), (0, 0, 0, 255)) | table)
    image = drawn(path)
    corners = [tuple(image[row, column].tolist()) for row in (0, -1) for column in (0, -1)]
    assert corners == [table[0], table[1], table[2], (0, 0, 0, 255)]


def test_what_a_palette_says_is_transparent_is(tmp_path: Path) -> None:
    paletted = Image.fromarray(np.array([[0, 1, 2]], np.uint8).repeat(64, 0).repeat(64, 1), "P")
    paletted.putpalette([9, 9, 9, 50, 60, 70, 80, 90, 100])
    paletted.save(tmp_path / "p.png", transparency=bytes([0, 255, 128]))
    image = drawn(tmp_path / "p.png")
    assert image[0, [0, 90, 190]].tolist() == [[0, 0, 0, 0], [50, 60, 70, 255], [80, 90, 100, 128]]


def test_bytes_of_a_photograph_are_not_changed(tmp_path: Path) -> None:
    pixels = noise(3, 200, 200)
    image = drawn(write(tmp_path / "a.tif", pixels, photometric="rgb"), "rgb")
    assert np.array_equal(image[..., :3], pixels.transpose(1, 2, 0))
    assert (image[..., 3] == 255).all()


def test_bytes_in_a_narrow_band_are_stretched(tmp_path: Path) -> None:
    image = drawn(write(tmp_path / "a.tif", 100 + noise(3, 200, 200) // 16, photometric="rgb"), "rgb")
    assert (image[..., :3].min(), image[..., :3].max()) == (0, 255)


def test_sixteen_bits_are_stretched_band_by_band(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 1, 200), (200, 1))
    pixels = np.stack([1000 + 500 * ramp, 8000 + 2000 * ramp, 300 + 50 * ramp]).astype(np.uint16)
    pixels[:, :2, :2] = 65535  # a few glaring pixels do not darken the rest
    image = drawn(write(tmp_path / "a.tif", pixels, photometric="rgb"), "rgb").astype(int)
    assert image[100, 0, :3].max() < 8
    assert image[100, -1, :3].min() > 247
    assert np.ptp(image[100, :, :3], axis=1).max() < 8, "all bands alike: grey"


def test_bands_in_another_order_are_found_by_colour(tmp_path: Path) -> None:
    pixels = np.stack([np.full((130, 130), value, np.uint8) for value in (30, 60, 250)])
    image = drawn(write(tmp_path / "a.tif", pixels, colorinterp=RGB[::-1]), "rgb")
    assert image[0, 0].tolist() == [250, 60, 30, 255]


@pytest.mark.parametrize(
    ("descriptions", "order"),
    [
        (("blue", "Green", "RED", "nir"), (2, 1, 0)),
        (("B02", "B03", "B04", "B08"), (2, 1, 0)),
        (("a", "b", "c", "d"), (0, 1, 2)),
        (("coastal", "b", "c", "d", "e"), (2, 1, 0)),
        (("B1", "x2", "x3", "x4", "B5", "B6", "B7"), (3, 2, 1)),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7"), (3, 2, 1)),
    ],
)
def test_true_colour_of_many_bands(tmp_path: Path, descriptions: tuple[str, ...], order: tuple[int, ...]) -> None:
    # every band rises in its own row only
    pixels = np.full((len(descriptions), 140, 140), 1000, np.uint16)
    for band in range(len(descriptions)):
        pixels[band, band * 20 : band * 20 + 20] = 9000
    path = write(tmp_path / "a.tif", pixels, descriptions=descriptions, photometric="minisblack")
    image = drawn(path, "multispectral")
    for channel, band in enumerate(order):
        expected = [0, 0, 0]
        expected[channel] = 255
        assert image[band * 20 + 10, 0, :3].tolist() == expected


def test_heights_rise_from_green_to_white_and_sea_is_blue(tmp_path: Path) -> None:
    slope = np.tile(np.linspace(-500, 2000, 300), (300, 1)).astype(np.float32)
    image = drawn(write(tmp_path / "a.tif", slope), "dem").astype(int)
    row = image[150]
    red, green, blue = (row[:, channel] for channel in range(3))
    assert (blue[:55] > red[:55]).all(), "below 0"
    assert (green[70:90] > blue[70:90]).all(), "low land"
    assert row[-5:, :3].min() > 150, "the highest is light"


def test_slopes_are_lit_from_the_upper_left(tmp_path: Path) -> None:
    y, x = np.mgrid[-1:1:300j, -1:1:300j]
    cone = (1000 - 500 * np.hypot(x, y)).astype(np.float32)
    image = drawn(write(tmp_path / "a.tif", cone), "dem").astype(int)[..., :3].sum(axis=2)
    assert image[90, 90] > image[210, 210] + 60, "equal heights, opposite slopes"


def test_measurements_go_along_a_ramp(tmp_path: Path) -> None:
    slope = np.tile(np.linspace(0, 1e-3, 300), (300, 1)).astype(np.float32)
    image = drawn(write(tmp_path / "a.tif", slope), "continuous")
    assert image[0, 0, :3].tolist() == [68, 1, 84]
    assert image[0, -1, :3].tolist() == [253, 231, 37]
    brightness = image[0, :, :3].astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) > -1.5).all(), "always lighter"


def test_complex_numbers_are_shown_by_magnitude(tmp_path: Path) -> None:
    magnitude = np.tile(np.linspace(1, 100, 300), (300, 1))
    phase = np.random.default_rng(3).random((300, 300)) * 2 * np.pi
    path = write(tmp_path / "a.tif", (magnitude * np.exp(1j * phase)).astype(np.complex64))
    plain = write(tmp_path / "b.tif", magnitude.astype(np.float32))
    assert np.abs(drawn(path).astype(int) - drawn(plain, "continuous").astype(int)).max() <= 2
    assert drawn(path, "categorical").shape == (300, 300, 4)


def test_classes_without_a_table_are_told_apart_and_keep_their_colours(tmp_path: Path) -> None:
    labels = fields(classes=12).astype(np.int16)
    path = write(tmp_path / "a.tif", labels)
    with opened(path) as dataset:
        image = render(dataset, raster_type="categorical").image
    pixels = np.asarray(image)
    colours = {value: {tuple(colour) for colour in pixels[labels == value].tolist()} for value in np.unique(labels)}
    assert all(len(found) == 1 for found in colours.values())
    distinct = np.array([colour for found in colours.values() for colour in found], int)[:, :3]
    apart = np.abs(distinct[:, None] - distinct[None]).sum(axis=2) + 999 * np.eye(len(distinct), dtype=int)
    assert apart.min() > 60
    # the neighbouring tile has other classes beside the same one
    beside = drawn(write(tmp_path / "b.tif", np.where(labels == 5, 5, 90).astype(np.int16)), "categorical")
    assert {tuple(colour) for colour in beside[labels == 5].tolist()} == colours[5]


def test_classes_are_not_averaged_when_the_raster_is_large(tmp_path: Path) -> None:
    labels = fields(2048, classes=2, patch=1).astype(np.uint8) * 100
    with opened(write(tmp_path / "a.tif", labels)) as dataset:
        assert len(render(dataset, raster_type="categorical").image.getcolors(1000) or ()) == 2
        assert len(render(dataset, raster_type="grayscale").image.getcolors(1000) or ()) > 2


# --- what is transparent -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("raster_type", ["dem", "continuous", "grayscale", "categorical"])
@pytest.mark.parametrize("empty", [np.nan, -9999.0, np.inf, -3.4e38])
def test_pixels_without_data_are_transparent(tmp_path: Path, raster_type: str, empty: float) -> None:
    pixels = hills(600).astype(np.float32)
    pixels[:300] = empty
    declared = {"nodata": empty} if empty == -9999 else {}
    image = drawn(write(tmp_path / "a.tif", pixels, **declared), raster_type)
    assert not image[:254].any()
    assert (image[258:, :, 3] == 255).all()
    assert len(np.unique(image[258:].reshape(-1, 4), axis=0)) > 50, "and do not spoil the colours of the others"


def test_scattered_nan_do_not_spoil_their_neighbourhood(tmp_path: Path) -> None:
    pixels = hills(2000).astype(np.float32)
    pixels[::4, ::4] = np.nan
    image = drawn(write(tmp_path / "a.tif", pixels), "continuous")
    assert (image[..., 3] == 255).mean() > 0.8


def test_an_alpha_band_is_the_opacity(tmp_path: Path) -> None:
    for dtype, opaque in (("uint8", 255), ("uint16", 65535), ("uint16", 255)):
        pixels = np.full((4, 130, 130), 200, dtype)
        pixels[:3, 0] = 10
        pixels[3] = opaque
        pixels[3, :, 65:] = 0
        path = write(tmp_path / f"{dtype}{opaque}.tif", pixels, photometric="rgb", alpha="yes")
        image = drawn(path, "rgba")
        assert (image[:, :65, 3] == 255).all()
        assert not image[:, 65:].any()


def test_a_fourth_band_that_was_found_to_be_alpha_is_the_opacity(tmp_path: Path) -> None:
    pixels = noise(4, 200, 200)
    pixels[3, :, :100], pixels[3, :, 100:] = 255, 0
    path = write(tmp_path / "a.tif", pixels, photometric="rgb", alpha="unspecified")
    assert (drawn(path, "rgba")[..., 3] == pixels[3]).all()
    assert (drawn(path, "nir")[..., 3] == 255).all()


def test_a_mask_of_the_file_is_respected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(3, 200, 200), photometric="rgb")
    mask = np.zeros((200, 200), bool)
    mask[50:150] = True
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    assert np.array_equal(drawn(path, "rgb")[..., 3] > 0, mask)


# --- where and how large -----------------------------------------------------------------------------------------


def test_north_is_up(tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(0, 250, 200).astype(np.uint8)[:, None], (1, 200))
    south_up = write(tmp_path / "a.tif", pixels, transform=Affine(10, 0, 500_000, 0, 10, 5_000_000))
    north_up = write(tmp_path / "b.tif", pixels)
    nowhere = write(tmp_path / "c.tif", pixels, transform=Affine(1, 0, 0, 0, 1, 0), crs=None)
    assert np.array_equal(drawn(south_up, "grayscale"), drawn(north_up, "grayscale")[::-1])
    assert np.array_equal(drawn(nowhere, "grayscale"), drawn(north_up, "grayscale"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (128, 128)), ((3, 2), (126, 84)), ((128, 5), (128, 5)), ((600, 1), (512, 1)), ((1024, 512), (512, 256))],
)
def test_sizes(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    with opened(write(tmp_path / "a.tif", noise(*size[::-1]))) as dataset:
        assert render(dataset).image.size == expected
        assert max(render(dataset, largest_side=50).image.size) <= 50


def test_the_overview_is_read_and_not_the_raster(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(2048, 2048), tiled=True, blockxsize=256, blockysize=256)
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    with path.open("r+b") as file:  # the first tiles of the full resolution are spoilt
        file.seek(4096)
        file.write(b"\x00" * 500_000)
    with opened(path) as dataset:
        overview = dataset.read(1, out_shape=(512, 512))
        assert np.array_equal(np.asarray(render(dataset, raster_type="grayscale").image)[..., 0], overview)
        assert overview[:100, :100].any()


@pytest.mark.parametrize("limit", [200, 300, 1000, 5000])
@pytest.mark.parametrize("classes", [True, False])
def test_any_limit_is_kept(*, limit: int, classes: bool) -> None:
    picture = Thumbnail(Image.fromarray(noise(512, 512, 4)), classes)
    assert len(encode(picture, limit_bytes=limit)) <= limit
    assert len(tiny(picture, limit_bytes=limit)) <= limit


def test_limits_that_cannot_be_kept_are_refused() -> None:
    picture = Thumbnail(Image.fromarray(noise(8, 8, 4)), classes=False)
    for encoder in (encode, tiny):
        with pytest.raises(ValueError, match="fits into 20 bytes"):
            encoder(picture, limit_bytes=20)


def test_the_tiny_one_is_white_where_there_are_no_data() -> None:
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[50:] = (200, 0, 0, 255)
    image = np.asarray(unpacked(tiny(Thumbnail(Image.fromarray(pixels), classes=False)))).astype(int)
    assert image[:40, :, :3].min() > 240
    assert np.abs(image[60:, :, :3] - (200, 0, 0)).max() < 12


def test_a_raster_that_is_cut_off_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", noise(1000, 1000))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with opened(path) as dataset, pytest.raises(RasterUnreadableError, match="thumbnail cannot be read"):
        render(dataset)


# --- anything --------------------------------------------------------------------------------------------------

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "complex64")


@settings(max_examples=150)
@given(
    dtype=st.sampled_from(DTYPES),
    bands=st.integers(1, 9),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    raster_type=st.sampled_from((None, *RASTER_TYPES)),
    filling=st.sampled_from(("noise", "constant", "nodata", "half")),
    alpha=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_raster_makes_a_picture(
    *, dtype: str, bands: int, size: tuple[int, int], raster_type: str | None, filling: str, alpha: bool, seed: int
) -> None:
    pixels = noise(bands, *size, dtype="float64" if dtype == "complex64" else dtype, seed=seed).astype(dtype)
    if filling == "constant":
        pixels[:] = 7
    elif filling == "nodata":
        pixels[:] = 0
    elif filling == "half":
        pixels[:, : size[0] // 2] = 0
    nodata = {"nodata": 0} if filling in ("nodata", "half") and dtype != "complex64" else {}
    with TemporaryDirectory() as folder:
        extra = {"alpha": "yes"} if alpha and bands > 1 and dtype == "uint8" else {}
        path = write(Path(folder) / "a.tif", pixels, photometric="minisblack", **nodata, **extra)
        with opened(path) as dataset:
            thumbnail = render(dataset, raster_type=raster_type, largest_side=32)
    assert thumbnail.image.mode == "RGBA"
    assert 1 <= max(thumbnail.image.size) <= 32
    image = np.asarray(thumbnail.image)
    assert not image[image[..., 3] == 0].any()
    if filling == "nodata" and nodata and not extra:
        assert not image.any()
    if filling == "constant" and not extra and raster_type != "rgba":
        assert (image[..., 3] == 255).all()
    assert len(encode(thumbnail, limit_bytes=SMALL_BYTES)) <= SMALL_BYTES
    assert len(tiny(thumbnail)) <= TINY_BYTES
