"""Thumbnails: what a raster looks like, in at most a few hundred pixels.

What belongs here: pixels of an open dataset to a picture, and the picture to WebP.  What does not: opening the file
(``open``; call this in the same worker process), maps and histograms (``stac.locator_map``, ``geo_assets.pictures``).

One decimated read serves the full thumbnail and the small one for Dagster's event.  GDAL takes the read from the
smallest overview that is large enough, and works through a raster without overviews in pieces, so memory is bounded by
the picture, not by the raster.  What is stretched is stretched by the pixels of the picture itself.
"""

import colorsys
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geo_assets.errors import RasterUnreadableError
from geo_assets.raster.open import reason_of

__all__ = [
    "FULL_SIDE",
    "MEDIA_TYPE",
    "SMALL_BYTES",
    "SMALL_SIDE",
    "TINY_BYTES",
    "Thumbnail",
    "encode",
    "render",
    "smaller",
    "tiny",
]

MEDIA_TYPE: Final = "image/webp"
FULL_SIDE: Final = 512
"""Longer side of the full thumbnail, pixels."""
SMALL_SIDE: Final = 160
"""Longer side of the one in Dagster's event, pixels."""
SMALL_BYTES: Final = 5_000
"""Most bytes of that one."""
TINY_BYTES: Final = 570
"""Most bytes of one that Dagster's UI shows without a click, see ``geo_assets.pictures``."""

_Floats = npt.NDArray[np.float64]
_Bytes = npt.NDArray[np.uint8]
_Mask = npt.NDArray[np.bool_]
_Ramp = Sequence[tuple[float, tuple[int, int, int]]]

_LEAST_SIDE = 128
"""A raster of fewer pixels is enlarged, so that there is something to see."""
_QUALITIES = (82, 70, 55, 40, 25)
_TINY_SIDES = (128, 112, 96, 80, 72, 64, 56, 48, 40, 32, 24, 16, 8)
_TINY_QUALITIES = (50, 35, 20)
_OUTERMOST = 2.0
"""Percent at either end that a stretch cuts off."""
_NARROW = 64
"""A picture of bytes whose inner values span less than this is stretched as others are."""
_NO_MEASUREMENT = 1e30
"""From here on a float is no measurement but a nodata value that nobody declared."""
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_NAMES = (("red", "green", "blue"), ("b04", "b03", "b02"), ("b4", "b3", "b2"))
"""What bands of red, green and blue are called: by colour, or by Sentinel-2 and Landsat 8 and 9."""
_MANY_BANDS, _SOME_BANDS = 7, 5

_VIRIDIS: _Ramp = (
    (0.0, (68, 1, 84)),
    (0.125, (71, 44, 122)),
    (0.25, (59, 81, 139)),
    (0.375, (44, 113, 142)),
    (0.5, (33, 144, 141)),
    (0.625, (39, 173, 129)),
    (0.75, (92, 200, 99)),
    (0.875, (170, 220, 50)),
    (1.0, (253, 231, 37)),
)
_LAND: _Ramp = (
    (0.0, (88, 140, 92)),
    (0.2, (150, 178, 108)),
    (0.4, (218, 208, 142)),
    (0.6, (196, 158, 104)),
    (0.8, (158, 122, 96)),
    (1.0, (245, 243, 240)),
)
_SEA: _Ramp = ((0.0, (22, 52, 104)), (0.6, (66, 128, 178)), (1.0, (168, 208, 228)))
_SHADE = 0.28
"""How much darker the steepest shaded slope of a height model is."""


@dataclass(frozen=True)
class Thumbnail:
    """A picture, and whether its colours stand for classes, which must not be mixed."""

    image: Image.Image
    """RGBA."""
    classes: bool


def render(dataset: DatasetReader, *, raster_type: str | None = None, largest_side: int = FULL_SIDE) -> Thumbnail:
    """Draw an open dataset.

    Args:
        dataset: open, with at least one band.
        raster_type: one of ``raster_type.RASTER_TYPES``; ``None`` or one that does not fit: by bands and data type.
        largest_side: most pixels of the longer side.

    Returns:
        A picture with north up where the raster's own rows run north; transparent where there are no data.  A raster
        of very few pixels is enlarged.

    Raises:
        RasterUnreadableError: pixels cannot be read.
    """
    try:
        colours, alpha, classes = _Drawing(dataset, raster_type, largest_side).draw()
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise RasterUnreadableError(f"the pixels for a thumbnail cannot be read: {reason_of(error)}") from error
    # what lies under transparent pixels would only cost bytes
    rgba = np.dstack([np.where(alpha[..., None] > 0, colours, 0).astype(np.uint8), alpha])
    image = Image.fromarray(np.flipud(rgba) if _south_up(dataset) else rgba)
    longer = max(image.size)
    if longer < min(_LEAST_SIDE, largest_side):
        factor = min(_LEAST_SIDE, largest_side) // longer
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return Thumbnail(image, classes)


