"""Blobs copied to the local disk, and the proof that a copy is the blob as it was asked for.

What belongs here: the look at the disk, the copy, the comparison.  What does not: which blobs make a dataset and what
the local files are called (``raster.local_copy``, ``vector.local_copy``).
"""

import shutil
from pathlib import Path
from typing import Protocol

from geo_assets.errors import DiskFullError, SourceChangedError
from geo_assets.stores.blobs import BlobProperties, BlobStore

__all__ = ["Digest", "copy_blob", "require_room"]


class Digest(Protocol):
    """A checksum under way, as of ``hashlib``."""

    def update(self, data: bytes, /) -> None:
        """Take in these bytes."""
        ...


def copy_blob(blobs: BlobStore, container: str, properties: BlobProperties, path: Path, checksum: Digest) -> None:
    """Copy a blob to ``path``, feeding ``checksum``.

    Raises:
        BlobNotFoundError, GeoAssetsError: as the store's.
        SourceChangedError: it is not, or no longer, of the version that ``properties`` tell of.
    """
    copied = 0
    with path.open("wb") as file:
        for part in blobs.open_stream(container, properties.name):
            file.write(part)
            checksum.update(part)
            copied += len(part)
    after = blobs.head(container, properties.name)
    if copied != properties.size or after.etag != properties.etag:
        what = f"{container}/{properties.name}"
        raise SourceChangedError(f"{what} was replaced while it was being copied; run the job again")


def require_room(folder: Path, needed: int, *, reserve_bytes: int, what: str) -> None:
    """Make ``folder`` and refuse to begin where its disk cannot take ``needed`` bytes and keep the reserve.

    Raises:
        DiskFullError: says how much is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + reserve_bytes > free:
        raise DiskFullError(
            f"{what} needs {needed:,} bytes of temporary space and {reserve_bytes:,} are kept in reserve, but only"
            f" {free:,} are free; free some, or put GEO_ASSETS_HOME on a larger disk"
        )
