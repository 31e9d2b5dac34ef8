"""A house with everything that is reconciled: workflows that leave blobs, items and tables, and jobs done at once.

What belongs here: the workflows, the house, and making one.  What does not: tests.
"""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import dagster as dg

from geo_assets import reconcile
from geo_assets.coremachine import events
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import (
    EndedTask,
    Handler,
    JobStatus,
    OutcomeKind,
    PartitionNews,
    Published,
    WorkflowParameters,
)
from geo_assets.coremachine.ledger import Ledger, Settlement
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.shown import materialized, show_findings
from geo_assets.coremachine.submission import submit
from geo_assets.reconcile import Mended, Reconciliation
from geo_assets.settings import Settings
from tests.publishing import OneTask, SourceParameters
from tests.stores.catalog_items import item
from tests.stores.table_rows import definition, load, points

__all__ = ["COGS", "TABLES", "House", "cog_id", "wrong"]

COGS, TABLES = "cogs", "vectors"


def cog_id(name: str) -> str:
    """The item of the COG of a source blob."""
    return f"cog~{name}"


def make_cog(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """A COG, its picture, and the item that describes it."""
    services, settings = context["services"], context["services"]["settings"]
    blobs, name = services["blobs"], params["source"].partition("/")[2]
    cog, picture = (settings.silver_container, f"{name}_cog"), (settings.thumbnail_container, f"silver/{name}.webp")
    left = []
    for container, blob in (cog, picture):
        blobs.create_container(container)
        left.append({"container": container, "blob": blob, "etag": blobs.put(container, blob, blob.encode())})
    stac = write_item(services, cog, item_id=cog_id(name), job_id=context["job_id"], picture=picture)
    return {"success": True, "result": {"blobs": left, "stac": stac}}


def write_item(
    services: Mapping[str, Any],
    about: tuple[str, str],
    *,
    item_id: str,
    job_id: str | None,
    picture: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """An item that points at a blob, and perhaps at a picture."""
    made = item("x", id=item_id)
    made["properties"] |= {"geo_assets:container": about[0], "geo_assets:blob": about[1], "geo_assets:job_id": job_id}
    places = {"data": about, **({"thumbnail": picture} if picture else {})}
    made["assets"] = {role: {"href": services["blobs"].uri(*place), "roles": [role]} for role, place in places.items()}
    (outcome,) = services["catalog"].upsert_items(COGS, [made], refresh=False)
    assert outcome.status != "invalid", outcome
    return {"collection": COGS, "id": item_id, "about": list(about), "asset": "raster_stac_item"}


def catalogue(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """An item of the source itself."""
    container, _, name = params["source"].partition("/")
    stac = write_item(context["services"], (container, name), item_id=f"plain~{name}", job_id=context["job_id"])
    return {"success": True, "result": {"stac": stac}}


def catalogue_all(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Items of a whole container, which leave no record of single things; with pictures."""
    services = context["services"]
    blobs, thumbnails = services["blobs"], services["settings"].thumbnail_container
    blobs.create_container(thumbnails)
    for batch in blobs.list_blobs(params["source"]):
        for name in batch.column("name").to_pylist():
            picture = (thumbnails, f"{params['source']}/{name}.webp")
            blobs.put(*picture, b"picture")
            write_item(
                services, (params["source"], name), item_id=f"bulk~{name}", job_id=context["job_id"], picture=picture
            )
    return {"success": True, "result": {"n": 1}}


def load_table(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """A table and its item."""
    services, name = context["services"], params["source"].partition("/")[2]
    table = definition(name)
    made = load(services["tables"], table, points(table, 3), mode="overwrite", job_id=context["job_id"])
    described = item("x", id=f"table~{name}")
    del described["properties"]["geo_assets:container"], described["properties"]["geo_assets:blob"]
    described["properties"] |= {
        "geo_assets:schema": "geo",
        "geo_assets:table": name,
        "geo_assets:job_id": context["job_id"],
    }
    described["assets"] = {"data": {"href": made.href, "roles": ["data"]}}
    services["catalog"].upsert_items(TABLES, [described], refresh=False)
    stac = {"collection": TABLES, "id": f"table~{name}", "about": ["geo", name], "asset": "vector_stac_item"}
    return {"success": True, "result": {"table": ["geo", name, made.version], "stac": stac}}


class _Publishing(OneTask):
    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """The source blob's ETag."""
        container, _, name = params["source"].partition("/")
        etag: str = services["blobs"].head(container, name).etag
        return etag

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """That there are news is looked at; :meth:`House.work` shows them."""
        del task
        return ()

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """Blobs, table and item."""
        left = [
            Published(kind="blob", collection=one["container"], name=one["blob"], version=one["etag"])
            for one in result.get("blobs", ())
        ]
        if table := result.get("table"):
            left.append(Published(kind="table", collection=table[0], name=table[1], version=table[2]))
        if stac := result.get("stac"):
            about = (stac["about"][0], stac["about"][1])
            left.append(
                Published(kind="item", collection=stac["collection"], name=stac["id"], about=about, asset=stac["asset"])
            )
        return left


class MakeCog(_Publishing):
    """A COG with picture and item."""

    job_type = "make_cog"
    asset = "cog"
    handlers: ClassVar[Mapping[str, Handler]] = {"do": make_cog}


class CatalogRaster(_Publishing):
    """An item of the source."""

    job_type = "catalog_raster"
    asset = "raster_stac_item"
    handlers: ClassVar[Mapping[str, Handler]] = {"do": catalogue}


class CatalogContainer(OneTask):
    """Items of a container; publishes nothing on record."""

    job_type = "catalog_container"
    asset = "container_stac_items"
    partition_set: ClassVar[str | None] = "containers"
    Parameters: ClassVar[type[WorkflowParameters]] = SourceParameters
    handlers: ClassVar[Mapping[str, Handler]] = {"do": catalogue_all}


class LoadTable(_Publishing):
    """A table with its item."""

    job_type = "load_table"
    asset = "vector_table"
    partition_set: ClassVar[str | None] = "vector_tables"
    handlers: ClassVar[Mapping[str, Handler]] = {"do": load_table}


class CatalogTable(_Publishing):
    """Gives items of tables an asset; never run."""

    job_type = "catalog_table"
    asset = "vector_stac_item"
    partition_set: ClassVar[str | None] = "vector_tables"
    handlers: ClassVar[Mapping[str, Handler]] = {"do": load_table}


WORKFLOWS: tuple[type, ...] = (MakeCog, CatalogRaster, CatalogContainer, LoadTable, CatalogTable)


class House:
    """Everything of one test: the machine, Dagster, and how jobs end."""

    def __init__(self, settings: Settings, stores: Mapping[str, Any], ledger: Ledger) -> None:
        self.settings = settings
        self.instance = dg.DagsterInstance.ephemeral()
        self.services: dict[str, Any] = {**stores, "settings": settings}
        self.machine = CoreMachine(
            ledger=ledger,
            registry=registry_of([bind(workflow) for workflow in WORKFLOWS]),
            settings=settings,
            services=self.services,
        )
        self.ledger = ledger
        self.blobs: Any = stores["blobs"]
        self.catalog: Any = stores["catalog"]
        self.tables: Any = stores["tables"]
        self.shown: list[tuple[str, str]] = []

    def close(self) -> None:
        """Let go of the ledger and of Dagster's folder."""
        self.ledger.close()
        self.instance.dispose()

    def put(self, place: str, content: bytes = b"source") -> None:
        """Put a blob."""
        container, _, name = place.partition("/")
        self.blobs.create_container(container)
        self.blobs.put(container, name, content)

    def run(self, job_type: str, source: str, **options: Any) -> None:
        """Do a job of a source."""
        submit(self.machine, job_type, {"source": source}, force=True)
        self.work(**options)

    def work(self, *, ends: JobStatus = JobStatus.COMPLETED, record: bool = True) -> None:
        """Do what waits, and show its partitions."""
        for attempt in self.claim():
            handler: Any = self.machine.registry[attempt.job_type].handlers["do"]
            context = {"services": self.services, "job_id": attempt.job_id}
            result = handler(attempt.parameters, context)["result"] if ends is not JobStatus.CANCELLED else {}
            good = ends is JobStatus.COMPLETED
            settlement = Settlement(
                attempt_id=attempt.attempt_id,
                status=ends,
                outcome=OutcomeKind.CREATED if good else OutcomeKind.FAILED,
                result_data=result if record else None,
            )
            self.ledger.settle(str(attempt.run_id), [settlement])
            if good:
                self.show(attempt.asset, attempt.partition_key)
                if stac := result.get("stac"):
                    self.show(stac["asset"], attempt.partition_key)
                for batch in self.blobs.list_blobs("bulk") if attempt.job_type == "catalog_container" else ():
                    for name in batch.column("name").to_pylist():
                        self.show("raster_stac_item", f"bulk/{name}")
            self.ledger.mark_emitted([attempt.attempt_id])

    def claim(self) -> list[Any]:
        """Let what waits be at work."""
        run_id = f"run-{uuid.uuid4().hex}"
        for wave in self.ledger.assign_waves(wave_size=99, waves_at_once=9):
            self.ledger.claim_wave(wave.wave_id, run_id)
            self.ledger.close_wave(wave.wave_id, max_releases=3)
        return self.ledger.attempts_of_run(run_id, statuses=[JobStatus.PROCESSING])

    def show(self, asset: str, key: str) -> None:
        """Show a partition as materialized."""
        self.shown.append((asset, key))
        events.report_materializations(
            self.instance,
            run_id="",
            job_name="job",
            step_key="",
            materializations=[dg.AssetMaterialization(asset, partition=key)],
        )

    def reconcile(self, **options: Any) -> Reconciliation:
        """Compare; counts must add up, whatever is wrong."""
        found = reconcile.reconcile(self.machine, shown=lambda asset: materialized(self.instance, asset), **options)
        found.require_sums()
        # a load that broke off is one finding, however many parts it left
        assert len(found.findings) + sum(found.not_shown.values()) <= found.wrong
        json.dumps(found.as_dict())
        return found

    def repair(self, found: Reconciliation, **options: Any) -> list[Mended]:
        """Mend."""
        return reconcile.repair(
            self.machine,
            found.findings,
            who="jane",
            show=lambda findings: show_findings(self.machine, self.instance, findings),
            wipe=lambda asset, keys: unmaterialize(self.instance, asset=asset, partition_keys=keys, who="jane"),
            **{"execute": True, **options},
        )


def wrong(found: Reconciliation) -> set[tuple[str, str, str]]:
    """Direction, what, and name of each finding."""
    return {(one.direction.value, one.fate.value, one.name) for one in found.findings}
