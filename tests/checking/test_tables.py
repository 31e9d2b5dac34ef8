"""Checks of vector tables and their items, over both table stores: all is well, then one thing broken at a time.

What belongs here: breaking the real thing with other clients.  What does not: loading (``tests/jobs``).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

from tests.checking.conftest import Verdicts
from tests.jobs.loading import Loader

TABLE = "geo.places"
ASSETS = ("vector_table", "vector_stac_item")
SQUARES = [{"type": "Polygon", "coordinates": [[[x, 0], [x + 0.5, 0], [x + 0.5, 1], [x, 1], [x, 0]]]} for x in range(6)]
BOW_TIE = "POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"


def geojson(*shapes: Any) -> str:
    features = [{"type": "Feature", "properties": {"n": n}, "geometry": shape} for n, shape in enumerate(shapes)]
    return json.dumps({"type": "FeatureCollection", "features": features})


@pytest.fixture
def loaded(loader: Loader) -> Loader:
    """One table of six squares, of a file with a seventh row that has no geometry."""
    loader.write("places.geojson", geojson(*SQUARES, None))
    loader.load("places.geojson")
    return loader


def everything(loader: Loader, verdicts: Verdicts, name: str = TABLE) -> dict[str, str]:
    """What is not well, by check."""
    machine = loader.bench.machine
    found = {check: said for asset in ASSETS for check, said in verdicts(machine, asset, name).items()}
    assert len(found) == 6
    return {check: said for check, said in found.items() if not said.startswith("passed")}


def change(loader: Loader, statement: str, rows: Callable[[pa.Table], pa.Table]) -> None:
    """Change the table by hand: a statement, or the rows of its file."""
    if loader.bench.settings.tables_url is not None:
        loader.by_hand(statement)
        return
    (part,) = (loader.bench.settings.tables_path / "geo" / "places").glob("part-*.parquet")
    before = pq.read_table(part)
    pq.write_table(rows(before).replace_schema_metadata(before.schema.metadata), part)


def test_tables_and_layers_pass_every_check(files: Loader, verdicts: Verdicts) -> None:
    files.add("us_counties.gpkg")
    files.load("us_counties.gpkg")
    for layer in ("counties", "states"):
        assert everything(files, verdicts, f"geo.places_{layer}") == {}
    said = verdicts(files.bench.machine, "vector_table", "geo.places_counties")
    assert said["table_complete"] == "passed: 3,230 rows, as many as were loaded of the 3,231 read"
    assert said["geometries_valid"] == "passed: all 3,230 geometries are valid"


def test_what_somebody_does_to_a_table_is_seen(loaded: Loader, verdicts: Verdicts) -> None:
    _of_many_rows_a_sample_is_looked_at(loaded)
    assert everything(loaded, verdicts) == {}
    _a_bow_tie_is_seen(loaded, verdicts)
    _a_row_that_was_removed_is_missed(loaded, verdicts)
    _a_table_that_is_gone(loaded, verdicts)


def _a_row_that_was_removed_is_missed(loaded: Loader, verdicts: Verdicts) -> None:
    change(loaded, "delete from geo.places where id = 3", lambda rows: rows.filter(pc.field("id") != 3))
    bad = everything(loaded, verdicts)
    assert set(bad) == {"table_complete"}  # and the bow tie is no more
    assert "the table has 5 rows, but 6 were loaded: rows were added or removed" in bad["table_complete"]


def _a_bow_tie_is_seen(loaded: Loader, verdicts: Verdicts) -> None:
    wkb = shapely.to_wkb(shapely.from_wkt(BOW_TIE))

    def tied(rows: pa.Table) -> pa.Table:
        at = rows.schema.get_field_index("geom")
        shapes = [
            wkb if number == 3 else shape
            for number, shape in zip(*(rows[c].to_pylist() for c in ("id", "geom")), strict=True)
        ]
        return rows.set_column(at, rows.schema.field(at), pa.array(shapes, rows.schema.field(at).type))

    change(
        loaded,
        "update geo.places set geom = st_geomfromtext('POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))', 4326) where id = 3",
        tied,
    )
    bad = everything(loaded, verdicts)
    assert set(bad) == {"geometries_valid"}
    said = bad["geometries_valid"]
    assert "1 of 6 geometries are not valid (Self-intersection" in said
    assert "(id 3)" in said
    assert said.endswith("load the file again (mode overwrite), which repairs them")


def test_invalid_geometries_that_were_kept_on_request_are_a_warning(files: Loader, verdicts: Verdicts) -> None:
    tie = json.loads(shapely.to_geojson(shapely.from_wkt(BOW_TIE)))
    files.write("places.geojson", geojson(*SQUARES, tie))
    files.load("places.geojson", invalid_geometries="keep")
    bad = everything(files, verdicts)
    assert set(bad) == {"geometries_valid"}
    assert bad["geometries_valid"].startswith("warned: 1 of 7 geometries are not valid")
    assert "kept on request" in bad["geometries_valid"]


def _of_many_rows_a_sample_is_looked_at(loaded: Loader) -> None:
    whole = loaded.tables.validity("geo", "places")
    assert (whole.rows, whole.looked_at, whole.invalid, whole.exact) == (6, 6, 0, True)
    part = loaded.tables.validity("geo", "places", most=3)
    assert (part.rows, part.exact) == (6, False)
    assert part.looked_at <= 6
    assert loaded.tables.validity("geo", "places", most=0).looked_at == 0


def _a_table_that_is_gone(loaded: Loader, verdicts: Verdicts) -> None:
    loaded.tables.drop("geo", "places")
    bad = everything(loaded, verdicts)
    assert {name for name, said in bad.items() if said.startswith("failed")} == {
        "table_complete", "geometries_valid", "item_hrefs_present",
    }  # fmt: skip
    assert "the table geo.places is gone" in bad["table_complete"]
    assert "the table geo.places is not there" in bad["item_hrefs_present"]


def test_a_source_that_is_gone_or_lacks_a_part(files: Loader, verdicts: Verdicts, tmp_path: Path) -> None:
    files.write("places.geojson", geojson(*SQUARES))
    files.load("places.geojson")
    (files.bench.containers / "bronze" / "places.geojson").unlink()
    bad = everything(files, verdicts)
    assert set(bad) == {"source_present"}
    assert bad["source_present"].startswith("warned: bronze/places.geojson is gone from its container")
    # the item's partition is told so as well
    assert verdicts(files.bench.machine, "vector_stac_item", TABLE)["source_present"] == bad["source_present"]


def test_rows_of_several_loads_add_up(files: Loader, verdicts: Verdicts) -> None:
    for name, shapes in (("a.geojson", SQUARES[:3]), ("b.geojson", [*SQUARES[3:], None])):
        files.write(name, geojson(*shapes))
        files.load(name, load_mode="append")
    assert everything(files, verdicts) == {}
    said = verdicts(files.bench.machine, "vector_table", TABLE)
    assert said["table_complete"] == "passed: 6 rows, as many as were loaded of the 7 read"
    assert said["source_present"] == "passed: bronze/a.geojson, bronze/b.geojson: there"


def test_an_item_of_an_older_table(files: Loader, verdicts: Verdicts) -> None:
    files.write("places.geojson", geojson(*SQUARES))
    files.load("places.geojson")
    files.write("places.geojson", geojson(*SQUARES[:4]))
    files.load("places.geojson", load_mode="overwrite", collection_id=None)
    # the load without an item leaves the item that was there
    bad = everything(files, verdicts)
    assert set(bad) == {"item_hrefs_present"}
    assert "the table geo.places was loaded anew since the item was written" in bad["item_hrefs_present"]
