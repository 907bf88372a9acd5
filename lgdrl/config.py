"""The config of a run, and the environments that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sim
from lgdrl.learners.registry import LEARNERS
from lgdrl.learners.tuned import TUNED
from lgdrl.methods import METHODS, Method
from sim.config import deep_merge, load_yaml, resolve, to_dict
from sim.env import DrivingVecEnv, ScenarioVecEnv
from sim.errors import UsageError
from sim.scenarios import Scenario

TRAINING_ENVS, EVALUATION_ENVS = 32, 100
"""Parallel environments of a run and of an evaluation, where the simulator takes any number."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a training run. `scenario_config`, `expert_options`, `strategy_options` and
    `learner_options` are checked against what the named scenario, expert, strategy and learner know, and saved in full.
    """

    scenario: str = "lane-change"
    backend: str | None = None  # None: the scenario's default
    scenario_config: dict[str, Any] = field(default_factory=dict)
    expert: str = "rule"
    expert_options: dict[str, Any] = field(default_factory=dict)
    strategy: str = "lgdrl"
    strategy_options: dict[str, Any] = field(default_factory=dict)
    learner: str = "discrete-sac"
    learner_options: dict[str, Any] = field(default_factory=dict)
    demonstrations: str | None = None  # a recording, a folder of them, or minari:DATASET: in the replay buffer at first
    steps: int = 60_000  # decisions over all environments; updates where the strategy trains a language model
    schedule_steps: int | None = None  # steps that schedules are shares of; null: `steps`. A longer run keeps its first
    num_envs: int = 0  # parallel environments; 0: 32, or fewer where each is a server (CARLA)
    workers: int = 0  # processes (highway-env) or threads (engine) for the environments; 0: none beside this one
    seed: int = 0
    label_budget: int | None = None  # most labels in the run; None: no limit
    label_lag: int = 0  # steps for which a label that is not executed may be on its way; 0: the run waits for each.
    # For experts that can be asked ahead (llm)
    label_spread: float = 0.05  # of a bare label, over all legal actions
    shield: bool = False  # mask actions that fail the safety check, in training and evaluation
    log_every: int = 1000  # decisions between rows of metrics.csv
    log_scenes: int = 10  # the guidance log keeps the scenes of every n-th episode that rules answer without; 0: none
    evaluate_every: int = 5000  # decisions between points of the learning curve; 0: none
    evaluate_episodes: int = 300  # episodes per point, seeds 0 ...
    checkpoint_every: int = 10_000  # decisions

    def __post_init__(self) -> None:
        for name in ("steps", "log_every", "checkpoint_every", "evaluate_episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: choose at least 1")
        for name in ("num_envs", "evaluate_every", "workers", "seed", "log_scenes", "label_lag"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: choose 0 or more")
        if self.schedule_steps is not None and self.schedule_steps < 1:
            raise ValueError(f"schedule_steps = {self.schedule_steps}: choose at least 1, or null for those of the run")
        if self.label_budget is not None and self.label_budget < 0:
            raise ValueError(f"label_budget = {self.label_budget}: choose 0 or more, or null for no limit")
        if not 0 <= self.label_spread < 1:
            raise ValueError(f"label_spread = {self.label_spread}: choose 0 to below 1")

    @property
    def method(self) -> Method:
        """The method that the strategy names."""
        return METHODS.get(self.strategy)

    def resolved(self) -> RunConfig:
        """This config with all options checked and written out in full.

        Raises:
            UsageError: Something is unknown, or strategy, learner and scenario do not fit together.
        """
        scenario, method = sim.get(self.scenario), self.method
        scenario_config = resolve(scenario.defaults, self.scenario_config, "scenario_config")
        backend, factories = scenario.backend(self.backend, scenario_config)
        learner_options = self.learner_options
        if method.needs.learners != ():
            learner = LEARNERS.get(self.learner)
            _check_fit(scenario, method, self.learner, learner.actions)
            tuned = deep_merge(TUNED.get((self.learner, self.scenario), {}), self.learner_options)
            learner_options = to_dict(resolve(learner.defaults, tuned, "learner_options"))
        return dataclasses.replace(
            self,
            backend=backend,
            num_envs=self.num_envs or min(factories.max_envs or TRAINING_ENVS, TRAINING_ENVS),
            scenario_config=to_dict(scenario_config),
            strategy_options=to_dict(resolve(method.defaults, self.strategy_options, "strategy_options")),
            learner_options=learner_options,
        )


def action_type(scenario: Scenario) -> str:
    """ "discrete" or "continuous"."""
    return "continuous" if scenario.actions == "continuous" else "discrete"


def _check_fit(scenario: Scenario, method: Method, learner: str, learnable: tuple[str, ...]) -> None:
    kind, needs = action_type(scenario), method.needs
    if kind not in needs.actions:
        raise UsageError(
            f"strategy {method.name!r} needs {' or '.join(needs.actions)} actions, scenario {scenario.name!r} has "
            f"{kind} ones: choose another strategy or scenario"
        )
    if needs.learners is not None and learner not in needs.learners:
        raise UsageError(f"strategy {method.name!r} works with learner {' or '.join(needs.learners)}, not {learner!r}")
    if kind not in learnable:
        raise UsageError(
            f"learner {learner!r} learns {' and '.join(learnable)} actions, scenario {scenario.name!r} has {kind} "
            "ones: choose another learner or scenario"
        )


def load_config(path: Path | str | None, overrides: Mapping[str, Any]) -> RunConfig:
    """Defaults, then a YAML file, then overrides, validated.

    Args:
        path: The file; None: no file.
        overrides: Nested values by name.
    Raises:
        UsageError: What is unknown or wrong, and where.
    """
    values = load_yaml(path) if path else {}
    if "sac" in values or "sac" in overrides:
        where = f"config {str(path)!r}" if "sac" in values else "the override sac"
        raise UsageError(
            f"{where} is of an earlier version: settings of the learner are `learner_options` now, not `sac`; rename "
            "them, and train again"
        )
    config = resolve(RunConfig(), values, "config")
    return resolve(config, overrides, "config")


def make_envs(config: RunConfig, num_envs: int, seed: int | None = None) -> ScenarioVecEnv:
    """The environments of a run, with its shield if it has one.

    Args:
        config: The config.
        num_envs: How many.
        seed: Environment i starts from seed + i; None: from a random one.
    """
    from lgdrl.guidance.shield import ShieldedVecEnv

    envs = sim.make_vec(config.scenario, num_envs, seed, config.backend, config.scenario_config, workers=config.workers)
    if not config.shield:
        return envs
    if not isinstance(envs, DrivingVecEnv):
        raise UsageError(f"shield = true: scenario {config.scenario!r} has no traffic to check; leave it out")
    return ShieldedVecEnv(envs)


def evaluation_envs(config: RunConfig, episodes: int) -> ScenarioVecEnv:
    """Environments to evaluate in, as many as the episodes and the simulator make use of."""
    scenario = sim.get(config.scenario)
    _, factories = scenario.backend(
        config.backend, resolve(scenario.defaults, config.scenario_config, "scenario_config")
    )
    return make_envs(config, min(episodes, factories.max_envs or EVALUATION_ENVS))
