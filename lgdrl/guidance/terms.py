"""Terms: what a method adds to the losses of the learner that it guides.

`ImitationTerm` pulls the policy towards the labels with a fixed weight; `ConstraintTerm` prices the divergence from the
expert with a dual variable (`lgdrl.guidance.constraint`). Both are computed on a batch of labelled states of their own.

Shapes: A actions, B sampled transitions, C critics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lgdrl.guidance.constraint import DIVERGENCES, DivergenceName, Dual, DualConfig
from lgdrl.guidance.gaussian import GAUSSIAN_DIVERGENCES, ActionScale, unsquashed
from lgdrl.guidance.records import LearnerInfo

if TYPE_CHECKING:
    from lgdrl.guidance.replay import GuidedReplayBuffer, Samples


NEAR = 0.1
"""Of actions scaled to [-1, 1]: within this a policy agrees with a label."""


class Networks:
    """What terms may compute with: the learner's present networks on samples, with gradients.

    Here for categorical policies; `GaussianNetworks` for continuous actions.
    """

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """Log-probabilities of a categorical policy: float (B, A), finite everywhere."""
        raise NotImplementedError

    def q_values(self, samples: Samples) -> torch.Tensor:
        """All critics' values of all discrete actions: float (C, B, A)."""
        raise NotImplementedError

    def label_divergence(
        self, samples: Samples, name: DivergenceName, weight: float, measured: DivergenceName | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """How far a categorical policy is from the labels.

        Args:
            samples: Labelled ones.
            name: Which divergence, see `lgdrl.guidance.constraint`.
            weight: Factor of the first result.
            measured: The divergence of the metrics; None: the same.
        Returns:
            weight x the mean divergence, with gradient; the metrics `divergence` (the mean of the measured one) and
            `agreement` (the share of labels that are the policy's likeliest action).
        """
        assert samples.label_probs is not None
        log_probs = self.log_probs(samples)
        mean = DIVERGENCES[name](log_probs, samples.label_probs).mean()
        agreement = (log_probs.detach().argmax(dim=1) == samples.label_actions).float().mean()
        value = mean.detach()
        if measured not in (None, name):
            value = DIVERGENCES[measured](log_probs.detach(), samples.label_probs).mean()
        return weight * mean, {"divergence": float(value), "agreement": float(agreement)}


class GaussianNetworks(Networks):
    """`Networks` of a policy whose actions are tanh(u), u Gaussian; deterministic ones have the std `LABEL_STD`."""

    scale: ActionScale
    squashed: bool = True
    """False: actions are u itself."""

    def gaussian(self, samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and ln std of u, float (B, D) each."""
        raise NotImplementedError

    def action_values(self, samples: Samples, column: str = "actions") -> torch.Tensor:
        """All critics' values of the actions in a column of the samples: float (C, B)."""
        raise NotImplementedError

    def label_divergence(
        self, samples: Samples, name: DivergenceName, weight: float, measured: DivergenceName | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """As `Networks.label_divergence`, see `lgdrl.guidance.gaussian`; a label agrees where the greedy action is
        within `NEAR` of it in each dimension."""
        actions = self.scale.scaled(samples.array("label_actions"))
        label = torch.from_numpy(unsquashed(actions) if self.squashed else actions)
        squash = torch.tanh if self.squashed else torch.positive
        mean, log_std = self.gaussian(samples)
        distance = GAUSSIAN_DIVERGENCES[name](mean, log_std, label, squash).mean()
        with torch.no_grad():
            near = (squash(mean) - squash(label)).abs().amax(dim=-1) <= NEAR
            other = measured if measured not in (None, name) else None
            value = (
                distance.detach() if other is None else GAUSSIAN_DIVERGENCES[other](mean, log_std, label, squash).mean()
            )
        return weight * distance, {"divergence": float(value), "agreement": float(near.float().mean())}


@dataclass(slots=True)
class Terms:
    """What a method adds to one loss of the learner: base_share x mean(weights x base loss) + loss."""

    loss: torch.Tensor | None = None
    """Scalar with gradient; None: nothing is added."""
    weights: torch.Tensor | None = None
    """float (B,): weights of the samples of the reinforcement-learning batch in the base loss; None: all 1."""
    base_share: float = 1.0
    """Factor of the base loss."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Logged under guidance/ and passed to `Strategy.on_update`."""

    def total(self, base: torch.Tensor) -> torch.Tensor:
        """base_share x base + loss; without guidance the base loss itself, bit for bit."""
        shared = base if self.base_share == 1.0 else self.base_share * base
        return shared if self.loss is None else shared + self.loss

    @classmethod
    def combined(cls, parts: Sequence[Terms]) -> Terms:
        """Losses added, weights and shares multiplied, metrics merged."""
        total = cls()
        for part in parts:
            if part.loss is not None:
                total.loss = part.loss if total.loss is None else total.loss + part.loss
            if part.weights is not None:
                total.weights = part.weights if total.weights is None else total.weights * part.weights
            total.base_share *= part.base_share
            total.metrics |= part.metrics
        return total


class ActorTerm:
    """One term of the actor's loss, on a batch of its own. Base class: no term."""

    name: str
    """Name of its batch."""

    def sample(self, replay: GuidedReplayBuffer) -> Samples | None:
        """The samples that it is computed on; None where there are none yet."""
        return None

    def attach(self, learner: LearnerInfo) -> None:
        """Check the learner. Raises UsageError where the term cannot be computed for it."""

    def terms(self, samples: Samples, networks: Networks) -> Terms:
        """The term for the present networks."""
        return Terms()

    def on_step(self, decisions: int) -> None:
        """Before a step of the environments is chosen, with the number of decisions so far."""

    def on_update(self, metrics: Mapping[str, float]) -> None:
        """After a gradient step, with what the terms measured in it."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to continue identically."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""


class LabelTerm(ActorTerm):
    """A divergence between policy and expert, averaged over a batch of labelled states.

    Args:
        name: Name of the batch.
        divergence: Which one, see `lgdrl.guidance.constraint`.
        batch_size: Labelled states per update.
    """

    def __init__(self, name: str, divergence: DivergenceName, batch_size: int) -> None:
        self.name = name
        self.divergence: DivergenceName = divergence
        self.batch_size = batch_size

    def sample(self, replay: GuidedReplayBuffer) -> Samples | None:
        return replay.sample_labelled(self.batch_size)


class ImitationTerm(LabelTerm):
    """weight x E_labelled[ divergence ], with `rl_share` as the factor of the learner's own actor loss.

    Args:
        divergence, batch_size: As in `LabelTerm`.
        weight: Factor of the divergence.
        rl_share: Factor of the reinforcement-learning loss; 0 is pure imitation.
    """

    def __init__(self, divergence: DivergenceName, batch_size: int, weight: float = 1.0, rl_share: float = 1.0) -> None:
        super().__init__("imitation", divergence, batch_size)
        self.weight, self.rl_share = weight, rl_share

    def terms(self, samples: Samples, networks: Networks) -> Terms:
        loss, metrics = networks.label_divergence(samples, self.divergence, self.weight)
        return Terms(loss, base_share=self.rl_share, metrics=metrics)


class ConstraintTerm(LabelTerm):
    """price x E_labelled[ pull ] under the constraint E_labelled[ divergence ] <= target.

    price = dual x fading x min(1, sqrt(full_price / n)) with n labels. The dual variable takes its step after each
    gradient step.

    Args:
        divergence, batch_size: As in `LabelTerm`; the divergence is measured, and moves the dual variable.
        dual: Settings of the dual variable.
        fade: Decisions between which the term is scaled linearly to 0; None: it stays.
        pull: The divergence that the actor descends; None: the one that is measured.
        full_price: Labels from which on more of them lower the price; None: they do not.
    """

    def __init__(
        self,
        divergence: DivergenceName,
        batch_size: int,
        dual: DualConfig,
        fade: tuple[float, float] | None = None,
        pull: DivergenceName | None = None,
        full_price: int | None = None,
    ) -> None:
        super().__init__("constraint", divergence, batch_size)
        self.dual = Dual(dual)
        self.fade = fade
        self.pull: DivergenceName = pull or divergence
        self.full_price = full_price
        self._fading = 1.0
        self._discount = 1.0

    def sample(self, replay: GuidedReplayBuffer) -> Samples | None:
        if self.full_price is not None and replay.num_labelled:
            self._discount = min(1.0, math.sqrt(self.full_price / replay.num_labelled))
        return super().sample(replay)

    def terms(self, samples: Samples, networks: Networks) -> Terms:
        price = self.dual.value * self._fading * self._discount
        loss, metrics = networks.label_divergence(samples, self.pull, price, self.divergence)
        return Terms(loss if price > 0 else None, metrics=metrics | {"dual": self.dual.value, "price": price})

    def on_step(self, decisions: int) -> None:
        if self.fade is not None:
            start, end = self.fade
            self._fading = float(np.clip((end - decisions) / (end - start), 0.0, 1.0))

    def on_update(self, metrics: Mapping[str, float]) -> None:
        if "divergence" in metrics:
            self.dual.update(metrics["divergence"])

    def state_dict(self) -> dict[str, Any]:
        return {"dual": self.dual.state_dict(), "fading": self._fading}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.dual.load_state_dict(state["dual"])
        self._fading = state["fading"]
