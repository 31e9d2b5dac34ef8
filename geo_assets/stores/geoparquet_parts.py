"""One part of a GeoParquet table: a file that is written once, says what it holds, and is read as rows again.

What belongs here: the content of single files.  What does not: which files are a table (``geoparquet_folders``), and
what is known of one (``geoparquet_facts``).

A part is GeoParquet 1.1: WKB, the CRS as PROJJSON, geometry types and bbox *of that part* (a reader of a folder takes
either the first part's or looks at all), and a covering column of boxes in 32 bits, rounded outwards, by which readers
skip row groups.  ISO WKB with M has no place in GeoParquet 1.1: such parts name no geometry types.  The key
``geo_assets`` of the file's metadata holds the table's definition and the range of its ids.
"""

import base64
import functools
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geo_assets.errors import TableDataError
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType, GeometryColumn, TableDefinition

__all__ = [
    "Box",
    "PartFacts",
    "cluster_part",
    "covering_columns",
    "part_box",
    "part_facts",
    "read_part",
    "read_parts",
    "repeated_id",
    "write_part",
]

_GROUP_ROWS: Final = 65_536
_GROUP_BYTES: Final = 16 * 1024 * 1024
_READ_ROWS: Final = 16_384
_OWN_KEY: Final = "geo_assets"
_CORNERS: Final = ("xmin", "ymin", "xmax", "ymax")
_DIMENSIONS: Final = ("XY", "XYZ", "XYM", "XYZM")
_HILBERT_BITS: Final = 16
_WITH_DICTIONARY: Final = frozenset({ColumnType.TEXT, ColumnType.SMALLINT, ColumnType.INTEGER, ColumnType.DATE})
"""Columns of these types often repeat their values; trying it on others costs more than it saves."""

type _Floats = npt.NDArray[np.float64]
type Box = tuple[float, float, float, float]
"""Left, bottom, right, top."""


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """What a part says of itself."""

    rows: int
    first_id: int | None
    """Smallest id; ``None``: no rows."""
    last_id: int | None
    clustered: bool
    """Rows lie along a Hilbert curve, not by id."""


def part_facts(path: Path) -> PartFacts:
    """Read a part's footer.

    Raises:
        TableDataError: it is no part of ours, or damaged.
        FileNotFoundError: it is gone.
    """
    try:
        own = (pq.read_metadata(path).metadata or {})[_OWN_KEY.encode()]
        return PartFacts(**json.loads(own)["part"])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise TableDataError(
            f"{path.name} is damaged, or was not written by geo_assets: load the table anew"
        ) from error


def part_box(path: Path) -> Box | None:
    """Box of a part's geometries, in their CRS; ``None`` where it has none."""
    geo: dict[str, Any] = json.loads((pq.read_metadata(path).metadata or {}).get(b"geo", b"{}"))
    for column in geo.get("columns", {}).values():
        if "bbox" in column:
            left, bottom, right, top = column["bbox"]
            return left, bottom, right, top
    return None


def write_part(
    path: Path, layout: TableDefinition, batches: Iterable[pa.RecordBatch], *, id_offset: int = 0
) -> PartFacts:
    """Write rows, in their order, to a new file, and see that they are on the disk.

    Args:
        path: of the file; it must not be there.
        layout: of the table; batches have its columns, in any order.
        batches: ids strictly increase.
        id_offset: is added to every id.

    Raises:
        TableDataError: ids do not increase, or a geometry is not of the column's type; the file is then incomplete.
    """
    writer = _PartWriter(path, layout)
    try:
        for batch in batches:
            writer.add(_as_laid_out(batch, layout, id_offset))
        return writer.finish(clustered=False)
    finally:
        writer.close()


