"""What a COG tier is made of: codecs, levels, resamplings, and what a user may change.

What belongs here: tables and rules, and the checks of what users ask for, without opening a file.  What does not:
writing COGs (``cog``), proving them (``cog_proof``), detecting a raster's type (``raster_type``).

Three tiers.  ``analysis`` keeps every value (the default).  ``visualization`` is small and made to be looked at: JPEG
or WebP where the pixels are a picture of 8 bits.  ``archive`` keeps every value, too, in the codec that the most and
the oldest readers know.  A choice that cannot hold the data gives way to a lossless one, and a note says so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from geo_assets.errors import ParameterError
from geo_assets.raster.crs import parse_crs
from geo_assets.raster.raster_type import RASTER_TYPES, cog_settings

__all__ = [
    "BLOCKSIZES",
    "COMPRESSIONS",
    "LOSSY",
    "RESAMPLINGS",
    "TIERS",
    "CogRequest",
    "Encoding",
    "PixelKind",
    "check_overrides",
    "encoding_for",
    "lossless_instead",
    "resamplings_for",
]

TIERS: Final = ("analysis", "visualization", "archive")
"""Every tier; the first is the default."""
COMPRESSIONS: Final = ("deflate", "zstd", "lzw", "lerc", "lerc_deflate", "lerc_zstd", "jpeg", "webp", "none")
"""What the parameter ``compression`` takes."""
LOSSY: Final = frozenset({"jpeg", "webp"})
"""Codecs that change values; LERC is used without an error allowance and keeps them."""
RESAMPLINGS: Final = ("nearest", "bilinear", "cubic", "cubic_spline", "lanczos", "average", "mode", "rms")
"""What both resampling parameters take: what GDAL knows for overviews and for warping."""
BLOCKSIZES: Final = (128, 256, 512, 1024, 2048)
DEFAULT_BLOCKSIZE: Final = 512
DEFAULT_QUALITY: Final = 85

_LEVELS: Final[Mapping[str, Mapping[str, int]]] = {
    "analysis": {"deflate": 6, "zstd": 3, "lerc_deflate": 6, "lerc_zstd": 3},
    "visualization": {"deflate": 6, "zstd": 3, "lerc_deflate": 6, "lerc_zstd": 3},
    "archive": {"deflate": 9, "zstd": 15, "lerc_deflate": 9, "lerc_zstd": 15},
}
_PREDICTED: Final = frozenset({"deflate", "zstd", "lzw"})
_PICTURES: Final = frozenset({"rgb", "rgba", "grayscale"})
_LERC_TYPES: Final = frozenset(
    {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"}
)  # fmt: skip
_CLASS_RESAMPLINGS: Final = frozenset({"nearest", "mode"})
_COMPLEX_RESAMPLINGS: Final = frozenset({"nearest", "average", "bilinear", "cubic"})
_RESAMPLING_ALIASES: Final[Mapping[str, str]] = {"cubicspline": "cubic_spline", "near": "nearest"}
_COMPRESSION_ALIASES: Final[Mapping[str, str]] = {"raw": "none", "uncompressed": "none", "lerc_zstandard": "lerc_zstd"}


@dataclass(frozen=True, kw_only=True)
class PixelKind:
    """What decides which codecs can hold a raster."""

    dtype: str
    bands: int
    """All bands, an alpha band too."""
    alpha: bool = False
    """Whether the last band is alpha."""
    palette: bool = False
    classes: bool = False
    """Whether its numbers are labels; their differences mean nothing, and a predictor makes files bigger."""
    bits: int | None = None
    """Bits a value where the file packs them tighter than its type (1-bit rasters)."""

    @property
    def color_bands(self) -> int:
        """Bands that are not alpha."""
        return self.bands - self.alpha


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How one tier is encoded."""

    tier: str
    compression: str
    level: int | None
    predictor: str
    """``NO``, ``STANDARD`` or ``FLOATING_POINT``."""
    quality: int | None
    """1 to 100 of a lossy codec."""
    notes: tuple[str, ...] = ()

    @property
    def lossless(self) -> bool:
        """Whether every value comes back as it was."""
        return self.compression not in LOSSY


@dataclass(frozen=True, kw_only=True)
class CogRequest:
    """What the user asked for, checked; what is ``None`` follows from the raster's type."""

    tiers: tuple[str, ...] = ("analysis",)
    target_crs: str | None = None
    """``None`` keeps the source's."""
    raster_type: str = "unknown"
    compression: Mapping[str, str] | None = None
    """By tier."""
    quality: int = DEFAULT_QUALITY
    blocksize: int = DEFAULT_BLOCKSIZE
    overview_resampling: str | None = None
    reproject_resampling: str | None = None


