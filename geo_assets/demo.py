"""The demo: real files in many containers, the real path through ledger, daemon and wave runs, and an account of it.

What belongs here: the demo's home and data, what is submitted, waiting for Dagster, and counting what became of it.
What does not: Dagster as a process (``dagster_server``) and how things look on a terminal (``cli``).

Nothing of the caller's settings takes part: the demo has a home of its own, with embedded stores.
"""

import contextlib
import fcntl
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from geo_assets.coremachine.contract import JobStatus
from geo_assets.coremachine.ledger import Job, Ledger
from geo_assets.coremachine.machine import CoreMachine
from geo_assets.coremachine.submission import submit_many
from geo_assets.dagster_home import ensure_dagster_home, workspace_file
from geo_assets.dagster_server import DagsterServer, free_port
from geo_assets.errors import GeoAssetsError, ParameterError
from geo_assets.settings import Settings, get_settings

__all__ = ["DemoData", "DemoReport", "Tally", "demo_home", "fill_containers", "run_demo"]

SUMMARIZED = 240
"""Containers that are summarized; no two of them are neighbours in the order of names."""
CONTAINERS = 600
MISSING = ("survey-lost-1", "survey-lost-2", "survey-not-a-folder")
"""Names that are submitted although no such container exists; the last one is a plain file."""
REFUSED = "../escape"
"""A name no container can have."""
ODD = "oddities"
"""A container with one blob whose name cannot be opened: its listing completes with errors."""
GREETINGS = 25
WITHOUT_CRS = ("no_crs_float64.tif", "rotated_no_crs.tif")
"""Rasters that nothing places on Earth: there is neither a COG nor an item of them."""

VECTORS = {
    "german_cities": "german_cities_utm32n.zip",
    "swiss_cities": "swiss_cities.kml",
    "swiss_cities_kmz": "swiss_cities.kmz",
    "us": "us_counties.gpkg",
    "states_2024": "us_states_wkt.csv",
    "parcels": "parcels.gdb",
}
"""Table → file it is loaded from; of the two layers of one a table each."""
STAND_IN = "parcels"
"""The table that is not loaded: its file only looks like a geodatabase."""

ARRIVALS = ("aerial_rgba_uint16_utm12n.tif", "world_byte_4326.tif")
"""Files that land in the watched container while Dagster is up."""
WATCHED = "arrivals"
_SOURCES = f"""\
# Containers that are watched; see docs/sources.md
sources:
  - name: {WATCHED}
    container: {WATCHED}
    workflow: process_raster
    every: 5s
    parameters:
      collection_id: {WATCHED}
"""

