"""The STAC item of a table: from what a table store says of it to a finished document.

What belongs here: :func:`table_item`, and which tables have no item.  What does not: looking at the table
(``stores.tables``), writing the item (``stores.catalog``), its checks (``validation``).

**An item made twice of the same table says the same.**  So its time is never that of making the item: it is the range
of a column where one is named, else when the table was loaded.  A table that nobody of us loaded gets the time it was
first catalogued, which its later items keep.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

import pyproj

from geo_assets import __version__
from geo_assets.errors import NoItemError
from geo_assets.redaction import redact
from geo_assets.stac.items import FILE, PROCESSING, BlobFacts, asset_of_blob, described_thing, durable_href, rfc3339
from geo_assets.stores.tables import GeometryFacts, TableColumn, TableFacts
from geo_assets.vector.table import TableLoad

__all__ = ["LOADED_AT", "TableItemOptions", "described_geometry", "table_item", "table_problem"]

LOADED_AT = "loaded_at"
"""Name in ``TableLoad.details`` of the time a load was made, RFC 3339 in UTC."""

_EXTENSIONS = "https://stac-extensions.github.io"
_PROJECTION = f"{_EXTENSIONS}/projection/v2.0.0/schema.json"
_TABLE = f"{_EXTENSIONS}/table/v1.2.0/schema.json"
_WEB_MAP_LINKS = f"{_EXTENSIONS}/web-map-links/v1.2.0/schema.json"

# neither is registered; what a database speaks is not GeoJSON, as the original said
_POSTGIS_TYPE = "application/x-postgresql"
_PARQUET_TYPE = "application/vnd.apache.parquet"
_FIRST_CATALOGUED = "first catalogued"
_MOST_DESCRIPTION = 1_000
"""Characters of one description."""
_MOST_DESCRIPTIONS = 60_000
"""Characters of the descriptions of all columns together."""


@dataclass(frozen=True, kw_only=True)
class TableItemOptions:
    """How an item is made, as far as it does not follow from the table."""

    features_url: str | None = None
    """Base URL of an OGC API Features service over the tables."""
    tiles_url: str | None = None
    """Base URL of a vector tile service over the tables."""
    datetime_column: str | None = None
    """The column that the facts' range is of."""
    source_file: str | None = None
    """The file a table came from, where nobody recorded it but the caller knows."""
    thumbnail: BlobFacts | None = None
    """A picture of the table; default: that of the item that is there, if it is of the same version."""
    existing: Mapping[str, Any] | None = None
    """The item of this id that is there."""
    job_id: str | None = None
    """The job that makes the item."""
    now: datetime | None = None
    """The time of writing; default: the present."""


def table_problem(facts: TableFacts) -> tuple[str, str] | None:
    """Code and sentence where a table has no item, with what to do; ``None`` where it has one."""
    name = f"{facts.schema}.{facts.table}"
    geometry = described_geometry(facts)
    if geometry is None:
        return "NO_GEOMETRY", f"{name} has no geometry column, and a catalog finds items by their place"
    if not geometry.srid:
        said = f"the column '{geometry.name}' of {name} does not say in which CRS it is"
        return "NO_CRS", f"{said}: give it one (UpdateGeometrySRID in PostGIS), or load the table anew with its CRS"
    if facts.footprint is not None and facts.bbox is not None:
        return None
    if not facts.row_count:
        return "TABLE_EMPTY", f"{name} has no rows: load it, then catalogue it again"
    said = f"none of the {facts.row_count:,} rows of {name} has a geometry in '{geometry.name}'"
    return "TABLE_EMPTY", f"{said}: fill it, or name another geometry_column"


def described_geometry(facts: TableFacts) -> GeometryFacts | None:
    """The geometry column that facts are about."""
    return next((one for one in facts.geometries if one.name == facts.described), None)


def table_item(
    facts: TableFacts, *, item_id: str, collection_id: str, options: TableItemOptions = TableItemOptions()
) -> dict[str, Any]:
    """Build the item that describes a table.

    Args:
        facts: what the store says of it.
        item_id: see ``identifiers.table_item_id``.
        collection_id: the collection it goes to.
        options: the rest.

    Raises:
        NoItemError: the table has none; see :func:`table_problem`.
    """
    problem = table_problem(facts)
    geometry = described_geometry(facts)
    if problem is not None or geometry is None or geometry.srid is None or facts.bbox is None:
        raise NoItemError(problem[1] if problem else f"no item can be made of {facts.schema}.{facts.table}")
    now = rfc3339(options.now or datetime.now(UTC))
    before = _same_version(facts, options.existing)
    properties: dict[str, Any] = {
        "title": f"{facts.schema}.{facts.table}",
        "description": _shortened(facts.description, _MOST_DESCRIPTION),
        **_times(facts, options, before, now),
        "created": now,
        "updated": now,
        "proj:code": _code(geometry.srid),
        "proj:bbox": None if facts.native_bbox is None else list(facts.native_bbox),
        "table:columns": _columns(facts.columns),
        "table:row_count": facts.row_count,
        "table:primary_geometry": geometry.name,
        "geo_assets:type": "table",
        "geo_assets:schema": facts.schema,
        "geo_assets:table": facts.table,
        "geo_assets:version": facts.version,
        "geo_assets:geometry_types": list(facts.geometry_types),
        "geo_assets:estimated": None if facts.exact else True,
        **_provenance(facts, options),
    }
    assets, links = _assets(facts, options, before), list(_links(facts, options))
    extensions = [_PROJECTION, _TABLE, PROCESSING]
    if any("file:size" in asset for asset in assets.values()):
        extensions.append(FILE)
    if any(link["rel"] == "xyz" for link in links):
        extensions.append(_WEB_MAP_LINKS)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": sorted(extensions),
        "id": item_id,
        "collection": collection_id,
        # as lists: shapely's tuples are equal to nothing that comes back from a catalog
        "geometry": json.loads(json.dumps(facts.footprint)),
        "bbox": list(facts.bbox),
        "properties": {name: value for name, value in properties.items() if value is not None or name == "datetime"},
        "links": links,
        "assets": assets,
    }


