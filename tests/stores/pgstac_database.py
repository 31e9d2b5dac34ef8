"""A database with pgSTAC for one test, without the seconds its migration takes.

What belongs here: the fixtures ``pgstac_database`` and ``pgstac_url``; import both into a test module.  What does not:
filling the database.
"""

import pytest

from geo_assets.stores.pgstac import PgstacCatalog


@pytest.fixture(scope="module")
def pgstac_database(pgstac_session_database: str) -> str:
    """The URL of the database that all tests of the process share."""
    return pgstac_session_database


@pytest.fixture
def pgstac_url(pgstac_database: str) -> str:
    """The URL of a database with pgSTAC and no collections."""
    catalog = PgstacCatalog(pgstac_database)
    for collection_id in catalog.list_collections():
        catalog.delete_collection(collection_id)
    catalog.close()
    return pgstac_database
