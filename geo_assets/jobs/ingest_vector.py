"""The ``ingest_vector`` workflow: a vector file as a table, or a table a layer, loaded whole or not at all.

What belongs here: its stages, tasks, handlers and aggregation.  What does not: its parameters
(``ingest_parameters``), reading and preparing files (``geo_assets.vector``), tables (``stores.tables``), what lies
between the stages (``vector_staging``), items (``vector_cataloguing``).

**The division of labour.**  Stage 1 copies the blob, has it read and prepared in the sandbox, and makes the stagings
of its tables.  Stage 2 loads each chunk of rows, anywhere, in any order, as often as it must.  Stage 3 checks and
publishes, all tables of the file at once.  Stage 4 writes their items.

A load is known by its key, the job and the version of its source, which the table store remembers with the table: a
job that was killed after it published finds its tables there, and only catalogues them.

Against the original, on purpose: see the section ``ingest_vector`` of ``docs/decisions.md``.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from geo_assets.coremachine.contract import (
    PICTURES,
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
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    ParameterError,
    PreconditionFailedError,
    StagingLostError,
    TableError,
    VectorRefusedError,
    VectorUnreadableError,
)
from geo_assets.jobs.blob_tasks import etag_of, failed, invalid, scratch_of, sentence_of
from geo_assets.jobs.cataloguing import refresh_collections
from geo_assets.jobs.ingest_parameters import IngestVectorParameters, geometry_options, read_options
from geo_assets.jobs.vector_cataloguing import (
    ITEM_ASSET,
    TableItemRequest,
    catalogue_table,
    catalogued_table_metadata,
    item_published,
    items_of_table,
)
from geo_assets.jobs.vector_staging import Staging, leftovers, remove_leftovers, sweep
from geo_assets.jobs.vector_tables import table_metadata, table_published
from geo_assets.jobs.vector_workflow import VectorWorkflow
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.tables import PublishedTable, StagedTable, TableFacts, TableRecord, TableStore
from geo_assets.vector.table import ColumnType, TableDefinition, TableLoad

__all__ = ["IngestVector", "catalog_tables", "prepare_vector_chunks", "publish_tables", "upload_vector_chunk"]

_ASSET = "vector_table"
_REMEMBERED = ("source_rows", "source_crs", "geometry_types", "report", "notes", "bbox", "native_bbox", "footprint")
"""What a table's record keeps of how it was loaded."""
_MOMENTS = frozenset({ColumnType.DATE, ColumnType.TIMESTAMP, ColumnType.TIMESTAMPTZ})
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 5, 8
_LOADING = threading.BoundedSemaphore(2)
"""Chunks at once in a process: more connections load nothing faster, and each chunk is in memory."""
_LOAD = 2
_PUBLISH = 3
_CATALOG = 4


# --- stage 1: prepare --------------------------------------------------------------------------------------------


