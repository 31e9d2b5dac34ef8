"""Checks of rasters: all is well with real files, and each check sees what it is for.

What belongs here: breaking the real thing, one thing at a time.  What does not: making COGs (``tests/jobs``).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_assets.checking.items import _box_within
from geo_assets.checking.raster_files import compare_task, read_cog_task
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger_tables import attempts
from geo_assets.raster.validate import cog_verdict
from tests.checking.conftest import Verdicts
from tests.jobs.bench import Bench
from tests.raster.rasters import BUDGET, UTM, hills, noise, write

NAME = "bronze/tile.tif"
COG = "tile_cog.tif"
ASSETS = ("raster_validation", "cog", "raster_stac_item")


@pytest.fixture
def published(bench: Bench) -> Bench:
    """A workbench with one small raster, published."""
    put_tile(bench, hills(96).astype("float32"))
    assert bench.run("process_raster", blob_name="tile.tif").status is JobStatus.COMPLETED
    return bench


def put_tile(bench: Bench, pixels: Any) -> None:
    folder = bench.containers / "bronze"
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "tile.tif", pixels, **UTM)


def everything(bench: Bench, verdicts: Verdicts) -> dict[str, str]:
    """What is not well, by asset and check."""
    found = {
        f"{asset}.{check}": said for asset in ASSETS for check, said in verdicts(bench.machine, asset, NAME).items()
    }
    assert len(found) == 9
    return {name: said for name, said in found.items() if not said.startswith("passed")}


def item_file(bench: Bench) -> Path:
    (path,) = bench.settings.catalog_path.rglob("*tile_cog*.json")
    return path


# --- all is well ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("elevation_float64_4326.tif", {"target_crs": "EPSG:3857"}),
        ("landsat_rgba_utm18n.tif", {"tiers": ["visualization"]}),
        ("landcover_palette_laea.tif", {"target_crs": None}),
    ],
)
def test_real_rasters_pass_every_check(bench: Bench, verdicts: Verdicts, name: str, more: dict[str, Any]) -> None:
    bench.put("bronze", name)
    bench.run("process_raster", blob_name=name, **more)
    for asset in ASSETS:
        found = verdicts(bench.machine, asset, f"bronze/{name}")
        assert all(said.startswith("passed: ") for said in found.values()), found


def test_nothing_is_changed_and_nothing_left(published: Bench, verdicts: Verdicts) -> None:
    before = {name: published.files(name) for name in ("bronze", "silver", "thumbnails")}
    assert everything(published, verdicts) == {}
    assert {name: published.files(name) for name in before} == before
    assert not list(published.settings.scratch_path.iterdir())


def test_a_validation_alone_is_enough_for_its_own_check(bench: Bench, verdicts: Verdicts) -> None:
    put_tile(bench, noise(40, 40))
    bench.run("validate_raster_job", blob_name="tile.tif")
    assert verdicts(bench.machine, "raster_validation", NAME)["raster_valid"].startswith(
        "passed: valid, and the source"
    )
    assert verdicts(bench.machine, "cog", NAME)["cog_valid"].startswith("warned: no finished job is on record")
    assert verdicts(bench.machine, "raster_stac_item", NAME)["item_valid"].startswith("warned: no finished job")


# --- the source ----------------------------------------------------------------------------------------------------


def test_a_source_that_is_replaced_and_one_that_is_gone(published: Bench, verdicts: Verdicts) -> None:
    source = published.containers / "bronze" / "tile.tif"
    write(source, noise(96, 96), **UTM)
    bad = everything(published, verdicts)
    assert set(bad) == {"raster_validation.raster_valid", "cog.cog_matches_source"}
    assert "failed: bronze/tile.tif was replaced on 20" in bad["raster_validation.raster_valid"]
    assert "after it was validated: materialize this partition again" in bad["raster_validation.raster_valid"]
    assert "after the COG was made of it" in bad["cog.cog_matches_source"]
    published.run("process_raster", blob_name="tile.tif")
    assert everything(published, verdicts) == {}

    # what was made of it may stay, so nothing is red for it
    source.unlink()
    bad = everything(published, verdicts)
    assert {said.partition(":")[0] for said in bad.values()} == {"warned"}
    about_it = {"raster_validation.raster_valid", "cog.cog_matches_source"}
    assert set(bad) == {f"{asset}.source_present" for asset in ASSETS} | about_it
    assert "bronze/tile.tif is gone from its container" in bad["cog.source_present"]


# --- the COG -------------------------------------------------------------------------------------------------------


def test_whatever_happens_to_a_cog_is_seen(published: Bench, verdicts: Verdicts) -> None:
    cog = published.containers / "silver" / COG
    good = cog.read_bytes()
    _bytes_that_changed_behind_the_etag(published, verdicts)
    _cut_off(cog, published, verdicts)
    cog.write_bytes(good)
    _another_raster_in_its_place(cog, published, verdicts)
    _what_is_no_cog_is_never_opened_by_another_driver(cog, published, verdicts)
    cog.unlink()
    bad = everything(published, verdicts)
    assert set(bad) == {"cog.cog_valid", "cog.cog_matches_source", "raster_stac_item.item_hrefs_present"}
    assert bad["cog.cog_valid"] == "failed: silver/tile_cog.tif is gone: materialize this partition again"
    assert (
        "the asset 'data' points to silver/tile_cog.tif, which is not there"
        in (bad["raster_stac_item.item_hrefs_present"])
    )


def _cut_off(cog: Path, published: Bench, verdicts: Verdicts) -> None:
    cog.write_bytes(cog.read_bytes()[:-2000])
    bad = everything(published, verdicts)
    assert set(bad) == {"cog.cog_valid", "cog.cog_matches_source", "raster_stac_item.item_hrefs_present"}
    said = bad["cog.cog_valid"]
    assert said.startswith("failed: silver/tile_cog.tif was replaced on 20")
    assert said.endswith("materialize this partition again")
    assert "silver/tile_cog.tif: the TIFF is cut off" in said
    assert str(published.settings.scratch_path) not in said


def _bytes_that_changed_behind_the_etag(published: Bench, verdicts: Verdicts) -> None:
    job = published.ledger.attempts_of_partitions(["cog"], [NAME])[0]
    assert job.result_data is not None
    bad = json.loads(json.dumps(job.result_data))
    bad["cog"]["tiers"]["analysis"]["sha256"] = "0" * 64
    _rewrite(published, bad)
    found = everything(published, verdicts)
    assert set(found) == {"cog.cog_valid"}
    assert "does not have the bytes that were published" in found["cog.cog_valid"]
    _rewrite(published, job.result_data)


def _rewrite(bench: Bench, result: Mapping[str, Any]) -> None:
    bench.ledger.write(lambda c: c.execute(attempts.update().values(result_data=dict(result))))


def _what_is_no_cog_is_never_opened_by_another_driver(cog: Path, published: Bench, verdicts: Verdicts) -> None:
    text = f'<VRTDataset rasterXSize="1" rasterYSize="1"><SourceFilename>{__file__}</SourceFilename></VRTDataset>'
    for size in ("small", "huge"):
        cog.write_text(text if size == "small" else text + " " * 1_000_000)
        said = verdicts(published.machine, "cog", NAME)["cog_valid"]
        assert "was replaced on" in said
        # what is larger than what was published is not even fetched
        assert ("silver/tile_cog.tif: " in said.partition("; ")[2]) == (size == "small")


def _another_raster_in_its_place(cog: Path, published: Bench, verdicts: Verdicts) -> None:
    with rasterio.open(cog) as made:
        profile = {"crs": made.crs, "transform": made.transform, "nodata": made.nodata}
        other = 9000 + noise(*made.shape, dtype="float32")
    write(cog, other, driver="COG", **profile)
    found = verdicts(published.machine, "cog", NAME)["cog_matches_source"]
    assert "points differ from the source" in found, found


def test_reading_a_whole_cog(tmp_path: Path) -> None:
    good = write(tmp_path / "good.tif", noise(700, 700), driver="COG", compress="deflate", **UTM)
    ask = {"name": COG, "budget": BUDGET.as_dict()}
    assert read_cog_task({"path": str(good), **ask})["result"]["blocks"] >= 1
    plain = write(tmp_path / "plain.tif", noise(1500, 700), **UTM)
    assert "no valid COG" in read_cog_task({"path": str(plain), **ask})["message"]
    damaged = tmp_path / "damaged.tif"
    content = good.read_bytes()
    damaged.write_bytes(content[: len(content) // 2] + bytes(2000) + content[len(content) // 2 + 2000 :])
    assert cog_verdict(damaged, "GTiff")["valid"], "the structure alone tells nothing"
    said = read_cog_task({"path": str(damaged), **ask})
    assert not said["success"]
    assert "full resolution cannot be read in columns 0 to" in said["message"]
    assert str(tmp_path) not in said["message"]


BASE: dict[str, Any] = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_300_000, 10, 10)}
SURFACE = hills(64).astype("float32")


@pytest.mark.parametrize(
    ("pixels", "how", "why"),
    [
        (SURFACE, {}, ""),
        (SURFACE[:60], {}, "64 x 60 pixels"),
        (SURFACE, {"transform": from_origin(500_100, 5_300_000, 10, 10)}, "bounds are"),
        (SURFACE, {"crs": "EPSG:32632"}, "CRS is"),
        (np.stack([SURFACE, SURFACE]), {}, "2 bands"),
        (SURFACE.astype("float64"), {}, "pixels are float64"),
        (SURFACE, {"nodata": -1.0}, "nodata value is -1"),
        (np.where(SURFACE.max() == SURFACE, 0, SURFACE).astype("float32"), {}, "pixels differ"),
    ],
    ids=["equal", "size", "place", "crs", "bands", "type", "nodata", "one pixel"],
)
def test_source_and_cog_are_compared(tmp_path: Path, pixels: Any, how: dict[str, Any], why: str) -> None:
    source = write(tmp_path / "source.tif", SURFACE, **BASE)
    cog = write(tmp_path / "cog.tif", pixels, **{**BASE, **how})
    said = compare_task(
        {"source": str(source), "cog": str(cog), "name": "source.tif", "budget": BUDGET.as_dict(),
         "input_crs": None, "target_crs": None, "nodata": None, "quality": None}
    )  # fmt: skip
    assert said["success"] == (not why), said
    assert why in said.get("message", "")


# --- the item ------------------------------------------------------------------------------------------------------


def test_an_item_whose_thumbnail_or_self_is_replaced_or_gone(published: Bench, verdicts: Verdicts) -> None:
    (thumbnail,) = published.files("thumbnails")
    path = published.containers / "thumbnails" / thumbnail
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    bad = everything(published, verdicts)
    assert set(bad) == {"raster_stac_item.item_hrefs_present"}
    assert "was replaced since the item was written" in bad.popitem()[1]

    path.unlink()
    bad = everything(published, verdicts)
    assert set(bad) == {"raster_stac_item.item_hrefs_present"}
    assert f"the asset 'thumbnail' points to thumbnails/{thumbnail}, which is not there" in bad.popitem()[1]

    (item,) = published.services["catalog"].iter_items("cogs")
    published.services["catalog"].delete_items("cogs", [item["id"]])
    bad = everything(published, verdicts)
    assert set(bad) == {f"raster_stac_item.item_{what}" for what in ("valid", "hrefs_present", "within_collection")}
    assert all("is gone from the catalog: materialize" in said for said in bad.values())


def test_what_is_wrong_in_an_item_or_its_collection_is_said(published: Bench, verdicts: Verdicts) -> None:
    (collection,) = published.settings.catalog_path.rglob("collection.json")
    item = item_file(published)

    def wrong_way_round(document: dict[str, Any]) -> None:
        document["geometry"]["coordinates"][0].reverse()

    def of_something_else(document: dict[str, Any]) -> None:
        document["properties"] |= {"geo_assets:container": "elsewhere", "geo_assets:blob": "other.tif"}

    def extent(**parts: Any) -> Callable[[dict[str, Any]], None]:
        return lambda document: document["extent"].update(parts)

    since, until = "2999-01-01T00:00:00Z", "1999-01-01T00:00:00Z"
    for path, change, check, why in (
        (item, wrong_way_round, "item_valid", "the outer ring runs the wrong way round"),
        (item, of_something_else, "item_valid", "it describes elsewhere/other.tif now"),
        (collection, extent(spatial={"bbox": [[0, 0, 1, 1]]}), "item_within_collection", "its box ["),
        (collection, extent(temporal={"interval": [[since, None]]}), "item_within_collection",
         "is before the collection's 2999"),
        (collection, extent(temporal={"interval": [[None, until]]}), "item_within_collection",
         "is after the collection's 1999"),
    ):  # fmt: skip
        before = path.read_text()
        document = json.loads(before)
        change(document)
        path.write_text(json.dumps(document))
        bad = verdicts(published.machine, "raster_stac_item", NAME)
        assert {name for name, said in bad.items() if not said.startswith("passed")} == {check}, why
        assert why in bad[check]
        path.write_text(before)
    assert everything(published, verdicts) == {}
    _what_is_no_item_is_said_and_not_stumbled_over(item, published, verdicts)


def _what_is_no_item_is_said_and_not_stumbled_over(item: Path, published: Bench, verdicts: Verdicts) -> None:
    good = json.loads(item.read_text())
    odd = {**good, "bbox": [1, "west"], "assets": {**good["assets"], "data": 5}}
    odd["properties"] = {**good["properties"], "datetime": "not a time"}
    item.write_text(json.dumps(odd))
    bad = verdicts(published.machine, "raster_stac_item", NAME)
    assert bad["item_valid"].startswith("failed: ")
    assert "its asset 'data' is none" in bad["item_hrefs_present"]
    assert "its box [1, 'west'] or the collection's [[" in bad["item_within_collection"]
    assert bad["item_within_collection"].count("its time 'not a time' or the collection's '20") == 1
    for damaged in ('{"id": 5}', "{"):
        item.write_text(damaged)
        bad = verdicts(published.machine, "raster_stac_item", NAME)
        del bad["source_present"]
        for said in bad.values():
            assert said.endswith(
                "is damaged: what the catalog has in its place is no item: materialize this partition again"
            )
            assert said.startswith("failed: cogs/")


def test_an_item_of_a_bulk_job_is_found_in_the_catalog(bench: Bench, verdicts: Verdicts) -> None:
    put_tile(bench, noise(40, 40))
    bench.run("stac_catalog_container", container_name="bronze", collection_id="dev")
    found = verdicts(bench.machine, "raster_stac_item", NAME)
    assert {said.partition(":")[0] for said in found.values()} == {"passed"}, found


@pytest.mark.parametrize(
    ("box", "extent", "inside"),
    [
        ((1, 1, 2, 2), (0, 0, 3, 3), True),
        ((1, 1, 4, 2), (0, 0, 3, 3), False),
        ((1, -1, 2, 2), (0, 0, 3, 3), False),
        ((179, 0, -179, 1), (170, 0, -170, 1), True),
        ((178, 0, 179, 1), (170, 0, -170, 1), True),
        ((-179, 0, -178, 1), (170, 0, -170, 1), True),
        ((0, 0, 1, 1), (170, 0, -170, 1), False),
        ((179, 0, -179, 1), (-180, 0, 180, 1), True),
        ((179, 0, -179, 1), (0, 0, 180, 1), False),
        ((0, 0, 3, 3), (0.0000001, 0, 3, 3), True),
    ],
)
def test_boxes_across_the_antimeridian(box: Any, extent: Any, inside: bool) -> None:  # noqa: FBT001 - a parameter
    assert _box_within(box, extent) is inside
