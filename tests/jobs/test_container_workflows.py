"""``list_container_contents`` and ``summarize_container``: parameters, ids, tasks, handlers and results.

What belongs here: the two contracts, run stage by stage without the engine, on made-up and on real files.  What does
not: waves and Dagster (``tests/integration``).
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from geo_assets.containers.listing import read_listing
from geo_assets.containers.listing_store import open_listing_store
from geo_assets.coremachine.contract import (
    JobExecutionContext,
    OutcomeKind,
    TaskContext,
    TaskResult,
    TaskStatus,
    Workflow,
    check_contract,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.task_outcome import TaskOutcome, execute
from geo_assets.errors import ContainerNotFoundError, ParameterError, ThrottledError
from geo_assets.jobs import list_container_contents
from geo_assets.jobs.list_container_contents import ListContainerContents
from geo_assets.jobs.summarize_container import SummarizeContainer
from geo_assets.settings import get_settings
from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.blobs import BlobProperties, BlobStore
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.memory import MemoryBlobStore
from tests.containers.generated import Blob, GeneratedStore
from tests.services.found import REPOSITORY

if TYPE_CHECKING:
    from tests.conftest import Azurite

OURS = {
    "kinds", "size_distribution", "largest_files", "oldest", "newest", "datasets", "changes", "removed_sample",
    "duplicates", "formats", "format_mismatches",
}  # fmt: skip
"""Fields of the listing's summary that the original has not."""
REAL_FILES = REPOSITORY.parent / "shared" / "data"
BOTH = pytest.mark.parametrize("workflow", [ListContainerContents, SummarizeContainer])


@pytest.fixture
def store() -> MemoryBlobStore:
    made = MemoryBlobStore()
    made.create_container("c")
    return made


class Run:
    """One job run stage by stage, each task once, by the same calls the engine makes."""

    def __init__(self, workflow: type[Workflow], store: BlobStore, **given: Any) -> None:
        self.workflow = workflow
        self.params = json.loads(json.dumps(workflow.validate_job_parameters(given)))
        self.job_id = workflow.generate_job_id(self.params)
        self.listings = open_listing_store(get_settings())
        self.services = {"blobs": store, "listings": self.listings, "settings": get_settings()}
        self.results: list[TaskResult] = []
        self.outcomes: list[list[TaskOutcome]] = []
        self.tasks: list[list[dict[str, Any]]] = []

    def stage(self, number: int) -> list[TaskOutcome]:
        previous = None
        if number > 1:
            previous = [outcome.result_data for outcome in self.outcomes[number - 2] if outcome.kind.is_good]
        tasks = self.workflow.create_tasks_for_stage(number, self.params, self.job_id, previous)
        assert len({task["task_id"] for task in tasks}) == len(tasks)
        outcomes = [self._execute(task, number, index) for index, task in enumerate(tasks)]
        self.tasks.append(tasks)
        self.outcomes.append(outcomes)
        return outcomes

    def _execute(self, task: dict[str, Any], stage: int, index: int) -> TaskOutcome:
        context = TaskContext(
            job_id=self.job_id, job_type=self.workflow.job_type, task_id=task["task_id"], stage=stage,
            task_index=index, attempt=1, services=self.services,
        )  # fmt: skip
        handler = self.workflow.handlers[task["task_type"]]
        outcome = execute(handler, json.loads(json.dumps(task["parameters"])), context)
        self.results.append(
            TaskResult(
                task_id=task["task_id"],
                task_type=task["task_type"],
                status=TaskStatus.COMPLETED if outcome.kind.is_good else TaskStatus.FAILED,
                result_data=outcome.result_data,
                error_details=outcome.error or outcome.reason,
                timestamp=datetime.now(UTC),
                stage=stage,
                task_index=index,
            )
        )
        return outcome

    def aggregate(self) -> dict[str, Any]:
        total = len(self.workflow.stages)
        context = JobExecutionContext(
            job_id=self.job_id, job_type=self.workflow.job_type, current_stage=total, total_stages=total,
            parameters=self.params, task_results=self.results,
        )  # fmt: skip
        result = self.workflow.aggregate_job_results(context)
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        metadata = self.workflow.materialization_metadata(result)
        assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata
        return result

    def run(self) -> dict[str, Any]:
        for number in range(1, len(self.workflow.stages) + 1):
            self.stage(number)
        return self.aggregate()


# --- the contract ------------------------------------------------------------------------------------------------


