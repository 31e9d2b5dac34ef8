"""What the ledger promises, on every database: submissions, waves, claims, fences, recovery, reading.

What belongs here: promises that each database must keep; each test runs on SQLite and on PostgreSQL.  What does not:
speed and pure functions (``test_ledger``), schema and outages (``test_migrations``).
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from geo_assets.coremachine.claims import Claims
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskStatus
from geo_assets.coremachine.ledger import (
    BULK_PRIORITY,
    INTERACTIVE_PRIORITY,
    Attempt,
    Decision,
    Job,
    JobFilter,
    Ledger,
    NewJob,
    NewTask,
    Settlement,
    TaskUpdate,
    Wave,
)
from geo_assets.coremachine.ledger_tables import (
    ATTEMPT_TRANSITIONS,
    attempts,
    audit,
    jobs,
    notices,
    source_entries,
    source_looks,
    sources_of,
    tasks,
    waves,
)
from geo_assets.errors import IllegalTransitionError, JobNotFoundError, ParameterError
from tests.services.found import REPOSITORY

CREATED, REQUEUED, RECORDED, IN_PROGRESS = Decision.CREATED, Decision.REQUEUED, Decision.RECORDED, Decision.IN_PROGRESS
QUEUED, PROCESSING, COMPLETED, FAILED, PARTLY, CANCELLED = (
    JobStatus.QUEUED,
    JobStatus.PROCESSING,
    JobStatus.COMPLETED,
    JobStatus.FAILED,
    JobStatus.COMPLETED_WITH_ERRORS,
    JobStatus.CANCELLED,
)


def new(number: int = 1, **changes: Any) -> NewJob:
    """A job of its own partition."""
    values: dict[str, Any] = {
        "job_type": "greet",
        "job_id": f"{number:08x}{'0' * 56}",
        "asset": "greetings",
        "partition_key": f"key-{number}",
        "parameters": {"n": number},
        "total_stages": 2,
        "metadata": {"description": "a greeting"},
        "source_version": "etag-1",
    }
    return NewJob(**values | changes)


def decisions(ledger: Ledger, *new_jobs: NewJob) -> list[Decision]:
    """Submit and return what was decided."""
    return [submitted.decision for submitted in ledger.submit(new_jobs)]


def wave_of(ledger: Ledger, **changes: Any) -> list[Wave]:
    """Assign waves with generous limits."""
    return ledger.assign_waves(**{"wave_size": 100, "waves_at_once": 100} | changes)


def run_all(ledger: Ledger, run_id: str) -> list[Attempt]:
    """Give everything that waits to one run."""
    for wave in wave_of(ledger):
        ledger.claim_wave(wave.wave_id, run_id)
    return ledger.attempts_of_run(run_id)


def ended(attempt: Attempt, status: JobStatus = COMPLETED, **changes: Any) -> Settlement:
    """How an attempt ended."""
    outcomes = {
        COMPLETED: OutcomeKind.CREATED,
        FAILED: OutcomeKind.FAILED,
        PARTLY: OutcomeKind.FAILED,
        CANCELLED: OutcomeKind.CANCELLED,
    }
    values: dict[str, Any] = {
        "attempt_id": attempt.attempt_id,
        "status": status,
        "outcome": outcomes.get(status, OutcomeKind.FAILED),
        "result_data": {"from": attempt.run_id} if status in (COMPLETED, PARTLY) else None,
        "stage": 2,
        "stage_results": {"1": {"tasks": 1}},
    }
    return Settlement(**values | changes)


def finish(ledger: Ledger, run_id: str, status: JobStatus = COMPLETED) -> None:
    """Run what waits and end it all alike."""
    held = run_all(ledger, run_id)
    assert ledger.settle(run_id, [ended(attempt, status) for attempt in held]) == set()


def the_job(ledger: Ledger, number: int = 1) -> Job:
    return ledger.job(new(number).job_id, "greet")


def the_attempts(ledger: Ledger, number: int = 1) -> list[Attempt]:
    return ledger.attempts_of_job("greet", new(number).job_id)


def task(attempt: Attempt, index: int = 0, stage: int = 1, **changes: Any) -> NewTask:
    values: dict[str, Any] = {
        "attempt_id": attempt.attempt_id,
        "stage": stage,
        "task_index": index,
        "task_id": f"task-{stage}-{index}",
        "parent_job_id": attempt.job_id,
        "job_type": attempt.job_type,
        "task_type": "say",
        "parameters": {"index": index},
        "metadata": {"m": 1},
    }
    return NewTask(**values | changes)


def done(attempt: Attempt, index: int = 0, stage: int = 1, **changes: Any) -> TaskUpdate:
    values: dict[str, Any] = {
        "attempt_id": attempt.attempt_id,
        "stage": stage,
        "task_index": index,
        "status": TaskStatus.COMPLETED,
        "outcome": OutcomeKind.CREATED,
        "reason": None,
        "result_data": {"success": True, "index": index},
        "error_details": None,
        "traceback": None,
        "retry_count": 0,
        "execution_time_ms": 5,
    }
    return TaskUpdate(**values | changes)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run these at the same time in a thread each; their returns, or what one of them raised."""
    barrier = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(position: int, work: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            results[position] = work()
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            errors.append(error)

    threads = [threading.Thread(target=run, args=(position, work)) for position, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results


# --- submission --------------------------------------------------------------------------------------------------


def test_a_new_job_is_created_with_one_waiting_attempt(ledger: Ledger) -> None:
    (submitted,) = ledger.submit([new(submitted_by="cli", priority=INTERACTIVE_PRIORITY)])
    assert submitted.decision is CREATED
    job = submitted.job
    assert (job.status, job.attempts, job.stage, job.total_stages, job.outcome) == (QUEUED, 1, 1, 2, None)
    assert (job.parameters, job.metadata, job.asset, job.partition_key) == (
        {"n": 1},
        {"description": "a greeting"},
        "greetings",
        "key-1",
    )
    (attempt,) = the_attempts(ledger)
    assert attempt.attempt_id == job.latest_attempt
    assert (attempt.number, attempt.status, attempt.source_version) == (1, QUEUED, "etag-1")
    assert (attempt.submitted_by, attempt.priority) == ("cli", INTERACTIVE_PRIORITY)
    assert (attempt.parameters, attempt.job_metadata) == (job.parameters, job.metadata)
    assert (attempt.wave_id, attempt.run_id, attempt.releases, attempt.cancel_requested) == (None, None, 0, False)


def test_nothing_submitted_is_nothing_done(ledger: Ledger) -> None:
    assert ledger.submit([]) == []
    assert ledger.jobs() == []


def test_a_completed_job_is_answered_from_the_record(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    (submitted,) = ledger.submit([new()])
    assert submitted.decision is RECORDED
    assert submitted.job.result_data == {"from": "run-1"}
    assert submitted.job.completed_at is not None
    assert len(the_attempts(ledger)) == 1


@pytest.mark.parametrize(
    "changes",
    [{"source_version": "etag-2"}, {"source_version": None}, {"force": True}, {"max_age_seconds": 0.0}],
    ids=["replaced", "source gone", "forced", "no age counts"],
)
def test_a_completed_job_is_run_again_when_the_record_does_not_answer(ledger: Ledger, changes: dict[str, Any]) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    assert decisions(ledger, new(**changes)) == [REQUEUED]
    job = the_job(ledger)
    assert (job.status, job.attempts, job.stage, job.outcome, job.run_id) == (QUEUED, 2, 1, None, None)
    assert job.result_data == {"from": "run-1"}, "the last result is there until the next one is"
    assert [attempt.status for attempt in the_attempts(ledger)] == [COMPLETED, QUEUED]
    finish(ledger, "run-2")
    assert the_job(ledger).result_data == {"from": "run-2"}
    assert the_job(ledger).source_version == changes.get("source_version", "etag-1")


@pytest.mark.parametrize(("age", "decision"), [(3600.0, RECORDED), (None, RECORDED), (60.0, REQUEUED)])
def test_a_record_counts_up_to_its_age(ledger: Ledger, age: float | None, decision: Decision) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    with ledger.engine.begin() as connection:
        old = the_job(ledger).updated_at - timedelta(seconds=600)
        connection.execute(jobs.update().values(completed_at=old))
    assert decisions(ledger, new(max_age_seconds=age)) == [decision]


@pytest.mark.parametrize("status", [FAILED, PARTLY, CANCELLED])
def test_a_job_that_did_not_end_well_is_queued_again(ledger: Ledger, status: JobStatus) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1", status)
    assert the_job(ledger).status is status
    assert decisions(ledger, new()) == [REQUEUED]
    assert (the_job(ledger).status, the_job(ledger).error_details) == (QUEUED, None)


@pytest.mark.parametrize("changes", [{}, {"force": True}, {"source_version": "etag-2"}, {"max_age_seconds": 0.0}])
def test_a_job_that_waits_is_left_alone(ledger: Ledger, changes: dict[str, Any]) -> None:
    ledger.submit([new()])
    (submitted,) = ledger.submit([new(**changes)])
    assert submitted.decision is IN_PROGRESS
    assert submitted.job.status is QUEUED
    (attempt,) = the_attempts(ledger)
    # it reads the source when it starts, which is after the submission that named this version
    assert attempt.source_version == changes.get("source_version", "etag-1")


def test_a_job_at_work_on_the_same_source_is_left_alone(ledger: Ledger) -> None:
    ledger.submit([new()])
    run_all(ledger, "run-1")
    (submitted,) = ledger.submit([new(max_age_seconds=0.0)])
    assert submitted.decision is IN_PROGRESS
    assert submitted.job.status is PROCESSING
    assert len(the_attempts(ledger)) == 1


@pytest.mark.parametrize("changes", [{"source_version": "etag-2"}, {"force": True}])
def test_a_source_replaced_while_its_job_is_at_work_queues_a_second_attempt_that_waits(
    ledger: Ledger, changes: dict[str, Any]
) -> None:
    ledger.submit([new()])
    (first,) = run_all(ledger, "run-1")
    assert decisions(ledger, new(**changes)) == [REQUEUED]
    assert [attempt.status for attempt in the_attempts(ledger)] == [PROCESSING, QUEUED]
    assert decisions(ledger, new(**changes)) == [IN_PROGRESS], "one waits already"
    assert wave_of(ledger) == [], "its partition is at work"
    # the job stands for its latest attempt: what the first one brings does not hide that one is waiting
    assert ledger.settle("run-1", [ended(first)]) == set()
    assert (the_job(ledger).status, the_job(ledger).result_data) == (QUEUED, None)
    assert the_attempts(ledger)[0].result_data == {"from": "run-1"}
    finish(ledger, "run-2")
    assert (the_job(ledger).status, the_job(ledger).attempts) == (COMPLETED, 2)
    assert the_job(ledger).source_version == changes.get("source_version", "etag-1")


def test_the_same_job_twice_in_one_submission_is_queued_once(ledger: Ledger) -> None:
    assert decisions(ledger, new(1), new(2), new(1), new(1)) == [CREATED, CREATED, IN_PROGRESS, IN_PROGRESS]
    assert len(the_attempts(ledger)) == 1
    finish(ledger, "run-1")
    assert decisions(ledger, new(1), new(1)) == [RECORDED, RECORDED]


def test_equal_ids_of_two_job_types_are_two_jobs(ledger: Ledger) -> None:
    other = new(job_type="bid_farewell", asset="farewells")
    assert decisions(ledger, new(), other) == [CREATED, CREATED]
    made = wave_of(ledger, only_jobs=[ledger.job(other.job_id, "bid_farewell")])
    assert [wave.job_type for wave in made] == ["bid_farewell"], "the other job has the same id and waits"
    (attempt,) = ledger.claim_wave(made[0].wave_id, "run-1")
    ledger.settle("run-1", [ended(attempt)])
    assert ledger.job(other.job_id, "bid_farewell").status is COMPLETED
    assert the_job(ledger).status is QUEUED
    with pytest.raises(ParameterError, match=r"matches several jobs \(.*greet/"):
        ledger.job(other.job_id)


def test_two_threads_that_submit_one_job_at_once_make_one_attempt(ledger: Ledger) -> None:
    for number in range(8):
        both = together(*(lambda n=number: decisions(ledger, new(n)) for _ in range(3)))
        assert sorted(decision.value for (decision,) in both) == ["created", "in_progress", "in_progress"]
        assert len(the_attempts(ledger, number)) == 1


def test_overlapping_submissions_in_different_order_all_arrive(ledger: Ledger) -> None:
    everything = [new(number) for number in range(60)]
    together(*(lambda order=order: ledger.submit(order) for order in (everything, everything[::-1], everything[30:])))
    assert len(ledger.jobs(limit=None)) == 60
    assert all(job.attempts == 1 for job in ledger.jobs(limit=None))


def test_more_jobs_than_one_statement_takes(ledger: Ledger) -> None:
    submitted = ledger.submit([new(number) for number in range(2500)])
    assert [one.job.parameters["n"] for one in submitted] == list(range(2500))
    assert {one.decision for one in submitted} == {CREATED}


# --- waves -------------------------------------------------------------------------------------------------------


def test_a_wave_holds_scattered_partitions_of_one_workflow(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in (3, 900, 17, 4000)])
    ledger.submit([new(5, job_type="bid_farewell", asset="farewells")])
    made = wave_of(ledger)
    assert sorted((wave.job_type, wave.size) for wave in made) == [("bid_farewell", 1), ("greet", 4)]
    greet = next(wave for wave in made if wave.job_type == "greet")
    members = ledger.attempts_of_wave(greet.wave_id)
    assert [attempt.partition_key for attempt in members] == ["key-3", "key-900", "key-17", "key-4000"]
    assert [attempt.position for attempt in members] == [0, 1, 2, 3]
    assert wave_of(ledger) == []


def test_a_partition_is_in_one_wave_at_a_time(ledger: Ledger) -> None:
    # two jobs with other parameters, the same partition
    ledger.submit([new(1), new(2, partition_key="key-1"), new(3)])
    (wave,) = wave_of(ledger)
    assert [attempt.job_id for attempt in ledger.attempts_of_wave(wave.wave_id)] == [new(1).job_id, new(3).job_id]
    claimed = ledger.claim_wave(wave.wave_id, "run-1")
    assert wave_of(ledger) == []
    ledger.settle("run-1", [ended(attempt) for attempt in claimed])
    (second,) = wave_of(ledger)
    assert [attempt.job_id for attempt in ledger.attempts_of_wave(second.wave_id)] == [new(2).job_id]


def test_the_same_key_of_another_asset_is_another_partition(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2, partition_key="key-1", asset="other")])
    (wave,) = wave_of(ledger)
    assert wave.size == 2


