"""Coordinate reference systems: reading what users type, comparing, and doubting what cannot be.

What belongs here: pure functions on CRSs and bounds.  What does not: opening files.

What a user types never goes to GDAL as it is: GDAL takes file names and addresses where a CRS is expected.
"""

import math
import re
from collections.abc import Sequence

import pyproj
import rasterio.crs
from pyproj.exceptions import CRSError, ProjError
from rasterio.errors import CRSError as RasterioCRSError

from geo_assets.errors import ParameterError

__all__ = ["crs_name", "doubts_about_bounds", "parse_crs", "same_crs"]

_AUTHORITIES = ("EPSG", "ESRI", "OGC", "IGNF", "NKG", "IAU_2015")
_CODE = re.compile(rf"(?:{'|'.join(_AUTHORITIES)}):[A-Za-z0-9_.]{{1,32}}(?:\+[A-Za-z0-9_.]{{1,32}})?", re.IGNORECASE)
_URN = re.compile(r"urn:ogc:def:crs:[A-Za-z0-9_]{1,16}:[A-Za-z0-9_.]{0,16}:[A-Za-z0-9_.]{1,32}", re.IGNORECASE)
_WKT = re.compile(r"[A-Z][A-Za-z0-9_]{3,24}\s*\[")
_PROJ = re.compile(r"\+?proj=[a-z0-9_]+(?:\s+\+?[a-z0-9_]+(?:=[A-Za-z0-9_.,@:+-]{0,64})?)*\s*", re.IGNORECASE)
_GRID = re.compile(r"grids\s*=\s*(?!@null\b)|geoidgrids|init\s*=|PARAMETERFILE|catalog\s*=", re.IGNORECASE)
_LONGEST = 20_000
_MERCATOR_EDGE = 20_037_508.35
_UTM = re.compile(r"EPSG:32[67]\d\d")
_UTM_WEST, _UTM_EAST = -1_000_000, 2_000_000
_MARGIN_DEGREES = 10.0
"""How far outside its area of use a CRS may be used before anybody is told."""


def parse_crs(text: str) -> rasterio.crs.CRS:
    """Return the CRS that a user typed: ``EPSG:32618``, a bare EPSG code, an OGC URN, WKT, or a PROJ string.

    Raises:
        ParameterError: not a CRS, or one that names grid files; says what is taken.
    """
    given = text.strip()
    wanted = "give a code such as EPSG:32618, WKT, or a PROJ string without grid files"
    if len(given) > _LONGEST:
        raise ParameterError(f"a CRS of {len(given)} characters is too long; {wanted}")
    if re.fullmatch(r"\d{4,6}", given):
        given = f"EPSG:{given}"
    known = _CODE.fullmatch(given) or _URN.fullmatch(given) or _WKT.match(given) or _PROJ.fullmatch(given)
    if not known or _GRID.search(given):
        raise ParameterError(f"'{ascii(given[:80])[1:-1]}' is not a CRS that is taken here; {wanted}")
    try:
        parsed = pyproj.CRS.from_user_input(given)
        found = rasterio.crs.CRS.from_wkt(parsed.to_wkt())
    except (CRSError, RasterioCRSError, ValueError) as error:
        raise ParameterError(f"'{ascii(given[:80])[1:-1]}' is not a known CRS; {wanted}") from error
    if not (found.is_geographic or found.is_projected or parsed.is_bound or parsed.is_compound):
        raise ParameterError(f"'{ascii(given[:80])[1:-1]}' is not a CRS of the Earth's surface; {wanted}")
    return found


