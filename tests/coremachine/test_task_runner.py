"""Both runners, with real threads, real processes and real deaths."""

import contextlib
import functools
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import psutil
import pytest

from geo_assets.coremachine import process_runner, worker_process
from geo_assets.coremachine.contract import Handler, OutcomeKind, TaskContext, TaskLimits
from geo_assets.coremachine.process_runner import ProcessRunner
from geo_assets.coremachine.task_runner import (
    Execution,
    TaskCall,
    TaskOutcome,
    TaskRunner,
    open_runner,
    require_enforceable,
    worker_environment,
)
from geo_assets.coremachine.worker_process import GDAL_HARDENING, Limits, Request
from geo_assets.errors import ContractError
from geo_assets.settings import Settings
from tests.coremachine import handlers_for_tests as handlers

REPOSITORY = Path(__file__).parents[2]
SETTINGS = Settings(task_threads=4, task_processes=2)
SECONDS = 30.0
"""Longest a test waits for what takes a moment."""


def call(key: object, handler: Handler, **params: Any) -> TaskCall:
    return TaskCall(key=key, handler=handler, params=params, context=TaskContext(job_id="j", stage=1))


def collect(runner: TaskRunner, count: int) -> dict[Any, TaskOutcome]:
    """Wait for ``count`` tasks; each must come exactly once."""
    executions: list[Execution] = []
    deadline = time.monotonic() + SECONDS
    while len(executions) < count and time.monotonic() < deadline:
        executions += runner.wait(1)
    assert len(executions) == count
    outcomes = {execution.key: execution.outcome for execution in executions}
    assert len(outcomes) == count
    return outcomes


def eventually(condition: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def open_process_runner() -> Iterator[Callable[..., ProcessRunner]]:
    with contextlib.ExitStack() as stack:

        def open_one(*, processes: int = 2, preload: tuple[str, ...] = (), **limits: Any) -> ProcessRunner:
            runner = open_runner(
                "process",
                settings=Settings(task_processes=processes),
                limits=TaskLimits(**limits),
                preload=preload,
            )
            assert isinstance(runner, ProcessRunner)
            stack.callback(runner.close, kill=True)
            stack.callback(runner.close)  # first, so that idle workers end by themselves and report their coverage
            return runner

        yield open_one


@pytest.fixture
def pid_folder(tmp_path: Path) -> Path:
    """A folder in which handlers leave process ids, and nothing else is."""
    folder = tmp_path / "pids"
    folder.mkdir()
    return folder


OpenProcessRunner = Callable[..., ProcessRunner]


def run_one(runner: TaskRunner, handler: Handler, **params: Any) -> TaskOutcome:
    runner.submit(call("only", handler, **params))
    return collect(runner, 1)["only"]


# --- both runners ----------------------------------------------------------------------------------------


@pytest.fixture(params=["thread", "process"])
def runner(request: pytest.FixtureRequest) -> Iterator[TaskRunner]:
    opened = open_runner(request.param, settings=SETTINGS)
    yield opened
    opened.close(kill=True)


def test_every_task_gets_one_outcome(runner: TaskRunner) -> None:
    for number in range(50):
        runner.submit(call(("key", number), handlers.echo, number=number))
    outcomes = collect(runner, 50)
    assert {key: outcome.result_data["params"]["number"] for key, outcome in outcomes.items()} == {
        ("key", number): number for number in range(50)
    }
    assert runner.wait(None) == []  # nothing is awaited: no reason to block


def test_the_two_injected_parameters(runner: TaskRunner) -> None:
    params = run_one(runner, handlers.echo, blob="a").result_data["params"]
    assert params.keys() == {"blob", "_correlation_id", "_processing_path"}


def test_a_handler_that_raises_costs_its_task(runner: TaskRunner) -> None:
    runner.submit(call("bad", handlers.raise_named, type="SystemExit", message="AccountKey=canary123"))
    runner.submit(call("good", handlers.echo))
    outcomes = collect(runner, 2)
    assert outcomes["good"].kind is OutcomeKind.CREATED
    assert outcomes["bad"].error == "SystemExit: AccountKey=***"
    assert not outcomes["bad"].transient
    assert "raise_named" in (outcomes["bad"].traceback or "")


@pytest.mark.parametrize(
    ("handler", "expected"), [(handlers.return_object, "contract violation"), (handlers.return_nan, "bands[0].mean")]
)
def test_a_handler_that_returns_no_json(runner: TaskRunner, handler: Handler, expected: str) -> None:
    outcome = run_one(runner, handler)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert expected in (outcome.error or "")


def test_no_more_tasks_at_once_than_the_capacity(runner: TaskRunner, tmp_path: Path) -> None:
    started = time.monotonic()
    for number in range(runner.capacity * 2):
        runner.submit(call(number, handlers.sleep, seconds=0.2))
    collect(runner, runner.capacity * 2)
    assert time.monotonic() - started >= 0.4


def test_waiting_has_a_timeout(runner: TaskRunner) -> None:
    runner.submit(call("slow", handlers.sleep, seconds=20))
    started = time.monotonic()
    assert runner.wait(0) == []
    assert runner.wait(0.3) == []
    assert 0.3 <= time.monotonic() - started < 5


def test_a_closed_runner_takes_no_more_and_does_not_block(runner: TaskRunner) -> None:
    runner.submit(call("slow", handlers.sleep, seconds=20))
    runner.close(kill=True)
    runner.close()
    runner.wait(None)
    with pytest.raises(RuntimeError, match="closed"):
        runner.submit(call("late", handlers.echo))


def test_a_signal_interrupts_the_wait(runner: TaskRunner) -> None:
    class Terminated(Exception):  # noqa: N818
        pass

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGUSR1, terminate)
    try:
        runner.submit(call("slow", handlers.sleep, seconds=20))
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        started = time.monotonic()
        with pytest.raises(Terminated):
            runner.wait(None)
        assert time.monotonic() - started < 5
    finally:
        signal.signal(signal.SIGUSR1, previous)


