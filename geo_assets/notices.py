"""Telling others of failed runs: what is posted, once a run, and not a thousand times the same.

What belongs here: what a post says (:func:`describe`), which runs are owed one, and which kinds of failure were told
lately (the ledger's table ``notices``).  What does not: finding failed runs in Dagster (``assets.failure_webhook``) and
posting (``webhook``).

A failed run is first *owed*, in a row of its own, then told and marked.  So a webhook that is down for an hour, or a
daemon that dies anywhere, loses nothing; a daemon that dies between post and mark posts a second time.
"""

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Attempt, Ledger
from geo_assets.coremachine.ledger_tables import notices
from geo_assets.coremachine.reasons import group_of
from geo_assets.errors import WebhookError
from geo_assets.redaction import redact
from geo_assets.settings import Settings

__all__ = ["FailedRun", "Notice", "Told", "counts", "describe", "owe", "sample", "tell"]

MOST_REASONS = 10
"""Reasons a post lists."""
MOST_KEYS = 5
"""Partition keys a reason lists."""
_LONGEST = 500
_LONGEST_CODE = 200
"""Characters of a name or reason in the words for a chat, which takes a few thousand in all."""
_AGAIN = timedelta(minutes=1)
"""How long a run that could not be told, or that another daemon is telling, waits at least."""
_AGAIN_AT_MOST = timedelta(hours=1)
_TICK_SECONDS = 25.0
_KEPT = timedelta(days=90)
"""How long it is remembered who was told what."""
_MOST_OWED = 500
"""Runs looked at in one tick."""
_RUN, _FAILURE = "run", "failure"

_FAILED = (JobStatus.FAILED, JobStatus.COMPLETED_WITH_ERRORS)


@dataclass(frozen=True, kw_only=True)
class FailedRun:
    """What Dagster knows of a failed run."""

    run_id: str
    job_name: str
    wave_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    error: str | None = None
    """Its own message: of the step that failed, or of whoever found the run dead."""


@dataclass(frozen=True, kw_only=True)
class Notice:
    """What is posted of one run, and what makes two of them alike."""

    fingerprint: str
    body: Mapping[str, Any]


@dataclass(kw_only=True)
class Told:
    """What one tick did."""

    posted: int = 0
    suppressed: int = 0
    """Alike and told already within the hours set."""
    gone: int = 0
    """Runs that Dagster no longer has."""
    notes: list[str] = field(default_factory=list)


# --- what a post says ----------------------------------------------------------------------------------------------


def describe(ledger: Ledger, run: FailedRun, settings: Settings) -> Notice:
    """What failed and why: the jobs of a run by reason, or where no job of it failed, what Dagster says."""
    failed = ledger.attempts_of_run(run.run_id, statuses=_FAILED)
    groups: dict[str, list[Attempt]] = {}
    for attempt in failed:
        groups.setdefault(group_of(_why(attempt)), []).append(attempt)
    by_size = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    outcomes = ledger.run_outcomes(run.run_id)
    jobs = sorted({attempt.job_type for attempt in failed}) or [run.job_name]
    alike = [*jobs, *sorted(groups)] if groups else [*jobs, group_of(run.error)]
    body = {
        "event": "run_failed",
        "run_id": run.run_id,
        "job": ", ".join(jobs),
        "wave": run.wave_id,
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "outcomes": outcomes,
        "failed": len(failed),
        "reasons": len(groups),
        "failures": [_failure(reason, attempts) for reason, attempts in by_size[:MOST_REASONS]],
        "error": _short(run.error) if run.error else None,
        "url": f"{settings.ui_url.rstrip('/')}/runs/{run.run_id}" if settings.ui_url else None,
        "retry": shlex.join(["geo-assets", "retry", "--failed", "--run", run.run_id]) if failed else None,
    }
    return Notice(fingerprint=hashlib.sha256(json.dumps(alike).encode()).hexdigest(), body=body)


def sample(settings: Settings) -> dict[str, Any]:
    """A post that says it is a test, with the fields of a real one."""
    failure = {
        "reason": "FILE_UNREADABLE: … is cut off",
        "example": "FILE_UNREADABLE: 'a.tif' is cut off",
        "count": 1,
        "partition_keys": ["rasters/a.tif"],
    }
    body = {
        "event": "test",
        "run_id": "00000000-0000-0000-0000-000000000000",
        "job": "process_raster",
        "wave": None,
        "started_at": _iso(_now()),
        "ended_at": _iso(_now()),
        "outcomes": {"created": 2, "failed": 1},
        "failed": 1,
        "reasons": 1,
        "failures": [failure],
        "error": None,
        "url": settings.ui_url,
        "retry": None,
    }
    return _with_text(body, suppressed=0, since=None, title="This is a test, nothing failed: ")


