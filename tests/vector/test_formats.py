"""What a file is by its first bytes, whatever it is called."""

import codecs
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geo_assets.errors import VectorRefusedError
from geo_assets.vector.formats import DRIVERS, FORMATS, SNIFFED_BYTES, sniff
from tests.vector.files import COLLECTION, CSV_TEXT, POINT, kml, shapefile, vrt, write


def found(content: bytes | str, name: str = "x", extension: str | None = None) -> str:
    data = content.encode() if isinstance(content, str) else content
    return sniff(data[:SNIFFED_BYTES], size=len(data), name=name, file_extension=extension).name


def refused(content: bytes | str, name: str = "x", extension: str | None = None) -> str:
    with pytest.raises(VectorRefusedError) as caught:
        found(content, name, extension)
    return str(caught.value)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.csv", CSV_TEXT)
    return {
        "gpkg": write(folder / "a.gpkg", "GPKG").read_bytes(),
        "flatgeobuf": write(folder / "a.fgb", "FlatGeobuf").read_bytes(),
        "shapefile": shapefile(folder).read_bytes(),
        "geoparquet": b"PAR1" + bytes(20) + b"PAR1",
        "kml": kml().encode(),
        "geojson": COLLECTION.encode(),
        "zip": archive.getvalue(),
    }


@pytest.mark.parametrize("kind", ["gpkg", "flatgeobuf", "shapefile", "geoparquet", "kml", "geojson", "zip"])
@pytest.mark.parametrize("name", ["x", "x.csv", "x.geojson", "x.shp", "x.gpkg", "x.kml", "x.tif", "x.zip"])
def test_fault_23_a_wrong_extension_changes_nothing(samples: dict[str, bytes], kind: str, name: str) -> None:
    assert found(samples[kind], name) == kind
    assert found(samples[kind], "x", name.rpartition(".")[2]) == kind


@pytest.mark.parametrize(
    ("content", "name", "kind"),
    [
        (CSV_TEXT, "x.csv", "csv"),
        (CSV_TEXT, "x.TXT", "csv"),
        (CSV_TEXT, "x", "csv"),
        ('[a],"b"\n1,2\n', "x.csv", "csv"),
        ("n;ü\n1;2\n".encode("cp1252"), "x.csv", "csv"),
        ("名称,lat,lon\n北京,39.9,116.4\n".encode("gb18030"), "x.csv", "csv"),
        (codecs.BOM_UTF8 + CSV_TEXT.encode(), "x.csv", "csv"),
        (CSV_TEXT.encode("utf-16"), "x.csv", "csv"),
        (CSV_TEXT.encode("utf-16-le"), "x.csv", "csv"),
        (CSV_TEXT.encode("utf-16-be"), "x.csv", "csv"),
        (f"{POINT}\n{POINT}\n", "x.json", "geojsonl"),
        (f"\x1e{POINT}\n\x1e{POINT}\n", "x.geojson", "geojsonl"),
        (f"{POINT}\n", "x.geojsonl", "geojsonl"),
        (POINT, "x.geojson", "geojson"),
        (f"\ufeff \n{COLLECTION}", "x", "geojson"),
        (COLLECTION.encode("utf-16"), "x.geojson", "geojson"),
        (COLLECTION.replace(",", ",\n").replace("{", "{\n "), "x.geojson", "geojson"),
        (f"[{POINT}]", "x.json", "geojson"),
        (kml(prolog=""), "x", "kml"),
        (kml(prolog='<?xml version="1.0"?>\n<!-- <OGRVRTDataSource> -->\n<?go on?>'), "x", "kml"),
        (kml(prolog='<?xml version="1.0" encoding="UTF-16"?>').encode("utf-16"), "x", "kml"),
        ('<k:kml xmlns:k="http://www.opengis.net/kml/2.2"/>', "x", "kml"),
        (b"PK\x03\x04" + bytes(30), "x.kmz", "kmz"),
    ],
)
def test_fault_28_texts_are_told_apart_in_any_encoding(content: bytes | str, name: str, kind: str) -> None:
    assert found(content, name) == kind


