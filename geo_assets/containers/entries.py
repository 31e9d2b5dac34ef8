"""The stream of a container's entries: its blobs, with each ``.gdb`` folder as one dataset, filtered, then limited.

What belongs here: :class:`EntryStream`, which listing and summary read.  What does not: what they make of it.

Rolled up is every blob whose path has a folder named ``*.gdb`` (any case): the dataset's name is the path up to that
folder, its size the sum, its date the latest; it has no ETag.  Datasets come after all plain blobs, as they are whole
only when the listing has ended.  Blobs with names that cannot be opened stay rows of their own, with a ``problem``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import polars as pl
import pyarrow as pa

from geo_assets.containers.filter import BlobFilter
from geo_assets.stores.blobs import BlobStore, Detail

__all__ = ["DETAIL_SCHEMA", "ENTRY_SCHEMA", "EntryCounts", "EntryStream"]

ENTRY_SCHEMA: dict[str, pl.DataType] = {
    "name": pl.String(),
    "size": pl.Int64(),
    "last_modified": pl.Datetime("us", "UTC"),
    "etag": pl.String(),
    "file_count": pl.Int64(),
    "problem": pl.String(),
}
"""Columns of an entry; ``file_count`` is null but for datasets, ``problem`` but for names that cannot be opened."""

DETAIL_SCHEMA: dict[str, pl.DataType] = {
    "content_type": pl.String(),
    "content_md5": pl.String(),
    "metadata": pl.String(),
    "tags": pl.String(),
}
"""Columns that follow with ``detail="full"``, as the store gives them; null for datasets."""

_ROWS = 200_000
# ASCII only, so that the quick test below and the exact one agree
_FOLDER = re.compile(r"(?i)^((?:[^/]*/)*?[^/]*\.gdb)/")
_FOLDER_PATTERN = r"(?i)^((?:[^/]*/)*?[^/]*\.gdb)/"
_QUICK_PATTERN = r"(?i)\.gdb/"


@dataclass
class EntryCounts:
    """What the stream met; complete when it has ended.

    ``entries == listed + filtered_out + beyond_limit`` always holds; ``unsupported`` are among the listed.
    """

    blobs: int = 0
    """Rows the store gave. With a limit, reading stops soon after it is reached."""
    datasets: int = 0
    """``.gdb`` folders met; their blobs count as one entry each."""
    parts: int = 0
    """Blobs in these folders."""
    filtered_out: int = 0
    listed: int = 0
    unsupported: int = 0
    beyond_limit: int = 0

    @property
    def entries(self) -> int:
        """Blobs and datasets."""
        return self.blobs - self.parts + self.datasets


class EntryStream:
    """Iterate it once: polars frames of :data:`ENTRY_SCHEMA`, up to 200,000 rows each; then read ``counts``."""

    def __init__(
        self,
        store: BlobStore,
        container: str,
        *,
        blob_filter: BlobFilter | None = None,
        limit: int | None = None,
        detail: Detail = "basic",
        rows: int | None = None,
    ) -> None:
        """Make the stream; nothing is read yet.

        Args:
            store: where the container is.
            container: its name.
            blob_filter: which entries count; applied to datasets as a whole.
            limit: most entries to give, counted after filtering.
            detail: what is asked of the store; ``full`` adds the columns of :data:`DETAIL_SCHEMA`.
            rows: least rows of a frame (but for the last), where no limit is set.
        """
        self._filter = blob_filter or BlobFilter()
        self._store, self._container, self._limit = store, container, limit
        self._condition = self._filter.expression()
        self._detail: Detail = detail
        self._rows = _ROWS if rows is None else rows
        self.schema = ENTRY_SCHEMA if detail == "basic" else {**ENTRY_SCHEMA, **DETAIL_SCHEMA}
        self._folders = pl.DataFrame(schema=self.schema)
        self.counts = EntryCounts()

    @property
    def whole_prefix(self) -> str | None:
        """All blobs whose name starts with this were given, none filtered out or cut off; ``None``: that is not so."""
        return None if self._condition is not None or self.hit_limit else self._filter.prefix

    @property
    def hit_limit(self) -> bool:
        """Whether as many entries were listed as the limit allows; there may be more."""
        return self._limit is not None and self.counts.listed >= self._limit

    def __iter__(self) -> Iterator[pl.DataFrame]:
        """Read the container.

        Raises:
            GeoAssetsError: as the store's ``list_blobs``.
        """
        # a prefix that ends within a dataset means the dataset
        inside = _FOLDER.match(self._filter.prefix)
        prefix = f"{inside.group(1)}/" if inside else self._filter.prefix
        batches = self._store.list_blobs(self._container, prefix, self._detail)
        # with a limit each batch is looked at as it comes, to read no more than needed
        for blobs in self._frames(batches, rows=self._rows if self._limit is None else 1):
            self.counts.blobs += blobs.height
            entries = self._keep_allowed(self._take_folders(blobs))
            if entries.height:
                yield entries
            if self.hit_limit:
                break
        self.counts.datasets = self._folders.height
        entries = self._keep_allowed(self._folders.sort("name"))
        if entries.height:
            yield entries

    def _take_folders(self, blobs: pl.DataFrame) -> pl.DataFrame:
        """Add the parts of datasets to those met before, and return the other blobs."""
        if not _may_hold_folders(blobs):
            return blobs
        in_folder = blobs["name"].str.contains(_QUICK_PATTERN) & blobs["problem"].is_null()
        parts = blobs.filter(in_folder)
        self.counts.parts += parts.height
        folders = parts.select(
            pl.col("name").str.extract(_FOLDER_PATTERN, 1),
            "size",
            "last_modified",
            file_count=pl.lit(1, pl.Int64),
        )
        known = self._folders.select(folders.columns)
        self._folders = (
            pl.concat([known, folders])
            .group_by("name")
            .agg(pl.col("size").sum(), pl.col("last_modified").max(), pl.col("file_count").sum())
            .with_columns(
                pl.lit(None, kind).alias(name) for name, kind in self.schema.items() if name not in folders.columns
            )
            .select(*self.schema)
        )
        return blobs.filter(~in_folder)

    def _keep_allowed(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Filter, then limit, and count what became of each entry."""
        passing = entries if self._condition is None else entries.filter(self._condition)
        self.counts.filtered_out += entries.height - passing.height
        room = passing.height if self._limit is None else max(self._limit - self.counts.listed, 0)
        allowed = passing.head(room)
        self.counts.beyond_limit += passing.height - allowed.height
        self.counts.listed += allowed.height
        self.counts.unsupported += allowed.height - allowed["problem"].null_count()
        return allowed

    def _frames(self, batches: Iterator[pa.RecordBatch], *, rows: int) -> Iterator[pl.DataFrame]:
        """Join batches to frames of at least ``rows`` rows (the last may be shorter), with the columns of an entry."""
        waiting: list[pa.RecordBatch] = []
        count = 0
        for batch in batches:
            waiting.append(batch)
            count += batch.num_rows
            if count >= rows:
                yield self._frame(waiting)
                waiting, count = [], 0
        if waiting:
            yield self._frame(waiting)

    def _frame(self, batches: list[pa.RecordBatch]) -> pl.DataFrame:
        frame = cast("pl.DataFrame", pl.from_arrow(pa.Table.from_batches(batches)))
        return frame.with_columns(file_count=pl.lit(None, pl.Int64)).select(*self.schema)


def _may_hold_folders(blobs: pl.DataFrame) -> bool:
    half = blobs.height // 2
    # polars works on the expressions of one select in parallel, but on each in one thread
    halves = (pl.col("name").slice(0, half), pl.col("name").slice(half))
    found = blobs.select(part.str.contains(_QUICK_PATTERN).any().alias(str(i)) for i, part in enumerate(halves))
    return any(found.row(0))
