"""Putting work into the queue: ``submit`` and ``retry``, and waiting for it.

What belongs here: the commands and what they print.  What does not: what a submission means
(``coremachine.submission``) and how queued work is done without a daemon (``local_run``).
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.text import Text

from geo_assets.cli.exits import FAILED, TIMED_OUT
from geo_assets.cli.job_commands import (
    AssetOption,
    GoneOption,
    GroupOption,
    NewerOption,
    OlderOption,
    PrefixOption,
    ReasonOption,
    RunOption,
    SourceOption,
    TypeOption,
    failure_filter,
    find_job,
    note_gone,
)
from geo_assets.cli.job_fields import outcomes_of, status_fields
from geo_assets.cli.known_names import require_known
from geo_assets.cli.opening import open_instance, open_machine
from geo_assets.cli.output import JsonOption, console, note, print_json, print_table, say, styled_status
from geo_assets.cli.parameters import parse_parameters, read_keys
from geo_assets.coremachine.ledger import FAILED_STATUSES
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import Answer, failed_jobs, retry_jobs, submit_keys
from geo_assets.errors import ParameterError

if TYPE_CHECKING:
    from geo_assets.local_run import OnProgress, Waited

__all__ = ["add_retry", "add_submit"]

WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until the jobs have ended; does them here if no daemon is up.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=0, metavar="SECONDS", help="Stop waiting then (exit status 5); the jobs go on."),
]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show Dagster's log of runs done here.")]


def add_submit(app: typer.Typer) -> None:
    """Add ``submit``."""
    app.command("submit")(submit_jobs)


def add_retry(app: typer.Typer) -> None:
    """Add ``retry``."""
    app.command("retry")(retry)


def submit_jobs(  # noqa: PLR0913 - an argument an option
    job_type: Annotated[
        str, typer.Argument(metavar="JOB_TYPE", help="The workflow; 'geo-assets jobs --types' lists them.")
    ],
    *,
    params: Annotated[
        str | None, typer.Option("--params", metavar="JSON", help="Parameters as a JSON object, or @file.json.")
    ] = None,
    param: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="One parameter: JSON if it is, else text; a.b=1 nests."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="Value of the workflow's key parameter; one job each."),
    ] = None,
    keys_from: Annotated[
        str | None, typer.Option("--keys-from", metavar="FILE", help="Keys from a file, one a line; - is stdin.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="TEXT", help="Every existing key that starts with it.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run even where a recorded answer would do.")] = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Submit one job, or one a key; prints the answer, or with --wait what became of them."""
    parameters = parse_parameters(params, param or ())
    keys = [*(key or ()), *(read_keys(keys_from) if keys_from is not None else ())]
    if keys_from is not None and not keys:
        raise ParameterError(f"--keys-from {keys_from}: there are no keys in it")
    with open_machine() as machine:
        answers = submit_keys(
            machine, job_type, keys=keys, prefix=prefix, params=parameters, force=force, submitted_by="cli"
        )
        one = not keys and prefix is None
        if wait:
            _wait(machine, answers, one=one, timeout=timeout, verbose=verbose, as_json=as_json)
        else:
            _print_answers(answers, one=one, as_json=as_json)


