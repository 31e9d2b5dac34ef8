"""What the raster tests share.

What belongs here: fixtures.  What does not: making rasters (``rasters``).
"""

import socket
import threading
from collections.abc import Iterator

import pytest


class Listener:
    """A loopback port that must not be contacted."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.contacts: list[str] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(1)
                try:
                    self.contacts.append(connection.recv(200).decode("latin-1"))
                except OSError:
                    self.contacts.append("connected")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener; the test fails if anything contacted it."""
    listening = Listener()
    yield listening
    # what was on its way has arrived: ours comes last
    with socket.create_connection(("127.0.0.1", listening.port), timeout=5) as ours:
        ours.sendall(b"the end")
        ours.shutdown(socket.SHUT_WR)
        ours.recv(1)
    listening.close()
    assert listening.contacts == ["the end"]
