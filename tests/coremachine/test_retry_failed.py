"""What a run says of its failures, and the job that queues just those again."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any, ClassVar

import dagster as dg
import pytest

from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE, build_asset, build_job
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import Handler, Workflow, WorkflowParameters
from geo_assets.coremachine.ledger import JobFilter, Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.queue_jobs import build_retry_job
from geo_assets.coremachine.submission import failed_jobs, prepare, submit_many
from geo_assets.resources.core_machine import core_machine_resource
from geo_assets.settings import get_settings


class TileParameters(WorkflowParameters):
    """Which tile."""

    tile: str


def read(params: dict[str, Any]) -> dict[str, Any]:
    """Fail as the tile's name says."""
    kind, _, number = params["tile"].rpartition(" ")
    if kind == "good":
        return {"success": True}
    what = f"TILE_CUT: tile '{params['tile']}' ends at {number}" if kind == "cut, off" else f"tile {number} is | gone"
    return {"success": False, "outcome": "invalid", "error": "no", "reason": what}


class ReadTile(Workflow):
    """One task a tile."""

    job_type = "read_tile"
    Parameters: ClassVar[type[WorkflowParameters]] = TileParameters
    asset = "tile"
    partition_set: ClassVar[str | None] = "tiles"
    key_parameter: ClassVar[str | None] = "tile"
    stages: ClassVar[list[dict[str, Any]]] = [{"number": 1, "name": "read", "task_type": "read"}]
    handlers: ClassVar[Mapping[str, Handler]] = {"read": read}

    @classmethod
    def create_tasks_for_stage(
        cls, stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        """One task."""
        del previous_results
        return [{"task_id": f"{job_id[:16]}-{stage}", "task_type": "read", "parameters": job_params}]


@pytest.fixture
def machine() -> Iterator[CoreMachine]:
    """The machine that the ops open as well."""
    settings = get_settings()
    with closing(Ledger(settings.ledger_sqlalchemy_url)) as ledger:
        yield CoreMachine(ledger=ledger, registry=registry_of([bind(ReadTile)]), settings=settings, services={})


@pytest.fixture
def defs(machine: CoreMachine) -> dg.Definitions:
    """Workflow and retry job."""
    (binding,) = machine.registry.values()
    partitions = {"tiles": dg.DynamicPartitionsDefinition(name="tiles")}
    return dg.Definitions(
        assets=[build_asset(binding, partitions=partitions, sets_by_asset={"tile": "tiles"})],
        jobs=[
            build_job(binding, executor=dg.in_process_executor),
            build_retry_job(machine.registry, sources=["a_source"]),
        ],
        resources={MACHINE: core_machine_resource(machine.registry, lambda _: {})},
    )


def wave(
    defs: dg.Definitions, machine: CoreMachine, instance: dg.DagsterInstance, *tiles: str
) -> dg.ExecuteInProcessResult:
    """Submit tiles and do their run."""
    submit_many(machine, "read_tile", [{"tile": tile} for tile in tiles])
    (asked,) = dispatch.tick(machine, instance).runs
    job = defs.resolve_job_def("read_tile")
    return job.execute_in_process(instance=instance, tags=dict(asked.tags), raise_on_error=False)


def retried(defs: dg.Definitions, instance: dg.DagsterInstance, config: Mapping[str, Any]) -> dict[str, Any]:
    """Do the job ``retry_failed``; its metadata."""
    result = defs.resolve_job_def("retry_failed").execute_in_process(
        instance=instance, run_config={"ops": {"retry_failed__queue": {"config": config}}}
    )
    (event,) = [event for event in result.all_events if event.is_successful_output]
    return dict(event.step_output_data.metadata)


def waiting(machine: CoreMachine) -> set[str]:
    """Partitions in the queue."""
    return {job.partition_key for job in machine.ledger.jobs(limit=None) if not job.status.is_terminal}


TILES = [*(f"cut, off {number}" for number in range(4)), "gone 1", "gone 2", "good 1"]


def test_a_run_says_which_failed_and_why_and_what_to_paste(defs: dg.Definitions, machine: CoreMachine) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        wave(defs, machine, instance, "cut, off 9")
        result = wave(defs, machine, instance, *TILES)
        (failure,) = [event for event in result.all_events if event.is_step_failure]
        data = failure.step_failure_data
        assert data.user_failure_data is not None
        said = str(data.user_failure_data.description)
        assert said.startswith("6 of 7 failed; cut%2C off 0: TILE_CUT: tile 'cut, off 0' ends at 0 · cut%2C off 1: ")
        assert " · and 3 more, see the tables of this run; to queue just these again, run the job retry_failed" in said
        table = str(data.user_failure_data.metadata["failures"].value)
        by_reason, _, one_by_one = table.partition("\n\n")
        assert by_reason.splitlines()[2:] == [
            "| 4 | TILE_CUT: tile … ends at N | cut%2C off 0 |",
            "| 2 | tile N is \\| gone | gone 1 |",
            "| **6** | **all** | |",
        ]
        assert len(one_by_one.splitlines()) == 2 + 6
        # what the page offers to paste is what does it: this run's only
        pasted = dg.config_from_yaml_strings([said.partition("launchpad: ")[2].partition(" (or")[0]])
        again = retried(defs, instance, pasted["ops"]["retry_failed__queue"]["config"])
        assert again["queued_again"].value == 6
        assert [(row.data["jobs"], row.data["reason"]) for row in again["reasons"].records] == [
            (4, "TILE_CUT: tile … ends at N"),
            (2, "tile N is | gone"),
        ]
        assert waiting(machine) == {name.replace(",", "%2C") for name in TILES[:6]}
        assert re.search(r"geo-assets retry --failed --run \S+\)$", said)


@pytest.mark.parametrize(
    ("config", "queued"),
    [
        ({"reason_group": "TILE_CUT: tile … ends at N"}, TILES[:4]),
        ({"reason_group": "tile 7 is | gone"}, TILES[4:6]),
        ({"keys": ["cut, off 1", "cut%2C off 2", "good 1", "nobody"]}, TILES[1:3]),
        ({"prefix": "cut,"}, TILES[:4]),
        ({"prefix": "gone "}, TILES[4:6]),
        ({"prefix": "Gone"}, []),
        ({"prefix": "g", "reason_group": "tile … is | gone"}, []),
        ({"source": "a_source"}, []),
        ({"keys": []}, []),
        ({"gone": True}, []),
        ({}, TILES[:6]),
    ],
)
def test_retry_takes_what_was_chosen(
    defs: dg.Definitions, machine: CoreMachine, config: dict[str, Any], queued: list[str]
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        wave(defs, machine, instance, *TILES)
        metadata = retried(defs, instance, config)
    assert waiting(machine) == {name.replace(",", "%2C") for name in queued}
    assert metadata["queued_again"].value == len(queued)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"run_id": "another"}, "no job of the run 'another'"),
        ({"asset": "tiles"}, "there is no asset 'tiles'; there are: tile"),
        ({"job_type": "read_tiles"}, "there is no workflow 'read_tiles'; there are: read_tile"),
        ({"source": "another"}, "there is no source 'another'; there are: a_source"),
    ],
)
def test_a_name_that_nothing_has_is_refused_rather_than_nothing_queued(
    defs: dg.Definitions, machine: CoreMachine, config: dict[str, Any], told: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        wave(defs, machine, instance, *TILES)
        with pytest.raises(dg.Failure, match=re.escape(told)):
            retried(defs, instance, config)
    assert not waiting(machine)


def test_a_job_stays_its_source_s_whoever_queued_it_again(defs: dg.Definitions, machine: CoreMachine) -> None:
    binding = machine.registry["read_tile"]
    machine.ledger.submit([prepare(machine, binding, {"tile": tile}, source="tiles") for tile in TILES[:2]])
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            (asked,) = dispatch.tick(machine, instance).runs
            job = defs.resolve_job_def("read_tile")
            job.execute_in_process(instance=instance, tags=dict(asked.tags), raise_on_error=False)
            found = failed_jobs(machine, JobFilter(source="tiles"))
            assert {job.partition_key for job in found} == {name.replace(",", "%2C") for name in TILES[:2]}
            retried(defs, instance, {"source": "tiles"})


def test_a_thousand_keys_and_more_are_chosen_as_few_are(defs: dg.Definitions, machine: CoreMachine) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        wave(defs, machine, instance, *TILES)
    keys = tuple(f"gone {number}" for number in range(1500))
    assert {job.partition_key for job in failed_jobs(machine, JobFilter(keys=keys))} == {"gone 1", "gone 2"}
    (group,) = machine.ledger.failures_by_reason(JobFilter(keys=keys))
    assert group == ("tile", "tile N is | gone", 2, "gone 1")
