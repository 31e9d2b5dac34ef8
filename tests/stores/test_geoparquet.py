"""What only the GeoParquet store can do or suffer: its files, its folders, and being killed.

What belongs here: GeoParquet as others read it, swaps step by step, tables of others.  What does not: what every table
store promises (``test_table_contract``).
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely

from geo_assets.errors import (
    ParameterError,
    PreconditionFailedError,
    StagingLostError,
    TableDataError,
    TableExistsError,
    TableInUseError,
    TableNotFoundError,
    TableStoreUnavailableError,
)
from geo_assets.stores import geoparquet_folders
from geo_assets.stores.geoparquet import GeoParquetTables
from geo_assets.stores.geoparquet_folders import Folders, VersionRecord
from geo_assets.stores.tables import LoadMode, StagedTable
from geo_assets.vector.table import Column, ColumnType, GeometryColumn
from tests.stores.killed import LoadChunk, Publish, killed_at
from tests.stores.table_rows import (
    EVERY_TYPE,
    EVERY_VALUE,
    contents,
    definition,
    load,
    points,
    rows_of,
    stage,
    table_load,
)

PLACES = definition()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the tables are."""
    return tmp_path / "tables"


@pytest.fixture
def store(root: Path) -> GeoParquetTables:
    """An empty store."""
    return GeoParquetTables(root)


def names(store: GeoParquetTables, table: str = "places") -> list[str]:
    return cast("list[str]", contents(store, definition(table))["name"].to_pylist())


def geo_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(metadata_of(path)[b"geo"])
    return found


def metadata_of(path: Path) -> dict[bytes, bytes]:
    return pq.read_metadata(path).metadata or {}


# --- as others read it ------------------------------------------------------------------------------------------


def test_geopandas_reads_the_folder(store: GeoParquetTables, root: Path) -> None:
    table = definition(columns=EVERY_TYPE, geometry=GeometryColumn(type="Polygon", dimensions="XYZ", srid=25832))
    columns = {column.name: [EVERY_VALUE[column.type][0], None] for column in EVERY_TYPE}
    # pandas has no first year of our era
    columns["c_timestamp"] = columns["c_timestamptz"] = [pd.Timestamp(0), None]
    shape = shapely.from_wkt("POLYGON Z ((0 0 1, 1000 0 1, 1000 1000 1, 0 0 1))")
    load(store, table, rows_of(table, columns, [shape, None]), rows_of(table, columns, [shape, None], first_id=3))
    frame = geopandas.read_parquet(root / "geo" / "places")
    assert list(frame.columns) == table.chunk_schema.names
    assert frame.crs == pyproj.CRS.from_epsg(25832)
    assert frame["id"].tolist() == [1, 2, 3, 4]
    assert frame.geometry.isna().tolist() == [False, True] * 2
    assert frame.geometry[2].wkt == shape.wkt
    assert frame["c_bigint"][0] == -(2**63) or frame["c_bigint"].isna()[1]
    assert frame["c_numeric"][0] == EVERY_VALUE[ColumnType.NUMERIC][0]
    assert frame["c_boolean"].tolist() == [True, None, True, None]


