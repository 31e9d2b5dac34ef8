"""Which driver a file is for, told by its first bytes, and defects and references that GDAL does not notice.

What belongs here: magic bytes, the allow-list, and checks of a file's container (chunks, record sizes, external
storage) made without GDAL.  What does not: opening with GDAL (``open``).

A name is looked at for one format only: SRTMHGT has no header at all, and its driver takes the position from it.
"""

import mmap
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from geo_assets.errors import RasterRefusedError, RasterUnreadableError
from geo_assets.raster.tiff import where_cut_off

__all__ = ["DRIVERS", "SNIFFED_BYTES", "RasterFormat", "check_container", "sniff"]

SNIFFED_BYTES = 4096
"""How much of a file :func:`sniff` wants to see."""


@dataclass(frozen=True)
class RasterFormat:
    """One format we open: its name for people, GDAL's driver, and the suffix a local copy gets."""

    name: str
    driver: str
    suffix: str = ""


_GTIFF = RasterFormat("GeoTIFF", "GTiff", ".tif")
_JP2 = RasterFormat("JPEG 2000", "JP2OpenJPEG", ".jp2")
_PNG = RasterFormat("PNG", "PNG", ".png")
_JPEG = RasterFormat("JPEG", "JPEG", ".jpg")
_HFA = RasterFormat("Erdas Imagine", "HFA", ".img")
_NITF = RasterFormat("NITF", "NITF", ".ntf")
_NETCDF3 = RasterFormat("netCDF classic", "netCDF", ".nc")
_NETCDF4 = RasterFormat("netCDF-4", "netCDF", ".nc")
_HDF5 = RasterFormat("HDF5", "HDF5", ".h5")
_AAIGRID = RasterFormat("Arc/Info ASCII grid", "AAIGrid", ".asc")
_SRTMHGT = RasterFormat("SRTM height", "SRTMHGT", ".hgt")

DRIVERS = frozenset(
    form.driver for form in (_GTIFF, _JP2, _PNG, _JPEG, _HFA, _NITF, _NETCDF3, _HDF5, _AAIGRID, _SRTMHGT)
)
"""Every driver that is ever given to GDAL."""

_MAGIC: tuple[tuple[bytes, RasterFormat], ...] = (
    (b"II*\0", _GTIFF),
    (b"MM\0*", _GTIFF),
    (b"II+\0", _GTIFF),
    (b"MM\0+", _GTIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _JP2),
    (b"\xff\x4f\xff\x51", _JP2),
    (b"\x89PNG\r\n\x1a\n", _PNG),
    (b"\xff\xd8\xff", _JPEG),
    (b"EHFA_HEADER_TAG", _HFA),
    (b"NITF0", _NITF),
    (b"NSIF0", _NITF),
    (b"CDF\x01", _NETCDF3),
    (b"CDF\x02", _NETCDF3),
    (b"CDF\x05", _NETCDF3),
    (b"\x89HDF\r\n\x1a\n", _HDF5),
)
_AAIGRID_START = re.compile(rb"\s{0,64}(?:ncols|nrows)\s+\d", re.IGNORECASE)
_HGT_NAME = re.compile(r"[NS]\d{2}[EW]\d{3}[^/]*\.hgt$", re.IGNORECASE)
_HGT_SIZES = frozenset(2 * rows * columns for rows, columns in ((1201, 1201), (3601, 3601), (3601, 1801), (7201, 7201)))

# what is refused by name, so that the reason is better than "not a raster"
_REFUSED: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (
        re.compile(rb"<(?:OGR)?VRT"),
        "a virtual raster (VRT): it names other files, and only files with pixels are opened",
    ),
    (re.compile(rb"<GDALTileIndexDataset"), "a raster tile index (GTI): it names other files"),
    (
        re.compile(rb"<(?:GDAL_WM|WMT_MS_Cap|Capabilities|WCS_GDAL)"),
        "a description of a web service: it names addresses",
    ),
    (
        re.compile(rb"\{.{0,3000}\"(?:stac_version|type|gdalVersion)\"", re.DOTALL),
        "a JSON text: it can only name files",
    ),
    (re.compile(rb"SQLite format 3\0"), "a SQLite database (GeoPackage, MBTiles); rasters in databases are not opened"),
    (re.compile(rb"PK\x03\x04"), "a zip archive; unpack it and upload the rasters"),
    (re.compile(rb"\x1f\x8b"), "a gzip file; unpack it and upload the raster"),
)


