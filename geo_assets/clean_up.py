"""Removing what nobody needs any more: old runs and events, tasks, attempts, listings, leftovers, partition keys.

What belongs here: how long things are kept, in which order they go, and which partition keys are free.  What does
not: how Dagster's storage (``coremachine.retention``, handed in), the ledger (``coremachine.ledger_retention``) and the
stores remove them.

Everything is chosen before anything is removed, so a dry run says what the real one does.  Whatever is removed could be
removed twice; a clean-up that was killed is finished by the next, and two at once do each other no harm.  Each is
bounded: what is more than ``at_most`` of a kind is left to the next.

A partition key goes when nothing refers to it: no attempt waits or is at work, nothing published stands for it, no
source has it, no run or backfill names it, and no asset shows it, but for failures of a blob that has been gone for
longer than its source says, and for its validations once its source had taken back what was made (``keep`` keeps it).
A key of which nothing is known was added by somebody and stays.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa

from geo_assets import scratch
from geo_assets.coremachine.binding import Binding
from geo_assets.coremachine.ledger import Attempt
from geo_assets.coremachine.ledger_retention import LedgerRetention, SourceEntry
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, ParameterError
from geo_assets.jobs import vector_staging
from geo_assets.redaction import redact
from geo_assets.settings import MOST_DAYS, Settings
from geo_assets.sources.register import BATCH, TAKEN_BACK, Register
from geo_assets.sources.removal import due, expire
from geo_assets.sources.rules import grain
from geo_assets.sources.source import Source

__all__ = ["WHO", "Cleaned", "History", "Keep", "clean_up"]

WHO = "clean-up"
"""Who let a partition show nothing, for its observation."""
KEPT_EVENTS = 10
"""Events of a type that a partition keeps, however old."""
KEPT_ATTEMPTS = 10
"""Newer attempts with a result that must stand before one goes; no less than workflows are given as history."""
_KEYS_AT_ONCE = 100
_DEFAULT_REMOVED_DAYS = 30.0
"""For entries of a source that is no longer configured."""
_PAUSE_SECONDS = 0.02
"""Between two transactions, so that others come to theirs."""
_MB = 1_000_000
_MOST_OF_A_KIND = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How long things are kept."""

    runs: timedelta
    tasks: timedelta
    listings: timedelta
    gone: timedelta
    """Blobs that are gone, in what sources remember."""

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        run_days: float | None = None,
        task_days: float | None = None,
        listing_days: float | None = None,
    ) -> "Keep":
        """As the settings say, but for what is given.

        Raises:
            ParameterError: fewer than 0 days, or more than ``MOST_DAYS``.
        """
        return cls(
            runs=_days(settings.keep_run_days if run_days is None else run_days),
            tasks=_days(settings.keep_task_days if task_days is None else task_days),
            listings=_days(settings.keep_listing_days if listing_days is None else listing_days),
            gone=_days(settings.keep_gone_days),
        )


def _days(days: float) -> timedelta:
    if not 0 <= days <= MOST_DAYS:
        raise ParameterError(f"things are kept for 0 to {MOST_DAYS} days, not {days:g}")
    return timedelta(days=days)


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """One kind of thing, and how much of it went, or would go."""

    what: str
    number: int
    megabytes: float | None = None
    """What it took; ``None`` where that is not known."""
    note: str = ""
    problem: str = ""
    """Why it was not done, or not all."""

    def as_dict(self) -> dict[str, Any]:
        """For tables and ``--json``."""
        return {
            "what": self.what,
            "number": self.number,
            "megabytes": self.megabytes,
            "note": "; ".join(text for text in (self.note, self.problem) if text),
        }


# --- Dagster, as it is handed in ----------------------------------------------------------------------------------


