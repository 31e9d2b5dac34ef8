"""Making and writing the STAC item of one table, for every workflow that does.

What belongs here: the parameters that say how items of tables are made, the way from a table in the store to its item,
and what that shows in the UI.  What does not: the documents (``stac.table_item``), the stores, and any one workflow.
"""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    Markdown,
    OutcomeKind,
    Published,
)
from geo_assets.errors import ParameterError, TableNotFoundError
from geo_assets.jobs.blob_tasks import invalid
from geo_assets.jobs.cataloguing import CollectionParameters
from geo_assets.jobs.vector_tables import box_text
from geo_assets.pictures import Picture, gallery, shown_at_once
from geo_assets.settings import Settings
from geo_assets.stac.identifiers import table_item_id
from geo_assets.stac.items import BlobFacts
from geo_assets.stac.locator_map import MEDIA_TYPE, locator_map, small_map
from geo_assets.stores.catalog import CatalogStore, present_item
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.tables import TableFacts, TableStore

__all__ = [
    "ITEM_ASSET",
    "CatalogueTableParameters",
    "Extent",
    "TableItemRequest",
    "catalogue_table",
    "catalogued_table_metadata",
    "item_published",
    "items_of_table",
    "table_missing",
]

ITEM_ASSET = "vector_stac_item"
"""Asset of the items of tables, whichever workflow makes them."""

Extent = Literal["exact", "estimated"]
_NEAR = 5
"""Most tables named where one is not there."""
_SAME = "the catalog holds the same item"


