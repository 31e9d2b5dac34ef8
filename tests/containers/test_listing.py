"""Making a listing: order, datasets, what changed, in memory and through temporary files.

What belongs here: :mod:`geo_assets.containers.listing`, over both stores.  What does not: the stores themselves
(``test_listing_store``), and which entries there are (``test_entries``).
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geo_assets.containers import buckets, listing
from geo_assets.containers.entries import EntryStream
from geo_assets.containers.filter import BlobFilter
from geo_assets.containers.listing import Listing, ListingChanges, read_listing, write_listing
from geo_assets.containers.listing_store import TABLE_SCHEMA, ListingStore, ParquetListings
from geo_assets.errors import StoreUnavailableError
from geo_assets.stores.memory import MemoryBlobStore
from tests.containers.generated import Blob, GeneratedStore


@pytest.fixture(params=["in memory", "in files"])
def listings(request: pytest.FixtureRequest, listings: ListingStore, monkeypatch: pytest.MonkeyPatch) -> ListingStore:
    """Each store, with few rows in memory and with temporary files from the third row on."""
    if request.param == "in files":
        monkeypatch.setattr(buckets, "_IN_MEMORY", 2)
        monkeypatch.setattr(listing, "_RANGE", 3)
    return listings


def write(
    listings: ListingStore,
    scratch: Path,
    *blobs: Blob,
    key: str = "k",
    blob_filter: BlobFilter | None = None,
    limit: int | None = None,
) -> Listing:
    batches = [blobs[start : start + 3] for start in range(0, len(blobs), 3)]
    stream = EntryStream(GeneratedStore(batches), "c", blob_filter=blob_filter, limit=limit, rows=3)
    found = write_listing(stream, listings, "c", key, scratch=scratch)
    assert not scratch.exists() or list(scratch.iterdir()) == []
    return found


def test_a_listing_is_read_back_in_its_order(listings: ListingStore, tmp_path: Path) -> None:
    names = [f"{number % 3}/{number:03d}.tif" for number in range(40)]
    found = write(
        listings, tmp_path / "s", *map(Blob, names), Blob("d.gdb/1", 2), Blob("bad", problem="unsupported name: …")
    )
    table = read_listing(listings, "c", "k")
    assert dict(table.schema) == TABLE_SCHEMA
    assert table["name"].to_list() == [*names, "bad", "d.gdb"]
    assert table["row_number"].to_list() == list(range(42))
    assert table["file_count"].to_list() == [None] * 41 + [1]
    assert table["change"].null_count() == 42
    assert (found.rows, found.counts.listed, found.counts.unsupported, found.changes) == (42, 42, 1, None)
    assert found.statistics["kinds"]["raster"]["count"] == 40
    assert found.datasets == {"total": 41, "complete": 41, "incomplete": 0, "not_judged": 0}


def test_changes_are_told_row_by_row_and_counted(listings: ListingStore, tmp_path: Path) -> None:
    scratch = tmp_path / "s"
    first = write(
        listings, scratch, Blob("same"), Blob("grown"), Blob("gone"), Blob("x/gone 2"), Blob("d.gdb/1"), Blob("e.gdb/1")
    )
    assert first.changes is None
    second = write(
        listings, scratch, Blob("same"), Blob("grown", 2), Blob("new"), Blob("d.gdb/1"), Blob("e.gdb/1", days=1)
    )
    assert second.changes == ListingChanges(added=1, changed=2, removed=2, unchanged=2)
    assert second.removed_sample == ["gone", "x/gone 2"]
    assert second.version != first.version
    table = read_listing(listings, "c", "k", ["name", "change"])
    assert dict(table.rows()) == {
        "same": "unchanged", "grown": "changed", "new": "added", "d.gdb": "unchanged", "e.gdb": "changed",
    }  # fmt: skip
    assert sorted(pl.concat(listings.removed("c", "k"))["name"]) == ["gone", "x/gone 2"]
    third = write(listings, scratch)
    assert third.changes == ListingChanges(removed=5)
    assert write(listings, scratch, Blob("a"), key="other").changes is None


def test_a_blob_and_a_dataset_of_one_name_are_one_entry(listings: ListingStore, tmp_path: Path) -> None:
    blobs = [Blob("x.gdb", 9), Blob("a"), Blob("b"), Blob("x.gdb/1", 5), Blob(r"n\n", problem="bad"), Blob(r"n\n")]
    for changes in (None, ListingChanges(unchanged=5)):
        found = write(listings, tmp_path / "s", *blobs)
        assert (found.rows, found.changes) == (5, changes)
        table = read_listing(listings, "c", "k", ["row_number", "name", "size"])
        assert table.rows() == [(0, "a", 1), (1, "b", 1), (2, r"n\n", 1), (3, r"n\n", 1), (4, "x.gdb", 5)]


def test_a_shapefile_is_one_dataset_and_its_gaps_are_named(listings: ListingStore, tmp_path: Path) -> None:
    names = [*(f"a/roads{end}" for end in (".shp", ".SHX", ".dbf", ".prj", ".shp.xml")), "a/rivers.shp", "alone.dbf"]
    found = write(listings, tmp_path / "s", *map(Blob, names))
    table = read_listing(listings, "c", "k", ["name", "kind", "dataset", "role", "complete", "missing"])
    assert table.rows() == [
        ("a/roads.shp", "vector", "a/roads.shp", "main", True, None),
        ("a/roads.SHX", "sidecar", "a/roads.shp", "part", None, None),
        ("a/roads.dbf", "sidecar", "a/roads.shp", "part", None, None),
        ("a/roads.prj", "sidecar", "a/roads.shp", "part", None, None),
        ("a/roads.shp.xml", "sidecar", "a/roads.shp", "sidecar", None, None),
        ("a/rivers.shp", "vector", "a/rivers.shp", "main", False, ".shx .dbf"),
        ("alone.dbf", "other", None, None, None, None),
    ]
    assert found.incomplete_sample == [{"name": "a/rivers.shp", "missing": ".shx .dbf"}]
    assert found.datasets == {"total": 2, "complete": 1, "incomplete": 1, "not_judged": 0}


@pytest.mark.parametrize(
    ("conditions", "limit", "judged"),
    [({"extensions": [".shp"]}, None, False), ({}, 1, False), ({"prefix": "a/ri"}, None, True),
     ({"prefix": "a/rivers.shp"}, None, False), ({"prefix": "a/rivers"}, None, True)],
)  # fmt: skip
def test_a_dataset_is_not_called_incomplete_for_what_was_left_out(
    listings: ListingStore, tmp_path: Path, conditions: dict[str, object], limit: int | None, *, judged: bool
) -> None:
    blob_filter = BlobFilter.from_parameter(conditions)
    found = write(listings, tmp_path / "s", Blob("a/rivers.shp"), blob_filter=blob_filter, limit=limit)
    assert found.datasets["incomplete" if judged else "not_judged"] == 1
    assert len(found.incomplete_sample) == judged


def test_a_listing_that_breaks_leaves_the_last_one(listings: ListingStore, tmp_path: Path) -> None:
    def breaking() -> Iterator[list[Blob]]:
        yield [Blob("b"), Blob("c"), Blob("d"), Blob("e")]
        raise StoreUnavailableError("the store went away")

    write(listings, tmp_path / "s", Blob("a"))
    with pytest.raises(StoreUnavailableError):
        write_listing(EntryStream(GeneratedStore(breaking()), "c"), listings, "c", "k", scratch=tmp_path / "s")
    assert read_listing(listings, "c", "k")["name"].to_list() == ["a"]
    assert not (tmp_path / "s").exists() or list((tmp_path / "s").iterdir()) == []


def test_a_damaged_last_listing_is_replaced(tmp_path: Path) -> None:
    listings = ParquetListings(tmp_path / "l")
    write(listings, tmp_path / "s", Blob("a"))
    Path(listings.location("c", "k")).write_bytes(b"PAR1 nonsense")
    assert write(listings, tmp_path / "s", Blob("a")).changes is None
    assert read_listing(listings, "c", "k").height == 1


def test_duplicates_are_told_by_the_stores_hash(listings: ListingStore, tmp_path: Path) -> None:
    store = MemoryBlobStore()
    store.create_container("c")
    for name, data in {
        "a.tif": b"same",
        "b/a.tif": b"same",
        "c.tif": b"same",
        "d": b"other",
        "e": b"",
        "f": b"",
    }.items():
        store.put("c", name, data, content_type="image/tiff", metadata={"n": name})
    basic = write_listing(EntryStream(store, "c"), listings, "c", "basic", scratch=tmp_path / "s")
    assert basic.duplicates is None
    stream = EntryStream(store, "c", detail="full", rows=2)
    full = write_listing(stream, listings, "c", "full", scratch=tmp_path / "s")
    assert full.duplicates is not None
    (sample,) = full.duplicates.pop("sample")
    assert full.duplicates == {"groups": 1, "blobs": 2, "bytes": 8}
    assert (sample["count"], sample["size_bytes"], sample["names"]) == (3, 4, ["a.tif", "b/a.tif", "c.tif"])
    table = read_listing(listings, "c", "full", ["name", "content_type", "metadata", "tags", "content_md5"])
    assert table.row(0) == ("a.tif", "image/tiff", '{"n": "a.tif"}', None, sample["content_md5"])


names = st.lists(
    st.sampled_from(["a", "b.tif", "b.tfw", "B.gdb", "é", "e\u0301", "c.shp", "c.shx"]), min_size=1, max_size=3
)
contents = st.dictionaries(names.map("/".join), st.integers(0, 3), max_size=15)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=contents, after=contents, few=st.integers(0, 20))
def test_changes_agree_with_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: dict[str, int], after: dict[str, int], few: int
) -> None:
    monkeypatch.setattr(buckets, "_IN_MEMORY", few)
    monkeypatch.setattr(listing, "_RANGE", 4)
    listings = ParquetListings(tmp_path / "l")
    before, after = ({name: size for name, size in some.items() if ".gdb" not in name} for some in (before, after))
    write(listings, tmp_path / "s", *(Blob(name, size) for name, size in before.items()), key="p")
    found = write(listings, tmp_path / "s", *(Blob(name, size) for name, size in after.items()), key="p")
    same = before.keys() & after.keys()
    assert found.changes == ListingChanges(
        added=len(after.keys() - before.keys()),
        removed=len(before.keys() - after.keys()),
        unchanged=sum(before[name] == after[name] for name in same),
        changed=sum(before[name] != after[name] for name in same),
    )
    assert read_listing(listings, "c", "p")["name"].to_list() == list(after)
    Path(listings.location("c", "p")).unlink()
