"""Old runs and events go, and no partition shows anything else than before; a test notices upgrades of Dagster."""

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import AssetObservationData
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from geo_assets.coremachine import events, retention, run_files
from geo_assets.coremachine.retention import History, HistoryPlan, is_available

COG, ITEM = dg.AssetKey(["raster", "cog"]), dg.AssetKey(["raster", "item"])
PARTITIONS = dg.DynamicPartitionsDefinition(name="raster_blobs")
NAMES = [f"bronze/tile {number:02d}.tif" for number in range(8)]
WHERE = {"job_name": "process_raster", "step_key": "work"}
STATUS = dg.DagsterRunStatus
GREEN, RED = AssetPartitionStatus.MATERIALIZED, AssetPartitionStatus.FAILED

# Dagster's own, where it writes an evaluation
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an embedded instance with a history; making one takes longer than copying it."""
    folder = tmp_path_factory.mktemp("lived_in")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(folder)) as opened:
        live(opened)
    return folder


@pytest.fixture
def embedded(lived_in: Path, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An embedded instance with a history."""
    with copied(lived_in, tmp_path / "copy") as opened:
        yield opened


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def instance(request: pytest.FixtureRequest) -> Iterator[dg.DagsterInstance]:
    """An instance with a history, on each storage."""
    if request.param == "sqlite":
        yield request.getfixturevalue("embedded")
        return
    overrides = {"storage": {"postgres": {"postgres_url": request.getfixturevalue("postgres_url")}}}
    with dg.instance_for_test(overrides=overrides) as opened:
        live(opened)
        yield opened


def copied(folder: Path, copy: Path) -> dg.DagsterInstance:
    """An embedded instance of its own with the same history."""
    shutil.copytree(folder, copy)
    return dg.DagsterInstance.from_config(str(copy))


def live(instance: dg.DagsterInstance) -> None:
    """Let runs go by of which partitions show some, and some no more."""
    instance.add_dynamic_partitions("raster_blobs", NAMES)
    run(instance, "all", *NAMES[:6])
    run(instance, "items", *NAMES[:2], key=ITEM)
    run(instance, "some", *NAMES[:3], bad=(NAMES[3], NAMES[6]))
    run(instance, "again", *NAMES[:3], tags={"geo_assets/wave": "wave-1"})
    run(instance, "cancelled", bad=(NAMES[4],), ends=STATUS.CANCELED, tags={"geo_assets/wave": "wave-2"})
    run(instance, "mended", NAMES[3], NAMES[6], bad=(NAMES[4],))
    run(instance, "often-1", NAMES[0])
    run(instance, "parent", NAMES[0])
    run(instance, "at-work", NAMES[0], ends=STATUS.STARTED, parent_run_id="parent", root_run_id="parent")


SHOWN = {
    "all",  # tiles 04 and 05 are green by it
    "items",
    "some",  # why tiles 03 and 06 failed once
    "again",
    "mended",
    "at-work",
}
FREE = ("cancelled", "often-1")


def run(
    instance: dg.DagsterInstance,
    run_id: str,
    *good: str,
    bad: tuple[str, ...] = (),
    key: dg.AssetKey = COG,
    ends: dg.DagsterRunStatus | None = None,
    tags: dict[str, str] | None = None,
    **fields: Any,
) -> None:
    """A wave run: partitions it materialized, those it failed with, and what runs write beside."""
    made = dg.DagsterRun(job_name="process_raster", run_id=run_id, status=STATUS.STARTED, tags=tags or {}, **fields)
    instance.add_run(made)
    instance.report_engine_event("began", made)
    asset = key.to_user_string()
    events.report_planned(instance, run_id=run_id, asset=asset, partition_keys=[*good, *bad], **WHERE)
    done = [dg.AssetMaterialization(key, partition=name, tags={"dagster/data_version": run_id}) for name in good]
    events.report_materializations(instance, run_id=run_id, materializations=done, **WHERE)
    told = [dg.AssetObservation(key, partition=name) for name in bad]
    events.report_observations(instance, run_id=run_id, observations=told, **WHERE)
    checked = [dg.AssetCheckEvaluation(key, "whole", passed=True, metadata={}, partition=name) for name in good]
    events.report_checks(instance, run_id=run_id, evaluations=checked, **WHERE)
    ends = ends or (STATUS.FAILURE if bad else STATUS.SUCCESS)
    if ends is STATUS.FAILURE:
        instance.report_run_failed(made)
    elif ends is STATUS.CANCELED:
        instance.report_run_canceled(made)
    elif ends is STATUS.SUCCESS:
        event = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="process_raster")
        instance.report_dagster_event(event, run_id)


