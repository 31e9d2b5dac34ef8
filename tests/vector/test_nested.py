"""Nested values as JSON, against Python's own."""

import datetime as dt
import decimal
import json
import math
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.vector.nested import json_text

TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"])))
STRUCTS = st.fixed_dictionaries(
    {
        "number": st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
        'a "name"': TEXTS,
        "list": st.one_of(st.none(), st.lists(TEXTS, max_size=4)),
        "map": st.one_of(
            st.none(),
            st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.one_of(st.none(), st.booleans())),
        ),
        "real": st.one_of(st.none(), st.floats()),
    }
)
KIND = pa.struct(
    [
        ("number", pa.int64()),
        ('a "name"', pa.string()),
        ("list", pa.list_(pa.string())),
        ("map", pa.map_(pa.string(), pa.bool_())),
        ("real", pa.float64()),
    ]
)


def array_of(values: list[Any]) -> Any:
    pairs = [None if one is None else {**one, "map": one["map"] and list(one["map"].items())} for one in values]
    return pa.array(pairs, KIND)


def finite(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is None or value["real"] is None or math.isfinite(value["real"]):
        return value
    return {**value, "real": None}


@given(st.lists(st.one_of(st.none(), STRUCTS), max_size=6), st.integers(0, 3))
def test_it_says_what_python_says(values: list[dict[str, Any] | None], start: int) -> None:
    found = json_text(array_of(values).slice(start)).to_pylist()
    assert [None if one is None else json.loads(one) for one in found] == [finite(one) for one in values[start:]]


@given(st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.lists(TEXTS, max_size=3)), max_size=3))))
def test_lists_of_lists(values: list[Any]) -> None:
    found = json_text(pa.array(values, pa.list_(pa.list_(pa.string())))).to_pylist()
    assert [None if one is None else json.loads(one) for one in found] == values


def test_what_lies_under_null_is_not_written() -> None:
    lists = pa.ListArray.from_arrays(
        pa.array([0, 2, 4], pa.int32()), pa.array([1, 2, 3, 4]), mask=pa.array([True, False])
    )
    assert json_text(lists).to_pylist() == [None, "[3,4]"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), "[1,2]"),
        (pa.array([["a"]], pa.large_list(pa.large_string())), '["a"]'),
        (pa.array([["a"]], pa.list_view(pa.string_view())), '["a"]'),
        (pa.array([[b"x"]]), '["eA=="]'),
        (pa.array([[dt.date(2020, 1, 2)]]), '["2020-01-02"]'),
        (pa.array([[decimal.Decimal("12345678901234567890.12")]]), "[12345678901234567890.12]"),
        (pa.array([[1.0, None]], pa.list_(pa.float16())), "[1,null]"),
        (pa.array([[(7, "x")]], pa.map_(pa.int32(), pa.string())), '{"7":"x"}'),
        (pa.array([{}], pa.struct([])), "{}"),
        (pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), '["a"]'),
        (pa.array([[None]], pa.list_(pa.null())), "[null]"),
        (pa.array([["a\x00\x1fb"]]), '["a\\u0000\\u001fb"]'),
    ],
)
def test_types(values: Any, expected: str) -> None:
    assert json_text(values).to_pylist() == [expected]
