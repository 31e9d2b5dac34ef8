"""What a source remembers: every statement on ``source_entries`` and ``source_looks``.

What belongs here: reading and writing the two tables.  What does not: what is compared with them (``look``), which
entries become jobs (``turn``), and what is said of those that are gone (``removal``).

An entry is a blob or a dataset.  It is ``waiting`` from when a version of it was first seen until this version has
become a job (``queued``) or cannot become one (``refused``), and ``gone`` when a look no longer found it.  Each change
of an entry takes the next number of its source's ``sequence``.  That number is a fence as well: a look that another
one overtook writes nothing.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import MATERIALIZATION_OWED, attempts, jobs, source_entries, source_looks
from geo_assets.errors import LookOvertakenError

__all__ = [
    "BATCH",
    "FOLDER",
    "PARTS",
    "PROBLEM",
    "TAKEN_BACK",
    "TOLD",
    "Entry",
    "EntryState",
    "LastLook",
    "Mark",
    "Presence",
    "Register",
    "Seen",
    "forget",
    "remembered",
]

PROBLEM, PARTS, FOLDER = "problem:", "parts:", "folder:"
"""What a version begins with that is no blob's ETag: of a name that cannot be opened, of several files, of a folder."""

TOLD = "its partitions say so"
"""Reason of an entry that is gone, once that was written on its partitions."""
TAKEN_BACK = "what was made of it is taken back"
"""Reason of an entry that is gone, once nothing in the stores is left of it."""

BATCH = 5000
"""Entries written in one transaction."""
_PAGE = 50_000
_IN_LIMIT = 500
_ACTIVE = (JobStatus.QUEUED.value, JobStatus.PROCESSING.value)

FRAME = {"name": pl.String(), "version": pl.String(), "state": pl.String()}
"""Columns of :meth:`Register.frames`."""


class EntryState(StrEnum):
    """Where an entry stands."""

    WAITING = "waiting"
    QUEUED = "queued"
    REFUSED = "refused"
    GONE = "gone"


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """What is known of a source's looks so far."""

    looked_at: datetime | None = None
    """When the latest whole one began; not moved by every one that found nothing new."""
    seconds: float | None = None
    entries: int | None = None
    sequence: int = 0
    by_run: bool = False
    listing_job: str | None = None
    definition: str | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One blob or dataset, as it was seen last."""

    entry: str
    name: str
    version: str
    state: EntryState
    reason: str | None
    asset: str | None
    partition_key: str | None
    submitted_version: str | None
    seen_at: datetime
    gone_at: datetime | None
    sequence: int

    @property
    def is_single_blob(self) -> bool:
        """Whether its version is the ETag of one blob."""
        return not self.version.startswith((PROBLEM, PARTS, FOLDER))


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look found of one entry, new or in another version."""

    name: str
    version: str
    size: int
    last_modified: datetime | None
    state: EntryState
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a turn did with an entry."""

    entry: Entry
    state: EntryState
    reason: str | None = None
    asset: str | None = None
    partition_key: str | None = None


@dataclass(frozen=True, kw_only=True)
class Presence:
    """An entry whose partition has yet to be told that it is gone, or back."""

    entry: str
    name: str
    asset: str | None
    partition_key: str | None
    gone_at: datetime
    gone: bool
    taken_over: bool
    """Whether the partition is another entry's now, so that nothing is missing."""


def entry_id(name: str, version: str) -> str:
    """The key of an entry; a name that cannot be opened is only how it is shown, and may look like another blob's."""
    text = f"{name}\n" if version.startswith(PROBLEM) else name
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


