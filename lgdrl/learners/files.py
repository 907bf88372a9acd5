"""Trained policies as files: tensors (safetensors), and in their header, as JSON, what rebuilds the learner.

Nothing in the file is code, and nothing of it is run: the learner is found by its name among the installed ones.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from lgdrl.learners.registry import LEARNERS
from sim.config import resolve, to_dict
from sim.errors import UsageError
from sim.spaces import space_from_json, space_to_json

if TYPE_CHECKING:
    from lgdrl.learners.guided import Guided

FORMAT = "lgdrl-policy-1"


def policy_bytes(model: Guided) -> bytes:
    """A trained learner as the content of a policy file.

    Args:
        model: The learner. Its name is registered, and its `config` is of the registered type.
    Raises:
        UsageError: Its spaces cannot be described in a file.
    """
    tensors = _tensors(model)
    about = {
        "format": FORMAT,
        "learner": model.learner_name,
        "options": to_dict(model.config),  # type: ignore[attr-defined]
        "observation_space": space_to_json(model.observation_space),
        "action_space": space_to_json(model.action_space),
        "seed": model.seed,
        "sha256": _digest(tensors),
    }
    return serialise(tensors, {"about": json.dumps(about)})


def load_policy_file(path: Path) -> Guided:
    """The learner that `policy_bytes` described, ready to predict.

    Args:
        path: The policy file.
    Raises:
        UsageError: It cannot be read, is damaged, or is of a learner that is not installed.
    """
    about, tensors = _content(path)
    try:
        learner = LEARNERS.get(about["learner"])
        options = resolve(learner.defaults, about["options"], "options")
        observations, actions = (space_from_json(about[name]) for name in ("observation_space", "action_space"))
        env = _SpacesOnly(observations, actions)
        model = learner.make(env, _without_memory(options), None, None, label_lag=0, seed=about["seed"], device="cpu")
        model.config = options
        _put(model, tensors)
    except UsageError as error:
        raise UsageError(f"policy {str(path)!r}: {error}") from None
    except Exception as error:  # damaged content raises almost anything
        words = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"policy {str(path)!r} does not fit learner {about.get('learner')!r:.50} ({type(error).__name__}: "
            f"{words:.120}): the file is damaged, or of another version; train again"
        ) from None
    return model


def _content(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        intact = about["format"] == FORMAT and about["sha256"] == _digest(tensors)
    except OSError as error:
        raise UsageError(f"cannot read policy {str(path)!r}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"policy {str(path)!r} is damaged, or was not written by training ({type(error).__name__}): train again"
        ) from None
    if not intact:
        raise UsageError(f"policy {str(path)!r} is damaged, or of another version: train again")
    return about, tensors


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def _tensors(model: Guided) -> dict[str, torch.Tensor]:
    """Parameters of the modules, and the single tensors, that the learner names to Stable-Baselines3 for saving."""
    found: dict[str, torch.Tensor] = {}
    modules, variables = model._get_torch_save_params()
    for name in modules:
        part = attrgetter(name)(model)
        if isinstance(part, nn.Module):  # optimizers are only needed to train on, which checkpoints are for
            found |= {f"{name}/{key}": value for key, value in part.state_dict().items()}
    found |= {name: attrgetter(name)(model) for name in variables}
    return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}


def _put(model: Guided, tensors: Mapping[str, torch.Tensor]) -> None:
    """Inverse of `_tensors`, in place. RuntimeError or KeyError where they do not fit."""
    modules, variables = model._get_torch_save_params()
    for name in modules:
        part = attrgetter(name)(model)
        if isinstance(part, nn.Module):
            prefix = f"{name}/"
            part.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name in variables:
        own = attrgetter(name)(model)
        if own.shape != tensors[name].shape:
            raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}, expected {tuple(own.shape)}")
        with torch.no_grad():
            own.copy_(tensors[name])


def _without_memory(options: Any) -> Any:
    names = {field.name for field in dataclasses.fields(options)}
    return (
        dataclasses.replace(options, buffer_size=options.batch_size)
        if {"buffer_size", "batch_size"} <= names
        else options
    )


class _SpacesOnly(VecEnv):
    """Stands for the environments of a policy that only predicts: spaces, and nothing that steps or is drawn."""

    render_mode = None

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        super().__init__(1, observation_space, action_space)

    def reset(self) -> Any:
        raise UsageError("this policy was loaded to predict: give it environments with set_env() to train on")

    def step_async(self, actions: np.ndarray) -> None:
        self.reset()

    def step_wait(self) -> Any:
        return self.reset()

    def close(self) -> None:
        """Nothing is held open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise AttributeError(method_name)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False]
