"""Whose a name in a store is: partitions claim the names of what they make, so that none takes away another's.

What belongs here: :class:`Claims`, what a handler may ask and do about names.  What does not: the table (``ledger``),
and which names a workflow gives to what it makes.

A claim is written before the first byte and outlives failed, cancelled and killed runs: what they left under the name
is known as the partition's own.  It goes when the partition is taken back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from geo_assets.coremachine.ledger import Ledger

__all__ = ["Claims"]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """The claims of one partition; names are texts such as ``container/blob``."""

    ledger: Ledger
    asset: str
    partition_key: str

    def holder(self, name: str) -> str | None:
        """Who claims a name: an empty text if it is this partition, else who, in words; ``None`` if nobody."""
        found = self.ledger.claims([name]).get(name)
        if found is None:
            return None
        return "" if found == (self.asset, self.partition_key) else f"{found[0]} '{found[1]}'"

    def take(self, names: Sequence[str]) -> None:
        """Claim names, whoever claimed them before."""
        self.ledger.claim(names, asset=self.asset, partition_key=self.partition_key)
