"""Watched containers at the command line: ``sources list``, ``check``, ``look``, ``again``, ``forget``, ``schema``.

What belongs here: these commands and what they print.  What does not: what a source is, sees and queues
(``geo_assets.sources``), and its sensor (``geo_assets.assets.source_sensors``).
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geo_assets.cli.exits import FAILED, exit_status
from geo_assets.cli.opening import existing_ledger, open_instance, open_machine
from geo_assets.cli.output import JsonOption, camel_fields, note, print_json, print_table, say, when
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, NotFoundError, ParameterError
from geo_assets.redaction import redact
from geo_assets.settings import Settings, get_settings

if TYPE_CHECKING:
    from geo_assets.coremachine.binding import Registry
    from geo_assets.sources.preview import Named, Preview
    from geo_assets.sources.source import Source

__all__ = ["add_to"]

_MOST_TURNS = 1000
_STATES = {"at work": "atWork"}
"""What states are called in JSON, where it is not their own name."""
_LATE = timedelta(minutes=3)
"""How long after its time a look is no wonder: ticks come every half minute, and one may take a minute."""
_SAMPLE = 5


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    sources = typer.Typer(help="Watched containers: list them, see what they would do, look now.", no_args_is_help=True)
    sources.command("list")(list_sources)
    sources.command("check")(check_sources_now)
    sources.command("look")(look_at_sources)
    sources.command("again")(make_again)
    sources.command("forget")(forget_source)
    sources.command("schema")(print_schema)
    app.add_typer(sources, name="sources")


def _configured(settings: Settings) -> tuple[tuple["Source", ...], "Registry"]:
    # these bring polars, Arrow and more with them
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415
    from geo_assets.jobs import load_registry  # noqa: PLC0415

    registry = load_registry(settings)
    return configured_sources(settings, registry), registry


def _none_there(settings: Settings) -> None:
    note(f"no sources: there is nothing in {settings.sources_path} (GEO_ASSETS_SOURCES); docs/sources.md has examples")


def print_schema() -> None:
    """Print the JSON schema of a file of sources, for editors."""
    from geo_assets.sources.source import Source  # noqa: PLC0415

    one = Source.model_json_schema(mode="validation")
    print_json(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "Sources of geo_assets",
            "type": "object",
            "required": ["sources"],
            "additionalProperties": False,
            "properties": {"sources": {"type": "array", "items": one}},
        }
    )


# --- list ----------------------------------------------------------------------------------------------------------


def list_sources(*, as_json: JsonOption = False) -> None:
    """List the sources: what they watch and do, when they looked, how their entries stand."""
    settings = get_settings()
    found, registry = _configured(settings)
    switches = _switches(settings) if found else {}
    with existing_ledger() as ledger:
        rows = [_listed(source, ledger, switches, registry) for source in found]
        left = _left_behind(ledger, found)
    if as_json:
        print_json(rows)
    elif not rows:
        _none_there(settings)
    else:
        _print_listed(rows, found)
    for name in left:
        note(f"'{name}' is configured no more, and what it saw is remembered: 'geo-assets sources forget {name}'")


def _switches(settings: Settings) -> dict[str, bool]:
    """Sensor → whether it is on, of those that somebody switched or that have run; none where Dagster never did."""
    if not ("DAGSTER_HOME" in os.environ or (settings.home_path / "dagster").exists()):
        return {}
    with open_instance() as instance:
        return {
            state.instigator_name: state.is_running
            for state in instance.all_instigator_state()
            if state.instigator_type.value == "SENSOR"
        }


def _left_behind(ledger: Ledger | None, found: Sequence["Source"]) -> list[str]:
    from geo_assets.sources.register import remembered  # noqa: PLC0415

    names = {source.name for source in found}
    return [name for name in remembered(ledger) if name not in names] if ledger is not None else []


def _listed(
    source: "Source", ledger: Ledger | None, switches: Mapping[str, bool], registry: "Registry"
) -> dict[str, Any]:
    from geo_assets.sources.edits import made_by  # noqa: PLC0415
    from geo_assets.sources.register import LastLook, Register  # noqa: PLC0415

    last, active, outdated = LastLook(), 0, 0
    if ledger is not None:
        register = Register(ledger, source.name)
        last, active, outdated = register.last_look(), register.active(), register.made(made_by(source, registry))
    paused = not switches.get(f"source_{source.name}", not source.paused)
    due = None if last.looked_at is None or paused else last.looked_at + timedelta(seconds=source.every_seconds)
    return {
        "name": source.name,
        "container": source.container,
        "prefix": source.prefix,
        "workflow": source.workflow,
        "paused": paused,
        "everySeconds": source.every_seconds,
        "lookedAt": last.looked_at,
        "seconds": last.seconds,
        "byRun": last.by_run,
        "entries": last.entries,
        "states": _states(ledger, source.name),
        "activeJobs": active,
        "edited": last.definition not in (None, source.definition),
        "outdated": outdated,
        "next": due,
        "error": last.error,
    }


def _states(ledger: Ledger | None, name: str) -> dict[str, int]:
    from geo_assets.sources.standing import Standing, standing_of  # noqa: PLC0415

    counts = dict.fromkeys(Standing, 0) if ledger is None else standing_of(ledger, name)
    return {_STATES.get(state.value, state.value): count for state, count in counts.items()}


def _print_listed(rows: Sequence[dict[str, Any]], found: Sequence["Source"]) -> None:
    from geo_assets.sources.edits import keep_text  # noqa: PLC0415

    states = {_STATES.get(state, state): state for state in ("done", "failed", "at work", "waiting", "refused", "gone")}
    print_table(
        ["source", "watches", "does", "looked at", *(f">{state}" for state in states.values()), "next look"],
        [
            (
                row["name"],
                f"{row['container']}/{row['prefix']}",
                row["workflow"],
                when(row["lookedAt"]) or "never",
                *(row["states"][state] for state in states),
                _next(row, datetime.now(UTC)),
            )
            for row in rows
        ],
    )
    for row, source in zip(rows, found, strict=True):
        edited = "it was changed since it looked last" if row["edited"] else ""
        for told in filter(None, (row["error"], edited, keep_text(source, row["outdated"]))):
            say(f"{source.name}: {told}")


def _next(row: dict[str, Any], now: datetime) -> str:
    due: datetime | None = row["next"]
    if row["paused"]:
        return "when its sensor is switched on"
    if row["error"]:
        return "at each tick, until it is well"
    if due is None:
        return "when Dagster's daemon runs"
    if due > now:
        return when(due)
    if row["byRun"]:
        return "when a run has listed it"
    return "now" if now - due < _LATE else f"overdue since {when(due)}: does Dagster's daemon run?"


# --- check and look ------------------------------------------------------------------------------------------------

NamesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Sources; default: all.", show_default=False)
]


def check_sources_now(
    names: NamesArgument = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="As without: nothing is written.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Names and jobs told of each kind.")] = _SAMPLE,
    as_json: JsonOption = False,
) -> None:
    """List the sources' containers and tell what would match and be done; nothing is written."""
    del dry_run
    _each(names, lambda work, source: _foretell(work, source, limit, as_json=as_json), as_json=as_json, to_look=True)


