"""The ``stac_catalog_container`` workflow: every raster of a container in the catalog, each by a task of its own.

What belongs here: its parameters, stages, tasks and aggregation, and what vanished from the container.  What does
not: the task of one blob (``stac_catalog_raster``), making items (``raster_cataloguing``).

Against the original, on purpose: only what is new or changed is opened; an item that says the same is not written
again; bad files are named and do not stop the others; ids are unambiguous unless the legacy rule is asked for; an
empty container is a finished job; what vanished is reported and, with ``prune``, removed.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    EndedTask,
    Handler,
    JobExecutionContext,
    Markdown,
    OutcomeKind,
    PartitionNews,
    TaskContext,
    TaskResult,
    TaskStatus,
    Workflow,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.task_outcome import execute
from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, GeoAssetsError, TransientError
from geo_assets.jobs.blob_tasks import failed
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.container_parameters import check_container
from geo_assets.jobs.raster_cataloguing import (
    ITEM_ASSET,
    CatalogueParameters,
    ItemRequest,
    catalogued_metadata,
    thumbnail_place,
)
from geo_assets.jobs.stac_catalog_raster import extract_stac_metadata
from geo_assets.pictures import bar_chart
from geo_assets.settings import Settings, get_settings
from geo_assets.stac.items import DescribedBlob
from geo_assets.stores.blobs import BlobStore, holds_anything
from geo_assets.stores.catalog import CatalogStore

__all__ = ["StacCatalogContainer", "StacCatalogContainerParameters", "list_raster_files"]

_LARGEST_LIMIT = 10_000
_SLICE = 50
"""Blobs a task takes where there are too many for a task each."""
_MOST_SLICED = 1_000_000
"""Most new or changed blobs of one job; more are left for the next."""
_SHOWN = 100
"""Most bad files, and most vanished ones, that a job's result names; all bad ones are tasks in the ledger."""
_GOOD = tuple(kind.value for kind in OutcomeKind if kind.is_good)
_ITEM_PARAMETERS = ("collection_id", "stac_version", "datetime_pattern", "id_rule")


