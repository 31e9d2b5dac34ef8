"""What ``process_raster`` leaves in the stores: its COGs under their names, with thumbnail and item.

What belongs here: names and who may use them, the order in which things appear, and what is removed when it fails.
What does not: making COGs (``raster.cog``), making items (``raster_cataloguing``), the workflow (``process_raster``).

The order: everything that can fail without the stores has happened → the catalog answers → the names are claimed →
each COG appears whole under its name → the thumbnail → the item.  If any of it fails, what was new is removed again.
What the raster's jobs left before and this one does not make goes last.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geo_assets.coremachine.claims import Claims
from geo_assets.coremachine.contract import PICTURES, OutcomeKind, Published, TaskContext
from geo_assets.errors import (
    BlobNotFoundError,
    CatalogError,
    ContainerNotFoundError,
    GeoAssetsError,
    PreconditionFailedError,
)
from geo_assets.jobs.blob_tasks import chunks_of, etag_of, failed, invalid
from geo_assets.jobs.raster_cataloguing import (
    DescribedFile,
    ItemRequest,
    item_published,
    picture_and_item,
    pictures_of,
    publish_thumbnail,
    write_item,
)
from geo_assets.settings import Settings
from geo_assets.stac.items import COG_MEDIA_TYPE
from geo_assets.stores.blobs import BlobStore, PutMode
from geo_assets.stores.catalog import CatalogStore, present_item

__all__ = ["MAIN_TIER", "cogs_published", "main_tier", "output_name", "publish", "require_names"]

MAIN_TIER = "analysis"
"""The tier whose COG has the original's name."""
_ROLES: Mapping[str, list[str]] = {"analysis": ["data"], "visualization": ["visual"], "archive": ["data", "archive"]}
_MIB = 1024 * 1024


# --- names -------------------------------------------------------------------------------------------------------


def output_name(blob_name: str, tier: str, prefix: str = "") -> str:
    """Name of a COG: as the original's, ``x.tif`` → ``x_cog.tif``, with the tier in it where it is not the main one.

    Args:
        blob_name: of the raster.
        tier: of the COG.
        prefix: text in front, such as ``scenes/``; the original's has none.
    """
    stem = prefix + (blob_name[:-4] if blob_name.lower().endswith(".tif") else blob_name)
    return f"{stem}_cog.tif" if tier == MAIN_TIER else f"{stem}_cog_{tier}.tif"


def main_tier(tiers: Sequence[str]) -> str:
    """The tier that the item's ``data`` asset and the original's result fields are about."""
    return MAIN_TIER if MAIN_TIER in tiers else tiers[0]


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where a tier goes, and what must be there before."""

    container: str
    name: str
    mode: PutMode
    if_match: str | None
    taken: bool
    """Whether it is somebody else's until now."""

    @property
    def claim(self) -> str:
        return f"{self.container}/{self.name}"


def require_names(
    services: Mapping[str, Any], claims: Claims, names: Mapping[str, str], *, overwrite: bool
) -> dict[str, _Target]:
    """Find out how each tier is to be written: as a new blob, or in place of one that this raster's jobs made.

    Args:
        services: the job's.
        claims: of the raster.
        names: tier → name of its COG.
        overwrite: whether what is somebody else's may be replaced.

    Raises:
        PreconditionFailedError: a name is taken by something else; says by what.
    """
    settings: Settings = services["settings"]
    targets: dict[str, _Target] = {}
    container = settings.silver_container
    for tier, name in names.items():
        there = etag_of(services["blobs"], container, name)
        holder = "" if there is None else claims.holder(f"{container}/{name}")
        target = _Target(
            container=container,
            name=name,
            mode="create" if there is None else "overwrite",
            if_match=there,
            taken=holder != "",
        )
        if target.taken and not overwrite:
            whose = f"made by {holder}" if holder else "made by no job that the ledger knows"
            raise PreconditionFailedError(
                f"{target.claim} is there already, {whose}: look at it, then give an output_prefix, such as the"
                " container's name and a slash, or remove it, or give overwrite: true"
            )
        targets[tier] = target
    return targets


# --- publishing --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Publication:
    """What was new, to be removed again if publishing fails."""

    blobs: BlobStore
    created: list[tuple[str, str]] = field(default_factory=list)

    def take_back(self) -> None:
        for container, name in self.created:
            with contextlib.suppress(GeoAssetsError):  # the failure itself is what must be told
                self.blobs.delete(container, name)


