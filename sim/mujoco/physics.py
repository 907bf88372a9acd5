"""The exact state of a MuJoCo simulation: as arrays for resuming, as a copy for roll-outs.

`mjSTATE_INTEGRATION` (https://mujoco.readthedocs.io, "Computation", "The State") decides all later physics, solver
warm starts included. Rewards of gymnasium need more: after a step, positions of bodies are those before the last
sub-step, and the next reward of Ant and Humanoid is a difference to them. Hence these arrays are part of a state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np

INTEGRATION = int(mujoco.mjtState.mjSTATE_INTEGRATION)
LAGGING = ("xpos", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "subtree_com")
"""Positions and rotations that are those before the last sub-step: of bodies, geoms (drawn in pictures) and sites."""


def save(model: mujoco.MjModel, data: mujoco.MjData) -> dict[str, np.ndarray]:
    """Everything in a simulation that decides its future.

    Args:
        model: The model.
        data: The simulation.
    Returns:
        Arrays by name, float64, for `load`.
    """
    integration = np.empty(mujoco.mj_stateSize(model, INTEGRATION))
    mujoco.mj_getState(model, data, integration, INTEGRATION)
    return {"integration": integration} | {name: getattr(data, name).copy() for name in LAGGING}


def load(model: mujoco.MjModel, data: mujoco.MjData, state: Mapping[str, Any]) -> None:
    """Continue from a `save` value; nothing is changed where it does not fit.

    Args:
        model: The model.
        data: The simulation.
        state: The value, of the same model.
    Raises:
        KeyError: An array is missing.
        ValueError: An array has another shape or type.
    """
    integration = _array(state, "integration", (mujoco.mj_stateSize(model, INTEGRATION),))
    lagging = {name: _array(state, name, getattr(data, name).shape) for name in LAGGING}
    mujoco.mj_resetData(model, data)
    mujoco.mj_setState(model, data, integration, INTEGRATION)
    mujoco.mj_forward(model, data)  # fills what is derived
    mujoco.mj_setState(model, data, integration, INTEGRATION)
    for name, values in lagging.items():
        getattr(data, name)[...] = values


@contextmanager
def kept(model: mujoco.MjModel, data: mujoco.MjData) -> Iterator[mujoco.MjData]:
    """A block that leaves a simulation as it was, to the bit.

    Args:
        model: The model.
        data: The simulation.
    Yields:
        A copy of it, to go back to within the block.
    """
    present = mujoco.MjData(model)
    mujoco.mj_copyData(present, model, data)
    try:
        yield present
    finally:
        mujoco.mj_copyData(data, model, present)


def _array(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(state[name])
    if values.shape != shape or values.dtype != np.float64:
        raise ValueError(f"{name}: {values.dtype} of shape {values.shape} in place of float64 of shape {shape}")
    return values
