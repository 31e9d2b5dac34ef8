"""What only the local folder can do or suffer: odd files, links, names that are not UTF-8.

What belongs here: the local store's own faults.  What does not: the contract all stores share.
"""

import errno
import fcntl
import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from geo_assets.errors import (
    AccessDeniedError,
    BlobNotFoundError,
    ChecksumMismatchError,
    ContainerNotFoundError,
    StoreUnavailableError,
    UnsupportedNameError,
)
from geo_assets.stores import local
from geo_assets.stores.local import LocalBlobStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def store(root: Path) -> LocalBlobStore:
    made = LocalBlobStore(root)
    made.create_container("c")
    return made


def rows(store: LocalBlobStore, container: str = "c", prefix: str = "") -> list[dict[str, Any]]:
    return [row for batch in store.list_blobs(container, prefix) for row in batch.to_pylist()]


def problems(store: LocalBlobStore) -> dict[str, str | None]:
    return {row["name"]: row["problem"] for row in rows(store)}


def test_a_root_that_is_not_there_yet_has_no_containers(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "later")
    assert store.list_containers() == []
    assert not store.container_exists("c")
    with pytest.raises(ContainerNotFoundError, match="GEO_ASSETS_BLOB_ROOT"):
        list(store.list_blobs("c"))


def test_only_folders_that_can_be_containers_are_listed(store: LocalBlobStore, root: Path, tmp_path: Path) -> None:
    (root / ".hidden").mkdir()
    (root / "file").write_text("x")
    (root / "a\nb").mkdir()
    Path(os.fsdecode(os.fsencode(root) + b"/\xff")).mkdir()
    (tmp_path / "outside").mkdir()
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "alias").symlink_to(root / "c")
    (root / "self").symlink_to(root)
    assert store.list_containers() == ["alias", "c"]
    for name in ("link", "self"):
        with pytest.raises(ContainerNotFoundError):
            store.put(name, "x", b"x")


def test_every_odd_file_is_a_row_and_none_fails_the_listing(store: LocalBlobStore, root: Path, tmp_path: Path) -> None:
    folder = root / "c"
    (folder / "good.tif").write_bytes(b"good")
    (folder / "new\nline").write_bytes(b"12")
    (folder / "tab\t").write_bytes(b"")
    (folder / "name#1").write_bytes(b"")
    (folder / "name#x").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9.tif")).write_bytes(b"123")
    Path(os.fsdecode(os.fsencode(folder) + b"/dir\xe9")).mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/dir\xe9/in.tif")).write_bytes(b"")
    (tmp_path / "secret").write_text("secret")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "etc").symlink_to("/etc")
    (folder / "dangling").symlink_to("nothing")
    (folder / "loop").symlink_to("loop")
    (folder / "inside").symlink_to("good.tif")
    (folder / "empty" / "deep").mkdir(parents=True)
    (folder / "back\\slash").write_bytes(b"")
    os.mkfifo(folder / "pipe")
    found = problems(store)
    good = {name for name, problem in found.items() if problem is None}
    assert good == {"good.tif", "name#x", "inside", "back\\slash"}
    bad = {name: problem for name, problem in found.items() if problem is not None}
    assert set(bad) == {
        r"new\nline", r"tab\t", "name#1", r"latin\xe9.tif", r"dir\xe9/in.tif", "out", "etc", "dangling", "loop", "pipe",
    }  # fmt: skip
    assert all(problem.startswith(f"unsupported name: '{name}'") for name, problem in bad.items() if problem)
    sizes = {row["name"]: row["size"] for row in rows(store)}
    assert (sizes[r"new\nline"], sizes[r"latin\xe9.tif"], sizes["inside"]) == (2, 3, 4)


def test_two_bad_names_never_look_the_same(store: LocalBlobStore, root: Path) -> None:
    for name in ("x\\n\n", "x\n\\n", "x\n\n"):
        (root / "c" / name).write_bytes(b"")
    assert len(problems(store)) == 3


def test_what_a_listing_calls_a_problem_is_not_opened(store: LocalBlobStore, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (root / "c" / "out").symlink_to(tmp_path / "secret")
    (root / "c" / "dir").symlink_to(tmp_path)
    (root / "c" / "name#1").write_text("x")
    os.mkfifo(root / "c" / "pipe")
    for name in ("out", "dir/secret", "name#1", "pipe", ".geo_assets_uploads/x"):
        for attempt in (
            lambda name=name: store.head("c", name),
            lambda name=name: store.read("c", name),
            lambda name=name: store.read_range("c", name, 0, 1),
            lambda name=name: list(store.open_stream("c", name)),
        ):
            with pytest.raises((UnsupportedNameError, BlobNotFoundError)):
                attempt()
    for name in ("out", "dir/new", "dir/secret", "name#2", ".geo_assets_uploads/x"):
        with pytest.raises(UnsupportedNameError):
            store.put("c", name, b"x")
        with pytest.raises(UnsupportedNameError):
            store.delete("c", name)
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "new").exists()


def test_names_come_in_the_order_of_their_bytes(store: LocalBlobStore) -> None:
    names = ["a", "a-b", "a.b", "a/b", "a/c/d", "a0", "z", "é"]
    for name in reversed([name for name in names if name != "a"]):
        store.put("c", name, b"")
    found = [row["name"] for row in rows(store)]
    assert found == [name for name in names if name != "a"]


