"""Fixtures of the tests of sources: watched containers on each database.

What belongs here: what several test modules of this folder share.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.watching import TrackedLedger, Watched, empty_ledger


@pytest.fixture(scope="session")
def ledger_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the empty ledger lies that others are copied from."""
    return tmp_path_factory.mktemp("ledger") / "empty.db"


@pytest.fixture
def watched(tmp_path: Path, ledger_template: Path) -> Iterator[Watched]:
    """A watched container with its ledger on SQLite."""
    ledger = TrackedLedger(empty_ledger(tmp_path / "ledger", ledger_template))
    yield Watched(tmp_path, ledger)
    ledger.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def watched_on_each(request: pytest.FixtureRequest, tmp_path: Path, ledger_template: Path) -> Iterator[Watched]:
    """The same on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
    else:
        url = empty_ledger(tmp_path / "ledger", ledger_template)
    ledger = TrackedLedger(url)
    yield Watched(tmp_path, ledger)
    ledger.close()
