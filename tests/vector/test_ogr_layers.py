"""Layers that GDAL reads, against geopandas, and with all that GDAL does not say."""

import datetime as dt
import itertools
import json
import sqlite3
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyogrio
import pyproj
import pytest
import shapely

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.settings import get_settings
from geo_assets.vector import wkb
from geo_assets.vector.gdal_fence import gdal_fence
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SchemaWidenedError
from geo_assets.vector.ogr_layers import open_layers
from geo_assets.vector.open import VectorBudget
from tests.vector.reading import rows, shapes
from tests.vector.vectors import real

DRIVERS = {
    ".gpkg": "GPKG",
    ".shp": "ESRI Shapefile",
    ".fgb": "FlatGeobuf",
    ".kml": "LIBKML",
    ".gdb": "OpenFileGDB",
    ".geojson": "GeoJSON",
}


def opened(
    path: Path,
    *,
    layer: str | None = None,
    encoding: str | None = None,
    types: "Mapping[str, pa.DataType] | None" = None,
) -> list[Layer]:
    return open_layers(
        path, driver=DRIVERS[path.suffix], stem=path.stem, layer=layer, encoding=encoding, types=types or {}
    )


def write(path: Path, table: pa.Table, *, kind: str = "Point", layer: str | None = None, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # file geodatabases have their own idea of integers and names
        pyogrio.raw.write_arrow(
            table,
            path,
            driver=DRIVERS[path.suffix],
            geometry_type=kind,
            geometry_name="shape",
            crs=options.pop("crs", "EPSG:4326"),
            layer=layer or path.stem,
            **options,
        )
    return path


def points(count: int, *, seed: int = 1) -> pa.BinaryArray:
    random = np.random.default_rng(seed)
    xy = np.column_stack([random.uniform(-180, 180, count), random.uniform(-90, 90, count)])
    return wkb.from_points(xy)


def features(count: int) -> pa.Table:
    random = np.random.default_rng(2)
    return pa.table(
        {
            "big": pa.array(random.integers(2**40, 2**52, count)),
            "small": pa.array(random.integers(-99, 99, count).astype(np.int16)),
            "real": pa.array(random.random(count)),
            "text": [None if at % 7 == 0 else f"Straße {at} 中" for at in range(count)],
            "day": pa.array(random.integers(-9000, 20_000, count).astype(np.int32)).cast(pa.date32()),
            "shape": points(count),
        }
    )


# --- against geopandas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".kml", ".gdb", ".geojson"])
def test_rows_are_those_geopandas_reads(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"some{suffix}", features(5_000))
    [layer] = opened(path)
    found = rows(layer)
    expected = geopandas.read_file(path)
    assert layer.name == "some"
    assert layer.crs == pyproj.CRS.from_epsg(4326)
    assert layer.feature_count in (5_000, None)
    assert found.num_rows == len(expected) == 5_000
    assert shapely.equals(shapes(found), expected.geometry.to_numpy()).all()
    for field in layer.fields:
        theirs = expected[field.name]
        ours = found.column(field.name)
        if pa.types.is_temporal(field.type):
            assert list(pd.to_datetime(ours.to_pandas())) == list(theirs)
        elif pa.types.is_string(field.type):
            assert ours.to_pylist() == [None if pd.isna(value) else value for value in theirs]
        else:
            assert np.array_equal(ours.to_numpy(), theirs.to_numpy())


@pytest.mark.parametrize(
    ("name", "driver"),
    [("us_counties.gpkg", "GPKG"), ("countries_50m.geojson", "GeoJSON"), ("swiss_cities.kml", "LIBKML")],
)
def test_real_files(name: str, driver: str) -> None:
    path = real(name)
    for layer in open_layers(path, driver=driver, stem=path.stem, layer=None, encoding=None, types={}):
        found = rows(layer)
        expected = geopandas.read_file(path, layer=layer.name)
        assert layer.crs == expected.crs
        assert found.num_rows == len(expected)
        assert shapely.equals_exact(shapes(found), expected.geometry.to_numpy()).all()
        for field in layer.fields:
            theirs = [None if pd.isna(value) else value for value in expected[field.name]]
            assert found.column(field.name).to_pylist() == theirs


def test_a_real_shapefile(tmp_path: Path) -> None:
    with zipfile.ZipFile(real("german_cities_utm32n.zip")) as archive:
        archive.extractall(tmp_path)
    path = next(tmp_path.rglob("*.shp"))
    [layer] = opened(path)
    found, expected = rows(layer), geopandas.read_file(path)
    assert layer.crs == expected.crs
    assert (shapes(found) == expected.geometry.to_numpy()).all()
    for field in layer.fields:
        assert found.column(field.name).to_pylist() == [None if pd.isna(v) else v for v in expected[field.name]]


# --- layers ----------------------------------------------------------------------------------------------------


def test_layers_of_a_geopackage_by_name_and_all(tmp_path: Path) -> None:
    path = write(tmp_path / "two.gpkg", features(3), layer="one")
    write(path, features(5), layer="other")
    assert [(layer.name, layer.feature_count) for layer in opened(path)] == [("one", 3), ("other", 5)]
    [layer] = opened(path, layer="other")
    assert rows(layer).num_rows == 5
    with pytest.raises(VectorRefusedError, match="no layer 'third'; there are: one, other") as refused:
        opened(path, layer="third")
    assert refused.value.code == "LAYER_NOT_FOUND"


def test_a_file_that_another_driver_opens_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "some.fgb", features(3))
    with pytest.raises(VectorRefusedError, match="opens the file as FlatGeobuf, not as GeoJSON"):
        open_layers(path, driver="GeoJSON", stem="some", layer=None, encoding=None, types={})


