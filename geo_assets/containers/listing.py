"""A container's listing as a table: kinds, datasets, and what changed since the last one.

What belongs here: :func:`write_listing`, :func:`read_listing`.  What does not: which entries there are (``entries``),
and where tables are kept (``listing_store``).

The entries are streamed into buckets by the stem of their names, so that a dataset's files, and an entry and itself
in the last listing, share one.  A bucket at a time is grouped and compared, and its rows go on into ranges of row
numbers, which brings them back into the order of the listing.  Beyond 200,000 rows buckets and ranges are files:
memory depends on the size of a bucket, not of the listing.
"""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.containers.duplicates import Duplicates
from geo_assets.containers.entries import EntryCounts, EntryStream
from geo_assets.containers.kinds import stem, with_datasets, with_kinds
from geo_assets.containers.listing_store import REMOVED_SCHEMA, TABLE_SCHEMA, ListingStore
from geo_assets.containers.summary import Statistics

__all__ = ["Listing", "ListingChanges", "buckets_of", "entry_version", "read_listing", "write_listing"]

_RANGE = 50_000
"""Rows that are brought into order at once."""
_SAMPLE = 20
_IDENTITY = ("name", pl.col("problem").fill_null("").alias("_problem"))


@dataclass(kw_only=True)
class ListingChanges:
    """A listing against the one before; an entry changed if its ETag did, a dataset if size or date did."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    unchanged: int = 0


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A listing that was written."""

    container: str
    key: str
    version: str
    location: str
    """For people: where the table is."""
    rows: int
    counts: EntryCounts
    hit_limit: bool
    changes: ListingChanges | None
    """``None`` where there was no listing before, or none that can be read."""
    removed_sample: list[str]
    """Up to 20 names, in order."""
    incomplete_sample: list[dict[str, str]]
    """Up to 20 datasets without a part that reading them takes: ``name`` and ``missing``."""
    statistics: dict[str, Any]
    """As :meth:`geo_assets.containers.summary.Statistics.to_dict`."""
    datasets: dict[str, int]
    """``total``, ``complete``, ``incomplete`` and ``not_judged``; single files and ``.gdb`` folders included."""
    duplicates: dict[str, Any] | None
    """As :meth:`geo_assets.containers.duplicates.Duplicates.found`."""


def write_listing(stream: EntryStream, listings: ListingStore, container: str, key: str, *, scratch: Path) -> Listing:
    """Write the stream as the listing of this key; it appears whole, or what was there stays.

    What is kept under the key is taken for the last listing of the same job, so with the same filter and limit, and
    compared.

    Args:
        stream: entries of the container, not read yet.
        listings: where to.
        container: its name.
        key: which of its listings; the job id.
        scratch: folder for temporary files.

    Raises:
        GeoAssetsError: as the store's ``list_blobs``, and as ``listings``.
        OSError: there is no room for temporary files, or the listings' folder cannot be written.
    """
    version = uuid.uuid4().hex
    with ExitStack() as stack:
        work = _Work(stream, stack, scratch)
        before = listings.info(container, key)
        if before is not None:
            work.read_last(listings.frames(container, key, columns=list(REMOVED_SCHEMA), version=before.version))
        work.read_stream()
        work.group_and_compare()
        listings.replace(container, key, version=version, frames=work.rows(), removed=work.removed())
        return work.listing(container, key, version, listings.location(container, key))


