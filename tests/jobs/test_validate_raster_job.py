"""``validate_raster_job``: parameters, id, task, handler, aggregation, partitions; and whole runs through the engine.

What belongs here: the contract, run stage by stage with the real sandbox and a blob store in memory.  What does not:
the verdicts themselves (``tests/raster``).
"""

import hashlib
import json
import os
import shutil
import signal
from collections import namedtuple
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from geo_assets.coremachine.binding import bind
from geo_assets.coremachine.contract import (
    JobExecutionContext,
    OutcomeKind,
    TaskContext,
    TaskLimits,
    TaskResult,
    TaskStatus,
    check_contract,
)
from geo_assets.coremachine.identity import encode_partition_key, task_id
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.task_outcome import TaskOutcome, execute
from geo_assets.errors import BlobNotFoundError, ParameterError
from geo_assets.jobs import validate_raster_job
from geo_assets.jobs.validate_raster_job import ValidateRasterJob, validate_raster
from geo_assets.settings import get_settings
from geo_assets.stores.blobs import BlobProperties
from geo_assets.stores.memory import MemoryBlobStore
from tests.raster.conftest import Listener, listener  # noqa: F401 - a fixture
from tests.raster.rasters import fields, noise, real, write

DiskUsage = namedtuple("DiskUsage", "total used free")  # noqa: PYI024 - as shutil's own


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(get_settings())
    yield made
    made.close()


@pytest.fixture
def store() -> MemoryBlobStore:
    made = MemoryBlobStore()
    made.create_container("bronze")
    return made


class Run:
    """One job, by the calls the engine makes."""

    def __init__(self, store: MemoryBlobStore, sandbox: Sandbox, **given: Any) -> None:
        self.params = json.loads(json.dumps(ValidateRasterJob.validate_job_parameters(given)))
        self.job_id = ValidateRasterJob.generate_job_id(self.params)
        (self.task,) = ValidateRasterJob.create_tasks_for_stage(1, self.params, self.job_id)
        services = {"blobs": store, "settings": get_settings(), "sandbox": sandbox}
        context = TaskContext(job_id=self.job_id, task_id=self.task["task_id"], services=services)
        self.outcome: TaskOutcome = execute(validate_raster, json.loads(json.dumps(self.task["parameters"])), context)
        good = self.outcome.kind.is_good
        result = TaskResult(
            task_id=self.task["task_id"], task_type=self.task["task_type"], result_data=self.outcome.result_data,
            status=TaskStatus.COMPLETED if good else TaskStatus.FAILED,
            error_details=self.outcome.error or self.outcome.reason, timestamp=datetime.now(UTC),
        )  # fmt: skip
        self.result = ValidateRasterJob.aggregate_job_results(
            JobExecutionContext(
                job_id=self.job_id, job_type=ValidateRasterJob.job_type, current_stage=1, total_stages=1,
                parameters=self.params, task_results=[result],
            )
        )  # fmt: skip
        self.metadata = ValidateRasterJob.materialization_metadata(self.result)
        for value in (self.result, self.metadata):
            assert json.loads(json.dumps(value, allow_nan=False)) == value


# --- the contract ------------------------------------------------------------------------------------------------


def test_the_contract_is_complete_and_binds() -> None:
    assert check_contract(ValidateRasterJob).complete
    binding = bind(ValidateRasterJob)
    assert (binding.asset, binding.partition_set, binding.group) == ("raster_validation", "raster_blobs", "rasters")
    assert binding.asset_deps == ("container_contents",)
    assert binding.execution == "thread"


