"""The few tags of a TIFF that rasterio does not tell: the nodata value as it is written.

What belongs here: reading tags of the first directory, within fixed bounds.  What does not: pixels.

rasterio leaves out a nodata value that the data type cannot hold; that there is one is worth a warning.
"""

import struct
from pathlib import Path
from typing import BinaryIO

__all__ = ["declared_nodata"]

_GDAL_NODATA = 42113
_ASCII = 2
_MOST_ENTRIES = 4096
_LONGEST_VALUE = 64


def declared_nodata(path: Path) -> str | None:
    """Return the nodata value as written in the first directory of a TIFF; ``None`` where there is none.

    Never raises for what is in the file: a damaged directory is GDAL's to complain about.
    """
    try:
        with path.open("rb") as file:
            value = _find(file, _GDAL_NODATA)
    except (struct.error, OSError, OverflowError):
        return None
    return None if value is None else value.rstrip(b"\0 ").decode("ascii", "replace").strip()


def _find(file: BinaryIO, wanted: int) -> bytes | None:
    """Value of an ASCII tag of the first directory."""
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None:
        return None
    big = struct.unpack(f"{order}H", head[2:4])[0] == 43  # noqa: PLR2004 - BigTIFF
    start, count_form, entry, inline = (head[8:16], "Q", "HHQ8s", 8) if big else (head[4:8], "H", "HHI4s", 4)
    file.seek(struct.unpack(f"{order}{'Q' if big else 'I'}", start)[0])
    (count,) = struct.unpack(f"{order}{count_form}", file.read(struct.calcsize(f"{order}{count_form}")))
    size = struct.calcsize(f"{order}{entry}")
    for _ in range(min(count, _MOST_ENTRIES)):
        tag, kind, length, value = struct.unpack(f"{order}{entry}", file.read(size))
        if tag != wanted:
            continue
        if kind != _ASCII or length > _LONGEST_VALUE:
            return None
        if length <= inline:
            return bytes(value[:length])
        file.seek(struct.unpack(f"{order}{'Q' if big else 'I'}", value)[0])
        return file.read(length)
    return None
