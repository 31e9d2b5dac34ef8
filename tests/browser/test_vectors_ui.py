"""Vector tables in the Dagster UI: what a table and its item look like, and what is said of a file that is none.

What belongs here: the pages of the vector assets.  What does not: everything they share with others
(``test_dagster_ui``).
"""

import pytest
from playwright.sync_api import expect

from geo_assets.coremachine.machine import CoreMachine
from tests.browser.conftest import FILES, fill, work_off
from tests.browser.seen import GREEN, RED, DagsterPages
from tests.browser.test_rasters_ui import is_drawn
from tests.integration.dagster_up import DagsterUp

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("browser"),
]

COUNTIES = "us_counties.gpkg"


def test_tables_are_shown_with_their_maps_and_a_bad_file_is_red(
    ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine
) -> None:
    fill(dagster.home, "vectors", [file for file in FILES if file.suffix in (".gpkg", ".zip", ".csv")])
    (dagster.home / "containers" / "vectors" / "page.geojson").write_text("<html>no features</html>")
    wanted = {"us": COUNTIES, "german_cities": "german_cities_utm32n.zip", "page": "page.geojson"}
    run_id = work_off(
        dagster,
        machine,
        "ingest_vector",
        *({"container_name": "vectors", "blob_name": blob, "table_name": table} for table, blob in wanted.items()),
    )
    ui.open_partition("vector_table", "geo.us_counties")
    for table in ("us", "us_counties", "us_states", "german_cities"):
        expect(ui.dot(f"geo.{table}")).to_have_css("background-color", GREEN)
    expect(ui.dot("geo.page")).to_have_css("background-color", RED)
    is_drawn(ui.value("geo/map").locator("img"))
    expect(ui.value("dagster/row_count")).to_have_text("3230")
    ui.shows("EPSG:5070", "invalid geometries repaired")
    ui.picture("vector-table")
    ui.value("geo/pictures").get_by_text("Show Markdown").click()
    is_drawn(ui.page.get_by_role("dialog").locator("img").first)
    ui.page.keyboard.press("Escape")

    ui.open_partition("vector_table", "geo.german_cities")
    is_drawn(ui.value("geo/map").locator("img"))

    ui.open_partition("vector_table", "geo.page")
    ui.press("View all historical events", exact=False)
    ui.page.get_by_role("dialog").get_by_text("geo.page", exact=True).click()
    ui.shows("HTML")

    ui.open_partition("vector_stac_item", "geo.us_counties")
    expect(ui.dot("geo.us_counties")).to_have_css("background-color", GREEN)
    is_drawn(ui.value("geo/map").locator("img"))
    ui.picture("vector-item")
    ui.open_run(run_id)
    ui.shows(r"\d of \d+ failed")


def test_the_lineage_of_tables_leads_from_the_container_to_the_items(ui: DagsterPages) -> None:
    ui.open_lineage("sources", "containers", "vectors", "catalog")
    names = ("source_container", "container_contents", "vector_table", "vector_stac_item")
    nodes = [ui.text(f"^{name}$|^{name[:11]}….*{name[-6:]}$") for name in names]
    for node in nodes:
        expect(node).to_be_visible()
    places = [box["x"] for box in (node.bounding_box() for node in nodes) if box]
    assert places == sorted(places)
