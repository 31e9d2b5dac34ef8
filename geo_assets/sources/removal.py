"""What becomes of what was made of blobs that are gone for good.

What belongs here: :func:`expire`, for the clean-up.  What does not: noticing that they are gone (``look``), saying so
on partitions (``assets.source_presence``), and taking back itself (``geo_assets.unpublish``).
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from geo_assets import unpublish
from geo_assets.coremachine.binding import binding_for
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, JobNotFoundError, TransientError
from geo_assets.redaction import redact
from geo_assets.sources.register import Entry, Register
from geo_assets.sources.rules import grain
from geo_assets.sources.source import Source

__all__ = ["Expired", "expire"]


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What one call did."""

    taken_back: int = 0
    """Entries of which nothing is left."""
    left: int = 0
    """Entries that could not be taken back now; the next call tries again."""
    problems: tuple[str, ...] = ()
    """Why, a sentence each, at most five."""


def expire(machine: CoreMachine, wipe: unpublish.Wipe, source: Source, *, limit: int = 200) -> Expired:
    """Take back what was made of blobs that have been gone for ``removed_after``, if the source wants that.

    A blob that is back, or whose partition is another one's by now, keeps what was made.  Repeating does the rest.

    Args:
        machine: the parts; of the services, the stores.
        wipe: lets partitions show nothing.
        source: which.
        limit: most entries.

    Raises:
        TransientError: a store or the ledger cannot be reached.
    """
    if source.when_removed != "unpublish" or grain(source, binding_for(machine.registry, source.workflow)) != "blob":
        return Expired()
    register = Register(machine.ledger, source.name)
    by_asset: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in register.expired(datetime.now(UTC) - timedelta(days=source.removed_days), limit=limit):
        by_asset[entry.asset or ""].append(entry)
    taken_back, left, problems = 0, 0, list[str]()
    for asset, entries in by_asset.items():
        done = _take_back(machine, wipe, source, asset, entries, problems)
        register.mark_taken_back(done)
        taken_back += len(done)
        left += len(entries) - len(done)
    return Expired(taken_back=taken_back, left=left, problems=tuple(problems[:5]))


def _take_back(
    machine: CoreMachine,
    wipe: unpublish.Wipe,
    source: Source,
    asset: str,
    entries: Sequence[Entry],
    problems: list[str],
) -> list[Entry]:
    """The entries of which nothing is left."""
    try:
        keys = {entry.partition_key or "": entry for entry in entries}
        names = [decode_partition_key(key) for key in keys]
        taken = unpublish.execute(machine, wipe, asset, names, who=f"source {source.name}")
    except TransientError:
        raise
    except GeoAssetsError as error:
        if len(entries) > 1:  # one that is busy must not keep the others
            some = (_take_back(machine, wipe, source, asset, [entry], problems) for entry in entries)
            return [done for one in some for done in one]
        if isinstance(error, JobNotFoundError):
            return list(entries)  # its job failed, so nothing was published
        problems.append(redact(str(error)))
        return []
    for one in taken:
        if not one.complete:
            problems += [f"{thing.name}: {thing.detail}" for thing in one.things if thing.detail]
    return [keys[one.partition_key] for one in taken if one.complete]
