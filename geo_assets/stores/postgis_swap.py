"""A staging takes its place: as a new table, in the place of another, or as rows of one; and whether it may.

What belongs here: the checks before a load and the statements of the transaction that ends it.  What does not: making
and checking stagings (``postgis_staging``), what hangs on a table (``postgis_dependents``).

Everything here runs in a transaction of the caller's.  Views are locked before the table they are made of, as a query
on a view does, so that the two wait for each other in one order.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, cast

from psycopg import errors, sql

from geo_assets.errors import (
    AccessDeniedError,
    TableExistsError,
    TableInUseError,
    TableSchemaError,
    TableStoreUnavailableError,
)
from geo_assets.stores.postgis_dependents import (
    Grant,
    Grants,
    Index,
    KeptView,
    View,
    add_grants,
    comments_on,
    grants_of,
    indexes_of,
    make_index,
    obstacles_of,
    options_sql,
    remake_view,
    sentence,
    set_grants,
    views_of,
)
from geo_assets.stores.postgis_register import Register, find_table
from geo_assets.stores.postgis_session import Connection, make_schema, one
from geo_assets.stores.postgis_staging import geometry_type, relation_of, type_name, write_comments
from geo_assets.stores.tables import LoadMode
from geo_assets.vector.fitting import fit_column, fit_geometry
from geo_assets.vector.table import ID_COLUMN, Column, ColumnType, Dimensions, GeometryColumn, TableDefinition

__all__ = [
    "add_rows",
    "check_added",
    "check_mode",
    "check_survivors",
    "dress_alike",
    "fitted",
    "keep_in_place",
    "lock_target",
    "put_in_place",
]

_KINDS: Final[Mapping[str, str]] = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "p": "a partitioned table",
    "S": "a sequence",
    "i": "an index",
    "c": "a composite type",
}
_TABLE: Final = "r"
_NAME_BYTES: Final = 63
_IDS: Final = frozenset({"smallint", "integer", "bigint"})
_NUMERIC: Final = re.compile(r"numeric\(\d+,(\d+)\)")
_KNOWN_TYPES: Final[Mapping[str, ColumnType]] = {
    **{type_name(Column(name="", type=kind, source_name="")): kind for kind in ColumnType},
    "character varying": ColumnType.TEXT,
}
_GEOMETRY: Final = re.compile(r"geometry(?:\((?P<type>[A-Za-z]+?)(?P<more>ZM|Z|M)?(?:,(?P<srid>\d+))?\))?")


def keep_in_place(connection: Connection, schema: str, table: str) -> None:
    """Have a table stay what it is until the transaction ends, if it is there and this role may read it.

    Without that, what the system catalogs say of it may be about one that is replaced at this moment.
    """
    found = find_table(connection, schema, table)
    if found is None or found[1] not in ("r", "p", "v"):
        return
    with suppress(errors.InsufficientPrivilege, errors.UndefinedTable), connection.transaction():
        connection.execute(sql.SQL("lock table {} in access share mode").format(sql.Identifier(schema, table)))


# --- before a load -------------------------------------------------------------------------------------------------


def check_mode(connection: Connection, schema: str, table: str, mode: LoadMode) -> None:
    """Whether this role may load this table in this mode, as far as can be told without knowing its rows.

    Raises:
        TableExistsError, TableInUseError: see ``TableStore.check_target``.
        AccessDeniedError: names the right that is missing.
    """
    name, found = f"{schema}.{table}", find_table(connection, schema, table)
    if found is not None and mode == "create":
        raise TableExistsError(
            f"{name} is there already: choose another name, or load with load_mode 'overwrite' or 'append'"
        )
    if found is not None:
        _check_kind(name, found[1], mode)
    _require(connection, name, _rights(connection, schema, None if found is None else found[0], mode))
    if found is not None and mode == "overwrite":
        views = views_of(connection, found[0])
        _check_obstacles(connection, name, found[0], views)
        if foreign := [view for view in views if not view.ours]:
            raise AccessDeniedError(
                f"replacing {name} makes the {sentence(foreign)} again, which takes membership in the role"
                f" '{foreign[0].owner}', and CREATE on the view's schema for both: grant that, or drop the view first"
            )


def _check_kind(name: str, kind: str, mode: LoadMode) -> None:
    if kind == _TABLE or (kind == "p" and mode == "append"):
        return
    raise TableInUseError(f"{name} is {_KINDS.get(kind, 'no table')}, and is not loaded into: choose another name")


def _rights(connection: Connection, schema: str, oid: int | None, mode: LoadMode) -> Iterator[tuple[bool, str]]:
    """Rights, and whether this role has them, in the order in which they are looked at."""
    space = connection.execute("select oid from pg_namespace where nspname = %s", (schema,)).fetchone()
    if space is None:
        (may,) = one(connection, "select has_database_privilege(current_database(), 'CREATE')")
        yield may, f"CREATE on the database, to make the schema '{schema}'"
        return
    may_use, may_create = one(
        connection,
        "select has_schema_privilege(%(oid)s, 'USAGE'), has_schema_privilege(%(oid)s, 'CREATE')",
        {"oid": space[0]},
    )
    yield may_use, f"USAGE on the schema '{schema}'"
    if oid is None or mode == "overwrite":
        yield may_create, f"CREATE on the schema '{schema}'"
    if oid is not None:
        yield from _rights_on_table(connection, oid, space[0], mode)


def _rights_on_table(connection: Connection, oid: int, space: int, mode: LoadMode) -> Iterator[tuple[bool, str]]:
    if mode == "overwrite":
        owner, ours, theirs = one(
            connection,
            "select pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'),"
            " has_schema_privilege(relowner, %s, 'CREATE') from pg_class where oid = %s",
            (space, oid),
        )
        yield ours, f"membership in the role '{owner}', which owns it"
        yield theirs, f"CREATE on its schema for the role '{owner}', which owns it and is to own what replaces it"
        return
    for right in ("SELECT", "INSERT", "UPDATE"):
        (may,) = one(connection, "select has_table_privilege(%s, %s)", (oid, right))
        yield may, f"{right} on it"


def _require(connection: Connection, name: str, rights: Iterable[tuple[bool, str]]) -> None:
    for may, right in rights:
        if not may:
            (role,) = one(connection, "select current_user")
            raise AccessDeniedError(f"{name} cannot be loaded: the role '{role}' lacks {right}; grant it")


def _check_obstacles(connection: Connection, name: str, oid: int, views: Sequence[View]) -> None:
    if obstacles := obstacles_of(connection, oid, views):
        raise TableInUseError(
            f"replacing {name} would lose what hangs on it: {sentence(obstacles)}; remove that first, or load a table"
            " of another name"
        )


def check_added(connection: Connection, name: str, oid: int, loaded: Mapping[str, str]) -> None:
    """Whether a table of ours has columns that did not come with a load, and would go.

    The first geometry is taken for ours.

    Raises:
        TableInUseError: names them.
    """
    there = _columns_there(connection, oid)
    shapes = [column for column, one_ in there.items() if _GEOMETRY.match(one_.type)]
    if added := [column for column in there if column not in {ID_COLUMN, *loaded, *shapes[:1]}]:
        raise TableInUseError(
            f"replacing {name} would lose columns that were added to it: {sentence(added)}; drop them first, or load a"
            " table of another name"
        )


def keep_not_null(connection: Connection, oid: int, definition: TableDefinition, table: sql.Composable) -> None:
    """Have the columns of a table take no nulls that took none in the one it is to replace.

    Raises:
        TableInUseError: there are nulls.
    """
    names = definition.chunk_schema.names
    for name, column in _columns_there(connection, oid).items():
        if column.nullable or name not in names or name == ID_COLUMN:
            continue
        try:
            connection.execute(sql.SQL("alter table {} alter {} set not null").format(table, sql.Identifier(name)))
        except errors.NotNullViolation as error:
            raise TableInUseError(
                f"the column '{name}' of {definition.name} is NOT NULL, and the rows that are to replace it have nulls:"
                " change that first, or load a table of another name"
            ) from error


def check_survivors(connection: Connection, oid: int, definition: TableDefinition) -> list[Index]:
    """Whether views and indexes of a table find their columns in the one that replaces it.

    Returns:
        The indexes that people made.

    Raises:
        TableInUseError: names what does not, and the column.
    """
    names = set(definition.chunk_schema.names)
    lost = [
        f"the {view} uses the column '{column}'"
        for view in views_of(connection, oid)
        for column in view.columns
        if column not in names
    ]
    extra = _extra_indexes(connection, oid, definition)
    for index in extra:
        lost += [
            f"the index {index.name} is on the column '{column}'" for column in index.columns if column not in names
        ]
    if lost:
        raise TableInUseError(
            f"what hangs on {definition.name} does not fit the table that is to replace it: {sentence(lost)}; change"
            " or drop that first"
        )
    return extra


def _extra_indexes(connection: Connection, oid: int, definition: TableDefinition) -> list[Index]:
    """Indexes that a table of ours does not have anyway."""
    names = set(definition.chunk_schema.names)
    return [
        index
        for index in indexes_of(connection, oid)
        # of a constraint: the key, or an obstacle; a geometry that is gone needs no index
        if not index.of_constraint and not (index.spatial and not names & set(index.columns))
    ]


# --- appending -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _There:
    """A column of a table that is there."""

    type: str
    given: bool
    """It has a default, or is made by the database."""
    computed: bool
    nullable: bool


def _columns_there(connection: Connection, oid: int) -> dict[str, _There]:
    rows = connection.execute(
        "select attname, format_type(atttypid, atttypmod), atthasdef or attidentity <> '', attgenerated <> '',"
        " not attnotnull from pg_attribute where attrelid = %s and attnum > 0 and not attisdropped order by attnum",
        (oid,),
    )
    return {
        name: _There(type=kind, given=given, computed=computed, nullable=nullable)
        for name, kind, given, computed, nullable in rows
    }


def fitted(
    connection: Connection, oid: int, definition: TableDefinition, loaded: Mapping[str, str] | None
) -> TableDefinition:
    """Definition of rows for a table that is there, with its types where they take the rows'.

    Args:
        connection: of the database.
        oid: of the table.
        definition: of the rows.
        loaded: the columns that came with earlier loads; ``None``: somebody else's table.  What people added to a
            table of ours may stay empty.

    Raises:
        TableSchemaError: names every difference.
    """
    there = _columns_there(connection, oid)
    geometry, found = _fitted_geometry(definition, there)
    found = [*_column_differences(definition, there, strict=False), *found, *_missing(definition, there, loaded)]
    if found:
        # text may turn out to have no values, but these rows are refused anyway
        others = [one for one in _column_differences(definition, there, strict=True) if one not in found]
        raise TableSchemaError(f"rows cannot be added to {definition.name}: {'; '.join([*others, *found])}")
    columns = (_fitted_column(column, there[column.name]) for column in definition.columns)
    return replace(definition, columns=tuple(one for one in columns if one is not None), geometry=geometry)


def _column_differences(definition: TableDefinition, there: Mapping[str, _There], *, strict: bool) -> Iterator[str]:
    for column in definition.columns:
        if column.name not in there:
            yield f"the rows' column '{column.name}' is not in the table"
            continue
        theirs = there[column.name]
        fits = _fitted_column(column, theirs)
        if theirs.computed:
            yield f"column '{column.name}' is computed by the database"
        elif fits is None or (strict and column.type is ColumnType.TEXT and fits.type is not ColumnType.TEXT):
            yield f"column '{column.name}' is {theirs.type} in the table, {type_name(column)} in the rows"


def _fitted_column(column: Column, there: _There) -> Column | None:
    """The column with the table's type; ``None``: that does not take its values."""
    if there.type == "numeric":  # of any scale
        return fit_column(column, replace(column, type=ColumnType.NUMERIC))
    numeric = _NUMERIC.fullmatch(there.type)
    if numeric is not None:
        return fit_column(column, replace(column, type=ColumnType.NUMERIC, scale=int(numeric[1])))
    kind = _KNOWN_TYPES.get(there.type)
    return None if kind is None else fit_column(column, replace(column, type=kind, scale=0))


