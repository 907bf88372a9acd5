"""Any gymnasium environment as a scenario: `gym:CartPole-v1`, `gym:LunarLander-v3`, ...

Observations that are no Box are flattened. An episode reports its return and length, and a success where the
environment has one (`is_success` in its last info). Where an environment can be pickled its state is exact; elsewhere a
resumed run begins new episodes. A state may build the classes that the environment's own pickle names, nothing else.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import EzPickle
from gymnasium.wrappers import FlattenObservation

from sim.action_names import action_names
from sim.env import ScenarioEnv
from sim.errors import UsageError, unknown
from sim.scenarios import Backend, Scenario
from sim.trust import trusted
from sim.unpickling import RestrictedUnpickler, names_of
from sim.vec import ScenarioEnvs

NEVER_BUILT = frozenset(sys.stdlib_module_names)
"""Packages whose classes a state may not build, even where the environment's own pickle does."""
PREFIX = "gym:"
BACKEND = "gymnasium"


@dataclass(frozen=True)
class GymConfig:
    """Settings of a gymnasium environment."""

    options: dict[str, Any] = field(default_factory=dict)  # keyword arguments of gymnasium.make


class GymScenarioEnv(ScenarioEnv):
    """One gymnasium environment behind the contract of scenarios.

    Args:
        scenario: Its scenario, `gym:ID`.
        config: Its config.
        render_mode: As gymnasium's.
    Raises:
        UsageError: gymnasium cannot make it, or its spaces cannot be learned in.
    """

    def __init__(self, scenario: str, config: GymConfig, render_mode: str | None = None) -> None:
        self.scenario, self.backend, self.scenario_config = scenario, BACKEND, config
        self.env = _make(scenario, config, render_mode)
        self.observation_space, self.action_space = self.env.observation_space, self.env.action_space
        self.metadata, self.render_mode = self.env.metadata, render_mode
        self.action_names = action_names(scenario.removeprefix(PREFIX), self.env)
        self.exact_state = _restorable(scenario, self.env)
        self._return, self._steps = 0.0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._return, self._steps = 0.0, 0
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._return += float(reward)
        self._steps += 1
        if terminated or truncated:
            summary: dict[str, Any] = {"episode_return": self._return, "steps": self._steps, "backend": BACKEND}
            if "is_success" in info:
                summary["success"] = bool(info["is_success"])
                summary["outcome"] = info["outcome"] = "success" if info["is_success"] else "failure"
            info["summary"] = summary
        return obs, float(reward), bool(terminated), bool(truncated), info

    def action_masks(self) -> np.ndarray:
        if self.env.has_wrapper_attr("action_masks"):
            return np.asarray(self.env.get_wrapper_attr("action_masks")(), bool)
        space = self.action_space
        return np.ones(int(space.n) if isinstance(space, spaces.Discrete) else space.shape or (), bool)

    def get_state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"return": self._return, "steps": self._steps}
        if self.exact_state:
            return state | {"pickle": _pickled(self.env)}
        return state | {"stream": self.env.unwrapped.np_random.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a `get_state` value. No code of its author runs.

        Args:
            state: The value.
        Raises:
            UsageError: It names something that this environment is not made of, or is damaged.
        """
        self._return, self._steps = state["return"], state["steps"]
        if self.exact_state:
            self.env = _restored(self.scenario, self.env, state["pickle"])
            self.env.unwrapped.render_mode = self.render_mode  # that of the saved one may have been another
        else:
            self.env.unwrapped.np_random.bit_generator.state = state["stream"]

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def _make(scenario: str, config: GymConfig, render_mode: str | None) -> gym.Env:
    name = scenario.removeprefix(PREFIX)
    if name not in gym.registry:
        raise unknown("gymnasium environment", name, (known for known in gym.registry if "/" not in known))
    try:
        env = gym.make(name, render_mode=render_mode, **config.options)
    except Exception as error:  # a constructor of a third party may raise anything
        words = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"scenario {scenario!r} cannot be made: {words[0]}") from None
    if not isinstance(env.observation_space, spaces.Box):
        env = FlattenObservation(env)
    space = env.action_space
    discrete = isinstance(space, spaces.Discrete) and space.start == 0
    if not discrete and not (isinstance(space, spaces.Box) and len(space.shape) == 1):
        raise UsageError(
            f"scenario {scenario!r} has actions {space}: only Discrete ones that count from 0 and Box ones of one "
            "dimension can be learned"
        )
    return env


def _restorable(scenario: str, env: gym.Env) -> bool:
    """Whether an environment's pickle can be loaded without running anything but the constructors of its classes.

    A pickle of gymnasium's `EzPickle` holds the constructor's arguments and no state.
    """
    if isinstance(env.unwrapped, EzPickle):
        return False
    try:
        _restored(scenario, env, _pickled(env))
    except Exception:  # Box2D raises TypeError, others may raise anything
        return False
    return True


def _pickled(env: gym.Env) -> bytes:
    """An environment's pickle, without the surfaces and clocks that it draws with: it makes new ones."""
    inner = vars(env.unwrapped)
    drawing = {name: value for name, value in inner.items() if type(value).__module__.startswith("pygame")}
    inner.update(dict.fromkeys(drawing))
    try:
        return pickle.dumps(env)
    finally:
        inner.update(drawing)


def _restored(scenario: str, env: gym.Env, data: bytes) -> gym.Env:
    """The environment of a pickle that names nothing but classes which a pickle of `env` names too."""
    source = f"the saved state of scenario {scenario!r}"
    own = frozenset() if trusted() else names_of(_pickled(env))
    allowed = {(module, name) for module, name in own if module.partition(".")[0] not in NEVER_BUILT}
    try:
        if trusted():
            found = pickle.loads(data)
        else:
            found = RestrictedUnpickler(io.BytesIO(data), lambda *each: each in allowed, source).load()
        if type(found) is not type(env):
            raise TypeError(type(found).__name__)
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise UsageError(f"{source} is damaged ({type(error).__name__})") from None
    return found


@functools.cache
def scenario(name: str) -> Scenario:
    """The scenario of a gymnasium environment.

    Args:
        name: `gym:ID`.
    Returns:
        A scenario with the one backend `gymnasium`.
    Raises:
        UsageError: gymnasium cannot make it, or its spaces cannot be learned in.
    """
    env = GymScenarioEnv(name, GymConfig())
    actions = "discrete" if isinstance(env.action_space, spaces.Discrete) else "continuous"
    env.close()
    return Scenario(
        name=name,
        summary=f"gymnasium's {name.removeprefix(PREFIX)}",
        defaults=GymConfig(),
        backends={BACKEND: Backend("sim.gym_envs:make_env", "sim.gym_envs:make_vec")},
        family=BACKEND,
        actions=actions,
        driving=False,
    )


def make_env(scenario: Scenario, config: GymConfig, render_mode: str | None) -> GymScenarioEnv:
    """A single environment, see `sim.make`."""
    return GymScenarioEnv(scenario.name, config, render_mode)


def make_vec(
    scenario: Scenario,
    config: GymConfig,
    num_envs: int,
    seed: int | None,
    workers: int,
    render_mode: str | None = None,
) -> ScenarioEnvs:
    """N environments, see `sim.make_vec`."""
    return ScenarioEnvs([functools.partial(make_env, scenario, config, render_mode)] * num_envs, seed, workers)
