"""Looking at jobs and stopping them: ``jobs``, ``status``, ``tasks``, ``failures``, ``cancel``.

What belongs here: commands that need the ledger and nothing else, so that they answer at once and while stores or
Dagster are away.  What does not: anything that queues work (``submit_commands``).
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import typer

from geo_assets.cli.exits import FAILED
from geo_assets.cli.job_fields import job_fields, status_fields, task_counts, task_fields
from geo_assets.cli.known_names import require_known
from geo_assets.cli.opening import existing_ledger, ledger_place
from geo_assets.cli.output import JsonOption, note, print_json, print_table, readable, say, styled_status, when
from geo_assets.cli.parameters import parse_duration
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.contract import JobStatus, TaskStatus
from geo_assets.coremachine.identity import key_prefix
from geo_assets.coremachine.ledger import FAILED_STATUSES, Attempt, FailureGroup, Job, JobFilter, Ledger, TaskCounts
from geo_assets.coremachine.reasons import group_of
from geo_assets.coremachine.submission import failures_left_out
from geo_assets.errors import JobNotFoundError
from geo_assets.settings import get_settings

__all__ = ["JobIdArgument", "TypeOption", "add_to", "failure_filter", "find_job", "note_gone"]

JobIdArgument = Annotated[
    str, typer.Argument(metavar="JOB_ID", help="The job's id, or its first 8 or more characters.")
]
TypeOption = Annotated[
    str | None, typer.Option("--type", metavar="JOB_TYPE", help="Only jobs of this workflow.", show_default=False)
]
LimitOption = Annotated[int, typer.Option("--limit", min=0, help="Most rows to show; 0: all.")]
AssetOption = Annotated[str | None, typer.Option("--asset", help="Only jobs of this asset.", show_default=False)]
ReasonOption = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", help="Only where the reason or error has this text.", show_default=False),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group",
        metavar="REASON",
        help="Only those of this reason, as 'failures --by-reason' names it, or a reason like theirs.",
        show_default=False,
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN_ID", help="Only of this run, where not run again since.", show_default=False),
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="NAME", help="Only what this source brought about.", show_default=False),
]
PrefixOption = Annotated[
    str | None, typer.Option("--prefix", metavar="TEXT", help="Only partitions that begin so.", show_default=False)
]
NewerOption = Annotated[
    str | None, typer.Option("--newer-than", metavar="AGE", help="Only since then: 90s, 15m, 2h, 1d12h, 2w.")
]
GoneOption = Annotated[
    bool, typer.Option("--gone", help="Only those of blobs that their source has seen go, which are left out else.")
]
OlderOption = Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Only before then.")]

_ID_SHOWN = 12


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("jobs")(list_jobs)
    app.command("status")(show_status)
    app.command("tasks")(list_tasks)
    app.command("failures")(list_failures)
    app.command("cancel")(cancel_job)


def find_job(ledger: Ledger | None, job_id: str, job_type: str | None = None) -> Job:
    """One job by its id or the beginning of it.

    Raises:
        JobNotFoundError: there is none, or nothing was ever submitted here.
        ParameterError: too short, or several match.
    """
    if ledger is None:
        raise JobNotFoundError(
            f"no job '{job_id}': nothing was submitted yet in {get_settings().home_path}"
            " (another home? set GEO_ASSETS_HOME)"
        )
    return ledger.job(job_id, job_type)


def failure_filter(
    *,
    asset: str | None,
    job_type: str | None,
    reason: str | None,
    group: str | None,
    run_id: str | None,
    source: str | None,
    prefix: str | None,
    newer_than: str | None,
    older_than: str | None,
    gone: bool,
) -> JobFilter:
    """The filter that ``failures`` and ``retry --failed`` share."""
    return JobFilter(
        job_type=job_type,
        asset=asset,
        statuses=FAILED_STATUSES,
        reason_contains=reason,
        reason_group=group_of(group) if group is not None else None,
        run_id=run_id,
        source=source,
        prefix=key_prefix(prefix) if prefix else None,
        newer_than=parse_duration(newer_than) if newer_than is not None else None,
        older_than=parse_duration(older_than) if older_than is not None else None,
        gone=gone,
    )


def note_gone(ledger: Ledger | None, which: JobFilter) -> None:
    """Say how many failures are left out, as their blobs are gone."""
    if ledger is not None and (left := failures_left_out(ledger, which)):
        note(f"{left:,} of blobs that are gone are left out; --gone takes those")


# --- jobs ----------------------------------------------------------------------------------------------------------


def list_jobs(
    *,
    job_type: TypeOption = None,
    status: Annotated[
        list[JobStatus] | None, typer.Option("--status", help="Only these; may be given more than once.")
    ] = None,
    asset: AssetOption = None,
    limit: LimitOption = 20,
    types: Annotated[bool, typer.Option("--types", help="List the workflows there are instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the latest jobs, or with --types the workflows."""
    if types:
        _list_types(as_json=as_json)
        return
    which = JobFilter(job_type=job_type, asset=asset, statuses=tuple(status or ()))
    with existing_ledger() as ledger:
        require_known(ledger, which)
        jobs = ledger.jobs(which, limit=limit or None) if ledger is not None else []
        counts = ledger.status_counts() if ledger is not None else {}
    if as_json:
        print_json([job_fields(job) for job in jobs])
        return
    if not jobs:
        note(f"no such jobs in {ledger_place(get_settings())}")
        return
    print_table(
        ["job", "type", "status", "updated", "partition", "reason"],
        [
            (
                job.job_id[:_ID_SHOWN],
                job.job_type,
                styled_status(job.status.value),
                when(job.updated_at),
                job.partition_key[:60],
                _short(job.reason),
            )
            for job in jobs
        ],
    )
    say("")
    for name, by_status in sorted(counts.items()):
        say(f"{name}: " + ", ".join(f"{number:,} {one}" for one, number in sorted(by_status.items())))