def test_what_is_asked_for_by_hand_goes_first_and_in_a_wave_of_its_own(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(5)])
    ledger.submit([new(9, priority=INTERACTIVE_PRIORITY)])
    first, second = wave_of(ledger)
    assert (first.priority, first.size) == (INTERACTIVE_PRIORITY, 1)
    assert (second.priority, second.size) == (BULK_PRIORITY, 5)
    assert [wave.wave_id for wave in ledger.open_waves()] == [first.wave_id, second.wave_id]


def test_bulk_waves_are_limited_and_interactive_ones_are_not(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(10)])
    made = wave_of(ledger, wave_size=2, waves_at_once=3)
    assert [wave.size for wave in made] == [2, 2, 2]
    assert wave_of(ledger, wave_size=2, waves_at_once=3) == []
    ledger.submit([new(number, priority=INTERACTIVE_PRIORITY) for number in range(20, 23)])
    assert [wave.size for wave in wave_of(ledger, wave_size=2, waves_at_once=3)] == [2, 1]
    # the limit is each workflow's own
    ledger.submit([new(30, job_type="bid_farewell", asset="farewells")])
    assert [wave.job_type for wave in wave_of(ledger, wave_size=2, waves_at_once=3)] == ["bid_farewell"]
    # and a wave that is done makes room
    (attempt, other) = ledger.claim_wave(made[0].wave_id, "run-1")
    ledger.settle("run-1", [ended(attempt), ended(other)])
    assert ledger.close_wave(made[0].wave_id, max_releases=3) == 0
    assert [wave.size for wave in wave_of(ledger, wave_size=2, waves_at_once=3)] == [2]


