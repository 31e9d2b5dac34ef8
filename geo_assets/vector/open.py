"""The one door: every vector file that someone uploaded is opened here, and only here.

What belongs here: the order of checks before the first feature, GDAL's options and drivers for untrusted files, and
what a caller may say about a file.  What does not: fetching the file (``local_copy``), the readers, and the process
around it.

**To be called in a worker process.**  The limits of memory, CPU time and file size, and the environment without
credentials, are the sandbox's (``coremachine``); see the package's docstring.

The order: plain local files, by a path of our own making → magic bytes → an archive unpacked, within bounds, and what
was inside looked at again → defects and references that GDAL does not notice → GDAL with hardened options and **without
any driver but the one** for this format → the layer that is wanted → attributes within the budget.

pyogrio cannot be told which driver to use, and GDAL asks each whether it knows the file; some then follow what the
file names.  So all other drivers are deregistered while a file is open.  That is the process's state: files of other
formats cannot be read by pyogrio elsewhere in the process meanwhile.
"""

import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from geo_assets.errors import VectorRefusedError, VectorUnreadableError
from geo_assets.vector.archives import Member, unpack
from geo_assets.vector.budget import VectorBudget
from geo_assets.vector.content import check_content
from geo_assets.vector.formats import (
    CSV,
    FILEGDB,
    GEOJSON,
    GEOJSONL,
    GEOPARQUET,
    GPKG,
    KML,
    KMZ,
    SNIFFED_BYTES,
    ZIP,
    VectorFormat,
    extension_of,
    sniff,
)
from geo_assets.vector.layers import Layer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ALL_LAYERS", "OpenedVector", "ReadOptions", "VectorBudget", "open_vector"]

ALL_LAYERS = "*"
"""As ``layer``: all, also where an archive has several shapefiles."""

_ARCHIVES = (ZIP, KMZ)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a caller says about a file; each is needed for some formats only."""

    file_extension: str | None = None
    layer: str | None = None
    """One layer by name; :data:`ALL_LAYERS`, or ``None``, which is the same but refuses several shapefiles."""
    encoding: str | None = None
    wkt_column: str | None = None
    lat_name: str | None = None
    lon_name: str | None = None
    delimiter: str | None = None
    layer_name: str | None = None
    """The same as ``layer``, as old callers write it."""
    kml_name: str | None = None
    shp_name: str | None = None
    input_crs: str | None = None
    """For those who prepare what was read."""

    @property
    def wanted_layer(self) -> str | None:
        """The one layer that is wanted, or ``None`` for all."""
        layer = self.layer or self.layer_name
        return None if layer == ALL_LAYERS else layer

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a worker process."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ReadOptions":
        """The inverse of :meth:`as_dict`; what is missing has its default.

        Raises:
            TypeError: there is no option of such a name.
        """
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class OpenedVector:
    """A file that was let in."""

    format: str
    """Name of the format that was read: of what is inside, where it is an archive."""
    driver: str | None
    """GDAL's; ``None`` where GDAL does not read it."""
    layers: Sequence[Layer]
    """Those wanted; also without rows."""
    notes: tuple[str, ...] = ()
    """What somebody should know of the file; layers have notes of their own."""


