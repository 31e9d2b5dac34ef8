"""The ``process_raster`` workflow: a raster validated, made into Cloud Optimized GeoTIFFs, published and catalogued.

What belongs here: its parameters, stages, tasks, handlers and aggregation.  What does not: the checks
(``raster.validate``), making and proving COGs (``raster.cog``), their names and publishing them (``cog_publishing``).

**The division of labour** is that of ``validate_raster_job``.  The stages of a job share the job's scratch folder: the
local copy of the raster, the COGs that were made of it.  Nothing is in a store before the last stage.

Against the original, on purpose: see the section ``process_raster`` of ``docs/decisions.md``.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    CheckResult,
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
from geo_assets.errors import ContractError, ParameterError, PreconditionFailedError
from geo_assets.jobs.blob_tasks import container_of, etag_of, failed, invalid, sentence_of
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.cog_publishing import (
    MAIN_TIER,
    cogs_published,
    main_tier,
    output_name,
    publish,
    require_names,
)
from geo_assets.jobs.proven import cog_checks, item_checks, raster_checks
from geo_assets.jobs.raster_cataloguing import (
    ITEM_ASSET,
    CatalogueParameters,
    ItemRequest,
    catalogued_metadata,
    is_current,
    picture_metadata,
)
from geo_assets.jobs.validate_raster_job import (
    RasterParameters,
    ValidateRasterJob,
    raster_metadata,
    validate_raster,
    validation_parameters,
)
from geo_assets.settings import Settings
from geo_assets.stores.blobs import name_problem
from geo_assets.stores.catalog import present_item

__all__ = ["ProcessRaster", "ProcessRasterParameters", "create_cog", "publish_cog", "validate_source"]

_COG_PARAMETERS = (
    "tiers", "target_crs", "compression", "jpeg_quality", "blocksize", "overview_resampling", "reproject_resampling",
)  # fmt: skip
_ITEM_PARAMETERS = ("collection_id", "stac_version", "datetime_pattern", "id_rule")
_PLACE_PARAMETERS = ("output_prefix", "overwrite")
_ORIGINAL = frozenset({*RasterParameters.model_fields, "compression", "jpeg_quality", "overview_resampling",
                       "reproject_resampling"})  # fmt: skip
"""Parameters the original had; the others are hashed only where they are not the default, so that job ids stay."""
_OF_THE_COPY = ("driver", "source_etag", "source_sha256", "source_modified", "local_copy")
_SHOWN = 10
"""Most notes and most warnings that a materialization shows; all are in the result."""


class ProcessRasterParameters(RasterParameters, CatalogueParameters):
    """Parameters of ``process_raster``: those of ``validate_raster_job``, and how the COG is made and catalogued."""

    target_crs: str | None = Field(
        "EPSG:4326", description="CRS of the COG, such as EPSG:3857; null keeps the raster's own."
    )
    tiers: list[str] = Field(
        default_factory=lambda: [MAIN_TIER],
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
    output_prefix: str = Field(
        "",
        description="What the COG's name starts with, such as scenes/: keeps rasters of one name in several containers"
        " apart. Default: nothing, so that the COG of a/x.tif is a/x_cog.tif.",
    )
    overwrite: bool = Field(
        default=False,
        description="Whether a blob of the COG's name that was not made of this raster is replaced.",
    )
    collection_id: str | None = Field("cogs", description="Collection of the item; null: none is made.")

    @field_validator("skip_validation", mode="after", check_fields=False)
    @classmethod
    def _no_cog_without_validation(cls, value: bool) -> bool:  # noqa: FBT001 - as pydantic calls it
        if value:
            raise ValueError("_skip_validation leaves nothing to make a COG from: it is for validate_raster_job")
        return value

    @field_validator("output_prefix", mode="after")
    @classmethod
    def _starts_a_name(cls, value: str) -> str:
        if value and (problem := name_problem(f"{value}x")) is not None:
            raise ValueError(f"output_prefix starts no name of a blob ({problem})")
        return value

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
    source = services["blobs"].head(params["container_name"], params["blob_name"])
    if history and _nothing_changed(asked, history[0], services, source_etag=source.etag):
        return {
            "success": True,
            "outcome": OutcomeKind.UNCHANGED.value,
            "reason": "the raster, its COGs and its item are as they were",
            "result": {"unchanged": history[0]["result"]},
        }
    try:
        names = _names(params["blob_name"], asked["tiers"], asked["output_prefix"])
        require_names(services, context["claims"], names, overwrite=asked["overwrite"])
    except PreconditionFailedError as error:
        return failed("OUTPUT_EXISTS", str(error), {"source_blob": params["blob_name"]})
    return validate_raster(params, context)


def _names(blob_name: str, tiers: Iterable[str], prefix: str) -> dict[str, str]:
    return {tier: output_name(blob_name, tier, prefix) for tier in tiers}


def _nothing_changed(
    asked: Mapping[str, Any], last: Mapping[str, Any], services: Mapping[str, Any], *, source_etag: str
) -> bool:
    """Whether the last job was a good one with the same parameters and source, and all that it left is still there."""
    made: Mapping[str, Any] = last["result"].get("cog") or {}
    if last["status"] != JobStatus.COMPLETED or asked["parameters"] != last["parameters"]:
        return False
    left = [one for one in cogs_published(last["result"]) if one.kind == "blob"]
    if made["source_etag"] != source_etag or any(
        etag_of(services["blobs"], one.collection, one.name) != one.version for one in left
    ):
        return False
    stac = last["result"].get("stac")
    if stac is None:
        return asked["parameters"].get("collection_id", "cogs") is None
    main = made["tiers"][main_tier(list(made["tiers"]))]
    request = ItemRequest.from_parameters(
        {**asked["item"], "collection_id": stac["collection_id"]},
        container=main["cog_container"],
        blob=main["cog_blob"],
    )
    item = present_item(services["catalog"], stac["collection_id"], stac["item_id"])
    return is_current(item, request, main["etag"])


# --- stage 2: create the COGs --------------------------------------------------------------------------------------


def create_cog(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Make the COGs in the sandbox, prove them there, and leave them in the job's scratch folder."""
    from geo_assets.raster.cog import make_cogs_task  # noqa: PLC0415 - brings GDAL along
    from geo_assets.raster.open import RasterBudget  # noqa: PLC0415

    services = TaskContext(context).services
    settings: Settings = services["settings"]
    sandbox: Sandbox = services["sandbox"]
    folder = _folder_of(context)
    where = {"source_blob": params["blob_name"], "source_container": params["container_name"]}
    outcome = sandbox.call(
        make_cogs_task,
        {
            **{name: params.get(name) for name in _COG_PARAMETERS},
            "source": str(folder / params["local_copy"]),
            "scratch": str(folder),
            "driver": params["driver"],
            "name": params["blob_name"],
            "budget": RasterBudget.from_settings(settings).as_dict(),
            "input_crs": params.get("input_crs"),
            "raster_type": params["raster_type"],
            "disk_reserve_mb": settings.disk_reserve_mb,
        },
    )
    if outcome.kind is not OutcomeKind.CREATED:
        code, message = outcome.result_data.get("error"), outcome.result_data.get("message")
        if code and message:
            return invalid(code, message, where)
        return failed("COG_CREATION_FAILED", sentence_of(outcome), where, transient=outcome.transient)
    made = outcome.result_data["result"]
    made["statistics"] = _statistics_of_all_pixels(made, params["statistics"])
    for tier in made["tiers"].values():
        tier["file"] = Path(tier.pop("path")).name
    return {
        "success": True,
        "result": {
            **where,
            **{name: params[name] for name in ("source_etag", "source_sha256", "source_modified", "raster_type")},
            **made,
        },
    }


