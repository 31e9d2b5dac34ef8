"""What is found in files without GDAL: cut off, parts that do not fit, and what would read or run something else."""

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.content import check_content
from geo_assets.vector.formats import FILEGDB, FLATGEOBUF, GEOPARQUET, GPKG, KML, SHAPEFILE, VectorFormat
from tests.vector.files import PLACEMARK, drop_triggers, kml, patched, shapefile, write


def unreadable(path: Path, form: VectorFormat, what: str) -> None:
    with pytest.raises(VectorUnreadableError, match=what):
        check_content(path, form)


def refused(path: Path, form: VectorFormat, what: str) -> None:
    with pytest.raises(VectorRefusedError, match=what):
        check_content(path, form)


def cut(path: Path, by: int) -> Path:
    path.write_bytes(path.read_bytes()[:-by])
    return path


# --- shapefile ----------------------------------------------------------------------------------------------------


def test_a_whole_shapefile_is_let_in(tmp_path: Path) -> None:
    assert check_content(shapefile(tmp_path / "x"), SHAPEFILE) == []


@pytest.mark.parametrize("suffix", [".shp", ".shx", ".dbf"])
@pytest.mark.parametrize("by", [1, 9, 150])
def test_fault_29_truncated_parts(suffix: str, by: int, tmp_path: Path) -> None:
    path = shapefile(tmp_path / "x")
    cut(path.with_suffix(suffix), by)
    if (suffix, by) == (".dbf", 1):
        # the mark at its end is not a row
        assert check_content(path, SHAPEFILE) == []
    else:
        unreadable(path, SHAPEFILE, rf"\{suffix} part is cut off")


def test_fault_29_parts_of_different_versions(tmp_path: Path) -> None:
    path = shapefile(tmp_path / "x")
    other = shapefile(tmp_path / "y", rows=21)
    path.with_suffix(".dbf").write_bytes(other.with_suffix(".dbf").read_bytes())
    unreadable(path, SHAPEFILE, "20 shapes in the .shx, 21 rows in the .dbf")


def test_an_index_that_leads_beyond_the_file(tmp_path: Path) -> None:
    path = shapefile(tmp_path / "x")
    patched(path.with_suffix(".shx"), 100 + 8 * 7, ">i", 1_000_000)
    unreadable(path, SHAPEFILE, "shape 8 would lie beyond")


# --- GeoPackage ---------------------------------------------------------------------------------------------------


