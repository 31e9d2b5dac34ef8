"""Fixtures of the container tests: the same suite over each listing store.

What belongs here: ``listings`` (parametrised).  What does not: listings, which each test makes.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_assets.containers.listing_store import ListingStore, ParquetListings, PostgresListings


@pytest.fixture(params=["parquet", pytest.param("postgres", marks=pytest.mark.services)])
def listings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ListingStore]:
    """Each listing store in turn, empty."""
    if request.param == "parquet":
        yield ParquetListings(tmp_path / "listings")
        return
    store = PostgresListings(request.getfixturevalue("postgres_url"))
    yield store
    store.dispose()
