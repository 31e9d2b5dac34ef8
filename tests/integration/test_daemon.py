"""The queue with a real daemon, webserver and run workers: what users press, and what happens to them.

One Dagster serves all tests of the module; each uses blobs of its own, so that their order does not matter.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.coremachine.ledger import Job
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit, submit_many
from geo_assets.settings import get_settings
from tests.integration import driver
from tests.integration.dagster_up import DagsterUp
from tests.integration.workflows import executions, sources

pytestmark = [pytest.mark.xdist_group("daemon"), pytest.mark.slow]

MODULE = "tests.integration.code_location"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("daemon")


@pytest.fixture(scope="module")
def dagster(home: Path) -> Iterator[DagsterUp]:
    (home / "sources").mkdir()
    up = DagsterUp(MODULE, home)
    yield up
    up.stop()


@pytest.fixture
def machine(dagster: DagsterUp, monkeypatch: pytest.MonkeyPatch) -> CoreMachine:
    """The machine on the same home, in this process."""
    monkeypatch.setenv("GEO_ASSETS_HOME", str(dagster.home))
    get_settings.cache_clear()
    return driver.machine()


def make(*names: str) -> list[dict[str, str]]:
    """Source files, and the parameters of a job for each."""
    for name in names:
        (sources() / name).write_text(name)
    return [{"blob_name": name} for name in names]


def job_of(machine: CoreMachine, name: str) -> Job:
    job = machine.ledger.latest_job("blob_digest", name, "digest_blob")
    assert job is not None
    return job


def settled(dagster: DagsterUp, machine: CoreMachine, *names: str, seconds: float = 90) -> list[Job]:
    """Wait until the jobs of these blobs have ended and their runs, too."""
    dagster.wait_for(
        f"the end of {len(names)} jobs",
        lambda: all(job_of(machine, name).status.is_terminal for name in names),
        seconds=seconds,
    )
    jobs = [job_of(machine, name) for name in names]
    for run_id in {job.run_id for job in jobs if job.run_id}:
        dagster.finished(run_id)
    return jobs


def wave_runs(dagster: DagsterUp) -> list[dg.DagsterRun]:
    with dagster.instance() as instance:
        return [run for run in instance.get_runs() if WAVE_TAG in run.tags]


def reason_on_partition(dagster: DagsterUp, name: str) -> str:
    """What the partition itself says about why it was not materialized."""
    which = dg.AssetRecordsFilter(asset_key=dg.AssetKey("blob_digest"), asset_partitions=[name])
    with dagster.instance() as instance:
        (record,) = instance.fetch_observations(which, limit=1).records
    assert record.asset_observation is not None
    return str(record.asset_observation.metadata["geo/reason"].value)


def colours(dagster: DagsterUp, names: list[str]) -> Counter[str]:
    """How many of these partitions are green, red, or neither."""
    with dagster.instance() as instance:
        statuses = instance.get_status_by_partition(
            dg.AssetKey("blob_digest"), names, dg.DynamicPartitionsDefinition(name="blobs")
        )
    return Counter(status.value if status is not None else "MISSING" for status in (statuses or {}).values())


def test_scattered_wave_is_green_and_red_and_reexecuted(dagster: DagsterUp, machine: CoreMachine) -> None:
    names = [f"wave{number:03d}.tif" for number in range(0, 120, 2)]
    everything = [*names, "bad001.tif", "gone.tif"]
    submit_many(machine, "digest_blob", [*make(*names), *make("bad001.tif"), {"blob_name": "gone.tif"}])
    jobs = settled(dagster, machine, *everything)

    assert Counter(job.outcome for job in jobs) == {
        OutcomeKind.CREATED: len(names),
        OutcomeKind.INVALID: 1,
        OutcomeKind.FAILED: 1,
    }
    assert colours(dagster, everything) == {"MATERIALIZED": len(names), "FAILED": 2}
    (run_id,) = {job.run_id for job in jobs}
    with dagster.instance() as instance:
        run = instance.get_run_by_id(run_id or "")
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert run.tags["geo_assets/outcome"] == f"{len(names)} created, 1 failed, 1 invalid"
    assert "the header is cut off" in reason_on_partition(dagster, "bad001.tif")
    assert "was removed after listing" in reason_on_partition(dagster, "gone.tif")
    # one bad blob is not a reason to run anything again: wait out two ticks and Dagster's own retries
    runs = len(wave_runs(dagster))
    time.sleep(12)
    assert len(wave_runs(dagster)) == runs
    assert {job_of(machine, name).attempts for name in everything} == {1}

    make("gone.tif")  # the operator has put the missing blob back
    before = Counter(executions())
    again = dagster.reexecute(run.run_id, "FROM_FAILURE")
    assert dagster.finished(again) == "FAILURE"  # bad001.tif is still bad
    after = {name: job_of(machine, name) for name in ("gone.tif", "bad001.tif", "wave000.tif")}
    assert {name: (job.status, job.attempts) for name, job in after.items()} == {
        "gone.tif": (JobStatus.COMPLETED, 2),
        "bad001.tif": (JobStatus.FAILED, 2),
        "wave000.tif": (JobStatus.COMPLETED, 1),
    }
    assert {line.split()[1] for line in Counter(executions()) - before} == {"gone.tif", "bad001.tif"}
    assert colours(dagster, everything) == {"MATERIALIZED": len(names) + 1, "FAILED": 1}
    # all steps: again only what is still bad
    again = dagster.reexecute(run.run_id, "ALL_STEPS")
    dagster.finished(again)
    assert job_of(machine, "wave000.tif").attempts == 1


def test_materialize_a_partition_needs_no_typing(dagster: DagsterUp, machine: CoreMachine) -> None:
    make("typed.tif")
    with dagster.instance() as instance:
        instance.add_dynamic_partitions("blobs", ["typed.tif", "%2F broken, key"])
    run_id = dagster.launch("digest_blob", tags={"dagster/partition": "typed.tif"}, asset="blob_digest")
    assert dagster.finished(run_id) == "SUCCESS"
    assert job_of(machine, "typed.tif").status is JobStatus.COMPLETED
    # a partition that was materialized before runs anew when a person asks for it
    run_id = dagster.launch("digest_blob", tags={"dagster/partition": "typed.tif"}, asset="blob_digest")
    assert dagster.finished(run_id) == "SUCCESS"
    job = job_of(machine, "typed.tif")
    assert (job.attempts, job.outcome, job.run_id) == (2, OutcomeKind.UPDATED, run_id)
    # a key that our codec never makes is refused with a reason
    run_id = dagster.launch("digest_blob", tags={"dagster/partition": "%2F broken, key"}, asset="blob_digest")
    assert dagster.finished(run_id) == "FAILURE"


def test_range_of_partitions_is_one_run(dagster: DagsterUp, machine: CoreMachine) -> None:
    names = [f"range{number}.tif" for number in range(5)]
    make(*names)
    with dagster.instance() as instance:
        instance.add_dynamic_partitions("blobs", names)
    run_id = dagster.launch(
        "digest_blob",
        tags={
            "dagster/asset_partition_range_start": "range0.tif",
            "dagster/asset_partition_range_end": "range4.tif",
        },
        asset="blob_digest",
    )
    assert dagster.finished(run_id) == "SUCCESS"
    assert {job_of(machine, name).run_id for name in names} == {run_id}


def test_run_without_partition_says_what_to_do(dagster: DagsterUp) -> None:
    run_id = dagster.launch("digest_blob", asset="blob_digest")
    assert dagster.finished(run_id) == "FAILURE"
    with dagster.instance() as instance:
        failures = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    errors = [record.event_log_entry.get_dagster_event().step_failure_data.error for record in failures]
    assert any(error is not None and "submit_digest_blob" in error.message for error in errors)


def test_submit_job_queues_and_links_the_wave(dagster: DagsterUp, machine: CoreMachine) -> None:
    make("submitted1.tif", "submitted2.tif")
    run_id = dagster.launch(
        "submit_digest_blob",
        config={"ops": {"submit_digest_blob__queue": {"config": {"keys": ["submitted1.tif", "submitted2.tif"]}}}},
    )
    assert dagster.finished(run_id) == "SUCCESS"
    jobs = settled(dagster, machine, "submitted1.tif", "submitted2.tif")
    assert [job.status for job in jobs] == [JobStatus.COMPLETED] * 2
    refused = dagster.launch(
        "submit_digest_blob", config={"ops": {"submit_digest_blob__queue": {"config": {"parameters": {}}}}}
    )
    assert dagster.finished(refused) == "FAILURE"


def test_retry_failed_takes_the_chosen_ones(dagster: DagsterUp, machine: CoreMachine) -> None:
    submit_many(machine, "digest_blob", [{"blob_name": "late.tif"}, *make("bad-for-good.tif")])
    jobs = settled(dagster, machine, "late.tif", "bad-for-good.tif")
    assert [job.status for job in jobs] == [JobStatus.FAILED] * 2
    make("late.tif")
    run_id = dagster.launch(
        "retry_failed",
        config={
            "ops": {"retry_failed__queue": {"config": {"asset": "blob_digest", "reason_contains": "REMOVED after"}}}
        },
    )
    assert dagster.finished(run_id) == "SUCCESS"
    (job,) = settled(dagster, machine, "late.tif")
    assert job.status is JobStatus.COMPLETED
    assert job_of(machine, "bad-for-good.tif").attempts == 1


def test_partly_failed_container_is_green_with_a_warning(dagster: DagsterUp, machine: CoreMachine) -> None:
    folder = sources() / "folder"
    folder.mkdir()
    for name in ("a", "b", "c", "bad1"):
        (folder / name).touch()
    submit(machine, "survey_folder", {"folder": "folder"})
    job = dagster.wait_for(
        "the survey",
        lambda: (j := machine.ledger.jobs()[0]).job_type == "survey_folder" and j.status.is_terminal and j,
    )
    assert dagster.finished(job.run_id) == "FAILURE"
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert dagster.partitions("folder_survey") == {"materialized": 1, "failed": 0, "materializing": 0, "all": 1}
    with dagster.instance() as instance:
        records = instance.get_records_for_run(job.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
        (evaluation,) = [record.event_log_entry.get_dagster_event().event_specific_data for record in records]
        failure = instance.get_records_for_run(job.run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records[-1]
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    error = failure.event_log_entry.get_dagster_event().step_failure_data.error
    assert error is not None
    assert "1 of 4 tasks failed" in error.message


def test_killed_run_worker_is_recovered_exactly_once(dagster: DagsterUp, machine: CoreMachine) -> None:
    runs_before = {run.run_id for run in wave_runs(dagster)}
    params = make("slow-first.tif", *(f"quick{number}.tif" for number in range(8)))
    submit_many(machine, "digest_blob", params)
    job = dagster.wait_for(
        "slow-first.tif at work",
        lambda: "inspect slow-first.tif" in executions() and job_of(machine, "slow-first.tif"),
    )
    dagster.wait_for("the quick ones", lambda: job_of(machine, "quick7.tif").status.is_terminal)
    first_run = job.run_id
    with dagster.instance() as instance:
        record = instance.get_records_for_run(first_run, of_type=dg.DagsterEventType.ENGINE_EVENT).records
        pids = {
            int(str(entry.value))
            for item in record
            for name, entry in (item.event_log_entry.get_dagster_event().engine_event_data.metadata or {}).items()
            if name == "pid"
        }
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    (sources() / "slow-first.tif").write_text("quick now")
    job = dagster.wait_for(
        "the second run",
        lambda: (j := job_of(machine, "slow-first.tif")).run_id not in (None, first_run) and j,
        seconds=90,
    )
    dagster.wait_for("its end", lambda: job_of(machine, "slow-first.tif").status.is_terminal, seconds=120)
    job = job_of(machine, "slow-first.tif")
    assert job.status is JobStatus.COMPLETED
    assert job.attempts == 1, "the same attempt was released, no new one made"
    assert dagster.status(first_run) == "FAILURE"
    assert Counter(executions())["inspect slow-first.tif"] == 2
    assert Counter(executions())["inspect quick7.tif"] == 1, "what was settled before the crash is not done again"
    new_runs = {run.run_id for run in wave_runs(dagster)} - runs_before
    assert len(new_runs) == 2


def test_terminated_run_cancels_its_jobs_within_ten_seconds(dagster: DagsterUp, machine: CoreMachine) -> None:
    submit_many(machine, "digest_blob", make("slow-cancel.tif", "quick-cancel.tif"))
    dagster.wait_for("slow-cancel.tif at work", lambda: "inspect slow-cancel.tif" in executions())
    dagster.wait_for("the quick one", lambda: job_of(machine, "quick-cancel.tif").status.is_terminal)
    run_id = job_of(machine, "slow-cancel.tif").run_id
    assert run_id is not None
    begun = time.monotonic()
    dagster.terminate(run_id)
    assert dagster.finished(run_id, seconds=30) == "CANCELED"
    dagster.wait_for("the cancelled job", lambda: job_of(machine, "slow-cancel.tif").status.is_terminal, seconds=10)
    assert time.monotonic() - begun < 15
    assert job_of(machine, "slow-cancel.tif").status is JobStatus.CANCELLED
    assert job_of(machine, "quick-cancel.tif").status is JobStatus.COMPLETED
    assert "the run was terminated" in reason_on_partition(dagster, "slow-cancel.tif")
