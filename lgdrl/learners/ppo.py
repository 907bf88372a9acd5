"""Proximal policy optimisation: Stable-Baselines3's PPO, to which an expert may hand over single steps.

PPO learns only from actions that its own policy drew (Schulman et al., arXiv 1707.06347). Where an arbiter lets the
expert act, the step counts for values and advantages, and is left out of the surrogate and of the entropy:

    L = E_own[ - min( r A, clip(r, 1 - eps, 1 + eps) A ) ] + c_v E[ (V - R)^2 ] - c_e E_own[ H(pi) ] + guidance
    r = pi(a|s) / pi_old(a|s),    A: advantages (GAE), normalised over the own steps of a minibatch

Labelled steps are kept for the terms of strategies (`Strategy.actor_terms`), which thus work as with other learners;
what draws its own batches of experience needs an off-policy learner. Actions may be discrete, with legal ones, or
continuous: a Gaussian that is not squashed, cut to the box when it is executed, as in Stable-Baselines3. Without an
expert and with all actions legal the update is that of Stable-Baselines3, bit for bit, for the same rollouts.

Shapes: N environments, A actions, D action dimensions, B samples of a minibatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import stable_baselines3
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import CategoricalDistribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv

from lgdrl.guidance.advisor import Advisor
from lgdrl.guidance.constraint import DivergenceName
from lgdrl.guidance.gaussian import ActionScale
from lgdrl.guidance.records import PolicySummary, Transitions
from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
from lgdrl.guidance.strategy import Strategy
from lgdrl.guidance.terms import GaussianNetworks, Networks
from lgdrl.learners.guided import Guided
from lgdrl.learners.registry import Learner
from lgdrl.learners.softmax_policy import ILLEGAL, sample_categorical
from sim.bounds import BatchSize, Bounds, Count, LearningRate, NonNegative, Positive, Share, config_dataclass
from sim.errors import UsageError


@config_dataclass
class PPOConfig:
    """Settings of `PPO`; the defaults are those of Stable-Baselines3, but for the steps of a rollout, which are counted
    over all environments."""

    hidden: tuple[Annotated[int, Bounds(1, 65_536)], ...] = (64, 64)  # units per hidden layer, actor and critic each
    learning_rate: LearningRate = 3e-4  # Adam
    # decisions between updates, over all environments; rounded up to whole steps of all of them
    rollout: Count = 2048
    batch_size: BatchSize = 64  # samples of a minibatch
    epochs: Count = 10  # passes over a rollout
    gamma: Share = 0.99  # discount per decision
    gae_lambda: Share = 0.95  # of the generalised advantage estimate
    clip_range: Positive = 0.2  # eps
    entropy_weight: NonNegative = 0.0  # c_e
    value_weight: NonNegative = 0.5  # c_v
    max_grad_norm: Positive = 0.5  # the gradient is scaled down to this norm
    target_kl: Positive | None = None  # nats: an update ends where the policy has moved 1.5 times as far; None: never
    buffer_size: Count = 100_000  # labelled steps that are kept for the terms of strategies

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= 16:
            raise ValueError(f"hidden = {list(self.hidden)}: choose 1 to 16 layers")
        if self.batch_size > self.rollout:
            raise ValueError(f"batch_size = {self.batch_size:,} exceeds rollout = {self.rollout:,}")


class GuidedRolloutBuffer(RolloutBuffer):
    """SB3's rollout with the legal actions of each step, and whether the learner's own action was executed."""

    legal: np.ndarray | None
    """bool (steps, N, A); None where actions are continuous."""
    own: np.ndarray
    """bool (steps, N)"""

    def reset(self) -> None:
        super().reset()
        shape = (self.buffer_size, self.n_envs)
        self.own = np.ones(shape, bool)
        space = self.action_space
        self.legal = np.ones((*shape, int(space.n)), bool) if isinstance(space, spaces.Discrete) else None

    def add_step(
        self,
        obs: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        starts: np.ndarray,
        estimates: tuple[torch.Tensor, torch.Tensor],
        legal: np.ndarray | None,
        own: np.ndarray,
    ) -> None:
        """Store a step of all environments; see `RolloutBuffer.add`.

        Args:
            obs, actions, rewards, starts: As there.
            estimates: Values and log-probabilities of the learner's actions, (N,) each.
            legal: bool (N, A); None where actions are continuous.
            own: bool (N,): the learner's own action was executed.
        """
        self.own[self.pos] = own
        if self.legal is not None:
            self.legal[self.pos] = legal
        self.add(obs, actions, rewards, starts, *estimates)

    def minibatches(
        self, batch_size: int, draws: np.random.Generator
    ) -> Iterator[tuple[RolloutBufferSamples, torch.Tensor | None, torch.Tensor]]:
        """Once through the full rollout in random order.

        Args:
            batch_size: Samples of each minibatch.
            draws: Random stream of the order.
        Yields:
            SB3's samples, legal actions bool (B, A) or None, own steps bool (B,).
        """
        if not self.generator_ready:
            for name in ("observations", "actions", "values", "log_probs", "advantages", "returns", "own", "legal"):
                values = getattr(self, name)
                setattr(self, name, None if values is None else self.swap_and_flatten(values))
            self.generator_ready = True
        order = draws.permutation(len(self.own))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            legal = None if self.legal is None else torch.from_numpy(self.legal[rows])
            yield self._get_samples(rows), legal, torch.from_numpy(self.own[rows, 0])


class PPO(GaussianNetworks, Guided, stable_baselines3.PPO):
    """PPO, guided by a `Strategy`. Arguments as every learner's, see `lgdrl.learners.registry.Learner`."""

    learner_name = "ppo"
    on_policy = True
    squashed = False
    policy: ActorCriticPolicy
    rollout_buffer: GuidedRolloutBuffer
    not_saved: ClassVar[tuple[str, ...]] = (
        *Guided.not_saved, "config", "draws", "labels", "scale", "rollout_buffer_class", "_drawn", "_estimates",
    )  # fmt: skip

    def __init__(
        self,
        env: GymEnv | str | None,
        config: PPOConfig | None = None,
        strategy: Strategy | None = None,
        advisor: Advisor | None = None,
        *,
        label_lag: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        policy: Any = "MlpPolicy",
        _init_setup_model: bool = True,
    ) -> None:
        if label_lag:
            raise UsageError(f"label_lag = {label_lag}: learner 'ppo' learns from whole rollouts at once; choose 0")
        self.config = config or PPOConfig()
        self.guide(strategy, advisor, label_lag)
        num_envs = getattr(env, "num_envs", 1)
        super().__init__(
            policy,
            env,  # type: ignore[arg-type]
            learning_rate=self.config.learning_rate,
            n_steps=max(-(-self.config.rollout // num_envs), 2),
            batch_size=self.config.batch_size,
            n_epochs=self.config.epochs,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
            clip_range=self.config.clip_range,
            ent_coef=self.config.entropy_weight,
            vf_coef=self.config.value_weight,
            max_grad_norm=self.config.max_grad_norm,
            target_kl=self.config.target_kl,
            rollout_buffer_class=GuidedRolloutBuffer,
            policy_kwargs={"net_arch": list(self.config.hidden)},
            device=device,
            seed=seed,
            _init_setup_model=_init_setup_model,
        )

    def _setup_model(self) -> None:
        draws, predictions, replay = np.random.SeedSequence(self.seed).spawn(3)
        self.draws, self.predictions = np.random.default_rng(draws), np.random.default_rng(predictions)
        if isinstance(self.action_space, spaces.Box):
            try:
                self.scale = ActionScale(self.action_space)
            except ValueError as error:
                raise UsageError(f"learner 'ppo': {error}") from None
        super()._setup_model()
        self.labels = GuidedReplayBuffer(
            self.config.buffer_size, self.observation_space, self.action_space, self.device, seed=replay
        )

    @property
    def replay(self) -> GuidedReplayBuffer:
        """The labelled steps."""
        return self.labels

    # -------------------------------------------------------------------------------------------------- acting

    def _distribution(self, obs: torch.Tensor, legal: torch.Tensor | None) -> tuple[Any, torch.Tensor]:
        """The policy's distribution over actions, and values (B, 1)."""
        features = self.policy.extract_features(obs)
        latent_pi, latent_vf = self.policy.mlp_extractor(features)
        kind = self.policy.action_dist
        if legal is not None and isinstance(kind, CategoricalDistribution):
            distribution: Any = kind.proba_distribution(self.policy.action_net(latent_pi).masked_fill(~legal, ILLEGAL))
        else:
            distribution = self.policy._get_action_dist_from_latent(latent_pi)
        return distribution, self.policy.value_net(latent_vf)

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """Actions drawn from the policy, cut to the box where they are continuous."""
        with torch.no_grad():
            tensor = torch.as_tensor(obs, device=self.device)
            distribution, values = self._distribution(tensor, None if legal is None else torch.from_numpy(legal))
            summary = self._summary(distribution)
            if legal is not None:
                assert summary.probs is not None
                drawn = sample_categorical(summary.probs, self.draws)
                proposals = drawn
            else:
                normal = distribution.distribution
                noise = self.draws.standard_normal(normal.mean.shape, np.float32)
                drawn = (normal.mean + normal.stddev * torch.from_numpy(noise)).numpy()
                proposals = np.clip(drawn, self.scale.low, self.scale.high)
            log_probs = distribution.log_prob(torch.from_numpy(drawn))
        self._drawn, self._estimates = drawn, (values.flatten(), log_probs)
        return proposals, summary

    def _summary(self, distribution: Any) -> PolicySummary:
        if isinstance(distribution, CategoricalDistribution):
            return PolicySummary(probs=distribution.distribution.probs.numpy())
        normal = distribution.distribution
        mean = np.clip(normal.mean.numpy(), self.scale.low, self.scale.high)
        return PolicySummary(mean=mean, std=normal.stddev.numpy() / self.scale.half)

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The value of the states, whatever the actions: this learner has no critic of actions."""
        with torch.no_grad():
            return self.policy.predict_values(torch.as_tensor(obs, device=self.device)).flatten().numpy()

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """The policy; there are no values of all actions."""
        with torch.no_grad():
            masks = None if legal is None else torch.from_numpy(legal)
            return self._summary(self._distribution(torch.as_tensor(obs), masks)[0]), None

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        """SB3's, with the collector between policy and environments."""
        assert isinstance(rollout_buffer, GuidedRolloutBuffer)
        self.policy.set_training_mode(False)
        rollout_buffer.reset()
        callback.on_rollout_start()
        for _ in range(n_rollout_steps):
            obs, starts = self._last_obs, self._last_episode_starts
            assert isinstance(obs, np.ndarray)
            assert isinstance(starts, np.ndarray)
            execution = self.collector.act(env, obs, self.num_timesteps, False)
            legal = None if self.context is None else self.context.legal
            new_obs, rewards, dones, infos = env.step(execution.actions)
            assert isinstance(new_obs, np.ndarray)
            self.num_timesteps += env.num_envs
            self._last_obs, self._last_episode_starts = new_obs, dones
            callback.update_locals(locals())
            if not callback.on_step():
                return False
            self._update_info_buffer(infos, dones)
            (finished,) = self.collector.finish(env, new_obs, rewards, dones, infos)
            self.store([finished])
            rollout_buffer.add_step(
                obs, self._drawn, self._bootstrapped(finished), starts, self._estimates, legal, ~execution.intervened
            )
        with torch.no_grad():
            last = self.policy.predict_values(torch.as_tensor(new_obs, device=self.device))
        rollout_buffer.compute_returns_and_advantage(last_values=last, dones=dones)
        callback.update_locals(locals())
        callback.on_rollout_end()
        return True

    def store(self, finished: Iterable[Transitions]) -> None:
        """Keep the labelled ones."""
        for transitions in finished:
            if transitions.labels.given.any():
                super().store([transitions.take(np.flatnonzero(transitions.labels.given))])

    def _bootstrapped(self, finished: Transitions) -> np.ndarray:
        """Rewards, with the value of the last state where an episode was cut off."""
        rewards = finished.rewards.copy()
        for i in np.flatnonzero(finished.truncated):  # one by one: products of several rows round differently
            with torch.no_grad():
                last = self.policy.predict_values(torch.as_tensor(finished.next_obs[i : i + 1], device=self.device))
            rewards[i] += float(self.gamma * last)
        return rewards

    # ------------------------------------------------------------------------------------------------ learning

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """ln pi(.|s), float (B, A)."""
        return self._distribution(samples.observations, samples.legal)[0].distribution.logits

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and ln std of actions scaled to [-1, 1]; they are not squashed."""
        normal = self._distribution(samples.observations, None)[0].distribution
        low, half = torch.from_numpy(self.scale.low), torch.from_numpy(self.scale.half)
        return (normal.mean - low) / half - 1.0, (normal.stddev / half).log()

    def label_divergence(
        self, samples: Samples, name: DivergenceName, weight: float, measured: DivergenceName | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        kind = Networks if isinstance(self.action_space, spaces.Discrete) else GaussianNetworks
        return kind.label_divergence(self, samples, name, weight, measured)

    def train(self) -> None:
        """`epochs` passes over the rollout.

        Raises:
            NotFinite: A loss is not finite.
        """
        self.policy.set_training_mode(True)
        found: list[tuple[dict[str, float], dict[str, float]]] = []
        for _ in range(self.config.epochs):
            finished = self._epoch(found)
            self._n_updates += 1
            if not finished:
                break
        self.record_updates([numbers for numbers, _ in found])
        self.record_guidance([metrics for _, metrics in found])

    def _epoch(self, found: list[tuple[dict[str, float], dict[str, float]]]) -> bool:
        """One pass; what minibatches measured goes to `found`. Returns: False where `target_kl` ended it."""
        for samples, legal, own in self.rollout_buffer.minibatches(self.config.batch_size, self.draws):
            batches = self.strategy.term_batches(self.replay)
            terms = self.strategy.actor_terms(batches, self)
            loss, numbers = self.losses(samples, legal, own)
            limit = self.config.target_kl
            if limit is not None and numbers["approx_kl"] > 1.5 * limit:
                return False
            self.policy.optimizer.zero_grad()
            terms.total(loss).backward()
            torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
            self.policy.optimizer.step()
            self.strategy.on_update(terms.metrics)
            found.append((numbers, terms.metrics))
        return True

    def losses(
        self, samples: RolloutBufferSamples, legal: torch.Tensor | None, own: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """L without guidance, and what is logged.

        Args:
            samples: A minibatch.
            legal: bool (B, A); None where actions are continuous.
            own: bool (B,): steps in which the learner's own action was executed.
        """
        actions = samples.actions if legal is None else samples.actions.long().flatten()
        distribution, values = self._distribution(samples.observations, legal)
        log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        advantages, old, eps = samples.advantages, samples.old_log_prob, self.config.clip_range
        if not own.all():
            log_probs, entropy, advantages, old = log_probs[own], entropy[own], advantages[own], old[own]
        if len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        value_loss = torch.nn.functional.mse_loss(samples.returns, values.flatten())
        numbers = {"value_loss": float(value_loss.detach()), "approx_kl": 0.0}
        loss = self.config.value_weight * value_loss
        if len(advantages):
            ratio = torch.exp(log_probs - old)
            clipped = advantages * torch.clamp(ratio, 1 - eps, 1 + eps)
            policy_loss = -torch.min(advantages * ratio, clipped).mean()
            entropy_loss = -torch.mean(entropy)
            loss = policy_loss + self.config.entropy_weight * entropy_loss + loss
            log_ratio = (log_probs - old).detach()
            numbers |= {
                "policy_gradient_loss": float(policy_loss.detach()),
                "entropy": -float(entropy_loss.detach()),
                "approx_kl": float(((log_ratio.exp() - 1) - log_ratio).mean()),
                "clip_fraction": float(((ratio.detach() - 1).abs() > eps).float().mean()),
            }
        return loss, numbers

    # --------------------------------------------------------------------------------------------------- files

    def learner_state(self) -> dict[str, Any]:
        return {"streams": [stream.bit_generator.state for stream in (self.draws, self.predictions)]}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        for stream, own in zip((self.draws, self.predictions), state["streams"], strict=True):
            stream.bit_generator.state = own


LEARNER = Learner(
    "ppo", "proximal policy optimisation", PPOConfig(), PPO, ("discrete", "continuous"), on_policy=True, num_envs=8
)