class StacCatalogContainerParameters(CatalogueParameters):
    """Parameters of ``stac_catalog_container``."""

    container_name: str = Field(description="Container whose rasters are catalogued.")
    collection_id: str = Field("dev", description="Collection of the items; made on first use.")
    extension_filter: str = Field(
        ".tif", description="Ending of the blobs that count, in any case; several with commas: .tif,.tiff."
    )
    prefix: str = Field("", description="Only blobs whose name starts with this.")
    file_limit: int | None = Field(
        None, description=f"Most rasters to look at: 1 to {_LARGEST_LIMIT}. Default: all. What vanished is not known."
    )
    prune: bool = Field(
        default=False, description="Whether items of blobs that are no longer in the container are removed."
    )

    @model_validator(mode="before")
    @classmethod
    def _require_container(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("container_name"):
            raise ValueError("container_name is required")
        return data

    @field_validator("container_name", mode="plain")
    @classmethod
    def _check_container(cls, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("container_name must be a non-empty string")
        return check_container(value.strip())

    @field_validator("extension_filter", mode="plain")
    @classmethod
    def _check_extensions(cls, value: Any) -> str:
        endings = [ending.strip().lower() for ending in value.split(",")] if isinstance(value, str) else []
        if not endings or not all(endings):
            raise ValueError("extension_filter must be an ending such as .tif, or several with commas between them")
        return ",".join(ending if ending.startswith(".") else f".{ending}" for ending in endings)

    @field_validator("file_limit", mode="plain")
    @classmethod
    def _check_limit(cls, value: Any) -> int | None:
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST_LIMIT:
            raise ValueError(f"file_limit must be between 1 and {_LARGEST_LIMIT}, got {value!r}")
        return value


# --- stage 1 -----------------------------------------------------------------------------------------------------


def list_raster_files(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """List the rasters of the container and compare them with the catalog.

    Returns:
        ``raster_files``: names to open, new or changed, and the ``slice_size`` where a task takes several of them;
        ``problems``: names that cannot be opened, and why; ``unchanged_files``; and what vanished, removed from the
        catalog with ``prune``.

    Raises:
        ContainerNotFoundError: there is no such container.
        GeoAssetsError: as the stores'.
    """
    started = time.monotonic()
    services = TaskContext(context).services
    settings: Settings = services["settings"]
    known = _Known(services["catalog"], params)
    a_task_each = settings.tasks_a_job_limit
    found = _Found(limit=max(a_task_each, _MOST_SLICED), file_limit=params.get("file_limit"))
    for name, etag, problem in _rasters(services["blobs"], params, found):
        if problem is not None:
            found.refuse(name, problem)
        elif known.has(name, etag):
            found.unchanged.append(name)
        else:
            found.take(name)
    vanished = {} if found.limited else known.vanished()
    prunes = bool(params.get("prune") and vanished)
    if prunes and not found.scanned and not holds_anything(services["blobs"], params["container_name"]):
        container = params["container_name"]
        return failed(
            "CONTAINER_EMPTY",
            f"{container} holds nothing at all, so the items of the {len(vanished)} blobs that were in it stay: is its"
            " disk mounted? If it was emptied on purpose, take them back with: geo-assets unpublish raster_stac_item",
            {"container_name": container},
        )
    pruned = _prune(services, params, vanished) if prunes else 0
    return {
        "success": True,
        # what it makes, its tasks make
        "outcome": (OutcomeKind.UPDATED if pruned else OutcomeKind.UNCHANGED).value,
        "result": {
            "raster_files": found.changed,
            "slice_size": None if len(found.changed) <= a_task_each else _SLICE,
            "unchanged_files": found.unchanged[:a_task_each],
            "unchanged_count": len(found.unchanged),
            "problems": found.problems,
            "left_for_later": found.left,
            "total_count": len(found.changed) + len(found.unchanged) + len(found.problems) + found.left,
            "vanished_count": None if found.limited else len(vanished),
            "vanished_files": sorted(vanished)[:_SHOWN],
            "pruned_count": pruned,
            "pruned_files": sorted(vanished) if pruned else [],
            "container_name": params["container_name"],
            "extension_filter": params["extension_filter"],
            "prefix": params["prefix"],
            "execution_info": {
                "scan_duration_seconds": round(time.monotonic() - started, 3),
                "total_blobs_scanned": found.scanned,
                "raster_files_found": len(found.changed) + len(found.unchanged) + found.left,
                "file_limit_applied": found.limited,
            },
        },
    }


class _Found:
    """What the listing holds, sorted by what is to be done."""

    def __init__(self, *, limit: int, file_limit: int | None) -> None:
        self._limit = limit
        self._file_limit = file_limit
        self.scanned = 0
        self.changed: list[str] = []
        self.unchanged: list[str] = []
        self.problems: dict[str, str] = {}
        self.left = 0
        """Not taken: left for the next job."""
        self.limited = False

    @property
    def full(self) -> bool:
        """Whether as many were found as were asked for."""
        seen = len(self.changed) + len(self.unchanged) + len(self.problems)
        return self._file_limit is not None and seen >= self._file_limit

    def take(self, name: str) -> None:
        """Note a name to open, or that it must wait for the next run."""
        if len(self.changed) < self._limit:
            self.changed.append(name)
        else:
            self.left += 1

    def refuse(self, name: str, problem: str) -> None:
        """Note a name that cannot be opened."""
        if len(self.problems) < self._limit:
            self.problems[name] = problem
        else:
            self.left += 1


def _rasters(
    blobs: BlobStore, params: Mapping[str, Any], found: _Found
) -> Iterable[tuple[str, str | None, str | None]]:  # fmt: skip
    """Name, ETag and problem of every blob that counts."""
    for batch in blobs.list_blobs(params["container_name"], params["prefix"]):
        columns = (batch.column(name).to_pylist() for name in ("name", "etag", "problem"))
        for name, etag, problem in zip(*columns, strict=True):
            found.scanned += 1
            if name is None or not _counts(name, params):
                continue
            if found.full:
                found.limited = True
                return
            yield name, etag, problem


def _counts(name: str, params: Mapping[str, Any]) -> bool:
    return name.startswith(params["prefix"]) and name.lower().endswith(tuple(params["extension_filter"].split(",")))


class _Known:
    """What the catalog has of the container's blobs."""

    def __init__(self, catalog: CatalogStore, params: Mapping[str, Any]) -> None:
        self._params = params
        described = catalog.described_blobs(params["collection_id"], container=params["container_name"])
        self._items: dict[str, list[tuple[str, DescribedBlob]]] = {}
        for item_id, blob in described.items():
            if _counts(blob.blob, params):
                self._items.setdefault(blob.blob, []).append((item_id, blob))
        self._seen: set[str] = set()

    def has(self, name: str, etag: str | None) -> bool:
        """Whether this version of a blob is catalogued the way it would be now; the blob is seen."""
        self._seen.add(name)
        request = ItemRequest.from_parameters(self._params, container=self._params["container_name"], blob=name)
        return any(
            item_id == request.item_id and blob.etag == etag and blob.recipe == request.recipe
            for item_id, blob in self._items.get(name, ())
        )

    def vanished(self) -> dict[str, list[str]]:
        """Blob → ids of its items, for blobs that were not seen."""
        return {
            name: [item_id for item_id, _ in items] for name, items in self._items.items() if name not in self._seen
        }


def _prune(services: Mapping[str, Any], params: Mapping[str, Any], vanished: Mapping[str, Sequence[str]]) -> int:
    """Remove the items of vanished blobs, and their thumbnails; how many items that were."""
    catalog: CatalogStore = services["catalog"]
    blobs: BlobStore = services["blobs"]
    ids = [item_id for items in vanished.values() for item_id in items]
    outcomes = catalog.delete_items(params["collection_id"], ids)
    for name in _described_nowhere_else(catalog, params, vanished):
        place = thumbnail_place(services["settings"], {"container": params["container_name"], "name": name})
        with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError):
            blobs.delete(place["container"], place["name"])
    return sum(outcome.status.value == "deleted" for outcome in outcomes)


def _described_nowhere_else(
    catalog: CatalogStore, params: Mapping[str, Any], names: Iterable[str]
) -> set[str]:  # fmt: skip
    """Those of these blobs of which no collection has an item: their thumbnails are nobody's."""
    left = set(names)
    for collection in catalog.list_collections():
        described = catalog.described_blobs(collection, container=params["container_name"])
        left.difference_update(blob.blob for blob in described.values())
    return left


def extract_stac(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Catalogue one blob of the listing; a name that cannot be opened is invalid, one that is gone has failed."""
    if "blob_names" in params:
        return _extract_slice(params, context)
    if "unchanged" in params:
        return {
            "success": True,
            "outcome": OutcomeKind.UNCHANGED.value,
            "reason": f"the catalog has these versions of {params['unchanged']:,} blobs",
            "result": {"unchanged": params["unchanged"]},
        }
    head = {name: params[name] for name in ("blob_name", "container_name", "collection_id")}
    if params.get("problem"):
        return {"success": False, "outcome": OutcomeKind.INVALID.value, "error": params["problem"], "result": head}
    try:
        return extract_stac_metadata(params, context)
    except BlobNotFoundError as error:
        return failed("BLOB_GONE", f"{error}; it was removed since the container was listed", head)
    except GeoAssetsError as error:
        transient = isinstance(error, TransientError)
        return failed("NOT_CATALOGUED", f"{type(error).__name__}: {error}", head, transient=transient)


def _extract_slice(params: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Catalogue several blobs, one after the other; what becomes of one does not touch the others."""
    shared = {name: value for name, value in params.items() if name != "blob_names"}
    ended = [(name, execute(extract_stac, {**shared, "blob_name": name}, context)) for name in params["blob_names"]]
    bad = [(name, outcome) for name, outcome in ended if not outcome.kind.is_good]
    result = {
        "counts": dict(Counter(outcome.kind.value for _, outcome in ended)),
        "bad": [
            {"blob_name": name, "outcome": outcome.kind.value, "error": outcome.reason or outcome.error}
            for name, outcome in bad
        ],
        # what is shown of each blob; not kept
        PICTURES: [
            {
                "blob_name": name,
                "outcome": outcome.kind.value,
                "reason": outcome.reason or outcome.error,
                "result": outcome.result_data.get("result") or {},
            }
            for name, outcome in ended
        ],
    }
    if not bad:
        changed = any(outcome.kind not in (OutcomeKind.UNCHANGED, OutcomeKind.SKIPPED) for _, outcome in ended)
        return {
            "success": True,
            "outcome": (OutcomeKind.CREATED if changed else OutcomeKind.UNCHANGED).value,
            "result": result,
        }
    return {
        "success": False,
        "outcome": (
            OutcomeKind.INVALID if all(o.kind is OutcomeKind.INVALID for _, o in bad) else OutcomeKind.FAILED
        ).value,
        "error": f"{len(bad)} of {len(ended)} blobs failed or are invalid, for instance {bad[0][0]}:"
        f" {bad[0][1].reason or bad[0][1].error}",
        "transient": any(outcome.transient for _, outcome in bad),
        "result": result,
    }


# --- the workflow ------------------------------------------------------------------------------------------------


class StacCatalogContainer(Workflow):
    """All rasters of a container in the catalog."""

    job_type = "stac_catalog_container"
    description = "Catalogues the rasters of a container: an item each, only what is new or changed"
    Parameters = StacCatalogContainerParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "list_rasters",
            "task_type": "list_raster_files",
            "description": "List the rasters and compare them with the catalog",
            "parallelism": "single",
        },
        {
            "number": 2,
            "name": "extract_stac",
            "task_type": "extract_stac_metadata",
            "description": "Describe each raster and write its item",
            "parallelism": "fan_out",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {
        "list_raster_files": list_raster_files,
        "extract_stac_metadata": extract_stac,
    }

    asset = "container_stac_items"
    partition_set = "containers"
    key_parameter = "container_name"
    asset_deps = ("container_contents", "raster_stac_item")
    group = "catalog"
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "rasters"}
    kinds: ClassVar[frozenset[str]] = frozenset({"stac"})
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
        """One task that lists, then one for each raster that is new, changed or cannot be opened.

        Raises:
            ValueError: stage 2 without the result of stage 1.
        """
        if stage == 1:
            return [
                {
                    "task_id": task_id(job_id, 1, "list_rasters"),
                    "task_type": "list_raster_files",
                    "parameters": dict(job_params),
                }
            ]
        if stage != 2:  # noqa: PLR2004
            return []
        if not previous_results:
            raise ValueError("Stage 2 requires Stage 1 results")
        listed = previous_results[0]["result"]
        shared = {name: job_params[name] for name in _ITEM_PARAMETERS if job_params.get(name) is not None}
        shared["container_name"] = job_params["container_name"]
        names, size = listed["raster_files"], listed["slice_size"]
        if size is None:
            tasks = [_task(job_id, name, {**shared, "blob_name": name}) for name in names]
        else:
            tasks = [
                _task(job_id, f"blobs\n{first}", {**shared, "blob_names": names[first : first + size]})
                for first in range(0, len(names), size)
            ]
        # the printable form of a bad name could be another blob's name; a line break cannot be in one
        tasks += [
            _task(job_id, f"{name}\n", {**shared, "blob_name": name, "problem": problem})
            for name, problem in listed["problems"].items()
        ]
        if tasks and listed["unchanged_count"]:
            # stands for all of them, so that a job of bad files beside unchanged ones is only partly bad
            tasks.append(_task(job_id, "unchanged\n", {"unchanged": listed["unchanged_count"]}))
        return tasks

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The record with the metadata the original wrote."""
        record = super().create_job_record(job_id, params)
        record["metadata"] |= {name: params.get(name) for name in ("collection_id", "extension_filter")}
        return record

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """Counts that add up, and the bad files by name."""
        params = context.parameters
        first = [task for task in context.task_results if task.task_type == "list_raster_files"]
        listed = (first[0].result_data.get("result") or {}) if first else {}
        items = [
            task
            for task in context.task_results
            if task.task_type == "extract_stac_metadata" and "unchanged" not in (task.result_data.get("result") or {})
        ]
        return {
            "job_type": cls.job_type,
            **{name: params.get(name) for name in ("collection_id", "container_name", "extension_filter", "prefix")},
            "summary": _summary(items, listed),
            "failures": [bad for task in items if not task.success for bad in _failures(task)][:_SHOWN],
            "vanished_files": listed.get("vanished_files") or [],
            "execution_info": listed.get("execution_info"),
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(context.task_results),
            "tasks_by_status": {
                "completed": sum(task.success for task in context.task_results),
                "failed": sum(task.status is TaskStatus.FAILED for task in context.task_results),
            },
        }

    # Hooks

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """A container changes without telling: a job answers again for as long as the setting says."""
        return get_settings().listing_max_age

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Containers whose name starts with ``prefix``."""
        return [name for name in services["blobs"].list_containers() if name.startswith(prefix)]

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """The partition of each blob's item."""
        if task.task_type == "list_raster_files":
            listed = task.result.get("result") or {}
            removed = [
                PartitionNews(
                    asset=ITEM_ASSET,
                    name=f"{listed['container_name']}/{name}",
                    outcome=OutcomeKind.UPDATED,
                    reason="the blob is no longer in the container; its item was removed",
                    removed=True,
                )
                for name in listed.get("pruned_files") or ()
            ]
            return removed + [
                PartitionNews(
                    asset=ITEM_ASSET,
                    name=f"{listed['container_name']}/{name}",
                    outcome=OutcomeKind.UNCHANGED,
                    reason="the catalog has this version of the blob",
                    metadata={"collection": task.parameters["collection_id"]},
                )
                for name in listed.get("unchanged_files") or ()
            ]
        if "unchanged" in task.parameters:
            return []
        result = task.result.get("result") or {}
        alone: dict[str, Any] = {
            "blob_name": task.parameters.get("blob_name"),
            "outcome": task.outcome,
            "reason": task.reason,
            "result": result,
        }
        ended: list[dict[str, Any]] = result.get(PICTURES) or [] if "blob_names" in task.parameters else [alone]
        return [
            PartitionNews(
                asset=ITEM_ASSET,
                name=f"{task.parameters['container_name']}/{one['blob_name']}",
                outcome=OutcomeKind(one["outcome"]),
                reason=one["reason"],
                metadata=catalogued_metadata(one["result"]),
                source_version=one["result"].get("source_etag"),
            )
            for one in ended
        ]

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """Counts by outcome, and tables of what is bad and what vanished."""
        summary: dict[str, Any] = result.get("summary") or {}
        outcomes = {name: summary[name] for name in (*_OUTCOMES, "left_for_later") if summary.get(name)}
        shown = ("total_files_found", "files_processed", "success_rate", "vanished", "pruned")
        metadata = {
            "outcomes": Markdown(bar_chart(outcomes)),
            "failures": result.get("failures") or None,
            "collection": result.get("collection_id"),
            "dagster/row_count": summary.get("total_files_found", 0),
            **outcomes,
            **{name: summary[name] for name in shown if summary.get(name)},
            "vanished_files": [{"blob": name} for name in result.get("vanished_files") or ()] or None,
        }
        return {name: value for name, value in metadata.items() if value is not None}

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Bring the collections up to date, once for all items."""
        refresh_collections(jobs, services)


_OUTCOMES = ("created", "updated", "unchanged", "skipped", "invalid", "failed", "cancelled")


def _task(job_id: str, unit: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"task_id": task_id(job_id, 2, unit), "task_type": "extract_stac_metadata", "parameters": dict(parameters)}


def _summary(items: Sequence[TaskResult], listed: Mapping[str, Any]) -> dict[str, Any]:
    """Found = created + updated + unchanged + skipped + invalid + failed + cancelled + left for later."""
    counts: Counter[str] = Counter()
    for task in items:
        counts.update((task.result_data.get("result") or {}).get("counts") or {_outcome_of(task): 1})
    counts["unchanged"] += listed.get("unchanged_count") or 0
    good = sum(counts[name] for name in _GOOD)
    processed = sum(counts.values())
    return {
        "total_files_found": listed.get("total_count", 0),
        "files_processed": processed,
        "successful_insertions": good,
        "failed_insertions": processed - good,
        "success_rate": f"{100 * good / processed:.1f}%" if processed else "0.0%",
        **{name: counts[name] for name in _OUTCOMES},
        "left_for_later": listed.get("left_for_later", 0),
        "vanished": listed.get("vanished_count"),
        "pruned": listed.get("pruned_count", 0),
    }


def _outcome_of(task: TaskResult) -> str:
    if task.success:
        return str(task.result_data.get("outcome") or "created")
    if task.status is TaskStatus.CANCELLED or not task.status.is_terminal:
        return "cancelled"
    return "invalid" if task.result_data.get("outcome") == OutcomeKind.INVALID else "failed"


def _failures(task: TaskResult) -> list[dict[str, Any]]:
    result = task.result_data.get("result") or {}
    if "bad" in result:
        return list(result["bad"])
    return [
        {
            "blob_name": result.get("blob_name") or f"task {task.task_id}",
            "outcome": _outcome_of(task),
            "error": task.result_data.get("reason") or task.error_details or task.result_data.get("error"),
        }
    ]
