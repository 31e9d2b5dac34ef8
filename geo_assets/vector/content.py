"""What GDAL does not notice, or does not mind, in a file of a format that is let in.

What belongs here: files cut off, parts that do not fit together, and content that names other files, makes the reader
contact others, or runs functions; all without GDAL.  What does not: which format it is (``formats``), zip files
(``archives``), and whether features are good (``geometry``).

Files are read in blocks, never held or mapped; the checks cost milliseconds but for KML, which is parsed once.
"""

import re
import sqlite3
import struct
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO
from xml.parsers import expat

import numpy as np

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import shapefile
from geo_assets.vector.formats import FILEGDB, FLATGEOBUF, GEOPARQUET, GPKG, KML, SHAPEFILE, VectorFormat

__all__ = ["check_content"]

_BLOCK = 1024 * 1024


def check_content(path: Path, form: VectorFormat) -> list[str]:
    """Look at a file of this format without GDAL; returns notes for people.

    Raises:
        VectorUnreadableError: it is cut off or damaged.
        VectorRefusedError: it names other files or addresses, or is not what its first bytes say.
    """
    check = _CHECKS.get(form.name)
    return [] if check is None else check(path)


# --- shapefile --------------------------------------------------------------------------------------------------

_SHX_HEADER = 100
_SHX_RECORD = 8


def _check_shapefile(path: Path) -> list[str]:
    shapefile.require_whole(path)
    rows = _check_index(path.with_suffix(".shx"), path.stat().st_size)
    table = shapefile.Dbf.beside(path)
    if table is not None and rows != table.rows:
        raise VectorUnreadableError(
            f"the shapefile's parts do not fit together: {rows:,} shapes in the .shx, {table.rows:,} rows in the .dbf;"
            " one of them is of another version"
        )
    return []


def _check_index(shx: Path, shp_size: int) -> int:
    """Rows by the index, all of which must lie within the ``.shp``."""
    with shx.open("rb") as file:
        header = file.read(_SHX_HEADER)
    if len(header) < _SHX_HEADER or header[:4] != b"\0\0\x27\x0a":
        raise VectorUnreadableError("the shapefile's .shx part is cut off or damaged within its header")
    says, has = 2 * struct.unpack_from(">I", header, 24)[0], shx.stat().st_size
    if has < says:
        raise VectorUnreadableError(
            f"the shapefile's .shx part is cut off: it says it has {says:,} bytes, but it has {has:,}"
        )
    count = (says - _SHX_HEADER) // _SHX_RECORD
    for at in range(0, count, _BLOCK):
        found = np.fromfile(shx, ">u4", 2 * min(_BLOCK, count - at), offset=_SHX_HEADER + at * _SHX_RECORD)
        start, length = found.reshape(-1, 2).astype("u8").T * 2
        # a start of 0 is a shape that was taken out
        outside = (start != 0) & ((start < _SHX_HEADER) | (start + length + 8 > shp_size))
        if outside.any():
            row = at + int(outside.argmax()) + 1
            raise VectorUnreadableError(f"the shapefile is damaged: its shape {row:,} would lie beyond its .shp's end")
    return int(count)


# --- GeoPackage -------------------------------------------------------------------------------------------------

