"""The tick: from the queue to runs, and recovery by the state of runs in Dagster.

What belongs here: what a tick does to ledger and instance.  What does not: real daemons and dying processes
(``tests/integration``).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import dagster as dg
import pytest

from geo_assets.coremachine import dispatch, events
from geo_assets.coremachine.binding import Binding, bind, registry_of
from geo_assets.coremachine.contract import CheckResult, JobStatus, OutcomeKind, Workflow, WorkflowParameters
from geo_assets.coremachine.dispatch import BULK_TAG, WAVE_TAG, RunAsked, Tick
from geo_assets.coremachine.ledger import Attempt, Job, Ledger, Settlement
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import prepare, submit, submit_many
from geo_assets.settings import Settings

RUN_STATUS = dg.DagsterRunStatus
QUEUED, PROCESSING, COMPLETED, FAILED, PARTLY, CANCELLED = (
    JobStatus.QUEUED,
    JobStatus.PROCESSING,
    JobStatus.COMPLETED,
    JobStatus.FAILED,
    JobStatus.COMPLETED_WITH_ERRORS,
    JobStatus.CANCELLED,
)


class Parameters(WorkflowParameters):
    blob_name: str


class Convert(Workflow):
    job_type = "convert"
    Parameters = Parameters
    stages: ClassVar[list[dict[str, Any]]] = [{"number": 1, "name": "read", "task_type": "read"}]
    handlers: ClassVar[dict[str, Callable[..., Any]]] = {"read": lambda params: {"success": True}}
    asset = "converted"
    partition_set = "blobs"
    key_parameter = "blob_name"

    @classmethod
    def create_tasks_for_stage(cls, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return []


KEY = dg.AssetKey(["converted"])


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def binding() -> Binding:
    return bind(Convert)


@pytest.fixture
def machine(ledger: Ledger, binding: Binding) -> CoreMachine:
    return CoreMachine(
        ledger=ledger,
        registry=registry_of([binding]),
        settings=Settings(wave_size=3, waves_at_once=2, interactive_limit=1, max_releases=2),
        services={},
    )


def queue(machine: CoreMachine, *names: str) -> list[Job]:
    """Submit as bulk."""
    params = [{"blob_name": name} for name in names]
    return [answer.job for answer in submit_many(machine, "convert", [*params, params[0]])[: len(names)]]


def start(instance: dg.DagsterInstance, asked: RunAsked, status: RUN_STATUS = RUN_STATUS.STARTED) -> dg.DagsterRun:
    """What the daemon does with a run request."""
    run_id = f"run-of-{asked.run_key}"
    return instance.add_run(dg.DagsterRun(job_name=asked.job_name, run_id=run_id, tags=dict(asked.tags), status=status))


def end(instance: dg.DagsterInstance, run: dg.DagsterRun, status: RUN_STATUS) -> None:
    """The run ends in Dagster, however it got there."""
    stored = instance.get_run_by_id(run.run_id)
    assert stored is not None
    if status is RUN_STATUS.FAILURE:
        instance.report_run_failed(stored)
    elif status is RUN_STATUS.CANCELED:
        instance.report_run_canceled(stored)
    else:
        instance.handle_run_event(
            run.run_id,
            dg.DagsterEvent(event_type_value=dg.DagsterEventType.PIPELINE_SUCCESS.value, job_name=run.job_name),
        )


def one_run(machine: CoreMachine, instance: dg.DagsterInstance) -> tuple[dg.DagsterRun, list[Attempt]]:
    """Tick, start the one run asked for, and let it claim its wave."""
    (asked,) = dispatch.tick(machine, instance).runs
    run = start(instance, asked)
    return run, machine.ledger.claim_wave(asked.run_key, run.run_id)


def settle(
    machine: CoreMachine,
    attempt: Attempt,
    status: JobStatus = COMPLETED,
    outcome: OutcomeKind = OutcomeKind.CREATED,
) -> None:
    assert attempt.run_id
    summary = {"1": {"tasks": 2, "completed": 1, "failed": 1, "outcomes": {}}} if status is PARTLY else {}
    lost = machine.ledger.settle(
        attempt.run_id,
        [Settlement(attempt_id=attempt.attempt_id, status=status, outcome=outcome, stage_results=summary)],
    )
    assert lost == set()


def status_of(machine: CoreMachine, name: str) -> JobStatus:
    job = machine.ledger.latest_job("converted", name, "convert")
    assert job is not None
    return job.status


def materialized(instance: dg.DagsterInstance) -> list[str]:
    """Every materialization written, in order."""
    result = instance.fetch_materializations(KEY, limit=1000, ascending=True)
    return [record.partition_key or "" for record in result.records]


def changes_nothing(machine: CoreMachine, instance: dg.DagsterInstance) -> Tick:
    """Tick, and tick again: the second finds nothing to do."""
    first = dispatch.tick(machine, instance)
    jobs, waves = machine.ledger.jobs(limit=None), machine.ledger.open_waves()
    written, partitions = materialized(instance), set(instance.get_dynamic_partitions("blobs"))
    second = dispatch.tick(machine, instance)
    assert (machine.ledger.jobs(limit=None), machine.ledger.open_waves()) == (jobs, waves)
    assert (materialized(instance), set(instance.get_dynamic_partitions("blobs"))) == (written, partitions)
    assert second.notes == []
    assert second.runs == first.runs
    return first


# --- the way to a run --------------------------------------------------------------------------------------------


def test_an_empty_queue_asks_for_nothing(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    assert dispatch.tick(machine, instance) == Tick()


def test_queued_jobs_become_waves_and_their_partitions_exist(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    queue(machine, *(f"tile {number}.tif" for number in range(8)))
    done = changes_nothing(machine, instance)
    assert len(done.runs) == done.waves_open == 2, "two waves at once, three jobs each"
    for asked in done.runs:
        assert asked.job_name == "convert"
        tags = {WAVE_TAG: asked.run_key, BULK_TAG: "true", "geo_assets/jobs": "3", "dagster/priority": "0"}
        assert asked.tags == tags
    placed = [a.partition_key for asked in done.runs for a in machine.ledger.attempts_of_wave(asked.run_key)]
    assert placed == [f"tile {number}.tif" for number in range(6)]
    assert set(placed) <= set(instance.get_dynamic_partitions("blobs"))


def test_a_run_is_asked_for_until_there_is_one(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif", "b.tif")
    (asked,) = dispatch.tick(machine, instance).runs
    assert dispatch.tick(machine, instance).runs == [asked], "the daemon may have died before it launched it"
    start(instance, asked, RUN_STATUS.NOT_STARTED)
    done = dispatch.tick(machine, instance)
    assert (done.runs, done.waves_open) == ([], 1)


def test_what_is_asked_for_by_hand_is_asked_for_first(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif", "b.tif")
    submit(machine, "convert", {"blob_name": "urgent.tif"})
    first, second = dispatch.tick(machine, instance).runs
    assert [first.tags["dagster/priority"], second.tags["dagster/priority"]] == ["10", "0"]
    assert BULK_TAG not in first.tags
    assert [a.partition_key for a in machine.ledger.attempts_of_wave(first.run_key)] == ["urgent.tif"]


def test_a_tick_for_some_jobs_leaves_the_others_waiting(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    jobs = queue(machine, "a.tif", "b.tif")
    (asked,) = dispatch.tick(machine, instance, only_jobs=jobs[1:]).runs
    assert [a.partition_key for a in machine.ledger.attempts_of_wave(asked.run_key)] == ["b.tif"]


def test_a_wave_of_a_workflow_that_is_not_loaded_here_waits(
    machine: CoreMachine, instance: dg.DagsterInstance, binding: Binding
) -> None:
    queue(machine, "a.tif", "b.tif")
    bare = CoreMachine(ledger=machine.ledger, registry={}, settings=machine.settings, services={})
    done = dispatch.tick(bare, instance)
    assert done.runs == []
    assert "no workflow 'convert' is loaded here" in done.notes[0]
    assert len(dispatch.tick(machine, instance).runs) == 1


def test_a_tick_adds_no_more_partitions_than_its_waves_need(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, *(f"{number}.tif" for number in range(50)))
    dispatch.tick(machine, instance)
    assert len(instance.get_dynamic_partitions("blobs")) == 9


def test_partitions_are_added_a_few_thousand_at_a_time(
    machine: CoreMachine, instance: dg.DagsterInstance, binding: Binding, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = instance.add_dynamic_partitions

    def add_dynamic_partitions(name: str, keys: Sequence[str]) -> None:
        calls.append(len(keys))
        original(name, keys)

    monkeypatch.setattr(instance, "add_dynamic_partitions", add_dynamic_partitions)
    names = [f"{number}.tif" for number in range(12_000)]
    dispatch.add_partitions(instance, binding, [*names, *names[:10]])
    assert calls == [5000, 5000, 2000]
    assert len(instance.get_dynamic_partitions("blobs")) == 12_000


# --- dead runs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [RUN_STATUS.STARTED, RUN_STATUS.NOT_STARTED, RUN_STATUS.CANCELING])
def test_a_run_that_is_alive_is_left_alone(
    machine: CoreMachine, instance: dg.DagsterInstance, status: RUN_STATUS
) -> None:
    queue(machine, "a.tif", "b.tif")
    (asked,) = dispatch.tick(machine, instance).runs
    run = start(instance, asked, status)
    machine.ledger.claim_wave(asked.run_key, run.run_id)
    done = changes_nothing(machine, instance)
    assert (done.runs, done.notes) == ([], [])
    assert status_of(machine, "a.tif") is PROCESSING


@pytest.mark.parametrize("how", ["failed", "unknown", "success"])
def test_what_a_dead_run_left_goes_into_a_new_wave_once(
    machine: CoreMachine, instance: dg.DagsterInstance, how: str
) -> None:
    queue(machine, "a.tif", "b.tif")
    run, (first, _) = one_run(machine, instance)
    settle(machine, first)
    machine.ledger.mark_emitted([first.attempt_id])
    if how == "unknown":
        instance.delete_run(run.run_id)
    else:
        end(instance, run, RUN_STATUS.FAILURE if how == "failed" else RUN_STATUS.SUCCESS)
    done = changes_nothing(machine, instance)
    (asked,) = done.runs
    assert [a.partition_key for a in machine.ledger.attempts_of_wave(asked.run_key)] == ["b.tif"]
    assert f"run {run.run_id}" in done.notes[0]
    assert "1 queued again, 0 given up" in done.notes[0]
    (again,) = machine.ledger.attempts_of_wave(asked.run_key)
    assert again.releases == 1
    assert status_of(machine, "a.tif") is COMPLETED


def test_a_job_that_kills_its_runs_is_given_up(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif")
    for _ in range(3):
        run, held = one_run(machine, instance)
        assert len(held) == 1
        end(instance, run, RUN_STATUS.FAILURE)
    done = changes_nothing(machine, instance)
    assert done.runs == []
    assert "0 queued again, 1 given up" in done.notes[0]
    assert status_of(machine, "a.tif") is FAILED
    assert machine.ledger.open_waves() == []


def test_a_terminated_run_cancels_its_unfinished_jobs(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif", "b.tif")
    run, (first, _) = one_run(machine, instance)
    settle(machine, first)
    machine.ledger.mark_emitted([first.attempt_id])
    end(instance, run, RUN_STATUS.CANCELED)
    done = changes_nothing(machine, instance)
    assert done.runs == []
    assert done.notes == [f"run {run.run_id} was terminated: 1 unfinished jobs are cancelled"]
    assert (status_of(machine, "a.tif"), status_of(machine, "b.tif")) == (COMPLETED, CANCELLED)
    assert machine.ledger.open_waves() == []


def test_a_run_cancelled_while_it_was_still_queued_cancels_its_wave(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    queue(machine, "a.tif", "b.tif")
    (asked,) = dispatch.tick(machine, instance).runs
    run = start(instance, asked, RUN_STATUS.NOT_STARTED)
    end(instance, run, RUN_STATUS.CANCELED)
    done = changes_nothing(machine, instance)
    assert done.runs == []
    assert "2 jobs that no run had claimed are cancelled" in done.notes[0]
    assert status_of(machine, "a.tif") is CANCELLED


def test_a_run_that_fails_before_it_claims_is_tried_again_and_given_up_in_the_end(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    queue(machine, "a.tif")
    for attempt in range(3):
        (asked,) = dispatch.tick(machine, instance).runs
        end(instance, start(instance, asked), RUN_STATUS.FAILURE)
        assert status_of(machine, "a.tif") is QUEUED, attempt
    assert changes_nothing(machine, instance).runs == []
    assert status_of(machine, "a.tif") is FAILED


def test_a_finished_wave_is_closed(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt)
    machine.ledger.mark_emitted([attempt.attempt_id])
    assert dispatch.tick(machine, instance).waves_open == 1
    end(instance, run, RUN_STATUS.SUCCESS)
    assert changes_nothing(machine, instance) == Tick()


def test_a_wave_whose_jobs_were_all_cancelled_is_closed_without_a_run(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    (job,) = queue(machine, "a.tif")
    dispatch.tick(machine, instance)
    machine.ledger.cancel("convert", job.job_id)
    assert changes_nothing(machine, instance) == Tick()


def test_a_re_execution_does_not_stand_for_the_run_that_was_asked_for(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    queue(machine, "a.tif")
    (asked,) = dispatch.tick(machine, instance).runs
    instance.add_run(
        dg.DagsterRun(
            job_name="convert",
            run_id="again",
            tags=dict(asked.tags),
            status=RUN_STATUS.FAILURE,
            parent_run_id="somewhere else",
            root_run_id="somewhere else",
        )
    )
    assert dispatch.tick(machine, instance).runs == [asked]


# --- events ------------------------------------------------------------------------------------------------------


def test_events_that_a_dead_run_owes_are_written_once(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif", "b.tif", "c.tif")
    run, (one, two, three) = one_run(machine, instance)
    settle(machine, one)
    settle(machine, two)
    settle(machine, three, FAILED, OutcomeKind.FAILED)
    # the run wrote the first one's event and died before the ledger knew; it never came to the second
    events.report_materializations(
        instance,
        run_id=run.run_id,
        job_name="convert",
        step_key="",
        materializations=[dg.AssetMaterialization(KEY, partition="a.tif")],
    )
    assert dispatch.tick(machine, instance).notes == [], "the run is alive and does it itself"
    end(instance, run, RUN_STATUS.FAILURE)
    done = changes_nothing(machine, instance)
    assert done.notes == [f"run {run.run_id}: 1 materializations were still to be written"]
    assert materialized(instance) == ["a.tif", "b.tif"]
    (record,) = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=KEY, asset_partitions=["b.tif"]), limit=9
    ).records
    assert record.run_id == run.run_id
    assert record.asset_materialization is not None
    assert record.asset_materialization.metadata["geo/outcome"].value == "created"


def test_checks_that_a_dead_run_owes_are_written_with_its_materializations(
    machine: CoreMachine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Convert, "check_results", lambda _: [CheckResult(check="whole", passed=True)])
    queue(machine, "a.tif", "b.tif")
    run, held = one_run(machine, instance)
    for attempt in held:
        settle(machine, attempt)
    # it died after the first one's materialization, before its check
    where = {"run_id": run.run_id, "job_name": "convert", "step_key": ""}
    materialization = dg.AssetMaterialization(KEY, partition="a.tif")
    events.report_materializations(instance, **where, materializations=[materialization])
    end(instance, run, RUN_STATUS.FAILURE)
    changes_nothing(machine, instance)
    history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(KEY, "whole"), limit=9)
    assert sorted(record.partition or "" for record in history) == ["a.tif", "b.tif"]


def test_a_workflow_that_stumbles_over_what_it_proved_loses_no_materialization(
    machine: CoreMachine,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Convert, "check_results", lambda result: result["no such thing"])
    queue(machine, "a.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt)
    end(instance, run, RUN_STATUS.FAILURE)
    changes_nothing(machine, instance)
    assert materialized(instance) == ["a.tif"]
    assert "Convert.check_results failed" in caplog.text


def test_events_of_a_partition_materialized_by_hand_are_found_too(
    machine: CoreMachine, instance: dg.DagsterInstance, binding: Binding
) -> None:
    # Dagster runs what the asset page materializes in a job of another name
    run = instance.add_run(dg.DagsterRun(job_name="__ASSET_JOB", run_id="by-hand", status=RUN_STATUS.STARTED))
    (mine,), _ = machine.ledger.claim_now([prepare(machine, binding, {"blob_name": "a.tif"})], run.run_id)
    settle(machine, mine)
    end(instance, run, RUN_STATUS.FAILURE)
    changes_nothing(machine, instance)
    assert materialized(instance) == ["a.tif"]


def test_events_of_a_run_that_was_deleted_are_not_owed_any_more(
    machine: CoreMachine, instance: dg.DagsterInstance
) -> None:
    queue(machine, "a.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt)
    instance.delete_run(run.run_id)
    dispatch.tick(machine, instance)
    assert materialized(instance) == []
    assert machine.ledger.unemitted_runs() == []


def test_events_of_a_workflow_that_is_not_loaded_here_wait(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt)
    end(instance, run, RUN_STATUS.SUCCESS)
    bare = CoreMachine(ledger=machine.ledger, registry={}, settings=machine.settings, services={})
    dispatch.tick(bare, instance)
    assert materialized(instance) == []
    dispatch.tick(machine, instance)
    assert materialized(instance) == ["a.tif"]


@pytest.mark.parametrize("outcome", [OutcomeKind.UNCHANGED, OutcomeKind.SKIPPED])
@pytest.mark.parametrize("status", [RUN_STATUS.SUCCESS, RUN_STATUS.FAILURE])
def test_what_found_nothing_to_do_is_materialized_if_it_never_was_or_its_run_failed(
    machine: CoreMachine, instance: dg.DagsterInstance, outcome: OutcomeKind, status: RUN_STATUS
) -> None:
    queue(machine, "known.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt)
    end(instance, run, RUN_STATUS.SUCCESS)
    dispatch.tick(machine, instance)
    assert materialized(instance) == ["known.tif"]
    submit_many(machine, "convert", [{"blob_name": name} for name in ("known.tif", "new.tif")], force=True)
    run, held = one_run(machine, instance)
    for attempt in held:
        settle(machine, attempt, outcome=outcome)
    end(instance, run, status)
    changes_nothing(machine, instance)
    # in a run that fails, a planned partition without an event turns red
    expected = {"new.tif"} if status is RUN_STATUS.SUCCESS else {"new.tif", "known.tif"}
    assert set(materialized(instance)[1:]) == expected
    # and what was written for finding nothing is known from then on
    submit_many(machine, "convert", [{"blob_name": name} for name in ("new.tif", "known.tif")], force=True)
    before = len(materialized(instance))
    run, held = one_run(machine, instance)
    for attempt in held:
        settle(machine, attempt, outcome=outcome)
    end(instance, run, RUN_STATUS.SUCCESS)
    assert changes_nothing(machine, instance).notes == []
    assert len(materialized(instance)) == before


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # Dagster's own
def test_what_is_partly_good_is_materialized_with_a_warning(machine: CoreMachine, instance: dg.DagsterInstance) -> None:
    queue(machine, "a.tif")
    run, (attempt,) = one_run(machine, instance)
    settle(machine, attempt, PARTLY, OutcomeKind.FAILED)
    end(instance, run, RUN_STATUS.FAILURE)
    changes_nothing(machine, instance)
    assert materialized(instance) == ["a.tif"]
    (record,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    event = record.event_log_entry.dagster_event
    assert event is not None
    evaluation = event.asset_check_evaluation_data
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.partition == "a.tif"
    assert evaluation.metadata["geo/failed"].value == 1


# --- interrupted ticks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", ["_recover", "_emit_missing", "_add_partitions"])
def test_a_tick_that_dies_is_made_good_by_the_next(
    machine: CoreMachine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    queue(machine, "a.tif", "b.tif")
    run, (first, _) = one_run(machine, instance)
    settle(machine, first)
    end(instance, run, RUN_STATUS.FAILURE)
    original = getattr(dispatch, after)

    def die(*arguments: Any) -> None:
        original(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dispatch, after, die)
        with pytest.raises(KeyboardInterrupt):
            dispatch.tick(machine, instance)
    (asked,) = changes_nothing(machine, instance).runs
    assert [a.partition_key for a in machine.ledger.attempts_of_wave(asked.run_key)] == ["b.tif"]
    assert materialized(instance) == ["a.tif"]


def test_a_tick_that_dies_after_a_wave_was_assigned_asks_for_its_run_next_time(
    machine: CoreMachine, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue(machine, "a.tif")
    original = machine.ledger.assign_waves

    def die(**arguments: Any) -> None:
        original(**arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(machine.ledger, "assign_waves", die)
        with pytest.raises(KeyboardInterrupt):
            dispatch.tick(machine, instance)
    (wave,) = machine.ledger.open_waves()
    (asked,) = dispatch.tick(machine, instance).runs
    assert asked.run_key == wave.wave_id
