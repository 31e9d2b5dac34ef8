"""``geo-assets clean-up``, and what the other commands say of tasks that are gone."""

from pathlib import Path

import pytest

from geo_assets.settings import get_settings
from tests.cli.conftest import Run


def test_the_command_does_the_same(run: Run) -> None:
    assert run("submit", "hello_world", "--wait").status == 0
    words = ("clean-up", "--keep-run-days", "0", "--keep-task-days", "0", "--json")
    dry = run(*words, "--dry-run").json
    assert dry["dryRun"]
    assert {one["what"]: one["number"] for one in dry["removed"]}["tasks"] == 6
    assert run(*words).json == {"dryRun": False, "removed": dry["removed"]}
    job_id = run("jobs", "--json").json[0]["jobId"]
    status = run("status", job_id, "--json").json
    assert (status["taskCounts"]["completed"], status["tasksRemoved"]) == (6, True)
    assert "cleaned up" in run("status", job_id).stdout
    assert "cleaned up" in run("tasks", job_id).stderr
    assert "closed waves" in run(*words[:-1]).stdout


def test_it_does_not_go_by_what_sources_say_when_these_are_mistyped(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEO_ASSETS_SOURCES", str(tmp_path / "mistyped.yaml"))
    get_settings.cache_clear()
    refused = run("clean-up")
    assert (refused.status, "GEO_ASSETS_SOURCES: there is nothing at" in refused.stderr) == (2, True)
