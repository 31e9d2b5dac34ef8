"""Whether what a partition was made of is still there.

What belongs here: one check, of rasters and tables alike.  What does not: noticing on its own that a blob is gone
(``geo_assets.sources``).
"""

from geo_assets.checking.finding import Evidence, Finding, passed, warned
from geo_assets.checking.rasters import nothing_recorded, properties_of, source_of
from geo_assets.checking.tables import table_of
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    TableNotFoundError,
    VectorRefusedError,
    VectorUnreadableError,
)

__all__ = ["raster_source_present", "table_source_present"]

_KEPT = "what was made of it stays until it is taken back (geo-assets unpublish)"


def raster_source_present(evidence: Evidence) -> Finding:
    """The blob that a raster's partition is about is there."""
    there = properties_of(evidence, *source_of(evidence))
    if there is None:
        return warned(f"{evidence.name} is gone from its container; {_KEPT}")
    return passed(f"{evidence.name} is there", source_etag=there.etag, size=there.size)


def table_source_present(evidence: Evidence) -> Finding:
    """The files that a table was loaded from are there, all parts of them."""
    # here and not above: it brings the formats along
    from geo_assets.vector.local_copy import source_version  # noqa: PLC0415

    try:
        record = evidence.services["tables"].record(*table_of(evidence))
    except TableNotFoundError:
        record = None
    if record is None:
        return nothing_recorded(evidence)
    names = {(load.source.get("container"), load.source.get("blob")) for load in record.loads}
    known = sorted((str(container), str(blob)) for container, blob in names if container and blob)
    gone: list[str] = []
    for container, blob in known:
        try:
            source_version(evidence.services["blobs"], container, blob)
        except (BlobNotFoundError, ContainerNotFoundError):
            gone.append(f"{container}/{blob} is gone from its container")
        except (VectorRefusedError, VectorUnreadableError) as error:
            gone.append(str(error))
    sources = [f"{container}/{blob}" for container, blob in known]
    if gone:
        return warned(f"{'; '.join(gone)}; {_KEPT}", sources=sources)
    return passed(f"{', '.join(sources)}: there", sources=sources)
