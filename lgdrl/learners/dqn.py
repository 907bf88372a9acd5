"""Deep Q-learning: Stable-Baselines3's DQN with legal actions, double Q, n-step returns and dueling networks.

With a network Q and its target Qbar (Mnih et al. 2015, as in Stable-Baselines3):

    a'      = argmax_a Q(s_m, a) with double Q (arXiv 1509.06461), else argmax_a Qbar(s_m, a); a legal
    y       = R_m + gamma^m (1 - terminated) Qbar(s_m, a')
    L       = share E w huber( Q(s, a_exec) - y ) + guidance                a_exec: executed, by learner or expert

R_m is the discounted sum of the next m rewards (`lgdrl.guidance.replay`). The one network is policy and critic: terms
of both kinds are added to L, and those that need a distribution see softmax(Q / temperature). With the options of
Stable-Baselines3 and without a strategy the update is its own, bit for bit, for the same batches.

Shapes: N environments, A actions, B sampled transitions.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, BinaryIO, Literal

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.dqn.policies import DQNPolicy

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.records import PolicySummary
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.guidance.terms import Terms
from lgdrl.learners.dueling import DuelingDQNPolicy
from lgdrl.learners.fused.dqn import DQNCore
from lgdrl.learners.guided import GuidedOffPolicy
from lgdrl.learners.registry import Learner
from lgdrl.learners.softmax_policy import ILLEGAL, masked_log_softmax
from sim.bounds import BatchSize, Bounds, Count, LearningRate, Positive, Share, Whole, config_dataclass


@config_dataclass
class DQNConfig:
    """Settings of `DQN`; defaults of Stable-Baselines3 but for `hidden`, `double` and what is said beside them."""

    hidden: tuple[Annotated[int, Bounds(1, 65_536)], ...] = (128, 128)  # units per hidden layer
    learning_rate: LearningRate = 5e-4  # Adam; that of highway-env's example
    # share of the network that flows into its target at each synchronisation
    tau: Annotated[float, Bounds(0, 1, open_low=True)] = 1.0
    target_interval: Count = 1000  # decisions between synchronisations of the target
    gamma: Share = 0.99  # discount per decision
    n_step: Annotated[int, Bounds(1, 1000)] = 1  # rewards before the network's own estimate
    double: bool = True  # the network chooses the action whose value the target gives
    dueling: bool = False  # value and advantage streams (arXiv 1511.06581) in the last hidden layer; computed by torch
    batch_size: BatchSize = 64  # transitions per update
    buffer_size: Count = 100_000  # transitions
    learning_starts: Whole = 200  # decisions with uniformly random legal proposals, before the first update
    # gradient steps per decision of one environment; the remainder is carried over
    updates_per_decision: Annotated[float, Bounds(0, 1000)] = 0.25
    exploration_initial: Share = 1.0  # probability of a random legal action at the start ...
    exploration_final: Share = 0.05  # ... and from there on where the schedule ends
    exploration_decisions: Count = 10_000  # over which it falls, linearly
    max_grad_norm: Positive = 10.0  # the gradient is scaled down to this norm
    temperature: Positive = 1.0  # of the softmax that terms of strategies see, in units of return
    # what computes updates: compiled kernels, or torch, which is the specification and runs on any device
    core: Literal["fused", "torch"] = "fused"

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16:
            raise ValueError(f"hidden = {list(self.hidden)}: choose 1 to 16 layers")
        if self.batch_size > self.buffer_size:
            raise ValueError(f"batch_size = {self.batch_size:,} exceeds buffer_size = {self.buffer_size:,}")
        if self.dueling and self.hidden[-1] < 2:
            raise ValueError("dueling = true: the last hidden layer needs at least 2 units, one per stream")


class DQN(GuidedOffPolicy, stable_baselines3.DQN):
    """Deep Q-learning, guided by a `Strategy`. Arguments as every learner's, see `lgdrl.learners.registry.Learner`."""

    learner_name = "dqn"
    policy: DQNPolicy
    counters = (*GuidedOffPolicy.counters, "_n_calls", "exploration_rate")
    not_saved = (*GuidedOffPolicy.not_saved, "config", "proposals", "replay_buffer_class", "replay_buffer_kwargs")

    def __init__(
        self,
        env: GymEnv | str | None,
        config: DQNConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = None,
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or DQNConfig()
        self.updates_per_decision = self.config.updates_per_decision
        self.guide(strategy, advisor, label_lag)
        super().__init__(
            policy or (DuelingDQNPolicy if self.config.dueling else "MlpPolicy"),
            env,  # type: ignore[arg-type]
            learning_rate=self.config.learning_rate,
            buffer_size=self.config.buffer_size,
            learning_starts=self.config.learning_starts,
            batch_size=self.config.batch_size,
            tau=self.config.tau,
            gamma=self.config.gamma,
            train_freq=1,
            gradient_steps=0,
            replay_buffer_class=GuidedReplayBuffer,
            target_update_interval=self.config.target_interval,
            exploration_initial_eps=self.config.exploration_initial,
            exploration_final_eps=self.config.exploration_final,
            max_grad_norm=self.config.max_grad_norm,
            policy_kwargs={"net_arch": list(self.config.hidden)},
            device=device,
            seed=seed,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        proposals, predictions, replay = np.random.SeedSequence(self.seed).spawn(3)
        self.replay_buffer_kwargs = {"seed": replay, "n_step": self.config.n_step, "gamma": self.gamma}
        super()._setup_model()
        self.proposals, self.predictions = np.random.default_rng(proposals), np.random.default_rng(predictions)
        self.exploration_rate = self.config.exploration_initial
        if self.device.type != "cpu" or self.config.dueling:
            self.config = dataclasses.replace(self.config, core="torch")
        self.core: DQNCore | None = DQNCore(self) if self.config.core == "fused" else None

    @property
    def num_actions(self) -> int:
        """A."""
        assert isinstance(self.action_space, spaces.Discrete)
        return int(self.action_space.n)

    # -------------------------------------------------------------------------------------------------- acting

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """The legal action of the largest value, or, by chance, any legal one."""
        assert legal is not None
        rate = 1.0 if warming_up else self.exploration_rate
        greedy = self._greedy(obs, legal)
        scores = np.where(legal, self.proposals.random(legal.shape), -1.0)
        explores = self.proposals.random(len(obs)) < rate
        probs = (rate * legal / legal.sum(axis=1, keepdims=True)).astype(np.float32)
        probs[np.arange(len(obs)), greedy] += 1 - rate
        return np.where(explores, scores.argmax(axis=1), greedy), PolicySummary(probs=probs)

    def _greedy(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        return np.where(legal, self._values(obs), -np.inf).argmax(axis=1)

    def _values(self, obs: np.ndarray) -> np.ndarray:
        """Q of all actions, float32 (N, A)."""
        if self.core is not None:
            return self.core.values(obs)
        with torch.no_grad():
            return self.q_net(torch.as_tensor(obs, device=self.device)).cpu().numpy()

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Q of int (N,) actions."""
        return self._values(obs)[np.arange(len(obs)), actions]

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """Certainty of the greedy legal action, and Q of all."""
        assert legal is not None
        probs = np.zeros(legal.shape, np.float32)
        probs[np.arange(len(obs)), self._greedy(obs, legal)] = 1.0
        return PolicySummary(probs=probs), self._values(obs)

    def _on_step(self) -> None:
        super()._on_step()
        self._n_calls += 1
        if self._n_calls % max(self.config.target_interval // self.n_envs, 1) == 0:
            polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
        done = min(self.num_timesteps / self.config.exploration_decisions, 1.0)
        span = self.config.exploration_final - self.config.exploration_initial
        self.exploration_rate = self.config.exploration_initial + done * span
        self.logger.record("train/exploration_rate", self.exploration_rate)

    # ------------------------------------------------------------------------------------------------ learning

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """ln softmax(Q / temperature), float (B, A)."""
        assert samples.legal is not None
        return masked_log_softmax(self.q_net(samples.observations) / self.config.temperature, samples.legal)

    def q_values(self, samples: Samples) -> torch.Tensor:
        """The network's values, float (1, B, A)."""
        return self.q_net(samples.observations)[None]

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of the network."""
        batches = self.strategy.on_batch(self.replay, batch_size)
        samples = batches[RL]
        assert samples.next_legal is not None
        with torch.no_grad():
            next_values = self.q_net_target(samples.next_observations)
            chosen_by = self.q_net(samples.next_observations) if self.config.double else next_values
            best = chosen_by.masked_fill(~samples.next_legal, ILLEGAL).argmax(dim=1, keepdim=True)
            next_value = next_values.gather(1, best)
            rewards, discounts = samples.rewards[:, None], samples.discounts[:, None]
            target = rewards + (1 - samples.terminated[:, None].float()) * discounts * next_value
        terms = Terms.combined([self.strategy.critic_terms(batches, self), self.strategy.actor_terms(batches, self)])
        executed = self.q_net(samples.observations).gather(1, samples.actions[:, None])
        if terms.weights is None:
            loss = torch.nn.functional.smooth_l1_loss(executed, target)
        else:
            errors = torch.nn.functional.smooth_l1_loss(executed, target, reduction="none")
            loss = (terms.weights[:, None] * errors).mean()
        self.policy.optimizer.zero_grad()
        terms.total(loss).backward()
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        self.strategy.on_update(terms.metrics)
        return {"loss": float(loss.detach())}, terms.metrics

    # --------------------------------------------------------------------------------------------------- files

    def learner_state(self) -> dict[str, Any]:
        return {"streams": [stream.bit_generator.state for stream in (self.proposals, self.predictions)]}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        for stream, own in zip((self.proposals, self.predictions), state["streams"], strict=True):
            stream.bit_generator.state = own

    def export(self, file: BinaryIO) -> None:
        """See `Guided.export`; a dueling network is written as the plain one that computes the same."""
        if not isinstance(self.policy, DuelingDQNPolicy):
            super().export(file)
            return
        config = dataclasses.replace(self.config, dueling=False, core="torch")
        plain = DQN(self.env, config, seed=self.seed, device="cpu")
        plain.q_net.load_state_dict(self.policy.folded())
        plain.q_net_target.load_state_dict(self.policy.folded())
        plain.export(file)


LEARNER = Learner("dqn", "deep Q-learning: double Q, n-step returns, dueling networks", DQNConfig(), DQN, num_envs=8)