def test_geopandas_skips_by_the_covering_column(store: GeoParquetTables, root: Path) -> None:
    where = [shapely.Point(number % 100 + 0.1, number // 100 + 0.1) for number in range(5000)]
    load(store, PLACES, rows_of(PLACES, {"name": ["x"] * 5000}, where), cluster=True)
    found = geopandas.read_parquet(root / "geo" / "places", bbox=(10.05, 20.05, 12.2, 21.2))
    assert sorted(zip(found.geometry.x, found.geometry.y, strict=True)) == sorted(
        (x + 0.1, y + 0.1) for x in (10, 11, 12) for y in (20, 21)
    )


def test_arrow_reads_the_folder_and_passes_over_our_files(store: GeoParquetTables, root: Path) -> None:
    table = definition(columns=EVERY_TYPE)
    columns = {column.name: [EVERY_VALUE[column.type][1]] for column in EVERY_TYPE}
    batch = rows_of(table, columns, [shapely.Point(1, 2)])
    load(store, table, batch)
    read = pa_dataset.dataset(root / "geo" / "places").to_table(columns=table.chunk_schema.names)
    assert read.replace_schema_metadata().to_batches()[0].columns == batch.columns
    field = pa_dataset.dataset(root / "geo" / "places").schema.field("c_date")
    assert field.metadata == {
        b"source_name": b"date in the file",
        b"type": b"date",
        b"description": b'a column of date: it\'s "described"',
    }


def test_a_table_without_geometry_is_plain_parquet(store: GeoParquetTables, root: Path) -> None:
    table = definition(geometry=None)
    load(store, table, rows_of(table, {"name": ["a"]}))
    [part] = (root / "geo" / "places").glob("*.parquet")
    assert b"geo" not in metadata_of(part)
    assert pd.read_parquet(root / "geo" / "places").to_dict("list") == {"id": [1], "name": ["a"]}


def test_an_empty_table_can_be_opened(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES)
    frame = geopandas.read_parquet(root / "geo" / "places")
    assert (len(frame), list(frame.columns)) == (0, ["id", "name", "geom"])
    assert frame.crs.to_epsg() == 4326


def test_metadata_is_that_of_geoparquet_1_1(store: GeoParquetTables, root: Path) -> None:
    table = definition(geometry=GeometryColumn(type="Geometry", dimensions="XYZ", srid=4326, name="shape"))
    shapes = [shapely.from_wkt("POINT Z (5 50 1)"), shapely.from_wkt("LINESTRING Z (-1 2 3, 4 5 6)"), None]
    load(store, table, rows_of(table, {"name": ["a", "b", "c"]}, shapes))
    [part] = (root / "geo" / "places").glob("*.parquet")
    geo = geo_of(part)
    crs = geo["columns"]["shape"].pop("crs")
    assert crs == pyproj.CRS.from_epsg(4326).to_json_dict()
    assert geo == {
        "version": "1.1.0",
        "primary_column": "shape",
        "columns": {
            "shape": {
                "encoding": "WKB",
                "geometry_types": ["LineString Z", "Point Z"],
                "edges": "planar",
                "bbox": [-1.0, 2.0, 5.0, 50.0],
                "covering": {"bbox": {corner: ["bbox", corner] for corner in ("xmin", "ymin", "xmax", "ymax")}},
            }
        },
    }
    # readers built on Arrow look at the schema's metadata
    assert json.loads(pq.read_schema(part).metadata[b"geo"])["version"] == "1.1.0"
    column = pq.read_metadata(part).row_group(0).column(0)
    assert column.compression == "ZSTD"


def test_measures_have_no_name_in_geoparquet(store: GeoParquetTables, root: Path) -> None:
    table = definition(columns=(), geometry=GeometryColumn(type="Point", dimensions="XYM"))
    value = b"\x01" + (2001).to_bytes(4, "little") + np.array([1.0, 2.0, 3.0], "<f8").tobytes()
    load(store, table, rows_of(table, {}, [value]))
    [part] = (root / "geo" / "places").glob("*.parquet")
    assert geo_of(part)["columns"]["geom"]["geometry_types"] == []


def test_covering_boxes_are_rounded_outwards(store: GeoParquetTables, root: Path) -> None:
    rng = np.random.default_rng(3)
    where = rng.uniform(-180, 180, (500, 2))
    shapes = [*shapely.points(where), shapely.Point(1e300, -1e300), shapely.Point(), None]
    load(store, PLACES, rows_of(PLACES, {"name": [""] * len(shapes)}, shapes))
    boxes = pq.read_table(root / "geo" / "places", columns=["bbox"])["bbox"].combine_chunks()
    assert isinstance(boxes, pa.StructArray)
    assert boxes.is_valid().to_pylist() == [True] * 501 + [False, False]
    corners = [boxes.field(corner).to_numpy(zero_copy_only=False)[:500] for corner in ("xmin", "ymin", "xmax", "ymax")]
    assert all(corner.dtype == np.float32 for corner in corners)
    low, high = np.column_stack(corners[:2]).astype(float), np.column_stack(corners[2:]).astype(float)
    assert (low <= where).all()
    assert (high >= where).all()
    assert (high - low).max() < 1e-4
    assert boxes.field("xmax")[500].as_py() == np.inf


def test_row_groups_are_bounded_by_rows_and_bytes(store: GeoParquetTables, root: Path) -> None:
    small = definition("small")
    load(store, small, rows_of(small, {"name": ["x"] * 150_000}, [None] * 150_000))
    [part] = (root / "geo" / "small").glob("*.parquet")
    footer = pq.read_metadata(part)
    assert [footer.row_group(at).num_rows for at in range(footer.num_row_groups)] == [65_536, 65_536, 18_928]
    large = definition("large")
    text = "x" * 1_000_000
    load(store, large, rows_of(large, {"name": [text] * 40}, [shapely.Point(1, 2)] * 40))
    [part] = (root / "geo" / "large").glob("*.parquet")
    footer = pq.read_metadata(part)
    assert footer.num_row_groups == 3
    assert contents(store, large)["name"].to_pylist() == [text] * 40


def test_clustered_rows_lie_close_together(store: GeoParquetTables, root: Path) -> None:
    rng = np.random.default_rng(5)
    where = rng.uniform(0, 100, (4000, 2))
    load(store, PLACES, rows_of(PLACES, {"name": [""] * 4000}, list(shapely.points(where))), cluster=True)
    frame = geopandas.read_parquet(root / "geo" / "places")
    xy = np.column_stack([frame.geometry.x, frame.geometry.y])
    steps = np.hypot(*np.diff(xy, axis=0).T)
    # 4000 points in 100 x 100 are some 1.6 apart; a random order steps 52 on average
    assert steps.mean() < 2.5
    assert sorted(frame["id"]) == list(range(1, 4001))


# --- folders ----------------------------------------------------------------------------------------------------


def test_appending_shares_the_older_parts(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES, points(PLACES, 3))
    [before] = (root / "geo" / "places").glob("*.parquet")
    number = before.stat().st_ino
    load(store, PLACES, points(PLACES, 2), mode="append")
    parts = sorted((root / "geo" / "places").glob("*.parquet"))
    assert [part.name[:10] for part in parts] == ["part-00000", "part-00001"]
    assert parts[0].stat().st_ino == number
    assert geopandas.read_parquet(root / "geo" / "places")["id"].tolist() == [1, 2, 3, 4, 5]


def test_the_version_before_stays_and_older_ones_go(store: GeoParquetTables, root: Path) -> None:
    published = [load(store, PLACES, points(PLACES, number + 1), mode="overwrite") for number in range(4)]
    versions = {folder.name for folder in (root / "geo" / ".versions").iterdir()}
    assert versions == {f"places.{one.version}" for one in published[-2:]}
    assert len(geopandas.read_parquet(root / "geo" / ".versions" / f"places.{published[2].version}")) == 3
    store.sweep(older_than_seconds=3600)
    assert len(list((root / "geo" / ".versions").iterdir())) == 2
    store.sweep(older_than_seconds=-1)
    assert [folder.name for folder in (root / "geo" / ".versions").iterdir()] == [f"places.{published[3].version}"]
    assert names(store) == ["1", "2", "3", "4"]


def test_a_version_that_is_read_stays_until_it_was(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES, *(points(PLACES, 3, first_id=1 + 3 * at, name="old") for at in range(3)))
    reading = store.read("geo", "places")
    first = next(reading)
    for _ in range(3):
        load(store, PLACES, points(PLACES, 1), mode="overwrite")
    store.drop("geo", "places")
    store.sweep(older_than_seconds=-1)
    rest = [name for batch in reading for name in batch["name"].to_pylist()]
    assert [*first["name"].to_pylist(), *rest] == [f"old{number}" for number in range(1, 10)]
    store.sweep(older_than_seconds=-1)
    assert list((root / "geo" / ".versions").iterdir()) == []


def test_a_reader_in_the_middle_of_a_swap_fails_and_never_mixes(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES, points(PLACES, 3, name="old"), points(PLACES, 3, first_id=4, name="old"))
    listed = pa_dataset.dataset(root / "geo" / "places")
    load(store, PLACES, points(PLACES, 3, name="new"), points(PLACES, 3, first_id=4, name="new"), mode="overwrite")
    with pytest.raises(FileNotFoundError):
        listed.to_table()


@pytest.mark.parametrize(
    "bad", ["", ".", "..", ".hidden", "a/b", "../places", "/etc", "a\\b", "a\nb", "a\x00b", "x" * 64, "\udcff"]
)
def test_a_name_that_leads_elsewhere_is_refused(store: GeoParquetTables, root: Path, bad: str) -> None:
    for schema, table in ((bad, "places"), ("geo", bad)):
        for call in (
            lambda s, t: store.check_target(s, t, "create"),
            lambda s, t: store.begin(definition(t, schema=s), "create"),
            store.describe,
            store.drop,
            lambda s, t: list(store.read(s, t)),
            store.record,
        ):
            with pytest.raises(ParameterError, match="name"):
                call(schema, table)
    with pytest.raises(ParameterError, match="name"):
        store.list_tables(bad)
    assert not root.exists() or not any(root.iterdir())


@pytest.mark.parametrize("token", ["", "..", "../../geo", "x" * 32, "A" * 32])
def test_a_token_that_leads_elsewhere_is_refused(store: GeoParquetTables, token: str) -> None:
    load(store, PLACES, points(PLACES, 3))
    staged = StagedTable(token=token, definition=PLACES, mode="overwrite", target_version=None)
    for call in (
        lambda: store.discard([token]),
        lambda: store.load_chunk(staged, 0, [points(PLACES, 1)]),
        lambda: store.publish([staged], [table_load(1)], chunks=[1]),
    ):
        with pytest.raises(ParameterError, match="staging"):
            call()
    assert names(store) == ["1", "2", "3"]


def test_one_publication_has_a_table_once(store: GeoParquetTables) -> None:
    stagings = [stage(store, PLACES, [points(PLACES, 1)], "overwrite") for _ in range(2)]
    with pytest.raises(ParameterError, match="two stagings"):
        store.publish(stagings, [table_load(1)] * 2, chunks=[1, 1])


def test_ids_must_increase(store: GeoParquetTables) -> None:
    staged = store.begin(PLACES, "create")
    [doubled] = pa.Table.from_batches([points(PLACES, 2)] * 2).combine_chunks().to_batches()
    for batches in ([doubled], [points(PLACES, 2, first_id=3), points(PLACES, 2)]):
        with pytest.raises(TableDataError, match="increase"):
            store.load_chunk(staged, 0, batches)
    with pytest.raises(TableDataError, match="no id"):
        store.load_chunk(staged, 0, [points(PLACES, 2).set_column(0, "id", pa.array([1, None], pa.int64()))])


def test_rows_of_other_columns_are_refused(store: GeoParquetTables) -> None:
    staged = store.begin(PLACES, "create")
    with pytest.raises(TableDataError, match="columns"):
        store.load_chunk(staged, 0, [points(PLACES, 2).drop_columns(["name"])])
    with pytest.raises(TableDataError, match="type in 'name'"):
        store.load_chunk(staged, 0, [points(PLACES, 2).set_column(1, "name", pa.array([1, 2]))])
    with pytest.raises(ParameterError, match="from 0"):
        store.load_chunk(staged, -1, [points(PLACES, 2)])


def test_a_damaged_part_is_not_published(store: GeoParquetTables, root: Path) -> None:
    staged = stage(store, PLACES, [points(PLACES, 2)])
    [part] = (root / ".staging" / staged.token).glob("*.parquet")
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(TableDataError, match="damaged"):
        store.publish([staged], [table_load(2)], chunks=[1])


# --- killed -----------------------------------------------------------------------------------------------------

OLD, NEW = ["old1", "old2"], ["new1", "new2", "new3"]


def _staged(store: GeoParquetTables, table: str, mode: LoadMode) -> StagedTable:
    made = definition(table)
    return stage(store, made, [points(made, 2, name="new"), points(made, 1, first_id=3, name="new")], mode)


def _old(store: GeoParquetTables, table: str = "places") -> None:
    made = definition(table)
    load(store, made, points(made, 2, name="older"))
    load(store, made, points(made, 2, name="old"), mode="overwrite")


@pytest.mark.parametrize(("mode", "cluster"), [("create", False), ("overwrite", True), ("append", False)])
def test_killed_at_any_step_readers_find_old_or_new_and_a_repeat_ends_well(
    tmp_path: Path,
    mode: LoadMode,
    cluster: bool,  # noqa: FBT001
) -> None:
    new = [*OLD, *NEW] if mode == "append" else NEW
    seen = set()
    for step in range(1, 60):
        root = tmp_path / str(step)
        store = GeoParquetTables(root)
        if mode != "create":
            _old(store)
        staged = _staged(store, "places", mode)
        work = Publish(staged, rows=3, cluster=cluster)
        killed = killed_at(step, root, work)
        found = names(store) if store.list_tables("geo") else []
        assert found in ([] if mode == "create" else OLD, new), step
        if found:
            frame = geopandas.read_parquet(root / "geo" / "places")
            assert sorted(frame["name"]) == sorted(found)
        seen.add(len(found))
        work(store)
        assert names(store) == new, step
        work(store)
        assert names(store) == new, step
        assert [path.name for path in (root / ".staging").iterdir()] == []
        store.sweep(older_than_seconds=-1)
        assert len(list((root / "geo" / ".versions").iterdir())) == 1
        if not killed:
            break
    else:
        pytest.fail("a publication has more steps than were tried")
    assert len(seen) == 2


def test_killed_between_two_tables_a_repeat_publishes_the_other(tmp_path: Path) -> None:
    half = 0
    for step in range(1, 60):
        root = tmp_path / str(step)
        store = GeoParquetTables(root)
        _old(store, "one")
        staged = [_staged(store, "one", "overwrite"), _staged(store, "two", "create")]
        work = Publish(*staged, rows=3)
        killed = killed_at(step, root, work)
        half += names(store, "one") == NEW and store.list_tables("geo") == ["one"]
        work(store)
        assert names(store, "one") == names(store, "two") == NEW, step
        if not killed:
            break
    assert half


def test_what_was_published_half_is_taken_back_where_the_rest_cannot_follow(tmp_path: Path) -> None:
    half = 0
    for step in range(1, 60):
        root = tmp_path / str(step)
        store = GeoParquetTables(root)
        _old(store, "one")
        staged = [_staged(store, "one", "overwrite"), _staged(store, "two", "create")]
        work = Publish(*staged, rows=3)
        killed = killed_at(step, root, work)
        if names(store, "one") == NEW and store.list_tables("geo") == ["one"]:
            half += 1
            _old(store, "two")
            with pytest.raises(TableExistsError):
                work(store)
            assert names(store, "one") == names(store, "two") == OLD
        if not killed:
            break
    assert half


def test_a_chunk_killed_at_any_step_is_loaded_again(tmp_path: Path) -> None:
    for step in range(1, 20):
        root = tmp_path / str(step)
        store = GeoParquetTables(root)
        staged = store.begin(PLACES, "create")
        work = LoadChunk(staged)
        killed = killed_at(step, root, work)
        work(store)
        store.publish([staged], [table_load(4)], chunks=[1])
        assert names(store) == ["new1", "new2", "new3", "new4"]
        assert sorted(path.name[:4] for path in (root / "geo" / "places").iterdir()) == ["_geo", "part"]
        if not killed:
            break


def test_the_second_link_that_cannot_be_swapped_takes_the_first_back(
    store: GeoParquetTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    _old(store, "one")
    staged = [_staged(store, "one", "overwrite"), _staged(store, "two", "create")]
    swap = Folders.link

    def fails(self: Folders, schema: str, table: str, version: str | None) -> None:
        if table == "two" and version is not None:
            raise OSError(28, "No space left on device")
        swap(self, schema, table, version)

    monkeypatch.setattr(Folders, "link", fails)
    with pytest.raises(TableStoreUnavailableError, match="No space left"):
        Publish(*staged, rows=3)(store)
    assert names(store, "one") == OLD
    assert store.list_tables("geo") == ["one"]
    monkeypatch.undo()
    Publish(*staged, rows=3)(store)
    assert names(store, "one") == names(store, "two") == NEW


def test_what_a_failed_publication_made_can_be_discarded(
    store: GeoParquetTables, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = _staged(store, "places", "create")

    def fails(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Folders, "link", fails)
        with pytest.raises(TableStoreUnavailableError, match="Input/output"):
            Publish(staged, rows=3)(store)
    store.discard([staged.token])
    assert list((root / "geo" / ".versions").iterdir()) == []
    with pytest.raises(StagingLostError):
        Publish(staged, rows=3)(store)


def test_a_lock_held_for_too_long_is_an_outage(
    store: GeoParquetTables, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = _staged(store, "places", "create")
    monkeypatch.setattr(geoparquet_folders, "_LOCK_SECONDS", 0.05)
    lock = root / ".locks" / "geo" / "places.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TableStoreUnavailableError, match=r"geo\.places"):
            Publish(staged, rows=3)(store)
    Publish(staged, rows=3)(store)
    assert names(store) == NEW


def test_what_killed_processes_left_is_swept(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES, points(PLACES, 1))
    (root / ".staging" / ".making-x").mkdir()
    (root / "geo" / ".link-x").symlink_to("nowhere")
    (root / "geo" / ".versions" / ".gone-x").mkdir()
    assert store.sweep(older_than_seconds=3600) == 0
    assert (root / ".staging" / ".making-x").exists()
    assert store.sweep(older_than_seconds=-1) == 0
    assert list((root / ".staging").iterdir()) == []
    assert {path.name for path in (root / "geo").iterdir()} == {"places", ".versions"}
    assert len(list((root / "geo" / ".versions").iterdir())) == 1


def test_a_staging_that_is_being_published_is_not_swept(
    store: GeoParquetTables, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged = _staged(store, "places", "create")
    folder = root / ".staging" / staged.token
    with (folder / ".lock").open("ab"):
        pass
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 0))
    swept: list[int] = []
    wait = Folders.locked

    def sweep_first(self: Folders, targets: list[tuple[str, str]]) -> Any:
        if not swept:
            swept.append(-1)
            swept.append(store.sweep(older_than_seconds=3600))
        return wait(self, targets)

    monkeypatch.setattr(Folders, "locked", sweep_first)
    Publish(staged, rows=3)(store)
    assert swept == [-1, 0]
    assert names(store) == NEW


def test_a_root_that_cannot_be_used_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    store = GeoParquetTables(tmp_path / "file")
    with pytest.raises(TableStoreUnavailableError, match="cannot be used"):
        store.begin(PLACES, "create")
    assert store.list_tables("geo") == []


# --- tables of others -------------------------------------------------------------------------------------------


@pytest.fixture(params=["folder", "file"])
def foreign(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    """A table that geopandas wrote, as a folder or a file."""
    frame = geopandas.GeoDataFrame(
        {"n": [1, 2, 3], "at": pd.Series(["2020-01-01", "2021-01-01", None], dtype="datetime64[us]")},
        geometry=[shapely.Point(600_000, 5_300_000), shapely.Point(650_000, 5_340_000), None],
        crs=25832,
    )
    (root / "geo").mkdir(parents=True)
    path = root / "geo" / "theirs"
    if request.param == "folder":
        path.mkdir()
        frame.iloc[:2].to_parquet(path / "a.parquet", write_covering_bbox=True)
        frame.iloc[2:].to_parquet(path / "b.parquet", write_covering_bbox=True)
        yield path
    else:
        frame.to_parquet(path.with_name("theirs.parquet"), write_covering_bbox=True)
        yield path.with_name("theirs.parquet")


@pytest.mark.parametrize("exact", [True, False])
def test_a_table_of_somebody_else_is_described(
    store: GeoParquetTables,
    foreign: Path,
    exact: bool,  # noqa: FBT001
) -> None:
    facts = store.describe("geo", "theirs", datetime_column="at", exact=exact)
    assert facts.row_count == 3
    assert facts.exact == exact
    assert [(one.name, one.type, one.srid) for one in facts.geometries] == [("geometry", "Point", 25832)]
    assert [column.name for column in facts.columns] == ["n", "at", "geometry"]
    assert facts.native_bbox == (600_000.0, 5_300_000.0, 650_000.0, 5_340_000.0)
    assert facts.geometry_types == ("Point",)
    assert facts.bbox is not None
    assert 10.3 < facts.bbox[0] < 10.4
    assert facts.datetime_range == ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z")
    assert facts.record is None
    assert facts.version is not None
    assert facts.version.startswith("unknown:")
    assert facts.href == foreign.as_uri()
    rows = pa.Table.from_batches(store.read("geo", "theirs"))
    assert rows["n"].to_pylist() == [1, 2, 3]
    assert rows.column_names == ["n", "at", "geometry"]


def test_a_table_of_somebody_else_is_never_replaced(store: GeoParquetTables, foreign: Path) -> None:
    assert store.list_tables("geo") == ["theirs"]
    assert store.record("geo", "theirs") is None
    table = definition("theirs")
    with pytest.raises(TableExistsError, match=r"geo\.theirs"):
        store.begin(table, "create")
    modes: list[LoadMode] = ["overwrite", "append"]
    for mode in modes:
        with pytest.raises(TableInUseError, match=r"geo\.theirs"):
            store.begin(table, mode)
    version = store.describe("geo", "theirs").version
    assert version is not None
    with pytest.raises(PreconditionFailedError, match="unknown:"):
        store.drop("geo", "theirs", versions=["a"])
    assert store.drop("geo", "theirs", versions=[version])
    assert not foreign.exists()
    assert store.list_tables("geo") == []


def test_a_link_to_elsewhere_is_not_followed_when_it_is_dropped(
    store: GeoParquetTables, root: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)], crs=4326).to_parquet(elsewhere / "a.parquet")
    (root / "geo").mkdir(parents=True)
    (root / "geo" / "linked").symlink_to(elsewhere)
    assert store.describe("geo", "linked").bbox == (1.0, 2.0, 1.0, 2.0)
    assert store.drop("geo", "linked")
    assert (elsewhere / "a.parquet").exists()
    assert store.list_tables("geo") == []


def test_a_version_whose_record_is_damaged_is_somebody_elses(store: GeoParquetTables, root: Path) -> None:
    load(store, PLACES, points(PLACES, 2))
    record = root / "geo" / "places" / "_geo_assets.json"
    record.write_text("{")
    assert store.record("geo", "places") is None
    with pytest.raises(TableInUseError, match=r"geo\.places"):
        store.check_target("geo", "places", "overwrite")
    assert store.describe("geo", "places").row_count == 2


def test_what_is_no_table_is_said_to_be_none(store: GeoParquetTables, root: Path) -> None:
    (root / "geo" / "empty").mkdir(parents=True)
    (root / "geo" / "broken.parquet").write_bytes(b"PAR1 nothing of the kind")
    (root / "geo" / "dangling").symlink_to("nowhere")
    for table in ("empty", "dangling"):
        with pytest.raises(TableNotFoundError, match=table):
            store.describe("geo", table)
    with pytest.raises(TableDataError, match="broken"):
        store.describe("geo", "broken")


def test_a_crs_that_a_file_leaves_out_is_longitude_and_latitude(store: GeoParquetTables, root: Path) -> None:
    (root / "geo").mkdir(parents=True)
    frame = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)])
    frame.to_parquet(root / "geo" / "none.parquet")
    facts = store.describe("geo", "none")
    assert facts.geometries[0].srid is None
    assert (facts.native_bbox, facts.bbox) == ((1.0, 2.0, 1.0, 2.0), None)
    frame.set_crs("OGC:CRS84").to_parquet(root / "geo" / "left_out.parquet")
    assert store.describe("geo", "left_out").geometries[0].srid == 4326
    assert store.describe("geo", "left_out").bbox == (1.0, 2.0, 1.0, 2.0)


