"""A process dies at each point of a job's way; afterwards everything is as if it had not."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.submission import submit_many
from geo_assets.definitions import defs as own_defs
from geo_assets.settings import get_settings
from tests.integration import driver
from tests.integration.workflows import executions, sources
from tests.raster.rasters import real

BLOBS = 30


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A real instance on disk, shared with the driver's processes, and a home with sources."""
    monkeypatch.setenv("GEO_ASSETS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    monkeypatch.setenv("GEO_ASSETS_JOB_CHUNK_SIZE", "10")
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    get_settings.cache_clear()
    sources().mkdir(parents=True)
    for number in range(BLOBS):
        (sources() / f"blob{number:02d}.tif").write_text(str(number))
    folder = sources() / "folder"
    folder.mkdir()
    for number in range(BLOBS):
        (folder / f"{'bad' if number == 3 else 'file'}{number:02d}").touch()
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as made:
        yield made


type Drive = Callable[..., int]


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """What forks the driver's processes: loading everything takes longer than most of them live."""
    log = tmp_path_factory.mktemp("drivers") / "log.txt"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.driver"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield process, log
        process.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def drive(drivers: tuple[subprocess.Popen[str], Path]) -> Drive:
    """Run the driver in a process of its own; returns its exit status (-9: it died at the point)."""
    process, log = drivers

    def driven(point: str | None = None, *, location: str = "tests") -> int:
        assert process.stdin is not None
        assert process.stdout is not None
        asked = {"location": location, "point": point, "environment": dict(os.environ)}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer.strip() in ("0", str(-signal.SIGKILL)), log.read_text()[-3000:]
        return int(answer)

    return driven


def notice_the_dead(instance: dg.DagsterInstance) -> int:
    """What Dagster's run monitoring does: mark runs whose process is gone as failed."""
    dead = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING]))
    for run in dead:
        instance.report_run_failed(run)
    return len(dead)


def materializations(instance: dg.DagsterInstance, asset: str) -> Counter[str | None]:
    """Partition → number of materializations."""
    records = instance.fetch_materializations(dg.AssetKey(asset), limit=1000).records
    return Counter(record.partition_key for record in records)


@pytest.mark.parametrize("point", driver.TRAPS)
def test_blob_jobs_survive(instance: dg.DagsterInstance, drive: Drive, point: str) -> None:
    machine = driver.machine()
    names = [f"blob{number:02d}.tif" for number in range(BLOBS)]
    submit_many(machine, "digest_blob", [{"blob_name": name} for name in names])

    assert drive(point) == -signal.SIGKILL, f"the driver did not come to '{point}'"
    notice_the_dead(instance)
    assert drive() == 0

    jobs = machine.ledger.jobs(limit=None)
    assert {job.partition_key: job.status for job in jobs} == dict.fromkeys(names, JobStatus.COMPLETED)
    assert all(job.result_data and len(job.result_data["sha256"]) == 64 for job in jobs)
    # once each, and none without: the catalog cannot tell that anything happened
    assert materializations(instance, "blob_digest") == Counter(names)
    assert set(instance.get_dynamic_partitions("blobs")) == set(names)
    assert machine.ledger.open_waves() == []
    assert machine.ledger.active_run_ids() == []
    if point in ("before settle", "after settle"):
        # what was settled before the crash is not done again
        assert set(Counter(line for line in executions() if line.startswith("digest")).values()) == {1}


@pytest.mark.parametrize("point", ["before plan", "in mid-chunk", "before settle"])
def test_fan_out_jobs_survive(instance: dg.DagsterInstance, drive: Drive, point: str) -> None:
    machine = driver.machine()
    submit_many(machine, "survey_folder", [{"folder": "folder"}])

    assert drive(point) == -signal.SIGKILL, f"the driver did not come to '{point}'"
    notice_the_dead(instance)
    assert drive() == 0

    (job,) = machine.ledger.jobs()
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert job.result_data == {"files": BLOBS, "good": BLOBS - 1}
    assert job.stage_results["2"]["tasks"] == BLOBS
    assert materializations(instance, "folder_survey") == Counter(["folder"])
    assert machine.ledger.open_waves() == []


RASTER = "landsat_rgb_utm18n.tif"
PARAMETERS = {"blob_name": RASTER, "tiers": ["analysis", "archive"]}


def left_in_stores() -> dict[str, str]:
    """Every blob that was made, and the items, with what they hold."""
    home = get_settings().home_path
    files = [path for name in ("silver", "thumbnails") for path in (home / "containers" / name).rglob("*")]
    left = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(home).parts)
    }
    for path in (home / "catalog" / "cogs" / "items").glob("*.json"):
        item = json.loads(path.read_text())
        assert item["assets"]["data"]["file:checksum"] == f"1220{left[item['assets']['data']['title']]}"
        left[path.name] = item["id"]
    return left


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # Dagster's own
@pytest.mark.parametrize("point", driver.RASTER_TRAPS)
def test_a_raster_survives(instance: dg.DagsterInstance, drive: Drive, point: str) -> None:
    machine = driver.machine(own_defs)
    source = get_settings().blob_root_path / "bronze" / RASTER
    source.parent.mkdir(parents=True)
    shutil.copy(real(RASTER), source)
    submit_many(machine, "process_raster", [PARAMETERS])

    assert drive(point, location="own") == -signal.SIGKILL, f"the driver did not come to '{point}'"
    stem = RASTER.removesuffix(".tif")
    whole = {f"{stem}_cog.tif", f"{stem}_cog_archive.tif", f"{stem}_cog.tif.webp", f"silver~{stem}_cog.tif.json"}
    before = left_in_stores()
    assert set(before) <= whole, "whatever is seen is whole and has its name"
    notice_the_dead(instance)
    assert drive(location="own") == 0

    (job,) = machine.ledger.jobs()
    assert job.status is JobStatus.COMPLETED, job.error_details
    after = left_in_stores()
    assert set(after) == whole
    assert {name: after[name] for name in before} == before, "made again, it is the same"
    for asset in ("cog", "raster_validation", "raster_stac_item"):
        assert set(materializations(instance, asset)) == {f"bronze/{RASTER}"}
    collection = json.loads((get_settings().catalog_path / "cogs" / "collection.json").read_text())
    assert [link["href"] for link in collection["links"] if link["rel"] == "item"] == [
        f"./items/silver~{stem}_cog.tif.json"
    ]
    assert not list(get_settings().scratch_path.iterdir()), "what the dead process left is swept"
