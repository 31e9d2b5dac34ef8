"""Both catalogs holding 10,000 items: writing one, reading what they describe, bringing the collection up to date.

What belongs here: the time of catalog calls, and of single writes from many threads.  What does not: making items,
jobs.

The items are those of a real raster of four bands with statistics and histograms, each of its own place and blob.
``GEO_ASSETS_TEST_POSTGRES_URL`` may name a database that may be filled; else a PostgreSQL is started.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import rasterio

import geo_assets
from geo_assets.stac.identifiers import raster_item_id
from geo_assets.stac.items import BlobFacts
from geo_assets.stac.raster_item import RasterItemOptions, raster_item
from geo_assets.stores.catalog import CatalogStore, ItemStatus
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.static_catalog import StaticCatalog
from tests.services.session import ServiceSession

COLLECTION = "cogs"
BATCH = 1_000
SINGLE_WRITES = 50
THREADS = 8
RASTER = Path(geo_assets.__file__).parent / "demo_data/aerial_rgba_uint16_utm12n.tif"

LIMITS = {
    # at the largest size
    "static": {"one write, ms": 20.0, "described_blobs, s": 3.0, "refresh, s": 30.0},
    "pgstac": {"one write, ms": 15.0, "described_blobs, s": 3.0, "refresh, s": 10.0},
}


def template() -> dict[str, Any]:
    """The item of a real raster."""
    with rasterio.open(RASTER) as dataset:
        blob = BlobFacts(
            container="bronze",
            name="a.tif",
            href="https://example.org/bronze/a.tif",
            etag='"1"',
            size=RASTER.stat().st_size,
            sha256="ab" * 32,
        )
        return raster_item(
            dataset,
            item_id="a",
            collection_id=COLLECTION,
            blob=blob,
            options=RasterItemOptions(
                now=datetime(2026, 1, 1, tzinfo=UTC), extra_properties={"geo_assets:recipe": "0" * 64}
            ),
        )


def item(made_of: dict[str, Any], number: int) -> dict[str, Any]:
    """One of many: its own blob, place and day."""
    name = f"region_{number % 50:02d}/scene_{number:06d}.tif"
    west, south = -180 + (number * 7 % 35_000) / 100, -85 + (number * 13 % 16_000) / 100
    box = [west, south, west + 1, south + 1]
    ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
    day = datetime(2015, 1, 1, tzinfo=UTC) + timedelta(days=number % 4_000)
    return {
        **made_of,
        "id": raster_item_id("bronze", name),
        "bbox": box,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            **made_of["properties"],
            "datetime": day.isoformat().replace("+00:00", "Z"),
            "geo_assets:blob": name,
        },
    }


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def single_writes(catalog: CatalogStore, made_of: dict[str, Any], first: int) -> list[float]:
    """Milliseconds of each of some single writes."""

    def write(number: int) -> None:
        [outcome] = catalog.upsert_items(COLLECTION, [item(made_of, number)], refresh=False)
        assert outcome.status is ItemStatus.CREATED

    return [1000 * seconds(lambda number=number: write(number)) for number in range(first, first + SINGLE_WRITES)]  # type: ignore[misc]


def from_threads(catalog: CatalogStore, made_of: dict[str, Any], first: int, count: int) -> float:
    """Milliseconds an item, written one by one from threads that share a writer."""
    writer = ItemWriter(catalog)
    with ThreadPoolExecutor(THREADS) as pool:
        started = time.perf_counter()
        found = list(
            pool.map(lambda number: writer.write(COLLECTION, item(made_of, number)), range(first, first + count))
        )
        taken = time.perf_counter() - started
    assert all(outcome.status is ItemStatus.CREATED for outcome in found)
    return 1000 * taken / count


def measure(name: str, catalog: CatalogStore, made_of: dict[str, Any], sizes: list[int]) -> list[str]:
    """Fill a catalog up to each size, print what its calls take there; returns the limits that were broken."""
    print(f"\n{name}: {'items':>8} {'fill':>9} {'one write':>20} {'8 threads':>10} {'described':>10} {'refresh':>9}")
    there, found = 0, {}
    for size in sizes:
        filled = seconds(lambda there=there, size=size: fill(catalog, made_of, there, size))  # type: ignore[misc]
        refreshed = seconds(lambda: catalog.refresh_collection(COLLECTION))
        assert catalog.count_items(COLLECTION) == size
        assert len(catalog.described_blobs(COLLECTION, container="bronze")) == size
        described = seconds(lambda: catalog.described_blobs(COLLECTION, container="bronze"))
        writes = single_writes(catalog, made_of, size)
        threaded = from_threads(catalog, made_of, size + SINGLE_WRITES, 400)
        there = size + SINGLE_WRITES + 400
        found = {
            "one write, ms": statistics.median(writes),
            "described_blobs, s": described,
            "refresh, s": refreshed,
        }
        print(
            f"{'':{len(name)}}  {size:>8,} {filled:>7.1f} s {statistics.median(writes):>7.1f} ms"
            f" (≤{max(writes):>5.1f}) {threaded:>7.1f} ms {described:>8.2f} s {refreshed:>7.2f} s"
        )
    return [
        f"{name}: {key} is {found[key]:.1f}, at most {limit}"
        for key, limit in LIMITS[name].items()
        if found[key] > limit
    ]


def fill(catalog: CatalogStore, made_of: dict[str, Any], there: int, size: int) -> None:
    """Write items in batches until there are so many."""
    for start in range(there, size, BATCH):
        numbers = range(start, min(start + BATCH, size))
        catalog.upsert_items(COLLECTION, [item(made_of, number) for number in numbers], refresh=False)


@contextmanager
def database() -> Iterator[str]:
    """The URL of a PostgreSQL with PostGIS that may be filled."""
    given = os.environ.get("GEO_ASSETS_TEST_POSTGRES_URL")
    if given is not None:
        yield given
        return
    session = ServiceSession.begin()
    try:
        yield session.service("postgres")["url"]
    finally:
        session.end()


def main() -> None:
    """Measure both catalogs, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--catalogs", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    given = parser.parse_args()
    made_of, broken = template(), []
    if "static" in given.catalogs:
        with tempfile.TemporaryDirectory() as folder:
            broken += measure("static", StaticCatalog(Path(folder)), made_of, given.sizes)
    if "pgstac" in given.catalogs:
        with database() as url:
            catalog = PgstacCatalog(url)
            broken += measure("pgstac", catalog, made_of, given.sizes)
            catalog.close()
    if broken:
        sys.exit("benchmarks.catalogs: " + "; ".join(broken))


if __name__ == "__main__":
    main()
