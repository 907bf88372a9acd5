"""The paved ground as quadrangles in a grid of cells, for look-ups of many points at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL = 5.0
"""Metres."""
TOLERANCE = 1e-6
"""Metres by which a quadrangle extends beyond its edges, so that neighbours leave no gap."""
REACH = 10**9
"""Cells from the origin in which there may be roads."""
SMALLEST = 1e-6
"""Square metres; smaller quadrangles are left out."""


@dataclass(frozen=True)
class Surface:
    """Q quadrangles; the row after the last one contains no point."""

    edges: np.ndarray
    """(Q + 1, 4, 3): inward unit normals and offsets of the near, right, far and left edge"""
    z: np.ndarray
    """(Q + 1, 2): heights of the near and the far edge, m"""
    owner: np.ndarray
    """(Q + 1,): what the quadrangle belongs to; -1 in the last row"""
    cells: np.ndarray
    """(R,) keys of the cells that are not empty, ascending"""
    table: np.ndarray
    """(R + 1, K): quadrangles that reach into a cell, padded with Q; the last row is that of all empty cells"""

    def candidates(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The quadrangles near points.

        Args:
            xy: (N, 2), m.

        Returns:
            Quadrangles (N, K) of their cells, whether these contain the point (N, K), distances (N, K, 4) to edges.
        """
        key = _key(np.floor(np.nan_to_num(xy, nan=np.inf) / CELL))
        row = np.searchsorted(self.cells, key)
        empty = len(self.cells)
        known = self.cells[np.minimum(row, empty - 1)] == key if empty else np.zeros(len(xy), dtype=bool)
        found = self.table[np.where(known, row, empty)]
        planes = self.edges[found]
        distance = planes[..., 0] * xy[:, 0, None, None] + planes[..., 1] * xy[:, 1, None, None] + planes[..., 2]
        return found, (distance >= -TOLERANCE).all(axis=2), distance

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """Which points (N, 2) lie on a quadrangle: bool (N,)."""
        return np.any(self.candidates(xy)[1], axis=1)

    def at(self, xy: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Owner and height of the ground at points.

        Args:
            xy: (N, 2), m.
            near: Heights (N,): where roads lie above each other, the closest one counts; the highest where None.

        Returns:
            Owner (N,) and height (N,), m; -1 and NaN beside the ground.
        """
        found, inside, distance = self.candidates(xy)
        back, front = np.maximum(distance[..., 0], 0.0), np.maximum(distance[..., 2], 0.0)
        share = back / np.maximum(back + front, 1e-9)
        z = self.z[found, 0] + share * (self.z[found, 1] - self.z[found, 0])
        rank = z if near is None else -np.abs(z - near[:, None])
        best = np.argmax(np.where(inside, rank, -np.inf), axis=1)
        row = np.arange(len(xy))
        there = inside[row, best]
        return np.where(there, self.owner[found[row, best]], -1), np.where(there, z[row, best], np.nan)


def build(corners: np.ndarray, z: np.ndarray, owner: np.ndarray) -> Surface:
    """Build the surface of quadrangles.

    Args:
        corners: (Q, 4, 2) in order around each; the first and last one span the near edge, the others the far edge.
        z: (Q, 2) of the near and the far edge, m.
        owner: (Q,).

    Returns:
        The surface.
    """
    following = np.roll(corners, -1, axis=1)
    area = (corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]).sum(axis=1) / 2
    solid = np.abs(area) > SMALLEST
    corners, z, owner, area = corners[solid], z[solid], owner[solid], area[solid]
    edges = _edges(corners, np.sign(area))
    nothing = np.zeros((1, 4, 3))
    nothing[..., 2] = -1.0
    low, high = corners.min(axis=1), corners.max(axis=1)
    cells, table = _grid(np.floor((low - TOLERANCE) / CELL), np.floor((high + TOLERANCE) / CELL))
    return Surface(np.concatenate([edges, nothing]), np.append(z, [[0, 0]], axis=0), np.append(owner, -1), cells, table)


def _edges(corners: np.ndarray, sign: np.ndarray) -> np.ndarray:
    """Near, right, far, left: edges from corner 3 to 0, 2 to 3, 1 to 2 and 0 to 1."""
    edges = np.zeros((len(corners), 4, 3))
    for k, (start, end) in enumerate(((3, 0), (2, 3), (1, 2), (0, 1))):
        along = corners[:, end] - corners[:, start]
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) * sign[:, None]
        normal /= np.maximum(np.hypot(*along.T), 1e-9)[:, None]
        edges[:, k, :2] = normal
        edges[:, k, 2] = -(normal * corners[:, start]).sum(axis=1)
    return edges


def _grid(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last cells (Q, 2) of each quadrangle -> `cells` and `table` of a surface."""
    size = (high - low + 1).astype(int)
    count = size.prod(axis=1)
    quad = np.repeat(np.arange(len(low)), count)
    k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    key = _key(low[quad] + np.stack([k // size[quad, 1], k % size[quad, 1]], axis=1))
    order = np.argsort(key, kind="stable")
    cells, first, members = np.unique(key[order], return_index=True, return_counts=True)
    table = np.full((len(cells) + 1, max(members.max(initial=0), 1)), len(low))
    rank = np.arange(len(key)) - np.repeat(first, members)
    table[np.repeat(np.arange(len(cells)), members), rank] = quad[order]
    return cells, table


def _key(cell: np.ndarray) -> np.ndarray:
    """Columns and rows of cells (N, 2) as one number each; clipped at `REACH` cells."""
    column, row = np.clip(cell, -REACH, REACH).astype(np.int64).T
    return column * (2 * REACH + 1) + row
