"""A run is a folder that explains and continues itself.

    config.yaml        the resolved config; starts the same run again
    environment.json   package versions, machine, git commit
    metrics.csv        one row per log interval (also under tensorboard/)
    guidance.sqlite    every query to the expert and what came of it, with scenes (`lgdrl.guidance.log`)
    checkpoint.pt      everything needed to continue identically
    policy.safetensors the trained policy, written at the end: tensors, and JSON that rebuilds the learner
    policy.zip         the same policy as Stable-Baselines3 saves it, for its own `load`; nothing here reads it
    evaluation.json    the learner alone, expert off

Files are written to a temporary name, synced and renamed: a killed run loses at most one checkpoint interval.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sim.errors import UsageError
from sim.files import write_atomically


class RunFailed(RuntimeError):
    """A run broke for a reason that is not the user's input. One line; exit code 1."""


FINGERPRINTED = ("numpy", "torch", "stable-baselines3", "gymnasium", "highway-env", "numba", "openai", "lgdrl")


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Write JSON with two-space indents; NaN and infinities become null."""
    write_text(path, json.dumps(_finite(value), indent=2) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def fingerprint_environment() -> dict[str, Any]:
    """Package versions, machine and git commit of this process."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in FINGERPRINTED},
        "git_commit": _git_commit(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _git_commit() -> str | None:
    """Commit of the code that runs; None where it is installed, even inside another repository."""
    code = Path(__file__)
    try:
        _git(code.parent, "ls-files", "--error-unmatch", code.name)
        return _git(code.parent, "describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()


class Run:
    """Paths of a run folder, and its metrics table."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def config(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def policy(self) -> Path:
        return self.folder / "policy.safetensors"

    @property
    def policy_zip(self) -> Path:
        """A copy for users of Stable-Baselines3."""
        return self.folder / "policy.zip"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.json"

    @property
    def guidance_log(self) -> Path:
        return self.folder / "guidance.sqlite"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.csv"

    @property
    def finished(self) -> bool:
        """Whether training reached its end."""
        return self.policy.exists()

    @classmethod
    def create(cls, folder: Path | str, config_yaml: str) -> Run:
        """A new run folder. UsageError if there is a run in it already or it cannot be written."""
        run = cls(folder)
        if run.config.exists():
            raise UsageError(f"{str(folder)!r} already holds a run: choose another --out, or continue it with --resume")
        if run.folder.exists() and any(run.folder.iterdir()):
            raise UsageError(f"{str(folder)!r} is not empty and holds no run: choose another --out")
        try:
            run.folder.mkdir(parents=True, exist_ok=True)
            write_json(run.folder / "environment.json", fingerprint_environment())
            write_text(run.config, config_yaml)
        except OSError as error:
            raise UsageError(f"cannot write the run folder {str(folder)!r}: {error.strerror}") from None
        return run

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """An existing run. UsageError if there is none."""
        run = cls(folder)
        if not run.config.exists():
            raise UsageError(f"no run in {str(folder)!r}: it has no config.yaml")
        return run


class MetricsTable:
    """metrics.csv: rows are kept whole in memory (a run has some hundreds) and written atomically."""

    def __init__(self, path: Path, unit: str = "decisions") -> None:
        self.path = path
        self.unit = unit
        """Name of the first column: what progress counts."""
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))

    def truncate(self, progress: int) -> None:
        """Drop rows beyond some progress (of a run that was killed after its checkpoint)."""
        self.rows = [row for row in self.rows if int(row[self.unit]) <= progress]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it needs the column of its unit, others may differ from row to row."""
        self.rows.append(dict(row))
        names = list(dict.fromkeys(name for each in self.rows for name in each))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())
