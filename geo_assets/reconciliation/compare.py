"""Both sides side by side, a bucket at a time: what each thing is counted as at first sight.

What belongs here: the joins.  What does not: where the frames come from (``recorded``, ``looks``), and whether a
difference is one at a second look (``judge``).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from geo_assets.containers.buckets import Buckets
from geo_assets.reconciliation.findings import Fate
from geo_assets.reconciliation.looks import DAMAGED, REFERENCES, THERE
from geo_assets.reconciliation.recorded import PAIRS, THINGS

__all__ = ["Compared", "compare_pairs", "compare_things", "numbers"]

_KEY = ["kind", "collection", "name"]
_PAIR = ["asset", "key"]
_OWNER = ["asset", "partition", "shown_asset", "shown_key", "job_type", "job_id", "attempt_id", "about_holder",
          "about_name"]  # fmt: skip


class Compared:
    """One bucket (or all that is there, where it is little), compared."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        """Recorded things by kind, each once."""
        self.recorded: dict[str, Counter[Fate]] = {"blob": Counter(), "item": Counter(), "table": Counter()}
        """Kind → what recorded things are in the stores."""
        self.there: dict[str, Counter[Fate]] = {"blob": Counter(), "item": Counter(), "table": Counter()}
        """Kind → what things in the stores are in the ledger."""
        self.pointed: dict[str, Counter[Fate]] = {"blob": Counter(), "table": Counter()}
        """Kind → what items point at."""
        self.missed: list[dict[str, Any]] = []
        """Recorded things that are missing or changed; in no count yet."""
        self.strange: list[dict[str, Any]] = []
        """Things in the stores that are not recorded; in no count yet."""
        self.dangling: list[dict[str, Any]] = []
        """References into nothing; in no count yet."""


def numbers(*buckets: Buckets) -> Sequence[int | None]:
    """The buckets to go through: one by one if any set lies in files, else all at once."""
    spilled = [one for one in buckets if one.spilled]
    return range(spilled[0].count) if spilled else [None]


def compare_things(things: Buckets, there: Buckets, references: Buckets, *, deep: bool) -> Iterator[Compared]:
    """Compare what is recorded, what is there and what is pointed at; with ``deep`` every table is a suspect."""
    for number in numbers(things, there, references):
        yield _compared(
            _read(things, number, THINGS),
            _read(there, number, THERE),
            _read(references, number, REFERENCES),
            deep=deep,
        )


def _read(buckets: Buckets, number: int | None, schema: Any) -> pl.DataFrame:
    found = buckets.read(number)
    return pl.DataFrame(schema=schema) if found is None else found


def _compared(things: pl.DataFrame, there: pl.DataFrame, references: pl.DataFrame, *, deep: bool) -> Compared:
    found = Compared()
    recorded = _each_once(things)
    found.totals.update(dict(recorded.group_by("kind").len().iter_rows()))
    listed = there.unique(subset=_KEY, keep="any").select(
        *_KEY,
        "modified",
        pl.col("version").alias("there_version"),
        pl.col("about_holder").alias("there_holder"),
        pl.col("about_name").alias("there_name"),
        pl.lit(value=True).alias("there"),
    )
    pointing = _pointing_jobs(references)

    joined = recorded.join(listed, on=_KEY, how="left").with_columns(_fate_of_recorded().alias("fate"))
    suspect = pl.col("fate").is_in([Fate.MISSING.value, Fate.CHANGED.value])
    if deep:
        suspect |= (pl.col("kind") == "table") & pl.col("counts")
    _count(found.recorded, joined.filter(~suspect))
    found.missed = joined.filter(suspect).join(pointing, on=_KEY, how="left").to_dicts()

    ours = there.filter(pl.col("ours"))
    known = recorded.select(_KEY)
    _count(found.there, _with_fate(ours.join(known, on=_KEY, how="semi"), Fate.RECORDED))
    found.strange = ours.join(known, on=_KEY, how="anti").join(pointing, on=_KEY, how="left").to_dicts()

    _count(found.pointed, _with_fate(references.join(listed, on=_KEY, how="semi"), Fate.PRESENT))
    found.dangling = references.join(listed, on=_KEY, how="anti").to_dicts()
    return found


def _with_fate(frame: pl.DataFrame, fate: Fate) -> pl.DataFrame:
    return frame.with_columns(pl.lit(fate.value).alias("fate"))


def _each_once(things: pl.DataFrame) -> pl.DataFrame:
    """One row a thing: whether it counts, who recorded it last, and which versions are right."""
    ordered = things.sort("attempt_id")
    counting = pl.col("attempt_id").filter(pl.col("counts")).last()
    owner = [
        pl.coalesce(pl.col(name).filter(pl.col("counts")).last(), pl.col(name).last()).alias(name) for name in _OWNER
    ]
    return ordered.group_by(_KEY).agg(
        *owner,
        pl.col("counts").any().alias("counts"),
        # what a later job wrote before it failed is right as well
        pl.col("version").filter(pl.col("attempt_id") >= counting).drop_nulls().alias("versions"),
    )


def _fate_of_recorded() -> pl.Expr:
    """Of a thing that counts: there as it was recorded, changed, or missing; of others: there, or rightly gone."""
    of_item = pl.col("kind") == "item"
    same_version = pl.col("there_version").is_in(pl.col("versions"), nulls_equal=False).fill_null(value=False)
    same_thing = pl.col("about_holder").is_null() | (
        (pl.col("about_holder") == pl.col("there_holder")) & (pl.col("about_name") == pl.col("there_name"))
    ).fill_null(value=False)
    as_recorded = pl.when(of_item).then(same_thing).otherwise(same_version)
    return (
        pl.when(pl.col("there").is_null() & pl.col("counts"))
        .then(pl.lit(Fate.MISSING.value))
        .when(pl.col("there").is_null())
        .then(pl.lit(Fate.REPLACED.value))
        .when(of_item & pl.col("counts") & (pl.col("there_version") == DAMAGED))
        .then(pl.lit(Fate.CHANGED.value))
        .when(~pl.col("counts") | as_recorded)
        .then(pl.lit(Fate.PRESENT.value))
        .otherwise(pl.lit(Fate.CHANGED.value))
    )


def _pointing_jobs(references: pl.DataFrame) -> pl.DataFrame:
    """Thing → ids of the jobs that made the items that point at it."""
    return (
        references.filter(pl.col("job_id").is_not_null())
        .group_by(_KEY)
        .agg(pl.col("job_id").unique().alias("pointing_jobs"))
    )


def _count(counts: dict[str, Counter[Fate]], frame: pl.DataFrame) -> None:
    for kind, fate, number in frame.group_by("kind", "fate").len().iter_rows():
        counts[kind][Fate(fate)] += number


# --- partitions ----------------------------------------------------------------------------------------------------


def compare_pairs(
    pairs: Buckets, shown: Buckets
) -> Iterator[tuple[int, int, list[dict[str, Any]], int, list[dict[str, Any]]]]:
    """Compare the partitions that jobs materialized with those that Dagster shows.

    Yields:
        By bucket: how many must be shown, how many of them are, those that are not; how many that are shown are
        explained, those that are not.
    """
    for number in numbers(pairs, shown):
        known, visible = _read(pairs, number, PAIRS), _read(shown, number, {"asset": pl.String, "key": pl.String})
        must = (
            known.filter(pl.col("origin") != "catalog")
            # its own attempt before that of another asset, which knows less of it
            .sort("origin", "attempt_id")
            .group_by(_PAIR)
            .agg(
                pl.col("attempt_id").filter(pl.col("origin") == "job").last(),
                pl.col("attempt_id").last().alias("any_attempt"),
            )
        )
        yield (
            must.height,
            must.join(visible, on=_PAIR, how="semi").height,
            must.join(visible, on=_PAIR, how="anti").to_dicts(),
            visible.join(known, on=_PAIR, how="semi").height,
            visible.join(known, on=_PAIR, how="anti").to_dicts(),
        )
