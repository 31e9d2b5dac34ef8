"""Which jobs loaded rows into which GeoParquet tables: an index, so that nobody reads the records of all of them.

What belongs here: the files of the index.  What does not: what a table holds, which its record tells.

``<root>/.jobs`` has a small file for each job and table, named after both.  It is written before the rows are seen and
never removed: it says where to look, not what is there.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from geo_assets.stores.geoparquet_folders import Folders, put_file, sync_folder

__all__ = ["JobIndex"]

_INDEX: Final = ".jobs"
_DIGITS: Final = 32


class JobIndex:
    """The index of the tables below ``root``, made of their records where it is missing."""

    def __init__(self, root: Path, folders: Folders) -> None:
        self._root, self._folders = root, folders

    def add(self, job_id: str, schema: str, table: str) -> None:
        """Note, before it is so, that a table holds rows of a job."""
        self._ensure()
        folder = self._root / _INDEX
        if not (folder / _name(job_id, schema, table)).exists():
            _note(folder, job_id, schema, table)
            sync_folder(folder)

    def tables(self, job_id: str) -> list[tuple[str, str]]:
        """Schema and name of all tables that may hold rows of a job, sorted."""
        if not self._root.is_dir():
            return []
        self._ensure()
        noted = (self._root / _INDEX).glob(f"{_digest(job_id)}-*")
        return sorted((schema, table) for schema, table in (json.loads(path.read_bytes()) for path in noted))

    def _ensure(self) -> None:
        """Make the index where there is none: whoever publishes does so first, so that it misses nobody."""
        index = self._root / _INDEX
        if index.is_dir():
            return
        made = self._root / f".making-{uuid.uuid4().hex}"
        made.mkdir(parents=True)
        try:
            for job_id, schema, table in set(self._recorded()):
                _note(made, job_id, schema, table)
            sync_folder(made)
            with suppress(OSError):  # another process was first
                made.rename(index)
            sync_folder(self._root)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _recorded(self) -> Iterable[tuple[str, str, str]]:
        for schema in self._folders.schemas():
            for table in self._folders.tables(schema):
                found = self._folders.current(schema, table)
                if found is not None and found.record is not None:
                    yield from ((load.job_id, schema, table) for load in found.record.loads)


def _note(folder: Path, job_id: str, schema: str, table: str) -> None:
    put_file(folder / _name(job_id, schema, table), json.dumps([schema, table]).encode())


def _name(job_id: str, schema: str, table: str) -> str:
    return f"{_digest(job_id)}-{_digest(f'{schema}/{table}')}"


def _digest(text: str) -> str:
    """Whatever a job is called, a name of letters and digits."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:_DIGITS]
