"""Taking back what jobs published for a partition: items, blobs, the partition's state and the record, together.

What belongs here: finding out what there is (:func:`plan`) and taking it back (:func:`execute`), for any workflow
that says what it :meth:`~geo_assets.coremachine.contract.Workflow.published`.  What does not: Dagster, which is handed
in (``coremachine.partition_wipe``), and printing (``cli.unpublish_command``).

A partition is taken back with what is made of it: the assets below it in the lineage that share its partitions (a COG
with its STAC item).  The order is that of a reader who must never find an item without its data: items, blobs, the
partition's state, the record.  Every step may be done twice, and the record comes last, so that a command that was
killed is finished by repeating it.

Only what is still as a job left it goes: a blob with another ETag, or an item about another blob, is somebody else's
now, and what a job of another partition recorded as well is left to that one.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

from geo_assets.coremachine.binding import Binding, Registry
from geo_assets.coremachine.contract import JobStatus, Published
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.ledger import Attempt, Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    DamagedItemError,
    GeoAssetsError,
    JobNotFoundError,
    ParameterError,
    PartitionBusyError,
    TableInUseError,
)
from geo_assets.redaction import redact
from geo_assets.stac.items import described_thing

__all__ = ["ACTION", "Fate", "Taken", "Thing", "Wipe", "execute", "plan"]

ACTION = "unpublish"
"""The action in the audit."""

Wipe = Callable[[str, Sequence[str]], object]
"""Lets partitions show as never materialized: (asset, partition keys); may be done twice."""

_AT_ONCE = 8
"""Requests to the stores side by side."""
_WORDS_AT_MOST = 50
"""Things up to which the ledger is searched by their names; beyond, its results are read through."""
_SHOWN = 5
_FINISHED = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)


class Fate(StrEnum):
    """What becomes, or would become, of one thing."""

    PRESENT = "present"
    """It is there as a job left it, and goes."""
    REMOVED = "removed"
    ABSENT = "absent"
    CHANGED = "changed"
    """Somebody replaced it since; left alone, unless forced."""
    SHARED = "shared"
    """Another partition's job recorded it, too; left alone."""
    BLOCKED = "blocked"
    """Something depends on it; nothing of its partition goes."""
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One blob, item or table that jobs of a partition recorded, each once."""

    kind: Literal["blob", "item", "table"]
    collection: str
    """The blob's container, the item's collection, or the table's schema."""
    name: str
    """The blob's name, the item's id, or the table's name."""
    asset: str
    """Whose partition it belongs to."""
    versions: frozenset[str]
    """Every ETag, or version of the table, that a job of the partition recorded."""
    about: frozenset[tuple[str, str]]
    """Container and blob, or schema and table, that the item describes, by each of these jobs."""
    partition: str | None = None
    """Name of another partition that shows it."""
    outcome: Fate = Fate.PRESENT
    detail: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """Its name among all things."""
        return self.kind, self.collection, self.name

    def as_dict(self) -> dict[str, Any]:
        """What the audit and ``--json`` say of it."""
        return {
            "kind": self.kind,
            "collection": self.collection,
            "name": self.name,
            "asset": self.asset,
            "outcome": self.outcome.value,
            "detail": self.detail,
        }


@dataclass(frozen=True, kw_only=True)
class Taken:
    """One partition: what would be, or was, taken back."""

    asset: str
    partition_key: str
    assets: tuple[str, ...]
    """The assets whose partition of this key is to show nothing."""
    attempts: tuple[str, ...]
    """Attempts to be withdrawn; none where that was done before."""
    things: tuple[Thing, ...]
    complete: bool = False
    """Whether the partition's state and record are taken back."""
    seen: str = ""
    """Id of the latest attempt when this was planned; ids sort by time."""
    note: str = ""
    """What somebody should look at."""

    def leaves_nothing_to_do(self, *, force: bool = False) -> bool:
        """Whether everything was taken back before."""
        return not self.attempts and not any(_goes(thing, force=force) for thing in self.things)


