"""Smooth drawing at the picture's own size: polygons in world metres, blended with exact transparency.

Shapes are drawn at several times the size on a small sheet of their own, smoothed down and blended in. Sheets hold
premultiplied colours (red, green and blue times opacity), so that averaging samples is also right at edges.
"""

from __future__ import annotations

import math

import numpy as np
import pygame

from sim.render.camera import Camera
from sim.render.palette import Colour

SHEET = 60_000
"""Pixels up to which a sheet has 4 x 4 samples per pixel; 2 x 2 beyond four times as much, else 3 x 3."""

Tint = tuple[int, int, int, int]
"""Premultiplied red, green, blue, and opacity."""


def tint(colour: Colour, opacity: float = 1.0) -> Tint:
    """A colour with opacity, premultiplied.

    Args:
        colour: The colour.
        opacity: In [0, 1].
    """
    red, green, blue = colour
    return round(red * opacity), round(green * opacity), round(blue * opacity), round(255 * opacity)


def samples(pixels: float) -> int:
    """Samples per pixel and direction for a sheet of an area in pixels."""
    return 4 if pixels <= SHEET else 3 if pixels <= 4 * SHEET else 2


class Brush:
    """Collects polygons and blends them onto a picture: later ones replace earlier ones where they overlap."""

    def __init__(self, picture: pygame.Surface, camera: Camera) -> None:
        """Begin without polygons.

        Args:
            picture: Receives them.
            camera: Projects them; nothing is drawn outside its view.
        """
        self._picture, self._camera = picture, camera
        self._tints: list[Tint] = []
        self._shapes: list[np.ndarray] = []

    def fill(self, colour: Tint, world: np.ndarray) -> None:
        """Add a polygon.

        Args:
            colour: Premultiplied.
            world: Corners (N, 2), m; left out where N < 3.
        """
        if len(world) >= 3:
            self._tints.append(colour)
            self._shapes.append(world)

    def fill_all(self, colours: list[Tint], world: np.ndarray) -> None:
        """Add polygons.

        Args:
            colours: One per polygon, premultiplied.
            world: Corners (P, N, 2), m.
        """
        self._tints += colours
        self._shapes += list(world)

    def flush(self) -> None:
        """Draw what was collected."""
        if not self._shapes:
            return
        points = self._camera.project(np.concatenate(self._shapes))
        ends = np.cumsum([len(shape) for shape in self._shapes])[:-1].tolist()
        tints, self._tints, self._shapes = self._tints, [], []
        # Rectangles along the axes, as most marks of a level road are, need no sheet of samples.
        if all(end == 4 * (number + 1) for number, end in enumerate(ends)) and len(points) == 4 * len(tints) <= 12:
            corners = points.reshape(-1, 4, 2)
            flat = np.abs(corners - corners[:, [1, 0, 3, 2]]).min(axis=2).max() < 1e-6
            upright = np.abs(corners - corners[:, [3, 2, 1, 0]]).min(axis=2).max() < 1e-6
            if flat and upright:
                lows, highs = corners.min(axis=1).tolist(), corners.max(axis=1).tolist()
                for colour, low, high in zip(tints, lows, highs, strict=True):
                    self._rectangle(colour, *low, *high)
                return
        view = pygame.Rect(self._camera.view)
        low, high = points.min(axis=0), points.max(axis=0)
        left, top = max(math.floor(low[0]), view.left), max(math.floor(low[1]), view.top)
        width = min(math.ceil(high[0]) + 1, view.right) - left
        height = min(math.ceil(high[1]) + 1, view.bottom) - top
        if width <= 0 or height <= 0:
            return
        count = samples(width * height)
        sheet = pygame.Surface((width * count, height * count), pygame.SRCALPHA, 32)
        spots = ((points - (left, top)) * count).tolist()
        start = 0
        for colour, end in zip(tints, [*ends, len(spots)], strict=True):
            pygame.draw.polygon(sheet, colour, spots[start:end])
            start = end
        smooth = pygame.transform.smoothscale(sheet, (width, height))
        self._picture.blit(smooth, (left, top), special_flags=pygame.BLEND_PREMULTIPLIED)

    def _rectangle(self, colour: Tint, x0: float, y0: float, x1: float, y1: float) -> None:
        """Blend an upright rectangle in with exact coverage of the pixels at its edges."""
        left, top, width, height = self._camera.view
        x0, x1 = max(x0, left), min(x1, left + width)
        y0, y1 = max(y0, top), min(y1, top + height)
        if x1 <= x0 or y1 <= y0:
            return
        first, row = math.floor(x0), math.floor(y0)
        sheet = pygame.Surface((math.ceil(x1) - first, math.ceil(y1) - row), pygame.SRCALPHA, 32)
        for y, high, down in _cells(y0 - row, y1 - row):
            for x, wide, across in _cells(x0 - first, x1 - first):
                share = down * across
                sheet.fill([round(channel * share) for channel in colour], (x, y, wide, high))
        self._picture.blit(sheet, (first, row), special_flags=pygame.BLEND_PREMULTIPLIED)


def _cells(low: float, high: float) -> list[tuple[int, int, float]]:
    """The unit cells that an interval touches: first one, count, and the share of each that it covers."""
    first, last = math.ceil(low), math.floor(high)
    if last < first:
        return [(last, 1, high - low)]
    cells = [(first, last - first, 1.0)]
    if first > low:
        cells.append((first - 1, 1, first - low))
    if high > last:
        cells.append((last, 1, high - last))
    return cells
