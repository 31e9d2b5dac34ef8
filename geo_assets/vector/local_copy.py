"""A blob, or the blobs of one dataset, as files in a private folder, for as long as they are needed.

What belongs here: which blobs make a dataset (a shapefile's parts, a ``.gdb`` folder), their version, and what the
copies are called.  What does not: copying and its proof (``stores.copying``), and opening (``open``), which happens in
a worker process.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from geo_assets.errors import BlobNotFoundError, VectorRefusedError, VectorUnreadableError
from geo_assets.settings import get_settings
from geo_assets.stores.blobs import BlobProperties, BlobStore
from geo_assets.stores.copying import copy_blob, require_room
from geo_assets.vector.budget import VectorBudget
from geo_assets.vector.formats import FILEGDB, SHAPEFILE, SNIFFED_BYTES, VectorFormat, sniff

__all__ = ["GDB_FILE", "LocalCopy", "fetch", "require_parts", "source_version"]

GDB_FILE = re.compile(r"(?!\.)[A-Za-z0-9_.]{1,120}(?<!\.lock)\Z")
"""Names of the files of a file geodatabase."""

_NEEDED = (".shx", ".dbf")
_PARTS = frozenset({".shp", *_NEEDED, ".prj", ".cpg"})
_SHAPEFILE_START = b"\0\0\x27\x0a"


@dataclass(frozen=True, kw_only=True)
class LocalCopy:
    """A whole, verified copy of one version of a dataset."""

    path: Path
    """The main file, or the ``.gdb`` folder."""
    sha256: str
    """Of the file; of all files one after the other, in the order of ``parts``, where they are several."""
    etag: str
    """As :func:`source_version` gives it."""
    size: int
    """Bytes, all parts together."""
    last_modified: datetime
    """Of the part that changed last; aware."""
    parts: tuple[str, ...]
    """Names of the blobs, sorted."""


def fetch(
    blobs: BlobStore,
    container: str,
    name: str,
    *,
    folder: Callable[[], Path],
    reserve_bytes: int,
    file_extension: str | None = None,
    budget: VectorBudget | None = None,
) -> LocalCopy:
    """Copy a blob, with the other parts of its dataset, into a private folder and prove the copy.

    Only bytes are looked at here: the files get neutral names with the suffix of their format.

    Args:
        blobs: the store.
        container: container of the blob.
        name: name of the blob; of the folder where it is a ``.gdb`` of several blobs.
        folder: gives the folder, absolute; asked only when there is something to copy.
        reserve_bytes: what must stay free on its disk.
        file_extension: what somebody says its extension is; decides between texts.
        budget: what it may have; default: that of the settings.

    Raises:
        BlobNotFoundError, GeoAssetsError: as the store's.
        DiskFullError: not enough room; nothing was copied.
        SourceChangedError: a part was replaced meanwhile.
        VectorRefusedError: no vector file we open, seen from its first bytes before the rest is copied, or too large.
        VectorUnreadableError: a part without which it cannot be read is missing; names it.
    """
    what = f"{container}/{name}"
    limits = VectorBudget.from_settings(get_settings()) if budget is None else budget
    form, parts = _dataset(blobs, container, name, file_extension)
    _within(what, parts, limits)
    where = folder()
    size = sum(part.size for part in parts)
    require_room(where, size, reserve_bytes=reserve_bytes, what=what)
    path = where / f"vector{form.suffix}"
    if form is FILEGDB:
        path.mkdir()
    checksum = hashlib.sha256()
    for part in parts:
        copy_blob(blobs, container, part, path if part.name == name else _local(path, part.name), checksum)
    return LocalCopy(
        path=path,
        sha256=checksum.hexdigest(),
        etag=_etag(parts),
        size=size,
        last_modified=max(part.last_modified for part in parts),
        parts=tuple(part.name for part in parts),
    )


def source_version(blobs: BlobStore, container: str, name: str) -> str:
    """The version of a dataset without copying it: the blob's ETag; a digest over names and ETags of several parts.

    Raises:
        BlobNotFoundError, GeoAssetsError: as the store's.
    """
    try:
        head, properties = blobs.read_start(container, name, len(_SHAPEFILE_START))
    except BlobNotFoundError:
        return _etag(_gdb_parts(blobs, container, name))
    if _is_marker(properties):
        return _etag(_gdb_parts(blobs, container, name))
    if head != _SHAPEFILE_START:
        return properties.etag
    return _etag(_shapefile_parts(blobs, container, properties))


def require_parts(suffixes: Sequence[str], what: str) -> None:
    """Refuse a shapefile whose parts, given by their suffixes, are not all there, or some of them twice.

    Raises:
        VectorUnreadableError: names those that are missing.
    """
    found = [suffix.lower() for suffix in suffixes]
    missing = [suffix for suffix in _NEEDED if suffix not in found]
    if missing:
        raise VectorUnreadableError(
            f"{what}: the shapefile's {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing; put the"
            f" part{'s' if len(missing) > 1 else ''} beside it, or upload all parts as one zip file"
        )
    double = sorted({suffix for suffix in found if found.count(suffix) > 1})
    if double:
        raise VectorUnreadableError(
            f"{what}: the shapefile's {' and '.join(double)} is there twice, in upper and in lower case; remove one"
        )


def _dataset(
    blobs: BlobStore, container: str, name: str, file_extension: str | None
) -> tuple[VectorFormat, list[BlobProperties]]:
    what = f"{container}/{name}"
    try:
        head, properties = blobs.read_start(container, name, SNIFFED_BYTES)
    except BlobNotFoundError:
        return FILEGDB, _gdb_parts(blobs, container, name)
    if _is_marker(properties):
        return FILEGDB, _gdb_parts(blobs, container, name)
    try:
        form = sniff(head, size=properties.size, name=name, file_extension=file_extension)
    except VectorRefusedError as error:
        raise VectorRefusedError(f"{what}: {error}", code=error.code) from None
    if form is not SHAPEFILE:
        return form, [properties]
    parts = _shapefile_parts(blobs, container, properties)
    require_parts([_suffix(part.name) for part in parts if part.name != name], what)
    return form, parts


def _is_marker(properties: BlobProperties) -> bool:
    # accounts with folders have an empty blob for each
    return properties.size == 0 and properties.name.lower().endswith(FILEGDB.suffix)


def _shapefile_parts(blobs: BlobStore, container: str, main: BlobProperties) -> list[BlobProperties]:
    """The main file and the parts beside it, sorted by name; another ``.shp`` in other case is no part."""
    stem = main.name.removesuffix(_suffix(main.name))
    beside = [
        part
        for part in _listed(blobs, container, f"{stem}.")
        if part.name.removesuffix(_suffix(part.name)) == stem and _suffix(part.name).lower() in _PARTS - {".shp"}
    ]
    return sorted([main, *(part for part in beside if part.name != main.name)], key=lambda part: part.name)


def _gdb_parts(blobs: BlobStore, container: str, name: str) -> list[BlobProperties]:
    prefix = f"{name.rstrip('/')}/"
    parts = [part for part in _listed(blobs, container, prefix) if GDB_FILE.match(part.name.removeprefix(prefix))]
    if not any(part.name.lower().endswith(".gdbtable") for part in parts):
        raise BlobNotFoundError(
            f"{container}/{name} is neither a blob nor a folder of a file geodatabase", container=container
        )
    return sorted(parts, key=lambda part: part.name)


def _listed(blobs: BlobStore, container: str, prefix: str) -> Iterator[BlobProperties]:
    for batch in blobs.list_blobs(container, prefix):
        rows: list[dict[str, Any]] = batch.to_pylist()
        for row in rows:
            if row["problem"] is None:
                yield BlobProperties(
                    name=row["name"], size=row["size"], last_modified=row["last_modified"], etag=row["etag"]
                )


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix


def _etag(parts: Sequence[BlobProperties]) -> str:
    if len(parts) == 1:
        return parts[0].etag
    together = "".join(f"{part.name}\0{part.etag}\n" for part in parts)
    return hashlib.sha256(together.encode()).hexdigest()


def _within(what: str, parts: Sequence[BlobProperties], budget: VectorBudget) -> None:
    size = sum(part.size for part in parts)
    if size > budget.file_bytes:
        raise VectorRefusedError(
            f"{what} has {size:,} bytes; at most {budget.file_bytes:,} are loaded (GEO_ASSETS_VECTOR_MAX_GB)",
            code="FILE_TOO_LARGE",
        )
    if len(parts) > budget.entries:
        raise VectorRefusedError(
            f"{what} has {len(parts):,} files; at most {budget.entries:,} are loaded (GEO_ASSETS_VECTOR_MAX_ENTRIES)",
            code="FILE_TOO_LARGE",
        )


def _local(path: Path, name: str) -> Path:
    if path.suffix == FILEGDB.suffix:
        return path / PurePosixPath(name).name
    return path.with_suffix(_suffix(name).lower())
