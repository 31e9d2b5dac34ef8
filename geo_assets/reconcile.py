"""Storage, ledger, tables, catalog, sources and Dagster compared in both directions; counts add up; and mended.

What belongs here: :func:`reconcile` and :func:`repair`.  What does not: the pieces (``geo_assets.reconciliation``),
Dagster, which is handed in (``coremachine.shown``), and printing (``cli.reconcile_command``).

The ledger is read first, then each store once, as a listing and not thing by thing; both sides are compared a bucket at
a time, so that memory does not grow with an archive.  Each difference is looked at once more by itself before anybody
is told.  Nothing is changed.

:func:`repair` mends what can be mended without a doubt: it queues jobs again, removes items of which everything is
gone, shows partitions again, sweeps what broken-off loads left.  What no job recorded is never touched.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, LedgerUnavailableError
from geo_assets.reconciliation import wording
from geo_assets.reconciliation.compare import Compared, compare_pairs, compare_things
from geo_assets.reconciliation.findings import Action, Direction, Fate, Finding, Line, Reconciliation
from geo_assets.reconciliation.judge import Judge, Row
from geo_assets.reconciliation.looks import Looks, Staged
from geo_assets.reconciliation.recorded import active_now, pair_key, read_pairs, read_things, thing_key
from geo_assets.reconciliation.repairing import ACTION, Mended, Show, repair
from geo_assets.reconciliation.source_entries import compare_sources
from geo_assets.redaction import redact

__all__ = [
    "ACTION",
    "EVERYTHING",
    "Action",
    "Direction",
    "Fate",
    "Finding",
    "Line",
    "Mended",
    "Part",
    "Reconciliation",
    "Show",
    "Shown",
    "reconcile",
    "repair",
]

Part = Literal["storage", "tables", "catalog", "sources", "dagster"]
"""What is compared with the ledger."""
EVERYTHING: frozenset[Part] = frozenset(get_args(Part))
Shown = Callable[[str], Collection[str]]
"""The partitions of an asset that Dagster shows as materialized."""
Progress = Callable[[str, int], None]
"""Told what is being read, and how much of it was."""

_KEPT = 1000
_STORES: frozenset[Part] = frozenset({"storage", "tables", "catalog"})
_NEEDS: dict[Direction, tuple[Part, tuple[str, ...]]] = {
    Direction.LEDGER_STORAGE: ("storage", ("storage",)),
    Direction.STORAGE_LEDGER: ("storage", ("storage",)),
    Direction.LEDGER_TABLES: ("tables", ("tables",)),
    Direction.TABLES_LEDGER: ("tables", ("tables",)),
    Direction.LEDGER_CATALOG: ("catalog", ("catalog",)),
    Direction.CATALOG_LEDGER: ("catalog", ("catalog",)),
    Direction.CATALOG_STORAGE: ("catalog", ("catalog", "storage")),
    Direction.CATALOG_TABLES: ("catalog", ("catalog", "tables")),
}
"""Direction → the part it belongs to, and the stores that must have been read."""


def reconcile(
    machine: CoreMachine,
    *,
    what: Collection[Part] = EVERYTHING,
    deep: bool = False,
    shown: Shown | None = None,
    keep: int = _KEPT,
    progress: Progress | None = None,
) -> Reconciliation:
    """Compare; nothing is changed.

    Args:
        machine: the parts; of the services, ``blobs``, ``catalog``, ``tables`` and ``settings`` are used.
        what: which parts.
        deep: count the rows of every recorded table as well, which finds rows added or removed by other means.
        shown: what Dagster shows; ``None``: Dagster is not asked.
        keep: most findings that are kept of each direction and kind; all are counted.
        progress: told what is going on.

    Returns:
        One line a direction; a store that cannot be read is a line without counts that says why.

    Raises:
        LedgerUnavailableError: without the ledger there is nothing to compare with.
        ContractError: a workflow class stumbles over a result.
    """
    return _Reconciler(machine, what=frozenset(what), deep=deep, shown=shown, keep=keep, progress=progress).run()


class _Reconciler:
    def __init__(
        self,
        machine: CoreMachine,
        *,
        what: frozenset[Part],
        deep: bool,
        shown: Shown | None,
        keep: int,
        progress: Progress | None,
    ) -> None:
        self._machine, self._what, self._deep, self._keep = machine, what, deep, keep
        self._shown = shown if "dagster" in what else None
        self._progress = progress or (lambda _what, _rows: None)
        self._started = datetime.now(UTC)
        self._lines: dict[Direction, Line] = {}
        scratch = machine.settings.scratch_path
        self._things = Buckets(scratch, thing_key())
        self._there = Buckets(scratch, thing_key())
        self._references = Buckets(scratch, thing_key())
        self._pairs = Buckets(scratch, pair_key())
        self._visible = Buckets(scratch, pair_key())

    def run(self) -> Reconciliation:
        began = time.monotonic()
        findings: list[Finding] = []
        beyond: dict[str, int] = {}
        left = 0
        if "sources" in self._what:
            lines, found = compare_sources(self._machine.ledger, started=self._started, keep=self._keep)
            self._lines.update({line.direction: line for line in lines})
            findings += found
        if self._what & _STORES or self._shown is not None:
            with self._things, self._there, self._references, self._pairs, self._visible:
                judge = self._compare_stores()
            findings += judge.findings
            beyond, left = dict(judge.beyond), judge.left_to_mend
        return Reconciliation(
            started_at=self._started,
            seconds=round(time.monotonic() - began, 3),
            lines=tuple(self._lines[direction] for direction in Direction if direction in self._lines),
            findings=tuple(findings),
            not_shown=beyond,
            left_to_mend=left,
        )

    def _compare_stores(self) -> Judge:
        looks, staged = self._read()
        judge = Judge(self._machine, started=self._started, problems=looks.problems, deep=self._deep, keep=self._keep)
        for direction, (part, needed) in _NEEDS.items():
            if part in self._what:
                why = [f"{looks.problems[store]}" for store in needed if store in looks.problems]
                self._lines[direction] = Line(direction=direction, problem="; ".join(why) or None)
        self._set_totals(looks)
        for compared in compare_things(self._things, self._there, self._references, deep=self._deep):
            self._take(compared, judge)
        if staged is not None:
            self._take_staged(staged, judge)
        if self._shown is not None:
            self._compare_partitions(judge, self._shown)
        return judge

    # --- reading

    def _read(self) -> tuple[Looks, Staged | None]:
        machine = self._machine
        self._progress("results of jobs", 0)
        places = read_things(machine.ledger, machine.registry, self._take_recorded)
        if self._shown is not None:
            read_pairs(machine.ledger, machine.registry, self._pairs.add)
        looks = Looks(
            machine.services,
            there=self._there,
            references=self._references,
            pairs=self._pairs if self._shown is not None else None,
            progress=self._progress,
        )
        if self._what & {"storage", "catalog"} or self._shown is not None:
            # pictures in the storage and partitions of Dagster are explained by items as well
            looks.read_catalog()
        if self._what & {"tables", "catalog"}:
            schemas = {collection for kind, collection in places if kind == "table"}
            looks.read_tables(schemas | looks.referenced_schemas)
        staged = None
        if self._what & {"storage", "catalog"}:
            others = {collection for kind, collection in places if kind == "blob"} if "storage" in self._what else set()
            looks.read_containers(self._ours(), others | looks.referenced)
        if "storage" in self._what:
            activity = active_now(machine.ledger, machine.registry, self._started)
            staged = looks.read_staging(activity.job_prefixes, keep=self._keep)
        return looks, staged

    def _ours(self) -> set[str]:
        settings = self._machine.settings
        return {settings.silver_container, settings.thumbnail_container} if "storage" in self._what else set()

    def _take_recorded(self, frame: pl.DataFrame) -> None:
        self._things.add(frame)
        self._progress("results of jobs", self._things.rows)
        if self._shown is not None:
            due = frame.filter(pl.col("due"))
            self._pairs.add(
                due.select(
                    pl.col("shown_asset").alias("asset"),
                    pl.col("shown_key").alias("key"),
                    "attempt_id",
                    pl.lit("thing").alias("origin"),
                )
            )

    # --- counting

    def _set_totals(self, looks: Looks) -> None:
        totals = {
            Direction.STORAGE_LEDGER: looks.totals["blobs"],
            Direction.TABLES_LEDGER: looks.totals["tables"],
            Direction.CATALOG_LEDGER: looks.totals["items"],
            Direction.CATALOG_STORAGE: looks.totals["blob references"],
            Direction.CATALOG_TABLES: looks.totals["table references"],
        }
        for direction, total in totals.items():
            if direction in self._lines:
                self._lines[direction].total = total

    def _take(self, compared: Compared, judge: Judge) -> None:
        for kind, direction in wording.TO_STORES.items():
            if (line := self._open(direction)) is not None:
                line.total += compared.totals[kind]
                line.counts += compared.recorded[kind]
                _judge(line, judge.missed, kind, compared.missed)
        for kind, direction in wording.TO_LEDGER.items():
            if (line := self._open(direction)) is not None:
                line.counts += compared.there[kind]
                _judge(line, judge.strange, kind, compared.strange)
        for kind, direction in wording.POINTED.items():
            if (line := self._open(direction)) is not None:
                line.counts += compared.pointed[kind]
                _judge(line, judge.dangling, kind, compared.dangling)

    def _open(self, direction: Direction) -> Line | None:
        line = self._lines.get(direction)
        return None if line is None or line.problem is not None else line

    def _take_staged(self, staged: Staged, judge: Judge) -> None:
        line = self._lines[Direction.STORAGE_LEDGER]
        if staged.problem is not None:
            line.problem = line.problem or staged.problem
            return
        line.total += staged.total
        line.counts += staged.counts
        container = self._machine.settings.staging_container
        for folder, blobs in staged.left_behind.items():
            judge.add(wording.staged(container, folder, blobs))
        for name in staged.unknown:
            judge.add(wording.unknown({"kind": "blob", "collection": container, "name": name}))

    def _compare_partitions(self, judge: Judge, shown: Shown) -> None:
        out, back = Line(direction=Direction.LEDGER_DAGSTER), Line(direction=Direction.DAGSTER_LEDGER)
        self._lines.update({line.direction: line for line in (out, back)})
        try:
            for asset in sorted({binding.asset for binding in self._machine.registry.values()}):
                back.total += self._take_shown(asset, list(shown(asset)))
                self._progress("partitions", back.total)
        except Exception as error:  # noqa: BLE001 - whatever the storage of Dagster raises
            out.problem = back.problem = redact(f"Dagster cannot be asked: {error}")
            return
        for due, seen, absent, explained, strange in compare_pairs(self._pairs, self._visible):
            out.total += due
            out.counts[Fate.SHOWN] += seen
            out.counts += judge.not_shown(absent)
            back.counts[Fate.RECORDED] += explained
            back.counts += judge.shown_only(strange)

    def _take_shown(self, asset: str, keys: Sequence[str]) -> int:
        schema = {"asset": pl.String, "key": pl.String}
        if keys:
            self._visible.add(pl.DataFrame({"asset": [asset] * len(keys), "key": keys}, schema=schema))
        return len(keys)


def _judge(
    line: Line, judge: Callable[[Sequence[Row]], Counter[Fate]], kind: str, suspects: Sequence[Row]
) -> None:  # fmt: skip
    """Count suspects of one kind; a store that dies meanwhile takes the whole direction along."""
    try:
        line.counts += judge([row for row in suspects if row["kind"] == kind])
    except LedgerUnavailableError:
        raise
    except GeoAssetsError as error:
        line.problem = redact(str(error))
