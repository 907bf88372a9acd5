"""What sessions show of their environment: the scenes of driving ones, pictures of all others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sim.env import DrivingEnv, DrivingVecEnv, ScenarioEnv, ScenarioVecEnv
from sim.picture import Camera, Shown, require_pictures
from sim.scene import Scene


class Stage:
    """The present state of one environment, as people see it.

    Args:
        env: The environment, or several of which the first is shown; without scenes: made with the render mode
            `sim.picture.MODE`.
    Raises:
        UsageError: It has neither scenes nor pictures.
    """

    def __init__(self, env: ScenarioEnv | ScenarioVecEnv) -> None:
        self.camera: Camera | None = None
        """Takes the pictures; None where there are scenes."""
        self._scene: Callable[[], Scene] | None = None
        if isinstance(env, DrivingEnv):
            self._scene = env.scene
        elif isinstance(env, DrivingVecEnv):
            self._scene = lambda: env.scenes([0])[0]
        else:
            self.camera = _camera(env)

    def look(self, step: int, legal: np.ndarray, rate: float | None = None) -> Shown:
        """The present state.

        Args:
            step: Decisions made in the episode.
            legal: Legal actions, bool (A,).
            rate: Most pictures per simulated second; None: one of every state.
        Raises:
            UsageError: The environment cannot be drawn.
        """
        if self._scene is not None:
            return self._scene()
        assert self.camera is not None
        return self.camera.take(step, legal, rate)


def _camera(env: ScenarioEnv | ScenarioVecEnv) -> Camera:
    require_pictures(env.scenario, env.metadata)
    if isinstance(env, ScenarioEnv):
        return Camera(env.scenario, env.action_space, env.action_names, env.metadata, env.render)
    names = env.get_attr("action_names", [0])[0]
    return Camera(env.scenario, env.action_space, names, env.metadata, lambda: env.get_images()[0])
