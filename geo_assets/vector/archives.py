"""Zip files, bounded before anything is unpacked.

What belongs here: what an archive declares, against what it may; which of its entries are the dataset; and unpacking
those.  What does not: what is inside them (``formats``, ``content``).

Nothing is believed that is said once only: the end of the archive, its directory and the header before each entry must
tell the same, entries may not share bytes, and what comes out is counted.  Unpacked files get names of our own.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.stores.copying import require_room
from geo_assets.vector.budget import VectorBudget
from geo_assets.vector.formats import FILEGDB, SHAPEFILE
from geo_assets.vector.local_copy import GDB_FILE, require_parts

__all__ = ["Member", "unpack"]

_RATIO_FROM_BYTES = 64 * 1024 * 1024
"""Below this unpacked size no ratio is suspicious."""
_COPIED = 1024 * 1024
_DIRECTORY_BYTES_AN_ENTRY = 4096
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40
_SIZES_FOLLOW = 0x8
_UTF8 = 0x800
_UNKNOWN = 0xFFFFFFFF
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_ARCHIVE_SUFFIXES = frozenset({
    ".zip", ".kmz", ".shz", ".7z", ".rar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar", ".jar",
})  # fmt: skip
_PARTS = frozenset({".shp", ".shx", ".dbf", ".prj", ".cpg"})
_STRONG = frozenset({".gpkg", ".fgb", ".parquet", ".geoparquet", ".kml"})
_WEAK = frozenset({".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson", ".ndgeojson", ".csv", ".tsv"})
"""Beside a dataset these are notes about it."""
_SYSTEM = re.compile(r"(?:^|/)(?:__MACOSX/|\._|\.DS_Store$|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Member:
    """A dataset of an archive, unpacked."""

    path: Path
    """The main file, or the ``.gdb`` folder, by a name of our own."""
    name: str
    """Of the main file, as the archive has it, without its folder."""


@dataclass(frozen=True, kw_only=True)
class _Dataset:
    """Entries that make one dataset."""

    main: str
    """Whole name of the main file or the folder."""
    entries: "Sequence[zipfile.ZipInfo]"

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.main).suffix.lower()


def unpack(
    path: Path, folder: Path, *, budget: VectorBudget, wanted: str | None, several: str | None = None
) -> list[Member]:
    """Unpack the dataset of an archive.

    Args:
        path: the archive.
        folder: an empty folder of our own.
        budget: what the archive may ask for.
        wanted: which dataset, by its name in the archive with or without folder and suffix; needed where there are
            several.  Of several KML files ``doc.kml``, else the first, is taken without.
        several: of several shapefiles, the one whose stem this is; ``*``: all of them.

    Returns:
        One dataset; several only with ``several="*"``.

    Raises:
        VectorRefusedError: with ``ARCHIVE_REFUSED``: it asks for too much, or holds what no honest archive does, such
            as paths that lead out of it; nothing was unpacked.  ``SEVERAL_DATASETS``: it is not clear which is meant;
            names them.  ``LAYER_NOT_FOUND``: none of the name wanted.
        VectorUnreadableError: damaged or cut off, or a shapefile's part is missing.
        DiskFullError: not enough room; nothing was unpacked.
    """
    try:
        with path.open("rb") as file:
            _check_end(file, budget)
            with zipfile.ZipFile(file) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                _check_entries(archive.infolist(), path.stat().st_size, budget)
                _check_local(file, archive)
                datasets = _chosen(_datasets(entries), wanted, several)
                needed = sum(entry.file_size for one in datasets for entry in one.entries)
                require_room(folder, needed, reserve_bytes=0, what="the zip archive, unpacked,")
                return [_unpacked(archive, one, folder / str(at)) for at, one in enumerate(datasets)]
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error) as error:
        raise VectorUnreadableError(f"the zip archive is damaged or cut off: {error}") from error
    except (NotImplementedError, RuntimeError, UnicodeDecodeError) as error:
        raise _refused(f"cannot be unpacked: {error}") from error


def _refused(what: str) -> VectorRefusedError:
    return VectorRefusedError(f"the zip archive {what}", code="ARCHIVE_REFUSED")


# --- what it declares -------------------------------------------------------------------------------------------


def _check_end(file: BinaryIO, budget: VectorBudget) -> None:
    """Bound the directory before it is read: its size, its entries, and where it lies."""
    count, length, offset, end = _end(file)
    if offset + length != end:
        raise _refused("has a directory that is not where its end says, or something before its first entry")
    if count > budget.entries or length > budget.entries * _DIRECTORY_BYTES_AN_ENTRY:
        raise _refused(
            f"has {count:,} entries in a directory of {length:,} bytes; at most {budget.entries:,} entries are unpacked"
            " (GEO_ASSETS_VECTOR_MAX_ENTRIES)"
        )
    if _count(file, offset, length, count) != count:
        raise _refused(f"says it has {count:,} entries, and its directory has another number")


def _end(file: BinaryIO) -> tuple[int, int, int, int]:
    """Entries, length and offset of the directory, and where it should end."""
    size = file.seek(0, 2)
    start = max(0, size - _END.size - 0xFFFF)
    file.seek(start)
    last = file.read()
    at = last.rfind(b"PK\x05\x06")
    if at < 0 or len(last) - at < _END.size:
        raise VectorUnreadableError("the zip archive is cut off: its directory, which comes last, is missing")
    _, disk, first_disk, here, count, length, offset, comment = _END.unpack_from(last, at)
    if at + _END.size + comment != len(last):
        raise _refused("has something behind its end")
    if disk or first_disk or here != count:
        raise _refused("is one part of several; join the parts")
    found = _end64(file, start + at)
    if found is None:
        return count, length, offset, start + at
    for short, long, most in zip((count, length, offset), found, (0xFFFF, _UNKNOWN, _UNKNOWN), strict=False):
        if short not in (most, long):
            raise _refused("gives two sizes for its directory, which differ (zip64)")
    return found


def _end64(file: BinaryIO, end: int) -> tuple[int, int, int, int] | None:
    """Entries, length and offset of the directory and where it ends by the end record of zip64, if there is one."""
    if end < _END64_LOCATOR.size:
        return None
    file.seek(end - _END64_LOCATOR.size)
    magic, _, where, disks = _END64_LOCATOR.unpack(file.read(_END64_LOCATOR.size))
    if magic != b"PK\x06\x07":
        return None
    if disks > 1 or where + _END64.size > end:
        raise _refused("has an end of zip64 that leads nowhere")
    file.seek(where)
    record = _END64.unpack(file.read(_END64.size))
    if record[0] != b"PK\x06\x06" or record[6] != record[7] or where + 12 + record[1] != end - _END64_LOCATOR.size:
        raise _refused("has an end of zip64 that leads nowhere")
    return record[7], record[8], record[9], where


def _count(file: BinaryIO, offset: int, length: int, most: int) -> int:
    """Entries of the directory, walked; stops beyond ``most``."""
    file.seek(offset)
    directory = file.read(length)
    at = found = 0
    while at < length and found <= most:
        if directory[at : at + 4] != b"PK\x01\x02":
            return -1
        names = struct.unpack_from("<3H", directory, at + 28)
        at += 46 + sum(names)
        found += 1
    return found if at == length else -1


def _check_entries(entries: "Sequence[zipfile.ZipInfo]", size: int, budget: VectorBudget) -> None:
    seen: set[str] = set()
    for entry in entries:
        _check_name(entry)
        _check_kind(entry)
        folded = entry.filename.rstrip("/").casefold()
        if folded in seen:
            raise _refused(f"has {entry.filename!a} twice (upper and lower case count as the same)")
        seen.add(folded)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > budget.file_bytes:
        raise _refused(f"has {unpacked:,} bytes unpacked; at most {budget.file_bytes:,} are (GEO_ASSETS_VECTOR_MAX_GB)")
    if unpacked > _RATIO_FROM_BYTES and unpacked > size * budget.ratio:
        raise _refused(
            f"has {unpacked // size:,} bytes unpacked for each of its own; at most {budget.ratio:,} are unpacked"
            " (GEO_ASSETS_VECTOR_MAX_RATIO)"
        )


def _check_name(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.orig_filename != name or any(ord(character) < 32 for character in name):  # noqa: PLR2004 - ASCII
        raise _refused(f"has a name with control characters: {entry.orig_filename!a}")
    if "\\" in name:
        raise _refused(f"has a name with a backslash: {name!a}")
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or "" in parts:
        raise _refused(f"has a path that leads out of it: {name!a}")
    suffix = PurePosixPath(name).suffix.lower()
    if not entry.is_dir() and suffix in _ARCHIVE_SUFFIXES and not _SYSTEM.search(name):
        raise _refused(f"has another archive in it: {name!a}; pack the files in one only")


def _check_kind(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.flag_bits & _ENCRYPTED:
        raise _refused(f"is encrypted ({name!a}); pack it without a password")
    if entry.compress_type not in _METHODS:
        raise _refused(f"is packed in a way we do not unpack ({name!a}, method {entry.compress_type}); use deflate")
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused(f"has a link or something else that is no file: {name!a}")
    if entry.is_dir() and entry.file_size:
        raise _refused(f"has a folder with content: {name!a}")
    if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
        raise _refused(f"gives two sizes for {name!a}, which differ")


def _check_local(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Compare each entry with the header before its bytes, and see that no two share bytes."""
    taken = 0
    for entry in sorted(archive.infolist(), key=lambda one: one.header_offset):
        if entry.header_offset < taken:
            raise _refused(f"has entries that share bytes ({entry.filename!a}): it is a bomb")
        file.seek(entry.header_offset)
        header = _LOCAL.unpack(file.read(_LOCAL.size))
        name = file.read(header[9])
        _compare(entry, header, name, file.read(header[10]))
        taken = entry.header_offset + _LOCAL.size + header[9] + header[10] + entry.compress_size
    if taken > archive.start_dir:
        raise _refused("has an entry that goes on into its directory")


