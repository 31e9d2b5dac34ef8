"""``geo-assets reconcile``: do storage, ledger, tables, catalog and Dagster agree, and what would mend it.

What belongs here: the command and what it prints.  What does not: comparing and mending (``geo_assets.reconcile``).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from geo_assets.cli.exits import FAILED, UNAVAILABLE
from geo_assets.cli.opening import open_instance, open_machine
from geo_assets.cli.output import JsonOption, console, note, print_json, print_table, say
from geo_assets.cli.unpublish_command import acting_user
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import ParameterError

if TYPE_CHECKING:
    import dagster as dg

    from geo_assets.reconcile import Finding, Mended, Reconciliation

__all__ = ["add_to"]


class Only(StrEnum):
    """Parts that can be looked at alone."""

    STORAGE = "storage"
    TABLES = "tables"
    CATALOG = "catalog"
    SOURCES = "sources"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reconcile")(reconcile_all)


def reconcile_all(
    *,
    only: Annotated[
        list[Only] | None,
        typer.Option("--only", help="Only this part; may be given several times. Default: all.", show_default=False),
    ] = None,
    repair_it: Annotated[
        bool, typer.Option("--repair", help="Show what a repair would do; with --execute do it.")
    ] = False,
    really: Annotated[bool, typer.Option("--execute", help="With --repair: do it.")] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Count the rows of every table as well.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most findings to print of each kind.")] = 20,
    who: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Who, for the audit; default: your user.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare storage, ledger, tables, catalog, sources and Dagster in both directions; nothing is changed.

    Exit status: 0 all agree, 1 something disagrees, 4 a store could not be reached.
    """
    if really and not repair_it:
        raise ParameterError("--execute belongs to --repair: give both, or neither")
    with open_machine(to_look=not really) as machine, _dagster(only, to_look=not really) as instance:
        found = _reconciled(machine, instance, only, deep=deep, quiet=as_json)
        mended = _repaired(machine, instance, found, who=who or acting_user(), really=really) if repair_it else None
    if as_json:
        done = {} if mended is None else {"executed": really, "repair": [one.as_dict() for one in mended]}
        print_json({**found.as_dict(), **done})
    else:
        _print(found, limit)
        if mended is not None:
            _print_repair(mended, really=really, limit=limit, left=found.left_to_mend)
    found.require_sums()
    if found.unknown:
        raise typer.Exit(UNAVAILABLE)
    if found.wrong:
        raise typer.Exit(FAILED)


def _dagster(only: Sequence[Only] | None, *, to_look: bool) -> Any:
    # it takes a second to load, which looking at one part does without
    return nullcontext() if only else open_instance(to_look=to_look)


def _reconciled(
    machine: CoreMachine, instance: "dg.DagsterInstance | None", only: Sequence[Only] | None, *, deep: bool, quiet: bool
) -> "Reconciliation":
    from geo_assets.reconcile import EVERYTHING, reconcile  # noqa: PLC0415 - polars, which other commands need not

    shown = None
    if instance is not None:
        from geo_assets.coremachine.shown import materialized  # noqa: PLC0415 - as above

        dagster = instance
        shown = lambda asset: materialized(dagster, asset)  # noqa: E731
    what: Any = frozenset(one.value for one in only) if only else EVERYTHING
    with _progress(quiet=quiet) as progress:
        return reconcile(machine, what=what, deep=deep, shown=shown, progress=progress)


def _repaired(
    machine: CoreMachine, instance: "dg.DagsterInstance | None", found: "Reconciliation", *, who: str, really: bool
) -> "list[Mended]":
    from geo_assets.reconcile import repair  # noqa: PLC0415 - as above

    show = wipe = None
    if instance is not None:
        from geo_assets.coremachine.partition_wipe import unmaterialize  # noqa: PLC0415 - as above
        from geo_assets.coremachine.shown import show_findings  # noqa: PLC0415 - as above

        dagster = instance
        show = lambda findings: show_findings(machine, dagster, findings)  # noqa: E731
        wipe = lambda asset, keys: unmaterialize(dagster, asset=asset, partition_keys=keys, who=who)  # noqa: E731
    return repair(machine, found.findings, who=who, execute=really, show=show, wipe=wipe)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """A line on a terminal that says what is being read; nothing for a pipe."""
    terminal = console(stderr=True)
    if quiet or not terminal.is_terminal:
        yield lambda _what, _rows: None
        return
    last = 0.0
    with terminal.status("reconciling") as status:

        def tell(what: str, rows: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.2:  # noqa: PLR2004 - what an eye can follow
                last = time.monotonic()
                status.update(f"{what}: {rows:,}")

        yield tell


# --- what is printed -----------------------------------------------------------------------------------------------


def _print(found: "Reconciliation", limit: int) -> None:
    print_table(
        ["direction", ">total", ">wrong", "of which"],
        [
            (
                line.direction.value,
                "?" if line.problem else line.total,
                Text(
                    "?" if line.problem else f"{line.wrong:,}", style="red" if line.wrong or line.problem else "green"
                ),
                f"unknown: {line.problem}" if line.problem else _counts(line.as_dict()["counts"]),
            )
            for line in found.lines
        ],
    )
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in found.findings:
        groups[finding.direction.value, finding.fate.value].append(finding)
    for (direction, fate), some in groups.items():
        say("")
        more = found.not_shown.get(f"{direction}: {fate}", 0)
        print_table(
            ["thing", "what is wrong", "what would mend it"],
            [(one.thing, one.reason, one.mend) for one in some[: limit or None]],
            title=f"{direction}: {len(some) + more:,} {fate}",
        )
        if left := len(some) + more - len(some[: limit or None]):
            note(f"and {left:,} more")
    say("")
    say(_verdict(found))


def _verdict(found: "Reconciliation") -> str:
    from geo_assets.reconciliation.findings import Fate  # noqa: PLC0415 - as above

    if found.unknown:
        return f"{len(found.unknown)} directions are unknown, {found.wrong:,} things disagree in the others"
    later = found.count(Fate.AT_WORK) + found.count(Fate.NOT_JUDGED)
    more = f"; {later:,} are at work or could not be judged: look again later" if later else ""
    return (f"{found.wrong:,} things disagree" if found.wrong else "all agree") + more


def _counts(counts: "dict[str, int]") -> str:
    return " + ".join(f"{number:,} {name}" for name, number in counts.items()) or "nothing"


def _print_repair(mended: "Sequence[Mended]", *, really: bool, limit: int, left: int) -> None:
    doable = [one for one in mended if one.outcome != "left"]
    say("")
    print_table(
        ["repair", "outcome", "thing", "detail"],
        [
            (one.finding.action.value if one.finding.action else "", one.outcome, one.finding.thing, one.detail)
            for one in doable[: limit or None]
        ],
    )
    counts = Counter(one.outcome for one in mended)
    say(f"repair: {_counts(dict(sorted(counts.items())))}")
    if left:
        note(f"not all is mended at once: {left:,} more are left for the next repair, so repeat the command")
    if not really and doable:
        note("nothing was changed: add --execute to do this")
    elif counts["queued"]:
        note("queued jobs run when a Dagster daemon is up; reconcile again when they have ended")