def smaller(thumbnail: Thumbnail, largest_side: int = SMALL_SIDE) -> Thumbnail:
    """The same picture with a longer side of at most ``largest_side`` pixels; classes stay unmixed."""
    image = thumbnail.image
    if max(image.size) <= largest_side:
        return thumbnail
    scale = largest_side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    how = Image.Resampling.NEAREST if thumbnail.classes else Image.Resampling.BOX
    return Thumbnail(image.resize(size, how), thumbnail.classes)


def encode(thumbnail: Thumbnail, *, limit_bytes: int | None = None) -> bytes:
    """Encode a picture as WebP with transparency.

    Classes are kept exactly if that is within the limit.  Else, and for all others, the quality is lowered and then
    the size halved until it is.

    Args:
        thumbnail: the picture.
        limit_bytes: most bytes, at least 200; ``None``: any number.

    Raises:
        ValueError: the limit is less than any picture needs.
    """
    if limit_bytes is not None and limit_bytes < 200:  # noqa: PLR2004 - one pixel and its wrapping
        raise ValueError(f"no picture fits into {limit_bytes} bytes: allow 200 or more")
    if thumbnail.classes:
        exact = _webp(thumbnail.image, lossless=True)
        if limit_bytes is None or len(exact) <= limit_bytes:
            return exact
    shrinking = thumbnail
    while True:
        for quality in _QUALITIES:
            data = _webp(shrinking.image, quality=quality)
            if limit_bytes is None or len(data) <= limit_bytes:
                return data
        shrinking = smaller(shrinking, max(1, max(shrinking.image.size) // 2))


def tiny(thumbnail: Thumbnail, *, limit_bytes: int = TINY_BYTES) -> bytes:
    """Encode the largest picture that fits into very few bytes, as WebP without transparency, which costs too many.

    Raises:
        ValueError: the limit is less than any picture needs.
    """
    opaque = Image.new("RGB", thumbnail.image.size, "white")
    opaque.paste(thumbnail.image, mask=thumbnail.image)

    def encoded(side: int, quality: int) -> bytes:
        return _webp(smaller(Thumbnail(opaque, classes=False), side).image, quality=quality)

    worst = _TINY_QUALITIES[-1]
    # the sides fall, so "does it fit" rises
    found = bisect_left(_TINY_SIDES, True, key=lambda side: len(encoded(side, worst)) <= limit_bytes)  # noqa: FBT003
    if found == len(_TINY_SIDES):
        raise ValueError(f"no picture fits into {limit_bytes} bytes: allow 200 or more")
    tried = (encoded(_TINY_SIDES[found], quality) for quality in _TINY_QUALITIES)
    return next(data for data in tried if len(data) <= limit_bytes)


def _webp(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    # method 4, the default, takes twice as long for 3 % fewer bytes
    image.save(file, "WEBP", method=2, **options)
    return file.getvalue()


def _south_up(dataset: DatasetReader) -> bool:
    transform = dataset.transform
    return (
        dataset.crs is not None and not transform.is_identity and transform.e > 0 and not (transform.b or transform.d)
    )


# --- what is read ----------------------------------------------------------------------------------------------


class _Drawing:
    """One dataset on its way to a picture."""

    def __init__(self, dataset: DatasetReader, raster_type: str | None, largest_side: int) -> None:
        self._dataset = dataset
        scale = min(1.0, largest_side / max(dataset.width, dataset.height))
        self._shape = (max(1, round(dataset.height * scale)), max(1, round(dataset.width * scale)))
        colors = list(dataset.colorinterp)
        data = [band for band, color in enumerate(colors, 1) if color is not ColorInterp.alpha]
        self._alpha_band = next((band for band, color in enumerate(colors, 1) if color is ColorInterp.alpha), None)
        if raster_type == "rgba" and len(data) == 4:  # noqa: PLR2004 - found by its values, not declared
            self._alpha_band = data.pop()
        self._data = data or [1]
        self._type = raster_type

    def draw(self) -> tuple[_Bytes, _Bytes, bool]:
        """Colours (rows, columns, 3), opacity (rows, columns), and whether the colours are classes."""
        first = self._data[0]
        table = _colour_table(self._dataset, first)
        if table is not None:
            return *self._by_table(first, table), True
        if len(self._data) > 2 and self._type not in ("dem", "categorical", "continuous", "grayscale"):  # noqa: PLR2004
            return *self._true_colour(), False
        if self._type == "categorical" and not self._is_complex(first):
            values, valid = self._read(first, nearest=True)
            return _class_colours(values, valid), self._opacity(valid), True
        values, valid = self._read(first)
        return self._one_band(values, valid), self._opacity(valid), False

    def _one_band(self, values: _Floats, valid: _Mask) -> _Bytes:
        if self._type == "dem":
            return _heights(values, valid)
        gray = self._type == "grayscale" or (self._type in (None, "unknown") and self._is_bytes(self._data[0]))
        if gray:
            shown = self._bytes_or_stretched([(self._data[0], values)], valid)[0]
            return np.repeat(shown[..., None], 3, axis=2)
        return _along(_VIRIDIS, _stretched(values, valid))

    def _true_colour(self) -> tuple[_Bytes, _Bytes]:
        chosen = _colour_bands(self._dataset, self._data)
        read = [self._read(band) for band in chosen]
        # as in GDAL's mask of a dataset: dark water may be "nodata" in one band only
        valid = np.logical_or.reduce([mask for _, mask in read])
        bands = [(band, values) for band, (values, _) in zip(chosen, read, strict=True)]
        return np.dstack(self._bytes_or_stretched(bands, valid)), self._opacity(valid)

    def _bytes_or_stretched(self, bands: Sequence[tuple[int, _Floats]], valid: _Mask) -> list[_Bytes]:
        """Bytes of a picture as they are; what is no picture yet, or one that is nearly of one shade, stretched."""
        shown = self._opacity(valid) > 0
        values = [values for _, values in bands]
        if all(self._is_bytes(band) for band, _ in bands) and self._type != "multispectral":
            ends = [_ends(one, shown) for one in values]
            if max(high for _, high in ends) - min(low for low, _ in ends) >= _NARROW or not _any_contrast(ends):
                return [one.round().astype(np.uint8) for one in values]
        return [(_stretched(one, shown) * 255).round().astype(np.uint8) for one in values]

    def _by_table(self, band: int, table: Mapping[int, tuple[int, ...]]) -> tuple[_Bytes, _Bytes]:
        values, valid = self._read(band, nearest=True)
        lookup = np.zeros((max(table) + 2, 4), np.uint8)  # what lies beyond the table is transparent
        lookup[list(table)] = [colour[:4] for colour in table.values()]
        known = valid & (values >= 0) & (values <= max(table))
        rgba = lookup[np.where(known, values, max(table) + 1).astype(np.int64)]
        opacity = np.minimum(self._opacity(valid), rgba[..., 3])
        return rgba[..., :3], opacity

    def _read(self, band: int, *, nearest: bool = False) -> tuple[_Floats, _Mask]:
        """Values of one band, finite everywhere, and where they are valid."""
        is_complex = self._is_complex(band)
        # the mean of complex numbers of any phase is nothing
        nearest = nearest or is_complex
        values = self._values(band, Resampling.nearest if nearest else Resampling.average)
        bad = ~_measured(values)
        if bad.any() and not nearest:
            # one NaN spoils the mean of all pixels around it
            values = np.where(bad, self._values(band, Resampling.nearest), values)
            bad = ~_measured(values)
        flags = self._dataset.mask_flag_enums[band - 1]
        valid = ~bad
        if MaskFlags.all_valid not in flags and MaskFlags.alpha not in flags:
            valid &= self._dataset.read_masks(band, out_shape=self._shape) > 0
        return np.where(bad, 0.0, values), valid

    def _values(self, band: int, how: Resampling) -> _Floats:
        values = self._dataset.read(band, out_shape=self._shape, resampling=how)
        if np.iscomplexobj(values):
            values = np.abs(values)
        return np.asarray(values, np.float64)

    def _opacity(self, valid: _Mask) -> _Bytes:
        if self._alpha_band is None:
            return np.where(valid, 255, 0).astype(np.uint8)
        alpha, _ = self._read(self._alpha_band)
        return np.where(valid, (alpha / _opaque(self._dataset, self._alpha_band, alpha) * 255).round(), 0).astype(
            np.uint8
        )

    def _is_bytes(self, band: int) -> bool:
        return bool(self._dataset.dtypes[band - 1] == "uint8")

    def _is_complex(self, band: int) -> bool:
        return str(self._dataset.dtypes[band - 1]).startswith("complex")


def _measured(values: _Floats) -> _Mask:
    with np.errstate(invalid="ignore"):
        measured: _Mask = np.abs(values) < _NO_MEASUREMENT  # NaN is not less, either
    return measured


def _opaque(dataset: DatasetReader, band: int, alpha: _Floats) -> float:
    """What fully opaque is: some say 1 or 255 in bands of 16 bits."""
    highest = float(alpha.max(initial=0))
    dtype = np.dtype(dataset.dtypes[band - 1])
    usual = float(np.iinfo(dtype).max) if dtype.kind in "ui" else 1.0
    return next((most for most in (1.0, 255.0) if highest <= most), max(usual, highest))


def _colour_table(dataset: DatasetReader, band: int) -> dict[int, tuple[int, ...]] | None:
    try:
        table: dict[int, tuple[int, ...]] = dataset.colormap(band)
    except ValueError:  # what rasterio says where there is none
        return None
    return table or None


def _colour_bands(dataset: DatasetReader, data: Sequence[int]) -> tuple[int, int, int]:
    """Bands of red, green and blue: as declared, else as named, else where sensors usually have them."""
    colors = dataset.colorinterp
    declared = [next((band for band in data if colors[band - 1] is color), 0) for color in _COLOURS]
    if all(declared):
        return declared[0], declared[1], declared[2]
    said = {str(dataset.descriptions[band - 1] or "").strip().lower(): band for band in reversed(data)}
    for red, green, blue in _NAMES:
        if {red, green, blue} <= said.keys():
            return said[red], said[green], said[blue]
    if len(data) >= _MANY_BANDS:  # coastal, blue, green, red, …
        return data[3], data[2], data[1]
    if len(data) >= _SOME_BANDS:  # blue, green, red, …
        return data[2], data[1], data[0]
    return data[0], data[1], data[2]


# --- colours ---------------------------------------------------------------------------------------------------


def _ends(values: _Floats, valid: _Mask) -> tuple[float, float]:
    """Where to stretch from and to; of all values where the inner ones are equal."""
    inner = values[valid]
    if not inner.size:
        return 0.0, 0.0
    low, high = (float(end) for end in np.percentile(inner, [_OUTERMOST, 100 - _OUTERMOST]))
    return (low, high) if high > low else (float(inner.min()), float(inner.max()))


def _any_contrast(ends: Sequence[tuple[float, float]]) -> bool:
    return any(high > low for low, high in ends)


def _stretched(values: _Floats, valid: _Mask) -> _Floats:
    return _position(values, *_ends(values, valid))


def _position(values: _Floats, low: float, high: float) -> _Floats:
    """From 0 to 1; in the middle where there is only one value."""
    if high <= low:
        return np.full(values.shape, 0.5)
    position: _Floats = np.clip((values - low) / (high - low), 0.0, 1.0)
    return position


def _along(ramp: _Ramp, position: _Floats) -> _Bytes:
    """Colours of positions from 0 to 1 on a ramp."""
    stops = [stop for stop, _ in ramp]
    channels = [np.interp(position, stops, [colour[channel] for _, colour in ramp]) for channel in range(3)]
    return np.dstack(channels).round().astype(np.uint8)


def _heights(values: _Floats, valid: _Mask) -> _Bytes:
    """Land from green to white, sea from dark to light blue, lit from the north-west."""
    low, high = _ends(values, valid)
    land = _along(_LAND, _position(values, max(low, 0.0) if high > 0 else low, high))
    sea = _along(_SEA, _position(values, low, min(high, 0.0)))
    colours = np.where((values < 0)[..., None], sea, land) if low < 0 else land
    return (colours * _light(values, valid, high - low)[..., None]).round().astype(np.uint8)


def _light(values: _Floats, valid: _Mask, height: float) -> _Floats:
    """How light a pixel is, up to 1; slopes count by what is usual in this raster, as units and scale are unknown."""
    if min(values.shape) < 2 or height <= 0:  # noqa: PLR2004 - no slope on a line
        return np.ones(values.shape)
    filled = np.where(valid, values, values[valid].mean())
    down, right = np.gradient(filled)
    toward = -(down + right)  # facing the lower right is facing away from the light
    steep = float(np.percentile(np.abs(toward[valid]), 95))
    if steep <= 0:
        return np.ones(values.shape)
    light: _Floats = 1.0 - _SHADE * (0.5 + 0.5 * np.clip(toward / steep, -1.0, 1.0))
    return light


def _class_colours(values: _Floats, valid: _Mask) -> _Bytes:
    """A colour a value, the same in every raster, so that neighbouring tiles match."""
    classes, position = np.unique(np.where(valid, values, 0), return_inverse=True)
    colours = np.array([_class_colour(float(value)) for value in classes], np.uint8)
    shown: _Bytes = colours[position.reshape(values.shape)]
    return shown


def _class_colour(value: float) -> tuple[int, int, int]:
    hue = value * 0.618034 % 1  # the golden ratio keeps any few values far apart
    lightness, saturation = (0.52, 0.38, 0.68)[int(value % 3)], (0.75, 0.55)[int(value % 5 // 3)]
    red, green, blue = (round(255 * channel) for channel in colorsys.hls_to_rgb(hue, lightness, saturation))
    return red, green, blue