def _compare(entry: zipfile.ZipInfo, header: tuple[Any, ...], name: bytes, extra: bytes) -> None:
    magic, _, flags, method, _, _, crc, packed, unpacked, _, _ = header
    encoding = "utf-8" if entry.flag_bits & _UTF8 else "cp437"
    same = (
        magic == b"PK\x03\x04"
        and (flags ^ entry.flag_bits) & (_ENCRYPTED | _UTF8) == 0
        and method == entry.compress_type
        and name.decode(encoding) == entry.orig_filename
    )
    if not flags & _SIZES_FOLLOW:
        same = same and crc == entry.CRC
        if _UNKNOWN in (packed, unpacked):
            unpacked, packed = _sizes64(extra, unpacked, packed)
        same = same and (packed, unpacked) == (entry.compress_size, entry.file_size)
    if not same:
        raise _refused(f"says one thing of {entry.filename!a} in its directory and another before its bytes")


def _sizes64(extra: bytes, unpacked: int, packed: int) -> tuple[int, int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            values = [value for (value,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            found = [values.pop(0) if size == _UNKNOWN and values else size for size in (unpacked, packed)]
            return found[0], found[1]
        at += 4 + length
    return unpacked, packed


# --- which dataset ------------------------------------------------------------------------------------------------


def _datasets(entries: "Iterable[zipfile.ZipInfo]") -> list[_Dataset]:
    """What there is to choose from: the datasets; tables and JSON only where there is nothing better."""
    files = [entry for entry in entries if not _SYSTEM.search(entry.filename)]
    geodatabases, rest = _geodatabases(files)
    strong, weak = geodatabases, []
    beside: dict[str, list[zipfile.ZipInfo]] = {}
    for entry in rest:
        beside.setdefault(_stem(entry.filename), []).append(entry)
    for entry in rest:
        suffix = _suffix(entry)
        if suffix == SHAPEFILE.suffix:
            parts = [one for one in beside[_stem(entry.filename)] if _suffix(one) in _PARTS]
            strong.append(_Dataset(main=entry.filename, entries=parts))
        elif suffix in _STRONG:
            strong.append(_Dataset(main=entry.filename, entries=[entry]))
        elif suffix in _WEAK:
            weak.append(_Dataset(main=entry.filename, entries=[entry]))
    return strong or weak


def _geodatabases(files: "Iterable[zipfile.ZipInfo]") -> "tuple[list[_Dataset], list[zipfile.ZipInfo]]":
    """The ``.gdb`` folders, and the files that lie in none."""
    folders: dict[str, list[zipfile.ZipInfo]] = {}
    rest: list[zipfile.ZipInfo] = []
    for entry in files:
        parts = PurePosixPath(entry.filename).parts
        at = next((at for at, part in enumerate(parts[:-1]) if part.lower().endswith(FILEGDB.suffix)), None)
        if at is None:
            rest.append(entry)
        elif len(parts) == at + 2 and GDB_FILE.match(parts[-1]):
            folders.setdefault("/".join(parts[: at + 1]), []).append(entry)
    found = [
        _Dataset(main=main, entries=inside)
        for main, inside in folders.items()
        if any(_suffix(one) == ".gdbtable" for one in inside)
    ]
    return found, rest


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix else path).casefold()


def _suffix(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).suffix.lower()


def _chosen(datasets: list[_Dataset], wanted: str | None, several: str | None) -> list[_Dataset]:
    if not datasets:
        raise _refused("has no vector file in it")
    names = ", ".join(f"{one.main!r}" for one in datasets[:20])
    if wanted is not None:
        found = [one for one in datasets if _is_called(one, wanted)]
        if not found:
            raise VectorRefusedError(f"the zip archive has no {wanted!r}; it has {names}", code="LAYER_NOT_FOUND")
        datasets = found
    if len(datasets) == 1:
        return datasets
    if all(one.suffix == ".kml" for one in datasets) and wanted is None:
        root = [one for one in datasets if one.main.lower() == "doc.kml"]
        return (root or datasets)[:1]
    if several is not None and all(one.suffix == SHAPEFILE.suffix for one in datasets):
        return _shapefiles(datasets, several)
    raise VectorRefusedError(
        f"the zip archive has several datasets: {names}; say which, by shp_name, kml_name or layer, or pack each alone",
        code="SEVERAL_DATASETS",
    )


def _is_called(dataset: _Dataset, wanted: str) -> bool:
    path = PurePosixPath(dataset.main.casefold())
    folded = wanted.casefold().strip("/")
    return folded in (str(path), path.name, path.stem, str(path.with_suffix("")))


def _shapefiles(datasets: list[_Dataset], several: str) -> list[_Dataset]:
    stems = [PurePosixPath(one.main).stem for one in datasets]
    if several == "*":
        if len({stem.casefold() for stem in stems}) < len(stems):
            raise VectorRefusedError(
                f"the zip archive has several shapefiles of one name: {', '.join(sorted(stems)[:20])}; say which by"
                " shp_name, with its folder",
                code="SEVERAL_DATASETS",
            )
        return datasets
    found = [one for one, stem in zip(datasets, stems, strict=True) if stem == several]
    if len(found) != 1:
        raise VectorRefusedError(
            f"the zip archive has {len(found) or 'no'} shapefiles {several!r}; it has {', '.join(stems[:20])}",
            code="SEVERAL_DATASETS" if found else "LAYER_NOT_FOUND",
        )
    return found


# --- unpacking ----------------------------------------------------------------------------------------------------


def _unpacked(archive: zipfile.ZipFile, dataset: _Dataset, folder: Path) -> Member:
    folder.mkdir()
    name = PurePosixPath(dataset.main).name
    path = folder / f"vector{dataset.suffix}"
    if dataset.suffix == FILEGDB.suffix:
        path.mkdir()
        for entry in dataset.entries:
            _copy(archive, entry, path / PurePosixPath(entry.filename).name)
    else:
        if dataset.suffix == SHAPEFILE.suffix:
            require_parts([_suffix(one) for one in dataset.entries], name)
        for entry in dataset.entries:
            _copy(archive, entry, path.with_suffix(_suffix(entry)))
    return Member(path=path, name=name)


def _copy(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    copied = 0
    with archive.open(entry) as source, path.open("xb") as target:
        while part := source.read(_COPIED):
            copied += len(part)
            if copied > entry.file_size:
                raise _refused(f"has more in {entry.filename!a} than it says")
            target.write(part)
    if copied != entry.file_size:
        raise VectorUnreadableError(
            f"the zip archive is damaged: {entry.filename!a} has {copied:,} bytes where it says {entry.file_size:,}"
        )
