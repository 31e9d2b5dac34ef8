"""The ``ingest_vector`` workflow: a vector file as a table, or a table a layer, loaded whole or not at all.

What belongs here: its stages, tasks and aggregation, and the handler of the last stage.  What does not: its parameters
(``ingest_parameters``), the other handlers (``vector_preparing``, ``vector_publishing``), what lies between the stages
(``vector_staging``), items (``vector_cataloguing``).

**The division of labour.**  Stage 1 copies the blob, has it read and prepared in the sandbox, and makes the stagings
of its tables.  Stage 2 loads each chunk of rows, anywhere, in any order, as often as it must.  Stage 3 checks and
publishes, all tables of the file at once.  Stage 4 writes their items.

A load is known by its key, the job and the version of its source, which the table store remembers with the table: a
job that was killed after it published finds its tables there, and only catalogues them.

Against the original, on purpose: see the section ``ingest_vector`` of ``docs/decisions.md``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from geo_assets.coremachine.contract import (
    CheckResult,
    EndedTask,
    Handler,
    JobExecutionContext,
    OutcomeKind,
    PartitionNews,
    Published,
    TaskContext,
    TaskResult,
    TaskStatus,
    WorkflowParameters,
)
from geo_assets.coremachine.identity import task_id
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.ingest_parameters import IngestVectorParameters, geometry_options, read_options
from geo_assets.jobs.proven import item_checks, table_checks
from geo_assets.jobs.vector_cataloguing import (
    ITEM_ASSET,
    TableItemRequest,
    catalogue_table,
    catalogued_table_metadata,
    item_published,
    items_of_table,
)
from geo_assets.jobs.vector_preparing import prepare_vector_chunks, version_of
from geo_assets.jobs.vector_publishing import picture_of, publish_tables, upload_vector_chunk
from geo_assets.jobs.vector_staging import sweep
from geo_assets.jobs.vector_tables import table_metadata, table_published
from geo_assets.jobs.vector_workflow import VectorWorkflow
from geo_assets.stores.tables import TableFacts, TableRecord, TableStore

__all__ = ["IngestVector", "catalog_tables"]

_ASSET = "vector_table"
_LOAD = 2
_PUBLISH = 3
_CATALOG = 4


# --- stage 4: catalog ----------------------------------------------------------------------------------------------


def catalog_tables(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Write the item of each table that this job made of this version of the source.

    Raises:
        TransientError, CatalogError: as the stores'.
    """
    from geo_assets.stac.items import BlobFacts  # noqa: PLC0415 - with the item, where one is made

    services = TaskContext(context).services
    tables: TableStore = services["tables"]
    job_id = str(context["job_id"])
    answers: list[dict[str, Any]] = []
    for record in tables.loaded_by(job_id):
        facts = tables.describe(record.schema, record.table, exact=False)
        if not facts.geometries or all(load.details.get("bbox") is None for load in record.loads):
            _remove_items(services, record)  # of the table that was there before
            continue
        picture = picture_of(services, record)
        asked = _request_of(params, facts)
        changed = tables.touched(record.schema, record.table)
        answers.append(
            catalogue_table(
                services,
                context,
                schema=record.schema,
                table=record.table,
                request=asked,
                facts=None if asked.datetime_column or changed else _facts_of_load(facts, record),
                thumbnail=None if picture is None else BlobFacts(**picture),
            )
        )
    bad = [answer for answer in answers if not answer["success"]]
    result = {"items": [answer["result"] for answer in answers]}
    if bad:
        return {**bad[0], "result": result}
    kinds = {answer["outcome"] for answer in answers}
    for kind in (OutcomeKind.UPDATED, OutcomeKind.CREATED, OutcomeKind.UNCHANGED):
        if kind.value in kinds:
            return {"success": True, "outcome": kind.value, "result": result}
    return {
        "success": True,
        "outcome": OutcomeKind.SKIPPED.value,
        "reason": "a table without geometry has no item",
        "result": result,
    }


def _request_of(params: Mapping[str, Any], facts: TableFacts) -> TableItemRequest:
    """How the item is to be made; a layer without the column of dates has the time of the load."""
    asked = TableItemRequest.from_parameters(params, geometry_column=None)
    has_column = asked.datetime_column in {column.name for column in facts.columns}
    return asked if has_column else replace(asked, datetime_column=None)