def test_a_table_without_geometry(tmp_path: Path) -> None:
    path = tmp_path / "plain.gpkg"
    pyogrio.write_dataframe(pd.DataFrame({"a": [1, 2]}), path)
    [layer] = opened(path)
    assert not layer.has_geometry
    assert layer.crs is None
    assert rows(layer).to_pydict() == {"a": [1, 2]}


def test_aliases_become_descriptions(tmp_path: Path) -> None:
    path = write(tmp_path / "some.gpkg", features(3))
    with sqlite3.connect(path) as database:
        database.execute(
            "create table gpkg_data_columns (table_name text, column_name text, name text, title text,"
            " description text, mime_type text, constraint_name text)"
        )
        database.execute(
            "insert into gpkg_data_columns values ('some', 'real', 'Share', null, 'of all, 0 to 1', null, null)"
        )
        database.execute(
            "insert into gpkg_extensions values ('gpkg_data_columns', null, 'gpkg_schema', 'x', 'read-write')"
        )
    database.close()
    [layer] = opened(path)
    assert {one.name: one.description for one in layer.fields}["real"] == "Share: of all, 0 to 1"


def test_names_that_differ_by_case_or_are_empty_keep_their_places(tmp_path: Path) -> None:
    path = tmp_path / "names.geojson"
    features = [{"type": "Feature", "properties": {"a": 1, "A": 2, "": 3}, "geometry": None}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    [layer] = opened(path)
    [batch] = layer.batches()
    assert [one.name for one in layer.fields] == ["a", "A", ""]
    assert [batch.column(at)[0].as_py() for at in range(4)] == [1, 2, 3, None]


def test_names_that_repeat_keep_their_places(tmp_path: Path) -> None:
    path = dbf_of(tmp_path, [b"x", b"y"], name=b"AAA")
    dbf = path.with_suffix(".dbf")
    dbf.write_bytes(dbf.read_bytes().replace(b"NUMBER\0", b"AAA\0\0\0\0"))
    [layer] = opened(path)
    [batch] = layer.batches()
    assert [one.name for one in layer.fields] == ["AAA", "AAA"]
    assert [batch.column(at).to_pylist() for at in range(2)] == [["x", "y"], [0, 1]]


# --- types -----------------------------------------------------------------------------------------------------


def test_lists_and_objects_become_json(tmp_path: Path) -> None:
    path = tmp_path / "nested.geojson"
    properties = {"words": ["x", 'q"'], "numbers": [1, 2], "object": {"k": [1, None]}, "yes": True}
    features = [
        {"type": "Feature", "properties": one, "geometry": None}
        for one in (properties, dict.fromkeys(properties, None))
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    [layer] = opened(path)
    assert [(one.name, one.json) for one in layer.fields] == [
        ("words", True),
        ("numbers", True),
        ("object", True),
        ("yes", False),
    ]
    first, second = rows(layer).to_pylist()
    assert {name: json.loads(first[name]) for name in ("words", "numbers", "object")} | {
        "yes": first["yes"]
    } == properties
    assert set(second.values()) == {None}


def gpkg_of(path: Path, values: Sequence[tuple[object, bytes | None]], *, column: str = "TEXT") -> Path:
    """A GeoPackage whose rows no GDAL has looked at."""
    table = pa.table({"a": pa.array([], pa.string()), "shape": pa.array([], pa.binary())})
    write(path, table, kind="Unknown", layer="t")
    database = sqlite3.connect(path)
    with database:
        for (trigger,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f'drop trigger "{trigger}"')
        database.execute(f"create table u (fid integer primary key, geom BLOB, a {column})")
        database.execute("drop table t")
        database.execute("alter table u rename to t")
        database.execute("delete from gpkg_ogr_contents")
        head = b"GP\0\1" + struct.pack("<i", 4326)
        database.executemany(
            "insert into t (a, geom) values (?, ?)",
            [(value, None if shape is None else head + shape) for value, shape in values],
        )
    database.close()
    return path


def moments_of(path: Path, texts: Sequence[str | None]) -> Path:
    return gpkg_of(path, [(text, None) for text in texts], column="DATETIME")


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".gdb", ".geojson"])
def test_times_with_a_zone_are_moments_and_those_without_are_not_moved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"times{suffix}"
    local = pd.to_datetime(["2020-07-01T12:30:45.678"] * 2)
    frame = geopandas.GeoDataFrame(
        {"local": local, "zoned": local.tz_localize("Europe/Berlin")},
        geometry=shapely.points([[0, 0], [1, 1]]),
        crs="EPSG:4326",
    )
    pyogrio.write_dataframe(frame, path, driver=DRIVERS[suffix])
    [layer] = opened(path)
    found = rows(layer)
    if suffix != ".gdb":  # its format has no local times
        assert layer.fields[0].type == pa.timestamp("us")
        assert found.column("local")[0].as_py() == dt.datetime(2020, 7, 1, 12, 30, 45, 678_000)  # noqa: DTZ001
    assert layer.fields[1].type == pa.timestamp("us", tz="UTC")
    exact = dt.datetime(2020, 7, 1, 10, 30, 45, 678_000, tzinfo=dt.UTC)
    apart = abs(found.column("zoned")[0].as_py() - exact)
    assert apart < dt.timedelta(seconds=1 if suffix == ".gdb" else 1e-6)  # its writer rounds


