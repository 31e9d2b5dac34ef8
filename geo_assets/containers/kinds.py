"""What a blob is by its name: raster, vector, sidecar or other; and which blobs make one dataset.

What belongs here: the tables of extensions, :func:`with_kinds`, :func:`with_datasets`.  What does not: what a file
really holds (``signatures``); a name can lie.

A name is read as stem and tail: ``a/roads.shp.xml`` is the stem ``a/roads`` and the tail ``.shp.xml``.  Blobs of one
dataset share their stem, which is compared exactly, as blob names are; tails are compared in lower case.
"""

from functools import lru_cache
from typing import Literal, cast

import polars as pl

__all__ = ["KINDS", "Kind", "extension_of", "kind_of", "kinds_of_tails", "stem", "tail", "with_datasets", "with_kinds"]

Kind = Literal["raster", "vector", "sidecar", "other"]
KINDS: tuple[Kind, ...] = ("raster", "vector", "sidecar", "other")

_RASTERS = frozenset([
    ".tif", ".tiff", ".gtiff", ".gtif", ".jp2", ".j2k", ".jpx", ".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp",
    ".img", ".ntf", ".nitf", ".nsf", ".nc", ".nc4", ".cdf", ".h5", ".hdf", ".hdf5", ".he5", ".hdf4", ".asc", ".grd",
    ".hgt", ".dem", ".dt0", ".dt1", ".dt2", ".grb", ".grib", ".grb2", ".grib2", ".bil", ".bip", ".bsq", ".ecw",
    ".sid", ".vrt",
])  # fmt: skip
_VECTORS = frozenset([
    ".shp", ".geojson", ".json", ".geojsonl", ".geojsons", ".ndjson", ".ndgeojson", ".kml", ".kmz", ".gpkg", ".gdb",
    ".fgb", ".parquet", ".geoparquet", ".gml", ".gpx", ".csv", ".tab", ".mif", ".shz",
])  # fmt: skip
_ARCHIVES = (".shp.zip", ".gdb.zip")
"""Zip files whose name tells that they hold vectors; any other zip may hold anything."""

# parts without which the main file cannot be read, and those it can do without
_NEEDED = {".shp": (".shx", ".dbf"), ".tab": (".dat", ".map", ".id"), ".mif": ()}
_PARTS = {
    ".shp": (
        ".shx", ".dbf", ".prj", ".cpg", ".qix", ".qpj", ".sbn", ".sbx", ".fbn", ".fbx", ".ain", ".aih", ".atx", ".ixs",
        ".mxs",
    ),
    ".tab": (".dat", ".map", ".id", ".ind"),
    ".mif": (".mid",),
}  # fmt: skip
# world files and the like, and the rasters they may belong to, the likeliest first
_TIFF = (".tif", ".tiff", ".gtiff", ".gtif")
_JPEG = (".jpg", ".jpeg")
_GRID = (".bil", ".bip", ".bsq", ".img", ".asc", ".grd", ".dem")
_BESIDE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((".tfw", ".tifw", ".tiffw", ".tfwx"), _TIFF),
    **dict.fromkeys((".jgw", ".jpgw", ".jpegw", ".jgwx"), _JPEG),
    **dict.fromkeys((".pgw", ".pngw"), (".png",)),
    **dict.fromkeys((".gfw", ".gifw"), (".gif",)),
    **dict.fromkeys((".bpw", ".bmpw"), (".bmp",)),
    **dict.fromkeys((".j2w", ".jp2w"), (".jp2", ".j2k", ".jpx")),
    **dict.fromkeys((".sdw", ".sidw"), (".sid",)),
    **dict.fromkeys((".eww", ".ecww"), (".ecw",)),
    ".blw": (".bil",),
    ".ige": (".img",),
    ".rrd": (".img", *_TIFF),
    **dict.fromkeys((".hdr", ".stx", ".clr"), _GRID),
    **dict.fromkeys((".rpb", ".imd", ".til", ".man"), (*_TIFF, ".ntf", ".jp2")),
    **dict.fromkeys((".wld", ".aux"), (*_TIFF, *_JPEG, ".png", ".img", ".bmp", ".gif", ".jp2", *_GRID)),
    ".prj": (*_GRID, *_TIFF, *_JPEG, ".png"),
}
_APPENDED = (".aux.xml", ".xml", ".ovr", ".msk")
"""Appended to the main file's whole name; ``.aux.xml`` may also take its extension's place."""

