"""Catalog stores: where STAC items and collections are kept, behind one interface.

What belongs here: the protocol, the outcomes, what every implementation decides alike, and
:func:`open_catalog_store`, which picks one by the settings.  What does not: making items (``geo_assets.stac``).

A store upserts: an item that says the same as the one there is not written, one that differs replaces it and keeps
its ``created``.  It gives one outcome for each item it was given, in order, and refuses one whose id belongs to
another blob.  Links to root, parent, collection and self are the store's business: they are taken off what comes in
and what goes out.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from geo_assets.errors import DamagedItemError
from geo_assets.settings import Settings
from geo_assets.stac.collections import CollectionDescription
from geo_assets.stac.items import DescribedBlob, described_thing, same_item, without_nulls, without_structural_links
from geo_assets.stac.validation import item_problems

__all__ = [
    "CatalogStore",
    "DamagedItem",
    "ItemOutcome",
    "ItemReferences",
    "ItemStatus",
    "UpsertPlan",
    "open_catalog_store",
    "present_item",
    "references_of",
]


class ItemStatus(StrEnum):
    """What became of one item."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    SKIPPED = "skipped"
    INVALID = "invalid"
    DELETED = "deleted"
    ABSENT = "absent"


@dataclass(frozen=True)
class ItemOutcome:
    """What became of one item, and why where that is not plain."""

    item_id: str
    status: ItemStatus
    reason: str | None = None

    @property
    def written(self) -> bool:
        """Whether the catalog holds something new."""
        return self.status in (ItemStatus.CREATED, ItemStatus.UPDATED)


@dataclass(frozen=True, kw_only=True)
class ItemReferences:
    """What an item points at, and who made it."""

    item_id: str
    blob: tuple[str, str] | None
    """Container and blob that it describes."""
    table: tuple[str, str] | None
    """Schema and table that it describes."""
    job_id: str | None
    hrefs: tuple[str, ...]
    """Of its assets."""


@dataclass(frozen=True, kw_only=True)
class DamagedItem:
    """What lies where an item should be and is none; only files can be that."""

    item_id: str
    """As far as the name of the file tells."""
    reason: str
    """Which file, and what is wrong with it."""


class CatalogStore(Protocol):
    """STAC collections and their items; safe to use from several threads, processes and machines at once."""

    @property
    def description(self) -> str:
        """What store this is, for messages; without credentials."""
        ...

    def upsert_items(
        self, collection_id: str, items: Iterable[Mapping[str, Any]], *, refresh: bool = True
    ) -> list[ItemOutcome]:
        """Write items to a collection, which is created if it is not there.

        Args:
            collection_id: the collection; the items' own ``collection`` is set to it.
            items: STAC items, whole.
            refresh: bring the collection's extent, summaries and (in files) item links and mirror up to date. With
                ``False`` that is left to a later :meth:`refresh_collection`, for writing one item at a time.

        Returns:
            One outcome an item, in order.

        Raises:
            ParameterError: the collection id cannot be one.
            CatalogUnavailableError: the catalog cannot be reached; try again.
            CatalogError: the catalog does not hold what was written to it, or is damaged.
        """
        ...

    def delete_items(self, collection_id: str, item_ids: Iterable[str]) -> list[ItemOutcome]:
        """Remove items and bring the collection up to date; one outcome an id, ``deleted`` or ``absent``."""
        ...

    def get_item(self, collection_id: str, item_id: str) -> dict[str, Any] | None:
        """One item; ``None`` if it is not there.

        Raises:
            DamagedItemError: something else lies in its place; :func:`present_item` is for those who write it anew.
        """
        ...

    def iter_items(self, collection_id: str) -> Iterator[dict[str, Any]]:
        """All items of a collection; none if that is not there.

        Raises:
            DamagedItemError: one is damaged.
        """
        ...

    def described_blobs(self, collection_id: str, *, container: str | None = None) -> dict[str, DescribedBlob]:
        """Id → blob, of every item of a collection that describes a blob, of this container if one is named.

        What is damaged describes nothing.
        """
        ...

    def iter_references(self, collection_id: str) -> Iterator[ItemReferences | DamagedItem]:
        """What each item of a collection points at, a page in memory at a time; nothing if that is not there."""
        ...

    def iter_overviews(self, collection_id: str) -> Iterator[dict[str, Any] | DamagedItem]:
        """All items of a collection, of each at least what an overview of very many shows, a page in memory at a time.

        That is: id, bbox, geometry; of the properties datetime, start_datetime, created, table:row_count and those
        that begin with ``geo_assets:``; of the assets href, type, roles and file:size.
        """
        ...

    def count_items(self, collection_id: str) -> int:
        """How many items a collection holds."""
        ...

    def ensure_collection(self, described: CollectionDescription) -> dict[str, Any]:
        """Create a collection if it is not there; returns its document."""
        ...

    def get_collection(self, collection_id: str) -> dict[str, Any] | None:
        """A collection's document; ``None`` if it is not there."""
        ...

    def list_collections(self) -> list[str]:
        """The ids of all collections, sorted."""
        ...

    def refresh_collection(self, collection_id: str) -> dict[str, Any] | None:
        """Bring extent, summaries, links and mirror up to date; returns the document, ``None`` if it is not there."""
        ...

    def delete_collection(self, collection_id: str) -> bool:
        """Remove a collection with all its items; whether it was there."""
        ...

    def close(self) -> None:
        """Give back connections; the store is not used afterwards."""
        ...


