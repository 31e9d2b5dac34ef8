"""Blob store in memory, for tests and trials: one process, gone with it.

What belongs here: :class:`MemoryBlobStore` over obstore's ``MemoryStore``, a store a container.  What does not:
anything durable.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote

import obstore
import pyarrow as pa
from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError
from obstore.store import MemoryStore

from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, PreconditionFailedError
from geo_assets.stores.blobs import (
    BlobProperties,
    Detail,
    PutMode,
    check_blob_name,
    check_container_name,
    check_sha256,
)
from geo_assets.stores.obstore_values import (
    FullRow,
    attributes,
    batch_of,
    batch_of_full_rows,
    folder_of,
    json_of,
    properties_of,
    put_mode,
)

__all__ = ["MemoryBlobStore"]

_LISTING_CHUNK = 5000


class MemoryBlobStore:
    """Containers in memory. :meth:`named` gives the same store to everyone in the process who asks for the name."""

    _named: dict[str, "MemoryBlobStore"] = {}  # noqa: RUF012 - shared on purpose
    _named_lock = threading.Lock()

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self._containers: dict[str, MemoryStore] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str = "default") -> "MemoryBlobStore":
        """Return the process-wide store of this name, made at first use."""
        with cls._named_lock:
            return cls._named.setdefault(name, cls(name))

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"memory store '{self.name}'"

    def clear(self) -> None:
        """Forget all containers."""
        with self._lock:
            self._containers.clear()

    def list_containers(self) -> list[str]:
        """Names of all containers, sorted."""
        return sorted(self._containers)

    def container_exists(self, container: str) -> bool:
        """Whether the container is there."""
        return check_container_name(container) in self._containers

    def create_container(self, container: str) -> None:
        """Make the container; nothing happens where it exists."""
        with self._lock:
            self._containers.setdefault(check_container_name(container), MemoryStore())

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the blobs whose name starts with ``prefix``; the full detail has their MD5, but no tags."""
        store = self._store(container)
        for metas in store.list(prefix=folder_of(prefix), chunk_size=_LISTING_CHUNK):
            found = [meta for meta in metas if meta["path"].startswith(prefix)]
            if found and detail == "basic":
                yield batch_of(found)
            elif found:
                yield batch_of_full_rows(self._full_row(store, container, meta["path"]) for meta in found)

    def _full_row(self, store: MemoryStore, container: str, name: str) -> FullRow:
        found = self.head(container, name)
        # no content is secret here; the sum is the one that Azure keeps
        md5 = hashlib.md5(bytes(store.get(name).bytes()), usedforsecurity=False).hexdigest()
        metadata = json_of(found.metadata)
        return name, found.size, found.last_modified, found.etag, None, found.content_type, md5, metadata, None

    def head(self, container: str, name: str) -> BlobProperties:
        """Properties of one blob."""
        store = self._store(container)
        try:
            found = obstore.get(store, check_blob_name(name), options={"head": True})
        except FileNotFoundError:
            raise self._missing(container, name) from None
        return properties_of(found.meta, found.attributes)

    def read_range(self, container: str, name: str, start: int, length: int) -> bytes:
        """Bytes of one blob; fewer at its end, none beyond it."""
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        size = self.head(container, name).size
        if length == 0 or start >= size:
            return b""
        try:
            return bytes(self._store(container).get_range(name, start=start, length=length))
        except FileNotFoundError:
            raise self._missing(container, name) from None
        except GenericError:  # replaced by a shorter one since
            return b""

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        """The first bytes of one blob, with its properties."""
        store = self._store(container)
        try:
            found = obstore.get(store, check_blob_name(name), options={"range": (0, length)})
            return bytes(found.bytes()), properties_of(found.meta, found.attributes)
        except FileNotFoundError:
            raise self._missing(container, name) from None
        except GenericError:  # an empty blob has no range
            return b"", self.head(container, name)

    def read(self, container: str, name: str) -> bytes:
        """The whole blob."""
        try:
            return bytes(self._store(container).get(check_blob_name(name)).bytes())
        except FileNotFoundError:
            raise self._missing(container, name) from None

    def open_stream(self, container: str, name: str, *, chunk_size: int = 8 << 20) -> Iterator[bytes]:
        """The blob in chunks."""
        data = self.read(container, name)
        return (data[start : start + chunk_size] for start in range(0, len(data), chunk_size))

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
        """Write a blob whole and return its new ETag."""
        store = self._store(container)
        try:
            written = store.put(
                check_blob_name(name),
                data,
                attributes=attributes(content_type, metadata),
                mode=put_mode(mode, if_match),
                use_multipart=False,
            )
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            raise PreconditionFailedError(
                f"blob '{container}/{name}' in {self.description} was not written: "
                + ("it exists already" if mode == "create" else f"it is no longer the version {if_match}")
            ) from None
        return written["e_tag"] or ""

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
        """Write a blob from chunks; it appears whole or not at all."""
        data = b"".join(chunks)
        if sha256 is not None:
            what = f"blob '{container}/{name}' in {self.description}"
            check_sha256(what, expected=sha256, found=hashlib.sha256(data).hexdigest())
        return self.put(
            container, name, data, mode=mode, if_match=if_match, content_type=content_type, metadata=metadata
        )

    def delete(self, container: str, name: str) -> None:
        """Remove a blob."""
        self.head(container, name)
        self._store(container).delete(name)

    def uri(self, container: str, name: str) -> str:
        """``memory://store/container/name``."""
        path = f"{quote(check_container_name(container))}/{quote(check_blob_name(name))}"
        return f"memory://{quote(self.name, safe='')}/{path}"

    def _store(self, container: str) -> MemoryStore:
        try:
            return self._containers[check_container_name(container)]
        except KeyError:
            raise ContainerNotFoundError(
                f"container '{container}' does not exist in {self.description}; create it first"
            ) from None

    def _missing(self, container: str, name: str) -> BlobNotFoundError:
        return BlobNotFoundError(f"blob '{container}/{name}' does not exist in {self.description}", container=container)