def test_sources_and_what_none_brought_about_take_turns(ledger: Ledger) -> None:
    ledger.submit([new(number, source="many") for number in range(20)])
    ledger.submit([new(30), new(31), *(new(number, source="few") for number in range(40, 43))])
    waves = wave_of(ledger, wave_size=8, waves_at_once=2)
    taken = [[a.partition_key for a in ledger.attempts_of_wave(wave.wave_id)] for wave in waves]
    assert taken[0] == [f"key-{number}" for number in (0, 30, 40, 1, 31, 41, 2, 42)]
    assert taken[1] == [f"key-{number}" for number in range(3, 11)], "and what nobody else wants is taken, too"


def test_a_job_asked_for_by_hand_leaves_its_bulk_wave(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (bulk,) = wave_of(ledger)
    assert decisions(ledger, new(2, priority=INTERACTIVE_PRIORITY)) == [IN_PROGRESS]
    (own,) = wave_of(ledger)
    assert (own.priority, own.size) == (INTERACTIVE_PRIORITY, 1)
    assert [a.partition_key for a in ledger.claim_wave(own.wave_id, "run-2")] == ["key-2"]
    assert [a.partition_key for a in ledger.claim_wave(bulk.wave_id, "run-1")] == ["key-1"]
    # and a bulk submission does not push it back
    ledger.submit([new(3, priority=INTERACTIVE_PRIORITY)])
    ledger.submit([new(3)])
    assert the_attempts(ledger, 3)[0].priority == INTERACTIVE_PRIORITY


def test_only_the_named_jobs_go_into_a_wave(ledger: Ledger) -> None:
    submitted = ledger.submit([new(number) for number in range(2300)])
    chosen = [one.job for one in submitted[::2]]
    made = wave_of(ledger, wave_size=1000, only_jobs=chosen)
    assert sum(wave.size for wave in made) == 1150, "however many they are"
    placed = {a.partition_key for wave in made for a in ledger.attempts_of_wave(wave.wave_id)}
    assert placed == {job.partition_key for job in chosen}


def test_two_dispatchers_at_once_never_share_an_attempt(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(40)])
    ledger.submit([new(number, priority=INTERACTIVE_PRIORITY) for number in range(40, 60)])
    made = together(*(lambda: wave_of(ledger, wave_size=7, waves_at_once=4) for _ in range(3)))
    all_waves = [wave for waves_made in made for wave in waves_made]
    placed = [a.attempt_id for wave in all_waves for a in ledger.attempts_of_wave(wave.wave_id)]
    assert len(placed) == len(set(placed)) == sum(wave.size for wave in all_waves)
    bulk = [wave for wave in all_waves if wave.priority == BULK_PRIORITY]
    assert len(bulk) == 4, "nor do they together start more than are allowed"
    assert sum(wave.size for wave in all_waves if wave.priority > BULK_PRIORITY) == 20


def test_two_dispatchers_that_count_the_open_waves_at_once_keep_the_limit(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.submit([new(number) for number in range(4)])
    both_counted, one_is_done = threading.Barrier(2), threading.Event()
    original = ledger._open_bulk_waves

    def count_and_meet(connection: Any, job_type: str) -> int:
        count = original(connection, job_type)
        with contextlib.suppress(threading.BrokenBarrierError):
            # where they count one after the other, they never meet
            if both_counted.wait(0.5) == 1:
                one_is_done.wait(5)
        return count

    def assign() -> list[Wave]:
        made = wave_of(ledger, wave_size=1, waves_at_once=1)
        one_is_done.set()
        return made

    monkeypatch.setattr(ledger, "_open_bulk_waves", count_and_meet)
    made = together(assign, assign)
    assert sorted(map(len, made)) == [0, 1]


def test_waiting_partitions_are_those_that_the_next_waves_take(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(5)])
    ledger.submit([new(7, priority=INTERACTIVE_PRIORITY), new(8, job_type="bid_farewell", asset="farewells")])
    assert ledger.waiting_partitions(limit=3) == {("greetings", "greet"): ["key-7", "key-0", "key-1"]}
    everything = ledger.waiting_partitions(limit=100)
    assert everything["farewells", "bid_farewell"] == ["key-8"]
    wave_of(ledger)
    assert ledger.waiting_partitions(limit=100) == {}


# --- claims ------------------------------------------------------------------------------------------------------


def test_a_wave_is_given_to_one_run(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    first = ledger.claim_wave(wave.wave_id, "run-1")
    assert [(a.partition_key, a.status, a.run_id, a.position) for a in first] == [
        ("key-1", PROCESSING, "run-1", 0),
        ("key-2", PROCESSING, "run-1", 1),
    ]
    assert all(attempt.started_at is not None for attempt in first)
    assert (the_job(ledger).status, the_job(ledger).run_id) == (PROCESSING, "run-1")
    assert ledger.claim_wave(wave.wave_id, "run-1") == first, "asked twice, the same answer"
    assert ledger.claim_wave(wave.wave_id, "run-2") == []
    assert {attempt.run_id for attempt in ledger.attempts_of_wave(wave.wave_id)} == {"run-1"}


def test_a_run_works_in_the_order_of_submission(ledger: Ledger) -> None:
    order = [number * 7 % 50 for number in range(50)]
    ledger.submit([new(number) for number in order])
    (wave,) = wave_of(ledger)
    assert [a.parameters["n"] for a in ledger.claim_wave(wave.wave_id, "run-1")] == order


def test_asking_again_after_a_job_has_ended_does_not_reopen_it(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    one, _ = ledger.claim_wave(wave.wave_id, "run-1")
    ledger.settle("run-1", [ended(one)])
    ledger.claim_wave(wave.wave_id, "run-1")
    assert (the_job(ledger, 1).status, the_job(ledger, 2).status) == (COMPLETED, PROCESSING)


def test_two_runs_that_claim_a_wave_at_once_share_nothing(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(30)])
    (wave,) = wave_of(ledger)
    claims = together(*(lambda n=n: ledger.claim_wave(wave.wave_id, f"run-{n}") for n in range(2)))
    held = [attempt.attempt_id for claim in claims for attempt in claim]
    assert len(held) == len(set(held)) == 30


def test_a_busy_partition_goes_back_to_waiting_and_the_others_go_on(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2), new(3)])
    (wave,) = wave_of(ledger)
    # a run that was started by hand is faster with one of the partitions
    ledger.claim_now([new(9, partition_key="key-2")], "by-hand")
    claimed = ledger.claim_wave(wave.wave_id, "run-1")
    assert [(attempt.partition_key, attempt.position) for attempt in claimed] == [("key-1", 0), ("key-3", 2)]
    (waiting,) = the_attempts(ledger, 2)
    assert (waiting.status, waiting.wave_id, waiting.run_id) == (QUEUED, None, None)
    assert the_job(ledger, 2).status is QUEUED
    assert wave_of(ledger) == []
    ledger.settle("by-hand", [ended(attempt) for attempt in ledger.attempts_of_run("by-hand")])
    (second,) = wave_of(ledger)
    assert [attempt.partition_key for attempt in ledger.claim_wave(second.wave_id, "run-2")] == ["key-2"]


def test_the_database_itself_refuses_two_attempts_at_work_on_a_partition(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2, partition_key="key-1")])
    run_all(ledger, "run-1")
    with pytest.raises(sa.exc.IntegrityError), ledger.engine.begin() as connection:
        connection.execute(attempts.update().values(status="processing"))


