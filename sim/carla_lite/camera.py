"""Synthetic drawings of the world through a pinhole camera: sky, ground, roads and boxes in flat colours.

They make image code run; they say nothing about what Unreal renders, or about the real world.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from sim.carla_lite.lanes import PAVED
from sim.carla_lite.rays import Boxes, rotation
from sim.carla_lite.roads import RoadMap

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
import pygame

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Colours of a picture; boxes have the colour of their semantic tag."""

    sky: Colour
    grass: Colour
    asphalt: Colour
    line: Colour
    boxes: dict[int, Colour]
    other: Colour | None = None
    """Of boxes with any other tag; None for their tag as the red channel."""
    shaded: bool = True
    """Whether the sides of boxes are darker than their tops."""
    numbered: bool = False
    """Whether the green (low byte) and the blue channel hold the actor's id."""

    def of(self, tag: int, actor: int) -> Colour:
        """The colour of a box."""
        if self.numbered:
            return tag, actor & 255, actor >> 8 & 255
        return self.boxes.get(tag, self.other or (tag, 0, 0))


NATURAL = Palette(
    sky=(168, 200, 228),
    grass=(128, 150, 112),
    asphalt=(98, 102, 108),
    line=(232, 232, 226),
    boxes={12: (196, 78, 92), 14: (52, 96, 168), 15: (150, 96, 44), 18: (120, 60, 130), 19: (60, 130, 120)},
    other=(214, 140, 40),
)
SEMANTIC = Palette((11, 0, 0), (10, 0, 0), (1, 0, 0), (24, 0, 0), {}, shaded=False)
"""CARLA's tags in the red channel: sky, terrain, roads, road lines."""
PALETTES = {"rgb": NATURAL, "semantic": SEMANTIC, "instance": replace(SEMANTIC, numbered=True)}
NEAR = 0.1
"""Metres before the lens at which polygons are cut off."""
FAR = 300.0
"""Metres within which roads are drawn."""
LINES_TO = 120.0
"""Metres within which paint is drawn."""
DASH, GAP = 3.0, 6.0
"""Metres of paint and of gap in broken lines."""
LINE_WIDTH = 0.16
FIELD = 2000.0
"""Metres of grass around the camera."""
FURTHEST = 1000.0
"""Largest depth of a depth image, m."""
FACES = np.array([(0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5)])
CORNERS = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (-1, 1)])
SHADES = (0.8, 0.8, 0.6, 0.6, 0.5, 1.0)


@dataclass(frozen=True)
class Scenery:
    """The drawn parts of a map as quadrangles: (N, 4, 3) in m, with their middles (N, 2)."""

    roads: RoadMap
    asphalt: np.ndarray
    paint: np.ndarray
    asphalt_at: np.ndarray
    paint_at: np.ndarray

    @staticmethod
    def of(roads: RoadMap) -> Scenery:
        """The scenery of a map."""
        strips = [_strip(lane.left, lane.right, lane.z) for lane in roads.lanes if lane.type in PAVED]
        painted = [_painted(border.points, border.kind, roads) for border in roads.borders() if border.kind != "none"]
        asphalt = np.concatenate([np.zeros((0, 4, 3)), *strips])
        paint = np.concatenate([np.zeros((0, 4, 3)), *painted])
        return Scenery(roads, asphalt, paint, asphalt[..., :2].mean(axis=1), paint[..., :2].mean(axis=1))


