"""A container's listing as a Parquet file, and what changed since the last one.

What belongs here: :func:`write_listing`, :func:`read_listing`.  What does not: which entries there are (``entries``).
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import polars as pl
import pyarrow.parquet as pq

from geo_assets.containers.entries import ENTRY_SCHEMA, EntryCounts, EntryStream

__all__ = ["Listing", "ListingChanges", "listing_path", "read_listing", "write_listing"]


@dataclass(frozen=True, kw_only=True)
class ListingChanges:
    """A listing against the one before; an entry changed if its ETag did, a dataset if size or date did."""

    added: int
    changed: int
    removed: int
    unchanged: int


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A listing that was written."""

    path: Path
    counts: EntryCounts
    hit_limit: bool
    changes: ListingChanges | None
    """``None`` where there was no listing before, or none that can be read."""


def listing_path(listings: Path, container: str, job_id: str) -> Path:
    """Where the listing of a job is kept: a folder a container, a file a job."""
    return listings / quote(container, safe=" ") / f"{job_id}.parquet"


def write_listing(stream: EntryStream, path: Path) -> Listing:
    """Write the stream to ``path``; the file appears whole, or what was there stays.

    A file that was there is taken for the last listing of the same job, so with the same filter and limit, and
    compared.

    Raises:
        GeoAssetsError: as the store's ``list_blobs``.
        OSError: the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _staged(path) as staged:
        _write(stream, staged)
        changes = _changes(path, staged) if path.exists() else None
    return Listing(path=path, counts=stream.counts, hit_limit=stream.hit_limit, changes=changes)


def read_listing(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a listing; columns of :data:`~geo_assets.containers.entries.ENTRY_SCHEMA`, or some of them.

    Raises:
        FileNotFoundError: it was never written, or has been removed.
    """
    return pl.read_parquet(path, columns=list(columns or ENTRY_SCHEMA), glob=False)


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:16]}-", suffix=".parquet")
    os.close(handle)
    staged = Path(name)
    try:
        yield staged
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def _write(stream: EntryStream, path: Path) -> None:
    schema = pl.DataFrame(schema=ENTRY_SCHEMA).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for entries in stream:
            writer.write_table(entries.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))


def _changes(before: Path, after: Path) -> ListingChanges | None:
    version = pl.coalesce("etag", pl.concat_str("size", pl.col("last_modified").dt.epoch("us"), separator="-"))
    try:
        old, new = (
            pl.scan_parquet(path, glob=False).select("name", version.alias("version")) for path in (before, after)
        )
        both = old.join(new, on="name", how="full", suffix="_new", coalesce=False)
        found = both.select(
            added=pl.col("name").is_null().sum(),
            removed=pl.col("name_new").is_null().sum(),
            unchanged=(pl.col("version") == pl.col("version_new")).sum(),
            changed=(pl.col("version") != pl.col("version_new")).sum(),
        ).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError):
        # the last listing was damaged or is of another version: nothing to compare with
        return None
    return ListingChanges(**found.row(0, named=True))
