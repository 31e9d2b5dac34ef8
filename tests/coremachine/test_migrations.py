"""The ledger's schema: made, versioned, opened by several, beside Dagster's tables; and a database that is away."""

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from geo_assets.coremachine import ledger_tables, migrations
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Ledger, NewJob
from geo_assets.coremachine.ledger_tables import SCHEMA, VERSION_TABLE
from geo_assets.errors import (
    AccessDeniedError,
    GeoAssetsError,
    LedgerUnavailableError,
    SchemaVersionError,
    SettingsError,
)


def job(number: int = 1) -> NewJob:
    return NewJob(
        job_type="greet",
        job_id=f"{number:064d}",
        asset="greetings",
        partition_key=f"key-{number}",
        parameters={},
        total_stages=1,
    )


# --- making and opening ------------------------------------------------------------------------------------------


def _described(ledger: Ledger) -> dict[str, Any]:
    """Every table with its columns, types, keys and indexes, as the database has them."""
    on_postgres = ledger.engine.dialect.name == "postgresql"
    schema = SCHEMA if on_postgres else None
    found: dict[str, Any] = {}
    with ledger.engine.connect() as connection:
        inspector = sa.inspect(connection)
        for table in sorted(set(inspector.get_table_names(schema=schema)) - {VERSION_TABLE}):
            columns = {
                column["name"]: (str(column["type"]), column["nullable"])
                for column in inspector.get_columns(table, schema=schema)
            }
            indexes = {
                index["name"]: (
                    index["column_names"],
                    bool(index["unique"]),
                    str(index.get("dialect_options", {}).get(f"{connection.dialect.name}_where")),
                )
                for index in inspector.get_indexes(table, schema=schema)
            }
            foreign = [
                (key["constrained_columns"], key["referred_table"], key["options"].get("ondelete"))
                for key in inspector.get_foreign_keys(table, schema=schema)
            ]
            primary = inspector.get_pk_constraint(table, schema=schema)["constrained_columns"]
            found[table] = (columns, indexes, foreign, primary)
    return found


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """A ledger in a database of its own, as its tables are what these tests are about."""
    opened = Ledger(ledger_url, patience_seconds=20)
    yield opened
    opened.close()


