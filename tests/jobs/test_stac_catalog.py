"""``stac_catalog_raster`` and ``stac_catalog_container``: whole jobs, what the catalog holds after, what goes wrong.

What belongs here: parameters, outcomes that add up, idempotence, what vanished, faults.  What does not: the content of
items (``tests/stac``), the two catalogs (``tests/stores``), Dagster (``tests/integration``).
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from geo_assets.coremachine.binding import bind
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, Workflow, check_contract
from geo_assets.coremachine.ledger import Job
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import CatalogUnavailableError, JobNotFoundError, ParameterError
from geo_assets.jobs import stac_catalog_container
from geo_assets.jobs.stac_catalog_container import StacCatalogContainer
from geo_assets.jobs.stac_catalog_raster import StacCatalogRaster
from geo_assets.stac.validation import collection_problems, item_problems
from geo_assets.stores.catalog import ItemOutcome
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.local import LocalBlobStore
from geo_assets.unpublish import execute, plan
from tests.jobs.bench import Bench
from tests.raster.rasters import noise, write
from tests.stac.schemas import extension_problems

SUMMARY_ADDS_UP = ("created", "updated", "unchanged", "skipped", "invalid", "failed", "cancelled", "left_for_later")


def fill(bench: Bench, container: str, *names: str) -> Path:
    """A container of tiny rasters of these names, each its own."""
    folder = bench.containers / container
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write(folder / name, noise(1, 16, 16, seed=number))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def catalogue(bench: Bench, container: str = "scenes", **params: Any) -> Job:
    """Run the bulk job and check that its counts add up."""
    job = bench.run("stac_catalog_container", container_name=container, **params)
    summary = (job.result_data or {}).get("summary")
    if summary:
        assert summary["total_files_found"] == sum(summary[name] for name in SUMMARY_ADDS_UP)
        assert summary["files_processed"] == summary["successful_insertions"] + summary["failed_insertions"]
    return job


def summary_of(job: Job) -> dict[str, int]:
    """The counts that are not zero."""
    summary = (job.result_data or {})["summary"]
    return {name: summary[name] for name in (*SUMMARY_ADDS_UP, "vanished", "pruned") if summary[name]}


def items(bench: Bench, collection: str = "dev") -> dict[str, dict[str, Any]]:
    """The catalog's items by the blob they describe."""
    found = bench.services["catalog"].iter_items(collection)
    return {item["properties"]["geo_assets:blob"]: item for item in found}


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workflow", "asset", "partitions"),
    [
        (StacCatalogRaster, "raster_stac_item", "raster_blobs"),
        (StacCatalogContainer, "container_stac_items", "containers"),
    ],
)
def test_the_contracts_are_complete(workflow: type[Workflow], asset: str, partitions: str) -> None:
    assert check_contract(workflow).complete
    assert (bind(workflow).asset, bind(workflow).partition_set) == (asset, partitions)


