"""Geometry as bytes, against GEOS as an independent reader."""

import struct
import time
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.vector import wkb
from geo_assets.vector.table import Dimensions

DIMENSIONS: tuple[Dimensions, ...] = get_args(Dimensions)
SHAPES = (
    "POINT {0}(1 2{1})",
    "LINESTRING {0}(1 2{1}, 3 4{1})",
    "POLYGON {0}((0 0{1}, 4 0{1}, 4 4{1}, 0 0{1}), (2 1{1}, 3 1{1}, 3 2{1}, 2 1{1}))",
    "MULTIPOINT {0}((1 2{1}), (3 4{1}))",
    "MULTILINESTRING {0}((1 2{1}, 3 4{1}), (5 6{1}, 7 8{1}))",
    "MULTIPOLYGON {0}(((0 0{1}, 4 0{1}, 4 4{1}, 0 0{1})), ((9 9{1}, 10 9{1}, 10 10{1}, 9 9{1})))",
    "GEOMETRYCOLLECTION {0}(POINT {0}(1 2{1}), POLYGON {0}((0 0{1}, 4 0{1}, 4 4{1}, 0 0{1})))",
)
EXTRA = {"XY": ("", ""), "XYZ": ("Z", " 7"), "XYM": ("M", " 8"), "XYZM": ("ZM", " 7 8")}


def of_wkt(*texts: str | None) -> Any:
    return shapely.from_wkt(np.array(texts, object))


def every_kind() -> tuple[list[int], Any]:
    codes = [base + 1000 * at for at in range(4) for base in range(1, 8)]
    texts = [shape.format(*EXTRA[dimensions]) for dimensions in DIMENSIONS for shape in SHAPES]
    order = {name: at for at, name in enumerate(DIMENSIONS)}
    assert [order[name] for name in ("XY", "XYZ", "XYM", "XYZM")] == [0, 1, 2, 3]
    return codes, of_wkt(*texts)


@pytest.mark.parametrize("flavor", ["iso", "extended"])
@pytest.mark.parametrize("byte_order", [0, 1])
def test_the_kind_is_known_in_every_flavour(flavor: str, byte_order: int) -> None:
    codes, geometries = every_kind()
    column = pa.array(
        [None, *shapely.to_wkb(geometries, flavor=flavor, byte_order=byte_order), b"\x01\x02"], pa.binary()
    )
    assert wkb.kinds_of(column).tolist() == [0, *codes, 0]
    assert wkb.kinds_of(column.slice(3, 4)).tolist() == codes[2:6]
    plain = byte_order == 1 and flavor == "iso"
    # EWKB of 2D geometries without SRID is ISO
    assert wkb.is_plain(column).tolist() == [True] + [plain or (byte_order == 1 and code < 1000) for code in codes] + [
        True
    ]


def test_an_srid_makes_wkb_not_plain() -> None:
    column = pa.array([shapely.to_wkb(shapely.set_srid(shapely.Point(1, 2), 4326), include_srid=True)])
    assert wkb.kinds_of(column).tolist() == [1]
    assert wkb.is_plain(column).tolist() == [False]


def test_columns_of_nothing_have_kinds() -> None:
    assert wkb.kinds_of(pa.array([], pa.binary())).tolist() == []
    assert wkb.kinds_of(pa.array([None, b""], pa.binary())).tolist() == [0, 0]
    assert wkb.points_of(pa.array([], pa.binary())) is None


@given(st.lists(st.tuples(st.floats(width=64), st.floats(width=64)), min_size=1, max_size=30), st.integers(0, 40))
def test_points_are_numbers_and_back(points: list[tuple[float, float]], start: int) -> None:
    xy = np.array(points)
    column = wkb.from_points(xy)
    assert column.to_pylist() == [struct.pack("<BIdd", 1, 1, *pair) for pair in points]
    part = column.slice(min(start, len(points) - 1))
    found = wkb.points_of(part)
    assert found is not None
    np.testing.assert_array_equal(found, xy[min(start, len(points) - 1) :])


@pytest.mark.parametrize("other", ["POINT Z (1 2 3)", "LINESTRING (1 2, 3 4)", None])
def test_anything_but_2d_points_is_no_array_of_points(other: str | None) -> None:
    assert wkb.points_of(wkb.from_shapely(of_wkt("POINT (1 2)", other))) is None


