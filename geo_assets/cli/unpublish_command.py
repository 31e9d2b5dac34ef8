"""Taking back what was published, and who did so: ``unpublish``, ``audit``.

What belongs here: the two commands and what they print.  What does not: finding and removing things
(``geo_assets.unpublish``).
"""

import getpass
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from geo_assets.cli.exits import FAILED
from geo_assets.cli.opening import existing_ledger, ledger_place, open_instance, open_machine
from geo_assets.cli.output import JsonOption, note, print_json, print_table, say, when
from geo_assets.coremachine.ledger import AuditEntry
from geo_assets.settings import get_settings
from geo_assets.unpublish import Fate, Taken, Thing, execute, plan

__all__ = ["acting_user", "add_to"]

_STYLES = {
    Fate.PRESENT: "cyan",
    Fate.REMOVED: "green",
    Fate.CHANGED: "yellow",
    Fate.SHARED: "yellow",
    Fate.BLOCKED: "red",
    Fate.FAILED: "red",
}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("unpublish")(unpublish)
    app.command("audit")(list_audit)


def unpublish(
    asset: Annotated[str, typer.Argument(metavar="ASSET", help="An asset whose jobs publish something, such as cog.")],
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY", help="Its partitions: container/blob, as they were submitted.")
    ],
    *,
    really: Annotated[
        bool, typer.Option("--execute", help="Take it back; without this, only show what would go.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove what somebody replaced since, as well.")] = False,
    who: Annotated[
        str | None,
        typer.Option("--by", metavar="NAME", help="Who, for the audit; default: your user.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what jobs published for partitions: items, blobs, green, and the recorded answer."""
    with open_machine(to_look=not really) as machine:
        if not really:
            taken = plan(machine, asset, keys)
        else:
            by = who or acting_user()
            with open_instance() as instance:
                # Dagster takes a second to load, which looking does without
                from geo_assets.coremachine.partition_wipe import unmaterialize  # noqa: PLC0415

                taken = execute(
                    machine,
                    lambda one, partitions: unmaterialize(instance, asset=one, partition_keys=partitions, who=by),
                    asset,
                    keys,
                    who=by,
                    force=force,
                )
    if as_json:
        print_json({"executed": really, "partitions": [_fields(one) for one in taken]})
    else:
        _print(taken, really=really, force=force)
    if really and any(not one.complete or _left(one, Fate.CHANGED) for one in taken):
        raise typer.Exit(FAILED)


def acting_user() -> str:
    """Who runs the command, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has a number only
        return "unknown"


def _fields(one: Taken) -> dict[str, Any]:
    return {
        "asset": one.asset,
        "partitionKey": one.partition_key,
        "assets": list(one.assets),
        "attemptsWithdrawn": len(one.attempts),
        "complete": one.complete,
        "note": one.note,
        "things": [thing.as_dict() for thing in one.things],
    }


def _print(taken: Sequence[Taken], *, really: bool, force: bool) -> None:
    print_table(
        ["partition", "kind", "outcome", "thing", "detail"],
        [
            (one.partition_key[:60], thing.kind, _styled(thing), f"{thing.collection}/{thing.name}", thing.detail)
            for one in taken
            for thing in one.things
        ],
    )
    say("")
    for one in taken:
        say(_summary(one, really=really, force=force))
        if one.note:
            note(f"{one.partition_key}: {one.note}")
    if not really:
        note("nothing was changed: add --execute to take this back")
    if not force and any(_left(one, Fate.CHANGED) for one in taken):
        note("what was replaced since stays; --force removes it as well")


def _summary(one: Taken, *, really: bool, force: bool) -> str:
    assets = ", ".join(one.assets)
    jobs = f"{len(one.attempts)} {'execution' if len(one.attempts) == 1 else 'executions'}"
    if not really:
        if one.leaves_nothing_to_do(force=force):
            return f"{one.partition_key}: nothing is left to take back"
        return f"{one.partition_key}: {assets} would show as never materialized; {jobs} would no longer count"
    if not one.complete:
        return f"{one.partition_key}: not finished, so {assets} keep what they show; repeat the command"
    return f"{one.partition_key}: taken back; {assets} show as never materialized"


def _styled(thing: Thing) -> Text:
    return Text(thing.outcome.value, style=_STYLES.get(thing.outcome, ""))


def _left(one: Taken, fate: Fate) -> bool:
    return any(thing.outcome is fate for thing in one.things)


# --- audit ---------------------------------------------------------------------------------------------------------


def list_audit(
    *,
    asset: Annotated[str | None, typer.Option("--asset", help="Only of this asset.", show_default=False)] = None,
    partition: Annotated[
        str | None, typer.Option("--partition", metavar="KEY", help="Only of this partition.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Most rows to show; 0: all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List who took back or repaired what, latest first."""
    with existing_ledger() as ledger:
        found = ledger.audits(asset=asset, partition_key=partition, limit=limit or None) if ledger is not None else []
    if as_json:
        print_json([_audit_fields(row) for row in found])
    elif not found:
        note(f"nothing was taken back or repaired in {ledger_place(get_settings())}")
    else:
        print_table(
            ["when", "who", "action", "asset", "partition", "state", "what"],
            [
                (
                    when(row.started_at),
                    row.who,
                    row.action,
                    row.asset,
                    row.partition_key[:60],
                    _state(row),
                    _counted(row),
                )
                for row in found
            ],
        )


def _state(row: AuditEntry) -> str:
    if row.ended_at is None:
        return "never ended"
    return "complete" if row.complete else "not finished"


def _counted(row: AuditEntry) -> str:
    outcomes = [str(thing.get("outcome")) for thing in row.inventory]
    return ", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes)))


def _audit_fields(row: AuditEntry) -> dict[str, Any]:
    return {
        "auditId": row.audit_id,
        "action": row.action,
        "who": row.who,
        "asset": row.asset,
        "partitionKey": row.partition_key,
        "complete": row.complete,
        "startedAt": row.started_at,
        "endedAt": row.ended_at,
        "inventory": row.inventory,
    }
