"""The config of a run, and the environments that it names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import sim
from lgdrl.learners.registry import LEARNERS, Learner
from lgdrl.learners.tuned import TUNED
from lgdrl.methods import METHODS, Method
from sim.bounds import Bounds, Count, Seed, Share, Whole, config_dataclass
from sim.config import deep_merge, load_yaml, resolve, to_dict
from sim.env import DrivingVecEnv, ScenarioVecEnv
from sim.errors import UsageError
from sim.scenarios import Scenario

TRAINING_ENVS, EVALUATION_ENVS = 32, 100
"""Parallel environments of a run and of an evaluation, where the simulator takes any number."""
NAMED = ("scenario", "expert", "strategy", "learner")
"""Fields of a run's config that name something with options of its own."""


@config_dataclass
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
    # a recording, a folder of them, a data set (.npz), or minari:DATASET: in the replay buffer at first
    demonstrations: str | None = None
    # a transition data set (.npz, as `lgdrl collect` and `lgdrl label` write it): what offline strategies learn from
    dataset: str | None = None
    # decisions over all environments; updates where the strategy learns offline or trains a language model
    steps: Count = 60_000
    # steps that schedules are shares of; None: `steps`. A run that is continued beyond its end keeps the former ones
    schedule_steps: Count | None = None
    # parallel environments; 0: 32, or fewer where each is a server (CARLA) or the learner is used to fewer
    num_envs: Annotated[int, Bounds(0, 1_000_000)] = 0
    # processes (highway-env) or threads (engine) for the environments; 0: none beside this one
    workers: Annotated[int, Bounds(0, 1024)] = 0
    seed: Seed = 0
    label_budget: Whole | None = None  # most labels in the run; None: no limit
    # steps for which a label that is not executed may be on its way; 0: the run waits for each.
    # For experts that can be asked ahead (llm)
    label_lag: Annotated[int, Bounds(0, 100_000)] = 0
    label_spread: Annotated[float, Bounds(0, 1, open_high=True)] = 0.05  # of a bare label, over all legal actions
    # share of the latest 100 queries that the expert's fallback may decide for lack of an answer. Above it the run
    # stops, since it would learn from something else than its expert; None: it goes on
    fallback_limit: Share | None = 0.5
    shield: bool = False  # mask actions that fail the safety check, in training and evaluation
    log_every: Count = 1000  # decisions between rows of metrics.csv
    log_scenes: Whole = 10  # the guidance log keeps the scenes of every n-th episode that rules answer without; 0: none
    evaluate_every: Whole = 5000  # decisions between points of the learning curve; 0: none
    evaluate_episodes: Annotated[int, Bounds(1, 10_000_000)] = 300  # episodes per point, seeds 0 ...
    checkpoint_every: Count = 10_000  # decisions

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
        learner_options, preferred = self.learner_options, TRAINING_ENVS
        if method.needs.learners != ():
            learner = LEARNERS.get(self.learner)
            _check_fit(scenario, method, learner)
            preferred = learner.num_envs or TRAINING_ENVS
            tuned = deep_merge(TUNED.get((self.learner, self.scenario), {}), self.learner_options)
            learner_options = to_dict(resolve(learner.defaults, tuned, "learner_options"))
        return dataclasses.replace(
            self,
            backend=backend,
            num_envs=self.num_envs or min(factories.max_envs or TRAINING_ENVS, preferred),
            scenario_config=to_dict(scenario_config),
            strategy_options=to_dict(resolve(method.defaults, self.strategy_options, "strategy_options")),
            learner_options=learner_options,
        )

    def driven(self) -> RunConfig:
        """This config with scenario and backend checked and written out, for drivers that do not learn.

        Raises:
            UsageError: Scenario, backend or one of their options is unknown.
        """
        scenario = sim.get(self.scenario)
        scenario_config = resolve(scenario.defaults, self.scenario_config, "scenario_config")
        backend, _ = scenario.backend(self.backend, scenario_config)
        return dataclasses.replace(self, backend=backend, scenario_config=to_dict(scenario_config))


def action_type(scenario: Scenario) -> str:
    """ "discrete" or "continuous"."""
    return "continuous" if scenario.actions == "continuous" else "discrete"


def _check_fit(scenario: Scenario, method: Method, learner: Learner) -> None:
    kind, needs = action_type(scenario), method.needs
    if kind not in needs.actions:
        raise UsageError(
            f"strategy {method.name!r} needs {' or '.join(needs.actions)} actions, scenario {scenario.name!r} has "
            f"{kind} ones: choose another strategy or scenario"
        )
    if needs.learners is not None and learner.name not in needs.learners:
        raise UsageError(
            f"strategy {method.name!r} works with learner {' or '.join(needs.learners)}, not {learner.name!r}"
        )
    if kind not in learner.actions:
        fitting = [name for name in LEARNERS.available() if kind in LEARNERS.get(name).actions]
        raise UsageError(
            f"learner {learner.name!r} learns {' and '.join(learner.actions)} actions, scenario {scenario.name!r} has "
            f"{kind} ones: choose learner {' or '.join(fitting)}, or another scenario"
        )
    if needs.replay and learner.on_policy:
        raise UsageError(
            f"strategy {method.name!r} draws its batches from a replay buffer, learner {learner.name!r} has none: "
            "choose an off-policy learner"
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
    return change(resolve(RunConfig(), values, "config"), overrides)


def change(config: RunConfig, overrides: Mapping[str, Any], where: str = "config") -> RunConfig:
    """Lay overrides over a config.

    Where they name another scenario, expert, strategy or learner, settings that were defaults of the former one are
    left out, and those of the new one take their place; settings that differ from these defaults stay, and are refused
    later, by name, where the new one does not know them.

    Args:
        config: With options in full, as in a run folder, or in part.
        overrides: Nested values by name.
        where: What they belong to, for messages.
    Raises:
        UsageError: What is unknown or wrong, and where.
    """
    if any(name in overrides and overrides[name] != getattr(config, name) for name in NAMED):
        names = {name: getattr(config, name) for name in NAMED}
        try:
            defaults = to_dict(RunConfig(**names).resolved())
        except UsageError:  # what does not fit together alone was never written out in full
            defaults = {}
        config = resolve(RunConfig(), names | _difference(to_dict(config), defaults), where)
    return resolve(config, overrides, where)


def _difference(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Values that are not among the defaults, nested as they are."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            inner = _difference(value, default)
            if inner:
                found[key] = inner
        elif key not in defaults or value != default:
            found[key] = value
    return found


def make_envs(
    config: RunConfig, num_envs: int, seed: int | None = None, render_mode: str | None = None
) -> ScenarioVecEnv:
    """The environments of a run, with its shield if it has one.

    Args:
        config: The config.
        num_envs: How many.
        seed: Environment i starts from seed + i; None: from a random one.
        render_mode: As in `sim.make_vec`.
    """
    from lgdrl.guidance.shield import ShieldedVecEnv

    about = num_envs, seed, config.backend, config.scenario_config
    envs = sim.make_vec(config.scenario, *about, workers=config.workers, render_mode=render_mode)
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
