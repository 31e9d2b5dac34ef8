"""Classes written for the original CoreMachine: their imports, their elements, their loading."""

import importlib
import json
import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from geo_assets.coremachine import contract, legacy
from geo_assets.coremachine.contract import JobExecutionContext, TaskResult, TaskStatus, aggregation_of, check_contract
from geo_assets.coremachine.identity import task_id
from geo_assets.coremachine.legacy import STAND_INS, configured_workflows, install, load_workflows
from geo_assets.errors import ContractError, SettingsError
from geo_assets.settings import Settings, get_settings

EXAMPLES = "tests.coremachine.legacy_workflows"
JOB = "149580b8d06f0036537a68bbf149ba9f4e72160438cab4c08ce63591081a61e1"

Bring = Callable[..., str]


@pytest.fixture(autouse=True)
def _own_import_state() -> Iterator[None]:
    """What a test imports under the original's names is forgotten after it."""
    finders, before = list(sys.meta_path), dict(sys.modules)
    tops = {name.partition(".")[0] for name in STAND_INS} | {"team", "team_empty"}
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
    sys.modules.pop(EXAMPLES, None)
    yield
    sys.meta_path[:] = finders
    for name in set(sys.modules) - set(before):
        if name.partition(".")[0] in tops or name == EXAMPLES:
            del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture
