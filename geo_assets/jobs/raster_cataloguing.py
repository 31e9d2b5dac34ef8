"""Making and writing the STAC item of one raster, for every workflow that does.

What belongs here: the parameters that say how items are made, the way from a local raster to its item, thumbnail and
pictures, and what all of that shows in the UI.  What does not: the documents (``geo_assets.stac``), the stores, and
any one workflow.

Nothing here opens a raster: the sandbox does (``stac.raster_file``).
"""

import base64
import contextlib
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    Markdown,
    OutcomeKind,
    Published,
    TaskContext,
    canonical_json,
)
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, ParameterError
from geo_assets.jobs.blob_tasks import failed, invalid, sentence_of
from geo_assets.jobs.cataloguing import CollectionParameters
from geo_assets.pictures import Picture, enlarged, gallery, histogram_svg, shown_at_once
from geo_assets.settings import Settings
from geo_assets.stac.acquisition import check_datetime_pattern
from geo_assets.stac.identifiers import IdRule, file_stem, raster_item_id
from geo_assets.stac.items import StacVersion
from geo_assets.stac.locator_map import locator_map, small_map
from geo_assets.stores.blobs import MAX_BLOB_NAME, BlobProperties, BlobStore
from geo_assets.stores.catalog import CatalogStore, ItemOutcome, ItemStatus
from geo_assets.stores.item_writer import ItemWriter

__all__ = [
    "ITEM_ASSET",
    "CatalogueParameters",
    "DescribedFile",
    "ItemRequest",
    "blob_facts",
    "catalogued_metadata",
    "is_current",
    "item_facts",
    "item_published",
    "items_of_blobs",
    "picture_and_item",
    "picture_metadata",
    "pictures_of",
    "publish_thumbnail",
    "thumbnail_place",
    "write_item",
]

ITEM_ASSET = "raster_stac_item"
"""Asset of the items of rasters, whichever workflow makes them."""
RECIPE_VERSION = 1
"""Changes when items are made differently, so that those of before are made anew."""
_SVG = "image/svg+xml"


