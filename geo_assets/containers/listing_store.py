"""Where listings are kept as tables: Parquet files, or PostgreSQL.

What belongs here: the columns of a listing, :class:`ListingStore`, its two implementations and
:func:`open_listing_store`.  What does not: making a listing (``listing``).

A listing belongs to a container and a key (the id of the job that lists) and is replaced whole: readers see the last
one or the new one.  It has a version, so that who read its first half from one listing does not take the second half
from another.
"""

import io
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Protocol, cast
from urllib.parse import quote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from geo_assets.containers.entries import DETAIL_SCHEMA, ENTRY_SCHEMA
from geo_assets.errors import LedgerUnavailableError, NotFoundError, SchemaVersionError
from geo_assets.redaction import redact
from geo_assets.settings import Settings

__all__ = [
    "REMOVED_SCHEMA",
    "TABLE_SCHEMA",
    "ListingInfo",
    "ListingStore",
    "ParquetListings",
    "PostgresListings",
    "SweptListings",
    "open_listing_store",
]

TABLE_SCHEMA: dict[str, pl.DataType] = {
    "row_number": pl.Int64(),
    **ENTRY_SCHEMA,
    "kind": pl.String(),
    "dataset": pl.String(),
    "role": pl.String(),
    "complete": pl.Boolean(),
    "missing": pl.String(),
    "change": pl.String(),
    **DETAIL_SCHEMA,
}
"""Columns of a listing. ``docs/listings.md`` describes them."""

REMOVED_SCHEMA: dict[str, pl.DataType] = {
    name: TABLE_SCHEMA[name] for name in ("name", "size", "last_modified", "etag", "file_count", "problem", "kind")
}
"""Columns of what was in the last listing and is no more."""

_ROW_GROUP = 10_000
"""Slices of a listing are read by row group; small ones cost little more space."""
_READ = 50_000
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ListingInfo:
    """A listing that is kept."""

    container: str
    key: str
    version: str
    """Another one with each listing."""
    rows: int
    listed_at: datetime
    """Aware, UTC."""


@dataclass(frozen=True, kw_only=True)
class SweptListings:
    """What a sweep removed, or would remove."""

    listings: int = 0
    rows: int = 0
    bytes: int = 0
    """Of files; what a database frees, it keeps."""
    more: bool = False
    """Whether there are more than the sweep was to remove."""