def cluster_part(path: Path, target: Path, layout: TableDefinition, box: Box) -> None:
    """Write the rows of a part to another file, along a Hilbert curve through ``box``; null geometries come last.

    The rows of the part are in memory meanwhile.
    """
    rows = pa.Table.from_batches(list(read_part(path, layout)), layout.chunk_schema).combine_chunks()
    writer = _PartWriter(target, layout)
    try:
        if rows.num_rows and layout.geometry is not None:
            geometries = cast("pa.BinaryArray", rows[layout.geometry.name].combine_chunks())
            order = _hilbert(_boxes(geometries), box).argsort(kind="stable")
            rows = rows.take(order)
        for batch in rows.to_batches(_GROUP_ROWS):
            writer.add(batch, ordered=False)
        writer.finish(clustered=True)
    finally:
        writer.close()


def read_part(path: Path, layout: TableDefinition, *, by_id: bool = False) -> Iterator[pa.RecordBatch]:
    """Stream the rows of a part of ours, of ``layout.chunk_schema``.

    Args:
        path: of the file.
        layout: of the table.
        by_id: ordered by id; a clustered part is in memory for that.
    """
    schema = layout.chunk_schema
    with pq.ParquetFile(path, pre_buffer=False) as file:
        read: Iterable[pa.RecordBatch] = file.iter_batches(_READ_ROWS, columns=schema.names)
        if by_id and part_facts(path).clustered:
            read = pa.Table.from_batches(list(read)).sort_by(ID_COLUMN).to_batches(_READ_ROWS)
        for batch in read:
            yield pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)


def read_parts(paths: Iterable[Path], layout: TableDefinition) -> Iterator[pa.RecordBatch]:
    """Stream the rows of parts of ours ordered by id, also where the ids of one lie between those of another."""
    parts = {path: part_facts(path) for path in paths}
    yield from _merged(parts, lambda path: read_part(path, layout, by_id=True))


def repeated_id(parts: Mapping[Path, PartFacts]) -> int | None:
    """An id that is in two parts; ``None``: there is none.

    Nothing is read where no two ranges overlap.

    Args:
        parts: none of them clustered.
    """
    ranges = sorted((p.first_id, p.last_id) for p in parts.values() if p.first_id is not None and p.last_id is not None)
    if all(last < first for (_, last), (first, _) in itertools.pairwise(ranges)):
        return None
    for batch in _merged(parts, _ids_of):
        ids = batch.column(0).to_numpy()
        again = ids[1:][ids[1:] == ids[:-1]]
        if again.size:
            return int(again[0])
    return None


def _ids_of(path: Path) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(_GROUP_ROWS, columns=[ID_COLUMN])


def _merged(
    parts: Mapping[Path, PartFacts], read: Callable[[Path], Iterator[pa.RecordBatch]]
) -> Iterator[pa.RecordBatch]:
    """Rows of parts, each ordered by id, in the order of their ids.

    Equal ids come in one batch.  A part is opened when its first row is due, and in memory is a batch of each.
    """
    waiting = sorted(((one.first_id, path) for path, one in parts.items() if one.first_id is not None), reverse=True)
    heads: list[tuple[pa.RecordBatch, Iterator[pa.RecordBatch]]] = []
    while waiting or heads:
        due = min((_last_id(batch) for batch, _ in heads), default=waiting[-1][0] if waiting else 0)
        if waiting and waiting[-1][0] <= due:
            heads += _head(read(waiting.pop()[1]))
            continue
        taken: list[pa.RecordBatch] = []
        left: list[tuple[pa.RecordBatch, Iterator[pa.RecordBatch]]] = []
        for batch, rest in heads:
            count = int(np.searchsorted(batch.column(0).to_numpy(), due, side="right"))
            taken += [batch.slice(0, count)] if count else []
            left += [(batch.slice(count), rest)] if count < batch.num_rows else _head(rest)
        heads = left
        if len(taken) == 1:
            yield taken[0]
        else:
            yield from pa.Table.from_batches(taken).sort_by(ID_COLUMN).combine_chunks().to_batches()


def _head(rest: Iterator[pa.RecordBatch]) -> list[tuple[pa.RecordBatch, Iterator[pa.RecordBatch]]]:
    """The next batch that has rows, and what comes after it; nothing at the end."""
    return [(batch, rest) for batch in itertools.islice((one for one in rest if one.num_rows), 1)]