@BOTH
def test_the_contract_is_complete(workflow: type[Workflow]) -> None:
    assert check_contract(workflow).complete


def test_stages_are_the_originals() -> None:
    stages = [*ListContainerContents.stages, *SummarizeContainer.stages]
    assert [{key: value for key, value in stage.items() if key != "description"} for stage in stages] == [
        {"number": 1, "name": "list_blobs", "task_type": "list_container_blobs", "parallelism": "single"},
        {"number": 2, "name": "analyze_blobs", "task_type": "analyze_single_blob", "parallelism": "fan_out"},
        {"number": 1, "name": "analyze_container", "task_type": "container_summary_task"},
    ]


@pytest.mark.parametrize(
    ("given", "hashed"),
    [
        ({"container_name": "c"}, '{"container_name": "c", "file_limit": null, "filter": {}}'),
        ({"container_name": " c "}, '{"container_name": "c", "file_limit": null, "filter": {}}'),
        ({"container_name": "c", "filter": None}, '{"container_name": "c", "file_limit": null, "filter": {}}'),
        (
            {"filter": {"prefix": "é", "extensions": ["TIF"]}, "file_limit": "10", "container_name": "c"},
            '{"container_name": "c", "file_limit": 10, "filter": {"extensions": ["TIF"], "prefix": "\\u00e9"}}',
        ),
        ({"container_name": "c", "file_limit": 2.9}, '{"container_name": "c", "file_limit": 2, "filter": {}}'),
        ({"container_name": "c", "dataset_id": "d"}, '{"container_name": "c", "file_limit": null, "filter": {}}'),
    ],
)
def test_the_listings_job_id_hashes_all_parameters_with_defaults(given: dict[str, Any], hashed: str) -> None:
    params = ListContainerContents.validate_job_parameters(given)
    assert ListContainerContents.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()


