"""Items of rasters: whole, true, and valid by the core and the extension schemas.

What belongs here: ``raster_item``, ``bands``, ``sampling`` and ``items``.  What does not: footprints, dates, stores.
"""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from geo_assets.errors import NoItemError, ParameterError
from geo_assets.stac.bands import common_name
from geo_assets.stac.identifiers import raster_item_id
from geo_assets.stac.items import BlobFacts, durable_href, file_href, multihash, rfc3339, same_item
from geo_assets.stac.raster_item import RasterItemOptions, raster_item
from geo_assets.stac.sampling import band_statistics, sampled_statistics
from geo_assets.stac.validation import core_schema_problems, item_problems
from tests.stac.rasters import GEOREFERENCED, made, real
from tests.stac.schemas import extension_problems

NOW = datetime(2026, 2, 3, tzinfo=UTC)
WRITTEN = datetime(2022, 5, 6, tzinfo=UTC)


def blob(name: str = "a.tif", **changes: Any) -> BlobFacts:
    facts = {"etag": '"0x1"', "size": 1234, "last_modified": WRITTEN, "sha256": "ab" * 32, **changes}
    return BlobFacts(container="bronze", name=name, href=f"https://h.example/bronze/{name}?sv=1&sig=canary", **facts)


def item_of(dataset: Any, **options: Any) -> dict[str, Any]:
    made_item = raster_item(
        dataset,
        item_id=raster_item_id("bronze", "a.tif"),
        collection_id="cogs",
        blob=options.pop("blob", blob()),
        source=options.pop("source", None),
        statistics=options.pop("statistics", None),
        thumbnail=options.pop("thumbnail", None),
        options=RasterItemOptions(now=NOW, **options),
    )
    assert item_problems(made_item) == []
    assert extension_problems(made_item) == []
    return made_item


