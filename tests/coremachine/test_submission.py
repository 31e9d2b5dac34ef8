"""The way into the queue: the answers' shapes, refusals that write nothing, keys, prefixes, retries.

What belongs here: what submission adds to the ledger's decisions.  What does not: the decisions themselves
(``test_ledger_contract``).
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

import pytest

from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, Workflow, WorkflowParameters
from geo_assets.coremachine.ledger import (
    BULK_PRIORITY,
    INTERACTIVE_PRIORITY,
    Decision,
    JobFilter,
    Ledger,
    Settlement,
)
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import (
    Answer,
    failed_jobs,
    prepare,
    retry_jobs,
    submit,
    submit_keys,
    submit_many,
)
from geo_assets.errors import BlobNotFoundError, ContractError, ParameterError, UnknownJobTypeError
from geo_assets.jobs.hello_world import HelloWorld
from geo_assets.settings import Settings


class Source(dict[str, str]):
    """Blob name → ETag; stands in for a blob store."""


class Parameters(WorkflowParameters):
    blob_name: str
    quality: int = 75


class Convert(Workflow):
    """One job a blob; its source version is the blob's ETag."""

    job_type = "convert"
    description = "Convert one blob"
    Parameters = Parameters
    stages: ClassVar[list[dict[str, Any]]] = [
        {"number": 1, "name": "read", "task_type": "read"},
        {"number": 2, "name": "write", "task_type": "read"},
    ]
    handlers: ClassVar[dict[str, Callable[..., Any]]] = {"read": lambda params: {"success": True}}
    asset = "converted"
    key_parameter = "blob_name"

    @classmethod
    def create_tasks_for_stage(cls, *_: Any, **__: Any) -> list[dict[str, Any]]:
        return []

    @classmethod
    def source_version(cls, params: dict[str, Any], services: Mapping[str, Any]) -> str | None:
        try:
            etag: str = services["source"][params["blob_name"]]
        except KeyError:
            raise BlobNotFoundError(f"{params['blob_name']} is not there") from None
        return etag

    @classmethod
    def keys_with_prefix(cls, prefix: str, services: Mapping[str, Any]) -> Iterable[str]:
        return (name for name in services["source"] if name.startswith(prefix))


@pytest.fixture
def source() -> Source:
    return Source({f"tiles/{number}.tif": "etag-1" for number in range(30)} | {"other.tif": "etag-1"})


@pytest.fixture
def machine(sqlite_ledger: Ledger, source: Source) -> CoreMachine:
    return CoreMachine(
        ledger=sqlite_ledger,
        registry=registry_of([bind(Convert), bind(HelloWorld)]),
        settings=Settings(),
        services={"source": source},
    )


def work(machine: CoreMachine, status: JobStatus = JobStatus.COMPLETED) -> None:
    """Give what waits to a run and end it."""
    outcome = OutcomeKind.CREATED if status is JobStatus.COMPLETED else OutcomeKind.FAILED
    run_id = f"run-{len(machine.ledger.jobs(limit=None))}-{status.value}"
    for wave in machine.ledger.assign_waves(wave_size=1000, waves_at_once=100):
        machine.ledger.claim_wave(wave.wave_id, run_id)
    machine.ledger.settle(
        run_id,
        [
            Settlement(attempt_id=a.attempt_id, status=status, outcome=outcome, result_data={"n": a.number}, stage=2)
            for a in machine.ledger.attempts_of_run(run_id, statuses=[JobStatus.PROCESSING])
        ],
    )


BLOB = {"blob_name": "other.tif"}


def is_time(value: Any) -> bool:
    return isinstance(value, str) and datetime.fromisoformat(value).utcoffset() is not None


# --- the answers of the original ---------------------------------------------------------------------------------


def test_the_answer_to_a_new_job(machine: CoreMachine) -> None:
    answer = submit(machine, "convert", BLOB).as_dict()
    params = {"blob_name": "other.tif", "quality": 75}
    job_id = hashlib.sha256(b'{"blob_name": "other.tif", "quality": 75}').hexdigest()
    assert re.fullmatch("[0-9a-f-]{36}", answer["queue_info"].pop("message_id"))
    assert answer == {
        "job_id": job_id,
        "status": "created",
        "job_type": "convert",
        "message": "Job created and queued",
        "parameters": params,
        "queue_info": {
            "queued": True,
            "queue_type": "ledger",
            "queue_name": "geo_assets-jobs",
            "job_id": job_id,
        },
        "idempotent": False,
    }