class ListingStore(Protocol):
    """Listings by container and key. Thread-safe.

    Raises:
        LedgerUnavailableError: the database cannot be reached.
        SchemaVersionError: the tables are of a newer version.
    """

    @property
    def description(self) -> str:
        """What store this is, for messages; never a secret."""
        ...

    def location(self, container: str, key: str) -> str:
        """Where the listing is found: a path, or schema and table."""
        ...

    def info(self, container: str, key: str) -> ListingInfo | None:
        """What is kept, or ``None`` where nothing is, or nothing that can be read."""
        ...

    def frames(
        self,
        container: str,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        first: int = 0,
        last: int | None = None,
        version: str | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Read the rows from ``first`` up to, but without, ``last``, by row number, in frames of up to 50,000.

        Raises:
            NotFoundError: no such listing, or no longer of that version.
        """
        ...

    def removed(self, container: str, key: str) -> Iterator[pl.DataFrame]:
        """What was in the listing before and is no more, as frames of :data:`REMOVED_SCHEMA`, in no order.

        Raises:
            NotFoundError: no such listing.
        """
        ...

    def replace(
        self,
        container: str,
        key: str,
        *,
        version: str,
        frames: Iterable[pl.DataFrame],
        removed: Iterable[pl.DataFrame],
    ) -> None:
        """Keep these rows instead of what was there, all or nothing.

        Args:
            container: which container was listed.
            key: which of its listings.
            version: of the new listing.
            frames: of :data:`TABLE_SCHEMA`, in the order of row numbers.
            removed: of :data:`REMOVED_SCHEMA`; read after all ``frames``.
        """
        ...

    def sweep(self, *, before: datetime, keep: Collection[str], at_most: int, dry_run: bool = False) -> SweptListings:
        """Remove listings that are not the latest of their container.

        Args:
            before: when they were made; aware.
            keep: keys of listings that stay.
            at_most: how many.
            dry_run: only count them.
        """
        ...


def open_listing_store(settings: Settings) -> ListingStore:
    """Open the store the settings name; nothing is connected to yet."""
    url = settings.ledger_sqlalchemy_url
    kind = settings.listing_store
    if kind == "postgres" or (kind == "auto" and url.startswith("postgresql")):
        return PostgresListings(url)
    return ParquetListings(settings.listings_path)


def _gone(container: str, key: str, where: str, *, replaced: bool = False) -> NotFoundError:
    what = f"the listing {key[:16]}… of container '{container}' in {where}"
    if replaced:
        return NotFoundError(f"{what} was replaced by a later one; list the container again")
    return NotFoundError(f"{what} does not exist; list the container again")


# --- Parquet -----------------------------------------------------------------------------------------------------


class ParquetListings:
    """A folder a container, in it a file a listing and one of what was removed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"the listings folder {self.folder}"

    def location(self, container: str, key: str) -> str:
        """The path of the Parquet file."""
        return str(self._path(container, key))

    def _path(self, container: str, key: str, *, removed: bool = False) -> Path:
        return self.folder / quote(container, safe=" ") / f"{key}{'.removed' if removed else ''}.parquet"

    def info(self, container: str, key: str) -> ListingInfo | None:
        """What is kept; ``None`` for damaged files, too."""
        try:
            with pq.ParquetFile(self._path(container, key)) as file:
                return _info_of(file, container, key)
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            return None

    def frames(
        self,
        container: str,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        first: int = 0,
        last: int | None = None,
        version: str | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Read rows; the file is opened once, so all are of one listing."""
        with self._opened(self._path(container, key), container, key) as file:
            if version is not None and _info_of(file, container, key).version != version:
                raise _gone(container, key, self.description, replaced=True)
            yield from _row_groups(file, list(columns or TABLE_SCHEMA), first, last)

    def removed(self, container: str, key: str) -> Iterator[pl.DataFrame]:
        """Read what was removed."""
        with self._opened(self._path(container, key, removed=True), container, key) as file:
            yield from _row_groups(file, list(REMOVED_SCHEMA), 0, None)

    @contextmanager
    def _opened(self, path: Path, container: str, key: str) -> Iterator[pq.ParquetFile]:
        try:
            file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise _gone(container, key, self.description) from None
        with file:
            yield file

    def replace(
        self,
        container: str,
        key: str,
        *,
        version: str,
        frames: Iterable[pl.DataFrame],
        removed: Iterable[pl.DataFrame],
    ) -> None:
        """Write both files beside the old ones, then rename them; the listing itself last.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._path(container, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        listed_at = datetime.now(UTC).isoformat()
        with _staged(path) as staged, _staged(path) as staged_removed:
            _write(staged, TABLE_SCHEMA, frames, version, listed_at)
            _write(staged_removed, REMOVED_SCHEMA, removed, version, listed_at)
            staged_removed.replace(self._path(container, key, removed=True))
            staged.replace(path)

    def sweep(self, *, before: datetime, keep: Collection[str], at_most: int, dry_run: bool = False) -> SweptListings:
        """Remove old listings, and what killed writers left."""
        old: list[tuple[Path, int]] = []
        for folder in sorted(self.folder.glob("*/")):
            old += _old_listings(folder, before, keep)
            if not dry_run:
                _remove_leftovers(folder, before)
        paths = [path for path, _ in old[:at_most]]
        size = sum(_size(name) for path in paths for name in (path, _removed_beside(path)))
        for path in () if dry_run else paths:
            # a reader finds the listing first
            path.unlink(missing_ok=True)
            _removed_beside(path).unlink(missing_ok=True)
        rows = sum(rows for _, rows in old[:at_most])
        return SweptListings(listings=len(paths), rows=rows, bytes=size, more=len(old) > at_most)


_REMOVED = ".removed.parquet"


def _removed_beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}{_REMOVED}")


def _old_listings(folder: Path, before: datetime, keep: Collection[str]) -> list[tuple[Path, int]]:
    """Listings of a container that may go, with their rows, oldest first."""
    found: list[tuple[datetime, Path, int]] = []
    for path in folder.glob("[!.]*.parquet"):
        if path.name.endswith(_REMOVED):
            continue
        try:
            with pq.ParquetFile(path) as file:
                info = _info_of(file, folder.name, path.stem)
            found.append((info.listed_at, path, info.rows))
        except FileNotFoundError:
            continue
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):
            # nobody can read it, so it is nobody's latest
            found.append((datetime.fromtimestamp(0, UTC), path, 0))
    found.sort()
    return [(path, rows) for at, path, rows in found[:-1] if at < before and path.stem not in keep]


def _remove_leftovers(folder: Path, before: datetime) -> None:
    for path in (*folder.glob(".*.parquet"), *folder.glob(f"*{_REMOVED}")):
        alone = path.name.startswith(".") or not path.with_name(path.name.replace(_REMOVED, ".parquet")).exists()
        with suppress(OSError):
            if alone and path.stat().st_mtime < before.timestamp():
                path.unlink()


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


@contextmanager
def _staged(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:16]}-", suffix=".parquet")
    os.close(handle)
    staged = Path(name)
    try:
        yield staged
    finally:
        staged.unlink(missing_ok=True)


