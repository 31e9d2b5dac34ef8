"""One entry of a listing, described: a blob, or a ``.gdb`` dataset of many.

What belongs here: :func:`describe`, :func:`needs_reading`.  What does not: what is inside the file beyond its first
bytes.
"""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from geo_assets.containers.filter import BYTES_PER_MB
from geo_assets.containers.kinds import extension_of
from geo_assets.containers.signatures import START, detect, matches
from geo_assets.stores.blobs import BlobProperties, BlobStore

__all__ = ["GEODATABASE", "describe", "needs_reading"]

GEODATABASE = "application/x-esri-geodatabase"
"""Content type of ``.gdb`` datasets."""


def needs_reading(listed: Mapping[str, Any]) -> bool:
    """Whether a look at the first bytes tells more than the listing: a raster or vector by name, in one blob."""
    return listed.get("kind") in ("raster", "vector") and listed.get("file_count") is None


def describe(store: BlobStore, container: str, listed: Mapping[str, Any], *, magic: bool = True) -> dict[str, Any]:
    """Describe an entry by its row of the listing and, where that may tell more, by one read of its first bytes.

    Args:
        store: where the container is.
        container: its name.
        listed: the row: ``name``, ``size``, ``last_modified`` and any other column of a listing.
        magic: whether first bytes are read at all; without, no request is made.

    Returns:
        The original's result fields, ``geo_kind``, ``dataset``, ``role``, ``complete``, ``missing``, ``change``,
        ``content_md5`` and ``tags`` of the listing; ``detected_format``, ``format_matches_name`` and
        ``replaced_since_listing``, which are ``None`` where nothing was read.  Content type and metadata are known
        from a full listing or a read, else ``None`` and empty.  What was replaced since it was listed is described
        as it is now.

    Raises:
        BlobNotFoundError: it was to be read and is not there any more.
        GeoAssetsError: as the store's ``read_start``.
    """
    name: str = listed["name"]
    start, found = (None, None)
    if magic and needs_reading(listed):
        start, found = store.read_start(container, name, START)
    replaced = None if found is None else listed.get("etag") not in (None, found.etag)
    size = listed["size"] if found is None else found.size
    detected = None if start is None else detect(start)
    return {
        "blob_name": name,
        "blob_path": f"{container}/{name}",
        "container_name": container,
        "size_bytes": size,
        "size_mb": round(size / BYTES_PER_MB, 4),
        "file_extension": extension_of(name),
        "content_type": _content_type(listed, found),
        "last_modified": _iso(listed["last_modified"] if found is None else found.last_modified),
        "etag": listed.get("etag") if found is None else found.etag,
        "metadata": _metadata(listed, found),
        "replaced_since_listing": replaced,
        "geo_kind": listed.get("kind"),
        **{column: listed.get(column) for column in ("dataset", "role", "complete", "missing", "change")},
        "detected_format": detected,
        "format_matches_name": None if start is None else matches(name, detected),
        # the listing's hash is that of the version which was listed
        "content_md5": None if replaced else listed.get("content_md5"),
        "tags": _decoded(listed.get("tags")),
    }


def _content_type(listed: Mapping[str, Any], found: BlobProperties | None) -> str | None:
    if listed.get("file_count") is not None:
        return GEODATABASE
    known: str | None = listed.get("content_type")
    return (found.content_type if found is not None else None) or known


def _metadata(listed: Mapping[str, Any], found: BlobProperties | None) -> dict[str, Any]:
    if listed.get("file_count") is not None:
        return {"type": "geodatabase", "file_count": listed["file_count"]}
    return dict(found.metadata) if found is not None else _decoded(listed.get("metadata")) or {}


def _decoded(text: str | None) -> dict[str, Any] | None:
    decoded: dict[str, Any] | None = None if text is None else json.loads(text)
    return decoded


def _iso(moment: datetime | str) -> str:
    return moment if isinstance(moment, str) else moment.isoformat()
