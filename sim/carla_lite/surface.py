"""The paved ground as quadrangles in a grid of cells, to ask for many points at once what lies under them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CELL = 5.0
"""Metres."""
TOLERANCE = 1e-6
"""Metres by which a quadrangle reaches over its edges, so that neighbours leave no gap."""
SMALLEST = 1e-6
"""Square metres; less is an edge and not a quadrangle."""


@dataclass(frozen=True)
class Surface:
    """Q quadrangles; the row after the last one contains no point."""

    edges: np.ndarray
    """(Q + 1, 4, 3): inward unit normals and offsets of the near, right, far and left edge"""
    z: np.ndarray
    """(Q + 1, 2): heights of the near and the far edge, m"""
    owner: np.ndarray
    """(Q + 1,): what the quadrangle belongs to; -1 in the last row"""
    origin: np.ndarray
    """(2,) corner of the grid, m"""
    rows: np.ndarray
    """(cells along x + 2, cells along y + 2): row of `table`; 0 where nothing is"""
    table: np.ndarray
    """(R, K): quadrangles that reach into a cell, padded with Q"""

    def candidates(self, xy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points (N, 2) -> quadrangles (N, K) of their cells, whether they contain it, distances (N, K, 4) to edges."""
        cell = np.floor((xy - self.origin) / CELL)
        cell = np.clip(np.nan_to_num(cell, nan=-1.0) + 1, 0, np.array(self.rows.shape) - 1).astype(int)
        found = self.table[self.rows[cell[:, 0], cell[:, 1]]]
        planes = self.edges[found]
        distance = planes[..., 0] * xy[:, 0, None, None] + planes[..., 1] * xy[:, 1, None, None] + planes[..., 2]
        return found, (distance >= -TOLERANCE).all(axis=2), distance

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """Points (N, 2) -> bool (N,)."""
        return np.any(self.candidates(xy)[1], axis=1)

    def at(self, xy: np.ndarray, near: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, 2) -> owner (N,) and height (N,) of the ground there; -1 and NaN beside it.

        Where roads lie above each other the highest counts, or the one closest to the heights `near` (N,).
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
    """From corners (Q, 4, 2) in order round each quadrangle, z (Q, 2) of its first and last two, and owners (Q,).

    The first and last corner span the near edge, the second and third the far one.
    """
    following = np.roll(corners, -1, axis=1)
    area = (corners[..., 0] * following[..., 1] - corners[..., 1] * following[..., 0]).sum(axis=1) / 2
    solid = np.abs(area) > SMALLEST
    corners, z, owner, area = corners[solid], z[solid], owner[solid], area[solid]
    edges = _edges(corners, np.sign(area))
    nothing = np.zeros((1, 4, 3))
    nothing[..., 2] = -1.0
    low, high = corners.min(axis=1), corners.max(axis=1)
    origin = low.min(axis=0) if len(low) else np.zeros(2)
    rows, table = _grid(
        np.floor((low - TOLERANCE - origin) / CELL).astype(int) + 1,
        np.floor((high + TOLERANCE - origin) / CELL).astype(int) + 1,
    )
    return Surface(
        np.concatenate([edges, nothing]), np.append(z, [[0, 0]], axis=0), np.append(owner, -1), origin, rows, table
    )


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
    """First and last cells (Q, 2) of each quadrangle -> `rows` and `table` of a surface."""
    low = np.maximum(low, 0)
    shape = tuple(high.max(axis=0) + 2) if len(high) else (2, 2)
    size = high - low + 1
    count = size.prod(axis=1)
    quad = np.repeat(np.arange(len(low)), count)
    k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    cell = (low[quad, 0] + k // size[quad, 1]) * shape[1] + low[quad, 1] + k % size[quad, 1]
    order = np.argsort(cell, kind="stable")
    occupied, first, members = np.unique(cell[order], return_index=True, return_counts=True)
    rows = np.zeros(shape, dtype=int)
    rows.flat[occupied] = np.arange(len(occupied)) + 1
    table = np.full((len(occupied) + 1, max(members.max(initial=0), 1)), len(low))
    rank = np.arange(len(cell)) - np.repeat(first, members)
    table[np.repeat(np.arange(len(occupied)) + 1, members), rank] = quad[order]
    return rows, table
