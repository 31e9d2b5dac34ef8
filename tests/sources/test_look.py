"""Looks: what is new, changed, gone and back, on both databases, and what a look leaves alone.

What belongs here: ``geo_assets.sources.look`` and ``register``.  What does not: what becomes of it (``test_turn``), and
listings by runs (``test_listings``).
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from geo_assets.errors import (
    AccessDeniedError,
    ContainerNotFoundError,
    LookOvertakenError,
    LookTooLongError,
    ThrottledError,
)
from geo_assets.sources import comparison, register_looks
from geo_assets.sources import look as look_module
from geo_assets.sources.comparison import listing_prefix
from geo_assets.sources.look import Look, look
from geo_assets.sources.preview import preview
from geo_assets.sources.register import EntryState, Register
from geo_assets.sources.tick import tick
from geo_assets.stores.memory import MemoryBlobStore
from tests.containers.generated import Blob, GeneratedStore
from tests.sources.watching import IN, TrackedLedger, Watched, source

SCENES = source()


def numbers(found: Look) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("seen", "new", "changed", "returned", "unchanged", "unwritten", "removed", "dropped", "postponed")
    return {name: getattr(found, name) for name in names if getattr(found, name)}


def test_what_differs_is_written_and_nothing_else(watched_on_each: Watched) -> None:
    w = watched_on_each
    w.put("a.tif", "b.tif", "c.tif", "readme.txt")
    found = look(w.machine, SCENES)
    assert numbers(found) == {"seen": 3, "new": 3}
    assert (found.waiting, found.sequence) == (3, 3)
    first = w.entries()
    w.put("b.tif", "d.tif")
    w.store.delete(IN, "c.tif")
    found = look(w.machine, SCENES)
    assert numbers(found) == {"seen": 3, "new": 1, "changed": 1, "unchanged": 1, "removed": 1}
    assert found.sequence == 6
    now = w.entries()
    assert now["a.tif"] == first["a.tif"]
    assert now["b.tif"].version == w.etag("b.tif") != first["b.tif"].version
    assert now["b.tif"].seen_at > first["b.tif"].seen_at
    assert (now["c.tif"].state, now["c.tif"].reason) == ("gone", None)
    assert now["c.tif"].gone_at is not None
    assert sorted(row.sequence for row in now.values()) == [1, 4, 5, 6]
    w.put("c.tif")
    found = look(w.machine, SCENES)
    assert numbers(found) == {"seen": 4, "returned": 1, "unchanged": 3}
    assert (w.entries()["c.tif"].state, w.entries()["c.tif"].gone_at) == ("waiting", None)
    assert w.register().counts() == {
        EntryState.WAITING: 4, EntryState.QUEUED: 0, EntryState.REFUSED: 0, EntryState.GONE: 0
    }  # fmt: skip


def test_a_quiet_look_writes_nothing(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.put("a.tif")
    look(watched.machine, SCENES)
    monkeypatch.setattr(watched.ledger, "_write", None)
    assert numbers(look(watched.machine, SCENES)) == {"seen": 1, "unchanged": 1}


def test_once_in_a_while_the_time_of_a_quiet_look_is_written(watched: Watched) -> None:
    watched.put("a.tif")
    look(watched.machine, SCENES)
    watched.pass_time(3600)
    before = watched.register().last_look().looked_at
    look(watched.machine, SCENES)
    after = watched.register().last_look().looked_at
    assert before is not None
    assert after is not None
    assert (after - before).total_seconds() > 3500


def test_a_shapefile_is_one_entry_with_a_version_of_all_its_parts(watched: Watched) -> None:
    w, vectors = watched, source(workflow="ingest_vector")
    w.put("roads.shp", data=b"123")
    w.put("roads.dbf", data=b"1234")
    assert look(w.machine, vectors).new == 1
    row = w.entries()["roads.shp"]
    assert (row.state, row.reason, row.size) == ("waiting", "waits for .shx beside it", 7)
    assert w.register().incomplete() == 1
    w.put("roads.shx", data=b"12345")
    assert look(w.machine, vectors).changed == 1
    row = w.entries()["roads.shp"]
    assert (row.state, row.reason, row.size) == ("waiting", None, 12)
    version = row.version
    w.put("roads.prj")
    assert look(w.machine, vectors).changed == 1
    assert w.entries()["roads.shp"].version != version
    w.store.delete(IN, "roads.dbf")
    assert look(w.machine, vectors).changed == 1
    assert w.entries()["roads.shp"].reason == "waits for .dbf beside it"


def test_a_geodatabase_is_one_entry(watched: Watched) -> None:
    vectors = source(workflow="ingest_vector")
    watched.put("city.gdb/a00000001.gdbtable", "city.gdb/gdb")
    assert numbers(look(watched.machine, vectors)) == {"seen": 1, "new": 1}
    before = watched.entries()["city.gdb"].version
    watched.put("city.gdb/a00000002.gdbtable")
    assert look(watched.machine, vectors).changed == 1
    assert before.startswith("folder:")
    assert watched.entries()["city.gdb"].version != before


def test_one_part_of_the_container(watched: Watched) -> None:
    """A hint is about a few names: the rest is neither listed nor taken for gone."""
    below = source(prefix="in/", workflow="ingest_vector")
    w = watched
    w.put("in/a.gpkg", "in/b.gpkg", "in/r.shp", "in/r.shx", "in/r.dbf", "out/c.gpkg")
    assert numbers(look(w.machine, below, prefix="in/a")) == {}, "the first look is at all of it"
    assert look(w.machine, below).seen == 3
    w.put("in/a.gpkg", "in/b.gpkg", "in/r.dbf")
    assert numbers(look(w.machine, below, prefix="in/a.gpkg")) == {"seen": 1, "changed": 1}
    assert numbers(look(w.machine, below, prefix="in/r.dbf")) == {"seen": 1, "changed": 1}
    w.store.delete(IN, "in/a.gpkg")
    assert numbers(look(w.machine, below, prefix="in/a.gpkg")) == {"removed": 1}
    assert numbers(look(w.machine, below)) == {"seen": 2, "changed": 1, "unchanged": 1}


@pytest.mark.parametrize(
    ("prefix", "listed"),
    [
        ("", ""), ("a/", "a/"), ("a/roads", "a/roads"), ("a/roads.dbf", "a/roads"), ("a/roads.shp.xml", "a/roads"),
        ("v1.2/roads", "v1.2/roads"), ("a/City.GDB/a01.gdbtable", "a/City"), ("a/x.tif.aux.xml", "a/x"),
    ],
)  # fmt: skip
def test_what_is_listed_for_a_prefix_has_all_parts_of_its_datasets(prefix: str, listed: str) -> None:
    assert listing_prefix(prefix) == listed


def test_a_source_that_remembers_very_much_is_looked_at_by_runs(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.put("a.tif")
    look(watched.machine, SCENES)
    passed, frames = [0.0], Register.frames

    def slow_frames(*arguments: Any, **named: Any) -> Iterator[pl.DataFrame]:
        for frame in frames(*arguments, **named):
            passed[0] += 60
            yield frame

    monkeypatch.setattr(Register, "frames", slow_frames)
    monkeypatch.setattr(comparison, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    with pytest.raises(LookTooLongError, match="reading what source 'scenes' remembers takes longer than 30 s"):
        look(watched.machine, SCENES, seconds=30)
    assert not watched.register().last_look().by_run, "who had less time than a tick knows nothing"
    assert "remembers takes longer than 15 s (GEO_ASSETS_LOOK_SECONDS); a run" in tick(watched.machine, SCENES).text
    assert watched.register().last_look().by_run


def test_a_name_that_cannot_be_opened_is_refused(watched: Watched) -> None:
    w = watched
    blobs = [Blob("a\\nb.tif", problem="holds a line break"), Blob("a\\nb.tif"), Blob("x\\ny.txt", problem="odd")]
    w = Watched(w.settings.home, w.ledger, GeneratedStore([blobs]))
    assert numbers(look(w.machine, SCENES)) == {"seen": 2, "new": 2}
    found = w.register()
    assert found.counts()[EntryState.REFUSED] == found.counts()[EntryState.WAITING] == 1
    frame = pl.concat(list(found.frames(made_by="")))
    assert sorted(frame["state"]) == ["refused", "waiting"]
    assert numbers(look(w.machine, SCENES)) == {"seen": 2, "unchanged": 2}
    w = Watched(w.settings.home, w.ledger, GeneratedStore([blobs[1:]]))
    assert numbers(look(w.machine, SCENES)) == {"seen": 1, "unchanged": 1, "removed": 1}
    assert w.register().counts()[EntryState.WAITING] == 1, "the blob whose name looks the same is still there"


NAMES = [
    "space in name.tif", "plus+and&.tif", "percent%20.tif", "hash#.tif", "question?.tif", "comma,.tif",
    "quote'\".tif", "[brackets].tif", "grünwald/ä.tif", "gru\u0308n.tif", "日本語/地図.tif", "emoji😀.tif", "UPPER.TIF",
    "a...b.tif", "pipe|.tif", "-dash.tif", ".hidden.tif", "trailing .tif", "%2e%2e/x.tif", "rtl\u202etif.tif",
    "x" * 200 + "/" + "y" * 200 + ".tif", "semi;colon=1.tif", "tab%09.tif",
]  # fmt: skip


def test_odd_names_are_told_apart_and_found_again(watched_on_each: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(register_looks, "_PAGE", 2)
    w = watched_on_each
    w.put(*NAMES)
    assert look(w.machine, SCENES).new == len(NAMES)
    assert numbers(look(w.machine, SCENES)) == {"seen": len(NAMES), "unchanged": len(NAMES)}
    assert set(w.entries()) == set(NAMES)
    for prefix in {name[:length] for name in NAMES for length in (1, 2, 200, 203, 250)}:
        found = [name for frame in w.register().frames(prefix, made_by="") for name in frame["name"]]
        assert sorted(found) == sorted(name for name in NAMES if name.startswith(prefix))


def test_a_page_that_comes_twice_counts_once(watched: Watched) -> None:
    page = [Blob("a.tif"), Blob("b.tif")]
    w = Watched(watched.settings.home, watched.ledger, GeneratedStore([page, page]))
    assert numbers(look(w.machine, SCENES)) == {"seen": 2, "new": 2}


class FailingStore(MemoryBlobStore):
    """Fails after the first page."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.pause = 0.0

    def list_blobs(self, *arguments: Any, **named: Any) -> Iterator[pa.RecordBatch]:
        """List, then fail."""
        for batch in super().list_blobs(*arguments, **named):
            yield batch
            time.sleep(self.pause)
            if self.error is not None:
                raise self.error


