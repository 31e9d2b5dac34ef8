"""What a source's next look and turns would do, found out without writing anything.

What belongs here: :func:`preview`.  What does not: doing it (``look``, ``turn``), and printing it (``cli``).

The comparison is the look's own, so that what is foretold is what happens.  Of the names that would become jobs the
first twenty thousand are tried against the rules; all are counted.
"""

import math
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from geo_assets.coremachine.binding import Binding, binding_for
from geo_assets.coremachine.identity import decode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import ParameterError
from geo_assets.redaction import redact
from geo_assets.sources.comparison import KEY, Comparison
from geo_assets.sources.look import doubt_of, seen_of, standing_asset
from geo_assets.sources.register import OUTDATED, SETTLED, EntryState, Register
from geo_assets.sources.register_rows import entry_id
from geo_assets.sources.rules import grain, parameters_for
from geo_assets.sources.source import Source

__all__ = ["Named", "Preview", "SampleJob", "preview"]

_MOST_TRIED = 20_000


@dataclass(frozen=True, kw_only=True)
class Named:
    """An entry, and what is to be said of it."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SampleJob:
    """A job that would be queued."""

    name: str
    partition: str
    parameters: dict[str, Any]


@dataclass(kw_only=True)
class Preview:
    """What would be; ``matched == new + changed + returned + unchanged``, the lists hold the first few of each."""

    source: Source
    grain: str
    matched: dict[str, int] = field(default_factory=dict)
    """Kind → entries that match; of entries with a name that cannot be opened, too."""
    unmatched: dict[str, int] = field(default_factory=dict)
    """Kind → blobs that do not; parts and sidecars of a dataset among them."""
    unmatched_sample: list[str] = field(default_factory=list)
    """Names of some that do not and are no parts of a dataset that does."""
    new: int = 0
    changed: int = 0
    returned: int = 0
    """Gone before, and back."""
    unchanged: int = 0
    removed: int = 0
    dropped: int = 0
    """Seen before and there, but matching no more."""
    incomplete: int = 0
    incomplete_sample: list[Named] = field(default_factory=list)
    refused: int = 0
    refused_sample: list[Named] = field(default_factory=list)
    collisions: int = 0
    """Names that would make a partition which another name makes; of these the first keeps it."""
    collision_sample: list[Named] = field(default_factory=list)
    waiting: int = 0
    """Entries that were seen before as they are, and have not become jobs yet; among the unchanged."""
    outdated: int = 0
    """Entries that keep what other parameters made; among the unchanged."""
    jobs: int = 0
    """Jobs that would be queued for what is new, changed, back or still waiting, as far as names were tried."""
    untried: int = 0
    """Such names beyond those that were tried."""
    job_sample: list[SampleJob] = field(default_factory=list)
    waves: int = 0
    problem: str = ""
    """Which folders cannot be read, so that nothing is known of what lies there; and a sudden loss not believed yet."""
    over_keys_limit: int = 0
    """Partition keys beyond what GEO_ASSETS_PARTITION_KEYS_LIMIT says."""

    @property
    def seen(self) -> int:
        """Entries that match."""
        return sum(self.matched.values())

    @property
    def is_clean(self) -> bool:
        """Whether all can be read and is believed, and everything that is complete would become a job."""
        return not (self.refused or self.collisions or self.problem)


def preview(
    machine: CoreMachine, source: Source, *, sample: int = 5, configured: Collection[str] | None = None
) -> Preview:
    """List a source's container now and tell what a look and the turns after it would do.

    Args:
        machine: the parts; its ledger is only read.
        source: which.
        sample: names told of each kind.
        configured: names of the sources there are; ``None``: all that ever left something.

    Raises:
        ParameterError: the source does not fit its workflow.
        GeoAssetsError: as the store's ``list_blobs``.
    """
    binding = binding_for(machine.registry, source.workflow)
    register = Register(machine.ledger, source.name, configured=configured)
    found = Preview(source=source, grain=grain(source, binding))
    with ExitStack() as stack:
        work = Comparison(register, source, register.last_look())
        work.open(stack, machine)
        work.read_container(machine)
        trial = _Trial(binding, register, found, sample)
        _tell(work, found, trial, sample, standing_asset(machine, source))
    _conclude(machine, binding, register, found, trial)
    return found


def _tell(work: Comparison, found: Preview, trial: "_Trial", sample: int, asset: str | None) -> None:
    """What a look would find, and the turns after it do."""
    matched: Counter[str] = Counter()
    unmatched: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    live = 0
    for one in work.differences():
        matched.update(dict(one.matching["kind"].value_counts().iter_rows()))
        unmatched.update(dict(one.entries.filter(~pl.col("_counts"))["kind"].value_counts().iter_rows()))
        room = sample - len(found.unmatched_sample)
        found.unmatched_sample += _left_out(one.entries).head(room)["name"].to_list()
        counted.update(dict(one.changes["change"].value_counts().iter_rows()))
        counted["unchanged"] += one.matching.height - one.changes.height
        dropped = int(one.missed["_dropped"].sum())
        live += one.known.filter(pl.col("state") != EntryState.GONE.value).height - dropped
        counted.update(dropped=dropped, removed=one.missed.height - dropped)
        _tell_incomplete(one.matching, found, sample)
        found.outdated += one.unchanged(OUTDATED).height
        settled = one.unchanged(SETTLED)
        trial.settled += settled.height
        waiting, refused = (
            one.matching.join(one.known.filter(pl.col("state") == state.value), on=KEY, how="semi")
            for state in (EntryState.WAITING, EntryState.REFUSED)
        )
        waiting = waiting.join(settled, on=KEY, how="anti")
        found.waiting += waiting.join(one.changes, on=KEY, how="anti").height
        # the same columns, so that what differs comes once
        changes = one.changes.filter(~_stands(work, one.changes, asset)).select(one.matching.columns)
        trial.add(pl.concat([changes, waiting]).unique(KEY, maintain_order=True))
        trial.explain(refused.join(one.changes, on=KEY, how="anti"))
    if doubt := doubt_of(work, counted["removed"], live):
        counted["removed"] = 0
    found.problem = "; ".join(redact(text)[:1000] for text in (doubt, work.problem, work.unread) if text)
    found.matched, found.unmatched = dict(sorted(matched.items())), dict(sorted(unmatched.items()))
    for name in ("new", "changed", "returned", "unchanged", "removed", "dropped"):
        setattr(found, name, counted[name])


def _stands(work: Comparison, changes: pl.DataFrame, asset: str | None) -> pl.Series:
    """Which of these are back as they went, so that no job is needed."""
    seen = [seen_of(row) for row in changes.iter_rows(named=True)] if "returned" in changes["change"] else []
    standing = work.register.standing(seen, asset) if seen and asset is not None else set()
    ids = [entry_id(one.name, one.version) in standing for one in seen] or [False] * changes.height
    return pl.Series(ids, dtype=pl.Boolean)


def _left_out(entries: pl.DataFrame) -> pl.DataFrame:
    alone = ~pl.col("role").is_in(["part", "sidecar"]).fill_null(value=False)
    return entries.filter(~pl.col("_counts") & alone).sort("name")


def _tell_incomplete(matching: pl.DataFrame, found: Preview, sample: int) -> None:
    if found.grain == "container":
        return  # the job about the container reads whatever is there
    incomplete = matching.filter(pl.col("missing").is_not_null())
    found.incomplete += incomplete.height
    room = sample - len(found.incomplete_sample)
    found.incomplete_sample += [
        Named(name=name, reason=f"waits for {missing} beside it")
        for name, missing in incomplete.select("name", "missing").head(room).iter_rows()
    ]


class _Trial:
    """Names tried against the rules, and against each other."""

    def __init__(self, binding: Binding, register: Register, found: Preview, sample: int) -> None:
        self.binding, self.register, self.found, self.sample = binding, register, found, sample
        self.tried = 0
        self.holders: dict[str, str] = {}
        self.keys: set[str] = set()
        """Partitions that would be made."""
        self.settled = 0
        """Entries that will wait no more, as what they waited for was taken back."""

    def add(self, entries: pl.DataFrame) -> None:
        """Try names that are to become jobs."""
        if self.found.grain == "container":
            return
        complete = entries.filter(pl.col("missing").is_null())
        before = self.tried
        free = self._free(complete)
        self.found.untried += complete.height - (self.tried - before)
        for job in free:
            self._take(job)

    def explain(self, entries: pl.DataFrame) -> None:
        """Tell again why names were refused that did not change since."""
        if self.found.grain == "container":
            return
        for job in self._free(entries):
            self._refuse(job.name, "was refused before; it is tried again when it changes")

    def _free(self, entries: pl.DataFrame) -> list[SampleJob]:
        """The jobs of names that nothing speaks against; what is refused is counted and named."""
        some = entries.sort("name").head(_MOST_TRIED - self.tried)
        self.tried += some.height
        made = [self._job(name, problem) for name, problem in some.select("name", "problem").iter_rows()]
        jobs = [job for job in made if job is not None]
        free: list[SampleJob] = []
        known = self.register.holders(self.binding.asset, [job.partition for job in jobs])
        for job in jobs:
            others = known.get(job.partition, set()) - {job.name}
            holder = min(others) if others else self.holders.setdefault(job.partition, job.name)
            if holder == job.name:
                free.append(job)
            else:
                self._collide(job, holder)
        return free

    def _collide(self, job: SampleJob, holder: str) -> None:
        self.found.collisions += 1
        if len(self.found.collision_sample) < self.sample:
            reason = f"'{holder}' makes {decode_partition_key(job.partition)}, too"
            self.found.collision_sample.append(Named(name=job.name, reason=reason))

    def _take(self, job: SampleJob) -> None:
        self.found.jobs += 1
        self.keys.add(job.partition)
        if len(self.found.job_sample) < self.sample:
            self.found.job_sample.append(
                SampleJob(name=job.name, partition=decode_partition_key(job.partition), parameters=job.parameters)
            )

    def _job(self, name: str, problem: str | None) -> SampleJob | None:
        """The job of a name, its partition a key still; ``None`` where it is refused."""
        if problem is not None:
            self._refuse(name, problem)
            return None
        try:
            given = parameters_for(self.found.source, self.binding, name)
            validated = self.binding.validate(given)
            key = self.binding.partition_key(validated, self.binding.job_id(validated))
        except ParameterError as error:
            self._refuse(name, str(error))
            return None
        return SampleJob(name=name, partition=key, parameters=given)

    def _refuse(self, name: str, reason: str) -> None:
        self.found.refused += 1
        if len(self.found.refused_sample) < self.sample:
            self.found.refused_sample.append(Named(name=name, reason=redact(reason)[:1000]))


def _conclude(machine: CoreMachine, binding: Binding, register: Register, found: Preview, trial: _Trial) -> None:
    source = found.source
    if found.grain == "container":
        differs = found.new + found.changed + found.returned + found.removed
        if differs or register.changed_container(seen_before=None) > trial.settled:
            found.jobs = 1
            own = SampleJob(
                name=source.container,
                partition=source.container,
                parameters=parameters_for(source, binding, ""),
            )
            found.job_sample = [own][: trial.sample]
    else:
        assets = {one.asset for one in machine.registry.values() if one.partition_set == binding.partition_set}
        # of those that were not tried, who knows which there are
        keys = register.other_partitions(assets, trial.keys) + len(trial.keys) + found.untried
        found.over_keys_limit = max(keys - machine.settings.partition_keys_limit, 0)
    found.waves = math.ceil((found.jobs + found.untried) / machine.settings.wave_size)