def test_mixed_zones_are_one_moment_each_and_said(tmp_path: Path) -> None:
    path = moments_of(tmp_path / "t.gpkg", ["2020-01-01T12:00:00+05:30", "2020-01-01T12:00:00", None])
    [layer] = opened(path)
    assert layer.fields[0].type == pa.timestamp("us", tz="UTC")
    found = rows(layer).column("a").to_pylist()
    assert found == [
        dt.datetime(2020, 1, 1, 6, 30, tzinfo=dt.UTC),
        dt.datetime(2020, 1, 1, 12, tzinfo=dt.UTC),
        None,
    ]
    assert any("1 times of 'a' have no zone" in note for note in layer.notes)


def test_a_zone_after_the_first_rows_starts_reading_anew(tmp_path: Path) -> None:
    path = moments_of(tmp_path / "t.gpkg", ["2020-01-01T12:00:00"] * 1500 + ["2020-01-01T12:00:00Z"])
    [layer] = opened(path)
    with pytest.raises(SchemaWidenedError) as widened:
        list(layer.batches())
    assert widened.value.types == {"a": pa.timestamp("us", tz="UTC")}
    [layer] = opened(path, types=widened.value.types)
    assert rows(layer).num_rows == 1501


@pytest.mark.parametrize("odd", ["20000-01-01T00:00:00Z", "-0005-01-01T00:00:00Z", "soon", "2020-02-31T00:00:00Z"])
def test_dates_beyond_any_calendar_are_kept_as_text(tmp_path: Path, odd: str) -> None:
    path = moments_of(tmp_path / "t.gpkg", ["2020-01-01T00:00:00Z", odd])
    [layer] = opened(path)
    assert layer.fields[0].type == pa.string()
    assert rows(layer).column("a").to_pylist() == ["2020-01-01T00:00:00Z", odd]
    assert any("'a' has dates that are beyond any calendar" in note for note in layer.notes)


def test_such_a_date_after_the_first_rows_starts_reading_anew(tmp_path: Path) -> None:
    path = moments_of(tmp_path / "t.gpkg", ["2020-01-01T00:00:00Z"] * 1500 + ["soon"])
    [layer] = opened(path)
    with pytest.raises(SchemaWidenedError, match="beyond any calendar") as widened:
        list(layer.batches())
    assert widened.value.types == {"a": pa.string()}
    [layer] = opened(path, types=widened.value.types)
    assert rows(layer).column("a")[1500].as_py() == "soon"


