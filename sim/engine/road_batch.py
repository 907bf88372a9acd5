"""Batches of highway-env environments on compiled roads, and what a family of them supplies.

The road is highway-env's own network, compiled to a table; traffic, observations and legal actions are shared
(`sim.engine.road`). A family adds how episodes start, what is rewarded, when they end, and what it covers.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.actions import MetaAction
from sim.engine import ego_actions, road
from sim.engine.batch import EngineState, EnvBatch
from sim.engine.bodies import BODY, ENV
from sim.engine.family import Family
from sim.engine.frames import compile_frames
from sim.engine.mirror import Mirror
from sim.engine.observe import OBSERVERS, uncovered
from sim.engine.records import Field, record
from sim.engine.road_setup import MOST_SPEEDS, Setup, road_fields
from sim.engine.roads import compile_road
from sim.scene import Scene
from sim.view import VIEW, Views, no_manoeuvres

TRAFFIC = "highway_env.vehicle.behavior.IDMVehicle"
"""The one class of traffic that the engine reproduces."""


@dataclass(frozen=True)
class RoadRules:
    """A family of environments on compiled roads. `own` is the record of its own parameters, in an array of one."""

    name: str
    kinds: tuple[str, ...]
    """Names of the highway-env environments that it covers."""
    start: Any
    """Kernel (envs, bodies, lanes, params, own, rows): draws and places the bodies of `rows`."""
    score: Any
    """Kernel (envs, bodies, lanes, params, own, actions, controls, rolling): reward and end of a decision; with
    `rolling`, of the environments whose episode goes on. `actions` and `controls`: see `sim.engine.ego_actions`."""
    options: Callable[[Setup], dict[str, Field]]
    """Fields of `own`."""
    most_bodies: Callable[[Any], int]
    """The most bodies that an environment with a given config can hold."""
    shared: Callable[[Setup], Mapping[str, Any]] = lambda setup: {}
    """Values of the shared parameters (`road_setup.road_fields`) that differ from their defaults."""
    observations: tuple[str, ...] = ()
    """Types of observation that it has beyond those of all families (`observe.SPECIAL`)."""
    goal_rewards: Callable[[Any, np.ndarray, np.ndarray], np.ndarray] | None = None
    """(config, achieved goals, desired goals) -> rewards, where observations hold goals."""
    uncovered: Callable[[Any], str | None] = lambda config: None
    """What of a config, beyond what no family covers, this one leaves to highway-env."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name: rules are code."""
        return _rules, (self.start.__module__, self.name)


RULES: dict[str, RoadRules] = {}
"""Rules by the name of their family."""


def _rules(module: str, name: str) -> RoadRules:
    importlib.import_module(module)
    return RULES[name]


def road_family(rules: RoadRules) -> Family:
    """The family with these rules."""
    RULES[rules.name] = rules

    def make(scenario: Any, config: Any, num_envs: int, threads: int) -> RoadBatch:
        return RoadBatch(rules, scenario, config, num_envs, threads)

    def why_not(config: Any) -> str | None:
        return rules.uncovered(config) or _uncovered_by_all(rules, config)

    return Family(rules.name, rules.kinds, make, why_not)


def _uncovered_by_all(rules: RoadRules, config: Any) -> str | None:
    action = ego_actions.uncovered(config.action)
    if action is not None:
        return action
    if getattr(config, "other_vehicles_type", TRAFFIC) != TRAFFIC:
        return f"traffic of class {config.other_vehicles_type.rpartition('.')[2]}"
    if config.offscreen_rendering is False:
        return "a window beside the frames (offscreen_rendering: false)"
    if getattr(config, "show_trajectories", False) or getattr(config, "manual_control", False):
        return "trajectories and manual control"
    if len(config.action.get("target_speeds") or ()) > MOST_SPEEDS:
        return f"more than {MOST_SPEEDS} set-points"
    return uncovered(config.observation, rules.observations)


