"""The parts a CoreMachine is made of, handed around as one value.

What belongs here: the value.  Its Dagster resource is ``geo_assets.resources.core_machine``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.ledger import Ledger
from geo_assets.settings import Settings


@dataclass(frozen=True, kw_only=True)
class CoreMachine:
    """Ledger, registered workflows, settings, and the services (stores, clients) that handlers get by name."""

    ledger: Ledger
    registry: Registry
    settings: Settings
    services: Mapping[str, Any]
