"""What a source's container holds now against what the source saw last, a bucket of names at a time.

What belongs here: reading both sides and telling what differs, for looks and for what foretells them.  What does not:
writing any of it down (``look``), and saying it beforehand (``preview``).

Both sides are spilled and read back as a listing and the one before are (``containers.listing``), so memory does not
grow with the container.
"""

import hashlib
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.containers.entries import ENTRY_SCHEMA, EntryStream
from geo_assets.containers.filter import BlobFilter
from geo_assets.containers.kinds import stem, with_datasets, with_kinds
from geo_assets.containers.listing import buckets_of, entry_version
from geo_assets.containers.listing_store import ListingInfo
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import LookTooLongError
from geo_assets.sources.deadline import items_until
from geo_assets.sources.edits import made_by
from geo_assets.sources.register import (
    ELSEWHERE,
    FOLDER,
    FRAME,
    PARTS,
    PROBLEM,
    EntryState,
    LastLook,
    Register,
)
from geo_assets.sources.source import Source
from geo_assets.stores.blobs import UNREADABLE_FOLDER, printable

__all__ = ["KEY", "Comparison", "Differences", "listing_prefix"]

KEY = ("name", "_bad")
"""Columns that tell entries apart: a name, and whether it is only how one that cannot be opened is shown."""

_FRAME = 20_000
"""Rows that are taken over at a time."""
_GDB = ".gdb/"


def listing_prefix(prefix: str) -> str:
    """A prefix no longer than what the files of a dataset have in common, where it ends within its name."""
    inside = prefix.lower().find(_GDB)
    cut = prefix if inside < 0 else prefix[: inside + len(_GDB) - 1]
    return str(pl.DataFrame({"name": [cut]}).select(stem()).item())


@dataclass(frozen=True, kw_only=True)
class Differences:
    """One bucket compared; every frame has the columns :data:`KEY`.

    ``matching.height`` is what changed and what did not.
    """

    entries: pl.DataFrame
    """What is there, with ``kind``, ``role``, ``missing``, ``version``; ``_counts``: whether it matches."""
    known: pl.DataFrame
    """What was seen before, with its ``state``; ``made``: how its job was made, if not as it would be now."""
    matching: pl.DataFrame
    """Of the entries, those that match."""
    changes: pl.DataFrame
    """Of these, those that are not as they were; ``change`` is ``new``, ``changed`` or ``returned``."""
    missed: pl.DataFrame
    """Seen before, and there or matching no more: ``_dropped`` says which are forgotten; the others are gone."""

    def unchanged(self, made: str) -> pl.DataFrame:
        """Those of :attr:`known` that are as they were, and whose job was ``made`` so."""
        some = self.known.filter(pl.col("made") == made)
        return some.join(self.matching, on=KEY, how="semi").join(self.changes, on=KEY, how="anti")


