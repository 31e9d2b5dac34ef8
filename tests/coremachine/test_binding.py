"""Bindings: what a class says, what is filled in, what is refused, and what its elements may do wrong."""

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from geo_assets.coremachine.binding import Binding, bind, binding_for, registry_of
from geo_assets.coremachine.contract import ELEMENTS, Published, TaskLimits, Workflow, WorkflowParameters
from geo_assets.errors import BlobNotFoundError, ContractError, ParameterError, UnknownJobTypeError
from geo_assets.jobs.hello_world import HelloWorld


class Parameters(WorkflowParameters):
    container_name: str
    limit: int = 5
    dataset_id: str = "none"


def _handler(_params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True}


class Shelves(Workflow):
    job_type = "shelves"
    description = "Count shelves"
    Parameters = Parameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "count", "task_type": "Count-Shelves", "parallelism": "single"}
    ]
    handlers: ClassVar[dict[str, Callable[..., Any]]] = {"count_shelves": _handler}
    key_parameter = "container_name"

    @classmethod
    def create_tasks_for_stage(cls, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return []


class Plain:
    """As a team would write it: static methods, no base class."""

    job_type = "plain"
    stages: ClassVar[list[dict[str, Any]]] = [{"number": 1, "name": "only", "task_type": "do"}]
    parameters_schema: ClassVar[dict[str, Any]] = {"system": {"type": "bool"}}

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return dict(params)

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return "plain-1"

    @staticmethod
    def create_tasks_for_stage(
        stage: int, job_params: dict[str, Any], job_id: str, previous_results: Any = None
    ) -> list[dict[str, Any]]:
        return []

    @staticmethod
    def create_job_record(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"job_id": job_id}

    @staticmethod
    def queue_job(job_id: str, params: dict[str, Any]) -> dict[str, Any]:
        return {"queued": True}


def changed(base: type, **members: Any) -> Any:
    """A class like ``base`` with other members."""
    return type(base.__name__, (base,), members)


def bound(**members: Any) -> Binding:
    return bind(changed(Plain, **members), {"do": _handler})


# --- what is filled in -------------------------------------------------------------------------------------------


def test_a_plain_class_gets_defaults() -> None:
    binding = bind(Plain, {"do": _handler})
    assert (binding.asset, binding.partition_set, binding.key_parameter) == ("plain", "plain", None)
    assert (binding.group, binding.kinds, binding.owners, binding.asset_deps) == ("workflows", frozenset(), (), ())
    assert (binding.execution, binding.limits, binding.tolerates_partial_failure) == ("thread", TaskLimits(), False)
    assert (binding.total_stages, binding.parameters_model, binding.description) == (1, None, "")
    assert binding.source_version({}, {}) is None
    assert binding.max_age_seconds() is None
    assert binding.materialization_metadata({}) == {}
    assert binding.partition_key({}, "plain-1") == "plain-1"
    assert binding.parameters_for("plain-1") is None
    with pytest.raises(ParameterError, match="plain cannot be submitted by prefix"):
        binding.keys_with_prefix("a", {})


def test_a_plain_class_may_be_given_its_key_parameter() -> None:
    binding = bind(Plain, {"do": _handler}, key_parameter="container_name")
    assert binding.partition_key({"container_name": "bronze"}, "plain-1") == "bronze"
    assert binding.parameters_for("bronze") == {"container_name": "bronze"}
    with pytest.raises(ContractError, match=r"Plain\.validate_job_parameters leaves out 'container_name'"):
        binding.partition_key({}, "plain-1")


def test_a_partition_key_and_its_parameters_go_both_ways() -> None:
    binding = bind(Shelves)
    for name in ("bronze", "a b/ü#?.tif", "[x...y]", "new\nline"):
        key = binding.partition_key({"container_name": name}, "id")
        assert binding.parameters_for(key) == {"container_name": name}
    with pytest.raises(ParameterError):
        binding.parameters_for("%zz")


def test_task_types_are_looked_up_as_the_original_did() -> None:
    binding = bind(Shelves)
    assert binding.stages[0].task_type == "count_shelves"
    assert binding.handlers["count_shelves"] is _handler


def test_the_seven_elements_have_their_names() -> None:
    assert tuple(element.name for element in ELEMENTS) == (
        "stages",
        "validate_job_parameters",
        "generate_job_id",
        "create_tasks_for_stage",
        "create_job_record",
        "queue_job",
        "aggregate_job_results",
    )


# --- what is refused at load -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "handlers", "said"),
    [
        ({}, {}, "Plain: no handler is registered for the task type 'do' of stage 1; registered: none."),
        ({}, {"other": _handler}, "registered: other."),
        ({}, {"do": "text"}, "Plain: the handler of task type 'do' is not callable."),
        ({"execution": "fibre"}, {"do": _handler}, "Plain: execution must be 'thread' or 'process', not 'fibre'."),
        ({"limits": TaskLimits(wall_seconds=1)}, {"do": _handler}, "Plain asks for task limits but runs in threads"),
        ({"stages": []}, {"do": _handler}, "Plain: the element 'stages' must be a non-empty list of dicts."),
        ({"queue_job": None}, {"do": _handler}, "Plain lacks the element 'queue_job'"),
        ({"job_type": "two words"}, {"do": _handler}, "cannot name a Dagster job"),
    ],
)
def test_what_cannot_run_is_refused_when_the_code_location_loads(
    members: dict[str, Any], handlers: Any, said: str
) -> None:
    with pytest.raises(ContractError) as caught:
        bind(changed(Plain, **members), handlers)
    assert said in str(caught.value)