def bring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bring:
    """Write a team's module; the folder it lies in is on the Python path."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, *, file: str = "team.py") -> str:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        return path.stem

    return write


def _examples() -> dict[str, tuple[type, dict[str, Any]]]:
    loaded = load_workflows(f"{EXAMPLES}:ALL_JOBS", f"{EXAMPLES}:ALL_HANDLERS")
    return {workflow.job_type: (workflow, handlers) for workflow, handlers in loaded}  # type: ignore[attr-defined]


# --- the stand-ins ---------------------------------------------------------------------------------------


def test_every_name_of_every_stand_in_can_be_imported() -> None:
    install()
    for name, members in STAND_INS.items():
        module = importlib.import_module(name)
        assert module.__all__ == sorted(members)
        for member, value in members.items():
            assert getattr(module, member) is value


def test_values_that_are_equal_to_ours_are_ours() -> None:
    install()
    models = importlib.import_module("core.models")
    for name in ("JobStatus", "TaskStatus", "TaskResult", "TaskDefinition", "JobExecutionContext"):
        assert getattr(models, name) is getattr(contract, name)
    assert importlib.import_module("core.models.enums").TaskStatus is contract.TaskStatus


def test_installing_twice_installs_once_and_last() -> None:
    install()
    other = type("Later", (), {"find_spec": staticmethod(lambda *arguments: None)})
    sys.meta_path.append(other)  # type: ignore[arg-type]
    install()
    install()
    assert [finder for finder in sys.meta_path if isinstance(finder, legacy._StandInFinder)] == [sys.meta_path[-1]]


def test_nothing_is_served_before_it_is_installed() -> None:
    # in a process of its own: another test may have installed here
    script = (
        "import importlib.util as u, geo_assets.coremachine.legacy as l; before = u.find_spec('util_logger');"
        " l.install(); print(before, u.find_spec('util_logger') is not None, u.find_spec('util_loggers'))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["None", "True", "None"]


def test_a_teams_own_module_wins(bring: Bring) -> None:
    install()
    bring("def get_config():\n    return 'ours'\n", file="config.py")
    assert importlib.import_module("config").get_config() == "ours"


def test_a_teams_package_is_completed_module_by_module(bring: Bring) -> None:
    install()
    bring("MARK = 1\n", file="core/__init__.py")
    bring("def generate_deterministic_task_id(*_):\n    return 'theirs'\n", file="core/task_id.py")
    assert importlib.import_module("core").MARK == 1
    assert importlib.import_module("core.task_id").generate_deterministic_task_id() == "theirs"
    assert importlib.import_module("core.models").JobStatus is contract.JobStatus


def test_the_job_record_is_the_originals() -> None:
    record = legacy.JobRecord(job_id=JOB.upper(), job_type="Process-Raster", parameters={"a": 1})
    dumped = record.model_dump()
    assert list(dumped) == [
        "job_id",
        "job_type",
        "parameters",
        "status",
        "stage",
        "total_stages",
        "stage_results",
        "metadata",
        "result_data",
        "error_details",
        "created_at",
        "updated_at",
    ]
    assert (dumped["job_id"], dumped["job_type"], dumped["status"]) == (JOB, "process_raster", "queued")
    assert dumped["created_at"].tzinfo is UTC
    json.dumps(record.model_dump(mode="json"))


@pytest.mark.parametrize("changed", [{"job_id": "abc"}, {"job_id": "z" * 64}, {"stage": 0}, {"total_stages": 0}])
def test_the_job_record_refuses_what_the_original_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        legacy.JobRecord(**{"job_id": JOB, "job_type": "a", **changed})


def test_messages_drop_what_they_do_not_know() -> None:
    given: dict[str, Any] = {"job_id": JOB, "job_type": "a", "stage": 1, "correlation_id": "c"}
    message = legacy.JobQueueMessage(**given)
    assert "correlation_id" not in message.model_dump()
    assert message.stage_results == {}
    with pytest.raises(ValidationError):
        legacy.JobQueueMessage(**given | {"stage": 101})
    task = legacy.TaskQueueMessage(task_id="t", parent_job_id=JOB, job_type="a", task_type="A-B", stage=2)
    assert (task.task_type, task.task_index, task.retry_count) == ("a_b", "0", 0)


def test_task_ids_are_ours_and_the_originals() -> None:
    assert legacy.generate_deterministic_task_id(job_id=JOB, stage=2, logical_unit="a") == task_id(JOB, 2, "a")
    assert legacy.get_predecessor_task_id(JOB, 2, "a") == task_id(JOB, 1, "a")
    assert legacy.get_predecessor_task_id(JOB, 1, "a") is None
    assert legacy.get_successor_task_id(JOB, 1, "a") == task_id(JOB, 2, "a")
    assert len(legacy.generate_job_id("a", {"b": 1})) == 64


def test_repositories_say_yes_and_write_nothing() -> None:
    repositories = legacy.RepositoryFactory.create_repositories("postgresql://u:canary@host/db")
    assert set(repositories) == {"job_repo", "task_repo", "stage_completion_repo"}
    assert repositories["job_repo"].create_job(object()) is True
    assert repositories["task_repo"].create_task(object()) is True
    assert "canary" not in repr(vars(repositories["job_repo"]))
    queue = legacy.ServiceBusRepository.instance()
    assert queue.send_message("q", {"a": 1}) != queue.send_message("q", {"a": 1})
    assert isinstance(legacy.RepositoryFactory.create_service_bus_repository(), legacy.ServiceBusRepository)
    assert legacy.RepositoryFactory.create_job_repository().create_job({})
    assert legacy.RepositoryFactory.create_task_repository().create_task({})


def test_what_is_not_there_says_what_to_do() -> None:
    with pytest.raises(AttributeError, match=r"JobRepository\.get_job is not part .* Put your own module"):
        legacy.JobRepository().get_job("x")
    with pytest.raises(AttributeError, match=r"config\.get_config\(\)\.postgis_password is not part"):
        _ = legacy.get_config().postgis_password
    for make in (legacy.BlobRepository.instance, legacy.RepositoryFactory.create_blob_repository):
        with pytest.raises(ContractError, match=r"context\['services'\]"):
            make()


def test_the_configuration_follows_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    config = legacy.get_config()
    assert (config.service_bus_jobs_queue, config.service_bus_tasks_queue) == ("geospatial-jobs", "geospatial-tasks")
    assert config.bronze_container_name == "bronze"
    assert config.task_max_retries == 3
    monkeypatch.setenv("GEO_ASSETS_BRONZE_CONTAINER", "raw")
    get_settings.cache_clear()
    assert legacy.get_config().bronze_container_name == "raw"


def test_loggers_are_standard_and_redacted(caplog: pytest.LogCaptureFixture) -> None:
    made = legacy.LoggerFactory.create_logger(legacy.ComponentType.SERVICE, "reader")
    assert made is legacy.LoggerFactory.create_logger("service", "reader")
    assert made.name == "service.reader"
    assert made.filters == [legacy._REDACT]
    assert legacy.LoggerFactory.create_with_context(legacy.ComponentType.JOB, "a", job_id="j").name == "job.a"
    with caplog.at_level(logging.INFO):
        made.info("reading %s", "https://x.example/c/b.tif?sv=1&sig=canary1")
        try:
            int("password=canary2")
        except ValueError:
            made.exception("failed with AccountKey=canary3;")
    assert "canary" not in caplog.text
    assert "reading https://x.example/c/b.tif?sv=1&sig=***" in caplog.text
    assert "ValueError: invalid literal for int() with base 10: 'password=***'" in caplog.text


def test_logged_exceptions_are_raised_on(caplog: pytest.LogCaptureFixture) -> None:
    @legacy.log_exceptions(legacy.ComponentType.SERVICE, "divider")
    def divide(by: int) -> float:
        return 1 / by

    assert divide(2) == 0.5
    assert divide.__name__ == "divide"
    with pytest.raises(ZeroDivisionError):
        divide(0)
    assert "divide failed" in caplog.text


def test_measuring_costs_nothing() -> None:
    legacy.log_memory_checkpoint(logging.getLogger("x"), "start", context_id="a", rows=1)
    legacy.clear_checkpoint_context("a")
    assert legacy.get_memory_stats() is None
    assert legacy.LogContext(job_id="a").to_dict() == {"job_id": "a"}


# --- the classes -----------------------------------------------------------------------------------------


def test_the_examples_load_with_the_handlers_their_stages_name() -> None:
    examples = _examples()
    assert {job_type: sorted(handlers) for job_type, (_, handlers) in examples.items()} == {
        "shelf_inventory": ["list_shelf_items", "weigh_shelf_item"],
        "echo": ["echo_hear", "echo_say"],
        "countdown": ["count_down"],
    }
    assert check_contract(examples["shelf_inventory"][0]).complete
    assert check_contract(examples["echo"][0]).complete  # finalize_job
    assert check_contract(examples["countdown"][0]).runnable


@pytest.mark.parametrize(
    ("job_type", "params"), [("shelf_inventory", {"shelf": "a"}), ("echo", {}), ("countdown", {"dataset_id": "d"})]
)
def test_submission_elements_run_unchanged(job_type: str, params: dict[str, Any]) -> None:
    workflow: Any = _examples()[job_type][0]
    validated = workflow.validate_job_parameters(params)
    job_id = workflow.generate_job_id(validated)
    assert workflow.create_job_record(job_id, validated)["job_id"] == job_id
    answer = workflow.queue_job(job_id, validated)
    assert {key: answer[key] for key in ("queued", "queue_type", "queue_name", "job_id")} == {
        "queued": True,
        "queue_type": "service_bus",
        "queue_name": "geospatial-jobs",
        "job_id": job_id,
    }
    assert len(answer["message_id"]) == 36


def test_the_job_id_of_a_plain_class_is_its_own_formula() -> None:
    workflow: Any = _examples()["shelf_inventory"][0]
    validated = workflow.validate_job_parameters({"shelf": " a ", "unknown": 1})
    assert validated == {"shelf": "a", "items": 3, "broken": []}
    # printf '{"broken": [], "items": 3, "shelf": "a"}' | sha256sum
    assert workflow.generate_job_id(validated) == "2414bf86ed837a1c28878086baca850ad0601d447ad8ae61012cc2159e6ff254"


def _run(workflow: Any, handlers: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The least engine there can be: enough to show that the classes need nothing more."""
    params = workflow.validate_job_parameters(params)
    job_id = workflow.generate_job_id(params)
    results: list[TaskResult] = []
    previous: list[dict[str, Any]] | None = None
    stages = contract.parse_stages(workflow)
    for stage in stages:
        returns = []
        for index, entry in enumerate(
            workflow.create_tasks_for_stage(stage.number, params, job_id, previous_results=previous)
        ):
            task = contract.TaskDefinition.model_validate(entry)
            returned = handlers[task.task_type](task.parameters)
            status = TaskStatus.COMPLETED if returned["success"] else TaskStatus.FAILED
            results.append(
                TaskResult(
                    task_id=task.task_id,
                    task_type=task.task_type,
                    status=status,
                    result_data=returned,
                    error_details=returned.get("error"),
                    timestamp=datetime.now(UTC),
                    stage=stage.number,
                    task_index=index,
                )
            )
            if returned["success"]:
                returns.append(returned)
        previous = returns
    context = JobExecutionContext(
        job_id=job_id,
        job_type=workflow.job_type,
        current_stage=len(stages),
        total_stages=len(stages),
        parameters=params,
        task_results=results,
    )
    answer: dict[str, Any] = aggregation_of(workflow)(context)
    return answer


