"""Footprints: right at the antimeridian, at the poles, and where a projection ends.

What belongs here: ``geo_assets.stac.footprint``.  What does not: the checks of geometry (``test_validation``).
"""

from typing import Any

import antimeridian
import numpy as np
import pytest
import rasterio
import shapely
import shapely.geometry
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.control import GroundControlPoint
from rasterio.io import MemoryFile
from rasterio.warp import transform_bounds

from geo_assets.errors import NoItemError
from geo_assets.stac.footprint import Footprint, footprint, georeference
from geo_assets.stac.validation import geometry_problems
from tests.stac.rasters import GEOREFERENCED, made, real


def outline(dataset: Any) -> Footprint:
    found = footprint(georeference(dataset), width=dataset.width, height=dataset.height)
    assert geometry_problems({"geometry": found.geometry, "bbox": found.bbox}) == []
    return found


def of(crs: str, *bounds: float, rotation: float = 0.0) -> Footprint:
    with made(crs, tuple(bounds), rotation=rotation) as dataset:  # type: ignore[arg-type]
        return outline(dataset)


@pytest.mark.parametrize("name", [name for name in GEOREFERENCED if not name.startswith("goes")])
def test_real_rasters_agree_with_gdal(name: str) -> None:
    with rasterio.open(real(name)) as dataset:
        found = outline(dataset)
        expected = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds, densify_pts=101)
        assert found.bbox == pytest.approx(expected, abs=max(dataset.res) * 1e-3 + 2e-3)


def test_a_world_map_is_the_world() -> None:
    with rasterio.open(real("world_byte_4326.tif")) as dataset:
        found = outline(dataset)
    assert found.bbox == [-180.0, -75.0, 180.0, 75.0]
    assert found.geometry["type"] == "Polygon"
    assert len(found.geometry["coordinates"][0]) == 5
    assert found.centroid == (0.0, 0.0)


def test_a_full_disk_ends_where_the_earth_does() -> None:
    with rasterio.open(real("goes_geostationary.tif")) as dataset:
        found = outline(dataset)
    assert found.centroid == pytest.approx((-75.0, 0.0), abs=0.01)
    west, south, east, north = found.bbox
    # a geostationary satellite sees 81.3 degrees in each direction
    assert (west, south, east, north) == pytest.approx((-156.3, -81.3, 6.3, 81.3), abs=0.2)


@pytest.mark.parametrize(
    ("crs", "bounds", "bbox"),
    [
        ("EPSG:32760", (400_000, 8_000_000, 900_000, 8_200_000), [176.05, -18.1, -179.2, -16.24]),
        ("EPSG:3832", (3_000_000, -100_000, 3_500_000, 100_000), [176.95, -0.9, -178.56, 0.9]),
        ("EPSG:4326", (175, -20, 185, -10), [175, -20, -175, -10]),
        ("EPSG:4326", (-190, -20, -170, -10), [170, -20, -170, -10]),
        ("EPSG:3857", (19_500_000, -5_000_000, 20_500_000, -4_000_000), [175.17, -40.92, -175.85, -33.79]),
    ],
)
def test_across_the_antimeridian(crs: str, bounds: tuple[float, ...], bbox: list[float]) -> None:
    found = of(crs, *bounds)
    assert found.geometry["type"] == "MultiPolygon"
    assert found.bbox == pytest.approx(bbox, abs=0.1)
    assert antimeridian.bbox(found.geometry) == found.bbox


@pytest.mark.parametrize(
    ("bounds", "bbox"),
    [
        ((-180, -90, 180, 90), [-180, -90, 180, 90]),
        ((0, -90, 360, 90), [-180, -90, 180, 90]),
        ((-180.125, -90.125, 179.875, 90.125), [-180, -90, 180, 90]),
        ((170, -10, 180, 10), [170, -10, 180, 10]),
        ((-180, -10, -170, 10), [-180, -10, -170, 10]),
        ((190, -10, 200, 10), [-170, -10, -160, 10]),
    ],
)
def test_grids_that_end_at_the_line_or_beyond_it(bounds: tuple[float, ...], bbox: list[float]) -> None:
    found = of("EPSG:4326", *bounds)
    assert found.bbox == bbox
    assert shapely.geometry.shape(found.geometry).area == pytest.approx((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))


