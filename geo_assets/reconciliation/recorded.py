"""The ledger's side: which blobs, items and tables jobs recorded, which partitions they materialized, what is at work.

What belongs here: reading the ledger, a page at a time.  What does not: comparing it with anything.

What a job recorded *counts*, that is, must be there, where it ended well and no later job of its kind made anything
for the same partition: a workflow that makes one thing of a partition removes what it made before.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from geo_assets.coremachine.binding import Binding, Registry
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, Published, Workflow
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import attempts, claims, jobs

__all__ = [
    "ACTIVE",
    "FINISHED",
    "PAIRS",
    "THINGS",
    "Activity",
    "active_now",
    "attempted_keys",
    "busy_partitions",
    "claimed_names",
    "known_jobs",
    "latest_jobs",
    "pair_key",
    "parameters_of",
    "read_pairs",
    "read_things",
    "thing_key",
]

FINISHED = (JobStatus.COMPLETED.value, JobStatus.COMPLETED_WITH_ERRORS.value)
ACTIVE = (JobStatus.QUEUED.value, JobStatus.PROCESSING.value)
_NOTHING_DONE = (OutcomeKind.UNCHANGED.value, OutcomeKind.SKIPPED.value)
_PAGE = 1000

THINGS = {
    "kind": pl.String,
    "collection": pl.String,
    "name": pl.String,
    "version": pl.String,
    "about_holder": pl.String,
    "about_name": pl.String,
    "asset": pl.String,
    "partition": pl.String,
    "shown_asset": pl.String,
    "shown_key": pl.String,
    "job_type": pl.String,
    "job_id": pl.String,
    "attempt_id": pl.String,
    "counts": pl.Boolean,
    "due": pl.Boolean,
}
"""Columns of what jobs recorded, a row each time. ``due``: the partition that shows it must be materialized."""
PAIRS = {"asset": pl.String, "key": pl.String, "attempt_id": pl.String, "origin": pl.String}
"""Columns of partitions that must, or may, be shown: ``origin`` is ``job``, ``thing`` or ``catalog``."""


def thing_key() -> pl.Expr:
    """The key by which things, listings and references meet."""
    return pl.concat_str(["kind", "collection", "name"], separator="\x00")


def pair_key() -> pl.Expr:
    """The key by which partitions of the ledger, of Dagster and of the catalog meet."""
    return pl.concat_str(["asset", "key"], separator="\x00")


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What was at work since the reconciliation began."""

    since: datetime
    """When it began, or the earliest start of a job that is at work: what was written later may be a job's."""
    any: bool
    """Whether anything is, or was, at work."""
    job_prefixes: frozenset[str] = field(default_factory=frozenset)
    """First 16 characters of the ids of jobs that wait or are at work."""
    things: frozenset[tuple[str, str, str]] = field(default_factory=frozenset)
    """Recorded since."""


def read_things(ledger: Ledger, registry: Registry, add: Callable[[pl.DataFrame], None]) -> set[tuple[str, str]]:
    """Hand on everything that jobs recorded; returns what kinds of things are recorded in which collections."""
    publishing = {job_type: binding for job_type, binding in registry.items() if binding.publishes}
    conditions = (
        attempts.c.job_type.in_(sorted(publishing)),
        attempts.c.result_data.is_not(None),
        attempts.c.withdrawn_at.is_(None),
    )
    places: set[tuple[str, str]] = set()
    assets = frozenset(binding.asset for binding in registry.values())
    # a workflow that says nothing of other assets shows its own only
    shown = {
        job_type: assets if _tells_news(binding) else frozenset([binding.asset])
        for job_type, binding in publishing.items()
    }
    for page in _result_pages(ledger, conditions):
        rows = [row for result in page for row in _rows(publishing[result.job_type], result, shown[result.job_type])]
        places.update((row["kind"], row["collection"]) for row in rows)
        if rows:
            add(pl.DataFrame(rows, schema=THINGS))
    return places


def _result_pages(ledger: Ledger, conditions: Sequence[sa.ColumnElement[bool]]) -> Iterator[Sequence[sa.Row[Any]]]:
    # ids first: pages by the order of the key would search and sort the whole table once a page
    wanted = sa.select(attempts.c.attempt_id).where(*conditions)
    ids = sorted(ledger.read(lambda c: list(c.execute(wanted).scalars())))
    names = ("attempt_id", "job_type", "job_id", "asset", "partition_key", "status", "event_emitted", "result_data")
    query = sa.select(*(attempts.c[name] for name in names), _is_superseded().label("superseded"))
    for start in range(0, len(ids), _PAGE):
        page = query.where(attempts.c.attempt_id.in_(ids[start : start + _PAGE]))
        yield ledger.read(lambda c, q=page: c.execute(q).all())  # type: ignore[misc]


