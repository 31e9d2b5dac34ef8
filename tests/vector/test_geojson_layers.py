"""GeoJSON as layers: against OGR, both ways of parsing against each other, and the faults of real files."""

import datetime as dt
import itertools
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import geojson_layers, geojson_text
from geo_assets.vector.geojson_layers import _Features, _UnlikeError
from geo_assets.vector.geojson_shapes import DEPTHS, IrregularError, encode, pack
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SchemaWidenedError
from geo_assets.vector.text_values import JSON, WHOLE
from tests.vector import reading
from tests.vector.reading import column, wkt
from tests.vector.vectors import real

POINT = {"type": "Point", "coordinates": [2, 1]}


def opened(path: Path, text: Any = None, **options: Any) -> Layer:
    if text is not None:
        text = json.dumps(text) if isinstance(text, dict) else text
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    (layer,) = geojson_layers.open_layers(path, stem=path.stem, **options)
    return layer


def read(path: Path, text: Any = None, **options: Any) -> tuple[Layer, pa.Table]:
    return reading.read(lambda types: opened(path, text, types=types, **options))


def collection(*properties: Any, geometry: Any = POINT, **members: Any) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": one, "geometry": geometry} for one in properties]
    return {"type": "FeatureCollection", "features": features, **members}


def shaped(*geometries: Any) -> dict[str, Any]:
    features = [{"type": "Feature", "properties": {"n": at}, "geometry": one} for at, one in enumerate(geometries)]
    return {"type": "FeatureCollection", "features": features}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places.geojson"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geojson_text, "_BLOCK", 4096)


# --- against another reader ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1 << 14, 1 << 22])
def test_countries_are_those_that_ogr_reads(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(geojson_text, "_BLOCK", block)
    layer, table = read(real("countries_50m.geojson"))
    wanted = geopandas.read_file(real("countries_50m.geojson"), engine="pyogrio")
    assert table.num_rows == len(wanted) == 241
    assert layer.crs is not None
    assert layer.crs.to_epsg() == 4326
    for name in ("id", "name"):
        assert column(table, name) == [value if isinstance(value, str) else None for value in wanted[name]]
    shapes = shapely.from_wkb(table[GEOMETRY].to_numpy())
    assert shapely.equals_identical(shapes, wanted.geometry.to_numpy()).all()


def test_what_geopandas_wrote_is_read(path: Path) -> None:
    generator = np.random.default_rng(7)
    points = shapely.points(generator.uniform(-90, 90, (5000, 2)))
    shapes = np.where(np.arange(5000) % 3 == 0, shapely.buffer(points, 1), points)
    shapes[::7] = shapely.linestrings(generator.uniform(-90, 90, (len(shapes[::7]), 4, 2)))
    shapes[::11] = shapely.multipoints(generator.uniform(-90, 90, (len(shapes[::11]), 3, 2)).tolist())
    shapes[::13] = None
    frame = geopandas.GeoDataFrame(
        {"n": np.arange(5000), "x": generator.normal(size=5000), "text": [f'ä\\"{at}{{[' for at in range(5000)]},
        geometry=shapes,
        crs=4326,
    )
    path.write_text(frame.to_json(), encoding="utf-8")
    _, table = read(path)
    assert column(table, "n") == list(range(5000))
    assert column(table, "x") == frame["x"].tolist()
    assert column(table, "text") == frame["text"].tolist()
    ours = shapely.from_wkb(table[GEOMETRY].to_numpy())
    assert (shapely.is_missing(ours) == shapely.is_missing(shapes)).all()
    known = ~shapely.is_missing(shapes)
    assert shapely.equals_identical(ours[known], shapes[known]).all()


def test_ogr_writes_what_we_read(path: Path) -> None:
    frame = geopandas.GeoDataFrame(
        {"day": [dt.date(2024, 1, 2), dt.date(1999, 12, 31)], "zip": ["00123", "99950"], "huge": [2**62, -5]},
        geometry=shapely.points([[400_000, 5_700_000], [400_001, 5_700_001]]),
        crs=25832,
    )
    frame.to_file(path, driver="GeoJSON", engine="pyogrio")
    layer, table = read(path)
    assert layer.crs is not None
    assert layer.crs.to_epsg() == 25832
    assert column(table, "zip") == ["00123", "99950"]
    assert column(table, "huge") == [2**62, -5]
    assert column(table, "day") == [dt.date(2024, 1, 2), dt.date(1999, 12, 31)]
    frame.to_file(path, driver="GeoJSONSeq", engine="pyogrio")
    assert column(read(path)[1], "huge") == [2**62, -5]


# --- coordinates as WKB ----------------------------------------------------------------------------------------

NUMBERS = st.floats(-1e6, 1e6)
POSITIONS = st.one_of(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS, NUMBERS)).map(list)
FLAT = st.lists(st.tuples(NUMBERS, NUMBERS).map(list), min_size=1, max_size=5)
LINES = st.one_of(FLAT, st.lists(POSITIONS, min_size=1, max_size=5))
RINGS = st.lists(LINES, max_size=3)
COORDINATES = {
    "Point": st.one_of(POSITIONS, st.just([])),
    "LineString": LINES,
    "MultiPoint": LINES,
    "Polygon": RINGS,
    "MultiLineString": RINGS,
    "MultiPolygon": st.lists(RINGS, max_size=3),
}


