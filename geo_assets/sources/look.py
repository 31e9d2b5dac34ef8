"""A look: what a container holds now against what its source saw last, and only the difference written down.

What belongs here: :func:`look`, for a container that is listed now and for a listing that a run has written.  What does
not: comparing (``comparison``), asking for such a run (``listings``), and what becomes of what was found (``turn``,
``removal``).

Nothing depends on seeing every change: a look compares states, so one that failed, or died halfway, is made good by the
next.  One that finds nothing new writes when it was, once a minute at most.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.containers.kinds import stem
from geo_assets.containers.listing_store import ListingInfo
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, LedgerUnavailableError, LookOvertakenError, LookTooLongError
from geo_assets.redaction import redact
from geo_assets.sources.comparison import Comparison
from geo_assets.sources.register import BATCH, ELSEWHERE, OUTDATED, SETTLED, EntryState, Register, Seen
from geo_assets.sources.rules import grain_of
from geo_assets.sources.source import Source
from geo_assets.stores.blobs import UNREADABLE_FOLDER

__all__ = ["Look", "doubt_of", "is_of_a_look", "look", "seen_of", "standing_asset", "with_loss"]

_WRITE_SECONDS = 10.0
"""How long a look that has a limit may write; the next one writes the rest."""
_SECONDS = 48.0
"""How long such a look may take in all."""
_MANY = 100
"""Entries that do not vanish at once, where they are half of all or more, without a look much later."""
_AGREES_AFTER = timedelta(minutes=15)
_AGREES_AFTER_LOOKS = 10
_AGREES_WITHIN = timedelta(days=1)
"""How much later: so many minutes, or so many looks where that is longer, but a day at most."""
_STALE = timedelta(seconds=45)
"""Age at which the time of the latest look is written though nothing was new: of one a minute, each time."""
_MOMENT = "%Y-%m-%d %H:%M:%S"
_EARLY = timedelta(seconds=30)
"""How much earlier than ``every`` after the one before a look may come."""
_SUDDENLY = re.compile(
    r"the container '[^']+' is suddenly .*? since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC;.*? finds the same"
)
_OF_A_LOOK = re.compile(rf"container '[^']+': {UNREADABLE_FOLDER}|{_SUDDENLY.pattern}")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look found; ``seen == new + changed + returned + unchanged + unwritten``."""

    seen: int = 0
    """Entries that match."""
    new: int = 0
    changed: int = 0
    returned: int = 0
    """Gone before, and back."""
    unchanged: int = 0
    unwritten: int = 0
    """New or changed, and left to the next look, as there was no time to write more."""
    removed: int = 0
    """No longer there."""
    dropped: int = 0
    """There, but matching no more."""
    postponed: int = 0
    """No longer there, it seems; a look much later has to agree."""
    problem: str = ""
    """Why not all that was seen, or not seen, is believed: an unreadable folder, or a sudden loss."""
    unread: str = ""
    """Which other folders cannot be read; nothing is remembered of them."""
    waiting: int = 0
    refused: int = 0
    gone: int = 0
    """All entries in these states after the look; of one at names with a prefix they are not counted."""
    outdated: int = 0
    """Entries that keep what other parameters made."""
    redefined: bool = False
    """Whether the source is another than at the last look."""
    seconds: float = 0.0
    sequence: int = 0

    @property
    def found_something(self) -> bool:
        """Whether anything differed."""
        return bool(self.new or self.changed or self.returned or self.removed or self.dropped)


def look(
    machine: CoreMachine,
    source: Source,
    *,
    prefix: str = "",
    seconds: float | None = None,
    listing: ListingInfo | None = None,
    listed_from: datetime | None = None,
    listing_seconds: float = 0.0,
) -> Look:
    """Compare a source's container with what is remembered of it.

    Args:
        machine: the parts; of the services, ``blobs`` or ``listings``.
        source: which.
        prefix: look only at names, and datasets with names, that start with this.
        seconds: how long listing, and reading what is remembered, may take.
        listing: read this one instead of the container.
        listed_from: when that listing began; what was seen since is left as it is.
        listing_seconds: how long that listing took, by which the next look reads such a one, too, or does not.

    Raises:
        LookTooLongError: listing took too long; nothing was written.
        LookOvertakenError: another look was faster; the next one finds what this one did not write.
        GeoAssetsError: as the store's ``list_blobs``; no entry was touched, and the error is on record.
    """
    register = Register(machine.ledger, source.name)
    before = register.last_look()
    whole = len(prefix) <= len(source.prefix)
    if not whole and before.definition != source.definition:
        return Look(sequence=before.sequence)  # the first look is at all there is
    with ExitStack() as stack:
        work = Comparison(register, source, before, prefix="" if whole else prefix)
        work.open(stack, machine)
        try:
            work.read_container(machine, seconds) if listing is None else work.read_listing(machine, listing)
        except (LookTooLongError, LedgerUnavailableError, LookOvertakenError):
            raise
        except GeoAssetsError as error:
            text = with_loss(redact(str(error))[:1000], before.error)
            if whole and before.error != text:
                register.note(error=text)
            raise
        work.leave_alone(register.touched_since(listed_from) if listed_from is not None else [])
        missed = stack.enter_context(Buckets(machine.settings.scratch_path, stem()))
        takes = listing_seconds + work.known_seconds
        # what takes less than half the time that a tick has is done in one again
        by_run = before.by_run if listing is None else takes >= machine.settings.look_seconds / 2
        asset = standing_asset(machine, source)
        writing = _Writing(work, by_run=by_run, asset=asset, takes=None if listing is None else takes)
        return writing.write(missed, limited=seconds is not None)


