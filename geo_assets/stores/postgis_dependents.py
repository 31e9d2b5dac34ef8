"""What hangs on a table that is about to be replaced: what survives, and what would be lost.

What belongs here: finding it in the system catalogs, taking views off a table and putting them on another, grants,
indexes that people made.  What does not: the replacing (``postgis_swap``).

Views survive, also views on views: they are dropped and made again, with owner, options, grants and comments.  Grants
on the table, its columns and the sequence of its id survive, as do comments, indexes, storage options and NOT NULL.
Whatever else hangs on a table or on a view of it is an obstacle,
named before any work is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from geo_assets.errors import TableInUseError
from geo_assets.stores.postgis_session import Connection

__all__ = [
    "Grant",
    "Grants",
    "Index",
    "View",
    "blockers_of",
    "grants_of",
    "indexes_of",
    "obstacles_of",
    "options_sql",
    "remake_view",
    "set_grants",
    "views_of",
]

_VIEWS: Final = """
with recursive on_it (oid, depth) as (
    select %(oid)s::oid, 0
    union
    select r.ev_class, v.depth + 1
    from on_it v
    join pg_depend d on (d.refclassid = 'pg_class'::regclass and d.refobjid = v.oid) or (
        d.refclassid = 'pg_type'::regclass and d.refobjid in (
            select unnest(array[t.oid, t.typarray]) from pg_type t where t.typrelid = v.oid))
    join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid and r.ev_class <> v.oid
)
select c.oid, n.nspname, c.relname, pg_get_userbyid(c.relowner), c.reloptions, pg_get_viewdef(c.oid),
    pg_has_role(c.relowner, 'USAGE') and has_schema_privilege(n.oid, 'CREATE')
        and has_schema_privilege(c.relowner, n.oid, 'CREATE'),
    coalesce((
        select array_agg(distinct a.attname::text) from pg_rewrite r
        join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid
        join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
        where r.ev_class = c.oid and d.refclassid = 'pg_class'::regclass and d.refobjid = %(oid)s
        and d.refobjsubid > 0), '{}')
from on_it v join pg_class c on c.oid = v.oid join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'v' and c.relpersistence = 'p' and c.oid <> %(oid)s
group by c.oid, n.oid order by max(v.depth) desc, n.nspname, c.relname
"""
_OBSTACLES: Final = """
with its as (select %(oid)s::oid as oid union select unnest(%(views)s::oid[])),
types as (select t.oid, t.typarray from pg_type t join its on its.oid = t.typrelid),
numbers as (select d.objid as oid from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S'
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = %(oid)s
    and d.deptype in ('a', 'i'))
select coalesce(pg_describe_object('pg_class'::regclass, v.ev_class, 0), pg_describe_object(d.classid, d.objid, 0))
from pg_depend d left join pg_rewrite v on d.classid = 'pg_rewrite'::regclass and v.oid = d.objid
where d.deptype = 'n' and (
    d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from its)
    or d.refclassid = 'pg_type'::regclass and d.refobjid in (select unnest(array[oid, typarray]) from types))
and not (d.classid = 'pg_class'::regclass and d.objid in (select oid from its))
and (v.oid is null or v.ev_class not in (select oid from its))
and not exists (select from pg_constraint k where d.classid = 'pg_constraint'::regclass and k.oid = d.objid
    and k.conrelid = %(oid)s)
union select pg_describe_object('pg_trigger'::regclass, t.oid, 0) from pg_trigger t join its on its.oid = t.tgrelid
    where not t.tgisinternal
union select pg_describe_object('pg_rewrite'::regclass, r.oid, 0) from pg_rewrite r join its on its.oid = r.ev_class
    where r.rulename <> '_RETURN'
union select pg_describe_object('pg_policy'::regclass, oid, 0) from pg_policy where polrelid = %(oid)s
union select 'row security' from pg_class where oid = %(oid)s and (relrowsecurity or relforcerowsecurity)
union select pg_describe_object('pg_constraint'::regclass, oid, 0) from pg_constraint
    where conrelid = %(oid)s and contype in ('c', 'u', 'x', 'f')
