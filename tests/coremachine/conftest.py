"""Fixtures of the CoreMachine's tests: a ledger on each database.

What belongs here: what several test modules of this folder share.  What does not: workflows and handlers.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_assets.coremachine.ledger import Ledger


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger database, on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}"


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An empty ledger, on SQLite and on PostgreSQL."""
    opened = Ledger(ledger_url, patience_seconds=20)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger on SQLite, for what does not depend on the database."""
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=20)
    yield opened
    opened.close()
