"""The folders of the GeoParquet tables: names, versions, links, locks, and who may remove what.

What belongs here: what lies where, and how it changes in one step.  What does not: what is in the files
(``geoparquet_parts``), and what a load is (``geoparquet``).

::

    geo/roads -> .versions/roads.<version>       what readers open; swapped by a rename of the link
    geo/.versions/roads.<version>/part-00000-<version>.parquet
    geo/.versions/roads.<version>/_geo_assets.json
    .staging/<token>/                            becomes a version by a rename
    .jobs/                                       which jobs loaded which tables (``geoparquet_jobs``)
    .locks/geo/roads.lock                        one publisher a table, across processes; freed with its process

A version never changes once it is linked.  Parts carry their version in their names, so that a reader that lists a
folder and opens files through the link meanwhile swapped fails, instead of mixing two versions.  The version before the
last stays for readers in the middle of it.  Whoever reads through this package holds a shared lock on its version,
which then is not removed.
"""

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Final

from geo_assets.errors import AccessDeniedError, ParameterError, TableStoreUnavailableError
from geo_assets.vector.table import TableDefinition, TableLoad

__all__ = ["RECORD", "Folders", "Found", "VersionRecord", "part_name", "put_file", "sync_folder"]

RECORD: Final = "_geo_assets.json"
"""What we remember of a version; readers of a folder pass over names that begin so."""
_VERSIONS, _STAGING, _LOCKS, _LINK, _GONE = ".versions", ".staging", ".locks", ".link-", ".gone-"
_MOST_BYTES: Final = 63
_LOCK_SECONDS: Final = 120.0
_TRIES: Final = 20
_VERSION: Final = re.compile(r"[0-9a-f]{32}")
_UNKNOWN: Final = "unknown:"


