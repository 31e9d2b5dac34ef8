"""Layers of GeoParquet files, read by pyarrow alone.

What belongs here: what the ``geo`` metadata of versions 1.0 and 1.1, or Parquet's own geometry types, say of a file,
and its row groups as batches.  What does not: coordinates in structs (``native_geometry``), nested values as JSON
(``nested``).

A row group may be as large as its writer liked and its dictionaries unpack to more than it says, so it is read in small
steps, which are put together again to batches.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
from pyproj.exceptions import CRSError

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import native_geometry
from geo_assets.vector.columns import column_type
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SourceField
from geo_assets.vector.nested import json_text
from geo_assets.vector.table import Column

__all__ = ["open_layers"]

_CODE: Final = "GEO_METADATA"
_WKB: Final = "WKB"
_GEOMETRY_TYPES: Final = frozenset({"GEOMETRY", "GEOGRAPHY"})
_LON_LAT: Final = "OGC:CRS84"
_STEP_ROWS: Final = 4096
_MOST_ROWS: Final = 65_536
_BUFFER_BYTES: Final = 1024 * 1024


def open_layers(path: Path, *, stem: str) -> list[Layer]:
    """Open a GeoParquet file; it is one layer.

    Args:
        path: the file.
        stem: name of the layer.

    Raises:
        VectorRefusedError: ``GEO_METADATA``: it has none, or some that does not fit the file.
        VectorUnreadableError: it is damaged or cut off.
    """
    try:
        # pre_buffer would hold whole row groups
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise VectorUnreadableError(f"the Parquet file cannot be opened: {_said(error, path)}") from error
    notes: list[str] = []
    found = _geometry(file, schema, notes)
    left_out = {found.at, *_of_no_use(schema, found.covering, notes)}
    attributes = tuple(_attribute(at, schema.field(at), notes) for at in range(len(schema)) if at not in left_out)
    return [_ParquetLayer(path=path, file=file, name=stem, geometry=found, attributes=attributes, said=tuple(notes))]


def _said(error: Exception, path: Path) -> str:
    return str(error).replace(str(path), "the file").replace(f"{path.parent}/", "")[:500]


# --- which column is the geometry ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    at: int
    encoding: str
    """``WKB`` or one of ``native_geometry.NATIVE_ENCODINGS``."""
    crs: pyproj.CRS | None
    covering: frozenset[str] = frozenset()
    """Columns of the boxes of geometries."""


def _geometry(file: pq.ParquetFile, schema: pa.Schema, notes: list[str]) -> _Geometry:
    stored = (file.metadata.metadata or {}).get(b"geo")
    return _by_parquet_type(file, schema, notes) if stored is None else _by_metadata(stored, schema, notes)


def _by_metadata(stored: bytes, schema: pa.Schema, notes: list[str]) -> _Geometry:
    try:
        geo = json.loads(stored)
        columns: Mapping[str, Any] = geo["columns"]
        name = geo["primary_column"]
        column: Mapping[str, Any] = columns[name]
        encoding = str(column["encoding"])
        covering = _covering(columns)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise VectorRefusedError(
            "the 'geo' metadata of the Parquet file is damaged or not of GeoParquet 1.0 or 1.1, so nothing says which"
            f" column is the geometry ({type(error).__name__}: {str(error)[:200]}); write the file anew",
            code=_CODE,
        ) from error
    at = _position(schema, name)
    _require_encoding(schema.field(at), name, encoding)
    others = [other for other in columns if other != name and other in schema.names]
    if others:
        notes.append(
            f"the geometry is '{name}'; of its other geometry columns the values are kept: {', '.join(others)}"
        )
    if column.get("edges", "planar") != "planar":
        notes.append(f"edges of the geometry are {str(column['edges'])[:40]} in the file, and are read as planar")
    crs = _crs(column.get("crs", _LON_LAT), notes)
    return _Geometry(at=at, encoding=encoding, crs=crs, covering=covering)


def _covering(columns: Mapping[str, Any]) -> frozenset[str]:
    boxes = (column.get("covering", {}).get("bbox", {}) for column in columns.values())
    return frozenset(path[0] for box in boxes for path in box.values() if path)


def _position(schema: pa.Schema, name: object) -> int:
    found = [at for at, one in enumerate(schema.names) if one == name]
    if len(found) != 1:
        raise VectorRefusedError(
            f"the 'geo' metadata of the Parquet file says that column {str(name)[:80]!r} is the geometry, but there are"
            f" {len(found)} columns of that name",
            code=_CODE,
        )
    return found[0]


def _require_encoding(field: "pa.Field[Any]", name: str, encoding: str) -> None:
    kind = _stored_type(field.type)
    if encoding == _WKB and _is_bytes(kind):
        return
    if encoding in native_geometry.NATIVE_ENCODINGS and native_geometry.fits(kind, encoding):
        return
    raise VectorRefusedError(
        f"the 'geo' metadata of the Parquet file says that column '{name}' is geometry encoded as {encoding[:40]!r},"
        f" but it is {str(kind)[:200]}; write the file anew with the encoding WKB",
        code=_CODE,
    )


def _by_parquet_type(file: pq.ParquetFile, schema: pa.Schema, notes: list[str]) -> _Geometry:
    leaves = [file.schema.column(at) for at in range(len(file.schema))]
    typed = {leaf.path: leaf.logical_type for leaf in leaves if leaf.logical_type.type in _GEOMETRY_TYPES}
    found = [at for at, name in enumerate(schema.names) if name in typed]
    if not found:
        raise VectorRefusedError(
            "the Parquet file does not say which column is geometry (it has no 'geo' metadata): it is a plain table."
            " Write it as GeoParquet, with GDAL or geopandas for instance",
            code=_CODE,
        )
    name = schema.names[found[0]]
    if len(found) > 1:
        others = ", ".join(schema.names[at] for at in found[1:])
        notes.append(f"the geometry is '{name}'; of its other geometry columns the values are kept: {others}")
    said = json.loads(typed[name].to_json())
    if said["Type"] == "Geography":
        notes.append("edges of the geometry are spherical in the file, and are read as planar")
    return _Geometry(at=found[0], encoding=_WKB, crs=_crs(_named_crs(said.get("crs") or _LON_LAT, file), notes))


def _named_crs(said: str, file: pq.ParquetFile) -> str:
    """What Parquet's geometry types call a CRS, as others call it."""
    scheme, _, value = said.partition(":")
    if scheme == "srid":
        return f"EPSG:{value}"
    if scheme == "projjson":
        return (file.metadata.metadata or {}).get(value.encode(), b"").decode("utf-8", "replace")
    return said


