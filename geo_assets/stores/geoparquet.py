"""GeoParquet table store: a folder a table, swapped whole, readable by whatever reads Parquet.

What belongs here: :class:`GeoParquetTables`.  What does not: where things lie and how they change in one step
(``geoparquet_folders``), the files (``geoparquet_parts``), which job loaded what (``geoparquet_jobs``), what is known
of a table (``geoparquet_facts``).

``<root>/<schema>/<table>`` is what readers open: ``geopandas.read_parquet(folder)``, ``pyarrow.dataset``, DuckDB.  It
is a link to a version, which never changes; a staging becomes one by a rename, and the table by a rename of the link.
A reader from outside that opens the folder while it is swapped sees the old version, the new one, or an error.

**Several tables at once.**  All are made ready before the first link is swapped, and swapped back when one fails.  A
process killed between two swaps leaves the tables that come later as they were; publishing again goes on from there.

**What somebody else put there** (a folder, or ``<table>.parquet``) is described and read, but never replaced or added
to: it cannot be swapped in one step, and is not ours.  ``drop`` removes it, if it is told to.
"""

import json
import os
import re
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa

from geo_assets.errors import (
    GeoAssetsError,
    ParameterError,
    PreconditionFailedError,
    StagingLostError,
    TableDataError,
    TableExistsError,
    TableInUseError,
    TableNotFoundError,
    TableSchemaError,
)
from geo_assets.stores.geoparquet_folders import (
    RECORD,
    Folders,
    Found,
    VersionRecord,
    part_name,
    put_file,
    sync_folder,
)
from geo_assets.stores.geoparquet_jobs import JobIndex
from geo_assets.stores.geoparquet_parts import (
    PartFacts,
    cluster_part,
    part_box,
    part_facts,
    read_parts,
    repeated_id,
    write_part,
)
from geo_assets.stores.tables import GeometryValidity, LoadMode, PublishedTable, StagedTable, TableFacts, TableRecord
from geo_assets.vector.fitting import fit_column, fit_geometry
from geo_assets.vector.table import Column, ColumnType, GeometryColumn, TableDefinition, TableLoad

__all__ = ["GeoParquetTables"]

_STAGED: Final = "_staged.json"
"""What a staging is for; stays in a version until all tables of its publication are in place."""
_LOCK: Final = ".lock"
_PART: Final = re.compile(r"part-(\d{5,})-([0-9a-f]{12})\.parquet")


