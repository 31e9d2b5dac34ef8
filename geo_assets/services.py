"""The stores and settings that task handlers get by name.

What belongs here: which name means what.  What does not: the stores themselves (``stores``).

``blobs``: the :class:`geo_assets.stores.blobs.BlobStore`; ``listings``: the
:class:`geo_assets.containers.listing_store.ListingStore`; ``settings``: the :class:`geo_assets.settings.Settings`;
``sandbox``: the :class:`geo_assets.coremachine.sandbox.Sandbox` for whatever opens a file someone uploaded.
"""

from typing import Any

from geo_assets.containers.listing_store import open_listing_store
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store

_opened: dict[Settings, dict[str, Any]] = {}


def open_services(settings: Settings) -> dict[str, Any]:
    """Open the services of these settings, once a process."""
    if settings not in _opened:
        _opened.clear()
        _opened[settings] = {
            "blobs": open_blob_store(settings),
            "listings": open_listing_store(settings),
            "settings": settings,
            "sandbox": Sandbox(settings),
        }
    return _opened[settings]
