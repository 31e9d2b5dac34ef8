"""The engine: jobs through their stages, with a runner in memory and with threads.

What belongs here: order, previous results, retries, outcomes, aggregation, cancellation, fences, chunks.  What does
not: how a handler's return is read (``test_task_runner_outcomes``) and Dagster.
"""

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.coremachine import engine
from geo_assets.coremachine.binding import Binding, Segment, bind
from geo_assets.coremachine.contract import (
    PICTURES,
    JobExecutionContext,
    JobStatus,
    OutcomeKind,
    TaskContext,
    TaskStatus,
    Workflow,
    WorkflowParameters,
    fallback_aggregation,
)
from geo_assets.coremachine.engine import RunScope
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.ledger import Attempt, Job, Ledger, NewJob, TaskRow
from geo_assets.coremachine.legacy import load_workflows
from geo_assets.coremachine.progress import RunProgress
from geo_assets.coremachine.task_outcome import execute
from geo_assets.coremachine.task_runner import ThreadRunner
from geo_assets.coremachine.tasks import Execution, TaskCall, TaskRunner
from geo_assets.errors import TransientError
from geo_assets.jobs.hello_world import HelloWorld
from geo_assets.settings import Settings

RUN = "run-1"
COMPLETED, FAILED, PARTLY, CANCELLED = (
    JobStatus.COMPLETED,
    JobStatus.FAILED,
    JobStatus.COMPLETED_WITH_ERRORS,
    JobStatus.CANCELLED,
)


# --- a runner in memory ------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only when somebody waits; stands in for the module ``time`` in the engine."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class InMemoryRunner:
    """Runs what was submitted when it is waited for, ``at_a_time`` tasks, the last one first if asked to."""

    capacity: int = 4
    at_a_time: int = 1000
    backwards: bool = False
    clock: Clock | None = None
    seconds: float = 0.0
    """What a wait takes by the clock."""
    idle_waits: int = 0
    """So many waits bring nothing, as if every task took longer."""
    submitted: list[TaskCall] = field(default_factory=list)
    most_at_once: int = 0
    order: list[Any] = field(default_factory=list)

    def submit(self, call: TaskCall) -> None:
        self.submitted.append(call)
        self.most_at_once = max(self.most_at_once, len(self.submitted))

    def wait(self, timeout: float | None) -> list[Execution]:
        if self.idle_waits:
            self.idle_waits -= 1
            assert self.clock is not None
            assert timeout is not None
            self.clock.sleep(timeout)
            return []
        if self.clock is not None:
            self.clock.sleep(self.seconds)
        if self.backwards:
            self.submitted.reverse()
        now, self.submitted = self.submitted[: self.at_a_time], self.submitted[self.at_a_time :]
        self.order.extend(call.key for call in now)
        return [Execution(key=call.key, outcome=execute(call.handler, call.params, call.context)) for call in now]

    def close(self, *, kill: bool = False) -> None:
        del kill


# --- workflows ---------------------------------------------------------------------------------------------------


class Parameters(WorkflowParameters):
    plan: Any = None


Tasks = Callable[[int, dict[str, Any], str, list[dict[str, Any]] | None], Any]


def make(
    tasks: Tasks,
    *,
    stages: int = 1,
    parallelism: str | Sequence[str] = "dynamic",
    handlers: dict[str, Callable[..., Any]] | None = None,
    aggregate: Callable[[JobExecutionContext], Any] | None = None,
    **attributes: Any,
) -> Binding:
    """A workflow of so many stages whose tasks ``tasks`` makes; every handler is ``do`` unless given."""
    kinds = [parallelism] * stages if isinstance(parallelism, str) else list(parallelism)
    members: dict[str, Any] = {
        "job_type": "testing",
        "Parameters": Parameters,
        "stages": [
            {"number": number, "name": f"stage_{number}", "task_type": "do", "parallelism": kind}
            for number, kind in enumerate(kinds, start=1)
        ],
        "handlers": handlers or {"do": do},
        "create_tasks_for_stage": staticmethod(
            lambda stage, job_params, job_id, previous_results=None: tasks(stage, job_params, job_id, previous_results)
        ),
        **attributes,
    }
    if aggregate is not None:
        members["aggregate_job_results"] = staticmethod(aggregate)
    return bind(type("Testing", (Workflow,), members))


def do(params: dict[str, Any]) -> dict[str, Any]:
    """End as the parameters say."""
    kind = params.get("do", "created")
    match kind:
        case "raise":
            raise ValueError(params.get("error", "bad data"))
        case "outage":
            raise TransientError(params.get("error", "the service is away"))
        case "failed":
            return {"success": False, "error": params.get("error", "it broke"), "error_type": "ValueError"}
        case _:
            return {"success": True, "outcome": kind, "reason": params.get("reason"), "result": params.get("value")}


def task(position: int = 0, /, **parameters: Any) -> dict[str, Any]:
    return {"task_id": f"task-{position}", "task_type": "do", "parameters": parameters}


def many(*kinds: str) -> list[dict[str, Any]]:
    """A task for each of these ends."""
    return [task(index, do=kind, value=index) for index, kind in enumerate(kinds)]


def from_plan(stage: int, params: dict[str, Any], _id: str, _previous: list[dict[str, Any]] | None) -> Any:
    """The tasks are the job's parameters: a list of ends a stage."""
    return many(*params["plan"][stage - 1])


# --- the bench ---------------------------------------------------------------------------------------------------

_numbers = itertools.count(1)


