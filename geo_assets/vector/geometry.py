"""Geometries checked, repaired, reprojected and brought into range, every change counted.

What belongs here: what is done to the geometries of a layer, batch by batch, and the account of it.  What does not:
geometry as bytes (``wkb``), whether numbers can be coordinates (``coordinates``), cutting at ±180 (``dateline``), and
making the rows those of one column, which is decided when the whole layer is known (``wkb.conform``).

Bytes that need no change are handed on as they are.  2D points never become objects.  Peak memory is about five times
the batch, most of it the objects and their coordinates.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final, Literal, cast, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyproj
import shapely
from shapely.errors import GEOSException

from geo_assets.errors import ParameterError, VectorRefusedError
from geo_assets.vector import dateline, wkb
from geo_assets.vector.coordinates import (
    Reprojection,
    StrayDegrees,
    explain_impossible,
    impossible,
    in_degrees,
    layer_doubt,
)
from geo_assets.vector.table import Dimensions

__all__ = [
    "AREA",
    "LINE",
    "NO_DIMENSION",
    "POINT",
    "GeometryOptions",
    "GeometryPreparer",
    "KindFacts",
    "PreparedGeometries",
]

POINT: Final = 0
LINE: Final = 1
AREA: Final = 2
NO_DIMENSION: Final = 255
"""Dimension of rows without geometry before any that has one."""

_EXAMPLES: Final = 10
_CURVED: Final = range(8, 18)
_COLLECTION_ID: Final = 7
"""Of shapely's type ids, which are not WKB's."""
_NAMES: Final = ("Point", "LineString", "", "Polygon", "MultiPoint", "MultiLineString", "MultiPolygon")
"""By shapely's type id."""
_CHANGES: Final = (
    "null",
    "empty",
    "impossible",
    "repaired",
    "repaired_moved",
    "collapsed",
    "dropped_invalid",
    "kept_invalid",
    "split_collections",
    "linearised",
    "reprojected",
    "wrapped_longitudes",
    "split_antimeridian",
    "reoriented",
    "lost_z",
    "lost_m",
)

type _Rows = npt.NDArray[np.int64]
type _Mask = npt.NDArray[np.bool_]
type _Floats = npt.NDArray[np.float64]
type _Geometries = npt.NDArray[np.object_]
type _Dimensions = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class GeometryOptions:
    """What is done to geometries that a table should not have."""

    null_geometries: Literal["drop", "keep", "refuse"] = "drop"
    """Rows without geometry, or with an empty one; kept, both are null."""
    invalid_geometries: Literal["repair", "drop", "keep", "refuse"] = "repair"
    """Self-intersections, open rings and the like. Repair keeps the structure; what collapses (an area without area) is
    dropped. Open rings are closed even where invalid ones are kept, and what cannot be read at all is dropped."""
    impossible_coordinates: Literal["refuse", "drop"] = "refuse"
    """Rows with NaN, infinity, or what cannot be a place in the CRS. A layer whose coordinates all contradict its CRS
    (degrees in metres, both exchanged) is refused either way."""
    collections: Literal["refuse", "split"] = "refuse"
    """GeometryCollections; split, a row becomes one a dimension, all its points, all its lines, all its areas."""
    mixed_dimensions: Literal["refuse", "split"] = "refuse"
    """Points, lines and areas in one layer; rows are told apart here, and the caller decides at the end."""
    dimensions: Literal["auto", "XY", "XYZ", "keep"] = "auto"
    """``auto``: Z, and M, where any row has one that is neither 0 nor NaN."""
    orient: bool = True
    """Shells counter-clockwise and holes clockwise, as RFC 7946 has it."""
    antimeridian: bool = True
    """In degrees: longitudes within ±180, and what crosses the antimeridian cut there."""

    def __post_init__(self) -> None:
        """Check what JSON gave."""
        hints = get_type_hints(type(self))
        for one in fields(self):
            value, hint = getattr(self, one.name), hints[one.name]
            allowed: tuple[Any, ...] = (True, False) if hint is bool else get_args(hint)
            if not isinstance(value, bool if hint is bool else str) or value not in allowed:
                raise ParameterError(f"{one.name} is {value!r}: give one of {', '.join(map(repr, allowed))}")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "GeometryOptions":
        """The inverse of :meth:`as_dict`; what is not there has its default.

        Raises:
            ParameterError: an option is unknown, or has a value that there is not.
        """
        unknown = sorted(set(values) - {one.name for one in fields(cls)})
        if unknown:
            raise ParameterError(f"unknown geometry options: {', '.join(unknown)}")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class PreparedGeometries:
    """What became of the geometries of a batch."""

    wkb: pa.BinaryArray
    """Plain WKB; null where there is no geometry."""
    source: _Rows | None
    """For each output the index of its row in the batch, ascending; ``None``: each row is where it was."""
    dimension: npt.NDArray[np.uint8]
    """For each output :data:`POINT`, :data:`LINE` or :data:`AREA`.  A row that is kept without geometry goes with the
    lowest of its batch, else with that of the batch before; :data:`NO_DIMENSION` only where none was seen yet."""