def look_at_sources(names: NamesArgument = None, *, as_json: JsonOption = False) -> None:
    """Look at the sources' containers now and queue what is new, without waiting for their sensors."""
    _each(names, lambda work, source: _do(work, source, quiet=as_json), as_json=as_json)


@dataclass(frozen=True, kw_only=True)
class _Work:
    machine: CoreMachine
    configured: Sequence[str]
    """Names of all sources there are."""


def _each(
    names: Sequence[str] | None,
    act: Callable[[_Work, "Source"], dict[str, Any]],
    *,
    as_json: bool,
    to_look: bool = False,
) -> None:
    settings = get_settings()
    found, _ = _configured(settings)
    chosen = _chosen(found, names or [])
    if not chosen and not as_json:
        _none_there(settings)
    ends: list[dict[str, Any]] = []
    statuses: list[int] = []
    with open_machine(to_look=to_look) as machine:
        work = _Work(machine=machine, configured=[source.name for source in found])
        for source in chosen:
            try:
                ended = act(work, source)
            except GeoAssetsError as error:
                # the others are told all the same
                message = redact(str(error))
                note(f"{source.name}: {message}")
                statuses.append(exit_status(error))
                ended = {"source": source.name, "error": type(error).__name__, "message": message}
            ends.append(ended)
    if as_json:
        print_json(ends)
    if statuses:
        raise typer.Exit(statuses[0])
    if not all(ended["clean"] for ended in ends):
        raise typer.Exit(FAILED)