@pytest.mark.parametrize(
    ("column", "given", "kept"),
    [
        ("SMALLINT", [1, 40_000, -32_768, "x"], [1, None, -32_768, None]),
        ("MEDIUMINT", [-(2**31), 2**31, 1.5, "x", None], [-(2**31), None, None, None, None]),
        ("INTEGER", [2**63 - 1, -(2**63), 1e30, b"x"], [2**63 - 1, -(2**63), None, None]),
        ("DOUBLE", [1.5, 2, "x"], [1.5, 2.0, None]),
        ("BOOLEAN", [1, 0, "x"], [True, False, None]),
        ("TEXT", ["x", b"\0\xff"], ["x", None]),
        ("DATE", ["1970-01-01", "2020/02/03", "soon", "2020-02-03"], [dt.date(1970, 1, 1), dt.date(2020, 2, 3), None,
                                                                     dt.date(2020, 2, 3)]),
    ],
)  # fmt: skip
def test_values_that_are_not_of_their_columns_type_are_not_made_up(
    tmp_path: Path, column: str, given: list[object], kept: list[object]
) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [(value, None) for value in given], column=column)
    [layer] = opened(path)
    assert rows(layer).column("a").to_pylist() == kept
    wrong = sum(one is not None and other is None for one, other in zip(given, kept, strict=True))
    assert any(f"{wrong} values of 'a' are not of its type and became null, such as" in note for note in layer.notes)


@pytest.mark.parametrize(
    ("suffix", "kept"),
    [*itertools.product([".gpkg", ".gdb"], [[100, 200, 300], [1, 2, 4], [2, 3, 4]]), (".gpkg", [0, 1, 2])],
)
def test_keys_that_somebody_chose_are_the_first_attribute(tmp_path: Path, suffix: str, kept: list[int]) -> None:
    if suffix == ".gpkg":
        path = gpkg_of(tmp_path / "t.gpkg", [(value, None) for value in "abc"])
        database = sqlite3.connect(path)
        with database:
            database.execute("update t set fid = -fid")
            database.executemany("update t set fid = ? where a = ?", list(zip(kept, "abc", strict=True)))
        database.close()
        key = "fid"
    else:
        key = "OBJECTID"
        ids = {key: pa.array(kept, pa.int64())}
        path = write(tmp_path / "t.gdb", pa.table({**ids, "a": ["a", "b", "c"], "shape": points(3)}))
    [layer] = opened(path)
    assert [(one.name, one.type) for one in layer.fields] == [(key, pa.int64()), ("a", pa.string())]
    found = rows(layer)
    assert found.column(0).to_pylist() == kept
    assert found.column("a").to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".gpkg", ".gdb", ".fgb"])
def test_keys_that_only_number_the_rows_are_no_attribute(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"t{suffix}", pa.table({"a": ["a", "b", "c"], "shape": points(3)}))
    [layer] = opened(path)
    assert [one.name for one in layer.fields] == ["a"]
    assert rows(layer).column_names == ["a", GEOMETRY]


def test_many_values_that_are_no_dates_are_all_found(tmp_path: Path) -> None:
    given = ["1970-01-01", "never", "2020-01-01"] * 1_000
    path = gpkg_of(tmp_path / "t.gpkg", [(value, None) for value in given], column="DATE")
    [layer] = opened(path)
    found = rows(layer).column("a").to_pylist()
    assert found == [dt.date(1970, 1, 1), None, dt.date(2020, 1, 1)] * 1_000
    assert any("1,000 values of 'a'" in note for note in layer.notes)


def test_damaged_text_is_handed_on_for_the_columns_to_count(tmp_path: Path) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [("fine", None), ("x", None)])
    database = sqlite3.connect(path)
    with database:
        database.execute("update t set a = cast(x'eda080' as text) where fid = 2")
    database.close()
    [layer] = opened(path)
    [batch] = layer.batches()
    assert batch.column(0).cast(pa.binary()).to_pylist() == [b"fine", b"\xed\xa0\x80"]


# --- geometry --------------------------------------------------------------------------------------------------

ARC = struct.pack("<BII6d", 1, 8, 3, 0, 0, 1, 1, 2, 0)
DISC = struct.pack("<BII", 1, 10, 1) + struct.pack("<BII10d", 1, 8, 5, 0, 0, 1, 1, 2, 0, 1, -1, 0, 0)


