"""``sources list``, ``check``, ``look``, ``again``, ``forget``, ``schema``: what is foretold happens."""

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from geo_assets.cli.opening import open_instance
from geo_assets.cli.sources_commands import _next
from geo_assets.containers import buckets
from geo_assets.settings import get_settings
from geo_assets.sources import preview
from geo_assets.sources.source import Source
from tests.cli.conftest import Run

SOURCES = """
sources:
  - name: images
    container: maps
    workflow: validate_raster_job
  - name: tables
    container: maps
    workflow: ingest_vector
  - name: whole
    container: maps
    workflow: summarize_container
"""


@pytest.fixture
def maps(containers: Path) -> Path:
    """The container of real files, watched by three sources."""
    path = get_settings().sources_path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SOURCES)
    return containers / "maps"


def by_name(rows: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    return {str(row["source"]): row for row in rows}


def counts(row: dict[str, object]) -> dict[str, object]:
    names = ("seen", "new", "changed", "returned", "unchanged", "removed")
    return {name: row[name] for name in names if row[name]}


def test_what_is_foretold_is_what_happens(run: Run, maps: Path) -> None:
    foretold = run("sources", "check", "--dry-run", "--json")
    assert foretold.status == 0
    again = run("sources", "check", "--json")
    assert again.json == foretold.json, "nothing was written"
    assert not (get_settings().home_path / "ledger.db").exists(), "not even an empty ledger"
    before = by_name(foretold.json)
    assert before["images"]["matched"] == {"raster": 2}
    assert before["images"]["unmatched"] == {"vector": 1}
    assert {name: row["jobs"] for name, row in before.items()} == {"images": 2, "tables": 1, "whole": 1}
    assert all(row["waves"] == 1 for row in before.values())
    jobs = run("jobs", "--json")
    assert jobs.json == []
    done = by_name(run("sources", "look", "--json").json)
    for name, row in before.items():
        assert counts(done[name]) == counts(row), name
        assert done[name]["jobs"] == row["jobs"], name
    queued = {(job["jobType"], job["partitionKey"]): job["parameters"] for job in run("jobs", "--json").json}
    assert len(queued) == 4
    for row in before.values():
        source = {"images": "validate_raster_job", "tables": "ingest_vector", "whole": "summarize_container"}
        for job in row["jobSample"]:  # type: ignore[attr-defined]
            assert job["parameters"].items() <= queued[source[str(row["source"])], job["partition"]].items()
    after = by_name(run("sources", "check", "--dry-run", "--json").json)
    assert {name: row["jobs"] for name, row in after.items()} == {"images": 0, "tables": 0, "whole": 0}


def test_changes_are_foretold_too(run: Run, maps: Path) -> None:
    run("sources", "look")
    shutil.copy(maps / "world_byte_4326.tif", maps / "new.tif")
    shutil.copy(maps / "world_byte_4326.tif", maps / "sub folder" / "alpha_3857.tif")
    (maps / "world_byte_4326.tif").unlink()
    foretold = by_name(run("sources", "check", "images", "whole", "--dry-run", "--json").json)
    assert counts(foretold["images"]) == {"seen": 2, "new": 1, "changed": 1, "removed": 1}
    assert counts(foretold["whole"]) == {"seen": 3, "new": 1, "changed": 1, "unchanged": 1, "removed": 1}
    assert (foretold["images"]["jobs"], foretold["whole"]["jobs"]) == (2, 1)
    done = by_name(run("sources", "look", "images", "--json").json)
    assert counts(done["images"]) == counts(foretold["images"])


def test_what_an_edit_leaves_as_it_is_is_told_and_made_anew_when_somebody_says_so(run: Run, maps: Path) -> None:
    assert run("sources", "again", "tables", "--execute").stdout == "tables: 0 entries wait again\n"
    assert not (get_settings().home_path / "ledger.db").exists(), "nothing is made for nothing"
    run("sources", "look", "tables")
    encoded = SOURCES.replace("workflow: ingest_vector", "workflow: ingest_vector\n    parameters: {encoding: cp1252}")
    get_settings().sources_path.write_text(encoded)
    keeps = "1 entry keeps what other parameters made: 'geo-assets sources again tables --outdated' makes it anew"
    listed = run("sources", "list").stdout
    assert "tables: it was changed since it looked last" in listed
    assert f"tables: {keeps}" in listed
    assert f"  and: {keeps}" in run("sources", "check", "tables").stdout
    assert run("sources", "look", "tables").stdout.endswith(f"tables: {keeps}\n")
    dry = run("sources", "again", "tables", "--outdated")
    assert dry.stdout == "tables: 1 entry that other parameters made would wait again\n"
    assert "nothing was changed; add --execute" in dry.stderr
    done = run("sources", "again", "tables", "--outdated", "--execute", "--json").json
    assert done == {"source": "tables", "executed": True, "outdated": True, "entries": 1}
    foretold = run("sources", "check", "tables", "--json").json[0]
    assert (foretold["jobs"], foretold["outdated"], foretold["waiting"]) == (1, 0, 1)
    assert foretold["jobSample"][0]["parameters"]["encoding"] == "cp1252"
    row = run("sources", "list", "--json").json[1]
    assert (row["edited"], row["outdated"], row["states"]["waiting"]) == (False, 0, 1)


def test_what_will_not_become_a_job_is_told_with_its_reason(run: Run, maps: Path) -> None:
    for name in ("roads.shp", "---.csv", "sub folder/swiss_cities.geojson", "bad\tname.kml"):
        (maps / name).write_text("{}")
    get_settings().sources_path.write_text(
        SOURCES.replace("workflow: ingest_vector", "workflow: ingest_vector\n    stable_for: 1h")
    )
    told = run("sources", "check", "tables", "--dry-run")
    assert told.status == 1
    for line in (
        "match: 5 (5 vector)",
        "do not match: 2 (2 raster): sub folder/alpha_3857.tif, world_byte_4326.tif",
        "would be queued: 1 job in 1 wave of 1,000, each once it is 3600 s unchanged",
        "roads.shp: waits for .shx .dbf beside it",
        "---.csv: no table can be called after '---'",
        "'sub folder/swiss_cities.geojson' makes geo.swiss_cities, too",
        "holds a control character",
    ):
        assert line in told.stdout, told.stdout
    assert "tables: nothing was written" in told.stderr
    row = run("sources", "check", "tables", "--dry-run", "--json", "--limit", "0").json[0]
    assert (row["refused"], row["collisions"], row["incomplete"], row["jobs"]) == (2, 1, 1, 1)
    assert row["refusedSample"] == row["jobSample"] == row["collisionSample"] == []
    # what waits until it is stable is foretold again
    assert run("sources", "look", "tables", "--json").json[0]["jobs"] == 0
    row = run("sources", "check", "tables", "--dry-run", "--json").json[0]
    assert (row["waiting"], row["unchanged"], row["jobs"]) == (4, 5, 1)


def test_many_names_go_through_files(run: Run, maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        (maps / f"{number:02}.tif").write_bytes(b"")
    monkeypatch.setattr(buckets, "_IN_MEMORY", 10)
    monkeypatch.setattr(preview, "_MOST_TRIED", 50)
    monkeypatch.setenv("GEO_ASSETS_PARTITION_KEYS_LIMIT", "60")
    monkeypatch.setenv("GEO_ASSETS_WAVE_SIZE", "10")
    get_settings.cache_clear()
    row = run("sources", "check", "images", "--dry-run", "--json").json[0]
    assert (row["seen"], row["jobs"], row["untried"], row["waves"], row["overKeysLimit"]) == (62, 50, 12, 7, 2)
    told = run("sources", "check", "images", "--dry-run")
    assert "62 jobs in 7 waves of 10, 12 of them not tried against the rules" in told.stdout
    assert "2 partition keys more than GEO_ASSETS_PARTITION_KEYS_LIMIT" in told.stderr


def test_one_source_that_cannot_be_looked_at_does_not_hide_the_others(run: Run, maps: Path) -> None:
    path = get_settings().sources_path
    path.write_text(SOURCES.replace("container: maps", "container: elsewhere", 1))
    for command in ("check", "look"):
        ended = run("sources", command, "--json")
        assert ended.status == 3
        rows = by_name(ended.json)
        assert rows["images"]["error"] == "ContainerNotFoundError"
        assert rows["tables"]["seen"] == 1
        assert "images: container 'elsewhere' does not exist" in ended.stderr
    assert "images: container 'elsewhere' does not exist" in run("sources", "list").stdout


def test_list_shows_how_sources_stand(run: Run, maps: Path) -> None:
    listed = run("sources", "list", "--json").json
    assert [(row["name"], row["lookedAt"], row["activeJobs"]) for row in listed] == [
        ("images", None, 0),
        ("tables", None, 0),
        ("whole", None, 0),
    ]
    assert not (get_settings().home_path / "ledger.db").exists(), "looking makes nothing"
    (maps / "---.kml").write_text("")
    assert run("sources", "look").status == 1
    held = run("sources", "check", "tables", "--dry-run")
    assert held.status == 1
    assert "---.kml: no table can be called after" in held.stdout, "the reason is told as long as it stands"
    rows = {row["name"]: row for row in run("sources", "list", "--json").json}
    assert rows["tables"]["states"] == {
        **dict.fromkeys(("done", "failed", "waiting", "gone"), 0),
        "atWork": 1,
        "refused": 1,
    }
    assert rows["images"]["activeJobs"] == 2
    assert rows["images"]["lookedAt"] < rows["images"]["next"]
    get_settings().sources_path.write_text(SOURCES + "    paused: true\n")
    shown = run("sources", "list").stdout
    assert "when its sensor is switched on" in shown
    assert "never" not in shown
    # the switch in the UI counts
    target = LoadableTargetOrigin(executable_path=sys.executable, module_name="geo_assets.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(loadable_target_origin=target, location_name="geo_assets")
    with open_instance() as instance:
        for name, status in (("images", InstigatorStatus.STOPPED), ("whole", InstigatorStatus.RUNNING)):
            origin = RemoteRepositoryOrigin(location, "__repository__").get_instigator_origin(f"source_{name}")
            instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status))
    rows = {row["name"]: row for row in run("sources", "list", "--json").json}
    assert {name: row["paused"] for name, row in rows.items()} == {"images": True, "tables": False, "whole": False}
    assert (rows["images"]["next"], rows["whole"]["lookedAt"] < rows["whole"]["next"]) == (None, True)


def test_a_healthy_source_is_never_called_overdue() -> None:
    now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    row = {"paused": False, "error": None, "byRun": False}
    due = {minutes: now + timedelta(minutes=minutes) for minutes in (-9, -2, 1)}
    assert [_next({**row, "next": moment}, now).split(":")[0] for moment in due.values()] == [
        "overdue since 2026-05-01 11",
        "now",
        "2026-05-01 12",
    ]
    assert _next({**row, "next": due[-9], "byRun": True}, now) == "when a run has listed it"
    assert _next({**row, "next": due[-9], "error": "gone"}, now) == "at each tick, until it is well"


def test_what_a_source_left_behind_is_forgotten_when_somebody_says_so(run: Run, maps: Path) -> None:
    assert run("sources", "look", "tables", "images").status == 0
    refused = run("sources", "forget", "tables")
    assert (refused.status, "is configured, and would begin anew" in refused.stderr) == (2, True)
    get_settings().sources_path.write_text(SOURCES.replace("name: images", "name: pictures"))
    assert "'geo-assets sources forget images'" in run("sources", "list").stderr
    assert run("sources", "check", "pictures", "--json").json[0]["jobs"] == 2, "the old name holds nothing"
    shown = run("sources", "forget", "images", "--json").json
    assert shown == {
        "source": "images",
        "executed": False,
        "entries": 2,
        "states": {**dict.fromkeys(("done", "failed", "waiting", "refused", "gone"), 0), "atWork": 2},
    }
    assert "images: forgot 2 entries (2 at work)" in run("sources", "forget", "images", "--execute").stdout
    assert "forget images" not in run("sources", "list").stderr
    missing = run("sources", "forget", "images")
    assert (missing.status, "those that saw something: tables" in missing.stderr) == (3, True)


def test_usage(run: Run, maps: Path) -> None:
    missing = run("sources", "check", "imagery")
    assert (missing.status, missing.stderr) == (
        3,
        "geo-assets: there is no source 'imagery'; there are: images, tables, whole\n",
    )
    get_settings().sources_path.write_text(SOURCES + "    ever: 5m\n")
    for arguments in (("list",), ("check",), ("look",)):
        bad = run("sources", *arguments, "--json")
        assert bad.status == 2
        assert "unknown key `ever`: did you mean `every`?" in bad.json["message"]
    get_settings().sources_path.write_text(SOURCES + "    parameters: {file_limits: 5}\n")
    told = run("sources", "list", "--json").json["message"]
    assert "sources.yaml: source 'whole': summarize_container: unknown parameter 'file_limits'; it takes:" in told
    assert told.endswith("; did you mean 'file_limit'?")


def test_without_sources_it_says_where_they_belong(run: Run) -> None:
    for arguments in (("list",), ("check",), ("look",)):
        ended = run("sources", *arguments)
        assert ended.status == 0
        assert str(get_settings().sources_path) in ended.stderr
        assert run("sources", *arguments, "--json").json == []


@pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")
def test_components_are_sources_too(run: Run, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "defs" / "scans"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(
        "type: geo_assets.BlobSource\nattributes: {name: scans, container: maps, workflow: stac_catalog_raster}\n"
    )
    monkeypatch.setenv("GEO_ASSETS_DEFS", str(tmp_path / "defs"))
    get_settings.cache_clear()
    assert [row["name"] for row in run("sources", "list", "--json").json] == ["images", "tables", "whole", "scans"]


def test_the_schema_is_what_a_file_holds(run: Run) -> None:
    schema = json.loads(run("sources", "schema").stdout)
    items = schema["properties"]["sources"]["items"]
    assert set(items["properties"]) == set(Source.model_fields)
    assert items["required"] == ["name", "container", "workflow"]
    assert items["properties"]["every"]["anyOf"] == [{"type": "number"}, {"type": "string"}]
