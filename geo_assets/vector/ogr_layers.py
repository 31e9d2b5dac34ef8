"""Layers that GDAL reads: GeoPackage, shapefile, FlatGeobuf, KML, file geodatabase, and odd GeoJSON.

What belongs here: what GDAL's Arrow stream is asked for, and what has to be put right in what it gives.  What does not:
which driver a file is for and GDAL's options for untrusted files (``open``), times as text (``moments``), a shapefile's
headers (``shapefile``).

GDAL's stream is not to be trusted in five things.  It ends without a word where a row cannot be read, so rows are
counted.  It loses time zones, so it is asked for text.  Its batches are of as many rows as wanted, whatever their size,
unless it is told otherwise; FlatGeobuf's own stream then loses rows, so the general one is used.  Curves come as they
are, so they are read again, by the way on which GDAL makes lines of them.  Of values that are not of
their column's type it makes 0 and the first of January 1970, so a GeoPackage is asked whether it has some.
"""

import re
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyogrio
import pyogrio.raw
import pyproj
from pyproj.exceptions import CRSError

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector import moments, shapefile, text_files, wkb
from geo_assets.vector.geopackage import Misfits, TypedTable
from geo_assets.vector.layers import BATCH_BYTES, GEOMETRY, Layer, SchemaWidenedError, SourceField
from geo_assets.vector.nested import json_text

__all__ = ["open_layers"]

_GEOJSON, _GPKG, _KML, _SHAPEFILE = "GeoJSON", "GPKG", "LIBKML", "ESRI Shapefile"
_GEODATABASE: Final = "OpenFileGDB"
_NAMED_LAYERS: Final = frozenset({_GPKG, _KML, "KML", _GEODATABASE})
_CURVING: Final = frozenset({_GPKG, _GEODATABASE, "FlatGeobuf"})
_CURVES: Final = range(8, 13)

_LARGEST_FEATURE: Final = 1024 * 1024 * 1024
_LARGER: Final = 8
_MOST_ROWS, _FEWEST_ROWS = 65_536, 64
_LOOKED_AT: Final = 1000
_MOST_WARNINGS: Final = 20
_FIRST_DAY: Final = pa.scalar(0, pa.int32()).cast(pa.date32())

pc: Final[Any] = pyarrow.compute
"""Without its stubs, which know no date as an operand."""

_TYPES: "Final[Mapping[str, pa.DataType]]" = {
    "OFTInteger": pa.int32(),
    "OFTInteger64": pa.int64(),
    "OFTReal": pa.float64(),
    "OFTString": pa.string(),
    "OFTBinary": pa.binary(),
    "OFTDate": pa.date32(),
    "OFTTime": pa.time64("us"),
}
_SUBTYPES: "Final[Mapping[str, pa.DataType]]" = {
    "OFSTBoolean": pa.bool_(),
    "OFSTInt16": pa.int16(),
    "OFSTFloat32": pa.float32(),
}
_MOMENT: Final = "OFTDateTime"

_KML_TELLING: "Final[Mapping[str, bytes]]" = {
    "id": rb"<[\w:]*Placemark\s[^>]*\bid\s*=",
    "timestamp": rb"TimeStamp",
    "begin": rb"TimeSpan",
    "end": rb"TimeSpan",
    "snippet": rb"[Ss]nippet",
    "altitudeMode": b"",
    "tessellate": b"",
    "extrude": b"",
    "visibility": b"",
    "drawOrder": b"",
    "icon": b"",
}
"""Columns that LIBKML makes of every placemark → what is in a file that has such values; nothing: only drawing."""

_FAILURES: Final = (pa.ArrowException, OSError, RuntimeError, ValueError)
"""What pyogrio and pyarrow raise for a file that is not as it should be."""


