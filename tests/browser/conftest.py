"""One Dagster and one browser for all tests that look at our code location, and ways to give them work.

What belongs here: what the modules of this folder share.  What does not: the UI's pages and widgets (``seen``).
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.ledger import Job
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from geo_assets.definitions import defs
from geo_assets.settings import get_settings
from tests.browser.seen import DagsterPages, browser_path, launched, opened
from tests.integration.dagster_up import ROOT, DagsterUp

__all__ = ["ARRIVALS", "FILES", "MODULE", "fill", "work_off"]

MODULE = "geo_assets.definitions"
FILES = sorted(path for path in (ROOT / "geo_assets" / "demo_data").iterdir() if path.suffix != ".md")

ARRIVALS = "arrivals"
"""A container that is watched, and its source's name."""
SOURCES = f"""\
sources:
  - name: {ARRIVALS}
    container: {ARRIVALS}
    workflow: process_raster
    every: 5s
    parameters:
      collection_id: {ARRIVALS}
      output_prefix: "{{container}}/"
"""


@pytest.fixture(scope="package")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DagsterUp]:
    browser_path()  # without a browser, do not start Dagster for nothing
    home = tmp_path_factory.mktemp("browser")
    (home / "sources.yaml").write_text(SOURCES)
    (home / "containers" / ARRIVALS).mkdir(parents=True)
    up = DagsterUp(MODULE, home)
    try:
        yield up
    finally:
        up.stop()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    # of the package, not the session: its event loop runs as long as it is there, which Dagster's own then cannot
    with launched() as browser:
        yield browser


@pytest.fixture(scope="package")
def window(chromium: Browser, dagster: DagsterUp) -> Iterator[DagsterPages]:
    with opened(chromium, dagster.url, MODULE, failure=dagster.home / "last-page.png") as pages:
        yield pages


@pytest.fixture
def ui(window: DagsterPages) -> DagsterPages:
    window.page.goto("about:blank")
    return window


@pytest.fixture
def machine(dagster: DagsterUp, monkeypatch: pytest.MonkeyPatch) -> CoreMachine:
    """The machine of the code location on Dagster's home, in this process."""
    monkeypatch.setenv("GEO_ASSETS_HOME", str(dagster.home))
    get_settings.cache_clear()
    made: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index]
    return made


def fill(home: Path, container: str, files: Sequence[Path]) -> Path:
    """A container with these files; its folder."""
    folder = home / "containers" / container
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(file, folder)
    return folder


def work_off(dagster: DagsterUp, machine: CoreMachine, job_type: str, *params: dict[str, Any]) -> str:
    """Submit jobs and wait until the sensor's run of all of them has ended; the run's id."""
    answers = submit_many(machine, job_type, params)
    ids = [answer.job.job_id for answer in answers]

    def ended() -> list[Job]:
        jobs = [machine.ledger.job(job_id, job_type) for job_id in ids]
        return jobs if all(job.status.is_terminal for job in jobs) else []

    jobs: list[Job] = dagster.wait_for(f"the end of {len(ids)} {job_type} jobs", ended, seconds=120)
    (run_id,) = {job.run_id for job in jobs}
    assert run_id is not None
    dagster.finished(run_id)
    return run_id
