"""Boxes and outlines of tables.

What belongs here: ``geo_assets.vector.footprint``, held against the coordinates themselves and the checks an item
passes.  What does not: those checks (``tests/stac/test_validation``).
"""

import time
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from geo_assets.stac.validation import item_problems
from geo_assets.vector.footprint import Box, FootprintBuilder
from geo_assets.vector.wkb import from_points, from_shapely
from tests.stores.catalog_items import item

TOLERANCE = 1e-6

_EDGES = [-180.0, -179.9999999, -135.0, -90.0, -45.0, 0.0, 45.0, 90.0, 135.0, 179.9999999, 180.0]
_LONGITUDES = st.one_of(
    st.floats(-180, 180), st.sampled_from(_EDGES), st.floats(170, 180), st.floats(-180, -170), st.floats(40, 50)
)
_LATITUDES = st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 0.0, 90.0]), st.floats(10, 10.001))
_POINTS = st.lists(st.tuples(_LONGITUDES, _LATITUDES), min_size=1, max_size=30)


def built(crs: str | int, *batches: Any) -> FootprintBuilder:
    builder = FootprintBuilder(pyproj.CRS(crs))
    for batch in batches:
        builder.add(batch)
    return builder


@cache
def between(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def points(*places: Sequence[float]) -> pa.BinaryArray:
    return from_points(np.array(places, float).reshape(-1, 2))


def checked(box: Box | None, outline: dict[str, Any] | None) -> tuple[Box, Any]:
    """Box and outline, which an item may have."""
    assert box is not None
    assert outline is not None
    assert item_problems({**item(), "geometry": outline, "bbox": list(box)}) == []
    shape = shapely.geometry.shape(outline)
    assert shapely.get_num_coordinates(shape) <= 100
    return box, shape


def assert_holds(box: Box, shape: Any, lonlat: np.ndarray[Any, Any]) -> None:
    """All places lie in the box and in the outline."""
    west, south, east, north = box
    lon, lat = lonlat[:, 0], lonlat[:, 1]
    assert lat.min() >= south - TOLERANCE
    assert lat.max() <= north + TOLERANCE
    beyond = (lon - west + TOLERANCE) % 360 - TOLERANCE
    assert beyond.max() <= (east - west) % 360 + TOLERANCE or east - west >= 360 - TOLERANCE
    near = np.min([shapely.distance(shape, shapely.points(lon + turn, lat)) for turn in (-360, 0, 360)], axis=0)
    assert near.max() <= TOLERANCE


# --- longitude and latitude ------------------------------------------------------------------------------------


@given(_POINTS, st.integers(0, 30))
def test_any_points_lie_in_their_box_and_outline(places: list[tuple[float, float]], cut: int) -> None:
    builder = built(4326, points(*places[:cut]), points(*places[cut:]))
    box, shape = checked(builder.bbox, builder.footprint)
    lonlat = np.array(places)
    assert_holds(box, shape, lonlat)
    assert builder.native_bbox == (*lonlat.min(axis=0).tolist(), *lonlat.max(axis=0).tolist())
    west, _, east, _ = box
    if west <= east:
        assert box == builder.native_bbox or (east - west) < np.ptp(lonlat[:, 0])


@given(st.lists(st.tuples(_LONGITUDES, st.floats(1e-9, 300), _LATITUDES, st.floats(1e-9, 60)), min_size=1, max_size=8))
def test_any_areas_lie_in_their_box_and_outline(boxes: list[tuple[float, float, float, float]]) -> None:
    shapes = [
        shapely.box(west, south, min(west + wide, 180.0), min(south + high, 90.0)) for west, wide, south, high in boxes
    ]
    builder = built(4326, from_shapely(np.array(shapes)))
    box, shape = checked(builder.bbox, builder.footprint)
    west, east = shapely.bounds(shapes)[:, 0].min(), shapely.bounds(shapes)[:, 2].max()
    edges = np.vstack([np.linspace(one, other, 20) for one, other in _edges(shapes)])
    assert_holds(box, shape, edges)
    if box[0] <= box[2]:
        assert box[2] - box[0] <= east - west


def _edges(shapes: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    for shape in shapes:
        yield from pairwise(shapely.get_coordinates(shape))


@given(arrays(float, (200, 2), elements=st.floats(-1, 1)), st.floats(-180, 180), st.sampled_from([1e-7, 1e-3, 1.0, 20]))
def test_many_points_at_any_scale(unit: Any, middle: float, scale: float) -> None:
    lonlat = unit * scale + [middle, 50.0]
    lonlat[:, 0] = (lonlat[:, 0] + 180) % 360 - 180
    builder = built(4326, from_points(lonlat))
    assert_holds(*checked(builder.bbox, builder.footprint), lonlat)


def test_the_box_is_exact() -> None:
    places = np.random.default_rng(1).uniform([5, 40], [6, 41], (5_000, 2))
    builder = built(4326, from_points(places))
    assert builder.bbox == builder.native_bbox == (*places.min(axis=0).tolist(), *places.max(axis=0).tolist())


def test_longitudes_beyond_180_are_where_they_are() -> None:
    builder = built(4326, points((190, 0), (200, 1)))
    assert builder.bbox == (-170.0, 0.0, -160.0, 1.0)
    assert builder.native_bbox == (190.0, 0.0, 200.0, 1.0)
    builder = built(4326, from_shapely(np.array([shapely.box(170, 0, 190, 1)])))
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == (170.0, 0.0, -170.0, 1.0)
    assert [part.bounds for part in shape.geoms] == [(170, 0, 180, 1), (-180, 0, -170, 1)]


# --- degenerate ------------------------------------------------------------------------------------------------


def test_fault_26_nothing_is_nowhere() -> None:
    empty = from_shapely(np.array([None, shapely.Point(), shapely.Polygon(), shapely.GeometryCollection()]))
    builder = built(4326, pa.array([], pa.binary()), empty)
    assert (builder.bbox, builder.native_bbox, builder.footprint) == (None, None, None)


def test_one_point() -> None:
    builder = built(4326, points((13.4, 52.5)))
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == (13.4, 52.5, 13.4, 52.5)
    assert shape == shapely.Point(13.4, 52.5)


def test_points_on_a_line() -> None:
    builder = built(4326, points((1, 1), (3, 3), (2, 2)))
    _, shape = checked(builder.bbox, builder.footprint)
    assert shape.equals(shapely.LineString([(1, 1), (3, 3)]))


def test_a_line_over_the_antimeridian() -> None:
    builder = built(4326, points((179, 1), (-179, 3)))
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == (179.0, 1.0, -179.0, 3.0)
    assert [part.coords[-1] for part in shape.geoms] == [(180, 2), (-179, 3)]


def test_a_table_on_the_antimeridian_itself() -> None:
    assert built(4326, points((180, 1))).bbox == (180.0, 1.0, 180.0, 1.0)
    assert built(4326, points((180, 1), (179, 1))).bbox == (179.0, 1.0, 180.0, 1.0)
    assert built(4326, points((180, 1), (-179, 1))).bbox == (-180.0, 1.0, -179.0, 1.0)


def test_an_area_too_small_for_doubles() -> None:
    builder = built(4326, from_shapely(np.array([shapely.box(100, 80, 100.000001, 80.000001)])))
    _, shape = checked(builder.bbox, builder.footprint)
    assert shape.geom_type == "LineString"


def test_a_tip_over_the_antimeridian() -> None:
    lonlat = np.array([(170, -10), (179, 10), (180.0000002, 0)])
    builder = built(4326, from_points(lonlat))
    box, shape = checked(builder.bbox, builder.footprint)
    assert_holds(box, shape, lonlat)


# --- both sides of the antimeridian ----------------------------------------------------------------------------

_FIJI = [(178.44, -18.14), (177.42, -17.61), (-179.98, -16.84), (-178.8, -18.2)]


@pytest.mark.parametrize("crs", [4326, 3857, 3460, 4720, 3832])
def test_fault_27_fiji_lies_on_both_sides(crs: int) -> None:
    to_crs = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    native = np.column_stack(to_crs.transform(*np.array(_FIJI).T))
    builder = built(crs, from_points(native))
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == pytest.approx((177.42, -18.2, -178.8, -16.84), abs=2e-3)
    assert_holds(box, shape, np.array(_FIJI))


def test_fault_27_one_shape_cut_at_the_antimeridian() -> None:
    halves = shapely.MultiPolygon([shapely.box(177, -19, 180, -16), shapely.box(-180, -19, -178, -16)])
    builder = built(4326, from_shapely(np.array([halves])))
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == (177.0, -19.0, -178.0, -16.0)
    assert shape.equals(halves)


def test_a_gap_far_from_the_antimeridian() -> None:
    east, west = np.linspace(60, 180, 500), np.linspace(-180, 10, 500)
    lonlat = np.column_stack([np.concatenate([east, west]), np.tile(np.linspace(-5, 5, 500), 2)])
    builder = built(4326, from_points(lonlat))
    box, shape = checked(builder.bbox, builder.footprint)
    assert (box[0], box[2]) == (60.0, 10.0)
    assert_holds(box, shape, lonlat)


def test_areas_that_end_where_a_sector_begins() -> None:
    boxes = [shapely.box(100, 0, 180, 1), shapely.box(-180, 0, 45, 1)]
    assert built(4326, from_shapely(np.array(boxes))).bbox == (100.0, 0.0, 45.0, 1.0)


def test_the_world_keeps_its_plain_box() -> None:
    random = np.random.default_rng(1)
    lonlat = random.uniform([-180, -60], [180, 70], (2_000, 2))
    pacific = (lonlat[:, 0] > -150) & (lonlat[:, 0] < -120)
    builder = built(4326, from_points(lonlat[~pacific]))
    box, _ = checked(builder.bbox, builder.footprint)
    assert box == builder.native_bbox


# --- other CRS -------------------------------------------------------------------------------------------------

_AREAS: dict[str, tuple[float, float, float, float]] = {
    "EPSG:32632": (5, 40, 13, 60),
    "EPSG:5070": (-130, 20, -60, 60),
    "EPSG:3857": (-100, -80, 100, 80),
    "EPSG:3832": (120, -40, 220, 40),
    "EPSG:3031": (-180, -89, 180, -65),
    "EPSG:3413": (-60, 60, -20, 84),
    "EPSG:2193": (166, -47, 184, -34),
    "EPSG:27700": (-7, 50, 2, 60),
    "EPSG:4269": (-125, 25, 190, 50),
    "EPSG:4807": (-4, 42, 9, 51),
    "EPSG:8857": (-170, -80, 170, 80),
    "EPSG:3338": (165, 50, 230, 72),
    "EPSG:3035": (-10, 35, 40, 70),
    "EPSG:6933": (-179, -80, 179, 80),
    "ESRI:54009": (-100, -60, 100, 60),
}


@pytest.mark.parametrize("crs", _AREAS)
@settings(max_examples=25)
@given(unit=arrays(float, (40, 2), elements=st.floats(0, 1)), share=st.sampled_from([1e-3, 0.2, 1.0]))
def test_no_place_is_left_out_in_any_crs(crs: str, unit: Any, share: float) -> None:
    west, south, east, north = _AREAS[crs]
    lonlat = unit * [(east - west) * share, (north - south) * share] + [west, south]
    native = np.column_stack(between("OGC:CRS84", crs).transform(*lonlat.T))
    back = np.column_stack(between(crs, "OGC:CRS84").transform(*native.T))
    builder = built(crs, from_points(native[:20]), from_points(native[20:]))
    box, shape = checked(builder.bbox, builder.footprint)
    assert_holds(box, shape, back)
    assert builder.native_bbox == (*native.min(axis=0).tolist(), *native.max(axis=0).tolist())


def test_the_box_in_a_projection_is_that_of_the_hull() -> None:
    square = shapely.box(-2_000_000, 300_000, 2_000_000, 3_000_000)
    builder = built(5070, from_shapely(np.array([square])))
    edge = shapely.get_coordinates(shapely.segmentize(square, 200.0))
    lon, lat = pyproj.Transformer.from_crs(5070, 4326, always_xy=True).transform(*edge.T)
    assert builder.bbox == pytest.approx((lon.min(), lat.min(), lon.max(), lat.max()), abs=TOLERANCE)


def test_fault_27_a_table_over_the_pole_reaches_all_longitudes() -> None:
    builder = built(3031, points((-1e6, -1e6), (1e6, -1e6), (0, 1.5e6)))
    box, _ = checked(builder.bbox, builder.footprint)
    assert (box[0], box[1], box[2]) == (-180.0, -90.0, 180.0)
    assert box[3] == pytest.approx(-76.28, abs=0.1)


@pytest.mark.parametrize(
    ("crs", "places"),
    [
        # Goode's homolosine is cut between South America and Africa
        ("+proj=igh +type=crs", [(-35, -50), (0, -50), (-20, -1)]),
        # and in Equal Earth the way from one side of the antimeridian to the other leads round the world
        ("EPSG:8857", [(179, 0), (-179, 1), (178, 80), (-178, -80)]),
    ],
)
def test_a_hull_over_the_edge_of_the_projection(crs: str, places: list[tuple[float, float]]) -> None:
    lonlat = np.array(places, float)
    builder = built(crs, from_points(np.column_stack(between("OGC:CRS84", crs).transform(*lonlat.T))))
    assert_holds(*checked(builder.bbox, builder.footprint), lonlat)


def test_what_is_not_on_earth_is_nowhere() -> None:
    builder = built("+proj=ortho +lat_0=-90 +type=crs", points((7e6, 7e6)))
    assert (builder.bbox, builder.footprint) == (None, None)
    assert builder.native_bbox == (7e6, 7e6, 7e6, 7e6)


def test_an_axis_order_of_north_first_changes_nothing() -> None:
    assert built("EPSG:4326", points((1, 2))).bbox == built("OGC:CRS84", points((1, 2))).bbox
    east, north = pyproj.Transformer.from_crs(4326, 31468, always_xy=True).transform(11.5, 48.1)
    assert built(31468, points((east, north))).bbox == pytest.approx((11.5, 48.1, 11.5, 48.1), abs=1e-5)


# --- geometry of all kinds -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry",
    [
        "POINT Z (1 2 3)",
        "POINT ZM (1 2 3 4)",
        "LINESTRING (0 0, 1 5, 2 0)",
        "MULTIPOINT (0 0, 1 5, 2 0)",
        "MULTILINESTRING ((0 0, 1 5), (2 0, 3 3))",
        "POLYGON ((0 0, 4 0, 4 4, 0 4, 0 0), (1 1, 1 2, 2 2, 1 1))",
        "GEOMETRYCOLLECTION (POINT (9 9), MULTIPOLYGON (((0 0, 4 0, 4 4, 0 0))))",
    ],
)
def test_geometries_of_all_kinds(geometry: str) -> None:
    shape = shapely.from_wkt(geometry)
    builder = built(4326, from_shapely(np.array([None, shape])))
    box, outline = checked(builder.bbox, builder.footprint)
    assert box == shape.bounds
    assert outline.equals(shapely.convex_hull(shapely.force_2d(shape)))


def test_many_areas_are_only_looked_into_where_they_matter() -> None:
    random = np.random.default_rng(1)
    corners = random.normal([8, 47], 1, (20_000, 2))
    shapes = shapely.buffer(shapely.points(corners), random.uniform(0.001, 0.3, 20_000), quad_segs=4)
    wkb = from_shapely(shapes)
    builder = built(4326, *[wkb.slice(start, 7_000) for start in range(0, 20_000, 7_000)])
    hull = shapely.convex_hull(shapely.multipoints(shapely.get_coordinates(shapes)))
    assert builder.bbox == hull.bounds
    _, outline = checked(builder.bbox, builder.footprint)
    assert outline.buffer(TOLERANCE).covers(hull)
    assert outline.area < hull.area * 1.01


def test_a_circle_keeps_few_points_and_its_box() -> None:
    angles = np.random.default_rng(1).uniform(0, 2 * np.pi, 20_000)
    lonlat = np.column_stack([np.cos(angles), np.sin(angles)])
    wkb = from_points(lonlat)
    builder = built(4326, wkb.slice(0, 10_000), wkb.slice(10_000))
    assert sum(len(hull.points) for hull in builder._hulls) < 9_000
    box, shape = checked(builder.bbox, builder.footprint)
    assert box == (*lonlat.min(axis=0).tolist(), *lonlat.max(axis=0).tolist())
    assert shapely.distance(shape, shapely.points(lonlat)).max() < 1e-5


def test_a_million_points_take_no_time() -> None:
    lonlat = np.random.default_rng(1).normal(size=(1_000_000, 2)) * 10 + [20, 20]
    lonlat[:, 0] = (lonlat[:, 0] + 180) % 360 - 180
    wkb = from_points(np.clip(lonlat, [-180, -90], [180, 90]))
    began = time.process_time()
    builder = built(4326, *[wkb.slice(start, 200_000) for start in range(0, 1_000_000, 200_000)])
    assert builder.bbox is not None
    # some 0.1 s; an accident with objects a row takes seconds
    assert time.process_time() - began < 1.5
