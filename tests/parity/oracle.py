"""Compares the engine with highway-env, bit for bit, in a process with a pinned NumPy.

NumPy's AVX-512 tangent and arc functions differ from libm in the last bit, so the process has to be started with them
switched off (`PINNED`); a self-check at the start fails loudly where that did not work. Run as a script:

    python -m tests.parity.oracle '{"scenario": "highway-v0", "seeds": [0, 10], "limit": 40}'

A job may hold `config` (overrides), `past_end` (decisions after an episode's end), `scenes` (that many adversarial
starts instead of seeds), `fault` ([file, old text, new text]: a slip planted into a copy of the sources, which the
comparison must notice) and `pinned` (false: compare with a tolerance, until the first contact). Prints one JSON line.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PINNED = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL"}
CLOSE = 1e-9
"""m: how far an unpinned highway-env may be off before the first contact."""


def run(**job: Any) -> dict[str, Any]:
    """One comparison in a process of its own. Raises with the process's words if it failed."""
    environment = os.environ | (PINNED if job.get("pinned", True) else {})
    with tempfile.TemporaryDirectory() as folder:
        sources = ROOT
        if job.get("fault"):
            sources = Path(folder)
            plant(sources, *job.pop("fault"))
            environment["NUMBA_CACHE_DIR"] = folder
        environment["PYTHONPATH"] = str(sources)
        command = [sys.executable, "-m", "tests.parity.oracle", json.dumps(job)]
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


def main(job: dict[str, Any]) -> None:
    from tests.parity import pair

    pinned = job.pop("pinned", True)
    if pinned:
        check_pin()
    scenes, arguments = job.pop("scenes", 0), {"scenario": job.pop("scenario"), "config": job.pop("config", {})}
    both = pair.Pair(**arguments, tolerance=0.0 if pinned else CLOSE)
    print(json.dumps(pair.compare_scenes(both, scenes) if scenes else pair.compare_seeds(both, **job)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
