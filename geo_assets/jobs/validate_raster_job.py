"""The ``validate_raster_job`` workflow: one raster blob, read whole, with a verdict.

What belongs here: its parameters, stage, task, handler and aggregation.  What does not: the checks
(``geo_assets.raster.validate``).

**The division of labour.**  :func:`validate_raster` runs in a thread of the run's process, where the blob store is. It
copies the blob to the job's scratch folder and gives the path to the sandbox, which runs
:func:`~geo_assets.raster.validate.validate_raster_file` in a worker process under limits, without credentials; nothing
in this module opens the file.

Against the original, on purpose: see the section ``validate_raster_job`` of ``docs/decisions.md``.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator

from geo_assets.coremachine.contract import (
    CheckResult,
    Handler,
    JobExecutionContext,
    TaskContext,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.task_outcome import TaskOutcome
from geo_assets.errors import ParameterError, RasterRefusedError
from geo_assets.jobs.blob_tasks import (
    BlobParameters,
    container_of,
    failed,
    invalid,
    scratch_of,
    sentence_of,
)
from geo_assets.jobs.proven import raster_checks
from geo_assets.jobs.raster_workflow import RasterWorkflow
from geo_assets.settings import Settings

__all__ = [
    "RasterParameters",
    "ValidateRasterJob",
    "raster_metadata",
    "validate_raster",
    "validation_parameters",
]

RASTER_TYPES = ("auto", "rgb", "rgba", "dem", "categorical", "multispectral", "nir", "grayscale", "continuous")
"""As ``geo_assets.raster.validate.RASTER_TYPE_PARAMETERS``, which brings GDAL along; a test compares the two."""


class RasterParameters(BlobParameters):
    """Parameters of ``validate_raster_job``, and the first ones of ``process_raster``."""

    input_crs: str | None = Field(
        None,
        description="CRS of the raster, such as EPSG:32618: needed where the file has none, compared where it has one.",
    )
    raster_type: str = Field("auto", description=f"What the raster is: {', '.join(RASTER_TYPES)}.")
    strict_mode: bool = Field(
        default=False, description="Whether warnings of severity HIGH and CRITICAL make it invalid."
    )
    skip_validation: bool = Field(
        default=False, alias="_skip_validation", description="For tests only: say valid without looking."
    )

    # mode "plain": these rules stand alone, in the original's words

    @field_validator("input_crs", mode="plain")
    @classmethod
    def _check_crs(cls, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise ValueError("input_crs must be a non-empty string")
        from geo_assets.raster.crs import parse_crs  # noqa: PLC0415 - brings GDAL along

        try:
            parse_crs(value)
        except ParameterError as error:
            raise ValueError(f"input_crs: {error}") from None
        return value.strip()

    @field_validator("raster_type", mode="plain")
    @classmethod
    def _check_type(cls, value: Any) -> str:
        if not isinstance(value, str) or value not in RASTER_TYPES:
            raise ValueError(f"raster_type must be one of {', '.join(RASTER_TYPES)}; got {value!r}")
        return value

    @field_validator("strict_mode", mode="plain")
    @classmethod
    def _check_strict(cls, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("strict_mode must be a boolean")  # noqa: TRY004 - pydantic wants ValueError
        return value

    @field_validator("skip_validation", mode="plain")
    @classmethod
    def _check_skip(cls, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("_skip_validation must be a boolean")  # noqa: TRY004 - pydantic wants ValueError
        return value


def validation_parameters(job_params: Mapping[str, Any]) -> dict[str, Any]:
    """The validate task's parameters from those of a job: the container named, and no address of the blob."""
    return {
        "blob_name": job_params["blob_name"],
        "container_name": container_of(job_params),
        "input_crs": job_params.get("input_crs"),
        "raster_type": job_params.get("raster_type", "auto"),
        "strict_mode": job_params.get("strict_mode", False),
        "_skip_validation": job_params.get("_skip_validation", False),
    }


