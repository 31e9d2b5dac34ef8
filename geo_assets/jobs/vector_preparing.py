"""Reading a vector file and staging its tables: stage 1 of ``ingest_vector``.

What belongs here: the handler that copies the blob, has it prepared in the sandbox and makes the stagings, and whether
there is anything to do.  What does not: preparing (``vector.prepare``), loading the rows (``vector_publishing``).
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geo_assets.coremachine.contract import (
    OutcomeKind,
    TaskContext,
)
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.errors import (
    StagingLostError,
    TableError,
    VectorRefusedError,
    VectorUnreadableError,
)
from geo_assets.jobs.blob_tasks import failed, invalid, scratch_of, sentence_of
from geo_assets.jobs.vector_publishing import (
    load_key,
    loads_of,
    put_picture,
    table_failed,
)
from geo_assets.jobs.vector_staging import Staging, leftovers, remove_leftovers
from geo_assets.scratch import ScratchFolder
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.tables import TableStore
from geo_assets.vector.table import ColumnType, TableDefinition

__all__ = ["prepare_vector_chunks", "version_of"]

_MOMENTS = frozenset({ColumnType.DATE, ColumnType.TIMESTAMP, ColumnType.TIMESTAMPTZ})


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
    etag = version_of(services["blobs"], params)
    done = _done_before(params, context, etag)
    if done is not None:
        _put_pictures_left(context, etag)
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
        return table_failed(error, where)
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


# --- done before ---------------------------------------------------------------------------------------------------


def _done_before(params: Mapping[str, Any], context: Mapping[str, Any], etag: str) -> list[str] | None:
    """The tables that this job made of this version of the source, where they are as it left them; else ``None``."""
    tables: TableStore = TaskContext(context).services["tables"]
    key = load_key(str(context["job_id"]), etag)
    loaded = [one for one in tables.loaded_by(str(context["job_id"])) if any(load.key == key for load in one.loads)]
    if not loaded:
        return None
    names = [f"{one.schema}.{one.table}" for one in loaded]
    expected = {name for one in loaded for name in loads_of(one, key)[-1].details.get("tables", [])}
    if not expected <= set(names):
        return None  # somebody removed one of them
    if params["load_mode"] == "overwrite" and any(one.loads[-1].key != key for one in loaded):
        return None  # another load came after, and this one is to stand alone
    if params["load_mode"] != "append" and any(tables.touched(one.schema, one.table) for one in loaded):
        return None  # somebody added or removed rows; appended ones are there once, whatever else is
    return sorted(names)


def _put_pictures_left(context: Mapping[str, Any], etag: str) -> None:
    """Put the pictures of tables that an execution published before it was killed."""
    services = TaskContext(context).services
    for staging in leftovers(services, str(context["job_id"])):
        with contextlib.suppress(StagingLostError):
            manifest = staging.manifest()
            for found in manifest["tables"] if manifest["source"]["etag"] == etag else ():
                put_picture(services, staging, found)


def version_of(blobs: BlobStore, params: Mapping[str, Any]) -> str:
    """The version of what a job reads, without reading it.

    Raises:
        BlobNotFoundError, ContainerNotFoundError: there is nothing to load.
    """
    from geo_assets.vector.local_copy import source_version  # noqa: PLC0415 - brings the formats along

    return source_version(blobs, params["container_name"], params["blob_name"])