class _Plan(Protocol):
    """See ``coremachine.retention.HistoryPlan``."""

    @property
    def known(self) -> bool: ...
    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def kept(self) -> int: ...
    @property
    def run_events(self) -> int: ...
    @property
    def run_bytes(self) -> int: ...
    @property
    def superseded(self) -> tuple[int, ...]: ...
    @property
    def superseded_bytes(self) -> int: ...
    @property
    def checks(self) -> tuple[int, ...]: ...
    @property
    def trimmed(self) -> Mapping[str, int]: ...
    @property
    def trimmed_bytes(self) -> int: ...
    @property
    def runless(self) -> int: ...
    @property
    def orphans(self) -> tuple[Path, ...]: ...
    @property
    def orphan_bytes(self) -> int: ...
    @property
    def more(self) -> bool: ...


class _Shown(Protocol):
    @property
    def materialized(self) -> frozenset[str]: ...
    @property
    def planned(self) -> frozenset[str]: ...
    @property
    def observed(self) -> frozenset[str]: ...


class _Busy(Protocol):
    @property
    def keys(self) -> frozenset[str]: ...

    def touches(self, assets: Collection[str]) -> bool: ...


class History[P: _Plan](Protocol):
    """Dagster's storage; see ``coremachine.retention.History``."""

    def plan(  # noqa: D102
        self,
        *,
        before: datetime,
        needed: Collection[str],
        needed_tags: Mapping[str, Sequence[str]],
        keep_events: int,
        at_most: int,
    ) -> P: ...
    def carry_out(self, plan: P, *, goes_on: Callable[[], bool]) -> P: ...  # noqa: D102
    def keys(self, partition_set: str) -> list[str]: ...  # noqa: D102
    def shown(self, asset: str) -> _Shown: ...  # noqa: D102
    def busy(self) -> _Busy: ...  # noqa: D102
    def remove_key(self, partition_set: str, key: str) -> None: ...  # noqa: D102
    def add_keys(self, partition_set: str, keys: Sequence[str]) -> None: ...  # noqa: D102
    def forget(self, asset: str, keys: Sequence[str], *, who: str) -> None: ...  # noqa: D102


# --- the whole -----------------------------------------------------------------------------------------------------


def clean_up[P: _Plan](
    machine: CoreMachine,
    history: History[P],
    sources: Sequence[Source],
    *,
    keep: Keep,
    wave_tag: str,
    at_most: int = 5000,
    seconds: float = 3600.0,
    dry_run: bool = False,
    now: datetime | None = None,
) -> list[Cleaned]:
    """Remove what is not needed any more; what cannot be done now is a problem of its part and stops no other.

    Args:
        machine: ledger, workflows, settings; of the services, ``listings``, ``tables`` and ``blobs`` are used.
        history: Dagster's storage.
        sources: whose vanished blobs may be taken back.
        keep: how long things are kept.
        wave_tag: run tag with the id of a wave.
        at_most: most things of a kind; ten times as many events, a hundred times as many tasks.
        seconds: after which nothing more is begun with.
        dry_run: change nothing, and say what would go.
        now: the present; aware.

    Raises:
        ParameterError: ``at_most`` is less than one or more than a million.
    """
    if not 1 <= at_most <= _MOST_OF_A_KIND:
        raise ParameterError(f"a clean-up removes 1 to {_MOST_OF_A_KIND:,} things of a kind, not {at_most:,}")
    work = _CleanUp(
        machine=machine,
        history=history,
        ledger=LedgerRetention(machine.ledger),
        sources={source.name: source for source in sources},
        keep=keep,
        wave_tag=wave_tag,
        at_most=at_most,
        until=time.monotonic() + seconds,
        dry_run=dry_run,
        now=now or datetime.now(UTC),
    )
    # what is free once others are removed goes the next time, or a dry run would say less; what sources want taken back
    # is last, as looking whether a million blobs are back takes all the time there is
    parts = [
        _Part("partition keys", work.partition_keys),
        _Part("Dagster's runs and events", work.history_parts),
        _Part("tasks of old attempts", work.tasks),
        _Part("superseded attempts", work.attempts),
        _Part("closed waves", work.waves),
        _Part("notices of failures", work.notices),
        _Part("vanished blobs that sources remember", work.gone),
        _Part("container listings", work.listings),
        _Part("temporary files", work.temporary),
        _Part("what sources want taken back", work.expired),
    ]
    chosen = [part.choose() for part in parts]
    return [one for part in chosen for one in part.act()]


