"""Items for the catalog tests.

What belongs here: small valid items, varied by the caller.  What does not: items of real rasters (``tests.stac``).
"""

from typing import Any

COLLECTION = "cogs"


def item(name: str = "a.tif", **changes: Any) -> dict[str, Any]:
    """Return an item of the blob ``bronze/<name>``; keyword arguments replace properties, or id, bbox and geometry."""
    west, south, east, north = changes.pop("bbox", [10.0, 50.0, 11.0, 51.0])
    geometry = changes.pop("geometry", None) or {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [],
        "id": changes.pop("id", f"bronze~{name}"),
        "collection": COLLECTION,
        "geometry": geometry,
        "bbox": [west, south, east, north],
        "properties": {
            "datetime": "2020-01-02T03:04:05Z",
            "created": "2024-01-01T00:00:00Z",
            "updated": "2024-01-01T00:00:00Z",
            "gsd": 10.5,
            "proj:code": None,
            "geo_assets:container": "bronze",
            "geo_assets:blob": name,
            "geo_assets:etag": '"1"',
            "geo_assets:job_id": "0" * 64,
            "renders": {"default": {"assets": ["data"], "colormap": {"1": [0, 0, 0, 255]}}},
            **changes,
        },
        "links": [],
        "assets": {
            "data": {
                "href": f"https://example.org/bronze/{name}",
                "roles": ["data"],
                "bands": [{"name": "b1", "nodata": "nan", "statistics": {"minimum": 1e-5, "maximum": 1e20}}],
            }
        },
    }