@pytest.mark.parametrize(
    "error",
    [ThrottledError("slow down"), AccessDeniedError("no"), ContainerNotFoundError("no container 'incoming'")],
)
def test_a_listing_that_fails_touches_no_entry(watched: Watched, error: Exception) -> None:
    store = FailingStore(error)
    w = Watched(watched.settings.home, watched.ledger, store)
    store.error = None
    w.put("a.tif", "b.tif")
    look(w.machine, SCENES)
    before = w.entries()
    w.put("a.tif", "c.tif")
    w.store.delete(IN, "b.tif")
    store.error = error
    with pytest.raises(type(error)):
        look(w.machine, SCENES)
    assert w.entries() == before
    assert w.register().last_look().error == str(error)
    calls = w.ledger.calls if isinstance(w.ledger, TrackedLedger) else 0
    with pytest.raises(type(error)):
        look(w.machine, SCENES)
    assert isinstance(w.ledger, TrackedLedger)
    assert w.ledger.calls - calls == 1, "the same error is not written again"
    store.error = None
    assert numbers(look(w.machine, SCENES)) == {"seen": 2, "new": 1, "changed": 1, "removed": 1}
    assert w.register().last_look().error is None


@pytest.mark.parametrize(("kept", "said"), [(0, "empty: of 101 entries none is there"), (101, "half empty: of 202 ")])
def test_what_vanishes_suddenly_is_gone_when_a_look_much_later_agrees(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, kept: int, said: str
) -> None:
    w = watched
    w.put(*(f"{number}.tif" for number in range(101)), *(f"kept/{number}.tif" for number in range(kept)))
    look(w.machine, SCENES)
    for number in range(101):
        w.store.delete(IN, f"{number}.tif")
    for _ in range(2):
        foretold = preview(w.machine, SCENES)
        assert (foretold.removed, foretold.is_clean, f"suddenly {said}" in foretold.problem) == (0, False, True)
        assert look(w.machine, SCENES).postponed == 101
        ticked = tick(w.machine, SCENES)
        assert f"suddenly {said}" in ticked.problem
        assert ticked.problem in ticked.text
        w.pass_time(60)
        with monkeypatch.context() as patched:
            patched.setattr(w.store, "list_blobs", MemoryBlobStore().list_blobs)
            with pytest.raises(ContainerNotFoundError):
                look(w.machine, SCENES)
        assert "does not exist" in (w.register().last_look().error or "")
    assert set(w.states().values()) == {"queued"} if kept else {"waiting"}, "what is there goes on"
    w.pass_time(900)
    assert look(w.machine, SCENES).removed == 101
    assert w.register().last_look().error is None


