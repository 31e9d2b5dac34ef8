"""The parent's side of worker processes: starts them, gives each one task at a time, sees how they end.

What belongs here: :class:`ProcessRunner`, its supervisors (a thread a worker) and the words for a worker's death.
What does not: what happens inside a worker (``worker_process``) and what an outcome means (``task_outcome``).

Every worker has a socket of its own and a supervisor that waits for it alone, so a worker that dies in the middle of
a message, holds its breath or lies about it costs one task and nothing else.  (Pools with one shared pipe, pebble's
among them, lose the pipe with the worker that held it; they also start workers with the parent's environment.)
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from geo_assets.coremachine.contract import Handler, TaskLimits
from geo_assets.coremachine.task_outcome import (
    TaskOutcome,
    bare_context,
    elapsed_ms,
    failure,
    outcome_from_json,
)
from geo_assets.coremachine.tasks import Execution, Finished, TaskCall
from geo_assets.coremachine.worker_process import HEADER, MAX_REPLY, Limits, Request, worker_environment
from geo_assets.settings import Settings

__all__ = ["ProcessRunner"]

_BOOT = (
    "import json, sys; boot = json.loads(sys.argv[1]); sys.path[:] = boot['path']; "
    "from geo_assets.coremachine.worker_process import main; main(boot)"
)
_START_SECONDS = 120.0
_POLL_SECONDS = 0.5
_END_SECONDS = 3.0
_START_ATTEMPTS = 3
_MIB = 1024 * 1024


class ProcessRunner:
    """Runs tasks in a warm pool of worker processes under limits; one thread submits and waits."""

    def __init__(self, *, settings: Settings, limits: TaskLimits, preload: Sequence[str] = ()) -> None:
        self.capacity = settings.task_processes
        self._limits = decide_limits(limits, settings)
        self._preload = tuple(preload)
        self._calls: queue.SimpleQueue[tuple[TaskCall, bytes] | None] = queue.SimpleQueue()
        self._finished = Finished()
        self._supervisors: list[_Supervisor] = []
        self._closed = False

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers alive now."""
        return [pid for supervisor in self._supervisors if (pid := supervisor.worker_pid) is not None]

    def submit(self, call: TaskCall) -> None:
        """Queue one task; a handler or input that cannot go to a worker becomes its outcome."""
        if self._closed:
            raise RuntimeError("the task runner is closed; open another one")
        self._finished.expect()
        request = self._request(call)
        if isinstance(request, TaskOutcome):
            self._finished.put(Execution(key=call.key, outcome=request))
            return
        self._calls.put((call, request))
        if len(self._supervisors) < min(self.capacity, self._finished.outstanding):
            supervisor = _Supervisor(self._calls, self._finished, self._limits, self._preload)
            self._supervisors.append(supervisor)
            supervisor.start()

    def wait(self, timeout: float | None) -> list[Execution]:
        """Return what has finished, after at least one has; empty on timeout (seconds) or when nothing is awaited."""
        return self._finished.wait(timeout)

    def close(self, *, kill: bool = False) -> None:
        """Start nothing more and end the workers: idle ones now, busy ones with their task, or all now with ``kill``.

        Calls not finished by then get no outcome.  With ``kill``, every worker is gone when this returns.
        """
        self._closed = True
        self._finished.close()
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        for supervisor in self._supervisors:
            supervisor.stop(kill=kill)
            self._calls.put(None)
        for supervisor in self._supervisors:
            if kill or not supervisor.busy:
                supervisor.join(_END_SECONDS * 2)

    def _request(self, call: TaskCall) -> bytes | TaskOutcome:
        problem = why_not_importable(call.handler)
        if problem is not None:
            return failure(problem)
        request = Request(
            module=call.handler.__module__,
            qualname=call.handler.__qualname__,
            params=call.params,
            context=bare_context(call.context),
            limits=self._limits,
        )
        try:
            return pickle.dumps(request)
        except Exception as error:  # noqa: BLE001 - foreign objects raise what they like when pickled
            return failure(
                f"the parameters of {_name_of(call.handler)} cannot be sent to a worker process: "
                f"{type(error).__name__}: {error}; use JSON values"
            )


