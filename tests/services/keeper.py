"""The process that starts one service and stops it when the test session ends, however that ends.

Run as ``python -m tests.services.keeper {postgres,azurite,azurite_queue} STATE_FILE OWNER_PID``.  The state file
appears whole, holding either what a client needs or the error.  The keeper is in a session of its own (Ctrl-C does not
reach it) and ends with its owner or on SIGTERM; the kernel kills the service should the keeper itself be killed.
"""

import base64
import contextlib
import ctypes
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic, sleep

import psutil
import psycopg2

from tests.services.found import ServiceMissingError, azurite_command, postgres_bin

START_SECONDS = 30.0
START_TRIES = 3  # between finding a free port and listening on it, somebody else may take it
TEMPLATE = "template_geo"
AZURITE_ACCOUNT = "devstoreaccount1"
_PR_SET_PDEATHSIG = 1

State = dict[str, str]


def main(service: str, state_file: Path, owner_pid: int) -> int:
    """Keep ``service`` up for as long as the process ``owner_pid`` lives; return the exit status."""
    stopped = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stopped.set())
    keep: dict[str, Callable[[], AbstractContextManager[tuple[State, subprocess.Popen[bytes]]]]] = {
        "postgres": _postgres,
        "azurite": lambda: _azurite("blob", _azurite_key(state_file.parent)),
        "azurite_queue": lambda: _azurite("queue", _azurite_key(state_file.parent)),
    }
    try:
        owner = psutil.Process(owner_pid)
        with keep[service]() as (state, server):
            _write(state_file, state)
            # Half a second is the longest a service outlives a session that was killed; is_running also
            # tells when the pid has been given to another process
            while not stopped.wait(0.5) and _is_alive(owner) and server.poll() is None:
                pass
        if not _is_alive(owner):  # nobody else is left to clear up
            shutil.rmtree(state_file.parent, ignore_errors=True)
    except (ServiceMissingError, psutil.NoSuchProcess) as error:
        _write(state_file, {"error": str(error)})
        return 1
    return 0


@contextmanager
def _postgres() -> Iterator[tuple[State, subprocess.Popen[bytes]]]:
    """Run a cluster of its own, with a template database that has PostGIS; no Unix socket, loopback only."""
    bin_folder = postgres_bin()
    user = _database_user()
    with _folder("pg", user) as folder:
        data, log = folder / "data", folder / "log"
        run_as: dict[str, object] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
        if user is not None:
            run_as["extra_groups"] = os.getgrouplist(user.pw_name, user.pw_gid)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(folder), "TZ": "UTC"}
        made = subprocess.run(
            [
                bin_folder / "initdb",
                "-D",
                data,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-N",
            ],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            **run_as,  # type: ignore[call-overload]  # user, group and extra_groups, or nothing
        )
        if made.returncode != 0:
            message = f"initdb failed: {(made.stderr or made.stdout).strip()[-2000:]}"
            raise ServiceMissingError(message)

        def start(port: int) -> subprocess.Popen[bytes]:
            options = {
                "listen_addresses": "127.0.0.1",
                "port": port,
                "unix_socket_directories": "",
                "max_connections": 200,
                # The data are thrown away: nothing needs to survive a crash of the machine
                "fsync": "off",
                "synchronous_commit": "off",
                "full_page_writes": "off",
            }
            arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
            with log.open("ab") as output:
                return _child(
                    [str(bin_folder / "postgres"), "-D", str(data), *arguments], folder, output, environment, run_as
                )

        # SIGINT is PostgreSQL's fast shutdown
        with _serving("PostgreSQL", start, _postgres_answers, log, signal.SIGINT) as (port, server):
            _make_template(port)
            url = f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
            yield {"url": url, "template": TEMPLATE, "folder": str(folder)}, server