def read_listing(
    listings: ListingStore, container: str, key: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Read a whole listing into memory; columns of ``TABLE_SCHEMA``, or some of them.

    Raises:
        NotFoundError: it was never written, or has been removed.
    """
    chosen = list(columns or TABLE_SCHEMA)
    frames = list(listings.frames(container, key, columns=chosen))
    return pl.concat([pl.DataFrame(schema={name: TABLE_SCHEMA[name] for name in chosen}), *frames])


@dataclass
class _Work:
    """One listing under way; the steps are taken in the order they stand here."""

    stream: EntryStream
    stack: ExitStack
    scratch: Path
    incomplete: list[dict[str, str]] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.new = self.stack.enter_context(Buckets(self.scratch, stem()))
        self.last: Buckets | None = None
        self.changes: ListingChanges | None = None
        self.removed_rows = self.stack.enter_context(Buckets(self.scratch, stem()))
        self.statistics = Statistics()
        self.duplicates = self.stack.enter_context(Duplicates(self.scratch))
        self.datasets = {"total": 0, "complete": 0, "incomplete": 0, "not_judged": 0}
        self.written = 0

    def read_last(self, frames: Iterator[pl.DataFrame]) -> None:
        self.last = self.stack.enter_context(Buckets(self.scratch, stem()))
        self.changes = ListingChanges()
        for frame in frames:
            self.last.add(frame)

    def read_stream(self) -> None:
        count = 0
        for entries in self.stream:
            numbered = with_kinds(entries).with_columns(
                pl.int_range(count, count + entries.height, dtype=pl.Int64).alias("row_number"),
                *(
                    pl.lit(None, TABLE_SCHEMA[name]).alias(name)
                    for name in ("content_type", "content_md5", "metadata", "tags")
                    if name not in entries.columns
                ),
            )
            self.new.add(numbered)
            count += entries.height
        self.ranges = self.stack.enter_context(
            Buckets(self.scratch, pl.col("row_number") // _RANGE, count=count // _RANGE + 1)
        )

    def group_and_compare(self) -> None:
        for bucket in buckets_of(self.new, self.last):
            entries = self.new.read(bucket)
            last = None if self.last is None else self.last.read(bucket)
            if entries is not None:
                # a blob and a dataset can have one name: the dataset, which comes last, holds what counts. A name with
                # a problem is only how it is shown, and may look like another blob's.
                entries = entries.sort("row_number").unique(("name", "problem"), keep="last", maintain_order=True)
                grouped = self._judged(with_datasets(entries))
                self._note_incomplete(grouped)
                self.ranges.add(self._compared(grouped, last).select(*TABLE_SCHEMA))
            if last is not None:
                self._note_removed(entries, last)

    def _judged(self, entries: pl.DataFrame) -> pl.DataFrame:
        """Take back what cannot be known where the filter or the limit may have left parts out."""
        prefix = self.stream.whole_prefix
        known = pl.lit(False) if prefix is None else stem().str.starts_with(prefix)  # noqa: FBT003
        # a dataset without parts is complete whatever was left out
        known = known | pl.col("complete")
        return entries.with_columns(
            pl.when(known).then("complete").alias("complete"), pl.when(known).then("missing").alias("missing")
        )

    def _note_incomplete(self, entries: pl.DataFrame) -> None:
        found = entries.filter(~pl.col("complete")).select("name", "missing").sort("name").head(_SAMPLE)
        if found.height:
            self.incomplete = sorted([*self.incomplete, *found.to_dicts()], key=lambda row: row["name"])[:_SAMPLE]

    def _compared(self, entries: pl.DataFrame, last: pl.DataFrame | None) -> pl.DataFrame:
        if self.changes is None:
            return entries.with_columns(change=pl.lit(None, pl.String))
        if last is None:
            self.changes.added += entries.height
            return entries.with_columns(change=pl.lit("added"))
        known = last.select(*_IDENTITY, entry_version().alias("_last"))
        compared = (
            entries.with_columns(_IDENTITY[1], entry_version().alias("_new"))
            .join(known, on=("name", "_problem"), how="left", maintain_order="left")
            .with_columns(
                change=pl.when(pl.col("_last").is_null())
                .then(pl.lit("added"))
                .when(pl.col("_last") == pl.col("_new"))
                .then(pl.lit("unchanged"))
                .otherwise(pl.lit("changed"))
            )
        )
        for change, count in compared["change"].value_counts().iter_rows():
            setattr(self.changes, change, getattr(self.changes, change) + count)
        return compared

    def _note_removed(self, entries: pl.DataFrame | None, last: pl.DataFrame) -> None:
        removed = last
        if entries is not None:
            removed = (
                last.with_columns(_IDENTITY[1])
                .join(entries.select(*_IDENTITY), on=("name", "_problem"), how="anti")
                .drop("_problem")
            )
        if removed.height and self.changes is not None:
            self.changes.removed += removed.height
            self.removed_rows.add(removed.select(*REMOVED_SCHEMA))
            self.gone = sorted([*self.gone, *removed["name"].sort().head(_SAMPLE)])[:_SAMPLE]

    def rows(self) -> Iterator[pl.DataFrame]:
        """The listing's rows in order, numbered without gaps; counted on their way."""
        for frame in _each(self.ranges):
            for part in frame.sort("row_number").iter_slices(_RANGE):
                numbers = pl.int_range(self.written, self.written + part.height, dtype=pl.Int64)
                self.written += part.height
                numbered = part.with_columns(numbers.alias("row_number"))
                self.statistics.add(numbered)
                self.duplicates.add(numbered)
                self._count_datasets(numbered)
                yield numbered

    def _count_datasets(self, rows: pl.DataFrame) -> None:
        mains = rows.filter(pl.col("role") == "main")["complete"]
        complete = int(mains.sum() or 0)
        unknown = mains.null_count()
        counted = {"complete": complete, "not_judged": unknown, "incomplete": len(mains) - complete - unknown}
        for name, count in {"total": len(mains), **counted}.items():
            self.datasets[name] += count

    def removed(self) -> Iterator[pl.DataFrame]:
        """What the last listing had and this one has not."""
        yield from _each(self.removed_rows)

    def listing(self, container: str, key: str, version: str, location: str) -> Listing:
        return Listing(
            container=container,
            key=key,
            version=version,
            location=location,
            rows=self.written,
            counts=self.stream.counts,
            hit_limit=self.stream.hit_limit,
            changes=self.changes,
            removed_sample=self.gone,
            incomplete_sample=self.incomplete,
            statistics=self.statistics.to_dict(),
            datasets=self.datasets,
            duplicates=self.duplicates.found(),
        )


def entry_version() -> pl.Expr:
    """What changes with an entry: its ETag, or of a dataset size and date."""
    return pl.coalesce("etag", pl.concat_str("size", pl.col("last_modified").dt.epoch("us"), separator="-"))


def buckets_of(new: Buckets, last: Buckets | None) -> Sequence[int | None]:
    """Numbers of the buckets in which two sets are compared one by one; a single ``None`` while both are in memory."""
    if not (new.spilled or (last is not None and last.spilled)):
        return [None]
    new.spill()
    if last is not None:
        last.spill()
    return range(new.count)


def _each(buckets: Buckets) -> Iterator[pl.DataFrame]:
    for bucket in range(buckets.count) if buckets.spilled else [None]:
        frame = buckets.read(bucket)
        if frame is not None:
            yield frame
