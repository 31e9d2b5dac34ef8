"""``unpublish`` and ``audit``: dry by default, what they print, how they end; jobs are done by real runs."""

import getpass
from pathlib import Path

import dagster as dg
import pytest

from geo_assets.coremachine.ledger import Ledger
from geo_assets.settings import get_settings
from tests.cli.conftest import A, B, Run
from tests.publishing import PRODUCTS, item_id


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.tif")}


def green(asset: str = "cog") -> set[str]:
    with dg.DagsterInstance.get() as instance:
        return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_it_is_dry_until_told_otherwise(run: Run, products: Path) -> None:
    before = files(products)
    assert green() == {A, B}
    dry = run("unpublish", "cog", A)
    assert dry.status == 0
    for word in (item_id("a b.tif"), f"{PRODUCTS}/analysis/a b.tif", f"{PRODUCTS}/thumbnail/a b.tif", "present"):
        assert word in dry.stdout
    assert "cog, raster_stac_item would show as never materialized; 1 execution would no longer count" in dry.stdout
    assert "add --execute" in dry.stderr
    assert (files(products), green()) == (before, {A, B})
    assert run("audit", "--json").json == []
    assert run("submit", "make_cog", "--key", A, "--json").json[0]["status"] == "already_completed"


def test_executed_everything_goes_together_and_can_be_made_anew(run: Run, products: Path) -> None:
    done = run("unpublish", "cog", A, "--execute", "--by", "jane", "--json")
    assert done.status == 0
    (taken,) = done.json["partitions"]
    assert (done.json["executed"], taken["complete"], taken["partitionKey"]) == (True, True, A)
    assert {thing["outcome"] for thing in taken["things"]} == {"removed"}
    assert files(products) == {"analysis/c.tif", "thumbnail/c.tif"}
    assert green() == {B}

    (row,) = run("audit", "--json").json
    assert (row["who"], row["asset"], row["partitionKey"], row["complete"]) == ("jane", "cog", A, True)
    assert row["inventory"] == taken["things"]
    shown = run("audit", "--asset", "cog", "--partition", A).stdout
    assert "jane" in shown
    assert "3 removed" in shown
    assert "complete" in shown

    (job,) = [one for one in run("jobs", "--json").json if one["partitionKey"] == A]
    assert job["withdrawnAt"] is not None
    assert "withdrawn" in run("status", job["jobId"]).stdout

    again = run("unpublish", "cog", A, "--execute")
    assert (again.status, "taken back" in again.stdout) == (0, True)
    assert "nothing is left to take back" in run("unpublish", "cog", A).stdout

    assert run("submit", "make_cog", "--key", A, "--wait").status == 0
    assert green() == {A, B}
    assert len(files(products)) == 4


def test_what_somebody_replaced_is_left_and_said(run: Run, products: Path) -> None:
    (products / "analysis" / "a b.tif").write_bytes(b"a better one")
    dry = run("unpublish", "cog", A)
    assert (dry.status, "changed" in dry.stdout, "--force" in dry.stderr) == (0, True, True)
    done = run("unpublish", "cog", A, "--execute")
    assert done.status == 1
    assert "analysis/a b.tif" in files(products)
    (row,) = run("audit", "--json").json
    assert row["who"] == getpass.getuser()
    assert run("unpublish", "cog", A, "--execute", "--force").status == 0
    assert files(products) == {"analysis/c.tif", "thumbnail/c.tif"}


@pytest.mark.usefixtures("products")
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("raster_validation", A), 2, "assets that can be taken back: cog, raster_stac_item"),
        (("cog", "bronze/none.tif"), 3, "no job published anything for bronze/none.tif of cog"),
    ],
)
def test_what_cannot_be_taken_back_is_one_clear_line(
    run: Run, arguments: tuple[str, ...], status: int, message: str
) -> None:
    for options in ((), ("--execute",)):
        ended = run("unpublish", *arguments, *options)
        assert (ended.status, ended.stdout) == (status, "")
        assert message in ended.stderr
        assert ended.stderr.count("\n") == 1


@pytest.mark.usefixtures("products")
def test_a_partition_at_work_is_refused(run: Run) -> None:
    run("submit", "make_cog", "--key", A, "--force")
    ended = run("unpublish", "cog", A, "--execute")
    assert ended.status == 1
    assert "is queued" in ended.stderr
    assert green() == {A, B}


def test_a_home_without_a_ledger_has_no_audit(run: Run) -> None:
    shown = run("audit")
    assert (shown.status, shown.stdout) == (0, "")
    assert "nothing was taken back" in shown.stderr
    assert not get_settings().home_path.exists()


def test_a_command_that_was_killed_shows_in_the_audit(run: Run) -> None:
    ledger = Ledger(get_settings().ledger_sqlalchemy_url)
    ledger.audit("unpublish", who="jane", asset="cog", inventories={A: [{"outcome": "present"}]})
    ledger.close()
    shown = run("audit").stdout
    assert "never ended" in shown
    assert "1 present" in shown


def test_a_real_cog_goes_with_its_item_and_thumbnail_and_its_validation_stays(run: Run, containers: Path) -> None:
    key = "maps/world_byte_4326.tif"
    assert run("submit", "process_raster", "--key", key, "--wait").status == 0
    catalog = get_settings().catalog_path
    sources = files(containers / "maps")

    def published() -> set[str]:
        made = [*containers.glob("*/**/*"), *catalog.glob("*/items/*.json")]
        return {path.name for path in made if path.name.startswith(("world_byte_4326_cog", "silver~"))}

    assert len(published()) == 3
    assert (green("cog"), green("raster_stac_item"), green("raster_validation")) == ({key}, {key}, {key})
    done = run("unpublish", "cog", key, "--execute", "--json")
    assert (done.status, done.json["partitions"][0]["complete"]) == (0, True)
    assert published() == set()
    assert files(containers / "maps") == sources
    assert (green("cog"), green("raster_stac_item"), green("raster_validation")) == (set(), set(), {key})
    assert run("submit", "process_raster", "--key", key, "--wait").status == 0
    assert (len(published()), green("cog")) == (3, {key})
