"""Values that a file has as text: of which type they are, and the values themselves, a column at a time.

What belongs here: the rules that CSV and GeoJSON share for telling numbers, dates and times from text, and for joining
types.  What does not: reading files (``csv_layers``, ``geojson_layers``).

The rules, from narrow to wide: ``true``/``false``; whole numbers (beyond 64 bits as ``decimal128(38, 0)``); doubles;
dates; timestamps without a zone; timestamps with one; text.  Text stays text wherever a number would not give it back:
leading zeros (``007``), a plus sign (``+49``), spaces for thousands.  A column of numbers never takes a whole number
that a double cannot hold.  In columns of other types than text, empty text is null and spaces around a value do not
count.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

__all__ = ["JSON", "MOMENTS", "WHOLE", "fit", "infer", "misfit", "wider"]

WHOLE = pa.decimal128(38, 0)
"""Whole numbers beyond 64 bits."""

pc: Any = pyarrow.compute  # whose stubs know fewer overloads than it has

JSON = pa.json_()
"""Text that is JSON: any value."""

_TIMESTAMP = pa.timestamp("us")
_TIMESTAMPTZ = pa.timestamp("us", tz="UTC")
MOMENTS: tuple[pa.DataType, ...] = (pa.date32(), _TIMESTAMP, _TIMESTAMPTZ)
"""Dates and times."""

_KINDS: tuple[pa.DataType, ...] = (pa.bool_(), pa.int64(), WHOLE, pa.float64(), *MOMENTS)
_TRUE = pa.array(["true", "True", "TRUE"])
_BOOLEANS = pa.array(["true", "True", "TRUE", "false", "False", "FALSE"])
_FEW = 128
_EXACT = float(2**53)
_FIRST_DAY = -719_162  # 0001-01-01, before which calendars and databases disagree
_FIRST_MOMENT = _FIRST_DAY * 86_400 * 1_000_000
_LAST_MOMENT = 253_402_300_800_000_000  # 10000-01-01
_ZERO, _NINE, _MINUS, _PLUS, _POINT = b"09-+."


def infer(values: pa.StringArray, *, comma: bool = False, among: tuple[pa.DataType, ...] = _KINDS) -> pa.DataType:
    """Tell the narrowest type that takes all values.

    Args:
        values: as the file has them, null where there is none.
        comma: numbers have a decimal comma.
        among: types that come into question, from narrow to wide; text always does.

    Returns:
        The type; ``pa.null()`` where there is no value.
    """
    if values.null_count == len(values):
        return pa.null()
    for kind in among:
        fitted = fit(values, kind, comma=comma)
        if fitted is not None:
            return kind if _says_something(fitted) else pa.string()
    return pa.string()


def fit(values: pa.StringArray, kind: pa.DataType, *, comma: bool = False) -> "pa.Array[Any] | None":
    """Read values as a type.

    Args:
        values: as the file has them.
        kind: one of the types of this module's rules, or ``pa.null()``.
        comma: numbers have a decimal comma.

    Returns:
        As many values of that type, or ``None`` if one does not fit.
    """
    if pa.types.is_string(kind):
        return values
    if pa.types.is_null(kind):
        return pa.nulls(len(values)) if values.null_count == len(values) else None
    if len(values) > _FEW and fit(values.slice(0, _FEW), kind, comma=comma) is None:
        return None  # Arrow goes through all values, even if the first does not fit
    fitted = _read(values, kind, comma=comma)
    if fitted is not None:
        return fitted
    trimmed = pc.utf8_trim_whitespace(values)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    return None if trimmed.equals(values) else _read(trimmed, kind, comma=comma)


def misfit(values: pa.StringArray, kind: pa.DataType, *, comma: bool = False) -> int:
    """Find the first value that does not fit a type; one must be there.

    Args:
        values: as the file has them.
        kind: the type.
        comma: numbers have a decimal comma.
    """
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        if fit(values.slice(low, middle - low), kind, comma=comma) is None:
            high = middle
        else:
            low = middle
    return low


def _says_something(values: "pa.Array[Any]") -> bool:
    """Whether there is a value, and one other than NaN and infinity, which may be words."""
    if pa.types.is_floating(values.type):
        return bool(pc.any(pc.is_finite(values)).as_py())
    return values.null_count < len(values)


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Tell the narrowest type that takes the values of both."""
    kinds = {one, other} - {pa.null()}
    if JSON in kinds:
        return JSON
    if not kinds:
        return pa.null()
    if len(kinds) == 1:
        return kinds.pop()
    joins: tuple[tuple[set[pa.DataType], pa.DataType], ...] = (
        ({pa.int64(), WHOLE}, WHOLE),
        ({pa.int64(), WHOLE, pa.float64()}, pa.float64()),
        ({pa.date32(), _TIMESTAMP}, _TIMESTAMP),
    )
    return next((join for parts, join in joins if kinds <= parts), pa.string())


