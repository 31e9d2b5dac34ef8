"""Opening what commands need: settings, the ledger, the CoreMachine, Dagster's instance.

What belongs here: opening, with the short patience of somebody who waits.  What does not: using it.
"""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.dagster_home import ensure_dagster_home, has_dagster_home
from geo_assets.errors import SettingsError
from geo_assets.redaction import redact
from geo_assets.settings import Settings, get_settings

if TYPE_CHECKING:
    import dagster as dg

__all__ = ["existing_ledger", "open_instance", "open_ledger", "open_machine"]

PATIENCE_SECONDS = 5.0


@contextmanager
def open_ledger(settings: Settings | None = None) -> Iterator[Ledger]:
    """The ledger, made if it is not there yet.

    Raises:
        LedgerUnavailableError: it does not answer within five seconds.
        SettingsError: its URL cannot be used.
    """
    settings = settings or get_settings()
    try:
        ledger = Ledger(settings.ledger_sqlalchemy_url, patience_seconds=PATIENCE_SECONDS)
    except (ValueError, ImportError) as error:
        raise SettingsError(redact(f"GEO_ASSETS_LEDGER_URL cannot be used: {error}")) from None
    with closing(ledger):
        yield ledger


@contextmanager
def existing_ledger() -> Iterator[Ledger | None]:
    """The ledger to look something up in; ``None`` where nothing was ever submitted, so that looking makes nothing."""
    settings = get_settings()
    if not _has_ledger(settings):
        yield None
        return
    with open_ledger(settings) as ledger:
        yield ledger


def _has_ledger(settings: Settings) -> bool:
    return settings.ledger_url is not None or (settings.home_path / "ledger.db").exists()


def ledger_place(settings: Settings) -> str:
    """Where the ledger is, without its password."""
    return make_url(settings.ledger_sqlalchemy_url).render_as_string(hide_password=True)


@contextmanager
def open_machine(*, to_look: bool = False) -> Iterator[CoreMachine]:
    """The CoreMachine with the workflows and stores of these settings.

    Args:
        to_look: nothing will be written: where nothing was ever submitted, no ledger is made, and an empty one that is
            thrown away stands for it.

    Raises:
        ContractError: a workflow class cannot be run.
        SettingsError: the stores cannot be opened with these settings.
    """
    # the workflows bring Arrow and more with them, which commands that only read the ledger do without
    from geo_assets.jobs import load_registry  # noqa: PLC0415
    from geo_assets.services import open_services  # noqa: PLC0415

    settings = get_settings()
    registry = load_registry(settings)
    services = open_services(settings)
    with ExitStack() as stack:
        place = settings
        if to_look and not _has_ledger(settings):
            folder = stack.enter_context(TemporaryDirectory(prefix="geo-assets-"))
            place = settings.model_copy(update={"home": Path(folder)})
        ledger = stack.enter_context(open_ledger(place))
        yield CoreMachine(ledger=ledger, registry=registry, settings=settings, services=services)


@contextmanager
def open_instance(*, to_look: bool = False) -> Iterator["dg.DagsterInstance"]:
    """Dagster's instance, its folder made if need be.

    Args:
        to_look: nothing will be written: where there is no folder yet, none is made, and an empty instance that is
            thrown away stands for it.
    """
    import dagster as dg  # noqa: PLC0415 - a second that only waiting commands need

    with ExitStack() as stack:
        if to_look and not has_dagster_home(get_settings()):
            folder = stack.enter_context(TemporaryDirectory(prefix="geo-assets-"))
            yield stack.enter_context(dg.DagsterInstance.local_temp(folder))
            return
        ensure_dagster_home(get_settings())
        yield stack.enter_context(dg.DagsterInstance.get())
