"""``process_raster``: whole jobs on real files, what they leave in the stores, and what goes wrong on the way.

What belongs here: parameters, names, publishing, idempotence, faults.  What does not: the pixels of COGs
(``tests/raster/test_cog``), verdicts (``tests/raster/test_validate``), Dagster (``tests/integration``).
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from rasterio.transform import from_origin

from geo_assets.coremachine.binding import bind
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, Workflow, check_contract
from geo_assets.coremachine.ledger import Decision
from geo_assets.coremachine.sandbox import Sandbox
from geo_assets.coremachine.submission import prepare
from geo_assets.errors import CatalogError, CatalogUnavailableError, ParameterError, StoreUnavailableError
from geo_assets.jobs.cog_publishing import output_name
from geo_assets.jobs.process_raster import ProcessRaster
from geo_assets.stores.catalog import ItemOutcome
from geo_assets.stores.item_writer import ItemWriter
from geo_assets.stores.local import LocalBlobStore
from geo_assets.stores.static_catalog import StaticCatalog
from geo_assets.unpublish import execute
from tests.jobs.bench import Bench
from tests.raster.conftest import Listener, listener
from tests.raster.rasters import convert, noise, write

__all__ = ["listener"]

RGB = "landsat_rgb_utm18n.tif"
GREY = "world_byte_4326.tif"


def made(bench: Bench, **params: Any) -> dict[str, Any]:
    """The result of a job that must go well."""
    job = bench.run("process_raster", **params)
    assert job.status is JobStatus.COMPLETED, job.error_details
    assert job.result_data is not None
    assert json.loads(json.dumps(job.result_data, allow_nan=False)) == job.result_data
    return job.result_data


def left(bench: Bench) -> tuple[list[str], list[str], list[str]]:
    """What lies in the output containers and in the catalog."""
    items = [one["id"] for one in bench.services["catalog"].iter_items("cogs")]
    return bench.files("silver"), bench.files("thumbnails"), items


# --- the contract ------------------------------------------------------------------------------------------------


def test_the_contract_is_complete_and_binds() -> None:
    assert check_contract(ProcessRaster).complete
    binding = bind(ProcessRaster)
    assert (binding.asset, binding.partition_set) == ("cog", "raster_blobs")
    assert binding.asset_deps == ("raster_validation",)
    assert len(binding.segments()) == 1, "depth first: one huge raster delays nobody"


def test_the_job_id_hashes_what_the_original_hashed() -> None:
    params = ProcessRaster.validate_job_parameters({"blob_name": "a.tif"})
    hashed = (
        '{"_skip_validation": false, "blob_name": "a.tif", "compression": null, "container_name": null,'
        ' "input_crs": null, "jpeg_quality": 85, "overview_resampling": null, "raster_type": "auto",'
        ' "reproject_resampling": null, "strict_mode": false}'
    )
    assert ProcessRaster.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()
    other = ProcessRaster.validate_job_parameters({"blob_name": "a.tif", "target_crs": None})
    assert ProcessRaster.generate_job_id(other) != ProcessRaster.generate_job_id(params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "blob_name is required"),
        ({"compression": "jpg"}, "compression must be one of deflate, zstd, lzw, .* got 'jpg'"),
        ({"overview_resampling": "best"}, "overview_resampling must be one of nearest, bilinear, .* got 'best'"),
        ({"reproject_resampling": "best"}, "reproject_resampling must be one of"),
        ({"tiers": ["gold"]}, "tiers must be one of analysis, visualization, archive"),
        ({"tiers": []}, "tiers must be a list"),
        ({"tiers": ["analysis", "archive"], "compression": "zstd"}, "must say for which tier"),
        ({"jpeg_quality": 0}, "jpeg_quality must be a whole number from 1 to 100"),
        ({"jpeg_quality": "85"}, "jpeg_quality"),
        ({"target_crs": "nonsense"}, "target_crs: 'nonsense' is not a CRS"),
        ({"blocksize": 500}, "blocksize must be one of"),
        ({"collection_id": ""}, "collection_id: a collection id has 1 to 128"),
        ({"datetime_pattern": "%Q"}, "unknown '%Q'"),
        ({"target": "EPSG:3857"}, "unknown parameter 'target'"),
        ({"_skip_validation": True}, "_skip_validation leaves nothing to make a COG from"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(given: dict[str, Any], message: str) -> None:
    params = given if not given else {"blob_name": "a.tif", **given}
    with pytest.raises(ParameterError, match=message):
        ProcessRaster.validate_job_parameters(params)


@pytest.mark.parametrize(
    ("blob", "tier", "name"),
    [
        ("a/b.tif", "analysis", "a/b_cog.tif"),
        ("b.TIF", "analysis", "b_cog.tif"),
        ("b.tiff", "analysis", "b.tiff_cog.tif"),
        ("b.jp2", "archive", "b.jp2_cog_archive.tif"),
        ("b.tif", "visualization", "b_cog_visualization.tif"),
    ],
)
def test_names_are_those_of_the_original(blob: str, tier: str, name: str) -> None:
    assert output_name(blob, tier) == name


# --- whole jobs --------------------------------------------------------------------------------------------------

VERDICTS: Mapping[str, str] = {
    "aerial_rgba_uint16_utm12n.tif": "rgba",
    "albers_int16_nodata.tif": "continuous",
    "alpha_3857.tif": "rgba",
    "elevation_float64_4326.tif": "continuous",
    "goes_geostationary.tif": "rgb",
    "hillshade_3857.tif": "categorical",
    "landcover_palette_laea.tif": "categorical",
    "landsat_rgb_utm18n.tif": "rgb",
    "landsat_rgba_utm18n.tif": "rgba",
    "world_byte_4326.tif": "categorical",
    "no_crs_float64.tif": "CRS_MISSING",
    "rotated_no_crs.tif": "CRS_MISSING",
}
"""What becomes of each real raster: its type, or why there is no COG of it."""


def test_every_real_raster_gets_its_verdict(bench: Bench) -> None:
    bench.put("bronze", *VERDICTS)
    jobs = bench.run_many("process_raster", [{"blob_name": name} for name in VERDICTS])
    for name, job in zip(VERDICTS, jobs, strict=True):
        result = job.result_data or {}
        if VERDICTS[name].isupper():
            assert (job.status, job.outcome) == (JobStatus.FAILED, OutcomeKind.INVALID)
            assert (job.reason or "").startswith(f"{VERDICTS[name]}: ")
            continue
        assert (job.status, job.outcome) == (JobStatus.COMPLETED, OutcomeKind.CREATED), job.error_details
        cog = result["cog"]
        assert cog["raster_type"] == VERDICTS[name]
        with rasterio.open(bench.containers / cog["cog_container"] / cog["cog_blob"]) as dataset:
            assert dataset.crs.to_epsg() == 4326
            assert [dataset.height, dataset.width] == cog["shape"]
    good = [name for name in VERDICTS if VERDICTS[name].islower()]
    silver, thumbnails, items = left(bench)
    assert silver == sorted(output_name(name, "analysis") for name in good)
    assert thumbnails == sorted(f"silver/{name}.webp" for name in silver)
    assert sorted(items) == sorted(f"silver~{name}" for name in silver)
    said = {(news.asset, news.name): news.outcome for news in bench.news}
    assert said == {
        **{("raster_validation", f"bronze/{name}"): OutcomeKind.CREATED for name in good},
        **{("raster_stac_item", f"bronze/{name}"): OutcomeKind.CREATED for name in good},
        **{("raster_validation", f"bronze/{name}"): OutcomeKind.INVALID for name in VERDICTS if name not in good},
    }
    assert not list(bench.settings.scratch_path.iterdir()), "no temporary file is left"


def test_the_result_is_true(bench: Bench) -> None:
    bench.put("bronze", RGB)
    result = made(bench, blob_name=RGB)
    cog = result["cog"]
    content = (bench.containers / "silver" / cog["cog_blob"]).read_bytes()
    assert cog["checksum"] == hashlib.sha256(content).hexdigest()
    assert cog["size_mb"] == round(len(content) / 2**20, 2)
    assert cog["etag"] == bench.services["blobs"].head("silver", cog["cog_blob"]).etag
    assert cog["source_etag"] == bench.services["blobs"].head("bronze", RGB).etag
    assert (cog["reprojection_performed"], cog["target_crs"]) == (True, "EPSG:4326")
    assert {"warp", "encode", "proof", "publish", "total"} <= set(cog["timings"])
    assert result["validation"]["raster_type"] == "rgb"
    assert result["stac"]["item_id"] == f"silver~{cog['cog_blob']}"
    assert result["tasks_by_status"] == {"completed": 3, "failed": 0}


def test_the_item_says_where_it_comes_from(bench: Bench) -> None:
    bench.put("bronze", RGB)
    result = made(bench, blob_name=RGB, tiers=["analysis", "visualization"])
    item = bench.services["catalog"].get_item("cogs", result["stac"]["item_id"])
    properties = item["properties"]
    assert properties["geo_assets:source_blob"] == RGB
    assert properties["geo_assets:source_etag"] == result["cog"]["source_etag"]
    assert properties["geo_assets:etag"] == result["cog"]["tiers"]["analysis"]["etag"]
    assert set(item["assets"]) == {"data", "visualization", "thumbnail"}
    assert item["assets"]["data"]["file:checksum"] == f"1220{result['cog']['checksum']}"
    assert all("?" not in asset["href"] for asset in item["assets"].values())
    (thumbnail,) = (bench.containers / "thumbnails").rglob("*.webp")
    assert item["assets"]["thumbnail"]["href"] == thumbnail.as_uri()
    collection = pystac.Collection.from_file(str(bench.settings.catalog_path / "cogs" / "collection.json"))
    assert collection.extent.spatial.bboxes == [item["bbox"]]
    assert [one.id for one in collection.get_items()] == [item["id"]]


def test_tiers_are_decoded_and_warped_once(bench: Bench) -> None:
    bench.put("bronze", RGB)
    tiers = ["analysis", "visualization", "archive"]
    cog = made(bench, blob_name=RGB, tiers=tiers)["cog"]
    stem = RGB.removesuffix(".tif")
    assert bench.files("silver") == [f"{stem}_cog.tif", f"{stem}_cog_archive.tif", f"{stem}_cog_visualization.tif"]
    assert [cog["tiers"][tier]["compression"] for tier in tiers] == ["zstd", "jpeg", "deflate"]
    with (
        rasterio.open(bench.containers / "silver" / f"{stem}_cog.tif") as analysis,
        rasterio.open(bench.containers / "silver" / f"{stem}_cog_archive.tif") as archive,
    ):
        assert np.array_equal(analysis.read(), archive.read())


def test_the_quality_counts(bench: Bench) -> None:
    bench.put("bronze", RGB)
    sizes = [
        made(bench, blob_name=RGB, tiers=["visualization"], jpeg_quality=quality)["cog"]["size_mb"]
        for quality in (10, 95)
    ]
    assert sizes[0] < sizes[1] / 2


def test_a_choice_that_cannot_hold_the_data_gives_way_and_says_so(bench: Bench) -> None:
    bench.put("bronze", "aerial_rgba_uint16_utm12n.tif")
    tier = made(bench, blob_name="aerial_rgba_uint16_utm12n.tif", tiers=["visualization"], compression="jpeg")["cog"][
        "tiers"
    ]["visualization"]
    assert (tier["compression"], tier["lossless"]) == ("zstd", True)
    assert any("8-bit values only" in note for note in tier["notes"])


@pytest.mark.parametrize(("target", "epsg"), [("EPSG:3857", 3857), (None, 32618)])
def test_any_crs_or_the_raster_s_own(bench: Bench, target: str | None, epsg: int) -> None:
    bench.put("bronze", RGB)
    cog = made(bench, blob_name=RGB, target_crs=target)["cog"]
    assert cog["reprojection_performed"] is (target is not None)
    with rasterio.open(bench.containers / "silver" / cog["cog_blob"]) as dataset:
        assert dataset.crs.to_epsg() == epsg


def test_without_a_collection_there_is_no_item(bench: Bench) -> None:
    bench.put("bronze", GREY)
    result = made(bench, blob_name=GREY, collection_id=None)
    assert result["stac"] is None
    assert left(bench) == ([output_name(GREY, "analysis")], [f"silver/{output_name(GREY, 'analysis')}.webp"], [])
    assert made(bench, blob_name=GREY, collection_id=None) == result, "and nothing is done the second time"


def test_input_crs_places_a_raster_that_has_none(bench: Bench) -> None:
    bench.put("bronze", "no_crs_float64.tif")
    cog = made(bench, blob_name="no_crs_float64.tif", input_crs="EPSG:32618")["cog"]
    assert (cog["source_crs"], cog["target_crs"]) == ("EPSG:32618", "EPSG:4326")


def test_pictures_are_shown_within_sixteen_kilobytes(bench: Bench) -> None:
    bench.put("bronze", RGB)
    result = made(bench, blob_name=RGB)
    metadata = ProcessRaster.materialization_metadata(result)
    assert all(metadata[name].startswith("![") for name in ("thumbnail", "map", "histogram"))
    assert all(len(metadata[name]) < 1000 for name in ("thumbnail", "map", "histogram")), "shown without a click"
    assert metadata["pictures"].count("![") == 3
    assert len(json.dumps(metadata)) <= 16_384
    assert metadata["raster_type"] == "rgb"
    assert [row["tier"] for row in metadata["tiers"]] == ["analysis"]


# --- doing only what is to be done ---------------------------------------------------------------------------------


def files_of(bench: Bench, container: str) -> dict[str, int]:
    return {name: (bench.containers / container / name).stat().st_mtime_ns for name in bench.files(container)}


def test_an_unchanged_raster_is_left_alone(bench: Bench) -> None:
    bench.put("bronze", GREY)
    first = made(bench, blob_name=GREY)
    before = files_of(bench, "silver") | files_of(bench, "thumbnails")
    job = bench.run("process_raster", blob_name=GREY)
    assert (job.outcome, job.result_data) == (OutcomeKind.UNCHANGED, first)
    assert files_of(bench, "silver") | files_of(bench, "thumbnails") == before
    assert not bench.news


def test_a_recorded_answer_is_not_trusted(bench: Bench) -> None:
    bench.put("bronze", GREY)
    made(bench, blob_name=GREY, tiers=["analysis", "archive"])
    made(bench, blob_name=GREY)
    binding = bench.machine.registry["process_raster"]
    again = prepare(bench.machine, binding, {"blob_name": GREY, "tiers": ["analysis", "archive"]})
    (submitted,) = bench.ledger.submit([again])
    assert submitted.decision is Decision.REQUEUED
    assert bench.files("silver") == [output_name(GREY, "analysis")]
    made(bench, blob_name=GREY, tiers=["analysis", "archive"])
    assert len(bench.files("silver")) == 2


def test_statistics_are_of_all_pixels(bench: Bench) -> None:
    pixels = noise(1, 3000, 3000)
    folder = bench.containers / "bronze"
    folder.mkdir(parents=True)
    write(folder / "noise.tif", pixels, photometric="minisblack")
    job = made(bench, blob_name="noise.tif", target_crs=None)
    item = bench.services["catalog"].get_item("cogs", job["stac"]["item_id"])
    (band,) = item["assets"]["analysis" if "analysis" in item["assets"] else "data"]["bands"]
    assert band["statistics"]["minimum"] == pixels.min()
    assert band["statistics"]["maximum"] == pixels.max()
    assert band["statistics"]["stddev"] == pytest.approx(float(pixels.std()))
    assert sum(band["raster:histogram"]["buckets"]) == pixels.size
    assert item["properties"]["geo_assets:statistics_source"] == "all pixels"


def test_other_parameters_make_it_anew(bench: Bench) -> None:
    bench.put("bronze", RGB)
    made(bench, blob_name=RGB)
    job = bench.run("process_raster", blob_name=RGB, compression="deflate")
    assert job.outcome is OutcomeKind.UPDATED
    assert (job.result_data or {})["cog"]["compression"] == "deflate"
    assert bench.files("silver") == [output_name(RGB, "analysis")]


def test_a_changed_raster_is_made_anew(bench: Bench) -> None:
    bench.put("bronze", RGB)
    first = made(bench, blob_name=RGB)["cog"]
    bench.put("bronze", landsat_rgb_utm18n__tif="landsat_rgba_utm18n.tif")
    second = made(bench, blob_name=RGB)["cog"]
    assert second["checksum"] != first["checksum"]
    assert second["source_etag"] != first["source_etag"]
    assert len(left(bench)[2]) == 1


def drop_cog(bench: Bench) -> None:
    bench.services["blobs"].delete("silver", output_name(GREY, "analysis"))


def drop_thumbnail(bench: Bench) -> None:
    bench.services["blobs"].delete("thumbnails", f"silver/{output_name(GREY, 'analysis')}.webp")


def drop_item(bench: Bench) -> None:
    bench.services["catalog"].delete_items("cogs", [f"silver~{output_name(GREY, 'analysis')}"])


@pytest.mark.parametrize("drop", [drop_cog, drop_thumbnail, drop_item])
def test_what_is_missing_is_made_again(bench: Bench, drop: Callable[[Bench], None]) -> None:
    bench.put("bronze", GREY)
    made(bench, blob_name=GREY)
    before = left(bench)
    drop(bench)
    assert left(bench) != before
    made(bench, blob_name=GREY)
    assert left(bench) == before


# --- names that are taken ------------------------------------------------------------------------------------------


def test_a_blob_of_somebody_else_is_not_replaced(bench: Bench) -> None:
    bench.put("bronze", GREY)
    target = bench.containers / "silver" / output_name(GREY, "analysis")
    target.parent.mkdir(parents=True)
    target.write_bytes(b"somebody else's")
    job = bench.run("process_raster", blob_name=GREY)
    assert job.status is JobStatus.FAILED
    assert (job.reason or "").startswith("OUTPUT_EXISTS: silver/")
    assert "overwrite: true" in (job.reason or "")
    assert target.read_bytes() == b"somebody else's"
    made(bench, blob_name=GREY, overwrite=True)
    assert target.read_bytes()[:2] == b"II"


def test_two_rasters_that_claim_one_name_do_not_replace_each_other(bench: Bench) -> None:
    bench.put("bronze", GREY)
    bench.put("other", GREY)
    first = made(bench, blob_name=GREY)
    job = bench.run("process_raster", blob_name=GREY, container_name="other", target_crs="EPSG:3857")
    assert job.status is JobStatus.FAILED
    assert "made by cog 'bronze/" in (job.reason or "")
    assert made(bench, blob_name=GREY) == first


def test_a_prefix_keeps_rasters_of_one_name_apart(bench: Bench) -> None:
    for container in ("bronze", "other"):
        bench.put(container, GREY)
    made(bench, blob_name=GREY)
    for tiers in (["analysis"], ["visualization"]):  # the second takes the place of the first
        cog = made(bench, blob_name=GREY, container_name="other", output_prefix="other/a_", tiers=tiers)["cog"]
        assert cog["cog_blob"] == "other/a_" + output_name(GREY, tiers[0])
    assert bench.files("silver") == sorted([output_name(GREY, "analysis"), cog["cog_blob"]])
    # without it, the name is the other's: neither COG is touched
    job = bench.run("process_raster", blob_name=GREY, container_name="other", tiers=["analysis"])
    assert "output_prefix" in (job.reason or "")
    assert len(bench.files("silver")) == 2


@pytest.mark.parametrize("prefix", ["/a", "a//b", "../a", "a/./", "a\nb", "a" * 1100], ids=lambda text: text[:6])
def test_a_prefix_that_starts_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(ParameterError, match="output_prefix starts no name"):
        ProcessRaster.validate_job_parameters({"blob_name": GREY, "output_prefix": prefix})


def test_a_cog_without_a_finished_job_is_the_raster_s_own(bench: Bench) -> None:
    bench.put("bronze", GREY)
    made(bench, blob_name=GREY)
    # as a run leaves it that was killed, or cancelled, after it had claimed the name: no result tells of it
    name = output_name(GREY, "analysis")
    (bench.containers / "silver" / name).write_bytes(b"left by a run that died")
    assert made(bench, blob_name=GREY)["cog"]["cog_blob"] == name


def test_a_name_belongs_to_the_raster_until_it_is_taken_back(bench: Bench) -> None:
    for container in ("bronze", "other"):
        bench.put(container, GREY)
    made(bench, blob_name=GREY)
    other = {"blob_name": GREY, "container_name": "other"}
    job = bench.run("process_raster", **other)
    assert "made by cog 'bronze/world_byte_4326.tif'" in (job.error_details or "")
    bench.ledger.mark_emitted([attempt.attempt_id for attempt, _ in bench.settled])
    for run in ("run-1", "run-2"):
        bench.ledger.mark_emitted([attempt.attempt_id for attempt in bench.ledger.attempts_of_run(run)])
    (taken,) = execute(bench.machine, lambda asset, keys: None, "cog", [f"bronze/{GREY}"], who="x")
    assert taken.complete
    assert made(bench, **other)["cog"]["source_container"] == "other"


def test_overwriting_takes_the_name_over(bench: Bench) -> None:
    for container in ("bronze", "other"):
        bench.put(container, GREY)
    made(bench, blob_name=GREY)
    made(bench, blob_name=GREY, container_name="other", overwrite=True)
    assert "made by cog 'other/" in (bench.run("process_raster", blob_name=GREY).error_details or "")


def test_taking_back_leaves_to_the_raster_what_it_took_over(bench: Bench) -> None:
    for container in ("bronze", "other"):
        bench.put(container, GREY)
    made(bench, blob_name=GREY)
    ended = [attempt.attempt_id for attempt, _ in bench.settled]
    made(bench, blob_name=GREY, container_name="other", overwrite=True)
    bench.ledger.mark_emitted([*ended, *(attempt.attempt_id for attempt, _ in bench.settled)])
    (lost,) = execute(bench.machine, lambda asset, keys: None, "cog", [f"bronze/{GREY}"], who="x")
    assert {thing.outcome.value for thing in lost.things} == {"shared"}
    (held,) = execute(bench.machine, lambda asset, keys: None, "cog", [f"other/{GREY}"], who="x")
    assert {thing.outcome.value for thing in held.things} == {"removed"}
    assert left(bench) == ([], [], [])


def test_the_item_of_a_cog_goes_with_its_name(bench: Bench) -> None:
    for container in ("bronze", "other"):
        bench.put(container, GREY)
    made(bench, blob_name=GREY, collection_id="first")
    item = made(bench, blob_name=GREY, container_name="other", collection_id="second", overwrite=True)["stac"]
    catalog = bench.services["catalog"]
    assert catalog.get_item("first", item["item_id"]) is None
    assert catalog.get_item("second", item["item_id"])["properties"]["geo_assets:source_container"] == "other"


# --- faults ------------------------------------------------------------------------------------------------------


class BrokenWriter(ItemWriter):
    """A catalog that fails, so often."""

    def __init__(self, catalog: Any, error: Exception, times: int) -> None:
        super().__init__(catalog)
        self.error, self.times = error, times

    def write(self, collection_id: str, item: Mapping[str, Any]) -> ItemOutcome:
        if self.times:
            self.times -= 1
            raise self.error
        return super().write(collection_id, item)


@pytest.mark.parametrize(
    ("error", "times"),
    [
        (CatalogError("damaged"), 1),
        (CatalogUnavailableError("away"), 2),
        # what the engine takes for transient although it does not say so
        (RuntimeError("what is this"), 2),
        (ConnectionError("reset"), 2),
    ],
    ids=["for good", "too long", "unknown", "builtin"],
)
def test_without_its_item_a_new_cog_is_not_left_behind(bench: Bench, error: Exception, times: int) -> None:
    bench.put("bronze", GREY)
    bench.services["items"] = BrokenWriter(bench.services["catalog"], error, times)
    job = bench.run("process_raster", blob_name=GREY)
    assert job.status is JobStatus.FAILED
    assert str(error) in (job.error_details or "")
    assert left(bench) == ([], [], [])
    assert (job.result_data or {})["cog"] == {}, "nothing is said to be where nothing is"
    made(bench, blob_name=GREY)
    assert len(left(bench)[2]) == 1


@pytest.mark.parametrize("error", [RuntimeError("what is this"), CatalogUnavailableError("away")])
def test_a_job_that_was_tried_twice_has_what_it_says(bench: Bench, error: Exception) -> None:
    bench.put("bronze", GREY)
    bench.services["items"] = BrokenWriter(bench.services["catalog"], error, 1)
    cog = made(bench, blob_name=GREY)["cog"]
    silver, thumbnails, items = left(bench)
    assert (silver, len(thumbnails), len(items)) == ([cog["cog_blob"]], 1, 1)
    assert bench.services["blobs"].head("silver", cog["cog_blob"]).etag == cog["etag"]


def test_an_update_that_fails_keeps_the_thumbnail_of_before(bench: Bench) -> None:
    bench.put("bronze", RGB)
    made(bench, blob_name=RGB)
    before = left(bench)
    bench.services["items"] = BrokenWriter(bench.services["catalog"], CatalogError("damaged"), 1)
    assert bench.run("process_raster", blob_name=RGB, compression="deflate").status is JobStatus.FAILED
    assert left(bench) == before
    bench.services["items"] = ItemWriter(bench.services["catalog"])
    made(bench, blob_name=RGB)


def test_a_catalog_that_is_away_is_noticed_before_anything_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.put("bronze", RGB)
    made(bench, blob_name=RGB)
    before = files_of(bench, "silver")

    def away(*_: Any) -> None:
        raise CatalogError("the catalog cannot be read")

    monkeypatch.setattr(StaticCatalog, "get_item", away)
    job = bench.run("process_raster", blob_name=RGB, compression="deflate")
    assert job.status is JobStatus.FAILED
    assert "the catalog cannot be read" in (job.error_details or "")
    assert files_of(bench, "silver") == before


def test_what_a_job_does_not_make_any_more_goes(bench: Bench) -> None:
    bench.put("bronze", RGB)
    made(bench, blob_name=RGB, tiers=["analysis", "archive"])
    made(bench, blob_name=RGB, collection_id="others")
    assert left(bench) == ([output_name(RGB, "analysis")], [f"silver/{output_name(RGB, 'analysis')}.webp"], [])
    assert bench.services["catalog"].count_items("others") == 1
    made(bench, blob_name=RGB, tiers=["visualization"], collection_id="others")
    name = output_name(RGB, "visualization")
    assert left(bench)[:2] == ([name], [f"silver/{name}.webp"])
    (item,) = bench.services["catalog"].iter_items("others")
    assert item["id"] == f"silver~{name}"


def test_a_catalog_that_comes_back_costs_nothing(bench: Bench) -> None:
    bench.put("bronze", GREY)
    bench.services["items"] = BrokenWriter(bench.services["catalog"], CatalogUnavailableError("away"), 1)
    made(bench, blob_name=GREY)
    assert len(left(bench)[2]) == 1


class FailingStore(LocalBlobStore):
    """A local store that fails when a certain blob is half written."""

    failing: str = ""

    def put_stream(self, container: str, name: str, chunks: Any, **options: Any) -> str:
        if name != self.failing:
            return super().put_stream(container, name, chunks, **options)

        def breaking() -> Iterator[bytes]:
            for chunk in chunks:
                yield chunk[: len(chunk) // 2]
                raise StoreUnavailableError("the connection was lost")

        return super().put_stream(container, name, breaking(), **options)


@pytest.fixture
def failing(tmp_path: Path, shared_sandbox: Sandbox) -> tuple[Bench, FailingStore]:
    home = tmp_path / "failing"
    home.mkdir()
    store = FailingStore(home / "containers")
    return Bench(home, shared_sandbox, services={"blobs": store}), store


def test_an_upload_that_breaks_leaves_nothing(failing: tuple[Bench, FailingStore]) -> None:
    bench, store = failing
    bench.put("bronze", RGB)
    store.failing = output_name(RGB, "archive")
    job = bench.run("process_raster", blob_name=RGB, tiers=["analysis", "archive"])
    assert job.status is JobStatus.FAILED
    assert "StoreUnavailableError: the connection was lost" in (job.error_details or "")
    assert left(bench) == ([], [], [])
    store.failing = ""
    made(bench, blob_name=RGB, tiers=["analysis", "archive"])


def test_an_upload_that_breaks_leaves_the_old_cog(failing: tuple[Bench, FailingStore]) -> None:
    bench, store = failing
    bench.put("bronze", RGB)
    made(bench, blob_name=RGB)
    before = left(bench), files_of(bench, "silver")
    store.failing = output_name(RGB, "analysis")
    assert bench.run("process_raster", blob_name=RGB, compression="deflate").status is JobStatus.FAILED
    assert (left(bench), files_of(bench, "silver")) == before


def test_a_raster_that_does_not_fit_the_disk_is_not_begun(bench: Bench, tmp_path: Path) -> None:
    full = Bench(tmp_path / "full", bench.services["sandbox"], blob_root=bench.containers, disk_reserve_mb=1 << 30)
    bench.put("bronze", GREY)
    job = full.run("process_raster", blob_name=GREY)
    assert job.status is JobStatus.FAILED
    assert "of temporary space" in (job.error_details or "")


def test_a_vrt_that_calls_itself_tif_reads_nothing(bench: Bench, listener: Listener) -> None:
    bench.put("bronze", GREY)
    folder = bench.containers / "bronze"
    band = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{}</SourceFilename></SimpleSource>'
    for name, source in (("remote.tif", f"/vsicurl/{listener.url}/x.tif"), ("local.tif", str(folder / GREY))):
        (folder / name).write_text(
            f'<VRTDataset rasterXSize="8" rasterYSize="8">{band.format(source)}</VRTRasterBand></VRTDataset>'
        )
        # a COG was made in these workers before: GDAL's VRT driver is there
        made(bench, blob_name=GREY, target_crs="EPSG:3857", overwrite=True)
        job = bench.run("process_raster", blob_name=name)
        assert (job.status, job.outcome) == (JobStatus.FAILED, OutcomeKind.INVALID)
        assert "FILE_UNREADABLE" in (job.reason or "")


def test_a_raster_cut_off_is_invalid_and_leaves_nothing(bench: Bench) -> None:
    bench.put("bronze", RGB)
    path = bench.containers / "bronze" / RGB
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    job = bench.run("process_raster", blob_name=RGB)
    assert (job.status, job.outcome) == (JobStatus.FAILED, OutcomeKind.INVALID)
    assert left(bench) == ([], [], [])
    (news,) = bench.news
    assert (news.asset, news.outcome) == ("raster_validation", OutcomeKind.INVALID)
    assert "FILE_UNREADABLE" in (news.reason or "")


def test_one_bad_raster_does_not_stop_the_others(bench: Bench) -> None:
    folder = bench.containers / "bronze"
    folder.mkdir(parents=True)
    for number in range(6):
        write(folder / f"{number}.tif", noise(3, 40, 40, seed=number), photometric="rgb")
    (folder / "3.tif").write_bytes(b"II*\0 nonsense")
    jobs = bench.run_many("process_raster", [{"blob_name": f"{number}.tif"} for number in range(6)])
    assert [job.status is JobStatus.COMPLETED for job in jobs] == [True, True, True, False, True, True]
    assert len(left(bench)[2]) == 5


def test_what_was_published_can_be_taken_back(bench: Bench) -> None:
    bench.put("bronze", RGB)
    result = made(bench, blob_name=RGB, tiers=["analysis", "archive"])
    workflow: type[Workflow] = ProcessRaster
    left_behind = {(one.kind, one.collection, one.name) for one in workflow.published(result)}
    stem = RGB.removesuffix(".tif")
    assert left_behind == {
        ("blob", "silver", f"{stem}_cog.tif"),
        ("blob", "silver", f"{stem}_cog_archive.tif"),
        ("blob", "thumbnails", f"silver/{stem}_cog.tif.webp"),
        ("item", "cogs", f"silver~{stem}_cog.tif"),
    }
    assert all(one.version for one in workflow.published(result) if one.kind == "blob")


FORMATS = {
    "a.asc": ("AAIGrid", 1, "int32"),
    "a.img": ("HFA", 3, "uint8"),
    "a1.img": ("HFA", 1, "float32"),
    "a4.img": ("HFA", 4, "uint8"),
    "a5.img": ("HFA", 5, "int16"),
    "a.jp2": ("JP2OpenJPEG", 1, "uint8"),
    "a2.jp2": ("JP2OpenJPEG", 2, "uint8"),
    "a3.jp2": ("JP2OpenJPEG", 3, "uint8"),
    "a4.jp2": ("JP2OpenJPEG", 4, "uint16"),
    "a.jpg": ("JPEG", 3, "uint8"),
    "a.nc": ("netCDF", 1, "int16"),
    "a.ntf": ("NITF", 3, "uint8"),
    "a2.ntf": ("NITF", 2, "int16"),
    "a.png": ("PNG", 3, "uint8"),
    "a4.png": ("PNG", 4, "uint8"),
}
"""Blob → driver, bands and data type."""


@pytest.mark.parametrize("target", ["EPSG:4326", "EPSG:3857"])
def test_every_format_that_is_opened_becomes_a_cog(bench: Bench, tmp_path: Path, target: str) -> None:
    folder = bench.containers / "bronze"
    folder.mkdir(parents=True)
    asked = []
    for number, (name, (driver, bands, dtype)) in enumerate(FORMATS.items()):
        pixels = np.abs(noise(bands, 64, 64, dtype="int16", seed=number) % 250).astype(dtype)
        place = {"crs": "EPSG:4326", "transform": from_origin(5, 50, 0.01, 0.01)}
        convert(write(tmp_path / "first.tif", pixels, **place), tmp_path / name, driver)
        shutil.copy(tmp_path / name, folder / name)
        given = {"input_crs": "EPSG:4326"} if driver in ("AAIGrid", "JPEG", "PNG") else {}
        asked.append({"blob_name": name, "target_crs": target, **given})
    jobs = dict(zip(FORMATS, bench.run_many("process_raster", asked), strict=True))
    # without a world file beside it, which is not looked at, nothing places a JPEG or PNG
    nowhere = {name for name in FORMATS if FORMATS[name][0] in ("JPEG", "PNG")}
    assert {name for name, job in jobs.items() if job.status is not JobStatus.COMPLETED} == nowhere, [
        (name, job.error_details) for name, job in jobs.items()
    ]
    assert all("CRS_VALIDATION_ERROR" in (jobs[name].reason or "") for name in nowhere)
    for name in FORMATS.keys() - nowhere:
        with rasterio.open(bench.containers / "silver" / output_name(name, "analysis")) as dataset:
            assert (dataset.count, dataset.dtypes[0]) == FORMATS[name][1:]
