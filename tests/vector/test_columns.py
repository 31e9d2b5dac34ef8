"""Names, types and values of columns.

What belongs here: ``geo_assets.vector.columns``, held against a real PostgreSQL where that is the judge.  What does
not: the stores.
"""

import datetime as dt
import json
from typing import Any

import psycopg2
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2 import sql
from sqlalchemy.engine import make_url

from geo_assets.errors import ParameterError, VectorRefusedError
from geo_assets.vector.columns import (
    MOST_BYTES,
    RESERVED,
    Report,
    RowSample,
    check_table_name,
    column_type,
    name_columns,
    table_columns,
    table_name_for,
)
from geo_assets.vector.layers import SourceField
from geo_assets.vector.table import Column, ColumnType
from geo_assets.vector.wkb import from_points

_NAMES = st.lists(
    st.one_of(
        st.text(max_size=80),
        st.text(alphabet="aA_1 é", max_size=4),
        st.sampled_from(["id", "ID", "geom", "select", "SELECT", "x" * 63, "x" * 64, "x" * 61 + "_2", "a_2", "é" * 40]),
    ),
    max_size=12,
)


def names_of(*names: str, geometry_column: str | None = "geom") -> list[str]:
    fields = [SourceField(name=name, type=pa.string()) for name in names]
    return [column.name for column in name_columns(fields, geometry_column=geometry_column)]


