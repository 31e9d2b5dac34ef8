"""A database with PostGIS for tests of vector tables, made once a module and emptied for each test.

What belongs here: the fixtures ``postgis_database`` and ``postgis_url`` (import both into a test module), ``role``, and
:func:`execute`.  What does not: tables to load (``table_rows``).
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL, make_url

__all__ = ["execute", "postgis_database", "postgis_url", "role"]

_CLEAR = """
do $$ declare one record; begin
    for one in select nspname from pg_namespace where nspname !~ '^pg_'
        and nspname not in ('information_schema', 'public')
        and not exists (select from pg_depend where classid = 'pg_namespace'::regclass and objid = pg_namespace.oid
            and deptype = 'e')
    loop execute format('drop schema %I cascade', one.nspname); end loop;
    for one in select pubname from pg_publication
    loop execute format('drop publication %I', one.pubname); end loop;
    for one in select evtname from pg_event_trigger
    loop execute format('drop event trigger %I', one.evtname); end loop;
end $$
"""


def execute(url: str, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run statements as the database's owner, each on its own; returns the rows of the last."""
    with psycopg.connect(url, autocommit=True, options="-c lock_timeout=20s") as connection:
        cursor = connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description is not None else []


@pytest.fixture(scope="module")
def postgis_database() -> Iterator[list[URL]]:
    """Where the first test of a module leaves the URL of the database that all its tests share."""
    urls: list[URL] = []
    yield urls
    for url in urls:
        _administer(url, "drop database if exists {} with (force)", url.database)


@pytest.fixture
def postgis_url(postgres_url: str, postgis_database: list[URL]) -> str:
    """The URL of a database with PostGIS and nothing else; of a superuser."""
    if not postgis_database:
        own = make_url(postgres_url).set(drivername="postgresql")
        shared = own.set(database=f"test_{uuid.uuid4().hex}")
        _administer(own, "create database {} template {}", shared.database, own.database)
        postgis_database.append(shared)
    url = postgis_database[0].render_as_string(hide_password=False)
    execute(url, _CLEAR)
    return url


@pytest.fixture
def role(postgis_url: str) -> Iterator[Callable[[], str]]:
    """Makes roles that may log in and nothing more; gives their names."""
    with ExitStack() as made:

        def make() -> str:
            name = f"role_{uuid.uuid4().hex[:12]}"
            execute(postgis_url, f"create role {name} login")
            made.callback(execute, postgis_url, f"drop owned by {name} cascade; drop role {name}")
            return name

        yield make


def _administer(url: URL, statement: str, *names: str | None) -> None:
    with psycopg.connect(
        url.set(database="postgres").render_as_string(hide_password=False), autocommit=True
    ) as connection:
        query = sql.SQL(statement)
        connection.execute(query.format(*(sql.Identifier(str(name)) for name in names)))