def open_layers(
    path: Path,
    *,
    driver: str,
    stem: str,
    layer: str | None,
    encoding: str | None,
    types: "Mapping[str, pa.DataType]",
) -> list[Layer]:
    """Open a file with GDAL.

    Args:
        path: a file, or the folder of a file geodatabase; of a shapefile the ``.shp``.
        driver: GDAL's name of the only one that may open it.
        stem: name of the layer where a format has one only.
        layer: the one wanted; ``None``: all.
        encoding: of a shapefile's texts, as Python names it; ``None``: as it says, or a guess, which is noted.
        types: wider types that a :class:`SchemaWidenedError` asked for.

    Raises:
        VectorRefusedError: another driver opens it, or it has no such layer or encoding.
        VectorUnreadableError: it is damaged or cut off.
    """
    source = _Source(path=path, driver=driver)
    names = source.layer_names() if driver in _NAMED_LAYERS else [stem]
    wanted = [number for number, name in enumerate(names) if layer in (None, name)]
    if not wanted and layer is not None:
        raise VectorRefusedError(
            f"there is no layer '{layer}'; there are: {', '.join(names[:_MOST_WARNINGS])}", code="LAYER_NOT_FOUND"
        )
    notes: list[str] = []
    if driver == _SHAPEFILE:
        shapefile.require_whole(path)
        encoding = _shapefile_encoding(path, encoding, notes)
    else:
        encoding = None
    return [_open_layer(source, number, names[number], encoding, types, [*notes]) for number in wanted]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A file, and how GDAL's complaints about it are heard."""

    path: Path
    driver: str

    def layer_names(self) -> list[str]:
        with self.hearing([]):
            return [str(name) for name, _ in pyogrio.list_layers(self.path)]

    @contextmanager
    def hearing(self, notes: list[str], *, row: int | None = None) -> Iterator[None]:
        """Turn GDAL's warnings into notes, and its errors into ours.

        Raises:
            VectorUnreadableError: says the row that was reached.
        """
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            try:
                yield
            except pa.ArrowMemoryError:
                raise
            except pyogrio.errors.GeometryError as error:
                raise VectorRefusedError(
                    f"the file has triangulated surfaces, which tables do not take: convert the layer first ({error})",
                    code="CURVES",
                ) from error
            except _FAILURES as error:
                where = "cannot be opened" if row is None else f"cannot be read beyond row {row:,}"
                raise VectorUnreadableError(f"the file {where}: {self.without_path(str(error))}") from error
        said = [f"GDAL: {self.without_path(str(one.message))}" for one in heard]
        notes += [note for note in dict.fromkeys(said) if note not in notes][: max(_MOST_WARNINGS - len(notes), 0)]

    def without_path(self, message: str) -> str:
        """What GDAL says, without where our copy lies, which means nothing to anybody."""
        return message.replace(str(self.path), "the file").replace(f"{self.path.parent}/", "")

    def size(self) -> int:
        """Bytes, all parts together."""
        parts = [self.path]
        if self.path.is_dir():
            parts = list(self.path.iterdir())
        elif self.driver == _SHAPEFILE:
            parts = list(self.path.parent.glob(f"{_escaped(self.path.stem)}.*"))
        return sum(part.stat().st_size for part in parts)


