"""The stores' side: listings of containers, tables and items as frames that fit beside the ledger's.

What belongs here: reading each store once, several listings at a time, in memory that does not grow with them.  What
does not: comparing (``compare``), and looking at single things (``judge``).

A store that cannot be read is a *problem* with its reason; whoever needs it says that nothing is known.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import unquote

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.errors import ContainerNotFoundError, GeoAssetsError
from geo_assets.jobs.raster_cataloguing import ITEM_ASSET as RASTER_ITEM_ASSET
from geo_assets.jobs.vector_cataloguing import ITEM_ASSET as TABLE_ITEM_ASSET
from geo_assets.jobs.vector_staging import KEPT_SECONDS, staged_by
from geo_assets.reconciliation.findings import Fate
from geo_assets.reconciliation.recorded import PAIRS
from geo_assets.redaction import redact
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.catalog import CatalogStore, DamagedItem, ItemReferences
from geo_assets.stores.tables import TableStore

__all__ = ["DAMAGED", "REFERENCES", "THERE", "Looks", "Staged", "blob_of_href", "root_of"]

THERE: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "collection": pl.String(),
    "name": pl.String(),
    "version": pl.String(),
    "modified": pl.Datetime("us", "UTC"),
    "ours": pl.Boolean(),
    "about_holder": pl.String(),
    "about_name": pl.String(),
    "job_id": pl.String(),
    "problem": pl.String(),
}
"""Columns of what is there. ``ours``: lies in a container that we write to, or in the register of tables; ``version``
of an item: the kind of what it is about, or that it is damaged; ``problem`` of a blob: why it cannot be opened."""
DAMAGED = "damaged"
REFERENCES: dict[str, pl.DataType] = {
    "kind": pl.String(),
    "collection": pl.String(),
    "name": pl.String(),
    "item_collection": pl.String(),
    "item_id": pl.String(),
    "job_id": pl.String(),
    "described": pl.Boolean(),
}
"""Columns of what items point at: a blob of our stores, or a table. ``described``: it is what the item is about."""
_AT_ONCE = 8
_ROWS = 5000


@dataclass(kw_only=True)
class Staged:
    """The container of prepared loads."""

    total: int = 0
    counts: Counter[Fate] = field(default_factory=Counter)
    left_behind: dict[str, int] = field(default_factory=dict)
    """Folder of a load → blobs in it, older than a day."""
    unknown: list[str] = field(default_factory=list)
    problem: str | None = None


class Looks:
    """Reads the stores into buckets.

    Args:
        services: ``blobs``, ``catalog``, ``tables`` and ``settings`` are used, those that are asked for.
        there: takes what is there.
        references: takes what items point at.
        pairs: takes the partitions that the catalog's items explain; ``None``: nobody asks.
        progress: told how many rows were read.
    """

    def __init__(
        self,
        services: Mapping[str, Any],
        *,
        there: Buckets,
        references: Buckets,
        pairs: Buckets | None,
        progress: Callable[[str, int], None],
    ) -> None:
        self._services = services
        self._there, self._references, self._pairs = there, references, pairs
        self._progress = progress
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self.problems: dict[str, str] = {}
        """``storage``, ``tables`` or ``catalog`` → why it could not be read."""
        self.totals: Counter[str] = Counter()
        """``blobs`` in containers of ours, ``tables`` in the register, ``items``, ``blob references``, ``table
        references``."""
        self.referenced: set[str] = set()
        """Containers that items point into."""
        self.referenced_schemas: set[str] = set()
        """Schemas whose tables items describe."""

    # --- catalog

    def read_catalog(self) -> None:
        """All items of all collections."""
        try:
            catalog: CatalogStore = self._services["catalog"]
            blobs: BlobStore = self._services["blobs"]
            settings: Settings = self._services["settings"]
            root = root_of(blobs, settings.silver_container)
            collections = catalog.list_collections()
        except GeoAssetsError as error:
            self.problems["catalog"] = _said(error)
            return
        self._side_by_side("catalog", [partial(self._read_collection, catalog, one, root) for one in collections])

    def _read_collection(self, catalog: CatalogStore, collection: str, root: str) -> None:
        items: list[dict[str, Any]] = []
        references: list[dict[str, Any]] = []
        for item in catalog.iter_references(collection):
            if isinstance(item, DamagedItem):
                items.append(_damaged_row(collection, item))
            else:
                items.append(_item_row(collection, item))
                references += _reference_rows(collection, item, root)
            if len(items) >= _ROWS:
                self._add_items(items, references)
                items, references = [], []
        self._add_items(items, references)

    def _add_items(self, items: list[dict[str, Any]], references: list[dict[str, Any]]) -> None:
        with self._lock:
            if items:
                self._there.add(pl.DataFrame(items, schema=THERE))
            if references:
                self._references.add(pl.DataFrame(references, schema=REFERENCES))
            if self._pairs is not None and (rows := [row for item in items for row in _pair_rows(item)]):
                self._pairs.add(pl.DataFrame(rows, schema=PAIRS))
            self.totals["items"] += len(items)
            for row in references:
                self.totals[f"{row['kind']} references"] += 1
                (self.referenced if row["kind"] == "blob" else self.referenced_schemas).add(row["collection"])
            self._tell("items", len(items))

    # --- tables

    def read_tables(self, schemas: Iterable[str]) -> None:
        """The register, and whatever else is in these schemas."""
        try:
            tables: TableStore = self._services["tables"]
            known: set[tuple[str, str]] = set()
            rows: list[dict[str, Any]] = []
            for record in tables.records():
                known.add((record.schema, record.table))
                job_id = record.loads[-1].job_id if record.loads else None
                rows.append(_table_row(record.schema, record.table, record.version, job_id=job_id))
            registered = len(rows)
            for schema in sorted(set(schemas)):
                rows += [
                    _table_row(schema, table, None)
                    for table in tables.list_tables(schema)
                    if (schema, table) not in known
                ]
        except GeoAssetsError as error:
            self.problems["tables"] = _said(error)
            return
        with self._lock:
            if rows:
                self._there.add(pl.DataFrame(rows, schema=THERE))
            self.totals["tables"] = registered
            self._tell("tables", len(rows))

    # --- storage

    def read_containers(self, ours: Iterable[str], others: Iterable[str]) -> None:
        """Every blob of these containers; one that is not there holds none."""
        mine = set(ours)
        wanted = sorted({*mine, *others})
        try:
            blobs: BlobStore = self._services["blobs"]
        except GeoAssetsError as error:
            self.problems["storage"] = _said(error)
            return
        self._side_by_side("storage", [partial(self._read_container, blobs, one, ours=one in mine) for one in wanted])

    def _read_container(self, blobs: BlobStore, container: str, *, ours: bool) -> None:
        try:
            for batch in blobs.list_blobs(container):
                listed = pl.DataFrame(pl.from_arrow(batch.select(["name", "etag", "last_modified", "problem"])))
                frame = listed.select(
                    pl.lit("blob").alias("kind"),
                    pl.lit(container).alias("collection"),
                    pl.col("name").cast(pl.String),
                    pl.col("etag").cast(pl.String).alias("version"),
                    pl.col("last_modified").cast(pl.Datetime("us", "UTC")).alias("modified"),
                    pl.lit(ours).alias("ours"),
                    *(pl.lit(None, pl.String).alias(name) for name in ("about_holder", "about_name", "job_id")),
                    pl.col("problem").cast(pl.String),
                )
                with self._lock:
                    self._there.add(frame)
                    self.totals["blobs"] += frame.height if ours else 0
                    self._tell("blobs", frame.height)
        except ContainerNotFoundError:
            return

    def read_staging(self, at_work: frozenset[str], *, keep: int) -> Staged:
        """The container of prepared loads; ``at_work`` are beginnings of ids of jobs that may still need theirs."""
        settings: Settings = self._services["settings"]
        staged = Staged()
        old = datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS)
        try:
            for batch in self._services["blobs"].list_blobs(settings.staging_container):
                staged.total += batch.num_rows
                names, times = (batch.column(name).to_pylist() for name in ("name", "last_modified"))
                for name, modified in zip(names, times, strict=True):
                    fate = _staged_fate(name, modified, at_work, old)
                    staged.counts[fate] += 1
                    if fate is Fate.LEFT_BEHIND:
                        folder = name.rpartition("/")[0]
                        if folder in staged.left_behind or len(staged.left_behind) < keep:
                            staged.left_behind[folder] = staged.left_behind.get(folder, 0) + 1
                    elif fate is Fate.UNKNOWN and len(staged.unknown) < keep:
                        staged.unknown.append(name)
        except ContainerNotFoundError:
            pass
        except GeoAssetsError as error:
            staged.problem = _said(error)
        return staged

    # --- inside

    def _side_by_side(self, store: str, looks: list[Callable[[], None]]) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for done in [pool.submit(look) for look in looks]:
                try:
                    done.result()
                except GeoAssetsError as error:
                    self.problems.setdefault(store, _said(error))

    def _tell(self, what: str, rows: int) -> None:
        self._seen[what] += rows
        self._progress(what, self._seen[what])


def _said(error: GeoAssetsError) -> str:
    return redact(str(error))


def _staged_fate(name: str, modified: datetime | None, at_work: frozenset[str], old: datetime) -> Fate:
    job = staged_by(name)
    if job is None:
        return Fate.UNKNOWN
    if job in at_work:
        return Fate.AT_WORK
    return Fate.LEFT_BEHIND if modified is not None and modified < old else Fate.WAITING


# --- items ---------------------------------------------------------------------------------------------------------


def root_of(blobs: BlobStore, container: str) -> str:
    """What every address of a blob of this store begins with."""
    return blobs.uri(container, "x").rsplit("/", 2)[0] + "/"


def blob_of_href(href: str, root: str) -> tuple[str, str] | None:
    """Container and name of the blob at an address, if it is one of the store whose addresses begin with ``root``."""
    if not href.startswith(root):
        return None
    container, _, name = href[len(root) :].partition("/")
    return (unquote(container), unquote(name)) if container and name else None


def _item_row(collection: str, item: ItemReferences) -> dict[str, Any]:
    holder, name = item.blob or item.table or (None, None)
    return {
        "kind": "item",
        "collection": collection,
        "name": item.item_id,
        "version": "blob" if item.blob is not None else "table",
        "modified": None,
        "ours": True,
        "about_holder": holder,
        "about_name": name,
        "job_id": item.job_id,
        "problem": None,
    }


def _damaged_row(collection: str, item: DamagedItem) -> dict[str, Any]:
    """It says nothing any more: neither what it is about nor who made it."""
    nothing = ItemReferences(item_id=item.item_id, blob=None, table=None, job_id=None, hrefs=())
    return {**_item_row(collection, nothing), "version": DAMAGED}


def _reference_rows(collection: str, item: ItemReferences, root: str) -> list[dict[str, Any]]:
    targets = [("blob", place) for href in item.hrefs if (place := blob_of_href(href, root)) is not None]
    if item.table is not None:
        targets.append(("table", item.table))
    return [
        {
            "kind": kind,
            "collection": place[0],
            "name": place[1],
            "item_collection": collection,
            "item_id": item.item_id,
            "job_id": item.job_id,
            "described": place in (item.blob, item.table),
        }
        for kind, place in dict.fromkeys(targets)
    ]


def _pair_rows(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The partition that an item of ours explains: jobs of whole containers leave no other record of single ones."""
    if item["job_id"] is None or item["about_holder"] is None:
        return []
    of_table = item["version"] == "table"
    name = f"{item['about_holder']}{'.' if of_table else '/'}{item['about_name']}"
    asset = TABLE_ITEM_ASSET if of_table else RASTER_ITEM_ASSET
    return [{"asset": asset, "key": str(encode_partition_key(name)), "attempt_id": None, "origin": "catalog"}]


def _table_row(schema: str, table: str, version: str | None, *, job_id: str | None = None) -> dict[str, Any]:
    return {
        "kind": "table",
        "collection": schema,
        "name": table,
        "version": version,
        "modified": None,
        "ours": version is not None,
        "about_holder": None,
        "about_name": None,
        "job_id": job_id,
        "problem": None,
    }
