"""The hello_world workflow, element by element, and its handlers."""

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest

from geo_assets.coremachine.contract import (
    JobExecutionContext,
    TaskContext,
    TaskDefinition,
    TaskResult,
    TaskStatus,
    aggregation_of,
    check_contract,
)
from geo_assets.errors import ParameterError, TransientError
from geo_assets.jobs.hello_world import HelloWorld, greet, reply

DEFAULT_ID = "149580b8d06f0036537a68bbf149ba9f4e72160438cab4c08ce63591081a61e1"


def test_all_seven_elements_are_there() -> None:
    assert check_contract(HelloWorld).complete


# --- parameters ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "changed"),
    [
        ({}, {}),
        ({"n": 2.9}, {"n": 2}),
        ({"n": "7"}, {"n": 7}),
        ({"n": True}, {"n": 1}),
        ({"n": 1}, {"n": 1}),
        ({"n": 1000}, {"n": 1000}),
        ({"message": ""}, {"message": ""}),
        ({"message": "Grüß Gott"}, {"message": "Grüß Gott"}),
        ({"failure_rate": 1}, {"failure_rate": 1.0}),
        ({"failure_rate": True}, {"failure_rate": 1.0}),
        ({"failure_rate": 0.25}, {"failure_rate": 0.25}),
        ({"dataset_id": None, "resource_id": "r", "version_id": None, "system": False, "use_service_bus": True}, {}),
    ],
)
def test_parameters_are_taken_as_the_original_took_them(params: dict[str, Any], changed: dict[str, Any]) -> None:
    validated = HelloWorld.validate_job_parameters(params)
    assert validated == {"n": 3, "message": "Hello World", "failure_rate": 0.0} | changed
    assert {name: type(value) for name, value in validated.items()} == {"n": int, "message": str, "failure_rate": float}
    assert HelloWorld.validate_job_parameters(validated) == validated


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n": "many"}, "Parameter 'n' must be an integer, got str"),
        ({"n": None}, "Parameter 'n' must be an integer, got NoneType"),
        ({"n": [1]}, "Parameter 'n' must be an integer, got list"),
        ({"n": float("inf")}, "Parameter 'n' must be an integer, got float"),
        ({"n": 0}, "Parameter 'n' must be between 1 and 1000, got 0"),
        ({"n": 0.5}, "Parameter 'n' must be between 1 and 1000, got 0"),
        ({"n": 1001}, "Parameter 'n' must be between 1 and 1000, got 1001"),
        ({"n": -1}, "Parameter 'n' must be between 1 and 1000, got -1"),
        ({"message": 5}, "Parameter 'message' must be a string, got int"),
        ({"message": None}, "Parameter 'message' must be a string, got NoneType"),
        ({"failure_rate": "0.5"}, "Parameter 'failure_rate' must be a number, got str"),
        ({"failure_rate": 1.5}, "Parameter 'failure_rate' must be between 0.0 and 1.0, got 1.5"),
        ({"failure_rate": -0.1}, "Parameter 'failure_rate' must be between 0.0 and 1.0, got -0.1"),
        ({"failure_rate": float("nan")}, "Parameter 'failure_rate' must be between 0.0 and 1.0, got nan"),
        ({"count": 3}, "hello_world: unknown parameter 'count'; it takes: n, message, failure_rate"),
    ],
)
def test_refusals_are_worded_as_in_the_original(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        HelloWorld.validate_job_parameters(params)
    assert str(caught.value) == message


# --- ids and tasks ---------------------------------------------------------------------------------------


def test_the_default_job_id_is_the_originals_byte_for_byte() -> None:
    assert HelloWorld.generate_job_id({}) == DEFAULT_ID
    assert HelloWorld.generate_job_id(HelloWorld.validate_job_parameters({})) == DEFAULT_ID


def test_the_failure_rate_is_not_part_of_the_id_and_the_rest_is() -> None:
    assert HelloWorld.generate_job_id({"n": 3, "message": "Hello World", "failure_rate": 0.5}) == DEFAULT_ID
    assert HelloWorld.generate_job_id({"n": 4}) != DEFAULT_ID
    assert HelloWorld.generate_job_id({"message": "Hello"}) != DEFAULT_ID


def test_tasks_of_both_stages_are_the_originals() -> None:
    params = {"n": 2, "message": "Hi", "failure_rate": 0.25}
    assert HelloWorld.create_tasks_for_stage(1, params, DEFAULT_ID) == [
        {
            "task_id": f"149580b8-s1-{index}",
            "task_type": "hello_world_greeting",
            "parameters": {"index": index, "message": "Hi", "failure_rate": 0.25},
        }
        for index in range(2)
    ]
    assert HelloWorld.create_tasks_for_stage(2, params, DEFAULT_ID, previous_results=None) == [
        {"task_id": f"149580b8-s2-{index}", "task_type": "hello_world_reply", "parameters": {"index": index}}
        for index in range(2)
    ]


@pytest.mark.parametrize("stage", [-1, 0, 3])
def test_a_stage_out_of_range_has_no_tasks(stage: int) -> None:
    assert HelloWorld.create_tasks_for_stage(stage, {"n": 2}, DEFAULT_ID) == []


def test_the_most_tasks_are_all_different_and_well_formed() -> None:
    tasks = [task for stage in (1, 2) for task in HelloWorld.create_tasks_for_stage(stage, {"n": 1000}, DEFAULT_ID)]
    assert len({TaskDefinition.model_validate(task).task_id for task in tasks}) == 2000
    assert {task["task_type"] for task in tasks} == set(HelloWorld.handlers)


def test_stages_are_the_originals() -> None:
    assert HelloWorld.stages == [
        {
            "number": 1,
            "name": "greeting",
            "task_type": "hello_world_greeting",
            "parallelism": "dynamic",
            "count_param": "n",
        },
        {
            "number": 2,
            "name": "reply",
            "task_type": "hello_world_reply",
            "parallelism": "match_previous",
            "depends_on": 1,
            "uses_lineage": True,
        },
    ]


def test_it_is_partitioned_by_job_id() -> None:
    assert (HelloWorld.asset, HelloWorld.partition_set, HelloWorld.group) == ("hello_world", "greetings", "examples")
    assert HelloWorld.key_parameter is None
    assert HelloWorld.parameters_for_partition(DEFAULT_ID) is None
    assert not HelloWorld.tolerates_partial_failure


# --- handlers --------------------------------------------------------------------------------------------


def _is_recent_utc(timestamp: str) -> bool:
    moment = datetime.fromisoformat(timestamp)
    return moment.tzinfo == UTC and abs((datetime.now(UTC) - moment).total_seconds()) < 60


def test_a_greeting_has_its_fields_at_the_top_level() -> None:
    result = greet({"index": 4, "message": "Hi", "failure_rate": 0.0, "_correlation_id": "x"})
    assert _is_recent_utc(result.pop("timestamp"))
    assert result == {"success": True, "greeting": "Hi from task 4!", "task_index": 4, "failure_rate_tested": 0.0}
    json.dumps(result)


def test_a_reply_answers_the_greeting_of_its_own_index() -> None:
    greeting = greet({"index": 1, "message": "Hi"})
    result = reply({"index": 1}, TaskContext(predecessor_result=greeting))
    assert _is_recent_utc(result.pop("timestamp"))
    assert result == {
        "success": True,
        "reply": "Replying to: Hi from task 1!",
        "task_index": 1,
        "predecessor_accessed": True,
    }


@pytest.mark.parametrize("context", [None, {}, TaskContext(job_id="a"), {"predecessor_result": None}])
def test_a_reply_without_a_completed_greeting_says_unknown(context: dict[str, Any] | None) -> None:
    result = reply({"index": 0}, context)
    assert result["reply"] == "Replying to: unknown"
    assert result["predecessor_accessed"] is False


def test_a_failing_greeting_is_worth_another_try() -> None:
    with pytest.raises(TransientError, match=r"greeting 3 failed on purpose \(failure_rate 1\)"):
        greet({"index": 3, "failure_rate": 1.0})


def test_a_failure_rate_of_zero_never_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 0.0)
    assert greet({"index": 0, "failure_rate": 0.0})["success"]


def test_every_try_draws_anew() -> None:
    random.seed(20)

    def succeeds() -> bool:
        try:
            return bool(greet({"index": 0, "failure_rate": 0.5})["success"])
        except TransientError:
            return False

    successes = sum(succeeds() for _ in range(400))
    assert 150 < successes < 250


# --- aggregation -----------------------------------------------------------------------------------------


def test_the_result_is_exactly_the_fallback() -> None:
    results = [
        TaskResult(task_id=f"t{index}", task_type="x", status=TaskStatus.COMPLETED, timestamp=datetime.now(UTC))
        for index in range(6)
    ]
    context = JobExecutionContext(
        job_id=DEFAULT_ID, job_type="hello_world", current_stage=2, total_stages=2, task_results=results
    )
    assert aggregation_of(HelloWorld)(context) == {
        "job_type": "hello_world",
        "total_tasks": 6,
        "message": "Job completed successfully",
    }
