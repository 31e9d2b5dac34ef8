"""The sensors of sources: one a source, which looks at its container and queues what came of it.

What belongs here: the Dagster side.  What does not: what a look and a turn mean (``geo_assets.sources``).
"""

from collections.abc import Sequence

import dagster as dg

from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings
from geo_assets.sources.source import Source


def build_source_sensors(settings: Settings, registry: Registry, sources: Sequence[Source]) -> dg.Definitions:
    """The sensor of each source."""
    del settings, registry, sources
    return dg.Definitions()
