"""``geo-assets notify``: whether the failure webhook works, and what is still to be told.

What belongs here: the command and what it prints.  What does not: what is posted (``geo_assets.notices``).
"""

from typing import Annotated

import typer

from geo_assets.cli.opening import existing_ledger
from geo_assets.cli.output import JsonOption, print_json, say
from geo_assets.errors import SettingsError
from geo_assets.notices import counts, sample
from geo_assets.settings import get_settings

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("notify")(notify)


def notify(
    *,
    test: Annotated[bool, typer.Option("--test", help="Post a message that says it is a test.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how many failed runs the failure webhook is still to be told of; with --test, try it."""
    settings = get_settings()
    if settings.failure_webhook is None:
        raise SettingsError("no failure webhook is set: GEO_ASSETS_FAILURE_WEBHOOK")
    from geo_assets.webhook import Webhook  # noqa: PLC0415 - the HTTP client takes its time to load

    webhook = Webhook(settings.failure_webhook)
    if test:
        webhook.post(sample(settings))
    with existing_ledger() as ledger:
        owed, kinds = counts(ledger) if ledger is not None else (0, 0)
    if as_json:
        print_json({"posted": test, "owed": owed, "kindsTold": kinds})
        return
    if test:
        say("posted: the failure webhook took a test message")
    say(f"{owed} failed runs are still to be told; {kinds} kinds of failure were told so far")