# --- threads ---------------------------------------------------------------------------------------------


@pytest.fixture
def threads() -> Iterator[TaskRunner]:
    opened = open_runner("thread", settings=SETTINGS)
    yield opened
    opened.close()


def test_threads_see_services(threads: TaskRunner) -> None:
    context = TaskContext(services={"store": object()})
    threads.submit(TaskCall(key=1, handler=handlers.echo_context, params={}, context=context))
    assert collect(threads, 1)[1].result_data["context"]["services"] == ["store"]


def test_threads_take_any_callable(threads: TaskRunner) -> None:
    outcome = run_one(threads, functools.partial(lambda params, context: {"success": True}, context=None))
    assert outcome.kind is OutcomeKind.CREATED


def test_threads_cost_little(threads: TaskRunner) -> None:
    def trivial(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    started = time.process_time()  # of all threads; the wall clock would measure the machine's other load
    for number in range(2_000):
        threads.submit(call(number, trivial))
    collect(threads, 2_000)
    assert time.process_time() - started < 0.5


def test_a_hanging_thread_does_not_keep_the_process() -> None:
    script = """
        from geo_assets.coremachine.contract import TaskContext
        from geo_assets.coremachine.task_runner import TaskCall, open_runner
        from geo_assets.settings import Settings
        from tests.coremachine.handlers_for_tests import sleep

        runner = open_runner("thread", settings=Settings())
        runner.submit(TaskCall(key=1, handler=sleep, params={"seconds": 60}, context=TaskContext()))
        runner.close(kill=True)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=20, cwd=REPOSITORY)


# --- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["wall_seconds", "cpu_seconds", "memory_mb", "file_size_mb"])
def test_threads_keep_no_limits(limit: str) -> None:
    limits = TaskLimits(**{limit: 5})
    with pytest.raises(ContractError, match=r"Listing.*thread can be neither timed out nor saved from a crash"):
        require_enforceable("thread", limits, "Listing")
    with pytest.raises(ContractError):
        open_runner("thread", settings=SETTINGS, limits=limits)
    require_enforceable("process", limits, "Listing")


@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_a_limit_is_more_than_nothing(value: float) -> None:
    with pytest.raises(ContractError, match="wall_seconds"):
        require_enforceable("process", TaskLimits(wall_seconds=value), "Listing")


def test_no_limits_are_fine_everywhere() -> None:
    executions: tuple[Literal["thread", "process"], ...] = ("thread", "process")
    for execution in executions:
        require_enforceable(execution, TaskLimits(), "Listing")


def _local(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True}


def _in_main() -> Handler:
    def handler(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    handler.__module__, handler.__qualname__ = "__main__", "handler"
    return handler


def _impostor() -> Handler:
    def handler(params: dict[str, Any]) -> dict[str, Any]:
        return {"success": True}

    handler.__module__, handler.__qualname__ = handlers.__name__, "echo"
    return handler


@pytest.mark.parametrize(
    ("handler", "why"),
    [
        (lambda params: {"success": True}, "a lambda or a local function"),
        (handlers.named_lambda, "a lambda or a local function"),
        (_in_main(), "the script being run"),
        (_impostor(), "not what tests.coremachine.handlers_for_tests has under its name"),
        (functools.partial(handlers.echo), "no importable name"),
    ],
)
def test_a_handler_no_worker_can_import(open_process_runner: OpenProcessRunner, handler: Handler, why: str) -> None:
    runner = open_process_runner()
    outcome = run_one(runner, handler)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert why in (outcome.error or "")
    assert runner.worker_pids == []  # found out without starting one


def test_a_module_the_worker_lacks(open_process_runner: OpenProcessRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("module_of_this_process_only")
    exec("def handler(params): return {'success': True}", module.__dict__)  # noqa: S102
    monkeypatch.setitem(sys.modules, module.__name__, module)
    outcome = run_one(open_process_runner(), module.handler)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "cannot import the handler module_of_this_process_only.handler" in (outcome.error or "")


def test_parameters_that_cannot_travel(open_process_runner: OpenProcessRunner) -> None:
    outcome = run_one(open_process_runner(), handlers.echo, lock=threading.Lock())
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "cannot be sent to a worker process" in (outcome.error or "")


# --- processes at work -----------------------------------------------------------------------------------


def test_workers_are_warm(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1)
    runs = [run_one(runner, handlers.count_executions).result_data for _ in range(5)]
    assert [run["count"] for run in runs] == [1, 2, 3, 4, 5]
    assert {run["pid"] for run in runs} == set(runner.worker_pids)
    assert os.getpid() not in runner.worker_pids


def test_static_methods_are_handlers(open_process_runner: OpenProcessRunner) -> None:
    assert run_one(open_process_runner(), handlers.Handlers.greet).kind is OutcomeKind.CREATED


def test_services_stay_out_of_worker_processes(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner()
    context = TaskContext(job_id="j", attempt=2, predecessor_result={"n": 1}, services={"lock": threading.Lock()})
    runner.submit(TaskCall(key=1, handler=handlers.echo_context, params={}, context=context))
    result = collect(runner, 1)[1].result_data
    assert result["type"] == "TaskContext"
    assert result["context"] == {"job_id": "j", "attempt": 2, "predecessor_result": {"n": 1}, "services": []}
    assert "lock" in context.services


def test_a_large_result_comes_whole(open_process_runner: OpenProcessRunner) -> None:
    outcome = run_one(open_process_runner(), handlers.return_large, bytes=20_000_000)
    assert len(outcome.result_data["text"]) == 20_000_000


SECRETS = {
    "GEO_ASSETS_AZURE_ACCOUNT_KEY": "canary",
    "GEO_ASSETS_AZURE_ACCOUNT": "canary",
    "GEO_ASSETS_LEDGER_URL": "canary",
    "AZURE_CLIENT_ID": "canary",
    "PGUSER": "canary",
    "PGPASSFILE": "canary",
    "SOME_API_KEY": "canary",
    "github_token": "canary",
    "CLIENT_SECRET": "canary",
    "DB_PASSWORD_FILE": "canary",
    "MY_CONNECTION_STRING": "canary",
    "STORAGECONNECTIONSTRING": "canary",
    "SOMETHING_ELSE": "postgresql://user:canary@db.example/x",
    "BLOB": "https://a.example/c?sv=1&sig=canary",
}


def test_workers_see_no_credentials(open_process_runner: OpenProcessRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GEO_ASSETS_HOME", "kept")
    result = run_one(open_process_runner(), handlers.report_surroundings).result_data
    for environment in (result["environ"], result["os_environ"]):
        assert not SECRETS.keys() & environment.keys()
        assert "canary" not in str(environment)
        assert environment["GEO_ASSETS_HOME"] == "kept"
        assert environment["CPL_VSIL_CURL_ALLOWED_FILENAME"] == "none"
        assert environment["GDAL_DISABLE_READDIR_ON_OPEN"] == "EMPTY_DIR"


def test_an_environment_can_be_given() -> None:
    kept = worker_environment({"PATH": "/bin", "AZURE_TENANT_ID": "x", "KEYBOARD": "de"})
    assert kept.keys() == {"PATH", "KEYBOARD"} | GDAL_HARDENING.keys()


def test_workers_load_neither_dagster_nor_geodata_libraries(open_process_runner: OpenProcessRunner) -> None:
    modules = run_one(open_process_runner(), handlers.report_surroundings).result_data["modules"]
    loaded = {name.partition(".")[0] for name in modules}
    assert not loaded & {"dagster", "rasterio", "geopandas", "pyogrio", "pyarrow", "pystac", "obstore", "sqlalchemy"}


def test_a_worker_preloads_what_it_is_told(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(preload=("colorsys", "no_such_module"))
    assert "colorsys" in run_one(runner, handlers.report_surroundings).result_data["modules"]


def test_workers_handle_signals_by_default(open_process_runner: OpenProcessRunner) -> None:
    """Dagster's run workers catch SIGTERM and SIGINT; what is ignored or blocked is inherited."""
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        result = run_one(open_process_runner(), handlers.report_surroundings).result_data
    finally:
        signal.signal(signal.SIGTERM, previous)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    assert result["default_signals"] is True
    assert result["blocked_signals"] == 0


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        print("imported")
        from geo_assets.coremachine.contract import TaskContext
        from geo_assets.coremachine.task_runner import TaskCall, open_runner
        from geo_assets.settings import Settings
        from tests.coremachine.handlers_for_tests import echo

        runner = open_runner("process", settings=Settings(task_processes=1))
        runner.submit(TaskCall(key=1, handler=echo, params={}, context=TaskContext()))
        print(runner.wait(None)[0].outcome.kind)
        runner.close()
    """)
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(
        [sys.executable, script], check=True, timeout=30, capture_output=True, text=True, env=environment
    )
    assert ended.stdout.split() == ["imported", "created"]


# --- limits ----------------------------------------------------------------------------------------------


def test_the_wall_limit(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1, wall_seconds=1)
    started = time.monotonic()
    outcome = run_one(runner, handlers.sleep, seconds=60)
    assert time.monotonic() - started < 10
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "wall-clock limit of 1 s" in (outcome.error or "")
    assert "handlers_for_tests.py" in (outcome.traceback or "")  # where it hung
    assert outcome.execution_time_ms >= 1000
    assert run_one(runner, handlers.echo).kind is OutcomeKind.CREATED


def test_the_wall_limit_takes_what_the_handler_started(
    open_process_runner: OpenProcessRunner, pid_folder: Path
) -> None:
    run_one(open_process_runner(wall_seconds=1), handlers.start_child_and_hang, folder=str(pid_folder))
    (child,) = (int(path.name) for path in pid_folder.iterdir())
    assert eventually(lambda: is_gone(child), 5)


def test_the_cpu_limit_is_each_tasks_own(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1, cpu_seconds=1)
    pids = {run_one(runner, handlers.burn, seconds=0.7).result_data["pid"] for _ in range(3)}
    assert len(pids) == 1  # 2.1 s in one process, none of them over
    outcome = run_one(runner, handlers.burn)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "SIGXCPU" in (outcome.error or "")
    assert "CPU limit of 1 s" in (outcome.error or "")
    assert "burn" in (outcome.traceback or "")


def test_the_memory_limit(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1, memory_mb=256)
    outcome = run_one(runner, handlers.hog_memory, megabytes=300)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "MemoryError" in (outcome.error or "")
    assert "256 MB" in (outcome.error or "")
    assert run_one(runner, handlers.hog_memory, megabytes=50).kind is OutcomeKind.CREATED


def test_a_worker_that_keeps_much_memory_is_replaced(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1, memory_mb=256)
    small = run_one(runner, handlers.keep_memory, megabytes=10)
    large = run_one(runner, handlers.keep_memory, megabytes=180)
    after = run_one(runner, handlers.hog_memory, megabytes=180)
    assert small.result_data["pid"] == large.result_data["pid"]
    assert large.result_data["pid"] not in runner.worker_pids
    assert after.kind is OutcomeKind.CREATED


def test_the_file_size_limit(open_process_runner: OpenProcessRunner, tmp_path: Path) -> None:
    runner = open_process_runner(file_size_mb=2)
    path = tmp_path / "large"
    outcome = run_one(runner, handlers.write_file, path=str(path), megabytes=5)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert "2 MB" in (outcome.error or "")
    assert path.stat().st_size <= 2 * 1024 * 1024


# --- deaths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "said", "transient"),
    [
        ({"way": "segfault"}, ["SIGSEGV", "native code crashed"], False),
        ({"way": "SIGABRT"}, ["SIGABRT", "memory limit"], False),
        ({"way": "SIGBUS"}, ["SIGBUS"], False),
        ({"way": "SIGKILL"}, ["SIGKILL", "out of memory"], True),
        ({"way": "SIGTERM"}, ["SIGTERM", "from outside"], True),
        ({"way": "exit", "status": 7}, ["exited with status 7", "os._exit"], False),
        ({"way": "exit", "status": 0}, ["exited with status 0"], False),
    ],
)
def test_a_dead_worker_costs_its_task(
    open_process_runner: OpenProcessRunner, params: dict[str, Any], said: list[str], *, transient: bool
) -> None:
    runner = open_process_runner(processes=1)
    outcome = run_one(runner, handlers.die, **params)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, transient)
    for text in [*said, "handlers_for_tests.die"]:
        assert text in (outcome.error or "")
    assert run_one(runner, handlers.echo).kind is OutcomeKind.CREATED


def test_a_crash_shows_where(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1)
    assert "in die" in (run_one(runner, handlers.die, way="segfault").traceback or "")
    assert run_one(runner, handlers.die, way="SIGKILL").traceback is None  # nothing left from the other one


def test_two_deaths_among_twenty_tasks(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner()
    ways = {4: "SIGKILL", 11: "segfault"}
    for number in range(20):
        runner.submit(call(number, handlers.die, way=ways.get(number)))
    outcomes = collect(runner, 20)
    assert {number for number, outcome in outcomes.items() if outcome.kind is OutcomeKind.FAILED} == ways.keys()
    assert "SIGKILL" in (outcomes[4].error or "")
    assert "SIGSEGV" in (outcomes[11].error or "")
    assert runner.wait(0) == []


def test_every_worker_dies_at_once(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner()
    for number in range(8):
        runner.submit(call(number, handlers.die, way="exit"))
    assert all(outcome.kind is OutcomeKind.FAILED for outcome in collect(runner, 8).values())
    assert run_one(runner, handlers.echo).kind is OutcomeKind.CREATED


def test_a_death_in_the_middle_of_the_answer(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner()
    runner.submit(call("dies", handlers.die_in_mid_message))
    for number in range(10):
        runner.submit(call(number, handlers.echo))
    outcomes = collect(runner, 11)
    assert "SIGKILL" in (outcomes.pop("dies").error or "")
    assert all(outcome.kind is OutcomeKind.CREATED for outcome in outcomes.values())


@pytest.mark.parametrize(
    "params",
    [
        {"message": "not JSON"},
        {"message": "[]"},
        {"message": '{"outcome": {"kind": "created"}, "retire": false}'},
        {"message": "{}", "announce": 1 << 60},
    ],
)
def test_a_worker_that_answers_nonsense(open_process_runner: OpenProcessRunner, params: dict[str, Any]) -> None:
    runner = open_process_runner(processes=1)
    outcome = run_one(runner, handlers.send_nonsense, **params)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert run_one(runner, handlers.echo).result_data["params"].keys() == {"_correlation_id", "_processing_path"}


def test_a_worker_that_closes_its_line(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1)
    assert "closed its line" in (run_one(runner, handlers.close_line).error or "")
    assert run_one(runner, handlers.echo).kind is OutcomeKind.CREATED


def test_a_death_while_another_process_holds_the_line(open_process_runner: OpenProcessRunner) -> None:
    outcome = run_one(open_process_runner(processes=1), handlers.leave_line_to_another)
    assert "exited with status 5" in (outcome.error or "")
    assert outcome.execution_time_ms < 10_000


def test_a_worker_that_no_longer_reads(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1, wall_seconds=1)
    pid = run_one(runner, handlers.stop_a_moment_later).result_data["pid"]
    assert eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    outcome = run_one(runner, handlers.echo, text="x" * 5_000_000)  # more than any buffer takes
    assert "wall-clock limit" in (outcome.error or "")
    assert is_gone(pid)


@pytest.mark.parametrize(
    ("status", "described", "explained", "transient"),
    [
        (-signal.SIGXFSZ, "was killed by SIGXFSZ", "larger than its limit of 4 MB", False),
        (-signal.SIGXCPU, "was killed by SIGXCPU", "CPU limit of 2 s", False),
        (-signal.SIGHUP, "was killed by SIGHUP", "from outside", True),
        (-250, "was killed by signal 250", "from outside", True),
        (1, "exited with status 1", "os._exit", False),
    ],
)
def test_the_words_for_a_death(status: int, described: str, explained: str, *, transient: bool) -> None:
    limits = Limits(wall_seconds=1, cpu_seconds=2, memory_mb=3, file_size_mb=4)
    cause, may_pass = process_runner._explain_status(status, limits)
    assert process_runner._describe_status(status) == described
    assert explained in cause
    assert may_pass is transient


def test_an_answer_too_large_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = TaskOutcome(kind=OutcomeKind.CREATED, result_data={"text": "x" * 3_000_000})
    limits = Limits(wall_seconds=1, cpu_seconds=2, memory_mb=3, file_size_mb=4)
    request = Request(module="m", qualname="q", params={}, context={}, limits=limits)
    monkeypatch.setattr(worker_process, "_run", lambda request, crash_report: outcome)
    monkeypatch.setattr(worker_process, "MAX_REPLY", 2_000_000)
    reply = json.loads(worker_process._serve(pickle.dumps(request), 0, 0.0))
    assert reply["outcome"]["kind"] == "failed"
    assert "write large results to a store" in reply["outcome"]["error"]
    unreadable = json.loads(worker_process._serve(b"not a pickle", 0, 0.0))
    assert unreadable["outcome"]["kind"] == "failed"


def test_a_worker_that_dies_idle_costs_nothing(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner(processes=1)
    first = run_one(runner, handlers.echo).result_data["pid"]
    os.kill(first, signal.SIGKILL)
    assert eventually(lambda: is_gone(first))
    outcome = run_one(runner, handlers.echo)
    assert outcome.kind is OutcomeKind.CREATED
    assert outcome.result_data["pid"] != first


def test_workers_that_do_not_start(open_process_runner: OpenProcessRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    outcome = run_one(open_process_runner(), handlers.echo)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, True)
    assert "did not start (exited with status 1)" in (outcome.error or "")


def test_an_interpreter_that_is_gone(open_process_runner: OpenProcessRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    outcome = run_one(open_process_runner(), handlers.echo)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, True)
    assert "FileNotFoundError" in (outcome.error or "")


# --- the end ---------------------------------------------------------------------------------------------


def test_close_ends_idle_workers(open_process_runner: OpenProcessRunner) -> None:
    runner = open_process_runner()
    for number in range(6):
        runner.submit(call(number, handlers.sleep, seconds=0.05))
    collect(runner, 6)
    pids = runner.worker_pids
    assert len(pids) == 2
    runner.close()
    assert all(is_gone(pid) for pid in pids)


def test_close_lets_a_busy_worker_end_its_task(open_process_runner: OpenProcessRunner, pid_folder: Path) -> None:
    runner = open_process_runner(processes=1)
    runner.submit(call("busy", handlers.sleep, seconds=1, folder=str(pid_folder)))
    runner.submit(call("waiting", handlers.sleep, seconds=0, folder=str(pid_folder)))
    assert eventually(lambda: any(pid_folder.iterdir()))
    (pid,) = runner.worker_pids
    runner.close()
    assert eventually(lambda: is_gone(pid), 10)
    assert [execution.key for execution in runner.wait(0)] == ["busy"]


def test_kill_ends_busy_workers(open_process_runner: OpenProcessRunner, pid_folder: Path) -> None:
    runner = open_process_runner()
    for number in range(4):
        runner.submit(call(number, handlers.sleep, seconds=60, folder=str(pid_folder)))
    assert eventually(lambda: len(list(pid_folder.iterdir())) == 2)
    pids = [int(path.name) for path in pid_folder.iterdir()]
    started = time.monotonic()
    runner.close(kill=True)
    assert all(is_gone(pid) for pid in pids)
    assert time.monotonic() - started < 10
    assert runner.worker_pids == []
    assert len(list(pid_folder.iterdir())) == 2  # the waiting tasks were not begun


def test_workers_end_with_a_parent_that_is_killed(pid_folder: Path) -> None:
    script = f"""
        import time
        from geo_assets.coremachine.contract import TaskContext
        from geo_assets.coremachine.task_runner import TaskCall, open_runner
        from geo_assets.settings import Settings
        from tests.coremachine.handlers_for_tests import hold_the_interpreter, sleep

        runner = open_runner("process", settings=Settings(task_processes=2))
        for number, handler in enumerate([sleep, hold_the_interpreter]):
            params = {{"seconds": 60, "folder": {str(pid_folder)!r}}}
            runner.submit(TaskCall(key=number, handler=handler, params=params, context=TaskContext()))
        time.sleep(60)
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], cwd=REPOSITORY) as parent:
        assert eventually(lambda: len(list(pid_folder.iterdir())) == 2)
        parent.kill()
    pids = [int(path.name) for path in pid_folder.iterdir()]
    assert eventually(lambda: all(is_gone(pid) for pid in pids), 5)


