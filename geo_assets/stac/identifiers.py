"""Identifiers of items: from a container and a blob name to an id that no other blob shares, and to file names.

What belongs here: the id rules and the file-safe spelling of ids.  What does not: partition keys
(``coremachine.identity``).

The rule: ``container~folder~file.tif``.  Letters, digits, ``.``, ``_`` and ``-`` stand as they are, ``/`` becomes
``~``, every other byte of the UTF-8 name ``=XX``.  It is reversible, so two blobs never share an id, and holds nothing
that a URL path or a file system would read differently.  A name that grows too long keeps its beginning and gets 128
bits of its SHA-256 behind ``=-``, which no encoded byte looks like.
"""

import hashlib
import re
from typing import Literal

from geo_assets.errors import ParameterError

__all__ = ["MAX_ID_LENGTH", "IdRule", "file_stem", "raster_item_id", "table_item_id"]

IdRule = Literal["container_path", "legacy"]
"""``container_path``: as above. ``legacy``: the original's, which different blobs can share."""

MAX_ID_LENGTH = 200
"""Longest id we make: file names end at 255 bytes, and ``.json`` and a temporary suffix must fit."""

_KEPT = re.compile(rb"[A-Za-z0-9._-]+")
_KEPT_IN_FILES = re.compile(rb"[A-Za-z0-9._~-]+")
_DIGEST_LENGTH = 32


def raster_item_id(
    container: str, blob_name: str, *, rule: IdRule = "container_path", collection_id: str | None = None
) -> str:
    """Return the id of the item that describes a blob.

    Args:
        container: the container's name.
        blob_name: the blob's full name in it.
        rule: which rule; the legacy one leaves the container out and cannot tell ``a/b.tif`` from ``a-b.tif``.
        collection_id: wanted by the legacy rule, which begins with it.

    Raises:
        ParameterError: an empty name, an unknown rule, or the legacy rule without a collection.
    """
    if not container or not blob_name:
        raise ParameterError("an item id needs both a container and a blob name")
    if rule == "container_path":
        return _shortened(_encoded(f"{container}/{blob_name}", slash="~"))
    if rule != "legacy":
        raise ParameterError(f"unknown id rule '{rule}': use container_path or legacy")
    if not collection_id:
        raise ParameterError("the legacy id rule begins with the collection: give a collection_id")
    return f"{collection_id}-{blob_name.replace('/', '-').replace('.', '-')}"


def table_item_id(schema: str, table: str) -> str:
    """Return the id of the item that describes a table: ``postgis-schema-table``, as in the original.

    Dashes and dots inside the names are encoded, so that no two tables share an id.

    Raises:
        ParameterError: an empty name.
    """
    if not schema or not table:
        raise ParameterError("an item id needs both a schema and a table")
    names = (_encoded(name).replace("-", "=2D").replace(".", "=2E") for name in (schema, table))
    return _shortened("-".join(("postgis", *names)))


def file_stem(name: str) -> str:
    """Spell any id as a file name (without ending): no folder, not hidden, at most 200 bytes, never shared."""
    encoded = _encoded(name, kept=_KEPT_IN_FILES)
    if encoded.startswith("."):
        encoded = f"=2E{encoded[1:]}"
    return _shortened(encoded)


def _encoded(name: str, *, kept: re.Pattern[bytes] = _KEPT, slash: str = "=2F") -> str:
    try:
        raw = name.encode()
    except UnicodeEncodeError:
        raise ParameterError(f"not valid text (a lone surrogate): {name[:80]!a}") from None
    parts: list[str] = []
    end = 0
    for plain in kept.finditer(raw):
        parts.append(_escaped(raw[end : plain.start()], slash))
        parts.append(plain.group().decode())
        end = plain.end()
    parts.append(_escaped(raw[end:], slash))
    return "".join(parts)


def _escaped(raw: bytes, slash: str) -> str:
    return "".join(slash if byte == ord("/") else f"={byte:02X}" for byte in raw)


def _shortened(encoded: str) -> str:
    if len(encoded) <= MAX_ID_LENGTH:
        return encoded
    digest = hashlib.sha256(encoded.encode()).hexdigest()[:_DIGEST_LENGTH]
    return f"{encoded[: MAX_ID_LENGTH - _DIGEST_LENGTH - 2]}=-{digest}"
