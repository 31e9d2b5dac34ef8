"""Taking back what jobs published: what goes, what stays, and that a killed command is finished by repeating it.

The stores, the ledger and Dagster's instance are real; jobs are recorded without a Dagster run.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from geo_assets import unpublish
from geo_assets.coremachine import events
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskContext
from geo_assets.coremachine.ledger import Decision, Ledger, Settlement
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.submission import submit
from geo_assets.errors import (
    AccessDeniedError,
    CatalogUnavailableError,
    ContractError,
    JobNotFoundError,
    ParameterError,
    PartitionBusyError,
    StoreUnavailableError,
)
from geo_assets.settings import Settings
from geo_assets.stores.azure import AzureBlobStore
from geo_assets.stores.azure_access import AzureAccess
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.static_catalog import StaticCatalog
from geo_assets.unpublish import Taken, execute, plan
from tests import publishing
from tests.publishing import PRODUCTS, SOURCES, WORKFLOWS, item_id
from tests.stores.catalog_items import COLLECTION, item
from tests.stores.pgstac_database import pgstac_database, pgstac_url

__all__ = ["pgstac_database", "pgstac_url"]

A, B = f"{SOURCES}/a.tif", f"{SOURCES}/b.tif"


class House:
    """Everything of one test: the machine, Dagster, and how jobs end."""

    def __init__(self, machine: CoreMachine, instance: dg.DagsterInstance) -> None:
        self.machine = machine
        self.instance = instance
        self.blobs: Any = machine.services["blobs"]
        self.catalog: Any = machine.services["catalog"]

    def run(self, job_type: str, key: str, *, ends: JobStatus = JobStatus.COMPLETED, **params: Any) -> str:
        """Submit and do one job, materialize its partitions; returns the ledger's decision."""
        answer = submit(self.machine, job_type, {"source": key, **params})
        decision = answer.submitted.decision
        if decision in (Decision.CREATED, Decision.REQUEUED):
            self.do(f"run-{answer.job.latest_attempt}", ends=ends)
        return decision.value

    def do(self, run_id: str, *, ends: JobStatus = JobStatus.COMPLETED) -> None:
        """Do what waits, in one run."""
        ledger = self.machine.ledger
        for wave in ledger.assign_waves(wave_size=9, waves_at_once=9):
            ledger.claim_wave(wave.wave_id, run_id)
        for attempt in ledger.attempts_of_run(run_id):
            binding = self.machine.registry[attempt.job_type]
            context = TaskContext(services=self.machine.services)
            handler: Any = binding.handlers["do"]
            done = handler(attempt.parameters, context) if attempt.job_type != "check_raster" else {"result": {"n": 1}}
            ledger.settle(
                run_id,
                [
                    Settlement(
                        attempt_id=attempt.attempt_id,
                        status=ends,
                        outcome=OutcomeKind.CREATED if ends is JobStatus.COMPLETED else OutcomeKind.FAILED,
                        result_data=done["result"],
                    )
                ],
            )
            assets = {"make_cog": ["cog", "raster_stac_item"]}.get(attempt.job_type, [binding.asset])
            for asset in assets if ends is JobStatus.COMPLETED else []:
                events.report_materializations(
                    self.instance,
                    run_id=run_id,
                    job_name=attempt.job_type,
                    step_key="",
                    materializations=[dg.AssetMaterialization(asset, partition=attempt.partition_key)],
                )
            ledger.mark_emitted([attempt.attempt_id])

    def wipe(self, asset: str, partitions: Any) -> None:
        unmaterialize(self.instance, asset=asset, partition_keys=partitions, who="jane")

    def take_back(self, asset: str, *keys: str, **options: Any) -> list[Taken]:
        return execute(self.machine, self.wipe, asset, keys, who="jane", **options)

    def green(self, asset: str) -> set[str]:
        return set(self.instance.get_materialized_partitions(dg.AssetKey(asset)))

    def left(self) -> set[str]:
        """What is in the stores."""
        names = {f"{PRODUCTS}/{row['name']}" for batch in self.blobs.list_blobs(PRODUCTS) for row in batch.to_pylist()}
        return names | set(self.catalog.described_blobs(COLLECTION))


def outcomes(taken: Taken) -> dict[str, str]:
    return {f"{thing.kind} {thing.name}": thing.outcome.value for thing in taken.things}


def all_of(name: str, outcome: str) -> dict[str, str]:
    """Everything that ``make_cog`` leaves, with one outcome."""
    return dict.fromkeys([f"item {item_id(name)}", f"blob analysis/{name}", f"blob thumbnail/{name}"], outcome)


