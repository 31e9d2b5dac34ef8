"""Drawing the report from the command line."""

from pathlib import Path

import pytest

from geo_assets.settings import get_settings
from geo_assets.stores.static_catalog import StaticCatalog
from tests.cli.conftest import Run
from tests.stores.catalog_items import item


def test_an_empty_home_has_a_report_and_drawing_it_makes_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = run("report")
    assert drawn.status == 0, drawn.stderr
    assert str(tmp_path / "catalog.html") in drawn.stdout
    assert "Nothing is catalogued yet." in (tmp_path / "catalog.html").read_text()
    assert not get_settings().home_path.exists()


def test_the_page_goes_where_it_is_wanted_and_programs_get_its_numbers(run: Run, tmp_path: Path) -> None:
    StaticCatalog(get_settings().catalog_path).upsert_items("cogs", [item("a.tif"), item("b.tif")])
    (tmp_path / "pages").mkdir()
    told = run("report", "--out", str(tmp_path / "pages"), "--json").json
    page = tmp_path / "pages" / "catalog.html"
    assert told["page"] == str(page)
    assert told["pageBytes"] == page.stat().st_size
    assert told["failedJobs"] == 0
    assert (told["items"], [one["id"] for one in told["collections"]]) == (2, ["cogs"])
    assert {one["id"] for one in told["datasets"]} == {"bronze~a.tif", "bronze~b.tif"}
    assert list((tmp_path / "pages").iterdir()) == [page]


def test_what_is_away_is_named_and_the_rest_is_drawn(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_ASSETS_CATALOG_URL", "postgresql://me:canary-secret@127.0.0.1:1/stac")
    monkeypatch.setenv("GEO_ASSETS_SOURCES", str(tmp_path / "mistyped.yaml"))
    get_settings.cache_clear()
    drawn = run("report", "--out", str(tmp_path / "x.html"))
    assert drawn.status == 0
    assert "configured sources is not in it: GEO_ASSETS_SOURCES: there is nothing at …/mistyped" in drawn.stderr
    assert "catalog is not in it: pgSTAC in 127.0.0.1/stac cannot be reached" in drawn.stderr
    assert "canary-secret" not in drawn.stderr + (tmp_path / "x.html").read_text()


def test_a_page_that_cannot_be_written_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    drawn = run("report", "--out", str(tmp_path / "nowhere" / "x.html"))
    assert drawn.status == 2
    assert "name another file" in drawn.stderr
