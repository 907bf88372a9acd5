"""`lgdrl demos`: summaries of recordings and transition data sets, and their exchange with Minari datasets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experts.data.episodes import Episode, load_episodes, save_episode
from experts.data.transition_files import header_of, is_transitions, load_transitions, save_transitions
from experts.data.transitions import TransitionDataset
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


def describe_file(path: str) -> dict[str, Any]:
    """`describe` of a recording, or of a transition data set.

    Args:
        path: .npz file, or folder of recordings.
    Returns:
        Plain values for JSON.
    """
    if not is_transitions(path):
        return describe(load_episodes(path))
    dataset = load_transitions(path)
    header, finished = header_of(dataset), dataset.finished
    names = dataset.about.origins
    return {
        "scenarios": [dataset.about.scenario],
        "backends": [dataset.about.backend],
        **header["counts"],
        "finished_episodes": int(finished.sum()),
        "driven_by": {name: int((dataset.origin == k).sum()) for k, name in enumerate(names)},
        "mean_return": float(dataset.returns[finished].mean()) if finished.any() else None,
        "references": header["references"],
        "observation_shapes": [list(dataset.about.observation_space.shape or ())],
        "actions": [str(dataset.about.action_space)],
        "made": [note["step"] for note in dataset.about.made],
    }


def import_to(dataset_id: str, out: str) -> list[Path]:
    """Write a Minari dataset as a recording, or, where it holds no scenes, as a transition data set.

    Args:
        dataset_id: Of the dataset.
        out: New folder, or .npz file for one episode or a transition data set.
    Returns:
        The files.
    Raises:
        UsageError: `out` exists, is a file although there are several episodes, or a folder although there are no
            scenes.
    """
    from experts.data.minari_datasets import load_dataset

    target = Path(out)
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise UsageError(f"{out!r} exists already: choose another OUT")
    check_output_folder(str(target.parent if target.suffix == ".npz" else out), "OUT")
    episodes = load_dataset(dataset_id)
    if isinstance(episodes, TransitionDataset):
        if target.suffix != ".npz":
            raise UsageError(f"dataset {dataset_id!r} holds no scenes, so it becomes a data set: name a file OUT.npz")
        return [save_transitions(target, episodes)]
    if target.suffix != ".npz":
        return [save_episode(target / f"episode-{k:04d}.npz", episode) for k, episode in enumerate(episodes)]
    if len(episodes) > 1:
        raise UsageError(f"dataset {dataset_id!r} holds {len(episodes)} episodes: name a folder, not {out!r}")
    return [save_episode(target, episodes[0])]


def export_from(recording: str, dataset_id: str) -> Path:
    """Write a recording, or a transition data set, as a new Minari dataset.

    Args:
        recording: .npz file, or folder of recordings.
        dataset_id: Of the new dataset.
    Returns:
        The dataset's folder.
    """
    from experts.data.minari_datasets import export_dataset
    from experts.data.minari_transitions import export_transitions

    if is_transitions(recording):
        return export_transitions(load_transitions(recording), dataset_id)
    return export_dataset(load_episodes(recording), dataset_id)


def _different(values: Any) -> list[Any]:
    """Every value once, in the order of first appearance."""
    seen: list[Any] = []
    for value in values:
        if value not in seen:
            seen.append(value)
    return seen