def _same_version(facts: TableFacts, existing: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The item that is there, if it describes this version of the table; else an empty one."""
    if existing is None or described_thing(existing) != (facts.schema, facts.table):
        return {}
    return existing if existing["properties"].get("geo_assets:version") == facts.version else {}


# --- properties ----------------------------------------------------------------------------------------------------


def _times(facts: TableFacts, options: TableItemOptions, before: Mapping[str, Any], now: str) -> dict[str, str | None]:
    if facts.datetime_range is not None:
        start, end = facts.datetime_range
        source = f"column {options.datetime_column}" if options.datetime_column else "column"
        return {
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            "geo_assets:datetime_source": source,
        }
    load = _last_load(facts)
    loaded = None if load is None else load.details.get(LOADED_AT)
    if isinstance(loaded, str):
        return {"datetime": loaded, "geo_assets:datetime_source": "load"}
    known: Mapping[str, Any] = before.get("properties") or {}
    kept = known.get("datetime") if known.get("geo_assets:datetime_source") == _FIRST_CATALOGUED else None
    return {"datetime": kept or now, "geo_assets:datetime_source": _FIRST_CATALOGUED}


def _columns(columns: Sequence[TableColumn]) -> list[dict[str, str]]:
    """The columns, their descriptions the shorter the more there are."""
    most = min(_MOST_DESCRIPTION, _MOST_DESCRIPTIONS // max(len(columns), 1))
    described = ((column, _shortened(column.description, most)) for column in columns)
    return [
        {"name": column.name, "type": column.type, **({"description": text} if text else {})}
        for column, text in described
    ]


def _shortened(text: str | None, most: int) -> str | None:
    if not text:
        return None
    safe = redact(text)
    return safe if len(safe) <= most else f"{safe[: most - 1]}…"


@lru_cache(maxsize=256)
def _code(srid: int) -> str | None:
    """The code of an SRID; PostGIS numbers the CRS of ESRI among those of EPSG, and people's own anyhow."""
    for authority in ("EPSG", "ESRI"):
        try:
            pyproj.CRS.from_authority(authority, srid)
        except pyproj.exceptions.CRSError:
            continue
        return f"{authority}:{srid}"
    return None


def _last_load(facts: TableFacts) -> TableLoad | None:
    return facts.record.loads[-1] if facts.record is not None and facts.record.loads else None


def _provenance(facts: TableFacts, options: TableItemOptions) -> dict[str, Any]:
    load = _last_load(facts)
    source: Mapping[str, Any] = {} if load is None else load.source
    return {
        **{
            f"geo_assets:source_{name}": source.get(name)
            for name in ("container", "blob", "layer", "etag", "sha256", "last_modified")
        },
        "geo_assets:source_file": None if options.source_file is None else redact(options.source_file),
        "geo_assets:job_id": options.job_id,
        "processing:software": {"geo-assets": __version__},
        "processing:lineage": _lineage(facts),
    }


def _lineage(facts: TableFacts) -> str | None:
    load = _last_load(facts)
    if load is None or facts.record is None or not load.source.get("blob"):
        return None
    source = load.source
    where = "/".join(str(source[name]) for name in ("container", "blob") if source.get(name))
    layer = f", layer {source['layer']}" if source.get("layer") else ""
    loads = len(facts.record.loads)
    return f"Loaded from {where}{layer}." if loads == 1 else f"{loads} loads, the last from {where}{layer}."


# --- assets and links ----------------------------------------------------------------------------------------------


def _assets(facts: TableFacts, options: TableItemOptions, before: Mapping[str, Any]) -> dict[str, Any]:
    href = durable_href(facts.href)
    database = urlsplit(href).scheme == "postgis"
    assets: dict[str, Any] = {
        "data": {
            "href": href,
            "type": _POSTGIS_TYPE if database else _PARQUET_TYPE,
            "title": f"{'PostGIS Table' if database else 'GeoParquet table'}: {facts.schema}.{facts.table}",
            "roles": ["data"],
        }
    }
    if options.features_url:
        # no link: a STAC API takes links with the relation "items" for its own, and drops them
        assets["features"] = {
            "href": f"{_base(options.features_url)}/collections/{_name_in_urls(facts)}/items",
            "type": "application/geo+json",
            "title": "Features",
            "roles": ["data"],
        }
    if options.thumbnail is not None:
        assets["thumbnail"] = asset_of_blob(options.thumbnail, roles=["thumbnail"], fields={"title": "Map"})
    elif "thumbnail" in before.get("assets", {}):
        assets["thumbnail"] = dict(before["assets"]["thumbnail"])
    return assets


def _links(facts: TableFacts, options: TableItemOptions) -> Iterator[dict[str, str]]:
    if options.tiles_url:
        yield {
            "rel": "xyz",
            "href": f"{_base(options.tiles_url)}/{_name_in_urls(facts)}/{{z}}/{{x}}/{{y}}",
            "type": "application/vnd.mapbox-vector-tile",
            "title": "Vector tiles",
        }


def _name_in_urls(facts: TableFacts) -> str:
    return quote(f"{facts.schema}.{facts.table}", safe="")


def _base(url: str) -> str:
    return durable_href(url).rstrip("/")
