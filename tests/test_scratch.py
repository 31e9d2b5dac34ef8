"""Scratch folders: made when asked for, gone when closed, swept when their owner was killed.

What belongs here: :mod:`geo_assets.scratch`.  What does not: what the engine does with them (``test_engine``).
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geo_assets import scratch
from geo_assets.scratch import ScratchFolder, sweep

OWNER = """
import sys, time
from pathlib import Path
from geo_assets.scratch import ScratchFolder
folder = ScratchFolder(Path(sys.argv[1]))
(folder.path / "big.tif").write_bytes(b"x" * 1000)
print(folder.path, flush=True)
time.sleep(60)
"""


def test_nothing_is_made_before_it_is_asked_for(tmp_path: Path) -> None:
    with ScratchFolder(tmp_path / "scratch"):
        assert not (tmp_path / "scratch").exists()


def test_the_folder_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    with ScratchFolder(tmp_path) as folder:
        path = folder.path
        assert path == folder.path
        (path / "deep" / "er").mkdir(parents=True)
        (path / "deep" / "er" / "x").write_text("x")
    assert not path.exists()
    assert folder.path != path, "asked for again, it is a new one"
    folder.close()


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    left = Path(process.stdout.readline().strip())
    with ScratchFolder(tmp_path) as mine:
        kept = mine.path
        assert sweep(tmp_path) == 0, "its owner lives"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert left.exists()
        assert sweep(tmp_path) == 1
        assert not left.exists()
        assert kept.exists()


def test_a_folder_being_made_is_not_swept_away(tmp_path: Path) -> None:
    young, old = tmp_path / "scratch-young", tmp_path / "scratch-old"
    for folder in (young, old):
        folder.mkdir()
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago))
    assert sweep(tmp_path, dry_run=True) == 1
    assert old.exists()
    assert sweep(tmp_path) == 1
    assert (young.exists(), old.exists()) == (True, False)


def test_the_first_folder_of_a_process_sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_swept", set())
    left = tmp_path / "scratch-left"
    left.mkdir()
    (left / ".owner").touch()
    with ScratchFolder(tmp_path) as folder:
        assert folder.path.exists()
        assert not left.exists()
