"""One entry of a container: a blob, or a ``.gdb`` dataset of many.

What belongs here: :func:`analyze_entry`.  What does not: what is inside the file.
"""

from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from geo_assets.containers.filter import BYTES_PER_MB
from geo_assets.stores.blobs import BlobStore

__all__ = ["analyze_entry", "extension_of"]

GEODATABASE = "application/x-esri-geodatabase"


def extension_of(name: str) -> str:
    """Extension of the last path segment, lower case with its dot; empty where there is none."""
    segment = PurePosixPath(name).name
    return f".{segment.rpartition('.')[2].lower()}" if "." in segment.rstrip(".") else ""


def analyze_entry(store: BlobStore, container: str, name: str, *, listed_etag: str | None = None) -> dict[str, Any]:
    """Describe a blob by one request, or a ``.gdb`` dataset by listing it.

    Args:
        store: where the container is.
        container: its name.
        name: a blob's name, or the path of a ``.gdb`` folder.
        listed_etag: the blob's ETag in the listing; another one now means that it was replaced since.

    Returns:
        The original's result fields and ``replaced_since_listing``.

    Raises:
        BlobNotFoundError: it is not there (any more).
        GeoAssetsError: as the store's ``head`` and ``list_blobs``.
    """
    if name.lower().endswith(".gdb"):
        dataset = _dataset(store, container, name)
        if dataset is not None:
            return dataset
    found = store.head(container, name)
    return _described(
        container,
        name,
        size=found.size,
        last_modified=found.last_modified,
        content_type=found.content_type,
        etag=found.etag,
        metadata=dict(found.metadata),
        replaced=listed_etag is not None and listed_etag != found.etag,
    )


def _dataset(store: BlobStore, container: str, name: str) -> dict[str, Any] | None:
    """The dataset of that name, or ``None`` where no blob lies in such a folder."""
    size = count = 0
    latest: datetime | None = None
    for batch in store.list_blobs(container, f"{name}/"):
        good = batch.filter(pc.is_null(batch.column("problem")))
        frame = pl.DataFrame(pl.from_arrow(pa.table(good)))
        if frame.height == 0:
            continue
        size += int(frame["size"].sum())
        count += frame.height
        newest: Any = frame["last_modified"].max()
        latest = newest if latest is None else max(latest, newest)
    if latest is None:
        return None
    return _described(
        container,
        name,
        size=size,
        last_modified=latest,
        content_type=GEODATABASE,
        etag=None,
        metadata={"type": "geodatabase", "file_count": count},
        replaced=False,
    )


def _described(
    container: str,
    name: str,
    *,
    size: int,
    last_modified: datetime,
    content_type: str | None,
    etag: str | None,
    metadata: dict[str, Any],
    replaced: bool,
) -> dict[str, Any]:
    return {
        "blob_name": name,
        "blob_path": f"{container}/{name}",
        "container_name": container,
        "size_bytes": size,
        "size_mb": round(size / BYTES_PER_MB, 4),
        "file_extension": extension_of(name),
        "content_type": content_type,
        "last_modified": last_modified.isoformat(),
        "etag": etag,
        "metadata": metadata,
        "replaced_since_listing": replaced,
    }
