"""What kind of picture or measurement a raster is, and the COG settings that suit it.

What belongs here: the rules, on statistics of the whole raster with nodata left out, colour tables and the meaning
bands declare.  What does not: reading pixels (``statistics``).

A single band of numbers does not say whether it is an elevation model, a class map or another measurement.  The rules
go by how values lie side by side: classes jump between arbitrary labels and stay equal in between, elevations change
in small steps.  Where the numbers allow several types, all of them stand in ``candidates``; what a user says is
believed if it is among them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geo_assets.raster.statistics import BandStatistics

__all__ = ["RASTER_TYPES", "BandFacts", "Detection", "cog_settings", "detect"]

RASTER_TYPES = ("rgb", "rgba", "dem", "categorical", "multispectral", "nir", "grayscale", "continuous", "unknown")
"""Every type that can be detected; the last three but ``unknown`` are ours, the others the original's."""

_SETTINGS: Mapping[str, tuple[str, str, str]] = {
    "rgb": ("jpeg", "cubic", "cubic"),
    "rgba": ("webp", "cubic", "cubic"),
    "dem": ("lerc_deflate", "average", "bilinear"),
    "categorical": ("deflate", "mode", "nearest"),
    "multispectral": ("deflate", "average", "bilinear"),
    "nir": ("deflate", "cubic", "cubic"),
    "grayscale": ("deflate", "average", "cubic"),
    "continuous": ("deflate", "average", "bilinear"),
    "unknown": ("deflate", "cubic", "cubic"),
}
_EIGHT_BIT_ONLY = frozenset({"jpeg", "webp"})
_PICTURE_TYPES = ("uint8", "uint16")

_FEW_CLASSES = 40
_MANY_CLASSES = 256
_FEW_ALPHA_VALUES = 10
_LOWEST_LAND, _HIGHEST_LAND = -12_000.0, 9_000.0
_SMOOTH = 0.25
_VERY_SMOOTH = 0.1
_ORDERED_JUMP = 1.5
_FEWEST_ORDERED = 8
_LENGTH_UNITS = frozenset({"m", "metre", "meter", "metres", "meters", "ft", "foot", "feet", "us survey foot"})
_HEIGHT_WORDS = ("elevation", "height", "altitude", "dem", "dtm", "dsm", "bathymetry", "depth")


@dataclass(frozen=True, kw_only=True)
class BandFacts:
    """What is known of one band besides its statistics."""

    statistics: BandStatistics
    color: str
    """rasterio's name of the colour interpretation."""
    has_color_table: bool = False
    unit: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Detection:
    """The detected type, how sure it is, why, and what else the numbers allow."""

    raster_type: str
    confidence: str
    """VERY_HIGH, HIGH, MEDIUM or LOW."""
    evidence: tuple[str, ...]
    also: tuple[str, ...] = field(default=())

    @property
    def candidates(self) -> tuple[str, ...]:
        """Types a user may call it."""
        return tuple(dict.fromkeys((self.raster_type, *self.also)))


def cog_settings(raster_type: str, dtype: str) -> dict[str, Any]:
    """Recommended settings of a COG of this type; a codec that cannot hold the data gives way, and that is said.

    Raises:
        KeyError: not one of :data:`RASTER_TYPES`.
    """
    compression, overviews, reprojection = _SETTINGS[raster_type]
    settings: dict[str, Any] = {
        "compression": compression,
        "overview_resampling": overviews,
        "reproject_resampling": reprojection,
    }
    if compression in _EIGHT_BIT_ONLY and dtype != "uint8":
        settings["compression"] = "deflate"
        settings["note"] = f"{compression} holds 8-bit values only and this is {dtype}; lossless deflate instead"
    elif compression == "lerc_deflate" and dtype.startswith("complex"):
        settings["compression"] = "deflate"
    elif compression == "jpeg":
        settings["jpeg_quality"] = 85
    return settings


