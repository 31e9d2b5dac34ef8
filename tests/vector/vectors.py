"""Finds the real vector files, and reads them in another way than the package does.

What belongs here: paths, and independent readers: pandas, geopandas, and XML by hand.  What does not: making files
(``files``), and tests.
"""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import antimeridian
import geopandas
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import shapely

from tests.services.found import REPOSITORY

__all__ = ["LAYERS", "independent", "real", "require_equal_shapes"]

_REAL = (REPOSITORY.parent / "shared" / "data" / "vectors", REPOSITORY / "geo_assets" / "demo_data")
_KML = "{http://www.opengis.net/kml/2.2}"
_HAIR = 1e-9
"""Degrees: a tenth of a millimetre, where two ways of reprojecting may differ."""


def real(name: str) -> Path:
    """Path of a real vector file; skips the test where it is not there."""
    for folder in _REAL:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not here")


def _ogr(layer: str | None = None) -> Callable[[Path], Any]:
    return lambda path: geopandas.read_file(path, layer=layer)


def _csv(path: Path) -> Any:
    # 'NA' is a country
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    if "wkt" in frame:
        return geopandas.GeoDataFrame(frame, geometry=shapely.from_wkt(frame["wkt"].to_numpy()), crs="EPSG:4326")
    frame[["lat", "lng"]] = frame[["lat", "lng"]].astype("float64")
    return geopandas.GeoDataFrame(frame, geometry=shapely.points(frame["lng"], frame["lat"]), crs="EPSG:4326")


def _kml(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            (name,) = archive.namelist()
            tree = ET.parse(io.BytesIO(archive.read(name)))  # noqa: S314 - of our own files
    else:
        tree = ET.parse(path)  # noqa: S314
    rows = []
    for mark in tree.iter(f"{_KML}Placemark"):
        data = {one.get("name"): one.text for one in mark.iter(f"{_KML}SimpleData")}
        data |= {one.get("name"): one.findtext(f"{_KML}value") for one in mark.iter(f"{_KML}Data")}
        where = mark.findtext(f"{_KML}Point/{_KML}coordinates", "").split(",")
        rows.append(
            {
                "id": mark.get("id"),
                "Name": mark.findtext(f"{_KML}name"),
                "description": mark.findtext(f"{_KML}description"),
                **data,
                "geometry": shapely.Point(float(where[0]), float(where[1])),
            }
        )
    return geopandas.GeoDataFrame(rows, geometry="geometry", crs="EPSG:4326")


_READERS: dict[tuple[str, str], Callable[[Path], Any]] = {
    ("countries_50m.geojson", "countries_50m"): _ogr(),
    ("us_counties.gpkg", "counties"): _ogr("counties"),
    ("us_counties.gpkg", "states"): _ogr("states"),
    ("us_states_wkt.csv", "us_states_wkt"): _csv,
    ("world_cities.csv", "world_cities"): _csv,
    ("german_cities_utm32n.zip", "german_cities"): _ogr(),
    ("swiss_cities.kml", "swiss_cities"): _kml,
    ("swiss_cities.kmz", "swiss_cities"): _kml,
    ("southern_cities.parquet", "southern_cities"): geopandas.read_parquet,
}
LAYERS = {name: [layer for one, layer in _READERS if one == name] for name, _ in _READERS}
"""The real files, and the layers of each."""


def independent(name: str, layer: str) -> Any:
    """One layer of a real file as a GeoDataFrame in EPSG:4326, all of its rows in order, invalid ones repaired."""
    frame = _READERS[name, layer](real(name))
    if frame.crs.is_geographic:
        frame[frame.geometry.name] = [_cut(shape) for shape in frame.geometry]
    bad = ~frame.geometry.is_valid
    frame.loc[bad, frame.geometry.name] = shapely.make_valid(frame.geometry[bad].to_numpy(), method="structure")
    moved = frame.reset_index(drop=True).to_crs("EPSG:4326")
    bad = ~moved.geometry.is_valid
    moved.loc[bad, moved.geometry.name] = shapely.make_valid(moved.geometry[bad].to_numpy(), method="structure")
    return moved


def _cut(shape: Any) -> Any:
    """Cut at the antimeridian where one of its areas goes more than half round the world."""
    west, _, east, _ = shapely.bounds(shapely.get_parts(shape)).T
    if shapely.get_dimensions(shape) < 2 or not (east - west > 180).any():
        return shape
    return shapely.geometry.shape(antimeridian.fix_shape(shape, fix_winding=True))


def require_equal_shapes(got: "npt.NDArray[Any]", wanted: "npt.NDArray[Any]") -> None:
    """Both have the same shapes, whatever the order of their rings and parts."""
    assert len(got) == len(wanted)
    assert (shapely.is_missing(got) == shapely.is_missing(wanted)).all()
    exact = shapely.equals_exact(shapely.normalize(got), shapely.normalize(wanted), tolerance=_HAIR)
    for at in np.flatnonzero(~exact & ~shapely.is_missing(got)):
        # a part or a ring may begin elsewhere, or be cut in two; no area may be lost
        apart = shapely.area(shapely.symmetric_difference(got[at], wanted[at]))
        assert apart <= _HAIR * max(shapely.area(wanted[at]), 1.0), f"row {at}: {got[at]} is not {wanted[at]}"[:500]
        assert shapely.get_dimensions(got[at]) == shapely.get_dimensions(wanted[at])
