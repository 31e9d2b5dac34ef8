"""Takes jobs through their stages: creates tasks, runs them, retries, aggregates and settles.

What belongs here: the order of things inside one run, against the ledger and a task runner.  What does not:
Dagster (``asset_job`` calls in here and passes callbacks), statements (``ledger``), worker processes
(``task_runner``).

The loop runs in one thread and handles whatever has finished since it last looked in one ledger transaction, so
writes are few when tasks are quick and prompt when they are slow, without a setting.
"""

import heapq
import itertools
import json
import time
import traceback as traceback_module
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from geo_assets.coremachine.binding import Binding, Segment
from geo_assets.coremachine.claims import Claims
from geo_assets.coremachine.contract import (
    PICTURES,
    EndedTask,
    JobExecutionContext,
    JobStatus,
    OutcomeKind,
    TaskContext,
    TaskDefinition,
    TaskResult,
    TaskStatus,
    fallback_aggregation,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.ledger import Attempt, Ledger, NewTask, Settlement, TaskRow, TaskUpdate
from geo_assets.coremachine.progress import AtWork, RunProgress, Standing
from geo_assets.coremachine.task_runner import TaskCall, TaskOutcome, TaskRunner
from geo_assets.errors import ContractError
from geo_assets.redaction import redact
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings

Settled = Sequence[tuple[Attempt, Settlement]]

_GOOD = frozenset(kind.value for kind in OutcomeKind if kind.is_good)
"""What is neither this nor bad never ended, which is bad, too."""
_TRACEBACK_LIMIT = 8000
_THREAD_WINDOW = 64
_STOP_CHECK_SECONDS = 2.0
_INSERT_BATCH = 5000
_NEWS_SECONDS = 1.0
"""Longest time an ended task is kept from ``on_tasks``, so that quick tasks are told of many at once."""


def _tell_nobody(ended: Sequence[EndedTask]) -> None:
    del ended


def _say_nothing(standing: Standing) -> None:
    del standing


@dataclass(frozen=True, kw_only=True)
class RunScope:
    """Everything the work of one run needs; the callbacks are how Dagster hears of it."""

    ledger: Ledger
    binding: Binding
    run_id: str
    services: Mapping[str, Any]
    settings: Settings
    on_settled: Callable[[Settled], None]
    log: Callable[[str], None]
    on_tasks: Callable[[Sequence[EndedTask]], None] = _tell_nobody
    """Told of tasks that ended for good, before the jobs they belong to are settled."""
    progress: RunProgress | None = None
    on_progress: Callable[[Standing], None] = _say_nothing
    """Told now and then how the run stands."""

    def attempts_at_work(self, *, first: int | None = None, last: int | None = None) -> list[Attempt]:
        """Those of this workflow that the run holds and has not ended, by position."""
        return self.ledger.attempts_of_run(
            self.run_id, job_type=self.binding.job_type, first=first, last=last, statuses=[JobStatus.PROCESSING]
        )

    def count(self, stage: int | None = None) -> None:
        """Let progress be that of the tasks of a stage; ``None``: of the run's jobs."""
        if self.progress is not None:
            self.progress.begin(stage, "" if stage is None else self.binding.stages[stage - 1].name)


# --- stages ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageVerdict:
    """What a finished stage means for its job."""

    summary: dict[str, Any]
    goes_on: bool


def judge_stage(binding: Binding, tally: Mapping[str, int]) -> StageVerdict:
    """Whether a job goes on after a stage with these outcomes.

    A stage without tasks is complete.  A bad task ends the job after the stage, unless the workflow tolerates
    partial failure and at least one task of the stage ended well.
    """
    total = sum(tally.values())
    bad = sum(count for outcome, count in tally.items() if outcome not in _GOOD)
    goes_on = bad == 0 or (binding.tolerates_partial_failure and bad < total)
    summary = {"tasks": total, "completed": total - bad, "failed": bad, "outcomes": dict(sorted(tally.items()))}
    return StageVerdict(summary=summary, goes_on=goes_on)


def define_tasks(
    binding: Binding, attempt: Attempt, stage: int, previous_results: list[dict[str, Any]] | None
) -> list[TaskDefinition]:
    """Ask the workflow for a stage's tasks and check them.

    Raises:
        ContractError: what it returned is not a list of task dicts, repeats a task id, or names an unknown task type.
    """
    name = f"{binding.workflow.__name__}.create_tasks_for_stage(stage={stage})"
    returned = binding.create_tasks(stage, dict(attempt.parameters), attempt.job_id, previous_results)
    if not isinstance(returned, list):
        msg = f"{name} returned {type(returned).__name__}; it must return a list of task dicts"
        raise ContractError(msg)
    if not returned and binding.stages[stage - 1].parallelism == "fan_in":
        returned = [_fan_in_task(binding, attempt, stage, previous_results)]
    definitions: list[TaskDefinition] = []
    seen: set[str] = set()
    for position, entry in enumerate(returned):
        try:
            definition = TaskDefinition.model_validate(entry)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "entry"
            msg = f"{name}: task {position} is malformed ({where}: {first['msg']})"
            raise ContractError(msg) from None
        if definition.task_id in seen:
            msg = f"{name} makes the task id '{definition.task_id}' twice; every task of a stage needs its own"
            raise ContractError(msg)
        if definition.task_type not in binding.handlers:
            known = ", ".join(sorted(binding.handlers))
            msg = f"{name}: task {position} has the unknown task type '{definition.task_type}'; registered: {known}"
            raise ContractError(msg)
        try:
            json.dumps([definition.parameters, definition.metadata], allow_nan=False)
        except (TypeError, ValueError) as error:
            msg = f"{name}: the parameters of task '{definition.task_id}' are not JSON ({error})"
            raise ContractError(msg) from None
        seen.add(definition.task_id)
        definitions.append(definition)
    return definitions


def _fan_in_task(
    binding: Binding, attempt: Attempt, stage: int, previous_results: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """The one task of a fan-in stage, which later versions of the original had the machine make (reference 1.2)."""
    return {
        "task_id": task_id(attempt.job_id, stage, "fan_in"),
        "task_type": binding.stages[stage - 1].task_type,
        "parameters": {"previous_results": previous_results or [], "job_parameters": dict(attempt.parameters)},
    }


def _new_tasks(
    binding: Binding, attempt: Attempt, stage: int, definitions: Iterable[TaskDefinition], status: TaskStatus
) -> list[NewTask]:
    return [
        NewTask(
            attempt_id=attempt.attempt_id,
            stage=stage,
            task_index=index,
            task_id=definition.task_id,
            parent_job_id=attempt.job_id,
            job_type=binding.job_type,
            task_type=definition.task_type,
            parameters=definition.parameters,
            metadata=definition.metadata,
            status=status,
        )
        for index, definition in enumerate(definitions)
    ]


# --- the pump: tasks in, outcomes out, the ledger in between ----------------------------------------------------


@dataclass(kw_only=True)
class _Pending:
    attempt_id: str
    stage: int
    task_index: int
    task_type: str
    partition_key: str
    call: TaskCall
    retry_count: int = 0
    begun: float = 0.0

    @property
    def key(self) -> tuple[str, int, int]:
        return (self.attempt_id, self.stage, self.task_index)


@dataclass(frozen=True, kw_only=True)
class _Finished:
    pending: _Pending
    outcome: TaskOutcome


def _ended_task(finished: _Finished) -> EndedTask:
    pending, outcome = finished.pending, finished.outcome
    return EndedTask(
        task_type=pending.task_type,
        parameters=pending.call.params,
        outcome=outcome.kind,
        # what is wrong with an input in words, where the error may be a mere code
        reason=outcome.reason or outcome.error,
        result=outcome.result_data,
    )


class _Pump:
    """Feeds a task runner and writes what comes back; knows tasks, not jobs."""

    def __init__(self, scope: RunScope, runner: TaskRunner, *, keeps_pictures: bool = True) -> None:
        self._scope = scope
        self._keeps_pictures = keeps_pictures
        self._runner = runner
        self._order = itertools.count()
        # deeper stages first, so that a job that has begun is finished before another is started
        self._ready: list[tuple[int, int, _Pending]] = []
        self._delayed: list[tuple[float, int, _Pending]] = []
        self._running: dict[tuple[str, int, int], _Pending] = {}
        self._most_running = max(2 * runner.capacity, _THREAD_WINDOW if scope.binding.execution == "thread" else 0)
        self._stopped: set[str] = set()
        now = time.monotonic()
        self._next_stop_check = now + _STOP_CHECK_SECONDS
        self._next_heartbeat = now + scope.settings.heartbeat_seconds
        self._untold: list[EndedTask] = []
        self._next_news = now + _NEWS_SECONDS

    def stop(self, attempt_ids: set[str]) -> None:
        """Run no more tasks of these attempts; :meth:`step` reports them when nothing of theirs runs any more."""
        self._drop(attempt_ids)

    def add(self, pending: _Pending) -> None:
        heapq.heappush(self._ready, (-pending.stage, next(self._order), pending))

    def tell(self) -> None:
        """Pass on the tasks that ended since the last time."""
        untold, self._untold = self._untold, []
        self._next_news = time.monotonic() + _NEWS_SECONDS
        if untold:
            self._scope.on_tasks(untold)

    def step(self) -> tuple[list[_Finished], set[str]]:
        """Run until something has finished.

        Returns:
            The tasks that ended for good, and the attempts that were asked to stop or lost to another run; of
            those no task is left in here.
        """
        while True:
            self._move_due()
            while self._ready and len(self._running) < self._most_running:
                pending = heapq.heappop(self._ready)[2]
                pending.begun = time.monotonic()
                self._running[pending.key] = pending
                self._runner.submit(pending.call)
            if not self._running and not self._delayed:
                return [], self._drain_stopped()
            finished = self._collect(self._runner.wait(self._patience()) if self._running else self._sleep())
            self._keep_alive()
            stopped = self._drain_stopped()
            if finished or stopped:
                return [item for item in finished if item.pending.attempt_id not in stopped], stopped

    def _patience(self) -> float:
        now = time.monotonic()
        limits = [self._next_stop_check - now, self._next_heartbeat - now]
        if self._delayed:
            limits.append(self._delayed[0][0] - now)
        if self._scope.progress is not None:
            limits.append(self._scope.progress.seconds_left())
        return max(0.01, min(limits))

    def _sleep(self) -> list[Any]:
        time.sleep(min(self._patience(), 1.0))
        return []

    def _move_due(self) -> None:
        now = time.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            self.add(heapq.heappop(self._delayed)[2])

    def _collect(self, executions: Sequence[Any]) -> list[_Finished]:
        if not executions:
            return []
        settings = self._scope.settings
        finished: list[_Finished] = []
        updates: list[TaskUpdate] = []
        for execution in executions:
            pending = self._running.pop(execution.key, None)
            if pending is None or pending.attempt_id in self._stopped:
                continue
            outcome: TaskOutcome = execution.outcome
            retry = (
                outcome.kind is OutcomeKind.FAILED
                and outcome.transient
                and pending.retry_count < settings.task_max_retries
            )
            if retry:
                wait = min(settings.task_retry_base_delay * 2**pending.retry_count, settings.task_retry_max_delay)
                pending.retry_count += 1
                pending.call.context["attempt"] = pending.retry_count + 1
                heapq.heappush(self._delayed, (time.monotonic() + wait, next(self._order), pending))
            else:
                finished.append(_Finished(pending=pending, outcome=outcome))
            recorded = outcome.result_data if self._keeps_pictures else _without_pictures(outcome.result_data)
            updates.append(_task_update(pending, replace(outcome, result_data=recorded), retry=retry))
        if updates:
            self._drop(self._scope.ledger.finish_tasks(self._scope.run_id, updates))
        kept = [item for item in finished if item.pending.attempt_id not in self._stopped]
        self._untold += [_ended_task(item) for item in kept]
        return kept

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if now >= self._next_heartbeat:
            self._drop(self._scope.ledger.heartbeat(self._scope.run_id, list(self._running)))
            self._next_heartbeat = now + self._scope.settings.heartbeat_seconds
        if now >= self._next_stop_check:
            self._drop(self._scope.ledger.stop_requested(self._scope.run_id, self._attempts()))
            self._next_stop_check = time.monotonic() + _STOP_CHECK_SECONDS
        if now >= self._next_news:
            self.tell()
        self._say_how_it_stands()

    def _say_how_it_stands(self) -> None:
        progress = self._scope.progress
        if progress is None or progress.seconds_left() > 0:
            return
        longest = min(self._running.values(), key=lambda pending: pending.begun, default=None)
        at_work = None
        if longest is not None:
            what = f"{longest.task_type} of {longest.partition_key}"
            at_work = AtWork(what=what, seconds=time.monotonic() - longest.begun)
        if (standing := progress.standing(at_work)) is not None:
            self._scope.on_progress(standing)

    def _attempts(self) -> set[str]:
        found = {key[0] for key in self._running}
        found.update(item[2].attempt_id for item in self._ready)
        found.update(item[2].attempt_id for item in self._delayed)
        return found

    def _drop(self, attempt_ids: set[str]) -> None:
        if not attempt_ids:
            return
        self._stopped |= attempt_ids
        self._ready = [item for item in self._ready if item[2].attempt_id not in attempt_ids]
        self._delayed = [item for item in self._delayed if item[2].attempt_id not in attempt_ids]
        heapq.heapify(self._ready)
        heapq.heapify(self._delayed)

    def _drain_stopped(self) -> set[str]:
        """Attempts that were stopped and have nothing running any more."""
        running = {key[0] for key in self._running}
        gone = self._stopped - running
        self._stopped &= running
        return gone


def _without_pictures(result_data: dict[str, Any]) -> dict[str, Any]:
    inner = result_data.get("result")
    if not isinstance(inner, dict) or PICTURES not in inner:
        return result_data
    return {**result_data, "result": {name: value for name, value in inner.items() if name != PICTURES}}


def _task_update(pending: _Pending, outcome: TaskOutcome, *, retry: bool) -> TaskUpdate:
    status = TaskStatus.COMPLETED if outcome.kind.is_good else TaskStatus.FAILED
    if retry:
        status = TaskStatus.QUEUED
    return TaskUpdate(
        attempt_id=pending.attempt_id,
        stage=pending.stage,
        task_index=pending.task_index,
        status=status,
        outcome=None if retry else outcome.kind,
        reason=outcome.reason,
        result_data=outcome.result_data or None,
        error_details=outcome.error,
        traceback=outcome.traceback,
        retry_count=pending.retry_count,
        execution_time_ms=outcome.execution_time_ms,
    )


def _pending(
    scope: RunScope,
    attempt: Attempt,
    stage: int,
    index: int,
    *,
    task_id: str,
    task_type: str,
    parameters: Mapping[str, Any],
    predecessor: Mapping[str, Any] | None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> _Pending:
    context = TaskContext(
        job_id=attempt.job_id,
        job_type=attempt.job_type,
        task_id=task_id,
        stage=stage,
        task_index=index,
        attempt=1,
        services=scope.services,
        **more,
    )
    if predecessor is not None:
        context["predecessor_result"] = predecessor
    call = TaskCall(
        key=(attempt.attempt_id, stage, index),
        handler=scope.binding.handlers[task_type],
        params=dict(parameters),
        context=context,
    )
    return _Pending(
        attempt_id=attempt.attempt_id,
        stage=stage,
        task_index=index,
        task_type=task_type,
        partition_key=attempt.partition_key,
        call=call,
    )


# --- jobs, depth first ----------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _JobState:
    attempt: Attempt
    stage: int
    pending: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Index → return of the completed tasks of the stage now running."""
    previous: dict[int, dict[str, Any]] | None = None
    """The same of the stage before; ``None`` at stage 1."""
    stage_results: dict[str, Any] = field(default_factory=dict)
    error: Exception | None = None
    context: dict[str, Any] = field(default_factory=dict)
    """What this job's handlers are given beyond what all are."""

    def close(self) -> None:
        """Give back what only handlers of this job used."""
        scratch: ScratchFolder | None = self.context.get("scratch")
        if scratch is not None:
            scratch.close()


def run_jobs(scope: RunScope, runner: TaskRunner, attempts: Sequence[Attempt], segment: Segment) -> None:
    """Take each job through the stages of a segment, depth first, and settle those that end in it.

    A job that reaches the end of the segment but not of its stages stays at work, its stage results written.
    """
    scope.count()
    history = scope.ledger.history(attempts) if scope.binding.remembers else {}
    chunk = _JobChunk(scope, runner, segment, history)
    waiting = deque(attempts)
    window = _THREAD_WINDOW if scope.binding.execution == "thread" else runner.capacity + 1
    entering: list[_JobState] = []
    try:
        while waiting or entering or chunk.active:
            while waiting and len(chunk.active) < window:
                entering.append(chunk.admit(waiting.popleft()))
            # a stage without tasks, or one that cannot make them, is left at once
            leaving = chunk.enter(entering) or chunk.wait()
            entering = chunk.leave(leaving)
    finally:
        chunk.close()


class _JobChunk:
    """The jobs of one chunk that are under way."""

    def __init__(
        self, scope: RunScope, runner: TaskRunner, segment: Segment, history: Mapping[str, Sequence[Attempt]]
    ) -> None:
        self._scope = scope
        self._segment = segment
        self._history = history
        self._pump = _Pump(scope, runner)
        self.active: dict[str, _JobState] = {}

    def admit(self, attempt: Attempt) -> _JobState:
        state = _JobState(attempt=attempt, stage=self._segment.first, stage_results=dict(attempt.stage_results))
        if state.stage > 1:
            state.previous = completed_results(self._scope, attempt, state.stage - 1)
        if self._scope.binding.execution == "thread":
            state.context["scratch"] = ScratchFolder(self._scope.settings.scratch_path)
        if self._scope.binding.remembers:
            state.context["claims"] = Claims(
                ledger=self._scope.ledger, asset=attempt.asset, partition_key=attempt.partition_key
            )
            state.context["history"] = [
                {
                    "job_id": before.job_id,
                    "status": before.status.value,
                    "parameters": before.parameters,
                    "result": before.result_data or {},
                    "source_version": before.source_version,
                }
                for before in self._history.get(attempt.attempt_id, ())
            ]
        self.active[attempt.attempt_id] = state
        return state

    def enter(self, states: Sequence[_JobState]) -> list[_JobState]:
        """Create and start the tasks of the stage each job has reached; returns those with nothing to wait for."""
        scope = self._scope
        at_once: list[_JobState] = []
        rows: list[NewTask] = []
        pending: list[_Pending] = []
        for state in states:
            if state.attempt.attempt_id not in self.active:
                continue
            definitions = self._define(state)
            state.pending = len(definitions)
            if not definitions:
                at_once.append(state)
                continue
            rows.extend(_new_tasks(scope.binding, state.attempt, state.stage, definitions, TaskStatus.PROCESSING))
            pending.extend(
                _pending(
                    scope,
                    state.attempt,
                    state.stage,
                    index,
                    task_id=definition.task_id,
                    task_type=definition.task_type,
                    parameters=definition.parameters,
                    predecessor=(state.previous or {}).get(index),
                    more=state.context,
                )
                for index, definition in enumerate(definitions)
            )
        lost = scope.ledger.insert_tasks(scope.run_id, rows) if rows else set()
        self._forget(lost)
        for item in pending:
            if item.attempt_id not in lost:
                self._pump.add(item)
        return at_once

    def _define(self, state: _JobState) -> list[TaskDefinition]:
        try:
            return define_tasks(self._scope.binding, state.attempt, state.stage, _in_order(state.previous))
        except Exception as error:  # noqa: BLE001 - whatever a workflow raises is this job's outcome
            state.error = error
            return []

    def wait(self) -> list[_JobState]:
        """Wait until tasks finish; returns the jobs whose stage is over."""
        finished, stopped = self._pump.step()
        self._forget(stopped)
        over: list[_JobState] = []
        for item in finished:
            state = self.active.get(item.pending.attempt_id)
            if state is None:
                continue
            state.tally[item.outcome.kind.value] += 1
            state.pending -= 1
            if item.outcome.kind.is_good:
                state.results[item.pending.task_index] = item.outcome.result_data
            if state.pending == 0:
                over.append(state)
        return over

    def leave(self, states: Sequence[_JobState]) -> list[_JobState]:
        """Judge finished stages: settle the jobs that end, return those that enter their next stage."""
        ended: list[EndedJob] = []
        moved: dict[str, tuple[int, Mapping[str, Any]]] = {}
        entering: list[_JobState] = []
        for state in states:
            verdict = judge_stage(self._scope.binding, state.tally)
            if state.error is None:
                state.stage_results[str(state.stage)] = verdict.summary
            if state.error or not verdict.goes_on or state.stage == self._scope.binding.total_stages:
                ended.append(
                    EndedJob(
                        attempt=state.attempt, stage=state.stage, stage_results=state.stage_results, error=state.error
                    )
                )
                continue
            moved[state.attempt.attempt_id] = (state.stage + 1, state.stage_results)
            if state.stage == self._segment.last:
                self._release(state.attempt.attempt_id)
                continue
            state.previous, state.results = state.results, {}
            state.stage += 1
            state.tally = Counter()
            entering.append(state)
        if moved:
            self._forget(self._scope.ledger.advance(self._scope.run_id, moved))
        if ended:
            self._pump.tell()
            for item in ended:
                self._release(item.attempt.attempt_id)
            settle_jobs(self._scope, ended)
        return [state for state in entering if state.attempt.attempt_id in self.active]

    def close(self) -> None:
        """Pass on what is known, and give back what jobs that did not end held."""
        for attempt_id in list(self.active):
            self._release(attempt_id)
        self._pump.tell()

    def _release(self, attempt_id: str) -> _JobState:
        state = self.active.pop(attempt_id)
        state.close()
        return state

    def _forget(self, attempt_ids: set[str]) -> None:
        """Cancel the jobs that were asked to stop; drop those that another run has taken over."""
        gone = [self._release(attempt_id) for attempt_id in sorted(attempt_ids) if attempt_id in self.active]
        where_they_stand = [
            replace(state.attempt, stage=state.stage, stage_results=dict(state.stage_results)) for state in gone
        ]
        cancel_jobs(self._scope, where_they_stand)


# --- tasks of a stage that fans out ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TaskSpan:
    """Tasks ``first`` to ``last`` (inclusive) of one attempt's stage."""

    attempt_id: str
    position: int
    first: int
    last: int


def spread_tasks(scope: RunScope, stage: int) -> None:
    """Create the tasks of a fan-out stage for every job of the run that is still at work."""
    rows: list[NewTask] = []
    ended: list[EndedJob] = []
    for attempt in scope.attempts_at_work():
        previous = completed_results(scope, attempt, stage - 1) if stage > 1 else None
        try:
            definitions = define_tasks(scope.binding, attempt, stage, _in_order(previous))
        except Exception as error:  # noqa: BLE001 - whatever a workflow raises is this job's outcome
            ended.append(EndedJob(attempt=attempt, stage=stage, stage_results=dict(attempt.stage_results), error=error))
            continue
        rows.extend(_new_tasks(scope.binding, attempt, stage, definitions, TaskStatus.QUEUED))
        if len(rows) >= _INSERT_BATCH:
            scope.ledger.insert_tasks(scope.run_id, rows)
            rows = []
    if rows:
        scope.ledger.insert_tasks(scope.run_id, rows)
    settle_jobs(scope, ended)


def plan_spans(
    ledger: Ledger, run_id: str, stage: int, size: int, *, job_type: str | None = None
) -> list[list[TaskSpan]]:
    """Cut a fan-out stage's tasks into chunks of ``size``, across the run's jobs (of a type)."""
    chunks: list[list[TaskSpan]] = []
    room = 0
    for attempt_id, position, total in ledger.task_spans(run_id, stage, job_type=job_type):
        start = 0
        while start < total:
            if room == 0:
                chunks.append([])
                room = size
            taken = min(room, total - start)
            chunks[-1].append(TaskSpan(attempt_id=attempt_id, position=position, first=start, last=start + taken - 1))
            start += taken
            room -= taken
    return chunks


def run_tasks(scope: RunScope, runner: TaskRunner, spans: Sequence[TaskSpan], stage: int) -> None:
    """Run the waiting tasks of these spans to their end; what they mean for their jobs is judged later."""
    scope.count(stage)
    # what is shown of such a task is written at once, and a job has all results of its tasks in memory at its end
    pump = _Pump(scope, runner, keeps_pictures=False)
    positions = [span.position for span in spans]
    attempts = {
        attempt.attempt_id: attempt for attempt in scope.attempts_at_work(first=min(positions), last=max(positions))
    }
    keys: list[tuple[str, int, int]] = []
    unfinished = [TaskStatus.QUEUED, TaskStatus.PROCESSING]
    for span in spans:
        attempt = attempts.get(span.attempt_id)
        if attempt is None:
            continue
        for row in scope.ledger.tasks_of(
            [span.attempt_id], stage=stage, first=span.first, last=span.last, statuses=unfinished
        ):
            keys.append((row.attempt_id, row.stage, row.task_index))
            pump.add(
                _pending(
                    scope,
                    attempt,
                    stage,
                    row.task_index,
                    task_id=row.task_id,
                    task_type=row.task_type,
                    parameters=row.parameters,
                    predecessor=None,  # a stage that fans out makes new units; none has a predecessor
                )
            )
    pump.stop(scope.ledger.start_tasks(scope.run_id, keys))
    left = Counter(key[0] for key in keys)
    while left:
        finished, stopped = pump.step()
        for attempt_id in stopped:
            del left[attempt_id]
        cancel_jobs(scope, [attempts[attempt_id] for attempt_id in stopped])
        for item in finished:
            left[item.pending.attempt_id] -= 1
            if left[item.pending.attempt_id] == 0:
                del left[item.pending.attempt_id]
    pump.tell()


def end_fan_out(scope: RunScope, stage: int) -> None:
    """Judge a fan-out stage for every job of the run still at work: settle those that end, move the others on."""
    attempts = scope.attempts_at_work()
    tallies = scope.ledger.stage_tally([attempt.attempt_id for attempt in attempts], stage)
    ended: list[EndedJob] = []
    moved: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for attempt in attempts:
        verdict = judge_stage(scope.binding, tallies.get(attempt.attempt_id, {}))
        stage_results = {**attempt.stage_results, str(stage): verdict.summary}
        if verdict.goes_on and stage < scope.binding.total_stages:
            moved[attempt.attempt_id] = (stage + 1, stage_results)
        else:
            ended.append(EndedJob(attempt=attempt, stage=stage, stage_results=stage_results))
    if moved:
        scope.ledger.advance(scope.run_id, moved)
    settle_jobs(scope, ended)


def completed_results(scope: RunScope, attempt: Attempt, stage: int) -> dict[int, dict[str, Any]]:
    """Index → raw return of the completed tasks of a stage."""
    rows = scope.ledger.tasks_of([attempt.attempt_id], stage=stage, statuses=[TaskStatus.COMPLETED])
    return {row.task_index: row.result_data or {} for row in rows}


def _in_order(results: Mapping[int, dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """``previous_results`` as workflows get them: by integer index, without the empty ones."""
    if results is None:
        return None
    return [results[index] for index in sorted(results) if results[index]]


# --- the end of jobs ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EndedJob:
    """A job with nothing left to run; ``error`` is what kept a stage from making its tasks."""

    attempt: Attempt
    stage: int
    stage_results: dict[str, Any]
    error: Exception | None = None


def settle_jobs(scope: RunScope, ended: Sequence[EndedJob]) -> None:
    """Aggregate and settle finished jobs, then tell the caller of those that were still ours."""
    # jobs with many tasks are aggregated one by one, small ones many at a time: memory follows the largest job
    for batch in _batches_by_tasks(ended):
        results: dict[str, list[TaskRow]] = {item.attempt.attempt_id: [] for item in batch}
        for row in scope.ledger.tasks_of(list(results)):
            results[row.attempt_id].append(row)
        settled = [(item.attempt, _settlement(scope.binding, item, results[item.attempt.attempt_id])) for item in batch]
        del results
        _settle(scope, settled)


def cancel_jobs(scope: RunScope, attempts: Sequence[Attempt]) -> None:
    """Settle as cancelled those of these attempts that were asked to stop; the others belong to another run."""
    settled = [
        (
            attempt,
            Settlement(
                attempt_id=attempt.attempt_id,
                status=JobStatus.CANCELLED,
                outcome=OutcomeKind.CANCELLED,
                reason="cancelled on request",
                error_details="cancelled on request",
                stage=attempt.stage,
                stage_results=attempt.stage_results,
            ),
        )
        for attempt in attempts
    ]
    _settle(scope, settled)


def _settle(scope: RunScope, settled: Settled) -> None:
    if not settled:
        return
    lost = scope.ledger.settle(scope.run_id, [settlement for _, settlement in settled])
    for attempt, _ in settled:
        if attempt.attempt_id in lost:
            scope.log(f"{attempt.job_type}/{attempt.job_id[:12]}: another run owns this job now; late result dropped")
    ours = [(attempt, settlement) for attempt, settlement in settled if attempt.attempt_id not in lost]
    if ours:
        scope.on_settled(ours)


def _batches_by_tasks(ended: Sequence[EndedJob], limit: int = 2000) -> Iterable[list[EndedJob]]:
    batch: list[EndedJob] = []
    size = 0
    for item in ended:
        total = sum(int(summary.get("tasks", 0)) for summary in item.stage_results.values())
        if batch and size + total > limit:
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += total
    if batch:
        yield batch


def _settlement(binding: Binding, ended: EndedJob, rows: Sequence[TaskRow]) -> Settlement:
    bad = [row for row in rows if row.status is not TaskStatus.COMPLETED]
    result, broken = _aggregate(binding, ended, [row.as_result() for row in rows])
    common: dict[str, Any] = {
        "attempt_id": ended.attempt.attempt_id,
        "stage": ended.stage,
        "stage_results": ended.stage_results,
        "result_data": result,
    }
    if ended.error is not None or (broken is not None and not bad):
        error = ended.error or broken
        what = f"stage {ended.stage} could not make its tasks" if ended.error else "the aggregation failed"
        message = redact(f"{what}: {type(error).__name__}: {error}")
        return Settlement(
            **common,
            status=JobStatus.FAILED,
            outcome=OutcomeKind.FAILED,
            reason=message,
            error_details=message,
            traceback=_traceback_of(error),
        )
    if bad:
        tolerated = (
            binding.tolerates_partial_failure
            and broken is None
            and all(
                summary["failed"] < summary["tasks"] or not summary["tasks"] for summary in ended.stage_results.values()
            )
        )
        invalid = all(row.outcome is OutcomeKind.INVALID for row in bad)
        return Settlement(
            **common,
            status=JobStatus.COMPLETED_WITH_ERRORS if tolerated else JobStatus.FAILED,
            outcome=OutcomeKind.INVALID if invalid and not tolerated else OutcomeKind.FAILED,
            reason=_why(bad, len(rows)),
            error_details=_details(bad, len(rows), broken),
            traceback=next((row.traceback for row in bad if row.traceback), None),
        )
    kind = _good_outcome(ended.attempt, rows)
    reasons = [row.reason for row in rows if row.reason]
    return Settlement(**common, status=JobStatus.COMPLETED, outcome=kind, reason=reasons[-1] if reasons else None)


def _good_outcome(attempt: Attempt, rows: Sequence[TaskRow]) -> OutcomeKind:
    kinds = {row.outcome for row in rows}
    if OutcomeKind.UPDATED in kinds:
        return OutcomeKind.UPDATED
    if OutcomeKind.CREATED in kinds or not kinds:
        # a handler that says nothing has made something; made again, it is an update
        return OutcomeKind.UPDATED if attempt.number > 1 else OutcomeKind.CREATED
    return OutcomeKind.UNCHANGED if OutcomeKind.UNCHANGED in kinds else OutcomeKind.SKIPPED


def _aggregate(
    binding: Binding, ended: EndedJob, results: list[TaskResult]
) -> tuple[dict[str, Any] | None, Exception | None]:
    """The workflow's result, or the error that stands in its place."""
    attempt = ended.attempt
    context = JobExecutionContext.model_construct(
        job_id=attempt.job_id,
        job_type=attempt.job_type,
        current_stage=ended.stage,
        total_stages=binding.total_stages,
        parameters=dict(attempt.parameters),
        stage_results=ended.stage_results,
        task_results=results,
        metadata=attempt.job_metadata or None,
    )
    name = f"{binding.workflow.__name__}'s aggregation"
    try:
        returned = binding.aggregate(context)
        if not isinstance(returned, dict):
            msg = f"{name} returned {type(returned).__name__}; it must return a dict"
            raise ContractError(msg)  # noqa: TRY301 - one way out for all that can go wrong here
        try:
            checked: dict[str, Any] = json.loads(json.dumps(returned, allow_nan=False))
        except (TypeError, ValueError) as error:
            msg = f"{name} returned something that is not JSON: {error}"
            raise ContractError(msg) from None
        if ended.error is not None and checked == fallback_aggregation(context):
            checked["message"] = f"stage {ended.stage} could not make its tasks"
    except Exception as error:  # noqa: BLE001 - whatever a workflow raises is this job's outcome
        return None, error
    return checked, None


def _why(bad: Sequence[TaskRow], total: int) -> str:
    """One line that is equal for jobs that failed alike, so that failures can be counted by it."""
    first = _problem_of(bad[0])
    return first if total == 1 or len(bad) == 1 else f"{len(bad)} of {total} tasks failed; the first: {first}"


def _problem_of(row: TaskRow) -> str:
    if not row.status.is_terminal:
        return "the task was not run to its end"
    if row.outcome is OutcomeKind.INVALID and row.reason:
        return row.reason  # what is wrong with the input, in words; the error may be a mere code
    return row.error_details or row.reason or "no error was given"


def _details(bad: Sequence[TaskRow], total: int, broken: Exception | None) -> str:
    lines = [f"{len(bad)} of {total} tasks failed"]
    shown = 5
    for row in bad[:shown]:
        tries = f" after {row.retry_count + 1} tries" if row.retry_count else ""
        lines.append(f"{row.task_type} {row.task_id}{tries}: {_problem_of(row)}")
    if len(bad) > shown:
        lines.append(f"and {len(bad) - shown} more: geo-assets tasks JOB_ID --failed")
    if broken is not None:
        lines.append(redact(f"the aggregation failed as well: {type(broken).__name__}: {broken}"))
    return "\n".join(lines)


def _traceback_of(error: BaseException | None) -> str | None:
    if error is None or error.__traceback__ is None:
        return None
    text = "".join(traceback_module.format_exception(error))
    return redact(text)[-_TRACEBACK_LIMIT:]
