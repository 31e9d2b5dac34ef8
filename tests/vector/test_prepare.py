"""One pass over a file: chunks, ids, restarts, layers, and what is said at the end.

What belongs here: what ``prepare_vector_file`` adds to the steps it takes.  What does not: the steps, with tests of
their own, and whole jobs (``tests/jobs/test_ingest_vector``).
"""

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyogrio
import pytest
import shapely

from geo_assets.errors import DiskFullError
from geo_assets.vector import layers, prepare
from geo_assets.vector.prepare import prepare_vector_file
from geo_assets.vector.table import TableDefinition
from tests.vector.files import BUDGET, write


class Prepared:
    """What was made of a file."""

    def __init__(self, folder: Path, answer: dict[str, Any]) -> None:
        self.folder, self.answer = folder, answer

    @property
    def tables(self) -> list[dict[str, Any]]:
        assert self.answer["success"], self.answer
        found: list[dict[str, Any]] = self.answer["result"]["tables"]
        return found

    def rows(self, at: int = 0) -> pa.Table:
        """The rows of a table, all chunks of which have its columns."""
        table = self.tables[at]
        chunks = [pa.ipc.open_stream(self.folder / chunk["file"]).read_all() for chunk in table["chunks"]]
        assert [chunk.num_rows for chunk in chunks] == [chunk["rows"] for chunk in table["chunks"]]
        names = TableDefinition.from_dict(table["definition"]).chunk_schema.names
        assert all(chunk.schema.names == names for chunk in chunks)
        return pa.concat_tables(chunks)


def prepared(
    path: Path, *, chunk_rows: int | None = None, read: dict[str, Any] | None = None, **geometry: Any
) -> Prepared:
    """Prepare a file into a folder beside it."""
    folder = path.parent / "prepared"
    folder.mkdir()
    answer = prepare_vector_file(
        {
            "path": str(path),
            "name": f"uploads/{path.stem}-of-someone{path.suffix}",
            "folder": str(folder),
            "read": read or {},
            "geometry": geometry,
            "budget": BUDGET.as_dict(),
            "schema": "geo",
            "table": "places",
            "geometry_column": "geom",
            "target_crs": "EPSG:4326",
            "chunk_rows": chunk_rows,
        }
    )
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    return Prepared(folder, answer)


def csv(path: Path, values: list[str]) -> Path:
    """Places with one attribute."""
    path.write_text("value,lat,lon\n" + "".join(f"{value},47.5,7.5\n" for value in values))
    return path


# --- chunks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "sizes"), [(250, [100, 100, 50]), (200, [100, 100]), (1, [1])])
def test_chunks_have_the_rows_that_were_asked_for(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    made = prepared(csv(tmp_path / "a.csv", ["1"] * rows), chunk_rows=100)
    assert [chunk["rows"] for chunk in made.tables[0]["chunks"]] == sizes
    assert made.rows()["id"].to_pylist() == list(range(1, rows + 1))
    assert sorted(path.name for path in made.folder.glob("*.arrow")) == [
        chunk["file"] for chunk in made.tables[0]["chunks"]
    ]


def test_chunks_end_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "CHUNK_BYTES", 100_000)
    made = prepared(write(tmp_path / "a.gpkg", "GPKG", rows=150_000))
    chunks = made.tables[0]["chunks"]
    assert len(chunks) > 1
    assert made.rows()["id"].to_pylist() == list(range(1, 150_001))


# --- restarts ------------------------------------------------------------------------------------------------------


def test_a_later_row_that_is_wider_starts_anew_and_nothing_is_left_of_before(tmp_path: Path) -> None:
    made = prepared(csv(tmp_path / "a.csv", [*["1"] * 300_000, "many"]))
    assert made.rows()["value"].to_pylist()[-2:] == ["1", "many"]
    assert len(list(made.folder.glob("*.arrow"))) == len(made.tables[0]["chunks"])
    (column, *_) = made.tables[0]["definition"]["columns"]
    assert column["type"] == "text"
    said = [*made.answer["result"]["notes"], *made.tables[0]["notes"]]
    assert any("value" in note for note in said)
    assert not any("a.csv" in note for note in said), "the file is named as people know it"


# --- rows and layers -------------------------------------------------------------------------------------------------


