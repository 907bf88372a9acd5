"""The cache of compiled kernels: one folder per version, and a way on where nothing can be kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ASK = "from sim.compiled import CACHE; import sim.engine.rng as r; print(CACHE); r.next_double(r.seeded_stream(0))"


def cache_of(**environment: str) -> Path:
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"} | environment,
    )
    return Path(done.stdout.strip())


def test_kernels_are_kept_by_version_and_old_versions_go(tmp_path):
    for version in range(6):
        (tmp_path / "driving-kernels" / "sim" / f"old{version}").mkdir(parents=True)
    folder = cache_of(XDG_CACHE_HOME=str(tmp_path))
    assert folder.parent == tmp_path / "driving-kernels" / "sim"
    assert list(folder.rglob("*.nbi"))
    assert len(list(folder.parent.iterdir())) == 4


def test_without_a_place_to_write_kernels_live_for_one_process(tmp_path):
    blocked = tmp_path / "file"
    blocked.touch()
    folder = cache_of(XDG_CACHE_HOME=str(blocked))
    assert blocked not in folder.parents
    assert not folder.exists()  # cleaned up at exit
