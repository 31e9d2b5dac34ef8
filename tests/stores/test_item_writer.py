"""Single items from many threads: nothing lost, nothing mixed up, failures where they belong.

What belongs here: :class:`geo_assets.stores.item_writer.ItemWriter` over both catalogs, which are held up or fail
where a test says so.  What does not: what the catalogs promise themselves (``test_catalog_contract``).
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geo_assets.errors import CatalogError, CatalogUnavailableError, ParameterError
from geo_assets.stores.catalog import CatalogStore, ItemOutcome, ItemStatus
from geo_assets.stores.item_writer import ItemWriter, _Entry
from geo_assets.stores.pgstac import PgstacCatalog
from geo_assets.stores.static_catalog import StaticCatalog
from tests.stores.catalog_items import COLLECTION, item
from tests.stores.pgstac_database import pgstac_database, pgstac_url

__all__ = ["pgstac_database", "pgstac_url"]

_PATIENCE = 30.0


class _Watched:
    """A catalog whose upserts are recorded, can be held up, and fail once when told to."""

    def __init__(self, catalog: CatalogStore) -> None:
        self._catalog = catalog
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()
        self.failure: BaseException | None = None

    def upsert_items(
        self, collection_id: str, items: Sequence[dict[str, Any]], *, refresh: bool = True
    ) -> list[ItemOutcome]:
        self.batches.append([entry["id"] for entry in items])
        assert self.free.wait(_PATIENCE)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return self._catalog.upsert_items(collection_id, items, refresh=refresh)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)


@pytest.fixture(params=["static", pytest.param("pgstac", marks=pytest.mark.services)])
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CatalogStore]:
    """An empty catalog of each kind."""
    store: CatalogStore
    if request.param == "static":
        store = StaticCatalog(tmp_path / "catalog")
    else:
        store = PgstacCatalog(request.getfixturevalue("pgstac_url"))
    yield store
    store.close()


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    """An empty static catalog that is watched."""
    return _Watched(StaticCatalog(tmp_path / "catalog"))


@pytest.fixture
def writer(watched: Any) -> ItemWriter:
    """A writer on it."""
    return ItemWriter(watched)


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


@contextmanager
def _gathered(
    writer: ItemWriter, watched: Any, first: dict[str, Any], others: Sequence[dict[str, Any]]
) -> Iterator[tuple[Future[ItemOutcome], list[Future[ItemOutcome]]]]:
    """Hold up the write of one item until others wait, in this order; yields what becomes of them, still held up."""
    watched.free.clear()
    began = len(watched.batches)
    with ThreadPoolExecutor(len(others) + 1) as pool:
        try:
            leading = pool.submit(writer.write, COLLECTION, first)
            _until(lambda: len(watched.batches) > began)
            waiting = []
            for number, entry in enumerate(others, 1):
                waiting.append(pool.submit(writer.write, COLLECTION, entry))
                _until(lambda number=number: len(writer._waiting[COLLECTION]) == number)  # type: ignore[misc]
            yield leading, waiting
        finally:
            watched.free.set()


def _statuses(waiting: Sequence[Future[ItemOutcome]]) -> list[str]:
    return [future.result(_PATIENCE).status.value for future in waiting]


def test_many_threads_lose_nothing(catalog: CatalogStore) -> None:
    writer, threads, each = ItemWriter(catalog), 12, 15

    def work(thread: int) -> list[tuple[str, ItemOutcome]]:
        found = []
        for number in range(each):
            west = float(thread * each + number) / 2
            entry = item(f"{thread}-{number}.tif", bbox=[west, 0.0, west + 1, 1.0])
            found.append((entry["id"], writer.write(COLLECTION, entry)))
        return found

    with ThreadPoolExecutor(threads) as pool:
        results = [pair for pairs in pool.map(work, range(threads)) for pair in pairs]
    assert [outcome.item_id for _, outcome in results] == [item_id for item_id, _ in results]
    assert Counter(outcome.status for _, outcome in results) == {ItemStatus.CREATED: threads * each}
    assert {entry["id"] for entry in catalog.iter_items(COLLECTION)} == {item_id for item_id, _ in results}
    collection = catalog.refresh_collection(COLLECTION)
    assert collection is not None
    assert collection["extent"]["spatial"]["bbox"] == [[0.0, 0.0, (threads * each - 1) / 2 + 1, 1.0]]


def test_threads_that_write_the_same_item_agree(catalog: CatalogStore) -> None:
    writer = ItemWriter(catalog)
    with ThreadPoolExecutor(8) as pool:
        found = [outcome.status for outcome in pool.map(lambda _: writer.write(COLLECTION, item()), range(24))]
    assert Counter(found) == {ItemStatus.CREATED: 1, ItemStatus.UNCHANGED: 23}


def test_each_outcome_goes_to_the_thread_of_its_item(catalog: CatalogStore) -> None:
    watched: Any = _Watched(catalog)
    writer = ItemWriter(watched)
    writer.write(COLLECTION, item("there.tif"))
    entries = [item("there.tif"), item("new.tif"), item("bad.tif", gsd=float("nan")), item("there.tif", gsd=1.0)]
    with _gathered(writer, watched, item("first.tif"), entries) as (leading, waiting):
        watched.free.set()
        assert _statuses([leading]) == ["created"]
        assert _statuses(waiting) == ["unchanged", "created", "invalid", "updated"]
        assert [future.result().item_id for future in waiting] == [entry["id"] for entry in entries]


def test_what_waits_is_written_at_once(writer: ItemWriter, watched: Any) -> None:
    others = [item(f"{number}.tif") for number in range(6)]
    with _gathered(writer, watched, item("first.tif"), others) as (leading, waiting):
        watched.free.set()
        assert _statuses([leading, *waiting]) == ["created"] * 7
    assert watched.batches == [["bronze~first.tif"], [entry["id"] for entry in others]]


def test_who_has_written_goes_on_while_the_next_batch_is_written(writer: ItemWriter, watched: Any) -> None:
    with _gathered(writer, watched, item("1.tif"), [item("2.tif")]) as (leading, [waiting]):
        held, watched.free = watched.free, threading.Event()
        held.set()
        assert _statuses([leading]) == ["created"]
        _until(lambda: len(watched.batches) == 2)
        assert not waiting.done()
        watched.free.set()
        assert _statuses([waiting]) == ["created"]


def test_collections_do_not_wait_for_each_other(writer: ItemWriter, watched: Any) -> None:
    with _gathered(writer, watched, item("1.tif"), []) as (leading, _):
        held, watched.free = watched.free, threading.Event()
        watched.free.set()
        assert writer.write("vectors", item("2.tif")).status is ItemStatus.CREATED
        assert not leading.done()
        held.set()
        assert _statuses([leading]) == ["created"]


def test_of_two_blobs_with_one_id_the_first_has_it(writer: ItemWriter, watched: Any) -> None:
    rivals = [item("a/b.tif", id="a-b"), item("a-b.tif", id="a-b")]
    with _gathered(writer, watched, item("first.tif"), rivals) as (_, waiting):
        watched.free.set()
        assert _statuses(waiting) == ["created", "invalid"]
        assert "taken by bronze/a/b.tif" in str(waiting[1].result().reason)


def test_of_two_versions_of_one_item_both_are_written(writer: ItemWriter, watched: Any) -> None:
    versions = [item(gsd=1.0), item("b.tif"), item(gsd=2.0)]
    with _gathered(writer, watched, item("first.tif"), versions) as (_, waiting):
        watched.free.set()
        assert _statuses(waiting) == ["created", "created", "updated"]
    assert watched.get_item(COLLECTION, item()["id"])["properties"]["gsd"] == 2.0


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=8))
def test_batches_are_as_if_each_item_had_come_alone(writes: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
        single, watched = StaticCatalog(Path(alone)), _Watched(StaticCatalog(Path(together)))
        entries = [item(f"{number}.tif", gsd=float(gsd)) for number, gsd in writes]
        expected = [single.upsert_items(COLLECTION, [entry])[0].status.value for entry in entries]
        with _gathered(ItemWriter(watched), watched, item("first.tif"), entries) as (_, waiting):  # type: ignore[arg-type]
            watched.free.set()
            assert _statuses(waiting) == expected
        assert all(len(batch) == len(set(batch)) for batch in watched.batches)
        assert Counter(item_id for batch in watched.batches[1:] for item_id in batch) == Counter(
            entry["id"] for entry in entries
        )
        # as many batches as the commonest id has writes, no more
        assert len(watched.batches) - 1 == max(Counter(entry["id"] for entry in entries).values(), default=0)
        for entry in entries:
            assert watched.get_item(COLLECTION, entry["id"]) == single.get_item(COLLECTION, entry["id"])


class _OddError(Exception):
    def __init__(self, *, needed: str) -> None:
        super().__init__(f"odd {needed}")


@pytest.mark.parametrize(
    "failure", [CatalogUnavailableError("gone"), OSError(28, "disk full"), _OddError(needed="error")], ids=repr
)
def test_a_failure_reaches_all_of_its_batch_and_nobody_else(
    writer: ItemWriter, watched: Any, failure: Exception
) -> None:
    others = [item(f"{number}.tif") for number in range(4)]
    with _gathered(writer, watched, item("first.tif"), others) as (leading, waiting):
        watched.free.set()
        _until(leading.done)
        assert _statuses([leading]) == ["created"]
    watched.free.clear()
    with _gathered(writer, watched, item("second.tif", gsd=3.0), others) as (leading, waiting):
        watched.failure = failure
        watched.free.set()
        raised = leading.exception(_PATIENCE)
        assert (type(raised), str(raised)) == (type(failure), str(failure))
        assert _statuses(waiting) == ["unchanged"] * 4


@pytest.mark.parametrize("failure", [CatalogUnavailableError("gone"), OSError(28, "disk full")], ids=repr)
def test_each_thread_raises_an_exception_of_its_own(writer: ItemWriter, watched: Any, failure: Exception) -> None:
    with pytest.raises(ZeroDivisionError) as cause:
        _ = 1 // 0
    failure.__cause__ = cause.value
    others = [item(f"{number}.tif") for number in range(4)]
    with _gathered(writer, watched, item("first.tif"), others) as (leading, waiting):
        held, watched.free = watched.free, threading.Event()
        held.set()
        _until(lambda: len(watched.batches) == 2)
        assert _statuses([leading]) == ["created"]
        watched.failure = failure
        watched.free.set()
        raised = [future.exception(_PATIENCE) for future in waiting]
    assert len({id(error) for error in raised}) == 4
    for error in raised:
        assert error is not None
        assert (type(error), str(error), error.__cause__) == (type(failure), str(failure), cause.value)
    assert [writer.write(COLLECTION, entry).status for entry in others] == [ItemStatus.CREATED] * 4


def test_an_outcome_too_few_reaches_all(writer: ItemWriter, watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    others = [item(f"{number}.tif") for number in range(3)]
    with _gathered(writer, watched, item("first.tif"), others) as (_, waiting):
        plain = watched._catalog.upsert_items
        monkeypatch.setattr(watched._catalog, "upsert_items", lambda *given, **named: plain(*given, **named)[:2])
        watched.free.set()
        for future in waiting:
            assert isinstance(future.exception(_PATIENCE), ValueError)


def test_an_item_that_cannot_be_written_fails_alone(writer: ItemWriter, watched: Any) -> None:
    writer.write(COLLECTION, item("1.tif"))
    path = watched.root / COLLECTION / "items" / "bronze~1.tif.json"
    path.unlink()
    path.mkdir()
    others = [item(f"{number}.tif") for number in range(3)]
    with _gathered(writer, watched, item("first.tif"), others) as (_, waiting):
        watched.free.set()
        assert _statuses([waiting[0], waiting[2]]) == ["created"] * 2
        with pytest.raises(CatalogError, match="Is a directory"):
            waiting[1].result(_PATIENCE)


def test_an_interrupted_writer_leaves_nobody_waiting(writer: ItemWriter, watched: Any) -> None:
    others = [item(f"{number}.tif") for number in range(3)]
    with _gathered(writer, watched, item("first.tif"), others) as (leading, waiting):
        held, watched.free = watched.free, threading.Event()
        held.set()
        _until(lambda: len(watched.batches) == 2)
        watched.failure = KeyboardInterrupt()
        watched.free.set()
        assert _statuses([leading]) == ["created"]
        raised = Counter(type(future.exception(_PATIENCE)) for future in waiting)
    # which of them wrote is for the threads to settle
    assert raised == {KeyboardInterrupt: 1, CatalogUnavailableError: 2}
    assert writer.write(COLLECTION, others[0]).status is ItemStatus.CREATED


def test_who_is_interrupted_while_waiting_takes_the_item_along(writer: ItemWriter, watched: Any) -> None:
    with pytest.raises(KeyboardInterrupt), writer._queued(COLLECTION, _Entry(item("gone.tif"))):
        raise KeyboardInterrupt
    writer.write(COLLECTION, item("stays.tif"))
    assert watched.batches == [["bronze~stays.tif"]]


def test_a_collection_that_cannot_be_is_refused(writer: ItemWriter) -> None:
    with pytest.raises(ParameterError, match="collection id"):
        writer.write("", item())


def test_an_item_that_is_none_is_invalid(catalog: CatalogStore) -> None:
    writer = ItemWriter(catalog)
    for broken in ({}, {"id": ["no", "text"]}, {"id": None}):
        assert writer.write(COLLECTION, broken).status is ItemStatus.INVALID
