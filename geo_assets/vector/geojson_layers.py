"""GeoJSON as layers: collections, features one after the other (lines, text sequences), single features and geometries.

What belongs here: features as Arrow batches: types of properties, the CRS, and which way a chunk of text is parsed.
What does not: finding features in text (``geojson_text``), coordinates as WKB (``geojson_shapes``).

A chunk of features is parsed by Arrow with the types known so far, which is fast, and strict: it refuses whatever has
another type.  A chunk it refuses is parsed by ``json``, which keeps whole numbers of any size, and tells what is new
or wrong.  Both ways give equal batches.  Properties that hold objects or lists are JSON text; dates and times are told
from text by the rules of ``text_values``, numbers are not.  Where geometries of different types come together, each
type is parsed by itself.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.json
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.geojson_shapes import DEPTHS, IrregularError, encode, pack
from geo_assets.vector.geojson_text import Chunk, GeoJsonText
from geo_assets.vector.layers import GEOMETRY, Layer, SchemaWidenedError, SourceField, bounded
from geo_assets.vector.text_files import look_at
from geo_assets.vector.text_values import JSON, MOMENTS, WHOLE, fit, infer, misfit, wider

__all__ = ["open_layers"]

pc: Any = pyarrow.compute  # whose stubs know fewer overloads than it has

_ID = "id"
_MEMBERS = ("type", "id", "properties", "geometry")
_EXACT = 2.0**53
_HEAD_ROWS = 1000
_INT64 = 2**63
_WHOLE = 10**38
_COORDINATES = re.compile(rb'"coordinates"\s*:\s*\[[\[\]\s\d.,eE+-]*\]')
_CUT = "\x00coordinates"
_CUT_TEXT = rb'"coordinates":"\\u0000coordinates"'
_TYPE = re.compile(
    rb'"type"\s*:\s*"(Point|MultiPoint|LineString|MultiLineString|Polygon|MultiPolygon|GeometryCollection)"'
)
_TYPES: dict[pa.DataType, set[type]] = {
    pa.bool_(): {bool},
    pa.int64(): {int},
    WHOLE: {int},
    pa.float64(): {int, float},
    **{kind: {str} for kind in MOMENTS},
}
_CRS_NAME = re.compile(
    r"(urn:(x-)?ogc:def:crs:)?(?P<authority>EPSG|OGC):[\d.]*:?(?P<code>\d{4,6}|CRS84)", re.IGNORECASE
)


def open_layers(
    path: Path,
    *,
    stem: str,
    encoding: str | None = None,
    types: "Mapping[str, pa.DataType] | None" = None,
    max_feature_bytes: int = 256 << 20,
) -> list[Layer]:
    """Open a GeoJSON file; it is one layer.

    Args:
        path: the file.
        stem: name of the layer.
        encoding: as Python names it; ``None``: UTF-8, which GeoJSON must be, unless it is found to be another.
        types: wider types that a :class:`SchemaWidenedError` asked for.
        max_feature_bytes: text of the largest feature that is read.

    Raises:
        VectorRefusedError: the file is empty, or is other JSON, of which the message says what.
        VectorUnreadableError: its beginning is damaged.
    """
    text = GeoJsonText(text=look_at(path, encoding=encoding), max_feature_bytes=max_feature_bytes)
    crs, notes = _crs_of(text.members)
    layer = _GeoJsonLayer(
        text=text,
        name=stem,
        crs=crs,
        features=_Features(name=path.name, bare=text.bare),
        opening_notes=(*text.text.notes, *notes),
    )
    first = next(text.chunks(), None)
    if first is not None:
        layer.features.learn(layer.features.load(first))
    layer.features.own_id |= _ID in (types or {}) and _ID not in layer.features.kinds
    for name, kind in (types or {}).items():
        layer.features.kinds[name] = wider(layer.features.kinds.get(name, pa.null()), kind)
    return [layer]


# --- the CRS ---------------------------------------------------------------------------------------------------


def _crs_of(members: Mapping[str, Any]) -> tuple[pyproj.CRS | None, tuple[str, ...]]:
    """Tell the CRS of a collection: what its old ``crs`` member says, else WGS 84."""
    if "crs" not in members:
        return pyproj.CRS.from_epsg(4326), ()
    member = members["crs"]
    properties = member.get("properties") if isinstance(member, dict) else None
    said = properties.get("name", properties.get("code")) if isinstance(properties, dict) else None
    name = f"EPSG:{said}" if isinstance(said, int) else str(said)
    found = _CRS_NAME.fullmatch(name.strip())
    if found is None:
        return None, (f"The member 'crs' names no CRS that is known: {json.dumps(member)[:100]}",)
    if found["code"].upper() == "CRS84":
        return pyproj.CRS.from_epsg(4326), ()
    try:
        return pyproj.CRS.from_epsg(int(found["code"])), ()
    except CRSError:
        return None, (f"The member 'crs' names a CRS that is not known: {name}",)


# --- features, by Arrow or by json -----------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Properties:
    """The properties of a chunk, as ``json`` gives them."""

    columns: dict[str, list[Any]]
    first: int
    arrays: "dict[str, pa.Array[Any]]" = field(default_factory=dict)
    """Those that have been made of their final type."""


class _UnlikeError(Exception):
    """A chunk is not what was seen so far, and is parsed by ``json``."""


@dataclass(kw_only=True)
class _Features:
    """What is known of a file's features, and how they are read."""

    name: str
    bare: bool
    kinds: dict[str, pa.DataType] = field(default_factory=dict)
    """Attributes and their types, in order."""
    own_id: bool = False
    """Whether the attribute ``id`` is that of the feature, not one of its properties."""
    left_out: set[str] = field(default_factory=set)
    """Members of features that are not read."""
    text_of: dict[str, str] = field(default_factory=dict)
    """Attribute → why it is text, where it has values that are none."""
    no_moments: dict[str, str] = field(default_factory=dict)
    """Attribute → why it is text, where it has dates or times."""
    _moments: dict[str, pa.DataType | None] = field(default_factory=dict)
    """Attribute that is text → what kind of dates or times it has; ``None``: none, or why it is text is known."""
    _depth: int = 1
    _mixed: bool = False

    # --- by Arrow

    def fast(self, chunk: Chunk) -> "tuple[list[pa.Array[Any]], pa.BinaryArray]":
        """Read attributes and geometry.

        Raises:
            _UnlikeError: one row is not as expected; nothing was read.
        """
        kinds = set(self.kinds.values())
        if self.bare or JSON in kinds or WHOLE in kinds or self.text_of:
            raise _UnlikeError
        parts = [(rows, self._parse(chunk, rows, depth, self._schema())) for rows, depth in self._groups(chunk)]
        try:
            shapes = [_encoded(table["geometry"].combine_chunks()) for _, table in parts]
        except IrregularError as error:
            raise _UnlikeError from error
        rows = [one for one, _ in parts]
        columns = [self._columns(table) for _, table in parts]
        whole = [_in_order([one[at] for one in columns], rows) for at in range(len(self.kinds))]
        read: list[Any] = [self._typed(values, kind) for values, kind in zip(whole, self.kinds.values(), strict=True)]
        return read, _in_order(shapes, rows)

    def _schema(self) -> list["pa.Field[Any]"]:
        def json_kind(kind: pa.DataType) -> pa.DataType:
            return pa.string() if kind in MOMENTS else kind

        names = [name for name in self.kinds if not (self.own_id and name == _ID)]
        fields = [
            pa.field("type", pa.string()),
            pa.field("properties", pa.struct([pa.field(name, json_kind(self.kinds[name])) for name in names])),
        ]
        return [*fields, pa.field(_ID, json_kind(self.kinds[_ID]))] if self.own_id else fields

    def _parse(
        self, chunk: Chunk, rows: "NDArray[np.int64] | None", depth: int, schema: "list[pa.Field[Any]]"
    ) -> pa.Table:
        """Parse some features whose geometries are equally deep.

        Raises:
            _UnlikeError: Arrow refuses, or finds something else than features of these properties.
        """
        table = _parsed(chunk, rows, depth, schema, strict=True)
        if table.num_rows != (len(chunk) if rows is None else len(rows)):
            raise _UnlikeError
        if not pc.all(pc.fill_null(pc.equal(table["type"], "Feature"), False)).as_py():  # noqa: FBT003
            raise _UnlikeError
        for one in schema:
            if table.schema.field(one.name).type != one.type:
                raise _UnlikeError
        extra = {name for name in table.column_names if name not in _MEMBERS}
        if _ID in table.column_names and not self.own_id:
            if _ID not in self.kinds:
                raise _UnlikeError
            extra.add(_ID)
        self.left_out |= extra
        return table

    def _columns(self, table: pa.Table) -> "list[pa.Array[Any]]":
        properties: Any = table["properties"].combine_chunks()
        values = dict(zip((one.name for one in properties.type), properties.flatten(), strict=True))
        if self.own_id:
            values[_ID] = table[_ID].combine_chunks()
        return [values[name] for name in self.kinds]

    def _typed(self, values: Any, kind: pa.DataType) -> "pa.Array[Any]":
        if kind in MOMENTS:
            values = fit(values, kind)
            if values is None:
                raise _UnlikeError
        if pa.types.is_floating(kind):
            large = pc.max(pc.abs(values)).as_py()
            if large is not None and large >= _EXACT:  # a whole number may have been rounded
                raise _UnlikeError
        typed: pa.Array[Any] = values.cast(_delivered(kind))
        return typed

    def _groups(self, chunk: Chunk) -> "Iterator[tuple[NDArray[np.int64] | None, int]]":
        """Rows whose geometries are equally deep, and how deep; ``None``: all rows."""
        if not self._mixed:
            depths = np.unique(_depths(chunk, self._depth)) if chunk.first == 0 else np.array([self._depth])
            if len(depths) == 1 and depths[0]:
                self._depth = int(depths[0])
                yield None, self._depth
                return
            self._mixed = True
        found = _depths(chunk, self._depth)
        if not found.all():
            raise _UnlikeError
        for depth in np.unique(found):
            yield np.flatnonzero(found == depth), int(depth)

    # --- by json

    def load(self, chunk: Chunk) -> _Properties:
        """Parse a chunk without its coordinates.

        Raises:
            VectorUnreadableError: a feature is no JSON or no feature; names it.
        """
        features = self._objects(chunk)
        columns: dict[str, list[Any]] = {name: [None] * len(features) for name in self.kinds}
        given = [self._given(feature, chunk.first + row) for row, feature in enumerate(features)]
        if not self.own_id and _ID not in self.kinds:
            self.own_id = any(_ID in one for one in features) and not any(_ID in one for one in given)
        for row, (feature, properties) in enumerate(zip(features, given, strict=True)):
            self.left_out |= feature.keys() - set(_MEMBERS)
            if _ID in feature and self.own_id and _ID not in properties:
                properties[_ID] = feature[_ID]
            elif _ID in feature:
                self.left_out.add(_ID)
            for name, value in properties.items():
                if name not in columns:
                    columns[name] = [None] * len(features)
                columns[name][row] = value
        return _Properties(columns=columns, first=chunk.first)

    def _objects(self, chunk: Chunk) -> list[dict[str, Any]]:
        if self.bare:
            if chunk.first or len(chunk) > 1:
                raise VectorUnreadableError(f"{self.name} is a geometry with more after it; give features instead")
            return [{"type": "Feature", "properties": {}}]
        return [self._object(chunk, row) for row in range(len(chunk))]

    def _object(self, chunk: Chunk, row: int) -> dict[str, Any]:
        text = chunk.feature(row)
        short, cuts = _COORDINATES.subn(_CUT_TEXT, text)
        try:
            found = _DECODER.decode(short.decode())
            geometry = found.get("geometry")
            if cuts != (isinstance(geometry, dict) and geometry.get("coordinates") == _CUT):
                found = _DECODER.decode(text.decode())  # what was cut is a property
        except (ValueError, RecursionError) as error:
            raise VectorUnreadableError(
                f"Feature {chunk.first + row + 1:,} of {self.name} is no JSON: {error}"
            ) from error
        return dict(found)

    def _given(self, feature: dict[str, Any], row: int) -> dict[str, Any]:
        """The properties of a feature."""
        properties = feature.get("properties", {})
        if feature.get("type") != "Feature" or not isinstance(properties, dict | None):
            raise self._no_feature(feature, row)
        return properties or {}

    def _no_feature(self, found: dict[str, Any], row: int) -> Exception:
        if "attributes" in found and "type" not in found:
            return VectorRefusedError(
                f"{self.name} is ESRI JSON, not GeoJSON; convert it with 'ogr2ogr -f GeoJSON'", code="NOT_GEOJSON"
            )
        kind = found.get("type")
        what = "has properties that are no object" if kind == "Feature" else f"is of type {str(kind)[:40]!r}"
        return VectorUnreadableError(f"Feature {row + 1:,} of {self.name} {what}")

    def learn(self, properties: _Properties) -> dict[str, pa.DataType]:
        """Take types that take these values as well; says which had to change."""
        changed = {}
        for name, values in properties.columns.items():
            known = self.kinds.get(name, pa.null())
            made = None if _takes_all(known) else _array(values, known)
            if made is not None:
                properties.arrays[name] = made
            kind = known if made is not None else wider(known, _kind_of(values))
            if not _takes_all(kind) and made is None and _array(values, kind) is None:
                kind = pa.string()
            if kind != known or name not in self.kinds:
                changed[name] = kind
        if self.own_id and _ID not in self.kinds:
            self.kinds = {_ID: pa.null(), **self.kinds}
        self.kinds |= changed
        return changed

    def slow(self, chunk: Chunk, properties: _Properties) -> "tuple[list[pa.Array[Any]], pa.BinaryArray]":
        """Make attributes of values that :meth:`learn` has seen, and read the geometry."""
        columns = []
        for name, kind in self.kinds.items():
            values = properties.columns[name]
            self._note_text(name, kind, values, properties.first)
            made = properties.arrays.get(name)
            made = made if made is not None else self._made(name, kind, values, properties.first)
            columns.append(made.cast(_delivered(kind)))
        return columns, self._shapes(chunk)

    def _made(self, name: str, kind: pa.DataType, values: list[Any], first: int) -> "pa.Array[Any]":
        try:
            made = _array(values, kind)
        except UnicodeEncodeError as error:
            bad = next(row for row, value in enumerate(values) if _has_half_characters(value))
            raise VectorUnreadableError(
                f"Feature {first + bad + 1:,} of {self.name} has half a character (a lone surrogate) in {name!r}"
            ) from error
        if made is None:
            raise AssertionError(f"{name!r} was not learnt")
        return made

    def _note_text(self, name: str, kind: pa.DataType, values: list[Any], first: int) -> None:
        """Say of a text column which value is none, once."""
        if not pa.types.is_string(kind) or name in self.text_of:
            return
        bad = next((row for row, value in enumerate(values) if not isinstance(value, str | None)), None)
        if bad is not None:
            self.text_of[name] = (
                f"Column {name!r} is text, as it has values of several types; feature {first + bad + 1:,} has "
                f"{json.dumps(values[bad])[:40]}"
            )

    def note_moments(self, columns: "list[pa.Array[Any]]", first: int) -> None:
        """Say of a text column that has dates or times which value is none, once."""
        for (name, kind), values in zip(self.kinds.items(), columns, strict=True):
            if not pa.types.is_string(kind) or name in self.text_of or values.null_count == len(values):
                continue
            if name not in self._moments:
                self._moments[name] = _moments_among(values)
            moment = self._moments[name]
            texts = cast("pa.StringArray", values)
            if moment is None or fit(texts, moment) is not None:
                continue
            bad = misfit(texts, moment)
            self.no_moments[name] = (
                f"Column {name!r} is text: it has values that are {moment}, but feature {first + bad + 1:,} has "
                f"{str(texts[bad])[:40]!r}"
            )
            self._moments[name] = None

    def _shapes(self, chunk: Chunk) -> "pa.BinaryArray":
        """Read geometries whatever the properties are."""
        if self.bare:
            return self._packed(chunk, np.arange(1))
        depths = _depths(chunk, self._depth)
        groups = [np.flatnonzero(depths == depth) for depth in np.unique(depths)]
        shapes = [self._shapes_of(chunk, rows, int(depths[rows[0]])) for rows in groups]
        joined: pa.BinaryArray = _in_order(shapes, [*groups])
        return joined

    def _shapes_of(self, chunk: Chunk, rows: NDArray[np.int64], depth: int) -> "pa.BinaryArray":
        if depth:
            try:
                table = _parsed(chunk, rows, depth, [], strict=False)
                if table.num_rows == len(rows):
                    return _encoded(table["geometry"].combine_chunks())
            except (_UnlikeError, IrregularError):
                pass
        return self._packed(chunk, rows)

    def _packed(self, chunk: Chunk, rows: NDArray[np.int64]) -> "pa.BinaryArray":
        packed = []
        for row in rows:
            try:
                found = _DECODER.decode(chunk.feature(int(row)).decode())
                packed.append(pack(found if self.bare else found.get("geometry")))
            except (ValueError, RecursionError) as error:
                raise VectorUnreadableError(
                    f"Feature {chunk.first + int(row) + 1:,} of {self.name} has no geometry that can be read: {error}"
                ) from error
        return pa.array(packed, pa.binary())


