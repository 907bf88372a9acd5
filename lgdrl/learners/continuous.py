"""What the off-policy learners of continuous actions share: scaled actions, random streams, and how they are looked at.

Environments, labels and the replay buffer have actions in the environment's own units; networks have them scaled to
[-1, 1], as in Stable-Baselines3.

Shapes: N environments, B sampled transitions, D action dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lgdrl.guidance.gaussian import ActionScale
from lgdrl.guidance.records import PolicySummary
from lgdrl.guidance.replay import Samples
from lgdrl.guidance.terms import GaussianNetworks, Terms
from lgdrl.learners.fused.continuous import ContinuousCore
from lgdrl.learners.guided import GuidedOffPolicy
from sim.errors import UsageError


class ContinuousOffPolicy(GaussianNetworks, GuidedOffPolicy):
    """Base of learners on a Box of actions. A subclass has SB3's `actor` and `critic`."""

    config: Any
    core: ContinuousCore | None
    actor: Any
    critic: Any
    not_saved = (
        *GuidedOffPolicy.not_saved, "config", "scale", "proposals", "noise", "replay_buffer_class",
        "replay_buffer_kwargs",
    )  # fmt: skip

    def _setup_model(self) -> None:
        try:
            self.scale = ActionScale(self.action_space)
        except ValueError as error:
            raise UsageError(f"learner {self.learner_name!r}: {error}") from None
        proposals, predictions, replay, noise = np.random.SeedSequence(self.seed).spawn(4)
        self.replay_buffer_kwargs = {"seed": replay, "n_step": self.config.n_step, "gamma": self.gamma}
        super()._setup_model()
        self.proposals, self.noise = np.random.default_rng(proposals), np.random.default_rng(noise)
        self.predictions = np.random.default_rng(predictions)

    @property
    def dimensions(self) -> int:
        """D."""
        return len(self.scale.low)

    # -------------------------------------------------------------------------------------------------- acting

    def parameters_of(self, obs: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The policy before tanh, without gradient: mean, and standard deviation of a Gaussian one, float32 (N, D)."""
        raise NotImplementedError

    def explore(self, mean: np.ndarray, std: np.ndarray | None) -> np.ndarray:
        """Scaled actions (N, D) drawn for the training from what `parameters_of` returned."""
        raise NotImplementedError

    def propose(self, obs: np.ndarray, legal: np.ndarray | None, warming_up: bool) -> tuple[np.ndarray, PolicySummary]:
        """Actions drawn from the policy; in the warm-up, uniformly from the box."""
        mean, std = self.parameters_of(obs)
        if warming_up:
            scaled = self.proposals.uniform(-1.0, 1.0, mean.shape).astype(np.float32)
        else:
            scaled = self.explore(mean, std)
        return self.scale.unscaled(scaled), self._summary(mean, std)

    def _summary(self, mean: np.ndarray, std: np.ndarray | None) -> PolicySummary:
        return PolicySummary(mean=self.scale.unscaled(np.tanh(mean)), std=std)

    def values(self, obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """The smaller critic of actions (N, D)."""
        scaled = self.scale.scaled(actions)
        if self.core is not None:
            return self.core.least_values(obs, scaled)
        with torch.no_grad():
            tensors = (torch.as_tensor(values, device=self.device) for values in (obs, scaled))
            return torch.cat(self.critic(*tensors), dim=1).amin(dim=1).cpu().numpy()

    def describe(self, obs: np.ndarray, legal: np.ndarray | None) -> tuple[PolicySummary, np.ndarray | None]:
        """The greedy action and the standard deviation; there are no values of all actions."""
        return self._summary(*self.parameters_of(obs)), None

    # ------------------------------------------------------------------------------------------------ learning

    def draw_noise(self, rows: int) -> np.ndarray:
        """Standard normal numbers for an update, float32 (rows, D)."""
        return self.noise.standard_normal((rows, self.dimensions), np.float32)

    def scaled_actions(self, samples: Samples, column: str = "actions") -> np.ndarray:
        """The actions in a column of samples, scaled, float32 (B, D)."""
        return self.scale.scaled(samples.array(column))

    def action_values(self, samples: Samples, column: str = "actions") -> torch.Tensor:
        """Both critics of the actions in a column, float (2, B)."""
        actions = torch.from_numpy(self.scaled_actions(samples, column)).to(self.device)
        return torch.cat(self.critic(samples.observations, actions), dim=1).T

    def loss_scale(self, terms: Terms, least_q: torch.Tensor) -> float:
        """What the learner's own actor loss is divided by where a strategy adds a loss to it; 1 where none does."""
        floor = self.config.loss_scale_floor
        return 1.0 if terms.loss is None or floor is None else max(floor, float(least_q.detach().abs().mean()))

    # --------------------------------------------------------------------------------------------------- files

    def learner_state(self) -> dict[str, Any]:
        streams = self.proposals, self.noise, self.predictions
        return {"streams": [stream.bit_generator.state for stream in streams]}

    def load_learner_state(self, state: dict[str, Any]) -> None:
        for stream, own in zip((self.proposals, self.noise, self.predictions), state["streams"], strict=True):
            stream.bit_generator.state = own


def minimise(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """One gradient step."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def squared_error(values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """mean(weights x (values - target)^2) of float (B, 1) values; weights float (B,), None: 1."""
    if weights is None:
        return torch.nn.functional.mse_loss(values, target)
    return (weights[:, None] * (values - target).square()).mean()


def bootstrapped(samples: Samples, next_values: torch.Tensor) -> torch.Tensor:
    """rewards + discounts x next values where the episode went on, float (B, 1)."""
    rewards, discounts = samples.rewards[:, None], samples.discounts[:, None]
    return rewards + (1 - samples.terminated[:, None].float()) * discounts * next_values