@dataclass
class Bench:
    """A ledger and everything needed to run jobs of one workflow on it."""

    ledger: Ledger
    settings: Settings = field(default_factory=lambda: Settings(task_retry_base_delay=0, task_max_retries=2))
    settled: list[tuple[Attempt, Any]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def scope(self, binding: Binding, run_id: str = RUN) -> RunScope:
        return RunScope(
            ledger=self.ledger,
            binding=binding,
            run_id=run_id,
            services={"store": "a store"},
            settings=self.settings,
            on_settled=self.settled.extend,
            log=self.said.append,
        )

    def claim(self, binding: Binding, *plans: Any, run_id: str = RUN) -> list[Attempt]:
        """Submit a job a plan and give them to a run."""
        new_jobs = []
        for plan in plans:
            number = next(_numbers)
            new_jobs.append(
                NewJob(
                    job_type=binding.job_type,
                    job_id=f"{number:064x}",
                    asset="testing",
                    partition_key=f"key-{number}",
                    parameters={"plan": plan},
                    total_stages=binding.total_stages,
                    metadata={"created_by": "the test"},
                )
            )
        jobs = [submitted.job for submitted in self.ledger.submit(new_jobs)]
        for wave in self.ledger.assign_waves(wave_size=1000, waves_at_once=10_000, only_jobs=jobs):
            self.ledger.claim_wave(wave.wave_id, run_id)
        return self.ledger.attempts_of_run(run_id, statuses=[JobStatus.PROCESSING])

    def work(self, binding: Binding, runner: TaskRunner | None = None, *, run_id: str = RUN, chunk: int = 1000) -> None:
        """Do what the steps of a run do."""
        runner = runner or InMemoryRunner()
        scope = self.scope(binding, run_id)
        for segment in binding.segments():
            held = self.ledger.attempts_of_run(run_id, statuses=[JobStatus.PROCESSING])
            if segment.fans_out:
                engine.spread_tasks(scope, segment.first)
                for spans in engine.plan_spans(self.ledger, run_id, segment.first, chunk):
                    engine.run_tasks(scope, runner, spans, segment.first)
                engine.end_fan_out(scope, segment.first)
            else:
                for start in range(0, len(held), chunk):
                    engine.run_jobs(scope, runner, held[start : start + chunk], segment)

    def run(self, binding: Binding, *plans: Any, runner: TaskRunner | None = None) -> list[Job]:
        """Submit, claim, work; returns the jobs, in order."""
        run_id = f"run-of-{next(_numbers)}"
        held = self.claim(binding, *plans or (None,), run_id=run_id)
        self.work(binding, runner, run_id=run_id)
        return [self.job(attempt) for attempt in held]

    def job(self, attempt: Attempt) -> Job:
        return self.ledger.job(attempt.job_id, attempt.job_type)

    def tasks(self, job: Job, stage: int | None = None) -> list[TaskRow]:
        assert job.latest_attempt is not None
        return list(self.ledger.tasks_of([job.latest_attempt], stage=stage))


@pytest.fixture
def bench(sqlite_ledger: Ledger) -> Bench:
    return Bench(sqlite_ledger)


# --- stages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parallelism", "expected"),
    [
        (["single"], [(1, 1, False)]),
        (["fan_out"], [(1, 1, True)]),
        (["single", "single"], [(1, 2, False)]),
        (["dynamic", "match_previous"], [(1, 2, False)]),
        (["single", "fan_out"], [(1, 1, False), (2, 2, True)]),
        (["fan_out", "fan_out"], [(1, 1, True), (2, 2, True)]),
        (["fan_out", "single"], [(1, 1, True), (2, 2, False)]),
        (["single", "fan_out", "fan_in"], [(1, 1, False), (2, 2, True), (3, 3, False)]),
        (
            ["single", "single", "fan_out", "single", "match_previous", "fan_out"],
            [(1, 2, False), (3, 3, True), (4, 5, False), (6, 6, True)],
        ),
    ],
)
def test_stages_are_cut_where_one_fans_out(parallelism: list[str], expected: list[tuple[int, int, bool]]) -> None:
    binding = make(from_plan, parallelism=parallelism)
    assert binding.segments() == [Segment(first=a, last=b, fans_out=c) for a, b, c in expected]


PATTERNS = ["dynamic", ("single", "fan_out", "single"), ("fan_out", "fan_out", "fan_out")]


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_stages_run_in_order_and_hear_of_the_one_before(bench: Bench, parallelism: str) -> None:
    heard: list[Any] = []

    def tasks(stage: int, params: dict[str, Any], job_id: str, previous: list[dict[str, Any]] | None) -> Any:
        heard.append((stage, params, len(job_id), previous))
        return [task(0, value=f"of {stage}")]

    (job,) = bench.run(make(tasks, stages=3, parallelism=parallelism), "the plan")

    def returned(stage: int) -> list[dict[str, Any]]:
        return [{"success": True, "outcome": "created", "reason": None, "result": f"of {stage}"}]

    assert heard == [
        (1, {"plan": "the plan"}, 64, None),
        (2, {"plan": "the plan"}, 64, returned(1)),
        (3, {"plan": "the plan"}, 64, returned(2)),
    ]
    assert (job.status, job.stage) == (COMPLETED, 3)
    assert job.stage_results == {
        str(stage): {"tasks": 1, "completed": 1, "failed": 0, "outcomes": {"created": 1}} for stage in (1, 2, 3)
    }


@pytest.mark.parametrize("parallelism", PATTERNS)
def test_previous_results_come_by_integer_index_whatever_ended_first(bench: Bench, parallelism: Any) -> None:
    heard: list[Any] = []

    def tasks(stage: int, _params: Any, _id: str, previous: list[dict[str, Any]] | None) -> Any:
        heard.append(previous and [result["result"] for result in previous])
        return [task(index, value=index) for index in range(12)]

    kinds = parallelism if not isinstance(parallelism, str) else [parallelism] * 3
    bench.run(make(tasks, parallelism=kinds), runner=InMemoryRunner(backwards=True))
    assert heard == [None, list(range(12)), list(range(12))]  # as text, 10 and 11 would come before 2


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_previous_results_are_those_of_completed_tasks(bench: Bench, parallelism: str) -> None:
    heard: list[Any] = []

    def tasks(stage: int, _params: Any, _id: str, previous: list[dict[str, Any]] | None) -> Any:
        heard.append(previous and [result["result"] for result in previous])
        return many("created", "failed", "invalid", "skipped", "unchanged")

    bench.run(make(tasks, stages=2, parallelism=parallelism, tolerates_partial_failure=True))
    assert heard == [None, [0, 3, 4]]


