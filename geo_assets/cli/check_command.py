"""Looking again at what was published: ``check``.

What belongs here: the command and what it prints.  What does not: the checks (``geo_assets.checking``).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from geo_assets.cli.exits import FAILED
from geo_assets.cli.opening import open_instance, open_machine
from geo_assets.cli.output import JsonOption, note, print_json, print_table, say

if TYPE_CHECKING:
    from geo_assets.checking.many import Looked, Tally

__all__ = ["add_to"]

_COLUMNS = ("passed", "warned", "failed", "not looked at")
_STYLES = {"failed": "red", "not looked at": "red", "warned": "yellow"}


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="An asset, such as cog or vector_table.")],
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY", help="Its partitions, as they were submitted; default: all.", show_default=False),
    ] = None,
    *,
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="Partitions whose name begins so.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option("--sample", metavar="N", min=1, help="At most so many, chosen by chance.", show_default=False),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--check", metavar="NAME", help="Only this check; may be repeated.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look again at what was published: files, tables, items, as they are now. Nothing is changed."""
    # the stores' libraries take a while to load, which the other commands do without
    from geo_assets.checking.catalogue import checks_of  # noqa: PLC0415
    from geo_assets.checking.many import choose, look  # noqa: PLC0415

    found: list[Looked] = []
    with open_machine(to_look=True) as machine:
        checks = checks_of(machine.registry, asset, only or ())
        with open_instance(to_look=True) as instance:
            import dagster as dg  # noqa: PLC0415 - loaded by the instance anyway

            known = instance.get_materialized_partitions(dg.AssetKey.from_user_string(asset))
        chosen = choose(known, keys=keys or (), prefix=prefix, sample=sample)
        try:
            tally = look(machine, checks, chosen, on_found=found.extend)
        finally:
            machine.services["sandbox"].close()
    if as_json:
        print_json(_fields(asset, tally, found))
    else:
        _print(asset, tally, found)
    if tally.count("failed", "not looked at"):
        raise typer.Exit(FAILED)


def _fields(asset: str, tally: "Tally", found: "Sequence[Looked]") -> dict[str, Any]:
    return {
        "asset": asset,
        "partitions": tally.partitions,
        "looks": tally.total,
        "counts": {name: {column: counter[column] for column in _COLUMNS} for name, counter in tally.by_check.items()},
        "findings": [
            {
                "partitionKey": one.partition_key,
                "check": one.check.name,
                "verdict": one.verdict,
                "blocking": one.check.blocking,
                "description": one.sentence,
                "metadata": {} if one.finding is None else dict(one.finding.metadata),
            }
            for one in found
        ],
    }


def _print(asset: str, tally: "Tally", found: "Sequence[Looked]") -> None:
    bad = [one for one in found if one.verdict != "passed"]
    if bad:
        print_table(
            ["partition", "check", "verdict", "why"],
            [
                (one.partition_key[:60], one.check.name, Text(one.verdict, style=_STYLES[one.verdict]), one.sentence)
                for one in bad
            ],
        )
        say("")
    if not tally.partitions:
        note(f"no partition of {asset} is materialized, or none of that name")
        return
    print_table(
        ["check", *(f">{column}" for column in _COLUMNS), ">all"],
        [
            (name, *(counter[column] for column in _COLUMNS), sum(counter.values()))
            for name, counter in tally.by_check.items()
        ],
    )
    say("")
    good = tally.count("passed")
    what = "partition" if tally.partitions == 1 else "partitions"
    say(f"{tally.partitions:,} {what} of {asset}: {good:,} of {tally.total:,} looks found all well")
