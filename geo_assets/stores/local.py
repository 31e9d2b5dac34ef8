"""Blob store in a local folder: each sub-folder is a container, each regular file below it a blob.

What belongs here: :class:`LocalBlobStore`.  What does not: rules for names that all stores share (``blobs``).

obstore reads; listing and writing are done here, for reasons tried out with obstore 0.12:

- its local listing fails as a whole for one name it cannot parse, follows symbolic links out of the folder, and
  leaves out names ending in ``#`` and digits; :func:`os.scandir` sees everything;
- opening a named pipe with it never returns: only regular files are opened;
- it has no conditional overwrite, and its unfinished uploads lie beside the blobs as ``name#1``; here they lie in
  the hidden folder ``.geo_assets_uploads`` of the container, and a rename makes them visible whole.
"""

import fcntl
import hashlib
import mimetypes
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import pyarrow as pa
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from geo_assets.errors import (
    AccessDeniedError,
    BlobNotFoundError,
    ContainerNotFoundError,
    GeoAssetsError,
    PreconditionFailedError,
    StoreUnavailableError,
    UnsupportedNameError,
)
from geo_assets.stores.blobs import (
    UNREADABLE_FOLDER,
    BlobProperties,
    Detail,
    PutMode,
    check_blob_name,
    check_container_name,
    check_sha256,
    name_problem,
    printable,
    unsupported,
)
from geo_assets.stores.obstore_values import FullRow, Row, batch_of_full_rows, batch_of_rows, put_mode

__all__ = ["LocalBlobStore"]

_UPLOADS = ".geo_assets_uploads"
_OLD_SECONDS = 3600.0
"""Since its last byte an upload has been renamed long ago, or its process has died."""
_BATCH = 5000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RESERVED = re.compile(r"#\d+$")
_RESERVED_REASON = "ends in '#' and digits, which local stores keep for unfinished uploads"


