"""Base algorithms of offline reinforcement learning: an improvement and a constraint for every sample.

    TD3+BC (arXiv 2106.06860), SAC+BC    I = -alpha Q(s, pi(s)) / scale    C = (pi(s) - a)^2, mean over dimensions
    discrete CQL (arXiv 2006.04779)      I = TD error                      C = alpha (logsumexp_a' Q(s, a') - Q(s, a))

scale is the learner's, max(`loss_scale_floor`, mean |Q|); SAC's improvement has its entropy beside Q. States are not
normalised. A base gives both losses as functions of the parameters of the network that learns, which is what a guide
differentiates (`guide`), and as the terms of a strategy (`Terms`), which is what the learner descends.

Shapes: B samples, D action dimensions, A discrete actions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from lgdrl.guidance.replay import Samples
from lgdrl.guidance.terms import GaussianNetworks, Networks, Terms
from lgdrl.learners.continuous import ContinuousOffPolicy
from lgdrl.learners.dqn import DQN
from lgdrl.learners.guided import GuidedOffPolicy
from lgdrl.learners.softmax_policy import ILLEGAL

Parameters = Mapping[str, torch.Tensor]


class Base(ABC):
    """One base algorithm on one learner.

    Args:
        model: The learner.
        alpha: Weight of the improvement (policies) or of the constraint (CQL).
        seed: Of the noise of stochastic policies in `losses`.
    """

    network: nn.Module
    """What learns: an actor, or a Q-network."""

    def __init__(self, model: GuidedOffPolicy, alpha: float, seed: np.random.SeedSequence) -> None:
        self.model, self.alpha = model, alpha
        self.stream = np.random.default_rng(seed)

    def parameters(self) -> dict[str, torch.Tensor]:
        """The present parameters, as leaves that can be differentiated."""
        return {name: value.detach().clone().requires_grad_() for name, value in self.network.named_parameters()}

    @abstractmethod
    def losses(self, parameters: Parameters, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        """Improvement and constraint of every sample, float (B,) each, with gradient to the parameters."""

    @abstractmethod
    def guidance(self, parameters: Parameters, labelled: Samples) -> torch.Tensor:
        """The constraint towards the labels of labelled samples: a mean."""

    @abstractmethod
    def terms(self, samples: Samples, networks: Networks, weights: torch.Tensor | None) -> Terms:
        """What the learner descends.

        Args:
            samples: The batch of reinforcement learning.
            networks: The learner's, on either core.
            weights: float (B, 2), of improvement and constraint; None: all 1.
        """

    of_critic = False
    """Whether the terms belong to the loss of the critic, not of the actor."""

    def follow(self) -> None:
        """Let a target network follow that the learner itself moves only while it acts."""

    @abstractmethod
    def actions(self, samples: Samples) -> torch.Tensor:
        """The actions of the data as a network takes them, float (B, D) scaled or (B, A) one-hot."""


class _Distribution(nn.Module):
    """An actor's mean and ln std before tanh, as a module that can be called with other parameters."""

    def __init__(self, actor: Any) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std, _ = self.actor.get_action_dist_params(observations)
        return mean, log_std


