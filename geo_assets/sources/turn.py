"""A turn: what waits in a source's register becomes queued jobs, in the order in which it was seen.

What belongs here: :func:`turn`.  What does not: seeing (``look``), the jobs' parameters (``rules``), and running them
(``coremachine.dispatch`` puts them into waves).

An entry's mark and its job's place in the queue are written in one transaction, which checks that the entry still is
as it was read.  So a daemon that dies has queued an entry or has not, and two that tick at once queue it once.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from sqlalchemy.engine import Connection

from geo_assets.coremachine.binding import Binding, binding_for
from geo_assets.coremachine.ledger import BULK_PRIORITY, NewJob
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import prepare
from geo_assets.errors import (
    AccessDeniedError,
    LookOvertakenError,
    NotFoundError,
    ParameterError,
    TransientError,
    UnsupportedNameError,
)
from geo_assets.redaction import redact
from geo_assets.sources.deadline import answers_until
from geo_assets.sources.edits import made_by
from geo_assets.sources.register import AGAIN, Entry, EntryState, LastLook, Mark, Register
from geo_assets.sources.rules import grain, parameters_for
from geo_assets.sources.source import Source

__all__ = ["SUBMITTED_BY", "Turned", "turn"]

SUBMITTED_BY = "source"
"""What the ledger says of who submitted a job."""
_CHUNK = 1000
"""Jobs a transaction; the ledger's own number."""
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Turned:
    """What one turn did; everything taken was queued, refused or missing."""

    taken: int = 0
    """Entries whose turn it was."""
    queued: int = 0
    refused: int = 0
    missing: int = 0
    """Not there any more, or not to be read now; they wait, and keep nobody else."""
    problem: str = ""
    """What one of the missing ones met."""
    jobs: int = 0
    """Jobs submitted: one an entry, or one for the container."""
    note: str = ""
    """Why more did not get their turn, where something holds them back."""

    @property
    def settled(self) -> int:
        """Entries that wait no more."""
        return self.queued + self.refused


def turn(
    machine: CoreMachine,
    source: Source,
    *,
    limit: int = 5000,
    seconds: float = 20.0,
    configured: Collection[str] | None = None,
) -> Turned:
    """Queue what waits, complete and stable.

    Args:
        machine: the parts; datasets of several blobs are asked about in ``blobs``.
        source: which.
        limit: most entries.
        seconds: after which no more are begun with.
        configured: names of the sources there are; ``None``: all that ever left something (``register``).

    Raises:
        UnknownJobTypeError: there is no such workflow.
        ParameterError: the workflow can be given neither a blob nor a container.
        TransientError: the ledger cannot be reached, or somebody else was faster; what was not queued waits.
    """
    register = Register(machine.ledger, source.name, configured=configured)
    last = register.last_look()
    if last.definition != source.definition:
        return Turned(note="what waits is looked at first, as the source was changed" if last.definition else "")
    binding = binding_for(machine.registry, source.workflow)
    room, note = _room(register, source, limit)
    if room <= 0:
        return Turned(note=note)
    work = _Turn(machine, source, binding, register, last)
    done = work.container() if grain(source, binding) == "container" else work.entries(room, time.monotonic() + seconds)
    return replace(done, note=done.note or (note if done.settled >= room else ""))


def _room(register: Register, source: Source, limit: int) -> tuple[int, str]:
    """How many entries may be queued, and what keeps it from being more."""
    rooms = [
        (limit, f"{limit:,} are queued at once"),
        (source.max_active - register.active(), f"max_active is {source.max_active:,}"),
    ]
    if source.per_minute is not None:
        recent = register.queued_since(datetime.now(UTC) - timedelta(minutes=1))
        rooms.append((source.per_minute - recent, f"per_minute is {source.per_minute:,}"))
    # of equal ones that which somebody set
    return min(reversed(rooms), key=lambda room: room[0])


@dataclass(frozen=True)
class _NoJob:
    """Why there is no job of an entry: for good, until it changes, or now."""

    reason: str
    for_good: bool


