"""A partition that was taken back, in the UI of a Dagster that is up: grey at once, and green again when made anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.submission import submit_keys
from geo_assets.settings import get_settings
from geo_assets.unpublish import execute
from tests.browser.seen import GREEN, GREY, browser_path, opened
from tests.integration.dagster_up import DagsterUp
from tests.integration.publishing_location import defs

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("browser"),
]

MODULE = "tests.integration.publishing_location"
A, B = "bronze/a.tif", "bronze/b.tif"
STATUS = """query ($k: AssetKeyInput!) { assetNodeOrError(assetKey: $k) { ... on AssetNode {
    assetPartitionStatuses { ... on DefaultPartitionStatuses { materializedPartitions failedPartitions } }
    assetMaterializations(limit: 9) { partition } } } }"""


@pytest.fixture
def dagster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DagsterUp]:
    browser_path()  # without a browser, do not start Dagster for nothing
    home = tmp_path / "up"
    monkeypatch.setenv("GEO_ASSETS_HOME", str(home))
    get_settings.cache_clear()
    up = DagsterUp(MODULE, home)
    try:
        yield up
    finally:
        up.stop()


def statuses(dagster: DagsterUp, asset: str) -> dict[str, Any]:
    """What the partitions page asks for."""
    node: dict[str, Any] = dagster.graphql(STATUS, k={"path": [asset]})["assetNodeOrError"]
    return {
        "green": set(node["assetPartitionStatuses"]["materializedPartitions"]),
        "red": set(node["assetPartitionStatuses"]["failedPartitions"]),
        "events": {event["partition"] for event in node["assetMaterializations"]},
    }


def work_off(dagster: DagsterUp, machine: CoreMachine, job_type: str, *keys: str) -> list[str]:
    """Submit a job a key, wait for them; returns the ledger's decisions."""
    answers = submit_keys(machine, job_type, keys=keys)

    def ended() -> bool:
        jobs = [machine.ledger.job(answer.job.job_id, job_type) for answer in answers]
        attempts = [attempt for job in jobs for attempt in machine.ledger.attempts_of_job(job_type, job.job_id)]
        return all(job.status.is_terminal for job in jobs) and all(attempt.event_emitted for attempt in attempts)

    dagster.wait_for(f"the end of {job_type}", ended, seconds=120)
    return [answer.submitted.decision.value for answer in answers]


def test_a_partition_taken_back_is_grey_and_green_again_when_made_anew(chromium: Browser, dagster: DagsterUp) -> None:
    machine: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index]
    assert work_off(dagster, machine, "check_raster", A, B) == ["created", "created"]
    assert work_off(dagster, machine, "make_cog", A, B) == ["created", "created"]
    assert statuses(dagster, "cog") == {"green": {A, B}, "red": set(), "events": {A, B}}
    with opened(chromium, dagster.url, MODULE, failure=dagster.home / "last-page.png") as ui:
        ui.open_partition("cog", B)
        ui.counts(materialized=2, failed=0)
        expect(ui.dot(B)).to_have_css("background-color", GREEN)

        with dagster.instance() as instance:
            (taken,) = execute(
                machine,
                lambda asset, keys: unmaterialize(instance, asset=asset, partition_keys=keys, who="jane"),
                "cog",
                [B],
                who="jane",
            )
        assert taken.complete
        assert statuses(dagster, "cog") == {"green": {A}, "red": set(), "events": {A}}
        assert statuses(dagster, "raster_validation")["green"] == {A, B}
        ui.open_partition("cog", B)
        ui.counts(materialized=1, failed=0, missing=1)
        expect(ui.dot(A)).to_have_css("background-color", GREEN)
        expect(ui.dot(B)).to_have_css("background-color", GREY)
        ui.page.screenshot(path=dagster.home / "taken-back.png")
        # the history says who it was
        ui.open(f"/assets/cog?view=events&filter=observations&partition={B}", shows="Taken back by jane")
        ui.page.screenshot(path=dagster.home / "history.png")

        assert work_off(dagster, machine, "make_cog", A, B) == ["recorded", "requeued"]
        assert statuses(dagster, "cog") == {"green": {A, B}, "red": set(), "events": {A, B}}
        ui.open_partition("cog", B)
        ui.counts(materialized=2, failed=0)
        expect(ui.dot(B)).to_have_css("background-color", GREEN)
