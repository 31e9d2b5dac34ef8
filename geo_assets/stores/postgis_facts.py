"""What is known of a table or view in PostGIS, whoever made it.

What belongs here: columns, counts, boxes and footprint.  What does not: its rows (``postgis_rows``), and what hangs
on it (``postgis_dependents``).

Boxes in the table's own CRS, counts and kinds are the database's.  For the footprint, geometries pass through the
client, a batch at a time, as they do for files: so the two agree, also at the antimeridian and in projections.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import numpy as np
import psycopg
import pyarrow as pa
import pyproj
import shapely
from psycopg import sql

from geo_assets.errors import ParameterError, VectorRefusedError
from geo_assets.stores.postgis_session import Connection, one
from geo_assets.stores.tables import GeometryFacts, TableColumn, TableFacts
from geo_assets.vector.footprint import Box, FootprintBuilder
from geo_assets.vector.layers import BATCH_BYTES

__all__ = ["describe_table"]

_COLUMNS: Final = (
    "select a.attname, format_type(a.atttypid, a.atttypmod), col_description(a.attrelid, a.attnum)"
    " from pg_attribute a where a.attrelid = %s and a.attnum > 0 and not a.attisdropped order by a.attnum"
)
_SHORT: Final[Mapping[str, str]] = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "time without time zone": "time",
}
_OUR_NUMERIC: Final = re.compile(r"numeric\(38,\d+\)")
_OUR_COMMENT: Final = re.compile(r'(?:^|\n)source: ".*"\Z', re.DOTALL)
_SPATIAL: Final = re.compile(
    r"(?P<family>geometry|geography)(?:\((?P<type>[A-Za-z]+?)(?P<more>ZM|Z|M)?(?:,(?P<srid>\d+))?\))?"
)
_DATES: Final = frozenset({"date", "timestamp", "timestamptz"})
_PLAIN: Final = frozenset({"Point", "LineString", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon"})
_AS_GEOS_CAN_READ: Final = sql.SQL(
    "case when st_hasarc(g) or geometrytype(g) in ('TIN', 'TRIANGLE', 'POLYHEDRALSURFACE') then st_envelope(g)"
    " else g end"
)
_FETCH_FIRST: Final = 500
_FETCH_MOST: Final = 20_000
_FIRST_MOMENT: Final = "0001-01-01"
_LAST_MOMENT: Final = "9999-12-31 23:59:59.999999"


@dataclass(frozen=True, kw_only=True)
class _Geometry:
    """What was found of one geometry column."""

    types: tuple[str, ...] = ()
    srid: int | None = None
    bbox: Box | None = None
    native_bbox: Box | None = None
    footprint: Mapping[str, Any] | None = None


def describe_table(
    connection: Connection,
    oid: int,
    schema: str,
    table: str,
    *,
    geometry_column: str | None,
    datetime_column: str | None,
    exact: bool,
) -> TableFacts:
    """Look at a table; version, record and href are still to be filled in.

    Args:
        connection: in a transaction that sees one state, and holds the table.
        oid: of the table.
        schema: its schema.
        table: its name.
        geometry_column: which one, where there are several; default: the first.
        datetime_column: whose range is wanted.
        exact: look at every row, or take what statistics say.

    Raises:
        ParameterError: no such geometry or date column.
    """
    name = f"{schema}.{table}"
    types = [(column, kind, text) for column, kind, text in connection.execute(_COLUMNS, (oid,))]
    geometries = tuple(facts for column, kind, _ in types if (facts := _declared(column, kind)) is not None)
    described = _chosen(geometries, geometry_column, name)
    columns = tuple(TableColumn(name=column, type=_type(kind), description=_said(text)) for column, kind, text in types)
    _check_dates(columns, datetime_column, name)
    relation = sql.Identifier(schema, table)
    estimated = None if exact else _estimate(connection, oid, schema, table, described)
    rows, found = estimated or _by_rows(connection, relation, described)
    if found.srid is not None:
        geometries = tuple(
            GeometryFacts(name=one_.name, type=one_.type, srid=found.srid, dimensions=one_.dimensions)
            if described is not None and one_.name == described.name
            else one_
            for one_ in geometries
        )
    (comment,) = one(connection, "select obj_description(%s, 'pg_class')", (oid,))
    return TableFacts(
        schema=schema,
        table=table,
        columns=columns,
        geometries=geometries,
        described=None if described is None else described.name,
        row_count=rows,
        exact=estimated is None,
        geometry_types=found.types,
        bbox=found.bbox,
        native_bbox=found.native_bbox,
        footprint=found.footprint,
        datetime_range=None if datetime_column is None else _range(connection, relation, datetime_column),
        description=comment,
    )


# --- columns ------------------------------------------------------------------------------------------------------


def _type(kind: str) -> str:
    return "numeric" if _OUR_NUMERIC.fullmatch(kind) else _SHORT.get(kind, kind)


def _said(comment: str | None) -> str | None:
    """A column's comment without the line that names its source, which the record tells."""
    return None if comment is None else _OUR_COMMENT.sub("", comment) or None


