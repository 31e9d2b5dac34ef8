"""Checks as Dagster has them: run by hand for one partition, in one run for many, and shown by the runs that made them.

What belongs here: definitions, runs and evaluations.  What does not: what the checks find (``tests/checking``).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from geo_assets.build import build_definitions
from geo_assets.checking.catalogue import all_checks
from geo_assets.coremachine import events, postgres_check_batches, sqlite_event_batches
from geo_assets.jobs import load_registry
from geo_assets.settings import get_settings
from tests.raster.rasters import UTM, noise, write

KEYS = ["bronze/a.tif", "bronze/b.tif"]
COG = dg.AssetKey("cog")
MADE_TOGETHER = ("cog", "raster_validation", "raster_stac_item")


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance, with two small rasters to make COGs of."""
    folder = get_settings().blob_root_path / "bronze"
    folder.mkdir(parents=True)
    for key in KEYS:
        write(folder / key.partition("/")[2], noise(40, 40), **UTM)
    with dg.DagsterInstance.ephemeral() as opened:  # files for each run take as long as the runs
        opened.add_dynamic_partitions("raster_blobs", KEYS)
        yield opened


def run(defs: dg.Definitions, instance: dg.DagsterInstance, **how: Any) -> dg.ExecuteInProcessResult:
    """A run as the UI starts it, of assets with their checks, or of checks alone."""
    job = defs.resolve_implicit_global_asset_job_def()
    if "checks" in how:
        keys = {dg.AssetCheckKey(dg.AssetKey(asset), name) for asset, name in how.pop("checks")}
        job = job.get_subset(asset_selection=set(), asset_check_selection=keys)
    with partition_loading_context(dynamic_partitions_store=instance):
        return job.execute_in_process(instance=instance, raise_on_error=False, **how)


def make(defs: dg.Definitions, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": KEYS[0], "dagster/asset_partition_range_end": KEYS[-1]}
    made = run(defs, instance, asset_selection=[COG], tags=tags)
    assert made.success
    return made


def evaluations(instance: dg.DagsterInstance, asset: str, check: str) -> dict[str, tuple[bool, str]]:
    """The latest evaluation of each partition: whether it passed, and its status as the UI shows it."""
    history = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(asset), check), limit=50
    )
    found: dict[str, tuple[bool, str]] = {}
    for record in reversed(history):
        if record.status is AssetCheckExecutionRecordStatus.PLANNED:
            continue
        evaluation = record.evaluation
        assert evaluation is not None
        assert evaluation.partition is not None
        found[evaluation.partition] = (evaluation.passed, record.status.value)
    return found


GOOD = dict.fromkeys(KEYS, (True, "SUCCEEDED"))


def test_every_check_is_defined_with_its_words_and_its_partitions(defs: dg.Definitions) -> None:
    graph = defs.get_repository_def().asset_graph
    checks = all_checks(load_registry(get_settings()))
    for check in checks:
        key = dg.AssetCheckKey(dg.AssetKey(check.asset), check.name)
        spec = graph.get_check_spec(key)
        assert spec.description == check.description
        assert spec.blocking == check.blocking
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def
    blocking = {check.name for check in checks if check.blocking}
    assert blocking == {"raster_valid", "cog_valid", "table_complete"}


def test_what_a_run_proved_is_shown_and_can_be_looked_at_again_one_by_one_or_many_in_one_run(
    defs: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    made = make(defs, instance)
    shown = {
        ("raster_validation", "raster_valid"),
        ("cog", "cog_valid"),
        ("cog", "cog_matches_source"),
        ("raster_stac_item", "item_valid"),
        ("raster_stac_item", "item_hrefs_present"),
    }
    for asset, name in shown:
        assert evaluations(instance, asset, name) == GOOD, (asset, name)
    for record in instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(COG, "cog_valid"), limit=9
    ):
        assert record.run_id == made.run_id

    # Execute check on a partition
    (get_settings().blob_root_path / "silver" / "a_cog.tif").unlink()
    again = run(
        defs,
        instance,
        checks=[("cog", "cog_valid"), *((asset, "all_tasks_succeeded") for asset in MADE_TOGETHER)],
        tags={"dagster/partition": KEYS[0]},
    )
    found = {one.check_name: one for one in again.get_asset_check_evaluations()}
    told = {
        one.asset_key.to_user_string(): (one.passed, one.description)
        for one in again.get_asset_check_evaluations()
        if one.check_name == "all_tasks_succeeded"
    }
    by_another = (True, "made by process_raster, whose tasks are told on the partition of its own job")
    assert told == {"cog": (True, None), "raster_validation": by_another, "raster_stac_item": by_another}
    instance.add_dynamic_partitions("raster_blobs", ["bronze/never.tif"])
    never = run(
        defs,
        instance,
        checks=[("raster_stac_item", "all_tasks_succeeded")],
        tags={"dagster/partition": "bronze/never.tif"},
    )
    (one,) = never.get_asset_check_evaluations()
    assert (one.passed, one.description) == (False, "no job was ever submitted for bronze/never.tif")
    assert not found["cog_valid"].passed
    assert found["cog_valid"].partition == KEYS[0]
    assert found["cog_valid"].description == "silver/a_cog.tif is gone: materialize this partition again"
    assert not again.success  # it blocks
    assert evaluations(instance, "cog", "cog_valid") == {KEYS[0]: (False, "FAILED"), KEYS[1]: (True, "SUCCEEDED")}

    # materialized again, it is well again
    assert run(defs, instance, asset_selection=[COG], partition_key=KEYS[0]).success
    assert evaluations(instance, "cog", "cog_valid") == GOOD

    _look_at_many_in_one_run(defs, instance)


