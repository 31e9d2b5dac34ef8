"""What a source remembers, for turns: which entries wait, and what became of those that do not.

What belongs here: reading and writing that.  What does not: making jobs of entries (``turn``).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.ledger_tables import attempts, jobs, source_entries
from geo_assets.errors import LookOvertakenError
from geo_assets.sources.register_rows import ACTIVE, TOLD, Entry, EntryState, Mark, Rows, entry_of


class Turns(Rows):
    """What turns read and write."""

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

    def held(self, *, limit: int) -> list[Entry]:
        """The first entries that are no jobs yet: those with a reason before those whose turn is to come."""
        states = [EntryState.WAITING.value, EntryState.REFUSED.value]
        columns = source_entries.c
        query = (
            source_entries.select()
            .where(self._mine, columns.state.in_(states))
            .order_by(columns.reason.is_(None), columns.state.desc(), columns.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [entry_of(row) for row in c.execute(query)])

    def active(self) -> int:
        """How many attempts of this source wait or are at work."""
        # not by the index on sources, which has all that ever were
        mine = sa.func.coalesce(attempts.c.source, "") == self.source
        query = sa.select(sa.func.count()).select_from(attempts).where(attempts.c.status.in_(ACTIVE), mine)
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def queued_since(self, moment: datetime) -> int:
        """How many attempts of this source were made after this moment, and not later than now."""
        # where the clock was put back, what was made before that lies in the future
        query = (
            sa.select(sa.func.count())
            .select_from(attempts)
            .where(attempts.c.source == self.source, attempts.c.created_at.between(moment, datetime.now(UTC)))
        )
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def ready(self, *, seen_before: datetime | None, again: bool, after: int = 0, limit: int) -> list[Entry]:
        """Entries that wait for nothing but their turn, by sequence.

        Args:
            seen_before: only those whose version was first seen by then.
            again: those that wait though they have not changed, or the others.
            after: only those of a later number.
            limit: most entries.
        """
        query = (
            source_entries.select()
            .where(*self._waits(seen_before), source_entries.c.sequence > after)
            .where(source_entries.c.again.is_not(None) if again else source_entries.c.again.is_(None))
            .order_by(source_entries.c.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [entry_of(row) for row in c.execute(query)])

    def has_waiting(self, *, after: datetime, upto: datetime) -> bool:
        """Whether an entry whose version was first seen in this time waits for nothing but its turn."""
        query = sa.select(sa.literal(1)).where(*self._waits(upto), source_entries.c.seen_at > after).limit(1)
        return self.ledger.read(lambda c: c.execute(query).first()) is not None

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
            for chunk in chunks(sorted(set(keys))):
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
                for chunk in chunks(sorted(keys))
            )
            return int(c.execute(sa.select(number).where(*made)).scalar_one()) - sum(of_these)

        return self.ledger.read(count)

    def mark_in(self, c: Connection, marks: Sequence[Mark], now: datetime, made_by: str) -> None:
        """Record what a turn did with entries, up to 1,000, in the transaction that queues their jobs.

        ``made_by`` is how these jobs were made (``edits``).

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
            submitted = {
                "submitted_version": sa.bindparam("b_version"),
                "submitted_at": now,
                "made_by": made_by,
                "again": None,
            }
            c.execute(
                source_entries.update().where(*one).values(**common, **submitted),
                [{**_bound(mark), "b_version": mark.entry.version} for mark in queued],
            )
        if others:
            c.execute(source_entries.update().where(*one).values(**common), [_bound(mark) for mark in others])

    def _require_unchanged(self, c: Connection, marks: Sequence[Mark]) -> None:
        as_it_is: dict[str, tuple[str, str]] = {}
        columns = source_entries.c
        for chunk in chunks(sorted(mark.entry.entry for mark in marks)):
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
        self,
        c: Connection,
        *,
        seen_before: datetime | None,
        sequence: int,
        asset: str,
        partition_key: str,
        made_by: str,
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
                made_by=made_by,
                again=None,
            )
        ).rowcount
        told = c.execute(source_entries.update().where(*self._untold_gone(), upto).values(reason=TOLD)).rowcount
        if queued + told == 0:
            msg = f"another daemon has queued what source '{self.source}' saw; nothing was queued twice"
            raise LookOvertakenError(msg)
        return queued + told


def _bound(mark: Mark) -> Mapping[str, Any]:
    return {
        "b_entry": mark.entry.entry,
        "b_state": mark.state.value,
        "b_reason": mark.reason,
        "b_asset": mark.asset,
        "b_key": mark.partition_key,
    }
