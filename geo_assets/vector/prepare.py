"""One pass over a vector file: from what someone uploaded to chunks of rows that a table takes as they are.

What belongs here: :func:`prepare_vector_file`, the function that runs in the sandbox, and the order of its steps.  What
does not: the steps (``open``, ``geometry``, ``columns``, ``footprint``, ``table_map``) and loading the chunks
(``stores``).

Everything is judged before a table exists: types, kinds of geometry, CRS and counts are known when this ends, so that
the table is made in one go, of the right type.  Rows are streamed into Arrow files, so that memory follows the batch.

A layer whose rows have geometries of several dimensions becomes a table a dimension, if that is wanted.  A row keeps
its number in the source as its id, wherever it goes.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyproj

from geo_assets.errors import DiskFullError, ParameterError, VectorRefusedError, VectorUnreadableError
from geo_assets.vector.columns import RowSample, name_columns, table_columns, table_name_for
from geo_assets.vector.footprint import FootprintBuilder
from geo_assets.vector.geometry import (
    AREA,
    LINE,
    NO_DIMENSION,
    POINT,
    GeometryOptions,
    GeometryPreparer,
    PreparedGeometries,
)
from geo_assets.vector.layers import Layer, SchemaWidenedError
from geo_assets.vector.open import OpenedVector, ReadOptions, VectorBudget, open_vector
from geo_assets.vector.read_ahead import ReadAhead
from geo_assets.vector.table import ID_COLUMN, Column, GeometryColumn, TableDefinition
from geo_assets.vector.table_map import TableSketch

__all__ = ["CHUNK_BYTES", "prepare_vector_file"]

CHUNK_BYTES = 16 * 1024 * 1024
"""About how large a chunk may be, unpacked."""

_MOST_RESTARTS = 40
_DIMENSIONS = {POINT: "points", LINE: "lines", AREA: "polygons"}
_NO_SPACE = 28


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What the sandbox was asked for."""

    path: Path
    name: str
    folder: Path
    read: ReadOptions
    geometry: GeometryOptions
    budget: VectorBudget
    schema: str
    table: str
    geometry_column: str
    target_crs: str | None
    chunk_rows: int | None

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "_Request":
        return cls(
            path=Path(params["path"]),
            name=params["name"],
            folder=Path(params["folder"]),
            read=ReadOptions.from_dict(params["read"]),
            geometry=GeometryOptions.from_dict(params["geometry"]),
            budget=VectorBudget(**params["budget"]),
            schema=params["schema"],
            table=params["table"],
            geometry_column=params["geometry_column"],
            target_crs=params["target_crs"],
            chunk_rows=params.get("chunk_rows"),
        )

    def as_known(self, text: str) -> str:
        """A message that names the copy, with the name that people know."""
        return text.replace(self.path.name, PurePosixPath(self.name).name)


def prepare_vector_file(params: Mapping[str, Any]) -> dict[str, Any]:
    """Read a local vector file whole and leave its rows as Arrow files, a table's as it will be.

    Args:
        params: ``path`` (of the main file, or a ``.gdb`` folder), ``name`` (the blob's), ``folder`` (where chunks and
            pictures go; empty), ``read`` (:class:`~geo_assets.vector.open.ReadOptions`), ``geometry``
            (:class:`~geo_assets.vector.geometry.GeometryOptions`), ``budget``
            (:class:`~geo_assets.vector.open.VectorBudget`), ``schema``, ``table``, ``geometry_column``, ``target_crs``
            (``None`` keeps the file's), ``chunk_rows`` (``None``: by size).

    Returns:
        ``success``, and as ``result``: ``format``, ``driver``, ``notes``, and ``tables``, for each ``definition``,
        ``layer``, ``rows``, ``source_rows``, ``source_crs``, ``chunks`` (``file``, ``rows``), ``report``,
        ``geometry_types``, ``bbox``, ``native_bbox``, ``footprint``, ``sample``, ``picture`` and ``notes``; and
        ``skipped``, the layers without rows.  Or ``error`` (a code) and ``message`` where the file cannot be used.

    Raises:
        DiskFullError: no room for the chunks.
    """
    request = _Request.from_params(params)
    try:
        return {"success": True, "result": _prepare(request)}
    except VectorRefusedError as error:
        return _refused(error.code, request.as_known(str(error)))
    except VectorUnreadableError as error:
        return _refused("FILE_UNREADABLE", request.as_known(str(error)))
    except ParameterError as error:
        return _refused("INVALID_PARAMETER", str(error))
    except OSError as error:
        if error.errno == _NO_SPACE:
            raise DiskFullError(f"{request.name}: no room for what is prepared of it; free some and repeat") from error
        raise


