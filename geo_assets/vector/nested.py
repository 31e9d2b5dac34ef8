"""Lists, structs and maps as JSON text, a column at a time.

What belongs here: writing nested Arrow arrays as JSON without building Python objects.  What does not: which columns
are written so (the readers), and whether text that somebody calls JSON is (``columns``).

Numbers stand as they are, 64-bit integers and decimals with all digits; NaN and infinity, which JSON does not have,
become null; times are written as Arrow prints them and bytes in base64.
"""

import base64
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute

__all__ = ["json_text"]

pc: Final[Any] = pyarrow.compute
"""Without its stubs, which know no plain texts as operands."""

_ESCAPES: Final = (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))
_NULL: Final = "null"


def json_text(array: Any) -> Any:
    """Write each value of an array as JSON.

    Args:
        array: of any type; n values.

    Returns:
        ``pa.string()`` array of n; null where the value is null.
    """
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    kind = array.type
    for fits, written in _WRITERS:
        if fits(kind):
            return written(array)
    return _quoted(array.cast(pa.string()))


def _quoted(text: Any) -> Any:
    for plain, escaped in _ESCAPES:
        text = pc.replace_substring(text, plain, escaped)
    if pc.any(pc.match_substring_regex(text, r"[\x00-\x1f]")).as_py():
        for code in range(32):
            text = pc.replace_substring(text, chr(code), f"\\u{code:04x}")
    return pc.binary_join_element_wise('"', text, '"', "")


def _text(array: Any) -> Any:
    return _quoted(array.cast(pa.string()))


def _number(array: Any) -> Any:
    return array.cast(pa.string())


def _float(array: Any) -> Any:
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    return pc.if_else(pc.is_finite(array), array.cast(pa.string()), pa.scalar(None, pa.string()))


def _bytes(array: Any) -> Any:
    return pa.array(
        [None if value is None else f'"{base64.b64encode(value).decode()}"' for value in array.to_pylist()], pa.string()
    )


def _list(array: Any) -> Any:
    # flatten leaves out what lies under nulls and outside a slice, so the offsets are made of the lengths
    inner = pc.fill_null(json_text(array.flatten()), _NULL)
    return _wrapped("[", _joined(array, inner), "]")


def _map(array: Any) -> Any:
    entries = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    flat = entries.flatten()
    keys = json_text(flat.field(0))
    if not (pa.types.is_string(array.type.key_type) or pa.types.is_large_string(array.type.key_type)):
        keys = _quoted(flat.field(0).cast(pa.string()))
    pairs = pc.binary_join_element_wise(keys, pc.fill_null(json_text(flat.field(1)), _NULL), ":")
    return _wrapped("{", _joined(entries, pairs), "}")


def _struct(array: Any) -> Any:
    names = _quoted(pa.array([field.name for field in array.type], pa.string())).to_pylist()
    members = [
        pc.binary_join_element_wise(name, pc.fill_null(json_text(field), _NULL), ":")
        for name, field in zip(names, array.flatten(), strict=True)
    ]
    inner = pc.binary_join_element_wise(*members, ",") if members else pa.array([""] * len(array), pa.string())
    return _wrapped("{", pc.if_else(array.is_valid(), inner, pa.scalar(None, pa.string())), "}")


def _joined(lists: Any, inner: Any) -> Any:
    """Join those that belong to one list; null where that is null."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int32())
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, inner), ",")
    return pc.if_else(lists.is_valid(), joined, pa.scalar(None, pa.string()))


def _wrapped(before: str, text: Any, after: str) -> Any:
    return pc.binary_join_element_wise(before, text, after, "")


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _is_plain(kind: Any) -> bool:
    return bool(
        pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


_WRITERS: Final = (
    (_is_text, _text),
    (_is_plain, _number),
    (pa.types.is_floating, _float),
    (_is_bytes, _bytes),
    (_is_list, _list),
    (pa.types.is_map, _map),
    (pa.types.is_struct, _struct),
)
