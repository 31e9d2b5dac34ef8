"""The way into the queue: parameters → checked jobs → ledger, with the original's answers.

What belongs here: submitting jobs by parameters, by keys or by prefix, and submitting failed ones again.  What
does not: waves and runs (``dispatch``).

Everything is checked before anything is written, and a job's record and its place in the queue are written in one
transaction, so that no job is left behind that nobody runs.  More than a thousand jobs are several transactions: a
submission that dies in between is made whole by repeating it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from geo_assets.coremachine.binding import Binding, binding_for
from geo_assets.coremachine.ledger import (
    BULK_PRIORITY,
    FAILED_STATUSES,
    INTERACTIVE_PRIORITY,
    Decision,
    Job,
    JobFilter,
    Ledger,
    NewJob,
    Submitted,
)
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, ParameterError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the submitter gets back; :meth:`as_dict` is the original's wire form."""

    submitted: Submitted
    queue_info: dict[str, Any]

    @property
    def job(self) -> Job:
        """The job as it stands after the submission."""
        return self.submitted.job

    def as_dict(self) -> dict[str, Any]:
        """The original's answer: created, already completed, or under way (reference 1.11 and 1.12)."""
        job = self.job
        common = {"job_id": job.job_id, "job_type": job.job_type, "parameters": job.parameters}
        match self.submitted.decision:
            case Decision.RECORDED:
                return {
                    **common,
                    "status": "already_completed",
                    "message": "Job already completed with identical parameters and source (idempotency)",
                    "result_data": job.result_data,
                    "created_at": _iso(job.created_at),
                    "completed_at": _iso(job.completed_at),
                    "idempotent": True,
                }
            case Decision.IN_PROGRESS:
                return {
                    **common,
                    "status": job.status.value,
                    "message": f"Job already exists with status: {job.status.value} (idempotency - not re-queued)",
                    "created_at": _iso(job.created_at),
                    "current_stage": job.stage,
                    "total_stages": job.total_stages,
                    "idempotent": True,
                }
            case Decision.CREATED | Decision.REQUEUED:
                again = self.submitted.decision is Decision.REQUEUED
                return {
                    **common,
                    "status": "created",
                    "message": f"Job queued again (attempt {job.attempts})" if again else "Job created and queued",
                    "queue_info": self.queue_info,
                    "idempotent": False,
                }


def prepare(
    machine: CoreMachine,
    binding: Binding,
    params: Mapping[str, Any],
    *,
    force: bool = False,
    priority: int = BULK_PRIORITY,
    submitted_by: str = "api",
    source_version: str | None = None,
    source: str | None = None,
) -> NewJob:
    """Check parameters and make the job from them; nothing is written.

    The workflow is asked for the version of what it reads, unless ``source_version`` says it.

    Raises:
        ParameterError: the workflow refuses the parameters.
    """
    validated = binding.validate(params)
    job_id = binding.job_id(validated)
    record = binding.create_record(job_id, validated)
    metadata = record.get("metadata")
    return NewJob(
        job_type=binding.job_type,
        job_id=job_id,
        asset=binding.asset,
        partition_key=binding.partition_key(validated, job_id),
        parameters=validated,
        total_stages=binding.total_stages,
        metadata=metadata if isinstance(metadata, Mapping) else {},
        source_version=source_version or binding.source_version(validated, machine.services),
        max_age_seconds=binding.max_age_seconds(),
        force=force,
        priority=priority,
        submitted_by=submitted_by,
        source=source,
    )


def submit(
    machine: CoreMachine,
    job_type: str,
    params: Mapping[str, Any],
    *,
    force: bool = False,
    submitted_by: str = "api",
) -> Answer:
    """Submit one job.

    Raises:
        UnknownJobTypeError: lists the types there are.
        ParameterError: the workflow refuses the parameters.
    """
    return submit_many(machine, job_type, [params], force=force, submitted_by=submitted_by)[0]


def submit_many(
    machine: CoreMachine,
    job_type: str,
    params_list: Sequence[Mapping[str, Any]],
    *,
    force: bool = False,
    submitted_by: str = "api",
) -> list[Answer]:
    """Submit jobs of one type, one answer each; if any is refused, none is queued.

    Raises:
        UnknownJobTypeError: lists the types there are.
        ParameterError: every refused parameter set, by position.
    """
    binding = binding_for(machine.registry, job_type)
    priority = INTERACTIVE_PRIORITY if len(params_list) <= machine.settings.interactive_limit else BULK_PRIORITY
    new_jobs: list[NewJob] = []
    problems: list[str] = []
    for position, params in enumerate(params_list):
        try:
            new_jobs.append(
                prepare(machine, binding, params, force=force, priority=priority, submitted_by=submitted_by)
            )
        except ParameterError as error:
            problems.append(str(error) if len(params_list) == 1 else f"job {position + 1}: {error}")
    if problems:
        shown = 5
        more = f"; and {len(problems) - shown} more" if len(problems) > shown else ""
        raise ParameterError("; ".join(problems[:shown]) + more)
    return _queue(machine, new_jobs)


