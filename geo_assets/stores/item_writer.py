"""One item at a time from many threads, written to the catalog many at a time.

What belongs here: :class:`ItemWriter`, which gathers what waits while a batch is written.  What does not: the catalogs
(``catalog``, ``static_catalog``, ``pgstac``).

Handlers each have one item; a catalog takes a lock and a transaction a call.  So the first thread that comes writes
everything that waits for its collection, and those that come meanwhile are the next batch.  No timer, no size to tune:
batches grow with the load.
"""

import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from geo_assets.stores.catalog import CatalogStore, ItemOutcome

__all__ = ["ItemWriter"]

_Waiting = tuple[Mapping[str, Any], Future[ItemOutcome]]


class ItemWriter:
    """Writes single items to a catalog from many threads; collections are brought up to date by their own call."""

    def __init__(self, catalog: CatalogStore) -> None:
        self._catalog = catalog
        self._guard = threading.Lock()
        self._waiting: dict[str, list[_Waiting]] = {}
        self._at_work: set[str] = set()

    def write(self, collection_id: str, item: Mapping[str, Any]) -> ItemOutcome:
        """Write one item and return what became of it; returns when it is in the catalog.

        Raises:
            ParameterError, CatalogError, CatalogUnavailableError: as the catalog's ``upsert_items``.
        """
        mine: Future[ItemOutcome] = Future()
        with self._guard:
            self._waiting.setdefault(collection_id, []).append((item, mine))
            leads = collection_id not in self._at_work
            if leads:
                self._at_work.add(collection_id)
        if leads:
            self._write_all(collection_id)
        return mine.result()

    def _write_all(self, collection_id: str) -> None:
        """Write batch after batch until nothing waits for the collection."""
        while batch := self._next_batch(collection_id):
            try:
                outcomes = self._catalog.upsert_items(collection_id, [item for item, _ in batch], refresh=False)
                for (_, future), outcome in zip(batch, outcomes, strict=True):
                    future.set_result(outcome)
            except BaseException as error:  # noqa: BLE001 - whatever it is, everybody who waits must hear of it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    def _next_batch(self, collection_id: str) -> list[_Waiting]:
        """What waits, one of each id: the later of two writes is a batch later."""
        with self._guard:
            waiting = self._waiting.pop(collection_id, [])
            batch: dict[Any, _Waiting] = {}
            later = []
            for entry in waiting:
                if entry[0].get("id") in batch:
                    later.append(entry)
                else:
                    batch[entry[0].get("id")] = entry
            if later:
                self._waiting[collection_id] = later
            if not batch:
                self._at_work.discard(collection_id)
            return list(batch.values())
