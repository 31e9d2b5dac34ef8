"""Jobs that put work into the queue from the Dagster UI, and the sensor that takes it out.

What belongs here: ``submit_<workflow>`` with typed, documented config, ``retry_failed``, ``queued_jobs``.  What
does not: what submission and a tick mean (``submission``, ``dispatch``).
"""

import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import JOB_TAGS, MACHINE, RETRY_OP, machine_of
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.dispatch import WAVE_TAG, RunAsked
from geo_assets.coremachine.identity import key_prefix, partition_keys_of
from geo_assets.coremachine.known_names import require_known
from geo_assets.coremachine.ledger import Job, JobFilter, Wave
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.reasons import group_of
from geo_assets.coremachine.submission import Answer, failed_jobs, failures_left_out, retry_jobs, submit_keys
from geo_assets.errors import GeoAssetsError, JobNotFoundError, ParameterError
from geo_assets.settings import Settings

SENSOR_NAME = "queued_jobs"
_ROWS = 200
"""Most rows of a table in metadata."""


def build_submit_job(binding: Binding) -> dg.JobDefinition:
    """The job ``submit_<workflow>``: queues one job, or one a key, and links the waves they went into."""
    config: dict[str, dg.Field] = {
        "parameters": dg.Field(
            _parameters_config(binding), is_required=False, default_value={}, description="Parameters of the job(s)."
        ),
        "force": dg.Field(
            bool, is_required=False, default_value=False, description="Run even where a recorded answer would do."
        ),
    }
    if binding.takes_keys:
        key_name = binding.key_parameter or "the partition key, such as container/blob"
        config["keys"] = dg.Field(
            [str],
            is_required=False,
            default_value=[],
            description=f"Values of {key_name}: one job each, with the same other parameters.",
        )
        config["prefix"] = dg.Field(
            str,
            is_required=False,
            description=f"Every existing value of {key_name} that starts with this, one job each.",
        )

    @dg.op(
        name=f"submit_{binding.job_type}__queue",
        description=f"Put {binding.job_type} jobs into the queue.",
        config_schema=config,
        out=dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def queue(context: dg.OpExecutionContext) -> Any:
        machine = machine_of(context)
        given: Mapping[str, Any] = context.op_config
        try:
            answers = submit_keys(
                machine,
                binding.job_type,
                keys=given.get("keys", []),
                prefix=given.get("prefix"),
                params=given["parameters"],
                force=given["force"],
                submitted_by="submit job",
            )
        except GeoAssetsError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        yield dg.Output(None, metadata=_submitted(machine, context.instance, binding, answers))

    @dg.job(
        name=f"submit_{binding.job_type}",
        description=f"Queue {binding.job_type} jobs: {binding.description}",
        tags={**JOB_TAGS, "geo_assets/submits": binding.job_type},
        executor_def=dg.in_process_executor,
    )
    def submit() -> None:
        queue()

    return submit


def build_retry_job(registry: Mapping[str, Binding], *, sources: Collection[str] = ()) -> dg.JobDefinition:
    """The job ``retry_failed``: gathers failed jobs into waves, by run, asset, partition, reason, source, age.

    Args:
        registry: the workflows; of others nothing is queued.
        sources: names of the sources there are: a name that neither they nor the ledger have is refused.
    """
    assets = {binding.job_type: binding.asset for binding in registry.values()}

    @dg.op(
        name=RETRY_OP,
        description="Queue failed jobs again.",
        config_schema={
            "run_id": _optional(str, "Only what failed in this run and was not run again since: the run's whole id."),
            "asset": _optional(str, "Only jobs of this asset."),
            "job_type": _optional(str, f"Only jobs of this workflow: {', '.join(sorted(registry))}."),
            "keys": _optional(
                [str], "Only these partitions, by their names as they were submitted, or by their keys as shown here."
            ),
            "prefix": _optional(str, "Only partitions whose names begin so."),
            "source": _optional(str, "Only jobs that this source brought about."),
            "reason_group": _optional(
                str,
                "Only jobs of this group, as the tables of failures and 'geo-assets failures --by-reason' name it:"
                " the reason with … for what is particular and N for numbers. A whole reason will do as well.",
            ),
            "reason_contains": _optional(
                str, "Only jobs whose reason or error has this text in it, upper or lower case."
            ),
            "newer_than_hours": _optional(float, "Only failures since then."),
            "older_than_hours": _optional(float, "Only failures before then."),
            "gone": dg.Field(
                bool,
                is_required=False,
                default_value=False,
                description="Only those of blobs that their source has seen go, which are left out else.",
            ),
        },
        out=dg.Out(dg.Nothing),
        required_resource_keys={MACHINE},
        tags={"kind": "ledger"},
    )
    def queue(context: dg.OpExecutionContext) -> Any:
        machine = machine_of(context)
        given: Mapping[str, Any] = context.op_config
        try:
            which = _chosen(given)
            require_known(machine.ledger, which, workflows=lambda: assets, sources=lambda: sources)
            found = failed_jobs(machine, which)
        except (ParameterError, JobNotFoundError) as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        jobs = [job for job in found if job.job_type in machine.registry]
        answers = retry_jobs(machine, jobs)
        context.log.info("%d failed jobs are queued again", len(answers))
        by_type: dict[str, list[Answer]] = {}
        for answer in answers:
            by_type.setdefault(answer.job.job_type, []).append(answer)
        metadata: dict[str, Any] = {"queued_again": len(answers), "reasons": _reasons_table(jobs)}
        if len(jobs) < len(found):
            metadata["left_out"] = f"{len(found) - len(jobs)} jobs: their workflows are not loaded here"
        if gone := failures_left_out(machine.ledger, which):
            metadata["blobs_gone"] = f"{gone:,} more are of blobs that are gone: set `gone` to queue those"
        for job_type, group in by_type.items():
            metadata.update(_submitted(machine, context.instance, machine.registry[job_type], group))
        yield dg.Output(None, metadata=metadata)

    @dg.job(
        name="retry_failed",
        description="Queue failed, cancelled and partly failed jobs again, gathered into waves.",
        tags=JOB_TAGS,
        executor_def=dg.in_process_executor,
        # what the launchpad opens with: every choice in sight, none made
        config={"ops": {RETRY_OP: {"config": {"run_id": None, "asset": None, "reason_group": None, "source": None}}}},
    )
    def retry_failed() -> None:
        queue()

    return retry_failed


def _optional(kind: Any, description: str) -> dg.Field:
    return dg.Field(dg.Noneable(kind), is_required=False, default_value=None, description=description)


def _chosen(given: Mapping[str, Any]) -> JobFilter:
    keys = given["keys"]
    return JobFilter(
        run_id=given["run_id"],
        job_type=given["job_type"],
        asset=given["asset"],
        # a key is the key of the name it was made from, and of itself where nothing in it was encoded
        keys=None if keys is None else tuple(dict.fromkeys(one for key in keys for one in partition_keys_of(key))),
        prefix=key_prefix(given["prefix"]) if given["prefix"] else None,
        source=given["source"],
        reason_group=None if given["reason_group"] is None else group_of(given["reason_group"]),
        reason_contains=given["reason_contains"],
        newer_than=_hours(given["newer_than_hours"]),
        older_than=_hours(given["older_than_hours"]),
        gone=given["gone"],
    )


def _reasons_table(jobs: Sequence[Job]) -> dg.MetadataValue:
    """How many jobs failed for which reason, with one partition of each; the numbers add up to the jobs."""
    groups: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.asset, group_of(job.reason or job.error_details or job.status.value)), []).append(job)
    most_first = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows: list[dict[str, str | int | float | bool | None]] = [
        {"jobs": len(group), "asset": asset, "reason": reason, "example": group[0].partition_key[:200]}
        for (asset, reason), group in most_first[:_ROWS]
    ]
    if rest := most_first[_ROWS:]:
        rows.append({"jobs": sum(len(group) for _, group in rest), "asset": "", "reason": "others", "example": ""})
    if not rows:
        return dg.MetadataValue.text("nothing that failed matches")
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])