def decide_limits(limits: TaskLimits, settings: Settings) -> Limits:
    """Return the workflow's limits with the settings where it names none."""
    return Limits(
        wall_seconds=settings.task_wall_seconds if limits.wall_seconds is None else limits.wall_seconds,
        cpu_seconds=settings.task_cpu_seconds if limits.cpu_seconds is None else limits.cpu_seconds,
        memory_mb=settings.task_memory_mb if limits.memory_mb is None else limits.memory_mb,
        file_size_mb=settings.task_file_size_mb if limits.file_size_mb is None else limits.file_size_mb,
    )


def why_not_importable(handler: Handler) -> str | None:
    """Return why a worker process cannot find ``handler`` by module and name, or ``None`` where it can."""
    module = getattr(handler, "__module__", None)
    qualname = getattr(handler, "__qualname__", None)
    name = _name_of(handler)
    advice = "give the workflow a function at the top level of an importable module"
    if not isinstance(module, str) or not isinstance(qualname, str):
        return f"the handler {name} has no importable name, so no worker process can run it; {advice}"
    if module == "__main__":
        return f"the handler {name} is in the script being run, which no worker process imports; {advice}"
    if "<" in qualname:
        return f"the handler {name} is a lambda or a local function, so no worker process can import it; {advice}"
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if found != handler:
        return (
            f"the handler {name} is not what {module} has under its name, so no worker process can import it; {advice}"
        )
    return None


def _name_of(handler: Handler) -> str:
    module = getattr(handler, "__module__", None)
    qualname = getattr(handler, "__qualname__", None)
    return f"{module}.{qualname}" if qualname else f"of type {type(handler).__qualname__}"


def _interpreter_flags() -> list[str]:
    # what multiprocessing passes on to its children: -O, -X, -W and their kin
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
    return flags


# --- supervisors -----------------------------------------------------------------------------------------


class _WorkerLostError(Exception):
    """The worker died or closed its line; its exit status tells more."""


class _WallLimitError(Exception):
    """The answer did not come in time."""


class _End(NamedTuple):
    """How a worker ended: exit status (negative: the signal), crash report, and whether we had to kill it."""

    status: int = 0
    report: str = ""
    by_us: bool = False


