"""What Dagster's storage keeps that nobody is shown any more: a corner that leans on names Dagster does not promise.

What belongs here: finding and removing old runs with their logs, events that many newer ones of their partition have
replaced, and the step events of runs that are kept; who is shown, and what is under way.  What does not: SQLite's file
of each run (``run_files``), how long things are kept, and everything outside Dagster (``geo_assets.clean_up``).

A partition shows what its latest materialization, planned event, observation and check evaluation say, and looks up the
runs of these.  So a run may go when no (asset, partition) has its latest event of any type from it; that is one
query.  Dagster's own ``delete_run`` asks nobody, and leaves behind the check evaluations, and on SQLite the run's file.

All is selected first and removed then, by id, some rows a transaction with a pause after each: an index of SQLite has
one writer at a time.  Whatever is removed twice was removed once.  A run's row goes last, so that a clean-up that was
killed finds it again.

Where a Dagster upgrade changed the names, nothing of this is removed, with a warning; a test fails then, so that
somebody notices.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.events import NO_RUN
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.run_files import FILES_AVAILABLE, TRIMMED, file_size, naive, run_files, unlink

try:
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES, BulkActionsFilter, BulkActionStatus
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        AssetKeyTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from dagster._core.storage.runs.schema import RunsTable, RunTagsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    RETENTION_AVAILABLE = True
except ImportError:  # pragma: no cover - a future Dagster
    RETENTION_AVAILABLE = False

__all__ = ["Busy", "History", "HistoryPlan", "Shown", "is_available"]

_log = logging.getLogger(__name__)

_ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
_ROWS = 500
"""Rows a transaction."""
_PAUSE_SECONDS = 0.02
"""After a transaction, for those who wait for the lock."""
_TRIES = 5
_PARTITION_TAGS = ("dagster/partition", "dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
_BACKFILL_TAG = "dagster/backfill"

_SHOWN_TYPES = tuple(
    one.value
    for one in (
        dg.DagsterEventType.ASSET_MATERIALIZATION,
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
        dg.DagsterEventType.ASSET_OBSERVATION,
    )
)


@dataclass(frozen=True, kw_only=True)
class HistoryPlan:
    """What would go, chosen before anything is removed; the oldest first."""

    known: bool = True
    """Whether this Dagster's storage is one that is known here; otherwise nothing is chosen."""
    runs: tuple[str, ...] = ()
    kept: int = 0
    """Old runs that are kept, as partitions show them or somebody needs them."""
    run_events: int = 0
    """Events in the common index that go with these runs."""
    run_bytes: int = 0
    superseded: tuple[int, ...] = ()
    """Ids of asset events."""
    superseded_bytes: int = 0
    checks: tuple[int, ...] = ()
    """Ids of check executions that many newer ones have replaced."""
    trimmed: Mapping[str, int] = field(default_factory=dict)
    """Run → number of its step events and messages."""
    trimmed_bytes: int = 0
    runless: int = 0
    """Copies of events that no run wrote, in a file that nothing shows (SQLite)."""
    orphans: tuple[Path, ...] = ()
    """Files of runs that are not there any more."""
    orphan_bytes: int = 0
    more: bool = False
    """Whether there is more than one clean-up removes."""
    before: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What an asset shows of partitions, by key."""

    materialized: frozenset[str]
    planned: frozenset[str]
    """A job said that it would materialize them: failed, where they are not materialized."""
    observed: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Busy:
    """Partitions that runs and backfills under way name."""

    assets: frozenset[str] | None
    """Assets of which any partition may be meant; ``None``: of all assets."""
    keys: frozenset[str]

    def touches(self, assets: Collection[str]) -> bool:
        """Whether any partition of these assets may be meant."""
        return self.assets is None or not self.assets.isdisjoint(assets)


def is_available(instance: dg.DagsterInstance) -> bool:
    """Whether the storage of this instance is one that is known here."""
    events: Any = instance.event_log_storage
    return (
        RETENTION_AVAILABLE
        and FILES_AVAILABLE
        and isinstance(events, SqlEventLogStorage)
        and isinstance(_runs(instance), SqlRunStorage)
        and all(hasattr(events, name) for name in ("index_connection", "index_transaction", "has_table"))
        and all(hasattr(_runs(instance), name) for name in ("connect", "get_run_ids"))
    )


def _runs(instance: dg.DagsterInstance) -> Any:
    return instance.run_storage


class History:
    """Dagster's storage as the clean-up sees it."""

    def __init__(self, instance: dg.DagsterInstance, *, pause_seconds: float = _PAUSE_SECONDS) -> None:
        self._instance = instance
        self._events: Any = instance.event_log_storage
        self._pause = pause_seconds
        self._files = run_files(instance)

    # --- choosing ---------------------------------------------------------------------------------------------

    def plan(
        self,
        *,
        before: datetime,
        needed: Collection[str],
        needed_tags: Mapping[str, Sequence[str]],
        keep_events: int,
        at_most: int,
    ) -> HistoryPlan:
        """Choose what may go; nothing is changed.

        Args:
            before: what ended or was written later stays.
            needed: ids of runs that stay whatever partitions show.
            needed_tags: tag → values; runs with one of these stay as well.
            keep_events: how many events of a type a partition keeps.
            at_most: most runs of a kind, and ten times as many events, in one plan.
        """
        if not is_available(self._instance):
            _log.warning("old runs and events stay: retention.py does not know the storage of this Dagster")
            return HistoryPlan(known=False)
        old = self._old_runs(before)
        needed = {*needed, *self._in_use(needed_tags)}
        stay = self._shown_runs() | needed
        free = [run_id for run_id in old if run_id not in stay]
        runs = free[:at_most]
        trimmed, trimmed_bytes, more_to_trim = self._to_trim(
            [run_id for run_id in old if run_id in stay and run_id not in needed], at_most
        )
        superseded, superseded_bytes, more_superseded = self._superseded(before, keep_events, set(runs), at_most * 10)
        checks = self._superseded_checks(before, keep_events, set(runs), at_most * 10)
        there = set(_runs(self._instance).get_run_ids()) if self._files is not None else set()
        orphans = self._files.orphans(before, there) if self._files is not None else []
        run_events, run_bytes = self._size_of(runs)
        return HistoryPlan(
            runs=tuple(runs),
            kept=len(old) - len(free),
            run_events=run_events,
            run_bytes=run_bytes,
            superseded=superseded,
            superseded_bytes=superseded_bytes,
            checks=checks,
            trimmed=trimmed,
            trimmed_bytes=trimmed_bytes,
            runless=self._files.count_runless(before) if self._files is not None else 0,
            before=before,
            orphans=tuple(orphans[:at_most]),
            orphan_bytes=sum(file_size(path) for path in orphans[:at_most]),
            more=len(free) > at_most or more_to_trim or more_superseded or len(orphans) > at_most,
        )

    def _old_runs(self, before: datetime) -> list[str]:
        ended = dg.RunsFilter(statuses=list(_ENDED), updated_before=before.astimezone(UTC))
        # newest first, and there is no other order
        return list(reversed(_runs(self._instance).get_run_ids(ended)))

    def _in_use(self, needed_tags: Mapping[str, Sequence[str]]) -> set[str]:
        """Runs of backfills in progress, those that runs under way come from, and those with a tag that is needed."""
        tags = {name: list(values) for name, values in needed_tags.items()}
        tags.setdefault(_BACKFILL_TAG, []).extend(one.backfill_id for one in self._backfills())
        found: set[str] = set()
        for name, values in tags.items():
            for chunk in chunks(values, _ROWS):
                found.update(_runs(self._instance).get_run_ids(dg.RunsFilter(tags={name: list(chunk)})))
        for run in self._runs_under_way():
            found.update(one for one in (run.parent_run_id, run.root_run_id) if one)
        return found

    def _backfills(self) -> list[Any]:
        open_ones = [status for status in BulkActionStatus if status not in BULK_ACTION_TERMINAL_STATUSES]
        return list(self._instance.get_backfills(filters=BulkActionsFilter(statuses=open_ones)))

    def _runs_under_way(self) -> Sequence[dg.DagsterRun]:
        under_way = [status for status in dg.DagsterRunStatus if status not in _ENDED]
        return self._instance.get_runs(dg.RunsFilter(statuses=under_way))

    def _shown_runs(self) -> set[str]:
        """Runs that wrote the latest event of any type of any (asset, partition)."""
        rows = SqlEventLogStorageTable.c
        latest = (
            sa.select(sa.func.max(rows.id))
            .where(rows.asset_key.is_not(None))
            .group_by(rows.asset_key, rows.dagster_event_type, rows.partition)
        )
        queries = [
            sa.select(rows.run_id).where(rows.id.in_(latest)),
            sa.select(AssetKeyTable.c.last_run_id),
        ]
        if self._events.has_table(AssetCheckExecutionsTable.name):
            checks = AssetCheckExecutionsTable.c
            # of each status, so that one that never ended hides none that did
            evaluated = sa.select(sa.func.max(checks.id)).group_by(
                checks.asset_key, checks.check_name, checks.partition, checks.execution_status
            )
            queries.append(sa.select(checks.run_id).where(checks.id.in_(evaluated)))
        with self._events.index_connection() as connection:
            return {run_id for query in queries for run_id in connection.execute(query.distinct()).scalars() if run_id}

    def _superseded(
        self, before: datetime, keep: int, going: Collection[str], at_most: int
    ) -> tuple[tuple[int, ...], int, bool]:
        """Ids and size of asset events with ``keep`` newer ones of the same asset, partition and type."""
        rows = SqlEventLogStorageTable.c
        same = (rows.asset_key, rows.dagster_event_type, rows.partition)
        which = (
            rows.asset_key.is_not(None),
            # evaluations of checks go with the executions they belong to
            rows.dagster_event_type.in_(_SHOWN_TYPES),
            # what a run says of no partition is about the run, and goes with it
            sa.or_(rows.partition.is_not(None), rows.run_id == NO_RUN),
        )
        many = sa.select(*same).where(*which).group_by(*same).having(sa.func.count() > keep).order_by(*same)
        found: list[int] = []
        size = 0
        with self._events.index_connection() as connection:
            for group in connection.execute(many).all():
                older = (
                    sa.select(rows.id, rows.run_id, rows.timestamp, sa.func.length(rows.event).label("size"))
                    .where(*which, *_equal(same, group))
                    .order_by(rows.id.desc())
                    .offset(keep)
                )
                for row in connection.execute(older):
                    if row.timestamp < naive(before) and row.run_id not in going:
                        found.append(row.id)
                        size += row.size
                if len(found) >= at_most:
                    # whole groups, so that what is left is the same whoever looks
                    return tuple(found), size, True
        return tuple(found), size, False

    def _superseded_checks(self, before: datetime, keep: int, going: Collection[str], at_most: int) -> tuple[int, ...]:
        if not self._events.has_table(AssetCheckExecutionsTable.name):
            return ()
        checks = AssetCheckExecutionsTable.c
        same = (checks.asset_key, checks.check_name, checks.partition)
        many = sa.select(*same).group_by(*same).having(sa.func.count() > keep)
        found: list[int] = []
        with self._events.index_connection() as connection:
            latest = set(
                connection.execute(sa.select(sa.func.max(checks.id)).group_by(*same, checks.execution_status)).scalars()
            )
            for group in connection.execute(many.order_by(*same)).all():
                older = (
                    sa.select(checks.id, checks.run_id, checks.create_timestamp)
                    .where(*_equal(same, group))
                    .order_by(checks.id.desc())
                    .offset(keep)
                )
                found += [
                    row.id
                    for row in connection.execute(older)
                    if row.id not in latest and row.create_timestamp < naive(before) and row.run_id not in going
                ]
                if len(found) >= at_most:
                    break
        return tuple(found)

    def _to_trim(self, run_ids: Sequence[str], at_most: int) -> tuple[dict[str, int], int, bool]:
        found: dict[str, int] = {}
        size = 0
        for run_id, number, bytes_ in self._trimmable(run_ids):
            if len(found) >= at_most:
                return found, size, True
            found[run_id] = number
            size += bytes_
        return found, size, False

    def _trimmable(self, run_ids: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        if self._files is not None:
            for run_id in run_ids:
                number, size = self._files.count_trimmable(run_id)
                if number:
                    yield run_id, number, size
            return
        rows = SqlEventLogStorageTable.c
        for chunk in chunks(run_ids, _ROWS):
            query = (
                sa.select(rows.run_id, sa.func.count(), sa.func.sum(sa.func.length(rows.event)))
                .where(rows.run_id.in_(chunk), *_trimmable_rows())
                .group_by(rows.run_id)
                .order_by(rows.run_id)
            )
            with self._events.index_connection() as connection:
                counted = connection.execute(query).all()
            for run_id, number, size in counted:
                yield run_id, int(number), int(size)

    def _size_of(self, run_ids: Sequence[str]) -> tuple[int, int]:
        rows = SqlEventLogStorageTable.c
        number = size = 0
        for chunk in chunks(run_ids, _ROWS):
            query = sa.select(sa.func.count(), sa.func.sum(sa.func.length(rows.event))).where(rows.run_id.in_(chunk))
            with self._events.index_connection() as connection:
                some, length = connection.execute(query).one()
            number += int(some)
            size += int(length or 0)
        return number, size + (self._files.size(run_ids) if self._files is not None else 0)

    # --- removing ---------------------------------------------------------------------------------------------

    def carry_out(self, plan: HistoryPlan, *, goes_on: Callable[[], bool] = lambda: True) -> HistoryPlan:
        """Remove what was chosen; returns what of it is removed, which is less where ``goes_on`` says stop.

        The log of steps of a run that goes is removed with it, wherever the instance keeps such logs.
        """
        if not plan.known:
            return plan
        rows, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
        superseded = self._remove_events(plan.superseded, goes_on)
        done_checks: list[int] = []
        for chunk in chunks(plan.checks, _ROWS):
            if not goes_on():
                break
            with self._events.index_connection() as connection:
                events = sa.select(checks.evaluation_event_storage_id).where(checks.id.in_(chunk))
                ids = [one for one in connection.execute(events).scalars() if one is not None]
            self._delete(rows.id.in_(ids), checks.id.in_(chunk))
            done_checks += chunk
        runs = self._one_by_one(plan.runs, self._remove_run, goes_on)
        trimmed = self._one_by_one(tuple(plan.trimmed), self._trim, goes_on)
        runless = self._remove_runless(plan, goes_on)
        orphans = self._one_by_one(plan.orphans, unlink, goes_on)
        return HistoryPlan(
            runs=runs,
            kept=plan.kept,
            run_events=plan.run_events,
            run_bytes=plan.run_bytes,
            superseded=superseded,
            superseded_bytes=plan.superseded_bytes,
            checks=tuple(done_checks),
            trimmed={run_id: plan.trimmed[run_id] for run_id in trimmed},
            trimmed_bytes=plan.trimmed_bytes,
            runless=runless,
            before=plan.before,
            orphans=orphans,
            orphan_bytes=plan.orphan_bytes,
            more=plan.more or runs != plan.runs or superseded != plan.superseded or len(trimmed) < len(plan.trimmed),
        )

    def _one_by_one[T](
        self, things: Sequence[T], remove: Callable[[T], None], goes_on: Callable[[], bool]
    ) -> tuple[T, ...]:
        done: list[T] = []
        for thing in things:
            if not goes_on():
                break
            remove(thing)
            done.append(thing)
        return tuple(done)

    def _remove_events(self, ids: Sequence[int], goes_on: Callable[[], bool] = lambda: True) -> tuple[int, ...]:
        has_tags = self._events.has_table(AssetEventTagsTable.name)
        done: list[int] = []
        for chunk in chunks(ids, _ROWS):
            if not goes_on():
                break
            tags = [AssetEventTagsTable.c.event_id.in_(chunk)] if has_tags else []
            self._delete(*tags, SqlEventLogStorageTable.c.id.in_(chunk))
            done += chunk
        return tuple(done)

    def _delete(self, *conditions: Any, where: Callable[[], Any] | None = None) -> None:
        """Delete the rows of each condition's table in one transaction, then let others have the lock."""

        def delete() -> None:
            with (where or self._events.index_transaction)() as connection:
                for condition in conditions:
                    connection.execute(sa.delete(condition.left.table).where(condition))

        _patiently(delete)
        time.sleep(self._pause)

    def _remove_run(self, run_id: str) -> None:
        rows, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
        with self._events.index_connection() as connection:
            ids = list(connection.execute(sa.select(rows.id).where(rows.run_id == run_id)).scalars())
        self._remove_events(ids)
        if self._events.has_table(AssetCheckExecutionsTable.name):
            self._delete(checks.run_id == run_id)
        if self._files is not None:
            self._files.remove(run_id)
        try:
            self._instance.compute_log_manager.delete_logs(prefix=[run_id])
        except Exception as error:  # noqa: BLE001 - whatever the manager of another is: the logs are all that stays
            _log.warning("the logs of the steps of run %s stay: %s", run_id, type(error).__name__)
        # SQLite leaves the tags where they are, as Dagster does not switch its foreign keys on
        where = _runs(self._instance).connect
        self._delete(RunTagsTable.c.run_id == run_id, RunsTable.c.run_id == run_id, where=where)

    def _trim(self, run_id: str) -> None:
        if self._files is not None:
            self._files.trim(run_id)
            return
        rows = SqlEventLogStorageTable.c
        with self._events.index_connection() as connection:
            query = sa.select(rows.id).where(rows.run_id == run_id, *_trimmable_rows())
            ids = list(connection.execute(query).scalars())
        self._remove_events(ids)

    def _remove_runless(self, plan: HistoryPlan, goes_on: Callable[[], bool]) -> int:
        removed = 0
        while self._files is not None and plan.runless and plan.before is not None and goes_on():
            number = self._files.remove_runless(plan.before, at_most=_ROWS)
            removed += number
            if number < _ROWS:
                break
            time.sleep(self._pause)
        return removed

    # --- partitions -------------------------------------------------------------------------------------------

    def keys(self, partition_set: str) -> list[str]:
        """The keys of a dynamic partition set, in the order of their making."""
        return list(self._instance.get_dynamic_partitions(partition_set))

    def shown(self, asset: str) -> Shown:
        """What an asset shows of its partitions."""
        key = dg.AssetKey.from_user_string(asset)
        by_type = (dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, dg.DagsterEventType.ASSET_OBSERVATION)
        planned, observed = (self._events.get_latest_storage_id_by_partition(key, one) for one in by_type)
        return Shown(
            materialized=frozenset(self._instance.get_materialized_partitions(key)),
            planned=frozenset(planned),
            observed=frozenset(observed),
        )

    def busy(self) -> Busy:
        """Partitions that runs and backfills under way name."""
        assets: set[str] = set()
        keys: set[str] = set()
        every = False
        for backfill in self._backfills():
            selected = backfill.asset_selection
            every = every or selected is None
            assets.update(key.to_user_string() for key in selected or ())
        for run in self._runs_under_way():
            one, first, _ = (run.tags.get(name) for name in _PARTITION_TAGS)
            keys.update([one] if one else [])
            if first is not None:
                every = every or run.asset_selection is None
                assets.update(key.to_user_string() for key in run.asset_selection or ())
        return Busy(assets=None if every else frozenset(assets), keys=frozenset(keys))

    def remove_key(self, partition_set: str, key: str) -> None:
        """Remove a partition key; one that is gone is no matter."""
        self._instance.delete_dynamic_partition(partition_set, key)

    def add_keys(self, partition_set: str, keys: Sequence[str]) -> None:
        """Add keys that were removed too early."""
        self._instance.add_dynamic_partitions(partition_set, list(keys))

    def forget(self, asset: str, keys: Sequence[str], *, who: str) -> None:
        """Let partitions show nothing any more."""
        unmaterialize(self._instance, asset=asset, partition_keys=keys, who=who)


# --- rows ------------------------------------------------------------------------------------------------------------


def _equal(columns: Sequence[Any], values: Sequence[Any]) -> list[sa.ColumnElement[bool]]:
    # not IS NOT DISTINCT FROM, for which PostgreSQL uses no index
    return [
        column.is_(None) if value is None else column == value for column, value in zip(columns, values, strict=True)
    ]


def _trimmable_rows() -> list[sa.ColumnElement[bool]]:
    rows = SqlEventLogStorageTable.c
    return [
        rows.asset_key.is_(None),
        sa.or_(rows.dagster_event_type.is_(None), rows.dagster_event_type.in_(TRIMMED)),
    ]


def _patiently(work: Callable[[], None]) -> None:
    """Do it, again where a lock was not to be had; each time it is asked for, a database waits for some seconds."""
    for _ in range(_TRIES - 1):
        with suppress(sa.exc.OperationalError):
            work()
            return
        time.sleep(1)
    work()
