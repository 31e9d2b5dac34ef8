"""Checks of many partitions: which ones, and counts that add up whatever happens.

What belongs here: choosing, counting, trouble with one partition.  What does not: the checks themselves.
"""

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from geo_assets.checking.catalogue import CHECKS, checks_of
from geo_assets.checking.finding import Evidence
from geo_assets.checking.many import Looked, choose, look
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import Workflow, WorkflowParameters
from geo_assets.errors import NotFoundError, ParameterError, StoreUnavailableError
from geo_assets.jobs import WORKFLOWS
from tests.jobs.bench import Bench

KNOWN = ["bronze/a.tif", "bronze/b/c.tif", "bronze/b/d%2Ce.tif", "silver/a.tif"]


def test_partitions_are_chosen_by_name_beginning_or_chance() -> None:
    assert choose(KNOWN) == KNOWN
    assert choose(KNOWN, keys=["bronze/b/d,e.tif"]) == ["bronze/b/d%2Ce.tif"]
    assert choose(KNOWN, prefix="bronze/b/") == ["bronze/b/c.tif", "bronze/b/d%2Ce.tif"]
    assert choose(KNOWN, prefix="bronze/b/d,") == ["bronze/b/d%2Ce.tif"]
    assert choose(KNOWN, keys=["silver/a.tif"], prefix="bronze/b/c") == ["bronze/b/c.tif", "silver/a.tif"]
    assert choose(KNOWN, prefix="nothing") == []
    drawn = choose(KNOWN, sample=2)
    assert len(drawn) == 2
    assert set(drawn) <= set(KNOWN)
    assert choose(KNOWN, sample=99) == KNOWN


def test_what_cannot_be_chosen_is_said() -> None:
    registry = registry_of([bind(workflow) for workflow in WORKFLOWS])
    with pytest.raises(NotFoundError, match=r"never materialized.*: bronze/x\.tif and 1 more"):
        choose(KNOWN, keys=["bronze/x.tif", "bronze/a.tif", "y"])
    with pytest.raises(ParameterError, match="at least one"):
        choose(KNOWN, sample=0)
    with pytest.raises(ParameterError, match=r"'hello' has no checks.*cog, raster_stac_item"):
        checks_of(registry, "hello")
    with pytest.raises(ParameterError, match="cog has no check 'item_valid'; it has cog_valid"):
        checks_of(registry, "cog", ["item_valid"])


class Digest(Workflow):
    """A team's own workflow about a blob, which a source can feed."""

    job_type = "digest"
    asset = "digest"
    partition_set = "digests"
    description = "Digests a blob"
    stages: ClassVar = [{"number": 1, "name": "s", "task_type": "digest", "parallelism": "single"}]
    handlers: ClassVar = {"digest": lambda params: {"success": True, "result": params}}

    class Parameters(WorkflowParameters):
        """Which."""

        container_name: str
        blob_name: str

    @classmethod
    def create_tasks_for_stage(cls, *_: Any, **__: Any) -> list[dict[str, Any]]:
        """None: it is not run here."""
        return []


def test_a_teams_own_asset_has_the_check_that_its_source_reports_to(bench: Bench) -> None:
    registry = registry_of([bind(workflow) for workflow in (*WORKFLOWS, Digest)])
    (check,) = checks_of(registry, "digest")
    assert check.name == "source_present"
    folder = bench.containers / "inbox"
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"x")

    def said(*attempts: Any) -> str:
        return check.look(
            Evidence(machine=bench.machine, asset="digest", partition_key="k", attempts=attempts)
        ).description

    made = SimpleNamespace(parameters={"container_name": "inbox", "blob_name": "a.bin"})
    assert said(made) == "inbox/a.bin: there"
    (folder / "a.bin").unlink()
    assert said(made).startswith("inbox/a.bin is gone from its container")
    assert said().startswith("no finished job is on record")


def test_every_check_says_what_it_looks_at_and_what_to_do() -> None:
    assert len({(check.asset, check.name) for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert len(check.description) > 80
        assert "  " not in check.description


class Moody:
    """A blob store that is away for one blob, and broken for another."""

    def __init__(self, store: Any) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def head(self, container: str, name: str) -> Any:
        if name == "away.tif":
            raise StoreUnavailableError("the store is away; sig=abcdefghijklmnop")
        if name == "broken.tif":
            raise RuntimeError("a bug")
        return self._store.head(container, name)


def test_counts_add_up_whatever_happens(bench: Bench) -> None:
    (bench.containers / "bronze").mkdir(parents=True)
    (bench.containers / "bronze" / "there.tif").write_bytes(b"x")
    bench.machine.services["blobs"] = Moody(bench.services["blobs"])  # type: ignore[index]
    keys = [f"bronze/{name}.tif" for name in ("there", "gone", "away", "broken")] + [
        f"bronze/{number}.tif" for number in range(120)
    ]
    found: list[Looked] = []
    checks = checks_of(bench.machine.registry, "cog", ["source_present"])
    tally = look(bench.machine, checks, keys, on_found=found.extend)
    assert tally.by_check == {"source_present": {"passed": 1, "warned": 121, "not looked at": 2}}
    assert (tally.partitions, tally.total, len(found)) == (124, 124, 124)
    assert [one.partition_key for one in found] == keys
    assert "the store is away" in found[2].sentence
    assert "abcdefghijklmnop" not in found[2].sentence
    assert found[3].sentence == "RuntimeError: a bug"
