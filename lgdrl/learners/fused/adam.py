"""Adam on flat memory: a torch optimizer whose step is one compiled pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from lgdrl.learners.fused.perceptron import Perceptron
from sim.compiled import kernel

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""torch's defaults."""


class FlatAdam(torch.optim.Adam):
    """torch's Adam for the parameters of a `Perceptron`: its formula, and its state, saved and loaded alike.

    `step` reads the gradients that torch left in the parameters, as ever. Kernels take steps on `mean` and `square`,
    and report them by `add_steps`.

    Args:
        network: On whose memory.
        parameters: All its parameters, in any order.
        learning_rate: Step size.
    """

    def __init__(self, network: Perceptron, parameters: list[torch.Tensor], learning_rate: float) -> None:
        super().__init__(parameters, lr=learning_rate, fused=True)
        start = network.memory.theta.ctypes.data
        self._places = [(parameter.data_ptr() - start) // 4 for parameter in parameters]
        self.mean, self.square = np.zeros((2, network.size), np.float32)
        """Moving means of the gradients and of their squares, float32 (size,)."""
        self._counts = torch.zeros(len(parameters))
        """Steps taken, of each parameter: float32 (P,), whose views are torch's counters."""
        self._bind()

    def _bind(self) -> None:
        """Take over the optimizer's state, and make it views of the flat memory."""
        parameters = self.param_groups[0]["params"]
        for parameter, at, count in zip(parameters, self._places, self._counts, strict=True):
            state = self.state[parameter]
            for name, flat in (("exp_avg", self.mean), ("exp_avg_sq", self.square)):
                view = torch.from_numpy(flat[at : at + parameter.numel()]).view(parameter.shape)
                view.copy_(state.get(name, torch.zeros(())))
                state[name] = view
            state["step"] = count.copy_(torch.as_tensor(state.get("step", 0.0)))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """torch's; the state of a plain Adam fits too."""
        super().load_state_dict(state_dict)
        self._bind()

    @property
    def steps(self) -> int:
        """Steps taken."""
        return int(self._counts[0])

    def add_steps(self, number: int) -> None:
        """Count steps that kernels took."""
        self._counts += number

    @property
    def learning_rate(self) -> float:
        """Step size."""
        return float(self.param_groups[0]["lr"])


@kernel
def adam(theta: Any, gradient: Any, mean: Any, square: Any, step: int, learning_rate: float) -> None:
    """Step number `step` (from 1), in place; sizes are those of `mean`."""
    rate = np.float32(learning_rate / (1.0 - BETA1**step))
    root = np.float32(np.sqrt(1.0 - BETA2**step))
    keep_mean, keep_square, epsilon = np.float32(BETA1), np.float32(BETA2), np.float32(EPSILON)
    add_mean, add_square = np.float32(1.0 - BETA1), np.float32(1.0 - BETA2)
    for i in range(len(mean)):
        g = gradient[i]
        mean[i] = keep_mean * mean[i] + add_mean * g
        square[i] = keep_square * square[i] + add_square * g * g
        theta[i] -= rate * mean[i] / (np.sqrt(square[i]) / root + epsilon)


@kernel
def follow(target: Any, source: Any, size: int, tau: float) -> None:
    """target <- (1 - tau) target + tau source, for the first `size` numbers."""
    share = np.float32(tau)
    for i in range(size):
        target[i] += share * (source[i] - target[i])