def _failure(reason: str, attempts: Sequence[Attempt]) -> dict[str, Any]:
    return {
        "reason": reason,
        "example": _short(_why(attempts[0])),
        "count": len(attempts),
        "partition_keys": [redact(attempt.partition_key) for attempt in attempts[:MOST_KEYS]],
    }


def _why(attempt: Attempt) -> str | None:
    return attempt.reason or attempt.error_details


def _with_text(body: Mapping[str, Any], *, suppressed: int, since: datetime | None, title: str = "") -> dict[str, Any]:
    """The body with what is known only when it is posted, and in words, as chats show them."""
    total = sum(body["outcomes"].values())
    what = f"{body['failed']} of {total} failed" if body["failed"] else "the run failed"
    lines = [f"{title}{_code(body['job'])}: {what} (run {_code(body['run_id'][:8])})"]
    for one in body["failures"]:
        keys = ", ".join(_code(key) for key in one["partition_keys"])
        more = f" and {one['count'] - len(one['partition_keys'])} more" if one["count"] > MOST_KEYS else ""
        lines.append(f"- {one['count']}: {_code(one['reason'])} ({keys}{more})")
    if body["reasons"] > len(body["failures"]):
        lines.append(f"- and {body['reasons'] - len(body['failures'])} other reasons")
    if body["error"] and not body["failures"]:
        lines.append(_code(body["error"]))
    if suppressed:
        moment = f" since {since:%Y-%m-%d %H:%M} UTC" if since else ""
        lines.append(f"{suppressed} more runs failed alike{moment} and were not told")
    lines += [body["url"]] if body["url"] else []
    lines += [f"to run them again: {_code(body['retry'])}"] if body["retry"] else []
    return {"text": "\n".join(lines), **body, "suppressed": suppressed, "suppressed_since": _iso(since)}


def _code(text: str) -> str:
    # names of files are strangers' text: nothing in it may call a channel, as <!channel> and @here do outside of code
    line = " ".join(text[:_LONGEST].replace("`", "'").replace("<", "(").replace(">", ")").split())
    return f"`{line if len(line) <= _LONGEST_CODE else line[: _LONGEST_CODE - 1] + '…'}`"


