"""Commands that start Dagster: ``dev`` and ``demo``.

What belongs here: their options and how the demo looks on a terminal.  What does not: the demo itself
(``geo_assets.demo``) and Dagster as a process (``geo_assets.dagster_server``).
"""

import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from geo_assets.cli.exits import FAILED
from geo_assets.cli.output import JsonOption, note, print_json, print_table, say, styled_status
from geo_assets.dagster_home import ensure_dagster_home, workspace_file
from geo_assets.dagster_server import dev_command, free_port
from geo_assets.report_server import start_beside
from geo_assets.settings import Settings, get_settings

if TYPE_CHECKING:
    from geo_assets.demo import DemoReport, ShowProgress, Tally

__all__ = ["add_demo", "add_dev"]

_OUTCOMES = ("created", "updated", "unchanged", "skipped", "invalid", "failed", "cancelled")


def add_dev(app: typer.Typer) -> None:
    """Add ``dev``."""
    app.command("dev")(dev)


def add_demo(app: typer.Typer) -> None:
    """Add ``demo``."""
    app.command("demo")(demo)


def dev(
    *,
    port: Annotated[int, typer.Option("--port", "-p", min=1, max=65535, help="Port of the UI.")] = 3000,
    host: Annotated[str, typer.Option("--host", help="Address of the UI.")] = "127.0.0.1",
) -> None:
    """Start Dagster with this code location: UI, daemon, run queue. Ctrl-C stops it."""
    settings = get_settings()
    free_port(port)
    home = ensure_dagster_home(settings)
    note(f"Dagster on http://{host}:{port}, its instance in {home}")
    _offer_report(settings, host=host, port=port)
    command = dev_command(workspace_file(settings.home_path), host=host, port=port)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # without bytecode every run would take seconds longer to start
    sys.stdout.flush()
    # a child of a background job inherits SIGINT as ignored, and Dagster would then ignore SIGTERM as well
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execv(command[0], command)  # noqa: S606 - takes our place, so that signals reach it


def _offer_report(settings: Settings, *, host: str, port: int) -> None:
    """Let the report's link in the UI lead somewhere, where the settings do not say where, and its links back."""
    if settings.report_url is None and settings.blob_store == "local":
        folder = settings.blob_root_path / settings.report_container
        os.environ["GEO_ASSETS_REPORT_URL"] = start_beside(folder, near=port)
    if settings.ui_url is None:
        reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
        os.environ["GEO_ASSETS_UI_URL"] = f"http://{reached}:{port}"


