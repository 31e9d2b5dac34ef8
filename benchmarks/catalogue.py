"""Cataloguing 1,000 small COGs in Dagster, against a bare loop of the libraries: at most 3 times as long.

What belongs here: the whole way, from a container to items in pgSTAC, partitions materialized with their pictures.
What does not: making an item (``items``), making COGs (``cog``).

The peer is a loop that does the least: rio-stac makes the item of each file (projection, statistics), pypgstac's loader
writes all of them at once; no check, no checksum, no picture, no thumbnail, nothing remembered.  Ours is
``stac_catalog_container`` from submission to the end of its run, with the embedded SQLite for ledger and Dagster.
``GEO_ASSETS_TEST_POSTGRES_URL`` may name a PostgreSQL that runs; else one is started.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
import rasterio
import rasterio.shutil
from psycopg2 import sql
from rasterio.transform import from_origin
from sqlalchemy.engine import URL, make_url

from tests.services.session import ServiceSession

COUNT = 1000
SIDE = 256
LIMIT = 3.0
EVENT_LIMIT = 16 * 1024
COLLECTION = "dev"


def fill(folder: Path, count: int) -> None:
    """COGs of three bands with something to see, scattered over the Earth."""
    rng = np.random.default_rng(7)
    folder.mkdir(parents=True)
    x = np.linspace(0, 6, SIDE)
    for number in range(count):
        phase = rng.random(3) * 6
        waves = np.stack([np.sin(x + one)[:, None] * np.cos(x * 1.3 + one)[None, :] for one in phase])
        pixels = np.clip(120 + 90 * waves + rng.normal(0, 6, waves.shape), 1, 255).astype("uint8")
        place = from_origin(200_000 + 5_000 * (number % 40), 5_000_000 - 5_000 * (number // 40), 10, 10)
        with rasterio.MemoryFile() as memory:
            with memory.open(
                driver="GTiff", width=SIDE, height=SIDE, count=3, dtype="uint8", crs="EPSG:32633", transform=place,
                photometric="rgb",
            ) as dataset:  # fmt: skip
                dataset.write(pixels)
            with memory.open() as dataset:
                rasterio.shutil.copy(dataset, folder / f"scene_{number:04d}.tif", driver="COG", COMPRESS="DEFLATE")


# --- in a process of its own -----------------------------------------------------------------------------------


def peer(folder: Path, url: str) -> dict[str, Any]:
    """The bare loop."""
    from pypgstac.db import PgstacDB  # noqa: PLC0415 - imports are not measured
    from pypgstac.load import Loader, Methods  # noqa: PLC0415
    from rio_stac import create_stac_item  # noqa: PLC0415

    from geo_assets.stores.pgstac import PgstacCatalog  # noqa: PLC0415

    with closing(PgstacCatalog(url)) as catalog:
        catalog.upsert_items(COLLECTION, [])
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    started = time.perf_counter()
    items = []
    for path in sorted(folder.glob("*.tif")):
        with rasterio.open(path) as dataset:
            item = create_stac_item(
                dataset, id=path.stem, collection=COLLECTION, with_proj=True, with_raster=True, asset_href=str(path)
            )
        items.append(item.to_dict())
    with PgstacDB(dsn=plain) as database:
        Loader(database).load_items(iter(items), Methods.upsert)
    wall = time.perf_counter() - started
    with closing(PgstacCatalog(url)) as catalog:
        assert catalog.count_items(COLLECTION) == len(items)
    return {"wall": wall}


def ours(home: Path, url: str) -> dict[str, Any]:
    """The job in Dagster, in this process as a run worker has it."""
    os.environ |= {
        "GEO_ASSETS_HOME": str(home),
        "GEO_ASSETS_CATALOG_URL": url,
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
    }
    from geo_assets.dagster_home import ensure_dagster_home  # noqa: PLC0415 - only now does it know its home
    from geo_assets.settings import get_settings  # noqa: PLC0415

    ensure_dagster_home(get_settings())
    import dagster as dg  # noqa: PLC0415

    from geo_assets.coremachine import dispatch  # noqa: PLC0415
    from geo_assets.coremachine.asset_job import MACHINE  # noqa: PLC0415
    from geo_assets.coremachine.submission import submit  # noqa: PLC0415
    from geo_assets.definitions import defs  # noqa: PLC0415

    machine = defs.resources[MACHINE].machine()  # type: ignore[index]
    result: dict[str, Any] = {}
    with dg.DagsterInstance.get() as instance:
        for what in ("first", "again"):
            started = time.perf_counter()
            answer = submit(machine, "stac_catalog_container", {"container_name": "scenes"})
            (asked,) = dispatch.tick(machine, instance).runs
            run = defs.resolve_job_def(asked.job_name).execute_in_process(
                instance=instance, tags=dict(asked.tags), raise_on_error=False
            )
            result[what] = time.perf_counter() - started
            job = machine.ledger.job(answer.job.job_id, answer.job.job_type)
            assert run.success, job.error_details
            result[f"{what}_summary"] = (job.result_data or {})["summary"]
        assert machine.services["catalog"].count_items(COLLECTION) == result["first_summary"]["created"]
        key = dg.AssetKey("raster_stac_item")
        assert len(instance.get_materialized_partitions(key)) == result["first_summary"]["created"]
        records = instance.fetch_materializations(key, limit=200).records
        from dagster import serialize_value  # noqa: PLC0415

        result["event_bytes"] = [len(serialize_value(record.event_log_entry)) for record in records]
    status = Path("/proc/self/status").read_text()
    result["peak_mb"] = int(status.split("VmHWM:")[1].split()[0]) / 1024
    result["ledger_mb"] = (home / "ledger.db").stat().st_size / 2**20
    result["events_mb"] = sum(path.stat().st_size for path in (home / "dagster").rglob("*.db*")) / 2**20
    return result


# --- the comparison --------------------------------------------------------------------------------------------


def run(way: str, *arguments: str) -> dict[str, Any]:
    """Run one way in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.catalogue", "--child", way, *arguments],
        check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def database(server: URL, template: str) -> str:
    """URL of a new database with PostGIS."""
    name = f"bench_{uuid.uuid4().hex}"
    connection = psycopg2.connect(server.set(drivername="postgresql").render_as_string(hide_password=False))
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
    return server.set(database=name).render_as_string(hide_password=False)


