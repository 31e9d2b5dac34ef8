"""The contract of blob stores: one suite that local folder, memory and Azure all pass.

What belongs here: what :class:`geo_assets.stores.blobs.BlobStore` promises.  What does not: what only one store can
do or suffer (``test_local``, ``test_azure``).
"""

import hashlib
import json
import unicodedata
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from geo_assets.errors import (
    BlobNotFoundError,
    ChecksumMismatchError,
    ContainerNotFoundError,
    PreconditionFailedError,
    UnsupportedNameError,
)
from geo_assets.stores.blobs import FULL_LISTING_SCHEMA, LISTING_SCHEMA, BlobStore, PutMode
from geo_assets.stores.local import LocalBlobStore

ODD_NAMES = [
    "with space.tif",
    " leading and trailing ",
    "x%2Fy.tif",
    "c/%41",
    "hash#tag.tif",
    "what?.tif",
    "[a...b].tif",
    "a,b,c.tif",
    "a|b",
    "a&b=c;d",
    "plus+",
    'quo"te',
    "it's",
    "<tag>",
    ".hidden",
    "dir/.hidden/f",
    "trailing.",
    "...",
    "~tilde",
    "star*",
    "Case.TIF",
    "case.tif",
    unicodedata.normalize("NFC", "é.tif"),
    unicodedata.normalize("NFD", "é.tif"),
    "right\u202eleft",
    "😀/😀.tif",
    "/".join(["x" * 204] * 5)[:1024],
]


def listed(store: BlobStore, container: str, prefix: str = "") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for batch in store.list_blobs(container, prefix):
        assert batch.schema == LISTING_SCHEMA
        assert batch.num_rows > 0
        rows.extend(batch.to_pylist())
    return rows


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(store: BlobStore, container: str, prefix: str = "") -> list[str]:
    return [row["name"] for row in listed(store, container, prefix)]


def test_every_store_keeps_the_protocol(store: BlobStore) -> None:
    assert isinstance(store, BlobStore)


def test_containers_are_made_found_and_listed(store: BlobStore) -> None:
    first, second = sorted(f"c{uuid.uuid4().hex}" for _ in range(2))
    assert not store.container_exists(first)
    store.create_container(second)
    store.create_container(first)
    store.create_container(first)
    assert store.container_exists(first)
    assert [name for name in store.list_containers() if name in (first, second)] == [first, second]


def test_an_empty_container_lists_nothing(store: BlobStore, container: str) -> None:
    assert listed(store, container) == []


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_an_odd_name_is_written_listed_and_read_as_it_is(store: BlobStore, container: str, name: str) -> None:
    etag = store.put(container, name, b"hello")
    (row,) = listed(store, container)
    assert (row["name"], row["size"], row["problem"]) == (name, 5, None)
    found = store.head(container, name)
    assert (found.name, found.size, found.etag) == (name, 5, row["etag"])
    assert found.etag == etag
    assert store.read(container, name) == b"hello"
    assert store.read_range(container, name, 1, 3) == b"ell"
    assert "?" not in store.uri(container, name)
    assert "#" not in store.uri(container, name)
    store.delete(container, name)
    assert listed(store, container) == []


def test_all_odd_names_stand_beside_each_other(store: BlobStore, container: str) -> None:
    for name in ODD_NAMES:
        store.put(container, name, name.encode())
    assert sorted(names(store, container)) == sorted(ODD_NAMES)
    assert len({store.uri(container, name) for name in ODD_NAMES}) == len(ODD_NAMES)
    assert all(store.read(container, name) == name.encode() for name in ODD_NAMES)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a\nb",
        "tab\t",
        "\x7f",
        "a//b",
        "/lead",
        "trail/",
        "..",
        "a/../b",
        "../out",
        "./a",
        "a/.",
        "\udcff",
        "x" * 1025,
    ],
    ids=ascii,
)
def test_a_name_not_all_stores_hold_is_refused_by_each(store: BlobStore, container: str, name: str) -> None:
    for attempt in (
        lambda: store.put(container, name, b"x"),
        lambda: store.put_stream(container, name, [b"x"]),
        lambda: store.head(container, name),
        lambda: store.read(container, name),
        lambda: list(store.open_stream(container, name)),
        lambda: store.read_range(container, name, 0, 1),
        lambda: store.read_start(container, name, 1),
        lambda: store.delete(container, name),
        lambda: store.uri(container, name),
    ):
        with pytest.raises(UnsupportedNameError, match="unsupported name"):
            attempt()
    assert listed(store, container) == []


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", ".hidden", "a\\b", "a\nb", "\udcff", "x" * 256], ids=ascii)
def test_a_container_name_that_could_escape_is_refused(store: BlobStore, name: str) -> None:
    for attempt in (
        lambda: store.create_container(name),
        lambda: store.container_exists(name),
        lambda: list(store.list_blobs(name)),
        lambda: store.head(name, "a"),
        lambda: store.put(name, "a", b""),
        lambda: store.uri(name, "a"),
    ):
        with pytest.raises(UnsupportedNameError, match="container name"):
            attempt()