def _declared(column: str, kind: str) -> GeometryFacts | None:
    parsed = _SPATIAL.fullmatch(kind)
    if parsed is None:
        return None
    srid = int(parsed["srid"] or 0) or (4326 if parsed["family"] == "geography" else 0)
    dimensions = cast("Any", f"XY{parsed['more'] or ''}")
    return GeometryFacts(name=column, type=parsed["type"] or "Geometry", srid=srid or None, dimensions=dimensions)


def _chosen(geometries: Sequence[GeometryFacts], wanted: str | None, name: str) -> GeometryFacts | None:
    if wanted is None:
        return geometries[0] if geometries else None
    for geometry in geometries:
        if geometry.name == wanted:
            return geometry
    there = ", ".join(repr(geometry.name) for geometry in geometries) or "none at all"
    raise ParameterError(f"{name} has no geometry column {wanted!r}; it has {there}")


def _check_dates(columns: Sequence[TableColumn], wanted: str | None, name: str) -> None:
    if wanted is None or any(column.name == wanted and _is_date(column.type) for column in columns):
        return
    there = ", ".join(repr(column.name) for column in columns if _is_date(column.type)) or "none at all"
    raise ParameterError(f"{name} has no column {wanted!r} of dates or timestamps; it has {there}")


def _is_date(kind: str) -> bool:
    return re.sub(r"\(\d\)", "", kind) in {*_DATES, *_SHORT} - {"time without time zone"}


def _range(connection: Connection, relation: sql.Composable, column: str) -> tuple[str, str] | None:
    value = sql.SQL("{}::timestamptz").format(sql.Identifier(column))
    ends = [
        # what RFC 3339 cannot write becomes the nearest it can
        sql.SQL("least(greatest({}({}), {}::timestamptz), {}::timestamptz)").format(
            sql.SQL(side), value, sql.Literal(_FIRST_MOMENT), sql.Literal(_LAST_MOMENT)
        )
        for side in ("min", "max")
    ]
    row = one(
        connection,
        sql.SQL("select {}, {}, count({}) from {}").format(*ends, sql.Identifier(column), relation),
    )
    first, last, count = row
    return (_rfc3339(first), _rfc3339(last)) if count else None


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- geometry -----------------------------------------------------------------------------------------------------


def _shape(column: str) -> sql.Composable:
    # a geography is a geometry in degrees
    return sql.SQL("{}::geometry").format(sql.Identifier(column))


def _by_rows(
    connection: Connection, relation: sql.Composable, described: GeometryFacts | None
) -> tuple[int, _Geometry]:
    if described is None:
        (count,) = one(connection, sql.SQL("select count(*) from {}").format(relation))
        return count, _Geometry()
    rows = connection.execute(
        sql.SQL(
            "select kind, srid, rows, st_xmin(box), st_ymin(box), st_xmax(box), st_ymax(box) from"
            " (select st_geometrytype({0}) kind, st_srid({0}) srid, count(*) rows, st_extent({0}) box from {1}"
            " group by 1, 2) found"
        ).format(_shape(described.name), relation)
    ).fetchall()
    boxes = np.array([row[3:] for row in rows if row[3] is not None], float)
    count = sum(row[2] for row in rows)
    types = tuple(sorted({row[0].removeprefix("ST_") for row in rows if row[0] is not None}))
    srids = {row[1] for row in rows if row[1] is not None}
    srid = described.srid or (srids.pop() or None if len(srids) == 1 else None)
    if not len(boxes):
        return count, _Geometry(types=types, srid=srid)
    builder = _builder(connection, srid)
    if builder is not None:
        for wkb in _geometries(connection, relation, described.name, plain=_PLAIN.issuperset(types)):
            builder.add(wkb)
    left, bottom = boxes[:, :2].min(axis=0).tolist()
    right, top = boxes[:, 2:].max(axis=0).tolist()
    return count, _located(types, srid, (left, bottom, right, top), builder)


