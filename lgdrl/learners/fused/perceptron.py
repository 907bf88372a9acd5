"""Multilayer perceptrons on flat memory: torch's parameters are views of it, and compiled kernels run on it.

`Perceptron` takes over the parameters of a torch module: linear layers with ReLU between them, one network or several
of equal shape over the same inputs (twin critics). What belongs to one input is a row of its workspace:

    inputs | hidden and output units of the first network | those of the second | ...

A batch is a range of rows. Batches may be forwarded one after the other, each into rows of its own; one backward pass
then takes all of them.

Shapes: C networks, R rows, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from lgdrl.learners.fused import products
from lgdrl.learners.fused.tile import COLUMNS
from sim.compiled import kernel

INPUTS, OUTPUTS, WEIGHT, PER_INPUT, PER_OUTPUT, BIAS, SOURCE, TARGET, PACKED = range(9)
"""Columns of a plan: sizes of a layer; where its weights begin and their strides; its bias; where its inputs and
outputs lie in a row of the workspace; its packed weights."""
LINE = 16
"""float32 numbers of a cache line."""


class Memory(NamedTuple):
    """What kernels run on. Arrays are float32 and flat unless said otherwise."""

    plan: np.ndarray
    """int64 (C, layers, 9)"""
    theta: np.ndarray
    """Parameters, then a panel of zeros."""
    gradient: np.ndarray
    """dL/d parameters."""
    packed: np.ndarray
    """Weights in the order in which tiles read them."""
    fresh: np.ndarray
    """bool (1,): `packed` holds the present weights."""
    units: np.ndarray
    """(R, width): the workspace."""
    delta: np.ndarray
    """(R, width): dL/d units."""
    panels: np.ndarray
    """Room for a packed factor."""
    scratch: np.ndarray
    """Room for one tile."""


@dataclass(frozen=True)
class Layer:
    """A linear layer: weights (inputs, outputs), or (outputs, inputs) where `transposed`, and biases (outputs,).

    `heads` layers of that shape may follow each other, weights after weights and biases after biases: they are one.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    transposed: bool
    heads: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """(inputs, outputs)"""
        first, second = self.weight.shape
        return (second, self.heads * first) if self.transposed else (first, second)


def sequential_layers(module: nn.Module) -> list[Layer]:
    """The linear layers of a stack.

    Args:
        module: `nn.Sequential` of `nn.Linear`, with `nn.ReLU` between them, and perhaps a last one, or `nn.Tanh`.
    Raises:
        TypeError: It has other parts.
    """
    parts = list(module.children())
    if isinstance(parts[-1], (nn.ReLU, nn.Tanh)):
        parts = parts[:-1]
    linear, between = parts[::2], parts[1::2]
    if len(linear) != len(between) + 1 or not all(isinstance(part, nn.ReLU) for part in between):
        raise TypeError(f"expected linear layers with ReLU between them, not {module}")
    layers = []
    for part in linear:
        if not isinstance(part, nn.Linear) or part.bias is None:
            raise TypeError(f"expected a linear layer with a bias, not {part}")
        layers.append(Layer(part.weight, part.bias, transposed=True))
    return layers


def flatten(parameters: Sequence[torch.Tensor]) -> np.ndarray:
    """Move parameters into one flat float32 array, whose views they become, in their order. Zeros follow them."""
    flat = np.zeros(sum(parameter.numel() for parameter in parameters) + COLUMNS, np.float32)
    at = 0
    for parameter in parameters:
        view = torch.from_numpy(flat[at : at + parameter.numel()]).view(parameter.shape)
        view.copy_(parameter.detach())
        parameter.data = view
        at += parameter.numel()
    return flat


