"""The time of the window: the wall clock for people, a virtual one for tests and for recording at full speed."""

from __future__ import annotations

import time
from typing import Protocol

import pygame

FPS = 60


class Clock(Protocol):
    """Time of the window."""

    threads: bool
    """Whether sessions may work in threads beside the loop."""

    def now(self) -> float:
        """Seconds."""
        ...

    def tick(self) -> float:
        """Wait for the next frame.

        Returns:
            Seconds since the last one.
        """
        ...


class RealClock:
    """Wall-clock time, at most `FPS` frames a second."""

    threads = True

    def __init__(self) -> None:
        self._clock = pygame.time.Clock()

    def now(self) -> float:
        """Seconds of the performance counter."""
        return time.perf_counter()

    def tick(self) -> float:
        """Wait for the next frame; at most 0.1 s are reported, so that a hiccup does not skip decisions."""
        return min(self._clock.tick(FPS) / 1000.0, 0.1)


class VirtualClock:
    """Every frame takes 1 / `FPS` seconds by definition."""

    threads = False

    def __init__(self) -> None:
        self._frames = 0

    def now(self) -> float:
        """Seconds of the frames so far."""
        return self._frames / FPS

    def tick(self) -> float:
        """Go to the next frame at once."""
        self._frames += 1
        return 1.0 / FPS
