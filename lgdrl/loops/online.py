"""The online loop: environments, a learner, and an expert behind a strategy.

`online_method` makes a `Method` of a function that builds a strategy; everything else is here once.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
import torch

import experts.registry as expert_registry
import sim
from experts.data.demonstrations import Demonstrations
from experts.data.sources import load_demonstrations
from experts.driving import check_provider
from experts.human import Hands
from experts.provider import Decision, PolicyProvider, Status
from experts.spaces import check_spaces
from lgdrl.config import RunConfig, action_type, evaluation_envs, load_config, make_envs
from lgdrl.evaluation import Evaluation, PolicyActor, evaluate
from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.demonstrations import transitions_of
from lgdrl.guidance.human import PersonArbiter
from lgdrl.guidance.log import PERSON, GuidanceLog
from lgdrl.guidance.records import LearnerInfo, StepContext
from lgdrl.guidance.strategy import Strategy
from lgdrl.learners.files import load_policy_file, policy_bytes
from lgdrl.learners.registry import LEARNERS
from lgdrl.loops.loop import Callback, Loop
from lgdrl.methods import Method, Needs
from lgdrl.runs import Run
from lgdrl.seeds import CURVE_SEEDS
from sim.config import resolve
from sim.env import DrivingVecEnv, ScenarioVecEnv
from sim.errors import UsageError
from sim.files import write_atomically
from sim.picture import MODE, keys_of

if TYPE_CHECKING:
    from lgdrl.learners.guided import Guided


@dataclass(frozen=True)
class OnlineSettings:
    """What a strategy may know of the run that it takes part in."""

    total_decisions: int
    """Decisions that schedules are shares of."""
    label_budget: int | None
    """Most labels in the run; None: no limit."""
    seed: np.random.SeedSequence
    """For its own random draws."""
    demonstrated: bool = False
    """Whether recorded demonstrations are in the replay buffer from the start."""
    traffic: bool = True
    """Whether the scenario has traffic scenes and discrete actions."""
    continuous: bool = False
    """Whether actions are continuous."""
    on_policy: bool = False
    """Whether the learner learns only from actions that its own policy drew."""


Build = Callable[[Any, OnlineSettings], Strategy]
"""(resolved strategy options, settings of the run) -> strategy"""


def online_method(name: str, summary: str, defaults: Any, build: Build, needs: Needs | None = None) -> Method:
    """A method whose strategy guides a reinforcement learner online.

    Args:
        name: Its name on the command line and in configs.
        summary: One line for `lgdrl list`.
        defaults: An instance of its frozen config dataclass.
        build: Makes the strategy of a run.
        needs: What it has to be given; None: discrete actions, any learner.
    """

    def strategy_of(config: RunConfig, seed: np.random.SeedSequence) -> Strategy:
        options = resolve(defaults, config.strategy_options, "strategy_options")
        demonstrated = config.demonstrations is not None
        planned = config.schedule_steps or config.steps
        scenario = sim.get(config.scenario)
        continuous = action_type(scenario) == "continuous"
        settings = OnlineSettings(
            planned,
            config.label_budget,
            seed,
            demonstrated,
            traffic=scenario.driving and not continuous,
            continuous=continuous,
            on_policy=LEARNERS.get(config.learner).on_policy,
        )
        return build(options, settings)

    def make(
        config: RunConfig, run: Run, provider: PolicyProvider | None = None, hands: Hands | None = None
    ) -> OnlineLoop:
        return OnlineLoop(config, run, strategy_of, provider, hands)

    def check(config: RunConfig, provider: PolicyProvider | None) -> None:
        if config.dataset is not None:
            raise UsageError(
                f"dataset: strategy {name!r} learns from its own decisions; choose an offline one, or none"
            )
        _check_learning_starts(config)
        strategy = strategy_of(config, np.random.SeedSequence(config.seed))
        envs = make_envs(dataclasses.replace(config, workers=0), 1)
        try:
            on_policy = LEARNERS.get(config.learner).on_policy
            strategy.attach(LearnerInfo(config.learner, envs.observation_space, envs.action_space, on_policy))
            if strategy.needs_expert:
                _check_expert(config, provider, envs)
            if config.demonstrations is not None:
                _load_demonstrations(config, envs)
        finally:
            envs.close()

    fits = needs or Needs(actions=("discrete",))
    return Method(name, summary, defaults, make, check, evaluate_policy, fits, more_steps=True)


def _check_learning_starts(config: RunConfig) -> None:
    """A setting that leaves no update is refused; a default that does so is said at the end of the run."""
    starts = config.learner_options.get("learning_starts")
    defaults = dataclasses.replace(config, learner_options={}).resolved().learner_options
    if starts is not None and starts > config.steps and starts != defaults["learning_starts"]:
        raise UsageError(
            f"learner_options.learning_starts = {starts:,}: the run has {config.steps:,} decisions, so nothing would "
            "be learned; choose less, or more --steps"
        )


def _check_expert(config: RunConfig, provider: PolicyProvider | None, envs: ScenarioVecEnv) -> None:
    """Find bad expert options, and an expert that does not fit, before there is a folder.

    `provider`: who is asked in place of the named one.
    """
    found = provider or expert_registry.make(config.expert, config.scenario, config.expert_options, config.seed)
    try:
        check_provider(found, envs)
        if config.label_lag and not found.concurrent:
            raise UsageError(
                f"label_lag = {config.label_lag}: expert {found.name!r} cannot be asked ahead, llm can; choose 0"
            )
    finally:
        if provider is None:
            found.close()


def _load_demonstrations(config: RunConfig, envs: ScenarioVecEnv) -> Demonstrations:
    """The demonstrations that the config names. UsageError unless they fit environments and replay buffer."""
    assert config.demonstrations is not None
    found = load_demonstrations(config.demonstrations, config.scenario)
    found.check(envs.observation_space.shape or (), envs.action_space)
    capacity = config.learner_options.get("buffer_size")  # a learner of a third party may call it otherwise
    if capacity is not None and len(found) > capacity:
        raise UsageError(
            f"{found.source} holds {len(found)} decisions, the replay buffer {capacity}: raise "
            "learner_options.buffer_size"
        )
    return found


class OnlineLoop(Loop):
    """Environments, learner and advisor of one run.

    Args:
        config: The resolved config.
        run: The run folder, for the guidance log.
        strategy_of: Makes the strategy from config and seed.
        provider: An expert in place of the one that the config names.
        hands: Controls of a person who may take over the first environment.
    """

    unit = "decisions"

    def __init__(
        self,
        config: RunConfig,
        run: Run,
        strategy_of: Callable[[RunConfig, np.random.SeedSequence], Strategy],
        provider: PolicyProvider | None = None,
        hands: Hands | None = None,
    ) -> None:
        torch.set_num_threads(1)
        self.config = config
        env_seed, learner_seed, strategy_seed, expert_seed = np.random.SeedSequence(config.seed).spawn(4)
        watched = hands is not None and not sim.get(config.scenario).driving  # scenes need no pictures
        self.envs = make_envs(config, config.num_envs, integer_of(env_seed), MODE if watched else None)
        self.strategy = strategy_of(config, strategy_seed)
        self.advisor: Advisor | None = None
        self.log: GuidanceLog | None = None
        self.person: PersonArbiter | None = None
        if self.strategy.needs_expert or hands is not None:
            self.log = GuidanceLog(run.guidance_log, config.log_scenes)
        self._own_provider: PolicyProvider | None = None
        if self.strategy.needs_expert:
            if provider is None:
                options, seed = config.expert_options, integer_of(expert_seed)
                provider = self._own_provider = expert_registry.make(config.expert, config.scenario, options, seed)
            ahead = max(config.label_lag, 1)
            self.advisor = Advisor(provider, config.label_budget, config.label_spread, self.log, ahead)
        if hands is not None:
            keys = keys_of(self.envs.get_attr("action_names", [0])[0]) if watched else ()
            self.person = PersonArbiter(self.strategy.arbiter, hands, config.label_spread, self._report_person, keys)
            self.strategy.arbiter = self.person
        learner = LEARNERS.get(config.learner)
        self.model: Guided = learner.make(
            self.envs,
            resolve(learner.defaults, config.learner_options, "learner_options"),
            self.strategy,
            self.advisor,
            label_lag=config.label_lag,
            seed=integer_of(learner_seed),
            device="cpu",
        )
        self.model.set_logger(silent_logger())
        self._evaluation_envs: ScenarioVecEnv | None = None

    def begin(self) -> None:
        """An empty log, and the demonstrations in the replay buffer."""
        if self.log is not None:
            self.log.truncate(0)
        if self.config.demonstrations is not None:
            shown = _load_demonstrations(self.config, self.envs)
            stored = self.strategy.on_store(transitions_of(shown, self.config.label_spread))
            self.model.replay.add_transitions(stored)

    @property
    def progress(self) -> int:
        return self.model.num_timesteps

    @property
    def provider(self) -> PolicyProvider | None:
        return self.advisor.provider if self.advisor is not None else None

    @property
    def trouble(self) -> str:
        advisor, limit = self.advisor, self.config.fallback_limit
        if advisor is None or limit is None or advisor.fallback_share <= limit:
            return ""
        return (
            f"the fallback of expert {advisor.provider.name!r} decided {advisor.fallback_share:.0%} of the latest "
            f"queries (fallback_limit = {limit:g}): check the expert's model and endpoint"
        )

    @property
    def learns(self) -> bool:
        return self.model._n_updates > 0

    @property
    def statuses(self) -> Mapping[str, int]:
        if self.advisor is None:
            return {}
        return {status.value: self.advisor.counts[status.value] for status in Status}

    @property
    def labels(self) -> int:
        return self.advisor.counts["labels"] if self.advisor is not None else 0

    @property
    def notes(self) -> list[str]:
        return [self.log.lost] if self.log is not None and self.log.lost else []

    @property
    def interventions(self) -> int:
        return self.strategy.interventions

    def prepare(self) -> None:
        """Start the environments of a new run, so that they can be looked at before the first decision."""
        if self.model._last_obs is None:
            self.model._setup_learn(0)

    def advance(self, amount: int, callback: Callback | None = None) -> None:
        fresh = self.model._last_obs is None
        self.model.learn(amount, self._noting(callback), log_interval=10**9, reset_num_timesteps=fresh)

    def _noting(self, callback: Callback | None) -> Callback:
        """`callback`, after the guidance log received what came of the queries of this decision."""

        def note(local: dict[str, Any], everywhere: dict[str, Any]) -> bool:
            context, execution = self.model.context, self.model.execution
            if self.log is not None and context is not None and execution is not None:
                self.log.settle(context, execution, local["rewards"], local["infos"])
            return not self.trouble and (callback is None or callback(local, everywhere))

        return note

    def _report_person(self, context: StepContext, decision: Decision, scene: Any) -> None:
        assert self.log is not None
        first = np.array([0])
        self.log.add(PERSON, first, context.episodes[first], context.steps[first], [decision], [scene])

    def row(self) -> dict[str, Any]:
        values = self.model.logger.name_to_value
        recent = list(self.model.ep_info_buffer or [])
        row: dict[str, Any] = {}
        if recent:
            row["rollout/executed_return"] = float(np.mean([info["r"] for info in recent]))
            if self.model.ep_success_buffer or isinstance(self.envs, DrivingVecEnv):
                row["rollout/executed_success"] = float(np.mean(list(self.model.ep_success_buffer or [0.0])))
        row |= {name: float(value) for name, value in values.items() if name.startswith(("train/", "guidance/"))}
        row |= {f"guidance/{name}": value for name, value in self.strategy.metrics().items()}
        if self.advisor is not None:
            row |= {f"expert/{name}": value for name, value in self.advisor.metrics().items()}
        self.model.logger.name_to_value.clear()
        return row

    def evaluate(self, episodes: int) -> Evaluation:
        """Greedy policy on the curve's seeds, in environments of its own, so that the training does not change."""
        if self._evaluation_envs is None:
            self._evaluation_envs = evaluation_envs(self.config, episodes)
        seeds = range(CURVE_SEEDS.start, CURVE_SEEDS.start + episodes)
        return evaluate(self._evaluation_envs, PolicyActor(self.model), seeds)

    def settle(self) -> None:
        self.model.store_waiting()

    def write_policy(self, file: BinaryIO) -> None:
        file.write(policy_bytes(self.model))

    def write_exports(self, run: Run) -> None:
        """The policy in Stable-Baselines3's own format, for `load` in plain SB3. Nothing here reads it."""
        buffer = io.BytesIO()
        self.model.export(buffer)
        write_atomically(run.policy_zip, lambda file: file.write(buffer.getvalue()))

    def state_dict(self) -> dict[str, Any]:
        if self.advisor is not None:
            self.advisor.settle()
        if self.log is not None:
            self.log.commit()
        return {
            "model": self.model.state_dict(),
            "envs": self.envs.get_state(),
            "advisor": self.advisor.state_dict() if self.advisor else None,
            "log": self.log.last_row if self.log else 0,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.envs.reset()
        self.envs.set_state(state["envs"])
        self.model.load_state_dict(state["model"])
        if not self.envs.exact_state:  # what drove on the server is gone: begin an episode
            self.model._last_obs = cast(np.ndarray, self.envs.reset())
        if self.advisor is not None:
            self.advisor.load_state_dict(state["advisor"])
            if self.trouble:  # it may have been repaired since
                self.advisor.forget_fallbacks()
        if self.log is not None:  # rows of decisions after the checkpoint
            self.log.truncate(state["log"])

    def close(self) -> None:
        self.envs.close()
        if self._evaluation_envs is not None:
            self._evaluation_envs.close()
        if self.advisor is not None:
            self.advisor.close()
        if self._own_provider is not None:
            self._own_provider.close()
        if self.log is not None:
            self.log.close()


def load_policy(run: Run) -> Guided:
    """The trained policy of a finished run, as a model of its learner.

    Raises:
        UsageError: The run is not finished, or trained something else than a policy of an environment.
    """
    config = load_config(run.config, {})
    if config.method.needs.learners == ():
        raise UsageError(f"the run in {str(run.folder)!r} trained a language model on a text task: it cannot drive")
    if not run.finished:
        raise UsageError(f"the run in {str(run.folder)!r} is not finished: continue it with `lgdrl train --resume`")
    torch.set_num_threads(1)
    return load_policy_file(run.policy)


def evaluate_policy(config: RunConfig, run: Run, episodes: int, first_seed: int) -> Evaluation:
    """The learner of a finished run alone, expert off, on seeds first_seed, first_seed + 1, ..."""
    model = load_policy(run)
    envs = evaluation_envs(config, episodes)
    try:
        check_spaces(f"the policy of {str(run.folder)!r}", model, envs, config.scenario)
        return evaluate(envs, PolicyActor(model), range(first_seed, first_seed + episodes))
    finally:
        envs.close()


def integer_of(seed: np.random.SeedSequence) -> int:
    """A 31-bit integer of a seed sequence, for interfaces that take nothing else."""
    return int(seed.generate_state(1)[0] >> 1)


def silent_logger() -> Any:
    """A logger of Stable-Baselines3 that writes nothing."""
    from stable_baselines3.common.logger import Logger

    return Logger(folder=None, output_formats=[])
