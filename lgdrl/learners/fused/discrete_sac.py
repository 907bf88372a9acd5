"""The update of discrete soft actor-critic in compiled kernels; `lgdrl.learners.discrete_sac` is the specification.

Shapes: A actions, B rows of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from lgdrl.guidance.strategy import RL
from lgdrl.guidance.terms import DivergenceName
from lgdrl.learners.fused import categorical as on
from lgdrl.learners.fused.adam import BETA1, BETA2, EPSILON, adam, follow
from lgdrl.learners.fused.core import NO_WEIGHTS, Core, weights_of
from lgdrl.learners.fused.perceptron import (
    Layer,
    Memory,
    Perceptron,
    load_inputs,
    run_backward,
    run_forward,
    sequential_layers,
)
from lgdrl.learners.softmax_policy import TwinMLP
from sim.compiled import compile_once, kernel

if TYPE_CHECKING:
    from torch import nn

    from lgdrl.guidance.replay import GuidedReplayBuffer, Samples
    from lgdrl.guidance.strategy import Strategy
    from lgdrl.learners.softmax_policy import DiscreteSACPolicy


class Settings(Protocol):
    """The settings of discrete soft actor-critic that decide an update."""

    @property
    def learning_rate(self) -> float: ...

    @property
    def alpha_cap(self) -> float | None: ...

    @property
    def loss_scale_floor(self) -> float | None: ...


class Model(Protocol):
    """The learner, `lgdrl.learners.discrete_sac.DiscreteSAC`, as far as the core needs it."""

    policy: DiscreteSACPolicy
    strategy: Strategy
    tau: float
    target_entropy: float
    log_alpha: torch.Tensor

    @property
    def alpha_optimizer(self) -> torch.optim.Optimizer | None: ...

    @property
    def replay(self) -> GuidedReplayBuffer: ...

    @property
    def config(self) -> Settings: ...


class FusedCore(Core):
    """Networks and update of one `DiscreteSAC` on flat memory.

    Args:
        model: The learner, with its policy on a CPU; the policy's parameters become views, its optimizers `FlatAdam`.
    """

    def __init__(self, model: Model) -> None:
        policy = model.policy
        super().__init__(policy.observation_space)
        self.model = model
        self.actor = Perceptron(policy.actor.network, lambda network: [sequential_layers(network)])
        self.critic = Perceptron(policy.critic.network, _twin_layers)
        self._target = self.critic.shadow(policy.critic_target)
        for part, network in ((policy.actor, self.actor), (policy.critic, self.critic)):
            self.train_with(part, network, list(part.network.parameters()), part.learning_rate)
        self._temperature = Temperature(model)
        compile_once("the learner", _try_out)

    # ------------------------------------------------------------------------------------------------- acting

    def probs(self, obs: np.ndarray, legal: np.ndarray) -> np.ndarray:
        """pi(.|s), float32 (N, A), for observations (N, ...) and bool (N, A) legal actions."""
        features = self.features(obs)
        log_probs, probs = np.empty((2, *legal.shape), np.float32)
        self.actor.reserve(len(features))
        self.actor.memory.fresh[0] = False
        _run_policy(self.actor.memory, 0, features, np.ascontiguousarray(legal), log_probs, probs)
        return probs

    def least_q(self, obs: np.ndarray) -> np.ndarray:
        """The smaller critic of all actions, float32 (N, A)."""
        features = self.features(obs)
        self.critic.reserve(len(features))
        self.critic.memory.fresh[0] = False
        return self.critic.forward(0, features).min(axis=0)

    # ----------------------------------------------------------------------------- what terms may compute with

    def log_probs(self, samples: Samples) -> torch.Tensor:
        """ln pi(.|s) of the present policy, float (B, A)."""
        first, legal, log_probs, probs = self._policy(samples)

        def take(gradient: np.ndarray | None) -> None:
            used = np.zeros_like(probs) if gradient is None else gradient
            on.log_softmax_gradient(self.actor.memory, first, legal, probs, used)

        return self.leaf(self.actor, log_probs, take)

    def q_values(self, samples: Samples) -> torch.Tensor:
        """Both critics, float (2, B, A)."""
        first = self.critic.append(len(samples))
        rows = len(samples)
        q = self.critic.forward(first, self.features(samples.array("observations"))).copy()

        def take(gradient: np.ndarray | None) -> None:
            self.critic.output(self.critic.memory.delta, first, rows)[:] = 0.0 if gradient is None else gradient

        return self.leaf(self.critic, q, take)

    def label_divergence(
        self, samples: Samples, name: DivergenceName, weight: float, measured: DivergenceName | None = None
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """See `lgdrl.guidance.terms.Networks`."""
        first, _, log_probs, probs = self._policy(samples)
        mean, agreement = on.label_divergence(
            self.actor.memory, first, log_probs, probs, samples.array("label_probs"), samples.array("label_actions"),
            on.DIVERGENCE_CODES[name], weight,
        )  # fmt: skip

        def take(gradient: np.ndarray | None) -> None:
            factor = 0.0 if gradient is None else float(gradient)
            if factor != 1.0:
                on.scale_gradient(self.actor.memory, first, len(probs), factor)

        loss = self.leaf(self.actor, np.array(weight * mean, np.float32), take)
        if measured not in (None, name):
            mean = on.mean_divergence(log_probs, probs, samples.array("label_probs"), on.DIVERGENCE_CODES[measured])
        return loss, {"divergence": mean, "agreement": agreement}

    def _policy(self, samples: Samples) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
        """Run the actor in rows of their own. Returns: the first one, legal actions, ln pi and pi."""
        first, legal = self.actor.append(len(samples)), samples.array("legal")
        log_probs, probs = np.empty((2, *legal.shape), np.float32)
        _run_policy(self.actor.memory, first, self.features(samples.array("observations")), legal, log_probs, probs)
        return first, legal, log_probs, probs

    # ------------------------------------------------------------------------------------------------- update

    def shadows(self) -> Sequence[Memory]:
        return (self._target,)

    @contextmanager
    def training(self) -> Iterator[None]:
        """See `Core.training`; the temperature is kept in plain numbers meanwhile."""
        self._temperature = Temperature(self.model)
        with super().training():
            yield
        self._temperature.write()

    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update of critics, actor, temperature and targets, in this order."""
        model, strategy, actor, critic = self.model, self.model.strategy, self.actor, self.critic
        batches = strategy.on_batch(model.replay, batch_size)
        samples, alpha = batches[RL], self._temperature.alpha
        rows = len(samples)
        self.begin(critic, rows, (actor, critic))
        terms = strategy.critic_terms(batches, self)
        features, legal = self.features(samples.array("observations")), samples.array("legal")
        critic_loss = _critic_forward(
            actor.memory, critic.memory, self.target, features, self.features(samples.array("next_observations")),
            *(samples.array(name) for name in ("next_legal", "actions", "rewards", "terminated", "discounts")),
            weights_of(terms), alpha, terms.base_share,
        )  # fmt: skip
        self.differentiate(terms)
        _critic_backward(critic.memory, self.target, critic.used, *self.step(model.policy.critic), model.tau)
        metrics = terms.metrics

        self.begin(actor, rows, (actor, critic))
        terms = strategy.actor_terms(batches, self)
        floor = model.config.loss_scale_floor
        actor_loss, entropy = _actor_forward(
            actor.memory, critic.memory, features, legal, weights_of(terms), alpha, -1.0 if floor is None else floor,
            terms.base_share,
        )  # fmt: skip
        self.differentiate(terms)
        _actor_backward(actor.memory, actor.used, *self.step(model.policy.actor))
        metrics = metrics | terms.metrics
        alpha_loss = self._temperature.step(entropy)
        strategy.on_update(metrics)
        return measured(critic_loss, actor_loss, alpha_loss, alpha, entropy), metrics

    @property
    def target(self) -> Memory:
        """The target critics, in the workspace of the critics."""
        return self.critic.beside(self._target)


