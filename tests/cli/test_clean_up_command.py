"""``geo-assets clean-up``, and what the other commands say of tasks that are gone."""

from tests.cli.conftest import Run


def test_the_command_does_the_same(run: Run) -> None:
    assert run("submit", "hello_world", "--wait").status == 0
    words = ("clean-up", "--keep-run-days", "0", "--keep-task-days", "0", "--json")
    dry = run(*words, "--dry-run").json
    assert dry["dryRun"]
    assert {one["what"]: one["number"] for one in dry["removed"]}["tasks"] == 6
    assert run(*words).json == {"dryRun": False, "removed": dry["removed"]}
    assert {one["number"] for one in run(*words).json["removed"] if one["what"] != "closed waves"} == {0}
    job_id = run("jobs", "--json").json[0]["jobId"]
    status = run("status", job_id, "--json").json
    assert (status["taskCounts"]["completed"], status["tasksRemoved"]) == (6, True)
    assert "cleaned up" in run("status", job_id).stdout
    assert "cleaned up" in run("tasks", job_id).stderr
    assert "tasks" in run("clean-up", "--dry-run").stdout