def check_overrides(params: Mapping[str, Any]) -> CogRequest:
    """Check everything a user may choose, before any work starts.

    Args:
        params: of :func:`geo_assets.raster.cog.make_cogs`; other keys are left alone, ``None`` means the default
            (``target_crs``: the source's CRS).

    Raises:
        ParameterError: names the parameter and lists the choices.
    """
    tiers = _tiers(params.get("tiers"))
    target = params.get("target_crs")
    if target is not None:
        if not isinstance(target, str):
            raise ParameterError(f"target_crs must be text such as EPSG:4326, or null; got {target!r:.60}")
        try:
            parse_crs(target)
        except ParameterError as error:
            raise ParameterError(f"target_crs: {error}") from error
    return CogRequest(
        tiers=tiers,
        target_crs=target,
        raster_type=_choice("raster_type", params.get("raster_type"), RASTER_TYPES) or "unknown",
        compression=_compression(params.get("compression"), tiers),
        quality=_quality(params),
        blocksize=_blocksize(params.get("blocksize")),
        overview_resampling=_resampling("overview_resampling", params.get("overview_resampling")),
        reproject_resampling=_resampling("reproject_resampling", params.get("reproject_resampling")),
    )


def encoding_for(tier: str, request: CogRequest, kind: PixelKind) -> Encoding:
    """Choose the codec of a tier: what the user says, else what suits the type, else a lossless one, and say why."""
    asked = (request.compression or {}).get(tier)
    wanted = asked or _default_compression(tier, request.raster_type, kind)
    notes: list[str] = []
    if tier == "visualization" and asked is None and wanted not in LOSSY:
        notes.append(
            f"visualization is lossless {wanted} here: {_why_no_picture(request.raster_type, kind)}"
        )  # fmt: skip
    why_not = _cannot_hold(wanted, kind)
    if why_not:
        notes.append(f"{wanted} cannot hold this raster ({why_not}); lossless zstd instead")
        wanted = "zstd"
    if wanted == "jpeg" and kind.alpha:
        notes.append("JPEG has no alpha: it becomes a mask, where what is not fully transparent counts as valid")
    if asked in LOSSY and tier != "visualization" and wanted in LOSSY:
        notes.append(f"{wanted} was asked for: this {tier} tier is not lossless")
    return _encoding(tier, wanted, quality=request.quality, kind=kind, notes=tuple(notes))


def lossless_instead(encoding: Encoding, kind: PixelKind, reason: str) -> Encoding:
    """The lossless encoding for a tier whose lossy one was not good enough."""
    note = f"{encoding.compression} was tried and given up: {reason}; lossless zstd instead"
    return _encoding(encoding.tier, "zstd", quality=0, kind=kind, notes=(*encoding.notes, note))


def resamplings_for(request: CogRequest, kind: PixelKind) -> tuple[str, str, tuple[str, ...]]:
    """Resampling of the overviews and of the reprojection, and notes on what was not taken as asked."""
    suited = cog_settings(request.raster_type, kind.dtype)
    asked = {
        "overview_resampling": request.overview_resampling,
        "reproject_resampling": request.reproject_resampling,
    }
    chosen: list[str] = []
    notes: list[str] = []
    for name, wanted in asked.items():
        value, why = _possible_resampling(name, wanted or str(suited[name]), kind)
        chosen.append(value)
        if wanted is not None and why:
            notes.append(f"{name} {wanted} {why}; {value} instead")
    return chosen[0], chosen[1], tuple(notes)


def _possible_resampling(name: str, wanted: str, kind: PixelKind) -> tuple[str, str]:
    if kind.palette and wanted not in _CLASS_RESAMPLINGS:
        instead = "mode" if name == "overview_resampling" else "nearest"
        return instead, "would mix the numbers of a colour table"
    if kind.dtype.startswith("complex") and wanted not in _COMPLEX_RESAMPLINGS:
        return "nearest", "is not defined for complex numbers"
    return wanted, ""


# --- rules -----------------------------------------------------------------------------------------------------


def _encoding(tier: str, compression: str, *, quality: int, kind: PixelKind, notes: tuple[str, ...]) -> Encoding:
    return Encoding(
        tier=tier,
        compression=compression,
        level=_LEVELS[tier].get(compression),
        predictor=_predictor(compression, kind),
        quality=quality if compression in LOSSY else None,
        notes=notes,
    )


def _default_compression(tier: str, raster_type: str, kind: PixelKind) -> str:
    if tier == "archive":
        return "deflate"
    if tier == "visualization" and raster_type in _PICTURES:
        picture = "webp" if kind.alpha else "jpeg"
        if not _cannot_hold(picture, kind) or kind.dtype != "uint8":
            return picture  # 16 bits: asked for by the type and refused with its reason
        return "jpeg" if not _cannot_hold("jpeg", kind) else "zstd"
    return "zstd"


