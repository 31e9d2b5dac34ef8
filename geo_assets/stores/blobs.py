r"""The blob store protocol, the values it gives, and the rules for names.

What belongs here: :class:`BlobStore`, :class:`BlobProperties`, the schema of listings, and which container and blob
names every store accepts.  What does not: any one store (``local``, ``azure``, ``memory``).

**Names.** A blob name is opened only if all stores could hold it: text without control characters, no empty, ``.``
or ``..`` segment, no slash at either end.  A listing reports other names too, as rows with a ``problem``; in these
rows the name is made printable (``\n``, ``\xff``, a backslash doubled), so that two names never look the same.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, runtime_checkable

import pyarrow as pa

from geo_assets.errors import ChecksumMismatchError, UnsupportedNameError

__all__ = [
    "FULL_LISTING_SCHEMA",
    "LISTING_SCHEMA",
    "UNREADABLE_FOLDER",
    "BlobProperties",
    "BlobStore",
    "Detail",
    "PutMode",
    "check_blob_name",
    "check_container_name",
    "check_sha256",
    "holds_anything",
    "name_problem",
    "printable",
    "unsupported",
]

PutMode = Literal["overwrite", "create"]
"""``overwrite`` replaces what is there; ``create`` refuses to."""

Detail = Literal["basic", "full"]
"""How much a listing says: what every listing has, or all the store can tell without a request per blob."""

_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("name", pa.string(), nullable=False),
    pa.field("size", pa.int64(), nullable=False),
    pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("etag", pa.string()),
    pa.field("problem", pa.string()),
]
LISTING_SCHEMA = pa.schema(_FIELDS)
"""Columns of a listing's batches. ``problem`` says why a row cannot be opened; null for ordinary blobs."""

FULL_LISTING_SCHEMA = pa.schema(
    [
        *_FIELDS,
        pa.field("content_type", pa.string()),
        pa.field("content_md5", pa.string()),
        pa.field("metadata", pa.string()),
        pa.field("tags", pa.string()),
    ]
)
"""Columns with ``detail="full"``; null where the store does not say. ``content_md5`` is hexadecimal, ``metadata`` and
``tags`` are JSON objects of texts as text."""

MAX_BLOB_NAME = 1024
"""Longest blob name in characters, Azure's limit."""
_MAX_CONTAINER_NAME = 255
_CHUNK_SIZE = 8 * 1024 * 1024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


@dataclass(frozen=True, kw_only=True)
class BlobProperties:
    """What a store says about one blob."""

    name: str
    size: int
    """Bytes."""
    last_modified: datetime
    """Aware, UTC."""
    etag: str
    """Changes whenever the content does; equal to the one in the store's listing."""
    content_type: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class BlobStore(Protocol):
    """Containers of blobs. Thread-safe; every method may raise the errors named here, each naming the store.

    Raises:
        ContainerNotFoundError: no such container. All methods with a container but ``container_exists``,
            ``create_container`` and ``uri``.
        BlobNotFoundError: no such blob.
        UnsupportedNameError: a container or blob name this store cannot hold, or that we refuse to open.
        AccessDeniedError: the credential may not do this.
        ThrottledError, StoreUnavailableError: transient; try again later.
    """

    @property
    def description(self) -> str:
        """What store this is, for messages; never a secret."""
        ...

    def list_containers(self) -> list[str]:
        """Names of all containers, sorted."""
        ...

    def container_exists(self, container: str) -> bool:
        """Whether the container is there."""
        ...

    def create_container(self, container: str) -> None:
        """Make the container; nothing happens where it exists."""
        ...

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the blobs whose name starts with ``prefix``.

        Never fails for one name.  ``prefix`` is text, not a folder: ``a/b`` matches ``a/bc``.

        Args:
            container: which.
            prefix: what names start with.
            detail: ``basic`` gives batches of :data:`LISTING_SCHEMA`; ``full``, which may take many times as long, of
                :data:`FULL_LISTING_SCHEMA`.
        """
        ...

    def head(self, container: str, name: str) -> BlobProperties:
        """Properties of one blob, in one request."""
        ...

    def read_range(self, container: str, name: str, start: int, length: int) -> bytes:
        """Bytes ``start`` … ``start + length - 1``; fewer at the end of the blob, none beyond it.

        Raises:
            ValueError: ``start`` or ``length`` is negative.
        """
        ...

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        """The first ``length`` bytes (1 or more; fewer where the blob ends) and the properties, of one version.

        One request, but for empty blobs.
        """
        ...

    def read(self, container: str, name: str) -> bytes:
        """The whole blob."""
        ...

    def open_stream(self, container: str, name: str, *, chunk_size: int = _CHUNK_SIZE) -> Iterator[bytes]:
        """The blob in chunks of about ``chunk_size`` bytes; errors show at the first ``next`` at the latest."""
        ...

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
        """Write a blob whole and return its new ETag. Content type and metadata are dropped by the local store.

        Raises:
            PreconditionFailedError: ``mode="create"`` and the blob exists, or ``if_match`` is not its ETag.
        """
        ...

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
        """Write a blob from chunks and return its new ETag: it appears whole or, if anything fails, not at all.

        With ``sha256``, the hexadecimal digest of the content, it appears only if that is what arrived.

        Raises:
            PreconditionFailedError: as :meth:`put`; what was there stays.
            ChecksumMismatchError: something else than ``sha256`` says arrived; what was there stays.
        """
        ...

    def delete(self, container: str, name: str) -> None:
        """Remove a blob.

        Raises:
            BlobNotFoundError: it is not there (any more).
        """
        ...

    def uri(self, container: str, name: str) -> str:
        """A durable address of the blob: no query, no signature, percent-encoded."""
        ...


UNREADABLE_FOLDER = "unreadable folder: "
"""What the problem of a listing's row begins with that stands for a folder whose blobs could not be listed."""


