"""Replacing a table in PostGIS that others use, and adding to one: what survives, and what is refused beforehand.

What belongs here: fault 34, grants, comments, views, indexes, default rights, appending to tables of any kind.  What
does not: what breaks off on the way (``test_postgis``), what all stores promise (``test_table_contract``).
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal

import psycopg
import pytest
from sqlalchemy.engine import make_url

from geo_assets.errors import (
    AccessDeniedError,
    TableDataError,
    TableInUseError,
    TableSchemaError,
    TableStoreUnavailableError,
)
from geo_assets.stores.postgis import PostgisTables
from geo_assets.vector.table import Column, ColumnType, GeometryColumn
from tests.stores.postgis_database import execute, postgis_database, postgis_url, role
from tests.stores.table_rows import contents, definition, load, points, rows_of, stage, table_load

__all__ = ["postgis_database", "postgis_url", "role"]

PLACES = definition()
NUMBERED = definition(columns=[Column(name="name", type=ColumnType.INTEGER, source_name="name")])
UNNAMED = definition(columns=[Column(name="height", type=ColumnType.DOUBLE, source_name="h")])
GRANTS = (
    "select coalesce(a.attname, ''), e.grantee::regrole::text, e.privilege_type, e.is_grantable from ("
    " select null::name attname, (aclexplode(relacl)).* from pg_class where oid = %(name)s::regclass union all"
    " select attname, (aclexplode(attacl)).* from pg_attribute where attrelid = %(name)s::regclass) a"
    "(attname, grantor, grantee, privilege_type, is_grantable), lateral (select a.*) e"
    " where e.grantee <> (select relowner from pg_class where oid = %(name)s::regclass) order by 1, 2, 3"
)


@pytest.fixture
def store(postgis_url: str) -> Iterator[PostgisTables]:
    """A store with one table of three rows."""
    with closing(PostgisTables(postgis_url, lock_seconds=5)) as opened:
        load(opened, PLACES, points(PLACES, 3, name="old"))
        yield opened


def grants(url: str, name: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(GRANTS, {"name": name}).fetchall()


def replace_it(store: PostgisTables, rows: int = 5) -> None:
    load(store, PLACES, points(PLACES, rows, name="new"), mode="overwrite")


def is_old(url: str) -> bool:
    return execute(url, "select string_agg(name, ' ' order by id) from geo.places") == [("old1 old2 old3",)]


# --- what survives ----------------------------------------------------------------------------------------------


def test_fault_34_grants_and_owner_are_kept(store: PostgisTables, postgis_url: str, role: Callable[[], str]) -> None:
    owner, reader, editor = role(), role(), role()
    execute(
        postgis_url,
        f"grant all on schema geo to {owner}; alter table geo.places owner to {owner};"
        f" grant select on geo.places to {reader} with grant option; grant select on geo.places to public;"
        f" grant insert, update (name, geom) on geo.places to {editor};"
        f" grant select (id) on geo.places to {editor}",
    )
    before = grants(postgis_url, "geo.places")
    assert len(before) == 6
    replace_it(store)
    assert grants(postgis_url, "geo.places") == before
    assert execute(postgis_url, "select relowner::regrole::text from pg_class where oid = 'geo.places'::regclass") == [
        (owner,)
    ]
    as_reader = make_url(postgis_url).set(username=reader).render_as_string(hide_password=False)
    execute(postgis_url, f"grant usage on schema geo to {reader}")
    assert execute(as_reader, "select count(*) from geo.places") == [(5,)]
    # rights on columns that go, go with them
    load(store, UNNAMED, rows_of(UNNAMED, {"height": [1.5]}, [None]), mode="overwrite")
    assert grants(postgis_url, "geo.places") == [grant for grant in before if grant[0] != "name"]


def test_fault_34_nested_views_are_kept(store: PostgisTables, postgis_url: str, role: Callable[[], str]) -> None:
    owner, reader = role(), role()
    execute(
        postgis_url,
        "create schema maps; create table maps.other (name text, rank int);"  # noqa: S608
        " create view maps.named with (security_barrier, check_option = local) as"
        " select id, upper(name) label, geom from geo.places where id > 0;"
        ' create view maps."Top ""one""" as select label from maps.named where label like \'%1%\' limit 10;'
        " create view geo.joined as select n.label, t.label top, o.rank, p.geom from maps.named n"
        ' join maps."Top ""one""" t using (label) left join maps.other o on o.name = n.label'
        " join geo.places p on p.id = n.id;"
        f" grant all on schema maps to {owner}; alter view maps.named owner to {owner};"
        f" grant select on geo.places to {owner}; grant usage on schema geo to {owner};"
        f" grant select on maps.named to {reader}; grant select (label) on geo.joined to {reader};"
        " comment on view maps.named is 'Names of places'; comment on column maps.named.label is 'In capitals'",
    )
    state = (
        "select c.oid::regclass::text, c.relowner::regrole::text, c.reloptions::text, pg_get_viewdef(c.oid),"
        " obj_description(c.oid), col_description(c.oid, 2) from pg_class c where c.relkind = 'v'"
        " and c.relnamespace in ('maps'::regnamespace, 'geo'::regnamespace) order by 1"
    )
    before = execute(postgis_url, state)
    rights = [grants(postgis_url, name) for name in ("maps.named", "geo.joined")]
    assert len(before) == 3
    replace_it(store)
    assert execute(postgis_url, state) == before
    assert [grants(postgis_url, name) for name in ("maps.named", "geo.joined")] == rights
    assert execute(postgis_url, "select label, top from geo.joined") == [("NEW1", "NEW1")]


