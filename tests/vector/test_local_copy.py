"""Blobs of one dataset as files: which belong together, which version they are, and that the copies are whole."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from geo_assets.errors import (
    BlobNotFoundError,
    DiskFullError,
    SourceChangedError,
    VectorRefusedError,
    VectorUnreadableError,
)
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.memory import MemoryBlobStore
from geo_assets.vector.budget import VectorBudget
from geo_assets.vector.local_copy import LocalCopy, fetch, source_version
from tests.vector.files import BUDGET, COLLECTION, CSV_TEXT, shapefile, write


@pytest.fixture
def blobs() -> MemoryBlobStore:
    store = MemoryBlobStore()
    store.create_container("c")
    return store


def put(blobs: BlobStore, name: str, content: bytes | str) -> None:
    blobs.put("c", name, content.encode() if isinstance(content, str) else content)


def put_folder(blobs: BlobStore, folder: Path, prefix: str = "") -> None:
    for one in folder.iterdir():
        put(blobs, f"{prefix}{one.name}", one.read_bytes())


def copied(
    blobs: BlobStore,
    name: str,
    tmp_path: Path,
    *,
    budget: VectorBudget = BUDGET,
    reserve_bytes: int = 0,
    file_extension: str | None = None,
) -> LocalCopy:
    return fetch(
        blobs,
        "c",
        name,
        folder=lambda: tmp_path / "copy",
        reserve_bytes=reserve_bytes,
        budget=budget,
        file_extension=file_extension,
    )


@pytest.mark.parametrize(
    ("name", "content", "local"),
    [("a b/ü.csv", CSV_TEXT, "vector.csv"), ("x.shp", COLLECTION, "vector.geojson")],
)
def test_one_file_has_its_own_sha256_and_etag(
    name: str, content: str, local: str, blobs: MemoryBlobStore, tmp_path: Path
) -> None:
    put(blobs, name, content)
    copy = copied(blobs, name, tmp_path)
    assert copy.path == tmp_path / "copy" / local
    assert copy.path.read_text() == content
    assert copy.sha256 == hashlib.sha256(content.encode()).hexdigest()
    properties = blobs.head("c", name)
    assert (copy.etag, copy.size, copy.last_modified) == (properties.etag, len(content), properties.last_modified)
    assert copy.parts == (name,)
    assert source_version(blobs, "c", name) == copy.etag


def test_the_extension_that_is_said_decides_between_texts(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put(blobs, "x.dump", CSV_TEXT)
    with pytest.raises(VectorRefusedError, match=r"c/x\.dump: the file is no vector file"):
        copied(blobs, "x.dump", tmp_path)
    assert not (tmp_path / "copy").exists()
    assert copied(blobs, "x.dump", tmp_path, file_extension="csv").path.name == "vector.csv"


@pytest.mark.parametrize("upper", [False, True])
def test_a_bare_shapefile_comes_with_its_parts(upper: bool, blobs: MemoryBlobStore, tmp_path: Path) -> None:  # noqa: FBT001
    made = shapefile(tmp_path / "made", "roads")
    for one in made.parent.iterdir():
        put(blobs, f"d/Roads{one.suffix.upper() if upper else one.suffix}", one.read_bytes())
    for other in ("d/Roads.shp.xml", "d/Roads.sbn", "d/Roads2.dbf", "d/roads.dbf", "d/Roads.x.dbf", "Roads.dbf"):
        put(blobs, other, "other")
    name = f"d/Roads{'.SHP' if upper else '.shp'}"
    copy = copied(blobs, name, tmp_path)
    assert copy.path.name == "vector.shp"
    assert {one.name for one in copy.path.parent.iterdir()} == {f"vector{one.suffix}" for one in made.parent.iterdir()}
    for one in made.parent.iterdir():
        assert copy.path.with_suffix(one.suffix).read_bytes() == one.read_bytes()
    together = b"".join(blobs.read("c", part) for part in sorted(copy.parts))
    assert copy.sha256 == hashlib.sha256(together).hexdigest()
    assert copy.size == len(together)
    assert source_version(blobs, "c", name) == copy.etag


def test_the_version_changes_with_any_part(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put_folder(blobs, shapefile(tmp_path / "made", "x").parent)
    seen = {source_version(blobs, "c", "x.shp")}
    for part in ("x.dbf", "x.prj", "x.shp"):
        put(blobs, part, blobs.read("c", part) + b" ")
        seen.add(source_version(blobs, "c", "x.shp"))
    blobs.delete("c", "x.prj")
    seen.add(source_version(blobs, "c", "x.shp"))
    put(blobs, "x.txt", "no part")
    seen.add(source_version(blobs, "c", "x.shp"))
    assert len(seen) == 5


@pytest.mark.parametrize("parts", [(".shx",), (".dbf",), (".shx", ".dbf")])
def test_fault_29_missing_parts_are_named(parts: tuple[str, ...], blobs: MemoryBlobStore, tmp_path: Path) -> None:
    made = shapefile(tmp_path / "made", "x")
    for part in parts:
        made.with_suffix(part).unlink()
    put_folder(blobs, made.parent)
    with pytest.raises(
        VectorUnreadableError, match=rf"c/x\.shp: the shapefile's {' and '.join(parts)} (is|are) missing"
    ):
        copied(blobs, "x.shp", tmp_path)
    assert not (tmp_path / "copy").exists()


def test_fault_29_a_missing_prj_is_no_fault_of_the_copy(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    made = shapefile(tmp_path / "made", "x")
    made.with_suffix(".prj").unlink()
    put_folder(blobs, made.parent)
    assert not copied(blobs, "x.shp", tmp_path).path.with_suffix(".prj").exists()


def test_parts_that_are_there_twice_are_not_guessed(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put_folder(blobs, shapefile(tmp_path / "made", "x").parent)
    put(blobs, "x.DBF", "another")
    with pytest.raises(VectorUnreadableError, match=r"\.dbf is there twice"):
        copied(blobs, "x.shp", tmp_path)


def test_a_shapefile_by_another_name_still_needs_its_parts(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    made = shapefile(tmp_path / "made", "x")
    put(blobs, "x.geojson", made.read_bytes())
    with pytest.raises(VectorUnreadableError, match="are missing"):
        copied(blobs, "x.geojson", tmp_path)
    put_folder(blobs, made.parent)
    copy = copied(blobs, "x.geojson", tmp_path)
    assert (copy.path.name, copy.etag) == ("vector.shp", source_version(blobs, "c", "x.geojson"))


@pytest.mark.parametrize("store", ["memory", "local", "marker"])
def test_fault_37_a_geodatabase_is_a_folder_of_blobs(store: str, tmp_path: Path) -> None:
    blobs: BlobStore = LocalBlobStore(tmp_path / "root") if store == "local" else MemoryBlobStore()
    blobs.create_container("c")
    made = write(tmp_path / "x.gdb", "OpenFileGDB")
    put_folder(blobs, made, "d/Town.gdb/")
    put(blobs, "d/Town.gdb/host.123.sr.lock", "")
    put(blobs, "d/Town.gdb/deeper/a00000001.gdbtable", "")
    put(blobs, "d/Town.gdb2/a00000001.gdbtable", "")
    if store == "marker":
        put(blobs, "d/Town.gdb", "")  # as accounts with folders have one for each
    copy = copied(blobs, "d/Town.gdb", tmp_path)
    assert copy.path.name == "vector.gdb"
    assert {one.name for one in copy.path.iterdir()} == {one.name for one in made.iterdir()}
    assert len(copy.parts) == len(list(made.iterdir()))
    assert source_version(blobs, "c", "d/Town.gdb") == copy.etag


@pytest.mark.parametrize("name", ["gone.gpkg", "gone.gdb"])
def test_what_is_not_there_is_said(name: str, blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put(blobs, "gone.gdb/readme.txt", "no table")
    with pytest.raises(BlobNotFoundError):
        copied(blobs, name, tmp_path)
    with pytest.raises(BlobNotFoundError):
        source_version(blobs, "c", name)


def test_what_is_too_large_is_not_copied(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put_folder(blobs, shapefile(tmp_path / "made", "x").parent)
    for budget, what in ((replace(BUDGET, file_bytes=900), "VECTOR_MAX_GB"), (replace(BUDGET, entries=3), "ENTRIES")):
        with pytest.raises(VectorRefusedError, match=what) as caught:
            copied(blobs, "x.shp", tmp_path, budget=budget)
        assert caught.value.code == "FILE_TOO_LARGE"
    assert not (tmp_path / "copy").exists()


def test_the_settings_are_the_budget_where_none_is_given(
    blobs: MemoryBlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_folder(blobs, shapefile(tmp_path / "made", "x").parent)
    monkeypatch.setenv("GEO_ASSETS_VECTOR_MAX_ENTRIES", "2")
    with pytest.raises(VectorRefusedError, match="at most 2 are loaded"):
        fetch(blobs, "c", "x.shp", folder=lambda: tmp_path / "copy", reserve_bytes=0)


def test_a_full_disk_is_said_before_anything_is_copied(blobs: MemoryBlobStore, tmp_path: Path) -> None:
    put(blobs, "x.csv", CSV_TEXT)
    with pytest.raises(DiskFullError, match=r"c/x\.csv needs"):
        copied(blobs, "x.csv", tmp_path, reserve_bytes=1 << 60)
    assert not any((tmp_path / "copy").iterdir())


class _Replaced(MemoryBlobStore):
    """A store in which a part is replaced while it is being read."""

    part = "x.dbf"

    def open_stream(self, container: str, name: str, *, chunk_size: int = 1 << 20) -> Iterator[bytes]:
        yield from super().open_stream(container, name, chunk_size=chunk_size)
        if name == self.part:
            self.put(container, name, self.read(container, name) + b" ")


def test_a_part_replaced_meanwhile_is_noticed(tmp_path: Path) -> None:
    blobs = _Replaced()
    blobs.create_container("c")
    put_folder(blobs, shapefile(tmp_path / "made", "x").parent)
    with pytest.raises(SourceChangedError, match=r"c/x\.dbf was replaced"):
        copied(blobs, "x.shp", tmp_path)