def _crs(said: Any, notes: list[str]) -> pyproj.CRS | None:
    if said is None:
        notes.append("the file says that the CRS of its geometry is not known")
        return None
    try:
        return pyproj.CRS.from_user_input(said)
    except (CRSError, TypeError):
        notes.append(f"the CRS of the file cannot be understood, and counts as none: {str(said)[:200]}")
        return None


# --- attributes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """An attribute, and the column of the file it comes from."""

    at: int
    field: SourceField
    as_text: bool
    """Whether values are written as JSON."""


def _attribute(at: int, field: "pa.Field[Any]", notes: list[str]) -> _Attribute:
    kind = _stored_type(field.type)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        return _Attribute(at=at, field=SourceField(name=field.name, type=pa.string(), json=True), as_text=True)
    if pa.types.is_duration(kind):
        notes.append(f"'{field.name}' has durations, which became whole numbers of {kind.unit}")
        return _Attribute(at=at, field=SourceField(name=field.name, type=pa.int64()), as_text=False)
    is_json = isinstance(field.type, pa.JsonType)
    try:
        wanted = _travelling(SourceField(name=field.name, type=kind, json=is_json))
    except VectorRefusedError:
        notes.append(f"'{field.name}' is {kind}, which no column takes, and became text")
        return _Attribute(at=at, field=SourceField(name=field.name, type=pa.string()), as_text=False)
    return _Attribute(at=at, field=SourceField(name=field.name, type=wanted, json=is_json), as_text=False)


