"""1,000,000 made-up blobs listed, analysed and summarized through the real handlers: time, and memory that stays flat.

What belongs here: the peak memory of whole jobs.  What does not: statistics against a plain loop (``summary``), and
a real store (``listing``).

Each measurement is a process of its own: the listing (stage 1), its tasks of stage 2 one after the other, the listing
again with a hundredth of the blobs changed, and the summary with duplicates.  ``GEO_ASSETS_LEDGER_URL`` may name a
PostgreSQL database: the listing is then kept there.  Targets: under 500 MB, and for ten times as many blobs at most
1.5 times as much memory.
"""

import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geo_assets.containers.listing_store import open_listing_store
from geo_assets.coremachine.contract import JobExecutionContext, TaskContext, TaskResult, TaskStatus
from geo_assets.jobs.list_container_contents import ListContainerContents
from geo_assets.jobs.summarize_container import SummarizeContainer
from geo_assets.settings import Settings
from geo_assets.stores.blobs import FULL_LISTING_SCHEMA, LISTING_SCHEMA, BlobProperties, Detail
from geo_assets.stores.memory import MemoryBlobStore

SIZES = (100_000, 1_000_000)
BATCH = 5_000
TAILS = (".tif", ".tfw", ".tif.aux.xml", ".shp", ".shx", ".dbf", ".prj", ".geojson", ".txt", "")
FIRST_DAY = 1_700_000_000_000_000
MOST_MB = 500
MOST_GROWTH = 1.5


