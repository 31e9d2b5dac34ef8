"""Where Dagster's instance is, and that its configuration comes along."""

import os
from pathlib import Path

import pytest
import yaml

from geo_assets.coremachine.dispatch import BULK_TAG
from geo_assets.dagster_home import ensure_dagster_home, packaged_file, workspace_file
from geo_assets.errors import SettingsError
from geo_assets.settings import get_settings
from tests.services.found import REPOSITORY

OURS = (REPOSITORY / "dagster.yaml").read_text()


def test_unset_it_is_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEO_ASSETS_HOME", "some home")
    get_settings.cache_clear()
    folder = ensure_dagster_home(get_settings())
    assert folder == tmp_path / "some home" / "dagster"
    assert (folder / "dagster.yaml").read_text() == OURS
    assert os.environ["DAGSTER_HOME"] == str(folder)
    assert os.environ["GEO_ASSETS_HOME"] == str(tmp_path / "some home")


def test_given_it_is_honoured_and_gets_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "given"))
    assert ensure_dagster_home(get_settings()) == tmp_path / "given"
    assert (tmp_path / "given" / "dagster.yaml").read_text() == OURS


def test_what_is_there_is_never_overwritten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_text("mine: true\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    ensure_dagster_home(get_settings())
    assert (tmp_path / "dagster.yaml").read_text() == "mine: true\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("dagster.yaml")] == ["dagster.yaml"]


def test_a_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "file" / "below"))
    with pytest.raises(SettingsError, match="DAGSTER_HOME"):
        ensure_dagster_home(get_settings())


def test_the_workspace_names_the_code_location(tmp_path: Path) -> None:
    assert "location_name: geo_assets" in workspace_file(tmp_path).read_text()
    assert packaged_file("workspace.yaml") == (REPOSITORY / "workspace.yaml").read_text()


@pytest.mark.parametrize("file", ["dagster.yaml", "deploy/dagster-postgres.yaml"])
def test_bulk_leaves_runs_free_for_people(file: str) -> None:
    runs = yaml.safe_load((REPOSITORY / file).read_text())["concurrency"]["runs"]
    limits = {one["key"]: one["limit"] for one in runs["tag_concurrency_limits"]}
    assert limits[BULK_TAG] == runs["max_concurrent_runs"] - 2 > 0
