"""The sensors of sources, as the daemon runs them, and what partitions say of blobs that are gone.

What belongs here: ``geo_assets.assets.source_sensors``, ``source_presence``, and ``geo_assets.sources.removal``.  What
does not: looks and turns (``test_look``, ``test_turn``), and runs (``tests/integration``).
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from geo_assets.assets.source_presence import tell_presence
from geo_assets.build import build_definitions
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit
from geo_assets.errors import PartitionBusyError
from geo_assets.sources.look import look
from geo_assets.sources.register import Register
from geo_assets.sources.removal import expire
from geo_assets.sources.source import Source
from geo_assets.sources.tick import tick
from geo_assets.stores.catalog import open_catalog_store
from geo_assets.stores.tables import open_table_store
from geo_assets.unpublish import Fate, Taken, Thing
from tests.sources.watching import IN, Watched, source

SCENES = source()
COG = dg.AssetKey("cog")


class Location:
    """A code location with sources, a Dagster instance, and the ticks of its sensors."""

    def __init__(self, instance: dg.DagsterInstance, *sources: Source) -> None:
        self.instance = instance
        self.defs = build_definitions(sources=list(sources))
        self.resources: dict[str, Any] = dict(self.defs.resources or {})
        self.machine: CoreMachine = self.resources[MACHINE].machine()
        self.folder = self.machine.settings.blob_root_path / IN
        self.folder.mkdir(parents=True)
        self.cursor: str | None = None
        self.logged: list[str] = []

    def tick(self, name: str = "scenes") -> Any:
        """One tick of a source's sensor, its cursor kept as the daemon does."""
        sensor = self.defs.get_repository_def().get_sensor_def(f"source_{name}")
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources=self.resources,
            repository_def=self.defs.get_repository_def(),
        )
        handler = BufferingHandler(capacity=1000)
        try:
            with context:
                context.log.addHandler(handler)
                ticked = sensor.evaluate_tick(context)
        finally:
            self.logged = [record.getMessage() for record in handler.buffer]
        self.cursor = ticked.cursor
        return ticked


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance of its own, in memory."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def location(instance: dg.DagsterInstance) -> Iterator[Location]:
    """A code location that watches one container."""
    made = Location(instance, SCENES, source(name="off", workflow="validate_raster_job", paused=True))
    yield made
    made.machine.ledger.close()


def test_a_tick_says_what_it_saw_and_did(location: Location) -> None:
    (location.folder / "a.tif").write_bytes(b"a")
    (location.folder / "notes.txt").write_bytes(b"a")
    ticked = location.tick()
    assert ticked.skip_message.startswith("1 new among 1 in ")
    assert ticked.skip_message.endswith("; 1 queued")
    assert location.logged == [ticked.skip_message], "the UI shows the log of a tick, and no reason"
    (observation,) = ticked.asset_events
    assert observation.asset_key == dg.AssetKey(["source", "scenes"])
    assert observation.metadata["geo/new"].value == 1
    assert [observation.metadata[f"geo/{name}"].value for name in ("at_work", "done", "waiting")] == [1, 0, 0]
    assert next(iter(observation.metadata)) == "geo/watches"
    assert observation.metadata["geo/sensor"].value == "/locations/geo_assets/sensors/source_scenes"
    assert json.loads(ticked.cursor)["sequence"] == 1
    assert [job.partition_key for job in location.machine.ledger.jobs()] == [f"{IN}/a.tif"]
    again = location.tick()
    assert (again.skip_message, again.asset_events) == ("nothing waits, and no look is due", [])
    assert location.logged == []


CURSORS = (
    "", "{", "[]", '{"version": 0}', '{"version": 1, "looked_at": "x"}', "7", "null",
    '{"version": 1, "sequence": 9, "looked_at": 1e300}',
)  # fmt: skip


def test_a_cursor_that_is_not_understood_means_a_look(location: Location) -> None:
    location.tick()
    for number, cursor in enumerate(CURSORS):
        location.cursor = cursor
        (location.folder / f"{number}.tif").write_bytes(b"a")
        assert "1 new" in location.tick().skip_message, cursor


def test_a_container_that_is_not_there_is_red_until_it_is_back(location: Location) -> None:
    (location.folder / "a.tif").write_bytes(b"a")
    location.tick()
    (location.folder / "b.tif").write_bytes(b"a")
    look(location.machine, SCENES)
    location.cursor = None
    location.folder.rename(location.folder.with_name("elsewhere"))
    for _ in range(2):
        with pytest.raises(dg.Failure, match=f"'{IN}' cannot be looked at, so nothing is changed") as red:
            location.tick()
        assert location.logged == [red.value.description]
    assert len(location.machine.ledger.jobs()) == 2, "what waits is queued all the same"
    location.folder.with_name("elsewhere").rename(location.folder)
    assert location.tick().skip_message.endswith(f"; the container '{IN}' can be read again")
    location.tick()
    key = dg.AssetKey(["source", "scenes"])
    records = location.instance.fetch_observations(dg.AssetRecordsFilter(asset_key=key), limit=100).records
    told = [record.asset_observation for record in reversed(records)]
    states = [one.metadata["geo/state"].value for one in told if one is not None and "geo/state" in one.metadata]
    assert states == ["unreadable", "readable"], "once when it begins, once when it ends"
    check = dg.AssetCheckKey(key, "container_readable")
    history = location.instance.event_log_storage.get_asset_check_execution_history(check, limit=9)
    assert [record.status.value for record in history] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]


