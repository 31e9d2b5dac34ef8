"""What a source remembers, for looks: what was seen, in which version, and when all of it was looked at last.

What belongs here: reading and writing that, and forgetting it.  What does not: what is compared with it (``look``).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import BEGINNING_LENGTH, Text, jobs, source_entries, source_looks
from geo_assets.errors import LookOvertakenError
from geo_assets.sources.register_edits import made_column
from geo_assets.sources.register_rows import (
    BATCH,
    EDITED,
    PROBLEM,
    TAKEN_BACK,
    TOLD,
    EntryState,
    LastLook,
    Rows,
    Seen,
    entry_id,
)

_PAGE = 50_000
_LAST_CHARACTER = "\U0010ffff"
FRAME = {"name": pl.String(), "version": pl.String(), "state": pl.String(), "made": pl.String()}
"""Columns of :meth:`Register.frames`."""
# one that is at work may just have missed what was gone
_STANDING = (JobStatus.QUEUED.value, JobStatus.COMPLETED.value)


class Looks(Rows):
    """What looks read and write."""

    def last_look(self) -> LastLook:
        """What is known of the looks so far; nothing for a source that never looked."""
        query = source_looks.select().where(source_looks.c.source == self.source)
        row = self.ledger.read(lambda c: c.execute(query).one_or_none())
        if row is None:
            return LastLook()
        return LastLook(**{name: value for name, value in row._mapping.items() if name != "source"})  # noqa: SLF001

    def frames(self, prefix: str = "", *, made_by: str) -> Iterator[pl.DataFrame]:
        """All entries whose name starts with ``prefix``, as frames of :data:`FRAME`, up to 50,000 rows each.

        ``made`` is a word of ``register_rows`` where the entry's job is not as ``made_by`` makes it (``edits``).
        """
        after = ("", "")
        while True:
            *page, last = self.ledger.read(lambda c, after=after: self._page(c, prefix, made_by, after))  # type: ignore[misc]
            if page[0]:
                yield pl.DataFrame(dict(zip(FRAME, page, strict=True)), schema=FRAME)
            if last is None:
                return
            after = last

    def _page(self, c: Connection, prefix: str, made_by: str, after: tuple[str, str]) -> tuple[Any, ...]:
        columns = source_entries.c
        query = sa.select(columns.entry, columns.name, columns.version, columns.state, made_column(made_by))
        if prefix:
            query = query.where(*_begins_with(prefix, *after)).order_by(columns.beginning, columns.entry)
        else:
            query = query.where(columns.entry > after[1]).order_by(columns.entry)
        # the driver's own tuples: a hundred thousand rows are read before a row of SQLAlchemy's is made of each
        cursor: Any = c.execute(query.where(self._mine).limit(_PAGE)).cursor
        rows = cursor.fetchall()
        if not rows:
            return (), (), (), (), None
        entries, *page = zip(*rows, strict=True)
        return *page, (page[0][-1][:BEGINNING_LENGTH], entries[-1]) if len(rows) == _PAGE else None

    def touched_since(self, moment: datetime) -> list[str]:
        """Names of entries that another look changed after this moment."""
        query = sa.select(source_entries.c.name).where(
            self._mine, sa.or_(source_entries.c.seen_at > moment, source_entries.c.gone_at > moment)
        )
        return self.ledger.read(lambda c: list(c.execute(query).scalars()))

    def standing(self, seen: Sequence[Seen], asset: str) -> set[str]:
        """Ids of those that are back as they went, and need no other job; see :meth:`write_seen`."""
        return self.ledger.read(lambda c: self._standing(c, seen, asset))

    def _standing(self, c: Connection, seen: Sequence[Seen], asset: str) -> set[str]:
        versions = {entry_id(one.name, one.version): one.version for one in seen if one.returned and one.reason is None}
        mine, other, later = source_entries.c, source_entries.alias("other"), jobs.alias("later")
        newest = sa.select(sa.func.max(later.c.latest_attempt)).where(
            later.c.asset == jobs.c.asset, later.c.partition_key == jobs.c.partition_key
        )
        stands = sa.select(sa.literal(1)).where(
            jobs.c.asset == mine.asset,
            jobs.c.partition_key == mine.partition_key,
            jobs.c.latest_attempt == newest.scalar_subquery(),
            jobs.c.status.in_(_STANDING),
            jobs.c.withdrawn_at.is_(None),
        )
        # who had the partition meanwhile may have made something else of it
        shared = sa.select(sa.literal(1)).where(
            other.c.asset == mine.asset,
            other.c.partition_key == mine.partition_key,
            sa.or_(other.c.source != mine.source, other.c.entry != mine.entry),
        )
        query = sa.select(mine.entry, mine.submitted_version).where(
            self._mine,
            mine.state == EntryState.GONE.value,
            sa.func.coalesce(mine.reason, "") != TAKEN_BACK,
            mine.asset == asset,
            mine.again.is_(None),
            stands.exists(),
            ~shared.exists(),
        )
        rows = [row for chunk in chunks(sorted(versions)) for row in c.execute(query.where(mine.entry.in_(chunk)))]
        return {row.entry for row in rows if row.submitted_version == versions[row.entry]}

    def write_seen(self, seen: Sequence[Seen], *, expected: int, now: datetime, asset: str | None = None) -> int:
        """Write what a look found new or changed, up to :data:`BATCH` entries; the sequence after it.

        An entry that is back in the version that became a job last has nothing to wait for: if it was whole meanwhile,
        or if it was gone and what that job made of it stands.

        Args:
            seen: what was found.
            expected: the sequence as it is believed to be.
            now: when it was found.
            asset: what a job an entry is about; ``None``: nothing stands of what was gone.

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
                "again": EDITED if one.edited else None,
            }
            for position, one in enumerate(seen, 1)
        ]

        def work(c: Connection) -> int:
            after = self._advance(c, expected, len(rows))
            standing = self._standing(c, seen, asset) if asset is not None else ()
            queued = {"state": EntryState.QUEUED.value}
            c.execute(_upsert(c), [{**row, **queued} if row["entry"] in standing else row for row in rows])
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
            for chunk in chunks(ids):
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
            for chunk in chunks(ids):
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


def _begins_with(prefix: str, beginning: str, entry: str) -> list[sa.ColumnElement[bool]]:
    """That a name begins with the prefix and comes after this one in the order of the index on beginnings."""
    columns, start = source_entries.c, prefix[:BEGINNING_LENGTH]
    upto, start = start + _LAST_CHARACTER * BEGINNING_LENGTH, max(start, beginning)
    conditions = [columns.beginning.between(start, upto), sa.or_(columns.beginning > start, columns.entry > entry)]
    if len(prefix) > BEGINNING_LENGTH:
        conditions.append(sa.func.substr(columns.name, 1, len(prefix), type_=Text) == prefix)
    return conditions


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
        for chunk in chunks(ids):
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
    done = sa.and_(
        old.state == EntryState.WAITING.value,
        old.again.is_(None),
        new.reason.is_(None),
        new.version == old.submitted_version,
    )
    untold = sa.and_(old.state == EntryState.GONE.value, old.reason.is_(None))
    return statement.on_conflict_do_update(
        index_elements=["source", "entry"],
        set_={
            **{name: new[name] for name in ("version", "size", "last_modified", "reason", "seen_at", "sequence")},
            "state": sa.case((done, EntryState.QUEUED.value), else_=new.state),
            "again": sa.func.coalesce(old.again, new.again),
            # what its partitions were told has to be taken back
            "gone_at": sa.case((untold, None), else_=old.gone_at),
        },
    )
