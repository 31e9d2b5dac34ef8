"""Watched containers in the Dagster UI: files land, partitions, runs and items appear; what failed is run again.

What belongs here: sources, their sensors, and lineage from an item back to its container.  What does not: what a
raster's pages show (``test_rasters_ui``).
"""

import re
import shutil

import pytest
from playwright.sync_api import Locator, expect

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.machine import CoreMachine
from tests.browser.conftest import ARRIVALS, FILES, MODULE, fill, work_off
from tests.browser.seen import GREEN, RED, DagsterPages
from tests.browser.test_rasters_ui import is_drawn
from tests.integration.dagster_up import DagsterUp
from tests.raster.rasters import real

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("browser"),
]

RGB = "landsat_rgb_utm18n.tif"


def switch(ui: DagsterPages) -> Locator:
    """The switch of the sensor that is shown."""
    return ui.page.get_by_role("row").filter(has_text="Running").get_by_role("checkbox").first


def test_a_file_lands_and_its_partition_run_and_item_appear(
    ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine
) -> None:
    arrivals = dagster.home / "containers" / ARRIVALS
    # switched off, nothing happens
    ui.open(f"/locations/{MODULE}/sensors/source_{ARRIVALS}", shows="Running")
    expect(switch(ui)).to_be_checked()
    switch(ui).press("Space")
    expect(switch(ui)).not_to_be_checked()
    looked = len(ticks(dagster))
    shutil.copy(real(RGB), arrivals / RGB)
    (arrivals / "cut.tif").write_bytes(real(RGB).read_bytes()[:500_000])
    ui.page.wait_for_timeout(6_000)
    assert len(ticks(dagster)) <= looked + 1  # one may have been under way
    assert not [job for job in machine.ledger.jobs(limit=None) if job.partition_key == f"{ARRIVALS}/{RGB}"]
    # switched on, the files become a wave
    switch(ui).press("Space")
    expect(switch(ui)).to_be_checked()

    def settled() -> bool:
        jobs = {
            job.partition_key: job for job in machine.ledger.jobs(limit=None) if job.partition_key.startswith(ARRIVALS)
        }
        return len(jobs) == 2 and all(job.status.is_terminal for job in jobs.values())

    dagster.wait_for("the jobs of both files", settled, seconds=120)
    ui.open(f"/locations/{MODULE}/sensors/source_{ARRIVALS}", shows="Looks at the container arrivals")
    ui.picture("source-sensor")
    ui.open(f"/assets/source/{ARRIVALS}?view=events", shows="2 new")

    job = machine.ledger.latest_job("cog", f"{ARRIVALS}/{RGB}", "process_raster")
    assert job is not None
    assert job.run_id is not None
    dagster.finished(job.run_id)
    ui.open_run(job.run_id)
    ui.shows("1 of 2 failed", f"{ARRIVALS}/cut.tif")
    ui.open_partition("cog", f"{ARRIVALS}/{RGB}")
    expect(ui.dot(f"{ARRIVALS}/{RGB}")).to_have_css("background-color", GREEN)
    is_drawn(ui.value("geo/thumbnail").locator("img"))
    ui.open_partition("raster_stac_item", f"{ARRIVALS}/{RGB}")
    expect(ui.dot(f"{ARRIVALS}/{RGB}")).to_have_css("background-color", GREEN)
    assert machine.services["catalog"].count_items(ARRIVALS) == 1

    # a bad file is red and says why
    ui.open_partition("cog", f"{ARRIVALS}/cut.tif")
    expect(ui.dot(f"{ARRIVALS}/cut.tif")).to_have_css("background-color", RED)
    ui.press("View all historical events", exact=False)
    ui.page.get_by_role("dialog").get_by_text(f"{ARRIVALS}/cut.tif", exact=True).click()
    ui.shows("the TIFF is cut off: it goes on to byte")

    browse_back_to_the_container(ui)


def ticks(dagster: DagsterUp) -> list[float]:
    """When the sensor of the watched container ticked."""
    found = dagster.graphql(
        """query ($s: SensorSelector!) { sensorOrError(sensorSelector: $s) { ... on Sensor {
             sensorState { ticks(limit: 100) { timestamp } } } } }""",
        s={
            "repositoryLocationName": MODULE,
            "repositoryName": "__repository__",
            "sensorName": f"source_{ARRIVALS}",
        },
    )["sensorOrError"]["sensorState"]["ticks"]
    return [tick["timestamp"] for tick in found]


def browse_back_to_the_container(ui: DagsterPages) -> None:
    """From an item's lineage to what it was made of, and to the page of the source."""
    upstream = "view=lineage&lineageScope=upstream&lineageDepth=5"
    ui.open(f"/assets/raster_stac_item?{upstream}", shows="Graph depth")
    for asset in ("source_container", "container_contents", "raster_validation", "cog", ARRIVALS):
        expect(node(ui, asset)).to_be_visible()
    ui.picture("item-lineage")
    node(ui, "cog").click()
    ui.page.wait_for_url("**/assets/cog?**")
    ui.open(f"/assets/cog?{upstream}", shows="Graph depth")
    node(ui, ARRIVALS).click()
    ui.page.wait_for_url(f"**/assets/source/{ARRIVALS}?**")
    ui.open(f"/assets/source/{ARRIVALS}?view=overview", shows="process_raster")
    ui.shows(f"container.*{ARRIVALS}")


def node(ui: DagsterPages, name: str) -> Locator:
    """A node of the lineage that is shown, by the last part of its key."""
    return ui.page.locator("foreignObject").get_by_text(re.compile(rf"(^|/ ?){name}$")).first


def test_only_what_failed_is_run_again(ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine) -> None:
    good = [file for file in FILES if file.suffix == ".tif" and "no_crs" not in file.name][:2]
    folder = fill(dagster.home, "mended", good)
    (folder / "late.tif").write_bytes(good[0].read_bytes()[:200])
    names = [*(file.name for file in good), "late.tif"]
    run_id = work_off(
        dagster,
        machine,
        "validate_raster_job",
        *({"container_name": "mended", "blob_name": name} for name in names),
    )
    ui.open_partition("raster_validation", "mended/late.tif")
    expect(ui.dot("mended/late.tif")).to_have_css("background-color", RED)
    shutil.copy(good[0], folder / "late.tif")

    ui.open_job("retry_failed")
    ui.page.locator(".CodeMirror").click()
    ui.page.keyboard.press("Control+a")
    ui.page.keyboard.insert_text(f"ops:\n  retry_failed__queue:\n    config:\n      run_id: {run_id}\n")
    ui.shows("No errors")
    ui.press("Launch Run", exact=False)
    ui.page.wait_for_url("**/runs/*")
    ui.run_ends("Success")

    def mended() -> bool:
        (job,) = [job for job in machine.ledger.jobs(limit=None) if job.partition_key == "mended/late.tif"]
        return job.status is JobStatus.COMPLETED

    dagster.wait_for("the job of the file that came late", mended, seconds=120)
    ui.open_partition("raster_validation", "mended/late.tif")
    expect(ui.dot("mended/late.tif")).to_have_css("background-color", GREEN)
    again = [job for job in machine.ledger.jobs(limit=None) if job.partition_key.startswith("mended/")]
    assert sorted(job.attempts for job in again) == [1, 1, 2]
