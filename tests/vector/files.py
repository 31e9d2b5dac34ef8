"""Small vector files for tests, good ones and bad ones.

What belongs here: making them.  What does not: what becomes of them (the tests).
"""

import sqlite3
import struct
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import shapely

from geo_assets.settings import Settings
from geo_assets.vector.open import VectorBudget

BUDGET = VectorBudget.from_settings(Settings())

POINT = '{"type":"Feature","properties":{"a":1},"geometry":{"type":"Point","coordinates":[7,47]}}'
COLLECTION = f'{{"type":"FeatureCollection","features":[{POINT}]}}'
CSV_TEXT = "name,lat,lon\nBern,46.9,7.4\nBasel,47.6,7.6\n"
PLACEMARK = "<Placemark><name>here</name><Point><coordinates>7,47</coordinates></Point></Placemark>"


def kml(body: str = PLACEMARK, *, prolog: str = '<?xml version="1.0" encoding="UTF-8"?>\n') -> str:
    return (
        f'{prolog}<kml xmlns="http://www.opengis.net/kml/2.2"><Document><Folder><name>places</name>{body}</Folder>'
        "</Document></kml>"
    )


def write(path: Path, driver: str, *, rows: int = 20, layer: str | None = None, append: bool = False) -> Path:
    """A file of points with the attributes ``number`` and ``text``."""
    at = np.linspace(5, 10, rows)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(shapely.points(at, at + 40)),
        field_data=[np.arange(rows, dtype="int32"), np.array(["é"] * rows, dtype=object)],
        fields=["number", "text"],
        geometry_type="Point",
        crs="EPSG:4326",
        driver=driver,
        layer=layer,
        append=append,
        encoding="UTF-8",
    )
    return path


def shapefile(folder: Path, stem: str = "vector", *, rows: int = 20) -> Path:
    folder.mkdir(exist_ok=True)
    return write(folder / f"{stem}.shp", "ESRI Shapefile", rows=rows)


def vrt(source: str) -> str:
    return (
        f'<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>{source}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )


def renamed(path: Path, old: str, new: str) -> Path:
    """Give a layer of a GeoPackage a name that GDAL does not write."""
    quoted = new.replace('"', '""')
    with closing(sqlite3.connect(path)) as connection:
        drop_triggers(connection)
        connection.execute(f'ALTER TABLE "{old}" RENAME TO "{quoted}"')
        for table in ("gpkg_contents", "gpkg_geometry_columns", "gpkg_ogr_contents"):
            connection.execute(f"UPDATE {table} SET table_name = ?", (new,))  # noqa: S608 - names of ours
        connection.execute("DELETE FROM gpkg_extensions")
        connection.commit()
    return path


def drop_triggers(connection: sqlite3.Connection) -> None:
    """They call functions of GDAL's."""
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        connection.execute(f'DROP TRIGGER "{name}"')


def zipped(path: Path, entries: Mapping[str, Any] | Iterable[tuple[str | zipfile.ZipInfo, bytes | str]]) -> Path:
    """A zip file of texts and bytes; pairs may repeat names."""
    pairs = entries.items() if isinstance(entries, Mapping) else entries
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in pairs:
            archive.writestr(name, content)
    return path


def zipped_folder(path: Path, folder: Path, *, below: str = "") -> Path:
    return zipped(
        path,
        {f"{below}{one.relative_to(folder)}": one.read_bytes() for one in sorted(folder.rglob("*")) if one.is_file()},
    )


def patched(path: Path, at: int, form: str, *values: Any) -> Path:
    """Overwrite some bytes of a file."""
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, at if at >= 0 else len(content) + at, *values)
    path.write_bytes(content)
    return path