def test_curves_become_lines_and_the_rest_stays(tmp_path: Path) -> None:
    line = shapely.to_wkb(shapely.LineString([(0, 0), (1, 1)]))
    path = gpkg_of(tmp_path / "t.gpkg", [("line", line), ("arc", ARC), ("none", None), ("disc", DISC)])
    [layer] = opened(path)
    found = rows(layer)
    straight, arc, none, disc = shapes(found)
    assert straight.wkb == line
    assert arc.length == pytest.approx(np.pi, rel=1e-3)
    assert none is None
    assert disc.area == pytest.approx(np.pi, rel=1e-2)
    assert "2 geometries had curves, and were made lines" in layer.notes
    assert found.column("a").to_pylist() == ["line", "arc", "none", "disc"]


@pytest.mark.parametrize("kind", ["CURVEPOLYGON", "MULTISURFACE", "CURVE"])
def test_curves_become_lines_where_the_layer_is_of_curves(tmp_path: Path, kind: str) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [("disc", DISC), ("arc", ARC)])
    declare(path, kind)
    [layer] = opened(path)
    disc, arc = shapes(rows(layer))
    assert (disc.geom_type, arc.geom_type) == ("Polygon", "LineString")


@pytest.mark.parametrize(("suffix", "kind"), [(".gdb", "MultiPolygon"), (".fgb", "Unknown")])
def test_curves_of_other_formats_become_lines(tmp_path: Path, suffix: str, kind: str) -> None:
    rings = pa.array([DISC, DISC], pa.binary())
    path = write(tmp_path / f"curves{suffix}", pa.table({"a": [1, 2], "shape": rings}), kind=kind)
    [layer] = opened(path)
    assert [one.area for one in shapes(rows(layer))] == pytest.approx([np.pi, np.pi], rel=1e-2)


def test_curves_become_lines_where_gdal_has_no_driver_but_one(tmp_path: Path) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [("arc", ARC)])
    with gdal_fence("GPKG", VectorBudget.from_settings(get_settings())):
        [layer] = opened(path)
        assert shapes(rows(layer))[0].geom_type == "LineString"


@pytest.mark.parametrize("kind", ["TIN", "POLYHEDRALSURFACE"])
def test_triangulated_layers_are_refused(tmp_path: Path, kind: str) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [("a", None)])
    declare(path, kind)
    with pytest.raises(VectorRefusedError, match="triangulated surfaces") as refused:
        opened(path)
    assert refused.value.code == "CURVES"


def declare(path: Path, kind: str) -> None:
    database = sqlite3.connect(path)
    with database:
        database.execute("update gpkg_geometry_columns set geometry_type_name = ?", (kind,))
    database.close()


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".gdb"])
@pytest.mark.parametrize(("kind", "text"), [("Point Z", "POINT Z (1 2 3)"), ("PointM", "POINT M (1 2 3)"),
                                            ("Measured 3D Point", "POINT ZM (1 2 3 4)")])  # fmt: skip
def test_third_and_fourth_dimensions_are_kept(tmp_path: Path, suffix: str, kind: str, text: str) -> None:
    shape = shapely.to_wkb([shapely.from_wkt(text)], flavor="iso", output_dimension=4)
    path = write(tmp_path / f"deep{suffix}", pa.table({"a": [1], "shape": shape}), kind=kind)
    [layer] = opened(path)
    table = rows(layer)
    assert shapely.to_wkt(shapes(table)[0], output_dimension=4) == text
    assert table.column(GEOMETRY).to_numpy()[0][1:5] == struct.pack(
        "<I", {"Z": 1001, "M": 2001, "ZM": 3001}[text.split()[1]]
    )


# --- CRS -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("srs", [-1, 0])
def test_an_undefined_crs_is_none_and_said(tmp_path: Path, srs: int) -> None:
    path = write(tmp_path / "some.gpkg", features(2))
    database = sqlite3.connect(path)
    with database:
        database.execute("update gpkg_geometry_columns set srs_id = ?", (srs,))
        database.execute("update gpkg_contents set srs_id = ?", (srs,))
    database.close()
    [layer] = opened(path)
    assert layer.crs is None
    assert any("counts as none" in note for note in layer.notes)


