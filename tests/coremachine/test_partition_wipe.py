"""Partitions taken back show as never materialized, on the storages Dagster is used with; a test notices upgrades."""

import logging
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from geo_assets.coremachine import events, partition_wipe
from geo_assets.coremachine.partition_wipe import unmaterialize

ASSET = "raster/cog"
KEY = dg.AssetKey(["raster", "cog"])
OTHER = dg.AssetKey(["raster", "item"])
PARTITIONS = dg.DynamicPartitionsDefinition(name="raster_blobs")
NAMES = [f"bronze/tile {number:03d}.tif" for number in range(8)]
WHERE = {"job_name": "process_raster", "step_key": "work"}
GREEN, RED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED
VERSION = "dagster/data_version"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with the partitions of the tests."""
    overrides = None
    if request.param == "postgresql":
        overrides = {"storage": {"postgres": {"postgres_url": request.getfixturevalue("postgres_url")}}}
    with dg.instance_for_test(overrides=overrides) as opened:
        opened.add_dynamic_partitions("raster_blobs", NAMES)
        yield opened


def materialize(
    instance: dg.DagsterInstance, run_id: str, *names: str, key: dg.AssetKey = KEY, failing: tuple[str, ...] = ()
) -> None:
    """A wave run that materializes some partitions and fails with others."""
    run = instance.add_run(dg.DagsterRun(job_name="process_raster", run_id=run_id, status=dg.DagsterRunStatus.STARTED))
    asset = key.to_user_string()
    events.report_planned(instance, run_id=run_id, asset=asset, partition_keys=[*names, *failing], **WHERE)
    made = [dg.AssetMaterialization(key, partition=name, tags={VERSION: f"{run_id}-{name}"}) for name in names]
    events.report_materializations(instance, run_id=run_id, materializations=made, **WHERE)
    told = [dg.AssetObservation(key, partition=name, description="it broke") for name in failing]
    events.report_observations(instance, run_id=run_id, observations=told, **WHERE)
    if failing:
        instance.report_run_failed(run)
    else:
        instance.report_dagster_event(
            dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="process_raster"), run_id
        )


def statuses(instance: dg.DagsterInstance, key: dg.AssetKey = KEY) -> dict[str, AssetPartitionStatus]:
    """What the asset's page shows, from the cache it keeps; partitions that show nothing are left out."""
    found = instance.get_status_by_partition(key, NAMES, PARTITIONS)
    return {name: status for name, status in (found or {}).items() if status is not None}


def notes(instance: dg.DagsterInstance, name: str, key: dg.AssetKey = KEY) -> list[dict[str, Any]]:
    """The metadata of a partition's observations, newest first."""
    found = instance.fetch_observations(dg.AssetRecordsFilter(asset_key=key, asset_partitions=[name]), limit=99)
    observations = [record.event_log_entry.asset_observation for record in found.records]
    return [{label: value.value for label, value in one.metadata.items()} for one in observations if one]


def test_dagster_still_has_the_names_that_a_wipe_needs(instance: dg.DagsterInstance) -> None:
    assert partition_wipe._available(instance.event_log_storage), (
        "this version of Dagster has changed the names that geo_assets.coremachine.partition_wipe uses: partitions that"
        " are taken back stay green until they are found again"
    )
    with pytest.raises(NotImplementedError):  # once Dagster can do it itself, the module can go
        instance.wipe_asset_partitions(KEY, NAMES[:1])


def test_partitions_taken_back_show_nothing_and_the_others_what_they_did(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-1", *NAMES[:5], failing=(NAMES[5], NAMES[6]))
    materialize(instance, "run-2", *NAMES[:5], key=OTHER)
    assert statuses(instance) == dict.fromkeys(NAMES[:5], GREEN) | dict.fromkeys(NAMES[5:7], RED)
    assert unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[1], NAMES[4], NAMES[5], NAMES[7]], who="jane")
    left = {NAMES[0], NAMES[2], NAMES[3]}
    assert instance.get_materialized_partitions(KEY) == left
    assert statuses(instance) == dict.fromkeys(left, GREEN) | {NAMES[6]: RED}
    assert statuses(instance, OTHER) == dict.fromkeys(NAMES[:5], GREEN)
    assert set(instance.get_dynamic_partitions("raster_blobs")) == set(NAMES)


