"""Tests of casting rows to the columns of a table that is there already."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.errors import TableDataError
from geo_assets.vector.fitting import fit_batch, fit_column, fit_geometry
from geo_assets.vector.table import Column, ColumnType, GeometryColumn


def _batch(values: list[Any], kind: pa.DataType) -> pa.RecordBatch:
    ids = pa.array(range(11, 11 + len(values)), pa.int64())
    return pa.RecordBatch.from_arrays([ids, pa.array(values, kind)], names=["id", "v"])


def _schema(kind: pa.DataType) -> pa.Schema:
    return pa.schema([("id", pa.int64()), ("v", kind)])


@pytest.mark.parametrize(
    ("values", "given", "wanted", "fitted"),
    [
        ([1, None, -5], pa.int16(), pa.int64(), [1, None, -5]),
        ([1, None, 2**31 - 1], pa.int64(), pa.int32(), [1, None, 2**31 - 1]),
        ([7, None], pa.int32(), pa.float64(), [7.0, None]),
        ([2**53, None], pa.int64(), pa.float64(), [2.0**53, None]),
        ([2**63 - 1], pa.int64(), pa.decimal128(38, 6), [Decimal(2**63 - 1)]),
        ([12, None], pa.int64(), pa.decimal128(38, 30), [Decimal(12), None]),
        ([Decimal("1.5")], pa.decimal128(38, 1), pa.decimal128(38, 4), [Decimal("1.5")]),
        ([0.5, float("inf"), None], pa.float32(), pa.float64(), [0.5, float("inf"), None]),
        ([None, None], pa.string(), pa.timestamp("us", tz="UTC"), [None, None]),
        ([], pa.string(), pa.int16(), []),
    ],
)
def test_what_fits_is_cast(values: list[Any], given: pa.DataType, wanted: pa.DataType, fitted: list[Any]) -> None:
    batch = fit_batch(_batch(values, given), _schema(wanted))
    assert batch.schema.equals(_schema(wanted))
    assert batch["v"].to_pylist() == fitted
    assert batch["id"].to_pylist() == list(range(11, 11 + len(values)))


@pytest.mark.parametrize(
    ("values", "given", "wanted", "said"),
    [
        ([1, 2**31, 2**40], pa.int64(), pa.int32(), r"'v' is int32.*'2147483648' \(int64\).*id 12"),
        ([2**53 + 1], pa.int64(), pa.float64(), r"'9007199254740993'.*id 11"),
        ([None, None, "n/a", "x"], pa.string(), pa.int64(), r"'n/a' \(string\).*id 13"),
        ([1.5], pa.float64(), pa.float32(), r"'1.5'"),
        ([1.0], pa.float64(), pa.int64(), r"'1.0'"),
        ([None, 0], pa.date32(), pa.timestamp("us"), r"'1970-01-01'.*id 12"),
        ([Decimal("1.25")], pa.decimal128(38, 2), pa.decimal128(38, 1), r"'1.25'"),
        ([10**10], pa.int64(), pa.decimal128(38, 30), r"'10000000000'"),
        ([5], pa.int64(), pa.string(), r"'5'"),
    ],
)
def test_what_does_not_fit_is_named(values: list[Any], given: pa.DataType, wanted: pa.DataType, said: str) -> None:
    with pytest.raises(TableDataError, match=said):
        fit_batch(_batch(values, given), _schema(wanted))


@given(st.lists(st.none() | st.integers(-(2**40), 2**40), max_size=30))
def test_bigints_are_integers_or_the_first_that_is_none_is_named(values: list[int | None]) -> None:
    batch = _batch(values, pa.int64())
    large = [value for value in values if value is not None and not -(2**31) <= value < 2**31]
    if large:
        with pytest.raises(TableDataError, match=f"take '{large[0]}'"):
            fit_batch(batch, _schema(pa.int32()))
    else:
        assert fit_batch(batch, _schema(pa.int32()))["v"].to_pylist() == values


def test_columns_come_in_the_tables_order_and_no_others() -> None:
    batch = pa.RecordBatch.from_pydict({"b": [1], "a": ["x"]})
    wanted: list[tuple[str, pa.DataType]] = [("a", pa.string()), ("b", pa.int64())]
    fitted = fit_batch(batch, pa.schema(wanted))
    assert fitted.to_pydict() == {"a": ["x"], "b": [1]}
    with pytest.raises(TableDataError, match=r"\['b', 'a'\].*\['a'\]"):
        fit_batch(batch, pa.schema([("a", pa.string())]))


def _column(kind: ColumnType, scale: int = 0) -> Column:
    return Column(name="v", type=kind, source_name="V", scale=scale)


def test_what_a_definition_says_fits_can_be_cast() -> None:
    for kind in ColumnType:
        for wanted in ColumnType:
            fitted = fit_column(_column(kind), _column(wanted, 3 if wanted is ColumnType.NUMERIC else 0))
            if fitted is None:
                assert kind is not wanted
                continue
            assert (fitted.type, fitted.source_name) == (wanted, "V")
            value = {ColumnType.REAL: 1.5}.get(kind, 1 if "int" in kind.value else None)
            batch = fit_batch(_batch([value], _column(kind).arrow_type), _schema(fitted.arrow_type))
            assert batch["v"].to_pylist() == [value]


def test_types_that_do_not_fit() -> None:
    for kind, wanted in [
        ("date", "timestamp"),
        ("double precision", "real"),
        ("numeric", "bigint"),
        ("integer", "text"),
        ("boolean", "integer"),
        ("timestamp", "timestamptz"),
        ("text", "jsonb"),
    ]:
        assert fit_column(_column(ColumnType(kind)), _column(ColumnType(wanted))) is None
    numeric = ColumnType.NUMERIC
    assert fit_column(_column(numeric, 3), _column(numeric, 2)) is None
    assert fit_column(_column(numeric, 2), _column(numeric, 3)) == _column(numeric, 3)


@pytest.mark.parametrize(
    ("given", "there", "fits"),
    [
        (("Polygon", "XY"), ("MultiPolygon", "XY"), True),
        (("MultiPolygon", "XY"), ("MultiPolygon", "XYZ"), True),
        (("Polygon", "XYM"), ("Geometry", "XYZM"), True),
        (("MultiPolygon", "XY"), ("Polygon", "XY"), False),
        (("Geometry", "XY"), ("MultiPolygon", "XY"), False),
        (("Polygon", "XYZ"), ("Polygon", "XY"), False),
        (("Polygon", "XYZ"), ("Polygon", "XYM"), False),
        (("Point", "XY"), ("MultiPolygon", "XY"), False),
    ],
)
def test_geometries_that_fit(given: tuple[str, Any], there: tuple[str, Any], fits: bool) -> None:  # noqa: FBT001
    rows = GeometryColumn(name="shape", type=given[0], dimensions=given[1])
    table = GeometryColumn(name="shape", type=there[0], dimensions=there[1])
    assert fit_geometry(rows, table) == (table if fits else None)
    assert fit_geometry(rows, GeometryColumn(name="shape", type=there[0], dimensions=there[1], srid=25832)) is None
