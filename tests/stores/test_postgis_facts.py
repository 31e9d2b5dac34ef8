"""Looking at tables in PostGIS that anybody made: facts, rows, names.

What belongs here: views, geometry columns of every declaration, CRS of every kind, estimates.  What does not: what all
table stores promise (``test_table_contract``), the footprint itself (``tests/vector/test_footprint``).
"""

import threading
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal

import pyarrow as pa
import pytest
import shapely

from geo_assets.errors import ParameterError, TableNotFoundError
from geo_assets.stores.postgis import PostgisTables
from geo_assets.stores.tables import GeometryFacts
from geo_assets.vector.table import GeometryColumn
from tests.stores.postgis_database import execute, postgis_database, postgis_url
from tests.stores.table_rows import definition, load, points, rows_of

__all__ = ["postgis_database", "postgis_url"]

PLACES = definition()


@pytest.fixture
def store(postgis_url: str) -> Iterator[PostgisTables]:
    """A store over a database with the schema ``geo``."""
    execute(postgis_url, "create schema geo")
    with closing(PostgisTables(postgis_url)) as opened:
        yield opened


# --- what is looked at ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["view", "materialized view"])
def test_a_view_is_described_like_a_table(store: PostgisTables, postgis_url: str, kind: str) -> None:
    load(store, PLACES, points(PLACES, 3))
    execute(
        postgis_url,
        f"create {kind} geo.seen as select id, upper(name) label, geom from geo.places where id < 3;"  # noqa: S608
        f" comment on {kind} geo.seen is 'Two places'; comment on column geo.seen.label is 'In capitals'",
    )
    for exact in (True, False):
        facts = store.describe("geo", "seen", exact=exact)
        # there are no statistics of views
        assert (facts.exact, facts.row_count, facts.bbox) == (True, 2, (1.0, 1.0, 2.0, 2.0))
        assert (facts.description, facts.columns[1].description) == ("Two places", "In capitals")
        assert facts.geometries == (GeometryFacts(name="geom", type="Point", srid=4326),)
        assert facts.record is None
        assert facts.version is not None
        assert facts.version.startswith("oid:")
    assert store.list_tables("geo") == ["places", "seen"]
    assert [row for batch in store.read("geo", "seen") for row in batch["label"].to_pylist()] == ["1", "2"]


def test_a_partitioned_table_is_one(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.parts (id int, geom geometry(Point, 4326)) partition by range (id);"
        " create table geo.low partition of geo.parts for values from (0) to (10);"
        " create table geo.high partition of geo.parts for values from (10) to (20);"
        " insert into geo.parts select n, st_point(n, n, 4326) from generate_series(1, 19) n; analyze geo.parts",
    )
    assert store.list_tables("geo") == ["parts"]
    facts = store.describe("geo", "parts")
    assert (facts.row_count, facts.bbox) == (19, (1.0, 1.0, 19.0, 19.0))
    assert store.describe("geo", "parts", exact=False).row_count == 19


def test_what_belongs_to_an_extension_is_not_listed(store: PostgisTables) -> None:
    assert store.list_tables("public") == []
    assert store.describe("public", "spatial_ref_sys").row_count > 1000


@pytest.mark.parametrize("made", ["sequence geo.odd", "type geo.odd as (a int)"])
def test_what_has_no_rows_is_no_table(store: PostgisTables, postgis_url: str, made: str) -> None:
    execute(postgis_url, f"create {made}")
    for look in (lambda: store.describe("geo", "odd"), lambda: list(store.read("geo", "odd"))):
        with pytest.raises(TableNotFoundError, match=r"geo\.odd"):
            look()


def test_the_address_has_no_credentials(postgis_url: str) -> None:
    with closing(PostgisTables("postgresql://loader:canary@db.example/gis?sslpassword=canary")) as store:
        assert store._href("geo", "places") == "postgis://db.example/gis/geo.places"
    with closing(PostgisTables("postgres://loader:canary@[::1]:6543/gis")) as store:
        assert store._href("geo", "places") == "postgis://[::1]:6543/gis/geo.places"
        assert "canary" not in store.description


# --- geometry columns -------------------------------------------------------------------------------------------


