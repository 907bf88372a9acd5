"""How far a policy is from its expert, and the dual variable that prices that distance.

LGDRL-style, as specified here: minimise the SAC actor loss subject to C = E[divergence] <= delta on labelled states,
through the Lagrangian L_pi = L_0 + dual * C. The divergence is Jensen-Shannon by default; forward KL, reverse KL and
behaviour cloning are there for the ablation. Natural logarithms throughout, so every value is in nats.

Shapes: `log_p` float (B, A) log-probabilities of the policy, `q` float (B, A) probabilities of the expert. Illegal
actions have probability 0 on both sides; their `log_p` may be -inf or any value whose exponential is 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch

from sim.bounds import NonNegative, config_dataclass

LN2 = math.log(2.0)

EXPERT_FLOOR = 1e-6
"""Expert probability below which `reverse_kl` counts no further, so that a hard label costs at most ln 1e6 = 13.8."""

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def js(log_p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence 1/2 KL(p || m) + 1/2 KL(q || m), m = (p + q) / 2, per state.

    Returns: (B,) in [0, ln 2]; symmetric, 0 exactly when both agree, ln 2 when they share no action.
    """
    p = log_p.exp()
    total = p + q
    log_m = total.clamp(min=torch.finfo(total.dtype).tiny).log() - LN2
    from_policy = p * (log_p - log_m).masked_fill(p == 0, 0.0)
    from_expert = torch.xlogy(q, q) - q * log_m
    return (0.5 * (from_policy + from_expert).sum(-1)).clamp(0.0, LN2)


def kl(log_p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(expert || policy) = sum_a q (ln q - ln p), per state. Returns: (B,) >= 0, unbounded."""
    return (torch.xlogy(q, q) - q * log_p.masked_fill(q == 0, 0.0)).sum(-1).clamp(min=0.0)


def reverse_kl(log_p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(policy || expert) = sum_a p (ln p - ln max(q, EXPERT_FLOOR)), per state.

    Returns: (B,) at most 13.8 thanks to the floor, which may take it below 0 by no more than A * EXPERT_FLOOR.
    """
    p = log_p.exp()
    return (p * (log_p - q.clamp(min=EXPERT_FLOOR).log()).masked_fill(p == 0, 0.0)).sum(-1)


def bc(log_p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Behaviour cloning -ln pi(u), where u = argmax_a q is the expert's label, per state. Returns: (B,) >= 0."""
    return -log_p.gather(-1, q.argmax(-1, keepdim=True)).squeeze(-1)


DivergenceName = Literal["js", "kl", "reverse_kl", "bc"]
DIVERGENCES: dict[DivergenceName, Divergence] = {"js": js, "kl": kl, "reverse_kl": reverse_kl, "bc": bc}


def js_of_label(p: torch.Tensor) -> torch.Tensor:
    """Closed form of `js` for a hard label that the policy gives probability p in [0, 1]; any shape.

    JS(p) = ln 2 + 1/2 [p ln p - (1 + p) ln(1 + p)], so JS(1) = 0 and JS(0) = ln 2.
    """
    return LN2 + 0.5 * (torch.xlogy(p, p) - torch.xlogy(1 + p, 1 + p))


@config_dataclass
class DualConfig:
    """The dual variable. Defaults are those that guided the mandatory lane change best, with KL as the pull. Where the
    actor descends JS itself, whose gradient at a uniform policy is a sixth of that, take six times `initial` and
    `step_size`."""

    initial: NonNegative = 1.0  # per nat; with KL as the pull, the weight of plain behaviour cloning
    target: NonNegative = 0.03  # nats, delta; 0.1 was too loose over the 60 decisions of an episode
    step_size: NonNegative = 0.002  # eta, per gradient step
    maximum: NonNegative = 20.0  # per nat; beyond it the RL loss no longer counts
    fixed: bool = False  # True: `initial` stays, whatever the divergence

    def __post_init__(self) -> None:
        if self.initial > self.maximum:
            raise ValueError(f"initial = {self.initial} must lie in [0, maximum = {self.maximum}]")


class Dual:
    """The price of leaving the expert: rises while the divergence exceeds its target, falls to 0 while it does not."""

    def __init__(self, config: DualConfig | None = None) -> None:
        self.config = config or DualConfig()
        self.value = self.config.initial

    def update(self, divergence: float) -> float:
        """One dual ascent step, dual <- clip(dual + eta (C - delta), 0, maximum).

        Args: divergence: the present estimate of C, in nats.
        Returns: the new value. Raises ValueError where C is not finite.
        """
        if not math.isfinite(divergence):
            raise ValueError(f"divergence = {divergence}: the policy or the expert's probabilities are not finite")
        config = self.config
        if not config.fixed:
            moved = self.value + config.step_size * (divergence - config.target)
            self.value = min(max(moved, 0.0), config.maximum)
        return self.value

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.value = float(state["value"])
