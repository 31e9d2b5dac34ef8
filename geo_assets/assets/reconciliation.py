"""The asset ``reconciliation``: storage, ledger, tables, catalog, sources and Dagster compared in both directions.

What belongs here: the Dagster side: asset, check, job and schedule, and what they show.  What does not: comparing and
mending (``geo_assets.reconcile``).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from geo_assets.coremachine.asset_job import JOB_TAGS, MACHINE, machine_of
from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.shown import materialized, show_findings
from geo_assets.errors import GeoAssetsError
from geo_assets.settings import Settings

__all__ = ["build_reconciliation"]

_NAME, _CHECK, _JOB = "reconciliation", "counts_agree", "reconcile"
_EVERY_NIGHT = "41 4 * * *"
_ROWS = 200
"""Most findings in the event."""
_PARTS = ("storage", "tables", "catalog", "sources")


class ReconcileConfig(dg.Config):
    """What is compared, and whether it is mended."""

    only: list[str] = Field(
        default=[], description="Only these parts: storage, tables, catalog, sources. Default: all, and Dagster."
    )
    deep: bool = Field(default=False, description="Count the rows of every table as well.")
    repair: bool = Field(
        default=False,
        description="Mend what can be mended without a doubt: queue jobs again, remove items whose data and source are"
        " gone, show partitions again, remove what broken-off loads left.",
    )


def build_reconciliation(settings: Settings, registry: Registry) -> dg.Definitions:
    """The asset, its check, its job, and the schedule that keeps it fresh."""
    del settings  # those of the run count
    assets = sorted({binding.asset for binding in registry.values() if binding.publishes})

    @dg.asset(
        name=_NAME,
        deps=[dg.AssetDep(asset, partition_mapping=dg.AllPartitionMapping()) for asset in assets],
        group_name="reports",
        kinds={"table"},
        owners=["team:geo-archive"],
        description="Storage, ledger, tables, catalog, sources and Dagster compared in both directions, with counts"
        " that add up. Nothing is changed, unless the run is told to repair; what no job recorded is never touched.",
        check_specs=[
            dg.AssetCheckSpec(
                _CHECK,
                asset=_NAME,
                description="Warns where storage, ledger, tables, catalog, sources or Dagster disagree, or one of them"
                " could not be reached; fails where counts do not add up, which is a bug.",
            )
        ],
        required_resource_keys={MACHINE},
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(days=7), warn_window=timedelta(days=1, hours=2)
        ),
    )
    def reconciliation(
        context: dg.AssetExecutionContext, config: ReconcileConfig
    ) -> Iterator[dg.MaterializeResult[None]]:
        # polars and the stores are loaded where they are used
        from geo_assets.reconcile import EVERYTHING, reconcile, repair  # noqa: PLC0415

        machine, instance, who = machine_of(context), context.instance, f"run {context.run.run_id}"
        if unknown := sorted(set(config.only) - set(_PARTS)):
            raise dg.Failure(f"no part of a reconciliation: {', '.join(unknown)}; there are {', '.join(_PARTS)}",
                             allow_retries=False)  # fmt: skip
        what: Any = frozenset(config.only) or EVERYTHING
        try:
            found = reconcile(machine, what=what, deep=config.deep, shown=lambda asset: materialized(instance, asset))
            mended = repair(
                machine,
                found.findings,
                who=who,
                execute=config.repair,
                show=lambda findings: show_findings(machine, instance, findings),
                wipe=lambda asset, keys: unmaterialize(instance, asset=asset, partition_keys=keys, who=who),
            )
        except GeoAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        for line in found.lines:
            context.log.info("%s: %s", line.direction.value, line.problem or line.as_dict()["counts"] or "nothing")
        yield dg.MaterializeResult(
            metadata=_metadata(found.as_dict(), [one.as_dict() for one in mended], executed=config.repair),
            check_results=[_check(found)],
        )

    job = dg.define_asset_job(
        _JOB,
        selection=[reconciliation],
        description="Compare storage, ledger, tables, catalog, sources and Dagster; with repair: true mend as well.",
        executor_def=dg.in_process_executor,
        tags=JOB_TAGS,
    )
    schedule = dg.ScheduleDefinition(
        name=f"{_JOB}_daily",
        job=job,
        cron_schedule=_EVERY_NIGHT,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Compares everything once a day and changes nothing.",
    )
    return dg.Definitions(assets=[reconciliation], jobs=[job], schedules=[schedule])


def _check(found: Any) -> dg.AssetCheckResult:
    adds_up = all(line.adds_up for line in found.lines)
    text = f"{found.wrong:,} things disagree" if found.wrong else "all agree"
    if found.unknown:
        text += f"; {len(found.unknown)} directions are unknown: {found.unknown[0].problem}"
    return dg.AssetCheckResult(
        check_name=_CHECK,
        passed=adds_up and found.agrees,
        severity=dg.AssetCheckSeverity.WARN if adds_up else dg.AssetCheckSeverity.ERROR,
        description=text if adds_up else "counts do not add up, which is a bug: look at the table of the asset",
        metadata={"geo/wrong": found.wrong, "geo/unknown_directions": len(found.unknown)},
    )


def _metadata(found: Mapping[str, Any], mended: Sequence[Mapping[str, Any]], *, executed: bool) -> dict[str, Any]:
    outcomes = Counter(one["outcome"] for one in mended)
    rows = [
        {
            "direction": one["direction"],
            "what": one["what"],
            "thing": f"{one['collection']}/{one['name']}",
            "partition": one["partitionKey"] or "",
            "reason": one["reason"],
            "mend": one["mend"],
            "repair": one["outcome"],
        }
        for one in mended[:_ROWS]
    ]
    left = found["moreToMend"]
    again = f"; {left:,} things are more than one repair mends: repeat it" if left else ""
    shown: dict[str, Any] = {
        "counts": dg.MetadataValue.md(_counts_table(found["directions"])),
        "findings": dg.MetadataValue.table([dg.TableRecord(row) for row in rows]) if rows else None,
        "geo/wrong": found["wrong"],
        "geo/findings_not_shown": len(mended) - len(rows) + sum(found["moreFindings"].values()),
        "geo/seconds": found["seconds"],
        "geo/repair": dg.MetadataValue.json(dict(outcomes)),
        "geo/left_for_the_next_repair": left,
        "geo/what_to_do": None
        if not (outcomes["planned"] or left)
        else dg.MetadataValue.md(
            f"run the [job {_JOB}](/guess/{_JOB}) with `repair: true`, or `geo-assets reconcile --repair --execute`"
            f"{again}"
        ),
        "geo/failed_jobs": dg.MetadataValue.md("[runs](/runs) · [retry_failed](/guess/retry_failed)")
        if executed
        else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _counts_table(directions: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| direction | total | of which |", "|---|---:|---|"]
    for one in directions:
        of_which = " + ".join(f"{number:,} {name}" for name, number in one["counts"].items()) or "nothing"
        total, text = ("?", f"unknown: {one['unknown']}") if one["unknown"] else (f"{one['total']:,}", of_which)
        lines.append(f"| {one['direction']} | {total} | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)
