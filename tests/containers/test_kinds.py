"""Kinds by name, datasets, and first bytes.

What belongs here: :mod:`geo_assets.containers.kinds` and :mod:`geo_assets.containers.signatures`.  What does not:
listings (``test_listing``).
"""

import json
from pathlib import Path

import polars as pl
import pytest

from geo_assets.containers.kinds import extension_of, kind_of, with_datasets, with_kinds
from geo_assets.containers.signatures import START, detect, matches
from tests.services.found import REPOSITORY

REAL_FILES = REPOSITORY.parent / "shared" / "data"


def grouped(*names: str) -> dict[str, tuple[str, str | None, str | None, str | None]]:
    frame = pl.DataFrame(
        {"name": names, "file_count": [None] * len(names), "problem": [None] * len(names)},
        schema={"name": pl.String, "file_count": pl.Int64, "problem": pl.String},
    )
    found = with_datasets(with_kinds(frame))
    assert found["name"].to_list() == list(names)
    return {row[0]: row[1:] for row in found.select("name", "kind", "dataset", "role", "missing").rows()}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.TIF", "raster"), ("dir.v1/a.jp2", "raster"), ("a.b.hgt", "raster"), ("a.nc", "raster"),
        ("a.shp", "vector"), ("a.geojson", "vector"), ("a.json", "vector"), ("a.gpkg", "vector"), ("a.kmz", "vector"),
        ("a.csv", "vector"), ("a.parquet", "vector"), ("a.shp.zip", "vector"), ("A.GDB.ZIP", "vector"),
        ("a.tfw", "sidecar"), ("a.tif.aux.xml", "sidecar"), ("a.aux.xml", "sidecar"), ("a.tif.ovr", "sidecar"),
        ("a.tif.msk", "sidecar"), ("a.shp.xml", "sidecar"), ("a.prj", "sidecar"), ("a.SHX", "sidecar"),
        ("a.wld", "sidecar"), ("a.zip", "other"), ("a.xml", "other"), ("a.dbf", "other"), ("tif", "other"),
        ("a.tif/readme", "other"), ("readme.md", "other"), ("", "other"), ("a.", "other"), ("report.v2.xml", "other"),
        (".tif", "raster"), ("x.tif.bak", "other"),
    ],
)  # fmt: skip
def test_the_kind_is_that_of_the_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_files_beside_a_raster_belong_to_it() -> None:
    found = grouped(
        "x.tif", "x.tfw", "x.tif.aux.xml", "x.aux.xml", "x.tif.ovr", "x.tif.ovr.aux.xml", "x.jpg", "x.jgw", "x.wld",
        "y.tfw", "X.tfw", "sub/x.tfw",
    )  # fmt: skip
    assert {name: row[1] for name, row in found.items()} == {
        "x.tif": "x.tif", "x.tfw": "x.tif", "x.tif.aux.xml": "x.tif", "x.aux.xml": "x.tif", "x.tif.ovr": "x.tif",
        "x.tif.ovr.aux.xml": "x.tif", "x.jpg": "x.jpg", "x.jgw": "x.jpg", "x.wld": "x.tif", "y.tfw": None,
        "X.tfw": None, "sub/x.tfw": None,
    }  # fmt: skip
    assert {row[2] for name, row in found.items() if name not in ("x.tif", "x.jpg")} == {"sidecar"}


def test_a_table_beside_no_main_file_is_no_part() -> None:
    found = grouped("a.dbf", "b.shp", "b.dbf", "c.tab", "c.dat", "c.map", "c.id", "d.dat", "e.mif", "e.mid", "f.mid")
    assert found["a.dbf"] == ("other", None, None, None)
    assert found["b.dbf"] == ("sidecar", "b.shp", "part", None)
    assert found["b.shp"] == ("vector", "b.shp", "main", ".shx")
    assert found["c.tab"] == ("vector", "c.tab", "main", None)
    assert found["d.dat"][0] == found["f.mid"][0] == "other"
    assert found["e.mid"] == ("sidecar", "e.mif", "part", None)


def test_unicode_twins_are_two_datasets() -> None:
    found = grouped("é.shp", "e\u0301.shp", "é.dbf", "é.shx")
    assert found["é.shp"][3] is None
    assert found["e\u0301.shp"][3] == ".shx .dbf"


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.tif", ".tif"), ("v1.2/readme", ""), ("a.tar.GZ", ".gz"), (".hidden", ".hidden"), ("a.", ""), ("...", "")],
)
def test_the_extension_is_that_of_the_last_segment(name: str, expected: str) -> None:
    assert extension_of(name) == expected


@pytest.mark.parametrize(
    ("name", "start", "found", "right"),
    [
        ("a.tif", b"II*\0", "tiff", True),
        ("a.tif", b"MM\0+\0\x08", "tiff", True),
        ("a.tif", b"<VRTDataset rasterXSize", "vrt", False),
        ("a.tif", b"%PDF-1.7", "pdf", False),
        ("a.tif", b"\0\0\0\0", None, False),
        ("a.tif", b"<!DOCTYPE html><html>", "html", False),
        ("a.png", b"\x89PNG\r\n\x1a\n", "png", True),
        ("a.shp", b"\0\0\x27\x0a\0", "shapefile", True),
        ("a.geojson", b'\xef\xbb\xbf {"type"', "json", True),
        ("a.geojsons", b'\x1e{"type"', "json", True),
        ("a.geojson", b"<html", "html", False),
        ("a.kml", b"\n<?xml version", "xml", True),
        ("a.kml", "\ufeff<kml".encode("utf-16-le"), "xml", True),
        ("a.kmz", b"PK\x03\x04", "zip", True),
        ("a.shp.zip", b"PK\x05\x06", "zip", True),
        ("a.gpkg", b"SQLite format 3\0", "sqlite", True),
        ("a.parquet", b"PAR1", "parquet", True),
        ("a.fgb", b"fgb\x03fgb\0", "flatgeobuf", True),
        ("a.csv", b"id,lat,lon\n1,2,3\n", "text", True),
        ("a.csv", "name;größe\n".encode("latin-1"), "text", True),
        ("a.csv", b"PK\x03\x04", "zip", False),
        ("a.asc", b"ncols 10\nnrows 10", "ascii grid", True),
        ("a.nc", b"\x89HDF\r\n\x1a\n", "hdf5", True),
        ("a.hgt", b"\0\1\0\2", None, None),
        ("a.tif", b"", "empty", False),
        ("a.txt", b"hello", "text", None),
    ],
)
def test_first_bytes_tell_the_format(name: str, start: bytes, found: str | None, right: bool | None) -> None:  # noqa: FBT001
    assert detect(start[:START]) == found
    assert matches(name, found) is right


@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the real files lie beside the checkout where there are any")
def test_real_files_are_what_they_say() -> None:
    wrong = {}
    for path in REAL_FILES.rglob("*"):
        if path.is_file() and kind_of(path.name) in ("raster", "vector"):
            with path.open("rb") as file:
                found = detect(file.read(START))
            if matches(path.name, found) is False and path.stat().st_size:
                wrong[str(path.relative_to(REAL_FILES))] = found
    unexpected = {name: found for name, found in wrong.items() if Path(name).parts[0] not in ("bad", "broken")}
    assert not unexpected, json.dumps(unexpected)