def _list_types(*, as_json: bool) -> None:
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - the workflows bring Arrow with them

    registry = load_registry(get_settings())
    bindings = [registry[name] for name in sorted(registry)]
    if as_json:
        print_json([_type_fields(binding) for binding in bindings])
        return
    print_table(
        ["type", "asset", "stages", "key", "description"],
        [
            (
                binding.job_type,
                binding.asset,
                " → ".join(stage.name for stage in binding.stages),
                binding.key_parameter or "(job id)",
                binding.description,
            )
            for binding in bindings
        ],
    )


def _type_fields(binding: Binding) -> dict[str, Any]:
    model = binding.parameters_model
    return {
        "jobType": binding.job_type,
        "description": binding.description,
        "asset": binding.asset,
        "stages": [stage.name for stage in binding.stages],
        "keyParameter": binding.key_parameter,
        "production": binding.production,
        "parameters": model.model_json_schema() if model is not None else dict(binding.parameters_schema),
    }


# --- status --------------------------------------------------------------------------------------------------------


def show_status(job_id: JobIdArgument, *, job_type: TypeOption = None, as_json: JsonOption = False) -> None:
    """Show one job: status, result, task counts, progress, attempts."""
    with existing_ledger() as ledger:
        job = find_job(ledger, job_id, job_type)
        assert ledger is not None  # noqa: S101 - find_job refuses None
        fields = status_fields(ledger, job)
    if as_json:
        print_json(fields)
        return
    counts = fields["taskCounts"]
    lines: list[tuple[str, Any]] = [
        ("job", job.job_id),
        ("type", job.job_type),
        ("status", styled_status(job.status.value)),
        ("outcome", styled_status(job.outcome.value) if job.outcome else ""),
        ("reason", job.reason),
        ("stage", f"{job.stage} of {job.total_stages}"),
        ("progress", f"{fields['progress']:.0%}"),
        (
            "tasks",
            ", ".join(f"{number:,} {name}" for name, number in counts.items() if number or name == "total")
            + (f" ({_CLEANED_UP})" if fields.get("tasksRemoved") else ""),
        ),
        ("asset", job.asset),
        ("partition", job.partition_key),
        ("source version", job.source_version),
        ("parameters", json.dumps(job.parameters, ensure_ascii=False)),
        ("created", when(job.created_at)),
        ("updated", when(job.updated_at)),
        ("withdrawn", when(job.withdrawn_at)),
        ("run", f"/runs/{job.run_id} in Dagster's UI" if job.run_id else ""),
    ]
    if job.error_details and job.error_details != job.reason:
        lines.append(("error", job.error_details))
    print_table(["", ""], [line for line in lines if line[1]])
    if job.result_data:
        say("\nresult")
        say(json.dumps(readable(job.result_data), indent=2, ensure_ascii=False))
        note(f"all of it: geo-assets status {job.job_id[:12]} --json")
    say("")
    print_table(
        [">attempt", "status", "outcome", "submitted by", "started", "ended", "run", "reason"],
        [
            (
                attempt["number"],
                styled_status(attempt["status"]),
                styled_status(attempt["outcome"] or ""),
                attempt["submittedBy"],
                _moment(attempt["startedAt"]),
                _moment(attempt["endedAt"]),
                (attempt["runId"] or "")[:8],
                _short(attempt["reason"]),
            )
            for attempt in fields["attempts"]
        ],
    )