class Perceptron:
    """The networks of a module, on flat memory.

    Args:
        module: Their parameters, on a CPU; they become views of the flat memory.
        layers: Gives the layers of each network of the module.
        order: The parameters in the order that they are to have in memory; None: that of the module.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Callable[[Any], Sequence[Sequence[Layer]]],
        order: Callable[[Any], Sequence[torch.Tensor]] | None = None,
    ) -> None:
        self._order = order or (lambda module: list(module.parameters()))
        theta = flatten(self._order(module))
        self.size = len(theta) - COLUMNS
        """Number of parameters."""
        plan, self.width = _plan(layers(module), theta)
        last = plan[-1, -1]
        self.inputs, self.outputs = int(plan[0, 0, INPUTS]), int(last[OUTPUTS])
        self._largest = products.padded(int(plan[:, :, [INPUTS, OUTPUTS]].max()))
        self.rows = self.used = 0
        """Rows of the workspace, and how many of them hold a batch."""
        packed = np.zeros(int(last[PACKED] + last[INPUTS] * products.padded(int(last[OUTPUTS]))), np.float32)
        none = np.zeros((0, self.width), np.float32)
        panels, room, fresh = np.zeros(self._largest**2, np.float32), products.scratch(), np.zeros(1, np.bool_)
        self.memory = Memory(plan, theta, np.zeros_like(theta), packed, fresh, none, none, panels, room)
        self.reserve(1)

    def shadow(self, module: nn.Module) -> Memory:
        """Parameters of a module of the same form (target networks), run in the workspace of this one."""
        theta, packed = flatten(self._order(module)), np.zeros_like(self.memory.packed)
        return self.memory._replace(theta=theta, packed=packed, fresh=np.zeros(1, np.bool_))

    def first(self) -> Memory:
        """The first network alone, on the same memory. The weights of all are to be packed before it runs."""
        return self.memory._replace(plan=self.memory.plan[:1])

    def beside(self, memory: Memory) -> Memory:
        """Memory of `shadow`, in the present workspace."""
        own = self.memory
        return memory._replace(units=own.units, delta=own.delta)

    def reserve(self, rows: int) -> None:
        """Have room for at least that many rows; what is in them stays."""
        if rows <= self.rows:
            return
        units, delta = np.zeros((2, rows, self.width), np.float32)
        units[: self.rows], delta[: self.rows] = self.memory.units, self.memory.delta
        self.memory = self.memory._replace(units=units, delta=delta)
        self.rows = rows

    def append(self, rows: int) -> int:
        """Take the next rows for a batch. Returns: the first one."""
        first = self.used
        if first + rows > self.rows:
            self.reserve(max(first + rows, 2 * self.rows))
        self.used += rows
        return first

    def forward(self, first: int, inputs: np.ndarray) -> np.ndarray:
        """Run a batch (B, inputs) in the rows from `first`. Returns: the outputs, a view (C, B, O)."""
        self.memory.units[first : first + len(inputs), : self.inputs] = inputs
        run_forward(self.memory, first, len(inputs))
        return self.output(self.memory.units, first, len(inputs))

    def output(self, values: np.ndarray, first: int, rows: int) -> np.ndarray:
        """Outputs in the rows of `units`, or dL/d outputs in those of `delta`: a view (C, rows, O)."""
        starts = self.memory.plan[:, -1, TARGET]
        step = int(starts[-1] - starts[0]) // max(len(starts) - 1, 1)
        block = values[first : first + rows, starts[0] :]
        shape, strides = (len(starts), rows, self.outputs), (4 * step, 4 * self.width, 4)
        return np.lib.stride_tricks.as_strided(block, shape, strides)


def _plan(networks: Sequence[Sequence[Layer]], theta: np.ndarray) -> tuple[np.ndarray, int]:
    """The plan, and the length of a row of the workspace."""
    plan = np.zeros((len(networks), len(networks[0]), 9), np.int64)
    start, packed = theta.ctypes.data, 0
    used = products.padded(networks[0][0].shape[0])
    for n, layers in enumerate(networks):
        source = 0
        for k, layer in enumerate(layers):
            inputs, outputs = layer.shape
            weight, bias = ((tensor.data_ptr() - start) // 4 for tensor in (layer.weight, layer.bias))
            strides = layer.weight.stride()
            per_input, per_output = strides[::-1] if layer.transposed else strides
            plan[n, k] = inputs, outputs, weight, per_input, per_output, bias, source, used, packed
            source = used
            used += products.padded(outputs)
            packed += inputs * products.padded(outputs)
    lines = -(-used // LINE)
    return plan, LINE * (lines | 1)  # an odd number of cache lines: rows spread over all sets of the cache


# ------------------------------------------------------------------------------------------------------ kernels


@kernel
def pack_weights(net: Any) -> None:
    """Pack the weights of all layers for the forward pass, unless that is done."""
    if net.fresh[0]:
        return
    for n in range(net.plan.shape[0]):
        for k in range(net.plan.shape[1]):
            layer = net.plan[n, k]
            products.pack(
                net.theta, layer[WEIGHT], layer[PER_INPUT], layer[PER_OUTPUT], layer[INPUTS], layer[OUTPUTS],
                net.packed, layer[PACKED],
            )  # fmt: skip
    net.fresh[0] = True


@kernel
def run_forward(net: Any, first: int, rows: int) -> None:
    """All units of the rows from `first`, whose inputs are there."""
    pack_weights(net)
    units, width, last = net.units.reshape(-1), net.units.shape[1], net.plan.shape[1] - 1
    start = first * width
    for n in range(net.plan.shape[0]):
        for k in range(net.plan.shape[1]):
            layer = net.plan[n, k]
            products.forward(
                units, start + layer[SOURCE], width, rows, layer[INPUTS], net.packed, layer[PACKED], layer[OUTPUTS],
                net.theta, layer[BIAS], start + layer[TARGET], k < last,
            )  # fmt: skip


@kernel
def run_backward(net: Any, rows: int) -> None:
    """dL/d parameters, from dL/d outputs of the first `rows` rows."""
    units, delta, width = net.units.reshape(-1), net.delta.reshape(-1), net.units.shape[1]
    for n in range(net.plan.shape[0]):
        for k in range(net.plan.shape[1] - 1, -1, -1):
            layer = net.plan[n, k]
            source, target, inputs, outputs = layer[SOURCE], layer[TARGET], layer[INPUTS], layer[OUTPUTS]
            if layer[PER_INPUT] == 1:  # weights (outputs, inputs)
                products.weight_gradient(
                    delta, target, outputs, units, source, inputs, width, rows, net.scratch, net.gradient,
                    layer[WEIGHT],
                )  # fmt: skip
            else:
                products.weight_gradient(
                    units, source, inputs, delta, target, outputs, width, rows, net.scratch, net.gradient,
                    layer[WEIGHT],
                )  # fmt: skip
            products.column_sums(delta, target, width, rows, outputs, net.scratch, net.gradient, layer[BIAS])
            if k > 0:
                products.pack(
                    net.theta, layer[WEIGHT], layer[PER_OUTPUT], layer[PER_INPUT], outputs, inputs, net.panels, 0
                )  # fmt: skip
                products.input_gradient(delta, target, source, width, rows, outputs, inputs, net.panels, units)


@kernel
def run_back_to_inputs(net: Any, rows: int, first_input: int, gradient: Any) -> None:
    """gradient (rows, D) = dL/d the D inputs from `first_input` on, summed over the networks; weights get none."""
    units, delta, width = net.units.reshape(-1), net.delta.reshape(-1), net.units.shape[1]
    gradient[:] = 0.0
    for n in range(net.plan.shape[0]):
        for k in range(net.plan.shape[1] - 1, 0, -1):
            layer = net.plan[n, k]
            products.pack(
                net.theta, layer[WEIGHT], layer[PER_OUTPUT], layer[PER_INPUT], layer[OUTPUTS], layer[INPUTS],
                net.panels, 0,
            )  # fmt: skip
            products.input_gradient(
                delta, layer[TARGET], layer[SOURCE], width, rows, layer[OUTPUTS], layer[INPUTS], net.panels, units
            )
        layer = net.plan[n, 0]
        outputs, target = layer[OUTPUTS], layer[TARGET]
        weights = np.empty(outputs, np.float32)
        for j in range(gradient.shape[1]):
            for o in range(outputs):
                weights[o] = net.theta[layer[WEIGHT] + (first_input + j) * layer[PER_INPUT] + o * layer[PER_OUTPUT]]
            for i in range(rows):
                gradient[i, j] += dot(delta, i * width + target, weights)


@kernel(fastmath={"reassoc", "contract"})
def dot(a: Any, at: int, b: Any) -> Any:
    """sum_k a[at + k] b[k], in an order that depends on the length alone."""
    total = np.float32(0.0)
    for k in range(len(b)):
        total += a[at + k] * b[k]
    return total


@kernel(fastmath={"reassoc", "contract"})
def square_sum(values: Any, size: int) -> float:
    """sum_k values[k]^2 of the first `size` numbers, in float64 and in an order that depends on the size alone."""
    total = 0.0
    for k in range(size):
        value = np.float64(values[k])
        total += value * value
    return total


@kernel
def load_inputs(net: Any, first: int, inputs: Any) -> None:
    """Put a batch (B, inputs) into the rows from `first`."""
    for i in range(inputs.shape[0]):
        for j in range(inputs.shape[1]):
            net.units[first + i, j] = inputs[i, j]
