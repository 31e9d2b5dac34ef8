"""``stac_catalog_vectors``: whole jobs over both table stores and both catalogs, and what goes wrong.

What belongs here: parameters, outcomes, the fields of results, what the catalog holds after, taking back.  What does
not: the content of items (``tests/stac``), the stores (``tests/stores``), loading tables (``test_ingest_vector``).
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pyproj
import pystac_client
import pytest
import shapely
from sqlalchemy.engine import make_url

from geo_assets.coremachine.binding import bind
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, check_contract
from geo_assets.coremachine.ledger import Job
from geo_assets.errors import ParameterError, TableNotFoundError
from geo_assets.jobs.stac_catalog_vectors import StacCatalogVectors, extract_vector_stac_metadata
from geo_assets.jobs.vector_cataloguing import TableItemRequest, catalogue_table, item_published
from geo_assets.stac.items import BlobFacts
from geo_assets.stac.table_item import LOADED_AT
from geo_assets.stac.validation import collection_problems, item_problems
from geo_assets.stores.tables import GeometryFacts, LoadMode, TableColumn, TableFacts
from geo_assets.unpublish import execute, plan
from geo_assets.vector.table import Column, ColumnType, GeometryColumn, TableDefinition, TableLoad
from tests.jobs.bench import Bench
from tests.jobs.conftest import OpenBench
from tests.stac.schemas import extension_problems
from tests.stores.catalog_items import item as raster_item
from tests.stores.pgstac_database import pgstac_database, pgstac_url
from tests.stores.stac_api import stac_api

__all__ = ["pgstac_database", "pgstac_url"]

ITEM_ID = "postgis-geo-cities"
ALPS = [(600_000.0, 5_200_000.0), (650_000.0, 5_210_000.0), (610_000.0, 5_260_000.0), (640_000.0, 5_250_000.0)]
"""Metres in UTM zone 32N."""
LOADED = "2025-06-07T08:09:10Z"


# --- tables to catalogue ---------------------------------------------------------------------------------------------


@pytest.fixture(params=["static", pytest.param("pgstac", marks=pytest.mark.services)])
def catalog_url(request: pytest.FixtureRequest) -> str | None:
    """Where the items go."""
    return request.getfixturevalue("pgstac_url") if request.param == "pgstac" else None


@pytest.fixture
def tables(open_bench: OpenBench, tables_url: str | None) -> Bench:
    """A workbench over each table store, with a static catalog."""
    return open_bench(tables_url=tables_url)


@pytest.fixture
def postgis(open_bench: OpenBench, postgres_url: str) -> tuple[Bench, str]:
    """A workbench over PostGIS, and the URL to make tables by hand."""
    return open_bench(tables_url=postgres_url), make_url(postgres_url).set(drivername="postgresql").render_as_string(
        hide_password=False
    )


def load(
    bench: Bench,
    points: Sequence[tuple[float, float] | None],
    *,
    table: str = "cities",
    srid: int | None = 25832,
    mode: LoadMode = "create",
) -> None:
    """Put a table of points into the store, as ``ingest_vector`` does."""
    columns = (
        Column(name="name", type=ColumnType.TEXT, source_name="Name", description="What it is called"),
        Column(name="seen", type=ColumnType.TIMESTAMPTZ, source_name="seen"),
        Column(name="unknown", type=ColumnType.DATE, source_name="unknown"),
    )
    geometry = None if srid is None else GeometryColumn(type="Point", srid=srid)
    definition = TableDefinition(schema="geo", table=table, columns=columns, geometry=geometry)
    count = len(points)
    rows: dict[str, Any] = {
        "id": range(1, count + 1),
        "name": [f"city {number}" for number in range(count)],
        "seen": [datetime(2000 + number, 1, 2, 3, tzinfo=UTC) for number in range(count)],
        "unknown": [None] * count,
        "geom": [None if point is None else shapely.Point(point).wkb for point in points],
    }
    batch = pa.RecordBatch.from_pydict(
        {name: list(rows[name]) for name in definition.chunk_schema.names}, schema=definition.chunk_schema
    )
    store = bench.services["tables"]
    staged = store.begin(definition, mode)
    assert store.load_chunk(staged, 0, [batch]) == count
    source = {"container": "bronze", "blob": "cities.gpkg", "layer": "cities", "etag": '"1"', "sha256": "ab" * 32}
    loaded = TableLoad(key=staged.token, job_id="1" * 64, rows=count, source=source, details={LOADED_AT: LOADED})
    store.publish([staged], [loaded], chunks=[1])


def catalogue(bench: Bench, *, says: OutcomeKind = OutcomeKind.CREATED, **params: Any) -> Job:
    """Run the job, which must end so."""
    job = bench.run("stac_catalog_vectors", **{"table_name": "cities", **params})
    assert job.outcome is says, (job.error_details, job.reason)
    assert (job.status is JobStatus.COMPLETED) == says.is_good
    # as a run does when Dagster has heard of it
    bench.ledger.mark_emitted([attempt.attempt_id for attempt in bench.ledger.attempts_of_run(f"run-{bench._runs}")])
    return job


def item_in(bench: Bench, item_id: str = ITEM_ID, collection: str = "vectors") -> dict[str, Any]:
    """An item as the catalog has it, checked."""
    found: dict[str, Any] = bench.services["catalog"].get_item(collection, item_id)
    assert item_problems(found) == []
    assert extension_problems(found) == []
    return found


def task_result(bench: Bench) -> dict[str, Any]:
    """What the handler of the last run said."""
    (attempt,) = bench.ledger.attempts_of_run(f"run-{bench._runs}")
    (row,) = bench.ledger.tasks_of([attempt.attempt_id])
    return dict(row.result_data or {})["result"]  # type: ignore[no-any-return]


# --- parameters ------------------------------------------------------------------------------------------------------


def test_the_contract_is_complete() -> None:
    assert check_contract(StacCatalogVectors).complete
    binding = bind(StacCatalogVectors)
    assert (binding.asset, binding.partition_set) == ("vector_stac_item", "vector_tables")
    assert binding.asset_deps == ("vector_table",)
    assert (binding.group, binding.kinds) == ("catalog", frozenset({"stac"}))


def test_the_job_id_hashes_what_the_original_hashed() -> None:
    params = StacCatalogVectors.validate_job_parameters({"schema": " public ", "table_name": "t"})
    hashed = '{"collection_id": "vectors", "schema": "public", "source_file": null, "table_name": "t"}'
    assert StacCatalogVectors.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()
    (task,) = StacCatalogVectors.create_tasks_for_stage(1, params, "f" * 64)
    assert task["task_type"] == "extract_vector_stac_metadata"
    more = StacCatalogVectors.validate_job_parameters({"table_name": "t", "schema": "public", "extent": "estimated"})
    assert StacCatalogVectors.generate_job_id(more) != StacCatalogVectors.generate_job_id(params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "table_name is required"),
        ({"table_name": "  "}, "table_name must be a non-empty string"),
        ({"table_name": "t", "schema": ""}, "schema must be a non-empty string"),
        ({"table_name": "t", "schema": "a.b"}, "schema cannot hold a dot"),
        ({"table_name": "t", "collection_id": ""}, "collection_id: a collection id has"),
        ({"table_name": "t", "collection_id": None}, "collection_id"),
        ({"table_name": "t", "extent": "rough"}, "extent"),
        ({"table_name": "t", "datetime_column": " "}, "datetime_column must be the name of a column"),
        ({"table_name": "t", "table": "x"}, "unknown parameter 'table'; it takes: .*schema, table_name"),
    ],
)
def test_bad_parameters_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        StacCatalogVectors.validate_job_parameters(given)


@pytest.mark.parametrize("name", ["geo.cities", "geo.with.dot", "Ünï.Großstädte und mehr"])
def test_partitions_are_schema_and_table(name: str) -> None:
    params = StacCatalogVectors.parameters_for_partition(name)
    assert params is not None
    assert StacCatalogVectors.partition_name(params, "") == name


@pytest.mark.parametrize("name", ["cities", ".cities", "geo."])
def test_what_names_no_table_is_no_partition(name: str) -> None:
    assert StacCatalogVectors.parameters_for_partition(name) is None


# --- any table, by its facts -----------------------------------------------------------------------------------------


def facts(**changes: Any) -> TableFacts:
    ring = [[5.0, 45.0], [10.0, 45.0], [10.0, 47.0], [5.0, 47.0], [5.0, 45.0]]
    made: dict[str, Any] = {
        "schema": "geo",
        "table": "cities",
        "columns": (TableColumn(name="id", type="bigint"), TableColumn(name="geom", type="geometry")),
        "geometries": (GeometryFacts(name="geom", type="Point", srid=4326),),
        "described": "geom",
        "row_count": 3,
        "exact": True,
        "geometry_types": ("Point",),
        "bbox": (5.0, 45.0, 10.0, 47.0),
        "native_bbox": (5.0, 45.0, 10.0, 47.0),
        "footprint": {"type": "Polygon", "coordinates": [ring]},
        "version": "1",
        "href": "postgis://db.example/gis/geo.cities",
        **changes,
    }
    return TableFacts(**made)


def written(bench: Bench, described: TableFacts, **options: Any) -> dict[str, Any]:
    """What cataloguing a described table returned."""
    answer = catalogue_table(
        bench.services,
        {"job_id": "2" * 64},
        schema=described.schema,
        table=described.table,
        request=TableItemRequest(collection_id="vectors", **options.pop("request", {})),
        facts=described,
        **options,
    )
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    return answer


@pytest.fixture
def catalogs(open_bench: OpenBench, catalog_url: str | None) -> Bench:
    """A workbench over each catalog."""
    return open_bench(
        catalog_url=catalog_url, features_url="https://features.example/api", tiles_url="https://tiles.example"
    )


def test_an_item_is_created_left_alone_and_updated(catalogs: Bench) -> None:
    picture = BlobFacts(container="thumbnails", name="t.webp", href="https://h.example/t.webp", size=3)
    assert written(catalogs, facts(), thumbnail=picture)["outcome"] == "created"
    before = item_in(catalogs)
    again = written(catalogs, facts())
    assert (again["outcome"], again["reason"]) == ("unchanged", "the catalog holds the same item")
    assert (again["result"]["item_skipped"], again["result"]["inserted_to_pgstac"]) == (True, False)
    assert item_in(catalogs) == before, "time and picture of the same version stay"
    assert set(before["assets"]) == {"data", "features", "thumbnail"}
    assert [link["rel"] for link in before["links"]] == ["xyz"]
    more = written(catalogs, facts(row_count=4, version="2"))
    assert (more["outcome"], more["result"]["inserted_to_pgstac"]) == ("updated", True)
    after = item_in(catalogs)
    assert after["properties"]["created"] == before["properties"]["created"]
    assert after["properties"]["table:row_count"] == 4
    collection = catalogs.services["catalog"].refresh_collection("vectors")
    assert collection_problems(collection) == []
    assert collection["summaries"]["geo_assets:schema"] == ["geo"]
    assert collection["title"] == "Vector tables"


def test_positions_with_all_their_digits_are_unchanged(catalogs: Bench) -> None:
    west, south, east, north = 10.317821466366837, 46.93959239823743, 10.977654199999999, 1e-7 + 47.49
    ring = ((west, south), (east, south), (east, north), (west, north), (west, south))
    described = facts(bbox=(west, south, east, north), footprint={"type": "Polygon", "coordinates": (ring,)})
    assert written(catalogs, described)["outcome"] == "created"
    assert written(catalogs, described)["outcome"] == "unchanged"
    assert shapely.geometry.shape(item_in(catalogs)["geometry"]).bounds == pytest.approx(
        (west, south, east, north), abs=1e-7
    )


def test_an_id_that_is_another_s_is_refused(catalogs: Bench) -> None:
    catalogs.services["catalog"].upsert_items("vectors", [raster_item(id=ITEM_ID)])
    answer = written(catalogs, facts())
    assert (answer["outcome"], answer["error"]) == ("invalid", "ITEM_REFUSED")
    assert "the id is taken by bronze/a.tif" in answer["message"]
    assert answer["result"]["insert_error"] == answer["message"]


def test_an_item_that_breaks_the_rules_is_refused(catalogs: Bench) -> None:
    answer = written(catalogs, facts(bbox=(0.0, 0.0, 1.0, 1.0)))
    assert (answer["outcome"], answer["error"]) == ("invalid", "ITEM_REFUSED")
    assert "does not agree with the geometry" in answer["message"]
    assert catalogs.services["catalog"].get_item("vectors", ITEM_ID) is None


def test_notes_say_what_was_chosen(catalogs: Bench) -> None:
    geometries = tuple(GeometryFacts(name=name, type="Point", srid=4326) for name in ("geom", "centre"))
    answer = written(catalogs, facts(geometries=geometries), request={"datetime_column": "seen", "extent": "estimated"})
    first, second, third = answer["result"]["notes"]
    assert first == "the item describes the geometry column 'geom'; the table has 'centre' as well"
    assert "'seen' holds no time" in second
    assert "no statistics" in third
    named = written(catalogs, facts(geometries=geometries), request={"geometry_column": "geom"})
    assert named["result"]["notes"] == []


@pytest.mark.services
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server's own, on this Python
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_client_finds_it(open_bench: OpenBench, pgstac_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_bench(catalog_url=pgstac_url, features_url="https://f.example", tiles_url="https://t.example")
    written(bench, facts(datetime_range=("1990-01-01T00:00:00Z", "1999-12-31T00:00:00Z")))
    bench.services["catalog"].refresh_collection("vectors")
    expected = item_in(bench)
    with stac_api(pgstac_url, monkeypatch) as address:
        client = pystac_client.Client.open(address)
        for bbox, when, count in (
            ([9.0, 46.0, 20.0, 50.0], "1995-01-01/1996-01-01", 1),
            ([20.0, 46.0, 30.0, 50.0], None, 0),
            (None, "2005-01-01/2006-01-01", 0),
        ):
            found = list(client.search(collections=["vectors"], bbox=bbox, datetime=when).items())
            assert len(found) == count
            for read in found:
                assert read.properties["table:columns"] == expected["properties"]["table:columns"]
                assert read.assets["data"].href == "postgis://db.example/gis/geo.cities"
                assert read.assets["features"].href == "https://f.example/collections/geo.cities/items"
                links = {link.rel: link.href for link in read.links}
                assert links["xyz"] == "https://t.example/geo.cities/{z}/{x}/{y}"


# --- whole jobs ------------------------------------------------------------------------------------------------------


def test_a_table_is_catalogued(open_bench: OpenBench, tables_url: str | None, catalog_url: str | None) -> None:
    bench = open_bench(tables_url=tables_url, catalog_url=catalog_url)
    load(bench, ALPS)
    job = catalogue(bench)
    result = job.result_data or {}
    found = item_in(bench)
    longitudes, latitudes = pyproj.Transformer.from_crs(25832, 4326, always_xy=True).transform(
        [point[0] for point in ALPS], [point[1] for point in ALPS]
    )
    expected = [min(longitudes), min(latitudes), max(longitudes), max(latitudes)]
    assert found["bbox"] == pytest.approx(expected, abs=1e-6)
    outline = shapely.geometry.shape(found["geometry"]).buffer(1e-6)
    assert shapely.covers(outline, shapely.points(longitudes, latitudes)).all()
    properties = found["properties"]
    assert properties["proj:code"] == "EPSG:25832"
    assert properties["proj:bbox"] == pytest.approx([600_000, 5_200_000, 650_000, 5_260_000])
    assert [column["name"] for column in properties["table:columns"]] == ["id", "name", "seen", "unknown", "geom"]
    assert properties["datetime"] == LOADED
    assert properties["geo_assets:source_blob"] == "cities.gpkg"
    assert job.source_version == properties["geo_assets:version"]
    assert job.partition_key == "geo.cities"
    assert result["summary"] == {
        "item_id": ITEM_ID,
        "row_count": 4,
        "geometry_types": ["Point"],
        "srid": 25832,
        "inserted_to_pgstac": True,
        "item_skipped": False,
        "bbox": found["bbox"],
    }
    told = task_result(bench)
    assert {
        "item_id", "schema", "table_name", "collection_id", "bbox", "geometry_types", "row_count", "srid",
        "inserted_to_pgstac", "item_skipped", "skip_reason", "insert_error", "execution_time_seconds",
        "extract_time_seconds", "insert_time_seconds", "stac_item",
    } <= set(told)  # fmt: skip
    assert told["stac_item"]["id"] == ITEM_ID
    collection = bench.services["catalog"].get_collection("vectors")
    assert collection["extent"]["spatial"]["bbox"] == [found["bbox"]], "finish_run brought it up to date"


def test_the_partition_shows_a_map_and_the_facts(tables: Bench) -> None:
    load(tables, ALPS)
    metadata = StacCatalogVectors.materialization_metadata(catalogue(tables).result_data or {})
    assert metadata["map"].startswith("![Where it lies](data:image/svg+xml")
    assert metadata["pictures"].count("![") == 1
    assert (metadata["item_id"], metadata["dagster/row_count"], metadata["crs"]) == (ITEM_ID, 4, "EPSG:25832")
    assert metadata["dagster/uri"] == item_in(tables)["assets"]["data"]["href"]
    assert len(json.dumps(metadata)) <= 16_384


def test_a_repeat_asks_the_stores_and_ends_unchanged(tables: Bench) -> None:
    load(tables, ALPS)
    catalogue(tables)
    before = item_in(tables)
    assert StacCatalogVectors.max_age_seconds() == 0
    job = catalogue(tables, says=OutcomeKind.UNCHANGED)
    assert job.reason == "the catalog holds the same item"
    assert item_in(tables) == before
    load(tables, ALPS[:3], mode="overwrite")
    job = catalogue(tables, says=OutcomeKind.UPDATED)
    assert job.source_version == item_in(tables)["properties"]["geo_assets:version"]
    assert job.source_version != before["properties"]["geo_assets:version"]
    assert item_in(tables)["properties"]["table:row_count"] == 3


def test_time_from_a_column(tables: Bench) -> None:
    load(tables, ALPS)
    catalogue(tables, datetime_column="seen")
    properties = item_in(tables)["properties"]
    assert properties["datetime"] is None
    times = [datetime.fromisoformat(properties[name]) for name in ("start_datetime", "end_datetime")]
    assert times == [datetime(2000, 1, 2, 3, tzinfo=UTC), datetime(2003, 1, 2, 3, tzinfo=UTC)]
    job = catalogue(tables, says=OutcomeKind.UPDATED, datetime_column="unknown")
    assert "'unknown' holds no time" in (job.result_data or {})["notes"][0]
    assert item_in(tables)["properties"]["datetime"] == LOADED


def test_estimates_are_enough_where_they_are_asked_for(tables: Bench) -> None:
    load(tables, ALPS)
    catalogue(tables)
    exact = item_in(tables)
    catalogue(tables, extent="estimated", collection_id="quick")
    found = item_in(tables, collection="quick")
    assert found["bbox"] == pytest.approx(exact["bbox"], abs=0.2)
    assert found["properties"]["table:row_count"] == 4


def test_a_table_across_the_antimeridian(tables: Bench) -> None:
    load(tables, [(178.0, -17.0), (-179.0, -16.0), (179.5, -19.0)], srid=4326)
    catalogue(tables)
    assert item_in(tables)["bbox"] == pytest.approx([178.0, -19.0, -179.0, -16.0])


@pytest.mark.parametrize(
    ("points", "srid", "code"),
    [([], 4326, "TABLE_EMPTY"), ([None, None], 4326, "TABLE_EMPTY"), ([None, None], None, "NO_GEOMETRY")],
)
def test_what_cannot_be_catalogued_says_why(tables: Bench, points: list[None], srid: int | None, code: str) -> None:
    load(tables, points, srid=srid)
    job = catalogue(tables, says=OutcomeKind.INVALID)
    assert (job.reason or "").startswith(f"{code}: ")
    assert "geo.cities" in (job.reason or "")
    assert (job.result_data or {})["error"] == code
    assert tables.services["catalog"].list_collections() == []


@pytest.mark.parametrize("given", [{"datetime_column": "name"}, {"datetime_column": "x"}, {"geometry_column": "name"}])
def test_a_column_that_is_none_is_named(tables: Bench, given: dict[str, str]) -> None:
    load(tables, ALPS)
    job = catalogue(tables, says=OutcomeKind.INVALID, **given)
    assert (job.reason or "").startswith("NO_SUCH_COLUMN: ")
    assert f"'{next(iter(given.values()))}'" in (job.reason or "")


def test_a_missing_table_names_those_that_are_near(tables: Bench) -> None:
    for table in ("cities", "citizens", "roads"):
        load(tables, ALPS, table=table)
    with pytest.raises(TableNotFoundError, match=r"no table geo\.citys in .*; the schema has cities"):
        tables.run("stac_catalog_vectors", table_name="citys")
    answer = extract_vector_stac_metadata(
        {"schema": "geo", "table_name": "citys", "collection_id": "vectors"}, {"services": tables.services}
    )
    assert (answer["outcome"], answer["error"]) == ("invalid", "TABLE_NOT_FOUND")
    assert "cities" in answer["message"]
    with pytest.raises(TableNotFoundError, match="nor any other in the schema 'nowhere'"):
        tables.run("stac_catalog_vectors", table_name="citys", schema="nowhere")


def test_tables_are_found_by_prefix(tables: Bench) -> None:
    for table in ("cities", "citizens", "roads"):
        load(tables, ALPS, table=table)
    binding = bind(StacCatalogVectors)
    assert binding.keys_with_prefix("geo.citi", tables.services) == ["geo.cities", "geo.citizens"]
    assert binding.keys_with_prefix("geo.", tables.services) == ["geo.cities", "geo.citizens", "geo.roads"]
    with pytest.raises(ParameterError, match="begin with the schema and a dot"):
        binding.keys_with_prefix("geo", tables.services)


def test_an_item_can_be_taken_back(tables: Bench) -> None:
    load(tables, ALPS)
    job = catalogue(tables)
    (published,) = item_published(job.result_data or {})
    assert (published.kind, published.name, published.about) == ("item", ITEM_ID, ("geo", "cities"))
    (planned,) = plan(tables.machine, "vector_stac_item", ["geo.cities"])
    assert [(thing.kind, thing.name, thing.outcome.value) for thing in planned.things] == [("item", ITEM_ID, "present")]
    (taken,) = execute(tables.machine, lambda asset, keys: None, "vector_stac_item", ["geo.cities"], who="x")
    assert taken.complete
    assert tables.services["catalog"].get_item("vectors", ITEM_ID) is None
    assert tables.services["tables"].list_tables("geo") == ["cities"], "the table is another asset's"


def test_an_item_about_something_else_now_stays(tables: Bench) -> None:
    load(tables, ALPS)
    catalogue(tables)
    catalog = tables.services["catalog"]
    catalog.delete_items("vectors", [ITEM_ID])
    catalog.upsert_items("vectors", [raster_item(id=ITEM_ID)])
    (planned,) = plan(tables.machine, "vector_stac_item", ["geo.cities"])
    assert [thing.detail for thing in planned.things] == ["it describes bronze/a.tif now"]


# --- tables that other people made -----------------------------------------------------------------------------------


def test_a_table_made_by_hand(postgis: tuple[Bench, str]) -> None:
    bench, url = postgis
    with psycopg.connect(url) as connection:
        connection.execute(
            'create schema survey; create table survey."Plots" (plot text, outline geometry(Polygon, 2056),'
            " centre geometry(Point, 4326));"
            " insert into survey.\"Plots\" select 'a', st_makeenvelope(2600000, 1200000, 2600100, 1200050, 2056),"
            " st_point(7.44, 46.95, 4326);"
            " comment on table survey.\"Plots\" is 'Plots of the survey';"
            " comment on column survey.\"Plots\".plot is 'Its number'"
        )
    job = catalogue(bench, schema="survey", table_name="Plots")
    item_id = (job.result_data or {})["summary"]["item_id"]
    found = item_in(bench, item_id)
    properties = found["properties"]
    assert (properties["table:primary_geometry"], properties["proj:code"]) == ("outline", "EPSG:2056")
    assert found["bbox"] == pytest.approx([7.4386, 46.9511, 7.44, 46.9515], abs=1e-3)
    assert (properties["title"], properties["description"]) == ("survey.Plots", "Plots of the survey")
    assert properties["table:columns"][0] == {"name": "plot", "type": "text", "description": "Its number"}
    assert properties["geo_assets:datetime_source"] == "first catalogued"
    assert "'centre'" in (job.result_data or {})["notes"][0]
    catalogue(bench, says=OutcomeKind.UNCHANGED, schema="survey", table_name="Plots")
    job = catalogue(bench, says=OutcomeKind.UPDATED, schema="survey", table_name="Plots", geometry_column="centre")
    assert item_in(bench, item_id)["geometry"] == {"type": "Point", "coordinates": [7.44, 46.95]}
    assert (job.result_data or {})["geometry_column"] == "centre"


def test_rows_that_somebody_adds_are_seen(postgis: tuple[Bench, str]) -> None:
    bench, url = postgis
    with psycopg.connect(url) as connection:
        connection.execute(
            "create schema geo; create table geo.cities (geom geometry(Point, 4326));"
            " insert into geo.cities values (st_point(8, 47, 4326)), (st_point(9, 48, 4326))"
        )
    catalogue(bench)
    with psycopg.connect(url) as connection:
        connection.execute("insert into geo.cities values (st_point(10, 49, 4326))")
    catalogue(bench, says=OutcomeKind.UPDATED)
    found = item_in(bench)
    assert (found["properties"]["table:row_count"], found["bbox"]) == (3, [8.0, 47.0, 10.0, 49.0])


def test_a_table_that_was_never_analysed_is_looked_at_row_by_row(postgis: tuple[Bench, str]) -> None:
    bench, url = postgis
    with psycopg.connect(url) as connection:
        connection.execute(
            "create schema geo; create table geo.cities (geom geometry(Point, 4326))"
            " with (autovacuum_enabled = false); insert into geo.cities values (st_point(8, 47, 4326))"
        )
    job = catalogue(bench, extent="estimated")
    assert item_in(bench)["geometry"] == {"type": "Point", "coordinates": [8.0, 47.0]}
    assert (job.result_data or {})["notes"] == ["there are no statistics of this table, so all rows were looked at"]


def test_a_column_without_srid_has_no_place(postgis: tuple[Bench, str]) -> None:
    bench, url = postgis
    with psycopg.connect(url) as connection:
        connection.execute(
            "create schema geo; create table geo.cities (geom geometry);"
            " insert into geo.cities values (st_point(8, 47))"
        )
    job = catalogue(bench, says=OutcomeKind.INVALID)
    assert (job.reason or "").startswith("NO_CRS: the column 'geom' of geo.cities")


def test_no_password_gets_into_an_item(postgis: tuple[Bench, str]) -> None:
    bench, url = postgis
    load(bench, ALPS)
    with psycopg.connect(url) as connection:
        connection.execute("comment on table geo.cities is 'postgresql://loader:canary@db/gis'")
    catalogue(bench)
    assert "canary" not in json.dumps(item_in(bench))
    assert item_in(bench)["assets"]["data"]["href"].startswith("postgis://")
    assert "@" not in item_in(bench)["assets"]["data"]["href"]
