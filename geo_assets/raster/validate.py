"""One raster, one verdict: the checks of ``validate_raster_job`` on a local file.

What belongs here: the order of the checks, their words and codes, and the result.  What does not: fetching the blob
and turning the verdict into a task's outcome (``geo_assets.jobs.validate_raster_job``), opening (``open``), reading
(``statistics``), the rules for types (``raster_type``) and CRSs (``crs``).

:func:`validate_raster_file` is what a worker process runs: plain values in, plain values out.  A raster with a defect
is *invalid*, which is an answer; only what is wrong with ourselves is *failed*.
"""

import logging
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.crs
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, from_gcps

from geo_assets.errors import ParameterError, RasterRefusedError, RasterUnreadableError
from geo_assets.raster.crs import crs_name, doubts_about_bounds, parse_crs, same_crs
from geo_assets.raster.open import RasterBudget, gdal_environment, open_overview, open_raster, reason_of
from geo_assets.raster.raster_type import RASTER_TYPES, BandFacts, Detection, cog_settings, detect
from geo_assets.raster.statistics import BandStatistics, Reading, read_everything, read_through
from geo_assets.raster.tiff import declared_nodata

__all__ = ["ERROR_CODES", "RASTER_TYPE_PARAMETERS", "cog_verdict", "validate_raster_file"]

RASTER_TYPE_PARAMETERS = ("auto", *(kind for kind in RASTER_TYPES if kind != "unknown"))
"""What the parameter ``raster_type`` takes."""

ERROR_CODES = (
    "MISSING_PARAMETER", "PARAMETER_ERROR", "FILE_UNREADABLE", "CRS_VALIDATION_ERROR", "BIT_DEPTH_CHECK_ERROR",
    "TYPE_DETECTION_ERROR", "COG_SETTINGS_ERROR", "RESULT_BUILD_ERROR", "VALIDATION_ERROR",
    "CRS_MISMATCH", "CRS_MISSING", "BIT_DEPTH_POLICY_VIOLATION", "RASTER_TYPE_MISMATCH",
)  # fmt: skip
"""The codes a failing validation has; the original's, but for those of its start-up."""

_MIB = 1024 * 1024
_WASTEFUL = frozenset({"float64", "int64", "uint64", "complex64", "complex128", "complex_int16"})
_SMALLER = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
_OVERVIEW_DRIVERS = frozenset({"GTiff", "HFA"})
_TINY = 1e-12
_MOST_MESSAGES = 10


