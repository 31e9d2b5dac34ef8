"""The clean-up: what goes, what stays, a dry run that says so before, and that nothing is lost when it dies or races.

The ledger, the stores and Dagster's instance are real; jobs are recorded without a Dagster run of their own.
"""

import errno
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import sqlalchemy as sa
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from geo_assets.assets.clean_up import build_clean_up
from geo_assets.clean_up import Cleaned, Keep, clean_up
from geo_assets.containers.listing_store import REMOVED_SCHEMA, TABLE_SCHEMA
from geo_assets.coremachine import events, ledger_retention
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskContext, TaskStatus
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.coremachine.ledger import Ledger, NewTask, Settlement
from geo_assets.coremachine.ledger_retention import LedgerRetention
from geo_assets.coremachine.ledger_tables import attempts, metadata, notices, source_entries
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.coremachine.retention import History
from geo_assets.coremachine.submission import submit
from geo_assets.errors import AccessDeniedError, ParameterError, TableStoreUnavailableError
from geo_assets.resources.core_machine import core_machine_resource
from geo_assets.services import open_services
from geo_assets.settings import get_settings
from geo_assets.sources import removal
from geo_assets.sources.register import FOLDER, TAKEN_BACK, TOLD
from geo_assets.sources.source import Source
from tests.publishing import PRODUCTS, SOURCES, WORKFLOWS, item_id, make
from tests.stores.catalog_items import COLLECTION

SET, COG, ITEM, VALIDATION = "raster_blobs", "cog", "raster_stac_item", "raster_validation"
KEEP = Keep(runs=timedelta(days=30), tasks=timedelta(days=30), listings=timedelta(days=7), gone=timedelta(days=90))
LATER = timedelta(days=40)
TABLES = [metadata.tables[name] for name in ("jobs", "attempts", "tasks", "waves", "notices", "source_entries")]