def _geometries(
    connection: Connection, relation: sql.Composable, column: str, *, plain: bool
) -> Iterator[pa.BinaryArray]:
    """All geometries as WKB; what GEOS cannot read as its box."""
    value = sql.SQL("g") if plain else _AS_GEOS_CAN_READ
    with connection.cursor(name="geo_assets_geometries", binary=True) as cursor:
        cursor.execute(
            sql.SQL("select st_asbinary({}) from (select {} g from {}) shapes where g is not null").format(
                value, _shape(column), relation
            )
        )
        wanted = _FETCH_FIRST
        while rows := cursor.fetchmany(wanted):
            wkb = pa.array([row[0] for row in rows], pa.binary())
            # memory follows bytes, whatever the size of a geometry
            wanted = max(1, min(_FETCH_MOST, BATCH_BYTES * len(wkb) // max(wkb.nbytes, 1)))
            yield wkb


def _estimate(
    connection: Connection, oid: int, schema: str, table: str, described: GeometryFacts | None
) -> tuple[int, _Geometry] | None:
    """What statistics say; ``None`` where there are none."""
    (rows,) = one(
        connection,
        "select sum(c.reltuples) from pg_class c where c.reltuples >= 0 and c.relkind = 'r' and (c.oid = %(oid)s"
        " or c.oid in (select relid from pg_partition_tree(%(oid)s)))",
        {"oid": oid},
    )
    if rows is None:
        return None
    if described is None:
        return int(rows), _Geometry()
    box = _estimated_box(connection, schema, table, described.name)
    if box is None:
        return None
    builder = _builder(connection, described.srid)
    if builder is not None:
        builder.add(pa.array([_outline(box)], pa.binary()))
    types = () if described.type == "Geometry" else (described.type,)
    return int(rows), _located(types, described.srid, box, builder)


def _estimated_box(connection: Connection, schema: str, table: str, column: str) -> Box | None:
    try:
        with connection.transaction():
            row = one(
                connection,
                "select st_xmin(box), st_ymin(box), st_xmax(box), st_ymax(box)"
                " from (select st_estimatedextent(%s, %s, %s) box) found",
                (schema, table, column),
            )
    except (psycopg.InternalError, psycopg.ProgrammingError):
        # it does not know all names, nor views
        return None
    return None if row[0] is None else (row[0], row[1], row[2], row[3])


def _outline(box: Box) -> bytes:
    left, bottom, right, top = box
    flat = left == right or bottom == top
    return bytes(shapely.to_wkb(shapely.LineString([(left, bottom), (right, top)]) if flat else shapely.box(*box)))


def _located(types: tuple[str, ...], srid: int | None, native: Box, builder: FootprintBuilder | None) -> _Geometry:
    return _Geometry(
        types=types,
        srid=srid,
        native_bbox=native,
        bbox=None if builder is None else builder.bbox,
        footprint=None if builder is None else builder.footprint,
    )


def _builder(connection: Connection, srid: int | None) -> FootprintBuilder | None:
    """What finds the place on Earth; ``None`` where nothing says how."""
    if srid is None:
        return None
    try:
        return FootprintBuilder(_crs(connection, srid))
    except (pyproj.exceptions.CRSError, VectorRefusedError):
        return None


def _crs(connection: Connection, srid: int) -> pyproj.CRS:
    row = connection.execute(
        "select auth_name, auth_srid, srtext from spatial_ref_sys where srid = %s", (srid,)
    ).fetchone()
    if row is None or row[0] in (None, "EPSG", "ESRI"):
        return pyproj.CRS.from_authority(*((row[0], row[1]) if row is not None and row[0] else ("EPSG", srid)))
    return pyproj.CRS.from_wkt(row[2])
