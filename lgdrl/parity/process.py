"""Comparisons in processes of their own, with NumPy and BLAS pinned to unfused functions or left as they are.

NumPy's AVX-512 tangent and arc functions differ from libm in the last bit, and on some processors its BLAS adds
products without rounding them first: highway-env itself is another there. A pinned process is started with both
switched off (`PINNED`), and refuses to compare where that did not work.
"""

from __future__ import annotations

import importlib.resources
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PINNED = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL", "OPENBLAS_CORETYPE": "Nehalem"}
MODULE = "lgdrl.parity.process"

Job = dict[str, Any]
"""`scenario`, `config` (overrides), and the arguments of `pair.compare_seeds`; with `count`, of `count_differences`."""


class ParityProcessFailed(RuntimeError):
    """A comparison could not be made; the message holds the last words of its process."""


def run(
    jobs: list[Job],
    pinned: bool = True,
    module: str = MODULE,
    sources: Path | None = None,
    more: Mapping[str, str] | None = None,
) -> list[Job]:
    """Make comparisons in a new process.

    Args:
        jobs: What to compare.
        pinned: Whether NumPy and BLAS are pinned there.
        module: What runs there: it reads jobs as its first argument and prints results as its last line.
        sources: Folder that this package is imported from; None: where it is.
        more: Further environment variables.
    Returns:
        The results, up to the first difference.
    Raises:
        ParityProcessFailed: The process failed.
    """
    folder = sources or Path(str(importlib.resources.files("lgdrl"))).parent
    environment = {name: value for name, value in os.environ.items() if name not in PINNED}
    environment |= (PINNED if pinned else {}) | dict(more or {})
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-W", "ignore", "-m", module, json.dumps(jobs), "pinned" if pinned else "as it is"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    if done.returncode:
        raise ParityProcessFailed(done.stderr.strip()[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def check_pin() -> None:
    """Check that NumPy's elementary functions are libm's here: equality would mean nothing else.

    Raises:
        SystemExit: They are not; says which one differs.
    """
    import numpy as np

    values = np.random.default_rng(0).uniform(-1, 1, 100_000)
    pairs = [(np.tan, math.tan), (np.arctan, math.atan), (np.arcsin, math.asin), (np.sin, math.sin), (np.cos, math.cos)]
    for ours, libm in pairs:
        different = sum(float(ours(value)) != libm(value) for value in values)
        if different:
            raise SystemExit(f"NumPy is not pinned: {ours.__name__} differs from libm in {different} of 100,000")
    left, right = values.reshape(2, -1, 2)
    fused = sum(float(a @ b) != a[0] * b[0] + a[1] * b[1] for a, b in zip(left, right, strict=True))
    if fused:
        raise SystemExit(f"BLAS is not pinned: {fused} of {len(left):,} dot products are not sums of products")


def compare(job: Job) -> Job:
    """Make one comparison in this process; the result holds `mismatch` where it stops at the first difference."""
    from lgdrl.parity import pair

    rest = dict(job)
    both = pair.Pair(rest.pop("scenario"), rest.pop("config", {}), rest.pop("tolerance", 0.0))
    if rest.pop("count", False):
        return pair.count_differences(both, **rest)
    return pair.compare_seeds(both, **rest)


def serve(words: list[str], compare: Callable[[Job], Job]) -> None:
    """What the process does: make the comparisons of its first argument, and print the results as one line of JSON.

    Args:
        words: The jobs as JSON, and "pinned" where NumPy and BLAS must be.
        compare: Makes one of them.
    """
    jobs, pinned = json.loads(words[0]), words[1] == "pinned"
    if pinned:
        check_pin()
    results: list[Job] = []
    for job in jobs:
        results.append(compare(job))
        if results[-1].get("mismatch"):
            break
    print(json.dumps(results))


if __name__ == "__main__":
    serve(sys.argv[1:], compare)
