"""Fixtures of the command line's tests: running a command in this process, and containers of real files."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from geo_assets import jobs
from geo_assets.cli import app
from geo_assets.dagster_home import DEFINITIONS_MODULE
from geo_assets.settings import get_settings
from tests.publishing import PRODUCTS, WORKFLOWS


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Everything on stdout, which must be one JSON value."""
        return json.loads(self.stdout)


Run = Callable[..., Ended]

A, B = "bronze/a b.tif", "bronze/c.tif"
"""Two sources that ``products`` were made of."""


@pytest.fixture
def run() -> Run:
    """Run ``geo-assets`` with these arguments in this process."""

    def run_command(*arguments: str, stdin: str = "") -> Ended:
        result = CliRunner().invoke(app, list(arguments), input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    return run_command


@pytest.fixture
def products(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of what ``make_cog`` left for two sources."""
    monkeypatch.setattr(jobs, "WORKFLOWS", WORKFLOWS)
    sys.modules.pop(DEFINITIONS_MODULE, None)  # the code location is of these workflows while the test runs
    monkeypatch.setenv("GEO_ASSETS_BLOB_ROOT", str(tmp_path / "containers"))
    get_settings.cache_clear()
    assert run("submit", "make_cog", "--key", A, "--key", B, "--wait").status == 0
    yield tmp_path / "containers" / PRODUCTS
    sys.modules.pop(DEFINITIONS_MODULE, None)


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task that failed stay failed, at once."""
    monkeypatch.setenv("GEO_ASSETS_TASK_MAX_RETRIES", "0")


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of local containers, with ``maps`` in it: three real files."""
    root = tmp_path / "containers"
    (root / "maps" / "sub folder").mkdir(parents=True)
    real = Path(str(files("geo_assets"))) / "demo_data"
    shutil.copy(real / "world_byte_4326.tif", root / "maps")
    shutil.copy(real / "alpha_3857.tif", root / "maps" / "sub folder")
    shutil.copy(real / "swiss_cities.kmz", root / "maps")
    monkeypatch.setenv("GEO_ASSETS_BLOB_ROOT", str(root))
    return root


FAILING = ("--param", "failure_rate=1", "--param", "n=1")
"""Parameters with which ``hello_world`` fails for sure."""