def test_below_a_folder_that_cannot_be_read_everything_stays_as_it_was(watched: Watched) -> None:
    vectors, names = (
        source(workflow="ingest_vector"),
        ("a.csv", "a/1.csv", "a/2.csv", "b/3.csv", "é\\/4.csv", "c.gdb/x"),
    )
    denied = [
        Blob(name, problem=f"unreadable folder: '{name}' (Permission denied); its blobs are not listed")
        for name in ("a/", "é\\\\/", "c.gdb/sub/")
    ]
    readable, partly = (
        Watched(watched.settings.home, watched.ledger, GeneratedStore([blobs]))
        for blobs in ([*map(Blob, names), Blob("c.gdb/sub/y")], [Blob("c.gdb/x"), *denied])
    )
    assert look(readable.machine, vectors).new == 6
    assert preview(partly.machine, vectors).problem
    found = tick(partly.machine, vectors)
    assert found.look is not None
    assert numbers(found.look) == {"removed": 2}
    assert {name for name, state in partly.states().items() if state == "gone"} == {"a.csv", "b/3.csv"}
    assert "unreadable folder: 'a/' (Permission denied); its blobs are not listed" in found.problem
    assert "2 more cannot be read either" in found.problem
    assert found.problem in found.text
    assert numbers(look(readable.machine, vectors)) == {"seen": 6, "returned": 2, "unchanged": 4}
    assert readable.register().last_look().error is None


