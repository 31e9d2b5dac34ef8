"""What a layer of a vector file is to those who read it: its attributes, its CRS, and its rows as Arrow batches.

What belongs here: :class:`Layer`, the protocol every reader keeps, what readers raise to be started anew, and batches
kept small.  What does not: any one format (``ogr_layers``, ``csv_layers``, ``geojson_layers``, ``parquet_layers``),
opening (``open``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa
import pyproj

__all__ = ["BATCH_BYTES", "GEOMETRY", "Layer", "SchemaWidenedError", "SourceField", "bounded"]

BATCH_BYTES = 16 * 1024 * 1024
"""About how large a batch may be: memory follows this, not the file."""

GEOMETRY = "\x00geometry"
"""Name of the WKB column in a batch; no attribute of a file can have it."""


@dataclass(frozen=True, kw_only=True)
class SourceField:
    """One attribute of a layer, as its file has it."""

    name: str
    type: pa.DataType
    """One of those in ``table.ARROW_TYPES``, or ``decimal128(38, s)``."""
    json: bool = False
    """Its text is JSON."""
    description: str | None = None


class SchemaWidenedError(Exception):
    """A later row does not fit the types that the first rows suggested; reading starts anew with these.

    Caught by ``prepare``; at most one restart a column and type.  Readers are given ``types`` then.
    """

    def __init__(self, types: "Mapping[str, pa.DataType]", why: str) -> None:
        super().__init__(why)
        self.types = dict(types)
        """Attribute → the wider type, of those that changed."""


class Layer(Protocol):
    """One layer of an opened file."""

    @property
    def name(self) -> str:
        """As the file has it; the file's stem where layers have no names."""
        ...

    @property
    def fields(self) -> tuple[SourceField, ...]:
        """The attributes, in order; names may repeat and be anything."""
        ...

    @property
    def has_geometry(self) -> bool:
        """Whether rows have a geometry."""
        ...

    @property
    def crs(self) -> pyproj.CRS | None:
        """What the file says; ``None`` where it says nothing that can be used."""
        ...

    @property
    def crs_is_assumed(self) -> bool:
        """Whether ``crs`` is only what files of the kind usually have, so that somebody who knows better is right."""
        ...

    @property
    def feature_count(self) -> int | None:
        """How many rows the file says it has; ``None`` where only reading tells. May be a lie."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody should know of how it is read (an encoding that was guessed, a column that became text)."""
        ...

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows in the file's order.

        A batch has the attributes of ``fields``, in order (by position: names may repeat), and last, if
        ``has_geometry``, :data:`GEOMETRY` as ``pa.binary()`` with ISO WKB or null, at most about
        :data:`BATCH_BYTES` in all.  May be called once.

        Raises:
            SchemaWidenedError: start anew with wider types.
            VectorUnreadableError: the file is damaged or cut off; says where.
        """
        ...


def bounded(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Give a batch in parts of equally many rows, of about :data:`BATCH_BYTES` at most; none if it is empty."""
    parts = max(-(-batch.nbytes // BATCH_BYTES), 1)
    rows = max(-(-batch.num_rows // parts), 1)
    return (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))
