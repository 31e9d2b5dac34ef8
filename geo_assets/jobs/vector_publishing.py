"""Loading prepared rows and putting tables in place: stages 2 and 3 of ``ingest_vector``.

What belongs here: the handlers of chunks and of publishing, what a load is known by, the picture of a table, and what
a result says of it.  What does not: reading files (``vector_preparing``), items and the workflow (``ingest_vector``),
what a result shows (``vector_tables``).
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from geo_assets.coremachine.contract import (
    PICTURES,
    OutcomeKind,
    TaskContext,
)
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    ParameterError,
    PreconditionFailedError,
    TableError,
)
from geo_assets.jobs.blob_tasks import etag_of, failed
from geo_assets.jobs.vector_staging import Staging, remove_leftovers
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.tables import PublishedTable, StagedTable, TableRecord, TableStore
from geo_assets.vector.table import TableDefinition, TableLoad

__all__ = ["load_key", "loads_of", "picture_of", "publish_tables", "put_picture", "table_failed", "upload_vector_chunk"]

_REMEMBERED = ("source_rows", "source_crs", "geometry_types", "report", "notes", "bbox", "native_bbox", "footprint")
"""What a table's record keeps of how it was loaded."""
_SAMPLE_ROWS, _SAMPLE_COLUMNS = 5, 8
_LOADING = threading.BoundedSemaphore(2)
"""Chunks at once in a process: more connections load nothing faster, and each chunk is in memory."""


def load_key(job_id: str, etag: str | None) -> str:
    """What a load is known by: equal for repeats of a job on the same version of its source."""
    return f"{job_id}:{etag}"


def loads_of(record: TableRecord, key: str) -> list[TableLoad]:
    """The loads of a table with this key."""
    return [load for load in record.loads if load.key == key]


def table_failed(error: TableError, where: Mapping[str, Any]) -> dict[str, Any]:
    """A handler's return where the target does not take the load; the name of the error is its code."""
    return failed(code_of(error), str(error), where)


def code_of(error: TableError) -> str:
    return {
        "TableExistsError": "TABLE_EXISTS",
        "TableInUseError": "TABLE_IN_USE",
        "TableSchemaError": "SCHEMA_MISMATCH",
        "TableDataError": "DATA_REFUSED",
        "StagingLostError": "STAGING_LOST",
    }.get(type(error).__name__, "TABLE_REFUSED")


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
        return table_failed(error, where)
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
        key = load_key(str(context["job_id"]), manifest["source"]["etag"])
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
        code = code_of(error) if isinstance(error, TableError) else "TARGET_CHANGED"
        return failed(code, str(error), where)
    pictures = [
        put_picture(services, staging, one, whole=made.rows == made.rows_loaded)
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


def put_picture(
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


# --- pictures ------------------------------------------------------------------------------------------------------


def picture_of(services: Mapping[str, Any], record: TableRecord) -> dict[str, Any] | None:
    """The picture of a table as the fields of :class:`~geo_assets.stac.items.BlobFacts`; ``None``: there is none."""
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