@dataclass(frozen=True, kw_only=True)
class KindFacts:
    """What is known, after all batches, of the outputs of one dimension."""

    count: int
    types: Mapping[str, int]
    """Type → how many: ``{"Polygon": 3, "MultiPolygon": 1}``."""
    type: str
    """That takes all: single where all are, else multi; ``Geometry`` where there is none."""
    dimensions: Dimensions
    """That a table should have, by the option."""
    has_z: int
    has_m: int
    flattened: int
    """Rows that lose Z or M in these dimensions."""
    filled_z: int
    """Rows that get a Z of 0 in these dimensions."""


@dataclass
class _Kind:
    types: Counter[str] = field(default_factory=Counter)
    by_dimensions: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    real_z: bool = False
    real_m: bool = False


@dataclass
class _Tally:
    count: int = 0
    examples: list[int] = field(default_factory=list)

    def add(self, numbers: npt.NDArray[np.int64]) -> None:
        self.count += len(numbers)
        self.examples += numbers[: _EXAMPLES - len(self.examples)].tolist()


@dataclass
class _Account:
    """What happened to the rows of one dimension."""

    rows_out: int = 0
    dropped: int = 0
    added: int = 0
    tallies: dict[str, _Tally] = field(default_factory=lambda: {name: _Tally() for name in _CHANGES})
    reasons: Counter[str] = field(default_factory=Counter)
    invalid: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Live:
    """Geometries on their way, all parallel."""

    geometries: _Geometries
    source: _Rows
    touched: _Mask
    opened: _Mask
    """Had an open ring, which is closed by now."""

    across: _Mask
    """Has, or for a while had, longitudes beyond the antimeridian."""

    dimension: _Dimensions
    """That it had first, which nothing changes: what is left of it is of this one, or empty."""

    @classmethod
    def untouched(cls, geometries: _Geometries, source: _Rows) -> "_Live":
        touched, opened, across = np.zeros((3, len(source)), bool)
        return cls(geometries, source, touched, opened, across, shapely.get_dimensions(geometries).astype(np.uint8))

    def where(self, rows: _Mask | _Rows) -> "_Live":
        if rows.dtype == bool and rows.all():
            return self
        return _Live(*(part[rows] for part in self.parts))

    @property
    def parts(self) -> tuple[Any, ...]:
        return self.geometries, self.source, self.touched, self.opened, self.across, self.dimension

    def put(self, at: Any, geometries: Any) -> None:
        self.geometries[at] = geometries
        self.touched[at] = True


