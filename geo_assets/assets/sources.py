"""External assets at the root of the lineage: what exists outside and is only looked at.

What belongs here: their specs.  What does not: listing them (``geo_assets.containers``).
"""

import dagster as dg

SOURCE_CONTAINER = "source_container"

source_container = dg.AssetSpec(
    SOURCE_CONTAINER,
    description="A container of rasters and vector files: a folder of GEO_ASSETS_BLOB_ROOT, or a container of an"
    " Azure storage account. Nothing here writes to it.",
    group_name="sources",
    kinds={"azure", "file"},
    owners=["team:geo-archive"],
)
