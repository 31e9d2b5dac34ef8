"""Names and types of columns and tables, made fit for a database, and values made fit for their columns.

What belongs here: the one sanitiser of identifiers, which type of column takes an attribute, the casts of a batch, and
a few rows as people read them.  What does not: SQL (``stores``), finding out types from text (the readers), geometry.

Names are made for PostgreSQL, the strictest of our stores: at most 63 bytes, lower case, no word that would need
quotes.  Values, too: PostgreSQL holds no NUL character, no invalid UTF-8, no NaN in JSON and no year 300,000.  Whatever
has to be changed is counted, never silent.
"""

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute
import shapely

from geo_assets.errors import ParameterError, VectorRefusedError
from geo_assets.vector.layers import SourceField
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType
from geo_assets.vector.wkb import TYPE_NAMES, kinds_of

__all__ = [
    "MOST_BYTES",
    "RESERVED",
    "Report",
    "RowSample",
    "check_table_name",
    "column_type",
    "name_columns",
    "table_columns",
    "table_name_for",
    "table_name_of",
]

MOST_BYTES: Final = 63
"""Longest identifier of PostgreSQL, bytes of UTF-8."""

RESERVED: Final = frozenset(
    # both reserved classes of PostgreSQL 15 to 17
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true union
    unique user using variadic verbose when where window with
    """.split()  # noqa: SIM905 - a quarter as long
) | {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}  # columns that every table has
"""Words that no column is called without quotes."""

type Report = dict[str, dict[str, int]]
"""What was changed → column → values."""

pc: Final[Any] = pyarrow.compute
"""Without its stubs, which know no plain numbers and texts as operands."""

_NEVER_LOOKED_AT = 1000
"""Characters of a name beyond which nothing would be left of it anyway."""
_DIGEST = 8
_EXACT_WHOLE = 2**53
"""Beyond, JavaScript shows another number."""
_BEFORE_WORD, _BEFORE_DIGIT, _BEFORE_TABLE = "f_", "col_", "t_"


# --- names -----------------------------------------------------------------------------------------------------


def name_columns(fields: Sequence[SourceField], *, geometry_column: str | None) -> tuple[Column, ...]:
    """Name and type the columns for the attributes of a layer, in order.

    Names are NFC and lower case; whatever is no letter or digit becomes ``_``; a leading digit gets ``col_`` and a
    reserved word ``f_`` before it; an empty name becomes ``column_<position>``; what clashes is numbered ``_2``,
    ``_3``. Of equal names the first keeps its own.

    Args:
        fields: the attributes.
        geometry_column: name that the geometry will have; ``None``: there is none.

    Raises:
        VectorRefusedError: no column takes an attribute's type.
    """
    taken = {ID_COLUMN} if geometry_column is None else {ID_COLUMN, geometry_column}
    wanted = [_sanitised(field.name) or f"column_{position}" for position, field in enumerate(fields, 1)]
    names: dict[int, str] = {}
    for position, name in enumerate(wanted):
        if name not in taken:
            taken.add(name)
            names[position] = name
    numbers: dict[str, int] = {}
    for position, name in enumerate(wanted):
        if position not in names:
            names[position] = _numbered(name, taken, numbers)
    return tuple(_column(names[position], field) for position, field in enumerate(fields))


def check_table_name(value: str) -> str:
    """A table's name as it will be: lower case.

    Raises:
        ParameterError: it does not begin with a letter, holds anything but letters, digits and underscores, is longer
            than 63 bytes, or is a reserved word.
    """
    name = unicodedata.normalize("NFC", value.strip()).lower()
    if not name:
        raise ParameterError("table_name is empty: give the table a name")
    if not name[0].isalpha():
        raise ParameterError(f"table_name must start with a letter, not {value[:80]!r}")
    if not all(character.isalnum() or character == "_" for character in name):
        raise ParameterError(f"table_name may only hold letters, digits and underscores, not {value[:80]!r}")
    if len(name.encode()) > MOST_BYTES:
        raise ParameterError(
            f"table_name has {len(name.encode())} bytes, more than the {MOST_BYTES} of a database: shorten it"
        )
    if name in RESERVED:
        raise ParameterError(f"table_name '{name}' is a reserved word of SQL: take another")
    return name


def table_name_for(base: str, suffix: str) -> str:
    """The table of one layer of several: the base name, ``_``, and the layer's name made fit, within 63 bytes.

    What has to be cut ends in a digest of the whole, so that long names with one beginning stay apart.

    Args:
        base: a name :func:`check_table_name` gave.
        suffix: the layer's name as its file has it.
    """
    cleaned = _cleaned(suffix)
    name = f"{base}_{cleaned}" if cleaned else base
    if len(name.encode()) <= MOST_BYTES:
        return f"{_BEFORE_WORD}{name}" if name in RESERVED else name
    digest = hashlib.sha256(f"{base}\0{suffix}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{_cut(name, MOST_BYTES - _DIGEST - 1)}_{digest}"


def table_name_of(text: str) -> str:
    """A table's name made of any text, such as a file's name: what :func:`check_table_name` takes as it is.

    A leading digit and a reserved word get ``t_`` before them, what has to be cut ends in a digest of the whole.

    Raises:
        ParameterError: the text has no letter and no digit.
    """
    cleaned = _cleaned(text)
    if not cleaned:
        raise ParameterError(f"no table can be called after {text[:80]!r}: it has no letter and no digit")
    if not cleaned[0].isalpha() or cleaned in RESERVED:
        cleaned = f"{_BEFORE_TABLE}{cleaned}"
    if len(text) <= _NEVER_LOOKED_AT and len(cleaned.encode()) <= MOST_BYTES:
        return cleaned
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{_cut(cleaned, MOST_BYTES - _DIGEST - 1)}_{digest}"


def _sanitised(name: str) -> str:
    cleaned = _cleaned(name)
    if cleaned[:1].isdecimal():
        cleaned = f"{_BEFORE_DIGIT}{cleaned}"
    elif cleaned in RESERVED:
        cleaned = f"{_BEFORE_WORD}{cleaned}"
    return _cut(cleaned, MOST_BYTES)


def _cleaned(name: str) -> str:
    """Letters, digits and single underscores within; may be empty."""
    lowered = name[:_NEVER_LOOKED_AT]
    for _ in range(3):  # a few letters change once more
        lowered = unicodedata.normalize("NFC", unicodedata.normalize("NFC", lowered).lower())
    kept = "".join(character if _is_word(character) else "_" for character in lowered)
    return re.sub("_+", "_", kept).strip("_")


def _is_word(character: str) -> bool:
    return character.isdecimal() or unicodedata.category(character)[0] == "L"


def _cut(name: str, most: int) -> str:
    return name.encode()[:most].decode(errors="ignore").rstrip("_")


def _numbered(name: str, taken: set[str], numbers: dict[str, int]) -> str:
    number = numbers.get(name, 2)
    while (candidate := f"{_cut(name, MOST_BYTES - len(f'_{number}'))}_{number}") in taken:
        number += 1
    taken.add(candidate)
    numbers[name] = number + 1
    return candidate


def _column(name: str, field: SourceField) -> Column:
    kind, scale = column_type(field)
    return Column(name=name, type=kind, source_name=field.name, scale=scale, description=field.description)


# --- types -----------------------------------------------------------------------------------------------------

_SIMPLE: "Final[dict[pa.DataType, ColumnType]]" = {
    pa.null(): ColumnType.TEXT,
    pa.bool_(): ColumnType.BOOLEAN,
    pa.int8(): ColumnType.SMALLINT,
    pa.int16(): ColumnType.SMALLINT,
    pa.uint8(): ColumnType.SMALLINT,
    pa.int32(): ColumnType.INTEGER,
    pa.uint16(): ColumnType.INTEGER,
    pa.int64(): ColumnType.BIGINT,
    pa.uint32(): ColumnType.BIGINT,
    pa.uint64(): ColumnType.NUMERIC,
    pa.float16(): ColumnType.REAL,
    pa.float32(): ColumnType.REAL,
    pa.float64(): ColumnType.DOUBLE,
    pa.date32(): ColumnType.DATE,
    pa.date64(): ColumnType.DATE,
    pa.string(): ColumnType.TEXT,
    pa.large_string(): ColumnType.TEXT,
    pa.string_view(): ColumnType.TEXT,
    pa.binary(): ColumnType.BINARY,
    pa.large_binary(): ColumnType.BINARY,
    pa.binary_view(): ColumnType.BINARY,
}
_DIGITS = 38


def column_type(field: SourceField) -> tuple[ColumnType, int]:
    """Which column takes an attribute, and the digits after the point of a ``NUMERIC`` one.

    Raises:
        VectorRefusedError: ``COLUMN_TYPE``: none does, such as lists and durations; readers turn those to JSON or text.
    """
    kind: Any = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_decimal(kind):
        scale = max(kind.scale, 0)
        if kind.precision - kind.scale + scale > _DIGITS:
            raise VectorRefusedError(
                f"attribute '{field.name[:80]}' is {kind}: decimals have at most {_DIGITS} digits", code="COLUMN_TYPE"
            )
        return ColumnType.NUMERIC, scale
    found = _SIMPLE.get(kind) or _of_family(kind)
    if found is None:
        raise VectorRefusedError(
            f"attribute '{field.name[:80]}' is {str(kind)[:80]}, which no column takes: leave it out or write it as"
            " text",
            code="COLUMN_TYPE",
        )
    return (ColumnType.JSON if field.json and found is ColumnType.TEXT else found), 0


def _of_family(kind: Any) -> ColumnType | None:
    if pa.types.is_timestamp(kind):
        return ColumnType.TIMESTAMP if kind.tz is None else ColumnType.TIMESTAMPTZ
    if pa.types.is_time(kind):
        return ColumnType.TIME
    return ColumnType.BINARY if pa.types.is_fixed_size_binary(kind) else None


# --- values ----------------------------------------------------------------------------------------------------


def table_columns(batch: pa.RecordBatch, columns: Sequence[Column], report: Report) -> "list[pa.Array[Any]]":
    """The attributes of a batch as their columns hold them.

    Args:
        batch: attributes first, by position; what follows (the geometry) is not looked at.
        columns: of :func:`name_columns` for these attributes.
        report: counts of changed values are added to it, by column: ``nul_removed`` and ``text_repaired`` (bytes that
            were no UTF-8), ``json_repaired`` (NaN and infinity become null, NUL and lone surrogates go) and
            ``json_quoted`` (text that is no JSON becomes a JSON string), ``out_of_range`` (times that no database holds
            become null) and ``nanoseconds_cut``.

    Returns:
        Arrays of ``column.arrow_type``; those that need nothing are the batch's own.

    Raises:
        VectorRefusedError: ``COLUMN_TYPE``: a value does not fit, which only a reader that breaks its promise can make.
    """
    result: list[Any] = []
    for position, column in enumerate(columns):

        def count(what: str, values: int, name: str = column.name) -> None:
            if values:
                counts = report.setdefault(what, {})
                counts[name] = counts.get(name, 0) + values

        try:
            result.append(_fitted(batch.column(position), column, count))
        except pa.ArrowException as error:
            raise VectorRefusedError(
                f"a value of attribute '{column.source_name[:80]}' does not fit {column.type.value}:"
                f" {str(error)[:200]}",
                code="COLUMN_TYPE",
            ) from error
    return result


type _Count = Callable[[str, int], None]


def _fitted(array: Any, column: Column, count: _Count) -> Any:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = column.type
    if kind in (ColumnType.TEXT, ColumnType.JSON):
        text = _text(_valid_text(array, count), count)
        return _json(text, count) if kind is ColumnType.JSON else text
    if kind in _EARLIEST and pa.types.is_temporal(array.type):
        array = _within(array, kind, count)
    return array if array.type == column.arrow_type else array.cast(column.arrow_type)


# --- times


_DAY: Final = 86_400_000_000
_JULIAN_EPOCH: Final = -2_440_588
"""Day 0 of PostgreSQL's calendar, 4714-11-24 BC, counted from 1970."""
_EARLIEST: Final = {
    ColumnType.DATE: _JULIAN_EPOCH,
    ColumnType.TIMESTAMP: _JULIAN_EPOCH * _DAY,
    ColumnType.TIMESTAMPTZ: _JULIAN_EPOCH * _DAY,
    ColumnType.TIME: 0,
}
_LATEST: Final = {
    ColumnType.DATE: 2_145_042_905,  # 5874897-12-31
    ColumnType.TIMESTAMP: 2**63 - 1,  # 29 years before PostgreSQL's last, but all that Arrow can say
    ColumnType.TIMESTAMPTZ: 2**63 - 1,
    ColumnType.TIME: _DAY,
}
_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1000, "us": 1}


