"""docs/bring-your-workflows.md: its examples run, and what its tables say is there."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest

from geo_assets.coremachine import legacy
from geo_assets.coremachine.contract import (
    ELEMENTS,
    SUBMIT_FIELDS,
    JobExecutionContext,
    TaskResult,
    TaskStatus,
    check_contract,
)
from geo_assets.settings import Settings
from tests.services.found import REPOSITORY

PAGE = (REPOSITORY / "docs" / "bring-your-workflows.md").read_text()


@pytest.fixture
def examples() -> Iterator[tuple[Any, Any]]:
    """The class before and after, as the page has them."""
    finders = list(sys.meta_path)
    legacy.install()
    before, after = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    modules = []
    for name, source in (("before", before), ("after", after)):
        module = ModuleType(name)
        exec(compile(source, f"{name} in bring-your-workflows.md", "exec"), vars(module))  # noqa: S102 - our own page
        modules.append(module)
    yield modules[0].ShelfWorkflow, modules[1].Shelf
    sys.meta_path[:] = finders


def test_both_forms_keep_the_contract(examples: tuple[Any, Any]) -> None:
    for workflow in examples:
        assert check_contract(workflow).complete


def test_the_ported_class_does_the_same(examples: tuple[Any, Any]) -> None:
    before, after = examples
    given = {"shelf": "a", "items": 2}
    params = before.validate_job_parameters(given)
    assert after.validate_job_parameters(given) == params
    assert after.validate_job_parameters({"shelf": "a"}) == before.validate_job_parameters({"shelf": "a"})
    job_id = before.generate_job_id(params)
    assert after.generate_job_id(params) == job_id
    tasks = before.create_tasks_for_stage(1, params, job_id, previous_results=None)
    assert after.create_tasks_for_stage(1, params, job_id, previous_results=None) == tasks
    assert before.create_job_record(job_id, params)["total_stages"] == 1
    assert before.queue_job(job_id, params)["queued"]
    results = [
        TaskResult(
            task_id=task["task_id"],
            task_type=task["task_type"],
            status=TaskStatus.COMPLETED,
            result_data=after.handlers["weigh_item"](task["parameters"]),
            timestamp=datetime.now(UTC),
        )
        for task in tasks
    ]
    context = JobExecutionContext(
        job_id=job_id, job_type="weigh_shelf", current_stage=1, total_stages=1, parameters=params, task_results=results
    )
    assert before.aggregate_job_results(context) == after.aggregate_job_results(context)
    assert after.aggregate_job_results(context) == {"job_type": "weigh_shelf", "grams": 201}
    for workflow in examples:
        with pytest.raises(ValueError, match="shelf is required"):
            workflow.validate_job_parameters({})


def test_the_page_names_every_element_stand_in_setting_and_submit_field() -> None:
    for element in ELEMENTS:
        assert f"`{element.name}" in PAGE
    for name in legacy.STAND_INS:
        top, _, rest = name.partition(".")
        assert f"`{name}`" in PAGE or f"`.{rest.rpartition('.')[2]}`" in PAGE or f"`{top}" in PAGE, name
    for field in ("legacy_jobs", "legacy_handlers", "bronze_container"):
        assert field in Settings.model_fields
        assert f"GEO_ASSETS_{field.upper()}" in PAGE
    for field in SUBMIT_FIELDS:
        assert f"`{field}`" in PAGE


def test_every_name_the_table_of_stand_ins_offers_is_there() -> None:
    offered = {name for members in legacy.STAND_INS.values() for name in members}
    table = PAGE.split("| module | offers |")[1].split("\n\n")[0]
    named = {name for name in re.findall(r"`([A-Za-z_]+)(?:\(\))?`", table) if not name.startswith(("core", "infra"))}
    modules = {part for name in legacy.STAND_INS for part in name.split(".")}
    methods = {"create_job", "create_task", "parameters_schema"}
    assert named - modules - methods <= offered
