"""What a file is by its first bytes, and whether that is what its name says.

What belongs here: :func:`detect` and :func:`matches`, on at most :data:`START` bytes.  What does not: whether the
rest is sound, which only opening tells (``raster``, ``vector``), and the members of archives.
"""

import re

from geo_assets.containers.kinds import extension_of

__all__ = ["START", "detect", "matches"]

START = 64
"""Bytes that are looked at."""

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"\0\0\0\x0cjP  ", "jpeg2000"),
    (b"\xff\x4f\xff\x51", "jpeg2000"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"EHFA_HEADER_TAG", "erdas imagine"),
    (b"NITF", "nitf"),
    (b"NSIF", "nitf"),
    (b"CDF\x01", "netcdf"),
    (b"CDF\x02", "netcdf"),
    (b"CDF\x05", "netcdf"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"\x0e\x03\x13\x01", "hdf4"),
    (b"GRIB", "grib"),
    (b"msid", "mrsid"),
    (b"\0\0\x27\x0a", "shapefile"),
    (b"SQLite format 3\0", "sqlite"),
    (b"fgb\x03fgb", "flatgeobuf"),
    (b"PAR1", "parquet"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"%PDF", "pdf"),
)
_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\s*<(?:OGR)?VRT"), "vrt"),
    (re.compile(r"\s*<(?:\?xml|!--|kml|gml|gpx|\w+:|!DOCTYPE kml)", re.IGNORECASE), "xml"),
    (re.compile(r"\s*<(?:!DOCTYPE html|html)", re.IGNORECASE), "html"),
    (re.compile(r"[\s\x1e]*[{\[]"), "json"),
    (re.compile(r"\s*(?:ncols|nrows)\s+\d", re.IGNORECASE), "ascii grid"),
    (re.compile(r"!table"), "mapinfo tab"),
    (re.compile(r"version\s+\d", re.IGNORECASE), "mapinfo mif"),
)

_EXPECTED: dict[str, frozenset[str]] = {
    **dict.fromkeys((".tif", ".tiff", ".gtiff", ".gtif"), frozenset({"tiff"})),
    **dict.fromkeys((".jpg", ".jpeg"), frozenset({"jpeg"})),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), frozenset({"jpeg2000"})),
    **dict.fromkeys((".ntf", ".nitf", ".nsf"), frozenset({"nitf"})),
    **dict.fromkeys((".nc", ".nc4", ".cdf"), frozenset({"netcdf", "hdf5"})),
    **dict.fromkeys((".h5", ".hdf5", ".he5"), frozenset({"hdf5"})),
    **dict.fromkeys((".hdf", ".hdf4"), frozenset({"hdf4", "hdf5"})),
    **dict.fromkeys((".grb", ".grib", ".grb2", ".grib2"), frozenset({"grib"})),
    **dict.fromkeys((".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson", ".ndgeojson"), frozenset({"json"})),
    **dict.fromkeys((".kml", ".gml", ".gpx"), frozenset({"xml"})),
    **dict.fromkeys((".kmz", ".shz", ".zip"), frozenset({"zip"})),
    **dict.fromkeys((".parquet", ".geoparquet"), frozenset({"parquet"})),
    ".png": frozenset({"png"}),
    ".gif": frozenset({"gif"}),
    ".bmp": frozenset({"bmp"}),
    ".webp": frozenset({"webp"}),
    ".sid": frozenset({"mrsid"}),
    ".asc": frozenset({"ascii grid"}),
    ".vrt": frozenset({"vrt", "xml"}),
    ".shp": frozenset({"shapefile"}),
    ".gpkg": frozenset({"sqlite"}),
    ".fgb": frozenset({"flatgeobuf"}),
    ".csv": frozenset({"text"}),
    ".tab": frozenset({"mapinfo tab"}),
    ".mif": frozenset({"mapinfo mif"}),
}


def detect(start: bytes) -> str | None:
    """The format whose files start like this: a lower-case name; ``empty``; ``text``; ``None`` where nothing tells."""
    if not start:
        return "empty"
    for magic, found in _MAGIC:
        if start.startswith(magic):
            return found
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "webp"
    return _detect_text(start)


def _detect_text(start: bytes) -> str | None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = start[: len(start) // 2 * 2].decode("utf-16", errors="ignore")
    elif b"\0" in start:
        return None
    else:
        # the last character may be cut off; latin-1 tables are text, too
        text = start.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="replace")
    for pattern, found in _TEXTS:
        if pattern.match(text):
            return found
    odd = sum(not character.isprintable() and not character.isspace() for character in text)
    return "text" if odd == 0 else None


def matches(name: str, found: str | None) -> bool | None:
    """Whether a file of this name may have this format; ``None`` where the extension promises no first bytes."""
    expected = _EXPECTED.get(extension_of(name))
    if found == "empty":
        return False
    if expected is None:
        return None
    # tables may start with anything that is text
    return found in expected or (expected == {"text"} and found in {"json", "xml", "mapinfo mif"})
