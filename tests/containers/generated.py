"""A store that makes up its listing, for tests and benchmarks of what is too large to write.

What belongs here: :class:`GeneratedStore`.  What does not: data; it can only be listed.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from geo_assets.stores.blobs import Detail
from geo_assets.stores.memory import MemoryBlobStore
from geo_assets.stores.obstore_values import batch_of_rows

EPOCH = datetime(2025, 1, 1, tzinfo=UTC)


class Blob(NamedTuple):
    """One made-up blob."""

    name: str
    size: int = 1
    days: float = 0.0
    """Last modified: days after 1 January 2025."""
    problem: str | None = None


class GeneratedStore(MemoryBlobStore):
    """Lists the blobs it was given, batch by batch, whatever the container; counts the batches that were taken."""

    def __init__(self, batches: Iterable[Iterable[Blob]]) -> None:
        super().__init__()
        self.batches = batches
        self.taken = 0
        self.prefixes: list[str] = []

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the batches; those without a match give none. Only the basic detail is made up."""
        assert detail == "basic"
        self.prefixes.append(prefix)
        for batch in self.batches:
            self.taken += 1
            rows: list[Any] = [
                (blob.name, blob.size, EPOCH + timedelta(days=blob.days), f'"{blob.name}-{blob.size}"', blob.problem)
                for blob in batch
                if blob.name.startswith(prefix)
            ]
            if rows:
                yield batch_of_rows(rows)
