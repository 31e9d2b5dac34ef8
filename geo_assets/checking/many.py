"""The checks of many partitions: which, a few at a time, and counts that add up.

What belongs here: choosing partitions, the pool of threads, the tally.  What does not: writing evaluations to Dagster
(``geo_assets.assets.checks``), printing (``cli.check_command``).
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from geo_assets.checking.catalogue import Check
from geo_assets.checking.finding import Evidence, Finding, gather
from geo_assets.coremachine.identity import decode_partition_key, encode_partition_key
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.errors import GeoAssetsError, NotFoundError, ParameterError
from geo_assets.redaction import redact

__all__ = ["Looked", "Tally", "choose", "look", "look_at_one"]

Verdict = Literal["passed", "warned", "failed", "not looked at"]

_AT_ONCE = 8
_TOGETHER = 50
"""Partitions whose evidence is read, and whose findings are handed on, at a time."""


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What one check found of one partition."""

    check: Check
    partition_key: str
    finding: Finding | None
    """``None``: it could not be looked at."""
    error: str = ""
    """Why not."""

    @property
    def verdict(self) -> Verdict:
        """In one word."""
        if self.finding is None:
            return "not looked at"
        if self.finding.passed:
            return "passed"
        return "warned" if self.finding.warning else "failed"

    @property
    def sentence(self) -> str:
        """What there is to say."""
        return self.error if self.finding is None else self.finding.description


@dataclass(kw_only=True)
class Tally:
    """How many of each verdict, by check."""

    by_check: dict[str, Counter[str]] = field(default_factory=dict)
    partitions: int = 0

    def add(self, looked: Iterable[Looked]) -> None:
        """Count some."""
        for one in looked:
            self.by_check.setdefault(one.check.name, Counter())[one.verdict] += 1

    def count(self, *verdicts: Verdict) -> int:
        """How many of these verdicts, of all checks."""
        return sum(counter[verdict] for counter in self.by_check.values() for verdict in verdicts)

    @property
    def total(self) -> int:
        """Passed + warned + failed + not looked at."""
        return sum(sum(counter.values()) for counter in self.by_check.values())


def choose(
    known: Iterable[str], *, keys: Sequence[str] = (), prefix: str | None = None, sample: int | None = None
) -> list[str]:
    """Partition keys to look at, sorted.

    Args:
        known: keys of the partitions that are materialized.
        keys: these, as people write them.
        prefix: those whose name begins so; with ``keys``, as well.
        sample: at most so many of them, chosen by chance.

    Raises:
        NotFoundError: a key is not among those known; says which.
        ParameterError: the sample is less than one.
    """
    if sample is not None and sample < 1:
        raise ParameterError(f"a sample has at least one partition, not {sample}")
    there = set(known)
    asked = [str(encode_partition_key(key)) for key in keys]
    missing = [key for key, encoded in zip(keys, asked, strict=True) if encoded not in there]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotFoundError(f"never materialized, so there is nothing to check: {missing[0]}{more}")
    chosen = set(asked)
    if prefix is not None:
        chosen |= {key for key in there if decode_partition_key(key).startswith(prefix)}
    elif not keys:
        chosen = there
    found = sorted(chosen)
    if sample is not None and sample < len(found):
        found = sorted(random.sample(found, sample))
    return found


def look_at_one(machine: CoreMachine, check: Check, partition_key: str) -> Finding:
    """What a check finds of one partition.

    Raises:
        GeoAssetsError: it could not be looked at.
    """
    return check.look(gather(machine, check.asset, [partition_key])[partition_key])


def look(
    machine: CoreMachine,
    checks: Sequence[Check],
    partition_keys: Sequence[str],
    *,
    on_found: Callable[[Sequence[Looked]], None],
    tally: Tally | None = None,
) -> Tally:
    """Run the checks of one asset on partitions, several at a time.

    Args:
        machine: ledger and stores.
        checks: of one asset.
        partition_keys: as Dagster has them.
        on_found: told what was found, some partitions at a time, in order; may write it somewhere.
        tally: counts to go on with, of other assets.

    Returns:
        Counts; they add up to partitions times checks, whatever happens.
    """
    tally = Tally() if tally is None else tally
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(partition_keys), _TOGETHER):
            keys = partition_keys[start : start + _TOGETHER]
            evidence = gather(machine, checks[0].asset, keys)
            found = list(pool.map(lambda pair: _looked(*pair), _pairs(checks, evidence.values())))
            tally.add(found)
            tally.partitions += len(keys)
            on_found(found)
    return tally


def _pairs(checks: Sequence[Check], evidence: Iterable[Evidence]) -> Iterator[tuple[Check, Evidence]]:
    for one in evidence:
        for check in checks:
            yield check, one


def _looked(check: Check, evidence: Evidence) -> Looked:
    try:
        return Looked(check=check, partition_key=evidence.partition_key, finding=check.look(evidence))
    except GeoAssetsError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001 - one partition's trouble must not end the others'
        why = f"{type(error).__name__}: {error}"
    return Looked(check=check, partition_key=evidence.partition_key, finding=None, error=redact(why))
