"""Layers of GeoParquet files, against geopandas."""

import datetime as dt
import decimal
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import wkb
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer
from geo_assets.vector.parquet_layers import open_layers
from tests.vector.reading import rows, shapes
from tests.vector.vectors import real

SHAPES: Mapping[str, list[str | None]] = {
    "point": ["POINT (1 2)", None, "POINT EMPTY", "POINT (3 4)"],
    "linestring": ["LINESTRING (1 2, 3 4)", None, "LINESTRING (5 6, 7 8, 9 10)"],
    "polygon": ["POLYGON ((0 0, 4 0, 4 4, 0 0), (2 1, 3 1, 3 2, 2 1))", None, "POLYGON ((5 5, 6 5, 6 6, 5 5))"],
    "multipoint": ["MULTIPOINT ((1 2), (3 4))", None, "MULTIPOINT ((5 6))"],
    "multilinestring": ["MULTILINESTRING ((1 2, 3 4), (5 6, 7 8))", None, "MULTILINESTRING ((1 1, 2 2))"],
    "multipolygon": [
        "MULTIPOLYGON (((0 0, 4 0, 4 4, 0 0), (2 1, 3 1, 3 2, 2 1)), ((9 9, 10 9, 10 10, 9 9)))",
        None,
        "MULTIPOLYGON (((5 5, 6 5, 6 6, 5 5)))",
    ],
}
WKB = {"encoding": "WKB", "geometry_types": []}


def opened(path: Path) -> Layer:
    [layer] = open_layers(path, stem=path.stem)
    return layer


def points(count: int) -> pa.BinaryArray:
    return wkb.from_points(np.random.default_rng(1).uniform(-90, 90, (count, 2)))


def write(
    path: Path, columns: Mapping[str, Any], *, geo: Any = None, text: bytes | None = None, **options: Any
) -> Path:
    """Write a file whose geometry is in the column ``shape``, or that says otherwise."""
    if geo is None:
        geo = {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": WKB}}
    table = pa.table(dict(columns)).replace_schema_metadata({b"geo": text or json.dumps(geo).encode()})
    pq.write_table(table, path, **options)
    return path


def geo_with(**column: Any) -> dict[str, Any]:
    return {"version": "1.1.0", "primary_column": "shape", "columns": {"shape": {**WKB, **column}}}


# --- against geopandas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "encoding"), [("1.0.0", "WKB"), ("1.1.0", "WKB"), ("1.1.0", "geoarrow")])
def test_rows_are_those_geopandas_wrote(tmp_path: Path, version: str, encoding: str) -> None:
    random = np.random.default_rng(3)
    frame = geopandas.GeoDataFrame(
        {
            "number": random.integers(0, 2**60, 9_000),
            "word": pd.array([None if at % 5 == 0 else f"ß{at}" for at in range(9_000)], dtype="str"),
            "when": pd.to_datetime(random.integers(0, 10**9, 9_000), unit="s", utc=True),
        },
        geometry=shapely.points(random.uniform(-90, 90, (9_000, 2))),
        crs="EPSG:3035",
    )
    path = tmp_path / "some.parquet"
    frame.to_parquet(path, schema_version=version, geometry_encoding=encoding, write_covering_bbox=version == "1.1.0")
    layer = opened(path)
    found = rows(layer)
    assert (layer.name, layer.feature_count, layer.crs) == ("some", 9_000, pyproj.CRS.from_epsg(3035))
    assert [one.name for one in layer.fields] == ["number", "word", "when"]
    assert np.array_equal(found.column("number").to_numpy(), frame["number"].to_numpy())
    assert found.column("word").to_pylist() == [None if pd.isna(one) else one for one in frame["word"]]
    assert (
        found.column("when")
        .cast(pa.int64())
        .equals(
            pa.chunked_array(
                pa.table(frame[["when"]].rename_axis(None)).column(0).cast(found.column("when").type)
            ).cast(pa.int64())
        )
    )
    assert (shapes(found) == frame.geometry.to_numpy()).all()


def test_a_real_file() -> None:
    path = real("southern_cities.parquet")
    layer, expected = opened(path), geopandas.read_parquet(path)
    found = rows(layer)
    assert layer.crs == expected.crs
    assert (shapes(found) == expected.geometry.to_numpy()).all()
    for field in layer.fields:
        assert found.column(field.name).to_pylist() == [None if pd.isna(one) else one for one in expected[field.name]]
    assert "the row labels of pandas are left out" in layer.notes


@pytest.mark.parametrize("encoding", list(SHAPES))
@pytest.mark.parametrize("z", [False, True])
def test_native_encodings(tmp_path: Path, encoding: str, z: bool) -> None:  # noqa: FBT001 - a parameter of the test
    expected = shapely.from_wkt(SHAPES[encoding])
    if z:
        expected = np.where(shapely.is_empty(expected), expected, shapely.force_3d(expected, 7.0))
    path = tmp_path / "native.parquet"
    geopandas.GeoDataFrame(geometry=expected, crs="EPSG:4326").to_parquet(path, geometry_encoding="geoarrow")
    said = json.loads((pq.read_metadata(path).metadata or {})[b"geo"])
    assert said["columns"]["geometry"]["encoding"] == encoding
    found = shapes(rows(opened(path)))
    assert shapely.to_wkt(found).tolist() == shapely.to_wkt(expected).tolist()


# --- what the file says of its geometry ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "crs", "note"),
    [
        ({}, "OGC:CRS84", None),
        ({"crs": None}, None, "the CRS of its geometry is not known"),
        ({"crs": pyproj.CRS.from_epsg(25832).to_json_dict()}, "EPSG:25832", None),
        ({"crs": {"type": "nonsense"}}, None, "cannot be understood"),
        ({"crs": 7.5}, None, "cannot be understood"),
        ({"edges": "spherical"}, "OGC:CRS84", "are read as planar"),
    ],
)
def test_what_the_metadata_says_of_coordinates(
    tmp_path: Path, column: dict[str, Any], crs: str | None, note: str | None
) -> None:
    layer = opened(write(tmp_path / "some.parquet", {"shape": points(2)}, geo=geo_with(**column)))
    assert layer.crs == (None if crs is None else pyproj.CRS.from_user_input(crs))
    assert [note is not None and note in one for one in layer.notes] == [True] * (note is not None)


