"""Whether the geometries of a table in PostGIS are valid, as the database judges them.

What belongs here: the statements.  What does not: judging tables (``geo_assets.checking``).
"""

from typing import Final

from psycopg import sql

from geo_assets.stores.postgis_session import Connection, one
from geo_assets.stores.tables import GeometryValidity
from geo_assets.vector.table import ID_COLUMN

__all__ = ["validity_of"]

_COLUMNS: Final = (
    "select attname, format_type(atttypid, atttypmod) from pg_attribute"
    " where attrelid = %s and attnum > 0 and not attisdropped order by attnum"
)
_SAMPLED: Final = frozenset("rpm")
"""Kinds of relations that can be sampled; of views the first rows are taken."""
_EXAMPLES: Final = 3


def validity_of(connection: Connection, oid: int, schema: str, table: str, *, most: int) -> GeometryValidity:
    """Look at the geometries of a table that is held in a transaction; at about ``most`` of them where it has more."""
    columns = [(name, kind) for name, kind in connection.execute(_COLUMNS, (oid,))]
    spatial = [name for name, kind in columns if kind.startswith(("geometry", "geography"))]
    relation = sql.Identifier(schema, table)
    (rows,) = one(connection, sql.SQL("select count(*) from {}").format(relation))
    key = sql.Identifier(ID_COLUMN) if any(name == ID_COLUMN for name, _ in columns) else sql.SQL("null")
    looked_at = invalid = 0
    examples: list[str] = []
    for name in spatial if most else ():
        geometry = sql.SQL("{}::geometry").format(sql.Identifier(name))
        chosen = sql.SQL("(select {} as id, {} as g from {}{} where {} is not null{}) chosen").format(
            key, geometry, relation, *_share(connection, oid, rows, most, sql.Identifier(name))
        )
        count, bad = one(
            connection, sql.SQL("select count(*), count(*) filter (where not st_isvalid(g)) from {}").format(chosen)
        )
        looked_at, invalid = looked_at + int(count), invalid + int(bad)
        if bad:
            found = connection.execute(
                sql.SQL("select id, st_isvalidreason(g) from {} where not st_isvalid(g) limit {}").format(
                    chosen, sql.Literal(_EXAMPLES)
                )
            )
            examples += [f"{reason}{'' if number is None else f' (id {number})'}" for number, reason in found]
    return GeometryValidity(
        rows=int(rows), looked_at=looked_at, invalid=invalid, examples=tuple(examples[:_EXAMPLES]), exact=rows <= most
    )


def _share(
    connection: Connection, oid: int, rows: int, most: int, column: sql.Composable
) -> tuple[sql.Composable, sql.Composable, sql.Composable]:
    """What is said after the table's name, the column that must be there, and what is said last."""
    nothing = sql.SQL("")
    if rows <= most:
        return nothing, column, nothing
    (kind,) = one(connection, "select relkind from pg_class where oid = %s", (oid,))
    if (kind.decode() if isinstance(kind, bytes) else kind) in _SAMPLED:
        share = sql.SQL(" tablesample system ({}) repeatable (1)").format(sql.Literal(100 * most / rows))
        return share, column, nothing
    return nothing, column, sql.SQL(" limit {}").format(sql.Literal(most))
