"""Fixtures and guards of every test.

What belongs here: what all tests share: a home of their own, no network, the services, the report header.
What does not: fixtures of one part of the package; they live beside its tests.

The guard lets Python code of the test processes connect to loopback addresses and Unix sockets only.  It does not
see compiled clients (obstore, libpq, GDAL) nor child processes; tests give those loopback addresses.
"""

import ctypes
import ipaddress
import os
import shutil
import signal
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

# What the caller's shell says about our settings and services must not decide a test.  This happens before
# geo_assets is imported, as that sets a variable itself.  Kept are two URLs, of services to reuse, and the wish for
# screenshots.
_GIVEN = {
    name: os.environ.get(name)
    for name in ("GEO_ASSETS_TEST_POSTGRES_URL", "GEO_ASSETS_TEST_AZURITE", "GEO_ASSETS_SCREENSHOTS")
}
_FOREIGN = ("GEO_ASSETS_", "AZURE_", "AZURITE_", "DAGSTER_", "AWS_", "CPL_", "GDAL_", "PG", "PYTHONDONTWRITEBYTECODE")
for _name in [name for name in os.environ if name.startswith(_FOREIGN)]:
    if _name not in _GIVEN:  # xdist workers inherit the environment and need them, too
        del os.environ[_name]

import psycopg2  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings as hypothesis_settings  # noqa: E402
from psycopg2 import sql  # noqa: E402
from sqlalchemy.engine import make_url  # noqa: E402

from geo_assets.settings import get_settings  # noqa: E402
from tests.services.found import REPOSITORY, ServiceMissingError, postgres_version  # noqa: E402
from tests.services.session import ServiceSession  # noqa: E402

# Deadlines measure the machine's other load, not the code
hypothesis_settings.register_profile("geo_assets", deadline=None, print_blob=True)
hypothesis_settings.load_profile("geo_assets")

_SESSION = pytest.StashKey[ServiceSession]()
_PR_SET_PDEATHSIG = 1


# --- the session -----------------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Begin a session of services, or join the one of the xdist controller."""
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        config.stash[_SESSION] = ServiceSession.begin()
    else:
        config.stash[_SESSION] = ServiceSession(Path(given["services_folder"]), given["services_owner"])
        # A worker in the middle of a long test does not notice that the controller was killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    sys.addaudithook(_refuse_network)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the session's services are found."""
    session = node.config.stash[_SESSION]
    node.workerinput["services_folder"] = str(session.folder)
    node.workerinput["services_owner"] = session.owner_pid


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the services, in the process that began the session."""
    session = config.stash.get(_SESSION, None)
    if session is not None and session.owner_pid == os.getpid():
        session.end()


def pytest_report_header() -> list[str]:
    """Name the versions a failure may depend on."""
    import rasterio  # noqa: PLC0415 - half a second that only the header needs

    postgres = "given by URL" if _GIVEN["GEO_ASSETS_TEST_POSTGRES_URL"] else postgres_version()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("dagster", "sqlalchemy", "obstore"))
    return [f"{libraries}, rasterio {rasterio.__version__} (GDAL {rasterio.__gdal_version__}), PostgreSQL {postgres}"]


@pytest.hookimpl(trylast=True)  # after pytest-randomly, whose order stays but for what is long
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that want a service, so that ``-m 'not services'`` leaves them out; let the longest begin first.

    A group of long tests that one process does alone would otherwise be waited for at the end.
    """
    for item in items:
        if _SERVICE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.services)
    items.sort(key=_rank)


_SERVICE_FIXTURES = {
    "postgres_url", "ledger_database", "pgstac_session_database", "postgis_session_database", "azurite",
    "azurite_queue",
}  # fmt: skip


def _rank(item: pytest.Item) -> int:
    if item.get_closest_marker("xdist_group") is not None:
        return 0
    return 1 if item.get_closest_marker("slow") is not None else 2


# --- a home of its own, for every test ---------------------------------------------------------------------------


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder whose name no test before had: what a process keeps open by its address must not be the next test's.

    pytest gives the name of a folder that it has removed to the next test whose name begins alike.
    """
    own = tmp_path / uuid.uuid4().hex[:6]
    own.mkdir()
    return own


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test its own GEO_ASSETS_HOME and DAGSTER_HOME, and settings read afresh."""
    dagster_home = tmp_path / "dagster_home"
    dagster_home.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", dagster_home)
    monkeypatch.setenv("GEO_ASSETS_HOME", str(tmp_path / "geo_assets_home"))
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    for name in _GIVEN:
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


# --- no network ------------------------------------------------------------------------------------------------


