"""`kernel`: the one decorator of compiled functions, with a cache on disk that notices every change.

Numba caches each function by the date of its own file; a function that calls one of another file would go on using the
old one. Here the cache has a folder per version of all kernels, in the user's cache directory (`NUMBA_CACHE_DIR`, if
set, else `XDG_CACHE_HOME` or `~/.cache`). Compiled code keeps IEEE semantics (no fast-math) and divides as NumPy does.
"""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("sim/*.py", "sim/engine/*.py", "experts/*.py", "experts/rules/*.py")
"""Everything that kernels are compiled from, constants included."""
KEPT = 4
"""Versions whose compiled code stays on disk."""


def _version() -> str:
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {sys.version}".encode())
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    """This version's folder; older ones beyond `KEPT` are removed. A temporary one where none can be kept."""
    try:
        home = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        parent = Path(home) / "lgdrl-kernels"
        folder = parent / _version()
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for old in sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError):  # no home, or no right to write there
        folder = Path(tempfile.mkdtemp(prefix="lgdrl-kernels-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


CACHE = _cache_folder()
numba.config.CACHE_DIR = str(CACHE)  # type: ignore[attr-defined]


def kernel(function: Any = None, **options: Any) -> Any:
    """`numba.njit` with our settings; further options as there. The GIL is released while a kernel runs."""
    if function is None:
        return functools.partial(kernel, **options)
    return numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)


def compile_once(what: str, run: Callable[[], None]) -> None:
    """Call `run`, which uses the kernels of `what`, unless this version of them is compiled already; says so on a
    terminal, because it takes a while."""
    marker = CACHE / f"{what.replace(' ', '-')}.done"
    if marker.exists():
        return
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"Compiling {what} for this machine (once) ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    run()
    if terminal:
        print(f" done in {time.perf_counter() - start:.0f} s.", file=sys.stderr, flush=True)
    if CACHE.is_dir():
        marker.touch()