def test_comments_that_people_made_are_kept(store: PostgisTables, postgis_url: str) -> None:
    comments = (
        "select obj_description('geo.places'::regclass), col_description('geo.places'::regclass, 2),"
        " col_description('geo.places'::regclass, 3)"
    )
    ours = execute(postgis_url, comments)
    execute(postgis_url, "comment on column geo.places.geom is 'Where it is'")
    load(
        store,
        definition(columns=[Column(name="name", type=ColumnType.TEXT, source_name="Other")]),
        points(PLACES, 1),
        mode="overwrite",
    )
    assert execute(postgis_url, comments) == [(ours[0][0], 'source: "Other"', "Where it is")]
    execute(
        postgis_url,
        "comment on table geo.places is 'All places'; comment on column geo.places.name is 'What it is called'",
    )
    replace_it(store)
    replace_it(store)
    assert execute(postgis_url, comments) == [("All places", "What it is called", "Where it is")]
    assert store.describe("geo", "places").description == "All places"


def test_indexes_and_options_that_people_made_are_kept(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "create index by_name on geo.places (name) include (id);"
        ' create unique index "Odd ""one""" on geo.places (lower(name), id desc) where id > 1;'
        " create index on geo.places using spgist (geom); alter index geo.idx_places_geom rename to its_geometry;"
        " alter table geo.places set (fillfactor = 70)",
    )
    state = (
        "select pg_get_indexdef(i.indexrelid), c.reloptions::text from pg_index i join pg_class c on c.oid = i.indrelid"
        " where c.oid = 'geo.places'::regclass order by 1"
    )
    before = execute(postgis_url, state)
    assert len(before) == 5
    replace_it(store)
    replace_it(store)
    assert execute(postgis_url, state) == before


def test_an_index_that_came_after_the_check_is_kept(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 4)], "overwrite")
    with closing(PostgisTables(postgis_url, lock_seconds=0.2)) as hasty, psycopg.connect(postgis_url) as reader:
        reader.execute("select from geo.places")
        with pytest.raises(TableStoreUnavailableError, match="held it"):
            hasty.publish([staged], [table_load(4)], chunks=[1])
    execute(postgis_url, "create index late on geo.places (name)")
    store.publish([staged], [table_load(4)], chunks=[1])
    assert execute(postgis_url, "select from pg_indexes where indexname = 'late'") == [()]


