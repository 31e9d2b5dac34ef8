"""What a source remembers of how its jobs were made: which entries an edit of the source concerns.

What belongs here: reading and writing that.  What does not: what an edit means (``edits``), and making jobs of entries
anew (``turn``).
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from geo_assets.coremachine.ledger_tables import source_entries, source_looks
from geo_assets.sources.register_rows import AGAIN, BATCH, EDITED, ELSEWHERE, OUTDATED, SETTLED, WHAT, EntryState, Rows


def made_column(made_by: str) -> sa.ColumnElement[Any]:
    """How an entry's job was made, seen from how it would be made now: a word of ``register_rows``, or null."""
    entries = source_entries.c
    queued = entries.state == EntryState.QUEUED.value
    return sa.case(
        (sa.and_(queued, ~_does_this(made_by)), ELSEWHERE),
        (sa.and_(queued, entries.made_by != made_by), OUTDATED),
        (sa.and_(*_settled(made_by)), SETTLED),
        else_=sa.null(),
    )


def _does_this(made_by: str) -> sa.ColumnElement[bool]:
    return sa.func.substr(source_entries.c.made_by, 1, WHAT) == made_by[:WHAT]


def _settled(made_by: str) -> Sequence[sa.ColumnElement[bool]]:
    entries = source_entries.c
    return (
        entries.state == EntryState.WAITING.value,
        entries.again == EDITED,
        entries.reason.is_(None),
        entries.submitted_version == entries.version,
        _does_this(made_by),
    )


class Edits(Rows):
    """What is read and written of entries whose jobs an earlier form of the source made."""

    def settle(self, made_by: str) -> int:
        """Let those wait no more that only waited because of an edit that was taken back; how many that were."""
        query = (
            source_entries.update()
            .where(self._mine, *_settled(made_by))
            .values(state=EntryState.QUEUED.value, again=None)
        )
        return self.ledger.write(lambda c: c.execute(query).rowcount)

    def made(self, other_than: str | None = None) -> int:
        """How many entries have become jobs; only those that other parameters made than these (``edits.made_by``)."""
        query = sa.select(sa.func.count()).select_from(source_entries).where(*self._made(other_than))
        return self.ledger.read(lambda c: c.execute(query).scalar_one())

    def wait_again(self, other_than: str | None = None) -> int:
        """Let entries that have become jobs wait, to become jobs anew though nothing of them changed.

        One that dies halfway is made whole by repeating it.

        Args:
            other_than: as for :meth:`made`.

        Returns:
            how many entries.
        """
        entries = source_entries.c
        mine = self._made(other_than)

        def work(c: Connection, after: str) -> tuple[int, str | None]:
            some = sa.select(entries.entry).where(*mine, entries.entry > after).order_by(entries.entry).limit(BATCH)
            last = c.execute(sa.select(sa.func.max(some.subquery().c.entry))).scalar_one()
            if last is None:
                return 0, None
            # a job about the whole container is told from the one before by this number
            looks = source_looks.update().where(source_looks.c.source == self.source)
            c.execute(looks.values(sequence=source_looks.c.sequence + 1))
            these = source_entries.update().where(*mine, entries.entry > after, entries.entry <= last)
            return c.execute(these.values(state=EntryState.WAITING.value, again=AGAIN)).rowcount, last

        number, after = 0, ""
        while True:
            some, last = self.ledger.write(lambda c, after=after: work(c, after))  # type: ignore[misc]
            number += some
            if last is None:
                return number
            after = last

    def _made(self, other_than: str | None) -> list[sa.ColumnElement[bool]]:
        entries = source_entries.c
        made = [self._mine, entries.state == EntryState.QUEUED.value]
        if other_than is None:
            return made
        return [*made, _does_this(other_than), entries.made_by != other_than]
