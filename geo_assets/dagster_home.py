"""Where Dagster keeps its instance: ``DAGSTER_HOME`` with our ``dagster.yaml`` in it, and the workspace to load.

What belongs here: finding or making that folder and setting the environment for this process and its children.
What does not: the instance's settings, which are in ``dagster.yaml``, and anything of Dagster itself: commands that
do not need it call this before they import it.
"""

import os
from importlib.resources import files
from pathlib import Path

from geo_assets.errors import SettingsError
from geo_assets.settings import Settings

__all__ = [
    "CODE_LOCATION",
    "DEFINITIONS_MODULE",
    "ensure_dagster_home",
    "has_dagster_home",
    "packaged_file",
    "workspace_file",
]

CODE_LOCATION = "geo_assets"
"""Name of the code location, in ``workspace.yaml`` and in every run made here."""

DEFINITIONS_MODULE = "geo_assets.definitions"
"""Module that the code location loads."""


def ensure_dagster_home(settings: Settings) -> Path:
    """Return the folder of the Dagster instance, made and configured if need be.

    ``DAGSTER_HOME`` decides; where it is not set it becomes ``dagster`` in the home.  Our ``dagster.yaml`` is put into
    the folder when there is none; one that is there is left alone.  ``DAGSTER_HOME`` and ``GEO_ASSETS_HOME`` are set
    to absolute paths in this process's environment, so that children agree wherever they run.

    Raises:
        SettingsError: the folder cannot be made or written; names it.
    """
    given, folder = _folder(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            _write_once(folder / "dagster.yaml", packaged_file("dagster.yaml"))
    except OSError as error:
        where = "DAGSTER_HOME" if given else "GEO_ASSETS_HOME"
        raise SettingsError(
            f"{where}: the folder {folder} cannot be used for Dagster's instance ({error.strerror}); name another one"
        ) from error
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["GEO_ASSETS_HOME"] = str(settings.home_path)
    return folder


def has_dagster_home(settings: Settings) -> bool:
    """Whether the folder of the Dagster instance is there, with anything in it."""
    folder = _folder(settings)[1]
    return folder.is_dir() and any(folder.iterdir())


def _folder(settings: Settings) -> tuple[str, Path]:
    """What ``DAGSTER_HOME`` says, and the folder."""
    given = os.environ.get("DAGSTER_HOME", "").strip()
    return given, Path(given).expanduser().resolve() if given else settings.home_path / "dagster"


def workspace_file(folder: Path) -> Path:
    """Put our ``workspace.yaml`` into the folder, so that Dagster finds the code location from anywhere."""
    path = folder / "workspace.yaml"
    if not path.exists():
        _write_once(path, packaged_file("workspace.yaml"))
    return path


def packaged_file(name: str) -> str:
    """Text of ``dagster.yaml`` or ``workspace.yaml``: beside the modules in a wheel, in the root of a checkout."""
    packaged = files("geo_assets") / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).resolve().parent.parent / name).read_text(encoding="utf-8")


def _write_once(path: Path, text: str) -> None:
    """Write a file that readers see whole, unless another process was faster."""
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    staged.write_text(text, encoding="utf-8")
    try:
        os.link(staged, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        if not path.exists():
            staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)
