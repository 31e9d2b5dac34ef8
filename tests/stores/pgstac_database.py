"""A database with pgSTAC for one test, without the seconds its migration takes.

What belongs here: the fixtures ``pgstac_database`` and ``pgstac_url``; import both into a test module.  What does not:
filling the database.
"""

import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy.engine import URL, make_url

from geo_assets.stores.pgstac import PgstacCatalog


@pytest.fixture(scope="module")
def pgstac_database() -> Iterator[list[URL]]:
    """Where the first test of a module leaves the URL of the database that all its tests share."""
    urls: list[URL] = []
    yield urls
    for url in urls:
        _execute(url.set(database="postgres"), "drop database if exists {} with (force)", str(url.database))


@pytest.fixture
def pgstac_url(postgres_url: str, pgstac_database: list[URL]) -> str:
    """The URL of a database with pgSTAC and no collections."""
    if not pgstac_database:
        own = make_url(postgres_url)
        shared = own.set(database=f"test_{uuid.uuid4().hex}")
        _execute(own.set(database="postgres"), "create database {} template {}", str(shared.database), own.database)
        pgstac_database.append(shared)
    url = pgstac_database[0].render_as_string(hide_password=False)
    catalog = PgstacCatalog(url)
    for collection_id in catalog.list_collections():
        catalog.delete_collection(collection_id)
    catalog.close()
    return url


def _execute(url: URL, statement: str, *names: str | None) -> None:
    connection = psycopg2.connect(url.set(drivername="postgresql").render_as_string(hide_password=False))
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*(sql.Identifier(str(name)) for name in names)))