def _parsed(
    chunk: Chunk, rows: "NDArray[np.int64] | None", depth: int, schema: "list[pa.Field[Any]]", *, strict: bool
) -> pa.Table:
    coordinates: pa.DataType = pa.float64()
    for _ in range(depth):
        coordinates = pa.list_(coordinates)
    geometry = pa.field("geometry", pa.struct([pa.field("type", pa.string()), pa.field("coordinates", coordinates)]))
    text = pa.py_buffer(chunk.data if rows is None else chunk.text(rows))
    reader: Any = pa.BufferReader(text)
    try:
        return pyarrow.json.read_json(
            reader,
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=text.size + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema([*schema, geometry]),
                unexpected_field_behavior="infer" if strict else "ignore",
            ),
        )
    except pa.ArrowInvalid as error:
        raise _UnlikeError from error


def _encoded(geometry: Any) -> "pa.BinaryArray":
    """WKB of geometries that Arrow has parsed.

    Raises:
        IrregularError: one is none, or of a type of another depth.
    """
    types, coordinates = geometry.flatten()[:2]
    valid = types.is_valid()
    if geometry.null_count != types.null_count or coordinates.null_count != types.null_count:
        raise IrregularError("a geometry without type or coordinates")
    kinds = pc.unique(types).drop_null().to_pylist()
    depth = _nesting(coordinates.type)
    if any(DEPTHS.get(kind) != depth for kind in kinds):
        raise IrregularError("a geometry of another type")
    if len(kinds) == 1 and not types.null_count:
        return encode(kinds[0], coordinates)
    parts, rows = [pa.array([None] * types.null_count, pa.binary())], [np.flatnonzero(~_bools(valid))]
    for kind in kinds:
        of_kind = np.flatnonzero(_bools(pc.fill_null(pc.equal(types, kind), False)))  # noqa: FBT003
        parts.append(encode(kind, coordinates.take(pa.array(of_kind))))
        rows.append(of_kind)
    joined: pa.BinaryArray = _in_order(parts, [*rows])
    return joined


