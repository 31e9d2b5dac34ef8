"""Findings in words: what is wrong with which thing, and what would mend it.

What belongs here: sentences, and the action that belongs to each.  What does not: deciding what is wrong (``judge``).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geo_assets.coremachine.identity import decode_partition_key, encode_partition_key
from geo_assets.errors import ParameterError
from geo_assets.jobs.raster_cataloguing import ITEM_ASSET as RASTER_ITEM_ASSET
from geo_assets.jobs.vector_cataloguing import ITEM_ASSET as TABLE_ITEM_ASSET
from geo_assets.reconciliation.findings import Action, Direction, Fate, Finding
from geo_assets.reconciliation.looks import DAMAGED

__all__ = ["dangling", "left_behind", "missed", "not_shown", "shown_only", "staged", "unknown", "without_job"]

TO_STORES: Mapping[str, Direction] = {
    "blob": Direction.LEDGER_STORAGE,
    "item": Direction.LEDGER_CATALOG,
    "table": Direction.LEDGER_TABLES,
}
TO_LEDGER: Mapping[str, Direction] = {
    "blob": Direction.STORAGE_LEDGER,
    "item": Direction.CATALOG_LEDGER,
    "table": Direction.TABLES_LEDGER,
}
POINTED: Mapping[str, Direction] = {"blob": Direction.CATALOG_STORAGE, "table": Direction.CATALOG_TABLES}
_FOREIGN = "look at it; it is never touched, as no job recorded it"
_EMPTY = "nothing at all is to be seen where it should be: is that disk mounted? Look at that first"

Row = Mapping[str, Any]


def missed(row: Row, fate: Fate, detail: str, source: str) -> Finding:
    """Of a recorded thing that is missing or changed."""
    mend, action = _again(row["job_type"], row["asset"], row["partition"], source)
    return Finding(
        direction=TO_STORES[row["kind"]],
        fate=fate,
        kind=row["kind"],
        collection=row["collection"],
        name=row["name"],
        asset=row["asset"],
        partition_key=row["partition"],
        reason=f"{row['job_type']} recorded it for {row['asset']} '{row['partition']}', and {detail}",
        mend=mend,
        action=action,
        job=(row["job_type"], row["job_id"]) if action is Action.QUEUE else None,
    )


def _again(job_type: str, asset: str, partition_key: str, source: str) -> tuple[str, Action | None]:
    if source == "there":
        return f"run {job_type} again; its source is there", Action.QUEUE
    if source == "gone":
        key = _name_of(partition_key)
        return f"its source is gone as well: take it back with 'geo-assets unpublish {asset} {key}'", None
    if source == "empty":
        return _EMPTY, None
    return "nothing is known of its source: look at that first", None


def left_behind(
    row: Row, claim: tuple[str, str], job: tuple[str, str] | None, sources: Mapping[tuple[str, str], str]
) -> Finding:
    """Of a blob whose name a partition claims, and that no result names."""
    asset, key = claim
    if job is None:
        mend, action = f"run a job of {asset} '{key}' again, or remove the blob", None
    else:
        mend, action = _again(job[0], asset, key, sources[job])
    return Finding(
        direction=Direction.STORAGE_LEDGER,
        fate=Fate.LEFT_BEHIND,
        kind="blob",
        collection=row["collection"],
        name=row["name"],
        asset=asset,
        partition_key=key,
        reason=f"a job of {asset} '{key}' wrote it and did not end well",
        mend=mend,
        action=action,
        job=job if action is Action.QUEUE else None,
    )


def staged(container: str, folder: str, blobs: int) -> Finding:
    """Of a load that broke off."""
    return Finding(
        direction=Direction.STORAGE_LEDGER,
        fate=Fate.LEFT_BEHIND,
        kind="blob",
        collection=container,
        name=f"{folder}/",
        reason=f"{blobs:,} prepared parts of a load that broke off more than a day ago",
        mend="remove them; the next load does so, too",
        action=Action.SWEEP,
    )


def unknown(row: Row) -> Finding:
    """Of something in a store that no job recorded."""
    damaged = row["kind"] == "item" and row["version"] == DAMAGED
    where = {
        "blob": "it lies in a container that only jobs write to",
        "item": "it is in the catalog",
        "table": "the table store says that a job loaded it",
    }[row["kind"]]
    return Finding(
        direction=TO_LEDGER[row["kind"]],
        fate=Fate.UNKNOWN,
        kind=row["kind"],
        collection=row["collection"],
        name=row["name"],
        reason="its file in the catalog is damaged and no item any more, and the ledger does not know it by name"
        if damaged
        else f"{where}, and the ledger knows of no job that made it",
        mend="run the job of its container again, or remove the file" if damaged else _FOREIGN,
    )


def dangling(
    row: Row, owners: Sequence[tuple[str, str, str]], job: tuple[str, str] | None, source: str
) -> Finding:  # fmt: skip
    """Of an item that points at a blob or table that is not there."""
    asset, key = (owners[0][1], owners[0][2]) if owners else (None, None)
    target = f"{row['collection']}{'.' if row['kind'] == 'table' else '/'}{row['name']}"
    mend, action = _for_item(row, job, source)
    return Finding(
        direction=POINTED[row["kind"]],
        fate=Fate.DANGLING,
        kind="item",
        collection=row["item_collection"],
        name=row["item_id"],
        asset=asset,
        partition_key=key,
        reason=f"it points at the {row['kind']} {target}, which is not there",
        mend=mend,
        action=action,
        job=job if action is Action.QUEUE else None,
        stands_for=_partition_of(row) if action is Action.REMOVE_ITEM else None,
    )


def _partition_of(row: Row) -> tuple[str, str]:
    of_table = row["kind"] == "table"
    name = f"{row['collection']}{'.' if of_table else '/'}{row['name']}"
    return (TABLE_ITEM_ASSET if of_table else RASTER_ITEM_ASSET), str(encode_partition_key(name))


def _for_item(row: Row, job: tuple[str, str] | None, source: str) -> tuple[str, Action | None]:
    if source == "foreign":
        return _FOREIGN, None
    if source == "bulk":
        name = f"{row['collection']}/{row['name']}"
        return f"the picture {name} is made anew when its raster is catalogued again", None
    if source == "gone" and row["described"]:
        return "what it describes is gone, and so is what that was made of: remove the item", Action.REMOVE_ITEM
    if source == "there" and job is not None:
        return f"run {job[0]} again; its source is there", Action.QUEUE
    return _EMPTY if source == "empty" else "nothing is known of its source: look at that first", None


def not_shown(row: Row) -> Finding:
    """Of a partition that a job materialized and Dagster does not show."""
    return Finding(
        direction=Direction.LEDGER_DAGSTER,
        fate=Fate.NOT_SHOWN,
        kind="partition",
        collection=row["asset"],
        name=row["key"],
        asset=row["asset"],
        partition_key=row["key"],
        reason="a job materialized it, and Dagster shows nothing",
        mend="show it again as the ledger has it",
        action=Action.SHOW,
        attempt_id=row["attempt_id"] or row["any_attempt"],
    )


def shown_only(row: Row) -> Finding:
    """Of a partition that Dagster shows and nothing explains."""
    return Finding(
        direction=Direction.DAGSTER_LEDGER,
        fate=Fate.UNKNOWN,
        kind="partition",
        collection=row["asset"],
        name=row["key"],
        asset=row["asset"],
        partition_key=row["key"],
        reason="Dagster shows it as materialized, and neither a job nor an item in the catalog explains it",
        mend="materialize the partition anew, or run the job of its container again",
    )


def without_job(entries: Iterable[Row]) -> list[Finding]:
    """Of entries of sources that were queued and have no job."""
    return [
        Finding(
            direction=Direction.SOURCES_LEDGER,
            fate=Fate.WITHOUT_JOB,
            kind="entry",
            collection=row["source"],
            name=row["name"],
            asset=row["asset"],
            partition_key=row["partition_key"],
            reason=f"version {row['submitted_version']} was queued, and the ledger has no job of it",
            mend="materialize its partition, or let the source see it anew",
        )
        for row in entries
    ]


def _name_of(partition_key: str) -> str:
    try:
        return decode_partition_key(partition_key)
    except ParameterError:
        return partition_key