def test_a_crs_without_a_code_is_one(tmp_path: Path) -> None:
    crs = "+proj=laea +lat_0=47 +lon_0=8 +datum=WGS84 +units=m"
    [layer] = opened(write(tmp_path / "some.gpkg", features(2), crs=pyproj.CRS(crs).to_wkt()))
    assert layer.crs is not None
    assert layer.crs.to_authority() is None
    assert layer.crs.equals(pyproj.CRS(crs))


def test_a_shapefile_without_prj_has_none(tmp_path: Path) -> None:
    path = write(tmp_path / "some.shp", features(2))
    path.with_suffix(".prj").unlink()
    [layer] = opened(path)
    assert layer.crs is None


# --- encodings of shapefiles -----------------------------------------------------------------------------------


def dbf_of(
    folder: Path, values: Sequence[bytes], *, language: int = 0, name: bytes = b"NAME", deleted: Sequence[int] = ()
) -> Path:
    """A shapefile whose table was written by no GDAL."""
    path = write(folder / "some.shp", pa.table({"a": range(len(values)), "shape": points(len(values))}))
    path.with_suffix(".cpg").unlink()
    columns = [(name, b"C", 60), (b"NUMBER", b"N", 9)]
    head = 32 + 32 * len(columns) + 1
    width = 1 + sum(size for *_, size in columns)
    table = struct.pack("<4BIHH17xBxx", 3, 120, 1, 1, len(values), head, width, language)
    for label, kind, size in columns:
        table += label.ljust(11, b"\0") + kind + b"\0" * 4 + bytes([size, 0]) + b"\0" * 14
    table += b"\r"
    for at, value in enumerate(values):
        table += (b"*" if at in deleted else b" ") + value.ljust(60) + str(at).rjust(9).encode()
    path.with_suffix(".dbf").write_bytes(table + b"\x1a")
    return path


CHINESE = ["北京市朝阳区建国门外大街", "上海市浦东新区世纪大道", "广州市天河区体育西路", "成都市武侯区人民南路"]
GERMAN = ["Köln am Rhein", "Groß-Umstadt", "Preis in €", "Düsseldorf"]


@pytest.mark.parametrize(("texts", "encoding"), [(GERMAN, "cp1252"), (CHINESE, "gbk"), (CHINESE, "utf-8")])
@pytest.mark.parametrize("language", [0, 0x57])
def test_an_encoding_that_a_shapefile_does_not_say_is_guessed(
    tmp_path: Path, texts: list[str], encoding: str, language: int
) -> None:
    path = dbf_of(tmp_path, [text.encode(encoding) for text in texts], language=language)
    [layer] = opened(path)
    assert rows(layer).column("NAME").to_pylist() == texts
    assert any("guessed" in note for note in layer.notes)


@pytest.mark.parametrize(("language", "encoding", "text"), [(0x4D, "gbk", "中国"), (0x26, "cp866", "Жук")])
def test_an_encoding_that_a_shapefile_says_by_number_is_taken(
    tmp_path: Path, language: int, encoding: str, text: str
) -> None:
    [layer] = opened(dbf_of(tmp_path, [text.encode(encoding)], language=language))
    assert rows(layer).column("NAME").to_pylist() == [text]
    assert layer.notes == ()


def test_an_encoding_that_a_shapefile_says_by_name_is_taken(tmp_path: Path) -> None:
    path = dbf_of(tmp_path, ["Й".encode("cp1251")])
    path.with_suffix(".cpg").write_text("1251")
    [layer] = opened(path)
    assert rows(layer).column("NAME").to_pylist() == ["Й"]


def test_an_encoding_that_is_given_wins(tmp_path: Path) -> None:
    path = dbf_of(tmp_path, ["Й".encode("cp1251")], language=0x03)
    [layer] = opened(path, encoding="windows-1251")
    assert rows(layer).column("NAME").to_pylist() == ["Й"]
    with pytest.raises(VectorRefusedError, match="no encoding 'klingon'"):
        opened(path, encoding="klingon")


def test_an_encoding_that_gdal_does_not_know_is_refused(tmp_path: Path) -> None:
    [layer] = opened(dbf_of(tmp_path, ["č".encode("mac_croatian")]), encoding="mac_croatian")
    with pytest.raises(VectorRefusedError, match="GDAL does not know the encoding MAC-CROATIAN") as refused:
        list(layer.batches())
    assert refused.value.code == "ENCODING"