def test_workers_end_with_a_parent_that_just_ends(pid_folder: Path) -> None:
    script = f"""
        import time
        from pathlib import Path
        from geo_assets.coremachine.contract import TaskContext
        from geo_assets.coremachine.task_runner import TaskCall, open_runner
        from geo_assets.settings import Settings
        from tests.coremachine.handlers_for_tests import sleep

        runner = open_runner("process", settings=Settings(task_processes=1))
        params = {{"seconds": 60, "folder": {str(pid_folder)!r}}}
        runner.submit(TaskCall(key=1, handler=sleep, params=params, context=TaskContext()))
        while not list(Path({str(pid_folder)!r}).iterdir()):
            time.sleep(0.01)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=30, cwd=REPOSITORY)
    (pid,) = (int(path.name) for path in pid_folder.iterdir())
    assert eventually(lambda: is_gone(pid), 5)


def test_importing_the_runner_loads_neither_dagster_nor_geodata_libraries() -> None:
    script = """
        import sys
        import geo_assets.coremachine.task_runner
        loaded = {name.partition(".")[0] for name in sys.modules}
        print(*loaded & {"dagster", "rasterio", "geopandas", "pyogrio", "pyarrow", "pystac", "obstore"})
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY)
    assert ended.stdout.strip() == ""