@settings(max_examples=150)
@given(data=st.data(), kind=st.sampled_from(sorted(COORDINATES)))
def test_a_column_of_coordinates_gives_the_wkb_of_each(data: st.DataObject, kind: str) -> None:
    coordinates = data.draw(st.lists(COORDINATES[kind], min_size=1, max_size=6))
    nested: pa.DataType = pa.float64()
    for _ in range(DEPTHS[kind]):
        nested = pa.list_(nested)
    column = encode(kind, pa.array([[], *coordinates], nested).slice(1))
    wanted = [pack({"type": kind, "coordinates": one}) for one in coordinates]
    assert column.to_pylist() == wanted


@pytest.mark.parametrize(
    "text",
    [
        "POINT (1 2)",
        "POINT Z (1 2 3)",
        "POINT EMPTY",
        "LINESTRING (0 0, 1 1)",
        "POLYGON ((0 0, 4 0, 4 4, 0 0), (1 1, 2 1, 2 2, 1 1))",
        "MULTIPOINT ((0 0), (1 1))",
        "MULTILINESTRING ((0 0, 1 1), (2 2, 3 3, 4 4))",
        "MULTIPOLYGON (((0 0, 4 0, 4 4, 0 0)), ((10 10, 14 10, 14 14, 10 10), (11 11, 12 11, 12 12, 11 11)))",
        "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
        "GEOMETRYCOLLECTION EMPTY",
    ],
)
def test_one_geometry_is_the_wkb_of_shapely(text: str) -> None:
    shape = shapely.from_wkt(text)
    packed = pack(json.loads(shapely.to_geojson(shape)))
    assert packed == shapely.to_wkb(shape, flavor="iso", byte_order=1)


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Point", "coordinates": [1]},
        {"type": "Point", "coordinates": [1, None]},
        {"type": "Point", "coordinates": [1, "2"]},
        {"type": "Point", "coordinates": [1, True]},
        {"type": "Point", "coordinates": [[1, 2]]},
        {"type": "Point"},
        {"type": "LineString", "coordinates": [1, 2]},
        {"type": "Polygon", "coordinates": [[[1, 2], [1]]]},
        {"type": "Curve", "coordinates": []},
        {"type": ["Point"], "coordinates": [1, 2]},
        {"type": "Point", "coordinates": [1, float("nan")]},
        {},
        [],
        "POINT (1 2)",
    ],
)
def test_fault_26_what_is_no_geometry_is_an_error_that_names_the_feature(path: Path, geometry: Any) -> None:
    with pytest.raises(IrregularError):
        pack(geometry)
    with pytest.raises(VectorUnreadableError, match="Feature 2 of places"):
        read(path, shaped(POINT, geometry, POINT))


# --- both ways of parsing --------------------------------------------------------------------------------------

