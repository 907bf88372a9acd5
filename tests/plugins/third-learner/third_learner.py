"""A learner: soft Q-learning, whose only network is the critic and whose policy is a softmax of it.

Haarnoja et al., arXiv 1702.08165, for discrete actions. With a temperature T and a slowly following target Qbar:

    pi(a|s) = exp(Q(s, a) / T) / sum_b exp(Q(s, b) / T)                               over legal actions
    V(s)    = T ln sum_a exp(Qbar(s, a) / T)
    L       = share E w ( Q(s, a_exec) - r - gamma (1 - terminated) V(s') )^2 + guidance

Networks, saving and loading are those of Stable-Baselines3's DQN; collecting, storing, asking the expert, predicting
and logging are those of `GuidedOffPolicy`. What is here is the policy and the update. Since one network is policy and
critic, terms of both kinds are added to its loss: LGDRL's constraint on pi(.|s) works without any change.

    lgdrl train learner=third-learner learner_options.temperature=0.1
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.utils import polyak_update

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.records import PolicySummary
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.guidance.terms import Terms
from lgdrl.learners.guided import GuidedOffPolicy
from lgdrl.learners.registry import Learner
from lgdrl.learners.softmax_policy import masked_log_softmax, sample_categorical


@dataclass(frozen=True)
class SoftQConfig:
    """Settings under `learner_options`."""

    hidden: tuple[int, ...] = (64, 64)  # units per hidden layer
    learning_rate: float = 1e-3  # Adam
    tau: float = 0.01  # share of the network that flows into its target per update
    gamma: float = 0.99  # discount per decision
    temperature: float = 0.2  # T, in units of return
    batch_size: int = 128  # transitions per update
    buffer_size: int = 100_000  # transitions
    learning_starts: int = 500  # decisions with uniformly random legal proposals, before the first update
    updates_per_decision: float = 0.25  # gradient steps per decision of one environment

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"temperature = {self.temperature}: choose more than 0")


class SoftQ(GuidedOffPolicy, DQN):
    """Soft Q-learning, guided by a `Strategy`. Arguments as every learner's, see `lgdrl.learners.registry.Learner`."""

    learner_name = "third-learner"

    def __init__(
        self,
        env: Any,
        config: SoftQConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = "MlpPolicy",
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or SoftQConfig()
        self.updates_per_decision = self.config.updates_per_decision
        self.guide(strategy, advisor, label_lag)
        super().__init__(
            policy,
            env,
            learning_rate=self.config.learning_rate,
            buffer_size=self.config.buffer_size,
            learning_starts=self.config.learning_starts,
            batch_size=self.config.batch_size,
            tau=self.config.tau,
            gamma=self.config.gamma,
            train_freq=1,
            gradient_steps=0,  # `GuidedOffPolicy` says after each decision how many are due
            replay_buffer_class=GuidedReplayBuffer,
            policy_kwargs={"net_arch": list(self.config.hidden)},
            device=device,
            seed=seed,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        draws, predictions, replay = np.random.SeedSequence(self.seed).spawn(3)
        self.replay_buffer_kwargs = {"seed": replay}
        super()._setup_model()
        self._draws = np.random.default_rng(draws)
        self.predictions = np.random.default_rng(predictions)  # of its own: predicting changes no training

    # ------------------------------------------------------------------------------------------------- the policy

    def _values(self, obs: np.ndarray) -> torch.Tensor:
        """Q(s, .) without gradient, float (N, A)."""
        with torch.no_grad():
            return self.q_net(torch.as_tensor(obs, device=self.device))

    def _probs(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        """pi(.|s), float32 (N, A)."""
        masks = torch.as_tensor(legal, device=self.device)
        return masked_log_softmax(self._values(obs) / self.config.temperature, masks).exp().cpu().numpy()

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """Actions drawn from the policy; in the warm-up, uniformly from the legal ones."""
        assert legal is not None
        uniform = (legal / legal.sum(axis=1, keepdims=True)).astype(np.float32)
        probs = uniform if warming_up else self._probs(obs, legal)
        return sample_categorical(probs, self._draws), PolicySummary(probs=probs)

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Q of int (N,) actions."""
        return self._values(obs).cpu().numpy()[np.arange(len(obs)), actions]

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """Probabilities of the legal actions, and Q of all."""
        assert legal is not None
        return PolicySummary(probs=self._probs(obs, legal)), self._values(obs).cpu().numpy()

    # ------------------------------------------------------------------------------------------------- the update

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """ln pi(.|s), float (B, A), with gradient."""
        assert samples.legal is not None
        return masked_log_softmax(self.q_net(samples.observations) / self.config.temperature, samples.legal)

    def q_values(self, samples: Samples) -> torch.Tensor:
        """The one critic, float (1, B, A), with gradient."""
        return self.q_net(samples.observations)[None]

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of the network and its target.

        Args:
            batch_size: Transitions of it.
        Returns:
            What was measured, and what the strategy's terms measured, by names.
        """
        batches = self.strategy.on_batch(self.replay, batch_size)
        terms = Terms.combined([self.strategy.critic_terms(batches, self), self.strategy.actor_terms(batches, self)])
        errors = self.squared_errors(batches[RL])
        loss = terms.total((errors if terms.weights is None else terms.weights * errors).mean())
        self.policy.optimizer.zero_grad()
        loss.backward()
        self.policy.optimizer.step()
        polyak_update(self.q_net.parameters(), self.q_net_target.parameters(), self.tau)
        self.strategy.on_update(terms.metrics)
        return {"td_error": float(errors.detach().mean())}, terms.metrics

    def squared_errors(self, samples: Samples) -> torch.Tensor:
        """( Q(s, a_exec) - r - gamma (1 - terminated) V(s') )^2, float (B,)."""
        assert samples.next_legal is not None
        temperature = self.config.temperature
        with torch.no_grad():
            following = self.q_net_target(samples.next_observations) / temperature
            value = temperature * following.masked_fill(~samples.next_legal, -torch.inf).logsumexp(dim=1)
            target = samples.rewards + self.gamma * (~samples.terminated) * value
        executed = self.q_net(samples.observations).gather(1, samples.actions[:, None]).squeeze(1)
        return (executed - target).square()

    # ------------------------------------------------------------------------------------------------------ files

    def learner_state(self) -> dict[str, Any]:
        return {"draws": self._draws.bit_generator.state, "predictions": self.predictions.bit_generator.state}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        self._draws.bit_generator.state = state["draws"]
        self.predictions.bit_generator.state = state["predictions"]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_draws", "_predictions"]


LEARNER = Learner("third-learner", "soft Q-learning for discrete actions", SoftQConfig(), SoftQ)
