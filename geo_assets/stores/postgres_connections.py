"""Connections to a PostgreSQL database, each used by one thread at a time, a few of them kept.

What belongs here: reading the URL of a setting, lending and keeping connections, also across a fork.  What does not:
what a connection is set up with, and what errors mean (``pgstac``, ``postgis_session``).
"""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from geo_assets.errors import SettingsError

__all__ = ["Connection", "Connections", "postgres_url"]

type Connection = psycopg.Connection[tuple[Any, ...]]

_IDLE_MOST: Final = 8


def postgres_url(url: str, *, setting: str, what: str) -> URL:
    """Read a URL; a driver in its scheme is ignored.

    Args:
        url: ``postgresql://…``.
        setting: where it stands, for messages.
        what: of PostgreSQL is wanted, for messages.

    Raises:
        SettingsError: it is not one of PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise SettingsError(f"{setting} is not a URL: use postgresql://user@host/database") from None
    if parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise SettingsError(f"{setting} names {parsed.get_backend_name()}: {what} lives in PostgreSQL (postgresql://…)")
    return parsed.set(drivername="postgresql")


class Connections:
    """Connections that are lent; those given back sound are kept for the next.

    Args:
        connect: makes a new one, in autocommit.
        ask_first: whether one that was kept is asked if it still works, which takes a round trip; else whoever borrows
            it finds out.
    """

    def __init__(self, connect: Callable[[], Connection], *, ask_first: bool) -> None:
        self._connect = connect
        self._ask_first = ask_first
        self._guard = threading.Lock()
        self._begin()

    def close(self) -> None:
        """Close what is kept; also done when nobody holds this any more."""
        with self._guard:
            _close(self.idle, self._owner)

    @contextmanager
    def lent(self) -> Iterator[Connection]:
        """A connection of one's own for a while."""
        connection = self._taken()
        try:
            yield connection
        except BaseException:
            # whatever state it is in, closing it also ends its transaction and frees its locks
            connection.close()
            raise
        self._give_back(connection)

    def _begin(self) -> None:
        self.idle: list[Connection] = []
        """Those that are kept."""
        self._owner = os.getpid()
        weakref.finalize(self, _close, self.idle, self._owner)

    def _taken(self) -> Connection:
        while True:
            with self._guard:
                if self._owner != os.getpid():
                    # a forked child must not speak on its parent's connections
                    self._begin()
                if not self.idle:
                    break
                connection = self.idle.pop()
            if not connection.closed and (not self._ask_first or _answers(connection)):
                return connection
            # the server went away meanwhile: the next one tells whether it is back
            connection.close()
        return self._connect()

    def _give_back(self, connection: Connection) -> None:
        with self._guard:
            if len(self.idle) < _IDLE_MOST and not connection.closed and self._owner == os.getpid():
                self.idle.append(connection)
                return
        connection.close()


def _answers(connection: Connection) -> bool:
    try:
        connection.execute("select 1")
    except psycopg.OperationalError:
        return False
    return True


def _close(idle: list[Connection], owner: int) -> None:
    """Close connections, unless they are the parent's of a forked process."""
    while idle and owner == os.getpid():
        idle.pop().close()
