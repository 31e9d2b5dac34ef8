"""``geo-assets clean-up``: what nobody needs any more is removed, as the job ``clean_up`` does.

What belongs here: the command and what it prints.  What does not: what goes (``geo_assets.clean_up``).
"""

from typing import Annotated

import typer

from geo_assets.cli.exits import FAILED
from geo_assets.cli.opening import open_instance, open_machine
from geo_assets.cli.output import JsonOption, note, print_json, print_table
from geo_assets.settings import MOST_DAYS

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("clean-up")(clean_up_now)


def clean_up_now(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would go.")] = False,
    run_days: Annotated[
        float | None,
        typer.Option("--keep-run-days", min=0, max=MOST_DAYS, help="Instead of the setting.", show_default=False),
    ] = None,
    task_days: Annotated[
        float | None,
        typer.Option("--keep-task-days", min=0, max=MOST_DAYS, help="Instead of the setting.", show_default=False),
    ] = None,
    listing_days: Annotated[
        float | None,
        typer.Option("--keep-listing-days", min=0, max=MOST_DAYS, help="Instead of the setting.", show_default=False),
    ] = None,
    at_most: Annotated[int, typer.Option("--at-most", min=1, help="Most things of a kind to remove.")] = 5000,
    as_json: JsonOption = False,
) -> None:
    """Remove old runs, events, tasks, listings, leftovers and partition keys that nobody needs any more."""
    # these bring Dagster and Arrow with them
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415
    from geo_assets.clean_up import Keep, clean_up  # noqa: PLC0415
    from geo_assets.coremachine.dispatch import WAVE_TAG  # noqa: PLC0415
    from geo_assets.coremachine.retention import History  # noqa: PLC0415

    with open_machine(to_look=dry_run) as machine, open_instance(to_look=dry_run) as instance:
        settings = machine.settings
        cleaned = clean_up(
            machine,
            History(instance),
            configured_sources(settings, machine.registry),
            keep=Keep.of(settings, run_days=run_days, task_days=task_days, listing_days=listing_days),
            wave_tag=WAVE_TAG,
            at_most=at_most,
            dry_run=dry_run,
        )
    if as_json:
        print_json({"dryRun": dry_run, "removed": [one.as_dict() for one in cleaned]})
    else:
        print_table(
            [">would go" if dry_run else ">removed", ">MB", "what", "note"],
            [(one.number, one.megabytes, one.what, one.as_dict()["note"]) for one in cleaned],
        )
        if dry_run:
            note("nothing was changed")
    if any(one.problem for one in cleaned):
        raise typer.Exit(FAILED)
