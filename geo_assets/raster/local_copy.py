"""A blob as a file in a private folder, for as long as it is needed.

What belongs here: what the copy is called, and the look at its first bytes.  What does not: copying and its proof
(``stores.copying``), and opening it (``open``), which happens in a worker process.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from geo_assets.errors import RasterRefusedError
from geo_assets.raster.formats import SNIFFED_BYTES, sniff
from geo_assets.stores.blobs import BlobProperties, BlobStore
from geo_assets.stores.copying import copy_blob, require_room

__all__ = ["LocalCopy", "fetch"]


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
    copy_blob(blobs, container, properties, path, checksum)
    return LocalCopy(path=path, properties=properties, sha256=checksum.hexdigest())
