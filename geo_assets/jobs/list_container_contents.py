"""The ``list_container_contents`` workflow: list a container, then analyse each of its blobs.

What belongs here: its parameters, stages, tasks, handlers and aggregation.  What does not: reading containers
(``geo_assets.containers``).

Against the original, on purpose: the limit counts blobs after filtering; dates work with and without a time zone;
``filter: null`` is the same as none; a ``.gdb`` folder is one dataset and analyses well; names that cannot be
opened are analysed as ``invalid`` instead of failing the listing; a blob replaced since it was listed says so.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from geo_assets.containers.analysis import analyze_entry
from geo_assets.containers.entries import EntryStream
from geo_assets.containers.filter import BYTES_PER_MB, BlobFilter
from geo_assets.containers.listing import listing_path, read_listing, write_listing
from geo_assets.coremachine.contract import (
    Handler,
    JobExecutionContext,
    Markdown,
    OutcomeKind,
    TaskContext,
    TaskResult,
    TaskStatus,
    Workflow,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.errors import BlobNotFoundError
from geo_assets.jobs.container_parameters import FILTER_DESCRIPTION, check_container, check_filter
from geo_assets.pictures import bar_chart
from geo_assets.settings import get_settings

__all__ = ["ListContainerContents", "ListContainerContentsParameters", "analyze_single_blob", "list_container_blobs"]

_LARGEST_LIMIT = 10_000
_SAMPLE = 20
_ERRORS_SHOWN = 5


class ListContainerContentsParameters(WorkflowParameters):
    """Parameters of ``list_container_contents``."""

    container_name: str = Field(description="Container to list; spaces around the name are dropped.")
    file_limit: int | None = Field(
        None, description=f"Most blobs to list, counted after filtering: 1 to {_LARGEST_LIMIT}. Default: all."
    )
    filter: dict[str, Any] = Field(default_factory=dict, description=FILTER_DESCRIPTION)

    @model_validator(mode="before")
    @classmethod
    def _require_container(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("container_name"):
            raise ValueError("container_name is required")
        return data

    # mode "plain": these rules stand alone, so that what they let through and say is what the original did

    @field_validator("container_name", mode="plain")
    @classmethod
    def _check_container(cls, value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"container_name must be a string, got {type(value).__name__}")  # noqa: TRY004
        if not value.strip():
            raise ValueError("container_name is required")
        return check_container(value.strip())

    @field_validator("file_limit", mode="plain")
    @classmethod
    def _check_limit(cls, value: Any) -> int | None:
        if value is None:
            return None
        try:
            limit = int(value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"file_limit must be an integer, got {type(value).__name__}") from None
        if not 1 <= limit <= _LARGEST_LIMIT:
            raise ValueError(f"file_limit must be between 1 and {_LARGEST_LIMIT}, got {limit}")
        return limit

    @field_validator("filter", mode="plain")
    @classmethod
    def _check_filter(cls, value: Any) -> dict[str, Any]:
        return {} if value is None else check_filter(value)


def list_container_blobs(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """List the container, write the listing as Parquet, and return the names.

    ``blob_etags`` runs parallel to ``blob_names``; ``problems`` maps the position of a name that cannot be opened,
    as text, to what is wrong with it.

    Raises:
        ContainerNotFoundError: there is no such container.
        GeoAssetsError: as the store's ``list_blobs``.
    """
    started = time.monotonic()
    services = TaskContext(context).services
    container: str = params["container_name"]
    stream = EntryStream(
        services["blobs"],
        container,
        blob_filter=BlobFilter.from_parameter(params.get("filter")),
        limit=params.get("file_limit"),
    )
    path = listing_path(services["settings"].listings_path, container, context["job_id"])
    listing = write_listing(stream, path)
    # a blob and a dataset can have one name: the dataset, which comes last, holds what counts. A name with a problem is
    # only how it is shown, and may look like another blob's.
    entries = read_listing(path, ("name", "etag", "problem"))
    entries = entries.unique(("name", "problem"), keep="last", maintain_order=True)
    problems = {
        str(position): problem for position, problem in enumerate(entries["problem"].to_list()) if problem is not None
    }
    return {
        "success": True,
        "result": {
            "blob_names": entries["name"].to_list(),
            "blob_etags": entries["etag"].to_list(),
            "problems": problems,
            "total_count": entries.height,
            "unsupported_count": len(problems),
            "unsupported_names": list(problems.values())[:_SAMPLE],
            "listing_path": str(path),
            "changes": None if listing.changes is None else asdict(listing.changes),
            "execution_info": {
                "scan_duration_seconds": round(time.monotonic() - started, 3),
                "blobs_filtered": listing.counts.filtered_out,
                "blobs_scanned": listing.counts.blobs,
                "datasets": listing.counts.datasets,
                "dataset_parts": listing.counts.parts,
                "hit_file_limit": listing.hit_limit,
            },
        },
    }


def analyze_single_blob(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one blob or ``.gdb`` dataset, by one request.

    A blob that is gone since the listing has failed; a name that cannot be opened is invalid.

    Raises:
        GeoAssetsError: as the store's ``head``, but for a missing blob.
    """
    container, name = params["container_name"], params["blob_name"]
    failed = {"success": False, "blob_name": name, "container_name": container}
    if params.get("problem"):
        return {**failed, "error": params["problem"], "outcome": OutcomeKind.INVALID.value}
    store = TaskContext(context).services["blobs"]
    try:
        result = analyze_entry(store, container, name, listed_etag=params.get("listed_etag"))
    except BlobNotFoundError as error:
        return {
            **failed,
            "error": f"{error}; it was removed since the container was listed. List the container again.",
            "error_type": type(error).__name__,
            "outcome": OutcomeKind.FAILED.value,
            "transient": False,
        }
    return {"success": True, "result": result}