def test_a_missing_container_is_named_with_its_store(store: BlobStore) -> None:
    for attempt in (
        lambda: list(store.list_blobs("nowhere")),
        lambda: list(store.list_blobs("nowhere", "prefix")),
        lambda: list(store.list_blobs("nowhere", detail="full")),
        lambda: store.read_start("nowhere", "a", 1),
        lambda: store.head("nowhere", "a"),
        lambda: store.read("nowhere", "a"),
        lambda: store.read_range("nowhere", "a", 0, 1),
        lambda: list(store.open_stream("nowhere", "a")),
        lambda: store.put("nowhere", "a", b""),
        lambda: store.put_stream("nowhere", "a", [b"x"]),
        lambda: store.delete("nowhere", "a"),
    ):
        with pytest.raises(ContainerNotFoundError, match="nowhere") as caught:
            attempt()
        assert store.description in str(caught.value)


def test_a_missing_blob_is_named(store: BlobStore, container: str) -> None:
    for attempt in (
        lambda: store.head(container, "gone.tif"),
        lambda: store.read(container, "gone.tif"),
        lambda: store.read_range(container, "gone.tif", 0, 1),
        lambda: store.read_start(container, "gone.tif", 1),
        lambda: list(store.open_stream(container, "gone.tif")),
        lambda: store.delete(container, "gone.tif"),
    ):
        with pytest.raises(BlobNotFoundError, match=r"gone\.tif"):
            attempt()


def test_a_folder_is_no_blob(store: BlobStore, container: str) -> None:
    store.put(container, "dir/file", b"x")
    for attempt in (
        lambda: store.head(container, "dir"),
        lambda: store.read(container, "dir"),
        lambda: store.delete(container, "dir"),
    ):
        with pytest.raises(BlobNotFoundError):
            attempt()


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", ["a.tif", "a/1.tif", "a/2.tif", "a/b/3.tif", "ab/4.tif", "c"]),
        ("a", ["a.tif", "a/1.tif", "a/2.tif", "a/b/3.tif", "ab/4.tif"]),
        ("a/", ["a/1.tif", "a/2.tif", "a/b/3.tif"]),
        ("a/b", ["a/b/3.tif"]),
        ("a/b/3.tif", ["a/b/3.tif"]),
        ("a/2", ["a/2.tif"]),
        ("c", ["c"]),
        ("c/", []),
        ("zzz", []),
        ("a//", []),
        ("a\nb/", []),
    ],
)
def test_a_prefix_is_text_not_a_folder(store: BlobStore, container: str, prefix: str, expected: list[str]) -> None:
    for name in ("a.tif", "a/1.tif", "a/2.tif", "a/b/3.tif", "ab/4.tif", "c"):
        store.put(container, name, b"x")
    assert names(store, container, prefix) == expected


