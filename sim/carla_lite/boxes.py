"""Oriented boxes in CARLA's frame: trigger volumes of traffic lights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """An upright box. Metres and degrees."""

    x: float
    y: float
    z: float
    yaw: float
    extent: tuple[float, float, float]
    """Half sizes along, across and up."""

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """Which points lie in the box, seen from above.

        Args:
            xy: Points (N, 2), m.

        Returns:
            bool (N,).
        """
        yaw = math.radians(self.yaw)
        ahead, aside = np.array([math.cos(yaw), math.sin(yaw)]), np.array([-math.sin(yaw), math.cos(yaw)])
        offset = xy - (self.x, self.y)
        return (np.abs(offset @ ahead) <= self.extent[0]) & (np.abs(offset @ aside) <= self.extent[1])

    def overlaps(self, xy: np.ndarray, yaw: np.ndarray, extent: np.ndarray) -> np.ndarray:
        """Which boxes overlap this one, seen from above.

        Two rectangles are disjoint if and only if an axis of one of them separates them.

        Args:
            xy: Centres (N, 2), m.
            yaw: Yaws (N,), degrees.
            extent: Half sizes (N, 2) along and across, m.

        Returns:
            bool (N,).
        """
        offset = xy - (self.x, self.y)
        own, other = np.radians(self.yaw), np.radians(yaw)
        cos, sin = np.abs(np.cos(other - own)), np.abs(np.sin(other - own))
        (long, wide), (length, width) = self.extent[:2], extent.T
        apart = np.zeros(len(xy), dtype=bool)
        for axis, reach in (
            (own, long + length * cos + width * sin),
            (own + np.pi / 2, wide + length * sin + width * cos),
            (other, length + long * cos + wide * sin),
            (other + np.pi / 2, width + long * sin + wide * cos),
        ):
            apart |= np.abs(offset[:, 0] * np.cos(axis) + offset[:, 1] * np.sin(axis)) > reach
        return ~apart
