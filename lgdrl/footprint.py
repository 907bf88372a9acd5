"""What a run will need of the machine's memory, estimated before anything is made (see `lgdrl.memory`)."""

from __future__ import annotations

import dataclasses
import itertools
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

import sim
from lgdrl.config import RunConfig, make_envs
from lgdrl.memory import PER_EPISODE
from sim.config import resolve
from sim.env import ScenarioVecEnv

PER_WORKER = 150 << 20
"""Bytes of a simulator's process: Python with its packages."""
PER_OBJECT = 8
"""Objects in memory take about so many times the bytes that they are saved in."""
PER_TRANSITION = 4 * 4 + 2 * 8 + 3 + 8
"""Bytes of a stored transition beside observations, actions and labels, with its place in the queues of labels."""
TRAINED = 4
"""Copies of a parameter that is trained with Adam: itself, its gradient, two moments."""


def run_memory(config: RunConfig) -> dict[str, int]:
    """Bytes that the large parts of a run will take.

    Args:
        config: The resolved config.
    Returns:
        Bytes by setting; rough, and not less than half of what is used.
    """
    if not config.method.needs.actions:
        return _language_model(config.strategy_options.get("model"))
    if not _is_local(config):
        return {}
    envs = make_envs(_one(config), 1)
    try:
        needs = {
            "num_envs": config.num_envs * _bytes_of_env(envs) + min(config.workers, config.num_envs) * PER_WORKER,
            "evaluate_episodes": config.evaluate_episodes * PER_EPISODE if config.evaluate_every else 0,
        }
        return needs | _learner(config.learner_options, envs.observation_space, envs.action_space)
    finally:
        envs.close()


def _is_local(config: RunConfig) -> bool:
    """Whether making an environment starts or reaches no server."""
    scenario = sim.get(config.scenario)
    values = resolve(scenario.defaults, config.scenario_config, "scenario_config")
    return scenario.backend(config.backend, values)[1].max_envs is None


def _one(config: RunConfig) -> RunConfig:
    return dataclasses.replace(config, num_envs=1, workers=0)


def _bytes_of_env(envs: ScenarioVecEnv) -> int:
    """Of one environment, by the size of its saved state where that is all of it."""
    if not envs.exact_state:
        return 1 << 16
    envs.reset()
    return len(pickle.dumps(envs.get_state())) * PER_OBJECT


def _learner(options: Mapping[str, Any], observations: spaces.Space, actions: spaces.Space) -> dict[str, int]:
    """Replay buffer, networks and batches of a learner whose settings have the usual names."""
    inputs = math.prod(observations.shape or ())
    wide = int(actions.n) if isinstance(actions, spaces.Discrete) else math.prod(actions.shape or ())
    stored = 2 * inputs * np.dtype(observations.dtype or np.float32).itemsize + PER_TRANSITION
    stored += wide * (2 + 4) if isinstance(actions, spaces.Discrete) else wide * 4 * 3
    hidden = options.get("hidden") or ()
    sizes = [inputs, *hidden, wide] if isinstance(hidden, Sequence) else [inputs, wide]
    parameters = sum((before + 1) * after for before, after in itertools.pairwise(sizes))
    return {
        "learner_options.buffer_size": int(options.get("buffer_size") or 0) * stored,
        "learner_options.hidden": parameters * 4 * (3 * TRAINED + 2),  # actor and two critics, two targets
        "learner_options.batch_size": int(options.get("batch_size") or 0) * (stored + 4 * 6 * sum(sizes)),
    }


def _language_model(model: Any) -> dict[str, int]:
    """Parameters of a transformer and of its frozen reference."""
    if not isinstance(model, Mapping):
        return {}
    width, layers = int(model.get("width", 0)), int(model.get("layers", 0))
    parameters = layers * 13 * width * width + width * (int(model.get("vocab_size", 0)) + int(model.get("context", 0)))
    return {"strategy_options.model": parameters * 4 * (TRAINED + 1)}