def test_migrating_an_empty_database_gives_the_tables_of_the_code(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    migrated = _described(ledger)
    assert set(migrated) == set(ledger_tables.metadata.tables)
    with ledger.engine.begin() as connection:
        ledger_tables.metadata.drop_all(connection)
        ledger_tables.metadata.create_all(connection)
    assert migrated == _described(ledger)


def test_what_is_migrated_is_what_the_code_says(ledger: Ledger) -> None:
    migrated = _described(ledger)
    for name, table in ledger_tables.metadata.tables.items():
        columns, indexes, _, primary = migrated[name]
        assert set(columns) == set(table.columns.keys())
        assert set(indexes) == {index.name for index in table.indexes}
        assert primary == [column.name for column in table.primary_key.columns]


def test_the_version_is_recorded_and_is_the_newest(ledger: Ledger) -> None:
    versions = Path(migrations.__file__).parent / "versions"
    revisions = sorted(path.stem.partition("_")[0].removeprefix("v") for path in versions.glob("v*.py"))
    assert revisions[-1] == migrations.HEAD
    assert list(migrations._KNOWN) == revisions
    with ledger.engine.connect() as connection:
        assert migrations._current(connection) == migrations.HEAD


def test_a_ledger_of_an_older_version_is_migrated_with_what_it_holds(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(ledger_url)
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(schema_translate_map={None: SCHEMA})
    else:
        Path(str(engine.url.database)).parent.mkdir(parents=True)
    with monkeypatch.context() as older:
        older.setattr(migrations, "HEAD", "0001")
        migrations.ensure_schema(engine, "the test's")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with engine.begin() as connection:
        assert migrations._current(connection) == "0001"
        connection.execute(
            ledger_tables.jobs.insert().values(
                job_type="greet",
                job_id="1" * 64,
                asset="greetings",
                partition_key="key-1",
                parameters={"n": 1},
                status="completed",
                stage=1,
                total_stages=1,
                stage_results={},
                metadata={},
                attempts=1,
                created_at=now,
                updated_at=now,
            )
        )
    engine.dispose()
    ledger = Ledger(ledger_url)
    (found,) = ledger.jobs()
    assert (found.partition_key, found.parameters, found.withdrawn_at) == ("key-1", {"n": 1}, None)
    assert ledger.audits() == []
    ledger.close()


def test_reopening_is_cheap_and_keeps_what_is_there(ledger: Ledger, ledger_url: str) -> None:
    ledger.submit([job()])
    script = (
        "import sys\n"
        "from geo_assets.coremachine.ledger import Ledger\n"
        "ledger = Ledger(sys.argv[1])\n"
        "assert [job.partition_key for job in ledger.jobs()] == ['key-1']\n"
        "assert 'alembic' not in sys.modules, 'a third of a second of imports for nothing'\n"
        "ledger.close()\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script, ledger_url], check=True, timeout=60)


def test_reopening_writes_nothing(ledger: Ledger, ledger_url: str) -> None:
    statements: list[str] = []

    def note(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(ledger.engine, "before_cursor_execute", note)
    migrations.ensure_schema(ledger.engine, "x")
    assert not [text for text in statements if text.startswith(("CREATE", "INSERT", "BEGIN IMMEDIATE"))]
    assert len(statements) <= 5


@pytest.mark.parametrize("version", ["0004", "9999"])
def test_a_newer_database_is_refused_and_left_alone(ledger: Ledger, ledger_url: str, version: str) -> None:
    schema = SCHEMA if ledger.engine.dialect.name == "postgresql" else None
    table = sa.table(VERSION_TABLE, sa.column("version_num"), schema=schema)
    with ledger.engine.begin() as connection:
        connection.execute(table.update().values(version_num=version))
    with pytest.raises(SchemaVersionError) as caught:
        Ledger(ledger_url, patience_seconds=1)
    assert version in str(caught.value)
    assert "upgrade geo_assets" in str(caught.value)
    password = make_url(ledger_url).password
    assert password is None or str(password) not in str(caught.value)


def test_two_processes_may_open_a_new_database_at_once(ledger_url: str) -> None:
    script = (
        "import sys\n"
        "from geo_assets.coremachine.ledger import Ledger, NewJob\n"
        "sys.stdin.readline()\n"
        "ledger = Ledger(sys.argv[1])\n"
        "ledger.submit([NewJob(job_type='t', job_id=sys.argv[2] * 8, asset='a', partition_key=sys.argv[2],"
        " parameters={}, total_stages=1)])\n"
        "ledger.close()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script, ledger_url, str(number)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    ledger = Ledger(ledger_url)
    assert {found.partition_key for found in ledger.jobs()} == {"0", "1", "2"}
    ledger.close()


def test_two_that_find_no_tables_at_the_same_moment_make_them_once(
    ledger_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_looked = threading.Barrier(2, timeout=30)
    looks = threading.local()
    original = migrations._current

    def look_and_meet(connection: Any) -> str | None:
        found = original(connection)
        if not getattr(looks, "done", False):
            looks.done = True
            both_looked.wait()
        return found

    monkeypatch.setattr(migrations, "_current", look_and_meet)
    errors: list[BaseException] = []

    def open_one() -> None:
        try:
            Ledger(ledger_url).close()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


def test_the_ledger_and_dagster_share_a_postgresql_database(postgres_url: str) -> None:
    with contextlib.closing(_connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("create table public.jobs (id int primary key, job_body text)")
        cursor.execute("create table public.alembic_version (version_num varchar(32) primary key)")
        cursor.execute("insert into public.alembic_version values ('dagster')")
        cursor.execute("insert into public.jobs values (1, 'of Dagster')")
        ledger = Ledger(postgres_url)
        ledger.submit([job()])
        assert [found.partition_key for found in ledger.jobs()] == ["key-1"]
        ledger.close()
        cursor.execute("select table_schema, table_name from information_schema.tables where table_name = 'jobs'")
        assert sorted(cursor.fetchall()) == [(SCHEMA, "jobs"), ("public", "jobs")]
        cursor.execute("select * from public.jobs")
        assert cursor.fetchall() == [(1, "of Dagster")]
        cursor.execute("select * from public.alembic_version")
        assert cursor.fetchall() == [("dagster",)]


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "100% Ångström #1" / "deep" / "ledger.db"
    ledger = Ledger(f"sqlite:///{path}")
    ledger.submit([job()])
    ledger.close()
    assert path.exists()


# --- what the columns take ---------------------------------------------------------------------------------------


def test_text_that_postgresql_refuses_does_not_stop_a_batch(ledger: Ledger) -> None:
    odd = "a\x00b\udcffc\U0001f600"
    ledger.submit(
        [
            NewJob(
                job_type="t",
                job_id="1" * 64,
                asset="a",
                partition_key="k",
                parameters={"name": odd, "deep": [{odd: "\\u0000"}], "kept": "\\u0000 \\udcff"},
                total_stages=1,
                source_version=odd,
            )
        ]
    )
    parameters = ledger.jobs()[0].parameters
    shown = "a\ufffdb\ufffdc\U0001f600"
    assert parameters == {"name": shown, "deep": [{shown: "\\u0000"}], "kept": "\\u0000 \\udcff"}
    assert ledger.attempts_of_job("t", "1" * 64)[0].source_version == shown


def test_times_come_back_aware_and_in_utc(ledger: Ledger) -> None:
    ledger.submit([job()])
    created = ledger.jobs()[0].created_at
    assert created.utcoffset() is not None
    assert created.tzname() == "UTC"
    assert abs(created.timestamp() - time.time()) < 60


def test_a_naive_time_is_refused(sqlite_ledger: Ledger) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the mistake under test
    with pytest.raises(sa.exc.StatementError, match="aware datetimes only"), sqlite_ledger.engine.begin() as connection:
        connection.execute(ledger_tables.jobs.update().values(updated_at=naive))


# --- a URL that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "canary", "mysql://me:canary@db/x", "mssql+pyodbc://me:canary@db/x", "sqlite://", "sqlite:///:memory:"],
)
def test_a_url_that_is_none_or_no_ledger_is_refused_at_once(url: str) -> None:
    with pytest.raises(SettingsError, match="GEO_ASSETS_LEDGER_URL") as caught:
        Ledger(url)
    assert "canary" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot be made"):
        Ledger(f"sqlite:///{tmp_path / 'file' / 'ledger.db'}")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("this is a text file, and a longer one than a header of SQLite" * 100)
    started = time.monotonic()
    with pytest.raises(SettingsError, match=r"ledger\.db cannot be used: file is not a database"):
        Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=30)
    assert time.monotonic() - started < 10


def test_a_wrong_password_is_said_at_once_and_never_shown(postgres_url: str) -> None:
    # the server of the tests trusts its own machine, so ask a password of one user
    with contextlib.closing(_connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("show hba_file")
        (hba_file,) = cursor.fetchone()
    if not os.access(hba_file, os.W_OK):
        pytest.skip("the server's own files cannot be changed here")
    wrong = make_url(postgres_url).set(username="geo_locked_out", password="canary")
    before = Path(hba_file).read_text()
    with contextlib.closing(_connect(postgres_url)) as connection, connection.cursor() as cursor:
        cursor.execute("create role geo_locked_out login password 'other'")
        try:
            Path(hba_file).write_text(f"host all geo_locked_out all scram-sha-256\n{before}")
            cursor.execute("select pg_reload_conf()")
            _expect_refusal(wrong.render_as_string(hide_password=False))
        finally:
            Path(hba_file).write_text(before)
            cursor.execute("select pg_reload_conf()")
            cursor.execute("drop role geo_locked_out")


def _expect_refusal(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:  # the server reads its file in its own time
        started = time.monotonic()
        try:
            Ledger(url, patience_seconds=30).close()
        except AccessDeniedError as error:
            assert "GEO_ASSETS_LEDGER_URL" in str(error)  # noqa: PT017 - tried more than once
            assert "canary" not in str(error)  # noqa: PT017
            assert time.monotonic() - started < 10
            return
        except GeoAssetsError:
            pass
        assert time.monotonic() < deadline, "the wrong password was let in"
        time.sleep(0.05)


@pytest.mark.parametrize("part", ["database", "username"])
def test_a_database_or_user_that_is_not_there_is_said_at_once(postgres_url: str, part: str) -> None:
    parts: dict[str, Any] = {"password": "canary", part: "nowhere"}
    url = make_url(postgres_url).set(**parts)
    started = time.monotonic()
    with pytest.raises((SettingsError, AccessDeniedError), match="nowhere") as caught:
        Ledger(url.render_as_string(hide_password=False), patience_seconds=30)
    assert time.monotonic() - started < 10
    assert "canary" not in str(caught.value)


# --- a database that is away -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(ledger: Ledger) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(str(ledger.engine.url.database), isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield connection
    finally:
        connection.close()


def test_an_operation_waits_for_a_locked_sqlite(sqlite_ledger: Ledger) -> None:
    with _locked(sqlite_ledger) as connection:
        worker = threading.Thread(target=sqlite_ledger.submit, args=([job()],))
        worker.start()
        worker.join(0.3)
        assert worker.is_alive()
        connection.execute("ROLLBACK")
    worker.join(30)
    assert sqlite_ledger.jobs()[0].status is JobStatus.QUEUED


def test_a_sqlite_that_stays_locked_is_reported_within_the_patience(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    impatient = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", patience_seconds=0.5)
    started = time.monotonic()
    with _locked(sqlite_ledger), pytest.raises(LedgerUnavailableError, match=r"ledger\.db did not answer for 0\.5 s"):
        impatient.submit([job()])
    assert time.monotonic() - started < 10
    impatient.close()
    assert sqlite_ledger.jobs() == []


def test_reading_goes_on_while_another_writes(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.submit([job()])
    connection = sqlite3.connect(str(sqlite_ledger.engine.url.database), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE jobs SET reason = 'half written'")
    assert sqlite_ledger.jobs()[0].reason is None
    connection.close()


def test_operations_survive_having_their_connections_killed(postgres_url: str) -> None:
    ledger = Ledger(postgres_url, patience_seconds=20)
    ledger.submit([job()])
    stop = threading.Event()
    kills = [0]

    def kill() -> None:
        with contextlib.closing(_connect(postgres_url)) as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where datname = current_database() and application_name = 'geo_assets'"
                )
                kills[0] += cursor.fetchone()[0]
                stop.wait(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        number = 2
        while kills[0] < 5 and number < 5000:
            ledger.submit([job(number)])
            number += 1
    finally:
        stop.set()
        killer.join()
    assert kills[0] >= 5
    assert len(ledger.jobs(limit=None)) == number - 1
    assert all(found.attempts == 1 for found in ledger.jobs(limit=None))
    ledger.close()


def test_an_operation_waits_for_a_postgresql_that_is_away(postgres_url: str) -> None:
    ledger = Ledger(postgres_url, patience_seconds=30)
    with _closed_to_others(postgres_url):
        worker = threading.Thread(target=ledger.submit, args=([job()],))
        worker.start()
        worker.join(0.5)
        assert worker.is_alive()
    worker.join(30)
    assert ledger.jobs()[0].status is JobStatus.QUEUED
    ledger.close()


def test_a_postgresql_that_stays_away_is_reported_without_the_password(postgres_url: str) -> None:
    url = make_url(postgres_url).set(port=1, password="canary")
    with pytest.raises(
        LedgerUnavailableError, match=r"did not answer for 0\.5 s; check that the database is up"
    ) as caught:
        Ledger(url.render_as_string(hide_password=False), patience_seconds=0.5)
    assert "canary" not in str(caught.value)
    assert "queued work is safe" in str(caught.value)


def test_a_postgresql_whose_socket_is_gone_is_away_not_misnamed(tmp_path: Path) -> None:
    # libpq says "No such file or directory" then, which once passed for a missing table
    with pytest.raises(LedgerUnavailableError, match="did not answer"):
        Ledger(f"postgresql+psycopg2://me:canary@/x?host={tmp_path}", patience_seconds=0.3)


@contextlib.contextmanager
def _closed_to_others(url: str) -> Iterator[None]:
    """The database is as if stopped: connections are cut and new ones refused, until the block ends."""
    database = make_url(url).database
    maintenance = make_url(url).set(database="postgres").render_as_string(hide_password=False)
    with contextlib.closing(_connect(maintenance)) as connection, connection.cursor() as cursor:
        cursor.execute(f'alter database "{database}" with allow_connections false')
        cursor.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (database,))
        try:
            yield
        finally:
            cursor.execute(f'alter database "{database}" with allow_connections true')


def _connect(url: str) -> Any:
    connection = psycopg2.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))
    connection.autocommit = True
    return connection