def _short(text: str | None) -> str:
    line = " ".join(redact(text or "").split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds")


# --- who was told what ---------------------------------------------------------------------------------------------


def owe(ledger: Ledger, run_ids: Sequence[str]) -> None:
    """Remember that these runs are to be told; those that are known already stay as they are."""
    now = _now()
    rows = [
        {"fingerprint": run_id, "kind": _RUN, "first_at": now, "last_at": now, "sent_at": None, "suppressed": 0}
        for run_id in run_ids
    ]
    if rows:
        ledger.write(lambda c: c.execute(_insert(c).on_conflict_do_nothing(), rows))


def tell(
    ledger: Ledger,
    settings: Settings,
    *,
    find: Callable[[str], FailedRun | None],
    post: Callable[..., None],
    seconds: float = _TICK_SECONDS,
) -> Told:
    """Post what is owed, the longest waiting first, for as long as ``seconds`` allow.

    Args:
        ledger: what is owed and was told.
        settings: how long alike failures are not told again, and the UI's address.
        find: a run's facts, ``None`` where it was deleted.
        post: :meth:`geo_assets.webhook.Webhook.post`.
        seconds: when to stop; what is left waits.
    """
    ends = time.monotonic() + seconds
    told = Told()
    for run_id, tried in ledger.read(_owed):
        if time.monotonic() >= ends:
            break
        if not ledger.write(lambda c, r=run_id, t=tried: _claim(c, r, t)):  # type: ignore[misc]
            continue  # another daemon is at it
        run = find(run_id)
        if run is None:
            ledger.write(lambda c, r=run_id: _mark_run(c, r))  # type: ignore[misc]
            told.gone += 1
            continue
        try:
            _tell_one(ledger, settings, run, post, told, ends)
        except WebhookError as error:
            told.notes.append(f"run {run_id} is not told yet: {error}")
            if error.is_down:
                break
    if told.posted:
        old = notices.delete().where(notices.c.sent_at < _now() - max(_KEPT, _window(settings)))
        ledger.write(lambda c: c.execute(old))
    return told


def counts(ledger: Ledger) -> tuple[int, int]:
    """Runs that are still to be told, and kinds of failure that were told once."""

    def query(c: Connection) -> tuple[int, int]:
        number = sa.select(sa.func.count()).select_from(notices)
        owed = c.execute(number.where(notices.c.kind == _RUN, notices.c.sent_at.is_(None))).scalar_one()
        return owed, c.execute(number.where(notices.c.kind == _FAILURE)).scalar_one()

    return ledger.read(query)


def _tell_one(
    ledger: Ledger, settings: Settings, run: FailedRun, post: Callable[..., None], told: Told, ends: float
) -> None:
    notice = describe(ledger, run, settings)
    same = notices.c.fingerprint == notice.fingerprint
    before = ledger.read(lambda c: c.execute(notices.select().where(same)).one_or_none())
    if before is not None and before.sent_at is not None and before.sent_at > _now() - _window(settings):
        ledger.write(lambda c: _mark_suppressed(c, run.run_id, notice.fingerprint))
        told.suppressed += 1
        return
    suppressed, since = (before.suppressed, before.sent_at) if before is not None else (0, None)
    post(_with_text(notice.body, suppressed=suppressed, since=since if suppressed else None), ends=ends)
    ledger.write(lambda c: _mark_posted(c, run.run_id, notice.fingerprint, suppressed))
    told.posted += 1


def _window(settings: Settings) -> timedelta:
    return timedelta(hours=settings.failure_webhook_hours)


def _owed(c: Connection) -> list[tuple[str, datetime]]:
    """Runs whose turn it is, with when they were last tried."""
    now = _now()
    query = (
        sa.select(notices.c.fingerprint, notices.c.first_at, notices.c.last_at)
        .where(notices.c.kind == _RUN, notices.c.sent_at.is_(None))
        .order_by(notices.c.last_at, notices.c.fingerprint)
    )
    waited = ((run_id, last) for run_id, first, last in c.execute(query) if _has_waited(first, last, now))
    return list(islice(waited, _MOST_OWED))


def _has_waited(first: datetime, last: datetime, now: datetime) -> bool:
    if last <= first:  # a row that nobody has tried yet has the same moment in both
        return True
    # ever less often: a webhook that takes what it does not answer is not to get it for ever, every minute
    return now - last > min(max(_AGAIN, (last - first) / 4), _AGAIN_AT_MOST)


def _claim(c: Connection, run_id: str, tried: datetime) -> bool:
    """Take a run that was last tried then, for a minute at least; false if somebody else has it or it is told."""
    mine = notices.update().where(
        notices.c.fingerprint == run_id, notices.c.sent_at.is_(None), notices.c.last_at == tried
    )
    # later than it was even where the clock has not moved on
    return c.execute(mine.values(last_at=max(_now(), tried + timedelta(microseconds=1)))).rowcount == 1


def _mark_run(c: Connection, run_id: str, *, suppressed: int = 0) -> int:
    told = notices.update().where(notices.c.fingerprint == run_id, notices.c.sent_at.is_(None))
    return c.execute(told.values(sent_at=_now(), suppressed=suppressed)).rowcount


def _mark_suppressed(c: Connection, run_id: str, fingerprint: str) -> None:
    if _mark_run(c, run_id, suppressed=1):
        one_more = notices.update().where(notices.c.fingerprint == fingerprint)
        c.execute(one_more.values(suppressed=notices.c.suppressed + 1, last_at=_now()))


def _mark_posted(c: Connection, run_id: str, fingerprint: str, suppressed: int) -> None:
    _mark_run(c, run_id)
    now = _now()
    row = {"fingerprint": fingerprint, "kind": _FAILURE, "first_at": now, "last_at": now, "sent_at": now}
    c.execute(
        _insert(c).on_conflict_do_update(
            index_elements=[notices.c.fingerprint],
            # what was counted meanwhile stays for the next post
            set_={"sent_at": now, "last_at": now, "suppressed": notices.c.suppressed - suppressed},
        ),
        {**row, "suppressed": 0},
    )


def _insert(c: Connection) -> Any:
    return (sqlite.insert if c.dialect.name == "sqlite" else postgresql.insert)(notices)


def _now() -> datetime:
    return datetime.now(UTC)
