"""What a reconciliation finds: counts by direction that add up, and each difference with what would mend it.

What belongs here: the values.  What does not: how they come about.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from geo_assets.errors import CountsError

__all__ = ["WRONG", "Action", "Direction", "Fate", "Finding", "Line", "Reconciliation"]


class Direction(StrEnum):
    """What is looked for where."""

    LEDGER_STORAGE = "ledger → storage"
    STORAGE_LEDGER = "storage → ledger"
    LEDGER_TABLES = "ledger → tables"
    TABLES_LEDGER = "tables → ledger"
    LEDGER_CATALOG = "ledger → catalog"
    CATALOG_LEDGER = "catalog → ledger"
    CATALOG_STORAGE = "catalog → storage"
    CATALOG_TABLES = "catalog → tables"
    SOURCES_LEDGER = "sources → ledger"
    GONE_LEDGER = "gone sources → ledger"
    LEDGER_DAGSTER = "ledger → Dagster"
    DAGSTER_LEDGER = "Dagster → ledger"


class Fate(StrEnum):
    """What one thing is counted as; each is counted once a direction."""

    # ledger → stores
    PRESENT = "present"
    REPLACED = "replaced"
    """Recorded, and rightly gone: a later job of the partition made something else."""
    ENDED = "gone with its source"
    CHANGED = "changed"
    MISSING = "missing"
    # stores → ledger
    RECORDED = "recorded"
    BY_OTHERS = "by other jobs"
    """Made by a job that records no single things, such as one of a whole container, or whose record was withdrawn."""
    WAITING = "kept for a day"
    """A prepared part of a load; swept when it is a day old."""
    LEFT_BEHIND = "left behind"
    UNKNOWN = "unknown"
    # catalog → stores
    DANGLING = "dangling"
    # sources
    WITH_JOB = "with a job"
    WITHOUT_JOB = "without a job"
    STANDS = "results stand"
    TAKEN_BACK = "nothing left"
    # Dagster
    SHOWN = "shown"
    NOT_SHOWN = "not shown"
    # all
    AT_WORK = "at work"
    """Of a partition that has a job under way, or had one while this looked."""
    NOT_JUDGED = "not judged"


WRONG = frozenset(
    {
        Fate.CHANGED,
        Fate.MISSING,
        Fate.LEFT_BEHIND,
        Fate.UNKNOWN,
        Fate.DANGLING,
        Fate.WITHOUT_JOB,
        Fate.NOT_SHOWN,
    }
)
"""What is a disagreement."""


class Action(StrEnum):
    """What a repair does about a finding."""

    QUEUE = "queue its job again"
    REMOVE_ITEM = "remove the item and its picture"
    SHOW = "show the partition as materialized again"
    SWEEP = "remove what is older than a day"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One difference."""

    direction: Direction
    fate: Fate
    kind: str
    """``blob``, ``item``, ``table``, ``entry`` (of a source) or ``partition``."""
    collection: str
    """The blob's container, the item's collection, the table's schema, the entry's source, the partition's asset."""
    name: str
    asset: str | None = None
    partition_key: str | None = None
    reason: str
    """What is wrong, in words."""
    mend: str
    """What would mend it, in words."""
    action: Action | None = None
    """What a repair would do; ``None``: it is for people."""
    job: tuple[str, str] | None = None
    """Type and id of the job to queue again."""
    attempt_id: str | None = None
    """Whose result is to be shown again."""
    stands_for: tuple[str, str] | None = None
    """Asset and key of the partition that shows the item, if what it describes is the partition's own source."""

    @property
    def thing(self) -> str:
        """Its whole name."""
        return f"{self.collection}/{self.name}"

    def as_dict(self) -> dict[str, Any]:
        """What ``--json``, the audit and the UI say of it."""
        return {
            "direction": self.direction.value,
            "what": self.fate.value,
            "kind": self.kind,
            "collection": self.collection,
            "name": self.name,
            "asset": self.asset,
            "partitionKey": self.partition_key,
            "reason": self.reason,
            "mend": self.mend,
            "action": None if self.action is None else self.action.value,
        }


@dataclass(kw_only=True)
class Line:
    """One direction: how many there are, and what each is counted as."""

    direction: Direction
    total: int = 0
    """Counted where they were listed, not by adding up."""
    counts: Counter[Fate] = field(default_factory=Counter)
    problem: str | None = None
    """Why nothing is known of this direction."""

    @property
    def wrong(self) -> int:
        """How many are a disagreement."""
        return sum(count for fate, count in self.counts.items() if fate in WRONG)

    @property
    def adds_up(self) -> bool:
        """Whether each was counted once; nothing is said of a direction that is unknown."""
        return self.problem is not None or self.total == self.counts.total()

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        counts = {fate.value: self.counts[fate] for fate in Fate if self.counts[fate]}
        return {"direction": self.direction.value, "total": self.total, "counts": counts, "unknown": self.problem}


@dataclass(frozen=True, kw_only=True)
class Reconciliation:
    """The answer."""

    started_at: datetime
    seconds: float
    lines: tuple[Line, ...]
    findings: tuple[Finding, ...]
    not_shown: Mapping[str, int] = field(default_factory=dict)
    """Direction and fate → findings beyond those that are kept."""
    left_to_mend: int = 0
    """Those of them that a repair could mend."""

    @property
    def wrong(self) -> int:
        """All disagreements."""
        return sum(line.wrong for line in self.lines)

    @property
    def unknown(self) -> tuple[Line, ...]:
        """Directions of which nothing is known."""
        return tuple(line for line in self.lines if line.problem is not None)

    @property
    def agrees(self) -> bool:
        """Whether all was looked at and nothing is wrong."""
        return not self.wrong and not self.unknown

    def count(self, fate: Fate) -> int:
        """How many things of all directions are counted as this."""
        return sum(line.counts[fate] for line in self.lines)

    def require_sums(self) -> None:
        """Make sure that each thing was counted once.

        Raises:
            CountsError: a direction whose counts do not add up; a bug.
        """
        bad = [f"{line.direction.value}: {line.as_dict()}" for line in self.lines if not line.adds_up]
        if bad:
            raise CountsError(f"counts of a reconciliation do not add up, which is a bug: {'; '.join(bad)}")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for ``--json``."""
        return {
            "startedAt": self.started_at.isoformat(),
            "seconds": self.seconds,
            "agrees": self.agrees,
            "addsUp": all(line.adds_up for line in self.lines),
            "wrong": self.wrong,
            "directions": [line.as_dict() for line in self.lines],
            "findings": [finding.as_dict() for finding in self.findings],
            "moreFindings": dict(self.not_shown),
            "moreToMend": self.left_to_mend,
        }
