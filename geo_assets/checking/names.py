"""What the checks are called; the same in Dagster, on the command line, and where a job reports what it proved.

What belongs here: the names.  What does not: what they mean (``catalogue``).
"""

__all__ = [
    "COG_MATCHES_SOURCE",
    "COG_VALID",
    "CONTAINER_READABLE",
    "GEOMETRIES_VALID",
    "ITEM_HREFS_PRESENT",
    "ITEM_VALID",
    "ITEM_WITHIN_COLLECTION",
    "RASTER_VALID",
    "SOURCE_PRESENT",
    "TABLE_COMPLETE",
]

RASTER_VALID = "raster_valid"
COG_VALID = "cog_valid"
COG_MATCHES_SOURCE = "cog_matches_source"
ITEM_VALID = "item_valid"
ITEM_HREFS_PRESENT = "item_hrefs_present"
ITEM_WITHIN_COLLECTION = "item_within_collection"
TABLE_COMPLETE = "table_complete"
GEOMETRIES_VALID = "geometries_valid"
SOURCE_PRESENT = "source_present"
CONTAINER_READABLE = "container_readable"