def looks(instance: dg.DagsterInstance) -> dict[str, Any]:
    """All that is shown of partitions: their status, and the ids of the events that everything else is read from."""
    shown: dict[str, Any] = {}
    storage = instance.event_log_storage
    for key in (COG, ITEM):
        shown[f"{key} status"] = dict(instance.get_status_by_partition(key, NAMES, PARTITIONS) or {})
        for kind in ("ASSET_MATERIALIZATION", "ASSET_MATERIALIZATION_PLANNED", "ASSET_OBSERVATION"):
            shown[f"{key} {kind}"] = storage.get_latest_storage_id_by_partition(key, dg.DagsterEventType(kind))
        shown[f"{key} checks"] = {
            (info.partition_key, info.latest_execution_status, info.latest_check_event_storage_id)
            for info in storage.get_asset_check_partition_info([dg.AssetCheckKey(key, "whole")])
        }
    versions = storage.get_latest_tags_by_partition(
        COG, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
    )
    shown["versions"] = {name: dict(tags) for name, tags in versions.items()}
    return shown


def uncached(instance: dg.DagsterInstance) -> None:
    """Let the status be worked out from the events once more."""
    for key in (COG, ITEM):
        if instance.has_asset_key(key):
            instance.event_log_storage.wipe_asset_cached_status(key)


def plan(instance: dg.DagsterInstance, **options: Any) -> tuple[History, HistoryPlan]:
    history = History(instance, pause_seconds=0)
    chosen: dict[str, Any] = {
        "before": datetime.now(UTC) + timedelta(hours=1),
        "needed": (),
        "needed_tags": {},
        "keep_events": 2,
        "at_most": 100,
        **options,
    }
    return history, history.plan(**chosen)


def test_dagster_still_has_the_names_that_retention_needs(embedded: dg.DagsterInstance) -> None:
    assert is_available(embedded), (
        "this version of Dagster has changed the names that geo_assets.coremachine.retention uses: old runs and events"
        " stay until they are found again"
    )
    assert set(run_files.TRIMMED) <= {one.value for one in dg.DagsterEventType}


def test_partitions_show_the_same_when_what_is_not_shown_is_gone(instance: dg.DagsterInstance) -> None:
    assert is_available(instance)
    before = looks(instance)
    history, chosen = plan(instance)
    assert chosen.runs == FREE
    assert chosen.kept == 6
    assert chosen.trimmed == dict.fromkeys(["all", "items", "some", "again", "mended"], 1)
    assert chosen.superseded
    assert chosen.checks
    assert min(chosen.run_bytes, chosen.superseded_bytes, chosen.trimmed_bytes) > 0
    assert looks(instance) == before, "nothing was changed by choosing"
    assert history.carry_out(chosen) == chosen
    assert looks(instance) == before
    assert {one.run_id for one in instance.get_runs()} == SHOWN | {"parent"}
    uncached(instance)
    assert looks(instance) == before
    for run_id in FREE:
        assert not instance.has_run(run_id)
    where = dg.AssetRecordsFilter(asset_key=COG, asset_partitions=[NAMES[0]])
    assert [record.run_id for record in instance.fetch_materializations(where, limit=99).records] == [
        "at-work",
        "parent",
    ], "as many as are to be kept"
    assert {entry.dagster_event_type_value for entry in map(_event, instance.all_logs("mended"))} == {
        "ASSET_MATERIALIZATION_PLANNED",
        "ASSET_MATERIALIZATION",
        "ASSET_OBSERVATION",
        "ASSET_CHECK_EVALUATION",
        "PIPELINE_FAILURE",
    }
    _, left = plan(instance)
    assert (left.runs, left.superseded, left.checks, dict(left.trimmed), left.orphans) == ((), (), (), {}, ())
    assert not left.more
    # and what comes after is shown as ever
    run(instance, "new", NAMES[4], bad=(NAMES[0],))
    status = instance.get_status_by_partition(COG, NAMES, PARTITIONS) or {}
    assert (status[NAMES[4]], status[NAMES[0]]) == (GREEN, RED)


