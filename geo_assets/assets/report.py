"""The asset ``catalog_report``: the catalog as one page for people who look rather than read.

What belongs here: the Dagster side.  What does not: making the page (``geo_assets.report``).
"""

import dagster as dg

from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings


def build_report(settings: Settings, registry: Registry) -> dg.Definitions:
    """The asset and its job."""
    del settings, registry
    return dg.Definitions()
