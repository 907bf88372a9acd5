"""The scenario registry: a name, its typed config, and the simulators that can run it.

Built-in scenarios come from the catalogs named in `BUILT_IN`; a third party adds more through the entry point group
`lgdrl.scenarios` (each entry a `Scenario` or a callable that returns several).
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from sim.config import resolve
from sim.errors import UsageError, unknown

if TYPE_CHECKING:
    from gymnasium.vector import AutoresetMode, VectorEnv

    from sim.env import DrivingEnv, DrivingVecEnv, ScenarioEnv, ScenarioVecEnv


BUILT_IN = (
    "sim.catalog:LANE_CHANGE",
    "sim.highway.catalog:HIGHWAY_ENV_SCENARIOS",
    "sim.carla.catalog:CARLA_SCENARIOS",
    "sim.mujoco.catalog:MUJOCO_SCENARIOS",
)
"""The catalogs, as "module:name", imported when the registry is first read."""
GYM = "gym:"
"""Prefix of the names of gymnasium's environments."""
RENDER_MODES = ("rgb_array", "human")


@dataclasses.dataclass(frozen=True)
class Backend:
    """How one simulator builds a scenario: functions as "module:function", imported only when used.

    `env(scenario, config, render_mode) -> ScenarioEnv`;
    `vec(scenario, config, num_envs, seed, workers, render_mode) -> ScenarioVecEnv`;
    `why_not(scenario, config) -> str | None`: what in a resolved config the simulator does not cover. None: it covers
    every config.
    """

    env: str
    vec: str
    why_not: str | None = None
    vector: str | None = None
    """`vector(scenario, config, num_envs, autoreset, render_mode) -> gymnasium.vector.VectorEnv`, the mode being
    gymnasium's; None: single ones in turn."""
    max_envs: int | None = None
    """How many environments at once make sense where each is a process of its own; None: any number."""
    places: bool = False
    """Takes `name@place`, e.g. the address of a server: `env` and `vec` get it as the keyword `place`."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A registered scenario. `defaults` is an instance of its config dataclass; the first backend is the default."""

    name: str
    summary: str
    defaults: Any
    backends: Mapping[str, Backend]
    family: str = "highway"
    actions: str = "meta"
    """meta | longitudinal | discrete (others) | continuous"""
    driving: bool = True
    """Whether its environments are `DrivingEnv`s: they have scenes and can be rolled out."""

    def backend(self, name: str | None, config: Any) -> tuple[str, Backend]:
        """The backend that runs a config.

        Args:
            name: "name", or "name@place" where the backend takes places; None: the first one that covers the config.
            config: A resolved config of this scenario.
        Returns:
            Its name and itself.
        Raises:
            UsageError: The backend is unknown or does not cover the config.
        """
        if name is not None:
            name = self._known(name)
        missing = ""
        for candidate, backend in self.backends.items() if name is None else [(name, self.backends[_kind(name)])]:
            reason = _load(backend.why_not)(self, config) if backend.why_not else None
            if reason is None:
                return candidate, backend
            missing = f"backend {candidate!r} does not cover {reason}"
        others = [other for other in self.backends if other != name]
        raise UsageError(f"scenario {self.name!r}: {missing}: choose backend {' or '.join(map(repr, others))}")

    def _known(self, name: str) -> str:
        kind = _kind(name)
        if kind not in self.backends:
            raise unknown(f"backend for scenario {self.name!r}", kind, self.backends)
        if kind != name and not self.backends[kind].places:
            raise UsageError(f"backend {name!r}: {kind!r} takes no address, leave '@' and what follows out")
        return name


@functools.cache
def built_in() -> Mapping[str, Scenario]:
    """The scenarios of this package by name."""
    return {scenario.name: scenario for path in BUILT_IN for scenario in _scenarios(_load(path))}


@functools.cache
def registry() -> dict[str, Scenario]:
    """All scenarios by name, the built-in ones first."""
    found = dict(built_in())
    for entry in entry_points(group="lgdrl.scenarios"):
        for scenario in _scenarios(entry.load()):
            if scenario.name in found:
                raise UsageError(f"scenario {scenario.name!r} of {entry.value!r} is already registered: rename it")
            found[scenario.name] = scenario
    return found


def _scenarios(loaded: Any) -> Sequence[Scenario]:
    """What a catalog entry stands for: one scenario, several, or a callable that returns several."""
    if isinstance(loaded, Scenario):
        return [loaded]
    return loaded() if callable(loaded) else loaded


def get(name: str) -> Scenario:
    """The scenario registered under a name.

    Args:
        name: Registry name, or `gym:ID` for any environment that gymnasium knows.
    Returns:
        The scenario.
    Raises:
        UsageError: The name is unknown; the message suggests the closest one.
    """
    if name.startswith(GYM):
        return _load("sim.gym_envs:scenario")(name)
    scenarios = registry()
    if name not in scenarios:
        raise unknown("scenario", name, _of_the_same_prefix(name, scenarios) or scenarios)
    return scenarios[name]


def _of_the_same_prefix(name: str, known: Iterable[str]) -> list[str]:
    """The names that share what stands before a ":", as in `mujoco:Hopper-v5`; none where there is no prefix."""
    prefix, colon, _ = name.partition(":")
    return [each for each in known if colon and each.startswith(prefix + colon)]


