"""What became of the blobs of a listing when they were analysed: counts, bounded whatever the number of blobs.

What belongs here: :class:`Tally`, added up blob by blob within a slice, then slice by slice.  What does not:
statistics of the listing itself (``summary``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Tally"]

_SAMPLE = 20
_MOST_TYPES = 1000
_OTHER_TYPES = "(other)"


@dataclass
class Tally:
    """Counts of blobs: ``successful + failed + invalid + pending`` is how many were added."""

    successful: int = 0
    failed: int = 0
    invalid: int = 0
    pending: int = 0
    replaced: int = 0
    """Since they were listed; among the successful, as those below."""
    size: int = 0
    """Bytes of the successful."""
    types: dict[str, int] = field(default_factory=dict)
    """By extension without its dot."""
    largest: dict[str, Any] | None = None
    """``name`` and ``size_mb``; the first of equals."""
    largest_bytes: int = -1
    formats: dict[str, int] = field(default_factory=dict)
    """By what the first bytes say, of those that were read."""
    mismatches: int = 0
    mismatch_sample: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)

    def add(self, result: Mapping[str, Any]) -> None:
        """Count a blob that was described, by what :func:`geo_assets.containers.analysis.describe` returned."""
        self.successful += 1
        size = int(result.get("size_bytes") or 0)
        self.size += size
        self.replaced += bool(result.get("replaced_since_listing"))
        extension = str(result.get("file_extension") or "").lstrip(".") or "no_extension"
        self.types[extension] = self.types.get(extension, 0) + 1
        self._offer_largest(size, {"name": result.get("blob_name"), "size_mb": result.get("size_mb")})
        if "detected_format" in result and result.get("format_matches_name") is not None:
            found = result["detected_format"] or "unknown"
            self.formats[found] = self.formats.get(found, 0) + 1
        if result.get("format_matches_name") is False:
            self.mismatches += 1
            mismatch = {"name": result.get("blob_name"), "detected_format": result.get("detected_format")}
            self.mismatch_sample = [*self.mismatch_sample, mismatch][:_SAMPLE]

    def add_bad(
        self, name: str, error: str | None, *, invalid: bool = False, blobs: int = 1, task_id: str | None = None
    ) -> None:
        """Count blobs that failed, or whose names cannot be opened."""
        if invalid:
            self.invalid += blobs
        else:
            self.failed += blobs
        if len(self.errors) < _SAMPLE:
            self.errors.append({"blob_name": name, "error": error, "task_id": task_id})

    def merge(self, other: Mapping[str, Any], *, task_id: str) -> None:
        """Add what :meth:`to_dict` of a slice's tally gave."""
        for name in ("successful", "failed", "invalid", "replaced", "size", "mismatches"):
            setattr(self, name, getattr(self, name) + other[name])
        for own, theirs in ((self.types, other["types"]), (self.formats, other["formats"])):
            for name, count in theirs.items():
                own[name] = own.get(name, 0) + count
        if len(self.types) > 2 * _MOST_TYPES:
            self.types = self.common_types()
        self._offer_largest(other["largest_bytes"], other["largest"])
        self.mismatch_sample = [*self.mismatch_sample, *other["mismatch_sample"]][:_SAMPLE]
        errors = [{**error, "task_id": task_id} for error in other["errors"]]
        self.errors = [*self.errors, *errors][:_SAMPLE]

    def _offer_largest(self, size: int, described: dict[str, Any] | None) -> None:
        if size > self.largest_bytes:
            self.largest, self.largest_bytes = described, size

    def common_types(self) -> dict[str, int]:
        """The types, the most frequent first; beyond a thousand, the rarest are one."""
        types = sorted(self.types.items(), key=lambda item: (item[0] == _OTHER_TYPES, -item[1], item[0]))
        if len(types) > _MOST_TYPES:
            rest = sum(count for _, count in types[_MOST_TYPES - 1 :])
            types = [*types[: _MOST_TYPES - 1], (_OTHER_TYPES, rest)]
        return dict(types)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON-able values, for :meth:`merge`."""
        return {
            "successful": self.successful,
            "failed": self.failed,
            "invalid": self.invalid,
            "replaced": self.replaced,
            "size": self.size,
            "types": self.types,
            "largest": self.largest,
            "largest_bytes": self.largest_bytes,
            "formats": self.formats,
            "mismatches": self.mismatches,
            "mismatch_sample": self.mismatch_sample,
            "errors": self.errors,
        }
