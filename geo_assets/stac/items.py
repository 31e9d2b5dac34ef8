"""What every item shares, whatever it describes: blobs, hrefs, checksums, times, provenance, and when two are equal.

What belongs here: the pieces of item documents that rasters and tables have in common.  What does not: the items
themselves (``raster_item``), the schema and geometry checks (``validation``).

Items are plain dicts all the way: building a thousand of them must not cost a thousand object trees.  Our own
properties begin with ``geo_assets:``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import quote, urlsplit, urlunsplit

from geo_assets import __version__
from geo_assets.errors import ParameterError

__all__ = [
    "COG_MEDIA_TYPE",
    "FILE",
    "PROCESSING",
    "BlobFacts",
    "DescribedBlob",
    "StacVersion",
    "asset_of_blob",
    "described_blob",
    "described_thing",
    "durable_href",
    "file_href",
    "multihash",
    "provenance_properties",
    "rfc3339",
    "same_item",
    "without_nulls",
    "without_structural_links",
]

StacVersion = Literal["1.1.0", "1.0.0"]
COG_MEDIA_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"

# what changes with every run although nothing else did
_VOLATILE = ("created", "updated", "geo_assets:job_id", "processing:datetime", "processing:software")
_STRUCTURAL = frozenset({"root", "parent", "collection", "self"})
_MULTIHASH_CODES = {"sha256": ("1220", 64), "md5": ("d50110", 32)}


@dataclass(frozen=True, kw_only=True)
class BlobFacts:
    """What is known of one blob when an item is made of it."""

    container: str
    name: str
    href: str
    """Where it is read from, for good: :func:`durable_href` takes signatures off."""
    etag: str | None = None
    size: int | None = None
    """Bytes."""
    last_modified: datetime | None = None
    media_type: str | None = None
    sha256: str | None = None
    """Hexadecimal digest of the content, where somebody has read all of it."""


@dataclass(frozen=True, kw_only=True)
class DescribedBlob:
    """Which version of which blob an item describes, and how it was made."""

    container: str
    blob: str
    etag: str | None
    recipe: str | None
    """Digest of how; see ``jobs.raster_cataloguing``."""


def durable_href(url: str) -> str:
    """Take off an href what expires or is secret: query, fragment, user and password; percent-encode the path.

    Raises:
        ParameterError: it is empty.
    """
    if not url:
        raise ParameterError("an asset needs an href")
    parts = urlsplit(url)
    path = quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, "", ""))


def asset_of_blob(
    blob: BlobFacts,
    *,
    roles: Sequence[str],
    media_type: str | None = None,
    fields: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make an asset of a blob: durable href, type, size and checksum.

    Args:
        blob: the blob.
        roles: the asset's roles.
        media_type: wins over the blob's.
        fields: more fields of the asset.

    Raises:
        ParameterError: the blob's href is empty or its digest malformed.
    """
    if blob.size is not None and blob.size < 0:
        raise ParameterError(f"{blob.container}/{blob.name}: a size of {blob.size} bytes cannot be")
    asset: dict[str, Any] = {
        "href": durable_href(blob.href),
        "type": media_type or blob.media_type,
        "title": blob.name.rpartition("/")[2],
        "roles": list(roles),
        "file:size": blob.size,
        "file:checksum": None if blob.sha256 is None else multihash("sha256", blob.sha256),
        **(fields or {}),
    }
    return {name: value for name, value in asset.items() if value is not None}


def file_href(path: Path) -> str:
    """The ``file://`` href of a local file; a name with ``?`` or ``#`` stays part of the path."""
    return path.absolute().as_uri()


def multihash(algorithm: str, digest: str) -> str:
    """Spell a hexadecimal digest as the multihash that ``file:checksum`` wants.

    Raises:
        ParameterError: an algorithm other than sha256 and md5, or a digest that is not one.
    """
    code, length = _MULTIHASH_CODES.get(algorithm, ("", 0))
    lowered = digest.lower()
    if not code:
        raise ParameterError(f"no multihash code for '{algorithm}': use sha256 or md5")
    if len(lowered) != length or set(lowered) - set("0123456789abcdef"):
        raise ParameterError(f"not a {algorithm} digest of {length} hexadecimal digits: '{digest[:80]}'")
    return code + lowered


