"""Vector files into PostGIS: ours against ogr2ogr and geopandas; what the safety costs; memory.

What belongs here: measuring and comparing.  What does not: the files (``_vector_data``), the ways (``_vector_ways``).

Run ``python -m benchmarks.vectors``; ``--scale 0.1`` takes smaller files, ``--repeats 3`` is for figures to keep,
``--large`` adds the old system's CSV of 1 GB, ``--only points.gpkg`` one case.  Needs ogr2ogr (the package gdal-bin).

Every way runs in a process of its own, the ways in turn, into tables of one database with lz4 TOAST for all; times
are of whole processes, imports among them.  Before a ratio is printed, the rows of both tables are compared: each
attribute as text (doubles to 15 digits, which is what ogr2ogr writes), each geometry as WKB.

``load`` is reading, columns and binary COPY, with the primary key that ogr2ogr makes as well; ``checked`` also looks at
every geometry.  ``job`` is the whole workflow in Dagster: copy of the blob, sandbox, preparation, staging, counting,
key, GIST index, ANALYZE, picture, item; its time is from submission to the end of the run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from benchmarks._vector_data import DATASETS, FORMATS, make, make_large_csv
from tests.services.session import ServiceSession

OGR_AIM, OGR_LEAST = 1.5, 0.8
GEOPANDAS_AIM, GEOPANDAS_LEAST = 5.0, 1.5
LARGE_AIM = 2.0
JOB_LIMIT = 2.0
GATE_MB = 700
_POLL = 0.05


@dataclass
class Measured:
    """What one way took on one file, a number a repeat."""

    wall: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(self.wall)


# --- running ---------------------------------------------------------------------------------------------------


def ogr_command(path: Path, url: URL, table: str) -> list[str]:
    """Ogr2ogr with COPY, without index, types detected where a file has none."""
    target = f"PG:host={url.host} port={url.port} user={url.username} dbname={url.database}"
    if url.password:
        target += f" password={url.password}"
    options = ["-nln", table, "-lco", "SPATIAL_INDEX=NONE", "-lco", "FID=id", "-lco", "GEOMETRY_NAME=geom", "-nlt",
               "GEOMETRY", "-lco", "LAUNDER=YES", "-a_srs", "EPSG:4326"]  # fmt: skip
    if path.suffix == ".csv":
        options += ["-oo", "X_POSSIBLE_NAMES=lon", "-oo", "Y_POSSIBLE_NAMES=lat", "-oo", "GEOM_POSSIBLE_NAMES=wkt",
                    "-oo", "AUTODETECT_TYPE=YES", "-oo", "KEEP_GEOM_COLUMNS=YES" if "points" in path.name or
                    "large" in path.name else "KEEP_GEOM_COLUMNS=NO"]  # fmt: skip
    return ["ogr2ogr", "-f", "PostgreSQL", target, str(path), *options, "--config", "PG_USE_COPY", "YES"]


def run(way: str, path: Path, url: URL, table: str, measured: Measured) -> None:
    """Run a way once and add what it took."""
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks._vector_ways", way, str(path), plain, table]
    if way == "ogr2ogr":
        command = ogr_command(path, url, table)
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0.0]
    watch = threading.Thread(target=_watch, args=(process, peak))
    watch.start()
    out, err = process.communicate()
    wall = time.perf_counter() - started
    watch.join()
    if process.returncode:
        raise SystemExit(f"{way} of {path.name} failed:\n{err[-2000:]}")
    measured.result = json.loads(out.splitlines()[-1]) if way != "ogr2ogr" else {}
    measured.wall.append(measured.result.get("wall", wall))
    measured.peak_mb.append(peak[0])


def _watch(process: "subprocess.Popen[str]", peak: list[float]) -> None:
    """The most memory that the process and its children had at one time, what they share counted once each."""
    try:
        root = psutil.Process(process.pid)
    except psutil.Error:
        return
    while process.poll() is None:
        total = 0
        for one in [root, *_children(root)]:
            try:
                total += one.memory_info().rss
            except psutil.Error:
                continue
        peak[0] = max(peak[0], total / 2**20)
        time.sleep(_POLL)


def _children(root: psutil.Process) -> list[psutil.Process]:
    try:
        return root.children(recursive=True)
    except psutil.Error:
        return []


# --- comparing -------------------------------------------------------------------------------------------------


def digest(connection: "psycopg.Connection[Any]", table: str, names: list[str]) -> tuple[Any, ...]:
    """Rows and a sum over them that does not depend on their order: attributes as text, geometries as WKB."""
    # a double as a numeric has 15 digits, which is what ogr2ogr writes of it
    columns = sql.SQL(", ").join(
        sql.SQL("case when pg_typeof({0}) = 'double precision'::regtype then {0}::text::float8::numeric::text"
                " else {0}::text end").format(sql.Identifier(name))
        for name in names
    )  # fmt: skip
    row = connection.execute(
        sql.SQL(
            "select count(*), sum(hashtextextended(concat_ws('|', {columns}, encode(st_asbinary(geom), 'hex')), 0)"
            "::numeric) from {table}"
        ).format(columns=columns, table=sql.Identifier(table))
    ).fetchone()
    assert row is not None
    return tuple(row)


def attributes(connection: "psycopg.Connection[Any]", table: str) -> list[str]:
    """Names of the attributes of a table."""
    rows = connection.execute(
        "select column_name from information_schema.columns"
        " where table_name = %s and column_name not in ('id', 'geom')",
        [table],
    ).fetchall()
    return sorted(name for (name,) in rows)


def require_equal(url: URL, ours: str, theirs: str, case: str) -> None:
    """Prove that two tables have equal rows.

    Raises:
        SystemExit: they have not; says what differs.
    """
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        names = attributes(connection, ours)
        if names != attributes(connection, theirs):
            raise SystemExit(f"{case}: other columns: {names} and {attributes(connection, theirs)}")
        mine, other = digest(connection, ours, names), digest(connection, theirs, names)
        if mine != other:
            differing = [
                name for name in names if digest(connection, ours, [name]) != digest(connection, theirs, [name])
            ]
            raise SystemExit(f"{case}: rows differ ({mine} and {other}), in {differing or 'geometries'}")


def drop(url: URL, *tables: str) -> None:
    """Make room."""
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        for table in tables:
            connection.execute(sql.SQL("drop table if exists {} cascade").format(sql.Identifier(table)))


# --- the comparison --------------------------------------------------------------------------------------------


def compare(path: Path, url: URL, ways: list[str], repeats: int) -> dict[str, Measured]:
    """Run the ways in turn, prove equal rows once a peer, and return what each took."""
    found = {way: Measured() for way in ways}
    for number in range(repeats):
        tables = {way: f"{way}_{uuid.uuid4().hex[:8]}" for way in ways}
        for way in ways:
            run(way, path, url, tables[way], found[way])
        if number == 0:
            for peer in ("ogr2ogr", "geopandas"):
                if peer in ways:
                    require_equal(url, tables["load"], tables[peer], f"{path.name}, {peer}")
        drop(url, *tables.values())
    return found


def report(name: str, found: dict[str, Measured]) -> None:
    """A line a way."""
    load = found["load"].seconds
    for way, measured in found.items():
        ratio = "" if way == "load" else f"{measured.seconds / load:6.2f} x"
        spread = f"{min(measured.wall):.2f}…{max(measured.wall):.2f}"
        print(
            f"{name:18} {way:10} {measured.seconds:7.2f} s {spread:>14} {max(measured.peak_mb):6.0f} MB {ratio}",
            flush=True,
        )
    if "job" in found:
        print(f"{'':18} job: {found['job'].result['seconds']}", flush=True)


def summary(name: str, ratios: list[float], aim: float, least: float) -> bool:
    """Geometric mean and smallest ratio against the aim; whether both are reached."""
    if not ratios:
        return True
    mean = statistics.geometric_mean(ratios)
    good = mean >= aim and min(ratios) >= least
    print(f"against {name}: {mean:.2f} x in the geometric mean (aim {aim}), at least {min(ratios):.2f} x (aim {least})")
    return good


def main() -> int:
    """Measure, print, and say by the status whether every aim was reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--ways", default="load,checked,ogr2ogr,geopandas,job")
    parser.add_argument("--folder", type=Path, help="where the files are kept; default: they are made anew")
    given = parser.parse_args()
    session = ServiceSession.begin()
    with tempfile.TemporaryDirectory(prefix="vectors-") as own:
        folder = given.folder or Path(own)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return _measure(given, folder, session)
        finally:
            session.end()