@pytest.mark.parametrize(
    ("crs", "bounds", "pole", "inside", "outside"),
    [
        ("EPSG:3413", (-3e6, -3e6, 3e6, 3e6), 90, (10, 70), (10, 40)),
        ("EPSG:3413", (-1e5, -1e5, 3e6, 3e6), 90, (90, 80), (-90, 80)),
        ("EPSG:3031", (-3e6, -3e6, 3e6, 3e6), -90, (10, -70), (10, -40)),
        ("EPSG:3031", (-3e6, -1e5, 1e5, 3e6), -90, (-60, -80), (120, -80)),
    ],
)
def test_over_a_pole(
    crs: str, bounds: tuple[float, ...], pole: int, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    found = of(crs, *bounds)
    assert (found.bbox[0], found.bbox[2]) == (-180.0, 180.0)
    assert pole in (found.bbox[1], found.bbox[3])
    shape = shapely.geometry.shape(found.geometry)
    assert shape.contains(shapely.Point(inside))
    assert not shape.contains(shapely.Point(outside))


def test_beside_a_pole() -> None:
    found = of("EPSG:3413", 10_000, 10_000, 500_000, 500_000)
    shape = shapely.geometry.shape(found.geometry)
    assert found.bbox[3] < 90
    assert shape.area < 180 * 10


@example("EPSG:32660", 0.98, 0.7217, 142_725.0, 192.17)  # only a tip crosses the line
@example("EPSG:3031", 0.5, 0.5, 10_000.0, 0.0)  # a corner right at the pole
@example("EPSG:3031", 0.5, 0.5, 10_000.0, 0.5)  # the pole just outside
@settings(max_examples=60)
@given(
    st.sampled_from(["EPSG:3413", "EPSG:3031", "EPSG:3832", "EPSG:32601", "EPSG:32660"]),
    st.floats(0.02, 0.98),
    st.floats(0.02, 0.98),
    st.floats(1e4, 2e5),
    st.floats(0, 360),
)
def test_every_pixel_lies_in_the_outline(crs: str, across: float, up: float, size: float, rotation: float) -> None:
    # UTM zones reach over the line on one side; polar grids surround their pole
    polar = crs in ("EPSG:3413", "EPSG:3031")
    x = (across - 0.5) * 4e6 if polar else 166_000 + across * 668_000
    y = (up - 0.5) * 4e6 if polar else up * 9e6 * (0.0 if crs == "EPSG:3832" else 1.0)
    with made(crs, (x, y, x + size, y + size), rotation=rotation) as dataset:
        found = outline(dataset)
        columns, rows = np.meshgrid(np.linspace(1, 15, 8), np.linspace(1, 15, 8))
        xs, ys = dataset.transform @ (columns.ravel(), rows.ravel())
    lon, lat = Transformer.from_crs(crs, "OGC:CRS84", always_xy=True).transform(xs, ys)
    shape = shapely.geometry.shape(found.geometry)
    assert shapely.contains_xy(shape, (lon + 180) % 360 - 180, lat).all()
    west, south, east, north = found.bbox
    wrapped = (lon + 180) % 360 - 180
    in_box = (wrapped >= west) & (wrapped <= east) if west <= east else (wrapped >= west) | (wrapped <= east)
    assert in_box.all()
    assert ((lat >= south) & (lat <= north)).all()


def test_rotated_and_south_up() -> None:
    turned = of("EPSG:32633", 500_000, 5_000_000, 510_000, 5_010_000, rotation=30)
    assert len(turned.geometry["coordinates"][0]) >= 5
    assert shapely.geometry.shape(turned.geometry).area == pytest.approx(
        shapely.geometry.shape(of("EPSG:32633", 500_000, 5_000_000, 510_000, 5_010_000).geometry).area, rel=0.01
    )
    south_up = of("EPSG:4326", 10, 60, 20, 50)
    assert south_up.bbox == [10, 50, 20, 60]


@pytest.mark.parametrize(
    ("crs", "bounds", "metres"),
    [
        ("EPSG:32633", (500_000, 5_000_000, 501_600, 5_001_600), 100.0),
        ("EPSG:3857", (0, 8_399_737, 1600, 8_401_337), 50.0),  # 60° north: a web mercator metre is half a metre
        ("EPSG:4326", (0, -0.08, 0.16, 0.08), 1109.3),
        ("EPSG:2263", (1_000_000, 200_000, 1_001_600, 201_600), 30.48),  # feet
    ],
)
def test_pixels_are_measured_on_the_ground(crs: str, bounds: tuple[float, ...], metres: float) -> None:
    assert of(crs, *bounds).pixel_metres == pytest.approx(metres, rel=2e-3)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_control_points_will_do() -> None:
    points = [
        GroundControlPoint(row=row, col=column, x=10 + column / 10, y=50 - row / 10)
        for row, column in [(0, 0), (0, 16), (16, 0), (16, 16)]
    ]
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=16, height=16, count=1, dtype="uint8") as writing:
            writing.gcps = (points, rasterio.CRS.from_epsg(4326))
        with rasterio.open(memory) as dataset:
            assert georeference(dataset).source == "gcps"
            assert outline(dataset).bbox == pytest.approx([10, 48.4, 11.6, 50], abs=1e-6)


@pytest.mark.parametrize("name", ["no_crs_float64.tif", "rotated_no_crs.tif"])
def test_without_a_crs_there_is_no_place(name: str) -> None:
    with rasterio.open(real(name)) as dataset, pytest.raises(NoItemError, match="no CRS"):
        georeference(dataset)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_crs_alone_is_no_place() -> None:
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=4, height=4, count=1, dtype="uint8", crs="EPSG:4326"):
            pass
        with rasterio.open(memory) as dataset, pytest.raises(NoItemError, match="georeference it first"):
            georeference(dataset)


@pytest.mark.parametrize(
    ("crs", "bounds", "message"),
    [
        ('LOCAL_CS["site",UNIT["metre",1]]', (0, 0, 1, 1), "no way to longitude|cannot be read"),
        ("+proj=geos +h=35785831 +a=6378137 +b=6356752 +units=m", (7e6, 7e6, 9e6, 9e6), "no part"),
        ("EPSG:4326", (10, 95, 20, 99), "no area"),
    ],
)
def test_places_that_are_not_on_earth(crs: str, bounds: tuple[float, float, float, float], message: str) -> None:
    with made(crs, bounds) as dataset, pytest.raises(NoItemError, match=message):
        outline(dataset)
