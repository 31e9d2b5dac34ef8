"""Workflows that publish, for the tests of taking back: a COG with thumbnail and item, and an item alone.

What belongs here: the workflows and the names of what they leave.  What does not: tests.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote

from geo_assets.coremachine.contract import (
    Handler,
    JobExecutionContext,
    Published,
    TaskContext,
    Workflow,
    WorkflowParameters,
)
from tests.stores.catalog_items import COLLECTION, item

SOURCES, PRODUCTS = "bronze", "silver"


def item_id(name: str) -> str:
    """The item of a source blob."""
    return re.sub(r"[^\w.~-]", "_", f"{SOURCES}~{name}", flags=re.ASCII)


class SourceParameters(WorkflowParameters):
    """Parameters of all three."""

    source: str
    tier: str = "analysis"


def make(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Write a product, its thumbnail and its item."""
    name = params["source"].removeprefix(f"{SOURCES}/")
    result: dict[str, Any] = catalogue(params, context)
    stac, blobs, tiers = result["result"], context.services["blobs"], {}
    blobs.create_container(PRODUCTS)
    for kind in (params["tier"], "thumbnail"):
        product = f"{kind}/{name}"
        etag = blobs.put(PRODUCTS, product, f"{kind} of {name}".encode())
        tiers[kind] = {"container": PRODUCTS, "blob": product, "etag": etag}
    return {"success": True, "result": {"cog": {"tiers": tiers}, **stac}}


def catalogue(params: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Write an item."""
    name = params["source"].removeprefix(f"{SOURCES}/")
    made = item(name, id=item_id(name))
    made["assets"]["data"]["href"] = f"https://example.org/{quote(name)}"
    (outcome,) = context.services["catalog"].upsert_items(COLLECTION, [made])
    assert outcome.status != "invalid", outcome
    stac = {"collection_id": COLLECTION, "item_id": item_id(name), "about": [SOURCES, name]}
    return {"success": True, "result": {"stac": stac}}


def check(params: dict[str, Any]) -> dict[str, Any]:
    """Leave nothing."""
    return {"success": True, "result": {"source": params["source"]}}


class OneTask(Workflow):
    """One stage of one task, whose result is the job's."""

    Parameters: ClassVar[type[WorkflowParameters]] = SourceParameters
    partition_set: ClassVar[str | None] = "raster_blobs"
    key_parameter: ClassVar[str | None] = "source"
    stages: ClassVar[list[dict[str, Any]]] = [{"number": 1, "name": "do", "task_type": "do", "parallelism": "single"}]

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task."""
        del previous_results
        return [{"task_id": f"{job_id[:16]}-{stage}", "task_type": "do", "parameters": job_params}]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """What the task returned."""
        returned: dict[str, Any] = context.task_results[0].result_data.get("result", {})
        return returned


class CheckRaster(OneTask):
    """Publishes nothing."""

    job_type = "check_raster"
    asset = "raster_validation"
    handlers: ClassVar[Mapping[str, Handler]] = {"do": check}


class MakeCog(OneTask):
    """Publishes two blobs, and an item on another asset."""

    job_type = "make_cog"
    asset = "cog"
    asset_deps: ClassVar[Sequence[str]] = ("raster_validation",)
    handlers: ClassVar[Mapping[str, Handler]] = {"do": make}

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """Tiers and item."""
        tiers = result.get("cog", {}).get("tiers", {}).values()
        blobs = [
            Published(kind="blob", collection=tier["container"], name=tier["blob"], version=tier["etag"])
            for tier in tiers
        ]
        return [*blobs, *CatalogCog.published(result)]


class CatalogCog(OneTask):
    """Publishes an item."""

    job_type = "catalog_cog"
    asset = "raster_stac_item"
    asset_deps: ClassVar[Sequence[str]] = ("cog",)
    handlers: ClassVar[Mapping[str, Handler]] = {"do": catalogue}

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """The item."""
        stac = result.get("stac")
        if stac is None:
            return ()
        about = tuple(stac["about"])
        return [
            Published(
                kind="item",
                collection=stac["collection_id"],
                name=stac["item_id"],
                about=(about[0], about[1]),
                asset="raster_stac_item",
            )
        ]


WORKFLOWS: tuple[type, ...] = (CheckRaster, MakeCog, CatalogCog)
