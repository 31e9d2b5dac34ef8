"""Fixtures of the command line's tests: running a command in this process, and containers of real files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from geo_assets.cli import app


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