@pytest.mark.parametrize("encoding", ["euc_kr", "iso8859_15", "shift_jis", "koi8-r", "mac_roman", "latin-1", "big5"])
def test_names_of_encodings_are_known_to_gdal(tmp_path: Path, encoding: str) -> None:
    text = {"euc_kr": "서울", "shift_jis": "東京", "big5": "臺北", "koi8-r": "Москва"}.get(encoding, "é")
    [layer] = opened(dbf_of(tmp_path, [text.encode(encoding)]), encoding=encoding)
    assert rows(layer).column("NAME").to_pylist() == [text]


def test_deleted_rows_of_a_shapefile_are_not_missing(tmp_path: Path) -> None:
    path = dbf_of(tmp_path, [b"a", b"b", b"c"], deleted=[1])
    [layer] = opened(path)
    assert layer.feature_count == 2
    assert rows(layer).column("NAME").to_pylist() == ["a", "c"]
    assert "rows marked as deleted, and left out: 1" in layer.notes


# --- KML -------------------------------------------------------------------------------------------------------

KML = """<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document><name>Doc</name>
<Schema name="S" id="S"><SimpleField type="int" name="pop"/><SimpleField type="double" name="share"/></Schema>
<Folder><name>Empty</name></Folder>
<Folder><name>A</name><Placemark{id}><name>n</name><ExtendedData><SchemaData schemaUrl="#S">
<SimpleData name="pop">5</SimpleData><SimpleData name="share">1.5</SimpleData></SchemaData></ExtendedData>{when}
<Point><coordinates>1,2</coordinates></Point></Placemark></Folder>
<Folder><name>A</name><Placemark><name>m</name><ExtendedData><Data name="foo"><value>bar</value></Data>
<Data name="icon"><value>mine</value></Data></ExtendedData></Placemark></Folder></Document></kml>"""


def test_folders_of_a_kml_are_layers_with_what_people_wrote(tmp_path: Path) -> None:
    path = tmp_path / "some.kml"
    path.write_text(KML.format(id="", when=""))
    empty, first, second = opened(path)
    assert [layer.name for layer in (empty, first, second)] == ["Empty", "A", "A (#2)"]
    assert rows(empty).num_rows == 0
    found = rows(first)
    assert [(one.name, one.type) for one in first.fields if one.name != "icon"] == [
        ("Name", pa.string()),
        ("description", pa.string()),
        ("pop", pa.int32()),
        ("share", pa.float64()),
    ]
    assert shapes(found)[0].wkt == "POINT (1 2)"
    assert (found.column("pop")[0].as_py(), found.column("share")[0].as_py()) == (5, 1.5)
    [row] = rows(second).to_pylist()
    assert (row["foo"], row["icon"]) == ("bar", "mine")
    assert any("tessellate" in note and "left out" in note for note in first.notes)


def test_ids_and_times_of_placemarks_are_kept_where_there_are_some(tmp_path: Path) -> None:
    path = tmp_path / "some.kml"
    path.write_text(KML.format(id=' id="p1"', when="<TimeStamp><when>2020-01-01T00:00:00Z</when></TimeStamp>"))
    [layer] = opened(path, layer="A")
    [row] = rows(layer).to_pylist()
    assert row["id"] == "p1"
    assert row["timestamp"] == dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


# --- damage ----------------------------------------------------------------------------------------------------