def _look_at_many_in_one_run(defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
    job = defs.resolve_job_def("check_partitions")

    def check(**config: Any) -> dg.ExecuteInProcessResult:
        ops = {"ops": {"check_partitions__look": {"config": config}}}
        return job.execute_in_process(ops, instance=instance, raise_on_error=False)

    good = check(asset="cog", prefix="bronze/")
    assert good.success
    (output,) = [one for one in good.all_events if one.is_successful_output]
    metadata = output.step_output_data.metadata
    assert (metadata["partitions"].value, metadata["looks"].value) == (2, 6)
    assert "| cog_valid | 2 | 0 | 0 | 0 | 2 |" in str(metadata["counts"].value)
    assert evaluations(instance, "cog", "source_present") == GOOD

    # as the schedule has it: some of every asset
    schedule = defs.resolve_schedule_def("check_partitions_daily")
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    (asked,) = schedule.evaluate_tick(dg.build_schedule_context(instance)).run_requests or ()
    some = check(**asked.run_config["ops"]["check_partitions__look"]["config"])
    assert some.success
    (output,) = [one for one in some.all_events if one.is_successful_output]
    # both partitions of the three assets, of the other assets none
    assert output.step_output_data.metadata["partitions"].value == 6
    assert evaluations(instance, "raster_stac_item", "item_within_collection") == GOOD

    (get_settings().blob_root_path / "bronze" / "b.tif").write_bytes(b"no raster")
    bad = check(asset="raster_validation", checks=["raster_valid"])
    assert not bad.success
    (failure,) = [one for one in bad.all_events if one.is_step_failure]
    said = failure.step_failure_data.user_failure_data
    assert said is not None
    assert said.description == "1 of 2 looks at 2 partitions of raster_validation did not go well"
    assert evaluations(instance, "raster_validation", "raster_valid") == {
        KEYS[0]: (True, "SUCCEEDED"), KEYS[1]: (False, "FAILED"),
    }  # fmt: skip

    for wrong, why in (
        ({"asset": "cog", "keys": ["bronze/z.tif"]}, "never materialized, so there is nothing to check: bronze/z.tif"),
        ({"keys": [KEYS[0]]}, "keys and checks are of one asset"),
    ):
        (failure,) = [one for one in check(**wrong).all_events if one.is_step_failure]
        assert why in str(failure.step_failure_data.user_failure_data)


@pytest.mark.parametrize("storage", ["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def test_a_second_evaluation_of_a_run_replaces_its_first(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, storage: str
) -> None:
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "1000")
    for module in (postgres_check_batches, sqlite_event_batches):
        monkeypatch.setattr(module, "_EVENTS_A_TRANSACTION", 2)
    overrides = None
    if storage == "postgresql":
        overrides = {"storage": {"postgres": {"postgres_url": request.getfixturevalue("postgres_url")}}}
    with dg.instance_for_test(overrides=overrides) as opened:
        run_id = opened.add_run(dg.DagsterRun(job_name="j", run_id="1" * 8)).run_id
        for passed in (False, True):
            events.report_checks(
                opened,
                run_id=run_id,
                job_name="j",
                step_key="work",
                evaluations=[
                    dg.AssetCheckEvaluation(
                        asset_key=COG, check_name="cog_valid", passed=passed, partition=f"k{number}"
                    )
                    for number in range(5)
                ],
            )
        history = opened.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(COG, "cog_valid"), limit=1000
        )
        assert len(history) == 5
        assert {record.status.value for record in history} == {"SUCCEEDED"}
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
        assert len(opened.get_records_for_run(run_id, of_type=kind, limit=20).records) == 10