def test_a_folder_that_cannot_be_read_is_red_only_where_something_was_seen_there(watched: Watched) -> None:
    lost = Blob("lost+found/", problem="unreadable folder: 'lost+found/' (Permission denied); its blobs are not listed")
    w = Watched(watched.settings.home, watched.ledger, GeneratedStore([[Blob("a.tif"), lost]]))
    for number, given in enumerate(({}, {"exclude": "lost+found/**"}, {"match": "*/x/*.tif"}, {"match": "a/*.tif"})):
        ticked = tick(w.machine, source(**given))
        assert (ticked.problem, "folder: 'lost+found/'" in ticked.text) == ("", number in (0, 2)), given
        assert preview(w.machine, source(**given)).is_clean == (number not in (0, 2)), given


def test_a_container_that_was_empty_for_a_moment_loses_nothing(watched: Watched) -> None:
    names = [f"{number}.tif" for number in range(101)]
    full = GeneratedStore([[Blob(name) for name in names]])
    w = Watched(watched.settings.home, watched.ledger, full)
    look(w.machine, SCENES)
    empty = Watched(watched.settings.home, watched.ledger, GeneratedStore([]))
    for _ in range(3):
        assert look(empty.machine, SCENES).postponed == 101
        assert look(w.machine, SCENES).unchanged == 101


def test_a_listing_that_takes_too_long_writes_nothing(watched: Watched) -> None:
    w = Watched(watched.settings.home, watched.ledger, GeneratedStore([[Blob(f"{page}.tif")] for page in range(3)]))
    with pytest.raises(LookTooLongError, match="takes longer than 0 s"):
        look(w.machine, SCENES, seconds=0)
    assert w.entries() == {}
    w.register().note(by_run=True)
    assert look(w.machine, SCENES).new == 3
    assert w.register().last_look().by_run, "who looks by hand may wait"


def test_what_there_is_no_time_to_write_is_for_the_next_look(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_module, "_WRITE_SECONDS", -1.0)
    watched.put("a.tif", "b.tif")
    found = look(watched.machine, SCENES, seconds=10)
    assert numbers(found) == {"seen": 2, "unwritten": 2}
    assert watched.register().last_look().looked_at is None
    monkeypatch.undo()
    assert numbers(look(watched.machine, SCENES, seconds=10)) == {"seen": 2, "new": 2}
    monkeypatch.setattr(look_module, "_WRITE_SECONDS", -1.0)
    watched.store.delete(IN, "a.tif")
    assert numbers(look(watched.machine, SCENES, seconds=10)) == {"seen": 1, "unchanged": 1}
    monkeypatch.undo()
    assert numbers(look(watched.machine, SCENES)) == {"seen": 1, "unchanged": 1, "removed": 1}


