"""``check``: what it prints, counts that add up, how it ends; partitions are made by a real run.

What belongs here: the command.  What does not: the checks (``tests/checking``).
"""

from pathlib import Path

from tests.cli.conftest import Run

KEY = "maps/world_byte_4326.tif"


def test_it_looks_at_what_is_there_and_ends_with_1_where_something_is_not(run: Run, containers: Path) -> None:
    nothing = run("check", "cog")
    assert nothing.status == 0
    assert "no partition of cog is materialized" in nothing.stderr
    done = run("submit", "process_raster", "--key", KEY, "--wait")
    assert done.status == 0, done.stderr
    good = run("check", "cog", "--sample", "5", "--prefix", "maps/")
    assert good.status == 0, good.stdout
    assert "1 partition of cog: 3 of 3 looks found all well" in good.stdout

    (cog,) = (containers / "silver").rglob("*_cog.tif")
    cog.unlink()
    bad = run("check", "cog", KEY, "--check", "cog_valid", "--json")
    assert bad.status == 1
    assert bad.json["counts"] == {"cog_valid": {"passed": 0, "warned": 0, "failed": 1, "not looked at": 0}}
    (finding,) = bad.json["findings"]
    assert (finding["partitionKey"], finding["verdict"], finding["blocking"]) == (KEY, "failed", True)
    assert "is gone" in finding["description"]
    shown = run("check", "cog", "--prefix", "maps/")
    assert shown.status == 1
    assert "cog_valid" in shown.stdout

    assert run("check", "cog", "maps/other.tif").status == 3
    assert run("check", "hello_world").status == 2
    assert run("check", "cog", "--check", "nonsense").status == 2