def _write(
    path: Path, columns: dict[str, pl.DataType], frames: Iterable[pl.DataFrame], version: str, listed_at: str
) -> None:
    schema = pl.DataFrame(schema=columns).to_arrow(compat_level=pl.CompatLevel.oldest()).schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in frames:
            table = frame.select(*columns).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)
            writer.write_table(table, row_group_size=_ROW_GROUP)
        described = {"version": version, "listed_at": listed_at, "format": _VERSION}
        writer.add_key_value_metadata({"geo_assets": json.dumps(described)})


def _info_of(file: pq.ParquetFile, container: str, key: str) -> ListingInfo:
    described = json.loads((file.metadata.metadata or {})[b"geo_assets"])
    return ListingInfo(
        container=container,
        key=key,
        version=described["version"],
        rows=file.metadata.num_rows,
        listed_at=datetime.fromisoformat(described["listed_at"]),
    )


def _row_groups(file: pq.ParquetFile, columns: list[str], first: int, last: int | None) -> Iterator[pl.DataFrame]:
    end = file.metadata.num_rows if last is None else min(last, file.metadata.num_rows)
    start = 0
    groups: list[int] = []
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if start < end and start + rows > first:
            groups.append(group)
        start += rows
    step = _READ // _ROW_GROUP
    skipped = sum(file.metadata.row_group(group).num_rows for group in range(groups[0])) if groups else 0
    for begin in range(0, len(groups), step):
        table = file.read_row_groups(groups[begin : begin + step], columns=columns, use_threads=False)
        frame = cast("pl.DataFrame", pl.from_arrow(table)).select(*columns)
        low, high = max(first - skipped, 0), min(end - skipped, frame.height)
        skipped += frame.height
        if high > low:
            yield frame.slice(low, high - low)


# --- PostgreSQL --------------------------------------------------------------------------------------------------

_TYPES = {
    "row_number": "bigint not null",
    "name": "text not null",
    "size": "bigint not null",
    "last_modified": "timestamptz not null",
    "file_count": "bigint",
    "complete": "boolean",
    # json, not jsonb: what was read is what was written
    "metadata": "json",
    "tags": "json",
}
_TABLES = f"""
create schema if not exists geo_assets;
create table if not exists geo_assets.listings_version (version integer not null);
create table if not exists geo_assets.listings (
    listing_id bigint generated always as identity primary key,
    container text not null,
    listing_key text not null,
    version text not null,
    row_count bigint not null,
    listed_at timestamptz not null default now(),
    unique (container, listing_key)
);
create table if not exists geo_assets.listing_blobs (
    listing_id bigint not null references geo_assets.listings on delete cascade,
    {", ".join(f'"{name}" {_TYPES.get(name, "text")}' for name in TABLE_SCHEMA)},
    primary key (listing_id, row_number)
);
create table if not exists geo_assets.listing_removed (
    listing_id bigint not null references geo_assets.listings on delete cascade,
    {", ".join(f'"{name}" {_TYPES.get(name, "text")}' for name in REMOVED_SCHEMA)}
);
create index if not exists listing_removed_listing on geo_assets.listing_removed (listing_id);
insert into geo_assets.listings_version select {_VERSION} where not exists (select from geo_assets.listings_version);
"""  # noqa: S608 - names and types of this module
_LOCK = 0x67656F6C  # "geol", for the tables' creation