def test_the_answer_from_the_record(machine: CoreMachine) -> None:
    submit(machine, "convert", BLOB)
    work(machine)
    answer = submit(machine, "convert", BLOB).as_dict()
    assert is_time(answer.pop("created_at"))
    assert is_time(answer.pop("completed_at"))
    job_id = answer.pop("job_id")
    assert machine.ledger.job(job_id).status is JobStatus.COMPLETED
    assert answer == {
        "status": "already_completed",
        "job_type": "convert",
        "message": "Job already completed with identical parameters and source (idempotency)",
        "parameters": {"blob_name": "other.tif", "quality": 75},
        "result_data": {"n": 1},
        "idempotent": True,
    }


@pytest.mark.parametrize("status", ["queued", "processing"])
def test_the_answer_to_a_job_under_way(machine: CoreMachine, status: str) -> None:
    submit(machine, "convert", BLOB)
    if status == "processing":
        (wave,) = machine.ledger.assign_waves(wave_size=9, waves_at_once=9)
        (attempt,) = machine.ledger.claim_wave(wave.wave_id, "run-1")
        machine.ledger.advance("run-1", {attempt.attempt_id: (2, {})})
    answer = submit(machine, "convert", BLOB).as_dict()
    assert is_time(answer.pop("created_at"))
    answer.pop("job_id")
    assert answer == {
        "status": status,
        "job_type": "convert",
        "message": f"Job already exists with status: {status} (idempotency - not re-queued)",
        "parameters": {"blob_name": "other.tif", "quality": 75},
        "current_stage": 2 if status == "processing" else 1,
        "total_stages": 2,
        "idempotent": True,
    }


@pytest.mark.parametrize("why", ["failed", "replaced", "forced"])
def test_the_answer_to_a_job_that_is_queued_again(machine: CoreMachine, source: Source, why: str) -> None:
    submit(machine, "convert", BLOB)
    work(machine, JobStatus.FAILED if why == "failed" else JobStatus.COMPLETED)
    if why == "replaced":
        source["other.tif"] = "etag-2"
    answer = submit(machine, "convert", BLOB, force=why == "forced")
    assert answer.submitted.decision is Decision.REQUEUED
    shown = answer.as_dict()
    assert (shown["status"], shown["idempotent"]) == ("created", False)
    assert shown["message"] == "Job queued again (attempt 2)"
    assert shown["queue_info"]["job_id"] == answer.job.job_id
    assert answer.job.status is JobStatus.QUEUED


def test_a_replaced_blob_that_is_submitted_while_the_old_one_is_read(machine: CoreMachine, source: Source) -> None:
    submit(machine, "convert", BLOB)
    (wave,) = machine.ledger.assign_waves(wave_size=9, waves_at_once=9)
    machine.ledger.claim_wave(wave.wave_id, "run-1")
    assert submit(machine, "convert", BLOB).submitted.decision is Decision.IN_PROGRESS
    source["other.tif"] = "etag-2"
    answer = submit(machine, "convert", BLOB)
    assert answer.submitted.decision is Decision.REQUEUED
    first, second = machine.ledger.attempts_of_job("convert", answer.job.job_id)
    assert (first.source_version, second.source_version) == ("etag-1", "etag-2")


def test_hello_world_with_another_failure_rate_is_the_same_job(machine: CoreMachine) -> None:
    first = submit(machine, "hello_world", {"failure_rate": 0.5})
    assert first.job.job_id == "149580b8d06f0036537a68bbf149ba9f4e72160438cab4c08ce63591081a61e1"
    assert submit(machine, "hello_world", {}).job.job_id == first.job.job_id


# --- refusals ----------------------------------------------------------------------------------------------------