_SMALL_BYTES = 120_000
_MARK = ".geo-assets-demo"
_PATIENCE_SECONDS = 240.0
"""Longest wait without anything happening."""
_MATERIALIZED = (JobStatus.COMPLETED, JobStatus.COMPLETED_WITH_ERRORS)


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """What lies in the containers."""

    containers: int
    files: int
    bytes: int
    summarized: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the jobs of one workflow."""

    job_type: str
    asset: str
    submitted: int
    outcomes: Mapping[str, int]
    materialized: int
    """Partitions of these jobs that Dagster shows as materialized."""

    @property
    def adds_up(self) -> bool:
        """Every job that was submitted has exactly one outcome."""
        return sum(self.outcomes.values()) == self.submitted


@dataclass(frozen=True, kw_only=True)
class DemoReport:
    """What happened."""

    home: Path
    url: str
    data: DemoData
    refused: str
    """What the answer to the impossible container name was."""
    tallies: list[Tally]
    bad: list[tuple[str, str, str]]
    """(partition, outcome, reason) of the jobs that did not end well."""
    runs: list[tuple[str, str, str, int]]
    """(run id, workflow, status in Dagster, jobs)."""
    results: dict[str, Any]
    """A few job results: ``rasters`` summary, ``vectors`` listing, the COGs, the tables, the catalog, totals over all
    summaries."""
    problems: list[str] = field(default_factory=list)
    """What was not as it should be; empty in a demo that worked."""
    seconds: float = 0.0


Tell = Callable[[str], None]
"""Takes a line about what happens now."""
ShowProgress = Callable[[int, int], None]
"""Takes jobs ended and jobs in all."""


# --- home ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def demo_home(wanted: Path | None, *, keep: bool) -> Iterator[Path]:
    """A home for one demo: what an earlier demo left there is removed, unless it is to be kept.

    Without a wanted folder it is ``demo`` in the home, or ``demo-2`` … where another demo is at work.

    Raises:
        ParameterError: the wanted folder is in use, or holds what no demo made.
    """
    base = get_settings().home_path / "demo"
    candidates = [wanted.expanduser().resolve()] if wanted else [base, *(Path(f"{base}-{n}") for n in range(2, 20))]
    for home in candidates:
        home.parent.mkdir(parents=True, exist_ok=True)
        with home.with_name(f".{home.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _clear(home, keep=keep)
            yield home
            return
    raise ParameterError(f"another demo is at work in {candidates[0]}; choose another folder with --home")


def _clear(home: Path, *, keep: bool) -> None:
    if home.exists() and any(home.iterdir()):
        if not (home / _MARK).exists():
            raise ParameterError(f"{home} is not empty and no demo made it; choose another folder with --home")
        if not keep:
            shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / _MARK).touch()


# --- data ----------------------------------------------------------------------------------------------------------


def fill_containers(root: Path) -> DemoData:
    """Fill a folder with containers of real files, linked from one copy; the same every time.

    Args:
        root: the folder whose sub-folders become the containers.
    """
    pool = _real_files(root.parent / "demo_data")
    everything = sorted(pool)
    small = [name for name in everything if pool[name].stat().st_size < _SMALL_BYTES]
    chance = random.Random(20_24)  # noqa: S311 - a demo, not cryptography
    names = [f"survey-{number:04d}" for number in range(CONTAINERS)]
    for name in names:
        for position, file_name in enumerate(chance.sample(small, chance.randint(1, len(small)))):
            folder = ("", "2023/", "2024/élévation nord/")[position % 3]
            _link(pool[file_name], root / name / f"{folder}{file_name}")
    for shared_name, suffixes in (("rasters", (".tif",)), ("vectors", (".zip", ".kml", ".kmz", ".csv", ".gpkg"))):
        for file_name in everything:
            if file_name.endswith(suffixes):
                _link(pool[file_name], root / shared_name / file_name)
    _link(pool["world_byte_4326.tif"], root / "rasters" / "by name" / "100 % #1?.tif")
    _make_geodatabase(root / "vectors" / "parcels.gdb")
    _link(pool["no_crs_float64.tif"], root / ODD / "good.tif")
    _link(pool["no_crs_float64.tif"], root / ODD / "line\nbreak.tif")
    (root / ODD / "empty.tif").touch()
    (root / MISSING[-1]).write_text("a file where a folder should be\n")
    lying = [path for path in root.rglob("*") if path.is_file() and path.parent != root]
    return DemoData(
        containers=sum(path.is_dir() for path in root.iterdir()),
        files=len(lying),
        bytes=sum(path.stat().st_size for path in lying),
        summarized=tuple(_summarized()),
    )


def _real_files(pool: Path) -> dict[str, Path]:
    """One copy of each real file, on the same file system as the containers."""
    pool.mkdir(parents=True, exist_ok=True)
    with as_file(files("geo_assets") / "demo_data") as packaged:
        for source in packaged.iterdir():
            if source.suffix not in (".md", ".py") and source.is_file() and not (pool / source.name).exists():
                shutil.copy(source, pool / source.name)
    return {path.name: path for path in pool.iterdir()}


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy(source, target)


def _make_geodatabase(folder: Path) -> None:
    """A folder named and cut like a file geodatabase; its files are stand-ins, no GIS can open them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, size in (("gdb", 4), ("timestamps", 400), ("a00000001.gdbtable", 30_000), ("a00000001.gdbtablx", 5_152)):
        (folder / name).write_bytes(b"\0" * size)


# --- the demo ------------------------------------------------------------------------------------------------------


def demo_environment(home: Path) -> dict[str, str]:
    """The environment of a demo: the caller's without any setting of ours or Dagster's, and the demo's home."""
    foreign = ("GEO_ASSETS_", "DAGSTER_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {
        "GEO_ASSETS_HOME": str(home),
        "GEO_ASSETS_BLOB_ROOT": str(home / "containers"),
        "GEO_ASSETS_SENSOR_SECONDS": "2",
        "DAGSTER_HOME": str(home / "dagster"),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "DAGSTER_DISABLE_TELEMETRY": "yes",
    }


