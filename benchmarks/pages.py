"""Pages of the Dagster UI at 10,000 keys in 50 containers: lineage, stale status and partitions open in seconds.

What belongs here: what a person in front of headless Chromium waits for.  What does not: what is on the pages
(``tests.browser``).

Runs are not needed for this: the partitions are materialized by events, as a wave writes them, all of the assets of
rasters and of containers.
"""

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from geo_assets.dagster_home import CODE_LOCATION, ensure_dagster_home, workspace_file
from geo_assets.dagster_server import DagsterServer, free_port
from geo_assets.settings import get_settings
from tests.browser.seen import DagsterPages, launched, opened

KEYS = int(os.environ.get("GEO_ASSETS_BENCH_KEYS", "10000"))
CONTAINERS = 50
REPEATS = 3
LIMIT_SECONDS = 10.0
RASTER_ASSETS = ("raster_validation", "cog", "raster_stac_item")
CONTAINER_ASSETS = ("container_contents", "container_summary", "container_stac_items")


def fill(dagster_home: Path) -> None:
    """Every partition green."""
    import dagster as dg  # noqa: PLC0415 - only now is there an instance

    from geo_assets.coremachine import events  # noqa: PLC0415

    containers = [f"region_{number:02d}" for number in range(CONTAINERS)]
    rasters = [f"{containers[number % CONTAINERS]}/scene_{number:06d}.tif" for number in range(KEYS)]
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        for name, keys, assets in (
            ("containers", containers, CONTAINER_ASSETS),
            ("raster_blobs", rasters, RASTER_ASSETS),
        ):
            for some in itertools.batched(keys, 5000):
                instance.add_dynamic_partitions(name, list(some))
                for asset in assets:
                    events.report_materializations(
                        instance,
                        run_id="",
                        job_name="",
                        step_key="",
                        materializations=[
                            dg.AssetMaterialization(
                                dg.AssetKey(asset), partition=key, tags={"dagster/data_version": "1"}
                            )
                            for key in some
                        ],
                    )


def shown(page: Page, text: str) -> None:
    """Wait until the page shows a text."""
    expect(page.get_by_text(text).filter(visible=True).first).to_be_visible(timeout=120_000)


def look(ui: DagsterPages) -> dict[str, Callable[[], None]]:
    """What is opened, and what must be seen before it counts as open."""

    def lineage() -> None:
        ui.page.goto(f"{ui.url}/asset-groups?expanded=true")
        shown(ui.page, "Global asset lineage")
        ui.page.locator("foreignObject").first.wait_for()

    def group() -> None:
        # each node of the group says how many of its partitions are there and whether it is stale
        ui.page.goto(f"{ui.url}/locations/{CODE_LOCATION}/asset-groups/rasters/lineage")
        shown(ui.page, f"{KEYS:,}" if KEYS != CONTAINERS else "partitions")

    def partitions() -> None:
        ui.page.goto(f"{ui.url}/assets/cog?view=partitions")
        shown(ui.page, f"Materialized ({KEYS})")

    def partition() -> None:
        ui.page.goto(f"{ui.url}/assets/cog?view=partitions&partition=region_07%2Fscene_000007.tif")
        shown(ui.page, "region_07/scene_000007.tif")

    def catalog() -> None:
        ui.page.goto(f"{ui.url}/assets")
        shown(ui.page, "raster_stac_item")

    return {
        "global lineage": lineage,
        "lineage of a group, with counts and staleness": group,
        "partitions of an asset": partitions,
        "one partition": partition,
        "list of assets": catalog,
    }


def main() -> None:
    """Fill, start, look."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ |= {"GEO_ASSETS_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        get_settings.cache_clear()
        dagster_home = ensure_dagster_home(get_settings())
        started = time.perf_counter()
        fill(dagster_home)
        print(
            f"{KEYS:,} keys in {CONTAINERS} containers, 3 assets each, written in {time.perf_counter() - started:.0f} s"
        )
        port = free_port()
        with (
            DagsterServer(workspace_file(dagster_home), folder=home, environment=os.environ, port=port) as server,
            launched() as browser,
        ):
            while not server.is_ready():
                time.sleep(0.5)
            with opened(browser, server.url, CODE_LOCATION, failure=home / "last-page.png") as ui:
                measure(ui)


def measure(ui: DagsterPages) -> None:
    """Open each page, the first time and again."""
    slow = []
    for name, visit in look(ui).items():
        times = []
        for _ in range(1 + REPEATS):
            ui.page.goto("about:blank")
            started = time.perf_counter()
            visit()
            times.append(time.perf_counter() - started)
        again = statistics.median(times[1:])
        print(f"{name:48s} {times[0]:5.1f} s the first time, {again:5.1f} s again")
        if times[0] > LIMIT_SECONDS:
            slow.append(name)
    if slow:
        sys.exit(f"benchmarks.pages: more than {LIMIT_SECONDS:.0f} s: {', '.join(slow)}")


if __name__ == "__main__":
    main()
