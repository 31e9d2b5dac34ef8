"""What a run says while it works: how many of how many, how fast, how long still; and whether its numbers add up.

What belongs here: when something is said and in which words.  What does not: where it is shown (``asset_job``).

Counts come from the ledger, so they hold across the chunks and the processes of a run.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from geo_assets.coremachine.contract import JobStatus, OutcomeKind, TaskStatus
from geo_assets.coremachine.ledger import Ledger
from geo_assets.coremachine.ledger_tables import attempts, tasks

__all__ = ["AtWork", "Counts", "RunProgress", "Standing", "duration", "rate", "run_started"]

FIRST_SECONDS = 5.0
"""Age of a run at which it first says something."""
EVERY_SECONDS = 10.0
_WINDOW_SECONDS = 60.0
_WINDOW_UNITS = 10
"""A rate is taken over at least so many seconds and so many ended units, where there are."""
_LONG_SECONDS = 20.0
"""A task at work for longer is named."""

_GOOD = frozenset([*(kind.value for kind in OutcomeKind if kind.is_good), TaskStatus.COMPLETED.value])
_WAITING = frozenset([JobStatus.QUEUED.value, JobStatus.PROCESSING.value])


@dataclass(frozen=True, kw_only=True)
class AtWork:
    """The task that has been at work longest: what it does, for how many seconds."""

    what: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Units (jobs, or tasks of a stage) of a run."""

    good: int
    bad: int
    waiting: int

    @classmethod
    def of(cls, tally: Mapping[str, int]) -> "Counts":
        """From outcomes, or statuses where there is no outcome."""
        good = sum(count for name, count in tally.items() if name in _GOOD)
        waiting = sum(count for name, count in tally.items() if name in _WAITING)
        return cls(good=good, bad=sum(tally.values()) - good - waiting, waiting=waiting)

    @property
    def ended(self) -> int:
        """Good and bad."""
        return self.good + self.bad

    @property
    def all(self) -> int:
        """Ended and waiting."""
        return self.ended + self.waiting


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a run stands, in words."""

    line: str
    """``412 of 1,000 jobs done (408 good, 4 failed) · 35 a second · about 17 s left``."""
    gist: str
    """``41 %, 17 s left``: what is read where only the beginning is shown."""


class RunProgress:
    """Decides when a run says how it stands, and puts it in words.

    Made once a process and run, and kept across its chunks, so that the rate is that of the last minute rather than
    of the chunk.  Where the chunks of a run have processes of their own, ``last_told`` keeps them from all speaking.

    Args:
        ledger: where the counts are.
        run_id: the run.
        last_told: when any process of the run last said something, or ``None``.
        clock: seconds that only go up.
        now: the time of day, aware.
    """

    def __init__(
        self,
        ledger: Ledger,
        run_id: str,
        *,
        last_told: Callable[[], datetime | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._last_told = last_told
        self._clock = clock
        self._now = now
        self._stage: int | None = None
        self._unit = "jobs"
        self._samples: deque[tuple[float, int]] = deque()
        started = run_started(ledger, run_id)
        age = (now() - started).total_seconds() if started is not None else 0.0
        self._due = clock() + max(0.0, FIRST_SECONDS - age)

    def begin(self, stage: int | None = None, name: str = "") -> None:
        """Count the tasks of this stage from now on; ``None``: the run's jobs.  Said again for each chunk."""
        if self._samples and stage == self._stage:
            return
        self._stage = stage
        self._unit = "jobs" if stage is None else f"tasks of {name or stage}"
        self._samples.clear()
        self._samples.append((self._clock(), self._counts().ended))

    def seconds_left(self) -> float:
        """Seconds until something may be said."""
        return self._due - self._clock()

    def standing(self, at_work: AtWork | None) -> Standing | None:
        """How the run stands, if it is time to say it.

        Args:
            at_work: the task longest at work in this process.
        """
        now = self._clock()
        if now < self._due:
            return None
        told = self._last_told()
        if told is not None and (ago := (self._now() - told).total_seconds()) < EVERY_SECONDS:
            self._due = now + EVERY_SECONDS - max(0.0, ago)
            return None
        self._due = now + EVERY_SECONDS
        counts = self._counts()
        per_second = self._rate(now, counts.ended)
        parts = [f"{counts.ended:,} of {counts.all:,} {self._unit} done ({counts.good:,} good, {counts.bad:,} failed)"]
        gist = f"{100 * counts.ended // max(1, counts.all)} %"
        if per_second > 0:
            parts.append(rate(per_second))
            if counts.waiting:
                left = duration(counts.waiting / per_second)
                parts.append(f"about {left} left")
                gist += f", {left} left"
        if at_work is not None and at_work.seconds >= _LONG_SECONDS:
            parts.append(f"{at_work.what} at work for {duration(at_work.seconds)}")
        return Standing(line=" · ".join(parts), gist=gist)

    def _counts(self) -> Counts:
        if self._stage is None:
            return Counts.of(self._ledger.run_outcomes(self._run_id))
        return Counts.of(_task_statuses(self._ledger, self._run_id, self._stage))

    def _rate(self, now: float, ended: int) -> float:
        """Units a second over the last minute, or over the last ten units where they took longer."""
        samples = self._samples
        while len(samples) > 1 and now - samples[1][0] >= _WINDOW_SECONDS and ended - samples[1][1] >= _WINDOW_UNITS:
            samples.popleft()
        since, before = samples[0] if samples else (now, ended)
        samples.append((now, ended))
        # less than a second is no time to judge a rate by
        return max(0, ended - before) / (now - since) if now - since >= 1 else 0.0


def run_started(ledger: Ledger, run_id: str) -> datetime | None:
    """When the first of a run's jobs was begun."""
    first = sa.select(sa.func.min(attempts.c.started_at)).where(attempts.c.run_id == run_id)
    return ledger.read(lambda c: c.execute(first).scalar())


def _task_statuses(ledger: Ledger, run_id: str, stage: int) -> dict[str, int]:
    """Status → number of tasks of a stage, of the run's jobs; the index of tasks alone answers it."""
    query = (
        sa.select(tasks.c.status, sa.func.count().label("n"))
        .join(attempts, attempts.c.attempt_id == tasks.c.attempt_id)
        .where(attempts.c.run_id == run_id, tasks.c.stage == stage)
        .group_by(tasks.c.status)
    )
    return ledger.read(lambda c: {row.status: row.n for row in c.execute(query)})


def rate(per_second: float) -> str:
    """A rate in the unit people would say it in: ``35 a second``, ``2.4 a minute``."""
    for unit, seconds in (("second", 1), ("minute", 60), ("hour", 3600)):
        number = per_second * seconds
        if number >= 1 or unit == "hour":
            break
    text = f"{number:,.0f}" if number >= 10 else f"{number:.1f}"  # noqa: PLR2004 - two digits do
    return f"{text} an hour" if unit == "hour" else f"{text} a {unit}"


def duration(seconds: float) -> str:
    """A time people can picture: ``17 s``, ``3 min``, ``2 h 10 min``, ``3 days``."""
    whole = round(seconds)
    minutes = round(seconds / 60)
    if whole < 100:  # noqa: PLR2004 - as people say it
        return f"{whole} s"
    if minutes < 100:  # noqa: PLR2004
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} days"  # noqa: PLR2004
