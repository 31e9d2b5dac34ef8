"""Which blobs of a container are meant.

What belongs here: :class:`BlobFilter`, made from the ``filter`` parameter of the container workflows.  What does
not: reading blobs.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from geo_assets.errors import ParameterError

__all__ = ["BYTES_PER_MB", "BlobFilter"]

BYTES_PER_MB = 1024 * 1024
"""The original's megabyte."""


@dataclass(frozen=True, kw_only=True)
class BlobFilter:
    """All conditions must hold; bounds are inclusive. The empty filter lets everything pass."""

    prefix: str = ""
    """What names start with: text, not a folder."""
    extensions: tuple[str, ...] = ()
    """What names end in, lower case with a leading dot; one is enough. ``.aux.xml`` works, too."""
    min_size_mb: float | None = None
    """Megabytes of 1,048,576 bytes."""
    max_size_mb: float | None = None
    modified_after: datetime | None = None
    """Aware."""
    modified_before: datetime | None = None

    @classmethod
    def from_parameter(cls, given: object) -> "BlobFilter":
        """Read the ``filter`` parameter of a job: ``None`` or a dict of the fields above.

        Extensions may come with or without the dot, in any case.  Dates are ISO 8601; without a time zone they are
        UTC, and a date alone is its midnight.

        Raises:
            ParameterError: not a dict, an unknown key, a wrong type, an invalid date, bounds that exclude each other.
        """
        if given is None:
            return cls()
        if not isinstance(given, Mapping):
            raise ParameterError("filter must be a dictionary")
        unknown = [str(key) for key in given if key not in cls.__dataclass_fields__]
        if unknown:
            raise ParameterError(f"filter: unknown key '{unknown[0]}'; it takes: {', '.join(cls.__dataclass_fields__)}")
        found = cls(
            prefix=_text(given, "prefix"),
            extensions=_extensions(given.get("extensions")),
            min_size_mb=_number(given, "min_size_mb"),
            max_size_mb=_number(given, "max_size_mb"),
            modified_after=_date(given, "modified_after"),
            modified_before=_date(given, "modified_before"),
        )
        for low, high in (("min_size_mb", "max_size_mb"), ("modified_after", "modified_before")):
            bounds = getattr(found, low), getattr(found, high)
            if None not in bounds and bounds[0] > bounds[1]:
                raise ParameterError(f"filter.{low} must not be more than filter.{high}; nothing could pass")
        return found

    def expression(self) -> pl.Expr | None:
        """The conditions but for the prefix, over ``name``, ``size`` and ``last_modified``; ``None``: none."""
        conditions = []
        if self.extensions:
            lowered = pl.col("name").str.to_lowercase()
            conditions.append(pl.any_horizontal([lowered.str.ends_with(extension) for extension in self.extensions]))
        if self.min_size_mb is not None:
            conditions.append(pl.col("size") >= self.min_size_mb * BYTES_PER_MB)
        if self.max_size_mb is not None:
            conditions.append(pl.col("size") <= self.max_size_mb * BYTES_PER_MB)
        if self.modified_after is not None:
            conditions.append(pl.col("last_modified") >= self.modified_after)
        if self.modified_before is not None:
            conditions.append(pl.col("last_modified") <= self.modified_before)
        return pl.all_horizontal(conditions) if conditions else None


def _text(given: Mapping[Any, Any], key: str) -> str:
    value = given.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ParameterError(f"filter.{key} must be a string")
    return value


def _extensions(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ParameterError("filter.extensions must be a list")
    found = []
    for extension in value:
        if not isinstance(extension, str) or not extension.strip().lstrip("."):
            raise ParameterError("filter.extensions must be a list of extensions such as '.tif'")
        text = extension.strip().lower()
        found.append(text if text.startswith(".") else f".{text}")
    return tuple(dict.fromkeys(found))


def _number(given: Mapping[Any, Any], key: str) -> float | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ParameterError(f"filter.{key} must be a number")
    if value < 0:
        raise ParameterError(f"filter.{key} must be a number of at least 0, got {value}")
    return float(value)


def _date(given: Mapping[Any, Any], key: str) -> datetime | None:
    value = given.get(key)
    if value is None:
        return None
    if isinstance(value, str):
        # dates near year 1 or 9999 overflow on the way to UTC
        with suppress(ValueError, OverflowError):
            found = datetime.fromisoformat(value.strip())
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    shown = f"'{value[:60]}'" if isinstance(value, str) else type(value).__name__
    raise ParameterError(
        f"filter.{key} must be an ISO 8601 date such as '2025-01-31' or '2025-01-31T12:00:00Z', got {shown}"
    )