def prepare_vector_chunks(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Copy the blob, have it prepared in the sandbox, and make the stagings of its tables.

    Raises:
        BlobNotFoundError, TransientError: as the stores'.
    """
    services = TaskContext(context).services
    settings: Settings = services["settings"]
    tables: TableStore = services["tables"]
    where = {"source_file": params["blob_name"], "container_name": params["container_name"]}
    done = _done_before(params, context)
    if done is not None:
        _put_pictures_left(params, context)
    remove_leftovers(services, str(context["job_id"]))
    if done is not None:
        return {
            "success": True,
            "outcome": OutcomeKind.UNCHANGED.value,
            "reason": "the source and the tables made of it are as they were",
            "result": {**where, "unchanged": done},
        }
    try:
        tables.check_target(params["schema"], params["table_name"], params["load_mode"])
        with scratch_of(context, settings) as scratch:
            staged = _copied_and_staged(params, context, scratch)
    except _UnusableError as error:
        return {**error.answer, "result": where}
    except VectorRefusedError as error:
        return invalid(error.code, str(error), where)
    except VectorUnreadableError as error:
        return invalid("FILE_UNREADABLE", str(error), where)
    except TableError as error:
        return _table_failed(error, where)
    return {"success": True, "result": {**where, **staged}}


class _UnusableError(Exception):
    """The sandbox made nothing of the file; carries the handler's return."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["message"])
        self.answer = answer


def _copied_and_staged(params: Mapping[str, Any], context: Mapping[str, Any], scratch: ScratchFolder) -> dict[str, Any]:
    from geo_assets.vector.local_copy import fetch  # noqa: PLC0415 - brings the formats along

    services = TaskContext(context).services
    settings: Settings = services["settings"]
    folder = scratch.path / "prepared"
    folder.mkdir(exist_ok=True)
    copy = fetch(
        services["blobs"],
        params["container_name"],
        params["blob_name"],
        folder=lambda: scratch.path,
        reserve_bytes=settings.disk_reserve_mb << 20,
        file_extension=params["file_extension"],
    )
    started = time.perf_counter()
    prepared = _prepared(params, services, copy.path, folder)
    _require_tables(
        [TableDefinition.from_dict(found["definition"]) for found in prepared["tables"]], params, services["tables"]
    )
    source = {
        "container": params["container_name"],
        "blob": params["blob_name"],
        "etag": copy.etag,
        "sha256": copy.sha256,
        "size": copy.size,
        "last_modified": copy.last_modified.isoformat(),
        "format": prepared["format"],
    }
    seconds = {"prepare": round(time.perf_counter() - started, 4)}
    return _stage(params, context, prepared, folder, source, seconds)


def _prepared(params: Mapping[str, Any], services: Mapping[str, Any], path: Path, folder: Path) -> dict[str, Any]:
    """What the sandbox made of the copy.

    Raises:
        _UnusableError: nothing.
    """
    from geo_assets.vector.open import VectorBudget  # noqa: PLC0415 - GDAL is loaded where a file is at work
    from geo_assets.vector.prepare import prepare_vector_file  # noqa: PLC0415

    sandbox: Sandbox = services["sandbox"]
    outcome = sandbox.call(
        prepare_vector_file,
        {
            "path": str(path),
            "name": params["blob_name"],
            "folder": str(folder),
            "read": params["read"],
            "geometry": params["geometry"],
            "budget": VectorBudget.from_settings(services["settings"]).as_dict(),
            "schema": params["schema"],
            "table": params["table_name"],
            "geometry_column": params["geometry_column"],
            "target_crs": params["target_crs"],
            "chunk_rows": params["chunk_size"],
        },
    )
    if outcome.kind is OutcomeKind.CREATED:
        result: dict[str, Any] = outcome.result_data["result"]
        return result
    code, message = outcome.result_data.get("error"), outcome.result_data.get("message")
    if code and message:
        raise _UnusableError(invalid(code, message, {}))
    raise _UnusableError(failed("PREPARATION_FAILED", sentence_of(outcome), {}, transient=outcome.transient))


def _require_tables(tables: Sequence[TableDefinition], params: Mapping[str, Any], store: TableStore) -> None:
    """Refuse what would fail only once the tables are there.

    Raises:
        VectorRefusedError: two tables would have one name, or none has the column whose range is wanted.
    """
    names = [table.name for table in tables]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise VectorRefusedError(
            f"two tables of the file would be called {', '.join(twice)}; load its layers one by one (layer)",
            code="TABLE_NAMES",
        )
    own = f"{params['schema']}.{params['table_name']}"
    if own not in names and store.check_target(params["schema"], params["table_name"], "append") is not None:
        raise VectorRefusedError(
            f"the file makes the tables {', '.join(names)}, and {own} is another that is there already: give another"
            " table_name, or name one layer",
            code="TABLE_NAMES",
        )
    wanted = params["datetime_column"]
    columns = [column for table in tables for column in table.columns]
    if wanted is not None and not any(column.name == wanted and column.type in _MOMENTS for column in columns):
        there = ", ".join(dict.fromkeys(column.name for column in columns if column.type in _MOMENTS))
        raise VectorRefusedError(
            f"datetime_column '{wanted}' is no column of dates or timestamps; the file has {there or 'none'}",
            code="NO_SUCH_COLUMN",
        )


def _stage(
    params: Mapping[str, Any],
    context: Mapping[str, Any],
    prepared: Mapping[str, Any],
    folder: Path,
    source: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Make the stagings, and put chunks and manifest where the next stages find them; nothing is left on failure."""
    services = TaskContext(context).services
    tables: TableStore = services["tables"]
    staging = Staging.new(services, str(context["job_id"]))
    tokens: list[str] = []
    chunk_paths: list[str] = []
    manifest: dict[str, Any] = {"source": dict(source), "seconds": dict(seconds), "tables": []}
    try:
        for found in prepared["tables"]:
            staged = tables.begin(TableDefinition.from_dict(found["definition"]), params["load_mode"])
            tokens.append(staged.token)
            chunks = []
            for chunk in found["chunks"]:
                chunk_paths.append(staging.put_file(chunk["file"], folder / chunk["file"]))
                chunks.append({"file": chunk["file"], "rows": chunk["rows"]})
                (folder / chunk["file"]).unlink()  # the disk need not hold it twice
            picture = found["picture"]
            if picture is not None:
                name = f"{staged.definition.table}.webp"
                staging.put_file(name, Path(picture["path"]))
                picture = {**{key: value for key, value in picture.items() if key != "path"}, "file": name}
            described = {name: value for name, value in found.items() if name != "definition"}
            manifest["tables"].append({**described, "staged": staged.as_dict(), "chunks": chunks, "picture": picture})
        staging.put_manifest(manifest)
    except BaseException:
        tables.discard(tokens)
        staging.remove()
        raise
    first = prepared["tables"][0]
    return {
        "staging": staging.prefix,
        "tables": [
            {
                "table": f"{params['schema']}.{one['staged']['definition']['table']}",
                "layer": one["layer"],
                "rows": one["rows"],
                "chunks": [chunk["file"] for chunk in one["chunks"]],
                "report": one["report"],
                "notes": one["notes"],
            }
            for one in manifest["tables"]
        ],
        "skipped": prepared["skipped"],
        "notes": prepared["notes"],
        "format": prepared["format"],
        "source_etag": source["etag"],
        # the original's
        "chunk_paths": chunk_paths,
        "table_name": params["table_name"],
        "schema": params["schema"],
        "total_rows": sum(one["rows"] for one in prepared["tables"]),
        "chunk_count": len(chunk_paths),
        "chunk_size_used": params["chunk_size"] or max((c["rows"] for c in first["chunks"]), default=0),
        "geometry_types": sorted({kind for one in prepared["tables"] for kind in one["geometry_types"]}),
    }


def _table_failed(error: TableError, where: Mapping[str, Any]) -> dict[str, Any]:
    """A handler's return where the target does not take the load; the name of the error is its code."""
    return failed(_code_of(error), str(error), where)


def _code_of(error: TableError) -> str:
    return {
        "TableExistsError": "TABLE_EXISTS",
        "TableInUseError": "TABLE_IN_USE",
        "TableSchemaError": "SCHEMA_MISMATCH",
        "TableDataError": "DATA_REFUSED",
        "StagingLostError": "STAGING_LOST",
    }.get(type(error).__name__, "TABLE_REFUSED")


# --- done before ---------------------------------------------------------------------------------------------------


def _load_key(job_id: str, etag: str | None) -> str:
    return f"{job_id}:{etag}"


def _done_before(params: Mapping[str, Any], context: Mapping[str, Any]) -> list[str] | None:
    """The tables that this job made of this version of the source, where they are as it left them; else ``None``."""
    services = TaskContext(context).services
    etag = _version_of(services["blobs"], params)
    tables: TableStore = services["tables"]
    key = _load_key(str(context["job_id"]), etag)
    loaded = [one for one in tables.loaded_by(str(context["job_id"])) if any(load.key == key for load in one.loads)]
    if not loaded:
        return None
    names = [f"{one.schema}.{one.table}" for one in loaded]
    expected = {name for one in loaded for name in _loads(one, key)[-1].details.get("tables", [])}
    if not expected <= set(names):
        return None  # somebody removed one of them
    if params["load_mode"] == "overwrite" and any(one.loads[-1].key != key for one in loaded):
        return None  # another load came after, and this one is to stand alone
    if params["load_mode"] != "append" and any(tables.touched(one.schema, one.table) for one in loaded):
        return None  # somebody added or removed rows; appended ones are there once, whatever else is
    return sorted(names)


def _put_pictures_left(params: Mapping[str, Any], context: Mapping[str, Any]) -> None:
    """Put the pictures of tables that an execution published before it was killed."""
    services = TaskContext(context).services
    etag = _version_of(services["blobs"], params)
    for staging in leftovers(services, str(context["job_id"])):
        with contextlib.suppress(StagingLostError):
            manifest = staging.manifest()
            for found in manifest["tables"] if manifest["source"]["etag"] == etag else ():
                _put_picture(services, staging, found)


def _loads(record: TableRecord, key: str) -> list[TableLoad]:
    return [load for load in record.loads if load.key == key]


def _version_of(blobs: BlobStore, params: Mapping[str, Any]) -> str:
    from geo_assets.vector.local_copy import source_version  # noqa: PLC0415 - brings the formats along

    return source_version(blobs, params["container_name"], params["blob_name"])


# --- stage 2: load -------------------------------------------------------------------------------------------------


def upload_vector_chunk(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Load one chunk into its staging; one that is there already is left as it is.

    Raises:
        TransientError: as the stores'.
    """
    services = TaskContext(context).services
    tables: TableStore = services["tables"]
    staging = Staging(services, params["staging"])
    where = {"chunk_path": params["chunk_path"], "chunk_index": params["chunk_index"]}
    where |= {"staging": params["staging"], "table": params["table"]}
    try:
        staged = StagedTable.from_dict(staging.manifest()["tables"][params["table_index"]]["staged"])
        with _LOADING:
            rows = tables.load_chunk(
                staged, params["chunk_of_table"], _conformed(staging.batches(params["file"]), staged.definition)
            )
    except TableError as error:
        return _table_failed(error, where)
    return {"success": True, "result": {"rows_uploaded": rows, **where}}


def _conformed(batches: Iterable[pa.RecordBatch], definition: TableDefinition) -> Iterator[pa.RecordBatch]:
    """The batches as the table's columns want them.

    The type of its geometry was known only when the whole file was read; a table that is there has types of its own.
    """
    from geo_assets.vector.fitting import fit_batch  # noqa: PLC0415 - where rows are loaded
    from geo_assets.vector.wkb import conform  # noqa: PLC0415 - brings shapely along

    geometry = definition.geometry
    schema = definition.chunk_schema
    for batch in batches:
        rows = batch
        if geometry is not None:
            shapes = conform(batch.column(geometry.name), type=geometry.type, dimensions=geometry.dimensions)
            rows = batch.set_column(batch.schema.names.index(geometry.name), geometry.name, shapes)
        yield fit_batch(rows, schema)


# --- stage 3: publish ----------------------------------------------------------------------------------------------


def publish_tables(params: dict[str, Any], context: Mapping[str, Any]) -> dict[str, Any]:
    """Check and publish all tables of the file, then their pictures.

    Raises:
        TransientError: as the stores'.
    """
    services = TaskContext(context).services
    tables: TableStore = services["tables"]
    staging = Staging(services, params["staging"])
    started = time.perf_counter()
    where = {"staging": params["staging"]}
    try:
        manifest = staging.manifest()
        found: list[dict[str, Any]] = manifest["tables"]
        key = _load_key(str(context["job_id"]), manifest["source"]["etag"])
        names = [TableDefinition.from_dict(one["staged"]["definition"]).name for one in found]
        loads = [_load_of(one, manifest["source"], names, key, str(context["job_id"])) for one in found]
        # what an earlier try published, of which nobody heard, the store finds done
        published = tables.publish(
            [StagedTable.from_dict(one["staged"]) for one in found],
            loads,
            chunks=[len(one["chunks"]) for one in found],
            cluster=params["cluster"],
        )
    except (TableError, PreconditionFailedError, ParameterError) as error:
        remove_leftovers(services, str(context["job_id"]))
        code = _code_of(error) if isinstance(error, TableError) else "TARGET_CHANGED"
        return failed(code, str(error), where)
    pictures = [
        _put_picture(services, staging, one, whole=made.rows == made.rows_loaded)
        for one, made in zip(found, published, strict=True)
    ]
    staging.remove()
    replaced = any(made.replaced for made in published)
    result = {
        "source": manifest["source"],
        "tables": [
            _table_result(one, made, picture) for one, made, picture in zip(found, published, pictures, strict=True)
        ],
        "seconds": {**manifest["seconds"], "publish": round(time.perf_counter() - started, 4)},
    }
    outcome = OutcomeKind.UPDATED if replaced else OutcomeKind.CREATED
    return {"success": True, "outcome": outcome.value, "result": result}


def _load_of(
    found: Mapping[str, Any], source: Mapping[str, Any], names: Sequence[str], key: str, job_id: str
) -> TableLoad:
    from geo_assets.stac.items import rfc3339  # noqa: PLC0415 - with the item, where one is made

    details = {name: found[name] for name in _REMEMBERED}
    return TableLoad(
        key=key,
        job_id=job_id,
        rows=found["rows"],
        source={**source, "layer": found["layer"]},
        details={**details, "tables": list(names), "loaded_at": rfc3339(datetime.now(UTC))},
    )


def _put_picture(
    services: Mapping[str, Any], staging: Staging, found: Mapping[str, Any], *, whole: bool = True
) -> dict[str, Any] | None:
    """Put the picture of a table; that of rows that were added (not ``whole``) only where there is none."""
    picture = found["picture"]
    blobs: BlobStore = services["blobs"]
    container = services["settings"].thumbnail_container
    name = f"tables/{TableDefinition.from_dict(found['staged']['definition']).name}.webp"
    if picture is None:
        with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError):
            blobs.delete(container, name)  # of the table that was there before
        return None
    if not whole and (there := etag_of(blobs, container, name)) is not None:
        return {"container": container, "blob": name, "etag": there}
    if not blobs.container_exists(container):
        blobs.create_container(container)
    etag = blobs.put_stream(
        container,
        name,
        [staging.read(picture["file"])],
        content_type=picture["media_type"],
        sha256=picture["sha256"],
    )
    return {
        "container": container,
        "blob": name,
        "etag": etag,
        "size": picture["size"],
        "sha256": picture["sha256"],
        "media_type": picture["media_type"],
        "href": blobs.uri(container, name),
    }


def _table_result(
    found: Mapping[str, Any], made: PublishedTable, thumbnail: Mapping[str, Any] | None
) -> dict[str, Any]:
    definition = found["staged"]["definition"]
    geometry = definition["geometry"]
    return {
        "schema": made.schema,
        "table": made.table,
        "layer": found["layer"],
        "version": made.version,
        "href": made.href,
        "rows": made.rows,
        "rows_loaded": made.rows_loaded,
        "source_rows": found["source_rows"],
        "replaced": made.replaced,
        "columns": [
            {name: column[name] for name in ("name", "type", "source_name")} for column in definition["columns"]
        ],
        "geometry": geometry,
        "geometry_types": found["geometry_types"],
        "source_crs": found["source_crs"],
        "bbox": found["bbox"],
        "native_bbox": found["native_bbox"],
        "report": found["report"],
        "notes": found["notes"],
        "sample": [dict(list(row.items())[:_SAMPLE_COLUMNS]) for row in found["sample"][:_SAMPLE_ROWS]],
        "thumbnail": thumbnail,
        PICTURES: None if found["picture"] is None else _shown(found["picture"]),
    }


def _shown(picture: Mapping[str, Any]) -> dict[str, Any]:
    return {name: picture[name] for name in ("tiny", "small", "media_type", "width", "height")}


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
        picture = _picture_of(services, record)
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


def _picture_of(services: Mapping[str, Any], record: TableRecord) -> dict[str, Any] | None:
    blobs: BlobStore = services["blobs"]
    container, name = services["settings"].thumbnail_container, f"tables/{record.schema}.{record.table}.webp"
    with contextlib.suppress(BlobNotFoundError, ContainerNotFoundError):
        there = blobs.head(container, name)
        return {
            "container": container,
            "name": name,
            "href": blobs.uri(container, name),
            "etag": there.etag,
            "size": there.size,
            "media_type": "image/webp",
        }
    return None


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
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """The blob's ETag; of a dataset of several, a digest of theirs.

        Raises:
            BlobNotFoundError, ContainerNotFoundError: there is nothing to load.
        """
        return _version_of(services["blobs"], params)

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
                    *_picture_published(_picture_of(services, record)),
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