def rfc3339(moment: datetime) -> str:
    """Spell a time as STAC wants it, in UTC with a ``Z``.

    Raises:
        ParameterError: it has no zone.
    """
    if moment.tzinfo is None:
        raise ParameterError(f"{moment.isoformat()} has no time zone: say which one")
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def provenance_properties(
    *, blob: BlobFacts, source: BlobFacts | None, job_id: str | None, lineage: str | None = None
) -> dict[str, Any]:
    """Properties that say where an item's data comes from; ``source`` is the blob that ``blob`` was made of, if any."""
    properties: dict[str, Any] = {
        "geo_assets:container": blob.container,
        "geo_assets:blob": blob.name,
        "geo_assets:etag": blob.etag,
        "geo_assets:job_id": job_id,
        "processing:software": {"geo-assets": __version__},
        "processing:lineage": lineage,
    }
    if source is not None:
        properties |= {
            "geo_assets:source_container": source.container,
            "geo_assets:source_blob": source.name,
            "geo_assets:source_etag": source.etag,
        }
    return {name: value for name, value in properties.items() if value is not None}


def described_thing(item: Mapping[str, Any]) -> tuple[str, str] | None:
    """Container and blob, or schema and table, that an item describes; ``None`` for items of other makers."""
    return _named(item, "container", "blob") or _named(item, "schema", "table")


def described_blob(item: Mapping[str, Any]) -> DescribedBlob | None:
    """The blob an item describes, with its version; ``None`` for items of tables and of other makers."""
    thing = _named(item, "container", "blob")
    if thing is None:
        return None
    etag, recipe = (item["properties"].get(f"geo_assets:{name}") for name in ("etag", "recipe"))
    return DescribedBlob(
        container=thing[0],
        blob=thing[1],
        etag=etag if isinstance(etag, str) else None,
        recipe=recipe if isinstance(recipe, str) else None,
    )


def without_structural_links(item: Mapping[str, Any]) -> dict[str, Any]:
    """A shallow copy without the links that only say where in a catalog the item lies; the stores add their own."""
    links = [link for link in item.get("links") or () if link.get("rel") not in _STRUCTURAL]
    return {**item, "links": links}


def without_nulls(item: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without fields that are null: they say nothing, and pgSTAC does not keep them.

    The geometry, and the ``datetime`` that the specification wants null beside a range, stay.
    """
    copy: dict[str, Any] = {name: value if name == "geometry" else _filled(value) for name, value in item.items()}
    properties = item.get("properties")
    if isinstance(properties, Mapping) and "datetime" in properties:
        copy["properties"] = {"datetime": properties["datetime"], **copy["properties"]}
    return copy


def same_item(left: Mapping[str, Any], right: Mapping[str, Any]) -> bool:
    """Whether two items say the same, apart from structural links, the time they were written and the job that did."""
    return _essence(left) == _essence(right)


def _named(item: Mapping[str, Any], holder: str, name: str) -> tuple[str, str] | None:
    properties = item.get("properties") or {}
    pair = properties.get(f"geo_assets:{holder}"), properties.get(f"geo_assets:{name}")
    return (pair[0], pair[1]) if isinstance(pair[0], str) and isinstance(pair[1], str) else None


def _filled(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _filled(inner) for name, inner in value.items() if inner is not None}
    # histograms are long lists of numbers, nothing to look for
    if isinstance(value, list) and value and isinstance(value[0], Mapping | list):
        return [_filled(inner) for inner in value]
    return value


def _essence(item: Mapping[str, Any]) -> dict[str, Any]:
    properties = cast("Mapping[str, Any]", item.get("properties") or {})
    essence = without_structural_links(item)
    essence["properties"] = {name: value for name, value in properties.items() if name not in _VOLATILE}
    return essence