class _Turn:
    """One turn under way."""

    def __init__(
        self, machine: CoreMachine, source: Source, binding: Binding, register: Register, last: LastLook
    ) -> None:
        self.machine, self.source, self.binding, self.register = machine, source, binding, register
        self.sequence = last.sequence
        self.made_by = made_by(source, machine.registry)
        self.seen_before: datetime | None = None
        if source.stable_seconds:
            # seen then, and seen the same by a look so much later
            looked = last.looked_at or datetime.min.replace(tzinfo=UTC) + timedelta(days=366)
            self.seen_before = looked - timedelta(seconds=min(source.stable_seconds, 366 * 86_400))

    # --- a job an entry ----------------------------------------------------------------------------------------

    def entries(self, room: int, until: float) -> Turned:
        done = Turned()
        # what is done anew shall not hold up what is new
        for again in (False, True):
            done = self._entries(room, until, done, again=again)
        return done

    def _entries(self, room: int, until: float, done: Turned, *, again: bool) -> Turned:
        after = 0
        while done.settled < room and time.monotonic() < until:
            limit = min(_CHUNK, room - done.settled)
            some = self.register.ready(seen_before=self.seen_before, again=again, after=after, limit=limit)
            if not some:
                return done
            after = some[-1].sequence
            done = self._queue(some, done, until)
        late = time.monotonic() >= until
        return replace(done, note="the rest is for the next tick") if late else done

    def _queue(self, entries: Sequence[Entry], done: Turned, until: float) -> Turned:
        # a dataset of several blobs takes the store some requests, which it may never answer
        several = [entry for entry in entries if not entry.is_single_blob]
        asked = answers_until(self._prepared, several, until, at_once=_AT_ONCE)
        in_time = [entry for entry in entries if entry.is_single_blob or entry in asked]
        prepared = [(entry, asked[entry] if entry in asked else self._prepared(entry)) for entry in in_time]
        jobs, marks = self._without_rivals(prepared)
        if marks:
            self._write(jobs, marks)
        missing = [new.reason for _, new in prepared if isinstance(new, _NoJob) and not new.for_good]
        return Turned(
            taken=done.taken + len(in_time),
            queued=done.queued + len(jobs),
            refused=done.refused + len(marks) - len(jobs),
            missing=done.missing + len(missing),
            problem=done.problem or next(iter(missing), ""),
            jobs=done.jobs + len(jobs),
        )

    def _prepared(self, entry: Entry) -> NewJob | _NoJob:
        """The job of an entry."""
        try:
            new = prepare(
                self.machine,
                self.binding,
                parameters_for(self.source, self.binding, entry.name),
                force=entry.again == AGAIN,
                priority=BULK_PRIORITY,
                submitted_by=SUBMITTED_BY,
                # ten thousand questions to the store would outlast a tick; the listing has said it
                source_version=entry.version if entry.is_single_blob else None,
                source=self.source.name,
            )
        except (ParameterError, UnsupportedNameError) as error:
            return _NoJob(redact(str(error))[:1000], for_good=True)
        except (NotFoundError, AccessDeniedError, TransientError) as error:
            return _NoJob(redact(str(error))[:300], for_good=False)
        return replace(new, source_version=new.source_version or entry.version)

    def _without_rivals(self, prepared: Sequence[tuple[Entry, NewJob | _NoJob]]) -> tuple[list[NewJob], list[Mark]]:
        """Jobs and marks; of names that would make the same partition, the first keeps it."""
        keys = [new.partition_key for _, new in prepared if isinstance(new, NewJob)]
        holders = {key: set(names) for key, names in self.register.holders(self.binding.asset, keys).items()}
        jobs: list[NewJob] = []
        marks: list[Mark] = []
        for entry, new in prepared:
            before = {"asset": entry.asset, "partition_key": entry.partition_key}
            if isinstance(new, _NoJob):
                if new.for_good:
                    marks.append(Mark(entry=entry, state=EntryState.REFUSED, reason=new.reason, **before))
                continue
            own = {"asset": new.asset, "partition_key": new.partition_key}
            others = holders.setdefault(new.partition_key, set()) - {entry.name}
            if others:
                first = min(others)
                reason = f"'{first}' has its partition {new.partition_key} already: rename one, or set a parameter"
                kept = own if entry.submitted_version is None else before
                marks.append(Mark(entry=entry, state=EntryState.REFUSED, reason=reason, **kept))
                continue
            holders[new.partition_key].add(entry.name)
            jobs.append(new)
            marks.append(Mark(entry=entry, state=EntryState.QUEUED, **own))
        return jobs, marks

    def _write(self, jobs: Sequence[NewJob], marks: Sequence[Mark]) -> None:
        now = datetime.now(UTC)
        if jobs:
            self.machine.ledger.submit(jobs, also=lambda c, _: self.register.mark_in(c, marks, now, self.made_by))
        else:
            self.machine.ledger.write(lambda c: self.register.mark_in(c, marks, now, self.made_by))

    # --- one job for the container -----------------------------------------------------------------------------

    def container(self) -> Turned:
        """One job whatever has changed; it reads the container itself."""
        if not self.register.changed_container(seen_before=self.seen_before):
            return Turned()
        new = prepare(
            self.machine,
            self.binding,
            parameters_for(self.source, self.binding, ""),
            priority=BULK_PRIORITY,
            submitted_by=SUBMITTED_BY,
            source_version=f"{self.source.name} {self.sequence}",
            source=self.source.name,
        )
        taken = 0

        def mark(c: Connection, _: object) -> None:
            nonlocal taken
            taken = self.register.mark_container_in(
                c,
                seen_before=self.seen_before,
                sequence=self.sequence,
                asset=new.asset,
                partition_key=new.partition_key,
                made_by=self.made_by,
            )

        try:
            self.machine.ledger.submit([new], also=mark)
        except LookOvertakenError as error:
            return Turned(note=str(error))
        return Turned(taken=taken, queued=taken, jobs=1)
