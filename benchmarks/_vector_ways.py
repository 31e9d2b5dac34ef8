"""The ways of ``vectors`` to load one file into PostGIS, each run in a process of its own.

What belongs here: what each way does.  What does not: files (``_vector_data``), measuring and comparing (``vectors``).

Run as ``python -m benchmarks._vector_ways WAY FILE URL TABLE``; prints one line of JSON.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa


def load(path: Path, url: str, table: str, *, check: bool = False) -> dict[str, Any]:
    """The bare load: read, name and type the columns, binary COPY, primary key; with ``check`` geometries, too."""
    import numpy as np  # noqa: PLC0415 - imports count, so only this way's are made
    import psycopg  # noqa: PLC0415
    import pyproj  # noqa: PLC0415
    from psycopg import sql  # noqa: PLC0415

    from geo_assets.settings import Settings  # noqa: PLC0415
    from geo_assets.stores.postgis_copy import copy_rows  # noqa: PLC0415
    from geo_assets.vector.columns import name_columns, table_columns  # noqa: PLC0415
    from geo_assets.vector.geometry import GeometryOptions, GeometryPreparer  # noqa: PLC0415
    from geo_assets.vector.open import ReadOptions, VectorBudget, open_vector  # noqa: PLC0415
    from geo_assets.vector.read_ahead import ReadAhead  # noqa: PLC0415
    from geo_assets.vector.table import GeometryColumn, TableDefinition  # noqa: PLC0415

    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_vector(
            path,
            name=path.name,
            options=ReadOptions(file_extension=path.suffix.lstrip(".")),
            budget=VectorBudget.from_settings(Settings()),
            folder=Path(folder),
        ) as opened,
        psycopg.connect(url) as connection,
    ):
        (layer,) = opened.layers
        columns = name_columns(layer.fields, geometry_column="geom")
        definition = TableDefinition(schema="public", table=table, columns=columns, geometry=GeometryColumn())
        described = sql.SQL(", ").join(
            sql.Composed([sql.Identifier(one.name), sql.SQL(" "), sql.SQL(one.type.value)]) for one in columns
        )
        connection.execute(
            sql.SQL("create table {} (id bigint, {}, geom geometry(Geometry, 4326))").format(
                sql.Identifier(table), described
            )
        )
        crs = pyproj.CRS.from_epsg(4326)
        preparer = GeometryPreparer(GeometryOptions(), source_crs=crs, target_crs=crs) if check else None

        def rows() -> Iterator[pa.RecordBatch]:
            first = 1
            for batch in layer.batches():
                arrays = table_columns(batch, columns, {})
                ids = pa.array(np.arange(first, first + batch.num_rows))
                shapes = batch.column(batch.num_columns - 1)
                if preparer is not None:
                    shapes = preparer.prepare(cast("pa.BinaryArray", shapes), first_row=first).wkb
                first += batch.num_rows
                yield pa.RecordBatch.from_arrays([ids, *arrays, shapes], schema=definition.chunk_schema)

        with ReadAhead(rows()) as ahead:
            count = copy_rows(connection, sql.Identifier("public", table), definition, ahead)
        connection.execute(sql.SQL("alter table {} add primary key (id)").format(sql.Identifier(table)))
    return {"rows": count, "work": time.perf_counter() - started}


def geopandas(path: Path, url: str, table: str) -> dict[str, Any]:
    """As most scripts do it."""
    import geopandas as gpd  # noqa: PLC0415
    import pandas as pd  # noqa: PLC0415
    import sqlalchemy  # noqa: PLC0415

    started = time.perf_counter()
    if path.suffix == ".parquet":
        frame = gpd.read_parquet(path)
    elif path.suffix == ".csv":
        plain = pd.read_csv(path)
        if "wkt" in plain:
            shapes = gpd.GeoSeries.from_wkt(plain.pop("wkt"), crs=4326)
        else:
            shapes = gpd.GeoSeries(gpd.points_from_xy(plain["lon"], plain["lat"]), crs=4326)
        frame = gpd.GeoDataFrame(plain, geometry=shapes)
    else:
        frame = gpd.read_file(path)
    frame = frame.rename_geometry("geom")
    engine = sqlalchemy.create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    frame.to_postgis(table, engine, index=False)
    return {"rows": len(frame), "work": time.perf_counter() - started}


def job(path: Path, url: str, table: str) -> dict[str, Any]:
    """The whole job in Dagster, from submission to the end of its run, as a run worker has it."""
    with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
        home = Path(folder)
        container = home / "containers" / "files"
        container.mkdir(parents=True)
        shutil.copy(path, container / path.name)
        os.environ |= {
            "GEO_ASSETS_HOME": str(home),
            "GEO_ASSETS_TABLES_URL": url,
            "DAGSTER_HOME": str(home / "dagster"),
            "DAGSTER_EVENT_BATCH_SIZE": "1000",
        }
        from geo_assets.dagster_home import ensure_dagster_home  # noqa: PLC0415 - only now does it know its home
        from geo_assets.settings import get_settings  # noqa: PLC0415

        ensure_dagster_home(get_settings())
        import dagster as dg  # noqa: PLC0415

        from geo_assets.coremachine import dispatch  # noqa: PLC0415
        from geo_assets.coremachine.asset_job import MACHINE  # noqa: PLC0415
        from geo_assets.coremachine.submission import submit  # noqa: PLC0415
        from geo_assets.definitions import defs  # noqa: PLC0415

        machine = defs.resources[MACHINE].machine()  # type: ignore[index]
        with dg.DagsterInstance.get() as instance:
            started = time.perf_counter()
            answer = submit(
                machine,
                "ingest_vector",
                {"container_name": "files", "blob_name": path.name, "table_name": table, "schema": "public"},
            )
            (asked,) = dispatch.tick(machine, instance).runs
            run = defs.resolve_job_def(asked.job_name).execute_in_process(
                instance=instance, tags=dict(asked.tags), raise_on_error=False
            )
            wall = time.perf_counter() - started
            ended = machine.ledger.job(answer.job.job_id, "ingest_vector")
            assert run.success, ended.error_details
            result: dict[str, Any] = ended.result_data or {}
        stages = {
            str(number): (summary or {}).get("seconds") for number, summary in (ended.stage_results or {}).items()
        }
        rows = sum(made["rows"] for made in result["tables"])
        return {"rows": rows, "wall": wall, "seconds": result["seconds"], "stages": stages}


WAYS: "dict[str, Callable[[Path, str, str], dict[str, Any]]]" = {
    "load": load,
    "checked": lambda path, url, table: load(path, url, table, check=True),
    "geopandas": geopandas,
    "job": job,
}

if __name__ == "__main__":
    way, file, address, name = sys.argv[1:]
    print(json.dumps(WAYS[way](Path(file), address, name)))
