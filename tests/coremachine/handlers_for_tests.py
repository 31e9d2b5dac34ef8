"""Handlers that worker processes can import: good ones, slow ones, and ones that end badly.

What belongs here: task handlers for the tests of runners and engine.  What does not: workflows and fixtures.
"""

import ctypes
import os
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from geo_assets.coremachine.contract import TaskContext

_executions = 0


def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters and who ran this."""
    return {"success": True, "params": params, "pid": os.getpid(), "thread": threading.get_ident()}


def echo_context(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {
        "success": True,
        "context": dict(context) | {"services": sorted(context.services)},
        "type": type(context).__name__,
        "predecessor": context.predecessor_result,
    }


def count_executions(params: dict[str, Any]) -> dict[str, Any]:
    """Return how many tasks this process has run through this handler."""
    global _executions  # noqa: PLW0603 - the state of a warm worker is the point
    _executions += 1
    return {"success": True, "count": _executions, "pid": os.getpid()}


def raise_named(params: dict[str, Any]) -> NoReturn:
    """Raise the builtin exception named in the parameters."""
    kinds = {kind.__name__: kind for kind in (ValueError, RuntimeError, SystemExit, KeyboardInterrupt, OSError)}
    raise kinds[params["type"]](params.get("message", ""))


def change_params(params: dict[str, Any]) -> dict[str, Any]:
    params["nested"].append("changed")
    return {"success": True}


def sleep(params: dict[str, Any]) -> dict[str, Any]:
    """Hang, having left the process id in the folder given, if any."""
    if "folder" in params:
        (Path(params["folder"]) / str(os.getpid())).touch()
    time.sleep(params["seconds"])
    return {"success": True}


def die(params: dict[str, Any]) -> dict[str, Any]:
    """End the worker in the way named in the parameters; with no way named, do nothing."""
    match params.get("way"):
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(params.get("status", 3))
        case str(name):
            os.kill(os.getpid(), signal.Signals[name])
            time.sleep(30)
    return {"success": True, "pid": os.getpid()}


def _line() -> int:
    """The file descriptor of this worker's line to its parent."""
    return next(number for number in range(3, 256) if _is_socket(number))


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def die_in_mid_message(params: dict[str, Any]) -> NoReturn:
    """Announce a large answer, send a little of it, and die."""
    os.write(_line(), struct.pack("!Q", 1_000_000) + b'{"outcome": ')
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def send_nonsense(params: dict[str, Any]) -> dict[str, Any]:
    """Send the bytes given as if they were the answer."""
    message = params["message"].encode()
    os.write(_line(), struct.pack("!Q", params.get("announce", len(message))) + message)
    return {"success": True}


def hog_memory(params: dict[str, Any]) -> dict[str, Any]:
    held = bytearray(params["megabytes"] * 1024 * 1024)
    return {"success": True, "held": len(held)}


def keep_memory(params: dict[str, Any]) -> dict[str, Any]:
    """Keep memory as a library's cache does."""
    globals()["_kept"] = bytearray(params["megabytes"] * 1024 * 1024)
    return {"success": True, "pid": os.getpid()}


def burn(params: dict[str, Any]) -> dict[str, Any]:
    """Use CPU time until stopped, or for the seconds given."""
    end = time.process_time() + params.get("seconds", 60)
    while time.process_time() < end:
        pass
    return {"success": True, "pid": os.getpid()}


def write_file(params: dict[str, Any]) -> dict[str, Any]:
    with Path(params["path"]).open("wb") as file:
        file.writelines(b"\0" * 1024 * 1024 for _ in range(params["megabytes"]))
    return {"success": True}


def report_surroundings(params: dict[str, Any]) -> dict[str, Any]:
    """Return the environment as the kernel shows it, the modules loaded and the signal handlers."""
    environ = Path("/proc/self/environ").read_bytes().split(b"\0")
    return {
        "success": True,
        "environ": {name.decode(): value.decode() for name, _, value in (item.partition(b"=") for item in environ)},
        "os_environ": dict(os.environ),
        "modules": sorted(sys.modules),
        "default_signals": all(
            signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        ),
        "blocked_signals": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    }


def start_child_and_hang(params: dict[str, Any]) -> NoReturn:
    """Start a process that inherits nothing but the group, leave both ids in the folder, and hang."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (Path(params["folder"]) / str(child.pid)).touch()
    time.sleep(60)
    raise AssertionError


def hold_the_interpreter(params: dict[str, Any]) -> NoReturn:
    """Leave the process id in the folder, then let no other thread of the process run: one endless C call."""
    (Path(params["folder"]) / str(os.getpid())).touch()
    _ = 7 ** (10**9)
    raise AssertionError


def leave_line_to_another(params: dict[str, Any]) -> NoReturn:
    """Die while a process in a session of its own holds the worker's line open."""
    os.set_inheritable(_line(), True)  # noqa: FBT003
    command = [sys.executable, "-c", "import time; time.sleep(20)"]
    subprocess.Popen(command, close_fds=False, start_new_session=True)
    os._exit(5)


def stop_a_moment_later(params: dict[str, Any]) -> dict[str, Any]:
    """Answer, then be stopped (not ended) by a signal: the worker is there, and reads nothing."""
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    return {"success": True, "pid": os.getpid()}


def return_large(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "text": "x" * params["bytes"]}


def return_object(params: dict[str, Any]) -> Any:
    return object()


def return_nan(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": {"bands": [{"mean": float("nan")}]}}


def close_line(params: dict[str, Any]) -> dict[str, Any]:
    """Close every file descriptor, the worker's socket among them, and go on."""
    os.closerange(3, 256)
    time.sleep(30)
    return {"success": True}


class Handlers:
    """Handlers may be static methods of a class."""

    @staticmethod
    def greet(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True, "greeting": "hello"}


named_lambda = lambda params: {"success": True}  # noqa: E731 - a lambda with a name is still a lambda
