"""The file that SQLite has for each run: a corner that leans on names Dagster does not promise.

What belongs here: counting, trimming and removing what lies in these files, and the files.  What does not: which runs
go (``retention``), and the common index of events, which lies in a file of its own.

Where Dagster keeps its events elsewhere, or an upgrade changed the names, there are no such files.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg

from geo_assets.coremachine.events import NO_RUN

try:
    from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage

    FILES_AVAILABLE = True
except ImportError:  # pragma: no cover - a future Dagster
    FILES_AVAILABLE = False

__all__ = ["FILES_AVAILABLE", "TRIMMED", "RunFiles", "file_size", "naive", "run_files", "unlink"]

_BUSY_SECONDS = 30.0

TRIMMED = (
    "ENGINE_EVENT",
    "HANDLED_OUTPUT",
    "LOADED_INPUT",
    "LOGS_CAPTURED",
    "OBJECT_STORE_OPERATION",
    "RESOURCE_INIT_STARTED",
    "RESOURCE_INIT_SUCCESS",
    "STEP_INPUT",
    "STEP_OUTPUT",
    "STEP_RESTARTED",
    "STEP_SKIPPED",
    "STEP_START",
    "STEP_SUCCESS",
    "STEP_WORKER_STARTED",
    "STEP_WORKER_STARTING",
)
"""Types of event that an old run is kept without, beside its log messages: neither asset events, nor what tells how the
run and its steps failed, nor the changes of its status, which sensors read."""

_CONDITION = (
    f"asset_key IS NULL AND (dagster_event_type IS NULL OR dagster_event_type IN ({', '.join('?' * len(TRIMMED))}))"
)
_COUNT_TRIMMED = f"SELECT count(*), coalesce(sum(length(event)), 0) FROM event_logs WHERE {_CONDITION}"  # noqa: S608
_COUNT_OLD = "SELECT count(*) FROM event_logs WHERE timestamp < ?"
_REMOVE_OLD = "DELETE FROM event_logs WHERE id IN (SELECT id FROM event_logs WHERE timestamp < ? ORDER BY id LIMIT ?)"
_TRIM = f"DELETE FROM event_logs WHERE {_CONDITION}"  # noqa: S608 - text of this module


def run_files(instance: dg.DagsterInstance) -> "RunFiles | None":
    """The files of an instance, where it keeps one a run."""
    storage: Any = instance.event_log_storage
    known = FILES_AVAILABLE and type(storage) is SqliteEventLogStorage
    return RunFiles(storage) if known else None


class RunFiles:
    """One file a run."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def _path(self, run_id: str) -> Path:
        return Path(self._storage.path_for_shard(run_id))

    def _in(
        self, run_id: str, statement: str, values: Sequence[Any], *, vacuum: bool = False
    ) -> tuple[Any, ...] | None:
        """Do something in a run's file, where there is one with tables: a row of what was asked for."""
        address = f"file:{quote(str(self._path(run_id)))}?mode=rw"  # never made, if it is gone
        # damaged, or in use: it stays as it is
        with (
            suppress(sqlite3.DatabaseError),
            closing(sqlite3.connect(address, timeout=_BUSY_SECONDS, uri=True)) as connection,
        ):
            with connection:
                done = connection.execute(statement, values)
                row: tuple[Any, ...] | None = done.fetchone() if done.description else (done.rowcount,)
            if vacuum:
                connection.execute("VACUUM")
            return row
        return None

    def size(self, run_ids: Iterable[str]) -> int:
        """Bytes of the files of these runs."""
        return sum(file_size(self._path(run_id)) for run_id in run_ids)

    def count_trimmable(self, run_id: str) -> tuple[int, int]:
        """Number and bytes of the events that a run is kept without."""
        number, size = self._in(run_id, _COUNT_TRIMMED, TRIMMED) or (0, 0)
        return int(number), int(size)

    def trim(self, run_id: str) -> None:
        """Remove these."""
        self._in(run_id, _TRIM, TRIMMED, vacuum=True)

    def remove(self, run_id: str) -> None:
        """Remove a run's file."""
        unlink(self._path(run_id))
        self._storage._initialized_dbs.discard(run_id)  # noqa: SLF001 - or it would look for its tables there

    def count_runless(self, before: datetime) -> int:
        """Old copies of events that no run wrote; they lie in a file of that name, too, which nothing shows."""
        (number,) = self._in(NO_RUN, _COUNT_OLD, [str(naive(before))]) or (0,)
        return int(number)

    def remove_runless(self, before: datetime, *, at_most: int) -> int:
        """Remove some of these, the oldest first; how many."""
        (number,) = self._in(NO_RUN, _REMOVE_OLD, [str(naive(before)), at_most]) or (0,)
        return int(number)

    def orphans(self, before: datetime, there: Collection[str]) -> list[Path]:
        """Files of runs that are not there, as Dagster's own ways of deletion left them."""
        found = [
            path
            for path in self._path("x").parent.glob("*.db")
            if path.stem not in there and path.stem != INDEX_SHARD_NAME and _changed(path) < before.timestamp()
        ]
        return sorted(found)


def unlink(path: Path) -> None:
    """Remove a file of SQLite with its journals."""
    # the journals last: a file without its journal is whole, a journal without its file is nothing
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)


def file_size(path: Path) -> int:
    """Bytes; none where it is gone."""
    with suppress(OSError):
        return path.stat().st_size
    return 0


def naive(moment: datetime) -> datetime:
    """As the event log has it: UTC, without saying so."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # gone meanwhile
        return float("inf")
