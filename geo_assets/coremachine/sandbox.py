"""One function in a worker process, called from a handler's thread.

What belongs here: :class:`Sandbox`.  What does not: the worker processes themselves (``process_runner``).

A handler that opens a file someone uploaded needs both worlds: a thread with the stores' credentials to fetch the
file and publish the result, and a process under limits, without credentials, to open it.  The handler runs in the
thread and hands the dangerous part to the sandbox, as a function and a path.
"""

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, cast

from geo_assets.coremachine.contract import Handler, TaskContext, TaskLimits
from geo_assets.coremachine.process_runner import ProcessRunner
from geo_assets.coremachine.task_outcome import TaskOutcome
from geo_assets.coremachine.tasks import TaskCall
from geo_assets.settings import Settings

_POLL_SECONDS = 0.02

_Inbox = queue.SimpleQueue[tuple[TaskCall, Future[TaskOutcome]] | None]


class Sandbox:
    """A warm pool of worker processes that many threads may call; started by the first call.

    Args:
        settings: number of workers, and the limits that ``limits`` leaves open.
        limits: limits of every call.
        preload: modules a worker imports when it starts.
    """

    def __init__(self, settings: Settings, *, limits: TaskLimits = TaskLimits(), preload: Sequence[str] = ()) -> None:  # noqa: B008 - frozen
        self._settings = settings
        self._limits = limits
        self._preload = tuple(preload)
        self._inbox: _Inbox = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._runner: ProcessRunner | None = None
        self._stop = threading.Event()

    def call(self, function: Handler, params: dict[str, Any]) -> TaskOutcome:
        """Run ``function(params)`` in a worker and wait for what becomes of it.

        ``function`` is importable by name and returns what a task handler returns; whatever happens to it, limits,
        crash and all, comes back as an outcome.
        """
        answer: Future[TaskOutcome] = Future()
        call = TaskCall(key=answer, handler=function, params=params, context=TaskContext())
        with self._lock:
            if self._thread is None:
                self._runner = ProcessRunner(settings=self._settings, limits=self._limits, preload=self._preload)
                self._stop = threading.Event()
                serve = (self._runner, self._inbox, self._stop)
                self._thread = threading.Thread(target=self._serve, args=serve, name="sandbox", daemon=True)
                self._thread.start()
            self._inbox.put((call, answer))
        return answer.result()

    def close(self, *, kill: bool = False) -> None:
        """End the workers; a later call starts new ones. With ``kill`` busy ones end, too, and calls never return."""
        with self._lock:
            thread, runner, self._thread, self._runner = self._thread, self._runner, None, None
            inbox, self._inbox = self._inbox, queue.SimpleQueue()
            stop = self._stop
        inbox.put(None)
        if runner is not None and kill:
            stop.set()
            runner.close(kill=True)
        elif thread is not None:
            thread.join()

    def _serve(self, runner: ProcessRunner, inbox: _Inbox, stop: threading.Event) -> None:
        """Between the callers' threads and the runner, which knows one thread only."""
        outstanding = 0
        serving = True
        while (serving or outstanding) and not stop.is_set():
            try:
                # nothing to wait for: sleep until somebody calls
                item = inbox.get(block=not outstanding) if serving else None
                serving = item is not None
            except queue.Empty:
                item = None
            if item is not None:
                runner.submit(item[0])
                outstanding += 1
                continue
            for execution in runner.wait(_POLL_SECONDS) if outstanding else ():
                outstanding -= 1
                answer = cast("Future[TaskOutcome]", execution.key)
                answer.set_result(execution.outcome)
        runner.close()