def test_a_look_that_found_something_wrong_is_made_again_when_it_is_time(location: Location) -> None:
    """Of a tick that fails no cursor is kept."""
    register = Register(location.machine.ledger, "scenes")
    location.tick()
    (location.folder / "a.tif").write_bytes(b"a")
    register.note(error=f"container '{IN}': unreadable folder: 'x/' (Permission denied); its blobs are not listed")
    location.cursor = None
    with pytest.raises(dg.Failure, match=r"^container 'incoming': unreadable folder"):
        location.tick()
    register.note(looked_at=datetime.now(UTC) - timedelta(seconds=SCENES.every_seconds))
    assert "1 new" in location.tick().skip_message


def test_what_waits_and_what_is_refused_is_named_with_its_reason(instance: dg.DagsterInstance) -> None:
    location = Location(instance, source(workflow="ingest_vector"))
    for name in ("roads.shp", "---.csv", "good.kml"):
        (location.folder / name).write_text("")
    ticked = location.tick()
    assert (
        "; 1 queued, 1 refused now; 1 waits ('roads.shp' waits for .shx .dbf beside it); in all 1 refused"
        in (location.logged[0])
    )
    (observation,) = ticked.asset_events
    held = [record.data for record in observation.metadata["geo/held"].records]
    assert held[0] == {"name": "roads.shp", "state": "waiting", "reason": "waits for .shx .dbf beside it"}
    assert (held[1]["name"], held[1]["state"]) == ("---.csv", "refused")
    assert "no table can be called after" in held[1]["reason"]
    location.machine.ledger.close()


def test_sensors_are_on_unless_the_source_is_paused(location: Location) -> None:
    repository = location.defs.get_repository_def()
    on, off = (repository.get_sensor_def(f"source_{name}") for name in ("scenes", "off"))
    assert (on.default_status, off.default_status) == (
        dg.DefaultSensorStatus.RUNNING, dg.DefaultSensorStatus.STOPPED
    )  # fmt: skip
    assert on.minimum_interval_seconds == 30


def test_too_many_partition_keys_are_reported(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_PARTITION_KEYS_LIMIT", "2")
    location = Location(instance, SCENES)
    (location.folder / "a.tif").write_bytes(b"a")
    instance.add_dynamic_partitions("raster_blobs", ["x", "y", "z"])
    ticked = location.tick()
    assert "raster_blobs has 3 partition keys, more than 2" in ticked.skip_message
    assert "more than 2" in ticked.asset_events[0].description
    location.cursor = None
    assert "more than 2" in location.tick().skip_message, "whether or not something changed"
    location.machine.ledger.close()


# --- partitions of blobs that are gone -----------------------------------------------------------------------------


def materialize(
    instance: dg.DagsterInstance, *names: str, assets: tuple[str, ...] = ("cog", "raster_validation")
) -> None:
    """Let partitions of the container be green."""
    instance.add_dynamic_partitions("raster_blobs", [f"{IN}/{name}" for name in names])
    for asset in assets:
        for name in names:
            instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=f"{IN}/{name}"))


def said(instance: dg.DagsterInstance, name: str, asset: str = "cog") -> list[str]:
    """What the observations of a partition say of its blob, oldest first."""
    records = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[f"{IN}/{name}"]), limit=100
    ).records
    found = [record.asset_observation for record in reversed(records)]
    return [str(one.metadata["geo/state"].value) for one in found if one is not None]


def checked(instance: dg.DagsterInstance, name: str, asset: str = "cog") -> list[bool]:
    """What ``source_present`` says of a partition; of what no run came to, Dagster keeps the latest."""
    key = dg.AssetCheckKey(dg.AssetKey(asset), "source_present")
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=100)
    found = [record.event.asset_check_evaluation for record in reversed(records) if record.event is not None]
    return [one.passed for one in found if one is not None and one.partition == f"{IN}/{name}"]