def test_a_unique_index_that_the_rows_break_refuses_them(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create unique index on geo.places (name)")
    staged = stage(store, PLACES, [rows_of(PLACES, {"name": ["a", "a"]}, [None, None])], "overwrite")
    with pytest.raises(TableDataError, match="unique"):
        store.publish([staged], [table_load(2)], chunks=[1])
    assert is_old(postgis_url)


def test_readers_of_table_and_view_see_the_old_or_the_new(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create view geo.seen as select id, name from geo.places")
    over = threading.Event()

    def look(query: str) -> set[tuple[object, ...]]:
        seen = set()
        with psycopg.connect(postgis_url, autocommit=True) as connection:
            while not over.is_set():
                seen.update(connection.execute(query.encode()).fetchall())
        return seen

    with ThreadPoolExecutor(2) as pool:
        looking = [
            pool.submit(look, f"select count(*), count(distinct left(name, 3)) from geo.{name}")  # noqa: S608
            for name in ("places", "seen")
        ]
        try:
            for _ in range(10):
                replace_it(store, 700)
        finally:
            over.set()
        for future in looking:
            assert future.result() <= {(3, 1), (700, 1)}
            assert (700, 1) in future.result()


# --- what is refused beforehand ---------------------------------------------------------------------------------

OBSTACLES = {
    "foreign key": ("create table geo.visits (place bigint references geo.places)", "constraint visits_place_fkey"),
    "materialized view": (
        "create materialized view geo.kept as select * from geo.places",
        "materialized view geo.kept",
    ),
    "materialized view on a view": (
        "create view geo.seen as select * from geo.places; create materialized view geo.kept as select * from geo.seen",
        "materialized view geo.kept",
    ),
    "trigger": (
        (
            "create trigger watch before insert on geo.places for each row"
            " execute function suppress_redundant_updates_trigger()"
        ),
        "trigger watch",
    ),
    "trigger on a view": (
        (
            "create view geo.seen as select * from geo.places;"
            " create function geo.f() returns trigger language plpgsql as 'begin return null; end';"
            " create trigger watch instead of insert on geo.seen for each row"
            " execute function geo.f()"
        ),
        "trigger watch",
    ),
    "default on a view": (
        "create view geo.seen as select * from geo.places; alter view geo.seen alter column name set default 'x'",
        "default value",
    ),
    "default": ("alter table geo.places alter name set default 'x'", "default value for column name"),
    "column": ("alter table geo.places add mine text, add shape geometry", "columns.*added.*mine, shape"),
    "numbers used elsewhere": (
        "create table geo.others (n bigint default nextval('geo.places_id_seq'))",
        "default value for column n of table geo.others",
    ),
    "comment on an index": ("comment on index geo.places_pkey is 'mine'", "comment on index geo.places_pkey"),
    "comment on a constraint": (
        "comment on constraint places_pkey on geo.places is 'mine'",
        "comment on constraint places_pkey",
    ),
    "statistics target": ("alter table geo.places alter name set statistics 900", "statistics options of column name"),
    "statistics options": (
        "alter table geo.places alter name set (n_distinct = 5)",
        "statistics options of column name",
    ),
    "cluster": ("cluster geo.places using places_pkey", "CLUSTER on index geo.places_pkey"),
    "unlogged": ("alter table geo.places set unlogged", "unlogged"),
    "replica identity": ("alter table geo.places replica identity full", "replica identity"),
    "toast": ("alter table geo.places set (toast.autovacuum_enabled = false)", "TOAST"),
    "rule": ("create rule quiet as on delete to geo.places do instead nothing", "rule quiet"),
    "policy": ("create policy mine on geo.places using (id > 1)", "policy mine"),
    "row security": ("alter table geo.places enable row level security", "row security"),
    "parent": ("create table geo.more () inherits (geo.places)", "table geo.more"),
    "child": ("create table geo.every (name text); alter table geo.places inherit geo.every", "table geo.every"),
    "publication": ("create publication changes for table geo.places", "publication"),
    "check": ("alter table geo.places add constraint high check (id < 99)", "constraint high"),
    "unique": ("alter table geo.places add constraint alone unique (name)", "constraint alone"),
    "foreign key of its own": (
        (
            "create table geo.n (name text primary key); insert into geo.n select name from geo.places;"
            " alter table geo.places add constraint known foreign key (name) references geo.n"
        ),
        "constraint known",
    ),
    "statistics": ("create statistics geo.s on id, name from geo.places", "statistics object geo.s"),
    "function": ("create function geo.f(geo.places) returns int language sql as 'select 1'", r"function geo\.f"),
    "column of its type": ("create table geo.copies (one geo.places)", "table geo.copies"),
    "function with a body": (
        "create function geo.n() returns bigint begin atomic select count(*) from geo.places; end",
        r"function geo\.n",
    ),
}


@pytest.mark.parametrize("kind", OBSTACLES)
def test_fault_34_what_would_be_lost_is_named_before_any_work(
    store: PostgisTables, postgis_url: str, kind: str
) -> None:
    staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
    statements, named = OBSTACLES[kind]
    with psycopg.connect(postgis_url, autocommit=True) as connection:
        connection.execute("set client_min_messages to error")  # publications want another wal_level
        connection.execute(statements.encode())
    for refused in (
        lambda: store.check_target("geo", "places", "overwrite"),
        lambda: store.begin(PLACES, "overwrite"),
        lambda: store.publish([staged], [table_load(5)], chunks=[1]),
    ):
        with pytest.raises(TableInUseError, match=named) as caught:
            refused()
        assert "geo.places" in str(caught.value)
    assert is_old(postgis_url)


def test_not_null_and_rights_on_the_numbers_are_kept(
    store: PostgisTables, postgis_url: str, role: Callable[..., str]
) -> None:
    reader = role()
    execute(
        postgis_url,
        "alter table geo.places alter name set not null;"
        f' grant usage on geo.places_id_seq to "{reader}"; grant select on geo.places_id_seq to public',
    )
    replace_it(store)
    assert grants(postgis_url, "geo.places_id_seq") == [
        ("", "-", "SELECT", False),
        ("", reader, "USAGE", False),
    ]
    with psycopg.connect(postgis_url) as connection, pytest.raises(psycopg.errors.NotNullViolation):
        connection.execute("insert into geo.places (name) values (null)")
    nulls = rows_of(PLACES, {"name": [None]}, [None])
    with pytest.raises(TableInUseError, match=r"'name' of geo\.places is NOT NULL"):
        load(store, PLACES, nulls, mode="overwrite")
    assert execute(postgis_url, "select count(*) from geo.places") == [(5,)]
    load(store, UNNAMED, rows_of(UNNAMED, {"height": [None]}, [None]), mode="overwrite")


def test_a_numbered_table_of_others_is_replaced(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create table geo.theirs (gid serial primary key, name text, shape geometry)")
    load(store, definition("theirs"), points(PLACES, 2), mode="overwrite")
    assert execute(postgis_url, "insert into geo.theirs default values returning id") == [(3,)]


def test_fault_34_a_view_of_another_session_only(store: PostgisTables, postgis_url: str) -> None:
    with psycopg.connect(postgis_url, autocommit=True) as other:
        other.execute("create temporary view mine as select * from geo.places")
        with pytest.raises(TableInUseError, match="view"):
            store.check_target("geo", "places", "overwrite")
    replace_it(store)


@pytest.mark.parametrize(
    ("made", "named"),
    [
        ("create view geo.odd as select 1 id", "a view"),
        ("create materialized view geo.odd as select 1 id", "a materialized view"),
        ("create table geo.odd (id int) partition by range (id)", "a partitioned table"),
        ("create sequence geo.odd", "a sequence"),
    ],
)
def test_fault_34_only_tables_are_replaced(store: PostgisTables, postgis_url: str, made: str, named: str) -> None:
    execute(postgis_url, made)
    with pytest.raises(TableInUseError, match=rf"geo\.odd is {named}"):
        store.check_target("geo", "odd", "overwrite")


def test_a_table_of_an_extension_is_not_replaced(store: PostgisTables) -> None:
    with pytest.raises(TableInUseError, match="extension postgis"):
        store.check_target("public", "spatial_ref_sys", "overwrite")


def test_fault_34_a_view_of_a_column_that_goes(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, UNNAMED, [rows_of(UNNAMED, {"height": [1.0]}, [None])], "overwrite")
    execute(postgis_url, "create view geo.seen as select upper(name) label from geo.places")
    store.check_target("geo", "places", "overwrite")
    for refused in (
        lambda: store.begin(UNNAMED, "overwrite"),
        lambda: store.publish([staged], [table_load(1)], chunks=[1]),
    ):
        with pytest.raises(TableInUseError, match=r"view geo\.seen uses the column 'name'"):
            refused()
    assert is_old(postgis_url)
    assert len(execute(postgis_url, "table geo.seen")) == 3


def test_fault_34_a_view_that_does_not_take_the_new_type(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create view geo.seen as select upper(name) label from geo.places")
    staged = stage(store, NUMBERED, [rows_of(NUMBERED, {"name": [7]}, [None])], "overwrite")
    with pytest.raises(TableInUseError, match=r"view geo\.seen cannot be made.*upper\(integer\)"):
        store.publish([staged], [table_load(1)], chunks=[1])
    assert is_old(postgis_url)
    assert execute(postgis_url, "select label from geo.seen limit 1") == [("OLD1",)]


def test_fault_34_an_index_of_a_column_that_goes(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create index by_name on geo.places (lower(name))")
    with pytest.raises(TableInUseError, match="index by_name is on the column 'name'"):
        store.begin(UNNAMED, "overwrite")
    staged = stage(store, NUMBERED, [rows_of(NUMBERED, {"name": [7]}, [None])], "overwrite")
    with pytest.raises(TableInUseError, match=r"index by_name cannot be made.*lower\(integer\)"):
        store.publish([staged], [table_load(1)], chunks=[1])
    assert is_old(postgis_url)


def test_a_table_may_lose_its_geometry_or_call_it_otherwise(store: PostgisTables, postgis_url: str) -> None:
    other = definition(geometry=GeometryColumn(name="shape", type="MultiPolygon", srid=2056))
    load(store, other, rows_of(other, {"name": ["a"]}, [None]), mode="overwrite")
    bare = definition(geometry=None)
    load(store, bare, rows_of(bare, {"name": ["a"]}), mode="overwrite")
    assert execute(postgis_url, "select indexname from pg_indexes where schemaname = 'geo'") == [("places_pkey",)]


def test_a_view_of_another_owner_takes_membership(
    store: PostgisTables, postgis_url: str, role: Callable[[], str]
) -> None:
    loader, other = role(), role()
    execute(
        postgis_url,
        f"grant all on schema geo to {loader}, {other}; alter table geo.places owner to {loader};"  # noqa: S608
        f" create view geo.seen as select name from geo.places; alter view geo.seen owner to {other};"
        f" grant all on schema geo_assets_staging to {loader};"
        f" grant all on all tables in schema geo_assets_staging to {loader};"
        f" grant select on geo.places to {other}",
    )
    url = make_url(postgis_url).set(username=loader).render_as_string(hide_password=False)
    with closing(PostgisTables(url)) as theirs:
        with pytest.raises(AccessDeniedError, match=rf"view geo\.seen .*'{other}'"):
            theirs.check_target("geo", "places", "overwrite")
        execute(postgis_url, f"grant {other} to {loader}")
        execute(postgis_url, f"revoke create on schema geo from {other}")
        with pytest.raises(AccessDeniedError, match=r"view geo\.seen .*CREATE on the view's schema"):
            theirs.begin(PLACES, "overwrite")
        assert is_old(postgis_url)
        execute(postgis_url, f"grant create on schema geo to {other}")
        replace_it(theirs)
        assert len(execute(postgis_url, "table geo.seen")) == 5


def test_fault_34_a_view_that_comes_at_this_moment(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 5)], "overwrite")
    with psycopg.connect(postgis_url) as other, ThreadPoolExecutor(1) as pool:
        other.execute("select from geo.places")
        publishing = pool.submit(store.publish, [staged], [table_load(5)], chunks=[1])
        while not execute(postgis_url, "select from pg_locks where not granted and relation = 'geo.places'::regclass"):
            assert not publishing.done()
        other.execute("create view geo.seen as select name from geo.places")
        other.commit()
        with pytest.raises(TableStoreUnavailableError, match=r"views on geo\.places are being changed"):
            publishing.result()
    assert is_old(postgis_url)
    store.publish([staged], [table_load(5)], chunks=[1])
    assert len(execute(postgis_url, "table geo.seen")) == 5


def test_an_index_that_went_after_the_check_is_not_made(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create index by_name on geo.places (name)")
    staged = stage(store, PLACES, [points(PLACES, 4)], "overwrite")
    with closing(PostgisTables(postgis_url, lock_seconds=0.2)) as hasty, psycopg.connect(postgis_url) as reader:
        reader.execute("select from geo.places")
        with pytest.raises(TableStoreUnavailableError, match="held it"):
            hasty.publish([staged], [table_load(4)], chunks=[1])
    execute(postgis_url, "drop index geo.by_name")
    store.publish([staged], [table_load(4)], chunks=[1])
    assert execute(postgis_url, "select indexname from pg_indexes where schemaname = 'geo' order by 1") == [
        ("idx_places_geom",),
        ("places_pkey",),
    ]


# --- default rights ---------------------------------------------------------------------------------------------


def test_new_tables_have_the_default_rights_of_their_schema(
    store: PostgisTables, postgis_url: str, role: Callable[[], str]
) -> None:
    reader, other = role(), role()
    execute(
        postgis_url,
        f"alter default privileges in schema geo grant select on tables to {reader} with grant option;"
        f" alter default privileges for role {other} in schema geo grant all on tables to {other}",
    )
    try:
        load(store, definition("fresh"), points(PLACES, 1))
        assert grants(postgis_url, "geo.fresh") == [("", reader, "SELECT", True)]
        replace_it(store)
        assert grants(postgis_url, "geo.places") == []
        execute(postgis_url, "create view geo.seen as select name from geo.places; revoke all on geo.seen from public")
        execute(postgis_url, f"revoke all on geo.seen from {reader}")
        replace_it(store)
        assert grants(postgis_url, "geo.seen") == []
    finally:
        execute(postgis_url, f"alter default privileges in schema geo revoke all on tables from {reader}")


def test_rights_that_all_new_tables_get_are_not_given_to_one_that_was_kept_from_them(
    store: PostgisTables, postgis_url: str, role: Callable[[], str]
) -> None:
    reader = role()
    execute(postgis_url, f"alter default privileges grant select on tables to {reader}")
    try:
        replace_it(store)
        assert grants(postgis_url, "geo.places") == []
        load(store, definition("fresh"), points(PLACES, 1))
        assert grants(postgis_url, "geo.fresh") == [("", reader, "SELECT", False)]
    finally:
        execute(postgis_url, f"alter default privileges revoke select on tables from {reader}")  # noqa: S608


# --- appending --------------------------------------------------------------------------------------------------


def test_rows_are_added_to_a_table_that_people_extended(store: PostgisTables, postgis_url: str) -> None:
    execute(
        postgis_url,
        "alter table geo.places add column note text, add column seen timestamptz default now(),"
        " add column twice bigint generated always as (id * 2) stored;"
        " create materialized view geo.kept as select * from geo.places; insert into geo.places (name) values ('mine')",
    )
    load(store, PLACES, points(PLACES, 2), mode="append")
    assert execute(
        postgis_url, "select id, name, note, seen is null, twice from geo.places where id > 3 order by id"
    ) == [
        (4, "mine", None, False, 8),
        (5, "1", None, False, 10),
        (6, "2", None, False, 12),
    ]
    assert execute(postgis_url, "insert into geo.places (name) values ('next') returning id") == [(7,)]
    execute(
        postgis_url,
        "alter table geo.places add column must int; update geo.places set must = 1;"
        " alter table geo.places alter column must set not null",
    )
    with pytest.raises(TableSchemaError, match="column 'must' is not in the rows"):
        store.begin(PLACES, "append")


def test_ids_go_on_after_those_that_people_gave(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "insert into geo.places (id, name) values (100, 'mine')")
    load(store, PLACES, points(PLACES, 2), mode="append")
    assert contents(store, PLACES)["id"].to_pylist() == [1, 2, 3, 100, 101, 102]
    assert execute(postgis_url, "insert into geo.places default values returning id") == [(103,)]


@pytest.mark.parametrize(
    ("columns", "ids"),
    [
        ("id serial primary key, name varchar, geom geometry(Point, 4326)", [1, 2, 3]),
        ("id int generated always as identity, name text, geom geometry(Geometry, 4326)", [1, 2, 3]),
        ("id smallint primary key, geom geometry(Point, 4326), name text", [8, 9, 10]),
        ("gid serial primary key, name text, geom geometry(Point, 4326)", None),
        ("id uuid default gen_random_uuid(), name text, geom geometry(Point, 4326)", None),
    ],
)
def test_rows_are_added_to_tables_of_others(
    store: PostgisTables, postgis_url: str, columns: str, ids: list[int] | None
) -> None:
    execute(postgis_url, f"create table geo.theirs ({columns})")
    if ids == [8, 9, 10]:
        execute(postgis_url, "insert into geo.theirs (id) values (7)")
    table = definition("theirs")
    first = load(store, table, points(table, 2), mode="append")
    load(store, table, points(table, 1, name="last"), mode="append")
    assert (first.replaced, first.rows_loaded) == (True, 2)
    rows = execute(postgis_url, "select * from geo.theirs where name is not null order by 1")
    assert len(rows) == 3
    if ids is not None:
        assert [row[0] for row in rows] == ids


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("id int, name text", "geometry 'geom' is not in the table"),
        ("id int, name text, geom geometry", r"'geom' is geometry in the table, geometry\(Point,4326\) in the rows"),
        ("id int, name text, geom geometry(PolygonZ, 4326)", "PolygonZ"),
        ("id int, name text, geom geography(Point, 4326)", "geography"),
        ("id int, name varchar(5), geom geometry(Point, 4326)", r"'name' is character varying\(5\)"),
        ("id text, name text, geom geometry(Point, 4326)", "'id' is text and takes no numbers"),
        ("id int, name text, size int, geom geometry(Point, 4326)", "'size' is not in the rows"),
        ("id int, geom geometry(Point, 4326)", "'name' is not in the table"),
        ("id int, n text, name text generated always as (n) stored, geom geometry(Point, 4326)", "computed"),
    ],
)
def test_tables_of_others_that_do_not_take_the_rows(
    store: PostgisTables, postgis_url: str, columns: str, said: str
) -> None:
    execute(postgis_url, f"create table geo.theirs ({columns})")
    with pytest.raises(TableSchemaError, match=said):
        store.begin(definition("theirs"), "append")


def test_numbers_of_a_table_of_others_are_checked_when_they_join_it(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "create table geo.theirs (id int, name numeric(5, 1), geom geometry)")
    rows = definition("theirs", NUMBERED.columns, geometry=GeometryColumn(type="Point", srid=0))
    staged = store.begin(rows, "append")
    [column] = staged.definition.columns
    assert (column.type, column.scale) == (ColumnType.NUMERIC, 1)
    batch = rows_of(staged.definition, {"name": [Decimal(1), Decimal(10_000)]}, [None, None])
    store.load_chunk(staged, 0, [batch])
    with pytest.raises(TableDataError, match="numeric field overflow"):
        store.publish([staged], [table_load(2)], chunks=[1])
    assert execute(postgis_url, "select count(*) from geo.theirs") == [(0,)]


def test_a_table_that_changed_between_begin_and_publish(store: PostgisTables, postgis_url: str) -> None:
    staged = stage(store, PLACES, [points(PLACES, 2)], "append")
    execute(postgis_url, "alter table geo.places rename column name to label")
    with pytest.raises(TableSchemaError, match="'name' is not in the table"):
        store.publish([staged], [table_load(2)], chunks=[1])
    assert execute(postgis_url, "select count(*) from geo.places") == [(3,)]


def test_a_constraint_that_the_rows_break_adds_none_of_them(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "alter table geo.places add constraint short check (length(name) < 5)")
    staged = stage(store, PLACES, [points(PLACES, 12), points(PLACES, 1, first_id=13, name="too long")], "append")
    with pytest.raises(TableDataError, match="short"):
        store.publish([staged], [table_load(13)], chunks=[2])
    assert execute(postgis_url, "select count(*) from geo.places") == [(3,)]


def test_a_value_that_people_made_necessary_is_named(store: PostgisTables, postgis_url: str) -> None:
    execute(postgis_url, "alter table geo.places alter column name set not null")
    staged = stage(store, PLACES, [rows_of(PLACES, {"name": [None]}, [None])], "append")
    with pytest.raises(TableDataError, match="column 'name'"):
        store.publish([staged], [table_load(1)], chunks=[1])


def test_readers_do_not_wait_while_rows_are_added(store: PostgisTables, postgis_url: str) -> None:
    with psycopg.connect(postgis_url) as reader:
        assert reader.execute("select count(*) from geo.places").fetchone() == (3,)
        load(store, PLACES, points(PLACES, 2), mode="append")
        assert reader.execute("select count(*) from geo.places").fetchone() == (5,)
