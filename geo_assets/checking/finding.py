"""What a check is given and what it answers.

What belongs here: :class:`Finding`, :class:`Evidence`, and gathering evidence from the ledger.  What does not: looking.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.ledger import Attempt, Ledger
from geo_assets.coremachine.machine import CoreMachine

__all__ = ["Evidence", "Finding", "failed", "gather", "passed", "warned"]

_TOLD_BY: Mapping[str, tuple[str, ...]] = {
    # the asset itself, and those whose jobs make it on their way
    "raster_validation": ("raster_validation", "cog"),
    "raster_stac_item": ("raster_stac_item", "cog"),
    "vector_stac_item": ("vector_stac_item", "vector_table"),
}
_FINISHED = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check found of one partition."""

    passed: bool
    description: str
    """One sentence: what was looked at, or what is wrong and what to do."""
    warning: bool = False
    """Whether a check that did not pass is only a warning."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """Plain values."""


def passed(description: str, **metadata: Any) -> Finding:
    """All is as it should be."""
    return Finding(passed=True, description=description, metadata=metadata)


def failed(description: str, **metadata: Any) -> Finding:
    """Something is wrong."""
    return Finding(passed=False, description=description, metadata=metadata)


def warned(description: str, **metadata: Any) -> Finding:
    """Something should be known, though nothing that was published is wrong."""
    return Finding(passed=False, warning=True, description=description, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One partition, and what the ledger recorded for it."""

    machine: CoreMachine
    asset: str
    partition_key: str
    attempts: tuple[Attempt, ...]
    """Finished attempts whose publications stand, newest first: of the asset, and of those that make it as well."""

    @property
    def name(self) -> str:
        """Of the partition, as people write it."""
        return decode_partition_key(self.partition_key)

    @property
    def services(self) -> Mapping[str, Any]:
        """The stores, by name."""
        return self.machine.services

    def results(self, *job_types: str) -> Iterator[dict[str, Any]]:
        """Results of these workflows, newest first."""
        for attempt in self.attempts:
            if attempt.job_type in job_types and attempt.result_data:
                yield attempt.result_data


def gather(machine: CoreMachine, asset: str, partition_keys: Sequence[str]) -> dict[str, Evidence]:
    """What the ledger recorded for these partitions, by key."""
    ledger: Ledger = machine.ledger
    found: dict[str, list[Attempt]] = {key: [] for key in partition_keys}
    for attempt in reversed(ledger.attempts_of_partitions(_TOLD_BY.get(asset, (asset,)), list(found))):
        if attempt.status in _FINISHED and attempt.withdrawn_at is None:
            found[attempt.partition_key].append(attempt)
    return {
        key: Evidence(machine=machine, asset=asset, partition_key=key, attempts=tuple(attempts))
        for key, attempts in found.items()
    }