def retry(  # noqa: PLR0913 - an argument an option
    job_id: Annotated[
        str | None,
        typer.Argument(metavar="[JOB_ID]", help="The job's id or the beginning of it.", show_default=False),
    ] = None,
    *,
    failed: Annotated[bool, typer.Option("--failed", help="All that 'geo-assets failures' lists.")] = False,
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
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Queue a job again, or with --failed every job that needs attention."""
    if (job_id is None) != failed:
        raise ParameterError("give either a job id or --failed")
    if job_id is not None and any((asset, reason, group, run, source, prefix, newer_than, older_than, gone)):
        raise ParameterError(
            "--asset, --reason, --group, --run, --source, --prefix, --newer-than, --older-than and --gone choose among"
            " --failed jobs"
        )
    with open_machine() as machine:
        if job_id is not None:
            jobs = [find_job(machine.ledger, job_id, job_type)]
        else:
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
            require_known(machine.ledger, which)
            note_gone(machine.ledger, which)
            found = failed_jobs(machine, which)
            jobs = [job for job in found if job.job_type in machine.registry]
            if len(jobs) < len(found):
                note(f"{len(found) - len(jobs)} jobs are left out: their workflows are not loaded here")
        answers = retry_jobs(machine, jobs, submitted_by="cli retry")
        if wait and answers:
            _wait(machine, answers, one=job_id is not None, timeout=timeout, verbose=verbose, as_json=as_json)
        else:
            _print_answers(answers, one=job_id is not None, as_json=as_json)


# --- answers -------------------------------------------------------------------------------------------------------


def _print_answers(answers: Sequence[Answer], *, one: bool, as_json: bool) -> None:
    if as_json:
        print_json(answers[0].as_dict() if one else [answer.as_dict() for answer in answers])
        return
    if not answers:
        note("nothing to queue")
        return
    if one:
        answer = answers[0].as_dict()
        say(f"{answer['message']}\n{answer['job_type']} {answer['job_id']}")
        if answer.get("result_data"):
            say(json.dumps(answer["result_data"], indent=2, ensure_ascii=False))
    else:
        decisions = Counter(answer.submitted.decision.value.replace("_", " ") for answer in answers)
        say(f"{len(answers):,} jobs: " + ", ".join(f"{number:,} {name}" for name, number in sorted(decisions.items())))
    if any(not answer.as_dict()["idempotent"] for answer in answers):
        note("a Dagster daemon takes them from the queue ('geo-assets dev'); --wait does them here if there is none")


# --- waiting -------------------------------------------------------------------------------------------------------


def _wait(
    machine: CoreMachine,
    answers: Sequence[Answer],
    *,
    one: bool,
    timeout: float | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Wait for the jobs, print what became of them, leave with the status that says it."""
    jobs = [answer.job for answer in answers]
    if all(job.status.is_terminal for job in jobs):
        _print_ended(machine, answers, None, one=one, as_json=as_json)
    with open_instance() as instance:
        from geo_assets.local_run import daemon_is_up, wait_for  # noqa: PLC0415 - brings Dagster with it

        if not as_json:
            note("waiting for the daemon" if daemon_is_up(instance) else "no daemon is up: the work is done here")
        shown = not as_json and sys.stdout.isatty()
        with _own_terminal(verbose=verbose) as terminal, _progress_bar(terminal, shown=shown) as on_progress:
            try:
                waited = wait_for(
                    machine, instance, jobs, timeout_seconds=timeout, on_progress=on_progress, verbose=verbose
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    "interrupted; a run that was done here is cancelled with its unfinished jobs"
                    " ('geo-assets retry' queues them again), what a daemon does goes on"
                ) from None
        _print_ended(machine, answers, waited, one=one, as_json=as_json)


def _print_ended(
    machine: CoreMachine, answers: Sequence[Answer], waited: "Waited | None", *, one: bool, as_json: bool
) -> None:
    """Print how the jobs stand and leave with the fitting exit status."""
    jobs = waited.jobs if waited is not None else [answer.job for answer in answers]
    if as_json:
        by_key = {(answer.job.job_type, answer.job.job_id): answer for answer in answers}
        rows = [
            {
                **status_fields(machine.ledger, job),
                "answer": by_key[job.job_type, job.job_id].as_dict(),
                "runPath": f"/runs/{job.run_id}" if job.run_id else None,
            }
            for job in jobs
        ]
        print_json(rows[0] if one else rows)
    elif one:
        _print_one(answers[0], jobs[0])
    else:
        _print_many(jobs)
    if not all(job.status.is_terminal for job in jobs):
        note("not all have ended; they go on, or stay queued")
        raise typer.Exit(TIMED_OUT)
    raise typer.Exit(FAILED if any(job.status in FAILED_STATUSES for job in jobs) else 0)


def _print_one(answer: Answer, job: Any) -> None:
    fields = answer.as_dict()
    if fields["idempotent"]:
        say(fields["message"])
    outcome = f" ({job.outcome.value})" if job.outcome else ""
    console().print(Text(f"{job.job_type} {job.job_id[:12]}: ").append(styled_status(job.status.value)).append(outcome))
    if job.reason:
        say(f"reason: {job.reason}")
    if job.result_data:
        say(json.dumps(job.result_data, indent=2, ensure_ascii=False))
    if job.run_id:
        say(f"run: /runs/{job.run_id} in Dagster's UI")


def _print_many(jobs: Sequence[Any]) -> None:
    counts = outcomes_of(jobs)
    print_table(
        [">jobs", "outcome"], [*((number, styled_status(name)) for name, number in counts.items()), (len(jobs), "all")]
    )
    shown = 20
    bad = [job for job in jobs if job.status in FAILED_STATUSES]
    if bad:
        say("")
        print_table(
            ["job", "partition", "status", "reason"],
            [
                (job.job_id[:12], job.partition_key[:60], styled_status(job.status.value), (job.reason or "")[:300])
                for job in bad[:shown]
            ],
        )
        if len(bad) > shown:
            note(f"and {len(bad) - shown} more: geo-assets failures")
    runs = list(dict.fromkeys(job.run_id for job in jobs if job.run_id))
    say("")
    for run_id in runs[:shown]:
        say(f"run: /runs/{run_id} in Dagster's UI")


class _Rate(ProgressColumn):
    """Tasks a second."""

    def render(self, task: Any) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def _own_terminal(*, verbose: bool) -> Iterator[TextIO]:
    """Keep stdout and stderr to ourselves while work is done in this process; yields what is still seen of stderr.

    Dagster captures the two descriptors as the log of each step and repeats them on the terminal.  That would end up
    among the JSON or in the progress bar; the log itself is in the run's page.  With ``verbose`` both go to stderr.
    """
    try:
        descriptors = sys.stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # not real files, as in tests
        yield sys.stderr
        return
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in descriptors]
    sink = os.dup(descriptors[1]) if verbose else os.open(os.devnull, os.O_WRONLY)
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        for descriptor in descriptors:
            os.dup2(sink, descriptor)
        with os.fdopen(os.dup(kept[1]), "w") as terminal:
            yield terminal
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, own in zip(descriptors, kept, strict=True):
            os.dup2(own, descriptor)
            os.close(own)
        os.close(sink)
        signal.signal(signal.SIGTERM, before)


def _interrupt(signal_number: int, frame: object) -> None:
    del signal_number, frame
    raise KeyboardInterrupt


@contextmanager
def _progress_bar(terminal: TextIO, *, shown: bool) -> Iterator["OnProgress | None"]:
    """A bar of tasks on stderr, and what feeds it."""
    if not shown:
        yield None
        return
    from geo_assets.local_run import Progress  # noqa: PLC0415 - brings Dagster with it

    with ProgressBar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        console=Console(file=terminal),
        transient=True,
    ) as bar:
        line = bar.add_task("queued", total=None)

        def show(progress: Progress) -> None:
            failed = f", {progress.tasks_failed:,} failed" if progress.tasks_failed else ""
            bar.update(
                line,
                total=progress.tasks or None,
                completed=progress.tasks_ended,
                description=f"{progress.jobs_ended:,} of {progress.jobs:,} jobs{failed}; tasks",
            )

        yield show
