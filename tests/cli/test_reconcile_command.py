"""``reconcile``: what it prints, how it ends, and that nothing is changed until told; jobs are done by real runs."""

from pathlib import Path

import dagster as dg
import pytest

from geo_assets.cli.reconcile_command import _print_repair
from geo_assets.coremachine.partition_wipe import unmaterialize
from geo_assets.settings import get_settings
from tests.cli.conftest import A, Run


def test_a_look_a_plan_and_a_repair(run: Run, products: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = run("reconcile")
    assert (good.status, good.stderr) == (0, "")
    assert "all agree" in good.stdout
    assert [line.split()[3:] for line in good.stdout.splitlines() if line.startswith("ledger → storage")] == [
        ["4", "0", "4", "present"]
    ]

    with monkeypatch.context() as patch:
        patch.setenv("GEO_ASSETS_CATALOG_URL", "postgresql://me:hunter2@127.0.0.1:1/x")
        get_settings.cache_clear()
        away = run("reconcile", "--only", "storage", "--only", "catalog")
    get_settings.cache_clear()
    assert away.status == 4
    assert "cannot be reached" in away.stdout
    assert "hunter2" not in away.stdout + away.stderr
    assert "4 present" in away.stdout, "the rest is looked at"

    (products / "analysis" / "c.tif").unlink()
    (products / "strange").write_bytes(b"?")
    with dg.DagsterInstance.get() as instance:
        unmaterialize(instance, asset="cog", partition_keys=[A], who="jane")
    bad = run("reconcile")
    assert bad.status == 1
    for words in ("ledger → storage: 1 missing", "make_cog recorded it for cog 'bronze/c.tif', and it is not there",
                  "storage → ledger: 1 unknown", "silver/strange", "ledger → Dagster: 1 not shown",
                  "3 things disagree"):  # fmt: skip
        assert words in bad.stdout
    assert run("reconcile", "--only", "tables", "--only", "sources").status == 0

    planned = run("reconcile", "--repair", "--json")
    assert (planned.status, planned.json["executed"], planned.json["addsUp"]) == (1, False, True)
    assert {one["name"]: one["outcome"] for one in planned.json["repair"]} == {
        "analysis/c.tif": "planned", "strange": "left", A: "planned"
    }  # fmt: skip
    assert run("audit", "--json").json == []

    done = run("reconcile", "--repair", "--execute", "--by", "jane")
    assert "1 left + 1 queued + 1 shown" in done.stdout
    assert {(row["who"], row["action"]) for row in run("audit", "--json").json} == {("jane", "reconcile")}
    assert [job["status"] for job in run("jobs", "--json").json].count("queued") == 1
    (products / "strange").unlink()
    while_queued = run("reconcile", "--repair", "--execute")
    assert while_queued.status == 0
    assert "1 are at work or could not be judged: look again later" in while_queued.stdout


def test_what_one_repair_leaves_for_the_next_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    _print_repair([], really=True, limit=0, left=1234)
    assert "1,234 more are left for the next repair" in capsys.readouterr().err


def test_executing_belongs_to_a_repair(run: Run) -> None:
    ended = run("reconcile", "--execute")
    assert ended.status == 2
    assert "--execute belongs to --repair" in ended.stderr