class Place:
    """Everything of one test: the machine, Dagster, and how jobs end."""

    def __init__(self, machine: CoreMachine, instance: dg.DagsterInstance) -> None:
        self.machine, self.ledger, self.instance = machine, machine.ledger, instance
        self.runs = self.sequence = 0

    def do(
        self, job_type: str, name: str, *, fails: bool = False, result: dict[str, Any] | None = None, tasks: int = 2
    ) -> str:
        """Submit and do one job in a run of its own; the attempt's id."""
        answer = submit(self.machine, job_type, {"source": f"bronze/{name}"}, force=True)
        binding, key = self.machine.registry[job_type], answer.job.partition_key
        self.instance.add_dynamic_partitions(SET, [key])
        self.runs += 1
        run_id = f"run-{self.runs}"
        (wave,) = self.ledger.assign_waves(wave_size=9, waves_at_once=99, only_jobs=[answer.job])
        (attempt,) = self.ledger.claim_wave(wave.wave_id, run_id)
        rows = [
            NewTask(
                attempt_id=attempt.attempt_id,
                stage=1,
                task_index=index,
                task_id=str(index),
                parent_job_id=attempt.job_id,
                job_type=job_type,
                task_type="do",
                parameters={},
                metadata={},
                status=TaskStatus.COMPLETED,
            )
            for index in range(tasks)
        ]
        self.ledger.insert_tasks(run_id, rows)
        status = JobStatus.FAILED if fails else JobStatus.COMPLETED
        outcome = OutcomeKind.FAILED if fails else OutcomeKind.CREATED
        counted = {"1": {"tasks": tasks, "completed": tasks, "failed": 0}}
        ended = Settlement(
            attempt_id=attempt.attempt_id, status=status, outcome=outcome, result_data=result, stage_results=counted
        )
        self.ledger.settle(run_id, [ended])
        self.ledger.close_wave(wave.wave_id, max_releases=3)
        self.show(run_id, binding.asset, key, fails=fails)
        self.ledger.mark_emitted([attempt.attempt_id])
        return attempt.attempt_id

    def show(self, run_id: str, asset: str, key: str, *, fails: bool = False) -> None:
        """Let a run that ended have materialized a partition, or failed to."""
        run = dg.DagsterRun(job_name="any", run_id=run_id, status=dg.DagsterRunStatus.STARTED)
        self.instance.add_run(run)
        where = {"run_id": run_id, "job_name": "any", "step_key": ""}
        events.report_planned(self.instance, asset=asset, partition_keys=[key], **where)
        if fails:
            self.instance.report_run_failed(run)
            return
        made = dg.AssetMaterialization(asset, partition=key)
        events.report_materializations(self.instance, materializations=[made], **where)
        done = dg.DagsterEvent(event_type_value="PIPELINE_SUCCESS", job_name="any")
        self.instance.report_dagster_event(done, run_id)

    def take_back(self, asset: str, name: str, *attempt_ids: str) -> None:
        """As ``unpublish`` does at its end."""
        key = f"bronze/{name}"
        unmaterialize(self.instance, asset=asset, partition_keys=[key], who="jane")
        (audit_id,) = self.ledger.audit("unpublish", who="jane", asset=asset, inventories={key: []}).values()
        self.ledger.audit_ended(audit_id, inventory=[], withdraw=attempt_ids)

    def source_says(
        self,
        name: str,
        *,
        gone_for: timedelta | None,
        source: str = "inbox",
        asset: str = COG,
        reason: str | None = None,
        version: str = "1",
    ) -> None:
        """An entry of a source."""
        now = datetime.now(UTC)
        self.sequence += 1
        row = {
            "source": source,
            "entry": name[:32],
            "name": name,
            "version": version,
            "size": 1,
            "state": "queued" if gone_for is None else "gone",
            "reason": reason,
            "asset": asset,
            "partition_key": f"bronze/{name}",
            "seen_at": now,
            "gone_at": None if gone_for is None else now - gone_for,
            "sequence": self.sequence,
        }
        self.ledger.write(lambda c: c.execute(source_entries.insert().values(**row)))

    def entries(self) -> set[str]:
        return self.ledger.read(lambda c: set(c.execute(sa.select(source_entries.c.name)).scalars()))

    def clean(self, *, dry_run: bool = False, later: timedelta = LATER, **options: Any) -> dict[str, Cleaned]:
        done = clean_up(
            self.machine,
            options.pop("history", History(self.instance, pause_seconds=0)),
            options.pop("sources", []),
            keep=KEEP,
            wave_tag=WAVE_TAG,
            dry_run=dry_run,
            now=datetime.now(UTC) + later,
            **options,
        )
        return {one.what: one for one in done}

    def keys(self) -> set[str]:
        return {key.removeprefix("bronze/") for key in self.instance.get_dynamic_partitions(SET)}

    def rows(self) -> dict[str, list[str]]:
        """All that is in the ledger."""

        def every(c: sa.Connection) -> dict[str, list[str]]:
            return {table.name: sorted(map(str, c.execute(table.select()))) for table in TABLES}

        return self.ledger.read(every)


def numbers(cleaned: dict[str, Cleaned]) -> dict[str, int]:
    assert not [one for one in cleaned.values() if one.problem]
    return {what: one.number for what, one in cleaned.items() if one.number}


@pytest.fixture
def registry() -> Any:
    """Workflows that publish."""
    return registry_of([bind(workflow) for workflow in WORKFLOWS])