def several(path: Path) -> Path:
    """Points, lines, an area, and a row without a geometry, in turn."""
    shapes = [shapely.Point(7, 47), shapely.LineString([(7, 47), (8, 48)]), shapely.box(7, 47, 8, 48), None]
    features = [
        {"type": "Feature", "properties": {"n": at}, "geometry": shape and shapely.geometry.mapping(shape)}
        for at, shape in enumerate(shapes * 3)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_rows_keep_their_number_in_whichever_table_they_are(tmp_path: Path) -> None:
    made = prepared(several(tmp_path / "a.geojson"), mixed_dimensions="split", null_geometries="keep", chunk_rows=100)
    assert [table["definition"]["table"] for table in made.tables] == [
        "places_points",
        "places_lines",
        "places_polygons",
    ]
    found = [sorted(row or 0 for row in made.rows(at)["id"].to_pylist()) for at in range(3)]
    assert found == [[1, 4, 5, 8, 9, 12], [2, 6, 10], [3, 7, 11]]
    assert [table["rows"] for table in made.tables] == [6, 3, 3]
    assert all(table["source_rows"] == 12 for table in made.tables)


def features(path: Path, *geometries: dict[str, Any] | None, value: str = "x") -> Path:
    """Features with one text attribute."""
    text = [json.dumps({"type": "Feature", "properties": {"n": value}, "geometry": one}) for one in geometries]
    path.write_text('{"type": "FeatureCollection", "features": [' + ", ".join(text) + "]}")
    return path


PLACE = {"type": "Point", "coordinates": [7, 47]}
WAY = {"type": "LineString", "coordinates": [[7, 47], [8, 48]]}


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
@pytest.mark.parametrize("geometries", [[None, None, PLACE, None, PLACE, None], [PLACE, None, None, PLACE]])
def test_rows_kept_without_geometry_stay_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, geometries: list[dict[str, Any] | None], batch_bytes: int
) -> None:
    monkeypatch.setattr(layers, "BATCH_BYTES", batch_bytes)
    made = prepared(features(tmp_path / "a.geojson", *geometries), null_geometries="keep")
    rows = made.rows()
    assert rows["id"].to_pylist() == list(range(1, len(geometries) + 1))
    assert [one is not None for one in rows["geom"].to_pylist()] == [one is not None for one in geometries]
    (table,) = made.tables
    assert table["report"]["null"]["count"] == geometries.count(None)
    assert table["geometry_types"] == {"Point": geometries.count(PLACE)}


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_the_report_of_a_table_is_of_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    monkeypatch.setattr(layers, "BATCH_BYTES", batch_bytes)
    flat = {"type": "LineString", "coordinates": [[7, 47], [7, 47]]}
    beyond = {"type": "Point", "coordinates": [190, 5]}
    path = features(tmp_path / "a.geojson", None, WAY, flat, PLACE, WAY, None, beyond, value="\0")
    made = prepared(path, mixed_dimensions="split", null_geometries="keep")
    points, lines = made.tables
    assert [points["rows"], lines["rows"]] == [points["report"]["rows_out"], lines["report"]["rows_out"]]
    assert points["rows"] + lines["rows"] == 6
    assert points["report"]["rows_in"] + lines["report"]["rows_in"] == 7
    assert points["report"]["null"]["count"] + lines["report"]["null"]["count"] == 2
    assert lines["report"]["collapsed"] == {"count": 1, "examples": [3]}
    assert points["report"]["wrapped_longitudes"] == {"count": 1, "examples": [7]}
    assert lines["report"]["wrapped_longitudes"]["count"] == points["report"]["collapsed"]["count"] == 0
    for at, table in enumerate(made.tables):
        assert table["report"]["nul_removed"] == {"n": table["rows"]}
        ids = [row or 0 for row in made.rows(at)["id"].to_pylist()]
        assert ids == sorted(ids)


def test_what_is_refused_says_in_which_layer(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gpkg", "GPKG", layer="good", rows=3)
    pyogrio.raw.write(
        path,
        geometry=shapely.to_wkb(np.array([shapely.Point(7, 900)])),
        field_data=[np.array([1])],
        fields=["n"],
        geometry_type="Point",
        crs="EPSG:4326",
        driver="GPKG",
        layer="bad",
        append=True,
    )
    made = prepared(path)
    assert made.answer["error"] == "COORDINATES_CONTRADICT_CRS"
    assert made.answer["message"].startswith("layer 'bad': row 1 has coordinates")


def test_a_file_is_named_as_people_know_it(tmp_path: Path) -> None:
    path = tmp_path / "vector.csv"
    path.write_text("name,size\na,1\n")
    message = prepared(path).answer["message"]
    assert "vector-of-someone.csv has no columns of the usual names" in message


class CutOffLayer:
    """A layer that says it has more rows than it has."""

    name, fields, crs, has_geometry, notes = "cut", (), None, False, ()
    feature_count = 3

    def batches(self) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"x": pa.array([1, 2])}).select([])


def test_a_layer_with_fewer_rows_than_it_says_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.vector.open._layers", lambda *_, **__: [CutOffLayer()])
    made = prepared(csv(tmp_path / "a.csv", ["1"]))
    assert made.answer["error"] == "FILE_UNREADABLE"
    assert "says it has 3 rows, but only 2 could be read" in made.answer["message"]


# --- the disk --------------------------------------------------------------------------------------------------------


def test_a_disk_that_is_full_is_told_from_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_stream", full)
    with pytest.raises(DiskFullError, match="no room for what is prepared of it"):
        prepared(csv(tmp_path / "a.csv", ["1"]))


# --- what is said ----------------------------------------------------------------------------------------------------


def test_what_is_said_of_a_table_is_true(tmp_path: Path) -> None:
    (table,) = prepared(write(tmp_path / "a.gpkg", "GPKG", rows=20)).tables
    assert (table["rows"], table["source_rows"], table["source_crs"]) == (20, 20, "EPSG:4326")
    assert table["geometry_types"] == {"Point": 20}
    assert table["bbox"] == table["native_bbox"] == [5, 45, 10, 50]
    assert shapely.geometry.shape(table["footprint"]).buffer(1e-9).contains(shapely.Point(7.5, 47.5))
    assert [row["id"] for row in table["sample"]] == list(range(1, 11))
    picture = Path(table["picture"]["path"])
    assert picture.stat().st_size == table["picture"]["size"]


@pytest.mark.parametrize("name", ["lv95.csv", "lv95.geojson"])
def test_input_crs_wins_over_what_files_of_the_kind_usually_have(tmp_path: Path, name: str) -> None:
    text = {
        "lv95.csv": "name,N,E\nBern,1199700,2600070\n",
        "lv95.geojson": '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"name": "Bern"},'
        ' "geometry": {"type": "Point", "coordinates": [2600070, 1199700]}}]}',
    }[name]
    (tmp_path / name).write_text(text)
    columns = {"lat_name": "N", "lon_name": "E"} if name.endswith("csv") else {}
    (table,) = prepared(tmp_path / name, read={"input_crs": "EPSG:2056", **columns}).tables
    assert table["source_crs"] == "EPSG:2056"
    assert table["bbox"] == pytest.approx([7.44, 46.95, 7.44, 46.95], abs=0.01)
