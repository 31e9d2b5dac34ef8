"""The inside of a worker process: calls handlers one after another, under limits, without credentials.

What belongs here: what runs in the child (its start, its limits, its end) and the environment it is given.  What does
not: the parent's side, which starts, feeds and kills it (``process_runner``).  Nothing here imports Dagster, nor may
it: the handler's module alone decides what else a worker loads.

The child is a fresh interpreter, not a fork: no credentials in its memory or in ``/proc``, no threads half copied,
no re-import of the parent's ``__main__``.  Requests come as pickles (the parent is trusted); replies go as JSON
(a child that opened a hostile file is not).
"""

import contextlib
import ctypes
import errno
import faulthandler
import importlib
import json
import math
import os
import pickle
import re
import resource
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geo_assets.coremachine.contract import Handler
from geo_assets.coremachine.task_outcome import (
    TaskOutcome,
    execute,
    failure,
    format_traceback,
    outcome_of_exception,
    outcome_to_json,
    restored_context,
)
from geo_assets.redaction import redact

__all__ = ["Limits", "Request", "find_handler", "main", "worker_environment"]

HEADER = struct.Struct("!Q")
"""Before each message: its length in bytes."""
MAX_REPLY = 256 * 1024 * 1024
"""Largest reply a parent accepts, in bytes."""

_SECRET_NAMES = re.compile(
    r"^(GEO_ASSETS_AZURE_.*|GEO_ASSETS_.*_URL|AZURE_.*|AWS_.*|PG.*)$"
    r"|(_KEY|_TOKEN|_SECRET|_DSN)$"
    r"|PASSWORD|PASSWD|SECRET|CREDENTIAL|CONNECTION_?STRING|SAS_TOKEN",
    re.IGNORECASE,
)
GDAL_HARDENING: dict[str, str] = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",  # no /vsicurl and its kin: a path in a file cannot call out
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar beside the file is looked for
    # Drivers of files that name other files or addresses. VRT is not among them, because GDAL's own warper is made of
    # it; the fence is that files are opened with exactly one driver, and VRT is kept from raw files and Python besides
    "GDAL_SKIP": "GTI,DERIVED,GDALG,WMS,WMTS,WCS,HTTP,PLMOSAIC,EEDA,EEDAI,DAAS,STACTA,STACIT,KMLSUPEROVERLAY,MRF",
    "OGR_SKIP": "OGR_VRT",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_HTTP_TIMEOUT": "5",
    "GDAL_HTTP_CONNECTTIMEOUT": "5",
    "GDAL_HTTP_MAX_RETRY": "0",
    "PROJ_NETWORK": "OFF",
}
"""Variables that keep GDAL and PROJ, where a handler uses them, from other files and from the network."""
_PARENT_CHECK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one task with every value decided: wall-clock and CPU seconds, memory and file size in MB."""

    wall_seconds: float
    cpu_seconds: int
    memory_mb: int
    file_size_mb: int


@dataclass(frozen=True, kw_only=True)
class Request:
    """One task as a worker gets it; the handler goes by name, because code cannot travel."""

    module: str
    qualname: str
    params: dict[str, Any]
    context: dict[str, Any]
    limits: Limits


def worker_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a worker process: the given one (default: ours) without credentials, GDAL hardened.

    A variable goes by its name (accounts, keys, tokens, passwords, the ledger's URL, PostgreSQL's ``PG*``) or because
    its value holds a credential that the redactor knows, such as a URL with a password.
    """
    given = os.environ if environment is None else environment
    kept = {name: value for name, value in given.items() if not _SECRET_NAMES.search(name) and redact(value) == value}
    return kept | GDAL_HARDENING


def find_handler(module: str, qualname: str) -> Handler:
    """Import and return the handler of that name.

    Raises:
        ImportError, AttributeError: there is none in this process.
    """
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError:
        from geo_assets.coremachine import legacy  # noqa: PLC0415 - only for modules written for the original

        legacy.install()
        found = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    handler: Handler = found
    return handler


# --- the child's life ------------------------------------------------------------------------------------


def main(boot: Mapping[str, Any]) -> None:
    """Serve requests from the socket ``boot["socket"]`` until the parent closes it.

    ``boot``: ``socket`` and ``crash_report`` (inherited file descriptors), ``parent`` (its process id), ``preload``
    (modules to import before the first task).
    """
    _end_with_parent(boot["parent"])
    _reset_signals()
    for descriptor in (boot["socket"], boot["crash_report"]):  # what a handler starts must not hold the line open
        os.set_inheritable(descriptor, False)  # noqa: FBT003
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file is slow, big and full of the user's data
    faulthandler.enable(boot["crash_report"])
    faulthandler.register(signal.SIGXCPU, boot["crash_report"], chain=True)
    for name in boot["preload"]:
        # a module that does not import fails its task, with its reason, when the handler wants it
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    baseline_mb = _data_mb()
    with socket.socket(fileno=boot["socket"]) as connection:
        _send(connection, b"{}")  # ready
        while (message := _receive(connection)) is not None:
            _send(connection, b"{}")  # from here on a death is the task's; before, it is nobody's
            os.ftruncate(boot["crash_report"], 0)
            os.lseek(boot["crash_report"], 0, os.SEEK_SET)
            _send(connection, _serve(message, boot["crash_report"], baseline_mb))


