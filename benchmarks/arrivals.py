"""1,000 new small rasters, from "file lands" to "item searchable, partition green", in a real Dagster: under 5 minutes.

What belongs here: the whole way of a watched container with the embedded default, and how much the event log and the
ledger grow by it.  What does not: a look that finds nothing (``looks``), the pages of the UI (``pages``).

Dagster's UI, daemon and code location are processes of their own, as ``geo-assets dev`` starts them.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.catalogue import fill
from geo_assets.dagster_home import ensure_dagster_home, workspace_file
from geo_assets.dagster_server import DagsterServer, free_port
from geo_assets.settings import get_settings

COUNT = 1000
LIMIT_SECONDS = 300.0
SOURCES = """\
sources:
  - name: scenes
    container: scenes
    workflow: process_raster
    every: 5s
    parameters:
      collection_id: scenes
"""


def size_of(folder: Path, pattern: str) -> float:
    """MB of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file()) / 2**20


def main() -> None:
    """Let the files land, and wait."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ |= {"GEO_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        get_settings.cache_clear()
        (home / "sources.yaml").write_text(SOURCES)
        (home / "containers" / "scenes").mkdir(parents=True)
        fill(home / "arrived", COUNT)
        dagster_home = ensure_dagster_home(get_settings())
        with DagsterServer(
            workspace_file(dagster_home), folder=home, environment=os.environ, port=free_port()
        ) as server:
            while not server.is_ready():
                time.sleep(0.5)
            measure(home, dagster_home)


def measure(home: Path, dagster_home: Path) -> None:
    """From the moment that the last file is there."""
    import dagster as dg  # noqa: PLC0415 - only now is there an instance

    from geo_assets.services import open_services  # noqa: PLC0415

    catalog = open_services(get_settings())["catalog"]
    cog, item = dg.AssetKey("cog"), dg.AssetKey("raster_stac_item")
    time.sleep(15)  # the sensors have ticked, nothing is there
    before = {"events": size_of(dagster_home, "*.db*"), "ledger": size_of(home, "ledger.db*")}
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        for path in sorted((home / "arrived").iterdir()):
            path.replace(home / "containers" / "scenes" / path.name)
        started = time.perf_counter()
        searchable = green = 0.0
        while not (searchable and green):
            time.sleep(0.5)
            passed = time.perf_counter() - started
            if not searchable and catalog.count_items("scenes") == COUNT:
                searchable = passed
            if not green and all(len(instance.get_materialized_partitions(key)) == COUNT for key in (cog, item)):
                green = passed
            if passed > 4 * LIMIT_SECONDS:
                sys.exit(f"benchmarks.arrivals: {catalog.count_items('scenes')} items after {passed:.0f} s")
        runs = [run for run in instance.get_runs() if run.job_name == "process_raster"]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(run.is_finished for run in runs):
            time.sleep(0.5)
            runs = [run for run in instance.get_runs() if run.job_name == "process_raster"]
    after = {"events": size_of(dagster_home, "*.db*"), "ledger": size_of(home, "ledger.db*")}
    print(f"{COUNT:,} rasters of 256 x 256 x 3 land in a watched container; one repeat")
    print(f"every item searchable after {searchable:.0f} s, every partition green after {green:.0f} s", end="")
    print(f"   (target: {LIMIT_SECONDS:.0f} s), in {len(runs)} runs")
    print(
        f"event log grew by {after['events'] - before['events']:.1f} MB (3 assets: {3 * COUNT:,} partitions),"
        f" ledger by {after['ledger'] - before['ledger']:.1f} MB"
    )
    if max(searchable, green) > LIMIT_SECONDS:
        sys.exit("benchmarks.arrivals: the target is missed")


if __name__ == "__main__":
    main()