def plan(machine: CoreMachine, asset: str, names: Sequence[str]) -> list[Taken]:
    """Find out what taking back these partitions would remove; nothing is changed.

    Args:
        machine: the parts; of the services, ``blobs``, ``catalog`` and ``tables`` are used.
        asset: key of an asset whose workflow publishes.
        names: of the partitions, as people write them.

    Returns:
        One a partition, in order, each partition once.

    Raises:
        ParameterError: no workflow makes this asset, or none that publishes.
        JobNotFoundError: no job published anything for one of these partitions.
        PartitionBusyError: a job of one of these partitions waits or is at work.
    """
    family = _family(machine.registry, asset)
    keys = [str(encode_partition_key(name)) for name in dict.fromkeys(names)]
    attempts = _attempts_by_key(machine.ledger, family, keys)
    _require_idle(attempt for group in attempts.values() for attempt in group)
    others = _by_others(machine, family, dict(zip(keys, dict.fromkeys(names), strict=True)))
    taken = [_of_partition(family, key, attempts.get(key, []), others.get(key, ())) for key in keys]
    if unknown := [one.partition_key for one in taken if not one.things]:
        msg = (
            f"no job published anything for {_listed(unknown)} of {asset}; look for the jobs with"
            f" 'geo-assets jobs --asset {asset}'"
        )
        raise JobNotFoundError(msg)
    shared = _shared_things(machine, family, taken)
    every = [(one.partition_key, thing) for one in taken for thing in one.things]
    for kind, service in (("blob", "blobs"), ("item", "catalog"), ("table", "tables")):
        if any(thing.kind == kind for _, thing in every):
            machine.services[service]  # opened here, where nobody else asks for it at the same moment
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looked_at = iter(list(pool.map(lambda pair: _as_it_is(machine.services, pair[1], shared.get(pair)), every)))
    return [replace(one, things=tuple(next(looked_at) for _ in one.things)) for one in taken]


def execute(
    machine: CoreMachine, wipe: Wipe, asset: str, names: Sequence[str], *, who: str, force: bool = False
) -> list[Taken]:
    """Take partitions back; what was taken back before is left as it is.

    Where a thing cannot be removed, its partition's state and record stay, so that repeating finishes it.

    Args:
        machine: as for :func:`plan`.
        wipe: lets partitions show nothing.
        asset: as for :func:`plan`.
        names: as for :func:`plan`.
        who: for the audit.
        force: remove blobs and items that were replaced since, as well.

    Raises:
        ParameterError, JobNotFoundError, PartitionBusyError: as :func:`plan`; nothing was changed.
        TransientError: a store or the ledger cannot be reached; repeat it.
    """
    before = plan(machine, asset, names)
    todo = {one.partition_key: one for one in before if not one.leaves_nothing_to_do(force=force)}
    if not todo:
        return [replace(one, complete=True) for one in before]
    inventories = {key: [thing.as_dict() for thing in one.things] for key, one in todo.items()}
    audit_ids = machine.ledger.audit(ACTION, who=who, asset=asset, inventories=inventories)
    try:
        _remove_items(machine.services, todo, force=force)
        _remove_data(machine.services, todo, force=force)
        _wipe_states(wipe, todo)
        _note_newcomers(machine, asset, before, todo)
    finally:
        # what was removed is on record whatever stopped the rest
        for key, one in todo.items():
            if one.complete:
                for made in one.assets:
                    machine.ledger.release_claims(made, key)
            machine.ledger.audit_ended(
                audit_ids[key],
                inventory=[thing.as_dict() for thing in one.things],
                withdraw=one.attempts if one.complete else None,
            )
    return [todo.get(one.partition_key, replace(one, complete=True)) for one in before]


# --- what there is -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Family:
    """The asset that was named, what is made of it on the same partitions, and who may have published for them."""

    asset: str
    assets: tuple[str, ...]
    sources: Mapping[str, Binding]
    """Job type → workflow, of all that publish for these partitions."""
    partition_set: str