def run(path: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


@pytest.fixture
def gpkg(tmp_path: Path) -> Path:
    return write(tmp_path / "x.gpkg", "GPKG", layer="things")


def test_a_whole_geopackage_is_let_in(gpkg: Path) -> None:
    run(gpkg, "CREATE VIEW named AS SELECT fid, upper(text) AS text, geom FROM things WHERE number > 3")
    assert check_content(gpkg, GPKG) == []


def test_fault_29_a_sqlite_database_that_is_no_geopackage(tmp_path: Path) -> None:
    refused(run(tmp_path / "a", "CREATE TABLE a (b)"), GPKG, "no GeoPackage: it has no table gpkg_contents")
    refused(run(tmp_path / "b", "CREATE TABLE tiles (b)"), GPKG, r"\(MBTiles\)")
    refused(run(tmp_path / "c", "CREATE TABLE spatial_ref_sys (b)"), GPKG, r"\(SpatiaLite\)")


@pytest.mark.parametrize(("kind", "what"), [("tiles", "rasters only"), (None, "registers no table")])
def test_fault_23_a_geopackage_without_a_layer(kind: str | None, what: str, gpkg: Path) -> None:
    with closing(sqlite3.connect(gpkg)) as connection:
        drop_triggers(connection)
        connection.execute("UPDATE gpkg_contents SET data_type = coalesce(?, '')", (kind,))
        connection.execute("DELETE FROM gpkg_contents WHERE data_type = ''")
        connection.commit()
    refused(gpkg, GPKG, what)


def test_a_geopackage_that_does_not_say_so_is_noted(gpkg: Path) -> None:
    (note,) = check_content(run(gpkg, "PRAGMA application_id = 0"), GPKG)
    assert "does not say" in note


def test_fault_29_wal_left_open(gpkg: Path) -> None:
    with closing(sqlite3.connect(gpkg)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE more (a)")
        connection.commit()
        copy = gpkg.with_name("copy.gpkg")
        copy.write_bytes(gpkg.read_bytes())
    (note,) = check_content(copy, GPKG)
    assert "write-ahead log open" in note
    assert not list(copy.parent.glob("copy.gpkg-*"))  # nothing was made beside it


def test_fault_29_all_of_it_is_in_the_wal(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE gpkg_contents (a)")
        connection.commit()
        copy = tmp_path / "copy.gpkg"
        copy.write_bytes((tmp_path / "x").read_bytes())
    refused(copy, GPKG, "-wal file that was not uploaded")


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_fault_29_a_geopackage_cut_off(share: float, gpkg: Path) -> None:
    unreadable(cut(gpkg, int(gpkg.stat().st_size * (1 - share))), GPKG, "cut off")


def test_fault_29_an_encrypted_database_with_a_plain_header(gpkg: Path) -> None:
    content = gpkg.read_bytes()
    gpkg.write_bytes(content[:100] + bytes(255 - byte for byte in content[100:]))
    unreadable(gpkg, GPKG, "damaged, cut off or encrypted")


@pytest.mark.parametrize(
    "select",
    [
        "ogr_geocode('Bern')",
        "gdal_get_pixel_value('/etc/passwd', 1, 'pixel', 0, 0)",
        "load_extension('/tmp/x.so')",
        "readfile('/etc/passwd')",
        "fts3_tokenizer('simple')",
        "randomblob(1000000000)",
        "ST_Buffer(geom, 1)",
    ],
)
def test_views_that_call_functions_are_refused(select: str, gpkg: Path) -> None:
    run(gpkg, f"CREATE VIEW harmful AS SELECT {select} AS a FROM things")  # noqa: S608 - the attack itself
    refused(gpkg, GPKG, "view 'harmful' of the GeoPackage is not opened")


def test_a_view_of_a_view_is_looked_through(gpkg: Path) -> None:
    run(
        gpkg,
        "CREATE VIEW inner_one AS SELECT load_extension('x') AS a FROM things",
        "CREATE VIEW outer_one AS SELECT a FROM inner_one",
    )
    refused(gpkg, GPKG, "more than name columns")


def test_views_of_what_is_not_there_are_refused(gpkg: Path) -> None:
    refused(run(gpkg, "CREATE VIEW lost AS SELECT * FROM gone"), GPKG, "no such table")


def schema(path: Path, kind: str, name: object, sql: object) -> None:
    """Write into the schema what SQLite itself would not make here."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, 0, ?)", (kind, name, name, sql))
        connection.commit()


@pytest.mark.parametrize("name", ["evil", '"evil USING rtree"'])
def test_virtual_tables_of_gdal_are_refused(name: str, gpkg: Path) -> None:
    schema(gpkg, "table", name.strip('"'), f"CREATE VIRTUAL TABLE {name} USING VirtualOGR('/etc/passwd')")
    refused(gpkg, GPKG, "no such module: VirtualOGR")


@pytest.mark.parametrize("name", [None, 7, b"a\xff", "a\xff"])
@pytest.mark.parametrize("sql", [None, 7, b"CREATE TABLE a (b)", "CREATE TABLE", "CREATE TABLE a (b)"])
def test_a_schema_of_nonsense_is_unreadable_or_refused(name: object, sql: object, gpkg: Path) -> None:
    schema(gpkg, "table", name, sql)
    with pytest.raises((VectorUnreadableError, VectorRefusedError)):
        check_content(gpkg, GPKG)


def test_names_that_are_no_text_are_unreadable(gpkg: Path) -> None:
    content = gpkg.read_bytes()
    gpkg.write_bytes(content.replace(b"CREATE TABLE gpkg_contents", b"CREATE TABLE gpkg_content\xff"))
    with pytest.raises((VectorUnreadableError, VectorRefusedError)):
        check_content(gpkg, GPKG)


def test_generated_columns_that_call_functions_are_refused(gpkg: Path) -> None:
    with closing(sqlite3.connect(gpkg)) as connection:
        connection.create_function("ogr_geocode", 1, lambda text: text, deterministic=True)
        connection.execute("CREATE TABLE evil (a TEXT, b TEXT GENERATED ALWAYS AS (ogr_geocode(a)) VIRTUAL)")
        connection.commit()
    refused(gpkg, GPKG, "table 'evil' of the GeoPackage is not opened")


def test_fault_29_a_corrupt_r_tree_does_not_matter(gpkg: Path) -> None:
    run(gpkg, "DELETE FROM rtree_things_geom_node")
    assert check_content(gpkg, GPKG) == []


@pytest.mark.parametrize("layer", ["-overwrite", '"; drop table x; --', "select", "", " ", "é" * 40, "'"])
def test_fault_23_layers_of_any_name(layer: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.gpkg", "GPKG", layer="other")
    quoted = layer.replace('"', '""')
    run(path, f'ALTER TABLE other RENAME TO "{quoted}"', "UPDATE gpkg_contents SET table_name = 'x' WHERE 0")
    assert check_content(path, GPKG) == []


# --- KML ----------------------------------------------------------------------------------------------------------


def kml_file(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "x.kml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_whole_kml_is_let_in(tmp_path: Path) -> None:
    assert check_content(kml_file(tmp_path, kml()), KML) == []
    utf16 = kml(prolog='<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16")
    assert check_content(kml_file(tmp_path, utf16), KML) == []


LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(20))


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE kml [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE kml SYSTEM "http://127.0.0.1:9/x.dtd">',
        '<!DOCTYPE kml [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>',
        f"<!DOCTYPE kml [{LAUGHS}]>",
        "<!DOCTYPE kml>",
    ],
)
def test_fault_35_external_entity_and_billion_laughs(doctype: str, tmp_path: Path) -> None:
    body = "<Placemark><name>&x;&a19;</name></Placemark>"
    refused(kml_file(tmp_path, kml(body, prolog=f'<?xml version="1.0"?>{doctype}')), KML, "DOCTYPE")
    prolog = f'<?xml version="1.0" encoding="UTF-16"?>{doctype}'
    refused(kml_file(tmp_path, kml(body, prolog=prolog).encode("utf-16")), KML, "DOCTYPE")


@pytest.mark.parametrize("tag", ["NetworkLink", "k:NetworkLink"])
def test_fault_35_network_link(tag: str, tmp_path: Path) -> None:
    link = f'<{tag} xmlns:k="k"><Link><href>http://127.0.0.1:9/x.kml</href></Link></{tag}>'
    padding = f"<!--{'x' * (1 << 20)}-->"  # it may lie across two blocks
    for text in (kml(PLACEMARK + link), kml(padding[: (1 << 20) - 205] + "-->" + link)):
        refused(kml_file(tmp_path, text), KML, "NetworkLink")
    utf16 = kml(link, prolog='<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16")
    refused(kml_file(tmp_path, utf16), KML, "NetworkLink")


@pytest.mark.parametrize("at", range(150, 260))
def test_a_network_link_across_two_blocks_is_found(at: int, tmp_path: Path) -> None:
    start = kml("").index("</Folder>") + len("<!---->")
    text = kml(f"<!--{'x' * ((1 << 20) - start - at + 200)}--><NetworkLink/>")
    refused(kml_file(tmp_path, text), KML, "NetworkLink")


def test_a_network_link_in_a_text_is_none(tmp_path: Path) -> None:
    body = PLACEMARK.replace("<Point>", "<description><![CDATA[<NetworkLink>]]></description><Point>")
    assert check_content(kml_file(tmp_path, kml(body)), KML) == []


def test_fault_35_ground_overlay_is_noted(tmp_path: Path) -> None:
    overlay = "<GroundOverlay><Icon><href>http://127.0.0.1:9/x.png</href></Icon></GroundOverlay>"
    (note,) = check_content(kml_file(tmp_path, kml(PLACEMARK + overlay)), KML)
    assert "GroundOverlays are not read" in note


@pytest.mark.parametrize("text", [kml()[:-20], kml() + "<more/>", kml() + kml(prolog=""), kml("<a></b>"), kml("&b;")])
def test_a_kml_that_is_not_well_formed_is_unreadable(text: str, tmp_path: Path) -> None:
    unreadable(kml_file(tmp_path, text), KML, "damaged or cut off")


def test_an_xml_text_with_another_root_is_refused(tmp_path: Path) -> None:
    refused(kml_file(tmp_path, "<!-- <kml> --><OGRVRTDataSource/>"), KML, "its root is 'OGRVRTDataSource'")


# --- FlatGeobuf ---------------------------------------------------------------------------------------------------


@pytest.fixture
def fgb(tmp_path: Path) -> Path:
    return write(tmp_path / "x.fgb", "FlatGeobuf", rows=300)


@pytest.mark.parametrize("rows", [1, 2, 16, 17, 300, 5000])
@pytest.mark.parametrize("index", ["YES", "NO"])
def test_a_whole_flatgeobuf_is_let_in(rows: int, index: str, tmp_path: Path) -> None:
    source = write(tmp_path / "x.fgb", "FlatGeobuf", rows=rows)
    meta, table = pyogrio.read_arrow(source)
    path = tmp_path / "y.fgb"
    pyogrio.write_arrow(
        table,
        path,
        driver="FlatGeobuf",
        geometry_name=meta["geometry_name"] or "wkb_geometry",
        geometry_type="Point",
        crs="EPSG:4326",
        layer_options={"SPATIAL_INDEX": index},
    )
    assert check_content(path, FLATGEOBUF) == []


@pytest.mark.parametrize("by", [1, 3, 100, 5000])
def test_a_flatgeobuf_cut_off_is_unreadable(by: int, fgb: Path) -> None:
    unreadable(cut(fgb, by), FLATGEOBUF, "cut off")


def last_feature(path: Path) -> int:
    """Bytes of the last feature."""
    content = path.read_bytes()
    return next(n for n in range(5, 1000) if struct.unpack_from("<I", content, len(content) - n)[0] == n - 4)


def test_fault_37_a_lying_feature_count(fgb: Path) -> None:
    content = fgb.read_bytes()
    at = content.index(struct.pack("<Q", 300))
    for lie, what in ((299, "cut off"), (301, "cut off"), (1 << 40, "index alone"), ((1 << 64) - 1, "index")):
        unreadable(patched(fgb, at, "<Q", lie), FLATGEOBUF, what)
    patched(fgb, at, "<Q", 300)
    unreadable(cut(fgb, last_feature(fgb)), FLATGEOBUF, "says it has 300 features, and has 299")


@pytest.mark.parametrize("length", [0, 1, 8, 200, (1 << 32) - 1])
def test_a_flatgeobuf_with_a_wrong_header_is_unreadable(length: int, fgb: Path) -> None:
    unreadable(patched(fgb, 8, "<I", length), FLATGEOBUF, "FlatGeobuf")


# --- GeoParquet and FileGDB ---------------------------------------------------------------------------------------


def test_fault_37_a_truncated_footer(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    assert check_content(path, GEOPARQUET) == []
    whole = path.read_bytes()
    for by in (1, 4, 8, len(whole) - 6):
        path.write_bytes(whole[:-by])
        unreadable(path, GEOPARQUET, "footer")
    path.write_bytes(whole)
    unreadable(patched(path, -8, "<I", len(whole)), GEOPARQUET, "footer")
    path.write_bytes(whole[:-4] + b"PARE")
    refused(path, GEOPARQUET, "encrypted footer")


def test_fault_37_a_geodatabase_that_lacks_files(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gdb", "OpenFileGDB")
    assert check_content(path, FILEGDB) == []
    (path / "a00000002.gdbtablx").unlink()
    unreadable(path, FILEGDB, r"lacks the \.gdbtablx of a00000002")
    (path / "a00000001.gdbtable").unlink()
    unreadable(path, FILEGDB, "lacks a00000001.gdbtable")
