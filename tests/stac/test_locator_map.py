"""Maps show any footprint, small enough for an event, and put it where it is."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import shapely
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.pictures import Picture, shown_at_once
from geo_assets.stac.locator_map import LIMIT_BYTES, MEDIA_TYPE, SMALL_LIMIT_BYTES, locator_map, small_map

SVG = "{http://www.w3.org/2000/svg}"


def box(west: float, south: float, east: float, north: float) -> dict[str, Any]:
    return dict(shapely.geometry.mapping(shapely.box(west, south, east, north)))


def split(*boxes: tuple[float, float, float, float]) -> dict[str, Any]:
    return dict(shapely.geometry.mapping(shapely.MultiPolygon([shapely.box(*corners) for corners in boxes])))


@st.composite
def footprints(draw: st.DrawFn) -> dict[str, Any]:
    boxes = []
    for _ in range(draw(st.integers(1, 4))):
        west, south = draw(st.floats(-180, 179)), draw(st.floats(-90, 89))
        boxes.append((west, south, draw(st.floats(west, 180)), draw(st.floats(south, 90))))
    return box(*boxes[0]) if len(boxes) == 1 else split(*boxes)


def land(svg: str, unit: float = 1.0) -> shapely.Geometry:
    """The land of a map as a shape in longitude and latitude."""
    (path,) = [found.get("d", "") for found in ET.fromstring(svg).iter(f"{SVG}path") if found.get("fill") == "#a9b59b"]  # noqa: S314
    shapes = []
    for ring in re.findall(r"M([^z]*)z", path):
        start, steps = ring.split("l")
        x, y = (int(number) for number in re.findall(r"-?\d+", start))
        numbers = [int(number) for number in re.findall(r"-?\d+", steps)]
        corners = [(x, y)]
        for right, down in zip(numbers[::2], numbers[1::2], strict=True):
            x, y = x + right, y + down
            corners.append((x, y))
        shapes.append(shapely.Polygon([(x * unit, -y * unit) for x, y in corners]).buffer(0))
    return shapely.union_all(shapes)


def marker(svg: str) -> tuple[float, float] | None:
    """Longitude and latitude of the marker."""
    circle = ET.fromstring(svg).find(f"{SVG}circle")  # noqa: S314 - made here
    return None if circle is None else (float(circle.get("cx", "")), -float(circle.get("cy", "")))


@pytest.mark.parametrize(("drawn", "unit"), [(locator_map(None), 1.0), (small_map(None), 3.0)])
def test_the_land_is_where_it_is(drawn: str, unit: float) -> None:
    ground = land(drawn, unit)
    cities = {"Moscow": (37, 55), "Brasilia": (-48, -16), "Chicago": (-90, 40), "Alice Springs": (134, -24)}
    seas = {"Pacific": (-140, 0), "Atlantic": (-30, 30), "Indian Ocean": (80, -20), "Arctic": (0, 87)}
    assert [name for name, place in cities.items() if not ground.contains(shapely.Point(place))] == []
    assert [name for name, place in seas.items() if ground.contains(shapely.Point(place))] == []
    assert ground.bounds[0] >= -180
    assert ground.bounds[2] <= 180


@given(footprints())
def test_any_footprint_makes_small_maps(geometry: dict[str, Any]) -> None:
    for drawn, limit in ((locator_map(geometry), LIMIT_BYTES), (small_map(geometry), SMALL_LIMIT_BYTES)):
        assert drawn.isascii()
        assert len(drawn) <= limit
        ET.fromstring(drawn)  # noqa: S314 - made here
    small = Picture(alt="Map", media_type=MEDIA_TYPE, data=small_map(geometry).encode())
    assert shown_at_once(small) is not None


def test_a_footprint_of_very_many_corners_is_simplified() -> None:
    rough = shapely.Polygon(
        [(radius * x, radius * y) for radius, (x, y) in zip([80, 60] * 600, _circle(1200), strict=True)]
    )
    scattered = shapely.MultiPolygon([shapely.box(x, y, x + 1, y + 1) for x in range(-180, 180, 3) for y in (0, 50)])
    for shape in (rough, scattered):
        geometry = shapely.geometry.mapping(shape)
        assert len(locator_map(geometry)) <= LIMIT_BYTES
        assert len(small_map(geometry)) <= SMALL_LIMIT_BYTES


def _circle(count: int) -> list[tuple[float, float]]:
    ring = shapely.Point(0, 0).buffer(1, quad_segs=count // 4).exterior
    return [(x, y) for x, y in shapely.get_coordinates(ring)[:count].tolist()]


@pytest.mark.parametrize("draw", [locator_map, small_map])
def test_a_tiny_footprint_gets_a_marker_and_a_large_one_its_outline(draw: Any) -> None:
    tiny = draw(box(13.40, 52.50, 13.41, 52.51))
    at = marker(tiny)
    assert at is not None
    unit = 3.0 if draw is small_map else 1.0
    assert (at[0] * unit, at[1] * unit) == pytest.approx((13.4, 52.5), abs=0.2)
    assert marker(draw(box(-20, 30, 20, 60))) is None


def test_the_outline_is_that_of_the_footprint() -> None:
    (path,) = re.findall(r"id='f'[^>]*d='M([^z]*)z'", locator_map(box(-20, 30, 20.5, 60)))
    corners = [float(number) for number in path.split(",")]
    assert set(zip(corners[::2], corners[1::2], strict=True)) == {(-20, -30), (-20, -60), (20.5, -60), (20.5, -30)}


def test_a_small_footprint_has_a_second_frame_around_it() -> None:
    frame = ET.fromstring(locator_map(box(10, 50, 11, 51))).find(f"{SVG}svg")  # noqa: S314 - made here
    assert frame is not None
    assert frame.get("viewBox") == "-9.50,-70.50,40,40"
    assert [use.get("href") for use in frame.iter(f"{SVG}use")] == ["#l", "#f"]
    assert ET.fromstring(locator_map(box(-20, 30, 20, 60))).find(f"{SVG}svg") is None  # noqa: S314


def test_what_the_antimeridian_splits_is_marked_once_and_framed_whole() -> None:
    drawn = locator_map(split((179, -18, 180, -16), (-180, -18, -177, -16)))
    assert marker(drawn) == (-179, -17)
    frame = ET.fromstring(drawn).find(f"{SVG}svg")  # noqa: S314 - made here
    assert frame is not None
    assert [(use.get("href"), use.get("x")) for use in frame.iter(f"{SVG}use")] == [
        ("#l", "0"), ("#l", "-360"), ("#f", "0"), ("#f", "-360"),
    ]  # fmt: skip


def test_what_goes_round_a_pole_is_drawn_whole() -> None:
    drawn = locator_map(box(-180, 60, 180, 90))
    assert marker(drawn) is None
    assert "M180,-60,180,-90,-180,-90,-180,-60,180,-60z" in drawn


@pytest.mark.parametrize("geometry", [{}, {"type": "Polygon"}, {"type": "Circle", "coordinates": []}])
def test_what_is_no_geojson_is_refused(geometry: dict[str, Any]) -> None:
    for draw in (locator_map, small_map):
        with pytest.raises(ValueError, match="must be GeoJSON"):
            draw(geometry)


def test_a_place_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="is no number"):
        locator_map({"type": "Polygon", "coordinates": [[[0, 0], [float("inf"), 0], [1, 1], [0, 0]]]})