def _refused(code: str, message: str) -> dict[str, Any]:
    return {"success": False, "outcome": "invalid", "error": code, "message": message, "reason": f"{code}: {message}"}


def _prepare(request: _Request) -> dict[str, Any]:
    widened: dict[str, dict[str, pa.DataType]] = {}
    notes: list[str] = []
    for _ in range(_MOST_RESTARTS):
        prepared = _Prepared(request)
        try:
            with open_vector(
                request.path,
                name=request.name,
                options=request.read,
                budget=request.budget,
                folder=request.folder,
                types=widened,
            ) as opened:
                prepared.take(opened)
                return prepared.result(opened, notes)
        except _WidenedError as error:
            prepared.remove_chunks()
            widened.setdefault(error.layer, {}).update(error.types)
            notes.append(request.as_known(str(error)))
    raise VectorUnreadableError(f"{request.name}: the types of its columns do not settle; the last: {notes[-1]}")


class _WidenedError(Exception):
    """A layer must be read anew with wider types."""

    def __init__(self, layer: str, error: SchemaWidenedError) -> None:
        super().__init__(str(error))
        self.layer = layer
        self.types = error.types


class _Prepared:
    """The tables that come of a file."""

    def __init__(self, request: _Request) -> None:
        self._request = request
        self._layers: list[_PreparedLayer] = []
        self._skipped: list[dict[str, Any]] = []

    def take(self, opened: OpenedVector) -> None:
        several = len(opened.layers) > 1
        names = _LayerNames(self._request.table)
        for layer in opened.layers:
            table = names.table_for(layer.name) if several else self._request.table
            prepared = _PreparedLayer(self._request, layer, table, number=len(self._layers))
            self._layers.append(prepared)
            try:
                prepared.read()
            except SchemaWidenedError as error:
                raise _WidenedError(layer.name, error) from error
            except VectorRefusedError as error:
                raise VectorRefusedError(_placed(error, layer, several=several), code=error.code) from error
            if prepared.rows == 0 and several:
                self._skipped.append({"layer": layer.name, "reason": prepared.why_empty()})
                self._layers.pop()
            elif prepared.rows == 0:
                raise VectorRefusedError(
                    f"{self._request.name}: nothing to load: {prepared.why_empty()}", code="NO_FEATURES"
                )
        if not self._layers:
            raise VectorRefusedError(f"{self._request.name}: none of its layers has rows to load", code="NO_FEATURES")

    def result(self, opened: OpenedVector, notes: list[str]) -> dict[str, Any]:
        tables = [table for layer in self._layers for table in layer.tables()]
        return {
            "format": opened.format,
            "driver": opened.driver,
            "notes": [*opened.notes, *dict.fromkeys(notes)],
            "skipped": self._skipped,
            "tables": tables,
        }

    def remove_chunks(self) -> None:
        for layer in self._layers:
            layer.remove_chunks()


def _placed(error: VectorRefusedError, layer: Layer, *, several: bool) -> str:
    return f"layer '{layer.name}': {error}" if several else str(error)


