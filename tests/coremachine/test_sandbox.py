"""The sandbox: one function in a worker process, from many threads."""

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from geo_assets.coremachine.contract import OutcomeKind, TaskLimits
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.settings import get_settings


def whoami(params: dict[str, Any]) -> dict[str, Any]:
    """Say in which process this runs and what it can see."""
    if params.get("die"):
        os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(params.get("sleep", 0))
    return {"success": True, "pid": os.getpid(), "secret": os.environ.get("GEO_ASSETS_AZURE_ACCOUNT_KEY")}


def test_calls_from_threads_come_back_to_their_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_AZURE_ACCOUNT_KEY", "canary")
    sandbox = Sandbox(get_settings())
    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(lambda n: sandbox.call(whoami, {"die": n == 3}), range(12)))
    sandbox.close()
    assert Counter(outcome.kind for outcome in outcomes) == {OutcomeKind.CREATED: 11, OutcomeKind.FAILED: 1}
    assert outcomes[3].kind is OutcomeKind.FAILED
    assert "SIGSEGV" in (outcomes[3].error or "")
    good = [outcome.result_data for outcome in outcomes if outcome.kind is OutcomeKind.CREATED]
    assert all(data["pid"] != os.getpid() and data["secret"] is None for data in good)


def test_limits_hold_and_the_pool_goes_on() -> None:
    sandbox = Sandbox(get_settings(), limits=TaskLimits(wall_seconds=1))
    late = sandbox.call(whoami, {"sleep": 30})
    assert (late.kind, late.transient) == (OutcomeKind.FAILED, False)
    assert sandbox.call(whoami, {}).kind is OutcomeKind.CREATED
    sandbox.close()


def test_closed_sandbox_starts_again() -> None:
    sandbox = Sandbox(get_settings())
    first = sandbox.call(whoami, {}).result_data["pid"]
    sandbox.close()
    second = sandbox.call(whoami, {}).result_data["pid"]
    sandbox.close(kill=True)
    assert first != second
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)
