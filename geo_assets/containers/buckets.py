"""Frames split into buckets, in memory while they are few and in temporary files from then on.

What belongs here: :class:`Buckets`, with which work on a whole listing (grouping, comparing, sorting) is done a
bucket at a time, in memory that does not grow with the listing.  What does not: that work.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import polars as pl
import pyarrow as pa

__all__ = ["Buckets"]

_IN_MEMORY = 200_000
"""Most rows kept in memory; a bucket of a spilled set has as many at 12.8 million rows."""
_HASHED = 64


class Buckets:
    """Rows by bucket number. A context manager: leaving it removes the files."""

    def __init__(self, scratch: Path, key: pl.Expr, *, count: int | None = None) -> None:
        """Make it, empty.

        Args:
            scratch: folder for temporary files, made if it is missing.
            key: expression over added frames; rows of equal key share a bucket.
            count: number of buckets, the key being the number of one; default: the key is hashed to 64.
        """
        self._scratch = scratch
        self._bucket = (key.hash() % _HASHED if count is None else key).cast(pl.UInt32).alias("_bucket")
        self.count = _HASHED if count is None else count
        self.rows = 0
        self._frames: list[pl.DataFrame] = []
        self._folder: Path | None = None
        self._writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._frames = []
        self._stack.close()

    @property
    def spilled(self) -> bool:
        """Whether the rows lie in files."""
        return self._folder is not None

    def add(self, frame: pl.DataFrame) -> None:
        """Take in a frame; all have the same columns.

        Raises:
            OSError: there is no room for temporary files.
        """
        self.rows += frame.height
        if self.spilled:
            self._write(frame)
            return
        self._frames.append(frame)
        if self.rows > _IN_MEMORY:
            self.spill()

    def spill(self) -> None:
        """Move the rows to files, so that they can be read by bucket."""
        if self.spilled:
            return
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=self._scratch, prefix="buckets-", ignore_cleanup_errors=True)
        self._folder = Path(self._stack.enter_context(folder))
        frames, self._frames = self._frames, []
        for frame in frames:
            self._write(frame)

    def read(self, bucket: int | None = None) -> pl.DataFrame | None:
        """The rows of a bucket, or ``None`` where it is empty; with no bucket given all rows, while in memory.

        Nothing can be added to a spilled set any more.
        """
        if not self.spilled:
            frame = pl.concat(self._frames) if self._frames else None
            if frame is None or bucket is None:
                return frame
            found = frame.filter(self._bucket == bucket)
            return found if found.height else None
        writer = self._writers.get(-1 if bucket is None else bucket)
        if bucket is None or writer is None:
            return None
        writer.close()
        with pa.OSFile(str(self._path(bucket)), "rb") as file:
            return cast("pl.DataFrame", pl.from_arrow(pa.ipc.open_stream(file).read_all()))

    def _path(self, bucket: int) -> Path:
        return Path(self._folder or "") / f"{bucket}.arrows"

    def _write(self, frame: pl.DataFrame) -> None:
        parts = frame.with_columns(self._bucket).partition_by("_bucket", as_dict=True, include_key=False)
        for (bucket,), part in parts.items():
            table = part.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = self._writers.get(int(bucket))
            if writer is None:
                file = self._stack.enter_context(pa.OSFile(str(self._path(int(bucket))), "wb"))
                options = pa.ipc.IpcWriteOptions(compression="lz4")
                writer = self._stack.enter_context(pa.ipc.new_stream(file, table.schema, options=options))
                self._writers[int(bucket)] = writer
            writer.write_table(table)