class Comparison:
    """One comparison under way; the steps are taken in the order they stand here."""

    def __init__(self, register: Register, source: Source, before: LastLook, *, prefix: str = "") -> None:
        """Prepare to compare.

        Args:
            register: what the source remembers.
            source: which.
            before: its last look.
            prefix: compare only names that start with this; as long as the source's own at least, or empty.
        """
        self.register, self.source, self.before, self.prefix = register, source, before, prefix
        self.redefined = before.definition not in (None, source.definition)
        self._moved = self.redefined and not source.is_of_this_container(before.definition or "")

    def open(self, stack: ExitStack, machine: CoreMachine) -> None:
        """Begin; temporary files go when the stack closes."""
        self.began, self.clock = datetime.now(UTC), time.monotonic()
        self.made_by = made_by(self.source, machine.registry)
        self._there, self._seen = (stack.enter_context(Buckets(machine.settings.scratch_path, stem())) for _ in "12")
        self._untouchable = pl.Series("name", [], pl.String)
        self._unreadable: dict[str, str] = {}
        self._folders: list[str] = []
        self._kept: set[str] = set()
        self.known_seconds = 0.0
        """How long it took to read what is remembered."""

    def read_container(self, machine: CoreMachine, seconds: float | None = None) -> None:
        """List the container now.

        Raises:
            LookTooLongError: that, and reading what is remembered, takes longer than ``seconds``.
            GeoAssetsError: as the store's ``list_blobs``.
        """
        within = listing_prefix(self.prefix or self.source.prefix)
        stream = EntryStream(
            machine.services["blobs"], self.source.container, blob_filter=BlobFilter(prefix=within), rows=_FRAME
        )
        try:
            for entries in stream if seconds is None else items_until(stream, self.clock + seconds):
                self._add(entries)
        except TimeoutError:
            msg = (
                f"listing the container '{self.source.container}' for source '{self.source.name}' takes longer than"
                f" {seconds:.3g} s"
            )
            raise LookTooLongError(msg) from None
        self._read_known(listing_prefix(self.prefix), seconds)

    def read_listing(self, machine: CoreMachine, listing: ListingInfo) -> None:
        """Read a listing that a run has written."""
        frames = machine.services["listings"].frames(
            listing.container, listing.key, columns=list(ENTRY_SCHEMA), version=listing.version
        )
        for entries in frames:
            self._add(entries)
        self.began = listing.listed_at
        self._read_known("")

    def _add(self, entries: pl.DataFrame) -> None:
        is_folder = pl.col("problem").str.starts_with(UNREADABLE_FOLDER).fill_null(value=False)
        told = entries.filter(is_folder).select("name", "problem").iter_rows()
        self._unreadable.update({name: why for name, why in told if not self.source.takes_nothing_below(name)})
        self._there.add(entries.filter(~is_folder).select(*ENTRY_SCHEMA))

    @property
    def problem(self) -> str:
        """Why part of what is remembered is left as it was, as far as :meth:`differences` came; empty: it is not."""
        return self._cannot_be_read(sorted(self._kept), ", and what was seen there stays as it was")

    @property
    def unread(self) -> str:
        """Which other folders cannot be read, of which nothing is remembered; empty where there are none."""
        return self._cannot_be_read([folder for folder in self._folders if folder not in self._kept])

    def _cannot_be_read(self, folders: list[str], what: str = "") -> str:
        if not folders:
            return ""
        more = len(folders) - 1
        others = f"; {more:,} more cannot be read either" if more else ""
        return f"container '{self.source.container}': {self._unreadable[folders[0]]}{what}{others}"

    def _read_known(self, prefix: str, seconds: float | None = None) -> None:
        began = time.monotonic()
        ends = float("inf") if seconds is None else self.clock + seconds
        self._folders = sorted(self._unreadable)
        for frame in self.register.frames(prefix, made_by=self.made_by):
            if time.monotonic() > ends:
                msg = (
                    f"listing the container '{self.source.container}' and reading what source '{self.source.name}'"
                    f" remembers takes longer than {seconds:.3g} s"
                )
                raise LookTooLongError(msg)
            self._seen.add(frame)
        self.known_seconds = time.monotonic() - began

    def leave_alone(self, names: list[str]) -> None:
        """Another look saw these after the listing that is compared had begun."""
        self._untouchable = pl.Series("name", names, pl.String)

    def differences(self) -> Iterator[Differences]:
        """Compare bucket by bucket."""
        for bucket in buckets_of(self._there, self._seen):
            entries = self._entries(self._there.read(bucket))
            known = self._known(self._seen.read(bucket))
            matching = entries.filter("_counts")
            missed = known.join(matching, on=KEY, how="anti").filter(pl.col("state") != EntryState.GONE.value)
            yield Differences(
                entries=entries,
                known=known,
                matching=matching,
                changes=self._changes(matching, known),
                missed=self._dropped_or_gone(missed, entries),
            )

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
            frame = pl.DataFrame(schema=FRAME)
        known = frame.select("name", "state", "made", _bad=pl.col("version").str.starts_with(PROBLEM), _last="version")
        if self._folders:
            there = known.filter(pl.col("state") != EntryState.GONE.value).select(KEY).iter_rows()
            self._kept.update(folder for row in there if (folder := self._unreadable_folder(*row)))
        return self._without_untouchable(known)

    def _dropped_or_gone(self, missed: pl.DataFrame, entries: pl.DataFrame) -> pl.DataFrame:
        """Of entries that do not match, or are not there: whether they are ``_dropped``, or gone."""
        there = missed.join(entries, on=KEY, how="semi").select(*KEY, _dropped=pl.lit(True))  # noqa: FBT003
        fate = missed.join(there, on=KEY, how="left", maintain_order="left")
        if not self.redefined:
            return fate.select(*KEY, pl.col("_dropped").fill_null(value=False))
        # where another definition's entries were, who knows; but what would match had been listed here
        named = with_kinds(
            fate.select(
                *KEY,
                "_dropped",
                file_count=pl.when(pl.col("_last").str.starts_with(FOLDER)).then(1),
                problem=pl.lit(None, pl.String),
            )
        )
        role = pl.when(pl.col("kind").is_in(["raster", "vector"])).then(pl.lit("main"))
        gone = self.source.matching() & pl.lit(not self._moved)
        return named.with_columns(role=role).select(*KEY, pl.col("_dropped").fill_null(~gone))

    def _without_untouchable(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self._folders:
            shown = frame.select(KEY).iter_rows()
            frame = frame.filter(pl.Series([not self._unreadable_folder(*row) for row in shown], dtype=pl.Boolean))
        if self._untouchable.is_empty():
            return frame
        return frame.filter(~pl.col("name").is_in(self._untouchable.implode()))

    def _unreadable_folder(self, name: str, bad: bool) -> str:  # noqa: FBT001 - a row
        """The folder that cannot be read which a name lies below or is, or that lies in it; empty: none."""
        # folders are told as they are shown, and so are names that cannot be opened
        as_shown = bad or (name.isprintable() and "\\" not in name)
        inside = f"{name if as_shown else printable(name)}/"
        at = bisect_right(self._folders, inside)
        # none of them lies in another
        if at > 0 and inside.startswith(self._folders[at - 1]):
            return self._folders[at - 1]
        return self._folders[at] if at < len(self._folders) and self._folders[at].startswith(inside) else ""

    def _changes(self, matching: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
        """What is not as it was, with what ``change`` that is."""
        refused = (pl.col("state") == EntryState.REFUSED.value) & ~pl.col("_bad")
        with_changes = matching.join(known, on=KEY, how="left", maintain_order="left").with_columns(
            change=pl.when(pl.col("_last").is_null())
            .then(pl.lit("new"))
            .when(pl.col("state") == EntryState.GONE.value)
            .then(pl.lit("returned"))
            # what could not become a job may be able to, by another rule; and another thing has yet to be made of it
            .when(
                (pl.col("_last") != pl.col("version"))
                | (refused & pl.lit(self.redefined))
                | (pl.col("made") == ELSEWHERE)
            )
            .then(pl.lit("changed"))
        )
        return with_changes.filter(pl.col("change").is_not_null())


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
