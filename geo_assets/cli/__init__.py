"""The command line ``geo-assets``: submit jobs, look at them, cancel and retry them; see ``docs/cli.md``.

What belongs here: the commands, one module a family, and how they are put together.  What does not: anything that
Dagster's UI or another program would want, too; that is in ``coremachine``, ``local_run`` and ``demo``.

``geo-assets = geo_assets.cli:app`` is the entry point.
"""

from typing import Annotated

import typer

from geo_assets import __version__
from geo_assets.cli import (
    check_command,
    clean_up_command,
    contract_command,
    dagster_commands,
    job_commands,
    notify_command,
    reconcile_command,
    report_command,
    sources_commands,
    submit_commands,
    unpublish_command,
)
from geo_assets.cli.exits import EXITS_HELP, GeoAssetsGroup

__all__ = ["app"]

app = typer.Typer(
    name="geo-assets",
    cls=GeoAssetsGroup,
    help="Containers of geospatial files as a catalog you can trust, on Dagster.",
    epilog=EXITS_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    del version


# In the order of a first session
dagster_commands.add_demo(app)
submit_commands.add_submit(app)
job_commands.add_to(app)
submit_commands.add_retry(app)
sources_commands.add_to(app)
check_command.add_to(app)
unpublish_command.add_to(app)
clean_up_command.add_to(app)
reconcile_command.add_to(app)
report_command.add_to(app)
notify_command.add_to(app)
contract_command.add_to(app)
dagster_commands.add_dev(app)
