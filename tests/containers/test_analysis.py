"""One entry: a blob, a dataset, one that is gone or was replaced.

What belongs here: :mod:`geo_assets.containers.analysis`.  What does not: outcomes of tasks (``tests/jobs``).
"""

import pytest

from geo_assets.containers.analysis import analyze_entry, extension_of
from geo_assets.errors import BlobNotFoundError
from geo_assets.stores.memory import MemoryBlobStore


@pytest.fixture
def store() -> MemoryBlobStore:
    made = MemoryBlobStore()
    made.create_container("c")
    return made


def test_a_blob_has_the_fields_of_the_original(store: MemoryBlobStore) -> None:
    etag = store.put("c", "dir/a.b.TIF", b"x" * 3_000, content_type="image/tiff", metadata={"tier": "bronze"})
    found = analyze_entry(store, "c", "dir/a.b.TIF", listed_etag=etag)
    modified = found.pop("last_modified")
    assert modified.endswith("+00:00")
    assert found == {
        "blob_name": "dir/a.b.TIF",
        "blob_path": "c/dir/a.b.TIF",
        "container_name": "c",
        "size_bytes": 3000,
        "size_mb": 0.0029,
        "file_extension": ".tif",
        "content_type": "image/tiff",
        "etag": etag,
        "metadata": {"tier": "bronze"},
        "replaced_since_listing": False,
    }


def test_a_replaced_blob_says_so(store: MemoryBlobStore) -> None:
    listed = store.put("c", "a", b"one")
    store.put("c", "a", b"other")
    assert analyze_entry(store, "c", "a", listed_etag=listed)["replaced_since_listing"] is True
    assert analyze_entry(store, "c", "a")["replaced_since_listing"] is False


def test_a_blob_that_is_gone_is_not_found(store: MemoryBlobStore) -> None:
    for name in ("gone.tif", "gone.gdb"):
        with pytest.raises(BlobNotFoundError):
            analyze_entry(store, "c", name)


def test_a_dataset_is_the_sum_of_its_blobs(store: MemoryBlobStore) -> None:
    for name, size in (("1", 10), ("sub/2", 5), ("3", 0)):
        store.put("c", f"d/x.GDB/{name}", b"x" * size)
    store.put("c", "d/x.GDB.zip", b"zip")
    found = analyze_entry(store, "c", "d/x.GDB")
    assert (found["size_bytes"], found["file_extension"], found["etag"]) == (15, ".gdb", None)
    assert found["content_type"] == "application/x-esri-geodatabase"
    assert found["metadata"] == {"type": "geodatabase", "file_count": 3}
    assert found["last_modified"] == store.head("c", "d/x.GDB/3").last_modified.isoformat()


def test_a_plain_blob_may_end_in_gdb(store: MemoryBlobStore) -> None:
    store.put("c", "plain.gdb", b"x")
    assert analyze_entry(store, "c", "plain.gdb")["metadata"] == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tif", ".tif"), ("v1.2/readme", ""), ("a.tar.GZ", ".gz"), (".hidden", ".hidden"), ("a.", ""), ("...", "")],
)
def test_the_extension_is_that_of_the_last_segment(name: str, expected: str) -> None:
    assert extension_of(name) == expected
