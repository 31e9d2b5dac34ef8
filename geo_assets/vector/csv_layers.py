"""CSV files as layers: points of two columns, or geometries of one column of text.

What belongs here: reading CSV as Arrow batches, finding its delimiter, its header and its geometry.  What does not:
encodings (``text_files``), types of values (``text_values``), checks of geometries and coordinates (``geometry``).

The first row names the columns.  Where nobody says which columns hold the geometry, they are found by their usual
names.  Columns of coordinates stay attributes, as with OGR; a column of WKT or WKB becomes the geometry and does not.
Nothing unquoted is null; quoted nothing is empty text.  Every type comes from the text of all rows: a column becomes
text as soon as one value asks for it, and a note says which.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyproj
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import CRSError
from shapely.errors import GEOSException

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.layers import GEOMETRY, Layer, SchemaWidenedError, SourceField, bounded
from geo_assets.vector.text_files import TextFile, look_at
from geo_assets.vector.text_values import fit, infer, misfit, wider

__all__ = ["open_layers"]

pc: Any = pyarrow.compute  # whose stubs know fewer overloads than it has

_LEGACY = "CSV conversion requires either 'wkt_column' or both 'lat_name' and 'lon_name'"
_WKT_NAMES = ("wkt", "geom", "geometry", "the_geom", "wkb", "wkb_geometry", "wkt_geom")
_LAT_NAMES = ("lat", "latitude", "y")
_LON_NAMES = ("lon", "lng", "long", "longitude", "x")
_DELIMITERS = ",;\t|"
_SNIFFED_ROWS = 100
_SNIFFED_BYTES = 512 * 1024
_HEAD_ROWS = 100
_NAMED_ROWS = 5
_BLOCKS = (4 * 1024 * 1024, 32 * 1024 * 1024, 256 * 1024 * 1024)
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?$"
_HEX = r"^0[01][0-9A-Fa-f]+$"
_SHAPE = re.compile(r"\s*(SRID=\d+;\s*)?[A-Za-z]+\s*(Z|M|ZM)?\s*(\(|EMPTY)|0[01][0-9A-Fa-f]{8}", re.IGNORECASE)
_SRID = r"^\s*(?i:SRID)=(?P<srid>\d{1,9})\s*;\s*"
_POINT = np.dtype([("order", "u1"), ("type", "<u4"), ("x", "<f8"), ("y", "<f8")])
_LONGITUDES, _LATITUDES = 180.0, 90.0


def open_layers(
    path: Path,
    *,
    stem: str,
    wkt_column: str | None = None,
    lat_name: str | None = None,
    lon_name: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    types: "Mapping[str, pa.DataType] | None" = None,
) -> list[Layer]:
    """Open a CSV file; it is one layer.

    Args:
        path: the file.
        stem: name of the layer.
        wkt_column: column of WKT, EWKT or hexadecimal WKB; wins over the next two.
        lat_name: column of latitudes, degrees.
        lon_name: column of longitudes, degrees.
        delimiter: one character; ``None``: found, of comma, semicolon, tab and bar.
        encoding: as Python names it; ``None``: found.
        types: wider types that a :class:`SchemaWidenedError` asked for.

    Raises:
        VectorRefusedError: the file is empty, a column named is not there, or nothing names a geometry.
        VectorUnreadableError: the first rows are damaged.
    """
    text = look_at(path, encoding=encoding)
    table = _Table(text=text, delimiter=_delimiter(text, delimiter), name=stem)
    first = next(table.blocks(), None)
    if first is None:
        nothing: pa.StringArray = pa.array([], pa.string())
        first = pa.RecordBatch.from_arrays([nothing] * len(table.header), table.names)
    columns, notes = _geometry_columns(table, first, wkt_column, lat_name, lon_name)
    comma = table.delimiter != "," and _has_decimal_commas(first)
    geometry: _Geometry
    if len(columns) == 1:
        geometry = _Shapes(columns[0], first.column(columns[0]))
    else:
        geometry = _Points(columns[0], columns[1], comma=comma, degrees=_says_degrees(table, columns), first=first)
    attributes = [at for at in range(len(table.header)) if len(columns) > 1 or at not in columns]
    reader = _CsvLayer(
        table=table,
        geometry=geometry,
        columns=[_Attribute.of(at, table.header[at], first.column(at), types or {}, comma=comma) for at in attributes],
        comma=comma,
        opening_notes=(*text.notes, *notes, *(["Numbers have a decimal comma"] if comma else [])),
    )
    return [reader]


# --- rows of text ----------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Table:
    """The rows of a CSV file, as text."""

    text: TextFile
    delimiter: str
    name: str
    header: list[str] = field(init=False)

    def __post_init__(self) -> None:
        row = next(_rows(self.text, self.delimiter), None)
        if not row:
            raise VectorRefusedError(f"{self.text.path.name} has no row that could name columns", code="EMPTY_FILE")
        self.header = row

    @property
    def names(self) -> list[str]:
        """Names that do not repeat, for Arrow."""
        return [str(at) for at in range(len(self.header))]

    def blocks(self) -> "Iterator[pa.RecordBatch]":
        """Stream the rows under the header, every value as text."""
        done = 0
        for size in _BLOCKS:
            skip = done
            try:
                for block in self._stream(size):
                    if skip >= block.num_rows:
                        skip -= block.num_rows
                        continue
                    yield block.slice(skip)
                    done += block.num_rows - skip
                    skip = 0
            except pa.ArrowInvalid as error:
                if "straddling" in str(error):
                    continue
                raise VectorUnreadableError(f"{self.text.path.name} after row {done:,}: {error}") from error
            return
        raise VectorUnreadableError(
            f"Row {done + 1:,} of {self.text.path.name} is longer than {_BLOCKS[-1] >> 20} MB; a quote may be missing"
        )

    def _stream(self, size: int) -> "Iterator[pa.RecordBatch]":
        ragged: list[Any] = []

        def refuse(row: Any) -> Literal["error"]:
            ragged.append(row)
            return "error"

        with self.text.open() as stream:
            try:
                source: Any = pa.PythonFile(stream, mode="r")
                reader = pyarrow.csv.open_csv(
                    source,
                    read_options=pyarrow.csv.ReadOptions(
                        use_threads=False, block_size=size, column_names=self.names, skip_rows_after_names=1
                    ),
                    parse_options=pyarrow.csv.ParseOptions(
                        delimiter=self.delimiter,
                        newlines_in_values=True,
                        invalid_row_handler=refuse,
                    ),
                    convert_options=pyarrow.csv.ConvertOptions(
                        check_utf8=False,  # the stream does
                        column_types=dict.fromkeys(self.names, pa.string()),
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                    ),
                )
                yield from (block for block in reader if block.num_rows)
            except pa.ArrowInvalid as error:
                if "Empty CSV file" in str(error):
                    return
                if not ragged:
                    raise
                row = ragged[0]
                raise VectorUnreadableError(
                    f"{_place(row)} of {self.text.path.name} has {row.actual_columns} values, where the header names "
                    f"{row.expected_columns} columns; quote values that have a {self.delimiter!r} in them"
                ) from error


def _place(row: Any) -> str:
    return "A row" if row.number is None else f"Row {row.number - 1:,}"


def _rows(text: TextFile, delimiter: str) -> Iterator[list[str]]:
    """Read the rows of the sample; the last may be cut."""
    try:
        sample = text.sample[:_SNIFFED_BYTES].decode(errors="ignore")
        yield from csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    except csv.Error:  # a field longer than Python's reader takes; Arrow's takes it
        return


def _delimiter(text: TextFile, given: str | None) -> str:
    if given is not None:
        given = {"\\t": "\t", "tab": "\t"}.get(given, given)
        if len(given) != 1 or not given.isascii() or given in '"\r\n\0':
            raise VectorRefusedError(f"'delimiter' must be one character, not {given!r}", code="DELIMITER")
        return given
    return max(_DELIMITERS, key=lambda candidate: _agreement(text, candidate))


def _agreement(text: TextFile, delimiter: str) -> tuple[float, int]:
    """How many of the first rows have as many fields as the header, and how many these are."""
    rows = [len(row) for row in islice(_rows(text, delimiter), _SNIFFED_ROWS) if row]
    if len(text.sample) > _SNIFFED_BYTES:
        rows = rows[: max(len(rows) - 1, 1)]
    if not rows or rows[0] == 1:
        return (0.0, 1)
    return (rows.count(rows[0]) / len(rows), rows[0])


# --- attributes ------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Attribute:
    """One column that is an attribute, and what is known of its type."""

    at: int
    name: str
    kind: pa.DataType
    narrow: "pa.DataType | None"
    """What its first values are, as long as it is not known which value makes it text."""
    note: str | None = None

    @classmethod
    def of(cls, at: int, name: str, values: Any, types: "Mapping[str, pa.DataType]", *, comma: bool) -> "_Attribute":
        """Tell the type of a column from its first block, and from what later ones asked for."""
        kind = wider(infer(values, comma=comma), types.get(name, pa.null()))
        head = values.drop_null().slice(0, _HEAD_ROWS)
        narrow = infer(head.slice(0, max(len(head) // 2, 1)), comma=comma) if pa.types.is_string(kind) else None
        known = narrow is not None and not pa.types.is_string(narrow) and not pa.types.is_null(narrow)
        return cls(at=at, name=name, kind=kind, narrow=narrow if known else None)

    @property
    def type(self) -> pa.DataType:
        """As it is delivered; a column without a value is text."""
        return pa.string() if pa.types.is_null(self.kind) else self.kind

    def read(self, values: Any, row: int, *, comma: bool) -> "pa.Array[Any] | None":
        """Read one block of values; ``None`` if one does not fit."""
        if self.narrow is not None and fit(values, self.narrow, comma=comma) is None:
            at = misfit(values, self.narrow, comma=comma)
            self.note = (
                f"Column {self.name!r} is text: it begins as {self.narrow}, and row {row + at + 1:,} is "
                f"{values[at].as_py()[:40]!r}"
            )
            self.narrow = None
        found = fit(values, self.kind, comma=comma)
        return None if found is None else found.cast(self.type)

    def widen(self, values: Any, *, comma: bool) -> bool:
        """Take a type that takes these values as well; says whether it had to change."""
        if fit(values, self.kind, comma=comma) is not None:
            return False
        self.kind = wider(self.kind, infer(values, comma=comma))
        if fit(values, self.kind, comma=comma) is None:
            self.kind = pa.string()
        return True


def _has_decimal_commas(block: pa.RecordBatch) -> bool:
    """Whether a column is of numbers with a decimal comma, which is not one for thousands."""
    for column in block.columns:
        values = pc.utf8_trim_whitespace(pc.drop_null(column))
        commas = values.filter(pc.match_substring(values, ","))
        if (
            len(commas)
            and pc.all(pc.match_substring_regex(values, r"^-?\d*(,\d+)?$")).as_py()
            and not pc.all(pc.match_substring_regex(commas, r"^-?\d{1,3},\d{3}$")).as_py()
        ):
            return True
    return False


# --- geometry --------------------------------------------------------------------------------------------------


@dataclass
class _Lost:
    """Rows without a usable geometry."""

    what: str
    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, lost: NDArray[np.bool_], row: int) -> None:
        """Count the rows of a block, the first of which has this number, less one."""
        rows = np.flatnonzero(lost)
        self.count += len(rows)
        wanted = max(_NAMED_ROWS - len(self.first), 0)
        self.first += (rows[:wanted] + row + 1).tolist()

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say."""
        if not self.count:
            return ()
        more = ", …" if self.count > len(self.first) else ""
        rows = f"row{'s' if self.count > 1 else ''} {', '.join(f'{row:,}' for row in self.first)}{more}"
        return (f"{self.count:,} without a geometry, as {self.what} ({rows})",)