def printable(name: str) -> str:
    r"""``name`` with what cannot be shown escaped; two different names never look the same.

    Bytes that are not UTF-8 (surrogates, as :func:`os.fsdecode` gives them) become ``\xNN``, other control
    characters ``\uNNNN``.
    """
    pieces = []
    for character in name:
        code = ord(character)
        if character in _ESCAPES:
            pieces.append(_ESCAPES[character])
        elif 0xDC80 <= code <= 0xDCFF:  # noqa: PLR2004 - the surrogates PEP 383 uses for undecodable bytes
            pieces.append(f"\\x{code - 0xDC00:02x}")
        elif not character.isprintable():
            pieces.append(f"\\u{code:04x}")
        else:
            pieces.append(character)
    return "".join(pieces)


def unsupported(name: str, reason: str) -> str:
    """The text of a ``problem``: which name cannot be opened, and why."""
    return f"unsupported name: '{printable(name)}' {reason}"


def name_problem(name: str) -> str | None:
    """Why no store opens a blob of this name, or ``None`` where all would."""
    reason = _name_reason(name)
    return None if reason is None else unsupported(name, reason)


def _name_reason(name: str) -> str | None:
    if _CONTROL.search(name):
        return "holds a control character"
    if not _is_text(name):
        return "is not valid UTF-8"
    if len(name) > MAX_BLOB_NAME:
        return f"has {len(name)} characters, more than {MAX_BLOB_NAME}"
    segments = name.split("/")
    if "" in segments:
        return "has an empty path segment (a slash at an end, or two in a row)" if name else "is empty"
    return "has '.' or '..' as a path segment" if "." in segments or ".." in segments else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_blob_name(name: str) -> str:
    """Return ``name``.

    Raises:
        UnsupportedNameError: no store would open it.
    """
    problem = name_problem(name)
    if problem is not None:
        raise UnsupportedNameError(f"{problem}; rename the blob")
    return name


def holds_anything(blobs: BlobStore, container: str, prefix: str = "") -> bool:
    """Whether a container holds any blob of such a name: where a disk is not mounted, there is an empty folder.

    Raises:
        GeoAssetsError: as ``list_blobs``.
    """
    return any(batch.num_rows for batch in blobs.list_blobs(container, prefix))


def check_sha256(what: str, *, expected: str, found: str) -> None:
    """Compare two hexadecimal SHA-256 digests of what is about to become ``what``.

    Raises:
        ChecksumMismatchError: they differ.
    """
    if found != expected.lower():
        raise ChecksumMismatchError(
            f"{what} was not written: its SHA-256 should be {expected} and is {found}; the data changed on its way,"
            " run the job again"
        )


def check_container_name(container: str) -> str:
    """Return ``container``.

    Raises:
        UnsupportedNameError: empty, a path, hidden (a leading dot), too long, or not plain text.
    """
    reason = None
    if not container:
        reason = "is empty"
    elif "/" in container or "\\" in container:
        reason = "is a path; a container is one name without slashes"
    elif container.startswith("."):
        reason = "starts with a dot"
    elif _CONTROL.search(container):
        reason = "holds a control character"
    elif not _is_text(container) or len(container.encode()) > _MAX_CONTAINER_NAME:
        reason = f"is not text of at most {_MAX_CONTAINER_NAME} bytes"
    if reason is not None:
        raise UnsupportedNameError(f"unsupported container name: '{printable(container)[:100]}' {reason}")
    return container