def crs_name(crs: rasterio.crs.CRS) -> str:
    """``AUTHORITY:code`` where the CRS has one, else its WKT."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else str(crs.to_wkt())


def same_crs(one: rasterio.crs.CRS, other: rasterio.crs.CRS) -> bool:
    """Whether two CRSs put the same coordinates at the same place, however each is written.

    Axis order and a vertical part do not count: rasters are read in the order east, north.
    """
    if one == other:
        return True
    codes = (one.to_epsg(), other.to_epsg())
    if codes[0] is not None and codes[0] == codes[1]:
        return True
    try:
        flat = [_horizontal(pyproj.CRS.from_wkt(crs.to_wkt())) for crs in (one, other)]
    except (CRSError, RasterioCRSError):
        return False
    if flat[0].equals(flat[1], ignore_axis_order=True):
        return True
    codes = (flat[0].to_epsg(min_confidence=70), flat[1].to_epsg(min_confidence=70))
    return codes[0] is not None and codes[0] == codes[1]


def doubts_about_bounds(crs: rasterio.crs.CRS, bounds: Sequence[float], pixel_size: Sequence[float]) -> str | None:
    """Return why bounds cannot be right in this CRS, as one phrase, or ``None`` where nothing speaks against them.

    Args:
        crs: CRS of the bounds.
        bounds: left, bottom, right, top in its units.
        pixel_size: width and height of a pixel; a grid of pixel centres may stick out by one.
    """
    if not all(math.isfinite(value) for value in bounds):
        return "they are not finite"
    left, bottom, right, top = bounds
    if crs.is_geographic:
        x, y = (max(abs(size), 1e-6) for size in pixel_size)
        if left < -180 - x or right > 180 + x or bottom < -90 - y or top > 90 + y:
            more = " (longitudes from 0 to 360?)" if left >= -x and right <= 360 + x and top <= 90 + y else ""
            return f"longitudes beyond ±180 or latitudes beyond ±90{more}"
        return None
    return _doubts_about_projected(crs, left, bottom, right, top)


def _doubts_about_projected(crs: rasterio.crs.CRS, left: float, bottom: float, right: float, top: float) -> str | None:
    name = crs_name(crs)
    if _UTM.fullmatch(name) and (left < _UTM_WEST or right > _UTM_EAST):
        return f"eastings {left:g} to {right:g} are far outside a UTM zone"
    if name == "EPSG:3857" and max(abs(left), abs(right)) > _MERCATOR_EDGE:
        return "eastings beyond the antimeridian"
    metric = (crs.linear_units_factor or ("", 1.0))[1]
    if all(-180 <= x <= 180 for x in (left, right)) and all(-90 <= y <= 90 for y in (bottom, top)) and metric > 0.1:  # noqa: PLR2004
        return "they look like degrees, but the CRS is in metres or feet"
    return _outside_area_of_use(crs, (left + right) / 2, (bottom + top) / 2)


def _outside_area_of_use(crs: rasterio.crs.CRS, x: float, y: float) -> str | None:
    """Judge the raster's middle: corners may rightly lie beyond the Earth's edge, as in a geostationary picture."""
    try:
        flat = pyproj.CRS.from_wkt(crs.to_wkt())
        geodetic = flat.geodetic_crs
        if geodetic is None:
            return None
        transformer = pyproj.Transformer.from_crs(flat, geodetic, always_xy=True)
        longitude, latitude = transformer.transform(x, y)
        # pyproj looks the area up by code only; the WKT of a file may say it, too
        authority = crs.to_authority()
        area = (pyproj.CRS.from_authority(*authority) if authority else flat).area_of_use
    except (CRSError, ProjError, RasterioCRSError):
        return None
    if not (math.isfinite(longitude) and math.isfinite(latitude)):
        return "their middle is no place on Earth"
    if area is None or area.west > area.east:
        return None
    outside = max(area.west - longitude, longitude - area.east, area.south - latitude, latitude - area.north)
    if outside <= _MARGIN_DEGREES:
        return None
    return f"their middle ({longitude:.1f}°, {latitude:.1f}°) is far from where the CRS is used ({area.name})"


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    if crs.is_compound and crs.sub_crs_list:
        return crs.sub_crs_list[0]
    if crs.is_bound and crs.source_crs is not None:
        return _horizontal(crs.source_crs)
    return crs.to_2d()