class LocalBlobStore:
    """Containers as the sub-folders of ``root``; the root is made when the first container is."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().resolve()

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"the blob folder {self.root}"

    # --- containers

    def list_containers(self) -> list[str]:
        """Names of all containers, sorted; hidden folders and those that cannot be containers are left out."""
        try:
            with os.scandir(self.root) as entries:
                names = [entry.name for entry in entries]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._translated(error, "") from error
        return sorted(name for name in names if self._is_container(name))

    def container_exists(self, container: str) -> bool:
        """Whether the container is there."""
        return self._container_path(container) is not None

    def create_container(self, container: str) -> None:
        """Make the container; nothing happens where it exists."""
        try:
            (self.root / check_container_name(container)).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._translated(error, container) from error

    def _is_container(self, name: str) -> bool:
        try:
            return self._container_path(name) is not None
        except UnsupportedNameError:
            return False

    def _container_path(self, container: str) -> Path | None:
        """The container's real folder; ``None`` where there is none, or where it is a link out of the root."""
        path = (self.root / check_container_name(container)).resolve()
        return path if path.is_dir() and path != self.root and path.is_relative_to(self.root) else None

    def _require_container(self, container: str) -> Path:
        path = self._container_path(container)
        if path is None:
            raise ContainerNotFoundError(
                f"container '{container}' does not exist in {self.description}; check the name, or make the folder"
                f" {self.root / container} (GEO_ASSETS_BLOB_ROOT says where containers are)"
            )
        return path

    # --- listing

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the blobs whose name starts with ``prefix``, in the order of their names' bytes.

        A file has no content type, hash, metadata or tags: the full detail adds the type that its name suggests.

        Links that stay within the container are blobs like others if they lead to a regular file. Rows with a
        problem: links to anywhere else, folders that cannot be read, pipes, sockets and devices.
        """
        folder = self._require_container(container)
        rows: list[Row] = []
        for row in self._walk(container, folder, os.fsencode(prefix)):
            rows.append(row)
            if len(rows) == _BATCH:
                yield _batch(rows, detail)
                rows = []
        if rows:
            yield _batch(rows, detail)

    def _walk(self, container: str, folder: Path, prefix: bytes) -> Iterator[Row]:
        base = os.fsencode(folder)
        # names relative to the container, folders with a slash at the end; the next one is the last
        pending = [b""]
        while pending:
            name = pending.pop()
            if not name.startswith(prefix[: len(name)]):
                continue
            row: Row | None = None
            if name and not name.endswith(b"/"):
                row = _row(folder, base, name) if name.startswith(prefix) else None
            else:
                try:
                    pending.extend(_children(base, name))
                except OSError as error:
                    if not name:
                        raise self._translated(error, container) from error
                    row = _unreadable(name, error)
            if row is not None:
                yield row

    # --- reading

    def head(self, container: str, name: str) -> BlobProperties:
        """Properties of one blob. A local file has no content type and no metadata."""
        _, status = self._locate(container, name)
        return BlobProperties(
            name=name, size=status.st_size, last_modified=_last_modified(status), etag=_etag(status), metadata={}
        )

    def read_range(self, container: str, name: str, start: int, length: int) -> bytes:
        """Bytes of one blob; fewer at its end, none beyond it."""
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        folder, status = self._locate(container, name)
        if length == 0 or start >= status.st_size:
            return b""
        with self._reading(container, name):
            return bytes(LocalStore(folder).get_range(name, start=start, length=length))

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        """The first bytes of one blob, with the properties of the file that was opened."""
        folder, _ = self._locate(container, name)
        with self._reading(container, name):
            # a pipe put in the file's place meanwhile must not hold us up
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._missing(container, name)
                data = os.read(descriptor, length)
            finally:
                os.close(descriptor)
        return data, BlobProperties(
            name=name, size=status.st_size, last_modified=_last_modified(status), etag=_etag(status), metadata={}
        )

    def read(self, container: str, name: str) -> bytes:
        """The whole blob."""
        folder, _ = self._locate(container, name)
        with self._reading(container, name):
            return bytes(LocalStore(folder).get(name).bytes())

    def open_stream(self, container: str, name: str, *, chunk_size: int = 8 << 20) -> Iterator[bytes]:
        """The blob in chunks; a file replaced meanwhile is still read to the end as it was."""
        folder, _ = self._locate(container, name)
        with self._reading(container, name):
            for chunk in LocalStore(folder).get(name).stream(min_chunk_size=chunk_size):
                yield bytes(chunk)

    def _locate(self, container: str, name: str) -> tuple[Path, os.stat_result]:
        """The container's folder and the status of the regular file, links within the container followed."""
        folder = self._require_container(container)
        problem = _local_problem(name)
        if problem is not None:
            raise UnsupportedNameError(f"{problem}; rename the blob")
        path = folder / name
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(container, name) from None
        except OSError as error:
            raise self._translated(error, container, name) from error
        if stat.S_ISDIR(status.st_mode):
            raise self._missing(container, name)
        if not stat.S_ISREG(status.st_mode):
            raise UnsupportedNameError(unsupported(name, "is not a regular file"))
        # two look-ups, so a link swapped between them wins the race: fine against accidents, and whoever can plant
        # links in the blob folder has the operating system's permissions anyway
        if not path.resolve().is_relative_to(folder):
            raise UnsupportedNameError(unsupported(name, "is or lies behind a link that leaves the container"))
        return folder, status

    @contextmanager
    def _reading(self, container: str, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise self._missing(container, name) from None
        except PermissionError as error:
            raise self._translated(error, container, name) from error
        except (OSError, BaseError) as error:
            text = str(error).partition("\n")[0]
            if "ermission denied" in text:
                raise AccessDeniedError(
                    f"no permission to read '{container}/{printable(name)}' in {self.description}"
                ) from None
            raise StoreUnavailableError(
                f"'{container}/{printable(name)}' in {self.description} cannot be read: {text}"
            ) from None

    # --- writing

    def put(
        self,
        container: str,
        name: str,
        data: bytes,
        *,
        mode: PutMode = "overwrite",
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write a blob whole and return its new ETag; content type and metadata have no place in a local file."""
        return self.put_stream(
            container, name, (data,), mode=mode, if_match=if_match, content_type=content_type, metadata=metadata
        )

    def put_stream(
        self,
        container: str,
        name: str,
        chunks: Iterable[bytes],
        *,
        mode: PutMode = "overwrite",
        if_match: str | None = None,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        sha256: str | None = None,
    ) -> str:
        """Write a blob from chunks: a file beside the blobs, synced, read back if ``sha256`` is given, then renamed."""
        del content_type, metadata
        put_mode(mode, if_match)
        folder = self._require_container(container)
        target = self._target(folder, name)
        staged: Path | None = None
        try:
            # a blob that must not exist is looked for before the data is read, and again under the lock
            self._check_precondition(container, name, target, mode=mode, if_match=if_match)
            with _stage(folder) as file:
                staged = Path(file.name)
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            if sha256 is not None:
                check_sha256(f"blob '{container}/{name}' in {self.description}", expected=sha256, found=_digest(staged))
            staged.chmod(0o666 & ~_UMASK)
            with _lock(folder):
                self._check_precondition(container, name, target, mode=mode, if_match=if_match)
                target.parent.mkdir(parents=True, exist_ok=True)
                etag = _etag(staged.stat())
                staged.replace(target)
                staged = None
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            reason = (
                "cannot be written: a part of it is both a blob and a folder of blobs, which a local folder cannot hold"
            )
            raise UnsupportedNameError(unsupported(name, reason)) from None
        except OSError as error:
            raise self._translated(error, container, name) from error
        finally:
            if staged is not None:
                staged.unlink(missing_ok=True)
        return etag

    def _target(self, folder: Path, name: str) -> Path:
        problem = _local_problem(name)
        if problem is not None:
            raise UnsupportedNameError(f"{problem}; choose another name")
        target = folder / name
        if not target.resolve().is_relative_to(folder):
            raise UnsupportedNameError(unsupported(name, "is or lies behind a link that leaves the container"))
        return target

    def _check_precondition(
        self, container: str, name: str, target: Path, *, mode: PutMode, if_match: str | None
    ) -> None:
        if mode == "create" and os.path.lexists(target):
            raise PreconditionFailedError(
                f"blob '{container}/{name}' in {self.description} was not written: it exists already"
            )
        if if_match is not None:
            try:
                found = _etag(target.stat())
            except (FileNotFoundError, NotADirectoryError):
                found = None
            if found != if_match:
                raise PreconditionFailedError(
                    f"blob '{container}/{name}' in {self.description} was not written:"
                    f" it is no longer the version {if_match}"
                )

    def delete(self, container: str, name: str) -> None:
        """Remove a blob, and the folders it leaves empty."""
        folder = self._require_container(container)
        target = self._target(folder, name)
        try:
            target.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise self._missing(container, name) from None
        except OSError as error:
            raise self._translated(error, container, name) from error
        for parent in target.parents:
            if parent == folder:
                break
            try:
                parent.rmdir()
            except OSError:  # not empty, or somebody was faster
                break

    def uri(self, container: str, name: str) -> str:
        """``file:///blob-root/container/name``, percent-encoded."""
        return (self.root / check_container_name(container) / check_blob_name(name)).as_uri()

    # --- errors

    def _missing(self, container: str, name: str) -> BlobNotFoundError:
        return BlobNotFoundError(
            f"blob '{container}/{printable(name)}' does not exist in {self.description}", container=container
        )

    def _translated(self, error: OSError, container: str, name: str = "") -> GeoAssetsError:
        shown = "/".join(part for part in (container, printable(name)) if part)
        what = f"'{shown}' in {self.description}" if shown else self.description
        if isinstance(error, PermissionError):
            return AccessDeniedError(f"no permission for {what}; check the owner and mode of the folder")
        if error.errno in (36, 40):  # ENAMETOOLONG, ELOOP
            return UnsupportedNameError(unsupported(name, f"cannot be held by the file system ({error.strerror})"))
        return StoreUnavailableError(f"{what} cannot be used: {error.strerror or error}")


# --- files ---------------------------------------------------------------------------------------------------


def _read_umask() -> int:
    # the only way to read it is to set it; done once, at import, when no thread writes files
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_UMASK = _read_umask()


def _stage(folder: Path) -> "IO[bytes]":
    uploads = folder / _UPLOADS
    uploads.mkdir(exist_ok=True)
    _sweep(uploads)
    file = tempfile.NamedTemporaryFile(dir=uploads, prefix="upload-", delete=False)  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _sweep(uploads: Path) -> None:
    """Remove what processes that were killed left: old, and locked by nobody any more."""
    for left in uploads.glob("upload-*"):
        try:
            if time.time() - left.stat().st_mtime < _OLD_SECONDS:
                continue
            with left.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left.unlink()
        except OSError:  # at work, or gone meanwhile
            continue


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One writer of the container at a time, over threads and processes, from the check to the rename."""
    with (folder / _UPLOADS / "lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _local_problem(name: str) -> str | None:
    """Why this store does not open a blob of this name."""
    if name.partition("/")[0] == _UPLOADS:
        return unsupported(name, "lies in the folder of unfinished uploads")
    if _RESERVED.search(name):
        return unsupported(name, _RESERVED_REASON)
    return name_problem(name)


def _children(base: bytes, name: bytes) -> list[bytes]:
    """Names below a folder, last first; folders with a slash at the end, so that the order is that of whole names."""
    with os.scandir(os.path.join(base, name)) as entries:  # noqa: PTH118 - bytes, for names that are not UTF-8
        children = [
            name + entry.name + (b"/" if entry.is_dir(follow_symlinks=False) else b"")
            for entry in entries
            if name or entry.name != os.fsencode(_UPLOADS)
        ]
    children.sort(reverse=True)
    return children


def _row(folder: Path, base: bytes, name: bytes) -> Row | None:
    """The listing's row of one name; ``None`` where it vanished meanwhile."""
    path = os.path.join(base, name)  # noqa: PTH118 - bytes
    text = os.fsdecode(name)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    problem = _local_problem(text)
    if stat.S_ISLNK(status.st_mode):
        followed = _followed(folder, path)
        if followed is None:
            problem = problem or unsupported(text, "is a link that leads to no file in the container")
        else:
            status = followed
    elif not stat.S_ISREG(status.st_mode):
        problem = problem or unsupported(text, "is not a regular file")
    if problem is not None:
        text = printable(text)
    return text, status.st_size, _last_modified(status), _etag(status), problem


def _batch(rows: list[Row], detail: Detail) -> pa.RecordBatch:
    if detail == "basic":
        return batch_of_rows(rows)
    full: list[FullRow] = [(*row, mimetypes.guess_type(row[0], strict=False)[0], None, None, None) for row in rows]
    return batch_of_full_rows(full)


def _unreadable(name: bytes, error: OSError) -> Row | None:
    """The row of a folder that cannot be listed; ``None`` where it vanished meanwhile."""
    if isinstance(error, FileNotFoundError):
        return None
    shown = printable(os.fsdecode(name))
    return shown, 0, _EPOCH, None, f"{UNREADABLE_FOLDER}'{shown}' ({error.strerror}); its blobs are not listed"


def _followed(folder: Path, path: bytes) -> os.stat_result | None:
    """Status of the regular file a link leads to, if that lies in the container."""
    try:
        real = Path(os.fsdecode(path)).resolve(strict=True)
        status = real.stat()
    except (OSError, RuntimeError):  # dangling, or a loop of links
        return None
    return status if stat.S_ISREG(status.st_mode) and real.is_relative_to(folder) else None


def _etag(status: os.stat_result) -> str:
    # the same as obstore's, so that either may have read it
    return f'"{status.st_ino:x}-{status.st_mtime_ns // 1000:x}-{status.st_size:x}"'


def _last_modified(status: os.stat_result) -> datetime:
    return _EPOCH + timedelta(microseconds=status.st_mtime_ns // 1000)
