"""What only the static catalog can do or suffer: files, the mirror, writers that die, and pystac as a reader.

What belongs here: the folder's layout and its faults.  What does not: what every catalog promises
(``test_catalog_contract``).
"""

import json
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import geopandas
import pystac
import pytest

from geo_assets.errors import CatalogError, CatalogUnavailableError, DamagedItemError
from geo_assets.settings import Settings
from geo_assets.stores import static_catalog
from geo_assets.stores.catalog import DamagedItem, ItemReferences, ItemStatus, open_catalog_store
from geo_assets.stores.static_catalog import StaticCatalog
from tests.stores.catalog_items import COLLECTION, item


@pytest.fixture
def catalog(tmp_path: Path) -> StaticCatalog:
    """An empty catalog."""
    return StaticCatalog(tmp_path / "catalog")


def test_it_is_the_default(tmp_path: Path) -> None:
    store = open_catalog_store(Settings(home=tmp_path))
    assert isinstance(store, StaticCatalog)
    assert store.root == tmp_path / "catalog"


def test_a_catalog_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CatalogError, match=r"file/catalog cannot be written to .Not a directory.: see to its disk"):
        StaticCatalog(tmp_path / "file" / "catalog").upsert_items(COLLECTION, [item("a.tif")])


def test_pystac_reads_everything(catalog: StaticCatalog) -> None:
    written = [item(f"{number}.tif") for number in range(3)]
    catalog.upsert_items(COLLECTION, written)
    catalog.upsert_items("vectors", [item("odd", id="a/b c?#.~")])
    read = pystac.Catalog.from_file(str(catalog.root / "catalog.json"))
    assert {child.id for child in read.get_children()} == {COLLECTION, "vectors"}
    items = {entry.id: entry for entry in read.get_items(recursive=True)}
    assert set(items) == {*(entry["id"] for entry in written), "a/b c?#.~"}
    for collection in read.get_collections():
        collection.validate()
    for entry in items.values():
        entry.validate()
        parent, root = entry.get_parent(), entry.get_root()
        assert parent is not None
        assert parent.id == entry.collection_id
        assert root is not None
        assert root.id == "geo-assets"


def test_the_mirror_holds_the_same_items(catalog: StaticCatalog) -> None:
    mixed = [item("1.tif"), item("2.tif"), item("3.tif")]
    mixed[1]["assets"]["data"]["bands"][0]["nodata"] = 0
    del mixed[2]["assets"]["data"]["bands"]
    catalog.upsert_items(COLLECTION, mixed)
    frame = geopandas.read_parquet(catalog.root / COLLECTION / "items.parquet")
    assert sorted(frame["id"]) == [entry["id"] for entry in mixed]
    assert frame.crs.is_geographic
    assert list(frame.geometry.iloc[0].bounds) == mixed[0]["bbox"]
    catalog.delete_items(COLLECTION, [entry["id"] for entry in mixed])
    assert not (catalog.root / COLLECTION / "items.parquet").exists()
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert "assets" not in collection


def test_items_no_table_can_hold_cost_the_mirror_only(catalog: StaticCatalog, caplog: pytest.LogCaptureFixture) -> None:
    catalog.upsert_items(COLLECTION, [item("1.tif", mixed="text")])
    assert (catalog.root / COLLECTION / "items.parquet").exists()
    with caplog.at_level(logging.WARNING):
        [outcome] = catalog.upsert_items(COLLECTION, [item("2.tif", mixed={"an": "object"})])
    assert outcome.status is ItemStatus.CREATED
    assert "mirror" in caplog.text
    assert not (catalog.root / COLLECTION / "items.parquet").exists()
    read = pystac.Collection.from_file(str(catalog.root / COLLECTION / "collection.json"))
    assert len(list(read.get_items())) == 2


