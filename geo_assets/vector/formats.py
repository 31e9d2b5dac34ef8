"""Which reader and driver a file is for, told by its first bytes.

What belongs here: magic bytes, the allow-list, and names for what is refused.  What does not: whether the rest of the
file is sound (``content``), archives (``archives``), opening (``open``).

A name is never trusted.  It is looked at where bytes cannot tell: whether a text without any mark is a CSV, and
whether lines of JSON are meant to be read as such.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from geo_assets.errors import VectorRefusedError

__all__ = [
    "CSV",
    "DRIVERS",
    "FILEGDB",
    "FLATGEOBUF",
    "FORMATS",
    "GEOJSON",
    "GEOJSONL",
    "GEOPARQUET",
    "GPKG",
    "KML",
    "KMZ",
    "SHAPEFILE",
    "SNIFFED_BYTES",
    "ZIP",
    "VectorFormat",
    "extension_of",
    "sniff",
]

SNIFFED_BYTES = 16384
"""How much of a file :func:`sniff` wants to see."""


@dataclass(frozen=True)
class VectorFormat:
    """One format we open: its name, GDAL's driver where GDAL reads it, and the suffix a local copy gets."""

    name: str
    driver: str | None
    suffix: str


CSV = VectorFormat("csv", None, ".csv")
GEOJSON = VectorFormat("geojson", None, ".geojson")
GEOJSONL = VectorFormat("geojsonl", None, ".geojsonl")
GPKG = VectorFormat("gpkg", "GPKG", ".gpkg")
KML = VectorFormat("kml", "LIBKML", ".kml")
KMZ = VectorFormat("kmz", None, ".kmz")
SHAPEFILE = VectorFormat("shapefile", "ESRI Shapefile", ".shp")
ZIP = VectorFormat("zip", None, ".zip")
FLATGEOBUF = VectorFormat("flatgeobuf", "FlatGeobuf", ".fgb")
GEOPARQUET = VectorFormat("geoparquet", None, ".parquet")
FILEGDB = VectorFormat("filegdb", "OpenFileGDB", ".gdb")
"""A folder; never sniffed."""

FORMATS = (CSV, GEOJSON, GEOJSONL, GPKG, KML, KMZ, SHAPEFILE, ZIP, FLATGEOBUF, GEOPARQUET, FILEGDB)
DRIVERS = frozenset(form.driver for form in FORMATS if form.driver is not None)
"""Every driver that is ever given to GDAL."""

_MAGIC: tuple[tuple[bytes, VectorFormat], ...] = (
    (b"SQLite format 3\0", GPKG),
    (b"\0\0\x27\x0a", SHAPEFILE),
    (b"fgb\x03fgb", FLATGEOBUF),
    (b"PAR1", GEOPARQUET),
    (b"PK\x03\x04", ZIP),
)
_TABLES = frozenset({"", "csv", "tsv", "tab", "txt", "psv", "dat"})
_LINES = frozenset({"geojsonl", "geojsons", "ndjson", "ndgeojson", "jsonl"})

# what is refused by name, so that the reason is better than "not a vector file"
_REFUSED_BYTES: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "a raster (TIFF); load it with process_raster"),
    (b"MM\0*", "a raster (TIFF); load it with process_raster"),
    (b"II+\0", "a raster (TIFF); load it with process_raster"),
    (b"MM\0+", "a raster (TIFF); load it with process_raster"),
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"\0\0\0\x0cjP  ", "a raster (JPEG 2000)"),
    (b"CDF", "a raster (netCDF)"),
    (b"\x89HDF", "a raster (HDF5)"),
    (b"GRIB", "a raster (GRIB)"),
    (b"PARE", "a Parquet file with an encrypted footer; upload it without encryption"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PK\x07\x08", "one part of a zip archive that was split; join the parts"),
    (b"\x1f\x8b", "a gzip file; unpack it and upload what is inside"),
    (b"BZh", "a bzip2 file; unpack it and upload what is inside"),
    (b"\xfd7zXZ", "an xz file; unpack it and upload what is inside"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file; unpack it and upload what is inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; pack it as zip"),
    (b"Rar!", "a RAR archive; pack it as zip"),
    (b"%PDF", "a PDF document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document; save the table as CSV"),
    (b"\0\1\0\0Standard", "an Access or personal geodatabase; export it as GeoPackage"),
    (b"ARROW1", "an Arrow or Feather file; save it as GeoParquet"),
    (b"SIMPLE  =", "a FITS image"),
)
_JSON = r"[^\"]{0,200}(?:\"[^\"]{0,200}\"[^\"]{0,200}){0,200}?"
_REFUSED_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"<(?:OGR|GDAL)?VRT", re.IGNORECASE),
        "an OGR VRT or other virtual file: it names other files, and only files with their own features are opened",
    ),
    (re.compile(r"<(?:\w+:)?(?:GDALTileIndexDataset|GDAL_WM\w+)", re.IGNORECASE), "a list of other files or services"),
    (
        re.compile(r"<(?:\w+:)?(?:WFS_Capabilities|WMS_Capabilities|Capabilities|OGRWFSDataSource)", re.IGNORECASE),
        "a description of a web service: it names addresses",
    ),
    (re.compile(r"<(?:!DOCTYPE\s+html|html)", re.IGNORECASE), "a web page (HTML), perhaps an error or login page"),
    (re.compile(r"<!DOCTYPE", re.IGNORECASE), "an XML text with a DOCTYPE, which may name other files; remove it"),
    (re.compile(r"<gpx", re.IGNORECASE), "a GPX file; convert it to GeoPackage or GeoJSON"),
    (re.compile(r"<(?:svg|\w+:svg)", re.IGNORECASE), "a drawing (SVG)"),
    (
        re.compile(r"<(?:gml:|wfs:|ogr:|\w+:FeatureCollection|FeatureCollection)", re.IGNORECASE),
        "a GML file; its schema may lie anywhere, so it is not opened: convert it to GeoPackage or GeoJSON",
    ),
    (re.compile(rf"\{{{_JSON}\"type\"\s*:\s*\"Topology\"", re.DOTALL), "TopoJSON; convert it to GeoJSON"),
    (re.compile(rf"\{{{_JSON}\"type\"\s*:\s*\"gdal_streamed_alg\"", re.DOTALL), "a GDAL pipeline: it names files"),
    (re.compile(rf"\{{{_JSON}\"geometryType\"\s*:\s*\"esri", re.DOTALL), "Esri JSON; convert it to GeoJSON"),
    (re.compile(r"!table", re.IGNORECASE), "a MapInfo table; convert it to GeoPackage"),
    (re.compile(r"version\s+\d+\s*[\r\n]+\s*charset", re.IGNORECASE), "a MapInfo MIF; convert it to GeoPackage"),
    (re.compile(r"\s{0,2}0\s*[\r\n]+\s*SECTION", re.IGNORECASE), "a DXF drawing; convert it to GeoPackage"),
    (re.compile(r"\s*(?:ncols|nrows)\s+\d", re.IGNORECASE), "a raster (Arc/Info ASCII grid)"),
    (re.compile(r"version https://git-lfs"), "a Git LFS pointer: the file itself was not uploaded"),
    (re.compile(r"(?:PG:[^\r\n]*|(?:/vsi\w+/|(?:\w+:)?\w+://)\S*)\s*\Z", re.IGNORECASE), "only an address"),
)
_XML_START = re.compile(r"\s*(?:<\?.{0,2000}?\?>\s*|<!--.{0,8000}?-->\s*)+", re.DOTALL)
_KML_ROOT = re.compile(r"<(?:\w+:)?kml[\s>/]")
_LINE_OF_JSON = re.compile(r"[^\r\n]*[}\]][ \t]*\r?\n\s*[{\x1e]")


