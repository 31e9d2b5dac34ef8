"""stac-fastapi-pgstac on a loopback port, over a test's database.

What belongs here: :func:`stac_api`.  What does not: what clients read through it, which is each test's.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn
from sqlalchemy.engine import make_url

__all__ = ["stac_api"]


@contextmanager
def stac_api(pgstac_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve the database as a STAC API; yields its address.

    The server brings warnings of its own on this Python: mark the test to ignore ``DeprecationWarning`` and
    ``FutureWarning``.
    """
    url = make_url(pgstac_url)
    parts = {"HOST": url.host, "PORT": url.port, "USER": url.username, "DATABASE": url.database}
    for name, value in {**parts, "PASSWORD": url.password or "unused"}.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    # it warns as it is imported, which only a test that expects it may see
    from stac_fastapi.pgstac.app import create_app  # type: ignore[import-untyped] # noqa: PLC0415

    with _served(create_app()) as address:
        yield address


@contextmanager
def _served(application: Any) -> Iterator[str]:
    """Serve an application on a free loopback port; yields its address."""
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=0, log_level="warning"))
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        # the socket listens already: a request waits in its backlog until the server is up
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()