def _note_predecessor(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    before = context.predecessor_result
    return {"success": True, "index": params["index"], "before": before and before["index"]}


@pytest.mark.parametrize("parallelism", [["dynamic", "match_previous"], ["fan_out", "match_previous"]])
def test_a_task_gets_the_result_of_equal_index(bench: Bench, parallelism: list[str]) -> None:
    def tasks(stage: int, *_: Any) -> Any:
        # the second stage is wider than the first
        return [task(index, index=index) for index in range(11 + stage)]

    (job,) = bench.run(make(tasks, parallelism=parallelism, handlers={"do": _note_predecessor}))
    before = [(row.result_data or {})["before"] for row in bench.tasks(job, 2)]
    assert before == [*range(12), None]
    assert [(row.result_data or {})["before"] for row in bench.tasks(job, 1)] == [None] * 12


def test_a_task_gets_no_result_of_one_that_failed(bench: Bench) -> None:
    def hear(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        if params.get("do") == "failed":
            return do(params)
        return {"success": True, "has": "predecessor_result" in context, "services": dict(context.services)}

    def tasks(stage: int, *_: Any) -> Any:
        return many("created", "failed") if stage == 1 else many("created", "created")

    (job,) = bench.run(make(tasks, stages=2, handlers={"do": hear}, tolerates_partial_failure=True))
    assert [(row.result_data or {})["has"] for row in bench.tasks(job, 2)] == [True, False]
    assert (bench.tasks(job, 2)[0].result_data or {})["services"] == {"store": "a store"}


@pytest.mark.parametrize("parallelism", PATTERNS)
@pytest.mark.parametrize("empty", [(1,), (2,), (3,), (1, 2), (1, 2, 3)], ids=str)
def test_an_empty_stage_is_complete(bench: Bench, parallelism: Any, empty: tuple[int, ...]) -> None:
    heard: list[Any] = []

    def tasks(stage: int, _params: Any, _id: str, previous: list[dict[str, Any]] | None) -> Any:
        heard.append(previous)
        return [] if stage in empty else many("created", "created")

    kinds = parallelism if not isinstance(parallelism, str) else [parallelism] * 3
    (job,) = bench.run(make(tasks, parallelism=kinds))
    assert (job.status, job.outcome, job.stage) == (COMPLETED, OutcomeKind.CREATED, 3)
    assert [job.stage_results[str(stage)]["tasks"] for stage in (1, 2, 3)] == [
        0 if n in empty else 2 for n in (1, 2, 3)
    ]
    assert [len(previous) if previous is not None else None for previous in heard] == [
        None,
        0 if 1 in empty else 2,
        0 if 2 in empty else 2,
    ]
    assert job.result_data == {
        "job_type": "testing",
        "total_tasks": 6 - 2 * len(empty),
        "message": "Job completed successfully",
    }


def test_a_fan_in_stage_gets_its_one_task_from_the_machine(bench: Bench) -> None:
    def tasks(stage: int, *_: Any) -> Any:
        return {1: many("created", "created"), 2: []}[stage]

    (job,) = bench.run(make(tasks, parallelism=["fan_out", "fan_in"]), "plan")
    (row,) = bench.tasks(job, 2)
    assert row.task_id == task_id(job.job_id, 2, "fan_in")
    assert [result["result"] for result in row.parameters["previous_results"]] == [0, 1]
    assert row.parameters["job_parameters"] == {"plan": "plan"}


def test_a_job_that_has_begun_is_finished_before_another_is_started(bench: Bench) -> None:
    binding = make(from_plan, stages=3, execution="process")
    held = bench.claim(binding, *[[["created"]] * 3] * 6)
    runner = InMemoryRunner(capacity=1, at_a_time=1)
    bench.work(binding, runner)
    order = [
        (next(i for i, attempt in enumerate(held) if attempt.attempt_id == key[0]), key[1]) for key in runner.order
    ]
    finished = [job for job, stage in order if stage == 3]
    assert finished == sorted(finished)
    for position, (job, stage) in enumerate(order):
        begun_before = {other for other, _ in order[:position]} - {other for other, s in order[:position] if s == 3}
        assert len(begun_before | {job}) <= 2, f"too many jobs under way at {(job, stage)}"


def test_a_deeper_stage_goes_before_what_else_is_ready(bench: Bench) -> None:
    binding = make(from_plan, stages=2)
    bench.settings = Settings(task_retry_base_delay=0)
    first, second = bench.claim(binding, *[[["created"] * 100, ["created"]]] * 2)
    runner = InMemoryRunner(capacity=1, at_a_time=1)
    bench.work(binding, runner)
    last_of_first = runner.order.index((first.attempt_id, 2, 0))
    last_of_second = max(runner.order.index((second.attempt_id, 1, index)) for index in range(100))
    assert last_of_first < last_of_second


def test_no_more_tasks_wait_in_the_runner_than_it_can_use(bench: Bench) -> None:
    runner = InMemoryRunner(capacity=2, at_a_time=1)
    bench.run(make(from_plan, execution="process"), [["created"] * 50], runner=runner)
    assert runner.most_at_once <= 4
    runner = InMemoryRunner(capacity=2, at_a_time=1)
    bench.run(make(from_plan), [["created"] * 200], runner=runner)
    assert runner.most_at_once <= 64


# --- what a workflow may do wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "must return a list of task dicts"),
        ({"task_id": "a"}, "must return a list of task dicts"),
        (iter([]), "must return a list of task dicts"),
        (["text"], "task 0 is malformed"),
        ([task(0), {"task_type": "do", "parameters": {}}], "task 1 is malformed (task_id: Field required)"),
        ([{"task_id": "a", "parameters": {}}], "task 0 is malformed (task_type: Field required)"),
        ([{"task_id": "a", "task_type": "do"}], "task 0 is malformed (parameters: Field required)"),
        ([{"task_id": "", "task_type": "do", "parameters": {}}], "task 0 is malformed (task_id"),
        ([{"task_id": "a" * 101, "task_type": "do", "parameters": {}}], "task 0 is malformed (task_id"),
        ([{"task_id": "a", "task_type": "do", "parameters": [1]}], "task 0 is malformed (parameters"),
        ([task(0), task(1), task(0)], "makes the task id 'task-0' twice"),
        ([{"task_id": "a", "task_type": "fly", "parameters": {}}], "unknown task type 'fly'; registered: do"),
        ([task(0, value=object())], "the parameters of task 'task-0' are not JSON"),
        ([task(0, value=float("nan"))], "the parameters of task 'task-0' are not JSON"),
    ],
)
def test_malformed_tasks_fail_their_job_and_no_other(bench: Bench, parallelism: str, returned: Any, said: str) -> None:
    def tasks(_stage: int, params: dict[str, Any], *_: Any) -> Any:
        return returned if params["plan"] == "bad" else many("created")

    good, bad, also_good = bench.run(make(tasks, parallelism=parallelism), "good", "bad", "good")
    assert (good.status, bad.status, also_good.status) == (COMPLETED, FAILED, COMPLETED)
    assert bad.outcome is OutcomeKind.FAILED
    assert bad.error_details is not None
    assert (
        "stage 1 could not make its tasks: ContractError: Testing.create_tasks_for_stage(stage=1)" in bad.error_details
    )
    assert said in bad.error_details
    assert bench.tasks(bad) == []
    assert bad.result_data == {
        "job_type": "testing",
        "total_tasks": 0,
        "message": "stage 1 could not make its tasks",
    }


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_a_workflow_that_raises_while_making_tasks_fails_its_job(bench: Bench, parallelism: str) -> None:
    def tasks(stage: int, *_: Any) -> Any:
        if stage == 2:
            raise RuntimeError("no such table; password=canary")
        return many("created")

    (job,) = bench.run(make(tasks, stages=3, parallelism=parallelism))
    assert (job.status, job.stage) == (FAILED, 2)
    assert job.error_details == "stage 2 could not make its tasks: RuntimeError: no such table; password=***"
    (attempt,) = bench.ledger.attempts_of_job("testing", job.job_id)
    assert attempt.traceback is not None
    assert "RuntimeError" in attempt.traceback
    assert "canary" not in attempt.traceback
    assert list(job.stage_results) == ["1"]
    assert [row.status for row in bench.tasks(job)] == [TaskStatus.COMPLETED]


# --- what a handler may do ---------------------------------------------------------------------------------------


def _returns_list(_params: dict[str, Any]) -> Any:
    return [1]


def _no_success(_params: dict[str, Any]) -> Any:
    return {"result": 1}


def _not_json(_params: dict[str, Any]) -> Any:
    return {"success": True, "result": object()}


def _raises(_params: dict[str, Any]) -> NoReturn:
    raise ValueError("band 4 is missing")


def _says_why(_params: dict[str, Any]) -> Any:
    return {"success": False, "error": "band 4 is missing", "error_type": "ValueError"}


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (_returns_list, "list"),
        (_no_success, "success"),
        (_not_json, "not JSON"),
        (_raises, "band 4 is missing"),
        (_says_why, "band 4 is missing"),
    ],
)
@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_a_handler_that_ends_badly_fails_its_task_and_its_job(
    bench: Bench, parallelism: str, handler: Callable[..., Any], said: str
) -> None:
    def tasks(*_: Any) -> Any:
        return [task(0), {"task_id": "bad", "task_type": "bad", "parameters": {}}]

    (job,) = bench.run(make(tasks, parallelism=parallelism, handlers={"do": do, "bad": handler}))
    assert (job.status, job.outcome) == (FAILED, OutcomeKind.FAILED)
    assert job.reason is not None
    assert said in job.reason
    good, bad = bench.tasks(job)
    assert (good.status, bad.status, bad.outcome) == (TaskStatus.COMPLETED, TaskStatus.FAILED, OutcomeKind.FAILED)
    assert bad.error_details is not None
    assert said in bad.error_details
    assert bad.retry_count == 0, "what is wrong with the data is wrong the next time"
    if handler is _raises:
        assert bad.traceback is not None
        assert "_raises" in bad.traceback
        (attempt,) = bench.ledger.attempts_of_job("testing", job.job_id)
        assert attempt.traceback == bad.traceback
    assert job.error_details == f"1 of 2 tasks failed\nbad bad: {bad.error_details}"