def test_a_partition_taken_back_is_green_again_after_a_new_run(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-1", *NAMES[:2])
    assert statuses(instance) == dict.fromkeys(NAMES[:2], GREEN)
    unmaterialize(instance, asset=ASSET, partition_keys=NAMES[:2], who="jane")
    assert statuses(instance) == {}
    materialize(instance, "run-2", NAMES[0])
    assert statuses(instance) == {NAMES[0]: GREEN}
    materialize(instance, "run-3", failing=(NAMES[1],))
    assert statuses(instance) == {NAMES[0]: GREEN, NAMES[1]: RED}


def test_the_asset_shows_the_latest_materialization_that_is_left(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-1", NAMES[0])
    materialize(instance, "run-2", NAMES[1])
    unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0]], who="jane")
    for gone, shown in ((NAMES[0], NAMES[1]), (NAMES[1], None)):
        unmaterialize(instance, asset=ASSET, partition_keys=[gone], who="jane")
        latest = instance.get_latest_materialization_event(KEY)
        assert (latest.asset_materialization.partition if latest and latest.asset_materialization else None) == shown
    assert instance.has_asset_key(KEY)


def test_data_versions_go_with_the_partition(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-1", *NAMES[:2])
    unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0]], who="jane")
    assert instance.event_log_storage.get_latest_tags_by_partition(
        KEY, dg.DagsterEventType.ASSET_MATERIALIZATION, [VERSION]
    ) == {NAMES[1]: {VERSION: f"run-1-{NAMES[1]}"}}
    assert instance.event_log_storage.get_event_tags_for_asset(KEY) == [{VERSION: f"run-1-{NAMES[1]}"}]


def test_the_history_tells_who_took_it_back_and_why_it_failed_before(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-0", failing=(NAMES[0],))
    materialize(instance, "run-1", *NAMES[:2])
    unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0]], who="jane")
    note, failure = notes(instance, NAMES[0])
    assert (note["geo/state"], note["geo/by"]) == ("unpublished", "jane")
    assert failure == {}
    assert notes(instance, NAMES[1]) == []
    # the page of the run is its log, and still says what the run did
    assert events.materialized_in_run(instance, "run-1", ASSET) == set(NAMES[:2])
    assert len(instance.all_logs("run-1", of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)) == 2


def test_doing_it_twice_changes_nothing(instance: dg.DagsterInstance) -> None:
    materialize(instance, "run-1", *NAMES[:2])
    for _ in range(2):
        assert unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0], NAMES[7]], who="jane")
    assert statuses(instance) == {NAMES[1]: GREEN}
    assert (len(notes(instance, NAMES[0])), notes(instance, NAMES[7])) == (1, [])


def test_killed_after_the_note_it_is_finished_by_the_next_time(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    materialize(instance, "run-1", *NAMES[:2])
    with monkeypatch.context() as killed:
        killed.setattr(partition_wipe, "_take_out", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0]], who="jane")
    assert statuses(instance) == dict.fromkeys(NAMES[:2], GREEN)
    unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0]], who="jane")
    assert statuses(instance) == {NAMES[1]: GREEN}


def test_many_partitions_take_several_statements(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_wipe, "_AT_ONCE", 3)
    materialize(instance, "run-1", *NAMES)
    unmaterialize(instance, asset=ASSET, partition_keys=NAMES[:7], who="jane")
    assert statuses(instance) == {NAMES[7]: GREEN}
    assert len(instance.event_log_storage.get_event_tags_for_asset(KEY)) == 1


def test_an_asset_nobody_ever_materialized_is_no_trouble(instance: dg.DagsterInstance) -> None:
    assert unmaterialize(instance, asset="never", partition_keys=NAMES, who="jane")
    assert not instance.has_asset_key(dg.AssetKey("never"))


def test_a_dagster_with_other_names_gets_a_note_and_a_warning(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    materialize(instance, "run-1", *NAMES[:2])
    monkeypatch.setattr(partition_wipe, "WIPE_AVAILABLE", False)
    with caplog.at_level(logging.WARNING):
        assert not unmaterialize(instance, asset=ASSET, partition_keys=[NAMES[0], NAMES[7]], who="jane")
    assert "stay green" in caplog.text
    assert [note["geo/state"] for note in notes(instance, NAMES[0])] == ["unpublished"]
    assert notes(instance, NAMES[7]) == []
    assert statuses(instance) == dict.fromkeys(NAMES[:2], GREEN)
