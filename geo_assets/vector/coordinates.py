"""Coordinates and the CRS they are said to be in: reprojection, and what contradicts the CRS.

What belongs here: transformations of coordinate arrays, and the judgement whether numbers can be coordinates in a CRS.
What does not: geometries (``geometry``), and reading what users type as a CRS (``raster.crs``).

Coordinates are always in the order east, north, whatever the axes of a CRS: that is how all our readers give them.
"""

import functools
import math
import warnings
from typing import Final

import numpy as np
import numpy.typing as npt
import pyproj
from pyproj.exceptions import ProjError
from pyproj.transformer import TransformerGroup

from geo_assets.errors import VectorRefusedError

__all__ = ["Reprojection", "StrayDegrees", "crs_label", "explain_impossible", "impossible", "in_degrees", "layer_doubt"]

_FAR_DEGREES: Final = 10.0
"""How far outside its area of use a CRS may be used before anybody is told."""
_METRES: Final = 1000.0
"""Beyond so many degrees a number is no mistyped degree."""
_POLAR: Final = 85.0
_SAMPLE: Final = 1000
_MOST: Final = 0.9
"""Share of a layer that counts as all of it."""
_TOLERANCE: Final = 1e-9

type Floats = npt.NDArray[np.float64]
type Mask = npt.NDArray[np.bool_]


class Reprojection:
    """From one CRS to another, horizontally; heights stay as they are. Grid files are never fetched.

    Args:
        source: of the coordinates.
        target: wanted.

    Raises:
        VectorRefusedError: ``CRS_UNUSABLE``: there is no way between them; ``CRS_GEOCENTRIC``: one of them has three
            axes from the Earth's centre, and no horizontal part.
    """

    def __init__(self, source: pyproj.CRS, target: pyproj.CRS) -> None:
        _refuse_geocentric(source, target)
        self.source, self.target = _horizontal(source), _horizontal(target)
        notes: list[str] = []
        if len(source.axis_info) > 2:  # noqa: PLR2004
            notes.append(f"heights were left as they are: only the horizontal part of {crs_label(source)} was used")
        self._transformer: pyproj.Transformer | None = None
        if not _same(self.source, self.target):
            transformer = _transformer(self.source, self.target)
            # nothing to compute between, say, ETRS89 and WGS 84, so bytes can stay
            self._transformer = None if transformer.definition.startswith("proj=noop") else transformer
            notes += _missing_grids(self.source, self.target)
        self.notes = tuple(notes)
        """What somebody should know of it."""

    @property
    def needed(self) -> bool:
        """Whether it changes coordinates."""
        return self._transformer is not None

    def __call__(self, xy: Floats) -> Floats:
        """Transform (n, 2); what has no place in the target becomes infinite or NaN."""
        if self._transformer is None:
            return xy
        return np.column_stack(self._transformer.transform(xy[:, 0], xy[:, 1]))


def crs_label(crs: pyproj.CRS) -> str:
    """``AUTHORITY:code`` where the CRS has one, else its name."""
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def _refuse_geocentric(*systems: pyproj.CRS) -> None:
    for crs in systems:
        if crs.is_geocentric:
            raise VectorRefusedError(
                f"{crs_label(crs)} is geocentric: x, y and z from the centre of the Earth, which tables do not take;"
                " convert the layer first, for instance with ogr2ogr -t_srs EPSG:4979",
                code="CRS_GEOCENTRIC",
            )


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    if crs.is_compound and crs.sub_crs_list:
        return _horizontal(crs.sub_crs_list[0])
    return crs.to_2d()


def _same(one: pyproj.CRS, other: pyproj.CRS) -> bool:
    if one.equals(other, ignore_axis_order=True):
        return True
    codes = one.to_epsg(), other.to_epsg()
    return codes[0] is not None and codes[0] == codes[1]


@functools.lru_cache(maxsize=64)
def _transformer(source: pyproj.CRS, target: pyproj.CRS) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        raise VectorRefusedError(
            f"there is no way from the CRS {crs_label(source)} to {crs_label(target)} (a local or engineering CRS?):"
            " give the CRS that the coordinates are in",
            code="CRS_UNUSABLE",
        ) from error


def _missing_grids(source: pyproj.CRS, target: pyproj.CRS) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ways = TransformerGroup(source, target, always_xy=True)
    if ways.best_available or not ways.unavailable_operations or not ways.transformers:
        return []
    best, used = ways.unavailable_operations[0], ways.transformers[0]
    exact = f"{best.name} ({best.accuracy:g} m) needs grid files that are not installed"
    return [f"{exact}; without, places are right to about {used.accuracy:g} m"]


def in_degrees(crs: pyproj.CRS) -> bool:
    """Whether coordinates are degrees of longitude and latitude."""
    return bool(crs.is_geographic) and crs.axis_info[0].unit_name == "degree"


def impossible(xy: Floats, crs: pyproj.CRS) -> Mask | None:
    """Which coordinates (n, 2) cannot be any in this CRS; ``None``: all can."""
    if crs.is_geographic:
        # a quarter turn in the unit of the CRS, which may be the grad
        quarter = math.pi / 2 / crs.axis_info[0].unit_conversion_factor + _TOLERANCE
        good = (np.abs(xy[:, 0]) <= 4 * quarter) & (np.abs(xy[:, 1]) <= quarter)
    elif np.isfinite(xy).all():
        return None
    else:
        good = np.isfinite(xy).all(axis=1)
    return None if good.all() else ~good


