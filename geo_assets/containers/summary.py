"""Statistics of a container's entries, in bounded memory.

What belongs here: :class:`Statistics`, which takes frames of entries one by one, and :func:`summarize`.  What does
not: listing (``entries``), and what a job makes of the result.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from geo_assets.containers.entries import EntryCounts, EntryStream
from geo_assets.containers.filter import BYTES_PER_MB, BlobFilter
from geo_assets.stores.blobs import BlobStore

__all__ = ["SIZE_BINS", "Statistics", "Summary", "summarize"]

_BYTES_PER_GB = 1024 * BYTES_PER_MB
_LARGEST = 10

SIZE_BINS: Mapping[str, int | None] = {
    "0-10MB": 10 * BYTES_PER_MB,
    "10-100MB": 100 * BYTES_PER_MB,
    "100MB-1GB": _BYTES_PER_GB,
    "1GB-10GB": 10 * _BYTES_PER_GB,
    "10GB+": None,
}
"""Size classes of the original, each with the first size beyond it."""

# the end of the name from its last dot, if that is in the last path segment
_EXTENSION = pl.col("name").str.extract(r"(\.[^./]*)$")


@dataclass
class Statistics:
    """Running statistics. Add frames of entries, then read :meth:`to_dict`; the order of frames decides ties only."""

    total_files: int = 0
    total_size: int = 0
    _types: dict[str, list[int]] = field(default_factory=dict)
    _bins: list[int] = field(default_factory=lambda: [0] * len(SIZE_BINS))
    _largest: list[dict[str, Any]] = field(default_factory=list)
    _smallest: dict[str, Any] | None = None
    _oldest: datetime | None = None
    _newest: datetime | None = None

    def add(self, entries: pl.DataFrame) -> None:
        """Take in a frame with columns ``name``, ``size`` (bytes) and ``last_modified``."""
        if entries.height == 0:
            return
        size = pl.col("size")
        below = [(size < bound).sum().alias(name) for name, bound in SIZE_BINS.items() if bound is not None]
        lazy = entries.lazy()
        # the extensions are most of the work, and polars would take them from the names in one thread
        half = entries.height // 2
        totals, *types = pl.collect_all(
            [
                lazy.select(
                    size.sum().alias("total"),
                    size.min().alias("smallest"),
                    pl.col("last_modified").min().alias("oldest"),
                    pl.col("last_modified").max().alias("newest"),
                    *below,
                ),
                *(
                    part.group_by(_EXTENSION.alias("extension")).agg(pl.len(), size.sum())
                    for part in (lazy.slice(0, half), lazy.slice(half))
                ),
            ]
        )
        found = totals.row(0, named=True)
        self.total_files += entries.height
        self.total_size += found["total"]
        self._oldest = found["oldest"] if self._oldest is None else min(self._oldest, found["oldest"])
        self._newest = found["newest"] if self._newest is None else max(self._newest, found["newest"])
        self._count_bins([found[name] for name, bound in SIZE_BINS.items() if bound is not None], entries.height)
        for extension, count, bytes_ in pl.concat(types).iter_rows():
            name = "no_extension" if extension in (None, ".") else extension.lower()
            kept = self._types.setdefault(name, [0, 0])
            kept[0] += count
            kept[1] += bytes_
        self._keep_extremes(entries, found["smallest"])

    def _count_bins(self, below: list[int], height: int) -> None:
        bounds = [0, *below, height]
        for position in range(len(self._bins)):
            self._bins[position] += bounds[position + 1] - bounds[position]

    def _keep_extremes(self, entries: pl.DataFrame, smallest: int) -> None:
        if self._smallest is None or smallest < self._smallest["size"]:
            self._smallest = _first_of_size(entries, smallest)
        columns = entries.select("name", "size", "last_modified")
        # most frames hold nothing larger than what is kept, and are not sorted
        if len(self._largest) == _LARGEST:
            columns = columns.filter(pl.col("size") > self._largest[-1]["size"])
        if columns.height:
            top = columns.top_k(_LARGEST, by="size").sort("size", descending=True, maintain_order=True)
            first = _first_of_size(columns, top["size"][0])
            rows = [first, *(row for row in top.iter_rows(named=True) if row["name"] != first["name"])]
            # sorted() is stable: of equal sizes, the one that came first stays first
            self._largest = sorted([*self._largest, *rows], key=lambda row: -row["size"])[:_LARGEST]

    def to_dict(self) -> dict[str, Any]:
        """The original's ``statistics``, and ``largest_files``; JSON-able."""
        types = sorted(self._types.items(), key=lambda item: (-item[1][0], item[0]))
        return {
            "total_files": self.total_files,
            "total_size_bytes": self.total_size,
            "total_size_gb": round(self.total_size / _BYTES_PER_GB, 2),
            "largest_file": _described(self._largest[0], with_mb=True) if self._largest else None,
            "smallest_file": _described(self._smallest) if self._smallest else None,
            "file_types": {
                name: {"count": count, "total_size_gb": round(size / _BYTES_PER_GB, 4)} for name, (count, size) in types
            },
            "size_distribution": dict(zip(SIZE_BINS, self._bins, strict=True)),
            "date_range": {"oldest_file": _iso(self._oldest), "newest_file": _iso(self._newest)},
            "largest_files": [_described(row, with_mb=True) for row in self._largest],
        }


@dataclass(frozen=True)
class Summary:
    """Statistics of a container, and what the reading of it met."""

    statistics: dict[str, Any]
    counts: EntryCounts
    hit_limit: bool


def summarize(
    store: BlobStore, container: str, *, blob_filter: BlobFilter | None = None, limit: int | None = None
) -> Summary:
    """Read a container once and return the statistics of the entries that pass the filter.

    Raises:
        GeoAssetsError: as the store's ``list_blobs``.
    """
    stream = EntryStream(store, container, blob_filter=blob_filter, limit=limit)
    statistics = Statistics()
    for entries in stream:
        statistics.add(entries)
    return Summary(statistics.to_dict(), stream.counts, stream.hit_limit)


def _first_of_size(entries: pl.DataFrame, size: int) -> dict[str, Any]:
    # arg_min, arg_max and top_k choose any of equals
    return entries.row(int(entries["size"].index_of(size) or 0), named=True)


def _described(row: Mapping[str, Any], *, with_mb: bool = False) -> dict[str, Any]:
    described = {"name": row["name"], "size_bytes": row["size"]}
    if with_mb:
        described["size_mb"] = round(row["size"] / BYTES_PER_MB, 2)
    return {**described, "last_modified": _iso(row["last_modified"])}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
