"""The ledger's size and speed: how many statements it takes, how much it holds at once.

What belongs here: bounds that do not depend on how busy the machine is, and pure functions.  What does not: what the
ledger promises (``test_ledger_contract``).
"""

import json
import re
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from geo_assets.coremachine.batches import chunks
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskStatus
from geo_assets.coremachine.ledger import (
    Attempt,
    Ledger,
    NewJob,
    NewTask,
    Settlement,
    TaskUpdate,
    _new_id,
)
from geo_assets.coremachine.ledger_tables import attempts, jobs, tasks, to_json


class Statements(list[str]):
    """The statements that reached the database; many rows with one statement are one."""


@contextmanager
def counted(ledger: Ledger) -> Iterator[Statements]:
    """Note the statements of the block."""
    seen = Statements()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA", "SAVEPOINT", "RELEASE")):
            seen.append(statement)

    sa.event.listen(ledger.engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(ledger.engine, "before_cursor_execute", note)


def _new(number: int, **changes: Any) -> NewJob:
    values: dict[str, Any] = {
        "job_type": "greet",
        "job_id": f"{number:064d}",
        "asset": "greetings",
        "partition_key": f"key-{number}",
        "parameters": {"n": number},
        "total_stages": 1,
    }
    return NewJob(**values | changes)


def _tasks(attempt: Attempt, count: int, **changes: Any) -> list[NewTask]:
    return [
        NewTask(
            attempt_id=attempt.attempt_id,
            stage=1,
            task_index=index,
            task_id=f"task-{index}",
            parent_job_id=attempt.job_id,
            job_type="greet",
            task_type="say",
            parameters={"container_name": "bronze", "blob_name": f"folder/blob-{index}.tif"},
            metadata={},
            **changes,
        )
        for index in range(count)
    ]


def _updates(attempt: Attempt, count: int) -> list[TaskUpdate]:
    return [
        TaskUpdate(
            attempt_id=attempt.attempt_id,
            stage=1,
            task_index=index,
            status=TaskStatus.COMPLETED,
            outcome=OutcomeKind.CREATED,
            reason=None,
            result_data={"success": True, "result": {"size_bytes": index}},
            error_details=None,
            traceback=None,
            retry_count=0,
            execution_time_ms=1,
        )
        for index in range(count)
    ]


def _run(ledger: Ledger, count: int = 1) -> list[Attempt]:
    ledger.submit([_new(number) for number in range(count)])
    for wave in ledger.assign_waves(wave_size=5000, waves_at_once=10):
        ledger.claim_wave(wave.wave_id, "run-1")
    return ledger.attempts_of_run("run-1")


def test_ten_thousand_tasks_are_written_in_bulk(sqlite_ledger: Ledger) -> None:
    (held,) = _run(sqlite_ledger)
    rows, updates = _tasks(held, 10_000), _updates(held, 10_000)
    with counted(sqlite_ledger) as inserting:
        assert sqlite_ledger.insert_tasks("run-1", rows) == set()
    with counted(sqlite_ledger) as starting:
        assert sqlite_ledger.start_tasks("run-1", [(held.attempt_id, 1, index) for index in range(10_000)]) == set()
    with counted(sqlite_ledger) as finishing:
        assert sqlite_ledger.finish_tasks("run-1", updates) == set()
    # the fence is one statement, the rows are a few
    assert len(inserting) <= 25, f"{len(inserting)} statements"
    assert len(starting) <= 3
    assert len(finishing) <= 3
    counts = sqlite_ledger.task_counts([held.attempt_id])[held.attempt_id]
    assert (counts.total, counts.completed) == (10_000, 10_000)


def test_a_wave_of_a_thousand_jobs_takes_few_statements(sqlite_ledger: Ledger) -> None:
    new_jobs = [_new(number) for number in range(1000)]
    with counted(sqlite_ledger) as submitting:
        sqlite_ledger.submit(new_jobs)
    with counted(sqlite_ledger) as assigning:
        (wave,) = sqlite_ledger.assign_waves(wave_size=1000, waves_at_once=1)
    with counted(sqlite_ledger) as claiming:
        held = sqlite_ledger.claim_wave(wave.wave_id, "run-1")
    with counted(sqlite_ledger) as advancing:
        sqlite_ledger.advance("run-1", {attempt.attempt_id: (1, {"1": {"tasks": 1}}) for attempt in held})
    with counted(sqlite_ledger) as settling:
        lost = sqlite_ledger.settle(
            "run-1",
            [
                Settlement(attempt_id=a.attempt_id, status=JobStatus.COMPLETED, outcome=OutcomeKind.CREATED)
                for a in held
            ],
        )
    assert lost == set()
    for what in (submitting, assigning, claiming, advancing, settling):
        assert len(what) <= 15, what
    with counted(sqlite_ledger) as answering:
        sqlite_ledger.submit(new_jobs)
    assert len(answering) <= 6, "and a thousand answers from the record"


@pytest.mark.parametrize(
    "change",
    [
        jobs.update().where(jobs.c.latest_attempt == "x").values(stage=1),
        attempts.select().where(attempts.c.asset == "a", attempts.c.partition_key == "k"),
        attempts.select().where(attempts.c.run_id == "r"),
        attempts.select().where(attempts.c.wave_id == "w"),
        tasks.select().where(tasks.c.attempt_id == "x", tasks.c.stage == 1),
        jobs.select().where(jobs.c.job_type == "t", jobs.c.job_id == "i"),
    ],
    ids=["mirror", "partition", "run", "wave", "tasks", "job"],
)
def test_what_is_asked_a_row_at_a_time_uses_an_index(sqlite_ledger: Ledger, change: Any) -> None:
    # an unindexed one of these once made a job cost the more, the more jobs there were
    text = str(change.compile(sqlite_ledger.engine, compile_kwargs={"literal_binds": True}))
    with sqlite_ledger.engine.connect() as connection:
        plan = " ".join(str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}"))
    assert "SCAN" not in plan
    assert "SEARCH" in plan


def test_what_each_tick_asks_does_not_read_the_whole_ledger(sqlite_ledger: Ledger) -> None:
    _run(sqlite_ledger, 3)
    with counted(sqlite_ledger) as asked:
        sqlite_ledger.active_run_ids()
        sqlite_ledger.unemitted_runs()
        sqlite_ledger.waiting_partitions(limit=10)
        sqlite_ledger.open_waves()
        sqlite_ledger.assign_waves(wave_size=10, waves_at_once=2)
    with sqlite_ledger.engine.connect() as connection:
        for text in asked:
            parameters = ("queued",) * text.count("?")
            plan = [str(row[-1]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", parameters)]
            scans = [step for step in plan if step.startswith("SCAN") and "USING" not in step]
            assert not scans, f"{scans} for {text}"


def test_reading_many_tasks_takes_little_memory(sqlite_ledger: Ledger) -> None:
    (held,) = _run(sqlite_ledger)
    sqlite_ledger.insert_tasks("run-1", _tasks(held, 20_000))

    def peak_of_reading(limit: int) -> int:
        tracemalloc.start()
        assert sum(1 for _ in sqlite_ledger.tasks_of([held.attempt_id], limit=limit)) == limit
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_of_reading(4000)  # whatever is built once
    assert peak_of_reading(20_000) < 1.5 * peak_of_reading(4000)


def test_a_listing_of_tasks_takes_a_statement_a_page(sqlite_ledger: Ledger) -> None:
    (held,) = _run(sqlite_ledger)
    sqlite_ledger.insert_tasks("run-1", _tasks(held, 6500))
    with counted(sqlite_ledger) as reading:
        assert len(list(sqlite_ledger.tasks_of([held.attempt_id]))) == 6500
    assert len(reading) == 4


# --- pure functions ----------------------------------------------------------------------------------------------


def test_ids_sort_by_time_and_fit_their_column() -> None:
    made = [_new_id() for _ in range(200)]
    assert made == sorted(made)
    assert len(set(made)) == 200
    assert max(map(len, made)) <= 32


@given(st.lists(st.integers()), st.integers(1, 7))
def test_chunks_are_the_whole_in_order(items: list[int], size: int) -> None:
    found = list(chunks(items, size))
    assert [item for chunk in found for item in chunk] == items
    assert all(1 <= len(chunk) <= size for chunk in found)


_ANY_TEXT = st.text(st.characters())  # surrogates that are half of nothing among them
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_ANY_TEXT, inner),
    max_leaves=10,
)
_REFUSED = re.compile("[\x00\ud800-\udfff]")


@given(_JSON)
def test_json_is_written_so_that_every_database_takes_it(value: Any) -> None:
    reread = json.loads(to_json(value))
    assert not any(_REFUSED.search(string) for string in _strings(reread))
    if not any(_REFUSED.search(string) for string in _strings(value)):
        assert reread == value


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _strings(item)