@pytest.mark.parametrize("extension", ["geojson", "kml", "shp", "csv", "gpkg", "zip", "vrt", ""])
@pytest.mark.parametrize("prolog", ["", '<?xml version="1.0"?>\n', "\ufeff  ", "<!-- <kml> -->"])
def test_an_ogr_vrt_is_refused_by_any_name(extension: str, prolog: str) -> None:
    assert "OGR VRT" in refused(prolog + vrt("/etc/passwd"), f"x.{extension}", extension)
    assert "OGR VRT" in refused((prolog + vrt("/etc/passwd")).encode("utf-16"), f"x.{extension}", extension)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b" \n\t ", "white space"),
        (b"II*\0" + bytes(20), "raster (TIFF)"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"%PDF-1.7", "PDF"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"PARE" + bytes(20), "encrypted footer"),
        (b"PK\x03\x04\x14\x00\x01\x00" + bytes(30), "encrypted"),
        (b"PK\x05\x06" + bytes(18), "empty zip"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(9), "7-Zip"),
        ("<!DOCTYPE html><html></html>", "HTML"),
        ("<html><body>Sign in</body></html>", "HTML"),
        ('<!DOCTYPE kml [<!ENTITY a SYSTEM "file:///etc/passwd">]><kml/>', "DOCTYPE"),
        ('<gml:FeatureCollection xsi:schemaLocation="http://127.0.0.1/x.xsd"/>', "GML"),
        ('<ogr:FeatureCollection xsi:schemaLocation="http://127.0.0.1/x.xsd"/>', "GML"),
        ('<wfs:FeatureCollection xmlns:wfs="http://www.opengis.net/wfs"/>', "GML"),
        ('<gpx version="1.1"/>', "GPX"),
        ("<OGRWFSDataSource><URL>http://127.0.0.1/</URL></OGRWFSDataSource>", "web service"),
        ("<WFS_Capabilities/>", "web service"),
        ("<anything/>", "no KML"),
        ('{"type":"Topology","objects":{}}', "TopoJSON"),
        ('{"displayFieldName":"x","geometryType":"esriGeometryPoint"}', "Esri JSON"),
        ('{"type": "gdal_streamed_alg", "command_line": "gdal vector pipeline ! read x"}', "pipeline"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        ("PG:host=127.0.0.1 dbname=x", "address"),
        ("http://127.0.0.1/x.geojson", "address"),
        ("/vsicurl/http://127.0.0.1/x.geojson\n", "address"),
        ("!table\n!version 300\n", "MapInfo"),
        (bytes(range(256)), "no vector file"),
    ],
)
@pytest.mark.parametrize("extension", ["csv", "geojson"])
def test_what_is_refused_is_named(content: bytes | str, what: str, extension: str) -> None:
    assert what in refused(content, f"x.{extension}")


def test_fault_29_an_encrypted_database_is_said_to_look_like_one() -> None:
    assert "encrypted" in refused(bytes(range(1, 200)), "x.gpkg")


@given(st.binary(max_size=200), st.sampled_from(["csv", "json", "kml", "gpkg", "", "exe"]))
@example(b"\xff\xfe\x00", "csv")
@example(b"\xfe\xff", "csv")
@example(b"{", "json")
@example(b"<!--", "kml")
def test_any_bytes_have_a_format_or_are_refused(content: bytes, extension: str) -> None:
    try:
        form = sniff(content, size=len(content), name=f"x.{extension}")
    except VectorRefusedError as error:
        assert str(error)  # noqa: PT017 - either is right
    else:
        assert form in FORMATS


def test_drivers_that_follow_what_a_file_names_are_never_used() -> None:
    assert not DRIVERS & {"OGR_VRT", "GML", "WFS", "SQLite", "CSV", "KML", "HTTP", "OAPIF", "GDALG", "ADBC", "MVT"}


def test_a_long_text_without_an_end_is_told_quickly(tmp_path: Path) -> None:
    # patterns that go back and forth would need minutes
    for text in ("<!--" * 4000, "<?x " * 4000, '{"a":' * 3000, '{"' + "a" * 16000, '{"a":"b",' * 1700, "[" * 16000):
        try:
            found(text, "x.json")
        except VectorRefusedError:
            continue
