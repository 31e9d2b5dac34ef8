"""What docs/operate.md and deploy/ tell operators is so: the table of settings, and the PostgreSQL instance.

``python -m tests.test_operate`` writes the table of settings anew.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import dagster as dg
import pytest
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster_azure.blob.compute_log_manager import AzureBlobComputeLogManager
from dagster_postgres import PostgresEventLogStorage, PostgresRunStorage, PostgresScheduleStorage
from pydantic_core import PydanticUndefined
from sqlalchemy.engine import make_url

from geo_assets.build import build_definitions
from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from geo_assets.settings import Settings, get_settings

ROOT = Path(__file__).resolve().parents[1]
OPERATE = ROOT / "docs" / "operate.md"
BEGIN, END = "<!-- settings: begin -->\n", "<!-- settings: end -->\n"

_SECTION = re.compile(r"^    # ([A-Z].*)$")


def settings_table() -> str:
    """The settings as tables, a section each as the class has them, from names, defaults and descriptions."""
    lines: list[str] = []
    for section, names in _sections():
        lines += ["", f"### {section}", "", "| variable | default | means |", "|---|---|---|"]
        lines += [f"| `GEO_ASSETS_{name.upper()}` | {_default(name)} | {_meaning(name)} |" for name in names]
    return "\n".join([*lines, "", ""])


def _sections() -> list[tuple[str, list[str]]]:
    """Comments of the class that stand alone and begin with a capital are headings."""
    found: list[tuple[str, list[str]]] = [("All embedded state", [])]
    source = (ROOT / "geo_assets" / "settings.py").read_text(encoding="utf-8")
    body = source[source.index("class Settings(") : source.index("    @property")]
    for line in body.splitlines():
        if heading := _SECTION.match(line):
            found.append((heading[1], []))
        name = line.strip().partition(":")[0]
        if line.startswith("    ") and name in Settings.model_fields:
            found[-1][1].append(name)
    return [(section, names) for section, names in found if names]


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    # PydanticUndefined: a factory makes it, and the description says from what
    return "-" if field.default is None or field.default is PydanticUndefined else f"`{field.default}`"


def _meaning(name: str) -> str:
    field = Settings.model_fields[name]
    bounds = {
        "ge": "at least {:g}",
        "gt": "more than {:g}",
        "le": "at most {:g}",
        "lt": "less than {:g}",
    }
    said = [
        text.format(getattr(rule, bound))
        for rule in field.metadata
        for bound, text in bounds.items()
        if hasattr(rule, bound)
    ]
    if get_origin(field.annotation) is Literal:
        said = ["one of " + ", ".join(f"`{choice}`" for choice in get_args(field.annotation))]
    limits = f" ({', '.join(said)})" if said else ""
    return f"{field.description}{limits}".replace("|", "\\|")


def test_the_table_of_settings_is_up_to_date() -> None:
    told = OPERATE.read_text(encoding="utf-8")
    inside = told[told.index(BEGIN) + len(BEGIN) : told.index(END)]
    assert inside == settings_table(), "write it anew: .venv/bin/python -m tests.test_operate"


def test_the_table_has_every_setting_once() -> None:
    names = [name for _, section in _sections() for name in section]
    assert sorted(names) == sorted(Settings.model_fields)


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)", OPERATE.read_text(encoding="utf-8")):
        assert (OPERATE.parent / target).exists(), target


def test_messages_quoted_under_trouble_are_ours() -> None:
    """What stands in “…” among the symptoms can be found in the code, so that operators find it on the page."""
    told = OPERATE.read_text(encoding="utf-8")
    rows = [row for row in told[told.index("## Trouble") :].splitlines() if row.startswith("| ")]
    quoted = [message for row in rows for message in re.findall(r"“([^”]+)”", row.split("|")[1])]
    assert len(quoted) > 5
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "geo_assets").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", code)  # literals that go on in the next line
    for message in quoted:
        for piece in message.split("…"):
            assert piece.strip() in joined, f"no message of ours reads “{message}”"


# --- the PostgreSQL instance -------------------------------------------------------------------------------------


@pytest.fixture
def dagster_home(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A DAGSTER_HOME with deploy/dagster-postgres.yaml, and the environment it wants."""
    url = make_url(postgres_url)
    environment = {
        "DAGSTER_PG_HOST": str(url.host),
        "DAGSTER_PG_PORT": str(url.port),
        "DAGSTER_PG_USER": str(url.username),
        "DAGSTER_PG_PASSWORD": str(url.password or "canary-password"),
        "DAGSTER_PG_DB": str(url.database),
        "DAGSTER_LOGS_ACCOUNT": "canaryaccount",
        "DAGSTER_LOGS_CONTAINER": "logs",
        "GEO_ASSETS_LEDGER_URL": postgres_url,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    home = tmp_path / "postgres_instance"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "deploy" / "dagster-postgres.yaml").read_text(encoding="utf-8"))
    return home


