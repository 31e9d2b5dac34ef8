"""Reconciling: each thing that is broken by hand is seen, counts add up whatever is wrong, and repairs mend it.

The stores, the ledger and Dagster's instance are real; jobs are done without a Dagster run (``tests.reconciling``), but
for one test of whole jobs on real files.
"""

import json
import os
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from geo_assets.assets.reconciliation import build_reconciliation
from geo_assets.containers import buckets
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import source_entries
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.submission import submit
from geo_assets.errors import CatalogUnavailableError, CountsError, LedgerUnavailableError, StoreUnavailableError
from geo_assets.jobs.vector_staging import Staging
from geo_assets.reconcile import Action, Direction, Fate, Line, Reconciliation, reconcile
from geo_assets.settings import Settings
from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.geoparquet import GeoParquetTables
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.postgis import PostgisTables
from geo_assets.stores.static_catalog import StaticCatalog
from geo_assets.unpublish import execute
from tests.jobs.bench import Bench
from tests.reconciling import COGS, House, cog_id, write_item, wrong
from tests.stores.pgstac_database import pgstac_database, pgstac_url
from tests.stores.table_rows import definition, load, points

__all__ = ["pgstac_database", "pgstac_url"]

A, B, C = "bronze/a.tif", "bronze/b.tif", "bronze/c.tif"
LEDGER_STORAGE, STORAGE_LEDGER = "ledger → storage", "storage → ledger"
LEDGER_CATALOG, CATALOG_LEDGER = "ledger → catalog", "catalog → ledger"
LEDGER_TABLES, TABLES_LEDGER = "ledger → tables", "tables → ledger"
CATALOG_STORAGE, CATALOG_TABLES = "catalog → storage", "catalog → tables"
LEDGER_DAGSTER, DAGSTER_LEDGER = "ledger → Dagster", "Dagster → ledger"


def local_house(home: Path) -> House:
    """An empty one on files."""
    settings = Settings(home=home)
    stores = {
        "blobs": LocalBlobStore(settings.blob_root_path),
        "catalog": StaticCatalog(settings.catalog_path),
        "tables": GeoParquetTables(settings.tables_path),
    }
    return House(settings, stores, Ledger(settings.ledger_sqlalchemy_url, patience_seconds=20))


def furnished(house: House) -> House:
    """Three COGs, one plain raster, two of a whole container, one table: all agree."""
    for key in (A, B, C, "bronze/places", "plain/p.tif", "bulk/x.tif", "bulk/y.tif"):
        house.put(key)
    for key in (A, B, C):
        submit(house.machine, "make_cog", {"source": key})
    submit(house.machine, "catalog_raster", {"source": "plain/p.tif"})
    submit(house.machine, "catalog_container", {"source": "bulk"})
    house.run("load_table", "bronze/places")
    found = house.reconcile()
    assert wrong(found) == set()
    assert found.agrees
    return house


@pytest.fixture(scope="module")
def furnished_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, House]:
    """A home that is furnished once, and a copy of it to restore it from."""
    home, kept = tmp_path_factory.mktemp("house") / "home", tmp_path_factory.mktemp("kept") / "home"
    made = local_house(home)
    with closing(made):
        furnished(made)
    _copy_whole(home, kept)
    return home, kept, made


def _copy_whole(source: Path, target: Path) -> None:
    """Links, as ETags are of files; a database is written in place."""
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    for path in target.glob("ledger.db*"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)


@pytest.fixture
def house(furnished_home: tuple[Path, Path, House]) -> Iterator[House]:
    """On files, furnished."""
    home, kept, first = furnished_home
    shutil.rmtree(home)
    _copy_whole(kept, home)
    made = local_house(home)
    with closing(made):
        for asset, key in first.shown:
            made.show(asset, key)
        yield made


@pytest.fixture(params=["files", pytest.param("services", marks=pytest.mark.services)])
def every_house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[House]:
    """On files, and on Azurite, pgSTAC, PostGIS and PostgreSQL."""
    if request.param == "files":
        yield request.getfixturevalue("house")
        return
    url = request.getfixturevalue("postgres_url")
    # one Azurite serves all processes of the session
    names: dict[str, Any] = {
        f"{name}_container": f"{name}-{uuid.uuid4().hex}" for name in ("silver", "thumbnail", "staging")
    }
    settings = Settings(home=tmp_path, **names)
    azurite = request.getfixturevalue("azurite")
    stores: dict[str, Any] = {
        "blobs": AzureBlobStore(AzureAccess.of_connection_string(azurite.connection_string), max_retries=1),
        "catalog": PgstacCatalog(request.getfixturevalue("pgstac_url")),
        "tables": PostgisTables(url),
    }
    made = House(settings, stores, Ledger(url, patience_seconds=20))
    with closing(made), closing(stores["catalog"]), closing(stores["tables"]):
        yield furnished(made)