def test_a_source_that_is_narrowed_drops_quietly_and_widened_finds_the_rest(watched: Watched) -> None:
    w = watched
    w.put("a.tif", "b.tif", "c/d.tif")
    look(w.machine, SCENES)
    narrow = source(prefix="c/")
    assert numbers(look(w.machine, narrow)) == {"seen": 1, "unchanged": 1, "dropped": 2}
    assert w.states() == {"c/d.tif": "waiting"}
    assert numbers(look(w.machine, SCENES)) == {"seen": 3, "new": 2, "unchanged": 1}
    excluding = source(exclude=("b.*",))
    assert numbers(look(w.machine, excluding)) == {"seen": 2, "unchanged": 2, "dropped": 1}
    assert "gone" not in w.states().values()


def test_what_vanished_before_its_source_was_changed_is_gone_if_it_would_match(watched: Watched) -> None:
    w, vectors = watched, source(workflow="ingest_vector")
    w.put("a.gpkg", "b.gpkg", "c/d.gdb/gdb", "kept.gpkg", "r.shp", "r.shx", "r.dbf")
    look(w.machine, vectors)
    for name in ("a.gpkg", "b.gpkg", "c/d.gdb/gdb", "r.shp", "r.shx", "r.dbf"):
        w.store.delete(IN, name)
    changed = source(workflow="ingest_vector", parameters={"collection_id": "c"}, exclude="b.*")
    foretold = preview(w.machine, changed)
    assert (foretold.removed, foretold.dropped) == (3, 1)
    assert numbers(look(w.machine, changed)) == {
        "seen": 1, "unchanged": 1, "removed": 3, "dropped": 1
    }  # fmt: skip
    assert {name for name, state in w.states().items() if state == "gone"} == {"a.gpkg", "c/d.gdb", "r.shp"}
    w.store.create_container("elsewhere")
    assert look(w.machine, source(workflow="ingest_vector", container="elsewhere")).dropped == 1, "who knows"


def test_of_two_looks_at_once_the_first_to_write_wins(watched: Watched) -> None:
    w = watched
    w.put("a.tif")
    look(w.machine, SCENES)
    w.put("b.tif")
    assert isinstance(w.ledger, TrackedLedger)
    # while this look lists, another one sees a later state
    stale = w.register().last_look()
    w.put("b.tif")
    look(w.machine, SCENES)
    with pytest.raises(LookOvertakenError, match="was faster"):
        w.register().write_gone(["a.tif"], expected=stale.sequence, now=datetime.now().astimezone())
    assert w.states() == {"a.tif": "waiting", "b.tif": "waiting"}
    assert w.entries()["b.tif"].version == w.etag("b.tif")


@pytest.mark.parametrize("spilled", [False, True])
def test_more_than_fits_into_memory_is_compared_alike(
    watched: Watched,
    monkeypatch: pytest.MonkeyPatch,
    spilled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    if spilled:
        monkeypatch.setattr("geo_assets.containers.buckets._IN_MEMORY", 50)
        monkeypatch.setattr("geo_assets.containers.buckets._HASHED", 5)
    monkeypatch.setattr("geo_assets.sources.register_looks._PAGE", 30)
    monkeypatch.setattr("geo_assets.sources.comparison._FRAME", 20)
    monkeypatch.setattr(look_module, "BATCH", 7)
    vectors = source(workflow="ingest_vector")
    w = watched
    names = [f"f{number % 5}/r{number:03}" for number in range(60)]
    w.put(*(f"{name}{tail}" for name in names for tail in (".shp", ".shx", ".dbf")))
    assert numbers(look(w.machine, vectors)) == {"seen": 60, "new": 60}
    w.put(*(f"{name}.dbf" for name in names[:10]))
    for name in names[10:15]:
        for tail in (".shp", ".shx", ".dbf"):
            w.store.delete(IN, name + tail)
    assert numbers(look(w.machine, vectors)) == {"seen": 55, "changed": 10, "unchanged": 45, "removed": 5}
    assert numbers(look(w.machine, vectors)) == {"seen": 55, "unchanged": 55}
    numbers_taken = {name: row.sequence for name, row in w.entries().items()}
    assert len(set(numbers_taken.values())) == 60
    assert {numbers_taken[f"{name}.shp"] for name in names[:15]} == set(range(61, 76))
    assert not list(Path(w.settings.scratch_path).glob("*")), "temporary files are gone"


def test_counts_of_a_look_add_up() -> None:
    found = replace(Look(), seen=5, new=1, changed=1, returned=1, unchanged=1, unwritten=1)
    assert found.seen == found.new + found.changed + found.returned + found.unchanged + found.unwritten
    assert found.found_something
