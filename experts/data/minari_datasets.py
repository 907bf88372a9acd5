"""Minari datasets (https://minari.farama.org): recordings out and in, and datasets of others to learn from.

An exported dataset is complete for any reader: observations, actions, rewards, ends, `infos["legal"]`, and a spec from
which `recover_environment()` makes the scenario again with the same config, wherever this package is installed. What
Minari has no place for (scenes, who drove, what was proposed) travels along as `infos["lgdrl_recording"]`: uint8
(T + 1, k), the recording's file behind its length (8 bytes, little-endian), padded with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experts.data.episodes import Episode, from_bytes, to_bytes
from experts.data.minari_store import minari_module, new_folder, read_dataset, write_dataset
from experts.data.minari_transitions import LEGAL, transitions_in
from experts.data.transitions import TransitionDataset
from sim.errors import UsageError

RECORDING = "lgdrl_recording"


def export_dataset(episodes: Sequence[Episode], dataset_id: str) -> Path:
    """Write episodes of one scenario as the new local dataset `dataset_id`, e.g. "lane-change/person-v0".

    An episode that was broken off counts as truncated.

    Args:
        episodes: At least one.
        dataset_id: A new one.

    Returns:
        The dataset's folder.

    Raises:
        UsageError: Minari is not installed, the id is bad or taken, or episodes are of several scenarios or empty.
    """
    minari = minari_module()
    new_folder(dataset_id)
    first = episodes[0]
    if any((each.scenario, each.scenario_config) != (first.scenario, first.scenario_config) for each in episodes):
        raise UsageError(f"cannot export {dataset_id!r}: episodes of different scenarios or configs; keep one kind")
    if any(not each.turns for each in episodes):
        raise UsageError(f"cannot export {dataset_id!r}: an episode has no decision; remove its file")
    if isinstance(first.last_obs, dict):
        raise UsageError(f"cannot export {dataset_id!r}: observations of several parts; choose another scenario")
    return write_dataset(
        dataset_id,
        first.scenario,
        first.scenario_config,
        [_buffer(minari, k, episode) for k, episode in enumerate(episodes)],
        {},
        algorithm_name=first.driver,
        description=f"{len(episodes)} episodes of scenario {first.scenario} ({first.driver})",
    )


def import_dataset(dataset_id: str) -> list[Episode]:
    """The recordings that a local dataset was exported from.

    Args:
        dataset_id: Its id.

    Raises:
        UsageError: It is missing, unreadable, changed since, or holds no recordings.
    """
    found = load_dataset(dataset_id)
    if isinstance(found, TransitionDataset):
        raise UsageError(
            f"dataset {dataset_id!r} holds no scenes, so it cannot become a recording: "
            f"train with it as it is, demonstrations=minari:{dataset_id}"
        )
    return found


def load_dataset(dataset_id: str) -> list[Episode] | TransitionDataset:
    """The recordings in a local dataset; of one that holds none, its transitions.

    Args:
        dataset_id: Its id.

    Raises:
        UsageError: It is missing, unreadable or changed since.
    """
    dataset, data = read_dataset(dataset_id)
    with_recording = [each for each in data if RECORDING in (each.infos or {})]
    if not data or len(with_recording) not in (0, len(data)):
        what = "holds recordings for some of its episodes only" if data else "holds no episode"
        raise UsageError(f"Minari dataset {dataset_id!r} {what}: choose another one")
    if with_recording:
        return [_recording(each, f"{dataset_id}, episode {k}") for k, each in enumerate(data)]
    try:
        return transitions_in(dataset, data, dataset_id)
    except (ValueError, TypeError, IndexError, KeyError) as error:
        words = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"Minari dataset {dataset_id!r} cannot be learned from: {words:.200}") from None


def _buffer(minari: Any, number: int, episode: Episode) -> Any:
    turns = episode.turns
    rows = len(turns) + 1
    ends = np.zeros((2, len(turns)), bool)
    ends[:, -1] = episode.terminated, episode.truncated or not episode.terminated
    content = to_bytes(episode)
    stamped = np.frombuffer(len(content).to_bytes(8, "little") + content, np.uint8)
    padded = np.zeros(rows * -(-len(stamped) // rows), np.uint8)
    padded[: len(stamped)] = stamped
    return minari.data_collector.EpisodeBuffer(
        id=number,
        seed=episode.seed,
        observations=np.stack([*(turn.obs for turn in turns), episode.last_obs]),
        actions=np.stack([turn.action for turn in turns]),
        rewards=np.array([turn.reward for turn in turns], float),
        terminations=ends[0],
        truncations=ends[1],
        infos={
            LEGAL: np.stack([*(turn.legal for turn in turns), episode.last_legal]),
            RECORDING: padded.reshape(rows, -1),
        },
    )


def _recording(data: Any, name: str) -> Episode:
    """The recording inside an episode of a dataset; it must tell the same as the dataset does."""
    content = np.asarray(data.infos[RECORDING], np.uint8).tobytes()
    episode = from_bytes(content[8 : 8 + int.from_bytes(content[:8], "little")], name)
    same = (
        np.array_equal(data.observations, np.stack([*(turn.obs for turn in episode.turns), episode.last_obs]))
        and np.array_equal(data.actions, np.stack([turn.action for turn in episode.turns]))
        and np.array_equal(data.rewards, [turn.reward for turn in episode.turns])
    )
    if not same:
        raise UsageError(f"{name!r} was changed after it was recorded: export it again")
    return episode
