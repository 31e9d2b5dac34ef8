"""Fixtures of the tests of whole jobs: a sandbox for a module, workbenches for a test, both table stores.

What belongs here: what several test modules of this folder share.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import Settings
from tests.jobs.bench import Bench
from tests.jobs.loading import Loader

__all__ = ["OpenBench"]

OpenBench = Callable[..., Bench]


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


@pytest.fixture(params=["geoparquet", pytest.param("postgis", marks=pytest.mark.services)])
def tables_url(request: pytest.FixtureRequest) -> str | None:
    """Where the tables are: files, or an empty database."""
    if request.param == "geoparquet":
        return None
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def open_bench(tmp_path: Path, shared_sandbox: Sandbox) -> Iterator[OpenBench]:
    """Makes workbenches and closes their stores."""
    made: list[Bench] = []

    def open_one(**settings: Any) -> Bench:
        home = tmp_path / f"bench{len(made)}"
        home.mkdir()
        made.append(Bench(home, shared_sandbox, **settings))
        return made[-1]

    yield open_one
    for bench in made:
        bench.services["catalog"].close()
        bench.services["tables"].close()


@pytest.fixture
def loader(open_bench: OpenBench, tables_url: str | None) -> Loader:
    """Over each table store."""
    return Loader(open_bench(tables_url=tables_url))


@pytest.fixture
def files(open_bench: OpenBench) -> Loader:
    """Over GeoParquet: for what no store decides."""
    return Loader(open_bench())