@pytest.mark.parametrize("wanted", DIMENSIONS)
def test_dimensions_are_dropped_and_filled(wanted: Dimensions) -> None:
    _, geometries = every_kind()
    column = wkb.from_shapely(geometries)
    found = wkb.to_shapely(wkb.conform(column, type="Geometry", dimensions=wanted))
    assert (
        wkb.kinds_of(wkb.from_shapely(found)).tolist()
        == [DIMENSIONS.index(wanted) * 1000 + at for at in range(1, 8)] * 4
    )
    for before, after in zip(geometries, found, strict=True):
        expected = shapely.get_coordinates(before, include_z=True, include_m=True)
        expected = np.nan_to_num(expected)
        keep = [0, 1, *([2] if "Z" in wanted else []), *([3] if "M" in wanted else [])]
        got = shapely.get_coordinates(after, include_z="Z" in wanted, include_m="M" in wanted)
        np.testing.assert_array_equal(got, expected[:, keep])


def test_an_array_that_needs_nothing_comes_back_as_it_is() -> None:
    column = wkb.from_shapely(of_wkt("POLYGON ((0 0, 1 0, 1 1, 0 0))", None))
    assert wkb.conform(column, type="Polygon", dimensions="XY") is column


@pytest.mark.parametrize("dimensions", DIMENSIONS)
@pytest.mark.parametrize("base", [1, 2, 3])
def test_single_becomes_multi_where_mixed(base: int, dimensions: Dimensions) -> None:
    shape, multi = (of_wkt(SHAPES[at].format(*EXTRA[dimensions]))[0] for at in (base - 1, base + 2))
    make = {1: shapely.MultiPoint, 2: shapely.MultiLineString, 3: shapely.MultiPolygon}[base]
    column = wkb.from_shapely([shape, None, multi, shape])
    found = wkb.to_shapely(wkb.conform(column, type=wkb.TYPE_NAMES[base + 3], dimensions=dimensions))
    assert found[1] is None
    assert shapely.equals_identical(found[2], multi)
    for at in (0, 3):
        assert shapely.equals_identical(shapely.get_parts(found[at])[0], shape)
        assert isinstance(found[at], make)
    assert (wkb.kinds_of(wkb.from_shapely(found[[0, 2, 3]])) // 1000 == DIMENSIONS.index(dimensions)).all()


@pytest.mark.parametrize("column_type", ["Point", "MultiPoint", "MultiPolygon"])
def test_what_cannot_become_the_type_of_a_column_is_an_error(column_type: str) -> None:
    column = wkb.from_shapely(of_wkt("LINESTRING (1 2, 3 4)"))
    with pytest.raises(ValueError, match=f"a column of {column_type} takes no LineString"):
        wkb.conform(column, type=column_type, dimensions="XY")


def test_moving_keeps_z_and_m_of_everything() -> None:
    _, geometries = every_kind()
    geometries = np.append(geometries, of_wkt("MULTIPOINT M ((1 2 3), EMPTY)", "POINT M EMPTY"))
    found = wkb.moved(geometries, lambda xy: xy * [1.0, -2.0])
    before, after = (shapely.get_coordinates(some, include_z=True, include_m=True) for some in (geometries, found))
    np.testing.assert_array_equal(after, before * [1.0, -2.0, 1.0, 1.0])
    assert (shapely.get_type_id(found) == shapely.get_type_id(geometries)).all()


@pytest.mark.parametrize("rows", [[True, True, True], [False, True, False], [False, False, False]])
def test_rows_are_replaced_in_order(rows: list[bool]) -> None:
    column = pa.array([b"a", None, b"c"], pa.binary())
    values = pa.array([b"x", b"y", b"z"][: sum(rows)], pa.binary())
    expected = list(column.to_pylist())
    for at, value in zip(np.flatnonzero(rows), values.to_pylist(), strict=True):
        expected[at] = value
    assert wkb.replace_rows(column, np.array(rows), values).to_pylist() == expected


def test_promotion_and_kinds_cost_no_objects() -> None:
    points = wkb.from_points(np.random.default_rng(1).uniform(-80, 80, (1_000_000, 2)))
    started = time.perf_counter()
    assert (wkb.kinds_of(points) == 1).all()
    assert time.perf_counter() - started < 0.5  # some 0.01 s where nobody else is at work
    polygon = shapely.to_wkb(shapely.Point(0, 0).buffer(1, quad_segs=3), flavor="iso")
    polygons = pa.array([polygon], pa.binary()).take(np.zeros(300_000, np.int64))
    started = time.perf_counter()
    promoted = wkb.conform(polygons, type="MultiPolygon", dimensions="XY")
    assert time.perf_counter() - started < 1.5  # some 0.03 s
    assert (wkb.kinds_of(promoted) == 6).all()
