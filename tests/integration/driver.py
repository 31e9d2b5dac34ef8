"""A process that works the queue off, and can be told to die at a named point.

``python -m tests.integration.driver [POINT]`` uses GEO_ASSETS_HOME and DAGSTER_HOME.  At ``POINT`` the process
kills itself with SIGKILL, so nothing of Python's or Dagster's clean-up runs.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import dagster as dg

from geo_assets.coremachine import asset_job, dispatch, engine, events
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.machine import CoreMachine
from tests.integration.code_location import defs

POINTS = (
    "after partitions are added",
    "after the wave is assigned",
    "before plan",
    "after plan",
    "in mid-chunk",
    "between ledger commit and events",
    "between events and their record",
    "before settle",
    "after settle",
)


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


def arm(point: str) -> None:
    """Set the trap."""
    match point:
        case "after partitions are added":
            after(dispatch, "_add_partitions")
        case "after the wave is assigned":
            after(Ledger, "assign_waves")
        case "before plan":
            before(asset_job, "claim_jobs")
        case "after plan":
            after(asset_job, "claim_jobs")
        case "in mid-chunk":
            after(Ledger, "finish_tasks", calls=2)
        case "between ledger commit and events":
            before(events, "report_materializations")
        case "between events and their record":
            after(events, "report_materializations")
        case "before settle":
            before(engine, "end_fan_out")
            before(asset_job, "_conclude")
        case "after settle":
            after(asset_job, "_conclude")
        case _:
            raise SystemExit(f"unknown point {point}; one of {POINTS}")


def machine() -> CoreMachine:
    """The machine of the code location."""
    made: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index,union-attr]
    return made


def work_off(instance: dg.DagsterInstance) -> None:
    """Tick and run until nothing is asked for any more."""
    while asked := dispatch.tick(machine(), instance).runs:
        for run in asked:
            defs.resolve_job_def(run.job_name).execute_in_process(
                instance=instance, tags=dict(run.tags), raise_on_error=False
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        arm(sys.argv[1])
    work_off(dg.DagsterInstance.get())
