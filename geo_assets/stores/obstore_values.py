"""Between obstore's values and ours: listings to Arrow, metadata to properties, write modes.

What belongs here: pure conversions shared by the stores built on obstore.  What does not: requests, errors.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from geo_assets.stores.blobs import FULL_LISTING_SCHEMA, LISTING_SCHEMA, BlobProperties, PutMode, name_problem

if TYPE_CHECKING:  # these exist in obstore's stubs only
    from obstore import Attributes, ObjectMeta
    from obstore import PutMode as ObstorePutMode

__all__ = [
    "FullRow",
    "Row",
    "attributes",
    "batch_of",
    "batch_of_full_rows",
    "batch_of_rows",
    "folder_of",
    "json_of",
    "properties_of",
    "put_mode",
]

_STANDARD_ATTRIBUTES = frozenset(
    {
        "Cache-Control",
        "Content-Disposition",
        "Content-Encoding",
        "Content-Language",
        "Content-Type",
        "Storage-Class",
    }
)

Row = tuple[str, int, datetime, str | None, str | None]
"""Name, size, last modified, ETag, problem."""

FullRow = tuple[str, int, datetime, str | None, str | None, str | None, str | None, str | None, str | None]
"""The same, then content type, content MD5, metadata, tags."""


def batch_of(metas: "Sequence[ObjectMeta]") -> pa.RecordBatch:
    """One batch of a listing from obstore's dicts."""
    count = len(metas)
    return pa.record_batch(
        [
            pa.array([meta["path"] for meta in metas], pa.string()),
            pa.array([meta["size"] for meta in metas], pa.int64()),
            pa.array([meta["last_modified"] for meta in metas], LISTING_SCHEMA.field("last_modified").type),
            pa.array([meta["e_tag"] for meta in metas], pa.string()),
            pa.nulls(count, pa.string()),
        ],
        schema=LISTING_SCHEMA,
    )


def batch_of_rows(rows: Iterable[Row]) -> pa.RecordBatch:
    """One batch of a listing from plain rows."""
    return _batch(rows, LISTING_SCHEMA)


def batch_of_full_rows(rows: Iterable[FullRow]) -> pa.RecordBatch:
    """One batch of a full listing from plain rows."""
    return _batch(rows, FULL_LISTING_SCHEMA)


def _batch(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def json_of(values: Mapping[str, str] | None) -> str | None:
    """Metadata or tags as a listing has them; null where there are none."""
    return json.dumps(dict(values), sort_keys=True) if values else None


def properties_of(meta: "ObjectMeta", found: "Attributes") -> BlobProperties:
    """Properties of one blob; attributes that are no standard header are its metadata."""
    given = {str(key): str(value) for key, value in found.items()}
    return BlobProperties(
        name=meta["path"],
        size=meta["size"],
        last_modified=meta["last_modified"].astimezone(UTC),
        etag=meta["e_tag"] or "",
        content_type=given.get("Content-Type"),
        metadata={key: value for key, value in given.items() if key not in _STANDARD_ATTRIBUTES},
    )


def attributes(content_type: str | None, metadata: Mapping[str, str] | None) -> "Attributes | None":
    """Attributes, as obstore takes them, of a new blob."""
    found: dict[str, str] = dict(metadata or {})
    if content_type is not None:
        found["Content-Type"] = content_type
    return found or None


def folder_of(prefix: str) -> str | None:
    """The folder obstore can list for a text prefix, or ``None`` for everything: its own prefixes are folders."""
    folder = prefix.rpartition("/")[0]
    return folder if folder and name_problem(folder) is None else None


def put_mode(mode: PutMode, if_match: str | None) -> "ObstorePutMode":
    """Write mode, as obstore takes it.

    Raises:
        ValueError: ``create`` together with ``if_match``.
    """
    if if_match is None:
        return mode
    if mode == "create":
        raise ValueError("mode='create' and if_match exclude each other")
    return {"e_tag": if_match}