def _read(values: pa.StringArray, kind: pa.DataType, *, comma: bool) -> "pa.Array[Any] | None":
    try:
        if pa.types.is_boolean(kind):
            return _booleans(values)
        if pa.types.is_temporal(kind):
            return _moments(values, kind)
        return _numbers(values, kind, comma=comma)
    except pa.ArrowInvalid:
        return None


def _booleans(values: pa.StringArray) -> "pa.Array[Any] | None":
    known = pc.or_(pc.is_in(values, _BOOLEANS), pc.is_null(values))
    if not pc.all(known).as_py() and len(values):
        return None
    truth: pa.Array[Any] = pc.if_else(pc.is_valid(values), pc.is_in(values, _TRUE), pa.scalar(None, pa.bool_()))
    return truth


def _moments(values: pa.StringArray, kind: pa.DataType) -> "pa.Array[Any] | None":
    moments = values.cast(kind)
    whole = moments.cast(pa.int32() if pa.types.is_date(kind) else pa.int64())
    low, high = pc.min_max(whole).values()
    if not low.is_valid:
        return moments
    first, last = (_FIRST_DAY, 2**31) if pa.types.is_date(kind) else (_FIRST_MOMENT, _LAST_MOMENT)
    return moments if low.as_py() >= first and high.as_py() < last else None


def _numbers(values: pa.StringArray, kind: pa.DataType, *, comma: bool) -> "pa.Array[Any] | None":
    if comma and pa.types.is_floating(kind):
        if (_bytes(values) == _POINT).any():
            return None  # it would be one for thousands
        values = pc.replace_substring(values, ",", ".")
    if pa.types.is_decimal(kind) and not pc.all(pc.match_substring_regex(values, r"^-?\d{1,38}$")).as_py():
        return None
    numbers = values.cast(kind)
    if _is_code(values):
        return None
    return numbers if not pa.types.is_floating(kind) or _faithful(values, numbers) else None


def _is_code(values: pa.StringArray) -> bool:
    """Whether one value, which is a number, begins with a plus, or a zero before another digit, or is hexadecimal."""
    offsets, data = _offsets(values), _bytes(values, whole=True)
    starts, ends = offsets[:-1].astype(np.int64), offsets[1:]
    if not len(data):
        return False
    longer = ends - starts > 1
    starts, ends = starts[longer], ends[longer]
    if (data[starts] == _PLUS).any():
        return True
    starts = starts + (data[starts] == _MINUS)
    inside = ends - starts > 1
    starts = starts[inside]
    second = data[starts + 1]
    digit = (second >= _ZERO) & (second <= _NINE) | ((second | 0x20) == ord("x"))
    return bool(((data[starts] == _ZERO) & digit).any())


def _faithful(values: pa.StringArray, numbers: "pa.Array[Any]") -> bool:
    """Whether no whole number is too long for a double, and none became infinite."""
    large = pc.fill_null(pc.greater_equal(pc.abs(numbers), _EXACT), fill_value=False)
    if not pc.any(large).as_py():
        return True
    pairs: Any = zip(values.filter(large).to_pylist(), numbers.filter(large).to_pylist(), strict=True)
    return all(_is_faithful(word, number) for word, number in pairs)


def _is_faithful(word: str, number: float) -> bool:
    if not math.isfinite(number):
        return not any(letter.isdecimal() for letter in word)
    return not word.lstrip("-").isdecimal() or int(word) == number


def _offsets(values: pa.StringArray) -> NDArray[np.int32]:
    buffer = values.buffers()[1]
    if buffer is None or not len(values):
        return np.zeros(1, np.int32)
    return np.frombuffer(buffer, np.int32)[values.offset : values.offset + len(values) + 1]


def _bytes(values: pa.StringArray, *, whole: bool = False) -> NDArray[np.uint8]:
    """The text of all values; with ``whole`` so that offsets count from its start."""
    buffer = values.buffers()[2]
    if buffer is None:
        return np.zeros(0, np.uint8)
    data = np.frombuffer(buffer, np.uint8)
    if whole:
        return data
    offsets = _offsets(values)
    return data[offsets[0] : offsets[-1]]
