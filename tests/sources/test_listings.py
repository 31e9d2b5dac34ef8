"""Looks by a run: a container too large for a tick is listed by a job, and compared in its run.

What belongs here: ``geo_assets.sources.listings``, and ticks of sources that are looked at by runs.  What does not: the
comparison (``test_look``), and what else the listing job does (``tests/jobs``).
"""

from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from geo_assets.coremachine.asset_job import _job_for_partition
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import JobFilter
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.submission import submit
from geo_assets.errors import LookOvertakenError
from geo_assets.sources import comparison
from geo_assets.sources import listings as listings_module
from geo_assets.sources import tick as tick_module
from geo_assets.sources.listings import ask_for_listing, take_listings
from geo_assets.sources.look import look
from geo_assets.sources.register import LastLook, Register
from geo_assets.sources.source import Source
from geo_assets.sources.tick import tick
from tests.jobs.bench import Bench
from tests.sources.watching import IN, source

LISTING = "list_container_contents"
SCENES = source()


class Listed:
    """Local containers, and a source whose container takes longer to list than a tick may."""

    def __init__(self, home: Path) -> None:
        # nothing here opens a file, so nobody needs the worker processes
        self.bench = Bench(home, cast("Sandbox", None), look_seconds=1e-9)
        self.machine = self.bench.machine
        self.folder = self.bench.containers / IN
        self.folder.mkdir(parents=True)

    def put(self, *names: str) -> None:
        """Write files, each with a new ETag."""
        for name in names:
            (self.folder / name).write_bytes(b"x")

    def run(self, *sources: Source, dies: bool = False) -> None:
        """Take the listing that was asked for to its end, as its run does."""
        (job,) = self.bench.ledger.jobs(JobFilter(job_type=LISTING, statuses=(JobStatus.QUEUED,)))
        assert job.parameters["magic"] is False
        self.bench.ledger.cancel(job.job_type, job.job_id)  # the bench makes an attempt of its own
        ended = self.bench.run(LISTING, **job.parameters)
        assert ended.status is JobStatus.COMPLETED
        if not dies:
            take_listings(sources or [SCENES])(self.machine, LISTING, [job.parameters])

    def last(self) -> LastLook:
        """What is known of the looks."""
        return Register(self.bench.ledger, "scenes").last_look()

    def states(self) -> dict[str, str]:
        """Name → state."""
        found: dict[str, str] = {}
        for frame in Register(self.bench.ledger, "scenes").frames(made_by=""):
            found.update(zip(frame["name"], frame["state"], strict=True))
        return found


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Listed:
    """A container that is looked at by runs."""
    monkeypatch.setattr(listings_module, "_MARGIN", timedelta())
    return Listed(tmp_path)


def test_a_container_that_takes_too_long_is_listed_by_a_run_and_compared_there(listed: Listed) -> None:
    listed.put("a.tif", "b.tif", "c.txt")
    first = tick(listed.machine, SCENES)
    assert "a run lists it from now on" in first.text
    assert (listed.last().by_run, listed.states()) == (True, {})
    assert "a run lists the container 'incoming' (job " in tick(listed.machine, SCENES).text
    assert len(listed.bench.ledger.jobs()) == 1, "one run at a time"
    listed.run()
    assert listed.states() == {"a.tif": "waiting", "b.tif": "waiting"}
    after = tick(listed.machine, SCENES)
    assert after.look is None
    assert after.turned.queued == 2
    assert listed.last().by_run, "half the time of a tick was not enough"
    listed.put("b.tif", "d.tif")
    (listed.folder / "a.tif").unlink()
    ask_for_listing(listed.machine, SCENES)
    listed.run()
    assert listed.states() == {"a.tif": "gone", "b.tif": "waiting", "d.tif": "waiting"}
    assert tick(listed.machine, SCENES).turned.queued == 2
    edited = tick(listed.machine, source(parameters={"collection_id": "other"}))
    assert "2 entries keep what other parameters made" in edited.text


def test_what_a_look_asks_for_is_not_what_materialize_does(listed: Listed) -> None:
    listed.put("a.tif")
    binding = listed.machine.registry[LISTING]
    for given in ({"detail": "full"}, {"magic": False}):
        submit(listed.machine, LISTING, {"container_name": IN, **given})
        (job,) = listed.bench.ledger.jobs(JobFilter(job_type=LISTING, statuses=(JobStatus.QUEUED,)))
        tick(listed.machine, SCENES)
        assert _job_for_partition(listed.machine, binding, IN).parameters == job.parameters
        for one in listed.bench.ledger.jobs():
            listed.bench.ledger.cancel(LISTING, one.job_id)