class _Writing:
    """What a comparison finds, written down."""

    def __init__(self, work: Comparison, *, by_run: bool, asset: str | None, takes: float | None) -> None:
        self.work, self.register, self.source, self.before = work, work.register, work.source, work.before
        self.by_run, self.asset, self.takes = by_run, asset, takes
        self.sequence = work.before.sequence
        self.counts: dict[str, int] = {}
        self.write_until: float | None = None
        self.problem = ""

    def write(self, missed: Buckets, *, limited: bool) -> Look:
        if limited:
            self.write_until = min(time.monotonic() + _WRITE_SECONDS, self.work.clock + _SECONDS)
        live = vanished = 0
        for found in self.work.differences():
            dropped = int(found.missed["_dropped"].sum())
            live += found.known.filter(pl.col("state") != EntryState.GONE.value).height - dropped
            vanished += found.missed.height - dropped
            self._count("seen", found.matching.height)
            self._count("unchanged", found.matching.height - found.changes.height)
            for made in (OUTDATED, SETTLED):
                self._count(made, found.unchanged(made).height)
            self._write_seen(found.changes)
            if found.missed.height:
                missed.add(found.missed)
        self._count("seen", 0)
        doubt = doubt_of(self.work, vanished, live)
        self.problem = "; ".join(filter(None, [doubt, redact(self.work.problem)[:1000]]))
        self._write_missed(missed, with_gone=not doubt)
        if self.counts.get(SETTLED):
            self.register.settle(self.work.made_by)
        return self._conclude(postponed=vanished if doubt else 0)

    def _write_seen(self, found: pl.DataFrame) -> None:
        for batch in found.iter_slices(BATCH):
            if self._late():
                self._count("unwritten", batch.height)
                continue
            seen = [seen_of(row) for row in batch.iter_rows(named=True)]
            now = datetime.now(UTC)
            self.sequence = self.register.write_seen(seen, expected=self.sequence, now=now, asset=self.asset)
            for change, count in batch["change"].value_counts().iter_rows():
                self._count(change, count)

    def _write_missed(self, missed: Buckets, *, with_gone: bool) -> None:
        for frame in _each(missed):
            dropped, gone = frame.filter("_dropped"), frame.filter(~pl.col("_dropped") & pl.lit(with_gone))
            for bad in (False, True):
                for batch in dropped.filter(pl.col("_bad") == bad).iter_slices(BATCH):
                    if self._left_to_the_next(batch):
                        continue
                    self.sequence = self.register.drop(batch["name"].to_list(), expected=self.sequence, problem=bad)
                    self._count("dropped", batch.height)
                for batch in gone.filter(pl.col("_bad") == bad).iter_slices(BATCH):
                    if self._left_to_the_next(batch):
                        continue
                    now, names = datetime.now(UTC), batch["name"].to_list()
                    self.sequence = self.register.write_gone(names, expected=self.sequence, now=now, problem=bad)
                    self._count("removed", batch.height)

    def _left_to_the_next(self, batch: pl.DataFrame) -> bool:
        if batch.height and self._late():
            self._count("unfinished", batch.height)
        return not batch.height or self._late()

    def _late(self) -> bool:
        return self.write_until is not None and time.monotonic() > self.write_until

    def _conclude(self, *, postponed: int) -> Look:
        result = self._result(postponed=postponed)
        finished = not (result.unwritten or self.counts.get("unfinished"))
        if self.work.prefix:
            return result
        if finished and self._worth_writing(result):
            self.register.note(
                looked_at=self.work.began,
                # of one by a run what it always takes, not what it wrote this time
                seconds=result.seconds if self.takes is None else round(self.takes, 3),
                entries=result.seen,
                definition=self.source.definition,
                error=self.problem or None,
                by_run=self.by_run,
            )
        elif self.problem and self.problem != self.before.error:
            self.register.note(error=self.problem)
        return result

    def _worth_writing(self, result: Look) -> bool:
        before = self.before
        now = (self.source.definition, self.problem or None, self.by_run)
        same = (before.definition, before.error, before.by_run) == now
        fresh = before.looked_at is not None and self.work.began - before.looked_at < _STALE
        # what waits to be stable is measured by when it was looked at last
        waits = bool(result.waiting and self.source.stable_seconds)
        return result.found_something or waits or self.by_run or not (same and fresh)

    def _result(self, *, postponed: int) -> Look:
        # a look at few names is not to read all that is remembered
        states = dict.fromkeys(EntryState, 0) if self.work.prefix else self.register.counts()
        names = ("seen", "new", "changed", "returned", "unchanged", "unwritten", "removed", "dropped")
        return Look(
            **{name: self.counts.get(name, 0) for name in names},
            postponed=postponed,
            problem=self.problem,
            unread=redact(self.work.unread)[:1000],
            waiting=states[EntryState.WAITING],
            refused=states[EntryState.REFUSED],
            gone=states[EntryState.GONE],
            outdated=self.counts.get(OUTDATED, 0),
            redefined=self.work.redefined,
            seconds=round(time.monotonic() - self.work.clock, 3),
            sequence=self.sequence,
        )

    def _count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