def cut(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def scratched(share: float, size: int) -> Callable[[bytes], bytes]:
    def scratch(content: bytes) -> bytes:
        at = int(len(content) * share)
        return content[:at] + b"\xff" * size + content[at + size :]

    return scratch


@pytest.mark.parametrize(
    ("suffix", "part", "damage", "says"),
    [
        (".gpkg", ".gpkg", cut(0.6), "malformed"),
        (".gpkg", ".gpkg", scratched(0.3, 20_000), r"cannot be read beyond row [1-9][\d,]+ of 20,000: .*malformed"),
        (".fgb", ".fgb", cut(0.6), r"cannot be read beyond row [1-9][\d,]+ of 20,000: .*feature"),
        (".fgb", ".fgb", scratched(0.6, 2000), r"cannot be read beyond row [1-9][\d,]+"),
        (".shp", ".dbf", cut(0.6), r"\.dbf part is cut off: it says it has 20,000 rows, but only 11,9\d\d are there"),
        (".shp", ".dbf", cut(0.00001), r"\.dbf part is cut off within its header"),
        (".shp", ".shp", cut(0.6), r"\.shp part is cut off: it says"),
        (".shp", ".shp", cut(0.0001), r"\.shp part is cut off or damaged within its header"),
        (".shp", ".shx", cut(0.6), r"cannot be opened: .*\.shx"),
        (".kml", ".kml", cut(0.6), "cannot be opened: .*(unclosed token|no element found)"),
        (".geojson", ".geojson", cut(0.6), "cannot be opened: .*JSON"),
    ],
)
def test_damaged_and_cut_files_are_unreadable(
    tmp_path: Path, suffix: str, part: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    path = write(tmp_path / f"some{suffix}", features(20_000))
    broken = path.with_suffix(part)
    broken.write_bytes(damage(broken.read_bytes()))
    with pytest.raises(VectorUnreadableError, match=says) as unreadable:
        list(opened(path)[0].batches())
    assert str(tmp_path) not in str(unreadable.value)


@pytest.mark.parametrize("damage", [cut(0.6), scratched(0.5, 3000)])
def test_a_damaged_geodatabase_is_unreadable(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path / "some.gdb", features(20_000))
    table = max(path.glob("*.gdbtable"), key=lambda part: part.stat().st_size)
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(VectorUnreadableError, match=r"cannot be read beyond row [1-9][\d,]+ of 20,000"):
        list(opened(path)[0].batches())


def test_a_geopackage_with_a_stale_count_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "some.gpkg", features(10))
    database = sqlite3.connect(path)
    with database:
        database.execute("update gpkg_ogr_contents set feature_count = 99")
    database.close()
    [layer] = opened(path)
    assert layer.feature_count == 99
    assert rows(layer).num_rows == 10
    assert layer.feature_count == 10
    assert "the file says it has 99 rows, but has 10" in layer.notes


def test_a_flatgeobuf_with_a_lying_count_is_unreadable(tmp_path: Path) -> None:
    path = write(tmp_path / "some.fgb", features(1_000), SPATIAL_INDEX="NO")
    content = bytearray(path.read_bytes())
    at = content.index(struct.pack("<Q", 1_000))
    content[at : at + 8] = struct.pack("<Q", 1_000_000)
    path.write_bytes(content)
    with pytest.raises(VectorUnreadableError, match="beyond row 1,000 of 1,000,000"):
        list(opened(path)[0].batches())


def test_a_file_that_is_not_there_says_so_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(VectorUnreadableError, match="cannot be opened: the file: No such file") as unreadable:
        opened(tmp_path / "missing.gpkg")
    assert str(tmp_path) not in str(unreadable.value)


def test_what_gdal_warns_of_becomes_a_note(tmp_path: Path) -> None:
    path = gpkg_of(tmp_path / "t.gpkg", [("x", None)], column="STRANGE")
    [layer] = opened(path)
    assert layer.fields == ()
    assert "GDAL: Field format 'STRANGE' not supported" in layer.notes


# --- size ------------------------------------------------------------------------------------------------------


def large(count: int, corners: int) -> pa.BinaryArray:
    angles = np.linspace(0, 2 * np.pi, corners)
    ring = np.column_stack([np.cos(angles), np.sin(angles)])
    ring[-1] = ring[0]
    rings = ring + np.arange(count)[:, None, None]
    return wkb.from_shapely(shapely.polygons(rings))


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".gdb"])
def test_batches_of_large_polygons_stay_small_where_the_first_are_tiny(tmp_path: Path, suffix: str) -> None:
    shape = pa.concat_arrays([large(3_000, 5), large(500, 5_000)])
    path = write(tmp_path / f"some{suffix}", pa.table({"a": range(3_500), "shape": shape}), kind="Polygon")
    [layer] = opened(path)
    batches = list(layer.batches())
    assert max(batch.nbytes for batch in batches) <= 2 * BATCH_BYTES
    if suffix != ".fgb":  # which are sorted
        found = itertools.chain.from_iterable(batch.column("a").to_pylist() for batch in batches)
        assert list(found) == list(range(3_500))
    assert sum(batch.num_rows for batch in batches) == 3_500


@pytest.mark.parametrize("suffix", [".gpkg", ".shp", ".fgb", ".gdb"])
def test_one_feature_may_be_larger_than_a_batch(tmp_path: Path, suffix: str) -> None:
    shape = pa.concat_arrays([large(2, 5), large(1, BATCH_BYTES // 10), large(2, 5)])
    path = write(tmp_path / f"some{suffix}", pa.table({"a": range(5), "shape": shape}), kind="Polygon")
    [layer] = opened(path)
    found = itertools.chain.from_iterable(batch.column("a").to_numpy() for batch in layer.batches())
    assert sorted(found) == list(range(5))
