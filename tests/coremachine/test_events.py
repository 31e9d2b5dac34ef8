"""Events in batches: the partitions come out right, and somebody notices when a Dagster upgrade changes the names.

What belongs here: the semi-private corner, on the storages it is used with.  What does not: which events are due
(``test_dispatch``).
"""

from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from geo_assets.coremachine import events

ASSET = "raster/validation"
KEY = dg.AssetKey(["raster", "validation"])
PARTITIONS = dg.DynamicPartitionsDefinition(name="raster_blobs")
NAMES = [f"bronze/tile {number * 37 % 1000:03d}.tif" for number in range(60)]
WHERE = {"job_name": "validate", "step_key": "work[jobs_000000]"}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with the partitions of the tests."""
    overrides = None
    if request.param == "postgresql":
        overrides = {"storage": {"postgres": {"postgres_url": request.getfixturevalue("postgres_url")}}}
    with dg.instance_for_test(overrides=overrides) as opened:
        opened.add_dynamic_partitions("raster_blobs", NAMES)
        yield opened


@pytest.fixture(params=["1000", "7", "0"], ids=["one batch", "several batches", "no batches"])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster writes as many events at once."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", request.param)


def run_of(instance: dg.DagsterInstance, name: str = "run-1") -> dg.DagsterRun:
    return instance.add_run(dg.DagsterRun(job_name="validate", run_id=name, status=dg.DagsterRunStatus.STARTED))


def made(*names: str, asset: str = ASSET) -> list[dg.AssetMaterialization]:
    return [
        dg.AssetMaterialization(
            dg.AssetKey.from_user_string(asset), partition=name, metadata={"n": 1}, tags={"dagster/data_version": "e1"}
        )
        for name in names
    ]


def statuses(instance: dg.DagsterInstance) -> dict[str, AssetPartitionStatus | None]:
    """What the asset's page shows."""
    found = instance.get_status_by_partition(KEY, NAMES, PARTITIONS)
    assert found is not None
    return dict(found)


def test_dagster_still_has_the_names_that_batches_need() -> None:
    assert events.BATCHES_AVAILABLE, (
        "this version of Dagster has changed the names that geo_assets.coremachine.events imports: events are written"
        " one by one and failed partitions stay grey until they are found again"
    )


@pytest.mark.usefixtures("batches")
def test_scattered_partitions_come_out_as_the_work_ended(instance: dg.DagsterInstance) -> None:
    run = run_of(instance)
    planned, good, untouched = NAMES[:50], NAMES[5:45], NAMES[50:]
    events.report_planned(instance, run_id=run.run_id, asset=ASSET, partition_keys=planned, **WHERE)
    assert {name for name, status in statuses(instance).items() if status is AssetPartitionStatus.IN_PROGRESS} == set(
        planned
    )
    events.report_materializations(instance, run_id=run.run_id, materializations=made(*good), **WHERE)
    assert set(instance.get_materialized_partitions(KEY)) == set(good)
    assert events.materialized_in_run(instance, run.run_id, ASSET) == set(good)
    instance.report_run_failed(run)
    shown = statuses(instance)
    assert {name for name in NAMES if shown[name] is AssetPartitionStatus.MATERIALIZED} == set(good)
    assert {name for name in NAMES if shown[name] is AssetPartitionStatus.FAILED} == set(planned) - set(good)
    assert {name for name in NAMES if shown[name] is None} == set(untouched)


@pytest.mark.usefixtures("batches")
def test_a_failed_partition_is_good_again_after_a_later_run(instance: dg.DagsterInstance) -> None:
    first, second = run_of(instance, "run-1"), run_of(instance, "run-2")
    events.report_planned(instance, run_id=first.run_id, asset=ASSET, partition_keys=NAMES[:3], **WHERE)
    instance.report_run_failed(first)
    assert list(statuses(instance).values()).count(AssetPartitionStatus.FAILED) == 3
    events.report_planned(instance, run_id=second.run_id, asset=ASSET, partition_keys=NAMES[:2], **WHERE)
    events.report_materializations(instance, run_id=second.run_id, materializations=made(*NAMES[:2]), **WHERE)
    shown = statuses(instance)
    assert [shown[name] for name in NAMES[:3]] == [
        AssetPartitionStatus.MATERIALIZED,
        AssetPartitionStatus.MATERIALIZED,
        AssetPartitionStatus.FAILED,
    ]