_Act = Callable[[], Iterator[Cleaned]]


@dataclass
class _Part:
    """One part of the clean-up: chosen first, acted on then; an error of it is a problem of its own."""

    what: str
    begin: Callable[[], Iterator[_Act]]
    acts: list[_Act] = field(default_factory=list)
    problem: str = ""

    def choose(self) -> "_Part":
        try:
            self.acts = list(self.begin())
        except _AWAY as error:
            self.problem = f"not done: {_said(error)}"
        return self

    def act(self) -> Iterator[Cleaned]:
        if self.problem:
            yield Cleaned(what=self.what, number=0, problem=self.problem)
        for act in self.acts:
            try:
                yield from act()
            except _AWAY as error:
                yield Cleaned(what=self.what, number=0, problem=f"not finished: {_said(error)}")


# the last two: Dagster's storage and disks, which nobody has put into our words
_AWAY = (GeoAssetsError, OSError, sa.exc.SQLAlchemyError)


def _said(error: Exception) -> str:
    # without the statement, which holds what others wrote
    return redact(str(error.orig if isinstance(error, sa.exc.DBAPIError) else error)).strip()


@dataclass(frozen=True, kw_only=True)
class _FreeKeys:
    partition_set: str
    assets: tuple[str, ...]
    keys: tuple[str, ...]
    shown: Mapping[str, frozenset[str]]
    """Asset → keys that it shows all the same."""


_EMPTY = (
    "what was made of the others stays, as container '{}' holds nothing at all: is its disk mounted? If it was emptied"
    " on purpose, take it back with 'geo-assets unpublish'"
)
_MORE = "more is left for the next clean-up"


