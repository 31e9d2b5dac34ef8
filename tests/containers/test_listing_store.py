"""The contract of listing stores: one suite that Parquet and PostgreSQL both pass.

What belongs here: what :class:`geo_assets.containers.listing_store.ListingStore` promises, and what only one can
suffer.  What does not: how a listing is made (``test_listing``).
"""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import psycopg2
import pytest
from polars.testing import assert_frame_equal
from pydantic import SecretStr
from sqlalchemy.engine import make_url

from geo_assets.containers.listing_store import (
    REMOVED_SCHEMA,
    TABLE_SCHEMA,
    ListingStore,
    ParquetListings,
    PostgresListings,
    open_listing_store,
)
from geo_assets.errors import LedgerUnavailableError, NotFoundError, SchemaVersionError, StoreUnavailableError
from geo_assets.settings import Settings
from tests.services.found import REPOSITORY

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)
ODD = [
    "with space",
    'quo"te',
    "it's, a|b",
    "é",
    "e\u0301",
    "😀",
    r"new\nline",
    r"\.",
    r"\N",
    "NULL",
    "",
    "%s",
    "tab\\t",
]


def rows(count: int, *, first: int = 0, **values: Any) -> pl.DataFrame:
    """Rows of a listing."""
    given = {
        "row_number": list(range(first, first + count)),
        "name": [f"dir/{number}.tif" for number in range(first, first + count)],
        "size": list(range(count)),
        "last_modified": [EPOCH + timedelta(microseconds=number) for number in range(count)],
        "kind": ["raster"] * count,
        **values,
    }
    return pl.DataFrame(
        {name: given.get(name, [None] * count) for name in TABLE_SCHEMA}, schema=pl.Schema(TABLE_SCHEMA)
    )


def put(listings: ListingStore, *frames: pl.DataFrame, version: str = "v1", key: str = "k", **given: Any) -> None:
    removed = given.get("removed", [])
    listings.replace(given.get("container", "c"), key, version=version, frames=frames, removed=removed)


def read(listings: ListingStore, key: str = "k", **given: Any) -> pl.DataFrame:
    frames = list(listings.frames(given.pop("container", "c"), key, **given))
    return pl.concat(frames) if frames else pl.DataFrame(schema=TABLE_SCHEMA)


def test_what_was_written_is_read_back_equal(listings: ListingStore) -> None:
    count = len(ODD)
    texts = [None if number % 3 == 0 else text for number, text in enumerate(ODD)]
    full = rows(
        count,
        name=ODD,
        etag=texts,
        problem=texts,
        file_count=[None, *range(1, count)],
        complete=[None, True, False] * 4 + [None],
        content_type=texts,
        metadata=['{"b": "1", "a":  "é"}', None] * 6 + ["{}"],
        tags=[None, '{"k": "\\"v\\\\n"}'] * 6 + [None],
        size=[2**40] * count,
    )
    put(listings, full)
    assert_frame_equal(read(listings), full)
    info = listings.info("c", "k")
    assert info is not None
    assert (info.container, info.key, info.version, info.rows) == ("c", "k", "v1", count)
    assert abs(datetime.now(UTC) - info.listed_at) < timedelta(minutes=1)


def test_an_empty_listing_is_a_listing(listings: ListingStore) -> None:
    put(listings)
    info = listings.info("c", "k")
    assert info is not None
    assert info.rows == 0
    assert read(listings).height == 0
    assert list(listings.removed("c", "k")) == []


def test_what_was_never_written_is_not_found(listings: ListingStore) -> None:
    assert listings.info("c", "k") is None
    for attempt in (lambda: read(listings), lambda: list(listings.removed("c", "k"))):
        with pytest.raises(NotFoundError, match="container 'c'"):
            attempt()


@pytest.mark.parametrize(
    ("first", "last"), [(0, 5), (9_999, 10_001), (20_000, 25_000), (24_000, 99_000), (25_000, 30_000)]
)
def test_a_slice_is_read_by_row_number(listings: ListingStore, first: int, last: int) -> None:
    put(listings, rows(15_000), rows(10_000, first=15_000))
    found = read(listings, first=first, last=last, columns=["row_number", "name"])
    assert found["row_number"].to_list() == list(range(first, min(last, 25_000)))


def test_a_long_listing_comes_in_frames(listings: ListingStore) -> None:
    put(listings, *(rows(30_000, first=first) for first in range(0, 120_000, 30_000)))
    frames = list(listings.frames("c", "k", columns=["row_number"]))
    assert max(frame.height for frame in frames) <= 50_000
    assert pl.concat(frames)["row_number"].to_list() == list(range(120_000))