_TAIL = r"(\.[^./]*(?:(?i:\.aux\.xml|\.xml|\.ovr|\.msk))*)$"
_MAINS_OF_AUX = (*_TIFF, *_JPEG, ".png", ".img", ".jp2", ".bmp", ".gif", *_GRID)
_PART_TAILS = frozenset(tail for tails in _PARTS.values() for tail in tails)
_TABLES = frozenset((".dbf", ".dat", ".mid", ".map", ".id", ".ind"))
"""Parts of a dataset only beside its main file; alone they are tables, or anything."""


def extension_of(name: str) -> str:
    """Extension of the last path segment, lower case with its dot; empty where there is none."""
    segment = name.rpartition("/")[2]
    return f".{segment.rpartition('.')[2].lower()}" if "." in segment.rstrip(".") else ""


def tail(name: str = "name") -> pl.Expr:
    """The tail of a name, as it is written; null where there is none."""
    return pl.col(name).str.extract(_TAIL)


def stem(name: str = "name") -> pl.Expr:
    """The name without its tail: what blobs of one dataset have in common."""
    return pl.col(name).str.replace(_TAIL, "")


@lru_cache(maxsize=4096)
def _kind_of_tail(lowered: str) -> Kind:
    extension, _, appended = lowered[1:].partition(".")
    extension = f".{extension}"
    geo = extension in _RASTERS or extension in _VECTORS
    if appended:
        # .tif.xml describes a raster; .report.xml is a report
        own = any(f".{appended}".endswith(end) for end in (".aux.xml", ".ovr", ".msk"))
        return "sidecar" if geo or own else "other"
    if extension in _RASTERS:
        return "raster"
    if extension in _VECTORS:
        return "vector"
    if extension in _BESIDE or extension in (".ovr", ".msk") or extension in _PART_TAILS - _TABLES:
        return "sidecar"
    # .dbf and its like become sidecars where their main file is met
    return "other"


def _kind_of_any(lowered: str) -> Kind:
    if lowered == ".aux.xml":
        return "sidecar"
    return _kind_of_tail(lowered) if lowered else "other"


def kind_of(name: str) -> Kind:
    """The kind by the name alone; a ``.dbf`` is ``other``, as nothing says here what lies beside it."""
    frame = with_kinds(pl.DataFrame({"name": [name], "file_count": [None]}, schema_overrides={"file_count": pl.Int64}))
    return cast("Kind", frame["kind"][0])


def kinds_of_tails(tails: pl.Series) -> pl.Series:
    """Kinds of tails as :func:`tail` gives them; nulls are ``other``."""
    return pl.Series("kind", [_kind_of_any((found or "").lower()) for found in tails], pl.String)


def with_kinds(entries: pl.DataFrame) -> pl.DataFrame:
    """Add ``kind`` by the name alone; a dataset of a ``.gdb`` folder is a vector."""
    tails = entries.select(tail().str.to_lowercase().fill_null("").alias("tail"))["tail"]
    distinct = tails.unique()
    kinds = [_kind_of_any(found) for found in distinct]
    by_name = tails.replace_strict(distinct, pl.Series(kinds, dtype=pl.String), return_dtype=pl.String)
    archive = pl.any_horizontal([pl.col("name").str.to_lowercase().str.ends_with(end) for end in _ARCHIVES])
    return entries.with_columns(
        pl.when(pl.col("file_count").is_not_null() | archive).then(pl.lit("vector")).otherwise(by_name).alias("kind")
    )


