"""Items for the tests of the report.

What belongs here: what several of its modules use.  What does not: items that catalogs are tested with
(``tests.stores.catalog_items``), of which these are made.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geo_assets.report import Report, gather
from geo_assets.settings import Settings
from tests.stores.catalog_items import item

__all__ = ["CatalogOf", "NoBlobs", "raster", "report_of", "table"]


def raster(name: str = "a.tif", size: int = 1000, **changes: Any) -> dict[str, Any]:
    """The item of a COG made of ``bronze/<name>``."""
    made = item(
        name,
        **{
            "geo_assets:type": "raster",
            "geo_assets:raster_type": "rgb",
            "geo_assets:container": "silver",
            "geo_assets:source_container": "bronze",
            "geo_assets:source_blob": name,
            **changes,
        },
    )
    made["assets"]["data"] |= {"type": "image/tiff; application=geotiff", "file:size": size}
    made["assets"]["thumbnail"] = {
        "href": "https://store.example/thumbnails/a.webp",
        "type": "image/webp",
        "roles": ["thumbnail"],
        "file:size": 77,
    }
    return made


def table(name: str = "parcels", **changes: Any) -> dict[str, Any]:
    """The item of the table ``geo.<name>``."""
    made = item(
        name,
        id=f"postgis-geo-{name}",
        **{
            "geo_assets:type": "table",
            "geo_assets:schema": "geo",
            "geo_assets:table": name,
            "geo_assets:container": None,
            "geo_assets:blob": None,
            "geo_assets:geometry_types": ["MultiPolygon"],
            "geo_assets:datetime_source": "load",
            "table:row_count": 500,
            **changes,
        },
    )
    made["assets"] = {"data": {"href": "postgis://db/geo", "type": "application/x-postgresql", "roles": ["data"]}}
    return made


class CatalogOf:
    """As much of a catalog as the report reads, over items that no catalog would take."""

    def __init__(self, items: Mapping[str, Sequence[Any]]) -> None:
        self._items = items

    def list_collections(self) -> list[str]:
        """Their ids."""
        return list(self._items)

    def get_collection(self, collection_id: str) -> dict[str, Any] | None:
        """A document."""
        return {"title": f"All of {collection_id}"}

    def iter_overviews(self, collection_id: str) -> Iterator[Any]:
        """The items."""
        yield from self._items[collection_id]


class NoBlobs:
    """A blob store without containers."""

    def list_containers(self) -> list[str]:
        """None."""
        return []


def report_of(items: Mapping[str, Sequence[Any]], *, most_outlines: int = 20_000, **settings: Any) -> Report:
    """The report of these items, by collection, without a ledger."""
    chosen: dict[str, Any] = {"home": Path("nowhere"), **settings}
    services = {"catalog": CatalogOf(items), "blobs": NoBlobs()}
    return gather(Settings(**chosen), services, lambda: None, most_outlines=most_outlines)
