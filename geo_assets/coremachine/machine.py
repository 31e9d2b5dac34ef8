"""The parts a CoreMachine is made of, handed around as one value.

What belongs here: the value.  Its Dagster resource is ``geo_assets.resources.core_machine``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geo_assets.coremachine.binding import Binding, Registry
from geo_assets.coremachine.ledger import Ledger
from geo_assets.settings import Settings

RunEnded = Callable[["CoreMachine", str, Sequence[Mapping[str, Any]]], None]
"""Told when the jobs of a run have ended: job type and their parameters. May be told twice."""


@dataclass(frozen=True, kw_only=True)
class CoreMachine:
    """Ledger, registered workflows, settings, and the services (stores, clients) that handlers get by name."""

    ledger: Ledger
    registry: Registry
    settings: Settings
    services: Mapping[str, Any]
    listeners: Sequence[RunEnded] = ()
    """Told of every run that ends."""

    def finish_run(self, binding: Binding, jobs: Sequence[Mapping[str, Any]]) -> None:
        """Do what is done once a run: by the workflow, and by those who want to know of it."""
        binding.finish_run(jobs, self.services)
        for tell in self.listeners:
            tell(self, binding.job_type, jobs)