VALUES = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(-1e9, 1e9),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "bool": st.booleans(),
}
GEOMETRIES = st.one_of(
    st.none(),
    *(st.builds(dict, type=st.just(kind), coordinates=coordinates) for kind, coordinates in COORDINATES.items()),
)


@settings(max_examples=60)
@given(
    rows=st.lists(st.tuples(st.fixed_dictionaries({}, optional=VALUES), GEOMETRIES), min_size=1, max_size=12),
    indent=st.sampled_from([None, 1]),
    block=st.sampled_from([64, 1024, 1 << 20]),
)
def test_arrow_and_json_give_equal_batches(
    tmp_path_factory: Any, rows: list[tuple[dict[str, Any], Any]], indent: int | None, block: int
) -> None:
    path = tmp_path_factory.mktemp("both") / "a.geojson"
    features = [{"type": "Feature", "properties": one, "geometry": geometry} for one, geometry in rows]
    path.write_text(json.dumps({"features": features, "type": "FeatureCollection"}, indent=indent), encoding="utf-8")

    def never(*_: Any) -> Any:
        raise _UnlikeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geojson_text, "_BLOCK", block)
        layer, fast = read(path)
        patch.setattr(_Features, "fast", never)
        _, slow = read(path)
    assert fast.combine_chunks().equals(slow.combine_chunks())
    for name in (one.name for one in layer.fields):
        assert [str(value) for value in column(fast, name)] == [
            str(properties.get(name)) for properties, _ in rows
        ] or name not in ("int", "bool")
    assert [None if one is None else bytes(one) for one in column(fast, GEOMETRY)] == [pack(one) for _, one in rows]


# --- forms -----------------------------------------------------------------------------------------------------

FEATURE = {"type": "Feature", "properties": {"n": 1}, "geometry": POINT}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(collection({"n": 1})),
        json.dumps(collection({"n": 1}), indent=4),
        "\ufeff" + json.dumps(collection({"n": 1})),
        json.dumps({"features": [FEATURE], "type": "FeatureCollection"}),
        json.dumps({"meta": {"features": [{"n": 9}]}, "features": [FEATURE], "type": "FeatureCollection"}),
        json.dumps({"type": "FeatureCollection", "features": [FEATURE], "more": ["]}", {"a": '"'}]}),
        json.dumps(FEATURE),
        json.dumps({"geometry": POINT, "properties": {"n": 1}, "type": "Feature"}, indent=1),
        json.dumps(FEATURE) + "\n",
        "\x1e" + json.dumps(FEATURE, indent=1) + "\n",
    ],
)
def test_a_collection_and_a_feature_are_read_in_all_forms(path: Path, text: str) -> None:
    _, table = read(path, text)
    assert table.column_names == ["n", GEOMETRY]
    assert column(table, "n") == [1]
    assert wkt(table) == ["POINT (2 1)"]


@pytest.mark.parametrize("geometry", [POINT, {"coordinates": [2, 1], "type": "Point"}])
def test_a_bare_geometry_is_a_layer_without_attributes(path: Path, geometry: Any) -> None:
    _, table = read(path, geometry)
    assert table.column_names == [GEOMETRY]
    assert wkt(table) == ["POINT (2 1)"]
    _, table = read(path, {"type": "GeometryCollection", "geometries": [geometry]})
    assert wkt(table) == ["GEOMETRYCOLLECTION (POINT (2 1))"]


@pytest.mark.parametrize(("before", "after"), [("", "\n"), ("\x1e", "\n"), ("", "\r\n")])
@pytest.mark.usefixtures("small_blocks")
def test_lines_and_text_sequences_are_read(path: Path, before: str, after: str) -> None:
    lines = [json.dumps(FEATURE | {"properties": {"n": at}}) for at in range(500)]
    _, table = read(path, "".join(f"{before}{line}{after}" for line in lines))
    assert column(table, "n") == list(range(500))


def test_an_empty_collection_has_no_rows(path: Path) -> None:
    layer, table = read(path, collection())
    assert table.num_rows == 0
    assert layer.fields == ()


