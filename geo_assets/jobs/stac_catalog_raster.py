"""The ``stac_catalog_raster`` workflow: the STAC item of one raster blob, written to the catalog.

What belongs here: its parameters, stage, task and aggregation, and the handler it shares with the bulk form
(``stac_catalog_container``).  What does not: making items (``raster_cataloguing``, ``geo_assets.stac``).

In the original a document named this workflow and only the bulk one existed; fields of its result are those of the
bulk workflow's tasks.  Against these, on purpose: an item that says the same is not written again; one that differs
replaces it; hrefs are durable; the datetime is the data's where anything tells it; a failed write is a failure.
"""

import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    CheckResult,
    Handler,
    JobExecutionContext,
    OutcomeKind,
    Published,
    TaskContext,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.errors import GeoAssetsError, RasterRefusedError
from geo_assets.jobs.blob_tasks import (
    BlobParameters,
    container_of,
    etag_of,
    invalid,
    scratch_of,
)
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.proven import item_checks
from geo_assets.jobs.raster_cataloguing import (
    ITEM_ASSET,
    CatalogueParameters,
    DescribedFile,
    ItemRequest,
    blob_facts,
    catalogued_metadata,
    is_current,
    item_facts,
    item_published,
    items_of_blobs,
    picture_and_item,
    pictures_of,
    publish_thumbnail,
    thumbnail_place,
    write_item,
)
from geo_assets.jobs.raster_workflow import RasterWorkflow
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.catalog import present_item

__all__ = ["StacCatalogRaster", "StacCatalogRasterParameters", "extract_stac_metadata"]


class StacCatalogRasterParameters(BlobParameters, CatalogueParameters):
    """Parameters of ``stac_catalog_raster``."""

    collection_id: str = Field("dev", description="Collection of the item; made on first use.")

    @model_validator(mode="before")
    @classmethod
    def _require_blob(cls, data: Any) -> Any:
        if isinstance(data, dict) and "blob_name" not in data:
            raise ValueError("blob_name is required; all rasters of a container are stac_catalog_container's business")
        return data