# --- all agree -----------------------------------------------------------------------------------------------------


def test_all_that_jobs_left_is_counted_once(house: House) -> None:
    found = house.reconcile(deep=True)
    assert {line.direction.value: (line.total, line.as_dict()["counts"]) for line in found.lines} == {
        LEDGER_STORAGE: (6, {"present": 6}),
        STORAGE_LEDGER: (8, {"recorded": 6, "by other jobs": 2}),
        LEDGER_TABLES: (1, {"present": 1}),
        TABLES_LEDGER: (1, {"recorded": 1}),
        LEDGER_CATALOG: (5, {"present": 5}),
        CATALOG_LEDGER: (7, {"recorded": 5, "by other jobs": 2}),
        CATALOG_STORAGE: (11, {"present": 11}),
        CATALOG_TABLES: (1, {"present": 1}),
        "sources → ledger": (0, {}),
        "gone sources → ledger": (0, {}),
        LEDGER_DAGSTER: (10, {"shown": 10}),
        DAGSTER_LEDGER: (12, {"recorded": 12}),
    }


def test_real_jobs_on_real_files_agree(tmp_path: Path) -> None:
    sandbox = Sandbox(Settings(task_processes=1))
    try:
        bench = Bench(tmp_path, sandbox)
        bench.put("bronze", "world_byte_4326.tif")
        bench.put("bulk", "alpha_3857.tif")
        jobs = [
            bench.run("process_raster", container_name="bronze", blob_name="world_byte_4326.tif"),
            bench.run("stac_catalog_raster", container_name="bronze", blob_name="world_byte_4326.tif"),
            bench.run("stac_catalog_container", container_name="bulk"),
        ]
        assert {job.status for job in jobs} == {JobStatus.COMPLETED}
        found = reconcile(bench.machine)
        assert wrong(found) == set()
        totals = {line.direction.value: line.total for line in found.lines}
        assert [totals[one] for one in (LEDGER_STORAGE, STORAGE_LEDGER, LEDGER_CATALOG, CATALOG_LEDGER)] == [3, 4, 2, 3]
        assert totals[CATALOG_STORAGE] == 6

        (bench.containers / "thumbnails" / "bronze" / "world_byte_4326.tif.webp").unlink()
        assert len(wrong(reconcile(bench.machine))) == 2
        bench.run("stac_catalog_raster", container_name="bronze", blob_name="world_byte_4326.tif")
        assert reconcile(bench.machine).agrees, "a picture is made anew, though its item is as it was"

        (bench.containers / "silver" / "world_byte_4326_cog.tif").unlink()
        found = reconcile(bench.machine)
        assert wrong(found) == {
            (LEDGER_STORAGE, "missing", "world_byte_4326_cog.tif"),
            (CATALOG_STORAGE, "dangling", "silver~world_byte_4326_cog.tif"),
        }
        (item,) = bench.settings.catalog_path.glob("*/items/silver~*.json")
        item.write_text("{}")
        bench.run("process_raster", container_name="bronze", blob_name="world_byte_4326.tif")
        assert reconcile(bench.machine).agrees, "COG and item are made anew"

        # the validation stays when the COG is taken back
        name = "bronze/world_byte_4326.tif"
        done = bench.ledger.attempts_of_partitions(["cog", "raster_stac_item"], [name])
        bench.ledger.mark_emitted([attempt.attempt_id for attempt in done])
        taken = execute(bench.machine, lambda _asset, _keys: None, "cog", [name], who="jane")
        assert all(one.complete for one in taken)
        seen = {"raster_validation": [name]}
        assert reconcile(bench.machine, shown=lambda asset: seen.get(asset, [])).agrees
    finally:
        sandbox.close(kill=True)


# --- each thing broken ---------------------------------------------------------------------------------------------


def silver(house: House) -> str:
    return house.settings.silver_container


def lose_table(house: House) -> None:
    assert house.tables.drop("geo", "places")


def replace_table(house: House) -> None:
    lose_table(house)
    table = definition("places")
    load(house.tables, table, points(table, 4), job_id=house.ledger.jobs()[0].job_id)


def strange_table(house: House) -> None:
    table = definition("strange")
    load(house.tables, table, points(table, 4), job_id="f" * 64)


def turn_item(house: House) -> None:
    house.catalog.delete_items(COGS, [cog_id("a.tif")])
    write_item(house.services, ("plain", "p.tif"), item_id=cog_id("a.tif"), job_id=None)