def _is_superseded() -> sa.ColumnElement[bool]:
    later = attempts.alias("later")
    return sa.exists().where(
        later.c.asset == attempts.c.asset,
        later.c.partition_key == attempts.c.partition_key,
        later.c.job_type == attempts.c.job_type,
        later.c.attempt_id > attempts.c.attempt_id,
        later.c.status.in_(FINISHED),
        later.c.outcome.not_in(_NOTHING_DONE),
        later.c.withdrawn_at.is_(None),
    )


def _tells_news(binding: Binding) -> bool:
    base = Workflow.__dict__["partition_news"]
    return inspect.getattr_static(binding.workflow, "partition_news", base) is not base


def _rows(binding: Binding, result: sa.Row[Any], shown_assets: frozenset[str]) -> Iterator[dict[str, Any]]:
    counts = result.status in FINISHED and not result.superseded
    for one in binding.published(result.result_data):
        holder, name = one.about or (None, None)
        yield {
            "kind": one.kind,
            "collection": one.collection,
            "name": one.name,
            "version": one.version,
            "about_holder": holder,
            "about_name": name,
            "asset": result.asset,
            "partition": result.partition_key,
            "shown_asset": one.asset or result.asset,
            "shown_key": _shown_key(one, result.partition_key),
            "job_type": result.job_type,
            "job_id": result.job_id,
            "attempt_id": result.attempt_id,
            "counts": counts,
            "due": counts and result.event_emitted and (one.asset or result.asset) in shown_assets,
        }


def _shown_key(published: Published, partition_key: str) -> str:
    return partition_key if published.partition is None else str(encode_partition_key(published.partition))


def read_pairs(ledger: Ledger, registry: Registry, add: Callable[[pl.DataFrame], None]) -> None:
    """Hand on every partition that a job has materialized by itself, with its latest attempt that did."""
    query = (
        sa.select(attempts.c.asset, attempts.c.partition_key, sa.func.max(attempts.c.attempt_id).label("attempt_id"))
        .where(
            attempts.c.asset.in_(sorted({binding.asset for binding in registry.values()})),
            attempts.c.status.in_(FINISHED),
            attempts.c.event_emitted,
            attempts.c.withdrawn_at.is_(None),
        )
        .group_by(attempts.c.asset, attempts.c.partition_key)
    )

    def read(c: sa.Connection) -> list[pl.DataFrame]:
        frames = []
        for rows in c.execute(query, execution_options={"yield_per": 10 * _PAGE}).partitions():
            columns = {
                "asset": [row.asset for row in rows],
                "key": [row.partition_key for row in rows],
                "attempt_id": [row.attempt_id for row in rows],
                "origin": ["job"] * len(rows),
            }
            frames.append(pl.DataFrame(columns, schema=PAIRS))
        return frames

    # handed on only when all is read: a query that the database breaks off is asked again
    for frame in ledger.read(read):
        add(frame)


# --- what is at work -----------------------------------------------------------------------------------------------


def active_now(ledger: Ledger, registry: Registry, started: datetime) -> Activity:
    """What is at work now, or has ended since a time."""

    def read(c: sa.Connection) -> tuple[list[sa.Row[Any]], int]:
        columns = (attempts.c.job_id, attempts.c.status, attempts.c.started_at)
        active = list(c.execute(sa.select(*columns).where(attempts.c.status.in_(ACTIVE))))
        ended = c.execute(sa.select(sa.func.count()).select_from(attempts).where(attempts.c.ended_at >= started))
        return active, ended.scalar_one()

    active, ended = ledger.read(read)
    starts = [row.started_at for row in active if row.status == JobStatus.PROCESSING.value and row.started_at]
    fresh: set[tuple[str, str, str]] = set()
    if ended:
        publishing = {job_type: binding for job_type, binding in registry.items() if binding.publishes}
        conditions = (
            attempts.c.job_type.in_(sorted(publishing)),
            attempts.c.result_data.is_not(None),
            attempts.c.ended_at >= started,
        )
        for page in _result_pages(ledger, conditions):
            for result in page:
                found = publishing[result.job_type].published(result.result_data)
                fresh.update((one.kind, one.collection, one.name) for one in found)
    return Activity(
        since=min([started, *starts]),
        any=bool(starts or ended),
        job_prefixes=frozenset(row.job_id[:16] for row in active),
        things=frozenset(fresh),
    )


