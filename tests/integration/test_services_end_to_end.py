"""The command line on real services: containers in Azurite, ledger and Dagster storage in PostgreSQL.

Also the canary test: the services' secrets must be nowhere in what the runs leave behind.
"""

import hashlib
import json
import os
import subprocess
import sys
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store
from geo_assets.stores.blobs import BlobStore
from geo_assets.stores.pgstac import PgstacCatalog
from tests.conftest import Azurite

pytestmark = [pytest.mark.services, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
DATA = ROOT / "geo_assets" / "demo_data"
CANARY = "canary-0f61c9d2-password"

DAGSTER_YAML = """
telemetry: {{enabled: false}}
storage:
  postgres:
    postgres_db: {{hostname: {host}, port: {port}, username: {user}, password: {{env: TEST_PG_PASSWORD}},
                  db_name: {database}, scheme: postgresql+psycopg2}}
"""


def geo_assets(environment: dict[str, str], *arguments: str) -> tuple[int, Any, str]:
    """Run the command; returns exit status, decoded JSON, and everything printed."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("geo-assets")), *arguments, "--json"],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    decoded = json.loads(done.stdout) if done.stdout.strip() else None
    return done.returncode, decoded, done.stdout + done.stderr


def dump(url: str) -> str:
    """Every table of the database as text."""
    parsed = make_url(url)
    with (
        psycopg2.connect(
            host=parsed.host, port=parsed.port, user=parsed.username, password=parsed.password, dbname=parsed.database
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "select table_schema, table_name from information_schema.tables"
            " where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'"
        )
        texts = []
        for schema, table in cursor.fetchall():
            cursor.execute(f'select t::text from "{schema}"."{table}" t')  # noqa: S608 - names from the catalog
            texts += [row[0] for row in cursor.fetchall()]
    return "\n".join(text for text in texts if text)


def files_below(folder: Path) -> str:
    """The content of every file of a folder, as text."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def services(azurite: Azurite, postgres_url: str, tmp_path: Path) -> tuple[dict[str, str], BlobStore]:
    """An environment with everything in services, passwords in the URLs, and the blob store it names."""
    with_password = make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)
    parsed = make_url(postgres_url)
    home = tmp_path / "home"
    dagster_home = tmp_path / "dagster"
    dagster_home.mkdir()
    (dagster_home / "dagster.yaml").write_text(
        DAGSTER_YAML.format(host=parsed.host, port=parsed.port, user=parsed.username, database=parsed.database)
    )
    given = {
        "GEO_ASSETS_HOME": str(home),
        "GEO_ASSETS_BLOB_STORE": "azure",
        "GEO_ASSETS_AZURE_CONNECTION_STRING": azurite.connection_string,
        "GEO_ASSETS_LEDGER_URL": with_password,
        "GEO_ASSETS_CATALOG_URL": with_password,
    }
    environment = {**os.environ, **given, "DAGSTER_HOME": str(dagster_home), "TEST_PG_PASSWORD": CANARY}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in given.items():
            patched.setenv(name, value)
        return environment, open_blob_store(Settings())


