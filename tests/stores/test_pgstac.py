"""What only pgSTAC can do or suffer: its versions, its partitions, its outages, and pystac-client as a reader.

What belongs here: the database's side.  What does not: what every catalog promises (``test_catalog_contract``).
"""

import gc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pystac_client
import pytest
from pypgstac.load import Loader

from geo_assets.errors import CatalogError, CatalogUnavailableError, SettingsError
from geo_assets.settings import Settings
from geo_assets.stac.collections import describe_collection
from geo_assets.stores.catalog import ItemStatus, open_catalog_store
from geo_assets.stores.pgstac import PgstacCatalog
from tests.stores.catalog_items import COLLECTION, item
from tests.stores.pgstac_database import pgstac_database, pgstac_url
from tests.stores.stac_api import stac_api

__all__ = ["pgstac_database", "pgstac_url"]


@pytest.fixture
def catalog(pgstac_url: str) -> Iterator[PgstacCatalog]:
    """An empty catalog."""
    store = PgstacCatalog(pgstac_url)
    yield store
    store.close()


def run(url: str, statement: str) -> None:
    with psycopg.connect(url.replace("+psycopg2", ""), autocommit=True) as connection:
        connection.execute(statement.encode())


def test_the_settings_choose_it(pgstac_url: str) -> None:
    store = open_catalog_store(Settings(catalog_url=pgstac_url))
    assert isinstance(store, PgstacCatalog)
    assert store.description.startswith("pgSTAC in 127.0.0.1/")
    store.close()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "not a url", "mysql://u:p@h/d"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="GEO_ASSETS_CATALOG_URL"):
        PgstacCatalog(url)


def test_a_database_that_is_away_is_a_transient_error_without_the_password() -> None:
    with pytest.raises(CatalogUnavailableError, match="cannot be reached") as caught:
        PgstacCatalog("postgresql://somebody:canary-secret@127.0.0.1:1/none")
    assert "canary-secret" not in str(caught.value)


def test_an_empty_database_is_migrated_by_whoever_comes_first(postgres_url: str) -> None:
    with ThreadPoolExecutor(3) as pool:
        stores = list(pool.map(lambda _: PgstacCatalog(postgres_url), range(3)))
    stores[0].upsert_items(COLLECTION, [item()])
    assert stores[1].count_items(COLLECTION) == 1
    for store in stores:
        store.close()


def test_a_newer_pgstac_is_refused(postgres_url: str) -> None:
    PgstacCatalog(postgres_url).close()
    run(postgres_url, "insert into pgstac.migrations (version, datetime) values ('99.0.0', now() + '1 day')")
    with pytest.raises(CatalogError, match=r"99\.0\.0, newer than ours"):
        PgstacCatalog(postgres_url)


def test_a_catalog_that_nobody_holds_closes_its_connections(pgstac_url: str) -> None:
    catalog = PgstacCatalog(pgstac_url)
    assert catalog.count_items("none") == 0
    (connection,) = catalog._connections.idle
    del catalog
    gc.collect()
    assert connection.closed


def test_a_connection_that_was_cut_is_replaced(catalog: PgstacCatalog, pgstac_url: str) -> None:
    catalog.upsert_items(COLLECTION, [item()])
    run(
        pgstac_url,
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like 'geo_assets%'",
    )
    with pytest.raises(CatalogUnavailableError):
        catalog.count_items(COLLECTION)
    assert catalog.count_items(COLLECTION) == 1


