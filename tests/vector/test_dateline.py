"""Which long segments go across the antimeridian, and which lie as they are written."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import shapely

from geo_assets.vector import wkb
from geo_assets.vector.geometry import GeometryOptions, GeometryPreparer
from tests.vector.vectors import real


def prepared(shapes: Any, *, source: int = 4326, target: int = 4326) -> tuple[Any, dict[str, Any]]:
    preparer = GeometryPreparer(
        GeometryOptions(), source_crs=pyproj.CRS.from_epsg(source), target_crs=pyproj.CRS.from_epsg(target)
    )
    column: pa.BinaryArray = wkb.from_shapely(np.atleast_1d(np.array(shapes, object)))
    found = preparer.prepare(column, first_row=1)
    return wkb.to_shapely(found.wkb), preparer.report()


def short_way(west: float, south: float, east: float, north: float) -> Any:
    return shapely.Polygon([(west, south), (east, south), (east, north), (west, north)])


@pytest.mark.parametrize(
    "whole",
    [
        shapely.box(-179, -60, 179, 80),
        shapely.box(-179.99, -89.99, 179.99, 89.99),
        shapely.box(-179, 0, 179, 60),
        shapely.box(-160, -60, 160, 75),
        shapely.box(-100, 0, 100, 5),
        shapely.box(-170, -30, 170, 30),
        shapely.LineString([(-120, 30), (100, 30)]),
        shapely.LineString([(-100, 0), (100, 10), (170, 10), (-170, 10)]),
        shapely.Polygon([(-100, 0), (100, 0), (0, 50)]),
        shapely.Polygon([(-170, 0), (170, 0), (0, 50)]),
        shapely.Polygon([(-170, 0), (170, 0), (120, 30), (60, 40), (0, 45), (-60, 40), (-120, 30)]),
    ],
)
def test_shapes_that_span_much_of_the_earth_stay_as_they_are(whole: Any) -> None:
    (found,), report = prepared(whole)
    assert shapely.equals_identical(found, whole) or shapely.equals(found, shapely.orient_polygons(whole))
    assert found.bounds == whole.bounds
    assert report["split_antimeridian"]["count"] == report["wrapped_longitudes"]["count"] == 0


@pytest.mark.parametrize(
    ("whole", "width"),
    [
        pytest.param(short_way(177, -21, -178, -12), 5, id="Fiji"),
        pytest.param(short_way(172, 51, -163, 55), 25, id="Aleutians"),
        pytest.param(short_way(166, -48, -176, -29), 18, id="New Zealand"),
        pytest.param(short_way(160, 41, -169, 82), 31, id="Chukotka"),
        pytest.param(short_way(169, -12, -150, 5), 41, id="Kiribati"),
        pytest.param(
            shapely.Polygon([(27, 60), (100, 75), (179, 70), (-170, 66), (-179, 62), (130, 43), (40, 45)]),
            163,
            id="Russia",
        ),
        pytest.param(
            shapely.Polygon([(170, -60), (178, -60), (-172, 60), (-179, 60)]), 18, id="the strip of a satellite"
        ),
    ],
)
def test_areas_across_the_antimeridian_are_cut_there_and_counted(whole: Any, width: float) -> None:
    (found,), report = prepared(whole)
    assert shapely.is_valid(found)
    assert (found.bounds[0], found.bounds[2]) == (-180, 180)
    west, east = (shapely.intersection(found, shapely.box(*edges)) for edges in ((0, -90, 180, 90), (-180, -90, 0, 90)))
    assert 180 - west.bounds[0] + east.bounds[2] + 180 == pytest.approx(width)
    assert report["split_antimeridian"] == {"count": 1, "examples": [1]}


def test_a_track_round_the_earth_is_cut_where_it_passes_the_antimeridian() -> None:
    track = shapely.LineString([(longitude if longitude <= 180 else longitude - 360, 5) for longitude in range(3, 350)])
    (found,), report = prepared(track)
    assert found.length == pytest.approx(346)
    assert report["split_antimeridian"]["count"] == 1


def test_antarctica_is_closed_over_the_pole() -> None:
    longitudes = np.arange(-179.5, 180, 1)
    coast = np.column_stack([longitudes, -70 - 5 * np.cos(np.radians(longitudes))])
    (found,), report = prepared(shapely.Polygon(coast))
    assert found.bounds[:2] == (-180, -90)
    assert report["split_antimeridian"]["count"] == 1


def test_what_was_drawn_in_a_plane_lies_as_it_was_drawn() -> None:
    boxes = [shapely.box(-179, -60, 179, 80), shapely.box(-100, 0, 100, 5), shapely.box(-179, 0, 179, 5)]
    line = shapely.LineString([(-120, 30), (100, 30)])
    mercator = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
    there = [shapely.transform(one, lambda xy: np.column_stack(mercator.transform(*xy.T))) for one in [*boxes, line]]
    found, report = prepared(there, source=3857)
    np.testing.assert_allclose(shapely.bounds(found), shapely.bounds([*boxes, line]))
    assert report["split_antimeridian"]["count"] == report["wrapped_longitudes"]["count"] == 0


def test_what_crosses_the_antimeridian_in_a_plane_is_cut_whatever_its_shape() -> None:
    # PDC Mercator has the antimeridian inside: a strip that is tall, and a box wider than half the Earth
    mercator = pyproj.Transformer.from_crs(4326, 3832, always_xy=True)
    x, y = mercator.transform([179, -179, 61, -100], [-60, 60, 0, 10])
    strip, wide = shapely.box(x[0], y[0], x[1], y[1]), shapely.box(x[2], y[2], x[3], y[3])
    found, report = prepared([strip, wide], source=3832)
    np.testing.assert_allclose(shapely.area(found), [2 * 120, 199 * 10])
    assert report["split_antimeridian"] == {"count": 2, "examples": [1, 2]}


def test_what_is_turned_on_its_way_into_a_plane_is_counted() -> None:
    _, report = prepared(short_way(177, -21, -178, -12), target=3832)
    assert report["wrapped_longitudes"] == {"count": 1, "examples": [1]}


def test_of_all_countries_those_are_cut_that_are_written_across() -> None:
    features = json.loads(real("countries_50m.geojson").read_text())["features"]
    names = [one["properties"]["name"] for one in features]
    shapes = shapely.from_geojson([json.dumps(one["geometry"]) for one in features])
    found, report = prepared(shapes)
    assert [names[row - 1] for row in report["split_antimeridian"]["examples"]] == ["Russia", "Fiji", "Antarctica"]
    assert report["wrapped_longitudes"]["count"] == 0
    areas = dict(zip(names, shapely.area(found), strict=True))
    # square degrees
    assert areas["Russia"] == pytest.approx(2930, rel=0.01)
    assert areas["Fiji"] == pytest.approx(1.56, rel=0.05)
    assert areas["Antarctica"] == pytest.approx(6050, rel=0.01)
    whole = [row for row, name in enumerate(names) if name not in ("Russia", "Fiji", "Antarctica")]
    np.testing.assert_allclose(shapely.area(found[whole]), shapely.area(shapes[whole]))
