"""Static STAC catalog on disk: item files, collections, and a stac-geoparquet mirror, readable by any STAC client.

What belongs here: :class:`StaticCatalog`.  What does not: the decisions all catalogs share (``catalog``), the content
of collections (``stac.collections``).

::

    catalog.json
    cogs/collection.json
    cogs/items.parquet          the mirror
    cogs/items/<id>.json
    .locks/cogs.lock            one writer a collection, across processes; the system frees it when one dies

The item files are the truth; everything else follows from them.  ``.stale`` lies in a collection from before the
first item file is written until its document and mirror say so: whoever refreshes next puts right what a killed
writer left.  Every file appears whole, by a rename.  A collection whose document was lost gets a new one, of the items
that are there, with the next write.  What has no name of an item is nobody's business.
"""

import errno
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pyarrow as pa

from geo_assets.errors import CatalogError, CatalogUnavailableError, DamagedItemError
from geo_assets.stac.collections import (
    CollectionDescription,
    collection_document,
    describe_collection,
    facts_of,
)
from geo_assets.stac.identifiers import file_stem
from geo_assets.stac.items import DescribedBlob, described_blob, without_structural_links
from geo_assets.stores.blobs import printable
from geo_assets.stores.catalog import (
    DamagedItem,
    ItemOutcome,
    ItemReferences,
    ItemStatus,
    UpsertPlan,
    present_item,
    references_of,
)

__all__ = ["StaticCatalog"]

_LOG = logging.getLogger(__name__)
_CATALOG, _COLLECTION, _ITEMS, _MIRROR, _STALE = "catalog.json", "collection.json", "items", "items.parquet", ".stale"
_JSON, _GEOJSON, _PARQUET = "application/json", "application/geo+json", "application/vnd.apache.parquet"
_MIRROR_ASSET = "geoparquet-items"
_COLLECTION_GONE = "remove it; the next job that writes to the collection makes it anew of its items"
_STRUCTURAL = frozenset({"root", "parent", "self", "item"})
_NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.EACCES})
"""What opening says of something that is no file of ours; whatever else it says may be over in a moment."""
_IN_MEMORY = 2000
"""Most items that are in memory at once while the mirror is written."""


