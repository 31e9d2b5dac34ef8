"""What a source remembers: the shape of it, and what all that reads or writes it has in common.

What belongs here: entries, and how they are told apart.  What does not: statements for looks (``register_looks``),
turns (``register_turns``) and for what is gone (``register_gone``).
"""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import source_entries, source_looks

PROBLEM, PARTS, FOLDER = "problem:", "parts:", "folder:"
"""What a version begins with that is no blob's ETag: of a name that cannot be opened, of several files, of a folder."""

TOLD = "its partitions say so"
"""Reason of an entry that is gone, once that was written on its partitions."""
TAKEN_BACK = "what was made of it is taken back"
"""Reason of an entry that is gone, once nothing in the stores is left of it."""

WHAT = 12
"""How many digits of ``made_by`` say what is made; the others say how (``edits.made_by``)."""
EDITED, AGAIN = "edited", "again"
"""Why an entry waits that has not changed: its source makes other things now, or somebody said so."""
ELSEWHERE, OUTDATED, SETTLED = "elsewhere", "outdated", "settled"
"""How the job of an entry was made: as another thing than the source makes now, or by other parameters; ``SETTLED`` is
one that only waits because of an edit that was taken back."""

BATCH = 5000
"""Entries written in one transaction."""

ACTIVE = (JobStatus.QUEUED.value, JobStatus.PROCESSING.value)
"""States of attempts that are under way."""


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
    again: str | None = None
    """Why it waits though it has not changed."""

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
    edited: bool = False
    """Whether it waits because its source makes other things now."""
    returned: bool = False
    """Whether it was gone before."""


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


def entry_of(row: sa.Row[Any]) -> Entry:
    """The entry of a row."""
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
        again=row.again,
    )


class Rows:
    """The rows of one source; every method is a transaction, but for those that are given a connection."""

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

    def _untold_gone(self) -> list[sa.ColumnElement[bool]]:
        return [self._mine, source_entries.c.state == EntryState.GONE.value, source_entries.c.reason.is_(None)]