def test_the_problems_of_many_tasks_are_told_apart_but_not_at_any_length(bench: Bench) -> None:
    (job,) = bench.run(make(from_plan), [["created", *["raise"] * 8]])
    assert job.reason == f"8 of 9 tasks failed; the first: {bench.tasks(job)[1].error_details}"
    assert job.error_details is not None
    lines = job.error_details.splitlines()
    assert lines[0] == "8 of 9 tasks failed"
    assert len(lines) == 7
    assert lines[-1].startswith("and 3 more")


def test_jobs_that_failed_alike_have_equal_reasons(bench: Bench) -> None:
    jobs = bench.run(make(from_plan), [["raise"]], [["raise", "created"]], [["raise"]])
    assert len({job.reason for job in jobs}) == 1


# --- retries -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(engine, "time", made)
    return made


@pytest.mark.parametrize(
    ("retries", "longest", "expected"),
    [(3, 300.0, [0, 5, 15, 35]), (4, 12.0, [0, 5, 15, 27, 39]), (0, 300.0, [0])],
    ids=["the original's", "bounded", "none"],
)
@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_an_outage_is_waited_for_longer_each_time(
    bench: Bench, clock: Clock, parallelism: str, retries: int, longest: float, expected: list[float]
) -> None:
    bench.settings = Settings(task_max_retries=retries, task_retry_base_delay=5, task_retry_max_delay=longest)
    times: list[float] = []
    attempts: list[int] = []

    def away(_params: dict[str, Any], context: TaskContext) -> NoReturn:
        times.append(clock.now - 1000)
        attempts.append(context["attempt"])
        raise TransientError("the service is away")

    (job,) = bench.run(make(lambda *_: [task()], parallelism=parallelism, handlers={"do": away}))
    assert times == pytest.approx(expected, abs=0.1)
    assert attempts == list(range(1, len(expected) + 1))
    (row,) = bench.tasks(job)
    assert (row.retry_count, row.status) == (retries, TaskStatus.FAILED)
    assert job.status is FAILED
    assert job.error_details is not None
    assert (f"after {retries + 1} tries" in job.error_details) is (retries > 0)


def test_what_came_right_in_the_end_is_good(bench: Bench) -> None:
    tries = itertools.count(1)

    def flaky(_params: dict[str, Any]) -> dict[str, Any]:
        if next(tries) < 3:
            raise TransientError("not yet")
        return {"success": True}

    (job,) = bench.run(make(lambda *_: [task()], handlers={"do": flaky}))
    (row,) = bench.tasks(job)
    assert (job.status, row.status, row.retry_count) == (COMPLETED, TaskStatus.COMPLETED, 2)
    assert (row.error_details, row.traceback) == (None, None)


def test_the_others_go_on_while_one_waits_for_its_next_try(bench: Bench, clock: Clock) -> None:
    order: list[str] = []

    def handler(params: dict[str, Any]) -> dict[str, Any]:
        order.append(params["name"])
        if params["name"] == "flaky" and order.count("flaky") == 1:
            raise TransientError("not yet")
        return {"success": True}

    bench.settings = Settings(task_retry_base_delay=5)
    runner = InMemoryRunner(at_a_time=1, clock=clock, seconds=1.0)
    names = ["flaky", "b", "c", "d"]
    bench.run(
        make(lambda *_: [task(i, name=name) for i, name in enumerate(names)], handlers={"do": handler}), runner=runner
    )
    assert order == ["flaky", "b", "c", "d", "flaky"]


def test_a_task_that_waits_for_another_try_is_queued_in_the_ledger(bench: Bench, clock: Clock) -> None:
    seen: list[tuple[TaskStatus, int, str | None]] = []

    def look(_params: dict[str, Any], context: TaskContext) -> NoReturn:
        (attempt,) = bench.ledger.attempts_of_job("testing", context["job_id"])
        (row,) = bench.ledger.tasks_of([attempt.attempt_id])
        seen.append((row.status, row.retry_count, row.error_details))
        raise TransientError("away")

    bench.run(make(lambda *_: [task()], handlers={"do": look}))
    assert seen[0] == (TaskStatus.PROCESSING, 0, None)
    assert [retries for _, retries, _ in seen] == [0, 1, 2]
    assert "away" in str(seen[1][2])


# --- how a job ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "status", "outcome"),
    [
        (["created"], COMPLETED, "created"),
        (["updated"], COMPLETED, "updated"),
        (["unchanged"], COMPLETED, "unchanged"),
        (["skipped"], COMPLETED, "skipped"),
        (["skipped", "unchanged"], COMPLETED, "unchanged"),
        (["skipped", "unchanged", "updated"], COMPLETED, "updated"),
        (["skipped", "created", "updated"], COMPLETED, "updated"),
        (["skipped", "created", "unchanged"], COMPLETED, "created"),
        (["invalid"], FAILED, "invalid"),
        (["invalid", "invalid", "created"], FAILED, "invalid"),
        (["invalid", "failed"], FAILED, "failed"),
        (["failed"], FAILED, "failed"),
        (["raise", "created"], FAILED, "failed"),
        (["outage"], FAILED, "failed"),
    ],
)
@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_the_outcome_of_a_job_follows_from_its_tasks(
    bench: Bench, parallelism: str, ends: list[str], status: JobStatus, outcome: str
) -> None:
    (job,) = bench.run(make(from_plan, parallelism=parallelism), [ends])
    assert (job.status, job.outcome) == (status, OutcomeKind(outcome))
    assert [settlement.status for _, settlement in bench.settled] == [status]


def test_what_is_made_again_is_an_update(bench: Bench) -> None:
    binding = make(from_plan)
    (job,) = bench.run(binding, [["created"]])
    bench.ledger.submit(
        [
            NewJob(
                job_type="testing",
                job_id=job.job_id,
                asset="testing",
                partition_key=job.partition_key,
                parameters=job.parameters,
                total_stages=1,
                force=True,
            )
        ]
    )
    (wave,) = bench.ledger.assign_waves(wave_size=9, waves_at_once=9)
    bench.ledger.claim_wave(wave.wave_id, "run-2")
    bench.work(binding, run_id="run-2")
    assert bench.ledger.job(job.job_id).outcome is OutcomeKind.UPDATED


def test_the_reason_of_a_good_outcome_is_kept(bench: Bench) -> None:
    (job,) = bench.run(make(lambda *_: [task(0, do="skipped", reason="older than the table")]))
    assert (job.status, job.outcome, job.reason) == (COMPLETED, OutcomeKind.SKIPPED, "older than the table")
    assert job.error_details is None


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
@pytest.mark.parametrize(
    ("plan", "tolerates", "status", "stage"),
    [
        ([["created", "failed"], ["created"]], False, FAILED, 1),
        ([["created", "failed"], ["created"]], True, PARTLY, 2),
        ([["failed", "failed"], ["created"]], True, FAILED, 1),
        ([["created"], ["failed"]], True, FAILED, 2),
        ([["created"], ["failed", "created"]], True, PARTLY, 2),
        ([["created", "invalid"], ["created", "raise"]], True, PARTLY, 2),
        ([["created", "failed"], []], True, PARTLY, 2),
        ([["created", "failed"], ["failed"]], True, FAILED, 2),
        ([["created"], ["created"]], True, COMPLETED, 2),
    ],
)
def test_failed_tasks_are_tolerated_where_the_workflow_says_so(
    bench: Bench,
    parallelism: str,
    plan: list[list[str]],
    tolerates: bool,  # noqa: FBT001
    status: JobStatus,
    stage: int,
) -> None:
    (job,) = bench.run(make(from_plan, stages=2, parallelism=parallelism, tolerates_partial_failure=tolerates), plan)
    assert (job.status, job.stage) == (status, stage)
    assert list(job.stage_results) == [str(number) for number in range(1, stage + 1)]
    if status is PARTLY:
        assert job.outcome is OutcomeKind.FAILED
        assert job.reason is not None


