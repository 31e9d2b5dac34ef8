"""What GDAL does not say of a shapefile: the encoding of its texts, and whether its parts are whole.

What belongs here: the headers of ``.shp`` and ``.dbf``.  What does not: reading it (``ogr_layers``), and whether the
parts are there at all (``local_copy``, ``archives``).
"""

import codecs
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from geo_assets.errors import VectorUnreadableError

__all__ = ["Dbf", "require_whole"]

_SHP_HEADER: Final = 100
_SHP_MAGIC: Final = 9994
_DBF_HEADER: Final = 32
_FIELD: Final = 32
_END: Final = 0x0D
_DELETED: Final = 0x2A
_TEXT_TYPES: Final = b"CM"
_BLOCK_BYTES: Final = 1024 * 1024
_SAMPLED_BLOCKS: Final = 8
_MOST_LINES: Final = 2000
_FIRST_OTHER: Final = 0x80
"""First byte that is not ASCII."""
_VAGUE: Final = frozenset({0x00, 0x57})
"""Language ids that say nothing: none, and "as Windows has it", which most programs write whatever they mean."""


@dataclass(frozen=True, kw_only=True)
class Dbf:
    """The attribute table beside a ``.shp``."""

    path: Path
    rows: int
    header: int
    """Bytes before the first row."""
    width: int
    """Bytes of a row."""
    language: int
    texts: tuple[tuple[int, int], ...]
    """First and last byte within a row of each column of text."""

    @classmethod
    def beside(cls, shp: Path) -> "Dbf | None":
        """The table of a shapefile; ``None`` where there is none.

        Raises:
            VectorUnreadableError: its header is damaged.
        """
        path = _part(shp, ".dbf")
        if path is None:
            return None
        with path.open("rb") as file:
            head = file.read(_DBF_HEADER)
            if len(head) < _DBF_HEADER:
                raise VectorUnreadableError("the shapefile's .dbf part is cut off within its header")
            rows, header, width = struct.unpack_from("<IHH", head, 4)
            described = file.read(max(header - _DBF_HEADER, 0))
        if width == 0 or header < _DBF_HEADER:
            raise VectorUnreadableError("the shapefile's .dbf part has a damaged header")
        return cls(
            path=path, rows=rows, header=header, width=width, language=head[29], texts=tuple(_texts(described, width))
        )

    @property
    def declares_encoding(self) -> bool:
        """Whether the file says what its texts are."""
        cpg = _part(self.path, ".cpg")
        if cpg is None:
            return self.language not in _VAGUE
        name = cpg.read_bytes()[:64].decode("ascii", "replace").strip()
        try:
            codecs.lookup(f"cp{name}" if name.isdigit() else name)
        except LookupError:
            return name.startswith("8859")
        return True

    def deleted_rows(self) -> int:
        """How many rows are marked as deleted, which nobody reads."""
        return sum(int((block[:, 0] == _DELETED).sum()) for block in self._blocks())

    def sample(self) -> bytes:
        """Texts with other bytes than ASCII, a line each, from all over the file."""
        lines: list[bytes] = []
        blocks = -(-self.rows * self.width // _BLOCK_BYTES)
        for block in self._blocks(every=max(1, blocks // _SAMPLED_BLOCKS)):
            for start, stop in self.texts:
                column = block[:, start:stop]
                telling = column[(column >= _FIRST_OTHER).any(axis=1)]
                lines += [row.tobytes().strip(b" \0") for row in telling[:_MOST_LINES]]
        return b"\n".join(lines)

    def _blocks(self, *, every: int = 1) -> Iterator[npt.NDArray[np.uint8]]:
        """Its rows as bytes, some at a time: what is mapped into memory counts as ours."""
        rows = max(_BLOCK_BYTES // self.width, 1)
        with self.path.open("rb") as file:
            for first in range(0, self.rows, rows * every):
                file.seek(self.header + first * self.width)
                read = file.read(min(rows, self.rows - first) * self.width)
                yield np.frombuffer(read[: len(read) // self.width * self.width], np.uint8).reshape(-1, self.width)


def require_whole(shp: Path) -> None:
    """Refuse a shapefile whose ``.shp`` or ``.dbf`` is shorter than it says, of which GDAL makes null geometries.

    Raises:
        VectorUnreadableError: names the part, and the row up to which the table goes.
    """
    with shp.open("rb") as file:
        head = file.read(_SHP_HEADER)
    if len(head) < _SHP_HEADER or struct.unpack_from(">i", head)[0] != _SHP_MAGIC:
        raise VectorUnreadableError("the shapefile's .shp part is cut off or damaged within its header")
    says, has = 2 * struct.unpack_from(">I", head, 24)[0], shp.stat().st_size
    if has < says:
        raise VectorUnreadableError(
            f"the shapefile's .shp part is cut off: it says it has {says:,} bytes, but it has {has:,}"
        )
    table = Dbf.beside(shp)
    if table is None:
        return
    says, has = table.header + table.rows * table.width, table.path.stat().st_size
    if has < says:
        whole = max(has - table.header, 0) // table.width
        raise VectorUnreadableError(
            f"the shapefile's .dbf part is cut off: it says it has {table.rows:,} rows, but only {whole:,} are there"
        )


def _texts(described: bytes, width: int) -> Iterator[tuple[int, int]]:
    start = 1
    for at in range(0, len(described) - _FIELD + 1, _FIELD):
        if described[at] == _END:
            return
        kind, length, decimals = described[at + 11], described[at + 16], described[at + 17]
        if kind in _TEXT_TYPES:
            length += 256 * decimals if kind == _TEXT_TYPES[0] else 0  # how texts beyond 255 bytes are described
            if start + length <= width:
                yield start, start + length
        start += length


def _part(path: Path, suffix: str) -> Path | None:
    return next((found for one in (suffix, suffix.upper()) if (found := path.with_suffix(one)).is_file()), None)