def _event(entry: dg.EventLogEntry) -> Any:
    return SimpleNamespace(dagster_event_type_value=entry.get_dagster_event().event_type_value)


def test_needed_runs_stay_and_so_do_young_ones_and_those_under_way(embedded: dg.DagsterInstance) -> None:
    tags = {"geo_assets/wave": ["wave-1", "wave-2"]}
    _, chosen = plan(embedded, needed={"mended"}, needed_tags=tags)
    assert chosen.runs == ("often-1",)
    assert set(chosen.trimmed) == {"all", "items", "some"}, "what is needed keeps its log"
    _, young = plan(embedded, before=datetime.now(UTC) - timedelta(hours=1))
    assert (young.runs, young.superseded, young.checks, dict(young.trimmed)) == ((), (), (), {})


def test_a_plan_is_bounded_and_the_next_goes_on(embedded: dg.DagsterInstance) -> None:
    taken: list[str] = []
    for more in (True, True, True, True, False):
        history, chosen = plan(embedded, at_most=1)
        assert chosen.more is more, taken
        assert len(chosen.runs) <= 1
        taken += chosen.runs
        history.carry_out(chosen)
    assert tuple(taken) == FREE, "the oldest first"


def test_a_clean_up_that_was_killed_is_finished_by_the_next(
    embedded: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete, left = History._delete, 0

    def dying(self: History, *conditions: Any, where: Any = None) -> None:
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        delete(self, *conditions, where=where)

    monkeypatch.setattr(History, "_delete", dying)
    before = looks(embedded)
    # with the superseded events, then with the superseded checks, a run's events, its checks, its row
    for transactions in (0, 1, 1, 1, 1):
        history, chosen = plan(embedded)
        left = transactions
        with pytest.raises(KeyboardInterrupt):
            history.carry_out(chosen)
        assert looks(embedded) == before
    assert embedded.has_run(FREE[0]), "its row goes last"
    left = 99
    history, rest = plan(embedded)
    history.carry_out(rest)
    assert looks(embedded) == before
    assert {one.run_id for one in embedded.get_runs()} == SHOWN | {"parent"}


def test_two_clean_ups_and_a_run_at_once_do_each_other_no_harm(embedded: dg.DagsterInstance) -> None:
    plans = [plan(embedded) for _ in range(2)]
    failures: list[BaseException] = []

    def attempt(work: Any, *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:  # noqa: BLE001 - seen below
            failures.append(error)

    threads = [threading.Thread(target=attempt, args=(history.carry_out, chosen)) for history, chosen in plans]
    threads.append(threading.Thread(target=attempt, args=(run, embedded, "meanwhile", *NAMES)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {one.run_id for one in embedded.get_runs()} == SHOWN | {"parent", "meanwhile"}
    assert embedded.get_materialized_partitions(COG) == set(NAMES)


def test_step_logs_tags_and_files_of_a_run_go_with_it(embedded: dg.DagsterInstance) -> None:
    manager: Any = embedded.compute_log_manager
    log = Path(manager.get_captured_local_path(manager.build_log_key_for_run("cancelled", "work"), "out"))
    log.parent.mkdir(parents=True)
    log.write_text("said")
    shard = _file_of(embedded, "cancelled")
    assert shard.exists()
    history, chosen = plan(embedded)
    assert chosen.run_bytes >= shard.stat().st_size
    history.carry_out(chosen)
    assert not log.exists()
    assert not shard.exists()
    runs: Any = embedded.run_storage
    with runs.connect() as connection:
        tags = connection.exec_driver_sql("SELECT count(*) FROM run_tags WHERE run_id = 'cancelled'")
        assert tags.scalar() == 0


def test_files_that_dagster_left_when_it_deleted_a_run_go(embedded: dg.DagsterInstance) -> None:
    embedded.delete_run("often-1")
    history, chosen = plan(embedded)
    assert chosen.orphans == (_file_of(embedded, "often-1"),)
    assert chosen.orphan_bytes > 0
    history.carry_out(chosen)
    assert not _file_of(embedded, "often-1").exists()
    assert _file_of(embedded, "all").exists()
    assert _file_of(embedded, "index").exists()


def _file_of(instance: dg.DagsterInstance, run_id: str) -> Path:
    storage: Any = instance.event_log_storage
    return Path(storage.path_for_shard(run_id))


def test_what_no_run_wrote_is_kept_once_and_the_latest_of_it_shown(embedded: dg.DagsterInstance) -> None:
    for number in range(5):
        embedded.report_runless_asset_event(dg.AssetObservation("inbox", description=str(number)))
    run(embedded, "said", NAMES[7])
    embedded.report_dagster_event(
        dg.DagsterEvent(
            event_type_value="ASSET_OBSERVATION",
            job_name="process_raster",
            event_specific_data=AssetObservationData(dg.AssetObservation(COG, description="how it went")),
        ),
        "said",
    )
    history, chosen = plan(embedded)
    assert chosen.runless == 5
    assert history.carry_out(chosen) == chosen
    found = embedded.fetch_observations(dg.AssetKey("inbox"), limit=9).records
    told = [record.event_log_entry.asset_observation for record in found]
    assert [one.description for one in told if one] == ["4", "3"]
    assert len(embedded.fetch_observations(dg.AssetRecordsFilter(COG), limit=1).records) == 1
    assert plan(embedded)[1].runless == 0


def test_a_damaged_file_of_a_run_is_left_alone(embedded: dg.DagsterInstance) -> None:
    _file_of(embedded, "all").write_bytes(b"no database at all, but long enough to be taken for one")
    history, chosen = plan(embedded)
    assert set(chosen.trimmed) == {"items", "some", "again", "mended"}
    assert history.carry_out(chosen) == chosen


def test_it_stops_when_it_is_told_to(embedded: dg.DagsterInstance) -> None:
    history, chosen = plan(embedded)
    done = history.carry_out(chosen, goes_on=lambda: False)
    assert (done.runs, done.superseded, done.checks, dict(done.trimmed)) == ((), (), (), {})
    assert done.more
    assert len(embedded.get_runs()) == 9


def test_a_storage_that_is_not_known_keeps_everything(
    embedded: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "RETENTION_AVAILABLE", False)
    history, chosen = plan(embedded)
    assert chosen == HistoryPlan(known=False)
    assert history.carry_out(chosen) == chosen
    assert "old runs and events stay" in caplog.text
    assert len(embedded.get_runs()) == 9


def test_partitions_that_runs_under_way_name_are_busy(embedded: dg.DagsterInstance) -> None:
    history = History(embedded)
    assert not history.busy().touches(["raster/cog"])
    run(embedded, "one", ends=STATUS.STARTED, tags={"dagster/partition": NAMES[0]})
    run(embedded, "ended", tags={"dagster/partition": NAMES[1]})
    busy = history.busy()
    assert busy.keys == {NAMES[0]}
    assert not busy.touches(["raster/cog"])
    tags = {"dagster/asset_partition_range_start": NAMES[0], "dagster/asset_partition_range_end": NAMES[5]}
    run(embedded, "range", ends=STATUS.STARTED, tags=tags, asset_selection=frozenset([COG]))
    assert history.busy().assets == frozenset(["raster/cog"])
    run(embedded, "unknown-range", ends=STATUS.STARTED, tags=tags)
    assert history.busy().touches(["anything"])