union select 'inheritance of ' || pg_describe_object('pg_class'::regclass, i.oid, 0)
    from (select inhparent, inhrelid from pg_inherits union select inhrelid, inhparent from pg_inherits) i (its, oid)
    where i.its = %(oid)s
union select pg_describe_object('pg_publication_rel'::regclass, oid, 0) from pg_publication_rel
    where prrelid = %(oid)s
union select pg_describe_object('pg_statistic_ext'::regclass, oid, 0) from pg_statistic_ext
    where stxrelid = %(oid)s
union select pg_describe_object('pg_attrdef'::regclass, f.oid, 0) from pg_attrdef f
    where f.adrelid = any(%(views)s::oid[]) or f.adrelid = %(oid)s and not exists (select from pg_depend d
        where d.classid = 'pg_attrdef'::regclass and d.objid = f.oid and d.refobjid in (select oid from numbers))
union select pg_describe_object(d.classid, d.objid, d.objsubid) from pg_depend d
    where d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from numbers) and d.deptype = 'n'
    and not exists (select from pg_attrdef f where d.classid = 'pg_attrdef'::regclass and f.oid = d.objid
        and f.adrelid = %(oid)s)
union select format('statistics options of column %%s', attname) from pg_attribute
    where attrelid = %(oid)s and attnum > 0 and not attisdropped
    and (coalesce(attstattarget, -1) >= 0 or attoptions is not null)
union select 'that it is unlogged' from pg_class where oid = %(oid)s and relpersistence = 'u'
union select 'replica identity' from pg_class where oid = %(oid)s and relreplident <> 'd'
union select 'storage options of its TOAST table' from pg_class c join pg_class t on t.oid = c.reltoastrelid
    where c.oid = %(oid)s and t.reloptions is not null
union select 'CLUSTER on ' || pg_describe_object('pg_class'::regclass, indexrelid, 0) from pg_index
    where indrelid = %(oid)s and indisclustered
union select 'comment on ' || pg_describe_object(d.classoid, d.objoid, 0) from pg_description d
    where d.classoid = 'pg_class'::regclass and d.objoid in (
        select indexrelid from pg_index where indrelid = %(oid)s union select oid from numbers)
    or d.classoid = 'pg_constraint'::regclass and d.objoid in (
        select oid from pg_constraint where conrelid = %(oid)s)
union select pg_describe_object(d.refclassid, d.refobjid, 0) from pg_depend d join its on its.oid = d.objid
    where d.classid = 'pg_class'::regclass and d.deptype = 'e'
order by 1
"""
_BLOCKERS: Final = """
with its as (
    select %(oid)s::oid as oid
    union select d.objid from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S'
    where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = %(oid)s
    and d.deptype in ('a', 'i')
),
types as (select oid, typarray from pg_type where typrelid = %(oid)s)
select coalesce(
    pg_describe_object('pg_class'::regclass, v.ev_class, 0), pg_describe_object(d.classid, d.objid, d.objsubid))
from pg_depend d left join pg_rewrite v on d.classid = 'pg_rewrite'::regclass and v.oid = d.objid
where d.deptype = 'n' and (
    d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from its)
    or d.refclassid = 'pg_type'::regclass and d.refobjid in (select unnest(array[oid, typarray]) from types))
and (v.oid is null or v.ev_class <> %(oid)s)
-- what goes with the table
and not exists (select from pg_depend own where own.classid = d.classid and own.objid = d.objid
    and own.refclassid = 'pg_class'::regclass and own.refobjid = %(oid)s and own.deptype in ('a', 'i'))
union select pg_describe_object(refclassid, refobjid, 0) from pg_depend
    where classid = 'pg_class'::regclass and objid = %(oid)s and deptype = 'e'
