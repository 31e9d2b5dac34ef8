"""Rasters for the item tests: real ones where they are, and small ones made in memory.

What belongs here: finding and making datasets.  What does not: opening files nobody trusts (``tests.raster``).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.io import MemoryFile

from tests.services.found import REPOSITORY

_FOLDERS = (
    REPOSITORY.parent / "shared/data/rasters",
    REPOSITORY / "geo_assets/demo_data",
    REPOSITORY / "tests/data/rasters",
)

GEOREFERENCED = (
    "aerial_rgba_uint16_utm12n.tif",
    "albers_int16_nodata.tif",
    "alpha_3857.tif",
    "elevation_float64_4326.tif",
    "goes_geostationary.tif",
    "hillshade_3857.tif",
    "landcover_palette_laea.tif",
    "landsat_rgb_utm18n.tif",
    "landsat_rgba_utm18n.tif",
    "world_byte_4326.tif",
)


def real(name: str) -> Path:
    """Path of a real raster; skips the test where it is not."""
    for folder in _FOLDERS:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not here")


@contextmanager
def made(
    crs: str | None,
    bounds: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    *,
    values: Any = None,
    rotation: float = 0.0,
    **profile: Any,
) -> Iterator[Any]:
    """An open dataset over ``bounds`` (left, bottom, right, top), of 16 by 16 pixels unless ``values`` are given."""
    pixels = np.asarray(np.arange(256, dtype="uint8").reshape(16, 16) if values is None else values)
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    count, height, width = pixels.shape
    left, bottom, right, top = bounds
    transform = (
        Affine.translation(left, top)
        @ Affine.rotation(rotation)
        @ Affine.scale((right - left) / width, (bottom - top) / height)
    )
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=width,
            height=height,
            count=count,
            dtype=pixels.dtype,
            crs=crs,
            transform=transform,
            **profile,
        ) as writing:
            writing.write(pixels)
        with rasterio.open(memory) as dataset:
            yield dataset
