"""What a report counts, over both catalogs, the ledger, and stores that are away."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import source_entries, source_looks
from geo_assets.errors import LedgerUnavailableError
from geo_assets.report import gather, render
from geo_assets.services import Services
from geo_assets.settings import Settings
from geo_assets.sources.source import Source
from tests.report.items import raster, report_of, table
from tests.stores.pgstac_database import pgstac_database, pgstac_url

__all__ = ["pgstac_database", "pgstac_url"]


@pytest.fixture(params=["static", pytest.param("pgstac", marks=pytest.mark.services)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("pgstac_url") if request.param == "pgstac" else None
    return Settings(home=tmp_path / "home", catalog_url=url)


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    made = Services(settings)
    yield made
    made["catalog"].close()


def test_a_catalog_is_counted(settings: Settings, services: Services) -> None:
    services["blobs"].create_container("bronze")
    catalog = services["catalog"]
    catalog.upsert_items("cogs", [raster("a.tif", size=10), raster("b.tif", size=300, bbox=[-5.0, 1.0, -4.0, 2.0])])
    catalog.upsert_items("vectors", [table("parcels"), table("roads", **{"geo_assets:geometry_types": ["LineString"]})])
    report = gather(settings, services, lambda: None)
    assert report.problems == ()
    assert [(one.id, one.items, one.bytes, one.rows) for one in report.collections] == [
        ("cogs", 2, 310, 0),
        ("vectors", 2, 0, 1000),
    ]
    assert (report.items, report.bytes, report.rows, report.tables, report.containers) == (4, 310, 1000, 2, 1)
    assert report.kinds == {"rgb": 2, "table": 2}
    assert report.geometry_types == {"MultiPolygon": 1, "LineString": 1}
    assert report.media_types == {"image/tiff; application=geotiff": 2, "application/x-postgresql": 2}
    assert report.created == {"2024-01": 4}
    # when a table was loaded says nothing about when its data is from
    assert (report.acquired, report.undated) == ({"2020-01": 2}, 2)
    largest = report.datasets[0]
    assert (largest.id, largest.bytes, largest.day) == ("bronze~b.tif", 300, "2020-01-02")
    assert largest.partition == ("raster_stac_item", "bronze/b.tif")
    assert largest.thumbnail == "https://store.example/thumbnails/a.webp"
    assert ("vector_stac_item", "geo.roads") in {one.partition for one in report.datasets}
    assert report.cells == ()
    assert all(one.rings for one in report.datasets)


def test_very_many_items_are_counted_in_cells_that_add_up() -> None:
    items = [
        raster(f"{n}.tif", size=n, bbox=[lon := n % 300 - 150.0, lat := n % 140 - 70.0, lon + 0.5, lat + 0.5])
        for n in range(3000)
    ]
    items.append({**raster("nowhere.tif"), "geometry": None, "bbox": None})
    report = report_of({"cogs": items}, most_outlines=2500)
    assert report.items == 3001
    assert report.without_place == 1
    assert sum(cell.items for cell in report.cells) == 3000
    assert len(report.datasets) == 2000
    assert {one.bytes for one in report.datasets} == set(range(1000, 3000))
    assert all(
        0 <= cell.column < 360 // report.cell_degrees and 0 <= cell.row < 180 // report.cell_degrees
        for cell in report.cells
    )


def test_cells_grow_where_there_would_be_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.report.gathering.MOST_CELLS", 50)
    items = [
        raster(f"{lon},{lat}", bbox=[float(lon), float(lat), lon + 1.0, lat + 1.0])
        for lon in range(-180, 180, 12)
        for lat in range(-90, 90, 12)
    ]
    report = report_of({"cogs": items}, most_outlines=10)
    assert report.cell_degrees == 30
    assert sum(cell.items for cell in report.cells) == len(items)
    assert (max(cell.column for cell in report.cells), max(cell.row for cell in report.cells)) == (11, 5)


def test_items_of_other_makers_are_counted_as_far_as_they_can_be() -> None:
    odd = [
        {},
        {"id": 7, "properties": None, "assets": None},
        {
            "id": "x",
            "properties": {"datetime": "yesterday", "created": 5},
            "assets": {"a": None, "b": {"file:size": "1"}},
        },
        {"id": "y", "properties": {}, "assets": {"thumbnail": {"href": "javascript:alert(1)"}}},
        {"id": "z", "properties": {}, "assets": {"thumbnail": {"href": "https://me:pw@a.example/b.png?sig=canary"}}},
    ]
    report = report_of({"odd": odd})
    assert (report.items, report.bytes, report.undated, report.without_place) == (5, 0, 5, 5)
    assert report.kinds == {"other": 5}
    assert {one.thumbnail for one in report.datasets} == {None, "https://a.example/b.png"}
    assert "5 items do not say when they were catalogued" in render(report)


def test_values_of_the_wrong_kind_cost_themselves_only() -> None:
    deep: dict[str, Any] = {"type": "Point", "coordinates": [0, 0]}
    for _ in range(3000):
        deep = {"type": "GeometryCollection", "geometries": [deep]}
    parts: list[dict[str, Any]] = [
        {"assets": {"a": {"href": "x", "roles": roles, "file:size": 10**size}}}
        for roles, size in ((5, 1), ([{}], 2), (None, 400))
    ]
    parts += [
        {"assets": 5},
        {"properties": "none"},
        {"geometry": deep},
        *(
            {"properties": {"geo_assets:type": "table", "geo_assets:geometry_types": types, "table:row_count": rows}}
            for types, rows in ((5, 10**400), ("Point", -5), (["Point", {}], "7"))
        ),
    ]
    report = report_of({"odd": [{"id": str(number), **part} for number, part in enumerate(parts)]})
    assert (report.problems, report.items, report.tables) == ((), 9, 3)
    assert (report.bytes, report.rows, report.geometry_types) == (110, 0, {"Point": 1})
    assert "110 bytes" in render(report)


def test_very_many_collections_are_counted_though_not_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.report.gathering._MOST_COLLECTIONS", 3)
    report = report_of({f"c{number}": [raster()] for number in range(10)})
    assert (len(report.collections), report.collection_count, report.items) == (4, 10, 10)
    assert "<dt>collections</dt><dd>10</dd>" in render(report)


def test_a_store_that_is_away_leaves_the_rest(tmp_path: Path) -> None:
    root = tmp_path / "containers"
    root.mkdir()
    settings = Settings(home=tmp_path, blob_root=root, catalog_url="postgresql://me:canary-secret@127.0.0.1:1/stac")

    def away() -> Ledger:
        raise LedgerUnavailableError("the ledger db/geo does not answer")

    report = gather(settings, Services(settings), away)
    assert dict(report.problems).keys() == {"catalog", "jobs"}
    assert "127.0.0.1/stac" in dict(report.problems)["catalog"]
    assert report.containers == 0
    assert "canary-secret" not in repr(report)
    assert str(tmp_path) not in repr(report)


def test_a_damaged_item_costs_itself_only(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    services = Services(settings)
    services["catalog"].upsert_items("cogs", [raster("a.tif"), raster("b.tif"), raster("c.tif")])
    first, second, _ = sorted((tmp_path / "catalog" / "cogs" / "items").iterdir())
    first.write_text("{")
    second.write_text('{"hello": 1}')
    report = gather(settings, services, lambda: None)
    assert report.items == 1
    ((part, why),) = report.problems
    assert part == "an item of cogs"
    assert "is damaged" in why
    assert why.endswith("; so are 1 more")
    assert str(tmp_path) not in why


def test_sources_show_their_entries_their_last_look_and_their_container(tmp_path: Path) -> None:
    watched = Source(name="surveys", container="bronze", workflow="process_raster")
    settings = Settings(home=tmp_path)
    now = datetime(2026, 3, 4, tzinfo=UTC)
    away = f"the container does not exist in the blob folder {settings.blob_root_path}"
    entry = {"source": "surveys", "size": 1, "seen_at": now, "sequence": 1}
    with closing(Ledger(settings.ledger_sqlalchemy_url)) as ledger:

        def fill(c: sa.Connection) -> None:
            c.execute(
                sa.insert(source_entries),
                [{**entry, "entry": str(n), "name": str(n), "state": "waiting" if n else "gone"} for n in range(3)],
            )
            c.execute(sa.insert(source_looks), {"source": "surveys", "looked_at": now, "sequence": 1, "by_run": False})
            c.execute(
                sa.insert(source_looks),
                {"source": "old", "sequence": 1, "by_run": False, "error": f"{away}, AccountKey=abc"},
            )

        ledger.write(fill)
        report = gather(settings, Services(settings), lambda: ledger, lambda: [watched])
    assert report.problems == ()
    old, surveys = report.sources
    assert (surveys.container, surveys.looked_at) == ("bronze", now)
    assert surveys.entries == {**dict.fromkeys(("done", "failed", "at work", "refused"), 0), "waiting": 2, "gone": 1}
    assert (old.name, old.container, old.looked_at) == ("old", None, None)
    assert old.error is not None
    assert "abc" not in old.error
    assert old.error.startswith("the container does not exist in the blob folder …/containers, ")
