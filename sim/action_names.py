"""Names of the actions of gymnasium's environments, for people. Sources: the environments' own documentation."""

from __future__ import annotations

import gymnasium as gym
from gymnasium import spaces

COMPASS = ("Down", "Up", "Right", "Left")
DISCRETE = {
    "Acrobot": ("Left", "Off", "Right"),
    "Blackjack": ("Stick", "Hit"),
    "CartPole": ("Left", "Right"),
    "CliffWalking": ("Up", "Right", "Down", "Left"),
    "FrozenLake": ("Left", "Down", "Right", "Up"),
    "FrozenLake8x8": ("Left", "Down", "Right", "Up"),
    "LunarLander": ("Off", "Left", "Main", "Right"),
    "MountainCar": ("Left", "Off", "Right"),
    "Taxi": (*COMPASS, "Pick up", "Drop off"),
}
"""By the name of the environment without its version."""
CONTINUOUS = {
    "BipedalWalker": ("hip 1", "knee 1", "hip 2", "knee 2"),
    "CarRacing": ("steering", "gas", "brake"),
    "LunarLander": ("main", "lateral"),
    "LunarLanderContinuous": ("main", "lateral"),
    "MountainCarContinuous": ("force",),
    "Pendulum": ("torque",),
}
"""Components of continuous actions."""


def action_names(env_id: str, env: gym.Env) -> tuple[str, ...]:
    """Names of discrete actions, or of the components of continuous ones.

    Args:
        env_id: gymnasium's id, e.g. CartPole-v1.
        env: The environment; one of MuJoCo names its actuated joints.
    Returns:
        The names; empty where nothing is known.
    """
    name = env_id.rpartition("-v")[0] or env_id
    known = DISCRETE if isinstance(env.action_space, spaces.Discrete) else CONTINUOUS
    return known.get(name) or _joints(env)


def _joints(env: gym.Env) -> tuple[str, ...]:
    """The joints that the actuators of a MuJoCo model move; empty for other environments."""
    model = getattr(env.unwrapped, "model", None)
    joints = getattr(model, "actuator_trnid", None)
    if model is None or joints is None:
        return ()
    return tuple(model.joint(int(joint)).name.removesuffix("_joint").replace("_", " ") for joint in joints[:, 0])