def _travelling(field: SourceField) -> pa.DataType:
    """How its values travel; times keep their precision, as whoever cuts it has to count."""
    kind, scale = column_type(field)
    if pa.types.is_temporal(field.type):
        return field.type
    return Column(name=field.name, type=kind, source_name=field.name, scale=scale).arrow_type


def _of_no_use(schema: pa.Schema, covering: frozenset[str], notes: list[str]) -> set[int]:
    """Columns that are no attributes: boxes of geometries, and row labels of pandas without a name."""
    boxes = {at for at, one in enumerate(schema) if one.name in covering and pa.types.is_struct(one.type)}
    labels = {at for at, one in enumerate(schema.names) if one.startswith("__index_level_") and one.endswith("__")}
    if labels:
        notes.append("the row labels of pandas are left out")
    return boxes | labels


def _stored_type(kind: Any) -> Any:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


# --- the layer -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _ParquetLayer:
    """The one layer; see :class:`~geo_assets.vector.layers.Layer`."""

    path: Path
    file: pq.ParquetFile
    name: str
    geometry: _Geometry
    attributes: tuple[_Attribute, ...]
    said: tuple[str, ...]

    @property
    def fields(self) -> tuple[SourceField, ...]:
        return tuple(one.field for one in self.attributes)

    @property
    def has_geometry(self) -> bool:
        return True

    @property
    def crs(self) -> pyproj.CRS | None:
        return self.geometry.crs

    @property
    def crs_is_assumed(self) -> bool:
        """Never: the file or its format says it."""
        return False

    @property
    def feature_count(self) -> int | None:
        return int(self.file.metadata.num_rows)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.said

    def batches(self) -> Iterator[pa.RecordBatch]:
        steps: list[pa.RecordBatch] = []
        rows = size = 0
        try:
            for step in self._steps():
                if steps and (size + step.nbytes > BATCH_BYTES or rows + step.num_rows > _MOST_ROWS):
                    yield _together(steps)
                    steps, rows, size = [], 0, 0
                steps.append(step)
                rows, size = rows + step.num_rows, size + step.nbytes
            if steps:
                yield _together(steps)
        finally:
            self.file.close()

    def _steps(self) -> Iterator[pa.RecordBatch]:
        rows = 0
        try:
            for group in range(self.file.metadata.num_row_groups):
                for batch in self.file.iter_batches(self._step_rows(group), row_groups=[group], use_threads=True):
                    rows += batch.num_rows
                    yield self._put_right(batch)
        except (pa.ArrowException, OSError) as error:
            raise VectorUnreadableError(
                f"the Parquet file cannot be read beyond row {rows:,}: {_said(error, self.path)}"
            ) from error

    def _step_rows(self, group: int) -> int:
        found = self.file.metadata.row_group(group)
        likely = max(found.total_byte_size // max(found.num_rows, 1), 1)
        return int(min(max(BATCH_BYTES // likely, 1), _STEP_ROWS))

    def _put_right(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = [_values(one, _stored(batch.column(one.at))) for one in self.attributes]
        geometry = _stored(batch.column(self.geometry.at))
        if self.geometry.encoding == _WKB:
            geometry = geometry.cast(pa.binary())
        else:
            geometry = native_geometry.to_wkb(geometry, self.geometry.encoding)
        names = [*(one.field.name for one in self.attributes), GEOMETRY]
        return pa.RecordBatch.from_arrays([*arrays, geometry], names=names)


def _together(steps: list[pa.RecordBatch]) -> pa.RecordBatch:
    return steps[0] if len(steps) == 1 else pa.Table.from_batches(steps).combine_chunks().to_batches()[0]


def _values(one: _Attribute, array: Any) -> Any:
    if one.as_text:
        return json_text(array)
    return array if array.type == one.field.type else array.cast(one.field.type)


def _stored(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array
