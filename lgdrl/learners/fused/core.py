"""What the updates of all learners in compiled kernels share: leaves for a strategy's terms, and the loop of updates.

The terms of a strategy are torch expressions on small tensors that a core hands out as leaves: log-probabilities,
critic values, parameters of a Gaussian. torch differentiates the expression; kernels take the gradient of the leaf
through the network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs

from lgdrl.guidance.terms import Networks, Terms
from lgdrl.learners.fused.adam import FlatAdam
from lgdrl.learners.fused.perceptron import Memory, Perceptron

AdamState = tuple[np.ndarray, np.ndarray, int, float]
"""Moving means of gradients and of their squares; the number of the step; step size."""
ONE = np.ones((), np.float32)
NO_WEIGHTS = np.zeros(0, np.float32)


Part = Any
"""What holds the optimizer of a network as its attribute `optimizer`, as Stable-Baselines3 has it."""


class Core(Networks):
    """Networks and update of one learner on flat memory.

    Args:
        observation_space: What the networks are given.
    """

    def __init__(self, observation_space: spaces.Space) -> None:
        self.observation_space = observation_space
        self._image = is_image_space(observation_space)
        self._tape: list[tuple[torch.Tensor, Callable[[np.ndarray | None], None]]] = []
        self._learning: Perceptron | None = None
        """The network whose loss is being computed: leaves of the other ones carry no gradient."""
        self._trained: list[tuple[Part, Perceptron]] = []
        self._steps: dict[Part, int] = {}

    def train_with(self, part: Part, network: Perceptron, parameters: Sequence[torch.Tensor], rate: float) -> None:
        """Give a part an optimizer on the memory of its network.

        Args:
            part: Holds the optimizer.
            network: The network.
            parameters: Its parameters, in the order of Stable-Baselines3's own optimizer.
            rate: Step size.
        """
        part.optimizer = FlatAdam(network, list(parameters), rate)
        self._trained.append((part, network))

    def features(self, obs: np.ndarray) -> np.ndarray:
        """Observations (N, ...) as the networks take them: float32 (N, inputs)."""
        if self._image:
            tensor = preprocess_obs(torch.as_tensor(obs), self.observation_space)
            assert isinstance(tensor, torch.Tensor)
            obs = tensor.numpy()
        return np.ascontiguousarray(obs, np.float32).reshape(len(obs), -1)

    # ----------------------------------------------------------------------------------------- leaves of terms

    def leaf(self, network: Perceptron, value: np.ndarray, take: Callable[[np.ndarray | None], None]) -> torch.Tensor:
        """A tensor to compute terms with.

        Args:
            network: Whose outputs it comes from.
            value: Its numbers.
            take: Receives dL/d value, None where the loss does not depend on it, and fills the rows of the network.
        """
        leaf = torch.from_numpy(value).requires_grad_()
        if network is self._learning:
            self._tape.append((leaf, take))
        return leaf

    def differentiate(self, terms: Terms) -> None:
        """Fill the rows of all leaves with the gradient of the terms' loss."""
        loss = terms.loss
        alone = loss is not None and loss.is_leaf  # a leaf itself: its gradient is 1
        if loss is not None and loss.requires_grad and not alone:
            loss.backward()
        for leaf, take in self._tape:
            if alone:
                take(ONE if leaf is loss else None)
            else:
                take(None if leaf.grad is None else leaf.grad.numpy())
        self._tape.clear()

    def begin(self, learning: Perceptron, rows: int, networks: Sequence[Perceptron]) -> None:
        """Begin a loss: keep the first rows of networks for the batch of the learner's own loss.

        Args:
            learning: The network that the loss is of.
            rows: Of the batch.
            networks: All of them that the batch runs through.
        """
        self._learning = learning
        for network in networks:
            network.used = 0
            network.append(rows)

    # ------------------------------------------------------------------------------------------------- updates

    @abstractmethod
    def update(self, batch_size: int) -> tuple[dict[str, float], dict[str, float]]:
        """One update.

        Args:
            batch_size: Transitions of the batch.
        Returns:
            What was measured, by names such as critic_loss, and what the strategy's terms measured.
        """

    def shadows(self) -> Sequence[Memory]:
        """Memories of networks that follow others (targets)."""
        return ()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around a number of updates, between which nothing else changes parameters or optimizers."""
        for memory in (*(network.memory for _, network in self._trained), *self.shadows()):
            memory.fresh[0] = False  # torch may have changed the parameters since
        before = {part: optimizer_of(part).steps for part, _ in self._trained}
        self._steps = dict(before)
        yield
        self._learning = None
        for part, _ in self._trained:
            optimizer_of(part).add_steps(self._steps[part] - before[part])

    def step(self, part: Part) -> AdamState:
        """What a kernel needs for the next step of a part."""
        optimizer = optimizer_of(part)
        self._steps[part] += 1
        return optimizer.mean, optimizer.square, self._steps[part], optimizer.learning_rate


def optimizer_of(part: Part) -> FlatAdam:
    """The optimizer of a part, by its own type."""
    assert isinstance(part.optimizer, FlatAdam)
    return part.optimizer


def weights_of(terms: Terms) -> np.ndarray:
    """Weights of the samples, float32 (B,); (0,) where all are 1."""
    return NO_WEIGHTS if terms.weights is None else terms.weights.detach().numpy().astype(np.float32, copy=False)


def column(samples: Any, name: str) -> np.ndarray:
    """A column of samples as float32 numbers."""
    return np.ascontiguousarray(samples.array(name), np.float32)