class CatalogueParameters(CollectionParameters):
    """Parameters of every workflow that makes items of rasters; each has a ``collection_id`` of its own beside."""

    stac_version: StacVersion = Field(
        "1.1.0", description="Form of the item: 1.1.0 with bands, or 1.0.0 with raster:bands and eo:bands."
    )
    datetime_pattern: str | None = Field(
        None,
        description="Where in the blob's name the time of acquisition stands, such as _%Y%m%dT%H%M%S; else it is taken"
        " from the file's tags, else the blob's date.",
    )
    id_rule: IdRule = Field(
        "container_path",
        description="container_path: no two blobs share an item id. legacy: the original's ids, which two blobs can"
        " share; the second is refused.",
    )

    @field_validator("datetime_pattern", mode="after")
    @classmethod
    def _check_pattern(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                check_datetime_pattern(value)
            except ParameterError as error:
                raise ValueError(str(error)) from None
        return value


@dataclass(frozen=True, kw_only=True)
class ItemRequest:
    """How the item of one blob is to be made."""

    collection_id: str
    container: str
    """Of the blob that the item describes."""
    blob: str
    stac_version: StacVersion = "1.1.0"
    datetime_pattern: str | None = None
    id_rule: IdRule = "container_path"

    @classmethod
    def from_parameters(cls, params: Mapping[str, Any], *, container: str, blob: str) -> "ItemRequest":
        """Of a job's or task's parameters."""
        chosen = {name: params[name] for name in ("stac_version", "datetime_pattern", "id_rule") if params.get(name)}
        return cls(collection_id=params["collection_id"], container=container, blob=blob, **chosen)

    @property
    def item_id(self) -> str:
        """Id of the item."""
        return raster_item_id(self.container, self.blob, rule=self.id_rule, collection_id=self.collection_id)

    @property
    def recipe(self) -> str:
        """A short digest of everything but the blob that decides what the item says."""
        said = {"version": RECIPE_VERSION, "stac": self.stac_version, "pattern": self.datetime_pattern}
        return hashlib.sha256(canonical_json(said).encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class DescribedFile:
    """A local raster and what is known of it when its item is made."""

    path: Path
    facts: Mapping[str, Any]
    """Of its blob; see :func:`blob_facts`."""
    source: Mapping[str, Any] | None = None
    """Of the blob that one was made of."""
    statistics: list[Mapping[str, Any]] | None = None
    raster_type: str | None = None
    thumbnail: Mapping[str, Any] | None = None
    """Facts of a thumbnail that is published already; else one is made and published."""
    assets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


def blob_facts(
    blobs: BlobStore, container: str, properties: BlobProperties, *, sha256: str | None, **more: Any
) -> dict[str, Any]:
    """What an item says of a blob, in plain values: the fields of :class:`~geo_assets.stac.items.BlobFacts`."""
    return {
        "container": container,
        "name": properties.name,
        "href": blobs.uri(container, properties.name),
        "etag": properties.etag,
        "size": properties.size,
        "last_modified": properties.last_modified.isoformat(),
        "sha256": sha256,
        **more,
    }


def is_current(item: Mapping[str, Any] | None, request: ItemRequest, etag: str) -> bool:
    """Whether a catalogued item describes this version of the blob, made the way it would be made now."""
    properties = (item or {}).get("properties") or {}
    wanted = {"container": request.container, "blob": request.blob, "etag": etag, "recipe": request.recipe}
    return all(properties.get(f"geo_assets:{name}") == value for name, value in wanted.items())


# --- the way -----------------------------------------------------------------------------------------------------


def picture_and_item(
    context: Mapping[str, Any], file: DescribedFile, request: ItemRequest | None, *, name: str
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Have the sandbox describe a local raster and publish its thumbnail.

    Args:
        context: the handler's.
        file: the raster.
        request: how its item is to be made; ``None``: pictures only.
        name: of the blob, for SRTM heights and messages.

    Returns:
        What :func:`~geo_assets.stac.raster_file.describe_raster_file` found, and ``None``; or an empty dict and the
        handler's return where it could not.
    """
    # here and not above: GDAL is loaded where a raster is at work, not wherever the registry is
    from geo_assets.raster.open import RasterBudget  # noqa: PLC0415
    from geo_assets.stac.raster_file import describe_raster_file  # noqa: PLC0415

    services = TaskContext(context).services
    settings: Settings = services["settings"]
    sandbox: Sandbox = services["sandbox"]
    blobs: BlobStore = services["blobs"]
    place = thumbnail_place(settings, file.facts)
    asked: dict[str, Any] = {
        "path": str(file.path),
        "name": name,
        "budget": RasterBudget.from_settings(settings).as_dict(),
        "statistics": file.statistics,
        "raster_type": file.raster_type,
        "thumbnail": {**place, "href": blobs.uri(place["container"], place["name"])},
    }
    if request is not None:
        asked["item"] = {
            "item_id": request.item_id,
            "collection_id": request.collection_id,
            "blob": file.facts,
            "source": file.source,
            "assets": file.assets,
            "options": {
                "stac_version": request.stac_version,
                "datetime_pattern": request.datetime_pattern,
                "job_id": context.get("job_id"),
                "extra_properties": {"geo_assets:recipe": request.recipe},
                **file.options,
            },
        }
    outcome = sandbox.call(describe_raster_file, asked)
    if outcome.kind is not OutcomeKind.CREATED:
        code, message = outcome.result_data.get("error"), outcome.result_data.get("message")
        if code and message:
            return {}, invalid(code, message, {})
        return {}, failed("ITEM_CREATION_FAILED", sentence_of(outcome), {}, transient=outcome.transient)
    return outcome.result_data["result"], None


def publish_thumbnail(services: Mapping[str, Any], facts: Mapping[str, Any], made: Mapping[str, Any]) -> dict[str, Any]:
    """Put the full thumbnail of a blob into the blob store, unless it is there as it is.

    Returns:
        Where it lies, with its ETag and size, and whether it was ``created``: a new blob.
    """
    blobs: BlobStore = services["blobs"]
    place = thumbnail_place(services["settings"], facts)
    if not blobs.container_exists(place["container"]):
        blobs.create_container(place["container"])
    there: BlobProperties | None = None
    with contextlib.suppress(BlobNotFoundError):
        there = blobs.head(place["container"], place["name"])
    picture = Path(made["path"]).read_bytes()
    if there is not None and there.size == len(picture) and blobs.read(place["container"], place["name"]) == picture:
        etag = there.etag
    else:
        etag = blobs.put_stream(
            place["container"],
            place["name"],
            [picture],
            content_type=made["media_type"],
            sha256=made["sha256"],
        )
    return {
        "container": place["container"],
        "blob": place["name"],
        "etag": etag,
        "size": made["size"],
        "created": there is None,
    }


def thumbnail_place(settings: Settings, facts: Mapping[str, Any]) -> dict[str, str]:
    """Container and name of the thumbnail of a blob."""
    name = f"{facts['container']}/{facts['name']}.webp"
    if len(name) > MAX_BLOB_NAME:
        name = f"{file_stem(name)}.webp"
    return {"container": settings.thumbnail_container, "name": name}


def write_item(services: Mapping[str, Any], request: ItemRequest, item: Mapping[str, Any]) -> dict[str, Any]:
    """Write an item; returns ``outcome``, ``reason``, and as ``stac`` what a result says of it.

    Raises:
        CatalogError, CatalogUnavailableError: as the catalog's.
    """
    writer: ItemWriter = services["items"]
    started = time.perf_counter()
    written: ItemOutcome = writer.write(request.collection_id, item)
    return {
        "outcome": _OUTCOMES[written.status],
        "reason": written.reason,
        "stac": {
            **item_facts(item, request),
            "outcome": written.status.value,
            "insert_time_seconds": round(time.perf_counter() - started, 4),
        },
    }


def item_facts(item: Mapping[str, Any], request: ItemRequest) -> dict[str, Any]:
    """What a result says of an item: where it is, what it describes, and what the original's results had of it."""
    properties = item["properties"]
    code = properties.get("proj:code") or f"EPSG:{properties.get('proj:epsg')}"
    epsg = code.removeprefix("EPSG:")
    data = item["assets"]["data"]
    return {
        "collection_id": request.collection_id,
        "item_id": item["id"],
        "container": request.container,
        "blob": request.blob,
        "bbox": item["bbox"],
        "geometry_type": item["geometry"]["type"],
        "bands_count": len(data.get("bands") or data.get("raster:bands") or []),
        "epsg": int(epsg) if epsg.isdigit() else None,
        "datetime": properties["datetime"],
        "datetime_source": properties.get("geo_assets:datetime_source"),
        "gsd": properties.get("gsd"),
    }


_OUTCOMES: Mapping[ItemStatus, Literal["created", "updated", "unchanged", "skipped", "invalid"]] = {
    ItemStatus.CREATED: "created",
    ItemStatus.UPDATED: "updated",
    ItemStatus.UNCHANGED: "unchanged",
    ItemStatus.SKIPPED: "skipped",
    ItemStatus.INVALID: "invalid",
}


# --- what is shown -----------------------------------------------------------------------------------------------


def pictures_of(described: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a result that :func:`picture_gallery` draws from."""
    return {**described["pictures"], "outline": described["outline"]}


def picture_metadata(result: Mapping[str, Any]) -> dict[str, Any]:
    """Thumbnail, locator map and histogram of a result: small ones shown at once, larger ones a click away."""
    pictures = result.get(PICTURES) or {}
    if not pictures:
        return {}
    outline, bands = pictures["outline"], [{"histogram": histogram} for histogram in pictures["histograms"]]
    tiny = Picture(alt="Thumbnail", media_type=pictures["media_type"], data=base64.b64decode(pictures["tiny"]))
    small = Picture(alt="Thumbnail", media_type=pictures["media_type"], data=base64.b64decode(pictures["small"]))
    width, height = pictures["size"]
    at_once = {"thumbnail": enlarged(tiny, width=width, height=height)}
    gathered = [small]
    if outline:
        at_once["map"] = Picture(alt="Where it lies", media_type=_SVG, data=small_map(outline).encode())
        gathered.append(Picture(alt="Where it lies", media_type=_SVG, data=locator_map(outline).encode()))
    if histogram := histogram_svg(bands):
        at_once["histogram"] = Picture(alt="Histogram", media_type=_SVG, data=histogram.encode())
        gathered.append(at_once["histogram"])
    shown = {name: shown_at_once(picture) for name, picture in at_once.items()}
    return {
        **{name: Markdown(text) for name, text in shown.items() if text},
        "pictures": Markdown(gallery("", gathered)),
    }


def catalogued_metadata(result: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures and the facts of a catalogued raster, as the partition shows them."""
    stac: Mapping[str, Any] = result.get("stac") or {}
    raster: Mapping[str, Any] = result.get("raster") or {}
    plain = {
        "collection": stac.get("collection_id"),
        "item_id": stac.get("item_id"),
        "item": stac.get("outcome"),
        "datetime": stac.get("datetime"),
        "datetime_source": stac.get("datetime_source"),
        "bbox": stac.get("bbox"),
        "epsg": stac.get("epsg"),
        "gsd_metres": stac.get("gsd"),
        "size": f"{raster['width']} x {raster['height']}" if raster.get("width") else None,
        "band_count": raster.get("bands"),
        "dtype": raster.get("dtype"),
        "dagster/uri": result.get("href"),
    }
    return {**picture_metadata(result), **{name: value for name, value in plain.items() if value is not None}}


def item_published(result: Mapping[str, Any]) -> list[Published]:
    """The item and the thumbnail that a result names; both belong to the partition of the item."""
    left: list[Published] = []
    stac, thumbnail = result.get("stac"), result.get("thumbnail")
    if stac:
        about = (stac["container"], stac["blob"]) if stac.get("blob") else None
        left.append(
            Published(
                kind="item", collection=stac["collection_id"], name=stac["item_id"], about=about, asset=ITEM_ASSET
            )
        )
    if thumbnail:
        left.append(
            Published(
                kind="blob",
                collection=thumbnail["container"],
                name=thumbnail["blob"],
                version=thumbnail["etag"],
                asset=ITEM_ASSET,
            )
        )
    return left


def items_of_blobs(names: Sequence[str], services: Mapping[str, Any]) -> dict[str, list[Published]]:
    """Partition ``container/blob`` → the items that describe this blob itself, and its thumbnail."""
    blobs: BlobStore = services["blobs"]
    catalog: CatalogStore = services["catalog"]
    wanted: dict[str, tuple[str, str]] = {}
    for name in names:
        container, _, blob = name.partition("/")
        wanted[name] = (container, blob)
    found: dict[str, list[Published]] = {}
    for collection in catalog.list_collections():
        for container in sorted({container for container, _ in wanted.values()}):
            items: dict[tuple[str, str], list[str]] = {}
            for item_id, described in catalog.described_blobs(collection, container=container).items():
                items.setdefault((container, described.blob), []).append(item_id)
            for name, about in wanted.items():
                found.setdefault(name, []).extend(
                    Published(kind="item", collection=collection, name=item_id, about=about, asset=ITEM_ASSET)
                    for item_id in items.get(about, ())
                )
    for name, left in found.items():
        if left:
            place = thumbnail_place(services["settings"], dict(zip(("container", "name"), wanted[name], strict=True)))
            with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError):
                etag = blobs.head(place["container"], place["name"]).etag
                left.append(
                    Published(
                        kind="blob", collection=place["container"], name=place["name"], version=etag, asset=ITEM_ASSET
                    )
                )
    return found