@pytest.fixture(params=GEOREFERENCED)
def dataset(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Each real raster that has a place, open."""
    with rasterio.open(real(request.param)) as opened:
        yield opened


@pytest.mark.parametrize("version", ["1.1.0", "1.0.0"])
def test_items_of_real_rasters_are_valid(dataset: Any, version: Any) -> None:
    found = item_of(dataset, stac_version=version)
    asset = found["assets"]["data"]
    described = asset["bands"] if version == "1.1.0" else asset["raster:bands"]
    assert len(described) == dataset.count
    assert found["properties"]["proj:shape"] == [dataset.height, dataset.width]
    assert found["properties"]["gsd"] > 0
    code = found["properties"].get("proj:code" if version == "1.1.0" else "proj:epsg")
    assert (code is None) == ("proj:wkt2" in found["properties"])
    read = pystac.Item.from_dict(found)
    assert read.bbox == found["bbox"]


@pytest.mark.parametrize("name", ["no_crs_float64.tif", "rotated_no_crs.tif"])
def test_a_raster_without_a_place_has_no_item(name: str) -> None:
    with rasterio.open(real(name)) as opened, pytest.raises(NoItemError, match="no CRS"):
        item_of(opened)


def test_statistics_agree_with_the_pixels(dataset: Any) -> None:
    if max(dataset.shape) > 1024:
        pytest.skip("sampled")
    for number, found in enumerate(sampled_statistics(dataset), 1):
        alpha = dataset.colorinterp[number - 1] is ColorInterp.alpha
        values = dataset.read(number) if alpha else dataset.read(number, masked=True).compressed()
        values = values[np.isfinite(values)]
        assert found["count"] == dataset.width * dataset.height
        assert found["valid_percent"] == pytest.approx(100 * values.size / found["count"], abs=1e-4)
        if values.size:
            assert (found["minimum"], found["maximum"]) == (values.min(), values.max())
            assert found["mean"] == pytest.approx(values.mean(dtype="float64"))
            assert found["stddev"] == pytest.approx(values.std(dtype="float64"))
            assert sum(found.get("histogram", {"buckets": [values.size]})["buckets"]) == values.size


def test_colours_get_their_names_and_the_order_to_show_them() -> None:
    with rasterio.open(real("aerial_rgba_uint16_utm12n.tif")) as opened:
        found = item_of(opened)
    names = [band.get("eo:common_name") for band in found["assets"]["data"]["bands"]]
    assert names == ["blue", "green", "red", None]
    assert found["properties"]["renders"]["default"]["bidx"] == [3, 2, 1]
    assert any("/eo/" in uri for uri in found["stac_extensions"])


def test_a_palette_is_shown_in_its_colours() -> None:
    with rasterio.open(real("landcover_palette_laea.tif")) as opened:
        found = item_of(opened)
        render = found["properties"]["renders"]["default"]
        assert render["resampling"] == "nearest"
        assert 1 < len(render["colormap"]) < 256
        assert all(tuple(colour) == opened.colormap(1)[int(value)] for value, colour in render["colormap"].items())


def test_the_asset_is_durable_and_says_size_and_checksum() -> None:
    with made("EPSG:4326") as opened:
        found = item_of(opened, thumbnail=blob("t.webp", media_type="image/webp"))
    data = found["assets"]["data"]
    assert data["href"] == "https://h.example/bronze/a.tif"
    assert data["file:size"] == 1234
    assert data["file:checksum"] == "1220" + "ab" * 32
    assert data["type"] == "image/tiff; application=geotiff"
    assert found["assets"]["thumbnail"]["roles"] == ["thumbnail"]
    assert "canary" not in str(found)


def test_where_it_comes_from() -> None:
    source = BlobFacts(
        container="raw",
        name="2019/x_20190807.tif",
        href="https://h.example/raw",
        etag='"9"',
        last_modified=datetime(2021, 1, 1, tzinfo=UTC),
    )
    with made("EPSG:4326") as opened:
        found = item_of(opened, source=source, job_id="f" * 64, datetime_pattern="_%Y%m%d", lineage="Warped.")
        plain = item_of(opened)
    properties = found["properties"]
    assert properties["datetime"] == "2019-08-07T00:00:00Z"
    assert properties["geo_assets:datetime_source"] == "name pattern"
    assert (properties["geo_assets:container"], properties["geo_assets:blob"]) == ("bronze", "a.tif")
    assert (properties["geo_assets:source_container"], properties["geo_assets:source_etag"]) == ("raw", '"9"')
    assert properties["geo_assets:job_id"] == "f" * 64
    assert properties["created"] == properties["updated"] == "2026-02-03T00:00:00Z"
    assert plain["properties"]["datetime"] == rfc3339(WRITTEN)
    assert plain["properties"]["geo_assets:datetime_source"] == "blob date"


def test_given_statistics_are_taken_and_nothing_is_read() -> None:
    given = {
        "minimum": 1.5,
        "maximum": 9,
        "mean": float("nan"),
        "stddev": None,
        "valid_percent": 50.0,
        "percentile_2": 2.0,
        "histogram": {"count": 3, "min": 1.5, "max": 9, "buckets": [1, 2, 3]},
    }
    with made("EPSG:4326") as opened:
        [band] = item_of(opened, statistics=[given])["assets"]["data"]["bands"]
        [none] = item_of(opened, statistics=[])["assets"]["data"]["bands"]
    assert band["statistics"] == {"minimum": 1.5, "maximum": 9, "valid_percent": 50.0}
    assert band["raster:histogram"]["buckets"] == [1, 2, 3]
    assert "statistics" not in none


@pytest.mark.parametrize(
    ("values", "profile", "expected"),
    [
        (np.full((4, 4), np.nan, "float32"), {"nodata": float("nan")}, {"nodata": "nan", "data_type": "float32"}),
        (np.zeros((4, 4), "float64"), {"nodata": float("-inf")}, {"nodata": "-inf"}),
        (np.full((4, 4), np.inf, "float64"), {}, {"statistics": {"count": 16, "valid_percent": 0.0}}),
        (np.zeros((4, 4), "complex64"), {}, {"data_type": "cfloat32"}),
        (np.full((4, 4), 255, "uint8"), {"nodata": 255}, {"nodata": 255}),
        (np.full((4, 4), 1e308, "float64"), {}, {"data_type": "float64"}),
        (np.array([[-1e308, 1e308]]), {}, {"data_type": "float64"}),
        (np.ones((4, 4), "uint8"), {"nbits": 1}, {"raster:bits_per_sample": 1}),
        (np.ones((4, 4), "int64"), {"nodata": -9999}, {"nodata": -9999, "data_type": "int64"}),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about 1e308 squared
def test_odd_pixels_still_make_valid_items(values: Any, profile: dict[str, Any], expected: dict[str, Any]) -> None:
    with made("EPSG:4326", values=values, **profile) as opened:
        [band] = item_of(opened)["assets"]["data"]["bands"]
    assert {name: band[name] for name in expected} == expected


def test_scale_offset_unit_and_point_sampling() -> None:
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            width=4,
            height=4,
            count=1,
            dtype="int16",
            crs="EPSG:32633",
            transform=rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000),
        ) as writing:
            writing.scales, writing.offsets, writing.units = (0.1,), (-5.0,), ("m",)
            writing.set_band_description(1, "NIR")
            writing.update_tags(AREA_OR_POINT="Point", TIFFTAG_DATETIME="2011:12:13 14:15:16")
        with rasterio.open(memory) as opened:
            found = item_of(opened)
    [band] = found["assets"]["data"]["bands"]
    assert (band["raster:scale"], band["raster:offset"], band["unit"]) == (0.1, -5.0, "m")
    assert (band["raster:sampling"], band["eo:common_name"], band["description"]) == ("point", "nir", "NIR")
    assert band["raster:spatial_resolution"] == pytest.approx(10, rel=1e-3)
    assert found["properties"]["datetime"] == "2011-12-13T14:15:16Z"


def test_an_overview_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    pixels = np.arange(4000 * 3000, dtype="uint16").reshape(1, 3000, 4000)
    with rasterio.open(
        path, "w", driver="COG", width=4000, height=3000, count=1, dtype="uint16", crs="EPSG:4326",
        transform=rasterio.Affine(0.001, 0, 0, 0, -0.001, 0),
    ) as writing:  # fmt: skip
        writing.write(pixels)
    with rasterio.open(path) as opened:
        [found] = sampled_statistics(opened)
        expected = opened.read(1, out_shape=(750, 1000))
        asset = item_of(opened)["assets"]["data"]
    assert found["count"] == 750_000
    assert found["mean"] == pytest.approx(expected.mean())
    assert asset["type"].endswith("profile=cloud-optimized")


def test_the_same_raster_later_is_the_same_item() -> None:
    with made("EPSG:4326") as opened:
        first, again = item_of(opened, job_id="a"), item_of(opened, job_id="b")
        again["properties"]["updated"] = "2030-01-01T00:00:00Z"
        other = item_of(opened, blob=blob(etag='"2"'))
    assert same_item(first, again)
    assert not same_item(first, other)


def test_statistics_of_nothing() -> None:
    assert band_statistics(np.zeros((0, 0), "uint8")) == {"count": 0, "valid_percent": 0.0}


def test_names_of_bands() -> None:
    assert common_name(ColorInterp.red, None) == "red"
    assert common_name(ColorInterp.gray, None) is None
    assert common_name(ColorInterp.red, "SWIR 16") == "swir16"
    assert common_name(ColorInterp.red, "whatever") == "red"


def test_hrefs() -> None:
    assert durable_href("https://u:p@h.example:1/a b/ü.tif?x=1#y") == "https://h.example:1/a%20b/%C3%BC.tif"
    assert durable_href("https://h.example/a%20b.tif") == "https://h.example/a%20b.tif"
    assert file_href(Path("/data/what?#.tif")) == "file:///data/what%3F%23.tif"
    assert durable_href(file_href(Path("/data/what?#.tif"))) == "file:///data/what%3F%23.tif"
    with pytest.raises(ParameterError):
        durable_href("")


def test_checksums() -> None:
    assert multihash("md5", "AB" * 16) == "d50110" + "ab" * 16
    for algorithm, digest in [("sha256", "ab"), ("sha256", "zz" * 32), ("crc32", "ab")]:
        with pytest.raises(ParameterError):
            multihash(algorithm, digest)


def test_times_need_a_zone() -> None:
    with pytest.raises(ParameterError, match="time zone"):
        rfc3339(datetime(2020, 1, 1))  # noqa: DTZ001


def test_core_schema_validation_is_fast_enough_for_every_item() -> None:
    with rasterio.open(real("goes_geostationary.tif")) as opened:
        found = item_of(opened)
    best = min(_seconds(found) for _ in range(20))
    assert best < 1e-3  # 0.03 ms alone; a slow library takes 5


def _seconds(found: dict[str, Any]) -> float:
    start = time.perf_counter()
    assert core_schema_problems(found) == []
    return time.perf_counter() - start
