"""Makes rasters for tests, and finds the real ones.

What belongs here: writing small files with rasterio, and files that only look like rasters.  What does not: tests.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rasterio.shutil
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from geo_assets.raster.open import RasterBudget
from geo_assets.raster.validate import validate_raster_file
from geo_assets.settings import Settings
from tests.services.found import REPOSITORY

Pixels = npt.NDArray[Any]

BUDGET = RasterBudget.from_settings(Settings())
UTM = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}
_REAL = (
    REPOSITORY.parent / "shared" / "data" / "rasters",
    REPOSITORY / "geo_assets" / "demo_data",
    REPOSITORY / "tests" / "data" / "rasters",
)


def real(name: str) -> Path:
    """Path of a real raster; skips the test where it is not there."""
    for folder in _REAL:
        if (folder / name).exists():
            return folder / name
    pytest.skip(f"{name} is not here")


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> Pixels:
    """Random pixels over the type's range (floats: 0 to 1)."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)
    return rng.random(shape).astype(dtype)


def hills(size: int = 256, *, low: float = 100.0, high: float = 900.0) -> npt.NDArray[np.float64]:
    """A smooth surface."""
    x, y = np.meshgrid(np.linspace(0, 3, size), np.linspace(0, 3, size))
    surface = np.sin(x * 2) * np.cos(y * 1.5) + 0.3 * np.sin(5 * x + y)
    return low + (high - low) * (surface - surface.min()) / (surface.max() - surface.min())


def fields(size: int = 256, *, classes: int = 7, patch: int = 16, seed: int = 1) -> Pixels:
    """Patches of class labels."""
    labels = np.random.default_rng(seed).integers(1, classes, (size // patch, size // patch), endpoint=True)
    grown: Pixels = np.kron(labels, np.ones((patch, patch), dtype=labels.dtype))
    return grown


def write(path: Path, pixels: Pixels, **profile: Any) -> Path:
    """Write a GeoTIFF (or what ``driver`` says), in UTM unless the profile says otherwise."""
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    options = {"driver": "GTiff", "dtype": pixels.dtype.name, **UTM, **profile}
    tags = options.pop("tags", {})
    band_options = {name: options.pop(name) for name in ("colorinterp", "units", "descriptions") if name in options}
    bands, height, width = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", count=bands, height=height, width=width, **options) as dataset:
            dataset.write(pixels)
            for namespace, values in tags.items():
                dataset.update_tags(ns=namespace, **values)
            for name, value in band_options.items():
                setattr(dataset, name, value)
    return path


def convert(source: Path, path: Path, driver: str, **options: Any) -> Path:
    """Copy a raster into another format, without sidecars."""
    with warnings.catch_warnings(), rasterio.Env(GDAL_PAM_ENABLED="NO"):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rasterio.shutil.copy(source, path, driver=driver, **options)
    return path


def verdict(path: Path, **params: Any) -> dict[str, Any]:
    """The validation's answer."""
    return validate_raster_file({"path": str(path), "budget": BUDGET.as_dict(), "name": path.name, **params})


def valid(path: Path, **params: Any) -> dict[str, Any]:
    """The result of a validation that must say valid."""
    answer = verdict(path, **params)
    assert answer["success"], answer
    result: dict[str, Any] = answer["result"]
    assert result["valid"] is True
    return result


def invalid(path: Path, code: str, **params: Any) -> dict[str, Any]:
    """The answer of a validation that must say invalid with this code."""
    answer = verdict(path, **params)
    assert not answer["success"], answer
    assert (answer["outcome"], answer["error"]) == ("invalid", code), answer
    assert answer["reason"] == f"{code}: {answer['message']}"
    return answer


def warnings_of(result: dict[str, Any]) -> dict[str, str]:
    """Warning types and their severities."""
    return {warning["type"]: warning["severity"] for warning in result["warnings"]}
