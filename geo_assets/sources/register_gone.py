"""What a source remembers, for what is gone: what is yet to be said, due to be taken back, and may be forgotten.

What belongs here: reading and writing that.  What does not: saying it (``assets.source_presence``), and taking back
(``removal``).
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.ledger import FAILED_STATUSES
from geo_assets.coremachine.ledger_tables import MATERIALIZATION_OWED, attempts, jobs, source_entries
from geo_assets.sources.register_rows import ACTIVE, TAKEN_BACK, TOLD, Entry, EntryState, Presence, Rows, entry_of


class Gone(Rows):
    """What is read and written of entries that are gone, or back."""

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
                sa.or_(attempts.c.status.in_(ACTIVE), MATERIALIZATION_OWED),
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

    def expired(self, before: datetime, *, limit: int, after: int = 0) -> list[Entry]:
        """Entries gone before this moment of which something may be left, whose partition is nobody else's now.

        Args:
            before: the moment; aware.
            limit: most entries, by sequence.
            after: only entries with a later number.
        """
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
                source_entries.c.sequence > after,
                source_entries.c.gone_at < before,
                source_entries.c.reason == TOLD,
                source_entries.c.partition_key.is_not(None),
                ~needed.exists(),
            )
            .order_by(source_entries.c.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [entry_of(row) for row in c.execute(query)])

    def over(
        self, told_before: datetime, *, takes_back: bool, limit: int, after: int = 0
    ) -> list[tuple[str, int, str | None, str | None]]:
        """Entries of which nothing is to be done any more: entry, sequence, asset and partition key, by sequence.

        What was made of them is taken back, or their partitions say for long that they are gone.  Those with a job that
        needs attention are left out: that its blob is gone is told by its entry.

        Args:
            told_before: since when, at least; aware.
            takes_back: whether those with a partition wait for being taken back, however long.
            limit: most entries.
            after: only entries with a later number.
        """
        needs_attention = sa.select(sa.literal(1)).where(
            jobs.c.asset == source_entries.c.asset,
            jobs.c.partition_key == source_entries.c.partition_key,
            jobs.c.status.in_([status.value for status in FAILED_STATUSES]),
            jobs.c.withdrawn_at.is_(None),
        )
        columns = source_entries.c
        query = (
            sa.select(columns.entry, columns.sequence, columns.asset, columns.partition_key)
            .where(*self._is_over(told_before, takes_back=takes_back), ~needs_attention.exists())
            .where(columns.sequence > after)
            .order_by(columns.sequence)
            .limit(limit)
        )
        return self.ledger.read(lambda c: [tuple(row) for row in c.execute(query)])

    def forget_over(self, entries: Sequence[str], told_before: datetime, *, takes_back: bool) -> int:
        """Forget entries that are :meth:`over`; how many. Those that are back, or gone anew, are left alone."""
        conditions = self._is_over(told_before, takes_back=takes_back)

        def work(c: Connection) -> int:
            some = (
                source_entries.delete().where(*conditions, source_entries.c.entry.in_(ids)) for ids in chunks(entries)
            )
            return sum(c.execute(query).rowcount for query in some)

        return self.ledger.write(work)

    def _is_over(self, told_before: datetime, *, takes_back: bool) -> list[sa.ColumnElement[bool]]:
        columns = source_entries.c
        told = [columns.reason == TOLD, columns.gone_at < told_before]
        if takes_back:
            told.append(columns.partition_key.is_(None))
        over = sa.or_(columns.reason == TAKEN_BACK, sa.and_(*told))
        return [self._mine, columns.state == EntryState.GONE.value, over]

    def mark_taken_back(self, entries: Sequence[Entry]) -> None:
        """Record that nothing is left of what was made of these; those that are back are left alone."""

        def work(c: Connection) -> None:
            for chunk in chunks([one.entry for one in entries]):
                gone = source_entries.c.state == EntryState.GONE.value
                c.execute(
                    source_entries.update()
                    .where(self._mine, source_entries.c.entry.in_(chunk), gone)
                    .values(reason=TAKEN_BACK, made_by=None)
                )

        self.ledger.write(work)
