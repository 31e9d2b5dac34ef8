"""What every workflow that writes items has in common: the collection they go into.

What belongs here: the check of a parameter ``collection_id``, and bringing collections up to date.  What does not:
items of rasters (``raster_cataloguing``) and of tables (``vector_cataloguing``).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import field_validator

from geo_assets.coremachine.contract import WorkflowParameters
from geo_assets.errors import ParameterError
from geo_assets.stac.collections import describe_collection

__all__ = ["CollectionParameters", "refresh_collections"]


class CollectionParameters(WorkflowParameters):
    """Checks the ``collection_id`` that each workflow declares with a default of its own."""

    @field_validator("collection_id", mode="after", check_fields=False)
    @classmethod
    def _check_collection(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                describe_collection(value)
            except ParameterError as error:
                raise ValueError(f"collection_id: {error}") from None
        return value


def refresh_collections(jobs: Sequence[Mapping[str, Any]], services: Mapping[str, Any]) -> None:
    """Bring the collections that these jobs wrote to up to date: extents, summaries, links, mirror.

    Raises:
        CatalogError, CatalogUnavailableError: as the catalog's.
    """
    for collection in sorted({params["collection_id"] for params in jobs if params.get("collection_id")}):
        services["catalog"].refresh_collection(collection)
