"""Listings as Parquet: whole or not at all, and what changed since the last.

What belongs here: :mod:`geo_assets.containers.listing`.  What does not: which entries there are.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_assets.containers.entries import ENTRY_SCHEMA, EntryStream
from geo_assets.containers.listing import ListingChanges, listing_path, read_listing, write_listing
from geo_assets.errors import StoreUnavailableError
from tests.containers.generated import Blob, GeneratedStore


def write(path: Path, *blobs: Blob) -> ListingChanges | None:
    return write_listing(EntryStream(GeneratedStore([blobs]), "c"), path).changes


def test_a_listing_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "job.parquet"
    stream = EntryStream(
        GeneratedStore([[Blob("a", 3, days=0.5), Blob("d.gdb/1", 2)], [Blob("bad", problem="unsupported name: …")]]),
        "c",
    )
    listing = write_listing(stream, path)
    found = read_listing(listing.path)
    assert found.columns == list(ENTRY_SCHEMA)
    assert dict(found.schema) == ENTRY_SCHEMA
    assert found["name"].to_list() == ["a", "bad", "d.gdb"]
    assert found["file_count"].to_list() == [None, None, 1]
    assert (listing.counts.listed, listing.counts.unsupported, listing.changes) == (3, 1, None)
    assert read_listing(path, ("name", "etag")).columns == ["name", "etag"]


def test_an_empty_listing_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "job.parquet"
    write(path)
    assert read_listing(path).height == 0


def test_changes_are_counted_against_the_last_listing(tmp_path: Path) -> None:
    path = tmp_path / "job.parquet"
    assert write(path, Blob("same"), Blob("grown"), Blob("gone"), Blob("d.gdb/1"), Blob("e.gdb/1")) is None
    changes = write(path, Blob("same"), Blob("grown", 2), Blob("new"), Blob("d.gdb/1"), Blob("e.gdb/1", days=1))
    assert changes == ListingChanges(added=1, changed=2, removed=1, unchanged=2)
    assert read_listing(path).height == 5


def test_a_damaged_last_listing_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "job.parquet"
    path.write_bytes(b"PAR1 nonsense")
    assert write(path, Blob("a")) is None
    assert read_listing(path).height == 1


def test_a_listing_that_breaks_leaves_the_last_one(tmp_path: Path) -> None:
    def breaking() -> Iterator[list[Blob]]:
        yield [Blob("b")]
        raise StoreUnavailableError("the store went away")

    path = tmp_path / "c" / "job.parquet"
    write(path, Blob("a"))
    with pytest.raises(StoreUnavailableError):
        write_listing(EntryStream(GeneratedStore(breaking()), "c"), path)
    assert read_listing(path)["name"].to_list() == ["a"]
    assert [found.name for found in path.parent.iterdir()] == ["job.parquet"]


@pytest.mark.parametrize("container", ["plain", "with space", "[a]*?", "%2F", "é", "$web"])
def test_each_container_has_a_folder_of_its_own(tmp_path: Path, container: str) -> None:
    path = listing_path(tmp_path, container, "0" * 64)
    assert path.parent.parent == tmp_path
    write(path, Blob("a"))
    write(path, Blob("a"))
    assert read_listing(path)["name"].to_list() == ["a"]
    others = {listing_path(tmp_path, name, "0" * 64) for name in ("plain", "%20", " ", "%", "%25")}
    assert len(others) == 5