def test_a_large_collection_is_mirrored_in_parts_that_need_not_be_alike(
    catalog: StaticCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(static_catalog, "_IN_MEMORY", 3)
    parted = [item(f"{number}.tif") for number in range(8)]
    for entry in parted[3:]:
        entry["assets"]["thumbnail"] = {"href": "https://example.org/t.webp", "roles": ["thumbnail"], "file:size": 3}
    for entry in parted[6:]:
        entry["properties"] |= {"gsd": 5, "eo:cloud_cover": 0.5}
        del entry["assets"]["data"]["bands"]
    catalog.upsert_items(COLLECTION, parted)
    frame = geopandas.read_parquet(catalog.root / COLLECTION / "items.parquet").set_index("id")
    assert sorted(frame.index) == [entry["id"] for entry in parted]
    first, last = frame.loc[parted[0]["id"]], frame.loc[parted[7]["id"]]
    assert (first["gsd"], last["gsd"], last["eo:cloud_cover"]) == (10.5, 5.0, 0.5)
    assert (first["assets"]["thumbnail"], last["assets"]["thumbnail"]["file:size"]) == (None, 3)
    assert first["assets"]["data"]["bands"][0]["statistics"]["maximum"] == 1e20


def test_an_unchanged_batch_touches_no_file(catalog: StaticCatalog) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    before = {path: path.stat().st_mtime_ns for path in catalog.root.rglob("*.*") if path.is_file()}
    catalog.upsert_items(COLLECTION, [item()])
    after = {path: path.stat().st_mtime_ns for path in catalog.root.rglob("*.*") if path.is_file()}
    assert after == before


def test_a_single_write_reads_no_more_in_a_large_collection(
    catalog: StaticCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: list[Path] = []
    read, write, listed = catalog._read, catalog._write, catalog._item_files

    def watched_read(path: Path) -> dict[str, Any] | None:
        touched.append(path)
        return read(path)

    def watched_write(path: Path, document: Any) -> None:
        touched.append(path)
        write(path, document)

    def watched_files(collection_id: str) -> list[Path]:
        touched.extend(found := listed(collection_id))
        return found

    monkeypatch.setattr(catalog, "_read", watched_read)
    monkeypatch.setattr(catalog, "_write", watched_write)
    monkeypatch.setattr(catalog, "_item_files", watched_files)
    catalog.upsert_items(COLLECTION, [item(f"{number}.tif") for number in range(50)])
    touched.clear()
    catalog.upsert_items(COLLECTION, [item("another.tif")], refresh=False)
    assert [path.name for path in touched] == ["bronze~another.tif.json"] * 2


def _write_and_die(root: Path, survivors: int) -> None:
    """Write item files until ``survivors`` are there, then be killed in the middle of the batch."""
    catalog = StaticCatalog(root)
    plain_write, written = catalog._write, 0

    def write(path: Path, document: Any) -> None:
        nonlocal written
        plain_write(path, document)
        if path.parent.name == "items":
            written += 1
            if written == survivors:
                os.kill(os.getpid(), signal.SIGKILL)

    catalog._write = write  # type: ignore[method-assign]
    catalog.upsert_items(COLLECTION, [item(f"{number}.tif", bbox=[number, 0, number + 1, 1]) for number in range(5)])


@pytest.mark.parametrize("survivors", [1, 5])
def test_a_writer_killed_half_way_is_put_right_by_the_next(catalog: StaticCatalog, survivors: int) -> None:
    catalog.upsert_items(COLLECTION, [item("first.tif", bbox=[100, 0, 101, 1])])
    process = multiprocessing.get_context("spawn").Process(target=_write_and_die, args=(catalog.root, survivors))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    # what a reader sees is still whole
    seen = pystac.Catalog.from_file(str(catalog.root / "catalog.json"))
    assert len(list(seen.get_items(recursive=True))) == 1
    outcomes = catalog.upsert_items(
        COLLECTION, [item(f"{number}.tif", bbox=[number, 0, number + 1, 1]) for number in range(5)]
    )
    assert [outcome.status for outcome in outcomes].count(ItemStatus.UNCHANGED) == survivors
    collection = catalog.get_collection(COLLECTION)
    assert collection is not None
    assert collection["extent"]["spatial"]["bbox"] == [[0.0, 0.0, 101.0, 1.0]]
    assert len(list(pystac.Catalog.from_file(str(catalog.root / "catalog.json")).get_items(recursive=True))) == 6
    assert len(geopandas.read_parquet(catalog.root / COLLECTION / "items.parquet")) == 6


def test_a_failed_write_leaves_no_temporary_file(catalog: StaticCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.upsert_items(COLLECTION, [item()])

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CatalogError, match="No space"):
        catalog.upsert_items(COLLECTION, [item("b.tif")])
    monkeypatch.undo()
    assert [path.name for path in (catalog.root / COLLECTION / "items").iterdir()] == ["bronze~a.tif.json"]


def test_a_damaged_file_is_named(catalog: StaticCatalog) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    path = catalog.root / COLLECTION / "items" / "bronze~a.tif.json"
    path.write_text("{")
    with pytest.raises(CatalogError, match=r"bronze~a\.tif\.json .* is damaged"):
        catalog.get_item(COLLECTION, item()["id"])
    path.write_text("[]")
    with pytest.raises(CatalogError, match="no JSON object"):
        catalog.get_item(COLLECTION, item()["id"])


def test_what_is_no_file_of_an_item_costs_nothing_else(catalog: StaticCatalog) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    items = catalog.root / COLLECTION / "items"
    (items / "folder.json").mkdir()
    (items / "loop.json").symlink_to("loop.json")
    (items / "latin-\udcfc.json").write_bytes(b"")
    (items / "backup").mkdir()
    (items / "notes.txt").write_bytes(b"")
    found = list(catalog.iter_references(COLLECTION))
    damaged = {one.item_id: one.reason for one in found if isinstance(one, DamagedItem)}
    assert sorted(damaged) == ["folder", r"latin-\xfc", "loop"]
    assert "(Is a directory)" in damaged["folder"]
    assert len(found) == catalog.count_items(COLLECTION) == 4
    [outcome] = catalog.upsert_items(COLLECTION, [item("b.tif")])
    assert outcome.status is ItemStatus.CREATED


def test_a_catalog_that_cannot_be_read_says_so(catalog: StaticCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog.upsert_items(COLLECTION, [item()])

    def fail(_: Path) -> bytes:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(CatalogUnavailableError, match=r"json .* cannot be read .Input/output error.: see to its"):
            list(catalog.iter_references(COLLECTION))
    (catalog.root / COLLECTION / "items").rename(catalog.root / "aside")
    (catalog.root / COLLECTION / "items").write_bytes(b"")
    with pytest.raises(CatalogUnavailableError, match="Not a directory"):
        catalog.count_items(COLLECTION)
    with pytest.raises(CatalogUnavailableError, match="Not a directory"):
        StaticCatalog(catalog.root / COLLECTION / "items").list_collections()


@pytest.mark.parametrize("content", ['{"hello": 1}', "{", "[]", None])
def test_a_damaged_item_is_told_apart_and_written_anew(catalog: StaticCatalog, content: str | None) -> None:
    odd = item("odd", id="a/b c?#.~")
    catalog.upsert_items(COLLECTION, [item(), odd])
    path = catalog.root / COLLECTION / "items" / "a=2Fb=20c=3F=23.~.json"
    # or an item of another name
    path.write_text(content or (path.parent / "bronze~a.tif.json").read_text())
    damaged, whole = catalog.iter_references(COLLECTION)
    assert isinstance(damaged, DamagedItem)
    assert damaged.item_id == odd["id"]
    assert str(path) in damaged.reason
    assert isinstance(whole, ItemReferences)
    with pytest.raises(DamagedItemError, match=r"\.~\.json"):
        list(catalog.iter_items(COLLECTION))
    assert list(catalog.described_blobs(COLLECTION)) == [item()["id"]]
    # the others are written, and linked
    assert catalog.upsert_items(COLLECTION, [item("b.tif")])[0].status is ItemStatus.CREATED
    document = json.loads((catalog.root / COLLECTION / "collection.json").read_text())
    assert len([link for link in document["links"] if link["rel"] == "item"]) == 2
    assert catalog.upsert_items(COLLECTION, [odd])[0].status is ItemStatus.CREATED
    assert catalog.get_item(COLLECTION, odd["id"]) is not None
    assert len(list(catalog.iter_items(COLLECTION))) == 3


@pytest.mark.parametrize("content", ['{"hello": 1}', "{", "[]"])
def test_a_damaged_collection_is_named_and_once_removed_made_anew(catalog: StaticCatalog, content: str) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    document = catalog.root / COLLECTION / "collection.json"
    whole = document.read_text()
    document.write_text(content)
    with pytest.raises(
        CatalogError, match=rf"{COLLECTION}/collection\.json .*: remove it; the next job that writes to"
    ):
        catalog.list_collections()
    document.unlink()
    [outcome] = catalog.upsert_items(COLLECTION, [item()], refresh=False)
    assert outcome.status is ItemStatus.UNCHANGED
    catalog.refresh_collection(COLLECTION)
    assert document.read_text() == whole


def test_links_within_the_catalog_are_relative(catalog: StaticCatalog) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    for path in catalog.root.rglob("*.json"):
        assert all(link["href"].startswith(".") for link in json.loads(path.read_text())["links"]), path