@contextmanager
def open_vector(
    path: Path,
    *,
    name: str,
    options: ReadOptions,
    budget: VectorBudget,
    folder: Path,
    types: "Mapping[str, Mapping[str, pa.DataType]] | None" = None,
) -> Iterator[OpenedVector]:
    """Open a local file that someone uploaded, after every check that can be made before reading features.

    Args:
        path: absolute path of a regular file, or a ``.gdb`` folder of them, where nobody else can put anything.
        name: the blob's name, for texts that only a name tells apart, for layers without a name, and for messages.
        options: what the caller says about it.
        budget: what it may ask for.
        folder: where archives are unpacked to, in a folder of its own that is gone afterwards.
        types: layer → attribute → type, of the :class:`~geo_assets.vector.layers.SchemaWidenedError` raised so far.

    Raises:
        VectorRefusedError: not a file of a format we open, one that names other files, or beyond the budget; with
            ``LAYER_NOT_FOUND`` where it has no layer of that name.
        VectorUnreadableError: of a format we open, but damaged or cut off.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="unpacked") as unpacked:
        members, notes = _members(path, name=name, options=options, budget=budget, folder=Path(unpacked))
        for member, kind in members:
            notes += check_content(member.path, kind)
        form = members[0][1]
        # of several shapefiles each is a layer, called as its file
        layer = None if len(members) > 1 else options.wanted_layer
        with _fence(form.driver, budget):
            layers: list[Layer] = []
            for member, kind in members:
                layers += _layers(member, kind, layer=layer, options=options, budget=budget, types=types or {})
            yield OpenedVector(
                format=form.name,
                driver=form.driver,
                layers=_chosen(layers, options.wanted_layer, budget),
                notes=tuple(dict.fromkeys(notes)),
            )


def _fence(driver: str | None, budget: VectorBudget) -> AbstractContextManager[None]:
    if driver is None:
        return nullcontext()  # read without GDAL
    from geo_assets.vector.gdal_fence import gdal_fence  # noqa: PLC0415 - brings GDAL along

    return gdal_fence(driver, budget)


# --- what lies at the path --------------------------------------------------------------------------------------


def _members(
    path: Path, *, name: str, options: ReadOptions, budget: VectorBudget, folder: Path
) -> tuple[list[tuple[Member, VectorFormat]], list[str]]:
    """The files to be read, each with its format, and notes."""
    _require_plain(path)
    said = (options.file_extension or extension_of(name)).lower().lstrip(".")
    outer = Member(path=path, name=PurePosixPath(name or path.name).name)
    form = _format_of(outer, options.file_extension)
    if form not in _ARCHIVES:
        return [(outer, form)], _misnamed(said, form)
    wanted = options.kml_name or options.shp_name
    several = options.layer or options.layer_name
    inner = unpack(path, folder, budget=budget, wanted=wanted, several=several)
    found = [(member, _format_of(member, None)) for member in inner]
    for member, kind in found:
        if kind in _ARCHIVES:
            raise VectorRefusedError(
                f"{member.name!a} in the archive is an archive itself; pack the files in one only",
                code="ARCHIVE_REFUSED",
            )
    return found, [f"read {', '.join(member.name for member, _ in found)} of the archive"]


def _format_of(member: Member, file_extension: str | None) -> VectorFormat:
    if member.path.is_dir():
        return FILEGDB
    with member.path.open("rb") as file:
        head = file.read(SNIFFED_BYTES)
    return sniff(head, size=member.path.stat().st_size, name=member.name, file_extension=file_extension)


def _misnamed(said: str, form: VectorFormat) -> list[str]:
    usual = {"shp": "shapefile", "json": "geojson", "gdb": "filegdb", "fgb": "flatgeobuf", "parquet": "geoparquet"}
    expected = usual.get(said, said)
    if expected not in {*usual.values(), "csv", "geojson", "gpkg", "kml", "kmz"} or form.name.startswith(expected):
        return []
    return [f"it is called .{said}, but is {form.name}, and was read so"]


def _require_plain(path: object) -> None:
    if not isinstance(path, Path):
        raise VectorRefusedError(
            "a vector file is opened by a pathlib.Path of our own making, never by a text: texts are read by GDAL as"
            " addresses, archives and connections"
        )
    text = os.fspath(path)
    if not path.is_absolute() or text.startswith("/vsi") or "\0" in text:
        raise VectorRefusedError(f"{text!a} is not the absolute path of a local file")
    try:
        found = path.lstat()
        inside = list(path.iterdir()) if stat.S_ISDIR(found.st_mode) else None
        plain = all(stat.S_ISREG(one.lstat().st_mode) for one in inside or [path])
    except OSError as error:
        raise VectorUnreadableError(f"the local copy cannot be read: {error.strerror}") from error
    if not plain or (inside is not None and path.suffix != FILEGDB.suffix):
        raise VectorRefusedError("the local copy is not a regular file (a link, a folder or a pipe)")


# --- layers -----------------------------------------------------------------------------------------------------


def _layers(
    member: Member,
    form: VectorFormat,
    *,
    layer: str | None,
    options: ReadOptions,
    budget: VectorBudget,
    types: "Mapping[str, Mapping[str, pa.DataType]]",
) -> list[Layer]:
    # the readers are imported where they are wanted: most runs need one of them
    stem = PurePosixPath(member.name).stem
    if form is CSV:
        from geo_assets.vector import csv_layers  # noqa: PLC0415

        return csv_layers.open_layers(
            member.path,
            stem=stem,
            wkt_column=options.wkt_column,
            lat_name=options.lat_name,
            lon_name=options.lon_name,
            delimiter=options.delimiter,
            encoding=options.encoding,
            types=types.get(stem, {}),
        )
    if form in (GEOJSON, GEOJSONL):
        from geo_assets.vector import geojson_layers  # noqa: PLC0415

        return geojson_layers.open_layers(
            member.path,
            stem=stem,
            encoding=options.encoding,
            types=types.get(stem, {}),
            max_feature_bytes=budget.feature_bytes,
        )
    if form is GEOPARQUET:
        from geo_assets.vector import parquet_layers  # noqa: PLC0415

        return parquet_layers.open_layers(member.path, stem=stem)
    return _gdal_layers(member, form, stem=stem, layer=layer, encoding=options.encoding, types=types)


def _gdal_layers(
    member: Member,
    form: VectorFormat,
    *,
    stem: str,
    layer: str | None,
    encoding: str | None,
    types: "Mapping[str, Mapping[str, pa.DataType]]",
) -> list[Layer]:
    from geo_assets.vector import ogr_layers  # noqa: PLC0415

    driver = form.driver or ""
    several = form in (GPKG, KML, FILEGDB)
    if several and layer is not None:
        from geo_assets.vector.gdal_fence import layer_names  # noqa: PLC0415 - as above

        _require_layer(layer, layer_names(member.path, driver))
    opened = ogr_layers.open_layers(
        member.path,
        driver=driver,
        stem=stem,
        layer=layer if several else None,
        encoding=encoding,
        types=types.get(stem, {}),
    )
    return [
        ogr_layers.open_layers(
            member.path, driver=driver, stem=stem, layer=one.name, encoding=encoding, types=types[one.name]
        )[0]
        if several and one.name in types
        else one
        for one in opened
    ]


def _require_layer(layer: str, names: Sequence[str]) -> None:
    if layer not in names:
        there = ", ".join(f"{one!r}" for one in names[:20]) + (" …" if len(names) > 20 else "")  # noqa: PLR2004 - a line
        raise VectorRefusedError(
            f"the file has no layer {layer!r}; it has {there or 'no layer at all'}", code="LAYER_NOT_FOUND"
        )


def _chosen(layers: list[Layer], wanted: str | None, budget: VectorBudget) -> list[Layer]:
    if wanted is not None:
        _require_layer(wanted, [layer.name for layer in layers])
        layers = [layer for layer in layers if layer.name == wanted]
    if not layers:
        raise VectorRefusedError("the file has no layer", code="NO_LAYER")
    _within("layers", len(layers), budget.layers, "LAYERS; or name the one you mean")
    for layer in layers:
        _within(f"attributes in layer {layer.name!r}", len(layer.fields), budget.columns, "COLUMNS")
    return layers


def _within(what: str, found: int, most: int, setting: str) -> None:
    if found > most:
        raise VectorRefusedError(
            f"the file has {found:,} {what}; at most {most:,} are loaded (GEO_ASSETS_VECTOR_MAX_{setting})",
            code="FILE_TOO_LARGE",
        )