def sniff(head: bytes, *, size: int, name: str = "") -> RasterFormat:
    """Return the format of a file by its first bytes.

    Args:
        head: the first :data:`SNIFFED_BYTES` bytes, fewer if the file is smaller.
        size: size of the whole file in bytes.
        name: the blob's name; only SRTM heights, which have no header, are told by it (and their exact size).

    Raises:
        RasterRefusedError: none of the formats we open; says what it is instead, where that can be told.
    """
    if not head:
        raise RasterRefusedError("the file is empty (0 bytes)")
    for magic, form in _MAGIC:
        if head.startswith(magic):
            return form
    if _AAIGRID_START.match(head):
        return _AAIGRID
    if size in _HGT_SIZES and _HGT_NAME.search(name):
        return _SRTMHGT
    text = re.sub(rb"^<\?xml.{0,500}?\?>", b"", head.removeprefix(b"\xef\xbb\xbf").lstrip(), flags=re.DOTALL).lstrip()
    for pattern, what in _REFUSED:
        if pattern.match(text):
            raise RasterRefusedError(f"the file is {what}")
    formats = ", ".join(dict.fromkeys([form.name for _, form in _MAGIC] + [_AAIGRID.name, _SRTMHGT.name]))
    raise RasterRefusedError(f"the file is no raster we open (first bytes {head[:8].hex(' ')}); we open: {formats}")


def check_container(path: Path, form: RasterFormat) -> RasterFormat:
    """Find what GDAL overlooks in a file of this format; returns the format, made exact.

    GDAL reads a PNG or a classic netCDF cut off anywhere as if it were whole, opens a TIFF that is cut off, and follows
    the names of other files that HDF5 and Imagine files may hold.

    Raises:
        RasterUnreadableError: the file is cut off or damaged.
        RasterRefusedError: it names other files.
    """
    check = _CHECKS.get(form.name)
    return form if check is None else check(path, form)


# --- PNG -----------------------------------------------------------------------------------------------------


def _check_png(path: Path, form: RasterFormat) -> RasterFormat:
    with path.open("rb") as file:
        file.seek(8)
        while True:
            kind = _png_chunk(file)
            if kind == b"IEND":
                return form


def _png_chunk(file: BinaryIO) -> bytes:
    header = file.read(8)
    if len(header) < 8:  # noqa: PLR2004 - length and type
        raise RasterUnreadableError(f"the PNG ends at byte {file.tell()}, before its last chunk: it is cut off")
    length, kind = struct.unpack(">I4s", header)
    checksum = zlib.crc32(kind)
    left = length
    while left:
        part = file.read(min(left, 1 << 20))
        if not part:
            raise RasterUnreadableError(f"the PNG ends within a chunk, {left} bytes short: it is cut off")
        checksum = zlib.crc32(part, checksum)
        left -= len(part)
    if file.read(4) != struct.pack(">I", checksum):
        raise RasterUnreadableError(f"a chunk of the PNG is damaged (checksum, before byte {file.tell()})")
    return bytes(kind)


# --- netCDF classic ------------------------------------------------------------------------------------------

_NC_DIMENSION, _NC_VARIABLE, _NC_ATTRIBUTE = 10, 11, 12
_NC_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_MOST_ENTRIES = 100_000