@pytest.mark.parametrize("crs", [None, "IAU_2015:30100", 'LOCAL_CS["site",UNIT["metre",1]]'])
@pytest.mark.parametrize("exact", [True, False])
def test_without_a_place_on_earth_there_is_the_native_box(
    store: GeoParquetTables,
    root: Path,
    crs: str | None,
    exact: bool,  # noqa: FBT001
) -> None:
    (root / "geo").mkdir(parents=True)
    shapes = [shapely.Point(600_000, -5e6), shapely.box(0, 0, 10, 10)]
    geopandas.GeoDataFrame({"n": [1, 2]}, geometry=shapes, crs=crs).to_parquet(root / "geo" / "away.parquet")
    facts = store.describe("geo", "away", exact=exact)
    assert facts.native_bbox == (0.0, -5e6, 600_000.0, 10.0)
    assert (facts.bbox, facts.footprint, facts.row_count) == (None, None, 2)
    assert facts.geometries[0].srid is None
    assert facts.geometry_types == ("Point", "Polygon")


@pytest.mark.parametrize("exact", [True, False])
def test_a_single_point_has_a_box(store: GeoParquetTables, exact: bool) -> None:  # noqa: FBT001
    load(store, PLACES, points(PLACES, 1))
    facts = store.describe("geo", "places", exact=exact)
    assert facts.bbox == (1.0, 1.0, 1.0, 1.0)
    assert facts.footprint == {"type": "Point", "coordinates": [1.0, 1.0]}


