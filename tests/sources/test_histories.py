"""Arbitrary histories of a container: each version that stayed is queued exactly once, and nothing else is.

What belongs here: the state machine.  What does not: single cases (``test_look``, ``test_turn``).
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from geo_assets.errors import ThrottledError
from geo_assets.sources.look import look
from geo_assets.sources.register import EntryState
from geo_assets.sources.tick import Ticked, tick
from geo_assets.stores.memory import MemoryBlobStore
from tests.sources.watching import IN, DiedError, TrackedLedger, Watched, empty_ledger, source

STABLE = 60.0
VECTORS = source(workflow="ingest_vector", stable_for=STABLE)
SINGLE = ("a.gpkg", "b.geojson", "f/c.fgb")
ROADS = "roads.shp"
PARTS = ("roads.shp", "roads.shx", "roads.dbf")
HINTS = ("a.gpkg", "f/", "roads.dbf")


class Flaky(MemoryBlobStore):
    """Throttles when told to, after it has given some."""

    throttles = False

    def list_blobs(self, *arguments: Any, **named: Any) -> Any:
        """List, and perhaps fail."""
        yield from super().list_blobs(*arguments, **named)
        if self.throttles:
            raise ThrottledError("slow down")


class Container(RuleBasedStateMachine):
    """A container, the daemons that watch it, and what is known to be due."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="history-"))
        url = empty_ledger(self.home, self.template)
        self.ledger, self.other = TrackedLedger(url), TrackedLedger(url)
        self.store = Flaky()
        self.w = Watched(self.home, self.ledger, self.store)
        self.second = Watched(self.home, self.other, self.store)
        self.clock = 0.0
        self.content: dict[str, int] = {}
        self.writes = 0
        self.known: dict[str, tuple[tuple[int, ...], float]] = {}
        """Name → version seen last, and when it was seen first."""
        self.due: dict[str, set[tuple[int, ...]]] = {}
        """Name → versions that were seen to stay."""
        self.looked = False

    def teardown(self) -> None:
        """Let everything settle: what is there and whole has been queued in the version it has."""
        self.store.throttles = False
        for _ in range(2):
            self.time_passes(STABLE + 1)
            self.tick()
        states = self.w.entries()
        for name in (*SINGLE, ROADS):
            version = self._version(name)
            if version is not None:
                assert states[name].state == "queued", name
                assert states[name].submitted_version == states[name].version, name
            elif name in states and name not in self.content:
                assert states[name].state == "gone", name
        self.each_version_that_stayed_is_queued_at_most_once()
        for ledger in (self.ledger, self.other):
            ledger.close()
        shutil.rmtree(self.home)

    # --- the container -----------------------------------------------------------------------------------------

    @rule(name=st.sampled_from((*SINGLE, *PARTS)))
    def arrives_or_is_replaced(self, name: str) -> None:
        """A blob is written."""
        self.writes += 1
        self.content[name] = self.writes
        self.store.put(IN, name, f"{self.writes}".encode())

    @rule()
    def a_whole_dataset_arrives(self) -> None:
        """All parts are written."""
        for part in PARTS:
            self.arrives_or_is_replaced(part)

    @precondition(lambda self: self.content)
    @rule(data=st.data())
    def is_deleted(self, data: st.DataObject) -> None:
        """A blob goes."""
        name = data.draw(st.sampled_from(sorted(self.content)))
        del self.content[name]
        self.store.delete(IN, name)

    @rule(seconds=st.sampled_from([20.0, STABLE + 1]))
    def time_passes(self, seconds: float) -> None:
        """Nothing else happens for a while."""
        self.clock += seconds
        self.w.pass_time(seconds)

    @rule()
    def runs_end(self) -> None:
        """What was queued is done."""
        self.w.work()

    # --- the daemons -------------------------------------------------------------------------------------------

    @rule()
    def tick(self) -> None:
        """A daemon ticks."""
        done = self._ticked(lambda: tick(self.w.machine, VECTORS))
        found = done.look if done is not None else None
        if found is not None:
            assert found.seen == found.new + found.changed + found.returned + found.unchanged
            states = self.w.register().counts()
            assert sum(states.values()) - states[EntryState.GONE] == found.seen == len(self._present())

    @rule(point=st.integers(1, 12), done=st.booleans(), runs=st.booleans())
    def a_tick_dies(self, point: int, done: bool, runs: bool) -> None:  # noqa: FBT001 - drawn
        """A daemon dies at one of its transactions, before it or when it is done."""

        def die() -> None:
            raise DiedError

        hooks = self.ledger.after if done else self.ledger.at
        hooks[self.ledger.calls + point] = die
        self._ticked(lambda: tick(self.w.machine, VECTORS))
        hooks.clear()
        if runs:
            self.w.work()

    @rule(point=st.integers(1, 12))
    def another_daemon_ticks_meanwhile(self, point: int) -> None:
        """Two tick at once, and the runs of the one are faster than the other."""

        def meanwhile() -> None:
            tick(self.second.machine, VECTORS)
            self.second.work()

        self.ledger.at[self.ledger.calls + point] = meanwhile
        self._ticked(lambda: tick(self.w.machine, VECTORS))
        self.ledger.at.clear()

    @rule()
    def the_store_throttles(self) -> None:
        """A look fails halfway; nothing is known that was not known before."""
        self.store.throttles = True
        before = {name: row.version for name, row in self.w.entries().items()}
        tick(self.w.machine, VECTORS)
        self.store.throttles = False
        assert {name: row.version for name, row in self.w.entries().items()} == before

    @precondition(lambda self: self.looked)
    @rule(prefix=st.sampled_from(HINTS))
    def a_hint_comes(self, prefix: str) -> None:
        """A look at a few names; it is no evidence that anything stayed as it was."""
        look(self.w.machine, VECTORS, prefix=prefix)
        for name in self._present():
            version = self._whole_version(name)
            if name.startswith(prefix.removesuffix(".dbf")) and self.known.get(name, ((), 0.0))[0] != version:
                self.known[name] = (version, self.clock)

    def _ticked(self, act: Callable[[], Ticked]) -> Ticked | None:
        self._note()
        try:
            return act()
        except DiedError:
            return None

    def _note(self) -> None:
        """What a look that begins now makes due at most."""
        self.looked = True
        present = self._present()
        for name in list(self.known):
            if name not in present:
                del self.known[name]
        for name in present:
            version = self._whole_version(name)
            seen, since = self.known.get(name, ((), self.clock))
            if seen != version:
                since = self.clock
            self.known[name] = (version, since)
            if self.clock - since >= STABLE and self._version(name) is not None:
                self.due.setdefault(name, set()).add(version)

    def _present(self) -> list[str]:
        return [name for name in (*SINGLE, ROADS) if name in self.content]

    def _whole_version(self, name: str) -> tuple[int, ...]:
        return tuple(self.content.get(part, 0) for part in (PARTS if name == ROADS else (name,)))

    def _version(self, name: str) -> tuple[int, ...] | None:
        version = self._whole_version(name)
        return None if 0 in version else version

    @invariant()
    def each_version_that_stayed_is_queued_at_most_once(self) -> None:
        """And nothing else is queued: not half a dataset, not a blob still being written, not one twice."""
        attempts: dict[str, list[str | None]] = {}
        for attempt in self.w.attempts():
            attempts.setdefault(attempt.parameters["blob_name"], []).append(attempt.source_version)
        for name, versions in attempts.items():
            assert len(versions) == len(set(versions)), f"{name} was queued twice in one version"
            assert len(versions) <= len(self.due.get(name, ())), f"{name} was queued in a version that did not stay"


def test_whatever_happens_each_version_that_stayed_is_queued_exactly_once(
    ledger_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    machine = type("ContainerOfTest", (Container,), {"template": ledger_template})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