class MadeUpStore(MemoryBlobStore):
    """Lists made-up blobs: ten files a stem, every fifth ``.shp`` without its ``.dbf``, pairs of equal content."""

    def __init__(self, blobs: int, *, again: bool = False) -> None:
        super().__init__()
        self.blobs = blobs
        self.again = again

    def list_blobs(self, container: str, prefix: str = "", detail: Detail = "basic") -> Iterator[pa.RecordBatch]:
        """Stream the batches; the second listing has a hundredth of the ETags changed and a hundredth removed."""
        del container, prefix
        for start in range(0, self.blobs, BATCH):
            numbers = np.arange(start, start + BATCH)
            stems = numbers // len(TAILS)
            gone = (numbers % len(TAILS) == 5) & (stems % 5 == 0)
            if self.again:
                gone |= stems % 100 == 7
            numbers = numbers[~gone]
            edition = np.where(numbers % 100 == 13, int(self.again), 0)
            columns = [
                pa.array([_name(number) for number in numbers.tolist()], pa.string()),
                pa.array(numbers // 2 * 7919 % 2**34, pa.int64()),
                pa.array(FIRST_DAY + numbers, LISTING_SCHEMA.field("last_modified").type),
                pa.array(
                    [f'"0x{n:x}-{e}"' for n, e in zip(numbers.tolist(), edition.tolist(), strict=True)], pa.string()
                ),
                pa.nulls(len(numbers), pa.string()),
            ]
            if detail == "basic":
                yield pa.record_batch(columns, schema=LISTING_SCHEMA)
                continue
            hashes = pa.array([f"{number // 2:032x}" for number in numbers.tolist()], pa.string())
            nothing = pa.nulls(len(numbers), pa.string())
            yield pa.record_batch([*columns, nothing, hashes, nothing, nothing], schema=FULL_LISTING_SCHEMA)

    def read_start(self, container: str, name: str, length: int) -> tuple[bytes, BlobProperties]:
        """A TIFF's start for every blob, in the version that was listed."""
        del container, length
        stem = int(name.rpartition("scene_")[2][:7])
        number = stem * len(TAILS) + TAILS.index(name[name.index("scene_") + 13 :])
        return b"II*\0", BlobProperties(
            name=name,
            size=number // 2 * 7919 % 2**34,
            last_modified=datetime.fromtimestamp((FIRST_DAY + number) / 1e6, UTC),
            etag=f'"0x{number:x}-0"',
        )


def _name(number: int) -> str:
    stem = number // len(TAILS)
    return f"region_{stem % 97:02d}/v1.2/scene_{stem:07d}{TAILS[number % len(TAILS)]}"


def run_job(
    workflow: Any, services: dict[str, Any], given: dict[str, Any], seconds: dict[str, float]
) -> dict[str, Any]:
    """Run a job stage by stage through its handlers, as the engine would, and aggregate."""
    params = workflow.validate_job_parameters(given)
    job_id = workflow.generate_job_id(params)
    results: list[TaskResult] = []
    previous: list[dict[str, Any]] | None = None
    for stage in workflow.stages:
        started = time.perf_counter()
        returned = []
        for index, task in enumerate(workflow.create_tasks_for_stage(stage["number"], params, job_id, previous)):
            context = TaskContext(job_id=job_id, job_type=workflow.job_type, services=services)
            found = json.loads(json.dumps(workflow.handlers[task["task_type"]](task["parameters"], context)))
            assert found["success"], found
            returned.append(found)
            results.append(
                TaskResult(
                    task_id=task["task_id"],
                    task_type=task["task_type"],
                    status=TaskStatus.COMPLETED,
                    result_data=found,
                    timestamp=datetime.now(UTC),
                    stage=stage["number"],
                    task_index=index,
                )
            )
        previous = returned
        seconds[stage["name"]] = time.perf_counter() - started
    everything = JobExecutionContext(
        job_id=job_id,
        job_type=workflow.job_type,
        current_stage=len(workflow.stages),
        total_stages=len(workflow.stages),
        parameters=params,
        task_results=results,
    )
    result: dict[str, Any] = workflow.aggregate_job_results(everything)
    assert len(json.dumps(result)) < 200_000
    return result


def measure(what: str, blobs: int) -> dict[str, Any]:
    """Do one thing in this process and return its seconds and peak memory."""
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home))
        services: dict[str, Any] = {"settings": settings, "listings": open_listing_store(settings)}
        stems = blobs // len(TAILS)
        expected = blobs - len(range(0, stems, 5))
        services["blobs"] = MadeUpStore(blobs)
        given = {"container_name": f"made-up-{blobs}"}
        if what == "list":
            summary = run_job(ListContainerContents, services, given, seconds)["summary"]
            assert summary["blobs_analyzed"] == summary["successful_analyses"] == expected
            assert summary["datasets"]["incomplete"] == len(range(0, stems, 5))
            services["blobs"] = MadeUpStore(blobs, again=True)
            started = time.perf_counter()
            task = ListContainerContents.create_tasks_for_stage(
                1, ListContainerContents.validate_job_parameters(given), "0" * 64
            )[0]
            job_id = ListContainerContents.generate_job_id(ListContainerContents.validate_job_parameters(given))
            context = TaskContext(job_id=job_id, services=services)
            again = ListContainerContents.handlers[task["task_type"]](task["parameters"], context)["result"]
            seconds["list again and compare"] = time.perf_counter() - started
            changes = again["changes"]
            assert changes["removed"] == expected - again["total_count"] > 0
            assert changes["changed"] > blobs // 200
            assert changes["added"] == 0
            assert changes["unchanged"] + changes["changed"] == again["total_count"]
        else:
            summary = run_job(SummarizeContainer, services, {**given, "detail": "full"}, seconds)["summary"]
            assert summary["total_files"] == expected
            assert summary["duplicates"]["groups"] > blobs // 3
    return {"seconds": seconds, "peak": peak_of_this_process()}


def peak_of_this_process() -> float:
    """Peak resident memory, MB; not by getrusage, whose peak begins with that of the process that forked this one."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found.group(1)) / 1024


def main() -> None:
    """Measure each in a process of its own, print, and fail if a target is missed."""
    missed = False
    for what in ("list", "summarize"):
        peaks = []
        for blobs in SIZES:
            ran = subprocess.run(
                [sys.executable, "-m", "benchmarks.million", what, str(blobs)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            found = json.loads(ran.stdout)
            peaks.append(found["peak"])
            parts = ", ".join(f"{name} {taken:.1f} s" for name, taken in found["seconds"].items())
            print(f"{what:9} {blobs:9,} blobs  peak {found['peak']:4.0f} MB  {parts}")
        growth = peaks[1] / peaks[0]
        print(f"{what:9} memory grows {growth:.2f} x (target: at most {MOST_GROWTH}), to under {MOST_MB} MB")
        missed = missed or growth > MOST_GROWTH or peaks[1] >= MOST_MB
    if missed:
        sys.exit("benchmarks.million: a target is missed")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        with contextlib.redirect_stdout(sys.stderr):
            measured = measure(sys.argv[1], int(sys.argv[2]))
        print(json.dumps(measured))
    else:
        main()
