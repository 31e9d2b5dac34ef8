"""The one door: what is let in as which layers, what is refused, and that nothing else is read or contacted.

What belongs here: whole files through :func:`open_vector`.  What does not: each check by itself (``test_formats``,
``test_archives``, ``test_content``), and what readers make of values.
"""

import os
import sqlite3
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyogrio
import pytest

from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.settings import Settings
from geo_assets.vector.gdal_fence import HARDENED, gdal_fence
from geo_assets.vector.layers import GEOMETRY
from geo_assets.vector.open import ReadOptions, VectorBudget, open_vector
from tests.raster.conftest import Listener
from tests.vector.files import (
    BUDGET,
    COLLECTION,
    CSV_TEXT,
    PLACEMARK,
    drop_triggers,
    kml,
    renamed,
    shapefile,
    vrt,
    write,
    zipped,
    zipped_folder,
)

OPTIONS = ReadOptions()
POINTS = ReadOptions(lat_name="lat", lon_name="lon")


def rows(
    path: Path, options: ReadOptions = OPTIONS, *, name: str | None = None, budget: VectorBudget = BUDGET
) -> dict[str, int]:
    """Rows of each layer, all read."""
    with open_vector(path, name=name or path.name, options=options, budget=budget, folder=path.parent) as opened:
        return {layer.name: sum(batch.num_rows for batch in layer.batches()) for layer in opened.layers}


def refused(path: Path, options: ReadOptions = OPTIONS, *, name: str | None = None, code: str = "FILE_REFUSED") -> str:
    with pytest.raises(VectorRefusedError) as caught:
        rows(path, options, name=name)
    assert caught.value.code == code
    return str(caught.value)


