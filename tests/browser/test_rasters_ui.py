"""Rasters in the Dagster UI: what a COG and an item look like, and what is said of a file that is none.

What belongs here: the pages of the raster assets.  What does not: everything they share with others
(``test_dagster_ui``).
"""

import pytest
from playwright.sync_api import Locator, expect

from geo_assets.coremachine.machine import CoreMachine
from tests.browser.conftest import FILES, fill, work_off
from tests.browser.seen import GREEN, RED, DagsterPages
from tests.integration.dagster_up import DagsterUp
from tests.raster.rasters import real

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("browser"),
]

RASTERS = [file for file in FILES if file.suffix == ".tif"]
RGB = "landsat_rgb_utm18n.tif"


def is_drawn(picture: Locator) -> None:
    """The picture is there and has been decoded."""
    expect(picture).to_be_visible()
    assert picture.evaluate("image => image.complete && image.naturalWidth > 0")


def shows_pictures(ui: DagsterPages) -> None:
    """Thumbnail, map and histogram without a click, larger ones with one."""
    for name in ("thumbnail", "map", "histogram"):
        is_drawn(ui.value(f"geo/{name}").locator("img"))


def test_a_cog_is_shown_with_its_pictures_and_a_bad_file_is_red(
    ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine
) -> None:
    folder = fill(dagster.home, "bronze", [real(RGB), *(file for file in RASTERS if file.name != RGB)])
    (folder / "cut.tif").write_bytes(real(RGB).read_bytes()[:500_000])
    names = sorted(path.name for path in folder.glob("*.tif"))
    run_id = work_off(dagster, machine, "process_raster", *({"blob_name": name} for name in names))
    ui.open_partition("cog", f"bronze/{RGB}")
    expect(ui.dot(f"bronze/{RGB}")).to_have_css("background-color", GREEN)
    expect(ui.dot("bronze/cut.tif")).to_have_css("background-color", RED)
    shows_pictures(ui)
    expect(ui.value("geo/raster_type")).to_have_text("rgb")
    ui.picture("cog")
    ui.value("geo/pictures").get_by_text("Show Markdown").click()
    dialog = ui.page.get_by_role("dialog")
    for position in range(3):
        is_drawn(dialog.locator("img").nth(position))

    ui.open_partition("cog", "bronze/cut.tif")
    ui.press("View all historical events", exact=False)
    ui.page.get_by_role("dialog").get_by_text("bronze/cut.tif", exact=True).click()
    ui.shows("the TIFF is cut off: it goes on to byte")
    ui.open_partition("raster_validation", "bronze/cut.tif")
    expect(ui.dot("bronze/cut.tif")).to_have_css("background-color", RED)
    expect(ui.dot(f"bronze/{RGB}")).to_have_css("background-color", GREEN)
    ui.open_partition("raster_stac_item", f"bronze/{RGB}")
    shows_pictures(ui)
    ui.picture("raster-item")
    ui.open_run(run_id)
    ui.shows(r"\d of \d+ failed")

    # a person puts the whole file there and presses Materialize: no typing
    (folder / "cut.tif").write_bytes(real(RGB).read_bytes())
    ui.open_partition("cog", "bronze/cut.tif")
    ui.materialize()
    ui.open_partition("cog", "bronze/cut.tif")
    expect(ui.dot("bronze/cut.tif")).to_have_css("background-color", GREEN)
    shows_pictures(ui)


def test_a_container_is_catalogued_blob_by_blob(ui: DagsterPages, dagster: DagsterUp, machine: CoreMachine) -> None:
    folder = fill(dagster.home, "scenes", RASTERS)
    (folder / "text.tif").write_text("no raster")
    work_off(dagster, machine, "stac_catalog_container", {"container_name": "scenes"})
    ui.open_partition("container_stac_items", "scenes")
    expect(ui.dot("scenes")).to_have_css("background-color", GREEN)
    ui.shows("text.tif", "FILE_UNREADABLE")
    ui.picture("container-items")
    good = "goes_geostationary.tif"
    ui.open_partition("raster_stac_item", f"scenes/{good}")
    expect(ui.dot(f"scenes/{good}")).to_have_css("background-color", GREEN)
    expect(ui.dot("scenes/text.tif")).to_have_css("background-color", RED)
    shows_pictures(ui)
    ui.open("/assets/raster_stac_item?view=overview", shows="Catalogues one raster")
    ui.shows("submit_stac_catalog_raster")


def test_the_lineage_of_rasters_leads_from_the_container_to_the_items(ui: DagsterPages) -> None:
    ui.open_lineage("sources", "containers", "rasters", "catalog")
    names = ("source_container", "container_contents", "raster_validation", "cog", "raster_stac_item",
             "container_stac_items")  # fmt: skip
    # a long name is cut in the middle
    nodes = [ui.text(f"^{name}$|^{name[:11]}….*{name[-6:]}$") for name in names]
    for node in nodes:
        expect(node).to_be_visible()
    places = [box["x"] for box in (node.bounding_box() for node in nodes) if box]
    assert places == sorted(places)
