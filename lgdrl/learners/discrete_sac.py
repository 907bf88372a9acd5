"""Soft actor-critic for discrete actions, as a Stable-Baselines3 off-policy algorithm that an expert can guide.

LGDRL-style, as specified here (our notation). With a masked softmax policy pi, twin critics Q_1, Q_2, their targets
Qbar_1, Qbar_2 and a temperature alpha:

    V(s)    = sum_a pi(a|s) [ min_i Qbar_i(s, a) - alpha ln pi(a|s) ]
    L_i     = E w ( Q_i(s, a_exec) - R_m - gamma^m (1 - terminated) V(s_m) )^2  a_exec: executed, by learner or expert
    L_Q     = share_Q (L_1 + L_2) + guidance                                    `Strategy.critic_terms`
    L_0     = E w sum_a pi(a|s) [ alpha ln pi(a|s) - min_i Q_i(s, a) ] / max(floor, mean |min_i Q_i|)
    L_pi    = share_pi L_0 + guidance                                           `Strategy.actor_terms`
    L_alpha = alpha E[ H(pi(.|s)) - H* ],  H* = target_entropy_ratio ln A

R_m is the discounted sum of the next m rewards and s_m the state after them, m <= n_step (`lgdrl.guidance.replay`).
Weights w are 1 and shares are 1 unless the strategy says otherwise; L_i then is plain SAC, bit for bit.
Shapes: N environments, A actions, B sampled transitions.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.records import PolicySummary
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import RL, Strategy
from lgdrl.learners.fused.discrete_sac import FusedCore, measured
from lgdrl.learners.guided import GuidedOffPolicy
from lgdrl.learners.registry import Learner
from lgdrl.learners.softmax_policy import HIDDEN, DiscreteSACPolicy, Trainable, adam, sample_categorical
from sim.bounds import BatchSize, Bounds, Count, LearningRate, Positive, Share, Whole, config_dataclass


@config_dataclass
class DiscreteSACConfig:
    """Settings of `DiscreteSAC`. Defaults solved the mandatory lane change in 60k decisions of 32 environments."""

    hidden: tuple[Annotated[int, Bounds(1, 65_536)], ...] = HIDDEN  # units per hidden layer, actor and critics alike
    learning_rate: LearningRate = 1e-3  # Adam, all networks and alpha; 3e-4 was 20 points behind at 20k decisions
    # share of the critics that flows into their targets per update; goes with the learning rate
    tau: Annotated[float, Bounds(0, 1, open_low=True)] = 0.01
    gamma: Share = 0.99  # discount per decision
    n_step: Annotated[int, Bounds(1, 1000)] = 3  # rewards before the critics' own estimate; 1 misses distant goals
    batch_size: BatchSize = 128  # transitions per update
    buffer_size: Count = 100_000  # transitions; a whole run of the lane change fits
    learning_starts: Whole = 500  # decisions with uniformly random legal proposals, before the first update
    # gradient steps per decision of one environment; the remainder is carried over
    updates_per_decision: Annotated[float, Bounds(0, 1000)] = 0.25
    target_entropy_ratio: Share = 0.2  # H* / ln A; 0.5 keeps a driver undecided
    alpha_initial: Positive = 0.1  # temperature at the start
    alpha_cap: Positive | None = 0.1  # upper bound, None: none. A constraint holds H under H*, so free alpha runs off
    alpha_fixed: bool = False  # True: alpha stays at its initial value
    # L_0 is divided by max(this, mean |Q|), None: not at all. 0 drowns guidance
    loss_scale_floor: Positive | None = 1.0
    # what computes updates: compiled kernels, or torch, which is the specification and runs on any device
    core: Literal["fused", "torch"] = "fused"

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16:
            raise ValueError(f"hidden = {list(self.hidden)}: choose 1 to 16 layers")
        if self.batch_size > self.buffer_size:
            raise ValueError(f"batch_size = {self.batch_size:,} exceeds buffer_size = {self.buffer_size:,}")
        if self.alpha_cap is not None and self.alpha_cap < self.alpha_initial:
            raise ValueError(f"alpha_cap = {self.alpha_cap}: choose at least alpha_initial = {self.alpha_initial}")


class DiscreteSAC(GuidedOffPolicy):
    """Discrete soft actor-critic, guided by a `Strategy`.

    Works on any gymnasium environment or SB3 VecEnv with Box observations and Discrete actions. Where environments
    offer `action_masks()`, only legal actions are proposed, and successors are valued over legal actions only (a
    truncated environment names those in info["terminal_action_mask"]; without it all count as legal).

    Args:
        env: What to learn in; None only for prediction.
        config: Settings.
        strategy: Integration of the expert; None is plain SAC.
        advisor: Asks the expert; None where there is none.
        label_lag: Steps for which a label may be on its way where the strategy does not execute it; see `Guided.guide`.
        seed: Root of all random draws (network weights, proposals, replay, `predict`); None draws one.
        device, verbose, tensorboard_log, stats_window_size: As in SB3.
        policy: Network class; here because SB3's `load` passes it.
    """

    learner_name = "discrete-sac"
    policy: DiscreteSACPolicy
    actor: Trainable
    critic: Trainable
    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"MlpPolicy": DiscreteSACPolicy}

    def __init__(
        self,
        env: GymEnv | str | None,
        config: DiscreteSACConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        verbose: int = 0,
        tensorboard_log: str | None = None,
        stats_window_size: int = 100,
        policy: str | type[DiscreteSACPolicy] = DiscreteSACPolicy,
        _init_setup_model: bool = True,
    ) -> None:
        self.config = config or DiscreteSACConfig()
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
            policy_kwargs={"hidden": self.config.hidden},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
        )
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        proposals, predictions, replay = np.random.SeedSequence(self.seed).spawn(3)
        self.replay_buffer_kwargs = {"seed": replay, "n_step": self.config.n_step, "gamma": self.gamma}
        super()._setup_model()
        self._proposals = np.random.default_rng(proposals)
        self.policy.stream = np.random.default_rng(predictions)
        self.actor, self.critic = self.policy.actor, self.policy.critic
        self.target_entropy = self.config.target_entropy_ratio * math.log(self.policy.num_actions)
        self.log_alpha = torch.tensor([math.log(self.config.alpha_initial)], device=self.device, requires_grad=True)
        self.alpha_optimizer = None if self.config.alpha_fixed else adam([self.log_alpha], self.config.learning_rate)
        if self.device.type != "cpu":
            self.config = dataclasses.replace(self.config, core="torch")
        self.core: FusedCore | None = FusedCore(self) if self.config.core == "fused" else None

    @property
    def alpha(self) -> torch.Tensor:
        """Temperature, (1,), without gradient."""
        return self.log_alpha.detach().exp()

    # -------------------------------------------------------------------------------------------------- acting

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """Actions drawn from the policy; in the warm-up, uniformly from the legal ones."""
        assert legal is not None
        probs = _uniform(legal) if warming_up else self._policy_probs(obs, legal)
        return sample_categorical(probs, self._proposals), PolicySummary(probs=probs)

    def _policy_probs(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        if self.core is not None:
            return self.core.probs(obs, legal)
        with torch.no_grad():
            tensor = torch.as_tensor(obs, device=self.device)
            log_probs = self.policy.log_probs(tensor, torch.as_tensor(legal, device=self.device))
        return log_probs.exp().cpu().numpy()

    def _min_q(self, obs: np.ndarray) -> np.ndarray:
        """The smaller critic of all actions, float32 (N, A)."""
        if self.core is not None:
            return self.core.least_q(obs)
        with torch.no_grad():
            return self.policy.q_values(torch.as_tensor(obs, device=self.device)).amin(dim=0).cpu().numpy()

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The smaller critic of int (N,) actions."""
        return self._min_q(obs)[np.arange(len(obs)), actions]

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """Probabilities of the legal actions, and the smaller critic."""
        assert legal is not None
        return PolicySummary(probs=self._policy_probs(obs, legal)), self._min_q(obs)

    # ------------------------------------------------------------------------------------------------ learning

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """ln pi(.|s) of the present policy, float (B, A)."""
        assert samples.legal is not None
        return self.policy.log_probs(samples.observations, samples.legal)

    def q_values(self, samples: Samples) -> torch.Tensor:
        """Both critics, float (2, B, A)."""
        return self.policy.q_values(samples.observations)

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of critics, actor, temperature and targets, in this order."""
        batches = self.strategy.on_batch(self.replay, batch_size)
        samples, alpha = batches[RL], self.alpha
        critic_terms = self.strategy.critic_terms(batches, self)
        critic_loss = self.critic_loss(samples, alpha, critic_terms.weights)
        self.critic.minimise(critic_terms.total(critic_loss))
        log_probs = self.log_probs(samples)
        actor_terms = self.strategy.actor_terms(batches, self)
        actor_loss = self.actor_loss(samples, log_probs, alpha, actor_terms.weights)
        self.actor.minimise(actor_terms.total(actor_loss))
        entropy = -(log_probs.detach().exp() * log_probs.detach()).sum(dim=1).mean()
        alpha_loss = self._update_alpha(entropy)
        self.policy.update_targets(self.tau)
        metrics = critic_terms.metrics | actor_terms.metrics
        self.strategy.on_update(metrics)
        values = (critic_loss.detach(), actor_loss.detach(), alpha_loss, alpha.squeeze(), entropy)
        return measured(*torch.stack(values).tolist()), metrics

    def critic_loss(self, samples: Samples, alpha: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """L_1 + L_2 on the executed actions; float (B,) `weights` of the samples, None: 1."""
        assert samples.next_legal is not None
        with torch.no_grad():
            next_log_probs = self.policy.log_probs(samples.next_observations, samples.next_legal)
            next_q = self.policy.target_q_values(samples.next_observations).amin(dim=0)
            next_value = (next_log_probs.exp() * (next_q - alpha * next_log_probs)).sum(dim=1)
            target = samples.rewards + samples.discounts * (~samples.terminated) * next_value
        q = self.q_values(samples)
        executed = q.gather(2, samples.actions[None, :, None].expand(2, -1, 1)).squeeze(2)
        errors = (executed - target).square()
        return (errors if weights is None else weights * errors).mean(dim=1).sum()

    def actor_loss(
        self, samples: Samples, log_probs: torch.Tensor, alpha: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """L_0 for float (B, A) `log_probs` on the samples; mean |Q| is taken over legal actions."""
        assert samples.legal is not None
        with torch.no_grad():
            q = self.q_values(samples).amin(dim=0)
            scale = self._loss_scale(q, samples.legal)
        losses = (log_probs.exp() * (alpha * log_probs - q)).sum(dim=1)
        return (losses if weights is None else weights * losses).mean() / scale

    def _loss_scale(self, q: torch.Tensor, legal: torch.Tensor) -> torch.Tensor:
        if self.config.loss_scale_floor is None:
            return torch.ones((), device=q.device)
        return ((q.abs() * legal).sum() / legal.sum()).clamp(min=self.config.loss_scale_floor)

    def _update_alpha(self, entropy: torch.Tensor) -> torch.Tensor:
        """One step on L_alpha for the batch's mean entropy, then the cap. Returns: the loss, without gradient."""
        if self.alpha_optimizer is None:
            return torch.zeros_like(entropy)
        loss = self.alpha * (entropy - self.target_entropy)
        self.log_alpha.grad = loss  # exponential in ln alpha, so L_alpha is its own derivative
        self.alpha_optimizer.step()
        if self.config.alpha_cap is not None:
            with torch.no_grad():
                self.log_alpha.clamp_(max=math.log(self.config.alpha_cap))
        return loss.squeeze()

    # ------------------------------------------------------------------------------------ prediction and files

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """As `DiscreteSACPolicy.predict`."""
        if (
            self.core is not None
            and action_masks is not None
            and isinstance(observation, np.ndarray)
            and observation.shape[1:] == self.observation_space.shape
        ):
            probs = self.core.probs(observation, np.asarray(action_masks, bool).reshape(len(observation), -1))
            return (probs.argmax(axis=1) if deterministic else sample_categorical(probs, self.policy.stream)), state
        return self.policy.predict(observation, state, episode_start, deterministic, action_masks)

    def learner_state(self) -> dict[str, Any]:
        return {
            "log_alpha": self.log_alpha.detach().clone(),
            "proposals": self._proposals.bit_generator.state,
            "predictions": self.policy.stream.bit_generator.state,
        }

    def load_learner_state(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self._proposals.bit_generator.state = state["proposals"]
        self.policy.stream.bit_generator.state = state["predictions"]

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "actor", "critic", "alpha_optimizer", "_proposals"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        modules = ["policy", "actor.optimizer", "critic.optimizer"]
        if self.alpha_optimizer is not None:
            modules.append("alpha_optimizer")
        return modules, ["log_alpha"]


def _uniform(legal: np.ndarray) -> np.ndarray:
    """float32 (N, A): uniform over legal actions."""
    return (legal / legal.sum(axis=1, keepdims=True)).astype(np.float32)


LEARNER = Learner("discrete-sac", "soft actor-critic for discrete actions", DiscreteSACConfig(), DiscreteSAC)
