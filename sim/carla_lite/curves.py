"""The curves that reference lines of roads are made of, as OpenDRIVE 1.4 defines them.

A curve starts at the origin along +x, with y to the left (OpenDRIVE's frame), and is a function of its arc length.
CARLA's client measures arc length on poly3 and paramPoly3 too, whatever `pRange` says; so does this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
TURN_PER_PANEL = 0.5
"""Radians over which eight nodes integrate cosines to the last digit."""
TABLE_STEP = 1.0
"""Metres between the nodes from which the parameter of a polynomial curve is found."""

Along = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x (N,), y (N,) in metres and heading (N,) in radians."""


@dataclass(frozen=True)
class Line:
    """A straight line."""

    length: float

    def at(self, s: np.ndarray) -> Along:
        return s, np.zeros_like(s), np.zeros_like(s)

    def bend(self) -> float:
        return 0.0


@dataclass(frozen=True)
class Arc:
    """A part of a circle."""

    length: float
    curvature: float
    """1/m, positive to the left"""

    def at(self, s: np.ndarray) -> Along:
        turn = self.curvature * s
        half = np.sinc(turn / (2 * np.pi))  # sin(turn / 2) / (turn / 2)
        return s * half * np.cos(turn / 2), s * half * np.sin(turn / 2), turn

    def bend(self) -> float:
        return abs(self.curvature)


@dataclass(frozen=True)
class Spiral:
    """Clothoid: curvature grows linearly from `start` to `end`, 1/m."""

    length: float
    start: float
    end: float

    def at(self, s: np.ndarray) -> Along:
        rate = (self.end - self.start) / self.length
        panels = max(1, int(np.ceil(self.bend() * self.length / TURN_PER_PANEL)))
        fractions = ((np.arange(panels)[:, None] + (NODES + 1) / 2) / panels).ravel()
        weights = np.tile(WEIGHTS / 2 / panels, panels)
        places = s[:, None] * fractions
        turns = places * (self.start + rate * places / 2)
        return s * (np.cos(turns) @ weights), s * (np.sin(turns) @ weights), s * (self.start + rate * s / 2)

    def bend(self) -> float:
        return max(abs(self.start), abs(self.end))


@dataclass(frozen=True)
class Poly3:
    """y = a + b x + c x2 + d x3."""

    length: float
    y: tuple[float, float, float, float]

    def at(self, s: np.ndarray) -> Along:
        return self._curve.at(s)

    def bend(self) -> float:
        return self._curve.bend()

    @cached_property
    def _curve(self) -> ParamPoly3:
        return ParamPoly3(self.length, (0.0, 1.0, 0.0, 0.0), self.y, self.length)


@dataclass(frozen=True)
class ParamPoly3:
    """x and y are cubics of a parameter that runs from 0 to `end`."""

    length: float
    x: tuple[float, float, float, float]
    y: tuple[float, float, float, float]
    end: float = 1.0

    def at(self, s: np.ndarray) -> Along:
        p = self._parameter(s)
        return cubic(self.x, p), cubic(self.y, p), np.arctan2(slope(self.y, p), slope(self.x, p))

    def bend(self) -> float:
        p = self._table[0]
        dx, dy = slope(self.x, p), slope(self.y, p)
        cross = dx * bow(self.y, p) - dy * bow(self.x, p)
        return float(np.max(np.abs(cross) / np.maximum(np.hypot(dx, dy), 1e-9) ** 3))

    def _speed(self, p: np.ndarray) -> np.ndarray:
        return np.hypot(slope(self.x, p), slope(self.y, p))

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Parameters and the arc lengths up to them."""
        p = np.linspace(0.0, self.end, 8 + int(np.ceil(self.length / TABLE_STEP)))
        pieces = integral(self._speed, p[:-1], p[1:])
        return p, np.concatenate([[0.0], np.cumsum(pieces)])

    def _parameter(self, s: np.ndarray) -> np.ndarray:
        """The parameter at arc length s; extrapolated beyond the end of the table."""
        nodes, lengths = self._table
        cell = np.clip(np.searchsorted(lengths, s, side="right") - 1, 0, len(nodes) - 2)
        p = np.interp(s, lengths, nodes)
        for _ in range(4):  # Newton; the table is so fine that two steps would be enough
            excess = lengths[cell] + integral(self._speed, nodes[cell], p) - s
            p = p - excess / np.maximum(self._speed(p), 1e-9)
        return p


Curve = Line | Arc | Spiral | Poly3 | ParamPoly3


def cubic(coefficients: tuple[float, float, float, float], p: np.ndarray) -> np.ndarray:
    """The value of a cubic."""
    a, b, c, d = coefficients
    return a + p * (b + p * (c + p * d))


def slope(coefficients: tuple[float, float, float, float], p: np.ndarray) -> np.ndarray:
    """Its first derivative."""
    _, b, c, d = coefficients
    return b + p * (2 * c + p * 3 * d)


def bow(coefficients: tuple[float, float, float, float], p: np.ndarray) -> np.ndarray:
    """Its second derivative."""
    _, _, c, d = coefficients
    return 2 * c + p * 6 * d


def integral(f: Callable[[np.ndarray], np.ndarray], start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Integrals of a function by Gauss-Legendre quadrature.

    Args:
        f: Vectorised function.
        start: (N,).
        end: (N,).

    Returns:
        (N,).
    """
    half = (end - start) / 2
    return half * (f((start + half)[:, None] + half[:, None] * NODES) @ WEIGHTS)
