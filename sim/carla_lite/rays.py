"""Rays against oriented boxes and level ground, vectorised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Boxes:
    """B upright boxes."""

    centers: np.ndarray
    """(B, 3) m"""
    extents: np.ndarray
    """(B, 3) half sizes, m"""
    yaws: np.ndarray
    """(B,) rad"""
    ids: np.ndarray
    tags: np.ndarray

    def where(self, rows: np.ndarray | slice) -> Boxes:
        """The boxes at some indices."""
        return Boxes(self.centers[rows], self.extents[rows], self.yaws[rows], self.ids[rows], self.tags[rows])


def cast(origin: np.ndarray, rays: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cast rays against boxes. A box around the origin is not hit.

    Args:
        origin: (3,), m.
        rays: Unit vectors (R, 3).
        boxes: The boxes.

    Returns:
        Distance (R,) to the nearest box (inf: none), its index (R,) or -1, and the cosine of incidence (R,).
    """
    best = np.full(len(rays), np.inf)
    which = np.full(len(rays), -1)
    cosine = np.zeros(len(rays))
    for k in range(len(boxes.ids)):
        cos, sin = np.cos(boxes.yaws[k]), np.sin(boxes.yaws[k])
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        start = turn @ (origin - boxes.centers[k])
        local = rays @ turn.T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            one, two = (-boxes.extents[k] - start) / local, (boxes.extents[k] - start) / local
        near, far = np.fmin(one, two), np.fmax(one, two)
        enter, leave = near.max(axis=1), far.min(axis=1)
        hit = (enter <= leave) & (enter > 0) & (enter < best)
        best = np.where(hit, enter, best)
        which = np.where(hit, k, which)
        face = np.argmax(near, axis=1)
        cosine = np.where(hit, np.abs(local[np.arange(len(rays)), face]), cosine)
    return best, which, cosine


def ground_distance(origin: np.ndarray, rays: np.ndarray, height: float) -> tuple[np.ndarray, np.ndarray]:
    """Cast rays against level ground.

    Args:
        origin: (3,), m.
        rays: Unit vectors (R, 3).
        height: z of the ground, m.

    Returns:
        Distance (R,) (inf: none), and the cosine of incidence (R,).
    """
    fall = -rays[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(fall > 1e-9, (origin[2] - height) / fall, np.inf)
    return np.where(distance > 0, distance, np.inf), np.maximum(fall, 0.0)


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """The rotation matrix (3, 3) from a sensor's frame to the world's, left-handed, as in `carla.Transform.get_matrix`.

    Args:
        pitch: Degrees.
        yaw: Degrees.
        roll: Degrees.
    """
    p, y, r = np.radians([pitch, yaw, roll])
    cp, sp, cy, sy, cr, sr = np.cos(p), np.sin(p), np.cos(y), np.sin(y), np.cos(r), np.sin(r)
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr],
            [sp, -cp * sr, cp * cr],
        ]
    )
