"""Twin delayed deep deterministic policy gradient: Stable-Baselines3's TD3, which an expert can guide.

With a deterministic policy a = mu(s), its target mubar, twin critics Q_1, Q_2 and their targets Qbar (Fujimoto et al.,
arXiv 1802.09477, as in Stable-Baselines3):

    a'      = clip( mubar(s_m) + clip(noise, -c, c), -1, 1 )
    y       = R_m + gamma^m (1 - terminated) min_i Qbar_i(s_m, a')
    L_Q     = share_Q sum_i E w ( Q_i(s, a_exec) - y )^2 + guidance            a_exec: executed, by learner or expert
    L_pi    = share_pi L_0 / scale + guidance,  L_0 = - E w Q_1(s, mu(s)), every `policy_delay` updates
    scale   = max(floor, mean |Q_1|) with guidance, else 1

Terms of strategies see the policy as a Gaussian before tanh, of fixed width (`lgdrl.guidance.gaussian`). Without a
strategy the update is that of Stable-Baselines3, bit for bit, for the same batches and noise. Shapes: B sampled
transitions, D action dimensions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, Literal

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.td3.policies import TD3Policy

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.gaussian import LABEL_STD
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.learners.continuous import ContinuousOffPolicy, bootstrapped, minimise, squared_error
from lgdrl.learners.fused.td3 import TD3Core
from lgdrl.learners.registry import Learner
from sim.bounds import BatchSize, Bounds, Count, LearningRate, NonNegative, Positive, Share, Whole, config_dataclass


@config_dataclass
class TD3Config:
    """Settings of `TD3`; the defaults are those of Stable-Baselines3, but for networks as wide as those of SAC and for
    noise on proposals, without which it does not explore."""

    hidden: tuple[Annotated[int, Bounds(1, 65_536)], ...] = (256, 256)  # units per hidden layer, actor and critics
    learning_rate: LearningRate = 1e-3  # Adam, all networks
    # share of the networks that flows into their targets whenever the policy is updated
    tau: Annotated[float, Bounds(0, 1, open_low=True)] = 0.005
    gamma: Share = 0.99  # discount per decision; tasks without falls, such as Swimmer, need 0.999
    n_step: Annotated[int, Bounds(1, 1000)] = 1  # rewards before the critics' own estimate
    batch_size: BatchSize = 256  # transitions per update
    buffer_size: Count = 1_000_000  # transitions
    learning_starts: Whole = 100  # decisions with uniformly random proposals, before the first update
    # gradient steps per decision of one environment; the remainder is carried over
    updates_per_decision: Annotated[float, Bounds(0, 1000)] = 1.0
    policy_delay: Count = 2  # updates of the critics per update of the policy and of all targets
    exploration_noise: NonNegative = 0.1  # std of the noise on proposals, actions scaled to [-1, 1]
    target_noise: NonNegative = 0.2  # std of the noise on actions in targets
    target_noise_clip: NonNegative = 0.5  # c
    # with guidance L_0 is divided by max(this, mean |Q_1|), so that its weight does not depend on the reward's unit;
    # None: not at all
    loss_scale_floor: Positive | None = 1.0
    # what computes updates: compiled kernels, or torch, which is the specification and runs on any device
    core: Literal["fused", "torch"] = "fused"

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16:
            raise ValueError(f"hidden = {list(self.hidden)}: choose 1 to 16 layers")
        if self.batch_size > self.buffer_size:
            raise ValueError(f"batch_size = {self.batch_size:,} exceeds buffer_size = {self.buffer_size:,}")


class TD3(ContinuousOffPolicy, stable_baselines3.TD3):
    """TD3, guided by a `Strategy`. Arguments as every learner's, see `lgdrl.learners.registry.Learner`."""

    learner_name = "td3"
    config: TD3Config
    policy: TD3Policy

    def __init__(
        self,
        env: GymEnv | str | None,
        config: TD3Config | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = "MlpPolicy",
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or TD3Config()
        self.updates_per_decision = self.config.updates_per_decision
        self.guide(strategy, advisor, label_lag)
        super().__init__(
            policy,
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
            policy_delay=self.config.policy_delay,
            target_policy_noise=self.config.target_noise,
            target_noise_clip=self.config.target_noise_clip,
            policy_kwargs={"net_arch": list(self.config.hidden)},
            device=device,
            seed=seed,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.device.type != "cpu":
            self.config = dataclasses.replace(self.config, core="torch")
        self.core: TD3Core | None = TD3Core(self) if self.config.core == "fused" else None

    # -------------------------------------------------------------------------------------------------- acting

    def parameters_of(self, obs: np.ndarray) -> tuple[np.ndarray, None]:
        if self.core is not None:
            return self.core.before_tanh(obs), None
        with torch.no_grad():
            return self._before_tanh(torch.as_tensor(obs, device=self.device)).cpu().numpy(), None

    def explore(self, mean: np.ndarray, std: np.ndarray | None) -> np.ndarray:
        noise = self.proposals.standard_normal(mean.shape, np.float32)
        return (np.tanh(mean) + self.config.exploration_noise * noise).clip(-1.0, 1.0).astype(np.float32)

    # ------------------------------------------------------------------------------------------------ learning

    def _before_tanh(self, observations: torch.Tensor) -> torch.Tensor:
        features = self.actor.extract_features(observations, self.actor.features_extractor)
        return self.actor.mu[:-1](features)

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        mean = self._before_tanh(samples.observations)
        return mean, torch.full_like(mean, math.log(LABEL_STD))

    @property
    def updates_policy(self) -> bool:
        """Whether the next update is one of the policy too."""
        return (self._n_updates + 1) % self.policy_delay == 0

    def clipped_noise(self, rows: int) -> np.ndarray:
        """Noise on the actions in targets, float32 (rows, D)."""
        limit = self.config.target_noise_clip
        return (self.config.target_noise * self.draw_noise(rows)).clip(-limit, limit).astype(np.float32)

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of the critics and, every `policy_delay` of them, of the policy and of all targets."""
        batches = self.strategy.on_batch(self.replay, batch_size)
        samples = batches[RL]
        with torch.no_grad():
            noise = torch.from_numpy(self.clipped_noise(len(samples))).to(self.device)
            next_actions = (self.actor_target(samples.next_observations) + noise).clamp(-1, 1)
            next_q = torch.cat(self.critic_target(samples.next_observations, next_actions), dim=1)
            target = bootstrapped(samples, next_q.amin(dim=1, keepdim=True))
        terms = self.strategy.critic_terms(batches, self)
        executed = torch.from_numpy(self.scaled_actions(samples)).to(self.device)
        errors = [squared_error(q, target, terms.weights) for q in self.critic(samples.observations, executed)]
        critic_loss = sum(errors[1:], errors[0])
        minimise(self.critic.optimizer, terms.total(critic_loss))
        numbers, metrics = {"critic_loss": float(critic_loss.detach())}, terms.metrics

        if self.updates_policy:
            terms = self.strategy.actor_terms(batches, self)
            values = self.critic.q1_forward(samples.observations, self.actor(samples.observations))
            actor_loss = -(values if terms.weights is None else terms.weights[:, None] * values).mean()
            scale = self.loss_scale(terms, values)
            minimise(self.actor.optimizer, terms.total(actor_loss if scale == 1.0 else actor_loss / scale))
            polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
            polyak_update(self.actor.parameters(), self.actor_target.parameters(), self.tau)
            numbers["actor_loss"] = float(actor_loss.detach()) / scale
            metrics = metrics | terms.metrics
        self.strategy.on_update(metrics)
        return numbers, metrics


LEARNER = Learner("td3", "twin delayed deterministic policy gradient", TD3Config(), TD3, ("continuous",), num_envs=8)
