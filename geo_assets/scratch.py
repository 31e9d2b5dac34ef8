"""Private folders for temporary files, which go when they are no longer needed, or when their owner has died.

What belongs here: :class:`ScratchFolder` and :func:`sweep`.  What does not: what lies in them.

An owner holds a lock in its folder for as long as it lives; the system frees it with the process, however that ends.
So what a killed run left is known for what it is, and the next owner below the same root takes it away.
"""

import fcntl
import shutil
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self

__all__ = ["ScratchFolder", "sweep"]

_PREFIX, _MAKING = "scratch-", ".making-"
_LOCK = ".owner"
_YOUNG_SECONDS = 600.0
"""A folder without a lock may be one that is being made."""

_swept: set[Path] = set()


class ScratchFolder:
    """A folder below ``root`` that is made when it is first asked for and removed by :meth:`close`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._guard = threading.Lock()
        self._path: Path | None = None
        self._lock: IO[bytes] | None = None

    @property
    def path(self) -> Path:
        """The folder, absolute."""
        with self._guard:
            if self._path is None:
                self._root.mkdir(parents=True, exist_ok=True)
                if self._root not in _swept:
                    _swept.add(self._root)
                    sweep(self._root)
                # under another name until it is locked, so that nobody takes it for one without an owner
                made = Path(tempfile.mkdtemp(prefix=_MAKING, dir=self._root)).resolve()
                self._lock = (made / _LOCK).open("wb")
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                self._path = made.rename(made.with_name(made.name.replace(_MAKING, _PREFIX)))
            return self._path

    def close(self) -> None:
        """Remove the folder and all that is in it; asked for again, it is a new one."""
        with self._guard:
            path, self._path, lock, self._lock = self._path, None, self._lock, None
        if path is not None:
            shutil.rmtree(path, ignore_errors=True)
        if lock is not None:
            lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep(root: Path, *, dry_run: bool = False) -> int:
    """Remove (``dry_run``: count) the folders below ``root`` whose owners have died; returns how many that were."""
    removed = 0
    for folder in (*root.glob(f"{_PREFIX}*"), *root.glob(f"{_MAKING}*")):
        if folder.name.startswith(_MAKING) and not _is_old(folder):
            continue
        try:
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError:
            if not _is_old(folder):
                continue
        if not dry_run:
            shutil.rmtree(folder, ignore_errors=True)
        removed += 1
    return removed


def _is_old(folder: Path) -> bool:
    try:
        return time.time() - folder.stat().st_mtime > _YOUNG_SECONDS
    except OSError:  # gone meanwhile
        return False