def build_sensor(
    jobs: Sequence[Any],
    *,
    interval_seconds: int,
    find_dead_runs: Callable[[Settings, dg.DagsterInstance], Sequence[str]] = lambda *_: (),
) -> dg.SensorDefinition:
    """The sensor ``queued_jobs``: recovers, assigns waves, asks for their runs.

    ``find_dead_runs`` marks runs as failed that died where Dagster does not look, and returns their ids.
    """

    @dg.sensor(
        name=SENSOR_NAME,
        jobs=jobs,
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MACHINE},
        description="Takes queued jobs from the ledger, a wave of many partitions a run, and takes up again what"
        " dead runs left unfinished. Switch it off to pause the queue; nothing is lost.",
    )
    def queued_jobs(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        machine = machine_of(context)
        for run_id in find_dead_runs(machine.settings, context.instance):
            context.log.info("the process of run %s is gone", run_id)
        done = dispatch.tick(machine, context.instance)
        for note in done.notes:
            context.log.info(note)
        if not done.runs:
            return dg.SkipReason(f"nothing is queued; {done.waves_open} waves are under way")
        return dg.SensorResult(run_requests=[_run_request(asked) for asked in done.runs])

    return queued_jobs


def _run_request(asked: RunAsked) -> dg.RunRequest:
    return dg.RunRequest(run_key=asked.run_key, job_name=asked.job_name, tags=dict(asked.tags))


def _submitted(
    machine: CoreMachine, instance: dg.DagsterInstance, binding: Binding, answers: Sequence[Answer]
) -> dict[str, Any]:
    """Metadata of a submission: what was decided, job by job, and where the runs will be."""
    counts: dict[str, int] = {}
    for answer in answers:
        decision = answer.submitted.decision.value
        counts[decision] = counts.get(decision, 0) + 1
    dispatch.add_partitions(instance, binding, [answer.job.partition_key for answer in answers])
    waves = _assign_now(machine, binding)
    rows = [
        dg.TableRecord(
            {
                "partition": answer.job.partition_key[:200],
                "job_id": answer.job.job_id[:12],
                "answer": answer.as_dict()["status"],
            }
        )
        for answer in answers[:_ROWS]
    ]
    links = "\n".join(f"- [{_jobs_of(wave)}]({_runs_of(wave)})" for wave in waves)
    return {
        f"{binding.job_type}/decisions": dg.MetadataValue.json(counts),
        f"{binding.job_type}/jobs": dg.MetadataValue.table(rows) if rows else dg.MetadataValue.text("none"),
        f"{binding.job_type}/waves": dg.MetadataValue.md(
            links or "the sensor `queued_jobs` will put them into a wave when one is free"
        ),
    }


def _jobs_of(wave: Wave) -> str:
    return f"{wave.size} job{'s' if wave.size > 1 else ''} of {wave.job_type}"


def _runs_of(wave: Wave) -> str:
    """Address of the list of the wave's runs in the UI."""
    return f"/runs?q[0]=tag%3A{WAVE_TAG.replace('/', '%2F')}%3D{wave.wave_id}"


def _assign_now(machine: CoreMachine, binding: Binding) -> list[Wave]:
    """Put what was just queued into waves, so that the submission can link their runs; the sensor starts them."""
    made = machine.ledger.assign_waves(
        wave_size=machine.settings.wave_size, waves_at_once=machine.settings.waves_at_once
    )
    return [wave for wave in made if wave.job_type == binding.job_type]


def _hours(hours: float | None) -> timedelta | None:
    return None if hours is None else timedelta(hours=hours)


# --- parameter models as Dagster config ------------------------------------------------------------------------


def _parameters_config(binding: Binding) -> Any:
    model = binding.parameters_model
    if model is None:
        return _permissive(
            {
                name: dg.Field(_legacy_type(entry), is_required=False, description=_legacy_text(entry))
                for name, entry in binding.parameters_schema.items()
                if isinstance(entry, Mapping)
            }
        )
    return dg.Shape(  # type: ignore[no-untyped-call]
        {
            field.alias or name: dg.Field(
                _config_type(field.annotation),
                # whether a missing one is an error is for the workflow to say, which words it better
                is_required=False,
                description=_field_text(
                    field.description,
                    required=field.is_required(),
                    default=field.get_default(call_default_factory=True),
                ),
            )
            for name, field in model.model_fields.items()
        }
    )


def _field_text(description: str | None, *, required: bool, default: object) -> str:
    text = description or ""
    if required:
        return f"{text} Required.".strip()
    # a description may say in words what no value means
    return text if "Default:" in text else f"{text} Default: {default!r}.".strip()


_SIMPLE_TYPES: dict[Any, Any] = {str: str, int: int, float: float, bool: bool}


def _config_type(annotation: Any) -> Any:
    """Dagster's config type of a field; what it cannot say is left to the workflow's own validation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        members = [member for member in arguments if member is not type(None)]
        inner = _config_type(members[0]) if len(members) == 1 else dg.Any
        return inner if inner is dg.Any else dg.Noneable(inner)
    if origin is typing.Literal:
        return dg.Enum("_".join(map(str, arguments))[:60], [dg.EnumValue(str(choice)) for choice in arguments])
    if origin is list:
        return [_config_type(arguments[0])]
    if dict in (origin, annotation) or hasattr(annotation, "model_fields"):
        return _permissive()
    return _SIMPLE_TYPES.get(annotation, dg.Any)


def _permissive(fields: dict[str, dg.Field] | None = None) -> Any:
    return dg.Permissive(fields)  # type: ignore[no-untyped-call]


def _legacy_type(entry: Mapping[str, Any]) -> Any:
    return {"int": int, "str": str, "float": float, "bool": bool, "dict": _permissive()}.get(
        str(entry.get("type")), dg.Any
    )


def _legacy_text(entry: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in entry.items() if name != "type")
