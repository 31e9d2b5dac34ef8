"""The Dagster UI as a person sees it, in headless Chromium.

What belongs here: finding and driving the browser, the UI's pages and widgets by what is written on them, pictures
for the README.  What does not: what should be there (``test_dagster_ui``).
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, expect, sync_playwright

from tests.integration.dagster_up import ROOT

IMAGES = ROOT / "docs" / "images"
# when this is imported; each test runs without any variable of ours
_WANTS_PICTURES = os.environ.get("GEO_ASSETS_SCREENSHOTS") == "1"
_LARGEST_PICTURE = 300_000
_WINDOW: FloatRect = {"x": 0, "y": 0, "width": 1400, "height": 900}

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_SECONDS = 60
"""How long a page may take; the machine may be busy with other tests."""
_RUN_SECONDS = 180

# as the style sheet computes them; another Dagster may have other shades
RED = re.compile(r"rgb\([12]\d\d, \d\d, \d\d\)")
GREEN = re.compile(r"rgb\(\d\d, 2\d\d, \d\d\d\)")
GREY = re.compile(r"rgb\(\d\d\d?, 1\d\d, 1\d\d\)")


def browser_path() -> str:
    """The system's Chromium; where there is none, fail under CI and skip elsewhere."""
    for name in _BROWSERS:
        if path := shutil.which(name):
            return path
    reason = f"no browser on PATH ({', '.join(_BROWSERS)}): run tests/services/install"
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI needs Chromium: {reason}", pytrace=False)
    pytest.skip(reason)


class DagsterPages:
    """A browser tab on one Dagster.

    Args:
        page: the tab.
        url: address of the UI.
        location: name of the code location.
    """

    def __init__(self, page: Page, url: str, location: str) -> None:
        self.page = page
        self.url = url
        self.location = location

    # Where to go

    def open(self, path: str, *, shows: str) -> None:
        """Open a page and wait until it shows a text."""
        self.page.goto(self.url + path)
        expect(self.text(shows)).to_be_visible()

    def open_lineage(self, *groups: str) -> None:
        """Open the lineage of all assets with these groups opened and all others closed."""
        opened = ",".join(f"global@global:{group}" for group in groups)
        # clicked open one by one, a group may be moved out of sight by another
        self.open(f"/asset-groups?expanded={quote(opened)}", shows="Global asset lineage")

    def open_partition(self, asset: str, partition: str) -> None:
        """Open a partition of an asset."""
        self.open(f"/assets/{asset}?view=partitions&partition={quote(partition)}", shows=f"Materialized{_COUNT}")
        expect(self.text(partition, exact=True)).to_be_visible()

    def open_run(self, run_id: str) -> None:
        """Open the page of a run that has ended."""
        self.open(f"/runs/{run_id}", shows="RUN_FAILURE|RUN_SUCCESS")

    def open_job(self, job: str, tab: str = "playground") -> None:
        """Open a job of the code location, its launchpad by default."""
        self.open(f"/locations/{self.location}/jobs/{job}/{tab}", shows="Launch Run")

    # What is there

    def text(self, pattern: str, *, exact: bool = False) -> Locator:
        """The first visible place with this text: a regular expression, or exactly the words."""
        found = self.page.get_by_text(pattern, exact=True) if exact else self.page.get_by_text(re.compile(pattern))
        return found.filter(visible=True).first

    def shows(self, *patterns: str) -> None:
        """Each of these regular expressions can be read on the page."""
        for pattern in patterns:
            expect(self.text(pattern), f"{pattern!r} can be read").to_be_visible()

    def counts(self, **numbers: int) -> None:
        """The partitions page counts these: ``failed=3`` is *Failed (3)*."""
        for status, number in numbers.items():
            expect(self.text(f"{status.capitalize()} ({number})", exact=True)).to_be_visible()

    def dot(self, partition: str) -> Locator:
        """The coloured dot beside a partition's name in the list."""
        name = self.page.locator(f"[data-tooltip='{partition}']").first
        return name.locator("xpath=following-sibling::div")

    def value(self, key: str) -> Locator:
        """What a partition's metadata says beside this key."""
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text(key, exact=True)).first
        return row.get_by_role("cell").nth(1)

    # What to press

    def press(self, label: str, *, exact: bool = True) -> None:
        """Press the button with this label, or with these words in its label."""
        self.page.get_by_role("button", name=label, exact=exact).first.click()

    def materialize(self) -> None:
        """Press *Materialize* on the partition that is shown, launch, and follow the run to its end."""
        self.press("Materialize", exact=False)
        launch, confirm = (self.page.get_by_role("button", name=name) for name in ("Launch 1 run", "Confirm"))
        expect(launch.or_(confirm)).to_be_visible()
        if confirm.is_visible():  # Dagster asks first where nothing upstream was ever materialized
            confirm.click()
        launch.click()
        self.shows("Launched run")
        self.page.get_by_role("link", name="View", exact=True).click()
        self.page.wait_for_url("**/runs/*")
        self.run_ends("Success")

    def run_ends(self, status: str) -> None:
        """Wait until the run that is shown ends like this."""
        expect(self.text("RUN_SUCCESS|RUN_FAILURE")).to_be_visible(timeout=_RUN_SECONDS * 1000)
        expect(self.text(status, exact=True)).to_be_visible()

    def picture(self, name: str, *, above: Locator | None = None) -> None:
        """Take a picture for the README, of the whole page or of what is above a place on it.

        Only where the variable GEO_ASSETS_SCREENSHOTS asks for pictures: other runs leave the checkout as it is.
        The pictures show what the tests before have done, so take them with ``-p no:randomly``.
        """
        if not _WANTS_PICTURES:
            return
        self.page.mouse.move(0, 0)
        expect(self.page.get_by_text("Loading")).to_have_count(0)
        expect(self.page.get_by_text("fetching statuses")).to_have_count(0)
        box = above.bounding_box() if above is not None else None
        IMAGES.mkdir(parents=True, exist_ok=True)
        path = IMAGES / f"{name}.png"
        self.page.screenshot(
            path=path,
            animations="disabled",
            caret="hide",
            clip={**_WINDOW, "height": box["y"] if box else _WINDOW["height"]},
        )
        assert path.stat().st_size < _LARGEST_PICTURE, f"{path} is too large for a README"


_COUNT = r" \(\d+\)"


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser; there can be one at a time in a process."""
    path = browser_path()
    expect.set_options(timeout=_SECONDS * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, location: str, *, failure: Path) -> Iterator[DagsterPages]:
    """A window on a Dagster; what it shows when something goes wrong is kept in the file ``failure``."""
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, locale="en-US", timezone_id="UTC", color_scheme="light"
    )
    context.set_default_timeout(_SECONDS * 1000)
    try:
        yield DagsterPages(context.new_page(), url, location)
    finally:
        for page in context.pages:
            page.screenshot(path=failure)
        context.close()
