"""Vehicles seen from above: polygons in metres, drawn as small pictures that are cached."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pygame

from sim.render.canvas import samples, tint
from sim.render.palette import Colour, Theme, mix

BRAKING = -0.3
"""m/s2: brake lights are on at a stronger deceleration."""
SHADOW_SHIFT = (0.12, 0.28)
"""Metres to the right of and below a body on screen."""
PHASES = 8
"""Positions within a pixel that are distinguished, per direction."""
FULL_TURN = 1440
"""Headings that are distinguished."""
HEADING = 2 * math.pi / FULL_TURN
"""Radians between two headings."""
ZOOMS = 512
"""Sizes per octave that are distinguished: an error of 0.07 % is a twentieth of a pixel on a car of 70."""
MEMORY = 12 << 20
"""Bytes of cached pictures."""


@functools.lru_cache(256)
def outline(length: float, width: float, radius: float, steps: int = 4) -> np.ndarray:
    """A rounded rectangle about the origin.

    Args:
        length: m.
        width: m.
        radius: Of the corners, m.
        steps: Points per corner.

    Returns:
        Corners (4 * steps, 2).
    """
    radius = min(radius, length / 2, width / 2)
    turn = np.linspace(0.0, np.pi / 2, steps)
    corner = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    inner = np.array([length / 2 - radius, width / 2 - radius])
    corners = []
    for sign_x, sign_y, backwards in ((1, 1, False), (-1, 1, True), (-1, -1, False), (1, -1, True)):
        points = (inner + corner) * (sign_x, sign_y)
        corners.append(points[::-1] if backwards else points)
    return np.concatenate(corners)


def _quad(x0: float, x1: float, back: float, front: float) -> np.ndarray:
    """Trapezium from x0 to x1 with half-widths `back` and `front`."""
    return np.array([[x0, -back], [x1, -front], [x1, front], [x0, back]])


@functools.lru_cache(256)
def parts(length: float, width: float, plain: bool) -> tuple[np.ndarray, dict[str, slice]]:
    """All polygons of a vehicle.

    Args:
        length: m.
        width: m.
        plain: Leave out those of special states.

    Returns:
        Corners (K, 2), and the rows of each polygon by name.
    """
    half, side = length / 2, width / 2
    lamp = 0.36 * side
    cabin = min(length, 5.0)
    headlight = _quad(half - 0.32, half - 0.08, lamp / 2, lamp / 2)
    tail = _quad(-half + 0.06, -half + 0.36, lamp / 2, lamp / 2)
    beside = np.array([0.0, 0.6 * side])
    shapes = {
        "body": outline(length, width, 0.3 * width),
        "windscreen": _quad(half - 0.37 * cabin, half - 0.24 * cabin, 0.66 * side, 0.80 * side),
        "rear_window": _quad(-half + 0.12 * cabin, -half + 0.20 * cabin, 0.74 * side, 0.64 * side),
        "left_light": headlight - beside,
        "right_light": headlight + beside,
        "left_tail": tail - beside,
        "right_tail": tail + beside,
    }
    if not plain:
        shapes |= {
            "glow": outline(0.8, width + 0.2, 0.4) - np.array([half - 0.05, 0.0]),
            "brake": _quad(-half - 0.02, -half + 0.34, 0.86 * side, 0.86 * side),
            "box": outline(length, width, 0.15),
            "ring": outline(length + 0.9, width + 0.9, 0.3 * width + 0.45),
            "cross_a": np.array([[-0.85, -0.60], [-0.60, -0.85], [0.85, 0.60], [0.60, 0.85]]),
            "cross_b": np.array([[-0.85, 0.60], [-0.60, 0.85], [0.85, -0.60], [0.60, -0.85]]),
        }
    rows, at = {}, 0
    for name, shape in shapes.items():
        rows[name] = slice(at, at + len(shape))
        at += len(shape)
    return np.concatenate(list(shapes.values())), rows


class VehicleLook(NamedTuple):
    """The appearance of one vehicle. `halo` is a colour around it, or None."""

    length: float
    width: float
    colour: Colour
    braking: bool = False
    crashed: bool = False
    obstacle: bool = False
    halo: Colour | None = None

    @property
    def plain(self) -> bool:
        return not (self.braking or self.crashed or self.obstacle or self.halo)


def is_obstacle(length: float, width: float, speed: float) -> bool:
    """Whether a body is a block or a wall: it stands, and has not the proportions of a vehicle.

    Args:
        length: m.
        width: m.
        speed: m/s.
    """
    return speed == 0.0 and not 1.4 <= length / max(width, 1e-6) <= 7.0


class Sprites:
    """Small pictures of vehicles, drawn once per look, heading, size on screen and position within a pixel.

    The least recently used ones are dropped beyond `MEMORY` bytes. A picture follows from its key alone, so that
    dropping it changes no pixel.
    """

    def __init__(self, theme: Theme) -> None:
        self.theme = theme
        self._kept: dict[tuple, tuple[pygame.Surface, int, int]] = {}
        self.bytes = 0  # of the cached pictures

    def put(
        self, picture: pygame.Surface, bodies: Iterable[tuple[VehicleLook, float, float, float]], zoom: float
    ) -> None:
        """Draw vehicles, later ones on top.

        Args:
            picture: Receives them.
            bodies: (look, column, row, heading) in pixels and radians.
            zoom: Pixels per metre.
        """
        step = round(math.log2(zoom) * ZOOMS)
        kept = self._kept
        drawn = []
        for look, column, row, heading in bodies:
            x, y = round(column * PHASES), round(row * PHASES)
            key = (look, step, round(heading / HEADING) % FULL_TURN, x % PHASES, y % PHASES)
            found = kept.pop(key, None)
            if found is None:
                found = self._make(*key)
                self.bytes += _size(found[0])
            kept[key] = found
            drawn.append((found[0], (x // PHASES - found[1], y // PHASES - found[2])))
        while self.bytes > MEMORY and len(kept) > len(drawn):
            self.bytes -= _size(kept.pop(next(iter(kept)))[0])
        picture.fblits(drawn, pygame.BLEND_PREMULTIPLIED)

    def _make(self, look: VehicleLook, step: int, turn: int, x: int, y: int) -> tuple[pygame.Surface, int, int]:
        """The picture, and the column and row in it of the pixel that holds the vehicle's middle."""
        zoom = 2.0 ** (step / ZOOMS)
        shape, rows = parts(round(look.length, 2), round(look.width, 2), look.plain)
        cos, sin = math.cos(turn * HEADING), math.sin(turn * HEADING)
        turned = shape @ np.array([[cos, sin], [-sin, cos]]) * zoom
        reach = np.abs(turned).max(axis=0) + np.array(SHADOW_SHIFT) * zoom
        column, row = math.ceil(reach[0]) + 1, math.ceil(reach[1]) + 1
        width, height = 2 * column + 2, 2 * row + 2
        count = samples(width * height)
        sheet = pygame.Surface((width * count, height * count), pygame.SRCALPHA, 32)
        middle = np.array([column + x / PHASES, row + y / PHASES])
        points = (turned + middle) * count
        _draw(sheet, self.theme, look, points.tolist(), rows, zoom * count)
        return pygame.transform.smoothscale(sheet, (width, height)), column, row


