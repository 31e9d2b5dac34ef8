"""Which checks there are: of which asset, what each looks at, and whether downstream waits for it.

What belongs here: the list, and what is added to it for a team's own workflows.  What does not: the looking
(``rasters``, ``tables``, ``items``, ``sources``), and how Dagster shows checks (``geo_assets.assets.checks``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from geo_assets.checking import items, names, rasters, sources, tables
from geo_assets.checking.finding import Evidence, Finding
from geo_assets.coremachine.binding import Registry
from geo_assets.errors import ParameterError
from geo_assets.sources.rules import grain_of

__all__ = ["CHECKS", "Check", "all_checks", "checks_of"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the partitions of one asset."""

    asset: str
    name: str
    description: str
    """What it looks at and what a person does when it fails."""
    look: Callable[[Evidence], Finding]
    blocking: bool = False
    """Whether what is built on the asset waits for it."""


_SOURCE = (
    "Whether the source is still in its container. A warning only: what was made of it stays, and a source that is"
    " watched reports it by itself when a blob vanishes or comes back."
)
_ITEM_VALID = (
    "Reads the item from the catalog and holds it to the STAC core schema; its geometry, box and times make sense, it"
    " is about this partition, and it holds no credential. If it fails, materialize the partition again."
)
_ITEM_HREFS = (
    "Asks the stores for everything of ours that the item points to: each blob is there, with the size the item says"
    " and the ETag its job wrote; the table is there, in the version the item describes. If it fails, materialize the"
    " partition again."
)
_ITEM_WITHIN = (
    "Compares the item's box (also across the antimeridian) and times with those of its collection, which clients"
    " search first. If it fails, materialize the partition again: the run brings the collection up to date."
)


def _of_items(asset: str) -> tuple[Check, ...]:
    """The checks of items, whatever these describe."""
    return (
        Check(asset=asset, name=names.ITEM_VALID, description=_ITEM_VALID, look=items.item_valid),
        Check(asset=asset, name=names.ITEM_HREFS_PRESENT, description=_ITEM_HREFS, look=items.item_hrefs_present),
        Check(
            asset=asset, name=names.ITEM_WITHIN_COLLECTION, description=_ITEM_WITHIN, look=items.item_within_collection
        ),
    )


CHECKS: tuple[Check, ...] = (
    Check(
        asset="raster_validation",
        name=names.RASTER_VALID,
        description="Whether the raster was found valid, and its source is still the version (ETag) that was looked"
        " at. Blocking: no COG is made of a raster that nobody has validated. If it fails, materialize the partition"
        " again.",
        look=rasters.raster_valid,
        blocking=True,
    ),
    Check(
        asset="cog",
        name=names.COG_VALID,
        description="Fetches each published COG: it is the blob that was proven (ETag, SHA-256), rio-cogeo finds its"
        " structure valid, and every block of every level can be decoded, in a worker process. Blocking: no item is"
        " made of a damaged COG. If it fails, materialize the partition again.",
        look=rasters.cog_valid,
        blocking=True,
    ),
    Check(
        asset="cog",
        name=names.COG_MATCHES_SOURCE,
        description="Whether the source is still the version (ETag) the COG was made of, and the two agree: size,"
        " CRS, bounds, bands, type, nodata, and the values of pixels all over the raster. If it fails, materialize the"
        " partition again.",
        look=rasters.cog_matches_source,
    ),
    *_of_items("raster_stac_item"),
    Check(
        asset="vector_table",
        name=names.TABLE_COMPLETE,
        description="Counts the rows of the table: as many as its loads recorded, and these add up to the rows of the"
        " file less those dropped, as the job's own result says, too. Blocking: no item is made of part of a table. If"
        " it fails, load the file again.",
        look=tables.table_complete,
        blocking=True,
    ),
    Check(
        asset="vector_table",
        name=names.GEOMETRIES_VALID,
        description="Whether every geometry is valid (ST_IsValid in PostGIS, GEOS for GeoParquet); of more than"
        " 1,000,000 rows, a sample spread over the table. Only a warning where invalid ones were kept on request."
        " Else, load the file again, which repairs them.",
        look=tables.geometries_valid,
    ),
    *_of_items("vector_stac_item"),
    *(
        Check(asset=asset, name=names.SOURCE_PRESENT, description=_SOURCE, look=sources.raster_source_present)
        for asset in ("raster_validation", "cog", "raster_stac_item")
    ),
    *(
        Check(asset=asset, name=names.SOURCE_PRESENT, description=_SOURCE, look=sources.table_source_present)
        for asset in ("vector_table", "vector_stac_item")
    ),
)
"""Those of our own workflows' assets."""

_LOOKS_FOR_SOURCE: Mapping[str, Callable[[Evidence], Finding]] = {
    # partition set → how its keys tell the source; of other sets, the job's parameters do
    "raster_blobs": sources.raster_source_present,
    "vector_tables": sources.table_source_present,
}


def all_checks(registry: Registry) -> list[Check]:
    """The checks of the assets of these workflows.

    Whatever shares its partitions with a workflow that a source can feed is told when a blob is gone
    (``assets.source_presence``), and has the check that shows it.
    """
    assets = {binding.asset: binding.partition_set for binding in registry.values()}
    watched = {binding.partition_set for binding in registry.values() if grain_of(binding) == "blob"}
    have = {check.asset for check in CHECKS if check.name == names.SOURCE_PRESENT}
    more = [
        Check(
            asset=asset,
            name=names.SOURCE_PRESENT,
            description=_SOURCE,
            look=_LOOKS_FOR_SOURCE.get(partition_set, sources.job_source_present),
        )
        for asset, partition_set in sorted(assets.items())
        if partition_set in watched and asset not in have
    ]
    return [*(check for check in CHECKS if check.asset in assets), *more]


def checks_of(registry: Registry, asset: str, chosen: Sequence[str] = ()) -> list[Check]:
    """The checks of an asset, all or those that are named.

    Raises:
        ParameterError: the asset has none, or none of that name; says which there are.
    """
    every = all_checks(registry)
    there = [check for check in every if check.asset == asset]
    if not there:
        assets = ", ".join(sorted({check.asset for check in every}))
        raise ParameterError(f"'{asset}' has no checks that look at data; those that have: {assets}")
    unknown = sorted(set(chosen) - {check.name for check in there})
    if unknown:
        known = ", ".join(check.name for check in there)
        raise ParameterError(f"{asset} has no check '{unknown[0]}'; it has {known}")
    return [check for check in there if not chosen or check.name in chosen]