@contextmanager
def _azurite(service: str, key: str) -> Iterator[tuple[State, subprocess.Popen[bytes]]]:
    """Run Azurite's ``blob`` or ``queue`` service in memory."""
    command = azurite_command(service)
    environment = dict(os.environ, AZURITE_ACCOUNTS=f"{AZURITE_ACCOUNT}:{key}")
    with _folder("azurite", None) as folder:
        log = folder / "log"

        def start(port: int) -> subprocess.Popen[bytes]:
            # The client libraries are newer than the API versions Azurite knows
            switches = ["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
            address = [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
            with log.open("ab") as output:
                return _child([*command, *address, *switches], folder, output, environment, {})

        with _serving("Azurite", start, _accepts, log, signal.SIGTERM) as (port, server):
            endpoint = f"http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"
            state = {"endpoint": endpoint, "account_name": AZURITE_ACCOUNT, "account_key": key}
            yield state | {"folder": str(folder)}, server


def _azurite_key(folder: Path) -> str:
    """The account key of this session, made up by the first service that wants it: blobs and queues share it."""
    path = folder / "azurite.key"
    with contextlib.suppress(FileExistsError):
        beside = folder / f"azurite.key.{os.getpid()}"
        beside.touch(mode=0o600)
        beside.write_text(base64.b64encode(secrets.token_bytes(64)).decode())
        os.link(beside, path)
    return path.read_text()


@contextmanager
def _serving(
    name: str,
    start: Callable[[int], subprocess.Popen[bytes]],
    answers: Callable[[int], bool],
    log: Path,
    stop_signal: signal.Signals,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start a server on a free port, wait until it answers, and stop it at the end."""
    for _ in range(START_TRIES):
        port = _free_port()
        server = start(port)
        try:
            if _wait_for(server, lambda port=port: answers(port)):  # type: ignore[misc]
                yield port, server
                return
        finally:
            _stop(server, stop_signal)
    message = f"{name} did not start: {log.read_text(errors='replace').strip()[-2000:] or 'it printed nothing'}"
    raise ServiceMissingError(message)


def _child(
    command: list[str], folder: Path, output: object, environment: dict[str, str], run_as: dict[str, object]
) -> subprocess.Popen[bytes]:
    """Start a server that the kernel kills when this process is gone."""
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        # Runs after the change of user, which would clear the setting; this process has one thread
        preexec_fn=die_with_parent,  # noqa: PLW1509
        **run_as,
    )


def _wait_for(server: subprocess.Popen[bytes], answers: Callable[[], bool]) -> bool:
    deadline = monotonic() + START_SECONDS
    while server.poll() is None and monotonic() < deadline:
        if answers():
            return True
        sleep(0.02)
    return False


def _stop(server: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    if server.poll() is None:
        server.send_signal(stop_signal)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _make_template(port: int) -> None:
    """Make the database every test's own is copied from."""
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(f"create database {TEMPLATE}")
    template = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname=TEMPLATE)
    with contextlib.closing(template), template, template.cursor() as cursor:
        cursor.execute("create extension postgis")
    connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor:
        # Nobody can connect to it, so that copying it never finds it in use
        cursor.execute(f"alter database {TEMPLATE} with is_template true allow_connections false")


def _postgres_answers(port: int) -> bool:
    try:
        psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _database_user() -> pwd.struct_passwd | None:
    """Return whom to run PostgreSQL as: it refuses root; anyone else runs it as themselves (None)."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    message = "PostgreSQL does not run as root, and there is neither a user 'postgres' nor 'nobody' to run it as"
    raise ServiceMissingError(message)


@contextmanager
def _folder(prefix: str, owner: pwd.struct_passwd | None) -> Iterator[Path]:
    """Make a folder that ``owner`` can reach, and remove it at the end."""
    parent = Path(tempfile.gettempdir()).resolve()
    if owner is not None and not all(path.stat().st_mode & 0o001 for path in (parent, *parent.parents)):
        parent = Path("/tmp")  # noqa: S108 - TMPDIR is closed to the other user; mkdtemp makes a private folder
    folder = Path(tempfile.mkdtemp(prefix=f"geo-assets-{prefix}-", dir=parent))
    try:
        if owner is not None:
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _write(state_file: Path, state: State) -> None:
    """Write the state so that a reader sees all of it or nothing; it holds the session's account key."""
    beside = state_file.with_suffix(".part")
    with contextlib.suppress(FileNotFoundError):  # the session has ended meanwhile and taken its folder away
        beside.touch(mode=0o600)
        beside.write_text(json.dumps(state))
        beside.rename(state_file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