def in_stores(name: str) -> set[str]:
    return {f"{PRODUCTS}/analysis/{name}", f"{PRODUCTS}/thumbnail/{name}", item_id(name)}


def _house(blobs: Any, catalog: Any, ledger_url: str) -> Iterator[House]:
    registry = registry_of([bind(workflow) for workflow in WORKFLOWS])
    with closing(Ledger(ledger_url, patience_seconds=20)) as ledger, dg.instance_for_test() as instance:
        services = {"blobs": blobs, "catalog": catalog}
        machine = CoreMachine(ledger=ledger, registry=registry, settings=Settings(), services=services)
        yield House(machine, instance)
    catalog.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """On files."""
    blobs, catalog = LocalBlobStore(tmp_path / "containers"), StaticCatalog(tmp_path / "catalog")
    yield from _house(blobs, catalog, f"sqlite:///{tmp_path / 'ledger.db'}")


@pytest.fixture(params=["files", pytest.param("services", marks=pytest.mark.services)])
def every_house(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """On files, and on Azurite, pgSTAC and PostgreSQL."""
    if request.param == "files":
        yield request.getfixturevalue("house")
        return
    azurite = request.getfixturevalue("azurite")
    blobs = AzureBlobStore(AzureAccess.of_connection_string(azurite.connection_string), max_retries=1)
    # one Azurite serves all processes of the session
    monkeypatch.setattr(publishing, "PRODUCTS", f"unpublish-{uuid.uuid4().hex}")
    monkeypatch.setitem(globals(), "PRODUCTS", publishing.PRODUCTS)
    catalog = PgstacCatalog(request.getfixturevalue("pgstac_url"))
    yield from _house(blobs, catalog, request.getfixturevalue("postgres_url"))


# --- all together --------------------------------------------------------------------------------------------------


def test_blobs_item_state_and_record_are_taken_back_together(every_house: House) -> None:
    house = every_house
    for key in (A, B):
        assert house.run("check_raster", key) == "created"
        assert house.run("make_cog", key) == "created"
    (planned,) = plan(house.machine, "cog", [A])
    assert (planned.assets, planned.complete, len(planned.attempts)) == (("cog", "raster_stac_item"), False, 1)
    assert outcomes(planned) == all_of("a.tif", "present")
    assert house.left() == in_stores("a.tif") | in_stores("b.tif")
    assert house.machine.ledger.audits() == []

    (taken,) = house.take_back("cog", A)
    assert taken.complete
    assert outcomes(taken) == all_of("a.tif", "removed")
    assert house.left() == in_stores("b.tif")
    assert (house.green("cog"), house.green("raster_stac_item"), house.green("raster_validation")) == ({B}, {B}, {A, B})
    (row,) = house.machine.ledger.audits()
    assert (row.who, row.action, row.asset, row.partition_key, row.complete) == ("jane", "unpublish", "cog", A, True)
    assert {thing["name"]: thing["outcome"] for thing in row.inventory} == {
        name.split(" ")[1]: "removed" for name in all_of("a.tif", "removed")
    }

    assert house.run("make_cog", B) == "recorded"
    assert house.run("check_raster", A) == "recorded"
    assert house.run("make_cog", A) == "requeued"
    assert house.left() == in_stores("a.tif") | in_stores("b.tif")
    assert house.green("cog") == {A, B}
    assert outcomes(plan(house.machine, "cog", [A])[0]) == all_of("a.tif", "present")


def test_an_item_can_be_taken_back_without_its_cog(house: House) -> None:
    house.run("make_cog", A)
    house.run("catalog_cog", A)
    (taken,) = house.take_back("raster_stac_item", A)
    assert outcomes(taken) == {f"item {item_id('a.tif')}": "removed"}
    assert house.left() == in_stores("a.tif") - {item_id("a.tif")}
    assert (house.green("cog"), house.green("raster_stac_item")) == ({A}, set())
    # both recorded the item, so neither answers from the record
    assert house.run("catalog_cog", A) == "requeued"
    assert house.run("make_cog", A) == "requeued"


def test_what_every_job_of_the_partition_left_goes(house: House) -> None:
    house.run("make_cog", A)
    house.run("make_cog", A, tier="visual")
    (taken,) = house.take_back("cog", A)
    assert outcomes(taken) == all_of("a.tif", "removed") | {"blob visual/a.tif": "removed"}
    assert len(taken.attempts) == 2
    assert house.left() == set()
    assert house.run("make_cog", A, tier="visual") == "requeued"


def test_what_a_failed_job_had_left_before_goes_as_well(house: House) -> None:
    house.run("make_cog", A)
    submit(house.machine, "make_cog", {"source": A}, force=True)
    house.do("run-fails", ends=JobStatus.FAILED)
    house.take_back("cog", A)
    assert house.left() == set()


def test_several_partitions_are_one_command(house: House) -> None:
    for key in (A, B):
        house.run("make_cog", key)
    taken = house.take_back("cog", A, B, A)
    assert [one.partition_key for one in taken] == [A, B]
    assert all(one.complete for one in taken)
    assert (house.left(), house.green("cog")) == (set(), set())
    assert len(house.machine.ledger.audits()) == 2


def test_taking_back_twice_changes_nothing(house: House) -> None:
    house.run("make_cog", A)
    house.take_back("cog", A)
    (again,) = house.take_back("cog", A)
    assert (again.complete, again.attempts) == (True, ())
    assert outcomes(again) == all_of("a.tif", "absent")
    assert again.leaves_nothing_to_do()
    assert len(house.machine.ledger.audits()) == 1


def test_odd_names_are_taken_back(house: House) -> None:
    names = ["übersicht %41, [1].tif", "日本.tif"]
    for name in names:
        house.run("make_cog", f"{SOURCES}/{name}")
    taken = house.take_back("cog", *(f"{SOURCES}/{name}" for name in names))
    assert [outcomes(one) for one in taken] == [all_of(name, "removed") for name in names]
    assert (house.left(), house.green("cog")) == (set(), set())


# --- what stays ----------------------------------------------------------------------------------------------------


def test_a_blob_somebody_replaced_stays_until_forced(every_house: House) -> None:
    house = every_house
    house.run("make_cog", A)
    house.blobs.put(PRODUCTS, "analysis/a.tif", b"somebody's better one")
    (taken,) = house.take_back("cog", A)
    assert outcomes(taken) == all_of("a.tif", "removed") | {"blob analysis/a.tif": "changed"}
    assert "replaced on" in next(thing.detail for thing in taken.things if thing.outcome == "changed")
    assert taken.complete
    assert house.left() == {f"{PRODUCTS}/analysis/a.tif"}
    assert house.green("cog") == set()
    # nothing is left to do but that, and only on demand
    assert plan(house.machine, "cog", [A])[0].leaves_nothing_to_do()
    (forced,) = house.take_back("cog", A, force=True)
    assert outcomes(forced)["blob analysis/a.tif"] == "removed"
    assert house.left() == set()


def test_a_blob_replaced_between_plan_and_removal_stays(house: House) -> None:
    house.run("make_cog", A)
    removed: Callable[..., Any] = house.catalog.delete_items

    def replacing(*arguments: Any) -> Any:
        house.blobs.put(PRODUCTS, "analysis/a.tif", b"just now")
        return removed(*arguments)

    house.catalog.delete_items = replacing
    (taken,) = house.take_back("cog", A)
    assert outcomes(taken)["blob analysis/a.tif"] == "changed"
    assert house.blobs.read(PRODUCTS, "analysis/a.tif") == b"just now"


def test_an_item_about_another_blob_stays_until_forced(house: House) -> None:
    house.run("make_cog", A)
    house.catalog.delete_items(COLLECTION, [item_id("a.tif")])
    house.catalog.upsert_items(COLLECTION, [item("other.tif", id=item_id("a.tif"))])
    (taken,) = house.take_back("cog", A)
    assert outcomes(taken)[f"item {item_id('a.tif')}"] == "changed"
    assert "bronze/other.tif" in next(thing.detail for thing in taken.things if thing.outcome == "changed")
    assert house.left() == {item_id("a.tif")}
    house.take_back("cog", A, force=True)
    assert house.left() == set()


def test_what_another_partition_published_as_well_stays_with_it(house: House) -> None:
    # two sources whose products got the same name
    for source in ("one/x.tif", "two/x.tif"):
        submit(house.machine, "make_cog", {"source": source})
        attempt = _claimed(house)
        tiers = {"analysis": {"container": PRODUCTS, "blob": "x.tif", "etag": _put(house)}}
        _end(house, attempt, {"cog": {"tiers": tiers}})
    for force in (False, True):
        (taken,) = house.take_back("cog", "one/x.tif", force=force)
        assert outcomes(taken) == {"blob x.tif": "shared"}
        assert "'two/x.tif' published it, too" in taken.things[0].detail
        assert house.left() == {f"{PRODUCTS}/x.tif"}
    # the first no longer counts, so the last one takes it
    (taken,) = house.take_back("cog", "two/x.tif")
    assert outcomes(taken) == {"blob x.tif": "removed"}


def test_what_two_partitions_share_goes_when_both_go(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpublish, "_WORDS_AT_MOST", 0)  # as for many things
    for source in ("one/x.tif", "two/x.tif"):
        submit(house.machine, "make_cog", {"source": source})
        attempt = _claimed(house)
        tiers = {"analysis": {"container": PRODUCTS, "blob": "x.tif", "etag": _put(house)}}
        _end(house, attempt, {"cog": {"tiers": tiers}})
    assert outcomes(plan(house.machine, "cog", ["one/x.tif"])[0]) == {"blob x.tif": "shared"}
    taken = house.take_back("cog", "one/x.tif", "two/x.tif")
    assert all(one.complete for one in taken)
    assert house.left() == set()


def _put(house: House) -> str:
    house.blobs.create_container(PRODUCTS)
    etag: str = house.blobs.put(PRODUCTS, "x.tif", b"x")
    return etag


def _claimed(house: House) -> Any:
    (wave,) = house.machine.ledger.assign_waves(wave_size=9, waves_at_once=9)
    (attempt,) = house.machine.ledger.claim_wave(wave.wave_id, f"run-{wave.wave_id}")
    return attempt


def _end(house: House, attempt: Any, result: dict[str, Any]) -> None:
    settlement = Settlement(
        attempt_id=attempt.attempt_id, status=JobStatus.COMPLETED, outcome=OutcomeKind.CREATED, result_data=result
    )
    assert house.machine.ledger.settle(attempt.run_id, [settlement]) == set()
    house.machine.ledger.mark_emitted([attempt.attempt_id])


def test_a_container_that_is_gone_holds_nothing(house: House, tmp_path: Path) -> None:
    house.run("make_cog", A)
    shutil.rmtree(tmp_path / "containers" / PRODUCTS)
    (taken,) = house.take_back("cog", A)
    assert outcomes(taken) == all_of("a.tif", "absent") | {f"item {item_id('a.tif')}": "removed"}
    assert taken.complete


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asset", ["raster_validation", "nothing"])
def test_an_asset_that_publishes_nothing_is_refused(house: House, asset: str) -> None:
    with pytest.raises(ParameterError, match=f"'{asset}'; assets that can be taken back: cog, raster_stac_item"):
        plan(house.machine, asset, [A])


def test_a_partition_nobody_published_is_named_and_nothing_is_done(house: House) -> None:
    house.run("make_cog", A)
    house.run("check_raster", B)
    with pytest.raises(JobNotFoundError, match=f"no job published anything for {B} of cog"):
        house.take_back("cog", A, B)
    assert house.left() == in_stores("a.tif")
    assert house.machine.ledger.audits() == []


def test_a_partition_with_a_job_under_way_is_refused(house: House) -> None:
    house.run("make_cog", A)
    submit(house.machine, "catalog_cog", {"source": A})
    with pytest.raises(PartitionBusyError, match=rf"catalog_cog \w+ for '{A}' is queued; .* 'geo-assets cancel'"):
        house.take_back("cog", A)
    attempt = _claimed(house)
    with pytest.raises(PartitionBusyError, match="is processing"):
        house.take_back("cog", A)
    house.machine.ledger.settle(
        attempt.run_id,
        [Settlement(attempt_id=attempt.attempt_id, status=JobStatus.COMPLETED, outcome=OutcomeKind.CREATED)],
    )
    with pytest.raises(PartitionBusyError, match="Dagster does not know yet"):
        house.take_back("cog", A)
    assert house.left() == in_stores("a.tif")
    house.machine.ledger.mark_emitted([attempt.attempt_id])
    assert house.take_back("cog", A)[0].complete


def test_a_job_that_does_not_publish_may_be_under_way(house: House) -> None:
    house.run("make_cog", A)
    submit(house.machine, "check_raster", {"source": A})
    assert house.take_back("cog", A)[0].complete


def test_a_job_that_starts_meanwhile_is_pointed_at_and_keeps_counting(house: House) -> None:
    house.run("make_cog", A)
    removed: Callable[..., Any] = house.catalog.delete_items

    def while_somebody_submits(*arguments: Any) -> Any:
        submit(house.machine, "make_cog", {"source": A}, force=True)
        return removed(*arguments)

    house.catalog.delete_items = while_somebody_submits
    (taken,) = house.take_back("cog", A)
    assert "make_cog" in taken.note
    assert "--force" in taken.note
    house.do("run-2")
    assert house.green("cog") == {A}
    assert house.run("make_cog", A) == "recorded"


def test_a_hook_that_stumbles_is_named(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.run("make_cog", A)
    monkeypatch.setattr(publishing.MakeCog, "published", classmethod(lambda _cls, result: result["nothing"]))
    with pytest.raises(ContractError, match=r"MakeCog\.published failed: KeyError: 'nothing'; mend the class"):
        plan(house.machine, "cog", [A])


# --- failures and kills --------------------------------------------------------------------------------------------


def test_a_blob_that_cannot_be_removed_leaves_state_and_record(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (A, B):
        house.run("make_cog", key)
    delete = house.blobs.delete

    def refusing(container: str, name: str) -> None:
        if name == "thumbnail/a.tif":
            raise AccessDeniedError("may not delete https://me:canary@store/x?sig=canary")
        delete(container, name)

    with monkeypatch.context() as patched:
        patched.setattr(house.blobs, "delete", refusing)
        a, b = house.take_back("cog", A, B)
    assert outcomes(a) == all_of("a.tif", "removed") | {"blob thumbnail/a.tif": "failed"}
    assert (a.complete, b.complete) == (False, True)
    assert "canary" not in str([row.inventory for row in house.machine.ledger.audits()])
    assert "may not delete" in str([row.inventory for row in house.machine.ledger.audits()])
    assert {row.partition_key: row.complete for row in house.machine.ledger.audits()} == {A: False, B: True}
    assert house.green("cog") == {A}
    assert house.run("make_cog", A) == "recorded"
    (a,) = house.take_back("cog", A)
    assert a.complete
    assert (house.left(), house.green("cog")) == (set(), set())


def test_data_stays_where_its_item_cannot_be_removed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.run("make_cog", A)

    def away(*_: Any) -> Any:
        raise CatalogUnavailableError("the catalog is away; try again")

    with monkeypatch.context() as patched:
        patched.setattr(house.catalog, "delete_items", away)
        (taken,) = house.take_back("cog", A)
    assert outcomes(taken) == all_of("a.tif", "present") | {f"item {item_id('a.tif')}": "failed"}
    assert not taken.complete
    assert (house.left(), house.green("cog")) == (in_stores("a.tif"), {A})


def test_a_store_that_is_away_stops_the_plan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.run("make_cog", A)

    def away(*_: Any) -> Any:
        raise StoreUnavailableError("the store is away; try again")

    monkeypatch.setattr(house.blobs, "head", away)
    with pytest.raises(StoreUnavailableError):
        house.take_back("cog", A)
    assert house.machine.ledger.audits() == []


KILL_POINTS = {
    "before the audit": ("ledger", "audit", False),
    "after the audit": ("ledger", "audit", True),
    "before the items": ("catalog", "delete_items", False),
    "after the items": ("catalog", "delete_items", True),
    "before a blob": ("blobs", "delete", False),
    "after a blob": ("blobs", "delete", True),
    "before the state": ("house", "wipe", False),
    "after the state": ("house", "wipe", True),
    "before the record": ("ledger", "audit_ended", False),
    "after the record": ("ledger", "audit_ended", True),
}


class KilledError(BaseException):
    """The process is killed here."""


@pytest.mark.parametrize("point", KILL_POINTS)
def test_killed_anywhere_it_is_finished_by_repeating_it(
    every_house: House, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = every_house
    for key in (A, B):
        house.run("make_cog", key)
    place, name, afterwards = KILL_POINTS[point]
    target: Any = {"ledger": house.machine.ledger, "house": house}.get(place) or house.machine.services[place]
    original = getattr(target, name)
    with monkeypatch.context() as killed:

        def dies(*arguments: Any, **options: Any) -> None:
            if afterwards:
                original(*arguments, **options)
            # nothing runs after a kill, not even what is meant to
            killed.setattr(house.machine.ledger, "audit_ended", dies_at_once)
            raise KilledError

        def dies_at_once(*_: Any, **__: Any) -> None:
            raise KilledError

        killed.setattr(target, name, dies)
        with pytest.raises(KilledError):
            house.take_back("cog", A)
    (taken,) = house.take_back("cog", A)
    assert taken.complete
    assert set(outcomes(taken).values()) <= {"removed", "absent"}
    assert house.left() == in_stores("b.tif")
    assert (house.green("cog"), house.green("raster_stac_item")) == ({B}, {B})
    assert [row.complete for row in house.machine.ledger.audits(limit=1)] == [True]
    assert [house.run("make_cog", key) for key in (A, B)] == ["requeued", "recorded"]
    assert house.left() == in_stores("a.tif") | in_stores("b.tif")
