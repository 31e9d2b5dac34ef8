"""The resource that gives Dagster's ops and sensors the CoreMachine: ledger, workflows, services, settings.

What belongs here: opening things once a process.  What does not: what they do.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import dagster as dg

from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine, RunEnded
from geo_assets.settings import Settings, get_settings


@functools.lru_cache(maxsize=4)
def open_ledger(url: str, *, patience_seconds: float) -> Ledger:
    """The ledger at a URL, opened once a process."""
    return Ledger(url, patience_seconds=patience_seconds)


class CoreMachineResource(dg.ConfigurableResource[CoreMachine]):
    """Gives ops, checks and sensors the CoreMachine; made by :func:`core_machine_resource`.

    The ledger's URL may hold a password, so it comes from the settings and never stands in Dagster's config.
    """

    patience_seconds: float = 60.0
    """How long a ledger operation waits for a database that is away or locked."""

    registry: ClassVar[Registry]
    open_services: ClassVar[Callable[[Settings], Mapping[str, Any]]]
    listeners: ClassVar[Sequence[RunEnded]] = ()

    def machine(self) -> CoreMachine:
        """The machine of this process."""
        settings = get_settings()
        kind = type(self)
        return CoreMachine(
            ledger=open_ledger(settings.ledger_sqlalchemy_url, patience_seconds=self.patience_seconds),
            registry=kind.registry,
            settings=settings,
            services=kind.open_services(settings),
            listeners=kind.listeners,
        )


def core_machine_resource(
    registry: Registry,
    services: Callable[[Settings], Mapping[str, Any]],
    *,
    patience_seconds: float = 60.0,
    listeners: Sequence[RunEnded] = (),
) -> CoreMachineResource:
    """A resource for these workflows; ``services`` opens the stores when they are first needed."""
    # on a class of its own, because Dagster copies resources field by field
    own = {"registry": registry, "open_services": staticmethod(services), "listeners": tuple(listeners)}
    made = type("CoreMachine", (CoreMachineResource,), own)
    resource: CoreMachineResource = made(patience_seconds=patience_seconds)
    return resource
