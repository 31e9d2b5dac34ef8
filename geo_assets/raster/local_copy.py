"""A blob as a file in a private folder, for as long as it is needed.

What belongs here: the copy, the look at the disk before it, and the proof that it is the blob as it was asked for.
What does not: opening it (``open``), which happens in a worker process.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geo_assets.errors import DiskFullError, RasterRefusedError, SourceChangedError
from geo_assets.raster.formats import SNIFFED_BYTES, sniff
from geo_assets.stores.blobs import BlobProperties, BlobStore

__all__ = ["LocalCopy", "fetch", "require_room"]


@dataclass(frozen=True, kw_only=True)
class LocalCopy:
    """A whole, verified copy of one version of a blob."""

    path: Path
    properties: BlobProperties
    sha256: str


def fetch(
    blobs: BlobStore,
    container: str,
    name: str,
    *,
    folder: Callable[[], Path],
    reserve_bytes: int,
) -> LocalCopy:
    """Copy a blob into a private folder and prove the copy.

    Only bytes are looked at here: the file gets a neutral name with the suffix of its format, so that no driver takes
    anything from the name but the position of SRTM heights.

    Args:
        blobs: the store.
        container: container of the blob.
        name: name of the blob.
        folder: gives the folder, absolute; asked only when there is something to copy.
        reserve_bytes: what must stay free on its disk.

    Raises:
        BlobNotFoundError, GeoAssetsError: as the store's.
        DiskFullError: not enough room; nothing was copied.
        SourceChangedError: the blob was replaced meanwhile.
        RasterRefusedError: no raster we open, seen from its first bytes before the rest is copied.
    """
    properties = blobs.head(container, name)
    what = f"{container}/{name}"
    head = blobs.read_range(container, name, 0, SNIFFED_BYTES) if properties.size else b""
    try:
        form = sniff(head, size=properties.size, name=name)
    except RasterRefusedError as error:
        raise RasterRefusedError(f"{what}: {error}") from None
    where = folder()
    require_room(where, properties.size, reserve_bytes=reserve_bytes, what=what)
    stem = PurePosixPath(name).name[:7].upper() if form.driver == "SRTMHGT" else "raster"
    path = where / f"{stem}{form.suffix}"
    checksum = hashlib.sha256()
    copied = 0
    with path.open("wb") as file:
        for part in blobs.open_stream(container, name):
            file.write(part)
            checksum.update(part)
            copied += len(part)
    after = blobs.head(container, name)
    if copied != properties.size or after.etag != properties.etag:
        raise SourceChangedError(f"{what} was replaced while it was being copied; run the job again")
    return LocalCopy(path=path, properties=properties, sha256=checksum.hexdigest())


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
