"""The engine behind SB3's VecEnv: same-step reset, copies of observations, new infos at every step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.env_util import is_wrapped

from sim.engine.batch import EnvBatch
from sim.engine.buffers import Observations
from sim.engine.single import EngineEnv, engine_metadata
from sim.env import Branches, DrivingVecEnv, refuse_options
from sim.errors import UsageError
from sim.scene import Scene
from sim.view import Views


class EngineVecEnv(DrivingVecEnv):
    """A batch as a VecEnv. Environment i starts from seed + i and then continues its own random stream.

    Infos as on highway-env: `speed`, `crashed`, `backend`, `TimeLimit.truncated`; at an episode's end what SB3, Monitor
    and this platform report. `env_method`, `get_attr` and `set_attr` reach the environments of the batch as
    `EngineEnv`s, which can do all but step alone.
    """

    backend = "engine"

    def __init__(self, scenario: str, batch: EnvBatch, seed: int | None = None, render_mode: str | None = None) -> None:
        """Wrap a batch.

        Args:
            scenario: Registry name.
            batch: The batch, owned by this object from now on.
            seed: Environment i starts from seed + i; None: from random seeds.
            render_mode: None | rgb_array | human.
        """
        self.scenario = scenario
        self.scenario_config = batch.config
        self.batch = batch
        self.envs = [EngineEnv(scenario, batch, render_mode, row) for row in range(batch.num_envs)]
        super().__init__(batch.num_envs, batch.observation_space, batch.action_space)
        self.metadata = engine_metadata(batch)
        self._actions = np.zeros_like(batch.last_actions)
        self._started = time.perf_counter()
        if seed is not None:
            self.seed(seed)

    def reset(self) -> Observations:
        """Start an episode in every environment, with the seeds set before (used once).

        Returns:
            Observations (N, ...), by key in a Dict space.
        Raises:
            UsageError: There are options, see `set_options`.
        """
        for options in self._options:
            refuse_options(options)
        rows = [i for i, seed in enumerate(self._seeds) if seed is not None]
        self.batch.seed(rows, [self._seeds[i] for i in rows])
        self._reset_seeds()
        self.batch.reset()
        self.reset_infos = self.batch.infos()
        return self.batch.observations()

    def reset_to(self, seeds: Sequence[int]) -> Observations:
        if len(seeds) != self.num_envs:
            raise UsageError(f"{len(seeds)} seeds for {self.num_envs} environments: give one each")
        self._seeds = [int(seed) for seed in seeds]
        return self.reset()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`.

        Args:
            actions: Integers, (N,), or continuous actions, (N, D).
        Raises:
            UsageError: Another number of actions, or one that does not exist.
            gymnasium.error.ResetNeeded: Before the first reset.
        """
        self.batch.require_started(slice(None), "step")
        self._actions = self.batch.actions.batch(actions, self.num_envs)

    def step_wait(self) -> tuple[Observations, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        batch = self.batch
        batch.step(self._actions)
        rewards = batch.rewards.astype(np.float32)
        dones = batch.terminated | batch.truncated
        infos = batch.infos({"TimeLimit.truncated": False})
        ended = np.flatnonzero(dones)
        if ended.size:
            for i in ended.tolist():
                infos[i] |= self._final_info(i)
            batch.reset(ended)
            for i in ended.tolist():
                self.reset_infos[i] = batch.info(i)
        return batch.observations(), rewards, dones, infos

    def _final_info(self, i: int) -> dict[str, Any]:
        summary = self.batch.summary(i)
        elapsed = round(time.perf_counter() - self._started, 6)
        return {
            "terminal_observation": self.batch.observation(i),
            "terminal_action_mask": self.batch.masks[i].copy(),
            "TimeLimit.truncated": bool(self.batch.truncated[i] and not self.batch.terminated[i]),
            "episode": {"r": summary.episode_return, "l": summary.steps, "t": elapsed},
            "crashed": summary.crashed,
            **self.batch.final_info(i),
        }

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        rows = self.existing(indices)
        self.batch.require_started(rows, "scenes")
        return [self.batch.scene(i) for i in rows]

    def views(self, indices: Sequence[int]) -> Views:
        rows = np.array(self.existing(indices), np.int64)
        self.batch.require_started(rows, "views")
        return self.batch.views(rows)

    def action_masks(self) -> np.ndarray:
        self.batch.require_started(slice(None), "action_masks")
        return self.batch.masks.copy()

    def branch(self, index: int, plans: np.ndarray) -> Branches:
        return self.envs[self.existing(index)[0]].branch(plans)

    def get_state(self) -> Any:
        batch = self.batch
        buffers = batch.flat_obs.copy(), batch.masks.copy(), batch.started.copy()
        return batch.get_state(), *buffers, list(self._seeds), list(self.reset_infos)

    def set_state(self, state: Any) -> None:
        """As in `DrivingVecEnv`.

        Raises:
            UsageError: The state is of another N or config.
        """
        arrays, obs, masks, started, seeds, infos = state
        batch = self.batch
        batch.set_state(arrays)
        batch.flat_obs[...] = np.reshape(obs, batch.flat_obs.shape)
        batch.masks[...], batch.started[...] = masks, started
        self._seeds, self.reset_infos = list(seeds), list(infos)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        return [env.render() for env in self.envs]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(attr_name) for i in self.existing(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        for i in self.existing(indices):
            setattr(self.envs[i], attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [self.envs[i].get_wrapper_attr(method_name)(*args, **kwargs) for i in self.existing(indices)]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [is_wrapped(self.envs[i], wrapper_class) for i in self.existing(indices)]