class GeometryPreparer:
    """Prepares the geometries of one layer, batch by batch, in order.

    Args:
        options: what is done to what.
        source_crs: of the layer.
        target_crs: wanted.

    Raises:
        VectorRefusedError: ``CRS_UNUSABLE``: there is no way between the CRSs.
    """

    def __init__(self, options: GeometryOptions, *, source_crs: pyproj.CRS, target_crs: pyproj.CRS) -> None:
        self.options = options
        self._reprojection = Reprojection(source_crs, target_crs)
        self._source_degrees = in_degrees(self._reprojection.source)
        self._target_degrees = in_degrees(self._reprojection.target)
        self._planar = not self._reprojection.source.is_geographic
        self._kinds = {dimension: _Kind() for dimension in (POINT, LINE, AREA)}
        self._accounts = {dimension: _Account() for dimension in (*self._kinds, NO_DIMENSION)}
        self._last_dimension = NO_DIMENSION
        self._first_row = 1
        self._looked_at_layer = False
        self._stray_degrees = StrayDegrees(self._reprojection.source)

    def prepare(self, column: pa.BinaryArray, *, first_row: int) -> PreparedGeometries:
        """Prepare a batch.

        Args:
            column: WKB of any flavour, or null.
            first_row: number of its first row in the layer, counted from 1; for the report and for messages.

        Raises:
            VectorRefusedError: by its ``code``: ``NULL_GEOMETRIES``, ``INVALID_GEOMETRIES``, ``GEOMETRY_COLLECTION``
                (as the options say), ``COORDINATES_CONTRADICT_CRS``, ``CURVES``; names rows.
        """
        self._first_row = first_row
        null = self._nulls(column)
        present, source = column, np.arange(len(column))
        if column.null_count:
            source = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            present = column.drop_null()
        points = wkb.points_of(present)
        if points is not None:
            out, source, empty = self._points(column, points, source)
            dimension = np.full(len(source), POINT, np.uint8)
        else:
            out, source, empty, dimension = self._shapes(column, source)
        if len(dimension):
            self._last_dimension = int(dimension.min())
        kept = np.concatenate([null, empty])
        if len(kept):
            self._count("null", null, self._last_dimension)
            self._count("empty", empty, self._last_dimension)
            source = np.concatenate([source, kept])
            dimension = np.concatenate([dimension, np.full(len(kept), self._last_dimension, np.uint8)])
            order = np.argsort(source, kind="stable")
            nulls = pa.nulls(len(kept), pa.binary())
            out = pa.concat_arrays([out, nulls]).take(order)
            source, dimension = source[order], dimension[order]
        for account, rows in self._by_dimension(dimension):
            account.rows_out += len(rows)
        return PreparedGeometries(wkb=out, source=None if _is_all(source, len(column)) else source, dimension=dimension)

    def facts(self, dimension: int) -> KindFacts:
        """What is known by now of the outputs of a dimension: :data:`POINT`, :data:`LINE` or :data:`AREA`."""
        kind = self._kinds[dimension]
        has_z = sum(count for (z, _), count in kind.by_dimensions.items() if z)
        has_m = sum(count for (_, m), count in kind.by_dimensions.items() if m)
        z, m = {
            "auto": (kind.real_z, kind.real_m),
            "XY": (False, False),
            "XYZ": (True, False),
            "keep": (has_z > 0, has_m > 0),
        }[self.options.dimensions]
        types = {name: kind.types[name] for name in sorted(kind.types)}
        return KindFacts(
            count=sum(types.values()),
            types=types,
            type=_type_for(list(types)),
            dimensions=cast("Dimensions", "XY" + "Z" * z + "M" * m),
            has_z=has_z,
            has_m=has_m,
            flattened=sum(n for (has, had), n in kind.by_dimensions.items() if (has and not z) or (had and not m)),
            filled_z=sum(n for (has, _), n in kind.by_dimensions.items() if z and not has),
        )

    def report(self, dimension: int | None = None) -> dict[str, Any]:
        """The account, as plain JSON.

        Each change has a ``count`` and ``examples``, the numbers of the first rows it happened to (but for
        ``flattened`` and ``filled_z``, which are known at the end only); a row can be in several.

        Rows add up: ``rows_out = rows_in + rows_added - rows_dropped``, where ``rows_added`` are those that splitting
        collections made, and ``rows_dropped`` is the sum of ``collapsed``, ``dropped_invalid`` and ``impossible``, and
        of ``null`` and ``empty`` unless these are kept.

        Args:
            dimension: only of the outputs of this one; what has no outputs, or was dropped before its dimension was
                known, is in the report of the lowest that has some. ``None``: of all.
        """
        which = list(self._accounts) if dimension is None else self._told_with(dimension)
        accounts = [self._accounts[one] for one in which]
        facts = [self.facts(one) for one in which if one != NO_DIMENSION]
        rows_out, dropped = sum(one.rows_out for one in accounts), sum(one.dropped for one in accounts)
        added = sum(one.added for one in accounts)
        reasons = sum((one.reasons for one in accounts), Counter[str]())
        invalid = sorted((found for one in accounts for found in one.invalid), key=lambda found: int(found["row"]))
        return {
            "rows_in": rows_out + dropped - added,
            "rows_out": rows_out,
            "rows_dropped": dropped,
            "rows_added": added,
            **{name: _told([one.tallies[name] for one in accounts]) for name in _CHANGES},
            "flattened": {"count": sum(one.flattened for one in facts)},
            "filled_z": {"count": sum(one.filled_z for one in facts)},
            "invalid_reasons": dict(reasons.most_common()),
            "invalid_examples": invalid[:_EXAMPLES],
            "notes": list(self._reprojection.notes),
        }

    def _told_with(self, dimension: int) -> list[int]:
        """Of which dimensions the report of one tells."""
        tables = [one for one in self._kinds if self._accounts[one].rows_out] or [NO_DIMENSION]
        if dimension != tables[0]:
            return [dimension]
        return [dimension, *(one for one in self._accounts if one not in tables)]

    # what both ways share

    def _by_dimension(self, dimension: _Dimensions) -> Iterator[tuple[_Account, _Rows]]:
        """For each dimension that there is, which are of it."""
        for which, account in self._accounts.items():
            rows = np.flatnonzero(dimension == which)
            if len(rows):
                yield account, rows

    def _count(self, change: str, source: _Rows, dimension: int | _Dimensions) -> None:
        numbers = source + self._first_row
        for account, rows in self._by_dimension(np.broadcast_to(np.uint8(dimension), len(source))):
            account.tallies[change].add(numbers[rows])

    def _drop(self, change: str, source: _Rows, dimension: int | _Dimensions) -> None:
        self._count(change, source, dimension)
        for account, rows in self._by_dimension(np.broadcast_to(np.uint8(dimension), len(source))):
            account.dropped += len(rows)

    def _note(self, change: str, live: _Live) -> None:
        self._count(change, live.source, live.dimension)

    def _nulls(self, column: pa.BinaryArray) -> _Rows:
        """Drop the null rows, or return them to be kept."""
        if not column.null_count:
            return np.zeros(0, np.int64)
        rows = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
        return self._without_geometry("null", rows)

    def _without_geometry(self, change: str, rows: _Rows) -> _Rows:
        if self.options.null_geometries == "refuse" and len(rows):
            what = "no geometry" if change == "null" else "an empty geometry"
            raise VectorRefusedError(
                f"{self._named(rows)} {what}: correct them, or let null_geometries be 'drop' or 'keep'",
                code="NULL_GEOMETRIES",
            )
        if self.options.null_geometries == "keep":
            return rows
        self._drop(change, rows, NO_DIMENSION)
        return rows[:0]

    def _named(self, rows: _Rows) -> str:
        first = ", ".join(str(row) for row in (rows[:5] + self._first_row).tolist())
        if len(rows) == 1:
            return f"row {first} has"
        return f"{len(rows)} rows so far ({first}{', …' if len(rows) > 5 else ''}) have"  # noqa: PLR2004

    def _impossible(self, rows: _Rows, dimension: int | _Dimensions, xy: _Floats, of_row: _Rows) -> None:
        """Refuse or count rows with impossible coordinates.

        Args:
            rows: them.
            dimension: of each, or of all.
            xy: the impossible coordinates, as the file has them.
            of_row: the row of each.
        """
        if self.options.impossible_coordinates == "refuse":
            first = f"row {int(of_row[0]) + self._first_row}: {xy[0, 0]:.10g}, {xy[0, 1]:.10g}"
            what = explain_impossible(xy, self._reprojection)
            raise VectorRefusedError(
                f"{self._named(rows)} coordinates that {what} ({first})", code="COORDINATES_CONTRADICT_CRS"
            )
        self._drop("impossible", rows, dimension)

    def _bad(self, xy: _Floats) -> _Mask | None:
        """Which coordinates cannot be any; ``None``: all can."""
        bad, stray = impossible(xy, self._reprojection.source), self._stray_degrees(xy)
        return stray if bad is None else bad if stray is None else bad | stray

    def _look_at_layer(self, xy: _Floats, source: _Rows) -> None:
        """Doubt the layer by the first rows that have coordinates; of later ones each is doubted by itself."""
        if self._looked_at_layer or not len(xy):
            return
        self._looked_at_layer = True
        doubt = layer_doubt(xy, self._reprojection.source)
        if doubt is not None:
            example = f"row {int(source[0]) + self._first_row}: {xy[0, 0]:.10g}, {xy[0, 1]:.10g}"
            raise VectorRefusedError(f"the coordinates {doubt} ({example})", code="COORDINATES_CONTRADICT_CRS")

    # 2D points, as numbers

    def _points(self, column: pa.BinaryArray, xy: _Floats, source: _Rows) -> tuple[pa.BinaryArray, _Rows, _Rows]:
        kept_empty = source[:0]
        if not np.isfinite(xy).all():
            empty = np.isnan(xy).all(axis=1)
            kept_empty = self._without_geometry("empty", source[empty])
            xy, source = xy[~empty], source[~empty]
        bad = self._bad(xy)
        if bad is not None:
            self._impossible(source[bad], POINT, xy[bad], source[bad])
            xy, source = xy[~bad], source[~bad]
        self._look_at_layer(xy, source)
        changed = False
        if self._reprojection.needed and len(xy):
            before, xy, changed = xy, self._reprojection(xy), True
            lost = ~np.isfinite(xy).all(axis=1)
            if lost.any():
                self._impossible(source[lost], POINT, before[lost], source[lost])
                xy, source = xy[~lost], source[~lost]
            self._count("reprojected", source, POINT)
        changed |= self._wrap_points(xy, source)
        kind = self._kinds[POINT]
        kind.types["Point"] += len(xy)
        kind.by_dimensions[False, False] += len(xy)
        return wkb.from_points(xy) if changed else _taken(column, source), source, kept_empty

    def _wrap_points(self, xy: _Floats, source: _Rows) -> bool:
        if not (self._target_degrees and self.options.antimeridian):
            return False
        beyond = np.abs(xy[:, 0]) > 180  # noqa: PLR2004
        if not beyond.any():
            return False
        self._count("wrapped_longitudes", source[beyond], POINT)
        xy[:, 0] = _wrapped(xy[:, 0])
        return True

    # everything else, as geometry objects

    def _shapes(
        self, column: pa.BinaryArray, source: _Rows
    ) -> tuple[pa.BinaryArray, _Rows, _Rows, npt.NDArray[np.uint8]]:
        live = self._read(column, source)
        empty = shapely.is_empty(live.geometries)
        kept_empty = self._without_geometry("empty", live.source[empty])
        live = self._collections(self._possible(live.where(~empty)))
        if self._source_degrees:
            # an area across the antimeridian is valid, or not, as it lies there
            if self._target_degrees:
                live = self._reproject(live)
            self._make_continuous(live)
            live = self._valid(live)
        if not (self._source_degrees and self._target_degrees):
            live = self._reproject(live if self._source_degrees else self._valid(live))
        if self._target_degrees and not (self._source_degrees or self._planar):
            self._make_continuous(live)
        live = self._mend_moved(live)
        if self._target_degrees:
            self._bring_into_range(live)
        else:
            # what was taken to go across is the same place in other words, but it was taken so
            self._note("wrapped_longitudes", live.where(live.across))
        live = self._without_collapsed(live)
        self._orient(live)
        self._learn(live)
        if live.touched.all():
            out = wkb.from_shapely(live.geometries)
        else:
            out = _taken(column, live.source)
            if live.touched.any():
                out = wkb.replace_rows(out, live.touched, wkb.from_shapely(live.geometries[live.touched]))
        return out, live.source, kept_empty, live.dimension

    def _without_collapsed(self, live: _Live) -> _Live:
        collapsed = shapely.is_empty(live.geometries)
        self._drop("collapsed", live.source[collapsed], live.dimension[collapsed])
        return live.where(~collapsed)

    def _read(self, column: pa.BinaryArray, source: _Rows) -> _Live:
        present = column.drop_null() if column.null_count else column
        curved = np.isin(wkb.kinds_of(present) % 1000, _CURVED)
        if curved.any():
            raise self._curves(source[curved])
        values = present.to_numpy(zero_copy_only=False)
        opened = np.zeros(len(values), bool)
        try:
            geometries = wkb.read(values)
        except GEOSException:
            geometries = wkb.read(values, on_invalid="ignore")
            opened = shapely.is_missing(geometries)
            geometries[opened] = wkb.read(values[opened], on_invalid="fix")
        curved = shapely.get_type_id(geometries) == _COLLECTION_ID
        curved[curved] = [_is_curved(one) for one in geometries[curved]]
        if curved.any():
            raise self._curves(source[curved])
        lost = shapely.is_missing(geometries)
        if lost.any():
            rows = source[lost]
            self._refuse_invalid(rows, "cut off, or a line or ring of too few points")
            unknown = np.full(len(rows), NO_DIMENSION, np.uint8)
            self._note_invalid(rows, unknown, np.full(len(rows), "Unreadable", object))
            self._drop("dropped_invalid", rows, NO_DIMENSION)
        live = _Live.untouched(geometries, source)
        live.touched, live.opened = ~wkb.is_plain(present) | opened, opened
        return live.where(~lost)

    def _curves(self, rows: _Rows) -> VectorRefusedError:
        return VectorRefusedError(
            f"{self._named(rows)} curved or triangulated geometry, which tables do not take: convert the layer first,"
            " for instance with ogr2ogr -nlt CONVERT_TO_LINEAR",
            code="CURVES",
        )

    def _possible(self, live: _Live) -> _Live:
        xy = shapely.get_coordinates(live.geometries)
        bad = self._bad(xy)
        if bad is None:
            self._look_at_layer(xy, live.source)
            return live
        _, index = shapely.get_coordinates(live.geometries, return_index=True)
        live = live.where(self._without_impossible(live, xy[bad], index[bad]))
        self._look_at_layer(xy[~bad], live.source)
        return live

    def _without_impossible(self, live: _Live, xy: _Floats, index: _Rows) -> _Mask:
        """The rows that are left."""
        rows = np.unique(index)
        self._impossible(live.source[rows], live.dimension[rows], xy, live.source[index])
        good = np.ones(len(live.source), bool)
        good[rows] = False
        return good

    def _reproject(self, live: _Live) -> _Live:
        if not self._reprojection.needed or not len(live.source):
            return live
        before = live.geometries
        live.geometries = wkb.moved(before, self._reprojection)
        live.touched[:] = True
        xy = shapely.get_coordinates(live.geometries)
        if not np.isfinite(xy).all():
            lost = ~np.isfinite(xy).all(axis=1)
            xy, index = shapely.get_coordinates(before, return_index=True)
            good = self._without_impossible(live, xy[lost], index[lost])
            live, before = live.where(good), before[good]
        self._note("reprojected", live)
        if self._planar and self._target_degrees:
            self._make_continuous(live, before)
        return live

    def _mend_moved(self, live: _Live) -> _Live:
        """See to what was valid before it was reprojected: vertices that nearly met may have met, or crossed."""
        if not self._reprojection.needed or self.options.invalid_geometries == "keep":
            return live
        wrong = ~shapely.is_valid(live.geometries)
        if not wrong.any():
            return live
        if self.options.invalid_geometries != "repair":
            return self._without_invalid(live, wrong, shapely.is_valid_reason(live.geometries[wrong]))
        self._repair(live, wrong)
        self._note("repaired_moved", live.where(wrong))
        return live

    def _without_invalid(self, live: _Live, bad: _Mask, reasons: _Geometries) -> _Live:
        """Refuse or drop what is invalid."""
        self._refuse_invalid(live.source[bad], str(reasons[0]))
        self._note_invalid(live.source[bad], live.dimension[bad], reasons)
        self._drop("dropped_invalid", live.source[bad], live.dimension[bad])
        return live.where(~bad)

    def _repair(self, live: _Live, wrong: _Mask) -> None:
        self._exchange(live, np.flatnonzero(wrong), _repaired(live.geometries[wrong]))

    def _exchange(self, live: _Live, at: _Rows, geometries: _Geometries) -> None:
        """Put geometries for others, which may lose Z and M in what makes them."""
        before = live.geometries[at]
        there = ~shapely.is_empty(geometries)
        for change, has, values in (("lost_z", shapely.has_z, _z_of), ("lost_m", shapely.has_m, _m_of)):
            had = has(before) & there
            if had.any():
                had[had] = ~has(geometries[had]) | (_unknown(values, geometries[had]) > _unknown(values, before[had]))
                self._note(change, live.where(at[had]))
        live.put(at, geometries)

    def _collections(self, live: _Live) -> _Live:
        collection = shapely.get_type_id(live.geometries) == _COLLECTION_ID
        if not collection.any():
            return live
        if self.options.collections == "refuse":
            raise VectorRefusedError(
                f"{self._named(live.source[collection])} a GeometryCollection, which no typed column takes:"
                " let collections be 'split'",
                code="GEOMETRY_COLLECTION",
            )
        made, of_row = _split(live.geometries[collection])
        new = _Live.untouched(made, live.source[collection][of_row])
        new.touched[:] = True
        new = new.where(np.argsort(new.source, kind="stable"))
        more = np.diff(new.source, prepend=-1) == 0
        self._note("split_collections", new.where(~more))
        for account, rows in self._by_dimension(new.dimension[more]):
            account.added += len(rows)
        rest = live.where(~collection)
        joined = _Live(*(np.concatenate(pair) for pair in zip(rest.parts, new.parts, strict=True)))
        return joined.where(np.argsort(joined.source, kind="stable"))

    def _valid(self, live: _Live) -> _Live:
        wrong = ~shapely.is_valid(live.geometries)
        bad = wrong | live.opened
        if not bad.any():
            return live
        reasons = np.full(len(bad), "Ring not closed", object)
        reasons[wrong] = shapely.is_valid_reason(live.geometries[wrong])
        reasons = reasons[bad]
        if self.options.invalid_geometries in ("drop", "refuse"):
            return self._without_invalid(live, bad, reasons)
        self._note_invalid(live.source[bad], live.dimension[bad], reasons)
        if self.options.invalid_geometries == "keep":
            self._note("kept_invalid", live.where(wrong))
            self._note("repaired", live.where(live.opened & ~wrong))
            return live
        self._repair(live, wrong)
        self._note("repaired", live.where(bad & ~shapely.is_empty(live.geometries)))
        return self._without_collapsed(live)

    def _refuse_invalid(self, rows: _Rows, reason: str) -> None:
        if self.options.invalid_geometries == "refuse":
            raise VectorRefusedError(
                f"{self._named(rows)} an invalid geometry (row {int(rows[0]) + self._first_row}: {reason}): correct it,"
                " or let invalid_geometries be 'repair' or 'drop'",
                code="INVALID_GEOMETRIES",
            )

    def _note_invalid(self, rows: _Rows, dimension: _Dimensions, reasons: _Geometries) -> None:
        for account, these in self._by_dimension(dimension):
            account.reasons.update(str(reason).split("[")[0] for reason in reasons[these])
            first = these[: _EXAMPLES - len(account.invalid)]
            numbers = (rows[first] + self._first_row).tolist()
            account.invalid += [
                {"row": row, "reason": reason} for row, reason in zip(numbers, reasons[first].tolist(), strict=True)
            ]

    def _make_continuous(self, live: _Live, planar: _Geometries | None = None) -> None:
        """Let lines and areas go across the antimeridian, where they do for certain.

        Args:
            live: in degrees.
            planar: the same geometries as they were in a plane; ``None``: they were in degrees always.
        """
        if not self.options.antimeridian:
            return
        west, _, east, _ = shapely.bounds(live.geometries).T
        widest = 180 if planar is None else 90
        wide = (east - west > widest) & (live.dimension > POINT)
        for at in np.flatnonzero(wide):
            before = live.geometries[at]
            whole = (
                dateline.continuous(before)
                if planar is None
                else dateline.followed(before, planar[at], self._reprojection)
            )
            if whole is not before:
                self._exchange(live, np.array([at]), np.array([whole], object))
                live.across[at] = True

    def _bring_into_range(self, live: _Live) -> None:
        if not self.options.antimeridian:
            return
        west, _, east, _ = shapely.bounds(live.geometries).T
        beyond = (west < -180) | (east > 180)  # noqa: PLR2004
        points = live.dimension == POINT
        at = beyond & points
        if at.any():
            live.put(at, wkb.moved(live.geometries[at], lambda xy: np.column_stack([_wrapped(xy[:, 0]), xy[:, 1]])))
            live.across |= at
        for row in np.flatnonzero(beyond & ~points):
            self._cut(live, int(row))
        if live.across.any():
            west, _, east, _ = shapely.bounds(live.geometries).T
            cut = live.across & ~points & (west == -180) & (east == 180)  # noqa: PLR2004
            self._note("split_antimeridian", live.where(cut))
            self._note("wrapped_longitudes", live.where(live.across & ~cut))

    def _cut(self, live: _Live, at: int) -> None:
        whole = live.geometries[at]
        # what is invalid here was to be kept so
        if shapely.is_valid(whole):
            self._exchange(live, np.array([at]), np.array([dateline.within_range(whole)], object))
            live.across[at] = True

    def _orient(self, live: _Live) -> None:
        areas = np.flatnonzero(live.dimension == AREA)
        if not self.options.orient or not len(areas):
            return
        before = live.geometries[areas]
        after = shapely.orient_polygons(before)
        wrong = ~shapely.equals_identical(before, after)
        if wrong.any():
            live.put(areas[wrong], after[wrong])
            self._note("reoriented", live.where(areas[wrong]))

    def _learn(self, live: _Live) -> None:
        for which, kind in self._kinds.items():
            of_kind = live.dimension == which
            if not of_kind.any():
                continue
            geometries = live.geometries if of_kind.all() else live.geometries[of_kind]
            for code, count in enumerate(np.bincount(shapely.get_type_id(geometries)).tolist()):
                if count:
                    kind.types[_NAMES[code]] += count
            has_z, has_m = shapely.has_z(geometries), shapely.has_m(geometries)
            for code, count in enumerate(np.bincount(has_z + 2 * has_m, minlength=4).tolist()):
                kind.by_dimensions[bool(code & 1), bool(code & 2)] += count
            kind.real_z = kind.real_z or _real(shapely.get_coordinates(geometries[has_z], include_z=True)[:, 2])
            kind.real_m = kind.real_m or _real(shapely.get_coordinates(geometries[has_m], include_m=True)[:, 2])