def test_the_postgres_instance_is_what_it_says(dagster_home: Path) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        assert isinstance(instance.event_log_storage, PostgresEventLogStorage)
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert isinstance(instance.schedule_storage, PostgresScheduleStorage)
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        assert isinstance(instance.compute_log_manager, AzureBlobComputeLogManager)
        assert not instance.telemetry_enabled
        assert instance.run_monitoring_enabled
        # only the ledger runs work again
        assert instance.run_retries_enabled
        assert instance.run_retries_max_retries == 0
        assert not instance.run_retries_retry_on_asset_or_op_failure
        instance.add_dynamic_partitions("greetings", ["one"])
        assert instance.get_dynamic_partitions("greetings") == ["one"]
        assert "canary-password" not in instance.info_str()


def test_a_wave_runs_with_instance_and_ledger_in_one_postgres_database(dagster_home: Path) -> None:
    file = dagster_home / "dagster.yaml"
    without, found = re.subn(r"(?m)^compute_logs:\n(?: .*\n)+", "", file.read_text(encoding="utf-8"))
    assert found == 1  # there is no Azure here
    file.write_text(without, encoding="utf-8")
    defs = build_definitions()
    resources = defs.resources or {}
    machine: CoreMachine = resources[MACHINE].machine()
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        answers = submit_many(machine, "hello_world", [{"n": 1, "message": f"Hello {number}"} for number in range(25)])
        (asked,) = dispatch.tick(machine, instance).runs
        result = defs.resolve_job_def(asked.job_name).execute_in_process(instance=instance, tags=dict(asked.tags))
        assert result.success
        assert {job.status for job in machine.ledger.jobs()} == {JobStatus.COMPLETED}
        keys = {answer.job.partition_key for answer in answers}
        assert set(instance.get_materialized_partitions(dg.AssetKey("hello_world"))) == keys
    machine.ledger.close()


# --- the multiprocess executor -----------------------------------------------------------------------------------


def test_the_multiprocess_executor_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_EXECUTOR", "multiprocess")
    monkeypatch.setenv("GEO_ASSETS_JOB_CHUNK_SIZE", "10")
    get_settings.cache_clear()
    resources = build_definitions().resources or {}
    machine: CoreMachine = resources[MACHINE].machine()
    with dg.DagsterInstance.get() as instance:
        submit_many(machine, "hello_world", [{"n": 2, "message": f"Hello {number}"} for number in range(25)])
        (asked,) = dispatch.tick(machine, instance).runs
        command = [
            *(sys.executable, "-W", "ignore", "-m", "dagster", "job", "execute", "-m", "geo_assets.definitions"),
            *("-j", asked.job_name, "--tags", json.dumps(dict(asked.tags))),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        (run,) = instance.get_runs()
        processes = {
            entry.get_dagster_event().step_key: entry.get_dagster_event().engine_event_data.metadata["pid"].value
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_WORKER_STARTED)
        }
    assert {job.status for job in machine.ledger.jobs()} == {JobStatus.COMPLETED}
    assert machine.ledger.run_outcomes(run.run_id) == {"created": 25}
    # plan, three chunks of jobs, settle: a process each
    assert len(processes) == 5
    assert len(set(processes.values())) == 5
    machine.ledger.close()


if __name__ == "__main__":
    page = OPERATE.read_text(encoding="utf-8")
    OPERATE.write_text(
        page[: page.index(BEGIN) + len(BEGIN)] + settings_table() + page[page.index(END) :], encoding="utf-8"
    )