@pytest.mark.usefixtures("small_blocks")
def test_members_before_and_after_may_be_large(path: Path) -> None:
    text = {"huge": ["[{\\" * 10, {"x": [1]}] * 100_000, **collection({"n": 1}), "other": [[1, 2]] * 100_000}
    layer, table = read(path, text)
    assert column(table, "n") == [1]
    assert "Members of the collection that are not read: 'huge', 'other'" in layer.notes


# --- the CRS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "epsg"),
    [
        ("urn:ogc:def:crs:EPSG::25832", 25832),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", 4326),
        ("EPSG:3857", 3857),
        ("urn:ogc:def:crs:EPSG::999999", None),
        ("+proj=longlat", None),
        ("/etc/passwd", None),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_fault_25_the_old_crs_member_is_honoured(path: Path, name: str, epsg: int | None, late: bool) -> None:  # noqa: FBT001
    crs = {"crs": {"type": "name", "properties": {"name": name}}}
    layer, table = read(path, collection({"n": 1}) | crs if late else crs | collection({"n": 1}))
    assert (layer.crs.to_epsg() if layer.crs is not None else None) == epsg
    assert table.num_rows == 1
    assert bool(layer.notes) == (epsg is None)


def test_without_a_crs_it_is_wgs_84_and_null_says_nothing(path: Path) -> None:
    layer = opened(path, collection({"n": 1}))
    assert layer.crs is not None
    assert layer.crs.to_epsg() == 4326
    assert opened(path, collection({"n": 1}, crs=None)).crs is None


def test_a_crs_hidden_behind_the_features_is_refused_not_overlooked(path: Path) -> None:
    text = collection({"n": 1}, crs={"type": "name", "properties": {"name": "EPSG:25832"}}, more="x" * 100_000)
    layer = opened(path, text)
    with pytest.raises(VectorRefusedError, match="put the member 'crs' first"):
        list(layer.batches())


# --- properties ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([1, None, -3], pa.int64(), None),
        ([1, 2.5], pa.float64(), [1.0, 2.5]),
        ([2**63, 1], WHOLE, [Decimal(2**63), Decimal(1)]),
        ([10**40], pa.string(), [str(10**40)]),
        ([2**53 + 1, 0.5], pa.string(), [str(2**53 + 1), "0.5"]),
        ([1e300, 1.0], pa.float64(), [1e300, 1.0]),
        ([True, None], pa.bool_(), None),
        ([True, 1], pa.string(), ["true", "1"]),
        (["00123", "1"], pa.string(), None),
        (["1", "2"], pa.string(), None),
        (["", "NA", None], pa.string(), None),
        (["2024-02-29", None], pa.date32(), [dt.date(2024, 2, 29), None]),
        (["2024-01-01T10:00:00", "2024-01-02T10:00:00.5"], pa.timestamp("us"), None),
        (["2024-01-01T10:00:00Z", "2024-01-02T10:00:00+02:00"], pa.timestamp("us", "UTC"), None),
        (["2024-01-01T10:00:00Z", "2024-01-02T10:00:00"], pa.string(), None),
        (["20000-01-01"], pa.string(), None),
        ([1, "x", 2.5], pa.string(), ["1", "x", "2.5"]),
        ([{"a": [1, "ä"]}, [1, 2], "s", None, 2**70], pa.string(), ['{"a":[1,"ä"]}', "[1,2]", '"s"', None, str(2**70)]),
        ([{"coordinates": [1, 2]}, {"a": {"coordinates": [[3]]}}], pa.string(), None),
        ([None, None], pa.string(), None),
    ],
)
@pytest.mark.parametrize("rest", [0, 200])
@pytest.mark.usefixtures("small_blocks")
def test_fault_30_a_property_has_the_type_of_all_its_values(
    path: Path, values: list[Any], kind: pa.DataType, wanted: list[Any] | None, rest: int
) -> None:
    """With a rest, the values come together only after the first block has been read."""
    text = collection({"v": values[0]}, *[{"v": values[0]}] * rest, *({"v": value} for value in values))
    layer, table = read(path, text)
    assert table.schema.field("v").type == kind
    found = column(table, "v")[rest + 1 :]
    if layer.fields[0].json and wanted is None:
        assert [json.loads(value) for value in found] == values
    elif wanted is not None or not pa.types.is_timestamp(kind):
        assert found == (wanted or values)
    assert layer.fields[0].json == any(isinstance(value, dict | list) for value in values)


