"""A local raster file described for people and machines: its STAC item, its pictures, in one opening.

What belongs here: what the sandbox runs for the catalogue: open through the one door, picture, item.  What does not:
fetching the file, publishing pictures and items (``geo_assets.jobs``), the parts themselves (``raster_item``,
``raster.thumbnail``).

**To be called in a worker process**: plain values and local paths in, plain values out.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import shapely
import shapely.geometry
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from geo_assets.errors import NoItemError, RasterRefusedError, RasterUnreadableError
from geo_assets.pictures import coarse_histogram, trimmed_histogram
from geo_assets.raster.open import RasterBudget, open_raster, reason_of
from geo_assets.raster.thumbnail import MEDIA_TYPE, SMALL_BYTES, encode, render, smaller, tiny
from geo_assets.stac.footprint import footprint, georeference
from geo_assets.stac.items import BlobFacts, asset_of_blob
from geo_assets.stac.raster_item import RasterItemOptions, raster_item
from geo_assets.stac.sampling import sampled_statistics

__all__ = ["describe_raster_file"]

_SHOWN_BANDS = 3
_OUTLINE_DETAIL = 100
"""Into how many parts of its size an outline for the locator map is rounded."""


def describe_raster_file(params: dict[str, Any]) -> dict[str, Any]:
    """Picture a local raster and make its item.

    Args:
        params: ``path`` (absolute, of a private copy), ``name`` (of the blob), ``budget``
            (:meth:`RasterBudget.as_dict`); optional ``statistics`` (one dict a band; else a sample is read),
            ``raster_type``, ``thumbnail`` (facts of the blob that the picture becomes; the file is written beside the
            raster as ``thumbnail.webp``), and ``item``, the keyword arguments of
            :func:`~geo_assets.stac.raster_item.raster_item` in plain values: ``item_id``, ``collection_id``, ``blob``
            and ``source`` (facts of blobs), ``assets`` (by key: ``blob``, ``roles``, ``media_type``), ``options``.

    Returns:
        ``success`` true with a ``result`` of ``item``, ``thumbnail`` (``path``, ``size``, ``sha256``, ``media_type``),
        ``pictures`` (small, for the UI) and ``outline`` (GeoJSON, coarse); what was not asked for, or cannot be had,
        is null.  Or ``success`` false with an ``error`` code, and ``outcome`` *invalid* where the file is at fault.
    """
    try:
        with open_raster(
            Path(params["path"]), budget=RasterBudget(**params["budget"]), name=params.get("name") or ""
        ) as dataset:
            return {"success": True, "result": _describe(dataset, params)}
    except NoItemError as error:
        code, message = "NO_ITEM", str(error)
    except (RasterRefusedError, RasterUnreadableError) as error:
        code, message = "FILE_UNREADABLE", str(error)
    except (RasterioError, CPLE_BaseError) as error:
        code, message = "FILE_UNREADABLE", f"its pixels cannot be read: {reason_of(error)}"
    return {"success": False, "outcome": "invalid", "error": code, "message": message, "reason": f"{code}: {message}"}


def _describe(dataset: DatasetReader, params: Mapping[str, Any]) -> dict[str, Any]:
    statistics: Sequence[Mapping[str, Any] | None] = params.get("statistics") or sampled_statistics(dataset)
    full = render(dataset, raster_type=params.get("raster_type"))
    thumbnail: dict[str, Any] | None = None
    if params.get("thumbnail") is not None:
        encoded = encode(full)
        path = Path(params["path"]).with_name("thumbnail.webp")
        path.write_bytes(encoded)
        digest = hashlib.sha256(encoded).hexdigest()
        thumbnail = {"path": str(path), "size": len(encoded), "sha256": digest, "media_type": MEDIA_TYPE}
    shrunk = smaller(full)
    item = _item(dataset, params, statistics, thumbnail) if params.get("item") is not None else None
    return {
        "item": item,
        "thumbnail": thumbnail,
        "pictures": {
            "media_type": MEDIA_TYPE,
            "small": _text(encode(shrunk, limit_bytes=SMALL_BYTES)),
            "tiny": _text(tiny(shrunk)),
            "size": list(shrunk.image.size),
            "histograms": [
                coarse_histogram(trimmed_histogram(band["histogram"]))
                for band, color in zip(statistics, dataset.colorinterp, strict=False)
                if band and band.get("histogram") and color is not ColorInterp.alpha
            ][:_SHOWN_BANDS],
        },
        "outline": _outline(_geometry(dataset) if item is None else item["geometry"]),
        "width": dataset.width,
        "height": dataset.height,
        "bands": dataset.count,
        "dtype": dataset.dtypes[0],
        "driver": dataset.driver,
    }


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _item(
    dataset: DatasetReader,
    params: Mapping[str, Any],
    statistics: Sequence[Mapping[str, Any] | None],
    thumbnail: Mapping[str, Any] | None,
) -> dict[str, Any]:
    asked = params["item"]
    picture = None
    if thumbnail is not None:
        facts = {name: thumbnail[name] for name in ("size", "sha256", "media_type")}
        picture = _blob({**params["thumbnail"], **facts})
    options: Mapping[str, Any] = asked.get("options", {})
    looked_at = next((band["count"] for band in statistics if band and "count" in band), None)
    every = looked_at is None or looked_at == dataset.width * dataset.height
    properties = {
        **options.get("extra_properties", {}),
        "geo_assets:statistics_source": "all pixels" if every else "sample",
    }
    return raster_item(
        dataset,
        item_id=asked["item_id"],
        collection_id=asked["collection_id"],
        blob=_blob(asked["blob"]),
        source=None if asked.get("source") is None else _blob(asked["source"]),
        statistics=statistics,
        thumbnail=picture,
        extra_assets={
            key: asset_of_blob(_blob(asset["blob"]), roles=asset["roles"], media_type=asset.get("media_type"))
            for key, asset in (asked.get("assets") or {}).items()
        },
        options=RasterItemOptions(
            **{"raster_type": params.get("raster_type"), **options, "extra_properties": properties},
        ),
    )


def _blob(facts: Mapping[str, Any]) -> BlobFacts:
    modified = facts.get("last_modified")
    return BlobFacts(**{**facts, "last_modified": None if modified is None else datetime.fromisoformat(modified)})


def _geometry(dataset: DatasetReader) -> dict[str, Any] | None:
    """Its footprint; ``None`` where nothing says where on Earth it lies."""
    try:
        return footprint(georeference(dataset), width=dataset.width, height=dataset.height).geometry
    except NoItemError:
        return None


def _outline(geometry: dict[str, Any] | None) -> dict[str, Any] | None:
    """A footprint with as few points as a small map can show."""
    if geometry is None:
        return None
    shape = shapely.geometry.shape(geometry)
    west, south, east, north = shape.bounds
    coarse = shape.simplify(max(east - west, north - south) / _OUTLINE_DETAIL)
    outline: dict[str, Any] = shapely.geometry.mapping(shapely.transform(coarse, lambda points: points.round(5)))
    return outline