@pytest.mark.usefixtures("batches")
def test_an_event_is_linked_to_its_run_and_step_and_keeps_what_it_says(instance: dg.DagsterInstance) -> None:
    run = run_of(instance)
    events.report_materializations(instance, run_id=run.run_id, materializations=made(NAMES[0]), **WHERE)
    event = instance.get_latest_materialization_event(KEY)
    assert event is not None
    assert (event.run_id, event.step_key, event.job_name) == (run.run_id, WHERE["step_key"], "validate")
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == NAMES[0]
    assert event.asset_materialization.metadata["n"].value == 1
    assert (event.asset_materialization.tags or {})["dagster/data_version"] == "e1"


@pytest.mark.usefixtures("batches")
def test_an_observation_says_why_and_leaves_the_partition_red(instance: dg.DagsterInstance) -> None:
    run = run_of(instance)
    events.report_planned(instance, run_id=run.run_id, asset=ASSET, partition_keys=NAMES[:3], **WHERE)
    observations = [
        dg.AssetObservation(KEY, partition=name, metadata={"geo/reason": "not a TIFF"}) for name in NAMES[:3]
    ]
    events.report_observations(instance, run_id=run.run_id, observations=observations, **WHERE)
    instance.report_run_failed(run)
    found = instance.fetch_observations(KEY, limit=10).records
    assert {(record.run_id, record.partition_key) for record in found} == {(run.run_id, name) for name in NAMES[:3]}
    assert [statuses(instance)[name] for name in NAMES[:3]] == [AssetPartitionStatus.FAILED] * 3


@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # Dagster's own
@pytest.mark.usefixtures("batches")
def test_a_check_that_warns_is_linked_to_its_run(instance: dg.DagsterInstance) -> None:
    run = run_of(instance)
    evaluation = dg.AssetCheckEvaluation(
        asset_key=KEY,
        check_name="all_tasks_succeeded",
        passed=False,
        severity=dg.AssetCheckSeverity.WARN,
        partition=NAMES[0],
    )
    events.report_checks(instance, run_id=run.run_id, evaluations=[evaluation], **WHERE)
    records = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION).records
    (found,) = [record.event_log_entry.dagster_event for record in records]
    assert found is not None
    assert found.asset_check_evaluation_data.passed is False
    assert found.asset_check_evaluation_data.partition == NAMES[0]


def test_nothing_to_report_is_nothing_done(instance: dg.DagsterInstance) -> None:
    run = run_of(instance)
    events.report_planned(instance, run_id=run.run_id, asset=ASSET, partition_keys=[], **WHERE)
    events.report_materializations(instance, run_id=run.run_id, materializations=[], **WHERE)
    events.report_checks(instance, run_id=run.run_id, evaluations=[], **WHERE)
    assert instance.get_records_for_run(run.run_id).records == []


def test_what_a_run_has_written_is_told_by_asset(instance: dg.DagsterInstance) -> None:
    one, other = run_of(instance, "run-1"), run_of(instance, "run-2")
    events.report_materializations(instance, run_id=one.run_id, materializations=made(NAMES[0]), **WHERE)
    events.report_materializations(instance, run_id=one.run_id, materializations=made("x", asset="other"), **WHERE)
    events.report_materializations(instance, run_id=other.run_id, materializations=made(NAMES[1]), **WHERE)
    assert events.materialized_in_run(instance, "run-1", ASSET) == {NAMES[0]}
    assert events.materialized_in_run(instance, "run-2", ASSET) == {NAMES[1]}
    assert events.materialized_in_run(instance, "run-3", ASSET) == set()


def test_without_those_names_everything_works_slower_and_without_plans(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(events, "BATCHES_AVAILABLE", False)
    for name in ("DagsterEvent", "DagsterEventBatchMetadata", "generate_event_batch_id", "StepMaterializationData"):
        monkeypatch.delattr(events, name)
    run = run_of(instance)
    events.report_planned(instance, run_id=run.run_id, asset=ASSET, partition_keys=NAMES[:4], **WHERE)
    assert "failed partitions will look missing" in caplog.text
    events.report_materializations(instance, run_id=run.run_id, materializations=made(*NAMES[:3]), **WHERE)
    observation = dg.AssetObservation(KEY, partition=NAMES[3], metadata={"geo/reason": "not a TIFF"})
    events.report_observations(instance, run_id=run.run_id, observations=[observation], **WHERE)
    assert [record.partition_key for record in instance.fetch_observations(KEY, limit=9).records] == [NAMES[3]]
    evaluation = dg.AssetCheckEvaluation(asset_key=KEY, check_name="all_tasks_succeeded", passed=True)
    events.report_checks(instance, run_id=run.run_id, evaluations=[evaluation], **WHERE)
    assert set(instance.get_materialized_partitions(KEY)) == set(NAMES[:3])
