"""Partitions say that their blob is gone, or back: an observation and the check ``source_present``.

What belongs here: writing these events.  What does not: noticing (``geo_assets.sources.look``), the check as an asset's
page shows it (``checks``), and what becomes of what was made (``geo_assets.sources.removal``).
"""

import time
from collections.abc import Collection, Sequence

import dagster as dg

from geo_assets.checking.catalogue import all_checks
from geo_assets.checking.names import SOURCE_PRESENT
from geo_assets.coremachine import events
from geo_assets.coremachine.binding import binding_for
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.sources.register import Presence, Register
from geo_assets.sources.rules import grain
from geo_assets.sources.source import Source

__all__ = ["tell_presence"]

_BATCH = 50


def tell_presence(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    source: Source,
    *,
    seconds: float = 8.0,
    limit: int = 1000,
    configured: Collection[str] | None = None,
) -> tuple[int, int]:
    """Write what partitions have yet to say of their blobs; what is written is recorded a batch at a time.

    A daemon that dies in between writes at most the last 50 once more.

    Args:
        machine: the parts.
        instance: Dagster's.
        source: which.
        seconds: after which the rest is left to the next tick.
        limit: most entries.
        configured: names of the sources there are; ``None``: all that ever left something.

    Returns:
        How many entries were told to be gone, and to be back.
    """
    binding = binding_for(machine.registry, source.workflow)
    if grain(source, binding) == "container":
        return 0, 0  # its partition is the container's, whose next job sees what is gone
    register = Register(machine.ledger, source.name, configured=configured)
    until = time.monotonic() + seconds
    gone = back = 0
    assets = {one.asset for one in machine.registry.values() if one.partition_set == binding.partition_set}
    pending = register.untold(limit=limit, assets=assets) if seconds > 0 else []
    shown = _shown(instance, assets) if pending else {}
    # a workflow that only a source's placeholders tell of blobs has none
    checked = {check.asset for check in all_checks(machine.registry) if check.name == SOURCE_PRESENT}
    for start in range(0, len(pending), _BATCH):
        if time.monotonic() > until:
            break
        batch = pending[start : start + _BATCH]
        _write(instance, source, shown, checked, [one for one in batch if one.partition_key and not one.taken_over])
        register.mark_told(batch)
        gone += sum(one.gone for one in batch)
        back += sum(not one.gone for one in batch)
    return gone, back


def _shown(instance: dg.DagsterInstance, assets: Collection[str]) -> dict[dg.AssetKey, set[str]]:
    """The assets, and which of their partitions were materialized."""
    keys = [dg.AssetKey.from_user_string(asset) for asset in sorted(assets)]
    return {key: set(instance.get_materialized_partitions(key)) for key in keys}


def _write(
    instance: dg.DagsterInstance,
    source: Source,
    shown: dict[dg.AssetKey, set[str]],
    checked: Collection[str],
    told: Sequence[Presence],
) -> None:
    for asset, partitions in shown.items():
        mine = [one for one in told if one.partition_key in partitions]
        observations = [_observation(asset, source, one) for one in mine]
        events.report_observations(
            instance, run_id=events.NO_RUN, job_name=events.NO_RUN, step_key="", observations=observations
        )
        if asset.to_user_string() in checked:
            events.report_checks_without_run(instance, [_evaluation(asset, source, one) for one in mine])


def _sentence(source: Source, one: Presence) -> str:
    what = f"'{one.name}' in the container '{source.container}'"
    if not one.gone:
        return f"{what} is there again."
    fate = "what was made of it stays"
    if source.when_removed == "unpublish":
        fate = f"what was made of it is taken back when it has been gone for {source.removed_days:g} days"
    return f"{what} is gone since {one.gone_at:%Y-%m-%d %H:%M} UTC; {fate}."


def _observation(asset: dg.AssetKey, source: Source, one: Presence) -> dg.AssetObservation:
    return dg.AssetObservation(
        asset_key=asset,
        partition=one.partition_key,
        description=_sentence(source, one),
        metadata={
            "geo/state": "gone" if one.gone else "present",
            "geo/source": source.name,
            "geo/gone_at": dg.MetadataValue.timestamp(one.gone_at),
        },
    )


def _evaluation(asset: dg.AssetKey, source: Source, one: Presence) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=asset,
        check_name=SOURCE_PRESENT,
        passed=not one.gone,
        severity=dg.AssetCheckSeverity.WARN,
        description=_sentence(source, one),
        metadata={"geo/source": source.name, "geo/gone_at": dg.MetadataValue.timestamp(one.gone_at)},
        partition=one.partition_key,
    )