def _serve(message: bytes, crash_report: int, baseline_mb: float) -> bytes:
    memory_mb = math.inf
    try:
        request: Request = pickle.loads(message)  # noqa: S301 - from our parent, over a private socket
        memory_mb = request.limits.memory_mb
        outcome = _run(request, crash_report)
    except BaseException as error:  # noqa: BLE001 - a request that cannot be read is its task's outcome
        outcome = outcome_of_exception(error)
    # what libraries keep counts against the next task's limit: a worker that keeps much is replaced
    retire = _data_mb() - baseline_mb > memory_mb / 2
    reply = _encode(outcome, retire=retire)
    if len(reply) > MAX_REPLY:
        outcome = failure(f"the handler returned {len(reply) // _MIB} MB; write large results to a store")
        reply = _encode(outcome, retire=True)
    return reply


def _encode(outcome: TaskOutcome, *, retire: bool) -> bytes:
    return json.dumps({"outcome": outcome_to_json(outcome), "retire": retire}).encode()


def _run(request: Request, crash_report: int) -> TaskOutcome:
    started = time.monotonic()
    try:
        handler = find_handler(request.module, request.qualname)
    except (ImportError, AttributeError) as error:
        return failure(
            f"a worker process cannot import the handler {request.module}.{request.qualname}: "
            f"{type(error).__name__}: {error}; put it into an importable module",
            traceback_text=format_traceback(error),
        )
    _set_limits(request.limits)
    # the parent kills at the wall limit; just before, write down where the task was
    left = request.limits.wall_seconds - (time.monotonic() - started)
    faulthandler.dump_traceback_later(max(left * 0.9, left - 0.5, 0.001), file=crash_report)
    try:
        outcome = execute(handler, request.params, restored_context(request.context))
    finally:
        faulthandler.cancel_dump_traceback_later()
        _lift_limits()
    return _name_the_limit(outcome, request.limits)


def _name_the_limit(outcome: TaskOutcome, limits: Limits) -> TaskOutcome:
    """Add to an error that a limit causes which limit it was."""
    error = outcome.error or ""
    if re.match(r"\w*MemoryError\b", error):
        return replace(outcome, error=f"{error}; the worker's memory limit is {limits.memory_mb} MB")
    if f"[Errno {errno.EFBIG}]" in error:
        return replace(outcome, error=f"{error}; the worker's file size limit is {limits.file_size_mb} MB")
    return outcome


def _end_with_parent(parent: int) -> None:
    """End this process when the parent does, even by SIGKILL."""
    if sys.platform == "linux":
        # the kernel sends it when the thread that started us ends; that thread lives as long as we are wanted
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before we could ask
        os._exit(1)

    def watch() -> None:
        # where there is no prctl, and for what a handler started: the whole process group goes
        while os.getppid() == parent:
            time.sleep(_PARENT_CHECK_SECONDS)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _reset_signals() -> None:
    """Undo what the parent ignores, catches or blocks (Dagster's run workers do); keep what Python ignores itself."""
    for number in signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


# --- limits ----------------------------------------------------------------------------------------------


def _set_limits(limits: Limits) -> None:
    """Set the soft limits of one task; the hard ones stay, so that the next task can have its own."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = math.ceil(usage.ru_utime + usage.ru_stime)  # the kernel counts the process's CPU time, not the task's
    _set_soft(resource.RLIMIT_CPU, used + limits.cpu_seconds)
    _set_soft(resource.RLIMIT_DATA, limits.memory_mb * _MIB)
    _set_soft(resource.RLIMIT_FSIZE, limits.file_size_mb * _MIB)


def _lift_limits() -> None:
    """Let the worker itself, which has yet to report, have what the task could not."""
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):
        _set_soft(kind, resource.RLIM_INFINITY)


def _set_soft(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > hard):
        value = hard
    resource.setrlimit(kind, (value, hard))


def _data_mb() -> float:
    """What RLIMIT_DATA counts, in MB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * resource.getpagesize() / _MIB


# --- messages --------------------------------------------------------------------------------------------


def _send(connection: socket.socket, message: bytes) -> None:
    connection.sendall(HEADER.pack(len(message)) + message)


def _receive(connection: socket.socket) -> bytes | None:
    """Return the next message, or ``None`` when the parent has closed the line."""
    header = _receive_exactly(connection, HEADER.size)
    return None if header is None else _receive_exactly(connection, HEADER.unpack(header)[0])


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(min(size - len(received), _MIB))
        if not part:
            return None
        received += part
    return bytes(received)
