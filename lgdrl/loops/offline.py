"""The offline loop: a learner that is updated on a data set of transitions, and never acts while it learns.

`offline_method` makes a `Method` of a function that builds a strategy; everything else is here once. The learners are
those of the online loop, whose replay buffer holds the data set; labels in it (`lgdrl label`) are the expert's say.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch

from experts.data.transition_files import load_transitions
from experts.data.transitions import TransitionDataset
from experts.human import Hands
from experts.provider import PolicyProvider, label_distributions
from lgdrl.config import RunConfig, evaluation_envs, make_envs
from lgdrl.evaluation import Evaluation, PolicyActor, evaluate
from lgdrl.guidance.records import Labels, LearnerInfo, Reason, Transitions
from lgdrl.guidance.strategy import Strategy
from lgdrl.learners.files import policy_bytes
from lgdrl.learners.registry import LEARNERS
from lgdrl.loops.loop import Callback, Loop
from lgdrl.loops.online import evaluate_policy, integer_of, silent_logger
from lgdrl.methods import Method, Needs
from lgdrl.runs import Run
from lgdrl.seeds import CURVE_SEEDS
from sim.config import resolve
from sim.env import ScenarioVecEnv
from sim.errors import UsageError
from sim.files import write_atomically

if TYPE_CHECKING:
    from lgdrl.learners.guided import GuidedOffPolicy


class OfflineStrategy(Strategy):
    """A strategy of the offline loop. It may look at the networks, which it is given before the first update."""

    labels_needed = False
    """Whether it learns from labels in the data set."""
    interval: int = 50
    """Updates between two calls of `after_interval`, and between two looks at whether to go on."""

    def after_interval(self) -> None:
        """Called after every `interval` updates of the run; parameters may be changed here."""

    def bind(self, model: GuidedOffPolicy, dataset: TransitionDataset) -> None:
        """The learner, with the data set in the first slots of its replay buffer, in order."""


@dataclass(frozen=True)
class OfflineSettings:
    """What a strategy may know of the run that it takes part in."""

    total_updates: int
    """Updates that schedules are shares of."""
    learner: str
    seed: np.random.SeedSequence
    """For its own random draws."""


Build = Callable[[Any, OfflineSettings], OfflineStrategy]
"""(resolved strategy options, settings of the run) -> strategy"""


def offline_method(name: str, summary: str, defaults: Any, build: Build, needs: Needs) -> Method:
    """A method that learns from `RunConfig.dataset`.

    Args:
        name: Its name on the command line and in configs.
        summary: One line for `lgdrl list`.
        defaults: An instance of its frozen config dataclass.
        build: Makes the strategy of a run.
        needs: What it has to be given.
    """

    def strategy_of(config: RunConfig, seed: np.random.SeedSequence) -> OfflineStrategy:
        options = resolve(defaults, config.strategy_options, "strategy_options")
        return build(options, OfflineSettings(config.schedule_steps or config.steps, config.learner, seed))

    def make(
        config: RunConfig, run: Run, provider: PolicyProvider | None = None, hands: Hands | None = None
    ) -> OfflineLoop:
        if hands is not None:
            raise UsageError(f"strategy {name!r} learns from a data set and drives nothing: leave the person out")
        return OfflineLoop(config, strategy_of)

    def check(config: RunConfig, provider: PolicyProvider | None) -> None:
        unused = {
            "demonstrations": config.demonstrations is not None,
            "label_budget": config.label_budget is not None,
            "label_lag": config.label_lag > 0,
            "shield": config.shield,
        }
        given = [option for option, is_given in unused.items() if is_given]
        if given:
            raise UsageError(f"{given[0]}: strategy {name!r} learns from a data set, and asks no expert; leave it out")
        envs = make_envs(dataclasses.replace(config, workers=0), 1)
        try:
            strategy = strategy_of(config, np.random.SeedSequence(config.seed))
            strategy.attach(LearnerInfo(config.learner, envs.observation_space, envs.action_space))
            dataset = load_dataset(config, envs)
            if strategy.labels_needed and (dataset.labels is None or not dataset.labels.given.any()):
                raise UsageError(
                    f"strategy {name!r} is guided by labels, data set {config.dataset!r} has none: add some with "
                    f"`lgdrl label {config.dataset} --expert NAME --out NEW.npz`"
                )
        finally:
            envs.close()

    return Method(name, summary, defaults, make, check, evaluate_policy, needs, more_steps=True)


def load_dataset(config: RunConfig, envs: ScenarioVecEnv) -> TransitionDataset:
    """The data set that a config names.

    Args:
        config: The config.
        envs: Environments of its scenario.
    Raises:
        UsageError: None is named, or it cannot be read, or is of other environments.
    """
    if config.dataset is None:
        raise UsageError(
            f"strategy {config.strategy!r} learns from a data set: name one with --data FILE (made by `lgdrl collect`)"
        )
    found = load_transitions(config.dataset)
    about = found.about
    if not about.foreign and about.scenario != config.scenario:
        raise UsageError(
            f"data set {config.dataset!r} is of scenario {about.scenario!r}: choose one of {config.scenario!r}"
        )
    for kind in ("observation_space", "action_space"):
        own, theirs = getattr(envs, kind), getattr(about, kind)
        if (own.shape, getattr(own, "n", None)) != (theirs.shape, getattr(theirs, "n", None)):
            raise UsageError(
                f"data set {config.dataset!r}: its {kind.replace('_', ' ')} is {theirs}, the scenario's {own}: collect "
                "it with the same settings"
            )
    if not len(found):
        raise UsageError(f"data set {config.dataset!r} holds no transition")
    return found


def transitions_in(dataset: TransitionDataset, label_spread: float) -> Transitions:
    """A data set as records of a replay buffer.

    Args:
        dataset: The data set.
        label_spread: Share of a label that is spread over all legal actions, as the advisor does.
    """
    count, space = len(dataset), dataset.about.action_space
    labels, legal = Labels.none(count, space), dataset.legal
    if dataset.labels is not None:
        labels.given[:], labels.action[:], labels.status[:] = (
            dataset.labels.given,
            dataset.labels.actions,
            dataset.labels.status,
        )
        if labels.probs is not None:
            rows = labels.given
            allowed = np.ones(labels.probs.shape, bool) if legal is None else legal
            labels.probs[rows] = label_distributions(labels.action[rows], allowed[rows], label_spread)
    return Transitions(
        obs=dataset.observations,
        next_obs=dataset.next_observations,
        legal=legal,
        next_legal=dataset.next_legal,
        learner_actions=dataset.actions,
        actions=dataset.actions,
        labels=labels,
        authority=np.zeros(count, np.float32),
        reason=np.full(count, Reason.LEARNER, np.int8),
        rewards=dataset.rewards,
        terminated=dataset.terminated,
        truncated=dataset.truncated,
        episodes=dataset.episodes,
        steps=dataset.steps,
    )


class OfflineLoop(Loop):
    """A learner and its data set.

    Args:
        config: The resolved config.
        strategy_of: Makes the strategy from config and seed.
    """

    unit = "updates"

    def __init__(
        self, config: RunConfig, strategy_of: Callable[[RunConfig, np.random.SeedSequence], OfflineStrategy]
    ) -> None:
        torch.set_num_threads(1)
        self.config = config
        learner_seed, strategy_seed = np.random.SeedSequence(config.seed).spawn(2)
        self.strategy = strategy_of(config, strategy_seed)
        self.envs = make_envs(config, 1)
        dataset = load_dataset(config, self.envs)
        learner = LEARNERS.get(config.learner)
        options = resolve(learner.defaults, config.learner_options, "learner_options")
        self.model: GuidedOffPolicy = learner.make(
            self.envs,
            dataclasses.replace(options, buffer_size=max(len(dataset), options.batch_size)),
            self.strategy,
            None,
            label_lag=0,
            seed=integer_of(learner_seed),
            device="cpu",
        )
        self.model.config = options
        self.model.set_logger(silent_logger())
        self.model.replay.add_transitions(transitions_in(dataset, config.label_spread))
        self.strategy.bind(self.model, dataset)
        self._digest = hashlib.sha256(Path(str(config.dataset)).read_bytes()).hexdigest()
        self._evaluation_envs: ScenarioVecEnv | None = None

    @property
    def progress(self) -> int:
        return self.model._n_updates

    def advance(self, amount: int, callback: Callback | None = None) -> None:
        end = self.progress + amount
        while self.progress < end:
            length = self.strategy.interval - self.progress % self.strategy.interval
            self.model.train(min(length, end - self.progress), self.model.batch_size)
            if self.progress % self.strategy.interval == 0:
                self.strategy.after_interval()
            if callback is not None and not callback({}, {}):
                return

    def row(self) -> dict[str, Any]:
        values = self.model.logger.name_to_value
        row = {name: float(value) for name, value in values.items() if name.startswith(("train/", "guidance/"))}
        row |= {f"guidance/{name}": value for name, value in self.strategy.metrics().items()}
        self.model.logger.name_to_value.clear()
        return row

    def evaluate(self, episodes: int) -> Evaluation:
        """Greedy policy on the curve's seeds."""
        if self._evaluation_envs is None:
            self._evaluation_envs = evaluation_envs(self.config, episodes)
        seeds = range(CURVE_SEEDS.start, CURVE_SEEDS.start + episodes)
        return evaluate(self._evaluation_envs, PolicyActor(self.model), seeds)

    def write_policy(self, file: BinaryIO) -> None:
        file.write(policy_bytes(self.model))

    def write_exports(self, run: Run) -> None:
        """The policy in Stable-Baselines3's own format."""
        buffer = io.BytesIO()
        self.model.export(buffer)
        write_atomically(run.policy_zip, lambda file: file.write(buffer.getvalue()))

    def state_dict(self) -> dict[str, Any]:
        """The data set itself stays where it is; its digest is kept."""
        return {
            "model": self.model.state_dict(memory=False),
            "streams": self.model.replay.streams_state(),
            "dataset": self._digest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["dataset"] != self._digest:
            raise UsageError(
                f"data set {self.config.dataset!r} has changed since: put the former one back, or start another run"
            )
        self.model.load_state_dict(state["model"])
        self.model.replay.load_streams_state(state["streams"])

    def close(self) -> None:
        self.envs.close()
        if self._evaluation_envs is not None:
            self._evaluation_envs.close()
