"""Dagster as a child process: UI, daemon and code location, started and stopped whole.

What belongs here: the command line of ``dagster dev``, free ports, waiting until the UI answers, ending every process.
What does not: what is done with it (``demo``, ``cli``).
"""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from geo_assets.errors import GeoAssetsError, ParameterError
from geo_assets.redaction import redact

__all__ = ["DagsterServer", "dev_command", "free_port"]

_LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 20.0


def dev_command(workspace: Path, *, host: str, port: int) -> list[str]:
    """The command that starts Dagster's UI and daemon on a workspace."""
    return [
        sys.executable,
        # 'dg dev', which Dagster would rather see used, needs a checkout of the project
        *("-W", "ignore:Function `dev_command`"),
        *("-m", "dagster", "dev", "--workspace", str(workspace), "--host", host, "--port", str(port)),
    ]


def free_port(wanted: int | None = None) -> int:
    """A port on the loopback address that nothing listens on: the wanted one, or any.

    Raises:
        ParameterError: the wanted one is taken.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_LOOPBACK, wanted or 0))
        except OSError:
            raise ParameterError(f"port {wanted} is taken; choose another one with --port") from None
        port: int = probe.getsockname()[1]
        return port


class DagsterServer:
    """Dagster's UI, daemon and code location in a process group of their own; a context manager.

    Args:
        workspace: the workspace file.
        folder: where it runs and writes its log.
        environment: the whole environment of the processes.
        port: of the UI.
    """

    def __init__(self, workspace: Path, *, folder: Path, environment: Mapping[str, str], port: int) -> None:
        self.port = port
        self.log = folder / "dagster.log"
        self._command = dev_command(workspace, host=_LOOPBACK, port=port)
        self._folder = folder
        # without bytecode every process of Dagster's would take seconds longer to start
        self._environment = {k: v for k, v in environment.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Address of the UI."""
        return f"http://{_LOOPBACK}:{self.port}"

    def __enter__(self) -> Self:
        """Start it; it is not ready yet."""
        # a child of a background job inherits SIGINT as ignored, and Dagster would then ignore SIGTERM as well
        before = {one: signal.signal(one, signal.SIG_DFL) for one in (signal.SIGINT,) if _is_ignored(one)}
        try:
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    self._command,
                    cwd=self._folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop every process of it."""
        self.stop()

    def is_ready(self) -> bool:
        """Whether the UI answers.

        Raises:
            GeoAssetsError: Dagster has ended; shows the end of its log.
        """
        self.check()
        connection = http.client.HTTPConnection(_LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/server_info")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def check(self) -> None:
        """See that it still runs.

        Raises:
            GeoAssetsError: it does not; shows the end of its log.
        """
        if self._process is not None and self._process.poll() is not None:
            raise GeoAssetsError(
                f"Dagster ended with status {self._process.returncode}; the end of {self.log}:\n{self.log_tail()}"
            )

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log, without secrets."""
        with contextlib.suppress(OSError):
            return redact("\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]))
        return ""

    def stop(self) -> None:
        """Ask Dagster to end, wait, and kill what is left of its process group, at once if interrupted again."""
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_STOP_SECONDS)
            deadline = time.monotonic() + _STOP_SECONDS / 4
            while self.is_alive() and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)

    def is_alive(self) -> bool:
        """Whether any process of the group is left; also of use after :meth:`stop`."""
        if self._process is None:
            return False
        self._process.poll()  # its own remains would count as a process
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _is_ignored(one: signal.Signals) -> bool:
    return signal.getsignal(one) is signal.SIG_IGN
