"""Looks by a run: containers too large to be listed in a tick are listed by ``list_container_contents``.

What belongs here: asking for such a run, and comparing what it wrote, in that run.  What does not: the comparison
itself (``look``).

The run that has written a listing compares it before it ends (:func:`take_listings`, called for every run that ends).
Where it dies in between, the next tick sees a listing that nobody compared, and asks for another.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from geo_assets.containers.listing_store import ListingInfo
from geo_assets.coremachine.binding import binding_for
from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import BULK_PRIORITY, INTERNAL, Job, NewJob
from geo_assets.coremachine.machine import CoreMachine, RunEnded
from geo_assets.coremachine.submission import prepare
from geo_assets.errors import GeoAssetsError, JobNotFoundError, LookOvertakenError
from geo_assets.sources.comparison import listing_prefix
from geo_assets.sources.look import Look, look
from geo_assets.sources.register import LastLook, Register
from geo_assets.sources.source import Source

__all__ = ["LISTING_JOB", "ask_for_listing", "listing_of", "seconds_taken", "take_listing", "take_listings", "was_lost"]

LISTING_JOB = "list_container_contents"
"""Job type of what lists a container."""

_FINISHED = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)
_MARGIN = timedelta(seconds=5)
"""Between the clocks of who lists and who keeps the listing."""
_GRACE = timedelta(seconds=60)
"""In which a run compares what it listed."""
_TRIES = 3


def ask_for_listing(machine: CoreMachine, source: Source) -> str:
    """Queue the run that lists the source's container for it; the job's id."""
    new = _listing_job(machine, source)
    register = Register(machine.ledger, source.name)
    machine.ledger.submit([new], also=lambda c, _: register.note_in(c, listing_job=new.job_id, by_run=True))
    return new.job_id


def _listing_job(machine: CoreMachine, source: Source) -> NewJob:
    within = listing_prefix(source.prefix)
    return prepare(
        machine,
        binding_for(machine.registry, LISTING_JOB),
        {"container_name": source.container, "magic": False, **({"filter": {"prefix": within}} if within else {})},
        force=True,
        priority=BULK_PRIORITY,
        submitted_by=INTERNAL,
    )


def listing_of(machine: CoreMachine, source: Source, last: LastLook) -> Job | None:
    """The latest job that lists the container for this source as it is defined now; ``None``: none was asked for."""
    if last.listing_job is None or last.listing_job != _listing_job(machine, source).job_id:
        return None
    try:
        return machine.ledger.job(last.listing_job, LISTING_JOB)
    except JobNotFoundError:
        return None


def seconds_taken(job: Job | None) -> float:
    """How long the last listing took that was made whole; 0 where there is none."""
    result = job.result_data if job is not None else None
    return float(((result or {}).get("execution_info") or {}).get("scan_duration_seconds") or 0)


def was_lost(machine: CoreMachine, source: Source, last: LastLook, job: Job) -> bool:
    """Whether a listing was written and nobody compared it, as its run died over it."""
    if job.status not in _FINISHED or job.completed_at is None or datetime.now(UTC) - job.completed_at < _GRACE:
        return False
    info: ListingInfo | None = machine.services["listings"].info(source.container, job.job_id)
    return info is not None and (last.looked_at is None or info.listed_at > last.looked_at)


def take_listings(sources: Sequence[Source]) -> RunEnded:
    """What is done when a run has ended: the listings that sources asked for are compared."""

    def run_ended(machine: CoreMachine, job_type: str, jobs: Sequence[Mapping[str, Any]]) -> None:
        if job_type != LISTING_JOB or not jobs:
            return
        binding = binding_for(machine.registry, LISTING_JOB)
        ended = {binding.job_id(dict(parameters)) for parameters in jobs}
        problems = []
        for source in sources:
            try:
                take_listing(machine, source, ended)
            except GeoAssetsError as error:
                problems.append(f"source '{source.name}': {error}")
        if problems:
            raise LookOvertakenError("; ".join(problems))

    return run_ended


def take_listing(machine: CoreMachine, source: Source, ended: Collection[str]) -> Look | None:
    """Compare the listing that a source asked for, if it is one of the jobs that ended.

    Raises:
        GeoAssetsError: as :func:`~geo_assets.sources.look.look`.
    """
    last = Register(machine.ledger, source.name).last_look()
    if not last.by_run or last.listing_job not in ended:
        return None
    job = listing_of(machine, source, last)
    if job is None or job.status not in _FINISHED:
        return None
    info = machine.services["listings"].info(source.container, job.job_id)
    if info is None:
        return None
    took = seconds_taken(job)
    began = info.listed_at - timedelta(seconds=took) - _MARGIN
    for again in reversed(range(_TRIES)):
        try:
            return look(machine, source, listing=info, listed_from=began, listing_seconds=took)
        except LookOvertakenError:  # by a look at a few blobs
            if not again:
                raise
    return None