# --- aggregation -------------------------------------------------------------------------------------------------


def test_the_aggregation_gets_everything_the_original_gave_it(bench: Bench) -> None:
    seen: list[JobExecutionContext] = []

    def aggregate(context: JobExecutionContext) -> dict[str, Any]:
        seen.append(context)
        return {"total": len(context.task_results)}

    (job,) = bench.run(make(from_plan, stages=2, aggregate=aggregate), [["created"] * 11, ["created", "skipped"]])
    (context,) = seen
    JobExecutionContext.model_validate(context.model_dump())
    assert (context.job_id, context.job_type) == (job.job_id, "testing")
    assert (context.current_stage, context.total_stages) == (2, 2)
    assert context.parameters == {"plan": [["created"] * 11, ["created", "skipped"]]}
    assert context.stage_results == job.stage_results
    assert context.metadata == {"created_by": "the test"}
    assert [(result.stage, result.task_index) for result in context.task_results] == [
        *((1, index) for index in range(11)),
        (2, 0),
        (2, 1),
    ]
    assert all(result.success for result in context.task_results)
    assert context.task_results[3].result_data["result"] == 3
    assert job.result_data == {"total": 13}


def test_a_failed_job_is_aggregated_as_well(bench: Bench) -> None:
    def aggregate(context: JobExecutionContext) -> dict[str, Any]:
        assert context.current_stage == 1
        bad = [result for result in context.task_results if result.status is TaskStatus.FAILED]
        return {"errors": [result.error_details for result in bad]}

    (job,) = bench.run(make(from_plan, stages=2, aggregate=aggregate), [["created", "failed"], ["created"]])
    assert job.status is FAILED
    assert job.result_data == {"errors": ["it broke"]}


def test_the_fallback_does_not_call_a_failure_a_success(bench: Bench) -> None:
    good, bad = bench.run(make(from_plan), [["created"] * 3], [["created", "failed", "raise"]])
    assert good.result_data == {"job_type": "testing", "total_tasks": 3, "message": "Job completed successfully"}
    assert bad.result_data == {"job_type": "testing", "total_tasks": 3, "message": "2 of 3 tasks failed"}


def test_the_fallback_is_the_originals_for_a_context_of_ones_own() -> None:
    context = JobExecutionContext(job_id="a", job_type="t", current_stage=1, total_stages=1)
    assert fallback_aggregation(context) == {
        "job_type": "t",
        "total_tasks": 0,
        "message": "Job completed successfully",
    }


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "ContractError: Testing's aggregation returned NoneType; it must return a dict"),
        ([1], "ContractError: Testing's aggregation returned list; it must return a dict"),
        ({"when": object()}, "ContractError: Testing's aggregation returned something that is not JSON"),
        ({"mean": float("nan")}, "ContractError: Testing's aggregation returned something that is not JSON"),
        (ZeroDivisionError("no tasks; sig=canary"), "ZeroDivisionError: no tasks; sig=***"),
    ],
)
@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_an_aggregation_that_breaks_fails_its_job_and_no_other(
    bench: Bench, parallelism: str, returned: Any, said: str
) -> None:
    def aggregate(context: JobExecutionContext) -> Any:
        if context.parameters["plan"] == [["created"]]:
            return {"fine": True}
        if isinstance(returned, Exception):
            raise returned
        return returned

    binding = make(from_plan, parallelism=parallelism, aggregate=aggregate, tolerates_partial_failure=True)
    broken, fine, failed, partly = bench.run(
        binding, [["skipped"]], [["created"]], [["failed"]], [["failed", "created"]]
    )
    assert (fine.status, fine.result_data) == (COMPLETED, {"fine": True})
    assert (broken.status, broken.outcome, broken.result_data) == (FAILED, OutcomeKind.FAILED, None)
    assert broken.error_details is not None
    assert broken.error_details.startswith(f"the aggregation failed: {said}")
    (attempt,) = bench.ledger.attempts_of_job("testing", broken.job_id)
    assert attempt.traceback is not None
    assert "canary" not in attempt.traceback
    # the tasks' own problem stands first; nothing is called partly complete without a result
    for job in (failed, partly):
        assert job.status is FAILED
        assert job.reason == "it broke"
        assert job.error_details is not None
        assert "the aggregation failed as well" in job.error_details


# --- counts ------------------------------------------------------------------------------------------------------

_ENDS = st.sampled_from(["created", "updated", "unchanged", "skipped", "invalid", "failed", "raise", "outage"])
_PLANS = st.lists(st.lists(st.lists(_ENDS, max_size=5), min_size=2, max_size=2), min_size=1, max_size=4)
_BAD = {"invalid", "failed", "raise", "outage"}


def _expected(plan: list[list[str]], *, tolerates: bool) -> tuple[JobStatus, int]:
    """Status and number of stages run, by the design's table."""
    bad_at_all = False
    for number, ends in enumerate(plan, start=1):
        bad = sum(end in _BAD for end in ends)
        if bad and (not tolerates or bad == len(ends)):
            return FAILED, number
        bad_at_all = bad_at_all or bad > 0
    return (PARTLY if bad_at_all else COMPLETED), len(plan)


@pytest.fixture(scope="module")
def shared_ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """One ledger for the many examples of a property; each has jobs of its own."""
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('engine')}/ledger.db")
    yield ledger
    ledger.close()


@settings(max_examples=40)
@given(
    plans=_PLANS,
    tolerates=st.booleans(),
    parallelism=st.tuples(*[st.sampled_from(["dynamic", "fan_out"])] * 2),
    chunk=st.integers(1, 4),
    at_a_time=st.integers(1, 5),
    backwards=st.booleans(),
)
def test_every_input_has_one_outcome_and_the_counts_add_up(
    shared_ledger: Ledger,
    plans: list[list[list[str]]],
    tolerates: bool,  # noqa: FBT001
    parallelism: tuple[str, str],
    chunk: int,
    at_a_time: int,
    backwards: bool,  # noqa: FBT001
) -> None:
    bench = Bench(shared_ledger, Settings(task_retry_base_delay=0, task_max_retries=1))
    binding = make(from_plan, parallelism=parallelism, tolerates_partial_failure=tolerates)
    run_id = f"property-{next(_numbers)}"
    held = bench.claim(binding, *plans, run_id=run_id)
    bench.work(binding, InMemoryRunner(at_a_time=at_a_time, backwards=backwards), run_id=run_id, chunk=chunk)
    assert Counter(attempt.attempt_id for attempt, _ in bench.settled) == Counter(a.attempt_id for a in held)
    for attempt, plan in zip(held, plans, strict=True):
        job = bench.job(attempt)
        status, stages_run = _expected(plan, tolerates=tolerates)
        assert (job.status, job.stage) == (status, stages_run)
        rows = bench.tasks(job)
        assert [(row.stage, row.task_index) for row in rows] == [
            (number, index) for number in range(1, stages_run + 1) for index in range(len(plan[number - 1]))
        ]
        assert all(row.status.is_terminal and row.outcome is not None for row in rows)
        for number in range(1, stages_run + 1):
            summary = job.stage_results[str(number)]
            of_stage = [row for row in rows if row.stage == number]
            assert summary["tasks"] == len(of_stage) == summary["completed"] + summary["failed"]
            assert summary["outcomes"] == Counter(row.outcome.value for row in of_stage if row.outcome)
            assert summary["failed"] == sum(end in _BAD for end in plan[number - 1])
    assert sum(bench.ledger.run_outcomes(run_id).values()) == len(plans)