class _Geometry(Protocol):
    @property
    def crs(self) -> pyproj.CRS | None: ...

    @property
    def crs_is_assumed(self) -> bool: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    def read(self, block: pa.RecordBatch, row: int) -> pa.BinaryArray:
        """Make WKB of a block, the first row of which has this number, less one."""
        ...


class _Points:
    """Points of two columns."""

    def __init__(self, lat: int, lon: int, *, comma: bool, degrees: bool, first: pa.RecordBatch) -> None:
        self._columns = (lon, lat)
        self._comma = comma
        self._empty = _Lost("a coordinate is empty")
        self._bad = _Lost("a coordinate is no number")
        x, y = (self._numbers(first.column(at)) for at in self._columns)
        self._degrees = degrees or _within_degrees(x, y)

    @property
    def crs(self) -> pyproj.CRS | None:
        """WGS 84, unless columns named x and y hold something else than degrees."""
        return pyproj.CRS.from_epsg(4326) if self._degrees else None

    @property
    def crs_is_assumed(self) -> bool:
        """Always: names of columns tell what is meant, not in which CRS."""
        return True

    @property
    def notes(self) -> tuple[str, ...]:
        """Rows without a point."""
        return (*self._empty.notes, *self._bad.notes)

    def read(self, block: pa.RecordBatch, row: int) -> pa.BinaryArray:
        """Make points, null where a coordinate is none."""
        x, y = (self._numbers(block.column(at)) for at in self._columns)
        usable = np.isfinite(x) & np.isfinite(y)
        if not usable.all():
            empty = np.logical_or(*(_is_blank(block.column(at)) for at in self._columns))
            self._empty.add(empty, row)
            self._bad.add(~usable & ~empty, row)
        return _points(x, y, usable)

    def _numbers(self, values: Any) -> NDArray[np.float64]:
        """Coordinates, NaN where the text is none."""
        if self._comma:
            values = pc.replace_substring(values, ",", ".")
        try:
            numbers = values.cast(pa.float64())
        except pa.ArrowInvalid:
            values = pc.utf8_trim_whitespace(values)
            usable = pc.match_substring_regex(values, _NUMBER)
            values = pc.replace_substring_regex(values, r"^\+", "")
            numbers = pc.if_else(usable, values, pa.scalar(None, pa.string())).cast(pa.float64())
        return np.asarray(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


class _Shapes:
    """Geometries of one column of WKT, EWKT or hexadecimal WKB."""

    def __init__(self, column: int, first: Any) -> None:
        self._column = column
        self._empty = _Lost("its text is empty")
        self._bad = _Lost("its text is neither WKT nor hexadecimal WKB")
        self._crs: pyproj.CRS | None = None
        self._srid = 0
        self._note: tuple[str, ...] = ()
        shapes, srids = self._shapes(first)
        if len(srids):
            self._srid = int(srids[0])
            self._crs, self._note = _crs_of(self._srid)
        elif _within_degrees(*self._coordinates(shapes).T):
            self._crs = pyproj.CRS.from_epsg(4326)
            self._note = ("Nothing says the CRS of the geometries; their first coordinates are degrees: EPSG:4326",)

    @property
    def crs(self) -> pyproj.CRS | None:
        """What the text says; else WGS 84 if the first coordinates are degrees."""
        return self._crs

    @property
    def crs_is_assumed(self) -> bool:
        """Unless the text has SRIDs."""
        return not self._srid

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the CRS is from, and rows without a geometry."""
        return (*self._note, *self._empty.notes, *self._bad.notes)

    def read(self, block: pa.RecordBatch, row: int) -> pa.BinaryArray:
        """Make WKB, null where the text is none."""
        values: Any = block.column(self._column)
        shapes, srids = self._shapes(values)
        if (srids != self._srid).any():
            raise VectorRefusedError(
                f"Geometries of different CRS in one column: SRID {self._srid} and {srids[srids != self._srid][0]} "
                f"(after row {row:,}); load them from a file each",
                code="MIXED_CRS",
            )
        missing = shapely.is_missing(shapes)
        if missing.any():
            empty = _is_blank(values)
            self._empty.add(empty, row)
            self._bad.add(missing & ~empty, row)
        return pa.array(shapely.to_wkb(shapes, flavor="iso", byte_order=1), pa.binary())

    def _coordinates(self, shapes: NDArray[Any]) -> Any:
        try:
            return shapely.get_coordinates(shapes)
        except GEOSException as error:  # curves in collections, which GEOS reads and then can do nothing with
            raise self._curves() from error

    def _curves(self) -> VectorRefusedError:
        return VectorRefusedError(
            f"column {self._column + 1} has curved geometry, which tables do not take: convert the file first, for"
            " instance with ogr2ogr -nlt CONVERT_TO_LINEAR",
            code="CURVES",
        )

    def _shapes(self, values: Any) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The geometries, ``None`` where the text is none, and all SRIDs they name."""
        hexadecimal = pc.fill_null(pc.match_substring_regex(values, _HEX), False)  # noqa: FBT003
        srids: list[Any] = [pc.struct_field(pc.extract_regex(values, _SRID), 0).drop_null().unique().cast(pa.int64())]
        if len(srids[0]):
            values = pc.replace_substring_regex(values, _SRID, "")
        shapes: NDArray[Any] = np.full(len(values), None, dtype=object)
        of_hex = np.asarray(hexadecimal.to_numpy(zero_copy_only=False), dtype=bool)
        words = values.to_numpy(zero_copy_only=False)
        try:
            shapes[~of_hex] = shapely.from_wkt(words[~of_hex], on_invalid="ignore")
            shapes[of_hex] = shapely.from_wkb(words[of_hex], on_invalid="ignore")
        except NotImplementedError as error:
            raise self._curves() from error
        if of_hex.any():
            found = np.unique(shapely.get_srid(shapes[of_hex]))
            srids.append(pa.array(found[found > 0], pa.int64()))
        return shapes, np.concatenate([one.to_numpy(zero_copy_only=False) for one in srids]).astype(np.int64)


def _points(x: NDArray[np.float64], y: NDArray[np.float64], usable: NDArray[np.bool_]) -> pa.BinaryArray:
    whole = bool(usable.all())
    records = np.empty(len(x) if whole else int(usable.sum()), _POINT)
    records["order"] = 1
    records["type"] = 1
    records["x"] = x if whole else x[usable]
    records["y"] = y if whole else y[usable]
    offsets = np.zeros(len(x) + 1, np.int32)
    np.cumsum(usable * np.int32(_POINT.itemsize), out=offsets[1:], dtype=np.int32)
    bits = None if whole else pa.py_buffer(np.packbits(usable, bitorder="little"))
    made: Any = pa.Array.from_buffers(pa.binary(), len(x), [bits, pa.py_buffer(offsets), pa.py_buffer(records)])
    points: pa.BinaryArray = made
    return points


def _is_blank(values: Any) -> NDArray[np.bool_]:
    blank = pc.fill_null(pc.match_substring_regex(values, r"^\s*$"), True)  # noqa: FBT003
    return np.asarray(blank.to_numpy(zero_copy_only=False), dtype=bool)


def _within_degrees(x: NDArray[np.float64], y: NDArray[np.float64]) -> bool:
    """Whether there are coordinates, and all may be degrees."""
    usable = np.isfinite(x) & np.isfinite(y)
    return bool(usable.any() and (np.abs(x[usable]) <= _LONGITUDES).all() and (np.abs(y[usable]) <= _LATITUDES).all())


def _crs_of(srid: int) -> tuple[pyproj.CRS | None, tuple[str, ...]]:
    try:
        return pyproj.CRS.from_epsg(srid), (f"The CRS is that of the geometries' SRID, {srid}",)
    except CRSError:
        return None, (f"The geometries' SRID, {srid}, is no EPSG code",)


# --- which columns ---------------------------------------------------------------------------------------------


def _geometry_columns(
    table: _Table, first: pa.RecordBatch, wkt: str | None, lat: str | None, lon: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """Tell the column of the geometry, or those of latitude and longitude, and what to say of that."""
    if wkt is not None:
        return (_named(table, wkt, "wkt_column"),), []
    if lat is not None and lon is not None:
        return (_named(table, lat, "lat_name"), _named(table, lon, "lon_name")), []
    if lat is not None or lon is not None:
        raise VectorRefusedError(f"{_LEGACY}; only one of the latter was given", code="GEOMETRY_COLUMNS")
    for at in _found(table.header, _WKT_NAMES):
        values = pc.drop_null(first.column(at)).slice(0, 1).to_pylist()
        if values and _SHAPE.match(values[0]):
            return (at,), [f"The geometry was found in column {table.header[at]!r}"]
    lats, lons = _found(table.header, _LAT_NAMES), _found(table.header, _LON_NAMES)
    if lats and lons:
        found = f"Points were found in columns {table.header[lats[0]]!r} (latitude) and {table.header[lons[0]]!r}"
        return (lats[0], lons[0]), [found]
    raise VectorRefusedError(
        f"{_LEGACY}; {table.text.path.name} has no columns of the usual names. {_has(table)}", code="GEOMETRY_COLUMNS"
    )


def _has(table: _Table) -> str:
    shown = ", ".join(repr(name[:63]) for name in table.header[:20])
    return f"Its columns are {shown}{', …' if len(table.header) > 20 else ''}"  # noqa: PLR2004


def _named(table: _Table, name: str, parameter: str) -> int:
    if name in table.header:
        return table.header.index(name)
    alike = [at for at, one in enumerate(table.header) if one.strip().casefold() == name.strip().casefold()]
    if len(alike) == 1:
        return alike[0]
    raise VectorRefusedError(
        f"{table.text.path.name} has no column {name!r}, which {parameter!r} names. {_has(table)}",
        code="GEOMETRY_COLUMNS",
    )


def _found(header: Sequence[str], names: Sequence[str]) -> list[int]:
    """Columns of these names, in the order of the names."""
    plain = [one.strip().casefold() for one in header]
    return [plain.index(name) for name in names if name in plain]


def _says_degrees(table: _Table, columns: Sequence[int]) -> bool:
    """Whether the names of the columns say latitude and longitude, not just x and y."""
    return not {table.header[at].strip().casefold() for at in columns} & {"x", "y"}


# --- the layer -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _CsvLayer:
    table: _Table
    geometry: _Geometry
    columns: list[_Attribute]
    comma: bool
    opening_notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's stem."""
        return self.table.name

    @property
    def fields(self) -> tuple[SourceField, ...]:
        """The columns, but for one of WKT or WKB."""
        return tuple(SourceField(name=one.name, type=one.type) for one in self.columns)

    @property
    def has_geometry(self) -> bool:
        """Always."""
        return True

    @property
    def crs(self) -> pyproj.CRS | None:
        """What the geometry's columns tell."""
        return self.geometry.crs

    @property
    def crs_is_assumed(self) -> bool:
        """Whether these only suggest it."""
        return self.geometry.crs_is_assumed

    @property
    def feature_count(self) -> int | None:
        """CSV does not say."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed and found, as far as was read."""
        return (*self.opening_notes, *(one.note for one in self.columns if one.note), *self.geometry.notes)

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Stream the rows; see :class:`Layer`."""
        row = 0
        names = [*(one.name for one in self.columns), GEOMETRY]
        blocks = self.table.blocks()
        for block in blocks:
            read = [one.read(block.column(one.at), row, comma=self.comma) for one in self.columns]
            columns = [column for column in read if column is not None]
            if len(columns) < len(read):
                raise self._widened(chain([block], blocks))
            columns.append(self.geometry.read(block, row))
            row += block.num_rows
            yield from bounded(pa.RecordBatch.from_arrays(columns, names=names))

    def _widened(self, blocks: "Iterator[pa.RecordBatch]") -> SchemaWidenedError:
        """Read all that is left for its types, so that one new start is enough."""
        changed: dict[int, _Attribute] = {}
        for block in blocks:
            for one in self.columns:
                if one.widen(block.column(one.at), comma=self.comma):
                    changed[one.at] = one
        types: dict[str, pa.DataType] = {}
        for one in changed.values():
            types[one.name] = wider(one.kind, types.get(one.name, pa.null()))
        shown = ", ".join(f"{name!r}: {kind}" for name, kind in types.items())
        return SchemaWidenedError(types, f"Later rows of {self.table.text.path.name} ask for {shown}")