@dataclass(frozen=True, kw_only=True)
class VersionRecord:
    """What is kept beside the parts of a version."""

    version: str
    tokens: tuple[str, ...]
    """The stagings it is made of, oldest first, one a load."""
    loads: tuple[TableLoad, ...]
    definition: TableDefinition
    rows: int
    last_id: int
    parts: int
    """How many part numbers are taken."""
    replaces: str | None
    """The version before it."""

    def as_bytes(self) -> bytes:
        """As JSON."""
        loads = [load.as_dict() for load in self.loads]
        return json.dumps({**asdict(self), "loads": loads, "definition": self.definition.as_dict()}).encode()

    @classmethod
    def read(cls, folder: Path) -> "VersionRecord | None":
        """That of a version; ``None`` where there is none, or none that can be read."""
        try:
            values: dict[str, Any] = json.loads((folder / RECORD).read_bytes())
            loads = tuple(TableLoad.from_dict(load) for load in values["loads"])
            definition = TableDefinition.from_dict(values["definition"])
            tokens = tuple(values["tokens"])
            return cls(**{**values, "tokens": tokens, "loads": loads, "definition": definition})
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            return None


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies where a table is looked for."""

    path: Path
    """The folder or file itself, no link."""
    version: str
    record: VersionRecord | None
    """``None``: somebody else put it there, or changed it."""

    @property
    def files(self) -> list[Path]:
        """Its Parquet files, by name."""
        if self.path.is_file():
            return [self.path]
        return sorted(path for path in self.path.glob("*.parquet") if not path.name.startswith((".", "_")))


class Folders:
    """All below ``root``.

    Args:
        root: of the tables; made with the first one.
        description: of the store, for messages.
    """

    def __init__(self, root: Path, description: str) -> None:
        self.root, self._description = root, description

    # --- where

    def table(self, schema: str, table: str) -> Path:
        """What readers open.

        Raises:
            ParameterError: a name that cannot be one.
        """
        return self.schema(schema) / _checked("table", table)

    def schema(self, schema: str) -> Path:
        """The folder of a schema.

        Raises:
            ParameterError: a name that cannot be one.
        """
        return self.root / _checked("schema", schema)

    def version(self, schema: str, table: str, version: str) -> Path:
        """The folder of a version, which need not be there."""
        return self.table(schema, table).parent / _VERSIONS / f"{table}.{version}"

    def staging(self, token: str) -> Path:
        """The folder of a staging, which need not be there.

        Raises:
            ParameterError: no token of this store.
        """
        if not _VERSION.fullmatch(token):
            raise ParameterError(f"{token!r} is no staging of {self._description}")
        return self.root / _STAGING / token

    def current(self, schema: str, table: str) -> Found | None:
        """What is there now."""
        path = self.table(schema, table)
        try:
            target = str(path.readlink())
        except OSError:
            target = ""
        folder, _, version = target.rpartition(".")
        if folder == f"{_VERSIONS}/{table}" and _VERSION.fullmatch(version):
            real = path.parent / target
            record = VersionRecord.read(real)
            if record is not None and record.version == version:
                return Found(path=real, version=version, record=record)
        for candidate in (path, path.with_name(f"{table}.parquet")):
            if os.path.lexists(candidate):
                status = candidate.lstat()
                unknown = f"{_UNKNOWN}{status.st_ino:x}-{status.st_mtime_ns:x}"
                return Found(path=candidate.resolve(), version=unknown, record=None)
        return None

    def tables(self, schema: str) -> list[str]:
        """Names of all that are there, sorted."""
        try:
            with os.scandir(self.schema(schema)) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        ending = ".parquet"
        return sorted(
            {name if folder else name.removesuffix(ending) for name, folder in found if folder or name.endswith(ending)}
        )

    def schemas(self) -> list[str]:
        """Names of all schemas, sorted."""
        with suppress(FileNotFoundError), os.scandir(self.root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        return []

    # --- one step

    def link(self, schema: str, table: str, version: str | None) -> None:
        """Make this version what readers find; ``None``: nothing."""
        path = self.table(schema, table)
        if version is None:
            path.unlink(missing_ok=True)
        else:
            made = path.with_name(f"{_LINK}{uuid.uuid4().hex}")
            made.symlink_to(f"{_VERSIONS}/{table}.{version}")
            try:
                made.replace(path)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        sync_folder(path.parent)

    def remove(self, folder: Path) -> bool:
        """Remove a version or staging, in one step for whoever looks, unless somebody reads it; whether it went."""
        try:
            handle = os.open(folder, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return False
        aside = folder.with_name(f"{_GONE}{uuid.uuid4().hex}")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder.rename(aside)
        except (BlockingIOError, FileNotFoundError):
            return False
        finally:
            os.close(handle)
        shutil.rmtree(aside, ignore_errors=True)
        return True

    def remove_table(self, schema: str, table: str) -> None:
        """Take away what readers find, whoever put it there; the caller holds the table's lock."""
        path = self.table(schema, table)
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.exists():
            self.remove(path)
        else:
            path.with_name(f"{table}.parquet").unlink()
        sync_folder(path.parent)

    def old_stagings(self, older_than: float) -> list[Path]:
        """Stagings that nobody has touched for so many seconds, and nobody publishes."""
        before = time.time() - older_than
        return [
            folder
            for folder in (self.root / _STAGING).glob("*")
            if _VERSION.fullmatch(folder.name) and _touched(folder) <= before
        ]

    def prune(
        self, schema: str, table: str, *, keep: Iterable[str | None] = (), among: Iterable[str] | None = None
    ) -> None:
        """Remove versions that are not linked; the caller holds the table's lock.

        Args:
            schema: of the table.
            table: its name.
            keep: versions that stay.
            among: only these; default: all that are there.
        """
        versions = self._versions(schema).get(table, []) if among is None else among
        kept = {self._linked(schema, table), *keep}
        for version in versions:
            if version not in kept:
                self.remove(self.version(schema, table, version))

    def out_of_sight(self, schema: str, older_than: float) -> dict[str, list[str]]:
        """Table → its versions that have not been linked for so many seconds, as far as can be told without a lock."""
        before = time.time() - older_than
        found: dict[str, list[str]] = {}
        for table, versions in self._versions(schema).items():
            linked = self._linked(schema, table)
            for version in versions:
                with suppress(FileNotFoundError):
                    if version != linked and self.version(schema, table, version).stat().st_mtime <= before:
                        found.setdefault(table, []).append(version)
        return found

    def _versions(self, schema: str) -> dict[str, list[str]]:
        """Table → its versions, linked or not."""
        found: dict[str, list[str]] = {}
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.schema(schema) / _VERSIONS) as entries:
            for entry in entries:
                table, _, version = entry.name.rpartition(".")
                if table and _VERSION.fullmatch(version):
                    found.setdefault(table, []).append(version)
        return found

    def _linked(self, schema: str, table: str) -> str | None:
        try:
            return self.table(schema, table).readlink().name.removeprefix(f"{table}.")
        except OSError:
            return None

    def unpublished(self, token: str) -> Iterator[tuple[str, str]]:
        """Schema and table of versions named after a staging that are not what readers find."""
        for schema in self.schemas():
            for folder in (self.root / schema / _VERSIONS).glob(f"*.{token}"):
                table = folder.name.removesuffix(f".{token}")
                found = self.current(schema, table)
                if found is None or found.path != folder:
                    yield schema, table

    def sweep_leftovers(self, older_than: float) -> None:
        """Remove what killed processes left in the middle of a step."""
        for pattern in (".making-*", ".jobs/.*", f"{_STAGING}/.*", f"*/{_VERSIONS}/{_GONE}*", f"*/{_LINK}*"):
            for path in self.root.glob(pattern):
                with suppress(FileNotFoundError):
                    if time.time() - path.lstat().st_mtime < older_than:
                        continue
                    if path.is_symlink():
                        path.unlink()
                    else:
                        shutil.rmtree(path, ignore_errors=True)

    # --- locks

    @contextmanager
    def locked(self, targets: Iterable[tuple[str, str]]) -> Iterator[None]:
        """Hold tables against other publishers.

        Raises:
            TableStoreUnavailableError: somebody holds one for too long.
        """
        with ExitStack() as held:
            # always in the same order, so that no two wait for each other
            for schema, table in sorted(set(targets)):
                self.table(schema, table)  # refuses names that cannot be one
                folder = self.root / _LOCKS / schema
                folder.mkdir(parents=True, exist_ok=True)
                # the lock files stay: removing one would let two publishers hold two files of one name
                file = held.enter_context((folder / f"{table}.lock").open("ab"))
                self.wait_for(file, f"{schema}.{table}")
            yield

    def wait_for(self, file: IO[bytes], name: str) -> None:
        """Lock a file, or give up.

        Raises:
            TableStoreUnavailableError: somebody holds it for too long.
        """
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TableStoreUnavailableError(
                        f"another process has been publishing {name} of {self._description} for"
                        f" {_LOCK_SECONDS:.0f} s: try again when it has ended"
                    ) from None
                time.sleep(0.01)
            else:
                return

    @contextmanager
    def pinned(self, schema: str, table: str) -> Iterator[Found | None]:
        """What is there now, kept from being removed by us for as long as it is looked at."""
        for _ in range(_TRIES):
            found = self.current(schema, table)
            if found is None or found.record is None:
                yield found
                return
            try:
                handle = os.open(found.path, os.O_RDONLY)
            except FileNotFoundError:  # swapped and removed since
                continue
            try:
                fcntl.flock(handle, fcntl.LOCK_SH)
                if not found.path.exists():
                    continue
                yield found
            finally:
                os.close(handle)
            return
        raise TableStoreUnavailableError(f"{schema}.{table} of {self._description} is being replaced all the time")

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the file system says into what stores say.

        Raises:
            AccessDeniedError: no permission.
            TableStoreUnavailableError: anything else.
        """
        try:
            yield
        except PermissionError as error:
            raise AccessDeniedError(
                f"no permission for {error.filename} of {self._description}: see to owner and mode of the folder"
            ) from error
        except OSError as error:
            raise TableStoreUnavailableError(
                f"{self._description} cannot be used ({error.strerror or error}): see to its disk, then try again"
            ) from error


def part_name(number: int, version: str) -> str:
    """Name of a part, whose order is that of the numbers."""
    return f"part-{number:05d}-{version[:12]}.parquet"


def put_file(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    made = path.with_name(f".making-{uuid.uuid4().hex}")
    with made.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _touched(folder: Path) -> float:
    """When anything in a folder changed last; now, where it is gone meanwhile."""
    try:
        with os.scandir(folder) as entries:
            return max(folder.stat().st_mtime, *(entry.stat().st_mtime for entry in entries), 0.0)
    except FileNotFoundError:
        return time.time()


def _checked(kind: str, name: str) -> str:
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = 0
    if not 0 < length <= _MOST_BYTES or name.startswith(".") or any(c in "/\\" or ord(c) < ord(" ") for c in name):
        raise ParameterError(
            f"{name[:80]!r} cannot be the name of a {kind}: at most {_MOST_BYTES} bytes, no slashes, no leading dot"
        )
    return name
