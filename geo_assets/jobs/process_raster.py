"""The ``process_raster`` workflow: a raster validated, made into Cloud Optimized GeoTIFFs, published and catalogued.

What belongs here: its parameters, stages, tasks, handlers and aggregation, the names of what it makes, and publishing.
What does not: the checks (``raster.validate``), making and proving COGs (``raster.cog``), items
(``raster_cataloguing``).

**The division of labour** is that of ``validate_raster_job``.  The stages of a job share one local copy, in the job's
scratch folder; a stage that does not find it (the run was taken up elsewhere) fetches it again.

Against the original, on purpose: see the section ``process_raster`` of ``docs/decisions.md``.
"""

import contextlib
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    EndedTask,
    Handler,
    JobExecutionContext,
    JobStatus,
    OutcomeKind,
    PartitionNews,
    Published,
    TaskContext,
    TaskResult,
    TaskStatus,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    GeoAssetsError,
    ParameterError,
    PreconditionFailedError,
    TransientError,
)
from geo_assets.jobs.raster_blobs import container_of, failed, invalid, scratch_of, sentence_of
from geo_assets.jobs.raster_cataloguing import (
    ITEM_ASSET,
    CatalogueParameters,
    DescribedFile,
    ItemRequest,
    catalogued_metadata,
    chunks_of,
    is_current,
    item_published,
    picture_and_item,
    picture_metadata,
    pictures_of,
    publish_thumbnail,
    write_item,
)
from geo_assets.jobs.stac_catalog_raster import refresh_collections
from geo_assets.jobs.validate_raster_job import (
    RasterParameters,
    ValidateRasterJob,
    raster_metadata,
    validate_raster,
    validation_parameters,
)
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings, get_settings
from geo_assets.stac.items import COG_MEDIA_TYPE
from geo_assets.stores.blobs import BlobStore, PutMode

__all__ = ["ProcessRaster", "ProcessRasterParameters", "catalog_cog", "create_cog", "output_name", "validate_source"]

_MIB = 1024 * 1024
_COG_PARAMETERS = (
    "tiers", "target_crs", "compression", "jpeg_quality", "blocksize", "overview_resampling", "reproject_resampling",
)  # fmt: skip
_ITEM_PARAMETERS = ("collection_id", "stac_version", "datetime_pattern", "id_rule")
_ORIGINAL = frozenset({*RasterParameters.model_fields, "compression", "jpeg_quality", "overview_resampling",
                       "reproject_resampling"})  # fmt: skip
"""Parameters the original had; the others are hashed only where they are not the default, so that job ids stay."""
_OF_THE_COPY = ("driver", "source_etag", "source_sha256", "source_modified", "local_copy")
_ROLES: Mapping[str, list[str]] = {"analysis": ["data"], "visualization": ["visual"], "archive": ["data", "archive"]}
_ROOM_FACTOR = 1.0
_MAIN = "analysis"


class ProcessRasterParameters(RasterParameters, CatalogueParameters):
    """Parameters of ``process_raster``: those of ``validate_raster_job``, and how the COG is made and catalogued."""

    target_crs: str | None = Field(
        "EPSG:4326", description="CRS of the COG, such as EPSG:3857; null keeps the raster's own."
    )
    tiers: list[str] = Field(
        default_factory=lambda: [_MAIN],
        description="Which COGs: analysis (lossless), visualization (JPEG or WebP where it is a picture), archive"
        " (lossless, for the oldest readers).",
    )
    compression: str | dict[str, str] | None = Field(
        None,
        description="Codec instead of the one that suits the type: deflate, zstd, lzw, lerc, lerc_deflate, lerc_zstd,"
        " jpeg, webp or none; by tier where several are made.",
    )
    jpeg_quality: int = Field(85, description="Quality of JPEG and WebP: 1 to 100.")
    overview_resampling: str | None = Field(None, description="Resampling of the overviews; default: by the type.")
    reproject_resampling: str | None = Field(None, description="Resampling of the reprojection; default: by the type.")
    blocksize: int | None = Field(None, description="Side of the COG's tiles in pixels: 128 to 2048. Default: 512.")
    overwrite: bool = Field(
        default=False,
        description="Whether a blob of the COG's name that was not made of this raster is replaced.",
    )
    collection_id: str | None = Field("cogs", description="Collection of the item; null: none is made.")

    @field_validator("tiers", mode="before")
    @classmethod
    def _one_tier_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_choices(self) -> "ProcessRasterParameters":
        from geo_assets.raster.cog_settings import check_overrides  # noqa: PLC0415 - brings GDAL along

        try:
            check_overrides({name: getattr(self, name) for name in _COG_PARAMETERS})
        except ParameterError as error:
            raise ValueError(str(error)) from None
        return self


