"""docs/assets.md names every asset, check, job, sensor and schedule with its purpose; docs/new-workflow.md runs."""

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from geo_assets.assets.source_presence import tell_presence
from geo_assets.build import build_definitions
from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE
from geo_assets.coremachine.contract import JobStatus, check_contract
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_keys
from geo_assets.settings import Settings, get_settings
from geo_assets.sources.source import Source
from geo_assets.sources.tick import tick
from tests.services.found import REPOSITORY

PAGE = (REPOSITORY / "docs" / "assets.md").read_text()
NEW_WORKFLOW = (REPOSITORY / "docs" / "new-workflow.md").read_text()
_SOURCE = Source(name="coast", container="coast-2024", workflow="process_raster")
_SETTINGS = Settings(
    events_queue="blob-events",
    azure_connection_string="AccountName=archive;AccountKey=Y2FuYXJ5",
    failure_webhook="https://hooks.example.org/",
)


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    return build_definitions(settings=_SETTINGS, sources=[_SOURCE])


def _rows(section: str) -> dict[str, str]:
    """Name → purpose, of the table under a heading."""
    table = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {name: row[-1] for row in cells[2:] for name in re.findall(r"`([^`]+)`", row[0])}


def _named(names: set[str], page: dict[str, str]) -> None:
    """The page names these and no others, each with what it is for."""
    assert set(page) == {name.replace("coast", "<name>") for name in names}
    assert all(len(purpose) > 20 for purpose in page.values())


def test_every_asset_has_a_paragraph(defs: dg.Definitions) -> None:
    paragraphs = dict(re.findall(r"\n### `([^`]+)`\n\n(.*?)(?=\n\n)", PAGE, re.DOTALL))
    specs = {spec.key.to_user_string().replace("coast", "<name>"): spec for spec in defs.resolve_all_asset_specs()}
    _named({spec.key.to_user_string() for spec in specs.values()}, paragraphs)
    for name, spec in specs.items():
        assert f"Group `{spec.group_name}`" in paragraphs[name]
        if job_type := spec.tags.get("geo_assets/job_type"):
            assert f"`{job_type}`" in paragraphs[name] or job_type == "hello_world"


def test_every_check_is_named_with_its_assets(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    rows = _rows("Checks")
    _named({key.name for key in graph.asset_check_keys}, rows)
    blocking = {key.name for key in graph.asset_check_keys if graph.get_check_spec(key).blocking}
    assert blocking == {name for name, text in rows.items() if text.endswith("; blocking")}


def test_every_job_sensor_and_schedule_is_named(defs: dg.Definitions) -> None:
    repository = defs.get_repository_def()
    jobs = {job.name for job in repository.get_all_jobs()}  # resolves all, so two of one name would be seen
    _named(jobs - {"__ASSET_JOB"}, _rows("Jobs"))
    rows = _rows("Sensors and schedules")
    started = {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs}
    started |= {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs}
    _named(set(started), rows)
    for name, status in started.items():
        shown = name.replace("coast", "<name>")
        (at_first,) = re.findall(rf"\| `{re.escape(shown)}` \| (on|off)\b", PAGE)
        assert at_first == {"RUNNING": "on", "STOPPED": "off"}[status], name


# --- docs/new-workflow.md ----------------------------------------------------------------------------------------


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The page's example in a folder of its own, registered as the page says."""
    (source,) = re.findall(r"```python\n(.*?)```", NEW_WORKFLOW, re.DOTALL)
    (tmp_path / "line_counts.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name, value in re.findall(r"(GEO_ASSETS_\w+)=(\S+)", NEW_WORKFLOW):
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    del sys.modules["line_counts"]


def test_the_example_is_short() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", NEW_WORKFLOW, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) < 40


@pytest.mark.usefixtures("team")
def test_the_example_is_submitted_and_fed_by_a_source_runs_and_shows_green_and_red() -> None:
    containers = get_settings().blob_root_path / "notes"
    containers.mkdir(parents=True)
    (containers / "readme.txt").write_text("one\ntwo\nthree\n")
    (containers / "picture.png").write_bytes(b"\x89PNG\0")
    (block,) = re.findall(r"```yaml\n(.*?)```", NEW_WORKFLOW, re.DOTALL)
    (source,) = [Source.model_validate(keys) for keys in yaml.safe_load(block)["sources"]]
    defs = build_definitions(sources=[source])
    spec = next(spec for spec in defs.resolve_all_asset_specs() if spec.key == dg.AssetKey("line_count"))
    assert (spec.group_name, spec.kinds) == ("texts", {"python"})
    machine: CoreMachine = defs.resources[MACHINE].machine()  # type: ignore[index]
    assert check_contract(machine.registry["count_lines"].workflow).complete
    submit_keys(machine, "count_lines", keys=["notes/picture.png"])
    assert tick(machine, source).turned.queued == 1
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [
            defs.resolve_job_def(asked.job_name).execute_in_process(
                instance=instance, tags=dict(asked.tags), raise_on_error=False
            )
            for asked in dispatch.tick(machine, instance).runs
        ]
        assert {run.success for run in runs} == {True, False}  # one of two is no text
        assert instance.get_materialized_partitions(dg.AssetKey("line_count")) == {"notes/readme.txt"}
        again = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance, asset_selection=[dg.AssetKey("line_count")], partition_key="notes/readme.txt"
        )
        assert again.success
        (containers / "readme.txt").unlink()
        tick(machine, source)
        assert tell_presence(machine, instance, source) == (1, 0)
        said = instance.fetch_observations(dg.AssetKey("line_count"), limit=1).records[0]
        assert said.asset_observation is not None
        assert (said.partition_key, said.asset_observation.metadata["geo/state"].value) == ("notes/readme.txt", "gone")
        nobodys = dg.AssetCheckKey(dg.AssetKey("line_count"), "source_present")
        assert instance.event_log_storage.get_asset_check_execution_history(nobodys, limit=1) == []
    good, bad = (
        machine.ledger.latest_job("line_count", f"notes/{name}", "count_lines")
        for name in ("readme.txt", "picture.png")
    )
    assert good is not None
    assert bad is not None
    assert good.result_data == {"blob": "notes/readme.txt", "lines": 3}
    assert (bad.status, bad.reason) == (JobStatus.FAILED, "notes/picture.png is no text: it holds NUL bytes")