def _missing(definition: TableDefinition, there: Mapping[str, _There], loaded: Mapping[str, str] | None) -> list[str]:
    names = set(definition.chunk_schema.names)
    return [
        f"the table's column '{name}' is not in the rows"
        for name, column in there.items()
        if name not in names
        and not column.given
        and not (loaded is not None and name not in loaded and column.nullable and not _GEOMETRY.match(column.type))
    ] + [
        f"the table's column '{ID_COLUMN}' is {column.type} and takes no numbers"
        for name, column in there.items()
        if name == ID_COLUMN and column.type not in _IDS and not column.given
    ]


def _fitted_geometry(
    definition: TableDefinition, there: Mapping[str, _There]
) -> tuple[GeometryColumn | None, list[str]]:
    """The geometry with type and dimensions of the table's, and what speaks against it."""
    geometry = definition.geometry
    if geometry is None:
        return None, []  # a geometry column of the table is then missing in the rows
    if geometry.name not in there:
        return None, [f"the rows' geometry '{geometry.name}' is not in the table"]
    theirs, ours = there[geometry.name].type, geometry_type(geometry)
    parsed = _GEOMETRY.fullmatch(theirs)
    if parsed is None:
        return None, [f"column '{geometry.name}' is {theirs} in the table, {ours} in the rows"]
    declared = replace(geometry, srid=int(parsed["srid"] or 0))
    if parsed["type"] is not None:
        dimensions = cast("Dimensions", f"XY{parsed['more'] or ''}")
        declared = replace(declared, type=parsed["type"], dimensions=dimensions)
    fits = fit_geometry(geometry, declared)
    return fits, [] if fits else [f"geometry '{geometry.name}' is {theirs} in the table, {ours} in the rows"]