def _chosen(found: Sequence["Source"], names: Sequence[str]) -> list["Source"]:
    by_name = {source.name: source for source in found}
    for name in names:
        if name not in by_name:
            raise NotFoundError(f"there is no source '{name}'; there are: {', '.join(by_name) or 'none'}")
    return [by_name[name] for name in dict.fromkeys(names)] if names else list(found)


def _do(work: _Work, source: "Source", *, quiet: bool) -> dict[str, Any]:
    """One look, and turns until nothing is left that may be queued now."""
    from geo_assets.sources.edits import keep_text  # noqa: PLC0415
    from geo_assets.sources.look import look  # noqa: PLC0415
    from geo_assets.sources.turn import turn  # noqa: PLC0415

    looked = look(work.machine, source)
    queued = refused = jobs = 0
    told = ""
    for _ in range(_MOST_TURNS):
        turned = turn(work.machine, source, configured=work.configured)
        queued, refused, jobs, told = (
            queued + turned.queued,
            refused + turned.refused,
            jobs + turned.jobs,
            turned.note,
        )
        if not turned.taken or (told and not turned.queued):
            break
    for text in filter(None, [looked.problem, looked.unread]):
        note(f"{source.name}: {text}")
    if not quiet:
        say(
            f"{source.name}: {looked.seen:,} match: {looked.new:,} new, {looked.changed:,} changed,"
            f" {looked.returned:,} back, {looked.unchanged:,} unchanged; {looked.removed:,} gone."
            f" {_plural(jobs, 'job')} queued, {refused:,} refused, {_waits(max(looked.waiting - queued - refused, 0))}"
            f"{f' ({told})' if told else ''}."
        )
        if keeps := keep_text(source, looked.outdated):
            say(f"{source.name}: {keeps}")
    did = {"queued": queued, "jobs": jobs, "refused": refused, "note": told, "clean": not (refused or looked.problem)}
    return {"source": source.name, **camel_fields(looked), **did}


# --- again ---------------------------------------------------------------------------------------------------------