def validate_raster(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch the blob, have it judged in the sandbox, and return the verdict.

    Raises:
        BlobNotFoundError, TransientError: as :func:`~geo_assets.raster.local_copy.fetch`.
    """
    if params.get("_skip_validation"):
        return {
            "success": True,
            "result": {
                "valid": True,
                "validation_skipped": True,
                "message": "Validation skipped (_skip_validation is for tests only)",
            },
        }
    # here and not above: GDAL is loaded where a raster is at work, not wherever the registry is
    from geo_assets.raster.local_copy import fetch  # noqa: PLC0415
    from geo_assets.raster.open import RasterBudget  # noqa: PLC0415
    from geo_assets.raster.validate import validate_raster_file  # noqa: PLC0415

    services = TaskContext(context).services
    settings: Settings = services["settings"]
    sandbox: Sandbox = services["sandbox"]
    container, name = params["container_name"], params["blob_name"]
    where = {"source_blob": name, "container_name": container}
    with scratch_of(context, settings) as scratch:
        try:
            copy = fetch(
                services["blobs"], container, name, folder=lambda: scratch.path,
                reserve_bytes=settings.disk_reserve_mb << 20,
            )  # fmt: skip
        except RasterRefusedError as error:
            return invalid("FILE_UNREADABLE", str(error), {"valid": False, **where, "warnings": []})
        where |= {
            "source_etag": copy.properties.etag,
            "source_sha256": copy.sha256,
            "source_modified": copy.properties.last_modified.isoformat(),
            "local_copy": copy.path.name,
        }
        request = {key: params.get(key) for key in ("input_crs", "raster_type", "strict_mode")}
        request |= {"path": str(copy.path), "name": name, "budget": RasterBudget.from_settings(settings).as_dict()}
        outcome = sandbox.call(validate_raster_file, request)
    return handler_return(outcome, where)


def handler_return(outcome: TaskOutcome, where: Mapping[str, Any]) -> dict[str, Any]:
    """Turn what came out of the sandbox into the handler's own return, with where the blob lies.

    A worker that died or ran into a limit has no code of its own: the error is ``VALIDATION_ERROR`` with the reason.
    """
    data = outcome.result_data
    if "result" in data or "error" in data:
        found = data.get("result") or {}
        head = {"valid": found.get("valid", False)}
        answer = {**data, "result": {**head, **where, **{k: v for k, v in found.items() if k != "valid"}}}
        return answer if outcome.traceback is None else {**answer, "traceback": outcome.traceback}
    return failed(
        "VALIDATION_ERROR",
        sentence_of(outcome),
        {"valid": False, **where, "warnings": []},
        transient=outcome.transient,
    )


def raster_metadata(validation: Mapping[str, Any]) -> dict[str, Any]:
    """What a validation's result shows in the UI: the verdict, the bands, the warnings."""
    shown: dict[str, Any] = {}
    kind = validation.get("raster_type") or {}
    cog = validation.get("cog") or {}
    plain = {
        "verdict": "valid" if validation.get("valid") else "invalid",
        "raster_type": kind.get("detected_type"),
        "type_confidence": kind.get("confidence"),
        "type_evidence": "; ".join(kind.get("evidence") or ()) or None,
        "size": " x ".join(str(n) for n in reversed(validation.get("shape") or ())) or None,
        "band_count": validation.get("band_count"),
        "dtype": validation.get("dtype"),
        "crs": (validation.get("source_crs") or "")[:200] or None,
        "bounds": validation.get("bounds"),
        "size_mb": validation.get("size_mb"),
        "already_cog": cog.get("valid"),
        "cog_why": cog.get("why"),
    }
    shown.update({name: value for name, value in plain.items() if value is not None})
    columns = ("band", "dtype", "minimum", "maximum", "mean", "stddev", "valid_percent", "nan_count")
    bands = [{name: band.get(name) for name in columns} for band in (validation.get("statistics") or ())[:50]]
    if bands:
        shown["bands"] = bands
    warnings = [
        {name: warning.get(name) for name in ("severity", "type", "message")}
        for warning in validation.get("warnings") or ()
    ]
    if warnings:
        shown["warnings"] = warnings
    return shown


class ValidateRasterJob(RasterWorkflow):
    """Whether a raster is whole, placed on Earth, and what it is."""

    job_type = "validate_raster_job"
    description = "Validates a raster: every block read, CRS, bounds, bit depth, type, whether it is a COG already"
    Parameters = RasterParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "validate",
            "task_type": "validate_raster",
            "description": "Read the raster whole and judge it",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"validate_raster": validate_raster}

    asset = "raster_validation"
    asset_deps = ("container_contents",)
    kinds: ClassVar[frozenset[str]] = frozenset({"tiff", "gdal"})

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """All parameters with their defaults, under the names the original hashed."""
        return model.model_dump(mode="json", by_alias=True)

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """The one task."""
        del previous_results
        if stage != 1:
            return []
        return [
            {
                "task_id": task_id(job_id, 1, "validate"),
                "task_type": "validate_raster",
                "parameters": validation_parameters(job_params),
            }
        ]

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The record with the metadata the original wrote."""
        record = super().create_job_record(job_id, params)
        record["metadata"] |= {name: params.get(name) for name in ("blob_name", "container_name", "raster_type")}
        return record

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The verdict, also where it is a bad one."""
        head = {
            "job_type": cls.job_type,
            "blob_name": context.parameters.get("blob_name"),
            "container_name": container_of(context.parameters),
        }
        if not context.task_results:
            return {**head, "validation_status": "failed", "error": "No task results found"}
        task = context.task_results[0]
        data = task.result_data
        found = {
            **(data.get("result") or {}),
            **{name: data[name] for name in ("error", "message") if data.get(name) is not None},
        }
        if not found and task.error_details:
            found = {"valid": False, "error": task.error_details}
        return {
            **head,
            "validation_status": "passed" if task.success and found.get("valid") else "failed",
            "validation_result": found,
            "tasks_executed": len(context.task_results),
            "task_status": task.status.value,
        }

    # Hooks

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """The verdict."""
        return raster_checks(result.get("validation_result") or {})

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The verdict, a table of bands, a table of warnings."""
        return raster_metadata(result.get("validation_result") or {})
