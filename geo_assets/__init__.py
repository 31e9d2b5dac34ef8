"""Containers of geospatial files as a catalog people can trust, on Dagster.

The event batch size is set here because every process of ours (daemon, webserver, code location, run and
step workers, command line) imports this package before it writes a Dagster event, and Dagster reads the
variable each time it stores one.  Set ``DAGSTER_EVENT_BATCH_SIZE`` yourself to choose another size.

``geo_assets.BlobSource`` is the Dagster component, loaded when it is asked for, so that the rest stays a plain library.
"""

import os
from typing import Any

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "BlobSource":
        from geo_assets.assets.blob_source import BlobSource  # noqa: PLC0415 - brings Dagster

        return BlobSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), "BlobSource"])