def _real(values: _Floats) -> bool:
    return bool(((values != 0) & ~np.isnan(values)).any())


def _told(tallies: Sequence[_Tally]) -> dict[str, Any]:
    examples = sorted(row for tally in tallies for row in tally.examples)
    return {"count": sum(tally.count for tally in tallies), "examples": examples[:_EXAMPLES]}


def _z_of(geometries: _Geometries) -> tuple[_Floats, _Rows]:
    coordinates, index = shapely.get_coordinates(geometries, include_z=True, return_index=True)
    return coordinates[:, 2], index


def _m_of(geometries: _Geometries) -> tuple[_Floats, _Rows]:
    coordinates, index = shapely.get_coordinates(geometries, include_m=True, return_index=True)
    return coordinates[:, 2], index


def _unknown(values_of: Callable[[_Geometries], tuple[_Floats, _Rows]], geometries: _Geometries) -> _Rows:
    """How many NaN each geometry has."""
    values, index = values_of(geometries)
    return np.bincount(index[np.isnan(values)], minlength=len(geometries))


def _taken(column: pa.BinaryArray, source: _Rows) -> pa.BinaryArray:
    """The rows of a column; itself where these are all."""
    return column if _is_all(source, len(column)) else column.take(source)


def _is_all(source: _Rows, rows: int) -> bool:
    return len(source) == rows and bool((source == np.arange(rows)).all())