def test_a_fan_out_with_a_bad_item_is_aggregated_with_pending_counted() -> None:
    answer = _run(*_examples()["shelf_inventory"], {"shelf": "a", "items": 4, "broken": ["item-2"]})
    assert answer == {
        "job_type": "shelf_inventory",
        "shelf": "a",
        "summary": {
            "items_weighed": 3,
            "items_failed": 1,
            "items_pending": 0,
            "total_grams": 1800,
            "errors_sample": ["item-2 fell off the shelf"],
        },
        "stages_completed": 2,
        "total_tasks_executed": 5,
    }


def test_finalize_job_and_the_fallback_end_a_job() -> None:
    answer = _run(*_examples()["echo"], {"n": 2})
    assert answer == {"job_type": "echo", "heard": ["nothing", "nothing"], "total_tasks": 4}
    assert _run(*_examples()["countdown"], {"dataset_id": "d"}) == {
        "job_type": "countdown",
        "total_tasks": 1,
        "message": "Job completed successfully",
    }


# --- declared parameters ---------------------------------------------------------------------------------


class Declared(legacy.JobBaseMixin):
    job_type = "declared"
    description = "All kinds"
    stages = [{"number": 1, "name": "a", "task_type": "b"}]  # noqa: RUF012 - as teams write it
    parameters_schema = {  # noqa: RUF012
        "name": {"type": "str", "required": True, "allowed": ["a", "b"]},
        "count": {"type": "int", "default": 2, "min": 1, "max": 5},
        "ratio": {"type": "float", "min": 0.5, "max": 2},
        "flag": {"type": "bool"},
        "many": {"type": "list"},
        "more": {"type": "dict"},
    }