def test_listing_and_head_agree(store: BlobStore, container: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.put(container, "zero", b"")
    store.put(container, "dir/some.tif", b"12345", content_type="image/tiff", metadata={"tier": "bronze"})
    rows = listed(store, container)
    assert [(row["name"], row["size"]) for row in rows] == [("dir/some.tif", 5), ("zero", 0)]
    for row in rows:
        found = store.head(container, row["name"])
        assert (found.size, found.etag) == (row["size"], row["etag"])
        assert found.last_modified.replace(microsecond=0) == row["last_modified"].replace(microsecond=0)
        assert found.last_modified.utcoffset() == timedelta(0)
        assert before <= found.last_modified <= datetime.now(UTC) + timedelta(seconds=2)


def test_a_range_ends_where_the_blob_does(store: BlobStore, container: str) -> None:
    store.put(container, "b", b"0123456789")
    store.put(container, "zero", b"")
    assert store.read_range(container, "b", 0, 4) == b"0123"
    assert store.read_range(container, "b", 8, 100) == b"89"
    assert store.read_range(container, "b", 10, 1) == b""
    assert store.read_range(container, "b", 50, 1) == b""
    assert store.read_range(container, "b", 3, 0) == b""
    assert store.read_range(container, "zero", 0, 10) == b""
    assert store.read(container, "zero") == b""
    assert b"".join(store.open_stream(container, "zero")) == b""
    for start, length in ((-1, 2), (0, -1)):
        with pytest.raises(ValueError, match="negative"):
            store.read_range(container, "b", start, length)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100_000])
def test_the_start_of_a_blob_comes_with_its_properties(store: BlobStore, container: str, size: int) -> None:
    data = (bytes(range(256)) * 400)[:size]
    etag = store.put(container, "dir/b.tif", data, content_type="image/tiff", metadata={"tier": "bronze"})
    start, found = store.read_start(container, "dir/b.tif", 64)
    assert start == data[:64]
    assert found == store.head(container, "dir/b.tif")
    assert (found.etag, found.size) == (etag, size)


def test_a_full_listing_says_all_the_store_can_tell(store: BlobStore, container: str) -> None:
    store.put(container, "a/some.tif", b"12345", content_type="image/tiff", metadata={"tier": "bronze", "n": "1"})
    store.put(container, "plain", b"")
    for prefix in ("", "a"):
        batches = list(store.list_blobs(container, prefix, detail="full"))
        assert all(batch.schema == FULL_LISTING_SCHEMA and batch.num_rows for batch in batches)
        rows = {row["name"]: row for batch in batches for row in batch.to_pylist()}
        assert set(rows) == ({"a/some.tif"} if prefix else {"a/some.tif", "plain"})
        some = rows["a/some.tif"]
        found = store.head(container, "a/some.tif")
        assert (some["size"], some["etag"], some["problem"]) == (5, found.etag, None)
        assert some["content_type"] == "image/tiff"
        if isinstance(store, LocalBlobStore):  # a file has none
            assert (some["metadata"], some["content_md5"]) == (None, None)
        else:
            assert json.loads(some["metadata"]) == {"tier": "bronze", "n": "1"}
            assert some["content_md5"] == hashlib.md5(b"12345", usedforsecurity=False).hexdigest()
    assert list(store.list_blobs(container, "zzz", detail="full")) == []


def test_a_stream_gives_the_blob_in_chunks(store: BlobStore, container: str) -> None:
    data = bytes(range(256)) * 40_000
    store.put_stream(container, "big", (data[start : start + 700_001] for start in range(0, len(data), 700_001)))
    chunks = list(store.open_stream(container, "big", chunk_size=1 << 20))
    assert len(chunks) > 1
    assert b"".join(chunks) == data


def test_a_write_changes_the_etag(store: BlobStore, container: str) -> None:
    first = store.put(container, "b", b"one")
    second = store.put(container, "b", b"three")
    assert first != second == store.head(container, "b").etag
    assert store.read(container, "b") == b"three"


def test_create_refuses_what_exists(store: BlobStore, container: str) -> None:
    store.put(container, "b", b"one", mode="create")
    with pytest.raises(PreconditionFailedError, match="b"):
        store.put(container, "b", b"two", mode="create")
    with pytest.raises(PreconditionFailedError, match="b"):
        store.put_stream(container, "b", [b"two"], mode="create")
    store.put_stream(container, "c", [b"c"], mode="create")
    assert store.read(container, "b") == b"one"


def test_if_match_writes_only_over_that_version(store: BlobStore, container: str) -> None:
    first = store.put(container, "b", b"one")
    second = store.put(container, "b", b"other", if_match=first)
    with pytest.raises(PreconditionFailedError):
        store.put(container, "b", b"late", if_match=first)
    with pytest.raises(PreconditionFailedError):
        store.put_stream(container, "b", [b"late"], if_match=first)
    with pytest.raises(PreconditionFailedError):
        store.put(container, "missing", b"x", if_match=first)
    store.put_stream(container, "b", [b"streamed"], if_match=second)
    assert store.read(container, "b") == b"streamed"
    with pytest.raises(ValueError, match="exclude"):
        store.put(container, "b", b"x", mode="create", if_match=second)


