"""The stores and settings that task handlers get by name.

What belongs here: which name means what.  What does not: the stores themselves (``stores``).

``blobs``: the :class:`geo_assets.stores.blobs.BlobStore`; ``listings``: the
:class:`geo_assets.containers.listing_store.ListingStore`; ``catalog``: the
:class:`geo_assets.stores.catalog.CatalogStore`; ``items``: the :class:`geo_assets.stores.item_writer.ItemWriter` on it;
``tables``: the :class:`geo_assets.stores.tables.TableStore`; ``settings``: the :class:`geo_assets.settings.Settings`;
``sandbox``: the :class:`geo_assets.coremachine.sandbox.Sandbox` for whatever opens a file someone uploaded.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from geo_assets.containers.listing_store import open_listing_store
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store
from geo_assets.stores.catalog import open_catalog_store
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.tables import open_table_store

_opened: dict[Settings, "Services"] = {}


class Services(Mapping[str, Any]):
    """Services by name, each opened when it is first asked for: a run that catalogues nothing needs no catalog."""

    def __init__(self, settings: Settings) -> None:
        self._lock = threading.RLock()
        self._ready: dict[str, Any] = {"settings": settings}
        self._open: dict[str, Callable[[], Any]] = {
            "settings": lambda: settings,
            "blobs": lambda: open_blob_store(settings),
            "listings": lambda: open_listing_store(settings),
            "catalog": lambda: open_catalog_store(settings),
            "items": lambda: ItemWriter(self["catalog"]),
            "tables": lambda: open_table_store(settings),
            "sandbox": lambda: Sandbox(settings),
        }

    def __getitem__(self, name: str) -> Any:
        with self._lock:
            if name not in self._ready:
                self._ready[name] = self._open[name]()
            return self._ready[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)


def open_services(settings: Settings) -> Services:
    """Return the services of these settings, the same ones all over a process."""
    if settings not in _opened:
        _opened.clear()
        _opened[settings] = Services(settings)
    return _opened[settings]