# --- names -------------------------------------------------------------------------------------------------------


def output_name(blob_name: str, tier: str) -> str:
    """Name of a COG: as the original's, ``x.tif`` → ``x_cog.tif``, with the tier in it where it is not the main one."""
    stem = blob_name[:-4] if blob_name.lower().endswith(".tif") else blob_name
    return f"{stem}_cog.tif" if tier == _MAIN else f"{stem}_cog_{tier}.tif"


def _main_tier(tiers: Sequence[str]) -> str:
    return _MAIN if _MAIN in tiers else tiers[0]


# --- stage 1: validate -------------------------------------------------------------------------------------------


def validate_source(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Judge the raster, unless it and all that was made of it are as they were.

    A COG's name that is taken by something else is found here, before any work.

    Raises:
        BlobNotFoundError, TransientError: as the stores'.
    """
    services = TaskContext(context).services
    asked = params["job"]
    history = TaskContext(context).history
    last = history[0] if history else {}
    source = services["blobs"].head(params["container_name"], params["blob_name"])
    if source.etag == _made(last).get("source_etag") and _nothing_changed(asked, last, services):
        return {
            "success": True,
            "outcome": OutcomeKind.UNCHANGED.value,
            "reason": "the raster, its COGs and its item are as they were",
            "result": {"unchanged": last["result"]},
        }
    try:
        # what a run that died has left is known by its content, once there is something to compare it with
        for tier in () if context.get("releases") else asked["tiers"]:
            _how_to_write(services, params["blob_name"], tier, history, overwrite=asked["overwrite"])
    except PreconditionFailedError as error:
        return failed("OUTPUT_EXISTS", str(error), {"source_blob": params["blob_name"]})
    return validate_raster(params, context)


def _made(last: Mapping[str, Any]) -> Mapping[str, Any]:
    made: Mapping[str, Any] = (last.get("result") or {}).get("cog") or {}
    return made


def _nothing_changed(asked: Mapping[str, Any], last: Mapping[str, Any], services: Mapping[str, Any]) -> bool:
    """Whether the last job was a good one with the same parameters, and all that it left is still there."""
    if last["status"] != JobStatus.COMPLETED or asked["parameters"] != last["parameters"]:
        return False
    made = _made(last)
    left = [(tier["cog_container"], tier["cog_blob"], tier["etag"]) for tier in made["tiers"].values()]
    if thumbnail := made.get("thumbnail"):
        left.append((thumbnail["container"], thumbnail["blob"], thumbnail["etag"]))
    if any(_etag(services["blobs"], container, blob) != etag for container, blob, etag in left):
        return False
    stac = last["result"].get("stac")
    if stac is None:
        return asked["parameters"].get("collection_id", "cogs") is None
    main = made["tiers"][_main_tier(list(made["tiers"]))]
    request = ItemRequest.from_parameters(
        {**asked["item"], "collection_id": stac["collection_id"]},
        container=main["cog_container"],
        blob=main["cog_blob"],
    )
    item = services["catalog"].get_item(stac["collection_id"], stac["item_id"])
    return is_current(item, request, main["etag"])


def _etag(blobs: BlobStore, container: str, blob: str) -> str | None:
    try:
        return blobs.head(container, blob).etag
    except (BlobNotFoundError, ContainerNotFoundError):
        return None


def _sha256(blobs: BlobStore, container: str, blob: str) -> str:
    digest = hashlib.sha256()
    for chunk in blobs.open_stream(container, blob):
        digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where a tier goes, and what must be there before."""

    container: str
    name: str
    mode: PutMode
    if_match: str | None


def _how_to_write(
    services: Mapping[str, Any],
    blob_name: str,
    tier: str,
    history: Sequence[Mapping[str, Any]],
    *,
    overwrite: bool,
    sha256: str | None = None,
) -> _Target:
    """A new blob, or the replacement of one that was made of this raster.

    A run that was killed may have left a COG that no job's result knows; it is known by its content then.

    Raises:
        PreconditionFailedError: the name is taken by something else.
    """
    container, name = get_settings().silver_container, output_name(blob_name, tier)
    there = _etag(services["blobs"], container, name)
    if there is None:
        return _Target(container=container, name=name, mode="create", if_match=None)
    ours = {
        (old["cog_container"], old["cog_blob"], old["etag"])
        for before in history
        for old in _made(before).get("tiers", {}).values()
    }
    known = overwrite or (container, name, there) in ours
    if not known and sha256 != _sha256(services["blobs"], container, name):
        raise PreconditionFailedError(
            f"{container}/{name} is there already, and no finished job of this raster made it as it is now: two rasters"
            " may claim one name, or it was put there by hand; look at it, then remove it or give overwrite: true"
        )
    return _Target(container=container, name=name, mode="overwrite", if_match=there)


# --- stage 2: create the COGs --------------------------------------------------------------------------------------


def create_cog(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Make the COGs in the sandbox, prove them there, and publish them.

    Raises:
        TransientError: as the blob store's.
    """
    from geo_assets.raster.cog import make_cogs_task  # noqa: PLC0415 - brings GDAL along
    from geo_assets.raster.open import RasterBudget  # noqa: PLC0415

    started = time.perf_counter()
    services = TaskContext(context).services
    settings: Settings = services["settings"]
    sandbox: Sandbox = services["sandbox"]
    with scratch_of(context, settings) as scratch:
        copy = _source_copy(params, services, scratch)
        copied = time.perf_counter()
        outcome = sandbox.call(
            make_cogs_task,
            {
                **{name: params.get(name) for name in _COG_PARAMETERS},
                "source": str(copy),
                "scratch": str(scratch.path),
                "driver": params["driver"],
                "name": params["blob_name"],
                "budget": RasterBudget.from_settings(settings).as_dict(),
                "input_crs": params.get("input_crs"),
                "raster_type": params["raster_type"],
                "disk_reserve_mb": settings.disk_reserve_mb,
            },
        )
        if outcome.kind is not OutcomeKind.CREATED:
            return _not_made(outcome, params)
        made = outcome.result_data["result"]
        encoded = time.perf_counter()
        published = _publish(params, made, context)
        if "problem" in published:
            return dict(published["problem"])
        now = time.perf_counter()
    timings = {
        "copy": round(copied - started, 4),
        **made["timings"],
        "publish": round(now - encoded, 4),
        "job": round(now - started, 4),
    }
    return {"success": True, "outcome": _outcome_of(published), "result": _cog_result(params, made, published, timings)}


def _source_copy(params: Mapping[str, Any], services: Mapping[str, Any], scratch: ScratchFolder) -> Path:
    """The copy that was validated, fetched again where it is not here any more.

    Raises:
        SourceChangedError: the blob is another one by now.
    """
    from geo_assets.errors import SourceChangedError  # noqa: PLC0415
    from geo_assets.raster.local_copy import fetch  # noqa: PLC0415 - brings the formats along

    here: Path = scratch.path / params["local_copy"]
    if here.exists() and here.stat().st_size == params["source_size"]:
        return here
    copy = fetch(
        services["blobs"],
        params["container_name"],
        params["blob_name"],
        folder=lambda: scratch.path,
        reserve_bytes=services["settings"].disk_reserve_mb << 20,
        room_factor=_ROOM_FACTOR,
    )
    if copy.sha256 != params["source_sha256"]:
        raise SourceChangedError(
            f"{params['container_name']}/{params['blob_name']} was replaced since it was validated; run the job again"
        )
    path: Path = copy.path
    return path


def _not_made(outcome: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    code, message = outcome.result_data.get("error"), outcome.result_data.get("message")
    where = {"source_blob": params["blob_name"], "source_container": params["container_name"]}
    if code and message:
        return invalid(code, message, where)
    return failed("COG_CREATION_FAILED", sentence_of(outcome), where, transient=outcome.transient)


def _publish(params: Mapping[str, Any], made: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Upload every tier and the thumbnail; if that fails, what is new is removed again."""
    services = TaskContext(context).services
    blobs: BlobStore = services["blobs"]
    container = services["settings"].silver_container
    new: list[tuple[str, str]] = []
    tiers: dict[str, dict[str, Any]] = {}
    main = _main_tier(params["tiers"])
    try:
        if not blobs.container_exists(container):
            blobs.create_container(container)
        described, problem = _pictures(params, made, main, context)
        if problem is not None:
            return {"problem": problem}
        for tier in params["tiers"]:
            target = _how_to_write(
                services,
                params["blob_name"],
                tier,
                TaskContext(context).history,
                overwrite=params["overwrite"],
                sha256=made["tiers"][tier]["sha256"],
            )
            tiers[tier] = _upload(blobs, target, made["tiers"][tier], new)
        facts = {"container": tiers[main]["cog_container"], "name": tiers[main]["cog_blob"]}
        thumbnail = publish_thumbnail(services, facts, described["thumbnail"])
        new.append((thumbnail["container"], thumbnail["blob"]))
    except GeoAssetsError as error:
        _take_back(blobs, new)
        if isinstance(error, PreconditionFailedError):
            return {"problem": failed("OUTPUT_EXISTS", str(error), {"source_blob": params["blob_name"]})}
        message = f"{type(error).__name__}: {error}"
        transient = isinstance(error, TransientError)
        return {"problem": failed("UPLOAD_FAILED", message, {"source_blob": params["blob_name"]}, transient=transient)}
    except BaseException:
        _take_back(blobs, new)
        raise
    return {"tiers": tiers, "thumbnail": thumbnail, "described": described, "new": new}


def _pictures(
    params: Mapping[str, Any], made: Mapping[str, Any], main: str, context: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    name = output_name(params["blob_name"], main)
    file = DescribedFile(
        path=Path(made["tiers"][main]["path"]),
        facts={"container": get_settings().silver_container, "name": name},
        statistics=made["statistics"],
        raster_type=params["raster_type"],
    )
    return picture_and_item(context, file, None, name=name)


def _upload(
    blobs: BlobStore, target: _Target, made: Mapping[str, Any], new: list[tuple[str, str]]
) -> dict[str, Any]:  # fmt: skip
    """One COG under its name, whole, and equal to the file that was proven."""
    etag = blobs.put_stream(
        target.container,
        target.name,
        chunks_of(Path(made["path"])),
        mode=target.mode,
        if_match=target.if_match,
        content_type=COG_MEDIA_TYPE,
        sha256=made["sha256"],
    )
    if target.mode == "create":
        new.append((target.container, target.name))
    there = blobs.head(target.container, target.name)
    if there.size != made["size"] or there.etag != etag:
        raise PreconditionFailedError(
            f"{target.container}/{target.name} is not what was just written (size {there.size:,} instead of"
            f" {made['size']:,}): somebody else writes to it"
        )
    kept = {name: value for name, value in made.items() if name != "path"}
    return {
        "cog_container": target.container,
        "cog_blob": target.name,
        "href": blobs.uri(target.container, target.name),
        "etag": etag,
        "last_modified": there.last_modified.isoformat(),
        "size_mb": round(made["size"] / _MIB, 2),
        **kept,
    }


def _take_back(blobs: BlobStore, new: Iterable[tuple[str, str]]) -> None:
    for container, name in new:
        with contextlib.suppress(GeoAssetsError):  # the failure itself is what must be told
            blobs.delete(container, name)


def _outcome_of(published: Mapping[str, Any]) -> str:
    # the thumbnail is always among them
    return (OutcomeKind.CREATED if len(published["new"]) > 1 else OutcomeKind.UPDATED).value


def _cog_result(
    params: Mapping[str, Any], made: Mapping[str, Any], published: Mapping[str, Any], timings: Mapping[str, float]
) -> dict[str, Any]:
    """The fields of the original, with true values, those of the main tier; and what there is beyond them."""
    tiers = published["tiers"]
    main = tiers[_main_tier(params["tiers"])]
    quality = {"jpeg_quality": main["quality"]} if main["quality"] is not None else {}
    facts = ("reprojection_performed", "source_crs", "target_crs", "bounds_4326", "bounds", "transform", "shape",
             "bands", "dtype", "overview_resampling", "reproject_resampling", "engine")  # fmt: skip
    return {
        "cog_blob": main["cog_blob"],
        "cog_container": main["cog_container"],
        "source_blob": params["blob_name"],
        "source_container": params["container_name"],
        **{name: made[name] for name in facts},
        "size_mb": main["size_mb"],
        "compression": main["compression"],
        **quality,
        "tile_size": main["blocksize"],
        "overview_levels": main["overviews"],
        "raster_type": params["raster_type"],
        "processing_time_seconds": timings["job"],
        "checksum": main["sha256"],
        "source_etag": params["source_etag"],
        "source_sha256": params["source_sha256"],
        "source_modified": params["source_modified"],
        "tiers": tiers,
        "thumbnail": published["thumbnail"],
        "created": [list(place) for place in published["new"]],
        "statistics": made["statistics"],
        "notes": made["notes"],
        "timings": dict(timings),
        PICTURES: pictures_of(published["described"]),
    }


# --- stage 3: catalogue --------------------------------------------------------------------------------------------


def catalog_cog(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Make the item of the main tier, with the other tiers as more assets, and write it.

    Where that fails for good, the COGs that were new go with it: what is published is catalogued, too.

    Raises:
        CatalogError, CatalogUnavailableError: as the catalog's.
        TransientError: as the blob store's.
    """
    services = TaskContext(context).services
    last_try = context.get("attempt", 1) > services["settings"].task_max_retries
    good = give_up = False
    try:
        answer = _catalog(params, context)
        good, give_up = answer["success"], not answer.get("transient") or last_try
    except BaseException as error:
        give_up = not isinstance(error, TransientError) or last_try
        raise
    finally:
        if give_up and not good:
            _take_back(services["blobs"], [(container, name) for container, name in params["cog"]["created"]])
    return answer


def _catalog(params: Mapping[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    from geo_assets.raster.local_copy import fetch  # noqa: PLC0415 - brings the formats along

    services = TaskContext(context).services
    settings: Settings = services["settings"]
    blobs: BlobStore = services["blobs"]
    cog = params["cog"]
    main_tier = _main_tier(list(cog["tiers"]))
    main = cog["tiers"][main_tier]
    request = ItemRequest.from_parameters(params, container=main["cog_container"], blob=main["cog_blob"])
    with scratch_of(context, settings) as scratch:
        path = scratch.path / f"{main_tier}.tif"
        if not path.exists():
            path = fetch(
                blobs, main["cog_container"], main["cog_blob"], folder=lambda: scratch.path,
                reserve_bytes=settings.disk_reserve_mb << 20,
            ).path  # fmt: skip
        file = DescribedFile(
            path=path,
            facts=_facts_of(main),
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
                tier: {"blob": _facts_of(made), "roles": _ROLES[tier], "media_type": COG_MEDIA_TYPE}
                for tier, made in cog["tiers"].items()
                if tier != main_tier
            },
            options={"cloud_optimized": True, "lineage": _lineage(cog)},
        )
        described, problem = picture_and_item(context, file, request, name=main["cog_blob"])
    if problem is not None:
        return problem
    written = write_item(services, request, described["item"])
    result = {
        "stac": written["stac"],
        "source_etag": cog["source_etag"],
        "href": main["href"],
        "raster": {name: described[name] for name in ("width", "height", "bands", "dtype", "driver")},
    }
    if written["outcome"] == OutcomeKind.INVALID:
        return invalid("ITEM_REFUSED", written["reason"] or "the catalog refused the item", result)
    result[PICTURES] = pictures_of(described)
    return {"success": True, "outcome": written["outcome"], "reason": written["reason"], "result": result}


def _facts_of(tier: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "container": tier["cog_container"],
        "name": tier["cog_blob"],
        "href": tier["href"],
        "etag": tier["etag"],
        "size": tier["size"],
        "last_modified": tier["last_modified"],
        "sha256": tier["sha256"],
        "media_type": COG_MEDIA_TYPE,
    }


def _lineage(cog: Mapping[str, Any]) -> str:
    source = f"{cog['source_container']}/{cog['source_blob']}"
    how = f"reprojected from {cog['source_crs']} to {cog['target_crs']} ({cog['reproject_resampling']})"
    moved = how if cog["reprojection_performed"] else "on the raster's own grid"
    return f"Cloud Optimized GeoTIFF of {source}, {moved}"[:500]


# --- the workflow ------------------------------------------------------------------------------------------------


class ProcessRaster(ValidateRasterJob):
    """A raster as Cloud Optimized GeoTIFFs, in the catalog."""

    job_type = "process_raster"
    description = "Makes a raster into proven Cloud Optimized GeoTIFFs and catalogues them"
    Parameters = ProcessRasterParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "validate",
            "task_type": "validate_raster",
            "description": "Read the raster whole and judge it",
            "parallelism": "single",
        },
        {
            "number": 2,
            "name": "create_cog",
            "task_type": "create_cog",
            "description": "Make the COGs, prove and publish them",
            "parallelism": "single",
        },
        {
            "number": 3,
            "name": "catalog",
            "task_type": "catalog_cog",
            "description": "Write the STAC item",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {
        "validate_raster": validate_source,
        "create_cog": create_cog,
        "catalog_cog": catalog_cog,
    }

    asset = "cog"
    asset_deps = ("raster_validation",)
    kinds: ClassVar[frozenset[str]] = frozenset({"tiff", "gdal"})
    remembers = True

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """All parameters; those the original did not have only where they are not the default."""
        given = model.model_dump(mode="json", by_alias=True)
        defaults = cls.Parameters.model_validate({"blob_name": "any"}).model_dump(mode="json", by_alias=True)
        original = {cls.Parameters.model_fields[name].alias or name for name in _ORIGINAL}
        return {name: value for name, value in given.items() if name in original or value != defaults[name]}

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task a stage; none where nothing is to be done any more.

        Raises:
            ValueError: a stage that there is not, or one without the result it builds on.
        """
        chosen = cls.Parameters.model_validate(job_params).model_dump(mode="json", by_alias=True)
        if stage == 1:
            own = {"tiers": chosen["tiers"], "overwrite": chosen["overwrite"], "parameters": job_params}
            own["item"] = {name: chosen[name] for name in _ITEM_PARAMETERS}
            parameters = {**validation_parameters(job_params), "job": own}
            return [_one("validate", 1, job_id, "validate_raster", parameters)]
        if stage > len(cls.stages):
            raise ValueError(f"{cls.job_type} only has {len(cls.stages)} stages, got stage {stage}")
        if not previous_results:
            if stage == 3:  # noqa: PLR2004 - stage 2 had nothing to do
                return []
            raise ValueError(f"Stage {stage} requires Stage {stage - 1} results")
        result = previous_results[0]["result"]
        if "unchanged" in result:
            return []
        if stage == 2:  # noqa: PLR2004
            return [_one("create_cog", 2, job_id, "create_cog", _cog_parameters(chosen, job_params, result))]
        if chosen["collection_id"] is None:
            return []
        cog = {name: value for name, value in result.items() if name != PICTURES}
        parameters = {**{name: chosen[name] for name in _ITEM_PARAMETERS}, "cog": cog}
        return [_one("catalog", 3, job_id, "catalog_cog", parameters)]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The original's result with true values; that of the last job where nothing was to be done."""
        found = {task.task_type: task for task in context.task_results}
        first = _result_of(found.get("validate_raster"))
        if "unchanged" in first:
            return dict(first["unchanged"])
        cog = _result_of(found.get("create_cog"), only_good=True)
        stac = _result_of(found.get("catalog_cog"), only_good=True)
        errors = [
            {"stage": task.stage, "error": data.get("error") or task.error_details, "message": data.get("message")}
            for task in context.task_results
            if not task.success
            for data in [task.result_data]
        ]
        return {
            "job_type": cls.job_type,
            "source_blob": context.parameters.get("blob_name"),
            "source_container": container_of(context.parameters),
            "validation": _validation_summary(first),
            "cog": {name: value for name, value in cog.items() if name not in (PICTURES, "statistics")},
            "stac": stac.get("stac"),
            **({"errors": errors} if errors else {}),
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(context.task_results),
            "tasks_by_status": {
                "completed": sum(task.success for task in context.task_results),
                "failed": sum(task.status is TaskStatus.FAILED for task in context.task_results),
            },
            PICTURES: cog.get(PICTURES),
        }

    # Hooks

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """The raster's validation, and its item."""
        result: Mapping[str, Any] = task.result.get("result") or {}
        common: dict[str, Any] = {"outcome": task.outcome, "reason": task.reason}
        if task.task_type == "validate_raster" and "unchanged" not in result:
            if result.get("validation_skipped"):
                return []
            return [
                PartitionNews(
                    asset="raster_validation",
                    name=f"{task.parameters['container_name']}/{task.parameters['blob_name']}",
                    metadata=raster_metadata(result),
                    source_version=result.get("source_etag"),
                    **common,
                )
            ]
        if task.task_type == "catalog_cog":
            cog = task.parameters["cog"]
            return [
                PartitionNews(
                    asset=ITEM_ASSET,
                    name=f"{cog['source_container']}/{cog['source_blob']}",
                    metadata=catalogued_metadata(result),
                    source_version=cog["source_etag"],
                    **common,
                )
            ]
        return []

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The facts of the COG, a table of its tiers, what was found out on the way."""
        cog: Mapping[str, Any] = result.get("cog") or {}
        if not cog:
            return {}
        columns = ("cog_blob", "compression", "level", "quality", "lossless", "size_mb", "validity", "etag")
        main = cog["tiers"][_main_tier(list(cog["tiers"]))]
        notes = [*cog["notes"], *(note for tier in cog["tiers"].values() for note in tier["notes"])]
        validation = result.get("validation") or {}
        shown = {
            **picture_metadata(result),
            "dagster/uri": main["href"],
            "size": f"{cog['shape'][1]} x {cog['shape'][0]}",
            "bands": cog["bands"],
            "dtype": cog["dtype"],
            "raster_type": cog["raster_type"],
            "crs": cog["target_crs"],
            "source_crs": cog["source_crs"],
            "reprojected": cog["reprojection_performed"],
            "bbox": cog["bounds_4326"],
            "tiers": [{"tier": tier, **{name: made[name] for name in columns}} for tier, made in cog["tiers"].items()],
            "overviews": main["overviews"],
            "proof": [{"tier": tier, **made["proof"]} for tier, made in cog["tiers"].items()],
            "checksum_sha256": main["sha256"],
            "notes": notes or None,
            "warnings": validation.get("warnings") or None,
            "item": (result.get("stac") or {}).get("item_id"),
            "collection": (result.get("stac") or {}).get("collection_id"),
            "timings": [{"step": step, "seconds": seconds} for step, seconds in cog["timings"].items()],
        }
        return {name: value for name, value in shown.items() if value is not None}

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Bring the collections up to date, once for all items."""
        refresh_collections([{"collection_id": "cogs", **params} for params in jobs], services)

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """The item, the COGs and the thumbnail."""
        cog: Mapping[str, Any] = result.get("cog") or {}
        blobs = [
            Published(kind="blob", collection=tier["cog_container"], name=tier["cog_blob"], version=tier["etag"])
            for tier in (cog.get("tiers") or {}).values()
        ]
        return [*item_published({"stac": result.get("stac"), "thumbnail": cog.get("thumbnail")}), *blobs]


def _result_of(task: TaskResult | None, *, only_good: bool = False) -> dict[str, Any]:
    if task is None or (only_good and not task.success):
        return {}
    return task.result_data.get("result") or {}


def _one(unit: str, stage: int, job_id: str, task_type: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"task_id": task_id(job_id, stage, unit), "task_type": task_type, "parameters": dict(parameters)}


def _cog_parameters(
    chosen: Mapping[str, Any], job_params: Mapping[str, Any], validated: Mapping[str, Any]
) -> dict[str, Any]:
    """What the COG task is told: the user's choices, what the validation found, and which copy it was."""
    if validated.get("validation_skipped"):
        raise ValueError("_skip_validation leaves nothing to make a COG from: it is for tests of validate_raster_job")
    return {
        **{name: chosen[name] for name in _COG_PARAMETERS},
        "overwrite": chosen["overwrite"],
        "container_name": container_of(job_params),
        "blob_name": job_params["blob_name"],
        "input_crs": validated["source_crs"] if validated["crs_source"] == "user_override_required" else None,
        "raster_type": validated["raster_type"]["detected_type"],
        **{
            name: validated[name]
            for name in ("driver", "source_etag", "source_sha256", "source_modified", "local_copy")
        },
        "source_size": validated["size_bytes"],
    }


def _validation_summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The original's five facts, with the kind of the raster in words."""
    kind = found.get("raster_type") or {}
    return {
        "valid": found.get("valid", False),
        "source_crs": found.get("source_crs"),
        "raster_type": kind.get("detected_type"),
        "confidence": kind.get("confidence"),
        "bit_depth_efficient": (found.get("bit_depth_check") or {}).get("efficient"),
        "already_cog": (found.get("cog") or {}).get("valid"),
        "warnings": [
            {name: warning.get(name) for name in ("severity", "type", "message")}
            for warning in found.get("warnings") or ()
        ],
    }