@pytest.mark.parametrize(
    ("given", "hashed"),
    [
        ({"container_name": "c"}, '{"container_name": "c"}'),
        ({"container_name": " c"}, '{"container_name": " c"}'),
        ({"container_name": "c", "filter": None}, '{"container_name": "c"}'),
        ({"container_name": "c", "filter": {}}, '{"container_name": "c", "filter": {}}'),
        (
            {"filter": {"min_size_mb": 1}, "file_limit": 100_000, "container_name": "c"},
            '{"container_name": "c", "file_limit": 100000, "filter": {"min_size_mb": 1}}',
        ),
        ({"container_name": "c", "system": False, "use_service_bus": False}, '{"container_name": "c"}'),
    ],
)
def test_the_summarys_job_id_hashes_exactly_what_was_given(given: dict[str, Any], hashed: str) -> None:
    params = SummarizeContainer.validate_job_parameters(given)
    assert SummarizeContainer.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "container_name is required"),
        ({"container_name": None}, "container_name is required"),
        ({"container_name": "  "}, "container_name is required"),
        ({"container_name": 5}, "container_name must be a string, got int"),
        ({"container_name": "a/b"}, "container_name cannot be used: unsupported container name: 'a/b'"),
        ({"container_name": ".."}, "container_name cannot be used"),
        ({"container_name": "c", "file_limit": 0}, "file_limit must be between 1 and 10000, got 0"),
        ({"container_name": "c", "file_limit": 10001}, "file_limit must be between 1 and 10000, got 10001"),
        ({"container_name": "c", "file_limit": "many"}, "file_limit must be an integer, got str"),
        ({"container_name": "c", "file_limit": [1]}, "file_limit must be an integer, got list"),
        ({"container_name": "c", "filter": "x"}, "filter must be a dictionary"),
        ({"container_name": "c", "filter": {"prefix": 1}}, "filter.prefix must be a string"),
        ({"container_name": "c", "filter": {"extensions": "tif"}}, "filter.extensions must be a list"),
        ({"container_name": "c", "filter": {"min_size_mb": "1"}}, "filter.min_size_mb must be a number"),
        ({"container_name": "c", "filter": {"modified_after": "soon"}}, "filter.modified_after must be an ISO 8601"),
        (
            {"container_name": "c", "limit": 5},
            "unknown parameter 'limit'; it takes: container_name, file_limit, filter, detail, magic",
        ),
    ],
)
def test_the_listing_refuses_in_the_originals_words(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ListContainerContents.validate_job_parameters(given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Missing required parameter: container_name"),
        ({"container_name": None}, "container_name must be a non-empty string"),
        ({"container_name": ""}, "container_name must be a non-empty string"),
        ({"container_name": 5}, "container_name must be a non-empty string"),
        ({"container_name": "c", "file_limit": None}, "file_limit must be a positive integer"),
        ({"container_name": "c", "file_limit": 0}, "file_limit must be a positive integer"),
        ({"container_name": "c", "file_limit": "5"}, "file_limit must be a positive integer"),
        ({"container_name": "c", "filter": []}, "filter must be a dictionary"),
        ({"container_name": "c", "filter": {"extensions": "tif"}}, "filter.extensions must be a list"),
        ({"container_name": "c", "filter": {"max_size_mb": "1"}}, "filter.max_size_mb must be a number"),
        ({"container_name": "c", "filter": {"modified_before": "1.1."}}, "filter.modified_before must be an ISO 8601"),
        ({"container_name": "c", "colour": "red"}, "unknown parameter 'colour'"),
    ],
)
def test_the_summary_refuses_in_the_originals_words(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        SummarizeContainer.validate_job_parameters(given)
    assert message in str(caught.value)


def test_task_ids_are_the_originals(store: MemoryBlobStore) -> None:
    store.put("c", "a b.tif", b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.run()
    assert run.tasks[0][0]["task_id"] == task_id(run.job_id, 1, "list")
    assert run.tasks[1][0]["task_id"] == task_id(run.job_id, 2, "a b.tif")
    summary = Run(SummarizeContainer, store, container_name="c")
    summary.run()
    assert summary.tasks[0][0]["task_id"] == f"{summary.job_id[:8]}-s1-summary"
    assert summary.tasks[0][0]["parameters"] == {"container_name": "c", "file_limit": None, "filter": None}


@BOTH
def test_a_stage_beyond_the_last_has_no_tasks(workflow: type[Workflow]) -> None:
    assert workflow.create_tasks_for_stage(3, {"container_name": "c"}, "0" * 64, [{"success": True}]) == []


def test_stage_two_wants_the_listing() -> None:
    for previous in (None, [], [{"success": False}]):
        with pytest.raises(ValueError, match="Stage 2 requires Stage 1 results"):
            ListContainerContents.create_tasks_for_stage(2, {"container_name": "c"}, "0" * 64, previous)


@BOTH
def test_containers_are_found_by_prefix(workflow: type[Workflow], store: MemoryBlobStore) -> None:
    for name in ("bronze-a", "bronze-b", "gold"):
        store.create_container(name)
    assert list(workflow.keys_with_prefix("bronze", {"blobs": store})) == ["bronze-a", "bronze-b"]
    assert workflow.parameters_for_partition("gold") == {"container_name": "gold"}


@BOTH
def test_the_age_of_an_answer_is_a_setting(workflow: type[Workflow], monkeypatch: pytest.MonkeyPatch) -> None:
    assert workflow.max_age_seconds() == 0
    monkeypatch.setenv("GEO_ASSETS_LISTING_MAX_AGE", "60")
    get_settings.cache_clear()
    assert workflow.max_age_seconds() == 60


# --- listing ------------------------------------------------------------------------------------------------------


def test_a_listing_has_the_fields_of_the_original(store: MemoryBlobStore) -> None:
    store.put("c", "dir/a.TIF", b"x" * 2_097_152, content_type="image/tiff", metadata={"tier": "bronze"})
    store.put("c", "b.tif", b"")
    store.put("c", "readme", b"hi")
    run = Run(ListContainerContents, store, container_name="c", file_limit=10, filter={"max_size_mb": 100})
    (listed,) = run.stage(1)
    found = listed.result_data["result"]
    assert found["blob_names"] == ["b.tif", "dir/a.TIF", "readme"]
    assert (found["total_count"], found["unsupported_count"], found["changes"]) == (3, 0, None)
    assert found["execution_info"]["blobs_filtered"] == 0
    assert read_listing(run.listings, "c", run.job_id)["name"].to_list() == found["blob_names"]
    run.stage(2)
    result = run.aggregate()
    assert {name: value for name, value in result["summary"].items() if name not in OURS} == {
        "total_blobs_found": 3,
        "blobs_analyzed": 3,
        "successful_analyses": 3,
        "failed_analyses": 0,
        "invalid_names": 0,
        "pending_analyses": 0,
        "success_rate": "100.0%",
        "replaced_since_listing": 0,
        "total_size_bytes": 2_097_154,
        "total_size_gb": 0.002,
        "total_size_mb": 2.0,
        "file_types": {"tif": 2, "no_extension": 1},
        "unique_extensions": 2,
        "largest_file": {"name": "dir/a.TIF", "size_mb": 2.0},
        "errors_sample": [],
        "unsupported_names": [],
    }
    assert result["filter"] == {"max_size_mb": 100}
    assert (result["job_type"], result["container_name"], result["file_limit"]) == (run.workflow.job_type, "c", 10)
    assert (result["stages_completed"], result["total_tasks_executed"]) == (2, 4)
    assert result["tasks_by_status"] == {"completed": 4, "failed": 0, "pending": 0}


def test_the_limit_counts_after_filtering(store: MemoryBlobStore) -> None:
    for number in range(30):
        store.put("c", f"{number:02d}.{'tif' if number >= 20 else 'txt'}", b"x")
    result = Run(ListContainerContents, store, container_name="c", file_limit=5, filter={"extensions": [".tif"]}).run()
    assert result["summary"]["total_blobs_found"] == 5
    assert result["summary"]["file_types"] == {"tif": 5}


@pytest.mark.parametrize("after", ["2020-01-01", "2020-01-01T00:00:00", "2020-01-01T00:00:00+02:00"])
@BOTH
def test_dates_with_and_without_a_time_zone_work(workflow: type[Workflow], after: str, store: MemoryBlobStore) -> None:
    store.put("c", "a.tif", b"x")
    result = Run(workflow, store, container_name="c", filter={"modified_after": after}).run()
    summary = result["summary"]
    assert summary.get("total_blobs_found", summary.get("total_files")) == 1


def test_a_gdb_folder_is_one_dataset_that_analyses_well(store: MemoryBlobStore) -> None:
    for number in range(3):
        store.put("c", f"data/roads.gdb/a{number}", b"xy")
    run = Run(ListContainerContents, store, container_name="c")
    result = run.run()
    assert result["summary"]["successful_analyses"] == result["summary"]["total_blobs_found"] == 1
    found = run.outcomes[1][0].result_data["result"]
    assert (found["blob_name"], found["size_bytes"]) == ("data/roads.gdb", 6)
    assert found["metadata"] == {"type": "geodatabase", "file_count": 3}


def test_a_blob_named_as_a_dataset_does_not_make_two_tasks(store: MemoryBlobStore) -> None:
    store.put("c", "x.gdb", b"")
    store.put("c", "x.gdb/1", b"xy")
    result = Run(ListContainerContents, store, container_name="c").run()
    assert result["summary"]["total_blobs_found"] == result["summary"]["successful_analyses"] == 1
    assert result["summary"]["total_size_bytes"] == 2


def test_a_blob_removed_since_the_listing_has_failed(store: MemoryBlobStore) -> None:
    for name in ("a.tif", "b.tif"):
        store.put("c", name, b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    store.delete("c", "a.tif")
    gone, kept = run.stage(2)
    assert (gone.kind, gone.transient, kept.kind) == (OutcomeKind.FAILED, False, OutcomeKind.CREATED)
    assert "removed since the container was listed" in str(gone.error)
    assert (gone.result_data["blob_name"], gone.result_data["container_name"]) == ("a.tif", "c")
    summary = run.aggregate()["summary"]
    assert (summary["successful_analyses"], summary["failed_analyses"], summary["success_rate"]) == (1, 1, "50.0%")
    (sample,) = summary["errors_sample"]
    assert sample["task_id"] == f"{run.tasks[1][0]['task_id']}..."
    assert "'c/a.tif'" in sample["error"]


def test_a_blob_replaced_since_the_listing_says_so(store: MemoryBlobStore) -> None:
    for name in ("a.tif", "b.tif"):
        store.put("c", name, b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    store.put("c", "a.tif", b"other")
    outcomes = run.stage(2)
    assert [outcome.result_data["result"]["replaced_since_listing"] for outcome in outcomes] == [True, False]
    assert run.aggregate()["summary"]["replaced_since_listing"] == 1


def test_names_that_cannot_be_opened_are_invalid_and_the_counts_add_up(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.create_container("c")
    folder = tmp_path / "blobs" / "c"
    # the printable form of the first is the name of the second
    for name in ("new\nline", "new\\nline", "name#1", "good.tif", "gone.tif"):
        (folder / name).write_bytes(b"x")
    run = Run(ListContainerContents, store, container_name="c")
    (listed,) = run.stage(1)
    assert listed.result_data["result"]["unsupported_count"] == 2
    (folder / "gone.tif").unlink()
    outcomes = run.stage(2)
    assert sorted(outcome.kind for outcome in outcomes) == ["created", "created", "failed", "invalid", "invalid"]
    reasons = [outcome.reason for outcome in outcomes if outcome.kind is OutcomeKind.INVALID]
    assert all(str(reason).startswith("unsupported name: ") for reason in reasons)
    summary = run.aggregate()["summary"]
    assert summary["total_blobs_found"] == 5
    assert (summary["successful_analyses"], summary["invalid_names"], summary["failed_analyses"]) == (2, 2, 1)
    assert len(summary["unsupported_names"]) == 2


def test_an_empty_container_lists_nothing_and_analyses_nothing(store: MemoryBlobStore) -> None:
    run = Run(ListContainerContents, store, container_name="c")
    result = run.run()
    assert run.tasks[1] == []
    assert result["summary"]["success_rate"] == "0.0%"
    assert result["summary"]["largest_file"] is None


@BOTH
def test_a_missing_container_is_a_permanent_failure(workflow: type[Workflow], store: MemoryBlobStore) -> None:
    run = Run(workflow, store, container_name="nowhere")
    (outcome,) = run.stage(1)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, False)
    assert ContainerNotFoundError.__name__ in str(outcome.error)
    assert "nowhere" in str(outcome.error)
    result = run.aggregate()
    if workflow is SummarizeContainer:
        assert result["success"] is False
        assert "nowhere" in result["error"]


def test_a_throttled_store_is_transient() -> None:
    class Throttled(MemoryBlobStore):
        def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
            raise ThrottledError("the storage account asks to slow down")

    store = Throttled()
    store.create_container("c")
    store.put("c", "a.tif", b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    (outcome,) = run.stage(2)
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, True)


def test_pending_tasks_are_counted(store: MemoryBlobStore) -> None:
    for name in ("a", "b"):
        store.put("c", name, b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    run.stage(2)
    run.results[-1] = run.results[-1].model_copy(update={"status": TaskStatus.PENDING, "result_data": {}})
    result = run.aggregate()
    assert result["summary"]["pending_analyses"] == 1
    assert result["tasks_by_status"] == {"completed": 2, "failed": 0, "pending": 1}


def test_the_next_listing_tells_what_changed(store: MemoryBlobStore) -> None:
    for name in ("same", "grown", "gone"):
        store.put("c", name, b"x")
    first = Run(ListContainerContents, store, container_name="c").run()
    store.put("c", "grown", b"xx")
    store.put("c", "new", b"x")
    store.delete("c", "gone")
    second = Run(ListContainerContents, store, container_name="c").run()
    assert first["changes"] is None
    assert second["changes"] == {"added": 1, "changed": 1, "removed": 1, "unchanged": 1}


class Counting(MemoryBlobStore):
    """Counts requests about single blobs."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []
        self.create_container("c")

    def head(self, container: str, name: str) -> BlobProperties:
        self.requests.append(f"head {name}")
        return super().head(container, name)

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        self.requests.append(f"{length} of {name}")
        return super().read_start(container, name, length)


@pytest.mark.parametrize("limit", ["50000", "0"])
def test_only_rasters_and_vectors_take_a_request(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_TASKS_A_JOB_LIMIT", limit)
    get_settings.cache_clear()
    store = Counting()
    for name in ("a.tif", "a.tfw", "a.tif.aux.xml", "b.gpkg", "c.txt", "d", "e.gdb/1", "e.gdb/2"):
        store.put("c", name, b"II*\0")
    result = Run(ListContainerContents, store, container_name="c").run()
    assert result["summary"]["successful_analyses"] == 7
    assert sorted(store.requests) == ["64 of a.tif", "64 of b.gpkg"]
    store.requests.clear()
    result = Run(ListContainerContents, store, container_name="c", magic=False).run()
    assert result["summary"]["successful_analyses"] == 7
    assert store.requests == []


# --- summary ------------------------------------------------------------------------------------------------------


def test_a_summary_has_the_fields_of_the_original(store: MemoryBlobStore) -> None:
    store.put("c", "a.tif", b"xxx")
    store.put("c", "b.txt", b"x")
    run = Run(SummarizeContainer, store, container_name="c", filter={"extensions": ["tif"]}, file_limit=5)
    result = run.run()
    (outcome,) = run.outcomes[0]
    raw = outcome.result_data["result"]
    assert set(raw) == {"container_name", "analysis_timestamp", "filter_applied", "statistics", "execution_info"}
    assert set(result) == {
        "job_type", "container_name", "file_limit", "filter", "analysis_timestamp", "summary", "execution_info",
        "stages_completed", "total_tasks_executed", "task_status", "success",
    }  # fmt: skip
    assert (result["success"], result["task_status"], result["file_limit"]) == (True, "completed", 5)
    assert result["summary"]["total_files"] == 1
    assert result["execution_info"]["files_scanned"] == 2
    assert result["execution_info"]["files_filtered"] == 1
    assert result["execution_info"]["hit_file_limit"] is False


def test_error_variants_of_the_summary(store: MemoryBlobStore) -> None:
    run = Run(SummarizeContainer, store, container_name="c")
    assert run.aggregate()["error"] == "No task results found"
    run.stage(1)
    run.results[0] = run.results[0].model_copy(update={"result_data": {"success": True}})
    result = run.aggregate()
    assert (result["success"], result["raw_task_result"]) == (False, {"success": True})


def test_metadata_shows_tables(store: MemoryBlobStore) -> None:
    store.put("c", "a.tif", b"xxx")
    summary = SummarizeContainer.materialization_metadata(Run(SummarizeContainer, store, container_name="c").run())
    assert summary["file_types"] == [{"type": ".tif", "count": 1, "total_size_gb": 0.0}]
    assert (summary["total_files"], summary["largest_files"][0]["name"]) == (1, "a.tif")
    listing = ListContainerContents.materialization_metadata(
        Run(ListContainerContents, store, container_name="c").run()
    )
    assert listing["file_types"] == [{"type": "tif", "count": 1}]
    assert listing["listing_path"].endswith(".parquet")
    for workflow in (SummarizeContainer, ListContainerContents):
        assert workflow.materialization_metadata({"success": False})["file_types"] == []


# --- many, and real -------------------------------------------------------------------------------------------------


def test_a_listing_of_ten_thousand_makes_as_many_tasks() -> None:
    store = GeneratedStore([[Blob(f"{batch}/{number}.tif") for number in range(1000)] for batch in range(10)])
    run = Run(ListContainerContents, store, container_name="c")
    (listed,) = run.stage(1)
    tasks = ListContainerContents.create_tasks_for_stage(2, run.params, run.job_id, [listed.result_data])
    assert len({task["task_id"] for task in tasks}) == 10_000
    assert tasks[-1]["parameters"] == {
        "container_name": "c",
        "blob_name": "9/999.tif",
        "listed_etag": '"9/999.tif-1"',
        "listed": {
            "size": 1,
            "last_modified": "2025-01-01T00:00:00.000000+00:00",
            "kind": "raster",
            "dataset": "9/999.tif",
            "role": "main",
            "complete": True,
        },
    }


def local_store(tmp_path: Path, _: pytest.FixtureRequest) -> BlobStore:
    return LocalBlobStore(tmp_path / "blobs")


def azure_store(_: Path, request: pytest.FixtureRequest) -> BlobStore:
    azurite: Azurite = request.getfixturevalue("azurite")
    return AzureBlobStore(AzureAccess.of_connection_string(azurite.connection_string))


@pytest.mark.parametrize("open_store", [local_store, pytest.param(azure_store, marks=pytest.mark.services)])
@pytest.mark.skipif(not REAL_FILES.is_dir(), reason="the real files lie beside the checkout where there are any")
def test_real_files_are_listed_analysed_and_summarized(
    open_store: Callable[[Path, pytest.FixtureRequest], BlobStore], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = open_store(tmp_path, request)
    container = f"real-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    copied = shutil.copytree(REAL_FILES, tmp_path / "copied")
    files = {path.relative_to(copied).as_posix(): path for path in copied.rglob("*") if path.is_file()}
    store.create_container(container)
    for name, path in files.items():
        with path.open("rb") as file:
            store.put_stream(container, name, iter(lambda file=file: file.read(1 << 20), b""))  # type: ignore[misc]
    total = sum(path.stat().st_size for path in files.values())

    run = Run(ListContainerContents, store, container_name=container)
    summary = run.run()["summary"]
    assert summary["total_blobs_found"] == summary["successful_analyses"] == len(files) > 10
    assert summary["total_size_bytes"] == total
    sizes = {
        outcome.result_data["result"]["blob_name"]: outcome.result_data["result"]["size_bytes"]
        for outcome in run.outcomes[1]
    }
    assert sizes == {name: path.stat().st_size for name, path in files.items()}

    statistics = Run(SummarizeContainer, store, container_name=container).run()["summary"]
    assert (statistics["total_files"], statistics["total_size_bytes"]) == (len(files), total)
    rasters = Run(SummarizeContainer, store, container_name=container, filter={"prefix": "rasters/"}).run()["summary"]
    assert rasters["total_files"] == sum(name.startswith("rasters/") for name in files)


# --- slices of long listings ----------------------------------------------------------------------------------------


@pytest.fixture
def sliced(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than three blobs are analysed in slices of two."""
    monkeypatch.setenv("GEO_ASSETS_TASKS_A_JOB_LIMIT", "3")
    monkeypatch.setattr(list_container_contents, "_SLICE", 2)
    get_settings.cache_clear()


def test_a_long_listing_is_analysed_in_slices_with_the_same_result(
    store: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        store.put("c", f"{number}.{'tif' if number % 2 else 'txt'}", b"II*\0" * number)
    store.put("c", "wrong.tif", b"%PDF-1.7")
    store.put("c", "d.gdb/1", b"xy")
    single = Run(ListContainerContents, store, container_name="c").run()
    monkeypatch.setenv("GEO_ASSETS_TASKS_A_JOB_LIMIT", "3")
    monkeypatch.setattr(list_container_contents, "_SLICE", 2)
    get_settings.cache_clear()
    run = Run(ListContainerContents, store, container_name="c")
    result = run.run()
    assert [task["parameters"]["last"] for task in run.tasks[1]] == [2, 4, 6, 8, 10, 11]
    assert "blob_names" not in run.outcomes[0][0].result_data["result"]
    for summary in (single["summary"], result["summary"]):
        del summary["changes"]
    assert result["summary"] == single["summary"]
    assert result["summary"]["total_blobs_found"] == result["summary"]["successful_analyses"] == 11
    assert result["summary"]["format_mismatches"] == {
        "count": 1, "sample": [{"name": "wrong.tif", "detected_format": "pdf"}],
    }  # fmt: skip


@pytest.mark.usefixtures("sliced")
def test_bad_blobs_of_a_slice_are_counted_one_by_one(tmp_path: Path) -> None:
    store = LocalBlobStore(tmp_path / "blobs")
    store.create_container("c")
    folder = tmp_path / "blobs" / "c"
    for name in ("a.tif", "b.tif", "c.tif", "d.txt", "new\nline"):
        (folder / name).write_bytes(b"II*\0")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    (folder / "a.tif").unlink()
    (folder / "c.tif").write_bytes(b"II*\0 other")
    outcomes = run.stage(2)
    assert [outcome.kind for outcome in outcomes] == ["failed", "created", "invalid"]
    assert not any(outcome.transient for outcome in outcomes)
    summary = run.aggregate()["summary"]
    assert summary["total_blobs_found"] == summary["blobs_analyzed"] == 5
    assert (summary["successful_analyses"], summary["failed_analyses"], summary["invalid_names"]) == (3, 1, 1)
    assert summary["replaced_since_listing"] == 1
    assert "'c/a.tif'" in summary["errors_sample"][0]["error"]
    assert summary["errors_sample"][0]["task_id"] == f"{run.tasks[1][0]['task_id']}..."


@pytest.mark.usefixtures("sliced")
def test_a_slice_that_never_ran_counts_its_blobs(store: MemoryBlobStore) -> None:
    for number in range(5):
        store.put("c", f"{number}.txt", b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)
    run.stage(2)
    for position, status in ((1, TaskStatus.FAILED), (3, TaskStatus.PENDING)):
        changed = {"status": status, "result_data": {}, "error_details": "its worker died"}
        run.results[position] = run.results[position].model_copy(update=changed)
    summary = run.aggregate()["summary"]
    assert (summary["successful_analyses"], summary["failed_analyses"], summary["pending_analyses"]) == (2, 2, 1)
    assert summary["blobs_analyzed"] == 5


@pytest.mark.usefixtures("sliced")
def test_a_slice_of_a_throttled_store_is_tried_again(store: MemoryBlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        store.put("c", f"{number}.tif", b"x")
    run = Run(ListContainerContents, store, container_name="c")
    run.stage(1)

    def throttled(*_: object) -> None:
        raise ThrottledError("the storage account asks to slow down")

    monkeypatch.setattr(store, "read_start", throttled)
    assert [(outcome.kind, outcome.transient) for outcome in run.stage(2)] == [(OutcomeKind.FAILED, True)] * 2


@pytest.mark.usefixtures("sliced")
def test_a_slice_does_not_read_another_listing_than_it_was_made_for(store: MemoryBlobStore) -> None:
    for number in range(4):
        store.put("c", f"{number}.txt", b"x")
    late = Run(ListContainerContents, store, container_name="c")
    late.stage(1)
    Run(ListContainerContents, store, container_name="c").stage(1)
    outcomes = late.stage(2)
    assert all("replaced by a later one" in str(outcome.error) and not outcome.transient for outcome in outcomes)


# --- detail and magic -------------------------------------------------------------------------------------------------


@BOTH
def test_new_parameters_leave_the_ids_of_the_original_alone(workflow: type[Workflow]) -> None:
    plain = workflow.validate_job_parameters({"container_name": "c"})
    new = {"detail": "basic", **({"magic": True} if workflow is ListContainerContents else {})}
    assert workflow.validate_job_parameters({"container_name": "c", **new}) == plain
    full = workflow.validate_job_parameters({"container_name": "c", "detail": "full"})
    assert full == {**plain, "detail": "full"}
    assert workflow.generate_job_id(full) != workflow.generate_job_id(plain)
    with pytest.raises(ParameterError, match="detail"):
        workflow.validate_job_parameters({"container_name": "c", "detail": "most"})


def memory_store(_: Path, __: pytest.FixtureRequest) -> BlobStore:
    return MemoryBlobStore()


@pytest.mark.parametrize("open_store", [memory_store, pytest.param(azure_store, marks=pytest.mark.services)])
def test_full_detail_tells_types_metadata_and_duplicates(
    open_store: Callable[[Path, pytest.FixtureRequest], BlobStore], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    store = open_store(tmp_path, request)
    container = f"full-{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]}"
    store.create_container(container)
    store.put(container, "a.txt", b"same", content_type="text/plain", metadata={"tier": "gold"})
    store.put(container, "b/copy.txt", b"same")
    store.put(container, "c.tif", b"", content_type="image/tiff")
    run = Run(ListContainerContents, store, container_name=container, detail="full")
    summary = run.run()["summary"]
    results = {outcome.result_data["result"]["blob_name"]: outcome.result_data["result"] for outcome in run.outcomes[1]}
    assert (results["a.txt"]["content_type"], results["a.txt"]["metadata"]) == ("text/plain", {"tier": "gold"})
    assert results["a.txt"]["content_md5"] == hashlib.md5(b"same", usedforsecurity=False).hexdigest()
    assert (results["c.tif"]["detected_format"], results["c.tif"]["format_matches_name"]) == ("empty", False)
    found = Run(SummarizeContainer, store, container_name=container, detail="full").run()["summary"]
    for duplicates in (summary["duplicates"], found["duplicates"]):
        assert (duplicates["groups"], duplicates["blobs"], duplicates["bytes"]) == (1, 1, 4)
        assert duplicates["sample"][0]["names"] == ["a.txt", "b/copy.txt"]
    basic = Run(SummarizeContainer, store, container_name=container).run()["summary"]
    assert basic["duplicates"] is None
    assert basic["kinds"]["raster"]["count"] == 1


def test_the_partition_shows_kinds_changes_and_what_needs_a_look(store: MemoryBlobStore) -> None:
    store.put("c", "a.tif", b"%PDF-1.7")
    store.put("c", "b.shp", b"\0\0\x27\x0a")
    Run(ListContainerContents, store, container_name="c").run()
    store.delete("c", "b.shp")
    store.put("c", "c.shp", b"\0\0\x27\x0a")
    result = Run(ListContainerContents, store, container_name="c").run()
    metadata = ListContainerContents.materialization_metadata(result)
    assert {row["kind"]: row["count"] for row in metadata["kinds"]} == {"raster": 1, "vector": 1}
    assert {row["change"]: row["count"] for row in metadata["changes"]} == {
        "added": 1, "changed": 0, "removed": 1, "unchanged": 1,
    }  # fmt: skip
    assert metadata["format_mismatches"] == [{"name": "a.tif", "detected_format": "pdf"}]
    assert metadata["incomplete_datasets"] == [{"name": "c.shp", "missing": ".shx .dbf"}]
    assert result["summary"]["removed_sample"] == ["b.shp"]
    assert result["summary"]["oldest"]["name"] == "a.tif"
    summary = SummarizeContainer.materialization_metadata(Run(SummarizeContainer, store, container_name="c").run())
    assert {row["kind"] for row in summary["kinds"]} == {"raster", "vector"}