class ListContainerContents(Workflow):
    """A container's blobs, each analysed by a task of its own."""

    job_type = "list_container_contents"
    description = "Lists the blobs of a container and analyses each of them"
    Parameters = ListContainerContentsParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "list_blobs",
            "task_type": "list_container_blobs",
            "description": "List the blobs of the container that pass the filter",
            "parallelism": "single",
        },
        {
            "number": 2,
            "name": "analyze_blobs",
            "task_type": "analyze_single_blob",
            "description": "Analyse each blob",
            "parallelism": "fan_out",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {
        "list_container_blobs": list_container_blobs,
        "analyze_single_blob": analyze_single_blob,
    }

    asset = "container_contents"
    partition_set = "containers"
    key_parameter = "container_name"
    asset_deps = ("source_container",)
    group = "containers"
    kinds = frozenset({"parquet"})
    execution = "thread"
    tolerates_partial_failure = True

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task that lists, then one for each name it found.

        Raises:
            ValueError: stage 2 without the result of stage 1.
        """
        container = job_params["container_name"]
        if stage == 1:
            return [
                {
                    "task_id": task_id(job_id, 1, "list"),
                    "task_type": "list_container_blobs",
                    "parameters": {
                        "container_name": container,
                        "file_limit": job_params.get("file_limit"),
                        "filter": job_params.get("filter") or {},
                    },
                }
            ]
        if stage != len(cls.stages):
            return []
        if not previous_results or not previous_results[0].get("success"):
            raise ValueError("Stage 2 requires Stage 1 results: the listing of the container did not complete")
        listed = previous_results[0]["result"]
        names: list[str] = listed["blob_names"]
        etags: list[str | None] = listed.get("blob_etags") or [None] * len(names)
        problems: dict[str, str] = listed.get("problems") or {}
        return [
            _analysis_task(job_id, container, name, etag=etag, problem=problems.get(str(position)))
            for position, (name, etag) in enumerate(zip(names, etags, strict=True))
        ]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The original's summary over all analyses, with the listing's own counts beside it."""
        analyses = [task for task in context.task_results if task.task_type == "analyze_single_blob"]
        listed = next(
            (
                task.result_data.get("result") or {}
                for task in context.task_results
                if task.task_type == "list_container_blobs" and task.success
            ),
            {},
        )
        statuses = [task.status for task in context.task_results]
        counted = {
            "completed": statuses.count(TaskStatus.COMPLETED),
            "failed": statuses.count(TaskStatus.FAILED),
        }
        return {
            "job_type": cls.job_type,
            "container_name": context.parameters.get("container_name"),
            "file_limit": context.parameters.get("file_limit"),
            "filter": context.parameters.get("filter") or {},
            "summary": _summary(analyses, listed),
            "listing_path": listed.get("listing_path"),
            "changes": listed.get("changes"),
            "execution_info": listed.get("execution_info") or {},
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(statuses),
            "tasks_by_status": {**counted, "pending": len(statuses) - sum(counted.values())},
        }

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """A container changes without telling: a listing answers again for as long as the setting says."""
        return get_settings().listing_max_age

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Containers whose name starts with ``prefix``."""
        return [name for name in services["blobs"].list_containers() if name.startswith(prefix)]

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """Counts, bytes, a table of file types, and where the listing lies."""
        summary = result.get("summary") or {}
        shown = ("total_blobs_found", "successful_analyses", "failed_analyses", "invalid_names", "total_size_bytes")
        types: dict[str, int] = summary.get("file_types") or {}
        metadata: dict[str, Any] = {name: summary[name] for name in shown if name in summary}
        if "total_blobs_found" in summary:
            metadata["dagster/row_count"] = summary["total_blobs_found"]
        if types:
            most = dict(list(types.items())[:10])
            metadata["types"] = Markdown(bar_chart(most))
        return {
            **metadata,
            "file_types": [{"type": name, "count": count} for name, count in types.items()],
            "listing_path": result.get("listing_path"),
            "changes": result.get("changes"),
        }


def _analysis_task(job_id: str, container: str, name: str, *, etag: str | None, problem: str | None) -> dict[str, Any]:
    parameters = {"container_name": container, "blob_name": name, "listed_etag": etag}
    if problem is None:
        unit = name
    else:
        parameters["problem"] = problem
        # the printable form of a bad name could be another blob's name; a line break cannot be in one
        unit = f"{name}\n"
    return {"task_id": task_id(job_id, 2, unit), "task_type": "analyze_single_blob", "parameters": parameters}


def _summary(analyses: list[TaskResult], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Counts that add up: analysed = successful + failed + invalid + pending."""
    good = [task.result_data.get("result") or {} for task in analyses if task.success]
    bad = [task for task in analyses if task.status is TaskStatus.FAILED]
    invalid = sum(task.result_data.get("outcome") == OutcomeKind.INVALID for task in bad)
    types: dict[str, int] = {}
    for result in good:
        extension = str(result.get("file_extension") or "").lstrip(".") or "no_extension"
        types[extension] = types.get(extension, 0) + 1
    total = sum(int(result.get("size_bytes") or 0) for result in good)
    largest = max(good, key=lambda result: int(result.get("size_bytes") or 0), default=None)
    return {
        "total_blobs_found": listed.get("total_count", 0),
        "blobs_analyzed": len(analyses),
        "successful_analyses": len(good),
        "failed_analyses": len(bad) - invalid,
        "invalid_names": invalid,
        "pending_analyses": len(analyses) - len(good) - len(bad),
        "success_rate": f"{100 * len(good) / len(analyses):.1f}%" if analyses else "0.0%",
        "replaced_since_listing": sum(bool(result.get("replaced_since_listing")) for result in good),
        "total_size_bytes": total,
        "total_size_gb": round(total / BYTES_PER_MB / 1024, 3),
        "total_size_mb": round(total / BYTES_PER_MB, 1),
        "file_types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "unique_extensions": len(types),
        "largest_file": None
        if largest is None
        else {"name": largest.get("blob_name"), "size_mb": largest.get("size_mb")},
        "errors_sample": [
            {"task_id": f"{task.task_id[:16]}...", "error": task.error_details or task.result_data.get("error")}
            for task in bad[:_ERRORS_SHOWN]
        ],
        "unsupported_names": listed.get("unsupported_names") or [],
    }