def _in_order(parts: "list[Any]", rows: "list[NDArray[np.int64] | None]") -> Any:
    """Put rows that were read in parts into the order they have in the file."""
    if len(parts) == 1 and rows[0] is None:
        return parts[0]
    places = np.concatenate([one for one in rows if one is not None])
    order = np.empty(len(places), np.int64)
    order[places] = np.arange(len(places))
    return pa.concat_arrays(parts).take(pa.array(order))


def _nesting(kind: Any) -> int:
    return 1 + _nesting(kind.value_type) if pa.types.is_list(kind) else 0


def _bools(values: Any) -> NDArray[np.bool_]:
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=bool)


def _depths(chunk: Chunk, default: int) -> NDArray[np.int64]:
    """How deep each feature's coordinates are; the default where it has none, 0 where that cannot be told."""
    depths = np.full(len(chunk), default)
    places, found = [], []
    for match in _TYPE.finditer(chunk.data):
        places.append(match.start())
        found.append(DEPTHS.get(match[1].decode(), 0))
    rows = np.searchsorted(chunk.starts, np.array(places, np.int64), side="right") - 1
    depths[rows] = found
    depths[np.bincount(rows, minlength=len(chunk)) > 1] = 0
    return depths


# --- values that json gave -------------------------------------------------------------------------------------