def detect(bands: Sequence[BandFacts]) -> Detection:  # noqa: PLR0911 - one rule a return, in order
    """Tell the type of a raster from all its bands."""
    colors = [band.color for band in bands]
    data = [band for band in bands if band.color != "alpha"]
    if any(band.has_color_table for band in bands):
        return _say("categorical", "VERY_HIGH", "it has a colour table")
    if any(band.statistics.dtype.startswith("complex") for band in data):
        return _say("unknown", "LOW", "its values are complex numbers")
    if len(data) == 1:
        found = _single(data[0])
        return found if len(bands) == 1 else _with(found, "an alpha band beside it")
    if len(data) == 3:  # noqa: PLR2004 - red, green, blue
        return _three(data, colors, has_alpha=len(bands) > len(data))
    if len(data) == 4:  # noqa: PLR2004 - and a fourth that is not declared alpha
        return _four(data, colors)
    if len(data) == 2:  # noqa: PLR2004
        return _say("continuous", "MEDIUM", "two bands of numbers", also=("multispectral",))
    if not data:
        return _say("unknown", "LOW", "it has only alpha bands")
    return _say("multispectral", "MEDIUM", f"{len(data)} bands{_sensor(len(data))}")


# --- several bands -------------------------------------------------------------------------------------------


def _three(data: Sequence[BandFacts], colors: Sequence[str], *, has_alpha: bool) -> Detection:
    kind = "rgba" if has_alpha else "rgb"
    named = {"red", "green", "blue"} <= set(colors)
    dtype = data[0].statistics.dtype
    if named:
        order = "-".join(color for color in colors if color in {"red", "green", "blue"})
        return _say(kind, "VERY_HIGH", f"bands are declared {order}{' and alpha' if has_alpha else ''}",
                    also=("multispectral",))  # fmt: skip
    if dtype in _PICTURE_TYPES and not _says_other(colors):
        return _say(kind, "HIGH", f"3 bands of {dtype}{' and alpha' if has_alpha else ''}", also=("multispectral",))
    return _say("multispectral", "MEDIUM", f"3 bands of {dtype} that are not declared red, green, blue", also=(kind,))


def _four(data: Sequence[BandFacts], colors: Sequence[str]) -> Detection:
    dtype = data[0].statistics.dtype
    if dtype not in _PICTURE_TYPES:
        return _say("multispectral", "MEDIUM", f"4 bands of {dtype}", also=("nir", "rgba"))
    fourth = data[3].statistics
    if "nir" in colors[3].lower() or _means(data[3], "nir", "infrared"):
        return _say("nir", "VERY_HIGH", "band 4 is declared near infrared", also=("multispectral",))
    opaque = float(2 ** (8 if dtype == "uint8" else 16) - 1)
    few = fourth.distinct is not None and fourth.distinct <= _FEW_ALPHA_VALUES
    if few and fourth.maximum in (1.0, 255.0, opaque):
        return _say("rgba", "HIGH", f"band 4 has only {fourth.distinct} values, up to {fourth.maximum:g}, as an alpha"
                    " band has", also=("nir", "multispectral"))  # fmt: skip
    many = "many" if fourth.distinct is None else fourth.distinct
    return _say("nir", "MEDIUM", f"4 bands of {dtype}, band 4 with {many} values", also=("multispectral", "rgba"))


def _says_other(colors: Sequence[str]) -> bool:
    """Whether any band is declared something that is no colour of a picture."""
    neutral = {"red", "green", "blue", "undefined", "gray", "grey", "alpha"}
    return any(color not in neutral for color in colors)


def _sensor(count: int) -> str:
    if 7 <= count <= 11:  # noqa: PLR2004 - the original's notes
        return ", as Landsat has"
    return ", as Sentinel-2 has" if 12 <= count <= 13 else ""  # noqa: PLR2004


# --- one band ------------------------------------------------------------------------------------------------

_ANY_SINGLE = ("categorical", "dem", "grayscale", "continuous")


def _single(band: BandFacts) -> Detection:
    stats = band.statistics
    if not stats.valid or stats.minimum is None or stats.maximum is None:
        return _say("unknown", "LOW", "no pixel has a valid value", also=_ANY_SINGLE)
    if stats.minimum == stats.maximum:
        kind = _numbers(band).raster_type if stats.dtype.startswith("float") else "categorical"
        return _say(kind, "LOW", f"every valid pixel is {stats.minimum:g}", also=_ANY_SINGLE)
    if stats.integers and not _declares_height(band) and (classes := _classes(stats)) is not None:
        return classes
    return _numbers(band)


