"""One item at a time from many threads, written to the catalog many at a time.

What belongs here: :class:`ItemWriter`, which gathers what waits while a batch is written.  What does not: the catalogs
(``catalog``, ``static_catalog``, ``pgstac``), and bringing collections up to date, which is the catalog's own call.

Handlers each have one item; a catalog takes a lock and a transaction a call.  So the first thread that comes writes
everything that waits for its collection, and those that come meanwhile are the next batch, which one of them writes.
No timer, no size to tune: batches grow with the load.
"""

import copy
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from geo_assets.errors import CatalogError, CatalogUnavailableError
from geo_assets.stores.catalog import CatalogStore, ItemOutcome

__all__ = ["ItemWriter"]


@dataclass(frozen=True, eq=False)
class _Entry:
    """An item that waits to be written, and what becomes of it."""

    item: Mapping[str, Any]
    result: Future[ItemOutcome] = field(default_factory=Future)

    @property
    def item_id(self) -> str:
        return str(self.item.get("id", ""))


class ItemWriter:
    """Writes single items to a catalog from many threads.

    It belongs to the process that made it: a forked child makes its own.
    """

    def __init__(self, catalog: CatalogStore) -> None:
        self._catalog = catalog
        self._changed = threading.Condition()
        self._waiting: dict[str, list[_Entry]] = {}
        self._busy: set[str] = set()

    def write(self, collection_id: str, item: Mapping[str, Any]) -> ItemOutcome:
        """Write one item and return what became of it; returns when it is in the catalog.

        Of two writes of one id, the later is a batch later, as if it had come alone.  An outage is raised to all whose
        items were in the batch; a damaged or refusing catalog only where the item fails alone, too.

        Raises:
            ParameterError, CatalogError, CatalogUnavailableError: as the catalog's ``upsert_items``.
        """
        mine = _Entry(item)
        with self._queued(collection_id, mine):
            while batch := self._batch_to_write(collection_id, mine):
                try:
                    self._settle(collection_id, batch)
                finally:
                    self._end(collection_id, batch)
        return mine.result.result()

    @contextmanager
    def _queued(self, collection_id: str, mine: _Entry) -> Iterator[None]:
        """Have an entry wait; whoever is interrupted meanwhile takes it along."""
        with self._changed:
            self._waiting.setdefault(collection_id, []).append(mine)
        try:
            yield
        finally:
            with self._changed:
                waiting = self._waiting.get(collection_id, [])
                if mine in waiting:
                    waiting.remove(mine)

    def _batch_to_write(self, collection_id: str, mine: _Entry) -> list[_Entry]:
        """Wait until an entry is settled (nothing is left to do), or nobody writes: what the caller then writes."""
        with self._changed:
            self._changed.wait_for(lambda: mine.result.done() or collection_id not in self._busy)
            if mine.result.done():
                return []
            batch: dict[str, _Entry] = {}
            waiting = self._waiting.pop(collection_id)
            # two of one id in one call would have the earlier skipped, or both refused
            later = [entry for entry in waiting if batch.setdefault(entry.item_id, entry) is not entry]
            self._waiting[collection_id] = later
            self._busy.add(collection_id)
            return list(batch.values())

    def _settle(self, collection_id: str, batch: Sequence[_Entry]) -> None:
        try:
            outcomes = self._catalog.upsert_items(collection_id, [entry.item for entry in batch], refresh=False)
            # paired before any is told: an outcome too few must reach all
            for entry, outcome in list(zip(batch, outcomes, strict=True)):
                entry.result.set_result(outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, everybody who waits must hear of it
            if isinstance(error, CatalogError) and len(batch) > 1:
                # it may be about one of them, such as a damaged file: the others must not fail for it
                for entry in batch:
                    self._settle(collection_id, [entry])
                return
            for entry in batch:
                entry.result.set_exception(_own(error))

    def _end(self, collection_id: str, batch: Sequence[_Entry]) -> None:
        """Let go those whose items were in a batch, and the next one write."""
        with self._changed:
            for entry in batch:
                if not entry.result.done():
                    message = (
                        f"the item '{entry.item_id}' of '{collection_id}' may not have been written to"
                        f" {self._catalog.description}: the thread that wrote was interrupted; run the job again"
                    )
                    entry.result.set_exception(CatalogUnavailableError(message))
            self._busy.discard(collection_id)
            self._changed.notify_all()


def _own(error: BaseException) -> BaseException:
    """A copy for each thread that raises it: tracebacks must not grow into each other."""
    try:
        own = copy.copy(error)
    except TypeError:  # an exception that cannot be made of its arguments
        return error
    own.__cause__ = error.__cause__
    return own.with_traceback(error.__traceback__)
