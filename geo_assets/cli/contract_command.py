"""``geo-assets contract``: which of the seven elements each workflow class has.

What belongs here: finding the classes and printing the table.  What does not: the check itself
(``coremachine.contract``).
"""

import contextlib
import importlib
import os
import sys
from typing import Annotated, Any

import typer
from rich.text import Text

from geo_assets.cli.exits import FAILED
from geo_assets.cli.output import JsonOption, note, print_json, print_table
from geo_assets.coremachine.contract import ELEMENTS, ContractReport, ElementState, check_contract
from geo_assets.errors import ParameterError
from geo_assets.settings import Settings, get_settings

__all__ = ["add_to"]

_STYLES = {
    ElementState.PRESENT: "green",
    ElementState.MISSING: "red",
    ElementState.WRONG_SIGNATURE: "yellow",
}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("contract")(show_contract)


def show_contract(
    classes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODULE:CLASS]...", help="Classes to check beside the registered ones.", show_default=False
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Show which of the contract's seven elements each workflow has; exit status 1 if one misses any."""
    given = [_load(spec) for spec in classes or ()]
    registered = [workflow for workflow in _registered(get_settings()) if workflow not in given]
    reports = [(check_contract(workflow), True) for workflow in registered]
    reports += [(check_contract(workflow), False) for workflow in given]
    if as_json:
        print_json([_fields(report, registered=is_registered) for report, is_registered in reports])
    else:
        _print(reports)
    if not all(report.complete for report, _ in reports):
        raise typer.Exit(FAILED)


def _registered(settings: Settings) -> list[type]:
    """Ours and the legacy classes the settings name."""
    from geo_assets.coremachine.legacy import configured_workflows  # noqa: PLC0415
    from geo_assets.jobs import WORKFLOWS  # noqa: PLC0415 - the workflows bring Arrow with them

    return [*WORKFLOWS, *(workflow for workflow, _ in configured_workflows(settings))]


def _load(spec: str) -> type:
    """Import ``module:Class``, the current folder included.

    Raises:
        ParameterError: it is not there or no class; says which.
    """
    module_name, colon, class_name = spec.partition(":")
    if not (module_name and colon and class_name):
        raise ParameterError(f"'{spec}': write module:Class, for example my_jobs.inventory:Inventory")
    here = os.getcwd()  # noqa: PTH109 - sys.path holds text
    if here not in sys.path:
        sys.path.insert(0, here)  # an installed command does not look there by itself
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what the module prints is not our JSON
            module = importlib.import_module(module_name)
    except Exception as error:  # other people's module: whatever it raises is why it cannot be checked
        raise ParameterError(f"'{spec}': the module cannot be imported ({type(error).__name__}: {error})") from error
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        what = "nothing" if found is None else f"a {type(found).__name__}"
        raise ParameterError(f"'{spec}': '{class_name}' in {module_name} is {what}, not a class")
    return found


def _fields(report: ContractReport, *, registered: bool) -> dict[str, Any]:
    return {
        "workflow": report.workflow,
        "jobType": report.job_type,
        "registered": registered,
        "complete": report.complete,
        "elements": {name: state.value for name, state in report.elements.items()},
        "problems": list(report.problems),
    }


def _print(reports: list[tuple[ContractReport, bool]]) -> None:
    names = [element.name for element in ELEMENTS]
    print_table(
        ["workflow", *names],
        [
            (
                report.workflow if registered else f"{report.workflow} (given)",
                *(Text(report.elements[name].value, style=_STYLES[report.elements[name]]) for name in names),
            )
            for report, registered in reports
        ],
    )
    for report, _ in reports:
        for problem in report.problems:
            note(problem)