class _ClassicHeader:
    """The header of a netCDF classic file, read as far as needed to know how long the file must be."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        version = file.read(4)[3]
        self._count = ">Q" if version == 5 else ">I"  # noqa: PLR2004 - CDF-5 counts in 64 bits
        self._offset = ">I" if version == 1 else ">Q"
        self._records = self._number(self._count)
        streaming = (1 << (8 * struct.calcsize(self._count))) - 1
        self._dimensions = self._list(_NC_DIMENSION, self._dimension)
        self._list(_NC_ATTRIBUTE, self._attribute)
        self._variables = self._list(_NC_VARIABLE, self._variable)
        if self._records == streaming:
            self._records = 0

    def needed(self) -> int:
        """Bytes that the file must have at least."""
        ends = [0]
        recorded = [entry for entry in self._variables if entry[2]]
        # a single record variable is not padded; all others are, to four bytes
        record = sum(size if len(recorded) == 1 else _padded(size) for _, size, _ in recorded)
        for begin, size, is_record in self._variables:
            if not is_record:
                ends.append(begin + size)
            elif self._records:
                ends.append(begin + (self._records - 1) * record + size)
        return max(ends)

    def _number(self, form: str) -> int:
        data = self._file.read(struct.calcsize(form))
        value: int = struct.unpack(form, data)[0]
        return value

    def _list(self, tag: int, read: Callable[[], Any]) -> list[Any]:
        found, count = self._number(">I"), self._number(self._count)
        if found not in (0, tag) or count > _MOST_ENTRIES or (found == 0 and count):
            raise ValueError("a list has the wrong tag")
        return [read() for _ in range(count)]

    def _skip(self, size: int) -> None:
        self._file.seek(_padded(size), 1)

    def _dimension(self) -> int:
        self._skip(self._number(self._count))
        return self._number(self._count)

    def _attribute(self) -> None:
        self._skip(self._number(self._count))
        size = _NC_SIZES[self._number(">I")]
        self._skip(size * self._number(self._count))

    def _variable(self) -> tuple[int, int, bool]:
        self._skip(self._number(self._count))
        rank = self._number(self._count)
        if rank > 1024:  # noqa: PLR2004 - the library's own limit
            raise ValueError("a variable has too many dimensions")
        lengths = [self._dimensions[self._number(self._count)] for _ in range(rank)]
        self._list(_NC_ATTRIBUTE, self._attribute)
        size = _NC_SIZES[self._number(">I")]
        self._number(self._count)  # the stored size is wrong for large variables; it follows from the dimensions
        begin = self._number(self._offset)
        is_record = bool(lengths) and lengths[0] == 0
        for length in lengths[1:] if is_record else lengths:
            size *= length
        return begin, size, is_record


def _padded(size: int) -> int:
    return (size + 3) // 4 * 4


def _check_classic(path: Path, form: RasterFormat) -> RasterFormat:
    try:
        with path.open("rb") as file:
            needed = _ClassicHeader(file).needed()
    except (struct.error, ValueError, LookupError) as error:
        raise RasterUnreadableError("the header of the netCDF file is damaged or cut off") from error
    size = path.stat().st_size
    if size < needed:
        raise RasterUnreadableError(f"the netCDF file has {size} bytes where its header needs {needed}: it is cut off")
    return form


# --- HDF5 ----------------------------------------------------------------------------------------------------


def _check_hdf5(path: Path, form: RasterFormat) -> RasterFormat:
    """Refuse external storage, external links and virtual datasets, through which HDF5 reads any file there is."""
    import h5py  # noqa: PLC0415 - only for the few files of this format

    try:
        with h5py.File(path, "r") as file:
            _walk_hdf5(file, seen=set())
            is_netcdf = "_NCProperties" in file.attrs or "Conventions" in file.attrs
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise RasterUnreadableError(f"the HDF5 file is damaged or cut off: {error}") from error
    return _NETCDF4 if is_netcdf else form


def _walk_hdf5(group: Any, *, seen: set[int]) -> None:
    import h5py  # noqa: PLC0415 - only for the few files of this format

    for name in group:
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise RasterRefusedError(f"the HDF5 file links to another file ({name!a})")
        if not isinstance(link, h5py.HardLink):
            continue  # a soft link leads to something that is visited by its hard link, or nowhere
        entry = group.get(name)
        if isinstance(entry, h5py.Dataset) and (entry.external or entry.is_virtual):
            raise RasterRefusedError(f"the HDF5 file keeps the values of {name!a} in other files")
        if isinstance(entry, h5py.Group) and (address := h5py.h5o.get_info(entry.id).addr) not in seen:
            if len(seen) > _MOST_ENTRIES:
                raise RasterRefusedError("the HDF5 file has too many groups")
            seen.add(address)  # hard links can make circles
            _walk_hdf5(entry, seen=seen)


# --- Imagine -------------------------------------------------------------------------------------------------


def _check_hfa(path: Path, form: RasterFormat) -> RasterFormat:
    # the node's name; the type's name stands in the dictionary of every file
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(b"ExternalRasterDMS") >= 0:
            raise RasterRefusedError("the Imagine file keeps its pixels in another file (.ige)")
    return form


# --- GeoTIFF -------------------------------------------------------------------------------------------------


def _check_tiff(path: Path, form: RasterFormat) -> RasterFormat:
    needed = where_cut_off(path)
    if needed is not None:
        raise RasterUnreadableError(
            f"the TIFF is cut off: it goes on to byte {needed:,} at least, the file ends at {path.stat().st_size:,}"
        )
    return form


_CHECKS: dict[str, Callable[[Path, RasterFormat], RasterFormat]] = {
    _GTIFF.name: _check_tiff,
    _PNG.name: _check_png,
    _NETCDF3.name: _check_classic,
    _HDF5.name: _check_hdf5,
    _HFA.name: _check_hfa,
}