def test_the_job_id_hashes_all_parameters_with_defaults() -> None:
    params = ValidateRasterJob.validate_job_parameters({"blob_name": "a.tif", "dataset_id": "dropped"})
    hashed = (
        '{"_skip_validation": false, "blob_name": "a.tif", "container_name": null, "input_crs": null,'
        ' "raster_type": "auto", "strict_mode": false}'
    )
    assert ValidateRasterJob.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "blob_name is required"),
        ({"blob_name": ""}, "blob_name must be a non-empty string"),
        ({"blob_name": 5}, "blob_name must be a non-empty string"),
        ({"blob_name": "../x.tif"}, "blob_name cannot be used"),
        ({"blob_name": "http://127.0.0.1/x.tif"}, "not an address"),
        ({"blob_name": "/vsicurl/http://127.0.0.1/x.tif"}, "not an address or a GDAL path"),
        ({"blob_name": "<VRTDataset>\n</VRTDataset>"}, "blob_name cannot be used"),
        ({"blob_name": "x", "container_name": " "}, "container_name must be a non-empty string"),
        ({"blob_name": "x", "container_name": "a/b"}, "container_name cannot be used"),
        ({"blob_name": "x", "input_crs": " "}, "input_crs must be a non-empty string"),
        ({"blob_name": "x", "input_crs": "nonsense"}, "input_crs: 'nonsense' is not a CRS"),
        ({"blob_name": "x", "input_crs": 4326}, "input_crs must be a non-empty string"),
        ({"blob_name": "x", "raster_type": "movie"}, "raster_type must be one of auto, rgb"),
        ({"blob_name": "x", "strict_mode": "yes"}, "strict_mode must be a boolean"),
        ({"blob_name": "x", "_skip_validation": 1}, "_skip_validation must be a boolean"),
        ({"blob_name": "x", "skip_validation": True}, "unknown parameter 'skip_validation'"),
        ({"blob_name": "x", "target_crs": "EPSG:4326"}, "it takes: blob_name, container_name, input_crs, raster_type"),
    ],
)
def test_bad_parameters_are_refused_before_anything_runs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        ValidateRasterJob.validate_job_parameters(given)
    assert message in str(caught.value)
    assert "_skip_validation," not in str(caught.value), "what is for tests is not offered"


@pytest.mark.parametrize("address", ["{url}/crs", "/vsicurl/{url}/crs.wkt", "urn:x:{url}"])
def test_a_crs_parameter_contacts_nobody(address: str, listener: Listener) -> None:  # noqa: F811 - the fixture
    with pytest.raises(ParameterError):
        ValidateRasterJob.validate_job_parameters({"blob_name": "x", "input_crs": address.format(url=listener.url)})


def test_the_task_is_the_originals_but_carries_no_address() -> None:
    params = ValidateRasterJob.validate_job_parameters({"blob_name": "a/b.tif", "strict_mode": True})
    (task,) = ValidateRasterJob.create_tasks_for_stage(1, params, "f" * 64)
    assert task == {
        "task_id": task_id("f" * 64, 1, "validate"),
        "task_type": "validate_raster",
        "parameters": {
            "blob_name": "a/b.tif", "container_name": "bronze", "input_crs": None, "raster_type": "auto",
            "strict_mode": True, "_skip_validation": False,
        },
    }  # fmt: skip
    assert ValidateRasterJob.create_tasks_for_stage(2, params, "f" * 64) == []
    metadata = ValidateRasterJob.create_job_record("f" * 64, params)["metadata"]
    assert metadata["blob_name"] == "a/b.tif"
    assert metadata["created_by"] == "ValidateRasterJob"


# --- partitions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("container", "blob"), [("c", "a/b c%,|.tif"), (None, "x.tif"), ("c", "ä/…/x.tif")])
def test_a_partition_is_container_and_blob_and_leads_back(container: str | None, blob: str) -> None:
    binding = bind(ValidateRasterJob)
    params = binding.validate({"blob_name": blob, "container_name": container})
    key = binding.partition_key(params, "0" * 64)
    assert key == encode_partition_key(f"{container or 'bronze'}/{blob}")
    again = binding.parameters_for(key)
    assert again == {"container_name": container or "bronze", "blob_name": blob}
    assert binding.partition_key(binding.validate(again), "1" * 64) == key
    assert binding.takes_keys
    assert binding.parameters_of_key(f"c/{blob}", {"strict_mode": True}) == {
        "container_name": "c", "blob_name": blob, "strict_mode": True,
    }  # fmt: skip


def test_a_key_that_names_no_blob_gives_no_parameters() -> None:
    binding = bind(ValidateRasterJob)
    assert binding.parameters_for("container") is None
    with pytest.raises(ParameterError, match="no parameters follow"):
        binding.parameters_of_key("container", {})


def test_the_source_version_is_the_etag(store: MemoryBlobStore) -> None:
    etag = store.put("bronze", "x.tif", b"1")
    assert ValidateRasterJob.source_version({"blob_name": "x.tif"}, {"blobs": store}) == etag
    with pytest.raises(BlobNotFoundError):
        ValidateRasterJob.source_version({"blob_name": "y.tif"}, {"blobs": store})


