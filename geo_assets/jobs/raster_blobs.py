"""What the raster workflows have in common: blobs as partitions, local copies, and what happens in the sandbox.

What belongs here: names of partitions, parameters that name a blob, fetching it into the job's scratch folder, turning
what came out of the sandbox into a handler's return.  What does not: any one workflow, and what is done to a file
(``geo_assets.raster``, ``geo_assets.stac``).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from geo_assets.coremachine.contract import OutcomeKind, TaskContext
from geo_assets.coremachine.task_outcome import TaskOutcome
from geo_assets.errors import UnsupportedNameError
from geo_assets.jobs.container_parameters import check_container
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings, get_settings
from geo_assets.stores.blobs import BlobStore, check_blob_name

__all__ = [
    "RASTER_SUFFIXES",
    "blob_of_partition",
    "check_blob",
    "check_optional_container",
    "container_of",
    "failed",
    "invalid",
    "raster_keys_with_prefix",
    "scratch_of",
    "sentence_of",
]

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".img", ".ntf", ".nitf", ".nc", ".h5",
                   ".hdf5", ".asc", ".hgt")  # fmt: skip
"""Endings of blobs that look like rasters."""


# --- partitions --------------------------------------------------------------------------------------------------


def container_of(params: Mapping[str, Any]) -> str:
    """The container a raster job reads from: the one it names, else the bronze container."""
    return params.get("container_name") or get_settings().bronze_container


def blob_of_partition(name: str) -> dict[str, Any] | None:
    """Container and blob of a partition ``container/blob``; ``None`` where it names no blob."""
    container, _, blob = name.partition("/")
    return {"container_name": container, "blob_name": blob} if blob else None


def raster_keys_with_prefix(blobs: BlobStore, prefix: str) -> Iterator[str]:
    """Names ``container/blob`` of blobs that look like rasters and whose name starts with ``container/prefix``."""
    container, _, start = prefix.partition("/")
    for batch in blobs.list_blobs(container, start):
        problems = batch.column("problem").to_pylist()
        for name, problem in zip(batch.column("name").to_pylist(), problems, strict=True):
            if problem is None and name is not None and name.lower().endswith(RASTER_SUFFIXES):
                yield f"{container}/{name}"


# --- parameters --------------------------------------------------------------------------------------------------


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
