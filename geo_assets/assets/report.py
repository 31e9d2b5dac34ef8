"""The asset ``catalog_report``: the catalog as one page for people who look rather than read.

What belongs here: the Dagster side.  What does not: making the page (``geo_assets.report``), and serving it to a
browser (``geo_assets.report_server``).
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.binding import Registry
from geo_assets.pictures import Picture, gallery, shown_at_once
from geo_assets.report import MEDIA_TYPE, PAGE_NAME, Report, gather, render, small_map, tiny_map
from geo_assets.settings import Settings
from geo_assets.sources.source import Source

__all__ = ["build_report"]

_NAME = "catalog_report"
_ITEM_ASSETS = ("raster_stac_item", "vector_stac_item")
_EVERY_MORNING = "17 5 * * *"
_ROWS = 50
"""Most rows of a table in the event."""


def build_report(settings: Settings, registry: Registry, sources: Sequence[Source] = ()) -> dg.Definitions:
    """The asset, its job and its schedule, which is off until somebody switches it on."""
    del settings  # those of the run count
    deps = [
        dg.AssetDep(binding.asset, partition_mapping=dg.AllPartitionMapping())
        for binding in registry.values()
        if binding.asset in _ITEM_ASSETS
    ]

    @dg.asset(
        name=_NAME,
        deps=deps,
        group_name="reports",
        kinds={"html"},
        owners=["team:geo-archive"],
        description="The catalog as one page that works offline: a map of all footprints, counts, growth over time,"
        " failures by reason, the biggest datasets. It is written to the container of GEO_ASSETS_REPORT_CONTAINER.",
        required_resource_keys={MACHINE},
    )
    def catalog_report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        machine = machine_of(context)
        report = gather(machine.settings, machine.services, lambda: machine.ledger, lambda: sources)
        page = render(report).encode()
        blobs, container = machine.services["blobs"], machine.settings.report_container
        blobs.create_container(container)
        blobs.put(container, PAGE_NAME, page, content_type=MEDIA_TYPE)
        for part, why in report.problems:
            context.log.warning("%s is not in the report: %s", part, why)
        uri = blobs.uri(container, PAGE_NAME)
        return dg.MaterializeResult(metadata=_metadata(report, uri, machine.settings.report_url, len(page)))

    # a job of the name of the asset's op would be another definition of it
    job = dg.define_asset_job(f"draw_{_NAME}", selection=[catalog_report], description="Draw the catalog report anew.")
    schedule = dg.ScheduleDefinition(
        name=f"{_NAME}_daily",
        job=job,
        cron_schedule=_EVERY_MORNING,
        execution_timezone="UTC",
        description="Draws the report each morning. Off until you switch it on: it writes to your storage.",
    )
    return dg.Definitions(assets=[catalog_report], jobs=[job], schedules=[schedule])


def _metadata(report: Report, uri: str, report_url: str | None, size: int) -> dict[str, Any]:
    shown: dict[str, Any] = {"dagster/uri": uri, "bytes": size}
    if report_url is not None:
        shown["page"] = dg.MetadataValue.url(f"{report_url.rstrip('/')}/{PAGE_NAME}")
    numbers = f"{report.items:,} items in {report.collection_count:,} collections, {report.failed_jobs:,} failures open"
    small = shown_at_once(Picture(alt="World map", media_type="image/svg+xml", data=tiny_map(report).encode()))
    if small is not None:
        shown["map"] = dg.MetadataValue.md(small)
    picture = Picture(alt="World map of the footprints", media_type="image/svg+xml", data=small_map(report).encode())
    shown |= {
        "pictures": dg.MetadataValue.md(gallery(numbers, [picture])),
        "geo/items": report.items,
        "geo/collections": report.collection_count,
        "geo/tables": report.tables,
        "geo/bytes": report.bytes,
        "geo/failures": report.failed_jobs,
        "counts": _table(
            [
                {"collection": one.id, "items": one.items, "MB": round(one.bytes / 1e6, 1), "rows": one.rows}
                for one in report.collections[:_ROWS]
            ]
        ),
        "failures": _table(
            [{"asset": one.asset, "jobs": one.jobs, "reason": one.reason} for one in report.failures[:_ROWS]]
        ),
        "not in the report": "; ".join(f"{part}: {why}" for part, why in report.problems),
    }
    return {name: value for name, value in shown.items() if value not in (None, "")}


def _table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue | None:
    if not rows:
        return None
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])