def _queue(machine: CoreMachine, new_jobs: Sequence[NewJob]) -> list[Answer]:
    # before anything is written: a class whose queue_job raises has queued nothing
    queue_infos = [machine.registry[new.job_type].queue(new.job_id, dict(new.parameters)) for new in new_jobs]
    return [
        Answer(submitted=submitted, queue_info=queue_info)
        for submitted, queue_info in zip(machine.ledger.submit(new_jobs), queue_infos, strict=True)
    ]


def submit_keys(
    machine: CoreMachine,
    job_type: str,
    *,
    keys: Sequence[str] = (),
    prefix: str | None = None,
    params: Mapping[str, Any] | None = None,
    force: bool = False,
    submitted_by: str = "api",
) -> list[Answer]:
    """Submit one job a key, each with the same other parameters.

    Args:
        machine: the parts.
        job_type: which workflow.
        keys: values of the workflow's key parameter.
        prefix: every existing value that starts with it, too.
        params: the other parameters; without keys and prefix, one job is made from them alone.
        force: run even where a recorded answer would do.
        submitted_by: shown in the ledger.

    Raises:
        ParameterError: the workflow has no key parameter, the prefix matches nothing, or parameters are refused.
    """
    binding = binding_for(machine.registry, job_type)
    others = dict(params or {})
    if not keys and prefix is None:
        return submit_many(machine, job_type, [others], force=force, submitted_by=submitted_by)
    if not binding.takes_keys:
        msg = f"{job_type} has no key parameter, so it takes neither keys nor a prefix; give its parameters"
        raise ParameterError(msg)
    wanted = list(dict.fromkeys(keys))
    if prefix is not None:
        matching = binding.keys_with_prefix(prefix, machine.services)
        if not matching and not wanted:
            msg = f"{job_type}: nothing starts with the prefix '{prefix}'"
            raise ParameterError(msg)
        wanted = list(dict.fromkeys([*wanted, *matching]))
    params_list = [binding.parameters_of_key(key, others) for key in wanted]
    return submit_many(machine, job_type, params_list, force=force, submitted_by=submitted_by)


def retry_jobs(machine: CoreMachine, jobs: Sequence[Job], *, submitted_by: str = "retry") -> list[Answer]:
    """Queue jobs again as they are recorded, whatever became of them; their parameters were checked long ago.

    Raises:
        UnknownJobTypeError: no workflow of one of the types is registered; lists the types there are.
    """
    priority = INTERACTIVE_PRIORITY if len(jobs) <= machine.settings.interactive_limit else BULK_PRIORITY
    new_jobs = [
        NewJob(
            job_type=job.job_type,
            job_id=job.job_id,
            asset=job.asset,
            partition_key=job.partition_key,
            parameters=job.parameters,
            total_stages=binding.total_stages,
            metadata=job.metadata,
            source_version=source_version_or_none(machine, binding, job.parameters),
            force=True,
            priority=priority,
            submitted_by=submitted_by,
        )
        for job in jobs
        for binding in [binding_for(machine.registry, job.job_type)]
    ]
    return _queue(machine, new_jobs)


def source_version_or_none(machine: CoreMachine, binding: Binding, params: dict[str, Any]) -> str | None:
    """The source's version, or ``None`` where it cannot be had; one missing source must not stop the other jobs."""
    try:
        return binding.source_version(params, machine.services)
    except GeoAssetsError:  # the job itself says better what is wrong with its source, without stopping the others
        return None


def failed_jobs(machine: CoreMachine, which: JobFilter | None = None) -> list[Job]:
    """Jobs that need attention: failed, completed with errors, cancelled."""
    which = which or JobFilter()
    chosen = replace(which, statuses=which.statuses or FAILED_STATUSES)
    return machine.ledger.jobs(chosen, limit=None)


def failures_left_out(ledger: Ledger, which: JobFilter) -> int:
    """How many failures a filter leaves out for no other reason than that their blobs are gone."""
    if which.gone is not False:
        return 0
    return sum(group.jobs for group in ledger.failures_by_reason(replace(which, gone=True)))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