def busy_partitions(ledger: Ledger, pairs: Iterable[tuple[str, str]], since: datetime) -> set[tuple[str, str]]:
    """Those of these (asset, partition key) that have a job under way, or whose jobs ended or were withdrawn since."""
    wanted = set(pairs)
    query = sa.select(attempts.c.asset, attempts.c.partition_key).where(
        sa.or_(
            attempts.c.status.in_(ACTIVE),
            attempts.c.ended_at >= since,
            attempts.c.withdrawn_at >= since,
        )
    )
    found: set[tuple[str, str]] = set()
    for asset in sorted({asset for asset, _ in wanted}):
        keys = sorted(key for one, key in wanted if one == asset)
        for start in range(0, len(keys), _PAGE):
            part = query.where(attempts.c.asset == asset, attempts.c.partition_key.in_(keys[start : start + _PAGE]))
            found.update((row.asset, row.partition_key) for row in ledger.read(lambda c, q=part: c.execute(q).all()))  # type: ignore[misc]
    return found


def attempted_keys(ledger: Ledger, assets: Sequence[str], keys: Sequence[str], *, withdrawn: bool = False) -> set[str]:
    """Those of these partition keys for which a job of one of these assets stands (or stood), however it ended."""
    found: set[str] = set()
    query = sa.select(attempts.c.partition_key).where(attempts.c.asset.in_(assets))
    if not withdrawn:
        query = query.where(attempts.c.withdrawn_at.is_(None))
    for start in range(0, len(keys), _PAGE):
        part = query.where(attempts.c.partition_key.in_(keys[start : start + _PAGE]))
        found.update(ledger.read(lambda c, q=part: list(c.execute(q).scalars())))  # type: ignore[misc]
    return found


def known_jobs(ledger: Ledger, job_ids: Iterable[str]) -> dict[str, list[tuple[str, str, str]]]:
    """Job id → (job type, asset, partition key) of each job of that id."""
    wanted = sorted(set(job_ids))
    found: dict[str, list[tuple[str, str, str]]] = {}
    query = sa.select(jobs.c.job_id, jobs.c.job_type, jobs.c.asset, jobs.c.partition_key)
    for start in range(0, len(wanted), _PAGE):
        part = query.where(jobs.c.job_id.in_(wanted[start : start + _PAGE]))
        for row in ledger.read(lambda c, q=part: c.execute(q).all()):  # type: ignore[misc]
            found.setdefault(row.job_id, []).append((row.job_type, row.asset, row.partition_key))
    return found


def parameters_of(ledger: Ledger, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """(job type, job id) → the job's parameters."""
    wanted = set(keys)
    ids = sorted({job_id for _, job_id in wanted})
    found: dict[tuple[str, str], dict[str, Any]] = {}
    query = sa.select(jobs.c.job_type, jobs.c.job_id, jobs.c.parameters)
    for start in range(0, len(ids), _PAGE):
        part = query.where(jobs.c.job_id.in_(ids[start : start + _PAGE]))
        for row in ledger.read(lambda c, q=part: c.execute(q).all()):  # type: ignore[misc]
            if (row.job_type, row.job_id) in wanted:
                found[row.job_type, row.job_id] = row.parameters
    return found


def claimed_names(ledger: Ledger, names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name in the stores (``container/blob``) → the partition that claims it."""
    found: dict[str, tuple[str, str]] = {}
    for start in range(0, len(names), _PAGE):
        part = claims.select().where(claims.c.name.in_(list(names[start : start + _PAGE])))
        for row in ledger.read(lambda c, q=part: c.execute(q).all()):  # type: ignore[misc]
            found[row.name] = (row.asset, row.partition_key)
    return found


def latest_jobs(ledger: Ledger, partitions: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], tuple[str, str]]:
    """(asset, partition key) → type and id of its latest job that ended, unless that one was cancelled."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    wanted = set(partitions)
    for asset in sorted({asset for asset, _ in wanted}):
        keys = sorted(key for one, key in wanted if one == asset)
        query = sa.select(jobs.c.partition_key, jobs.c.job_type, jobs.c.job_id, jobs.c.status).where(
            jobs.c.asset == asset
        )
        for start in range(0, len(keys), _PAGE):
            part = query.where(jobs.c.partition_key.in_(keys[start : start + _PAGE])).order_by(jobs.c.updated_at)
            for row in ledger.read(lambda c, q=part: c.execute(q).all()):  # type: ignore[misc]
                found.pop((asset, row.partition_key), None)
                if row.status != JobStatus.CANCELLED.value:
                    found[asset, row.partition_key] = (row.job_type, row.job_id)
    return found
