"""Looking at jobs, cancelling and retrying them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from geo_assets.cli.opening import open_ledger
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import source_entries
from geo_assets.settings import get_settings
from tests.cli.conftest import FAILING, Run

HELLO_ID = "149580b8d06f0036537a68bbf149ba9f4e72160438cab4c08ce63591081a61e1"
"""Id of ``hello_world`` with its defaults."""

STATUS_FIELDS = {
    # reference 1.15
    "jobId", "jobType", "status", "stage", "totalStages", "parameters", "stageResults", "createdAt", "updatedAt",
    "architecture", "pattern", "schema_validated", "request_id", "timestamp",
    # ours
    "completedAt", "withdrawnAt", "outcome", "reason", "partitionKey", "asset", "sourceVersion", "runId", "taskCounts",
    "progress", "attempts",
}  # fmt: skip


def test_a_home_without_jobs_has_none_and_looking_makes_nothing(run: Run) -> None:
    assert run("jobs", "--json").json == []
    assert run("failures", "--json").json == []
    assert run("failures", "--by-reason", "--json").json == []
    shown = run("status", HELLO_ID)
    assert (shown.status, shown.stdout) == (3, "")
    assert "nothing was submitted yet" in shown.stderr
    assert not get_settings().home_path.exists()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("reconcile", 0),
        ("reconcile --repair", 0),
        ("clean-up --dry-run", 0),
        ("check cog", 0),
        ("unpublish cog bronze/a.tif", 3),
    ],
)
def test_a_look_at_a_home_without_jobs_makes_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, status: int
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    assert run(*command.split()).status == status
    assert not get_settings().home_path.exists()


def test_a_submitted_job_is_listed_shown_and_answered_again(run: Run) -> None:
    answer = run("submit", "hello_world", "--json").json
    assert (answer["status"], answer["job_id"], answer["idempotent"]) == ("created", HELLO_ID, False)
    again = run("submit", "hello_world", "--json").json
    assert (again["status"], again["idempotent"]) == ("queued", True)
    assert [job["jobId"] for job in run("jobs", "--json").json] == [HELLO_ID]
    assert run("jobs", "--type", "summarize_container", "--json").json == []
    assert run("jobs", "--status", "failed", "--json").json == []
    assert len(run("jobs", "--status", "failed", "--status", "queued", "--json").json) == 1
    shown = run("status", HELLO_ID[:8], "--json").json
    assert set(shown) == STATUS_FIELDS
    assert (shown["status"], shown["progress"], shown["taskCounts"]["total"]) == ("queued", 0.0, 0)
    assert [(one["number"], one["status"], one["submittedBy"]) for one in shown["attempts"]] == [(1, "queued", "cli")]
    assert run("tasks", HELLO_ID, "--json").json == []


def test_people_get_tables(run: Run) -> None:
    assert HELLO_ID in run("submit", "hello_world").stdout
    assert HELLO_ID[:12] in run("jobs").stdout
    assert "hello_world: 1 queued" in run("jobs").stdout
    assert "1 of 2" in run("status", HELLO_ID).stdout
    assert "greeting → reply" in run("jobs", "--types").stdout
    assert "no failures" in run("failures").stderr


def test_types_are_listed_with_their_parameters(run: Run) -> None:
    types = {entry["jobType"]: entry for entry in run("jobs", "--types", "--json").json}
    assert {"hello_world", "list_container_contents", "summarize_container"} <= set(types)
    assert types["summarize_container"]["keyParameter"] == "container_name"
    assert set(types["hello_world"]["parameters"]["properties"]) == {"n", "message", "failure_rate"}


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["submit", "hello_word"], 2, "Available: hello_world, "),
        (["submit", "hello_world", "--params", "{n: 3}"], 2, "not JSON"),
        (["submit", "hello_world", "--param", "n=2000"], 2, "must be between 1 and 1000"),
        (["submit", "hello_world", "--param", "m=2"], 2, "unknown parameter 'm'"),
        (["submit", "hello_world", "--key", "x"], 2, "no key parameter"),
        (["submit", "summarize_container", "--key", "../x"], 2, "container_name cannot be used"),
        (["submit", "summarize_container", "--prefix", "nothing-"], 2, "nothing starts with the prefix"),
        (["submit", "hello_world", "--keys-from", "-"], 2, "no keys in it"),
        (["status", "deadbee"], 2, "too short"),
        (["status", "deadbeef"], 3, "no job with the id 'deadbeef'"),
        (["status", HELLO_ID, "--type", "summarize_container"], 3, "no job of type 'summarize_container'"),
        (["tasks", "deadbeef"], 3, "no job with the id"),
        (["tasks", HELLO_ID, "--attempt", "2"], 3, "has no attempt 2"),
        (["cancel", "deadbeef"], 3, "no job with the id"),
        (["retry", "deadbeef"], 3, "no job with the id"),
        (["retry"], 2, "either a job id or --failed"),
        (["retry", HELLO_ID, "--failed"], 2, "either a job id or --failed"),
        (["retry", HELLO_ID, "--reason", "x"], 2, "choose among --failed"),
        (["failures", "--newer-than", "yesterday"], 2, "no length of time"),
        (["failures", "--asset", "cogs"], 2, "there is no asset 'cogs'; there are: cog, container_contents, "),
        (["failures", "--by-reason", "--type", "nosuch"], 2, "there is no workflow 'nosuch'; there are: "),
        (["failures", "--source", "nosuch"], 2, "there is no source 'nosuch'; there are: none"),
        (["failures", "--run", "zzz"], 3, "the ledger has no job of the run 'zzz'"),
        (["retry", "--failed", "--asset", "nosuch"], 2, "there is no asset 'nosuch'"),
        (["jobs", "--asset", "nosuch"], 2, "there is no asset 'nosuch'"),
        (["jobs", "--type", "nosuch"], 2, "there is no workflow 'nosuch'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(run: Run, arguments: list[str], status: int, said: str) -> None:
    run("submit", "hello_world")
    ended = run(*arguments)
    assert (ended.status, ended.stdout) == (status, "")
    assert said in ended.stderr
    assert ended.stderr.startswith("geo-assets: ")
    assert "Traceback" not in ended.stderr
    with_json = run(*arguments, "--json")
    assert with_json.status == with_json.json["exit_status"] == status
    assert said in with_json.json["message"]


def test_ids_that_two_types_share_want_the_type(run: Run, containers: Path) -> None:
    del containers
    run("submit", "hello_world")
    answer = run("submit", "summarize_container", "--key", "maps", "--json").json[0]
    _give_id(answer["job_type"], answer["job_id"], HELLO_ID)
    ambiguous = run("status", HELLO_ID)
    assert ambiguous.status == 2
    assert "matches several jobs" in ambiguous.stderr
    assert run("status", HELLO_ID, "--type", "summarize_container", "--json").json["jobType"] == "summarize_container"
    assert run("cancel", HELLO_ID, "--type", "hello_world").status == 0


def _give_id(job_type: str, old: str, new: str) -> None:
    ledger = Ledger(get_settings().ledger_sqlalchemy_url)
    with ledger.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for table in ("attempts", "jobs"):
            connection.exec_driver_sql(
                f"update {table} set job_id = ? where job_type = ? and job_id = ?",  # noqa: S608 - two literals
                (new, job_type, old),
            )
    ledger.close()


def test_a_queued_job_is_cancelled_once(run: Run) -> None:
    run("submit", "hello_world")
    cancelled = run("cancel", HELLO_ID, "--json").json
    assert (cancelled["status"], cancelled["cancelledAttempts"], cancelled["attemptsAskedToStop"]) == (
        "cancelled",
        1,
        0,
    )
    again = run("cancel", HELLO_ID)
    assert again.status == 1
    assert "nothing to cancel: hello_world 149580b8d06f is cancelled" in again.stderr
    assert [job["jobId"] for job in run("failures", "--json").json] == [HELLO_ID]


@pytest.mark.usefixtures("no_retries")
def test_failures_are_listed_counted_and_retried(run: Run) -> None:
    for message in ("one", "two"):
        assert run("submit", "hello_world", *FAILING, "--param", f"message={message}", "--wait").status == 1
    run("submit", "hello_world")
    failures = run("failures", "--json").json
    assert {job["parameters"]["message"] for job in failures} == {"one", "two"}
    assert len(run("failures", "--limit", "1", "--json").json) == 1
    assert run("failures", "--newer-than", "1h", "--reason", "ON PURPOSE", "--json").json == failures
    assert run("failures", "--older-than", "1h", "--json").json == []
    assert run("failures", "--type", "summarize_container", "--json").json == []
    assert [entry["jobs"] for entry in run("failures", "--by-reason", "--json").json] == [2]
    assert "greeting 0 failed on purpose" in run("failures").stdout
    job_id = failures[0]["jobId"]
    tasks = run("tasks", job_id, "--failed", "--json").json
    assert [(task["stage"], task["taskIndex"], task["status"]) for task in tasks] == [(1, 0, "failed")]
    assert "on purpose" in run("tasks", job_id).stdout
    one = run("retry", job_id[:10], "--json").json
    assert (one["status"], one["message"]) == ("created", "Job queued again (attempt 2)")
    rest = run("retry", "--failed", "--json").json
    assert [answer["job_id"] for answer in rest] == [failures[1]["jobId"]]
    assert run("retry", "--failed", "--json").json == []
    cancelled = run("cancel", job_id)
    assert cancelled.status == 0
    _let_its_blob_be_gone(failures[0])
    left = run("retry", "--failed")
    assert "1 of blobs that are gone are left out; --gone takes those" in left.stderr
    assert "nothing to queue" in left.stderr
    assert run("failures", "--json").json == []
    assert [job["jobId"] for job in run("failures", "--gone", "--json").json] == [job_id]
    (counted,) = run("failures", "--gone", "--by-reason", "--json").json
    assert counted["retry"].endswith(" --gone")
    assert [answer["job_id"] for answer in run("retry", "--failed", "--gone", "--json").json] == [job_id]
    ended = run("retry", "--failed", "--wait", "--json")  # nothing is failed any more, all of it waits
    assert (ended.status, ended.json) == (0, [])


def _let_its_blob_be_gone(job: dict[str, Any]) -> None:
    row = {
        "source": "inbox",
        "entry": "a",
        "name": "a",
        "size": 1,
        "state": "gone",
        "asset": job["asset"],
        "partition_key": job["partitionKey"],
        "seen_at": datetime.now(UTC),
        "sequence": 1,
    }
    with open_ledger() as ledger:
        ledger.write(lambda c: c.execute(source_entries.insert().values(**row)))


def test_a_ledger_that_cannot_be_reached_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geo_assets.cli.opening.PATIENCE_SECONDS", 0.1)
    monkeypatch.setenv("GEO_ASSETS_LEDGER_URL", "postgresql://user:canary@127.0.0.1:1/none")
    get_settings.cache_clear()
    ended = run("jobs", "--json")
    assert (ended.status, ended.json["error"]) == (4, "LedgerUnavailableError")
    assert "canary" not in ended.stdout + ended.stderr


def test_a_ledger_url_of_another_kind_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_LEDGER_URL", "mysql://user:canary@127.0.0.1/none")
    get_settings.cache_clear()
    ended = run("jobs")
    assert ended.status == 2
    assert "canary" not in ended.stderr


def test_settings_that_cannot_be_used_are_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_WAVE_SIZE", "many")
    get_settings.cache_clear()
    ended = run("jobs")
    assert ended.status == 2
    assert "GEO_ASSETS_WAVE_SIZE" in ended.stderr


def test_the_version_is_told(run: Run) -> None:
    assert run("--version").stdout.strip() == "0.1.0"


def test_a_bug_is_told_as_one_without_its_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("cannot open https://user:canary@example.com/x?sig=canary")

    monkeypatch.setattr("geo_assets.cli.job_commands.existing_ledger", broken)
    ended = run("jobs", "--json")
    assert (ended.status, ended.json["error"]) == (70, "RuntimeError")
    assert "this is a bug" in ended.json["message"]
    assert "Traceback" in ended.stderr
    assert "canary" not in ended.stdout + ended.stderr
