"""When the data of a raster was taken: from the user's pattern, the file's own tags, or the blob's date.

What belongs here: finding that time and saying where it was found.  What does not: the times an item was made and
changed, which the catalog stores keep.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from geo_assets.errors import ParameterError

__all__ = ["Acquisition", "acquisition", "check_datetime_pattern"]

# Tags that name the moment of acquisition come before those that may name the moment of writing
_TAGS = (
    ("IMAGERY", "ACQUISITIONDATETIME"),
    ("", "ACQUISITION_DATE"),
    ("", "ACQUISITIONDATETIME"),
    ("", "DATE_ACQUIRED"),
    ("", "SENSING_TIME"),
    ("", "time_coverage_start"),
    ("", "NC_GLOBAL#time_coverage_start"),
    ("", "NITF_IDATIM"),
    ("", "datetime"),
    ("", "TIFFTAG_DATETIME"),
)
_TAG_FORMATS = (
    "%Y:%m:%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S",
    "%Y%m%d%H%M%S",
    "%Y/%m/%d",
    "%Y:%m:%d",
    "%Y%m%d",
)
_DIRECTIVES = {
    "Y": r"(?P<Y>\d{4})",
    "m": r"(?P<m>0[1-9]|1[0-2])",
    "d": r"(?P<d>0[1-9]|[12]\d|3[01])",
    "j": r"(?P<j>\d{3})",
    "H": r"(?P<H>[01]\d|2[0-3])",
    "M": r"(?P<M>[0-5]\d)",
    "S": r"(?P<S>[0-5]\d)",
    "%": "%",
}
_EARLIEST = 1000


class Acquisition(NamedTuple):
    """A time and where it was found."""

    moment: datetime
    source: str
    """``parameter``, ``name pattern``, ``tag NAME``, ``blob date`` or ``cataloguing``."""


def acquisition(
    *,
    name: str,
    tags: Mapping[str, Mapping[str, Any]],
    pattern: str | None = None,
    given: datetime | None = None,
    blob_date: datetime | None = None,
    now: datetime | None = None,
) -> Acquisition:
    """Find the time a raster was taken.

    In this order: what the caller gives, the pattern applied to the name, the file's tags, the blob's date, now.

    Args:
        name: the blob's name.
        tags: the file's tags by GDAL metadata domain; ``""`` is the default one.
        pattern: see :func:`check_datetime_pattern`.
        given: a time that is known.
        blob_date: when the blob was last written.
        now: the time of cataloguing.

    Raises:
        ParameterError: the pattern is malformed.
    """
    if given is not None:
        return Acquisition(_aware(given), "parameter")
    if pattern is not None and (moment := _in_name(name, pattern)) is not None:
        return Acquisition(moment, "name pattern")
    for domain, tag in _TAGS:
        value = tags.get(domain, {}).get(tag)
        if isinstance(value, str) and (moment := _of_tag(value)) is not None:
            return Acquisition(moment, f"tag {tag.rpartition('#')[2]}")
    if blob_date is not None:
        return Acquisition(_aware(blob_date), "blob date")
    return Acquisition(now or datetime.now(UTC), "cataloguing")


def check_datetime_pattern(pattern: str) -> str:
    """Return a pattern such as ``_%Y%m%dT%H%M%S`` or ``%Y/%j`` if it can be used.

    It is looked for anywhere in the blob's name; all characters but %Y %m %d %j %H %M %S (and %% for %) stand for
    themselves.

    Raises:
        ParameterError: an unknown directive, one given twice, or no year.
    """
    _compiled(pattern)
    return pattern


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > 200:  # noqa: PLR2004
        raise ParameterError("a datetime pattern has at most 200 characters")
    parts: list[str] = []
    for piece in re.findall(r"%.?|[^%]+", pattern, flags=re.DOTALL):
        if not piece.startswith("%"):
            parts.append(re.escape(piece))
        elif (directive := _DIRECTIVES.get(piece[1:])) is None:
            raise ParameterError(f"datetime pattern '{pattern}': unknown '{piece}'; use %Y %m %d %j %H %M %S")
        elif directive != "%" and directive in parts:
            raise ParameterError(f"datetime pattern '{pattern}': '{piece}' is given twice")
        else:
            parts.append(directive)
    if _DIRECTIVES["Y"] not in parts:
        raise ParameterError(f"datetime pattern '{pattern}' has no year: add %Y")
    # digits beside a directive would make it part of a longer number
    before = r"(?<!\d)" if parts[0].startswith("(?P") else ""
    after = r"(?!\d)" if parts[-1].startswith("(?P") else ""
    return re.compile(before + "".join(parts) + after)


def _in_name(name: str, pattern: str) -> datetime | None:
    for match in _compiled(pattern).finditer(name):
        found = {directive: value for directive, value in match.groupdict().items() if value is not None}
        text = " ".join(found.values())
        try:
            moment = datetime.strptime(text, " ".join(f"%{directive}" for directive in found)).replace(tzinfo=UTC)
        except ValueError:
            continue  # such as 31 February
        if moment.year >= _EARLIEST:
            return moment
    return None


def _of_tag(value: str) -> datetime | None:
    text = value.strip()
    moment: datetime | None = None
    for layout in _TAG_FORMATS:
        try:
            moment = datetime.strptime(text, layout).replace(tzinfo=UTC)
        except ValueError:
            continue
        break
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    try:
        moment = _aware(moment).astimezone(UTC)
    except OverflowError:
        return None
    return moment if moment.year >= _EARLIEST else None


def _aware(moment: datetime) -> datetime:
    """Times without a zone are taken as UTC: TIFF tags never have one."""
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