@pytest.fixture
def place(registry: Any) -> Iterator[Place]:
    """Embedded."""
    settings = get_settings()
    with (
        closing(Ledger(settings.ledger_sqlalchemy_url, patience_seconds=20)) as ledger,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        machine = CoreMachine(ledger=ledger, registry=registry, settings=settings, services=open_services(settings))
        yield Place(machine, instance)


@pytest.fixture(params=["embedded", pytest.param("services", marks=pytest.mark.services)])
def every_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Embedded, and with ledger and listings on PostgreSQL."""
    if request.param == "services":
        # a database of its own takes longer to make and to migrate than the test takes
        monkeypatch.setenv("GEO_ASSETS_LEDGER_URL", request.getfixturevalue("ledger_database"))
        get_settings.cache_clear()
        with closing(Ledger(get_settings().ledger_sqlalchemy_url, patience_seconds=20)) as ledger:
            for table in reversed(metadata.sorted_tables):
                ledger.write(lambda c, gone=table: c.execute(gone.delete()))  # type: ignore[misc]
    yield request.getfixturevalue("place")
    listings = open_services(get_settings())["listings"]
    if hasattr(listings, "dispose"):
        listings.dispose()


# --- all together --------------------------------------------------------------------------------------------------


def _listing(place: Place, container: str, key: str) -> None:
    values = {"row_number": [0], "name": ["a"], "size": [1], "last_modified": [datetime.now(UTC)]}
    frame = pl.DataFrame({name: values.get(name, [None]) for name in TABLE_SCHEMA}, schema=pl.Schema(TABLE_SCHEMA))
    removed = pl.DataFrame(schema=pl.Schema(REMOVED_SCHEMA))
    place.machine.services["listings"].replace(container, key, version=key, frames=[frame], removed=[removed])


def test_a_dry_run_says_what_the_real_one_does_and_changes_nothing(every_place: Place) -> None:
    place = every_place
    for _ in range(12):
        place.do("check_raster", "often.tif")
    kept = place.do("make_cog", "a.tif", result={"stac": {"collection_id": "c", "item_id": "a", "about": ["b", "a"]}})
    place.take_back(COG, "b.tif", place.do("make_cog", "b.tif", result={"any": 1}))
    for key in ("one", "two"):
        _listing(place, "bronze", key)
    now = datetime.now(UTC)
    notice = {"kind": "run", "first_at": now, "suppressed": 0}
    place.ledger.write(
        lambda c: c.execute(
            notices.insert(),
            [
                {"fingerprint": "old", "last_at": now, "sent_at": now, **notice},
                {"fingerprint": "new", "last_at": now + LATER, "sent_at": now, **notice},
                {"fingerprint": "a run to be told of", "last_at": now, "sent_at": None, **notice},
            ],
        )
    )
    scratch = place.machine.settings.scratch_path / "scratch-dead"
    scratch.mkdir(parents=True)
    (scratch / ".owner").touch()
    before, runs = place.rows(), place.instance.get_runs()

    dry = place.clean(dry_run=True)
    assert numbers(dry) == {
        "partition keys": 1,
        "runs": 11,  # of 12 checks only the last is shown
        "tasks": 28,
        "superseded attempts": 2,
        "closed waves": 14,
        "notices of failures": 1,
        "container listings": 1,
        "scratch folders of dead processes": 1,
    }
    assert (place.rows(), place.instance.get_runs()) == (before, runs)
    assert scratch.exists()

    assert place.clean() == dry
    assert numbers(place.clean()) == {}
    assert place.keys() == {"often.tif", "a.tif"}
    assert not scratch.exists()
    assert place.machine.services["listings"].info("bronze", "one") is None
    assert place.machine.services["listings"].info("bronze", "two") is not None
    assert [attempt.attempt_id for attempt in place.ledger.attempts_of_partitions([COG], ["bronze/a.tif"])] == [kept]
    assert [run.run_id for run in place.instance.get_runs()] == ["run-14", "run-13", "run-12"]
    counts = {name: len(rows) for name, rows in place.rows().items()}
    assert counts == {"jobs": 3, "attempts": 12, "tasks": 0, "waves": 0, "notices": 2, "source_entries": 0}


def test_nothing_young_goes(place: Place) -> None:
    place.do("check_raster", "a.tif")
    place.do("check_raster", "a.tif")
    before = place.rows()
    assert numbers(place.clean(later=timedelta())) == {}
    assert place.rows() == before


# --- the ledger ----------------------------------------------------------------------------------------------------


def test_attempts_stay_while_anything_in_them_counts(place: Place) -> None:
    result = {"stac": {"collection_id": "c", "item_id": "a", "about": ["b", "a"]}}
    published = place.do("make_cog", "a.tif", result=result)
    empty = place.do("make_cog", "a.tif")
    failed = place.do("make_cog", "a.tif", fails=True)
    for _ in range(9):
        place.do("make_cog", "a.tif", result=result)
    place.do("make_cog", "a.tif", fails=True)
    retention = LedgerRetention(place.ledger)
    later = datetime.now(UTC) + LATER
    # one that was good needs ten newer good ones, one that failed ten newer results
    found = retention.superseded(later, keep=10, publishing={"make_cog"}, at_most=9)
    assert found == ([failed], False)
    place.do("make_cog", "a.tif")
    found = retention.superseded(later, keep=10, publishing={"make_cog"}, at_most=9)
    assert found == ([empty, failed], False), "what the first has published may still be there"
    assert retention.superseded(later, keep=10, publishing=(), at_most=1) == ([published], True)
    assert retention.remove_attempts([empty, failed]) == 2
    assert retention.remove_attempts([place.ledger.jobs()[0].latest_attempt or ""]) == 0, "a job keeps its latest"


def test_tasks_go_in_small_transactions_and_those_of_others_stay(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_retention, "_ROWS", 3)
    ids = [place.do("check_raster", f"{number}.tif", tasks=number) for number in (1, 2, 7, 4)]
    retention = LedgerRetention(place.ledger, pause_seconds=0)
    old = retention.old_tasks(datetime.now(UTC) + LATER, at_most=10)
    assert (dict(old.by_attempt), old.more) == ({ids[0]: 1, ids[1]: 2, ids[2]: 7}, True)
    assert retention.remove_tasks(old) == 10
    assert {one: counts.total for one, counts in place.ledger.task_counts(ids).items()} == {ids[3]: 4}
    large = retention.old_tasks(datetime.now(UTC) + LATER, at_most=1)
    assert large.by_attempt == {ids[3]: 4}, "one that is larger than the bound goes all the same"


def test_runs_of_unsettled_attempts_and_owed_events_stay(place: Place) -> None:
    for _ in range(3):
        place.do("check_raster", "a.tif")
    owing = place.ledger.attempts_of_run("run-1")[0].attempt_id
    place.ledger._flag([owing], event_emitted=False)
    (answer,) = [submit(place.machine, "check_raster", {"source": "bronze/b.tif"})]
    (wave,) = place.ledger.assign_waves(wave_size=9, waves_at_once=99)
    place.ledger.claim_wave(wave.wave_id, "run-2")
    assert LedgerRetention(place.ledger).needed_runs() == {"run-1", "run-2"}
    assert LedgerRetention(place.ledger).needed_listings() == {answer.job.job_id}
    assert place.clean(dry_run=True)["runs"].number == 0


# --- partition keys ------------------------------------------------------------------------------------------------


def withdrawn(place: Place, name: str) -> None:
    place.take_back(COG, name, place.do("make_cog", name, result={"any": 1}))


def published(place: Place, name: str) -> None:
    place.do("make_cog", name, result={"stac": {"collection_id": "c", "item_id": "a", "about": ["b", "a"]}})


def wiped_only(place: Place, name: str) -> None:
    published(place, name)
    unmaterialize(place.instance, asset=COG, partition_keys=[f"bronze/{name}"], who="jane")


def queued_again(place: Place, name: str) -> None:
    withdrawn(place, name)
    submit(place.machine, "make_cog", {"source": f"bronze/{name}"})


def under_way(place: Place, name: str) -> None:
    withdrawn(place, name)
    tags = {"dagster/partition": f"bronze/{name}"}
    place.instance.add_run(
        dg.DagsterRun(job_name="x", run_id=f"x-{name}", tags=tags, status=dg.DagsterRunStatus.STARTED)
    )


def failed(place: Place, name: str, gone_for: timedelta | None = None) -> None:
    place.do("make_cog", name, fails=True)
    if gone_for is not None:
        place.source_says(name, gone_for=gone_for)


def failed_and_there(place: Place, name: str) -> None:
    failed(place, name, timedelta(days=90))
    place.source_says(name, gone_for=None, source="other")


def validated(place: Place, name: str, reason: str | None = TAKEN_BACK) -> None:
    place.do("check_raster", name)
    long_ago = datetime.now(UTC) - timedelta(days=99)
    this = attempts.c.partition_key == f"bronze/{name}"
    place.ledger.write(lambda c: c.execute(attempts.update().where(this).values(created_at=long_ago)))
    place.source_says(name, gone_for=timedelta(days=90), source="tidy", reason=reason)


def validated_and_kept_by_one(place: Place, name: str) -> None:
    validated(place, name)
    place.source_says(name, gone_for=timedelta(days=90), reason=TOLD)


def validated_since(place: Place, name: str) -> None:
    validated(place, name)
    place.do("check_raster", name)


def published_and_gone(place: Place, name: str) -> None:
    published(place, name)
    place.source_says(name, gone_for=timedelta(days=90))


def shown_by_others(place: Place, name: str) -> None:
    place.instance.add_dynamic_partitions(SET, [f"bronze/{name}"])
    place.show(f"x-{name}", ITEM, f"bronze/{name}")
    place.source_says(name, gone_for=timedelta(days=90))


def taken_back_by_others(place: Place, name: str) -> None:
    place.instance.add_dynamic_partitions(SET, [f"bronze/{name}"])
    place.show(f"x-{name}", ITEM, f"bronze/{name}")
    unmaterialize(place.instance, asset=ITEM, partition_keys=[f"bronze/{name}"], who="job")


def unknown(place: Place, name: str) -> None:
    place.instance.add_dynamic_partitions(SET, [f"bronze/{name}"])


GOES: list[Callable[[Place, str], None]] = [
    withdrawn,
    lambda place, name: failed(place, name, timedelta(days=90)),
    validated,
    taken_back_by_others,
]
STAYS: list[Callable[[Place, str], None]] = [
    published,
    wiped_only,
    queued_again,
    under_way,
    failed,
    lambda place, name: failed(place, name, timedelta(days=10)),
    failed_and_there,
    published_and_gone,
    shown_by_others,
    unknown,
    validated_and_kept_by_one,
    validated_since,
    lambda place, name: validated(place, name, TOLD),
]


def test_sources_forget_what_is_gone_once_nothing_is_to_be_done_of_it(place: Place) -> None:
    long, tidy = (
        timedelta(days=120),
        Source(name="tidy", container="bronze", workflow="make_cog", when_removed="unpublish"),
    )
    kept = Source(name="inbox", container="bronze", workflow="make_cog")
    place.source_says("over", gone_for=long, reason=TOLD)
    place.source_says("younger", gone_for=timedelta(days=60), reason=TOLD)
    place.source_says("untold", gone_for=long)
    place.source_says("there", gone_for=None)
    failed(place, "failed")
    place.source_says("failed", gone_for=long, reason=TOLD)
    place.source_says("taken back", gone_for=timedelta(days=31), reason=TAKEN_BACK, source="tidy")
    place.source_says("to be taken back", gone_for=long, reason=TOLD, source="tidy")
    validated(place, "checked")  # whose key goes today
    for dry_run in (True, False):
        done = place.clean(later=timedelta(), sources=[kept, tidy], dry_run=dry_run)
        assert done["vanished blobs that sources remember"].number == 2
    left = place.entries()
    assert left == {"younger", "untold", "there", "failed", "to be taken back", "checked"}
    assert place.clean(later=timedelta(), sources=[kept, tidy])["vanished blobs that sources remember"].number == 1
    assert place.entries() == left - {"checked"}


def test_a_key_goes_when_nothing_refers_to_it_and_only_then(place: Place) -> None:
    for number, happens in enumerate([*GOES, *STAYS]):
        happens(place, f"{number}.tif")
    stay = {f"{number}.tif" for number in range(len(GOES), len(GOES) + len(STAYS))}
    green = place.instance.get_materialized_partitions(dg.AssetKey(VALIDATION))
    dry = place.clean(dry_run=True, later=timedelta())["partition keys"]
    assert len(place.keys()) == len(GOES) + len(STAYS)
    done = place.clean(later=timedelta())["partition keys"]
    assert place.keys() == stay
    assert dry == done
    assert done.number == len(GOES)
    kept = place.instance.get_materialized_partitions(dg.AssetKey(VALIDATION))
    assert green - kept == {f"bronze/{GOES.index(validated)}.tif"}, "it is forgotten as well"
    assert place.clean(later=timedelta())["partition keys"].number == 0
    # a source may have it go sooner
    source = Source(name="inbox", container="bronze", workflow="process_raster", removed_after=5 * 86_400)
    assert place.clean(later=timedelta(), sources=[source])["partition keys"].number == 1
    assert place.keys() == stay - {f"{len(GOES) + 5}.tif"}


def test_no_key_goes_while_a_backfill_may_name_it(place: Place) -> None:
    withdrawn(place, "a.tif")
    backfill = PartitionBackfill(
        backfill_id="b",
        status=BulkActionStatus.REQUESTED,
        from_failure=False,
        tags={},
        backfill_timestamp=0.0,
        asset_selection=[dg.AssetKey(COG)],
    )
    place.instance.add_backfill(backfill)
    cleaned = place.clean()["partition keys"]
    assert (cleaned.number, place.keys()) == (0, {"a.tif"})
    assert "backfill" in cleaned.note
    place.instance.update_backfill(backfill._replace(status=BulkActionStatus.CANCELED))
    assert place.clean()["partition keys"].number == 1


def test_a_key_that_is_wanted_again_at_that_moment_is_there_again(place: Place) -> None:
    class Racing(History):
        def remove_key(self, partition_set: str, key: str) -> None:
            # somebody submits a job, and the queue adds its key, just before it is removed
            submit(place.machine, "make_cog", {"source": key})
            super().remove_key(partition_set, key)

    withdrawn(place, "a.tif")
    cleaned = place.clean(history=Racing(place.instance, pause_seconds=0))
    assert (cleaned["partition keys"].number, place.keys()) == (0, {"a.tif"})


def test_keys_are_bounded(place: Place) -> None:
    for number in range(5):
        withdrawn(place, f"{number}.tif")
    cleaned = place.clean(at_most=3)["partition keys"]
    assert (cleaned.number, cleaned.note) == (3, "more is left for the next clean-up")
    assert place.clean(at_most=3)["partition keys"].number == 2


def test_what_was_made_of_a_blob_that_is_back_stays_and_the_rest_is_taken_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    services, context = place.machine.services, TaskContext(services=place.machine.services)
    blobs, catalog = services["blobs"], services["catalog"]
    blobs.create_container(SOURCES)
    for name in ("gone.tif", "back.tif"):
        made = make({"source": f"{SOURCES}/{name}", "tier": "analysis"}, context)
        place.do("make_cog", name, result=made["result"])
        place.source_says(name, gone_for=timedelta(days=90), reason=TOLD)
    place.do("check_raster", "checked.tif")
    place.source_says("checked.tif", gone_for=timedelta(days=90), reason=TOLD, source="checks", asset=VALIDATION)
    cogs = Source(name="inbox", container=SOURCES, workflow="make_cog", when_removed="unpublish")
    unmounted = place.clean(sources=[cogs], later=timedelta())["vanished blobs of source inbox taken back"]
    assert (unmounted.number, unmounted.problem) == (0, "")
    assert "is its disk mounted?" in unmounted.note
    # it came back while its sensor was off, so that the source does not know
    blobs.put(SOURCES, "back.tif", b"data")
    blobs.put(SOURCES, "city.gdb/a.gdbtable", b"data")
    place.source_says("city.gdb", gone_for=timedelta(days=90), reason=TOLD, version=f"{FOLDER}1")
    checks = cogs.model_copy(update={"name": "checks", "workflow": "check_raster"})

    def clean(what: str, *, dry_run: bool = False) -> Cleaned:
        found = place.clean(sources=[cogs, checks], later=timedelta(), dry_run=dry_run)
        return found[f"vanished blobs of source {what} taken back"]

    with monkeypatch.context() as away:

        def denied(*_: Any) -> None:
            raise AccessDeniedError("the container cannot be read")

        away.setattr(type(blobs), "head", denied)
        refused = clean("inbox")
        assert (refused.number, refused.problem) == (0, "2 could not be taken back: the container cannot be read")
    assert sorted(catalog.described_blobs(COLLECTION)) == [item_id("back.tif"), item_id("gone.tif")]
    foretold = clean("inbox", dry_run=True)
    assert (foretold.number, foretold.note) == (1, "2 keep what was made, as they are there again")
    assert clean("inbox") == foretold
    assert list(catalog.described_blobs(COLLECTION)) == [item_id("back.tif")]
    left = [row["name"] for batch in blobs.list_blobs(PRODUCTS) for row in batch.to_pylist()]
    assert sorted(left) == ["analysis/back.tif", "thumbnail/back.tif"]
    assert place.instance.get_materialized_partitions(dg.AssetKey(COG)) == {f"{SOURCES}/back.tif"}
    assert clean("checks") == Cleaned(what="vanished blobs of source checks taken back", number=0), "it was done before"


def test_blobs_that_are_back_or_may_not_be_asked_about_keep_no_others_from_being_taken_back(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "_PAGE", 3)
    monkeypatch.setattr(removal, "_AT_ONCE", 2)
    blobs = place.machine.services["blobs"]
    blobs.create_container(SOURCES)
    back, gone = [f"back{number}.tif" for number in range(4)], [f"gone{number}.tif" for number in range(7)]
    for name in ["denied.tif", *back, *gone]:
        place.source_says(name, gone_for=timedelta(days=90), reason=TOLD)
        if name.startswith("back"):
            blobs.put(SOURCES, name, b"data")
    head = type(blobs).head

    def denied_for_one(store: Any, container: str, name: str) -> Any:
        if name == "denied.tif":
            raise AccessDeniedError("no permission for denied.tif")
        return head(store, container, name)

    monkeypatch.setattr(type(blobs), "head", denied_for_one)
    source = Source(name="inbox", container=SOURCES, workflow="make_cog", when_removed="unpublish")

    def clean(**options: Any) -> tuple[int, str]:
        cleaned = place.clean(sources=[source], later=timedelta(), at_most=5, **options)
        found = cleaned["vanished blobs of source inbox taken back"]
        denied = "" if "seconds" in options else "1 could not be taken back: no permission for denied.tif"
        assert found.problem == denied
        return found.number, found.note

    assert clean(seconds=0) == (0, "more is left for the next clean-up")
    kept, more = "4 keep what was made, as they are there again", "more is left for the next clean-up"
    assert clean(dry_run=True) == (5, f"{kept}; {more}")
    assert clean() == (5, f"{kept}; {more}")
    assert clean() == (2, kept)


def test_numbers_that_make_no_sense_are_refused(place: Place) -> None:
    for at_most in (0, -1, 10**18):
        with pytest.raises(ParameterError, match="removes 1 to 1,000,000 things of a kind"):
            place.clean(at_most=at_most)
    for days in (-1.0, 1e6, float("inf"), float("nan")):
        with pytest.raises(ParameterError, match="kept for 0 to 36500 days"):
            Keep.of(place.machine.settings, run_days=days)


# --- around it -----------------------------------------------------------------------------------------------------


def test_a_store_that_is_away_stops_no_other_part(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.do("check_raster", "a.tif")

    class Locked(History):
        def plan(self, **_: Any) -> Any:
            raise sa.exc.OperationalError("SELECT key", {}, sqlite3.OperationalError("database is locked"))

    def away(**_: Any) -> int:
        raise TableStoreUnavailableError("the table database cannot be reached")

    def broken(*_: Any, **__: Any) -> int:
        raise OSError(errno.EIO, "Input/output error", "x")

    monkeypatch.setattr(place.machine.services["tables"], "sweep", away)
    monkeypatch.setattr(place.machine.services["listings"], "sweep", broken)
    cleaned = place.clean(history=Locked(place.instance))
    assert cleaned["tasks"].number == 2
    assert "cannot be reached" in cleaned["temporary files"].problem
    assert cleaned["container listings"].problem == "not finished: [Errno 5] Input/output error: 'x'"
    assert cleaned["Dagster's runs and events"].problem == "not done: database is locked"


def test_scratch_folders_of_living_owners_stay(place: Place) -> None:
    from geo_assets.scratch import ScratchFolder  # noqa: PLC0415

    with ScratchFolder(place.machine.settings.scratch_path) as own:
        path: Path = own.path
        assert place.clean()["scratch folders of dead processes"].number == 0
        assert path.exists()


def test_the_job_shows_what_went_as_a_table_and_runs_by_itself(place: Place, registry: Any) -> None:
    place.do("check_raster", "a.tif")
    place.do("check_raster", "a.tif")
    defs = build_clean_up(place.machine.settings, registry)
    (schedule,) = defs.schedules or ()
    assert isinstance(schedule, dg.ScheduleDefinition)
    assert schedule.name == "clean_up_daily"  # as the other schedules are called
    assert (schedule.cron_schedule, schedule.default_status.value) == ("17 3 * * *", "RUNNING")
    machine = core_machine_resource(registry, open_services)
    job = dg.Definitions.merge(defs, dg.Definitions(resources={MACHINE: machine})).resolve_job_def("clean_up")

    def removed(**config: Any) -> dict[str, int]:
        given = {"ops": {"clean_up__remove": {"config": {"keep_run_days": 0.0, "keep_task_days": 0.0, **config}}}}
        result = job.execute_in_process(instance=place.instance, run_config=given)
        (output,) = [event.step_output_data for event in result.all_events if event.is_successful_output]
        table: Any = output.metadata["removed"]
        return {record.data["what"]: record.data["number"] for record in table.records}

    dry = removed(dry_run=True)
    assert (dry["runs"], dry["tasks"]) == (1, 4)
    done = removed()
    # the dry run was a run as well, which partitions do not show
    assert done == {**dry, "runs": 2}
    assert removed(keep_task_days=None)["tasks"] == 0