def test_a_key_parameter_that_is_none_of_the_parameters_is_refused() -> None:
    with pytest.raises(ContractError, match="Shelves: key_parameter 'blob' is not one of its parameters"):
        bind(changed(Shelves, key_parameter="blob"))


def test_two_workflows_of_one_job_type_are_refused() -> None:
    with pytest.raises(ContractError, match="two workflows have the job type 'plain': Plain and Plain; rename one"):
        registry_of([bind(Plain, {"do": _handler}), bound()])


def test_an_unknown_job_type_is_answered_with_those_there_are() -> None:
    registry = registry_of([bind(Shelves), bind(HelloWorld)])
    assert binding_for(registry, "shelves").workflow is Shelves
    with pytest.raises(UnknownJobTypeError, match=r"Unknown job type: 'nothing'. Available: hello_world, shelves"):
        binding_for(registry, "nothing")


# --- parameters --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("params", [[1], "text", None, 5])
@pytest.mark.parametrize("workflow", [Shelves, Plain])
def test_parameters_that_are_no_object_are_refused(params: Any, workflow: type) -> None:
    with pytest.raises(ParameterError, match="parameters must be a JSON object, got"):
        bind(workflow, {"do": _handler, "count_shelves": _handler}).validate(params)


def test_the_fields_of_the_originals_endpoint_are_taken_out_unless_declared() -> None:
    injected = {"dataset_id": "d", "resource_id": "r", "version_id": "v", "system": False, "use_service_bus": False}
    assert bind(Plain, {"do": _handler}).validate({"a": 1, **injected}) == {"a": 1, "system": False}
    assert bind(Shelves).validate({"container_name": "bronze", **injected})["dataset_id"] == "d"
    assert bind(Shelves).validate({"container_name": "bronze"})["dataset_id"] == "none"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("items must be positive"), "items must be positive"),
        (ParameterError("its own words"), "its own words"),
        (KeyError("shelf"), "shelf"),
        (TypeError("not a number"), "not a number"),
        (ValueError(), r"plain: parameters refused \(ValueError\)"),
    ],
)
def test_what_a_class_refuses_is_a_parameter_error_in_its_words(error: Exception, said: str) -> None:
    def refuse(_params: dict[str, Any]) -> dict[str, Any]:
        raise error

    with pytest.raises(ParameterError, match=said):
        bound(validate_job_parameters=staticmethod(refuse)).validate({})


@pytest.mark.parametrize("returned", [None, [1], "text"])
def test_a_validation_that_returns_no_dict_is_a_bug_of_its_class(returned: Any) -> None:
    with pytest.raises(ContractError, match=r"Plain.validate_job_parameters returned \w+, not a dict"):
        bound(validate_job_parameters=staticmethod(lambda params: returned)).validate({})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_parameters_that_cannot_be_stored_are_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="plain: parameters that are not JSON cannot be stored"):
        bind(Plain, {"do": _handler}).validate({"value": value})


# --- the other elements ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [None, "", "x" * 65, 5, b"id"])
def test_a_job_id_that_is_none_is_a_bug_of_its_class(returned: Any) -> None:
    with pytest.raises(ContractError, match=r"Plain\.generate_job_id returned"):
        bound(generate_job_id=staticmethod(lambda params: returned)).job_id({})


@pytest.mark.parametrize("name", ["generate_job_id", "create_job_record", "queue_job"])
def test_an_element_that_raises_is_named_without_its_secrets(name: str) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("AccountKey=canary")

    binding = bound(**{name: staticmethod(broken)})
    calls: dict[str, Callable[[], Any]] = {
        "generate_job_id": lambda: binding.job_id({}),
        "create_job_record": lambda: binding.create_record("id", {}),
        "queue_job": lambda: binding.queue("id", {}),
    }
    with pytest.raises(ContractError, match=f"Plain.{name} failed: KeyError") as caught:
        calls[name]()
    assert "canary" not in str(caught.value)


def test_an_error_of_ours_passes_as_it_is() -> None:
    def missing(*_: Any) -> Any:
        raise BlobNotFoundError("bronze/a.tif is not there")

    with pytest.raises(BlobNotFoundError):
        bound(create_job_record=staticmethod(missing)).create_record("id", {})


def test_records_and_queue_answers_that_say_nothing_are_none() -> None:
    binding = bound(create_job_record=staticmethod(lambda *_: None), queue_job=staticmethod(lambda *_: None))
    assert binding.create_record("id", {}) == {}
    assert binding.queue("id", {}) == {"queued": True, "job_id": "id"}


# --- what jobs leave ---------------------------------------------------------------------------------------------


def test_a_class_without_the_hook_publishes_nothing() -> None:
    for binding in (bound(), bind(Shelves)):
        assert not binding.publishes
        assert binding.published({"anything": 1}) == ()


def test_a_plain_class_may_say_what_its_jobs_leave() -> None:
    def published(result: dict[str, Any]) -> list[Published]:
        return [Published(kind="blob", collection="silver", name=result["blob"], version="e1")]

    binding = bound(published=staticmethod(published))
    assert binding.publishes
    (left,) = binding.published({"blob": "a.tif"})
    assert (left.name, left.version, left.about, left.asset) == ("a.tif", "e1", None, None)
    with pytest.raises(ContractError, match=r"Plain\.published failed: KeyError: 'blob'; mend the class"):
        binding.published({})