def _within(array: Any, kind: ColumnType, count: _Count) -> Any:
    """Times in microseconds and dates in days, those out of range null."""
    if pa.types.is_date32(array.type):
        unit, whole = 1, array.view(pa.int32())
    elif pa.types.is_date64(array.type):
        array = array.cast(pa.timestamp("ms"))
        unit, whole = 1, pc.floor(pc.divide(array.view(pa.int64()).cast(pa.float64(), safe=False), 86_400_000.0))
        array = whole.cast(pa.int32(), safe=False).view(pa.date32())
    else:
        array = _microseconds_or_coarser(array, count)
        unit = _MICROSECONDS[array.type.unit]
        whole = array.view(pa.int32() if pa.types.is_time32(array.type) else pa.int64())
    if len(whole) == whole.null_count:
        return array
    ends = pc.min_max(whole).as_py()
    first, last = -(-_EARLIEST[kind] // unit), _LATEST[kind] // unit
    if first <= ends["min"] and ends["max"] <= last:
        return array
    fits = pc.and_(pc.greater_equal(whole, first), pc.less_equal(whole, last))
    count("out_of_range", _true(pc.invert(fits)))
    return pc.if_else(fits, array, pa.scalar(None, array.type))


def _microseconds_or_coarser(array: Any, count: _Count) -> Any:
    if array.type.unit != "ns":
        return array
    count("nanoseconds_cut", _true(pc.not_equal(_remainder(array.view(pa.int64()), 1000), 0)))
    wanted = pa.time64("us") if pa.types.is_time(array.type) else pa.timestamp("us", tz=array.type.tz)
    whole = array.view(pa.int64())
    # floored, as times before 1970 are negative
    return pc.divide(pc.subtract(whole, _remainder(whole, 1000)), 1000).view(wanted)


def _remainder(whole: Any, divisor: int) -> Any:
    values = np.mod(whole.fill_null(0).to_numpy(zero_copy_only=False), divisor)
    return pa.array(values, pa.int64(), mask=whole.is_null().to_numpy(zero_copy_only=False))


def _true(mask: Any) -> int:
    return int(pc.sum(mask).as_py() or 0)


# --- text


def _valid_text(array: Any, count: _Count) -> Any:
    """As ``pa.string()``, valid UTF-8."""
    try:
        text = array if array.type == pa.string() else array.cast(pa.string())
        text.validate(full=True)
    except pa.ArrowInvalid:
        return _decoded(array, count)
    return text


def _decoded(array: Any, count: _Count) -> Any:
    """The slow way, for the batches that hold bytes which are no text."""
    repaired: list[str | None] = []
    bad = 0
    for value in array.view(pa.large_binary() if pa.types.is_large_string(array.type) else pa.binary()).to_pylist():
        try:
            repaired.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            bad += 1
            repaired.append(_some_text(value))
    count("text_repaired", bad)
    return pa.array(repaired, pa.string())


def _some_text(value: bytes) -> str:
    try:
        # characters beyond 16 bits that were written as two surrogates, as Java and Oracle do
        text = value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(text: Any, count: _Count) -> Any:
    """Without NUL characters."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return text
    ends = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    if np.frombuffer(data, np.uint8)[ends[0] : ends[-1]].all():
        return text
    count("nul_removed", _true(pc.match_substring(text, "\0")))
    return pc.replace_substring(text, "\0", "")


def _json(text: Any, count: _Count) -> Any:
    """Text that a database takes as JSON."""
    if text.null_count == len(text):
        return text
    parsed = pl.Series(text).str.json_path_match("$").is_null().to_arrow()
    # what the strict parser gives as null is null, or wrong in some way
    null = pc.equal(pc.utf8_trim_whitespace(text), "null")
    wrong = pc.and_not(parsed.cast(pa.bool_()), null)
    wrong = pc.or_(wrong, pc.match_substring(text, "\\u0000"))
    wrong = pc.and_(wrong, text.is_valid()).fill_null(False)  # noqa: FBT003
    if not _true(wrong):
        return text
    return pc.replace_with_mask(text, wrong, pa.array(_repaired(text.filter(wrong).to_pylist(), count), pa.string()))


def _repaired(values: Sequence[str], count: _Count) -> list[str]:
    repaired: list[str] = []
    for value in values:
        reading = _JsonReading()
        try:
            read = reading.read(value)
            if not reading.changed:
                repaired.append(value)
                continue
            written = json.dumps(read, ensure_ascii=False)
            count("json_repaired", 1)
        except (ValueError, RecursionError):
            written = json.dumps(value, ensure_ascii=False)
            count("json_quoted", 1)
        repaired.append(written)
    return repaired


class _JsonReading:
    """One JSON document on its way to what a database takes."""

    def __init__(self) -> None:
        self.changed = False

    def read(self, document: str) -> Any:
        """Its value, without what no database takes.

        Raises:
            ValueError: it is no JSON.
            RecursionError: it is nested too deep.
        """
        try:
            value = json.loads(document, parse_float=self._number, parse_constant=self._nothing)
        except ValueError:
            # line breaks within strings
            value = json.loads(document, parse_float=self._number, parse_constant=self._nothing, strict=False)
            self.changed = True
        return self._plain(value)

    def _number(self, text: str) -> float | None:
        number = float(text)
        if math.isfinite(number):
            return number
        self._nothing(text)
        return None

    def _nothing(self, _: str) -> None:
        self.changed = True

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            plain = _some_text(value.replace("\0", "").encode(errors="surrogatepass"))
            self.changed |= plain != value
            return plain
        if isinstance(value, dict):
            return {self._plain(key): self._plain(inner) for key, inner in value.items()}
        return [self._plain(inner) for inner in value] if isinstance(value, list) else value


# --- rows to look at -------------------------------------------------------------------------------------------

_SHOWN_ROWS: Final = 10
_SHOWN_CHARACTERS: Final = 60
_SHOWN_WKB: Final = 4096
"""Bytes of a geometry beyond which only its type is shown; nobody reads more."""


class RowSample:
    """The first rows of a table as plain JSON values, short enough to be shown.

    Args:
        columns: of the table.
        geometry: name of its geometry column; ``None``: it has none.
        rows: how many.
    """

    def __init__(self, columns: Sequence[Column], *, geometry: str | None = None, rows: int = _SHOWN_ROWS) -> None:
        self._names = [ID_COLUMN, *(column.name for column in columns)]
        self._geometry = geometry
        self._most = rows
        self.rows: list[dict[str, Any]] = []
        """Name → value: numbers, booleans and null as they are, all else as text, cut at 60 characters."""

    def add(self, chunk: pa.RecordBatch) -> None:
        """Take rows of the table as they travel: the id, the attributes, the geometry as WKB."""
        missing = self._most - len(self.rows)
        if missing <= 0:
            return
        first = chunk.slice(0, missing)
        shown = {name: [_shown(value) for value in _values(first.column(name))] for name in self._names}
        if self._geometry is not None and self._geometry in first.schema.names:
            shown[self._geometry] = [_wkt(value) for value in first.column(self._geometry).to_pylist()]
        self.rows += [dict(zip(shown, row, strict=True)) for row in zip(*shown.values(), strict=True)]


def _values(array: Any) -> list[Any]:
    """Python values; times as text, as Python knows no year before 1 or after 9999."""
    if pa.types.is_timestamp(array.type):
        zone = "" if array.type.tz is None else "Z"
        return [None if value is None else f"{value.replace(' ', 'T')}{zone}" for value in _moments(array)]
    return list((array.cast(pa.string()) if pa.types.is_temporal(array.type) else array).to_pylist())


def _moments(array: Any) -> list[str | None]:
    # a cast to text would look for the zone's rules, and there may be none on the machine
    return list(array.view(pa.timestamp(array.type.unit)).cast(pa.string()).to_pylist())


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _EXACT_WHOLE else str(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _short(value.hex() if isinstance(value, bytes) else str(value))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"


def _wkt(value: bytes | None) -> str | None:
    if value is None:
        return None
    if len(value) > _SHOWN_WKB:
        kind = int(kinds_of(pa.array([value], pa.binary()))[0])
        return f"{TYPE_NAMES[kind % 1000].upper()} ({len(value):,} bytes)"
    return _short(str(shapely.to_wkt(shapely.from_wkb(value), rounding_precision=6, output_dimension=4)))
