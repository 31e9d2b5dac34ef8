"""One entry described: from its row of the listing, and from its first bytes.

What belongs here: :mod:`geo_assets.containers.analysis`.  What does not: outcomes of tasks (``tests/jobs``).
"""

from typing import Any

import pytest

from geo_assets.containers.analysis import describe
from geo_assets.containers.kinds import kind_of
from geo_assets.errors import BlobNotFoundError
from geo_assets.stores.memory import MemoryBlobStore


@pytest.fixture
def store() -> MemoryBlobStore:
    made = MemoryBlobStore()
    made.create_container("c")
    return made


def row(store: MemoryBlobStore, name: str, **values: Any) -> dict[str, Any]:
    found = store.head("c", name)
    return {
        "name": name, "size": found.size, "last_modified": found.last_modified, "etag": found.etag,
        "kind": kind_of(name), **values,
    }  # fmt: skip


def test_a_blob_has_the_fields_of_the_original_and_ours(store: MemoryBlobStore) -> None:
    store.put("c", "dir/a.b.TIF", b"II*\0" * 750, content_type="image/tiff", metadata={"tier": "bronze"})
    listed = row(store, "dir/a.b.TIF", dataset="dir/a.b.TIF", role="main", complete=True, change="added")
    found = describe(store, "c", listed)
    assert found.pop("last_modified").endswith("+00:00")
    assert found == {
        "blob_name": "dir/a.b.TIF",
        "blob_path": "c/dir/a.b.TIF",
        "container_name": "c",
        "size_bytes": 3000,
        "size_mb": 0.0029,
        "file_extension": ".tif",
        "content_type": "image/tiff",
        "etag": listed["etag"],
        "metadata": {"tier": "bronze"},
        "replaced_since_listing": False,
        "geo_kind": "raster",
        "dataset": "dir/a.b.TIF",
        "role": "main",
        "complete": True,
        "missing": None,
        "change": "added",
        "detected_format": "tiff",
        "format_matches_name": True,
        "content_md5": None,
        "tags": None,
    }


def test_what_is_not_read_is_as_it_was_listed(store: MemoryBlobStore) -> None:
    store.put("c", "a.txt", b"II*\0")
    listed = row(store, "a.txt", content_type="text/plain", metadata='{"a": "1"}', tags='{"b": "2"}', content_md5="00")
    store.delete("c", "a.txt")
    found = describe(store, "c", listed)
    assert (found["content_type"], found["metadata"], found["tags"]) == ("text/plain", {"a": "1"}, {"b": "2"})
    assert (found["detected_format"], found["format_matches_name"], found["replaced_since_listing"]) == (None,) * 3
    assert (found["size_bytes"], found["content_md5"]) == (4, "00")


def test_a_replaced_blob_is_described_as_it_is_now(store: MemoryBlobStore) -> None:
    store.put("c", "a.tif", b"one")
    listed = row(store, "a.tif", content_md5="00")
    etag = store.put("c", "a.tif", b"II*\0 other")
    found = describe(store, "c", listed)
    assert (found["replaced_since_listing"], found["etag"], found["size_bytes"]) == (True, etag, 10)
    assert found["content_md5"] is None
    assert describe(store, "c", listed, magic=False)["size_bytes"] == 3


def test_a_blob_that_is_gone_is_not_found(store: MemoryBlobStore) -> None:
    store.put("c", "gone.tif", b"x")
    listed = row(store, "gone.tif")
    store.delete("c", "gone.tif")
    with pytest.raises(BlobNotFoundError):
        describe(store, "c", listed)


def test_a_dataset_is_as_it_was_listed(store: MemoryBlobStore) -> None:
    listed = {
        "name": "d/x.GDB",
        "size": 15,
        "last_modified": "2025-01-01T00:00:00+00:00",
        "file_count": 3,
        "kind": "vector",
    }
    found = describe(store, "c", listed)
    assert (found["size_bytes"], found["file_extension"], found["etag"]) == (15, ".gdb", None)
    assert found["content_type"] == "application/x-esri-geodatabase"
    assert found["metadata"] == {"type": "geodatabase", "file_count": 3}


@pytest.mark.parametrize("name", ["a.tif", "a.geojson", "a.hgt"])
def test_an_empty_file_is_not_what_its_name_says(store: MemoryBlobStore, name: str) -> None:
    store.put("c", name, b"")
    found = describe(store, "c", row(store, name))
    assert (found["detected_format"], found["format_matches_name"]) == ("empty", False)