@dataclass(frozen=True, kw_only=True)
class _Staging:
    """What :meth:`GeoParquetTables.begin` settles for all chunks."""

    folder: Path
    layout: TableDefinition
    """Of the table the rows will be in, which is the older one's where rows are added."""
    id_offset: int
    first_part: int

    def as_bytes(self) -> bytes:
        values = {"layout": self.layout.as_dict(), "id_offset": self.id_offset, "first_part": self.first_part}
        return json.dumps(values).encode()

    @classmethod
    def read(cls, folder: Path) -> "_Staging":
        values = json.loads((folder / _STAGED).read_bytes())
        return cls(**{**values, "folder": folder, "layout": TableDefinition.from_dict(values["layout"])})


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A staging whose rows were counted."""

    staging: _Staging
    parts: Mapping[int, PartFacts]
    """By chunk."""


@dataclass(frozen=True, kw_only=True)
class _Publication:
    """One table of a publication, under its lock."""

    staged: StagedTable
    load: TableLoad
    ready: _Ready | None
    """``None``: the staging is no longer there."""
    found: Found | None
    """What the table is now."""

    @property
    def target(self) -> tuple[str, str]:
        return self.staged.definition.schema, self.staged.definition.table

    @property
    def name(self) -> str:
        return self.staged.definition.name

    @property
    def record(self) -> VersionRecord | None:
        return None if self.found is None else self.found.record

    @property
    def done(self) -> bool:
        return self.record is not None and self.staged.token in self.record.tokens


class GeoParquetTables:
    """Tables in the folder ``root``, which is made with the first one; see ``stores.tables.TableStore``."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()
        self._folders = Folders(self.root, self.description)
        self._jobs = JobIndex(self.root, self._folders)

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"the GeoParquet tables {self.root}"

    @property
    def kind(self) -> Literal["postgis", "geoparquet"]:
        """Which kind."""
        return "geoparquet"

    def close(self) -> None:
        """Nothing is held open."""

    # --- loading

    def check_target(self, schema: str, table: str, mode: LoadMode) -> str | None:
        """Find out, before any work, whether a load can end well; returns the version of the table that is there."""
        with self._folders.translated():
            found = self._target(schema, table, mode)
        return None if found is None else found.version

    def begin(self, definition: TableDefinition, mode: LoadMode) -> StagedTable:
        """Make a staging."""
        token = uuid.uuid4().hex
        folder = self._folders.staging(token)
        with self._folders.translated():
            found = self._target(definition.schema, definition.table, mode)
            staging = _Staging(folder=folder, layout=definition, id_offset=0, first_part=0)
            if mode == "append" and found is not None and found.record is not None:
                before = found.record
                definition = _fitted(before.definition, definition)
                staging = replace(staging, layout=before.definition, id_offset=before.last_id, first_part=before.parts)
            folder.parent.mkdir(parents=True, exist_ok=True)
            made = folder.with_name(f".making-{token}")
            made.mkdir()
            put_file(made / _STAGED, staging.as_bytes())
            made.rename(folder)
        version = None if found is None else found.version
        return StagedTable(token=token, definition=definition, mode=mode, target_version=version)

    def load_chunk(self, staged: StagedTable, chunk: int, batches: Iterable[pa.RecordBatch]) -> int:
        """Load one chunk; returns its rows. A chunk that is there already is not loaded again."""
        if chunk < 0:
            raise ParameterError(f"chunks of {staged.definition.name} are numbered from 0, not {chunk}")
        staging = self._staging(staged)
        part = staging.folder / part_name(staging.first_part + chunk, staged.token)
        made = staging.folder / f".chunk-{chunk}-{uuid.uuid4().hex}"
        with self._folders.translated():
            try:
                if not part.exists():
                    write_part(made, staging.layout, batches, id_offset=staging.id_offset)
                    # unlike a rename, this does not replace what another process wrote meanwhile
                    with suppress(FileExistsError):
                        part.hardlink_to(made)
                    sync_folder(staging.folder)
                return part_facts(part).rows
            except FileNotFoundError:
                if (staging.folder / _STAGED).exists():
                    raise
                raise self._lost(staged) from None
            finally:
                made.unlink(missing_ok=True)

    def publish(
        self,
        staged: Sequence[StagedTable],
        loads: Sequence[TableLoad],
        *,
        chunks: Sequence[int],
        cluster: bool = False,
    ) -> list[PublishedTable]:
        """Check and put in place several stagings, all or none.

        With ``cluster``, the rows of each chunk are ordered along a Hilbert curve through all that was loaded, and
        keep their ids; a chunk at a time is in memory.
        """
        targets = [(one.definition.schema, one.definition.table) for one in staged]
        if len(set(targets)) < len(targets):
            raise ParameterError("two stagings of one publication have the same table as their target")
        with self._folders.translated(), ExitStack() as held:
            for one in sorted(staged, key=lambda one: one.token):
                held.enter_context(self._alone(one))
            ready = [
                self._ready(one, load, count, cluster=cluster)
                for one, load, count in zip(staged, loads, chunks, strict=True)
            ]
            held.enter_context(self._folders.locked(targets))
            publications = [
                _Publication(staged=one, load=load, ready=rows, found=self._folders.current(*target))
                for one, load, rows, target in zip(staged, loads, ready, targets, strict=True)
            ]
            self._put_in_place(publications)
            return [self._published(one) for one in publications]

    def discard(self, tokens: Iterable[str]) -> None:
        """Remove stagings; those that are gone are no matter."""
        with self._folders.translated():
            for token in tokens:
                self._folders.remove(self._folders.staging(token))
                for schema, table in list(self._folders.unpublished(token)):
                    with self._folders.locked([(schema, table)]):
                        if (schema, table) in self._folders.unpublished(token):
                            self._folders.remove(self._folders.version(schema, table, token))

    def sweep(self, *, older_than_seconds: float, dry_run: bool = False) -> int:
        """Remove (``dry_run``: count) stagings untouched for so long; remove versions out of sight for so long."""
        removed = 0
        with self._folders.translated():
            if dry_run:
                return len(list(self._folders.old_stagings(older_than_seconds)))
            for folder in self._folders.old_stagings(older_than_seconds):
                removed += self._folders.remove(folder)
            for schema in self._folders.schemas():
                for table, versions in self._folders.out_of_sight(schema, older_than_seconds).items():
                    with self._folders.locked([(schema, table)]):
                        self._folders.prune(schema, table, among=versions)
            self._folders.sweep_leftovers(older_than_seconds)
        return removed

    # --- looking

    def record(self, schema: str, table: str) -> TableRecord | None:
        """What the store remembers of a table; ``None`` where it is not there, or not as it was loaded."""
        with self._folders.translated():
            return _table_record(self._folders.current(schema, table))

    def records(self) -> Iterator[TableRecord]:
        """What the store remembers of every table that is as it was loaded."""
        with self._folders.translated():
            for schema in self._folders.schemas():
                for table in self._folders.tables(schema):
                    # a folder of any name may have been put there
                    with suppress(ParameterError):
                        found = _table_record(self._folders.current(schema, table))
                        if found is not None:
                            yield found

    def loaded_by(self, job_id: str) -> list[TableRecord]:
        """The tables that hold rows loaded by a job, sorted by name."""
        with self._folders.translated():
            records = [self.record(schema, table) for schema, table in self._jobs.tables(job_id)]
        return [one for one in records if one is not None and any(load.job_id == job_id for load in one.loads)]

    def describe(
        self,
        schema: str,
        table: str,
        *,
        geometry_column: str | None = None,
        datetime_column: str | None = None,
        exact: bool = True,
    ) -> TableFacts:
        """Look at a table, whoever made it."""
        from geo_assets.stores.geoparquet_facts import describe_files  # noqa: PLC0415 - PROJ and shapely

        with self._folders.translated(), self._folders.pinned(schema, table) as found:
            if found is None or not found.files:
                raise self._missing(schema, table)
            facts = describe_files(
                found.files,
                None if found.record is None else found.record.definition,
                name=f"{schema}.{table}",
                geometry_column=geometry_column,
                datetime_column=datetime_column,
                exact=exact,
            )
        return replace(
            facts,
            schema=schema,
            table=table,
            version=found.version,
            record=_table_record(found),
            href=self._href(schema, table),
        )

    def validity(self, schema: str, table: str, *, most: int = 1_000_000) -> GeometryValidity:
        """Look whether geometries are valid: all of them, or about ``most`` where the table has more rows."""
        from geo_assets.stores.geoparquet_validity import validity_of  # noqa: PLC0415 - shapely

        with self._folders.translated(), self._folders.pinned(schema, table) as found:
            if found is None or not found.files:
                raise self._missing(schema, table)
            return validity_of(found.files, name=f"{schema}.{table}", most=most)

    def list_tables(self, schema: str) -> list[str]:
        """Names of the tables in a schema, sorted; none where there is no such schema."""
        with self._folders.translated():
            return self._folders.tables(schema)

    def read(self, schema: str, table: str, *, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Stream rows ordered by id, attributes as they travel in chunks, geometries as WKB.

        Tables of others come as they are.
        """
        with self._folders.translated(), self._folders.pinned(schema, table) as found:
            if found is None or not found.files:
                raise self._missing(schema, table)
            left = limit
            with closing(_rows(found)) as batches:
                for batch in batches:
                    if left is not None and left <= batch.num_rows:
                        yield batch.slice(0, left)
                        return
                    left = None if left is None else left - batch.num_rows
                    yield batch

    def drop(self, schema: str, table: str, *, versions: Sequence[str] | None = None) -> bool:
        """Remove a table if it is there in one of these versions; whether it was."""
        with self._folders.translated(), self._folders.locked([(schema, table)]):
            found = self._folders.current(schema, table)
            if found is None:
                return False
            if versions is not None and found.version not in versions:
                raise PreconditionFailedError(
                    f"{schema}.{table} of {self.description} was not removed: it is there in version {found.version},"
                    f" not {' or '.join(versions) or 'any that was asked for'}"
                )
            if versions is not None and found.record is not None and _is_touched(found):
                raise PreconditionFailedError(
                    f"{schema}.{table} of {self.description} was not removed: rows were added or removed since it was"
                    " loaded"
                )
            self._folders.remove_table(schema, table)
            self._folders.prune(schema, table)
            return True

    def touched(self, schema: str, table: str) -> bool:
        """Whether a table holds other rows than the loads in its record."""
        with self._folders.translated(), self._folders.pinned(schema, table) as found:
            return found is not None and _is_touched(found)

    def blockers(self, schema: str, table: str) -> list[str]:
        """What depends on a table: nothing does on a folder."""
        del schema, table
        return []

    # --- inside: targets and stagings

    def _href(self, schema: str, table: str) -> str:
        path = self._folders.table(schema, table)
        alone = path.with_name(f"{path.name}.parquet")
        return (path if os.path.lexists(path) or not alone.is_file() else alone).as_uri()

    def _missing(self, schema: str, table: str) -> TableNotFoundError:
        return TableNotFoundError(f"there is no table {schema}.{table} in {self.description}")

    def _lost(self, staged: StagedTable) -> StagingLostError:
        return StagingLostError(
            f"what was loaded for {staged.definition.name} is gone from {self.description}: run the job again"
        )

    def _target(self, schema: str, table: str, mode: LoadMode) -> Found | None:
        found = self._folders.current(schema, table)
        if found is None:
            return None
        name = f"{schema}.{table}"
        if mode == "create":
            raise TableExistsError(
                f"the table {name} is in {self.description} already: choose another name, or load with"
                " load_mode 'overwrite' or 'append'"
            )
        if found.record is None:
            raise TableInUseError(
                f"{name} in {self.description} was put there, or changed, by somebody else, and is not replaced or"
                " added to: move it away, or remove the table, first"
            )
        return found

    def _staging(self, staged: StagedTable) -> _Staging:
        try:
            return _Staging.read(self._folders.staging(staged.token))
        except FileNotFoundError:
            raise self._lost(staged) from None

    @contextmanager
    def _alone(self, staged: StagedTable) -> Iterator[None]:
        """Hold a staging against others who publish it, if it is there."""
        folder = self._folders.staging(staged.token)
        try:
            file = (folder / _LOCK).open("ab")
        except FileNotFoundError:
            yield
            return
        with file:
            self._folders.wait_for(file, staged.definition.name)
            with suppress(FileNotFoundError):  # published meanwhile
                os.utime(folder)  # a sweep leaves alone what was touched
            yield

    def _ready(self, staged: StagedTable, load: TableLoad, chunks: int, *, cluster: bool) -> _Ready | None:
        """Count what was loaded; ``None`` where the staging is gone.

        Raises:
            TableDataError: rows or chunks are missing or too many.
        """
        try:
            staging = self._staging(staged)
        except StagingLostError:
            return None
        parts = {}
        for path in staging.folder.iterdir():
            named = _PART.fullmatch(path.name)
            if named is not None and named[2] == staged.token[:12]:
                parts[int(named[1]) - staging.first_part] = path
        facts = {chunk: part_facts(parts[chunk]) for chunk in sorted(parts)}
        _check_complete(staged.definition.name, facts, load, chunks)
        # an earlier try looked before it clustered
        if not any(one.clustered for one in facts.values()):
            _check_ids(staged.definition.name, {parts[chunk]: one for chunk, one in facts.items()})
        if cluster and staging.layout.geometry is not None:
            _cluster(list(parts.values()), staging)
        return _Ready(staging=staging, parts=facts)

    # --- inside: putting in place, under the locks of all targets

    def _put_in_place(self, publications: Sequence[_Publication]) -> None:
        """Swap all links, or none."""
        waiting = [one for one in publications if not one.done]
        try:
            for one in waiting:
                self._check_unchanged(one)
            for one in waiting:
                self._make_version(one)
        except GeoAssetsError:
            self._take_back([one for one in publications if self._left_half_way(one)])
            raise
        swapped: list[_Publication] = []
        try:
            for one in waiting:
                swapped.append(one)
                self._folders.link(*one.target, one.staged.token)
        except BaseException:
            self._take_back(swapped)
            raise
        for one in publications:
            self._tidy(one)

    def _check_unchanged(self, one: _Publication) -> None:
        found = self._target(*one.target, one.staged.mode)
        version = None if found is None else found.version
        if version != one.staged.target_version:
            raise PreconditionFailedError(
                f"{one.name} of {self.description} was not published: the table is no longer what it was when loading"
                f" began (version {version or 'none'}, not {one.staged.target_version or 'none'}); run the job again"
            )
        if one.ready is None and VersionRecord.read(self._folders.version(*one.target, one.staged.token)) is None:
            raise self._lost(one.staged)

    def _make_version(self, one: _Publication) -> None:
        """Turn the staging into a version that nobody sees yet."""
        version = self._folders.version(*one.target, one.staged.token)
        if one.ready is None:  # done by a process that was killed after it
            return
        folder = one.ready.staging.folder
        record = self._new_record(one, one.ready)
        self._jobs.add(one.load.job_id, *one.target)
        if one.staged.mode == "append" and one.found is not None:
            for path in one.found.files:
                with suppress(FileExistsError):
                    (folder / path.name).hardlink_to(path)
        elif not one.ready.parts:
            # without any file no reader would know the columns
            empty = folder / part_name(0, one.staged.token)
            empty.unlink(missing_ok=True)
            write_part(empty, one.ready.staging.layout, ())
        put_file(folder / RECORD, record.as_bytes())
        sync_folder(folder)
        version.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(version)
        sync_folder(version.parent)

    def _new_record(self, one: _Publication, ready: _Ready) -> VersionRecord:
        rows = sum(part.rows for part in ready.parts.values())
        last = max((part.last_id for part in ready.parts.values() if part.last_id is not None), default=0)
        record = VersionRecord(
            version=one.staged.token,
            tokens=(one.staged.token,),
            loads=(one.load,),
            definition=ready.staging.layout,
            rows=rows,
            last_id=last,
            parts=max(len(ready.parts), 1),
            replaces=one.staged.target_version,
        )
        before = one.record
        if one.staged.mode != "append" or before is None:
            return record
        return replace(
            record,
            tokens=(*before.tokens, *record.tokens),
            loads=(*before.loads, *record.loads),
            rows=before.rows + rows,
            last_id=max(before.last_id, last),
            parts=before.parts + len(ready.parts),
        )

    def _left_half_way(self, one: _Publication) -> bool:
        """Whether a process was killed after this table was swapped, and before all of its publication were."""
        found = one.found
        return found is not None and found.version == one.staged.token and (found.path / _STAGED).exists()

    def _take_back(self, publications: Sequence[_Publication]) -> None:
        for one in reversed(publications):
            self._folders.link(*one.target, one.staged.target_version)

    def _tidy(self, one: _Publication) -> None:
        """Forget what only a publication needs, once all of its tables are in place."""
        folder = self._folders.version(*one.target, one.staged.token)
        if not (folder / _STAGED).exists():
            return
        before = one.staged.target_version
        if before is not None:
            with suppress(FileNotFoundError):
                os.utime(self._folders.version(*one.target, before))  # from now on it is out of sight
        self._folders.prune(*one.target, keep=[before])
        for name in (_LOCK, *(path.name for path in folder.glob(".chunk-*")), _STAGED):
            (folder / name).unlink(missing_ok=True)

    def _published(self, one: _Publication) -> PublishedTable:
        schema, table = one.target
        found = self._folders.current(schema, table)
        if found is None or found.record is None or one.staged.token not in found.record.tokens:
            raise TableDataError(
                f"{one.name} of {self.description} is not there after it was published: does something else write to"
                " the folder?"
            )
        return PublishedTable(
            schema=schema,
            table=table,
            version=found.version,
            rows=found.record.rows,
            rows_loaded=one.load.rows,
            replaced=one.staged.target_version is not None,
            href=self._href(schema, table),
        )


# --- what was loaded --------------------------------------------------------------------------------------------


def _check_complete(name: str, parts: Mapping[int, PartFacts], load: TableLoad, chunks: int) -> None:
    missing = sorted(set(range(chunks)) - set(parts))
    beyond = sorted(set(parts) - set(range(chunks)))
    if missing or beyond:
        kind, which = ("missing", missing) if missing else ("too many", beyond)
        shown = ", ".join(map(str, which[:10]))
        raise TableDataError(f"chunks of {name} are {kind}: {shown} (there must be {chunks}); nothing was published")
    rows = sum(part.rows for part in parts.values())
    if rows != load.rows:
        raise TableDataError(f"{name} has {rows} rows loaded, but its source has {load.rows}; nothing was published")


def _check_ids(name: str, parts: Mapping[Path, PartFacts]) -> None:
    if (again := repeated_id(parts)) is not None:
        raise TableDataError(f"two chunks of {name} hold a row of the id {again}; nothing was published")


def _cluster(paths: Sequence[Path], staging: _Staging) -> None:
    boxes = [box for path in paths if (box := part_box(path)) is not None]
    if not boxes:
        return
    around = (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )
    for path in paths:
        if not part_facts(path).clustered:
            made = staging.folder / f".chunk-{uuid.uuid4().hex}"
            try:
                cluster_part(path, made, staging.layout, around)
                made.replace(path)
            finally:
                made.unlink(missing_ok=True)


def _rows(found: Found) -> Generator[pa.RecordBatch]:
    if found.record is None:
        from geo_assets.stores.geoparquet_facts import read_files  # noqa: PLC0415 - as describe

        yield from read_files(found.files)
        return
    yield from read_parts(found.files, found.record.definition)


def _is_touched(found: Found) -> bool:
    """Whether somebody put files into a version, or took some away."""
    record, files = found.record, found.files
    if record is None or len(files) != record.parts:
        return True
    try:
        return sum(part_facts(path).rows for path in files) != record.rows
    except TableDataError:
        return True


def _table_record(found: Found | None) -> TableRecord | None:
    if found is None or found.record is None:
        return None
    record = found.record
    return TableRecord(
        schema=record.definition.schema,
        table=record.definition.table,
        version=found.version,
        loads=record.loads,
        columns={column.name: column.source_name for column in record.definition.columns},
    )


# --- schemas ----------------------------------------------------------------------------------------------------


def _fitted(table: TableDefinition, rows: TableDefinition) -> TableDefinition:
    """Definition of the rows with the types of the table.

    Raises:
        TableSchemaError: names every difference.
    """
    there = {column.name: column for column in table.columns}
    given = [column.name for column in rows.columns]
    columns = {column.name: fit_column(column, there[column.name]) for column in rows.columns if column.name in there}
    found = [f"the table's column {name!r} is not in the rows" for name in there if name not in given]
    found += [f"the rows' column {name!r} is not in the table" for name in given if name not in there]
    found += _geometry_differences(table.geometry, rows.geometry)
    # text may turn out to have no values; not where the rows are refused anyway
    strict = bool(found) or None in columns.values()
    for column in rows.columns:
        if column.name in there and (columns[column.name] is None or (strict and column.type is ColumnType.TEXT)):
            ours, theirs = _typed(there[column.name]), _typed(column)
            found += [f"column {column.name!r} is {ours} in the table, {theirs} in the rows"] if ours != theirs else []
    if found:
        raise TableSchemaError(f"rows cannot be added to {table.name}: {'; '.join(found)}")
    return replace(rows, columns=tuple(one for one in columns.values() if one is not None), geometry=table.geometry)


def _typed(column: Column) -> str:
    return f"{column.type.value}({column.scale})" if column.scale else column.type.value


def _geometry_differences(table: GeometryColumn | None, rows: GeometryColumn | None) -> list[str]:
    if table is None or rows is None:
        who = ("the rows have", "the table has") if table is None else ("the table has", "the rows have")
        return [] if table is rows else [f"{who[0]} a geometry, {who[1]} none"]
    if table.name == rows.name and fit_geometry(rows, table) is not None:
        return []
    found: list[tuple[str, Any, Any]] = [
        ("geometry column", table.name, rows.name),
        ("geometry type", table.type, rows.type if table.type != "Geometry" else table.type),
        ("dimensions", table.dimensions, rows.dimensions),
        ("SRID", table.srid, rows.srid),
    ]
    return [f"{what} is {ours} in the table, {theirs} in the rows" for what, ours, theirs in found if ours != theirs]