def test_listings_are_kept_apart(listings: ListingStore) -> None:
    put(listings, rows(1), key="a")
    put(listings, rows(2), key="b")
    put(listings, rows(3), key="a", container="other [1]*")
    assert [read(listings, "a").height, read(listings, "b").height] == [1, 2]
    assert read(listings, "a", container="other [1]*").height == 3
    put(listings, rows(4), key="a", version="v2")
    assert [read(listings, "a").height, read(listings, "b").height] == [4, 2]


def test_a_listing_that_was_replaced_is_not_read_on(listings: ListingStore) -> None:
    put(listings, rows(3))
    assert read(listings, version="v1").height == 3
    put(listings, rows(2), version="v2")
    with pytest.raises(NotFoundError, match="replaced by a later one"):
        read(listings, version="v1")
    assert read(listings, version="v2").height == 2


def test_who_reads_while_it_is_replaced_reads_one_listing(listings: ListingStore) -> None:
    put(listings, rows(60_000))
    reading = listings.frames("c", "k")
    first = next(reading)
    put(listings, rows(10), version="v2")
    assert first.height + sum(frame.height for frame in reading) == 60_000
    assert read(listings).height == 10


def test_a_listing_that_breaks_leaves_the_last_one(listings: ListingStore) -> None:
    def breaking() -> Iterator[pl.DataFrame]:
        yield rows(10)
        raise StoreUnavailableError("the store went away")

    put(listings, rows(3))
    with pytest.raises(StoreUnavailableError):
        listings.replace("c", "k", version="v2", frames=breaking(), removed=[])
    info = listings.info("c", "k")
    assert info is not None
    assert (info.version, info.rows, read(listings).height) == ("v1", 3, 3)


def test_what_was_removed_is_kept_beside(listings: ListingStore) -> None:
    gone = rows(3).select(*REMOVED_SCHEMA)
    put(listings, rows(1), removed=[gone])
    (found,) = listings.removed("c", "k")
    assert_frame_equal(found.sort("name"), gone)
    put(listings, rows(1), version="v2")
    assert list(listings.removed("c", "k")) == []


def test_writers_at_once_leave_one_whole_listing(listings: ListingStore) -> None:
    failed: list[BaseException] = []

    def write(number: int) -> None:
        try:
            put(listings, rows(100 + number), version=f"v{number}")
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            failed.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    info = listings.info("c", "k")
    assert info is not None
    assert info.rows == 100 + int(info.version[1:]) == read(listings).height


# --- only Parquet


def test_a_damaged_file_is_no_listing(tmp_path: Path) -> None:
    listings = ParquetListings(tmp_path)
    put(listings, rows(1))
    path = Path(listings.location("c", "k"))
    for content in (b"PAR1 nonsense", b""):
        path.write_bytes(content)
        assert listings.info("c", "k") is None
    rows(1).write_parquet(path)  # no version: of somebody else
    assert listings.info("c", "k") is None


def test_nothing_but_the_two_files_is_left(tmp_path: Path) -> None:
    listings = ParquetListings(tmp_path)
    put(listings, rows(1))
    put(listings, rows(1))
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["k.parquet", "k.removed.parquet"]


@pytest.mark.parametrize("container", ["plain", "with space", "[a]*?", "%2F", "é", "$web"])
def test_each_container_has_a_folder_of_its_own(tmp_path: Path, container: str) -> None:
    listings = ParquetListings(tmp_path)
    put(listings, rows(1), container=container)
    assert read(listings, container=container).height == 1
    assert Path(listings.location(container, "k")).parent.parent == tmp_path
    assert len({listings.location(name, "k") for name in ("plain", "%20", " ", "%", "%25")}) == 5


# --- only PostgreSQL


@pytest.mark.services
def test_a_listing_can_be_asked_in_sql(postgres_url: str) -> None:
    put(PostgresListings(postgres_url), rows(4, metadata=['{"tier": "gold"}', None, None, None]))
    with psycopg2.connect(
        make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "select b.metadata ->> 'tier', sum(size) over ()::bigint from geo_assets.listings l"
            " join geo_assets.listing_blobs b using (listing_id) where container = 'c' order by row_number limit 1"
        )
        assert cursor.fetchone() == ("gold", 6)
    connection.close()


def documented(language: str) -> list[str]:
    """The statements of ``docs/listings.md`` in a language."""
    text = (REPOSITORY / "docs" / "listings.md").read_text()
    blocks = [block.partition("```")[0] for block in text.split(f"```{language}\n")[1:]]
    return [statement for block in blocks for statement in block.split(";" if language == "sql" else "\n")]