def test_the_primary_column_is_the_geometry_and_others_are_kept(tmp_path: Path) -> None:
    first, second = points(3), wkb.from_points(np.full((3, 2), 7.0))
    geo = {"version": "1.0.0", "primary_column": "shape", "columns": {"centre": WKB, "shape": WKB}}
    layer = opened(write(tmp_path / "some.parquet", {"centre": second, "shape": first}, geo=geo))
    found = rows(layer)
    assert found.column(GEOMETRY).to_pylist() == first.to_pylist()
    assert found.column("centre").to_pylist() == second.to_pylist()
    assert layer.fields[0].type == pa.binary()
    assert any("other geometry columns" in note and "centre" in note for note in layer.notes)


def test_boxes_of_geometries_are_no_attribute_but_other_structs_are(tmp_path: Path) -> None:
    box = pa.array([{"xmin": 0.0, "ymin": 0.0, "xmax": 1.0, "ymax": 1.0}] * 2)
    covering = {"bbox": {side: ["box", side] for side in ("xmin", "ymin", "xmax", "ymax")}}
    path = write(
        tmp_path / "some.parquet", {"box": box, "other": box, "shape": points(2)}, geo=geo_with(covering=covering)
    )
    layer = opened(path)
    assert [one.name for one in layer.fields] == ["other"]
    assert json.loads(rows(layer).column("other")[0].as_py() or "") == box[0].as_py()


class WkbType(pa.ExtensionType):
    """What makes pyarrow write Parquet's own geometry types."""

    def __init__(self, said: bytes) -> None:
        self.said = said
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.said

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "WkbType":
        return cls(serialized)