def fitted(values: Any, *, json: bool = False) -> tuple[Any, Report]:
    """One array through its column, and what was changed."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    columns = name_columns([SourceField(name="v", type=array.type, json=json)], geometry_column=None)
    report: Report = {}
    (result,) = table_columns(pa.RecordBatch.from_arrays([array], names=["v"]), columns, report)
    assert result.type == columns[0].arrow_type
    assert len(result) == len(array)
    return result, report


def connected(postgres_url: str) -> Any:
    return psycopg2.connect(make_url(postgres_url).set(drivername="postgresql").render_as_string(hide_password=False))


# --- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Population", "population"),
        ("Area (km²)", "area_km"),
        ("a  - b.c", "a_b_c"),
        ("__x__", "x"),
        ("2020", "col_2020"),
        ("", "column_1"),
        ("€ / $", "column_1"),
        ("Order", "f_order"),
        ("ctid", "f_ctid"),
        ("Straße", "straße"),
        ("名前", "名前"),
        ("Cafe\u0301", "café"),
        ("id", "id_2"),
        ("GEOM", "geom_2"),
        ("-overwrite", "overwrite"),
        ('"; drop table x; --', "drop_table_x"),
        ("nul\0l", "nul_l"),
        ("a\ud800b", "a_b"),
        ("x" * 64, "x" * 63),
        ("é" * 32, "é" * 31),
    ],
)
def test_fault_23_names(name: str, expected: str) -> None:
    assert names_of(name) == [expected]


def test_fault_23_duplicates_after_cleaning_are_numbered_and_the_first_keeps_its_name() -> None:
    assert names_of("A b", "a-b", "a_b_2", "A B") == ["a_b", "a_b_3", "a_b_2", "a_b_4"]
    assert names_of("x" * 70, "x" * 80) == ["x" * 63, "x" * 61 + "_2"]


def test_fault_24_many_columns_of_one_name() -> None:
    names = names_of(*["v"] * 1_600)
    assert len(set(names)) == 1_600
    assert names[-1] == "v_1600"


def test_without_a_geometry_its_name_is_free() -> None:
    assert names_of("geom", geometry_column=None) == ["geom"]


@given(_NAMES)
def test_names_can_be_columns_of_one_table(names: list[str]) -> None:
    made = names_of(*names)
    assert len({*made, "id", "geom"}) == len(names) + 2
    for name in made:
        assert 0 < len(name.encode()) <= MOST_BYTES
        assert name not in RESERVED
        assert name == name.lower()
        assert not name[0].isdecimal()
        assert all(character == "_" or character.isalpha() or character.isdecimal() for character in name)


@given(_NAMES)
def test_good_names_stay(names: list[str]) -> None:
    made = names_of(*names)
    assert names_of(*made) == made


def test_the_column_says_what_it_was_called() -> None:
    field = SourceField(name="Größe (m)", type=pa.float32(), description="how high")
    assert name_columns([field], geometry_column=None) == (
        Column(name="größe_m", type=ColumnType.REAL, source_name="Größe (m)", description="how high"),
    )


def test_reserved_words_are_those_of_postgres(postgres_url: str) -> None:
    with connected(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("select word from pg_get_keywords() where catcode in ('R', 'T')")
        words = {row[0] for row in cursor.fetchall()}
        cursor.execute("select attname from pg_attribute where attrelid = 'pg_class'::regclass and attnum < 0")
        columns = {row[0] for row in cursor.fetchall()}
    connection.close()
    assert words <= RESERVED
    assert columns <= RESERVED


def test_any_file_s_columns_make_a_table(postgres_url: str) -> None:
    names = names_of(*sorted(RESERVED), "1", "", "é" * 60, "x" * 99, "X" * 99, "ctid", "a b", 'quo"te', "名" * 50)
    with connected(postgres_url) as connection, connection.cursor() as cursor:
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in names)
        cursor.execute(sql.SQL("create table wide (id bigint, geom bytea, {})").format(columns))
        cursor.execute(
            "select attname from pg_attribute where attrelid = 'wide'::regclass and attnum > 2 order by attnum"
        )
        assert [row[0] for row in cursor.fetchall()] == names
    connection.close()


@pytest.mark.parametrize(("given", "name"), [("Roads", "roads"), (" straße_1 ", "straße_1"), ("x" * 63, "x" * 63)])
def test_table_names(given: str, name: str) -> None:
    assert check_table_name(given) == name


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("1a", "start with a letter"),
        ("_a", "start with a letter"),
        ("a-b", "letters, digits and underscores"),
        ('a"; drop table b', "letters, digits and underscores"),
        ("a.b", "letters, digits and underscores"),
        ("x" * 64, "64 bytes"),
        ("é" * 32, "64 bytes"),
        ("select", "reserved"),
        ("User", "reserved"),
    ],
)
def test_fault_23_table_names_that_are_refused(given: str, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        check_table_name(given)


@given(st.sampled_from(["roads", "x" * 63, "é" * 31, "a"]), st.text(max_size=100))
def test_tables_of_layers_have_names_that_can_be_given(base: str, layer: str) -> None:
    name = table_name_for(base, layer)
    assert check_table_name(name) == name
    assert name == table_name_for(base, layer)


def test_tables_of_layers_stay_apart_when_their_names_are_cut() -> None:
    assert table_name_for("roads", "Main Streets") == "roads_main_streets"
    assert table_name_for("roads", "***") == "roads"
    assert table_name_for("roads", "y" * 99 + "1") != table_name_for("roads", "y" * 99 + "2")


# --- types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.bool_(), ColumnType.BOOLEAN),
        (pa.int8(), ColumnType.SMALLINT),
        (pa.uint8(), ColumnType.SMALLINT),
        (pa.int16(), ColumnType.SMALLINT),
        (pa.uint16(), ColumnType.INTEGER),
        (pa.int32(), ColumnType.INTEGER),
        (pa.uint32(), ColumnType.BIGINT),
        (pa.int64(), ColumnType.BIGINT),
        (pa.uint64(), ColumnType.NUMERIC),
        (pa.float16(), ColumnType.REAL),
        (pa.float32(), ColumnType.REAL),
        (pa.float64(), ColumnType.DOUBLE),
        (pa.string(), ColumnType.TEXT),
        (pa.large_string(), ColumnType.TEXT),
        (pa.string_view(), ColumnType.TEXT),
        (pa.null(), ColumnType.TEXT),
        (pa.dictionary(pa.int32(), pa.string()), ColumnType.TEXT),
        (pa.date32(), ColumnType.DATE),
        (pa.date64(), ColumnType.DATE),
        (pa.time32("ms"), ColumnType.TIME),
        (pa.timestamp("ns"), ColumnType.TIMESTAMP),
        (pa.timestamp("ms", tz="Europe/Berlin"), ColumnType.TIMESTAMPTZ),
        (pa.binary(), ColumnType.BINARY),
        (pa.binary(4), ColumnType.BINARY),
    ],
)
def test_types(kind: pa.DataType, expected: ColumnType) -> None:
    assert column_type(SourceField(name="v", type=kind)) == (expected, 0)


def test_decimals_keep_their_digits() -> None:
    assert column_type(SourceField(name="v", type=pa.decimal128(10, 3))) == (ColumnType.NUMERIC, 3)
    assert column_type(SourceField(name="v", type=pa.decimal128(10, -3))) == (ColumnType.NUMERIC, 0)


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.duration("s"), pa.struct([]), pa.decimal256(60, 2)])
def test_types_that_no_column_takes(kind: pa.DataType) -> None:
    with pytest.raises(VectorRefusedError, match="'v'") as caught:
        column_type(SourceField(name="v", type=kind))
    assert caught.value.code == "COLUMN_TYPE"


# --- values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        pa.array([1, None], pa.int64()),
        pa.array(["a", None, "ü"]),
        pa.array([0, None], pa.timestamp("us")),
        pa.array([b"\0", None], pa.binary()),
        pa.array([0.5, float("nan")]),
    ],
)
def test_what_needs_nothing_is_not_copied(array: Any) -> None:
    result, report = fitted(array)
    assert result.buffers()[-1].address == array.buffers()[-1].address
    assert report == {}


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
        (pa.array([255, None], pa.uint8()), [255, None]),
        (pa.array([1.5, None], pa.float16()), [1.5, None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.nulls(2), [None, None]),
        (pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        (pa.array([dt.date(1969, 12, 31), None], pa.date64()), [dt.date(1969, 12, 31), None]),
        (pa.array([dt.time(23, 59, 59)], pa.time32("s")), [dt.time(23, 59, 59)]),
        (pa.array([dt.datetime(1969, 1, 1)], pa.timestamp("s")), [dt.datetime(1969, 1, 1)]),  # noqa: DTZ001
    ],
)
def test_values_stay_what_they_are(array: Any, values: list[Any]) -> None:
    result, report = fitted(array)
    assert result.to_pylist() == values
    assert report == {}


def test_a_slice_is_read_where_it_begins() -> None:
    result, report = fitted(pa.array(["a\0", "b", "c\0d"]).slice(1))
    assert result.to_pylist() == ["b", "cd"]
    assert report == {"nul_removed": {"v": 1}}


def test_fault_28_nul_in_text() -> None:
    result, report = fitted(["a\0b", None, "\0", "x"])
    assert result.to_pylist() == ["ab", None, "", "x"]
    assert report == {"nul_removed": {"v": 2}}


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_fault_28_text_that_is_no_text(kind: str) -> None:
    raw: Any = pa.array([b"\xff", b"\xed\xa0\xbd\xed\xb8\x80", b"\xed\xa0\x80x", "ü".encode(), None])
    array = raw.view(pa.string()) if kind == "string" else raw.cast(pa.large_binary()).view(pa.large_string())
    result, report = fitted(array)
    # two surrogates that belong together are the character they stand for
    assert result.to_pylist() == ["\ufffd", "\U0001f600", "\ufffdx", "ü", None]
    assert report == {"text_repaired": {"v": 3}}


def test_fault_30_times_that_no_database_holds() -> None:
    first = -210_866_803_200
    result, report = fitted(pa.array([first, first - 1, 0, None, 2**40], pa.int64()).view(pa.timestamp("s")))
    assert result.view(pa.int64()).to_pylist() == [first * 10**6, None, 0, None, 2**40 * 10**6]
    assert report == {"out_of_range": {"v": 1}}
    result, report = fitted(pa.array([2**60, -(2**60)], pa.int64()).view(pa.timestamp("s", tz="UTC")))
    assert (result.null_count, report) == (2, {"out_of_range": {"v": 2}})
    result, report = fitted(pa.array([-(2**31), 2**31 - 1, 0], pa.int32()).view(pa.date32()))
    assert (result.null_count, report) == (2, {"out_of_range": {"v": 2}})
    result, report = fitted(pa.array([-1, 86_400, 86_401], pa.int32()).view(pa.time32("s")))
    assert (result.null_count, report) == (2, {"out_of_range": {"v": 2}})


def test_the_first_and_last_times_are_those_of_postgres(postgres_url: str) -> None:
    with connected(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select extract(epoch from '4714-11-24 00:00 BC'::timestamp), extract(epoch from "
            "'294276-12-31 23:59:59.999999'::timestamp), '4714-11-24 BC'::date - '1970-01-01',"
            " '5874897-12-31'::date - '1970-01-01'"
        )
        first, last, first_day, last_day = cursor.fetchone()
    connection.close()
    assert last * 10**6 > 2**63
    ends = pa.array([int(first * 10**6), 2**63 - 1], pa.int64()).view(pa.timestamp("us"))
    assert fitted(ends)[1] == {}
    beyond = pa.array([int(first * 10**6) - 1], pa.int64()).view(pa.timestamp("us"))
    assert fitted(beyond)[1] == {"out_of_range": {"v": 1}}
    assert fitted(pa.array([first_day, last_day], pa.int32()).view(pa.date32()))[1] == {}
    assert fitted(pa.array([first_day - 1, last_day + 1], pa.int32()).view(pa.date32()))[1] == {
        "out_of_range": {"v": 2}
    }


def test_nanoseconds_are_cut_and_counted() -> None:
    result, report = fitted(pa.array([1_999, -1, 2_000, None], pa.int64()).view(pa.timestamp("ns")))
    assert result.view(pa.int64()).to_pylist() == [1, -1, 2, None]
    assert report == {"nanoseconds_cut": {"v": 2}}


_NASTY_JSON = [
    ('{"a":1}', '{"a":1}', None),
    ("NaN", "null", "json_repaired"),
    ('{"a":NaN,"b":[Infinity]}', '{"a": null, "b": [null]}', "json_repaired"),
    ("1e400", "null", "json_repaired"),
    ("[1,2", '"[1,2"', "json_quoted"),
    ("", '""', "json_quoted"),
    ("plain", '"plain"', "json_quoted"),
    (r'"\ud800"', '"\ufffd"', "json_repaired"),
    (r'"\ud83d\ude00"', r'"\ud83d\ude00"', None),
    (r'"a\u0000b"', '"ab"', "json_repaired"),
    (r'{"\u0000": 1}', '{"": 1}', "json_repaired"),
    (r'"\\u0000"', r'"\\u0000"', None),
    ('"a\nb"', r'"a\nb"', "json_repaired"),
    (" null ", " null ", None),
    ("[" * 100_000, json.dumps("[" * 100_000), "json_quoted"),
]


@pytest.mark.parametrize(("text", "expected", "changed"), _NASTY_JSON)
def test_fault_30_json_that_is_none(text: str, expected: str, changed: str | None) -> None:
    result, report = fitted([text, None, "[]"], json=True)
    assert result.to_pylist() == [expected, None, "[]"]
    assert report == ({} if changed is None else {changed: {"v": 1}})


def test_postgres_takes_all_json_that_is_left(postgres_url: str) -> None:
    result, _ = fitted([text for text, _, _ in _NASTY_JSON], json=True)
    with connected(postgres_url) as connection, connection.cursor() as cursor:
        cursor.execute("select jsonb_typeof(unnest(%s)::jsonb)", (result.to_pylist(),))
        assert len(cursor.fetchall()) == len(_NASTY_JSON)
    connection.close()


@given(st.lists(st.one_of(st.text(max_size=20), st.from_type(float).map(str), st.just("null")), max_size=5))
def test_json_is_json_afterwards(texts: list[str]) -> None:
    clean = [text.encode("utf-8", "replace").decode() for text in texts]
    result, _ = fitted(pa.array(clean, pa.string()), json=True)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for text in result.to_pylist():
        json.loads(text, parse_constant=refuse)


def test_counts_add_up_over_batches() -> None:
    columns = name_columns([SourceField(name="V", type=pa.string())], geometry_column=None)
    report: Report = {}
    for _ in range(2):
        table_columns(pa.RecordBatch.from_arrays([pa.array(["\0"])], names=["V"]), columns, report)
    assert report == {"nul_removed": {"v": 2}}


def test_a_reader_that_breaks_its_promise_is_named() -> None:
    columns = name_columns([SourceField(name="V", type=pa.int16())], geometry_column=None)
    with pytest.raises(VectorRefusedError, match="'V' does not fit smallint"):
        table_columns(pa.RecordBatch.from_arrays([pa.array([2**40])], names=["V"]), columns, {})


# --- rows to look at -------------------------------------------------------------------------------------------


def test_a_sample_of_rows_is_plain_and_short() -> None:
    arrays: dict[str, Any] = {
        "text": pa.array(["x" * 100, "y"]),
        "whole": pa.array([2**53 + 1, 1]),
        "real": pa.array([float("nan"), 0.5]),
        "seen": pa.array([-(10**17), None], pa.int64()).view(pa.timestamp("us", tz="UTC")),
        "day": pa.array([-1_000_000, 0], pa.int32()).view(pa.date32()),
        "raw": pa.array([b"\x01\xff", None]),
        "flag": pa.array([True, None]),
    }
    columns = name_columns(
        [SourceField(name=name, type=array.type) for name, array in arrays.items()], geometry_column="geom"
    )
    points: Any = from_points(pa.array([1.0, 2.0, 3.25, 4.0]).to_numpy().reshape(2, 2))
    sample = RowSample(columns, geometry="geom", rows=3)
    chunk = pa.RecordBatch.from_pydict({"id": pa.array([1, 2]), **arrays, "geom": points})
    sample.add(chunk)
    sample.add(chunk)
    assert len(sample.rows) == 3
    first, second, third = sample.rows
    assert third == first
    assert first["text"] == "x" * 59 + "…"
    assert (first["whole"], second["whole"]) == (str(2**53 + 1), 1)
    assert (first["real"], second["real"]) == ("nan", 0.5)
    assert first["seen"].startswith("-1199-")
    assert first["day"].startswith("-0768-")
    assert (first["raw"], first["flag"], second["flag"]) == ("01ff", True, None)
    assert (first["geom"], second["geom"]) == ("POINT (1 2)", "POINT (3.25 4)")
    assert json.loads(json.dumps(sample.rows, allow_nan=False)) == sample.rows


def test_a_huge_geometry_is_named_only() -> None:
    huge: Any = pa.array([b"\x01\x03\0\0\0" + bytes(10_000), None])
    sample = RowSample((), geometry="geom")
    sample.add(pa.RecordBatch.from_pydict({"id": pa.array([1, 2]), "geom": huge}))
    assert sample.rows == [{"id": 1, "geom": "POLYGON (10,005 bytes)"}, {"id": 2, "geom": None}]
