"""The update of deep Q-learning in compiled kernels; `lgdrl.learners.dqn` is the specification.

Shapes: N observations, A actions, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from lgdrl.guidance.strategy import RL
from lgdrl.guidance.terms import Terms
from lgdrl.learners.fused.adam import adam
from lgdrl.learners.fused.core import NO_WEIGHTS, Core, weights_of
from lgdrl.learners.fused.perceptron import (
    TARGET,
    Memory,
    Perceptron,
    load_inputs,
    run_backward,
    run_forward,
    sequential_layers,
    square_sum,
)
from lgdrl.learners.softmax_policy import masked_log_softmax
from sim.compiled import compile_once, kernel

if TYPE_CHECKING:
    from lgdrl.guidance.replay import Samples


class DQNCore(Core):
    """Network and update of one `DQN` on flat memory.

    Args:
        model: The learner, with its policy on a CPU; the policy's parameters become views, its optimizer a `FlatAdam`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model.observation_space)
        self.model = model
        self.network = Perceptron(model.q_net, lambda network: [sequential_layers(network.q_net)])
        self._target = self.network.shadow(model.q_net_target)
        self.train_with(model.policy, self.network, list(model.q_net.parameters()), model.config.learning_rate)
        compile_once("the learner dqn", _try_out)

    def values(self, obs: np.ndarray) -> np.ndarray:
        """Q of all actions, float32 (N, A), for observations (N, ...)."""
        features = self.features(obs)
        self.network.reserve(len(features))
        self.network.memory.fresh[0] = False
        return self.network.forward(0, features)[0].copy()

    # ----------------------------------------------------------------------------- what terms may compute with

    def log_probs(self, samples: Samples) -> torch.Tensor:
        assert samples.legal is not None
        return masked_log_softmax(self.q_values(samples)[0] / self.model.config.temperature, samples.legal)

    def q_values(self, samples: Samples) -> torch.Tensor:
        rows, first = len(samples), self.network.append(len(samples))
        values = self.network.forward(first, self.features(samples.array("observations"))).copy()

        def take(gradient: np.ndarray | None) -> None:
            self.network.output(self.network.memory.delta, first, rows)[:] = 0.0 if gradient is None else gradient

        return self.leaf(self.network, values, take)

    # ------------------------------------------------------------------------------------------------- update

    def shadows(self) -> Sequence[Memory]:
        return (self._target,)

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """See `Core.update`."""
        model, strategy, network = self.model, self.model.strategy, self.network
        batches = strategy.on_batch(model.replay, batch_size)
        samples = batches[RL]
        self.begin(network, len(samples), (network,))
        terms = Terms.combined([strategy.critic_terms(batches, self), strategy.actor_terms(batches, self)])
        network.reserve(network.used + len(samples))  # successors, behind all rows that have a gradient
        loss = _forward(
            network.memory, network.beside(self._target), network.used, self.features(samples.array("observations")),
            self.features(samples.array("next_observations")),
            *(samples.array(name) for name in ("next_legal", "actions", "rewards", "terminated", "discounts")),
            weights_of(terms), model.config.double, terms.base_share,
        )  # fmt: skip
        self.differentiate(terms)
        _backward(network.memory, network.used, *self.step(model.policy), model.max_grad_norm)
        strategy.on_update(terms.metrics)
        return {"loss": loss}, terms.metrics


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def _forward(
    net: Any, target: Any, ahead: int, features: Any, next_features: Any, next_legal: Any, actions: Any, rewards: Any,
    terminated: Any, discounts: Any, weights: Any, double: bool, share: float,
) -> float:  # fmt: skip
    """The mean Huber loss, with the gradient of share x that in the first B rows; the rows from `ahead` on are for
    successors."""
    rows, outputs, at = len(features), next_legal.shape[1], net.plan[0, -1, TARGET]
    best, goals = np.zeros(rows, np.int64), np.empty(rows, np.float64)
    if double:
        load_inputs(net, ahead, next_features)
        run_forward(net, ahead, rows)
        _best(net, ahead, next_legal, best)
    load_inputs(target, 0, next_features)
    run_forward(target, 0, rows)
    if not double:
        _best(target, 0, next_legal, best)
    for i in range(rows):
        goals[i] = rewards[i] + (0.0 if terminated[i] else discounts[i] * target.units[i, at + best[i]])
    load_inputs(net, 0, features)
    run_forward(net, 0, rows)
    total = 0.0
    for i in range(rows):
        error = net.units[i, at + actions[i]] - goals[i]
        size, weight = abs(error), weights[i] if len(weights) else 1.0
        total += weight * (0.5 * error * error if size < 1.0 else size - 0.5)
        net.delta[i, at : at + outputs] = 0.0
        net.delta[i, at + actions[i]] = share * weight * min(max(error, -1.0), 1.0) / rows
    return total / rows


@kernel
def _best(net: Any, first: int, legal: Any, best: Any) -> None:
    """best (B,) = the legal action of the largest value in the rows from `first`."""
    at = net.plan[0, -1, TARGET]
    for i in range(len(best)):
        largest = -np.inf
        for a in range(legal.shape[1]):
            if legal[i, a] and net.units[first + i, at + a] > largest:
                largest = net.units[first + i, at + a]
                best[i] = a


@kernel
def _backward(net: Any, rows: int, mean: Any, square: Any, step: int, learning_rate: float, max_norm: float) -> None:
    """One step of the network on the gradient, scaled down to `max_norm`."""
    run_backward(net, rows)
    shrink = max_norm / (np.sqrt(square_sum(net.gradient, len(mean))) + 1e-6)
    if shrink < 1.0:
        for i in range(len(mean)):
            net.gradient[i] *= shrink
    adam(net.theta, net.gradient, mean, square, step, learning_rate)
    net.fresh[0] = False


def _try_out() -> None:
    """Use every kernel once, on a network of one unit and a batch of one row."""
    network = Perceptron(nn.Sequential(nn.Linear(1, 1)), lambda network: [sequential_layers(network)])
    target = network.shadow(nn.Sequential(nn.Linear(1, 1)))
    row, number, legal = np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.ones((1, 1), np.bool_)
    action, ended, moments = np.zeros(1, np.int64), np.zeros(1, np.bool_), np.zeros((2, network.size), np.float32)
    network.append(2)
    _forward(
        network.memory, network.beside(target), 1, row, row, legal, action, number, ended, number, NO_WEIGHTS, True, 1.0
    )  # fmt: skip
    _backward(network.memory, 2, moments[0], moments[1], 1, 1.0, 1.0)
    network.forward(0, row)
