"""A drawing of the world as a pinhole camera would see it: sky, ground, roads and boxes in flat colours. Synthetic."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pygame

from sim.carla_lite.rays import Boxes
from sim.carla_lite.roads import RoadMap

SKY, GRASS, ASPHALT, LINE = (168, 200, 228), (128, 150, 112), (98, 102, 108), (232, 232, 226)
COLOURS = {12: (196, 78, 92), 14: (52, 96, 168), 15: (150, 96, 44), 18: (120, 60, 130), 19: (60, 130, 120)}
OTHER = (214, 140, 40)
NEAR = 0.1
"""Metres before the lens at which things are cut off."""
FAR = 300.0
"""Metres within which roads are drawn."""
FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))
SHADES = (0.8, 0.8, 0.6, 1.0, 0.7, 0.9)


def draw(roads: RoadMap, boxes: Boxes, pose: tuple[float, ...], size: tuple[int, int], fov: float) -> np.ndarray:
    """uint8 (height, width, 4) BGRA. Pose in metres and degrees, `fov` horizontal, degrees."""
    from sim.carla_lite.sensors import rotation

    width, height = size
    picture = pygame.Surface(size)
    picture.fill(SKY)
    turn, place = rotation(*pose[3:]), np.array(pose[:3])
    focus = width / (2 * math.tan(math.radians(fov) / 2))

    def paint(points: np.ndarray, colour: tuple[int, int, int], thickness: int = 0) -> None:
        seen = _before_lens((points - place) @ turn)
        if len(seen) < 3:
            return
        x = width / 2 + focus * seen[:, 1] / seen[:, 0]
        y = height / 2 - focus * seen[:, 2] / seen[:, 0]
        if np.abs(x).max() < 1e5 and np.abs(y).max() < 1e5:
            pygame.draw.polygon(picture, colour, np.column_stack([x, y]).tolist(), thickness)

    level = float(np.nan_to_num(roads.height(place[None, :2], place[2:3])[0]))
    x, y = place[:2]
    field = np.array([[x - 2e3, y - 2e3], [x + 2e3, y - 2e3], [x + 2e3, y + 2e3], [x - 2e3, y + 2e3]])
    paint(_at(field, level - 0.02), GRASS)
    for polygon in roads.lane_polygons():
        for quad in _pieces(polygon):
            if np.hypot(*(quad - place[:2]).T).min() < FAR:
                paint(_at(quad, level), ASPHALT)
    for border in roads.borders():
        for start, end in zip(border.points[:-1], border.points[1:], strict=True):
            if border.kind != "none" and math.dist(start, place[:2]) < FAR / 3:
                paint(_at(_strip(start, end), level + 0.01), LINE)
    for k in np.argsort(-np.linalg.norm(boxes.centers - place, axis=1)):
        colour = COLOURS.get(int(boxes.tags[k]), OTHER)
        for face, shade in _faces(boxes, int(k), place):
            paint(face, tuple(int(shade * value) for value in colour))  # type: ignore[arg-type]
    rgb = pygame.surfarray.array3d(picture).swapaxes(0, 1)
    return np.ascontiguousarray(np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 255, np.uint8)]))


def _at(points: np.ndarray, z: float) -> np.ndarray:
    return np.column_stack([points, np.full(len(points), z)])


def _strip(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along = (end - start) / max(math.dist(start, end), 1e-9)
    side = 0.08 * np.array([-along[1], along[0]])
    return np.array([start + side, end + side, end - side, start - side])


def _pieces(polygon: np.ndarray) -> Iterable[np.ndarray]:
    """A lane's polygon (left border forth, right border back) cut into quadrangles: long ones project badly."""
    half = len(polygon) // 2
    left, right = polygon[:half], polygon[half:][::-1]
    for k in range(half - 1):
        yield np.array([left[k], left[k + 1], right[k + 1], right[k]])


def _before_lens(points: np.ndarray) -> np.ndarray:
    """The part of a polygon (P, 3), x forward, that lies before the near plane."""
    kept = []
    for a, b in zip(points, np.roll(points, -1, axis=0), strict=True):
        if a[0] >= NEAR:
            kept.append(a)
        if (a[0] >= NEAR) != (b[0] >= NEAR):
            kept.append(a + (b - a) * (NEAR - a[0]) / (b[0] - a[0]))
    return np.array(kept).reshape(-1, 3)


def _faces(boxes: Boxes, k: int, eye: np.ndarray) -> Iterable[tuple[np.ndarray, float]]:
    """Faces of a box with their brightness, the farthest first."""
    corners = np.array(list(itertools.product((-1, 1), repeat=3))) * boxes.extents[k]
    cos, sin = math.cos(boxes.yaws[k]), math.sin(boxes.yaws[k])
    x, y = corners[:, 0] * cos - corners[:, 1] * sin, corners[:, 0] * sin + corners[:, 1] * cos
    corners = boxes.centers[k] + np.column_stack([x, y, corners[:, 2]])
    faces = [(corners[list(face)], shade) for face, shade in zip(FACES, SHADES, strict=True)]
    return sorted(faces, key=lambda face: -float(np.linalg.norm(face[0].mean(axis=0) - eye)))