# --- what is let in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "suffix", "form"),
    [
        ("GPKG", ".gpkg", "gpkg"),
        ("FlatGeobuf", ".fgb", "flatgeobuf"),
        ("ESRI Shapefile", ".shp", "shapefile"),
        ("LIBKML", ".kml", "kml"),
        ("OpenFileGDB", ".gdb", "filegdb"),
        ("GeoJSON", ".geojson", "geojson"),
        ("GeoJSONSeq", ".geojsonl", "geojsonl"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_format_is_read_bare_and_in_a_zip(
    driver: str,
    suffix: str,
    form: str,
    packed: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    path = write(made / f"places{suffix}", driver)
    if packed:
        path = zipped_folder(tmp_path / "x.zip", made)
    options = ReadOptions(layer="places")
    with open_vector(path, name=path.name, options=options, budget=BUDGET, folder=tmp_path) as opened:
        assert opened.format == form
        (layer,) = opened.layers
        assert layer.name == "places"
        table = pa.Table.from_batches(list(layer.batches()))
        fields = [field.name for field in layer.fields]
    assert table.num_rows == 20
    # by position: names may repeat
    assert table.column(fields.index("text")).to_pylist() == ["é"] * 20
    assert table.column(fields.index("number")).combine_chunks().sort().to_pylist() == list(
        range(20)
    )  # FlatGeobuf sorts by place
    assert table.schema.names[-1] == GEOMETRY
    assert table.column(table.num_columns - 1).null_count == 0
    assert not list(tmp_path.glob("unpacked*"))


def test_a_table_and_its_options(tmp_path: Path) -> None:
    path = tmp_path / "vector.csv"
    path.write_text(CSV_TEXT)
    assert rows(path, POINTS, name="d/cities.csv") == {"cities": 2}
    assert rows(zipped(tmp_path / "x.zip", {"towns.csv": CSV_TEXT}), POINTS) == {"towns": 2}


def test_fault_28_tables_in_utf_16_and_with_a_mark(tmp_path: Path) -> None:
    for number, encoding in enumerate(("utf-16", "utf-8-sig", "utf-8")):
        path = tmp_path / f"{number}.csv"
        path.write_bytes(CSV_TEXT.replace("Bern", "Genève").encode(encoding))
        with open_vector(path, name="x.csv", options=POINTS, budget=BUDGET, folder=tmp_path) as opened:
            (layer,) = opened.layers
            assert layer.fields[0].name == "name"
            assert next(iter(layer.batches())).column(0).to_pylist() == ["Genève", "Basel"]


def test_options_travel_as_plain_values() -> None:
    options = ReadOptions(layer="a", delimiter=";", kml_name="b.kml")
    assert ReadOptions.from_dict(options.as_dict()) == options
    assert ReadOptions.from_dict({"layer_name": "a"}).wanted_layer == "a"
    assert ReadOptions(layer="*").wanted_layer is None
    assert VectorBudget(**BUDGET.as_dict()) == BUDGET
    with pytest.raises(TypeError):
        ReadOptions.from_dict({"colour": "red"})


@pytest.mark.parametrize("called", ["x.geojson", "x.kml", "x.shp", "x.csv"])
def test_fault_23_a_wrong_extension_is_noted_and_does_not_matter(called: str, tmp_path: Path) -> None:
    path = write(tmp_path / "vector.gpkg", "GPKG", layer="places")
    with open_vector(path, name=called, options=OPTIONS, budget=BUDGET, folder=tmp_path) as opened:
        assert opened.driver == "GPKG"
        assert any("but is gpkg" in note for note in opened.notes)
    # what the local file is called matters least
    renamed = path.rename(tmp_path / called)
    assert rows(renamed, name="x.gpkg") == {"places": 20}


# --- layers -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_layers(tmp_path: Path) -> Path:
    write(tmp_path / "x.gpkg", "GPKG", layer="roads")
    return write(tmp_path / "x.gpkg", "GPKG", layer="rivers", rows=3, append=True)


def test_fault_23_two_layers_are_all_read_or_one_is_chosen(two_layers: Path) -> None:
    assert rows(two_layers) == {"roads": 20, "rivers": 3}
    assert rows(two_layers, ReadOptions(layer="*")) == {"roads": 20, "rivers": 3}
    assert rows(two_layers, ReadOptions(layer="rivers")) == {"rivers": 3}
    assert rows(two_layers, ReadOptions(layer_name="roads")) == {"roads": 20}


def test_fault_23_a_layer_that_is_not_there(two_layers: Path, tmp_path: Path) -> None:
    message = refused(two_layers, ReadOptions(layer="lakes"), code="LAYER_NOT_FOUND")
    assert "'lakes'" in message
    assert "'roads', 'rivers'" in message
    table = tmp_path / "x.csv"
    table.write_text(CSV_TEXT)
    assert "'x'" in refused(table, replace(POINTS, layer="y"), code="LAYER_NOT_FOUND")
    shape = shapefile(tmp_path / "s", "x")
    assert "'x'" in refused(shape, ReadOptions(layer="y"), code="LAYER_NOT_FOUND")


@pytest.mark.parametrize("layer", ["-overwrite", '"; drop table x; --', "select", "é" * 63, "A b", "'"])
def test_fault_23_layers_of_any_name_are_read(layer: str, tmp_path: Path) -> None:
    path = renamed(write(tmp_path / "x.gpkg", "GPKG", layer="other"), "other", layer)
    assert rows(path) == {layer: 20}
    assert rows(path, ReadOptions(layer=layer)) == {layer: 20}


def test_fault_23_no_layer_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gpkg", "GPKG", layer="a")
    with closing(sqlite3.connect(path)) as connection:
        drop_triggers(connection)
        connection.execute("DROP TABLE a")
        for table in ("gpkg_contents", "gpkg_geometry_columns", "gpkg_extensions", "gpkg_ogr_contents"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours
        connection.commit()
    assert "no layer" in refused(path, code="NO_LAYER")


def test_fault_29_a_geopackage_with_its_wal_left_open_is_read_and_noted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gpkg", "GPKG", layer="a")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    with open_vector(path, name="x.gpkg", options=OPTIONS, budget=BUDGET, folder=tmp_path) as opened:
        assert any("write-ahead log" in note for note in opened.notes)
        assert sum(batch.num_rows for batch in opened.layers[0].batches()) == 20


def test_a_layer_without_rows_is_kept(tmp_path: Path) -> None:
    assert rows(write(tmp_path / "x.gpkg", "GPKG", layer="none", rows=0)) == {"none": 0}
    assert rows(write(tmp_path / "x.fgb", "FlatGeobuf", rows=0)) == {"x": 0}


def test_fault_36_two_shapefiles_in_a_zip(tmp_path: Path) -> None:
    made = shapefile(tmp_path / "made", "roads").parent
    shapefile(made, "rivers", rows=3)
    path = zipped_folder(tmp_path / "x.zip", made)
    assert "'rivers.shp', 'roads.shp'" in refused(path, code="SEVERAL_DATASETS")
    assert rows(path, ReadOptions(layer="*")) == {"roads": 20, "rivers": 3}
    assert rows(path, ReadOptions(layer="rivers")) == {"rivers": 3}
    assert rows(path, ReadOptions(shp_name="roads.shp")) == {"roads": 20}


def test_folders_of_a_kmz_are_layers(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.kmz", {"doc.kml": kml(), "other.kml": kml(PLACEMARK * 2), "files/a.png": b"\x89PNG"})
    assert rows(path) == {"places": 1}
    assert rows(path, ReadOptions(kml_name="other.kml")) == {"places": 2}


def test_what_is_beyond_the_budget_is_refused(two_layers: Path) -> None:
    for budget, what in ((replace(BUDGET, columns=1), "attributes in layer"), (replace(BUDGET, layers=1), "layers")):
        with pytest.raises(VectorRefusedError, match=what) as caught:
            rows(two_layers, budget=budget)
        assert caught.value.code == "FILE_TOO_LARGE"
    assert rows(two_layers, ReadOptions(layer="roads"), budget=replace(BUDGET, layers=1)) == {"roads": 20}


def test_wider_types_reach_the_layer_they_are_for(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,lat,lon\n1,47,7\n")
    types: Mapping[str, Mapping[str, pa.DataType]] = {"x": {"a": pa.string()}, "y": {"a": pa.int64()}}
    with open_vector(path, name="x.csv", options=POINTS, budget=BUDGET, folder=tmp_path, types=types) as opened:
        assert opened.layers[0].fields[0].type == pa.string()


# --- what names other files ---------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file somebody else put there."""
    folder = tmp_path / "others"
    folder.mkdir()
    return write(folder / "secret.gpkg", "GPKG", layer="secret")


@pytest.mark.parametrize("suffix", [".geojson", ".kml", ".shp", ".csv", ".gpkg", ".fgb", ".parquet", ".vrt"])
@pytest.mark.parametrize("packed", [False, True])
def test_an_ogr_vrt_by_any_name_reads_nothing(
    suffix: str,
    packed: bool,  # noqa: FBT001
    tmp_path: Path,
    secret: Path,
    listener: Listener,
) -> None:
    for source in (str(secret), f"/vsicurl/{listener.url}/x.geojson", f"{listener.url}/x.geojson"):
        path = tmp_path / f"x{suffix}"
        path.write_text(vrt(source))
        if packed and suffix != ".vrt":
            # a shapefile needs its parts, or it is refused for lack of them
            parts = {"x.shx": "", "x.dbf": ""} if suffix == ".shp" else {}
            path = zipped(tmp_path / "x.zip", {f"x{suffix}": path.read_bytes(), **parts})
        assert "OGR VRT" in refused(path)


def test_gdal_itself_follows_a_vrt_by_another_name(tmp_path: Path, secret: Path) -> None:
    # the reason for the test above and the fence below: should GDAL cease to do so, they may go
    path = tmp_path / "x.geojson"
    path.write_text(vrt(str(secret)))
    assert pyogrio.read_info(path)["driver"] == "OGR_VRT"


@pytest.mark.parametrize(
    "text",
    [
        "/vsicurl/{url}/x.geojson",
        "{url}/x.geojson",
        "WFS:{url}",
        "<OGRWFSDataSource><URL>{url}/</URL></OGRWFSDataSource>",
        '<gml:FeatureCollection xmlns:gml="g" xmlns:xsi="i" xsi:schemaLocation="x {url}/x.xsd"/>',
        '{{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read {url}"}}',
    ],
)
def test_fault_37_texts_and_gml_that_name_addresses_contact_nobody(
    text: str, tmp_path: Path, listener: Listener
) -> None:
    for suffix in (".geojson", ".csv", ".kml"):
        path = tmp_path / f"x{suffix}"
        path.write_text(text.format(url=listener.url))
        refused(path)


@pytest.mark.parametrize(
    "body",
    [
        "<NetworkLink><Link><href>{url}/x.kml</href></Link></NetworkLink>",
        "<Placemark><name>&x;</name><Point><coordinates>7,47</coordinates></Point></Placemark>",
    ],
)
def test_fault_35_kml_contacts_nobody(body: str, tmp_path: Path, listener: Listener) -> None:
    doctype = f'<?xml version="1.0"?><!DOCTYPE kml [<!ENTITY x SYSTEM "{listener.url}/x">]>' if "&x;" in body else ""
    text = kml(body.format(url=listener.url), prolog=doctype)
    path = tmp_path / "x.kml"
    path.write_text(text)
    refused(path)
    refused(zipped(tmp_path / "x.kmz", {"doc.kml": text}))


def test_fault_35_pictures_and_styles_of_a_kml_are_left_alone(tmp_path: Path, listener: Listener) -> None:
    pictures = (
        f"<GroundOverlay><name>o</name><Icon><href>{listener.url}/x.png</href></Icon><LatLonBox><north>48</north>"
        "<south>47</south><east>8</east><west>7</west></LatLonBox></GroundOverlay>"
    )
    styled = PLACEMARK.replace("<Point>", f"<styleUrl>{listener.url}/style.kml#a</styleUrl><Point>")
    path = tmp_path / "x.kml"
    path.write_text(kml(pictures + styled))
    with open_vector(path, name="x.kml", options=OPTIONS, budget=BUDGET, folder=tmp_path) as opened:
        assert any("GroundOverlay" in note for note in opened.notes)
        assert [sum(batch.num_rows for batch in layer.batches()) for layer in opened.layers] == [1]


def test_fault_35_a_path_in_a_kmz_that_leads_out(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "x.kmz", {"../doc.kml": kml()}), code="ARCHIVE_REFUSED")
    refused(zipped(tmp_path / "y.kmz", {"doc.kml": kml(), "../../x": ""}), code="ARCHIVE_REFUSED")


def test_fault_36_an_archive_that_says_it_is_something_else(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner", {"a.csv": CSV_TEXT}).read_bytes()
    assert "archive itself" in refused(zipped(tmp_path / "x.zip", {"a.geojson": inner}), code="ARCHIVE_REFUSED")


def test_views_that_call_gdals_functions_contact_nobody(tmp_path: Path, listener: Listener) -> None:
    path = write(tmp_path / "x.gpkg", "GPKG", layer="a")
    with closing(sqlite3.connect(path)) as connection:
        call = f"gdal_get_pixel_value('/vsicurl/{listener.url}/x.tif', 1, 'pixel', 0, 0)"
        connection.execute(f"CREATE VIEW evil AS SELECT {call} AS value FROM a")  # noqa: S608 - the attack itself
        connection.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier) VALUES ('evil', 'attributes', 'evil')"
        )
        connection.commit()
    assert "view 'evil'" in refused(path)


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/vsicurl/http://127.0.0.1:9/x", "http://127.0.0.1:9/x", "PG:dbname=x", '{"type":"Point"}', b"/tmp/x", 7]
)
def test_only_paths_are_opened(path: object, tmp_path: Path) -> None:
    with (
        pytest.raises(VectorRefusedError, match=r"pathlib\.Path"),
        open_vector(path, name="x", options=OPTIONS, budget=BUDGET, folder=tmp_path),  # type: ignore[arg-type]
    ):
        pass


@pytest.mark.parametrize("path", ["/vsicurl/http:/127.0.0.1/x", "/vsizip/a.zip/x", "PG:dbname=x", "x.gpkg", "/a\0b"])
def test_only_absolute_local_paths_are_opened(path: str, tmp_path: Path) -> None:
    with (
        pytest.raises(VectorRefusedError, match="not the absolute path"),
        open_vector(Path(path), name="x", options=OPTIONS, budget=BUDGET, folder=tmp_path),
    ):
        pass


def test_links_pipes_and_folders_are_not_opened(tmp_path: Path) -> None:
    target = tmp_path / "a.geojson"
    target.write_text(COLLECTION)
    link, pipe, folder = tmp_path / "b.geojson", tmp_path / "c.geojson", tmp_path / "d"
    link.symlink_to(target)
    os.mkfifo(pipe)
    folder.mkdir()
    for path in (link, pipe, folder):
        assert "not a regular file" in refused(path)
    gdb = write(tmp_path / "x.gdb", "OpenFileGDB")
    (gdb / "more").symlink_to(target)
    assert "not a regular file" in refused(gdb)
    with pytest.raises(VectorUnreadableError, match="cannot be read"):
        rows(tmp_path / "gone")


# --- GDAL's state -------------------------------------------------------------------------------------------------


def drivers() -> set[str]:
    return set(pyogrio.list_drivers())


def options() -> list[str | bool | None]:
    return [pyogrio.get_gdal_config_option(key) for key in (*HARDENED, "OGR_GEOJSON_MAX_OBJ_SIZE", "OGR_SKIP")]


def test_only_one_driver_is_there_while_a_file_is_open(two_layers: Path, tmp_path: Path, secret: Path) -> None:
    before, set_before = drivers(), options()
    innocent = tmp_path / "x.geojson"
    innocent.write_text(vrt(str(secret)))
    with open_vector(two_layers, name="x.gpkg", options=OPTIONS, budget=BUDGET, folder=tmp_path):
        assert drivers() == {"GPKG"}
        with pytest.raises(pyogrio.errors.DataSourceError):
            pyogrio.read_info(innocent)
    assert drivers() == before
    assert options() == set_before


def test_several_files_may_be_open_at_once(two_layers: Path, tmp_path: Path) -> None:
    before, set_before = drivers(), options()
    paths = [two_layers, write(tmp_path / "x.fgb", "FlatGeobuf"), shapefile(tmp_path / "s", "x")]
    failed: list[BaseException] = []

    def many(path: Path) -> None:
        try:
            for _ in range(10):
                assert sum(rows(path).values()) in (20, 23)
        except BaseException as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=many, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert drivers() == before
    assert options() == set_before


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    before, set_before = drivers(), options()
    path = write(tmp_path / "x.gpkg", "GPKG", layer="a")
    with pytest.raises(RuntimeError), open_vector(path, name="x", options=OPTIONS, budget=BUDGET, folder=tmp_path):
        raise RuntimeError
    refused(path, ReadOptions(layer="b"), code="LAYER_NOT_FOUND")
    assert (drivers(), options()) == (before, set_before)


@pytest.mark.parametrize("address", ["/vsicurl/{url}/x.fgb", "/vsicurl_streaming/{url}/x.fgb", "{url}/x.fgb"])
def test_within_the_fence_no_address_is_contacted(address: str, listener: Listener) -> None:
    with gdal_fence("FlatGeobuf", BUDGET), pytest.raises(pyogrio.errors.DataSourceError):
        pyogrio.list_layers(address.format(url=listener.url))


def in_a_worker(params: Mapping[str, str]) -> dict[str, object]:
    return {"success": True, "result": {"rows": rows(Path(params["path"]))}}


def test_it_works_in_the_sandbox(two_layers: Path) -> None:
    sandbox = Sandbox(Settings(task_processes=1))
    try:
        outcome = sandbox.call(in_a_worker, {"path": str(two_layers)})
    finally:
        sandbox.close()
    assert outcome.result_data["result"]["rows"] == {"roads": 20, "rivers": 3}


# --- real files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("driver", "suffix"), [("GPKG", "gpkg"), ("FlatGeobuf", "fgb"), ("LIBKML", "kml"), ("GeoJSON", "geojson")]
)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_file_cut_off_is_never_read_as_if_it_were_whole(
    driver: str, suffix: str, share: float, tmp_path: Path
) -> None:
    path = write(tmp_path / f"x.{suffix}", driver, rows=500)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises((VectorRefusedError, VectorUnreadableError)):
        rows(path)
