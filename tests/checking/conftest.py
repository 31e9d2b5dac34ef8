"""Fixtures of the checks' tests: the workbenches of the jobs' tests, and looking at one partition.

What belongs here: what several test modules of this folder share.
"""

from collections.abc import Callable

import pytest

from geo_assets.checking.catalogue import checks_of
from geo_assets.checking.many import Looked, look
from geo_assets.coremachine.identity import encode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from tests.jobs.conftest import bench, files, loader, open_bench, shared_sandbox, tables_url

__all__ = ["Verdicts", "bench", "files", "loader", "open_bench", "shared_sandbox", "tables_url"]

Verdicts = Callable[..., dict[str, str]]


@pytest.fixture
def verdicts() -> Verdicts:
    """Verdict and sentence of each check of one partition, by the check's name."""

    def look_at(machine: CoreMachine, asset: str, name: str) -> dict[str, str]:
        found: list[Looked] = []
        key = str(encode_partition_key(name))
        tally = look(machine, checks_of(machine.registry, asset), [key], on_found=found.extend)
        assert tally.total == len(found) == len(checks_of(machine.registry, asset))
        return {one.check.name: f"{one.verdict}: {one.sentence}" for one in found}

    return look_at