def _measure(given: argparse.Namespace, folder: Path, session: ServiceSession) -> int:
    url = _database(session)
    ogr: list[float] = []
    pandas: list[float] = []
    jobs: list[float] = []
    peaks: list[float] = []
    good = True
    for name in DATASETS:
        for form in FORMATS:
            case = f"{name}.{form}"
            if given.only and case not in given.only:
                continue
            ways = [way for way in given.ways.split(",") if not (way == "ogr2ogr" and form == "parquet")]
            found = compare(make(folder, name, form, scale=given.scale), url, ways, given.repeats)
            report(case, found)
            load = found["load"].seconds
            ogr += [found["ogr2ogr"].seconds / load] if "ogr2ogr" in found else []
            pandas += [found["geopandas"].seconds / load] if "geopandas" in found else []
            jobs += [found["job"].seconds / load] if "job" in found else []
            peaks += [max(measured.peak_mb) for way, measured in found.items() if way in ("load", "checked")]
    if given.large:
        path = make_large_csv(folder / "large.csv")
        found = compare(path, url, [way for way in given.ways.split(",") if way != "geopandas"], given.repeats)
        report("large.csv", found)
        ratio = found["ogr2ogr"].seconds / found["load"].seconds
        print(f"the old system's CSV: {ratio:.2f} x ogr2ogr (aim {LARGE_AIM})")
        good = good and ratio >= LARGE_AIM
        peaks += [max(measured.peak_mb) for way, measured in found.items() if way in ("load", "checked")]
        jobs += [found["job"].seconds / found["load"].seconds] if "job" in found else []
    good = summary("ogr2ogr", ogr, OGR_AIM, OGR_LEAST) and good
    good = summary("geopandas", pandas, GEOPANDAS_AIM, GEOPANDAS_LEAST) and good
    if jobs:
        mean = statistics.geometric_mean(jobs)
        print(f"whole jobs take {mean:.2f} x the bare load in the mean, at most {max(jobs):.2f} (limit {JOB_LIMIT})")
    print(f"peak memory at most {max(peaks):.0f} MB (gate {GATE_MB})")
    return 0 if good and max(peaks) <= GATE_MB else 1


def _database(session: ServiceSession) -> URL:
    given = os.environ.get("GEO_ASSETS_TEST_POSTGRES_URL")
    server = make_url(given or session.service("postgres")["url"])
    name = f"vectors_{uuid.uuid4().hex[:8]}"
    address = server.set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(address, autocommit=True)) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("alter database {} set default_toast_compression = 'lz4'").format(sql.Identifier(name))
        )
    url = server.set(database=name)
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address) as connection:
        connection.execute("create extension if not exists postgis")
    return url


if __name__ == "__main__":
    sys.exit(main())