def test_a_schema_validates_and_fills_in() -> None:
    assert Declared.validate_job_parameters({"name": "a", "other": 1}) == {"name": "a", "count": 2}
    assert Declared.validate_job_parameters({"name": "b", "ratio": 1})["ratio"] == 1.0
    job_id = Declared.generate_job_id({"count": 2})
    # printf '{"count": 2, "job_type": "declared"}' | sha256sum
    assert job_id == "bd6f845d6c749f25ac606122c516959049541e6052618aa2e837c9a0306fa4d9"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "Parameter 'name' is required"),
        ({"name": 1}, "Parameter 'name' must be a string, got int"),
        ({"name": "c"}, "Parameter 'name' must be one of ['a', 'b'], got 'c'"),
        ({"name": "a", "count": "2"}, "Parameter 'count' must be an integer, got str"),
        ({"name": "a", "count": 0}, "Parameter 'count' must be >= 1, got 0"),
        ({"name": "a", "count": 6}, "Parameter 'count' must be <= 5, got 6"),
        ({"name": "a", "ratio": "1"}, "Parameter 'ratio' must be a number, got str"),
        ({"name": "a", "ratio": 3}, "Parameter 'ratio' must be <= 2, got 3.0"),
        ({"name": "a", "flag": 1}, "Parameter 'flag' must be a boolean, got int"),
        ({"name": "a", "many": {}}, "Parameter 'many' must be a list, got dict"),
        ({"name": "a", "more": []}, "Parameter 'more' must be a dict, got list"),
    ],
)
def test_a_schema_refuses(params: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        Declared.validate_job_parameters(params)
    assert str(caught.value) == message


def test_a_schema_of_an_unknown_type_is_refused() -> None:
    workflow: Any = type("Odd", (Declared,), {"parameters_schema": {"a": {"type": "colour"}}})
    with pytest.raises(ValueError, match="Unknown type 'colour' for parameter 'a'"):
        workflow.validate_job_parameters({"a": 1})


def test_resource_validators_are_the_teams(bring: Bring) -> None:
    install()
    workflow: Any = type("Guarded", (Declared,), {"resource_validators": [{"type": "blob_exists"}]})
    with pytest.raises(ContractError, match=r"^Guarded declares resource_validators"):
        workflow.validate_job_parameters({"name": "a"})
    bring("", file="infrastructure/__init__.py")
    bring(
        "def run_validators(which, params):\n    return {'valid': params['name'] == 'a', 'message': 'no such blob'}\n",
        file="infrastructure/validators.py",
    )
    sys.modules.pop("infrastructure", None)
    assert workflow.validate_job_parameters({"name": "a"})["name"] == "a"
    with pytest.raises(ValueError, match=r"^Pre-flight validation failed: no such blob$"):
        workflow.validate_job_parameters({"name": "b"})


# --- loading ---------------------------------------------------------------------------------------------

HANDLERS = f"{EXAMPLES}:ALL_HANDLERS"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("OTHER = {}", "the module 'team' has no 'ALL_JOBS': name the dict"),
        ("ALL_JOBS = []", "team:ALL_JOBS is a list, not a dict."),
        ("ALL_JOBS = {'a': 'A'}", "team:ALL_JOBS registers 'A' as 'a': it must be a class."),
        ("import nowhere_at_all", "the module 'team' imports 'nowhere_at_all', which is neither on the Python path"),
        ("from infrastructure.postgresql import X", "the module 'team' imports 'infrastructure.postgresql', which is"),
        ("from config import Missing", "cannot import name 'Missing' from 'config'"),
        ("raise RuntimeError('password=canary')", "the module 'team' cannot be imported: RuntimeError: password=***"),
        ("def broken(:", "the module 'team' cannot be imported: SyntaxError"),
    ],
)
def test_a_registry_that_cannot_be_had_is_explained(bring: Bring, source: str, message: str) -> None:
    bring(source)
    with pytest.raises(ContractError) as caught:
        load_workflows("team:ALL_JOBS", HANDLERS)
    assert message in str(caught.value)


