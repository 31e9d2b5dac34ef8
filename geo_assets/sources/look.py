"""A look: what a container holds now against what its source saw last, and only the difference written down.

What belongs here: :func:`look`, for a container that is listed now and for a listing that a run has written.  What does
not: asking for such a run (``listings``), and what becomes of what was found (``turn``, ``removal``).

Nothing depends on seeing every change: a look compares states, so one that failed, or died halfway, is made good by the
next.  One that finds nothing new reads only.  Both sides are compared a bucket of names at a time, as a listing and
the one before are (``containers.listing``), so memory does not grow with the container.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.containers.entries import ENTRY_SCHEMA, EntryStream
from geo_assets.containers.filter import BlobFilter
from geo_assets.containers.kinds import stem, with_datasets, with_kinds
from geo_assets.containers.listing import buckets_of, entry_version
from geo_assets.containers.listing_store import ListingInfo
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, LedgerUnavailableError, LookOvertakenError, LookTooLongError
from geo_assets.redaction import redact
from geo_assets.sources.deadline import items_until
from geo_assets.sources.register import (
    BATCH,
    FOLDER,
    PARTS,
    PROBLEM,
    EntryState,
    LastLook,
    Register,
    Seen,
)
from geo_assets.sources.source import Source

__all__ = ["Look", "listing_prefix", "look"]

_FRAME = 20_000
"""Rows that are taken over at a time."""
_WRITE_SECONDS = 10.0
"""How long a look that has a limit may write; the next one writes the rest."""
_SECONDS = 48.0
"""How long such a look may take in all."""
_MANY = 100
"""Entries that do not vanish at once without a second look."""
_STALE = timedelta(minutes=5)
"""Age at which the time of the latest look is written though nothing was new."""
_EMPTY = "suddenly empty"
_GDB = ".gdb/"
_KEY = ("name", "_bad")


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
    """No longer there, it seems; a second look has to agree."""
    waiting: int = 0
    refused: int = 0
    gone: int = 0
    """All entries in these states after the look."""
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
    by_run: bool = False,
) -> Look:
    """Compare a source's container with what is remembered of it.

    Args:
        machine: the parts; of the services, ``blobs`` or ``listings``.
        source: which.
        prefix: look only at names, and datasets with names, that start with this.
        seconds: how long listing may take.
        listing: read this one instead of the container.
        listed_from: when that listing began; what was seen since is left as it is.
        by_run: whether the next look is to read such a listing, too.

    Raises:
        LookTooLongError: listing took too long; nothing was written, but that the next look is to be by a run.
        LookOvertakenError: another look was faster; the next one finds what this one did not write.
        GeoAssetsError: as the store's ``list_blobs``; no entry was touched, and the error is on record.
    """
    register = Register(machine.ledger, source.name)
    before = register.last_look()
    whole = len(prefix) <= len(source.prefix)
    if not whole and before.definition != source.definition:
        return Look(sequence=before.sequence)  # the first look is at all there is
    with ExitStack() as stack:
        work = _Comparison(register, source, before, prefix="" if whole else prefix, by_run=by_run)
        work.open(stack, machine)
        try:
            work.read_container(machine, seconds) if listing is None else work.read_listing(machine, listing)
        except LookTooLongError:
            if whole and not before.by_run:
                register.note(by_run=True)
            raise
        except (LedgerUnavailableError, LookOvertakenError):
            raise
        except GeoAssetsError as error:
            text = redact(str(error))[:1000]
            if whole and before.error != text:
                register.note(error=text)
            raise
        work.leave_alone(register.touched_since(listed_from) if listed_from is not None else [])
        return work.compare_and_write(limited=seconds is not None)


def listing_prefix(prefix: str) -> str:
    """A prefix no longer than what the files of a dataset have in common, where it ends within its name."""
    inside = prefix.lower().find(_GDB)
    cut = prefix if inside < 0 else prefix[: inside + len(_GDB) - 1]
    return str(pl.DataFrame({"name": [cut]}).select(stem()).item())


@dataclass
class _Comparison:
    """One look under way; the steps are taken in the order they stand here."""

    register: Register
    source: Source
    before: LastLook
    prefix: str
    by_run: bool
    counts: dict[str, int] = field(default_factory=dict)
    write_until: float | None = None

    def open(self, stack: ExitStack, machine: CoreMachine) -> None:
        self.began, self.clock = datetime.now(UTC), time.monotonic()
        self.redefined = self.before.definition not in (None, self.source.definition)
        self.moved = self.redefined and not self.source.is_of_this_container(self.before.definition or "")
        self.sequence = self.before.sequence
        scratch = machine.settings.scratch_path
        self.there, self.known, self.missed = (stack.enter_context(Buckets(scratch, stem())) for _ in range(3))
        self.untouchable = pl.Series("name", [], pl.String)

    def read_container(self, machine: CoreMachine, seconds: float | None) -> None:
        within = listing_prefix(self.prefix or self.source.prefix)
        stream = EntryStream(
            machine.services["blobs"], self.source.container, blob_filter=BlobFilter(prefix=within), rows=_FRAME
        )
        try:
            for entries in stream if seconds is None else items_until(stream, self.clock + seconds):
                self.there.add(entries.select(*ENTRY_SCHEMA))
        except TimeoutError:
            msg = (
                f"listing the container '{self.source.container}' for source '{self.source.name}' takes longer than"
                f" {seconds:g} s (GEO_ASSETS_LOOK_SECONDS); a run lists it from now on"
            )
            raise LookTooLongError(msg) from None
        self._read_known(listing_prefix(self.prefix))

    def read_listing(self, machine: CoreMachine, listing: ListingInfo) -> None:
        frames = machine.services["listings"].frames(
            listing.container, listing.key, columns=list(ENTRY_SCHEMA), version=listing.version
        )
        for entries in frames:
            self.there.add(entries.select(*ENTRY_SCHEMA))
        self.began = listing.listed_at
        self._read_known("")

    def _read_known(self, prefix: str) -> None:
        for frame in self.register.frames(prefix):
            self.known.add(frame)

    def leave_alone(self, names: list[str]) -> None:
        """Another look saw these after the listing that is compared had begun."""
        self.untouchable = pl.Series("name", names, pl.String)

    # --- comparing ---------------------------------------------------------------------------------------------

    def compare_and_write(self, *, limited: bool) -> Look:
        if limited:
            self.write_until = min(time.monotonic() + _WRITE_SECONDS, self.clock + _SECONDS)
        live = 0
        for bucket in buckets_of(self.there, self.known):
            entries = self._entries(self.there.read(bucket))
            known = self._known(self.known.read(bucket))
            live += known.filter(pl.col("state") != EntryState.GONE.value).height
            matching = entries.filter("_counts")
            self._write_seen(self._compared(matching, known))
            missed = known.join(matching, on=_KEY, how="anti").filter(pl.col("state") != EntryState.GONE.value)
            if missed.height:
                self.missed.add(self._dropped_or_gone(missed, entries))
        self._count("seen", 0)
        if not self.prefix and not self.counts["seen"] and live > _MANY and not self._was_empty_before():
            return self._postpone(live)
        self._write_missed()
        return self._conclude()

    def _entries(self, frame: pl.DataFrame | None) -> pl.DataFrame:
        """Blobs and datasets with their versions, and whether they count."""
        if frame is None:
            frame = pl.DataFrame(schema=ENTRY_SCHEMA)
        # a page may come twice; and a dataset holds what a blob of its name holds
        unique = frame.unique(("name", "problem"), keep="last", maintain_order=True).sort("name")
        grouped = _with_versions(with_datasets(with_kinds(unique)))
        # a name that cannot be opened is refused where the source would have taken it
        openable = grouped.with_columns(
            role=pl.when(pl.col("_bad") & pl.col("kind").is_in(["raster", "vector"]))
            .then(pl.lit("main"))
            .otherwise("role"),
            problem=pl.lit(None, pl.String),
        )
        counts = openable.select(self.source.matching().alias("_counts"))["_counts"]
        return self._without_untouchable(grouped.with_columns(counts))

    def _known(self, frame: pl.DataFrame | None) -> pl.DataFrame:
        if frame is None:
            frame = pl.DataFrame(schema={"name": pl.String, "version": pl.String, "state": pl.String})
        return self._without_untouchable(
            frame.select("name", "state", _bad=pl.col("version").str.starts_with(PROBLEM), _last="version")
        )

    def _dropped_or_gone(self, missed: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
        """Of entries that do not match, or are not there: whether they are ``_dropped``, or gone."""
        there = missed.join(entries, on=_KEY, how="semi").select(*_KEY, _dropped=pl.lit(True))  # noqa: FBT003
        fate = missed.join(there, on=_KEY, how="left", maintain_order="left")
        if not self.redefined:
            return fate.select(*_KEY, pl.col("_dropped").fill_null(value=False))
        # where another definition's entries were, who knows; but what would match had been listed here
        named = with_kinds(
            fate.select(
                *_KEY,
                "_dropped",
                file_count=pl.when(pl.col("_last").str.starts_with(FOLDER)).then(1),
                problem=pl.lit(None, pl.String),
            )
        )
        role = pl.when(pl.col("kind").is_in(["raster", "vector"])).then(pl.lit("main"))
        gone = self.source.matching() & pl.lit(not self.moved)
        return named.with_columns(role=role).select(*_KEY, pl.col("_dropped").fill_null(~gone))

    def _without_untouchable(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.untouchable.is_empty():
            return frame
        return frame.filter(~pl.col("name").is_in(self.untouchable.implode()))

    def _compared(self, matching: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """What is not as it was, with what ``change`` that is; everything counted that is."""
        self._count("seen", matching.height)
        refused = (pl.col("state") == EntryState.REFUSED.value) & ~pl.col("_bad")
        compared = matching.join(known, on=_KEY, how="left", maintain_order="left").with_columns(
            change=pl.when(pl.col("_last").is_null())
            .then(pl.lit("new"))
            .when(pl.col("state") == EntryState.GONE.value)
            .then(pl.lit("returned"))
            # what could not become a job may be able to, by another rule
            .when((pl.col("_last") != pl.col("version")) | (refused & pl.lit(self.redefined)))
            .then(pl.lit("changed"))
        )
        found = compared.filter(pl.col("change").is_not_null())
        self._count("unchanged", compared.height - found.height)
        return found

    # --- writing -----------------------------------------------------------------------------------------------

    def _write_seen(self, found: pl.DataFrame) -> None:
        for batch in found.iter_slices(BATCH):
            if self._late():
                self._count("unwritten", batch.height)
                continue
            seen = [_seen(row) for row in batch.iter_rows(named=True)]
            self.sequence = self.register.write_seen(seen, expected=self.sequence, now=datetime.now(UTC))
            for change, count in batch["change"].value_counts().iter_rows():
                self._count(change, count)

    def _write_missed(self) -> None:
        for frame in _each(self.missed):
            dropped, gone = frame.filter("_dropped"), frame.filter(~pl.col("_dropped"))
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

    def _was_empty_before(self) -> bool:
        return self.before.error is not None and _EMPTY in self.before.error

    def _postpone(self, live: int) -> Look:
        container = f"the container '{self.source.container}'"
        where = f" below '{self.source.prefix}'" if self.source.prefix else ""
        self.register.note(
            error=f"{container} is {_EMPTY}{where}: of {live:,} entries none is there; they count as gone when the next"
            " look finds the same"
        )
        return self._result(postponed=live)

    def _conclude(self) -> Look:
        result = self._result()
        finished = not (result.unwritten or self.counts.get("unfinished"))
        if not self.prefix and finished and self._worth_writing(result):
            self.register.note(
                looked_at=self.began,
                seconds=result.seconds,
                entries=result.seen,
                definition=self.source.definition,
                error=None,
                by_run=self.by_run,
            )
        return result

    def _worth_writing(self, result: Look) -> bool:
        before = self.before
        same = (before.definition, before.error, before.by_run) == (self.source.definition, None, self.by_run)
        fresh = before.looked_at is not None and self.began - before.looked_at < _STALE
        # what waits to be stable is measured by when it was looked at last
        waits = bool(result.waiting and self.source.stable_seconds)
        return result.found_something or waits or self.by_run or not (same and fresh)

    def _result(self, *, postponed: int = 0) -> Look:
        states = self.register.counts()
        names = ("seen", "new", "changed", "returned", "unchanged", "unwritten", "removed", "dropped")
        return Look(
            **{name: self.counts.get(name, 0) for name in names},
            postponed=postponed,
            waiting=states[EntryState.WAITING],
            refused=states[EntryState.REFUSED],
            gone=states[EntryState.GONE],
            seconds=round(time.monotonic() - self.clock, 3),
            sequence=self.sequence,
        )

    def _count(self, name: str, number: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + number


def _with_versions(grouped: pl.DataFrame) -> pl.DataFrame:
    """Add ``version`` and ``_bad``; a dataset of several blobs has a version, size and date of them all."""
    version = entry_version()
    rows = grouped.with_columns(
        _bad=pl.col("problem").is_not_null(),
        version=pl.when(pl.col("problem").is_not_null())
        .then(pl.concat_str(pl.lit(PROBLEM), version))
        .when(pl.col("file_count").is_not_null())
        .then(pl.concat_str(pl.lit(FOLDER), version))
        .otherwise(version),
    )
    parts = rows.filter(pl.col("role") == "part")
    if parts.is_empty():
        return rows
    together = (
        rows.filter(pl.col("role").is_in(["main", "part"]))
        .join(parts.select("dataset").unique(), on="dataset", how="semi")
        .sort("name")
        .group_by("dataset", maintain_order=True)
        .agg(
            pl.concat_str("name", pl.lit("\0"), "version").str.join("\n").alias("_parts"),
            _size=pl.col("size").sum(),
            _date=pl.col("last_modified").max(),
        )
    )
    digests = [f"{PARTS}{hashlib.sha256(text.encode()).hexdigest()}" for text in together["_parts"]]
    together = together.select(
        "_size", "_date", name="dataset", role=pl.lit("main"), _digest=pl.Series(digests, dtype=pl.String)
    )
    return (
        rows.join(together, on=("name", "role"), how="left", maintain_order="left")
        .with_columns(
            version=pl.coalesce("_digest", "version"),
            size=pl.coalesce("_size", "size"),
            last_modified=pl.coalesce("_date", "last_modified"),
        )
        .drop("_size", "_date", "_digest")
    )


def _seen(row: dict[str, object]) -> Seen:
    problem, missing = row["problem"], row["missing"]
    reason = str(problem) if problem is not None else f"waits for {missing} beside it" if missing else None
    return Seen(
        name=str(row["name"]),
        version=str(row["version"]),
        size=int(row["size"]),  # type: ignore[call-overload]
        last_modified=row["last_modified"],  # type: ignore[arg-type]
        state=EntryState.WAITING if problem is None else EntryState.REFUSED,
        reason=reason,
    )


def _each(buckets: Buckets) -> Iterator[pl.DataFrame]:
    for bucket in range(buckets.count) if buckets.spilled else [None]:
        frame = buckets.read(bucket)
        if frame is not None:
            yield frame