class Register:
    """The rows of one source. Every method is a transaction, but for those that are given a connection."""

    def __init__(self, ledger: Ledger, source: str, *, configured: Collection[str] | None = None) -> None:
        """Look at one source's rows.

        Args:
            ledger: where they are.
            source: its name.
            configured: names of the sources there are; what others left behind holds no partition. ``None``: whoever
                has left something is believed to be there.
        """
        self.ledger = ledger
        self.source = source
        self._mine = source_entries.c.source == source
        self._configured = None if configured is None else sorted({*configured, source})

    def _is_configured(self, of: sa.FromClause) -> sa.ColumnElement[bool]:
        return sa.true() if self._configured is None else of.c.source.in_(self._configured)

    # --- looks -------------------------------------------------------------------------------------------------

    def last_look(self) -> LastLook:
        """What is known of the looks so far; nothing for a source that never looked."""
        query = source_looks.select().where(source_looks.c.source == self.source)
        row = self.ledger.read(lambda c: c.execute(query).one_or_none())
        if row is None:
            return LastLook()
        return LastLook(**{name: value for name, value in row._mapping.items() if name != "source"})  # noqa: SLF001

    def note(self, **values: Any) -> None:
        """Record something about the looks: columns of ``source_looks``, ``sequence`` excepted."""
        self.ledger.write(lambda c: self.note_in(c, **values))

    def note_in(self, c: Connection, **values: Any) -> None:
        """As :meth:`note`, within a transaction."""
        insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
        new: dict[str, Any] = {"sequence": 0, "by_run": False, **values}
        statement = insert(source_looks).values(source=self.source, **new)
        kept = statement.on_conflict_do_update(index_elements=["source"], set_=values) if values else None
        c.execute(statement.on_conflict_do_nothing() if kept is None else kept)

    def frames(self, prefix: str = "") -> Iterator[pl.DataFrame]:
        """All entries whose name starts with ``prefix``, as frames of :data:`FRAME`, up to 50,000 rows each."""
        after = ""
        while True:
            names, versions, states, last = self.ledger.read(lambda c, after=after: self._page(c, prefix, after))  # type: ignore[misc]
            if names:
                yield pl.DataFrame({"name": names, "version": versions, "state": states}, schema=FRAME)
            if last is None:
                return
            after = last

    def _page(self, c: Connection, prefix: str, after: str) -> tuple[Sequence[str], Sequence[str], Sequence[str], Any]:
        columns = source_entries.c
        query = sa.select(columns.entry, columns.name, columns.version, columns.state).where(
            self._mine, columns.entry > after
        )
        if prefix:
            query = query.where(sa.func.substr(columns.name, 1, len(prefix)) == prefix)
        compiled = query.order_by(columns.entry).limit(_PAGE)
        # the driver's own tuples: a hundred thousand rows are read before a row of SQLAlchemy's is made of each
        cursor: Any = c.execute(compiled).cursor
        rows = cursor.fetchall()
        if not rows:
            return (), (), (), None
        entries, names, versions, states = zip(*rows, strict=True)
        return names, versions, states, entries[-1] if len(rows) == _PAGE else None

    def touched_since(self, moment: datetime) -> list[str]:
        """Names of entries that another look changed after this moment."""
        query = sa.select(source_entries.c.name).where(
            self._mine, sa.or_(source_entries.c.seen_at > moment, source_entries.c.gone_at > moment)
        )
        return self.ledger.read(lambda c: list(c.execute(query).scalars()))

    def write_seen(self, seen: Sequence[Seen], *, expected: int, now: datetime) -> int:
        """Write what a look found new or changed, up to :data:`BATCH` entries; the sequence after it.

        An entry that is back in the version that became a job last has nothing to wait for.

        Raises:
            LookOvertakenError: the sequence is not as expected; nothing was written.
        """
        rows = [
            {
                "source": self.source,
                "entry": entry_id(one.name, one.version),
                "name": one.name,
                "version": one.version,
                "size": one.size,
                "last_modified": one.last_modified,
                "state": one.state.value,
                "reason": one.reason,
                "seen_at": now,
                "sequence": expected + position,
            }
            for position, one in enumerate(seen, 1)
        ]

        def work(c: Connection) -> int:
            after = self._advance(c, expected, len(rows))
            c.execute(_upsert(c), rows)
            return after

        return self.ledger.write(work)

    def write_gone(self, names: Sequence[str], *, expected: int, now: datetime, problem: bool = False) -> int:
        """Let entries be gone; those of any source wait again that were refused as one of these had their partition.

        Raises:
            LookOvertakenError: as for :meth:`write_seen`.
        """
        ids = [entry_id(name, PROBLEM if problem else "") for name in names]

        def work(c: Connection) -> int:
            after = self._advance(c, expected, len(ids))
            c.execute(
                source_entries.update()
                .where(self._mine, source_entries.c.entry == sa.bindparam("b_entry"))
                .values(
                    state=EntryState.GONE.value,
                    # on the partition of one that was back for a moment it still stands that it is gone
                    reason=sa.case((source_entries.c.gone_at.is_not(None), TOLD), else_=None),
                    gone_at=now,
                    sequence=sa.bindparam("b_sequence"),
                ),
                [{"b_entry": entry, "b_sequence": expected + position} for position, entry in enumerate(ids, 1)],
            )
            for chunk in _chunks(ids, _IN_LIMIT):
                _reconsider(c, self.source, chunk)
            return after

        return self.ledger.write(work)

    def drop(self, names: Sequence[str], *, expected: int, problem: bool = False) -> int:
        """Forget entries that no longer match, though their blobs may be there.

        Raises:
            LookOvertakenError: as for :meth:`write_seen`.
        """
        ids = [entry_id(name, PROBLEM if problem else "") for name in names]

        def work(c: Connection) -> int:
            after = self._advance(c, expected, len(ids))
            for chunk in _chunks(ids, _IN_LIMIT):
                _reconsider(c, self.source, chunk)
                c.execute(source_entries.delete().where(self._mine, source_entries.c.entry.in_(chunk)))
            return after

        return self.ledger.write(work)

    def _advance(self, c: Connection, expected: int, by: int) -> int:
        """Take the next numbers of the sequence, unless another look has."""
        self.note_in(c)
        won = c.execute(
            source_looks.update()
            .where(source_looks.c.source == self.source, source_looks.c.sequence == expected)
            .values(sequence=expected + by)
        ).rowcount
        if won != 1:
            msg = (
                f"another look at the container of source '{self.source}' was faster; what it left out is found by the"
                " next one"
            )
            raise LookOvertakenError(msg)
        return expected + by

    # --- turns -------------------------------------------------------------------------------------------------

    def counts(self) -> dict[EntryState, int]:
        """How many entries there are in each state."""
        query = (
            sa.select(source_entries.c.state, sa.func.count().label("n"))
            .where(self._mine)
            .group_by(source_entries.c.state)
        )
        found = {row.state: row.n for row in self.ledger.read(lambda c: list(c.execute(query)))}
        return {state: found.get(state.value, 0) for state in EntryState}

    def incomplete(self) -> int:
        """How many entries wait for a part of theirs."""
        query = (
            sa.select(sa.func.count())
            .select_from(source_entries)
            .where(self._mine, source_entries.c.state == EntryState.WAITING.value, source_entries.c.reason.is_not(None))
        )
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def active(self) -> int:
        """How many attempts of this source wait or are at work."""
        # not by the index on sources, which has all that ever were
        mine = sa.func.coalesce(attempts.c.source, "") == self.source
        query = sa.select(sa.func.count()).select_from(attempts).where(attempts.c.status.in_(_ACTIVE), mine)
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def queued_since(self, moment: datetime) -> int:
        """How many attempts of this source were made after this moment."""
        query = (
            sa.select(sa.func.count())
            .select_from(attempts)
            .where(attempts.c.source == self.source, attempts.c.created_at > moment)
        )
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def ready(self, *, seen_before: datetime | None, after: int = 0, limit: int) -> list[Entry]:
        """Entries that wait for nothing but their turn, by sequence.

        Args:
            seen_before: only those whose version was first seen by then.
            after: only those of a later number.
            limit: most entries.
        """
        query = (
            source_entries.select()
            .where(*self._waits(seen_before), source_entries.c.sequence > after)
            .order_by(source_entries.c.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [_entry(row) for row in c.execute(query)])

    def _waits(self, seen_before: datetime | None, *, whole: bool = True) -> list[sa.ColumnElement[bool]]:
        conditions = [self._mine, source_entries.c.state == EntryState.WAITING.value]
        if whole:
            conditions.append(source_entries.c.reason.is_(None))
        if seen_before is not None:
            conditions.append(source_entries.c.seen_at <= seen_before)
        return conditions

    def holders(self, asset: str, keys: Iterable[str]) -> dict[str, set[str]]:
        """Partition key → names of the entries, of any source, that it belongs to."""
        found: dict[str, set[str]] = {}

        def query(c: Connection) -> None:
            found.clear()
            for chunk in _chunks(sorted(set(keys)), _IN_LIMIT):
                rows = c.execute(
                    sa.select(source_entries.c.partition_key, source_entries.c.name).where(
                        source_entries.c.asset == asset,
                        source_entries.c.partition_key.in_(chunk),
                        source_entries.c.state.in_([EntryState.WAITING.value, EntryState.QUEUED.value]),
                        # one that was refused remembers whose partition it could not have
                        source_entries.c.submitted_version.is_not(None),
                        self._is_configured(source_entries),
                    )
                )
                for row in rows:
                    found.setdefault(row.partition_key, set()).add(row.name)

        self.ledger.read(query)
        return found

    def other_partitions(self, assets: Collection[str], keys: Collection[str]) -> int:
        """How many partitions other than these jobs have made, or are to make, of any of the assets."""
        made = (jobs.c.asset.in_(sorted(assets)), jobs.c.withdrawn_at.is_(None))
        number = sa.func.count(jobs.c.partition_key.distinct())

        def count(c: Connection) -> int:
            of_these = (
                c.execute(sa.select(number).where(*made, jobs.c.partition_key.in_(chunk))).scalar_one()
                for chunk in _chunks(sorted(keys), _IN_LIMIT)
            )
            return int(c.execute(sa.select(number).where(*made)).scalar_one()) - sum(of_these)

        return self.ledger.read(count)

    def mark_in(self, c: Connection, marks: Sequence[Mark], now: datetime) -> None:
        """Record what a turn did with entries, up to 1,000, in the transaction that queues their jobs.

        Raises:
            LookOvertakenError: one of them changed since it was read, or another daemon was faster; the transaction is
                not to be committed.
        """
        self._require_unchanged(c, marks)
        queued = [mark for mark in marks if mark.state is EntryState.QUEUED]
        others = [mark for mark in marks if mark.state is not EntryState.QUEUED]
        one = [self._mine, source_entries.c.entry == sa.bindparam("b_entry")]
        common: dict[str, Any] = {
            "state": sa.bindparam("b_state"),
            "reason": sa.bindparam("b_reason"),
            "asset": sa.bindparam("b_asset"),
            "partition_key": sa.bindparam("b_key"),
        }
        if queued:
            submitted = {"submitted_version": sa.bindparam("b_version"), "submitted_at": now}
            c.execute(
                source_entries.update().where(*one).values(**common, **submitted),
                [{**_bound(mark), "b_version": mark.entry.version} for mark in queued],
            )
        if others:
            c.execute(source_entries.update().where(*one).values(**common), [_bound(mark) for mark in others])

    def _require_unchanged(self, c: Connection, marks: Sequence[Mark]) -> None:
        as_it_is: dict[str, tuple[str, str]] = {}
        columns = source_entries.c
        for chunk in _chunks(sorted(mark.entry.entry for mark in marks), _IN_LIMIT):
            query = sa.select(columns.entry, columns.version, columns.state)
            rows = c.execute(
                query.where(self._mine, columns.entry.in_(chunk)).order_by(columns.entry).with_for_update()
            )
            as_it_is.update({row.entry: (row.version, row.state) for row in rows})
        for mark in marks:
            if as_it_is.get(mark.entry.entry) != (mark.entry.version, EntryState.WAITING.value):
                msg = (
                    f"'{mark.entry.name}' of source '{self.source}' changed, or was queued by another daemon, in the"
                    " meantime; nothing was queued twice, and the next tick goes on"
                )
                raise LookOvertakenError(msg)

    def changed_container(self, *, seen_before: datetime | None) -> int:
        """How many entries a job about the whole container has yet to see, those that are gone among them."""
        query = (
            sa.select(sa.func.count())
            .select_from(source_entries)
            .where(sa.or_(sa.and_(*self._waits(seen_before, whole=False)), sa.and_(*self._untold_gone())))
        )
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def mark_container_in(
        self, c: Connection, *, seen_before: datetime | None, sequence: int, asset: str, partition_key: str
    ) -> int:
        """Record that a job about the whole container was queued; how many entries it is to see.

        Raises:
            LookOvertakenError: there are none any more.
        """
        now = datetime.now(UTC)
        upto = source_entries.c.sequence <= sequence
        queued = c.execute(
            source_entries.update()
            .where(*self._waits(seen_before, whole=False), upto)
            .values(
                state=EntryState.QUEUED.value,
                reason=None,
                asset=asset,
                partition_key=partition_key,
                submitted_version=source_entries.c.version,
                submitted_at=now,
                gone_at=None,
            )
        ).rowcount
        told = c.execute(source_entries.update().where(*self._untold_gone(), upto).values(reason=TOLD)).rowcount
        if queued + told == 0:
            msg = f"another daemon has queued what source '{self.source}' saw; nothing was queued twice"
            raise LookOvertakenError(msg)
        return queued + told

    # --- what is gone ------------------------------------------------------------------------------------------

    def _untold_gone(self) -> list[sa.ColumnElement[bool]]:
        return [self._mine, source_entries.c.state == EntryState.GONE.value, source_entries.c.reason.is_(None)]

    def untold(self, *, limit: int, assets: Collection[str] = ()) -> list[Presence]:
        """Entries whose partitions do not say yet that they are gone, or are back.

        Those that are gone while a job of their partition is under way are left out: what it makes is to say so, too.

        Args:
            limit: most entries.
            assets: what else has these partitions, besides the asset of the source's own workflow.
        """
        other = source_entries.alias("other")
        taken_over = (
            sa.select(sa.literal(1))
            .where(
                other.c.asset == source_entries.c.asset,
                other.c.partition_key == source_entries.c.partition_key,
                other.c.state.in_([EntryState.WAITING.value, EntryState.QUEUED.value]),
                sa.or_(other.c.source != source_entries.c.source, other.c.entry != source_entries.c.entry),
                self._is_configured(other),
            )
            .exists()
        )
        live = [self._mine, source_entries.c.state != EntryState.GONE.value, source_entries.c.gone_at.is_not(None)]
        under_way = (
            sa.select(sa.literal(1))
            .where(
                sa.or_(attempts.c.asset == source_entries.c.asset, attempts.c.asset.in_(sorted(assets))),
                attempts.c.partition_key == source_entries.c.partition_key,
                sa.or_(attempts.c.status.in_(_ACTIVE), MATERIALIZATION_OWED),
            )
            .exists()
        )
        query = (
            sa.select(source_entries, taken_over.label("taken_over"))
            .where(sa.or_(sa.and_(*self._untold_gone(), ~under_way), sa.and_(*live)))
            .order_by(source_entries.c.sequence)
            .limit(limit)
        )
        rows = self.ledger.read(lambda c: list(c.execute(query)))
        return [
            Presence(
                entry=row.entry,
                name=row.name,
                asset=row.asset,
                partition_key=row.partition_key,
                gone_at=row.gone_at,
                gone=row.state == EntryState.GONE.value,
                taken_over=bool(row.taken_over),
            )
            for row in rows
        ]

    def mark_told(self, told: Sequence[Presence]) -> None:
        """Record that their partitions say it; what changed meanwhile is told anew."""

        def work(c: Connection) -> None:
            this = [
                self._mine,
                source_entries.c.entry == sa.bindparam("b_entry"),
                source_entries.c.gone_at == sa.bindparam("b_gone_at"),
            ]
            gone = source_entries.c.state == EntryState.GONE.value
            for is_gone, condition, values in ((True, gone, {"reason": TOLD}), (False, ~gone, {"gone_at": None})):
                rows = [{"b_entry": one.entry, "b_gone_at": one.gone_at} for one in told if one.gone is is_gone]
                if rows:
                    c.execute(source_entries.update().where(*this, condition).values(**values), rows)

        self.ledger.write(work)

    def expired(self, before: datetime, *, limit: int) -> list[Entry]:
        """Entries gone before this moment of which something may be left, whose partition is nobody else's now."""
        other = source_entries.alias("other")
        needed = sa.select(sa.literal(1)).where(
            other.c.asset == source_entries.c.asset,
            other.c.partition_key == source_entries.c.partition_key,
            other.c.state != EntryState.GONE.value,
            self._is_configured(other),
        )
        query = (
            source_entries.select()
            .where(
                self._mine,
                source_entries.c.state == EntryState.GONE.value,
                source_entries.c.gone_at < before,
                source_entries.c.reason == TOLD,
                source_entries.c.partition_key.is_not(None),
                ~needed.exists(),
            )
            .order_by(source_entries.c.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [_entry(row) for row in c.execute(query)])

    def mark_taken_back(self, entries: Sequence[Entry]) -> None:
        """Record that nothing is left of what was made of these; those that are back are left alone."""

        def work(c: Connection) -> None:
            for chunk in _chunks([one.entry for one in entries], _IN_LIMIT):
                gone = source_entries.c.state == EntryState.GONE.value
                c.execute(
                    source_entries.update()
                    .where(self._mine, source_entries.c.entry.in_(chunk), gone)
                    .values(reason=TAKEN_BACK)
                )

        self.ledger.write(work)


def forget(ledger: Ledger, name: str) -> int:
    """Forget all that a source remembers, for one that is configured no more; how many entries that were.

    Nothing that was made of them is touched.  What other sources could not queue because of them waits again.
    """
    mine = source_entries.c.source == name
    some = sa.select(source_entries.c.entry).where(mine).limit(BATCH)

    def work(c: Connection) -> int:
        # a look under way is overtaken, and writes nothing more
        c.execute(source_looks.delete().where(source_looks.c.source == name))
        ids = list(c.execute(some).scalars())
        for chunk in _chunks(ids, _IN_LIMIT):
            _reconsider(c, name, chunk)
            c.execute(source_entries.delete().where(mine, source_entries.c.entry.in_(chunk)))
        return len(ids)

    forgotten = 0
    while found := ledger.write(work):
        forgotten += found
    return forgotten


def remembered(ledger: Ledger) -> list[str]:
    """Names of the sources that have ever looked, or left entries."""
    names = sa.union(sa.select(source_looks.c.source), sa.select(source_entries.c.source))
    return sorted(ledger.read(lambda c: list(c.execute(names).scalars())))


def _reconsider(c: Connection, source: str, freed: Sequence[str]) -> None:
    """Let those of any source wait that were refused because one of these entries had their partition."""
    left = source_entries.alias("left")
    partitions = sa.select(left.c.asset, left.c.partition_key).where(
        left.c.source == source, left.c.entry.in_(freed), left.c.partition_key.is_not(None)
    )
    c.execute(
        source_entries.update()
        .where(
            sa.tuple_(source_entries.c.asset, source_entries.c.partition_key).in_(partitions),
            source_entries.c.state == EntryState.REFUSED.value,
        )
        .values(state=EntryState.WAITING.value, reason=None)
    )


def _upsert(c: Connection) -> Any:
    insert = sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert
    statement = insert(source_entries)
    new, old = statement.excluded, source_entries.c
    done = sa.and_(old.state == EntryState.WAITING.value, new.reason.is_(None), new.version == old.submitted_version)
    untold = sa.and_(old.state == EntryState.GONE.value, old.reason.is_(None))
    return statement.on_conflict_do_update(
        index_elements=["source", "entry"],
        set_={
            **{name: new[name] for name in ("version", "size", "last_modified", "reason", "seen_at", "sequence")},
            "state": sa.case((done, EntryState.QUEUED.value), else_=new.state),
            # what its partitions were told has to be taken back
            "gone_at": sa.case((untold, None), else_=old.gone_at),
        },
    )


def _bound(mark: Mark) -> Mapping[str, Any]:
    return {
        "b_entry": mark.entry.entry,
        "b_state": mark.state.value,
        "b_reason": mark.reason,
        "b_asset": mark.asset,
        "b_key": mark.partition_key,
    }


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(
        entry=row.entry,
        name=row.name,
        version=row.version,
        state=EntryState(row.state),
        reason=row.reason,
        asset=row.asset,
        partition_key=row.partition_key,
        submitted_version=row.submitted_version,
        seen_at=row.seen_at,
        gone_at=row.gone_at,
        sequence=row.sequence,
    )


def _chunks[T](items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
