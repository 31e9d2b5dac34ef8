"""Tasks → outcomes: in threads, or in worker processes under limits.

What belongs here: :func:`open_runner`, the thread runner, and the refusal of what threads cannot do.  What does not:
worker processes (``process_runner``, ``worker_process``), the reading of results (``task_outcome``), and retries and
cancellation between tasks, which are the engine's.  No Dagster and no geodata library is imported here.

Threads are for handlers that wait (for blob stores and databases) and are ours; whatever opens a file someone
uploaded says ``execution = "process"``.
"""

import contextlib
import queue
import threading
from collections.abc import Sequence
from dataclasses import fields
from typing import Literal

from geo_assets.coremachine.contract import TaskLimits
from geo_assets.coremachine.process_runner import ProcessRunner
from geo_assets.coremachine.task_outcome import TaskOutcome, classify, execute, interpret
from geo_assets.coremachine.tasks import Execution, Finished, TaskCall, TaskRunner
from geo_assets.coremachine.worker_process import worker_environment
from geo_assets.errors import ContractError
from geo_assets.settings import Settings

__all__ = [
    "Execution",
    "TaskCall",
    "TaskOutcome",
    "TaskRunner",
    "classify",
    "interpret",
    "open_runner",
    "require_enforceable",
    "worker_environment",
]


def open_runner(
    execution: Literal["thread", "process"],
    *,
    settings: Settings,
    limits: TaskLimits = TaskLimits(),  # noqa: B008 - frozen
    preload: Sequence[str] = (),
) -> TaskRunner:
    """Return a runner; close it when done.

    Args:
        execution: ``thread``, or ``process`` for worker processes.
        settings: number of workers, and the limits that ``limits`` leaves open.
        limits: limits of every task; only processes keep any.
        preload: modules that a worker process imports when it starts, such as the handlers' own.

    Raises:
        ContractError: limits that cannot be kept.
    """
    require_enforceable(execution, limits, "the workflow")
    if execution == "process":
        return ProcessRunner(settings=settings, limits=limits, preload=preload)
    return ThreadRunner(settings.task_threads)


def require_enforceable(execution: Literal["thread", "process"], limits: TaskLimits, workflow_name: str) -> None:
    """Refuse limits that could not be kept.

    Raises:
        ContractError: a thread workflow asks for any limit, or a limit is not positive; names the workflow.
    """
    if execution == "thread" and limits.any_set:
        raise ContractError(
            f"{workflow_name} asks for task limits but runs in threads: a thread can be neither timed out nor saved "
            'from a crash. Set execution = "process" or drop the limits.'
        )
    for field in fields(limits):
        value = getattr(limits, field.name)
        if value is not None and not value > 0:
            raise ContractError(f"{workflow_name}: the task limit {field.name} is {value}; it must be more than 0.")


class ThreadRunner:
    """Runs tasks in daemon threads, which never keep the process from ending."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._calls: queue.SimpleQueue[TaskCall | None] = queue.SimpleQueue()
        self._finished = Finished()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def submit(self, call: TaskCall) -> None:
        """See :meth:`TaskRunner.submit`."""
        if self._closed:
            raise RuntimeError("the task runner is closed; open another one")
        self._finished.expect()
        self._calls.put(call)
        if len(self._threads) < min(self.capacity, self._finished.outstanding):
            thread = threading.Thread(target=self._work, name="task", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait(self, timeout: float | None) -> list[Execution]:
        """See :meth:`TaskRunner.wait`."""
        return self._finished.wait(timeout)

    def close(self, *, kill: bool = False) -> None:
        """See :meth:`TaskRunner.close`; busy threads end with their task, whatever ``kill`` says."""
        del kill
        self._closed = True
        self._finished.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        for _ in self._threads:
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and not self._closed:
            outcome = execute(call.handler, call.params, call.context)
            self._finished.put(Execution(key=call.key, outcome=outcome))