def measured(
    critic_loss: float, actor_loss: float, alpha_loss: float, alpha: float, entropy: float
) -> dict[str, float]:
    """What an update measures, by the names of Stable-Baselines3's logs (ent_coef is alpha)."""
    return {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "ent_coef": alpha,
        "ent_coef_loss": alpha_loss,
        "entropy": entropy,
    }


class Temperature:
    """ln alpha and its Adam, in plain numbers for the length of one `train`.

    Args:
        model: Whose temperature.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._log = model.log_alpha.item()
        optimizer = model.alpha_optimizer
        self._state = None if optimizer is None else optimizer.state[model.log_alpha]
        held = self._state or {"step": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}
        self._steps, self._mean, self._square = (float(held[name]) for name in ("step", "exp_avg", "exp_avg_sq"))

    @property
    def alpha(self) -> float:
        """The temperature."""
        return math.exp(self._log)

    def step(self, entropy: float) -> float:
        """One step on L_alpha for the batch's mean entropy, then the cap. Returns: the loss."""
        if self._state is None:
            return 0.0
        loss = self.alpha * (entropy - self._model.target_entropy)  # exponential in ln alpha: its own derivative
        self._steps += 1
        self._mean = BETA1 * self._mean + (1 - BETA1) * loss
        self._square = BETA2 * self._square + (1 - BETA2) * loss * loss
        root = math.sqrt(self._square) / math.sqrt(1 - BETA2**self._steps) + EPSILON
        self._log -= self._model.config.learning_rate / (1 - BETA1**self._steps) * self._mean / root
        if self._model.config.alpha_cap is not None:
            self._log = min(self._log, math.log(self._model.config.alpha_cap))
        return loss

    def write(self) -> None:
        """Put the present numbers into the model."""
        if self._state is None:
            return
        with torch.no_grad():
            self._model.log_alpha.fill_(self._log)
        self._state["step"] = torch.tensor(self._steps)
        self._state["exp_avg"], self._state["exp_avg_sq"] = torch.tensor([self._mean]), torch.tensor([self._square])


