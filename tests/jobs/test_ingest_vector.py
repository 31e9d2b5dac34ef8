"""``ingest_vector``: whole jobs on real files over both table stores, and what they leave.

What belongs here: parameters, content of tables, modes, layers, results, taking back.  What does not: jobs that are
killed, stores that fail, and bad files (``test_ingest_vector_faults``); readers (``tests/vector``); the stores
themselves (``tests/stores``); items (``test_stac_catalog_vectors``).
"""

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from geo_assets.coremachine.binding import bind
from geo_assets.coremachine.contract import OutcomeKind, check_contract
from geo_assets.coremachine.ledger import Decision
from geo_assets.coremachine.submission import prepare
from geo_assets.errors import ParameterError
from geo_assets.jobs.ingest_vector import IngestVector
from geo_assets.settings import get_settings
from tests.jobs.loading import Loader
from tests.vector.files import shapefile, write, zipped_folder
from tests.vector.vectors import LAYERS, independent, real, require_equal_shapes

# --- all real files ------------------------------------------------------------------------------------------------

CHANGED: dict[tuple[str, str], dict[str, int]] = {
    ("us_counties.gpkg", "counties"): {"empty": 1, "repaired": 22, "repaired_moved": 4},
    ("countries_50m.geojson", "countries_50m"): {"split_antimeridian": 3},
}
"""What is wrong with real files, and in how many rows."""
HARMLESS = {"reprojected", "reoriented"}


def changes(table: dict[str, Any]) -> dict[str, int]:
    """What was done to how many rows, but for what every file may have."""
    found = {name: one["count"] for name, one in table["report"].items() if isinstance(one, dict) and "count" in one}
    return {name: count for name, count in found.items() if count and name not in HARMLESS}


@pytest.mark.parametrize("name", LAYERS)
def test_every_real_file_is_loaded_right(loader: Loader, name: str) -> None:
    loader.add(name)
    result = loader.load(name, says=OutcomeKind.CREATED)
    assert [table["layer"] for table in result["tables"]] == LAYERS[name]
    several = len(LAYERS[name]) > 1
    for layer, table in zip(LAYERS[name], result["tables"], strict=True):
        wanted = independent(name, layer)
        assert table["table"] == (f"places_{layer}" if several else "places")
        assert table["source_rows"] == len(wanted)
        assert changes(table) == CHANGED.get((name, layer), {})
        empty = wanted.geometry.is_empty
        assert empty.sum() == len(wanted) - table["rows"]
        got = loader.table(table["table"])
        assert got["id"].tolist() == [row + 1 for row in range(len(wanted)) if not empty[row]]
        wanted = wanted[~empty]
        assert got.crs.to_epsg() == 4326
        assert got.geometry.is_valid.all()
        require_equal_shapes(got.geometry.to_numpy(), wanted.geometry.to_numpy())
        require_equal_attributes(got, wanted, table["columns"])
    assert loader.items() == sorted(f"postgis-geo-{table['table']}" for table in result["tables"])


def require_equal_attributes(got: Any, wanted: Any, columns: list[dict[str, Any]]) -> None:
    """Each attribute of the source is in the table, under its name there, with the same values."""
    names = {column["source_name"]: column["name"] for column in columns}
    there = [name for name in wanted.columns if name not in (wanted.geometry.name, "wkt")]
    assert set(there) == set(names)
    for source, column in names.items():
        assert plain(got[column]) == plain(wanted[source]), source


def plain(values: Any) -> list[Any]:
    """Without the many words of pandas for nothing."""
    found: list[Any] = values.astype(object).where(values.notna(), None).tolist()
    return found


# --- small sources -------------------------------------------------------------------------------------------------


def geojson(*features: tuple[Any, dict[str, Any]], crs: str | None = None) -> str:
    """A feature collection of geometries (``None`` for none) and attributes."""
    made: dict[str, Any] = {
        "type": "FeatureCollection",
        "features": [
            {
                "type": "Feature",
                "properties": properties,
                "geometry": None if shape is None else shapely.geometry.mapping(shape),
            }
            for shape, properties in features
        ],
    }
    if crs is not None:
        made["crs"] = {"type": "name", "properties": {"name": crs}}
    return json.dumps(made)


BERN, BASEL = shapely.Point(7.4, 46.9), shapely.Point(7.6, 47.6)
ROAD = shapely.LineString([BERN, BASEL])
LAKE = shapely.box(8, 46, 9, 47)
TWO = geojson((BERN, {"name": "Bern", "people": 134_000}), (BASEL, {"name": "Basel", "people": 177_000}))
ONE = geojson((shapely.Point(8.5, 47.4), {"name": "Zürich", "people": 421_000}))


# --- the contract ----------------------------------------------------------------------------------------------------


def test_the_contract_is_complete_and_binds() -> None:
    assert check_contract(IngestVector).complete
    binding = bind(IngestVector)
    assert (binding.asset, binding.partition_set) == ("vector_table", "vector_tables")
    assert binding.asset_deps == ("container_contents",)
    assert [stage.name for stage in binding.stages] == ["prepare_chunks", "upload_chunks", "publish", "catalog"]
    assert IngestVector.parameters_for_partition("geo.places") == {"schema": "geo", "table_name": "places"}