def _unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:63]!r} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated)


def _kind_of(values: list[Any]) -> pa.DataType:
    """The narrowest type that takes all values."""
    types = _types(values)
    if not types:
        return pa.null()
    if types == {str}:
        return _kind_of_text(values)
    candidates: tuple[tuple[set[type], tuple[pa.DataType, ...]], ...] = (
        ({bool}, (pa.bool_(),)),
        ({int}, (pa.int64(), WHOLE)),
        ({int, float}, (pa.float64(),)),
    )
    kinds = next((kinds for known, kinds in candidates if types <= known), ())
    otherwise = JSON if types & {dict, list} else pa.string()
    return next((kind for kind in kinds if _array(values, kind) is not None), otherwise)


def _kind_of_text(values: list[str | None]) -> pa.DataType:
    if any(_has_half_characters(value) for value in values):
        return pa.string()
    return infer(pa.array(values, pa.string()), among=MOMENTS)


def _moments_among(values: "pa.Array[Any]") -> pa.DataType | None:
    """What kind of dates or times a column of text begins with, or what follows has; ``None``: it is other text."""
    head = cast("pa.StringArray", values.drop_null().slice(0, _HEAD_ROWS))
    half = max(len(head) // 2, 1)
    kinds = (infer(part, among=MOMENTS) for part in (head.slice(0, half), head.slice(half)))
    return next((kind for kind in kinds if kind in MOMENTS), None)


def _array(values: list[Any], kind: pa.DataType) -> "pa.Array[Any] | None":
    """Values as a type, or ``None`` if one does not fit."""
    if kind == JSON:
        return pa.array([None if value is None else _json(value) for value in values], pa.string())
    if pa.types.is_string(kind):
        return pa.array([value if isinstance(value, str | None) else _json(value) for value in values], pa.string())
    if not _fit(values, kind):
        return None
    if kind in MOMENTS:
        return fit(pa.array(values, pa.string()), kind)
    made: pa.Array[Any] = pa.array(values, kind)
    return made


def _fit(values: list[Any], kind: pa.DataType) -> bool:
    """Whether all values are of a type, exactly; of text that is only told in part."""
    types = _types(values)
    if not types <= _TYPES.get(kind, set()):
        return False
    if types == {str}:
        return not any(_has_half_characters(value) for value in values)
    if int not in types:
        return True
    if pa.types.is_floating(kind):
        large = [value for value in values if type(value) is int and abs(value) > _EXACT]
        return all(abs(value) < _WHOLE and int(float(value)) == value for value in large)
    limit = _INT64 if kind == pa.int64() else _WHOLE
    return all(value is None or -limit <= value < limit for value in values)


def _types(values: list[Any]) -> set[type]:
    return set(map(type, values)) - {type(None)}


def _takes_all(kind: pa.DataType) -> bool:
    return kind == JSON or pa.types.is_string(kind)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _has_half_characters(value: Any) -> bool:
    try:
        (value if isinstance(value, str) else _json(value)).encode()
    except UnicodeEncodeError:
        return True
    return False


def _delivered(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_null(kind) or kind == JSON else kind


# --- the layer -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _GeoJsonLayer:
    text: GeoJsonText
    name: str
    crs: pyproj.CRS | None
    features: _Features
    opening_notes: tuple[str, ...]

    @property
    def fields(self) -> tuple[SourceField, ...]:
        """The properties, and the features' own ``id`` where no property has that name."""
        return tuple(
            SourceField(name=name, type=_delivered(kind), json=kind == JSON)
            for name, kind in self.features.kinds.items()
        )

    @property
    def has_geometry(self) -> bool:
        """Always."""
        return True

    @property
    def crs_is_assumed(self) -> bool:
        """Unless a member ``crs`` says it."""
        return "crs" not in self.text.members

    @property
    def feature_count(self) -> int | None:
        """GeoJSON does not say."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed, found and left out, as far as was read."""
        left_out = sorted(self.features.left_out - {"bbox"})
        foreign = (f"Members of features that are not read: {', '.join(map(repr, left_out[:10]))}",) if left_out else ()
        return (
            *self.opening_notes,
            *self.text.notes,
            *foreign,
            *self.features.text_of.values(),
            *self.features.no_moments.values(),
        )

    def batches(self) -> "Iterator[pa.RecordBatch]":
        """Stream the features; see :class:`Layer`."""
        names = [*self.features.kinds, GEOMETRY]
        chunks = self.text.chunks()
        for chunk in chunks:
            columns, geometry = self._read(chunk, chunks)
            self.features.note_moments(columns, chunk.first)
            yield from bounded(pa.RecordBatch.from_arrays([*columns, geometry], names=names))
        crs, _ = _crs_of(self.text.members)
        if crs != self.crs:
            raise VectorRefusedError(
                f"{self.text.text.path.name} names its CRS after its features, too far from its end to be seen before "
                f"they are read; put the member 'crs' first",
                code="LATE_CRS",
            )

    def _read(self, chunk: Chunk, rest: Iterator[Chunk]) -> "tuple[list[pa.Array[Any]], pa.BinaryArray]":
        try:
            return self.features.fast(chunk)
        except _UnlikeError:
            properties = self.features.load(chunk)
            changed = self.features.learn(properties)
            if changed:
                raise self._widened(changed, rest) from None
            return self.features.slow(chunk, properties)

    def _widened(self, changed: dict[str, pa.DataType], chunks: Iterator[Chunk]) -> SchemaWidenedError:
        """Read all that is left for its types, so that one new start is enough."""
        for chunk in chunks:
            try:
                self.features.fast(chunk)
            except _UnlikeError:
                changed |= self.features.learn(self.features.load(chunk))
        shown = ", ".join(f"{name!r}: {kind}" for name, kind in changed.items())
        return SchemaWidenedError(changed, f"Later features of {self.text.text.path.name} ask for {shown}")
