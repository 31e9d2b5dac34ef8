"""The sensors of sources: one a source, which looks at its container and queues what came of it.

What belongs here: the Dagster side.  What does not: what a look and a turn mean (``geo_assets.sources``), and what
partitions say of blobs that are gone (``source_presence``).
"""

import json
import time
from collections.abc import Sequence

import dagster as dg

from geo_assets.assets.source_presence import tell_presence
from geo_assets.assets.source_readable import build_readable_checks, tell_readable
from geo_assets.assets.sources import sensor_page, source_key, what_is_watched
from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.binding import Registry, binding_for
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.redaction import redact
from geo_assets.settings import Settings
from geo_assets.sources.look import is_of_a_look
from geo_assets.sources.register import Register
from geo_assets.sources.source import Source
from geo_assets.sources.standing import standing_of
from geo_assets.sources.tick import Ticked, tick

__all__ = ["build_source_sensors"]

_INTERVAL = 30
"""Longest pause between ticks: what waits has its turn then, whether or not a look is due."""
_SECONDS = 50.0
"""How long a tick may take; Dagster ends it after 60."""
_TELL_SECONDS = 8.0
_CURSOR = 1
_MOST_HELD = 20
"""Names told of what waits or is refused."""
_SENSOR = "source_"


def build_source_sensors(settings: Settings, registry: Registry, sources: Sequence[Source]) -> dg.Definitions:
    """The sensor of each source, and the check that it evaluates."""
    del settings
    return dg.Definitions(
        sensors=[_sensor(source, registry) for source in sources], asset_checks=build_readable_checks(sources)
    )


def _sensor(source: Source, registry: Registry) -> dg.SensorDefinition:
    binding = binding_for(registry, source.workflow)
    where = source.container + (f", names that start with '{source.prefix}'" if source.prefix else "")

    @dg.sensor(
        name=f"{_SENSOR}{source.name}",
        asset_selection=dg.AssetSelection.assets(dg.AssetKey.from_user_string(binding.asset)),
        minimum_interval_seconds=min(source.every_seconds, _INTERVAL),
        default_status=dg.DefaultSensorStatus.STOPPED if source.paused else dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MACHINE},
        description=f"Looks at the container {where}, and queues {source.workflow} for what is new or changed; the"
        " sensor queued_jobs starts the runs. Switch it off to pause the source; nothing is lost.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        machine = machine_of(context)
        ends = time.monotonic() + _SECONDS
        configured = _configured(context, source)
        due = _is_due(_looked_at(context.cursor), source) and _is_due(_doubtful_since(machine, source), source)
        ticked = tick(machine, source, due=due, configured=configured)
        left = min(ends - time.monotonic(), _TELL_SECONDS)
        gone, back = tell_presence(machine, context.instance, source, seconds=left, configured=configured)
        texts = [ticked.text] if ticked.text else []
        if gone or back:
            texts.append(f"partitions told: {gone:,} gone, {back:,} back")
        if ticked.problem or ticked.looked:
            again = tell_readable(context.instance, source, ticked.problem)
            texts += [again] if again else []
        changed = ticked.changed or bool(gone or back)
        warning = _too_many_keys(machine, context.instance, source) if changed or ticked.looked else ""
        if warning:
            texts.append(warning)
        text = "; ".join(texts) or "nothing waits, and no look is due"
        if changed or warning or not ticked.is_quiet:
            # where people look: the reason of a tick without runs is shown nowhere
            context.log.info(text)
        told = [_observation(context, machine, source, ticked, text)] if changed else []
        if ticked.problem:
            # a tick that fails keeps neither its events nor its cursor: where nothing can be looked at, each tick tries
            for observation in told:
                context.instance.report_runless_asset_event(observation)
            raise dg.Failure(description=text, allow_retries=False)
        return dg.SensorResult(skip_reason=text, cursor=_cursor(context.cursor, ticked), asset_events=told)

    return watch


def _configured(context: dg.SensorEvaluationContext, source: Source) -> list[str]:
    """Names of the sources of this code location, those of components among them: each has a sensor."""
    here = context.repository_def
    sensors = [sensor.name for sensor in here.sensor_defs] if here is not None else []
    return [source.name, *(name.removeprefix(_SENSOR) for name in sensors if name.startswith(_SENSOR))]


def _is_due(looked: float, source: Source) -> bool:
    """Whether it is time for a look, after one that was then."""
    # a tick that comes a little early shall not wait for the one after
    return not 0 <= time.time() - looked < source.every_seconds - min(source.every_seconds, _INTERVAL) / 2


def _doubtful_since(machine: CoreMachine, source: Source) -> float:
    """When the latest look was made, if it has a problem and is of the source as it is now; else 0."""
    last = Register(machine.ledger, source.name).last_look()
    if last.looked_at is None or last.definition != source.definition or not is_of_a_look(last.error):
        return 0.0
    return last.looked_at.timestamp()


def _looked_at(cursor: str | None) -> float:
    """When the latest look was made that was well; without a cursor that is understood, 0."""
    try:
        found = json.loads(cursor or "")
        return float(found["looked_at"]) if found["version"] == _CURSOR else 0.0
    except (ValueError, TypeError, KeyError):
        return 0.0  # damaged, or of another version: the register is the truth


def _cursor(before: str | None, ticked: Ticked) -> str:
    looked_at = time.time() if ticked.looked else _looked_at(before)
    return json.dumps({"version": _CURSOR, "sequence": ticked.sequence, "looked_at": looked_at})


def _too_many_keys(machine: CoreMachine, instance: dg.DagsterInstance, source: Source) -> str:
    partition_set = binding_for(machine.registry, source.workflow).partition_set
    count, limit = len(instance.get_dynamic_partitions(partition_set)), machine.settings.partition_keys_limit
    if count <= limit:
        return ""
    return (
        f"{partition_set} has {count:,} partition keys, more than {limit:,} (GEO_ASSETS_PARTITION_KEYS_LIMIT): pages of"
        " the UI are slow; narrow the source, or take partitions back"
    )


def _observation(
    context: dg.SensorEvaluationContext, machine: CoreMachine, source: Source, ticked: Ticked, text: str
) -> dg.AssetObservation:
    origin = context.code_location_origin
    where = {} if origin is None else {"location": origin.location_name}
    found = ticked.look
    changes = {} if found is None else {f"geo/{name}": getattr(found, name) for name in ("new", "changed", "removed")}
    states = {
        f"geo/{state.value.replace(' ', '_')}": n for state, n in standing_of(machine.ledger, source.name).items()
    }
    held = _held(machine, source, ticked)
    return dg.AssetObservation(
        asset_key=source_key(source.name),
        description=text,
        metadata={
            "geo/watches": what_is_watched(source),
            "geo/sensor": sensor_page(machine.settings, source.name, **where),
            **changes,
            **states,
            **({"geo/held": held} if held is not None else {}),
            "geo/sequence": ticked.sequence,
        },
    )


def _held(machine: CoreMachine, source: Source, ticked: Ticked) -> dg.TableMetadataValue | None:
    """The first that wait or are refused, and why."""
    held = Register(machine.ledger, source.name).held(limit=_MOST_HELD)
    if not held:
        return None
    stable = f"waits to be seen unchanged for {source.stable_seconds:g} s" if source.stable_seconds else ""
    otherwise = ticked.turned.note or stable or ticked.turned.problem or "waits for its turn"
    records = [
        dg.TableRecord({"name": one.name, "state": one.state.value, "reason": redact(one.reason or otherwise)})
        for one in held
    ]
    return dg.MetadataValue.table(records)
