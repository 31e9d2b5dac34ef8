"""Processes that work the queue off, and can be told to die at a named point.

``python -m tests.integration.driver`` has loaded everything once and forks a process for each line of JSON it is given:
``{"location": "own" or "tests", "point": … or null, "environment": {…}}``.  It answers with the exit status, negative
for a signal, as a line.  The process uses GEO_ASSETS_HOME and DAGSTER_HOME; at its point it kills itself with SIGKILL,
so nothing of Python's or Dagster's clean-up runs.  Points of rasters use our own code location, the others that of the
tests.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from geo_assets.coremachine import asset_job, dispatch, events
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.definitions import defs as own_defs
from geo_assets.settings import get_settings
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.local import LocalBlobStore
from tests.integration.code_location import defs as test_defs


def die(*_: Any, **__: Any) -> None:
    """End this process as an out-of-memory killer would."""
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str) -> None:
    """Die when ``owner.name`` is called."""
    setattr(owner, name, die)


def after(owner: Any, name: str, *, calls: int = 1) -> None:
    """Die when ``owner.name`` has returned for the n-th time."""
    original: Callable[..., Any] = getattr(owner, name)
    seen = [0]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        seen[0] += 1
        if seen[0] == calls:
            die()
        return result

    setattr(owner, name, wrapped)


TRAPS: dict[str, Callable[[], None]] = {
    "after partitions are added": lambda: after(dispatch, "_add_partitions"),
    "after the wave is assigned": lambda: after(Ledger, "assign_waves"),
    "before plan": lambda: before(asset_job, "claim_jobs"),
    "after plan": lambda: after(asset_job, "claim_jobs"),
    "in mid-chunk": lambda: after(Ledger, "finish_tasks", calls=2),
    "between ledger commit and events": lambda: before(events, "report_materializations"),
    "between events and their record": lambda: after(events, "report_materializations"),
    "before settle": lambda: before(asset_job, "_conclude"),
    "after settle": lambda: after(asset_job, "_conclude"),
}
"""Points of a job's way, in order, and the trap set at each."""


RASTER_TRAPS: dict[str, Callable[[], None]] = {
    "COGs made": lambda: after(Sandbox, "call", calls=2),
    "one of two COGs published": lambda: after(LocalBlobStore, "put_stream"),
    "thumbnail published": lambda: after(LocalBlobStore, "put_stream", calls=3),
    "item written": lambda: after(ItemWriter, "write"),
    "between the item's task and its event": lambda: before(dispatch, "emit_news"),
    "job settled": lambda: after(Ledger, "settle"),
    "before the collection is brought up to date": lambda: before(asset_job, "_finish_run"),
}
"""Points of a raster's way with two tiers, in order."""


def machine(defs: dg.Definitions = test_defs) -> CoreMachine:
    """The machine of the code location."""
    made: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index]
    return made


def work_off(instance: dg.DagsterInstance, defs: dg.Definitions) -> None:
    """Tick and run until nothing is asked for any more."""
    while asked := dispatch.tick(machine(defs), instance).runs:
        for run in asked:
            defs.resolve_job_def(run.job_name).execute_in_process(
                instance=instance, tags=dict(run.tags), raise_on_error=False
            )


def drive(location: str, point: str | None, environment: Mapping[str, str]) -> int:
    """Work the queue off in a process of its own; returns its exit status."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.environ.clear()
            os.environ.update(environment)
            get_settings.cache_clear()
            if point is not None:
                (TRAPS | RASTER_TRAPS)[point]()
            work_off(dg.DagsterInstance.get(), {"own": own_defs, "tests": test_defs}[location])
            status = 0
        except BaseException:  # noqa: BLE001 - the status tells of it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    # what the work prints goes to the log, answers alone to the pipe
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(drive(**json.loads(line)), file=answers, flush=True)