class UpsertPlan:
    """What to do with a batch of items, the same for every store.

    Made of the items alone; :meth:`decide` then compares with those that are there.
    """

    def __init__(self, collection_id: str, items: Iterable[Mapping[str, Any]]) -> None:
        self.outcomes: list[ItemOutcome] = []
        """One an item, in order; those of candidates are settled by :meth:`decide`."""
        self._candidates: dict[str, tuple[int, dict[str, Any]]] = {}
        by_id: defaultdict[str, list[int]] = defaultdict(list)
        plain = [{**without_nulls(without_structural_links(item)), "collection": collection_id} for item in items]
        for position, item in enumerate(plain):
            item_id = str(item.get("id", ""))
            problems = item_problems(item)
            if problems:
                self.outcomes.append(ItemOutcome(item_id, ItemStatus.INVALID, "; ".join(problems)))
            else:
                self.outcomes.append(ItemOutcome(item_id, ItemStatus.UNCHANGED))
                by_id[item_id].append(position)
        for item_id, positions in by_id.items():
            self._choose(item_id, positions, plain)

    def _choose(self, item_id: str, positions: Sequence[int], plain: Sequence[dict[str, Any]]) -> None:
        """Of several items with one id the last counts, if all describe the same blob."""
        things = {described_thing(plain[position]) for position in positions}
        if len(things) > 1:
            names = ", ".join(sorted("/".join(thing) for thing in things if thing is not None))
            for position in positions:
                self.outcomes[position] = ItemOutcome(
                    item_id, ItemStatus.INVALID, f"several blobs claim this id: {names}; use the id rule container_path"
                )
            return
        for position in positions[:-1]:
            self.outcomes[position] = ItemOutcome(
                item_id, ItemStatus.SKIPPED, "a later item of the same batch has this id"
            )
        self._candidates[item_id] = (positions[-1], plain[positions[-1]])

    @property
    def candidate_ids(self) -> list[str]:
        """Ids of the items that are worth comparing, each once."""
        return list(self._candidates)

    def decide(self, existing: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Settle all outcomes and return the items to write.

        Args:
            existing: the items of those ids that are there, by id.
        """
        to_write = []
        for item_id, (position, item) in self._candidates.items():
            present = existing.get(item_id)
            owner, thing = (None if present is None else described_thing(present)), described_thing(item)
            if present is None:
                outcome = ItemOutcome(item_id, ItemStatus.CREATED)
            elif owner is not None and thing is not None and owner != thing:
                outcome = ItemOutcome(
                    item_id, ItemStatus.INVALID, f"the id is taken by {'/'.join(owner)}; use the id rule container_path"
                )
            elif same_item(present, item):
                outcome = ItemOutcome(item_id, ItemStatus.UNCHANGED)
            else:
                outcome = ItemOutcome(item_id, ItemStatus.UPDATED)
                created = present.get("properties", {}).get("created")
                if created is not None:
                    item = {**item, "properties": {**item["properties"], "created": created}}  # noqa: PLW2901
            self.outcomes[position] = outcome
            if outcome.written:
                to_write.append(item)
        return to_write


def references_of(item: Mapping[str, Any]) -> ItemReferences:
    """What an item points at; of the item, ``id``, ``assets`` and the ``geo_assets:`` properties are looked at."""
    properties = item.get("properties") or {}
    said = {
        name: value
        for name in ("container", "blob", "schema", "table", "job_id")
        if isinstance(value := properties.get(f"geo_assets:{name}"), str)
    }
    assets = item.get("assets") or {}
    hrefs = [asset.get("href") for asset in assets.values() if isinstance(asset, Mapping)]
    return ItemReferences(
        item_id=item["id"],
        blob=_pair(said, "container", "blob"),
        table=_pair(said, "schema", "table"),
        job_id=said.get("job_id"),
        hrefs=tuple(href for href in hrefs if isinstance(href, str)),
    )


def _pair(said: Mapping[str, str], holder: str, name: str) -> tuple[str, str] | None:
    return (said[holder], said[name]) if holder in said and name in said else None


def present_item(catalog: CatalogStore, collection_id: str, item_id: str) -> dict[str, Any] | None:
    """One item; ``None`` if it is not there, or is damaged and has to be written anew."""
    try:
        return catalog.get_item(collection_id, item_id)
    except DamagedItemError:
        return None


def open_catalog_store(settings: Settings) -> CatalogStore:
    """Open the catalog the settings name: pgSTAC where they hold a URL, else files in the home.

    Raises:
        SettingsError: the URL is not one of PostgreSQL.
        CatalogUnavailableError: the database cannot be reached.
        CatalogError: its pgSTAC is newer than ours.
    """
    # each store is imported where it is wanted: arrow and the database driver are slow to load
    if settings.catalog_url is not None:
        from geo_assets.stores.pgstac import PgstacCatalog  # noqa: PLC0415

        return PgstacCatalog(settings.catalog_url.get_secret_value(), batch_size=settings.catalog_batch_size)
    from geo_assets.stores.static_catalog import StaticCatalog  # noqa: PLC0415

    return StaticCatalog(settings.catalog_path)
