"""The engine as a gymnasium.vector.VectorEnv, with all three autoreset modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sim.engine.batch import EnvBatch
from sim.engine.buffers import Observations
from sim.engine.single import EngineEnv, engine_metadata
from sim.errors import UsageError


class EngineVectorEnv(VectorEnv):
    """A batch that behaves as gymnasium's SyncVectorEnv over single environments does.

    NextStep (gymnasium's default): the step after an episode's end ignores its action and starts the next episode.
    SameStep: the first observation comes at once, the last one in infos["final_obs"]. Disabled: the caller resets, with
    options={"reset_mask": bool (N,)}. Infos hold `speed` (m/s), `crashed` and `backend`; at an episode's end also its
    outcome and summary.
    """

    backend = "engine"

    def __init__(
        self, scenario: str, batch: EnvBatch, autoreset: AutoresetMode | str, render_mode: str | None = None
    ) -> None:
        """Wrap a batch.

        Args:
            scenario: Registry name.
            batch: The batch, owned by this object from now on.
            autoreset: gymnasium's mode, or its name: NextStep | SameStep | Disabled.
            render_mode: None | rgb_array | human.
        """
        self.scenario, self.scenario_config, self.batch = scenario, batch.config, batch
        self.num_envs = batch.num_envs
        self.envs = [EngineEnv(scenario, batch, render_mode, row) for row in range(batch.num_envs)]
        self.mode = AutoresetMode(autoreset)
        self.metadata = engine_metadata(batch) | {"autoreset_mode": self.mode}
        self.render_mode = render_mode
        self.spec = None
        self.single_observation_space, self.single_action_space = batch.observation_space, batch.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)
        self._all = np.ones(self.num_envs, bool)
        self._backend = np.full(self.num_envs, self.backend, dtype=object)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Start all environments, or those of options["reset_mask"]; an int seed gives environment i the seed + i."""
        options = dict(options or {})
        mask = options.pop("reset_mask", self._all)
        if options:
            raise UsageError(f"reset options {sorted(options)}: only reset_mask is known")
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UsageError(f"reset_mask {mask!r}: expected a bool array of shape ({self.num_envs},), not all False")
        seeds: list[int | None] | None = None if isinstance(seed, int) else seed
        if isinstance(seed, int):
            seeds = [seed + i for i in range(self.num_envs)]
        if seeds is not None and len(seeds) != self.num_envs:
            raise UsageError(f"{len(seeds)} seeds for {self.num_envs} environments")
        rows = np.flatnonzero(mask)
        if seeds is not None:
            chosen = [int(row) for row in rows if seeds[row] is not None]
            self.batch.seed(chosen, [seeds[row] for row in chosen])
        self.batch.reset(rows)
        self._ended[rows] = False
        return self.batch.observations(), self._infos(mask)

    def step(self, actions: np.ndarray) -> tuple[Observations, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision of every batch. Returns copies: observations, rewards float64, terminations, truncations."""
        batch, restarted = self.batch, self._ended
        if self.mode == AutoresetMode.DISABLED and restarted.any():
            ended = np.flatnonzero(restarted).tolist()
            raise UsageError(f"environments {ended} have ended: reset them with a reset_mask")
        batch.step(actions)
        if restarted.any():
            batch.reset(np.flatnonzero(restarted))
            batch.rewards[restarted] = 0.0
        results = batch.rewards.copy(), batch.terminated.copy(), batch.truncated.copy()
        ended = batch.terminated | batch.truncated
        if self.mode == AutoresetMode.SAME_STEP and ended.any():
            infos = self._same_step(ended)
        else:
            self._ended = ended
            infos = self._infos(self._all) | self._final_infos(ended)
        return batch.observations(), *results, infos

    def _same_step(self, ended: np.ndarray) -> dict[str, Any]:
        """Note how the episodes ended and start the next ones."""
        last = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            last[i] = self.batch.observation(int(i))
        final = self._infos(ended) | self._final_infos(ended)
        self.batch.reset(np.flatnonzero(ended))
        infos = {"final_obs": last, "_final_obs": ended.copy(), "final_info": final, "_final_info": ended.copy()}
        return infos | self._infos(self._all)

    def _infos(self, mask: np.ndarray) -> dict[str, Any]:
        batch = self.batch
        backend = self._backend if mask.all() else np.array([self.backend if own else None for own in mask], object)
        columns = {"speed": batch.speeds * mask, "crashed": batch.crashed & mask, "backend": backend}
        return columns | {f"_{name}": mask.copy() for name in columns}

    def _final_infos(self, ended: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(ended):
            infos = self._add_info(infos, self.batch.final_info(int(i)), int(i))
        return infos

    def action_masks(self) -> np.ndarray:
        """Legal actions of every environment now, bool (N, A)."""
        self.batch.require_started(slice(None), "action_masks")
        return self.batch.masks.copy()

    def render(self) -> tuple[Any, ...]:
        """What `render` of each environment returns."""
        return tuple(env.render() for env in self.envs)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As SyncVectorEnv's: what a method of each environment returns, or the value of an attribute."""
        found = [env.get_wrapper_attr(name) for env in self.envs]
        return tuple(value(*args, **kwargs) if callable(value) else value for value in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of each environment."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment: to its own value of a list or tuple, or all to the same one."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        if len(each) != self.num_envs:
            raise UsageError(f"{len(each)} values of {name!r} for {self.num_envs} environments: give one each")
        for env, value in zip(self.envs, each, strict=True):
            setattr(env, name, value)

    def close_extras(self, **kwargs: Any) -> None:
        for env in self.envs:
            env.close()