def test_one_of_many_creators_wins(store: BlobStore, container: str) -> None:
    def create(number: int) -> bool:
        try:
            store.put_stream(container, "race", [str(number).encode()] * 3, mode="create")
        except PreconditionFailedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = [number for number, success in enumerate(pool.map(create, range(8))) if success]
    assert len(won) == 1
    assert store.read(container, "race") == str(won[0]).encode() * 3


def test_a_stream_that_breaks_leaves_no_trace(store: BlobStore, container: str) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 9_000_000
        raise RuntimeError("the source broke")

    store.put(container, "old", b"old")
    for name in ("old", "new", "dir/new"):
        for digest in (None, sha256_of(b"x" * 9_000_000)):
            with pytest.raises(RuntimeError, match="source broke"):
                store.put_stream(container, name, broken(), sha256=digest)
    assert names(store, container) == ["old"]
    assert store.read(container, "old") == b"old"


@pytest.mark.parametrize("mode", ["overwrite", "create"])
@pytest.mark.parametrize("size", [0, 1, 20_000_000])
def test_a_stream_with_its_own_digest_is_written(store: BlobStore, container: str, mode: PutMode, size: int) -> None:
    data = (bytes(range(251)) * (size // 251 + 1))[:size]
    chunks = [data[start : start + 3_000_000] for start in range(0, size, 3_000_000)]
    for name, digest in (("lower", sha256_of(data)), ("upper", sha256_of(data).upper())):
        etag = store.put_stream(container, name, chunks, mode=mode, sha256=digest)
        assert store.head(container, name).etag == etag
        assert store.read(container, name) == data


@pytest.mark.parametrize("sent", [b"one", b"", b"x" * 20_000_000], ids=len)
def test_a_stream_with_another_digest_leaves_what_was_there(store: BlobStore, container: str, sent: bytes) -> None:
    etag = store.put(container, "old", b"old")
    wrong = sha256_of(sent + b"!")
    for name, conditions in (
        ("old", {}),
        ("old", {"if_match": etag}),
        ("new", {}),
        ("dir/new", {"mode": "create"}),
    ):
        for digest in (wrong, ""):
            with pytest.raises(ChecksumMismatchError, match="SHA-256") as caught:
                store.put_stream(container, name, [sent], sha256=digest, **conditions)  # type: ignore[arg-type]
            assert f"{container}/{name}" in str(caught.value)
            assert store.description in str(caught.value)
    assert names(store, container) == ["old"]
    assert (store.read(container, "old"), store.head(container, "old").etag) == (b"old", etag)
    store.put_stream(container, "new", [sent], sha256=sha256_of(sent), mode="create")
    assert store.read(container, "new") == sent


def test_a_right_digest_is_no_leave_to_overwrite(store: BlobStore, container: str) -> None:
    store.put(container, "b", b"one")
    for conditions in ({"mode": "create"}, {"if_match": '"another"'}):
        with pytest.raises(PreconditionFailedError):
            store.put_stream(container, "b", [b"two"], sha256=sha256_of(b"two"), **conditions)  # type: ignore[arg-type]
    assert store.read(container, "b") == b"one"


def test_a_blob_under_way_is_not_listed(store: BlobStore, container: str) -> None:
    seen: list[list[str]] = []

    def watched() -> Iterator[bytes]:
        for _ in range(3):
            yield b"x" * 9_000_000
            seen.append(names(store, container))

    store.put_stream(container, "slow", watched())
    assert seen == [[], [], []]
    assert names(store, container) == ["slow"]
    assert store.head(container, "slow").size == 27_000_000


def test_an_empty_stream_makes_an_empty_blob(store: BlobStore, container: str) -> None:
    store.put_stream(container, "empty", [])
    assert store.head(container, "empty").size == 0


def test_a_store_serves_many_threads(store: BlobStore, container: str) -> None:
    def work(number: int) -> bytes:
        store.put(container, f"n/{number}", str(number).encode())
        return store.read(container, f"n/{number}")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(60))) == [str(number).encode() for number in range(60)]
    assert len(names(store, container)) == 60
