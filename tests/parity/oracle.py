"""Compares the engine with highway-env, bit for bit, in a process with a pinned NumPy.

NumPy's AVX-512 tangent and arc functions differ from libm in the last bit, and on some processors its BLAS adds
products without rounding them first: highway-env itself is another there. So the process has to be started with both
switched off (`PINNED`); a self-check at the start fails loudly where that did not work. Run as a script:

    NPY_DISABLE_CPU_FEATURES="X86_V4 AVX512_ICL" OPENBLAS_CORETYPE=Nehalem \
        python -m tests.parity.oracle '[{"scenario": "highway-v0", "seeds": [0, 10], "limit": 40}]'

A job may hold `config` (overrides), `past_end` (decisions after an episode's end), `scenes` (that many adversarial
starts instead of seeds) and `tolerance` (m; > 0: compare loosely, until the first contact, and unpinned). Prints one
JSON line of results.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PINNED = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL", "OPENBLAS_CORETYPE": "Nehalem"}

Job = dict[str, Any]


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
    loose = any(job.get("tolerance") for job in jobs)
    environment = os.environ | ({} if loose else PINNED)
    with tempfile.TemporaryDirectory() as folder:
        sources = ROOT
        if fault:
            sources = Path(folder)
            plant(sources, *fault)
            environment["NUMBA_CACHE_DIR"] = folder
        environment["PYTHONPATH"] = str(sources)
        command = [sys.executable, "-m", "tests.parity.oracle", json.dumps(jobs)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=sources, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def plant(folder: Path, name: str, old: str, new: str) -> None:
    """A copy of the sources with a slip in one file."""
    for package in ("sim", "experts", "tests/parity"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests/__init__.py").touch()
    path = folder / name
    source = path.read_text(encoding="utf-8")
    if old not in source:
        raise ValueError(f"fault not planted: {old!r} is not in {name}")
    path.write_text(source.replace(old, new), encoding="utf-8")


def check_pin() -> None:
    """NumPy's elementary functions must be libm's here, or equality means nothing."""
    import numpy as np

    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    pairs = [(np.tan, math.tan), (np.arctan, math.atan), (np.arcsin, math.asin), (np.sin, math.sin), (np.cos, math.cos)]
    for ours, libm in pairs:
        different = sum(float(ours(value)) != libm(value) for value in values)
        if different:
            raise SystemExit(f"the oracle is not pinned: {ours.__name__} differs from libm in {different} of 100,000")
    left, right = values.reshape(2, -1, 2)
    fused = sum(float(a @ b) != a[0] * b[0] + a[1] * b[1] for a, b in zip(left, right, strict=True))
    if fused:
        raise SystemExit(f"the oracle is not pinned: {fused} of {len(left):,} dot products are not sums of products")


def main(jobs: list[Job]) -> None:
    from tests.parity import pair

    results: list[Job] = []
    if not all(job.get("tolerance") for job in jobs):
        check_pin()
    for job in jobs:
        tolerance, scenes = job.pop("tolerance", 0.0), job.pop("scenes", 0)
        both = pair.Pair(job.pop("scenario"), job.pop("config", {}), tolerance)
        results.append(pair.compare_scenes(both, scenes) if scenes else pair.compare_seeds(both, **job))
        if results[-1]["mismatch"]:
            break
    print(json.dumps(results))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
