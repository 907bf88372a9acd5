"""Runs comparisons of the engine with highway-env for the tests, and plants slips to see that they would be noticed.

The comparisons are those of `lgdrl.parity`; jobs may also hold `scenes` (that many adversarial starts instead of seeds;
with `winding`, anywhere on the network) and `tolerance` (m; > 0: compare loosely, until the first contact, unpinned).
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lgdrl.parity import process
from lgdrl.parity.process import Job

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tests.parity.oracle"


def run_all(jobs: list[Job], processes: int = 2) -> list[Job]:
    """Results of all jobs, shared out over processes; AssertionError with the first difference."""
    with ThreadPoolExecutor(processes) as pool:
        shares = list(pool.map(run, [jobs[k::processes] for k in range(processes)]))
    for k, share in enumerate(shares):
        for job, result in zip(jobs[k::processes], share, strict=False):  # a share ends with its first difference
            assert result["mismatch"] is None, (job, result["mismatch"])
    return [shares[i % processes][i // processes] for i in range(len(jobs))]


def run(jobs: list[Job], fault: tuple[str, str, str] | None = None) -> list[Job]:
    """Comparisons in a process of their own. Raises with the process's words if it failed.

    `fault` is (file, old text, new text): a slip planted into a copy of the sources. Stops at the first difference.
    """
    pinned = not any(job.get("tolerance") for job in jobs)
    if not fault:
        return process.run(jobs, pinned, MODULE, ROOT)
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), *fault)
        return process.run(jobs, pinned, MODULE, Path(folder), {"NUMBA_CACHE_DIR": folder})


def plant(folder: Path, name: str, old: str, new: str) -> None:
    """A copy of the sources with a slip in one file."""
    for package in ("sim", "experts", "lgdrl/parity", "tests/parity"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("lgdrl", "tests"):
        shutil.copy(ROOT / package / "__init__.py", folder / package)
    path = folder / name
    source = path.read_text(encoding="utf-8")
    if old not in source:
        raise ValueError(f"fault not planted: {old!r} is not in {name}")
    path.write_text(source.replace(old, new), encoding="utf-8")


def compare(job: Job) -> Job:
    """One comparison in this process."""
    if "scenes" not in job:
        return process.compare(job)
    from lgdrl.parity.pair import Pair
    from tests.parity.scenes import compare_scenes, compare_winding_scenes

    compare = compare_winding_scenes if job.get("winding") else compare_scenes
    return compare(Pair(job["scenario"], job.get("config", {})), job["scenes"])


if __name__ == "__main__":
    process.serve(sys.argv[1:], compare)
