"""The Dagster UI with our code location, looked at by a person: what is red, what is green, what is said about it.

One Dagster and one browser serve all modules of the folder.  The tests use containers of their own, so that they do
not depend on each other's order.
"""

import re
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import expect

from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from tests.browser.conftest import ARRIVALS, FILES, MODULE, fill, work_off
from tests.browser.seen import GREEN, GREY, RED, DagsterPages
from tests.integration.dagster_up import DagsterUp

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("browser"),
]


def test_wave_with_three_bad_containers_from_red_to_green(
    ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine
) -> None:
    regions = [f"region-{number:03d}" for number in range(86)]
    good = [name for name in regions[::2] if name not in ("region-006", "region-040", "region-084")]
    bad = ["region-006", "region-040", "region-084"]
    for number, name in enumerate(good):
        fill(dagster.home, name, [FILES[(number + offset) % len(FILES)] for offset in (0, 3, 5)])
    with dagster.instance() as instance:
        instance.add_dynamic_partitions("containers", regions)
    run_id = work_off(dagster, machine, "summarize_container", *({"container_name": name} for name in [*good, *bad]))

    _partitions_are_green_red_and_grey(ui, dagster, good=len(good), bad=len(bad))
    _run_says_what_failed_and_what_to_do(ui, run_id)
    _list_of_runs_shows_the_outcome(ui, run_id)

    # a person makes one of the missing containers and presses Materialize: no typing
    fill(dagster.home, "region-006", FILES[:2])
    ui.open_partition("container_summary", "region-006")
    ui.materialize()
    ui.open_partition("container_summary", "region-006")
    ui.counts(failed=2, materialized=41)
    expect(ui.dot("region-006")).to_have_css("background-color", GREEN)
    expect(ui.value("geo/total_files")).to_have_text("2")

    # makes the other two, and takes up the failed run: only these two are run
    for name in bad[1:]:
        fill(dagster.home, name, FILES[:1])
    ui.open_run(run_id)
    again = _reexecute(ui, run_id, "From failure")
    ui.run_ends("Success")
    ui.shows(r"summarize_container: 2 jobs")
    ui.open_partition("container_summary", "region-084")
    ui.counts(failed=0, materialized=43)
    ui.shows(again[:8])
    ui.open_partition("container_summary", "region-002")
    ui.shows(run_id[:8])  # what was green was not run again


def _partitions_are_green_red_and_grey(ui: DagsterPages, dagster: DagsterUp, *, good: int, bad: int) -> None:
    ui.open_partition("container_summary", "region-002")
    ui.counts(failed=bad, materialized=good, materializing=0)
    expect(ui.dot("region-002")).to_have_css("background-color", GREEN)
    expect(ui.dot("region-003")).to_have_css("background-color", GREY)
    expect(ui.dot("region-006")).to_have_css("background-color", RED)
    expect(ui.value("geo/outcome")).to_have_text("created")
    expect(ui.value("geo/total_files")).to_have_text("3")
    expected = sum(file.stat().st_size for file in (dagster.home / "containers" / "region-002").iterdir())
    expect(ui.value("geo/total_size_bytes")).to_have_text(str(expected))
    expect(ui.value("geo/file_types")).to_contain_text(re.compile(r"type.*count.*tif"))
    ui.picture("partitions")

    ui.open_partition("container_summary", "region-006")
    ui.shows("failed, and did not materialize this asset")
    ui.press("View all historical events", exact=False)
    ui.page.get_by_role("dialog").get_by_text("region-006", exact=True).click()
    ui.shows("container 'region-006' does not exist")
    ui.picture("partition-failed")


def _run_says_what_failed_and_what_to_do(ui: DagsterPages, run_id: str) -> None:
    ui.open_run(run_id)
    ui.shows("Failure", r"3 of 43 failed.*retry_failed")
    ui.picture("run-failed", above=ui.page.get_by_text("Stack Trace").last)
    ui.page.get_by_placeholder("Filter…").fill("region-040")
    ui.shows(r"region-040: failed: .*container 'region-040' does not exist.*make the folder")


