"""The STAC item of a raster: from an open dataset and what is known of its blob to a finished document.

What belongs here: :func:`raster_item`.  What does not: opening the file (``geo_assets.raster`` does it behind its
fences), writing the item (``stores.catalog``), its checks (``validation``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rasterio.enums import ColorInterp

from geo_assets.stac.acquisition import acquisition
from geo_assets.stac.bands import bands, bands_of_1_0
from geo_assets.stac.footprint import Footprint, Georeference, footprint, georeference
from geo_assets.stac.items import (
    COG_MEDIA_TYPE,
    FILE,
    PROCESSING,
    BlobFacts,
    StacVersion,
    asset_of_blob,
    provenance_properties,
    rfc3339,
)
from geo_assets.stac.sampling import sampled_statistics

__all__ = ["RasterItemOptions", "raster_item"]

_EXTENSIONS = "https://stac-extensions.github.io"
_RENDER = f"{_EXTENSIONS}/render/v2.0.0/schema.json"
_PROJECTION = {
    "1.1.0": f"{_EXTENSIONS}/projection/v2.0.0/schema.json",
    "1.0.0": f"{_EXTENSIONS}/projection/v1.1.0/schema.json",
}
_RASTER = {"1.1.0": f"{_EXTENSIONS}/raster/v2.0.0/schema.json", "1.0.0": f"{_EXTENSIONS}/raster/v1.1.0/schema.json"}
_EO = {"1.1.0": f"{_EXTENSIONS}/eo/v2.0.0/schema.json", "1.0.0": f"{_EXTENSIONS}/eo/v1.1.0/schema.json"}

_MEDIA_TYPES = {
    "GTiff": "image/tiff; application=geotiff",
    "COG": COG_MEDIA_TYPE,
    "JP2OpenJPEG": "image/jp2",
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "netCDF": "application/netcdf",
    "HDF5": "application/x-hdf5",
    "NITF": "application/vnd.nitf",
}
_DOMAINS = ("", "IMAGERY")
_SHOWN_SHARE = 0.02
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


@dataclass(frozen=True, kw_only=True)
class RasterItemOptions:
    """How an item is made, as far as it does not follow from the raster."""

    stac_version: StacVersion = "1.1.0"
    """``1.0.0`` writes ``raster:bands``, ``eo:bands`` and ``proj:epsg``."""
    sample_side: int = 1024
    """Longer side, in pixels, of the sample that is read where no statistics are given."""
    taken_at: datetime | None = None
    """When the data was taken, where the caller knows."""
    datetime_pattern: str | None = None
    """See ``acquisition.check_datetime_pattern``."""
    raster_type: str | None = None
    """The detected type (``rgb``, ``dem``, ``categorical``, …), for the hints how to render it."""
    cloud_optimized: bool | None = None
    """Whether the file is a proven COG; default: what its own header claims."""
    job_id: str | None = None
    """The job that makes the item."""
    lineage: str | None = None
    """A sentence on how the data came about."""
    extra_properties: Mapping[str, Any] = field(default_factory=dict)
    """More properties; ours win."""
    now: datetime | None = None
    """The time of writing; default: the present."""


def raster_item(
    dataset: Any,
    *,
    item_id: str,
    collection_id: str,
    blob: BlobFacts,
    source: BlobFacts | None = None,
    statistics: Sequence[Mapping[str, Any] | None] | None = None,
    thumbnail: BlobFacts | None = None,
    extra_assets: Mapping[str, Mapping[str, Any]] | None = None,
    options: RasterItemOptions = RasterItemOptions(),
) -> dict[str, Any]:
    """Build the item that describes an open raster.

    Args:
        dataset: an open rasterio dataset; only its header is read where ``statistics`` are given.
        item_id: see ``identifiers.raster_item_id``.
        collection_id: the collection it goes to.
        blob: the blob that the dataset was opened from: the asset ``data``.
        source: the blob that one was made of, for a COG.
        statistics: one dict a band, of the shape described in ``sampling``; ``None``: a sample is read here; empty:
            none are written.
        thumbnail: a picture of it.
        extra_assets: more assets by key, such as other tiers (``items.asset_of_blob`` makes them).
        options: the rest.

    Raises:
        NoItemError: nothing says where on Earth the raster lies.
        ParameterError: a parameter cannot be used.
    """
    now = options.now or datetime.now(UTC)
    stac_version = options.stac_version
    located = georeference(dataset)
    outline = footprint(located, width=dataset.width, height=dataset.height)
    if statistics is None:
        statistics = sampled_statistics(dataset, largest_side=options.sample_side)
    described = bands(dataset, statistics, pixel_metres=outline.pixel_metres)
    band_fields: dict[str, Any] = {"bands": described} if stac_version == "1.1.0" else dict(bands_of_1_0(described))
    optimized = _claims_cog(dataset) if options.cloud_optimized is None else options.cloud_optimized
    data = asset_of_blob(
        blob,
        media_type=blob.media_type or (COG_MEDIA_TYPE if optimized else _MEDIA_TYPES.get(dataset.driver)),
        roles=["data"],
        fields=band_fields,
    )
    assets: dict[str, Any] = {"data": data, **{key: dict(asset) for key, asset in (extra_assets or {}).items()}}
    if thumbnail is not None:
        assets["thumbnail"] = asset_of_blob(thumbnail, roles=["thumbnail"], fields={"title": "Thumbnail"})
    when = acquisition(
        name=(source or blob).name,
        tags={domain: dataset.tags(ns=domain or None) for domain in _DOMAINS},
        pattern=options.datetime_pattern,
        given=options.taken_at,
        blob_date=(source or blob).last_modified,
        now=now,
    )
    properties: dict[str, Any] = {
        **options.extra_properties,
        "datetime": rfc3339(when.moment),
        "created": rfc3339(now),
        "updated": rfc3339(now),
        "geo_assets:datetime_source": when.source,
        "geo_assets:type": "raster",
        **provenance_properties(blob=blob, source=source, job_id=options.job_id, lineage=options.lineage),
        **_projection(located, outline, dataset, stac_version),
        "renders": {"default": _render(dataset, described, options.raster_type)},
    }
    if options.raster_type is not None:
        properties["geo_assets:raster_type"] = options.raster_type
    if outline.pixel_metres is not None:
        properties["gsd"] = outline.pixel_metres
    return {
        "type": "Feature",
        "stac_version": stac_version,
        "stac_extensions": _extensions(described, stac_version),
        "id": item_id,
        "collection": collection_id,
        "geometry": outline.geometry,
        "bbox": outline.bbox,
        "properties": properties,
        "links": [],
        "assets": assets,
    }


def _claims_cog(dataset: Any) -> bool:
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG")


def _extensions(described: Sequence[Mapping[str, Any]], version: StacVersion) -> list[str]:
    extensions = [_PROJECTION[version], _RASTER[version], FILE, PROCESSING, _RENDER]
    if any("eo:common_name" in band for band in described):
        extensions.append(_EO[version])
    return sorted(extensions)


def _projection(located: Georeference, outline: Footprint, dataset: Any, version: StacVersion) -> dict[str, Any]:
    code = located.crs.code
    epsg = int(code[5:]) if code is not None and code.startswith("EPSG:") else None
    fields: dict[str, Any] = {}
    if version == "1.0.0" and epsg is not None:
        fields["proj:epsg"] = epsg
    elif version == "1.1.0" and code is not None:
        fields["proj:code"] = code
    else:
        fields["proj:wkt2"] = located.crs.wkt2
    left, bottom, right, top = outline.projected_bbox
    longitude, latitude = outline.centroid
    fields |= {
        "proj:bbox": outline.projected_bbox,
        "proj:shape": [dataset.height, dataset.width],
        "proj:centroid": {"lat": latitude, "lon": longitude},
    }
    if located.source == "transform":
        transform = [float(value) for value in tuple(dataset.transform)[:6]]
        fields["proj:transform"] = transform
        if not (transform[1] or transform[3]):
            ring = [[left, bottom], [right, bottom], [right, top], [left, top], [left, bottom]]
            fields["proj:geometry"] = {"type": "Polygon", "coordinates": [ring]}
    return fields


def _render(dataset: Any, described: Sequence[Mapping[str, Any]], raster_type: str | None) -> dict[str, Any]:
    """Hints how to show it, as the render extension has them: colours as they are, the rest stretched."""
    render: dict[str, Any] = {"assets": ["data"], "title": "Default", "resampling": "bilinear"}
    interpretation = list(dataset.colorinterp)
    if "nodata" in described[0]:
        render["nodata"] = described[0]["nodata"]
    if interpretation[0] is ColorInterp.palette:
        shown = _palette(dataset, described[0])
        return render | {"bidx": [1], "resampling": "nearest"} | ({"colormap": shown} if shown else {})
    colours = [interpretation.index(colour) for colour in _COLOURS if colour in interpretation]
    chosen = colours if len(colours) == len(_COLOURS) else [0]
    render["bidx"] = [index + 1 for index in chosen]
    stretches = [_stretch(described[index], whole=len(chosen) > 1) for index in chosen]
    if all(stretch is not None for stretch in stretches):
        render["rescale"] = stretches
    if len(chosen) == 1:
        render["colormap_name"] = "terrain" if raster_type == "dem" else "gray"
    if raster_type == "categorical":
        render["resampling"] = "nearest"
    return render


def _palette(dataset: Any, band: Mapping[str, Any]) -> dict[str, list[int]]:
    colours = dataset.colormap(1)
    buckets = band.get("raster:histogram", {}).get("buckets", [])
    used = [value for value, count in enumerate(buckets) if count] if len(buckets) == len(colours) else sorted(colours)
    return {str(value): list(colours[value]) for value in used}


def _stretch(band: Mapping[str, Any], *, whole: bool) -> list[float] | None:
    """From where to where to stretch a band: all of a byte for colours, else without the outermost 2 %."""
    if whole and band["data_type"] == "uint8":
        return [0, 255]
    statistics, histogram = band.get("statistics", {}), band.get("raster:histogram")
    low, high = statistics.get("minimum"), statistics.get("maximum")
    if low is None or high is None:
        return None
    if histogram is not None and (total := sum(histogram["buckets"])):
        width = (histogram["max"] - histogram["min"]) / histogram["count"]
        counts = histogram["buckets"]
        inner_low = max(low, histogram["min"] + width * _buckets_within(counts, total * _SHOWN_SHARE))
        inner_high = min(high, histogram["max"] - width * _buckets_within(counts[::-1], total * _SHOWN_SHARE))
        if inner_high > inner_low:
            return [inner_low, inner_high]
    return [low, high] if high > low else None


def _buckets_within(counts: Sequence[int], limit: float) -> int:
    """How many buckets from the start hold together at most ``limit`` pixels."""
    so_far = 0
    for position, count in enumerate(counts):
        so_far += count
        if so_far > limit:
            return position
    return len(counts)
