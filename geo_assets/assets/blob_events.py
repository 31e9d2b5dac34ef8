"""The sensor ``blob_events``: events of the storage account shorten the wait for a source's next look.

What belongs here: the Dagster side.  What does not: reading the queue (``geo_assets.sources.hints``).
"""

from collections.abc import Sequence

import dagster as dg

from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings
from geo_assets.sources.source import Source


def build_blob_events(settings: Settings, registry: Registry, sources: Sequence[Source]) -> dg.Definitions:
    """The sensor, where a queue is set."""
    del settings, registry, sources
    return dg.Definitions()
