"""The services of the test session, and the guards round every test."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from azure.storage.blob import BlobServiceClient

from geo_assets.settings import get_settings
from tests.conftest import Azurite, NetworkBlockedError
from tests.services.found import REPOSITORY, ServiceMissingError
from tests.services.session import ServiceSession


def test_postgres_gives_each_test_an_empty_database_with_postgis(postgres_url: str) -> None:
    assert postgres_url.startswith("postgresql+psycopg2://")
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table here (geom geometry(Point, 4326))"))
        connection.execute(sa.text("insert into here values (st_setsrid(st_point(7, 50), 4326))"))
        assert connection.execute(sa.text("select st_x(geom) from here")).scalar_one() == 7
    engine.dispose()


@pytest.mark.parametrize("turn", [1, 2])
def test_postgres_databases_do_not_see_each_other(postgres_url: str, turn: int) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("create table only_mine (turn integer)"))  # fails were it there already
    engine.dispose()


def test_azurite_takes_blobs(azurite: Azurite) -> None:
    assert azurite.account_key not in repr(azurite)
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container("services-test")
        container.upload_blob("a b/é.txt", b"here")
        assert [blob.name for blob in container.list_blobs()] == ["a b/é.txt"]
        container.delete_container()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_service_does_not_outlive_a_session_that_is_killed(tmp_path: Path, end: signal.Signals) -> None:
    # SIGKILL of the owner: the keeper notices.  SIGKILL of the keeper: the kernel ends the server.
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    session = ServiceSession(tmp_path, owner.pid)
    try:
        session.service("postgres")
    except ServiceMissingError as error:
        owner.communicate(b"\n")
        pytest.skip(str(error))
    keeper = psutil.Process(int((tmp_path / "postgres.pid").read_text()))
    processes = [keeper, *keeper.children(recursive=True)]
    assert len(processes) > 2
    if end is signal.SIGKILL:
        keeper.kill()
    else:
        owner.kill()
    gone, alive = psutil.wait_procs(processes, timeout=15)
    owner.kill()
    owner.communicate()
    session.end()
    assert not alive
    assert len(gone) == len(processes)


def test_a_service_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A keeper of a session that has ended already refuses to start anything
    session = ServiceSession(tmp_path, 2**22 + 1)
    with pytest.raises(ServiceMissingError, match="PID not found"):
        session.service("postgres")
    assert "error" in json.loads((tmp_path / "postgres.json").read_text())


def test_no_network_but_this_machine() -> None:
    with socket.socket() as outside:
        outside.settimeout(1)
        with pytest.raises(NetworkBlockedError, match=r"192\.0\.2\.1"):
            outside.connect(("192.0.2.1", 80))
    with pytest.raises(NetworkBlockedError, match=r"example\.invalid"):
        urllib.request.urlopen("http://example.invalid/", timeout=1)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass


def test_each_test_has_a_home_of_its_own(tmp_path: Path) -> None:
    assert get_settings().home_path == tmp_path / "geo_assets_home"
    dagster_home = Path(os.environ["DAGSTER_HOME"])
    assert dagster_home.parent == tmp_path
    assert (dagster_home / "dagster.yaml").read_text() == (REPOSITORY / "dagster.yaml").read_text()
    ours = {name for name in os.environ if name.startswith(("GEO_ASSETS_", "AZURE_", "DAGSTER_"))}
    assert ours == {"GEO_ASSETS_HOME", "DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE"}