def test_an_unknown_job_type_is_refused_with_those_there_are(machine: CoreMachine) -> None:
    with pytest.raises(UnknownJobTypeError, match=r"Unknown job type: 'fly'. Available: convert, hello_world"):
        submit(machine, "fly", {})


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "blob_name is required"),
        ({"blob_name": 5}, "blob_name: Input should be a valid string, got int"),
        ({**BLOB, "quality": "high"}, "quality: Input should be a valid integer, got str"),
        ({**BLOB, "tile": 5}, "convert: unknown parameter 'tile'; it takes: blob_name, quality"),
        ([], "convert: parameters must be a JSON object, got list"),
    ],
)
def test_parameters_that_are_refused_write_nothing(machine: CoreMachine, params: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        submit(machine, "convert", params)
    assert machine.ledger.jobs() == []


def test_one_refusal_refuses_the_whole_submission(machine: CoreMachine) -> None:
    good = [{"blob_name": f"tiles/{number}.tif"} for number in range(10)]
    bad: list[dict[str, Any]] = [{"blob_name": number} for number in range(7)]
    with pytest.raises(ParameterError) as caught:
        submit_many(machine, "convert", [*good, *bad])
    message = str(caught.value)
    assert "job 11: blob_name: Input should be a valid string, got int" in message
    assert message.count("job 1") == 5
    assert message.endswith("; and 2 more")
    assert machine.ledger.jobs() == []


def test_a_source_that_is_not_there_refuses_the_submission(machine: CoreMachine) -> None:
    with pytest.raises(BlobNotFoundError, match=r"nowhere\.tif is not there"):
        submit_many(machine, "convert", [BLOB, {"blob_name": "nowhere.tif"}])
    assert machine.ledger.jobs() == []


def test_a_class_whose_queue_job_raises_has_queued_nothing(machine: CoreMachine) -> None:
    def broken(_job_id: str, _params: dict[str, Any]) -> dict[str, Any]:
        raise OSError("the bus is gone")

    lame = type("Lame", (HelloWorld,), {"job_type": "lame", "asset": "lame", "queue_job": staticmethod(broken)})
    broken_machine = CoreMachine(
        ledger=machine.ledger, registry=registry_of([bind(lame)]), settings=machine.settings, services={}
    )
    with pytest.raises(ContractError, match="the bus is gone"):
        submit(broken_machine, "lame", {})
    assert machine.ledger.jobs() == []


def test_preparing_writes_nothing(machine: CoreMachine) -> None:
    new = prepare(machine, machine.registry["convert"], BLOB, force=True, priority=3, submitted_by="test")
    assert (new.partition_key, new.source_version, new.total_stages) == ("other.tif", "etag-1", 2)
    assert (new.force, new.priority, new.submitted_by) == (True, 3, "test")
    assert new.metadata == {"description": "Convert one blob", "created_by": "Convert"}
    assert machine.ledger.jobs() == []


# --- many --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "priority"), [(20, INTERACTIVE_PRIORITY), (21, BULK_PRIORITY)])
def test_a_small_submission_goes_first(machine: CoreMachine, count: int, priority: int) -> None:
    answers = submit_many(machine, "convert", [{"blob_name": f"tiles/{number}.tif"} for number in range(count)])
    assert len(answers) == count
    (attempt,) = machine.ledger.attempts_of_job("convert", answers[-1].job.job_id)
    assert attempt.priority == priority


def test_the_answers_come_in_the_order_of_the_questions(machine: CoreMachine) -> None:
    names = ["tiles/3.tif", "other.tif", "tiles/1.tif", "other.tif"]
    answers = submit_many(machine, "convert", [{"blob_name": name} for name in names])
    assert [answer.job.partition_key for answer in answers] == names
    assert [answer.as_dict()["status"] for answer in answers] == ["created", "created", "created", "queued"]


def _keys(answers: list[Answer]) -> list[str]:
    return [answer.job.partition_key for answer in answers]


def test_one_job_a_key_with_the_same_other_parameters(machine: CoreMachine) -> None:
    answers = submit_keys(
        machine, "convert", keys=["tiles/1.tif", "other.tif", "tiles/1.tif"], params={"quality": 90}, submitted_by="me"
    )
    assert _keys(answers) == ["tiles/1.tif", "other.tif"]
    assert {answer.job.parameters["quality"] for answer in answers} == {90}
    assert machine.ledger.attempts_of_job("convert", answers[0].job.job_id)[0].submitted_by == "me"


def test_one_job_for_each_key_that_starts_with_a_prefix(machine: CoreMachine) -> None:
    answers = submit_keys(machine, "convert", prefix="tiles/2", keys=["tiles/29.tif", "other.tif"])
    assert _keys(answers)[:2] == ["tiles/29.tif", "other.tif"]
    assert len(_keys(answers)) == len(set(_keys(answers))) == 12


def test_without_keys_and_prefix_the_parameters_make_one_job(machine: CoreMachine) -> None:
    assert _keys(submit_keys(machine, "convert", params=BLOB)) == ["other.tif"]
    assert len(submit_keys(machine, "hello_world")) == 1


def test_a_prefix_that_matches_nothing_is_said(machine: CoreMachine) -> None:
    with pytest.raises(ParameterError, match="convert: nothing starts with the prefix 'nope/'"):
        submit_keys(machine, "convert", prefix="nope/")


@pytest.mark.parametrize("given", [{"keys": ["a"]}, {"prefix": "a"}])
def test_a_workflow_without_a_key_parameter_takes_neither(machine: CoreMachine, given: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="hello_world has no key parameter"):
        submit_keys(machine, "hello_world", **given)


# --- again -------------------------------------------------------------------------------------------------------


def test_failed_jobs_are_queued_again_as_they_are_recorded(machine: CoreMachine, source: Source) -> None:
    submit_many(machine, "convert", [{"blob_name": f"tiles/{number}.tif", "quality": 60} for number in range(3)])
    submit(machine, "hello_world", {"n": 7})
    work(machine, JobStatus.FAILED)
    submit(machine, "convert", BLOB)
    work(machine)
    # one source has gone meanwhile: its job says so itself, and does not keep the others from running
    del source["tiles/1.tif"]
    source["tiles/2.tif"] = "etag-2"
    failed = failed_jobs(machine)
    assert len(failed) == 4
    answers = retry_jobs(machine, failed)
    assert [answer.job.job_id for answer in answers] == [job.job_id for job in failed]
    assert {answer.submitted.decision for answer in answers} == {Decision.REQUEUED}
    assert {answer.job.attempts for answer in answers} == {2}
    by_key = {answer.job.partition_key: answer.job for answer in answers}
    assert by_key["tiles/0.tif"].parameters == {"blob_name": "tiles/0.tif", "quality": 60}

    def source_version(key: str) -> str | None:
        return machine.ledger.attempts_of_job("convert", by_key[key].job_id)[-1].source_version

    assert (source_version("tiles/0.tif"), source_version("tiles/1.tif"), source_version("tiles/2.tif")) == (
        "etag-1",
        None,
        "etag-2",
    )
    (attempt,) = machine.ledger.attempts_of_job("convert", by_key["tiles/0.tif"].job_id)[1:]
    assert (attempt.submitted_by, attempt.priority) == ("retry", INTERACTIVE_PRIORITY)
    assert failed_jobs(machine) == []
    assert [answer.submitted.decision for answer in retry_jobs(machine, failed)] == [Decision.IN_PROGRESS] * 4


def test_a_validation_that_is_not_its_own_inverse_does_not_make_a_retry_another_job(machine: CoreMachine) -> None:
    def validate(params: dict[str, Any]) -> dict[str, Any]:
        return {"n": params["n"] + 1}

    odd = type("Odd", (HelloWorld,), {"job_type": "odd", "validate_job_parameters": staticmethod(validate)})
    odd_machine = CoreMachine(
        ledger=machine.ledger, registry=registry_of([bind(odd)]), settings=machine.settings, services={}
    )
    first = submit(odd_machine, "odd", {"n": 1})
    work(odd_machine, JobStatus.FAILED)
    (again,) = retry_jobs(odd_machine, failed_jobs(odd_machine))
    assert (again.job.job_id, again.job.parameters) == (first.job.job_id, {"n": 2})


def test_jobs_of_a_workflow_that_is_gone_cannot_be_retried(machine: CoreMachine) -> None:
    submit(machine, "hello_world", {})
    work(machine, JobStatus.FAILED)
    bare = CoreMachine(
        ledger=machine.ledger, registry=registry_of([bind(Convert)]), settings=machine.settings, services={}
    )
    with pytest.raises(UnknownJobTypeError, match="hello_world"):
        retry_jobs(bare, failed_jobs(bare))


def test_a_retry_does_not_ask_the_record(machine: CoreMachine) -> None:
    answer = submit(machine, "convert", BLOB)
    work(machine)
    (again,) = retry_jobs(machine, [answer.job])
    assert again.submitted.decision is Decision.REQUEUED


def test_retrying_nothing_does_nothing(machine: CoreMachine) -> None:
    assert retry_jobs(machine, []) == []


def test_failed_jobs_are_chosen_by_what_is_asked(machine: CoreMachine) -> None:
    submit(machine, "convert", BLOB)
    work(machine, JobStatus.FAILED)
    submit(machine, "hello_world", {})
    work(machine, JobStatus.COMPLETED_WITH_ERRORS)
    assert {job.job_type for job in failed_jobs(machine)} == {"convert", "hello_world"}
    assert [job.job_type for job in failed_jobs(machine, JobFilter(asset="converted"))] == ["convert"]
    assert [job.job_type for job in failed_jobs(machine, JobFilter(statuses=(JobStatus.FAILED,)))] == ["convert"]
    assert failed_jobs(machine, JobFilter(reason_contains="nothing like it")) == []
