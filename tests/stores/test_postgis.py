"""Loading tables into PostGIS: what the tables are like, and what goes wrong on the way.

What belongs here: faults 23 and 33, rights, the staging schema.  What does not: what all table stores promise
(``test_table_contract``), what hangs on a table that is replaced (``test_postgis_swap``), looking at tables
(``test_postgis_facts``).
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import cast

import psycopg
import pyarrow as pa
import pytest
import shapely
from sqlalchemy.engine import make_url

from geo_assets.errors import (
    AccessDeniedError,
    ParameterError,
    PreconditionFailedError,
    SettingsError,
    StagingLostError,
    TableDataError,
    TableError,
    TableInUseError,
    TableStoreUnavailableError,
)
from geo_assets.stores.postgis import PostgisTables
from geo_assets.stores.postgis_session import translated
from geo_assets.stores.tables import StagedTable
from geo_assets.vector.table import Column, ColumnType, GeometryColumn
from tests.stores.postgis_database import execute, postgis_database, postgis_url, role
from tests.stores.table_rows import EVERY_TYPE, contents, definition, load, points, rows_of, stage, table_load

__all__ = ["postgis_database", "postgis_url", "role"]

PLACES = definition()
WAITING = (
    "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    " and application_name = 'geo_assets tables'"
)


@pytest.fixture
def store(postgis_url: str) -> Iterator[PostgisTables]:
    """An empty store that waits for nobody long."""
    with closing(PostgisTables(postgis_url, lock_seconds=0.5)) as opened:
        yield opened


def as_role(url: str, name: str) -> str:
    return make_url(url).set(username=name).render_as_string(hide_password=False)


def names(store: PostgisTables) -> list[str]:
    return cast("list[str]", contents(store, PLACES)["name"].to_pylist())


def until(found: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- the database -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["no url at all", "mysql://host/db", "sqlite:///file.db", "postgresql://host:port/db"])
def test_a_url_of_something_else_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="GEO_ASSETS_TABLES_URL"):
        PostgisTables(url)


def test_a_database_that_is_not_there_is_tried_again() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql://loader:canary@127.0.0.1:{unused.getsockname()[1]}/gis"
        store = PostgisTables(url)
        assert store.description == "PostGIS in 127.0.0.1/gis"
        with pytest.raises(TableStoreUnavailableError, match=r"127\.0\.0\.1/gis") as caught:
            store.check_target("geo", "places", "create")
    assert "canary" not in str(caught.value)


def test_a_wrong_password_is_no_outage() -> None:
    error = psycopg.OperationalError('FATAL:  password authentication failed for user "loader"')
    assert isinstance(translated(error, "loading"), AccessDeniedError)


def test_what_a_message_tells_of_passwords_is_removed() -> None:
    error = psycopg.OperationalError("connection to postgresql://loader:canary@db/gis password=canary lost")
    assert "canary" not in str(translated(error, "loading"))


def test_postgis_is_made_where_it_may_be(postgis_url: str, role: Callable[[], str]) -> None:
    name = "plain_" + role()
    plain = make_url(postgis_url).set(database=name)
    execute(postgis_url, f"create database {name} template template0")
    try:
        denied = PostgisTables(as_role(plain.render_as_string(hide_password=False), name.removeprefix("plain_")))
        with pytest.raises(SettingsError, match="CREATE EXTENSION postgis"):
            denied.list_tables("geo")
        with closing(PostgisTables(plain.render_as_string(hide_password=False))) as store:
            load(store, PLACES, points(PLACES, 2))
            assert names(store) == ["1", "2"]
    finally:
        execute(postgis_url, f"drop database {name} with (force)")


def test_looking_makes_no_schema(store: PostgisTables, postgis_url: str) -> None:
    store.check_target("geo", "places", "create")
    assert store.record("geo", "places") is None
    assert store.sweep(older_than_seconds=0) == 0
    assert execute(postgis_url, "select from pg_namespace where nspname in ('geo', 'geo_assets')") == []


def test_eight_that_begin_at_once_share_one_staging_schema(postgis_url: str) -> None:
    stores = [PostgisTables(postgis_url) for _ in range(8)]
    barrier = threading.Barrier(8)

    def begin(number: int) -> str:
        barrier.wait()
        with closing(stores[number]) as one:
            return load(one, definition(f"t{number}"), points(PLACES, 1)).table

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(begin, range(8))) == [f"t{number}" for number in range(8)]


def test_a_staging_schema_of_a_newer_release_is_left_alone(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 1))
    execute(postgis_url, "update geo_assets_staging.version set version = 99")
    with closing(PostgisTables(postgis_url)) as other, pytest.raises(SettingsError, match="version 99"):
        other.begin(PLACES, "overwrite")


def test_two_staging_schemas_do_not_mix(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 1))
    with closing(PostgisTables(postgis_url, staging_schema='other "one"')) as other:
        version = other.check_target("geo", "places", "overwrite")
        assert version is not None
        assert version.startswith("oid:")
        assert other.record("geo", "places") is None
        load(other, PLACES, points(PLACES, 2), mode="overwrite")
    assert store.record("geo", "places") is None


def test_an_idle_connection_that_the_server_closed_is_replaced(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 1))
    execute(
        postgis_url,
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = 'geo_assets tables'"
        " and datname = current_database()",
    )
    assert store.list_tables("geo") == ["places"]


def test_a_forked_child_leaves_its_parents_connections_alone(store: PostgisTables) -> None:
    assert store.list_tables("geo") == []
    [parents] = store._sessions._connections.idle
    store._sessions._connections._owner = -1  # as a child finds it
    assert store.list_tables("geo") == []
    assert not parents.closed
    assert parents not in store._sessions._connections.idle
    parents.close()


def test_few_connections_are_kept(store: PostgisTables) -> None:
    with ExitStack() as held:
        opened = [held.enter_context(store._sessions.session("testing")) for _ in range(10)]
    assert sum(connection.closed for connection in opened) == 2
    store.close()
    assert all(connection.closed for connection in opened)


# --- the table ----------------------------------------------------------------------------------------------------


def test_a_table_is_typed_keyed_indexed_and_commented(store: PostgisTables, postgis_url: str) -> None:
    table = definition("parcels", EVERY_TYPE, geometry=GeometryColumn(type="MultiPolygon", dimensions="XYZ", srid=2056))
    load(store, table, rows_of(table, {column.name: [None, None] for column in EVERY_TYPE}, [None, None]))
    assert execute(
        postgis_url,
        "select type, srid, coord_dimension from geometry_columns where f_table_name = 'parcels'",
    ) == [("MULTIPOLYGON", 2056, 3)]
    assert execute(
        postgis_url, "select indexname from pg_indexes where schemaname = 'geo' and tablename = 'parcels' order by 1"
    ) == [("idx_parcels_geom",), ("parcels_pkey",)]
    assert execute(
        postgis_url,
        "select attname from pg_attribute where attrelid = 'geo.parcels'::regclass and attcompression = 'l'"
        " order by attnum",
    ) == [("c_text",), ("c_json",), ("c_binary",), ("geom",)]
    assert execute(
        postgis_url,
        "select pg_get_serial_sequence('geo.parcels', 'id'), reloptions, reltuples"
        " from pg_class where oid = 'geo.parcels'::regclass",
    ) == [("geo.parcels_id_seq", None, 2.0)]
    assert execute(postgis_url, "insert into geo.parcels default values returning id") == [(3,)]
    comments = execute(
        postgis_url,
        "select obj_description('geo.parcels'::regclass), col_description('geo.parcels'::regclass, 2),"
        " col_description('geo.parcels'::regclass, 9)",
    )
    assert comments == [
        (
            'Loaded by geo_assets from bronze/a/ü.gpkg, layer "places"',
            'a column of boolean: it\'s "described"\nsource: "boolean in the file"',
            'source: "text in the file"',
        )
    ]
    assert execute(postgis_url, "select count(*) from geo_assets_staging.stagings") == [(0,)]
    assert execute(postgis_url, "select tablename from pg_tables where tablename like 'load%'") == []


def test_the_staging_schema_is_nobody_elses(store: PostgisTables, postgis_url: str, role: Callable[[], str]) -> None:
    staged = stage(store, PLACES, [points(PLACES, 1)])
    other = role()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        execute(as_role(postgis_url, other), f"table geo_assets_staging.load_{staged.token}")


def test_rows_of_a_clustered_table_lie_along_a_hilbert_curve(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 500), cluster=True)
    ordered = "select array_agg(id order by geom) = array_agg(id order by ctid) from geo.places"
    assert execute(postgis_url, ordered) == [(True,)]
    load(store, PLACES, points(PLACES, 500), mode="overwrite")
    assert execute(postgis_url, ordered) == [(False,)]


def test_fault_23_a_layer_named_like_a_statement(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create schema geo; create table geo.x (id int)")
    evil = '"; drop table geo.x; --'
    columns = [Column(name=f"{evil}{number}", type=ColumnType.TEXT, source_name=evil) for number in range(3)]
    table = definition(evil, columns, schema=evil, geometry=GeometryColumn(name="'); --%s", type="Point"))
    load(store, table, rows_of(table, {one.name: [evil] for one in columns}, [shapely.Point(1, 2)]))
    assert contents(store, table)[f"{evil}1"].to_pylist() == [evil]
    assert store.describe(evil, evil).bbox == (1.0, 2.0, 1.0, 2.0)
    assert store.describe(evil, evil, exact=False).row_count == 1
    assert store.list_tables("geo") == ["x"]


@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "", "nul\0"])
def test_fault_23_a_name_that_postgresql_would_cut_off(store: PostgisTables, name: str) -> None:
    for schema, table in ((name, "places"), ("geo", name)):
        with pytest.raises(ParameterError, match="63 bytes"):
            store.check_target(schema, table, "create")
        with pytest.raises(ParameterError, match="63 bytes"):
            store.begin(definition(table, schema=schema), "create")


def test_fault_23_names_that_begin_alike_have_indexes_of_their_own(store: PostgisTables, postgis_url: str) -> None:
    for end in "abc":
        table = definition("é" * 30 + end, ())
        load(store, table, rows_of(table, {}, [shapely.Point(1, 2)]))
        load(store, table, rows_of(table, {}, [shapely.Point(1, 2)]), mode="overwrite")
    found = execute(postgis_url, "select indexname from pg_indexes where schemaname = 'geo'")
    assert len(found) == 6
    assert len(store.list_tables("geo")) == 3


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [(ColumnType.JSON, '{"a"', "json"), (ColumnType.TEXT, "nul\0", "0x00"), (ColumnType.JSON, '"\\u0000"', "Unicode")],
)
def test_a_value_that_is_refused_is_named_by_its_column(
    store: PostgisTables, kind: ColumnType, value: str, said: str
) -> None:
    columns = [Column(name=name, type=kind, source_name=name) for name in ("good", "bad one")]
    table = definition(columns=columns)
    staged = store.begin(table, "create")
    with pytest.raises(TableDataError, match="column 'bad one'") as caught:
        store.load_chunk(staged, 0, [rows_of(table, {"good": ["1"], "bad one": [value]}, [None])])
    assert said in str(caught.value)


def test_a_geometry_that_is_refused_is_named_by_its_column(store: PostgisTables) -> None:
    staged = store.begin(PLACES, "create")
    line = shapely.from_wkt("LINESTRING (0 0, 1 1)")
    for value in (line, b"nonsense"):
        with pytest.raises(TableDataError, match="column 'geom'"):
            store.load_chunk(staged, 0, [rows_of(PLACES, {"name": ["a"]}, [value])])


def test_a_row_that_no_page_holds_is_refused(store: PostgisTables) -> None:
    columns = [Column(name=f"c{number}", type=ColumnType.DOUBLE, source_name="c") for number in range(1200)]
    table = definition(columns=columns, geometry=None)
    staged = store.begin(table, "create")
    with pytest.raises(TableDataError, match="row is too big"):
        store.load_chunk(staged, 0, [rows_of(table, {one.name: [1.5] for one in columns})])


def test_rows_with_other_columns_are_refused(store: PostgisTables) -> None:
    staged = store.begin(PLACES, "create")
    with pytest.raises(TableDataError, match="other columns"):
        store.load_chunk(staged, 0, [pa.record_batch({"id": pa.array([1], pa.int64())})])


# --- fault 33: what breaks off ------------------------------------------------------------------------------------


def test_fault_33_the_connection_drops_at_half_of_a_chunk(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 1000)])

    def half() -> Iterator[pa.RecordBatch]:
        yield points(PLACES, 1000, first_id=1001)
        killed = execute(
            postgis_url,
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = current_database()"
            " and query like 'copy %%' and application_name = 'geo_assets tables' and %s",
            True,  # noqa: FBT003
        )
        assert killed == [(True,)]
        yield from (points(PLACES, 50_000, first_id=2001) for _ in range(40))

    with pytest.raises(TableStoreUnavailableError, match=r"chunk 1 of geo\.places"):
        store.load_chunk(staged, 1, half())
    with pytest.raises(TableDataError, match="missing: 1"):
        store.publish([staged], [table_load(2000)], chunks=[2])
    assert store.load_chunk(staged, 1, [points(PLACES, 1000, first_id=1001)]) == 1000
    [published] = store.publish([staged], [table_load(2000)], chunks=[2])
    assert published.rows == 2000
    assert contents(store, PLACES)["id"].to_pylist() == list(range(1, 2001))


def test_fault_33_a_reader_holds_the_table(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 3, name="old"))
    staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
    with psycopg.connect(postgis_url, application_name="the map server") as reader:
        reader.execute("select count(*) from geo.places")
        with pytest.raises(TableStoreUnavailableError, match=r"the map server.*idle in transaction.*0\.5 s"):
            store.publish([staged], [table_load(5)], chunks=[1])
    assert names(store) == ["old1", "old2", "old3"]
    store.publish([staged], [table_load(5)], chunks=[1])
    assert len(names(store)) == 5


def test_fault_33_the_connection_drops_at_the_swap(postgis_url: str) -> None:
    with closing(PostgisTables(postgis_url, lock_seconds=30)) as store:
        load(store, PLACES, points(PLACES, 3, name="old"))
        staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
        with psycopg.connect(postgis_url) as reader, ThreadPoolExecutor(1) as pool:
            reader.execute("select count(*) from geo.places")
            publishing = pool.submit(store.publish, [staged], [table_load(5)], chunks=[1])
            until(lambda: execute(postgis_url, WAITING))
            for (pid,) in execute(postgis_url, WAITING):
                execute(postgis_url, "select pg_terminate_backend(%s, 5000)", pid)
            with pytest.raises(TableStoreUnavailableError, match=r"geo\.places"):
                publishing.result()
        assert names(store) == ["old1", "old2", "old3"]
        [published] = store.publish([staged], [table_load(5)], chunks=[1])
        assert (published.rows, published.replaced) == (5, True)


def test_fault_33_a_deadlock_at_the_swap(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 3, name="old"))
    execute(postgis_url, "create view geo.seen as select name from geo.places")
    staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
    # ours is the one that looks for a deadlock, once the other has come to wait for it
    impatient = make_url(postgis_url).update_query_dict({"options": "-c deadlock_timeout=2s"})
    with (
        psycopg.connect(postgis_url, options="-c deadlock_timeout=60s") as other,
        closing(PostgisTables(impatient.render_as_string(hide_password=False), lock_seconds=30)) as ours,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("select count(*) from geo.places")
        publishing = pool.submit(ours.publish, [staged], [table_load(5)], chunks=[1])
        until(lambda: execute(postgis_url, WAITING))
        other.execute("select count(*) from geo.seen")
        with pytest.raises(TableStoreUnavailableError, match="deadlock"):
            publishing.result()
    assert names(store) == ["old1", "old2", "old3"]
    store.publish([staged], [table_load(5)], chunks=[1])
    assert execute(postgis_url, "select count(*) from geo.seen") == [(5,)]


@pytest.mark.parametrize(
    ("state", "command"), [("40001", "ALTER TABLE"), ("53100", "CREATE INDEX"), ("57014", "DROP TABLE")]
)
def test_fault_33_the_server_breaks_off_the_last_transactions(
    store: PostgisTables, postgis_url: str, state: str, command: str
) -> None:
    load(store, PLACES, points(PLACES, 3, name="old"))
    staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
    execute(
        postgis_url,
        "create schema faults; create function faults.fail() returns event_trigger language plpgsql as"
        f" $$ begin raise sqlstate '{state}'; end $$;"
        f" create event trigger fault on ddl_command_end when tag in ('{command}') execute function faults.fail()",
    )
    with pytest.raises(TableStoreUnavailableError, match=r"geo\.places"):
        store.publish([staged], [table_load(5)], chunks=[1])
    execute(postgis_url, "drop event trigger fault")
    assert names(store) == ["old1", "old2", "old3"]
    store.publish([staged], [table_load(5)], chunks=[1])
    assert len(names(store)) == 5


def test_fault_33_the_disk_is_full_at_half_of_a_chunk(store: PostgisTables, postgis_url: str) -> None:
    staged = store.begin(PLACES, "create")
    execute(
        postgis_url,
        "create schema faults; create function faults.fail() returns trigger language plpgsql as"
        " $$ begin if new.id = 500 then raise sqlstate '53100'; end if; return new; end $$;"
        f" create trigger fault before insert on geo_assets_staging.load_{staged.token} for each row"
        " execute function faults.fail()",
    )
    with pytest.raises(TableStoreUnavailableError, match="try again later"):
        store.load_chunk(staged, 0, [points(PLACES, 1000)])
    execute(postgis_url, f"drop trigger fault on geo_assets_staging.load_{staged.token}")
    assert store.load_chunk(staged, 0, [points(PLACES, 1000)]) == 1000
    assert len(execute(postgis_url, f"table geo_assets_staging.load_{staged.token}")) == 1000


def test_fault_33_a_statement_timeout_says_what_to_do(postgis_url: str) -> None:
    url = make_url(postgis_url).update_query_dict({"options": "-c statement_timeout=200"})
    with closing(PostgisTables(url.render_as_string(hide_password=False))) as store:
        staged = store.begin(PLACES, "create")

        def slow() -> Iterator[pa.RecordBatch]:
            yield points(PLACES, 1)
            time.sleep(0.5)
            yield points(PLACES, 1, first_id=2)

        with pytest.raises(TableStoreUnavailableError, match="statement_timeout"):
            store.load_chunk(staged, 0, slow())


def test_fault_33_a_serialisable_role_sees_what_is_there_when_its_turn_comes(postgis_url: str) -> None:
    url = make_url(postgis_url).update_query_dict({"options": "-c default_transaction_isolation=serializable"})
    with closing(PostgisTables(url.render_as_string(hide_password=False))) as store:
        load(store, PLACES, points(PLACES, 3))
        load(store, PLACES, points(PLACES, 2), mode="append")
        assert len(names(store)) == 5


# --- chunks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["ends", "breaks"])
def test_a_doubled_chunk_waits_for_the_first_and_counts_once(
    store: PostgisTables, postgis_url: str, first: str
) -> None:
    staged = store.begin(PLACES, "create")
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> Iterator[pa.RecordBatch]:
        yield points(PLACES, 10)
        begun.set()
        assert go_on.wait(20)
        if first == "breaks":
            raise OSError("the source is gone")

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(store.load_chunk, staged, 0, slow())
        assert begun.wait(20)
        two = pool.submit(store.load_chunk, staged, 0, [points(PLACES, 10, name="second")])
        until(lambda: execute(postgis_url, WAITING))
        go_on.set()
        if first == "breaks":
            with pytest.raises(OSError, match="the source is gone"):
                one.result()
        else:
            assert one.result() == 10
        assert two.result() == 10
    store.publish([staged], [table_load(10)], chunks=[1])
    assert names(store)[0] == ("second1" if first == "breaks" else "1")


def test_a_staging_that_is_being_loaded_is_not_swept(store: PostgisTables) -> None:
    staged = store.begin(PLACES, "create")

    def slow() -> Iterator[pa.RecordBatch]:
        yield points(PLACES, 1)
        assert store.sweep(older_than_seconds=-1) == 0

    assert store.load_chunk(staged, 0, slow()) == 1
    assert store.sweep(older_than_seconds=-1) == 1


def test_a_chunk_that_comes_between_check_and_swap_is_not_published(store: PostgisTables) -> None:
    load(store, PLACES, points(PLACES, 3, name="old"))
    staged = stage(store, PLACES, [points(PLACES, 2)], "overwrite")
    with psycopg.connect(store._sessions._dsn) as reader:
        reader.execute("select count(*) from geo.places")
        with pytest.raises(TableStoreUnavailableError):
            store.publish([staged], [table_load(2)], chunks=[1])
    store.load_chunk(staged, 1, [points(PLACES, 2, first_id=3)])
    with pytest.raises(TableDataError, match="too many: 1"):
        store.publish([staged], [table_load(2)], chunks=[1])
    assert names(store) == ["old1", "old2", "old3"]


def test_a_staging_whose_table_somebody_removed_is_lost(store: PostgisTables, postgis_url: str) -> None:
    staged = store.begin(PLACES, "create")
    execute(postgis_url, f"drop table geo_assets_staging.load_{staged.token}")
    with pytest.raises(StagingLostError, match=r"geo\.places"):
        store.load_chunk(staged, 0, [points(PLACES, 1)])


def test_a_row_that_somebody_removed_from_a_staging_is_missed(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 3)])
    execute(postgis_url, f"delete from geo_assets_staging.load_{staged.token} where id = 2")  # noqa: S608
    with pytest.raises(TableDataError, match=r"2 rows of geo\.places are there, 3 were loaded"):
        store.publish([staged], [table_load(3)], chunks=[1])


def test_what_is_asked_for_makes_sense(store: PostgisTables) -> None:
    staged = store.begin(PLACES, "create")
    with pytest.raises(ParameterError, match="numbered from 0"):
        store.load_chunk(staged, -1, [])
    other = store.begin(PLACES, "create")
    with pytest.raises(ParameterError, match="the same table"):
        store.publish([staged, other], [table_load(0), table_load(0)], chunks=[0, 0])


def test_two_publish_one_staging_at_once(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 500)])
    barrier = threading.Barrier(3)

    def publish(_: int) -> tuple[str, int]:
        with closing(PostgisTables(postgis_url)) as other:
            barrier.wait()
            [published] = other.publish([StagedTable.from_dict(staged.as_dict())], [table_load(500)], chunks=[1])
            return published.version, published.rows

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(publish, range(3))) == {(staged.token, 500)}


# --- rights -------------------------------------------------------------------------------------------------------


def test_rights_that_are_missing_are_named_before_any_work(
    store: PostgisTables, postgis_url: str, role: Callable[[], str]
) -> None:
    load(store, PLACES, points(PLACES, 1))
    name = role()
    with closing(PostgisTables(as_role(postgis_url, name))) as theirs:

        def lacks(mode: str, right: str, table: str = "places", schema: str = "geo") -> None:
            with pytest.raises(AccessDeniedError, match=f"'{name}' lacks {right}"):
                theirs.check_target(schema, table, mode)  # type: ignore[arg-type]

        lacks("create", "CREATE on the database", schema="new")
        lacks("create", "USAGE on the schema 'geo'", table="new")
        execute(postgis_url, f"grant usage on schema geo to {name}")
        lacks("create", "CREATE on the schema 'geo'", table="new")
        lacks("append", "SELECT on it")
        execute(postgis_url, f"grant select on geo.places to {name}")
        lacks("append", "INSERT on it")
        execute(postgis_url, f"grant insert, update on geo.places to {name}")
        theirs.check_target("geo", "places", "append")
        execute(postgis_url, f"grant create on schema geo to {name}")
        lacks("overwrite", "membership in the role 'postgres'")
        with pytest.raises(AccessDeniedError, match=r"permission denied.*grant"):
            theirs.begin(definition("new"), "create")
        execute(postgis_url, f"grant usage, create on schema geo_assets_staging to {name}")
        execute(postgis_url, f"grant all on all tables in schema geo_assets_staging to {name}")
        load(theirs, definition("new"), points(PLACES, 2))
        assert theirs.drop("geo", "new")


def test_a_role_with_a_schema_of_its_own_needs_no_more(postgis_url: str, role: Callable[[], str]) -> None:
    name = role()
    for schema in ("geo_assets_staging", "geo"):
        execute(postgis_url, f"create schema {schema} authorization {name}")
    with closing(PostgisTables(as_role(postgis_url, name))) as theirs:
        load(theirs, PLACES, points(PLACES, 3))
        load(theirs, PLACES, points(PLACES, 3), mode="append")
        load(theirs, PLACES, points(PLACES, 2), mode="overwrite")
        assert theirs.describe("geo", "places").row_count == 2
        assert theirs.drop("geo", "places")


def test_a_reader_may_look_without_rights_on_the_register(
    store: PostgisTables, postgis_url: str, role: Callable[[], str]
) -> None:
    load(store, PLACES, points(PLACES, 3))
    name = role()
    with closing(PostgisTables(as_role(postgis_url, name))) as theirs:
        with pytest.raises(AccessDeniedError, match="permission denied"):
            theirs.describe("geo", "places")
        execute(postgis_url, f"grant usage on schema geo to {name}; grant select on geo.places to {name}")
        facts = theirs.describe("geo", "places")
        assert (facts.row_count, facts.record) == (3, None)
        assert sum(batch.num_rows for batch in theirs.read("geo", "places")) == 3
        with pytest.raises(AccessDeniedError, match="must be owner"):
            theirs.drop("geo", "places")


# --- removing -----------------------------------------------------------------------------------------------------


def test_a_table_in_use_is_not_removed(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 1))
    execute(postgis_url, "create view geo.seen as select name from geo.places")
    with pytest.raises(TableInUseError, match=r"view geo\.seen"):
        store.drop("geo", "places")
    with pytest.raises(TableInUseError, match="no table"):
        store.drop("geo", "seen")
    with pytest.raises(TableError, match="extension"):
        store.drop("public", "spatial_ref_sys")
    execute(postgis_url, "drop view geo.seen")
    assert store.drop("geo", "places")


def test_a_table_that_somebody_replaced_is_of_another_version(store: PostgisTables, postgis_url: str) -> None:
    published = load(store, PLACES, points(PLACES, 1))
    staged = stage(store, PLACES, [points(PLACES, 1)], "overwrite")
    execute(postgis_url, "drop table geo.places; create table geo.places (id int, geom geometry(Point, 4326))")
    assert store.record("geo", "places") is None
    assert store.loaded_by("job") == []
    with pytest.raises(PreconditionFailedError, match="no longer what it was"):
        store.publish([staged], [table_load(1)], chunks=[1])
    with pytest.raises(PreconditionFailedError, match="oid:"):
        store.drop("geo", "places", versions=[published.version])
    version = store.check_target("geo", "places", "overwrite")
    assert version is not None
    assert store.drop("geo", "places", versions=[version])


# --- removing -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["insert into geo.places (name) values ('mine')", "delete from geo.places"])
def test_a_table_with_other_rows_than_were_loaded_is_not_removed(
    store: PostgisTables, postgis_url: str, statement: str
) -> None:
    published = load(store, PLACES, points(PLACES, 3))
    execute(postgis_url, statement)
    assert store.touched("geo", "places")
    with pytest.raises(PreconditionFailedError, match=r"geo\.places.*added or removed since"):
        store.drop("geo", "places", versions=[published.version])
    assert store.list_tables("geo") == ["places"]
    assert store.drop("geo", "places")
    execute(postgis_url, "create table geo.places (id int)")
    assert store.touched("geo", "places")


def test_what_keeps_a_table_from_being_removed_is_named(store: PostgisTables, postgis_url: str) -> None:
    load(store, PLACES, points(PLACES, 3))
    # these go with the table
    execute(
        postgis_url,
        "alter table geo.places add check (length(name) < 9), add parent bigint references geo.places;"
        " create policy mine on geo.places using (name <> 'x'); create statistics geo.s on id, name from geo.places;"
        " create function geo.f() returns trigger language plpgsql as 'begin return new; end';"
        " create trigger t before update on geo.places for each row when (new.name > 'x') execute function geo.f();"
        " create rule r as on delete to geo.places where old.name = 'x' do instead nothing;"
        " create sequence geo.own owned by geo.places.parent;"
        " alter table geo.places alter parent set default nextval('geo.own')",
    )
    assert store.blockers("geo", "places") == []
    depending = {
        "create view geo.v as select id from geo.places": "view geo.v",
        "create materialized view geo.m as select id from geo.places": "materialized view geo.m",
        "create table geo.roads (place bigint references geo.places)": (
            "constraint roads_place_fkey on table geo.roads"
        ),
        "create table geo.part () inherits (geo.places)": "table geo.part",
        "create table geo.typed (p geo.places)": "column p of table geo.typed",
        "create table geo.many (p geo.places[])": "column p of table geo.many",
        "create function geo.g(geo.places) returns int language sql as 'select 1'": "function geo.g(geo.places)",
        "create table geo.numbered (n bigint default nextval('geo.places_id_seq'))": (
            "default value for column n of table geo.numbered"
        ),
    }
    for statement in depending:
        execute(postgis_url, statement)
    inherited = "default value for column parent of table geo.part"
    assert store.blockers("geo", "places") == sorted([*depending.values(), inherited])
    with pytest.raises(TableInUseError, match="geo"):
        store.drop("geo", "places")
