"""Waits for jobs and, where no daemon is up, does their waves in this process, by the daemon's own path.

What belongs here: the loop of ``geo-assets submit --wait``: tick, create the runs the tick asks for, execute them,
tick again.  What does not: what a tick and a run mean (``coremachine.dispatch``, ``coremachine.asset_job``) and how
progress is shown (``cli``).

Runs made here belong to the code location ``geo_assets`` like the daemon's: Dagster's UI links them to their job and
can execute them again.
"""

import contextlib
import fcntl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import close_runner
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.dispatch import WAVE_TAG, RunAsked
from geo_assets.coremachine.ledger import Job, JobFilter, Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.dagster_home import CODE_LOCATION, DEFINITIONS_MODULE

__all__ = ["JobWatch", "Progress", "Waited", "daemon_is_up", "fail_dead_runs", "wait_for", "work_off"]

_DAEMONS = ("SENSOR", "QUEUED_RUN_COORDINATOR")
_HEARTBEAT_SECONDS = 30
"""Dagster's interval between heartbeats of a daemon."""
_TOLERANCE_SECONDS = 15
_POLL_SECONDS = 0.25
_LOOKED_UP_SINGLY = 20
_GRACE_SECONDS = 15.0
"""How long tasks under way may take to end after Ctrl-C."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the jobs waited for have come."""

    jobs: int
    jobs_ended: int
    tasks: int
    """Tasks known so far; a later stage adds its own when the one before has ended."""
    tasks_ended: int
    tasks_failed: int


@dataclass(frozen=True, kw_only=True)
class Waited:
    """How the wait ended."""

    jobs: list[Job]
    """The jobs as they stand, in the order given."""
    runs_here: list[str] = field(default_factory=list)
    """Runs executed in this process."""

    @property
    def all_ended(self) -> bool:
        """Whether every job has ended, well or badly; false after a timeout."""
        return all(job.status.is_terminal for job in self.jobs)


OnProgress = Callable[[Progress], None]