def _classes(stats: BandStatistics) -> Detection | None:
    """Class labels, or ``None`` where the values lie as those of a measurement or a picture do."""
    count = stats.distinct
    equal = stats.equal_neighbours or 0.0
    jump = _rank_jump(stats)
    what = f"{'many' if count is None else count} whole values, {equal:.0%} of neighbours equal"
    if count is None or count > _MANY_CLASSES:
        # identifiers of regions: many, but each fills an area and the next one is any other
        arbitrary = stats.mean_step is not None and stats.mean_step > 0.1 * _range(stats)
        if equal > 0.75 and arbitrary:  # noqa: PLR2004
            return _say("categorical", "MEDIUM", f"{what}, jumping between arbitrary ones", also=("continuous", "dem"))
        return None
    if count > _FEW_CLASSES:
        if equal >= 0.5 and jump >= count / 8:  # noqa: PLR2004
            return _say("categorical", "HIGH", f"{what}, jumping between arbitrary ones", also=_ANY_SINGLE)
        return None
    if count >= _FEWEST_ORDERED and jump < _ORDERED_JUMP:
        return None  # steps to the next value only: heights, depths or greys rounded to few levels
    sure = "HIGH" if count <= 2 or equal >= 0.5 or jump >= 2 else "MEDIUM"  # noqa: PLR2004
    return _say("categorical", sure, what, also=_ANY_SINGLE)


def _numbers(band: BandFacts) -> Detection:
    stats = band.statistics
    low, high = stats.minimum or 0.0, stats.maximum or 0.0
    if stats.dtype == "uint8":
        if _declares_height(band):
            return _say("dem", "HIGH", "the band says it is a height", also=("grayscale", "continuous"))
        return _say("grayscale", "HIGH", f"one band of uint8 with values {low:g} to {high:g}", also=_ANY_SINGLE)
    if _declares_height(band):
        return _say("dem", "HIGH", f"the band says it is a height ({band.unit or band.description})",
                    also=("continuous",))  # fmt: skip
    span = f"one band of {stats.dtype} with values {low:g} to {high:g}"
    rough = stats.roughness
    terrestrial = low >= _LOWEST_LAND and high <= _HIGHEST_LAND and high - low > 2  # noqa: PLR2004 - indices: -1 to 1
    if band.unit or stats.dtype.startswith("uint") or not terrestrial or rough is None or rough > _SMOOTH:
        why = f", unit {band.unit}" if band.unit else ""
        return _say("continuous", "HIGH" if band.unit else "MEDIUM", f"{span}{why}", also=("dem", "grayscale"))
    sure = "HIGH" if rough < _VERY_SMOOTH else "MEDIUM"
    return _say("dem", sure, f"{span}, changing smoothly (roughness {rough:.2f})", also=("continuous", "grayscale"))


def _rank_jump(stats: BandStatistics) -> float:
    """How many distinct values apart neighbours are that differ, on average; 1 where only the next one follows."""
    if stats.mean_step is None or stats.distinct is None or not _range(stats):
        return 0.0
    return stats.mean_step * (stats.distinct - 1) / _range(stats)


def _range(stats: BandStatistics) -> float:
    return (stats.maximum or 0.0) - (stats.minimum or 0.0)


def _declares_height(band: BandFacts) -> bool:
    return band.unit.lower() in _LENGTH_UNITS or _means(band, *_HEIGHT_WORDS)


def _means(band: BandFacts, *words: str) -> bool:
    said = band.description.lower().replace("_", " ").replace("-", " ").split()
    return any(word in said for word in words)


def _say(kind: str, confidence: str, *evidence: str, also: Sequence[str] = ()) -> Detection:
    return Detection(raster_type=kind, confidence=confidence, evidence=tuple(evidence), also=tuple(also))


def _with(found: Detection, more: str) -> Detection:
    return Detection(
        raster_type=found.raster_type, confidence=found.confidence, evidence=(*found.evidence, more), also=found.also
    )
