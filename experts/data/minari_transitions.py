"""Transition data sets as Minari datasets, and any Minari dataset of plain arrays as a transition data set.

Minari's own columns hold observations, actions, rewards and ends; `infos` hold what it has no place for, and the
metadata the data set's header. Reference returns are `ref_min_score` and `ref_max_score`, with which
`minari.get_normalized_score` works.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from experts.data.minari_store import minari_module, write_dataset
from experts.data.transition_files import header_of, info_of
from experts.data.transitions import (
    LABELS,
    NO_ORIGIN,
    NO_SEED,
    DatasetInfo,
    References,
    StateLabels,
    TransitionDataset,
)
from sim.errors import UsageError
from sim.ids import NAMESPACE
from sim.scenarios import GYM

HEADER, SEEDS = "lgdrl_transitions", "lgdrl_seeds"
"""Keys of the metadata."""
LEGAL = "legal"
PREFIX = "lgdrl_"
"""Of our columns in `infos`."""


def export_transitions(dataset: TransitionDataset, dataset_id: str) -> Path:
    """Write a data set as the new local Minari dataset `dataset_id`.

    An episode that was broken off counts as truncated.

    Args:
        dataset: Of whole episodes: no transition was taken out before the last one of an episode.
        dataset_id: A new one, e.g. "pendulum/medium-v0".

    Returns:
        The dataset's folder.

    Raises:
        UsageError: Minari is not installed, the id is bad or taken, or transitions are missing.
    """
    minari, about = minari_module(), dataset.about
    starts = np.searchsorted(dataset.episodes, np.arange(len(dataset.seeds)))
    if not len(dataset) or (dataset.steps != np.arange(len(dataset)) - starts[dataset.episodes]).any():
        raise UsageError(f"cannot export {dataset_id!r}: transitions are missing in its episodes; export it whole")
    if not about.scenario:
        raise UsageError(f"cannot export {dataset_id!r}: the data set does not say of which scenario it is")
    ends = [*starts[1:].tolist(), len(dataset)]
    scores = {}
    if about.references is not None:
        scores = {"ref_min_score": about.references.random, "ref_max_score": about.references.expert}
        scores["num_episodes_average_score"] = about.references.episodes
    return write_dataset(
        dataset_id,
        about.scenario,
        about.scenario_config,
        [_buffer(minari, dataset, k, a, b) for k, (a, b) in enumerate(zip(starts.tolist(), ends, strict=True))],
        {HEADER: json.dumps(header_of(dataset)), SEEDS: dataset.seeds.tolist()},
        algorithm_name=", ".join(about.origins),
        description=f"{len(dataset)} transitions of scenario {about.scenario} ({', '.join(about.origins)})",
        **scores,
    )


def transitions_in(dataset: Any, data: Sequence[Any], name: str) -> TransitionDataset:
    """What a Minari dataset holds, as a transition data set.

    Args:
        dataset: Minari's.
        data: Its episodes.
        name: Its id.

    Raises:
        ValueError: It holds something else than one array per observation and action, or was changed.
    """
    actions = dataset.action_space
    discrete = isinstance(actions, spaces.Discrete)
    if not isinstance(dataset.observation_space, spaces.Box) or any(
        not isinstance(each.observations, np.ndarray) for each in data
    ):
        raise ValueError("its observations have several parts, choose one with plain arrays")
    data = [each for each in data if len(each.rewards)]
    own = json.loads(dataset.storage.metadata.get(HEADER, "null"))
    about = _foreign_info(dataset, name) if own is None else info_of(own)
    lengths = [len(each.rewards) for each in data]
    terminated = np.concatenate([each.terminations for each in data]).astype(bool)
    truncated = np.concatenate([each.truncations for each in data]).astype(bool) & ~terminated
    count, lasts = len(terminated), np.cumsum(lengths) - 1
    truncated[lasts] |= ~terminated[lasts]
    seeds = dataset.storage.metadata.get(SEEDS, [])
    known = seeds if own is not None and len(seeds) == len(data) else [NO_SEED] * len(data)
    origin = np.zeros(count, np.int16) if own is None else _column(data, "origin")
    masks = [_legal(each, int(actions.n)) for each in data] if discrete else []
    labelled = own is not None and PREFIX + "labelled" in (data[0].infos or {})
    dtype = dataset.observation_space.dtype
    found = TransitionDataset(
        about=about,
        observations=np.concatenate([each.observations[:-1] for each in data]).astype(dtype),
        next_observations=np.concatenate([each.observations[1:] for each in data]).astype(dtype),
        actions=np.concatenate([each.actions for each in data]).astype(np.int64 if discrete else np.float32),
        rewards=np.concatenate([each.rewards for each in data]).astype(np.float32),
        terminated=terminated,
        truncated=truncated,
        episodes=np.repeat(np.arange(len(data)), lengths),
        steps=np.concatenate([np.arange(length) for length in lengths]),
        origin=origin,
        seeds=np.array(known, np.int64),
        legal=np.concatenate([rows[:-1] for rows in masks]) if discrete else None,
        next_legal=np.concatenate([rows[1:] for rows in masks]) if discrete else None,
        labels=StateLabels(*(_column(data, column) for column in LABELS)) if labelled else None,
    )
    if own is not None and own["counts"] != header_of(found)["counts"]:
        raise ValueError(f"it holds {header_of(found)['counts']}, its metadata counts {own['counts']}: export it again")
    return found


def _buffer(minari: Any, dataset: TransitionDataset, number: int, start: int, end: int) -> Any:
    """Transitions `start` to `end` as an episode of Minari, which has a row more of observations and infos."""
    infos = {PREFIX + "origin": np.append(dataset.origin[start:end], np.int16(NO_ORIGIN))}
    if dataset.legal is not None and dataset.next_legal is not None:
        infos[LEGAL] = np.concatenate([dataset.legal[start:end], dataset.next_legal[end - 1 : end]])
    if dataset.labels is not None:
        for name, field in LABELS.items():
            values = getattr(dataset.labels, field)[start:end]
            infos[PREFIX + name] = np.concatenate([values, np.zeros_like(values[:1])])
    truncated = dataset.truncated[start:end].copy()
    truncated[-1] |= not dataset.terminated[end - 1]
    return minari.data_collector.EpisodeBuffer(
        id=number,
        seed=None if dataset.seeds[number] == NO_SEED else int(dataset.seeds[number]),
        observations=np.concatenate([dataset.observations[start:end], dataset.next_observations[end - 1 : end]]),
        actions=dataset.actions[start:end],
        rewards=dataset.rewards[start:end],
        terminations=dataset.terminated[start:end],
        truncations=truncated,
        infos=infos,
    )


def _foreign_info(dataset: Any, name: str) -> DatasetInfo:
    """What a dataset of somebody else says about itself."""
    metadata, spec = dataset.storage.metadata, dataset.env_spec
    scenario = "" if spec is None else spec.id.removeprefix(f"{NAMESPACE}/")
    if spec is not None and not spec.id.startswith(f"{NAMESPACE}/"):
        scenario = GYM + scenario
    low, high = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    scored = low is not None and high is not None and low != high
    episodes = int(metadata.get("num_episodes_average_score", 0))
    return DatasetInfo(
        scenario=scenario,
        backend="",
        scenario_config={},
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        origins=(str(metadata.get("algorithm_name") or "unknown"),),
        made=({"step": "import", "dataset": name},),
        references=References(float(low), float(high), "unknown", episodes) if scored else None,
    )


def _column(data: Sequence[Any], name: str) -> np.ndarray:
    """One of our columns; Minari's rows of it are one more than the transitions."""
    return np.concatenate([np.asarray(each.infos[PREFIX + name])[:-1] for each in data])


def _legal(data: Any, actions: int) -> np.ndarray:
    """bool (T + 1, A); all actions are legal where the dataset does not say."""
    stated = np.asarray((data.infos or {}).get(LEGAL, ()))
    shape = (len(data.rewards) + 1, actions)
    return stated.astype(bool) if stated.shape == shape else np.ones(shape, bool)
