"""The files that ``vectors`` measures with: points, buildings, large polygons, and the old system's CSV.

What belongs here: making them, the same every time.  What does not: reading or loading them.
"""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import shapely

__all__ = ["DATASETS", "FORMATS", "make", "make_large_csv"]

DATASETS = {"points": 1_000_000, "buildings": 300_000, "complex": 20_000}
"""Name → rows."""
FORMATS = ("gpkg", "parquet", "csv", "geojson")
_WORDS = np.array(
    ["alder", "birch", "cedar", "elder", "hazel", "larch", "maple", "rowan", "willow", "yew", "ábel", "Öl"]
)


def make(folder: Path, name: str, form: str, *, scale: float = 1.0) -> Path:
    """One dataset in one format; made once a folder."""
    path = folder / f"{name}-{scale:g}.{form}"
    if path.exists():
        return path
    frame = _frame(name, max(int(DATASETS[name] * scale), 100))
    partial = path.with_name(f"partial-{path.name}")
    if form == "parquet":
        frame.to_parquet(partial, row_group_size=65_536)
    elif form == "csv":
        _to_csv(frame, partial)
    else:
        frame.to_file(partial, driver={"gpkg": "GPKG", "geojson": "GeoJSON"}[form], engine="pyogrio", layer=name)
    partial.rename(path)
    return path


def _frame(name: str, count: int) -> "geopandas.GeoDataFrame":
    rng = np.random.default_rng(20_24)
    shapes = {"points": _points, "buildings": _buildings, "complex": _complex}[name](rng, count)
    columns = _attributes(rng, count) if name == "points" else _few_attributes(rng, count)
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs="EPSG:4326")


def _attributes(rng: np.random.Generator, count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "serial": np.arange(count, dtype="int64") * 7919 % 10_000_019,
            "zone": rng.integers(1, 60, count),
            "height": rng.normal(100, 30, count).round(3),
            "width": rng.random(count),
            "score": rng.normal(0, 1, count),
            "name": _WORDS[rng.integers(0, len(_WORDS), count)]
            + "-"
            + pd.Series(np.arange(count)).astype(str).to_numpy(),
            "kind": _WORDS[rng.integers(0, len(_WORDS), count)],
            "street": _WORDS[rng.integers(0, len(_WORDS), count)] + " street",
            "town": _WORDS[rng.integers(0, len(_WORDS), count)] + "ton",
            "remark": np.where(rng.random(count) < 0.9, "nothing to say", "look again"),
        }
    )


def _few_attributes(rng: np.random.Generator, count: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "serial": np.arange(count, dtype="int64"),
            "floors": rng.integers(1, 9, count),
            "height": rng.normal(10, 3, count).round(2),
            "use": _WORDS[rng.integers(0, len(_WORDS), count)],
        }
    )


def _points(rng: np.random.Generator, count: int) -> Any:
    return shapely.points(rng.uniform(-170, 170, count).round(7), rng.uniform(-80, 80, count).round(7))


def _rings(rng: np.random.Generator, count: int, corners: int, size: float) -> Any:
    """Closed rings round scattered centres, counter-clockwise, that do not cross themselves."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    # bays and headlands with a little noise: edges that all lie across each other are nobody's coast
    radii = 1 + 0.002 * rng.standard_normal((count, corners))
    for waves in (3, 7, 19):
        radii += rng.uniform(0.02, 0.12, (count, 1)) * np.sin(waves * angles + rng.uniform(0, 6, (count, 1)))
    radii *= size
    x = rng.uniform(-170, 170, count)[:, None] + radii * np.cos(angles)
    y = rng.uniform(-70, 70, count)[:, None] + radii * np.sin(angles)
    closed = np.stack([np.column_stack([x, x[:, :1]]), np.column_stack([y, y[:, :1]])], axis=-1)
    return np.round(closed, 7)


def _buildings(rng: np.random.Generator, count: int) -> Any:
    rings = _rings(rng, count, 12, 0.0002)
    bad = rng.random(count) < 0.005
    rings[bad, 3], rings[bad, 7] = rings[bad, 7].copy(), rings[bad, 3].copy()  # bow-ties
    return shapely.polygons(rings)


def _complex(rng: np.random.Generator, count: int) -> Any:
    made = []
    for start in range(0, count, 1000):
        some = min(1000, count - start)
        rings = _rings(rng, some, int(rng.integers(1000, 1400)), 0.05)
        bad = rng.random(some) < 0.01
        rings[bad, 30], rings[bad, 300] = rings[bad, 300].copy(), rings[bad, 30].copy()
        made.append(shapely.polygons(rings))
    return np.concatenate(made)


def _to_csv(frame: "geopandas.GeoDataFrame", path: Path) -> None:
    plain = pd.DataFrame(frame.drop(columns="geometry"))
    if (frame.geom_type == "Point").all():
        plain["lon"], plain["lat"] = frame.geometry.x, frame.geometry.y
    else:
        plain["wkt"] = shapely.to_wkt(frame.geometry.to_numpy(), rounding_precision=7)
    pa.csv.write_csv(pa.Table.from_pandas(plain, preserve_index=False), path)


def make_large_csv(path: Path, *, rows: int = 2_570_844, width: int = 1_000_000_000) -> Path:
    """The old system's file: so many rows of points with texts, about so many bytes."""
    if path.exists():
        return path
    rng = np.random.default_rng(7)
    partial = path.with_name(f"partial-{path.name}")
    filler = max(width // rows - 170, 10)
    with pa.csv.CSVWriter(partial, _large_schema()) as writer:
        for start in range(0, rows, 200_000):
            count = min(200_000, rows - start)
            plain = _attributes(rng, count)
            plain["serial"] = np.arange(start, start + count)
            letters = rng.integers(97, 123, (count, filler), dtype="uint8")
            plain["description"] = letters.view(f"S{filler}").ravel().astype(str)
            plain["lon"], plain["lat"] = rng.uniform(-170, 170, count).round(7), rng.uniform(-80, 80, count).round(7)
            writer.write_table(pa.Table.from_pandas(plain, schema=_large_schema(), preserve_index=False))
    partial.rename(path)
    return path


def _large_schema() -> pa.Schema:
    fields: list[tuple[str, pa.DataType]] = [("serial", pa.int64()), ("zone", pa.int64())]
    fields += [(name, pa.float64()) for name in ("height", "width", "score")]
    fields += [(name, pa.string()) for name in ("name", "kind", "street", "town", "remark", "description")]
    return pa.schema([*fields, ("lon", pa.float64()), ("lat", pa.float64())])