class StaticCatalog:
    """A catalog in the folder ``root``, which is made with the first collection."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"the static STAC catalog {self.root}"

    def close(self) -> None:
        """Nothing is held open."""

    # --- items

    def upsert_items(
        self, collection_id: str, items: Iterable[Mapping[str, Any]], *, refresh: bool = True
    ) -> list[ItemOutcome]:
        """Write items to a collection; see :class:`~geo_assets.stores.catalog.CatalogStore`."""
        described = describe_collection(collection_id)
        plan = UpsertPlan(collection_id, items)
        with self._locked(collection_id):
            self._create(described)
            existing = {
                item_id: item
                for item_id in plan.candidate_ids
                if (item := present_item(self, collection_id, item_id)) is not None
            }
            to_write = plan.decide(existing)
            for item in to_write:
                self._require_no_folder(self._item_path(collection_id, item["id"]))
            if to_write:
                self._mark_stale(collection_id)
            for item in to_write:
                self._write(self._item_path(collection_id, item["id"]), _linked(item))
            lost = [item["id"] for item in to_write if not self._item_path(collection_id, item["id"]).is_file()]
            if lost:
                raise CatalogError(
                    f"{len(lost)} of {len(to_write)} items written to '{collection_id}' of {self.description} are not"
                    f" there, the first is '{lost[0]}': does something else write to the folder?"
                )
            if refresh:
                self._refresh(collection_id)
        return plan.outcomes

    def delete_items(self, collection_id: str, item_ids: Iterable[str]) -> list[ItemOutcome]:
        """Remove items and bring the collection up to date."""
        wanted = list(item_ids)
        with self._locked(collection_id):
            paths = {item_id: self._item_path(collection_id, item_id) for item_id in wanted}
            present = {item_id for item_id, path in paths.items() if path.is_file()}
            if present:
                self._mark_stale(collection_id)
                # the document loses its links before the files go: a reader never follows one into nothing
                self._refresh(collection_id, without=present)
                for item_id in present:
                    paths[item_id].unlink(missing_ok=True)
        return [
            ItemOutcome(item_id, ItemStatus.DELETED if item_id in present else ItemStatus.ABSENT) for item_id in wanted
        ]

    def get_item(self, collection_id: str, item_id: str) -> dict[str, Any] | None:
        """One item; ``None`` if it is not there."""
        found = self._look(self._item_path(collection_id, item_id))
        if isinstance(found, DamagedItem):
            raise DamagedItemError(found.reason)
        return found

    def iter_items(self, collection_id: str) -> Iterator[dict[str, Any]]:
        """All items of a collection, in the order of their file names."""
        for item in self.iter_overviews(collection_id):
            if isinstance(item, DamagedItem):
                raise DamagedItemError(item.reason)
            yield item

    def described_blobs(self, collection_id: str, *, container: str | None = None) -> dict[str, DescribedBlob]:
        """Id → blob, of every item of a collection that describes a blob, of this container if one is named."""
        described = (
            (item["id"], described_blob(item))
            for item in self.iter_overviews(collection_id)
            if not isinstance(item, DamagedItem)
        )
        return {
            item_id: blob for item_id, blob in described if blob is not None and container in (None, blob.container)
        }

    def iter_references(self, collection_id: str) -> Iterator[ItemReferences | DamagedItem]:
        """What each item of a collection points at, in the order of their file names."""
        for item in self.iter_overviews(collection_id):
            yield item if isinstance(item, DamagedItem) else references_of(item)

    def iter_overviews(self, collection_id: str) -> Iterator[dict[str, Any] | DamagedItem]:
        """All items of a collection, in the order of their file names: a file is read whole or not at all."""
        for path in self._item_files(collection_id):
            item = self._look(path)
            if item is not None:  # deleted since the folder was read
                yield item

    def count_items(self, collection_id: str) -> int:
        """How many items a collection holds."""
        return len(self._item_files(collection_id))

    # --- collections

    def ensure_collection(self, described: CollectionDescription) -> dict[str, Any]:
        """Create a collection if it is not there; returns its document."""
        describe_collection(described.id)  # refuses an id that cannot be one
        with self._locked(described.id):
            self._create(described)
        document = self.get_collection(described.id)
        if document is None:
            raise CatalogError(f"the collection '{described.id}' was removed from {self.description} while it was made")
        return document

    def get_collection(self, collection_id: str) -> dict[str, Any] | None:
        """A collection's document, without structural and item links."""
        document = self._read(self._folder(collection_id) / _COLLECTION)
        return None if document is None else _plain_collection(document)

    def list_collections(self) -> list[str]:
        """The ids of all collections, sorted."""
        return sorted(document["id"] for _, document in self._collections())

    def refresh_collection(self, collection_id: str) -> dict[str, Any] | None:
        """Bring the collection's document and mirror up to date, if anything was written since they were."""
        if not (self._folder(collection_id) / _COLLECTION).is_file():
            return None
        with self._locked(collection_id):
            self._refresh(collection_id)
        return self.get_collection(collection_id)

    def delete_collection(self, collection_id: str) -> bool:
        """Remove a collection with all its items; whether it was there."""
        folder = self._folder(collection_id)
        with self._locked(collection_id):
            if not (folder / _COLLECTION).is_file():
                return False
            # out of sight in one step, then out of the catalog, then gone
            aside = Path(tempfile.mkdtemp(prefix=".removed-", dir=self.root))
            folder.rename(aside / folder.name)
            self._write_catalog()
            shutil.rmtree(aside)
        return True

    # --- inside

    def _create(self, described: CollectionDescription) -> None:
        folder = self._folder(described.id)
        if (folder / _COLLECTION).is_file():
            return
        (folder / _ITEMS).mkdir(parents=True, exist_ok=True)
        if self._item_files(described.id):
            # its document was lost: the new one knows nothing of the items until it is refreshed
            self._mark_stale(described.id)
        document = collection_document(described, facts_of(()))
        self._write(folder / _COLLECTION, {**document, "links": _collection_links(())})
        self._write_catalog()

    def _refresh(self, collection_id: str, *, without: Iterable[str] = ()) -> None:
        """Make document and mirror of the item files, if anything was written since; the caller holds the lock."""
        folder = self._folder(collection_id)
        stale = folder / _STALE
        if not stale.exists():
            return
        left_out = {self._item_path(collection_id, item_id).name for item_id in without}
        paths = [path for path in self._item_files(collection_id) if path.name not in left_out]
        present = self._read(folder / _COLLECTION) or {}
        damaged: set[Path] = set()
        items = partial(self._whole_items, paths, damaged)
        facts = facts_of(items())
        if facts.count + len(damaged) != len(paths):
            raise CatalogError(f"items of '{collection_id}' vanish from {self.description}: does something else write?")
        document = collection_document(
            describe_collection(collection_id), facts, existing=_plain_collection(present) if present else None
        )
        mirrored = self._write_mirror(folder, items, facts.count)
        document["assets"] = {name: asset for name, asset in present.get("assets", {}).items() if name != _MIRROR_ASSET}
        if mirrored:
            document["assets"][_MIRROR_ASSET] = {
                "href": f"./{_MIRROR}",
                "type": _PARQUET,
                "title": "All items as GeoParquet",
                "roles": ["collection-mirror"],
            }
        if not document["assets"]:
            del document["assets"]
        linked = _collection_links(path for path in paths if path not in damaged)
        self._write(folder / _COLLECTION, {**document, "links": [*document["links"], *linked]})
        stale.unlink(missing_ok=True)

    def _whole_items(self, paths: Iterable[Path], damaged: set[Path]) -> Iterator[dict[str, Any]]:
        """The items in these files; one that is damaged must not keep all others from being written."""
        for path in paths:
            item = self._look(path)
            if isinstance(item, DamagedItem):
                if path not in damaged:
                    _LOG.warning("left out of its collection: %s", item.reason)
                damaged.add(path)
            elif item is not None:
                yield item

    def _write_mirror(self, folder: Path, items: Callable[[], Iterator[dict[str, Any]]], count: int) -> bool:
        if count == 0:
            (folder / _MIRROR).unlink(missing_ok=True)
            return False
        # half a second that reading needs not
        from stac_geoparquet.arrow import parse_stac_items_to_parquet  # noqa: PLC0415

        temporary = _temporary(folder / _MIRROR)
        try:
            parse_stac_items_to_parquet(
                (_mirrored(item) for item in items()),
                output_path=temporary,
                schema="FullFile" if count <= _IN_MEMORY else "ChunksToDisk",
                chunk_size=_IN_MEMORY,
                compression="zstd",
            )
        except (pa.ArrowException, ValueError, TypeError) as error:
            # the mirror is a second copy: items of which no table can be made must not keep the first from being true
            _LOG.warning("no GeoParquet mirror of %s: %s", folder, str(error)[:500])
            temporary.unlink(missing_ok=True)
            (folder / _MIRROR).unlink(missing_ok=True)
            return False
        temporary.replace(folder / _MIRROR)
        return True

    def _write_catalog(self) -> None:
        with self._locked(""):
            children = [
                {"rel": "child", "href": f"./{folder}/{_COLLECTION}", "type": _JSON, "title": document.get("title")}
                for folder, document in self._collections()
            ]
            root = {"rel": "root", "href": f"./{_CATALOG}", "type": _JSON}
            self._write(
                self.root / _CATALOG,
                {
                    "type": "Catalog",
                    "stac_version": "1.1.0",
                    "id": "geo-assets",
                    "title": "geo_assets",
                    "description": "Rasters and vector tables catalogued by geo_assets.",
                    "links": [root, *children],
                },
            )

    def _collections(self) -> list[tuple[str, dict[str, Any]]]:
        """Folder and document of every collection, sorted by folder."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.root) if not entry.name.startswith("."))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(self.root, error) from error
        documents = ((name, self._read(self.root / name / _COLLECTION)) for name in names if name != _CATALOG)
        found = [(name, document) for name, document in documents if document is not None]
        for name, document in found:
            if not isinstance(document.get("id"), str):
                raise CatalogError(
                    f"{name}/{_COLLECTION} of {self.description} holds no collection: {_COLLECTION_GONE}"
                )
        return found

    def _folder(self, collection_id: str) -> Path:
        return self.root / file_stem(collection_id)

    def _item_path(self, collection_id: str, item_id: str) -> Path:
        return self._folder(collection_id) / _ITEMS / f"{file_stem(item_id)}.json"

    def _item_files(self, collection_id: str) -> list[Path]:
        folder = self._folder(collection_id) / _ITEMS
        try:
            with os.scandir(folder) as entries:
                names = sorted(
                    entry.name for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")
                )
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(folder, error) from error
        return [folder / name for name in names]

    def _require_no_folder(self, path: Path) -> None:
        """A folder in the place of an item's file cannot be replaced: found out before the first item is written."""
        if path.is_dir():
            raise CatalogError(
                f"{printable(str(path))} of {self.description} cannot be written (Is a directory): remove it, then"
                " catalogue its source again"
            )

    def _mark_stale(self, collection_id: str) -> None:
        (self._folder(collection_id) / _STALE).touch()

    def _look(self, path: Path) -> dict[str, Any] | DamagedItem | None:
        """The item in a file, or that it is damaged; ``None`` if there is no file."""
        try:
            item = self._read(path)
        except CatalogError as error:
            return DamagedItem(item_id=_id_of(path), reason=str(error))
        if item is None:
            return None
        parts = (item.get("properties"), item.get("assets"))
        item_id, links = item.get("id"), item.get("links")
        whole = isinstance(item_id, str) and isinstance(links, list) and all(isinstance(part, dict) for part in parts)
        if not whole or file_stem(str(item_id)) != path.stem:
            what = f"{printable(str(path))} of {self.description} is damaged, it holds no item of its name"
            return DamagedItem(item_id=_id_of(path), reason=f"{what}: catalogue its source again")
        return without_structural_links(item)

    def _read(self, path: Path) -> dict[str, Any] | None:
        what = f"{printable(str(path))} of {self.description}"
        mend = _COLLECTION_GONE if path.name == _COLLECTION else "remove it, then catalogue its source again"
        try:
            loaded = orjson.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise self._unreadable(path, error) from error
            raise CatalogError(f"{what} is damaged ({error.strerror}): {mend}") from error
        except orjson.JSONDecodeError as error:
            raise CatalogError(f"{what} is damaged: {mend}") from error
        if not isinstance(loaded, dict):
            raise CatalogError(f"{what} holds no JSON object: {mend}")
        return loaded

    def _unreadable(self, path: Path, error: OSError) -> CatalogUnavailableError:
        return CatalogUnavailableError(
            f"{path} of {self.description} cannot be read ({error.strerror or error}): see to its disk and permissions"
        )

    def _write(self, path: Path, document: Mapping[str, Any]) -> None:
        temporary = _temporary(path)
        try:
            temporary.write_bytes(orjson.dumps(document))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @contextmanager
    def _locked(self, collection_id: str) -> Iterator[None]:
        """Hold a collection (or, with an empty id, the catalog's own file) against other writers.

        Raises:
            CatalogError: a file could not be written, there or inside.
        """
        folder = self.root / ".locks"
        name = f"{file_stem(collection_id)}.lock" if collection_id else "catalog.json.lock"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # the lock files stay: removing one would let two writers hold two files of one name
            with (folder / name).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise CatalogError(
                f"{self.description} cannot be written to ({error.strerror or error}): see to its disk and permissions,"
                " then run the job again"
            ) from error


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.stem[:40]}-{os.getpid()}-{os.urandom(6).hex()}")


