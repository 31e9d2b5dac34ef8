"""From the stores and the ledger to a report.

What belongs here: reading, counting, and what is kept of very many items.  What does not: the page (``page``).

Items stream by; memory follows what the page can show, not the catalog.  Each part is had by itself: a store that
is away empties its part and says why, the others are there.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.ledger import JobFilter, Ledger
from geo_assets.coremachine.ledger_tables import source_looks
from geo_assets.errors import GeoAssetsError
from geo_assets.redaction import redact
from geo_assets.report.facts import Cell, CollectionFacts, Dataset, Report, SourceState
from geo_assets.report.outline import middle_of, rings_of
from geo_assets.settings import Settings
from geo_assets.sources.source import Source
from geo_assets.sources.standing import Standing, standings
from geo_assets.stac.items import durable_href
from geo_assets.stores.catalog import CatalogStore, DamagedItem

__all__ = ["MOST_OUTLINES", "OpenLedger", "gather"]

OpenLedger = Callable[[], Ledger | None]
"""Gives the ledger; ``None`` where nothing was ever submitted."""

MOST_OUTLINES: Final = 20_000
"""Footprints drawn one by one; of more items the largest beside a grid of counts."""
LARGEST_BESIDE_CELLS: Final = 2_000
MOST_CELLS: Final = 30_000
_MOST_FAILURE_GROUPS = 1000
_MOST_COLLECTIONS = 1000
_MOST_VALUES = 200
_MOST_OF_ANYTHING: Final = 1 << 63
_NOT_ACQUIRED = frozenset({"blob date", "cataloguing", "load", "first catalogued"})
"""Sources of a date that say nothing about when a dataset was taken."""
_LINKED = frozenset({"http", "https"})


def gather(
    settings: Settings,
    services: Mapping[str, Any],
    open_ledger: OpenLedger,
    configured: Callable[[], Iterable[Source]] = tuple,
    *,
    now: datetime | None = None,
    most_outlines: int = MOST_OUTLINES,
) -> Report:
    """Read the whole catalog once, and the counts of the ledger.

    Args:
        settings: say which stores there are.
        services: the stores, by the names of ``geo_assets.services``; opened here, where they are used.
        open_ledger: called once.
        configured: gives the sources there are; called once, and what it refuses is a problem of that part.
        now: of the report.
        most_outlines: see :data:`MOST_OUTLINES`.
    """
    problems: list[tuple[str, str]] = []
    tally = _Tally(most_outlines)
    with _part("catalog", problems):
        _read_catalog(services["catalog"], tally, problems)
    containers = None
    with _part("containers", problems):
        containers = len(services["blobs"].list_containers())
    report = tally.report(
        Report(
            made_at=now or datetime.now(UTC),
            stores=_stores(settings),
            ui_url=settings.ui_url,
            problems=problems,
            containers=containers,
        )
    )
    containers_of_sources: dict[str, str] = {}
    with _part("configured sources", problems):
        containers_of_sources = {one.name: one.container for one in configured()}
    with _part("jobs", problems):
        ledger = open_ledger()
        if ledger is not None:
            report = replace(
                report,
                failures=ledger.failures_by_reason(JobFilter(gone=False))[:_MOST_FAILURE_GROUPS],
                queue=_queue(ledger),
                sources=_sources(ledger, containers_of_sources, settings),
            )
    return replace(report, problems=tuple((part, _without_folders(settings, why)) for part, why in problems))


@contextmanager
def _part(name: str, problems: list[tuple[str, str]]) -> Iterator[None]:
    """Let the report go on without a part that cannot be had."""
    try:
        yield
    except (GeoAssetsError, OSError) as error:
        problems.append((name, " ".join(redact(str(error)).split())[:500]))


# The page may be mailed: paths of this machine are nobody's business, and lead nowhere elsewhere


def _without_folders(settings: Settings, text: str) -> str:
    ours = (
        settings.blob_root_path,
        settings.catalog_path,
        settings.tables_path,
        settings.sources_path,
        settings.defs_path,
        settings.home_path,
    )
    for path in sorted({str(one) for one in ours}, key=len, reverse=True):
        text = text.replace(path, f"…/{path.rpartition('/')[2]}")
    return text


def _stores(settings: Settings) -> tuple[tuple[str, str], ...]:
    blobs = {
        "local": "local folders",
        "azure": f"Azure Blob Storage {settings.azure_account or _host(settings.azure_endpoint)}".rstrip(),
        "memory": "in memory",
    }[settings.blob_store]
    catalog = "a static STAC catalog in files"
    if settings.catalog_url is not None:
        catalog = f"pgSTAC in {_database(settings.catalog_url.get_secret_value())}"
    tables = "GeoParquet files"
    if settings.tables_url is not None:
        tables = f"PostGIS in {_database(settings.tables_url.get_secret_value())}"
    return (
        ("Catalog", catalog),
        ("Containers", blobs),
        ("Tables", tables),
        ("Ledger", _database(settings.ledger_sqlalchemy_url)),
    )


def _host(url: str | None) -> str:
    return (urlsplit(url).hostname or "") if url else ""


def _database(url: str) -> str:
    """Host and database: neither user nor password, nor what a query may hold."""
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return "a database"
    if parsed.host is None:
        return {"sqlite": "SQLite", "postgresql": "PostgreSQL"}.get(parsed.get_backend_name(), "a database")
    where = "/".join(part for part in (parsed.host, parsed.database) if part)
    return where or "a database"


# --- the catalog ---------------------------------------------------------------------------------------------------


def _read_catalog(catalog: CatalogStore, tally: "_Tally", problems: list[tuple[str, str]]) -> None:
    for collection_id in catalog.list_collections():
        damaged: list[str] = []
        with _part(f"collection {collection_id}", problems):
            document = catalog.get_collection(collection_id) or {}
            tally.begin(collection_id, str(document.get("title") or ""))
            for item in catalog.iter_overviews(collection_id):
                if isinstance(item, DamagedItem):
                    damaged.append(item.reason)
                else:
                    tally.add(collection_id, item)
        if damaged:
            more = f"; so are {len(damaged) - 1:,} more" if len(damaged) > 1 else ""
            problems.append((f"an item of {collection_id}", redact(damaged[0]) + more))


@dataclass
class _Collection:
    title: str
    items: int = 0
    bytes: int = 0
    rows: int = 0
    first_day: str | None = None
    last_day: str | None = None

    def add(self, dataset: Dataset) -> None:
        self.items += 1
        self.bytes += dataset.bytes
        self.rows += dataset.rows or 0
        if dataset.day is not None:
            self.first_day = min(self.first_day or dataset.day, dataset.day)
            self.last_day = max(self.last_day or dataset.day, dataset.day)


@dataclass
class _Tally:
    """What is known of the items so far."""

    most_outlines: int
    collections: dict[str, _Collection] = field(default_factory=dict)
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    cells: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    cell_degrees: int = 1
    items: int = 0
    tables: int = 0
    without_place: int = 0
    undated: int = 0
    _largest: list[tuple[int, int, Dataset]] = field(default_factory=list)
    """A heap with the smallest on top; the number in the middle settles ties."""

    def begin(self, collection_id: str, title: str) -> None:
        self.collections[collection_id] = _Collection(title)

    def add(self, collection_id: str, item: Mapping[str, Any]) -> None:
        properties = _mapping(item, "properties")
        dataset = _dataset(collection_id, item, properties)
        self.items += 1
        self.collections[collection_id].add(dataset)
        self._count(item, properties, dataset)
        if dataset.rings:
            longitude, latitude = middle_of(dataset.rings)
            self._count_cell(collection_id, longitude, latitude)
        else:
            self.without_place += 1
        self._keep(dataset)

    def _count(self, item: Mapping[str, Any], properties: Mapping[str, Any], dataset: Dataset) -> None:
        self._one("kinds", dataset.kind or "other")
        if properties.get("geo_assets:type") == "table":
            self.tables += 1
            for name in _words(properties.get("geo_assets:geometry_types")):
                self._one("geometry_types", name)
        for media_type in {str(one["type"]) for one in _data_assets(item) if one.get("type")}:
            self._one("media_types", media_type)
        created = _day(properties.get("created"))
        if created is not None:
            self.counts["created"][created[:7]] += 1
        if dataset.day is None or properties.get("geo_assets:datetime_source") in _NOT_ACQUIRED:
            self.undated += 1
        else:
            self.counts["acquired"][dataset.day[:7]] += 1

    def _one(self, what: str, value: str) -> None:
        counter = self.counts[what]
        counter[value if value in counter or len(counter) < _MOST_VALUES else "other"] += 1

    def _count_cell(self, collection_id: str, longitude: float, latitude: float) -> None:
        size = self.cell_degrees
        column = min(int((longitude + 180) // size), 360 // size - 1)
        row = min(int((latitude + 90) // size), 180 // size - 1)
        self.cells[collection_id, column, row] += 1
        if len(self.cells) > MOST_CELLS and size < 30:  # noqa: PLR2004 - degrees
            self._coarsen()

    def _coarsen(self) -> None:
        before, self.cell_degrees = self.cell_degrees, {1: 2, 2: 5, 5: 10, 10: 30}[self.cell_degrees]
        coarse: Counter[tuple[str, int, int]] = Counter()
        for (collection_id, column, row), items in self.cells.items():
            middle = ((column + 0.5) * before, (row + 0.5) * before)
            coarse[collection_id, int(middle[0] // self.cell_degrees), int(middle[1] // self.cell_degrees)] += items
        self.cells = coarse

    def _keep(self, dataset: Dataset) -> None:
        # the first of equals stay: a report of the same catalog is the same
        entry = (dataset.bytes, -self.items, dataset)
        if len(self._largest) < self.most_outlines:
            heapq.heappush(self._largest, entry)
        elif entry[:2] > self._largest[0][:2]:
            heapq.heapreplace(self._largest, entry)

    def report(self, empty: Report) -> Report:
        """The report with what was counted."""
        largest = [dataset for _, _, dataset in sorted(self._largest, key=lambda entry: entry[:2], reverse=True)]
        many = self.items > self.most_outlines
        return replace(
            empty,
            collections=_collections(self.collections),
            collection_count=len(self.collections),
            tables=self.tables,
            without_place=self.without_place,
            undated=self.undated,
            kinds=dict(self.counts["kinds"]),
            geometry_types=dict(self.counts["geometry_types"]),
            media_types=dict(self.counts["media_types"]),
            created=dict(self.counts["created"]),
            acquired=dict(self.counts["acquired"]),
            datasets=largest[:LARGEST_BESIDE_CELLS] if many else largest,
            cells=_cells(self.cells) if many else (),
            cell_degrees=self.cell_degrees,
        )


def _collections(counted: Mapping[str, _Collection]) -> tuple[CollectionFacts, ...]:
    """Largest first; very many of them become one line at the end."""
    facts = sorted(
        (CollectionFacts(id=name, **vars(one)) for name, one in counted.items()), key=lambda one: (-one.items, one.id)
    )
    rest = facts[_MOST_COLLECTIONS:]
    if not rest:
        return tuple(facts)
    days = [day for one in rest for day in (one.first_day, one.last_day) if day is not None]
    others = CollectionFacts(
        id="…",
        title=f"{len(rest):,} more collections",
        items=sum(one.items for one in rest),
        bytes=sum(one.bytes for one in rest),
        rows=sum(one.rows for one in rest),
        first_day=min(days, default=None),
        last_day=max(days, default=None),
    )
    return (*facts[:_MOST_COLLECTIONS], others)


def _cells(counted: Mapping[tuple[str, int, int], int]) -> tuple[Cell, ...]:
    return tuple(
        Cell(collection=collection, column=column, row=row, items=items)
        for (collection, column, row), items in sorted(counted.items())
    )


# --- one item ------------------------------------------------------------------------------------------------------


def _dataset(collection_id: str, item: Mapping[str, Any], properties: Mapping[str, Any]) -> Dataset:
    is_table = properties.get("geo_assets:type") == "table"
    rows = properties.get("table:row_count")
    item_id, name = str(item.get("id", "")), _source_name(properties, is_table=is_table)
    return Dataset(
        collection=collection_id,
        id=item_id,
        name=name or item_id,
        day=_day(properties.get("datetime") or properties.get("start_datetime")),
        bytes=sum(_size(asset) for asset in _data_assets(item)),
        rows=_count(rows) if is_table else None,
        kind="table"
        if is_table
        else str(properties.get("geo_assets:raster_type") or properties.get("geo_assets:type") or ""),
        partition=_partition(name, is_table=is_table),
        thumbnail=_thumbnail(item),
        rings=rings_of(item),
    )


def _data_assets(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [
        asset
        for asset in _mapping(item, "assets").values()
        if isinstance(asset, Mapping) and not {"thumbnail", "metadata", "overview"} & set(_words(asset.get("roles")))
    ]


def _mapping(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = item.get(name)
    return found if isinstance(found, Mapping) else {}


def _words(given: object) -> list[str]:
    """The texts of a list; none where it is something else."""
    return [one for one in given if isinstance(one, str)] if isinstance(given, list) else []


def _size(asset: Mapping[str, Any]) -> int:
    return _count(asset.get("file:size")) or 0


def _count(given: object) -> int | None:
    """A number that may be one of bytes or rows; ``None`` where it cannot be."""
    return given if isinstance(given, int) and 0 <= given < _MOST_OF_ANYTHING else None


def _day(moment: object) -> str | None:
    if not isinstance(moment, str):
        return None
    try:
        # what is no date must not become a bar of its own
        return datetime.fromisoformat(moment).date().isoformat()
    except ValueError:
        return None


def _source_name(properties: Mapping[str, Any], *, is_table: bool) -> str | None:
    """What people know it by: of a COG, the raster it was made of."""
    holders = ("schema", "table") if is_table else ("source_container", "source_blob")
    for first, second in (holders, ("container", "blob")):
        pair = properties.get(f"geo_assets:{first}"), properties.get(f"geo_assets:{second}")
        if isinstance(pair[0], str) and isinstance(pair[1], str):
            return f"{pair[0]}{'.' if is_table else '/'}{pair[1]}"
    return None


def _partition(name: str | None, *, is_table: bool) -> tuple[str, str] | None:
    """Where Dagster shows the item."""
    if name is None:
        return None
    try:
        key = encode_partition_key(name)
    except GeoAssetsError:
        return None
    return "vector_stac_item" if is_table else "raster_stac_item", key


def _thumbnail(item: Mapping[str, Any]) -> str | None:
    asset = _mapping(item, "assets").get("thumbnail")
    href = asset.get("href") if isinstance(asset, Mapping) else None
    if not isinstance(href, str) or not href:
        return None
    try:
        # other makers' items may have signed URLs, or addresses that do something when they are followed
        return durable_href(href) if urlsplit(href).scheme.lower() in _LINKED else None
    except ValueError:
        return None


# --- the ledger ----------------------------------------------------------------------------------------------------


def _queue(ledger: Ledger) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for statuses in ledger.status_counts().values():
        counted.update(statuses)
    return dict(counted)


def _sources(ledger: Ledger, containers: Mapping[str, str], settings: Settings) -> tuple[SourceState, ...]:
    looks = sa.select(source_looks.c.source, source_looks.c.looked_at, source_looks.c.error)
    looked = ledger.read(lambda c: c.execute(looks).all())
    entries = {
        name: {state.value: count for state, count in counts.items()} for name, counts in standings(ledger).items()
    }
    no_entries = dict.fromkeys(map(str, Standing), 0)
    seen = {row.source: row for row in looked}
    return tuple(
        SourceState(
            name=name,
            container=containers.get(name),
            looked_at=seen[name].looked_at if name in seen else None,
            # cut last: of a folder cut in two, the rest would stay
            error=_without_folders(settings, redact(seen[name].error))[:300]
            if name in seen and seen[name].error
            else None,
            entries=entries.get(name, no_entries),
        )
        for name in sorted({*containers, *entries, *seen})
    )