def test_a_load_that_loses_items_is_detected(catalog: PgstacCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Loader.load_items

    def lossy(self: Loader, items: Any, *arguments: Any, **named: Any) -> None:
        plain(self, iter(list(items)[1:]), *arguments, **named)

    monkeypatch.setattr(Loader, "load_items", lossy)
    with pytest.raises(CatalogError, match="holds 1 of the 2 items just written"):
        catalog.upsert_items(COLLECTION, [item("1.tif"), item("2.tif")])


def test_an_item_that_changes_its_month_moves_partitions(catalog: PgstacCatalog, pgstac_url: str) -> None:
    catalog.ensure_collection(describe_collection(COLLECTION))
    run(pgstac_url, "update pgstac.collections set partition_trunc = 'month'")
    catalog.upsert_items(COLLECTION, [item()])
    moved = item(datetime="2021-07-01T00:00:00Z")
    [outcome] = catalog.upsert_items(COLLECTION, [moved])
    assert outcome.status is ItemStatus.UPDATED
    assert catalog.count_items(COLLECTION) == 1


def test_an_upsert_that_breaks_leaves_the_lock_free(catalog: PgstacCatalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Loader, *arguments: Any, **named: Any) -> None:
        raise psycopg.errors.CheckViolation("made up")

    with monkeypatch.context() as patched:
        patched.setattr(Loader, "load_items", fail)
        with pytest.raises(CatalogError, match="made up"):
            catalog.upsert_items(COLLECTION, [item()])
    [outcome] = catalog.upsert_items(COLLECTION, [item()])
    assert outcome.status is ItemStatus.CREATED


def test_unchanged_rows_are_not_touched(catalog: PgstacCatalog, pgstac_url: str) -> None:
    def row_version() -> Any:
        with psycopg.connect(pgstac_url.replace("+psycopg2", "")) as connection:
            return connection.execute("select xmin::text, ctid::text from pgstac.items").fetchone()

    catalog.upsert_items(COLLECTION, [item()])
    before = row_version()
    catalog.upsert_items(COLLECTION, [item(updated="2030-01-01T00:00:00Z")])
    assert row_version() == before


@pytest.mark.parametrize("trunc", ["null", "'month'"])
def test_single_writes_are_found_at_once_and_counted_at_the_refresh(
    catalog: PgstacCatalog, pgstac_url: str, trunc: str
) -> None:
    def ask(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(pgstac_url.replace("+psycopg2", ""), options="-c search_path=pgstac,public") as connection:
            return connection.execute(statement.encode()).fetchall()

    def counted() -> list[tuple[Any, ...]]:
        """The times pgSTAC holds partitions to, and those it saw in them."""
        return ask(
            "select extract(year from lower(dtrange))::int, extract(year from upper(dtrange))::int,"
            " dtrange = constraint_dtrange from partitions_view where collection = 'cogs' order by 1"
        )

    catalog.ensure_collection(describe_collection(COLLECTION))
    run(pgstac_url, f"update pgstac.collections set partition_trunc = {trunc}")  # noqa: S608 - from above
    catalog.upsert_items(COLLECTION, [item()])
    assert counted() == [(2020, 2020, True)]
    for number, year in enumerate((1999, 2020, 2031, 2024)):
        [outcome] = catalog.upsert_items(
            COLLECTION, [item(f"{number}.tif", datetime=f"{year}-01-05T00:00:00Z")], refresh=False
        )
        assert outcome.status is ItemStatus.CREATED
        [(found,)] = ask(
            "select search(jsonb_build_object('collections', jsonb_build_array('cogs'),"
            f" 'datetime', '{year}-01-05T00:00:00Z/{year}-01-06T00:00:00Z'))"
        )
        assert [feature["id"] for feature in found["features"]] == [f"bronze~{number}.tif"]
    assert ask("select count(*) from query_queue") != [(0,)]
    catalog.refresh_collection(COLLECTION)
    years = [(1999, 1999), (2020, 2020), (2024, 2024), (2031, 2031)]
    assert counted() == [(*pair, True) for pair in (years if "month" in trunc else [(1999, 2031)])]
    assert ask("select count(*) from query_queue") == [(0,)]
    assert ask("select error from query_queue_history where error is not null") == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the server's own, on this Python
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stac_client_reads_it_through_an_api(
    catalog: PgstacCatalog, pgstac_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [item(f"{number}.tif", bbox=[number, 0.0, number + 0.5, 0.5]) for number in range(12)]
    catalog.upsert_items(COLLECTION, written)
    with stac_api(pgstac_url, monkeypatch) as address:
        client = pystac_client.Client.open(address)
        found = {entry.id: entry for entry in client.search(collections=[COLLECTION], limit=5).items()}
        assert set(found) == {entry["id"] for entry in written}
        for entry in found.values():
            entry.validate()
        box = client.search(bbox=[2.6, 0.0, 3.2, 1.0], datetime="2020-01-01/2020-12-31")
        assert [entry.id for entry in box.items()] == ["bronze~3.tif"]
        collection = client.get_collection(COLLECTION)
        assert collection is not None
        assert collection.extent.spatial.bboxes == [[0.0, 0.0, 11.5, 0.5]]
        one = collection.get_item("bronze~7.tif")
        assert one is not None
        assert one.assets["data"].href == "https://example.org/bronze/7.tif"