def test_mixed_types_are_text_with_a_note(path: Path) -> None:
    layer, _ = read(path, collection({"v": "x"}, {"v": "y"}, {"v": 3}))
    assert layer.notes == ("Column 'v' is text, as it has values of several types; feature 3 has 3",)


@pytest.mark.parametrize("rest", [0, 300])
@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("2024-01-01T10:00:00Z", "2024-01-01T10:00:00", "timestamp[us, tz=UTC]"),
        ("2024-01-01", "2024-01-01T10:00:00Z", "date32[day]"),
        ("2024-01-01", "soon", "date32[day]"),
        ("2024-01-01", "20000-01-01", "date32[day]"),
    ],
)
@pytest.mark.usefixtures("small_blocks")
def test_dates_that_became_text_are_noted_with_the_first_value_that_is_none(
    path: Path, first: str, second: str, what: str, rest: int
) -> None:
    text = collection({"v": None}, *[{"v": first}] * (rest + 1), {"v": second}, {"v": second})
    layer, table = read(path, text)
    assert table.schema.field("v").type == pa.string()
    assert layer.notes == (f"Column 'v' is text: it has values that are {what}, but feature {rest + 3} has {second!r}",)


@pytest.mark.usefixtures("small_blocks")
def test_dates_after_a_word_are_noted_and_mere_text_is_not(path: Path) -> None:
    layer, _ = read(path, collection({"v": "20000-01-01", "w": "a"}, {"v": "2024-01-01", "w": "b"}))
    assert layer.notes == ("Column 'v' is text: it has values that are date32[day], but feature 1 has '20000-01-01'",)
    layer, _ = read(path, collection(*[{"w": "a word"}, {"w": None}] * 300))
    assert layer.notes == ()


@pytest.mark.usefixtures("small_blocks")
def test_all_that_is_new_later_is_told_by_one_new_start(path: Path) -> None:
    plain = [{"a": 1, "b": "x"}] * 300
    text = collection(*plain, {"a": 1.5}, *plain, {"c": {"x": 1}}, *plain, {"d": "2024-01-01"}, *plain)
    with pytest.raises(SchemaWidenedError) as caught:
        list(opened(path, text).batches())
    assert caught.value.types == {"a": pa.float64(), "c": JSON, "d": pa.date32()}
    layer, table = read(path, text)
    assert [one.name for one in layer.fields] == ["a", "b", "c", "d"]
    assert column(table, "c")[601] == '{"x":1}'
    assert table.num_rows == 1203


@pytest.mark.parametrize("ids", [[1, 2], ["a", "b"], [1, "b"]])
def test_the_features_own_id_is_an_attribute(path: Path, ids: list[Any]) -> None:
    features = [{"type": "Feature", "id": one, "properties": {"n": 1}, "geometry": POINT} for one in ids]
    _, table = read(path, {"type": "FeatureCollection", "features": features})
    assert table.column_names == ["id", "n", GEOMETRY]
    assert column(table, "id") == (ids if len({type(one) for one in ids}) == 1 else ["1", "b"])


def test_a_property_named_id_comes_before_the_features_own(path: Path) -> None:
    feature = {"type": "Feature", "id": 7, "properties": {"id": "x"}, "geometry": POINT, "note": 1}
    layer, table = read(path, {"type": "FeatureCollection", "features": [feature, feature]})
    assert column(table, "id") == ["x", "x"]
    assert layer.notes == ("Members of features that are not read: 'id', 'note'",)


@pytest.mark.usefixtures("small_blocks")
def test_an_id_that_comes_later_is_an_attribute(path: Path) -> None:
    text = collection(*[{"n": 1}] * 200)
    text["features"].append({"type": "Feature", "id": 5, "properties": {"n": 2}, "geometry": POINT})
    _, table = read(path, text)
    assert column(table, "id")[-2:] == [None, 5]