def test_columns_and_geometries_of_somebody_else_can_be_several(store: GeoParquetTables, root: Path) -> None:
    (root / "geo").mkdir(parents=True)
    frame = geopandas.GeoDataFrame({"n": [1]}, geometry=[shapely.Point(1, 2)], crs=4326)
    frame["outline"] = geopandas.GeoSeries([shapely.box(0, 0, 5, 5)], crs=4326)
    frame.to_parquet(root / "geo" / "two.parquet")
    facts = store.describe("geo", "two", geometry_column="outline")
    assert [one.name for one in facts.geometries] == ["geometry", "outline"]
    assert (facts.described, facts.geometry_types, facts.bbox) == ("outline", ("Polygon",), (0.0, 0.0, 5.0, 5.0))


def test_geoarrow_is_described_by_what_the_file_says(store: GeoParquetTables, root: Path) -> None:
    (root / "geo").mkdir(parents=True)
    frame = geopandas.GeoDataFrame({"n": [1, 2]}, geometry=[shapely.Point(1, 2), shapely.Point(3, 4)], crs=4326)
    frame.to_parquet(root / "geo" / "arrow.parquet", geometry_encoding="geoarrow")
    facts = store.describe("geo", "arrow")
    assert (facts.exact, facts.row_count, facts.bbox) == (False, 2, (1.0, 2.0, 3.0, 4.0))


