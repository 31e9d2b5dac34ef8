"""What a run says while it works, when and in which words; and whether its numbers add up at the end."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from geo_assets.build import build_definitions
from geo_assets.coremachine import dispatch
from geo_assets.coremachine.asset_job import MACHINE, OUTCOME_TAG, PROGRESS_TAG
from geo_assets.coremachine.binding import bind, registry_of
from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskStatus
from geo_assets.coremachine.ledger import Attempt, Ledger, NewJob, NewTask, Settlement, TaskUpdate
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.progress import AtWork, Counts, RunProgress, duration, rate
from geo_assets.coremachine.run_summary import Asked, RunSummary
from geo_assets.coremachine.submission import submit_many
from tests.integration.workflows import DigestBlob, SurveyFolder, sources

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcfromtimestamp:DeprecationWarning")  # Dagster's own

RUN = "run-1"


class Time:
    """Seconds and the time of day, both of which go on only when told to."""

    def __init__(self) -> None:
        self.seconds = 500.0
        self._zero = datetime.now(UTC) - timedelta(seconds=self.seconds)

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return self._zero + timedelta(seconds=self.seconds)


@pytest.fixture
def time() -> Time:
    return Time()


class Run:
    """A run of many jobs in a ledger, and processes that say how it stands."""

    def __init__(self, ledger: Ledger, time: Time, jobs: int) -> None:
        self.ledger, self.time = ledger, time
        self.told: datetime | None = None
        self.gist = ""
        new_jobs = [
            NewJob(
                job_type="digest_blob",
                job_id=f"{number:064x}",
                asset="blob_digest",
                partition_key=f"key-{number}",
                parameters={},
                total_stages=1,
                metadata={},
            )
            for number in range(jobs)
        ]
        self.attempts, _ = ledger.claim_now(new_jobs, RUN)
        self._left = iter(self.attempts)

    def process(self) -> RunProgress:
        """What a process of the run makes for itself."""
        return RunProgress(self.ledger, RUN, last_told=lambda: self.told, clock=self.time.clock, now=self.time.now)

    def end(self, count: int, outcome: OutcomeKind = OutcomeKind.CREATED) -> None:
        status = JobStatus.COMPLETED if outcome.is_good else JobStatus.FAILED
        settlements = [
            Settlement(attempt_id=attempt.attempt_id, status=status, outcome=outcome, stage=1, stage_results={})
            for attempt in itertools.islice(self._left, count)
        ]
        assert len(settlements) == count
        self.ledger.settle(RUN, settlements)

    def says(self, progress: RunProgress, at_work: AtWork | None = None) -> str | None:
        standing = progress.standing(at_work)
        if standing is None:
            return None
        self.told = self.time.now()
        self.gist = standing.gist
        return standing.line


def test_nothing_is_said_by_runs_that_are_over_soon(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 10)
    progress = run.process()
    progress.begin()
    time.seconds += 4.8
    assert run.says(progress) is None
    assert 0 < progress.seconds_left() < 0.3


def test_a_line_says_how_many_how_fast_and_how_long_still(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 1000)
    progress = run.process()
    progress.begin()
    time.seconds += 10
    run.end(346)
    run.end(4, OutcomeKind.INVALID)
    assert run.says(progress) == ("350 of 1,000 jobs done (346 good, 4 failed) · 35 a second · about 19 s left")
    time.seconds += 9.9
    assert run.says(progress) is None
    time.seconds += 0.1
    assert run.says(progress) is not None


def test_the_rate_is_that_of_the_last_minute(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 100)
    progress = run.process()
    progress.begin()
    for _ in range(20):  # 200 s of a slow start
        time.seconds += 10
        run.says(progress)
    for _ in range(8):
        time.seconds += 10
        run.end(10)
        line = run.says(progress)
    assert line is not None
    assert "80 of 100 jobs done" in line
    assert line.endswith("1.0 a second · about 20 s left")


def test_the_rate_of_slow_jobs_is_taken_over_ten_of_them(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 30)
    progress = run.process()
    progress.begin()
    for _ in range(20):
        time.seconds += 100
        run.end(1)
        line = run.says(progress)
    assert line == "20 of 30 jobs done (20 good, 0 failed) · 36 an hour · about 17 min left"


def test_one_long_task_shows_that_it_lives(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 1)
    progress = run.process()
    progress.begin()
    time.seconds += 240
    line = run.says(progress, AtWork(what="make_cog of coast/big.tif", seconds=238))
    assert line == "0 of 1 jobs done (0 good, 0 failed) · make_cog of coast/big.tif at work for 4 min"
    assert run.gist == "0 %"


def test_processes_of_a_run_take_turns(sqlite_ledger: Ledger, time: Time) -> None:
    run = Run(sqlite_ledger, time, 80)
    lines = 0
    for _ in range(20):  # each chunk in a process of its own, two at a time, for four seconds
        both = [run.process(), run.process()]
        for progress in both:
            progress.begin()
        for _ in range(4):
            time.seconds += 1
            run.end(1)
            lines += sum(run.says(progress) is not None for progress in both)
    assert 7 <= lines <= 8
    assert run.told is not None


def test_tasks_of_a_stage_that_fans_out_are_counted(ledger: Ledger, time: Time) -> None:
    run = Run(ledger, time, 2)
    rows = [_task(attempt, index) for attempt in run.attempts for index in range(50)]
    ledger.insert_tasks(RUN, rows)
    progress = run.process()
    progress.begin()
    progress.begin(2, "survey")
    time.seconds += 10
    ledger.finish_tasks(RUN, [_ended(row, good=index % 10 > 0) for index, row in enumerate(rows[:70])])
    progress.begin(2, "survey")  # the next chunk of the same
    assert run.says(progress) == ("70 of 100 tasks of survey done (63 good, 7 failed) · 7.0 a second · about 4 s left")


def _task(attempt: Attempt, index: int) -> NewTask:
    return NewTask(
        attempt_id=attempt.attempt_id,
        stage=2,
        task_index=index,
        task_id=f"{attempt.attempt_id[:8]}-{index}",
        parent_job_id=attempt.job_id,
        job_type=attempt.job_type,
        task_type="survey_file",
        parameters={},
        metadata={},
        status=TaskStatus.PROCESSING,
    )


def _ended(row: NewTask, *, good: bool) -> TaskUpdate:
    return TaskUpdate(
        attempt_id=row.attempt_id,
        stage=row.stage,
        task_index=row.task_index,
        status=TaskStatus.COMPLETED if good else TaskStatus.FAILED,
        outcome=OutcomeKind.CREATED if good else OutcomeKind.FAILED,
        reason=None,
        result_data=None,
        error_details=None,
        traceback=None,
        retry_count=0,
        execution_time_ms=1,
    )


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (35.4, "35 a second"),
        (2.44, "2.4 a second"),
        (0.5, "30 a minute"),
        (1 / 1800, "2.0 an hour"),
        (1e4, "10,000 a second"),
    ],
)
def test_rates_are_said_as_people_would(per_second: float, said: str) -> None:
    assert rate(per_second) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (17, "17 s"), (99, "99 s"), (180, "3 min"), (7800, "2 h 10 min"), (260_000, "3 days")],
)
def test_times_are_said_as_people_would(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_every_outcome_and_status_counts_as_one_of_three() -> None:
    everything = [*OutcomeKind, *JobStatus, *TaskStatus]
    counts = Counts.of({kind.value: 1 for kind in everything})
    assert counts.all == len({kind.value for kind in everything})


# --- the summary -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked", [Asked(jobs=1000), Asked(jobs=7, busy=2), Asked(jobs=0, refused=1), Asked(jobs=3, busy=1, refused=2)]
)
def test_what_was_asked_for_survives_its_tag(asked: Asked) -> None:
    assert Asked.parse(str(asked)) == asked
    assert Asked.parse(f"about {asked}") is None


def test_the_table_adds_up() -> None:
    summary = RunSummary(outcomes={"failed": 4, "created": 994}, asked=Asked(jobs=998, busy=1, refused=1), seconds=27.7)
    assert [row["jobs"] for row in summary.rows] == [994, 4, 1, 1, 1000]
    assert summary.problem is None
    assert summary.sentence.startswith("1,000 jobs in 28 s (36 a second): 994 created, 4 failed, 1 skipped")


@pytest.mark.parametrize(("known", "total"), [(998, 1000), (1001, 1001)])
def test_numbers_that_do_not_add_up_are_said(known: int, total: int) -> None:
    summary = RunSummary(outcomes={"created": known}, asked=Asked(jobs=1000), seconds=1)
    assert summary.problem is not None
    assert summary.problem in summary.sentence
    assert summary.rows[-1]["jobs"] == total == sum(int(row["jobs"]) for row in summary.rows[:-1])


# --- in a run ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def location() -> dg.Definitions:
    return build_definitions(registry=registry_of([bind(DigestBlob), bind(SurveyFolder)]))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _work_off(location: dg.Definitions, instance: dg.DagsterInstance, job_type: str, *params: dict[str, str]) -> str:
    machine: CoreMachine = location.resources[MACHINE].machine()  # type: ignore[index]
    submit_many(machine, job_type, list(params))
    (asked,) = dispatch.tick(machine, instance).runs
    job = location.resolve_job_def(asked.job_name)
    return job.execute_in_process(instance=instance, tags=dict(asked.tags), raise_on_error=False).run_id


def _summary_of(instance: dg.DagsterInstance, run_id: str, asset: str) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    records = instance.fetch_observations(dg.AssetKey(asset), limit=100).records
    (found,) = [
        record.asset_observation
        for record in records
        if record.run_id == run_id and record.asset_observation and record.asset_observation.partition is None
    ]
    assert found.description is not None
    tables = {
        name: [dict(row.data) for row in value.records]
        for name, value in found.metadata.items()
        if isinstance(value, dg.TableMetadataValue)
    }
    assert tables.keys() | {"summary"} == found.metadata.keys()
    assert found.metadata["summary"].value == found.description
    return found.description, tables


def _files(*names: str) -> None:
    for name in names:
        path = sources() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_a_run_ends_with_tables_whose_numbers_add_up(location: dg.Definitions, instance: dg.DagsterInstance) -> None:
    names = [*(f"good-{number}" for number in range(5)), "bad-1", "bad-2"]
    _files(*names)
    run_id = _work_off(location, instance, "digest_blob", *({"blob_name": name} for name in names))
    sentence, tables = _summary_of(instance, run_id, "blob_digest")
    assert sentence.startswith("7 jobs in ")
    assert sentence.endswith(": 5 created, 2 invalid")
    assert tables["outcomes"] == [
        {"outcome": "created", "jobs": 5},
        {"outcome": "invalid", "jobs": 2},
        {"outcome": "all", "jobs": 7},
    ]
    (failure,) = tables["failures"]
    assert failure["jobs"] == 2
    assert failure["such as"] in ("bad-1", "bad-2")
    assert tables["stages"] == [
        {"stage": "inspect", "jobs": 7, "tasks": 7, "completed": 5, "failed": 2},
        {"stage": "digest", "jobs": 5, "tasks": 5, "completed": 5, "failed": 0},
    ]
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.tags[OUTCOME_TAG] == "5 created, 2 invalid"
    assert PROGRESS_TAG not in run.tags


def test_a_good_run_shows_its_tables_too(location: dg.Definitions, instance: dg.DagsterInstance) -> None:
    _files("shelf/a", "shelf/b", "shelf/c")
    run_id = _work_off(location, instance, "survey_folder", {"folder": "shelf"})
    sentence, tables = _summary_of(instance, run_id, "folder_survey")
    assert sentence.endswith(": 1 created")
    assert tables["outcomes"] == [{"outcome": "created", "jobs": 1}, {"outcome": "all", "jobs": 1}]
    assert [row["tasks"] for row in tables["stages"]] == [1, 3]
    assert "failures" not in tables


def test_a_run_that_takes_its_time_says_how_it_stands(
    location: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_assets.coremachine.progress.FIRST_SECONDS", 0)
    monkeypatch.setattr("geo_assets.coremachine.progress.EVERY_SECONDS", 0)
    shown: list[str] = []
    add_run_tags = instance.add_run_tags

    def record(run_id: str, new_tags: dict[str, str]) -> None:
        shown.extend(value for name, value in new_tags.items() if name == PROGRESS_TAG)
        add_run_tags(run_id, new_tags)

    monkeypatch.setattr(instance, "add_run_tags", record)
    _files("shelf/a", "shelf/b", "shelf/bad")
    run_id = _work_off(location, instance, "survey_folder", {"folder": "shelf"})
    assert any(text.startswith("0 % · 0 of 1 jobs done (0 good, 0 failed)") for text in shown)
    assert any(" of 3 tasks of survey done" in text and text.endswith(" UTC)") for text in shown)
    assert shown[-1].startswith("1 job in ")
    lines = [record.user_message for record in instance.all_logs(run_id)]
    assert any("of 3 tasks of survey done" in line for line in lines)


def test_what_is_only_said_does_not_end_the_work(
    location: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geo_assets.coremachine.progress.FIRST_SECONDS", 0)
    add_run_tags = instance.add_run_tags

    def away(run_id: str, new_tags: dict[str, str]) -> None:
        if PROGRESS_TAG in new_tags:
            raise ConnectionError("the database is away")
        add_run_tags(run_id, new_tags)

    monkeypatch.setattr(instance, "add_run_tags", away)
    _files("good-1")
    run_id = _work_off(location, instance, "digest_blob", {"blob_name": "good-1"})
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.is_success


def test_jobs_that_another_run_took_over_are_said(
    location: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    _files("good-1", "good-2")
    original = Ledger.run_outcomes

    def one_less(self: Ledger, run_id: str, *, job_type: str | None = None) -> dict[str, int]:
        return {name: count - 1 for name, count in original(self, run_id, job_type=job_type).items()}

    monkeypatch.setattr(Ledger, "run_outcomes", one_less)
    run_id = _work_off(location, instance, "digest_blob", {"blob_name": "good-1"}, {"blob_name": "good-2"})
    sentence, tables = _summary_of(instance, run_id, "blob_digest")
    assert "this run took 2 jobs, the ledger has 1 of them" in sentence
    assert tables["outcomes"][-2:] == [
        {"outcome": "not with this run any more", "jobs": 1},
        {"outcome": "all", "jobs": 2},
    ]