def test_heights_and_what_is_beyond_them(path: Path) -> None:
    line = {"type": "LineString", "coordinates": [[0, 0, 5], [1, 1], [2, 2, 6, 7]]}
    _, table = read(path, shaped(POINT, {"type": "Point", "coordinates": [1, 2, 3, 4]}, line))
    assert wkt(table) == ["POINT (2 1)", "POINT Z (1 2 3)", "LINESTRING Z (0 0 5, 1 1 0, 2 2 6)"]


def test_null_and_empty_geometries(path: Path) -> None:
    empty = {"type": "Polygon", "coordinates": []}
    text = shaped(None, POINT, empty, {"type": "Point", "coordinates": []})
    del text["features"][0]["geometry"]
    _, table = read(path, text)
    assert wkt(table) == [None, "POINT (2 1)", "POLYGON EMPTY", "POINT EMPTY"]


def test_a_property_that_looks_like_a_geometry_does_not_mislead(path: Path) -> None:
    _, table = read(path, collection({"type": "Polygon", "text": '"type": "Point"'}, {"type": "Point"}))
    assert column(table, "type") == ["Polygon", "Point"]
    assert wkt(table) == ["POINT (2 1)"] * 2


# --- faults ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"type": "Topology", "objects": {}}', "TopoJSON"),
        ('{"objects": {}, "type": "Topology"}', "TopoJSON"),
        ('{"displayFieldName": "", "features": []}', "ESRI JSON"),
        ('{"features": [{"attributes": {"a": 1}, "geometry": {"x": 1, "y": 2}}]}', "ESRI JSON"),
        ('{"a": 1}', "a JSON object"),
        ("{}", "a JSON object"),
        ("[1, 2]", "a JSON array"),
        ('{"type": "Thing", "features": []}', "JSON of type 'Thing'"),
        ("hello", "no JSON"),
        ("  ", "nothing but spaces"),
    ],
)
def test_fault_23_what_is_no_geojson_is_refused_by_name(path: Path, text: str, what: str) -> None:
    with pytest.raises(VectorRefusedError, match=what):
        read(path, text)


WHOLE_TEXT = json.dumps(collection(*({"n": at, "s": "a\\"} for at in range(5))))


@pytest.mark.parametrize("cut", [20, 60, 100, 200, 300, len(WHOLE_TEXT) - 2, len(WHOLE_TEXT) - 1])
def test_a_file_that_is_cut_off_is_an_error(path: Path, cut: int) -> None:
    with pytest.raises((VectorUnreadableError, VectorRefusedError)):
        read(path, WHOLE_TEXT[:cut])


@pytest.mark.parametrize(
    "text",
    [
        WHOLE_TEXT + "x",
        WHOLE_TEXT + "{}",
        WHOLE_TEXT + WHOLE_TEXT,
        WHOLE_TEXT.replace("}}, {", "}} {", 1),
        WHOLE_TEXT.replace("}}, {", "}},, {", 1),
        WHOLE_TEXT.replace("}}, {", "}}, null, {", 1),
        WHOLE_TEXT.replace("}}, {", '}}, "x", {', 1),
        WHOLE_TEXT.replace("}}, {", "}}, [], {", 1),
        WHOLE_TEXT.replace('"features": [', '"features": [null, ', 1),
        WHOLE_TEXT.replace("}}]}", "}},]}", 1),
        WHOLE_TEXT.replace("}}]}", '}}], "features": []}', 1),
        WHOLE_TEXT.replace('"n": 3', '"n": 03', 1),
        WHOLE_TEXT.replace('"n": 3', '"n": 3, "n": 3', 1),
        WHOLE_TEXT.replace('"n": 3', "\"n\": '3'", 1),
        WHOLE_TEXT.replace('"n": 3', '"n": "\t"', 1),
        WHOLE_TEXT.replace('"Feature"', '"Featured"', 1),
        WHOLE_TEXT.replace('{"n": 3, "s": "a\\\\"}', "[1]", 1),
    ],
)
def test_damaged_text_is_an_error(path: Path, text: str) -> None:
    assert text != WHOLE_TEXT
    with pytest.raises(VectorUnreadableError, match=r"places\.geojson"):
        read(path, text)