class NetworkBlockedError(RuntimeError):
    """A test tried to reach something that is not this machine; not an OSError, so that nothing retries it."""


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what leaves the machine; an audit hook, as that also sees asyncio and C callers of the socket module."""
    if not event.startswith("socket."):
        return
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        connecting, address = arguments[0], arguments[1]
        if connecting.family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if not _is_this_machine(host):
        message = f"tests do not reach the network: {event} to {host!r}; use a fixture's service or a fake"
        raise NetworkBlockedError(message)


def _is_this_machine(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in (None, "", "localhost", "0.0.0.0", "::", socket.gethostname()):  # noqa: S104 - compared, not bound
        return True
    try:
        return ipaddress.ip_address(str(host).partition("%")[0]).is_loopback
    except ValueError:
        return False


# --- services --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Azurite:
    """Where the session's Azurite listens, and the credentials it takes."""

    endpoint: str
    account_name: str
    account_key: str = field(repr=False)

    @property
    def connection_string(self) -> str:
        """The connection string of the blob service."""
        return (
            f"DefaultEndpointsProtocol={self.endpoint.partition(':')[0]};AccountName={self.account_name};"
            f"AccountKey={self.account_key};BlobEndpoint={self.endpoint};"
        )


@pytest.fixture(scope="session")
def azurite(pytestconfig: pytest.Config) -> Azurite:
    """Azurite's blob service, shared by the whole session: make containers of your own, with names nobody else uses.

    ``GEO_ASSETS_TEST_AZURITE`` may hold the connection string of one that runs already.
    """
    if (given := _GIVEN["GEO_ASSETS_TEST_AZURITE"]) is not None:
        parts = dict(part.split("=", 1) for part in given.split(";") if part)
        return Azurite(parts["BlobEndpoint"].rstrip("/"), parts["AccountName"], parts["AccountKey"])
    state = _service(pytestconfig, "azurite")
    return Azurite(state["endpoint"], state["account_name"], state["account_key"])


@pytest.fixture(scope="session")
def azurite_queue(pytestconfig: pytest.Config) -> Azurite:
    """Azurite's queue service, with the account key of :func:`azurite`; make queues of your own."""
    if (given := _GIVEN["GEO_ASSETS_TEST_AZURITE"]) is not None:
        parts = dict(part.split("=", 1) for part in given.split(";") if part)
        if "QueueEndpoint" not in parts:
            pytest.skip("GEO_ASSETS_TEST_AZURITE names no QueueEndpoint")
        return Azurite(parts["QueueEndpoint"].rstrip("/"), parts["AccountName"], parts["AccountKey"])
    state = _service(pytestconfig, "azurite_queue")
    return Azurite(state["endpoint"], state["account_name"], state["account_key"])


@pytest.fixture
def postgres_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The ``postgresql+psycopg2://`` URL of an empty database with PostGIS, dropped after the test.

    ``GEO_ASSETS_TEST_POSTGRES_URL`` may name a server that runs already; its user must be able to make databases
    and extensions.
    """
    with _database(pytestconfig) as url:
        yield url


@pytest.fixture(scope="session")
def ledger_database(pytestconfig: pytest.Config) -> Iterator[str]:
    """As ``postgres_url``, of a database that lasts as long as the test process; whoever uses it empties it first.

    This one is for ledgers, those below are for pgSTAC and for vector tables: making and migrating a database takes
    longer than most tests.
    """
    with _database(pytestconfig) as url:
        yield url


@pytest.fixture(scope="session")
def pgstac_session_database(pytestconfig: pytest.Config) -> Iterator[str]:
    """See ``ledger_database``."""
    with _database(pytestconfig) as url:
        yield url


@pytest.fixture(scope="session")
def postgis_session_database(pytestconfig: pytest.Config) -> Iterator[str]:
    """See ``ledger_database``."""
    with _database(pytestconfig) as url:
        yield url


@contextmanager
def _database(pytestconfig: pytest.Config) -> Iterator[str]:
    given, template = _GIVEN["GEO_ASSETS_TEST_POSTGRES_URL"], "template1"
    if given is None:
        state = _service(pytestconfig, "postgres")
        given, template = state["url"], state["template"]
    url = make_url(given).set(drivername="postgresql+psycopg2")
    database = f"test_{uuid.uuid4().hex}"
    own = url.set(database=database)
    _execute(url.set(drivername="postgresql"), "create database {} template {}", database, template)
    try:
        if template == "template1":
            _execute(own.set(drivername="postgresql"), "create extension if not exists postgis")
        yield own.render_as_string(hide_password=False)
    finally:
        _execute(url.set(drivername="postgresql"), "drop database if exists {} with (force)", database)


def _execute(url: Any, statement: str, *names: str) -> None:
    """Run one statement outside a transaction, with names in its braces."""
    connection = psycopg2.connect(url.render_as_string(hide_password=False))
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*(sql.Identifier(name) for name in names)))


def _service(config: pytest.Config, name: str) -> dict[str, str]:
    """Return a service's state; where it cannot be had, fail under CI and skip elsewhere, with the reason."""
    try:
        return config.stash[_SESSION].service(name)
    except ServiceMissingError as error:
        reason = str(error)
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"CI needs {name}: {reason}", pytrace=False)
    pytest.skip(f"no {name}: {reason}")
