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
from sqlalchemy.engine import make_url

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
def postgis_database(postgis_session_database: str) -> str:
    """The URL of the database that all tests of the process share."""
    return make_url(postgis_session_database).set(drivername="postgresql").render_as_string(hide_password=False)


@pytest.fixture
def postgis_url(postgis_database: str) -> str:
    """The URL of a database with PostGIS and nothing else; of a superuser."""
    execute(postgis_database, _CLEAR)
    return postgis_database


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
