"""A run is a folder that explains and continues itself.

    config.yaml        the resolved config; starts the same run again
    environment.json   package versions, machine, git commit
    metrics.csv        one row per log interval (also under tensorboard/)
    guidance.sqlite    every query to the expert and what came of it, with scenes (`lgdrl.guidance.log`)
    checkpoint.pt      everything needed to continue identically
    policy.safetensors the trained policy, written at the end: tensors, and JSON that rebuilds the learner
    policy.zip         the same policy as Stable-Baselines3 saves it, for its own `load`; nothing here reads it
    evaluation.json    the learner alone, expert off
    .lock              held by the process that trains (`lgdrl.locks`)

Files are written to a temporary name, synced and renamed: a killed run loses at most one checkpoint interval. Nothing
in a run folder runs code when it is read.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lgdrl.locks import LOCK, FolderLock
from sim.config import load_yaml
from sim.errors import UsageError
from sim.files import check_output_folder, write_atomically


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


def read_json(path: Path, remedy: str) -> Any:
    """A JSON file that was written by `write_json`.

    Args:
        path: The file.
        remedy: What to do where it is damaged, for the message.
    Raises:
        UsageError: It cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{str(path)!r} is damaged: {remedy}") from None


def free_folder(name: str) -> str:
    """The first of NAME, NAME-2, NAME-3, ... that is not there yet.

    Args:
        name: The folder.
    """
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    return next(found for found in names if not os.path.lexists(found))


def fingerprint_environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Package versions, machine and git commit of this process.

    Args:
        packages: Names of further packages.
    Returns:
        Plain values; None for what is not installed or not known.
    """
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in (*FINGERPRINTED, *packages)},
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
    """Paths of a run folder, and the right to write into it."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._lock: FolderLock | None = None
        self._made: list[Path] = []
        """Folders that `create` made, innermost first."""

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
        return os.path.lexists(self.policy)

    @classmethod
    def create(cls, folder: Path | str, config_yaml: str) -> Run:
        """A new run folder, locked. UsageError if there is a run in it already or it cannot be written."""
        check_output_folder(str(folder), "run folder")
        run = cls(folder)
        try:
            run._made = run._make_folders()
        except OSError as error:
            raise UsageError(f"cannot write the run folder {str(folder)!r}: {error.strerror}") from None
        run._lock = FolderLock(run.folder)
        try:
            if run.config.exists():
                raise UsageError(
                    f"{str(folder)!r} already holds a run: choose another --out, or continue it with --resume"
                )
            if any(found.name != LOCK for found in run.folder.iterdir()):
                raise UsageError(f"{str(folder)!r} is not empty and holds no run: choose another --out")
            write_json(run.folder / "environment.json", fingerprint_environment())
            write_text(run.config, config_yaml)
        except OSError as error:
            run.discard()
            raise UsageError(f"cannot write the run folder {str(folder)!r}: {error.strerror}") from None
        except BaseException:
            run.release()
            raise
        return run

    def _make_folders(self) -> list[Path]:
        """Make the folder and those above it. Returns: those that were not there, innermost first."""
        missing = [each for each in (self.folder, *self.folder.parents) if not each.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        return missing

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """An existing run. UsageError if there is none, or its config is not whole."""
        from lgdrl.config import RunConfig

        run = cls(folder)
        try:
            there = os.path.lexists(run.config)
        except OSError as error:
            raise UsageError(f"cannot read {str(folder)!r:.300}: {error.strerror}") from None
        if not there:
            raise UsageError(f"no run in {str(folder)!r:.300}: it has no config.yaml")
        settings = load_yaml(run.config)
        missing = [field.name for field in dataclasses.fields(RunConfig) if field.name not in settings]
        if missing:
            raise UsageError(
                f"{str(run.config)!r} is damaged, or of an earlier version: it lacks {missing[0]!r}; restore it, or "
                "train again"
            )
        return run

    def lock(self) -> None:
        """Claim the folder for this process. UsageError where another one trains into it."""
        if self._lock is None:
            self._lock = FolderLock(self.folder)

    def release(self) -> None:
        """Let other processes train into the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discard(self) -> None:
        """Remove a run that `create` made and that never began, and the folders that were made for it."""
        for found in self.folder.iterdir():
            if found.is_dir() and not found.is_symlink():
                shutil.rmtree(found)
            else:
                found.unlink()
        self.release()
        for folder in self._made:
            if any(folder.iterdir()):
                return
            folder.rmdir()


class MetricsTable:
    """metrics.csv: rows are kept whole in memory (a run has some hundreds) and written atomically.

    Columns have one order, whatever came first: progress and time, then the groups in `GROUPS`, others after them, by
    name within a group.

    Args:
        path: The file; rows that it holds are kept.
        unit: Name of the first column: what progress counts. None: as the file has it.
    Raises:
        UsageError: The file is damaged.
    """

    def __init__(self, path: Path, unit: str | None = None) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = self._read(unit) if os.path.lexists(path) else []
        self.unit = unit or (next(iter(self.rows[0])) if self.rows else "decisions")

    def _read(self, unit: str | None) -> list[dict[str, Any]]:
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                names, *lines = csv.reader(file, strict=True)
            if not names or len(set(names)) < len(names) or (unit is not None and names[0] != unit):
                raise ValueError(f"the first line is {','.join(names)!r:.100}")
            for number, line in enumerate(lines, 2):
                if len(line) != len(names) or int(line[0]) < 0:
                    raise ValueError(f"line {number} does not fit the first one")
        except OSError as error:
            raise UsageError(f"cannot read {str(self.path)!r}: {error.strerror}") from None
        except (ValueError, csv.Error) as error:
            reason = "it is empty" if "not enough values" in str(error) else f"{type(error).__name__}: {error!s:.150}"
            raise UsageError(f"{str(self.path)!r} is damaged ({reason})") from None
        return [dict(zip(names, line, strict=True)) for line in lines]

    def truncate(self, progress: int) -> None:
        """Drop rows beyond some progress (of a run that was killed after its checkpoint)."""
        self.rows = [row for row in self.rows if int(row[self.unit]) <= progress]

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; it needs the column of its unit, others may differ from row to row."""
        self.rows.append(dict(row))
        text = io.StringIO()
        writer = csv.DictWriter(text, ordered_columns(self.rows, self.unit), restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())


GROUPS = ("eval", "rollout", "train", "guidance", "expert")
"""Groups of columns in their order; the group of `train/entropy` is `train`."""


def ordered_columns(rows: Sequence[Mapping[str, Any]], unit: str) -> list[str]:
    """The columns of a table of metrics in their one order.

    Args:
        rows: Its rows.
        unit: Name of the first column.
    """

    def place(name: str) -> tuple[int, float, str]:
        if "/" not in name:
            return 0, lead.index(name) if name in lead else math.inf, name
        group = name.partition("/")[0]
        return 1, GROUPS.index(group) if group in GROUPS else math.inf, name

    lead = (unit, "elapsed_s", "rate")
    return sorted({name for row in rows for name in row}, key=place)
