"""Prepared rows on their way from one stage of a load to the next: blobs that nobody else looks at.

What belongs here: where they lie, and that they go.  What does not: what is in them (``vector.prepare``), and loading
them (``ingest_vector``).

The stages of a job may run on several machines, which share nothing but the stores.  So chunks travel as blobs of the
container ``GEO_ASSETS_STAGING_CONTAINER``, below a prefix that no two executions of a job share; with them a manifest
of what is too long for the parameters of a task.  They go when the tables are published or refused, when the job runs
again, or when they are a day old.
"""

import contextlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from geo_assets.errors import BlobNotFoundError, ContainerNotFoundError, StagingLostError
from geo_assets.jobs.blob_tasks import chunks_of
from geo_assets.settings import Settings
from geo_assets.stores.blobs import BlobStore

__all__ = ["KEPT_SECONDS", "Staging", "leftovers", "remove_leftovers", "staged_by", "sweep"]

KEPT_SECONDS = 24 * 3600.0
"""Nothing that is at work is older: a load of a day is broken off."""
_MANIFEST = "manifest.json"
_FOLDER = "geo_assets-loads"
"""First segment of all names: what lies elsewhere in the container is somebody else's."""
_OURS = re.compile(rf"{_FOLDER}/[0-9a-f]{{1,16}}/[0-9a-f]{{32}}/(?:manifest\.json|[^/]+\.(?:arrow|webp))")


class Staging:
    """The blobs of one execution of a job, below ``prefix``."""

    def __init__(self, services: Mapping[str, Any], prefix: str) -> None:
        settings: Settings = services["settings"]
        self._blobs: BlobStore = services["blobs"]
        self._container = settings.staging_container
        self.prefix = prefix

    @classmethod
    def new(cls, services: Mapping[str, Any], job_id: str) -> "Staging":
        """A staging of its own for one execution."""
        staging = cls(services, f"{_prefix(job_id)}{uuid.uuid4().hex}")
        if not staging._blobs.container_exists(staging._container):
            staging._blobs.create_container(staging._container)
        return staging

    def put_file(self, name: str, path: Path) -> str:
        """Put a file; returns the blob's name."""
        blob = f"{self.prefix}/{name}"
        self._blobs.put_stream(self._container, blob, chunks_of(path))
        return blob

    def put_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Put what all later tasks need to know."""
        self._blobs.put(self._container, f"{self.prefix}/{_MANIFEST}", json.dumps(manifest).encode())

    def manifest(self) -> dict[str, Any]:
        """What :meth:`put_manifest` put.

        Raises:
            StagingLostError: it is gone.
        """
        found: dict[str, Any] = json.loads(self.read(_MANIFEST))
        return found

    def read(self, name: str) -> bytes:
        """One file of the staging.

        Raises:
            StagingLostError: it is gone.
        """
        try:
            return self._blobs.read(self._container, f"{self.prefix}/{name}")
        except (BlobNotFoundError, ContainerNotFoundError):
            raise StagingLostError(
                f"what was prepared for this load is gone ({self._container}/{self.prefix}/{name}); run the job again"
            ) from None

    def batches(self, name: str) -> Iterator[pa.RecordBatch]:
        """The rows of one chunk.

        Raises:
            StagingLostError: it is gone.
        """
        with pa.ipc.open_stream(self.read(name)) as reader:
            yield from reader

    def remove(self) -> None:
        """Remove all of it; nothing happens where it is gone."""
        _remove(self._blobs, self._container, f"{self.prefix}/")


def leftovers(services: Mapping[str, Any], job_id: str) -> list["Staging"]:
    """What earlier executions of a job left behind, as far as they got to a manifest."""
    settings: Settings = services["settings"]
    try:
        names = _names(services["blobs"], settings.staging_container, _prefix(job_id))
    except ContainerNotFoundError:
        return []
    ending = f"/{_MANIFEST}"
    return [Staging(services, name.removesuffix(ending)) for name in names if name.endswith(ending)]


def remove_leftovers(services: Mapping[str, Any], job_id: str) -> None:
    """Remove what earlier executions of a job left behind, in both stores; only one is at work at a time."""
    settings: Settings = services["settings"]
    for staging in leftovers(services, job_id):
        with contextlib.suppress(StagingLostError):
            services["tables"].discard([one["staged"]["token"] for one in staging.manifest()["tables"]])
    with contextlib.suppress(ContainerNotFoundError):
        _remove(services["blobs"], settings.staging_container, _prefix(job_id))


def staged_by(name: str) -> str | None:
    """First 16 characters of the id of the job that put a blob of this name; ``None``: somebody else's."""
    return name.split("/", 2)[1] if _OURS.fullmatch(name) else None


def sweep(services: Mapping[str, Any], *, dry_run: bool = False) -> tuple[int, int]:
    """Remove (``dry_run``: count) what loads that broke off left behind, once it is a day old.

    Returns:
        How many stagings of tables, and how many blobs.
    """
    settings: Settings = services["settings"]
    tables = services["tables"].sweep(older_than_seconds=KEPT_SECONDS, dry_run=dry_run)
    blobs, container = services["blobs"], settings.staging_container
    before = datetime.now(UTC) - timedelta(seconds=KEPT_SECONDS)
    try:
        names = _names(blobs, container, f"{_FOLDER}/", before=before)
    except ContainerNotFoundError:
        return tables, 0
    for name in () if dry_run else names:
        with contextlib.suppress(BlobNotFoundError):
            blobs.delete(container, name)
    return tables, len(names)


def _prefix(job_id: str) -> str:
    return f"{_FOLDER}/{job_id[:16]}/"


def _remove(blobs: BlobStore, container: str, prefix: str) -> None:
    for name in _names(blobs, container, prefix):
        with contextlib.suppress(BlobNotFoundError):
            blobs.delete(container, name)


def _names(blobs: BlobStore, container: str, prefix: str, *, before: datetime | None = None) -> list[str]:
    return [
        name
        for batch in blobs.list_blobs(container, prefix)
        for name, problem, changed in zip(
            batch.column("name").to_pylist(),
            batch.column("problem").to_pylist(),
            batch.column("last_modified").to_pylist(),
            strict=True,
        )
        if problem is None
        and name is not None
        and _OURS.fullmatch(name)
        and (before is None or changed is None or changed < before)
    ]
