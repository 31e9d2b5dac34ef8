"""The ``summarize_container`` workflow: statistics of a container in one task.

What belongs here: its parameters, stage, task, handler and aggregation.  What does not: the statistics
(``geo_assets.containers.summary``).

Its job id is the hash of exactly the parameters that were given: a default is not filled in, and ``filter: null`` is
the same as no filter.  Against the original, on purpose: unknown parameters are refused instead of hashed, the limit
counts after filtering, and dates work with and without a time zone.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from geo_assets.containers.filter import BlobFilter
from geo_assets.containers.summary import summarize
from geo_assets.coremachine.contract import (
    Handler,
    JobExecutionContext,
    Markdown,
    TaskContext,
    TaskStatus,
    Workflow,
    WorkflowParameters,
)
from geo_assets.jobs.container_parameters import (
    DETAIL_DESCRIPTION,
    FILTER_DESCRIPTION,
    check_container,
    check_filter,
    kinds_table,
    without_new_defaults,
)
from geo_assets.pictures import bar_chart
from geo_assets.settings import get_settings
from geo_assets.stores.blobs import Detail

__all__ = ["SummarizeContainer", "SummarizeContainerParameters", "container_summary_task"]


class SummarizeContainerParameters(WorkflowParameters):
    """Parameters of ``summarize_container``."""

    container_name: str = Field(description="Container to summarize, exactly as it is named.")
    # null only by leaving it out; the original refused it when given
    file_limit: int | None = Field(
        None, description="Most files to count, counted after filtering: 1 or more. Default: all."
    )
    filter: dict[str, Any] | None = Field(None, description=FILTER_DESCRIPTION)
    detail: Detail = Field("basic", description=DETAIL_DESCRIPTION)

    @model_validator(mode="before")
    @classmethod
    def _require_container(cls, data: Any) -> Any:
        if isinstance(data, dict) and "container_name" not in data:
            raise ValueError("Missing required parameter: container_name")
        return data

    # mode "plain": these rules stand alone, so that what they let through and say is what the original did

    @field_validator("container_name", mode="plain")
    @classmethod
    def _check_container(cls, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError("container_name must be a non-empty string")
        return check_container(value)

    @field_validator("file_limit", mode="plain")
    @classmethod
    def _check_limit(cls, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError("file_limit must be a positive integer")
        return value

    @field_validator("filter", mode="plain")
    @classmethod
    def _check_filter(cls, value: Any) -> dict[str, Any] | None:
        return None if value is None else check_filter(value)


def container_summary_task(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Read the container once and return its statistics.

    Raises:
        ContainerNotFoundError: there is no such container.
        GeoAssetsError: as the store's ``list_blobs``.
    """
    started = time.monotonic()
    container: str = params["container_name"]
    services = TaskContext(context).services
    summary = summarize(
        services["blobs"],
        container,
        blob_filter=BlobFilter.from_parameter(params.get("filter")),
        limit=params.get("file_limit"),
        detail=params.get("detail") or "basic",
        scratch=services["settings"].scratch_path,
    )
    return {
        "success": True,
        "result": {
            "container_name": container,
            "analysis_timestamp": datetime.now(UTC).isoformat(),
            "filter_applied": params.get("filter"),
            "statistics": {**summary.statistics, "duplicates": summary.duplicates},
            "execution_info": {
                "files_scanned": summary.counts.blobs,
                "files_filtered": summary.counts.filtered_out,
                "scan_duration_seconds": round(time.monotonic() - started, 3),
                "hit_file_limit": summary.hit_limit,
                "datasets": summary.counts.datasets,
                "dataset_parts": summary.counts.parts,
                "files_beyond_limit": summary.counts.beyond_limit,
                "unsupported_names": summary.counts.unsupported,
            },
        },
    }


class SummarizeContainer(Workflow):
    """A container's statistics."""

    job_type = "summarize_container"
    description = "Summarizes a container: counts, sizes, types and dates of its files"
    Parameters = SummarizeContainerParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "analyze_container",
            "task_type": "container_summary_task",
            "description": "Read the container and compute its statistics",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"container_summary_task": container_summary_task}

    asset = "container_summary"
    partition_set = "containers"
    key_parameter = "container_name"
    asset_deps = ("container_contents",)
    group = "containers"
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "containers"}
    kinds = frozenset({"polars"})
    execution = "thread"

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """The parameters that were given, ``filter: null`` and defaults the original did not know left out."""
        given = without_new_defaults(model, model.model_dump(mode="json", exclude_unset=True))
        return {name: value for name, value in given.items() if name != "filter" or value is not None}

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """The one task."""
        del previous_results
        if stage != 1:
            return []
        return [
            {
                "task_id": f"{job_id[:8]}-s1-summary",
                "task_type": "container_summary_task",
                "parameters": {
                    **{name: job_params.get(name) for name in ("container_name", "file_limit", "filter")},
                    **({"detail": job_params["detail"]} if "detail" in job_params else {}),
                },
            }
        ]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The task's statistics with the job's parameters, or its error."""
        head = {
            "job_type": cls.job_type,
            "container_name": context.parameters.get("container_name"),
            "file_limit": context.parameters.get("file_limit"),
            "filter": context.parameters.get("filter"),
        }
        if not context.task_results:
            return {**head, "error": "No task results found", "success": False}
        task = context.task_results[0]
        if task.status is not TaskStatus.COMPLETED:
            error = task.error_details or task.result_data.get("error") or "the task did not complete"
            return {**head, "error": error, "success": False, "task_status": task.status.value}
        result = task.result_data.get("result")
        if not isinstance(result, dict):
            return {
                **head,
                "error": "the task returned no result",
                "success": False,
                "task_status": task.status.value,
                "raw_task_result": task.result_data,
            }
        return {
            **head,
            "analysis_timestamp": result.get("analysis_timestamp"),
            "summary": result.get("statistics") or {},
            "execution_info": result.get("execution_info") or {},
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(context.task_results),
            "task_status": task.status.value,
            "success": True,
        }

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """A container changes without telling: a summary answers again for as long as the setting says."""
        return get_settings().listing_max_age

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Containers whose name starts with ``prefix``."""
        return [name for name in services["blobs"].list_containers() if name.startswith(prefix)]

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """Counts, bytes, and the tables of file types, sizes and largest files."""
        summary = result.get("summary") or {}
        shown = ("total_files", "total_size_bytes", "total_size_gb", "date_range")
        types: dict[str, dict[str, Any]] = summary.get("file_types") or {}
        sizes: dict[str, int] = summary.get("size_distribution") or {}
        metadata: dict[str, Any] = {name: summary[name] for name in shown if name in summary}
        if "total_files" in summary:
            metadata["dagster/row_count"] = summary["total_files"]
        if sum(sizes.values()):
            metadata["sizes"] = Markdown(bar_chart(sizes))
            metadata["types"] = Markdown(_types_chart(types))
        return {
            **metadata,
            "file_types": [{"type": name, **counts} for name, counts in types.items()],
            "kinds": kinds_table(summary),
            "largest_files": summary.get("largest_files") or [],
        }


def _types_chart(types: Mapping[str, Mapping[str, Any]]) -> str:
    most = sorted(types.items(), key=lambda item: -item[1]["count"])[:10]
    return bar_chart({name: counts["count"] for name, counts in most})