class RoadBatch(EnvBatch):
    """N environments of one highway-env scenario in one process."""

    def __init__(self, rules: RoadRules, scenario: Any, config: Any, num_envs: int, threads: int = 1) -> None:
        """Compile the road and make the batch.

        Args:
            rules: Its family.
            scenario: The `HighwayScenario`.
            config: Its resolved config, one that the family covers.
            num_envs: N.
            threads: See `EnvBatch`.
        """
        self.family, self.rules = rules.name, rules
        self.scenario, self.config = scenario, config
        self.mirror = Mirror(scenario, config)
        self.lanes = compile_road(self.mirror.network, bool(config.neighbour_vehicles_connected_lanes))
        setup = Setup(scenario.family, config, self.mirror.network)
        self.params = record(road_fields(setup))
        for name, value in rules.shared(setup).items():
            self.params[name] = value
        self.frames = compile_frames(self.mirror.network, self.params["routes"][0, : self.params["ego_routes"][0]])
        self.own = record(rules.options(setup))
        if rules.goal_rewards is not None:
            self.goal_rewards = functools.partial(rules.goal_rewards, config)
        self.actions = ego_actions.actions_of(config.action)
        self.manoeuvres = ego_actions.meta_actions(config.action)
        count = int(self.params["set_points"][0]) if MetaAction.FASTER in self.manoeuvres else 0
        self._set_points = self.params["speeds"][0, :count].copy()
        self.substeps = int(self.params["substeps"][0])
        self.decision_frequency = config.policy_frequency
        self.observer = OBSERVERS[config.observation["type"]]
        self.observation_space = self.observer.space(config)
        self._observing = record(self.observer.fields(config)), self.observer.table(config)
        self.most_bodies = rules.most_bodies(config)
        self._all_rows, self._no_obs = np.arange(num_envs), np.zeros((num_envs, 1, 1), np.float32)
        super().__init__(num_envs, threads)

    def allocate(self, num_envs: int) -> EngineState:
        return EngineState(np.zeros(num_envs, ENV), np.zeros((num_envs, self.most_bodies), BODY))

    def _reset(self, rows: np.ndarray) -> None:
        self.rules.start(*self.state, self.lanes, self.params, self.own, rows)
        road.begin(*self.state, self.lanes, self.frames, self.params, rows, self._shared_obs(), self.masks)
        self._observe(rows)

    def _step(self, actions: np.ndarray) -> None:
        step = road.step_parallel if self.parallel else road.step_serial
        chosen = self.actions.for_kernels(actions)
        step(*self.state, self.lanes, self.frames, self.params, *chosen, self._shared_obs(), self.masks, False)
        self._observe(self._all_rows)
        self.rules.score(*self.state, self.lanes, self.params, self.own, *chosen, False)
        if self.params["renewed"][0]:
            road.look_ahead(*self.state, self.lanes, self.frames, self.params)

    def _shared_obs(self) -> np.ndarray:
        """What the kernel that simulates fills: the observations, or nothing where they have a kernel of their own."""
        return self.flat_obs if self.observer.serial is None else self._no_obs

    def _observe(self, rows: np.ndarray) -> None:
        """Fill the observations of `rows` that have a kernel of their own."""
        if self.observer.serial is None:
            return
        run = self.observer.parallel if self.parallel and len(rows) == self.num_envs else self.observer.serial
        run(*self.state, self.lanes, self.params, *self._observing, rows, self.flat_obs)

    def _roll_out(self, state: EngineState, plans: np.ndarray, rewards: np.ndarray, final: np.ndarray) -> None:
        shuffled = self.params["renewed"][0] and self.params["obs_shuffled"][0]  # the traffic that comes depends on it
        seen = np.zeros((len(plans), *self.flat_obs.shape[1:]), np.float32) if shuffled else None
        for h in range(plans.shape[1]):
            chosen = self.actions.for_kernels(np.ascontiguousarray(plans[:, h]))
            road.step_serial(*state, self.lanes, self.frames, self.params, *chosen, self._no_obs, self.masks, True)
            if seen is not None:
                road.observe_running(*state, self.lanes, self.params, seen)
            self.rules.score(*state, self.lanes, self.params, self.own, *chosen, True)
            rewards[:, h] = state.envs["reward"][: len(plans)]
        road.final(*state, self.lanes, self.frames, self.params, final)

    def views(self, rows: np.ndarray) -> Views:
        if not self.manoeuvres:
            raise no_manoeuvres(self.scenario.name)
        found, tracks = np.zeros(len(rows), VIEW), self.mirror.tracks
        road.views(
            *self.state,
            self.lanes,
            self.frames,
            self.params,
            self._set_points,
            tracks.lanes,
            tracks.points,
            rows,
            found,
        )
        return Views(found, self.manoeuvres)

    def _reward_terms(self, i: int, action: Any) -> dict[str, float]:
        with self.mirror.lock:
            try:
                terms = self._show(i)._rewards(action)
            except NotImplementedError:  # highway-env's way to say that this environment has none
                return {}
        return {name: float(value) for name, value in terms.items()}

    @property
    def vehicles(self) -> float:
        return float(self.state.envs["vehicles"].mean())

    @property
    def speeds(self) -> np.ndarray:
        return self.state.bodies["speed"][:, 0]

    @property
    def crashed(self) -> np.ndarray:
        return self.state.bodies["crashed"][:, 0] > 0

    def scene(self, i: int) -> Scene:
        with self.mirror.lock:
            self._show(i)
            return self.mirror.scene(float(self.state.envs[i]["steps"]) * float(self.params["period"][0]))

    def _show(self, i: int) -> Any:
        """The mirror's environment in the state of environment i."""
        return self.mirror.show(self.state.envs[i], self.state.bodies[i], self.params[0])
