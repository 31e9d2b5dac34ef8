"""Turns: each version of each entry becomes one job, whatever holds it back, dies or ticks at the same moment.

What belongs here: ``geo_assets.sources.turn``, and ticks that die at every point.  What does not: looks
(``test_look``), and arbitrary histories (``test_histories``).
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import BULK_PRIORITY, INTERACTIVE_PRIORITY
from geo_assets.coremachine.ledger_tables import jobs, source_entries
from geo_assets.coremachine.submission import submit
from geo_assets.errors import (
    AccessDeniedError,
    LookOvertakenError,
    ParameterError,
    ThrottledError,
    UnsupportedNameError,
)
from geo_assets.sources.edits import made_by
from geo_assets.sources.look import look
from geo_assets.sources.preview import preview
from geo_assets.sources.register import TAKEN_BACK, EntryState, LastLook, Register, Seen, forget
from geo_assets.sources.source import Source
from geo_assets.sources.standing import Standing, standing_of, standings
from geo_assets.sources.tick import tick
from geo_assets.sources.turn import turn
from geo_assets.stores.memory import MemoryBlobStore
from tests.containers.generated import Blob, GeneratedStore
from tests.sources.watching import IN, DiedError, TrackedLedger, Watched, empty_ledger, source

SCENES = source()
VECTORS = source(workflow="ingest_vector")


def looked_and_turned(w: Watched, which: Source = SCENES) -> tuple[int, int]:
    """A look and a turn: how many were queued and refused."""
    look(w.machine, which)
    done = turn(w.machine, which)
    return done.queued, done.refused


def test_what_is_seen_becomes_a_job_with_the_version_that_was_seen(watched_on_each: Watched) -> None:
    w = watched_on_each
    w.put("a.tif", "f/b.tif")
    assert looked_and_turned(w) == (2, 0)
    found = w.attempts()
    assert [one.partition_key for one in found] == ["incoming/a.tif", "incoming/f/b.tif"]
    assert {one.source_version for one in found} == {w.etag("a.tif"), w.etag("f/b.tif")}
    assert {(one.source, one.submitted_by, one.priority) for one in found} == {("scenes", "source", BULK_PRIORITY)}
    row = w.entries()["a.tif"]
    assert (row.state, row.asset, row.partition_key) == ("queued", "cog", "incoming/a.tif")
    assert row.submitted_version == row.version
    assert row.submitted_at is not None
    assert looked_and_turned(w) == (0, 0)
    assert w.work() == 2
    assert looked_and_turned(w) == (0, 0)
    w.put("a.tif")
    assert looked_and_turned(w) == (1, 0)
    assert [one.source_version for one in w.attempts()][2:] == [w.etag("a.tif")]


def test_a_changed_blob_takes_its_waiting_job_along(watched: Watched) -> None:
    watched.put("a.tif")
    looked_and_turned(watched)
    watched.put("a.tif")
    assert looked_and_turned(watched) == (1, 0)
    (only,) = watched.attempts()
    assert only.source_version == watched.etag("a.tif")


def test_the_store_is_not_asked_blob_by_blob(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.put("a.tif")
    look(watched.machine, SCENES)
    monkeypatch.setattr(watched.store, "head", None)
    assert turn(watched.machine, SCENES).queued == 1


def test_a_dataset_has_the_version_that_its_workflow_gives_it(watched: Watched) -> None:
    for tail in (".shp", ".shx", ".dbf"):
        watched.put(f"roads{tail}", data=b"\x00\x00\x27\x0a" + tail.encode())
    assert looked_and_turned(watched, VECTORS) == (1, 0)
    (only,) = watched.attempts()
    binding = watched.machine.registry["ingest_vector"]
    assert only.source_version == binding.source_version(only.parameters, watched.machine.services)
    assert only.partition_key == "geo.roads"


def test_an_incomplete_dataset_waits_for_its_parts(watched: Watched) -> None:
    watched.put("roads.shp", "roads.shx")
    assert looked_and_turned(watched, VECTORS) == (0, 0)
    text = tick(watched.machine, VECTORS).text
    assert "1 waits ('roads.shp' waits for .dbf beside it)" in text
    watched.put("roads.dbf")
    assert looked_and_turned(watched, VECTORS) == (1, 0)
    # a part that is gone and comes back as it was has nothing to wait for; one that is new has
    watched.work()
    watched.put("roads.dbf")
    assert looked_and_turned(watched, VECTORS) == (1, 0)


def test_a_dataset_that_vanished_since_the_look_is_left_to_the_next(watched: Watched) -> None:
    names = ["roads.shp", "roads.shx", "roads.dbf"]
    watched.put(*names)
    look(watched.machine, VECTORS)
    for name in names:
        watched.store.delete(IN, name)
    done = turn(watched.machine, VECTORS)
    assert (done.taken, done.missing, done.queued) == (1, 1, 0)
    assert look(watched.machine, VECTORS).removed == 1


SHAPES = [f"{name}{tail}" for name in ("a", "b", "c") for tail in (".shp", ".shx", ".dbf")]


def test_entries_stand_where_their_latest_jobs_do(watched_on_each: Watched) -> None:
    w = watched_on_each
    w.put("done.tif", "again.tif")
    tick(w.machine, SCENES)
    w.work()
    w.put("failed.tif")
    tick(w.machine, SCENES)
    w.work(JobStatus.FAILED)
    w.put("again.tif", "gone.tif")
    tick(w.machine, SCENES)
    w.store.delete(IN, "gone.tif")
    w.put("waiting.tif")
    look(w.machine, SCENES)
    whole = source(name="whole", workflow="summarize_container")
    tick(w.machine, whole)
    assert standings(w.ledger) == {
        "scenes": dict(zip(Standing, (1, 1, 1, 1, 0, 1), strict=True)),
        "whole": dict(zip(Standing, (0, 0, 4, 0, 0, 0), strict=True)),
    }
    w.work()
    assert standing_of(w.ledger, "whole")[Standing.DONE] == 4
    assert not any(standing_of(w.ledger, "unknown").values())


@pytest.mark.parametrize("error", [ThrottledError("slow down"), AccessDeniedError("slow down, it is yours")])
def test_what_cannot_be_read_now_waits_and_keeps_nobody_else(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    watched.put(*SHAPES)
    look(watched.machine, few := source(workflow="ingest_vector", max_active=3))
    watched.put("x.gpkg", "y.gpkg", "z.gpkg")
    real = watched.store.read_start

    def fails(container: str, name: str, *rest: Any) -> Any:
        if name != "b.shp":
            raise error
        return real(container, name, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(watched.store, "read_start", fails)
        found = tick(watched.machine, few)
    assert "3 queued, 2 cannot be read now (slow down" in found.text
    assert found.turned.note == "max_active is 3"
    queued = {name for name, state in watched.states().items() if state == "queued"}
    assert queued == {"b.shp", "x.gpkg", "y.gpkg"}
    watched.work()
    tick(watched.machine, few)
    assert set(watched.states().values()) == {"queued"}
    assert len(watched.attempts()) == 6


def test_a_dataset_that_can_never_be_opened_is_refused(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.put(*SHAPES[:3])
    look(watched.machine, VECTORS)

    def fails(*_: object) -> None:
        raise UnsupportedNameError("no such name can be opened")

    monkeypatch.setattr(watched.store, "read_start", fails)
    assert turn(watched.machine, VECTORS).refused == 1
    assert watched.entries()["a.shp"].reason == "no such name can be opened"


def test_a_store_that_never_answers_holds_nothing_up(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.sources.tick._TURN_SECONDS", 0.8)
    watched.machine.settings.__dict__["look_seconds"] = 0.3
    forever = threading.Event()
    real = watched.store.read_start

    def never(*_: object, **__: object) -> Any:
        forever.wait()
        raise AccessDeniedError("too late")

    def read_start(container: str, name: str, length: int) -> Any:
        return never() if name == "a.shp" else real(container, name, length)

    watched.put(*SHAPES)
    look(watched.machine, VECTORS)
    began = time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr(watched.store, "list_blobs", never)
        patched.setattr(watched.store, "read_start", read_start)
        found = tick(watched.machine, VECTORS)
    forever.set()
    assert "takes longer than 0.3 s" in found.text
    assert watched.states() == {"a.shp": "waiting", "b.shp": "queued", "c.shp": "queued"}
    assert "1 waits (the rest is for the next tick)" in found.text
    assert time.monotonic() - began < 5
    assert watched.register().last_look().by_run
    tick(watched.machine, VECTORS)
    assert set(watched.states().values()) == {"queued"}


def test_a_blob_has_to_be_seen_unchanged_for_a_while(watched: Watched) -> None:
    patient = source(stable_for=60)
    watched.put("a.tif")
    assert looked_and_turned(watched, patient) == (0, 0)
    watched.pass_time(61)
    assert turn(watched.machine, patient).queued == 0, "nobody looked again"
    watched.put("a.tif")
    assert looked_and_turned(watched, patient) == (0, 0)
    watched.pass_time(59)
    assert "1 waits" in tick(watched.machine, patient, due=False).text
    watched.pass_time(2)
    assert tick(watched.machine, patient, due=False).looked, "it need not wait until a look is due"
    assert not tick(watched.machine, patient, due=False).looked
    (only,) = watched.attempts()
    assert only.source_version == watched.etag("a.tif")


def test_no_more_are_queued_than_may_be_active(watched: Watched) -> None:
    w, few = watched, source(max_active=3)
    w.put(*(f"{number}.tif" for number in range(5)))
    look(w.machine, few)
    done = turn(w.machine, few)
    assert (done.queued, done.note) == (3, "max_active is 3")
    assert turn(w.machine, few).queued == 0
    assert "2 wait (max_active is 3)" in tick(w.machine, few).text
    w.work()
    assert turn(w.machine, few).queued == 2
    assert [one.partition_key for one in w.attempts()] == [f"incoming/{number}.tif" for number in range(5)]


def test_no_more_are_queued_than_a_minute_may_have(watched: Watched) -> None:
    slow = source(per_minute=2)
    watched.put(*(f"{number}.tif" for number in range(5)))
    look(watched.machine, slow)
    assert turn(watched.machine, slow).queued == 2
    watched.work()
    assert turn(watched.machine, slow).note == "per_minute is 2"
    watched.pass_time(61)
    assert turn(watched.machine, slow).queued == 2
    watched.work()
    watched.pass_time(-86400)
    assert turn(watched.machine, slow).queued == 1, "what the clock said before it was put back does not count"


def test_what_no_job_can_be_made_of_is_refused_with_the_reason(watched: Watched) -> None:
    w, dated = watched, source(extract="(?P<year>[0-9]{4})", parameters={"collection_id": "scenes-{year}"})
    w.put("2024.tif", "x.tif")
    assert looked_and_turned(w, dated) == (1, 1)
    row = w.entries()["x.tif"]
    assert row.state == "refused"
    assert "is not found in 'x.tif'" in row.reason
    assert looked_and_turned(w, dated) == (0, 0), "nothing is tried twice"
    assert "1 refused" in tick(w.machine, dated).text
    w.put("x.tif")
    assert looked_and_turned(w, dated) == (0, 1)
    # by another rule it may do
    assert looked_and_turned(w) == (1, 0)
    assert w.states() == {"2024.tif": "queued", "x.tif": "queued"}


def test_of_two_names_with_one_partition_the_first_keeps_it(watched: Watched) -> None:
    w = watched
    w.put("a/roads.gpkg", "b/roads.gpkg")
    assert looked_and_turned(w, VECTORS) == (1, 1)
    assert w.entries()["b/roads.gpkg"].reason.startswith("'a/roads.gpkg' has its partition geo.roads already")
    w.put("b/roads.gpkg", "c/roads.geojson")
    assert looked_and_turned(w, VECTORS) == (0, 2)
    w.store.delete(IN, "a/roads.gpkg")
    assert looked_and_turned(w, VECTORS) == (1, 1), "it is free now"
    assert w.states() == {"a/roads.gpkg": "gone", "b/roads.gpkg": "queued", "c/roads.geojson": "refused"}


def test_a_name_that_another_source_makes_waits_until_that_is_gone_or_forgotten(watched_on_each: Watched) -> None:
    w = watched_on_each
    first, second = (source(name=f"s{which}", workflow="ingest_vector", prefix=f"{which}/") for which in "ab")
    w.put("a/roads.gpkg", "b/roads.gpkg", "a/x.gpkg", "b/x.gpkg")
    assert (looked_and_turned(w, first), looked_and_turned(w, second)) == ((2, 0), (0, 2))
    w.store.delete(IN, "a/roads.gpkg")
    look(w.machine, first)
    assert turn(w.machine, second).queued == 1, "it is free now"
    assert forget(w.ledger, "sa") == 2
    assert (w.entries("sa"), w.register("sa").last_look()) == ({}, LastLook())
    assert turn(w.machine, second).queued == 1
    assert w.states("sb") == {"b/roads.gpkg": "queued", "b/x.gpkg": "queued"}


def test_what_a_source_left_that_is_configured_no_more_holds_nothing(watched_on_each: Watched) -> None:
    w, old, new = watched_on_each, source(name="old", workflow="ingest_vector", prefix="a/"), source(name="new")
    w.put("a.tif")
    looked_and_turned(w, source(name="old"))
    looked_and_turned(w, new)
    w.work()
    w.store.delete(IN, "a.tif")
    look(w.machine, new)
    renamed = Register(w.ledger, "new", configured=["new"])
    assert [one.taken_over for one in w.register("new").untold(limit=9)] == [True]
    (untold,) = renamed.untold(limit=9)
    assert not untold.taken_over
    renamed.mark_told([untold])
    w.pass_time(1)
    assert w.register("new").expired(datetime.now(UTC), limit=9) == []
    assert [one.name for one in renamed.expired(datetime.now(UTC), limit=9)] == ["a.tif"]
    w.put("a/roads.gpkg", "b/roads.gpkg")
    looked_and_turned(w, old)
    tables = source(name="tables", workflow="ingest_vector", prefix="b/")
    assert "1 queued" in tick(w.machine, tables, configured=["tables"]).text


def test_partition_keys_above_the_limit_are_foretold_with_those_there_are(watched: Watched) -> None:
    w = watched
    w.machine.settings.__dict__["partition_keys_limit"] = 3
    w.put("a.tif", "b.tif")
    looked_and_turned(w)
    submit(w.machine, "validate_raster_job", {"container_name": IN, "blob_name": "b.tif"})
    w.put("b.tif", "c.tif")
    assert preview(w.machine, SCENES).over_keys_limit == 0
    w.put("d.tif", "e.tif")
    assert preview(w.machine, SCENES).over_keys_limit == 2


def test_a_source_that_was_changed_looks_before_it_queues(watched: Watched) -> None:
    watched.put("a.tif", "b.tif")
    look(watched.machine, SCENES)
    assert turn(watched.machine, source(match="b.*")).taken == 0
    assert looked_and_turned(watched, source(match="b.*")) == (1, 0)


def test_a_workflow_on_the_container_has_one_job_whatever_changed(watched_on_each: Watched) -> None:
    w, counted = watched_on_each, source(workflow="summarize_container")
    w.put("a.tif", "b.txt", "c.shp")
    look(w.machine, counted)
    done = turn(w.machine, counted)
    assert (done.queued, done.jobs) == (3, 1)
    assert w.work() == 1
    assert turn(w.machine, counted).jobs == 0
    w.store.delete(IN, "a.tif")
    look(w.machine, counted)
    assert turn(w.machine, counted).jobs == 1, "one that is gone changes the container, too"
    assert turn(w.machine, counted).jobs == 0
    w.put("b.txt")
    look(w.machine, counted)
    assert turn(w.machine, counted).jobs == 1
    assert len(w.attempts()) == 2, "the one that waits reads what is there when it begins"


# --- edited sources ------------------------------------------------------------------------------------------------


def foretold_and_done(w: Watched, which: Source) -> tuple[int, int, int]:
    """What a tick found changed, the jobs it queued and the attempts that made; as foretold."""
    before, attempts = preview(w.machine, which), len(w.attempts())
    done = tick(w.machine, which)
    assert done.look is not None
    assert (before.new, before.changed, before.dropped, before.outdated, before.jobs) == (
        *(done.look.new, done.look.changed, done.look.dropped, done.look.outdated),
        done.turned.jobs,
    )
    return done.look.changed, done.turned.jobs, len(w.attempts()) - attempts


def test_another_workflow_is_queued_for_all_that_matches(watched_on_each: Watched) -> None:
    w, checks = watched_on_each, source(workflow="validate_raster_job")
    w.put("a.tif", "b.tif")
    tick(w.machine, checks)
    w.work()
    w.put("new.tif")
    # one whose job waits and one whose job is at work, too
    assert looked_and_turned(w, checks) == (1, 0)
    assert look(w.machine, source(match="*.tif")).changed == 3
    assert not any(standing_of(w.ledger, "scenes")[state] for state in (Standing.DONE, Standing.AT_WORK))
    # edited back before anything came of it
    assert preview(w.machine, checks).jobs == 0
    assert foretold_and_done(w, checks) == (0, 0, 0)
    assert standing_of(w.ledger, "scenes")[Standing.DONE] == 2
    assert foretold_and_done(w, SCENES) == (3, 3, 3)
    assert {(one.job_type, one.status) for one in w.attempts()[3:]} == {("process_raster", JobStatus.QUEUED)}
    assert foretold_and_done(w, SCENES) == (0, 0, 0)
    # what was made before is on record; what had not ended goes on
    assert foretold_and_done(w, checks) == (3, 3, 0)
    assert {row.asset for row in w.entries().values()} == {"raster_validation"}
    # of one that is gone meanwhile and taken back, nothing is on record
    w.work()
    look(w.machine, SCENES)
    version = w.etag("a.tif")
    w.store.delete(IN, "a.tif")
    look(w.machine, SCENES)
    register = w.register()
    register.mark_told(register.untold(limit=9))
    w.pass_time(1)
    register.mark_taken_back(register.expired(datetime.now(UTC), limit=9))
    back = Seen(name="a.tif", version=version, size=4, last_modified=None, state=EntryState.WAITING, reason=None)
    register.write_seen([back], expected=register.last_look().sequence, now=datetime.now(UTC))
    assert register.settle(made_by(checks, w.machine.registry)) == 2
    assert w.states() == {"a.tif": "waiting", "b.tif": "queued", "new.tif": "queued"}


def test_an_edit_of_a_source_of_a_whole_container_queues_its_one_job(watched_on_each: Watched) -> None:
    w, whole = watched_on_each, source(workflow="summarize_container")
    w.put("a.tif", "b.tif")
    assert foretold_and_done(w, whole) == (0, 1, 1)
    w.work()
    assert foretold_and_done(w, source(workflow="summarize_container", parameters={"file_limit": 9})) == (2, 1, 1)
    w.work()
    fewer = source(workflow="summarize_container", parameters={"file_limit": 9}, exclude="b.*")
    look(w.machine, fewer)
    assert look(w.machine, source(workflow="summarize_container", parameters={"file_limit": 9})).new == 1
    assert foretold_and_done(w, fewer) == (1, 1, 1)
    w.work()
    assert foretold_and_done(w, fewer) == (0, 0, 0)
    assert w.register().wait_again() == 1
    assert w.register().made() == 0
    assert foretold_and_done(w, fewer) == (0, 1, 1), "and it is not answered from the record"


def test_other_parameters_run_nothing_until_somebody_says_so(watched: Watched) -> None:
    w, one = watched, source(parameters={"collection_id": "one"})
    two = source(parameters={"collection_id": "two"}, max_active=2)
    w.put("a.tif", "b.tif")
    tick(w.machine, one)
    w.work()
    w.put("new.tif")
    assert foretold_and_done(w, two) == (0, 1, 1)
    w.work()
    told = tick(w.machine, two)
    assert told.text.endswith(
        "; 2 entries keep what other parameters made: 'geo-assets sources again scenes --outdated' makes them anew"
    )
    assert told.is_quiet, "it was logged when it began"
    assert tick(w.machine, one).text.count("1 entry keeps what other parameters made") == 1
    assert not tick(w.machine, two).is_quiet
    made = made_by(two, w.machine.registry)
    assert [w.register().made(which) for which in (made, None)] == [2, 3]
    assert w.register().wait_again(made) == 2
    assert w.register().made(made) == 0
    # what is new goes first, in the present parameters
    w.put("zz.tif")
    assert tick(w.machine, source(parameters={"collection_id": "two"}, max_active=1)).turned.queued == w.work() == 1
    assert foretold_and_done(w, two) == (0, 2, 2)
    assert [(x.partition_key[9:], x.parameters["collection_id"], x.number) for x in w.attempts()[3:]] == [
        ("zz.tif", "two", 1),
        ("a.tif", "two", 1),
        ("b.tif", "two", 1),
    ]
    # once more, and anew: the record does not answer
    w.work()
    assert w.register().wait_again() == 4
    assert "2 queued" in tick(w.machine, two).text
    w.work()
    w.put("a.tif")
    assert tick(w.machine, two).turned.queued == 2
    assert [(x.partition_key[9:], x.number) for x in w.attempts()[6:]] == [
        *(("a.tif", 2), ("b.tif", 2)),
        *(("a.tif", 3), ("new.tif", 2)),
    ]


def test_somebody_who_waits_goes_first(watched: Watched) -> None:
    watched.put(*(f"{number}.tif" for number in range(30)))
    looked_and_turned(watched)
    submit(watched.machine, "process_raster", {"container_name": IN, "blob_name": "29.tif"})
    (first, *_) = watched.ledger.assign_waves(wave_size=10, waves_at_once=4)
    assert (first.priority, first.size) == (INTERACTIVE_PRIORITY, 1)


def test_a_failed_job_is_not_queued_again_by_itself(watched: Watched) -> None:
    watched.put("a.tif")
    looked_and_turned(watched)
    watched.work(JobStatus.FAILED)
    assert looked_and_turned(watched) == (0, 0)
    watched.put("a.tif")
    assert looked_and_turned(watched) == (1, 0)


def test_a_blob_that_is_back_as_it_was_is_answered_as_before(watched: Watched) -> None:
    """Half a dataset for a moment is no new version."""
    parts = ["roads.shp", "roads.shx", "roads.dbf"]
    watched.put(*parts)
    looked_and_turned(watched, VECTORS)
    watched.work()
    before = watched.entries()["roads.shp"]
    register = watched.register()
    now = register.last_look()
    half = Seen(
        name="roads.shp", version="parts:half", size=1, last_modified=None, state=EntryState.WAITING, reason="waits"
    )
    register.write_seen([half], expected=now.sequence, now=before.seen_at)
    assert watched.states() == {"roads.shp": "waiting"}
    assert looked_and_turned(watched, VECTORS) == (0, 0)
    assert watched.states() == {"roads.shp": "queued"}
    assert len(watched.attempts()) == 1


def test_what_is_back_as_it_went_is_queued_again_only_if_nothing_stands_of_it(watched_on_each: Watched) -> None:
    names = ("done.csv", "failed.csv", "changed.csv", "taken.csv", "withdrawn.csv", "shared.csv")
    there, elsewhere, back = (
        Watched(watched_on_each.settings.home, watched_on_each.ledger, GeneratedStore([blobs]))
        for blobs in (
            [Blob(name) for name in names],
            [Blob("other/shared.csv")],
            [Blob(name, size=2 if name == "changed.csv" else 1) for name in names],
        )
    )
    looked_and_turned(there, source(workflow="ingest_vector", match="failed.csv"))
    there.work(JobStatus.FAILED)
    looked_and_turned(there, VECTORS)
    there.work()
    assert looked_and_turned(elsewhere, VECTORS) == (1, 0)
    elsewhere.work()
    taken = source_entries.update().where(source_entries.c.name == "taken.csv").values(reason=TAKEN_BACK)
    withdrawn = jobs.update().where(jobs.c.partition_key == "geo.withdrawn").values(withdrawn_at=datetime.now(UTC))
    there.ledger.write(lambda c: [c.execute(one) for one in (taken, withdrawn)])
    foretold = preview(back.machine, VECTORS)
    assert (foretold.returned, foretold.jobs, foretold.collisions) == (6, 4, 1)
    found = look(back.machine, VECTORS)
    assert (found.returned, found.waiting) == (6, 5)
    assert back.states()["done.csv"] == "queued"
    assert turn(back.machine, VECTORS).queued == 5
    # what is about the whole container has seen that it was gone
    whole = source(name="whole", workflow="summarize_container")
    for number in (1, 0, 1):
        w = Watched(there.settings.home, there.ledger, GeneratedStore([[Blob("a.csv")]] * number))
        assert looked_and_turned(w, whole) == (1, 0)
        w.work()


# --- dying, and others at the same moment --------------------------------------------------------------------------


def _scenario(w: Watched) -> None:
    """New, changed, gone, back, half, refused, edited, edited back, anew: all to be dealt with by one tick."""
    w.put("same.gpkg", "changed.gpkg", "gone.gpkg", "back.gpkg", "whole.shp", "whole.shx", "whole.dbf")
    w.put("edited.gpkg", "settled.gpkg", "again.gpkg")
    tick(w.machine, VECTORS)
    w.work()
    for name, values in {
        "edited.gpkg": {"made_by": "0" * 24},
        "settled.gpkg": {"state": "waiting", "again": "edited"},
        "again.gpkg": {"state": "waiting", "again": "again"},
    }.items():
        edit = source_entries.update().where(source_entries.c.name == name).values(**values)
        w.ledger.write(lambda c, edit=edit: c.execute(edit))  # type: ignore[misc]
    w.store.delete(IN, "back.gpkg")
    tick(w.machine, VECTORS)
    w.put("changed.gpkg", "back.gpkg", "new.gpkg", "other/new.geojson", "half.shp", "whole.dbf")
    w.store.delete(IN, "gone.gpkg")


def _outcome(w: Watched) -> tuple[object, object]:
    columns = ("version", "state", "reason", "partition_key", "submitted_version", "made_by", "again")
    rows = {name: tuple(getattr(row, column) for column in columns) for name, row in w.entries().items()}
    return rows, sorted((one.partition_key, one.number, one.source_version) for one in w.attempts())


def _die() -> None:
    raise DiedError


def test_a_tick_may_die_anywhere(tmp_path: Path, ledger_template: Path) -> None:
    """Every transaction of a tick is a point to die at: before it, and when it is done but nobody knows.

    To die when one is done is to die before the next, as a tick leaves nothing anywhere else.
    """
    database = Path(empty_ledger(tmp_path / "whole", ledger_template).removeprefix("sqlite:///"))
    w = Watched(tmp_path, ledger := TrackedLedger(f"sqlite:///{database}"))
    _scenario(w)
    ledger.engine.dispose()  # which brings everything into the file
    prepared = database.read_bytes()
    before = ledger.calls
    tick(w.machine, VECTORS)
    points = ledger.calls - before
    expected = _outcome(w)
    latest = [w.ledger.latest_job("vector_table", f"geo.{name}", "ingest_vector") for name in ("settled", "again")]
    assert [job.attempts for job in latest if job is not None] == [1, 2]
    ledger.close()
    assert points >= 10
    for point in range(1, points + 2):
        folder = tmp_path / str(point)
        folder.mkdir()
        (folder / "ledger.db").write_bytes(prepared)
        ledger = TrackedLedger(f"sqlite:///{folder / 'ledger.db'}")
        w = Watched(tmp_path, ledger, w.store)
        if point <= points:
            ledger.at[ledger.calls + point] = _die
        else:
            ledger.after[ledger.calls + points] = _die
        with pytest.raises(DiedError):
            tick(w.machine, VECTORS)
        w.work()  # what was queued is done before anybody ticks again
        tick(w.machine, VECTORS)
        assert _outcome(w) == expected, f"died at {point}"
        ledger.close()


def test_another_daemon_may_tick_at_any_moment(tmp_path: Path, ledger_template: Path) -> None:
    store = MemoryBlobStore()
    points = 1
    point = 0
    while point < points:
        point += 1
        url = empty_ledger(tmp_path / str(point), ledger_template)
        ledger, other = TrackedLedger(url), TrackedLedger(url)
        w = Watched(tmp_path, ledger, store)
        w.put(*(f"{number}.tif" for number in range(3)))
        before = ledger.calls

        def between(other: TrackedLedger = other) -> None:
            # it has a run that is faster than this tick, as well
            second = Watched(tmp_path, other, store)
            tick(second.machine, SCENES)
            second.work()

        ledger.at[ledger.calls + point] = between
        tick(w.machine, SCENES)
        points = max(points, ledger.calls - before - 1)
        tick(w.machine, SCENES)
        w.work()
        assert set(w.states().values()) == {"queued"}, point
        assert len(w.attempts()) == 3, f"something ran twice: another daemon ticked at {point}"
        for one in (ledger, other):
            one.close()
    assert points >= 7


def test_two_daemons_at_once_queue_everything_once(watched_on_each: Watched) -> None:
    w = watched_on_each
    w.put(*(f"{number:03}.tif" for number in range(200)))
    url = w.ledger.engine.url.render_as_string(hide_password=False)
    ledgers = [TrackedLedger(url) for _ in range(2)]
    daemons = [Watched(w.settings.home, ledger, w.store) for ledger in ledgers]
    begin = threading.Barrier(2)

    def ticks(daemon: Watched) -> None:
        begin.wait()
        for _ in range(3):
            tick(daemon.machine, SCENES)
            daemon.work()

    threads = [threading.Thread(target=ticks, args=(daemon,)) for daemon in daemons]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for ledger in ledgers:
        ledger.close()
    tick(w.machine, SCENES)
    w.work()
    assert set(w.states().values()) == {"queued"}
    assert len(w.attempts()) == 200


def test_an_entry_that_changes_while_it_is_queued_is_not_queued_as_it_was(watched: Watched) -> None:
    watched.put("a.tif", "b.tif")
    look(watched.machine, SCENES)

    def another_look() -> None:
        watched.put("b.tif")
        look(watched.machine, SCENES)

    assert isinstance(watched.ledger, TrackedLedger)
    watched.ledger.at[watched.ledger.calls + 5] = another_look
    with pytest.raises(LookOvertakenError, match="nothing was queued twice"):
        turn(watched.machine, SCENES)
    assert watched.attempts() == []
    assert turn(watched.machine, SCENES).queued == 2
    assert {one.source_version for one in watched.attempts()} == {watched.etag("a.tif"), watched.etag("b.tif")}


def test_a_workflow_that_takes_no_blob_is_refused(watched: Watched) -> None:
    odd = source(workflow="hello_world")
    watched.put("a.tif")
    look(watched.machine, odd)
    with pytest.raises(ParameterError, match="takes neither a container nor a blob"):
        turn(watched.machine, odd)


def test_a_burst_of_ten_thousand_makes_a_handful_of_waves(watched: Watched) -> None:
    blobs = [[Blob(f"d{page}/{number:05}.tif") for number in range(1000)] for page in range(10)]
    w = Watched(watched.settings.home, watched.ledger, GeneratedStore(blobs))
    found = tick(w.machine, SCENES)
    assert found.look is not None
    assert (found.look.new, found.turned.queued) == (10_000, 5000)
    assert "5,000 wait (max_active is 5,000)" in found.text
    waves = w.ledger.assign_waves(wave_size=w.settings.wave_size, waves_at_once=w.settings.waves_at_once)
    assert len(waves) == w.settings.waves_at_once
    assert tick(w.machine, SCENES).turned.queued == 0


@pytest.mark.parametrize("kind", ["at", "after"])
def test_dying_is_not_taken_for_an_error(watched: Watched, kind: str) -> None:
    hooks: dict[int, Callable[[], object]] = getattr(watched.ledger, kind)
    assert isinstance(watched.ledger, TrackedLedger)
    hooks[watched.ledger.calls + 1] = _die
    with pytest.raises(DiedError):
        tick(watched.machine, SCENES)
