"""The contract of table stores: one suite that GeoParquet and PostGIS both pass.

What belongs here: what :class:`geo_assets.stores.tables.TableStore` promises.  What does not: what only one store can
do or suffer (``test_geoparquet``, ``test_postgis``).
"""

import json
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from geo_assets.errors import (
    ParameterError,
    PreconditionFailedError,
    StagingLostError,
    TableDataError,
    TableError,
    TableExistsError,
    TableNotFoundError,
    TableSchemaError,
)
from geo_assets.settings import Settings
from geo_assets.stores.tables import StagedTable, TableStore, open_table_store
from geo_assets.vector.fitting import fit_batch
from geo_assets.vector.table import Column, ColumnType, Dimensions, GeometryColumn, TableDefinition
from geo_assets.vector.wkb import conform
from tests.stores.table_rows import (
    EVERY_TYPE,
    EVERY_VALUE,
    contents,
    definition,
    load,
    points,
    rows_of,
    stage,
    table_load,
)

Opener = Callable[[], TableStore]

PLACES = definition()


@pytest.fixture(params=["geoparquet", pytest.param("postgis", marks=pytest.mark.services)])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same store again, as another process would."""
    opened: list[TableStore] = []
    url = None
    if request.param == "postgis":
        url = request.getfixturevalue("postgres_url")
    settings = Settings(home=tmp_path / "home", tables_url=url)

    def open_one() -> TableStore:
        opened.append(open_table_store(settings))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(opener: Opener) -> TableStore:
    """An empty store."""
    return opener()


def ids(table: pa.Table) -> list[int]:
    return cast("list[int]", table["id"].to_pylist())


def names(store: TableStore, table: TableDefinition = PLACES) -> list[str]:
    return cast("list[str]", contents(store, table)["name"].to_pylist())


# --- nothing there ----------------------------------------------------------------------------------------------


def test_an_empty_store_has_nothing(store: TableStore) -> None:
    assert store.kind in store.description.lower()
    assert store.list_tables("geo") == []
    assert store.list_tables("nowhere") == []
    assert store.record("geo", "places") is None
    assert store.loaded_by("job") == []
    assert list(store.records()) == []
    assert not store.drop("geo", "places")
    assert not store.drop("geo", "places", versions=["a"])
    assert store.sweep(older_than_seconds=0) == 0
    store.discard(["0" * 32])
    for mode in ("create", "overwrite", "append"):
        assert store.check_target("geo", "places", mode) is None
    with pytest.raises(TableNotFoundError, match=r"geo\.places"):
        store.describe("geo", "places")
    with pytest.raises(TableNotFoundError, match=r"geo\.places"):
        list(store.read("geo", "places"))


# --- values -----------------------------------------------------------------------------------------------------


def test_every_type_is_read_back_equal(store: TableStore) -> None:
    table = definition("types", EVERY_TYPE)
    count = max(len(values) for values in EVERY_VALUE.values())
    columns = {
        column.name: [*EVERY_VALUE[column.type], *[None] * (count - len(EVERY_VALUE[column.type]))]
        for column in EVERY_TYPE
    }
    batch = rows_of(table, columns, [shapely.Point(number, -number) for number in range(count)])
    load(store, table, batch)
    read = contents(store, table)
    assert read.schema.equals(table.chunk_schema)
    for name in table.chunk_schema.names:
        if name != "c_json":
            assert read[name].combine_chunks().equals(batch.column(name)), name
    # a database may write JSON its own way
    assert _parsed(read["c_json"].to_pylist()) == _parsed(batch.column("c_json").to_pylist())


def _parsed(values: list[str | None]) -> list[Any]:
    return [None if value is None else json.loads(value) for value in values]


def test_columns_tell_types_and_descriptions(store: TableStore) -> None:
    table = definition("types", EVERY_TYPE)
    load(store, table, rows_of(table, {column.name: [None] for column in EVERY_TYPE}, [None]))
    facts = store.describe("geo", "types")
    assert [column.name for column in facts.columns] == ["id", *(column.name for column in EVERY_TYPE), "geom"]
    assert [column.type for column in facts.columns[:-1]] == ["bigint", *(column.type.value for column in EVERY_TYPE)]
    descriptions = [column.description for column in facts.columns[1:-1]]
    assert descriptions == [column.description for column in EVERY_TYPE]
    record = store.record("geo", "types")
    assert record is not None
    assert {column.name: column.source_name for column in EVERY_TYPE}.items() <= record.columns.items()


_SHAPES = {
    "Point": "POINT (1 2)",
    "LineString": "LINESTRING (0 0, 1 1, 2 0)",
    "Polygon": "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 1 2, 2 2, 2 1, 1 1))",
    "MultiPoint": "MULTIPOINT ((0 0), (1 1))",
    "MultiLineString": "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3))",
    "MultiPolygon": "MULTIPOLYGON (((0 0, 1 0, 1 1, 0 0)), ((5 5, 6 5, 6 6, 5 5)))",
    "GeometryCollection": "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
}


def _with(shape: Any, dimensions: Dimensions) -> bytes:
    if "Z" in dimensions:
        shape = shapely.force_3d(shape, z=7.5)
    if "M" in dimensions:
        shape = shapely.set_m(shape)
    return cast("bytes", shapely.to_wkb(shape, flavor="iso", byte_order=1, output_dimension=4))


@pytest.mark.parametrize("dimensions", ["XY", "XYZ"])
def test_geometries_of_every_type_are_read_back_equal(store: TableStore, dimensions: Dimensions) -> None:
    for kind, text in _SHAPES.items():
        table = definition(kind.lower(), (), geometry=GeometryColumn(type=kind, dimensions=dimensions, name="shape"))
        values = [_with(shapely.from_wkt(text), dimensions), None, _with(shapely.from_wkt(text), dimensions)]
        load(store, table, rows_of(table, {}, values))
        assert contents(store, table)["shape"].to_pylist() == values, kind
        facts = store.describe("geo", kind.lower())
        assert [(one.name, one.type, one.srid, one.dimensions) for one in facts.geometries] == [
            ("shape", kind, 4326, dimensions)
        ]
        assert facts.geometry_types == (kind,)
        assert facts.row_count == 3
        assert facts.bbox == shapely.from_wkt(text).bounds


@pytest.mark.parametrize("dimensions", ["XYM", "XYZM"])
def test_measures_are_kept(store: TableStore, dimensions: Dimensions) -> None:
    code = {"XYM": 2001, "XYZM": 3001}[dimensions]
    value = b"\x01" + code.to_bytes(4, "little") + np.arange(1.0, len(dimensions) + 1).astype("<f8").tobytes()
    table = definition("measured", (), geometry=GeometryColumn(type="Point", dimensions=dimensions))
    load(store, table, rows_of(table, {}, [value]))
    assert contents(store, table)["geom"].to_pylist() == [value]
    facts = store.describe("geo", "measured")
    assert facts.geometries[0].dimensions == dimensions
    assert facts.bbox == (1.0, 2.0, 1.0, 2.0)


def test_one_column_takes_several_kinds(store: TableStore) -> None:
    table = definition("mixed", (), geometry=GeometryColumn(type="Geometry"))
    shapes = [shapely.from_wkt(text) for text in _SHAPES.values()]
    load(store, table, rows_of(table, {}, shapes))
    read = contents(store, table)["geom"].to_pylist()
    assert [shapely.to_wkt(shapely.from_wkb(value)) for value in read] == [shapely.to_wkt(shape) for shape in shapes]
    facts = store.describe("geo", "mixed")
    assert facts.geometries[0].type == "Geometry"
    assert facts.geometry_types == tuple(sorted(_SHAPES))


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (GeometryColumn(type="Point"), "LINESTRING (0 0, 1 1)"),
        (GeometryColumn(type="MultiPolygon"), "POLYGON ((0 0, 1 0, 1 1, 0 0))"),
        (GeometryColumn(type="Point"), "POINT Z (1 2 3)"),
        (GeometryColumn(type="Geometry"), "POINT Z (1 2 3)"),
        (GeometryColumn(type="Point", dimensions="XYZ"), "POINT (1 2)"),
        (GeometryColumn(type="Point"), None),
    ],
)
def test_a_geometry_of_another_type_is_refused(store: TableStore, column: GeometryColumn, wrong: str | None) -> None:
    table = definition("strict", (), geometry=column)
    staged = store.begin(table, "create")
    value = b"no WKB at all" if wrong is None else shapely.from_wkt(wrong)
    with pytest.raises(TableDataError):
        store.load_chunk(staged, 0, [rows_of(table, {}, [value])])
    with pytest.raises(TableDataError):
        store.publish([staged], [table_load(1)], chunks=[1])
    assert store.list_tables("geo") == []


ODD_NAMES = [
    "plain",
    'with"quotes"',
    "it's",
    "UPPER and space",
    "ünïcode_😀",
    "x" * 63,
    "ü" * 31,
    "select",
    "percent%s{}$1",
    "a.b",
    "-- x; drop table y",
]


@pytest.mark.parametrize("odd", ODD_NAMES)
def test_any_name_is_kept(store: TableStore, odd: str) -> None:
    columns = (Column(name=odd, type=ColumnType.TEXT, source_name=f"{odd} there"),)
    table = definition(odd, columns, schema="geo", geometry=GeometryColumn(name="g" + odd[:30], type="Point"))
    batch = rows_of(table, {odd: ["a", None]}, [shapely.Point(1, 2), None])
    published = load(store, table, batch)
    assert (published.schema, published.table) == ("geo", odd)
    assert store.list_tables("geo") == [odd]
    assert contents(store, table).equals(pa.Table.from_batches([batch]))
    assert store.describe("geo", odd).columns[1].name == odd
    load(store, table, batch, mode="append")
    load(store, table, batch, mode="overwrite")
    assert store.drop("geo", odd)
    assert store.list_tables("geo") == []


def test_columns_may_have_the_names_the_store_likes(store: TableStore) -> None:
    likes = ["bbox", "bbox.xmin", "geo", "version", "ctid", "tableoid", "rows", "token", "chunk", "Bbox_2"]
    wanted = [name for name in likes if store.kind == "geoparquet" or name not in ("ctid", "tableoid")]
    table = definition("liked", [Column(name=name, type=ColumnType.INTEGER, source_name=name) for name in wanted])
    batch = rows_of(table, {name: [number] for number, name in enumerate(wanted)}, [shapely.Point(1, 2)])
    load(store, table, batch)
    assert contents(store, table).equals(pa.Table.from_batches([batch]))
    assert store.describe("geo", "liked").bbox == (1.0, 2.0, 1.0, 2.0)


@hypothesis_settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_values_they_are_read_back_equal(store: TableStore, data: st.DataObject) -> None:
    text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
    values = {
        "b": st.binary(),
        "d": st.floats(allow_nan=False),
        "i": st.integers(-(2**63), 2**63 - 1),
        "t": text,
        "z": st.datetimes(min_value=datetime(1583, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    }
    types = [ColumnType.BINARY, ColumnType.DOUBLE, ColumnType.BIGINT, ColumnType.TEXT, ColumnType.TIMESTAMPTZ]
    table = definition(
        "drawn", [Column(name=name, type=kind, source_name=name) for name, kind in zip(values, types, strict=True)]
    )
    count = data.draw(st.integers(0, 5))
    columns = {
        name: data.draw(st.lists(st.none() | strategy, min_size=count, max_size=count))
        for name, strategy in values.items()
    }
    finite = st.floats(-1e300, 1e300)
    where = data.draw(st.lists(st.none() | st.builds(shapely.Point, finite, finite), min_size=count, max_size=count))
    batch = rows_of(table, columns, where)
    load(store, table, batch, mode="overwrite")
    assert contents(store, table).equals(pa.Table.from_batches([batch]))


# --- modes ------------------------------------------------------------------------------------------------------


def test_a_table_is_made(store: TableStore, opener: Opener) -> None:
    published = load(store, PLACES, points(PLACES, 3), points(PLACES, 2, first_id=4))
    assert (published.schema, published.table, published.rows, published.rows_loaded) == ("geo", "places", 5, 5)
    assert not published.replaced
    assert store.list_tables("geo") == ["places"]
    other = opener()
    assert other.check_target("geo", "places", "overwrite") == published.version
    assert other.describe("geo", "places").href == published.href
    assert ids(contents(other, PLACES)) == [1, 2, 3, 4, 5]


def test_an_existing_table_is_refused(store: TableStore) -> None:
    load(store, PLACES, points(PLACES, 3))
    with pytest.raises(TableExistsError, match=r"geo\.places.*overwrite"):
        store.check_target("geo", "places", "create")
    with pytest.raises(TableExistsError, match=r"geo\.places"):
        store.begin(PLACES, "create")
    assert names(store) == ["1", "2", "3"]


def test_a_table_that_came_to_be_meanwhile_is_refused(store: TableStore) -> None:
    staged = stage(store, PLACES, [points(PLACES, 1)])
    load(store, PLACES, points(PLACES, 3))
    with pytest.raises(TableExistsError, match=r"geo\.places"):
        store.publish([staged], [table_load(1)], chunks=[1])
    assert names(store) == ["1", "2", "3"]


def test_a_table_is_overwritten(store: TableStore) -> None:
    first = load(store, PLACES, points(PLACES, 3), key="one")
    other = definition(columns=[Column(name="height", type=ColumnType.DOUBLE, source_name="h")], geometry=None)
    second = load(store, other, rows_of(other, {"height": [1.5]}), mode="overwrite", key="two")
    assert second.replaced
    assert second.version != first.version
    assert (second.rows, second.rows_loaded) == (1, 1)
    assert contents(store, other)["height"].to_pylist() == [1.5]
    record = store.record("geo", "places")
    assert record is not None
    assert [one.key for one in record.loads] == ["two"]
    assert record.columns["height"] == "h"
    assert store.describe("geo", "places").geometries == ()


def test_overwrite_and_append_make_a_table_that_is_not_there(store: TableStore) -> None:
    for mode in ("overwrite", "append"):
        table = definition(mode)
        published = load(store, table, points(table, 2), mode=mode)
        assert not published.replaced
        assert ids(contents(store, table)) == [1, 2]


def test_rows_are_added(store: TableStore) -> None:
    first = load(store, PLACES, points(PLACES, 3), key="one", job_id="j1")
    second = load(store, PLACES, points(PLACES, 2, name="n"), points(PLACES, 1, first_id=3), mode="append", key="two")
    assert second.replaced
    assert second.version != first.version
    assert (second.rows, second.rows_loaded) == (6, 3)
    third = load(store, PLACES, points(PLACES, 1, name="last"), mode="append", key="three", job_id="j3")
    assert third.rows == 7
    read = contents(store, PLACES)
    assert read["name"].to_pylist() == ["1", "2", "3", "n1", "n2", "3", "last1"]
    assert ids(read)[:3] == [1, 2, 3]
    assert len(set(ids(read))) == 7
    assert sorted(ids(read)) == ids(read)
    record = store.record("geo", "places")
    assert record is not None
    assert record.version == third.version
    assert [(one.key, one.job_id, one.rows) for one in record.loads] == [
        ("one", "j1", 3),
        ("two", "job", 3),
        ("three", "j3", 1),
    ]
    assert record.loads[0] == table_load(3, "one", "j1")
    for job_id, found in (("j1", ["places"]), ("job", ["places"]), ("none", [])):
        assert [one.table for one in store.loaded_by(job_id)] == found


def test_columns_may_come_in_another_order(store: TableStore) -> None:
    columns = [Column(name=name, type=ColumnType.TEXT, source_name=name) for name in "abc"]
    table, turned = definition(columns=columns), definition(columns=columns[::-1])
    load(store, table, rows_of(table, {"a": ["a"], "b": ["b"], "c": ["c"]}, [None]))
    load(store, turned, rows_of(turned, {"a": ["A"], "b": ["B"], "c": ["C"]}, [None]), mode="append")
    read = contents(store, table)
    assert [read[name].to_pylist() for name in "abc"] == [["a", "A"], ["b", "B"], ["c", "C"]]


def test_rows_that_do_not_fit_are_refused_with_every_difference_named(store: TableStore) -> None:
    table = definition(
        columns=[
            Column(name="kept", type=ColumnType.TEXT, source_name="kept"),
            Column(name="count", type=ColumnType.INTEGER, source_name="count"),
        ],
        geometry=GeometryColumn(type="MultiPolygon", srid=25832),
    )
    load(store, table)
    rows = replace(
        table,
        columns=(
            table.columns[0],
            replace(table.columns[1], type=ColumnType.TEXT),
            replace(PLACES.columns[0], name="fresh"),
        ),
        geometry=GeometryColumn(type="Point", srid=4326),
    )
    with pytest.raises(TableSchemaError) as caught:
        store.begin(rows, "append")
    message = str(caught.value)
    for told in ("geo.places", "count", "fresh", "integer", "text", "MultiPolygon", "Point", "25832", "4326"):
        assert told in message, told
    assert "kept" not in message
    with pytest.raises(TableSchemaError, match="geom"):
        store.begin(replace(table, geometry=None), "append")
    assert store.describe("geo", "places").row_count == 0


def _typed(kinds: dict[str, ColumnType], geometry: GeometryColumn) -> TableDefinition:
    scale = {"n": 3}
    columns = [
        Column(name=name, type=kind, source_name=name, scale=scale.get(name, 0) if kind is ColumnType.NUMERIC else 0)
        for name, kind in kinds.items()
    ]
    return definition("series", columns, geometry=geometry)


def test_the_next_file_of_a_series_fits_though_its_types_are_smaller(store: TableStore) -> None:
    table = _typed(
        {"i": ColumnType.INTEGER, "n": ColumnType.NUMERIC, "d": ColumnType.DOUBLE, "f": ColumnType.DOUBLE,
         "t": ColumnType.TIMESTAMPTZ, "s": ColumnType.TEXT},
        GeometryColumn(type="MultiPolygon", dimensions="XYZ"),
    )  # fmt: skip
    load(store, table)
    rows = _typed(
        {"s": ColumnType.TEXT, "i": ColumnType.BIGINT, "n": ColumnType.SMALLINT, "d": ColumnType.INTEGER,
         "f": ColumnType.REAL, "t": ColumnType.TEXT},
        GeometryColumn(type="Polygon"),
    )  # fmt: skip
    staged = store.begin(rows, "append")
    fitted = staged.definition
    assert fitted.geometry == table.geometry
    assert [column.name for column in fitted.columns] == list("sindft")
    assert {(column.name, column.type, column.scale) for column in fitted.columns} == {
        (column.name, column.type, column.scale) for column in table.columns
    }
    shape = shapely.from_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0))")
    values: dict[str, list[Any]] = {"s": ["x"], "i": [7], "n": [8], "d": [9], "f": [0.5], "t": [None]}
    batch = fit_batch(rows_of(rows, values, [shape]), fitted.chunk_schema)
    assert fitted.geometry is not None
    shapes = conform(batch["geom"], type=fitted.geometry.type, dimensions=fitted.geometry.dimensions)
    store.load_chunk(staged, 0, [batch.set_column(batch.num_columns - 1, "geom", shapes)])
    store.publish([staged], [table_load(1)], chunks=[1])
    [row] = contents(store, table).drop_columns("geom").to_pylist()
    assert row == {"id": 1, "i": 7, "n": 8, "d": 9.0, "f": 0.5, "t": None, "s": "x"}
    facts = store.describe("geo", "series")
    assert (facts.geometry_types, facts.geometries[0].dimensions) == (("MultiPolygon",), "XYZ")


@pytest.mark.parametrize(
    ("there", "rows", "told"),
    [
        (ColumnType.TIMESTAMP, ColumnType.DATE, "timestamp.*date"),
        (ColumnType.REAL, ColumnType.DOUBLE, "real.*double"),
        (ColumnType.TEXT, ColumnType.INTEGER, "text.*integer"),
        (ColumnType.BIGINT, ColumnType.NUMERIC, "bigint.*numeric"),
    ],
)
def test_what_would_lose_something_is_not_appended(
    store: TableStore, there: ColumnType, rows: ColumnType, told: str
) -> None:
    load(store, _typed({"v": there}, GeometryColumn(type="Polygon", dimensions="XYZ")))
    with pytest.raises(TableSchemaError, match=told):
        store.begin(_typed({"v": rows}, GeometryColumn(type="Polygon", dimensions="XYZ")), "append")
    for other in (
        GeometryColumn(type="MultiPolygon", dimensions="XYZ"),
        GeometryColumn(type="Polygon", dimensions="XYM"),
    ):
        with pytest.raises(TableSchemaError, match=r"geom|dimensions"):
            store.begin(_typed({"v": there}, other), "append")


# --- chunks -----------------------------------------------------------------------------------------------------


def test_chunks_come_in_any_order_from_any_process(opener: Opener) -> None:
    chunks = [points(PLACES, 7, first_id=1 + 7 * number) for number in range(12)]
    staged = opener().begin(PLACES, "create").as_dict()
    order = list(range(12))
    random.Random(4).shuffle(order)

    def load_one(number: int) -> int:
        halves = [chunks[number].slice(0, 3), chunks[number].slice(3)]
        return opener().load_chunk(StagedTable.from_dict(staged), number, halves)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load_one, order)) == [7] * 12
    store = opener()
    store.publish([StagedTable.from_dict(staged)], [table_load(84)], chunks=[12])
    assert ids(contents(store, PLACES)) == list(range(1, 85))


def test_a_doubled_chunk_counts_once(store: TableStore) -> None:
    staged = stage(store, PLACES, [points(PLACES, 3)])

    def never() -> Iterator[pa.RecordBatch]:
        yield points(PLACES, 3, name="other")

    assert store.load_chunk(staged, 0, never()) == 3
    store.publish([staged], [table_load(3)], chunks=[1])
    assert names(store) == ["1", "2", "3"]


def test_a_chunk_loaded_several_times_at_once_counts_once(opener: Opener) -> None:
    store = opener()
    staged = store.begin(PLACES, "create")
    barrier = threading.Barrier(4)

    def load_it(_: int) -> int:
        other = opener()
        barrier.wait()
        return other.load_chunk(staged, 0, [points(PLACES, 500), points(PLACES, 500, first_id=501)])

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(load_it, range(4))) == [1000] * 4
    store.publish([staged], [table_load(1000)], chunks=[1])
    assert ids(contents(store, PLACES)) == list(range(1, 1001))


def test_a_chunk_that_broke_off_is_loaded_again(store: TableStore) -> None:
    staged = store.begin(PLACES, "create")

    def breaks() -> Iterator[pa.RecordBatch]:
        yield points(PLACES, 3)
        raise RuntimeError("the source is gone")

    with pytest.raises(RuntimeError, match="the source is gone"):
        store.load_chunk(staged, 0, breaks())
    with pytest.raises(TableDataError, match=r"geo\.places"):
        store.publish([staged], [table_load(3)], chunks=[1])
    assert store.load_chunk(staged, 0, [points(PLACES, 4)]) == 4
    store.publish([staged], [table_load(4)], chunks=[1])
    assert ids(contents(store, PLACES)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("loaded", "chunks", "rows"),
    [([0, 2], 3, 6), ([0], 2, 3), ([], 1, 0), ([0, 1, 2], 2, 9), ([0, 1], 2, 7), ([0, 1], 2, 5)],
)
def test_what_is_missing_or_too_much_is_not_published(
    store: TableStore, loaded: list[int], chunks: int, rows: int
) -> None:
    staged = store.begin(PLACES, "create")
    for number in loaded:
        store.load_chunk(staged, number, [points(PLACES, 3, first_id=1 + 3 * number)])
    with pytest.raises(TableDataError, match=r"geo\.places"):
        store.publish([staged], [table_load(rows)], chunks=[chunks])
    assert store.list_tables("geo") == []
    for number in range(3):
        store.load_chunk(staged, number, [points(PLACES, 3, first_id=1 + 3 * number)])
    store.publish([staged], [table_load(9)], chunks=[3])
    assert names(store) == [str(number) for number in range(1, 10)]


def test_the_same_row_in_two_chunks_is_refused(store: TableStore) -> None:
    staged = store.begin(PLACES, "create")
    store.load_chunk(staged, 0, [points(PLACES, 3)])
    with pytest.raises(TableDataError):  # noqa: PT012 - the one store sees it at once, the other when all are there
        store.load_chunk(staged, 1, [points(PLACES, 3, first_id=3)])
        store.publish([staged], [table_load(6)], chunks=[2])
    assert store.list_tables("geo") == []


def test_an_empty_table(store: TableStore) -> None:
    for name, chunks in (("no_chunks", []), ("empty_chunk", [points(PLACES, 0)])):
        table = definition(name)
        published = load(store, table, *chunks)
        assert published.rows == 0
        assert contents(store, table).num_rows == 0
        for exact in (True, False):
            facts = store.describe("geo", name, exact=exact)
            assert (facts.row_count, facts.bbox, facts.native_bbox, facts.footprint) == (0, None, None, None)
            assert facts.geometry_types == ()
            assert facts.geometries[0].type == "Point"
        load(store, table, points(table, 2), mode="append")
        assert ids(contents(store, table)) == [1, 2]


def test_a_table_without_geometry(store: TableStore) -> None:
    table = definition(geometry=None)
    load(store, table, rows_of(table, {"name": ["a", "b"]}))
    facts = store.describe("geo", "places")
    assert (facts.geometries, facts.described, facts.bbox, facts.footprint) == ((), None, None, None)
    assert facts.row_count == 2
    with pytest.raises(ParameterError, match="geom"):
        store.describe("geo", "places", geometry_column="geom")
    load(store, table, rows_of(table, {"name": ["c"]}), mode="append", cluster=True)
    assert contents(store, table)["name"].to_pylist() == ["a", "b", "c"]


def test_clustering_moves_rows_and_loses_none(store: TableStore) -> None:
    chance = random.Random(7)
    where = [shapely.Point(chance.uniform(-180, 180), chance.uniform(-85, 85)) for _ in range(400)]
    where[5] = None
    batch = rows_of(PLACES, {"name": [str(number) for number in range(400)]}, where)
    load(store, PLACES, batch.slice(0, 250), batch.slice(250), cluster=True)
    assert contents(store, PLACES).equals(pa.Table.from_batches([batch]))


def test_rows_are_read_up_to_a_limit(store: TableStore) -> None:
    load(store, PLACES, points(PLACES, 30), points(PLACES, 30, first_id=31))
    for limit in (0, 1, 30, 31, 60, 100):
        read = [row for batch in store.read("geo", "places", limit=limit) for row in batch["id"].to_pylist()]
        assert read == list(range(1, min(limit, 60) + 1))


@pytest.mark.parametrize("cluster", [False, True])
def test_ids_of_chunks_may_lie_between_each_other(store: TableStore, cluster: bool) -> None:  # noqa: FBT001
    every = range(1, 200_001)
    # rows without a geometry come in a chunk of their own
    of_chunks = [[n for n in every if n % 7 and n <= 100_000], [n for n in every if not n % 7]]
    of_chunks.append([n for n in every if n % 7 and n > 100_000])
    table = definition("between", ())
    chunks = []
    for of_chunk in of_chunks:
        batch = rows_of(table, {}, [None] * len(of_chunk))
        chunks.append(batch.set_column(0, "id", pa.array(of_chunk, pa.int64())))
    staged = stage(store, table, chunks)
    [published] = store.publish([staged], [table_load(200_000)], chunks=[3], cluster=cluster)
    assert published.rows == 200_000
    assert ids(contents(store, table)) == list(every)


@pytest.mark.parametrize("cluster", [False, True])
@pytest.mark.parametrize("again", [1, 70_001, 140_000])
def test_an_id_that_is_there_twice_is_refused(store: TableStore, again: int, cluster: bool) -> None:  # noqa: FBT001
    table = definition("twice", ())
    of_chunks: list[list[int]] = [list(range(1, 140_000, 2)), sorted({*range(2, 140_001, 2), again} - {140_000})]
    of_chunks.append([140_000])
    chunks = []
    for of_chunk in of_chunks:
        batch = rows_of(table, {}, [None] * len(of_chunk))
        chunks.append(batch.set_column(0, "id", pa.array(of_chunk, pa.int64())))
    if again == 140_000:
        chunks[0] = chunks[2]
    rows = sum(chunk.num_rows for chunk in chunks)
    staged = stage(store, table, chunks)
    with pytest.raises(TableDataError, match=str(again)):
        store.publish([staged], [table_load(rows)], chunks=[3], cluster=cluster)
    assert store.list_tables("geo") == []


# --- publishing -------------------------------------------------------------------------------------------------


def test_publishing_again_finds_it_done(store: TableStore, opener: Opener) -> None:
    staged = stage(store, PLACES, [points(PLACES, 3)])
    [first] = store.publish([staged], [table_load(3)], chunks=[1])
    [again] = opener().publish([StagedTable.from_dict(staged.as_dict())], [table_load(3)], chunks=[1])
    assert again == first
    record = store.record("geo", "places")
    assert record is not None
    assert len(record.loads) == 1


def test_tables_are_published_together(store: TableStore) -> None:
    one, two = definition("one"), definition("two")
    load(store, two, points(two, 9))
    stagings = [
        stage(store, one, [points(one, 3)]),
        stage(store, two, [points(two, 2), points(two, 1, first_id=3)], "overwrite"),
    ]
    published = store.publish(stagings, [table_load(3), table_load(3)], chunks=[1, 2])
    assert [(one.table, one.rows, one.replaced) for one in published] == [("one", 3, False), ("two", 3, True)]
    assert store.list_tables("geo") == ["one", "two"]
    assert [record.table for record in store.loaded_by("job")] == ["one", "two"]
    assert sorted(store.records(), key=lambda record: record.table) == store.loaded_by("job")


@pytest.mark.parametrize("problem", ["rows", "chunks", "exists", "gone"])
def test_tables_are_published_together_or_not_at_all(store: TableStore, problem: str) -> None:
    one, two = definition("one"), definition("two")
    before = load(store, one, points(one, 5))
    stagings = [stage(store, one, [points(one, 3)], "overwrite"), stage(store, two, [points(two, 2)])]
    if problem == "exists":
        load(store, two, points(two, 7))
    if problem == "gone":
        store.discard([stagings[1].token])
    with pytest.raises(TableError):
        store.publish(
            stagings,
            [table_load(3), table_load(3 if problem == "rows" else 2)],
            chunks=[1, 2 if problem == "chunks" else 1],
        )
    assert store.check_target("geo", "one", "overwrite") == before.version
    assert names(store, one) == ["1", "2", "3", "4", "5"]
    assert store.list_tables("geo") == (["one", "two"] if problem == "exists" else ["one"])


@pytest.mark.parametrize("mode", ["create", "overwrite", "append"])
def test_of_two_loads_at_once_one_wins(opener: Opener, mode: str) -> None:
    store = opener()
    if mode != "create":
        load(store, PLACES, points(PLACES, 2, name="old"))
    chunks = [points(PLACES, 40, name=str(number)) for number in range(4)]
    stagings = [stage(store, PLACES, [chunk], mode) for chunk in chunks]  # type: ignore[arg-type]
    barrier = threading.Barrier(4)

    def publish(staged: StagedTable) -> str | None:
        other = opener()
        barrier.wait()
        try:
            [published] = other.publish([staged], [table_load(40)], chunks=[1])
        except (PreconditionFailedError, TableExistsError):
            return None
        return published.version

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(publish, stagings))
    [winner] = [number for number, version in enumerate(found) if version is not None]
    record = store.record("geo", "places")
    assert record is not None
    assert record.version == found[winner]
    read = names(store)
    assert read[-40:] == [f"{winner}{number}" for number in range(1, 41)]
    assert len(read) == (42 if mode == "append" else 40)


def test_a_table_that_went_meanwhile_is_not_replaced(store: TableStore) -> None:
    load(store, PLACES, points(PLACES, 3))
    staged = stage(store, PLACES, [points(PLACES, 1)], "append")
    assert store.drop("geo", "places")
    with pytest.raises(PreconditionFailedError, match=r"geo\.places"):
        store.publish([staged], [table_load(1)], chunks=[1])
    assert store.list_tables("geo") == []


def test_readers_see_the_old_table_or_the_new_one(opener: Opener) -> None:
    store = opener()
    load(store, PLACES, points(PLACES, 50, name="v0-"), points(PLACES, 50, first_id=51, name="v0-"))
    over = threading.Event()
    seen: set[str] = set()

    def look() -> int:
        other, looks = opener(), 0
        while not over.is_set():
            read = names(other)
            [version] = {name.partition("-")[0] for name in read}
            assert len(read) == 100
            seen.add(version)
            assert other.describe("geo", "places").row_count == 100
            looks += 1
        return looks

    with ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look) for _ in range(2)]
        for number in range(1, 9):
            name = f"v{number}-"
            load(
                store,
                PLACES,
                points(PLACES, 50, name=name),
                points(PLACES, 50, first_id=51, name=name),
                mode="overwrite",
            )
        over.set()
        assert all(future.result() > 0 for future in looking)
    assert len(seen) > 1


# --- going away -------------------------------------------------------------------------------------------------


def test_a_discarded_staging_is_lost(store: TableStore) -> None:
    staged = stage(store, PLACES, [points(PLACES, 3)])
    store.discard([staged.token])
    store.discard([staged.token])
    with pytest.raises(StagingLostError, match=r"geo\.places"):
        store.load_chunk(staged, 1, [points(PLACES, 3, first_id=4)])
    with pytest.raises(StagingLostError, match=r"geo\.places"):
        store.publish([staged], [table_load(3)], chunks=[1])
    assert store.list_tables("geo") == []


def test_a_published_staging_takes_no_more_chunks(store: TableStore) -> None:
    staged = stage(store, PLACES, [points(PLACES, 3)])
    store.publish([staged], [table_load(3)], chunks=[1])
    with pytest.raises(StagingLostError, match=r"geo\.places"):
        store.load_chunk(staged, 1, [points(PLACES, 3, first_id=4)])
    store.discard([staged.token])
    assert names(store) == ["1", "2", "3"]


def test_old_stagings_are_swept_and_young_ones_stay(store: TableStore) -> None:
    load(store, PLACES, points(PLACES, 3))
    staged = stage(store, PLACES, [points(PLACES, 1)], "overwrite")
    assert store.sweep(older_than_seconds=3600) == 0
    store.load_chunk(staged, 1, [points(PLACES, 1, first_id=2)])
    stage(store, definition("other"), [points(PLACES, 1)])
    assert store.sweep(older_than_seconds=-1, dry_run=True) == 2
    assert store.sweep(older_than_seconds=-1) == 2
    with pytest.raises(StagingLostError, match=r"geo\.places"):
        store.publish([staged], [table_load(2)], chunks=[2])
    assert names(store) == ["1", "2", "3"]


def test_a_table_is_dropped_in_the_version_that_was_meant(store: TableStore) -> None:
    first = load(store, PLACES, points(PLACES, 3))
    second = load(store, PLACES, points(PLACES, 3), mode="overwrite")
    with pytest.raises(PreconditionFailedError, match=r"geo\.places"):
        store.drop("geo", "places", versions=[first.version])
    with pytest.raises(PreconditionFailedError, match=r"geo\.places"):
        store.drop("geo", "places", versions=[])
    assert store.list_tables("geo") == ["places"]
    assert store.drop("geo", "places", versions=[first.version, second.version])
    assert not store.drop("geo", "places", versions=[second.version])
    assert store.list_tables("geo") == []
    assert store.record("geo", "places") is None
    third = load(store, PLACES, points(PLACES, 1))
    assert third.version not in (first.version, second.version)
    assert store.drop("geo", "places")


def test_a_table_as_it_was_loaded_is_untouched(store: TableStore) -> None:
    assert not store.touched("geo", "places")
    assert store.blockers("geo", "places") == []
    load(store, PLACES)
    assert not store.touched("geo", "places")
    load(store, PLACES, points(PLACES, 3), points(PLACES, 2, first_id=4), mode="append", cluster=True)
    load(store, PLACES, mode="append")
    assert not store.touched("geo", "places")
    load(store, PLACES, points(PLACES, 2), mode="overwrite")
    assert not store.touched("geo", "places")
    assert store.blockers("geo", "places") == []


# --- describing -------------------------------------------------------------------------------------------------


def test_facts_of_a_table(store: TableStore) -> None:
    table = definition("facts", [Column(name="seen", type=ColumnType.TIMESTAMPTZ, source_name="Seen")])
    seen = [datetime(2021, 5, 1, 12, tzinfo=UTC), None, datetime(1999, 12, 31, 23, 59, 59, 500000, tzinfo=UTC)]
    published = load(store, table, rows_of(table, {"seen": seen}, [shapely.Point(5, 50), None, shapely.Point(7, 48)]))
    facts = store.describe("geo", "facts", datetime_column="seen")
    assert (facts.schema, facts.table, facts.row_count, facts.exact) == ("geo", "facts", 3, True)
    assert (facts.described, facts.version, facts.href) == ("geom", published.version, published.href)
    assert facts.record == store.record("geo", "facts")
    assert facts.geometry_types == ("Point",)
    assert facts.bbox == facts.native_bbox == (5.0, 48.0, 7.0, 50.0)
    assert facts.footprint is not None
    assert shapely.geometry.shape(facts.footprint).bounds == (5.0, 48.0, 7.0, 50.0)
    assert facts.datetime_range == ("1999-12-31T23:59:59.500000Z", "2021-05-01T12:00:00Z")
    assert "@" not in facts.href


@pytest.mark.parametrize("wanted", ["absent", "name"])
def test_a_column_that_holds_no_dates_is_refused(store: TableStore, wanted: str) -> None:
    load(store, PLACES, points(PLACES, 1))
    with pytest.raises(ParameterError, match=wanted):
        store.describe("geo", "places", datetime_column=wanted)
    with pytest.raises(ParameterError, match="elsewhere"):
        store.describe("geo", "places", geometry_column="elsewhere")
    assert store.describe("geo", "places", geometry_column="geom").described == "geom"


def test_dates_without_a_zone_count_as_utc(store: TableStore) -> None:
    kinds = {"d": ColumnType.DATE, "t": ColumnType.TIMESTAMP, "n": ColumnType.DATE}
    table = definition("dated", [Column(name=name, type=kind, source_name=name) for name, kind in kinds.items()])
    days = [datetime(2020, 2, 29).date(), datetime(2020, 3, 1).date()]  # noqa: DTZ001
    moments = [datetime(2020, 2, 29, 6), datetime(2020, 3, 1, 7)]  # noqa: DTZ001
    load(store, table, rows_of(table, {"d": days, "t": moments, "n": [None, None]}, [None, None]))
    assert store.describe("geo", "dated", datetime_column="d").datetime_range == (
        "2020-02-29T00:00:00Z",
        "2020-03-01T00:00:00Z",
    )
    assert store.describe("geo", "dated", datetime_column="t").datetime_range == (
        "2020-02-29T06:00:00Z",
        "2020-03-01T07:00:00Z",
    )
    assert store.describe("geo", "dated", datetime_column="n").datetime_range is None


def test_points_across_the_antimeridian(store: TableStore) -> None:
    table = definition("pacific", ())
    load(
        store, table, rows_of(table, {}, [shapely.Point(178, -18), shapely.Point(-175, -21), shapely.Point(-179, -15)])
    )
    facts = store.describe("geo", "pacific")
    assert facts.bbox == (178.0, -21.0, -175.0, -15.0)
    assert facts.native_bbox == (-179.0, -21.0, 178.0, -15.0)
    assert facts.footprint is not None
    assert facts.footprint["type"] == "MultiPolygon"


@pytest.mark.parametrize("exact", [True, False])
def test_a_table_in_another_crs_lies_where_it_lies(store: TableStore, exact: bool) -> None:  # noqa: FBT001
    table = definition("utm", (), geometry=GeometryColumn(type="Point", srid=25832))
    east, north = [601_000.0, 700_000.0, 650_000.0], [5_340_000.0, 5_400_000.0, 5_300_000.0]
    load(store, table, rows_of(table, {}, [shapely.Point(*xy) for xy in zip(east, north, strict=True)]))
    facts = store.describe("geo", "utm", exact=exact)
    assert facts.geometries[0].srid == 25832
    assert facts.row_count == 3
    assert facts.native_bbox == pytest.approx((601_000.0, 5_300_000.0, 700_000.0, 5_400_000.0), rel=1e-6)
    # corner by corner with PROJ 9: 10.36 and 11.76 east, 47.8 and 48.7 north
    assert facts.bbox is not None
    west, south, east_, north_ = facts.bbox
    assert 10.3 < west < 10.4
    assert 47.8 < south < 47.86
    assert 11.65 < east_ < 11.8
    assert 48.7 < north_ < 48.8


def test_estimates_are_told_from_counts(store: TableStore) -> None:
    load(store, PLACES, points(PLACES, 60))
    exact, estimated = store.describe("geo", "places"), store.describe("geo", "places", exact=False)
    assert exact.exact
    assert not estimated.exact
    assert estimated.row_count == exact.row_count == 60
    assert estimated.bbox is not None
    assert exact.bbox is not None
    assert estimated.bbox == pytest.approx(exact.bbox, abs=1.0)
    assert estimated.footprint is not None


def test_a_table_of_null_geometries(store: TableStore) -> None:
    load(store, PLACES, rows_of(PLACES, {"name": ["a", "b"]}, [None, None]))
    for exact in (True, False):
        facts = store.describe("geo", "places", exact=exact)
        assert (facts.bbox, facts.native_bbox, facts.footprint, facts.geometry_types) == (None, None, None, ())
        assert facts.row_count == 2


def test_an_empty_point_is_nowhere(store: TableStore) -> None:
    load(store, PLACES, rows_of(PLACES, {"name": ["a", "b"]}, [shapely.Point(), shapely.Point(3, 4)]))
    facts = store.describe("geo", "places")
    assert facts.bbox == (3.0, 4.0, 3.0, 4.0)
    read = contents(store, PLACES)["geom"].to_pylist()
    assert shapely.from_wkb(read[0]).is_empty
