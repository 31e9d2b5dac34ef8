"""What orchestration costs: a job of many tasks, a wave of many jobs, a listing of many blobs, on SQLite.

What belongs here: the overhead of queue, ledger, run and events, with tasks that do next to nothing.  What does
not: what the tasks themselves cost (``listing``, ``summary``).

Everything measured runs in a process of its own with a home of its own; repeats are interleaved and medians count.
Results are checked before a figure is printed.  Exit status 1: a limit of ``LIMITS`` is broken.

    python -m benchmarks.orchestration                   all of it, about four minutes
    python -m benchmarks.orchestration --only wave       one part: job, wave or listing
    python -m benchmarks.orchestration --profile         cProfile of a wave as well
"""

import argparse
import cProfile
import functools
import hashlib
import io
import json
import os
import platform
import pstats
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the measuring process stays small: children would inherit its peak memory
    import dagster as dg

    from geo_assets.coremachine.ledger import Job
    from geo_assets.coremachine.machine import CoreMachine

ROOT = Path(__file__).resolve().parent.parent

GREETINGS = 1000
TASKS = 2 * GREETINGS
RIVAL_GREETINGS = 25
RIVAL_STEPS = 2 * RIVAL_GREETINGS
JOBS = 1000
FEW_BLOBS, MANY_BLOBS = 1_000, 10_000
BLOB_BYTES = 64

LIMITS = {
    "times faster than one step each": ("at least", 25.0),
    "ms a task": ("at most", 10.0),
    "ms a job": ("at most", 25.0),
    "s for 10,000 tasks": ("at most", 60.0),
    "times the memory for 10 times the tasks": ("at most", 1.5),
}


# --- what a child does ---------------------------------------------------------------------------------------------


class Machinery:
    """The code location and the instance, as a run worker has them."""

    def __init__(self) -> None:
        import dagster as dg  # noqa: PLC0415
        from dagster._core.definitions.reconstruct import ReconstructableRepository  # noqa: PLC0415

        from geo_assets.coremachine.asset_job import MACHINE  # noqa: PLC0415
        from geo_assets.definitions import defs  # noqa: PLC0415

        resources: Any = defs.resources
        self.machine: CoreMachine = resources[MACHINE].machine()
        self.instance = dg.DagsterInstance.get()
        self._repository = ReconstructableRepository.for_module("geo_assets.definitions", "defs")
        self._repository.get_definition()

    def work_off(self, timings: dict[str, float]) -> "list[dg.DagsterRun]":
        """Tick and execute the runs it asks for, as the daemon and a run worker do, until none is asked for."""
        import dagster as dg  # noqa: PLC0415

        from geo_assets.coremachine import dispatch  # noqa: PLC0415

        runs: list[dg.DagsterRun] = []
        while True:
            with _timed(timings, "tick"):
                asked = dispatch.tick(self.machine, self.instance).runs
            if not asked:
                return runs
            for one in asked:
                with _timed(timings, "run"):
                    result = dg.execute_job(
                        self._repository.get_reconstructable_job(one.job_name),
                        instance=self.instance,
                        tags=dict(one.tags),
                        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    )
                assert result.success
                runs.append(result.dagster_run)


class _timed:  # noqa: N801 - reads as a clause
    def __init__(self, timings: dict[str, float], name: str) -> None:
        self._timings = timings
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timings[self._name] = self._timings.get(self._name, 0.0) + time.perf_counter() - self._started


def child_job(size: int) -> dict[str, Any]:
    """One ``hello_world`` job of ``size`` greetings and as many replies."""
    from geo_assets.coremachine.contract import TaskStatus  # noqa: PLC0415
    from geo_assets.coremachine.submission import submit  # noqa: PLC0415

    up = Machinery()
    timings: dict[str, float] = {}
    with _timed(timings, "all"):
        with _timed(timings, "submit"):
            job = submit(up.machine, "hello_world", {"n": size}).job
        (run,) = up.work_off(timings)
    ended = up.machine.ledger.job(job.job_id)
    rows = list(up.machine.ledger.tasks_of([str(ended.latest_attempt)]))
    assert len(rows) == 2 * size
    assert all(row.status is TaskStatus.COMPLETED for row in rows)
    assert _materialized(up.instance, "hello_world") == {ended.partition_key}
    assert ended.run_id == run.run_id
    replies = [str((row.result_data or {})["reply"]) for row in rows if row.stage == 2]
    return {"timings": timings, "digest": _digest(replies), "first": replies[:RIVAL_GREETINGS]}