@pytest.mark.services
def test_the_questions_of_the_docs_work_in_sql(postgres_url: str) -> None:
    put(PostgresListings(postgres_url), rows(4), container="bronze")
    with psycopg2.connect(
        make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        cursor = connection.cursor()
        asked = [statement for statement in documented("sql") if "select" in statement]
        for statement in asked:
            cursor.execute(statement)
            cursor.fetchall()
    connection.close()
    assert len(asked) == 3


def test_the_questions_of_the_docs_work_in_polars(tmp_path: Path) -> None:
    listings = ParquetListings(tmp_path)
    put(listings, rows(4, dataset=["a"] * 4, change=["added"] * 4), container="bronze")
    asked = [line for line in documented("python") if line.startswith("listing.")]
    listing = pl.scan_parquet(listings.location("bronze", "k"), glob=False)
    heights = [eval(line, {"pl": pl, "listing": listing}).height for line in asked]  # noqa: S307 - our own docs
    assert heights == [0, 1, 4, 1]


@pytest.mark.services
def test_tables_of_a_newer_version_are_refused(postgres_url: str) -> None:
    put(PostgresListings(postgres_url), rows(1))
    with psycopg2.connect(
        make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False)
    ) as connection:
        connection.cursor().execute("update geo_assets.listings_version set version = 99")
    connection.close()
    with pytest.raises(SchemaVersionError, match="version 99"):
        PostgresListings(postgres_url).info("c", "k")


def test_a_database_that_is_away_is_a_passing_error_without_its_password() -> None:
    away = PostgresListings("postgresql+psycopg2://me:canary-pw@127.0.0.1:1/nowhere")
    with pytest.raises(LedgerUnavailableError, match="nowhere") as caught:
        away.info("c", "k")
    assert "canary-pw" not in str(caught.value)


def test_the_store_follows_the_ledger(tmp_path: Path) -> None:
    url = SecretStr("postgresql://me@127.0.0.1:1/x")
    assert isinstance(open_listing_store(Settings(home=tmp_path)), ParquetListings)
    assert isinstance(open_listing_store(Settings(home=tmp_path, ledger_url=url)), PostgresListings)
    chosen = Settings(home=tmp_path, ledger_url=url, listing_store="parquet")
    assert isinstance(open_listing_store(chosen), ParquetListings)


def test_a_sweep_leaves_the_latest_and_what_is_needed(listings: ListingStore) -> None:
    for key in ("first", "needed", "last"):
        put(listings, rows(2), key=key, removed=[rows(1).select(*REMOVED_SCHEMA)])
    put(listings, rows(2), container="other", key="first")
    now = datetime.now(UTC)

    def sweep(**given: Any) -> tuple[int, int, bool]:
        chosen: dict[str, Any] = {"before": now + timedelta(hours=1), "keep": {"needed"}, "at_most": 9, **given}
        swept = listings.sweep(**chosen)
        return swept.listings, swept.rows, swept.more

    assert sweep(before=now - timedelta(hours=1)) == (0, 0, False)
    assert sweep(keep=(), at_most=1, dry_run=True) == (1, 2, True)
    assert sweep(dry_run=True) == (1, 2, False)
    assert read(listings, "first").height == 2
    assert sweep() == (1, 2, False)
    assert sweep() == (0, 0, False)
    for call in (lambda: read(listings, "first"), lambda: list(listings.removed("c", "first"))):
        with pytest.raises(NotFoundError):
            call()
    assert [read(listings, key).height for key in ("needed", "last")] == [2, 2]
    assert read(listings, "first", container="other").height == 2


def test_a_sweep_of_a_store_that_was_never_used_finds_nothing(listings: ListingStore) -> None:
    assert listings.sweep(before=datetime.now(UTC), keep=(), at_most=9).listings == 0


def test_a_sweep_removes_what_killed_writers_left_and_listings_nobody_can_read(tmp_path: Path) -> None:
    listings = ParquetListings(tmp_path)
    put(listings, rows(2), key="good")
    (tmp_path / "c" / "bad.parquet").write_bytes(b"PAR1")
    (tmp_path / "c" / ".k-left.parquet").touch()
    (tmp_path / "c" / "gone.removed.parquet").touch()
    young = listings.sweep(before=datetime.now(UTC) - timedelta(hours=1), keep=(), at_most=9, dry_run=True)
    assert young.listings == 1
    swept = listings.sweep(before=datetime.now(UTC) + timedelta(hours=1), keep=(), at_most=9)
    assert (swept.listings, swept.rows, swept.bytes) == (1, 0, 4)
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"good.parquet", "good.removed.parquet"}