_APPLICATION_IDS = frozenset({0x47504B47, 0x47503130, 0x47503131})  # GPKG, GP10, GP11
_RASTERS = frozenset({"tiles", "2d-gridded-coverage"})
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\s", re.IGNORECASE)
_FORBIDDEN = frozenset({"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "zipfile", "randomblob"})
_SQLITE_PAGES = 28
_WRITE_AHEAD = 2


def _check_gpkg(path: Path) -> list[str]:
    notes = []
    with path.open("rb") as file:
        header = file.read(100)
    write_ahead = len(header) == 100 and header[18] == _WRITE_AHEAD  # noqa: PLR2004 - the header's length
    if write_ahead:
        notes.append(
            "the GeoPackage was uploaded with its write-ahead log open: rows that were in its -wal file only are"
            " missing; close it in all programs before it is uploaded"
        )
    try:
        _check_pages(path, header)
        # immutable: no log or lock is looked for, and nothing is written
        address = f"file:{urllib.parse.quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.text_factory = lambda text: text.decode("utf-8", "replace")
            connection.execute("PRAGMA trusted_schema = OFF")
            notes += _check_kind(connection, write_ahead=write_ahead)
            _check_schema(connection)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # the latter where SQLite's message is no text
        raise VectorUnreadableError(f"the GeoPackage is damaged, cut off or encrypted: {error}") from error
    return notes


def _check_pages(path: Path, header: bytes) -> None:
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    pages = int.from_bytes(header[_SQLITE_PAGES : _SQLITE_PAGES + 4], "big")
    current = header[24:28] == header[92:96]  # else the number of pages is an old one
    size = path.stat().st_size
    if current and size < pages * page:
        raise VectorUnreadableError(
            f"the GeoPackage has {size:,} bytes where its header says {pages * page:,}: it is cut off"
        )


def _check_kind(connection: sqlite3.Connection, *, write_ahead: bool) -> list[str]:
    (found,) = connection.execute("PRAGMA application_id").fetchone()
    names = {str(name).lower() for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if "gpkg_contents" not in names:
        what = next(
            (what for name, what in (("tiles", "MBTiles"), ("spatial_ref_sys", "SpatiaLite")) if name in names), None
        )
        why = "; its tables may lie in a -wal file that was not uploaded" if write_ahead and not names else ""
        raise VectorRefusedError(
            f"the file is a SQLite database{f' ({what})' if what else ''}, but no GeoPackage: it has no table"
            f" gpkg_contents{why}"
        )
    kinds = {str(kind).lower() for (kind,) in connection.execute("SELECT DISTINCT data_type FROM gpkg_contents")}
    if not kinds - _RASTERS:
        what = "holds rasters only" if kinds else "registers no table"
        raise VectorRefusedError(f"the GeoPackage {what}: it has no layer of features", code="NO_LAYER")
    if found not in _APPLICATION_IDS:
        return ["the file does not say that it is a GeoPackage, but has the tables of one"]
    return []


def _check_schema(connection: sqlite3.Connection) -> None:
    """Refuse tables and views that do more than hold rows of this database."""
    query = "SELECT type, CAST(name AS TEXT), CAST(sql AS TEXT) FROM sqlite_master WHERE type IN ('table', 'view')"
    rows = connection.execute(query).fetchall()
    connection.set_authorizer(_authorize)
    for kind, name, sql in rows:
        if name is None or "\0" in name:
            raise VectorRefusedError(f"the GeoPackage has a {kind} with an impossible name: {name!a}")
        # preparing is enough: functions and modules that SQLite does not have are unknown, others the authorizer sees
        quoted = name.replace('"', '""')
        try:
            connection.execute(f'EXPLAIN SELECT * FROM "{quoted}"').close()  # noqa: S608 - an identifier, quoted
        except sqlite3.DatabaseError as error:
            _judge(error, kind, name, is_virtual=bool(_VIRTUAL.match(sql or "")))
    connection.set_authorizer(None)


def _judge(error: sqlite3.DatabaseError, kind: str, name: str, *, is_virtual: bool) -> None:
    if kind == "view" or "function" in str(error) or "no such module" in str(error):
        raise VectorRefusedError(
            f"the {kind} {name!a} of the GeoPackage is not opened, as it does more than name columns: {error}; save it"
            " as a table"
        ) from error
    if not is_virtual:  # a damaged index does no harm: it is not read
        raise error


def _authorize(action: int, _: str | None, function: str | None, *__: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (function or "").lower() in _FORBIDDEN:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


# --- KML ----------------------------------------------------------------------------------------------------------

_SUSPICIOUS = re.compile(rb"NetworkLink|GroundOverlay|PhotoOverlay|ScreenOverlay")
_OVERLAYS = frozenset({"GroundOverlay", "PhotoOverlay", "ScreenOverlay"})
_OVERLAP = 32


class _Kml:
    """A parser that takes what libkml may be given."""

    def __init__(self, *, thorough: bool) -> None:
        self._thorough = thorough
        self._depth = 0
        self.overlays: set[str] = set()
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._doctype
        self.parser.ExternalEntityRefHandler = self._doctype
        self.parser.StartElementHandler = self._start

    def _doctype(self, *_: object) -> int:
        raise VectorRefusedError(
            "the KML has a DOCTYPE, which can name other files and make a small text huge (entities); remove it"
        )

    def _start(self, name: str, _: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        if not self._depth and local != "kml":
            raise VectorRefusedError(f"the file is an XML text that is no KML: its root is {name!a}")
        self._depth = 1
        if local == "NetworkLink":
            raise VectorRefusedError(
                "the KML has a NetworkLink: it names what lies elsewhere, and only files with their own features are"
                " opened; save the places themselves as KML"
            )
        if local in _OVERLAYS:
            self.overlays.add(local)
        if not self._thorough:
            # most files have nothing more to be seen, and without a handler the parser is many times as fast
            self.parser.StartElementHandler = None


def _check_kml(path: Path) -> list[str]:
    reader = _Kml(thorough=_is_suspicious(path))
    try:
        for part in _blocks(path):
            reader.parser.Parse(part, False)  # noqa: FBT003 - no name for it
        reader.parser.Parse(b"", True)  # noqa: FBT003 - no name for it
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise VectorUnreadableError(f"the KML is damaged or cut off: {error}") from error
    return [f"the KML's {name}s are not read: they are pictures" for name in sorted(reader.overlays)]


def _is_suspicious(path: Path) -> bool:
    """Whether there may be elements to look at; always where the text is not of single bytes."""
    before = b""
    for part in _blocks(path):
        if b"\0" in part or _SUSPICIOUS.search(before + part):
            return True
        before = part[-_OVERLAP:]
    return False


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(_BLOCK):
            yield part


# --- FlatGeobuf -------------------------------------------------------------------------------------------------

_MAGIC_BYTES = 8
_MOST_HEADER = 10 * 1024 * 1024
_NODE_BYTES = 40


def _check_flatgeobuf(path: Path) -> list[str]:
    size = path.stat().st_size
    start = _MAGIC_BYTES + 4
    with path.open("rb") as file:
        file.seek(_MAGIC_BYTES)
        length = int.from_bytes(file.read(4), "little")
        if not 8 <= length <= _MOST_HEADER or start + length > size:  # noqa: PLR2004 - an empty table
            raise VectorUnreadableError("the FlatGeobuf's header is damaged or cut off")
        header = file.read(length)
        try:
            declared, node = _field(header, 8, "<Q", 0), _field(header, 9, "<H", 16)
        except (struct.error, IndexError) as error:
            raise VectorUnreadableError("the FlatGeobuf's header is damaged") from error
        at = start + length + _index_bytes(declared, node)
        if at > size:
            raise VectorUnreadableError(
                f"the FlatGeobuf says it has {declared:,} features, whose index alone goes on to byte {at:,}; the file"
                f" ends at {size:,}: it is damaged or cut off"
            )
        found = _count_features(file, at, size)
    if declared not in (0, found):
        raise VectorUnreadableError(
            f"the FlatGeobuf says it has {declared:,} features, and has {found:,}: it is damaged or cut off"
        )
    return []


def _count_features(file: BinaryIO, at: int, size: int) -> int:
    """Features by the length before each; mapping the file would count as memory."""
    block, first, found = b"", at, 0
    while at < size:
        if at + 4 > first + len(block):
            file.seek(at)
            block, first = file.read(_BLOCK), at
        at += 4 + int.from_bytes(block[at - first : at - first + 4], "little")
        found += 1
    if at != size:
        raise VectorUnreadableError(f"the FlatGeobuf ends within feature {found:,}: it is cut off")
    return found


def _field(header: bytes, number: int, form: str, default: int) -> int:
    """One scalar of the header's table, as flatbuffers keep them."""
    table = int(struct.unpack_from("<I", header)[0])
    vtable = table - int(struct.unpack_from("<i", header, table)[0])
    if vtable < 0:
        raise IndexError(vtable)
    (length,) = struct.unpack_from("<H", header, vtable)
    if 4 + 2 * number >= length:
        return default
    (offset,) = struct.unpack_from("<H", header, vtable + 4 + 2 * number)
    return int(struct.unpack_from(form, header, table + offset)[0]) if offset else default


def _index_bytes(features: int, node: int) -> int:
    """Bytes of the packed R-tree."""
    if not features or not node:
        return 0
    nodes = level = features
    while True:
        level = -(-level // max(node, 2))
        nodes += level
        if level == 1:
            break
    return nodes * _NODE_BYTES


# --- GeoParquet ---------------------------------------------------------------------------------------------------

_FOOTER = struct.Struct("<I4s")


def _check_parquet(path: Path) -> list[str]:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _FOOTER.size))
        last = file.read()
    length, magic = _FOOTER.unpack(last) if len(last) == _FOOTER.size else (0, b"")
    if magic == b"PARE":
        raise VectorRefusedError("the Parquet file has an encrypted footer; upload it without encryption")
    if magic != b"PAR1" or length + _FOOTER.size + 4 > size:
        raise VectorUnreadableError("the Parquet file has no whole footer: it is cut off or damaged")
    return []


# --- FileGDB ------------------------------------------------------------------------------------------------------


def _check_filegdb(path: Path) -> list[str]:
    there = {entry.name.lower(): entry.stat().st_size for entry in path.iterdir()}
    if "a00000001.gdbtable" not in there:
        raise VectorUnreadableError("the file geodatabase lacks a00000001.gdbtable, the list of its tables")
    lacking = sorted(
        name for name in there if name.endswith(".gdbtable") and name.replace(".gdbtable", ".gdbtablx") not in there
    )
    if lacking:
        raise VectorUnreadableError(f"the file geodatabase lacks the .gdbtablx of {', '.join(lacking[:5])}")
    return []


_CHECKS: dict[str, Callable[[Path], list[str]]] = {
    SHAPEFILE.name: _check_shapefile,
    GPKG.name: _check_gpkg,
    KML.name: _check_kml,
    FLATGEOBUF.name: _check_flatgeobuf,
    GEOPARQUET.name: _check_parquet,
    FILEGDB.name: _check_filegdb,
}
