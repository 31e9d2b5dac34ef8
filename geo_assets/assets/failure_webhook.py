"""The sensor ``failed_runs``: posts what failed and why to a webhook.

What belongs here: the Dagster side: which runs failed, and what Dagster says of one.  What does not: what is posted and
how often (``geo_assets.notices``).

A plain sensor, not a run-failure sensor: that one is only called when a run fails, takes five runs a tick, and so
could neither post later what could not be posted now nor keep a tick short.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from geo_assets.coremachine.asset_job import MACHINE, machine_of
from geo_assets.coremachine.dispatch import WAVE_TAG
from geo_assets.coremachine.ledger import Ledger
from geo_assets.notices import FailedRun, owe, tell
from geo_assets.settings import Settings

SENSOR_NAME = "failed_runs"
_INTERVAL_SECONDS = 30
_OVERLAP = timedelta(minutes=15)
"""How far back a tick looks again: clocks differ, a run may show up late, and a known one is not told twice."""
_LOST = timedelta(days=1)
"""How far back a tick looks whose cursor cannot be read."""
_PAGE = 200
_MOST_PAGES = 20


def build_failure_webhook(settings: Settings) -> dg.Definitions:
    """The sensor, where a webhook is set.

    Raises:
        SettingsError: it is no URL.
    """
    if settings.failure_webhook is None:
        return dg.Definitions()
    from geo_assets.webhook import Webhook  # noqa: PLC0415 - for those who want it

    webhook = Webhook(settings.failure_webhook)

    @dg.sensor(
        name=SENSOR_NAME,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys={MACHINE},
        description="Posts failed runs of this code location to the webhook: what failed and why, the same kind of"
        " failure only once in a while. What cannot be posted now is posted later.",
    )
    def failed_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        machine = machine_of(context)
        _find_new(context, machine.ledger)
        told = tell(
            machine.ledger,
            machine.settings,
            find=lambda run_id: _facts(context.instance, run_id),
            post=webhook.post,
        )
        for note in told.notes:
            context.log.warning(note)
        return dg.SkipReason(
            "; ".join([f"{told.posted} posted, {told.suppressed} alike and not posted again", *told.notes])
        )

    return dg.Definitions(sensors=[failed_runs])


def _find_new(context: dg.SensorEvaluationContext, ledger: Ledger) -> None:
    """Owe a post for each run that failed since the last tick; the first tick begins with now."""
    now = datetime.now(UTC)
    since, after = _read_cursor(context.cursor, now)
    for page in _pages(context.instance, max(since, after - _OVERLAP)):
        new = [record for record in page if _ended_after(record, since) and _is_ours(context, record.dagster_run)]
        owe(ledger, [record.dagster_run.run_id for record in new])
        after = max(after, page[-1].update_timestamp)
    # a clock that is ahead must not hide what others say
    context.update_cursor(json.dumps({"since": since.isoformat(), "after": min(after, now).isoformat()}))


def _read_cursor(text: str | None, now: datetime) -> tuple[datetime, datetime]:
    """When the sensor was first on, and the latest run it knows of."""
    if not text:
        return now, now
    try:
        cursor = json.loads(text)
        return datetime.fromisoformat(cursor["since"]), datetime.fromisoformat(cursor["after"])
    except (ValueError, KeyError, TypeError):  # of another version, or meddled with: what was told is known anyway
        return now - _LOST, now - _LOST


def _pages(instance: dg.DagsterInstance, after: datetime) -> Iterator[Sequence[dg.RunRecord]]:
    for _ in range(_MOST_PAGES):
        page = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=after),
            limit=_PAGE,
            order_by="update_timestamp",
            ascending=True,
        )
        if page:
            yield page
        if len(page) < _PAGE:
            return
        # the last one again, as others may have its very moment
        after = page[-1].update_timestamp - timedelta(microseconds=1)


def _ended_after(record: dg.RunRecord, moment: datetime) -> bool:
    # a new tag on an old run makes it look updated
    return record.end_time is None or record.end_time >= moment.timestamp()


def _is_ours(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether the run is of this code location; of one that says nothing, yes."""
    here, origin = context.code_location_origin, run.remote_job_origin
    if here is None or origin is None:
        return True
    return origin.repository_origin.code_location_origin.location_name == here.location_name


def _facts(instance: dg.DagsterInstance, run_id: str) -> FailedRun | None:
    record = instance.get_run_record_by_id(run_id)
    if record is None:
        return None
    run = record.dagster_run
    return FailedRun(
        run_id=run_id,
        job_name=run.job_name,
        wave_id=run.tags.get(WAVE_TAG),
        started_at=_moment(record.start_time),
        ended_at=_moment(record.end_time),
        error=_error_of(instance, run_id),
    )


def _error_of(instance: dg.DagsterInstance, run_id: str) -> str | None:
    """What Dagster says of the failure: of the first step that failed, else of the run as a whole."""
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        if event is None:
            continue
        data: Any = event.event_specific_data
        said = getattr(data, "user_failure_data", None)
        if said is not None and said.description:  # our own words
            return str(said.description)
        error = getattr(data, "error", None)
        while error is not None and error.cause is not None:  # Dagster wraps what a step raised
            error = error.cause
        if error is not None:
            return str(error.message)
        if event.event_type is dg.DagsterEventType.RUN_FAILURE:
            return event.message
    return None


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