def make(
    scenario: str,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
    render_mode: str | None = None,
) -> ScenarioEnv:
    """One environment of a scenario as a gymnasium.Env.

    Args:
        scenario: Registry name.
        backend: Simulator, or None: the scenario's first one that covers the config.
        config: Overrides of its config, merged deeply and validated.
        render_mode: None | rgb_array | human.
    Returns:
        The environment, wrapped by nothing that hides the methods of `ScenarioEnv` (`DrivingEnv` on driving scenarios).
    Raises:
        UsageError: Unknown name, backend, key or value.
    """
    made = _Making(scenario, backend, config, 1, render_mode)
    env = _load(made.factories.env)(made.scenario, made.config, render_mode, **made.place)
    env.spec = _load("sim.ids:spec_of")(scenario, backend, config, render_mode)
    return env


def make_vec(
    scenario: str,
    num_envs: int = 1,
    seed: int | None = None,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int = 0,
    render_mode: str | None = None,
) -> ScenarioVecEnv:
    """Several environments of a scenario as an SB3 VecEnv.

    Args:
        scenario: Registry name.
        num_envs: N, at least 1.
        seed: Environment i starts from seed + i; None: from random seeds.
        backend: As in `make`.
        config: As in `make`.
        workers: > 0 spreads simulators that hold the interpreter (highway-env) over that many worker processes.
        render_mode: As in `make`.
    Returns:
        The vectorised environment.
    Raises:
        UsageError: As in `make`.
    """
    made = _Making(scenario, backend, config, num_envs, render_mode)
    build = _load(made.factories.vec)
    return build(made.scenario, made.config, num_envs, seed, workers, render_mode, **made.place)


def make_driving(scenario: str, backend: str | None = None, config: Mapping[str, Any] | None = None) -> DrivingEnv:
    """`make` for callers that need scenes.

    Raises:
        UsageError: As in `make`, or the scenario is not a driving one.
    """
    from sim.env import DrivingEnv

    env = make(require_driving(scenario), backend, config)
    assert isinstance(env, DrivingEnv)
    return env


def make_driving_vec(
    scenario: str,
    num_envs: int = 1,
    seed: int | None = None,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> DrivingVecEnv:
    """`make_vec` for callers that need scenes.

    Raises:
        UsageError: As in `make_vec`, or the scenario is not a driving one.
    """
    from sim.env import DrivingVecEnv

    envs = make_vec(require_driving(scenario), num_envs, seed, backend, config)
    assert isinstance(envs, DrivingVecEnv)
    return envs


def require_driving(scenario: str) -> str:
    """The name itself; UsageError where it is not a driving scenario."""
    if not get(scenario).driving:
        raise UsageError(f"scenario {scenario!r} has no traffic scenes: choose a driving scenario, see `lgdrl list`")
    return scenario


def make_vector(
    scenario: str,
    num_envs: int = 1,
    backend: str | None = None,
    config: Mapping[str, Any] | None = None,
    autoreset: AutoresetMode | str = "NextStep",
    render_mode: str | None = None,
) -> VectorEnv:
    """Several environments of a scenario as a gymnasium.vector.VectorEnv.

    Args:
        scenario: Registry name.
        num_envs: N, at least 1.
        backend: As in `make`.
        config: As in `make`.
        autoreset: gymnasium's mode, or its name: NextStep, SameStep (what SB3's VecEnv does) or Disabled.
        render_mode: As in `make`.
    Returns:
        The vectorised environment.
    Raises:
        UsageError: As in `make`.
    """
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    try:
        mode = AutoresetMode(autoreset)
    except ValueError:
        raise unknown("autoreset mode", autoreset, [known.value for known in AutoresetMode]) from None
    made = _Making(scenario, backend, config, num_envs, render_mode)
    if made.factories.vector:
        return _load(made.factories.vector)(made.scenario, made.config, num_envs, mode, render_mode)
    one = functools.partial(_load(made.factories.env), made.scenario, made.config, render_mode, **made.place)
    return SyncVectorEnv([one] * num_envs, autoreset_mode=mode)


class _Making:
    """What is to be made: a scenario, its resolved config, and the factories of the backend that runs it."""

    def __init__(
        self,
        scenario: str,
        backend: str | None,
        config: Mapping[str, Any] | None,
        num_envs: int,
        render_mode: str | None,
    ) -> None:
        if render_mode not in (None, *RENDER_MODES):
            raise unknown("render_mode", render_mode, RENDER_MODES)
        if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
            raise UsageError(f"num_envs = {num_envs!r}: give a whole number, at least 1")
        self.scenario = get(scenario)
        self.config = resolve(self.scenario.defaults, config, self.scenario.name)
        name, self.factories = self.scenario.backend(backend, self.config)
        self.place = _place(name)


def _kind(backend: str) -> str:
    """ "carla" of "carla@localhost:2000"."""
    return backend.partition("@")[0]


def _place(backend: str) -> dict[str, str]:
    """What follows the "@", as a keyword; empty without one."""
    _, at, place = backend.partition("@")
    return {"place": place} if at else {}


def _load(path: str) -> Any:
    """What "module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