def test_an_import_that_the_stand_in_cannot_answer_names_it(bring: Bring) -> None:
    bring("from config import Missing")
    with pytest.raises(ContractError, match=r"'config', which is the stand-in of geo_assets here\)"):
        load_workflows("team:ALL_JOBS", HANDLERS)


def test_a_folder_that_hides_a_stand_in_is_named(bring: Bring, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    bring("from config import get_config")
    with pytest.raises(ContractError, match=r"'config', which is a folder without __init__\.py here \(.*config\)"):
        load_workflows("team:ALL_JOBS", HANDLERS)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (
            "nowhere_at_all:ALL_JOBS",
            "there is no module 'nowhere_at_all': put the folder it lies in on the Python path",
        ),
        ("nowhere_at_all.deep:ALL_JOBS", "there is no module 'nowhere_at_all'"),
        ("jobs:ALL_JOBS", "the module 'jobs', which is the stand-in of geo_assets here, has no 'ALL_JOBS'"),
        ("jobs", "'jobs' does not name a registry: write module:NAME"),
        (":ALL_JOBS", "does not name a registry"),
        ("jobs:", "does not name a registry"),
    ],
)
def test_a_reference_that_leads_nowhere_is_explained(reference: str, message: str) -> None:
    for arguments in ((reference, HANDLERS), (f"{EXAMPLES}:ALL_JOBS", reference)):
        with pytest.raises(ContractError) as caught:
            load_workflows(*arguments)
        assert message in str(caught.value)