def demo(
    *,
    ui: Annotated[bool, typer.Option("--ui", help="Leave Dagster up afterwards, until Ctrl-C.")] = False,
    port: Annotated[
        int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port of the UI; default: a free one.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Add to what an earlier demo left in its home.")] = False,
    home: Annotated[
        Path | None, typer.Option("--home", help="Folder for all it makes; default: demo in the home.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the whole path on real files: submit, ledger, daemon, wave runs, partitions."""
    from geo_assets.demo import demo_home, run_demo  # noqa: PLC0415 - the other commands start faster without

    def show(report: "DemoReport") -> None:
        if not as_json:
            _print_report(report, with_ui=ui)
        if ui:
            note(f"Dagster stays up on {report.url} until Ctrl-C")
            _until_interrupted()

    with _terminating(), demo_home(home, keep=keep) as folder, _progress(shown=sys.stderr.isatty()) as show_progress:
        report = run_demo(folder, port=port, tell=note, show_progress=show_progress, at_the_end=show)
    note("Dagster has stopped; no process is left")
    if as_json:
        print_json(asdict(report))
    for problem in report.problems:
        note(f"not as it should be: {problem}")
    if report.problems:
        raise typer.Exit(FAILED)


def _until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        note("stopping")


@contextmanager
def _terminating() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo like Ctrl-C does, Dagster included."""

    def interrupt(signal_number: int, frame: object) -> None:
        del signal_number, frame
        raise KeyboardInterrupt

    handlers = {one: signal.signal(one, interrupt) for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in handlers.items():
            signal.signal(one, handler)


@contextmanager
def _progress(*, shown: bool) -> Iterator["ShowProgress"]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not shown:
        yield _lines()
        return
    with Bars(
        TextColumn("jobs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        line = bars.add_task("jobs", total=None)
        yield lambda ended, total: bars.update(line, completed=ended, total=total)


def _lines() -> "ShowProgress":
    said: list[int] = []

    def show(ended: int, total: int) -> None:
        if ended not in said:
            said.append(ended)
            note(f"  {ended:,} of {total:,} jobs have ended")

    return show


def _print_report(report: "DemoReport", *, with_ui: bool) -> None:
    say("\nWhat became of the jobs")
    print_table(
        ["workflow", ">submitted", *(f">{name}" for name in _OUTCOMES), ">sum", ">materialized", ""],
        [_tally_row(tally) for tally in report.tallies],
    )
    say("\nWhat did not end well, as it should")
    print_table(["partition", "outcome", "reason"], [(key, styled_status(one), why) for key, one, why in report.bad])
    say(f"refused at once: {report.refused}")
    _print_results(report.results)
    say("\nIn Dagster's UI" + ("" if with_ui else f" (GEO_ASSETS_HOME={report.home} geo-assets dev shows it again)"))
    for run_id, job_name, status, size in report.runs:
        say(f"  {report.url}/runs/{run_id}  {status.lower()}: a wave of {size:,} {job_name} jobs")
    for tally in report.tallies:
        say(f"  {report.url}/assets/{tally.asset}?view=partitions")
    say(f"  {report.url}/asset-groups  the lineage")
    results = report.results
    say(f"\nThe files that landed while Dagster was up were catalogued {results['arrived_seconds']:.0f} s later.")
    say(f"The {results['reconciled']}.")
    say(f"The catalog as one page: {results['page']}")
    say(f"\n{sum(tally.submitted for tally in report.tallies):,} jobs in {report.seconds:.0f} s, all in {report.home}")


def _tally_row(tally: "Tally") -> tuple[Any, ...]:
    total = sum(tally.outcomes.values())
    return (
        tally.job_type,
        tally.submitted,
        *(tally.outcomes.get(name, 0) for name in _OUTCOMES),
        total,
        tally.materialized,
        "adds up" if tally.adds_up else "DOES NOT ADD UP",
    )


def _print_results(results: Mapping[str, Any]) -> None:
    say(f"\n{len(results['cogs'])} Cloud Optimized GeoTIFFs, each proven before it was published:")
    print_table(
        ["raster", "type", "codec", "MB"],
        [(cog["source"], cog["raster_type"], cog["compression"], f"{cog['size_mb']:.2f}") for cog in results["cogs"]],
    )
    say(f"\n{len(results['tables'])} vector tables, each counted before it was put in place:")
    print_table(
        ["table", "from", ">rows", "geometry", "was", ">repaired", ">dropped"],
        [
            (one["table"], one["source"], f"{one['rows']:,}", one["geometry"], one["source_crs"], one["repaired"],
             one["dropped"])
            for one in results["tables"]
        ],
    )  # fmt: skip
    counts = ", ".join(f"{count} items in '{name}'" for name, count in results["items"].items())
    say(f"The STAC catalog has {counts}: {results['catalog']}")
    say(
        f"\nThe summaries counted {results['summarized_files']:,} files,"
        f" {results['summarized_bytes'] / 1e6:,.1f} MB. The largest in 'rasters':"
    )
    largest = (results["rasters"].get("summary") or {}).get("largest_files") or []
    print_table([">bytes", "file"], [(row["size_bytes"], row["name"]) for row in largest[:5]])
    listed = results["vectors"].get("summary") or {}
    types = ", ".join(f"{count} {name}" for name, count in (listed.get("file_types") or {}).items())
    say(f"The listing of 'vectors' analysed {listed.get('blobs_analyzed', 0)} blobs: {types}.")
