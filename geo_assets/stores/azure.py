"""Blob store on Azure Blob Storage: the Blob endpoint only, Azurite included.

What belongs here: :class:`AzureBlobStore`, obstore's sync API for listing and data, the Azure SDK for what obstore
lacks.  What does not: signing in (``azure_access``), the meaning of error answers (``azure_errors``).

The SDK does five things here: containers; writing in blocks with ids of our own, so that two writers of one name
cannot mix their blocks; listing with metadata, tags and hashes, which obstore leaves out; listing by a text prefix
that is no folder; and the listing's fallback.  obstore's listing (a thirtieth of the SDK's CPU time) fails as a
whole for one name that it cannot parse, and silently drops a slash at either end of a name.  The first is an
exception; the second shows as names out of order.  Either way the SDK lists the container again, and what was given
already is left out, by a hash of 8 bytes a name.
"""

import hashlib
import itertools
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import obstore
import polars as pl
import pyarrow as pa
from azure.core import MatchConditions
from azure.core.credentials import TokenCredential
from azure.core.exceptions import AzureError
from azure.storage.blob import BlobBlock, BlobServiceClient, ContentSettings, ExponentialRetry
from numpy.typing import NDArray
from obstore.exceptions import BaseError, InvalidPathError
from obstore.store import AzureStore