def _family(registry: Registry, asset: str) -> _Family:
    named = [binding for binding in registry.values() if binding.asset == asset and binding.publishes]
    if not named:
        known = sorted({binding.asset for binding in registry.values() if binding.publishes})
        msg = (
            f"nothing is published for the asset '{asset}'; assets that can be taken back: {', '.join(known) or 'none'}"
        )
        raise ParameterError(msg)
    partition_set = named[0].partition_set
    siblings = [binding for binding in registry.values() if binding.partition_set == partition_set]
    assets = [asset]
    for upstream in assets:  # grows while it is read
        assets += [b.asset for b in siblings if upstream in b.asset_deps and b.asset not in assets]
    return _Family(
        asset=asset,
        assets=tuple(dict.fromkeys(assets)),
        sources={binding.job_type: binding for binding in siblings if binding.publishes},
        partition_set=partition_set,
    )


def _attempts_by_key(ledger: Ledger, family: _Family, keys: Sequence[str]) -> dict[str, list[Attempt]]:
    assets = sorted({*family.assets, *(binding.asset for binding in family.sources.values())})
    by_key: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in ledger.attempts_of_partitions(assets, keys):
        by_key[attempt.partition_key].append(attempt)
    return by_key


def _require_idle(attempts: Iterable[Attempt]) -> None:
    busy: list[str] = []
    for attempt in attempts:
        what = f"{attempt.job_type} {attempt.job_id[:12]} for '{attempt.partition_key}'"
        if not attempt.status.is_terminal:
            busy.append(f"{what} is {attempt.status.value}")
        elif attempt.status in _FINISHED and not attempt.event_emitted:
            busy.append(f"{what} has just ended and Dagster does not know yet")
    if busy:
        msg = (
            f"not while jobs are under way: {_listed(busy)}; wait for them (a Dagster daemon must be up), or cancel"
            " them with 'geo-assets cancel'"
        )
        raise PartitionBusyError(msg)


def _by_others(machine: CoreMachine, family: _Family, names: Mapping[str, str]) -> dict[str, list[Thing]]:
    """Partition key → what jobs of other partitions left for it."""
    found: dict[str, list[Thing]] = {}
    for binding in family.sources.values():
        if binding.asset not in family.assets:
            continue
        left = binding.published_by_others(list(names.values()), machine.services)
        for key, name in names.items():
            found.setdefault(key, []).extend(_thing(one, binding.asset) for one in left.get(name, ()))
    return found


def _of_partition(family: _Family, key: str, attempts: Sequence[Attempt], others: Iterable[Thing]) -> Taken:
    recorded: dict[tuple[str, str, str], Thing] = {}
    for thing in others:
        recorded[thing.key] = _merged(recorded.get(thing.key), thing)
    withdrawn: list[str] = []
    for attempt in attempts:
        binding = family.sources.get(attempt.job_type)
        left = binding.published(attempt.result_data) if binding is not None and attempt.result_data else ()
        ours = [thing for thing in (_thing(one, attempt.asset) for one in left) if thing.asset in family.assets]
        for thing in ours:
            recorded[thing.key] = _merged(recorded.get(thing.key), thing)
        if attempt.withdrawn_at is None and (ours or attempt.asset in family.assets):
            withdrawn.append(attempt.attempt_id)
    return Taken(
        asset=family.asset,
        partition_key=key,
        assets=family.assets,
        attempts=tuple(withdrawn),
        seen=max((attempt.attempt_id for attempt in attempts), default=""),
        things=tuple(sorted(recorded.values(), key=lambda thing: (thing.kind != "item", thing.key))),
    )


def _thing(published: Published, asset: str) -> Thing:
    return Thing(
        kind=published.kind,
        collection=published.collection,
        name=published.name,
        asset=published.asset or asset,
        versions=frozenset([published.version] if published.version else []),
        about=frozenset([published.about] if published.about else []),
        partition=published.partition,
    )


def _merged(before: Thing | None, thing: Thing) -> Thing:
    if before is None:
        return thing
    return replace(thing, versions=before.versions | thing.versions, about=before.about | thing.about)


