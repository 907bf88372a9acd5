"""Soft actor-critic: Stable-Baselines3's SAC, which an expert can guide.

With a policy pi of tanh-squashed Gaussian actions a ~ pi(.|s), twin critics Q_1, Q_2, their targets Qbar and a
temperature alpha (Haarnoja et al., arXiv 1812.05905, as in Stable-Baselines3):

    y       = R_m + gamma^m (1 - terminated) ( min_i Qbar_i(s_m, a_m) - alpha ln pi(a_m|s_m) )
    L_Q     = share_Q sum_i 1/2 E w ( Q_i(s, a_exec) - y )^2 + guidance        a_exec: executed, by learner or expert
    L_0     = E w ( alpha ln pi(a|s) - min_i Q_i(s, a) )
    L_pi    = share_pi L_0 / scale + guidance,  scale = max(floor, mean |min_i Q_i|) with guidance, else 1
    L_alpha = - ln alpha E[ ln pi(a|s) + H* ]

`Strategy.critic_terms` and `actor_terms` say weights, shares and guidance. Without a strategy the update is that of
Stable-Baselines3, bit for bit, for the same batches and noise. Shapes: B sampled transitions, D action dimensions.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.sac.policies import SACPolicy

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.learners.continuous import ContinuousOffPolicy, bootstrapped, minimise, squared_error
from lgdrl.learners.fused.sac import SACCore
from lgdrl.learners.registry import Learner
from sim.bounds import BatchSize, Bounds, Count, LearningRate, Number, Positive, Share, Whole, config_dataclass


@config_dataclass
class SACConfig:
    """Settings of `SAC`; the defaults are those of Stable-Baselines3."""

    hidden: tuple[Annotated[int, Bounds(1, 65_536)], ...] = (256, 256)  # units per hidden layer, actor and critics
    learning_rate: LearningRate = 3e-4  # Adam, all networks and alpha
    # share of the critics that flows into their targets per update
    tau: Annotated[float, Bounds(0, 1, open_low=True)] = 0.005
    gamma: Share = 0.99  # discount per decision; tasks without falls, such as Swimmer, need 0.999
    n_step: Annotated[int, Bounds(1, 1000)] = 1  # rewards before the critics' own estimate
    batch_size: BatchSize = 256  # transitions per update
    buffer_size: Count = 1_000_000  # transitions
    learning_starts: Whole = 100  # decisions with uniformly random proposals, before the first update
    # gradient steps per decision of one environment; the remainder is carried over
    updates_per_decision: Annotated[float, Bounds(0, 1000)] = 1.0
    target_entropy: Number | None = None  # H*, nats; None: -D
    alpha_initial: Positive = 1.0  # temperature at the start
    alpha_fixed: bool = False  # True: alpha stays at its initial value
    # with guidance L_0 is divided by max(this, mean |Q|), so that its weight does not depend on the reward's unit;
    # None: not at all
    loss_scale_floor: Positive | None = 1.0
    # what computes updates: compiled kernels, or torch, which is the specification and runs on any device
    core: Literal["fused", "torch"] = "fused"

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16:
            raise ValueError(f"hidden = {list(self.hidden)}: choose 1 to 16 layers")
        if self.batch_size > self.buffer_size:
            raise ValueError(f"batch_size = {self.batch_size:,} exceeds buffer_size = {self.buffer_size:,}")


class SAC(ContinuousOffPolicy, stable_baselines3.SAC):
    """Soft actor-critic on continuous actions, guided by a `Strategy`.

    Args:
        env: What to learn in.
        config: Settings.
        strategy: Integration of the expert; None is plain SAC.
        advisor: Asks the expert; None where there is none.
        label_lag: See `Guided.guide`.
        seed: Root of all random draws; None draws one.
        device: As in SB3.
        policy: Network class; here because SB3's `load` passes it.
    """

    learner_name = "sac"
    config: SACConfig
    policy: SACPolicy

    def __init__(
        self,
        env: GymEnv | str | None,
        config: SACConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = "MlpPolicy",
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or SACConfig()
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
            ent_coef=self.config.alpha_initial if self.config.alpha_fixed else f"auto_{self.config.alpha_initial}",
            target_entropy="auto" if self.config.target_entropy is None else self.config.target_entropy,
            policy_kwargs={"net_arch": list(self.config.hidden)},
            device=device,
            seed=seed,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.device.type != "cpu":
            self.config = dataclasses.replace(self.config, core="torch")
        self.core: SACCore | None = SACCore(self) if self.config.core == "fused" else None

    # -------------------------------------------------------------------------------------------------- acting

    def parameters_of(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.core is not None:
            return self.core.parameters_of(obs)
        with torch.no_grad():
            mean, log_std, _ = self.actor.get_action_dist_params(torch.as_tensor(obs, device=self.device))
        return mean.cpu().numpy(), log_std.exp().cpu().numpy()

    def explore(self, mean: np.ndarray, std: np.ndarray | None) -> np.ndarray:
        assert std is not None
        return np.tanh(mean + std * self.proposals.standard_normal(mean.shape, np.float32))

    # ------------------------------------------------------------------------------------------------ learning

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std, _ = self.actor.get_action_dist_params(samples.observations)
        return mean, log_std

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of temperature, critics, actor and targets, in this order."""
        batches = self.strategy.on_batch(self.replay, batch_size)
        samples = batches[RL]
        actions, log_prob = self._drawn(samples.observations)
        alpha, alpha_loss = self._update_alpha(log_prob)
        with torch.no_grad():
            next_actions, next_log_prob = self._drawn(samples.next_observations)
            next_q = torch.cat(self.critic_target(samples.next_observations, next_actions), dim=1)
            target = bootstrapped(samples, next_q.amin(dim=1, keepdim=True) - alpha * next_log_prob)

        terms = self.strategy.critic_terms(batches, self)
        executed = torch.from_numpy(self.scaled_actions(samples)).to(self.device)
        errors = [squared_error(q, target, terms.weights) for q in self.critic(samples.observations, executed)]
        critic_loss = 0.5 * sum(errors[1:], errors[0])
        minimise(self.critic.optimizer, terms.total(critic_loss))
        metrics = terms.metrics

        terms = self.strategy.actor_terms(batches, self)
        least_q = torch.cat(self.critic(samples.observations, actions), dim=1).amin(dim=1, keepdim=True)
        losses = alpha * log_prob - least_q
        actor_loss = (losses if terms.weights is None else terms.weights[:, None] * losses).mean()
        scale = self.loss_scale(terms, least_q)
        minimise(self.actor.optimizer, terms.total(actor_loss if scale == 1.0 else actor_loss / scale))
        metrics = metrics | terms.metrics
        polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
        self.strategy.on_update(metrics)
        numbers = torch.stack([critic_loss.detach(), actor_loss.detach() / scale, alpha.squeeze(), -log_prob.mean()])
        names = ("critic_loss", "actor_loss", "ent_coef", "entropy")
        return dict(zip(names, numbers.tolist(), strict=True)) | alpha_loss, metrics

    def _drawn(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled actions of the policy (B, D), and their log-probabilities (B, 1)."""
        mean, log_std, _ = self.actor.get_action_dist_params(observations)
        noise = torch.from_numpy(self.draw_noise(len(mean))).to(self.device)
        distribution = self.actor.action_dist.proba_distribution(mean, log_std)
        normal = distribution.distribution  # its own deviation: gradients meet in the order of Stable-Baselines3
        gaussian_actions = normal.loc + noise * normal.scale
        actions = torch.tanh(gaussian_actions)
        return actions, distribution.log_prob(actions, gaussian_actions).reshape(-1, 1)

    def _update_alpha(self, log_prob: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """The temperature before its step on L_alpha, and the loss."""
        if self.ent_coef_optimizer is None or self.log_ent_coef is None:
            return self.ent_coef_tensor, {}
        alpha = self.log_ent_coef.detach().exp()
        loss = -(self.log_ent_coef * (log_prob + float(self.target_entropy)).detach()).mean()
        minimise(self.ent_coef_optimizer, loss)
        return alpha, {"ent_coef_loss": float(loss.detach())}

    # --------------------------------------------------------------------------------------------------- files

    def learner_state(self) -> dict[str, Any]:
        log_alpha = None if self.log_ent_coef is None else self.log_ent_coef.detach().clone()
        return {**super().learner_state(), "log_alpha": log_alpha}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        super().load_learner_state(state)
        if self.log_ent_coef is not None:
            with torch.no_grad():
                self.log_ent_coef.copy_(state["log_alpha"])


LEARNER = Learner("sac", "soft actor-critic for continuous actions", SACConfig(), SAC, ("continuous",), num_envs=8)
