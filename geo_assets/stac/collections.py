"""Collections: what they are called, and the extent and summaries that follow from their items.

What belongs here: descriptions, facts gathered over items, the collection document.  What does not: keeping it
(``stores.catalog``).  Facts are computed over all items anew: an extent that is only ever widened is wrong after the
first removal.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from geo_assets.errors import ParameterError
from geo_assets.stac.longitudes import LongitudeUnion

__all__ = [
    "SUMMARISED",
    "CollectionDescription",
    "CollectionFacts",
    "collection_document",
    "describe_collection",
    "facts_of",
]

SUMMARISED = ("proj:code", "gsd", "geo_assets:type", "geo_assets:raster_type", "geo_assets:schema")
"""Item properties that make up the summaries; the temporal ones and the bbox make up the extent."""

TEMPORAL = ("datetime", "start_datetime", "end_datetime")

_MOST_VALUES = 100
_POSITIONS_OF_BOX = {4: (0, 1, 2, 3), 6: (0, 1, 3, 4)}
_MOST_ID_CHARACTERS = 128
_KNOWN = {
    "cogs": ("Cloud Optimized GeoTIFFs", "Rasters made into Cloud Optimized GeoTIFFs, or found to be ones."),
    "vectors": ("Vector tables", "Tables of vector features, one item a table."),
    "geoparquet": ("GeoParquet files", "Vector features exported as GeoParquet."),
    "dev": ("Development", "Items made while trying things out; anything here may go at any time."),
}


@dataclass(frozen=True, kw_only=True)
class CollectionDescription:
    """What people say about a collection; the rest of its document is computed."""

    id: str
    title: str
    description: str
    license: str = "other"
    keywords: tuple[str, ...] = ()


@dataclass
class CollectionFacts:
    """What the items of a collection add up to; give it each of them, or those parts of each that it looks at."""

    count: int = 0
    _longitudes: LongitudeUnion = field(default_factory=LongitudeUnion)
    _south: float | None = None
    _north: float | None = None
    _first: str | None = None
    _last: str | None = None
    _values: dict[str, set[Any]] = field(default_factory=dict)
    _ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, item: Mapping[str, Any]) -> None:
        """Count one item (``bbox`` and ``properties`` are looked at)."""
        self.count += 1
        box = item.get("bbox")
        if box:
            west, south, east, north = (box[at] for at in _POSITIONS_OF_BOX[len(box)])
            self._longitudes.add(west, east)
            self._south = south if self._south is None else min(south, self._south)
            self._north = north if self._north is None else max(north, self._north)
        self._add_times(item["properties"])
        for name in SUMMARISED:
            value = item["properties"].get(name)
            if isinstance(value, bool) or value is None:
                continue
            if isinstance(value, int | float):
                low, high = self._ranges.get(name, (value, value))
                self._ranges[name] = (min(low, value), max(high, value))
            elif isinstance(value, str):
                self._values.setdefault(name, set()).add(value)

    def extent(self) -> dict[str, Any]:
        """The STAC extent; the whole world and all time while there is nothing."""
        edges = self._longitudes.edges()
        box = [-180.0, -90.0, 180.0, 90.0]
        if edges is not None and self._south is not None and self._north is not None:
            box = [edges[0], self._south, edges[1], self._north]
        return {"spatial": {"bbox": [box]}, "temporal": {"interval": [[self._first, self._last]]}}

    def summaries(self) -> dict[str, Any]:
        """The STAC summaries; a property with more than 100 different texts has none."""
        values = {name: sorted(found) for name, found in self._values.items() if len(found) <= _MOST_VALUES}
        ranges = {name: {"minimum": low, "maximum": high} for name, (low, high) in self._ranges.items()}
        return dict(sorted({**values, **ranges}.items()))

    def _add_times(self, properties: Mapping[str, Any]) -> None:
        start = properties.get("start_datetime") or properties.get("datetime")
        end = properties.get("end_datetime") or properties.get("datetime")
        # our own times are all UTC with a Z; others are brought to it, so that text order is time order
        if isinstance(start, str):
            start = _utc(start)
            self._first = start if self._first is None else min(self._first, start)
        if isinstance(end, str):
            end = _utc(end)
            self._last = end if self._last is None else max(self._last, end)


def facts_of(items: Iterable[Mapping[str, Any]]) -> CollectionFacts:
    """Gather the facts of all items."""
    facts = CollectionFacts()
    for item in items:
        facts.add(item)
    return facts


def describe_collection(collection_id: str) -> CollectionDescription:
    """Return what is said of a collection nobody described; the four of the original have texts of their own.

    Raises:
        ParameterError: the id cannot name a collection.
    """
    if not collection_id or len(collection_id) > _MOST_ID_CHARACTERS or not collection_id.isprintable():
        raise ParameterError(
            f"a collection id has 1 to {_MOST_ID_CHARACTERS} printable characters, got {collection_id[:80]!a}"
        )
    title, description = _KNOWN.get(collection_id, (collection_id, f"Items of the collection {collection_id}."))
    return CollectionDescription(id=collection_id, title=title, description=description)


def collection_document(
    described: CollectionDescription, facts: CollectionFacts, *, existing: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make the collection's document.

    Args:
        described: title, description and so on of a new collection.
        facts: of all its items.
        existing: the present document; what people wrote into it stays, extent and our summaries are replaced.
    """
    document: dict[str, Any] = {
        "type": "Collection",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": described.id,
        "title": described.title,
        "description": described.description,
        "license": described.license,
        "keywords": list(described.keywords),
        "links": [],
    }
    if not document["keywords"]:
        del document["keywords"]
    document |= dict(existing or {})
    others = {name: value for name, value in document.get("summaries", {}).items() if name not in SUMMARISED}
    return document | {"extent": facts.extent(), "summaries": {**others, **facts.summaries()}}


def _utc(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).isoformat().replace("+00:00", "Z")
