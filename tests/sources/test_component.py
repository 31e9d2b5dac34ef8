"""``geo_assets.BlobSource``: ten lines of ``defs.yaml``, in our own code location and in a ``dg`` project of others."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.core.package_entry import discover_package_objects
from dagster.components.scaffold.scaffold import NoParams, get_scaffolder
from dagster_shared.serdes.objects import EnvRegistryKey

import geo_assets
from geo_assets.build import build_definitions
from geo_assets.errors import SettingsError
from geo_assets.settings import get_settings
from tests.services.found import REPOSITORY

# Dagster's own way of reading components
pytestmark = [
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]

TEN_LINES = """\
type: geo_assets.BlobSource
attributes:
  name: aerials
  container: "{{ env.AERIALS_CONTAINER }}"
  match: "**/*.tif"
  workflow: process_raster
  parameters:
    collection_id: aerials-{stem}
  stable_for: 60s
  every: 5m
"""
PROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "others_project"
"""


@pytest.fixture
def defs_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the settings name, with one component in it."""
    folder = tmp_path / "defs"
    (folder / "imagery" / "aerials").mkdir(parents=True)
    (folder / "imagery" / "aerials" / "defs.yaml").write_text(TEN_LINES)
    monkeypatch.setenv("GEO_ASSETS_DEFS", str(folder))
    monkeypatch.setenv("AERIALS_CONTAINER", "bronze")
    get_settings.cache_clear()
    return folder


@pytest.fixture
def others_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project of ``dg`` that has nothing but a source."""
    project = tmp_path / "others"
    (project / "others_project" / "defs" / "aerials").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PROJECT)
    for module in ("others_project", "others_project/defs"):
        (project / module / "__init__.py").write_text('"""Theirs."""\n')
    (project / "others_project" / "defs" / "aerials" / "defs.yaml").write_text(TEN_LINES)
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("AERIALS_CONTAINER", "bronze")
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] == "others_project"]:
        del sys.modules[name]


def sensors_of(defs: dg.Definitions) -> set[str]:
    return {sensor.name for sensor in defs.sensors or ()}


def test_our_code_location_has_the_sensor_and_the_asset(defs_folder: Path) -> None:
    without = build_definitions(sources=())
    defs = build_definitions()
    dg.Definitions.validate_loadable(defs)
    assert sensors_of(defs) - sensors_of(without) == {"source_aerials"}
    graph = defs.resolve_asset_graph()
    at_the_root = graph.get(dg.AssetKey(["source", "aerials"]))
    assert at_the_root.metadata["geo/container"] == "bronze"  # as the environment says
    assert dg.AssetKey("cog") in at_the_root.child_keys
    assert at_the_root.metadata["geo/sensor"] == dg.MetadataValue.url("/locations/geo_assets/sensors/source_aerials")


def test_a_project_of_others_loads_it(others_project: Path) -> None:
    theirs = dg.load_from_defs_folder(path_within_project=others_project)
    assert sensors_of(theirs) == {"source_aerials"}
    whole = build_definitions(components=dg.ComponentTree.for_project(others_project))
    dg.Definitions.validate_loadable(whole)
    assert "source_aerials" in sensors_of(whole)
    at_the_root = whole.resolve_asset_graph().get(dg.AssetKey(["source", "aerials"]))
    assert at_the_root.metadata["geo/sensor"] == "source_aerials", "what their code location is called, nobody knows"


def test_no_folder_of_components_is_no_component() -> None:
    assert sensors_of(build_definitions()) == sensors_of(build_definitions(sources=()))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("colour: red", "defs.yaml:11: unknown key `colour`: there are name, "),
        ("exclude: '{a'", "defs.yaml:11: `exclude`: the glob '{a' has braces"),
        ("when_removed: delete", "defs.yaml:11: `when_removed`: Input should be 'keep' or 'unpublish'"),
        ("extract: '(?P<x>a'", "`extract`: the pattern '(?P<x>a' cannot be used: unclosed group"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_line(defs_folder: Path, line: str, told: str) -> None:
    (defs_folder / "imagery" / "aerials" / "defs.yaml").write_text(f"{TEN_LINES}  {line}\n")
    with pytest.raises(SettingsError) as refused:
        build_definitions()
    assert told in str(refused.value)


def test_components_and_files_are_checked_together(defs_folder: Path) -> None:
    file = get_settings().sources_path
    file.parent.mkdir(parents=True)
    file.write_text("sources: [{name: tiffs, container: bronze, workflow: process_raster}]")
    with pytest.raises(SettingsError, match="sources 'tiffs' and 'aerials' both watch 'bronze/'"):
        build_definitions()


def test_a_file_that_cannot_be_used_stops_the_code_location(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("sources: [{name: a, container: b, workflow: proces_raster}]")
    monkeypatch.setenv("GEO_ASSETS_SOURCES", str(tmp_path / "s.yaml"))
    get_settings.cache_clear()
    with pytest.raises(
        SettingsError,
        match=r"s\.yaml: source 'a': `workflow`: there is no 'proces_raster': did you mean",
    ):
        build_definitions()


def test_a_file_that_was_set_and_is_away_is_no_empty_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEO_ASSETS_SOURCES", str(tmp_path / "away.yaml"))
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"GEO_ASSETS_SOURCES: there is nothing at .*away\.yaml"):
        build_definitions()


def test_a_folder_that_is_not_there_is_no_empty_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GEO_ASSETS_DEFS", str(tmp_path / "nowhere"))
    get_settings.cache_clear()
    with pytest.raises(SettingsError, match=r"GEO_ASSETS_DEFS: there is no folder .*nowhere"):
        build_definitions()


def test_dg_finds_it_by_name() -> None:
    assert EnvRegistryKey(namespace="geo_assets", name="BlobSource") in discover_package_objects(["geo_assets"])
    assert geo_assets.BlobSource.get_description().startswith("A watched container")
    with pytest.raises(AttributeError, match="no attribute 'BlobSauce'"):
        _ = geo_assets.BlobSauce


def test_the_package_stays_a_plain_library() -> None:
    program = "import geo_assets, sys; assert 'BlobSource' in dir(geo_assets); print('dagster' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert ran.stdout == "False\n"


def test_what_dg_scaffolds_can_be_loaded_as_it_is(defs_folder: Path) -> None:
    shutil.rmtree(defs_folder / "imagery")  # which watches the same container
    new = defs_folder / "Scans 2026"
    new.mkdir()
    request = dg.ScaffoldRequest(
        type_name="geo_assets.BlobSource",
        target_path=new,
        scaffold_format="yaml",
        project_root=defs_folder.parent,
        params=NoParams(),
        append=False,
    )
    scaffolder = get_scaffolder(geo_assets.BlobSource)
    assert isinstance(scaffolder, dg.Scaffolder)
    scaffolder.scaffold(request)
    assert "source_scans_2026" in sensors_of(build_definitions())
