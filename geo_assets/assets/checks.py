"""Asset checks that read what the ledger knows about a partition.

What belongs here: checks that hold for every workflow asset.  What does not: checks of the data itself, which
live with the workflow that makes it.
"""

import warnings
from collections.abc import Mapping

import dagster as dg

from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.materialization import CHECK_NAME


def build_all_tasks_succeeded(
    binding: Binding, *, partitions: Mapping[str, dg.DynamicPartitionsDefinition]
) -> dg.AssetChecksDefinition:
    """The check ``all_tasks_succeeded``: a warning where a partition was materialized though some tasks failed.

    A wave reports it for the partitions it concerns; run from the UI, it looks the partition up in the ledger.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks are a preview in Dagster 1.13

        @dg.asset_check(
            asset=dg.AssetKey.from_user_string(binding.asset),
            name=CHECK_NAME,
            description="Every task of the partition's latest job ended well.",
            partitions_def=partitions[binding.partition_set],
            required_resource_keys={MACHINE},
        )
        def all_tasks_succeeded(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            key = context.partition_key
            job = machine_of(context).ledger.latest_job(binding.asset, key, binding.job_type)
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