@settings(max_examples=150)
@given(at=st.integers(0, len(WHOLE_TEXT) - 1), byte=st.binary(min_size=1, max_size=1))
def test_a_changed_byte_is_read_or_refused_but_never_crashes(tmp_path_factory: Any, at: int, byte: bytes) -> None:
    text = bytearray(WHOLE_TEXT.encode())
    text[at : at + 1] = byte
    try:
        _, table = read(tmp_path_factory.mktemp("changed") / "a.geojson", bytes(text), encoding="utf-8")
    except (VectorUnreadableError, VectorRefusedError):
        return
    assert table.num_rows == len(json.loads(text)["features"])


def test_fault_28_invalid_utf_8_is_named(path: Path) -> None:
    text = json.dumps(collection({"s": "x"})).encode().replace(b'"x"', b'"K\xf6ln"')
    with pytest.raises(VectorUnreadableError, match=r"Byte .* is not utf-8"):
        read(path, text, encoding="utf-8")
    layer, table = read(path, text)
    assert column(table, "s") == ["Köln"]
    assert any("guessed" in note for note in layer.notes)


def test_fault_28_a_lone_surrogate_is_an_error_that_names_the_feature(path: Path) -> None:
    text = json.dumps(collection({"s": "x"}, {"s": "y"})).replace('"y"', r'"\ud800"')
    with pytest.raises(VectorUnreadableError, match=r"Feature 2 of places.geojson has half a character .* 's'"):
        read(path, text)


def test_fault_28_nul_in_text_is_kept(path: Path) -> None:
    _, table = read(path, collection({"s": "a\0b"}))
    assert column(table, "s") == ["a\0b"]


@pytest.mark.parametrize("bomb", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("place", ['"geometry": ', '"properties": '])
def test_a_nesting_bomb_is_an_error(path: Path, bomb: str, place: str) -> None:
    head = '{"type": "FeatureCollection", "features": [{"type": "Feature", ' + place
    for tail in ("", "]" * 1000):
        with pytest.raises(VectorUnreadableError):
            read(path, head + bomb * 500_000 + tail)
    with pytest.raises(VectorUnreadableError):
        read(path, '{"type": "FeatureCollection", "more": ' + bomb * 500_000)


def test_a_feature_larger_than_the_limit_is_an_error(path: Path) -> None:
    text = collection({"s": "x" * 9_000_000})
    assert read(path, text)[1].num_rows == 1
    with pytest.raises(
        VectorUnreadableError, match=r"Feature 1 of places.geojson is larger than 1 MB|larger than 1 MB"
    ):
        read(path, text, max_feature_bytes=1 << 20)


def test_fault_26_a_polygon_of_a_million_vertices(path: Path) -> None:
    ring = [[at % 360 - 180, at % 170 - 85] for at in range(1_000_000)]
    ring.append(ring[0])
    _, table = read(path, shaped(POINT, {"type": "Polygon", "coordinates": [ring]}, POINT))
    assert table.num_rows == 3
    assert len(table[GEOMETRY][1].as_py()) == 1 + 4 + 4 + 4 + 16 * 1_000_001


def test_batches_are_bounded(path: Path) -> None:
    features = itertools.repeat(json.dumps(FEATURE), 100_000)
    path.write_text('{"type":"FeatureCollection","features":[' + ",".join(features) + "]}", encoding="utf-8")
    sizes = [(batch.nbytes, batch.num_rows) for batch in opened(path).batches()]
    assert max(size for size, _ in sizes) <= BATCH_BYTES
    assert sum(rows for _, rows in sizes) == 100_000
    assert len(sizes) > 1


def escapes() -> Iterator[str]:
    for size in range(5):
        yield "\\" * size
        yield "\\" * size + '"'
        yield '"' + "\\" * size + "{"


@pytest.mark.parametrize("block", range(40, 60))
def test_backslashes_and_quotes_at_the_end_of_a_block(monkeypatch: pytest.MonkeyPatch, path: Path, block: int) -> None:
    monkeypatch.setattr(geojson_text, "_BLOCK", block)
    values = list(escapes())
    layer, table = read(path, {"more": values} | collection(*({"s": value} for value in values)))
    assert column(table, "s") == values
    assert layer.notes == ("Members of the collection that are not read: 'more'",)