class _LayerNames:
    """Names of tables for layers; two layers never share one."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._taken: set[str] = set()

    def table_for(self, layer: str) -> str:
        name = table_name_for(self._base, layer)
        number = 2
        while name in self._taken:
            name = table_name_for(self._base, f"{layer}_{number}")
            number += 1
        self._taken.add(name)
        return name


@dataclass(kw_only=True)
class _Part:
    """The rows of one dimension of a layer."""

    writer: "_ChunkWriter"
    footprint: FootprintBuilder
    sketch: TableSketch
    sample: RowSample
    report: dict[str, Any] = field(default_factory=dict)
    """What was changed in its attributes."""


class _PreparedLayer:
    """One layer on its way into tables."""

    def __init__(self, request: _Request, layer: Layer, table: str, *, number: int) -> None:
        self._request = request
        self._layer = layer
        self._table = table
        self._number = number
        self._parts: dict[int, _Part] = {}
        self.source_rows = 0
        self.columns: tuple[Column, ...] = name_columns(
            layer.fields, geometry_column=request.geometry_column if layer.has_geometry else None
        )
        self._preparer: GeometryPreparer | None = None
        self._crs: pyproj.CRS | None = None
        self._source_crs: pyproj.CRS | None = None
        self._srid = 0

    @property
    def rows(self) -> int:
        return sum(part.writer.rows for part in self._parts.values())

    def read(self) -> None:
        layer = self._layer
        if layer.has_geometry:
            self._source_crs = _source_crs(self._request, layer)
            self._crs, self._srid = _target_crs(self._request.target_crs, self._source_crs)
            self._preparer = GeometryPreparer(self._request.geometry, source_crs=self._source_crs, target_crs=self._crs)
        with ReadAhead(layer.batches()) as batches:
            for batch in batches:
                if batch.num_rows:
                    self._take(batch)
        declared = layer.feature_count
        if declared is not None and declared > self.source_rows:
            raise VectorUnreadableError(
                f"layer '{layer.name}' says it has {declared:,} rows, but only {self.source_rows:,} could be read; the"
                " file is damaged or cut off"
            )
        for part in self._parts.values():
            part.writer.close()
        self._refuse_mixed()

    def _take(self, batch: pa.RecordBatch) -> None:
        first = self.source_rows + 1
        self.source_rows += batch.num_rows
        ids = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int64))
        if self._preparer is None:
            self._write(NO_DIMENSION, ids, batch, None)
            return
        geometry = batch.column(batch.num_columns - 1)
        attributes = batch.remove_column(batch.num_columns - 1)
        prepared = self._preparer.prepare(cast("pa.BinaryArray", geometry), first_row=first)
        for dimension, indices, wkb in _by_dimension(prepared):
            if indices is None:
                self._write(dimension, ids, attributes, wkb)
            else:
                self._write(dimension, ids.take(indices), attributes.take(indices), wkb)

    def _write(
        self, dimension: int, ids: "pa.Array[Any]", attributes: pa.RecordBatch, wkb: pa.BinaryArray | None
    ) -> None:
        part = self._parts.get(dimension) or self._begin(dimension)
        rows: list[pa.Array[Any]] = [ids, *table_columns(attributes, self.columns, part.report)]
        names = [ID_COLUMN, *(column.name for column in self.columns)]
        if wkb is not None:
            rows, names = [*rows, wkb], [*names, self._request.geometry_column]
            part.footprint.add(wkb)
            part.sketch.add(wkb, dimension)
        chunk = pa.RecordBatch.from_arrays(rows, names=names)
        part.sample.add(chunk)
        part.writer.write(chunk)

    def _begin(self, dimension: int) -> _Part:
        crs = self._crs or pyproj.CRS.from_epsg(4326)
        prefix = f"{self._number:03d}-{dimension:03d}"
        geometry = self._request.geometry_column if self._preparer is not None else None
        part = _Part(
            writer=_ChunkWriter(self._request.folder, prefix, rows=self._request.chunk_rows),
            footprint=FootprintBuilder(crs),
            sketch=TableSketch(crs),
            sample=RowSample(self.columns, geometry=geometry),
        )
        self._parts[dimension] = part
        return part

    def _refuse_mixed(self) -> None:
        found = sorted(set(self._parts) - {NO_DIMENSION})
        if self._preparer is not None and len(found) > 1 and self._request.geometry.mixed_dimensions == "refuse":
            counts = ", ".join(f"{self._preparer.facts(at).count:,} {_DIMENSIONS[at]}" for at in found)
            raise VectorRefusedError(
                f"its geometries are of several kinds: {counts}; give mixed_dimensions: split for a table each",
                code="MIXED_GEOMETRIES",
            )

    def why_empty(self) -> str:
        """In words."""
        if not self.source_rows:
            return "it has no rows"
        return f"none of its {self.source_rows:,} rows has a valid geometry left after removing nulls"

    def remove_chunks(self) -> None:
        for part in self._parts.values():
            part.writer.remove()

    def tables(self) -> Iterator[dict[str, Any]]:
        """What the result says of each table."""
        found = sorted(set(self._parts) - {NO_DIMENSION}) or [NO_DIMENSION]
        for dimension in found:
            name = table_name_for(self._table, _DIMENSIONS[dimension]) if len(found) > 1 else self._table
            yield self._described(dimension, name, leading=dimension == found[0])

    def _described(self, dimension: int, table: str, *, leading: bool) -> dict[str, Any]:
        """What the result says of one table; with it go rows without geometry from before any that had one."""
        main = self._parts[dimension]
        nulls = self._parts.get(NO_DIMENSION) if leading and dimension != NO_DIMENSION else None
        parts = [main] if nulls is None else [nulls, main]
        facts = None if self._preparer is None or dimension == NO_DIMENSION else self._preparer.facts(dimension)
        geometry = None
        if facts is not None:
            geometry = GeometryColumn(
                name=self._request.geometry_column, type=facts.type, dimensions=facts.dimensions, srid=self._srid
            )
        elif self._preparer is not None:
            geometry = GeometryColumn(name=self._request.geometry_column, srid=self._srid)
        definition = TableDefinition(schema=self._request.schema, table=table, columns=self.columns, geometry=geometry)
        report = {} if self._preparer is None else self._preparer.report(dimension)
        report |= _summed([one.report for one in parts])
        picture = None if geometry is None else main.sketch.draw(_subfolder(self._request.folder, table))
        return {
            "definition": definition.as_dict(),
            "layer": self._layer.name,
            "rows": sum(one.writer.rows for one in parts),
            "source_rows": self.source_rows,
            "source_crs": None if self._source_crs is None else _crs_name(self._source_crs),
            "chunks": [chunk for one in parts for chunk in one.writer.chunks],
            "report": report,
            "geometry_types": {} if facts is None else dict(facts.types),
            "bbox": None if geometry is None else _plain(main.footprint.bbox),
            "native_bbox": None if geometry is None else _plain(main.footprint.native_bbox),
            "footprint": None if geometry is None else main.footprint.footprint,
            "sample": main.sample.rows,
            "picture": picture,
            "notes": list(self._layer.notes),
        }


def _summed(reports: list[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Counts by column, all together."""
    summed: dict[str, Counter[str]] = {}
    for report in reports:
        for what, counts in report.items():
            summed.setdefault(what, Counter()).update(counts)
    return {what: dict(counts) for what, counts in summed.items()}


