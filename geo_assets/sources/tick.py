"""One tick of a source: a look if one is due, then a turn, and a sentence on both.

What belongs here: :func:`tick`, for the source's sensor and whoever has none.  What does not: Dagster
(``assets.source_sensors``), and the two halves (``look``, ``turn``).

A tick may die after any line and be repeated, by this process or another.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import (
    GeoAssetsError,
    LedgerUnavailableError,
    LookOvertakenError,
    LookTooLongError,
    TransientError,
)
from geo_assets.redaction import redact
from geo_assets.sources.edits import keep_text, made_by
from geo_assets.sources.listings import ask_for_listing, listing_of, seconds_taken, was_lost
from geo_assets.sources.look import Look, look, with_loss
from geo_assets.sources.register import EntryState, LastLook, Register
from geo_assets.sources.source import Source
from geo_assets.sources.turn import Turned, turn

__all__ = ["Ticked", "tick"]

_TICK_SECONDS = 50.0
"""How long a look and a turn may take together; Dagster ends a tick after 60."""
_TURN_SECONDS = 20.0
_YEAR = 366.0 * 86_400
_REST = 10
"""How many times as long as a listing by a run took there is none, so that it takes a tenth of the time at most."""


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What one tick did."""

    text: str
    """One line for people: what was seen, what was queued, what waits and why."""
    looked: bool
    """Whether the container was compared, so that the next look is not due at once."""
    look: Look | None
    turned: Turned
    counts: dict[EntryState, int]
    sequence: int
    problem: str = ""
    """Why the container cannot be looked at, or is not believed; it stands until a look finds it well."""
    noted: bool = False
    """Whether something is wrong, or under way."""

    @property
    def is_quiet(self) -> bool:
        """Whether nobody needs to read the text."""
        return not (self.changed or self.noted or self.counts[EntryState.WAITING])

    @property
    def changed(self) -> bool:
        """Whether anything is to be told."""
        return bool((self.look is not None and self.look.found_something) or self.turned.queued or self.turned.refused)


def tick(
    machine: CoreMachine, source: Source, *, due: bool = True, configured: Collection[str] | None = None
) -> Ticked:
    """Look if a look is due, then queue what waits.

    What goes wrong with the container is in the text: what waits is queued all the same.

    Args:
        machine: the parts.
        source: which.
        due: whether it is time for a look; a source that looks by runs decides that itself, and what waits to be
            stable may need one before.
        configured: names of the sources there are; ``None``: all that ever left something (``register``).

    Raises:
        LedgerUnavailableError: nothing can be done without it.
        ParameterError: the workflow cannot be given what the source sees.
    """
    began = time.monotonic()
    texts: list[str] = []
    found, looked = _look(machine, source, texts, due=due)
    left = min(_TURN_SECONDS, began + _TICK_SECONDS - time.monotonic())
    if found is not None and found.postponed and not found.seen:
        turned = Turned(note="nothing is queued while nothing is there")
    else:
        turned = _turn(machine, source, texts, seconds=left, configured=configured)
    register = Register(machine.ledger, source.name)
    counts = register.counts()
    texts += _what_waits(register, source, counts, turned)
    last = register.last_look()
    if last.error and not any(last.error in text for text in texts):
        texts.append(last.error)
    # told while it lasts, and logged when it begins
    keeps = keep_text(source, _outdated(machine, register, source, found, last))
    begins = bool(keeps and found is not None and found.redefined)
    return Ticked(
        text="; ".join([*texts, keeps] if keeps else texts),
        looked=looked,
        look=found,
        turned=turned,
        counts=counts,
        sequence=last.sequence,
        problem=last.error or "",
        noted=begins or (bool(found.unread) if found is not None else bool(texts)),
    )


def _outdated(machine: CoreMachine, register: Register, source: Source, found: Look | None, last: LastLook) -> int:
    """How many entries keep what other parameters made; nothing where it was not looked."""
    if found is not None:
        return found.outdated
    return register.made(made_by(source, machine.registry)) if last.by_run else 0


def _look(machine: CoreMachine, source: Source, texts: list[str], *, due: bool) -> tuple[Look | None, bool]:
    """What a look found, and whether the next one may wait."""
    try:
        last = Register(machine.ledger, source.name).last_look()
        if last.by_run:
            return None, _by_run(machine, source, last, texts)
        if not due and not _ripens(machine, source, last):
            return None, False
        found = look(machine, source, seconds=machine.settings.look_seconds)
    except LookTooLongError as error:
        ask_for_listing(machine, source)
        texts.append(f"{error} (GEO_ASSETS_LOOK_SECONDS); a run lists it from now on")
        return None, True
    except LookOvertakenError as error:
        texts.append(str(error))
        return None, False
    except LedgerUnavailableError:
        raise
    except GeoAssetsError as error:
        texts.append(redact(f"the container '{source.container}' cannot be looked at, so nothing is changed: {error}"))
        return None, True
    texts.append(_what_was_seen(found))
    texts += filter(None, [found.problem, found.unread])
    return found, not found.unwritten


