"""Fixtures of the raster workflows' tests: a sandbox for a module, a workbench for a test.

What belongs here: what several test modules of this folder share.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import Settings
from tests.jobs.bench import Bench


@pytest.fixture(scope="module")
def shared_sandbox() -> Iterator[Sandbox]:
    """Worker processes for all tests of a module: starting them takes a second."""
    made = Sandbox(Settings(task_processes=2))
    yield made
    made.close(kill=True)


@pytest.fixture
def bench(tmp_path: Path, shared_sandbox: Sandbox) -> Bench:
    """A workbench with local containers, a static catalog and an embedded ledger."""
    home = tmp_path / "bench"
    home.mkdir()
    return Bench(home, shared_sandbox)