def _plain(box: tuple[float, ...] | None) -> list[float] | None:
    return None if box is None else [float(edge) for edge in box]


def _subfolder(folder: Path, name: str) -> Path:
    made = folder / f"picture-{name}"
    made.mkdir(exist_ok=True)
    return made


def _by_dimension(prepared: PreparedGeometries) -> "Iterator[tuple[int, pa.Array[Any] | None, pa.BinaryArray]]":
    """Dimension, rows of the input (``None``: all, in order) and geometries."""
    if not len(prepared.wkb):
        return
    first = int(prepared.dimension[0])
    source = prepared.source
    if (prepared.dimension == first).all():
        yield first, None if source is None else pa.array(source), prepared.wkb
        return
    for dimension in np.unique(prepared.dimension):
        mask = prepared.dimension == dimension
        rows = np.flatnonzero(mask) if source is None else source[mask]
        yield int(dimension), pa.array(rows), prepared.wkb.filter(pa.array(mask))


# --- reference systems -------------------------------------------------------------------------------------------


def _source_crs(request: _Request, layer: Layer) -> pyproj.CRS:
    given = None if request.read.input_crs is None else _parsed(request.read.input_crs, "input_crs")
    said = layer.crs
    if said is None and given is None:
        known = "".join(f" ({note})" for note in layer.notes if "CRS" in note)
        raise VectorRefusedError(
            f"layer '{layer.name}' does not say in which coordinate reference system it is{known}; give input_crs if"
            " you know",
            code="NO_CRS",
        )
    if given is not None and layer.crs_is_assumed:
        return given
    if said is not None and given is not None and not said.equals(given, ignore_axis_order=True):
        raise VectorRefusedError(
            f"layer '{layer.name}' says it is in {_crs_name(said)}, and input_crs is {_crs_name(given)}; leave"
            " input_crs out, or mend the file",
            code="CRS_CONFLICT",
        )
    return said if said is not None else given  # type: ignore[return-value]  # one of them is there