@dataclass(frozen=True, kw_only=True)
class _CleanUp[P: _Plan]:
    """One clean-up; each part chooses when it is called, and yields what is to be done then."""

    machine: CoreMachine
    history: History[P]
    ledger: LedgerRetention
    sources: Mapping[str, Source]
    keep: Keep
    wave_tag: str
    at_most: int
    until: float
    dry_run: bool
    now: datetime

    def goes_on(self) -> bool:
        return time.monotonic() < self.until

    # --- Dagster ------------------------------------------------------------------------------------------------

    def history_parts(self) -> Iterator[_Act]:
        waves = [wave.wave_id for wave in self.machine.ledger.open_waves()]
        plan = self.history.plan(
            before=self.now - self.keep.runs,
            needed=self.ledger.needed_runs(),
            needed_tags={self.wave_tag: waves},
            keep_events=KEPT_EVENTS,
            at_most=self.at_most,
        )

        def act() -> Iterator[Cleaned]:
            if not plan.known:
                problem = "this Dagster's storage is not one that is known here; its runs and events stay"
                yield Cleaned(what="runs", number=0, problem=problem)
                return
            done = plan if self.dry_run else self.history.carry_out(plan, goes_on=self.goes_on)
            notes = [f"with {done.run_events:,} events and their step logs"] if done.runs else []
            notes += [f"{done.kept:,} old ones stay, as partitions show them"] if done.kept else []
            notes += [_MORE] if done.more else []
            yield Cleaned(what="runs", number=len(done.runs), megabytes=_mb(done.run_bytes), note="; ".join(notes))
            yield Cleaned(
                what="superseded asset events",
                number=len(done.superseded),
                megabytes=_mb(done.superseded_bytes),
                note=f"a partition keeps its last {KEPT_EVENTS} of a type",
            )
            yield Cleaned(what="superseded check evaluations", number=len(done.checks))
            yield Cleaned(
                what="step events of old runs that are kept",
                number=sum(done.trimmed.values()),
                megabytes=_mb(done.trimmed_bytes),
                note=f"of {len(done.trimmed):,} runs" if done.trimmed else "",
            )
            yield Cleaned(what="copies of events that no run wrote", number=done.runless)
            yield Cleaned(
                what="event files of runs that are gone", number=len(done.orphans), megabytes=_mb(done.orphan_bytes)
            )

        yield act

    # --- the ledger ---------------------------------------------------------------------------------------------

    def tasks(self) -> Iterator[_Act]:
        old = self.ledger.old_tasks(self.now - self.keep.tasks, at_most=self.at_most * 100)

        def act() -> Iterator[Cleaned]:
            number = old.tasks if self.dry_run else self.ledger.remove_tasks(old, goes_on=self.goes_on)
            of = f"of {len(old.by_attempt):,} attempts, whose counts stay" if old.by_attempt else ""
            yield Cleaned(what="tasks", number=number, note="; ".join([of] * bool(of) + [_MORE] * old.more))

        yield act

    def attempts(self) -> Iterator[_Act]:
        publishing = {one.job_type for one in self.machine.registry.values() if one.publishes}
        # of a workflow that is not loaded here, nobody knows what its results say
        publishing |= self.machine.ledger.status_counts().keys() - self.machine.registry.keys()
        old, more = self.ledger.superseded(
            self.now - self.keep.tasks, keep=KEPT_ATTEMPTS, publishing=publishing, at_most=self.at_most
        )

        def act() -> Iterator[Cleaned]:
            number = len(old) if self.dry_run else self.ledger.remove_attempts(old, goes_on=self.goes_on)
            yield Cleaned(what="superseded attempts", number=number, note=_MORE if more else "")

        yield act

    def waves(self) -> Iterator[_Act]:
        old = self.ledger.old_waves(self.now - self.keep.tasks, at_most=self.at_most)

        def act() -> Iterator[Cleaned]:
            yield Cleaned(what="closed waves", number=len(old) if self.dry_run else self.ledger.remove_waves(old))

        yield act

    def notices(self) -> Iterator[_Act]:
        # a notice is needed as long as the same is not told again
        hours = timedelta(hours=self.machine.settings.failure_webhook_hours)
        before = self.now - max(self.keep.tasks, hours)
        old = self.ledger.old_notices(before, at_most=self.at_most)

        def act() -> Iterator[Cleaned]:
            number = len(old) if self.dry_run else self.ledger.remove_notices(old, before)
            yield Cleaned(what="notices of failures", number=number)

        yield act

    def gone(self) -> Iterator[_Act]:
        over = {name: self._over(source) for name, source in self.sources.items()}
        number = sum(map(len, over.values()))

        def act() -> Iterator[Cleaned]:
            done = number if self.dry_run else sum(self._forget(self.sources[name], ids) for name, ids in over.items())
            more = done < number or any(len(ids) >= self.at_most * 100 for ids in over.values())
            yield Cleaned(what="vanished blobs that sources remember", number=done, note=_MORE if more else "")

        yield act

    def _over(self, source: Source) -> list[str]:
        """Entries that a source need not remember any more; one whose partition is to go waits until it is gone."""
        register = Register(self.machine.ledger, source.name)
        keys: dict[str, frozenset[str]] = {}
        chosen: list[str] = []
        after = 0
        while len(chosen) < self.at_most * 100 and self.goes_on():
            found = register.over(**self._bounds_of(source), limit=BATCH, after=after)
            if not found:
                break
            after = found[-1][1]
            chosen += [entry for entry, _, asset, key in found if not self._is_to_go(source, asset, key, keys)]
        return chosen[: self.at_most * 100]

    def _bounds_of(self, source: Source) -> dict[str, Any]:
        days = timedelta(days=source.removed_days)
        return {"told_before": self.now - max(self.keep.gone, days), "takes_back": self._takes_back(source)}

    def _takes_back(self, source: Source) -> bool:
        binding = self.machine.registry.get(source.workflow)
        about_blobs = binding is None or grain(source, binding) == "blob"
        return source.when_removed == "unpublish" and about_blobs

    def _is_to_go(self, source: Source, asset: str | None, key: str | None, keys: dict[str, frozenset[str]]) -> bool:
        """Whether the partition key of a blob that was taken back is still there."""
        if not key or not self._takes_back(source):
            return False
        for partition_set in {one.partition_set for one in self.machine.registry.values() if one.asset == asset}:
            if partition_set not in keys:
                keys[partition_set] = frozenset(self.history.keys(partition_set))
            if key in keys[partition_set]:
                return True
        return False

    def _forget(self, source: Source, entries: Sequence[str]) -> int:
        register = Register(self.machine.ledger, source.name)
        forgotten = 0
        for start in range(0, len(entries), BATCH):
            if not self.goes_on():
                break
            forgotten += register.forget_over(entries[start : start + BATCH], **self._bounds_of(source))
            time.sleep(_PAUSE_SECONDS)
        return forgotten

    # --- stores -------------------------------------------------------------------------------------------------

    def listings(self) -> Iterator[_Act]:
        def act() -> Iterator[Cleaned]:
            swept = self.machine.services["listings"].sweep(
                before=self.now - self.keep.listings,
                keep=self.ledger.needed_listings(),
                at_most=self.at_most,
                dry_run=self.dry_run,
            )
            notes = ([f"with {swept.rows:,} rows"] if swept.rows else []) + ([_MORE] if swept.more else [])
            size = _mb(swept.bytes) if swept.bytes else None
            yield Cleaned(what="container listings", number=swept.listings, megabytes=size, note="; ".join(notes))

        yield act

    def temporary(self) -> Iterator[_Act]:
        def folders() -> Iterator[Cleaned]:
            number = scratch.sweep(self.machine.settings.scratch_path, dry_run=self.dry_run)
            yield Cleaned(what="scratch folders of dead processes", number=number)

        def stagings() -> Iterator[Cleaned]:
            tables, blobs = vector_staging.sweep(self.machine.services, dry_run=self.dry_run)
            yield Cleaned(what="stagings of loads that broke off", number=tables)
            yield Cleaned(what="prepared blobs of loads that broke off", number=blobs)

        yield folders
        yield stagings

    # --- partitions ---------------------------------------------------------------------------------------------

    def expired(self) -> Iterator[_Act]:
        for source in self.sources.values():
            if source.when_removed == "unpublish":
                yield partial(self._expire, source)

    def _expire(self, source: Source) -> Iterator[Cleaned]:
        def wipe(asset: str, keys: Sequence[str]) -> None:
            self.history.forget(asset, keys, who=f"source {source.name}")

        bounds: Any = {"limit": self.at_most, "configured": self.sources, "goes_on": self.goes_on}
        done = due(self.machine, source, **bounds) if self.dry_run else expire(self.machine, wipe, source, **bounds)
        notes = [f"{done.there} keep what was made, as they are there again"] if done.there else []
        notes += [_EMPTY.format(source.container)] if done.empty else []
        notes += [_MORE] if done.more else []
        yield Cleaned(
            what=f"vanished blobs of source {source.name} taken back",
            number=done.taken_back,
            note="; ".join(notes),
            problem=f"{done.left} could not be taken back: {'; '.join(done.problems)}" if done.left else "",
        )

    def partition_keys(self) -> Iterator[_Act]:
        notes: list[str] = []
        free = list(self._free_keys(notes))

        def act() -> Iterator[Cleaned]:
            number = sum(len(some.keys) if self.dry_run else self._remove_keys(some) for some in free)
            yield Cleaned(what="partition keys", number=number, note="; ".join(notes))

        yield act

    def _free_keys(self, notes: list[str]) -> Iterator[_FreeKeys]:
        busy = self.history.busy()
        room = self.at_most
        for partition_set in sorted({binding.partition_set for binding in self.machine.registry.values()}):
            bindings = [one for one in self.machine.registry.values() if one.partition_set == partition_set]
            assets = tuple(sorted({binding.asset for binding in bindings}))
            if busy.touches(assets):
                notes.append(f"those of {partition_set} stay, as a backfill or run of several partitions is under way")
                continue
            found = self._free_keys_of(partition_set, bindings, assets, busy)
            if len(found.keys) > room:
                notes.append(_MORE)
            keys = found.keys[:room]
            room -= len(keys)
            yield _FreeKeys(partition_set=partition_set, assets=assets, keys=keys, shown=found.shown)

    def _free_keys_of(
        self, partition_set: str, bindings: Sequence[Binding], assets: tuple[str, ...], busy: _Busy
    ) -> _FreeKeys:
        shown = {asset: self.history.shown(asset) for asset in assets}
        publishing = {binding.asset for binding in bindings if binding.publishes}
        published = frozenset[str]().union(*(shown[asset].materialized for asset in publishing))
        green = frozenset[str]().union(*(one.materialized for one in shown.values()))
        observed = frozenset[str]().union(*(one.observed for one in shown.values()))
        free: list[str] = []
        candidates = [key for key in self.history.keys(partition_set) if key not in published and key not in busy.keys]
        for start in range(0, len(candidates), 500):
            chunk = candidates[start : start + 500]
            attempts = self.ledger.attempts_of(assets, chunk)
            entries = self.ledger.entries_of(assets, chunk)
            free += [
                key
                for key in chunk
                if self._is_free(
                    attempts.get(key, []), entries.get(key, []), is_green=key in green, was_seen=key in observed
                )
            ]
            if len(free) > self.at_most:
                break
        return _FreeKeys(
            partition_set=partition_set,
            assets=assets,
            keys=tuple(free),
            shown={asset: one.materialized | one.planned for asset, one in shown.items()},
        )

    def _is_free(
        self, attempts: Sequence[Attempt], entries: Sequence[SourceEntry], *, is_green: bool, was_seen: bool
    ) -> bool:
        if any(not attempt.status.is_terminal for attempt in attempts):
            return False
        if not all(self._is_expired(entry) for entry in entries):
            return False
        standing = [attempt for attempt in attempts if attempt.withdrawn_at is None]
        if any(self._published(attempt) for attempt in standing):
            return False
        if entries and (not is_green or all(_is_given_up(entry, standing) for entry in entries)):
            return True
        # without a source nothing says that it is gone, but that it was taken back
        return not is_green and not standing and (bool(attempts) or was_seen)

    def _is_expired(self, entry: SourceEntry) -> bool:
        source = self.sources.get(entry.source)
        days = source.removed_days if source is not None else _DEFAULT_REMOVED_DAYS
        return entry.gone_at is not None and entry.gone_at < self.now - timedelta(days=days)

    def _published(self, attempt: Attempt) -> bool:
        if not attempt.result_data:
            return False
        binding = self.machine.registry.get(attempt.job_type)
        return binding is None or bool(binding.publishes and binding.published(attempt.result_data))

    def _remove_keys(self, free: _FreeKeys) -> int:
        removed = 0
        for start in range(0, len(free.keys), _KEYS_AT_ONCE):
            if not self.goes_on():
                break
            chunk = free.keys[start : start + _KEYS_AT_ONCE]
            chosen = [key for key in chunk if key not in self._at_work(free.assets, chunk)]
            for asset, shown in free.shown.items():
                if some := [key for key in chosen if key in shown]:
                    self.history.forget(asset, some, who=WHO)
            for key in chosen:
                self.history.remove_key(free.partition_set, key)
            # a job that was submitted in between has added its key before it was removed
            if back := self._at_work(free.assets, chosen):
                self.history.add_keys(free.partition_set, sorted(back))
            removed += len(chosen) - len(back)
        return removed

    def _at_work(self, assets: Sequence[str], keys: Sequence[str]) -> set[str]:
        found = self.ledger.attempts_of(assets, keys)
        return {key for key, group in found.items() if any(not attempt.status.is_terminal for attempt in group)}


def _is_given_up(entry: SourceEntry, standing: Sequence[Attempt]) -> bool:
    """Whether its source has nothing of it any more, and nobody has made anything of it since it was gone."""
    if entry.reason != TAKEN_BACK or entry.gone_at is None:
        return False
    return all(attempt.created_at < entry.gone_at for attempt in standing)


def _mb(size: int) -> float:
    return round(size / _MB, 3)
