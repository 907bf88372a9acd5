"""Picture: one moment of an environment that has no traffic scene, as the environment itself draws it.

The window, films and recordings show it where driving environments have a `Scene`. Pixels are kept compressed, so that
an episode of a thousand of them stays in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from sim.actions import MetaAction
from sim.by_value import ByValue
from sim.errors import UsageError
from sim.scene import Scene

MODE = "rgb_array"
"""The render mode of environments whose pictures are taken."""
LARGEST = 8192
"""Pixels: the largest width and height."""
USUAL_RATE = 30.0
"""Steps per second where an environment does not say at what rate it is meant to be seen."""
KEYS = {
    "Left": MetaAction.SLOWER,
    "Right": MetaAction.FASTER,
    "Up": MetaAction.LANE_LEFT,
    "Main": MetaAction.LANE_LEFT,
    "Down": MetaAction.LANE_RIGHT,
    "Off": MetaAction.IDLE,
}
"""Driving keys by the action that they choose: the arrow to the left is the key of SLOWER, the one up of LANE_LEFT."""


@dataclass(frozen=True, slots=True, eq=False)
class Picture(ByValue):
    """What a person sees of an environment, and what its actions are."""

    scenario: str
    time: float
    """Since the start of the episode, s."""
    decision_period: float
    """s"""
    step: int
    """Decisions made in the episode."""
    size: tuple[int, int]
    """Width and height, pixels."""
    packed: bytes
    """RGB rows from the top, one byte each, compressed by zlib."""
    legal: np.ndarray
    """bool (A,): actions that are available now; where actions are continuous bool (D,), all True."""
    names: tuple[str, ...]
    """Of the A actions, or of the D components of continuous ones."""
    low: np.ndarray | None = None
    """float32 (D,): lower bounds of continuous actions; None: actions are discrete."""
    high: np.ndarray | None = None
    """float32 (D,): upper bounds."""

    @property
    def meanings(self) -> tuple[MetaAction, ...]:
        """Empty: no action is a meta-action."""
        return ()

    def pixels(self) -> np.ndarray:
        """The picture, uint8 (height, width, 3).

        Raises:
            ValueError: The compressed pixels do not fit the size.
        """
        width, height = self.size
        if not (0 < width <= LARGEST and 0 < height <= LARGEST):
            raise ValueError(f"a picture of {width} x {height} pixels")
        data = zlib.decompressobj().decompress(self.packed, 3 * width * height + 1)
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)


Shown = Scene | Picture
"""What people are shown of one moment of an environment."""


def pack_pixels(pixels: np.ndarray) -> tuple[tuple[int, int], bytes]:
    """Size and compressed pixels of a `Picture`.

    Args:
        pixels: uint8 (height, width, 3).
    """
    return (pixels.shape[1], pixels.shape[0]), zlib.compress(np.ascontiguousarray(pixels).tobytes(), 1)


def keys_of(names: tuple[str, ...]) -> tuple[MetaAction | None, ...]:
    """The driving keys that choose discrete actions.

    Args:
        names: Of the actions.
    Returns:
        The key of each action; None for actions that no key chooses.
    """
    return tuple(KEYS.get(name) for name in names)


class Camera:
    """Takes the pictures of one environment.

    Args:
        scenario: Its name, for pictures and messages.
        space: Its actions.
        names: Of the actions, see `Picture`; empty: numbers serve.
        metadata: As gymnasium's; `render_fps` is the number of steps per second.
        render: Draws the present state, uint8 (height, width, 3).
    """

    def __init__(
        self,
        scenario: str,
        space: spaces.Space,
        names: tuple[str, ...],
        metadata: dict[str, Any],
        render: Callable[[], Any],
    ) -> None:
        self.scenario, self._render = scenario, render
        self.period = 1.0 / float(metadata.get("render_fps") or USUAL_RATE)
        self._bounds = (space.low, space.high) if isinstance(space, spaces.Box) else (None, None)
        count = int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape or ()))
        self._names = names if len(names) == count else tuple(f"a{k}" for k in range(count))
        self._last: tuple[tuple[int, int], bytes] | None = None
        self._due = 0.0
        """Time of the episode from which on the next picture is taken, s."""

    def take(self, step: int, legal: np.ndarray, rate: float | None = None) -> Picture:
        """A picture of the present state.

        Args:
            step: Decisions made in the episode.
            legal: Available actions, see `Picture`.
            rate: Most pictures per simulated second; states between two show the last one. None: one of every state.
        Raises:
            UsageError: The environment cannot be drawn.
        """
        time = step * self.period
        if step == 0 or self._last is None or time >= self._due - 1e-9:
            self._last = pack_pixels(self._pixels())
            self._due = time if rate is None else time + 1.0 / rate
        size, packed = self._last
        low, high = self._bounds
        return Picture(self.scenario, time, self.period, step, size, packed, legal, self._names, low, high)

    def _pixels(self) -> np.ndarray:
        try:
            pixels = self._render()
        except UsageError:
            raise
        except Exception as error:  # drivers and libraries of third parties raise anything
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise UsageError(f"scenario {self.scenario!r} cannot be drawn: {words[0]}") from None
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[2:] != (3,):
            raise UsageError(f"scenario {self.scenario!r} draws no pictures: its render() gives no uint8 (H, W, 3)")
        return pixels


def require_pictures(scenario: str, metadata: dict[str, Any]) -> None:
    """UsageError unless an environment says that it draws pictures.

    Args:
        scenario: Its name.
        metadata: As gymnasium's.
    """
    modes = metadata.get("render_modes") or ()
    if MODE not in modes:
        known = ", ".join(map(str, modes)) or "none"
        raise UsageError(f"scenario {scenario!r} draws no pictures: it has no render mode {MODE!r} (modes: {known})")
