"""The ``list_container_contents`` workflow: list a container, then analyse each of its blobs.

What belongs here: its parameters, stages, tasks, handlers and aggregation.  What does not: reading containers
(``geo_assets.containers``).

Against the original, on purpose: the limit counts blobs after filtering; dates work with and without a time zone;
``filter: null`` is the same as none; a ``.gdb`` folder is one dataset and analyses well; names that cannot be
opened are analysed as ``invalid`` instead of failing the listing; a blob replaced since it was listed says so.  An
analysis takes what the listing said and reads at most the first bytes, where the original asked for each blob again;
so content type and metadata of what is no raster or vector are known with ``detail: full`` only.
"""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, field_validator, model_validator

from geo_assets.containers.analysis import describe, needs_reading
from geo_assets.containers.entries import EntryStream
from geo_assets.containers.filter import BYTES_PER_MB, BlobFilter
from geo_assets.containers.listing import Listing, read_listing, write_listing
from geo_assets.containers.listing_store import ListingStore
from geo_assets.containers.tally import Tally
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
from geo_assets.errors import BlobNotFoundError, GeoAssetsError, TransientError
from geo_assets.jobs.container_parameters import (
    DETAIL_DESCRIPTION,
    FILTER_DESCRIPTION,
    check_container,
    check_filter,
    kinds_table,
    without_new_defaults,
)
from geo_assets.pictures import bar_chart
from geo_assets.settings import Settings, get_settings
from geo_assets.stores.blobs import BlobStore, Detail

__all__ = ["ListContainerContents", "ListContainerContentsParameters", "analyze_single_blob", "list_container_blobs"]

_LARGEST_LIMIT = 10_000
_SAMPLE = 20
_ERRORS_SHOWN = 5
_FRAME = 100_000
"""Rows handled at once while listing."""
_SLICE = 1000
"""Rows of a listing in one task, where there are too many for a task each."""
_IN_FLIGHT = 8
"""Reads at once of such a task; several such tasks run at once."""
_PASSED_ON = (
    "size", "last_modified", "file_count", "kind", "dataset", "role", "complete", "missing", "change", "content_type",
    "content_md5", "metadata", "tags",
)  # fmt: skip
"""Columns of the listing that an analysis is given beside name and ETag."""


class ListContainerContentsParameters(WorkflowParameters):
    """Parameters of ``list_container_contents``."""

    container_name: str = Field(description="Container to list; spaces around the name are dropped.")
    file_limit: int | None = Field(
        None, description=f"Most blobs to list, counted after filtering: 1 to {_LARGEST_LIMIT}. Default: all."
    )
    filter: dict[str, Any] = Field(default_factory=dict, description=FILTER_DESCRIPTION)
    detail: Detail = Field("basic", description=DETAIL_DESCRIPTION)
    magic: bool = Field(
        default=True,
        description="Whether the first bytes of rasters and vectors are read, to see if they are what they say.",
    )

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
    """List the container, keep the listing as a table, and return what the next stage needs of it.

    Up to the setting ``tasks_a_job_limit`` that is ``blob_names`` and, parallel to it, ``blob_etags`` and the columns
    of ``blobs``; ``problems`` maps the position of a name that cannot be opened, as text, to what is wrong with it.
    Beyond, it is the listing's reference and the ``slice_size``: a task reads its rows itself.

    Raises:
        ContainerNotFoundError: there is no such container.
        GeoAssetsError: as the store's ``list_blobs`` and the listing store.
    """
    started = time.monotonic()
    services = TaskContext(context).services
    settings: Settings = services["settings"]
    listings: ListingStore = services["listings"]
    container: str = params["container_name"]
    stream = EntryStream(
        services["blobs"],
        container,
        blob_filter=BlobFilter.from_parameter(params.get("filter")),
        limit=params.get("file_limit"),
        detail=params.get("detail") or "basic",
        rows=_FRAME,
    )
    listing = write_listing(stream, listings, container, context["job_id"], scratch=settings.scratch_path)
    counts = listing.counts
    result: dict[str, Any] = {
        "total_count": listing.rows,
        "unsupported_count": counts.unsupported,
        "unsupported_names": _problems(listings, listing) if counts.unsupported else [],
        "listing": {"container": container, "key": listing.key, "version": listing.version},
        "listing_path": listing.location,
        "changes": None if listing.changes is None else asdict(listing.changes),
        "removed_sample": listing.removed_sample,
        "datasets": {**listing.datasets, "incomplete_sample": listing.incomplete_sample},
        "duplicates": listing.duplicates,
        "statistics": listing.statistics,
        "execution_info": {
            "scan_duration_seconds": round(time.monotonic() - started, 3),
            "blobs_filtered": counts.filtered_out,
            "blobs_scanned": counts.blobs,
            "datasets": counts.datasets,
            "dataset_parts": counts.parts,
            "hit_file_limit": listing.hit_limit,
        },
    }
    if listing.rows > settings.tasks_a_job_limit:
        result["slice_size"] = _SLICE
    else:
        result.update(_columns(listings, listing))
    return {"success": True, "result": result}