"""
_GRANTS: Final = """
select null, case a.grantee when 0 then '' else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable
from pg_class c, aclexplode(c.relacl) a where c.oid = %(oid)s and a.grantee <> c.relowner
union all
select t.attname, case a.grantee when 0 then '' else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable
from pg_class c join pg_attribute t on t.attrelid = c.oid and not t.attisdropped, aclexplode(t.attacl) a
where c.oid = %(oid)s and a.grantee <> c.relowner
"""
_INDEXES: Final = """
select i.relname, quote_ident(i.relname), format('%%I.%%I', n.nspname, c.relname), pg_get_indexdef(i.oid),
    x.indisprimary, m.amname in ('gist', 'spgist', 'brin'),
    exists (select from pg_constraint k where k.conindid = i.oid and k.conrelid = c.oid),
    coalesce((
        select array_agg(a.attname::text order by a.attnum) from pg_depend d
        join pg_attribute a on a.attrelid = c.oid and a.attnum = d.refobjsubid
        where d.classid = 'pg_class'::regclass and d.objid = i.oid and d.refclassid = 'pg_class'::regclass
        and d.refobjid = c.oid), '{}')
from pg_index x join pg_class i on i.oid = x.indexrelid join pg_class c on c.oid = x.indrelid
join pg_namespace n on n.oid = c.relnamespace join pg_am m on m.oid = i.relam
where c.oid = %s and x.indisvalid order by i.relname
"""


# --- grants -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Grant:
    """One right of one role."""

    column: str | None
    """``None``: on the whole table."""
    grantee: str
    """Empty: everybody."""
    privilege: str
    grantable: bool


type Grants = tuple[Grant, ...]


def grants_of(connection: Connection, oid: int) -> Grants:
    """The rights of all but the owner."""
    rows = connection.execute(_GRANTS, {"oid": oid})
    return tuple(
        Grant(column=column, grantee=grantee, privilege=privilege, grantable=grantable)
        for column, grantee, privilege, grantable in rows
    )


def set_grants(connection: Connection, oid: int, name: sql.Composable, grants: Grants) -> None:
    """Give a table or view these rights, and no others: default privileges gave it some when it was made."""
    for grantee in {grant.grantee for grant in grants_of(connection, oid)}:
        connection.execute(sql.SQL("revoke all on {} from {}").format(name, _role(grantee)))
    add_grants(connection, name, grants)


def add_grants(connection: Connection, name: sql.Composable, grants: Grants) -> None:
    """Give a table or view rights."""
    for grant in grants:
        column = sql.SQL("") if grant.column is None else sql.SQL(" ({})").format(sql.Identifier(grant.column))
        connection.execute(
            sql.SQL("grant {}{} on {} to {}{}").format(
                # a word of the server's own
                sql.SQL(grant.privilege),
                column,
                name,
                _role(grant.grantee),
                sql.SQL(" with grant option" if grant.grantable else ""),
            )
        )


def _role(name: str) -> sql.Composable:
    return sql.Identifier(name) if name else sql.SQL("public")


# --- views --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class View:
    """A view on a table, or on a view on it."""

    oid: int
    schema: str
    name: str
    owner: str
    options: tuple[str, ...]
    definition: str
    ours: bool
    """Whether this role may make it again."""
    columns: tuple[str, ...]
    """The table's columns that it names itself."""

    @property
    def identifier(self) -> sql.Composable:
        """For statements."""
        return sql.Identifier(self.schema, self.name)

    def __str__(self) -> str:
        return f"view {self.schema}.{self.name}"


def views_of(connection: Connection, oid: int) -> tuple[View, ...]:
    """All views that would be dropped with a table; each before those it is made of."""
    return tuple(
        View(
            oid=view,
            schema=schema,
            name=name,
            owner=owner,
            options=tuple(options or ()),
            definition=definition,
            ours=ours,
            columns=tuple(columns),
        )
        for view, schema, name, owner, options, definition, ours, columns in connection.execute(_VIEWS, {"oid": oid})
    )


@dataclass(frozen=True, kw_only=True)
class KeptView:
    """A view with all that it has to be given when it is made again."""

    view: View
    grants: Grants
    comments: Mapping[str, str]

    @classmethod
    def of(cls, connection: Connection, view: View) -> "KeptView":
        """As it is now."""
        return cls(view=view, grants=grants_of(connection, view.oid), comments=comments_on(connection, view.oid))


