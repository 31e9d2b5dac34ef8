"""What rasterio does not tell of a TIFF: the nodata value as it is written, and whether all its blocks are in the file.

What belongs here: reading tags of the directories, within fixed bounds.  What does not: pixels.

rasterio leaves out a nodata value that the data type cannot hold; that there is one is worth a warning.  And a file
that is cut off opens like a whole one, and reads like one where only its overviews are looked at.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["declared_nodata", "where_cut_off"]

_COMPRESSION = 259
_OFFSETS, _COUNTS = (273, 324), (279, 325)
_SUB_DIRECTORIES = 330
_GEOREFERENCE = (33550, 33922, 34264, 34735, 34736, 34737)
_GDAL_NODATA = 42113
_ASCII, _DOUBLE = 2, 12
_UNCOMPRESSED = 1
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 13: 4, 16: 8, 18: 8}
"""Bytes a value of the types that are looked at."""
_MOST_ENTRIES = 4096
_MOST_DIRECTORIES = 1024
_LONGEST_VALUE = 64
_AT_ONCE = 65_536


@dataclass(frozen=True)
class _Tag:
    kind: int
    count: int
    at: int
    """Where its values are in the file."""


class _Directories:
    """The directories of a TIFF, one after the other."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:  # noqa: PLR2004 - the shorter header
            raise ValueError("no TIFF")
        self.order = order
        big = struct.unpack(f"{order}H", head[2:4])[0] == 43  # noqa: PLR2004 - BigTIFF
        self._pointer, self._count, self._entry = ("Q", "Q", "HHQ8s") if big else ("I", "H", "HHI4s")
        self._inline = 8 if big else 4
        self.furthest = 0
        """Just behind the last directory that is named, as far as that is known."""
        self._first = struct.unpack(f"{order}{self._pointer}", head[8:16] if big else head[4:8])[0]

    def __iter__(self) -> Iterator[dict[int, _Tag]]:
        waiting, seen = [self._first], set[int]()
        while waiting and len(seen) < _MOST_DIRECTORIES:
            at = waiting.pop(0)
            if not at or at in seen:
                continue
            seen.add(at)
            self.furthest = max(self.furthest, at + 1)
            tags, following = self._read(at)
            waiting.append(following)
            if _SUB_DIRECTORIES in tags:
                waiting += [int(place) for part in self.values(tags[_SUB_DIRECTORIES]) for place in part]
            yield tags

    def _read(self, at: int) -> tuple[dict[int, _Tag], int]:
        self._file.seek(at)
        (count,) = self._unpack(self._count)
        size = struct.calcsize(f"{self.order}{self._entry}")
        start = self._file.tell()
        if count <= _MOST_ENTRIES:
            self.furthest = max(self.furthest, start + count * size)
        tags: dict[int, _Tag] = {}
        for position in range(min(count, _MOST_ENTRIES)):
            tag, kind, length, value = self._unpack(self._entry)
            inline = length * _SIZES.get(kind, self._inline + 1) <= self._inline
            here = start + (position + 1) * size - self._inline
            tags[tag] = _Tag(kind, length, here if inline else self._number(value))
        self._file.seek(start + count * size)
        (following,) = self._unpack(self._pointer)
        return tags, following

    def _number(self, value: bytes) -> int:
        number: int = struct.unpack(f"{self.order}{self._pointer}", value)[0]
        return number

    def _unpack(self, form: str) -> tuple[Any, ...]:
        packed = f"{self.order}{form}"
        return struct.unpack(packed, self._file.read(struct.calcsize(packed)))

    def values(self, tag: _Tag) -> Iterator[npt.NDArray[np.uint64]]:
        """Its numbers, so many at a time."""
        size = _SIZES.get(tag.kind)
        if size is None or tag.kind == _ASCII:
            return
        left, at = tag.count, tag.at
        while left:
            self._file.seek(at)
            data = self._file.read(min(left, _AT_ONCE) * size)
            if len(data) < min(left, _AT_ONCE) * size:
                raise struct.error("the values are cut off")
            left -= len(data) // size
            at += len(data)
            yield np.frombuffer(data, dtype=f"{self.order}u{size}").astype(np.uint64)

    def end(self, tag: _Tag) -> int:
        """Where its values end, if they are elsewhere than in the directory, else 0."""
        size = tag.count * (8 if tag.kind == _DOUBLE else _SIZES.get(tag.kind, 1))
        return tag.at + size if size > self._inline else 0

    def text(self, tag: _Tag) -> bytes:
        """Its bytes."""
        self._file.seek(tag.at)
        return self._file.read(tag.count)


def declared_nodata(path: Path) -> str | None:
    """Return the nodata value as written in the first directory of a TIFF; ``None`` where there is none.

    Never raises for what is in the file: a damaged directory is GDAL's to complain about.
    """
    try:
        with path.open("rb") as file:
            directories = _Directories(file)
            tag = next(iter(directories), {}).get(_GDAL_NODATA)
            if tag is None or tag.kind != _ASCII or tag.count > _LONGEST_VALUE:
                return None
            return directories.text(tag).rstrip(b"\0 ").decode("ascii", "replace").strip()
    except (struct.error, OSError, OverflowError, ValueError):
        return None


def where_cut_off(path: Path) -> int | None:
    """Return where the last block or directory of a TIFF is if that is beyond the end of the file, else ``None``.

    What a directory says of where its blocks are and lie on Earth belongs to it, wherever in the file that is.

    Never raises for what is in the file: a damaged directory is GDAL's to complain about.  Blocks that are not there
    on purpose (offset or size 0) do not count; nor does the size of uncompressed ones, which many writers get wrong.
    """
    size = path.stat().st_size
    furthest = 0
    try:
        with path.open("rb") as file:
            directories = _Directories(file)
            try:
                for tags in directories:
                    # a raster whose georeference is beyond the end opens as one that has none
                    needed = [tags[tag] for tag in (*_OFFSETS, *_COUNTS, *_GEOREFERENCE) if tag in tags]
                    furthest = max([furthest, *map(directories.end, needed)])
                    furthest = max(furthest, _furthest(directories, tags))
            finally:
                furthest = max(furthest, directories.furthest)
    except (struct.error, OSError, OverflowError, ValueError):
        pass
    return furthest if furthest > size else None


def _furthest(directories: _Directories, tags: dict[int, _Tag]) -> int:
    """Where the last block of a directory ends, as far as that is certain."""
    offsets = next((tags[tag] for tag in _OFFSETS if tag in tags), None)
    counts = next((tags[tag] for tag in _COUNTS if tag in tags), None)
    if offsets is None or counts is None or offsets.count != counts.count:
        return 0
    compression = _UNCOMPRESSED
    if _COMPRESSION in tags:
        compression = next((int(part[0]) for part in directories.values(tags[_COMPRESSION])), _UNCOMPRESSED)
    furthest = 0
    for starts, sizes in zip(directories.values(offsets), directories.values(counts), strict=True):
        there = (starts > 0) & (sizes > 0)
        if there.any():
            ends = starts + (1 if compression == _UNCOMPRESSED else sizes)
            furthest = max(furthest, int(ends[there].max()))
    return furthest