def extension_of(name: str) -> str:
    """Extension of a name, lower case without its dot; empty where there is none."""
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def sniff(head: bytes, *, size: int, name: str = "", file_extension: str | None = None) -> VectorFormat:
    """Return the format of a file by its first bytes.

    Args:
        head: the first :data:`SNIFFED_BYTES` bytes, fewer if the file is smaller.
        size: size of the whole file in bytes.
        name: the blob's name.
        file_extension: what somebody says its extension is; goes before that of the name. Both decide between texts
            only.

    Raises:
        VectorRefusedError: none of the formats we open; says what it is instead, where that can be told.
    """
    if not head or not size:
        raise VectorRefusedError("the file is empty (0 bytes)", code="FILE_EMPTY")
    said = (file_extension or extension_of(name)).lower().lstrip(".")
    for magic, form in _MAGIC:
        if head.startswith(magic):
            return _of_zip(head, said) if form is ZIP else form
    for magic, what in _REFUSED_BYTES:
        if head.startswith(magic):
            raise VectorRefusedError(f"the file is {what}")
    return _of_text(_text(head, said), head, said)


def _of_zip(head: bytes, said: str) -> VectorFormat:
    flags = int.from_bytes(head[6:8], "little")
    if flags & 1:
        raise VectorRefusedError("the zip archive is encrypted; pack it without a password", code="ARCHIVE_REFUSED")
    return KMZ if said == "kmz" else ZIP


def _text(head: bytes, said: str) -> str:
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(mark):
            return head.removeprefix(mark).decode(encoding, errors="replace")
    if b"\0" in head[:256]:
        # texts in UTF-16 without a mark start with Latin letters or signs
        for at, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if len(head) > 1 and not any(head[at:256:2]):
                return head.decode(encoding, errors="replace")
        raise _unknown(head, said)
    return head.decode("utf-8", errors="replace")


def _of_text(text: str, head: bytes, said: str) -> VectorFormat:
    body = _XML_START.sub("", text, count=1) if text.lstrip().startswith("<") else text
    body = body.lstrip("\ufeff \t\r\n")
    if not body.strip():
        raise VectorRefusedError("the file has nothing but white space", code="FILE_EMPTY")
    for pattern, what in _REFUSED_TEXTS:
        if pattern.match(body):
            raise VectorRefusedError(f"the file is {what}")
    if _KML_ROOT.match(body):
        return KML
    if body.startswith("<"):
        raise VectorRefusedError("the file is an XML text that is no KML")
    if body[0] in "{[\x1e" and not (body[0] == "[" and said in _TABLES - {""}):
        return GEOJSONL if body[0] == "\x1e" or said in _LINES or _LINE_OF_JSON.match(body) else GEOJSON
    if said in _TABLES and not _looks_binary(body):
        return CSV
    raise _unknown(head, said)


def _looks_binary(text: str) -> bool:
    # a text of another encoding has many replaced characters, but no control characters
    return any(ord(character) < 32 and character not in "\t\r\n\f\v\x1a" for character in text)  # noqa: PLR2004 - ASCII


def _unknown(head: bytes, said: str) -> VectorRefusedError:
    why = ""
    if said in ("gpkg", "sqlite", "db"):
        why = "; it has no header of a database, as if it were encrypted or damaged"
    formats = "CSV, GeoJSON (also by lines), GeoPackage, KML, KMZ, shapefile, FlatGeobuf, GeoParquet, FileGDB, and zip"
    return VectorRefusedError(
        f"the file is no vector file we open (first bytes {head[:8].hex(' ')}){why}; we open: {formats} of these"
    )
