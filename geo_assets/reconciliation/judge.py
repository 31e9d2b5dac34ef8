"""Each difference looked at once more, by itself, before anybody is told; and what would mend it.

What belongs here: deciding what one suspect is counted as, and the finding where it is wrong.  What does not: finding
suspects (``compare``), and mending (``repairing``).

Listings take minutes, and jobs go on meanwhile.  So whatever belongs to a partition that has a job under way, or had
one since the reconciliation began, is counted as at work; the next reconciliation judges it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import batched
from typing import Any

from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import (
    BlobNotFoundError,
    ContainerNotFoundError,
    DamagedItemError,
    GeoAssetsError,
    NotFoundError,
    ParameterError,
    UnsupportedNameError,
)
from geo_assets.reconciliation import recorded, wording
from geo_assets.reconciliation.findings import WRONG, Direction, Fate, Finding
from geo_assets.reconciliation.looks import DAMAGED, blob_of_href, root_of
from geo_assets.reconciliation.recorded import Activity
from geo_assets.stac.items import described_thing
from geo_assets.stores.blobs import BlobProperties, holds_anything
from geo_assets.stores.catalog import present_item, references_of

__all__ = ["Judge"]

_AT_ONCE = 8
_CHUNK = 1000
_CLOCKS = timedelta(seconds=5)
"""How far the clock of a blob store may be from ours."""

Row = Mapping[str, Any]
Judged = tuple[Fate, Finding | None]
"""What one row is counted as, and what is said of it."""


class Judge:
    """Looks once more, and keeps the findings.

    Args:
        machine: the parts.
        started: when the reconciliation began.
        problems: stores that could not be read, and why.
        deep: whether the rows of tables are counted.
        keep: most findings that are kept of each direction and fate; all are counted.
    """

    def __init__(
        self, machine: CoreMachine, *, started: datetime, problems: Mapping[str, str], deep: bool, keep: int
    ) -> None:
        self._deep = deep
        self._machine, self._services, self._ledger = machine, machine.services, machine.ledger
        self._started, self._problems, self._keep = started, problems, keep
        self._activity: Activity = recorded.active_now(machine.ledger, machine.registry, started)
        self._sets: dict[str, list[str]] = {}
        for binding in machine.registry.values():
            self._sets.setdefault(binding.partition_set, []).append(binding.asset)
        self._set_of = {binding.asset: binding.partition_set for binding in machine.registry.values()}
        self._publishing = {binding.asset for binding in machine.registry.values() if binding.publishes}
        self._kept: Counter[tuple[Direction, Fate]] = Counter()
        self._holding: dict[tuple[str, str], bool] = {}
        self._collections: frozenset[str] | None = None
        self.findings: list[Finding] = []
        self.beyond: Counter[str] = Counter()
        """Direction and fate → findings that are only counted."""
        self.left_to_mend = 0
        """Those of them that a repair could mend."""
        self.ended: set[tuple[str, str]] = set()
        """Partitions whose source is gone with all that was made of it."""

    def add(self, finding: Finding) -> None:
        """Keep a finding, or only count it."""
        key = (finding.direction, finding.fate)
        self._kept[key] += 1
        if self._kept[key] <= self._keep:
            self.findings.append(finding)
        else:
            self.beyond[f"{finding.direction.value}: {finding.fate.value}"] += 1
            self.left_to_mend += finding.action is not None

    # --- ledger → stores

    def missed(self, rows: Sequence[Row]) -> Counter[Fate]:
        """Recorded things that are missing or changed, of one kind; returns what they are counted as."""
        return self._judged(rows, self._missed_chunk)

    def _missed_chunk(self, rows: Sequence[Row]) -> list[Judged]:
        busy = self._busy((row["asset"], row["partition"]) for row in rows)
        again = self._side_by_side(self._as_recorded_now, rows)
        wrong = [
            row for row, (fate, _) in zip(rows, again, strict=True)
            if fate in WRONG and (row["asset"], row["partition"]) not in busy
        ]  # fmt: skip
        sources = self._sources({(row["job_type"], row["job_id"]) for row in wrong})
        others = recorded.known_jobs(self._ledger, (one for row in wrong for one in row["pointing_jobs"] or ()))
        judged: list[Judged] = []
        for row, (fate, detail) in zip(rows, again, strict=True):
            source = sources.get((row["job_type"], row["job_id"]), "there")
            settled = fate
            if fate in WRONG and (row["asset"], row["partition"]) in busy:
                settled = Fate.AT_WORK
            elif fate is Fate.CHANGED and row["kind"] == "blob" and self._by_bulk(row["pointing_jobs"] or (), others):
                settled = Fate.PRESENT
            elif fate is Fate.MISSING and source in ("gone", "empty") and self._ends_with_source(row):
                settled = Fate.ENDED
                self.ended.add((row["shown_asset"], row["shown_key"]))
            judged.append((settled, wording.missed(row, settled, detail, source) if settled in WRONG else None))
        return judged

    def _as_recorded_now(self, row: Row) -> tuple[Fate, str]:
        match row["kind"]:
            case "blob":
                return self._blob_now(row)
            case "item":
                return self._item_now(row)
            case _:
                return self._table_now(row)

    def _blob_now(self, row: Row) -> tuple[Fate, str]:
        found = self._head(row["collection"], row["name"])
        if found is None:
            return Fate.MISSING, "it is not there"
        if found.etag in row["versions"]:
            return Fate.PRESENT, ""
        when = f"{found.last_modified:%Y-%m-%d %H:%M:%S} UTC"
        return Fate.CHANGED, f"it was replaced on {when} by something that no job recorded"

    def _item_now(self, row: Row) -> tuple[Fate, str]:
        try:
            item = self._services["catalog"].get_item(row["collection"], row["name"])
        except DamagedItemError as error:
            return Fate.CHANGED, f"its file is no item any more: {error}"
        if item is None:
            return Fate.MISSING, "it is not there"
        if not self._is_listed(row["collection"]):
            return Fate.MISSING, "its collection is not in the catalog any more"
        about, now = (row["about_holder"], row["about_name"]), described_thing(item)
        if about in ((None, None), now):
            return Fate.PRESENT, ""
        return Fate.CHANGED, f"it describes {'/'.join(now) if now else 'something else'} now, not {'/'.join(about)}"

    def _table_now(self, row: Row) -> tuple[Fate, str]:
        tables = self._services["tables"]
        record = tables.record(row["collection"], row["name"])
        if record is None:
            if row["name"] not in tables.list_tables(row["collection"]):
                return Fate.MISSING, "it is not there"
            return Fate.CHANGED, "another table has its name"
        if record.version in row["versions"]:
            if self._deep and tables.touched(row["collection"], row["name"]):
                return Fate.CHANGED, "rows were added or removed since"
            return Fate.PRESENT, ""
        return Fate.CHANGED, "it was loaded again by something that no job recorded"

    def _ends_with_source(self, row: Row) -> bool:
        """Whether a thing is rightly gone with the source of its job: an item of the source itself, or a picture."""
        if row["kind"] == "blob":
            return bool(row["collection"] == self._machine.settings.thumbnail_container)
        if row["kind"] != "item" or row["about_holder"] is None:
            return False
        about = {f"{row['about_holder']}{between}{row['about_name']}" for between in "/."}
        return _name_of(row["partition"]) in about

    # --- stores → ledger

    def strange(self, rows: Sequence[Row]) -> Counter[Fate]:
        """Things in the stores that are not recorded, of one kind; returns what they are counted as."""
        return self._judged(rows, self._strange_chunk)

    def _strange_chunk(self, rows: Sequence[Row]) -> list[Judged]:
        ids = {row["job_id"] for row in rows if row["job_id"]} | {
            one for row in rows for one in row["pointing_jobs"] or ()
        }
        known = recorded.known_jobs(self._ledger, ids)
        first = [self._strange_fate(row, known) for row in rows]
        suspects = [row for row, fate in zip(rows, first, strict=True) if fate is Fate.UNKNOWN]
        there = dict(zip(map(_place, suspects), self._side_by_side(self._still_there, suspects), strict=True))
        claims = recorded.claimed_names(
            self._ledger, [f"{row['collection']}/{row['name']}" for row in suspects if row["kind"] == "blob"]
        )
        busy = self._busy(claims.values())
        jobs = recorded.latest_jobs(self._ledger, set(claims.values()) - busy)
        sources = self._sources(jobs.values())
        judged: list[Judged] = []
        for row, fate in zip(rows, first, strict=True):
            claim = claims.get(f"{row['collection']}/{row['name']}") if row["kind"] == "blob" else None
            if fate is not Fate.UNKNOWN:
                judged.append((fate, None))
            elif not there[_place(row)] or claim in busy:
                judged.append((Fate.AT_WORK, None))
            elif claim is not None:
                judged.append((Fate.LEFT_BEHIND, wording.left_behind(row, claim, jobs.get(claim), sources)))
            else:
                judged.append((fate, wording.unknown(row)))
        return judged

    def _strange_fate(self, row: Row, known: Mapping[str, Any]) -> Fate:
        if _place(row) in self._activity.things:
            return Fate.AT_WORK
        if row["job_id"] in known or any(one in known for one in row["pointing_jobs"] or ()):
            return Fate.BY_OTHERS
        if row["kind"] == "blob":
            if self._problems.get("catalog") and row["collection"] == self._machine.settings.thumbnail_container:
                return Fate.NOT_JUDGED
            if self._activity.any and row["modified"] is not None and row["modified"] >= self._activity.since - _CLOCKS:
                return Fate.AT_WORK
        return Fate.UNKNOWN

    def _still_there(self, row: Row) -> bool:
        match row["kind"]:
            case "blob":
                # a listing shows what cannot be opened as well
                return row["problem"] is not None or self._blob_is_there(row)
            case "item":
                # what is damaged need not have the name of an item
                return row["version"] == DAMAGED or self._item_is_there(row)
            case _:
                return self._services["tables"].record(row["collection"], row["name"]) is not None

    def _item_is_there(self, row: Row) -> bool:
        try:
            return self._services["catalog"].get_item(row["collection"], row["name"]) is not None
        except DamagedItemError:
            return True

    def _is_listed(self, collection: str) -> bool:
        """Whether a collection is in the catalog: item files may outlive its document."""
        if self._collections is None:
            self._collections = frozenset(self._services["catalog"].list_collections())
        return collection in self._collections

    # --- catalog → stores

    def dangling(self, rows: Sequence[Row]) -> Counter[Fate]:
        """References into nothing, of one kind; returns what they are counted as."""
        return self._judged(rows, self._dangling_chunk)

    def _dangling_chunk(self, rows: Sequence[Row]) -> list[Judged]:
        known = recorded.known_jobs(self._ledger, (row["job_id"] for row in rows if row["job_id"]))
        busy = self._busy((asset, key) for found in known.values() for _, asset, key in found)
        again = self._side_by_side(self._pointed_now, rows)
        jobs = {job_id: self._publisher(job_id, found) for job_id, found in known.items()}
        sources = self._sources(job for job in jobs.values() if job is not None)
        judged: list[Judged] = []
        for row, fate in zip(rows, again, strict=True):
            owners = known.get(row["job_id"], [])
            if fate is Fate.DANGLING and any((asset, key) in busy for _, asset, key in owners):
                judged.append((Fate.AT_WORK, None))
            elif fate is Fate.DANGLING:
                job = jobs.get(row["job_id"])
                source = sources[job] if job is not None else self._bulk_source(row) if owners else "foreign"
                if source == "gone" and not self._holds_something(row["kind"], row["collection"]):
                    source = "empty"
                judged.append((fate, wording.dangling(row, owners, job, source)))
            else:
                judged.append((fate, None))
        return judged

    def _pointed_now(self, row: Row) -> Fate:
        item = present_item(self._services["catalog"], row["item_collection"], row["item_id"])
        if item is None:
            return Fate.AT_WORK
        if row["kind"] == "table":
            return Fate.PRESENT if self._table_is_there(row["collection"], row["name"]) else Fate.DANGLING
        root = root_of(self._services["blobs"], self._machine.settings.silver_container)
        if (row["collection"], row["name"]) not in {blob_of_href(one, root) for one in references_of(item).hrefs}:
            return Fate.AT_WORK  # somebody wrote the item anew
        return Fate.PRESENT if self._blob_is_there(row) else Fate.DANGLING

    def _table_is_there(self, schema: str, table: str) -> bool:
        tables = self._services["tables"]
        return tables.record(schema, table) is not None or table in tables.list_tables(schema)

    def _publisher(self, job_id: str, jobs: Iterable[tuple[str, str, str]]) -> tuple[str, str] | None:
        """Type and id of the job, if it is one that records single things."""
        for job_type, _, _ in jobs:
            binding = self._machine.registry.get(job_type)
            if binding is not None and binding.publishes:
                return job_type, job_id
        return None

    def _bulk_source(self, row: Row) -> str:
        """A job of a whole container describes blobs that are their own source."""
        if not row["described"]:
            return "bulk"
        return "gone" if self._services["blobs"].container_exists(row["collection"]) else "unclear"

    # --- Dagster

    def not_shown(self, rows: Sequence[Row]) -> Counter[Fate]:
        """Partitions that a job materialized and Dagster does not show; returns what they are counted as."""
        return self._judged(rows, self._not_shown_chunk)

    def _not_shown_chunk(self, rows: Sequence[Row]) -> list[Judged]:
        busy = self._busy((row["asset"], row["key"]) for row in rows)
        judged: list[Judged] = []
        for row in rows:
            pair = (row["asset"], row["key"])
            fate = Fate.AT_WORK if pair in busy else Fate.ENDED if pair in self.ended else Fate.NOT_SHOWN
            judged.append((fate, wording.not_shown(row) if fate is Fate.NOT_SHOWN else None))
        return judged

    def shown_only(self, rows: Sequence[Row]) -> Counter[Fate]:
        """Partitions that Dagster shows and no record explains; returns what they are counted as."""
        return self._judged(rows, self._shown_only_chunk)

    def _shown_only_chunk(self, rows: Sequence[Row]) -> list[Judged]:
        explained: set[tuple[str, str]] = set()
        for asset in sorted({row["asset"] for row in rows}):
            keys = [row["key"] for row in rows if row["asset"] == asset]
            family = self._sets[self._set_of[asset]]
            # an asset that publishes nothing, such as a validation, is never taken back: it is still shown when what
            # else the same job made is gone
            known = recorded.attempted_keys(self._ledger, family, keys, withdrawn=asset not in self._publishing)
            explained.update((asset, key) for key in known)
        judged: list[Judged] = []
        for row in rows:
            if (row["asset"], row["key"]) in explained:
                judged.append((Fate.BY_OTHERS, None))
            elif self._problems.get("catalog"):
                judged.append((Fate.NOT_JUDGED, None))
            elif self._activity.any:
                judged.append((Fate.AT_WORK, None))
            else:
                judged.append((Fate.UNKNOWN, wording.shown_only(row)))
        return judged

    # --- inside

    def _judged(self, rows: Sequence[Row], judge: Callable[[Sequence[Row]], list[Judged]]) -> Counter[Fate]:
        counts: Counter[Fate] = Counter()
        for chunk in batched(rows, _CHUNK):
            for fate, finding in judge(chunk):
                counts[fate] += 1
                if finding is not None:
                    self.add(finding)
        return counts

    def _busy(self, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these partitions for which a job of any asset of their kind is, or was, at work."""
        wanted = set(pairs)
        family = {
            (other, key) for asset, key in wanted for other in self._sets.get(self._set_of.get(asset, ""), [asset])
        }
        busy = recorded.busy_partitions(self._ledger, family, self._started)
        at_work = {(self._set_of.get(asset, asset), key) for asset, key in busy}
        return {(asset, key) for asset, key in wanted if (self._set_of.get(asset, asset), key) in at_work}

    def _sources(self, jobs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """(job type, job id) → what it reads is ``there``, ``gone``, ``unclear``, or its whole container ``empty``."""
        wanted = sorted(set(jobs))
        parameters = recorded.parameters_of(self._ledger, wanted)
        states = self._side_by_side(lambda job: self._source(job[0], parameters.get(job)), wanted)
        return dict(zip(wanted, states, strict=True))

    def _source(self, job_type: str, parameters: dict[str, Any] | None) -> str:
        binding = self._machine.registry.get(job_type)
        if binding is None or parameters is None:
            return "unclear"
        try:
            binding.source_version(parameters, self._services)
        except NotFoundError as error:
            return self._absence(error)
        except GeoAssetsError:
            return "unclear"
        return "there"

    def _absence(self, error: NotFoundError) -> str:
        """What it means that a source is not there: all of its container may be away for other reasons."""
        if isinstance(error, BlobNotFoundError) and error.container is not None:
            return "gone" if self._holds_something("blob", error.container) else "empty"
        return "unclear" if isinstance(error, BlobNotFoundError | ContainerNotFoundError) else "gone"

    def _holds_something(self, kind: str, holder: str) -> bool:
        """Whether a container, or the tables, hold anything at all: a disk that is not mounted is an empty folder."""
        if (kind, holder) not in self._holding:
            self._holding[kind, holder] = self._has_tables(holder) if kind == "table" else self._has_blobs(holder)
        return self._holding[kind, holder]

    def _has_tables(self, schema: str) -> bool:
        tables = self._services["tables"]
        return bool(tables.list_tables(schema)) or next(iter(tables.records()), None) is not None

    def _has_blobs(self, container: str) -> bool:
        try:
            return holds_anything(self._services["blobs"], container)
        except GeoAssetsError:
            return False  # nothing is removed because of what cannot be listed

    def _blob_is_there(self, row: Row) -> bool:
        return self._head(row["collection"], row["name"]) is not None

    def _head(self, container: str, name: str) -> BlobProperties | None:
        try:
            found: BlobProperties = self._services["blobs"].head(container, name)
        except (BlobNotFoundError, ContainerNotFoundError, UnsupportedNameError):
            return None
        return found

    def _by_bulk(self, job_ids: Iterable[str], known: Mapping[str, Sequence[tuple[str, str, str]]]) -> bool:
        """Whether a job that records no single things made an item of it since, with a new picture."""
        types = {job_type for job_id in job_ids for job_type, _, _ in known.get(job_id, ())}
        return any(one in self._machine.registry and not self._machine.registry[one].publishes for one in types)

    def _side_by_side[T, R](self, look: Callable[[T], R], rows: Sequence[T]) -> list[R]:
        if len(rows) <= 1:
            return [look(row) for row in rows]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(look, rows))


def _name_of(partition_key: str) -> str:
    try:
        return decode_partition_key(partition_key)
    except ParameterError:
        return partition_key


def _place(row: Row) -> tuple[str, str, str]:
    return row["kind"], row["collection"], row["name"]
