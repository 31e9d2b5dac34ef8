"""Work in a process of its own that is killed at a chosen step.

What belongs here: the process, and what it may be asked to do; light to import, as each one forks from a server that
has done that already.  What does not: the tests.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geo_assets.stores.geoparquet import GeoParquetTables
from geo_assets.stores.tables import StagedTable
from tests.stores.table_rows import definition, points, table_load

__all__ = ["LoadChunk", "Publish", "killed_at"]

_STEPS = frozenset({"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.utime"})
_KILLED = 9
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__, "geo_assets.vector.wkb"])


def killed_at(step: int, root: Path, work: Callable[[GeoParquetTables], Any]) -> bool:
    """Do some work in a process that is killed before its ``step``-th change of a folder; whether it was."""
    process = _SERVER.Process(target=_work, args=(step, root, work))
    process.start()
    process.join(60)
    assert process.exitcode in (0, _KILLED)
    return process.exitcode == _KILLED


def _work(step: int, root: Path, work: Callable[[GeoParquetTables], Any]) -> None:
    left = step

    def count(event: str, _: object) -> None:
        nonlocal left
        if event in _STEPS:
            left -= 1
            if left == 0:
                os._exit(_KILLED)

    sys.addaudithook(count)
    work(GeoParquetTables(root))


class Publish:
    """Publishes stagings of two chunks each."""

    def __init__(self, *staged: StagedTable, rows: int, cluster: bool = False) -> None:
        self.staged, self.rows, self.cluster = staged, rows, cluster

    def __call__(self, store: GeoParquetTables) -> None:
        """Do it."""
        count = len(self.staged)
        store.publish(self.staged, [table_load(self.rows)] * count, chunks=[2] * count, cluster=self.cluster)


class LoadChunk:
    """Loads a chunk of four rows."""

    def __init__(self, staged: StagedTable) -> None:
        self.staged = staged

    def __call__(self, store: GeoParquetTables) -> None:
        """Do it."""
        store.load_chunk(self.staged, 0, [points(definition(), 4, name="new")])