def run_demo(
    home: Path, *, port: int | None, tell: Tell, show_progress: ShowProgress, at_the_end: Callable[[DemoReport], None]
) -> DemoReport:
    """Run the demo in a home that :func:`demo_home` gave, and stop Dagster afterwards.

    Args:
        home: where everything it makes goes.
        port: of Dagster's UI; default: a free one.
        tell: gets a line whenever something new begins.
        show_progress: gets the jobs ended and the jobs in all, again and again.
        at_the_end: gets the report while Dagster is still up.

    Raises:
        GeoAssetsError: Dagster ended by itself, or nothing went on for four minutes.
    """
    began = time.monotonic()
    environment = demo_environment(home)
    with _environment(environment):
        settings = get_settings()
        ensure_dagster_home(settings)
        data = fill_containers(settings.blob_root_path)
        _watch_a_container(settings)
        tell(
            f"{data.containers:,} containers with {data.files:,} files ({data.bytes / 1e6:,.1f} MB) in"
            f" {settings.blob_root_path}"
        )
        import dagster as dg  # noqa: PLC0415 - only now does the environment say where its home is

        with dg.DagsterInstance.get() as instance:
            workspace = workspace_file(home)
            server = DagsterServer(workspace, folder=home, environment=environment, port=free_port(port))
            with server, _machine(settings) as machine:
                tell(f"Dagster starts on {server.url}")
                jobs, refused = _submit(machine)
                tell(f"{len(jobs):,} jobs are in the ledger; the daemon's sensor takes them from there")
                jobs = _wait(machine.ledger, jobs, server, instance, show_progress)
                tell(f"{len(ARRIVALS)} files land in the container '{WATCHED}', which a sensor watches")
                arrived, waited = _let_files_land(machine, server, instance)
                jobs += arrived
                report = _account(
                    machine, instance, jobs, home=home, url=server.url, data=data, refused=refused, began=began
                )
                report.results["arrived_seconds"] = round(waited, 1)
                report.results["page"] = str(_draw_page(machine, home))
                report.results["reconciled"] = _reconcile(machine, report.problems)
                at_the_end(report)
    if server.is_alive():
        report.problems.append("a process of Dagster's is still there")
    return report


@contextlib.contextmanager
def _environment(environment: Mapping[str, str]) -> Iterator[None]:
    """Let this process see the demo's environment, and the settings in it."""
    before = dict(os.environ)
    _replace_environment(environment)
    try:
        yield
    finally:
        _replace_environment(before)


