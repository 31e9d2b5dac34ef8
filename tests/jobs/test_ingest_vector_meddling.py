"""Vector jobs among other people: foreign blobs, rows changed by hand, things that depend on a table, late mistakes.

What belongs here: what others do to containers and tables, and what a job may not do to theirs.  What does not: loads
by themselves (``test_ingest_vector``), and crashes (``test_ingest_vector_faults``).
"""

import json
import os
import time
import uuid
from pathlib import Path

import geopandas
import pytest
import shapely

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.errors import ParameterError
from geo_assets.jobs.stac_catalog_vectors import StacCatalogVectors
from tests.conftest import Azurite
from tests.jobs.conftest import OpenBench
from tests.jobs.loading import Loader
from tests.jobs.test_ingest_vector import ONE, TWO


def _points(*places: tuple[float, float], **properties: object) -> str:
    features = [
        {"type": "Feature", "properties": properties, "geometry": {"type": "Point", "coordinates": list(place)}}
        for place in places
    ]
    return json.dumps({"type": "FeatureCollection", "features": features})


def test_old_blobs_of_others_in_the_staging_container_stay(files: Loader) -> None:
    container = files.bench.containers / "staging"
    theirs = [container / "mine" / "precious.tif", container / "geo_assets-loads" / "notes.txt"]
    ours = container / "geo_assets-loads" / ("a" * 16) / ("b" * 32) / "000-000-000000.arrow"
    for path in (*theirs, ours):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"of another day")
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    files.job(files.write("two.geojson", TWO))
    assert all(path.exists() for path in theirs)
    assert not ours.exists()


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_a_repeat_does_not_say_that_rows_are_there_which_somebody_removed(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    loader.by_hand("truncate geo.places")
    job = loader.job("two.geojson")
    assert job.status is JobStatus.FAILED
    assert (job.reason or "").startswith("TABLE_EXISTS: ")


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_rows_added_by_hand_keep_a_table_from_being_taken_back(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    loader.by_hand("insert into geo.places (geom) values (ST_SetSRID(ST_MakePoint(1, 2), 4326))")
    assert loader.planned("geo.places")["table places"] == "changed"
    assert loader.take_back("geo.places")["table places"] == "changed"
    assert len(loader.rows()) == 3
    assert loader.take_back("geo.places", force=True)["table places"] == "removed"


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_nothing_is_taken_back_of_a_table_with_a_view(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    loader.by_hand("create view geo.some_places as select * from geo.places")
    assert loader.planned("geo.places")["table places"] == "blocked"
    taken = loader.take_back("geo.places", force=True)
    assert taken == {
        "item postgis-geo-places": "present",
        "blob tables/geo.places.webp": "present",
        "table places": "blocked",
    }
    assert loader.items() == ["postgis-geo-places"]


def test_a_wrong_column_of_dates_is_told_before_there_is_a_table(loader: Loader) -> None:
    reason = loader.refused(loader.write("one.geojson", ONE), "NO_SUCH_COLUMN", datetime_column="when")
    assert "'when' is no column of dates or timestamps" in reason


def test_a_layer_called_like_another_s_points_is_told(files: Loader) -> None:
    path = files.bench.containers / "bronze" / "names.gpkg"
    path.parent.mkdir(parents=True, exist_ok=True)
    mixed = geopandas.GeoDataFrame(geometry=[shapely.Point(1, 1), shapely.box(0, 0, 1, 1)], crs=4326)
    mixed.to_file(path, layer="a", driver="GPKG")
    mixed.iloc[:1].to_file(path, layer="a_points", driver="GPKG")
    reason = files.refused("names.gpkg", "TABLE_NAMES", mixed_dimensions="split")
    assert "geo.places_a_points" in reason


def test_what_is_shown_of_rows_that_were_added_says_so(loader: Loader) -> None:
    loader.load(loader.write("far.geojson", _points((10, 50), (11, 51))), load_mode="append")
    picture = loader.bench.containers / "thumbnails" / "tables" / "geo.places.webp"
    before = picture.read_bytes()
    result = loader.load(
        loader.write("near.geojson", _points((-70, -40))), load_mode="append", says=OutcomeKind.UPDATED
    )
    (table,) = result["tables"]
    assert (table["rows"], table["rows_loaded"]) == (3, 1)
    assert picture.read_bytes() == before  # not of the one row that was added
    shown = loader.bench.machine.registry["ingest_vector"].materialization_metadata(result)
    assert shown["shown"] == "map, box, types and sample are of the rows of this load"


def test_secrets_in_source_file_are_refused() -> None:
    for address in ("https://host/a.gpkg?sig=canary", "https://user:canary@host/a.gpkg"):
        with pytest.raises(ParameterError, match="without its query") as error:
            StacCatalogVectors.validate_job_parameters({"table_name": "a", "source_file": address})
        assert "canary" not in str(error.value)


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_a_shapefile_in_azure_is_loaded_and_nothing_is_left_there(
    open_bench: OpenBench, tables_url: str, azurite: Azurite, tmp_path: Path
) -> None:
    own = uuid.uuid4().hex[:10]
    containers = {f"{name}_container": f"{name}-{own}" for name in ("bronze", "staging", "thumbnail")}
    bench = open_bench(
        tables_url=tables_url, blob_store="azure", azure_connection_string=azurite.connection_string, **containers
    )
    blobs = bench.services["blobs"]
    blobs.create_container(containers["bronze_container"])
    places = geopandas.GeoDataFrame(
        {"name": ["Bern", "Thun"]}, geometry=shapely.points([(7, 47), (7.6, 46.7)]), crs=4326
    )
    places.to_crs(25832).to_file(tmp_path / "towns.shp")
    for part in tmp_path.glob("towns.*"):
        blobs.put(containers["bronze_container"], f"maps/{part.name}", part.read_bytes())
    wanted = {"container_name": containers["bronze_container"], "blob_name": "maps/towns.shp", "table_name": "towns"}
    job = bench.run("ingest_vector", **wanted)
    assert job.status is JobStatus.COMPLETED, job.reason
    read = bench.services["tables"].read("geo", "towns")
    assert [name for batch in read for name in batch.column("name").to_pylist()] == ["Bern", "Thun"]
    assert sum(batch.num_rows for batch in blobs.list_blobs(containers["staging_container"])) == 0
    assert blobs.head(containers["thumbnail_container"], "tables/geo.towns.webp").size > 0
    assert bench.run("ingest_vector", **wanted).outcome is OutcomeKind.UNCHANGED
