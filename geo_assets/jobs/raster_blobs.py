"""What the handlers of the raster workflows have in common: blobs, the scratch folder, and answers.

What belongs here: parameters that name a blob, the job's scratch folder, turning what came out of the sandbox into a
handler's return.  What does not: the workflows (``raster_workflow``, and a module each), and what is done to a file
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
from geo_assets.stores.blobs import check_blob_name

__all__ = [
    "check_blob",
    "check_optional_container",
    "container_of",
    "failed",
    "invalid",
    "scratch_of",
    "sentence_of",
]

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