def test_years_beyond_the_calendar_are_the_nearest_it_has(store: GeoParquetTables) -> None:
    table = definition(columns=[Column(name="at", type=ColumnType.TIMESTAMP, source_name="at")])
    moments = pa.array([-(10**18), 10**18], pa.int64()).cast(pa.timestamp("us"))
    batch = rows_of(table, {"at": [None, None]}, [None, None]).set_column(1, "at", moments)
    load(store, table, batch)
    facts = store.describe("geo", "places", datetime_column="at")
    assert facts.datetime_range == ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z")


@pytest.mark.parametrize("how", ["added", "removed", "replaced", "damaged"])
def test_a_table_of_other_files_than_were_loaded_is_not_removed(store: GeoParquetTables, root: Path, how: str) -> None:
    published = load(store, PLACES, points(PLACES, 3), points(PLACES, 2, first_id=4))
    load(store, definition("other"), points(PLACES, 3))
    first, second = sorted((root / "geo" / "places").glob("*.parquet"))
    [other] = (root / "geo" / "other").glob("*.parquet")
    if how == "added":
        (first.parent / "mine.parquet").hardlink_to(other)
    elif how == "removed":
        first.unlink()
    elif how == "replaced":
        other.replace(second)
    else:
        second.write_bytes(b"PAR1")
    assert store.touched("geo", "places")
    with pytest.raises(PreconditionFailedError, match=r"geo\.places.*added or removed since"):
        store.drop("geo", "places", versions=[published.version])
    assert (root / "geo" / "places").is_dir()
    assert store.drop("geo", "places")
    assert not store.touched("geo", "places")


