"""The server of the reports' folder gives its pages and nothing else."""

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from geo_assets.report_server import ReportServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReportServer]:
    outside = tmp_path_factory.mktemp("server")
    folder = outside / "reports"
    (folder / "inner").mkdir(parents=True)
    (folder / "catalog.html").write_text("the page")
    (folder / "notes.txt").write_text("a text")
    (folder / "inner" / "deep.html").write_text("deeper")
    (outside / "secret.html").write_text("a secret")
    (folder / "link.html").symlink_to(outside / "secret.html")
    (folder / "folder.html").mkdir()
    os.mkfifo(folder / "pipe.html")
    made = ReportServer(folder, 0)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def ask(server: ReportServer, path: str, *, method: str = "GET", host: str | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        connection.putheader("Host", host or server.url.removeprefix("http://"))
        connection.endheaders()
        answer = connection.getresponse()
        answer.said = answer.read()  # type: ignore[attr-defined]
        return answer


@pytest.mark.parametrize("path", ["/", "/catalog.html", "/catalog.html?x=1", "/catalog%2Ehtml"])
def test_a_page_is_served_with_a_policy_that_lets_it_load_nothing(server: ReportServer, path: str) -> None:
    answer = ask(server, path)
    assert (answer.status, answer.said) == (200, b"the page")  # type: ignore[attr-defined]
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/notes.txt", "/inner/", "/inner/deep.html", "/inner%2Fdeep.html", "/../secret.html", "/..%2fsecret.html",
        "/%2e%2e/secret.html", "//secret.html", "/link.html", "/folder.html", "/pipe.html", "/.html", "/other.html",
        "/catalog.html%00", "/catalog.html/", "/catalog.html\\..\\x", "http://elsewhere/secret.html", "/%ff.html",
    ],
)  # fmt: skip
def test_nothing_else_is(server: ReportServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert b"secret" not in answer.said  # type: ignore[attr-defined]


def test_it_answers_to_loopback_names_only_and_changes_nothing(server: ReportServer) -> None:
    assert ask(server, "/catalog.html", host="evil.example").status == 421
    assert ask(server, "/catalog.html", host=f"localhost:{server.server_address[1]}").status == 200
    assert ask(server, "/catalog.html", method="HEAD").said == b""  # type: ignore[attr-defined]
    for method in ("POST", "PUT", "DELETE"):
        assert ask(server, "/catalog.html", method=method).status == 501
    assert server.server_address[0] == "127.0.0.1"


def test_a_server_beside_a_process_ends_with_it(tmp_path: Path) -> None:
    (tmp_path / "catalog.html").write_text("the page")
    # as 'dev' does: it starts the server, then becomes another program
    program = (
        "import os, sys; from pathlib import Path; from geo_assets.report_server import start_beside\n"
        f"print(start_beside(Path({str(tmp_path)!r}), near=65535), flush=True)\n"
        "os.execv('/bin/cat', ['cat'])"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        port = int(parent.stdout.readline().rpartition(":")[2])
        wait_until(lambda: answers(port))
        parent.stdin.close()
    wait_until(lambda: not answers(port))


def wait_until(holds: object) -> None:
    deadline = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/")
            return connection.getresponse().read() == b"the page"
        except OSError:
            return False
