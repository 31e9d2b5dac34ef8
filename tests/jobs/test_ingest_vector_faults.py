"""``ingest_vector`` when something goes wrong: killed, doubled, changed under its hands, without room, given bad files.

What belongs here: what a whole job says and leaves then.  What does not: jobs that go well (``test_ingest_vector``),
every way a file can be bad (``tests/vector``), a store's own failures (``tests/stores``).
"""

import json
import sqlite3
import struct
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from geo_assets.coremachine.contract import JobStatus, OutcomeKind
from geo_assets.errors import CatalogUnavailableError, TableStoreUnavailableError
from tests.jobs.bench import Bench
from tests.jobs.conftest import OpenBench
from tests.jobs.loading import Loader
from tests.raster.conftest import Listener, listener
from tests.stores.table_rows import definition, load, points
from tests.vector.files import kml, shapefile, vrt, write, zipped, zipped_folder

__all__ = ["listener"]

ROWS = 250
CHUNKED = "name,lat,lon\n" + "".join(f"town {row},47.5,{7 + row / 1000}\n" for row in range(1, ROWS + 1))
NAMES = [f"town {row}" for row in range(1, ROWS + 1)]
OTHER = "name,lat,lon\nBern,46.9,7.4\n"


# --- something happens at a call of a store --------------------------------------------------------------------------


