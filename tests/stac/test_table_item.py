"""Items of tables: whole, true, valid by the core and the extension schemas, and the same when made twice.

What belongs here: ``table_item`` and which thing an item describes.  What does not: the stores that describe tables
(``tests/stores``), whole jobs (``tests/jobs``).
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pystac
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import NoItemError
from geo_assets.stac.identifiers import table_item_id
from geo_assets.stac.items import BlobFacts, described_blob, described_thing, same_item
from geo_assets.stac.table_item import LOADED_AT, TableItemOptions, table_item, table_problem
from geo_assets.stac.validation import item_problems
from geo_assets.stores.catalog import ItemStatus, UpsertPlan
from geo_assets.stores.tables import GeometryFacts, TableColumn, TableFacts, TableRecord
from geo_assets.vector.table import TableLoad
from tests.stac.schemas import extension_problems
from tests.stores.catalog_items import item as raster_item

NOW = datetime(2026, 2, 3, tzinfo=UTC)
LATER = datetime(2026, 2, 4, tzinfo=UTC)
BOX = (5.0, 45.0, 10.5, 47.8)


def square(west: float, south: float, east: float, north: float) -> list[list[list[float]]]:
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


def load(blob: str = "cities.gpkg", **changes: Any) -> TableLoad:
    source = {"container": "bronze", "blob": blob, "layer": "cities", "etag": '"1"', "sha256": "ab" * 32}
    return TableLoad(
        key=blob, job_id="0" * 64, rows=3, source=source, details={LOADED_AT: "2025-06-07T08:09:10Z"}, **changes
    )


def record(*loads: TableLoad) -> TableRecord:
    return TableRecord(schema="geo", table="cities", version="7", loads=loads or (load(),))


def facts(**changes: Any) -> TableFacts:
    """A small table in UTM zone 32N."""
    made: dict[str, Any] = {
        "schema": "geo",
        "table": "cities",
        "columns": (
            TableColumn(name="id", type="bigint"),
            TableColumn(name="name", type="text", description="What it is called"),
            TableColumn(name="geom", type="geometry(Point,25832)"),
        ),
        "geometries": (GeometryFacts(name="geom", type="Point", srid=25832),),
        "described": "geom",
        "row_count": 3,
        "exact": True,
        "geometry_types": ("Point",),
        "bbox": BOX,
        "native_bbox": (185000.0, 4990000.0, 612000.5, 5295000.0),
        "footprint": {"type": "Polygon", "coordinates": square(*BOX)},
        "version": "7",
        "href": "postgis://db.example/gis/geo.cities",
        **changes,
    }
    return TableFacts(**made)


def item_of(described: TableFacts, **options: Any) -> dict[str, Any]:
    made = table_item(
        described,
        item_id=table_item_id(described.schema, described.table),
        collection_id="vectors",
        options=TableItemOptions(**{"now": NOW, **options}),
    )
    assert item_problems(made) == []
    assert extension_problems(made) == []
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    read = pystac.Item.from_dict(made)
    assert read.to_dict(include_self_link=False, transform_hrefs=False)["assets"] == made["assets"]
    return made


def test_an_item_says_what_the_table_is() -> None:
    found = item_of(facts(record=record(), description="Cities of the Alps"), job_id="f" * 64)
    properties = found["properties"]
    assert found["id"] == "postgis-geo-cities"
    assert (found["bbox"], found["geometry"]["coordinates"]) == (list(BOX), square(*BOX))
    assert properties["proj:code"] == "EPSG:25832"
    assert properties["proj:bbox"] == [185000.0, 4990000.0, 612000.5, 5295000.0]
    assert properties["table:columns"] == [
        {"name": "id", "type": "bigint"},
        {"name": "name", "type": "text", "description": "What it is called"},
        {"name": "geom", "type": "geometry(Point,25832)"},
    ]
    assert (properties["table:row_count"], properties["table:primary_geometry"]) == (3, "geom")
    assert properties["geo_assets:geometry_types"] == ["Point"]
    assert (properties["title"], properties["description"]) == ("geo.cities", "Cities of the Alps")
    assert "geo_assets:estimated" not in properties
    assert properties["geo_assets:job_id"] == "f" * 64
    assert properties["created"] == properties["updated"] == "2026-02-03T00:00:00Z"
    assert {uri.rsplit("/", 3)[1] for uri in found["stac_extensions"]} == {"projection", "table", "processing"}


def test_where_its_rows_come_from() -> None:
    properties = item_of(facts(record=record()))["properties"]
    assert (properties["geo_assets:source_container"], properties["geo_assets:source_blob"]) == (
        "bronze",
        "cities.gpkg",
    )
    assert (properties["geo_assets:source_etag"], properties["geo_assets:source_sha256"]) == ('"1"', "ab" * 32)
    assert properties["processing:lineage"] == "Loaded from bronze/cities.gpkg, layer cities."
    several = item_of(facts(record=record(load("a.csv"), load("b.csv"))))["properties"]
    assert several["processing:lineage"] == "2 loads, the last from bronze/b.csv, layer cities."
    unknown = item_of(facts(), source_file="old/cities.shp")["properties"]
    assert unknown["geo_assets:source_file"] == "old/cities.shp"
    assert "processing:lineage" not in unknown


@pytest.mark.parametrize(
    ("href", "media_type", "title"),
    [
        ("postgis://db.example/gis/geo.cities", "application/x-postgresql", "PostGIS Table: geo.cities"),
        ("file:///data/tables/geo/cities", "application/vnd.apache.parquet", "GeoParquet table: geo.cities"),
    ],
)
def test_the_asset_says_what_is_behind_it(href: str, media_type: str, title: str) -> None:
    data = item_of(facts(href=href))["assets"]["data"]
    assert data == {"href": href, "type": media_type, "title": title, "roles": ["data"]}


def test_no_credential_gets_into_an_item() -> None:
    columns = (TableColumn(name="geom", type="geometry", description="password=canary"),)
    found = item_of(
        facts(
            href="postgis://loader:canary@db.example:5432/gis/geo.cities?sslpassword=canary",
            columns=columns,
            description="postgresql://u:canary@h/db",
        ),
        features_url="https://u:canary@features.example/api/?key=canary",
        tiles_url="https://tiles.example/?sig=canary",
    )
    assert "canary" not in json.dumps(found)
    assert found["assets"]["data"]["href"] == "postgis://db.example:5432/gis/geo.cities"


def test_services_over_the_tables_are_linked() -> None:
    found = item_of(
        facts(table="straßen a"), features_url="https://f.example/api/", tiles_url="https://t.example/tiles"
    )
    features = found["assets"]["features"]
    assert features["href"] == "https://f.example/api/collections/geo.stra%C3%9Fen%20a/items"
    assert features["type"] == "application/geo+json"
    (tiles,) = found["links"]
    assert tiles["rel"] == "xyz"
    assert tiles["href"] == "https://t.example/tiles/geo.stra%C3%9Fen%20a/{z}/{x}/{y}"
    assert tiles["type"] == "application/vnd.mapbox-vector-tile"
    assert any("/web-map-links/" in uri for uri in found["stac_extensions"])
    plain = item_of(facts())
    assert (plain["links"], set(plain["assets"])) == ([], {"data"})


def test_a_bad_link_is_still_refused() -> None:
    found = item_of(facts())
    assert item_problems({**found, "links": [{"rel": "about", "href": "https://t.example/{z}/{x}/{y}"}]})
    assert item_problems({**found, "links": [{"rel": "xyz", "href": "https://t.example/{zoom}"}]})


def test_a_thumbnail_is_an_asset_and_stays_while_the_table_does() -> None:
    picture = BlobFacts(
        container="thumbnails", name="t.webp", href="https://h.example/t.webp?sig=x", size=5, media_type="image/webp"
    )
    first = item_of(facts(), thumbnail=picture)
    assert first["assets"]["thumbnail"]["href"] == "https://h.example/t.webp"
    assert any("/file/" in uri for uri in first["stac_extensions"])
    again = item_of(facts(), existing=first, now=LATER)
    assert same_item(first, again)
    assert "thumbnail" not in item_of(facts(version="8"), existing=first)["assets"]


# --- time ------------------------------------------------------------------------------------------------------------


def test_the_range_of_a_column_wins() -> None:
    found = item_of(
        facts(datetime_range=("1990-01-01T00:00:00Z", "2020-12-31T23:59:59.5Z"), record=record()),
        datetime_column="built",
    )
    properties = found["properties"]
    assert properties["datetime"] is None
    assert (properties["start_datetime"], properties["end_datetime"]) == (
        "1990-01-01T00:00:00Z",
        "2020-12-31T23:59:59.5Z",
    )
    assert properties["geo_assets:datetime_source"] == "column built"


def test_else_it_is_the_time_of_the_last_load() -> None:
    properties = item_of(facts(record=record()))["properties"]
    assert properties["datetime"] == "2025-06-07T08:09:10Z"
    assert properties["geo_assets:datetime_source"] == "load"


def test_a_table_nobody_loaded_keeps_the_time_it_was_first_catalogued() -> None:
    first = item_of(facts())
    assert first["properties"]["datetime"] == "2026-02-03T00:00:00Z"
    again = item_of(facts(), existing=first, now=LATER)
    assert same_item(first, again)
    more = item_of(facts(row_count=4), existing=first, now=LATER)
    assert more["properties"]["datetime"] == "2026-02-03T00:00:00Z"
    another = item_of(facts(version="8"), existing=first, now=LATER)
    assert another["properties"]["datetime"] == "2026-02-04T00:00:00Z"
    theirs = raster_item(id=first["id"])
    assert item_of(facts(), existing=theirs, now=LATER)["properties"]["datetime"] == "2026-02-04T00:00:00Z"


# --- place -----------------------------------------------------------------------------------------------------------


def test_a_table_across_the_antimeridian() -> None:
    footprint = {
        "type": "MultiPolygon",
        "coordinates": [square(177.0, -20.0, 180.0, -15.0), square(-180.0, -20.0, -178.0, -15.0)],
    }
    found = item_of(facts(bbox=(177.0, -20.0, -178.0, -15.0), footprint=footprint))
    assert found["bbox"] == [177.0, -20.0, -178.0, -15.0]


def test_a_table_of_one_point() -> None:
    found = item_of(facts(bbox=(8.5, 47.4, 8.5, 47.4), footprint={"type": "Point", "coordinates": [8.5, 47.4]}))
    assert found["geometry"] == {"type": "Point", "coordinates": [8.5, 47.4]}


@pytest.mark.parametrize(("srid", "code"), [(4326, "EPSG:4326"), (102008, "ESRI:102008"), (990001, None)])
def test_srids_of_others_are_not_said_to_be_epsg_s(srid: int, code: str | None) -> None:
    found = item_of(facts(geometries=(GeometryFacts(name="geom", type="Point", srid=srid),)))
    assert found["properties"].get("proj:code") == code


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({"geometries": (), "described": None, "bbox": None, "footprint": None}, "NO_GEOMETRY", "no geometry column"),
        ({"geometries": (GeometryFacts(name="geom", type="Point", srid=None),)}, "NO_CRS", "UpdateGeometrySRID"),
        ({"geometries": (GeometryFacts(name="geom", type="Point", srid=0),)}, "NO_CRS", "'geom' of geo.cities"),
        ({"row_count": 0, "bbox": None, "footprint": None}, "TABLE_EMPTY", "has no rows: load it"),
        ({"bbox": None, "footprint": None}, "TABLE_EMPTY", "none of the 3 rows"),
    ],
)
def test_what_has_no_item_says_why(changes: dict[str, Any], code: str, says: str) -> None:
    described = facts(**changes)
    problem = table_problem(described)
    assert problem is not None
    assert problem[0] == code
    assert says in problem[1]
    with pytest.raises(NoItemError, match=r"geo\.cities"):
        item_of(described)


def test_of_several_geometry_columns_one_is_described() -> None:
    geometries = (
        GeometryFacts(name="centre", type="Point", srid=4326),
        GeometryFacts(name="outline", type="MultiPolygon", srid=2056),
    )
    properties = item_of(facts(geometries=geometries, described="outline"))["properties"]
    assert (properties["table:primary_geometry"], properties["proj:code"]) == ("outline", "EPSG:2056")


def test_estimates_are_called_estimates() -> None:
    assert item_of(facts(exact=False))["properties"]["geo_assets:estimated"] is True


# --- columns ---------------------------------------------------------------------------------------------------------


def test_1500_columns_stay_reasonable() -> None:
    columns = tuple(
        TableColumn(name=f"column_{number:04d}_" + "x" * 40, type="double precision", description="ü" * 5_000)
        for number in range(1_500)
    )
    found = item_of(facts(columns=columns))
    described = found["properties"]["table:columns"]
    assert [one["name"] for one in described] == [column.name for column in columns]
    assert all(one["description"].endswith("…") for one in described)
    assert len(json.dumps(found, ensure_ascii=False)) < 300_000


@given(st.lists(st.text(min_size=1, max_size=80), max_size=30), st.integers(0, 3_000))
def test_any_description_fits(descriptions: list[str], more: int) -> None:
    columns = tuple(
        TableColumn(name=f"c{number}", type="text", description=text + "x" * more)
        for number, text in enumerate(descriptions)
    )
    found = table_item(facts(columns=columns), item_id="x", collection_id="vectors")
    for column, written in zip(columns, found["properties"]["table:columns"], strict=True):
        assert len(written["description"]) <= 1_000
        assert written["name"] == column.name


# --- which thing ------------------------------------------------------------------------------------------------------


def test_an_item_describes_its_table_and_no_blob() -> None:
    found = item_of(facts(record=record()))
    assert described_thing(found) == ("geo", "cities")
    assert described_blob(found) is None
    assert described_thing(raster_item()) == ("bronze", "a.tif")
    assert described_thing({"properties": {"geo_assets:schema": "geo"}}) is None


def test_an_id_belongs_to_one_table() -> None:
    ours = item_of(facts())
    theirs = {**item_of(facts(table="towns")), "id": ours["id"]}
    plan = UpsertPlan("vectors", [theirs])
    assert plan.decide({ours["id"]: ours}) == []
    assert plan.outcomes[0].status is ItemStatus.INVALID
    assert "taken by geo/cities" in str(plan.outcomes[0].reason)


def test_an_item_of_the_original_is_replaced() -> None:
    original = {
        **item_of(facts()),
        "properties": {"datetime": "2025-01-01T00:00:00Z", "postgis:schema": "geo", "postgis:table": "cities"},
    }
    plan = UpsertPlan("vectors", [item_of(replace(facts(), row_count=4))])
    assert len(plan.decide({original["id"]: original})) == 1
    assert plan.outcomes[0].status is ItemStatus.UPDATED