def doubt_of(work: Comparison, vanished: int, live: int) -> str:
    """Why what vanished does not count as gone yet; empty: it does.

    Args:
        work: the comparison that found it.
        vanished: how many entries are not there.
        live: how many were there before, but for those that match no more.
    """
    if work.prefix or vanished <= _MANY or vanished * 2 < live:
        return ""
    source = work.source
    noted = _SUDDENLY.search(work.before.error or "")
    first = datetime.strptime(noted[1], _MOMENT).replace(tzinfo=UTC) if noted else work.began
    since = min(first, work.began)
    looks = timedelta(seconds=min(_AGREES_AFTER_LOOKS * source.every_seconds, _AGREES_WITHIN.total_seconds()))
    until = since + max(_AGREES_AFTER, looks)
    if work.began >= until - _EARLY:
        return ""
    below = f" below '{source.prefix}'" if source.prefix else ""
    what = "empty" if vanished == live else "half empty"
    return (
        f"the container '{source.container}' is suddenly {what}{below}: of {live:,} entries"
        f" {'none is there' if vanished == live else f'{vanished:,} are not there'}, since {since:{_MOMENT}} UTC;"
        f" they count as gone when a look after {until:{_MOMENT}} UTC finds the same"
    )


def is_of_a_look(error: str | None) -> bool:
    """Whether what is on record as an error is the :attr:`~Look.problem` of a look that was made."""
    return _OF_A_LOOK.match(error or "") is not None


def with_loss(error: str, before: str | None) -> str:
    """An error to be on record, with the sudden loss of the one before: since when that is must not be forgotten."""
    noted = _SUDDENLY.search(before or "")
    return error if noted is None or noted[0] in error else f"{error}; {noted[0]}"


def standing_asset(machine: CoreMachine, source: Source) -> str | None:
    """What a source's workflow makes of single blobs; ``None``: it is about whole containers, or unknown."""
    binding = machine.registry.get(source.workflow)
    return None if binding is None or grain_of(binding) == "container" else binding.asset


def seen_of(row: dict[str, object]) -> Seen:
    """What is written down of a row of :attr:`~geo_assets.sources.comparison.Differences.changes`."""
    problem, missing = row["problem"], row["missing"]
    reason = str(problem) if problem is not None else f"waits for {missing} beside it" if missing else None
    return Seen(
        name=str(row["name"]),
        version=str(row["version"]),
        size=int(row["size"]),  # type: ignore[call-overload]
        last_modified=row["last_modified"],  # type: ignore[arg-type]
        state=EntryState.WAITING if problem is None else EntryState.REFUSED,
        reason=reason,
        edited=row["made"] == ELSEWHERE,
        returned=row["change"] == "returned",
    )


def _each(buckets: Buckets) -> Iterator[pl.DataFrame]:
    for bucket in range(buckets.count) if buckets.spilled else [None]:
        frame = buckets.read(bucket)
        if frame is not None:
            yield frame