def test_a_prefix_finds_rasters_only(store: MemoryBlobStore) -> None:
    for name in ("a/x.tif", "a/y.JP2", "a/z.txt", "b/x.tif"):
        store.put("bronze", name, b"1")
    assert sorted(ValidateRasterJob.keys_with_prefix("bronze/a", {"blobs": store})) == [
        "bronze/a/x.tif",
        "bronze/a/y.JP2",
    ]


# --- runs --------------------------------------------------------------------------------------------------------


def test_a_good_raster_passes(store: MemoryBlobStore, sandbox: Sandbox, tmp_path: Path) -> None:
    content = write(tmp_path / "x.tif", noise(3, 64, 64)).read_bytes()
    etag = store.put("bronze", "a/x.tif", content)
    run = Run(store, sandbox, blob_name="a/x.tif", raster_type="rgb")
    assert run.outcome.kind is OutcomeKind.CREATED
    found = run.result["validation_result"]
    assert {key: run.result[key] for key in ("job_type", "blob_name", "container_name", "validation_status")} == {
        "job_type": "validate_raster_job", "blob_name": "a/x.tif", "container_name": "bronze",
        "validation_status": "passed",
    }  # fmt: skip
    assert (run.result["tasks_executed"], run.result["task_status"]) == (1, "completed")
    assert (found["source_blob"], found["container_name"], found["source_etag"]) == ("a/x.tif", "bronze", etag)
    assert found["source_sha256"] == hashlib.sha256(content).hexdigest()
    assert found["size_bytes"] == len(content)
    assert run.metadata["verdict"] == "valid"
    assert len(run.metadata["bands"]) == 3
    scratch = get_settings().scratch_path
    assert list(scratch.iterdir()) == []


def test_a_bad_raster_is_invalid_and_aggregated(store: MemoryBlobStore, sandbox: Sandbox) -> None:
    store.put("bronze", "x.tif", real("no_crs_float64.tif").read_bytes())
    run = Run(store, sandbox, blob_name="x.tif")
    assert run.outcome.kind is OutcomeKind.INVALID
    assert run.outcome.reason is not None
    assert run.outcome.reason.startswith("CRS_MISSING: the raster has no CRS")
    assert run.outcome.result_data["error"] == "CRS_MISSING"
    assert run.result["validation_status"] == "failed"
    assert run.result["validation_result"]["error"] == "CRS_MISSING"
    assert run.result["validation_result"]["valid"] is False
    assert run.metadata["verdict"] == "invalid"


def test_warnings_are_shown(store: MemoryBlobStore, sandbox: Sandbox, tmp_path: Path) -> None:
    store.put("bronze", "x.tif", write(tmp_path / "x.tif", fields().astype("float32")).read_bytes())
    run = Run(store, sandbox, blob_name="x.tif")
    assert run.metadata["warnings"][0]["severity"] == "HIGH"
    strict = Run(store, sandbox, blob_name="x.tif", strict_mode=True)
    assert strict.outcome.kind is OutcomeKind.INVALID
    assert strict.result["validation_result"]["error"] == "BIT_DEPTH_POLICY_VIOLATION"