@contextmanager
def _all_or_nothing(blobs: BlobStore) -> Iterator[_Publication]:
    publication = _Publication(blobs=blobs)
    try:
        yield publication
    except BaseException:
        publication.take_back()
        raise


class _RefusedError(Exception):
    """The catalog refused the item; carries the handler's return."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["message"])
        self.answer = answer


def publish(
    cog: Mapping[str, Any],
    folder: Path,
    context: Mapping[str, Any],
    *,
    names: Mapping[str, str],
    request: ItemRequest | None,
    overwrite: bool,
) -> dict[str, Any]:
    """Publish the COGs that lie in a folder, their thumbnail and their item; returns the handler's return.

    Args:
        cog: the result of the stage that made them.
        folder: the job's scratch folder.
        context: the handler's, with ``claims`` and ``history``.
        names: tier → name of its COG.
        request: how the item is to be made; ``None``: none is.
        overwrite: whether blobs that have the names and are somebody else's are replaced.

    Raises:
        GeoAssetsError: as the stores'; nothing new is left then.
    """
    started = time.perf_counter()
    services = TaskContext(context).services
    blobs: BlobStore = services["blobs"]
    claims: Claims = context["claims"]
    described, problem = _describe(cog, folder, context, names, request)
    if problem is not None:
        return problem
    try:
        targets = require_names(services, claims, names, overwrite=overwrite)
    except PreconditionFailedError as error:
        return failed("OUTPUT_EXISTS", str(error), {"source_blob": cog["source_blob"]})
    if request is not None:
        # a catalog that is away must be away before anything is replaced
        present_item(services["catalog"], request.collection_id, request.item_id)
    container = services["settings"].silver_container
    if not blobs.container_exists(container):
        blobs.create_container(container)
    claims.take([target.claim for target in targets.values()])
    try:
        with _all_or_nothing(blobs) as publication:
            result = _write(cog, folder, services, targets, described, request, publication)
    except _RefusedError as refused:
        return refused.answer
    # whoever meant to take the name at the same moment has failed, and may have claimed it
    claims.take([target.claim for target in targets.values()])
    _retire(context, result)
    if any(target.taken for target in targets.values()):
        _retire_descriptions(services, result)
    result["timings"] = {**cog["timings"], "publish": round(time.perf_counter() - started, 4)}
    outcome = result.pop("outcome")
    return {"success": True, "outcome": outcome, "result": result}


def _describe(
    cog: Mapping[str, Any],
    folder: Path,
    context: Mapping[str, Any],
    names: Mapping[str, str],
    request: ItemRequest | None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Pictures and item of the main tier, from the file that is about to be published."""
    services = TaskContext(context).services
    blobs: BlobStore = services["blobs"]
    container = services["settings"].silver_container
    tiers: Mapping[str, Mapping[str, Any]] = cog["tiers"]
    facts = {
        tier: {
            "container": container,
            "name": names[tier],
            "href": blobs.uri(container, names[tier]),
            "size": made["size"],
            "sha256": made["sha256"],
            "media_type": COG_MEDIA_TYPE,
        }
        for tier, made in tiers.items()
    }
    main = main_tier(list(tiers))
    file = DescribedFile(
        path=folder / tiers[main]["file"],
        facts=facts[main],
        source={
            "container": cog["source_container"],
            "name": cog["source_blob"],
            "href": blobs.uri(cog["source_container"], cog["source_blob"]),
            "etag": cog["source_etag"],
            "last_modified": cog["source_modified"],
            "sha256": cog["source_sha256"],
        },
        statistics=cog["statistics"],
        raster_type=cog["raster_type"],
        assets={
            tier: {"blob": facts[tier], "roles": _ROLES[tier], "media_type": COG_MEDIA_TYPE}
            for tier in tiers
            if tier != main
        },
        options={"cloud_optimized": True, "lineage": _lineage(cog)},
    )
    return picture_and_item(context, file, request, name=facts[main]["name"])


def _lineage(cog: Mapping[str, Any]) -> str:
    source = f"{cog['source_container']}/{cog['source_blob']}"
    how = f"reprojected from {cog['source_crs']} to {cog['target_crs']} ({cog['reproject_resampling']})"
    moved = how if cog["reprojection_performed"] else "on the raster's own grid"
    return f"Cloud Optimized GeoTIFF of {source}, {moved}"[:500]