def foreign_item(house: House) -> None:
    write_item(house.services, ("plain", "p.tif"), item_id="strange", job_id="f" * 64)


def wipe(house: House) -> None:
    for asset in ("cog", "raster_stac_item"):
        unmaterialize(house.instance, asset=asset, partition_keys=[A], who="jane")


BREAKS: Mapping[str, tuple[Callable[[House], Any], set[tuple[str, str, str]]]] = {
    "a COG is deleted": (
        lambda house: house.blobs.delete(silver(house), "a.tif_cog"),
        {(LEDGER_STORAGE, "missing", "a.tif_cog"), (CATALOG_STORAGE, "dangling", cog_id("a.tif"))},
    ),
    "a COG is overwritten": (
        lambda house: house.blobs.put(silver(house), "a.tif_cog", b"other"),
        {(LEDGER_STORAGE, "changed", "a.tif_cog")},
    ),
    "a picture of a bulk job is deleted": (
        lambda house: house.blobs.delete(house.settings.thumbnail_container, "bulk/x.tif.webp"),
        {(CATALOG_STORAGE, "dangling", "bulk~x.tif")},
    ),
    "an item is deleted": (
        lambda house: house.catalog.delete_items(COGS, [cog_id("a.tif")]),
        {(LEDGER_CATALOG, "missing", cog_id("a.tif"))},
    ),
    "an item of a bulk job is deleted": (
        lambda house: house.catalog.delete_items(COGS, ["bulk~x.tif"]),
        {(STORAGE_LEDGER, "unknown", "bulk/x.tif.webp"), (DAGSTER_LEDGER, "unknown", "bulk/x.tif")},
    ),
    "an item describes something else": (turn_item, {(LEDGER_CATALOG, "changed", cog_id("a.tif"))}),
    "a foreign blob": (lambda house: house.put(f"{silver(house)}/strange"), {(STORAGE_LEDGER, "unknown", "strange")}),
    "a foreign blob that no store opens": (
        lambda house: (house.settings.blob_root_path / silver(house) / "a\nb").touch(),
        {(STORAGE_LEDGER, "unknown", r"a\nb")},
    ),
    "a foreign blob in the staging": (
        lambda house: house.put(f"{house.settings.staging_container}/strange"),
        {(STORAGE_LEDGER, "unknown", "strange")},
    ),
    "a foreign item": (foreign_item, {(CATALOG_LEDGER, "unknown", "strange")}),
    "a foreign table": (strange_table, {(TABLES_LEDGER, "unknown", "strange")}),
    "a table is dropped": (
        lose_table,
        {(LEDGER_TABLES, "missing", "places"), (CATALOG_TABLES, "dangling", "table~places")},
    ),
    "a table is loaded again": (replace_table, {(LEDGER_TABLES, "changed", "places")}),
    "partitions are wiped": (wipe, {(LEDGER_DAGSTER, "not shown", A)}),
    "a partition is shown for nothing": (
        lambda house: house.show("cog", "bronze/never.tif"),
        {(DAGSTER_LEDGER, "unknown", "bronze/never.tif")},
    ),
    "a described blob is deleted": (
        lambda house: house.blobs.delete("bulk", "x.tif"),
        {(CATALOG_STORAGE, "dangling", "bulk~x.tif")},
    ),
    "a source is deleted": (lambda house: house.blobs.delete("bronze", "a.tif"), set()),
}


@pytest.mark.parametrize("name", BREAKS)
def test_what_is_broken_is_seen_and_nothing_else(house: House, name: str) -> None:
    break_it, expected = BREAKS[name]
    break_it(house)
    found = house.reconcile()
    assert wrong(found) == expected
    assert found.agrees == (not expected)


def test_items_whose_files_are_damaged_are_findings_and_written_anew(house: House) -> None:
    items = house.settings.catalog_path / COGS / "items"
    for name, content in ((cog_id("a.tif"), '{"hello": 1}'), (cog_id("b.tif"), "cut o"), ("bulk~x.tif", "[]")):
        (items / f"{name}.json").unlink()  # what is restored is the same file
        (items / f"{name}.json").write_text(content)
    (items / "no item.json").mkdir()
    (items / "backup").mkdir()
    found = house.reconcile()
    assert not found.unknown
    assert wrong(found) == {
        (LEDGER_CATALOG, "changed", cog_id("a.tif")),
        (LEDGER_CATALOG, "changed", cog_id("b.tif")),
        (CATALOG_LEDGER, "unknown", "bulk~x.tif"),
        (CATALOG_LEDGER, "unknown", "no item"),
        (STORAGE_LEDGER, "unknown", "bulk/x.tif.webp"),
        (DAGSTER_LEDGER, "unknown", "bulk/x.tif"),
    }
    (items / "no item.json").rmdir()
    assert all(f"{one.name}.json" in one.reason for one in found.findings if one.fate is Fate.CHANGED)
    assert Counter(one.outcome for one in house.repair(found)) == {"queued": 2, "left": 4}
    submit(house.machine, "catalog_container", {"source": "bulk"}, force=True)
    house.work()
    assert house.reconcile().agrees