def _wrapped(longitudes: _Floats) -> _Floats:
    beyond = np.abs(longitudes) > 180  # noqa: PLR2004
    return np.where(beyond, longitudes - 360 * np.sign(longitudes), longitudes)


def _is_curved(collection: Any) -> bool:
    """Whether there is a curve in a collection, where GEOS reads it but can do nothing with it."""
    try:
        shapely.get_coordinates(collection)
    except GEOSException:
        return True
    return False


def _repaired(geometries: _Geometries) -> _Geometries:
    """Valid geometries of the same dimensions, or empty ones."""
    made = cast("_Geometries", shapely.make_valid(geometries, method="structure", keep_collapsed=False))
    other = shapely.get_dimensions(made) != shapely.get_dimensions(geometries)
    made[other] = shapely.Point()
    return cast("_Geometries", shapely.orient_polygons(made))


def _split(collections: _Geometries) -> tuple[_Geometries, _Rows]:
    """All points, lines and areas of each collection as multi-geometries, and of which collection each is."""
    parts, of_row = collections, np.arange(len(collections))
    while (shapely.get_type_id(parts) > shapely.GeometryType.POLYGON).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        of_row = of_row[index]
    there = ~shapely.is_empty(parts)
    parts, of_row = parts[there], of_row[there]
    dimension = shapely.get_dimensions(parts)
    makers = (shapely.multipoints, shapely.multilinestrings, shapely.multipolygons)
    made, rows = [], []
    for which, make in enumerate(makers):
        these, index = np.unique(of_row[dimension == which], return_inverse=True)
        if len(these):
            made.append(make(parts[dimension == which], indices=index))
            rows.append(these)
    return np.concatenate(made), np.concatenate(rows)


def _type_for(types: list[str]) -> str:
    if not types:
        return "Geometry"
    return types[0] if len(types) == 1 else next(name for name in types if name.startswith("Multi"))