from geo_assets.errors import (
    AccessDeniedError,
    BlobNotFoundError,
    ContainerNotFoundError,
    GeoAssetsError,
    UnsupportedNameError,
)
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.azure_errors import Answer, translated
from geo_assets.stores.blobs import (
    LISTING_SCHEMA,
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
from geo_assets.stores.obstore_values import (
    FullRow,
    Row,
    attributes,
    batch_of,
    batch_of_full_rows,
    batch_of_rows,
    folder_of,
    json_of,
    properties_of,
    put_mode,
)

if TYPE_CHECKING:
    from obstore.store import AzureCredential

__all__ = ["AzureBlobStore"]

_PAGE = 5000
_NO_TAGS = frozenset({400, 403, 409})
_BLOCK = 8 * 1024 * 1024
_MOST_IN_ONE_PUT = 32 * 1024 * 1024
_SCOPE = "https://storage.azure.com/.default"


class AzureBlobStore:
    """Containers of one storage account."""

    def __init__(self, access: AzureAccess, *, max_retries: int = 3) -> None:
        """Make the store; nothing is requested yet.

        Args:
            access: the account and the way to sign in.
            max_retries: retries of one request; a task's own retries, with longer waits, come on top.
        """
        self._access = access
        self._max_retries = max_retries
        self._stores: dict[str, AzureStore] = {}
        self._lock = threading.Lock()
        self._service = BlobServiceClient(
            access.endpoint,
            credential=access.sdk_credential,
            retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=max_retries),
            connection_timeout=10,
        )

    @property
    def description(self) -> str:
        """What store this is, for messages."""
        return f"storage account '{self._access.account}' ({self._access.endpoint})"

    # --- containers

    def list_containers(self) -> list[str]:
        """Names of all containers, sorted."""
        with self._translating(""):
            return sorted(found.name for found in self._service.list_containers())

    def container_exists(self, container: str) -> bool:
        """Whether the container is there."""
        check_container_name(container)
        try:
            return bool(self._service.get_container_client(container).exists())
        except AzureError as error:
            answer = Answer.of(error)
            if answer.status == 400:  # noqa: PLR2004 - a name no container can have
                return False
            raise translated(answer, self._what(container)) from None

    def create_container(self, container: str) -> None:
        """Make the container; nothing happens where it exists."""
        check_container_name(container)
        try:
            self._service.create_container(container)
        except AzureError as error:
            answer = Answer.of(error)
            if answer.code != "ContainerAlreadyExists":
                raise translated(answer, self._what(container)) from None

    # --- listing

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the blobs whose name starts with ``prefix``."""
        check_container_name(container)
        if detail == "full":
            yield from self._list_fully(container, prefix)
            return
        if prefix and (not prefix.endswith("/") or folder_of(prefix) is None):
            # obstore's prefixes are whole folders; the service takes any text
            yield from self._list_with_sdk(container, prefix, given=[])
            return
        given: list[NDArray[np.uint64]] = []
        last: str | None = None
        with self._translating(container):
            stream = self._store(container).list(prefix=folder_of(prefix), chunk_size=_PAGE)
            while True:
                try:
                    metas = next(stream, None)
                except InvalidPathError:
                    break
                if metas is None:
                    return
                if not metas:
                    continue
                batch = _with_quoted_etags(batch_of(metas))
                names = pl.Series(pl.from_arrow(batch.column("name")))
                if not _in_order(last, names):
                    break
                last = names[-1]
                given.append(names.hash().to_numpy())
                yield batch
        yield from self._list_with_sdk(container, prefix, given=given)

    def _list_with_sdk(
        self, container: str, prefix: str, *, given: list[NDArray[np.uint64]]
    ) -> Iterator[pa.RecordBatch]:
        seen = np.unique(np.concatenate(given)) if given else np.empty(0, np.uint64)
        with self._translating(container):
            for page in self._pages(container, prefix, include=[]):
                blobs = page
                if len(seen) and blobs:
                    hashes = pl.Series([blob.name for blob in blobs], dtype=pl.String).hash().to_numpy()
                    keep = ~np.isin(hashes, seen)
                    blobs = [blob for blob, kept in zip(blobs, keep, strict=True) if kept]
                if blobs:
                    yield batch_of_rows(_row_of(blob) for blob in blobs)

    def _list_fully(self, container: str, prefix: str) -> Iterator[pa.RecordBatch]:
        """With metadata and tags; without tags where the account has none (a file system) or we may not see them."""
        pages = self._pages(container, prefix, include=["metadata", "tags"])
        with self._translating(container):
            try:
                first = next(pages, [])
            except AzureError as error:
                if Answer.of(error).status not in _NO_TAGS:
                    raise
                pages = self._pages(container, prefix, include=["metadata"])
                first = next(pages, [])
            for blobs in itertools.chain([first], pages):
                if blobs:
                    yield batch_of_full_rows(_full_row_of(blob) for blob in blobs)

    def _pages(self, container: str, prefix: str, *, include: list[str]) -> Iterator[list[Any]]:
        client = self._service.get_container_client(container)
        found = client.list_blobs(name_starts_with=prefix or None, include=include or None, results_per_page=_PAGE)
        for page in found.by_page():
            yield list(page)

    # --- reading

    def head(self, container: str, name: str) -> BlobProperties:
        """Properties of one blob, content type and metadata included, in one request."""
        with self._translating(container, name):
            found = obstore.get(self._store(container), check_blob_name(name), options={"head": True})
            return properties_of(found.meta, found.attributes)

    def read_range(self, container: str, name: str, start: int, length: int) -> bytes:
        """Bytes of one blob; fewer at its end, none beyond it."""
        if start < 0 or length < 0:
            raise ValueError(f"a range cannot be negative: start {start}, length {length}")
        if length == 0:
            self.head(container, name)
            return b""
        store = self._store(container)
        try:
            return bytes(store.get_range(check_blob_name(name), start=start, length=length))
        except (BaseError, OSError) as error:
            answer = Answer.of(error)
            # at the end of a blob and in an empty one, obstore stumbles over the answer itself: no status
            if answer.status in (416, None) and start >= self.head(container, name).size:
                return b""
            raise self._translated(answer, container, name) from None

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        """The first bytes of one blob and its properties, in one request; an empty blob takes a second one."""
        store = self._store(container)
        try:
            found = obstore.get(store, check_blob_name(name), options={"range": (0, length)})
            return bytes(found.bytes()), properties_of(found.meta, found.attributes)
        except (BaseError, OSError) as error:
            answer = Answer.of(error)
            # the service refuses the range, or obstore stumbles over the answer
            if answer.status in (416, None):
                properties = self.head(container, name)
                if properties.size == 0:
                    return b"", properties
            raise self._translated(answer, container, name) from None

    def read(self, container: str, name: str) -> bytes:
        """The whole blob."""
        with self._translating(container, name):
            return bytes(self._store(container).get(check_blob_name(name)).bytes())

    def open_stream(self, container: str, name: str, *, chunk_size: int = 8 << 20) -> Iterator[bytes]:
        """The blob in chunks, from one request; a blob overwritten meanwhile is not mixed in."""
        with self._translating(container, name):
            for chunk in self._store(container).get(check_blob_name(name)).stream(min_chunk_size=chunk_size):
                yield bytes(chunk)

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
        """Write a blob whole and return its new ETag."""
        if len(data) > _MOST_IN_ONE_PUT:
            view = memoryview(data)
            blocks = (bytes(view[start : start + _BLOCK]) for start in range(0, len(data), _BLOCK))
            return self.put_stream(
                container, name, blocks, mode=mode, if_match=if_match, content_type=content_type, metadata=metadata
            )
        with self._translating(container, name):
            written = self._store(container).put(
                check_blob_name(name),
                data,
                attributes=attributes(content_type, metadata),
                mode=put_mode(mode, if_match),
                use_multipart=False,
            )
        return _quoted(written["e_tag"])

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
        """Write a blob from chunks: blocks nobody sees, then one commit.

        The service checks each block by its MD5, whether or not ``sha256`` is given.  Blocks that are never committed
        expire after a week.
        """
        put_mode(mode, if_match)
        check_container_name(container)
        client = self._service.get_blob_client(container, check_blob_name(name))
        conditions: dict[str, Any] = {}
        if mode == "create":
            conditions = {"match_condition": MatchConditions.IfMissing}
        elif if_match is not None:
            conditions = {"etag": if_match, "match_condition": MatchConditions.IfNotModified}
        upload = uuid.uuid4().hex
        blocks: list[BlobBlock] = []
        sent = hashlib.sha256()
        for block in _blocks_of(chunks):
            if sha256 is not None:
                sent.update(block)
            # ids of one length, none of which another writer of this name could use
            block_id = f"{upload}{len(blocks):06d}"
            with self._translating(container, name):
                client.stage_block(block_id, block, length=len(block), validate_content=True)
            blocks.append(BlobBlock(block_id))
        if sha256 is not None:
            check_sha256(self._what(container, name), expected=sha256, found=sent.hexdigest())
        with self._translating(container, name):
            written = client.commit_block_list(
                blocks,
                content_settings=ContentSettings(content_type=content_type) if content_type else None,
                metadata=dict(metadata) if metadata else None,
                **conditions,
            )
        return _quoted(str(written["etag"]))

    def delete(self, container: str, name: str) -> None:
        """Remove a blob."""
        check_container_name(container)
        with self._translating(container, name):
            self._service.get_blob_client(container, check_blob_name(name)).delete_blob()

    def uri(self, container: str, name: str) -> str:
        """The blob's https address, without a query."""
        return f"{self._access.endpoint}/{check_container_name(container)}/{quote(check_blob_name(name))}"

    # --- requests and errors

    def _store(self, container: str) -> AzureStore:
        with self._lock:
            store = self._stores.get(check_container_name(container))
            if store is None:
                store = self._stores[container] = self._make_store(container)
            return store

    def _make_store(self, container: str) -> AzureStore:
        access = self._access
        signed: dict[str, Any] = {"skip_signature": True}
        if access.key is not None:
            signed = {"account_key": access.key}
        elif access.sas_token is not None:
            signed = {"sas_key": access.sas_token}
        elif access.token_credential is not None:
            signed = {"credential_provider": _token_provider(access.token_credential)}
        return AzureStore(
            container,
            endpoint=access.endpoint,
            account_name=access.account,
            client_options={
                "allow_http": access.endpoint.startswith("http:"),
                "connect_timeout": timedelta(seconds=10),
                # of a whole request, its body included: large blobs take their time
                "timeout": timedelta(hours=1),
                "read_timeout": timedelta(seconds=60),
            },
            retry_config={"max_retries": self._max_retries, "retry_timeout": timedelta(seconds=60)},
            **signed,
        )

    def _what(self, container: str = "", name: str = "") -> str:
        if not container:
            return self.description
        kind = "blob" if name else "container"
        return f"{kind} '{container}{'/' if name else ''}{printable(name)}' in {self.description}"

    @contextmanager
    def _translating(self, container: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except (BaseError, AzureError, OSError) as error:
            # the original would carry addresses with a SAS into tracebacks
            raise self._translated(Answer.of(error), container, name) from None

    def _translated(self, answer: Answer, container: str, name: str) -> GeoAssetsError:
        if answer.status != 404:  # noqa: PLR2004
            return translated(answer, self._what(container, name))
        if answer.code == "ContainerNotFound" or not name or self._is_missing(container, answer):
            return ContainerNotFoundError(
                f"container '{container}' does not exist in {self.description}; check its name and the account"
            )
        real = self._name_with_slash(container, name)
        if real is not None:
            return UnsupportedNameError(unsupported(real, f"ends or starts with a slash; listings show it as '{name}'"))
        return BlobNotFoundError(f"{self._what(container, name)} does not exist", container=container)

    def _is_missing(self, container: str, answer: Answer) -> bool:
        """Whether a 404 on a blob is its container's; where we may not ask, it is the blob's."""
        if answer.code == "BlobNotFound":
            return False
        try:
            return not self.container_exists(container)
        except AccessDeniedError:
            return False

    def _name_with_slash(self, container: str, name: str) -> str | None:
        """The real name of a blob that obstore lists without the slash at its end or start, if it is one."""
        for real in (f"{name}/", f"/{name}"):
            try:
                if self._service.get_blob_client(container, real).exists():
                    return real
            except AzureError:  # only a better message is at stake
                continue
        return None


def _in_order(last: str | None, names: pl.Series) -> bool:
    """Whether names go on in strictly rising order; they do not where obstore dropped a slash."""
    if last is not None and not last < names[0]:
        return False
    return len(names) == 1 or bool((names.slice(1) > names.head(len(names) - 1)).all())


def _row_of(blob: Any) -> Row:
    problem = name_problem(blob.name)
    name = blob.name if problem is None else printable(blob.name)
    return name, blob.size or 0, blob.last_modified, _quoted(blob.etag), problem


def _full_row_of(blob: Any) -> FullRow:
    settings = blob.content_settings
    md5 = bytes(settings.content_md5).hex() if settings.content_md5 else None
    return *_row_of(blob), settings.content_type, md5, json_of(blob.metadata), json_of(blob.tags)


def _with_quoted_etags(batch: pa.RecordBatch) -> pa.RecordBatch:
    """ETags as HEAD requests give them: the XML of listings has them without quotes."""
    etags = [_quoted(etag) for etag in batch.column("etag").to_pylist()]
    columns = [*batch.columns[:3], pa.array(etags, pa.string()), batch.column("problem")]
    return pa.record_batch(columns, schema=LISTING_SCHEMA)


def _quoted(etag: str | None) -> str:
    if not etag:
        return ""
    return etag if etag.endswith('"') else f'"{etag}"'


def _blocks_of(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Chunks joined or cut to blocks of one size; only the last is shorter."""
    waiting = bytearray()
    for chunk in chunks:
        waiting += chunk
        while len(waiting) >= _BLOCK:
            yield bytes(memoryview(waiting)[:_BLOCK])
            del waiting[:_BLOCK]
    if waiting:
        yield bytes(waiting)


def _token_provider(credential: TokenCredential) -> "Callable[[], AzureCredential]":
    def provide() -> "AzureCredential":
        token = credential.get_token(_SCOPE)
        return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, UTC)}

    return provide