class PolicyBase(Base):
    """TD3+BC and SAC+BC."""

    model: ContinuousOffPolicy

    def __init__(self, model: ContinuousOffPolicy, alpha: float, seed: np.random.SeedSequence) -> None:
        super().__init__(model, alpha, seed)
        self.stochastic = hasattr(model.actor, "get_action_dist_params")
        self.network = _Distribution(model.actor) if self.stochastic else model.actor

    def losses(self, parameters: Parameters, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        observations, model = samples.observations, self.model
        if self.stochastic:
            mean, log_std = functional_call(self.network, dict(parameters), (observations,))
            noise = torch.from_numpy(self.stream.standard_normal(mean.shape, np.float32))
            drawn = model.actor.action_dist.proba_distribution(mean, log_std)
            before = mean + log_std.exp() * noise
            actions, greedy = torch.tanh(before), torch.tanh(mean)
            bonus = self._temperature() * drawn.log_prob(actions, before)
        else:
            actions = greedy = functional_call(self.network, dict(parameters), (observations,))
            bonus = torch.zeros(len(samples))
        critics = model.critic(observations, actions)
        least = torch.cat(critics if self.stochastic else critics[:1], dim=1).amin(dim=1)  # TD3 improves on the first
        scale = self._scale(least)
        return self.alpha * (bonus - least) / scale, (greedy - self.actions(samples)).square().mean(dim=1)

    def _temperature(self) -> float:
        log_alpha = self.model.log_ent_coef  # type: ignore[attr-defined]
        return float(self.model.ent_coef_tensor if log_alpha is None else log_alpha.detach().exp())  # type: ignore[attr-defined]

    def _scale(self, least: torch.Tensor) -> float:
        floor = self.model.config.loss_scale_floor
        return 1.0 if floor is None else max(floor, float(least.detach().abs().mean()))

    def guidance(self, parameters: Parameters, labelled: Samples) -> torch.Tensor:
        found = functional_call(self.network, dict(parameters), (labelled.observations,))
        greedy = torch.tanh(found[0]) if self.stochastic else found
        labels = torch.from_numpy(self.model.scaled_actions(labelled, "label_actions"))
        return (greedy - labels).square().mean()

    def terms(self, samples: Samples, networks: Networks, weights: torch.Tensor | None) -> Terms:
        assert isinstance(networks, GaussianNetworks)
        mean, _ = networks.gaussian(samples)
        constraint = (torch.tanh(mean) - self.actions(samples)).square().mean(dim=1)
        weighted = constraint if weights is None else weights[:, 1] * constraint
        metrics = {"constraint": float(constraint.detach().mean())}
        return Terms(weighted.mean(), None if weights is None else weights[:, 0], self.alpha, metrics)

    def actions(self, samples: Samples) -> torch.Tensor:
        return torch.from_numpy(self.model.scaled_actions(samples))


class ValueBase(Base):
    """Discrete CQL: the constraint lies in the critic."""

    model: DQN
    of_critic = True

    def __init__(self, model: DQN, alpha: float, seed: np.random.SeedSequence) -> None:
        super().__init__(model, alpha, seed)
        self.network = model.q_net

    def losses(self, parameters: Parameters, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        assert samples.legal is not None
        values = functional_call(self.network, dict(parameters), (samples.observations,))
        chosen = values.gather(1, samples.actions[:, None])[:, 0]
        errors = nn.functional.smooth_l1_loss(chosen, self._targets(samples), reduction="none")
        return errors, self.alpha * _gap(values, samples.legal, samples.actions)

    def follow(self) -> None:
        self.model.q_net_target.load_state_dict(self.network.state_dict())

    def _targets(self, samples: Samples) -> torch.Tensor:
        model = self.model
        assert samples.next_legal is not None
        with torch.no_grad():
            later = model.q_net_target(samples.next_observations)
            judge = model.q_net(samples.next_observations) if model.config.double else later
            best = judge.masked_fill(~samples.next_legal, ILLEGAL).argmax(dim=1, keepdim=True)
            goes_on = (~samples.terminated).float() * samples.discounts
            return samples.rewards + goes_on * later.gather(1, best)[:, 0]

    def guidance(self, parameters: Parameters, labelled: Samples) -> torch.Tensor:
        assert labelled.legal is not None
        values = functional_call(self.network, dict(parameters), (labelled.observations,))
        return _gap(values, labelled.legal, labelled.label_actions).mean()

    def terms(self, samples: Samples, networks: Networks, weights: torch.Tensor | None) -> Terms:
        assert samples.legal is not None
        gaps = self.alpha * _gap(networks.q_values(samples)[0], samples.legal, samples.actions)
        weighted = gaps if weights is None else weights[:, 1] * gaps
        metrics = {"constraint": float(gaps.detach().mean())}
        return Terms(weighted.mean(), None if weights is None else weights[:, 0], metrics=metrics)

    def actions(self, samples: Samples) -> torch.Tensor:
        return nn.functional.one_hot(samples.actions, self.model.num_actions).float()


def _gap(values: torch.Tensor, legal: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """logsumexp over legal actions less the value of one of them: float (B,) >= 0."""
    return values.masked_fill(~legal, ILLEGAL).logsumexp(dim=1) - values.gather(1, actions[:, None])[:, 0]


def base_of(model: GuidedOffPolicy, alpha: float, seed: np.random.SeedSequence) -> Base:
    """The base algorithm of a learner."""
    if isinstance(model, DQN):
        return ValueBase(model, alpha, seed)
    assert isinstance(model, ContinuousOffPolicy)
    return PolicyBase(model, alpha, seed)
