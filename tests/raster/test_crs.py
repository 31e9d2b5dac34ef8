"""CRSs as users type them, compared with those of files, and bounds that cannot be.

What belongs here: the pure functions.  What does not: verdicts on files (``test_validate``).
"""

import pytest
from rasterio.crs import CRS

from geo_assets.errors import ParameterError
from geo_assets.raster.crs import crs_name, doubts_about_bounds, parse_crs, same_crs
from tests.raster.conftest import Listener

UTM18 = CRS.from_epsg(32618)
ESRI_UTM18 = (
    'PROJCS["WGS_1984_UTM_Zone_18N",GEOGCS["GCS_WGS_1984",DATUM["D_WGS_1984",SPHEROID["WGS_1984",6378137.0,'
    '298.257223563]],PRIMEM["Greenwich",0.0],UNIT["Degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],'
    'PARAMETER["False_Easting",500000.0],PARAMETER["False_Northing",0.0],PARAMETER["Central_Meridian",-75.0],'
    'PARAMETER["Scale_Factor",0.9996],PARAMETER["Latitude_Of_Origin",0.0],UNIT["Meter",1.0]]'
)


@pytest.mark.parametrize(
    "text",
    [
        "EPSG:32618", "epsg:32618", " 32618 ", "urn:ogc:def:crs:EPSG::32618", ESRI_UTM18, "EPSG:32618+5703",
        "+proj=utm +zone=18 +datum=WGS84 +units=m +no_defs", "proj=utm zone=18 datum=WGS84", UTM18.to_wkt(),
    ],
)  # fmt: skip
def test_every_way_to_write_a_crs_is_the_same_crs(text: str) -> None:
    assert same_crs(parse_crs(text), UTM18)
    assert same_crs(UTM18, parse_crs(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("EPSG:32618", "EPSG:32619"),
        ("EPSG:4326", "EPSG:4269"),
        ("EPSG:3857", "EPSG:4326"),
        ("EPSG:32618", "EPSG:26918"),
    ],
)
def test_different_crss_differ(one: str, other: str) -> None:
    assert not same_crs(parse_crs(one), parse_crs(other))


def test_the_order_of_axes_does_not_count() -> None:
    assert same_crs(parse_crs("EPSG:4326"), parse_crs("OGC:CRS84"))


@pytest.mark.parametrize(
    "text",
    [
        "", "nonsense", "EPSG:999999", "EPSG:", "{url}/crs", "/vsicurl/{url}/crs.wkt", "/etc/passwd",
        "file:/etc/passwd",
        "+init=/etc/passwd:x", "+proj=longlat +nadgrids=/etc/passwd", "+proj=longlat +geoidgrids={url}/x.gtx",
        "ESRI::/vsicurl/{url}/x.prj", "http://www.opengis.net/def/crs/EPSG/0/4326", "EPSG:5703", "EPSG:32618\n{url}",
        "x" * 30_000, '{{"type": "ProjectedCRS"}}', "<gml:ProjectedCRS/>", "PROJCS[",
    ],
)  # fmt: skip
def test_what_is_no_crs_is_refused_and_nothing_is_contacted(text: str, listener: Listener) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_crs(text.format(url=listener.url))
    assert "EPSG:32618" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_crs_without_a_code_is_named_by_its_wkt() -> None:
    albers = parse_crs("+proj=aea +lat_1=29.5 +lat_2=45.5 +lat_0=23 +lon_0=-96 +datum=WGS84")
    assert crs_name(albers).startswith("PROJCS")
    assert crs_name(UTM18) == "EPSG:32618"


@pytest.mark.parametrize(
    ("crs", "bounds", "words"),
    [
        ("EPSG:4326", (-180, -90, 180, 90), None),
        ("EPSG:4326", (-180.1, -90.1, 180.1, 90.1), None),  # a grid of pixel centres, pixels of 0.25
        ("EPSG:4326", (0, -90, 360, 90), "0 to 360"),
        ("EPSG:4326", (500_000, 4_000_000, 600_000, 4_100_000), "beyond ±180"),
        ("EPSG:4326", (0, 80, 10, 95), "beyond ±90"),
        ("EPSG:32618", (100_000, 2_600_000, 340_000, 2_830_000), None),
        ("EPSG:32618", (-1_500_000, 0, -1_400_000, 1000), "UTM zone"),
        ("EPSG:32618", (2_000_100, 0, 2_100_000, 1000), "UTM zone"),
        ("EPSG:32618", (-74, 40, -73, 41), "degrees"),
        ("EPSG:3857", (-20_037_508, -20_037_508, 20_037_508, 20_037_508), None),
        ("EPSG:3857", (20_000_000, 0, 21_000_000, 1000), "antimeridian"),
        ("EPSG:2056", (2_600_000, 1_200_000, 2_700_000, 1_300_000), None),
        ("EPSG:2056", (600_000, 200_000, 700_000, 300_000), "far from where"),
        ("EPSG:27700", (float("nan"), 0, 1, 1), "finite"),
    ],
)
def test_bounds_that_cannot_be_are_doubted(crs: str, bounds: tuple[float, ...], words: str | None) -> None:
    doubt = doubts_about_bounds(parse_crs(crs), bounds, (0.25, -0.25))
    assert (doubt is None) if words is None else (doubt is not None and words in doubt)


def test_a_picture_of_the_whole_disk_is_not_doubted() -> None:
    disk = CRS.from_proj4("+proj=geos +lon_0=-75 +h=35786023 +ellps=GRS80 +sweep=x")
    assert doubts_about_bounds(disk, (-5_434_895, -5_434_895, 5_434_895, 5_434_895), (20_000, -20_000)) is None