def test_the_next_listing_is_asked_for_when_it_is_time(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    listed.run()
    listing_id = listed.last().listing_job
    assert "a run listed the container 'incoming' at " in tick(listed.machine, SCENES).text
    monkeypatch.setattr(Source, "every_seconds", 0)
    with monkeypatch.context() as patched:
        patched.setattr(tick_module, "seconds_taken", lambda _: 20.0)
        assert "again after 200 s" in tick(listed.machine, SCENES).text, "a run takes a tenth of the time at most"
    monkeypatch.setattr(tick_module, "_REST", 0)
    assert "a run is asked to list the container" in tick(listed.machine, SCENES).text
    assert listed.last().listing_job == listing_id
    listed.run()


def test_a_listing_whose_run_died_before_it_was_compared_is_asked_for_again(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    listed.run(dies=True)
    assert listed.states() == {}
    assert "is asked" not in tick(listed.machine, SCENES).text, "the run may be about to compare it"
    monkeypatch.setattr(listings_module, "_GRACE", timedelta())
    assert "a run is asked to list the container" in tick(listed.machine, SCENES).text
    listed.run()
    assert listed.states() == {"a.tif": "waiting"}
    assert "is asked" not in tick(listed.machine, SCENES).text


def test_a_run_told_twice_changes_nothing_the_second_time(listed: Listed) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    listed.run()
    (job,) = listed.bench.ledger.jobs()
    before = listed.last().sequence
    take_listings([SCENES])(listed.machine, LISTING, [job.parameters])
    take_listings([SCENES])(listed.machine, "process_raster", [job.parameters])
    take_listings([SCENES])(listed.machine, LISTING, [{**job.parameters, "magic": True}])
    assert listed.last().sequence == before


def test_a_container_that_is_listed_fast_enough_is_looked_at_in_ticks_again(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    listed.run()
    listed.machine.settings.__dict__["look_seconds"] = 1000.0
    ask_for_listing(listed.machine, SCENES)
    with monkeypatch.context() as slow:  # what is remembered, not the listing
        clock = SimpleNamespace(monotonic=count(step=600).__next__)
        slow.setattr(comparison, "time", clock)
        listed.run()
    assert listed.last().by_run
    monkeypatch.setattr(Source, "every_seconds", 0)
    took = round(listed.last().seconds or 0)
    assert took >= 600
    assert f"again after {10 * took} s" in tick(listed.machine, SCENES).text
    ask_for_listing(listed.machine, SCENES)
    listed.run()
    assert not listed.last().by_run
    listed.put("b.tif")
    found = tick(listed.machine, SCENES).look
    assert found is not None
    assert found.new == 1


def test_what_was_seen_while_the_container_was_listed_is_left_as_it_is(listed: Listed) -> None:
    """A hint shows a blob that came, and one that went, after the listing had passed their names."""
    listed.put("a.tif", "b.tif")
    tick(listed.machine, SCENES)
    listed.run()
    ask_for_listing(listed.machine, SCENES)
    listed.run(dies=True)
    listed.put("c.tif")
    (listed.folder / "a.tif").unlink()
    for name in ("a", "c"):
        look(listed.machine, SCENES, prefix=f"{name}.")
    assert listed.states() == {"a.tif": "gone", "b.tif": "waiting", "c.tif": "waiting"}
    (job,) = listed.bench.ledger.jobs()
    take_listings([SCENES])(listed.machine, LISTING, [job.parameters])
    assert listed.states() == {"a.tif": "gone", "b.tif": "waiting", "c.tif": "waiting"}


def test_a_listing_of_another_part_of_the_container_is_nobodys(listed: Listed) -> None:
    listed.put("a.tif", "b.tif")
    tick(listed.machine, SCENES)
    narrowed = source(prefix="b")
    listed.run(narrowed)
    assert listed.states() == {}
    assert "a run is asked" in tick(listed.machine, narrowed).text
    listed.run(narrowed)
    assert listed.states() == {"b.tif": "waiting"}


def test_a_listing_that_failed_is_said_and_asked_for_again_in_time(
    listed: Listed, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    (job,) = listed.bench.ledger.jobs()
    listed.bench.ledger.cancel(job.job_type, job.job_id)
    ticked = tick(listed.machine, SCENES)
    assert "the last listing of the container 'incoming' is cancelled: " in ticked.text
    assert ticked.problem == Register(listed.bench.ledger, "scenes").last_look().error == ticked.text, (
        "where `sources list` finds it"
    )
    monkeypatch.setattr(Source, "every_seconds", 0)
    monkeypatch.setattr(tick_module, "_REST", 0)
    assert "a run is asked" in tick(listed.machine, SCENES).text
    listed.run()
    assert listed.states() == {"a.tif": "waiting"}


def test_a_comparison_that_is_overtaken_is_made_again(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    listed.put("a.tif")
    tick(listed.machine, SCENES)
    tries: list[int] = []

    def overtaken(*arguments: Any, **named: Any) -> object:
        tries.append(1)
        if len(tries) < times:
            raise LookOvertakenError("another look was faster")
        return look(*arguments, **named)

    monkeypatch.setattr(listings_module, "look", overtaken)
    times = 3
    listed.run()
    assert listed.states() == {"a.tif": "waiting"}
    times = 9
    (job,) = listed.bench.ledger.jobs()
    with pytest.raises(LookOvertakenError, match="source 'scenes': another look was faster"):
        take_listings([SCENES])(listed.machine, LISTING, [job.parameters])