class PostgresListings:
    """Tables of the schema ``geo_assets``, made at first use: ``listings``, ``listing_blobs``, ``listing_removed``."""

    def __init__(self, url: str) -> None:
        """Make the store; nothing is connected to yet.

        Args:
            url: SQLAlchemy URL with the psycopg2 driver. Never shown.
        """
        import sqlalchemy as sa  # noqa: PLC0415 - only where listings lie in PostgreSQL

        self._engine = sa.create_engine(url, pool_pre_ping=True, pool_size=4, max_overflow=16)
        self._label = f"database '{self._engine.url.database}' on {self._engine.url.host or 'this machine'}"
        self._ready = False
        self._lock = Lock()

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return self._label

    def location(self, container: str, key: str) -> str:
        """The table, and how to find the listing in it."""
        return f"geo_assets.listing_blobs (listings.container = '{container}', listing_key = '{key}')"

    def dispose(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def info(self, container: str, key: str) -> ListingInfo | None:
        """What is kept."""
        with self._cursor() as cursor:
            found = _find(cursor, container, key)
            return None if found is None else found[1]

    def frames(
        self,
        container: str,
        key: str,
        *,
        columns: Sequence[str] | None = None,
        first: int = 0,
        last: int | None = None,
        version: str | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Read rows in one transaction."""
        with self._cursor() as cursor:
            found = _find(cursor, container, key)
            if found is None or (version is not None and found[1].version != version):
                raise _gone(container, key, self.description, replaced=found is not None)
            end = found[1].rows if last is None else last
            yield from self._read(
                cursor,
                list(columns or TABLE_SCHEMA),
                "listing_blobs",
                "listing_id = %s and row_number >= %s and row_number < %s order by row_number",
                (found[0], first, end),
            )

    def removed(self, container: str, key: str) -> Iterator[pl.DataFrame]:
        """Read what was removed."""
        with self._cursor() as cursor:
            found = _find(cursor, container, key)
            if found is None:
                raise _gone(container, key, self.description)
            yield from self._read(cursor, list(REMOVED_SCHEMA), "listing_removed", "listing_id = %s", (found[0],))

    @staticmethod
    def _read(
        cursor: Any, columns: list[str], table: str, where: str, values: tuple[Any, ...]
    ) -> Iterator[pl.DataFrame]:
        from psycopg2 import sql  # noqa: PLC0415

        chosen = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(name)) if _TYPES.get(name) == "json" else sql.Identifier(name)
            for name in columns
        )
        query = sql.SQL("select {} from {} where ").format(chosen, sql.Identifier("geo_assets", table))
        schema = {name: TABLE_SCHEMA[name] for name in columns}
        with closing(cursor.connection.cursor("listing")) as named:
            named.itersize = _READ
            named.execute(query + sql.SQL(where), values)
            while rows := named.fetchmany(_READ):
                yield pl.DataFrame(rows, schema=schema, orient="row")

    def replace(
        self,
        container: str,
        key: str,
        *,
        version: str,
        frames: Iterable[pl.DataFrame],
        removed: Iterable[pl.DataFrame],
    ) -> None:
        """Load both tables by COPY and swap, in one transaction."""
        with self._cursor() as cursor:
            # a key of its own until the swap
            cursor.execute(
                "insert into geo_assets.listings (container, listing_key, version, row_count)"
                " values (%s, %s, %s, 0) returning listing_id",
                (container, f"{key} {version}", version),
            )
            (listing_id,) = cursor.fetchone()
            rows = sum(_copy(cursor, "listing_blobs", listing_id, frame.select(*TABLE_SCHEMA)) for frame in frames)
            for frame in removed:
                _copy(cursor, "listing_removed", listing_id, frame.select(*REMOVED_SCHEMA))
            cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{container}\n{key}",))
            cursor.execute(
                "delete from geo_assets.listings where container = %s and listing_key = %s", (container, key)
            )
            cursor.execute(
                "update geo_assets.listings set listing_key = %s, row_count = %s where listing_id = %s",
                (key, rows, listing_id),
            )

    def sweep(self, *, before: datetime, keep: Collection[str], at_most: int, dry_run: bool = False) -> SweptListings:
        """Remove old listings, each in a transaction of its own."""
        with self._cursor(prepare=False) as cursor:
            cursor.execute("select to_regclass('geo_assets.listings') is not null")
            if not cursor.fetchone()[0]:
                return SweptListings()
            cursor.execute(
                "select listing_id, row_count from geo_assets.listings listed where listed_at < %s"
                " and listing_key <> all(%s) and exists (select from geo_assets.listings later"
                " where later.container = listed.container"
                " and (later.listed_at, later.listing_id) > (listed.listed_at, listed.listing_id))"
                " order by listed_at, listing_id limit %s",
                (before, list(keep), at_most + 1),
            )
            old = cursor.fetchall()
        for listing_id, _ in () if dry_run else old[:at_most]:
            with self._cursor() as cursor:
                cursor.execute("delete from geo_assets.listings where listing_id = %s", (listing_id,))
        rows = sum(rows for _, rows in old[:at_most])
        return SweptListings(listings=len(old[:at_most]), rows=rows, more=len(old) > at_most)

    @contextmanager
    def _cursor(self, *, prepare: bool = True) -> Iterator[Any]:
        """A cursor in a transaction of its own, committed at the end."""
        import psycopg2  # noqa: PLC0415
        import sqlalchemy as sa  # noqa: PLC0415

        try:
            connection = self._engine.raw_connection()
            try:
                with closing(connection.cursor()) as cursor:
                    if prepare:
                        self._prepare(cursor)
                    yield cursor
                connection.commit()
            finally:
                with suppress(psycopg2.Error):
                    connection.close()  # back to the pool, which rolls back what was not committed
        except (sa.exc.OperationalError, psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            text = redact(str(error).partition("\n")[0])
            raise LedgerUnavailableError(f"the listings in {self._label} cannot be reached: {text}") from None

    def _prepare(self, cursor: Any) -> None:
        with self._lock:
            if self._ready:
                return
            cursor.execute("select to_regclass('geo_assets.listings_version') is not null")
            if not cursor.fetchone()[0]:
                cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
                cursor.execute(_TABLES)
            cursor.execute("select version from geo_assets.listings_version")
            (found,) = cursor.fetchone()
            if found > _VERSION:
                raise SchemaVersionError(
                    f"the listings in {self._label} have version {found}, this code knows up to {_VERSION}:"
                    " run the newer geo_assets"
                )
            cursor.connection.commit()
            self._ready = True


def _find(cursor: Any, container: str, key: str) -> tuple[int, ListingInfo] | None:
    cursor.execute(
        "select listing_id, version, row_count, listed_at from geo_assets.listings"
        " where container = %s and listing_key = %s",
        (container, key),
    )
    found = cursor.fetchone()
    if found is None:
        return None
    listing_id, version, rows, listed_at = found
    return listing_id, ListingInfo(
        container=container, key=key, version=version, rows=rows, listed_at=listed_at.astimezone(UTC)
    )


def _copy(cursor: Any, table: str, listing_id: int, frame: pl.DataFrame) -> int:
    from psycopg2 import sql  # noqa: PLC0415

    statement = sql.SQL("copy {} (listing_id, {}) from stdin (format csv)").format(
        sql.Identifier("geo_assets", table), sql.SQL(", ").join(map(sql.Identifier, frame.columns))
    )
    for part in frame.iter_slices(_READ):
        text = io.BytesIO()
        # nulls are empty, empty texts are quoted
        part.insert_column(0, pl.lit(listing_id).alias("listing_id")).write_csv(
            text, include_header=False, quote_style="non_numeric", datetime_format="%Y-%m-%dT%H:%M:%S%.6f%:z"
        )
        text.seek(0)
        cursor.copy_expert(statement, text)
    return frame.height