class CatalogueTableParameters(CollectionParameters):
    """Parameters of every workflow that makes items of tables."""

    collection_id: str | None = Field("vectors", description="Collection of the item; null: none is made.")
    datetime_column: str | None = Field(
        None,
        description="Column of dates or timestamps whose range is the item's time. Default: when the table was loaded.",
    )
    extent: Extent = Field(
        "exact",
        description="exact: footprint, box and row count are computed from all rows. estimated: box and row count are"
        " taken from the database's statistics, which is quick however large the table is.",
    )

    @field_validator("datetime_column", mode="after")
    @classmethod
    def _check_datetime_column(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("datetime_column must be the name of a column")
        return value


@dataclass(frozen=True, kw_only=True)
class TableItemRequest:
    """How the item of one table is to be made."""

    collection_id: str
    geometry_column: str | None = None
    """Which one, where there are several; default: the first."""
    datetime_column: str | None = None
    extent: Extent = "exact"
    source_file: str | None = None
    """Where the table came from, as the caller says."""

    @classmethod
    def from_parameters(cls, params: Mapping[str, Any], **others: Any) -> "TableItemRequest":
        """Of a job's or task's parameters; ``others`` win."""
        names = ("collection_id", "geometry_column", "datetime_column", "extent", "source_file")
        return cls(**{**{name: params[name] for name in names if params.get(name) is not None}, **others})


# --- the way -------------------------------------------------------------------------------------------------------


def catalogue_table(
    services: Mapping[str, Any],
    context: Mapping[str, Any],
    *,
    schema: str,
    table: str,
    request: TableItemRequest,
    facts: TableFacts | None = None,
    thumbnail: BlobFacts | None = None,
) -> dict[str, Any]:
    """Describe a table in the catalog; an item that says the same is not written again.

    Args:
        services: ``tables``, ``catalog``, ``items`` and ``settings`` are used.
        context: the handler's.
        schema: the table's schema.
        table: its name.
        request: how the item is to be made.
        facts: what the store says of the table, where the caller has asked already.
        thumbnail: a picture of it that is published already; default: the one the item has.

    Returns:
        A handler's return. Its ``result`` has the original's fields, ``stac`` (what :func:`item_published` and
        :func:`catalogued_table_metadata` look at), the item as ``stac_item``, and pictures. Invalid with the code
        ``TABLE_NOT_FOUND``, ``NO_SUCH_COLUMN``, ``NO_GEOMETRY``, ``NO_CRS``, ``TABLE_EMPTY`` or ``ITEM_REFUSED``.

    Raises:
        TransientError, AccessDeniedError: as the table store's.
        CatalogError, CatalogUnavailableError: as the catalog's.
    """
    # here and not above: the registry is loaded in every process, PROJ where a table is at work
    from geo_assets.stac.table_item import TableItemOptions, described_geometry, table_item, table_problem  # noqa: PLC0415

    started = time.perf_counter()
    item_id = table_item_id(schema, table)
    head = {"item_id": item_id, "schema": schema, "table_name": table, "collection_id": request.collection_id}
    try:
        found = facts if facts is not None else _described(services["tables"], schema, table, request)
    except TableNotFoundError:
        return invalid("TABLE_NOT_FOUND", table_missing(services["tables"], schema, table), head)
    except ParameterError as error:
        return invalid("NO_SUCH_COLUMN", str(error), head)
    problem = table_problem(found)
    if problem is not None:
        return invalid(*problem, {**head, "row_count": found.row_count})
    settings: Settings = services["settings"]
    item = table_item(
        found,
        item_id=item_id,
        collection_id=request.collection_id,
        options=TableItemOptions(
            features_url=settings.features_url,
            tiles_url=settings.tiles_url,
            datetime_column=request.datetime_column,
            source_file=request.source_file,
            thumbnail=thumbnail,
            existing=present_item(services["catalog"], request.collection_id, item_id),
            job_id=context.get("job_id"),
        ),
    )
    geometry = described_geometry(found)
    extracted = time.perf_counter()
    written = _write(services["items"], request.collection_id, item)
    ended = time.perf_counter()
    result = {
        **head,
        **_facts_of(found, item),
        "geometry_column": found.described,
        "srid": None if geometry is None else geometry.srid,
        "notes": _notes(found, request),
        "stac": {**_stac_of(item), "schema": schema, "table": table, "outcome": written["outcome"]},
        **_originals_fields(written),
        "stac_item": item,
        PICTURES: {"small": small_map(item["geometry"]), "large": locator_map(item["geometry"])},
        "extract_time_seconds": round(extracted - started, 4),
        "insert_time_seconds": round(ended - extracted, 4),
        "execution_time_seconds": round(ended - started, 4),
    }
    if written["outcome"] == OutcomeKind.INVALID:
        return invalid("ITEM_REFUSED", written["reason"] or "the catalog refused the item", result)
    return {"success": True, **written, "result": result}


def table_missing(tables: TableStore, schema: str, table: str) -> str:
    """A sentence that says that a table is not there, and which of its schema have a name like it."""
    there = tables.list_tables(schema)
    near = difflib.get_close_matches(table, there, n=_NEAR) or there[:_NEAR]
    if not there:
        return f"there is no table {schema}.{table}, nor any other in the schema '{schema}' of {tables.description}"
    more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
    return f"there is no table {schema}.{table} in {tables.description}; the schema has {', '.join(near)}{more}"


def _described(tables: TableStore, schema: str, table: str, request: TableItemRequest) -> TableFacts:
    def look(*, exact: bool) -> TableFacts:
        return tables.describe(
            schema,
            table,
            geometry_column=request.geometry_column,
            datetime_column=request.datetime_column,
            exact=exact,
        )

    found = look(exact=request.extent == "exact")
    if not found.exact and found.footprint is None:
        # a database has no statistics of a table that it never analysed
        return look(exact=True)
    return found


def _write(items: ItemWriter, collection_id: str, item: Mapping[str, Any]) -> dict[str, str | None]:
    written = items.write(collection_id, item)
    outcome = written.status.value
    return {"outcome": outcome, "reason": written.reason or (_SAME if outcome == OutcomeKind.UNCHANGED else None)}


def _facts_of(facts: TableFacts, item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "bbox": item["bbox"],
        "geometry_types": list(facts.geometry_types),
        "row_count": facts.row_count,
        "column_count": len(facts.columns),
        "exact": facts.exact,
        "version": facts.version,
        "href": item["assets"]["data"]["href"],
    }


def _notes(facts: TableFacts, request: TableItemRequest) -> list[str]:
    """What somebody should know of how the item was made."""
    notes = []
    if len(facts.geometries) > 1 and request.geometry_column is None:
        others = ", ".join(f"'{one.name}'" for one in facts.geometries if one.name != facts.described)
        notes.append(f"the item describes the geometry column '{facts.described}'; the table has {others} as well")
    if request.datetime_column is not None and facts.datetime_range is None:
        notes.append(f"the column '{request.datetime_column}' holds no time, so the item has that of the load")
    if request.extent == "estimated" and facts.exact:
        notes.append("there are no statistics of this table, so all rows were looked at")
    return notes


def _stac_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """What a result says of an item: where it is, and its time and place."""
    properties = item["properties"]
    return {
        "collection_id": item["collection"],
        "item_id": item["id"],
        "bbox": item["bbox"],
        "crs": properties.get("proj:code"),
        **{name: properties[name] for name in ("datetime", "start_datetime", "end_datetime") if name in properties},
        "datetime_source": properties["geo_assets:datetime_source"],
    }


def _originals_fields(written: Mapping[str, str | None]) -> dict[str, Any]:
    """What the original said of an item, under its names; a failed write is a failure here, so never an error."""
    outcome, reason = written["outcome"], written["reason"]
    return {
        "inserted_to_pgstac": outcome in (OutcomeKind.CREATED, OutcomeKind.UPDATED),
        "item_skipped": outcome == OutcomeKind.UNCHANGED,
        "skip_reason": reason if outcome == OutcomeKind.UNCHANGED else None,
        "insert_error": reason if outcome == OutcomeKind.INVALID else None,
    }


# --- what is shown -------------------------------------------------------------------------------------------------


def catalogued_table_metadata(result: Mapping[str, Any]) -> dict[str, Any]:
    """The map and the facts of a catalogued table, as the partition shows them."""
    stac: Mapping[str, Any] = result.get("stac") or {}
    times = [stac.get(name) for name in ("start_datetime", "end_datetime")]
    plain = {
        "collection": stac.get("collection_id"),
        "item_id": stac.get("item_id"),
        "item": stac.get("outcome"),
        "datetime": " / ".join(str(moment) for moment in times) if all(times) else stac.get("datetime"),
        "datetime_source": stac.get("datetime_source"),
        "bbox": box_text(stac.get("bbox")),
        "crs": stac.get("crs"),
        "geometry_column": result.get("geometry_column"),
        "geometry_types": ", ".join(result.get("geometry_types") or ()) or None,
        "dagster/row_count": result.get("row_count"),
        "column_count": result.get("column_count"),
        "notes": "; ".join(result.get("notes") or ()) or None,
        "dagster/uri": result.get("href"),
    }
    return {**_maps(result.get(PICTURES)), **{name: value for name, value in plain.items() if value is not None}}


def _maps(pictures: Mapping[str, str] | None) -> dict[str, Any]:
    if not pictures:
        return {}
    small, large = (
        Picture(alt="Where it lies", media_type=MEDIA_TYPE, data=pictures[size].encode()) for size in ("small", "large")
    )
    shown = shown_at_once(small)
    return {**({"map": Markdown(shown)} if shown else {}), "pictures": Markdown(gallery("", [large]))}


def item_published(result: Mapping[str, Any]) -> Sequence[Published]:
    """The item that a result names."""
    stac = result.get("stac")
    if not stac:
        return ()
    about = (stac["schema"], stac["table"])
    return (
        Published(kind="item", collection=stac["collection_id"], name=stac["item_id"], about=about, asset=ITEM_ASSET),
    )


def items_of_table(services: Mapping[str, Any], schema: str, table: str) -> list[Published]:
    """The items of a table that the catalog holds, in whatever collection."""
    catalog: CatalogStore = services["catalog"]
    item_id = table_item_id(schema, table)
    return [
        Published(kind="item", collection=collection, name=item_id, about=(schema, table), asset=ITEM_ASSET)
        for collection in catalog.list_collections()
        if catalog.get_item(collection, item_id) is not None
    ]