def _shared_things(machine: CoreMachine, family: _Family, taken: Sequence[Taken]) -> dict[tuple[str, Thing], str]:
    """(partition key, thing) → another partition whose job recorded the thing as well."""
    holders: defaultdict[tuple[str, str, str], list[tuple[str, Thing]]] = defaultdict(list)
    for one in taken:
        for thing in one.things:
            holders[thing.key].append((one.partition_key, thing))
    publishing = {job_type: binding for job_type, binding in machine.registry.items() if binding.publishes}
    # what several of these partitions hold goes with them
    ours = {(family.partition_set, one.partition_key) for one in taken}
    claimed = machine.ledger.claims([f"{place}/{name}" for kind, place, name in holders if kind == "blob"])
    shared: dict[tuple[str, Thing], str] = {}
    for result in machine.ledger.recorded_results(sorted(publishing), containing=_words(holders)):
        binding = publishing[result.job_type]
        if (binding.partition_set, result.partition_key) in ours:
            continue
        recorded = binding.published(result.result_data)
        names = {f"{one.collection}/{one.name}" for one in recorded if one.kind == "blob"} & claimed.keys()
        if any(claimed[name] != (result.asset, result.partition_key) for name in names):
            continue  # what it left has gone over to another
        for published in _left_elsewhere(recorded, binding.partition_set, ours):
            for pair in holders.get((published.kind, published.collection, published.name), ()):
                shared[pair] = f"{result.asset} '{result.partition_key}'"
    return shared


def _left_elsewhere(
    recorded: Iterable[Published], partition_set: str, ours: Collection[tuple[str, str]]
) -> Iterator[Published]:
    """Without what is shown by a partition that is taken back."""
    for one in recorded:
        if one.partition is None or (partition_set, _key(one.partition)) not in ours:
            yield one


def _words(keys: Iterable[tuple[str, str, str]]) -> list[str]:
    """A piece of each name that stands in a result as it is, whatever the encoding; none where that is no help."""
    words = {max(re.findall("[A-Za-z0-9]+", name) or [""], key=len) for _, _, name in keys}
    return sorted(words) if "" not in words and len(words) <= _WORDS_AT_MOST else []


def _as_it_is(services: Mapping[str, Any], thing: Thing, shared_with: str | None) -> Thing:
    outcome, detail = _LOOKS[thing.kind](services, thing)
    if shared_with is not None and outcome is not Fate.ABSENT:
        outcome, detail = Fate.SHARED, f"{shared_with} published it, too"
    return replace(thing, outcome=outcome, detail=detail)


def _blob_as_it_is(services: Mapping[str, Any], thing: Thing) -> tuple[Fate, str]:
    try:
        found = services["blobs"].head(thing.collection, thing.name)
    except (BlobNotFoundError, ContainerNotFoundError):
        return Fate.ABSENT, ""
    if found.etag in thing.versions:
        return Fate.PRESENT, ""
    return Fate.CHANGED, f"replaced on {found.last_modified:%Y-%m-%d %H:%M:%S} UTC by something else"


def _item_as_it_is(services: Mapping[str, Any], thing: Thing) -> tuple[Fate, str]:
    try:
        item = services["catalog"].get_item(thing.collection, thing.name)
    except DamagedItemError:
        return Fate.PRESENT, ""  # nothing is left in it that somebody may want to keep
    if item is None:
        return Fate.ABSENT, ""
    described = described_thing(item)
    if not thing.about or described in thing.about:
        return Fate.PRESENT, ""
    return Fate.CHANGED, f"it describes {'/'.join(described) if described else 'something else'} now"


def _table_as_it_is(services: Mapping[str, Any], thing: Thing) -> tuple[Fate, str]:
    changed = Fate.CHANGED, "another table is there, or rows were loaded since"
    try:
        version = services["tables"].check_target(thing.collection, thing.name, "append")
    except TableInUseError:  # nothing is added to what is not ours
        return changed
    if version is None:
        return Fate.ABSENT, ""
    if blockers := services["tables"].blockers(thing.collection, thing.name):
        return Fate.BLOCKED, f"in use by {_listed(blockers)}: remove these first"
    if version not in thing.versions:
        return changed
    if services["tables"].touched(thing.collection, thing.name):
        return Fate.CHANGED, "rows were added or removed since"
    return Fate.PRESENT, ""


_LOOKS: Mapping[str, Callable[[Mapping[str, Any], Thing], tuple[Fate, str]]] = {
    "blob": _blob_as_it_is,
    "item": _item_as_it_is,
    "table": _table_as_it_is,
}


# --- taking it back ------------------------------------------------------------------------------------------------


def _goes(thing: Thing, *, force: bool) -> bool:
    return thing.outcome is Fate.PRESENT or (force and thing.outcome is Fate.CHANGED)