def make_again(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A source.")],
    *,
    outdated: Annotated[bool, typer.Option("--outdated", help="Only what other parameters made.")] = False,
    really: Annotated[
        bool, typer.Option("--execute", help="Let them wait; without this, only show how many would.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Let entries that have become jobs wait again, so that coming ticks queue them as the source is now."""
    from geo_assets.sources.edits import made_by  # noqa: PLC0415
    from geo_assets.sources.register import Register  # noqa: PLC0415

    found, registry = _configured(get_settings())
    (source,) = _chosen(found, [name])
    other_than = made_by(source, registry) if outdated else None
    entries = 0
    with existing_ledger() as ledger:
        if ledger is not None:
            register = Register(ledger, source.name)
            entries = register.wait_again(other_than) if really else register.made(other_than)
    if as_json:
        print_json({"source": source.name, "executed": really, "outdated": outdated, "entries": entries})
        return
    which = " that other parameters made" if outdated else ""
    do = "would wait" if not really else "waits" if entries == 1 else "wait"
    say(f"{source.name}: {entries:,} {'entry' if entries == 1 else 'entries'}{which} {do} again")
    if not really:
        note("nothing was changed; add --execute to let coming ticks queue them")


# --- forget --------------------------------------------------------------------------------------------------------


def forget_source(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A source that is configured no more.")],
    *,
    really: Annotated[
        bool, typer.Option("--execute", help="Forget it; without this, only show what would be forgotten.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget what a source saw that is configured no more; nothing that was made of it is touched."""
    from geo_assets.sources.register import forget, remembered  # noqa: PLC0415

    if name in {source.name for source in _configured(get_settings())[0]}:
        raise ParameterError(
            f"the source '{name}' is configured, and would begin anew: take it away, or rename it, before you forget it"
        )
    with existing_ledger() as ledger:
        known = remembered(ledger) if ledger is not None else []
        if ledger is None or name not in known:
            left = ", ".join(known) or "none"
            raise NotFoundError(f"nothing is remembered of a source '{name}'; those that saw something: {left}")
        states = _states(ledger, name)
        entries = forget(ledger, name) if really else sum(states.values())
    if as_json:
        print_json({"source": name, "executed": really, "entries": entries, "states": states})
        return
    words = {short: word for word, short in _STATES.items()}
    found = ", ".join(f"{count:,} {words.get(state, state)}" for state, count in states.items() if count)
    what = f"{entries:,} {'entry' if entries == 1 else 'entries'}"
    say(f"{name}: {'forgot' if really else 'would forget'} {what}{f' ({found})' if found else ''}")
    if not really:
        note("nothing was changed; add --execute to forget them")


# --- what would be ---------------------------------------------------------------------------------------------------


def _foretell(work: _Work, source: "Source", limit: int, *, as_json: bool) -> dict[str, Any]:
    from geo_assets.sources.preview import preview  # noqa: PLC0415

    found = preview(work.machine, source, sample=limit, configured=work.configured)
    if not as_json:
        _print_preview(work.machine.settings, found)
    return {**camel_fields(found), "source": source.name, "seen": found.seen, "clean": found.is_clean}


def _print_preview(settings: Settings, found: "Preview") -> None:
    from geo_assets.sources.edits import keep_text  # noqa: PLC0415

    source = found.source
    say(f"{source.name}: {source.workflow} of {_what(found)} '{source.container}/{source.prefix}'")
    rows = [
        ("match", _by_kind(found.matched)),
        ("do not match", _by_kind(found.unmatched) + _such_as(found.unmatched_sample)),
        (
            "since the last look",
            f"{found.new:,} new, {found.changed:,} changed, {found.returned:,} back, {found.unchanged:,} unchanged,"
            f" {found.removed:,} gone" + (f", {found.dropped:,} match no more" if found.dropped else ""),
        ),
        ("would be queued", _queued(settings, found)),
    ]
    if keeps := keep_text(source, found.outdated):
        rows.append(("and", keeps))
    if found.waiting:
        rows.append(("seen before and not queued yet", f"{found.waiting:,}"))
    for label, text in rows:
        say(f"  {label}: {text}")
    _print_named("incomplete", found.incomplete, found.incomplete_sample)
    _print_named("refused", found.refused, found.refused_sample)
    _print_named("same partition", found.collisions, found.collision_sample)
    if found.problem:
        note(f"{source.name}: {found.problem}")
    if found.over_keys_limit:
        note(
            f"{source.name}: {found.over_keys_limit:,} partition keys more than GEO_ASSETS_PARTITION_KEYS_LIMIT:"
            " pages of its assets will be slow; watch less of the container, or summarise it"
        )
    for job in found.job_sample:
        say(f"  {job.name}\n    {job.partition}: {json.dumps(job.parameters, ensure_ascii=False)}")
    note(f"{source.name}: nothing was written")


def _what(found: "Preview") -> str:
    return "the container" if found.grain == "container" else "each match in"


def _such_as(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""


def _by_kind(kinds: dict[str, int]) -> str:
    return f"{sum(kinds.values()):,}" + (
        f" ({', '.join(f'{count:,} {kind}' for kind, count in kinds.items())})" if kinds else ""
    )


def _queued(settings: Settings, found: "Preview") -> str:
    source = found.source
    parts = [
        f"{_plural(found.jobs + found.untried, 'job')} in {_plural(found.waves, 'wave')} of {settings.wave_size:,}"
    ]
    if found.untried:
        parts.append(f"{found.untried:,} of them not tried against the rules")
    if source.stable_seconds:
        parts.append(f"each once it is {source.stable_seconds:g} s unchanged")
    if found.jobs + found.untried > source.max_active:
        parts.append(f"at most {source.max_active:,} at a time")
    if source.per_minute is not None:
        parts.append(f"at most {source.per_minute:,} a minute")
    if source.paused:
        parts.append("when its sensor is switched on")
    return ", ".join(parts)


def _print_named(title: str, count: int, sample: Iterable["Named"]) -> None:
    if count:
        say(f"  {title}: {count:,}")
        for one in sample:
            say(f"    {one.name}: {one.reason}")


def _waits(count: int) -> str:
    return f"{count:,} wait{'s' if count == 1 else ''}"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
