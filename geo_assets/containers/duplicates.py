"""Blobs of equal content, told by the hash that the store keeps.

What belongs here: :class:`Duplicates`.  What does not: hashing; no blob is read.
"""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import polars as pl

from geo_assets.containers.buckets import Buckets

__all__ = ["Duplicates"]

_SAMPLE = 10
_NAMES = 5


class Duplicates:
    """Collects entries frame by frame, then finds equal ones; a context manager, as many entries go to files."""

    def __init__(self, scratch: Path) -> None:
        """Make it, empty; ``scratch`` is a folder for temporary files."""
        self._buckets = Buckets(scratch, pl.col("content_md5"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._buckets.__exit__(kind, error, traceback)

    def add(self, entries: pl.DataFrame) -> None:
        """Take in a frame with ``name``, ``size`` and ``content_md5``; what is empty or has no hash is left out."""
        if entries["content_md5"].null_count() == entries.height:
            return
        found = entries.select("name", "size", "content_md5").filter(
            pl.col("content_md5").is_not_null() & (pl.col("size") > 0)
        )
        if found.height:
            self._buckets.add(found)

    def found(self) -> dict[str, Any] | None:
        """What is there twice or more, ``None`` where the store gave no hash.

        Returns:
            ``groups`` of equal blobs, ``blobs`` and ``bytes`` that are copies (all but one of each group), and
            ``sample``: the groups that waste most, each with up to five names.
        """
        buckets = self._buckets
        if buckets.rows == 0:
            return None
        result = {"groups": 0, "blobs": 0, "bytes": 0}
        sample: list[dict[str, Any]] = []
        for bucket in range(buckets.count) if buckets.spilled else [None]:
            frame = buckets.read(bucket)
            if frame is None:
                continue
            groups = (
                frame.group_by("content_md5", "size")
                .agg(pl.len().alias("count"), pl.col("name").sort().head(_NAMES).alias("names"))
                .filter(pl.col("count") > 1)
                .with_columns(wasted=(pl.col("count") - 1) * pl.col("size"))
            )
            result["groups"] += groups.height
            result["blobs"] += int(groups["count"].sum()) - groups.height
            result["bytes"] += int(groups["wasted"].sum())
            sample += groups.sort("wasted", "content_md5", descending=True).head(_SAMPLE).to_dicts()
            sample = sorted(sample, key=lambda group: (-group["wasted"], group["names"]))[:_SAMPLE]
        return {
            **result,
            "sample": [
                {
                    "content_md5": group["content_md5"],
                    "size_bytes": group["size"],
                    "count": group["count"],
                    "names": group["names"],
                }
                for group in sample
            ],
        }