def explain_impossible(xy: Floats, reprojection: Reprojection) -> str:
    """What coordinates that are all impossible look like, as a phrase that goes on "coordinates that …".

    Args:
        xy: the impossible ones, in the source CRS.
        reprojection: what was to become of them.
    """
    source = reprojection.source
    finite = xy[np.isfinite(xy).all(axis=1)]
    if not len(finite):
        return "are not finite (NaN or infinity): correct these rows, or have them dropped"
    x, y = np.abs(finite[:, 0]), np.abs(finite[:, 1])
    if not source.is_geographic and (x <= 180).all() and (y <= 90).all():  # noqa: PLR2004
        return (
            f"look like degrees among others in {crs_label(source)}, whose unit is the"
            f" {source.axis_info[0].unit_name}: correct these rows, or have them dropped"
        )
    if not source.is_geographic:
        target = crs_label(reprojection.target)
        return f"do not transform to {target}: is {crs_label(source)} the CRS they are in?"
    if (x <= 90).all() and (y <= 360).all():  # noqa: PLR2004
        return "look like latitude and longitude swapped: x must be the longitude; exchange them"
    if (np.maximum(x, y) >= _METRES).all():
        return f"look like metres in a CRS of degrees, {crs_label(source)}: give the CRS they are in"
    return "are no longitude and latitude: correct these rows, or have them dropped"


def layer_doubt(xy: Floats, crs: pyproj.CRS) -> str | None:
    """Why the coordinates of a layer as a whole cannot be in its CRS, as a phrase; ``None``: nothing speaks against.

    Args:
        xy: coordinates (n, 2), possible ones, one or more a row.
        crs: of them, horizontal.
    """
    if not len(xy):
        return None
    if not crs.is_geographic:
        doubt = _degrees(xy, crs)
        if doubt is not None:
            return doubt
    sample = xy[:: max(1, len(xy) // _SAMPLE)]
    far = _inside_share(sample, crs, _FAR_DEGREES) < 1 - _MOST
    if far and _inside_share(sample[:, ::-1], crs, 0.0) > _MOST:
        pair = "latitude and longitude" if crs.is_geographic else "x and y"
        return (
            f"all lie far outside the area where {crs_label(crs)} is used, and inside it when exchanged:"
            f" {pair} look swapped; exchange them"
        )
    return None


class StrayDegrees:
    """Finds, in the batches of a layer in a plane, coordinates that are degrees among others that are not.

    Args:
        crs: of the layer, horizontal.
    """

    def __init__(self, crs: pyproj.CRS) -> None:
        self._crs = crs
        self._looked_for = not crs.is_geographic and crs.to_authority() is not None and _area(crs) is not None
        self._others_inside = False

    def __call__(self, xy: Floats) -> Mask | None:
        """Which coordinates (n, 2) of a batch are; ``None``: none."""
        if not self._looked_for:
            return None
        small = (np.abs(xy[:, 0]) <= 180) & (np.abs(xy[:, 1]) <= 90)  # noqa: PLR2004
        if not self._others_inside:
            others = xy[~small & np.isfinite(xy).all(axis=1)]
            sample = others[:: max(1, len(others) // _SAMPLE)]
            self._others_inside = len(sample) > 0 and _inside_share(sample, self._crs, _FAR_DEGREES) > _MOST
        if not self._others_inside or not small.any():
            return None
        inside = _inside(xy[small], self._crs, _FAR_DEGREES)
        if inside is None or inside.all():
            return None
        small[small] = ~inside
        return small


def _degrees(xy: Floats, crs: pyproj.CRS) -> str | None:
    """Degrees in a CRS of metres: all within so many metres of its origin, where nobody has data.

    Near a pole somebody may; and so may a local CRS, which no authority knows.
    """
    low, high = xy.min(axis=0), xy.max(axis=0)
    if low[0] < -180 or high[0] > 180 or low[1] < -90 or high[1] > 90 or not xy.any():  # noqa: PLR2004
        return None
    if crs.to_authority() is None:
        return None
    place = _lonlat(np.zeros((1, 2)), crs)
    if place is not None and abs(place[0, 1]) > _POLAR:
        return None
    unit = crs.axis_info[0].unit_name
    return f"look like degrees, but the unit of {crs_label(crs)} is the {unit}: give the CRS they are in"


def _lonlat(xy: Floats, crs: pyproj.CRS) -> Floats | None:
    if crs.is_geographic:
        return xy
    if crs.geodetic_crs is None:
        return None
    return np.column_stack(_transformer(crs, crs.geodetic_crs.to_2d()).transform(xy[:, 0], xy[:, 1]))


@functools.lru_cache(maxsize=64)
def _area(crs: pyproj.CRS) -> tuple[float, float, float, float] | None:
    """West, south, east and north of where a CRS is used, if that is known and does not cross the antimeridian."""
    # WKT without it may still name a CRS that is known
    authority = crs.to_authority()
    area = (pyproj.CRS.from_authority(*authority) if authority else crs).area_of_use
    return None if area is None or area.west >= area.east else area.bounds


def _inside_share(xy: Floats, crs: pyproj.CRS, margin: float) -> float:
    """Share of the coordinates within ``margin`` degrees of the area where a CRS is used; NaN: it is not known."""
    inside = _inside(xy, crs, margin)
    return float("nan") if inside is None else float(inside.mean())


def _inside(xy: Floats, crs: pyproj.CRS, margin: float) -> Mask | None:
    """Which coordinates are within ``margin`` degrees of the area where a CRS is used; ``None``: it is not known."""
    area, place = _area(crs), _lonlat(xy, crs)
    if area is None or place is None:
        return None
    inside = (place >= np.subtract(area[:2], margin)) & (place <= np.add(area[2:], margin))
    found: Mask = inside.all(axis=1)
    return found