def _settle(todo: dict[str, Taken], ended: Mapping[tuple[str, Thing], Thing]) -> None:
    for key, one in todo.items():
        todo[key] = replace(one, things=tuple(ended.get((key, thing), thing) for thing in one.things))


def _failed(thing: Thing, error: GeoAssetsError) -> Thing:
    return replace(thing, outcome=Fate.FAILED, detail=redact(str(error)))


def _remove_items(services: Mapping[str, Any], todo: dict[str, Taken], *, force: bool) -> None:
    # a collection is brought up to date once, however many of its items go
    by_collection: defaultdict[str, list[tuple[str, Thing]]] = defaultdict(list)
    for key, one in todo.items():
        for thing in () if _stays(one) else one.things:
            if thing.kind == "item" and _goes(thing, force=force):
                by_collection[thing.collection].append((key, thing))
    ended: dict[tuple[str, Thing], Thing] = {}
    for collection, pairs in by_collection.items():
        try:
            outcomes = services["catalog"].delete_items(collection, [thing.name for _, thing in pairs])
        except GeoAssetsError as error:
            ended.update({pair: _failed(pair[1], error) for pair in pairs})
            continue
        for pair, outcome in zip(pairs, outcomes, strict=True):
            fate = Fate.REMOVED if outcome.status == "deleted" else Fate.ABSENT
            ended[pair] = replace(pair[1], outcome=fate)
    _settle(todo, ended)


def _remove_data(services: Mapping[str, Any], todo: dict[str, Taken], *, force: bool) -> None:
    """Remove tables and blobs."""
    # data whose item could not be removed stays, or readers would follow the item into nothing
    pairs = [
        (key, thing)
        for key, one in todo.items()
        if not _stays(one)
        for thing in one.things
        if thing.kind != "item" and _goes(thing, force=force)
    ]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        ended = list(pool.map(lambda pair: _without(services, pair[1], force=force), pairs))
    _settle(todo, dict(zip(pairs, ended, strict=True)))


def _without(services: Mapping[str, Any], thing: Thing, *, force: bool) -> Thing:
    try:
        # looked at once more: the plan may have taken a while
        outcome, detail = _LOOKS[thing.kind](services, thing)
        if not _goes(replace(thing, outcome=outcome), force=force):
            return replace(thing, outcome=outcome, detail=detail)
        if thing.kind == "table":
            versions = None if force else sorted(thing.versions)
            services["tables"].drop(thing.collection, thing.name, versions=versions)
        else:
            services["blobs"].delete(thing.collection, thing.name)
    except BlobNotFoundError:
        return replace(thing, outcome=Fate.ABSENT, detail="")
    except GeoAssetsError as error:
        return _failed(thing, error)
    return replace(thing, outcome=Fate.REMOVED)


def _stays(one: Taken) -> bool:
    return any(thing.outcome in (Fate.FAILED, Fate.BLOCKED) for thing in one.things)


def _wipe_states(wipe: Wipe, todo: dict[str, Taken]) -> None:
    keys = [key for key, one in todo.items() if not _stays(one)]
    if not keys:
        return
    shown_by = {_key(thing.partition) for key in keys for thing in todo[key].things if thing.partition}
    for asset in todo[keys[0]].assets:
        wipe(asset, sorted({*keys, *shown_by}))
    for key in keys:
        todo[key] = replace(todo[key], complete=True)


def _note_newcomers(machine: CoreMachine, asset: str, before: Sequence[Taken], todo: dict[str, Taken]) -> None:
    """A job that began after the plan may have written what was then removed; it is not withdrawn."""
    family = _family(machine.registry, asset)
    attempts = _attempts_by_key(machine.ledger, family, list(todo))
    started = {one.partition_key: one.seen for one in before}
    for key, one in todo.items():
        new = [attempt for attempt in attempts.get(key, []) if attempt.attempt_id > started[key]]
        if new:
            names = _listed([f"{attempt.job_type} {attempt.job_id[:12]}" for attempt in new])
            todo[key] = replace(one, note=f"submitted meanwhile: {names}; run it once more with --force")


def _key(name: str) -> str:
    return str(encode_partition_key(name))


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more
