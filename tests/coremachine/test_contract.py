"""The seven elements: what the check finds in a class, and the values that pass between the elements."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from geo_assets.coremachine.contract import (
    ELEMENTS,
    SUBMIT_FIELDS,
    ElementState,
    JobExecutionContext,
    JobStatus,
    OutcomeKind,
    TaskContext,
    TaskDefinition,
    TaskLimits,
    TaskResult,
    TaskStatus,
    Workflow,
    WorkflowParameters,
    aggregation_of,
    canonical_json,
    check_contract,
    fallback_aggregation,
    parse_stages,
    require_contract,
    without_submit_fields,
)
from geo_assets.coremachine.legacy import JobBase
from geo_assets.errors import ContractError, ParameterError

METHODS = [element.name for element in ELEMENTS if element.name != "stages"]
NEEDED = [name for name in METHODS if name != "aggregate_job_results"]


def _stage(number: int = 1, **more: Any) -> dict[str, Any]:
    return {"number": number, "name": f"stage {number}", "task_type": "work", **more}


class Plain:
    """A complete class of static methods."""

    job_type = "plain"
    stages: ClassVar[list[dict[str, Any]]] = [_stage()]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return hashlib.sha256(canonical_json(params).encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: list[dict[str, Any]] | None = None
    ) -> list[dict[str, Any]]:
        return []

    @staticmethod
    def create_job_record(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"job_id": job_id}

    @staticmethod
    def queue_job(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"queued": True}

    @staticmethod
    def aggregate_job_results(context: JobExecutionContext) -> dict[str, Any]:
        return {"own": True}


def _variant(name: str = "Variant", *, without: str | None = None, **changed: Any) -> type:
    """A class of its own with the members of ``Plain``, one left out, some changed."""
    members = {key: value for key, value in vars(Plain).items() if not key.startswith("__") and key != without}
    return type(name, (), {**members, **changed})


class Greeting(WorkflowParameters):
    words: str
    times: int = 1


class Ours(Workflow):
    """The least one of our own workflows can be."""

    job_type = "ours"
    stages: ClassVar[list[dict[str, Any]]] = [_stage()]
    Parameters = Greeting

    @classmethod
    def create_tasks_for_stage(
        cls,
        stage: int,
        job_params: dict[str, Any],
        job_id: str,
        previous_results: list[dict[str, Any]] | None = None,
    ) -> list[dict[str, Any]]:
        return []


def _context(**more: Any) -> JobExecutionContext:
    given: dict[str, Any] = {"job_id": "a" * 64, "job_type": "plain", "current_stage": 1, "total_stages": 1, **more}
    return JobExecutionContext(**given)


# --- the check -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", [Plain, Ours])
def test_a_complete_class_has_all_seven(workflow: type) -> None:
    report = check_contract(workflow)
    assert list(report.elements) == ["stages", *METHODS]
    assert set(report.elements.values()) == {ElementState.PRESENT}
    assert report.complete
    assert report.runnable
    require_contract(workflow)


@pytest.mark.parametrize("element", ["stages", *NEEDED])
def test_a_missing_element_is_named_with_its_class_in_one_sentence(element: str) -> None:
    workflow = _variant("Inventory", without=element)
    report = check_contract(workflow)
    assert report.elements[element] is ElementState.MISSING
    assert [name for name, state in report.elements.items() if state is not ElementState.PRESENT] == [element]
    assert not report.runnable
    with pytest.raises(ContractError) as caught:
        require_contract(workflow)
    sentence = str(caught.value)
    assert sentence.startswith(f"Inventory lacks the element '{element}'")
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_the_aggregation_may_be_missing() -> None:
    workflow = _variant(without="aggregate_job_results")
    report = check_contract(workflow)
    assert report.elements["aggregate_job_results"] is ElementState.MISSING
    assert report.runnable
    assert not report.complete
    require_contract(workflow)
    assert aggregation_of(workflow)(_context()) == {
        "job_type": "plain",
        "total_tasks": 0,
        "message": "Job completed successfully",
    }


def _no_arguments() -> None: ...


def _instance_method(self: object, *arguments: object, **named: object) -> None: ...


async def _coroutine(*arguments: object, **named: object) -> None: ...


@pytest.mark.parametrize("element", METHODS)
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(staticmethod(_no_arguments), id="no arguments"),
        pytest.param(_instance_method, id="instance method"),
        pytest.param(staticmethod(_coroutine), id="coroutine"),
        pytest.param(property(_instance_method), id="property"),
        pytest.param("not a method", id="not callable"),
    ],
)
def test_a_wrong_signature_is_named(element: str, wrong: Any) -> None:
    workflow = _variant("Inventory", **{element: wrong})
    assert check_contract(workflow).elements[element] is ElementState.WRONG_SIGNATURE
    with pytest.raises(ContractError, match=f"^Inventory: the element '{element}' cannot be called as {element}\\("):
        require_contract(workflow)


def test_too_many_required_arguments_are_a_wrong_signature() -> None:
    def generate_job_id(params: dict[str, Any], salt: str) -> str:
        return salt

    workflow = _variant(generate_job_id=staticmethod(generate_job_id))
    assert check_contract(workflow).elements["generate_job_id"] is ElementState.WRONG_SIGNATURE


def test_tasks_need_previous_results_by_that_name_and_may_require_it() -> None:
    def without(stage: int, job_params: dict[str, Any], job_id: str) -> list[dict[str, Any]]:
        return []

    def other_name(stage: int, job_params: dict[str, Any], job_id: str, results: Any = None) -> list[dict[str, Any]]:
        return []

    def required(stage: int, params: dict[str, Any], job: str, previous_results: Any) -> list[dict[str, Any]]:
        return []

    def states(method: Callable[..., Any]) -> ElementState:
        workflow = _variant(create_tasks_for_stage=staticmethod(method))
        return check_contract(workflow).elements["create_tasks_for_stage"]

    assert states(without) is ElementState.WRONG_SIGNATURE
    assert states(other_name) is ElementState.WRONG_SIGNATURE
    assert states(required) is ElementState.PRESENT


@pytest.mark.parametrize("element", METHODS)
def test_static_class_and_inherited_methods_and_callables_all_count(element: str) -> None:
    def as_class_method(cls: type, /, *arguments: object, **named: object) -> None: ...

    class CallableObject:
        def __call__(self, *arguments: object, **named: object) -> None: ...

    methods: list[Any] = [classmethod(as_class_method), CallableObject()]
    for method in methods:
        base = _variant("Base", **{element: method})
        assert check_contract(base).complete
        assert check_contract(type("Child", (base,), {})).complete


def test_an_abstract_element_is_a_missing_one() -> None:
    # no instance is made, so Python itself never refuses such a class
    members = {key: value for key, value in vars(Plain).items() if not key.startswith("__") and key != "queue_job"}
    workflow = type("Forgetful", (JobBase,), members)
    assert check_contract(workflow).elements["queue_job"] is ElementState.MISSING
    with pytest.raises(ContractError, match=r"^Forgetful lacks the element 'queue_job'"):
        require_contract(workflow)
    assert check_contract(type("Complete", (JobBase,), members | {"queue_job": staticmethod(Plain.queue_job)})).complete


def test_an_element_set_to_none_is_missing() -> None:
    assert check_contract(_variant(queue_job=None)).elements["queue_job"] is ElementState.MISSING


def test_several_problems_are_several_sentences() -> None:
    workflow = type("Empty", (), {})
    with pytest.raises(ContractError) as caught:
        require_contract(workflow)
    message = str(caught.value)
    assert message.startswith("Empty has no job_type")
    for element in ("stages", *NEEDED):
        assert f"Empty lacks the element '{element}'" in message


@pytest.mark.parametrize("job_type", ["", None, 3, "a-b", "a b", "ä", "x" * 101])
def test_a_job_type_has_to_name_a_dagster_job(job_type: object) -> None:
    report = check_contract(_variant("Inventory", job_type=job_type))
    assert not report.runnable
    assert report.problems[0].startswith("Inventory")
    assert "job_type" in report.problems[0]


# --- stages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stages", "phrase"),
    [
        ([], "non-empty list"),
        (({"number": 1},), "non-empty list"),
        ("stages", "non-empty list"),
        (["first"], "entry 1 of the element 'stages' must be a dict, not str"),
        ([_stage(1), _stage(3)], "entry 2 of the element 'stages' has number 3"),
        ([_stage(2)], "entry 1 of the element 'stages' has number 2"),
        ([_stage(1), _stage(1)], "entry 2 of the element 'stages' has number 1"),
        ([_stage(0)], "number: "),
        ([{"number": "1", "name": "a", "task_type": "b"}], "number: "),
        ([{"number": True, "name": "a", "task_type": "b"}], "number: "),
        ([{"number": 1, "task_type": "b"}], "name: Field required"),
        ([{"number": 1, "name": "a"}], "task_type: Field required"),
        ([{"number": 1, "name": "a", "task_type": ""}], "task_type: "),
        ([_stage(parallelism="sideways")], "parallelism: "),
    ],
)
def test_malformed_stages_are_explained(stages: object, phrase: str) -> None:
    workflow = _variant("Inventory", stages=stages)
    report = check_contract(workflow)
    assert report.elements["stages"] is ElementState.WRONG_SIGNATURE
    with pytest.raises(ContractError, match=r"^Inventory: .*'stages'") as caught:
        require_contract(workflow)
    assert phrase in str(caught.value)
    with pytest.raises(ContractError, match=r"^Inventory"):
        parse_stages(workflow)


def test_all_keys_of_the_original_are_taken_the_uncalled_lambda_included() -> None:
    stages = [
        _stage(1, parallelism="dynamic", count_param="n", creates_tasks=lambda params, results: [params]),
        _stage(2, parallelism="match_previous", depends_on=1, uses_lineage=True),
        _stage(3, parallelism="fan_out", description="one a blob"),
        _stage(4, parallelism="fan_in"),
        _stage(5),
    ]
    workflow = _variant(stages=stages)
    assert check_contract(workflow).complete
    assert [stage.number for stage in parse_stages(workflow)] == [1, 2, 3, 4, 5]
    assert parse_stages(workflow)[4].parallelism == "single"


def test_task_types_are_normalised_as_the_registry_looked_them_up() -> None:
    assert parse_stages(_variant(stages=[_stage(1) | {"task_type": "Weigh-Item"}]))[0].task_type == "weigh_item"
    task = TaskDefinition.model_validate({"task_id": "a", "task_type": "Weigh-Item", "parameters": {}, "other": 1})
    assert task.task_type == "weigh_item"
    assert task.metadata == {}


# --- the aggregation under its two names -----------------------------------------------------------------


def _finalize(context: JobExecutionContext | None = None) -> dict[str, Any]:
    return {"final": True}


def test_finalize_job_is_accepted_for_the_aggregation() -> None:
    workflow = _variant(without="aggregate_job_results", finalize_job=staticmethod(_finalize))
    assert check_contract(workflow).complete
    assert aggregation_of(workflow)(_context()) == {"final": True}


def test_the_aggregation_wins_over_finalize_job() -> None:
    assert aggregation_of(_variant(finalize_job=staticmethod(_finalize)))(_context()) == {"own": True}


def test_finalize_job_wins_over_the_default_of_our_base_class() -> None:
    workflow = type("Final", (Ours,), {"finalize_job": staticmethod(_finalize)})
    assert check_contract(workflow).complete
    assert aggregation_of(workflow)(_context()) == {"final": True}


def test_the_default_of_our_base_class_is_the_fallback() -> None:
    assert aggregation_of(Ours)(_context()) == fallback_aggregation(_context())


@pytest.mark.parametrize("base", [Ours, None])
def test_a_wrong_finalize_job_is_found(base: type | None) -> None:
    members = {"finalize_job": staticmethod(_no_arguments)}
    workflow = (
        type("Final", (base,), members) if base else _variant("Final", without="aggregate_job_results", **members)
    )
    with pytest.raises(ContractError, match=r"^Final: the element 'finalize_job' cannot be called as finalize_job\("):
        require_contract(workflow)


# --- our base class --------------------------------------------------------------------------------------


def test_our_base_class_needs_tasks_and_parameters() -> None:
    class Bare(Workflow):
        job_type = "bare"
        stages: ClassVar[list[dict[str, Any]]] = [_stage()]

    report = check_contract(Bare)
    missing = {name for name, state in report.elements.items() if state is ElementState.MISSING}
    assert missing == {"create_tasks_for_stage", "validate_job_parameters"}
    with pytest.raises(ContractError, match="give it a Parameters model"):
        require_contract(Bare)


def test_validated_parameters_are_plain_json_with_defaults() -> None:
    assert Ours.validate_job_parameters({"words": "hi"}) == {"words": "hi", "times": 1}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "words is required"),
        ({"words": "a", "colour": 1}, "ours: unknown parameter 'colour'; it takes: words, times"),
        ({"words": "a", "time": 1}, "ours: unknown parameter 'time'; it takes: words, times; did you mean 'times'?"),
        ({"words": 3}, "words: Input should be a valid string, got int"),
        ({"words": "a", "times": "3"}, "times: Input should be a valid integer, got str"),
        ({"times": "3"}, "words is required; times: Input should be a valid integer, got str"),
    ],
)
def test_refused_parameters_are_all_explained(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Ours.validate_job_parameters(params)
    assert str(caught.value) == message


def test_parameters_have_to_be_an_object() -> None:
    with pytest.raises(ParameterError, match="ours: parameters must be a JSON object, got list"):
        Ours.validate_job_parameters(["words"])  # type: ignore[arg-type]


def test_a_value_that_is_refused_is_not_shown() -> None:
    with pytest.raises(ParameterError) as caught:
        Ours.validate_job_parameters({"words": "a", "times": "canary-secret"})
    assert "canary" not in str(caught.value)


def test_submit_fields_are_dropped_unless_declared() -> None:
    injected = dict.fromkeys(SUBMIT_FIELDS)
    assert Ours.validate_job_parameters({"words": "a", **injected}) == {"words": "a", "times": 1}
    assert without_submit_fields({"dataset_id": "d", "n": 1}) == {"n": 1}
    assert without_submit_fields({"dataset_id": "d", "system": 1}, ["dataset_id"]) == {"dataset_id": "d"}

    class Dataset(WorkflowParameters):
        dataset_id: str

    class WithDataset(Ours):
        Parameters = Dataset  # type: ignore[assignment]  # narrower than what Ours takes

    assert WithDataset.validate_job_parameters({"dataset_id": "d", "system": False}) == {"dataset_id": "d"}


def test_the_default_job_id_hashes_the_whole_validated_parameters() -> None:
    params = {"words": "grün", "times": 2}
    text = '{"times": 2, "words": "gr\\u00fcn"}'  # sorted keys, default separators, ASCII escapes
    assert Ours.generate_job_id(params) == hashlib.sha256(text.encode()).hexdigest()
    assert Ours.generate_job_id(dict(reversed(params.items()))) == Ours.generate_job_id(params)


def test_record_and_queue_answer_have_the_form_of_the_original() -> None:
    record = Ours.create_job_record("a" * 64, {"words": "a"})
    assert record["status"] == "queued"
    assert (record["stage"], record["total_stages"]) == (1, 1)
    assert record["metadata"]["created_by"] == "Ours"
    json.dumps(record)
    answer = Ours.queue_job("a" * 64, {})
    assert set(answer) == {"queued", "queue_type", "queue_name", "message_id", "job_id"}
    assert answer["message_id"] != Ours.queue_job("a" * 64, {})["message_id"]


def test_hooks_have_harmless_defaults() -> None:
    assert Ours.parameters_for_partition("key") is None
    assert Ours.source_version({}, {}) is None
    assert Ours.max_age_seconds() is None
    assert Ours.materialization_metadata({}) == {}
    with pytest.raises(ParameterError, match="ours cannot be submitted by prefix"):
        Ours.keys_with_prefix("a", {})
    assert type("Keyed", (Ours,), {"key_parameter": "words"}).parameters_for_partition("a") == {"words": "a"}  # type: ignore[attr-defined]


def test_tasks_of_the_base_class_are_not_implemented() -> None:
    with pytest.raises(NotImplementedError):
        Workflow.create_tasks_for_stage(1, {}, "a")


# --- statuses, results, contexts -------------------------------------------------------------------------


def _result(status: TaskStatus) -> TaskResult:
    return TaskResult(task_id="t", task_type="x", status=status, timestamp=datetime.now(UTC))


def test_pending_is_another_name_of_queued_in_comparisons_and_counts() -> None:
    pending: object = TaskStatus.PENDING  # mypy takes an alias for a member of its own
    assert pending is TaskStatus.QUEUED
    assert TaskStatus.PENDING.value == "queued"
    assert TaskStatus["PENDING"] is TaskStatus.QUEUED
    assert len(TaskStatus) == 7
    results = [_result(status) for status in (TaskStatus.QUEUED, TaskStatus.COMPLETED, TaskStatus.FAILED)]
    assert sum(1 for result in results if result.status == TaskStatus.PENDING) == 1
    assert sum(1 for result in results if result.status == TaskStatus.COMPLETED) == 1
    counts = dict.fromkeys(TaskStatus, 0) | {TaskStatus.PENDING: 5}
    assert counts[TaskStatus.QUEUED] == 5
    with pytest.raises(ValueError, match="'pending' is not a valid TaskStatus"):
        TaskStatus("pending")


def test_statuses_are_the_originals_and_cancelled() -> None:
    assert {status.value for status in JobStatus} == {
        "queued",
        "processing",
        "completed",
        "failed",
        "completed_with_errors",
        "cancelled",
    }
    assert {status for status in JobStatus if not status.is_terminal} == {JobStatus.QUEUED, JobStatus.PROCESSING}
    assert {status.value for status in TaskStatus if status.is_terminal} == {"completed", "failed", "cancelled"}
    assert {kind.value for kind in OutcomeKind if not kind.is_good} == {"invalid", "failed", "cancelled"}


def test_a_task_result_has_the_originals_attributes_and_ours() -> None:
    result = _result(TaskStatus.COMPLETED)
    assert result.success
    assert result.result_data == {}
    assert (result.error_details, result.execution_time_ms, result.metadata) == (None, None, None)
    assert (result.stage, result.task_index) == (1, 0)
    assert not _result(TaskStatus.FAILED).success
    empty = TaskResult.model_validate({**result.model_dump(), "result_data": None})
    assert empty.result_data == {}


def test_the_context_forbids_what_it_does_not_know() -> None:
    assert _context().stage_results == {}
    with pytest.raises(ValidationError):
        _context(more=1)
    with pytest.raises(ValidationError):
        _context(current_stage=0)


@pytest.mark.parametrize(
    "task",
    [
        {"task_type": "x", "parameters": {}},
        {"task_id": "a", "parameters": {}},
        {"task_id": "a", "task_type": "x"},
        {"task_id": "", "task_type": "x", "parameters": {}},
        {"task_id": "a" * 101, "task_type": "x", "parameters": {}},
        {"task_id": "a", "task_type": "x", "parameters": None},
    ],
)
def test_a_task_needs_its_three_keys(task: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TaskDefinition.model_validate(task)


def test_a_task_may_have_no_metadata() -> None:
    task: dict[str, Any] = {"task_id": "a" * 100, "task_type": "x", "parameters": {}, "metadata": None}
    assert TaskDefinition.model_validate(task).metadata == {}


def test_a_task_context_is_a_dict_with_accessors() -> None:
    context = TaskContext(job_id="a", predecessor_result={"success": True}, services={"blobs": 1})
    assert context["job_id"] == "a"
    assert context.predecessor_result == {"success": True}
    assert context.services == {"blobs": 1}
    assert TaskContext().predecessor_result is None
    assert TaskContext().services == {}


def test_limits_say_whether_any_is_set() -> None:
    assert not TaskLimits().any_set
    assert TaskLimits(cpu_seconds=1).any_set
