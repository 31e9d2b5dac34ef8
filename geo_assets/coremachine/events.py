"""Asset events in batches: the one corner that leans on names Dagster does not promise.

What belongs here: writing planned, materialization and check events for many partitions, linked to a run.  What
does not: deciding which (``asset_job``, ``dispatch``) and what they say (``materialization``).

Measured on PostgreSQL, 10,000 events take 3.6 s in batches and about 200 s one by one.  If a Dagster upgrade
changes the names, everything still works through the public calls, slower and without planned events; a test
fails then, so that somebody notices.
"""

import logging
from collections.abc import Sequence
from typing import Any

import dagster as dg

from geo_assets.coremachine.batches import chunks

try:
    from dagster._core.events import (
        AssetMaterializationPlannedData,
        AssetObservationData,
        DagsterEvent,
        DagsterEventBatchMetadata,
        DagsterEventType,
        StepMaterializationData,
        generate_event_batch_id,
    )
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    from geo_assets.coremachine.sqlite_event_batches import write_batches_whole

    BATCHES_AVAILABLE = True
except ImportError:  # pragma: no cover - a future Dagster
    BATCHES_AVAILABLE = False

_log = logging.getLogger(__name__)

NO_RUN = ""
"""Run and job of events that no run wrote, as Dagster has them."""


def report_planned(
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    job_name: str,
    step_key: str,
    asset: str,
    partition_keys: Sequence[str],
) -> None:
    """Say that a run intends to materialize these partitions.

    Without it a partition that fails would stay grey: Dagster shows red what was planned in a run that failed.
    """
    if not BATCHES_AVAILABLE:
        _log.warning("planned events need a Dagster this version does not know; failed partitions will look missing")
        return
    key = dg.AssetKey.from_user_string(asset)
    events = [
        DagsterEvent.build_asset_materialization_planned_event(
            job_name, step_key, AssetMaterializationPlannedData(asset_key=key, partition=partition_key)
        )
        for partition_key in partition_keys
    ]
    _report(instance, run_id, events)


def report_materializations(
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    job_name: str,
    step_key: str,
    materializations: Sequence[dg.AssetMaterialization],
) -> None:
    """Write materializations, linked to the run and its step."""
    if not BATCHES_AVAILABLE:
        for materialization in materializations:
            instance.report_runless_asset_event(materialization)
        return
    events = [
        DagsterEvent(
            event_type_value=DagsterEventType.ASSET_MATERIALIZATION.value,
            job_name=job_name,
            step_key=step_key,
            event_specific_data=StepMaterializationData(materialization),
            message=materialization.description or "Materialized value.",
        )
        for materialization in materializations
    ]
    _report(instance, run_id, events)


def report_observations(
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    job_name: str,
    step_key: str,
    observations: Sequence[dg.AssetObservation],
) -> None:
    """Write observations, linked to the run and its step."""
    if not BATCHES_AVAILABLE:
        for observation in observations:
            instance.report_runless_asset_event(observation)
        return
    events = [
        DagsterEvent(
            event_type_value=DagsterEventType.ASSET_OBSERVATION.value,
            job_name=job_name,
            step_key=step_key,
            event_specific_data=AssetObservationData(observation),
            message=observation.description or "Observed.",
        )
        for observation in observations
    ]
    _report(instance, run_id, events)


def materialized_in_run(instance: dg.DagsterInstance, run_id: str, asset: str) -> set[str]:
    """Partition keys of an asset that the run's log says are materialized already."""
    key = dg.AssetKey.from_user_string(asset)
    found: set[str] = set()
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(run_id, cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        for record in page.records:
            materialization = record.event_log_entry.asset_materialization
            if materialization is not None and materialization.asset_key == key and materialization.partition:
                found.add(materialization.partition)
        if not page.has_more:
            return found
        cursor = page.cursor


def report_checks(
    instance: dg.DagsterInstance,
    *,
    run_id: str,
    job_name: str,
    step_key: str,
    evaluations: Sequence[dg.AssetCheckEvaluation],
) -> None:
    """Write asset check results, linked to the run; a second one of a partition replaces the run's first."""
    if not BATCHES_AVAILABLE:
        for evaluation in evaluations:
            instance.report_runless_asset_event(evaluation)
        return
    events = [
        DagsterEvent(
            event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION.value,
            job_name=job_name,
            step_key=step_key,
            event_specific_data=evaluation,
        )
        for evaluation in evaluations
    ]
    if _takes_checks_whole(instance):
        _report(instance, run_id, events)
        return
    for event in events:
        instance.report_dagster_event(event, run_id)


def _takes_checks_whole(instance: dg.DagsterInstance) -> bool:
    storage = type(instance.event_log_storage)
    if storage.__module__.startswith("dagster_postgres."):
        # the driver takes a while to load, which SQLite does without
        from geo_assets.coremachine.postgres_check_batches import write_checks_whole  # noqa: PLC0415

        return write_checks_whole(instance)
    return storage.__name__ == "SqliteEventLogStorage"


def report_checks_without_run(instance: dg.DagsterInstance, evaluations: Sequence[dg.AssetCheckEvaluation]) -> None:
    """Write asset check results that no run came to, again for a partition that has one.

    Dagster keeps one result a check, partition and run, and takes no second one without a run (a unique index); so the
    one before makes room.  Its event stays in the log.
    """
    storage: Any = instance.event_log_storage
    by_check: dict[tuple[dg.AssetKey, str], list[str | None]] = {}
    for evaluation in evaluations:
        by_check.setdefault((evaluation.asset_key, evaluation.check_name), []).append(evaluation.partition)
    if BATCHES_AVAILABLE and isinstance(storage, SqlEventLogStorage):
        columns = AssetCheckExecutionsTable.c
        for (asset, check), partitions in by_check.items():
            for some in chunks(partitions):
                mine = columns.partition.in_(some)
                this = (
                    columns.asset_key == asset.to_string(),
                    columns.check_name == check,
                    columns.run_id == NO_RUN,
                    mine,
                )
                with storage.index_connection() as connection:
                    connection.execute(AssetCheckExecutionsTable.delete().where(*this))
    for evaluation in evaluations:
        instance.report_runless_asset_event(evaluation)


def _report(instance: dg.DagsterInstance, run_id: str, events: Sequence["DagsterEvent"]) -> None:
    write_batches_whole(instance)
    batch_id = generate_event_batch_id()  # type: ignore[no-untyped-call]
    last = len(events) - 1
    for position, event in enumerate(events):
        instance.report_dagster_event(
            event, run_id, batch_metadata=DagsterEventBatchMetadata(batch_id, is_end=position == last)
        )