def _remove_items(services: Mapping[str, Any], record: TableRecord) -> None:
    for item in items_of_table(services, record.schema, record.table):
        services["catalog"].delete_items(item.collection, [item.name])


def _facts_of_load(facts: TableFacts, record: TableRecord) -> TableFacts | None:
    """The facts of a table with what its one load counted; ``None`` where rows of several must be looked at."""
    if len(record.loads) != 1:
        return None
    load = record.loads[0]
    found = load.details
    declared = facts.geometries[0].type
    types = found["geometry_types"] if declared == "Geometry" else [declared]
    return replace(
        facts,
        row_count=load.rows,
        exact=True,
        geometry_types=tuple(sorted(types)),
        bbox=None if found["bbox"] is None else tuple(found["bbox"]),
        native_bbox=None if found["native_bbox"] is None else tuple(found["native_bbox"]),
        footprint=found["footprint"],
    )


# --- the workflow --------------------------------------------------------------------------------------------------


class IngestVector(VectorWorkflow):
    """A vector file as a table, or a table a layer."""

    job_type = "ingest_vector"
    description = "Loads a vector file into a table, whole or not at all, and catalogues it"
    Parameters = IngestVectorParameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {
            "number": 1,
            "name": "prepare_chunks",
            "task_type": "prepare_vector_chunks",
            "description": "Read the file whole, check and prepare its rows",
            "parallelism": "single",
        },
        {
            "number": 2,
            "name": "upload_chunks",
            "task_type": "upload_vector_chunk",
            "description": "Load the rows beside the table, chunk by chunk",
            "parallelism": "fan_out",
        },
        {
            "number": 3,
            "name": "publish",
            "task_type": "publish_tables",
            "description": "Count, index, and put the table in place",
            "parallelism": "single",
        },
        {
            "number": 4,
            "name": "catalog",
            "task_type": "catalog_tables",
            "description": "Write the STAC items",
            "parallelism": "single",
        },
    ]
    handlers: ClassVar[Mapping[str, Handler]] = {
        "prepare_vector_chunks": prepare_vector_chunks,
        "upload_vector_chunk": upload_vector_chunk,
        "publish_tables": publish_tables,
        "catalog_tables": catalog_tables,
    }

    asset = _ASSET
    asset_deps = ("container_contents",)
    kinds: ClassVar[frozenset[str]] = frozenset({"postgres", "parquet"})

    @classmethod
    def parameters_to_dict(cls, model: WorkflowParameters) -> dict[str, Any]:
        """All of the original's parameters; those it did not have only where they are not the default."""
        return IngestVectorParameters.plain(model)

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        """One task, but for the chunks of stage 2; none to load or publish where the tables are there already.

        Raises:
            ValueError: a stage that there is not, or one without the result it builds on.
        """
        chosen = IngestVectorParameters.model_validate(job_params).model_dump(mode="json", by_alias=True)
        if stage == 1:
            names = ("blob_name", "container_name", "file_extension", "schema", "table_name", "load_mode",
                     "geometry_column", "target_crs", "chunk_size", "datetime_column")  # fmt: skip
            own = {**{name: chosen[name] for name in names}, "container_name": job_params["container_name"]}
            own |= {"read": read_options(chosen), "geometry": geometry_options(chosen)}
            return [_one("prepare", 1, job_id, "prepare_vector_chunks", own)]
        if stage == _CATALOG:
            if chosen["collection_id"] is None:
                return []
            wanted = {name: chosen[name] for name in ("collection_id", "datetime_column", "extent")}
            return [_one("catalog", stage, job_id, "catalog_tables", wanted)]
        if stage > _CATALOG:
            raise ValueError(f"{cls.job_type} only has {len(cls.stages)} stages, got stage {stage}")
        if not previous_results:
            if stage == _PUBLISH:  # nothing was to be loaded
                return []
            raise ValueError(f"Stage {stage} requires Stage {stage - 1} results")
        result = previous_results[0]["result"]
        if stage == _LOAD:
            return [] if "unchanged" in result else _chunk_tasks(result, job_params, job_id)
        own = {"staging": result["staging"], "cluster": chosen["cluster"]}
        return [_one("publish", stage, job_id, "publish_tables", own)]

    @classmethod
    def create_job_record(cls, job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        """The record with the blob and the table, as the original wrote it."""
        record = super().create_job_record(job_id, params)
        names = ("blob_name", "table_name", "schema", "file_extension", "container_name")
        record["metadata"] |= {name: params.get(name) for name in names}
        return record

    @classmethod
    def aggregate_job_results(cls, context: JobExecutionContext) -> dict[str, Any]:
        """The original's result with true values, and what became of each table."""
        by_type: dict[str, list[TaskResult]] = {}
        for task in context.task_results:
            by_type.setdefault(task.task_type, []).append(task)
        first = _result_of(by_type.get("prepare_vector_chunks"))
        published = _result_of(by_type.get("publish_tables"), only_good=True)
        items = _result_of(by_type.get("catalog_tables")).get("items") or []
        chunks = by_type.get("upload_vector_chunk", [])
        parameters = context.parameters
        errors = [
            {"stage": task.stage, "error": task.result_data.get("error") or task.error_details,
             "message": task.result_data.get("message")}
            for task in context.task_results
            if not task.success
        ]  # fmt: skip
        names = ("blob_name", "file_extension", "table_name", "schema", "container_name")
        statuses = [task.status for task in context.task_results]
        counted = {"completed": statuses.count(TaskStatus.COMPLETED), "failed": statuses.count(TaskStatus.FAILED)}
        return {
            "job_type": cls.job_type,
            **{name: parameters.get(name) for name in names},
            "summary": _summary(first, chunks),
            "source": published.get("source") or {"etag": first.get("source_etag")},
            "tables": published.get("tables") or [],
            "tables_unchanged": first.get("unchanged") or [],
            "skipped_layers": first.get("skipped") or [],
            "notes": first.get("notes") or [],
            "items": [{name: value for name, value in item.items() if name != "stac_item"} for item in items],
            "seconds": published.get("seconds"),
            **({"errors": errors} if errors else {}),
            "stages_completed": len({task.stage for task in context.task_results if task.success}),
            "total_tasks_executed": len(statuses),
            "tasks_by_status": {**counted, "pending": len(statuses) - sum(counted.values())},
        }

    # Hooks

    @classmethod
    def check_results(cls, result: dict[str, Any]) -> Iterable[CheckResult]:
        """The rows were counted and the geometries checked; of several tables, each has a partition of its own."""
        tables: Sequence[Mapping[str, Any]] = result.get("tables") or ()
        return table_checks(tables[0]) if len(tables) == 1 else ()

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """The blob's ETag; of a dataset of several, a digest of theirs.

        Raises:
            BlobNotFoundError, ContainerNotFoundError: there is nothing to load.
        """
        return version_of(services["blobs"], params)

    @classmethod
    def partition_news(cls, task: EndedTask) -> Iterable[PartitionNews]:
        """The items, and the tables of layers, which have partitions of their own."""
        result: Mapping[str, Any] = task.result.get("result") or {}
        if task.task_type == "publish_tables":
            made: Sequence[Mapping[str, Any]] = result.get("tables") or ()
            return [
                PartitionNews(
                    asset=_ASSET,
                    name=f"{table['schema']}.{table['table']}",
                    outcome=task.outcome,
                    reason=task.reason,
                    metadata=table_metadata(table, result["source"]),
                    source_version=result["source"]["etag"],
                    checks=tuple(table_checks(table)),
                )
                for table in (made if len(made) > 1 else ())
            ]
        if task.task_type == "catalog_tables":
            return [
                PartitionNews(
                    asset=ITEM_ASSET,
                    name=f"{item['schema']}.{item['table_name']}",
                    outcome=_outcome_of(item, task.outcome),
                    reason=task.reason,
                    metadata=catalogued_table_metadata(item),
                    source_version=item.get("version"),
                    checks=tuple(item_checks(item.get("stac"))),
                )
                for item in result.get("items") or ()
            ]
        return []

    @classmethod
    def materialization_metadata(cls, result: dict[str, Any]) -> dict[str, Any]:
        """The picture, the columns, what was changed and why, some rows; of several tables, what each is."""
        tables: Sequence[Mapping[str, Any]] = result.get("tables") or ()
        source: Mapping[str, Any] = result.get("source") or {}
        if len(tables) == 1:
            return table_metadata(tables[0], source)
        summary: Mapping[str, Any] = result.get("summary") or {}
        shown = {
            "dagster/row_count": sum(table["rows"] for table in tables) if tables else None,
            "tables": [
                {"table": f"{table['schema']}.{table['table']}", "layer": table["layer"], "rows": table["rows"],
                 "geometry": ", ".join(table["geometry_types"]) or None}
                for table in tables
            ] or None,
            "skipped_layers": result.get("skipped_layers") or None,
            "tables_unchanged": result.get("tables_unchanged") or None,
            "rows_uploaded": summary.get("total_rows_uploaded") or None,
            "source_etag": source.get("etag"),
        }  # fmt: skip
        return {name: value for name, value in shown.items() if value is not None}

    @classmethod
    def finish_run(cls, jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
        """Bring the collections up to date, and remove what loads that broke off left behind."""
        refresh_collections([{"collection_id": "vectors", **params} for params in jobs], services)
        sweep(services)

    @classmethod
    def published_by_others(
        cls, names: Sequence[str], services: Mapping[str, Any]
    ) -> Mapping[str, Sequence[Published]]:
        """The tables that a job loaded as layers of one file, under the partition of another name."""
        tables: TableStore = services["tables"]
        found: dict[str, Sequence[Published]] = {}
        for name in names:
            schema, _, table = name.partition(".")
            record = tables.record(schema, table) if schema and table else None
            if record is not None:
                found[name] = [
                    Published(kind="table", collection=schema, name=table, version=record.version),
                    *_picture_published(picture_of(services, record)),
                    *items_of_table(services, schema, table),
                ]
        return found

    @classmethod
    def published(cls, result: dict[str, Any]) -> Sequence[Published]:
        """The tables, their pictures and their items."""
        own = f"{result.get('schema')}.{result.get('table_name')}"
        left: list[Published] = []
        for item in result.get("items") or ():
            name = f"{item.get('schema')}.{item.get('table_name')}"
            left += [one if name == own else replace(one, partition=name) for one in item_published(item)]
        for table in result.get("tables") or ():
            name = f"{table['schema']}.{table['table']}"
            left += [one if name == own else replace(one, partition=name) for one in table_published(table)]
        return left


def _picture_published(picture: Mapping[str, Any] | None) -> list[Published]:
    if picture is None:
        return []
    return [Published(kind="blob", collection=picture["container"], name=picture["name"], version=picture["etag"])]


def _chunk_tasks(result: Mapping[str, Any], job_params: Mapping[str, Any], job_id: str) -> list[dict[str, Any]]:
    """A task for each chunk, numbered through as in the original."""
    tasks: list[dict[str, Any]] = []
    for at, table in enumerate(result["tables"]):
        for number, file in enumerate(table["chunks"]):
            index = len(tasks)
            parameters = {
                "chunk_path": f"{result['staging']}/{file}",
                "table_name": job_params["table_name"],
                "schema": job_params["schema"],
                "chunk_index": index,
                "table": table["table"],
                "table_index": at,
                "chunk_of_table": number,
                "file": file,
                "staging": result["staging"],
            }
            tasks.append(_one(f"chunk_{index}", _LOAD, job_id, "upload_vector_chunk", parameters))
    return tasks


def _one(unit: str, stage: int, job_id: str, task_type: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"task_id": task_id(job_id, stage, unit), "task_type": task_type, "parameters": dict(parameters)}


def _result_of(tasks: Sequence[TaskResult] | None, *, only_good: bool = False) -> dict[str, Any]:
    if not tasks or (only_good and not tasks[0].success):
        return {}
    return tasks[0].result_data.get("result") or {}


def _outcome_of(item: Mapping[str, Any], otherwise: OutcomeKind) -> OutcomeKind:
    said = (item.get("stac") or {}).get("outcome")
    return OutcomeKind(said) if said else otherwise


def _summary(first: Mapping[str, Any], chunks: Sequence[TaskResult]) -> dict[str, Any]:
    """The original's counts."""
    good = [task for task in chunks if task.success]
    rows = sum(int((task.result_data.get("result") or {}).get("rows_uploaded") or 0) for task in good)
    return {
        "total_chunks": len(chunks),
        "chunks_uploaded": len(good),
        "chunks_failed": sum(task.status is TaskStatus.FAILED for task in chunks),
        "total_rows_uploaded": rows,
        "success_rate": f"{100 * len(good) / len(chunks):.1f}%" if chunks else "0.0%",
        "stage_1_metadata": {
            "chunk_count": first.get("chunk_count", 0),
            "total_features": first.get("total_rows", 0),
            "chunk_paths": first.get("chunk_paths") or [],
        },
    }
