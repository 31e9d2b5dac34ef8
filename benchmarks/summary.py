"""Statistics of 1,000,000 made-up entries against a plain Python loop over dicts: time, and memory of the process.

What belongs here: the comparison.  What does not: listing a real store (``listing``).

Both get the entries in the form their store gives them: dicts for the loop, as the original's, Arrow batches of 5,000
for ours.  The peak memory is that of a process of its own that makes the batches as it goes and summarizes them.
Targets: at least 6 times faster, under 500 MB.
"""

import gc
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geo_assets.containers.summary import SIZE_BINS, summarize
from geo_assets.stores.blobs import LISTING_SCHEMA, Detail
from geo_assets.stores.memory import MemoryBlobStore

ENTRIES = 1_000_000
BATCH = 5_000
REPEATS = 7
MB = 1024 * 1024
EXTENSIONS = (".tif", ".TIF", ".shp", ".dbf", ".geojson", ".xml", ".gpkg", "")
FIRST_DAY = 1_700_000_000_000_000


class MadeUpStore(MemoryBlobStore):
    """Lists batches of made-up blobs; each listing is the same."""

    def __init__(self, kept: list[pa.RecordBatch] | None = None) -> None:
        super().__init__()
        self.kept = kept

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the batches that were kept, or make them."""
        del container, prefix, detail
        return iter(self.kept) if self.kept is not None else made_up()


def made_up() -> Iterator[pa.RecordBatch]:
    """Make the batches: names with a folder and mostly an extension, sizes to 16 GB, dates over three years."""
    random = np.random.default_rng(1)
    for start in range(0, ENTRIES, BATCH):
        chosen = random.integers(0, len(EXTENSIONS), BATCH).tolist()
        numbers = range(start, start + BATCH)
        names = [
            f"region_{number % 97:02d}/v1.2/scene_{number:07d}{EXTENSIONS[extension]}"
            for number, extension in zip(numbers, chosen, strict=True)
        ]
        yield pa.record_batch(
            [
                pa.array(names, pa.string()),
                pa.array(random.integers(0, 2**34, BATCH), pa.int64()),
                pa.array(FIRST_DAY + random.integers(0, 10**14, BATCH), LISTING_SCHEMA.field("last_modified").type),
                pa.array([f'"0x8D{number:012X}"' for number in numbers], pa.string()),
                pa.nulls(BATCH, pa.string()),
            ],
            schema=LISTING_SCHEMA,
        )


def loop_over(blobs: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: C901 - one loop is what is compared
    """Compute the statistics one dict after the other, ``.gdb`` folders looked for as ours does."""
    total = 0
    types: dict[str, list[int]] = {}
    bins = dict.fromkeys(SIZE_BINS, 0)
    largest = smallest = None
    oldest = newest = None
    for blob in blobs:
        name, size, modified = blob["name"], blob["size"], blob["last_modified"]
        if ".gdb/" in name.lower():
            raise NotImplementedError("no datasets are made up")
        total += size
        base = name.rsplit("/", 1)[-1]
        extension = "." + base.rsplit(".", 1)[-1].lower() if "." in base else "no_extension"
        kept = types.setdefault(extension, [0, 0])
        kept[0] += 1
        kept[1] += size
        if largest is None or size > largest["size"]:
            largest = blob
        if smallest is None or size < smallest["size"]:
            smallest = blob
        if oldest is None or modified < oldest:
            oldest = modified
        if newest is None or modified > newest:
            newest = modified
        megabytes = size / MB
        if megabytes < 10:
            bins["0-10MB"] += 1
        elif megabytes < 100:
            bins["10-100MB"] += 1
        elif megabytes < 1024:
            bins["100MB-1GB"] += 1
        elif megabytes < 10240:
            bins["1GB-10GB"] += 1
        else:
            bins["10GB+"] += 1
    assert largest is not None
    assert smallest is not None
    assert oldest is not None
    assert newest is not None
    return {
        "total_files": len(blobs),
        "total_size_bytes": total,
        "file_types": {name: (count, round(size / MB / 1024, 4)) for name, (count, size) in types.items()},
        "size_distribution": bins,
        "largest_file": largest["name"],
        "smallest_file": smallest["name"],
        "date_range": {"oldest_file": oldest.isoformat(), "newest_file": newest.isoformat()},
    }


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """Reduce our statistics to what the loop computes."""
    types = {name: (counts["count"], counts["total_size_gb"]) for name, counts in found["file_types"].items()}
    plain = {name: found[name] for name in ("total_files", "total_size_bytes", "size_distribution", "date_range")}
    ends = {name: found[name]["name"] for name in ("largest_file", "smallest_file")}
    return {**plain, **ends, "file_types": types}


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes, garbage collected before."""
    gc.collect()
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_of_this_process() -> float:
    """Peak resident memory, MB; not by getrusage, whose peak begins with that of the process that forked this one."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def peak_in_own_process() -> float:
    """Peak resident memory, MB, of a process that makes the entries and summarizes them, nothing else."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.summary", "--peak"], capture_output=True, text=True, check=True
    )
    return float(ran.stdout)


def main() -> None:
    """Compare, print the ratio and the peak, and fail if a target is missed."""
    batches = list(made_up())
    blobs = [
        {"name": row["name"], "size": row["size"], "last_modified": row["last_modified"].replace(tzinfo=UTC)}
        for batch in batches
        for row in batch.select(["name", "size", "last_modified"]).to_pylist()
    ]
    assert isinstance(blobs[0]["last_modified"], datetime)
    gc.freeze()
    store = MadeUpStore(batches)
    assert comparable(summarize(store, "c").statistics) == loop_over(blobs), "the results differ"
    loops, ours = [], []
    for _ in range(REPEATS):
        loops.append(timed(lambda: loop_over(blobs)))
        ours.append(timed(lambda: summarize(store, "c")))
    loop, own = statistics.median(loops), statistics.median(ours)
    peak = peak_in_own_process()
    print(f"{ENTRIES:,} entries, equal results; medians of {REPEATS}, interleaved")
    print(f"python loop over dicts  {loop:7.3f} s")
    print(f"summarize               {own:7.3f} s   {loop / own:.1f} x faster (target: 6)")
    print(f"peak memory             {peak:7.0f} MB  (target: under 500)")
    if loop / own < 6 or peak >= 500:
        sys.exit("benchmarks.summary: a target is missed")


if __name__ == "__main__":
    if "--peak" in sys.argv:
        assert summarize(MadeUpStore(), "c").statistics["total_files"] == ENTRIES
        print(peak_of_this_process())
    else:
        main()
