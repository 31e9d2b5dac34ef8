"""Statistics of a container's entries, in bounded memory.

What belongs here: :class:`Statistics`, which takes frames of entries one by one, and :func:`summarize`.  What does
not: listing (``entries``), and what a job makes of the result.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from geo_assets.containers.duplicates import Duplicates
from geo_assets.containers.entries import EntryCounts, EntryStream
from geo_assets.containers.filter import BYTES_PER_MB, BlobFilter
from geo_assets.containers.kinds import KINDS, kinds_of_tails, tail
from geo_assets.stores.blobs import BlobStore, Detail

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

_MOST_TYPES = 1000
"""Types told apart; beyond, the rarest are one: names may end in running numbers."""
_OTHER_TYPES = "(other)"


@dataclass
class Statistics:
    """Running statistics. Add frames of entries, then read :meth:`to_dict`; the order of frames decides ties only."""

    total_files: int = 0
    total_size: int = 0
    _types: dict[str, list[int]] = field(default_factory=dict)
    _bins: list[int] = field(default_factory=lambda: [0] * len(SIZE_BINS))
    _largest: list[dict[str, Any]] = field(default_factory=list)
    _smallest: dict[str, Any] | None = None
    _oldest: dict[str, Any] | None = None
    _newest: dict[str, Any] | None = None
    _kinds: dict[str, list[int]] = field(default_factory=lambda: {kind: [0, 0] for kind in KINDS})

    def add(self, entries: pl.DataFrame) -> None:
        """Take in a frame with columns ``name``, ``size`` (bytes) and ``last_modified``.

        Where it has a column ``kind``, that counts; else the kind is that of the name.
        """
        if entries.height == 0:
            return
        size = pl.col("size")
        below = [(size < bound).sum().alias(name) for name, bound in SIZE_BINS.items() if bound is not None]
        lazy = entries.lazy()
        kind = [name for name in ("kind",) if name in entries.columns]
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
                    part.group_by(tail().alias("tail"), *kind).agg(pl.len(), size.sum())
                    for part in (lazy.slice(0, half), lazy.slice(half))
                ),
            ]
        )
        found = totals.row(0, named=True)
        self.total_files += entries.height
        self.total_size += found["total"]
        if self._oldest is None or found["oldest"] < self._oldest["last_modified"]:
            self._oldest = _first_with(entries, "last_modified", found["oldest"])
        if self._newest is None or found["newest"] > self._newest["last_modified"]:
            self._newest = _first_with(entries, "last_modified", found["newest"])
        self._count_bins([found[name] for name, bound in SIZE_BINS.items() if bound is not None], entries.height)
        self._count_types(pl.concat(types))
        self._keep_extremes(entries, found["smallest"])

    def _count_types(self, groups: pl.DataFrame) -> None:
        if "kind" not in groups.columns:
            groups = groups.with_columns(kinds_of_tails(groups["tail"]))
        for found, kind, count, size in groups.select("tail", "kind", "len", "size").iter_rows():
            # .aux.xml is one tail, but its type is .xml, as it always was
            extension = "." if found is None else f".{found.rpartition('.')[2].lower()}"
            name = "no_extension" if extension == "." else extension
            for kept in (self._types.setdefault(name, [0, 0]), self._kinds[kind]):
                kept[0] += count
                kept[1] += size
        if len(self._types) > 2 * _MOST_TYPES:
            self._types = dict(self._common_types())

    def _common_types(self) -> list[tuple[str, list[int]]]:
        types = sorted(self._types.items(), key=lambda item: (item[0] == _OTHER_TYPES, -item[1][0], item[0]))
        if len(types) <= _MOST_TYPES:
            return types
        rest = types[_MOST_TYPES - 1 :]
        others = [sum(counts[position] for _, counts in rest) for position in (0, 1)]
        return [*types[: _MOST_TYPES - 1], (_OTHER_TYPES, others)]

    def _count_bins(self, below: list[int], height: int) -> None:
        bounds = [0, *below, height]
        for position in range(len(self._bins)):
            self._bins[position] += bounds[position + 1] - bounds[position]

    def _keep_extremes(self, entries: pl.DataFrame, smallest: int) -> None:
        if self._smallest is None or smallest < self._smallest["size"]:
            self._smallest = _first_with(entries, "size", smallest)
        columns = entries.select("name", "size", "last_modified")
        # most frames hold nothing larger than what is kept, and are not sorted
        if len(self._largest) == _LARGEST:
            columns = columns.filter(pl.col("size") > self._largest[-1]["size"])
        if columns.height:
            top = columns.top_k(_LARGEST, by="size").sort("size", descending=True, maintain_order=True)
            first = _first_with(columns, "size", top["size"][0])
            rows = [first, *(row for row in top.iter_rows(named=True) if row["name"] != first["name"])]
            # sorted() is stable: of equal sizes, the one that came first stays first
            self._largest = sorted([*self._largest, *rows], key=lambda row: -row["size"])[:_LARGEST]

    def to_dict(self) -> dict[str, Any]:
        """The original's ``statistics``, then ``largest_files``, ``oldest``, ``newest`` and ``kinds``; JSON-able."""
        return {
            "total_files": self.total_files,
            "total_size_bytes": self.total_size,
            "total_size_gb": round(self.total_size / _BYTES_PER_GB, 2),
            "largest_file": _described(self._largest[0], with_mb=True) if self._largest else None,
            "smallest_file": _described(self._smallest) if self._smallest else None,
            "file_types": {
                name: {"count": count, "total_size_gb": round(size / _BYTES_PER_GB, 4)}
                for name, (count, size) in self._common_types()
            },
            "size_distribution": dict(zip(SIZE_BINS, self._bins, strict=True)),
            "date_range": {"oldest_file": _date_of(self._oldest), "newest_file": _date_of(self._newest)},
            "largest_files": [_described(row, with_mb=True) for row in self._largest],
            "oldest": _described(self._oldest) if self._oldest else None,
            "newest": _described(self._newest) if self._newest else None,
            "kinds": {name: {"count": count, "total_size_bytes": size} for name, (count, size) in self._kinds.items()},
        }