@pytest.mark.parametrize(
    ("said", "crs", "notes"),
    [
        ({}, "OGC:CRS84", 0),
        ({"crs": "EPSG:3857"}, "EPSG:3857", 0),
        ({"crs": "srid:25832"}, "EPSG:25832", 0),
        ({"crs": pyproj.CRS.from_epsg(3035).to_json_dict()}, "EPSG:3035", 0),
        ({"crs": "projjson:missing"}, None, 1),
        ({"edges": "spherical"}, "OGC:CRS84", 1),
    ],
)
def test_geometry_types_of_parquet_itself(tmp_path: Path, said: dict[str, Any], crs: str | None, notes: int) -> None:
    path = tmp_path / "typed.parquet"
    kind: Any = WkbType(json.dumps(said).encode())
    pa.register_extension_type(kind)
    try:
        shape = pa.ExtensionArray.from_storage(kind, points(3))
        pq.write_table(pa.table({"a": [1, 2, 3], "shape": shape, "b": shape}), path, store_schema=False)
    finally:
        pa.unregister_extension_type("geoarrow.wkb")
    layer = opened(path)
    found = rows(layer)
    assert layer.crs == (None if crs is None else pyproj.CRS.from_user_input(crs))
    assert found.column(GEOMETRY).to_pylist() == points(3).to_pylist()
    assert found.column("b").to_pylist() == points(3).to_pylist()
    assert len(layer.notes) == notes + 1  # of the other geometry column


# --- wrong metadata, damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{not json", "damaged or not of GeoParquet"),
        (b"\xff\xfe", "damaged or not of GeoParquet"),
        (b"[]", "damaged or not of GeoParquet"),
        (b'{"columns": {}, "primary_column": "shape"}', "damaged or not of GeoParquet"),
        (b'{"columns": {"shape": {}}, "primary_column": "shape"}', "damaged or not of GeoParquet"),
        (b'{"columns": {"shape": 7}, "primary_column": "shape"}', "damaged or not of GeoParquet"),
        (b'{"columns": {"shape": {"encoding": "WKB", "covering": 7}}, "primary_column": "shape"}', "damaged or not"),
        (b'{"columns": {"x": {"encoding": "WKB"}}, "primary_column": "x"}', "'x' is the geometry, but there are 0"),
        (b'{"columns": {"shape": {"encoding": "TWKB"}}, "primary_column": "shape"}', "encoded as 'TWKB', but it is"),
        (b'{"columns": {"shape": {"encoding": "point"}}, "primary_column": "shape"}', "encoded as 'point', but it is"),
        (b'{"columns": {"a": {"encoding": "WKB"}}, "primary_column": "a"}', "encoded as 'WKB', but it is int64"),
    ],
)
def test_wrong_metadata_is_refused(tmp_path: Path, text: bytes, says: str) -> None:
    path = write(tmp_path / "wrong.parquet", {"a": [1], "shape": points(1)}, text=text)
    with pytest.raises(VectorRefusedError, match=says) as refused:
        opened(path)
    assert refused.value.code == "GEO_METADATA"


def test_a_plain_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"geometry": points(1)}), path)
    with pytest.raises(VectorRefusedError, match="does not say which column is geometry") as refused:
        opened(path)
    assert refused.value.code == "GEO_METADATA"


def scratched(content: bytes) -> bytes:
    at = len(content) // 2
    return content[:at] + b"\xff" * 4000 + content[at + 4000 :]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content[:-10], "cannot be opened"),
        (lambda content: content[: len(content) // 2], "cannot be opened"),
        (lambda content: b"", "cannot be opened"),
        (lambda content: content[:-8] + b"\xff\xff\xff\x7f" + content[-4:], "cannot be opened"),
        (scratched, r"cannot be read beyond row [1-9][\d,]*: "),
    ],
)
def test_damaged_and_cut_files_are_unreadable(tmp_path: Path, damage: Callable[[bytes], bytes], says: str) -> None:
    path = write(tmp_path / "some.parquet", {"shape": points(60_000)}, row_group_size=10_000)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VectorUnreadableError, match=says) as unreadable:
        list(opened(path).batches())
    assert str(tmp_path) not in str(unreadable.value)


def test_a_checksum_that_does_not_match_is_damage(tmp_path: Path) -> None:
    path = write(
        tmp_path / "some.parquet",
        {"shape": points(5_000)},
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(VectorUnreadableError, match=r"cannot be read beyond row [\d,]+: .*CRC"):
        list(opened(path).batches())


# --- types -----------------------------------------------------------------------------------------------------

NESTED = pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))])


