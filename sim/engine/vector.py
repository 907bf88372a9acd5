"""The engine as a gymnasium.vector.VectorEnv, with all three autoreset modes."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from sim.engine.world import World
from sim.errors import UsageError, unknown

AUTORESET = {mode.value: mode for mode in AutoresetMode}
"""Modes by gymnasium's names: NextStep | SameStep | Disabled."""


class EngineVectorEnv(VectorEnv):
    """A `World` as gymnasium's SyncVectorEnv over as many single worlds would behave.

    NextStep (gymnasium's default): the step after an episode's end ignores its action and starts the next episode.
    SameStep: the first observation comes at once, the last one in infos["final_obs"]. Disabled: the caller resets, with
    options={"reset_mask": bool (N,)}. Infos hold `speed` (m/s), `crashed` and `backend`; at an episode's end also its
    outcome and summary.
    """

    backend = "engine"

    def __init__(self, scenario: str, world: World, autoreset: str = AutoresetMode.NEXT_STEP.value) -> None:
        if autoreset not in AUTORESET:
            raise unknown("autoreset mode", autoreset, AUTORESET)
        self.scenario, self.scenario_config, self.world = scenario, world.config, world
        self.num_envs = world.num_envs
        self.mode = AUTORESET[autoreset]
        self.metadata = {"autoreset_mode": self.mode, "render_modes": []}
        self.render_mode = None
        self.spec = None
        self.single_observation_space, self.single_action_space = world.observation_space, world.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)
        self._everybody = np.ones(self.num_envs, bool)
        self._backend = np.full(self.num_envs, self.backend, dtype=object)

    def reset(
        self, *, seed: int | list[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start all worlds, or those of options["reset_mask"]; an int seed gives world i the seed + i."""
        options = dict(options or {})
        mask = options.pop("reset_mask", self._everybody)
        if options:
            raise UsageError(f"reset options {sorted(options)}: only reset_mask is known, make new worlds otherwise")
        if not isinstance(mask, np.ndarray) or mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise UsageError(f"reset_mask {mask!r}: expected a bool array of shape ({self.num_envs},), not all False")
        seeds: list[int | None] | None = None if isinstance(seed, int) else seed
        if isinstance(seed, int):
            seeds = [seed + i for i in range(self.num_envs)]
        if seeds is not None and len(seeds) != self.num_envs:
            raise UsageError(f"{len(seeds)} seeds for {self.num_envs} worlds")
        rows = np.flatnonzero(mask)
        if seeds is not None:
            chosen = [int(row) for row in rows if seeds[row] is not None]
            self.world.seed(chosen, [seeds[row] for row in chosen])
        self.world.reset(rows)
        self._ended[rows] = False
        return self.world.obs.copy(), self._infos(mask)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One decision of every world. Returns copies: observations, rewards float64, terminations, truncations."""
        world, restarted = self.world, self._ended
        if self.mode == AutoresetMode.DISABLED and restarted.any():
            raise UsageError(f"worlds {np.flatnonzero(restarted).tolist()} have ended: reset them with a reset_mask")
        world.step(actions)
        if restarted.any():
            world.reset(np.flatnonzero(restarted))
            world.rewards[restarted] = 0.0
        results = world.rewards.copy(), world.terminated.copy(), world.truncated.copy()
        ended = world.terminated | world.truncated
        if self.mode == AutoresetMode.SAME_STEP and ended.any():
            infos = self._same_step(ended)
        else:
            self._ended = ended
            infos = self._infos(self._everybody) | self._final_infos(ended)
        return world.obs.copy(), *results, infos

    def _same_step(self, ended: np.ndarray) -> dict[str, Any]:
        """Note how the episodes ended and start the next ones."""
        last = np.full(self.num_envs, None, dtype=object)
        for i in np.flatnonzero(ended):
            last[i] = self.world.obs[i].copy()
        final = self._infos(ended) | self._final_infos(ended)
        self.world.reset(np.flatnonzero(ended))
        infos = {"final_obs": last, "_final_obs": ended.copy(), "final_info": final, "_final_info": ended.copy()}
        return infos | self._infos(self._everybody)

    def _infos(self, mask: np.ndarray) -> dict[str, Any]:
        world = self.world
        backend = self._backend if mask.all() else np.array([self.backend if own else None for own in mask], object)
        columns = {"speed": world.speeds * mask, "crashed": world.crashed & mask, "backend": backend}
        return columns | {f"_{name}": mask.copy() for name in columns}

    def _final_infos(self, ended: np.ndarray) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(ended):
            infos = self._add_info(infos, self.world.final_info(int(i)), int(i))
        return infos

    def action_masks(self) -> np.ndarray:
        """bool (N, A): legal actions of every world now."""
        return self.world.masks.copy()

    def close_extras(self, **kwargs: Any) -> None:
        pass