def test_partitions_are_told_once_that_their_blob_is_gone_and_once_that_it_is_back(
    watched: Watched, instance: dg.DagsterInstance
) -> None:
    w = watched
    w.put("a.tif", "b.tif", "failed.tif")
    tick(w.machine, SCENES)
    w.work()
    materialize(instance, "a.tif", "b.tif")
    assert tell_presence(w.machine, instance, SCENES) == (0, 0)
    for name in ("a.tif", "failed.tif"):
        w.store.delete(IN, name)
    tick(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (2, 0)
    assert tell_presence(w.machine, instance, SCENES) == (0, 0)
    assert (said(instance, "a.tif"), checked(instance, "a.tif")) == (["gone"], [False])
    assert said(instance, "a.tif", "raster_validation") == ["gone"]
    assert said(instance, "a.tif", "raster_stac_item") == [], "it never was materialized"
    assert said(instance, "b.tif") == said(instance, "failed.tif") == []
    assert instance.get_materialized_partitions(COG) == {f"{IN}/a.tif", f"{IN}/b.tif"}, "nothing is taken back yet"
    w.put("a.tif")
    tick(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (0, 1)
    assert tell_presence(w.machine, instance, SCENES) == (0, 0)
    assert (said(instance, "a.tif"), checked(instance, "a.tif")) == (["gone", "present"], [True])


def test_a_blob_that_was_gone_for_a_moment_is_nothing_to_tell(watched: Watched, instance: dg.DagsterInstance) -> None:
    w = watched
    w.put("a.tif")
    tick(w.machine, SCENES)
    w.work()
    materialize(instance, "a.tif")
    w.store.delete(IN, "a.tif")
    look(w.machine, SCENES)
    w.put("a.tif")
    look(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (0, 0)
    # and one that is gone again before its return was told still is what its partition says
    w.store.delete(IN, "a.tif")
    look(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (1, 0)
    w.put("a.tif")
    look(w.machine, SCENES)
    w.store.delete(IN, "a.tif")
    look(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (0, 0)
    assert said(instance, "a.tif") == ["gone"]


def test_what_a_daemon_did_not_live_to_record_is_told_again_and_nothing_is_lost(
    watched: Watched, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = watched
    w.put("a.tif")
    tick(w.machine, SCENES)
    w.work()
    materialize(instance, "a.tif", assets=("cog",))
    w.store.delete(IN, "a.tif")
    look(w.machine, SCENES)
    with monkeypatch.context() as patched:
        patched.setattr("geo_assets.sources.register.Register.mark_told", None)
        with pytest.raises(TypeError):
            tell_presence(w.machine, instance, SCENES)
    assert tell_presence(w.machine, instance, SCENES) == (1, 0)
    assert set(said(instance, "a.tif")) == {"gone"}


def test_a_partition_that_another_blob_has_now_is_not_said_to_be_gone(
    watched: Watched, instance: dg.DagsterInstance
) -> None:
    w, vectors = watched, source(workflow="ingest_vector")
    w.put("a/roads.gpkg", "b/roads.gpkg")
    tick(w.machine, vectors)
    w.work()
    instance.add_dynamic_partitions("vector_tables", ["geo.roads"])
    instance.report_runless_asset_event(dg.AssetMaterialization("vector_table", partition="geo.roads"))
    w.store.delete(IN, "a/roads.gpkg")
    tick(w.machine, vectors)
    w.work()
    assert w.states() == {"a/roads.gpkg": "gone", "b/roads.gpkg": "queued"}
    assert tell_presence(w.machine, instance, vectors) == (1, 0)
    key = dg.AssetRecordsFilter(asset_key=dg.AssetKey("vector_table"))
    assert instance.fetch_observations(key, limit=5).records == []


def test_the_partition_of_a_container_is_not_gone_with_a_blob(watched: Watched, instance: dg.DagsterInstance) -> None:
    w, counted = watched, source(workflow="summarize_container", when_removed="unpublish", removed_after=0)
    w.put("a.tif", "b.tif")
    tick(w.machine, counted)
    w.work()
    for name in ("a.tif", "b.tif"):
        w.store.delete(IN, name)
    look(w.machine, counted)
    assert tell_presence(w.machine, instance, counted) == (0, 0)
    assert tick(w.machine, counted).turned.jobs == 1, "its next job is still to come"
    assert expire(w.machine, wipe, counted).taken_back == 0


def test_what_a_job_makes_of_a_blob_that_is_gone_meanwhile_is_told_when_it_is_made(
    watched: Watched, instance: dg.DagsterInstance
) -> None:
    w = watched
    w.put("a.tif")
    tick(w.machine, SCENES)
    for ended in range(2):
        if ended:
            w.put("a.tif")
            look(w.machine, SCENES)
            submit(w.machine, "validate_raster_job", {"container_name": IN, "blob_name": "a.tif"})
        w.store.delete(IN, "a.tif")
        look(w.machine, SCENES)
        assert tell_presence(w.machine, instance, SCENES) == (0, 0), "a job of its partition is under way"
        w.work()
    materialize(instance, "a.tif")
    assert tell_presence(w.machine, instance, SCENES) == (1, 0)
    assert said(instance, "a.tif") == said(instance, "a.tif", "raster_validation") == ["gone"]


def test_telling_is_bounded(watched: Watched, instance: dg.DagsterInstance) -> None:
    w = watched
    w.put(*(f"{number}.tif" for number in range(60)))
    tick(w.machine, SCENES)
    w.work()
    for number in range(60):
        w.store.delete(IN, f"{number}.tif")
    look(w.machine, SCENES)
    assert tell_presence(w.machine, instance, SCENES, seconds=-1) == (0, 0)
    assert tell_presence(w.machine, instance, SCENES, limit=50) == (50, 0)
    assert tell_presence(w.machine, instance, SCENES) == (10, 0)


# --- taking back ---------------------------------------------------------------------------------------------------


class Unpublish:
    """Stands for ``unpublish.execute``: notes what it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.busy: set[str] = set()
        self.incomplete: set[str] = set()
        monkeypatch.setattr("geo_assets.unpublish.execute", self)

    def __call__(self, _machine: object, _wipe: object, asset: str, names: list[str], *, who: str) -> list[Taken]:
        assert (asset, who) == ("cog", "source scenes")
        if self.busy & set(names):
            raise PartitionBusyError("not while jobs are under way")
        self.asked.append(list(names))
        failed = Thing(
            kind="blob", collection="silver", name="x", asset=asset, versions=frozenset(), about=frozenset(),
            outcome=Fate.FAILED, detail="the store is away",
        )  # fmt: skip
        return [
            Taken(
                asset=asset, partition_key=name, assets=(asset,), attempts=(), complete=name not in self.incomplete,
                things=(failed,) if name in self.incomplete else (),
            )
            for name in names
        ]  # fmt: skip


def wipe(_asset: str, _keys: object) -> None:
    """Nothing to wipe."""


TAKING = source(when_removed="unpublish", removed_after="10d")


def test_what_was_made_is_taken_back_when_its_blob_is_gone_for_long(
    watched: Watched, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, asked = watched, Unpublish(monkeypatch)
    names = ["a.tif", "b.tif", "c.tif", "back.tif", "busy.tif"]
    w.put(*names, "kept.tif")
    tick(w.machine, TAKING)
    w.work()
    for name in names:
        w.store.delete(IN, name)
    look(w.machine, TAKING)
    assert expire(w.machine, wipe, TAKING).taken_back == 0, "not yet"
    w.pass_time(11 * 86_400)
    assert expire(w.machine, wipe, TAKING).taken_back == 0, "its partitions do not say so yet"
    tell_presence(w.machine, instance, TAKING)
    w.put("back.tif")
    look(w.machine, TAKING)
    assert expire(w.machine, wipe, SCENES).taken_back == 0, "a source that keeps"
    asked.busy, asked.incomplete = {f"{IN}/busy.tif"}, {f"{IN}/c.tif"}
    done = expire(w.machine, wipe, TAKING)
    assert (done.taken_back, done.left) == (2, 2)
    assert done.problems == ("not while jobs are under way", "x: the store is away") or set(done.problems) == {
        "not while jobs are under way",
        "x: the store is away",
    }
    asked.busy, asked.incomplete, asked.asked = set(), set(), []
    assert expire(w.machine, wipe, TAKING).taken_back == 2
    assert sorted(asked.asked[0]) == [f"{IN}/busy.tif", f"{IN}/c.tif"]
    assert expire(w.machine, wipe, TAKING) == replace(done, taken_back=0, left=0, problems=())


def test_a_blob_whose_job_failed_has_nothing_to_take_back(watched: Watched, instance: dg.DagsterInstance) -> None:
    settings = watched.settings
    with closing(open_catalog_store(settings)) as catalog, closing(open_table_store(settings)) as tables:
        w = Watched(settings.home, watched.ledger, catalog=catalog, tables=tables)
        _expires_without_a_trace(w, instance)


def _expires_without_a_trace(w: Watched, instance: dg.DagsterInstance) -> None:
    w.put("a.tif")
    w.put("notes.txt")
    tick(w.machine, TAKING)
    w.work(JobStatus.FAILED)
    w.store.delete(IN, "a.tif")
    look(w.machine, TAKING)
    tell_presence(w.machine, instance, TAKING)
    w.pass_time(11 * 86_400)
    assert expire(w.machine, wipe, TAKING).taken_back == 1
    assert expire(w.machine, wipe, TAKING).taken_back == 0
    w.put("a.tif")
    assert tick(w.machine, TAKING).turned.queued == 1, "one that returns begins anew"


def test_scratch_is_left_clean(watched: Watched) -> None:
    watched.put("a.tif")
    look(watched.machine, SCENES)
    assert not list(Path(watched.settings.scratch_path).glob("*"))