def _replace_environment(environment: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    get_settings.cache_clear()


@contextlib.contextmanager
def _machine(settings: Settings) -> Iterator[CoreMachine]:
    from geo_assets.jobs import load_registry  # noqa: PLC0415 - the workflows bring Arrow with them
    from geo_assets.services import open_services  # noqa: PLC0415

    ledger = Ledger(settings.ledger_sqlalchemy_url)
    with contextlib.closing(ledger):
        yield CoreMachine(
            ledger=ledger, registry=load_registry(settings), settings=settings, services=open_services(settings)
        )


def _submit(machine: CoreMachine) -> tuple[list[Job], str]:
    """Queue the demo's jobs; also what the answer to an impossible name was."""
    try:
        submit_many(machine, "summarize_container", [{"container_name": REFUSED}], submitted_by="demo")
        refused = ""
    except GeoAssetsError as error:
        refused = str(error)
    wanted: dict[str, list[dict[str, Any]]] = {
        "process_raster": [{"container_name": "rasters", "blob_name": name} for name in _rasters(machine)],
        "stac_catalog_container": [{"container_name": "rasters"}],
        "ingest_vector": [
            {"container_name": "vectors", "blob_name": file, "table_name": table} for table, file in VECTORS.items()
        ],
        "list_container_contents": [{"container_name": name} for name in ("rasters", "vectors", ODD)],
        "summarize_container": [{"container_name": name} for name in ("rasters", "vectors", *_summarized(), *MISSING)],
        "hello_world": [{"n": 2, "message": f"Hello from the demo, {number}"} for number in range(GREETINGS)],
    }
    jobs = [
        answer.job
        for job_type, params in wanted.items()
        for answer in submit_many(machine, job_type, params, submitted_by="demo")
    ]
    return jobs, refused


def _rasters(machine: CoreMachine) -> list[str]:
    folder = machine.settings.blob_root_path / "rasters"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tif"))


def _summarized() -> list[str]:
    # every other one or every third in turn: scattered, so that no range of keys could name them
    return [f"survey-{number * 5 // 2:04d}" for number in range(SUMMARIZED)]


def _wait(
    ledger: Ledger, jobs: Sequence[Job], server: DagsterServer, instance: Any, show_progress: ShowProgress
) -> list[Job]:
    """Wait until every job has ended and every run has said so."""
    from geo_assets.local_run import JobWatch  # noqa: PLC0415 - brings Dagster with it

    watch = JobWatch(ledger, jobs)
    ended, patience = -1, time.monotonic() + _PATIENCE_SECONDS
    while True:
        all_ended = watch.look()
        now_ended = len(jobs) - len(watch.open)
        show_progress(now_ended, len(jobs))
        if all_ended and _runs_ended(instance) and server.is_ready():
            return watch.jobs
        server.check()
        if now_ended != ended:
            ended, patience = now_ended, time.monotonic() + _PATIENCE_SECONDS
        if time.monotonic() > patience:
            raise GeoAssetsError(
                f"nothing has happened for {_PATIENCE_SECONDS:.0f} s with {len(watch.open)} jobs left;"
                f" the end of {server.log}:\n{server.log_tail()}"
            )
        time.sleep(0.5)


def _watch_a_container(settings: Settings) -> None:
    """Name a source, before Dagster starts, and make its container, in which nothing is yet."""
    settings.sources_path.write_text(_SOURCES, encoding="utf-8")
    (settings.blob_root_path / WATCHED).mkdir(exist_ok=True)


def _let_files_land(machine: CoreMachine, server: DagsterServer, instance: Any) -> tuple[list[Job], float]:
    """Put files into the watched container and wait for what the sensor makes of them; the jobs, and how long it took.

    Raises:
        GeoAssetsError: nothing came of them.
    """
    root = machine.settings.blob_root_path
    landed = time.monotonic()
    for name in ARRIVALS:
        # their COGs share a container with those of the rasters of the same names
        _link(root.parent / "demo_data" / name, root / WATCHED / f"landed_{name}")
    while True:
        jobs = [job for job in machine.ledger.jobs(limit=None) if job.partition_key.startswith(f"{WATCHED}/")]
        if len(jobs) == len(ARRIVALS) and all(job.status.is_terminal for job in jobs) and _runs_ended(instance):
            return jobs, time.monotonic() - landed
        server.check()
        if time.monotonic() - landed > _PATIENCE_SECONDS:
            raise GeoAssetsError(
                f"nothing came of the files that landed in '{WATCHED}'; the end of {server.log}:\n{server.log_tail()}"
            )
        time.sleep(0.5)


def _draw_page(machine: CoreMachine, home: Path) -> Path:
    from geo_assets.assets.configured_sources import configured_sources  # noqa: PLC0415
    from geo_assets.report import gather, render  # noqa: PLC0415

    page = home / "catalog.html"
    drawn = gather(
        machine.settings,
        machine.services,
        lambda: machine.ledger,
        lambda: configured_sources(machine.settings, machine.registry),
    )
    page.write_text(render(drawn), encoding="utf-8")
    return page


def _reconcile(machine: CoreMachine, problems: list[str]) -> str:
    """Compare the ledger with what is there, both ways; in a sentence."""
    from geo_assets.reconcile import reconcile  # noqa: PLC0415

    found = reconcile(machine)
    checked = sum(line.total for line in found.lines)
    if not found.agrees:
        problems.append(f"ledger, storage, tables and catalog disagree about {found.wrong} of {checked} things")
    return f"ledger, storage, tables and catalog agree, both ways, about all of {checked:,} things"


def _runs_ended(instance: Any) -> bool:
    return all(run.is_finished for run in instance.get_runs())


# --- the account ---------------------------------------------------------------------------------------------------


def _account(
    machine: CoreMachine,
    instance: Any,
    jobs: Sequence[Job],
    *,
    home: Path,
    url: str,
    data: DemoData,
    refused: str,
    began: float,
) -> DemoReport:
    tallies = [_tally(instance, machine, job_type, jobs) for job_type in dict.fromkeys(job.job_type for job in jobs)]
    bad = [
        (job.partition_key, job.outcome.value if job.outcome else job.status.value, job.reason or "")
        for job in jobs
        if job.status is not JobStatus.COMPLETED
    ]
    runs = [
        (run.run_id, run.job_name, run.status.value, len(machine.ledger.attempts_of_run(run.run_id)))
        for run in instance.get_runs()
    ]
    return DemoReport(
        home=home,
        url=url,
        data=data,
        refused=refused,
        tallies=tallies,
        bad=bad,
        runs=runs,
        results=_results(machine, jobs),
        problems=_problems(jobs, tallies, refused),
        seconds=time.monotonic() - began,
    )


def _tally(instance: Any, machine: CoreMachine, job_type: str, jobs: Sequence[Job]) -> Tally:
    import dagster as dg  # noqa: PLC0415

    binding = machine.registry[job_type]
    mine = [job for job in jobs if job.job_type == job_type]
    shown = set(instance.get_materialized_partitions(dg.AssetKey.from_user_string(binding.asset)))
    return Tally(
        job_type=job_type,
        asset=binding.asset,
        submitted=len(mine),
        outcomes=dict(Counter(job.outcome.value if job.outcome else job.status.value for job in mine)),
        materialized=sum(job.partition_key in shown for job in mine),
    )


def _results(machine: CoreMachine, jobs: Sequence[Job]) -> dict[str, Any]:
    by_key = {(job.job_type, job.partition_key): job.result_data or {} for job in jobs}
    summaries = [
        result.get("summary") or {} for (job_type, _), result in by_key.items() if job_type == "summarize_container"
    ]
    return {
        "rasters": by_key.get(("summarize_container", "rasters"), {}),
        "vectors": by_key.get(("list_container_contents", "vectors"), {}),
        "cogs": [
            {
                "source": job.partition_key,
                "raster_type": cog["raster_type"],
                "source_crs": cog["source_crs"],
                "compression": cog["compression"],
                "size_mb": cog["size_mb"],
                "path": str(machine.settings.blob_root_path / cog["cog_container"] / cog["cog_blob"]),
            }
            for job in jobs
            if job.job_type == "process_raster" and (cog := (job.result_data or {}).get("cog"))
        ],
        "tables": [
            {
                "table": f"{table['schema']}.{table['table']}",
                "source": f"{job.result_data['blob_name']} ({table['layer']})",
                "rows": table["rows"],
                "geometry": ", ".join(table["geometry_types"]),
                "source_crs": table["source_crs"],
                "repaired": table["report"]["repaired"]["count"] + table["report"]["repaired_moved"]["count"],
                "dropped": table["report"]["rows_dropped"],
                "href": table["href"],
            }
            for job in jobs
            if job.job_type == "ingest_vector" and job.result_data
            for table in job.result_data["tables"]
        ],
        "items": {name: machine.services["catalog"].count_items(name) for name in ("cogs", "vectors", "dev", WATCHED)},
        "catalog": str(machine.settings.catalog_path / "catalog.json"),
        "summarized_files": sum(summary.get("total_files", 0) for summary in summaries),
        "summarized_bytes": sum(summary.get("total_size_bytes", 0) for summary in summaries),
    }


def _problems(jobs: Sequence[Job], tallies: Sequence[Tally], refused: str) -> list[str]:
    """What differs from what a demo that works must show."""
    problems = [f"{tally.job_type}: the outcomes do not add up" for tally in tallies if not tally.adds_up]
    expected = {
        **{("summarize_container", name): JobStatus.FAILED for name in MISSING},
        ("list_container_contents", ODD): JobStatus.COMPLETED_WITH_ERRORS,
        ("stac_catalog_container", "rasters"): JobStatus.COMPLETED_WITH_ERRORS,
        **{("process_raster", f"rasters/{name}"): JobStatus.FAILED for name in WITHOUT_CRS},
        ("ingest_vector", f"geo.{STAND_IN}"): JobStatus.FAILED,
    }
    for job in jobs:
        should = expected.get((job.job_type, job.partition_key), JobStatus.COMPLETED)
        if job.status is not should:
            problems.append(
                f"{job.job_type} of {job.partition_key} is {job.status.value}, not {should.value}: {job.reason}"
            )
    good = Counter(job.job_type for job in jobs if job.status in _MATERIALIZED)
    problems += [
        f"{tally.asset}: {tally.materialized} partitions are materialized, {good[tally.job_type]} should be"
        for tally in tallies
        if tally.materialized != good[tally.job_type]
    ]
    if not refused:
        problems.append(f"the container name '{REFUSED}' was not refused")
    return problems
