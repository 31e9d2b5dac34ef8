"""The values that go into a task runner and come out of it.

What belongs here: :class:`TaskCall`, :class:`Execution`, the :class:`TaskRunner` protocol and the queue of finished
tasks that every runner has.  What does not: the runners (``task_runner``, ``process_runner``) and the reading of
handlers' returns (``task_outcome``).
"""

import queue
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from geo_assets.coremachine.contract import Handler, TaskContext
from geo_assets.coremachine.task_outcome import TaskOutcome

__all__ = ["Execution", "Finished", "TaskCall", "TaskRunner"]

_LOOK_UP_SECONDS = 0.2
"""Longest uninterrupted wait: a signal that another thread received is handled by the main thread within this."""


@dataclass(frozen=True, kw_only=True)
class TaskCall:
    """One execution of one task, asked for."""

    key: Hashable
    """The caller's own; comes back with the outcome."""
    handler: Handler
    params: dict[str, Any]
    """Task parameters; the handler gets a copy with ``_correlation_id`` and ``_processing_path`` added."""
    context: TaskContext
    """Passed to handlers that take a second positional argument; its services stay out of worker processes."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution of one task, ended."""

    key: Hashable
    outcome: TaskOutcome


class TaskRunner(Protocol):
    """Runs tasks and gives back exactly one outcome each, in the order they end. One thread submits and waits."""

    capacity: int
    """How many tasks run at once."""

    def submit(self, call: TaskCall) -> None:
        """Queue one task; does not block, and a bad handler becomes an outcome.

        Raises:
            RuntimeError: the runner is closed.
        """

    def wait(self, timeout: float | None) -> list[Execution]:
        """Wait for at least one task to end, then return all that have.

        Args:
            timeout: seconds; ``None`` waits until one ends.

        Returns:
            The ended tasks; empty on timeout, and at once where nothing is awaited.
        """

    def close(self, *, kill: bool = False) -> None:
        """Start nothing more; calls not ended get no outcome. Does not wait for busy tasks.

        Args:
            kill: end worker processes now (all are gone within 10 s); threads are abandoned either way.
        """


class Finished:
    """The queue of ended tasks, which knows how many are still awaited."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Execution] = queue.SimpleQueue()
        self._closed = False
        self.outstanding = 0
        """Calls submitted and not yet given back."""

    def expect(self) -> None:
        """Count one more call."""
        self.outstanding += 1

    def put(self, execution: Execution) -> None:
        """Add an ended task; from any thread."""
        self._queue.put(execution)

    def close(self) -> None:
        """Await nothing more; what has ended can still be had."""
        self._closed = True

    def wait(self, timeout: float | None) -> list[Execution]:
        """See :meth:`TaskRunner.wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        ended: list[Execution] = self._drain()
        while not ended and self.outstanding and not self._closed:
            left = _LOOK_UP_SECONDS if deadline is None else min(_LOOK_UP_SECONDS, deadline - time.monotonic())
            if left <= 0:
                break
            try:
                ended.append(self._queue.get(timeout=left))
            except queue.Empty:
                continue
            ended.extend(self._drain())
        self.outstanding -= len(ended)
        return ended

    def _drain(self) -> list[Execution]:
        ended = []
        try:
            while True:
                ended.append(self._queue.get_nowait())
        except queue.Empty:
            return ended
