"""Small runs on CartPole, and ways to damage what is in their folders."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from lgdrl import training
from lgdrl.config import RunConfig, load_config

QUICK = {
    "scenario": "gym:CartPole-v1",
    "expert": "random",
    "strategy": "sac-bc",
    "steps": 96,
    "num_envs": 4,
    "log_every": 48,
    "evaluate_every": 0,
    "checkpoint_every": 48,
    "learner_options": {"hidden": [8, 8], "learning_starts": 32, "batch_size": 8, "buffer_size": 200},
}


class Marker:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def quick_config(**changes) -> RunConfig:
    return load_config(None, QUICK | changes)


def trained(folder: Path, **changes) -> Path:
    """A finished run."""
    trainer = training.start(quick_config(**changes), folder)
    try:
        assert trainer.train()
    finally:
        trainer.close()
    return folder


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbled(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 - 3])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


def made_a_folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.mkdir()


def made_a_loop(path: Path) -> None:
    """A link to itself, which cannot be read."""
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)


def made_a_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Marker(path.parent / "marker")))


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": emptied,
    "garbage": garbled,
    "cut": cut,
    "folder": made_a_folder,
    "loop": made_a_loop,
    "pickle": made_a_pickle,
}


def copied(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target