def _ripens(machine: CoreMachine, source: Source, last: LastLook) -> bool:
    """Whether something waits only for a look that finds it unchanged; looks take a tenth of the time at most."""
    if not source.stable_seconds or last.looked_at is None:
        return False
    now, stable = datetime.now(UTC), timedelta(seconds=min(source.stable_seconds, _YEAR))
    if now - last.looked_at < max(stable, timedelta(seconds=_REST * (last.seconds or 0))):
        return False
    register = Register(machine.ledger, source.name)
    return register.has_waiting(after=last.looked_at - stable, upto=now - stable)


def _by_run(machine: CoreMachine, source: Source, last: LastLook, texts: list[str]) -> bool:
    """Ask for a listing where none is under way and one is due."""
    job = listing_of(machine, source, last)
    if job is not None and not job.status.is_terminal:
        texts.append(f"a run lists the container '{source.container}' (job {job.job_id[:12]}, {job.status.value})")
        return True
    error = last.error
    if job is not None and job.status in (JobStatus.FAILED, JobStatus.CANCELLED):
        why = job.error_details or job.reason or "no reason is known"
        error = redact(f"the last listing of the container '{source.container}' is {job.status.value}: {why[:300]}")
        error = with_loss(error, last.error)
    if error != last.error:
        Register(machine.ledger, source.name).note(error=error)
    if error:
        texts.append(error)
    ended = last.looked_at if job is None else max(filter(None, [last.looked_at, job.completed_at]), default=None)
    # what is listed by runs takes at least half the time that a tick has, failed listings included
    took = max(seconds_taken(job), last.seconds or 0, machine.settings.look_seconds / 2)
    rest = timedelta(seconds=max(source.every_seconds, _REST * took))
    soon = timedelta(seconds=_REST * took)
    rested = ended is None or datetime.now(UTC) - ended >= (soon if _ripens(machine, source, last) else rest)
    if job is None or rested or was_lost(machine, source, last, job):
        asked = ask_for_listing(machine, source)
        texts.append(f"a run is asked to list the container '{source.container}' (job {asked[:12]})")
    elif last.looked_at is not None:
        texts.append(
            f"a run listed the container '{source.container}' at {last.looked_at:%Y-%m-%d %H:%M:%S} UTC; one does so"
            f" again after {rest.total_seconds():.0f} s"
        )
    return True


def _turn(
    machine: CoreMachine, source: Source, texts: list[str], *, seconds: float, configured: Collection[str] | None
) -> Turned:
    try:
        turned = turn(machine, source, seconds=seconds, configured=configured)
    except LedgerUnavailableError:
        raise
    except TransientError as error:  # another daemon was faster
        texts.append(redact(str(error)))
        return Turned()
    if turned.taken:
        texts.append(_what_was_done(turned))
    return turned


def _what_was_seen(found: Look) -> str:
    if not found.found_something:
        return f"nothing new among {found.seen:,} in {found.seconds:.1f} s"
    counted = {name: getattr(found, name) for name in ("new", "changed", "returned", "removed", "dropped", "unwritten")}
    what = ", ".join(f"{count:,} {name}" for name, count in counted.items() if count)
    return f"{what} among {found.seen:,} in {found.seconds:.1f} s"


def _what_was_done(turned: Turned) -> str:
    jobs = "" if turned.jobs == turned.queued else f" in {_number(turned.jobs, 'job')}"
    done = [f"{turned.queued:,} queued{jobs}"] if turned.queued else []
    done += [f"{turned.refused:,} refused now"] if turned.refused else []
    done += [f"{turned.missing:,} cannot be read now ({turned.problem})"] if turned.missing else []
    return ", ".join(done)


def _what_waits(register: Register, source: Source, counts: dict[EntryState, int], turned: Turned) -> list[str]:
    texts = []
    if waiting := counts[EntryState.WAITING]:
        verb = "waits" if waiting == 1 else "wait"
        texts.append(f"{waiting:,} {verb}{_why(register, source, waiting, turned)}")
    others = [f"{counts[state]:,} {state.value}" for state in (EntryState.REFUSED, EntryState.GONE) if counts[state]]
    return [*texts, f"in all {', '.join(others)}"] if others else texts


def _why(register: Register, source: Source, waiting: int, turned: Turned) -> str:
    incomplete = register.incomplete()
    first = next((one for one in register.held(limit=1) if one.reason), None) if incomplete else None
    why = []
    if first is not None:
        rest = f", and {incomplete - 1:,} more for parts beside them" if incomplete > 1 else ""
        why.append(f"'{first.name}' {first.reason}{rest}")
    if turned.note:
        why.append(turned.note)
    elif source.stable_seconds and waiting > incomplete:
        why.append(f"until seen unchanged for {source.stable_seconds:g} s")
    return f" ({'; '.join(why)})" if why else ""


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