@dataclass(frozen=True)
class Summary:
    """Statistics of a container, and what the reading of it met."""

    statistics: dict[str, Any]
    counts: EntryCounts
    hit_limit: bool
    duplicates: dict[str, Any] | None = None
    """As :meth:`geo_assets.containers.duplicates.Duplicates.found`."""


def summarize(
    store: BlobStore,
    container: str,
    *,
    blob_filter: BlobFilter | None = None,
    limit: int | None = None,
    detail: Detail = "basic",
    scratch: Path | None = None,
) -> Summary:
    """Read a container once and return the statistics of the entries that pass the filter.

    Args:
        store: where the container is.
        container: its name.
        blob_filter: which entries count.
        limit: most entries, counted after filtering.
        detail: ``full`` asks the store for hashes, which tell duplicates.
        scratch: folder for temporary files; without one duplicates are not looked for.

    Raises:
        GeoAssetsError: as the store's ``list_blobs``.
        OSError: there is no room for temporary files.
    """
    stream = EntryStream(store, container, blob_filter=blob_filter, limit=limit, detail=detail)
    statistics = Statistics()
    with ExitStack() as stack:
        duplicates = None
        if detail == "full" and scratch is not None:
            duplicates = stack.enter_context(Duplicates(scratch))
        for entries in stream:
            statistics.add(entries)
            if duplicates is not None:
                duplicates.add(entries)
        found = None if duplicates is None else duplicates.found()
    return Summary(statistics.to_dict(), stream.counts, stream.hit_limit, found)


def _first_with(entries: pl.DataFrame, column: str, value: int | datetime) -> dict[str, Any]:
    # arg_min, arg_max and top_k choose any of equals
    position = entries[column].index_of(value) or 0
    row = entries.row(position, named=True)
    return {name: row[name] for name in ("name", "size", "last_modified")}


def _date_of(row: Mapping[str, Any] | None) -> str | None:
    return None if row is None else _iso(row["last_modified"])


def _described(row: Mapping[str, Any], *, with_mb: bool = False) -> dict[str, Any]:
    described = {"name": row["name"], "size_bytes": row["size"]}
    if with_mb:
        described["size_mb"] = round(row["size"] / BYTES_PER_MB, 2)
    return {**described, "last_modified": _iso(row["last_modified"])}


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
