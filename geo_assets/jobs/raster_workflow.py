"""What the workflows whose partition is one raster have in common: its name, its version, which blobs are rasters.

What belongs here: :class:`RasterWorkflow`.  What does not: stages and handlers
(``validate_raster_job``, ``process_raster``, ``stac_catalog_raster``).
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from geo_assets.coremachine.contract import Workflow
from geo_assets.jobs.blob_tasks import container_of

__all__ = ["RASTER_SUFFIXES", "RasterWorkflow"]

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".img", ".ntf", ".nitf", ".nc", ".h5",
                   ".hdf5", ".asc", ".hgt")  # fmt: skip
"""Endings of blobs that look like rasters."""


class RasterWorkflow(Workflow):
    """A workflow about one blob; its partition is ``container/blob``."""

    partition_set = "raster_blobs"
    group = "rasters"
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "rasters"}
    execution = "thread"  # with the dangerous part in the sandbox

    @classmethod
    def partition_name(cls, params: Mapping[str, Any], job_id: str) -> str:
        """``container/blob``."""
        del job_id
        return f"{container_of(params)}/{params['blob_name']}"

    @classmethod
    def parameters_for_partition(cls, partition_key: str) -> dict[str, Any] | None:
        """Container and blob, everything else left to its default; ``None`` where it names no blob."""
        container, _, blob = partition_key.partition("/")
        return {"container_name": container, "blob_name": blob} if blob else None

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        """The blob's ETag.

        Raises:
            BlobNotFoundError, ContainerNotFoundError: there is nothing to work on.
        """
        etag: str = services["blobs"].head(container_of(params), params["blob_name"]).etag
        return etag

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        """Blobs that look like rasters and whose ``container/blob`` starts with ``prefix``."""
        container, _, start = prefix.partition("/")
        for batch in services["blobs"].list_blobs(container, start):
            problems = batch.column("problem").to_pylist()
            for name, problem in zip(batch.column("name").to_pylist(), problems, strict=True):
                if problem is None and name is not None and name.lower().endswith(RASTER_SUFFIXES):
                    yield f"{container}/{name}"
