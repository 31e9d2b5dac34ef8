"""What the workflows whose partition is one table have in common: how it is called and shown.

What belongs here: :class:`VectorWorkflow`.  What does not: stages and handlers (``ingest_vector``,
``stac_catalog_vectors``).
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from geo_assets.coremachine.contract import Workflow

__all__ = ["VectorWorkflow"]


class VectorWorkflow(Workflow):
    """A workflow about one table; its partition is ``schema.table``."""

    partition_set = "vector_tables"
    group = "vectors"
    owners = ("team:geo-archive",)
    tags: ClassVar[Mapping[str, str]] = {"geo_assets/domain": "vectors"}
    execution = "thread"  # with the dangerous part in the sandbox

    @classmethod
    def partition_name(cls, params: Mapping[str, Any], job_id: str) -> str:
        """``schema.table``."""
        del job_id
        return f"{params['schema']}.{params['table_name']}"

    @classmethod
    def parameters_for_partition(cls, partition_key: str) -> dict[str, Any] | None:
        """Schema and table, everything else left to others; ``None`` where it names no table."""
        schema, _, table = partition_key.partition(".")
        return {"schema": schema, "table_name": table} if schema and table else None

    @classmethod
    def max_age_seconds(cls) -> float | None:
        """Rows or items may have changed: the job itself looks, and ends ``unchanged`` where all is as it was."""
        return 0.0
