"""The guiding network: how much each sample counts for improvement, and how much for the constraint.

GORL-style, as specified here (after Yang et al., "Hundreds Guide Millions", arXiv 2309.01448, whose method section was
not available). With a base algorithm's losses I_i and C_i, and weights (u_i, v_i) = 2 softmax(G(x_i)):

    L(theta; w)   = mean_i( u_i I_i(theta) + v_i C_i(theta) )
    theta'(w)     = theta - eta grad_theta L                   the virtual step; its graph is kept
    E(w)          = constraint of theta'(w) towards the labels of a few states
    w            <- Adam(w, grad_w E)

The last layer of G begins at 0, so that u = v = 1: the base algorithm itself. By the chain rule

    dE/du_i = -(eta / B) <grad E(theta'), grad I_i(theta)>,    dE/dv_i alike with C_i,

so that a term gains weight where its gradient agrees with the labels'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import nn

from baselines.gorl.bases import Base
from lgdrl.guidance.replay import Samples
from sim.bounds import BatchSize, Bounds, Count, LearningRate, Positive, Share, config_dataclass


@config_dataclass
class GuideConfig:
    """Settings of the guiding network; ours, no paper's."""

    hidden: Annotated[int, Bounds(1, 4096)] = 64  # units of its one hidden layer
    learning_rate: LearningRate = 1e-3  # Adam
    virtual_step: Positive = 3e-3  # eta
    batch_size: BatchSize = 128  # labelled states per step of the guide
    every: Count = 5  # updates of the base between two steps of the guide
    start: Share = 0.1  # of the training's updates, until which the weights are 1: early critics mislead
    # what it sees: states and actions beside both losses, or the losses alone, by which it cannot tell data apart
    features: Literal["sa+losses", "losses"] = "sa+losses"


class Guide:
    """The network G and its step.

    Args:
        config: Settings.
        base: The algorithm that is guided.
        inputs: Numbers in one observation and one action together.
        seed: Of the initial parameters.
    """

    def __init__(self, config: GuideConfig, base: Base, inputs: int, seed: int) -> None:
        self.config, self.base = config, base
        width = 2 + (inputs if config.features == "sa+losses" else 0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            last = nn.Linear(config.hidden, 2)
            self.network = nn.Sequential(nn.Linear(width, config.hidden), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.optimizer = torch.optim.Adam(self.network.parameters(), config.learning_rate)

    def features(self, samples: Samples, improvement: torch.Tensor, constraint: torch.Tensor) -> torch.Tensor:
        """What the network sees: float (B, inputs), without gradient; losses are standardised within the batch."""
        losses = torch.stack([_standardised(improvement), _standardised(constraint)], dim=1)
        if self.config.features == "losses":
            return losses
        observations = samples.observations.reshape(len(samples), -1).float()
        return torch.cat([observations, self.base.actions(samples), losses], dim=1)

    def weights(self, samples: Samples) -> torch.Tensor:
        """(u, v) of every sample, float (B, 2), u + v = 2, without gradient."""
        with torch.no_grad():
            losses = self.base.losses(self.base.parameters(), samples)
            return 2 * self.network(self.features(samples, *losses)).softmax(dim=1)

    def loss(self, samples: Samples, labelled: Samples) -> torch.Tensor:
        """E(w), with gradient to the network."""
        parameters = self.base.parameters()
        improvement, constraint = self.base.losses(parameters, samples)
        weights = 2 * self.network(self.features(samples, improvement, constraint)).softmax(dim=1)
        total = (weights[:, 0] * improvement + weights[:, 1] * constraint).mean()
        slopes = torch.autograd.grad(total, list(parameters.values()), create_graph=True)
        after = {
            name: value - self.config.virtual_step * slope
            for (name, value), slope in zip(parameters.items(), slopes, strict=True)
        }
        return self.base.guidance(after, labelled)

    def step(self, samples: Samples, labelled: Samples) -> float:
        """One step of the network; returns E."""
        loss = self.loss(samples, labelled)
        self.optimizer.zero_grad()
        loss.backward(inputs=list(self.network.parameters()))
        self.optimizer.step()
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "stream": self.base.stream.bit_generator.state,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.base.stream.bit_generator.state = state["stream"]


def _standardised(values: torch.Tensor) -> torch.Tensor:
    values = values.detach()
    return (values - values.mean()) / (values.std(unbiased=False) + 1e-6)


def separation(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how surely a positive example has the higher score; equal scores count a half.

    Args:
        scores: float (R,).
        positive: bool (R,), with both values.
    Returns:
        In [0, 1]; NaN without both kinds.
    """
    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