class _InvalidError(Exception):
    """The raster's own fault: ends the validation with a code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Report:
    """What is known so far; a verdict carries all of it, however early it falls."""

    facts: dict[str, Any] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def warn(self, kind: str, severity: str, message: str, **more: Any) -> None:
        self.warnings.append({"type": kind, "severity": severity, "message": message, **more})


@dataclass(frozen=True, kw_only=True)
class _Georeference:
    """How pixels come to their places."""

    kind: str
    """``geotransform``, ``gcps``, ``rpcs`` or ``none``."""
    crs: rasterio.crs.CRS | None
    transform: Affine | None
    bounds: tuple[float, float, float, float] | None
    points: int = 0

    @property
    def rotated(self) -> bool:
        return self.transform is not None and max(abs(self.transform.b), abs(self.transform.d)) > _TINY * max(
            abs(self.transform.a), abs(self.transform.e)
        )

    @property
    def south_up(self) -> bool:
        return self.kind == "geotransform" and self.transform is not None and self.transform.e > 0


def validate_raster_file(params: dict[str, Any]) -> dict[str, Any]:
    """Judge a local file; to be run in a worker process under limits.

    Args:
        params: ``path`` (absolute, of a private copy), ``budget`` (:meth:`RasterBudget.as_dict`); optional ``name``
            (of the blob), ``input_crs``, ``raster_type``, ``strict_mode``.

    Returns:
        ``success`` true with the ``result``; or false with ``error`` (one of :data:`ERROR_CODES`), ``message``,
        ``outcome`` (``invalid`` or ``failed``), ``reason`` and what was found before as ``result``.
    """
    report = _Report()
    try:
        with _bugs_as("PARAMETER_ERROR"):
            asked = _Asked.from_params(params)
        _judge(asked, report)
    except _InvalidError as verdict:
        return _failed(report, verdict.code, str(verdict), outcome="invalid")
    except _BugError as bug:
        return _failed(report, bug.code, str(bug), outcome="failed", trace=bug.trace)
    return {"success": True, "result": {"valid": True, **report.facts, "warnings": report.warnings}}


@dataclass(frozen=True, kw_only=True)
class _Asked:
    path: Path
    name: str
    budget: RasterBudget
    input_crs: rasterio.crs.CRS | None
    raster_type: str
    strict: bool

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "_Asked":
        for name in ("path", "budget"):
            if not params.get(name):
                raise _InvalidError("MISSING_PARAMETER", f"the validation needs the parameter '{name}'")
        wanted = params.get("raster_type") or "auto"
        if wanted not in RASTER_TYPE_PARAMETERS:
            choices = ", ".join(RASTER_TYPE_PARAMETERS)
            raise _InvalidError("PARAMETER_ERROR", f"raster_type must be one of {choices}; got {wanted!r}")
        try:
            crs = parse_crs(params["input_crs"]) if params.get("input_crs") is not None else None
        except ParameterError as error:
            raise _InvalidError("PARAMETER_ERROR", f"input_crs: {error}") from error
        return cls(
            path=Path(params["path"]),
            name=str(params.get("name") or ""),
            budget=RasterBudget(**params["budget"]),
            input_crs=crs,
            raster_type=wanted,
            strict=bool(params.get("strict_mode")),
        )


def _judge(asked: _Asked, report: _Report) -> None:
    with _unreadable_as_invalid(), _bugs_as("FILE_UNREADABLE"), _gdal_warnings() as said:
        with open_raster(asked.path, budget=asked.budget, name=asked.name) as dataset:
            _describe(dataset, asked.path, report)
            with _bugs_as("CRS_VALIDATION_ERROR"):
                _check_crs(dataset, asked, report)
            nodata = _check_nodata(dataset, asked.path, report)
            reading = read_everything(dataset, nodata)
            bands = _band_facts(dataset, reading)
            overviews, driver = dataset.overviews(1), dataset.driver
        if driver in _OVERVIEW_DRIVERS:
            for level in range(len(overviews)):
                with open_overview(asked.path, driver, level) as overview:
                    read_through(overview)
    _check_what_gdal_said(said, report)
    report.facts["statistics"] = [
        {"band": number, **band.as_dict()} for number, band in enumerate(reading.bands, start=1)
    ]
    report.facts["blocks_read"] = reading.blocks
    report.facts["overviews"] = list(overviews)
    _check_values(reading.bands, nodata, report)
    with _bugs_as("BIT_DEPTH_CHECK_ERROR"):
        _check_bit_depth(bands, asked, report)
    with _bugs_as("TYPE_DETECTION_ERROR"):
        found, source = _check_type(bands, asked)
    with _bugs_as("COG_SETTINGS_ERROR"):
        settings = cog_settings(found.raster_type, report.facts["dtype"])
    report.facts["raster_type"] = {
        "detected_type": found.raster_type,
        "confidence": found.confidence,
        "evidence": list(found.evidence),
        "type_source": source,
        "optimal_cog_settings": settings,
    }
    with _bugs_as("RESULT_BUILD_ERROR"):
        report.facts["cog"] = cog_verdict(asked.path, driver)
    if asked.strict:
        _refuse_high_warnings(report)


# --- errors --------------------------------------------------------------------------------------------------


class _BugError(Exception):
    """Our own fault, or the library's, in a step that has a code."""

    def __init__(self, code: str, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.code = code
        self.trace = "".join(traceback.format_exception(error))


@contextmanager
def _bugs_as(code: str) -> Iterator[None]:
    try:
        yield
    except (_InvalidError, _BugError, RasterRefusedError, RasterUnreadableError, MemoryError):
        raise  # memory is the sandbox's limit: it says so
    except (RasterioError, OSError) as error:
        raise _InvalidError(code, reason_of(error)) from error
    except Exception as error:
        raise _BugError(code, error) from error


@contextmanager
def _unreadable_as_invalid() -> Iterator[None]:
    try:
        yield
    except (RasterRefusedError, RasterUnreadableError) as error:
        raise _InvalidError("FILE_UNREADABLE", str(error)) from error


def _failed(report: _Report, code: str, message: str, *, outcome: str, trace: str | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "success": False,
        "outcome": outcome,
        "error": code,
        "message": message,
        "reason": f"{code}: {message}",
        "transient": False,
        "result": {"valid": False, **report.facts, "warnings": report.warnings},
    }
    return answer if trace is None else {**answer, "traceback": trace}


class _Collector(logging.Handler):
    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "GDAL_SKIP" in message:
            return  # about our own hardening, not the raster: a driver to leave out that this GDAL does not have
        if len(self._messages) < _MOST_MESSAGES and message not in self._messages:
            self._messages.append(message)


@contextmanager
def _gdal_warnings() -> Iterator[list[str]]:
    """What GDAL warns of within; rasterio gives warnings to the log only."""
    messages: list[str] = []
    logger, collector = logging.getLogger("rasterio"), _Collector(messages)
    logger.addHandler(collector)
    try:
        yield messages
    finally:
        logger.removeHandler(collector)


def _check_what_gdal_said(said: Sequence[str], report: _Report) -> None:
    # a JPEG tile with damaged data is decoded to something, and a warning is all there is to see of it
    damage = [message for message in said if "corrupt" in message.lower()]
    if damage:
        raise _InvalidError("FILE_UNREADABLE", f"the data is damaged: {'; '.join(damage[:3])}")
    for message in said:
        report.warn("READ_WARNING", "LOW", message[:300])


# --- description and georeference ----------------------------------------------------------------------------


def _describe(dataset: DatasetReader, path: Path, report: _Report) -> None:
    size = path.stat().st_size
    tags = dataset.tags()
    report.facts.update(
        driver=dataset.driver,
        shape=[dataset.height, dataset.width],
        band_count=dataset.count,
        dtype=dataset.dtypes[0],
        dtypes=list(dataset.dtypes),
        size_bytes=size,
        size_mb=round(size / _MIB, 3),
        block_shape=list(dataset.block_shapes[0]),
        compression=dataset.compression.value if dataset.compression else None,
        color_interpretation=[color.name for color in dataset.colorinterp],
        area_or_point=tags.get("AREA_OR_POINT"),
    )


def _check_crs(dataset: DatasetReader, asked: _Asked, report: _Report) -> None:
    place = _georeference(dataset)
    in_file, given = place.crs, asked.input_crs
    report.facts.update(
        bounds=None if place.bounds is None else list(place.bounds),
        transform=None if place.transform is None else list(place.transform)[:6],
        georeference={"kind": place.kind, "rotated": place.rotated, "south_up": place.south_up},
    )
    if in_file is None and given is None:
        raise _InvalidError(
            "CRS_MISSING",
            f"the raster has no CRS in its metadata{_positions(place)}",
        )
    if in_file is not None and given is not None and not same_crs(in_file, given):
        raise _InvalidError(
            "CRS_MISMATCH",
            f"the file says its CRS is {_short(in_file)}, input_crs says {_short(given)}; leave input_crs out if the"
            " file is right, else put the file right",
        )
    crs = in_file if in_file is not None else given
    assert crs is not None  # noqa: S101 - one of the two is there
    if place.kind == "none":
        raise _InvalidError(
            "CRS_VALIDATION_ERROR",
            f"{'the file' if in_file is not None else 'input_crs'} says that the CRS is {_short(crs)}, but nothing"
            " places the raster's pixels: no geotransform, no ground control points, no RPCs; georeference the file",
        )
    if in_file is None:
        source = "user_override_required"
        report.warn("CRS_OVERRIDE_NO_FILE_CRS", "MEDIUM", f"the file has no CRS; input_crs {_short(crs)} is used",
                    user_crs=crs_name(crs))  # fmt: skip
    else:
        source = "file_metadata" if given is None else "user_confirmed"
    report.facts.update(source_crs=crs_name(crs), crs_source=source)
    _warn_about_place(place, crs, report)


def _georeference(dataset: DatasetReader) -> _Georeference:
    """What the file says of its place; ground control points and RPCs count where there is no geotransform."""
    points, points_crs = dataset.gcps
    transform = dataset.transform
    # GDAL gives the identity where there is none
    if transform != Affine.identity():
        return _Georeference(
            kind="geotransform",
            crs=dataset.crs,
            transform=transform,
            bounds=_bounds_of(transform, dataset.width, dataset.height),
        )
    if points:
        fitted = from_gcps(points)
        xs, ys = [point.x for point in points], [point.y for point in points]
        return _Georeference(
            kind="gcps",
            crs=points_crs or dataset.crs,
            transform=fitted,
            bounds=(min(xs), min(ys), max(xs), max(ys)),
            points=len(points),
        )
    if dataset.rpcs:
        rpcs = dataset.rpcs
        return _Georeference(
            kind="rpcs",
            crs=rasterio.crs.CRS.from_epsg(4326),
            transform=None,
            bounds=(
                rpcs.long_off - rpcs.long_scale,
                rpcs.lat_off - rpcs.lat_scale,
                rpcs.long_off + rpcs.long_scale,
                rpcs.lat_off + rpcs.lat_scale,
            ),
        )
    return _Georeference(kind="none", crs=dataset.crs, transform=None, bounds=None)


def _bounds_of(transform: Affine, width: int, height: int) -> tuple[float, float, float, float]:
    """Envelope of the four corners: right for rotated and south-up rasters, too."""
    corners = [transform @ corner for corner in ((0, 0), (width, 0), (0, height), (width, height))]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return min(xs), min(ys), max(xs), max(ys)


def _warn_about_place(place: _Georeference, crs: rasterio.crs.CRS, report: _Report) -> None:
    if place.kind == "gcps":
        report.warn("GCP_GEOREFERENCED", "MEDIUM", f"the raster is placed by {place.points} ground control points, not"
                    " by a geotransform; its bounds are those of the points", gcp_count=place.points)  # fmt: skip
    elif place.kind == "rpcs":
        report.warn("RPC_GEOREFERENCED", "MEDIUM", "the raster is placed by rational polynomials (RPC); without an"
                    " elevation model its positions are approximate")  # fmt: skip
    if place.kind == "geotransform" and place.rotated:
        report.warn("ROTATED", "MEDIUM", "the raster is rotated or sheared; its bounds are those of its corners, and a"
                    " COG needs it warped to north-up")  # fmt: skip
    elif place.south_up:
        report.warn("SOUTH_UP", "LOW", "the first row is the southernmost; a COG has the northernmost first")
    if place.bounds is None:
        return
    pixel = (0.0, 0.0) if place.transform is None else (place.transform.a, place.transform.e)
    doubt = doubts_about_bounds(crs, place.bounds, pixel)
    if doubt is not None:
        source = report.facts["crs_source"]
        report.warn("SUSPICIOUS_BOUNDS", "MEDIUM", f"the bounds {[round(v, 6) for v in place.bounds]} cannot be"
                    f" right in {_short(crs)}: {doubt}; is the CRS the right one?", bounds=list(place.bounds),
                    source_crs=crs_name(crs), crs_source=source)  # fmt: skip


def _positions(place: _Georeference) -> str:
    if place.kind == "none":
        return " and no positions either (no geotransform, ground control points or RPCs); georeference the file"
    how = f"{place.kind}{', rotated' if place.rotated else ''}"
    return f" (its pixels are placed by {how}); give input_crs, or add one to the file"


def _short(crs: rasterio.crs.CRS) -> str:
    """A name for messages: WKT can be pages long."""
    name = crs_name(crs)
    if len(name) <= 60:  # noqa: PLR2004
        return name
    parts = name.split('"')
    return f"'{parts[1]}' (without a code)" if len(parts) > 1 else f"{name[:60]}…"


# --- nodata --------------------------------------------------------------------------------------------------


def _check_nodata(dataset: DatasetReader, path: Path, report: _Report) -> list[float | None]:
    nodata: list[float | None] = [None if value is None else float(value) for value in dataset.nodatavals]
    flags = {flag for band in dataset.mask_flag_enums for flag in band}
    alpha = ColorInterp.alpha in dataset.colorinterp
    has_mask = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
    report.facts["nodata"] = _json_number(nodata[0])
    report.facts["mask"] = {
        "nodata": any(value is not None for value in nodata),
        "internal_mask": has_mask,
        "alpha": alpha,
    }
    written = declared_nodata(path) if dataset.driver == "GTiff" else None
    if written is not None and nodata[0] is None:
        report.warn("NODATA_OUT_OF_RANGE", "MEDIUM", f"the nodata value {written!a} does not fit {dataset.dtypes[0]};"
                    " no pixel can have it and it is left aside", nodata=written)  # fmt: skip
    elif nodata[0] is not None and not _fits(nodata[0], dataset.dtypes[0]):
        report.warn("NODATA_OUT_OF_RANGE", "MEDIUM", f"the nodata value {nodata[0]} does not fit {dataset.dtypes[0]};"
                    " no pixel can have it and it is left aside", nodata=str(nodata[0]))  # fmt: skip
        nodata = [None] * len(nodata)
    if any(value is not None for value in nodata) and (has_mask or alpha):
        other = "an alpha band" if alpha else "an internal mask"
        report.warn("NODATA_AND_MASK", "LOW", f"the raster has both a nodata value and {other}; a pixel counts as valid"
                    " only where both say so")  # fmt: skip
    return nodata


def _fits(value: float, dtype: str) -> bool:
    kind = np.dtype("complex64" if dtype == "complex_int16" else dtype)
    if kind.kind not in "iu":
        return True
    limits = np.iinfo(kind)
    return math.isfinite(value) and value == math.floor(value) and limits.min <= value <= limits.max


def _check_values(bands: Sequence[BandStatistics], nodata: Sequence[float | None], report: _Report) -> None:
    empty = [number for number, band in enumerate(bands, start=1) if not band.valid]
    if len(empty) == len(bands):
        report.warn("ALL_NODATA", "HIGH", "no pixel of any band has a valid value", bands=empty)
    elif empty:
        report.warn("EMPTY_BAND", "MEDIUM", f"no pixel of band {_numbers(empty)} has a valid value", bands=empty)
    constant = [n for n, band in enumerate(bands, start=1) if band.valid and band.minimum == band.maximum]
    if constant and len(constant) + len(empty) == len(bands):
        values = ", ".join(sorted({f"{bands[number - 1].minimum:g}" for number in constant}))
        report.warn("CONSTANT_VALUES", "LOW", f"every valid pixel has the same value ({values})", bands=constant)
    undeclared = [
        n for n, band in enumerate(bands, start=1) if band.nan and not math.isnan(nodata[n - 1] or 0.0)
    ]  # fmt: skip
    if undeclared:
        report.warn("UNDECLARED_NAN", "LOW", f"band {_numbers(undeclared)} holds NaN, which no nodata value declares;"
                    " it is taken as nodata", bands=undeclared)  # fmt: skip
    infinite = [number for number, band in enumerate(bands, start=1) if band.infinite]
    if infinite:
        report.warn("INFINITE_VALUES", "MEDIUM", f"band {_numbers(infinite)} holds infinite values; they are taken as"
                    " nodata", bands=infinite)  # fmt: skip


def _numbers(bands: Sequence[int]) -> str:
    shown = ", ".join(str(number) for number in bands[:10])
    return shown if len(bands) <= 10 else f"{shown} and {len(bands) - 10} more"  # noqa: PLR2004


def _json_number(value: float | None) -> float | int | str | None:
    if value is None:
        return None
    if not math.isfinite(value):
        return str(value)
    return int(value) if value == math.floor(value) else value


# --- bit depth -----------------------------------------------------------------------------------------------


def _check_bit_depth(bands: Sequence[BandFacts], asked: _Asked, report: _Report) -> None:
    dtype = report.facts["dtype"]
    data = [band.statistics for band in bands if band.color != "alpha"]
    severity, reason, better = _bit_depth(dtype, data)
    report.facts["bit_depth_check"] = {"efficient": severity is None, "current_dtype": dtype, "reason": reason}
    if severity is None:
        return
    if severity == "CRITICAL":
        if asked.strict:
            raise _InvalidError("BIT_DEPTH_POLICY_VIOLATION", reason)
        report.warn("BIT_DEPTH_POLICY_VIOLATION", severity, reason, current_dtype=dtype, recommended_dtype=better)
    else:
        report.warn("INEFFICIENT_BIT_DEPTH", severity, reason, current_dtype=dtype, recommended_dtype=better)


def _bit_depth(dtype: str, bands: Sequence[BandStatistics]) -> tuple[str | None, str, str | None]:
    """Severity (``None``: efficient), reason and a better dtype, if any."""
    better = _smallest(bands)
    if dtype in _WASTEFUL:
        advice = better or {"float64": "float32", "complex128": "complex64"}.get(dtype)
        return "CRITICAL", (
            f"policy violation: {dtype} takes 64 bits a value or more"
            f"{f'; {advice} would do' if advice else ''}"
        ), advice  # fmt: skip
    known = [band for band in bands if band.valid]
    if dtype.startswith("float") and known:
        few = all(band.distinct is not None and band.distinct_exact and band.distinct < 256 for band in known)  # noqa: PLR2004
        if few and sum(band.valid for band in known) >= 256:  # noqa: PLR2004 - of fewer pixels that says nothing
            most = max(band.distinct or 0 for band in known)
            return (
                "HIGH",
                f"{dtype} holds only {most} distinct values; uint8 with a table of values would do",
                "uint8",
            )
        if better is not None:
            return "MEDIUM", f"{dtype} holds whole numbers only; {better} would do", better
    elif dtype in ("int32", "uint32") and better is not None and better not in ("int32", "uint32"):
        return "MEDIUM", f"{dtype} holds values that fit {better}", better
    return None, f"{dtype} suits the values", None


def _smallest(bands: Sequence[BandStatistics]) -> str | None:
    """Smallest integer type that holds every valid value of all bands."""
    known = [band for band in bands if band.valid]
    if not known or not all(band.integers for band in known):
        return None
    low = min(band.minimum or 0.0 for band in known)
    high = max(band.maximum or 0.0 for band in known)
    return next((kind for kind in _SMALLER if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max), None)


# --- type ----------------------------------------------------------------------------------------------------


def _band_facts(dataset: DatasetReader, reading: Reading) -> list[BandFacts]:
    return [
        BandFacts(
            statistics=statistics,
            color=color.name,
            has_color_table=color.name == "palette",
            unit=unit or "",
            description=description or "",
        )
        for statistics, color, unit, description in zip(
            reading.bands, dataset.colorinterp, dataset.units, dataset.descriptions, strict=True
        )
    ]


def _check_type(bands: Sequence[BandFacts], asked: _Asked) -> tuple[Detection, str]:
    found = detect(bands)
    wanted = asked.raster_type
    if wanted == "auto":
        return found, "auto_detected"
    if wanted not in found.candidates and found.raster_type != "unknown":
        raise _InvalidError(
            "RASTER_TYPE_MISMATCH",
            f"raster_type is given as '{wanted}', but the raster is '{found.raster_type}' ({found.confidence}:"
            f" {'; '.join(found.evidence)}); it could also be called: {', '.join(found.candidates)}",
        )
    said = (*found.evidence, f"detected as {found.raster_type}; called {wanted} by the user, which the values allow")
    evidence = found.evidence if wanted == found.raster_type else said
    return (
        Detection(raster_type=wanted, confidence=found.confidence, evidence=evidence, also=found.candidates),
        "user_specified",
    )


def _refuse_high_warnings(report: _Report) -> None:
    serious = [warning for warning in report.warnings if warning["severity"] in ("HIGH", "CRITICAL")]
    if not serious:
        return
    bit_depth = any("BIT_DEPTH" in warning["type"] for warning in serious)
    message = "; ".join(f"{warning['type']} ({warning['severity']}): {warning['message']}" for warning in serious)
    raise _InvalidError(
        "BIT_DEPTH_POLICY_VIOLATION" if bit_depth else "VALIDATION_ERROR", f"strict mode refuses {message}"
    )


# --- COG -----------------------------------------------------------------------------------------------------


def cog_verdict(path: Path, driver: str) -> dict[str, Any]:
    """Whether a file that :func:`open_raster` let in is a valid COG already, and why or why not.

    The structure alone: whether its blocks can be read, this cannot tell (a COG cut off passes).
    """
    if driver != "GTiff":
        return {"valid": False, "errors": [f"it is {driver}, not GeoTIFF"], "warnings": [], "why": f"it is {driver}"}
    from rio_cogeo.cogeo import cog_validate  # noqa: PLC0415 - brings much along

    with gdal_environment():
        valid, errors, warnings = cog_validate(path, quiet=True)
    why = (
        "; ".join(errors) if errors else "tiled or small, with its directories before the data and its overviews inside"
    )
    return {"valid": bool(valid), "errors": list(errors), "warnings": list(warnings), "why": why}