@dataclass(frozen=True)
class Lens:
    """A camera: pose (x, y, z in m, pitch, yaw, roll in degrees), picture size in pixels, horizontal angle, degrees."""

    pose: tuple[float, ...]
    width: int
    height: int
    fov: float

    @property
    def focus(self) -> float:
        """Pixels."""
        return self.width / (2 * math.tan(math.radians(self.fov) / 2))

    @property
    def place(self) -> np.ndarray:
        return np.array(self.pose[:3])

    def seen(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in the camera's frame: x forward, y to the right, z up."""
        return (points - self.place) @ rotation(*self.pose[3:])

    def pixels(self, seen: np.ndarray) -> np.ndarray:
        """(..., 3) in the camera's frame, all before the lens -> (..., 2)."""
        x = self.width / 2 + self.focus * seen[..., 1] / seen[..., 0]
        y = self.height / 2 - self.focus * seen[..., 2] / seen[..., 0]
        return np.stack([x, y], axis=-1)


def draw(scenery: Scenery, boxes: Boxes, lens: Lens, palette: Palette = NATURAL) -> bytes:
    """Draw a colour or segmentation image.

    Args:
        scenery: The map.
        boxes: The bodies.
        lens: The camera.
        palette: The colours.

    Returns:
        BGRA bytes, row by row.
    """
    picture = pygame.Surface((lens.width, lens.height))
    picture.fill(palette.sky)
    here = lens.place[:2]
    level = scenery.roads.ground_level(lens.place) - 0.02
    field = [(*(here + FIELD * np.array(way)), level) for way in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    _fill(picture, lens, np.array([field]), palette.grass)
    for quads, middles, reach, colour in (
        (scenery.asphalt, scenery.asphalt_at, FAR, palette.asphalt),
        (scenery.paint, scenery.paint_at, LINES_TO, palette.line),
    ):
        _fill(picture, lens, quads[((middles - here) ** 2).sum(axis=1) < reach**2], colour)
    for corners, which in _far_first(boxes, lens.place):
        colour = palette.of(int(boxes.tags[which]), int(boxes.ids[which]))
        for k in _towards(corners, lens.place):
            shade = SHADES[k] if palette.shaded else 1.0
            red, green, blue = (round(shade * value) for value in colour)
            _fill(picture, lens, corners[None, FACES[k]], (red, green, blue))
    return pygame.image.tobytes(picture, "BGRA")


def depth(scenery: Scenery, boxes: Boxes, lens: Lens) -> bytes:
    """Draw a depth image.

    Args:
        scenery: The map.
        boxes: The bodies.
        lens: The camera.

    Returns:
        BGRA bytes, row by row; the depth along the camera's axis in 24 bits of R, G, B, as CARLA encodes it.
    """
    columns, rows = np.arange(lens.width) + 0.5, np.arange(lens.height) + 0.5
    turn = rotation(*lens.pose[3:])
    right = (columns - lens.width / 2) / lens.focus
    up = (lens.height / 2 - rows) / lens.focus
    fall = -(turn[2, 0] + turn[2, 1] * right[None] + turn[2, 2] * up[:, None])
    above = lens.place[2] - scenery.roads.ground_level(lens.place)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(fall * above > 0, above / fall, np.inf)
    for corners, _ in _far_first(boxes, lens.place):
        seen = lens.seen(corners)
        top, left, bottom, end = 0, 0, lens.height, lens.width
        if seen[:, 0].min() > NEAR:
            pixels = lens.pixels(seen)
            left, top = np.clip(pixels.min(axis=0), 0, (end, bottom)).astype(int)
            end, bottom = np.ceil(np.clip(pixels.max(axis=0), 0, (end, bottom))).astype(int)
        part = np.s_[top:bottom, left:end]
        rays = np.stack(np.broadcast_arrays(1.0, right[None, left:end], up[top:bottom, None]), axis=-1)
        found[part] = np.minimum(found[part], _distance(rays, seen))
    code = np.round(np.minimum(found / FURTHEST, 1.0) * (2**24 - 1)).astype(np.uint32)
    bgra = np.full((lens.height, lens.width, 4), 255, np.uint8)
    bgra[..., 2], bgra[..., 1], bgra[..., 0] = code & 255, code >> 8 & 255, code >> 16
    return bgra.tobytes()


def _distance(rays: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Distance (...,) of a box along rays, in their lengths; rays (..., 3), corners (8, 3) in the camera's frame."""
    axes = np.array([box[4] - box[0], box[2] - box[0], box[1] - box[0]]) / 2
    sizes = np.maximum(np.linalg.norm(axes, axis=1), 1e-6)
    axes = axes / sizes[:, None]
    start, along = -axes @ box.mean(axis=0), rays @ axes.T
    with np.errstate(divide="ignore", invalid="ignore"):
        one, two = (-sizes - start) / along, (sizes - start) / along
    enter, leave = np.fmin(one, two).max(axis=-1), np.fmax(one, two).min(axis=-1)
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _fill(picture: pygame.Surface, lens: Lens, polygons: np.ndarray, colour: Colour) -> None:
    """Draw world polygons (N, P, 3); those behind the lens are left out, those across it are cut."""
    seen = lens.seen(polygons)
    before = (seen[..., 0] >= NEAR).sum(axis=1)
    whole = before == seen.shape[1]
    pixels = lens.pixels(seen[whole])
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    visible = (high >= 0).all(axis=1) & (low <= (lens.width, lens.height)).all(axis=1)
    visible &= (np.abs(pixels) < 1e5).all(axis=(1, 2))
    for points in pixels[visible].tolist():
        pygame.draw.polygon(picture, colour, points)
    for points in seen[(before > 0) & ~whole]:
        cut = lens.pixels(_before_lens(points))
        if len(cut) > 2:
            pygame.draw.polygon(picture, colour, np.clip(cut, -1e5, 1e5).tolist())


def _before_lens(points: np.ndarray) -> np.ndarray:
    """The part of a polygon (P, 3), x forward, that lies before the near plane."""
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[0] >= NEAR:
            kept.append(a)
        if (a[0] >= NEAR) != (b[0] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[0]) / (b[0] - a[0]))
    return np.array(kept).reshape(-1, 3)


def _far_first(boxes: Boxes, eye: np.ndarray) -> Iterable[tuple[np.ndarray, int]]:
    """Corners (8, 3) and index of each box but those around the eye, the farthest first."""
    for k in np.argsort(-((boxes.centers - eye) ** 2).sum(axis=1)):
        cos, sin = math.cos(boxes.yaws[k]), math.sin(boxes.yaws[k])
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        if (np.abs(turn @ (eye - boxes.centers[k])) > boxes.extents[k]).any():
            yield boxes.centers[k] + (CORNERS * boxes.extents[k]) @ turn, int(k)


def _towards(corners: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Faces of a box that are turned to the eye; none of them hides another."""
    middle = corners.mean(axis=0)
    outward = corners[FACES].mean(axis=1) - middle
    return np.flatnonzero(((eye - middle - outward) * outward).sum(axis=1) > 0)


def _strip(left: np.ndarray, right: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Quadrangles (P - 1, 4, 3) between two borders (P, 2)."""
    left, right = np.column_stack([left, z]), np.column_stack([right, z])
    return np.stack([left[:-1], left[1:], right[1:], right[:-1]], axis=1)


def _painted(points: np.ndarray, kind: str, roads: RoadMap) -> np.ndarray:
    """Quadrangles (N, 4, 3) of a line along points (P, 2)."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(points, axis=0).T))])
    if "broken" in kind:
        starts = np.arange(0.0, along[-1], DASH + GAP)
        at = np.stack([starts, np.minimum(starts + DASH, along[-1])], axis=1)
        ends = np.stack([np.interp(at, along, points[:, k]) for k in range(2)], axis=-1)
    else:
        ends = np.stack([points[:-1], points[1:]], axis=1)
    ends = ends[np.hypot(*(ends[:, 1] - ends[:, 0]).T) > 1e-6]
    ahead = ends[:, 1] - ends[:, 0]
    ahead = ahead / np.hypot(*ahead.T)[:, None]
    side = LINE_WIDTH / 2 * np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)
    quads = np.stack([ends[:, 0] + side, ends[:, 1] + side, ends[:, 1] - side, ends[:, 0] - side], axis=1)
    height = roads.height(quads.reshape(-1, 2))
    height = np.where(np.isfinite(height), height, 0.0).reshape(-1, 4)
    return np.concatenate([quads, height[..., None] + 0.01], axis=-1)
