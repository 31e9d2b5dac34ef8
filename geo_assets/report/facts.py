"""What a report says, as plain values.

What belongs here: the values.  What does not: where they come from (``gathering``) and what they look like (``page``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from geo_assets.coremachine.ledger import FailureGroup

__all__ = ["Cell", "CollectionFacts", "Dataset", "Report", "Rings", "SourceState"]

Rings = tuple[tuple[int, ...], ...]
"""Rings of an outline, each ``lon, lat`` and then the steps from corner to corner, in units of 0.0001°."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One item."""

    collection: str
    id: str
    name: str
    """What it was made of: ``container/blob`` or ``schema.table``; else its id."""
    day: str | None
    """When it was acquired, ``YYYY-MM-DD``; else of the date the catalog goes by."""
    bytes: int
    rows: int | None
    """Of a table."""
    kind: str
    """Raster type, ``table`` …; empty where nothing is known."""
    partition: tuple[str, str] | None
    """Asset and partition in Dagster that made the item."""
    thumbnail: str | None
    """Where its picture lies: a URL without secrets."""
    rings: Rings = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class CollectionFacts:
    """One collection."""

    id: str
    title: str
    items: int
    bytes: int
    rows: int
    first_day: str | None
    last_day: str | None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """How many items of a collection have their middle in a cell of the grid."""

    collection: str
    column: int
    """From 180° W eastwards."""
    row: int
    """From 90° S northwards."""
    items: int


@dataclass(frozen=True, kw_only=True)
class SourceState:
    """How a watched container is."""

    name: str
    container: str | None
    looked_at: datetime | None
    error: str | None
    entries: Mapping[str, int]
    """State → how many blobs or datasets."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it. A part that could not be had is empty, and ``problems`` says why."""

    made_at: datetime
    stores: Sequence[tuple[str, str]]
    """(What, which), without secrets."""
    ui_url: str | None
    problems: Sequence[tuple[str, str]]
    """(Part, why)."""

    containers: int | None = None
    collections: Sequence[CollectionFacts] = ()
    """Largest first; of very many, the last stands for the rest."""
    collection_count: int = 0
    """How many there are."""
    tables: int = 0
    without_place: int = 0
    """Items whose geometry cannot be drawn."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    geometry_types: Mapping[str, int] = field(default_factory=dict)
    media_types: Mapping[str, int] = field(default_factory=dict)
    created: Mapping[str, int] = field(default_factory=dict)
    """Month ``YYYY-MM`` → items."""
    acquired: Mapping[str, int] = field(default_factory=dict)
    undated: int = 0
    """Items that only have the date of their file or load."""
    datasets: Sequence[Dataset] = ()
    """Those to be drawn one by one, largest first: all of them, or the largest beside ``cells``."""
    cells: Sequence[Cell] = ()
    cell_degrees: int = 1

    failures: Sequence[FailureGroup] = ()
    """Most frequent first."""
    queue: Mapping[str, int] = field(default_factory=dict)
    """Status → jobs."""
    sources: Sequence[SourceState] = ()

    @property
    def items(self) -> int:
        """How many items there are."""
        return sum(one.items for one in self.collections)

    @property
    def bytes(self) -> int:
        """Bytes of all assets."""
        return sum(one.bytes for one in self.collections)

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(one.rows for one in self.collections)

    @property
    def failed_jobs(self) -> int:
        """Jobs that need attention."""
        return sum(group.jobs for group in self.failures)