def test_a_key_that_differs_from_the_job_type_is_refused(bring: Bring) -> None:
    bring(f"from {EXAMPLES} import EchoJob\nALL_JOBS = {{'shout': EchoJob}}\n")
    with pytest.raises(ContractError) as caught:
        load_workflows("team:ALL_JOBS", HANDLERS)
    assert str(caught.value) == (
        "team:ALL_JOBS registers EchoJob as 'shout', but its job_type is 'echo': make them equal."
    )


def test_a_stage_without_a_handler_is_named_with_what_there_is(bring: Bring) -> None:
    bring(f"from {EXAMPLES} import EchoJob, handle_say\nJ = {{'echo': EchoJob}}\nH = {{'Echo-Say': handle_say}}\n")
    with pytest.raises(ContractError) as caught:
        load_workflows("team:J", "team:H")
    assert str(caught.value) == (
        "EchoJob: stage 2 ('hear') wants a handler for the task type 'echo_hear', and team:H registers none;"
        " registered are: echo_say."
    )
    bring("H = {}", file="team_empty.py")
    with pytest.raises(ContractError, match="registered are: none at all"):
        load_workflows("team:J", "team_empty:H")


@pytest.mark.parametrize(
    ("handlers", "message"),
    [("{'a': 3}", "registers 3 as 'a'"), ("{3: len}", "as 3"), ("{'a-b': len, 'A_B': len}", "'a_b' twice")],
)
def test_a_handler_registry_has_to_map_names_to_functions(bring: Bring, handlers: str, message: str) -> None:
    bring(f"H = {handlers}")
    with pytest.raises(ContractError) as caught:
        load_workflows(f"{EXAMPLES}:ALL_JOBS", "team:H")
    assert message in str(caught.value)


def test_a_class_that_lacks_an_element_is_refused_by_name(bring: Bring) -> None:
    bring("from jobs.base import JobBase\nclass Half(JobBase):\n    job_type = 'half'\nALL_JOBS = {'half': Half}\n")
    with pytest.raises(ContractError, match=r"Half lacks the element 'stages'.*Half lacks the element 'queue_job'"):
        load_workflows("team:ALL_JOBS", HANDLERS)


def test_a_ported_class_may_stand_among_the_others_with_its_own_handlers(bring: Bring) -> None:
    bring("from geo_assets.jobs.hello_world import HelloWorld\nALL_JOBS = {'hello_world': HelloWorld}\nH = {}\n")
    ((workflow, handlers),) = load_workflows("team:ALL_JOBS", "team:H")
    assert handlers == workflow.handlers  # type: ignore[attr-defined]


def test_the_settings_name_both_registries_or_none() -> None:
    assert configured_workflows(Settings()) == []
    both = Settings(legacy_jobs=f"{EXAMPLES}:ALL_JOBS", legacy_handlers=HANDLERS)
    assert len(configured_workflows(both)) == 3
    with pytest.raises(SettingsError, match="set both, or neither"):
        configured_workflows(Settings(legacy_jobs="a:b"))
    with pytest.raises(SettingsError, match="set both, or neither"):
        configured_workflows(Settings(legacy_handlers="a:b"))
