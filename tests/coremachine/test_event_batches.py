"""Batches of asset events on SQLite: written at once, they leave what Dagster itself leaves one by one."""

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from geo_assets.coremachine import events, sqlite_event_batches

RUN_ID = "11111111-2222-3333-4444-555555555555"
KEYS = [f"survey/tile {number:03d}.tif" for number in range(45)]
ASSET = dg.AssetKey("cog")


@pytest.fixture(autouse=True)
def _small_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_event_batches, "_EVENTS_A_TRANSACTION", 20)


def write(home: Path) -> dict[str, Any]:
    """Write planned events and materializations into a new instance; returns what it then says."""
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    where: dict[str, Any] = {"run_id": RUN_ID, "job_name": "process_raster", "step_key": "work"}
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_engine_event("the run's log is there before", run_id=RUN_ID, job_name="process_raster")
        events.report_planned(instance, **where, asset="cog", partition_keys=KEYS)
        materializations = [
            dg.AssetMaterialization(
                asset_key=ASSET, partition=key, metadata={"n": number}, tags={"dagster/data_version": f"v{number}"}
            )
            for number, key in enumerate(KEYS[:-1])
        ]
        events.report_materializations(instance, **where, materializations=materializations)
        return {
            "log": [_said(entry) for entry in instance.all_logs(RUN_ID)],
            "by asset": [
                _said(record.event_log_entry) for record in instance.fetch_materializations(ASSET, limit=99).records
            ],
            "materialized": instance.get_materialized_partitions(ASSET),
            "latest": _said(_latest(instance)),
            "versions": instance.event_log_storage.get_latest_tags_by_partition(
                ASSET, dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
            ),
            "index": _index(home),
        }


def _latest(instance: dg.DagsterInstance) -> dg.EventLogEntry:
    latest = instance.get_latest_materialization_event(ASSET)
    assert latest is not None
    return latest


def _said(entry: dg.EventLogEntry) -> tuple[object, ...]:
    event = entry.get_dagster_event()
    return (event.event_type_value, event.job_name, event.step_key, event.partition, entry.run_id, entry.message)


def _index(home: Path) -> list[tuple[object, ...]]:
    """Rows of the shard that all runs share, without times."""
    (path,) = (home / "history").rglob("index.db")
    with sqlite3.connect(path) as connection:
        return [
            *connection.execute(
                "select id, run_id, dagster_event_type, step_key, asset_key, partition from event_logs"
            ),
            *connection.execute("select asset_key, last_run_id from asset_keys"),
            *connection.execute("select event_id, asset_key, key, value from asset_event_tags"),
        ]


def test_a_batch_leaves_what_dagster_leaves_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = write(tmp_path / "at once")
    monkeypatch.setattr(events, "write_batches_whole", lambda _: None)
    singly = write(tmp_path / "singly")
    assert at_once == singly
    assert at_once["materialized"] == set(KEYS[:-1])
    assert len(at_once["log"]) == 1 + len(KEYS) + len(KEYS) - 1


def test_a_batch_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    original = sqlite_event_batches._open_shard

    def counted(storage: Any, shard: str) -> AbstractContextManager[sa.Connection]:
        opened.append(shard)
        return original(storage, shard)

    monkeypatch.setattr(sqlite_event_batches, "_open_shard", counted)
    write(tmp_path / "a")
    # three transactions for 45 planned events and three for 44 materializations, in the run's log and in the index
    assert len(opened) == 12


def test_where_a_batch_cannot_be_written_at_once_its_events_are_written_singly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("no such table: event_logs"))

    monkeypatch.setattr(sqlite_event_batches, "_store_whole", refuse)
    assert write(tmp_path / "a")["materialized"] == set(KEYS[:-1])
    assert "one by one" in caplog.text