def _moment(text: str | None) -> str:
    return when(datetime.fromisoformat(text)) if text else ""


# --- tasks ---------------------------------------------------------------------------------------------------------


def list_tasks(
    job_id: JobIdArgument,
    *,
    stage: Annotated[int | None, typer.Option("--stage", min=1, help="Only this stage.", show_default=False)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only tasks that failed or were refused.")] = False,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, help="Of this attempt; default: the latest.", show_default=False)
    ] = None,
    limit: LimitOption = 100,
    job_type: TypeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a job's tasks with what became of each."""
    with existing_ledger() as ledger:
        job = find_job(ledger, job_id, job_type)
        assert ledger is not None  # noqa: S101 - find_job refuses None
        found_attempt = _attempt_of(ledger, job, attempt)
        attempt_id = found_attempt.attempt_id if found_attempt is not None else None
        statuses = (TaskStatus.FAILED,) if failed else ()
        found = ledger.tasks_of([attempt_id] if attempt_id else [], stage=stage, statuses=statuses)
        tasks = list(islice(found, limit + 1 if limit else None))
        counts, removed = task_counts(ledger, found_attempt) if found_attempt is not None else (TaskCounts(), False)
    if removed:
        note(f"{counts.total:,} tasks, {counts.completed:,} completed, {counts.failed:,} failed: {_CLEANED_UP}")
    more = bool(limit) and len(tasks) > limit
    tasks = tasks[:limit] if more else tasks
    if as_json:
        print_json([task_fields(task) for task in tasks])
    else:
        print_table(
            [">stage", ">index", "task", "type", "about", "status", "outcome", ">tries", ">ms", "reason"],
            [
                (
                    task.stage,
                    task.task_index,
                    task.task_id[:12],
                    task.task_type,
                    _about(task.parameters),
                    styled_status(task.status.value),
                    styled_status(task.outcome.value if task.outcome else ""),
                    task.retry_count + 1 if task.status.is_terminal else task.retry_count,
                    task.execution_time_ms,
                    _short(task.reason or task.error_details),
                )
                for task in tasks
            ],
        )
    if more:
        note(f"only the first {limit} are shown; --limit 0 shows all")


def _about(parameters: Mapping[str, Any]) -> str:
    """The blob or container of a task, or how many."""
    several = parameters.get("blob_names")
    if several:
        return f"{several[0]} and {len(several) - 1} more"
    return str(parameters.get("blob_name") or parameters.get("container_name") or "")


_CLEANED_UP = "the tasks themselves were cleaned up; GEO_ASSETS_KEEP_TASK_DAYS says how long they are kept"


def _attempt_of(ledger: Ledger, job: Job, number: int | None) -> Attempt | None:
    for attempt in ledger.attempts_of_job(job.job_type, job.job_id):
        if attempt.number == number or (number is None and attempt.attempt_id == job.latest_attempt):
            return attempt
    if number is None:
        return None
    raise JobNotFoundError(
        f"job {job.job_id[:_ID_SHOWN]} has no attempt {number}; it has had {job.attempts}, and the clean-up removes old"
        " ones that many newer ones have replaced"
    )


# --- failures ------------------------------------------------------------------------------------------------------


def list_failures(  # noqa: PLR0913 - an argument an option
    *,
    asset: AssetOption = None,
    job_type: TypeOption = None,
    reason: ReasonOption = None,
    group: GroupOption = None,
    run: RunOption = None,
    source: SourceOption = None,
    prefix: PrefixOption = None,
    newer_than: NewerOption = None,
    older_than: OlderOption = None,
    gone: GoneOption = False,
    by_reason: Annotated[bool, typer.Option("--by-reason", help="Count them by reason, and say how to retry.")] = False,
    limit: LimitOption = 100,
    as_json: JsonOption = False,
) -> None:
    """List jobs that need attention: failed, completed with errors, cancelled."""
    which = failure_filter(
        asset=asset,
        job_type=job_type,
        reason=reason,
        group=group,
        run_id=run,
        source=source,
        prefix=prefix,
        newer_than=newer_than,
        older_than=older_than,
        gone=gone,
    )
    with existing_ledger() as ledger:
        require_known(ledger, which)
        note_gone(ledger, which)
        if by_reason:
            counted = ledger.failures_by_reason(which) if ledger is not None else []
            others = {
                "--type": job_type,
                "--reason": reason,
                "--run": run,
                "--source": source,
                "--prefix": prefix,
                "--newer-than": newer_than,
                "--older-than": older_than,
            }
            words = [word for option, value in others.items() if value is not None for word in (option, value)]
            words += ["--gone"] if gone else []
            _print_reasons(counted, limit, words, as_json=as_json)
            return
        jobs = ledger.jobs(which, limit=limit + 1 if limit else None) if ledger is not None else []
    more = bool(limit) and len(jobs) > limit
    jobs = jobs[:limit] if more else jobs
    if as_json:
        print_json([job_fields(job) for job in jobs])
    elif jobs:
        print_table(
            ["job", "type", "status", "updated", "partition", "reason"],
            [
                (
                    job.job_id[:_ID_SHOWN],
                    job.job_type,
                    styled_status(job.status.value),
                    when(job.updated_at),
                    job.partition_key[:60],
                    _short(job.reason or job.error_details),
                )
                for job in jobs
            ],
        )
        note("'geo-assets retry --failed' with the same filters queues them again")
    else:
        note("no failures")
    if more:
        note(f"only the latest {limit} are shown; --limit 0 shows all")


def _print_reasons(groups: list[FailureGroup], limit: int, others: Sequence[str], *, as_json: bool) -> None:
    shown = groups[:limit] if limit else groups
    commands = [
        shlex.join(["geo-assets", "retry", "--failed", "--asset", one.asset, "--group", one.reason, *others])
        for one in shown
    ]
    if as_json:
        print_json([{**one._asdict(), "retry": command} for one, command in zip(shown, commands, strict=True)])
        return
    if not groups:
        note("no failures")
        return
    print_table(
        [">jobs", "asset", "such as", "reason"],
        [(one.jobs, one.asset, one.example[:60], _short(one.reason)) for one in shown],
    )
    say("")
    for command in commands:
        say(command)
    if left := groups[len(shown) :]:
        note(f"and {sum(one.jobs for one in left):,} jobs of {len(left):,} more reasons; --limit 0 shows all")


# --- cancel --------------------------------------------------------------------------------------------------------


def cancel_job(job_id: JobIdArgument, *, job_type: TypeOption = None, as_json: JsonOption = False) -> None:
    """Cancel a job: at once where it waits, between two tasks where it is at work."""
    with existing_ledger() as ledger:
        job = find_job(ledger, job_id, job_type)
        assert ledger is not None  # noqa: S101 - find_job refuses None
        ended, asked = ledger.cancel(job.job_type, job.job_id)
        job = ledger.job(job.job_id, job.job_type)
    if as_json:
        print_json({**job_fields(job), "cancelledAttempts": ended, "attemptsAskedToStop": asked})
    elif ended:
        say(f"{job.job_type} {job.job_id[:_ID_SHOWN]} is cancelled; it had not started")
    elif asked:
        say(f"{job.job_type} {job.job_id[:_ID_SHOWN]} was asked to stop; tasks under way end first")
    if not ended and not asked:
        note(f"nothing to cancel: {job.job_type} {job.job_id[:_ID_SHOWN]} is {job.status.value}")
        raise typer.Exit(FAILED)


def _short(reason: str | None, limit: int = 300) -> str:
    text = reason or ""
    return text if len(text) <= limit else f"{text[:limit]}…"
