"""The catalog as one page: ``report``.

What belongs here: the command.  What does not: the page (``geo_assets.report``), and publishing it from Dagster
(``geo_assets.assets.report``).
"""

import os
import webbrowser
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_assets.cli.opening import existing_ledger
from geo_assets.cli.output import JsonOption, camel_fields, note, print_json, say
from geo_assets.errors import ParameterError
from geo_assets.settings import get_settings

if TYPE_CHECKING:
    from geo_assets.report import Report

__all__ = ["add_to"]

_LARGEST = 20
"""Datasets told to programs."""


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report")(report)


def report(
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where the page goes; a folder gets catalog.html.")
    ] = Path("catalog.html"),
    show: Annotated[bool, typer.Option("--open", help="Show the page in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw the catalog on one page: map, counts, growth, failures. The page is one file and works offline."""
    # shapely and the stores take a second that the other commands do without
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415
    from geo_assets.jobs import load_registry  # noqa: PLC0415
    from geo_assets.report import gather, render  # noqa: PLC0415
    from geo_assets.services import open_services  # noqa: PLC0415

    settings = get_settings()
    with ExitStack() as stack:
        gathered = gather(
            settings,
            open_services(settings),
            lambda: stack.enter_context(existing_ledger()),
            lambda: configured_sources(settings, load_registry(settings)),
        )
    page = render(gathered).encode()
    target = _written(out, page)
    if as_json:
        print_json({"page": str(target), "pageBytes": len(page), **_numbers(gathered)})
    else:
        counted = f"{gathered.items:,} items in {gathered.collection_count:,} collections"
        say(f"{target} ({len(page) / 1e6:.1f} MB): {counted}")
    for part, why in gathered.problems:
        note(f"{part} is not in it: {why}")
    if show and not webbrowser.open(target.as_uri()):
        note(f"there is no browser to show it in: open {target}")


def _numbers(report: "Report") -> dict[str, Any]:
    """All but the map, and of the datasets the largest."""
    numbers: dict[str, Any] = camel_fields(replace(report, datasets=report.datasets[:_LARGEST]))
    for name in ("cells", "cellDegrees"):
        del numbers[name]
    for one in numbers["datasets"]:
        del one["rings"]
    totals = {"items": report.items, "bytes": report.bytes, "rows": report.rows, "failedJobs": report.failed_jobs}
    return {**totals, **numbers}


def _written(out: Path, page: bytes) -> Path:
    """Write the page whole, in place of an earlier one.

    Raises:
        ParameterError: it cannot be written there.
    """
    out = out.expanduser()
    target = (out / "catalog.html" if out.is_dir() else out).resolve()
    staged = target.with_name(f".{target.name[:100]}-{os.getpid()}")
    try:
        staged.write_bytes(page)
        staged.replace(target)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise ParameterError(f"the page cannot be written to {target} ({error.strerror}): name another file") from error
    return target
