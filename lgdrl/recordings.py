"""`lgdrl demos`: summaries of recordings, and exchange with Minari datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experts.data.episodes import Episode, load_episodes, save_episode
from sim.errors import UsageError
from sim.files import check_output_folder


def describe(episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of a recording, as `lgdrl demos info` shows them.

    Args:
        episodes: Of the recording, at least one.
    Returns:
        Plain values for JSON.
    """
    turns = [turn for episode in episodes for turn in episode.turns]
    drove = Counter(turn.controller for turn in turns)
    outcomes = Counter(episode.outcome for episode in episodes)
    reactions = [turn.reaction_s for turn in turns if turn.reaction_s is not None]
    return {
        "scenarios": _different(episode.scenario for episode in episodes),
        "backends": _different(episode.backend for episode in episodes),
        "drivers": _different(episode.driver for episode in episodes),
        "episodes": len(episodes),
        "decisions": len(turns),
        "driven_by": {name: drove[name] for name in sorted(drove)},
        "outcomes": {name: outcomes[name] for name in sorted(outcomes)},
        "mean_return": float(np.mean([sum(turn.reward for turn in episode.turns) for episode in episodes])),
        "median_reaction_s": float(np.median(reactions)) if reactions else None,
        "observation_shapes": _different(list(np.shape(episode.last_obs)) for episode in episodes),
        "actions": _different(len(episode.last_legal) for episode in episodes),
    }


def import_to(dataset_id: str, out: str) -> list[Path]:
    """Write a Minari dataset as a recording.

    Args:
        dataset_id: Of the dataset.
        out: New folder, or .npz file for one episode.
    Returns:
        The files.
    Raises:
        UsageError: `out` exists, or is a file although there are several episodes.
    """
    from experts.data.minari_datasets import import_dataset

    target = Path(out)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UsageError(f"{out!r} exists already: choose another OUT")
    check_output_folder(str(target.parent if target.suffix == ".npz" else out), "OUT")
    episodes = import_dataset(dataset_id)
    if target.suffix != ".npz":
        return [save_episode(target / f"episode-{k:04d}.npz", episode) for k, episode in enumerate(episodes)]
    if len(episodes) > 1:
        raise UsageError(f"dataset {dataset_id!r} holds {len(episodes)} episodes: name a folder, not {out!r}")
    return [save_episode(target, episodes[0])]


def export_from(recording: str, dataset_id: str) -> Path:
    """Write a recording as a new Minari dataset.

    Args:
        recording: .npz file, or folder of them.
        dataset_id: Of the new dataset.
    Returns:
        The dataset's folder.
    """
    from experts.data.minari_datasets import export_dataset

    return export_dataset(load_episodes(recording), dataset_id)


def _different(values: Any) -> list[Any]:
    """Every value once, in the order of first appearance."""
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen
