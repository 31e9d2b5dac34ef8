"""``ingest_vector`` when something goes wrong: killed, doubled, changed under its hands, without room, given bad files.

What belongs here: what a whole job says and leaves then.  What does not: jobs that go well (``test_ingest_vector``),
every way a file can be bad (``tests/vector``), a store's own failures (``tests/stores``).
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.errors import CatalogUnavailableError, TableStoreUnavailableError
from tests.jobs.bench import Bench
from tests.jobs.loading import Loader, OpenBench, files, loader, open_bench, tables_url
from tests.raster.conftest import listener
from tests.stores.table_rows import definition, load, points

__all__ = ["files", "listener", "loader", "open_bench", "tables_url"]

ROWS = 250
CHUNKED = "name,lat,lon\n" + "".join(f"town {row},47.5,{7 + row / 1000}\n" for row in range(1, ROWS + 1))
NAMES = [f"town {row}" for row in range(1, ROWS + 1)]
OTHER = "name,lat,lon\nBern,46.9,7.4\n"


# --- something happens at a call of a store --------------------------------------------------------------------------


class Meddler:
    """Lets something happen at one call of a service, just before or just after it."""

    def __init__(self, bench: Bench) -> None:
        self._services = bench.services
        self._calls = 0
        self._dead = False

    def at(
        self, service: str, method: str, action: Callable[[], object], *, nth: int = 1, afterwards: bool = False
    ) -> None:
        """Do something at the ``nth`` call."""
        target = self._services[service]
        meddler = self

        class Watched:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                return meddler._around(found, action, nth, afterwards=afterwards) if name == method else found

        self._services[service] = Watched()

    def kill_at(self, service: str, method: str, *, nth: int = 1, afterwards: bool = False) -> None:
        """Let no call of any service go through from there on, as if the process was killed."""
        self.at(service, method, self._kill, nth=nth, afterwards=afterwards)
        for name in ("blobs", "tables", "items", "catalog", "sandbox"):
            self._services[name] = _Mortal(self._services[name], self.is_dead)

    def is_dead(self) -> bool:
        return self._dead

    def _kill(self) -> None:
        self._dead = True
        raise KilledError("killed")

    def _around(self, call: Any, action: Callable[[], object], nth: int, *, afterwards: bool) -> Any:
        def meddled(*arguments: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls != nth:
                return call(*arguments, **options)
            if not afterwards:
                action()
                return call(*arguments, **options)
            answer = call(*arguments, **options)
            action()
            return answer

        return meddled


class KilledError(Exception):
    """The process is killed here."""


class _Mortal:
    def __init__(self, target: Any, is_dead: Callable[[], bool]) -> None:
        self._target, self._is_dead = target, is_dead

    def __getattr__(self, name: str) -> Any:
        if self._is_dead():
            raise KilledError("killed")
        return getattr(self._target, name)


@pytest.fixture
def meddler(request: pytest.FixtureRequest) -> Meddler:
    """For the workbench of the test."""
    name = "loader" if "loader" in request.fixturenames else "files"
    found: Loader = request.getfixturevalue(name)
    return Meddler(found.bench)


KILLS = {
    "before the sandbox": ("sandbox", "call", 1, False),
    "after the sandbox": ("sandbox", "call", 1, True),
    "before the staging": ("tables", "begin", 1, False),
    "after the staging": ("tables", "begin", 1, True),
    "before a chunk is put": ("blobs", "put_stream", 2, False),
    "after a chunk is put": ("blobs", "put_stream", 2, True),
    "before the manifest": ("blobs", "put", 1, False),
    "after the manifest": ("blobs", "put", 1, True),
    "before a chunk is loaded": ("tables", "load_chunk", 2, False),
    "after a chunk is loaded": ("tables", "load_chunk", 2, True),
    "before publishing": ("tables", "publish", 1, False),
    "after publishing": ("tables", "publish", 1, True),
    "before the picture": ("blobs", "put_stream", 5, False),
    "after the picture": ("blobs", "put_stream", 5, True),
    "before cleaning": ("blobs", "delete", 1, False),
    "amid cleaning": ("blobs", "delete", 1, True),
    "before the item": ("items", "write", 1, False),
    "after the item": ("items", "write", 1, True),
}
NOBODY_KNOWS = {"after the staging", "before a chunk is put", "after a chunk is put", "before the manifest"}
"""Killed there, the staging in the table store is known to nobody, and goes when it is a day old."""
WITH_POSTGIS = {"after the staging", "after the manifest", "after a chunk is loaded", "before publishing",
                "after publishing", "amid cleaning", "before the item"}  # fmt: skip


@pytest.mark.parametrize(
    ("tables_url", "mode", "point"),
    [
        *(("geoparquet", "append", point) for point in KILLS),
        *(("geoparquet", "create", point) for point in KILLS),
        *(pytest.param("postgis", "append", point, marks=pytest.mark.services) for point in sorted(WITH_POSTGIS)),
    ],
    indirect=["tables_url"],
)
def test_killed_anywhere_it_is_finished_by_repeating_it(loader: Loader, mode: str, point: str) -> None:
    loader.write("towns.csv", CHUNKED)
    params: dict[str, Any] = {"load_mode": mode, "chunk_size": 100}
    before = []
    if mode == "append":
        loader.load(loader.write("other.csv", OTHER), load_mode="append")
        before = ["Bern"]
    services = dict(loader.bench.services)
    service, method, nth, afterwards = KILLS[point]
    Meddler(loader.bench).kill_at(service, method, nth=nth, afterwards=afterwards)
    with pytest.raises(KilledError):  # what is done once a run is not done any more
        loader.job("towns.csv", **params)
    loader.bench.services.update(services)
    there = [] if not loader.names() else loader.rows("places", "name")
    assert there in (before, [*before, *NAMES]), "a reader sees the old table or the new one"

    assert loader.job("towns.csv", **params).status is JobStatus.COMPLETED
    assert loader.rows("places", "name") == [*before, *NAMES]
    assert loader.rows() == list(range(1, len(before) + ROWS + 1))
    assert loader.items() == ["postgis-geo-places"]
    assert loader.bench.files("thumbnails") == ["tables/geo.places.webp"]
    if point in NOBODY_KNOWS:
        assert loader.tables.sweep(older_than_seconds=0) == 1
    loader.require_clean()
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["properties"]["table:row_count"] == len(before) + ROWS
    assert loader.load("towns.csv", says=OutcomeKind.UNCHANGED, **params)


@pytest.mark.parametrize(
    ("service", "method", "nth"),
    [("tables", "begin", 1), ("tables", "load_chunk", 2), ("tables", "publish", 1), ("blobs", "put_stream", 5)],
)
def test_what_was_done_and_lost_is_not_done_twice(
    loader: Loader, meddler: Meddler, service: str, method: str, nth: int
) -> None:
    def lost() -> None:
        raise TableStoreUnavailableError("the connection was lost")

    meddler.at(service, method, lost, nth=nth, afterwards=True)
    loader.write("towns.csv", CHUNKED)
    assert loader.job("towns.csv", chunk_size=100, load_mode="append").status is JobStatus.COMPLETED
    assert loader.rows("places", "name") == NAMES
    assert loader.bench.files("staging") == []


def test_a_store_that_is_away_too_long_fails_the_job_which_may_be_repeated(loader: Loader) -> None:
    def away() -> None:
        raise TableStoreUnavailableError("the database is away; try again later")

    services = dict(loader.bench.services)
    for nth in (1, 2):  # the task is tried twice
        Meddler(loader.bench).at("tables", "publish", away, nth=nth)
    job = loader.job(loader.write("towns.csv", CHUNKED))
    assert job.status is JobStatus.FAILED
    assert "the database is away; try again later" in (job.reason or "")
    assert loader.names() == []
    loader.bench.services.update(services)
    loader.load("towns.csv")
    assert loader.rows("places", "name") == NAMES


def test_a_doubled_chunk_counts_once(loader: Loader) -> None:
    original = loader.tables.load_chunk

    class Doubling:
        def __getattr__(self, name: str) -> Any:
            return getattr(loader.tables, name)

        def load_chunk(self, staged: Any, chunk: int, batches: Any) -> int:
            rows: list[int] = []
            held = list(batches)
            threads = [threading.Thread(target=lambda: rows.append(original(staged, chunk, held))) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert rows[0] == rows[1]
            return rows[0]

    loader.bench.services["tables"] = Doubling()
    result = loader.load(loader.write("towns.csv", CHUNKED), chunk_size=100)
    assert result["summary"]["total_rows_uploaded"] == ROWS
    assert loader.rows("places", "name") == NAMES


# --- the world changes meanwhile -------------------------------------------------------------------------------------


def test_a_source_replaced_between_the_stages_is_loaded_as_it_was(loader: Loader, meddler: Meddler) -> None:
    loader.write("towns.csv", CHUNKED)
    etag = loader.bench.services["blobs"].head("bronze", "towns.csv").etag
    meddler.at("tables", "begin", lambda: loader.write("towns.csv", OTHER))
    result = loader.load("towns.csv", load_mode="overwrite")
    assert result["source"]["etag"] == etag
    assert loader.rows("places", "name") == NAMES
    loader.load("towns.csv", load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert loader.rows("places", "name") == ["Bern"]


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_source_replaced_while_it_is_copied_is_copied_again(files: Loader, meddler: Meddler, nth: int) -> None:
    files.write("towns.csv", CHUNKED)
    # read before the job is submitted, by the job to find out whether it is done, and by the copy
    meddler.at("blobs", "read_start", lambda: files.write("towns.csv", OTHER), nth=nth, afterwards=True)
    result = files.load("towns.csv")
    assert files.rows("places", "name") == ["Bern"]
    assert result["source"]["etag"] == files.bench.services["blobs"].head("bronze", "towns.csv").etag


def test_a_source_that_goes_fails_the_job(files: Loader, meddler: Meddler) -> None:
    path = files.bench.containers / "bronze" / files.write("towns.csv", CHUNKED)
    meddler.at("blobs", "read_start", path.unlink, afterwards=True)
    job = files.job("towns.csv")
    assert job.status is JobStatus.FAILED
    assert "bronze/towns.csv" in (job.reason or "")
    assert files.names() == []


def test_a_table_dropped_before_publishing_is_not_added_to(loader: Loader, meddler: Meddler) -> None:
    loader.load(loader.write("other.csv", OTHER))
    meddler.at("tables", "publish", lambda: loader.tables.drop("geo", "places"))
    reason = loader.refused(
        loader.write("towns.csv", CHUNKED),
        "TARGET_CHANGED",
        outcome=OutcomeKind.FAILED,
        load_mode="append",
        chunk_size=100,
        there=[],
    )
    assert "geo.places" in reason


def test_a_table_made_before_publishing_is_not_replaced(loader: Loader, meddler: Meddler) -> None:
    somebody = definition("places")
    theirs = points(somebody, 1, name="Bern")
    meddler.at("tables", "publish", lambda: load(loader.tables, somebody, theirs))
    job = loader.job(loader.write("towns.csv", CHUNKED), load_mode="create")
    assert job.status is JobStatus.FAILED
    assert (job.reason or "").split(":")[0] in ("TABLE_EXISTS", "TARGET_CHANGED")
    assert loader.rows("places", "name") == ["Bern1"]
    loader.require_clean()


def test_without_room_nothing_is_begun(open_bench: OpenBench) -> None:
    full = Loader(open_bench(disk_reserve_mb=1 << 30))
    job = full.job(full.write("towns.csv", CHUNKED))
    assert job.status is JobStatus.FAILED
    assert "of temporary space" in (job.reason or "")
    assert full.names() == []
    full.require_clean()


def test_without_the_catalog_the_table_is_there_and_only_its_item_is_missing(loader: Loader) -> None:
    class Away:
        def write(self, *_: Any) -> Any:
            raise CatalogUnavailableError("the catalog is away; try again later")

    items = loader.bench.services["items"]
    loader.bench.services["items"] = Away()
    loader.write("towns.csv", CHUNKED)
    job = loader.job("towns.csv")
    assert job.status is JobStatus.FAILED
    assert "the catalog is away; try again later" in (job.reason or "")
    assert (job.result_data or {})["tables"][0]["rows"] == ROWS
    assert loader.rows("places", "name") == NAMES
    loader.require_clean()
    version = loader.tables.check_target("geo", "places", "append")
    loader.bench.services["items"] = items
    result = loader.load("towns.csv")
    assert result["tables_unchanged"] == ["geo.places"]
    assert loader.items() == ["postgis-geo-places"]
    assert loader.tables.check_target("geo", "places", "append") == version


# --- secrets -----------------------------------------------------------------------------------------------------------

CANARY = "canary-hunter2"


def everything_said(loader: Loader) -> str:
    """All that the last run recorded, showed and catalogued."""
    attempts = loader.bench.ledger.attempts_of_run(f"run-{loader.bench._runs}")
    rows = loader.bench.ledger.tasks_of([one.attempt_id for one in attempts])
    catalog = loader.bench.services["catalog"]
    items = [item for one in catalog.list_collections() for item in catalog.iter_items(one)]
    return repr([attempts, rows, loader.bench.news, loader.bench.settled, items])


def test_no_password_is_told_where_the_database_is_away(open_bench: OpenBench) -> None:
    pytest.importorskip("geo_assets.stores.postgis")
    away = Loader(open_bench(tables_url=f"postgresql+psycopg2://geo:{CANARY}@127.0.0.1:1/geo"))
    with pytest.raises(TableStoreUnavailableError) as raised:  # by what is done once a run
        away.job(away.write("towns.csv", CHUNKED))
    (attempt,) = away.bench.ledger.attempts_of_run("run-1")
    assert attempt.status is JobStatus.FAILED
    assert "127.0.0.1/geo" in (attempt.reason or "")
    assert CANARY not in everything_said(away) + str(raised.value)


@pytest.mark.services
def test_no_password_is_told_where_all_goes_well(open_bench: OpenBench, postgres_url: str) -> None:
    url = make_url(postgres_url)
    if url.password is None:
        url = url.set(password=CANARY)
    there = Loader(open_bench(tables_url=url.render_as_string(hide_password=False)))
    there.load(there.write("towns.csv", CHUNKED))
    there.refused(there.write("towns.csv", OTHER), "TABLE_EXISTS", outcome=OutcomeKind.FAILED)
    said = everything_said(there)
    assert str(url.password) not in said
    assert "geo.places" in said