def child_rival(size: int) -> dict[str, Any]:
    """The same tasks, one dynamic output each, with the multiprocess executor."""
    import dagster as dg  # noqa: PLC0415
    from dagster._core.definitions.reconstruct import ReconstructableJob  # noqa: PLC0415

    instance = dg.DagsterInstance.get()
    job = ReconstructableJob.for_module("benchmarks._one_step_each", "one_step_each")
    config = {
        "ops": {"spread": {"config": {"n": size}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    timings: dict[str, float] = {}
    with _timed(timings, "all"), dg.execute_job(job, instance=instance, run_config=config) as result:
        assert result.success
        replies: list[str] = result.output_for_node("gather")
    steps = {step.step_key: step for step in instance.get_run_step_stats(result.run_id)}
    assert len(steps) == 2 * size + 2
    # from the end of the step before to the start of the step after: what the mapped steps took, nothing else
    timings["steps"] = float(steps["gather"].start_time or 0) - float(steps["spread"].end_time or 0)
    return {"timings": timings, "digest": _digest(replies), "first": replies[:RIVAL_GREETINGS]}


def child_wave(size: int) -> dict[str, Any]:
    """A wave of ``size`` jobs ``hello_world`` with n = 1."""
    up = Machinery()
    timings: dict[str, float] = {}
    with _timed(timings, "all"):
        with _timed(timings, "submit"):
            jobs = _submit_wave(up.machine, size)
        (run,) = up.work_off(timings)
    _check_wave(up, jobs, run)
    home = up.machine.settings.home_path
    return {
        "timings": timings,
        "ledger_mb": sum(path.stat().st_size for path in home.glob("ledger.db*")) / 1e6,
        "dagster_mb": sum(path.stat().st_size for path in (home / "dagster").rglob("*.db*")) / 1e6,
    }


def child_where(size: int) -> dict[str, Any]:
    """Where the time of a wave goes, by wrapping what does the work."""
    up = Machinery()
    clock = _Stopwatch()
    timings: dict[str, float] = {}
    clock.wrap_all()
    with _timed(timings, "all"):
        jobs = _submit_wave(up.machine, size)
        (run,) = up.work_off({})
    seconds, calls = dict(clock.seconds), dict(clock.calls)
    _check_wave(up, jobs, run)
    return {"timings": timings, "where": seconds, "calls": calls}


def child_profile(size: int) -> dict[str, Any]:
    """Profile of the main thread during a wave."""
    up = Machinery()
    profile = cProfile.Profile()
    profile.enable()
    jobs = _submit_wave(up.machine, size)
    (run,) = up.work_off({})
    profile.disable()
    _check_wave(up, jobs, run)
    text = io.StringIO()
    pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(25)
    return {"text": text.getvalue()}


def _submit_wave(machine: "CoreMachine", size: int) -> "list[Job]":
    from geo_assets.coremachine.submission import submit_many  # noqa: PLC0415

    answers = submit_many(machine, "hello_world", [{"n": 1, "message": f"Hello {number}"} for number in range(size)])
    return [answer.job for answer in answers]


def _check_wave(up: Machinery, jobs: "list[Job]", run: "dg.DagsterRun") -> None:
    from geo_assets.coremachine.contract import JobStatus  # noqa: PLC0415

    ledger = up.machine.ledger
    ended = {job.job_id: job for job in ledger.jobs(limit=None)}
    assert set(ended) == {job.job_id for job in jobs}
    assert all(job.status is JobStatus.COMPLETED and job.run_id == run.run_id for job in ended.values())
    said: dict[str, str] = {}
    for row in ledger.tasks_of([str(job.latest_attempt) for job in ended.values()], stage=2):
        said[row.attempt_id] = str((row.result_data or {})["reply"])
    for job in ended.values():
        assert said[str(job.latest_attempt)] == f"Replying to: {job.parameters['message']} from task 0!"
    assert _materialized(up.instance, "hello_world") == {job.partition_key for job in jobs}


def child_listing(size: int) -> dict[str, Any]:
    """``list_container_contents`` over a folder of ``size`` small files."""
    from geo_assets.coremachine.contract import JobStatus  # noqa: PLC0415
    from geo_assets.coremachine.submission import submit  # noqa: PLC0415

    up = Machinery()
    before = _peak_mb()
    timings: dict[str, float] = {}
    with _timed(timings, "all"):
        with _timed(timings, "submit"):
            job = submit(up.machine, "list_container_contents", {"container_name": _container(size)}).job
        (_,) = up.work_off(timings)
    peak = _peak_mb()
    ended = up.machine.ledger.job(job.job_id)
    assert ended.status is JobStatus.COMPLETED, ended.error_details
    result = ended.result_data or {}
    assert result["tasks_by_status"] == {"completed": size + 1, "failed": 0, "pending": 0}
    summary = result["summary"]
    assert summary["total_blobs_found"] == summary["successful_analyses"] == size
    assert summary["total_size_bytes"] == size * BLOB_BYTES
    assert _materialized(up.instance, "container_contents") == {ended.partition_key}
    return {"timings": timings, "peak_mb": peak, "before_mb": before}


def _materialized(instance: "dg.DagsterInstance", asset: str) -> set[str]:
    import dagster as dg  # noqa: PLC0415

    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _digest(replies: list[str]) -> str:
    return hashlib.sha256("\n".join(replies).encode()).hexdigest()


def _container(size: int) -> str:
    return f"blobs-{size}"


# --- where the time goes -------------------------------------------------------------------------------------------

_PARTS = (
    # (what it is, module, class or "", names)
    ("check parameters, make ids and records", "submission", "", ("prepare",)),
    ("ledger: submit", "ledger", "Ledger", ("submit",)),
    ("ledger: waves and claims", "ledger", "Ledger", ("assign_waves", "claim_wave", "open_waves")),
    ("ledger: create tasks", "ledger", "Ledger", ("insert_tasks",)),
    ("ledger: finish tasks", "ledger", "Ledger", ("finish_tasks",)),
    ("ledger: next stage", "ledger", "Ledger", ("advance",)),
    ("ledger: settle jobs", "ledger", "Ledger", ("settle",)),
    ("ledger: flags of events", "ledger", "Ledger", ("mark_emitted", "mark_planned")),
    ("ledger: reading", "ledger", "Ledger", ("attempts_of_run", "run_outcomes", "stop_requested", "heartbeat")),
    ("make and check tasks", "engine", "", ("define_tasks",)),
    ("read results, aggregate", "engine", "", ("settle_jobs",)),
    ("hand out tasks and wait for them", "engine", "_Pump", ("step",)),
    ("Dagster: add partitions", "dispatch", "", ("add_partitions",)),
    ("Dagster: planned events", "events", "", ("report_planned",)),
    ("Dagster: materializations", "events", "", ("report_materializations",)),
    ("what a partition shows", "dispatch", "", ("materialization_of",)),
)


class _Stopwatch:
    """Own time of the main thread in each part: what a part calls counts for the other part."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()
        self._running: list[str] = []
        self._since = 0.0

    def wrap_all(self) -> None:
        for label, module_name, kind, names in _PARTS:
            module = __import__(f"geo_assets.coremachine.{module_name}", fromlist=["_"])
            owner = getattr(module, kind) if kind else module
            for name in names:
                setattr(owner, name, self._wrapped(label, getattr(owner, name)))

    def _wrapped(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._switch()
            self._running.append(label)
            self.calls[label] += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._switch()
                self._running.pop()

        return timed

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now


CHILDREN: dict[str, Callable[[int], dict[str, Any]]] = {
    "job": child_job,
    "rival": child_rival,
    "wave": child_wave,
    "where": child_where,
    "profile": child_profile,
    "listing": child_listing,
}


# --- what the parent does ------------------------------------------------------------------------------------------


@dataclass
class Runs:
    """What the children of one kind reported; ``wall`` is from the start of the process to its end."""

    wall: list[float] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)

    def median(self, name: str) -> float:
        """Median of a timing, s."""
        return statistics.median(float(report["timings"].get(name, 0.0)) for report in self.reports)

    def spread(self, name: str) -> str:
        """Smallest and largest."""
        values = [report["timings"][name] for report in self.reports]
        return f"{min(values):.1f} … {max(values):.1f}"


def in_child(what: str, size: int, folder: Path) -> tuple[float, dict[str, Any]]:
    """Do one thing in a fresh process with a fresh home; returns its wall time, s, and its report."""
    home = Path(tempfile.mkdtemp(prefix=f"{what}-", dir=folder))
    (home / "dagster").mkdir()
    shutil.copy(ROOT / "dagster.yaml", home / "dagster")
    foreign = ("GEO_ASSETS_", "DAGSTER_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {
        "GEO_ASSETS_HOME": str(home),
        "DAGSTER_HOME": str(home / "dagster"),
        "GEO_ASSETS_BLOB_ROOT": str(folder / "containers"),
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.orchestration", "--child", what, "--size", str(size)]
    log = home / "stderr.log"
    started = time.perf_counter()
    with log.open("w") as errors:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
    wall = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{what} ({size:,}) failed with status {done.returncode}:\n{log.read_text()[-3000:]}")
    shutil.rmtree(home)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return wall, report


def interleaved(kinds: list[tuple[str, int]], repeats: int, folder: Path) -> dict[tuple[str, int], Runs]:
    """Each kind in turn, ``repeats`` times over, so that other load of the machine hits all alike."""
    runs = {kind: Runs() for kind in kinds}
    for _ in range(repeats):
        for kind in kinds:
            wall, report = in_child(*kind, folder)
            runs[kind].wall.append(wall)
            runs[kind].reports.append(report)
            print(f"  {kind[0]} {kind[1]:,}: {wall:.1f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    return runs


def measure_job(repeats: int, folder: Path) -> Iterator[str]:
    """Claim 1: one job of 2,000 tasks against one step each."""
    runs = interleaved([("job", GREETINGS), ("rival", RIVAL_GREETINGS)], repeats, folder)
    ours, rival = runs["job", GREETINGS], runs["rival", RIVAL_GREETINGS]
    expected = [f"Replying to: Hello World from task {index}!" for index in range(GREETINGS)]
    assert all(report["digest"] == _digest(expected) for report in ours.reports)
    assert all(report["first"] == expected[:RIVAL_GREETINGS] for report in [*ours.reports, *rival.reports])
    a_step = rival.median("steps") / RIVAL_STEPS
    wall = statistics.median(ours.wall)
    yield f"hello_world n = {GREETINGS:,}: {TASKS:,} tasks, results equal"
    yield f"  ours, submit to run finished        {ours.median('all'):8.2f} s   ({ours.spread('all')})"
    yield f"  ours, whole process                 {wall:8.2f} s   ({min(ours.wall):.1f} … {max(ours.wall):.1f})"
    yield f"  one step each, a step               {a_step:8.2f} s   ({RIVAL_STEPS} steps: {rival.spread('steps')} s)"
    yield f"  one step each, {TASKS:,} steps          {a_step * TASKS:8.0f} s   (scaled, without the start of the run)"
    yield gate("times faster than one step each", a_step * TASKS / wall)
    yield gate("ms a task", 1000 * wall / TASKS)


def measure_wave(repeats: int, folder: Path) -> Iterator[str]:
    """Claim 2: a wave of 1,000 jobs."""
    (runs,) = interleaved([("wave", JOBS)], repeats, folder).values()
    yield f"wave of {JOBS:,} hello_world jobs, n = 1: all completed, materialized, replies right"
    yield f"  submit to run finished              {runs.median('all'):8.2f} s   ({runs.spread('all')})"
    for name in ("submit", "tick", "run"):
        yield f"    of it {name:6}                      {runs.median(name):8.2f} s"
    yield f"  whole process                       {statistics.median(runs.wall):8.2f} s"
    ledger, dagster = _reported(runs, "ledger_mb"), _reported(runs, "dagster_mb")
    yield f"  on disk afterwards: ledger {ledger:.1f} MB, Dagster {dagster:.1f} MB"
    yield gate("ms a job", 1000 * runs.median("all") / JOBS)
    _, report = in_child("where", JOBS, folder)
    yield from _where(report)


def _where(report: dict[str, Any]) -> Iterator[str]:
    all_seconds = report["timings"]["all"]
    rest = all_seconds - sum(report["where"].values())
    yield f"  where {all_seconds:.1f} s of a wave go (main thread, own time):"
    rows = sorted(report["where"].items(), key=lambda item: -item[1])
    calls = {**report["calls"], "the rest: Dagster's run and steps": 1}
    for label, seconds in [*rows, ("the rest: Dagster's run and steps", rest)]:
        yield f"    {label:40} {seconds:7.2f} s {100 * seconds / all_seconds:5.1f} %  {calls[label]:6,} calls"


def measure_listing(repeats: int, folder: Path) -> Iterator[str]:
    """Claim 3: 10,000 tasks of one job, and the memory they take."""
    for size in (FEW_BLOBS, MANY_BLOBS):
        _make_container(folder / "containers" / _container(size), size)
    runs = interleaved([("listing", FEW_BLOBS), ("listing", MANY_BLOBS)], repeats, folder)
    few, many = runs["listing", FEW_BLOBS], runs["listing", MANY_BLOBS]
    yield "list_container_contents, a task a blob: every blob analysed, counts and bytes right"
    for size, some in ((FEW_BLOBS, few), (MANY_BLOBS, many)):
        yield f"  {size:6,} blobs, submit to run finished {some.median('all'):8.2f} s   ({some.spread('all')})"
        start, peak = _reported(some, "before_mb"), _reported(some, "peak_mb")
        yield f"  {size:6,} blobs, peak memory            {peak:8.0f} MB  (before the submission {start:.0f})"
    slope = 1024 * (_reported(many, "peak_mb") - _reported(few, "peak_mb")) / (MANY_BLOBS - FEW_BLOBS)
    yield f"  memory a further task               {slope:8.1f} KB"
    yield gate("s for 10,000 tasks", many.median("all"))
    yield gate("times the memory for 10 times the tasks", _reported(many, "peak_mb") / _reported(few, "peak_mb"))


def _reported(runs: Runs, name: str) -> float:
    return statistics.median(float(report[name]) for report in runs.reports)


def _make_container(path: Path, size: int) -> None:
    for number in range(size):
        file = path / f"survey-{number // 1000:03d}" / f"tile-{number:06d}.tif"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"II*\0" + number.to_bytes(BLOB_BYTES - 4, "little"))


broken: list[str] = []


def gate(name: str, value: float) -> str:
    """A line that says whether a figure keeps its limit; remembers it if not."""
    direction, limit = LIMITS[name]
    kept = value >= limit if direction == "at least" else value <= limit
    if not kept:
        broken.append(f"{value:.2f} {name}, {direction} {limit:g} wanted")
    return f"  → {value:.2f} {name} ({direction} {limit:g}): {'kept' if kept else 'BROKEN'}"


PARTS = {"job": measure_job, "wave": measure_wave, "listing": measure_listing}


def main() -> int:
    """Measure, print, and say whether all limits are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration")
    parser.add_argument("--only", action="append", choices=sorted(PARTS), help="only this part; may be repeated")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--profile", action="store_true", help="print cProfile of a wave as well")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(CHILDREN[given.child](given.size)))
        return 0
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {_load()}")
    if os.getloadavg()[0] > 0.5 * (os.cpu_count() or 1):
        print("other load is on this machine: seconds are upper bounds, ratios suffer less")
    with tempfile.TemporaryDirectory(prefix="geo-assets-bench-") as folder:
        (Path(folder) / "containers").mkdir()
        for name in given.only or PARTS:
            for line in PARTS[name](given.repeats, Path(folder)):
                print(line, flush=True)
        if given.profile:
            print(in_child("profile", JOBS, Path(folder))[1]["text"])
    print(f"load at the end {_load()}")
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


def _load() -> str:
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


if __name__ == "__main__":
    raise SystemExit(main())
