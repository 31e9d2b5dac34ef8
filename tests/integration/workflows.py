"""Workflows for integration tests: small, quick, and able to fail in every way on demand.

Sources are files in ``$GEO_ASSETS_HOME/sources``; each execution of a handler appends a line to
``$GEO_ASSETS_HOME/executions.log``, so that tests can count them.
"""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from geo_assets.coremachine.contract import (
    Handler,
    JobExecutionContext,
    TaskContext,
    Workflow,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.settings import get_settings


def sources() -> Path:
    """Folder of the source files."""
    return get_settings().home_path / "sources"


def executions() -> list[str]:
    """One line an execution of a handler, in order."""
    log = get_settings().home_path / "executions.log"
    return log.read_text().splitlines() if log.exists() else []


def note(line: str) -> None:
    """Append a line to the log; appends of this size are atomic."""
    with (get_settings().home_path / "executions.log").open("a") as log:
        log.write(line + "\n")


class BlobParameters(WorkflowParameters):
    """Parameters of ``digest_blob``."""

    blob_name: str = Field(description="File in the folder of sources.")


def inspect_blob(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Stage 1: is it there, is it good?"""
    del context
    name = params["blob_name"]
    note(f"inspect {name}")
    if name.startswith("slow") and (sources() / name).read_text() != "quick now":
        time.sleep(60)
    if name.startswith("bad"):
        return {"success": False, "outcome": "invalid", "error": f"{name} is not a raster: the header is cut off"}
    path = sources() / name
    if not path.exists():
        raise FileNotFoundError(f"{name} was removed after listing")
    return {"success": True, "result": {"size": path.stat().st_size}}


def digest(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Stage 2: hash it."""
    name = params["blob_name"]
    note(f"digest {name}")
    assert context.predecessor_result is not None
    return {"success": True, "result": {"sha256": hashlib.sha256((sources() / name).read_bytes()).hexdigest()}}


class DigestBlob(Workflow):
    """Two stages of one task, keyed by blob: depth first."""

    job_type: ClassVar[str] = "digest_blob"
    description: ClassVar[str] = "Hash a blob"
    Parameters: ClassVar[type[WorkflowParameters]] = BlobParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "inspect", "task_type": "inspect_blob", "parallelism": "single"},
        {"number": 2, "name": "digest", "task_type": "digest", "parallelism": "single"},
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"inspect_blob": inspect_blob, "digest": digest}
    asset: ClassVar[str | None] = "blob_digest"
    partition_set: ClassVar[str | None] = "blobs"
    key_parameter: ClassVar[str | None] = "blob_name"

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task a stage."""
        del previous_results
        name = cls.stages[stage - 1]["task_type"]
        return [{"task_id": task_id(job_id, stage, name), "task_type": name, "parameters": job_params}]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The digest."""
        last = context.task_results[-1].result_data
        return {"blob_name": context.parameters["blob_name"], **last.get("result", {})}

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """A stand-in for an ETag."""
        del services
        path = sources() / params["blob_name"]
        return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else None


class FolderParameters(WorkflowParameters):
    """Parameters of ``survey_folder``."""

    folder: str = Field(description="Folder in the folder of sources.")


def list_folder(params: dict[str, Any]) -> dict[str, Any]:
    """Stage 1: name the files."""
    note(f"list {params['folder']}")
    return {"success": True, "result": {"names": sorted(p.name for p in (sources() / params["folder"]).iterdir())}}


def survey_file(params: dict[str, Any]) -> dict[str, Any]:
    """Stage 2, one a file."""
    note(f"survey {params['name']}")
    if params["name"].startswith("bad"):
        raise ValueError(f"{params['name']} cannot be read")
    return {"success": True, "result": {"name": params["name"]}}


class SurveyFolder(Workflow):
    """A stage that fans out within a job and tolerates failures."""

    job_type: ClassVar[str] = "survey_folder"
    description: ClassVar[str] = "Look at every file of a folder"
    Parameters: ClassVar[type[WorkflowParameters]] = FolderParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "list", "task_type": "list_folder", "parallelism": "single"},
        {"number": 2, "name": "survey", "task_type": "survey_file", "parallelism": "fan_out"},
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"list_folder": list_folder, "survey_file": survey_file}
    asset: ClassVar[str | None] = "folder_survey"
    partition_set: ClassVar[str | None] = "folders"
    key_parameter: ClassVar[str | None] = "folder"
    tolerates_partial_failure: ClassVar[bool] = True

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """The listing, then a task a file."""
        if stage == 1:
            return [{"task_id": task_id(job_id, 1, "list"), "task_type": "list_folder", "parameters": job_params}]
        assert previous_results is not None
        names = previous_results[0]["result"]["names"]
        return [
            {"task_id": task_id(job_id, 2, name), "task_type": "survey_file", "parameters": {"name": name}}
            for name in names
        ]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """Counts."""
        surveyed = [task for task in context.task_results if task.stage == len(cls.stages)]
        return {"files": len(surveyed), "good": sum(task.success for task in surveyed)}
