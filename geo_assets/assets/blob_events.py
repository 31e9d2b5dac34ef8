"""The sensor ``blob_events``: events of the storage account shorten the wait for a source's next look.

What belongs here: the Dagster side.  What does not: reading the queue (``geo_assets.sources.hints``).

Which sensors are on is asked with a name Dagster does not promise.  Where an upgrade changed it, sources count as on
or off by their definition, with a warning; a test fails then, so that somebody notices.
"""

import functools
import logging
from collections.abc import Sequence

import dagster as dg

from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.binding import Registry
from geo_assets.settings import Settings
from geo_assets.sources.source import Source

try:
    from dagster._core.definitions.run_request import InstigatorType

    STATES_AVAILABLE = True
except ImportError:  # pragma: no cover - a future Dagster
    STATES_AVAILABLE = False

_log = logging.getLogger(__name__)

SENSOR_NAME = "blob_events"
_INTERVAL_SECONDS = 10


def build_blob_events(settings: Settings, registry: Registry, sources: Sequence[Source]) -> dg.Definitions:
    """The sensor, where a queue is set."""
    del registry
    if settings.events_queue is None:
        return dg.Definitions()

    @dg.sensor(
        name=SENSOR_NAME,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MACHINE},
        description=f"Takes events of the storage account from the queue {settings.events_queue} and looks at once at"
        " what they name, for sources whose own sensor is on. Switch it off and sources are looked at when it is time.",
    )
    def blob_events(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        # the Azure SDK takes half a second to load
        from geo_assets.sources.hints import open_queue, take_hints  # noqa: PLC0415
        from geo_assets.sources.turn import turn  # noqa: PLC0415

        machine = machine_of(context)
        heard = take_hints(
            machine,
            open_queue(machine.settings),
            _switched_on(context, sources),
            turn=functools.partial(turn, configured=[source.name for source in sources]),
        )
        for note in heard.notes:
            context.log.info(note)
        return dg.SkipReason("; ".join([heard.summary, *heard.notes[:5]]))

    return dg.Definitions(sensors=[blob_events])


def _switched_on(context: dg.SensorEvaluationContext, sources: Sequence[Source]) -> list[Source]:
    """The sources whose own sensor is on; one nobody has touched is as its definition says."""
    if not STATES_AVAILABLE:
        _log.warning("blob_events.py cannot ask this Dagster which sensors are on: they count as the sources say")
        return [source for source in sources if not source.paused]
    here = context.code_location_origin
    states = {
        state.instigator_name: state.is_running
        for state in context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        # another code location may have sensors of the same names
        if here is None or state.repository_selector.location_name == here.location_name
    }
    return [source for source in sources if states.get(f"source_{source.name}", not source.paused)]
