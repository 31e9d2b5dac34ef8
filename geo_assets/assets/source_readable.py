"""Sources say whether their container can be looked at: an observation and the check ``container_readable``.

What belongs here: the check, and writing that a problem begins, changes and ends.  What does not: looking
(``sources.look``) and the sensor (``source_sensors``).
"""

from collections.abc import Sequence

import dagster as dg

from geo_assets.assets.sources import source_key
from geo_assets.checking.names import CONTAINER_READABLE
from geo_assets.coremachine import events
from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.reasons import group_of
from geo_assets.errors import GeoAssetsError
from geo_assets.redaction import redact
from geo_assets.sources.source import Source

__all__ = ["build_readable_checks", "tell_readable"]

_WELL = "The container '{}' can be read."


def build_readable_checks(sources: Sequence[Source]) -> list[dg.AssetChecksDefinition]:
    """The check of each source's asset; its sensor evaluates it, and it can be run."""
    return [_check(source) for source in sources]


def _check(source: Source) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=source_key(source.name),
        name=CONTAINER_READABLE,
        description="The container is there and can be listed. The source's sensor evaluates it when that changes.",
        required_resource_keys={MACHINE},
    )
    def container_readable(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        blobs = machine_of(context).services["blobs"]
        try:
            next(iter(blobs.list_blobs(source.container, source.prefix)), None)
        except GeoAssetsError as error:
            return dg.AssetCheckResult(passed=False, description=redact(str(error)))
        return dg.AssetCheckResult(passed=True, description=_WELL.format(source.container))

    return container_readable


def tell_readable(instance: dg.DagsterInstance, source: Source, problem: str) -> str:
    """Write that a problem began, changed or ended, unless it stands there already.

    What stands there is the latest evaluation, whoever wrote it: what a tick did not live to tell, the next one does.

    Args:
        instance: Dagster's.
        source: which.
        problem: why its container cannot be read; empty: it can.

    Returns:
        A sentence where a problem ended; empty else.
    """
    key = dg.AssetCheckKey(source_key(source.name), CONTAINER_READABLE)
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    event = record.event if record is not None else None
    before = event.asset_check_evaluation if event is not None else None
    # messages of stores name requests and moments, which are no news
    stands = before is not None and (before.passed or group_of(before.description) == group_of(problem))
    if before is not None and before.passed == (not problem) and stands:
        return ""
    told = f"The container cannot be read: {problem}" if problem else _WELL.format(source.container)
    if problem or before is not None:
        # before the evaluation, so that a tick which dies in between tells it again
        instance.report_runless_asset_event(
            dg.AssetObservation(
                asset_key=key.asset_key,
                description=told,
                metadata={"geo/state": "unreadable" if problem else "readable", "geo/error": problem or "none"},
            )
        )
    evaluation = dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=not problem,
        description=problem or _WELL.format(source.container),
    )
    events.report_checks_without_run(instance, [evaluation])
    return f"the container '{source.container}' can be read again" if before is not None and not problem else ""
