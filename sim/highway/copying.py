"""Exact copies of a highway-env environment: in memory for branching, as bytes for resuming.

An environment holds its scene, its random stream and its config; the viewer (pygame surfaces) is left out of every
copy. Bytes are a pickle that may name vehicles, lanes, roads, observation and action types of highway-env alone.
"""

from __future__ import annotations

import copy
import copyreg
import io
import pickle
from typing import Any

from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.common.graphics import EnvViewer
from highway_env.envs.common.observation import AttributesObservation, GrayscaleObservation, observation_factory

from sim.errors import UsageError
from sim.highway import traffic
from sim.highway.viewer import Viewer
from sim.unpickling import RestrictedUnpickler

LEFT_OUT = ("viewer", "_record_video_wrapper")
MODULES = ("road.", "vehicle.", "envs.common.action", "envs.common.observation")
"""Modules of highway-env whose classes a saved state is made of."""
SPACES = "gymnasium.spaces."


class Blind:
    """An observation type without observations, which saves branches the cost of observing."""

    def observe(self) -> None:
        return None


def branch_off(inner: AbstractEnv) -> AbstractEnv:
    """Copy an environment exactly. The road network is shared: it never changes after reset.

    Args:
        inner: The environment.
    Returns:
        A copy with the same future. Its observations are None where observing has no effect on that.
    """
    network = inner.road.network
    shared = [network, *network.lanes_list(), inner.observation_space, inner.action_space]
    memo: dict[int, Any] = {id(item): item for item in shared}
    if not _observing_draws(inner):
        memo[id(inner.observation_type)] = Blind()
    return copy.deepcopy(inner, memo)


def _observing_draws(inner: AbstractEnv) -> bool:
    """Whether observing consumes random numbers, so that leaving it out would change the future."""
    kind = inner.observation_type
    return isinstance(kind, AttributesObservation) or getattr(kind, "order", "sorted") == "shuffled"


def save(inner: AbstractEnv) -> bytes:
    """Everything that decides an environment's future, as bytes.

    Args:
        inner: The environment.
    Returns:
        A pickle for `load`. The config is not part of it.
    """
    buffer = io.BytesIO()
    pickler = _Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.environment = inner
    pickler.dump({key: value for key, value in vars(inner).items() if key not in LEFT_OUT})
    return buffer.getvalue()


def load(inner: AbstractEnv, state: bytes) -> None:
    """Put a saved state into an environment of the same kind, which keeps its viewer.

    Args:
        inner: The environment.
        state: A value of `save`.
    Raises:
        UsageError: The state names something that no such environment is made of, or is damaged.
    """
    unpickler = _Unpickler(inner, state)
    kept = {key: vars(inner)[key] for key in LEFT_OUT if key in vars(inner)}
    try:
        values = unpickler.load()
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle raises almost anything
        raise UsageError(f"the saved state of an environment is damaged ({type(error).__name__})") from None
    vars(inner).clear()
    vars(inner).update(values, **kept)
    renew_pictures(inner)


def renew_pictures(inner: AbstractEnv) -> None:
    """Give an environment that has just been copied or loaded a surface to draw its observations on, if it needs one.

    Args:
        inner: The environment.
    """
    if isinstance(inner.observation_type, GrayscaleObservation):
        frames = inner.observation_type.obs
        inner.observation_type = observation_factory(inner, inner.config["observation"])
        inner.observation_type.obs = frames


def _no_viewer(viewer: EnvViewer) -> tuple[Any, ...]:
    """How viewers are copied and pickled: not at all."""
    return type(None), ()


copyreg.pickle(EnvViewer, _no_viewer)
copyreg.pickle(Viewer, _no_viewer)


class _Pickler(pickle.Pickler):
    """Stores references in place of the environment itself and its config, and leaves viewers out."""

    environment: AbstractEnv

    def persistent_id(self, obj: Any) -> str | None:
        if obj is self.environment:
            return "environment"
        if obj is self.environment.config:
            return "config"
        return "viewer" if isinstance(obj, EnvViewer) else None


class _Unpickler(RestrictedUnpickler):
    def __init__(self, environment: AbstractEnv, state: bytes) -> None:
        super().__init__(io.BytesIO(state), _is_part, "the saved state of an environment")
        self._environment = environment

    def persistent_load(self, pid: str) -> Any:
        return {"environment": self._environment, "config": self._environment.config}.get(pid)


def _is_part(module: str, name: str) -> bool:
    """Whether a class is one that environments are made of."""
    if module == traffic.__name__:
        return name.startswith(traffic.PRIVATE_OF_HIGHWAY_ENV)
    package, _, rest = module.partition(".")
    return module.startswith(SPACES) or (package == "highway_env" and rest.startswith(MODULES))