class _Worker:
    """One worker process, its socket and its crash report. One thread talks to it; any thread may kill it."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._crash_report = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._socket, theirs = socket.socketpair()
        boot = {
            "path": [str(entry) for entry in sys.path],
            "parent": os.getpid(),
            "preload": list(preload),
            "socket": theirs.fileno(),
            "crash_report": self._crash_report.fileno(),
        }
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
                    [sys.executable, "-P", *_interpreter_flags(), "-c", _BOOT, json.dumps(boot)],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # what a handler prints is a log; our standard output may be somebody's JSON
                    env=worker_environment(),
                    pass_fds=(theirs.fileno(), self._crash_report.fileno()),
                    process_group=0,  # Ctrl-C at the terminal is the parent's to handle; what it starts dies with it
                )
        except BaseException:
            self._socket.close()
            self._crash_report.close()
            raise
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process has not ended; does not reap it."""
        if sys.platform != "linux":  # no waitid everywhere; without it, what a dead worker started is not found
            return self._process.poll() is None
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return ended is None

    def receive(self, deadline: float) -> bytes:
        """Return the next message.

        Raises:
            _WorkerLostError, _WallLimitError: it did not come, or not by ``deadline`` (monotonic seconds).
        """
        (size,) = HEADER.unpack(self._receive_exactly(HEADER.size, deadline))
        if size > MAX_REPLY:
            raise _WorkerLostError
        return self._receive_exactly(size, deadline)

    def send(self, message: bytes, deadline: float) -> None:
        """Send one message; raises as :meth:`receive` does."""
        left = memoryview(HEADER.pack(len(message)) + message)
        while left:
            left = left[self._patiently(partial(self._socket.send, left[:_MIB]), deadline) :]

    def kill(self) -> None:
        """Kill the process and what it started; safe at any time, from any thread."""
        with self._lock:
            # not reaped yet, or the number might be another's by now
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, signal.SIGKILL)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)

    def end(self, *, grace: float) -> _End:
        """Close the line, give the process ``grace`` seconds, kill it; say how it ended."""
        self._socket.close()
        deadline = time.monotonic() + grace
        pause = 0.001
        while self.alive and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        ended_itself = not self.alive
        self.kill()  # also what a dead worker left running
        with self._lock:
            status = self._process.wait()
        end = _End(status, self._read_crash_report(), by_us=not ended_itself)
        self._crash_report.close()
        return end

    def _read_crash_report(self) -> str:
        size = os.fstat(self._crash_report.fileno()).st_size
        return os.pread(self._crash_report.fileno(), min(size, 64 * 1024), 0).decode(errors="replace")

    def _receive_exactly(self, size: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self._patiently(partial(self._socket.recv, min(size - len(received), _MIB)), deadline)
            if not part:
                raise _WorkerLostError
            received += part
        return bytes(received)

    def _patiently[Result](self, action: Callable[[], Result], deadline: float) -> Result:
        """Do one socket operation; look up now and then, as something the worker started may hold its line open."""
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(min(left, _POLL_SECONDS))
            try:
                return action()
            except TimeoutError:
                if not self.alive:
                    return self._last_words(action)
            except OSError:
                raise _WorkerLostError from None
        raise _WallLimitError

    def _last_words[Result](self, action: Callable[[], Result]) -> Result:
        """Do ``action`` once more for what a worker sent before it died, without waiting."""
        self._socket.settimeout(0)
        try:
            return action()
        except OSError:
            raise _WorkerLostError from None


class _Supervisor(threading.Thread):
    """Takes calls from the queue and has its own worker run them; replaces a worker that is lost."""

    def __init__(
        self,
        calls: "queue.SimpleQueue[tuple[TaskCall, bytes] | None]",
        finished: Finished,
        limits: Limits,
        preload: Sequence[str],
    ) -> None:
        super().__init__(name="task-supervisor", daemon=True)
        self.busy = False
        self._calls = calls
        self._finished = finished
        self._limits = limits
        self._preload = preload
        self._stopped = False
        self._lock = threading.Lock()
        self._worker: _Worker | None = None

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, while there is one."""
        worker = self._worker
        return worker.pid if worker is not None and worker.alive else None

    def stop(self, *, kill: bool) -> None:
        """Take no more calls; with ``kill``, end the worker now."""
        with self._lock:
            self._stopped = True
            worker = self._worker
        if kill and worker is not None:
            worker.kill()

    def run(self) -> None:
        """Serve until stopped."""
        try:
            while not self._stopped and (item := self._calls.get()) is not None:
                self.busy = True
                call, request = item
                try:
                    outcome = self._execute(call, request)
                except Exception as error:  # noqa: BLE001 - whatever goes wrong here, the call gets its outcome
                    self._end_worker(grace=0)
                    outcome = failure(
                        f"the task runner could not run {_name_of(call.handler)}: {type(error).__name__}: {error}",
                        transient=True,
                    )
                self._finished.put(Execution(key=call.key, outcome=outcome))
                self.busy = False
        finally:
            self._end_worker(grace=_END_SECONDS)

    def _execute(self, call: TaskCall, request: bytes) -> TaskOutcome:
        for _ in range(_START_ATTEMPTS):
            worker = self._ready_worker()
            started = time.monotonic()
            deadline = started + self._limits.wall_seconds
            try:
                worker.send(request, deadline)
                worker.receive(deadline)  # it has the task, and begins
            except _WorkerLostError:  # it died while idle; the task was not begun
                self._end_worker(grace=0)
                continue
            except _WallLimitError:
                return self._past_wall_limit(call)
            try:
                reply = worker.receive(deadline)
            except _WallLimitError:
                return self._past_wall_limit(call)
            except _WorkerLostError:
                end = self._end_worker(grace=_END_SECONDS)
                return replace(self._death(call, worker.pid, end), execution_time_ms=elapsed_ms(started))
            return self._read(reply)
        raise RuntimeError(f"{_START_ATTEMPTS} worker processes in a row died before they took the task")

    def _ready_worker(self) -> _Worker:
        if self._worker is not None:
            if self._worker.alive:
                return self._worker
            self._end_worker(grace=0)
        with self._lock:
            if self._stopped:
                raise RuntimeError("the task runner was closed")
            self._worker = _Worker(self._preload)
        try:
            self._worker.receive(time.monotonic() + _START_SECONDS)
        except (_WorkerLostError, _WallLimitError) as error:
            end = self._end_worker(grace=0 if isinstance(error, _WallLimitError) else _END_SECONDS)
            how = _describe_status(end.status)
            raise RuntimeError(f"a worker process did not start ({how}); see what it wrote to stderr") from None
        return self._worker

    def _end_worker(self, *, grace: float) -> _End:
        worker = self._worker
        if worker is None:
            return _End()
        end = worker.end(grace=grace)
        with self._lock:
            self._worker = None
        return end

    def _read(self, reply: bytes) -> TaskOutcome:
        try:
            data = json.loads(reply)
            outcome = outcome_from_json(data["outcome"])
            retire = bool(data["retire"])
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            self._end_worker(grace=0)
            return failure(f"a worker process sent something that is not an outcome: {type(error).__name__}")
        if retire:
            self._end_worker(grace=_END_SECONDS)
        return outcome

    def _past_wall_limit(self, call: TaskCall) -> TaskOutcome:
        end = self._end_worker(grace=0)
        seconds = self._limits.wall_seconds
        outcome = failure(
            f"{_name_of(call.handler)} did not end within its wall-clock limit of {seconds:g} s and was killed; "
            "raise the workflow's wall_seconds if such input is meant to work",
            traceback_text=end.report or None,
        )
        return replace(outcome, execution_time_ms=round(seconds * 1000))

    def _death(self, call: TaskCall, pid: int, end: _End) -> TaskOutcome:
        who = f"the worker process {pid} running {_name_of(call.handler)}"
        if end.by_us:
            return failure(f"{who} closed its line to the task runner and was killed")
        cause, transient = _explain_status(end.status, self._limits)
        return failure(
            f"{who} {_describe_status(end.status)}: {cause}",
            transient=transient,
            traceback_text=end.report or None,
        )


# --- deaths ----------------------------------------------------------------------------------------------

_CRASHES = frozenset(
    {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS}
)


def _describe_status(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _explain_status(status: int, limits: Limits) -> tuple[str, bool]:
    """Return the likely cause of a death in the middle of a task, and whether it is transient.

    A crash of native code comes back with the same input, so it is permanent; so are the limits.  A SIGKILL that is
    not ours is most likely the kernel's out-of-memory killer, which chooses by what runs beside, so it is transient,
    as is any signal somebody sent; a task that draws it each time ends with its retries.
    """
    if status >= 0:
        return "the handler ended its process (os._exit, or native code called exit)", False
    number = -status
    if number == signal.SIGXCPU:
        return f"it used up its CPU limit of {limits.cpu_seconds} s; raise the workflow's cpu_seconds if it may", False
    if number == signal.SIGXFSZ:
        return f"it wrote a file larger than its limit of {limits.file_size_mb} MB", False
    if number == signal.SIGKILL:
        return "most likely the system ran out of memory, or somebody killed it", True
    if number in _CRASHES:
        cause = f"native code crashed on this input or hit the memory limit of {limits.memory_mb} MB"
        return cause, False
    return "somebody ended it from outside", True