def compare(count: int, repeats: int) -> bool:
    """Run both ways in turn and print what they take; whether ours is within the limit."""
    session = ServiceSession.begin()
    try:
        state = session.service("postgres")
        given = os.environ.get("GEO_ASSETS_TEST_POSTGRES_URL")
        server, template = make_url(given or state["url"]), "template1" if given else state["template"]
        rounds = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory(prefix="catalogue-") as folder:
                home = Path(folder)
                scenes = home / "containers" / "scenes"
                fill(scenes, count)
                mine = run("ours", str(home), database(server, template))
                theirs = run("peer", str(scenes), database(server, template))
                rounds.append((mine, theirs))
    finally:
        session.end()
    first, again = (statistics.median(mine[what] for mine, _ in rounds) for what in ("first", "again"))
    bare = statistics.median(theirs["wall"] for _, theirs in rounds)
    mine = rounds[-1][0]
    sizes = mine["event_bytes"]
    print(
        f"{count} COGs of {SIDE}^2: ours {first:.1f} s ({1000 * first / count:.1f} ms each, {mine['peak_mb']:.0f} MB),"
        f" again {again:.2f} s with nothing changed; bare loop {bare:.1f} s: {first / bare:.2f} x (at most {LIMIT} x)"
    )
    print(
        f"a materialization takes {statistics.median(sizes):,.0f} bytes in the event log, at most {max(sizes):,};"
        f" in all {mine['ledger_mb']:.1f} MB of ledger and {mine['events_mb']:.1f} MB of Dagster's log"
    )
    assert mine["first_summary"]["created"] == count
    assert mine["again_summary"]["unchanged"] == count
    assert max(sizes) <= EVENT_LIMIT
    return bool(first / bare <= LIMIT)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs="+", help="used by the benchmark itself")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.child:
        warnings.simplefilter("ignore")
        way, place, url = arguments.child
        print(json.dumps(ours(Path(place), url) if way == "ours" else peer(Path(place), url)))
        return
    print(f"rasterio {rasterio.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    assert compare(arguments.count, arguments.repeats), f"more than {LIMIT} times the bare loop"


if __name__ == "__main__":
    main()