def remake_view(connection: Connection, kept: KeptView) -> None:
    """Make a view again that was dropped.

    Raises:
        TableInUseError: it cannot be made of the table as it is now.
    """
    view = kept.view
    options = sql.SQL(" with ({})").format(options_sql(view.options)) if view.options else sql.SQL("")
    # the server's own words
    body = sql.SQL(view.definition.rstrip().removesuffix(";"))
    try:
        connection.execute(sql.SQL("create view {}{} as {}").format(view.identifier, options, body))
    except errors.InsufficientPrivilege:
        raise
    except psycopg.ProgrammingError as error:
        raise TableInUseError(
            f"the {view} cannot be made of the new table ({error.diag.message_primary}), so nothing was replaced:"
            " change or drop it first"
        ) from error
    connection.execute(sql.SQL("alter view {} owner to {}").format(view.identifier, sql.Identifier(view.owner)))
    found = connection.execute("select %s::regclass::oid", (view.identifier.as_string(connection),)).fetchone()
    if found is not None:
        set_grants(connection, found[0], view.identifier, kept.grants)
    for column, text in kept.comments.items():
        if column:
            what = sql.SQL("column {}.{}").format(view.identifier, sql.Identifier(column))
        else:
            what = sql.SQL("view {}").format(view.identifier)
        connection.execute(sql.SQL("comment on {} is {}").format(what, sql.Literal(text)))


def options_sql(options: Sequence[str]) -> sql.Composable:
    """Storage options, as the catalog has them, as they are written."""
    pairs = (option.split("=", 1) for option in options)
    return sql.SQL(", ").join(
        sql.SQL("{} = {}").format(sql.Identifier(key), sql.Literal(value)) for key, value in pairs
    )


def comments_on(connection: Connection, oid: int) -> dict[str, str]:
    """Column (or ``""``: the relation itself) → its comment."""
    rows = connection.execute(
        "select coalesce(a.attname, ''), d.description from pg_description d"
        " left join pg_attribute a on a.attrelid = d.objoid and a.attnum = d.objsubid and d.objsubid > 0"
        " where d.classoid = 'pg_class'::regclass and d.objoid = %s",
        (oid,),
    )
    return dict(rows.fetchall())


# --- obstacles ----------------------------------------------------------------------------------------------------


def obstacles_of(connection: Connection, oid: int, views: Sequence[View]) -> list[str]:
    """What would be lost with a table, its views apart."""
    rows = connection.execute(_OBSTACLES, {"oid": oid, "views": [view.oid for view in views]})
    return [row[0] for row in rows]


def blockers_of(connection: Connection, oid: int) -> list[str]:
    """What depends on a table, or on the sequence of its id, so that it cannot be dropped."""
    return sorted(row[0] for row in connection.execute(_BLOCKERS, {"oid": oid}))


# --- indexes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Index:
    """An index of a table."""

    name: str
    primary: bool
    of_constraint: bool
    spatial: bool
    """Of an access method that geometries have."""
    columns: tuple[str, ...]
    shape: tuple[str, str]
    """What comes before and after its name and table in its definition."""


def indexes_of(connection: Connection, oid: int) -> list[Index]:
    """All valid indexes of a table."""
    return [
        Index(
            name=name,
            primary=primary,
            of_constraint=of_constraint,
            spatial=spatial,
            columns=tuple(columns),
            shape=_shape(definition, f" {quoted} ON {table} "),
        )
        for name, quoted, table, definition, primary, spatial, of_constraint, columns in connection.execute(
            _INDEXES, (oid,)
        )
    ]


def _shape(definition: str, name_and_table: str) -> tuple[str, str]:
    before, _, after = definition.partition(name_and_table)
    return before, after


def make_index(connection: Connection, index: Index, name: str, table: sql.Composable) -> None:
    """Make the like of another table's index.

    Raises:
        TableInUseError: the table does not take it.
    """
    before, after = index.shape
    try:
        connection.execute(
            sql.SQL("{} {} on {} {}").format(
                # the server's own words
                sql.SQL(before),
                sql.Identifier(name),
                table,
                sql.SQL(after),
            )
        )
    except errors.InsufficientPrivilege:
        raise
    except psycopg.ProgrammingError as error:
        raise TableInUseError(
            f"the index {index.name} cannot be made on the new table ({error.diag.message_primary}), so nothing was"
            " replaced: drop it first"
        ) from error


def sentence(names: Sequence[Any]) -> str:
    """A list in words, a few of many."""
    shown = [str(name) for name in names[:5]]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more
