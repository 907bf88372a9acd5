"""A safety mask around environments: actions that the scene's safety check calls unsafe are no longer legal.

As an ablation, in training and test alike: it is the rule's gap test at work, not what the policy has learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experts.safety import unsafe_actions
from sim.actions import MetaAction
from sim.env import Branches, DrivingVecEnv
from sim.scene import Scene
from sim.view import Views


def safe_masks(views: Views, legal: np.ndarray) -> np.ndarray:
    """bool (R, A): the legal actions that are safe; where none is, braking, or else every legal action.

    Args: what R egos see; bool (R, A).
    """
    masks = legal & ~unsafe_actions(views)
    stuck = ~masks.any(axis=1)
    masks[stuck] = legal[stuck]
    if MetaAction.SLOWER in views.manoeuvres:
        braking = views.manoeuvres.index(MetaAction.SLOWER)
        brakes = stuck & legal[:, braking]
        masks[brakes] = False
        masks[brakes, braking] = True
    return masks


class ShieldedVecEnv(DrivingVecEnv):
    """`envs` with the masks of `safe_masks`."""

    def __init__(self, envs: DrivingVecEnv) -> None:
        self.envs = envs
        self.scenario = envs.scenario
        self.backend = envs.backend
        self.scenario_config = envs.scenario_config
        self.exact_state = envs.exact_state
        self.render_mode = envs.render_mode
        super().__init__(envs.num_envs, envs.observation_space, envs.action_space)
        self._masks: np.ndarray | None = None

    def action_masks(self) -> np.ndarray:
        if self._masks is None:
            self._masks = safe_masks(self.envs.views(range(self.num_envs)), self.envs.action_masks())
        return self._masks.copy()

    def reset(self) -> Any:
        self._masks = None
        obs = self.envs.reset()
        self.reset_infos = self.envs.reset_infos
        return obs

    def reset_to(self, seeds: Sequence[int]) -> np.ndarray:
        self._masks = None
        return self.envs.reset_to(seeds)

    def step_async(self, actions: np.ndarray) -> None:
        self.envs.step_async(actions)

    def step_wait(self) -> Any:
        self._masks = None
        stepped = self.envs.step_wait()
        self.reset_infos = self.envs.reset_infos
        return stepped

    def scenes(self, indices: Sequence[int]) -> list[Scene]:
        return self.envs.scenes(indices)

    def views(self, indices: Sequence[int]) -> Views:
        return self.envs.views(indices)

    def branch(self, index: int, plans: np.ndarray) -> Branches:
        return self.envs.branch(index, plans)

    def get_state(self) -> Any:
        return self.envs.get_state()

    def set_state(self, state: Any) -> None:
        self._masks = None
        self.envs.set_state(state)

    def set_options(self, options: Any = None) -> None:
        self.envs.set_options(options)

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        return self.envs.seed(seed)

    def close(self) -> None:
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return self.envs.get_attr(attr_name, indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self.envs.set_attr(attr_name, value, indices)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return self.envs.env_method(method_name, *args, indices=indices, **kwargs)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return self.envs.env_is_wrapped(wrapper_class, indices)
