"""The report in a browser without a network: the map is drawn, collections are filtered, tables are sorted.

It needs no Dagster: the page is a file.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from geo_assets.report import render
from tests.browser.seen import IMAGES
from tests.report.items import raster, report_of, table

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
]

_WANTS_PICTURES = os.environ.get("GEO_ASSETS_SCREENSHOTS") == "1"
_HOSTILE = "</script><script>window.broken=1</script><img src=x onerror=window.broken=2>.tif"


@pytest.fixture
def page(chromium: Browser, tmp_path: Path) -> Iterator[Page]:
    """A page of two collections, one of which lies across the antimeridian; nothing may leave the browser."""
    report = report_of(
        {
            "cogs": [
                raster("europe.tif", size=10**9, bbox=[0.0, 40.0, 20.0, 60.0]),
                raster("tiny.tif", size=2000, bbox=[20.0, -20.0, 20.001, -19.999]),
                raster(_HOSTILE, id=_HOSTILE, size=3000, bbox=[-60.0, -20.0, -50.0, -10.0]),
            ],
            "vectors": [
                table("fiji", bbox=[176.0, -20.0, -178.0, -15.0], geometry={"type": "Point", "coordinates": []})
            ],
        },
        ui_url="http://dagster.example:3000",
    )
    file = tmp_path / "catalog.html"
    file.write_text(render(report), encoding="utf-8")
    context = chromium.new_context(viewport={"width": 1300, "height": 900}, offline=True)
    opened, said, asked = context.new_page(), list[str](), list[Request]()
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("request", lambda request: asked.append(request))  # noqa: PLW0108 - it sets an attribute on it
    opened.goto(file.as_uri())
    yield opened
    assert said == []
    assert [one.url for one in asked] == [file.as_uri()]
    assert opened.evaluate("window.broken") is None
    context.close()


def colour_at(page: Page, x: float, y: float) -> tuple[int, ...]:
    """The colour of the canvas at a place of the map, in units of the map."""
    page.wait_for_timeout(100)  # it is painted in the next frame
    found: list[int] = page.evaluate(
        "([x, y]) => { const c = document.querySelector('canvas'), copy = document.createElement('canvas');"
        " const pen = copy.getContext('2d', {willReadFrequently: true}); copy.width = copy.height = 1;"
        " pen.drawImage(c, -Math.floor(x * c.width / 1000), -Math.floor(y * c.width / 1000));"
        " return [...pen.getImageData(0, 0, 1, 1).data]; }",
        [x, y],
    )
    return tuple(found)


def test_the_map_is_drawn_filtered_and_asked(page: Page) -> None:
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible()
    box = canvas.bounding_box()
    assert box is not None
    # at 178° E 17.5° S, and beyond the antimeridian at 179° W
    fiji, beyond, sea = (985.8, 307.0), (3.0, 307.0), (985.8, 250.0)
    drawn = colour_at(page, *fiji)
    assert drawn[3] == 255
    assert drawn != colour_at(page, *sea)
    assert colour_at(page, *beyond) != colour_at(page, 12.0, 307.0)
    page.get_by_role("checkbox", name="vectors").uncheck()
    assert colour_at(page, *fiji) == colour_at(page, *sea)
    page.get_by_role("checkbox", name="vectors").check()
    assert colour_at(page, *fiji) == drawn

    # the tiny one is found by its dot, and a click keeps its links in place
    tip = page.get_by_role("status")
    page.mouse.click(box["x"] + box["width"] * 0.5541, box["y"] + box["width"] * 0.3171)
    expect(tip).to_contain_text("bronze/tiny.tif")
    expect(tip).to_contain_text("cogs · 2020-01-02 · 2 kB")
    expect(tip.get_by_role("link", name="In Dagster")).to_have_attribute(
        "href", "http://dagster.example:3000/assets/raster_stac_item?view=partitions&partition=bronze%2Ftiny.tif"
    )
    page.get_by_role("button", name="Zoom in").click()
    expect(tip).to_be_hidden()
    assert colour_at(page, 500, 243) != (0, 0, 0, 0)


def test_nothing_is_cut_off_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 420, "height": 900})
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    box, tip = canvas.bounding_box(), page.get_by_role("status")
    assert box is not None
    page.mouse.click(box["x"] + box["width"] * 0.36, box["y"] + box["width"] * 0.29)
    expect(tip).to_contain_text("In Dagster")
    said = tip.bounding_box()
    assert said is not None
    assert box["y"] <= said["y"]
    assert said["y"] + said["height"] <= box["y"] + box["height"]
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    # every part of a table beyond the edge can be reached
    hidden = "[...document.querySelectorAll('table')].filter(t => t.offsetWidth > t.closest('.card').clientWidth &&"
    assert page.evaluate(f"{hidden} !t.closest('.scroll')).length") == 0


def test_tables_are_sorted_and_read_without_a_script(page: Page, chromium: Browser, tmp_path: Path) -> None:
    rows = page.get_by_role("table", name="Biggest datasets").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first).to_contain_text("europe.tif")
    head = page.get_by_role("table", name="Biggest datasets").get_by_role("columnheader", name="Size")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "descending")
    expect(rows.first).to_contain_text("europe.tif")
    head.get_by_role("button").click()
    expect(rows.first).to_contain_text("tiny.tif")
    context = chromium.new_context(java_script_enabled=False, offline=True)
    plain = context.new_page()
    plain.goto(page.url)
    expect(plain.get_by_role("img", name="World map")).to_be_visible()
    expect(plain.get_by_role("table", name="Biggest datasets").locator("tbody tr").first).to_contain_text("europe.tif")
    expect(plain.get_by_role("button")).to_have_count(0)
    context.close()
    if _WANTS_PICTURES:
        take_picture(chromium, tmp_path / "busy.html")


def take_picture(chromium: Browser, file: Path) -> None:
    """The picture of the docs: a catalog as large as people have it."""
    chance = random.Random(7)
    places = [(8, 48), (-100, 40), (105, 15), (-58, -12), (135, -25), (24, 2), (178, -17), (30, 62)]

    def scattered(collection: str, count: int, side: float) -> list[dict[str, Any]]:
        made = []
        for n in range(count):
            west, south = (chance.gauss(at, 7) for at in chance.choice(places))
            box = [(west + 180) % 360 - 180, south, (west + side + 180) % 360 - 180, south + side * 0.8]
            made.append(
                raster(
                    f"{collection}_{n:04d}.tif",
                    int(chance.paretovariate(1.2) * 2e8),
                    bbox=box,
                    geometry={"type": "Point", "coordinates": []},
                    datetime=f"{chance.randint(2012, 2025)}-{chance.randint(1, 12):02d}-15T00:00:00Z",
                    created=f"{chance.choice((2024, 2025, 2025))}-{chance.randint(1, 12):02d}-01T00:00:00Z",
                )
            )
        return made

    report = report_of(
        {
            "orthophotos": scattered("ortho", 260, 0.3),
            "elevation": scattered("dem", 110, 3),
            "satellite": scattered("scene", 90, 5),
        },
        ui_url="http://127.0.0.1:3000",
    )
    file.write_text(render(replace(report, containers=12)), encoding="utf-8")
    page = chromium.new_page(viewport={"width": 1300, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_timeout(500)
    page.screenshot(path=IMAGES / "report.png")
    page.close()