def _last_id(batch: pa.RecordBatch) -> int:
    return int(batch.column(0)[-1].as_py())


def covering_columns(geo: dict[str, Any]) -> set[str]:
    """Names of the covering columns in a file's ``geo`` metadata: they are about geometries, no attributes."""
    coverings = (column.get("covering", {}).get("bbox", {}) for column in geo.get("columns", {}).values())
    return {str(steps[0]) for covering in coverings for steps in covering.values()}


# --- writing ----------------------------------------------------------------------------------------------------


class _PartWriter:
    """Gathers rows into row groups, and facts for the footer."""

    def __init__(self, path: Path, layout: TableDefinition) -> None:
        self._path, self._layout = path, layout
        self._covering = _covering_name(layout)
        self._schema = _file_schema(layout, self._covering)
        self._file = path.open("xb")
        self._writer = pq.ParquetWriter(
            self._file,
            self._schema,
            compression="zstd",
            compression_level=1,
            store_schema=False,
            use_dictionary=cast("Any", [one.name for one in layout.columns if one.type in _WITH_DICTIONARY]),
            write_statistics=_with_statistics(layout, self._covering),
        )
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._ids: tuple[int, int] | None = None
        self._rows = 0
        self._kinds: set[int] = set()
        self._box = np.array([np.inf, np.inf, -np.inf, -np.inf])

    def add(self, batch: pa.RecordBatch, *, ordered: bool = True) -> None:
        """Take rows of the layout's chunk schema."""
        if batch.num_rows == 0:
            return
        self._take_ids(batch.column(0), ordered=ordered)
        self._rows += batch.num_rows
        columns = list(batch.columns)
        geometry = self._layout.geometry
        if geometry is not None:
            columns.append(self._covered(geometry, cast("pa.BinaryArray", columns[-1])))
        complete = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        step = max(1, min(_GROUP_ROWS, _GROUP_BYTES * complete.num_rows // max(complete.nbytes, 1)))
        for start in range(0, complete.num_rows, step):
            self._wait(complete.slice(start, step))

    def finish(self, *, clustered: bool) -> PartFacts:
        """Write what is left and the footer."""
        self._flush()
        first, last = self._ids or (None, None)
        facts = PartFacts(rows=self._rows, first_id=first, last_id=last, clustered=clustered)
        own = {"part": asdict(facts), "table": self._layout.as_dict()}
        said = {_OWN_KEY: json.dumps(own)}
        if self._layout.geometry is not None:
            said["geo"] = json.dumps(self._geo(self._layout.geometry))
        # readers built on Arrow take the metadata from here; the writer would store what is known at its beginning
        schema = self._schema.with_metadata({**said})
        stored = base64.b64encode(schema.serialize().to_pybytes()).decode()
        self._writer.add_key_value_metadata({**said, "ARROW:schema": stored})
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        return facts

    def close(self) -> None:
        """Let go of the file, complete or not."""
        self._writer.close()
        self._file.close()

    def _take_ids(self, ids: "pa.Array[Any]", *, ordered: bool) -> None:
        if ids.null_count:
            raise TableDataError(f"a row of {self._layout.name} has no {ID_COLUMN}")
        values = ids.to_numpy()
        low, high = int(values.min()), int(values.max())
        if ordered and ((np.diff(values) <= 0).any() or (self._ids is not None and low <= self._ids[1])):
            raise TableDataError(f"the {ID_COLUMN}s of a chunk of {self._layout.name} do not increase from row to row")
        self._ids = (low, high) if self._ids is None else (min(low, self._ids[0]), max(high, self._ids[1]))

    def _covered(self, geometry: GeometryColumn, wkb: pa.BinaryArray) -> pa.StructArray:
        self._kinds |= _kinds(geometry, wkb, self._layout.name)
        boxes = _boxes(wkb)
        nowhere = ~np.isfinite(boxes).all(axis=1)
        known = boxes[~nowhere]
        if len(known):
            self._box[:2] = np.minimum(self._box[:2], known[:, :2].min(axis=0))
            self._box[2:] = np.maximum(self._box[2:], known[:, 2:].max(axis=0))
        outer = _outward(boxes)
        corners = [pa.array(outer[:, at], pa.float32()) for at in range(4)]
        return pa.StructArray.from_arrays(corners, names=list(_CORNERS), mask=pa.array(nowhere))

    def _wait(self, batch: pa.RecordBatch) -> None:
        waiting_rows = sum(one.num_rows for one in self._waiting)
        full = waiting_rows + batch.num_rows > _GROUP_ROWS or self._waiting_bytes + batch.nbytes > _GROUP_BYTES
        if self._waiting and full:
            self._flush()
        self._waiting.append(batch)
        self._waiting_bytes += batch.nbytes

    def _flush(self) -> None:
        if self._waiting:
            rows = pa.Table.from_batches(self._waiting)
            self._writer.write_table(rows, row_group_size=rows.num_rows)
        self._waiting, self._waiting_bytes = [], 0

    def _geo(self, geometry: GeometryColumn) -> dict[str, Any]:
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": _geometry_types(self._kinds),
            "crs": _projjson(geometry.srid),
            "edges": "planar",
            "covering": {"bbox": {corner: [self._covering, corner] for corner in _CORNERS}},
        }
        if np.isfinite(self._box).all():
            column["bbox"] = self._box.tolist()
        return {"version": "1.1.0", "primary_column": geometry.name, "columns": {geometry.name: column}}


def _as_laid_out(batch: pa.RecordBatch, layout: TableDefinition, id_offset: int) -> pa.RecordBatch:
    schema = layout.chunk_schema
    if sorted(batch.schema.names) != sorted(schema.names):
        raise TableDataError(f"rows for {layout.name} have the columns {batch.schema.names}, not {schema.names}")
    columns = [batch.column(name) for name in schema.names]
    other = [field.name for field, column in zip(schema, columns, strict=True) if field.type != column.type]
    if other:
        raise TableDataError(f"rows for {layout.name} have another type in {', '.join(map(repr, other))}")
    if id_offset:
        columns[0] = pc.add(columns[0], pa.scalar(id_offset, pa.int64()))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _file_schema(layout: TableDefinition, covering: str) -> pa.Schema:
    fields: list[pa.Field[Any]] = [pa.field(ID_COLUMN, pa.int64(), nullable=False)]
    fields += [pa.field(column.name, column.arrow_type, metadata=_said_of(column)) for column in layout.columns]
    if layout.geometry is not None:
        fields.append(pa.field(layout.geometry.name, pa.binary()))
        corners = [pa.field(corner, pa.float32()) for corner in _CORNERS]
        fields.append(pa.field(covering, pa.struct(corners)))
    return pa.schema(fields)


def _said_of(column: Column) -> dict[bytes | str, bytes | str]:
    said: dict[bytes | str, bytes | str] = {"source_name": column.source_name, "type": column.type.value}
    return said if column.description is None else {**said, "description": column.description}


def _covering_name(layout: TableDefinition) -> str:
    """``bbox``, or what is free: readers fold case, and take dots for steps into a struct."""
    taken = [name.casefold() for name in layout.chunk_schema.names]
    name, number = "bbox", 1
    while any(one == name or one.startswith(f"{name}.") for one in taken):
        number += 1
        name = f"bbox_{number}"
    return name


def _with_statistics(layout: TableDefinition, covering: str) -> list[str]:
    """Of all columns but geometries and other bytes, which nobody compares."""
    names = [column.name for column in layout.columns if column.type is not ColumnType.BINARY]
    corners = [f"{covering}.{corner}" for corner in _CORNERS] if layout.geometry is not None else []
    return [ID_COLUMN, *names, *corners]


# --- geometries -------------------------------------------------------------------------------------------------


def _kinds(geometry: GeometryColumn, wkb: pa.BinaryArray, table: str) -> set[int]:
    """The type codes in a batch, which must be those of the column."""
    from geo_assets.vector.wkb import TYPE_NAMES, kinds_of  # noqa: PLC0415 - shapely, for tables with geometry

    kinds = kinds_of(wkb)
    found = set(np.unique(kinds).tolist())
    base, dimensions = TYPE_NAMES.index(geometry.type), _DIMENSIONS.index(geometry.dimensions)
    if 0 in found:
        found.discard(0)
        if np.count_nonzero(kinds == 0) > wkb.null_count:
            raise TableDataError(f"a value of {geometry.name} of {table} is no WKB")
    for kind in sorted(found):
        if kind // 1000 != dimensions or kind % 1000 >= len(TYPE_NAMES) or (base and kind % 1000 != base):
            wanted = f"{geometry.type} {geometry.dimensions}"
            raise TableDataError(f"a geometry for {table} is {_kind_name(kind)}; its {geometry.name} takes {wanted}")
    return found


def _kind_name(kind: int) -> str:
    from geo_assets.vector.wkb import TYPE_NAMES  # noqa: PLC0415

    base, dimensions = kind % 1000, kind // 1000
    if base >= len(TYPE_NAMES) or dimensions >= len(_DIMENSIONS):
        return f"of the WKB type {kind}"
    return f"{TYPE_NAMES[base]} {_DIMENSIONS[dimensions]}"


def _geometry_types(kinds: set[int]) -> list[str]:
    from geo_assets.vector.wkb import TYPE_NAMES  # noqa: PLC0415

    if any(kind // 1000 > 1 for kind in kinds):
        return []
    return sorted(TYPE_NAMES[kind % 1000] + (" Z" if kind // 1000 else "") for kind in kinds)


def _boxes(wkb: pa.BinaryArray) -> _Floats:
    """Left, bottom, right, top of every row (n, 4); NaN where there is none."""
    import shapely  # noqa: PLC0415

    from geo_assets.vector.wkb import points_of, to_shapely  # noqa: PLC0415

    points = points_of(wkb)
    if points is not None:
        return np.hstack([points, points])
    try:
        boxes: _Floats = shapely.bounds(to_shapely(wkb))
    except shapely.errors.GEOSException as error:
        raise TableDataError(f"a geometry cannot be read: {error}") from error
    return boxes


def _outward(boxes: _Floats) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        outer = boxes.astype(np.float32)
        low, high = outer[:, :2], outer[:, 2:]
        outer[:, :2] = np.where(low > boxes[:, :2], np.nextafter(low, np.float32(-np.inf)), low)
        outer[:, 2:] = np.where(high < boxes[:, 2:], np.nextafter(high, np.float32(np.inf)), high)
    return outer


@functools.lru_cache(maxsize=64)
def _projjson(srid: int) -> dict[str, Any] | None:
    import pyproj  # noqa: PLC0415

    return None if srid == 0 else cast("dict[str, Any]", pyproj.CRS.from_epsg(srid).to_json_dict())


def _hilbert(boxes: _Floats, around: Box) -> npt.NDArray[np.uint64]:
    """Place of each box's centre along a Hilbert curve through ``around``; the last where there is none."""
    low = np.array(around[:2])
    size = np.maximum(np.array(around[2:]) - low, np.finfo(float).tiny)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    nowhere = ~np.isfinite(centres).all(axis=1)
    centres[nowhere] = low
    most = (1 << _HILBERT_BITS) - 1
    cells = np.clip((centres - low) / size * most, 0, most).astype(np.uint32)
    x, y = cells[:, 0], cells[:, 1]
    place = np.zeros(len(x), np.uint64)
    for bit in range(_HILBERT_BITS - 1, -1, -1):
        side = np.uint32(1 << bit)
        right, upper = (x & side) > 0, (y & side) > 0
        quarter = np.where(upper, np.where(right, 2, 1), np.where(right, 3, 0)).astype(np.uint64)
        place += quarter << np.uint64(2 * bit)
        # turn the quarter so that the curve enters it where it left the one before
        flipped = ~upper & right
        x, y = np.where(flipped, most - x, x), np.where(flipped, most - y, y)
        x, y = np.where(upper, x, y).astype(np.uint32), np.where(upper, y, x).astype(np.uint32)
    return np.where(nowhere, np.uint64(2**63), place)