def test_a_collection_that_is_lost_is_made_anew_of_its_items(house: House) -> None:
    (house.settings.catalog_path / COGS / "collection.json").unlink()
    found = house.reconcile(what=["catalog"])
    names = {*map(cog_id, ("a.tif", "b.tif", "c.tif")), "plain~p.tif"}
    assert wrong(found) == {(LEDGER_CATALOG, "missing", name) for name in names}
    assert {one.outcome for one in house.repair(found)} == {"queued"}
    house.work()
    assert house.reconcile().agrees


def test_rows_that_were_added_are_seen_by_a_deep_look(house: House) -> None:
    folder = next((house.settings.tables_path / "geo" / ".versions").glob("places.*"))
    part = next(folder.glob("*.parquet"))
    (folder / f"x{part.name}").write_bytes(part.read_bytes())
    assert wrong(house.reconcile()) == set()
    assert wrong(house.reconcile(deep=True)) == {(LEDGER_TABLES, "changed", "places")}


def test_half_a_job_is_left_behind(house: House) -> None:
    house.put("bronze/d.tif")
    house.ledger.claim([f"{silver(house)}/d.tif_cog"], asset="cog", partition_key="bronze/d.tif")
    house.run("make_cog", "bronze/d.tif", ends=JobStatus.FAILED, record=False)
    found = house.reconcile()
    assert wrong(found) == set(), "its item explains COG and picture"
    house.catalog.delete_items(COGS, [cog_id("d.tif")])
    found = house.reconcile()
    assert wrong(found) == {
        (STORAGE_LEDGER, "left behind", "d.tif_cog"),
        (STORAGE_LEDGER, "unknown", "silver/d.tif.webp"),
    }
    assert {(one.outcome, one.finding.partition_key) for one in house.repair(found)} == {
        ("queued", "bronze/d.tif"),
        ("left", None),
    }
    house.work()
    assert wrong(house.reconcile()) == set()


def test_parts_of_a_load_that_broke_off_are_swept_when_they_are_old(house: House) -> None:
    job_id = "e" * 64
    staging = Staging.new(house.services, job_id)
    staging.put_manifest({"tables": []})
    (line,) = [line for line in house.reconcile().lines if line.direction is Direction.STORAGE_LEDGER]
    assert line.counts[Fate.WAITING] == 1
    old = time.time() - 25 * 3600
    for path in (house.settings.blob_root_path / house.settings.staging_container).rglob("manifest.json"):
        os.utime(path, (old, old))
    found = house.reconcile()
    assert wrong(found) == {(STORAGE_LEDGER, "left behind", f"{staging.prefix}/")}
    assert [one.outcome for one in house.repair(found)] == ["swept"]
    assert house.reconcile().agrees


# --- what is at work -----------------------------------------------------------------------------------------------


def test_what_is_at_work_is_not_wrong(house: House) -> None:
    house.put("bronze/d.tif")
    submit(house.machine, "make_cog", {"source": A}, force=True)
    submit(house.machine, "make_cog", {"source": "bronze/d.tif"})
    house.claim()
    house.blobs.delete(silver(house), "a.tif_cog")
    house.blobs.delete(house.settings.thumbnail_container, "silver/a.tif.webp")
    house.catalog.delete_items(COGS, [cog_id("a.tif")])
    house.put(f"{silver(house)}/d.tif_cog")
    wipe(house)
    found = house.reconcile()
    assert wrong(found) == set()
    at_work = {line.direction.value: line.counts[Fate.AT_WORK] for line in found.lines if line.counts[Fate.AT_WORK]}
    assert at_work == {LEDGER_STORAGE: 2, STORAGE_LEDGER: 1, LEDGER_CATALOG: 1, LEDGER_DAGSTER: 2}


