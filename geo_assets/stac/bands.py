"""Descriptions of a raster's bands: STAC 1.1 ``bands``, or ``raster:bands`` and ``eo:bands`` as STAC 1.0 had them.

What belongs here: one dict a band, from an open dataset and its statistics.  What does not: computing statistics
(``sampling``, ``geo_assets.raster``).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp

__all__ = ["bands", "bands_of_1_0", "common_name"]

_STATISTICS = ("minimum", "maximum", "mean", "stddev", "count", "valid_percent")
_COMMON_NAMES = frozenset(
    [
        "pan",
        "coastal",
        "blue",
        "green",
        "green05",
        "yellow",
        "red",
        "rededge",
        "rededge071",
        "rededge075",
        "rededge078",
        "nir",
        "nir08",
        "nir09",
        "cirrus",
        "swir16",
        "swir22",
        "lwir",
        "lwir11",
        "lwir12",
    ]
)
_OF_COLOUR = {
    "red": "red",
    "green": "green",
    "blue": "blue",
    "pan": "pan",
    "coastal": "coastal",
    "yellow": "yellow",
    "rededge": "rededge",
    "nir": "nir",
    "lwir": "lwir",
}
_DATA_TYPES = frozenset(
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
)
_COMPLEX_TYPES = {"complex64": "cfloat32", "complex128": "cfloat64", "complex_int16": "cint16"}


def bands(
    dataset: Any, statistics: Sequence[Mapping[str, Any] | None], *, pixel_metres: float | None
) -> list[dict[str, Any]]:
    """Describe the bands of an open dataset in the STAC 1.1 form, with raster 2.0 and eo 2.0 fields.

    Args:
        dataset: an open rasterio dataset.
        statistics: one dict a band as in ``sampling``, or ``None`` where there are none; may be empty.
        pixel_metres: side of a pixel on the ground.
    """
    sampling = "point" if str(dataset.tags().get("AREA_OR_POINT", "")).lower() == "point" else "area"
    return [
        _band(
            dataset,
            number,
            statistics[number - 1] if number <= len(statistics) else None,
            pixel_metres=pixel_metres,
            sampling=sampling,
        )
        for number in range(1, dataset.count + 1)
    ]


def bands_of_1_0(described: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Turn bands of the 1.1 form into the fields ``raster:bands`` and, where a name is known, ``eo:bands``."""
    raster, eo = [], []
    for band in described:
        plain = {name.removeprefix("raster:"): value for name, value in band.items() if not name.startswith("eo:")}
        eo.append(
            {name.removeprefix("eo:"): band[name] for name in ("name", "description", "eo:common_name") if name in band}
        )
        # raster 1.1 knows no count of pixels looked at, and names are eo:bands' business
        if "statistics" in plain:
            plain["statistics"] = {name: value for name, value in plain["statistics"].items() if name != "count"}
        raster.append({name: value for name, value in plain.items() if name not in ("name", "description")})
    fields = {"raster:bands": raster}
    if any("common_name" in band for band in eo):
        fields["eo:bands"] = eo
    return fields


def common_name(interpretation: ColorInterp, description: str | None) -> str | None:
    """The eo extension's name of a band, from what the file calls it or how it is coloured."""
    if description and (name := description.strip().lower().replace(" ", "")) in _COMMON_NAMES:
        return name
    return _OF_COLOUR.get(interpretation.name)


def _band(
    dataset: Any, number: int, statistics: Mapping[str, Any] | None, *, pixel_metres: float | None, sampling: str
) -> dict[str, Any]:
    at = number - 1
    dtype, interpretation = dataset.dtypes[at], dataset.colorinterp[at]
    description = dataset.descriptions[at]
    band: dict[str, Any] = {
        "name": f"b{number}",
        "description": description or _colour_words(interpretation),
        "data_type": _data_type(dtype),
        "nodata": _nodata(dataset.nodatavals[at]),
        "unit": dataset.units[at] or None,
        "statistics": _core_statistics(statistics),
        "raster:bits_per_sample": _bits(dataset, number, dtype),
        "raster:sampling": sampling,
        "raster:spatial_resolution": pixel_metres,
        "raster:histogram": None if statistics is None else _histogram(statistics.get("histogram")),
        "eo:common_name": common_name(interpretation, description),
    }
    if (dataset.scales[at], dataset.offsets[at]) != (1.0, 0.0):
        band |= {"raster:scale": dataset.scales[at], "raster:offset": dataset.offsets[at]}
    return {name: value for name, value in band.items() if value is not None}


def _colour_words(interpretation: ColorInterp) -> str | None:
    return None if interpretation is ColorInterp.undefined else interpretation.name


def _data_type(dtype: str) -> str:
    return dtype if dtype in _DATA_TYPES else _COMPLEX_TYPES.get(dtype, "other")


def _nodata(value: float | None) -> float | int | str | None:
    if value is None:
        return None
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return int(value) if float(value).is_integer() and abs(value) < 2**53 else float(value)


def _bits(dataset: Any, number: int, dtype: str) -> int | None:
    stored = dataset.tags(number, ns="IMAGE_STRUCTURE").get("NBITS")
    if stored is not None and str(stored).isdigit():
        return int(stored)
    return int(np.dtype(dtype).itemsize * 8) if dtype in _DATA_TYPES else None


def _core_statistics(statistics: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if statistics is None:
        return None
    kept = {
        name: statistics[name]
        for name in _STATISTICS
        if isinstance(statistics.get(name), int | float) and math.isfinite(statistics[name])
    }
    return kept or None


def _histogram(histogram: Any) -> dict[str, Any] | None:
    """A histogram as raster 2.0 has it; ``None`` where it has fewer than the three buckets the schema asks for."""
    if not isinstance(histogram, Mapping) or len(histogram.get("buckets", ())) < 3:  # noqa: PLR2004
        return None
    return {
        "count": len(histogram["buckets"]),
        "min": histogram["min"],
        "max": histogram["max"],
        "buckets": [int(bucket) for bucket in histogram["buckets"]],
    }
