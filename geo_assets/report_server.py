"""The folder of reports on a loopback port, so that a link in Dagster's UI opens the page with one click.

What belongs here: the server, and starting it beside ``geo-assets dev``.  What does not: making the pages
(``geo_assets.report``), and serving them to others, which is a web server's or the storage account's job.

It serves HTML files that lie in the one folder and nothing else: no sub-folder, no listing, no link that leads out.  It
answers only to loopback names, so that no other site can have a browser read it, and ends with the process that
started it.
"""

import contextlib
import http.server
import os
import re
import stat
import subprocess
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Final, override
from urllib.parse import unquote, urlsplit

from geo_assets.dagster_server import free_port
from geo_assets.errors import ParameterError

__all__ = ["POLICY", "ReportServer", "start_beside"]

POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)
_LOOPBACK = "127.0.0.1"
_PAGE = re.compile(r"/([\w-][\w.-]*\.html)", re.ASCII)
_INDEX = "catalog.html"
_LARGEST_PAGE = 64_000_000
_LOOK_SECONDS = 1.0


class ReportServer(http.server.ThreadingHTTPServer):
    """The server; ``port`` 0 takes a free one."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        super().__init__((_LOOPBACK, port), _Handler)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http://{_LOOPBACK}:{self.server_address[1]}"

    def page(self, path: str) -> bytes | None:
        """What lies under the path of a URL; ``None`` where that is no page of the folder."""
        found = _PAGE.fullmatch(f"/{_INDEX}" if path in ("", "/") else unquote(path))
        if found is None:
            return None
        try:
            # what is opened is what was looked at; a symbolic link is not followed
            descriptor = os.open(self.folder / found[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb") as file:  # noqa: PTH123 - of a descriptor
                return file.read(_LARGEST_PAGE) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
        except OSError:
            return None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ReportServer
    server_version = "geo-assets"
    sys_version = ""
    timeout = 10

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        port = self.server.server_address[1]
        if self.headers.get("Host") not in (f"{_LOOPBACK}:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.MISDIRECTED_REQUEST, b"this server answers to 127.0.0.1 only\n", with_body=with_body)
            return
        page = self.server.page(urlsplit(self.path).path)
        if page is None:
            said = b"no such page: materialize the asset catalog_report, then reload\n"
            self._send(HTTPStatus.NOT_FOUND, said, with_body=with_body)
        else:
            self._send(HTTPStatus.OK, page, with_body=with_body, media_type="text/html; charset=utf-8")

    def _send(self, status: HTTPStatus, body: bytes, *, with_body: bool, media_type: str = "text/plain") -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", media_type),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            with contextlib.suppress(OSError):  # the reader has gone
                self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: Dagster's log is beside it."""


def start_beside(folder: Path, *, near: int) -> str:
    """Serve a folder, which need not be there yet, in a child process for as long as this process lives; its address.

    Args:
        folder: of the pages.
        near: the port after this one is taken where it is free.
    """
    try:
        port = free_port(near + 1) if near < 65535 else free_port()  # noqa: PLR2004 - the last port
    except ParameterError:
        port = free_port()
    command = [sys.executable, "-m", "geo_assets.report_server", str(folder), str(port), str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command; it ends with us
    return f"http://{_LOOPBACK}:{port}"


def _main(folder: str, port: str, parent: str) -> None:
    server = ReportServer(Path(folder), int(port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        while os.getppid() == int(parent):
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    _main(*sys.argv[1:])
