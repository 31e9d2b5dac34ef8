"""What workflows about blobs have in common: parameters that name one, what handlers do with it, and their answers.

What belongs here: :class:`BlobParameters`, the job's scratch folder, reading and naming blobs, turning what came out of
the sandbox into a handler's return.  What does not: the workflows, and what is done to a file (``geo_assets.raster``,
``geo_assets.vector``, ``geo_assets.stac``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import OutcomeKind, TaskContext, WorkflowParameters
from geo_assets.coremachine.task_outcome import TaskOutcome
from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, UnsupportedNameError
from geo_assets.jobs.container_parameters import check_container
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings, get_settings
from geo_assets.stores.blobs import BlobStore, check_blob_name

__all__ = [
    "BlobParameters",
    "check_blob",
    "check_optional_container",
    "chunks_of",
    "container_of",
    "etag_of",
    "failed",
    "invalid",
    "scratch_of",
    "sentence_of",
]

_CHUNK = 8 * 1024 * 1024

# --- parameters --------------------------------------------------------------------------------------------------


def container_of(params: Mapping[str, Any]) -> str:
    """The container a raster job reads from: the one it names, else the bronze container."""
    return params.get("container_name") or get_settings().bronze_container


def check_blob(value: Any) -> str:
    """Check a parameter ``blob_name``, in the original's words.

    Raises:
        ValueError: it cannot name a blob.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError("blob_name must be a non-empty string")
    if value.startswith("/vsi") or "://" in value:
        raise ValueError("blob_name is the name of a blob in its container, not an address or a GDAL path")
    try:
        return check_blob_name(value.strip())
    except UnsupportedNameError as error:
        raise ValueError(f"blob_name cannot be used: {error}") from None


def check_optional_container(value: Any) -> str | None:
    """Check a parameter ``container_name`` that may be left out.

    Raises:
        ValueError: it cannot name a container.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ValueError("container_name must be a non-empty string")
    return check_container(value.strip())


class BlobParameters(WorkflowParameters):
    """Which blob; its rules stand alone (mode "plain"), in the original's words."""

    blob_name: str = Field(description="Name of the blob in its container.")
    container_name: str | None = Field(
        None, description="Container of the blob. Default: the bronze container (GEO_ASSETS_BRONZE_CONTAINER)."
    )

    @model_validator(mode="before")
    @classmethod
    def _require_blob(cls, data: Any) -> Any:
        if isinstance(data, dict) and "blob_name" not in data:
            raise ValueError("blob_name is required")
        return data

    @field_validator("blob_name", mode="plain")
    @classmethod
    def _check_blob(cls, value: Any) -> str:
        return check_blob(value)

    @field_validator("container_name", mode="plain")
    @classmethod
    def _check_container(cls, value: Any) -> str | None:
        return check_optional_container(value)


# --- work --------------------------------------------------------------------------------------------------------


@contextmanager
def scratch_of(context: Mapping[str, Any], settings: Settings) -> Iterator[ScratchFolder]:
    """The job's scratch folder, or one of the task's own where tasks of a job do not share one."""
    shared = TaskContext(context).scratch
    if shared is not None:
        yield shared
        return
    with ScratchFolder(settings.scratch_path) as own:
        yield own


def chunks_of(path: Path) -> Iterator[bytes]:
    """A local file in chunks."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def etag_of(blobs: BlobStore, container: str, blob: str) -> str | None:
    """ETag of a blob; ``None`` if it is not there."""
    try:
        return blobs.head(container, blob).etag
    except (BlobNotFoundError, ContainerNotFoundError):
        return None


def invalid(code: str, message: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """A handler's return for an input that is at fault itself."""
    return {
        "success": False,
        "outcome": OutcomeKind.INVALID.value,
        "error": code,
        "message": message,
        "reason": f"{code}: {message}",
        "result": dict(result),
    }


def failed(code: str, message: str, result: Mapping[str, Any], *, transient: bool = False) -> dict[str, Any]:
    """A handler's return where something else went wrong."""
    return {
        "success": False,
        "outcome": OutcomeKind.FAILED.value,
        "error": f"{code}: {message}",
        "message": message,
        "transient": transient,
        "result": dict(result),
    }


def sentence_of(outcome: TaskOutcome) -> str:
    """What the sandbox says went wrong, where the function in it gave no answer of its own."""
    return outcome.error or outcome.reason or "the worker process gave no answer"