def _escaped(stem: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", stem)


def _open_layer(
    source: _Source,
    number: int,
    name: str,
    encoding: str | None,
    types: "Mapping[str, pa.DataType]",
    notes: list[str],
) -> Layer:
    with source.hearing(notes):
        info = pyogrio.read_info(source.path, layer=number, encoding=encoding)
    if info["driver"] != source.driver:
        raise VectorRefusedError(
            f"GDAL opens the file as {info['driver']}, not as {source.driver}; it is not what it looks like"
        )
    dropped = _drawing_columns(source, [str(one) for one in info["fields"]], notes)
    moment = any(kind == _MOMENT and at not in dropped for at, kind in enumerate(info["ogr_types"]))
    schema, first = None, None
    if moment or source.driver in (_GPKG, _GEODATABASE):
        schema, first = _look(source, number, encoding, notes)
    attributes = tuple(
        _attribute(at, info, schema, first, types) for at in range(len(info["fields"])) if at not in dropped
    )
    notes += [
        f"'{one.field.name}' has dates that are beyond any calendar, and is text"
        for one in attributes
        if one.moment and one.field.type == pa.string()
    ]
    deleted = _deleted_rows(source, notes)
    layer = _OgrLayer(
        source=source,
        number=number,
        name=name,
        encoding=encoding,
        attributes=attributes,
        columns=len(info["fields"]),
        has_geometry=info["geometry_type"] is not None,
        # pyogrio calls layers of curves by the lines that it thinks it makes of them
        curves=source.driver in _CURVING and "Point" not in (info["geometry_type"] or "Point"),
        fid=str(info["fid_column"]),
        crs=_crs(info["crs"], notes),
        said=notes,
        declared=info["features"] - deleted if info["features"] >= 0 else None,
    )
    layer.find_own_fids()
    return layer


# --- attributes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Attribute:
    """An attribute, and the column of the stream it comes from."""

    at: int
    field: SourceField
    moment: bool


def _attribute(
    at: int, info: Mapping[str, Any], schema: pa.Schema | None, first: Any, types: "Mapping[str, pa.DataType]"
) -> _Attribute:
    name, kind, subtype = str(info["fields"][at]), info["ogr_types"][at], info["ogr_subtypes"][at]
    description = None if schema is None else _description(schema.field(at), name)
    if kind == _MOMENT:
        found = types.get(name) or (moments.LOCAL if first is None else moments.kind_of(first.column(at)))
        return _Attribute(at=at, field=SourceField(name=name, type=found, description=description), moment=True)
    listed = kind not in _TYPES
    return _Attribute(
        at=at,
        field=SourceField(
            name=name,
            type=pa.string() if listed else _SUBTYPES.get(subtype, _TYPES[kind]),
            json=listed or subtype == "OFSTJSON",
            description=description,
        ),
        moment=False,
    )


def _description(field: "pa.Field[Any]", name: str) -> str | None:
    """What the file says beside a name: its alias, and a comment."""
    metadata = field.metadata or {}
    said = [metadata.get(key, b"").decode("utf-8", "replace").strip() for key in _DESCRIBING]
    return ": ".join(one for one in dict.fromkeys(said) if one and one != name) or None


_DESCRIBING: Final = (b"GDAL:OGR:alternative_name", b"GDAL:OGR:comment")


def _look(source: _Source, number: int, encoding: str | None, notes: list[str]) -> "tuple[pa.Schema, Any]":
    """The stream's schema, and its first rows without geometry, ``None`` where there are none."""
    with (
        source.hearing(notes),
        pyogrio.raw.open_arrow(
            source.path,
            layer=number,
            encoding=encoding,
            read_geometry=False,
            datetime_as_string=True,
            batch_size=_LOOKED_AT,
            use_pyarrow=True,
        ) as (_, reader),
    ):
        return reader.schema, next(iter(reader), None)


def _drawing_columns(source: _Source, names: Sequence[str], notes: list[str]) -> set[int]:
    """Which columns LIBKML made up, of which this file says nothing."""
    if source.driver != _KML:
        return set()
    with source.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
        dropped = {
            at
            for at, name in enumerate(names)
            if (telling := _KML_TELLING.get(name)) is not None
            and not (telling and re.search(telling, text))
            and not re.search(rb"""name\s*=\s*["']%b["']""" % re.escape(name.encode()), text)
        }
    if dropped:
        left_out = ", ".join(names[at] for at in sorted(dropped))
        notes.append(f"columns that KML always has, here unused or only about drawing, are left out: {left_out}")
    return dropped


# --- what a shapefile does not say ------------------------------------------------------------------------------


def _shapefile_encoding(path: Path, encoding: str | None, notes: list[str]) -> str | None:
    """Which encoding GDAL is told; ``None``: it knows."""
    if encoding is None:
        table = shapefile.Dbf.beside(path)
        if table is None or table.declares_encoding:
            return None
        telling = table.sample()
        if telling == b"":
            return "UTF-8"
        encoding = text_files.guess(telling)
        notes.append(f"the shapefile does not say its encoding; it was guessed to be {encoding}")
    return _iconv_name(text_files.named(encoding))


_ICONV_NAMES: Final = {"mac-roman": "MACINTOSH", "mac-cyrillic": "MAC-CYRILLIC"}


def _iconv_name(name: str) -> str:
    latin = re.fullmatch(r"iso8859[-_](\d+)", name)
    return f"ISO-8859-{latin[1]}" if latin else _ICONV_NAMES.get(name, name.replace("_", "-").upper())


def _deleted_rows(source: _Source, notes: list[str]) -> int:
    table = shapefile.Dbf.beside(source.path) if source.driver == _SHAPEFILE else None
    deleted = 0 if table is None else table.deleted_rows()
    if deleted:
        notes.append(f"rows marked as deleted, and left out: {deleted:,}")
    return deleted


# --- CRS -------------------------------------------------------------------------------------------------------


def _crs(said: str | None, notes: list[str]) -> pyproj.CRS | None:
    if not said:
        return None
    try:
        found = pyproj.CRS.from_user_input(said)
    except CRSError:
        notes.append(f"the CRS of the file cannot be understood, and counts as none: {said[:200]}")
        return None
    if found.type_name == "Engineering CRS" or found.name.lower().startswith("undefined"):
        notes.append(f"the CRS of the file is '{found.name}', which is nowhere on Earth, and counts as none")
        return None
    return found


# --- the layer -------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _OgrLayer:
    """One layer; see :class:`~geo_assets.vector.layers.Layer`."""

    source: _Source
    number: int
    name: str
    encoding: str | None
    attributes: tuple[_Attribute, ...]
    columns: int
    """Attributes in the stream."""
    has_geometry: bool
    curves: bool
    """Whether there may be some."""
    fid: str
    """Column of the feature ids, where the format has such."""
    own_fids: bool = field(default=False, init=False)
    """Whether these are somebody's keys, so an attribute: other than 1, 2, 3 and so on."""
    crs: pyproj.CRS | None
    said: list[str]
    declared: int | None
    unzoned: dict[str, int] = field(default_factory=dict)
    """Attribute → its times without a zone where others have one."""
    linearised: int = 0
    misfits: dict[str, Misfits] = field(default_factory=dict)
    """Attribute → its values that are not of its type."""

    @property
    def fields(self) -> tuple[SourceField, ...]:
        own = (SourceField(name=self.fid, type=pa.int64()),) if self.own_fids else ()
        return (*own, *(one.field for one in self.attributes))

    @property
    def crs_is_assumed(self) -> bool:
        """Never: the file or its format says it."""
        return False

    @property
    def feature_count(self) -> int | None:
        return self.declared

    @property
    def notes(self) -> tuple[str, ...]:
        found = list(self.said)
        if self.linearised:
            found.append(f"{self.linearised:,} geometries had curves, and were made lines")
        found += [
            f"{count:,} times of '{name}' have no zone while others have, and were taken to be in UTC"
            for name, count in self.unzoned.items()
        ]
        found += [
            f"{len(one.fids):,} values of '{name}' are not of its type and became null, such as {one.example}"
            for name, one in self.misfits.items()
        ]
        return tuple(found)

    def batches(self) -> Iterator[pa.RecordBatch]:
        rows = 0
        limit = BATCH_BYTES
        self._find_misfits()
        while True:
            try:
                for batch in self._stream(skip=rows, limit=limit):
                    rows += batch.num_rows
                    yield from _sliced(batch)
            except pa.ArrowMemoryError as error:
                if limit >= _LARGEST_FEATURE:
                    raise VectorRefusedError(
                        f"row {rows + 1:,} is larger than {limit >> 20:,} MB", code="FEATURE_TOO_LARGE"
                    ) from error
                limit *= _LARGER
            else:
                break
        self._check_count(rows)

    def _stream(self, *, skip: int, limit: int) -> Iterator[pa.RecordBatch]:
        pyogrio.set_gdal_config_options({"OGR_ARROW_MEM_LIMIT": str(limit), "OGR_FLATGEOBUF_STREAM_BASE_IMPL": "YES"})
        opened, reader = self._begin(skip, limit)
        try:
            while True:
                with self.source.hearing(self.said, row=skip):
                    batch = next(reader, None)
                if batch is None:
                    return
                skip += batch.num_rows
                yield self._put_right(batch, row=skip)
        finally:
            opened.__exit__(None, None, None)

    def _begin(self, skip: int, limit: int) -> tuple[Any, Any]:
        with self.source.hearing(self.said, row=skip):
            opened = pyogrio.raw.open_arrow(
                self.source.path,
                layer=self.number,
                encoding=self.encoding,
                datetime_as_string=True,
                skip_features=skip,
                batch_size=self._batch_rows(limit),
                return_fids=self._with_fids,
                read_geometry=self.has_geometry,
                use_pyarrow=True,
            )
            return opened, opened.__enter__()[1]

    @property
    def _with_fids(self) -> bool:
        return self.curves or self.own_fids or self.source.driver == _GPKG

    def _batch_rows(self, limit: int) -> int:
        if not self.declared:
            return _MOST_ROWS
        likely = max(self.source.size() // self.declared, 1)
        return min(max(limit // likely, _FEWEST_ROWS), _MOST_ROWS)

    def _put_right(self, batch: pa.RecordBatch, *, row: int) -> pa.RecordBatch:
        start = 1 if self._with_fids else 0
        if batch.num_columns != start + self.columns + self.has_geometry:
            raise VectorUnreadableError(f"the file has other columns than it says, before row {row:,}")
        fids = batch.column(0)
        arrays = [self._fitting(one, self._values(one, batch.column(start + one.at)), fids) for one in self.attributes]
        if self.own_fids:
            arrays = [fids.cast(pa.int64()), *arrays]
        names = [one.name for one in self.fields]
        if self.has_geometry:
            geometry = _stored(batch.column(batch.num_columns - 1)).cast(pa.binary())
            if self.curves:
                geometry = self._without_curves(geometry, fids)
            arrays, names = [*arrays, geometry], [*names, GEOMETRY]
        return pa.RecordBatch.from_arrays(arrays, names=names)

    # feature ids

    def find_own_fids(self) -> None:
        """Find out whether feature ids are somebody's keys."""
        if self.source.driver == _GEODATABASE:
            self.own_fids = not self._fids_count_on()
        table = self._typed()
        if table is not None:
            try:
                self.own_fids = not table.counts_on()
            except sqlite3.DatabaseError as error:
                self.said.append(f"whether '{self.fid}' numbers the rows could not be found out: {error}")

    def _fids_count_on(self) -> bool:
        expected = 1
        with (
            self.source.hearing(self.said),
            pyogrio.raw.open_arrow(
                self.source.path, layer=self.number, columns=[], read_geometry=False, return_fids=True, use_pyarrow=True
            ) as (_, reader),
        ):
            for batch in reader:
                fids = batch.column(0).to_numpy()
                if not np.array_equal(fids, np.arange(expected, expected + len(fids))):
                    return False
                expected += len(fids)
        return True

    # values that are not of their column's type

    def _typed(self) -> TypedTable | None:
        if self.source.driver != _GPKG or not self.fid:
            return None
        types = tuple((one.field.name, one.field.type) for one in self.attributes if not one.moment)
        return TypedTable(path=self.source.path, name=self.name, fid=self.fid, types=types)

    def _find_misfits(self) -> None:
        table = self._typed()
        if table is None:
            return
        try:
            self.misfits = table.misfits()
        except sqlite3.DatabaseError as error:
            self.said.append(f"whether values are of their column's type could not be found out: {error}")

    def _fitting(self, one: _Attribute, array: Any, fids: Any) -> Any:
        """Make null what GDAL made up."""
        name = one.field.name
        if one.field.type == pa.date32() and self.source.driver == _GPKG:
            self._find_no_dates(name, fids.filter(pc.equal(array, _FIRST_DAY)).to_numpy())
        misfits = self.misfits.get(name)
        if misfits is None:
            return array
        wrong = np.isin(fids.to_numpy(), misfits.fids)
        return pc.if_else(pa.array(~wrong), array, pa.scalar(None, array.type)) if wrong.any() else array

    def _find_no_dates(self, name: str, suspects: Any) -> None:
        table = self._typed()
        found = table.no_dates(name, suspects) if table is not None and suspects.size else None
        if found is None:
            return
        before = self.misfits.get(name, found)
        self.misfits[name] = Misfits(fids=np.union1d(before.fids, found.fids), example=before.example)

    def _values(self, one: _Attribute, array: Any) -> Any:
        array, wanted = _stored(array), one.field.type
        if self.encoding not in (None, "UTF-8"):
            _require_recoded(array, self.encoding)
        if one.moment:
            return self._moments(one.field, array)
        if one.field.json and not pa.types.is_string(array.type):
            return json_text(array)
        return array if array.type == wanted else array.cast(wanted)

    def _moments(self, field: SourceField, texts: Any) -> Any:
        found = moments.fit(texts, field.type)
        if found is None:
            kind = moments.kind_of(texts)
            what = "dates that are beyond any calendar" if kind == pa.string() else "times with a zone"
            raise SchemaWidenedError({field.name: kind}, f"'{field.name}' has {what}, after others")
        values, unzoned = found
        if unzoned:
            self.unzoned[field.name] = self.unzoned.get(field.name, 0) + unzoned
        return values

    def _without_curves(self, geometry: Any, fids: Any) -> Any:
        curved = np.isin(wkb.kinds_of(geometry) % 1000, _CURVES)
        if not curved.any():
            return geometry
        wanted = fids.to_numpy()[curved]
        with self.source.hearing(self.said):
            _, found, lines, _ = pyogrio.raw.read(
                self.source.path, layer=self.number, fids=wanted, columns=[], return_fids=True
            )
        if not np.array_equal(found, wanted):
            raise VectorUnreadableError("curved geometries of the file cannot be read a second time")
        self.linearised += len(wanted)
        return wkb.replace_rows(geometry, curved, pa.array(lines, pa.binary()))

    def _check_count(self, rows: int) -> None:
        """Find out why rows are missing: GDAL's stream ends without a word."""
        if self.declared is None or rows >= self.declared:
            return
        reason = self._reason(rows)
        if reason is None and self.source.driver == _GPKG:
            self.said.append(f"the file says it has {self.declared:,} rows, but has {rows:,}")
            self.declared = rows
            return
        raise VectorUnreadableError(
            f"layer '{self.name}' cannot be read beyond row {rows:,} of {self.declared:,}: "
            f"{reason or 'it is damaged or cut off'}"
        )

    def _reason(self, rows: int) -> str | None:
        """What GDAL says of the row after these, on the way on which it says something."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pyogrio.raw.read(self.source.path, layer=self.number, skip_features=rows, max_features=1)
            except _FAILURES as error:
                return self.source.without_path(str(error))
        return None


def _stored(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


def _require_recoded(array: Any, encoding: str | None) -> None:
    """Refuse an encoding that GDAL does not know: it hands the bytes on as they are."""
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise VectorRefusedError(
            f"GDAL does not know the encoding {encoding}; give another name of it, or write the file anew in UTF-8",
            code="ENCODING",
        ) from error


def _sliced(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Cut a batch that has become too large."""
    parts = min(batch.nbytes // BATCH_BYTES, batch.num_rows)
    if parts <= 1:
        yield batch
        return
    rows = -(-batch.num_rows // parts)
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)
