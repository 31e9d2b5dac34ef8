"""Raster workflows as Dagster runs: which partitions of which assets are green, red and grey afterwards.

What belongs here: what a run says about partitions of other assets than its own.  What does not: the jobs themselves
(``tests/jobs``), how it looks (``tests/browser``).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from geo_assets.definitions import defs
from geo_assets.settings import get_settings
from tests.raster.rasters import noise, real, write

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning"),  # Dagster's own
]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as made:
        yield made


@pytest.fixture
def containers() -> Path:
    return get_settings().blob_root_path


def work_off(instance: dg.DagsterInstance, job_type: str, *params: dict[str, Any]) -> dg.ExecuteInProcessResult:
    """Submit jobs and run their wave in this process."""
    machine: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index]
    submit_many(machine, job_type, params, force=True)
    (asked,) = dispatch.tick(machine, instance).runs
    job = defs.resolve_job_def(asked.job_name)
    return job.execute_in_process(instance=instance, tags=dict(asked.tags), raise_on_error=False)


def colours(instance: dg.DagsterInstance, asset: str) -> dict[str, str]:
    """Partition → green or red, as the partitions page has it."""
    key = dg.AssetKey(asset)
    partitions_def = defs.resolve_asset_graph().get(key).partitions_def
    cached = get_and_update_asset_status_cache_value(instance, key, partitions_def)
    assert cached is not None
    assert partitions_def is not None
    green = cached.deserialize_materialized_partition_subsets(partitions_def).get_partition_keys()
    red = cached.deserialize_failed_partition_subsets(partitions_def).get_partition_keys()
    return dict.fromkeys(green, "green") | dict.fromkeys(red, "red")


def test_process_raster_colours_three_assets(instance: dg.DagsterInstance, containers: Path) -> None:
    (containers / "bronze").mkdir(parents=True)
    for name in ("landsat_rgb_utm18n.tif", "no_crs_float64.tif"):
        shutil.copy(real(name), containers / "bronze")
    result = work_off(
        instance, "process_raster", {"blob_name": "landsat_rgb_utm18n.tif"}, {"blob_name": "no_crs_float64.tif"}
    )
    assert not result.success
    good, bad = "bronze/landsat_rgb_utm18n.tif", "bronze/no_crs_float64.tif"
    assert colours(instance, "cog") == {good: "green", bad: "red"}
    assert colours(instance, "raster_validation") == {good: "green", bad: "red"}
    assert colours(instance, "raster_stac_item") == {good: "green"}
    (record,) = instance.fetch_materializations(dg.AssetKey("raster_stac_item"), limit=5).records
    materialization = record.asset_materialization
    assert materialization is not None
    assert record.run_id == result.run_id
    assert materialization.description == "created by process_raster"
    assert {"geo/thumbnail", "geo/map", "geo/histogram", "geo/pictures"} <= set(materialization.metadata)
    assert materialization.tags is not None
    assert materialization.tags["dagster/data_version"]
    (seen,) = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("raster_validation"), asset_partitions=[bad]), limit=5
    ).records
    assert seen.asset_observation is not None
    assert "CRS_MISSING" in str(seen.asset_observation.metadata["geo/reason"].value)


def test_a_catalogued_container_colours_its_blobs(instance: dg.DagsterInstance, containers: Path) -> None:
    folder = containers / "scenes"
    folder.mkdir(parents=True)
    for number in range(5):
        write(folder / f"{number}.tif", noise(1, 16, 16, seed=number))
    (folder / "bad.tif").write_text("no raster")
    assert not work_off(instance, "stac_catalog_container", {"container_name": "scenes"}).success
    blobs = {f"scenes/{number}.tif": "green" for number in range(5)} | {"scenes/bad.tif": "red"}
    assert colours(instance, "raster_stac_item") == blobs
    assert colours(instance, "container_stac_items") == {"scenes": "green"}
    events = len(instance.fetch_materializations(dg.AssetKey("raster_stac_item"), limit=100).records)

    # mended: green; gone and pruned: grey; unchanged: not said again
    write(folder / "bad.tif", noise(1, 16, 16, seed=9))
    (folder / "0.tif").unlink()
    assert work_off(instance, "stac_catalog_container", {"container_name": "scenes", "prune": True}).success
    del blobs["scenes/0.tif"]
    assert colours(instance, "raster_stac_item") == blobs | {"scenes/bad.tif": "green"}
    # one is new, those of the one that went are no more
    assert len(instance.fetch_materializations(dg.AssetKey("raster_stac_item"), limit=100).records) == events
