"""Vehicles seen from above, as polygons in metres that are moved to many places at once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pygame

from sim.render.palette import Colour, Theme, mix

BRAKING = -0.3
"""m/s2: stronger deceleration lights the brakes."""
SHADOW_SHIFT = (0.12, 0.28)
"""Metres to the right of and below a body on screen."""


@functools.cache
def outline(length: float, width: float, radius: float, steps: int = 4) -> np.ndarray:
    """Rounded rectangle about the origin, (4 * steps, 2)."""
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


@functools.cache
def parts(length: float, width: float, plain: bool) -> tuple[np.ndarray, dict[str, slice]]:
    """All polygons of a vehicle as (K, 2), with the rows of each; a plain one lacks those of special states."""
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


@dataclass(frozen=True)
class Body:
    """One thing to draw. `halo` is a colour around it or None."""

    x: float
    y: float
    heading: float
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
    """A standing thing that has no vehicle's proportions: a block or a wall."""
    return speed == 0.0 and not 1.4 <= length / max(width, 1e-6) <= 7.0


Placed = tuple[Body, list, dict[str, slice]]
"""A body, all its polygons' points in pixels, and which rows make which polygon."""


def place(bodies: Sequence[Body], origin: np.ndarray, zoom: float) -> list[Placed]:
    """Polygons of all bodies, those of one size at once; the world point `origin` (2,) is pixel 0, 0."""
    sizes: dict[tuple[float, float, bool], list[int]] = {}
    for index, body in enumerate(bodies):
        sizes.setdefault((round(body.length, 2), round(body.width, 2), body.plain), []).append(index)
    placed: dict[int, Placed] = {}
    for size, indices in sizes.items():
        shape, rows = parts(*size)
        heading = np.array([bodies[i].heading for i in indices])
        cos, sin = np.cos(heading), np.sin(heading)
        turn = np.stack([cos, sin, -sin, cos], axis=1).reshape(-1, 2, 2)
        centre = np.array([(bodies[i].x, bodies[i].y) for i in indices]) - origin
        points = ((shape @ turn + centre[:, None]) * zoom).tolist()
        placed |= {index: (bodies[index], own, rows) for index, own in zip(indices, points, strict=True)}
    return [placed[index] for index in range(len(bodies))]


def draw(surface: pygame.Surface, theme: Theme, placed: Placed) -> None:
    body, points, rows = placed
    polygon = pygame.draw.polygon

    def fill(colour: Colour, *names: str) -> None:
        for name in names:
            polygon(surface, colour, points[rows[name]])

    if body.obstacle:
        fill(theme.obstacle, "box")
        return
    if body.halo is not None:
        fill(body.halo, "ring")
    if body.crashed:
        fill(theme.crash, "ring")
    if body.braking and not body.crashed:
        fill(mix(theme.asphalt, theme.brake, 0.45), "glow")
    fill(body.colour, "body")
    fill(mix(body.colour, theme.glass, 0.78), "windscreen", "rear_window")
    fill(theme.headlight, "left_light", "right_light")
    if body.braking:
        fill(theme.brake, "brake", "left_tail", "right_tail")
    else:
        fill(mix(body.colour, theme.brake, 0.55), "left_tail", "right_tail")
    if body.crashed:
        fill((255, 255, 255), "cross_a", "cross_b")


def draw_shadow(surface: pygame.Surface, theme: Theme, placed: Placed, zoom: float) -> None:
    body, points, rows = placed
    if not body.obstacle:
        right, down = SHADOW_SHIFT[0] * zoom, SHADOW_SHIFT[1] * zoom
        pygame.draw.polygon(
            surface, theme.shadow, [(x + right, y + down) for x, y in points[rows["box" if body.obstacle else "body"]]]
        )
