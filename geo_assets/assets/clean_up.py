"""The job ``clean_up`` and its schedule: what nobody needs any more is removed.

What belongs here: the Dagster side.  What does not: what that is (``geo_assets.clean_up``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from geo_assets.clean_up import Cleaned, Keep, clean_up
from geo_assets.coremachine.asset_job import JOB_TAGS, MACHINE, machine_of
from geo_assets.coremachine.binding import Registry
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.coremachine.retention import History
from geo_assets.errors import ParameterError
from geo_assets.settings import Settings
from geo_assets.sources.source import Source

__all__ = ["build_clean_up", "cleaned_table"]


def build_clean_up(settings: Settings, registry: Registry, sources: Sequence[Source] = ()) -> dg.Definitions:
    """The job and its schedule."""
    del registry  # that of the run counts

    @dg.op(
        name="clean_up__remove",
        description="Remove what nobody needs any more.",
        config_schema={
            "dry_run": dg.Field(
                bool, is_required=False, default_value=False, description="Change nothing; show what would go."
            ),
            "keep_run_days": _days("runs and events", "KEEP_RUN_DAYS"),
            "keep_task_days": _days("tasks, superseded attempts, closed waves and notices", "KEEP_TASK_DAYS"),
            "keep_listing_days": _days("listings that are not the latest of their container", "KEEP_LISTING_DAYS"),
            "at_most": dg.Field(
                dg.IntSource, is_required=False, default_value=5000, description="Most things of a kind to remove."
            ),
        },
        out=dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def remove(context: dg.OpExecutionContext) -> Any:
        machine = machine_of(context)
        given: Mapping[str, Any] = context.op_config
        try:
            cleaned = clean_up(
                machine,
                History(context.instance),
                sources,
                keep=Keep.of(
                    machine.settings,
                    run_days=given["keep_run_days"],
                    task_days=given["keep_task_days"],
                    listing_days=given["keep_listing_days"],
                ),
                wave_tag=WAVE_TAG,
                at_most=given["at_most"],
                dry_run=given["dry_run"],
            )
        except ParameterError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        for one in cleaned:
            context.log.info("%s: %s", one.what, one.number)
        metadata = {"removed": cleaned_table(cleaned), "dry_run": given["dry_run"]}
        if problems := [f"{one.what}: {one.problem}" for one in cleaned if one.problem]:
            raise dg.Failure("; ".join(problems), metadata=metadata, allow_retries=False)
        yield dg.Output(None, metadata=metadata)

    @dg.job(
        name="clean_up",
        description="Remove what nobody needs any more: old runs and events, tasks, attempts, listings, leftovers and"
        " partition keys. How long things are kept is in the settings; docs/operate.md, Retention, says what goes.",
        tags=JOB_TAGS,
        executor_def=dg.in_process_executor,
    )
    def clean_up_job() -> None:
        remove()

    schedule = dg.ScheduleDefinition(
        name="clean_up_daily",
        job=clean_up_job,
        cron_schedule=settings.clean_up_cron,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="When the clean-up runs (GEO_ASSETS_CLEAN_UP_CRON). Switch it off to keep everything.",
    )
    return dg.Definitions(jobs=[clean_up_job], schedules=[schedule])


def _days(what: str, setting: str) -> dg.Field:
    return dg.Field(
        dg.Noneable(float),
        is_required=False,
        default_value=None,
        description=f"Days that {what} are kept; default: GEO_ASSETS_{setting}.",
    )


def cleaned_table(cleaned: Sequence[Cleaned]) -> dg.MetadataValue:
    """What went, as a table of a run's page."""
    return dg.MetadataValue.table([dg.TableRecord(one.as_dict()) for one in cleaned])
