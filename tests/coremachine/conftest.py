"""Fixtures of the CoreMachine's tests: a ledger on each database.

What belongs here: what several test modules of this folder share.  What does not: workflows and handlers.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import metadata


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty ledger database, on SQLite and on PostgreSQL."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    return f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}"


@pytest.fixture(scope="session")
def shared_database(ledger_database: str) -> str:
    """The URL of a PostgreSQL database with the ledger's tables, for one test after the other."""
    Ledger(ledger_database, patience_seconds=20).close()
    return ledger_database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.services)])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger, on SQLite and on PostgreSQL; who needs its URL as well takes ``ledger_url`` and opens it."""
    if request.param == "sqlite":
        opened = Ledger(f"sqlite:///{tmp_path / 'ledger' / 'ledger.db'}", patience_seconds=20)
    else:
        # a database of its own for each test takes ten times as long to make and to migrate
        opened = Ledger(request.getfixturevalue("shared_database"), patience_seconds=20)
        _empty(opened)
    yield opened
    opened.close()


def _empty(ledger: Ledger) -> None:
    with ledger.engine.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(sa.delete(table))


@pytest.fixture
def sqlite_ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger on SQLite, for what does not depend on the database."""
    opened = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=20)
    yield opened
    opened.close()