def _why_no_picture(raster_type: str, kind: PixelKind) -> str:
    if raster_type not in _PICTURES:
        return f"a raster of type {raster_type} is no picture, its values would be lost"
    return f"{kind.bands} bands of {kind.dtype} fit neither JPEG nor WebP"


def _cannot_hold(compression: str, kind: PixelKind) -> str | None:
    """Why a codec cannot hold such pixels; ``None`` where it can."""
    if compression in LOSSY:
        return _no_picture_codec(compression, kind)
    if compression.startswith("lerc"):
        if kind.dtype not in _LERC_TYPES:
            return f"LERC does not know {kind.dtype}"
        if kind.bits is not None:
            return f"LERC does not know values of {kind.bits} bits"
    return None


def _no_picture_codec(compression: str, kind: PixelKind) -> str | None:
    if kind.dtype != "uint8" or kind.bits is not None:
        return f"{compression} holds 8-bit values only and this is {kind.bits or kind.dtype}" + (
            "-bit" if kind.bits else ""
        )
    if kind.palette:
        return "the numbers of a colour table must not change"
    if compression == "jpeg" and kind.color_bands not in (1, 3):
        return f"JPEG holds 1 or 3 bands and this has {kind.color_bands}"
    if compression == "webp" and not (kind.color_bands == 3 and kind.bands in (3, 4)):  # noqa: PLR2004
        return f"WebP holds RGB or RGBA and this has {kind.bands} bands"
    return None


def _predictor(compression: str, kind: PixelKind) -> str:
    if compression not in _PREDICTED or kind.bits is not None or kind.palette or kind.classes:
        return "NO"
    sort = np.dtype(kind.dtype).kind if kind.dtype != "complex_int16" else "c"
    return {"f": "FLOATING_POINT", "i": "STANDARD", "u": "STANDARD"}.get(sort, "NO")


# --- checks ----------------------------------------------------------------------------------------------------


def _choice(name: str, value: Any, choices: Sequence[str], aliases: Mapping[str, str] | None = None) -> str | None:
    if value is None:
        return None
    text = value.strip().lower() if isinstance(value, str) else ""
    text = (aliases or {}).get(text, text)
    if text not in choices:
        raise ParameterError(f"{name} must be one of {', '.join(choices)}; got {value!r:.60}")
    return text


def _resampling(name: str, value: Any) -> str | None:
    return _choice(name, value, RESAMPLINGS, _RESAMPLING_ALIASES)


def _tiers(value: Any) -> tuple[str, ...]:
    if value is None:
        return (TIERS[0],)
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Sequence) or not given:
        raise ParameterError(f"tiers must be a list of {', '.join(TIERS)}; got {value!r:.60}")
    checked = [_choice("tiers", tier, TIERS) for tier in given]
    return tuple(dict.fromkeys(tier for tier in checked if tier is not None)) or _no_tiers(value)


def _no_tiers(value: Any) -> tuple[str, ...]:
    raise ParameterError(f"tiers must be a list of {', '.join(TIERS)}; got {value!r:.60}")


def _compression(value: Any, tiers: tuple[str, ...]) -> dict[str, str] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        strange = [str(tier) for tier in value if tier not in tiers]
        if strange:
            raise ParameterError(
                f"compression names the tier {', '.join(strange):.60}, which is not made; tiers: {', '.join(tiers)}"
            )
        chosen = {
            str(tier): _choice("compression", one, COMPRESSIONS, _COMPRESSION_ALIASES) for tier, one in value.items()
        }
        return {tier: one for tier, one in chosen.items() if one is not None}
    one = _choice("compression", value, COMPRESSIONS, _COMPRESSION_ALIASES)
    if len(tiers) > 1:
        raise ParameterError(
            f"compression must say for which tier where several are made, such as {{'{tiers[0]}': '{one}'}};"
            f" tiers: {', '.join(tiers)}"
        )
    return {tiers[0]: str(one)}


def _quality(params: Mapping[str, Any]) -> int:
    given = {name: params.get(name) for name in ("quality", "jpeg_quality") if params.get(name) is not None}
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 100:  # noqa: PLR2004
            raise ParameterError(f"{name} must be a whole number from 1 to 100; got {value!r:.60}")
    if len(set(given.values())) > 1:
        raise ParameterError(f"quality and jpeg_quality mean the same and differ: {given}")
    return next(iter(given.values()), DEFAULT_QUALITY) or DEFAULT_QUALITY


def _blocksize(value: Any) -> int:
    if value is None:
        return DEFAULT_BLOCKSIZE
    if isinstance(value, bool) or value not in BLOCKSIZES:
        raise ParameterError(f"blocksize must be one of {', '.join(map(str, BLOCKSIZES))}; got {value!r:.60}")
    return int(value)
