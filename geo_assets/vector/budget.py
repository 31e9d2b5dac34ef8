"""What a vector file may ask for before anything of it is read.

What belongs here: :class:`VectorBudget`.  What does not: the checks (``archives``, ``local_copy``, ``open``).
"""

from dataclasses import asdict, dataclass

from geo_assets.settings import Settings

__all__ = ["VectorBudget"]

_MIB = 1024 * 1024
_GIB = 1024 * _MIB


@dataclass(frozen=True, kw_only=True)
class VectorBudget:
    """What a file may have; see the settings ``GEO_ASSETS_VECTOR_MAX_*``."""

    file_bytes: int
    """The file, or all files of a dataset, unpacked."""
    ratio: int
    """Unpacked bytes a byte of an archive, where more than 64 MiB unpacked."""
    entries: int
    """Entries of an archive; files of a dataset."""
    columns: int
    """Attributes of a layer."""
    layers: int
    feature_bytes: int
    """One feature."""

    @classmethod
    def from_settings(cls, settings: Settings) -> "VectorBudget":
        """The budget of the settings."""
        return cls(
            file_bytes=settings.vector_max_gb * _GIB,
            ratio=settings.vector_max_ratio,
            entries=settings.vector_max_entries,
            columns=settings.vector_max_columns,
            layers=settings.vector_max_layers,
            feature_bytes=settings.vector_max_feature_mb * _MIB,
        )

    def as_dict(self) -> dict[str, int]:
        """Plain values, for a worker process."""
        return asdict(self)
