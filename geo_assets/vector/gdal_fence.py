"""GDAL as it may be while an uploaded file is open: one driver, and options for untrusted files.

What belongs here: the fence, which is the process's, and the layers GDAL sees behind it.  What does not: which driver a
file is for (``formats``, ``open``), and reading (``ogr_layers``).

A module of its own, for pyogrio is slow to load and half of the formats are read without it.
"""

import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyogrio
from pyogrio._ogr import _register_drivers  # GDALAllRegister, which heeds OGR_SKIP each time
from pyogrio.errors import DataLayerError, DataSourceError

from geo_assets.errors import VectorUnreadableError
from geo_assets.vector.budget import VectorBudget

__all__ = ["HARDENED", "gdal_fence", "layer_names"]

HARDENED: Mapping[str, str] = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # a shapefile's parts and a geodatabase's files are found without
    "GDAL_HTTP_TIMEOUT": "1",
    "GDAL_HTTP_CONNECTTIMEOUT": "1",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "OGR_SQLITE_LOAD_EXTENSIONS": "",
    "OGR_SQLITE_ALLOW_EXTERNAL_ACCESS": "NO",
    "OGR_SQLITE_LIST_VIRTUAL_OGR": "NO",
    "SQLITE_USE_OGR_VFS": "NO",
    "GML_DOWNLOAD_SCHEMA": "NO",
    "GML_SKIP_RESOLVE_ELEMS": "ALL",
    "LIBKML_RESOLVE_STYLE": "NO",
    "LIBKML_EXTERNAL_STYLE": "NO",
    "LIBKML_READ_GROUND_OVERLAY": "NO",
    "SHAPE_RESTORE_SHX": "NO",
    "PROJ_NETWORK": "OFF",
}
"""GDAL options for untrusted files."""

_SKIPPED = "OGR_SKIP"


class _Fence:
    """GDAL's drivers and options while files are open; the process's, so files open at once share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[str | None] = Counter()
        self._before: dict[str, str | None] = {}

    def enter(self, driver: str | None, options: Mapping[str, str]) -> None:
        """Leave this driver, and those of files that are open, and harden the options."""
        with self._lock:
            if not self._open:
                self._before = {key: pyogrio.get_gdal_config_option(key) for key in options}
            pyogrio.set_gdal_config_options(dict(options))
            self._open[driver] += 1
            self._keep(set(self._open))

    def leave(self, driver: str | None) -> None:
        """Undo :meth:`enter`; all is as it was when the last file is closed."""
        with self._lock:
            self._open[driver] -= 1
            self._open += Counter()  # drops those at zero
            if self._open:
                self._keep(set(self._open))
            else:
                self._register(None)
                pyogrio.set_gdal_config_options(self._before)

    def _keep(self, drivers: set[str | None]) -> None:
        self._register("")
        self._register(",".join(name for name in pyogrio.list_drivers() if name not in drivers))
        left = set(pyogrio.list_drivers())
        if left != drivers - {None}:
            raise VectorUnreadableError(
                f"GDAL has the drivers {sorted(left)} where it should have {sorted(filter(None, drivers))} only"
            )

    @staticmethod
    def _register(skipped: str | None) -> None:
        """Register all drivers but some; with ``None`` all but those that the environment skips, as it was."""
        pyogrio.set_gdal_config_options({_SKIPPED: skipped})
        _register_drivers()


_FENCE = _Fence()


@contextmanager
def gdal_fence(driver: str | None, budget: VectorBudget) -> Iterator[None]:
    """Within it pyogrio has this driver only (none at all with ``None``), and options for untrusted files."""
    most = str(max(budget.feature_bytes >> 20, 1))
    _FENCE.enter(driver, {**HARDENED, "OGR_GEOJSON_MAX_OBJ_SIZE": most})
    try:
        yield
    finally:
        _FENCE.leave(driver)


def layer_names(path: Path, driver: str) -> list[str]:
    """The layers of a file, behind the fence.

    Raises:
        VectorUnreadableError: the driver cannot open it.
    """
    try:
        return [str(name) for name, _ in pyogrio.list_layers(path)]
    except (DataSourceError, DataLayerError, OSError) as error:
        message = str(error).replace(os.fspath(path), "the file")
        raise VectorUnreadableError(f"the {driver} driver cannot open the file: {message}") from error