def extract_stac_metadata(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Catalogue one blob: nothing to do where the catalog has this version of it, made the same way.

    Raises:
        BlobNotFoundError, TransientError: as the blob store's.
        CatalogError, CatalogUnavailableError: as the catalog's.
    """
    from geo_assets.raster.local_copy import fetch  # noqa: PLC0415 - brings the formats along

    started = time.perf_counter()
    services = TaskContext(context).services
    settings: Settings = services["settings"]
    blobs: BlobStore = services["blobs"]
    container, name = params["container_name"], params["blob_name"]
    request = ItemRequest.from_parameters(params, container=container, blob=name)
    head = {"blob_name": name, "container_name": container, "collection_id": request.collection_id}
    etag = blobs.head(container, name).etag
    present = present_item(services["catalog"], request.collection_id, request.item_id)
    if is_current(present, request, etag) and _picture_is_there(services, container, name):
        more = {"stac_item": present} if params.get("stac_item") else {}
        return _nothing_to_do({**head, **more}, request, present, etag)
    with scratch_of(context, settings) as scratch:
        try:
            copy = fetch(
                blobs, container, name, folder=lambda: scratch.path, reserve_bytes=settings.disk_reserve_mb << 20
            )
        except RasterRefusedError as error:
            return invalid("FILE_UNREADABLE", str(error), head)
        facts = blob_facts(blobs, container, copy.properties, sha256=copy.sha256)
        described, problem = picture_and_item(context, DescribedFile(path=copy.path, facts=facts), request, name=name)
        if problem is not None:
            return {**problem, "result": head}
        extracted = time.perf_counter()
        thumbnail = publish_thumbnail(services, facts, described["thumbnail"])
    new = thumbnail.pop("created")
    good = False
    try:
        written = write_item(services, request, described["item"])
        good = written["outcome"] != OutcomeKind.INVALID
    finally:
        if new and not good:
            with contextlib.suppress(GeoAssetsError):  # the failure itself is what must be told
                blobs.delete(thumbnail["container"], thumbnail["blob"])
    result = {
        **head,
        "item_id": request.item_id,
        "source_etag": copy.properties.etag,
        "href": facts["href"],
        "size_bytes": copy.properties.size,
        "sha256": copy.sha256,
        "thumbnail": thumbnail if good else None,
        "raster": {name: described[name] for name in ("width", "height", "bands", "dtype", "driver")},
        "stac": written["stac"],
        **_originals_fields(written["stac"], reason=written["reason"]),
        **({"stac_item": described["item"]} if params.get("stac_item") else {}),
        PICTURES: pictures_of(described),
        "extract_time_seconds": round(extracted - started, 4),
        "execution_time_seconds": round(time.perf_counter() - started, 4),
    }
    if written["outcome"] == OutcomeKind.INVALID:
        return invalid("ITEM_REFUSED", written["reason"] or "the catalog refused the item", result)
    return {"success": True, "outcome": written["outcome"], "reason": written["reason"], "result": result}


def _picture_is_there(services: Mapping[str, Any], container: str, name: str) -> bool:
    place = thumbnail_place(services["settings"], {"container": container, "name": name})
    return etag_of(services["blobs"], place["container"], place["name"]) is not None


def _nothing_to_do(
    head: Mapping[str, Any], request: ItemRequest, present: Mapping[str, Any] | None, etag: str
) -> dict[str, Any]:
    stac = {**item_facts(present or {}, request), "outcome": OutcomeKind.UNCHANGED.value}
    reason = "the catalog has this version of the blob"
    return {
        "success": True,
        "outcome": OutcomeKind.UNCHANGED.value,
        "reason": reason,
        "result": {
            **head,
            "item_id": request.item_id,
            "source_etag": etag,
            "stac": stac,
            **_originals_fields(stac, reason=reason),
        },
    }


def _originals_fields(stac: Mapping[str, Any], *, reason: str | None) -> dict[str, Any]:
    """What the original said of an item, under its names; a failed write is a failure here, so never an error."""
    unchanged = stac["outcome"] == OutcomeKind.UNCHANGED
    return {
        **{name: stac[name] for name in ("bbox", "geometry_type", "bands_count", "epsg")},
        "inserted_to_pgstac": stac["outcome"] in (OutcomeKind.CREATED, OutcomeKind.UPDATED),
        "item_skipped": unchanged,
        "skip_reason": reason if unchanged else None,
        "insert_error": reason if stac["outcome"] == OutcomeKind.INVALID else None,
        "insert_time_seconds": stac.get("insert_time_seconds", 0.0),
    }


class StacCatalogRaster(RasterWorkflow):
    """One raster in the catalog."""

    job_type = "stac_catalog_raster"
    description = "Catalogues one raster: its STAC item, with footprint, bands, statistics and thumbnail"
    Parameters = StacCatalogRasterParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "extract_stac",
            "task_type": "extract_stac_metadata",
            "description": "Describe the raster and write its item",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"extract_stac_metadata": extract_stac_metadata}

    asset = ITEM_ASSET
    asset_deps = ("cog",)
    group = "catalog"
    kinds: ClassVar[frozenset[str]] = frozenset({"stac"})

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
                "task_id": task_id(job_id, 1, job_params["blob_name"]),
                "task_type": "extract_stac_metadata",
                "parameters": {**job_params, "container_name": container_of(job_params), "stac_item": True},
            }
        ]

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The record with the blob and the collection."""
        record = super().create_job_record(job_id, params)
        record["metadata"] |= {name: params.get(name) for name in ("blob_name", "container_name", "collection_id")}
        return record

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """What became of the one blob."""
        head = {
            "job_type": cls.job_type,
            "container_name": container_of(context.parameters),
            "blob_name": context.parameters.get("blob_name"),
            "collection_id": context.parameters.get("collection_id"),
        }
        if not context.task_results:
            return {**head, "success": False, "error": "No task results found"}
        task = context.task_results[0]
        data = task.result_data
        errors = {name: data[name] for name in ("error", "message") if data.get(name) is not None}
        return {
            **head,
            **(data.get("result") or {}),
            **errors,
            "success": task.success,
            "tasks_executed": len(context.task_results),
            "task_status": task.status.value,
        }

    # Hooks

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """The item was valid when it was written, and its blob there."""
        return item_checks(result.get("stac"))

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """The item may be gone: the job itself looks, and ends ``unchanged`` where it is as it was."""
        return 0.0

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The facts of the item."""
        return catalogued_metadata(result)

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Bring the collections up to date, once for all items."""
        refresh_collections(jobs, services)

    @classmethod
    def published_by_others(
        cls, names: Sequence[str], services: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Published]]:
        """The items that ``stac_catalog_container`` made of these blobs, in any collection, and their thumbnails."""
        return items_of_blobs(names, services)

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """The item and its thumbnail."""
        return item_published(result)