# --- many tables --------------------------------------------------------------------------------------------------


def _many(store: GeoParquetTables, root: Path, count: int) -> None:
    """That many tables of as many jobs, each with a version out of sight, as loading them one by one would leave."""
    load(store, definition("t"), points(PLACES, 1), mode="overwrite")
    published = load(store, definition("t"), points(PLACES, 1), mode="overwrite")
    versions = root / "geo" / ".versions"
    for number in range(count):
        for folder in list(versions.glob("t.*")):
            copy = versions / f"t{number}.{folder.name.removeprefix('t.')}"
            shutil.copytree(folder, copy)
            record = json.loads((copy / "_geo_assets.json").read_bytes())
            record["definition"]["table"] = f"t{number}"
            record["loads"][0]["job_id"] = f"job {number}"
            (copy / "_geo_assets.json").write_text(json.dumps(record))
        (root / "geo" / f"t{number}").symlink_to(f".versions/t{number}.{published.version}")
    shutil.rmtree(root / ".jobs")  # it is made anew


def _counting(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What is done, by kind: records read, tables locked, folders of all versions listed."""
    counted: Counter[str] = Counter()
    read, locked, scandir = VersionRecord.read, Folders.locked, os.scandir

    def counting_read(folder: Path) -> VersionRecord | None:
        counted["records"] += 1
        return read(folder)

    def counting_locked(self: Folders, targets: list[tuple[str, str]]) -> Any:
        counted["locks"] += 1
        return locked(self, targets)

    def counting_scandir(path: Any = ".") -> Any:
        counted["listings"] += str(path).endswith((".versions", "geo"))
        return scandir(path)

    monkeypatch.setattr(VersionRecord, "read", counting_read)
    monkeypatch.setattr(Folders, "locked", counting_locked)
    monkeypatch.setattr(os, "scandir", counting_scandir)
    return counted


@pytest.mark.parametrize("count", [30, 300])
def test_a_sweep_locks_only_tables_with_something_to_remove(
    store: GeoParquetTables, root: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    _many(store, root, count)
    counted = _counting(monkeypatch)
    store.sweep(older_than_seconds=3600)
    assert counted["locks"] == 0
    assert counted["listings"] <= 10
    counted.clear()
    for folder in sorted((root / "geo" / ".versions").glob("t1*"))[:6]:
        os.utime(folder, (0, 0))
    store.sweep(older_than_seconds=3600)
    assert counted["locks"] == 3
    store.sweep(older_than_seconds=-1)
    assert counted["locks"] == count + 1
    assert counted["listings"] <= 20
    assert len(list((root / "geo" / ".versions").iterdir())) == count + 1
    assert store.describe("geo", "t7").row_count == 1


def test_what_a_job_loaded_is_found_without_reading_all_records(
    store: GeoParquetTables, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _many(store, root, 300)
    assert [one.table for one in store.loaded_by("job 7")] == ["t7"]
    load(store, definition("t7"), points(PLACES, 1), mode="append", job_id="another")
    counted = _counting(monkeypatch)
    again = GeoParquetTables(root)
    assert [one.table for one in again.loaded_by("job 7")] == ["t7"]
    assert [one.table for one in again.loaded_by("another")] == ["t7"]
    assert again.loaded_by("job") == [again.record("geo", "t")]
    assert again.loaded_by("no job") == []
    assert counted["records"] <= 6


def test_a_table_that_a_job_loaded_no_longer_is_not_its(store: GeoParquetTables) -> None:
    load(store, PLACES, points(PLACES, 1), job_id="one")
    load(store, definition("gone"), points(PLACES, 1), job_id="one")
    load(store, PLACES, points(PLACES, 1), mode="overwrite", job_id="two")
    store.drop("geo", "gone")
    assert store.loaded_by("one") == []
    assert [one.table for one in store.loaded_by("two")] == ["places"]
