"""What Dagster shows of partitions, and showing again what the ledger has.

What belongs here: reading the materialized partitions of an asset, and writing a materialization once more for a
finished attempt.  What does not: finding out which are missing (``geo_assets.reconcile``).
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

import dagster as dg

from geo_assets.coremachine import dispatch, events
from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.contract import OutcomeKind, PartitionNews
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.ledger import Attempt
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.materialization import materialization_of, materialization_of_news

__all__ = ["Missing", "materialized", "show_again", "show_findings"]


class Missing(Protocol):
    """A partition that a job materialized and Dagster does not show."""

    @property
    def asset(self) -> str | None:
        """Of the partition."""
        ...

    @property
    def partition_key(self) -> str | None:
        """Its key."""
        ...

    @property
    def attempt_id(self) -> str | None:
        """Whose result it shows."""
        ...


def materialized(instance: dg.DagsterInstance, asset: str) -> set[str]:
    """The partitions of an asset that Dagster shows as materialized."""
    return set(instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset)))


def show_again(
    machine: CoreMachine, instance: dg.DagsterInstance, asset: str, attempts: Mapping[str, str]
) -> None:  # fmt: skip
    """Let partitions of an asset show as materialized again; doing it twice shows them once more.

    Args:
        machine: the parts; the ledger and the registry are used.
        instance: Dagster's.
        asset: whose partitions.
        attempts: partition key → id of the attempt whose result it shows; one of another asset gives the bare fact.
    """
    owner = next((binding for binding in machine.registry.values() if binding.asset == asset), None)
    if owner is None:
        return
    dispatch.add_partitions(instance, owner, list(attempts))
    for chunk in chunks(list(attempts.items())):
        found = {one.attempt_id: one for one in machine.ledger.attempts_by_id([attempt_id for _, attempt_id in chunk])}
        by_run: dict[str, list[dg.AssetMaterialization]] = {}
        for key, attempt_id in chunk:
            if (attempt := found.get(attempt_id)) is not None:
                shown = _materialization(machine, owner, asset, key, attempt)
                by_run.setdefault(_run_of(instance, attempt), []).append(shown)
        for run_id, shown_again in by_run.items():
            events.report_materializations(
                instance, run_id=run_id, job_name=owner.job_type, step_key="", materializations=shown_again
            )


def show_findings(machine: CoreMachine, instance: dg.DagsterInstance, findings: Iterable[Missing]) -> None:
    """As :func:`show_again`, for what a reconciliation found."""
    by_asset: dict[str, dict[str, str]] = {}
    for one in findings:
        if one.asset is not None and one.partition_key is not None and one.attempt_id is not None:
            by_asset.setdefault(one.asset, {})[one.partition_key] = one.attempt_id
    for asset, attempts in by_asset.items():
        show_again(machine, instance, asset, attempts)


def _materialization(
    machine: CoreMachine, owner: Binding, asset: str, key: str, attempt: Attempt
) -> dg.AssetMaterialization:
    if attempt.asset == asset and attempt.partition_key == key:
        return materialization_of(machine.registry.get(attempt.job_type, owner), attempt)
    news = PartitionNews(
        asset=asset,
        name=decode_partition_key(key),
        outcome=OutcomeKind.UNCHANGED,
        reason=f"made by {attempt.job_type} {attempt.job_id[:12]}; shown again by a reconciliation",
        source_version=attempt.source_version,
    )
    return materialization_of_news(news, attempt.job_type)


def _run_of(instance: dg.DagsterInstance, attempt: Attempt) -> str:
    """The attempt's run, unless Dagster has forgotten it."""
    run_id = attempt.run_id or events.NO_RUN
    return run_id if run_id and instance.has_run(run_id) else events.NO_RUN
