"""What a table of features is: its columns, its geometry, and where its rows came from, as plain values.

What belongs here: the definitions that readers, stores and workflows hand to each other, and their form as JSON.  What
does not: making them of a file (``columns``, ``prepare``), and SQL (``stores``).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

import pyarrow as pa

__all__ = [
    "ARROW_TYPES",
    "ID_COLUMN",
    "Column",
    "ColumnType",
    "Dimensions",
    "GeometryColumn",
    "TableDefinition",
    "TableLoad",
]

ID_COLUMN = "id"
"""Primary key of every table we make: the row's number in the source, counted from 1."""


class ColumnType(StrEnum):
    """Type of an attribute, as a database names it."""

    BOOLEAN = "boolean"
    SMALLINT = "smallint"
    INTEGER = "integer"
    BIGINT = "bigint"
    REAL = "real"
    DOUBLE = "double precision"
    NUMERIC = "numeric"
    """Whole numbers beyond 64 bits and decimals; as Arrow ``decimal128(38, s)``."""
    TEXT = "text"
    DATE = "date"
    TIME = "time"
    TIMESTAMP = "timestamp"
    """Without a zone: what the source says, as it says it."""
    TIMESTAMPTZ = "timestamptz"
    JSON = "jsonb"
    """As Arrow, its text."""
    BINARY = "bytea"


ARROW_TYPES: "Mapping[ColumnType, pa.DataType]" = {
    ColumnType.BOOLEAN: pa.bool_(),
    ColumnType.SMALLINT: pa.int16(),
    ColumnType.INTEGER: pa.int32(),
    ColumnType.BIGINT: pa.int64(),
    ColumnType.REAL: pa.float32(),
    ColumnType.DOUBLE: pa.float64(),
    ColumnType.TEXT: pa.string(),
    ColumnType.DATE: pa.date32(),
    ColumnType.TIME: pa.time64("us"),
    ColumnType.TIMESTAMP: pa.timestamp("us"),
    ColumnType.TIMESTAMPTZ: pa.timestamp("us", tz="UTC"),
    ColumnType.JSON: pa.string(),
    ColumnType.BINARY: pa.binary(),
}
"""How each type but ``NUMERIC`` travels in chunks."""

Dimensions = Literal["XY", "XYZ", "XYM", "XYZM"]


@dataclass(frozen=True, kw_only=True)
class Column:
    """One attribute of a table."""

    name: str
    """In the table: a valid identifier of at most 63 bytes."""
    type: ColumnType
    source_name: str
    """In the file, as it stands there."""
    scale: int = 0
    """Digits after the point, of ``NUMERIC``."""
    description: str | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        """How its values travel in chunks."""
        if self.type is ColumnType.NUMERIC:
            return pa.decimal128(38, self.scale)
        return ARROW_TYPES[self.type]


@dataclass(frozen=True, kw_only=True)
class GeometryColumn:
    """The geometry of a table."""

    name: str = "geom"
    type: str = "Geometry"
    """As OGC names it: ``Point``, ``MultiPolygon``, …; ``Geometry`` where several kinds are wanted."""
    dimensions: Dimensions = "XY"
    srid: int = 4326
    """EPSG code of the CRS."""


@dataclass(frozen=True, kw_only=True)
class TableDefinition:
    """A table as it is to be made: the id, the attributes in order, and the geometry."""

    schema: str
    table: str
    columns: tuple[Column, ...]
    geometry: GeometryColumn | None
    """``None``: a table without one."""

    @property
    def name(self) -> str:
        """``schema.table``, which is also the name of its partition."""
        return f"{self.schema}.{self.table}"

    @property
    def chunk_schema(self) -> pa.Schema:
        """Schema of its rows while they travel: id (int64), attributes, geometry (WKB)."""
        fields: list[tuple[str, pa.DataType]] = [(ID_COLUMN, pa.int64())]
        fields += [(column.name, column.arrow_type) for column in self.columns]
        if self.geometry is not None:
            fields.append((self.geometry.name, pa.binary()))
        return pa.schema(fields)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"columns": [asdict(column) | {"type": column.type.value} for column in self.columns]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TableDefinition":
        """The inverse of :meth:`as_dict`."""
        geometry = values["geometry"]
        return cls(
            schema=values["schema"],
            table=values["table"],
            columns=tuple(Column(**{**one, "type": ColumnType(one["type"])}) for one in values["columns"]),
            geometry=None if geometry is None else GeometryColumn(**geometry),
        )


@dataclass(frozen=True, kw_only=True)
class TableLoad:
    """Where rows of a table came from: one load of one layer, by one job."""

    key: str
    """Equal for repeats of the same load: of the same job and the same version of its source."""
    job_id: str
    rows: int
    source: Mapping[str, Any] = field(default_factory=dict)
    """``container``, ``blob``, ``layer``, ``etag``, ``sha256``, ``last_modified``."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What was found and done on the way, for people and for the item; plain JSON values."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TableLoad":
        """The inverse of :meth:`as_dict`."""
        return cls(**values)
