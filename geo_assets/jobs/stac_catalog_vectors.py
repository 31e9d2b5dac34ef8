"""The ``stac_catalog_vectors`` workflow: the STAC item of one table, written to the catalog.

What belongs here: its parameters, stage, task and aggregation.  What does not: making items (``vector_cataloguing``,
``stac.table_item``), loading tables (``ingest_vector``).

Against the original, on purpose: the box is in longitude and latitude whatever the table's CRS, an item that differs
replaces the one there, geometry types are named as OGC does (``Point``, not ``ST_Point``), any valid collection may be
named and not only the original's four, and a failed write is a failure.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from geo_assets.coremachine.contract import (
    PICTURES,
    CheckResult,
    Handler,
    JobExecutionContext,
    Published,
    TaskContext,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.errors import ParameterError, TableNotFoundError
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.proven import item_checks
from geo_assets.jobs.vector_cataloguing import (
    ITEM_ASSET,
    CatalogueTableParameters,
    TableItemRequest,
    catalogue_table,
    catalogued_table_metadata,
    item_published,
    table_missing,
)
from geo_assets.jobs.vector_workflow import VectorWorkflow
from geo_assets.stores.tables import TableStore

__all__ = ["StacCatalogVectors", "StacCatalogVectorsParameters", "extract_vector_stac_metadata"]

_ORIGINAL = ("schema", "table_name", "collection_id", "source_file")
"""Parameters the original had; the others are hashed only where they are not the default, so that job ids stay."""


class StacCatalogVectorsParameters(CatalogueTableParameters):
    """Parameters of ``stac_catalog_vectors``."""

    # pydantic's own models have a method of the parameter's name
    schema_name: str = Field("geo", alias="schema", description="Schema of the table.")
    table_name: str = Field(description="Name of the table.")
    collection_id: str = Field("vectors", description="Collection of the item; made on first use.")
    source_file: str | None = Field(None, description="The file the table came from, where no job recorded it.")
    geometry_column: str | None = Field(
        None, description="Which geometry column, where there are several. Default: the first."
    )

    @model_validator(mode="before")
    @classmethod
    def _require_table(cls, data: Any) -> Any:
        if isinstance(data, dict) and "table_name" not in data:
            raise ValueError("table_name is required")
        return data

    @field_validator("schema_name", mode="plain")
    @classmethod
    def _check_schema(cls, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("schema must be a non-empty string")
        if "." in value:
            raise ValueError("schema cannot hold a dot: give the table's own name as table_name")
        return value.strip()

    @field_validator("source_file", mode="after")
    @classmethod
    def _check_source_file(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            address = urlsplit(value)
            if address.query or "@" in address.netloc:
                raise ValueError(
                    "source_file is written into the catalog, for good and for all: give the address without its query"
                    " and without a password"
                )
        return value

    @field_validator("table_name", mode="plain")
    @classmethod
    def _check_table(cls, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError("table_name must be a non-empty string")
        return value.strip()


def extract_vector_stac_metadata(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Catalogue one table; see :func:`~geo_assets.jobs.vector_cataloguing.catalogue_table`.

    Raises:
        TransientError, AccessDeniedError, CatalogError: as the stores'.
    """
    return catalogue_table(
        TaskContext(context).services,
        context,
        schema=params["schema"],
        table=params["table_name"],
        request=TableItemRequest.from_parameters(params),
    )


class StacCatalogVectors(VectorWorkflow):
    """One table in the catalog."""

    job_type = "stac_catalog_vectors"
    description = "Catalogues one vector table: its STAC item, with footprint, columns, row count and time"
    Parameters = StacCatalogVectorsParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "catalog_table",
            "task_type": "extract_vector_stac_metadata",
            "description": "Describe the table and write its item",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {"extract_vector_stac_metadata": extract_vector_stac_metadata}

    asset = ITEM_ASSET
    asset_deps = ("vector_table",)
    group = "catalog"
    kinds: ClassVar[frozenset[str]] = frozenset({"stac"})

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """The original's parameters, and those of ours that are not the default."""
        given = model.model_dump(mode="json", by_alias=True)
        defaults = cls.Parameters.model_validate({"table_name": "any"}).model_dump(mode="json", by_alias=True)
        return {name: value for name, value in given.items() if name in _ORIGINAL or value != defaults[name]}

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
        unit = f"catalog_{job_params['schema']}_{job_params['table_name']}"
        return [
            {
                "task_id": task_id(job_id, 1, unit),
                "task_type": "extract_vector_stac_metadata",
                "parameters": dict(job_params),
            }
        ]

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The record with the table and the collection."""
        record = super().create_job_record(job_id, params)
        record["metadata"] |= {name: params.get(name) for name in ("schema", "table_name", "collection_id")}
        return record

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """What became of the one table; the item itself is in the task's result and in the catalog."""
        head: dict[str, Any] = {
            "job_type": cls.job_type,
            **{name: context.parameters.get(name) for name in ("schema", "table_name", "collection_id")},
        }
        if not context.task_results:
            return {**head, "success": False, "error": "No task results found"}
        task = context.task_results[0]
        data = task.result_data
        result: Mapping[str, Any] = data.get("result") or {}
        errors = {name: data[name] for name in ("error", "message") if data.get(name) is not None}
        summarised = ("item_id", "row_count", "geometry_types", "srid", "inserted_to_pgstac", "item_skipped", "bbox")
        more = ("stac", "href", "geometry_column", "column_count", "exact", "version", "notes", PICTURES)
        return {
            **head,
            "summary": {name: result.get(name) for name in summarised},
            **{name: result[name] for name in more if name in result},
            **errors,
            "success": task.success,
            "stages_completed": context.current_stage,
            "total_tasks_executed": len(context.task_results),
            "task_status": task.status.value,
        }

    # Hooks

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """The item was valid when it was written, and its table there."""
        return item_checks(result.get("stac"))

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """The table's version.

        Raises:
            TableNotFoundError: it is not there; says which of its schema are near.
        """
        tables: TableStore = services["tables"]
        schema, table = params["schema"], params["table_name"]
        record = tables.record(schema, table)
        if record is not None:
            return record.version
        try:
            return tables.describe(schema, table, exact=False).version
        except TableNotFoundError:
            raise TableNotFoundError(table_missing(tables, schema, table)) from None

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Tables whose ``schema.table`` starts with ``prefix``.

        Raises:
            ParameterError: it does not name a schema.
        """
        schema, dot, start = prefix.partition(".")
        if not schema or not dot:
            raise ParameterError(f"'{prefix}' names no schema: begin with the schema and a dot, such as 'geo.'")
        tables: TableStore = services["tables"]
        return [f"{schema}.{name}" for name in tables.list_tables(schema) if name.startswith(start)]

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The map and the facts of the item."""
        return catalogued_table_metadata({**(result.get("summary") or {}), **result})

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Bring the collections up to date, once for all items."""
        refresh_collections(jobs, services)

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """The item."""
        return item_published(result)
