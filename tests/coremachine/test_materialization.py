"""What a partition shows: a materialization, why it failed, a check, and that no decoration loses a result."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from geo_assets.coremachine.binding import Binding, bind
from geo_assets.coremachine.contract import JobStatus, Markdown, OutcomeKind
from geo_assets.coremachine.ledger import Attempt
from geo_assets.coremachine.materialization import (
    check_of,
    failure_of,
    materialization_of,
    metadata_value,
    outcome_table,
)
from geo_assets.jobs.hello_world import HelloWorld

STARTED = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPT = Attempt(
    attempt_id="1",
    job_type="hello_world",
    job_id="abcdef0123456789",
    number=2,
    asset="hello_world",
    partition_key="bronze/a b.tif",
    source_version='"0x8DC5/+=="',
    status=JobStatus.COMPLETED,
    outcome=OutcomeKind.UPDATED,
    reason=None,
    error_details=None,
    traceback=None,
    result_data={"n": 1},
    stage=2,
    stage_results={
        "1": {"tasks": 3, "completed": 2, "failed": 1, "outcomes": {}},
        "10": {"tasks": 1, "completed": 1, "failed": 0, "outcomes": {}},
        "2": {"tasks": 2, "completed": 2, "failed": 0, "outcomes": {}},
    },
    priority=0,
    submitted_by="cli",
    wave_id="wave-1",
    position=0,
    run_id="run-1",
    cancel_requested=False,
    releases=0,
    planned=True,
    event_emitted=False,
    created_at=STARTED,
    started_at=STARTED,
    ended_at=STARTED + timedelta(seconds=1.5),
    parameters={},
    job_metadata={},
)


def showing(**shown: Any) -> Binding:
    """A workflow that shows these values of its result."""
    members = {"materialization_metadata": classmethod(lambda cls, result: shown)}
    return bind(type("Showing", (HelloWorld,), members))


def test_a_materialization_says_what_became_of_the_job() -> None:
    made = materialization_of(bind(HelloWorld), ATTEMPT)
    assert made.asset_key == dg.AssetKey(["hello_world"])
    assert made.partition == "bronze/a b.tif"
    assert made.description == "hello_world updated"
    assert made.tags == {"geo_assets/job_type": "hello_world", "dagster/data_version": '"0x8DC5/+=="'}
    shown = {name: value.value for name, value in made.metadata.items() if name != "geo/stages"}
    assert shown == {
        "geo/outcome": "updated",
        "geo/job_id": "abcdef0123456789",
        "geo/job_type": "hello_world",
        "geo/attempt": 2,
        "geo/status": "completed",
        "geo/source_version": '"0x8DC5/+=="',
        "geo/duration_seconds": 1.5,
        "geo/result": {"n": 1},
    }
    stages = made.metadata["geo/stages"]
    assert isinstance(stages, dg.TableMetadataValue)
    assert [record.data for record in stages.records] == [
        {"stage": 1, "tasks": 3, "completed": 2, "failed": 1},
        {"stage": 2, "tasks": 2, "completed": 2, "failed": 0},
        {"stage": 10, "tasks": 1, "completed": 1, "failed": 0},
    ]


def test_a_materialization_leaves_out_what_there_is_not() -> None:
    bare = replace(ATTEMPT, source_version=None, started_at=None, stage_results={}, result_data=None, outcome=None)
    made = materialization_of(bind(HelloWorld), bare)
    assert not {"geo/source_version", "geo/duration_seconds", "geo/stages", "geo/reason"} & set(made.metadata)
    assert made.tags == {"geo_assets/job_type": "hello_world"}
    assert made.metadata["geo/result"].value == {}


def test_a_partly_good_one_says_how_much_failed() -> None:
    partly = replace(ATTEMPT, status=JobStatus.COMPLETED_WITH_ERRORS, outcome=OutcomeKind.FAILED, reason="it broke")
    made = materialization_of(bind(HelloWorld), partly)
    assert made.description == "hello_world failed: 1 of 6 tasks failed"
    assert made.metadata["geo/reason"].value == "it broke"
    check = check_of(bind(HelloWorld), replace(partly, error_details="1 of 6 tasks failed\ngreet: no"))
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "1 of 6 tasks failed\ngreet: no"
    assert (check.metadata["geo/tasks"].value, check.metadata["geo/failed"].value) == (6, 1)
    assert check_of(bind(HelloWorld), ATTEMPT).passed


def test_a_failed_one_says_why_and_what_to_do() -> None:
    failed = replace(ATTEMPT, status=JobStatus.FAILED, outcome=OutcomeKind.INVALID, reason="not a TIFF")
    shown = failure_of(bind(HelloWorld), failed)
    assert shown.partition == "bronze/a b.tif"
    assert shown.description == "hello_world invalid"
    assert shown.metadata["geo/reason"].value == "not a TIFF"
    assert "geo-assets retry abcdef012345" in str(shown.metadata["geo/what_to_do"].value)
    assert failure_of(bind(HelloWorld), replace(failed, reason=None)).metadata["geo/reason"].value


def test_a_large_result_is_pointed_to() -> None:
    made = materialization_of(bind(HelloWorld), replace(ATTEMPT, result_data={"text": "x" * 9000}))
    shown = made.metadata["geo/result"]
    assert isinstance(shown, dg.TextMetadataValue)
    assert shown.value == "9,012 characters; see: geo-assets status abcdef012345 --json"


def test_the_workflows_own_values_are_shown_under_their_names() -> None:
    own = {"dagster/row_count": 5, "files": 3, "summary": Markdown("**bold**"), "when": STARTED, "nothing": None}
    made = materialization_of(showing(**own), ATTEMPT)
    assert made.metadata["dagster/row_count"].value == 5
    assert made.metadata["dagster/partition_row_count"].value == 5
    assert made.metadata["geo/files"].value == 3
    assert isinstance(made.metadata["geo/summary"], dg.MarkdownMetadataValue)
    assert made.metadata["geo/when"].value == str(STARTED)
    assert made.metadata["geo/nothing"].value is None


@pytest.mark.parametrize(
    "value", [{"a": object()}, [object()], [{"a": object()}], {"a": {1, 2}}], ids=["dict", "list", "table", "set"]
)
def test_a_value_that_cannot_be_shown_does_not_lose_the_result(value: Any) -> None:
    made = materialization_of(showing(odd=value, files=3), ATTEMPT)
    assert "not JSON serializable" in str(made.metadata["geo/metadata_problem"].value)
    assert made.metadata["geo/result"].value == {"n": 1}


def test_a_hook_that_raises_does_not_lose_the_result() -> None:
    def broken(_cls: type, _result: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("password=canary")

    binding = bind(type("Broken", (HelloWorld,), {"materialization_metadata": classmethod(broken)}))
    made = materialization_of(binding, ATTEMPT)
    assert "KeyError" in str(made.metadata["geo/metadata_problem"].value)
    assert "canary" not in str(made.metadata)
    assert made.metadata["geo/result"].value == {"n": 1}


def test_rows_become_a_table_with_the_types_of_their_columns() -> None:
    shown = metadata_value(
        [{"name": "a", "n": None, "share": 0.5}, {"name": "b", "n": 3, "good": True, "parts": ["x", {"y": 1}]}]
    )
    assert isinstance(shown, dg.TableMetadataValue)
    assert {column.name: column.type for column in shown.schema.columns} == {
        "name": "string",
        "n": "int",
        "share": "float",
        "good": "bool",
        "parts": "string",
    }
    assert shown.records[1].data == {"name": "b", "n": 3, "share": None, "good": True, "parts": '["x", {"y": 1}]'}
    assert metadata_value([]).value == []
    assert metadata_value(("a", 1)).value == ["a", 1]
    assert metadata_value({"a": (1, 2)}).value == {"a": [1, 2]}


def test_the_outcomes_of_a_run_add_up_in_its_table() -> None:
    assert outcome_table({"failed": 2, "created": 96, "processing": 1}) == (
        "| outcome | jobs |\n|---|---:|\n| created | 96 |\n| failed | 2 |\n| processing | 1 |\n| **all** | **99** |"
    )
