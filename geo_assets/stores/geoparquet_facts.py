"""What is known of a GeoParquet table, whoever wrote its files.

What belongs here: columns, counts, boxes and footprint of Parquet files, and their rows as others wrote them.  What
does not: which files are a table (``geoparquet_folders``), parts as we write them (``geoparquet_parts``).
"""

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyproj
import shapely

from geo_assets.errors import ParameterError, TableDataError, VectorRefusedError
from geo_assets.stores.geoparquet_parts import covering_columns
from geo_assets.stores.tables import GeometryFacts, TableColumn, TableFacts
from geo_assets.vector.footprint import Box, FootprintBuilder
from geo_assets.vector.table import ID_COLUMN, ColumnType, TableDefinition
from geo_assets.vector.wkb import TYPE_NAMES, kinds_of

__all__ = ["Files", "describe_files", "read_files"]

_READ_ROWS: Final = 16_384
_PLANE: Final = 3035
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MICROSECOND: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_MICROSECOND: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def describe_files(
    paths: Sequence[Path],
    definition: TableDefinition | None,
    *,
    name: str,
    geometry_column: str | None,
    datetime_column: str | None,
    exact: bool,
) -> TableFacts:
    """Look at the files of a table.

    Args:
        paths: all of them.
        definition: where we made the table; else types are named as Arrow names them.
        name: of the table, for messages.
        geometry_column: which one, where there are several; default: the first.
        datetime_column: whose range is wanted.
        exact: look at every row, or take what the files say of themselves.

    Returns:
        Facts, in which schema, table, version, record and href are still to be filled in.

    Raises:
        ParameterError: no such geometry or date column.
        TableDataError: a file cannot be read as Parquet.
    """
    try:
        files = Files(paths)
        described = _chosen(files, geometry_column, name)
        geometry = _Found() if described is None else _geometry_of(files, described, exact=exact)
        return TableFacts(
            schema="",
            table=name,
            columns=_own_columns(definition) if definition is not None else _columns(files),
            geometries=_own_geometries(definition) if definition is not None else files.geometries,
            described=described,
            row_count=files.rows,
            exact=exact and geometry.complete,
            geometry_types=geometry.types,
            bbox=geometry.bbox,
            native_bbox=geometry.native_bbox,
            footprint=geometry.footprint,
            datetime_range=None if datetime_column is None else _range(files, datetime_column, name),
        )
    except (pa.ArrowInvalid, shapely.errors.GEOSException) as error:
        raise TableDataError(f"the files of {name} cannot be read: {error}") from error


