"""Footprints in few numbers: where they are, and how they are split."""

from itertools import batched
from typing import Any

import numpy as np
import pytest
import shapely
import shapely.geometry
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.report.facts import Rings
from geo_assets.report.outline import UNITS, middle_of, rings_of


def shape_of(rings: Rings) -> Any:
    """The outline as shapely has it."""
    polygons = [shapely.Polygon(np.cumsum(list(batched(ring, 2)), axis=0) / UNITS) for ring in rings if len(ring) > 4]
    return shapely.union_all(polygons)


def box_item(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return {
        "bbox": [west, south, east, north],
        "geometry": shapely.geometry.mapping(shapely.box(west, south, east, north)),
    }


def test_a_box_stays_what_it_is() -> None:
    (ring,) = rings_of(box_item(10, 50, 11, 51))
    assert len(ring) == 8
    assert shape_of((ring,)).equals(shapely.box(10, 50, 11, 51))
    assert middle_of((ring,)) == (10.5, 50.5)


@pytest.mark.parametrize(
    "item",
    [
        # split as RFC 7946 wants it, as one ring that jumps, and without a geometry
        {
            "bbox": [170, -10, -170, 10],
            "geometry": {
                "type": "MultiPolygon",
                "coordinates": [
                    [[[170, -10], [180, -10], [180, 10], [170, 10], [170, -10]]],
                    [[[-180, -10], [-170, -10], [-170, 10], [-180, 10], [-180, -10]]],
                ],
            },
        },
        {
            "bbox": [170, -10, -170, 10],
            "geometry": {
                "type": "Polygon",
                "coordinates": [[[170, -10], [-170, -10], [-170, 10], [170, 10], [170, -10]]],
            },
        },
        {"bbox": [170, -10, -170, 10], "geometry": None},
    ],
)
def test_what_crosses_the_antimeridian_has_a_part_on_either_side(item: dict[str, Any]) -> None:
    rings = rings_of(item)
    assert len(rings) == 2
    assert shape_of(rings).symmetric_difference(
        shapely.union_all([shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -170, 10)])
    ).area == pytest.approx(0, abs=1e-6)


def test_the_whole_world_is_not_torn() -> None:
    assert shape_of(rings_of(box_item(-180, -90, 180, 90))).area == pytest.approx(360 * 180)


def test_a_tiny_footprint_is_a_point_at_its_place() -> None:
    (ring,) = rings_of(box_item(8.541701, 47.376901, 8.541702, 47.376902))
    assert ring == (85417, 473769)
    assert rings_of({"geometry": {"type": "Point", "coordinates": [8.5417, 47.3769]}}) == (ring,)


def test_a_coast_becomes_few_corners_that_cover_it() -> None:
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    radius = 5 + 0.5 * np.sin(40 * angles)
    coast = shapely.Polygon(np.column_stack((20 + radius * np.cos(angles), radius * np.sin(angles))))
    rings = rings_of({"geometry": shapely.geometry.mapping(coast), "bbox": list(coast.bounds)})
    assert sum(len(ring) for ring in rings) <= 64
    drawn = shape_of(rings)
    assert drawn.intersection(coast).area / drawn.union(coast).area > 0.8


numbers = st.one_of(st.floats(), st.integers(-400, 400), st.none(), st.text(max_size=2))
geometries = st.one_of(
    st.none(),
    st.just({}),
    st.builds(
        lambda kind, coordinates: {"type": kind, "coordinates": coordinates},
        st.sampled_from(["Point", "LineString", "Polygon", "MultiPolygon", "Nothing"]),
        st.recursive(numbers, lambda inner: st.lists(inner, max_size=5), max_leaves=20),
    ),
    st.builds(
        lambda ring: {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        st.lists(st.tuples(st.floats(-400, 400), st.floats(-100, 100)), min_size=3, max_size=60),
    ),
)


@settings(max_examples=50)
@given(geometry=geometries, bbox=st.one_of(st.none(), st.lists(numbers, max_size=7)))
def test_whatever_an_item_holds_is_drawn_within_the_world_or_not_at_all(geometry: Any, bbox: Any) -> None:
    rings = rings_of({"geometry": geometry, "bbox": bbox})
    assert sum(len(ring) for ring in rings) <= 2 * 2 * 33
    for ring in rings:
        corners = np.cumsum(list(batched(ring, 2)), axis=0)
        assert (np.abs(corners) <= (180 * UNITS, 90 * UNITS)).all()
    if rings:
        longitude, latitude = middle_of(rings)
        assert abs(longitude) <= 180
        assert abs(latitude) <= 90