def _target_crs(wanted: str | None, source: pyproj.CRS) -> tuple[pyproj.CRS, int]:
    target = source if wanted is None else _parsed(wanted, "target_crs")
    code = target.to_epsg()
    if code is None and _is_crs84(target):
        code = 4326
    if code is None:
        raise VectorRefusedError(
            f"{_crs_name(target)} has no EPSG code, which a table needs; give a target_crs such as EPSG:4326",
            code="CRS_WITHOUT_CODE",
        )
    return pyproj.CRS.from_epsg(code), int(code)


def _is_crs84(crs: pyproj.CRS) -> bool:
    return bool(crs.equals(pyproj.CRS.from_epsg(4326), ignore_axis_order=True))


def _parsed(text: str, parameter: str) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(text)
    except pyproj.exceptions.CRSError:
        raise ParameterError(f"{parameter} '{text[:100]}' is no coordinate reference system; try EPSG:4326") from None


def _crs_name(crs: pyproj.CRS) -> str:
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.name)[:100]


# --- chunks ------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Open:
    file: Path
    writer: pa.ipc.RecordBatchStreamWriter
    rows: int = 0
    size: int = 0


class _ChunkWriter:
    """Rows as Arrow IPC files, a chunk each."""

    def __init__(self, folder: Path, prefix: str, *, rows: int | None) -> None:
        self._folder, self._prefix, self._rows_a_chunk = folder, prefix, rows
        self._open: _Open | None = None
        self.chunks: list[dict[str, Any]] = []

    @property
    def rows(self) -> int:
        """Written so far."""
        return sum(int(chunk["rows"]) for chunk in self.chunks) + (self._open.rows if self._open else 0)

    def write(self, batch: pa.RecordBatch) -> None:
        limit = self._rows_a_chunk
        start = 0
        while start < batch.num_rows:
            free = batch.num_rows if limit is None else limit - (self._open.rows if self._open else 0)
            piece = batch.slice(start, free)
            start += piece.num_rows
            current = self._open or self._begin(batch.schema)
            current.writer.write_batch(piece)
            current.rows += piece.num_rows
            current.size += piece.nbytes
            if current.rows == limit or (limit is None and current.size >= CHUNK_BYTES):
                self.close()

    def _begin(self, schema: pa.Schema) -> _Open:
        file = self._folder / f"{self._prefix}-{len(self.chunks):06d}.arrow"
        # not compressed: coordinates hardly get smaller, and chunks are read once, soon
        self._open = _Open(file=file, writer=pa.ipc.new_stream(str(file), schema))
        return self._open

    def close(self) -> None:
        """End the chunk that is being written."""
        if self._open is not None:
            self._open.writer.close()
            self.chunks.append({"file": self._open.file.name, "rows": self._open.rows})
            self._open = None

    def remove(self) -> None:
        self.close()
        for chunk in self.chunks:
            (self._folder / chunk["file"]).unlink(missing_ok=True)
        self.chunks = []
