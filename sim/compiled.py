"""`kernel`: the one decorator of compiled functions, with a cache on disk that notices every change.

Numba caches each function by the date of its own file; a function that calls one of another file would go on using the
old one. Here the cache has a folder per version of the sources, in the user's cache directory (`NUMBA_CACHE_DIR`, if
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

OWN = Path(__file__).resolve().parent
SOURCES = ("*.py", "engine/*.py", "engine/families/*.py", "engine/observe/*.py")
"""All of this package that kernels are compiled from, constants included."""
KEPT = 4
"""Versions of a package whose compiled code stays on disk."""


def _version(sources: list[Path]) -> str:
    """12 hex digits that name these sources, this Python, NumPy and Numba."""
    digest = hashlib.sha256(f"{numba.__version__} {np.__version__} {sys.version}".encode())
    for path in sorted(sources):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _sources(package: Path) -> list[Path]:
    """The files whose change may change a kernel of a package: our own, and all of it where it is another one.

    A package that is a single module, such as a script, counts as that file.
    """
    own = [path for pattern in SOURCES for path in OWN.glob(pattern)]
    if package == OWN:
        return own
    return own + ([package] if package.is_file() else list(package.rglob("*.py")))


@functools.cache
def _cache_folder(package: Path) -> Path:
    """The folder of a package's present version, a temporary one where none can be kept; removes old versions."""
    name = package.stem
    try:
        home = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        parent = Path(home) / "driving-kernels" / name
        folder = parent / _version(_sources(package))
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for old in sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, RuntimeError):  # no home, or no right to write there
        folder = Path(tempfile.mkdtemp(prefix=f"driving-kernels-{name}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _package_of(function: Callable[..., Any]) -> Path:
    """The top-level package that a function belongs to: its folder, or its file where it is in none."""
    path = Path(function.__code__.co_filename).resolve()
    depth = function.__module__.count(".")
    if depth == 0:
        return path
    return path.parents[depth if path.name == "__init__.py" else depth - 1]


CACHE = _cache_folder(OWN)
"""Where the kernels of this package are kept."""


def kernel(function: Any = None, **options: Any) -> Any:
    """Compile a function as `numba.njit` does, cached by version; the GIL is released while it runs.

    Args:
        function: The function; None: returns a decorator.
        options: Further options of `numba.njit`.
    Returns:
        The compiled function.
    """
    if function is None:
        return functools.partial(kernel, **options)
    numba.config.CACHE_DIR = str(_cache_folder(_package_of(function)))  # type: ignore[attr-defined]
    return numba.njit(cache=True, error_model="numpy", nogil=True, **options)(function)


def compile_once(what: str, run: Callable[[], None]) -> None:
    """Compile kernels by using them, unless this version of them has been compiled before; says so on a terminal.

    Args:
        what: Names the kernels, for the message.
        run: Uses them; a function or method of their package.
    """
    cache = _cache_folder(_package_of(run))
    marker = cache / f"{what.replace(' ', '-')}.done"
    if marker.exists():
        return
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"Compiling {what} for this machine (once) ...", end="", file=sys.stderr, flush=True)
    start = time.perf_counter()
    run()
    if terminal:
        print(f" done in {time.perf_counter() - start:.0f} s.", file=sys.stderr, flush=True)
    if cache.is_dir():
        marker.touch()