def with_datasets(entries: pl.DataFrame) -> pl.DataFrame:
    """Add ``dataset``, ``role``, ``complete`` and ``missing``, and make sidecars of the parts that have a main file.

    Args:
        entries: with ``name``, ``kind``, ``file_count`` and ``problem``; blobs of equal :func:`stem` all together.

    Returns:
        The same rows in the same order.  ``dataset``: name of the main file, null where there is none.  ``role``:
        ``main``, ``part`` or ``sidecar``, null for what is no geodata.  ``complete``: of main files, whether all parts
        without which it cannot be read are there; ``missing``: those that are not, such as ``.shx .dbf``.
    """
    rows = entries.with_row_index("_at").with_columns(
        stem().alias("_stem"), tail().str.to_lowercase().fill_null("").alias("_tail")
    )
    usable = rows.filter(pl.col("problem").is_null() & pl.col("file_count").is_null())
    mains = usable.filter(pl.col("kind").is_in(["raster", "vector"])).select("_at", "_stem", "_tail", main="name")
    # of mains that differ in the case of their extension only, the first counts
    first = mains.sort("main").unique(("_stem", "_tail"), keep="first", maintain_order=True)
    members = _members(usable, first)
    missing = _missing(usable, mains)
    found = (
        rows.join(members, on="_at", how="left")
        .join(missing, on="_at", how="left")
        .sort("_at")
        .with_columns(
            ((pl.col("kind").is_in(["raster", "vector"])) & pl.col("problem").is_null()).alias("_is_main"),
        )
    )
    return found.with_columns(
        dataset=pl.when("_is_main").then("name").otherwise("_main"),
        role=pl.when("_is_main")
        .then(pl.lit("main"))
        .when(pl.col("_main").is_null() & (pl.col("kind") != "sidecar"))
        .then(None)
        .when(pl.col("problem").is_not_null())
        .then(None)
        .otherwise(pl.coalesce("_role", pl.lit("sidecar"))),
        complete=pl.when("_is_main").then(pl.col("missing").is_null()),
        kind=pl.when(pl.col("_main").is_not_null()).then(pl.lit("sidecar")).otherwise("kind"),
    ).select(*entries.columns, "dataset", "role", "complete", "missing")


def _members(usable: pl.DataFrame, mains: pl.DataFrame) -> pl.DataFrame:
    """Rows that belong to a main file: ``_at``, ``_main`` and ``_role``."""
    others = usable.filter(~pl.col("kind").is_in(["raster", "vector"])).select("_at", "_stem", "_tail")
    tails = others["_tail"].unique()
    wanted = [
        (found, main, role, rank)
        for found in tails
        for rank, (main, role) in enumerate(_mains_for(found))
    ]  # fmt: skip
    candidates = pl.DataFrame(
        wanted,
        schema={"_tail": pl.String, "_main_tail": pl.String, "_role": pl.String, "_rank": pl.Int64},
        orient="row",
    )
    return (
        others.join(candidates, on="_tail")
        .join(mains.select("_stem", _main_tail="_tail", _main="main"), on=("_stem", "_main_tail"))
        .sort("_at", "_rank")
        .unique("_at", keep="first", maintain_order=True)
        .select("_at", "_main", "_role")
    )


@lru_cache(maxsize=4096)
def _mains_for(found: str) -> tuple[tuple[str, str], ...]:
    """Tails of the main files that a blob with this tail may belong to, the likeliest first, with its role there."""
    candidates: list[tuple[str, str]] = []
    rest = found
    while any(rest.endswith(end) for end in _APPENDED):
        rest = rest.removesuffix(next(end for end in _APPENDED if rest.endswith(end)))
        if rest:
            candidates.append((rest, "sidecar"))
        elif found == ".aux.xml":
            candidates += [(main, "sidecar") for main in _MAINS_OF_AUX]
    if found in (".ovr", ".msk"):
        candidates += [(main, "sidecar") for main in _MAINS_OF_AUX]
    candidates += [(main, "part") for main, parts in _PARTS.items() if found in parts]
    candidates += [(main, "sidecar") for main in _BESIDE.get(found, ())]
    return tuple(candidates)


def _missing(usable: pl.DataFrame, mains: pl.DataFrame) -> pl.DataFrame:
    """Main files that lack a part they need: ``_at`` and ``missing``."""
    needed = pl.DataFrame(
        [(main, part, rank) for main, parts in _NEEDED.items() for rank, part in enumerate(parts)],
        schema={"_tail": pl.String, "_part": pl.String, "_rank": pl.Int64},
        orient="row",
    )
    wanted = mains.select("_at", "_stem", "_tail").join(needed, on="_tail")
    there = usable.select("_stem", _part="_tail").unique()
    return (
        wanted.join(there, on=("_stem", "_part"), how="anti")
        .sort("_at", "_rank")
        .group_by("_at", maintain_order=True)
        .agg(pl.col("_part").str.join(" ").alias("missing"))
    )
