"""Let partitions show as never materialized again: a corner that leans on names Dagster does not promise.

What belongs here: taking a partition's materializations and planned events out of the index, and the note about it.
What does not: what else is taken back, and when (``geo_assets.unpublish``).

Open-source Dagster has no wipe of single partitions.  Its status is read from the rows of the event log that carry
the asset's key and the partition, and from a cache made of them.  So the rows lose both and the cache is dropped; the
rows themselves stay, so that the page of the run that wrote them still tells what it did, and no id is given twice.
Observations stay in place: they colour nothing, and tell why a partition failed and who took it back.

Where a Dagster upgrade changed the names, only the observation is written, with a warning that the partition stays
green; a test fails then, so that somebody notices.
"""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from geo_assets.coremachine import events
from geo_assets.coremachine.batches import chunks

try:
    from dagster._core.storage.event_log.schema import AssetEventTagsTable, AssetKeyTable, SqlEventLogStorageTable
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    WIPE_AVAILABLE = True
except ImportError:  # pragma: no cover - a future Dagster
    WIPE_AVAILABLE = False

_log = logging.getLogger(__name__)

_AT_ONCE = 500
"""Most partitions in one statement; an index of SQLite is locked as long as it takes."""


def unmaterialize(instance: dg.DagsterInstance, *, asset: str, partition_keys: Sequence[str], who: str) -> bool:
    """Let partitions show as never materialized, and write on each who did so; doing it twice changes nothing.

    Args:
        instance: Dagster's.
        asset: key of the asset, as in ``Binding.asset``.
        partition_keys: which; those that show nothing are left alone.
        who: for the observation.

    Returns:
        Whether the partitions show nothing now; ``False`` where this Dagster does not let us.
    """
    key = dg.AssetKey.from_user_string(asset)
    storage: Any = instance.event_log_storage
    if not _available(storage):
        _log.warning(
            "the partitions of %s that were taken back stay green: partition_wipe.py does not know the event log of"
            " this Dagster (%s); each has an observation that says so",
            asset,
            type(storage).__name__,
        )
        shown = instance.get_materialized_partitions(key)
        _observe(instance, key, [partition for partition in partition_keys if partition in shown], who)
        return False
    for chunk in chunks(partition_keys, _AT_ONCE):
        # first, as it cannot be in one transaction with the rest: killed in between, it is written once more
        _observe(instance, key, _partitions_that_show(storage, key, chunk), who)
        _take_out(storage, key, chunk)
    return True


def _available(storage: Any) -> bool:
    return (
        WIPE_AVAILABLE
        and isinstance(storage, SqlEventLogStorage)
        and all(hasattr(storage, name) for name in ("index_transaction", "has_table", "can_write_asset_status_cache"))
    )


def _observe(instance: dg.DagsterInstance, key: dg.AssetKey, partition_keys: Sequence[str], who: str) -> None:
    now = datetime.now(UTC)
    events.report_observations(
        instance,
        run_id=events.NO_RUN,
        job_name=events.NO_RUN,
        step_key="",
        observations=[
            dg.AssetObservation(
                asset_key=key,
                partition=partition,
                description=f"Taken back by {who}.",
                metadata={
                    "geo/state": "unpublished",
                    "geo/by": who,
                    "geo/at": dg.MetadataValue.timestamp(now),
                },
            )
            for partition in partition_keys
        ],
    )


def _rows_that_show(key: dg.AssetKey, partition_keys: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    rows = SqlEventLogStorageTable.c
    return (
        rows.asset_key == key.to_string(),
        rows.partition.in_(partition_keys),
        rows.dagster_event_type.in_(
            [dg.DagsterEventType.ASSET_MATERIALIZATION.value, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value]
        ),
    )


def _partitions_that_show(storage: Any, key: dg.AssetKey, partition_keys: Sequence[str]) -> list[str]:
    query = sa.select(SqlEventLogStorageTable.c.partition).where(*_rows_that_show(key, partition_keys)).distinct()
    with storage.index_connection() as connection:
        return sorted(connection.execute(query).scalars())


def _take_out(storage: Any, key: dg.AssetKey, partition_keys: Sequence[str]) -> None:
    rows, tags, assets = SqlEventLogStorageTable.c, AssetEventTagsTable.c, AssetKeyTable.c
    shows = _rows_that_show(key, partition_keys)
    latest = sa.select(sa.func.max(rows.id)).where(
        rows.asset_key == key.to_string(),
        rows.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION.value,
    )
    has_tags, has_cache = storage.has_table(AssetEventTagsTable.name), storage.can_write_asset_status_cache()
    with storage.index_transaction() as connection:
        ids = list(connection.execute(sa.select(rows.id).where(*shows)).scalars())
        # the asset's row repeats its latest materialization; without it Dagster looks for the one before
        row = {"last_materialization": None} if connection.execute(latest).scalar() in ids else {}
        if has_cache:
            row["cached_status_data"] = None
        if has_tags:
            for chunk in chunks(ids, _AT_ONCE):
                connection.execute(AssetEventTagsTable.delete().where(tags.event_id.in_(chunk)))
        connection.execute(SqlEventLogStorageTable.update().where(*shows).values(asset_key=None, partition=None))
        if row:
            connection.execute(AssetKeyTable.update().where(assets.asset_key == key.to_string()).values(row))