def add_rows(connection: Connection, register: Register, token: str, definition: TableDefinition) -> int:
    """Add the rows of a staging to its target, whose lock is held, and remove it; ids go on after the last one.

    Returns:
        OID of the target.
    """
    target = sql.Identifier(definition.schema, definition.table)
    staging = register.identifier(relation_of(token))
    oid = _oid(connection, definition.schema, definition.table)
    there = _columns_there(connection, oid)
    columns = [name for name in definition.chunk_schema.names if name != ID_COLUMN]
    wanted = [sql.Identifier(name) for name in columns]
    values: list[sql.Composable] = list(wanted)
    numbered = ID_COLUMN in there and there[ID_COLUMN].type in _IDS
    sequence, last = _last_id(connection, target) if numbered else (None, 0)
    if numbered:
        wanted.insert(0, sql.Identifier(ID_COLUMN))
        values.insert(0, sql.SQL("{} + {}").format(sql.Identifier(ID_COLUMN), sql.Literal(last)))
    connection.execute(
        sql.SQL("insert into {} ({}) overriding system value select {} from {} order by {}").format(
            target, sql.SQL(", ").join(wanted), sql.SQL(", ").join(values), staging, sql.Identifier(ID_COLUMN)
        )
        if wanted
        else sql.SQL("insert into {} select from {}").format(target, staging)
    )
    if sequence is not None:
        (highest,) = one(
            connection, sql.SQL("select coalesce(max({}), 0) from {}").format(sql.Identifier(ID_COLUMN), staging)
        )
        connection.execute("select setval(%s::regclass, greatest(%s, 1))", (sequence, last + highest))
    connection.execute(sql.SQL("drop table {}").format(staging))
    (owned,) = one(connection, "select pg_has_role(relowner, 'USAGE') from pg_class where oid = %s", (oid,))
    if owned:
        connection.execute(sql.SQL("analyze {}").format(target))
    return oid