def _twin_layers(module: nn.Module) -> list[list[Layer]]:
    """The layers of both critics of a `TwinMLP`."""
    assert isinstance(module, TwinMLP)
    pairs = list(zip(module.weights, module.biases, strict=True))
    return [[Layer(weight[twin], bias[twin, 0], transposed=False) for weight, bias in pairs] for twin in range(2)]


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def _run_policy(actor: Any, first: int, features: Any, legal: Any, log_probs: Any, probs: Any) -> None:
    load_inputs(actor, first, features)
    run_forward(actor, first, len(features))
    on.log_softmax(actor, first, legal, log_probs, probs)


@kernel
def _critic_forward(
    actor: Any, critic: Any, target: Any, features: Any, next_features: Any, next_legal: Any, actions: Any,
    rewards: Any, terminated: Any, discounts: Any, weights: Any, alpha: float, share: float,
) -> float:  # fmt: skip
    """L_1 + L_2, with their gradient in the critics' rows."""
    rows = len(features)
    log_probs, probs = np.empty(next_legal.shape, np.float32), np.empty(next_legal.shape, np.float32)
    values = np.empty(rows, np.float64)
    _run_policy(actor, 0, next_features, next_legal, log_probs, probs)
    load_inputs(target, 0, next_features)
    run_forward(target, 0, rows)
    on.soft_values(target, log_probs, probs, alpha, values)
    load_inputs(critic, 0, features)
    run_forward(critic, 0, rows)
    return on.critic_error(critic, values, actions, rewards, terminated, discounts, weights, share)


@kernel
def _critic_backward(
    critic: Any, target: Any, rows: int, mean: Any, square: Any, step: int, learning_rate: float, tau: float
) -> None:
    run_backward(critic, rows)
    adam(critic.theta, critic.gradient, mean, square, step, learning_rate)
    follow(target.theta, critic.theta, len(mean), tau)
    critic.fresh[0] = target.fresh[0] = False


@kernel
def _actor_forward(
    actor: Any, critic: Any, features: Any, legal: Any, weights: Any, alpha: float, floor: float, share: float
) -> tuple[float, float]:
    """L_0 and the mean entropy, with the gradient of L_0 in the actor's rows."""
    log_probs, probs = np.empty(legal.shape, np.float32), np.empty(legal.shape, np.float32)
    load_inputs(critic, 0, features)
    run_forward(critic, 0, len(features))
    _run_policy(actor, 0, features, legal, log_probs, probs)
    return on.actor_error(actor, critic, log_probs, probs, legal, weights, alpha, floor, share)


@kernel
def _actor_backward(actor: Any, rows: int, mean: Any, square: Any, step: int, learning_rate: float) -> None:
    run_backward(actor, rows)
    adam(actor.theta, actor.gradient, mean, square, step, learning_rate)
    actor.fresh[0] = False


def _try_out() -> None:
    """Use every kernel once, on networks of one unit and a batch of one row."""
    actor = Perceptron(torch.nn.Sequential(torch.nn.Linear(1, 1)), lambda network: [sequential_layers(network)])
    critic = Perceptron(TwinMLP(1, 1, []), _twin_layers)
    target = critic.shadow(TwinMLP(1, 1, []))
    row, number, legal = np.zeros((1, 1), np.float32), np.zeros(1, np.float32), np.ones((1, 1), np.bool_)
    action, ended, log_probs, probs = np.zeros(1, np.int64), np.zeros(1, np.bool_), row.copy(), row.copy()
    moments = np.zeros((2, critic.size), np.float32)
    for network in (actor, critic):
        network.append(1)
    _run_policy(actor.memory, 0, row, legal, log_probs, probs)
    on.log_softmax_gradient(actor.memory, 0, legal, probs, row)
    on.label_divergence(actor.memory, 0, log_probs, probs, row, action, 0, 1.0)
    on.mean_divergence(log_probs, probs, row, 0)
    on.scale_gradient(actor.memory, 0, 1, 1.0)
    critic.forward(0, row)
    _critic_forward(
        actor.memory, critic.memory, target, row, row, legal, action, number, ended, number, NO_WEIGHTS, 1.0, 1.0
    )  # fmt: skip
    _critic_backward(critic.memory, target, 1, moments[0], moments[1], 1, 1.0, 1.0)
    _actor_forward(actor.memory, critic.memory, row, legal, NO_WEIGHTS, 1.0, 1.0, 1.0)
    _actor_backward(actor.memory, 1, moments[0, : actor.size], moments[1, : actor.size], 1, 1.0)
