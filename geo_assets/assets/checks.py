"""Asset checks: what the ledger says of a partition, and what a look at the real thing says.

What belongs here: how Dagster shows and runs the checks, one partition at a time or many in one run.  What does not:
the looking (``geo_assets.checking``).
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from geo_assets.checking.catalogue import Check, all_checks, checks_of
from geo_assets.checking.finding import Finding
from geo_assets.checking.many import Looked, Tally, choose, look, look_at_one
from geo_assets.coremachine import events
from geo_assets.coremachine.asset_job import JOB_TAGS, MACHINE, machine_of
from geo_assets.coremachine.binding import Binding, Registry
from geo_assets.coremachine.contract import CheckResult, JobStatus
from geo_assets.coremachine.ledger import Job
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.materialization import CHECK_NAME, evaluation_of
from geo_assets.errors import GeoAssetsError, ParameterError

__all__ = ["build_check_runs", "build_checks"]

JOB_NAME = "check_partitions"
_EVERY_NIGHT = "11 2 * * *"
_SAMPLE = 50
"""Partitions of each asset that the schedule looks at."""


def build_checks(
    registry: Registry, *, partitions: Mapping[str, dg.DynamicPartitionsDefinition]
) -> list[dg.AssetChecksDefinition]:
    """Every check of the workflows' assets, partitioned as these are."""
    found: list[dg.AssetChecksDefinition] = []
    checks = all_checks(registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are a preview in Dagster 1.13
        for binding in registry.values():
            mine = partitions[binding.partition_set]
            found.append(_all_tasks_succeeded(binding, mine))
            found += [_build(check, mine) for check in checks if check.asset == binding.asset]
    return found


def _all_tasks_succeeded(binding: Binding, partitions: dg.DynamicPartitionsDefinition) -> dg.AssetChecksDefinition:
    """A warning where a partition was materialized though some tasks failed.

    A wave reports it for the partitions it concerns; run from the UI, it looks the partition up in the ledger.
    """

    @dg.asset_check(
        asset=dg.AssetKey.from_user_string(binding.asset),
        name=CHECK_NAME,
        description="Every task of the partition's latest job ended well; if not, the page of the job's run names the"
        " tasks, and the job retry_failed runs them again.",
        partitions_def=partitions,
        required_resource_keys={MACHINE},
    )
    def all_tasks_succeeded(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        key = context.partition_key
        job = machine_of(context).ledger.latest_job(binding.asset, key, binding.job_type)
        other = _made_by_another(context, binding, key, after=job)
        if other is not None:
            return dg.AssetCheckResult(
                passed=True,
                description=f"made by {other}, whose tasks are told on the partition of its own job",
                metadata={"geo/job_type": other},
            )
        if job is None:
            return dg.AssetCheckResult(
                passed=False,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"no job was ever submitted for {key}",
            )
        partly = job.status is JobStatus.COMPLETED_WITH_ERRORS
        return dg.AssetCheckResult(
            passed=job.status is JobStatus.COMPLETED,
            severity=dg.AssetCheckSeverity.WARN if partly else dg.AssetCheckSeverity.ERROR,
            description=job.error_details or job.reason,
            metadata={"geo/job_id": job.job_id, "geo/status": job.status.value},
        )

    return all_tasks_succeeded


def _made_by_another(
    context: dg.AssetCheckExecutionContext, binding: Binding, partition_key: str, *, after: Job | None
) -> str | None:
    """The other workflow that made the partition on its way, after what its own one's latest job did; else ``None``."""
    if after is not None and after.completed_at is None:
        return None
    # Dagster and not the ledger: a job that makes a container's items has attempts of the container only
    wanted = dg.AssetRecordsFilter(
        dg.AssetKey.from_user_string(binding.asset),
        asset_partitions=[partition_key],
        after_timestamp=after.completed_at.timestamp() if after is not None and after.completed_at else None,
    )
    records = context.instance.fetch_materializations(wanted, limit=1).records
    made = records[0].asset_materialization if records else None
    by = made.metadata.get("geo/job_type") if made is not None else None
    return by.value if isinstance(by, dg.TextMetadataValue) and by.value != binding.job_type else None


def _build(check: Check, partitions: dg.DynamicPartitionsDefinition) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey.from_user_string(check.asset),
        name=check.name,
        description=check.description,
        blocking=check.blocking,
        partitions_def=partitions,
        required_resource_keys={MACHINE},
    )
    def looked(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        try:
            finding = look_at_one(machine_of(context), check, context.partition_key)
        except GeoAssetsError as error:
            raise dg.Failure(f"could not be looked at: {error}", allow_retries=False) from error
        evaluation = evaluation_of(check.asset, context.partition_key, _result_of(check, finding))
        return dg.AssetCheckResult(
            passed=evaluation.passed,
            severity=evaluation.severity,
            description=evaluation.description,
            metadata=evaluation.metadata,
        )

    return looked


def _result_of(check: Check, finding: Finding) -> CheckResult:
    return CheckResult(
        check=check.name,
        passed=finding.passed,
        description=finding.description,
        warning=finding.warning,
        metadata=finding.metadata,
    )


# --- many partitions in one run --------------------------------------------------------------------------------------


def build_check_runs(registry: Registry) -> dg.Definitions:
    """The job ``check_partitions``, the checks of many partitions in one run, and its schedule.

    The schedule is off until somebody switches it on: looking means fetching.
    """
    assets = sorted({check.asset for check in all_checks(registry)})

    @dg.op(
        name=f"{JOB_NAME}__look",
        description="Look at the partitions and write one evaluation a check.",
        config_schema={
            "asset": dg.Field(
                dg.Noneable(str),
                is_required=False,
                default_value=None,
                description=f"Which asset's partitions: {', '.join(assets)}. Default: of all of them.",
            ),
            "keys": dg.Field(
                [str],
                is_required=False,
                default_value=[],
                description="These of one asset; default: all that are materialized.",
            ),
            "prefix": dg.Field(
                dg.Noneable(str), is_required=False, default_value=None, description="Those whose name begins so."
            ),
            "sample": dg.Field(
                dg.Noneable(int),
                is_required=False,
                default_value=None,
                description="At most so many of each asset, by chance.",
            ),
            "checks": dg.Field(
                [str], is_required=False, default_value=[], description="Only these checks; default: all of the asset."
            ),
        },
        out=dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def look_at(context: dg.OpExecutionContext) -> Any:
        machine, given = machine_of(context), context.op_config
        try:
            chosen = _chosen(machine, context.instance, given)
        except GeoAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        told: list[Looked] = []
        tally = Tally()

        def on_found(found: Sequence[Looked]) -> None:
            told.extend(one for one in found if one.verdict != "passed")
            _report(context, found)

        for checks, keys in chosen:
            look(machine, checks, keys, on_found=on_found, tally=tally)
            context.log.info("looked at %d partitions of %s", len(keys), checks[0].asset)
        yield dg.Output(None, metadata=_summary(tally, told))
        if failed := tally.count("failed", "not looked at"):
            of_what = given["asset"] or f"{len(chosen)} assets"
            raise dg.Failure(
                f"{failed} of {tally.total} looks at {tally.partitions} partitions of {of_what} did not go well",
                metadata=_summary(tally, told),
                allow_retries=False,
            )

    @dg.job(
        name=JOB_NAME,
        description="Look again at what was published for many partitions of an asset, in one run.",
        tags=JOB_TAGS,
        executor_def=dg.in_process_executor,
    )
    def check_partitions() -> None:
        look_at()

    schedule = dg.ScheduleDefinition(
        name=f"{JOB_NAME}_daily",
        job=check_partitions,
        cron_schedule=_EVERY_NIGHT,
        execution_timezone="UTC",
        run_config={"ops": {f"{JOB_NAME}__look": {"config": {"sample": _SAMPLE}}}},
        description=f"Looks again at {_SAMPLE} partitions of each asset, drawn by chance. Off until you switch it on.",
    )
    return dg.Definitions(jobs=[check_partitions], schedules=[schedule])


def _chosen(
    machine: CoreMachine, instance: dg.DagsterInstance, given: Mapping[str, Any]
) -> list[tuple[list[Check], list[str]]]:
    """Checks and partitions, by asset.

    Raises:
        GeoAssetsError: they cannot be chosen so; says why.
    """
    if given["asset"] is None and (given["keys"] or given["checks"]):
        raise ParameterError("keys and checks are of one asset: give `asset` as well")
    assets = [given["asset"]] if given["asset"] else sorted({check.asset for check in all_checks(machine.registry)})
    return [
        (
            checks_of(machine.registry, asset, given["checks"]),
            choose(
                instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset)),
                keys=given["keys"], prefix=given["prefix"], sample=given["sample"],
            ),
        )
        for asset in assets
    ]  # fmt: skip


def _report(context: dg.OpExecutionContext, found: Sequence[Looked]) -> None:
    events.report_checks(
        context.instance,
        run_id=context.run_id,
        job_name=JOB_NAME,
        step_key=context.get_step_execution_context().step.key,
        evaluations=[
            evaluation_of(one.check.asset, one.partition_key, _result_of(one.check, one.finding))
            for one in found
            if one.finding is not None
        ],
    )


_SHOWN = 50


def _summary(tally: Tally, told: Sequence[Looked]) -> dict[str, Any]:
    columns = ("passed", "warned", "failed", "not looked at")
    lines = [f"| check | {' | '.join(columns)} | all |", "|---|---:|---:|---:|---:|---:|"]
    for name, counter in sorted(tally.by_check.items()):
        counts = " | ".join(str(counter[column]) for column in columns)
        lines.append(f"| {name} | {counts} | {sum(counter.values())} |")
    shown = [
        dg.TableRecord(
            {
                "partition": one.partition_key[:200],
                "check": one.check.name,
                "verdict": one.verdict,
                "why": one.sentence[:300],
            }
        )
        for one in told[:_SHOWN]
    ]
    return {
        "partitions": tally.partitions,
        "looks": tally.total,
        "counts": dg.MetadataValue.md("\n".join(lines)),
        **({"not_passed": dg.MetadataValue.table(shown)} if shown else {}),
        **({"not_shown": len(told) - _SHOWN} if len(told) > _SHOWN else {}),
    }