def _problems(listings: ListingStore, listing: Listing) -> list[str]:
    """Up to 20 of the problems of names that cannot be opened."""
    found: list[str] = []
    for frame in listings.frames(listing.container, listing.key, columns=["problem"], version=listing.version):
        found += frame["problem"].drop_nulls().head(_SAMPLE - len(found)).to_list()
        if len(found) == _SAMPLE:
            break
    return found


def _columns(listings: ListingStore, listing: Listing) -> dict[str, Any]:
    """The listing as lists; columns without any value are left out."""
    columns = ["name", "etag", "problem", *_PASSED_ON]
    entries = read_listing(listings, listing.container, listing.key, columns)
    problems = {str(row): problem for row, problem in enumerate(entries["problem"].to_list()) if problem is not None}
    entries = entries.with_columns(pl.col("last_modified").dt.to_string("%Y-%m-%dT%H:%M:%S%.6f+00:00"))
    return {
        "blob_names": entries["name"].to_list(),
        "blob_etags": entries["etag"].to_list(),
        "problems": problems,
        "blobs": {name: entries[name].to_list() for name in _PASSED_ON if entries[name].null_count() < entries.height},
    }


def analyze_single_blob(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Describe one blob or ``.gdb`` dataset, or those of a slice of a long listing.

    Rasters and vectors (by name) take one small read, unless ``magic`` is off; everything else no request at all.  A
    blob that is read and gone since the listing has failed; a name that cannot be opened is invalid.

    Raises:
        GeoAssetsError: as the store's ``read_start``, but for a missing blob; and as the listing store.
    """
    services = TaskContext(context).services
    magic = params.get("magic", True)
    if "first" in params:
        return _analyze_slice(params, services, magic=magic)
    container, name = params["container_name"], params["blob_name"]
    failed = {"success": False, "blob_name": name, "container_name": container}
    if params.get("problem"):
        return {**failed, "error": params["problem"], "outcome": OutcomeKind.INVALID.value}
    listed = {**params["listed"], "name": name, "etag": params.get("listed_etag")}
    try:
        result = describe(services["blobs"], container, listed, magic=magic)
    except BlobNotFoundError as error:
        return {
            **failed,
            "error": _was_removed(error),
            "error_type": type(error).__name__,
            "outcome": OutcomeKind.FAILED.value,
            "transient": False,
        }
    return {"success": True, "result": result}


def _was_removed(error: BlobNotFoundError) -> str:
    return f"{error}; it was removed since the container was listed. List the container again."


def _analyze_slice(params: Mapping[str, Any], services: Mapping[str, Any], *, magic: bool) -> dict[str, Any]:
    """Describe the rows of a slice, many in flight, and return counts and what is bad."""
    container: str = params["container_name"]
    key, version = params["listing"]["key"], params["listing"]["version"]
    frames = services["listings"].frames(container, key, first=params["first"], last=params["last"], version=version)
    rows = [row for frame in frames for row in frame.iter_rows(named=True)]
    tally = Tally()
    to_read = []
    for row in rows:
        if row["problem"] is not None:
            tally.add_bad(row["name"], row["problem"], invalid=True)
        elif magic and needs_reading(row):
            to_read.append(row)
        else:
            tally.add(describe(services["blobs"], container, row, magic=False))
    transient = _read_many(services["blobs"], container, to_read, tally)
    result = {"result": {"first": params["first"], "last": params["last"], **tally.to_dict()}}
    bad = tally.failed + tally.invalid
    if not bad:
        return {"success": True, **result}
    return {
        "success": False,
        **result,
        "error": f"{bad} of {len(rows)} blobs failed or are invalid, for instance {tally.errors[0]['error']}",
        "outcome": (OutcomeKind.FAILED if tally.failed else OutcomeKind.INVALID).value,
        "transient": transient,
    }


def _read_many(store: BlobStore, container: str, rows: list[dict[str, Any]], tally: Tally) -> bool:
    """Describe the blobs of ``rows`` into ``tally``; return whether one failed that may pass another time."""
    transient = False
    with ThreadPoolExecutor(max(1, min(_IN_FLIGHT, len(rows)))) as pool:
        described = [(row, pool.submit(describe, store, container, row)) for row in rows]
        for row, future in described:
            try:
                tally.add(future.result())
            except BlobNotFoundError as error:
                tally.add_bad(row["name"], _was_removed(error))
            except GeoAssetsError as error:
                transient = transient or isinstance(error, TransientError)
                tally.add_bad(row["name"], f"{type(error).__name__}: {error}")
    return transient


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
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "containers"}
    kinds = frozenset({"parquet"})
    execution = "thread"
    tolerates_partial_failure = True

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """All parameters; those the original did not have only where they are not the default."""
        return without_new_defaults(model, model.model_dump(mode="json"))

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task that lists, then one for each name it found, or for each slice of a listing with very many.

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
                        **({"detail": job_params["detail"]} if "detail" in job_params else {}),
                    },
                }
            ]
        if stage != len(cls.stages):
            return []
        if not previous_results or not previous_results[0].get("success"):
            raise ValueError("Stage 2 requires Stage 1 results: the listing of the container did not complete")
        listed = previous_results[0]["result"]
        make = _analysis_tasks if listed.get("slice_size") is None else _slice_tasks
        return make(job_id, container, listed, magic=job_params.get("magic", True))

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
        """Counts, bytes, tables of file types, kinds, changes and what needs a look, and where the listing lies."""
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
            "kinds": kinds_table(summary),
            "changes": [{"change": name, "count": count} for name, count in (result.get("changes") or {}).items()],
            "format_mismatches": (summary.get("format_mismatches") or {}).get("sample") or [],
            "incomplete_datasets": (summary.get("datasets") or {}).get("incomplete_sample") or [],
            "listing_path": result.get("listing_path"),
        }


def _analysis_tasks(job_id: str, container: str, listed: Mapping[str, Any], *, magic: bool) -> list[dict[str, Any]]:
    """A task for each name."""
    names: list[str] = listed["blob_names"]
    problems: dict[str, str] = listed["problems"]
    tasks = []
    for position, (name, etag) in enumerate(zip(names, listed["blob_etags"], strict=True)):
        parameters = {"container_name": container, "blob_name": name, "listed_etag": etag}
        problem = problems.get(str(position))
        if problem is None:
            unit = name
            values = {column: found[position] for column, found in listed["blobs"].items()}
            parameters["listed"] = {column: value for column, value in values.items() if value is not None}
            parameters |= {} if magic else {"magic": False}
        else:
            parameters["problem"] = problem
            # the printable form of a bad name could be another blob's name; a line break cannot be in one
            unit = f"{name}\n"
        tasks.append(
            {"task_id": task_id(job_id, 2, unit), "task_type": "analyze_single_blob", "parameters": parameters}
        )
    return tasks


def _slice_tasks(job_id: str, container: str, listed: Mapping[str, Any], *, magic: bool) -> list[dict[str, Any]]:
    """A task for each slice of the listing."""
    total, size = listed["total_count"], listed["slice_size"]
    return [
        {
            # a line break cannot be in a name, so no blob's task has this id
            "task_id": task_id(job_id, 2, f"rows\n{first}"),
            "task_type": "analyze_single_blob",
            "parameters": {
                "container_name": container,
                "listing": listed["listing"],
                "first": first,
                "last": min(first + size, total),
                **({} if magic else {"magic": False}),
            },
        }
        for first in range(0, total, size)
    ]


def _tally(analyses: list[TaskResult], listed: Mapping[str, Any]) -> Tally:
    """What became of each blob, whether it had a task of its own or shared one."""
    tally = Tally()
    size, total = listed.get("slice_size"), listed.get("total_count", 0)
    for task in analyses:
        result = task.result_data.get("result") or {}
        blobs = 1 if size is None else min(size, total - task.task_index * size)
        error = task.error_details or task.result_data.get("error")
        if size is not None and "successful" in result:
            tally.merge(result, task_id=task.task_id)
        elif task.success:
            tally.add(result)
        elif task.status is TaskStatus.FAILED:
            invalid = task.result_data.get("outcome") == OutcomeKind.INVALID
            tally.add_bad("", error, invalid=invalid, blobs=blobs, task_id=task.task_id)
        else:
            tally.pending += blobs
    return tally


def _summary(analyses: list[TaskResult], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Counts that add up: analysed = successful + failed + invalid + pending."""
    tally = _tally(analyses, listed)
    analysed = tally.successful + tally.failed + tally.invalid + tally.pending
    statistics: Mapping[str, Any] = listed.get("statistics") or {}
    types = tally.common_types()
    return {
        "total_blobs_found": listed.get("total_count", 0),
        "blobs_analyzed": analysed,
        "successful_analyses": tally.successful,
        "failed_analyses": tally.failed,
        "invalid_names": tally.invalid,
        "pending_analyses": tally.pending,
        "success_rate": f"{100 * tally.successful / analysed:.1f}%" if analysed else "0.0%",
        "replaced_since_listing": tally.replaced,
        "total_size_bytes": tally.size,
        "total_size_gb": round(tally.size / BYTES_PER_MB / 1024, 3),
        "total_size_mb": round(tally.size / BYTES_PER_MB, 1),
        "file_types": types,
        "unique_extensions": len(types),
        "largest_file": tally.largest,
        "errors_sample": [
            {"task_id": f"{(error.get('task_id') or '')[:16]}...", "error": error["error"]}
            for error in tally.errors[:_ERRORS_SHOWN]
        ],
        "unsupported_names": listed.get("unsupported_names") or [],
        **{name: statistics.get(name) for name in ("kinds", "size_distribution", "largest_files", "oldest", "newest")},
        "datasets": listed.get("datasets"),
        "changes": listed.get("changes"),
        "removed_sample": listed.get("removed_sample") or [],
        "duplicates": listed.get("duplicates"),
        "formats": dict(sorted(tally.formats.items(), key=lambda item: (-item[1], item[0]))),
        "format_mismatches": {"count": tally.mismatches, "sample": tally.mismatch_sample},
    }
