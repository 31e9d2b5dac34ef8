"""A watched container: a ledger, a store in memory, and the ticks of sources, without Dagster.

What belongs here: what several tests of sources share, and a ledger that dies or lets others come between.  What does
not: tests.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.coremachine.ledger import Attempt, Ledger, Settlement
from geo_assets.coremachine.ledger_tables import attempts, source_entries, source_looks
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.jobs import WORKFLOWS
from geo_assets.settings import Settings
from geo_assets.sources.register import Register
from geo_assets.sources.source import Source
from geo_assets.stores.memory import MemoryBlobStore

__all__ = ["IN", "DiedError", "TrackedLedger", "Watched", "empty_ledger", "source"]

IN = "incoming"
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


class DiedError(BaseException):
    """The daemon's process ended here; no handler for errors sees it."""


class TrackedLedger(Ledger):
    """Counts its transactions; at one of them it can die, before or after, or let somebody else go first."""

    def __init__(self, url: str, *, patience_seconds: float = 20.0) -> None:
        self.calls = 0
        self.at: dict[int, Callable[[], object]] = {}
        self.after: dict[int, Callable[[], object]] = {}
        super().__init__(url, patience_seconds=patience_seconds)

    def _retry[T](self, operation: Callable[[], T]) -> T:
        self.calls += 1
        call = self.calls
        if hook := self.at.pop(call, None):
            hook()
        answer = super()._retry(operation)
        if hook := self.after.pop(call, None):
            hook()
        return answer


@lru_cache(maxsize=1)
def _registry() -> Mapping[str, Any]:
    return registry_of([bind(workflow) for workflow in WORKFLOWS])


def empty_ledger(folder: Path, template: Path) -> str:
    """The URL of an empty SQLite ledger; making its tables once is enough."""
    if not template.exists():
        Ledger(f"sqlite:///{template}").close()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(template, folder / "ledger.db")
    return f"sqlite:///{folder / 'ledger.db'}"


def source(**given: Any) -> Source:
    """A source on the container, for rasters if nothing else is said."""
    return Source(**{"name": "scenes", "container": IN, "workflow": "process_raster", **given})


class Watched:
    """One machine over a ledger and a store."""

    def __init__(self, home: Path, ledger: Ledger, store: Any = None, **services: Any) -> None:
        self.ledger = ledger
        self.store = store if store is not None else MemoryBlobStore()
        self.store.create_container(IN)
        self.settings = Settings(home=home)
        self.machine = CoreMachine(
            ledger=ledger,
            registry=_registry(),
            settings=self.settings,
            services={"blobs": self.store, "settings": self.settings, **services},
        )

    def put(self, *names: str, data: bytes = b"data") -> None:
        """Write blobs, each with a new ETag."""
        for name in names:
            self.store.put(IN, name, data)

    def etag(self, name: str) -> str:
        """The ETag a blob has now."""
        return str(self.store.head(IN, name).etag)

    def entries(self, which: str = "scenes") -> dict[str, Any]:
        """Name → row."""
        query = source_entries.select().where(source_entries.c.source == which)
        return {row.name: row for row in self.ledger.read(lambda c: list(c.execute(query)))}

    def states(self, which: str = "scenes") -> dict[str, str]:
        """Name → state."""
        return {name: row.state for name, row in self.entries(which).items()}

    def attempts(self) -> list[Attempt]:
        """All attempts there ever were, oldest first."""
        found = self.ledger.read(self.ledger._attempts_where)
        return sorted(found, key=lambda attempt: attempt.attempt_id)

    def register(self, which: str = "scenes") -> Register:
        """The register of a source."""
        return Register(self.ledger, which)

    def work(self, status: JobStatus = JobStatus.COMPLETED) -> int:
        """End every queued attempt, as runs do; how many that were."""
        done = 0
        self.ledger.assign_waves(wave_size=1000, waves_at_once=1000)
        for wave in self.ledger.open_waves():
            run_id = f"run-{wave.wave_id}"
            claimed = self.ledger.claim_wave(wave.wave_id, run_id)
            outcome = OutcomeKind.CREATED if status is JobStatus.COMPLETED else OutcomeKind.FAILED
            self.ledger.settle(
                run_id,
                [Settlement(attempt_id=one.attempt_id, status=status, outcome=outcome) for one in claimed],
            )
            self.ledger.mark_emitted([one.attempt_id for one in claimed])
            self.ledger.close_wave(wave.wave_id, max_releases=3)
            done += len(claimed)
        return done

    def pass_time(self, seconds: float) -> None:
        """Let everything recorded have happened so much earlier."""
        by = timedelta(seconds=seconds)

        def earlier(found: re.Match[str]) -> str:
            return f"{datetime.fromisoformat(found[0]) - by:%Y-%m-%d %H:%M:%S}"

        def shift(c: sa.Connection) -> None:
            for table, keys, times in (
                (source_entries, ("source", "entry"), ("seen_at", "submitted_at", "gone_at")),
                (source_looks, ("source",), ("looked_at",)),
                (attempts, ("attempt_id",), ("created_at",)),
            ):
                for row in list(c.execute(table.select())):
                    moved: dict[str, Any] = {
                        name: getattr(row, name) - by for name in times if isinstance(getattr(row, name), datetime)
                    }
                    if table is source_looks and row.error:
                        moved["error"] = _MOMENT.sub(earlier, row.error)
                    if moved:
                        this = [table.c[key] == getattr(row, key) for key in keys]
                        c.execute(table.update().where(*this).values(moved))

        self.ledger.write(shift)
