"""Minari datasets (https://minari.farama.org): recordings out and in, and datasets of others to learn from.

An exported dataset is complete for any reader: observations, actions, rewards, ends, `infos["legal"]`, and a spec from
which `recover_environment()` makes the scenario again with the same config, wherever this package is installed. What
Minari has no place for (scenes, who drove, what was proposed) travels along as `infos["lgdrl_recording"]`: uint8
(T + 1, k), the recording's file behind its length (8 bytes, little-endian), padded with zeros.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

import sim
from experts.data.demonstrations import Demonstrations
from experts.data.episodes import Episode, from_bytes, to_bytes
from experts.provider import Status
from sim.errors import UsageError

RECORDING = "lgdrl_recording"
LEGAL = "legal"


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
    minari = _minari()
    folder = _new_folder(dataset_id)
    first = episodes[0]
    if any((each.scenario, each.scenario_config) != (first.scenario, first.scenario_config) for each in episodes):
        raise UsageError(f"cannot export {dataset_id!r}: episodes of different scenarios or configs; keep one kind")
    if any(not each.turns for each in episodes):
        raise UsageError(f"cannot export {dataset_id!r}: an episode has no decision; remove its file")
    if isinstance(first.last_obs, dict):
        raise UsageError(f"cannot export {dataset_id!r}: observations of several parts; choose another scenario")
    env = sim.make(first.scenario, config=first.scenario_config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                dataset_id=dataset_id,
                buffer=[_buffer(minari, k, episode) for k, episode in enumerate(episodes)],
                env=env,
                algorithm_name=first.driver,
                description=f"{len(episodes)} episodes of scenario {first.scenario} ({first.driver})",
                data_format="hdf5",
                jpeg_encoding=False,
            )
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise UsageError(f"cannot write dataset {dataset_id!r}: {error}") from None
    finally:
        env.close()
    return folder


def import_dataset(dataset_id: str) -> list[Episode]:
    """The recordings that a local dataset was exported from.

    Args:
        dataset_id: Its id.

    Raises:
        UsageError: It is missing, unreadable, changed since, or holds no recordings.
    """
    found = load_dataset(dataset_id)
    if isinstance(found, Demonstrations):
        raise UsageError(
            f"dataset {dataset_id!r} holds no scenes, so it cannot become a recording: "
            f"train with it as it is, demonstrations=minari:{dataset_id}"
        )
    return found


def load_dataset(dataset_id: str) -> list[Episode] | Demonstrations:
    """The recordings in a local dataset; of one that holds none, its decisions, every one a demonstration.

    Args:
        dataset_id: Its id.

    Raises:
        UsageError: It is missing, unreadable or changed since.
    """
    minari = _minari()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = minari.load_dataset(dataset_id)
            data = list(dataset.iterate_episodes())
    except FileNotFoundError:
        raise UsageError(f"no Minari dataset {dataset_id!r} here: see `minari list local`, or download it") from None
    except Exception as error:  # Minari and h5py raise almost anything for a bad id or a damaged file
        raise UsageError(
            f"cannot read Minari dataset {dataset_id!r} ({type(error).__name__}): check its name"
        ) from None
    with_recording = [each for each in data if RECORDING in (each.infos or {})]
    if not data or len(with_recording) not in (0, len(data)):
        what = "holds recordings for some of its episodes only" if data else "holds no episode"
        raise UsageError(f"Minari dataset {dataset_id!r} {what}: choose another one")
    if with_recording:
        return [_recording(each, f"{dataset_id}, episode {k}") for k, each in enumerate(data)]
    try:
        return _foreign(data, dataset.action_space, f"dataset {dataset_id!r}")
    except (ValueError, TypeError, IndexError, KeyError) as error:
        raise UsageError(f"Minari dataset {dataset_id!r} cannot be learned from: {error}") from None


def _minari() -> Any:
    try:
        import h5py  # noqa: F401
        import minari
    except ImportError:
        raise UsageError("Minari datasets need an extra package: pip install lgdrl[minari]") from None
    return minari


def _new_folder(dataset_id: str) -> Path:
    from minari.dataset.minari_dataset import parse_dataset_id
    from minari.storage.datasets_root_dir import get_dataset_path

    try:
        parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise UsageError(f"dataset id {dataset_id!r}: write it as name-v0 or folder/name-v0") from None
    folder = Path(get_dataset_path(dataset_id))
    if folder.exists():
        raise UsageError(f"dataset {dataset_id!r} exists already: choose another id, e.g. with a higher version")
    return folder


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


def _foreign(data: Sequence[Any], space: spaces.Space, source: str) -> Demonstrations:
    """Every decision a demonstration; all actions legal where the dataset does not say."""
    if not isinstance(space, spaces.Discrete) or space.start != 0:
        raise ValueError(f"its action space is {space}, choose one with discrete actions that count from 0")
    if any(not isinstance(each.observations, np.ndarray) for each in data):
        raise ValueError("its observations have several parts, choose one with plain arrays")
    data = [each for each in data if len(each.rewards)]
    lengths = [len(each.rewards) for each in data]
    actions = np.concatenate([each.actions for each in data]).astype(np.int64)
    legal = [_legal(each, int(space.n)) for each in data]
    ends = np.cumsum(lengths) - 1
    terminated = np.concatenate([each.terminations for each in data]).astype(bool)
    dones = terminated | np.concatenate([each.truncations for each in data]).astype(bool)
    dones[ends] = True
    masks = np.concatenate([rows[:-1] for rows in legal])
    if not masks[np.arange(len(actions)), actions].all():
        raise ValueError("it holds actions that are not legal, choose another one")
    return Demonstrations(
        source=source,
        obs=np.concatenate([each.observations[:-1] for each in data]),
        next_obs=np.concatenate([each.observations[1:] for each in data]),
        legal=masks,
        next_legal=np.concatenate([rows[1:] for rows in legal]),
        actions=actions,
        labels=actions,
        probs=np.zeros((len(actions), int(space.n))),
        statuses=(Status.OK,) * len(actions),
        driven=np.ones(len(actions), bool),
        learner_actions=actions,
        rewards=np.concatenate([each.rewards for each in data]).astype(float),
        dones=dones,
        terminated=terminated,
        episodes=np.repeat(np.arange(len(data)), lengths),
        steps=np.concatenate([np.arange(length) for length in lengths]),
    )


def _legal(data: Any, actions: int) -> np.ndarray:
    """bool (T + 1, A)"""
    stated = np.asarray((data.infos or {}).get(LEGAL, ()))
    shape = (len(data.rewards) + 1, actions)
    return stated.astype(bool) if stated.shape == shape else np.ones(shape, bool)