def test_the_database_itself_refuses_two_waiting_attempts_of_a_job(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    ledger.submit([new(force=True)])
    with pytest.raises(sa.exc.IntegrityError), ledger.engine.begin() as connection:
        connection.execute(attempts.update().values(status="queued"))


def test_a_run_started_by_hand_makes_new_attempts_at_once(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    mine, busy = ledger.claim_now([new(1, submitted_by="materialize"), new(2, submitted_by="materialize")], "by-hand")
    assert busy == []
    assert [(a.partition_key, a.number, a.status, a.position) for a in mine] == [
        ("key-1", 2, PROCESSING, 0),
        ("key-2", 1, PROCESSING, 1),
    ]
    assert the_job(ledger).run_id == "by-hand"
    again, busy = ledger.claim_now([new(1), new(2)], "by-hand")
    assert (again, busy) == (mine, [])


def test_a_run_started_by_hand_takes_over_what_waits(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    (mine,), busy = ledger.claim_now([new(1, source_version="etag-2")], "by-hand")
    assert busy == []
    assert (mine.number, mine.source_version) == (1, "etag-2")
    assert len(the_attempts(ledger)) == 1
    assert [attempt.partition_key for attempt in ledger.claim_wave(wave.wave_id, "run-1")] == ["key-2"]


def test_a_run_started_by_hand_leaves_busy_partitions_alone(ledger: Ledger) -> None:
    ledger.submit([new(1)])
    run_all(ledger, "run-1")
    twin = new(7, partition_key="key-2")
    wanted = [new(1), new(5, partition_key="key-1"), new(2), twin]
    mine, busy = ledger.claim_now(wanted, "by-hand")
    assert [attempt.job_id for attempt in mine] == [new(2).job_id]
    assert busy == [wanted[0], wanted[1], twin]
    assert len(the_attempts(ledger, 1)) == 1
    for untouched in (5, 7):  # nothing is written for those
        with pytest.raises(JobNotFoundError):
            the_job(ledger, untouched)


def test_two_runs_started_by_hand_at_once_share_a_partition_fairly(ledger: Ledger) -> None:
    for number in range(6):
        both = together(*(lambda n=number, r=run: ledger.claim_now([new(n)], f"run-{r}-{n}") for run in range(2)))
        assert sorted((len(mine), len(busy)) for mine, busy in both) == [(0, 1), (1, 0)]
        assert [attempt.status for attempt in the_attempts(ledger, number)] == [PROCESSING]


# --- fences ------------------------------------------------------------------------------------------------------


@pytest.fixture
def overtaken(ledger: Ledger) -> Attempt:
    """An attempt that run-a stalled over, that was released, and that run-b finished."""
    ledger.submit([new()])
    (held,) = run_all(ledger, "run-a")
    ledger.insert_tasks("run-a", [task(held, 0), task(held, 1)])
    assert ledger.release_run("run-a", max_releases=3) == (1, 0)
    run_all(ledger, "run-b")
    ledger.insert_tasks("run-b", [task(held, 0, status=TaskStatus.PROCESSING)])
    ledger.finish_tasks("run-b", [done(held, 0)])
    assert ledger.advance("run-b", {held.attempt_id: (2, {"1": {"tasks": 1}})}) == set()
    return held


def _everything(ledger: Ledger) -> list[list[tuple[Any, ...]]]:
    with ledger.engine.connect() as connection:
        return [
            [tuple(row) for row in connection.execute(table.select().order_by(*table.primary_key))]
            for table in (jobs, attempts, tasks, waves)
        ]


@pytest.mark.parametrize("by_now", ["at work", "finished"])
def test_a_stalled_run_writes_nothing_any_more_and_is_told(ledger: Ledger, overtaken: Attempt, by_now: str) -> None:
    if by_now == "finished":
        assert ledger.settle("run-b", [ended(overtaken, result_data={"from": "run-b"})]) == set()
    lost = {overtaken.attempt_id}
    before = _everything(ledger)
    assert ledger.insert_tasks("run-a", [task(overtaken, 5)]) == lost
    assert ledger.start_tasks("run-a", [(overtaken.attempt_id, 1, 0)]) == lost
    assert ledger.finish_tasks("run-a", [done(overtaken, 0, result_data={"late": True})]) == lost
    assert ledger.advance("run-a", {overtaken.attempt_id: (1, {})}) == lost
    assert ledger.settle("run-a", [ended(overtaken, FAILED)]) == lost
    assert ledger.settle("run-a", [ended(overtaken, COMPLETED)]) == lost
    assert ledger.heartbeat("run-a", [(overtaken.attempt_id, 1, 0)]) == lost
    assert ledger.stop_requested("run-a", [overtaken.attempt_id]) == lost
    assert ledger.release_run("run-a", max_releases=3) == (0, 0)
    assert ledger.cancel_run("run-a", "too late") == []
    assert _everything(ledger) == before


def test_what_a_run_lost_does_not_stop_what_it_holds(ledger: Ledger, overtaken: Attempt) -> None:
    ledger.submit([new(2)])
    (mine,) = (attempt for attempt in run_all(ledger, "run-a"))
    lost = {overtaken.attempt_id}
    assert ledger.insert_tasks("run-a", [task(overtaken, 7), task(mine)]) == lost
    assert ledger.finish_tasks("run-a", [done(overtaken), done(mine)]) == lost
    assert ledger.settle("run-a", [ended(overtaken), ended(mine)]) == lost
    assert (the_job(ledger, 1).status, the_job(ledger, 2).status) == (PROCESSING, COMPLETED)


def test_settling_again_after_a_lost_answer_is_not_lost(ledger: Ledger) -> None:
    ledger.submit([new()])
    (held,) = run_all(ledger, "run-1")
    assert ledger.settle("run-1", [ended(held)]) == set()
    before = _everything(ledger)
    assert ledger.settle("run-1", [ended(held)]) == set()
    assert _everything(ledger) == before


@pytest.mark.parametrize("how", ["cancelled", "given up"])
def test_a_result_that_comes_after_the_job_was_ended_for_its_run_is_lost(ledger: Ledger, how: str) -> None:
    # the run is still on the record, but the end is not the one it reports: no event may be written for it
    ledger.submit([new()])
    (held,) = run_all(ledger, "run-1")
    if how == "cancelled":
        assert ledger.cancel_run("run-1", "terminated") == [held.attempt_id]
    else:
        assert ledger.release_run("run-1", max_releases=0) == (0, 1)
    assert ledger.settle("run-1", [ended(held)]) == {held.attempt_id}
    assert the_job(ledger).status is (CANCELLED if how == "cancelled" else FAILED)
    assert the_job(ledger).result_data is None


def test_settling_and_releasing_at_once_end_in_one_of_the_two(ledger: Ledger) -> None:
    for number in range(10):
        ledger.submit([new(number)])
        run = f"run-{number}"
        (held,) = run_all(ledger, run)
        lost, released = together(
            lambda r=run, h=held: ledger.settle(r, [ended(h)]),  # type: ignore[misc]
            lambda r=run: ledger.release_run(r, max_releases=3),  # type: ignore[misc]
        )
        job = the_job(ledger, number)
        assert (lost, released, job.status) in [
            (set(), (0, 0), COMPLETED),
            ({held.attempt_id}, (1, 0), QUEUED),
        ]
        assert the_attempts(ledger, number)[0].status is job.status
        if job.status is QUEUED:
            finish(ledger, run + "-again")


# --- recovery ----------------------------------------------------------------------------------------------------


def test_what_a_dead_run_left_is_queued_again_from_the_start(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    one, two = run_all(ledger, "run-1")
    ledger.mark_planned([one.attempt_id, two.attempt_id])
    ledger.insert_tasks("run-1", [task(one), task(two)])
    ledger.advance("run-1", {one.attempt_id: (2, {"1": {"tasks": 1}}), two.attempt_id: (2, {"1": {"tasks": 1}})})
    ledger.settle("run-1", [ended(one)])
    assert ledger.active_run_ids() == ["run-1"]
    assert ledger.release_run("run-1", max_releases=3) == (1, 0)
    assert ledger.active_run_ids() == []
    (again,) = the_attempts(ledger, 2)
    assert (again.status, again.run_id, again.wave_id, again.position) == (QUEUED, None, None, None)
    assert (again.stage, again.stage_results, again.releases, again.planned) == (1, {}, 1, False)
    assert list(ledger.tasks_of([two.attempt_id])) == []
    job = the_job(ledger, 2)
    assert (job.status, job.stage, job.stage_results, job.run_id) == (QUEUED, 1, {}, None)
    # what was finished stays so, its tasks too
    assert the_job(ledger, 1).status is COMPLETED
    assert len(list(ledger.tasks_of([one.attempt_id]))) == 1
    assert [attempt.partition_key for attempt in run_all(ledger, "run-2")] == ["key-2"]


def test_what_died_too_often_is_given_up_with_a_reason(ledger: Ledger) -> None:
    ledger.submit([new()])
    for number in range(2):
        (held,) = run_all(ledger, f"run-{number}")
        assert ledger.release_run(f"run-{number}", max_releases=2) == (1, 0)
        assert the_attempts(ledger)[0].releases == number + 1
    (held,) = run_all(ledger, "run-2")
    ledger.insert_tasks("run-2", [task(held, 0), task(held, 1)])
    ledger.finish_tasks("run-2", [done(held, 0)])
    assert ledger.release_run("run-2", max_releases=2) == (0, 1)
    job = the_job(ledger)
    assert (job.status, job.outcome) == (FAILED, OutcomeKind.FAILED)
    assert job.reason is not None
    assert "run-2 ended before this job did, 3 time(s) over" in job.reason
    assert "retry" in job.reason
    statuses = [row.status for row in ledger.tasks_of([held.attempt_id])]
    assert statuses == [TaskStatus.COMPLETED, TaskStatus.CANCELLED], "no task is left as if it were at work"
    assert ledger.release_run("run-2", max_releases=2) == (0, 0)
    assert decisions(ledger, new()) == [REQUEUED]


def test_what_is_released_makes_way_for_a_newer_attempt_that_waits(ledger: Ledger) -> None:
    ledger.submit([new()])
    run_all(ledger, "run-1")
    ledger.submit([new(source_version="etag-2")])
    assert ledger.release_run("run-1", max_releases=3) == (0, 1)
    old, young = the_attempts(ledger)
    assert (old.status, young.status) == (FAILED, QUEUED)
    assert old.reason is not None
    assert "a newer attempt of the job waits already" in old.reason
    assert the_job(ledger).status is QUEUED
    finish(ledger, "run-2")
    assert (the_job(ledger).status, the_job(ledger).source_version) == (COMPLETED, "etag-2")


def test_what_was_asked_to_stop_is_cancelled_when_its_run_died(ledger: Ledger) -> None:
    ledger.submit([new()])
    run_all(ledger, "run-1")
    ledger.cancel("greet", new().job_id)
    assert ledger.release_run("run-1", max_releases=3) == (0, 1)
    assert the_job(ledger).status is CANCELLED


def test_a_terminated_run_cancels_what_it_had_not_finished(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    one, two = run_all(ledger, "run-1")
    ledger.insert_tasks("run-1", [task(two, 0, status=TaskStatus.PROCESSING), task(two, 1), task(two, 2)])
    ledger.finish_tasks("run-1", [done(two, 2)])
    ledger.advance("run-1", {two.attempt_id: (2, {"1": {"tasks": 3}})})
    ledger.settle("run-1", [ended(one)])
    assert ledger.cancel_run("run-1", "the run was terminated") == [two.attempt_id]
    job = the_job(ledger, 2)
    assert (job.status, job.outcome, job.reason) == (CANCELLED, OutcomeKind.CANCELLED, "the run was terminated")
    assert (job.stage, job.stage_results) == (2, {"1": {"tasks": 3}})
    assert [row.status for row in ledger.tasks_of([two.attempt_id])] == [
        TaskStatus.CANCELLED,
        TaskStatus.CANCELLED,
        TaskStatus.COMPLETED,
    ]
    assert the_job(ledger, 1).status is COMPLETED
    assert ledger.cancel_run("run-1", "again") == []


def test_a_waiting_job_is_cancelled_at_once_and_one_at_work_is_asked_to_stop(ledger: Ledger) -> None:
    ledger.submit([new(1)])
    assert ledger.cancel("greet", new(1).job_id) == (1, 0)
    assert the_job(ledger, 1).status is CANCELLED
    assert ledger.cancel("greet", new(1).job_id) == (0, 0)
    ledger.submit([new(2)])
    (held,) = run_all(ledger, "run-1")
    assert ledger.stop_requested("run-1", [held.attempt_id]) == set()
    assert ledger.cancel("greet", new(2).job_id) == (0, 1)
    assert the_job(ledger, 2).status is PROCESSING
    assert ledger.stop_requested("run-1", [held.attempt_id]) == {held.attempt_id}
    assert ledger.heartbeat("run-1", [(held.attempt_id, 1, 0)]) == {held.attempt_id}
    # it is still the run's: how far it came can be written, and its end
    assert ledger.settle("run-1", [ended(held, CANCELLED)]) == set()


def test_cancelling_takes_the_waiting_and_the_working_attempt_of_a_job(ledger: Ledger) -> None:
    ledger.submit([new()])
    run_all(ledger, "run-1")
    ledger.submit([new(force=True)])
    assert ledger.cancel("greet", new().job_id) == (1, 1)


def test_a_cancelled_job_keeps_the_result_it_had(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    ledger.submit([new(force=True)])
    ledger.cancel("greet", new().job_id)
    assert (the_job(ledger).status, the_job(ledger).result_data) == (CANCELLED, {"from": "run-1"})


def test_a_job_waiting_in_a_wave_may_be_cancelled(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    ledger.cancel("greet", new(1).job_id)
    assert ledger.waiting_in_wave(wave.wave_id) == 1
    assert [attempt.partition_key for attempt in ledger.claim_wave(wave.wave_id, "run-1")] == ["key-2"]


# --- the end of waves --------------------------------------------------------------------------------------------


def test_closing_a_wave_frees_what_no_run_had_claimed(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    assert ledger.close_wave(wave.wave_id, max_releases=3) == 2
    assert ledger.open_waves() == []
    assert [(a.status, a.wave_id, a.releases) for n in (1, 2) for a in the_attempts(ledger, n)] == [
        (QUEUED, None, 0)
    ] * 2
    assert ledger.close_wave(wave.wave_id, max_releases=3) == 0
    assert len(wave_of(ledger)) == 1


def test_a_wave_whose_run_cannot_start_is_given_up_in_the_end(ledger: Ledger) -> None:
    ledger.submit([new()])
    for number in range(2):
        (wave,) = wave_of(ledger)
        assert ledger.close_wave(wave.wave_id, count_release=True, max_releases=2) == 1
        assert the_attempts(ledger)[0].releases == number + 1
    (wave,) = wave_of(ledger)
    assert ledger.close_wave(wave.wave_id, count_release=True, max_releases=2) == 1
    job = the_job(ledger)
    assert job.status is FAILED
    assert job.reason is not None
    assert "no run could start this job, 3 times over" in job.reason


def test_a_wave_whose_run_was_cancelled_before_it_started_is_cancelled(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    (wave,) = wave_of(ledger)
    assert ledger.close_wave(wave.wave_id, cancelled=True, max_releases=2) == 2
    assert {the_job(ledger, n).status for n in (1, 2)} == {CANCELLED}


# --- transitions -------------------------------------------------------------------------------------------------

_ENDS = (COMPLETED, PARTLY, FAILED, CANCELLED)
_LEGAL = {
    **{(QUEUED, to): to in {PROCESSING, CANCELLED, FAILED} for to in JobStatus},
    **{(PROCESSING, to): to in (*_ENDS, QUEUED) for to in JobStatus},
    **{(end, to): False for end in _ENDS for to in JobStatus},
}


@pytest.mark.parametrize(("source", "target"), list(_LEGAL))
def test_the_table_of_transitions(source: JobStatus, target: JobStatus) -> None:
    assert (target in ATTEMPT_TRANSITIONS[source]) is _LEGAL[source, target]
    assert (source.value in sources_of(target)) is _LEGAL[source, target]


@pytest.mark.parametrize("source", list(JobStatus))
@pytest.mark.parametrize("target", _ENDS)
def test_every_end_is_reached_from_where_the_table_says(ledger: Ledger, source: JobStatus, target: JobStatus) -> None:
    ledger.submit([new()])
    (attempt,) = the_attempts(ledger)
    with ledger.engine.begin() as connection:
        connection.execute(attempts.update().values(status=source.value, run_id="run-1"))
        connection.execute(jobs.update().values(status=source.value))

    def settle() -> None:
        with ledger.engine.begin() as connection:
            ledger._settle_all(connection, [ended(attempt, target)], attempt.created_at)

    if _LEGAL[source, target]:
        settle()
        assert (the_job(ledger).status, the_attempts(ledger)[0].status) == (target, target)
    else:
        before = _everything(ledger)
        with pytest.raises(IllegalTransitionError, match=f"cannot become {target.value} from where it stands"):
            settle()
        assert _everything(ledger) == before


@pytest.mark.parametrize("source", list(JobStatus))
def test_a_run_takes_and_gives_back_only_what_the_table_allows(ledger: Ledger, source: JobStatus) -> None:
    ledger.submit([new()])
    (attempt,) = the_attempts(ledger)
    with ledger.engine.begin() as connection:
        connection.execute(attempts.update().values(status=source.value))
        connection.execute(jobs.update().values(status=source.value))
        ledger._claim(connection, [attempt.attempt_id], "run-1")
    (after,) = the_attempts(ledger)
    assert (after.run_id == "run-1") is (source is QUEUED)
    with ledger.engine.begin() as connection:
        connection.execute(attempts.update().values(status=source.value, run_id="run-1"))
    assert ledger.release_run("run-1", max_releases=1) == ((1, 0) if source is PROCESSING else (0, 0))
    assert the_attempts(ledger)[0].status is (QUEUED if source is PROCESSING else source)


def test_an_older_attempt_does_not_overwrite_the_job_of_a_newer_one(ledger: Ledger) -> None:
    ledger.submit([new()])
    (first,) = run_all(ledger, "run-1")
    ledger.submit([new(source_version="etag-2")])
    ledger.advance("run-1", {first.attempt_id: (2, {"1": {"tasks": 9}})})
    assert (the_job(ledger).stage, the_job(ledger).stage_results) == (1, {})
    ledger.settle("run-1", [ended(first, FAILED, error_details="old news")])
    finish(ledger, "run-2")
    job = the_job(ledger)
    assert (job.status, job.error_details, job.result_data) == (COMPLETED, None, {"from": "run-2"})


# --- tasks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(ledger: Ledger) -> Attempt:
    """An attempt at work in run-1."""
    ledger.submit([new()])
    (attempt,) = run_all(ledger, "run-1")
    return attempt


def test_a_task_has_the_columns_of_the_original(ledger: Ledger, held: Attempt) -> None:
    assert ledger.insert_tasks("run-1", [task(held, 3)]) == set()
    (row,) = ledger.tasks_of([held.attempt_id])
    assert (row.task_id, row.task_type, row.stage, row.task_index) == ("task-1-3", "say", 1, 3)
    assert (row.parameters, row.metadata, row.status, row.retry_count) == ({"index": 3}, {"m": 1}, TaskStatus.QUEUED, 0)
    assert (row.result_data, row.error_details, row.heartbeat) == (None, None, None)
    assert ledger.start_tasks("run-1", [(held.attempt_id, 1, 3)]) == set()
    (row,) = ledger.tasks_of([held.attempt_id])
    assert row.status is TaskStatus.PROCESSING
    assert row.heartbeat is not None
    update = done(held, 3, retry_count=2, error_details="e", traceback="t", reason="r")
    assert ledger.finish_tasks("run-1", [update]) == set()
    (row,) = ledger.tasks_of([held.attempt_id])
    assert (row.status, row.outcome, row.reason) == (TaskStatus.COMPLETED, OutcomeKind.CREATED, "r")
    assert (row.result_data, row.error_details, row.traceback) == ({"success": True, "index": 3}, "e", "t")
    assert (row.retry_count, row.execution_time_ms) == (2, 5)
    result = row.as_result()
    assert (result.success, result.stage, result.task_index, result.metadata) == (True, 1, 3, {"m": 1})


def test_inserting_tasks_twice_changes_nothing(ledger: Ledger, held: Attempt) -> None:
    ledger.insert_tasks("run-1", [task(held, 0), task(held, 1)])
    ledger.finish_tasks("run-1", [done(held, 0)])
    before = _everything(ledger)
    ledger.insert_tasks("run-1", [task(held, 0, parameters={"other": 1}), task(held, 1)])
    assert _everything(ledger) == before


def test_a_heartbeat_is_written_for_the_tasks_that_run(ledger: Ledger, held: Attempt) -> None:
    ledger.insert_tasks("run-1", [task(held, 0), task(held, 1)])
    assert ledger.heartbeat("run-1", [(held.attempt_id, 1, 1)]) == set()
    first, second = ledger.tasks_of([held.attempt_id])
    assert first.heartbeat is None
    assert second.heartbeat is not None
    assert ledger.heartbeat("run-1", []) == set()


def test_tasks_come_in_the_order_of_stage_and_integer_index(ledger: Ledger, held: Attempt) -> None:
    rows = [task(held, index, stage) for stage in (2, 1) for index in (10, 2, 0, 11, 1)]
    ledger.insert_tasks("run-1", rows)
    read = [(row.stage, row.task_index) for row in ledger.tasks_of([held.attempt_id])]
    assert read == [(stage, index) for stage in (1, 2) for index in (0, 1, 2, 10, 11)]


def test_tasks_are_read_page_by_page(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    one, two = run_all(ledger, "run-1")
    # a page ends inside an attempt, at its end, and inside a stage
    ledger.insert_tasks("run-1", [task(one, index) for index in range(2000)])
    ledger.insert_tasks("run-1", [task(two, index, stage) for stage in (1, 2) for index in range(1500)])
    both = [one.attempt_id, two.attempt_id]
    read = [(row.attempt_id, row.stage, row.task_index) for row in ledger.tasks_of(both)]
    assert len(read) == len(set(read)) == 5000
    assert read == sorted(read)
    assert len(list(ledger.tasks_of(both, stage=2))) == 1500
    assert [row.task_index for row in ledger.tasks_of([one.attempt_id], first=1998, last=2005)] == [1998, 1999]
    for limit in (0, 1, 1999, 2000, 2001, 4000, 5000, 6000):
        assert len(list(ledger.tasks_of(both, limit=limit))) == min(limit, 5000)
    ledger.finish_tasks("run-1", [done(one, index) for index in range(0, 2000, 500)])
    assert [row.task_index for row in ledger.tasks_of(both, statuses=[TaskStatus.COMPLETED])] == [0, 500, 1000, 1500]
    assert list(ledger.tasks_of([])) == []


def test_counts_of_tasks(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    one, two = run_all(ledger, "run-1")
    ledger.insert_tasks("run-1", [task(one, index) for index in range(5)] + [task(two, 0, stage=2)])
    ledger.finish_tasks(
        "run-1",
        [
            done(one, 0),
            done(one, 1, status=TaskStatus.FAILED, outcome=OutcomeKind.FAILED),
            done(one, 2, status=TaskStatus.FAILED, outcome=OutcomeKind.INVALID),
            done(one, 3, outcome=OutcomeKind.SKIPPED),
        ],
    )
    counts = ledger.task_counts([one.attempt_id, two.attempt_id, "unknown"])
    assert set(counts) == {one.attempt_id, two.attempt_id}
    assert (counts[one.attempt_id].total, counts[one.attempt_id].done) == (5, 4)
    assert (counts[one.attempt_id].completed, counts[one.attempt_id].failed, counts[one.attempt_id].queued) == (2, 2, 1)
    assert ledger.stage_tally([one.attempt_id, two.attempt_id], 1) == {
        one.attempt_id: {"created": 1, "failed": 1, "invalid": 1, "skipped": 1, "queued": 1}
    }
    assert ledger.task_spans("run-1", 1) == [(one.attempt_id, 0, 5)]
    assert ledger.task_spans("run-1", 2) == [(two.attempt_id, 1, 1)]


# --- events ------------------------------------------------------------------------------------------------------


def test_whether_an_event_is_out_is_recorded(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(4)])
    good, partly, failed, unchanged = run_all(ledger, "run-1")
    assert ledger.unemitted_runs() == []
    ledger.settle(
        "run-1",
        [ended(good), ended(partly, PARTLY), ended(failed, FAILED), ended(unchanged, outcome=OutcomeKind.UNCHANGED)],
    )
    assert ledger.unemitted_runs() == ["run-1"]
    ledger.mark_emitted([good.attempt_id, partly.attempt_id])
    assert ledger.unemitted_runs() == ["run-1"]
    keys = [f"key-{number}" for number in range(5)]
    assert ledger.was_materialized("greetings", keys) == {"key-0", "key-1"}
    assert ledger.was_materialized("other", keys) == set()
    ledger.mark_emitted([unchanged.attempt_id])
    assert ledger.unemitted_runs() == [], "a failed job owes nothing"
    # the unchanged one was written, or it would have been written before: either way it is there
    assert ledger.was_materialized("greetings", keys) == {"key-0", "key-1", "key-3"}
    ledger.mark_emitted([])
    ledger.mark_planned([good.attempt_id])
    assert [attempt.planned for attempt in ledger.attempts_of_run("run-1")] == [True, False, False, False]


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_job_is_found_by_its_id_or_the_beginning_of_it(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2), new(3, job_id="ABCDEF0123456789"), new(4, job_id="short")])
    assert ledger.job(new(1).job_id).partition_key == "key-1"
    assert ledger.job("00000001").partition_key == "key-1"
    assert ledger.job("00000001", "greet").partition_key == "key-1"
    assert ledger.job("abcdef01").partition_key == "key-3", "in any case"
    assert ledger.job("short").partition_key == "key-4", "a whole id may be short"
    for unknown in ("0000000f", "0000000%", "00000001_"):
        with pytest.raises(JobNotFoundError, match="geo-assets jobs"):
            ledger.job(unknown)
    with pytest.raises(JobNotFoundError, match="of type 'bid_farewell'"):
        ledger.job("00000001", "bid_farewell")
    with pytest.raises(ParameterError, match="too short for a job id"):
        ledger.job("0000")


def test_an_id_that_begins_like_another_is_found(ledger: Ledger) -> None:
    ledger.submit([new(1, job_id="monthly-report-1"), new(2, job_id="monthly-report-10")])
    assert ledger.job("monthly-report-1").partition_key == "key-1"
    with pytest.raises(ParameterError, match="matches several"):
        ledger.job("monthly-report")


def test_the_latest_job_of_a_partition_is_the_one_submitted_last(ledger: Ledger) -> None:
    ledger.submit([new(1)])
    (attempt,) = run_all(ledger, "run-1")
    ledger.submit([new(2, partition_key="key-1", parameters={"other": True})])
    ledger.settle("run-1", [ended(attempt)])  # touched last, submitted first
    latest = ledger.latest_job("greetings", "key-1", "greet")
    assert latest is not None
    assert latest.parameters == {"other": True}
    assert ledger.latest_job("greetings", "key-9", "greet") is None
    assert ledger.latest_job("greetings", "key-1", "other") is None


def test_jobs_are_listed_by_what_is_asked(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(6)])
    ledger.submit([new(9, job_type="bid_farewell", asset="farewells")])
    held = {attempt.partition_key: attempt for attempt in run_all(ledger, "run-1")}
    ledger.settle(
        "run-1",
        [
            ended(held["key-0"]),
            ended(held["key-1"], FAILED, reason="Disk is FULL", error_details="100% of it"),
            ended(held["key-2"], FAILED, reason="Disk is FULL"),
            ended(held["key-3"], PARTLY, error_details="a_b failed"),
            ended(held["key-4"], CANCELLED),
        ],
    )

    def keys(**which: Any) -> set[str]:
        return {job.partition_key for job in ledger.jobs(JobFilter(**which), limit=None)}

    assert keys() == {"key-0", "key-1", "key-2", "key-3", "key-4", "key-5", "key-9"}
    assert keys(job_type="bid_farewell") == keys(asset="farewells") == {"key-9"}
    assert keys(statuses=(FAILED,)) == keys(reason_contains="disk is full") == {"key-1", "key-2"}
    assert keys(reason_contains="100%") == {"key-1"}
    assert keys(reason_contains="%") == {"key-1"}, "a percent sign is one"
    assert keys(reason_contains="a_b") == {"key-3"}
    assert keys(newer_than=timedelta(hours=1)) == keys()
    assert keys(older_than=timedelta(hours=1)) == set()
    assert len(ledger.jobs(limit=3)) == 3
    newest = [job.updated_at for job in ledger.jobs()]
    assert newest == sorted(newest, reverse=True)
    failures = ledger.failures_by_reason()
    assert failures[0] == ("greetings", "Disk is FULL", 2, "key-1")
    assert sorted(failures[1:]) == [("greetings", "a_b failed", 1, "key-3"), ("greetings", "cancelled", 1, "key-4")]
    assert sum(group.jobs for group in ledger.failures_by_reason(JobFilter(asset="greetings"))) == 4
    assert ledger.failures_by_reason(JobFilter(asset="farewells")) == []
    entry = {"asset": "greetings", "size": 1, "seen_at": datetime.now(UTC), "sequence": 1}
    seen = [("a", "key-1", "gone"), ("a", "key-2", "gone"), ("b", "key-2", "queued"), ("a", "key-3", "waiting")]
    rows = [
        {**entry, "source": source, "entry": key, "name": key, "partition_key": key, "state": state}
        for source, key, state in seen
    ]
    ledger.write(lambda c: c.execute(source_entries.insert(), rows))
    assert keys(gone=True) == {"key-1"}, "another source still has the second"
    assert keys(gone=False) == keys() - {"key-1"}
    assert ledger.failures_by_reason(JobFilter(gone=True)) == [("greetings", "Disk is FULL", 1, "key-1")]
    assert sum(group.jobs for group in ledger.failures_by_reason(JobFilter(gone=False))) == 3
    assert ledger.status_counts() == {
        "greet": {"completed": 1, "failed": 2, "completed_with_errors": 1, "cancelled": 1, "processing": 1},
        "bid_farewell": {"processing": 1},
    }
    assert ledger.run_outcomes("run-1") == {"created": 1, "failed": 3, "cancelled": 1, "processing": 2}


def test_attempts_of_a_run_by_position_and_status(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(5)])
    held = run_all(ledger, "run-1")
    ledger.settle("run-1", [ended(held[1])])
    assert [a.position for a in ledger.attempts_of_run("run-1", first=1, last=3)] == [1, 2, 3]
    assert [a.position for a in ledger.attempts_of_run("run-1", statuses=[PROCESSING])] == [0, 2, 3, 4]
    assert ledger.attempts_of_run("run-9") == []


# --- the query of the documentation ------------------------------------------------------------------------------


def _page() -> str:
    return (REPOSITORY / "docs" / "ledger.md").read_text()


def _documented_query(ledger: Ledger) -> str:
    title = "### PostgreSQL" if ledger.engine.dialect.name == "postgresql" else "### SQLite"
    return _page().partition(title)[2].partition("```sql\n")[2].partition("```")[0]


def test_all_containers_over_a_terabyte_is_one_query(ledger: Ledger) -> None:
    sizes = {"small": 5, "large": 2 * 10**12, "larger": 3 * 10**12, "broken": None}
    ledger.submit(
        [
            new(number, job_type="summarize_container", asset="container_summary", partition_key=name)
            for number, name in enumerate(sizes)
        ]
    )
    held = {attempt.partition_key: attempt for attempt in run_all(ledger, "run-1")}
    ledger.settle(
        "run-1",
        [
            ended(
                held[name],
                COMPLETED if size is not None else FAILED,
                result_data={"summary": {"total_files": 3, "total_size_bytes": size}} if size is not None else None,
            )
            for name, size in sizes.items()
        ],
    )
    query = _documented_query(ledger)
    assert "total_size_bytes" in query
    with ledger.engine.connect() as connection:
        rows = connection.exec_driver_sql(query).fetchall()
    assert [(row[0], int(row[1])) for row in rows] == [("larger", 3 * 10**12), ("large", 2 * 10**12)]


def test_the_page_on_the_ledger_describes_every_column() -> None:
    page = _page()
    for table in (jobs, attempts, tasks, waves, audit, source_entries, source_looks, notices):
        section = page.partition(f"### {table.name}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
        missing = [column.name for column in table.columns if f"`{column.name}`" not in section]
        assert not missing, f"docs/ledger.md says nothing of {missing} in {table.name}"


# --- taking back -------------------------------------------------------------------------------------------------


def took_back(ledger: Ledger, *taken: Attempt) -> str:
    """Withdraw attempts of one partition as ``unpublish`` does; returns the audit row's id."""
    key = taken[0].partition_key
    (audit_id,) = ledger.audit("unpublish", who="me", asset="greetings", inventories={key: []}).values()
    ledger.audit_ended(audit_id, inventory=[], withdraw=[attempt.attempt_id for attempt in taken])
    return audit_id


def test_a_withdrawn_job_is_not_answered_from_the_record(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    finish(ledger, "run-1")
    took_back(ledger, *the_attempts(ledger))
    assert the_job(ledger).withdrawn_at is not None
    assert the_job(ledger).result_data == {"from": "run-1"}
    assert decisions(ledger, new(1), new(2)) == [REQUEUED, RECORDED]
    assert the_job(ledger).withdrawn_at is None
    finish(ledger, "run-2")
    assert decisions(ledger, new(1)) == [RECORDED]
    assert [attempt.withdrawn_at is None for attempt in the_attempts(ledger)] == [False, True]


def test_a_run_that_needs_no_queue_starts_a_withdrawn_job_anew(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    took_back(ledger, *the_attempts(ledger))
    claimed, busy = ledger.claim_now([new()], "run-2")
    assert (len(claimed), busy) == (1, [])
    assert the_job(ledger).withdrawn_at is None


def test_a_newer_attempt_keeps_its_job_from_being_withdrawn(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    first = the_attempts(ledger)
    ledger.submit([new(force=True)])
    took_back(ledger, *first)
    assert the_job(ledger).withdrawn_at is None
    finish(ledger, "run-2")
    assert decisions(ledger, new()) == [RECORDED]


def test_a_withdrawn_attempt_owes_no_event_and_counts_as_never_materialized(ledger: Ledger) -> None:
    ledger.submit([new(1), new(2)])
    finish(ledger, "run-1")
    ledger.mark_emitted([attempt.attempt_id for attempt in the_attempts(ledger, 2)])
    assert ledger.unemitted_runs() == ["run-1"]
    took_back(ledger, *the_attempts(ledger, 1))
    assert ledger.unemitted_runs() == []
    assert ledger.was_materialized("greetings", ["key-1", "key-2"]) == {"key-2"}
    took_back(ledger, *the_attempts(ledger, 2))
    assert ledger.was_materialized("greetings", ["key-1", "key-2"]) == set()


def test_history_is_what_ended_on_the_partition_before_newest_first(ledger: Ledger) -> None:
    for number in range(1, 5):
        ledger.submit([new(force=True), new(2, force=True)])
        finish(ledger, f"run-{number}")
    ledger.submit([new(force=True)])
    (current,) = run_all(ledger, "now")
    before = ledger.history([current], limit=3)[current.attempt_id]
    assert [attempt.run_id for attempt in before] == ["run-4", "run-3", "run-2"]
    assert {attempt.partition_key for attempt in before} == {current.partition_key}


def test_a_name_has_one_holder_until_it_is_released(ledger: Ledger) -> None:
    ledger.claim(["silver/a.tif", "silver/b.tif"], asset="cog", partition_key="one")
    ledger.claim(["silver/b.tif"], asset="cog", partition_key="two")
    assert ledger.claims(["silver/a.tif", "silver/b.tif", "silver/c.tif"]) == {
        "silver/a.tif": ("cog", "one"),
        "silver/b.tif": ("cog", "two"),
    }
    mine = Claims(ledger=ledger, asset="cog", partition_key="two")
    assert [mine.holder(f"silver/{name}.tif") for name in "abc"] == ["cog 'one'", "", None]
    mine.take(["silver/a.tif"])
    assert mine.holder("silver/a.tif") == ""
    ledger.release_claims("cog", "two")
    assert ledger.claims(["silver/a.tif", "silver/b.tif"]) == {}


def test_two_that_claim_the_same_names_at_once_both_end(ledger: Ledger) -> None:
    names = [f"silver/{number}.tif" for number in range(20)]

    def claim(who: str) -> None:
        for _ in range(10):
            ledger.claim(names if who == "one" else names[::-1], asset="cog", partition_key=who)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(claim, ["one", "two"]))
    assert len(set(ledger.claims(names).values())) == 1


def test_history_leaves_out_what_was_taken_back(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    ledger.submit([new(force=True)])
    (current,) = run_all(ledger, "run-2")
    assert set(ledger.history([current])) == {current.attempt_id}
    took_back(ledger, the_attempts(ledger)[0])
    assert ledger.history([current]) == {}


def test_withdrawing_twice_keeps_the_first_time(ledger: Ledger) -> None:
    ledger.submit([new()])
    finish(ledger, "run-1")
    took_back(ledger, *the_attempts(ledger))
    first = the_attempts(ledger)[0].withdrawn_at
    took_back(ledger, *the_attempts(ledger))
    assert the_attempts(ledger)[0].withdrawn_at == first


def test_an_audit_row_is_open_until_it_is_ended(ledger: Ledger) -> None:
    thing = {"kind": "blob", "collection": "silver", "name": "a\x00\udcff.tif", "outcome": "present"}
    ids = ledger.audit("unpublish", who="j\x00ane", asset="greetings", inventories={"key-1": [thing], "key-2": []})
    assert set(ids) == {"key-1", "key-2"}
    opened = {row.partition_key: row for row in ledger.audits()}
    assert (opened["key-1"].complete, opened["key-1"].ended_at) == (False, None)
    assert opened["key-1"].inventory == [{**thing, "name": "a\ufffd\ufffd.tif"}]
    assert opened["key-1"].who == "j\ufffdane"
    ledger.audit_ended(ids["key-1"], inventory=[{"outcome": "failed"}])
    ledger.audit_ended(ids["key-2"], inventory=[], withdraw=[])
    ended_rows = {row.partition_key: row for row in ledger.audits()}
    assert all(row.ended_at is not None for row in ended_rows.values())
    assert (ended_rows["key-1"].complete, ended_rows["key-1"].inventory) == (False, [{"outcome": "failed"}])
    assert ended_rows["key-2"].complete


def test_audit_rows_come_newest_first_and_can_be_chosen(ledger: Ledger) -> None:
    for number in range(3):
        ledger.audit("unpublish", who=f"user {number}", asset=f"asset-{number % 2}", inventories={f"key-{number}": []})
    assert [row.who for row in ledger.audits()] == ["user 2", "user 1", "user 0"]
    assert [row.who for row in ledger.audits(limit=1)] == ["user 2"]
    assert [row.who for row in ledger.audits(asset="asset-0")] == ["user 2", "user 0"]
    assert [row.who for row in ledger.audits(partition_key="key-1")] == ["user 1"]


def test_results_that_count_are_found_by_what_they_say(ledger: Ledger) -> None:
    ledger.submit([new(number) for number in range(1, 6)] + [new(6, job_type="other")])
    results: dict[str, Any] = {
        "key-1": {"blob": "Tile_0001.tif"},
        "key-2": {"blob": "tile%0001.tif"},
        "key-3": {"blob": "tile_0001.tif"},
        "key-4": None,
        "key-5": {"blob": "elsewhere"},
        "key-6": {"blob": "tile_0001.tif"},
    }
    held = {attempt.partition_key: attempt for attempt in run_all(ledger, "run-1")}
    ledger.settle("run-1", [ended(held[key], result_data=result) for key, result in results.items()])
    took_back(ledger, held["key-3"])

    def found(*words: str) -> list[str]:
        return [one.partition_key for one in ledger.recorded_results(["greet"], containing=words)]

    assert found() == ["key-1", "key-2", "key-5"]
    assert found("tile_0001") == ["key-1"]
    assert found("tile_0001", "elsewhere") == ["key-1", "key-5"]
    (one,) = ledger.recorded_results(["greet"], containing=["elsewhere"])
    assert (one.job_type, one.asset, one.result_data) == ("greet", "greetings", {"blob": "elsewhere"})


def test_results_are_read_in_pages(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.submit([new(number) for number in range(2001)])
    held = [
        attempt
        for wave in sqlite_ledger.assign_waves(wave_size=3000, waves_at_once=1)
        for attempt in sqlite_ledger.claim_wave(wave.wave_id, "run-1")
    ]
    sqlite_ledger.settle("run-1", [ended(attempt, result_data={"n": 1}) for attempt in held])
    assert len({one.attempt_id for one in sqlite_ledger.recorded_results(["greet"])}) == 2001


def test_the_attempts_of_a_partition_are_found_whatever_their_job(ledger: Ledger) -> None:
    ledger.submit(
        [
            new(1),
            new(2, job_type="bow", asset="bows", partition_key="key-1"),
            new(3, job_type="nod", asset="nods", partition_key="key-1"),
            new(4, partition_key="key-4"),
        ]
    )
    finish(ledger, "run-1")
    ledger.submit([new(1, force=True)])
    found = ledger.attempts_of_partitions(["greetings", "bows"], ["key-1", "key-9"])
    assert [(attempt.job_type, attempt.number) for attempt in found] == [("greet", 1), ("bow", 1), ("greet", 2)]