@pytest.mark.parametrize(
    ("values", "kind", "expected", "as_json"),
    [
        (pa.array([1, None], pa.uint64()), pa.decimal128(38, 0), [decimal.Decimal(1), None], False),
        (pa.array([2**64 - 1, 0], pa.uint64()), pa.decimal128(38, 0), [decimal.Decimal(2**64 - 1), 0], False),
        (pa.array([255, 0], pa.uint8()), pa.int16(), [255, 0], False),
        (pa.array(np.array([1.5, 2], np.float16)), pa.float32(), [1.5, 2.0], False),
        (pa.array([dt.date(2020, 1, 1), None], pa.date64()), pa.date32(), [dt.date(2020, 1, 1), None], False),
        (pa.array(["a", "b"], pa.large_string()), pa.string(), ["a", "b"], False),
        (pa.array(["a", None], pa.string_view()), pa.string(), ["a", None], False),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string(), ["a", "b"], False),
        (pa.array([b"a", None], pa.binary_view()), pa.binary(), [b"a", None], False),
        (pa.array([b"ab", b"cd"], pa.binary(2)), pa.binary(), [b"ab", b"cd"], False),
        (pa.array([1, None], pa.duration("ms")), pa.int64(), [1, None], False),
        (pa.nulls(2), pa.string(), [None, None], False),
        (pa.array([decimal.Decimal("1.50")] * 2, pa.decimal256(20, 2)), pa.decimal128(38, 2),
         [decimal.Decimal("1.50")] * 2, False),
        (pa.array([decimal.Decimal("1.50")] * 2, pa.decimal256(60, 2)), pa.string(), ["1.50", "1.50"], False),
        (pa.array([[1, None], None]), pa.string(), ["[1,null]", None], True),
        (pa.array([{"a": 1, "b": ["x", None]}, None], NESTED), pa.string(), ['{"a":1,"b":["x",null]}', None], True),
        (pa.array([[("k", 1), ("q", None)], None], pa.map_(pa.string(), pa.int32())), pa.string(),
         ['{"k":1,"q":null}', None], True),
        (pa.array(['{"a": 1}', None], pa.json_()), pa.string(), ['{"a": 1}', None], True),
    ],
)  # fmt: skip
def test_types(
    tmp_path: Path,
    values: "pa.Array[Any]",
    kind: pa.DataType,
    expected: list[object],
    as_json: bool,  # noqa: FBT001
) -> None:
    layer = opened(write(tmp_path / "types.parquet", {"a": values, "shape": points(2)}))
    [field] = layer.fields
    assert (field.type, field.json) == (kind, as_json)
    assert rows(layer).column("a").to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.timestamp("ns"), pa.timestamp("us", tz="Europe/Berlin"), pa.time64("ns")])
def test_times_keep_their_precision_for_the_columns_to_count(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([1, None], pa.int64()).cast(kind)
    layer = opened(write(tmp_path / "times.parquet", {"a": values, "shape": points(2)}))
    assert rows(layer).column("a").combine_chunks().equals(values)


def test_names_that_repeat_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "twins.parquet"
    table = pa.Table.from_arrays([pa.array([1]), pa.array(["x"]), points(1)], names=["a", "a", "shape"])
    pq.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo_with()).encode()}), path)
    [batch] = opened(path).batches()
    assert [batch.column(at)[0].as_py() for at in range(2)] == [1, "x"]


# --- size ------------------------------------------------------------------------------------------------------


def test_a_row_group_of_large_polygons_comes_in_small_batches(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 5_000)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    ring[-1] = ring[0]
    large = wkb.from_shapely(shapely.polygons(ring + np.arange(600)[:, None, None]))
    shape = pa.concat_arrays([points(100_000), large])
    path = write(tmp_path / "mixed.parquet", {"a": range(len(shape)), "shape": shape}, row_group_size=len(shape))
    assert pq.read_metadata(path).num_row_groups == 1
    batches = list(opened(path).batches())
    assert max(batch.nbytes for batch in batches) <= 4 * BATCH_BYTES
    assert max(batch.num_rows for batch in batches) <= 65_536
    found = np.concatenate([batch.column("a").to_numpy() for batch in batches])
    assert np.array_equal(found, np.arange(len(shape)))


def test_many_small_row_groups_come_in_few_batches(tmp_path: Path) -> None:
    path = write(tmp_path / "crumbs.parquet", {"a": range(20_000), "shape": points(20_000)}, row_group_size=100)
    [batch] = opened(path).batches()
    assert batch.num_rows == 20_000


def test_no_rows(tmp_path: Path) -> None:
    layer = opened(write(tmp_path / "none.parquet", {"a": pa.array([], pa.int8()), "shape": points(0)}))
    assert layer.feature_count == 0
    assert rows(layer).num_rows == 0