def _last_id(connection: Connection, target: sql.Identifier) -> tuple[str | None, int]:
    """Sequence of the id, if it has one, and the last id that was given away."""
    (last,) = one(connection, sql.SQL("select coalesce(max({}), 0) from {}").format(sql.Identifier(ID_COLUMN), target))
    (sequence,) = one(connection, "select pg_get_serial_sequence(%s, %s)", (target.as_string(connection), ID_COLUMN))
    if sequence is None:
        return None, last
    (given,) = one(connection, "select coalesce(pg_sequence_last_value(%s::regclass), 0)", (sequence,))
    return sequence, max(last, given)


# --- the swap ------------------------------------------------------------------------------------------------------


def lock_target(connection: Connection, schema: str, table: str, mode: LoadMode) -> tuple[View, ...]:
    """Hold the target until the transaction ends, against readers only where it is replaced; returns its views.

    Raises:
        TableStoreUnavailableError: views on it came or went at this moment.
        TableInUseError: something hangs on it by now that would be lost.
    """
    found = find_table(connection, schema, table)
    if found is None:
        return ()
    target = sql.Identifier(schema, table)
    if mode == "append":
        connection.execute(sql.SQL("lock table {} in share row exclusive mode").format(target))
        return ()
    views = views_of(connection, found[0])
    for view in views:
        # changes nothing, and holds the view
        connection.execute(sql.SQL("alter view {} owner to {}").format(view.identifier, sql.Identifier(view.owner)))
    connection.execute(sql.SQL("lock table {} in access exclusive mode").format(target))
    now = views_of(connection, found[0])
    if {view.oid for view in now} != {view.oid for view in views}:
        raise TableStoreUnavailableError(f"views on {schema}.{table} are being changed at this moment: try again")
    _check_obstacles(connection, f"{schema}.{table}", found[0], now)
    return now