# --- cancelled, lost, alive --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallelism", [("dynamic", "dynamic"), ("dynamic", "fan_out"), ("fan_out", "fan_out")])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_job_stops_between_two_tasks_when_asked_to(
    bench: Bench, clock: Clock, parallelism: tuple[str, str], stage: int
) -> None:
    ran: Counter[str] = Counter()

    def handler(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        ran[params["plan"]] += 1
        if params["plan"] == "stop" and context["stage"] == stage and params["index"] == 1:
            bench.ledger.cancel("testing", context["job_id"])
        return {"success": True}

    def tasks(_stage: int, params: dict[str, Any], *_: Any) -> Any:
        return [task(index, index=index, plan=params["plan"]) for index in range(40)]

    binding = make(tasks, parallelism=parallelism, handlers={"do": handler}, execution="process")
    held = bench.claim(binding, "stop", "go on")
    bench.work(binding, InMemoryRunner(capacity=1, at_a_time=1, clock=clock, seconds=0.5))
    stopped, other = (bench.job(attempt) for attempt in held)
    assert (stopped.status, stopped.outcome, stopped.stage) == (CANCELLED, OutcomeKind.CANCELLED, stage)
    assert list(stopped.stage_results) == ["1"][: stage - 1]
    assert 2 <= ran["stop"] - 40 * (stage - 1) < 15
    statuses = Counter(row.status for row in bench.tasks(stopped, stage))
    assert statuses[TaskStatus.CANCELLED] > 20
    assert set(statuses) == {TaskStatus.COMPLETED, TaskStatus.CANCELLED}
    assert (other.status, ran["go on"]) == (COMPLETED, 80)
    assert [settlement.status for _, settlement in bench.settled].count(CANCELLED) == 1


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_a_run_that_lost_a_job_writes_nothing_of_it(bench: Bench, parallelism: str) -> None:
    def handler(params: dict[str, Any]) -> dict[str, Any]:
        if params["do"] == "lost" and params["value"] == 0:
            # the run stalled, was taken for dead, and another one has the job by now
            bench.ledger.release_run(RUN, max_releases=3)
            for wave in bench.ledger.assign_waves(wave_size=9, waves_at_once=9):
                bench.ledger.claim_wave(wave.wave_id, "run-b")
        return {"success": True}

    binding = make(from_plan, parallelism=parallelism, handlers={"do": handler})
    held = bench.claim(binding, [["lost", "lost"]], [["created"]])
    lost_id = held[0].attempt_id
    bench.work(binding)
    assert bench.settled == []
    (attempt, _) = bench.ledger.attempts_of_run("run-b")
    assert (attempt.attempt_id, attempt.status, attempt.run_id) == (lost_id, JobStatus.PROCESSING, "run-b")
    assert list(bench.ledger.tasks_of([lost_id])) == []
    assert any("another run owns this job now; late result dropped" in text for text in bench.said)
    bench.work(make(from_plan, parallelism=parallelism, handlers={"do": lambda _: {"success": True}}), run_id="run-b")
    assert bench.job(held[0]).status is COMPLETED


def test_a_lost_job_does_not_stop_the_others_of_its_chunk(bench: Bench) -> None:
    def handler(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        if params["do"] == "lost":
            bench.ledger.cancel_run(RUN, "by somebody else")
            bench.ledger.claim_now([new], RUN)
        return {"success": True}

    binding = make(from_plan, handlers={"do": handler})
    (first,) = bench.claim(binding, [["lost"]])
    new = NewJob(
        job_type="testing",
        job_id="f" * 64,
        asset="testing",
        partition_key="another",
        parameters={"plan": [["created"]]},
        total_stages=1,
    )
    bench.work(binding)
    assert bench.job(first).status is CANCELLED
    held = bench.ledger.attempts_of_run(RUN, statuses=[JobStatus.PROCESSING])
    bench.work(binding)
    assert [bench.job(attempt).status for attempt in held] == [COMPLETED]


def test_running_tasks_say_that_they_live(bench: Bench, clock: Clock) -> None:
    bench.settings = Settings(heartbeat_seconds=3)
    beats: list[list[tuple[str, int, int]]] = []
    original = bench.ledger.heartbeat

    def heartbeat(run_id: str, keys: Sequence[tuple[str, int, int]]) -> set[str]:
        beats.append(list(keys))
        return original(run_id, keys)

    bench.ledger.heartbeat = heartbeat  # type: ignore[method-assign]

    def handler(_params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        (attempt,) = bench.ledger.attempts_of_job("testing", context["job_id"])
        (row,) = bench.ledger.tasks_of([attempt.attempt_id])
        assert row.heartbeat is not None
        return {"success": True, "seen": row.heartbeat > row.created_at}

    (job,) = bench.run(
        make(lambda *_: [task()], handlers={"do": handler}), runner=InMemoryRunner(clock=clock, idle_waits=6)
    )
    assert 2 <= len(beats) <= 6
    assert all(len(keys) == 1 for keys in beats)
    (row,) = bench.tasks(job)
    assert row.result_data == {"success": True, "seen": True}


def test_how_the_run_stands_is_said_now_and_then(bench: Bench, clock: Clock) -> None:
    """Though no task ends for a long time; whose it is that is at work is said, too."""
    runner = InMemoryRunner(at_a_time=1, clock=clock, seconds=4.0, idle_waits=30)
    binding = make(from_plan)
    (attempt,) = bench.claim(binding, [["created"]])
    lines: list[str] = []
    progress = RunProgress(bench.ledger, RUN, clock=clock.monotonic)
    scope = replace(bench.scope(binding), progress=progress, on_progress=lambda standing: lines.append(standing.line))
    engine.run_jobs(scope, runner, [attempt], binding.segments()[0])
    assert len(lines) >= 3
    assert all(line.startswith("0 of 1 jobs done (0 good, 0 failed)") for line in lines)
    assert f"do of {attempt.partition_key} at work for " in lines[-1]


# --- chunks of a stage that fans out -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9, 10, 11, 100])
def test_chunks_cover_every_task_once_across_jobs(bench: Bench, size: int) -> None:
    binding = make(from_plan, parallelism="fan_out")
    counts = [3, 0, 1, 4, 2]
    held = bench.claim(binding, *[[["created"] * count] for count in counts])
    engine.spread_tasks(bench.scope(binding), 1)
    chunks = engine.plan_spans(bench.ledger, RUN, 1, size)
    covered = [
        (span.attempt_id, index) for spans in chunks for span in spans for index in range(span.first, span.last + 1)
    ]
    assert covered == [
        (attempt.attempt_id, index) for attempt, count in zip(held, counts, strict=True) for index in range(count)
    ]
    widths = [sum(span.last - span.first + 1 for span in spans) for spans in chunks]
    assert widths == [size] * (10 // size) + ([10 % size] if 10 % size else [])
    positions = {attempt.attempt_id: attempt.position for attempt in held}
    assert all(span.position == positions[span.attempt_id] for spans in chunks for span in spans)
    ran: list[Any] = []
    for spans in reversed(chunks):  # steps of a run may come in any order
        runner = InMemoryRunner()
        engine.run_tasks(bench.scope(binding), runner, spans, 1)
        ran.extend(runner.order)
    assert sorted(ran) == sorted((attempt_id, 1, index) for attempt_id, index in covered)
    engine.end_fan_out(bench.scope(binding), 1)
    assert [bench.job(attempt).status for attempt in held] == [COMPLETED] * 5


def test_a_run_with_no_tasks_has_no_chunks(bench: Bench) -> None:
    binding = make(from_plan, parallelism="fan_out")
    bench.claim(binding, [[]], [[]])
    engine.spread_tasks(bench.scope(binding), 1)
    assert engine.plan_spans(bench.ledger, RUN, 1, 10) == []


def test_a_chunk_that_is_run_again_repeats_only_what_had_not_ended(bench: Bench) -> None:
    binding = make(from_plan, parallelism="fan_out")
    (attempt,) = bench.claim(binding, [["created"] * 6])
    engine.spread_tasks(bench.scope(binding), 1)
    (spans,) = engine.plan_spans(bench.ledger, RUN, 1, 10)
    engine.run_tasks(
        bench.scope(binding),
        InMemoryRunner(),
        [engine.TaskSpan(attempt_id=attempt.attempt_id, position=0, first=0, last=3)],
        1,
    )
    runner = InMemoryRunner()
    engine.run_tasks(bench.scope(binding), runner, spans, 1)
    assert sorted(key[2] for key in runner.order) == [4, 5]


def test_a_fan_out_stage_that_was_not_run_to_its_end_is_not_called_good(bench: Bench) -> None:
    binding = make(from_plan, parallelism="fan_out")
    (attempt,) = bench.claim(binding, [["created"] * 3])
    engine.spread_tasks(bench.scope(binding), 1)
    engine.run_tasks(
        bench.scope(binding),
        InMemoryRunner(),
        [engine.TaskSpan(attempt_id=attempt.attempt_id, position=0, first=0, last=1)],
        1,
    )
    engine.end_fan_out(bench.scope(binding), 1)
    job = bench.job(attempt)
    assert job.status is FAILED
    assert job.reason == "the task was not run to its end"
    assert job.stage_results["1"] == {
        "tasks": 3,
        "completed": 2,
        "failed": 1,
        "outcomes": {"created": 2, "queued": 1},
    }


def test_what_another_run_took_before_a_chunk_began_is_not_run(bench: Bench) -> None:
    binding = make(from_plan, parallelism="fan_out")
    held = bench.claim(binding, [["created"]], [["created"]])
    engine.spread_tasks(bench.scope(binding), 1)
    (spans,) = engine.plan_spans(bench.ledger, RUN, 1, 10)
    original = bench.ledger.start_tasks

    def start_tasks(run_id: str, keys: Sequence[tuple[str, int, int]]) -> set[str]:
        bench.ledger.cancel_run(RUN, "too slow")
        return original(run_id, keys)

    bench.ledger.start_tasks = start_tasks  # type: ignore[method-assign]
    runner = InMemoryRunner()
    engine.run_tasks(bench.scope(binding), runner, spans, 1)
    assert runner.order == []
    assert [bench.job(attempt).status for attempt in held] == [CANCELLED] * 2


def test_ten_thousand_tasks_of_one_job(bench: Bench) -> None:
    (job,) = bench.run(make(from_plan, parallelism=["single", "fan_out"]), [["created"], ["created"] * 10_000])
    assert job.status is COMPLETED
    assert job.stage_results["2"]["outcomes"] == {"created": 10_000}
    assert (job.result_data or {})["total_tasks"] == 10_001


# --- with threads ------------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[ThreadRunner]:
    runner = ThreadRunner(4)
    yield runner
    runner.close()


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_tasks_of_several_jobs_run_side_by_side_in_threads(
    bench: Bench, threads: ThreadRunner, parallelism: str
) -> None:
    together = threading.Barrier(4, timeout=20)

    def meet(_params: dict[str, Any]) -> dict[str, Any]:
        together.wait()
        return {"success": True, "thread": threading.get_ident()}

    binding = make(from_plan, parallelism=parallelism, handlers={"do": meet})
    held = bench.claim(binding, *[[["created"] * 2]] * 2)
    bench.work(binding, threads)
    jobs = [bench.job(attempt) for attempt in held]
    assert [job.status for job in jobs] == [COMPLETED] * 2
    used = {(row.result_data or {})["thread"] for job in jobs for row in bench.tasks(job)}
    assert len(used) == 4


def test_a_cancelled_job_is_noticed_while_its_task_runs_in_a_thread(
    bench: Bench, threads: ThreadRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_STOP_CHECK_SECONDS", 0.02)
    noticed = threading.Event()
    original = bench.ledger.stop_requested

    def stop_requested(run_id: str, attempt_ids: Any) -> set[str]:
        found = original(run_id, attempt_ids)
        if found:
            noticed.set()
        return found

    bench.ledger.stop_requested = stop_requested  # type: ignore[method-assign]

    def long(_params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        bench.ledger.cancel("testing", context["job_id"])
        assert noticed.wait(20)
        return {"success": True}

    binding = make(from_plan, stages=2, handlers={"do": long})
    (attempt,) = bench.claim(binding, [["created"], ["created"]])
    bench.work(binding, threads)
    job = bench.job(attempt)
    assert (job.status, job.stage) == (CANCELLED, 1)
    assert [row.status for row in bench.tasks(job)] == [TaskStatus.CANCELLED]


def test_hello_world_replies_to_its_greetings(bench: Bench, threads: ThreadRunner) -> None:
    binding = bind(HelloWorld)
    params = binding.validate({"n": 12, "message": "Ahoy"})
    job_id = binding.job_id(params)
    bench.ledger.submit(
        [
            NewJob(
                job_type="hello_world",
                job_id=job_id,
                asset="hello_world",
                partition_key=job_id,
                parameters=params,
                total_stages=2,
            )
        ]
    )
    (wave,) = bench.ledger.assign_waves(wave_size=9, waves_at_once=1)
    bench.ledger.claim_wave(wave.wave_id, RUN)
    bench.work(binding, threads)
    job = bench.ledger.job(job_id)
    assert job.result_data == {"job_type": "hello_world", "total_tasks": 24, "message": "Job completed successfully"}
    assert [(row.result_data or {})["reply"] for row in bench.tasks(job, 2)] == [
        f"Replying to: Ahoy from task {index}!" for index in range(12)
    ]


# --- classes written for the original ----------------------------------------------------------------------------


@pytest.fixture
def legacy_bindings() -> Iterator[dict[str, Binding]]:
    """The example classes, loaded as a team's are; what their imports leave behind is taken away again."""
    finders, before = list(sys.meta_path), set(sys.modules)
    examples = "tests.coremachine.legacy_workflows"
    sys.modules.pop(examples, None)
    yield {
        binding.job_type: binding
        for binding in (
            bind(workflow, handlers)
            for workflow, handlers in load_workflows(f"{examples}:ALL_JOBS", f"{examples}:ALL_HANDLERS")
        )
    }
    sys.meta_path[:] = finders
    for name in set(sys.modules) - before:
        if not name.startswith(("geo_assets.", "dagster")):
            del sys.modules[name]


def _run_legacy(bench: Bench, binding: Binding, params: dict[str, Any]) -> Job:
    validated = binding.validate(params)
    job_id = binding.job_id(validated)
    bench.ledger.submit(
        [
            NewJob(
                job_type=binding.job_type,
                job_id=job_id,
                asset=binding.asset,
                partition_key=binding.partition_key(validated, job_id),
                parameters=validated,
                total_stages=binding.total_stages,
            )
        ]
    )
    run_id = f"legacy-{next(_numbers)}"
    for wave in bench.ledger.assign_waves(wave_size=9, waves_at_once=1):
        bench.ledger.claim_wave(wave.wave_id, run_id)
    bench.work(binding, run_id=run_id)
    return bench.ledger.job(job_id, binding.job_type)


def test_a_class_of_static_methods_runs_unchanged(bench: Bench, legacy_bindings: dict[str, Binding]) -> None:
    job = _run_legacy(bench, legacy_bindings["shelf_inventory"], {"shelf": "a", "items": 12})
    assert (job.status, job.outcome, job.stage) == (COMPLETED, OutcomeKind.CREATED, 2)
    assert job.result_data == {
        "job_type": "shelf_inventory",
        "shelf": "a",
        "summary": {
            "items_weighed": 12,
            "items_failed": 0,
            "items_pending": 0,
            "total_grams": 10 * 600 + 2 * 700,
            "errors_sample": [],
        },
        "stages_completed": 2,
        "total_tasks_executed": 13,
    }
    names = [row.parameters["name"] for row in bench.tasks(job, 2)]
    assert names == [f"item-{index}" for index in range(12)]


def test_a_failed_task_of_such_a_class_is_seen_in_its_job(bench: Bench, legacy_bindings: dict[str, Binding]) -> None:
    job = _run_legacy(bench, legacy_bindings["shelf_inventory"], {"shelf": "a", "items": 3, "broken": ["item-1"]})
    assert job.status is FAILED
    assert job.reason == "item-1 fell off the shelf"
    assert (job.result_data or {})["summary"]["items_failed"] == 1
    assert (job.result_data or {})["summary"]["errors_sample"] == ["item-1 fell off the shelf"]


def test_a_class_with_finalize_job_and_predecessors_runs_unchanged(
    bench: Bench, legacy_bindings: dict[str, Binding]
) -> None:
    job = _run_legacy(bench, legacy_bindings["echo"], {"n": 11, "words": "hi"})
    assert job.status is COMPLETED
    assert (job.result_data or {})["heard"] == [f"hi {index}" for index in range(11)]


def test_a_class_with_declared_parameters_and_no_aggregation_runs_unchanged(
    bench: Bench, legacy_bindings: dict[str, Binding]
) -> None:
    job = _run_legacy(bench, legacy_bindings["countdown"], {"start": 4, "dataset_id": "d"})
    assert job.result_data == {"job_type": "countdown", "total_tasks": 1, "message": "Job completed successfully"}
    assert bench.tasks(job)[0].result_data == {"success": True, "result": {"numbers": [4, 3, 2, 1]}}


# --- what one job's handlers share, and who is told ------------------------------------------------------------


def test_the_stages_of_a_job_share_a_folder_that_goes_with_the_job(bench: Bench, tmp_path: Path) -> None:
    bench.settings = bench.settings.model_copy(update={"home": tmp_path})
    seen: list[tuple[str, Path, bool]] = []

    def look(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        assert context.scratch is not None
        path = context.scratch.path
        seen.append((context["job_id"], path, (path / "left").exists()))
        (path / "left").touch()
        if context["stage"] == 2:
            raise ValueError("a bad end changes nothing")
        return {"success": True}

    bench.run(make(lambda *_: [task()], stages=2, parallelism="single", handlers={"do": look}), "a", "b")
    folders = {job: {path for each, path, _ in seen if each == job} for job, _, _ in seen}
    assert [len(paths) for paths in folders.values()] == [1, 1]
    assert len(set.union(*folders.values())) == 2
    assert [left for _, _, left in seen].count(True) == 2, "stage 2 finds what stage 1 left"
    assert not any(path.exists() for _, path, _ in seen)


def test_tasks_that_fan_out_have_no_folder_in_common(bench: Bench) -> None:
    seen: list[Any] = []

    def look(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        seen.append(context.scratch)
        return {"success": True}

    bench.run(make(lambda *_: [task(0), task(1)], parallelism="fan_out", handlers={"do": look}))
    assert seen == [None, None]


@pytest.mark.parametrize("remembers", [True, False])
def test_handlers_hear_of_the_partition_s_past_only_if_the_workflow_wants_it(bench: Bench, *, remembers: bool) -> None:
    heard: list[Any] = []

    def look(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        heard.append([(before["status"], before["parameters"]["plan"]) for before in context.history])
        return {"success": True}

    binding = make(lambda *_: [task()], handlers={"do": look}, remembers=remembers)
    for number, plan in enumerate(("first", "second"), start=1):
        new_job = NewJob(
            job_type="testing", job_id=f"{number:064x}", asset="testing", partition_key="one",
            parameters={"plan": plan}, total_stages=1,
        )  # fmt: skip
        bench.ledger.claim_now([new_job], f"run-{number}")
        bench.work(binding, run_id=f"run-{number}")
    assert heard == [[], [("completed", "first")] if remembers else []]


@pytest.mark.parametrize("parallelism", ["dynamic", "fan_out"])
def test_ended_tasks_are_told_of_before_their_job_is_settled(bench: Bench, parallelism: str) -> None:
    order: list[Any] = []

    def do_one(params: dict[str, Any]) -> dict[str, Any]:
        if params["value"] == 1:
            return {"success": False, "outcome": "invalid", "error": "CODE", "reason": "in words"}
        return {"success": True, "outcome": "updated", "result": {"n": params["value"]}}

    binding = make(
        lambda *_: [task(n, value=n) for n in range(3)], parallelism=parallelism, handlers={"do": do_one}
    )  # fmt: skip
    bench.claim(binding, "plan")
    scope = replace(
        bench.scope(binding),
        on_tasks=lambda ended: order.extend((one.parameters["value"], one.outcome, one.reason) for one in ended),
        on_settled=lambda settled: order.append("settled"),
    )
    runner = InMemoryRunner()
    for segment in binding.segments():
        if segment.fans_out:
            engine.spread_tasks(scope, segment.first)
            for spans in engine.plan_spans(bench.ledger, RUN, segment.first, 2):
                engine.run_tasks(scope, runner, spans, segment.first)
            engine.end_fan_out(scope, segment.first)
        else:
            engine.run_jobs(scope, runner, bench.ledger.attempts_of_run(RUN), segment)
    assert sorted(order[:-1]) == [(0, "updated", None), (1, "invalid", "in words"), (2, "updated", None)]
    assert order[-1] == "settled"


@pytest.mark.parametrize(("parallelism", "kept"), [("single", True), ("fan_out", False)])
def test_pictures_of_tasks_that_fan_out_are_shown_but_not_kept(bench: Bench, parallelism: str, *, kept: bool) -> None:
    told: list[Any] = []

    def draw(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "result": {"n": 1, PICTURES: "a picture"}}

    binding = make(lambda *_: [task()], parallelism=parallelism, handlers={"do": draw})
    bench.claim(binding, "plan")
    scope = replace(bench.scope(binding), on_tasks=lambda ended: told.extend(one.result["result"] for one in ended))
    if parallelism == "fan_out":
        engine.spread_tasks(scope, 1)
        (spans,) = engine.plan_spans(bench.ledger, RUN, 1, 10)
        engine.run_tasks(scope, InMemoryRunner(), spans, 1)
    else:
        (segment,) = binding.segments()
        engine.run_jobs(scope, InMemoryRunner(), bench.ledger.attempts_of_run(RUN), segment)
    assert told == [{"n": 1, PICTURES: "a picture"}]
    (attempt,) = bench.ledger.attempts_of_run(RUN)
    (row,) = bench.ledger.tasks_of([attempt.attempt_id])
    assert (PICTURES in (row.result_data or {})["result"]) is kept