def _write(
    cog: Mapping[str, Any],
    folder: Path,
    services: Mapping[str, Any],
    targets: Mapping[str, _Target],
    described: Mapping[str, Any],
    request: ItemRequest | None,
    publication: _Publication,
) -> dict[str, Any]:
    tiers = {
        tier: _upload(services["blobs"], targets[tier], folder, made, publication)
        for tier, made in cog["tiers"].items()
    }
    main = tiers[main_tier(list(tiers))]
    thumbnail = publish_thumbnail(
        services, {"container": main["cog_container"], "name": main["cog_blob"]}, described["thumbnail"]
    )
    if thumbnail.pop("created"):
        publication.created.append((thumbnail["container"], thumbnail["blob"]))
    new = any(target.mode == "create" for target in targets.values())
    result: dict[str, Any] = {
        "outcome": (OutcomeKind.CREATED if new else OutcomeKind.UPDATED).value,
        "tiers": tiers,
        "thumbnail": thumbnail,
        "stac": None,
        "source_etag": cog["source_etag"],
        "href": main["href"],
        "raster": {name: described[name] for name in ("width", "height", "bands", "dtype", "driver")},
        PICTURES: pictures_of(described),
    }
    if request is None:
        return result
    item = described["item"]
    # the ETag is known only now
    written = write_item(
        services, request, {**item, "properties": {**item["properties"], "geo_assets:etag": main["etag"]}}
    )
    if written["outcome"] == OutcomeKind.INVALID:
        reason = written["reason"] or "the catalog refused the item"
        raise _RefusedError(invalid("ITEM_REFUSED", reason, {"source_blob": cog["source_blob"]}))
    return {**result, "stac": written["stac"]}


def _upload(
    blobs: BlobStore, target: _Target, folder: Path, made: Mapping[str, Any], publication: _Publication
) -> dict[str, Any]:
    """One COG under its name, whole, and equal to the file that was proven."""
    etag = blobs.put_stream(
        target.container,
        target.name,
        chunks_of(folder / made["file"]),
        mode=target.mode,
        if_match=target.if_match,
        content_type=COG_MEDIA_TYPE,
        sha256=made["sha256"],
    )
    if target.mode == "create":
        publication.created.append((target.container, target.name))
    there = blobs.head(target.container, target.name)
    if there.size != made["size"] or there.etag != etag:
        raise PreconditionFailedError(
            f"{target.claim} is not what was just written (size {there.size:,} instead of {made['size']:,}): somebody"
            " else writes to it"
        )
    return {
        "cog_container": target.container,
        "cog_blob": target.name,
        "href": blobs.uri(target.container, target.name),
        "etag": etag,
        "size_mb": round(made["size"] / _MIB, 2),
        **{name: value for name, value in made.items() if name != "file"},
    }


# --- what was before ---------------------------------------------------------------------------------------------


def cogs_published(result: Mapping[str, Any]) -> list[Published]:
    """The item, the COGs and the thumbnail that a result of ``process_raster`` names."""
    cog: Mapping[str, Any] = result.get("cog") or {}
    blobs = [
        Published(kind="blob", collection=tier["cog_container"], name=tier["cog_blob"], version=tier["etag"])
        for tier in (cog.get("tiers") or {}).values()
    ]
    return [*item_published({"stac": result.get("stac"), "thumbnail": cog.get("thumbnail")}), *blobs]


def _retire(context: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Remove what this raster's jobs left before and this one did not make: other tiers, items of other collections."""
    services = TaskContext(context).services
    made = {"cog": {"tiers": result["tiers"], "thumbnail": result["thumbnail"]}, "stac": result["stac"]}
    kept = {(one.kind, one.collection, one.name) for one in cogs_published(made)}
    for before in TaskContext(context).history:
        for old in cogs_published(before["result"]):
            if (old.kind, old.collection, old.name) in kept:
                continue
            kept.add((old.kind, old.collection, old.name))
            with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError, CatalogError):
                if old.kind == "item":
                    services["catalog"].delete_items(old.collection, [old.name])
                elif etag_of(services["blobs"], old.collection, old.name) == old.version:
                    services["blobs"].delete(old.collection, old.name)


def _retire_descriptions(services: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Remove the items, in whatever collection, that describe what another raster had under names now taken."""
    catalog: CatalogStore = services["catalog"]
    blobs = {(tier["cog_container"], tier["cog_blob"]) for tier in result["tiers"].values()}
    ours = (result["stac"] or {}).get("collection_id"), (result["stac"] or {}).get("item_id")
    for collection in catalog.list_collections():
        stale = [
            item_id
            for item_id, described in catalog.described_blobs(collection).items()
            if (described.container, described.blob) in blobs and (collection, item_id) != ours
        ]
        if stale:
            catalog.delete_items(collection, stale)