def test_the_job_id_hashes_what_the_original_hashed() -> None:
    params = IngestVector.validate_job_parameters(
        {
            "blob_name": " a/cities.CSV ",
            "file_extension": ".CSV",
            "table_name": "My_Cities",
            "converter_params": {"lat_name": "lat", "lon_name": "lng"},
        }
    )
    hashed = (
        '{"blob_name": "a/cities.CSV", "chunk_size": null, "container_name": "bronze", "converter_params":'
        ' {"lat_name": "lat", "lon_name": "lng"}, "file_extension": "csv", "schema": "geo",'
        ' "table_name": "my_cities"}'
    )
    assert IngestVector.generate_job_id(params) == hashlib.sha256(hashed.encode()).hexdigest()
    same = IngestVector.validate_job_parameters({**params, "load_mode": "create", "target_crs": "EPSG:4326"})
    assert IngestVector.generate_job_id(same) == IngestVector.generate_job_id(params)
    other = IngestVector.validate_job_parameters({**params, "load_mode": "append"})
    assert IngestVector.generate_job_id(other) != IngestVector.generate_job_id(params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"blob_name": None}, "blob_name"),
        ({"blob_name": "  "}, "blob_name"),
        ({"blob_name": "../a.csv"}, "blob_name"),
        ({"blob_name": "places"}, "file_extension is required"),
        ({"blob_name": "a.doc"}, "file_extension 'doc' not supported. Supported: csv, geojson, json, gpkg, kml, kmz"),
        ({"file_extension": "exe"}, "file_extension 'exe' not supported. Supported: csv"),
        ({"file_extension": 7}, "file_extension must be a string"),
        ({"table_name": "7up"}, "must start with a letter"),
        ({"table_name": ""}, "table_name is empty"),
        ({"table_name": "select"}, "reserved word"),
        ({"table_name": 'x"; drop table y; --'}, "letters, digits and underscores"),
        ({"table_name": "-overwrite"}, "must start with a letter"),
        ({"table_name": "x" * 64}, "table_name"),
        ({"schema": "pg_catalog"}, "schema must be one of geo, public, got 'pg_catalog'"),
        ({"chunk_size": 99}, "chunk_size must be an integer from 100 to 10000"),
        ({"chunk_size": 10_001}, "chunk_size must be an integer"),
        ({"chunk_size": True}, "chunk_size must be an integer"),
        ({"chunk_size": "500"}, "chunk_size must be an integer"),
        ({"converter_params": "lat"}, "converter_params must be a dictionary"),
        ({"converter_params": {"lat": "y"}}, "converter_params: unknown lat; it takes"),
        ({"converter_params": {"lat_name": 3}}, "lat_name must be a string"),
        ({"load_mode": "replace"}, "load_mode"),
        ({"target_crs": "EPSG:0"}, "'EPSG:0' is no coordinate reference system"),
        ({"input_crs": "nonsense"}, "is no coordinate reference system"),
        ({"geometry_column": "id"}, "geometry_column cannot be id"),
        ({"geometry_column": "a b"}, "geometry_column"),
        ({"null_geometries": "ignore"}, "null_geometries"),
        ({"collection_id": ""}, "collection_id"),
        ({"overwrite": True}, "unknown parameter 'overwrite'"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        IngestVector.validate_job_parameters({"blob_name": "a.csv", "table_name": "places", **given})


@pytest.mark.parametrize("missing", ["blob_name", "table_name"])
def test_what_is_required_is_named(missing: str) -> None:
    given = {"blob_name": "a.csv", "table_name": "places"}
    del given[missing]
    with pytest.raises(ParameterError, match=f"{missing} is required"):
        IngestVector.validate_job_parameters(given)


@pytest.mark.parametrize("extension", ["csv", "geojson", "json", "gpkg", "kml", "kmz", "shp", "zip"])
def test_the_original_s_eight_extensions_are_known(extension: str) -> None:
    for written in (extension, extension.upper(), f".{extension}"):
        params = {"blob_name": "a", "table_name": "places", "file_extension": written}
        assert IngestVector.validate_job_parameters(params)["file_extension"] == extension


def test_the_result_has_the_fields_of_the_original(files: Loader) -> None:
    blob = files.write("towns.csv", "name,y,x\n" + "".join(f"t{row},47,{7 + row / 1000}\n" for row in range(250)))
    converter = {"lat_name": "y", "lon_name": "x"}
    result = files.load(blob, file_extension="csv", chunk_size=100, converter_params=converter)
    assert {name: result[name] for name in ("job_type", "blob_name", "file_extension", "table_name", "schema")} == {
        "job_type": "ingest_vector",
        "blob_name": "towns.csv",
        "file_extension": "csv",
        "table_name": "places",
        "schema": "geo",
    }
    summary = result["summary"]
    assert result["container_name"] == "bronze"
    assert (summary["total_chunks"], summary["chunks_uploaded"], summary["chunks_failed"]) == (3, 3, 0)
    assert (summary["total_rows_uploaded"], summary["success_rate"]) == (250, "100.0%")
    metadata = summary["stage_1_metadata"]
    assert (metadata["chunk_count"], metadata["total_features"], len(metadata["chunk_paths"])) == (3, 250, 3)
    assert (result["stages_completed"], result["total_tasks_executed"]) == (4, 6)
    assert result["tasks_by_status"] == {"completed": 6, "failed": 0, "pending": 0}
    chunk = next(row for row in tasks(files) if row.task_type == "upload_vector_chunk")
    said = (chunk.result_data or {})["result"]
    assert {"rows_uploaded": 100, "chunk_index": 0, "table": "geo.places"}.items() <= said.items()
    assert said["chunk_path"] == metadata["chunk_paths"][0]
    first = next(row for row in tasks(files) if row.task_type == "prepare_vector_chunks")
    assert {
        "chunk_paths", "table_name", "schema", "total_rows", "chunk_count", "chunk_size_used", "source_file",
        "geometry_types",
    } <= (first.result_data or {})["result"].keys()  # fmt: skip


def tasks(loader: Loader) -> list[Any]:
    """The tasks of the last run."""
    attempts = loader.bench.ledger.attempts_of_run(f"run-{loader.bench._runs}")
    return list(loader.bench.ledger.tasks_of([one.attempt_id for one in attempts]))


def test_the_partition_shows_the_table(files: Loader) -> None:
    files.add("us_states_wkt.csv")
    result = files.load("us_states_wkt.csv", "states")
    metadata = IngestVector.materialization_metadata(result)
    assert metadata["map"].startswith("![")
    assert metadata["pictures"].count("![") == 1
    assert len(json.dumps(metadata)) <= 16_384
    assert (metadata["dagster/row_count"], metadata["dagster/table_name"]) == (56, "geo.states")
    assert [column["name"] for column in metadata["dagster/column_schema"]] == ["id", "id_2", "name", "geom"]
    assert [row["id_2"] for row in metadata["sample"]] == [*independent("us_states_wkt.csv", "us_states_wkt")["id"][:5]]
    assert {row["what"]: row["rows"] for row in metadata["changes"]} == {"rings turned round": 56}
    blobs = files.bench.services["blobs"]
    assert metadata["source_etag"] == blobs.head("bronze", "us_states_wkt.csv").etag
    assert metadata["checksum_sha256"] == hashlib.sha256(real("us_states_wkt.csv").read_bytes()).hexdigest()
    assert files.bench.files("thumbnails") == ["tables/geo.states.webp"]


# --- load_mode -------------------------------------------------------------------------------------------------------


def version(loader: Loader, name: str = "places") -> str | None:
    """What changes with every load."""
    found: str | None = loader.tables.check_target("geo", name, "append")
    return found


def test_a_table_that_is_there_is_not_touched_and_the_job_says_what_to_do(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    before = version(loader)
    reason = loader.refused(loader.write("one.geojson", ONE), "TABLE_EXISTS", outcome=OutcomeKind.FAILED)
    assert "geo.places" in reason
    assert "'overwrite'" in reason
    assert "'append'" in reason
    assert (version(loader), loader.rows("places", "name")) == (before, ["Bern", "Basel"])


def test_two_sources_add_up(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO), load_mode="append", says=OutcomeKind.CREATED)
    result = loader.load(loader.write("one.geojson", ONE), load_mode="append", says=OutcomeKind.UPDATED)
    (table,) = result["tables"]
    assert (table["rows"], table["rows_loaded"], table["replaced"]) == (3, 1, True)
    assert loader.rows("places", "id", "name") == [(1, "Bern"), (2, "Basel"), (3, "Zürich")]
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["bbox"] == pytest.approx([7.4, 46.9, 8.5, 47.6])
    assert item["properties"]["table:row_count"] == 3
    # both are done, whichever came last
    for name in ("two.geojson", "one.geojson"):
        loader.load(name, load_mode="append", says=OutcomeKind.UNCHANGED)
    assert len(loader.rows()) == 3


def test_rows_of_another_schema_are_not_added_and_every_difference_is_named(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    before = version(loader)
    other = geojson((ROAD, {"name": 7, "length": 1.5}), (ROAD, {"name": 8, "length": 2.5}))
    reason = loader.refused(
        loader.write("other.geojson", other), "SCHEMA_MISMATCH", outcome=OutcomeKind.FAILED, load_mode="append"
    )
    for column in ("name", "people", "length", "LineString"):
        assert column in reason
    loader.write("metres.geojson", ONE)
    reason = loader.refused(
        "metres.geojson",
        "SCHEMA_MISMATCH",
        outcome=OutcomeKind.FAILED,
        load_mode="append",
        target_crs="EPSG:3857",
    )
    assert "3857" in reason
    assert (version(loader), len(loader.rows())) == (before, 2)


@pytest.mark.parametrize("mode", ["create", "overwrite", "append"])
def test_a_job_that_is_done_is_not_done_again(loader: Loader, mode: str) -> None:
    loader.load(loader.write("two.geojson", TWO), load_mode=mode)
    before = version(loader), loader.tables.record("geo", "places")
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    result = loader.load("two.geojson", load_mode=mode, says=OutcomeKind.UNCHANGED)
    assert result["tables_unchanged"] == ["geo.places"]
    assert (version(loader), loader.tables.record("geo", "places")) == before
    assert loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places") == item
    assert not [news for news in loader.bench.news if news.asset == "vector_table"]


def test_a_recorded_answer_is_not_trusted(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    binding = loader.bench.machine.registry["ingest_vector"]
    again = prepare(loader.bench.machine, binding, {"blob_name": "two.geojson", "table_name": "places"})
    (submitted,) = loader.bench.ledger.submit([again])
    assert submitted.decision is Decision.REQUEUED


def test_a_table_that_was_removed_is_loaded_again(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    assert loader.tables.drop("geo", "places")
    result = loader.load("two.geojson")
    assert result["tables"][0]["rows"] == 2
    assert loader.rows("places", "name") == ["Bern", "Basel"]


def test_a_changed_source_replaces_the_table(loader: Loader) -> None:
    loader.load(loader.write("towns.geojson", TWO), load_mode="overwrite", says=OutcomeKind.CREATED)
    # with other columns, too
    changed = geojson((LAKE, {"title": "Lake", "depth": 20.5}))
    result = loader.load(loader.write("towns.geojson", changed), load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert (result["tables"][0]["rows"], result["tables"][0]["replaced"]) == (1, True)
    assert loader.rows("places", "id", "title", "depth") == [(1, "Lake", 20.5)]
    assert loader.table().geometry[0].equals(LAKE)
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["bbox"] == [8, 46, 9, 47]


def test_a_changed_source_is_not_loaded_into_the_table_unasked(loader: Loader) -> None:
    loader.load(loader.write("towns.geojson", TWO))
    loader.refused(loader.write("towns.geojson", ONE), "TABLE_EXISTS", outcome=OutcomeKind.FAILED)
    assert loader.rows("places", "name") == ["Bern", "Basel"]


def test_a_changed_source_is_added(loader: Loader) -> None:
    loader.load(loader.write("towns.geojson", TWO), load_mode="append")
    loader.load(loader.write("towns.geojson", ONE), load_mode="append", says=OutcomeKind.UPDATED)
    assert loader.rows("places", "name") == ["Bern", "Basel", "Zürich"]
    loader.load("towns.geojson", load_mode="append", says=OutcomeKind.UNCHANGED)


def test_overwriting_stands_alone_again_after_another_came_between(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO), load_mode="overwrite")
    loader.load(loader.write("one.geojson", ONE), load_mode="append")
    loader.load("two.geojson", load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert loader.rows("places", "name") == ["Bern", "Basel"]


def test_a_schema_that_is_allowed_is_made(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_TABLE_SCHEMAS", "geo,transport")
    get_settings.cache_clear()
    loader.load(loader.write("two.geojson", TWO), schema="transport")
    assert (loader.names("transport"), loader.names()) == (["places"], [])


# --- layers ----------------------------------------------------------------------------------------------------------


def test_every_layer_becomes_a_table_with_a_partition(loader: Loader) -> None:
    loader.add("us_counties.gpkg")
    result = loader.load("us_counties.gpkg", "us")
    assert loader.names() == ["us_counties", "us_states"]
    assert [table["rows"] for table in result["tables"]] == [3230, 56]
    said = {(news.asset, news.name): news.outcome for news in loader.bench.news}
    assert said == {
        (asset, f"geo.{table}"): OutcomeKind.CREATED
        for asset in ("vector_table", "vector_stac_item")
        for table in ("us_counties", "us_states")
    }
    shown = next(news for news in loader.bench.news if news.name == "geo.us_counties" and news.asset == "vector_table")
    assert {row["what"]: row["rows"] for row in shown.metadata["changes"]}["invalid geometries repaired"] == 22
    assert len(json.dumps(shown.metadata)) <= 16_384
    whole = IngestVector.materialization_metadata(result)
    assert [row["rows"] for row in whole["tables"]] == [3230, 56]
    loader.load("us_counties.gpkg", "us", says=OutcomeKind.UNCHANGED)


@pytest.mark.parametrize("params", [{"layer": "states"}, {"converter_params": {"layer_name": "states"}}])
def test_one_layer_becomes_the_table(files: Loader, params: dict[str, Any]) -> None:
    files.add("us_counties.gpkg")
    result = files.load("us_counties.gpkg", "us", **params)
    assert (files.names(), result["tables"][0]["layer"]) == (["us"], "states")


def test_a_layer_that_is_not_there_is_named_with_those_that_are(files: Loader) -> None:
    files.add("us_counties.gpkg")
    reason = files.refused("us_counties.gpkg", "LAYER_NOT_FOUND", layer="towns")
    assert "'towns'" in reason
    assert "'counties', 'states'" in reason


def test_empty_layers_are_skipped_and_told(files: Loader, tmp_path: Path) -> None:
    path = write(tmp_path / "two.gpkg", "GPKG", layer="full", rows=3)
    write(path, "GPKG", layer="bare", rows=0, append=True)
    result = files.load(files.put(path))
    assert result["skipped_layers"] == [{"layer": "bare", "reason": "it has no rows"}]
    assert files.names() == ["places_full"]
    assert "NO_FEATURES" in files.refused("two.gpkg", "NO_FEATURES", layer="bare")


def test_two_layers_never_share_a_table(files: Loader) -> None:
    layers = ["A b", "a-b", "\u00e4 b", "&quot;; drop table x; --", "-overwrite", "select", "x" * 70]
    mark = "<Placemark><name>here</name><Point><coordinates>7,47</coordinates></Point></Placemark>"
    folders = "".join(
        f"<Folder><name>{layer}</name>{mark * (number + 1)}</Folder>" for number, layer in enumerate(layers)
    )
    files.write("alike.kml", f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{folders}</Document></kml>')
    result = files.load("alike.kml")
    assert len(set(files.names())) == 7
    assert [table["rows"] for table in result["tables"]] == [1, 2, 3, 4, 5, 6, 7]
    assert all(len(name.encode()) <= 63 for name in files.names())


def test_all_layers_or_none(loader: Loader) -> None:
    loader.add("us_counties.gpkg")
    loader.load(loader.write("two.geojson", TWO), "us_states")
    reason = loader.refused(
        "us_counties.gpkg", "TABLE_EXISTS", outcome=OutcomeKind.FAILED, table_name="us", load_mode="create"
    )
    assert "geo.us_states" in reason
    assert loader.names() == ["us_states"]


# --- geometries ------------------------------------------------------------------------------------------------------

MIXED = geojson((BERN, {"n": 1}), (ROAD, {"n": 2}), (LAKE, {"n": 3}), (BASEL, {"n": 4}), (None, {"n": 5}))


def test_mixed_dimensions_are_refused(files: Loader) -> None:
    reason = files.refused(files.write("mixed.geojson", MIXED), "MIXED_GEOMETRIES")
    assert "2 points, 1 lines, 1 polygons" in reason
    assert "mixed_dimensions: split" in reason


def test_mixed_dimensions_become_tables(loader: Loader) -> None:
    result = loader.load(loader.write("mixed.geojson", MIXED), mixed_dimensions="split", null_geometries="keep")
    assert loader.names() == ["places_lines", "places_points", "places_polygons"]
    # the row without a geometry goes with the first
    assert loader.rows("places_points", "id", "n") == [(1, 1), (4, 4), (5, 5)]
    assert loader.rows("places_lines", "id", "n") == [(2, 2)]
    assert loader.rows("places_polygons", "id", "n") == [(3, 3)]
    assert [table["geometry"]["type"] for table in result["tables"]] == ["Point", "LineString", "Polygon"]
    assert loader.table("places_points").geometry.isna().tolist() == [False, False, True]
    assert {news.name for news in loader.bench.news if news.asset == "vector_table"} == {
        "geo.places_lines",
        "geo.places_points",
        "geo.places_polygons",
    }


def test_collections_are_refused_or_split(loader: Loader) -> None:
    both = shapely.GeometryCollection([BERN, shapely.MultiPoint([BASEL]), LAKE])
    loader.write("mixed.geojson", geojson((both, {"n": 1}), (BERN, {"n": 2})))
    assert "collections" in loader.refused("mixed.geojson", "GEOMETRY_COLLECTION")
    result = loader.load("mixed.geojson", collections="split", mixed_dimensions="split")
    assert result["tables"][0]["report"]["split_collections"]["count"] == 1
    points = loader.table("places_points")
    assert points.geometry.to_list() == [shapely.MultiPoint([BERN, BASEL]), shapely.MultiPoint([BERN])]
    assert loader.table("places_polygons")["id"].tolist() == [1]


def test_rows_without_a_geometry_are_dropped_kept_or_refused(loader: Loader) -> None:
    loader.write("gaps.geojson", geojson((BERN, {"n": 1}), (None, {"n": 2}), (shapely.Point(), {"n": 3})))
    loader.refused("gaps.geojson", "NULL_GEOMETRIES", null_geometries="refuse")
    dropped = loader.load("gaps.geojson")["tables"][0]
    assert (dropped["report"]["null"]["count"] + dropped["report"]["empty"]["count"], dropped["rows"]) == (2, 1)
    loader.load("gaps.geojson", "kept", null_geometries="keep")
    assert loader.rows("kept", "n") == [1, 2, 3]
    assert loader.table("kept").geometry.isna().tolist() == [False, True, True]


def test_a_file_without_any_geometry_is_refused(files: Loader) -> None:
    files.write("none.geojson", geojson((None, {"n": 1}), (None, {"n": 2})))
    assert "none of its 2 rows has a valid geometry left after removing nulls" in files.refused(
        "none.geojson", "NO_FEATURES"
    )


def test_a_file_without_any_geometry_can_be_kept(loader: Loader) -> None:
    loader.write("none.geojson", geojson((None, {"n": 1}), (None, {"n": 2})))
    result = loader.load("none.geojson", null_geometries="keep", says=OutcomeKind.CREATED)
    assert loader.rows("places", "n") == [1, 2]
    assert result["items"] == []


def test_single_and_multi_become_multi(loader: Loader) -> None:
    several = shapely.MultiPolygon([LAKE, shapely.box(0, 0, 1, 1)])
    loader.load(loader.write("both.geojson", geojson((LAKE, {}), (several, {}))), chunk_size=100)
    assert loader.table().geometry.geom_type.tolist() == ["MultiPolygon", "MultiPolygon"]


def test_heights_are_kept_where_they_say_something(loader: Loader) -> None:
    loader.load(loader.write("z.geojson", geojson((shapely.Point(7, 47, 540), {}), (shapely.Point(8, 47), {}))))
    found = loader.table().geometry
    assert found.has_z.all()
    assert found.z.fillna(0).tolist() == [540, 0]
    flat = loader.load("z.geojson", "flat", dimensions="XY")["tables"][0]
    assert (flat["geometry"]["dimensions"], flat["report"]["flattened"]["count"]) == ("XY", 1)
    assert not loader.table("flat").geometry.has_z.any()


# --- reference systems -----------------------------------------------------------------------------------------------


def without_prj(loader: Loader) -> None:
    """The German cities as the parts of a shapefile that does not say its CRS."""
    with zipfile.ZipFile(real("german_cities_utm32n.zip")) as archive:
        for name in archive.namelist():
            if not name.endswith(".prj"):
                loader.write(f"de/{name}", archive.read(name))


def test_a_crs_that_is_missing_is_asked_for(files: Loader) -> None:
    without_prj(files)
    assert "give input_crs" in files.refused("de/german_cities.shp", "NO_CRS")
    result = files.load("de/german_cities.shp", input_crs="EPSG:25832")
    assert result["tables"][0]["source_crs"] == "EPSG:25832"
    wanted = independent("german_cities_utm32n.zip", "german_cities")
    require_equal_shapes(files.table().geometry.to_numpy(), wanted.geometry.to_numpy())


def test_a_crs_that_cannot_be_is_refused(files: Loader) -> None:
    without_prj(files)
    assert "EPSG:4326" in files.refused("de/german_cities.shp", "COORDINATES_CONTRADICT_CRS", input_crs="EPSG:4326")


def test_a_crs_that_contradicts_the_file_s_is_refused(files: Loader) -> None:
    files.add("german_cities_utm32n.zip")
    reason = files.refused("german_cities_utm32n.zip", "CRS_CONFLICT", input_crs="EPSG:25833")
    assert "EPSG:25832" in reason
    assert "EPSG:25833" in reason


@pytest.mark.parametrize(("target", "epsg"), [(None, 25832), ("EPSG:3857", 3857), ("EPSG:2056", 2056)])
def test_any_crs_or_the_file_s_own(loader: Loader, target: str | None, epsg: int) -> None:
    loader.add("german_cities_utm32n.zip")
    loader.load("german_cities_utm32n.zip", target_crs=target)
    table = loader.table()
    assert table.crs.to_epsg() == epsg
    wanted = independent("german_cities_utm32n.zip", "german_cities").to_crs(epsg)
    assert np.allclose(table.geometry.x, wanted.geometry.x, atol=0.01)
    assert np.allclose(table.geometry.y, wanted.geometry.y, atol=0.01)
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["properties"]["proj:code"] == f"EPSG:{epsg}"
    assert item["bbox"] == pytest.approx([5.9599, 47.40724, 14.98853, 55.01917], abs=1e-5)


# --- other parameters ------------------------------------------------------------------------------------------------


def test_the_geometry_column_has_the_name_that_was_asked_for(loader: Loader) -> None:
    loader.write("two.geojson", geojson((BERN, {"geom": "a", "shape": "b", "id": "c", "select": 1})))
    result = loader.load("two.geojson", geometry_column="shape")
    names = {column["source_name"]: column["name"] for column in result["tables"][0]["columns"]}
    assert set(names) == {"geom", "shape", "id", "select"}
    assert not {"shape", "id"} & set(names.values())
    table = loader.table(geometry="shape")
    assert table.geometry[0].equals(BERN)
    assert [table[names[source]][0] for source in names] == ["a", "b", "c", 1]


def test_a_table_of_attributes_has_no_item(loader: Loader, tmp_path: Path) -> None:
    path = tmp_path / "plain.gpkg"
    pyogrio.write_dataframe(pd.DataFrame({"name": ["é", None], "n": [1, 2**40]}), path, layer="plain", driver="GPKG")
    result = loader.load(loader.put(path), says=OutcomeKind.CREATED)
    table = result["tables"][0]
    assert (table["geometry"], table["bbox"], table["thumbnail"], result["items"]) == (None, None, None, [])
    assert loader.rows("places", "id", "name", "n") == [(1, "é", 1), (2, None, 2**40)]
    assert loader.table(geometry=None)["n"].tolist() == [1, 2**40]
    loader.load("plain.gpkg", says=OutcomeKind.UNCHANGED)


def test_item_and_picture_go_with_the_geometry_that_they_showed(loader: Loader, tmp_path: Path) -> None:
    loader.load(loader.write("two.geojson", TWO), load_mode="overwrite")
    assert loader.bench.files("thumbnails")
    pyogrio.write_dataframe(pd.DataFrame({"name": ["a"]}), tmp_path / "plain.gpkg", layer="plain", driver="GPKG")
    result = loader.load(loader.put(tmp_path / "plain.gpkg"), load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert (loader.items(), result["items"], loader.bench.files("thumbnails")) == ([], [], [])
    loader.load("two.geojson", load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert loader.items() == ["postgis-geo-places"]


def test_clustered_rows_are_the_same_in_another_order(loader: Loader) -> None:
    loader.add("swiss_cities.kml")
    loader.load("swiss_cities.kml", "plain")
    loader.load("swiss_cities.kml", "clustered", cluster=True)
    plain_, clustered = loader.table("plain"), loader.table("clustered")
    assert clustered.equals(plain_)
    ways = [
        shapely.LineString(table.geometry[[number - 1 for number in loader.physical_ids(name)]]).length
        for name, table in (("plain", plain_), ("clustered", clustered))
    ]
    assert ways[1] < ways[0] / 10, "neighbours lie together"


def test_many_chunks_are_the_same_rows(loader: Loader) -> None:
    loader.add("german_cities_utm32n.zip")
    one = loader.load("german_cities_utm32n.zip", "one")
    many = loader.load("german_cities_utm32n.zip", "many", chunk_size=100)
    assert (one["summary"]["total_chunks"], many["summary"]["total_chunks"]) == (1, 77)
    assert loader.table("many").equals(loader.table("one"))


def test_without_a_collection_there_is_no_item(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO), collection_id=None, says=OutcomeKind.CREATED)
    assert loader.bench.services["catalog"].list_collections() == []
    loader.load("two.geojson", collection_id=None, says=OutcomeKind.UNCHANGED)


def test_a_column_gives_the_time_of_the_item(loader: Loader) -> None:
    text = "name,seen,lat,lon\na,2020-01-02T03:04:05Z,47,7\nb,2021-06-07T08:09:10Z,46,8\n"
    loader.load(loader.write("seen.csv", text), datetime_column="seen")
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["properties"]["start_datetime"] == "2020-01-02T03:04:05Z"
    assert item["properties"]["end_datetime"] == "2021-06-07T08:09:10Z"


# --- datasets of several files ---------------------------------------------------------------------------------------


def test_a_bare_shapefile_is_loaded_with_its_parts(loader: Loader) -> None:
    with zipfile.ZipFile(real("german_cities_utm32n.zip")) as archive:
        for name in archive.namelist():
            loader.write(f"de/{name}", archive.read(name))
    loader.add("german_cities_utm32n.zip")
    loader.load("de/german_cities.shp", "parts")
    loader.load("german_cities_utm32n.zip", "zipped")
    assert loader.table("parts").equals(loader.table("zipped"))
    loader.load("de/german_cities.shp", "parts", says=OutcomeKind.UNCHANGED)
    # another part is another version of the source
    loader.write("de/german_cities.cpg", "ISO-8859-1")
    loader.refused("de/german_cities.shp", "TABLE_EXISTS", outcome=OutcomeKind.FAILED, table_name="parts")


def test_a_geodatabase_is_a_folder_or_a_zip(loader: Loader, tmp_path: Path) -> None:
    folder = write(tmp_path / "places.gdb", "OpenFileGDB", layer="towns", rows=30)
    loader.put(folder, "data/places.gdb")
    loader.put(zipped_folder(tmp_path / "places.zip", folder, below="places.gdb/"))
    for blob, table in (("data/places.gdb", "folder"), ("places.zip", "zip")):
        result = loader.load(blob, table)
        assert (result["tables"][0]["layer"], result["tables"][0]["rows"]) == ("towns", 30)
    assert loader.table("folder").equals(loader.table("zip"))


def test_a_zip_of_two_shapefiles_is_two_tables(loader: Loader, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    shapefile(folder, "one", rows=3)
    shapefile(folder, "two", rows=4)
    loader.put(zipped_folder(tmp_path / "both.zip", folder))
    result = loader.load("both.zip")
    assert {table["table"]: table["rows"] for table in result["tables"]} == {"places_one": 3, "places_two": 4}
    for params in ({"converter_params": {"shp_name": "two.shp"}}, {"layer": "two"}):
        result = loader.load("both.zip", "second", load_mode="overwrite", **params)
        assert [(table["table"], table["rows"]) for table in result["tables"]] == [("second", 4)]


# --- taking back -----------------------------------------------------------------------------------------------------


def test_table_picture_and_item_are_taken_back_together(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    there = ["item postgis-geo-places", "blob tables/geo.places.webp", "table places"]
    assert loader.planned("geo.places") == dict.fromkeys(there, "present")
    assert (loader.names(), loader.items()) == (["places"], ["postgis-geo-places"])
    assert loader.take_back("geo.places") == dict.fromkeys(there, "removed")
    assert loader.wiped == {"vector_table": ["geo.places"], "vector_stac_item": ["geo.places"]}
    assert (loader.names(), loader.items(), loader.bench.files("thumbnails")) == ([], [], [])
    assert loader.take_back("geo.places") == dict.fromkeys(there, "absent")
    assert loader.wiped == {}
    loader.load("two.geojson")
    assert len(loader.rows()) == 2


def test_all_loads_of_a_table_go_with_it(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO), load_mode="append")
    loader.load(loader.write("one.geojson", ONE), load_mode="append")
    assert set(loader.take_back("geo.places").values()) == {"removed"}
    assert loader.names() == []


def test_a_table_that_somebody_replaced_stays_until_forced(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    loader.tables.drop("geo", "places")
    replace_by_hand(loader)
    assert loader.planned("geo.places")["table places"] == "changed"
    assert loader.take_back("geo.places") == {
        "item postgis-geo-places": "removed",
        "blob tables/geo.places.webp": "removed",
        "table places": "changed",
    }
    assert loader.names() == ["places"]
    assert loader.take_back("geo.places", force=True)["table places"] == "removed"
    assert loader.names() == []


def replace_by_hand(loader: Loader) -> None:
    """A table of that name, made by somebody else."""
    url = loader.bench.settings.tables_url
    if url is None:
        folder = loader.bench.settings.tables_path / "geo" / "places"
        folder.mkdir()
        geopandas.GeoDataFrame({"mine": [1]}, geometry=[BERN], crs="EPSG:4326").to_parquet(folder / "mine.parquet")
        return
    loader.by_hand("create table geo.places (mine integer, geom geometry(Point, 4326))")


def test_a_table_replaced_between_plan_and_removal_stays(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    loader.load(loader.write("two.geojson", TWO))
    catalog = loader.bench.services["catalog"]
    removed = catalog.delete_items

    def replacing(*arguments: Any) -> Any:
        loader.tables.drop("geo", "places")
        replace_by_hand(loader)
        return removed(*arguments)

    monkeypatch.setattr(catalog, "delete_items", replacing)
    assert loader.take_back("geo.places")["table places"] == "changed"
    assert loader.names() == ["places"]


def test_a_layer_s_table_is_taken_back_by_its_own_partition(loader: Loader) -> None:
    loader.add("us_counties.gpkg")
    loader.load("us_counties.gpkg", "us")
    assert set(loader.take_back("geo.us_states").values()) == {"removed"}
    assert loader.wiped["vector_table"] == ["geo.us_states"]
    assert (loader.names(), loader.items()) == (["us_counties"], ["postgis-geo-us_counties"])
    result = loader.load("us_counties.gpkg", "us", load_mode="overwrite")
    assert len(result["tables"]) == 2
    assert loader.names() == ["us_counties", "us_states"]


def test_the_partition_of_a_file_takes_all_its_tables(loader: Loader) -> None:
    loader.add("us_counties.gpkg")
    loader.load("us_counties.gpkg", "us")
    taken = loader.take_back("geo.us")
    assert set(taken.values()) == {"removed"}
    assert len(taken) == 6
    assert (loader.names(), loader.items(), loader.bench.files("thumbnails")) == ([], [], [])
    assert loader.wiped["vector_table"] == ["geo.us", "geo.us_counties", "geo.us_states"]


def test_an_item_can_be_taken_back_without_its_table(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    assert loader.take_back("geo.places", asset="vector_stac_item") == {"item postgis-geo-places": "removed"}
    assert (loader.names(), loader.items()) == (["places"], [])
    # and comes back without the rows being loaded again
    before = version(loader)
    loader.load("two.geojson")
    assert (version(loader), loader.items()) == (before, ["postgis-geo-places"])


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_a_table_that_is_in_use_stays_with_its_record(loader: Loader) -> None:
    loader.load(loader.write("two.geojson", TWO))
    loader.by_hand("create table geo.visits (place bigint references geo.places (id))")
    reason = loader.job(loader.write("one.geojson", ONE), load_mode="overwrite").reason or ""
    assert reason.startswith("TABLE_IN_USE: ")
    assert "visits" in reason
    assert loader.take_back("geo.places")["table places"] == "blocked"
    assert loader.wiped == {}
    assert [row.complete for row in loader.bench.ledger.audits()] == [False]
    assert len(loader.rows()) == 2
    loader.by_hand("drop table geo.visits")
    assert loader.take_back("geo.places")["table places"] == "removed"
    assert loader.wiped["vector_table"] == ["geo.places"]