def _list_of_runs_shows_the_outcome(ui: DagsterPages, run_id: str) -> None:
    ui.open("/runs", shows=run_id[:8])
    row = ui.page.locator("tr, [role=row], div").filter(has_text=run_id[:8]).filter(has_text="summarize_container")
    expect(row.last).to_be_visible()
    ui.shows("40 created, 3 failed")
    ui.picture("runs")


def _reexecute(ui: DagsterPages, run_id: str, how: str) -> str:
    """Press one of the entries beside *Re-execute all*; the new run's id."""
    ui.page.get_by_role("button", name="Re-execute all").locator("xpath=following::button[1]").click()
    ui.page.get_by_role("menuitem", name=how).click()
    ui.page.wait_for_url(lambda url: "/runs/" in url and run_id not in url)
    return ui.page.url.rpartition("/")[2]


def test_launchpad_documents_the_config_and_queues_what_is_typed(ui: DagsterPages, dagster: DagsterUp) -> None:
    fill(dagster.home, "coast-2024", FILES[:4])
    ui.open_job("submit_list_container_contents")
    editor = ui.page.locator(".CodeMirror")
    # with the cursor among the op's settings, the side bar shows what they are
    editor.locator(".CodeMirror-line", has_text="keys").click()
    ui.shows(
        "Values of container_name: one job each",
        r"\[String\]",
        "Every existing.*that starts with this",
        "Container to list",
        "Most blobs to list, counted after",
        "Which blobs count",
    )
    ui.picture("launchpad")
    ui.page.keyboard.press("Control+a")
    ui.page.keyboard.insert_text(
        "ops:\n  submit_list_container_contents__queue:\n    config:\n      keys:\n        - coast-2024\n"
    )
    ui.shows("No errors")
    ui.press("Launch Run", exact=False)
    ui.page.wait_for_url("**/runs/*")
    ui.run_ends("Success")

    # the run links the wave, which the sensor runs
    ui.page.get_by_text("Show Markdown").click()
    ui.page.get_by_role("link", name="of list_container_contents").click()
    ui.page.wait_for_url("**/runs?*")
    ui.shows("queued_jobs")
    ui.open_partition("container_contents", "coast-2024")
    # the list of partitions looks for news on its own, what is said about one does not
    expect(ui.dot("coast-2024")).to_have_css("background-color", GREEN)
    ui.page.reload()
    expect(ui.value("geo/total_blobs_found")).to_have_text("4")


def test_lineage_leads_from_the_source_to_the_summary(ui: DagsterPages) -> None:
    ui.open_lineage("sources", "containers")
    for group in ("sources", "containers", "examples"):
        ui.shows(f"^{group}$")
    nodes = [ui.text(name, exact=True) for name in ("source_container", "container_contents", "container_summary")]
    for node in nodes:
        expect(node).to_be_visible()
    edges = [box["x"] for box in (node.bounding_box() for node in nodes) if box]
    assert edges == sorted(edges)
    assert len(edges) == len(nodes)

    ui.open("/assets/container_contents?view=overview", shows="Lists the blobs of a container and analyses each")
    ui.shows("submit_list_container_contents", "^queued_jobs$", "^containers$", "^Parquet$")
    upstream = ui.text("Upstream assets", exact=True)
    upstream.scroll_into_view_if_needed()
    lineage = upstream.locator("xpath=../..")
    expect(lineage).to_contain_text("source_container")
    expect(lineage).to_contain_text("container_summary")
    ui.open("/assets/source_container?view=overview", shows="Nothing here writes to it")
    ui.shows("External Asset", "geo-archive", "^Azure$")


