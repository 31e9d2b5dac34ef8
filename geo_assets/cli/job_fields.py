"""Jobs, attempts and tasks as the fields that programs read.

What belongs here: names and values of ``--json``.  The first block of a status is the original's, name by name
(reference 1.15); the rest is ours.  What does not: tables for people.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from geo_assets.coremachine.contract import JobStatus, TaskStatus
from geo_assets.coremachine.ledger import Attempt, Job, Ledger, TaskCounts, TaskRow

__all__ = [
    "attempt_fields",
    "counts_fields",
    "job_fields",
    "progress_of",
    "status_fields",
    "task_counts",
    "task_fields",
]


def job_fields(job: Job) -> dict[str, Any]:
    """A job as its row says, without looking anything else up."""
    fields: dict[str, Any] = {
        "jobId": job.job_id,
        "jobType": job.job_type,
        "status": job.status.value,
        "stage": job.stage,
        "totalStages": job.total_stages,
        "parameters": job.parameters,
        "stageResults": job.stage_results,
        "createdAt": _iso(job.created_at),
        "updatedAt": _iso(job.updated_at),
    }
    if job.result_data:
        fields["resultData"] = job.result_data
    if job.error_details:
        fields["errorDetails"] = job.error_details
    fields |= {
        "completedAt": _iso(job.completed_at),
        "withdrawnAt": _iso(job.withdrawn_at),
        "outcome": job.outcome.value if job.outcome else None,
        "reason": job.reason,
        "partitionKey": job.partition_key,
        "asset": job.asset,
        "sourceVersion": job.source_version,
        "runId": job.run_id,
    }
    return fields


def status_fields(ledger: Ledger, job: Job) -> dict[str, Any]:
    """The original's status answer, then task counts, progress and attempts."""
    attempts = ledger.attempts_of_job(job.job_type, job.job_id)
    latest = next((attempt for attempt in attempts if attempt.attempt_id == job.latest_attempt), None)
    counts, removed = task_counts(ledger, latest) if latest is not None else (TaskCounts(), False)
    return job_fields(job) | {
        "architecture": "strong_typing_discipline",
        "pattern": "Job→Stage→Task with Pydantic validation",
        "schema_validated": True,
        "request_id": uuid.uuid4().hex[:8],
        "timestamp": datetime.now(UTC).isoformat(),
        "taskCounts": counts_fields(counts),
        **({"tasksRemoved": True} if removed else {}),
        "progress": progress_of(ledger, job),
        "attempts": [attempt_fields(attempt) for attempt in attempts],
    }


def progress_of(ledger: Ledger, job: Job) -> float:
    """Share of the job that is done, 0 to 1: stages that ended, and the tasks of the stage at work."""
    if job.status.is_terminal:
        return 1.0
    if job.status is JobStatus.QUEUED or job.latest_attempt is None:
        return 0.0
    tally = ledger.stage_tally([job.latest_attempt], job.stage).get(job.latest_attempt, {})
    total = sum(tally.values())
    unfinished = sum(tally.get(status.value, 0) for status in TaskStatus if not status.is_terminal)
    of_stage = (total - unfinished) / total if total else 0.0
    return round((job.stage - 1 + of_stage) / max(job.total_stages, 1), 4)


def task_counts(ledger: Ledger, attempt: Attempt) -> tuple[TaskCounts, bool]:
    """Tasks by status, and whether the clean-up has removed the tasks; the stages keep their counts."""
    counts = ledger.task_counts([attempt.attempt_id]).get(attempt.attempt_id)
    if counts is not None:
        return counts, False
    sums = {
        name: sum(int(summary.get(name, 0)) for summary in attempt.stage_results.values())
        for name in ("tasks", "completed", "failed")
    }
    if not sums["tasks"] or not attempt.status.is_terminal:
        return TaskCounts(), False
    total, completed, failed = sums.values()
    return TaskCounts(total=total, completed=completed, failed=failed, cancelled=total - completed - failed), True


def counts_fields(counts: TaskCounts) -> dict[str, int]:
    """Tasks by status."""
    return {
        "total": counts.total,
        "queued": counts.queued,
        "processing": counts.processing,
        "completed": counts.completed,
        "failed": counts.failed,
        "cancelled": counts.cancelled,
    }


def attempt_fields(attempt: Attempt) -> dict[str, Any]:
    """One execution of a job."""
    return {
        "number": attempt.number,
        "status": attempt.status.value,
        "outcome": attempt.outcome.value if attempt.outcome else None,
        "reason": attempt.reason,
        "sourceVersion": attempt.source_version,
        "submittedBy": attempt.submitted_by,
        "waveId": attempt.wave_id,
        "runId": attempt.run_id,
        "cancelRequested": attempt.cancel_requested,
        "releases": attempt.releases,
        "createdAt": _iso(attempt.created_at),
        "startedAt": _iso(attempt.started_at),
        "endedAt": _iso(attempt.ended_at),
    }


def task_fields(task: TaskRow) -> dict[str, Any]:
    """One task."""
    return {
        "taskId": task.task_id,
        "taskType": task.task_type,
        "stage": task.stage,
        "taskIndex": task.task_index,
        "status": task.status.value,
        "outcome": task.outcome.value if task.outcome else None,
        "reason": task.reason,
        "parameters": task.parameters,
        "resultData": task.result_data,
        "metadata": task.metadata,
        "errorDetails": task.error_details,
        "traceback": task.traceback,
        "retryCount": task.retry_count,
        "executionTimeMs": task.execution_time_ms,
        "heartbeat": _iso(task.heartbeat),
        "createdAt": _iso(task.created_at),
        "updatedAt": _iso(task.updated_at),
    }


def outcomes_of(jobs: Sequence[Job]) -> dict[str, int]:
    """Outcome (status where there is none yet) → number of jobs; the counts add up to the jobs given."""
    counts: dict[str, int] = {}
    for job in jobs:
        name = job.outcome.value if job.outcome else job.status.value
        counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