def test_what_jobs_do_meanwhile_is_not_wrong(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A COG is replaced, one is made, one is taken back, between the reading of the ledger and the rest."""
    house.put("bronze/d.tif")
    listing = house.catalog.list_collections

    def busy() -> list[str]:
        monkeypatch.setattr(house.catalog, "list_collections", listing)
        house.run("make_cog", A)
        house.run("make_cog", "bronze/d.tif")
        house.run("load_table", "bronze/places")
        (attempt,) = house.ledger.attempts_of_partitions(["cog"], [B])
        house.blobs.delete(silver(house), "b.tif_cog")
        audits = house.ledger.audit("unpublish", who="jane", asset="cog", inventories={B: []})
        house.ledger.audit_ended(audits[B], inventory=[], withdraw=[attempt.attempt_id])
        names: list[str] = listing()
        return names

    monkeypatch.setattr(house.catalog, "list_collections", busy)
    found = house.reconcile()
    # but for the item that now points into nothing, as its COG alone was taken back
    assert wrong(found) <= {(CATALOG_STORAGE, "dangling", cog_id("b.tif"))}


def test_what_a_later_job_replaced_is_not_missed(house: House) -> None:
    house.run("make_cog", A)
    house.run("make_cog", A)
    found = house.reconcile()
    assert found.agrees
    (line,) = [line for line in found.lines if line.direction is Direction.LEDGER_STORAGE]
    assert (line.total, dict(line.counts)) == (6, {Fate.PRESENT: 6})


def test_what_is_gone_with_its_source_is_not_wrong(house: House) -> None:
    """As when a job of a whole container prunes what vanished."""
    house.blobs.delete("plain", "p.tif")
    house.catalog.delete_items(COGS, ["plain~p.tif"])
    unmaterialize(house.instance, asset="raster_stac_item", partition_keys=["plain/p.tif"], who="prune")
    found = house.reconcile()
    assert wrong(found) == set()
    ended = {line.direction.value for line in found.lines if line.counts[Fate.ENDED]}
    assert ended == {LEDGER_CATALOG, LEDGER_DAGSTER}


# --- stores that are away ------------------------------------------------------------------------------------------


def test_a_catalog_that_is_away_leaves_the_rest(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise CatalogUnavailableError("pgSTAC is away; postgresql://me:hunter2@db/x")

    house.blobs.delete(silver(house), "a.tif_cog")
    monkeypatch.setattr(house.catalog, "list_collections", away)
    found = house.reconcile()
    assert not found.agrees
    assert {line.direction.value for line in found.unknown} == {
        LEDGER_CATALOG, CATALOG_LEDGER, CATALOG_STORAGE, CATALOG_TABLES
    }  # fmt: skip
    assert "hunter2" not in json.dumps(found.as_dict())
    assert wrong(found) == {(LEDGER_STORAGE, "missing", "a.tif_cog")}
    (line,) = [line for line in found.lines if line.direction is Direction.STORAGE_LEDGER]
    assert line.counts[Fate.NOT_JUDGED] == 2, "pictures that only items explain"


@pytest.mark.parametrize("method", ["list_blobs", "head"])
def test_a_storage_that_is_away_leaves_the_rest(house: House, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def away(*_: object) -> Any:
        raise StoreUnavailableError("away")

    house.blobs.delete(silver(house), "a.tif_cog")
    house.catalog.delete_items(COGS, [cog_id("b.tif")])
    monkeypatch.setattr(house.blobs, method, away)
    found = house.reconcile()
    assert LEDGER_STORAGE in {line.direction.value for line in found.unknown}
    assert (LEDGER_CATALOG, "missing", cog_id("b.tif")) in wrong(found)


def test_dagster_that_cannot_be_asked_leaves_the_rest(house: House) -> None:
    def away(_: str) -> set[str]:
        raise RuntimeError("no database")

    found = reconcile(house.machine, shown=away)
    assert {line.direction.value for line in found.unknown} == {LEDGER_DAGSTER, DAGSTER_LEDGER}
    assert found.wrong == 0


# --- repairs -------------------------------------------------------------------------------------------------------


def test_repairs_mend_what_is_ours_and_leave_what_is_not(every_house: House) -> None:
    house = every_house
    house.blobs.delete(silver(house), "a.tif_cog")
    house.blobs.put(silver(house), "b.tif_cog", b"other")
    house.catalog.delete_items(COGS, [cog_id("c.tif")])
    house.put("plain/other")
    house.blobs.delete("plain", "p.tif")
    house.blobs.delete("bulk", "y.tif")
    lose_table(house)
    unmaterialize(house.instance, asset="raster_stac_item", partition_keys=[C], who="jane")
    unmaterialize(house.instance, asset="vector_table", partition_keys=["bronze/places"], who="jane")
    house.put(f"{silver(house)}/strange")
    foreign_item(house)
    foreign = {(STORAGE_LEDGER, "unknown", "strange"), (CATALOG_LEDGER, "unknown", "strange")}
    found = house.reconcile()
    assert wrong(found) == {
        (LEDGER_STORAGE, "missing", "a.tif_cog"),
        (CATALOG_STORAGE, "dangling", cog_id("a.tif")),
        (LEDGER_STORAGE, "changed", "b.tif_cog"),
        (LEDGER_CATALOG, "missing", cog_id("c.tif")),
        (CATALOG_STORAGE, "dangling", "plain~p.tif"),
        (CATALOG_STORAGE, "dangling", "strange"),
        (CATALOG_STORAGE, "dangling", "bulk~y.tif"),
        (LEDGER_TABLES, "missing", "places"),
        (CATALOG_TABLES, "dangling", "table~places"),
        (LEDGER_DAGSTER, "not shown", C),
        (LEDGER_DAGSTER, "not shown", "bronze/places"),
        *foreign,
    }

    planned = house.repair(found, execute=False)
    assert {one.outcome for one in planned} == {"planned", "left"}
    assert house.ledger.audits() == []
    assert wrong(house.reconcile()) == wrong(found), "planning changes nothing"

    mended = house.repair(found)
    by_outcome = {outcome: {one.finding.name for one in mended if one.outcome == outcome} for outcome in
                  {one.outcome for one in mended}}  # fmt: skip
    assert by_outcome == {
        "queued": {"a.tif_cog", cog_id("a.tif"), "b.tif_cog", cog_id("c.tif"), "places", "table~places"},
        "removed": {"plain~p.tif", "bulk~y.tif"},
        "shown": {C, "bronze/places"},
        "left": {"strange"},
    }
    audits = house.ledger.audits(limit=None)
    assert {(row.action, row.who, row.complete) for row in audits} == {("reconcile", "jane", True)}
    assert sum(len(row.inventory) for row in audits) == 10
    assert all(one.withdrawn_at is None for one in house.ledger.attempts_of_partitions(["cog"], [A, B, C]))

    while_queued = house.reconcile()
    assert {one.outcome for one in house.repair(while_queued)} <= {"left"}, "a second repair has nothing to do"
    house.work()
    assert wrong(house.reconcile()) == {*foreign, (CATALOG_STORAGE, "dangling", "strange")}


def test_a_repair_that_was_killed_is_finished_by_the_next(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.blobs.delete(silver(house), "a.tif_cog")
    house.blobs.delete("bulk", "y.tif")
    found = house.reconcile()

    def killed(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geo_assets.reconciliation.repairing.retry_jobs", killed)
        with pytest.raises(KeyboardInterrupt):
            house.repair(found)
    assert {row.complete for row in house.ledger.audits()} == {False, True}
    assert house.catalog.get_item(COGS, "bulk~y.tif") is None
    again = house.repair(house.reconcile())
    assert {(one.finding.name, one.outcome) for one in again if one.outcome != "left"} == {
        ("a.tif_cog", "queued"),
        (cog_id("a.tif"), "queued"),
    }
    # the very same findings once more: nothing is done twice
    assert {one.outcome for one in house.repair(found)} == {"waits already", "removed"}
    house.work()
    assert house.reconcile().agrees


def test_what_has_lost_its_source_is_for_people(house: House) -> None:
    house.blobs.delete(silver(house), "a.tif_cog")
    house.blobs.delete("bronze", "a.tif")
    found = house.reconcile()
    by_direction = {one.direction.value: one for one in found.findings}
    assert by_direction[LEDGER_STORAGE].action is None
    assert "geo-assets unpublish cog bronze/a.tif" in by_direction[LEDGER_STORAGE].mend
    # its item points into nothing, and there is nothing to make it of
    house.repair(found)
    assert house.catalog.get_item(COGS, cog_id("a.tif")) is None


def test_items_stay_where_a_whole_container_is_away(house: House) -> None:
    root = house.settings.blob_root_path
    for name in ("bulk", "plain"):
        (root / name).rename(root / f"{name}-elsewhere")
    lost = {(CATALOG_STORAGE, "dangling", name) for name in ("bulk~x.tif", "bulk~y.tif", "plain~p.tif")}
    found = house.reconcile()
    assert wrong(found) == lost
    assert {one.outcome for one in house.repair(found)} == {"left"}
    # where a disk is not mounted, its folder is there and empty; all COGs are away as well, and one source is gone
    for name in ("bulk", "plain"):
        (root / name).mkdir()
    shutil.rmtree(root / silver(house))
    house.blobs.delete("bronze", "a.tif")
    found = house.reconcile(what=["catalog"])
    assert wrong(found) == lost | {(CATALOG_STORAGE, "dangling", cog_id(name)) for name in ("a.tif", "b.tif", "c.tif")}
    away = lost | {(CATALOG_STORAGE, "dangling", cog_id("a.tif"))}
    assert {one.name for one in found.findings if "is that disk mounted?" in one.mend} == {name for _, _, name in away}
    assert Counter(one.outcome for one in house.repair(found)) == {"left": 4, "queued": 2}
    assert all(house.catalog.get_item(COGS, name) for _, _, name in away)


def test_items_of_tables_stay_where_all_tables_are_away(house: House) -> None:
    strange_table(house)
    lose_table(house)
    house.blobs.delete("bronze", "places")
    (finding,) = house.reconcile(what=["catalog"]).findings
    assert (finding.name, finding.action) == ("table~places", Action.REMOVE_ITEM)
    shutil.rmtree(house.settings.tables_path)
    house.settings.tables_path.mkdir()
    (finding,) = house.reconcile(what=["catalog"]).findings
    assert (finding.name, finding.action) == ("table~places", None)
    assert "is that disk mounted?" in finding.mend


# --- sources -------------------------------------------------------------------------------------------------------


def test_sources_are_compared_with_their_jobs(house: House) -> None:
    version = house.blobs.head("bronze", "a.tif").etag
    now = datetime.now(UTC) - timedelta(minutes=1)
    rows = [
        ("with", "queued", A, version),
        ("without", "queued", "bronze/never.tif", '"1"'),
        ("other version", "queued", B, '"0"'),
        ("waiting", "waiting", None, None),
        ("gone and standing", "gone", C, '"1"'),
        ("gone for good", "gone", "bronze/never.tif", '"1"'),
    ]
    values = [
        {"source": "s", "entry": str(number), "name": name, "version": submitted, "size": 1, "state": state,
         "asset": None if key is None else "cog", "partition_key": key, "submitted_version": submitted,
         "seen_at": now, "submitted_at": now, "sequence": number}
        for number, (name, state, key, submitted) in enumerate(rows)
    ]  # fmt: skip
    house.ledger.write(lambda c: c.execute(source_entries.insert(), values))
    found = house.reconcile(what=["sources"])
    assert {line.direction.value: line.as_dict()["counts"] for line in found.lines} == {
        "sources → ledger": {"with a job": 1, "without a job": 2},
        "gone sources → ledger": {"results stand": 1, "nothing left": 1},
    }
    assert {name for _, _, name in wrong(found)} == {"without", "other version"}


# --- many things ---------------------------------------------------------------------------------------------------


def test_what_lies_in_files_is_compared_alike(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    wipe(house)
    house.blobs.delete(silver(house), "a.tif_cog")
    house.put(f"{silver(house)}/strange")
    in_memory = house.reconcile()
    monkeypatch.setattr(buckets, "_IN_MEMORY", 2)
    spilled = house.reconcile()
    assert wrong(spilled) == wrong(in_memory)
    assert [line.as_dict() for line in spilled.lines] == [line.as_dict() for line in in_memory.lines]


def test_more_findings_than_are_kept_are_counted(house: House) -> None:
    for number in range(5):
        house.put(f"{silver(house)}/strange{number}")
    found = house.reconcile(keep=2)
    assert (len(found.findings), found.wrong, dict(found.not_shown)) == (2, 5, {"storage → ledger: unknown": 3})
    assert found.left_to_mend == 0, "what is foreign is never mended"
    for name in ("b.tif_cog", "c.tif_cog"):
        house.blobs.delete(silver(house), name)
    assert house.reconcile(keep=1).left_to_mend == 2, "one of the COGs, and one of the items that point at them"


def test_counts_that_do_not_add_up_are_a_bug() -> None:
    line = Line(direction=Direction.LEDGER_STORAGE, total=2)
    line.counts[Fate.PRESENT] = 1
    found = Reconciliation(started_at=datetime.now(UTC), seconds=0, lines=(line,), findings=())
    with pytest.raises(CountsError, match="ledger → storage"):
        found.require_sums()


def test_without_the_ledger_there_is_nothing_to_compare_with(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Any:
        raise LedgerUnavailableError("away")

    house.put(f"{silver(house)}/strange")
    monkeypatch.setattr("geo_assets.reconciliation.recorded.claimed_names", away)
    with pytest.raises(LedgerUnavailableError):
        house.reconcile()


# --- any breakage --------------------------------------------------------------------------------------------------


@contextmanager
def aside(root: Path, path: Path, *, instead: bytes | None = None) -> Iterator[None]:
    """A file is away, or another is in its place, for a while."""
    kept = root.parent / f"aside-{path.name}"
    path.rename(kept)
    if instead is not None:
        path.write_bytes(instead)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        kept.rename(path)


Damage = Mapping[str, tuple[str, str, str]]


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    damages=st.fixed_dictionaries(
        {
            name: st.tuples(
                st.sampled_from(["whole", "lost", "changed"]),
                st.sampled_from(["whole", "lost"]),
                st.sampled_from(["whole", "lost", "changed"]),
            )
            for name in ("a.tif", "b.tif", "c.tif")
        }
    ),
    strange=st.sets(st.sampled_from(["s1", "s2/t", "s3"])),
)
def test_any_breakage_is_found_and_counts_always_add_up(house: House, damages: Damage, strange: Sequence[str]) -> None:
    root, expected = house.settings.blob_root_path, set[tuple[str, str, str]]()
    with ExitStack() as stack:
        for name, (cog, picture, stac) in damages.items():
            expected |= damage(stack, house, root, name, cog, picture, stac)
        for name in strange:
            house.put(f"silver/{name}")
            stack.callback(house.blobs.delete, "silver", name)
            expected.add((STORAGE_LEDGER, "unknown", name))
        assert wrong(house.reconcile(what=["storage", "catalog"])) == expected
    assert house.reconcile().agrees


def damage(
    stack: ExitStack, house: House, root: Path, name: str, cog: str, picture: str, stac: str
) -> set[tuple[str, str, str]]:
    """Break the things of one partition; returns what must be found."""
    expected: set[tuple[str, str, str]] = set()
    pointing = stac == "whole"
    if cog != "whole":
        stack.enter_context(aside(root, root / "silver" / f"{name}_cog", instead=None if cog == "lost" else b"other"))
        expected.add((LEDGER_STORAGE, "missing" if cog == "lost" else "changed", f"{name}_cog"))
        if cog == "lost" and pointing:
            expected.add((CATALOG_STORAGE, "dangling", cog_id(name)))
    if picture == "lost":
        stack.enter_context(aside(root, root / "thumbnails" / "silver" / f"{name}.webp"))
        expected.add((LEDGER_STORAGE, "missing", f"silver/{name}.webp"))
        if pointing:
            expected.add((CATALOG_STORAGE, "dangling", cog_id(name)))
    if stac != "whole":
        path = house.settings.catalog_path / COGS / "items" / f"{cog_id(name)}.json"
        document = json.loads(path.read_bytes())
        document["properties"]["geo_assets:blob"] = "something else"
        document["assets"] = {}
        changed = json.dumps(document).encode()
        stack.enter_context(aside(root, path, instead=None if stac == "lost" else changed))
        expected.add((LEDGER_CATALOG, "missing" if stac == "lost" else "changed", cog_id(name)))
    return expected


# --- Dagster -------------------------------------------------------------------------------------------------------


def test_the_asset_shows_the_counts_warns_and_repairs(house: House) -> None:
    defs = build_reconciliation(house.settings, house.machine.registry)
    (asset,) = [one for one in defs.assets or () if isinstance(one, dg.AssetsDefinition)]
    resources = {MACHINE: SimpleNamespace(machine=lambda: house.machine)}

    def run(**config: Any) -> tuple[Any, Any]:
        done = dg.materialize(
            [asset],
            instance=house.instance,
            resources=resources,
            run_config={"ops": {"reconciliation": {"config": config}}},
        )
        (check,) = done.get_asset_check_evaluations()
        (shown,) = done.asset_materializations_for_node("reconciliation")
        return check, shown.metadata

    check, shown = run()
    assert check.passed
    assert "| ledger → storage | 6 | 6 present |" in shown["counts"].value
    house.blobs.delete(silver(house), "a.tif_cog")
    check, shown = run()
    assert (check.passed, check.severity, check.description) == (False, dg.AssetCheckSeverity.WARN, "2 things disagree")
    assert {record.data["repair"] for record in shown["findings"].records} == {"planned"}
    assert "[job reconcile](/guess/reconcile)" in shown["geo/what_to_do"].value  # /jobs/… is the list of all jobs
    assert shown["geo/left_for_the_next_repair"].value == 0
    check, shown = run(repair=True, only=["storage"])
    assert {record.data["repair"] for record in shown["findings"].records} == {"queued"}
    assert house.ledger.audits()[0].who.startswith("run ")
    with pytest.raises(dg.Failure, match="no part of a reconciliation: nowhere"):
        run(only=["nowhere"])