def dress_alike(
    connection: Connection, register: Register, token: str, definition: TableDefinition, wanted: Iterable[Index]
) -> None:
    """Give a staging what takes long and the table has that it is to replace: its indexes, and NOT NULL."""
    found = find_table(connection, definition.schema, definition.table)
    if found is not None:
        keep_not_null(connection, found[0], definition, register.identifier(relation_of(token)))
    make_extra_indexes(connection, register, token, wanted)


def make_extra_indexes(connection: Connection, register: Register, token: str, wanted: Iterable[Index]) -> None:
    """Give a staging indexes like those of the table it is to replace, as :func:`check_survivors` gave them."""
    relation = relation_of(token)
    shapes = [index.shape for index in indexes_of(connection, _oid(connection, register.schema, relation))]
    for index in wanted:
        if index.shape in shapes:
            shapes.remove(index.shape)
        else:
            name = _free_name(connection, register.schema, f"{relation}_extra")
            make_index(connection, index, name, register.identifier(relation))


def put_in_place(
    connection: Connection,
    register: Register,
    token: str,
    definition: TableDefinition,
    views: Sequence[View],
    comments: Mapping[str, str],
) -> int:
    """Let a staging be the target, in the place of the table that is there; returns its OID.

    Args:
        connection: in the transaction that holds the target.
        register: of the staging.
        token: the staging's.
        definition: of the table.
        views: on the table that is there, as :func:`lock_target` gave them.
        comments: those that we wrote on the table that is there; others are somebody's own, and stay.
    """
    schema, table = definition.schema, definition.table
    target = sql.Identifier(schema, table)
    found = find_table(connection, schema, table)
    kept = [KeptView.of(connection, view) for view in views]
    before = None
    if found is not None:
        dress_alike(connection, register, token, definition, _extra_indexes(connection, found[0], definition))
        before = _Before.of(connection, found[0], definition, comments)
        for view in views:
            connection.execute(sql.SQL("drop view {}").format(view.identifier))
        connection.execute(sql.SQL("drop table {}").format(target))
    else:
        make_schema(connection, schema)
    connection.execute(
        sql.SQL("alter table {} set schema {}").format(register.identifier(relation_of(token)), sql.Identifier(schema))
    )
    connection.execute(
        sql.SQL("alter table {} rename to {}").format(sql.Identifier(schema, relation_of(token)), sql.Identifier(table))
    )
    oid = _oid(connection, schema, table)
    _rename_parts(connection, oid, definition, () if before is None else before.indexes)
    if before is None:
        _give_default_rights(connection, oid, schema, target)
    else:
        before.give_to(connection, oid, target)
    for one_kept in reversed(kept):
        remake_view(connection, one_kept)
    return oid


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What a table leaves to the one that replaces it."""

    owner: str
    options: tuple[str, ...]
    grants: Grants
    comments: Mapping[str, str]
    """Those that somebody else wrote."""
    indexes: tuple[Index, ...]
    numbering: Grants
    """On the sequence of its id."""

    @classmethod
    def of(cls, connection: Connection, oid: int, definition: TableDefinition, ours: Mapping[str, str]) -> "_Before":
        """As it is now, without what is about columns that go."""
        names = {"", *definition.chunk_schema.names}
        owner, options = one(
            connection, "select pg_get_userbyid(relowner), reloptions from pg_class where oid = %s", (oid,)
        )
        return cls(
            owner=owner,
            options=tuple(options or ()),
            grants=tuple(grant for grant in grants_of(connection, oid) if (grant.column or "") in names),
            comments={
                column: text
                for column, text in comments_on(connection, oid).items()
                if column in names and text != ours.get(column)
            },
            indexes=tuple(_extra_indexes(connection, oid, definition)),
            numbering=tuple(
                grant for _, sequence, _ in _sequences(connection, oid) for grant in grants_of(connection, sequence)
            ),
        )

    def give_to(self, connection: Connection, oid: int, table: sql.Composable) -> None:
        """Let a table have it."""
        connection.execute(sql.SQL("alter table {} owner to {}").format(table, sql.Identifier(self.owner)))
        set_grants(connection, oid, table, self.grants)
        write_comments(connection, table, self.comments)
        for schema, sequence, name in _sequences(connection, oid):
            numbers = sql.SQL("sequence {}").format(sql.Identifier(schema, name))
            set_grants(connection, sequence, numbers, self.numbering)
        if self.options:
            connection.execute(sql.SQL("alter table {} set ({})").format(table, options_sql(self.options)))


def _oid(connection: Connection, schema: str, table: str) -> int:
    """OID of a table that is held."""
    (oid,) = one(
        connection,
        "select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname = %s and c.relname = %s",
        (schema, table),
    )
    return int(oid)


def _sequences(connection: Connection, oid: int) -> list[tuple[str, int, str]]:
    """Schema, OID and name of the sequence of a table's id; empty where it has none."""
    return connection.execute(
        "select n.nspname, c.oid, c.relname from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S'"
        " join pg_namespace n on n.oid = c.relnamespace"
        " join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid and a.attname = %s"
        " where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = %s"
        " and d.deptype in ('a', 'i')",
        (ID_COLUMN, oid),
    ).fetchall()


