"""The job ``clean_up`` and its schedule: what nobody needs any more is removed.

What belongs here: the Dagster side.  What does not: what that is (``geo_assets.clean_up``).
"""

import dagster as dg

from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings


def build_clean_up(settings: Settings, registry: Registry) -> dg.Definitions:
    """The job and its schedule."""
    del settings, registry
    return dg.Definitions()