def _id_of(path: Path) -> str:
    """The id of the item a file is named after; of a shortened name, the name."""
    stem = printable(path.stem)
    named = unquote(stem.replace("%", "%25").replace("=", "%"), errors="replace")
    return named if file_stem(named) == stem else stem


def _linked(item: Mapping[str, Any]) -> dict[str, Any]:
    links = [
        {"rel": "root", "href": f"../../{_CATALOG}", "type": _JSON},
        {"rel": "parent", "href": f"../{_COLLECTION}", "type": _JSON},
        {"rel": "collection", "href": f"../{_COLLECTION}", "type": _JSON},
    ]
    return {**item, "links": [*links, *item["links"]]}


def _collection_links(paths: Iterable[Path]) -> list[dict[str, str]]:
    links = [
        {"rel": "root", "href": f"../{_CATALOG}", "type": _JSON},
        {"rel": "parent", "href": f"../{_CATALOG}", "type": _JSON},
    ]
    return links + [{"rel": "item", "href": f"./{_ITEMS}/{path.name}", "type": _GEOJSON} for path in paths]


def _plain_collection(document: Mapping[str, Any]) -> dict[str, Any]:
    links = [link for link in document.get("links", ()) if link.get("rel") not in _STRUCTURAL]
    return {**document, "links": links}


def _mirrored(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as the mirror can hold it: columns of one type, whatever the items hold."""
    copy = without_structural_links(item)
    copy["assets"] = {key: _with_number_nodata(asset) for key, asset in item["assets"].items()}
    renders = item["properties"].get("renders")
    if renders is not None:
        # a colour table has its values as keys, which would all become columns
        copy["properties"] = {**item["properties"], "renders": orjson.dumps(renders).decode()}
    return copy


def _with_number_nodata(asset: Mapping[str, Any]) -> dict[str, Any]:
    """A nodata value is a number or one of the texts nan, inf and -inf; a column is one of the two, so numbers."""
    copy = dict(asset)
    for name in ("bands", "raster:bands"):
        if isinstance(copy.get(name), list):
            copy[name] = [
                {**band, "nodata": float(band["nodata"])} if "nodata" in band else band for band in copy[name]
            ]
    return copy
