"""``geo-assets contract``: the table, given classes, exit statuses."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run

INCOMPLETE = """
print("a module that prints")

class Half:
    job_type = "half"
    stages = [{"number": 1, "name": "only", "task_type": "only", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params):
        return params

    def generate_job_id(self, params):
        return "x"

NOT_A_CLASS = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the current folder with an incomplete class."""
    name = f"half_jobs_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(INCOMPLETE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_our_own_workflows_keep_the_contract(run: Run) -> None:
    ended = run("contract", "--json")
    assert ended.status == 0
    rows = {row["jobType"]: row for row in ended.json}
    assert {"hello_world", "list_container_contents", "summarize_container"} <= set(rows)
    assert all(row["complete"] and row["registered"] and len(row["elements"]) == 7 for row in rows.values())
    assert run("contract").stdout.count("present") == 7 * len(rows)


def test_an_incomplete_class_is_told_element_by_element(run: Run, module: str) -> None:
    ended = run("contract", f"{module}:Half", "--json")
    assert ended.status == 1
    assert "a module that prints" in ended.stderr
    row = ended.json[-1]
    assert (row["workflow"], row["registered"], row["complete"]) == ("Half", False, False)
    assert row["elements"] == {
        "stages": "present",
        "validate_job_parameters": "present",
        "generate_job_id": "wrong signature",
        "create_tasks_for_stage": "missing",
        "create_job_record": "missing",
        "queue_job": "missing",
        "aggregate_job_results": "missing",
    }
    assert any("lacks the element 'queue_job'" in problem for problem in row["problems"])
    shown = run("contract", f"{module}:Half")
    assert shown.status == 1
    assert "Half (given)" in shown.stdout
    assert "wrong signature" in shown.stdout


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("hello", "write module:Class"),
        (":Half", "write module:Class"),
        ("no_such_module:Half", "cannot be imported (ModuleNotFoundError"),
        ("{module}:Whole", "is nothing, not a class"),
        ("{module}:NOT_A_CLASS", "is a int, not a class"),
    ],
)
def test_what_is_no_class_is_refused(run: Run, module: str, spec: str, said: str) -> None:
    ended = run("contract", spec.format(module=module))
    assert ended.status == 2
    assert said in ended.stderr