def read_files(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """Stream the rows of files that others wrote, in their order, without covering columns."""
    files = Files(paths)
    yield from files.batches(files.attributes)


class Files:
    """Parquet files with the same columns."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths
        footers = [pq.read_metadata(path) for path in paths]
        self.rows = sum(footer.num_rows for footer in footers)
        self.geo: list[dict[str, Any]] = [json.loads((footer.metadata or {}).get(b"geo", b"{}")) for footer in footers]
        self.schema: pa.Schema = pq.read_schema(paths[0]) if paths else pa.schema([])
        first = self.geo[0] if self.geo else {}
        self.geometry_columns = [column for column in first.get("columns", {}) if column in self.schema.names]
        covering = covering_columns(first)
        self.attributes = [column for column in self.schema.names if column not in covering]

    def said(self, column: str) -> list[Mapping[str, Any]]:
        """What each file says of a geometry column."""
        return [geo.get("columns", {}).get(column, {}) for geo in self.geo]

    def batches(self, columns: list[str]) -> Generator[pa.RecordBatch]:
        """Stream columns."""
        for path in self._paths:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(_READ_ROWS, columns=columns)

    @property
    def geometries(self) -> tuple[GeometryFacts, ...]:
        """Every geometry column, as the files declare it."""
        return tuple(self._declared(column) for column in self.geometry_columns)

    def _declared(self, column: str) -> GeometryFacts:
        kinds = {kind for said in self.said(column) for kind in said.get("geometry_types", ())}
        bases = {kind.removesuffix(" Z") for kind in kinds}
        crs = _crs(self.said(column))
        return GeometryFacts(
            name=column,
            type=bases.pop() if len(bases) == 1 else "Geometry",
            srid=None if crs is None else _srid(crs),
            dimensions="XYZ" if any(kind.endswith(" Z") for kind in kinds) else "XY",
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What was found of one geometry column."""

    types: tuple[str, ...] = ()
    bbox: Box | None = None
    native_bbox: Box | None = None
    footprint: Mapping[str, Any] | None = None
    complete: bool = True
    """Every row was looked at, if that was wanted."""


def _chosen(files: Files, wanted: str | None, name: str) -> str | None:
    there = files.geometry_columns
    if wanted is not None and wanted not in there:
        raise ParameterError(
            f"{name} has no geometry column {wanted!r}; it has {', '.join(map(repr, there)) or 'none at all'}"
        )
    return wanted or (there[0] if there else None)


def _geometry_of(files: Files, column: str, *, exact: bool) -> _Found:
    said = files.said(column)
    crs = _crs(said)
    if exact and all(one.get("encoding") == "WKB" for one in said):
        return _by_rows(files, column, crs)
    boxes = np.array([[*box[:2], *box[len(box) // 2 :][:2]] for one in said if (box := one.get("bbox"))])
    kinds = {kind.removesuffix(" Z") for one in said for kind in one.get("geometry_types", ())}
    native = (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()) if len(boxes) else None
    found = None if native is None else _outlined(crs, native)
    return _Found(
        types=tuple(sorted(kinds)),
        bbox=None if found is None else found.bbox,
        native_bbox=native,
        footprint=None if found is None else found.footprint,
        complete=not exact,
    )


def _by_rows(files: Files, column: str, crs: pyproj.CRS | None) -> _Found:
    builder, located = _builder(crs)
    kinds: set[int] = set()
    with closing(files.batches([column])) as batches:
        for batch in batches:
            wkb = cast("pa.BinaryArray", batch.column(0).cast(pa.binary()))
            kinds.update(np.unique(kinds_of(wkb)).tolist())
            builder.add(wkb)
    return _Found(
        types=tuple(sorted({TYPE_NAMES[kind % 1000] for kind in kinds if kind})),
        bbox=builder.bbox if located else None,
        native_bbox=builder.native_bbox,
        footprint=builder.footprint if located else None,
    )


def _builder(crs: pyproj.CRS | None) -> tuple[FootprintBuilder, bool]:
    """What gathers boxes, and whether it can say where on Earth they lie: not without a CRS, or with that of Mars."""
    if crs is not None:
        with suppress(VectorRefusedError):
            return FootprintBuilder(crs), True
    # boxes in the table's own CRS need none; this one takes any numbers as they are
    return FootprintBuilder(pyproj.CRS.from_epsg(_PLANE)), False


def _outlined(crs: pyproj.CRS | None, box: Box) -> FootprintBuilder | None:
    builder, located = _builder(crs)
    left, bottom, right, top = box
    flat = left == right or bottom == top
    shape = shapely.LineString([(left, bottom), (right, top)]) if flat else shapely.box(*box)
    builder.add(pa.array([shapely.to_wkb(shape)], pa.binary()))
    return builder if located else None


def _crs(said: Sequence[Mapping[str, Any]]) -> pyproj.CRS | None:
    """What the first file says; a file that says nothing means longitude and latitude."""
    described = said[0].get("crs", "OGC:CRS84") if said else None
    return None if described is None else pyproj.CRS.from_user_input(described)


def _srid(crs: pyproj.CRS) -> int | None:
    if crs.to_authority() == ("OGC", "CRS84"):
        return 4326
    return crs.to_epsg()


# --- columns ----------------------------------------------------------------------------------------------------


def _own_columns(definition: TableDefinition) -> tuple[TableColumn, ...]:
    columns = [TableColumn(name=ID_COLUMN, type=ColumnType.BIGINT.value)]
    columns += [
        TableColumn(name=one.name, type=one.type.value, description=one.description) for one in definition.columns
    ]
    geometry = definition.geometry
    if geometry is not None:
        kind = f"geometry({geometry.type}{geometry.dimensions.removeprefix('XY')},{geometry.srid})"
        columns.append(TableColumn(name=geometry.name, type=kind))
    return tuple(columns)


def _own_geometries(definition: TableDefinition) -> tuple[GeometryFacts, ...]:
    geometry = definition.geometry
    if geometry is None:
        return ()
    return (GeometryFacts(name=geometry.name, type=geometry.type, srid=geometry.srid, dimensions=geometry.dimensions),)


def _columns(files: Files) -> tuple[TableColumn, ...]:
    return tuple(
        TableColumn(
            name=name, type="geometry" if name in files.geometry_columns else str(files.schema.field(name).type)
        )
        for name in files.attributes
    )


def _range(files: Files, column: str, name: str) -> tuple[str, str] | None:
    kind = files.schema.field(column).type if column in files.attributes else None
    if kind is None or not (pa.types.is_date(kind) or pa.types.is_timestamp(kind)):
        raise ParameterError(f"{name} has no column {column!r} of dates or timestamps")
    found: list[int] = []
    with closing(files.batches([column])) as batches:
        for batch in batches:
            # to whole days or microseconds first, whatever unit others wrote
            moments = batch.column(0).cast(pa.timestamp("us"), safe=False).cast(pa.int64())
            ends: dict[str, int | None] = cast("Any", pc.min_max(moments)).as_py()
            found += [value for value in (ends["min"], ends["max"]) if value is not None]
    return (_rfc3339(min(found)), _rfc3339(max(found))) if found else None


def _rfc3339(microseconds: int) -> str:
    """A moment; years that RFC 3339 cannot write become the nearest it can."""
    within = min(max(microseconds, _FIRST_MICROSECOND), _LAST_MICROSECOND)
    moment = _EPOCH + timedelta(microseconds=within)
    return moment.isoformat().replace("+00:00", "Z")
