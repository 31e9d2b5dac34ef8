"""The demo, from its parts to the whole."""

import json
import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from geo_assets.demo import CONTAINERS, SUMMARIZED, demo_home, fill_containers
from geo_assets.errors import ParameterError
from tests.cli.test_wait import GEO_ASSETS


def test_the_containers_are_real_and_those_summarized_are_scattered(tmp_path: Path) -> None:
    root = tmp_path / "containers"
    data = fill_containers(root)
    assert len(data.summarized) == SUMMARIZED >= 240
    numbers = [int(name.removeprefix("survey-")) for name in data.summarized]
    assert all(later - earlier >= 2 for earlier, later in pairwise(numbers))
    assert max(numbers) < CONTAINERS
    assert all(any((root / name).rglob("*.*")) for name in data.summarized)
    assert data.containers == CONTAINERS + 3
    assert (root / "rasters" / "world_byte_4326.tif").read_bytes()[:2] in (b"II", b"MM")


def test_a_home_is_fresh_every_time_unless_kept(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    with demo_home(wanted, keep=False) as home:
        (home / "left").touch()
    with demo_home(wanted, keep=True) as home:
        assert (home / "left").exists()
    with demo_home(wanted, keep=False) as home:
        assert not (home / "left").exists()


def test_a_folder_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(ParameterError, match="is not empty and no demo made it"), demo_home(tmp_path, keep=False):
        pass
    assert (tmp_path / "thesis.doc").exists()


def test_two_demos_at_once_have_two_homes(tmp_path: Path) -> None:
    with demo_home(None, keep=False) as first, demo_home(None, keep=False) as second:
        assert first.name == "demo"
        assert second.name == "demo-2"
    with (
        demo_home(tmp_path / "x", keep=False),
        pytest.raises(ParameterError, match="another demo"),
        demo_home(tmp_path / "x", keep=False),
    ):
        pass


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_shows_the_whole_path_and_leaves_nothing_running(tmp_path: Path) -> None:
    home = tmp_path / "demo"
    process = subprocess.run(
        [*GEO_ASSETS, "demo", "--home", str(home), "--json"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
        # what the caller has set takes no part
        env={**os.environ, "GEO_ASSETS_LEDGER_URL": "postgresql://127.0.0.1:1/none"},
    )
    log = home / "dagster.log"
    assert process.returncode == 0, process.stderr + (log.read_text()[-4000:] if log.exists() else "")
    report = json.loads(process.stdout)
    assert report["problems"] == []
    tallies = {tally["job_type"]: tally for tally in report["tallies"]}
    assert set(tallies) == {
        "hello_world", "ingest_vector", "list_container_contents", "process_raster", "stac_catalog_container",
        "summarize_container",
    }  # fmt: skip
    assert tallies["ingest_vector"]["outcomes"] == {"created": 5, "invalid": 1}
    assert {table["table"]: table["rows"] for table in report["results"]["tables"]} == {
        "geo.german_cities": 7650, "geo.swiss_cities": 1425, "geo.swiss_cities_kmz": 1425, "geo.states_2024": 56,
        "geo.us_counties": 3230, "geo.us_states": 56,
    }  # fmt: skip
    assert tallies["process_raster"]["outcomes"] == {"created": 8, "invalid": 2}
    assert report["results"]["items"] == {"cogs": 6, "vectors": 6, "dev": 6, "arrivals": 2}
    assert report["results"]["arrived_seconds"] > 0
    assert re.fullmatch(r"ledger, storage, .* about all of \d+ things", report["results"]["reconciled"])
    assert "<html" in Path(report["results"]["page"]).read_text()
    assert all(Path(cog["path"]).is_file() for cog in report["results"]["cogs"])
    assert Path(report["results"]["catalog"]).is_file()
    assert all(sum(tally["outcomes"].values()) == tally["submitted"] for tally in tallies.values())
    assert tallies["summarize_container"]["outcomes"] == {"created": 242, "failed": 3}
    assert tallies["summarize_container"]["materialized"] == 242
    assert sorted(key for key, _, _ in report["bad"]) == [
        "geo.parcels",
        "oddities",
        "rasters",
        "rasters/no_crs_float64.tif",
        "rasters/rotated_no_crs.tif",
        "survey-lost-1",
        "survey-lost-2",
        "survey-not-a-folder",
    ]
    assert len(report["runs"]) == 7
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", report["url"])
    assert _processes_with(f"DAGSTER_HOME={home / 'dagster'}") == []


def _processes_with(variable: str) -> list[str]:
    name, _, value = variable.partition("=")
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