class Meddler:
    """Lets something happen at one call of a service, just before or just after it."""

    def __init__(self, bench: Bench) -> None:
        self._services = bench.services
        self._calls = 0
        self._dead = False

    def at(
        self, service: str, method: str, action: Callable[[], object], *, nth: int = 1, afterwards: bool = False
    ) -> None:
        """Do something at the ``nth`` call."""
        target = self._services[service]
        meddler = self

        class Watched:
            def __getattr__(self, name: str) -> Any:
                found = getattr(target, name)
                return meddler._around(found, action, nth, afterwards=afterwards) if name == method else found

        self._services[service] = Watched()

    def kill_at(self, service: str, method: str, *, nth: int = 1, afterwards: bool = False) -> None:
        """Let no call of any service go through from there on, as if the process was killed."""
        self.at(service, method, self._kill, nth=nth, afterwards=afterwards)
        for name in ("blobs", "tables", "items", "catalog", "sandbox"):
            self._services[name] = _Mortal(self._services[name], self.is_dead)

    def is_dead(self) -> bool:
        return self._dead

    def _kill(self) -> None:
        self._dead = True
        raise KilledError("killed")

    def _around(self, call: Any, action: Callable[[], object], nth: int, *, afterwards: bool) -> Any:
        def meddled(*arguments: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls != nth:
                return call(*arguments, **options)
            if not afterwards:
                action()
                return call(*arguments, **options)
            answer = call(*arguments, **options)
            action()
            return answer

        return meddled


class KilledError(Exception):
    """The process is killed here."""


class _Mortal:
    def __init__(self, target: Any, is_dead: Callable[[], bool]) -> None:
        self._target, self._is_dead = target, is_dead

    def __getattr__(self, name: str) -> Any:
        if self._is_dead():
            raise KilledError("killed")
        return getattr(self._target, name)


@pytest.fixture
def meddler(request: pytest.FixtureRequest) -> Meddler:
    """For the workbench of the test."""
    name = "loader" if "loader" in request.fixturenames else "files"
    found: Loader = request.getfixturevalue(name)
    return Meddler(found.bench)


KILLS = {
    "before the sandbox": ("sandbox", "call", 1, False),
    "after the sandbox": ("sandbox", "call", 1, True),
    "before the staging": ("tables", "begin", 1, False),
    "after the staging": ("tables", "begin", 1, True),
    "before a chunk is put": ("blobs", "put_stream", 2, False),
    "after a chunk is put": ("blobs", "put_stream", 2, True),
    "before the manifest": ("blobs", "put", 1, False),
    "after the manifest": ("blobs", "put", 1, True),
    "before a chunk is loaded": ("tables", "load_chunk", 2, False),
    "after a chunk is loaded": ("tables", "load_chunk", 2, True),
    "before publishing": ("tables", "publish", 1, False),
    "after publishing": ("tables", "publish", 1, True),
    "before the picture": ("blobs", "put_stream", 5, False),
    "after the picture": ("blobs", "put_stream", 5, True),
    "before cleaning": ("blobs", "delete", 1, False),
    "amid cleaning": ("blobs", "delete", 1, True),
    "before the item": ("items", "write", 1, False),
    "after the item": ("items", "write", 1, True),
}
OF_NEW_TABLES = {"before the picture", "after the picture"}
"""Rows that are added leave the table's picture as it is."""
NOBODY_KNOWS = {"after the staging", "before a chunk is put", "after a chunk is put", "before the manifest"}
"""Killed there, the staging in the table store is known to nobody, and goes when it is a day old."""
WITH_POSTGIS = {"after the staging", "after the manifest", "after a chunk is loaded", "before publishing",
                "after publishing", "amid cleaning", "before the item"}  # fmt: skip


@pytest.mark.parametrize(
    ("tables_url", "mode", "point"),
    [
        *(("geoparquet", "append", point) for point in KILLS if point not in OF_NEW_TABLES),
        *(("geoparquet", "create", point) for point in list(KILLS)[list(KILLS).index("before publishing") :]),
        *(pytest.param("postgis", "append", point, marks=pytest.mark.services) for point in sorted(WITH_POSTGIS)),
    ],
    indirect=["tables_url"],
)
def test_killed_anywhere_it_is_finished_by_repeating_it(loader: Loader, mode: str, point: str) -> None:
    loader.write("towns.csv", CHUNKED)
    params: dict[str, Any] = {"load_mode": mode, "chunk_size": 100}
    before = []
    if mode == "append":
        loader.load(loader.write("other.csv", OTHER), load_mode="append")
        before = ["Bern"]
    services = dict(loader.bench.services)
    service, method, nth, afterwards = KILLS[point]
    Meddler(loader.bench).kill_at(service, method, nth=nth, afterwards=afterwards)
    with pytest.raises(KilledError):  # what is done once a run is not done any more
        loader.job("towns.csv", **params)
    loader.bench.services.update(services)
    there = [] if not loader.names() else loader.rows("places", "name")
    assert there in (before, [*before, *NAMES]), "a reader sees the old table or the new one"

    assert loader.job("towns.csv", **params).status is JobStatus.COMPLETED
    assert loader.rows("places", "name") == [*before, *NAMES]
    assert loader.rows() == list(range(1, len(before) + ROWS + 1))
    assert loader.items() == ["postgis-geo-places"]
    assert loader.bench.files("thumbnails") == ["tables/geo.places.webp"]
    if point in NOBODY_KNOWS:
        assert loader.tables.sweep(older_than_seconds=0) == 1
    loader.require_clean()
    item = loader.bench.services["catalog"].get_item("vectors", "postgis-geo-places")
    assert item["properties"]["table:row_count"] == len(before) + ROWS
    assert loader.load("towns.csv", says=OutcomeKind.UNCHANGED, **params)


@pytest.mark.parametrize(
    ("service", "method", "nth"),
    [("tables", "begin", 1), ("tables", "load_chunk", 2), ("tables", "publish", 1), ("blobs", "put_stream", 5)],
)
def test_what_was_done_and_lost_is_not_done_twice(
    loader: Loader, meddler: Meddler, service: str, method: str, nth: int
) -> None:
    def lost() -> None:
        raise TableStoreUnavailableError("the connection was lost")

    meddler.at(service, method, lost, nth=nth, afterwards=True)
    loader.write("towns.csv", CHUNKED)
    assert loader.job("towns.csv", chunk_size=100, load_mode="append").status is JobStatus.COMPLETED
    assert loader.rows("places", "name") == NAMES
    assert loader.bench.files("staging") == []


def test_a_store_that_is_away_too_long_fails_the_job_which_may_be_repeated(loader: Loader) -> None:
    def away() -> None:
        raise TableStoreUnavailableError("the database is away; try again later")

    services = dict(loader.bench.services)
    for nth in (1, 2):  # the task is tried twice
        Meddler(loader.bench).at("tables", "publish", away, nth=nth)
    job = loader.job(loader.write("towns.csv", CHUNKED))
    assert job.status is JobStatus.FAILED
    assert "the database is away; try again later" in (job.reason or "")
    assert loader.names() == []
    loader.bench.services.update(services)
    loader.load("towns.csv")
    assert loader.rows("places", "name") == NAMES


def test_a_doubled_chunk_counts_once(loader: Loader) -> None:
    original = loader.tables.load_chunk

    class Doubling:
        def __getattr__(self, name: str) -> Any:
            return getattr(loader.tables, name)

        def load_chunk(self, staged: Any, chunk: int, batches: Any) -> int:
            rows: list[int] = []
            held = list(batches)
            threads = [threading.Thread(target=lambda: rows.append(original(staged, chunk, held))) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert rows[0] == rows[1]
            return rows[0]

    loader.bench.services["tables"] = Doubling()
    result = loader.load(loader.write("towns.csv", CHUNKED), chunk_size=100)
    assert result["summary"]["total_rows_uploaded"] == ROWS
    assert loader.rows("places", "name") == NAMES


# --- the world changes meanwhile -------------------------------------------------------------------------------------


def test_a_source_replaced_between_the_stages_is_loaded_as_it_was(loader: Loader, meddler: Meddler) -> None:
    loader.write("towns.csv", CHUNKED)
    etag = loader.bench.services["blobs"].head("bronze", "towns.csv").etag
    meddler.at("tables", "begin", lambda: loader.write("towns.csv", OTHER))
    result = loader.load("towns.csv", load_mode="overwrite")
    assert result["source"]["etag"] == etag
    assert loader.rows("places", "name") == NAMES
    loader.load("towns.csv", load_mode="overwrite", says=OutcomeKind.UPDATED)
    assert loader.rows("places", "name") == ["Bern"]


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_source_replaced_while_it_is_copied_is_copied_again(files: Loader, meddler: Meddler, nth: int) -> None:
    files.write("towns.csv", CHUNKED)
    # read before the job is submitted, by the job to find out whether it is done, and by the copy
    meddler.at("blobs", "read_start", lambda: files.write("towns.csv", OTHER), nth=nth, afterwards=True)
    result = files.load("towns.csv")
    assert files.rows("places", "name") == ["Bern"]
    assert result["source"]["etag"] == files.bench.services["blobs"].head("bronze", "towns.csv").etag


def test_a_source_that_goes_fails_the_job(files: Loader, meddler: Meddler) -> None:
    path = files.bench.containers / "bronze" / files.write("towns.csv", CHUNKED)
    meddler.at("blobs", "read_start", path.unlink, afterwards=True)
    job = files.job("towns.csv")
    assert job.status is JobStatus.FAILED
    assert "bronze/towns.csv" in (job.reason or "")
    assert files.names() == []


def test_a_table_dropped_before_publishing_is_not_added_to(loader: Loader, meddler: Meddler) -> None:
    loader.load(loader.write("other.csv", OTHER))
    meddler.at("tables", "publish", lambda: loader.tables.drop("geo", "places"))
    reason = loader.refused(
        loader.write("towns.csv", CHUNKED),
        "TARGET_CHANGED",
        outcome=OutcomeKind.FAILED,
        load_mode="append",
        chunk_size=100,
        there=[],
    )
    assert "geo.places" in reason


def test_a_table_made_before_publishing_is_not_replaced(loader: Loader, meddler: Meddler) -> None:
    somebody = definition("places")
    theirs = points(somebody, 1, name="Bern")
    meddler.at("tables", "publish", lambda: load(loader.tables, somebody, theirs))
    job = loader.job(loader.write("towns.csv", CHUNKED), load_mode="create")
    assert job.status is JobStatus.FAILED
    assert (job.reason or "").split(":")[0] in ("TABLE_EXISTS", "TARGET_CHANGED")
    assert loader.rows("places", "name") == ["Bern1"]
    loader.require_clean()


def test_without_room_nothing_is_begun(open_bench: OpenBench) -> None:
    full = Loader(open_bench(disk_reserve_mb=1 << 30))
    job = full.job(full.write("towns.csv", CHUNKED))
    assert job.status is JobStatus.FAILED
    assert "of temporary space" in (job.reason or "")
    assert full.names() == []
    full.require_clean()


def test_without_the_catalog_the_table_is_there_and_only_its_item_is_missing(loader: Loader) -> None:
    class Away:
        def write(self, *_: Any) -> Any:
            raise CatalogUnavailableError("the catalog is away; try again later")

    items = loader.bench.services["items"]
    loader.bench.services["items"] = Away()
    loader.write("towns.csv", CHUNKED)
    job = loader.job("towns.csv")
    assert job.status is JobStatus.FAILED
    assert "the catalog is away; try again later" in (job.reason or "")
    assert (job.result_data or {})["tables"][0]["rows"] == ROWS
    assert loader.rows("places", "name") == NAMES
    loader.require_clean()
    version = loader.tables.check_target("geo", "places", "append")
    loader.bench.services["items"] = items
    result = loader.load("towns.csv")
    assert result["tables_unchanged"] == ["geo.places"]
    assert loader.items() == ["postgis-geo-places"]
    assert loader.tables.check_target("geo", "places", "append") == version


# --- secrets ----------------------------------------------------------------------------------------------------------

CANARY = "canary-hunter2"


def everything_said(loader: Loader) -> str:
    """All that the last run recorded, showed and catalogued."""
    attempts = loader.bench.ledger.attempts_of_run(f"run-{loader.bench._runs}")
    rows = loader.bench.ledger.tasks_of([one.attempt_id for one in attempts])
    catalog = loader.bench.services["catalog"]
    items = [item for one in catalog.list_collections() for item in catalog.iter_items(one)]
    return repr([attempts, rows, loader.bench.news, loader.bench.settled, items])


def test_no_password_is_told_where_the_database_is_away(open_bench: OpenBench) -> None:
    away = Loader(open_bench(tables_url=f"postgresql+psycopg2://geo:{CANARY}@127.0.0.1:1/geo"))
    with pytest.raises(TableStoreUnavailableError) as raised:  # by what is done once a run
        away.job(away.write("towns.csv", CHUNKED))
    (attempt,) = away.bench.ledger.attempts_of_run("run-1")
    assert attempt.status is JobStatus.FAILED
    assert "127.0.0.1/geo" in (attempt.reason or "")
    assert CANARY not in everything_said(away) + str(raised.value)


@pytest.mark.services
def test_no_password_is_told_where_all_goes_well(open_bench: OpenBench, postgres_url: str) -> None:
    url = make_url(postgres_url)
    if url.password is None:
        url = url.set(password=CANARY)
    there = Loader(open_bench(tables_url=url.render_as_string(hide_password=False)))
    there.load(there.write("towns.csv", CHUNKED))
    there.refused(there.write("towns.csv", OTHER), "TABLE_EXISTS", outcome=OutcomeKind.FAILED)
    said = everything_said(there)
    assert str(url.password) not in said
    assert "geo.places" in said


# --- bad files (faults 23 to 37) -------------------------------------------------------------------------------------

Content = str | bytes | Path


def point(x: float | str, y: float | str, properties: str = '{"a": 1}') -> str:
    place = f'{{"type": "Point", "coordinates": [{x}, {y}]}}'
    return f'{{"type": "Feature", "properties": {properties}, "geometry": {place}}}'


def collection(*features: str, crs: str | None = None) -> str:
    named = "" if crs is None else f'"crs": {{"type": "name", "properties": {{"name": "{crs}"}}}}, '
    return f'{{"type": "FeatureCollection", {named}"features": [{", ".join(features)}]}}'


def sqlite(folder: Path) -> bytes:
    with sqlite3.connect(folder / "x.db") as database:
        database.execute("create table a (b)")
    database.close()
    return (folder / "x.db").read_bytes()


def half(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: len(content) // 2]


def encrypted(folder: Path) -> bytes:
    content = bytearray(zipped(folder / "x.zip", {"a.csv": OTHER}).read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def link(folder: Path) -> Path:
    entry = zipfile.ZipInfo("a.csv")
    entry.external_attr = 0o120777 << 16
    return zipped(folder / "x.zip", [(entry, "/etc/passwd")])


def nested(folder: Path) -> Path:
    return zipped(folder / "y.zip", {"a.zip": zipped(folder / "x.zip", {"a.csv": OTHER}).read_bytes()})


def parquet(folder: Path, geo: dict[str, Any] | None = None) -> bytes:
    path = folder / "x.parquet"
    geopandas.GeoDataFrame({"a": [1]}, geometry=[shapely.Point(7, 47)], crs=4326).to_parquet(path)
    if geo is not None:
        pq.write_table(pq.read_table(path).replace_schema_metadata({b"geo": json.dumps(geo).encode()}), path)
    return path.read_bytes()


SWAPPED = "name,lat,lon\n" + "".join(f"a,{100 + row / 10},{45 + row / 10}\n" for row in range(20))
WIDE = ",".join(["lat", "lon", *(f"c{at}" for at in range(1600))]) + "\n" + ",".join(["47", "7", *["1"] * 1600]) + "\n"
DOCTYPE = '<?xml version="1.0"?><!DOCTYPE kml [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
GML = '<gml:FeatureCollection xmlns:gml="http://www.opengis.net/gml"/>'
NETWORK_LINK = "<NetworkLink><Link><href>http://127.0.0.1:9/x.kml</href></Link></NetworkLink>"

BAD: dict[str, tuple[str, Callable[[Path], Content], str, str]] = {
    "23 a name of another kind": ("x.gpkg", lambda _: OTHER, "FILE_REFUSED", "no vector file we open"),
    "23 a program called csv": ("x.csv", lambda _: b"MZ\x90" + bytes(500), "FILE_REFUSED", "first bytes 4d 5a 90"),
    "23 no bytes": ("x.csv", lambda _: "", "FILE_EMPTY", "is empty"),
    "23 no rows": ("x.csv", lambda _: "name,lat,lon\n", "NO_FEATURES", "it has no rows"),
    "24 1,600 columns": ("x.csv", lambda _: WIDE, "FILE_TOO_LARGE", "1,602 attributes"),
    "25 an unknown CRS": ("x.geojson", lambda _: collection(point(7, 47), crs="EPSG:999999"), "NO_CRS", "EPSG:999999"),
    "25 latitude and longitude swapped": ("x.csv", lambda _: SWAPPED, "COORDINATES_CONTRADICT_CRS", "swapped"),
    "25 metres in degrees": (
        "x.csv", lambda _: "name,lat,lon\na,5200000,600000\n", "COORDINATES_CONTRADICT_CRS", "look like metres"),
    "27 latitude 900": (
        "x.geojson", lambda _: collection(point(7, 900)), "COORDINATES_CONTRADICT_CRS", "row 1: 7, 900"),
    "28 half a character": (
        "x.geojson", lambda _: collection(point(7, 47, '{"a": "x\\ud800"}')), "FILE_UNREADABLE", "lone surrogate"),
    "29 a database that is no GeoPackage": ("x.gpkg", sqlite, "FILE_REFUSED", "no GeoPackage"),
    "29 a GeoPackage cut off": (
        "x.gpkg", lambda folder: half(write(folder / "y.gpkg", "GPKG")), "FILE_UNREADABLE", "cut off"),
    "29 a GeoJSON cut off": ("x.geojson", lambda _: collection(point(7, 47))[:-20], "FILE_UNREADABLE", "x.geojson"),
    "31 no places": ("x.csv", lambda _: "name,size\na,1\n", "GEOMETRY_COLUMNS", "x.csv has no columns of the usual"),
    "31 one column": ("x.csv", lambda _: "name\na\n", "GEOMETRY_COLUMNS", "'name'"),
    "35 an entity in KML": ("x.kml", lambda _: kml(prolog=DOCTYPE), "FILE_REFUSED", "DOCTYPE"),
    "35 a network link": ("x.kml", lambda _: kml(NETWORK_LINK), "FILE_REFUSED", "NetworkLink"),
    "35 a way out of a KMZ": (
        "x.kmz", lambda folder: zipped(folder / "x.kmz", {"../doc.kml": kml()}), "ARCHIVE_REFUSED", "leads out"),
    "36 a bomb": (
        "x.zip", lambda folder: zipped(folder / "x.zip", {"a.csv": bytes(80 << 20)}), "ARCHIVE_REFUSED", "unpacked"),
    "36 a way out of a zip": (
        "x.zip", lambda folder: zipped(folder / "x.zip", {"../a.csv": OTHER}), "ARCHIVE_REFUSED", "leads out"),
    "36 an archive in an archive": ("x.zip", nested, "ARCHIVE_REFUSED", "another archive"),
    "36 a password": ("x.zip", encrypted, "ARCHIVE_REFUSED", "encrypted"),
    "36 a link": ("x.zip", link, "ARCHIVE_REFUSED", "a link"),
    "36 nothing to read": (
        "x.zip", lambda folder: zipped(folder / "x.zip", {"a.exe": b"MZ"}), "ARCHIVE_REFUSED", "no vector file"),
    "37 a FlatGeobuf with a lying count": (
        "x.fgb", lambda folder: half(write(folder / "x.fgb", "FlatGeobuf")), "FILE_UNREADABLE", "cut off"),
    "37 a Parquet without its footer": ("x.parquet", lambda folder: parquet(folder)[:-10], "FILE_UNREADABLE", "footer"),
    "37 a Parquet that names no column of its own": (
        "x.parquet", lambda folder: parquet(folder, {"version": "1.1.0", "primary_column": "no", "columns": {}}),
        "GEO_METADATA", "'geo' metadata"),
    "37 a GML with a schema elsewhere": (
        "x.geojson", lambda _: GML, "FILE_REFUSED", "GML"),
}  # fmt: skip
"""Fault → blob, its content, code, and some words of the reason."""


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_with_its_reason_and_leaves_nothing(files: Loader, tmp_path: Path, fault: str) -> None:
    name, make, code, words = BAD[fault]
    made = make(tmp_path)
    files.write(name, made.read_bytes() if isinstance(made, Path) else made)
    reason = files.refused(name, code)
    assert words in reason
    assert "vector." not in reason, "it is named as people know it"
    assert not files.bench.news
    assert files.bench.files("thumbnails") == []


@pytest.mark.parametrize(
    ("part", "code"), [(".dbf", "FILE_UNREADABLE"), (".shx", "FILE_UNREADABLE"), (".prj", "NO_CRS")]
)
def test_fault_29_a_shapefile_without_a_part(files: Loader, tmp_path: Path, part: str, code: str) -> None:
    folder = tmp_path / "parts"
    shapefile(folder)
    (folder / f"vector{part}").unlink()
    files.put(folder, "parts")
    files.put(zipped_folder(tmp_path / "parts.zip", folder))
    for blob in ("parts/vector.shp", "parts.zip"):
        reason = files.refused(blob, code)
        assert part == ".prj" or part in reason


def test_fault_29_a_shapefile_with_half_of_its_attributes(files: Loader, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    dbf = shapefile(folder).with_suffix(".dbf")
    dbf.write_bytes(half(dbf))
    files.put(folder, "parts")
    assert "it says it has 20 rows" in files.refused("parts/vector.shp", "FILE_UNREADABLE")


def test_a_vrt_that_calls_itself_something_else_reads_nothing(files: Loader, listener: Listener) -> None:
    files.load(files.write("good.csv", OTHER), "good")
    for name in ("x.geojson", "x.csv", "x.kml", "x.gpkg"):
        for source in (f"/vsicurl/{listener.url}/x.csv", str(files.bench.containers / "bronze" / "good.csv")):
            files.refused(files.write(name, vrt(source)), "FILE_REFUSED")
    assert files.names() == ["good"]


def test_fault_26_curves_become_lines_and_are_told(files: Loader, tmp_path: Path) -> None:
    curve = struct.pack("<BII6d", 1, 8, 3, 7, 47, 8, 48, 9, 47)
    pyogrio.raw.write(
        tmp_path / "curve.gpkg",
        geometry=np.array([curve], dtype=object),
        field_data=[np.array([1])],
        fields=["a"],
        geometry_type="Unknown",
        crs="EPSG:4326",
        driver="GPKG",
    )
    (table,) = files.load(files.put(tmp_path / "curve.gpkg"))["tables"]
    assert table["geometry_types"] == {"LineString": 1}
    assert any("curves" in note for note in table["notes"])


GOOD: dict[str, tuple[str, Content, list[dict[str, Any]]]] = {
    "24 names": (
        "x.csv", "Name,name,NAME,geom,id,ogc_fid,select,9x,lat,lon\n1,2,3,4,5,6,7,8,47,7\n",
        [{"name": 1, "name_2": 2, "name_3": 3, "geom_2": 4, "id_2": 5, "ogc_fid": 6, "f_select": 7, "col_9x": 8}]),
    "24 no attributes": ("x.geojson", collection(point(7, 47, "null"), point(8, 47, "{}")), [{"id": 1}, {"id": 2}]),
    "28 UTF-16": ("x.csv", "name,lat,lon\nZürich,47.4,8.5\n".encode("utf-16"), [{"name": "Zürich"}]),
    "28 cp1252": ("x.csv", "name,lat,lon\nZürich,47.4,8.5\n".encode("cp1252"), [{"name": "Zürich"}]),
    "28 a mark at the start": ("x.csv", "name,lat,lon\nZürich,47.4,8.5\n".encode("utf-8-sig"), [{"name": "Zürich"}]),
    "28 NUL": ("x.geojson", collection(point(7, 47, '{"a": "x\\u0000y"}')), [{"a": "xy"}]),
    "30 beyond 64 bits": ("x.geojson", collection(point(7, 47, f'{{"a": {2**64}}}')), [{"a": 2**64}]),
    "30 64 bits": ("x.geojson", collection(point(7, 47, f'{{"a": {2**63 - 1}}}')), [{"a": 2**63 - 1}]),
    "30 the year 20000": ("x.geojson", collection(point(7, 47, '{"a": "20000-01-01"}')), [{"a": "20000-01-01"}]),
    "31 quoted newlines and formulas": (
        "x.csv", 'name,lat,lon\n"a\nb",46.9,7.4\n"=cmd|\' /C calc\'!A0",46,7\n',
        [{"name": "a\nb"}, {"name": "=cmd|' /C calc'!A0"}]),
    "31 decimal commas": ("x.csv", "name;lat;lon\nBern;46,9;7,4\n", [{"name": "Bern", "lat": 46.9, "lon": 7.4}]),
}  # fmt: skip
"""Fault that can be read nevertheless → blob, its content, and values of its rows."""


@pytest.mark.parametrize("fault", GOOD)
def test_what_is_odd_but_clear_is_loaded(loader: Loader, fault: str) -> None:
    name, content, wanted = GOOD[fault]
    assert isinstance(content, str | bytes)
    loader.load(loader.write(name, content))
    for column in {column for row in wanted for column in row}:
        assert loader.rows("places", column) == [row[column] for row in wanted], column


def test_fault_27_longitudes_beyond_180_are_brought_back(files: Loader) -> None:
    (table,) = files.load(files.write("x.geojson", collection(point(200, 10), point(8, 47))))["tables"]
    assert table["report"]["wrapped_longitudes"]["count"] == 1
    assert files.table().geometry.x.tolist() == [-160, 8]


def test_faults_26_and_27_impossible_rows_can_be_dropped(files: Loader) -> None:
    blob = files.write("x.geojson", collection(point(7, 900), point(8, 47), point(700, 7)))
    files.refused(blob, "COORDINATES_CONTRADICT_CRS")
    (table,) = files.load(blob, impossible_coordinates="drop")["tables"]
    assert (table["rows"], table["report"]["impossible"]["count"]) == (1, 2)
    assert files.rows() == [2]


def test_one_bad_file_does_not_stop_the_others(files: Loader) -> None:
    for number in range(4):
        files.write(f"{number}.csv", OTHER if number != 2 else "")
    given = [{"blob_name": f"{number}.csv", "table_name": f"t{number}"} for number in range(4)]
    jobs = files.bench.run_many("ingest_vector", given)
    assert [job.status is JobStatus.COMPLETED for job in jobs] == [True, True, False, True]
    assert files.names() == ["t0", "t1", "t3"]
    files.require_clean()


@pytest.mark.services
@pytest.mark.parametrize("tables_url", ["postgis"], indirect=True)
def test_fault_34_a_view_and_grants_survive_an_overwrite(loader: Loader) -> None:
    loader.load(loader.write("other.csv", OTHER))
    url = loader.bench.settings.tables_url
    assert url is not None
    engine = create_engine(url.get_secret_value())
    with engine.begin() as connection:
        connection.execute(text("create view geo.names as select name from geo.places"))
        connection.execute(text("grant select on geo.places to public"))
    loader.load(loader.write("towns.csv", CHUNKED), load_mode="overwrite", says=OutcomeKind.UPDATED)
    with engine.begin() as connection:
        assert connection.scalar(text("select count(*) from geo.names")) == ROWS
        granted = "select count(*) from information_schema.table_privileges where grantee = 'PUBLIC'"
        assert connection.scalar(text(f"{granted} and table_name = 'places'")) == 1
    engine.dispose()
