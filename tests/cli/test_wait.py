"""Submitting and waiting with no daemon up: the work is done in the command's own process, by the daemon's path."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from geo_assets import local_run
from geo_assets.cli.opening import open_instance, open_machine
from geo_assets.coremachine import dispatch
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.settings import get_settings
from tests.cli.conftest import FAILING, Run

GEO_ASSETS = (sys.executable, "-c", "from geo_assets.cli import app; app()")


def test_hello_world_is_done_here(run: Run) -> None:
    ended = run("submit", "hello_world", "--param", "n=2", "--wait", "--json")
    job = ended.json
    assert (ended.status, job["status"], job["outcome"], job["progress"]) == (0, "completed", "created", 1.0)
    assert job["resultData"]["total_tasks"] == 4
    assert job["answer"]["status"] == "created"
    with dg.DagsterInstance.get() as instance:
        run_here = instance.get_run_by_id(job["runId"])
        assert run_here is not None
        assert run_here.status is dg.DagsterRunStatus.SUCCESS
        assert run_here.tags[WAVE_TAG] == job["attempts"][0]["waveId"]
        origin = run_here.remote_job_origin
        assert origin is not None
        assert (origin.location_name, origin.job_name) == ("geo_assets", "hello_world")
        assert instance.get_materialized_partitions(dg.AssetKey("hello_world")) == {job["partitionKey"]}
    again = run("submit", "hello_world", "--param", "n=2", "--wait", "--json").json
    assert (again["answer"]["status"], len(again["attempts"])) == ("already_completed", 1)
    forced = run("submit", "hello_world", "--param", "n=2", "--wait", "--force", "--json").json
    assert [attempt["status"] for attempt in forced["attempts"]] == ["completed", "completed"]


def test_real_files_are_listed_here(run: Run, containers: Path) -> None:
    del containers
    ended = run("submit", "list_container_contents", "--param", "container_name=maps", "--wait", "--json")
    assert (ended.status, ended.json["status"]) == (0, "completed")
    summary = ended.json["resultData"]["summary"]
    assert (summary["total_blobs_found"], summary["successful_analyses"]) == (3, 3)
    tasks = run("tasks", ended.json["jobId"], "--stage", "2", "--json").json
    assert {task["parameters"]["blob_name"] for task in tasks} == {
        "world_byte_4326.tif",
        "swiss_cities.kmz",
        "sub folder/alpha_3857.tif",
    }
    assert "run: /runs/" in run("submit", "list_container_contents", "--key", "maps", "--wait").stdout


def test_many_keys_are_one_run_and_the_bad_ones_are_told(run: Run, containers: Path) -> None:
    (containers / "maps-2").mkdir()
    keys = "maps\nnowhere\n"
    ended = run("submit", "summarize_container", "--keys-from", "-", "--prefix", "maps", "--wait", "--json", stdin=keys)
    assert ended.status == 1
    assert {job["partitionKey"]: job["status"] for job in ended.json} == {
        "maps": "completed",
        "nowhere": "failed",
        "maps-2": "completed",
    }
    assert len({job["runId"] for job in ended.json}) == 1
    shown = run("submit", "summarize_container", "--key", "maps", "--key", "nowhere", "--wait")
    assert shown.status == 1
    assert "nowhere" in shown.stdout
    assert "2  all" in shown.stdout


@pytest.mark.usefixtures("no_retries")
def test_a_job_that_fails_is_exit_status_1(run: Run) -> None:
    ended = run("submit", "hello_world", *FAILING, "--wait")
    assert ended.status == 1
    assert "failed on purpose" in ended.stdout
    retried = run("retry", "--failed", "--wait", "--json")
    assert (retried.status, [job["attempts"][-1]["number"] for job in retried.json]) == (1, [2])


def test_waiting_for_a_daemon_ends_at_the_timeout(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_run, "daemon_is_up", bool)
    ended = run("submit", "hello_world", "--wait", "--timeout", "0.1", "--json")
    assert (ended.status, ended.json["status"]) == (5, "queued")


def test_a_wave_that_a_daemon_left_behind_is_done_here(run: Run) -> None:
    run("submit", "hello_world")
    with open_machine() as machine, open_instance() as instance:
        assert len(dispatch.tick(machine, instance).runs) == 1  # its run is never started
    assert run("submit", "hello_world", "--wait", "--json").json["status"] == "completed"


def test_a_daemon_is_up_while_its_heartbeats_are_fresh() -> None:
    with dg.DagsterInstance.get() as instance:
        assert not local_run.daemon_is_up(instance)
        now = time.time()
        instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "an-id", []))
        assert not local_run.daemon_is_up(instance)
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - 20, "QUEUED_RUN_COORDINATOR", "an-id", []))
        assert local_run.daemon_is_up(instance)
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - 60, "QUEUED_RUN_COORDINATOR", "an-id", []))
        assert not local_run.daemon_is_up(instance)


# --- processes of their own ----------------------------------------------------------------------------------------

LEGACY = """
import sys, time