def _statistics_of_all_pixels(made: Mapping[str, Any], validated: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of the validation, which read every pixel, in place of the COG step's, which are an overview's.

    Where pixels moved, the share of valid ones is the COG's: its corners are empty.
    """
    moved = made["reprojection_performed"]
    return [
        {**exact, **({"valid_percent": shown["valid_percent"]} if moved else {})}
        for shown, exact in zip(made["statistics"], validated, strict=True)
    ]


def _folder_of(context: Mapping[str, Any]) -> Path:
    scratch = TaskContext(context).scratch
    if scratch is None:
        raise ContractError("the stages of process_raster share a scratch folder; run them by the engine, in threads")
    return scratch.path


# --- stage 3: publish and catalogue ------------------------------------------------------------------------------


def publish_cog(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Publish the COGs, their thumbnail and their item, all or nothing.

    Raises:
        GeoAssetsError: as the stores'; what was new is gone again.
    """
    cog = params["cog"]
    names = _names(cog["source_blob"], cog["tiers"], params["output_prefix"])
    request = None
    if params.get("collection_id") is not None:
        container = TaskContext(context).services["settings"].silver_container
        request = ItemRequest.from_parameters(params, container=container, blob=names[main_tier(list(names))])
    return publish(cog, _folder_of(context), context, names=names, request=request, overwrite=params["overwrite"])


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
            "description": "Make the COGs and prove them",
            "parallelism": "single",
        },
        {
            "number": 3,
            "name": "catalog",
            "task_type": "publish_cog",
            "description": "Publish the COGs, write the STAC item",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {
        "validate_raster": validate_source,
        "create_cog": create_cog,
        "publish_cog": publish_cog,
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
            own = {name: chosen[name] for name in ("tiers", *_PLACE_PARAMETERS)}
            own |= {"parameters": job_params, "item": {name: chosen[name] for name in _ITEM_PARAMETERS}}
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
        parameters = {name: chosen[name] for name in (*_ITEM_PARAMETERS, *_PLACE_PARAMETERS)}
        return [_one("catalog", 3, job_id, "publish_cog", {**parameters, "cog": result})]

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The original's result with true values; that of the last job where nothing was to be done."""
        found = {task.task_type: task for task in context.task_results}
        first = _result_of(found.get("validate_raster"))
        if "unchanged" in first:
            return dict(first["unchanged"])
        made, published = (_result_of(found.get(name), only_good=True) for name in ("create_cog", "publish_cog"))
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
            "cog": _cog_result(made, published) if published else {},
            "stac": published.get("stac"),
            **({"errors": errors} if errors else {}),
            "stages_completed": sum(task.success for task in context.task_results),
            "total_tasks_executed": len(context.task_results),
            "tasks_by_status": {
                "completed": sum(task.success for task in context.task_results),
                "failed": sum(task.status is TaskStatus.FAILED for task in context.task_results),
            },
            PICTURES: published.get(PICTURES),
        }

    # Hooks

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """The proof of the COGs, made before they were published."""
        return cog_checks(result)

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """The raster's validation, and its item."""
        result: Mapping[str, Any] = task.result.get("result") or {}
        common: dict[str, Any] = {"outcome": task.outcome, "reason": task.reason}
        if task.task_type == "validate_raster" and "unchanged" not in result:
            return [
                PartitionNews(
                    asset="raster_validation",
                    name=f"{task.parameters['container_name']}/{task.parameters['blob_name']}",
                    metadata=raster_metadata(result),
                    source_version=result.get("source_etag"),
                    checks=tuple(raster_checks(result)),
                    **common,
                )
            ]
        if task.task_type == "publish_cog" and task.parameters["collection_id"] is not None:
            cog = task.parameters["cog"]
            return [
                PartitionNews(
                    asset=ITEM_ASSET,
                    name=f"{cog['source_container']}/{cog['source_blob']}",
                    metadata=catalogued_metadata(result),
                    source_version=cog["source_etag"],
                    checks=tuple(item_checks(result.get("stac"))),
                    **common,
                )
            ]
        return []

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """What was published may be gone: the job itself looks, and ends ``unchanged`` where all is as it was."""
        return 0.0

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The facts of the COG, a table of its tiers, what was found out on the way."""
        cog: Mapping[str, Any] = result.get("cog") or {}
        if not cog:
            return {}
        columns = ("cog_blob", "compression", "level", "quality", "lossless", "size_mb", "validity", "etag")
        main = cog["tiers"][main_tier(list(cog["tiers"]))]
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
            "notes": [note[:200] for note in notes[:_SHOWN]] or None,
            "warnings": [
                {name: str(value)[:200] for name, value in warning.items()}
                for warning in (validation.get("warnings") or ())[:_SHOWN]
            ]
            or None,
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
        return cogs_published(result)


def _cog_result(made: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the original, with true values, those of the main tier; and what there is beyond them."""
    tiers = published["tiers"]
    main = tiers[main_tier(list(tiers))]
    quality = {"jpeg_quality": main["quality"]} if main["quality"] is not None else {}
    facts = ("source_blob", "source_container", "reprojection_performed", "source_crs", "target_crs", "bounds_4326",
             "bounds", "transform", "shape", "bands", "dtype", "overview_resampling", "reproject_resampling",
             "raster_type", "engine", "source_etag", "source_sha256", "source_modified", "notes")  # fmt: skip
    timings = published["timings"]
    return {
        "cog_blob": main["cog_blob"],
        "cog_container": main["cog_container"],
        **{name: made[name] for name in facts},
        "size_mb": main["size_mb"],
        "compression": main["compression"],
        **quality,
        "tile_size": main["blocksize"],
        "overview_levels": main["overviews"],
        "processing_time_seconds": round(timings["total"] + timings["publish"], 3),
        "checksum": main["sha256"],
        "etag": main["etag"],
        "tiers": tiers,
        "thumbnail": published["thumbnail"],
        "timings": timings,
    }


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
    return {
        **{name: chosen[name] for name in _COG_PARAMETERS},
        "container_name": container_of(job_params),
        "blob_name": job_params["blob_name"],
        "input_crs": validated["source_crs"] if validated["crs_source"] == "user_override_required" else None,
        "raster_type": validated["raster_type"]["detected_type"],
        "statistics": validated["statistics"],
        **{name: validated[name] for name in _OF_THE_COPY},
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