def _give_default_rights(connection: Connection, oid: int, schema: str, table: sql.Composable) -> None:
    """Give what new tables of a schema have by default: one that moves there does not get it by itself."""
    rows = connection.execute(
        "select case a.grantee when 0 then '' else pg_get_userbyid(a.grantee) end, a.privilege_type, a.is_grantable"
        " from pg_default_acl d join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a"
        " where n.nspname = %s and d.defaclobjtype = 'r'"
        " and d.defaclrole = (select relowner from pg_class where oid = %s)",
        (schema, oid),
    ).fetchall()
    grants = (Grant(column=None, grantee=who, privilege=what, grantable=grantable) for who, what, grantable in rows)
    add_grants(connection, table, tuple(grants))


def _rename_parts(connection: Connection, oid: int, definition: TableDefinition, old_indexes: Sequence[Index]) -> None:
    """Name indexes and sequence of a staging after its table; an index like an old one is called as that was."""
    schema, table = definition.schema, definition.table
    names = {index.shape: index.name for index in old_indexes}
    for index in indexes_of(connection, oid):
        if index.primary:
            wanted = f"{table}_pkey"
        elif index.spatial and definition.geometry is not None and index.columns == (definition.geometry.name,):
            wanted = names.get(index.shape, f"idx_{table}_{definition.geometry.name}")
        elif index.shape in names:
            wanted = names[index.shape]
        else:
            # made like one that was dropped meanwhile
            connection.execute(sql.SQL("drop index {}").format(sql.Identifier(schema, index.name)))
            continue
        connection.execute(
            sql.SQL("alter index {} rename to {}").format(
                sql.Identifier(schema, index.name), sql.Identifier(_free_name(connection, schema, wanted))
            )
        )
    (sequence,) = one(
        connection,
        "select c.relname from pg_depend d join pg_class c on c.oid = d.objid and c.relkind = 'S'"
        " where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = %s",
        (oid,),
    )
    connection.execute(
        sql.SQL("alter sequence {} rename to {}").format(
            sql.Identifier(schema, sequence), sql.Identifier(_free_name(connection, schema, f"{table}_{ID_COLUMN}_seq"))
        )
    )


def _free_name(connection: Connection, schema: str, wanted: str) -> str:
    """A name that fits and is not taken; two long names may begin alike."""
    for number in itertools.count(1):
        suffix = "" if number == 1 else f"_{number}"
        room = _NAME_BYTES - len(suffix)
        name = wanted.encode()[:room].decode(errors="ignore") + suffix
        if find_table(connection, schema, name) is None:
            return name
    raise AssertionError  # pragma: no cover - count has no end
