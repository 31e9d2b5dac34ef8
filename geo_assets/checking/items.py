"""Checks of STAC items: valid, with everything they point to, and inside their collection.

What belongs here: finding the items of a partition, and judging them.  What does not: making items
(``geo_assets.stac``), and the schemas (``stac.validation``).
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from geo_assets.checking.finding import Evidence, Finding, failed, passed
from geo_assets.checking.rasters import nothing_recorded, properties_of
from geo_assets.checking.tables import table_of
from geo_assets.errors import DamagedItemError, TableNotFoundError
from geo_assets.settings import Settings
from geo_assets.stac.identifiers import raster_item_id, table_item_id
from geo_assets.stac.items import described_thing
from geo_assets.stac.validation import item_problems
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.catalog import CatalogStore
from geo_assets.stores.tables import TableStore

__all__ = ["item_hrefs_present", "item_valid", "item_within_collection"]

_RECATALOGUE = "materialize this partition again"
_TOLERANCE = 1e-6
_WHOLE = 360.0
_POSITIONS_OF_BOX = {4: (0, 1, 2, 3), 6: (0, 1, 3, 4)}


@dataclass(frozen=True, kw_only=True)
class _Item:
    """One item of a partition as it is now."""

    collection: str
    id: str
    there: bool
    document: Mapping[str, Any]
    """Empty where it is gone or damaged."""
    damaged: bool
    """Whether what lies in its place is no item."""
    etags: Mapping[tuple[str, str], str]
    """Container and blob → ETag that the job recorded."""

    @property
    def where(self) -> str:
        return f"{self.collection}/{self.id}"


def item_valid(evidence: Evidence) -> Finding:
    """Each item of the partition is in the catalog, is of this partition, and is valid STAC."""

    def problems(item: _Item) -> Iterator[str]:
        yield from item_problems(item.document)
        if item.document.get("id") != item.id:
            yield f"its id is {item.document.get('id')!r}"
        if described_thing(item.document) not in _described_by(evidence, item):
            thing = described_thing(item.document)
            yield f"it describes {'/'.join(thing) if thing else 'nothing of ours'} now"

    return _judged(evidence, problems, good="valid STAC, geometry and times included")


def _described_by(evidence: Evidence, item: _Item) -> set[tuple[str, str]]:
    """What an item of this partition may describe: the raster or its COG, or the table."""
    if evidence.asset == "vector_stac_item":
        return {table_of(evidence)}
    container, _, blob = evidence.name.partition("/")
    return {(container, blob), *item.etags}


def item_hrefs_present(evidence: Evidence) -> Finding:
    """Everything of ours that each item points to is there, in the version it tells of."""
    return _judged(evidence, lambda item: _href_problems(evidence, item), good="all that it points to of ours is there")


def item_within_collection(evidence: Evidence) -> Finding:
    """Box and times of each item lie inside those of its collection."""
    catalog: CatalogStore = evidence.services["catalog"]

    def problems(item: _Item) -> Iterator[str]:
        collection = catalog.get_collection(item.collection)
        if collection is None:
            yield f"the collection {item.collection} is gone"
            return
        extent: Mapping[str, Any] = collection.get("extent") or {}
        yield from _space_problems(item.document.get("bbox"), (extent.get("spatial") or {}).get("bbox"))
        yield from _time_problems(
            item.document.get("properties") or {}, (extent.get("temporal") or {}).get("interval")
        )  # fmt: skip

    return _judged(evidence, problems, good="inside its collection's box and times")


def _judged(evidence: Evidence, problems: Callable[[_Item], Iterator[str]], *, good: str) -> Finding:
    items = list(_items_of(evidence))
    if not items:
        return nothing_recorded(evidence)
    found: list[str] = []
    for item in items:
        if item.damaged:
            found.append(f"{item.where} is damaged: what the catalog has in its place is no item")
        elif not item.there:
            found.append(f"{item.where} is gone from the catalog")
        else:
            found += [f"{item.where}: {problem}" for problem in problems(item)]
    names = [item.where for item in items]
    if found:
        return failed(f"{'; '.join(found[:5])}: {_RECATALOGUE}", items=names, problems=len(found))
    return passed(good if len(items) == 1 else f"{good} ({len(items)} items)", items=names)


# --- which items -------------------------------------------------------------------------------------------------


def _items_of(evidence: Evidence) -> Iterator[_Item]:
    """Those that jobs recorded, and, where there are none, those that the catalog has of it from a bulk job."""
    found: dict[tuple[str, str], dict[tuple[str, str], str]] = {}
    for collection, item_id, etags in _recorded(evidence):
        found.setdefault((collection, item_id), etags)
    if not found:
        found = {(collection, item_id): {} for collection, item_id in _in_catalog(evidence)}
    for (collection, item_id), etags in found.items():
        yield _present(evidence, collection, item_id, etags)


def _present(evidence: Evidence, collection: str, item_id: str, etags: Mapping[tuple[str, str], str]) -> _Item:
    catalog: CatalogStore = evidence.services["catalog"]
    document, damaged = None, False
    try:
        document = catalog.get_item(collection, item_id)
    except DamagedItemError:  # its words name the file, which is of no use to whoever only sees the UI
        damaged = True
    return _Item(
        collection=collection,
        id=item_id,
        there=damaged or document is not None,
        document=document or {},
        damaged=damaged,
        etags=etags,
    )


def _recorded(evidence: Evidence) -> Iterator[tuple[str, str, dict[tuple[str, str], str]]]:
    """Collection, item and the ETags of its blobs, newest first; of jobs that retire their earlier item, the last."""
    once: set[str] = set()
    for attempt in evidence.attempts:
        if attempt.job_type in once or not attempt.result_data:
            continue
        if attempt.job_type in ("process_raster", "ingest_vector"):
            once.add(attempt.job_type)
        for stac, etags in _stac_of(attempt.result_data, evidence.name):
            yield stac["collection_id"], stac["item_id"], etags


def _stac_of(
    result: Mapping[str, Any], name: str
) -> Iterator[tuple[Mapping[str, Any], dict[tuple[str, str], str]]]:  # fmt: skip
    if result.get("stac"):
        yield result["stac"], _etags_of(result)
    for item in result.get("items") or ():
        if item.get("stac") and f"{item.get('schema')}.{item.get('table_name')}" == name:
            yield item["stac"], {}


def _etags_of(result: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    cog: Mapping[str, Any] = result.get("cog") or {}
    found = {(tier["cog_container"], tier["cog_blob"]): tier["etag"] for tier in (cog.get("tiers") or {}).values()}
    thumbnail = cog.get("thumbnail") or result.get("thumbnail")
    if thumbnail:
        found[thumbnail["container"], thumbnail["blob"]] = thumbnail["etag"]
    return found


def _in_catalog(evidence: Evidence) -> Iterator[tuple[str, str]]:
    catalog: CatalogStore = evidence.services["catalog"]
    for collection in catalog.list_collections():
        for item_id in _possible_ids(evidence, collection):
            if _present(evidence, collection, item_id, {}).there:
                yield collection, item_id


def _possible_ids(evidence: Evidence, collection: str) -> list[str]:
    if evidence.asset == "vector_stac_item":
        return [table_item_id(*table_of(evidence))]
    container, _, blob = evidence.name.partition("/")
    return [
        raster_item_id(container, blob),
        raster_item_id(container, blob, rule="legacy", collection_id=collection),
    ]


# --- what they point to ------------------------------------------------------------------------------------------


def _href_problems(evidence: Evidence, item: _Item) -> Iterator[str]:
    document = item.document
    thing, properties = described_thing(document), document.get("properties") or {}
    if properties.get("geo_assets:type") == "table" and thing is not None:
        yield from _table_problems(evidence, thing, properties.get("geo_assets:version"))
    etags = dict(item.etags)
    if thing is not None and properties.get("geo_assets:etag"):
        etags[thing] = properties["geo_assets:etag"]
    places = _prefixes(evidence, {thing[0]} if thing else set())
    assets: Mapping[str, Any] = document.get("assets") or {}
    if "data" not in assets:
        yield "it has no asset 'data'"
    for key, asset in assets.items():
        if not isinstance(asset, Mapping):
            yield f"its asset '{key}' is none"
            continue
        place = _place_of(str(asset.get("href") or ""), places)
        if place is not None:
            yield from _blob_problems(evidence, key, place, asset.get("file:size"), etags.get(place))


def _prefixes(evidence: Evidence, more: set[str]) -> dict[str, str]:
    """How hrefs of ours begin → container."""
    settings: Settings = evidence.services["settings"]
    blobs: BlobStore = evidence.services["blobs"]
    containers = {settings.silver_container, settings.thumbnail_container, settings.bronze_container, *more}
    # of names that no container can have there are no addresses
    return {blobs.uri(name, "x")[:-1]: name for name in sorted(containers) if blobs.container_exists(name)}


def _place_of(href: str, prefixes: Mapping[str, str]) -> tuple[str, str] | None:
    for prefix, container in prefixes.items():
        if href.startswith(prefix):
            return container, unquote(href.removeprefix(prefix))
    return None


def _blob_problems(
    evidence: Evidence, key: str, place: tuple[str, str], size: int | None, etag: str | None
) -> Iterator[str]:
    where = "/".join(place)
    there = properties_of(evidence, *place)
    if there is None:
        yield f"the asset '{key}' points to {where}, which is not there"
    elif size is not None and there.size != size:
        yield f"{where} (asset '{key}') has {there.size:,} bytes, and the item says {size:,}"
    elif etag is not None and there.etag != etag:
        yield f"{where} (asset '{key}') was replaced since the item was written"


def _table_problems(evidence: Evidence, thing: tuple[str, str], version: str | None) -> Iterator[str]:
    tables: TableStore = evidence.services["tables"]
    name = ".".join(thing)
    record = tables.record(*thing)
    try:
        there = record.version if record is not None else tables.describe(*thing, exact=False).version
    except TableNotFoundError:
        yield f"the table {name} is not there"
        return
    if version is not None and there is not None and there != version:
        yield f"the table {name} was loaded anew since the item was written"


# --- extents -----------------------------------------------------------------------------------------------------


def _space_problems(box: Any, extents: Any) -> Iterator[str]:
    if not extents:
        yield "the collection has no spatial extent"
        return
    if not box:
        yield "the item has no box"
        return
    try:
        # the first is that of the whole collection
        inner, outer = _flat(box), _flat(extents[0])
    except (TypeError, ValueError, LookupError):
        yield f"its box {box} or the collection's {extents} is no box"
        return
    if not _box_within(inner, outer):
        yield f"its box {_shown(inner)} is not within the collection's {_shown(outer)}"


def _flat(box: Any) -> tuple[float, float, float, float]:
    west, south, east, north = (float(box[at]) for at in _POSITIONS_OF_BOX[len(box)])
    return west, south, east, north


def _shown(box: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{edge:.7g}' for edge in box)}]"


def _box_within(box: tuple[float, float, float, float], extent: tuple[float, float, float, float]) -> bool:
    if box[1] < extent[1] - _TOLERANCE or box[3] > extent[3] + _TOLERANCE:
        return False
    width, extent_width = _width(box[0], box[2]), _width(extent[0], extent[2])
    if extent_width >= _WHOLE - _TOLERANCE:
        return True
    # how far east of the extent's west edge the box begins, around the Earth
    offset = (box[0] - extent[0] + _TOLERANCE) % _WHOLE - _TOLERANCE
    return offset + width <= extent_width + _TOLERANCE


def _width(west: float, east: float) -> float:
    return east - west if west <= east else east + _WHOLE - west


def _time_problems(properties: Mapping[str, Any], intervals: Any) -> Iterator[str]:
    if not intervals:
        yield "the collection has no temporal extent"
        return
    first, last = intervals[0]
    start, end = (properties.get(name) or properties.get("datetime") for name in ("start_datetime", "end_datetime"))
    for time, edge, is_outside, side in (
        (start, first, operator.lt, "before"),
        (end, last, operator.gt, "after"),
    ):
        if not time or not edge:
            continue
        try:
            outside = is_outside(_moment(time), _moment(edge))
        except (TypeError, ValueError):
            yield f"its time {time!r} or the collection's {edge!r} is no time"
            return
        else:
            if outside:
                yield f"its time {time} is {side} the collection's {edge}"


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
