"""How far a Gaussian policy is from its expert's continuous action.

As specified here. Actions are scaled to [-1, 1] and are tanh(u) of a Gaussian u ~ N(mean, std^2), independent in each
dimension. A bare label a stands for the distribution tanh(u), u ~ N(artanh a, `LABEL_STD`^2). Since tanh is invertible,
divergences of the actions are those of the Gaussians before it; of several dimensions the mean is taken, so that a
target in nats means the same for a swimmer and a humanoid. A deterministic policy counts as a Gaussian of std
`LABEL_STD`. Natural logarithms: every value but `bc` is in nats.

Shapes: `mean`, `log_std`, `label` float (B, D), all before tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces

from lgdrl.guidance.constraint import LN2, DivergenceName

LABEL_STD = 0.3
"""Standard deviation of a label before tanh: near 0 it is as much in the action itself."""
LARGEST = 0.98
"""Labels count as no nearer to the bounds than this, where artanh is still moderate (2.3)."""
NODES = 12
"""Of the quadrature of `js`."""

Squash = Callable[[torch.Tensor], torch.Tensor]
"""From before tanh to the action: tanh, or the identity of policies that are not squashed."""
GaussianDivergence = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Squash], torch.Tensor]
_points, _weights = np.polynomial.hermite_e.hermegauss(NODES)
_POINTS = torch.from_numpy(_points.astype(np.float32))
_WEIGHTS = torch.from_numpy((_weights / _weights.sum()).astype(np.float32))


def unsquashed(actions: np.ndarray) -> np.ndarray:
    """artanh of actions scaled to [-1, 1], cut to `LARGEST`; float32, same shape."""
    return np.arctanh(np.clip(actions, -LARGEST, LARGEST)).astype(np.float32)


def js(mean: torch.Tensor, log_std: torch.Tensor, label: torch.Tensor, squash: Squash = torch.tanh) -> torch.Tensor:
    """Jensen-Shannon divergence of policy and label. Returns: (B,) in [0, ln 2].

    With the narrower Gaussian n and the wider one w, and r = w / n, it is
    ln 2 - 1/2 E_n[ ln(1 + r) + r ln(1 + 1 / r) ], whose expectation is taken by Gauss-Hermite quadrature.
    """
    narrow = log_std < math.log(LABEL_STD)
    std, other = log_std.exp(), torch.full_like(log_std, LABEL_STD)
    near, far = torch.where(narrow, std, other)[..., None], torch.where(narrow, other, std)[..., None]
    offset = torch.where(narrow, mean - label, label - mean)[..., None]
    points = near * _POINTS + offset
    log_ratio = near.log() - far.log() + 0.5 * (_POINTS.square() - (points / far).square())
    log_ratio = log_ratio.clamp(max=20.0)  # from there on r ln(1 + 1 / r) is 1 in float32
    softplus = torch.nn.functional.softplus
    expected = ((softplus(log_ratio) + log_ratio.exp() * softplus(-log_ratio)) * _WEIGHTS).sum(-1)
    return (LN2 - 0.5 * expected).clamp(0.0, LN2).mean(-1)


def kl(mean: torch.Tensor, log_std: torch.Tensor, label: torch.Tensor, squash: Squash = torch.tanh) -> torch.Tensor:
    """KL(expert || policy). Returns: (B,) >= 0."""
    square = LABEL_STD**2 + (mean - label).square()
    return (log_std - math.log(LABEL_STD) + 0.5 * square * (-2 * log_std).exp() - 0.5).mean(-1)


def reverse_kl(
    mean: torch.Tensor, log_std: torch.Tensor, label: torch.Tensor, squash: Squash = torch.tanh
) -> torch.Tensor:
    """KL(policy || expert). Returns: (B,) >= 0."""
    square = (2 * log_std).exp() + (mean - label).square()
    return (math.log(LABEL_STD) - log_std + 0.5 * square / LABEL_STD**2 - 0.5).mean(-1)


def bc(mean: torch.Tensor, log_std: torch.Tensor, label: torch.Tensor, squash: Squash = torch.tanh) -> torch.Tensor:
    """Behaviour cloning: the squared distance of the greedy action from the label. Returns: (B,) >= 0."""
    return (squash(mean) - squash(label)).square().mean(-1)


GAUSSIAN_DIVERGENCES: dict[DivergenceName, GaussianDivergence] = {
    "js": js,
    "kl": kl,
    "reverse_kl": reverse_kl,
    "bc": bc,
}


class ActionScale:
    """A box of actions, scaled to [-1, 1] as Stable-Baselines3 does.

    Args:
        space: A Box of one dimension with finite bounds.
    Raises:
        ValueError: It has other bounds.
    """

    def __init__(self, space: spaces.Space) -> None:
        if not isinstance(space, spaces.Box) or len(space.shape) != 1 or not space.is_bounded():
            raise ValueError(f"action_space = {space}: expected a Box of one dimension with finite bounds")
        self.low, self.high = space.low.astype(np.float32), space.high.astype(np.float32)
        self.half = 0.5 * (self.high - self.low)

    def scaled(self, actions: np.ndarray) -> np.ndarray:
        """Actions (..., D) of the environment in [-1, 1], float32."""
        return (2.0 * ((actions - self.low) / (self.high - self.low)) - 1.0).astype(np.float32)

    def unscaled(self, scaled: np.ndarray) -> np.ndarray:
        """Inverse of `scaled`."""
        return (self.low + (0.5 * (scaled + 1.0) * (self.high - self.low))).astype(np.float32)


def distance(mean: np.ndarray, std: np.ndarray | None, labels: np.ndarray, space: spaces.Space) -> np.ndarray:
    """`js` of a policy and of labels in the environment's own units.

    Args:
        mean: Greedy actions, float (N, D).
        std: Of the policy before tanh, float (N, D); None: it is deterministic.
        labels: Actions, float (N, D).
        space: Of the actions.
    Returns:
        float32 (N,), nats.
    """
    scale = ActionScale(space)
    own, label = (torch.from_numpy(unsquashed(scale.scaled(values))) for values in (mean, labels))
    log_std = torch.full_like(own, math.log(LABEL_STD)) if std is None else torch.from_numpy(np.log(std))
    return js(own, log_std, label).numpy()