def test_the_whole_lineage_reads_from_left_to_right(ui: DagsterPages) -> None:
    ui.open_lineage("sources", "containers", "rasters", "vectors", "catalog", "reports")
    columns = [
        ("source_container", ARRIVALS),
        ("container_contents",),
        ("raster_validation", "container_summary"),
        ("cog", "vector_table"),
        ("raster_stac_item", "vector_stac_item"),
        ("container_stac_items", "catalog_report", "reconciliation"),
    ]
    before = 0.0
    for names in columns:
        # a long name is cut in the middle
        nodes = [ui.text(f"^{name}$|^{name[:11]}….*{name[-6:]}$") for name in names]
        for node in nodes:
            expect(node).to_be_visible()
        middles = [box["x"] + box["width"] / 2 for box in (node.bounding_box() for node in nodes) if box]
        assert min(middles) > before
        assert max(middles) - min(middles) < 30
        before = max(middles)
    ui.picture("lineage")


def with_a_bad_name(dagster: DagsterUp, container: str) -> Path:
    """A container whose listing holds a name that no client can open; that file."""
    bad = fill(dagster.home, container, FILES[:3]) / "roads\nold.tif"
    bad.touch()
    return bad


def test_container_with_a_bad_blob_is_green_with_a_warning(
    ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine
) -> None:
    with_a_bad_name(dagster, "survey-2023")
    run_id = work_off(dagster, machine, "list_container_contents", {"container_name": "survey-2023"})
    ui.open_partition("container_contents", "survey-2023")
    expect(ui.dot("survey-2023")).to_have_css("background-color", GREEN)
    expect(ui.value("geo/total_blobs_found")).to_have_text("4")
    expect(ui.value("geo/invalid_names")).to_have_text("1")
    expect(ui.value("geo/status")).to_have_text("completed_with_errors")

    ui.open("/assets/container_contents?view=checks", shows="all_tasks_succeeded")
    ui.shows("1 of 5 tasks failed", "unsupported name", "survey-2023", r"^Failed$")
    expect(ui.page.get_by_role("img", name="warning").first).to_be_visible()
    ui.picture("check-warning")

    ui.open_run(run_id)
    ui.shows(r"1 of \d tasks failed in 1 of 1 jobs that are otherwise complete")


def test_warning_goes_when_the_container_is_mended(ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine) -> None:
    bad = with_a_bad_name(dagster, "survey-2024")
    work_off(dagster, machine, "list_container_contents", {"container_name": "survey-2024"})
    bad.unlink()
    ui.open_partition("container_contents", "survey-2024")
    ui.materialize()
    ui.open("/assets/container_contents?view=checks", shows="Latest execution")
    expect(ui.text("Passed", exact=True)).to_be_visible()


def test_sensor_is_listed_and_can_be_switched(ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine) -> None:
    ui.open("/automation", shows="queued_jobs")
    ui.shows("Standard sensor")
    expect(ui.page.get_by_role("checkbox").last).to_be_checked()

    ui.open(f"/locations/{MODULE}/sensors/queued_jobs", shows="Takes queued jobs from the ledger")
    ui.shows("Switch it off to pause the queue; nothing is lost", "summarize_container", "hello_world")
    switch = ui.page.locator("label:has(input[type=checkbox])")
    state = switch.locator("input")
    expect(state).to_be_checked()
    switch.click()
    try:
        expect(state).not_to_be_checked()
        dagster.wait_for("the sensor's end", lambda: _sensor_status(dagster) == dg.DefaultSensorStatus.STOPPED.value)
        (answer,) = submit_many(machine, "hello_world", [{"message": "switched off"}])
    finally:
        ui.page.reload()
        expect(state).not_to_be_checked()
        switch.click()
        expect(state).to_be_checked()
    job = answer.job
    dagster.wait_for("the paused job", lambda: machine.ledger.job(job.job_id, job.job_type).status.is_terminal)


def _sensor_status(dagster: DagsterUp) -> str:
    sensor = dagster.graphql(
        """query ($s: SensorSelector!) { sensorOrError(sensorSelector: $s) {
             ... on Sensor { sensorState { status } } } }""",
        s={"repositoryLocationName": MODULE, "repositoryName": "__repository__", "sensorName": "queued_jobs"},
    )["sensorOrError"]
    status: str = sensor["sensorState"]["status"]
    return status
