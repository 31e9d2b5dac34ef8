"""Whether what a partition was made of is still there.

What belongs here: one check, of rasters, tables and what a team's own workflows make.  What does not: noticing on its
own that a blob is gone (``geo_assets.sources``).
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
from geo_assets.stores.tables import TableStore

__all__ = ["job_source_present", "raster_source_present", "table_source_present"]

_KEPT = "what was made of it stays until it is taken back (geo-assets unpublish)"


def raster_source_present(evidence: Evidence) -> Finding:
    """The blob that a raster's partition is about is there."""
    there = properties_of(evidence, *source_of(evidence))
    if there is None:
        return warned(f"{evidence.name} is gone from its container; {_KEPT}")
    return passed(f"{evidence.name} is there", source_etag=there.etag, size=there.size)


def table_source_present(evidence: Evidence) -> Finding:
    """The files that a table was loaded from are there, all parts of them."""
    tables: TableStore = evidence.services["tables"]
    schema, table = table_of(evidence)
    try:
        record = tables.record(schema, table)
        if record is None:
            tables.describe(schema, table, exact=False)
            return passed(f"{evidence.name} was loaded by other means, so there is no file to look for")
    except TableNotFoundError:
        return nothing_recorded(evidence)
    names = {(load.source.get("container"), load.source.get("blob")) for load in record.loads}
    return _datasets_present(evidence, sorted((str(one), str(blob)) for one, blob in names if one and blob))


def job_source_present(evidence: Evidence) -> Finding:
    """The blob that was given to the latest finished job of a team's own workflow is there."""
    given = evidence.attempts[0].parameters if evidence.attempts else {}
    names = (given.get("container_name"), given.get("blob_name"))
    if not all(names):
        return nothing_recorded(evidence)
    return _datasets_present(evidence, [(str(names[0]), str(names[1]))])


def _datasets_present(evidence: Evidence, known: list[tuple[str, str]]) -> Finding:
    # here and not above: it brings the formats along
    from geo_assets.vector.local_copy import source_version  # noqa: PLC0415

    gone: list[str] = []
    for container, blob in known:
        try:  # a shapefile is several blobs, a geodatabase a folder of them
            source_version(evidence.services["blobs"], container, blob)
        except (BlobNotFoundError, ContainerNotFoundError):
            gone.append(f"{container}/{blob} is gone from its container")
        except (VectorRefusedError, VectorUnreadableError) as error:
            gone.append(str(error))
    sources = [f"{container}/{blob}" for container, blob in known]
    if gone:
        return warned(f"{'; '.join(gone)}; {_KEPT}", sources=sources)
    return passed(f"{', '.join(sources)}: there", sources=sources)