def test_what_is_no_raster_is_refused_without_being_copied(
    store: MemoryBlobStore, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("bronze", "x.tif", b"<VRTDataset rasterXSize='1'>" + b" " * 10_000)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("copied")

    monkeypatch.setattr(store, "open_stream", never)
    run = Run(store, sandbox, blob_name="x.tif")
    assert run.outcome.kind is OutcomeKind.INVALID
    assert "bronze/x.tif: the file is a virtual raster" in (run.outcome.reason or "")
    assert run.result["validation_result"]["error"] == "FILE_UNREADABLE"


def test_an_empty_blob_is_invalid(store: MemoryBlobStore, sandbox: Sandbox) -> None:
    store.put("bronze", "x.tif", b"")
    assert "0 bytes" in (Run(store, sandbox, blob_name="x.tif").outcome.reason or "")


def test_a_missing_blob_fails_for_good(store: MemoryBlobStore, sandbox: Sandbox) -> None:
    run = Run(store, sandbox, blob_name="x.tif")
    assert (run.outcome.kind, run.outcome.transient) == (OutcomeKind.FAILED, False)
    assert "x.tif" in (run.outcome.error or "")
    assert run.result["validation_status"] == "failed"
    assert "x.tif" in run.result["validation_result"]["error"]


def test_skipping_looks_at_nothing(store: MemoryBlobStore, sandbox: Sandbox) -> None:
    run = Run(store, sandbox, blob_name="not-there.tif", _skip_validation=True)
    assert set(run.outcome.result_data["result"]) == {"valid", "validation_skipped", "message"}
    assert run.result["validation_status"] == "passed"


def test_a_blob_replaced_meanwhile_is_tried_again(
    store: MemoryBlobStore, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = write(tmp_path / "x.tif", noise(32, 32)).read_bytes()
    store.put("bronze", "x.tif", content)
    stream = store.open_stream

    def replaced(container: str, name: str, **options: Any) -> Iterator[bytes]:
        yield from stream(container, name, **options)
        store.put(container, name, content[::-1])

    monkeypatch.setattr(store, "open_stream", replaced)
    outcome = Run(store, sandbox, blob_name="x.tif").outcome
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, True)
    assert "was replaced while" in (outcome.error or "")


def test_a_full_disk_is_seen_before_copying(
    store: MemoryBlobStore, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("bronze", "x.tif", write(tmp_path / "x.tif", noise(32, 32)).read_bytes())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10**9, 10**9, 600))
    outcome = Run(store, sandbox, blob_name="x.tif").outcome
    assert (outcome.kind, outcome.transient) == (OutcomeKind.FAILED, True)
    assert "600 are free" in (outcome.error or "")


def test_a_blob_of_five_terabytes_is_not_begun(
    store: MemoryBlobStore, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("bronze", "x.tif", b"II*\0" + bytes(100))
    real_head = store.head

    def huge(container: str, name: str) -> BlobProperties:
        found = real_head(container, name)
        return BlobProperties(name=found.name, size=5 * 2**40, last_modified=found.last_modified, etag=found.etag)

    monkeypatch.setattr(store, "head", huge)
    assert "temporary space" in (Run(store, sandbox, blob_name="x.tif").outcome.error or "")


def die(params: dict[str, Any]) -> dict[str, Any]:
    """Stands in for a decoder that crashes."""
    del params
    os.kill(os.getpid(), signal.SIGSEGV)
    return {}


def test_a_crashing_decoder_costs_one_task(
    store: MemoryBlobStore, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put("bronze", "x.tif", write(tmp_path / "x.tif", noise(32, 32)).read_bytes())
    monkeypatch.setattr("geo_assets.raster.validate.validate_raster_file", die)
    run = Run(store, sandbox, blob_name="x.tif")
    assert run.outcome.kind is OutcomeKind.FAILED
    assert "VALIDATION_ERROR" in (run.outcome.error or "")
    assert "SIGSEGV" in (run.outcome.error or "")
    assert run.result["validation_result"]["source_blob"] == "x.tif"
    monkeypatch.undo()
    assert Run(store, sandbox, blob_name="x.tif").outcome.kind is OutcomeKind.CREATED


def test_a_limit_that_is_reached_is_named(store: MemoryBlobStore, tmp_path: Path) -> None:
    path = write(tmp_path / "x.tif", noise(3, 3000, 3000), blockysize=3000, compress="deflate", zlevel=1)
    store.put("bronze", "x.tif", path.read_bytes())
    tight = Sandbox(get_settings(), limits=TaskLimits(memory_mb=64))
    run = Run(store, tight, blob_name="x.tif")
    tight.close()
    assert not run.outcome.kind.is_good
    assert run.result["validation_status"] == "failed"


def test_nothing_here_opens_a_raster() -> None:
    source = Path(validate_raster_job.__file__).read_text()
    assert "rasterio" not in source
    assert "open_raster" not in source


def test_without_results_the_job_says_so() -> None:
    context = JobExecutionContext(
        job_id="0" * 64, job_type="validate_raster_job", current_stage=1, total_stages=1,
        parameters={"blob_name": "x", "container_name": "c"},
    )  # fmt: skip
    result = ValidateRasterJob.aggregate_job_results(context)
    assert (result["validation_status"], result["error"]) == ("failed", "No task results found")
