"""What becomes of what was made of blobs that are gone for good.

What belongs here: :func:`expire` and :func:`due`, for the clean-up.  What does not: noticing that they are gone
(``look``), saying so on partitions (``assets.source_presence``), and taking back itself (``geo_assets.unpublish``).

That a blob is gone is what the last look saw, which may be long ago: its sensor may be off.  So the container is asked
for each once more, just before; of one that cannot be asked about, nothing is taken back, nor of a container that holds
nothing at all, as a disk that is not mounted.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from geo_assets import unpublish
from geo_assets.coremachine.binding import binding_for
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    GeoAssetsError,
    JobNotFoundError,
    TransientError,
)
from geo_assets.redaction import redact
from geo_assets.sources.register import FOLDER, Entry, Register
from geo_assets.sources.rules import grain
from geo_assets.sources.source import Source
from geo_assets.stores.blobs import holds_anything

__all__ = ["Expired", "due", "expire"]

_PAGE = 200
"""Entries between asking the ledger whose partition is another one's by now."""
_AT_ONCE = 50
"""Entries between a look at them and their end."""


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What one call did."""

    taken_back: int = 0
    """Entries of which nothing is left."""
    left: int = 0
    """Entries that could not be taken back now; the next call tries again."""
    there: int = 0
    """Entries whose blob is there again, which the source has yet to see; what was made stays."""
    empty: bool = False
    """Whether what was made stays because the container holds nothing at all, as a disk that is not mounted."""
    problems: tuple[str, ...] = ()
    """Why, a sentence each, at most five."""
    more: bool = False
    """Whether entries were not come to."""


def expire(
    machine: CoreMachine,
    wipe: unpublish.Wipe,
    source: Source,
    *,
    limit: int = 200,
    configured: Collection[str] | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Expired:
    """Take back what was made of blobs that have been gone for ``removed_after``, if the source wants that.

    A blob that is back, or whose partition is another one's by now, keeps what was made.  Repeating does the rest.

    Args:
        machine: the parts; of the services, the stores.
        wipe: lets partitions show nothing.
        source: which.
        limit: most entries to take back; those that keep what was made, or cannot be taken back, do not count.
        configured: names of the sources there are; ``None``: all that ever left something (``register``).
        goes_on: asked before each few entries.

    Raises:
        TransientError: a store or the ledger cannot be reached.
    """
    register = Register(machine.ledger, source.name)

    def take_back(gone: list[Entry], problems: list[str]) -> int:
        done = _take_back(machine, wipe, source, gone[0].asset or "", gone, problems)
        register.mark_taken_back(done)
        return len(done)

    return _each(machine, source, take_back, limit=limit, configured=configured, goes_on=goes_on)


def due(
    machine: CoreMachine,
    source: Source,
    *,
    limit: int = 200,
    configured: Collection[str] | None = None,
    goes_on: Callable[[], bool] = lambda: True,
) -> Expired:
    """What :func:`expire` would try to take back now; nothing is changed.

    Raises:
        TransientError: a store or the ledger cannot be reached.
    """
    return _each(machine, source, lambda gone, _: len(gone), limit=limit, configured=configured, goes_on=goes_on)


def _each(
    machine: CoreMachine,
    source: Source,
    act: Callable[[list[Entry], list[str]], int],
    *,
    limit: int,
    configured: Collection[str] | None,
    goes_on: Callable[[], bool],
) -> Expired:
    """Act on those that are gone indeed; ``act`` says how many it did, and adds why not to the problems."""
    done = left = there = 0
    more = filled = False
    problems: list[str] = []
    for entries in _expired(machine, source, configured):
        if done >= limit or not goes_on():
            more = True
            break
        gone, back = _looked_at(machine, source, entries, problems)
        filled = filled or back > 0 or (bool(gone) and not _is_empty(machine, source))
        if gone and not filled:
            return Expired(taken_back=done, left=left, there=there, problems=tuple(problems), empty=True)
        some = gone[: limit - done]
        more |= len(some) < len(gone)
        number = act(some, problems) if some else 0
        done += number
        there += back
        left += len(entries) - back - (len(gone) - len(some)) - number
        del problems[5:]
    return Expired(taken_back=done, left=left, there=there, problems=tuple(problems), more=more)


def _expired(machine: CoreMachine, source: Source, configured: Collection[str] | None) -> Iterator[list[Entry]]:
    """Entries gone for long, some of one asset at a time."""
    if source.when_removed != "unpublish" or grain(source, binding_for(machine.registry, source.workflow)) != "blob":
        return
    before = datetime.now(UTC) - timedelta(days=source.removed_days)
    register = Register(machine.ledger, source.name, configured=configured)
    after = 0
    # those that keep what was made stay in the ledger, in front of others
    while found := register.expired(before, limit=_PAGE, after=after):
        after = found[-1].sequence
        for asset in sorted({entry.asset or "" for entry in found}):
            mine = [entry for entry in found if (entry.asset or "") == asset]
            for start in range(0, len(mine), _AT_ONCE):
                yield mine[start : start + _AT_ONCE]


def _looked_at(
    machine: CoreMachine, source: Source, entries: Sequence[Entry], problems: list[str]
) -> tuple[list[Entry], int]:
    """Those that are gone indeed, and how many are there again; neither is said of one that cannot be asked about."""
    gone: list[Entry] = []
    there = 0
    for entry in entries:
        try:
            if _is_there(machine, source, entry):
                there += 1
            else:
                gone.append(entry)
        except TransientError:
            raise
        except GeoAssetsError as error:
            if (text := redact(str(error))) not in problems:
                problems.append(text)
            if isinstance(error, ContainerNotFoundError):
                return [], 0
    return gone, there


def _is_empty(machine: CoreMachine, source: Source) -> bool:
    """Whether the container holds nothing at all; one that may be asked about blobs but not be listed counts as filled.

    Raises:
        TransientError: it cannot be reached.
    """
    try:
        return not holds_anything(machine.services["blobs"], source.container)
    except TransientError:
        raise
    except GeoAssetsError:
        return False


def _is_there(machine: CoreMachine, source: Source, entry: Entry) -> bool:
    blobs = machine.services["blobs"]
    if entry.version.startswith(FOLDER):
        return holds_anything(blobs, source.container, f"{entry.name}/")
    try:
        blobs.head(source.container, entry.name)
    except BlobNotFoundError:
        return False
    return True


def _take_back(
    machine: CoreMachine,
    wipe: unpublish.Wipe,
    source: Source,
    asset: str,
    entries: Sequence[Entry],
    problems: list[str],
) -> list[Entry]:
    """The entries of which nothing is left."""
    if not any(binding.publishes for binding in machine.registry.values() if binding.asset == asset):
        return list(entries)  # a validation, say; the clean-up lets its partition go
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