@pytest.mark.parametrize(
    ("workflow", "given", "message"),
    [
        (StacCatalogRaster, {"container_name": "c"}, "blob_name is required; all rasters .* stac_catalog_container"),
        (StacCatalogRaster, {"blob_name": "x", "collection_id": None}, "collection_id"),
        (StacCatalogRaster, {"blob_name": "x", "stac_version": "0.9"}, "stac_version"),
        (StacCatalogRaster, {"blob_name": "x", "id_rule": "random"}, "id_rule"),
        (StacCatalogRaster, {"blob_name": "x", "datetime_pattern": "%m"}, "has no year"),
        (StacCatalogContainer, {}, "container_name is required"),
        (StacCatalogContainer, {"container_name": "a/b"}, "container_name cannot be used"),
        (StacCatalogContainer, {"container_name": "c", "extension_filter": ""}, "extension_filter must be an ending"),
        (StacCatalogContainer, {"container_name": "c", "file_limit": 0}, "file_limit must be between 1 and 10000"),
        (StacCatalogContainer, {"container_name": "c", "prune": "yes"}, "prune"),
    ],
)
def test_bad_parameters_are_refused(workflow: type[Workflow], given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        workflow.validate_job_parameters(given)


def test_endings_get_their_dot() -> None:
    params = StacCatalogContainer.validate_job_parameters({"container_name": "c", "extension_filter": "TIF, .tiff"})
    assert params["extension_filter"] == ".tif,.tiff"


# --- one blob ----------------------------------------------------------------------------------------------------


def test_one_raster_is_catalogued(bench: Bench) -> None:
    bench.put("bronze", "landsat_rgb_utm18n.tif")
    job = bench.run("stac_catalog_raster", blob_name="landsat_rgb_utm18n.tif")
    assert (job.status, job.outcome) == (JobStatus.COMPLETED, OutcomeKind.CREATED), job.error_details
    result = job.result_data or {}
    item = bench.services["catalog"].get_item("dev", result["stac"]["item_id"])
    assert not item_problems(item)
    assert not extension_problems(item)
    assert item["id"] == "bronze~landsat_rgb_utm18n.tif"
    assert item["properties"]["geo_assets:etag"] == job.source_version
    assert item["assets"]["data"]["file:checksum"] == f"1220{result['sha256']}"
    assert bench.files("thumbnails") == ["bronze/landsat_rgb_utm18n.tif.webp"]
    metadata = StacCatalogRaster.materialization_metadata(result)
    assert metadata["item_id"] == item["id"]
    assert metadata["pictures"].count("![") == 3
    assert len(json.dumps(metadata)) <= 16_384
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_catalogued_blob_is_not_opened_again(bench: Bench) -> None:
    folder = fill(bench, "bronze", "a.tif")
    bench.run("stac_catalog_raster", blob_name="a.tif")
    before = items(bench)
    job = bench.run("stac_catalog_raster", blob_name="a.tif")
    assert (job.outcome, job.reason) == (OutcomeKind.UNCHANGED, "the catalog has this version of the blob")
    assert items(bench) == before
    write(folder / "a.tif", noise(1, 16, 16, seed=9))
    job = bench.run("stac_catalog_raster", blob_name="a.tif")
    assert job.outcome is OutcomeKind.UPDATED
    after = items(bench)["a.tif"]
    assert after["properties"]["created"] == before["a.tif"]["properties"]["created"]
    assert after["assets"]["data"]["file:checksum"] != before["a.tif"]["assets"]["data"]["file:checksum"]


def test_another_way_of_making_it_makes_it_anew(bench: Bench) -> None:
    fill(bench, "bronze", "scene_20210304.tif")
    bench.run("stac_catalog_raster", blob_name="scene_20210304.tif")
    job = bench.run(
        "stac_catalog_raster", blob_name="scene_20210304.tif", stac_version="1.0.0", datetime_pattern="_%Y%m%d"
    )
    assert job.outcome is OutcomeKind.UPDATED
    item = items(bench)["scene_20210304.tif"]
    assert item["stac_version"] == "1.0.0"
    assert "raster:bands" in item["assets"]["data"]
    assert item["properties"]["datetime"] == "2021-03-04T00:00:00Z"
    assert item["properties"]["geo_assets:datetime_source"] == "name pattern"
    assert not extension_problems(item)


@pytest.mark.parametrize(
    ("name", "code"),
    [("no_crs_float64.tif", "NO_ITEM"), ("rotated_no_crs.tif", "NO_ITEM"), ("text.tif", "FILE_UNREADABLE")],
)
def test_what_cannot_be_catalogued_says_why(bench: Bench, name: str, code: str) -> None:
    folder = fill(bench, "bronze")
    if name == "text.tif":
        (folder / name).write_text("this is no raster")
    else:
        bench.put("bronze", name)
    job = bench.run("stac_catalog_raster", blob_name=name)
    assert (job.status, job.outcome) == (JobStatus.FAILED, OutcomeKind.INVALID)
    assert (job.reason or "").startswith(f"{code}: ")
    assert (job.result_data or {})["error"] == code
    assert bench.files("thumbnails") == []
    assert bench.services["catalog"].list_collections() == []


def test_a_blob_that_is_not_there_fails_with_its_name(bench: Bench) -> None:
    fill(bench, "bronze", "a.tif")
    binding = bind(StacCatalogRaster)
    with pytest.raises(Exception, match=r"gone\.tif"):
        binding.source_version({"blob_name": "gone.tif", "container_name": "bronze"}, bench.services)


# --- a container -------------------------------------------------------------------------------------------------


def test_two_bad_files_of_98_do_not_stop_the_others(bench: Bench) -> None:
    names = [f"{number // 10}/scene {number:02d}.tif" for number in range(98)]
    folder = fill(bench, "scenes", *names)
    whole = (folder / names[17]).read_bytes()
    (folder / names[17]).write_bytes(whole[: len(whole) // 2])
    (folder / names[60]).write_text("no raster")
    job = catalogue(bench)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert summary_of(job) == {"created": 96, "invalid": 2}
    bad = {failure["blob_name"]: failure["error"] for failure in (job.result_data or {})["failures"]}
    assert set(bad) == {names[17], names[60]}
    assert all(error.startswith("FILE_UNREADABLE: ") for error in bad.values())
    assert set(items(bench)) == set(names) - set(bad)
    assert {(news.asset, news.name): news.outcome for news in bench.news} == {
        ("raster_stac_item", f"scenes/{name}"): OutcomeKind.INVALID if name in bad else OutcomeKind.CREATED
        for name in names
    }
    assert not collection_problems(bench.services["catalog"].get_collection("dev"))
    pictured = [news for news in bench.news if news.outcome is OutcomeKind.CREATED]
    assert all(news.metadata["pictures"].count("![") == 3 for news in pictured)
    # the bad ones are looked at again, the others are not
    job = catalogue(bench)
    assert job.status is JobStatus.COMPLETED_WITH_ERRORS
    assert summary_of(job) == {"unchanged": 96, "invalid": 2}


def test_only_what_changed_is_done_again(bench: Bench) -> None:
    folder = fill(bench, "scenes", "a.tif", "b.tif", "c.tif")
    assert summary_of(catalogue(bench)) == {"created": 3}
    before = items(bench)
    job = catalogue(bench)
    assert (job.outcome, summary_of(job)) == (OutcomeKind.UNCHANGED, {"unchanged": 3})
    assert [news.outcome for news in bench.news] == [OutcomeKind.UNCHANGED] * 3
    write(folder / "b.tif", noise(1, 16, 16, seed=77))
    write(folder / "d.tif", noise(1, 16, 16, seed=78))
    assert summary_of(catalogue(bench)) == {"created": 1, "updated": 1, "unchanged": 2}
    after = items(bench)
    assert [name for name in before if before[name] != after[name]] == ["b.tif"]


def test_what_vanished_is_reported_and_with_prune_removed(bench: Bench) -> None:
    folder = fill(bench, "scenes", "keep.tif", "old/gone.tif", "old/stays.tif")
    fill(bench, "others", "keep.tif")
    catalogue(bench)
    catalogue(bench, "others")
    (folder / "old" / "gone.tif").unlink()
    job = catalogue(bench)
    assert summary_of(job) == {"unchanged": 2, "vanished": 1}
    assert (job.result_data or {})["vanished_files"] == ["old/gone.tif"]
    catalogue(bench, collection_id="second")
    assert len(bench.files("thumbnails")) == 4
    assert summary_of(catalogue(bench, prefix="keep")) == {"unchanged": 1}, "what is not looked for has not vanished"
    job = catalogue(bench, prune=True)
    assert (job.outcome, summary_of(job)) == (OutcomeKind.UPDATED, {"unchanged": 2, "vanished": 1, "pruned": 1})
    assert [news.name for news in bench.news if news.removed] == ["scenes/old/gone.tif"]
    left = [item["id"] for item in bench.services["catalog"].iter_items("dev")]
    assert sorted(left) == ["others~keep.tif", "scenes~keep.tif", "scenes~old~stays.tif"]
    assert len(bench.files("thumbnails")) == 3
    assert summary_of(catalogue(bench)) == {"unchanged": 2}


def test_nothing_is_pruned_where_the_whole_container_is_away(bench: Bench) -> None:
    folder = fill(bench, "scenes", "a.tif")
    catalogue(bench)
    (folder / "a.tif").unlink()  # as a disk looks that is not mounted
    job = catalogue(bench, prune=True)
    assert job.status is JobStatus.FAILED
    assert (job.reason or "").startswith("CONTAINER_EMPTY: scenes holds nothing at all")
    assert len(items(bench)) == 1
    (folder / "notes.txt").touch()
    assert summary_of(catalogue(bench, prune=True)) == {"vanished": 1, "pruned": 1}


def test_with_a_limit_nothing_counts_as_vanished(bench: Bench) -> None:
    fill(bench, "scenes", "a.tif", "b.tif", "c.tif")
    catalogue(bench)
    job = catalogue(bench, file_limit=1, prune=True)
    assert (job.result_data or {})["summary"]["vanished"] is None
    assert len(items(bench)) == 3


def test_an_empty_container_is_done_at_once(bench: Bench) -> None:
    fill(bench, "scenes")
    job = catalogue(bench)
    assert (job.status, summary_of(job)) == (JobStatus.COMPLETED, {})


def test_a_missing_container_fails_with_its_name(bench: Bench) -> None:
    bench.containers.mkdir(parents=True)
    job = bench.run("stac_catalog_container", container_name="nowhere")
    assert job.status is JobStatus.FAILED
    assert "nowhere" in (job.error_details or "")


def test_a_container_of_bad_files_only_has_failed(bench: Bench) -> None:
    (fill(bench, "scenes") / "bad.tif").write_text("no raster")
    job = catalogue(bench)
    assert (job.status, summary_of(job)) == (JobStatus.FAILED, {"invalid": 1})


def test_names_that_cannot_be_opened_are_invalid(bench: Bench) -> None:
    folder = fill(bench, "scenes", "good.tif")
    shutil.copy(folder / "good.tif", folder / "line\nbreak.tif")
    job = catalogue(bench)
    assert (job.status, summary_of(job)) == (JobStatus.COMPLETED_WITH_ERRORS, {"created": 1, "invalid": 1})
    (failure,) = (job.result_data or {})["failures"]
    assert "unsupported name" in failure["error"]


def test_ids_are_unambiguous_and_the_legacy_ones_are_refused_where_they_are_not(bench: Bench) -> None:
    fill(bench, "scenes", "a/b.tif", "a-b.tif")
    assert summary_of(catalogue(bench)) == {"created": 2}
    job = catalogue(bench, collection_id="legacy", id_rule="legacy")
    assert summary_of(job) == {"created": 1, "invalid": 1}
    (failure,) = (job.result_data or {})["failures"]
    assert "the id is taken by" in failure["error"] or "claim this id" in failure["error"]


def test_endings_and_prefixes_choose(bench: Bench) -> None:
    fill(bench, "scenes", "in/a.TIF", "in/b.tiff", "out/c.tif")
    (bench.containers / "scenes" / "in" / "notes.txt").write_text("x")
    assert summary_of(catalogue(bench, prefix="in/", extension_filter="tif,tiff")) == {"created": 2}
    assert set(items(bench)) == {"in/a.TIF", "in/b.tiff"}


@pytest.fixture
def small(bench: Bench, tmp_path: Path) -> Bench:
    """A workbench where a task takes several blobs, and a job not many."""
    (tmp_path / "small").mkdir()
    return Bench(tmp_path / "small", bench.services["sandbox"], tasks_a_job_limit=2)


def test_where_there_are_many_a_task_takes_several(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_catalog_container, "_SLICE", 4)
    names = [f"{number:02d}.tif" for number in range(11)]
    folder = fill(small, "scenes", *names)
    for bad in ("03.tif", "09.tif"):
        (folder / bad).write_text("no raster")
    job = catalogue(small)
    assert (job.status, summary_of(job)) == (JobStatus.COMPLETED_WITH_ERRORS, {"created": 9, "invalid": 2})
    assert job.stage_results["2"]["tasks"] == 3
    assert {bad["blob_name"] for bad in (job.result_data or {})["failures"]} == {"03.tif", "09.tif"}
    assert set(items(small)) == set(names) - {"03.tif", "09.tif"}
    told = {news.name: news for news in small.news}
    assert set(told) == {f"scenes/{name}" for name in names}
    assert told["scenes/03.tif"].outcome is OutcomeKind.INVALID
    assert "FILE_UNREADABLE" in (told["scenes/03.tif"].reason or "")
    assert told["scenes/00.tif"].metadata["pictures"].count("![") == 3
    (attempt,) = small.ledger.attempts_of_run("run-1")
    assert not any("pictures" in json.dumps(row.result_data) for row in small.ledger.tasks_of([attempt.attempt_id]))
    for number in range(3):
        write(folder / f"{number:02d}.tif", noise(1, 16, 16, seed=50 + number))
    assert summary_of(catalogue(small)) == {"updated": 3, "unchanged": 6, "invalid": 2}


def test_more_than_a_job_takes_is_left_for_the_next(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_catalog_container, "_MOST_SLICED", 2)
    fill(small, "scenes", "a.tif", "b.tif", "c.tif")
    assert summary_of(catalogue(small)) == {"created": 2, "left_for_later": 1}
    assert summary_of(catalogue(small)) == {"created": 1, "unchanged": 2}


class FlakyWriter(ItemWriter):
    """A catalog that is away now and then."""

    calls = 0

    def write(self, collection_id: str, item: Mapping[str, Any]) -> ItemOutcome:
        self.calls += 1
        if self.calls % 3 == 1:
            raise CatalogUnavailableError("the catalog is away")
        return super().write(collection_id, item)


def test_a_catalog_that_is_away_now_and_then_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "flaky").mkdir()
    flaky = Bench(tmp_path / "flaky", bench.services["sandbox"], task_max_retries=5)
    flaky.services["items"] = FlakyWriter(flaky.services["catalog"])
    names = [f"{number}.tif" for number in range(12)]
    fill(flaky, "scenes", *names)
    assert summary_of(catalogue(flaky)) == {"created": 12}
    assert set(items(flaky)) == set(names)


class ChangingStore(LocalBlobStore):
    """A store whose blob is replaced while it is read, and another one removed."""

    replaced, removed = "replaced.tif", "removed.tif"

    def open_stream(self, container: str, name: str, **options: Any) -> Iterator[bytes]:
        yield from super().open_stream(container, name, **options)
        if name == self.replaced:
            self.put(container, name, b"II*\0 something else")

    def head(self, container: str, name: str) -> Any:
        if name == self.removed and (self.root / container / name).exists():
            self.delete(container, name)
        return super().head(container, name)


def test_blobs_that_change_under_the_job_are_named(tmp_path: Path, shared_sandbox: Sandbox) -> None:
    home = tmp_path / "changing"
    home.mkdir()
    bench = Bench(home, shared_sandbox, services={"blobs": ChangingStore(home / "containers")}, task_max_retries=0)
    fill(bench, "scenes", "good.tif", "replaced.tif", "removed.tif")
    job = catalogue(bench)
    assert summary_of(job) == {"created": 1, "failed": 2}
    errors = {failure["blob_name"]: failure["error"] for failure in (job.result_data or {})["failures"]}
    assert "was replaced while it was being copied" in errors["replaced.tif"]
    assert "removed since the container was listed" in errors["removed.tif"]


def test_the_blob_s_date_is_the_last_resort(bench: Bench) -> None:
    fill(bench, "scenes", "a.tif")
    catalogue(bench)
    properties = items(bench)["a.tif"]["properties"]
    assert properties["geo_assets:datetime_source"] == "blob date"
    assert abs((datetime.now(UTC) - datetime.fromisoformat(properties["datetime"])).total_seconds()) < 300


def test_what_the_bulk_job_made_can_be_taken_back_blob_by_blob(bench: Bench) -> None:
    fill(bench, "scenes", "a.tif", "b.tif")
    catalogue(bench)
    catalogue(bench, collection_id="second")
    wiped: list[tuple[str, list[str]]] = []
    with pytest.raises(JobNotFoundError):
        plan(bench.machine, "raster_stac_item", ["scenes/none.tif"])
    (planned,) = plan(bench.machine, "raster_stac_item", ["scenes/a.tif"])
    assert [(thing.kind, thing.collection) for thing in planned.things] == [
        ("item", "dev"), ("item", "second"), ("blob", "thumbnails"),
    ]  # fmt: skip
    (taken,) = execute(
        bench.machine,
        lambda asset, keys: wiped.append((asset, list(keys))),
        "raster_stac_item",
        ["scenes/a.tif"],
        who="x",
    )
    assert taken.complete
    assert (set(items(bench)), set(items(bench, "second"))) == ({"b.tif"}, {"b.tif"})
    assert bench.files("thumbnails") == ["scenes/b.tif.webp"]
    assert wiped == [("raster_stac_item", ["scenes/a.tif"])]
    assert summary_of(catalogue(bench)) == {"created": 1, "unchanged": 1}
