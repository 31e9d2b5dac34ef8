"""The command line on real services: containers in Azurite, ledger and Dagster storage in PostgreSQL.

Also the canary test: the services' secrets must be nowhere in what the runs leave behind.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy.engine import make_url

from geo_assets.settings import Settings
from geo_assets.stores import open_blob_store
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
            " where table_schema not in ('pg_catalog', 'information_schema')"
        )
        texts = []
        for schema, table in cursor.fetchall():
            cursor.execute(f'select t::text from "{schema}"."{table}" t')  # noqa: S608 - names from the catalog
            texts += [row[0] for row in cursor.fetchall()]
    return "\n".join(text for text in texts if text)


def files_below(folder: Path) -> str:
    """The content of every file of a folder, as text."""
    return "\n".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_containers_in_azurite_with_postgres(azurite: Azurite, postgres_url: str, tmp_path: Path) -> None:
    ledger = make_url(postgres_url).set(password=CANARY).render_as_string(hide_password=False)
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
        "GEO_ASSETS_LEDGER_URL": ledger,
    }
    environment = {**os.environ, **given, "DAGSTER_HOME": str(dagster_home), "TEST_PG_PASSWORD": CANARY}
    files = sorted(path for path in DATA.rglob("*") if path.is_file())
    container = f"real-{tmp_path.name[-12:].replace('_', '-').strip('-').lower()}"
    with pytest.MonkeyPatch.context() as patched:
        for name, value in given.items():
            patched.setenv(name, value)
        store = open_blob_store(Settings())
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

    left_behind = said + dump(postgres_url) + files_below(home) + files_below(dagster_home)
    assert container in left_behind, "the search looks in the right places"
    for secret in (azurite.account_key, CANARY):
        assert secret not in left_behind