def _size(surface: pygame.Surface) -> int:
    return surface.get_width() * surface.get_height() * 4


def _draw(
    sheet: pygame.Surface, theme: Theme, look: VehicleLook, points: list, rows: dict[str, slice], zoom: float
) -> None:
    polygon = pygame.draw.polygon

    def fill(colour: Colour, *names: str, opacity: float = 1.0) -> None:
        for name in names:
            polygon(sheet, tint(colour, opacity), points[rows[name]])

    if look.obstacle:
        fill(theme.obstacle, "box")
        return
    right, down = SHADOW_SHIFT[0] * zoom, SHADOW_SHIFT[1] * zoom
    polygon(sheet, theme.shadow, [(x + right, y + down) for x, y in points[rows["body"]]])
    if look.halo is not None:
        fill(look.halo, "ring")
    if look.crashed:
        fill(theme.crash, "ring")
    if look.braking and not look.crashed:
        fill(theme.brake, "glow", opacity=0.45)
    fill(look.colour, "body")
    fill(mix(look.colour, theme.glass, 0.78), "windscreen", "rear_window")
    fill(theme.headlight, "left_light", "right_light")
    if look.braking:
        fill(theme.brake, "brake", "left_tail", "right_tail")
    else:
        fill(mix(look.colour, theme.brake, 0.55), "left_tail", "right_tail")
    if look.crashed:
        fill((255, 255, 255), "cross_a", "cross_b")