def test_several_geometry_columns_are_told_and_one_is_chosen(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.plots (outline geometry(Polygon, 2056), name text, centre geometry(PointZM, 4326),"
        " spot geography(Point), anything geometry, flat geometry(Geometry));"
        " insert into geo.plots values (st_makeenvelope(2600000, 1200000, 2600100, 1200050, 2056), 'a',"
        " 'SRID=4326;POINT ZM (7.44 46.95 1 2)', 'POINT (8 47)', 'SRID=3857;POINT (0 0)', 'POINT (1 2)')",
    )
    facts = store.describe("geo", "plots")
    assert facts.described == "outline"
    assert facts.geometries == (
        GeometryFacts(name="outline", type="Polygon", srid=2056),
        GeometryFacts(name="centre", type="Point", srid=4326, dimensions="XYZM"),
        GeometryFacts(name="spot", type="Point", srid=4326),
        GeometryFacts(name="anything", type="Geometry", srid=None),
        GeometryFacts(name="flat", type="Geometry", srid=None),
    )
    assert facts.native_bbox == (2600000.0, 1200000.0, 2600100.0, 1200050.0)
    assert facts.bbox == pytest.approx((7.4386, 46.9511, 7.4399, 46.9515), abs=1e-3)
    assert store.describe("geo", "plots", geometry_column="centre").bbox == (7.44, 46.95, 7.44, 46.95)
    assert store.describe("geo", "plots", geometry_column="spot").bbox == (8.0, 47.0, 8.0, 47.0)
    with pytest.raises(ParameterError, match=r"'name'; it has 'outline', 'centre'"):
        store.describe("geo", "plots", geometry_column="name")


def test_the_srid_that_all_rows_have_is_the_columns(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url, "create table geo.plots (geom geometry); insert into geo.plots values ('SRID=3857;POINT(0 0)')"
    )
    facts = store.describe("geo", "plots")
    assert (facts.geometries[0].srid, facts.bbox) == (3857, (0.0, 0.0, 0.0, 0.0))
    execute(postgis_url, "insert into geo.plots values (null), ('SRID=4326;POINT(5 5)')")
    facts = store.describe("geo", "plots")
    assert (facts.geometries[0].srid, facts.bbox, facts.footprint) == (None, None, None)
    assert (facts.native_bbox, facts.row_count) == ((0.0, 0.0, 5.0, 5.0), 3)


def test_a_column_without_srid_has_a_box_of_its_own_only(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create table geo.plots (geom geometry(Point)); insert into geo.plots values ('POINT(3 4)')")
    for exact in (True, False):
        facts = store.describe("geo", "plots", exact=exact)
        assert (facts.geometries[0].srid, facts.bbox, facts.footprint) == (None, None, None)
        assert facts.native_bbox == (3.0, 4.0, 3.0, 4.0)


OWN_CRS = (
    "insert into spatial_ref_sys select 990001, 'own', 1, srtext, proj4text from spatial_ref_sys where srid = 25832"
)
ODD_CRS = "insert into spatial_ref_sys values (990003, 'own', 2, 'no WKT', 'no PROJ')"


@pytest.mark.parametrize(
    ("srid", "made", "usable"),
    [
        pytest.param(990001, OWN_CRS, True, id="one's own"),
        pytest.param(102003, "select 1", True, id="ESRI's"),
        pytest.param(990002, "select 1", False, id="nobody's"),
        pytest.param(990003, ODD_CRS, False, id="nonsense"),
    ],
)
def test_a_crs_of_any_kind(
    store: PostgisTables,
    postgis_url: str,
    srid: int,
    made: str,
    usable: bool,  # noqa: FBT001
) -> None:
    execute(postgis_url, f"{made}; create table geo.plots (geom geometry(Point, {srid}))")
    try:
        execute(postgis_url, "insert into geo.plots values (st_setsrid(st_point(500000, 300000), %s))", srid)
        facts = store.describe("geo", "plots")
        if usable:
            place = execute(
                postgis_url, "select st_x(g), st_y(g) from (select st_transform(geom, 4326) g from geo.plots) plots"
            )[0]
    finally:
        execute(postgis_url, "delete from spatial_ref_sys where srid between 990000 and 990009")
    assert facts.geometries[0].srid == srid
    assert facts.native_bbox == (500000.0, 300000.0, 500000.0, 300000.0)
    if usable:
        assert facts.bbox == pytest.approx((*place, *place), abs=1e-4)
    else:
        assert facts.bbox is None


def test_shapes_that_geos_does_not_know(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.odd (geom geometry(GeometryZ, 4326));"
        " insert into geo.odd select st_force3d(st_setsrid(g, 4326)) from"
        " (values ('CIRCULARSTRING(0 0, 1 1, 2 0)'::geometry),"
        " ('TIN(((4 0, 4 1, 5 1, 4 0)))'),"
        " ('CURVEPOLYGON(CIRCULARSTRING(10 0, 12 0, 12 2, 10 2, 10 0))'), ('GEOMETRYCOLLECTION(POINT(20 3))')) v(g)",
    )
    facts = store.describe("geo", "odd")
    assert facts.geometry_types == ("CircularString", "CurvePolygon", "GeometryCollection", "Tin")
    assert facts.row_count == 4
    assert facts.bbox == pytest.approx(facts.native_bbox)
    assert facts.native_bbox is not None
    assert facts.native_bbox[2] == 20.0


def test_many_rows_of_many_sizes_are_all_looked_at(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.many (id serial, geom geometry(MultiPolygon, 4326)); insert into geo.many (geom) select"
        " st_multi(st_buffer(st_point(n % 170, n % 80, 4326), 0.1, case when n % 50 = 0 then 400 else 1 end))"
        " from generate_series(1, 30000) n; insert into geo.many (geom) values"
        " (st_multi(st_makeenvelope(-179.5, -89, -179, -88, 4326)))",
    )
    facts = store.describe("geo", "many")
    assert facts.row_count == 30001
    assert facts.bbox is not None
    [(top,)] = execute(postgis_url, "select st_ymax(b) from (select st_extent(geom) b from geo.many) e")
    assert facts.bbox[1] == -89.0
    assert facts.bbox[3] == pytest.approx(top)
    assert facts.footprint is not None
    outline = shapely.geometry.shape(facts.footprint)
    assert outline.buffer(1e-6).covers(shapely.Point(84.5, 40.5))


# --- estimates --------------------------------------------------------------------------------------------------


def test_a_table_that_was_never_analysed_is_counted(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.places (geom geometry(Point, 4326)) with (autovacuum_enabled = false);"
        " insert into geo.places values (st_point(8, 47, 4326))",
    )
    facts = store.describe("geo", "places", exact=False)
    assert (facts.exact, facts.row_count, facts.bbox) == (True, 1, (8.0, 47.0, 8.0, 47.0))
    execute(postgis_url, "insert into geo.places values (st_point(9, 48, 4326)); analyze geo.places")
    facts = store.describe("geo", "places", exact=False)
    assert (facts.exact, facts.row_count, facts.geometry_types) == (False, 2, ("Point",))
    assert facts.bbox == pytest.approx((8.0, 47.0, 9.0, 48.0), abs=0.1)


def test_an_estimate_looks_at_no_row(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 50))
    execute(postgis_url, "set session_replication_role = replica; delete from geo.places where id > 1")
    facts = store.describe("geo", "places", exact=False)
    assert facts.row_count == 50


def test_rows_without_geometry_are_estimated(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create table geo.plain as select n from generate_series(1, 7) n; analyze geo.plain")
    facts = store.describe("geo", "plain", exact=False)
    assert (facts.exact, facts.row_count, facts.described, facts.bbox) == (False, 7, None, None)


def test_rows_that_were_added_are_in_the_next_estimate(store: PostgisTables) -> None:
    load(store, PLACES, points(PLACES, 50))
    load(store, PLACES, points(PLACES, 30), mode="append")
    assert store.describe("geo", "places", exact=False).row_count == 80


# --- dates ------------------------------------------------------------------------------------------------------


def test_dates_that_rfc_3339_cannot_write(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.events (day date, moment timestamp(3), zoned timestamptz, clock time);"
        " insert into geo.events values ('-infinity', '2020-01-02 03:04:05.678', '2020-01-01 00:00+02', '01:02'),"
        " ('infinity', '0044-03-15 BC', '20000-01-01', '01:02')",
    )
    first, last = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"
    assert store.describe("geo", "events", datetime_column="day").datetime_range == (first, last)
    assert store.describe("geo", "events", datetime_column="moment").datetime_range == (
        first,
        "2020-01-02T03:04:05.678000Z",
    )
    assert store.describe("geo", "events", datetime_column="zoned").datetime_range == ("2019-12-31T22:00:00Z", last)
    with pytest.raises(ParameterError, match="'clock' of dates or timestamps; it has 'day', 'moment', 'zoned'"):
        store.describe("geo", "events", datetime_column="clock")


# --- rows -------------------------------------------------------------------------------------------------------


def test_types_that_are_not_ours_are_read_as_text(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create table geo.odd (id int, u uuid, n numeric, p numeric(10, 2), a int[], v varchar(9), g geography);"
        " insert into geo.odd values (2, null, null, null, null, null, null), (1,"
        " '00000000-0000-0000-0000-000000000001', 1.5, 2.25, '{1,2}', 'x', 'POINT(1 2)')",
    )
    [batch] = store.read("geo", "odd")
    assert batch.schema.field("p").type == pa.decimal128(38, 2)
    assert batch.slice(0, 1).to_pylist() == [
        {
            "id": 1,
            "u": "00000000-0000-0000-0000-000000000001",
            "n": "1.5",
            "p": Decimal("2.25"),
            "a": "{1,2}",
            "v": "x",
            "g": shapely.to_wkb(shapely.Point(1, 2)),
        }
    ]
    assert batch["id"].to_pylist() == [1, 2]


def test_rows_are_of_one_state_however_slowly_they_are_read(store: PostgisTables) -> None:
    load(store, PLACES, points(PLACES, 12_000, name="old"))
    batches = store.read("geo", "places")
    seen = next(batches).num_rows
    adding = threading.Thread(target=load, args=(store, PLACES, points(PLACES, 100)), kwargs={"mode": "append"})
    adding.start()
    adding.join(20)
    assert not adding.is_alive()
    assert seen + sum(batch.num_rows for batch in batches) == 12_000
    assert store.describe("geo", "places").row_count == 12_100


def test_reading_that_is_given_up_holds_nothing(store: PostgisTables) -> None:
    load(store, PLACES, points(PLACES, 12_000))
    batches = store.read("geo", "places")
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert store.drop("geo", "places")


def test_a_table_of_null_geometries_of_any_kind(store: PostgisTables) -> None:
    table = definition("nulls", (), geometry=GeometryColumn(type="Geometry", srid=2056))
    load(store, table, rows_of(table, {}, [None, None]))
    facts = store.describe("geo", "nulls")
    assert (facts.row_count, facts.bbox, facts.geometry_types) == (2, None, ())
    assert facts.geometries[0].srid == 2056