def daemon_is_up(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon takes jobs from the queue: fresh heartbeats of its sensor and its run queue.

    A daemon that was stopped counts as up for up to 45 s after its last heartbeat.
    """
    beats = instance.get_daemon_heartbeats()
    oldest = time.time() - _HEARTBEAT_SECONDS - _TOLERANCE_SECONDS
    return all(name in beats and beats[name].timestamp >= oldest for name in _DAEMONS)


def wait_for(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    jobs: Sequence[Job],
    *,
    timeout_seconds: float | None = None,
    on_progress: OnProgress | None = None,
    verbose: bool = False,
) -> Waited:
    """Wait until the jobs have ended; while no daemon is up, do their waves here.

    A daemon that comes or goes in between is noticed.  After the timeout the jobs go on, or stay queued; a run of
    this process is not cut short by it.

    Raises:
        KeyboardInterrupt: after Ctrl-C; the run of this process is cancelled in Dagster and its jobs in the ledger.
    """
    deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
    watch = JobWatch(machine.ledger, jobs, on_progress)
    runs: list[str] = []
    while not watch.look():
        if deadline is not None and time.monotonic() >= deadline:
            break
        if daemon_is_up(instance):
            time.sleep(_POLL_SECONDS * 2)
            continue
        made = _one_pass(machine, instance, watch, verbose=verbose)
        runs.extend(made)
        if not made and not watch.look():
            time.sleep(_POLL_SECONDS)  # another process is at work on them, or on their partitions
    return Waited(jobs=watch.jobs, runs_here=runs)


def work_off(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    *,
    only_jobs: Sequence[Job],
    on_progress: OnProgress | None = None,
    verbose: bool = False,
) -> Waited:
    """Do the waves of these jobs in this process, whether or not a daemon is up, until all have ended."""
    watch = JobWatch(machine.ledger, only_jobs, on_progress)
    runs: list[str] = []
    while not watch.look():
        made = _one_pass(machine, instance, watch, verbose=verbose)
        runs.extend(made)
        if not made and not watch.look():
            time.sleep(_POLL_SECONDS)
    return Waited(jobs=watch.jobs, runs_here=runs)


def fail_dead_runs(home: Path, instance: dg.DagsterInstance) -> list[str]:
    """Mark runs as failed whose command line died without a word; returns their ids.

    Nobody else would: Dagster watches the runs that its own launcher started.  The next tick queues their jobs again.

    Args:
        home: the ``GEO_ASSETS_HOME`` that the runs were started with, absolute.
        instance: where they are recorded.
    """
    dead: list[str] = []
    for path in sorted((home / _ALIVE_FOLDER).glob("*")):
        if path.name in _alive_here or not _is_abandoned(path):
            continue
        run = instance.get_run_by_id(path.name)
        if run is not None and not run.is_finished:
            instance.report_run_failed(run, "The command line that executed this run is gone.")
            dead.append(run.run_id)
        path.unlink(missing_ok=True)
    return dead


class JobWatch:
    """The jobs waited for, looked up again and again."""

    def __init__(self, ledger: Ledger, jobs: Sequence[Job], on_progress: OnProgress | None = None) -> None:
        self._ledger = ledger
        self._on_progress = on_progress
        self._since = datetime.now(UTC)
        # the same job may be answered twice in one submission
        self.jobs = list({_key(job): job for job in jobs}.values())

    @property
    def open(self) -> list[Job]:
        """The jobs that have not ended yet."""
        return [job for job in self.jobs if not job.status.is_terminal]

    def look(self) -> bool:
        """Read the jobs again, report progress, say whether all have ended."""
        waiting = self.open
        if waiting:
            still_open = self._read(waiting, JobFilter(statuses=(JobStatus.QUEUED, JobStatus.PROCESSING)))
            ended = [job for job in waiting if _key(job) not in still_open]
            fresh = {**still_open, **self._read_ended(ended)}
            self.jobs = [fresh.get(_key(job), job) for job in self.jobs]
        if self._on_progress is not None:
            self._on_progress(self._progress())
        return not self.open

    def _read(self, jobs: Sequence[Job], which: JobFilter) -> dict[tuple[str, str], Job]:
        # one query a workflow, however many jobs are waited for
        wanted = {_key(job) for job in jobs}
        found: dict[tuple[str, str], Job] = {}
        for job_type in {job.job_type for job in jobs}:
            for job in self._ledger.jobs(replace(which, job_type=job_type), limit=None):
                if _key(job) in wanted:
                    found[_key(job)] = job
        return found

    def _read_ended(self, jobs: Sequence[Job]) -> dict[tuple[str, str], Job]:
        if len(jobs) <= _LOOKED_UP_SINGLY:
            return {_key(job): self._ledger.job(job.job_id, job.job_type) for job in jobs}
        # the clocks of two machines may differ
        since = datetime.now(UTC) - self._since + timedelta(hours=1)
        return self._read(jobs, JobFilter(newer_than=since))

    def _progress(self) -> Progress:
        counts = self._ledger.task_counts([job.latest_attempt for job in self.jobs if job.latest_attempt]).values()
        return Progress(
            jobs=len(self.jobs),
            jobs_ended=len(self.jobs) - len(self.open),
            tasks=sum(count.total for count in counts),
            tasks_ended=sum(count.done for count in counts),
            tasks_failed=sum(count.failed for count in counts),
        )


def _key(job: Job) -> tuple[str, str]:
    return job.job_type, job.job_id


def _one_pass(machine: CoreMachine, instance: dg.DagsterInstance, watch: JobWatch, *, verbose: bool) -> list[str]:
    """One tick and the runs it asks for; the ids of those."""
    fail_dead_runs(machine.settings.home_path, instance)
    asked = dispatch.tick(machine, instance, only_jobs=watch.open).runs
    wanted = {_key(job) for job in watch.open}
    ours = [run for run in asked if wanted & _jobs_in(machine.ledger, run)]
    # a wave of others that nobody runs may hold the partitions that ours wait for
    return [_run_here(machine, instance, run, watch, verbose=verbose) for run in ours or asked]


def _jobs_in(ledger: Ledger, asked: RunAsked) -> set[tuple[str, str]]:
    return {(attempt.job_type, attempt.job_id) for attempt in ledger.attempts_of_wave(asked.tags[WAVE_TAG])}


# --- one run -------------------------------------------------------------------------------------------------------


def _repository() -> ReconstructableRepository:
    return ReconstructableRepository.for_module(DEFINITIONS_MODULE, "defs")


def _origin(job_name: str) -> RemoteJobOrigin:
    """Says of a run: its job is in our code location. The UI matches location and job by their names."""
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name=DEFINITIONS_MODULE)
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name=CODE_LOCATION)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, _repository().get_definition().name), job_name)


def _run_here(
    machine: CoreMachine, instance: dg.DagsterInstance, asked: RunAsked, watch: JobWatch, *, verbose: bool
) -> str:
    """Create a run as the daemon would and execute it, while this thread watches.

    The run is executed in a thread of its own: Dagster then leaves the signal handlers alone, Ctrl-C arrives here,
    and the run can be marked before anything is torn down.
    """
    job = _repository().get_reconstructable_job(asked.job_name)
    # Dagster's console logger would write over the progress bar; its event log has everything
    level = "DEBUG" if verbose else "CRITICAL"
    run = instance.create_run_for_job(
        job.get_definition(),
        run_config={"loggers": {"console": {"config": {"log_level": level}}}},
        tags={**asked.tags, "geo_assets/executed_by": "command line"},
        remote_job_origin=_origin(asked.job_name),
        job_code_origin=job.get_python_origin(),
    )
    execution = _Execution(instance, job, run)
    with _alive(machine.settings.home_path, run.run_id):
        execution.start()
        try:
            while execution.is_alive():
                execution.join(_POLL_SECONDS)
                watch.look()
        except BaseException:  # Ctrl-C, or the ledger is away: either way nobody looks after the run any more
            _cancel(machine, instance, execution)
            raise
    if execution.error is not None:
        raise execution.error
    return run.run_id


class _Execution(threading.Thread):
    """Executes one run in this process."""

    def __init__(self, instance: dg.DagsterInstance, job: ReconstructableJob, run: dg.DagsterRun) -> None:
        super().__init__(name=f"run {run.run_id}", daemon=True)
        self.dagster_run = run
        self.error: BaseException | None = None
        self._instance = instance
        self._job = job

    def run(self) -> None:
        try:
            execute_run(self._job, self.dagster_run, self._instance, raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - raised again in the waiting thread
            self.error = error


def _cancel(machine: CoreMachine, instance: dg.DagsterInstance, execution: _Execution) -> None:
    """End a run of this process: tasks under way may finish, the others are cancelled, the run shows cancelled."""
    run = execution.dagster_run
    instance.report_run_canceling(run, message="Interrupted at the command line.")
    for attempt in machine.ledger.attempts_of_run(run.run_id):
        if not attempt.status.is_terminal:
            machine.ledger.cancel(attempt.job_type, attempt.job_id)
    execution.join(_GRACE_SECONDS)
    if execution.is_alive():  # a task that does not end: worker processes can be killed, threads end with us
        close_runner(kill=True)
        execution.join(1.0)
    machine.ledger.cancel_run(run.run_id, "interrupted at the command line")
    after = instance.get_run_by_id(run.run_id)
    if after is not None and not after.is_finished:
        instance.report_run_canceled(after, message="Interrupted at the command line.")


# --- signs of life -------------------------------------------------------------------------------------------------

_ALIVE_FOLDER = "local_runs"
_alive_here: set[str] = set()
"""Runs of this process; a process always gets the locks it holds itself."""


@contextlib.contextmanager
def _alive(home: Path, run_id: str) -> Iterator[None]:
    """Hold a lock that the system lets go of when this process dies, however it does.

    A record lock, because processes forked by the work do not inherit it.
    """
    path = home / _ALIVE_FOLDER / run_id
    path.parent.mkdir(parents=True, exist_ok=True)
    _alive_here.add(run_id)
    try:
        with path.open("w") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            yield
    finally:
        path.unlink(missing_ok=True)
        _alive_here.discard(run_id)


def _is_abandoned(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by a process that lives, or just removed
        return False
    return True
