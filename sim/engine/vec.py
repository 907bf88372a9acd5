"""The engine behind SB3's VecEnv: same-step reset, copies of observations, infos only where an episode ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.engine.batch import EnvBatch
from sim.env import Branches, DrivingVecEnv
from sim.scene import Scene
from sim.view import Views


class EngineVecEnv(DrivingVecEnv):
    """A batch as a VecEnv. Environment i starts from seed + i and then continues its own random stream."""

    backend = "engine"

    def __init__(self, scenario: str, batch: EnvBatch, seed: int | None = None) -> None:
        """Wrap a batch.

        Args:
            scenario: Registry name.
            batch: The batch, owned by this object from now on.
            seed: Environment i starts from seed + i; None: from random seeds.
        """
        self.scenario = scenario
        self.scenario_config = batch.config
        self.batch = batch
        self.render_mode = None
        super().__init__(batch.num_envs, batch.observation_space, batch.action_space)
        self._running = {"backend": self.backend}
        self._actions = np.zeros(batch.num_envs, np.int64)
        self._started = time.perf_counter()
        self._streams_fresh = False
        self.seed(seed)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        seeds = [None if seed is None else seed + i for i in range(self.num_envs)]
        self.batch.seed(range(self.num_envs), seeds)
        return seeds

    def reset(self) -> np.ndarray:
        self.batch.reset()
        return self.batch.obs.copy()

    def reset_to(self, seeds: Sequence[int]) -> np.ndarray:
        self.batch.seed(range(self.num_envs), list(seeds))
        return self.reset()

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = np.asarray(actions, np.int64)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        batch = self.batch
        batch.step(self._actions)
        rewards = batch.rewards.astype(np.float32)
        dones = batch.terminated | batch.truncated
        infos: list[dict[str, Any]] = [self._running] * self.num_envs
        ended = np.flatnonzero(dones)
        for i in ended:
            infos[i] = self._final_info(int(i))
        if ended.size:
            batch.reset(ended)
        return batch.obs.copy(), rewards, dones, infos

    def _final_info(self, i: int) -> dict[str, Any]:
        summary = self.batch.summary(i)
        elapsed = round(time.perf_counter() - self._started, 6)
        return {
            "backend": self.backend,
            "terminal_observation": self.batch.obs[i].copy(),
            "terminal_action_mask": self.batch.masks[i].copy(),
            "TimeLimit.truncated": bool(self.batch.truncated[i] and not self.batch.terminated[i]),
            "episode": {"r": summary.episode_return, "l": summary.steps, "t": elapsed},
            "crashed": summary.crashed,
            **self.batch.final_info(i),
        }

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        return [self.batch.scene(int(i)) for i in indices]

    def views(self, indices: Sequence[int]) -> Views:
        return self.batch.views(np.asarray(indices, np.int64))

    def action_masks(self) -> np.ndarray:
        return self.batch.masks.copy()

    def branch(self, index: int, plans: np.ndarray) -> Branches:
        return self.batch.branch(index, plans)

    def get_state(self) -> Any:
        return self.batch.get_state(), self.batch.obs.copy(), self.batch.masks.copy()

    def set_state(self, state: Any) -> None:
        arrays, obs, masks = state
        self.batch.set_state(arrays)
        self.batch.obs[...] = obs
        self.batch.masks[...] = masks

    def close(self) -> None:
        pass

    # VecEnv's remote calls: all environments share this one object.
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        if method_name == "action_masks":
            return [self.batch.masks[i].copy() for i in self._get_indices(indices)]
        raise AttributeError(f"engine environments have no method {method_name!r} of their own")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * len(list(self._get_indices(indices)))
