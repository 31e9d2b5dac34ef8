"""One test session's services: started once for all xdist workers, stopped by the process that began the session.

What belongs here: the bookkeeping between pytest processes.  What does not: how a service is run (``keeper``).
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import psutil

from tests.services.found import REPOSITORY, ServiceMissingError

WAIT_SECONDS = 120.0
STOP_SECONDS = 15.0


@dataclass(frozen=True)
class ServiceSession:
    """The folder in which the processes of one session meet, and the process whose end is the session's."""

    folder: Path
    owner_pid: int

    @classmethod
    def begin(cls) -> "ServiceSession":
        """Begin a session that this process owns."""
        return cls(Path(tempfile.mkdtemp(prefix="geo-assets-tests-")), os.getpid())

    def end(self) -> None:
        """Stop every service of the session and wait until they are gone."""
        keepers = []
        for pid_file in self.folder.glob("*.pid"):
            with contextlib.suppress(psutil.NoSuchProcess, ValueError):
                keepers.append(psutil.Process(int(pid_file.read_text())))
        for keeper in keepers:
            with contextlib.suppress(psutil.NoSuchProcess):
                keeper.terminate()
        psutil.wait_procs(keepers, timeout=STOP_SECONDS)
        for state_file in self.folder.glob("*.json"):  # a keeper that was killed could not clear up
            if folder := json.loads(state_file.read_text()).get("folder"):
                shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def service(self, name: str) -> dict[str, str]:
        """Return what a client of the service needs; starts it if no process of the session has yet.

        Args:
            name: ``postgres``, ``azurite`` or ``azurite_queue``.

        Raises:
            ServiceMissingError: it cannot be started here.
        """
        state_file = self.folder / f"{name}.json"
        with self._locked(name):
            if not state_file.exists():
                self._start(name, state_file)
        state: dict[str, str] = json.loads(state_file.read_text())
        if "error" in state:
            raise ServiceMissingError(state["error"])
        return state

    def _start(self, name: str, state_file: Path) -> None:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.services.keeper", name, str(state_file), str(self.owner_pid)],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        (self.folder / f"{name}.pid").write_text(str(keeper.pid))
        deadline = monotonic() + WAIT_SECONDS
        while not state_file.exists():
            if keeper.poll() is not None and not state_file.exists():
                message = f"the keeper of {name} ended: {log.read_text(errors='replace').strip()[-2000:]}"
                raise ServiceMissingError(message)
            if monotonic() > deadline:
                keeper.terminate()
                message = f"{name} was not up after {WAIT_SECONDS:.0f} s"
                raise ServiceMissingError(message)
            sleep(0.02)
        # It lives as long as the session, so nobody waits for it here; this keeps Popen from complaining
        keeper.returncode = 0

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
