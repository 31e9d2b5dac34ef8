"""What a run says at its end: outcomes whose sum is what it was to do, and what failed, by reason.

What belongs here: counting, adding up, wording.  What does not: writing it to Dagster (``asset_job``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from geo_assets.coremachine.contract import OutcomeKind
from geo_assets.coremachine.ledger import Attempt
from geo_assets.coremachine.progress import duration, rate
from geo_assets.coremachine.reasons import group_of

__all__ = ["Asked", "RunSummary", "failure_rows", "stage_rows"]

_REASONS_SHOWN = 10
_ASKED = re.compile(r"(\d+)(?:, (\d+) busy)?(?:, (\d+) refused)?")
_ORDER = {kind.value: position for position, kind in enumerate(OutcomeKind)}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a run was to do, counted when it began."""

    jobs: int
    """Taken by it."""
    busy: int = 0
    """Partitions that another run was at work on."""
    refused: int = 0
    """Partitions no job could be made of."""

    def __str__(self) -> str:
        """``1000``, or ``998, 1 busy, 1 refused``."""
        others = ((self.busy, "busy"), (self.refused, "refused"))
        return ", ".join([str(self.jobs), *(f"{count} {what}" for count, what in others if count)])

    @classmethod
    def parse(cls, text: str) -> "Asked | None":
        """The inverse; ``None`` for any other text."""
        found = _ASKED.fullmatch(text)
        if found is None:
            return None
        jobs, busy, refused = (int(number or 0) for number in found.groups())
        return cls(jobs=jobs, busy=busy, refused=refused)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The end of a run in numbers."""

    outcomes: Mapping[str, int]
    """Outcome, or status where there is none, → number of jobs, as the ledger counts them at the end."""
    asked: Asked
    seconds: float

    @property
    def jobs(self) -> int:
        """Jobs the ledger knows of."""
        return sum(self.outcomes.values())

    @property
    def problem(self) -> str | None:
        """In words, where the jobs the run took and their outcomes do not add up."""
        if self.jobs == self.asked.jobs:
            return None
        return (
            f"the numbers do not add up: this run took {self.asked.jobs:,} jobs, the ledger has {self.jobs:,} of them"
            " with it; look for others with the same jobs (another run takes up those of a run that seems dead)"
        )

    @property
    def rows(self) -> list[dict[str, str | int]]:
        """``outcome`` and ``jobs``, the last row their sum."""
        named = sorted(self.outcomes.items(), key=lambda item: (_ORDER.get(item[0], len(_ORDER)), item[0]))
        counted = [
            *named,
            ("skipped: another run is at work on it", self.asked.busy),
            ("refused: no job follows from the partition", self.asked.refused),
            ("not with this run any more", max(0, self.asked.jobs - self.jobs)),
        ]
        rows: list[dict[str, str | int]] = [{"outcome": name, "jobs": count} for name, count in counted if count]
        return [*rows, {"outcome": "all", "jobs": sum(count for _, count in counted)}]

    @property
    def sentence(self) -> str:
        """``1,000 jobs in 28 s (36 a second): 996 created, 4 failed``."""
        *parts, whole = self.rows
        speed = f" ({rate(self.jobs / self.seconds)})" if self.jobs and self.seconds else ""
        one = "job" if whole["jobs"] == 1 else "jobs"
        said = ", ".join(f"{row['jobs']:,} {row['outcome']}" for row in parts) or "nothing to do"
        text = f"{whole['jobs']:,} {one} in {duration(self.seconds)}{speed}: {said}"
        return f"{text}; {self.problem}" if self.problem else text


def failure_rows(problems: Sequence[Attempt]) -> list[dict[str, str | int]]:
    """``reason``, ``jobs``, ``such as`` (a partition), most frequent first; the jobs add up to all that failed."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in problems:
        groups.setdefault(group_of(attempt.reason), []).append(attempt)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    rows: list[dict[str, str | int]] = [
        {"reason": reason, "jobs": len(group), "such as": group[0].partition_key}
        for reason, group in ranked[:_REASONS_SHOWN]
    ]
    if rest := ranked[_REASONS_SHOWN:]:
        count = sum(len(group) for _, group in rest)
        rows.append({"reason": f"{len(rest)} other reasons", "jobs": count, "such as": rest[0][1][0].partition_key})
    return rows


def stage_rows(attempts: Sequence[Attempt], names: Sequence[str]) -> list[dict[str, str | int]]:
    """``stage``, ``jobs`` that came to it, ``tasks``, ``completed``, ``failed``, for the stages that were begun."""
    return [row for number, name in enumerate(names, start=1) for row in _stage_row(attempts, str(number), name)]


def _stage_row(attempts: Sequence[Attempt], number: str, name: str) -> Iterator[dict[str, str | int]]:
    summaries = [attempt.stage_results[number] for attempt in attempts if number in attempt.stage_results]
    if summaries:
        sums = {what: sum(int(summary[what]) for summary in summaries) for what in ("tasks", "completed", "failed")}
        yield {"stage": name, "jobs": len(summaries), **sums}
