"""Actors in files: linear policies (`linear`) and perceptrons (`trained`, `policy:PATH.npz`), computed by NumPy.

A file is an `.npz` of plain arrays: no pickle is loaded, no torch is needed. It holds the layers W0, b0, W1, b1, ...
(W0 float (H, D), b0 float (H,)), or a single one as W and b; b may be left out. Beside them:

    mean, std       float (D,): an observation o enters as (o - mean) / std; 0 and 1 where left out
    activation      between layers: relu (default) or tanh
    final           of the last layer: clip (default) or tanh; either way within [-1, 1] of the range `low` to `high`
    low, high       float (M,): range of the actions that it was made for; for `clip` the output is in this unit
    metadata        JSON text: a mapping that says what it is (environment, return, command, seed)
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from experts.controllers import Controller, environment_of
from experts.spaces import form
from sim import assets
from sim.config import NoOptions, resolve
from sim.errors import UsageError, unknown

SUFFIX = ".npz"
LARGEST = 256 << 20
"""Bytes of all arrays of a file that are read."""
ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"relu": lambda x: np.maximum(x, 0.0), "tanh": np.tanh}
FINALS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "clip": np.clip,
    "tanh": lambda x, low, high: low + (np.tanh(x) + 1) / 2 * (high - low),
}
"""Of outputs (R, M), low and high (M,)."""
SETTINGS = ("mean", "std", "activation", "final", "low", "high", "metadata")
LINEAR = {"Swimmer-v5": "policies/swimmer_linear.npz"}
"""Linear policies in assets/, by environment; made by experiments/ars.py."""
TRAINED = {f"{body}-v5": f"policies/{body.lower()}.npz" for body in ("Hopper", "HalfCheetah", "Walker2d")}
"""Perceptrons in assets/, by environment; made by experiments/mujoco_checkpoints.py."""


@dataclass(frozen=True)
class Actor:
    """A perceptron with any number of hidden layers; none: a linear policy."""

    weights: tuple[np.ndarray, ...]
    """float (H, D), ..., (M, H)"""
    biases: tuple[np.ndarray, ...]
    """float (H,), ..., (M,)"""
    mean: np.ndarray
    """Of observations, float (D,)."""
    std: np.ndarray
    """Of observations, float (D,), above 0."""
    low: np.ndarray | None = None
    """float (M,); None: any range, the outputs are in the unit of the environment's actions."""
    high: np.ndarray | None = None
    activation: str = "relu"
    final: str = "clip"
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The actions of observations.

        Args:
            obs: Float (R, D).

        Returns:
            Float64 (R, M).
        """
        hidden = (obs - self.mean) / self.std
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = ACTIVATIONS[self.activation](hidden @ weight.T + bias)
        out = hidden @ self.weights[-1].T + self.biases[-1]
        if self.low is None or self.high is None:
            return out
        return FINALS[self.final](out, self.low, self.high)


class ActorExpert(Controller):
    """An actor of a file as an expert.

    Args:
        name: Its name in tables and logs.
        actor: What it computes.
    """

    def __init__(self, name: str, actor: Actor) -> None:
        self.name, self.actor = name, actor
        self.observation_size, self.action_size = actor.weights[0].shape[1], len(actor.weights[-1])

    def check_spaces(self, observation_space: spaces.Space, action_space: spaces.Space, scenario: str) -> None:
        super().check_spaces(observation_space, action_space, scenario)
        assert isinstance(action_space, spaces.Box)
        low, high = self.actor.low, self.actor.high
        if low is None or high is None:
            return
        if not (np.allclose(low, action_space.low) and np.allclose(high, action_space.high)):
            made = form(spaces.Box(low.astype(np.float32), high.astype(np.float32)))
            raise UsageError(
                f"expert {self.name!r} was made for actions {made}, those of {scenario!r} are {form(action_space)}: "
                "choose another expert or scenario"
            )

    def control(self, obs: np.ndarray, steps: np.ndarray) -> np.ndarray:
        return self.actor(obs)


def load_actor(path: Path) -> Actor:
    """Read an actor; no code of its author runs.

    Args:
        path: The `.npz` file, see the module's text.

    Raises:
        UsageError: It cannot be read, or its arrays do not make an actor.
    """
    arrays = _read(path)
    try:
        return actor_of(arrays)
    except UsageError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"{str(path)!r} holds no actor: {str(error) or type(error).__name__}") from None


def actor_of(arrays: Mapping[str, np.ndarray]) -> Actor:
    """An actor of arrays, see the module's text.

    Args:
        arrays: By name.

    Raises:
        ValueError: They do not fit together.
    """
    names = ["W"] if "W" in arrays else _layer_names(arrays)
    allowed = {*names, *(name.replace("W", "b") for name in names), *SETTINGS}
    if extra := sorted(arrays.keys() - allowed):
        raise ValueError(f"{extra[0]} belongs to no layer; layers are W0, b0, W1, b1, ... or W and b")
    weights = tuple(_floats(arrays, name, (None, None)) for name in names)
    for before, after, name in zip(weights, weights[1:], names[1:], strict=False):
        if after.shape[1] != before.shape[0]:
            raise ValueError(f"{name} takes {after.shape[1]} values, the layer before it gives {before.shape[0]}")
    biases = tuple(
        _floats(arrays, name.replace("W", "b"), (len(weight),), np.zeros(len(weight)))
        for name, weight in zip(names, weights, strict=True)
    )
    size, outputs = weights[0].shape[1], len(weights[-1])
    std = _floats(arrays, "std", (size,), np.ones(size))
    if not (std > 0).all():
        raise ValueError("std has values that are not above 0")
    low, high = (_floats(arrays, name, (outputs,)) if name in arrays else None for name in ("low", "high"))
    if (low is None) != (high is None) or (low is not None and high is not None and not (low < high).all()):
        raise ValueError("low and high are given together, low below high")
    activation, final = _word(arrays, "activation", "relu", ACTIVATIONS), _word(arrays, "final", "clip", FINALS)
    if low is None and final == "tanh":
        low, high = -np.ones(outputs), np.ones(outputs)
    mean = _floats(arrays, "mean", (size,), np.zeros(size))
    return Actor(weights, biases, mean, std, low, high, activation, final, _metadata(arrays))


def make_linear(options: Mapping[str, Any], scenario: str, seed: int, target: str = "") -> ActorExpert:
    """The expert `linear`: a linear policy of an .npz file; without a path, the shipped one (Swimmer-v5).

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: Not used.
        target: The file, as in `linear:PATH`; empty: the policy that is shipped for the scenario.

    Raises:
        UsageError: An option is bad, there is no linear policy at `target`, or none is shipped for the scenario.
    """
    resolve(NoOptions(), options, "linear")
    if target:
        path, name = Path(target), f"linear:{target}"
    else:
        path, name = _shipped("linear", scenario, LINEAR, "linear:policy.npz; experiments/ars.py"), "linear"
    actor = load_actor(path)
    if len(actor.weights) != 1:
        raise UsageError(f"{str(path)!r} has {len(actor.weights)} layers, so it is not linear: use policy:{target}")
    return ActorExpert(name, actor)


def make_trained(options: Mapping[str, Any], scenario: str, seed: int) -> ActorExpert:
    """The expert `trained`: SAC, return (random) Hopper-v5 2532 (17), HalfCheetah-v5 4701 (-264), Walker2d-v5 2358 (1).

    Args:
        options: None are known.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: An option is bad, or no policy is shipped for the scenario.
    """
    resolve(NoOptions(), options, "trained")
    words = "policy:actor.npz; experiments/mujoco_checkpoints.py"
    return ActorExpert("trained", load_actor(_shipped("trained", scenario, TRAINED, words)))


def _shipped(expert: str, scenario: str, files: Mapping[str, str], instead: str) -> Path:
    """The file in assets/ for a scenario.

    Args:
        expert: For the message.
        scenario: Name of the scenario.
        files: By environment.
        instead: What may be named where there is none, and what makes it.

    Raises:
        UsageError: None is shipped for the scenario.
    """
    environment = environment_of(scenario)
    if environment not in files:
        raise UsageError(
            f"expert {expert!r}: no policy is shipped for {scenario!r} (for {', '.join(files)} one is): name a file, "
            f"as in {instead} makes one"
        )
    return assets.path(files[environment])


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST:
                raise ValueError(f"more than {LARGEST >> 20} MiB")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except OSError as error:
        raise UsageError(f"cannot read actor {str(path)!r}: {error.strerror or 'it is damaged'}") from None
    except (ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{str(path)!r} is no .npz file of plain arrays ({reason:.120})") from None


def _layer_names(arrays: Mapping[str, np.ndarray]) -> list[str]:
    count = sum(bool(re.fullmatch(r"W\d+", name)) for name in arrays)
    names = [f"W{i}" for i in range(count)]
    if not names or not all(name in arrays for name in names):
        raise ValueError("its layers are W0, b0, W1, b1, ... without a gap, or W and b")
    return names


def _floats(
    arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...], default: np.ndarray | None = None
) -> np.ndarray:
    """An array as float64. ValueError where it is missing, has another shape, or is not finite."""
    if name not in arrays and default is not None:
        return default
    found = arrays[name]
    wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
    fits = found.ndim == len(shape) and all(a in (None, b) for a, b in zip(shape, found.shape, strict=True))
    if not fits or found.dtype.kind not in "fiu" or not found.size:
        raise ValueError(f"{name} has shape {found.shape} and type {found.dtype}, numbers of shape {wanted} are needed")
    values = found.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} holds values that are not finite")
    return values


def _word(arrays: Mapping[str, np.ndarray], name: str, default: str, known: Mapping[str, Any]) -> str:
    word = str(arrays[name]) if name in arrays else default
    if word not in known:
        raise unknown(f"{name} of an actor", word, known)
    return word


def _metadata(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
    if not isinstance(found, dict):
        raise ValueError("metadata is no JSON mapping")
    return found