def test_a_listing_goes_on_in_batches(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_BATCH", 3)
    for number in range(7):
        store.put("c", f"{number}", b"")
    assert [batch.num_rows for batch in store.list_blobs("c")] == [3, 3, 1]


def test_only_folders_that_can_hold_the_prefix_are_read(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/b/1", "a/c/2", "d/3"):
        store.put("c", name, b"")
    read: list[bytes] = []
    children = local._children

    def watched(base: bytes, name: bytes) -> list[bytes]:
        read.append(name)
        return children(base, name)

    monkeypatch.setattr(local, "_children", watched)
    assert [row["name"] for row in rows(store, prefix="a/b")] == ["a/b/1"]
    assert read == [b"", b"a/", b"a/b/"]


def test_a_file_that_vanishes_while_listed_is_left_out(store: LocalBlobStore, root: Path) -> None:
    for name in ("a", "b", "d/e"):
        store.put("c", name, b"")
    walk = store._walk("c", root / "c", b"")
    assert next(walk)[0] == "a"
    store.delete("c", "b")
    store.delete("c", "d/e")
    assert list(walk) == []


def test_a_folder_that_cannot_be_read_is_a_row(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "locked/b", "z"):
        store.put("c", name, b"")
    children = local._children

    def refuse(base: bytes, name: bytes) -> list[bytes]:
        if name == b"locked/":
            raise PermissionError(errno.EACCES, "Permission denied")
        return children(base, name)

    monkeypatch.setattr(local, "_children", refuse)
    found = problems(store)
    assert list(found) == ["a", "locked/", "z"]
    assert "unreadable folder: 'locked/' (Permission denied)" in str(found["locked/"])


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.EACCES, AccessDeniedError), (errno.EIO, StoreUnavailableError)]
)
def test_a_container_that_cannot_be_read_fails_the_listing(
    store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[Exception]
) -> None:
    def refuse(base: bytes, name: bytes) -> list[bytes]:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(local, "_children", refuse)
    with pytest.raises(expected, match="'c'"):
        rows(store)


def test_etags_are_those_of_obstore(store: LocalBlobStore, root: Path) -> None:
    store.put("c", "dir/a.tif", b"123")
    theirs = LocalStore(root / "c").head("dir/a.tif")
    ours = store.head("c", "dir/a.tif")
    assert (ours.etag, ours.last_modified, ours.size) == (theirs["e_tag"], theirs["last_modified"], theirs["size"])


@pytest.mark.parametrize("name", ["a/b", "dir"])
def test_a_name_cannot_be_a_blob_and_a_folder(store: LocalBlobStore, name: str) -> None:
    store.put("c", "a", b"blob")
    store.put("c", "dir/in", b"blob")
    with pytest.raises(UnsupportedNameError, match="both a blob and a folder"):
        store.put("c", name, b"x")
    assert [row["name"] for row in rows(store)] == ["a", "dir/in"]


def test_a_segment_longer_than_the_file_system_takes_is_refused(store: LocalBlobStore) -> None:
    for attempt in (lambda: store.put("c", "x" * 300, b""), lambda: store.head("c", "x" * 300)):
        with pytest.raises(UnsupportedNameError, match="file system"):
            attempt()


def test_written_files_have_ordinary_modes(store: LocalBlobStore, root: Path) -> None:
    store.put("c", "a", b"x")
    (root / "plain").write_bytes(b"x")
    assert stat.S_IMODE((root / "c" / "a").stat().st_mode) == stat.S_IMODE((root / "plain").stat().st_mode)


def test_no_staged_file_is_left(store: LocalBlobStore, root: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError

    store.put("c", "a", b"x")
    with pytest.raises(RuntimeError):
        store.put_stream("c", "b", broken())
    with pytest.raises(ChecksumMismatchError):
        store.put_stream("c", "dir/b", [b"x"], sha256="0" * 64)
    assert [path.name for path in (root / "c" / ".geo_assets_uploads").iterdir()] == ["lock"]
    assert not (root / "c" / "dir").exists()


def test_the_digest_is_that_of_the_file_not_of_what_was_sent(store: LocalBlobStore, root: Path) -> None:
    data = b"x" * 9_000_000

    def sent() -> Iterator[bytes]:
        yield data
        [staged] = (root / "c" / ".geo_assets_uploads").glob("upload-*")
        with staged.open("r+b") as file:
            file.write(b"y")

    with pytest.raises(ChecksumMismatchError):
        store.put_stream("c", "b", sent(), sha256=hashlib.sha256(data).hexdigest())
    assert rows(store) == []


def test_delete_removes_the_folders_it_empties(store: LocalBlobStore, root: Path) -> None:
    for name in ("a/b/c", "a/d"):
        store.put("c", name, b"")
    store.delete("c", "a/b/c")
    assert not (root / "c" / "a" / "b").exists()
    assert [row["name"] for row in rows(store)] == ["a/d"]


def test_an_outage_of_the_disk_is_transient(store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local, "_stage", full)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        store.put("c", "a", b"x")


def test_a_socket_is_no_blob(store: LocalBlobStore, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "c")  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("sock")
    assert "not a regular file" in str(problems(store)["sock"])


def test_what_a_killed_upload_left_is_swept_by_a_later_one(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path)
    store.create_container("c")
    store.put("c", "first.tif", b"x")
    uploads = tmp_path / "c" / ".geo_assets_uploads"
    old, young, at_work = (uploads / f"upload-{name}" for name in ("old", "young", "at-work"))
    for path in (old, young, at_work):
        path.write_bytes(b"half a COG")
    for path in (old, at_work):
        os.utime(path, (1_000_000, 1_000_000))
    with at_work.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        store.put_stream("c", "second.tif", [b"y"])
    assert [path.exists() for path in (old, young, at_work)] == [False, True, True]