def noisy(params, context=None):
    print("printed by a handler", flush=True)
    print("complained by a handler", file=sys.stderr, flush=True)
    time.sleep(params["seconds"])
    return {"success": True}


class Noisy:
    job_type = "noisy"
    description = "prints"
    stages = [{"number": 1, "name": "print", "task_type": "noisy", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params):
        return {"seconds": params.get("seconds", 0), "tasks": params.get("tasks", 1)}

    @staticmethod
    def generate_job_id(params):
        return "%064x" % (params["tasks"] * 1000 + int(params["seconds"]))

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [
            {"task_id": f"{job_id[-8:]}-{n}", "task_type": "noisy", "parameters": {"seconds": job_params["seconds"]}}
            for n in range(job_params["tasks"])
        ]

    @staticmethod
    def create_job_record(job_id, params):
        return {}

    @staticmethod
    def queue_job(job_id, params):
        return {"queued": True}

    @staticmethod
    def aggregate_job_results(context):
        return {"tasks": len(context.task_results)}


ALL_JOBS = {"noisy": Noisy}
ALL_HANDLERS = {"noisy": noisy}
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start ``geo-assets`` as a process, with the workflow ``noisy`` registered."""
    (tmp_path / "noisy_jobs.py").write_text(LEGACY)

    def start_command(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*GEO_ASSETS, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(tmp_path),
                "GEO_ASSETS_LEGACY_JOBS": "noisy_jobs:ALL_JOBS",
                "GEO_ASSETS_LEGACY_HANDLERS": "noisy_jobs:ALL_HANDLERS",
                "GEO_ASSETS_TASK_THREADS": "1",
                "GEO_ASSETS_HEARTBEAT_SECONDS": "0.2",
            },
        )

    return start_command


def _until_at_work(run: Run) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        jobs = run("jobs", "--json").json
        if jobs and run("status", jobs[0]["jobId"], "--json").json["taskCounts"]["processing"]:
            return
        time.sleep(0.2)
    pytest.fail("the job did not start within a minute")


def _statuses_of_runs() -> list[dg.DagsterRunStatus]:
    with dg.DagsterInstance.get() as instance:
        return [one.status for one in instance.get_runs()]


def test_json_stays_clean_whatever_handlers_print(start: Callable[..., subprocess.Popen[str]]) -> None:
    stdout, stderr = start("submit", "noisy", "--wait", "--json").communicate(timeout=120)
    assert json.loads(stdout)["resultData"] == {"tasks": 1}
    assert stderr == ""


def test_verbose_shows_what_handlers_print_beside_the_json(start: Callable[..., subprocess.Popen[str]]) -> None:
    stdout, stderr = start("submit", "noisy", "--wait", "--json", "--verbose").communicate(timeout=120)
    assert json.loads(stdout)["status"] == "completed"
    assert "RUN_SUCCESS" in stderr


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_cancels_the_run_and_its_jobs(
    run: Run, start: Callable[..., subprocess.Popen[str]], which: signal.Signals
) -> None:
    process = start("submit", "noisy", "--params", '{"seconds": 1, "tasks": 60}', "--wait")
    _until_at_work(run)
    process.send_signal(which)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted" in stderr
    assert _statuses_of_runs() == [dg.DagsterRunStatus.CANCELED]
    assert list((get_settings().home_path / "local_runs").iterdir()) == []
    (job,) = run("failures", "--json").json
    assert job["status"] == "cancelled"


def test_what_a_killed_command_left_is_taken_up_by_the_next(
    run: Run, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("submit", "noisy", "--params", '{"seconds": 1, "tasks": 60}', "--wait")
    _until_at_work(run)
    with dg.DagsterInstance.get() as instance:
        assert local_run.fail_dead_runs(get_settings().home_path, instance) == []  # it lives
    process.kill()
    process.communicate(timeout=30)
    with dg.DagsterInstance.get() as instance:
        assert len(local_run.fail_dead_runs(get_settings().home_path, instance)) == 1
        assert local_run.fail_dead_runs(get_settings().home_path, instance) == []
    assert _statuses_of_runs() == [dg.DagsterRunStatus.FAILURE]
    with open_machine() as machine, open_instance() as instance:
        dispatch.tick(machine, instance)
    (job,) = run("jobs", "--json").json
    assert job["status"] == "queued"
