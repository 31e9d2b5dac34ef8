"""Containers of geospatial files as a catalog people can trust, on Dagster.

The event batch size is set here because every process of ours (daemon, webserver, code location, run and
step workers, command line) imports this package before it writes a Dagster event, and Dagster reads the
variable each time it stores one.  Set ``DAGSTER_EVENT_BATCH_SIZE`` yourself to choose another size.
"""

import os

os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")

__version__ = "0.1.0"
