"""Seams of Stable-Baselines3's algorithms, connected to a collector and a strategy.

A learner is `class X(GuidedOffPolicy, one of SB3's off-policy algorithms)`, or `class X(Guided, an on-policy one)`:
these classes collect, count updates, save and resume; the learner file holds networks and update, and nothing else.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, BinaryIO, ClassVar

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from lgdrl.finite import NotFinite
from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.records import Execution, LearnerInfo, PolicySummary, StepContext, Transitions
from lgdrl.guidance.replay import GuidedReplayBuffer
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import Networks
from lgdrl.learners.collector import Collector
from lgdrl.learners.fused.core import Core
from lgdrl.learners.softmax_policy import sample_categorical
from lgdrl.learners.start_up import spare_dynamo

spare_dynamo()

COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_current_progress_remaining",
    "_episode_num",
    "_n_updates",
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
)
"""Attributes of SB3's algorithms that `state_dict` keeps as they are."""


class Guided(Networks, BaseAlgorithm):
    """Mixin in front of one of SB3's algorithms. Call `guide` before SB3's constructor.

    After each decision `context` and `execution` hold what was known and what was done, for callbacks.
    `learn` in slices (`reset_num_timesteps=False`) equals `learn` in one go. A callback that returns False from
    `on_step` loses the step it stopped at, as everywhere in SB3: to stop cleanly, end a slice instead.
    """

    learner_name: str
    on_policy: ClassVar[bool] = False
    counters: ClassVar[tuple[str, ...]] = COUNTERS
    """Attributes that a checkpoint keeps as they are."""
    not_saved: ClassVar[tuple[str, ...]] = ("strategy", "collector", "predictions")
    """Attributes that stay out of SB3's zip."""
    predictions: np.random.Generator
    """Draws of `predict`, of their own: predicting while training changes nothing in the training."""

    def guide(self, strategy: Strategy | None, advisor: Advisor | None, label_lag: int) -> None:
        """Connect a strategy and the expert behind it.

        Args:
            strategy: How the expert is integrated; None: not at all.
            advisor: Asks the expert; None where there is none.
            label_lag: Steps for which labels that are not executed may be on their way. What is learned does not
                depend on how fast they were.
        Raises:
            ValueError: The strategy needs an expert, and there is none.
        """
        self.strategy = strategy or Strategy()
        if self.strategy.needs_expert and advisor is None:
            raise ValueError(f"strategy {self.strategy.name!r} needs an expert: pass an advisor")
        self.collector = Collector(self, self.strategy, advisor, label_lag)

    # ------------------------------------------------------------------------------------- what a learner defines

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """See `lgdrl.learners.collector.Proposer`."""
        raise NotImplementedError

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """See `lgdrl.learners.collector.Proposer`."""
        raise NotImplementedError

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """The present policy in N states, and float32 (N, A) critic values of all discrete actions, to be looked at."""
        raise NotImplementedError

    @property
    def replay(self) -> GuidedReplayBuffer:
        """The transitions that the strategy's terms draw labels from."""
        raise NotImplementedError

    def learner_state(self) -> dict[str, Any]:
        """What decides the learner's future beside parameters, replay buffer and counters (random streams)."""
        return {}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        """Inverse of `learner_state`."""

    # ---------------------------------------------------------------------------------------------- conveniences

    def probabilities(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        """Probabilities of discrete actions, float32 (N, A), zero on illegal ones."""
        probs = self.describe(obs, legal)[0].probs
        assert probs is not None
        return probs

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """SB3's `predict` with sb3-contrib's `action_masks`: bool (A,) or (N, A), None where all actions are legal;
        where actions are continuous they say nothing."""
        if action_masks is None or not isinstance(self.action_space, spaces.Discrete):
            return super().predict(observation, state, episode_start, deterministic)
        assert isinstance(observation, np.ndarray)
        single = observation.ndim == len(self.observation_space.shape or ())
        masks = np.asarray(action_masks, bool).reshape(-1, int(self.action_space.n))
        probs = self.probabilities(observation[None] if single else observation, masks)
        actions = probs.argmax(axis=1) if deterministic else sample_categorical(probs, self.predictions)
        return (actions[0] if single else actions), state

    @property
    def envs(self) -> VecEnv:
        """The training environments."""
        if self.env is None:
            raise ValueError("no environment: pass one to the constructor, to load() or to set_env()")
        return self.env

    @property
    def context(self) -> StepContext | None:
        """What was known before the last decision."""
        return self.collector.context

    @property
    def execution(self) -> Execution | None:
        """What was done in the last decision."""
        return self.collector.execution

    def store(self, finished: Iterable[Transitions]) -> None:
        """Put finished steps into the replay buffer."""
        for transitions in finished:
            self.replay.add_transitions(transitions)

    def store_waiting(self) -> None:
        """Wait for all labels that are on their way, and store the steps that wait for them."""
        self.store(self.collector.ready())

    # ------------------------------------------------------------------------------------------- SB3's seams

    def _setup_model(self) -> None:
        if self._vec_normalize_env is not None:
            raise ValueError("VecNormalize is not supported: scale observations and rewards inside the environment")
        super()._setup_model()  # type: ignore[safe-super]
        info = LearnerInfo(self.learner_name, self.observation_space, self.action_space, self.on_policy)
        self.strategy.attach(info)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        restarts = reset_num_timesteps or self._last_obs is None
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar)
        if restarts:
            self.collector.begin(self.n_envs)
        return prepared

    # ------------------------------------------------------------------------------------------------- logging

    def dump_logs(self, *arguments: Any) -> None:
        """SB3's log lines, with the strategy's metrics under guidance/."""
        for name, value in self.strategy.metrics().items():
            self.logger.record(f"guidance/{name}", value)
        super().dump_logs(*arguments)

    def record_guidance(self, measured: Sequence[Mapping[str, float]]) -> None:
        """Log the means of what the strategy's terms measured in several updates."""
        for name, value in _means(measured).items():
            self.logger.record(f"guidance/{name}", value)

    def record_updates(self, measured: Sequence[Mapping[str, float]]) -> None:
        """Log the means of what several updates measured, by names such as critic_loss.

        Raises:
            NotFinite: A mean is not finite.
        """
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for name, value in _means(measured).items():
            if not math.isfinite(value):
                words = name.replace("_", " ")
                raise NotFinite(
                    f"the {words} is {value} at decision {self.num_timesteps:,}, update {self._n_updates:,}"
                )
            self.logger.record(f"train/{name}", value)

    # ------------------------------------------------------------------------------------------------- files

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *self.not_saved]

    def export(self, file: BinaryIO) -> None:
        """Write the model as a zip of Stable-Baselines3, which its own algorithm loads where it has one."""
        self.save(file)  # type: ignore[arg-type]

    def state_dict(self, memory: bool = True) -> dict[str, Any]:
        """Everything that decides the rest of the training except the environments; a copy.

        Take it between two calls of `learn`, together with the environments' own state.

        Args:
            memory: With the replay buffer; False: its contents and streams are kept elsewhere.
        """
        return {
            "parameters": copy.deepcopy(self.get_parameters()),
            "replay": self.replay.state_dict() if memory else None,
            "strategy": copy.deepcopy(self.strategy.state_dict()),
            "collector": self.collector.state_dict(),
            "learner": copy.deepcopy(self.learner_state()),
            "counters": {name: copy.deepcopy(getattr(self, name)) for name in self.counters},
            "ep_info": _listed(self.ep_info_buffer),
            "ep_success": _listed(self.ep_success_buffer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly from a `state_dict` of a model with the same config, strategy and number of environments.

        Call `learn(..., reset_num_timesteps=False)` next, with the environments set to the state that they had.
        """
        self.set_parameters(copy.deepcopy(state["parameters"]), device=self.device)
        self.load_learner_state(copy.deepcopy(state["learner"]))
        if state["replay"] is not None:
            self.replay.load_state_dict(state["replay"])
        self.strategy.load_state_dict(copy.deepcopy(state["strategy"]))
        self.collector.load_state_dict(state["collector"])
        for name in self.counters:
            setattr(self, name, copy.deepcopy(state["counters"][name]))
        self.ep_info_buffer = _window(state["ep_info"], self._stats_window_size)
        self.ep_success_buffer = _window(state["ep_success"], self._stats_window_size)


class GuidedOffPolicy(Guided, OffPolicyAlgorithm):
    """`Guided` for algorithms with a replay buffer.

    A learner defines `update`, which torch differentiates; where it has a `core`, that takes its place.
    """

    updates_per_decision: float
    core: Core | None = None
    counters: ClassVar[tuple[str, ...]] = (*COUNTERS, "_learning_decisions")
    not_saved: ClassVar[tuple[str, ...]] = (*Guided.not_saved, "core")

    def guide(self, strategy: Strategy | None, advisor: Advisor | None, label_lag: int) -> None:
        super().guide(strategy, advisor, label_lag)
        self._learning_decisions = 0

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update in torch; see `lgdrl.learners.fused.core.Core.update`."""
        raise NotImplementedError

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        """A number of updates.

        Raises:
            NotFinite: A loss is not finite.
        """
        if self.core is None:
            self.policy.set_training_mode(True)
        update = self.update if self.core is None else self.core.update
        found = []
        with nullcontext() if self.core is None else self.core.training():
            for _ in range(gradient_steps):
                found.append(update(batch_size))
                self._n_updates += 1
        self.record_updates([numbers for numbers, _ in found])
        self.record_guidance([metrics for _, metrics in found])

    @property
    def replay(self) -> GuidedReplayBuffer:
        """The replay buffer, by its own type."""
        assert isinstance(self.replay_buffer, GuidedReplayBuffer)
        return self.replay_buffer

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self._last_obs, np.ndarray)
        warming_up = self.num_timesteps < learning_starts
        actions = self.collector.act(self.envs, self._last_obs, self.num_timesteps, warming_up).actions
        return actions, actions

    def _store_transition(  # type: ignore[override]
        self,
        replay_buffer: GuidedReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        self.store(self.collector.finish(self.envs, new_obs, reward, dones, infos))
        self._last_obs = new_obs

    def _on_step(self) -> None:
        """Tell SB3's loop how many updates are due: floor(ratio x decisions), counted from the end of the warm-up."""
        if self.num_timesteps <= self.learning_starts or not self.replay.size():
            self.gradient_steps = 0
            return
        done = self._updates_due()
        self._learning_decisions += self.n_envs
        self.gradient_steps = self._updates_due() - done

    def _updates_due(self) -> int:
        return math.floor(self._learning_decisions * self.updates_per_decision + 1e-9)


def _means(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the updates that measured it."""
    found: dict[str, list[float]] = {}
    for numbers in measured:
        for name, value in numbers.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) if len(values) > 1 else values[0] for name, values in found.items()}


def _listed(window: deque | None) -> list | None:
    return None if window is None else copy.deepcopy(list(window))


def _window(values: list | None, length: int) -> deque | None:
    return None if values is None else deque(copy.deepcopy(values), maxlen=length)