def test_containers_in_azurite_with_postgres(azurite: Azurite, postgres_url: str, tmp_path: Path) -> None:
    environment, store = services(azurite, postgres_url, tmp_path)
    parsed = make_url(postgres_url)
    files = sorted(path for path in DATA.rglob("*") if path.is_file())
    container = f"real-{uuid.uuid4().hex[:12]}"
    store.create_container(container)
    for path in files:
        store.put(container, f"in folder/{path.name}", path.read_bytes())

    status, answer, _ = geo_assets(
        environment, "submit", "list_container_contents", "--param", f"container_name={container}", "--wait"
    )
    assert status == 0, answer
    status, jobs, _ = geo_assets(environment, "jobs")
    assert status == 0
    job_id = jobs[0]["jobId"] if isinstance(jobs, list) else jobs["jobs"][0]["jobId"]
    status, job, _ = geo_assets(environment, "status", job_id)
    assert status == 0
    assert job["status"] == "completed"
    summary = job["resultData"]["summary"]
    assert summary["successful_analyses"] == len(files)
    assert summary["total_size_bytes"] == sum(path.stat().st_size for path in files)
    status, tasks, _ = geo_assets(environment, "tasks", job_id)
    assert status == 0
    assert len(tasks if isinstance(tasks, list) else tasks["tasks"]) == len(files) + 1

    status, _, said = geo_assets(
        environment, "submit", "summarize_container", "--param", "container_name=does-not-exist", "--wait"
    )
    assert status == 1
    assert "does-not-exist" in said

    # all containers over 1 kB is one query, on the tables the docs describe
    with (
        psycopg2.connect(
            host=parsed.host, port=parsed.port, user=parsed.username, dbname=parsed.database
        ) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "select partition_key from geo_assets.jobs where job_type = 'list_container_contents'"
            " and (result_data -> 'summary' ->> 'total_size_bytes')::bigint > 1000"
        )
        assert cursor.fetchall() == [(container,)]

    _no_secret_is_left(azurite, said + everything_left(postgres_url, tmp_path), container)


def everything_left(postgres_url: str, folder: Path) -> str:
    """The database and the homes as text."""
    return dump(postgres_url) + files_below(folder / "home") + files_below(folder / "dagster")


def _no_secret_is_left(azurite: Azurite, left_behind: str, container: str) -> None:
    assert container in left_behind, "the search looks in the right places"
    for secret in (azurite.account_key, CANARY):
        assert secret not in left_behind


def test_rasters_from_azurite_to_pgstac_and_back(azurite: Azurite, postgres_url: str, tmp_path: Path) -> None:
    environment, store = services(azurite, postgres_url, tmp_path)
    mark = uuid.uuid4().hex[:12]
    container, silver = f"bronze-{mark}", f"silver-{mark}"
    environment |= {"GEO_ASSETS_SILVER_CONTAINER": silver, "GEO_ASSETS_THUMBNAIL_CONTAINER": f"thumbs-{mark}"}
    rasters = sorted(DATA.glob("*.tif"))
    bad = {"no_crs_float64.tif", "rotated_no_crs.tif"}
    store.create_container(container)
    for path in rasters:
        store.put(container, f"in folder/{path.name}", path.read_bytes())

    status, _, said = geo_assets(environment, "submit", "process_raster", "--prefix", f"{container}/", "--wait")
    assert status == 1, "two rasters have no CRS"
    good = [path.name for path in rasters if path.name not in bad]
    made = {row["name"] for batch in store.list_blobs(silver) for row in batch.to_pylist()}
    assert made == {f"in folder/{name.removesuffix('.tif')}_cog.tif" for name in good}
    status, _, more = geo_assets(
        environment, "submit", "stac_catalog_container", "--key", container, "--param", "collection_id=raw", "--wait"
    )
    assert status == 1

    with closing(PgstacCatalog(postgres_url)) as catalog:
        items = list(catalog.iter_items("cogs"))
        assert {item["properties"]["geo_assets:source_blob"] for item in items} == {f"in folder/{n}" for n in good}
        assert catalog.count_items("raw") == len(good)
        for item in items:
            href = item["assets"]["data"]["href"]
            assert href.startswith(f"{azurite.endpoint}/{silver}/")
            assert "?" not in href
            data = store.read(silver, item["properties"]["geo_assets:blob"])
            assert item["assets"]["data"]["file:checksum"] == f"1220{hashlib.sha256(data).hexdigest()}"
        key = f"{container}/in folder/{good[0]}"
        status, _, taken = geo_assets(environment, "unpublish", "cog", key, "--execute")
        assert status == 0, taken
        assert catalog.count_items("cogs") == len(good) - 1
        assert len([1 for batch in store.list_blobs(silver) for _ in batch.to_pylist()]) == len(good) - 1

    _no_secret_is_left(azurite, said + more + taken + everything_left(postgres_url, tmp_path), container)
    assert not list((tmp_path / "home" / "scratch").iterdir()), "no temporary file is left"
