"""Geometry of lanes: borders, dashes and paths along polylines that point anywhere.

Right of a lane's direction (cos h, sin h) is (-sin h, cos h): y grows downwards on screen, as in highway-env.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sim.scene import LaneShape

DASH, DASH_PERIOD = 3.0, 9.0
"""Metres of paint and of paint plus gap of a broken line."""
JOIN = 0.6
"""Metres between the end of one lane and the start of another within which the latter continues the former."""
SEAM = 0.4
"""Metres by which the ground of lanes overlaps."""
LOT_SPOT = 20.0
"""Metres: a map is a parking lot where no lane is longer."""


@dataclass(frozen=True)
class Polyline:
    """A path: points (P, 2), unit right-hand normals (P, 2), arc length (P,); length and tangent of its pieces."""

    points: np.ndarray
    normals: np.ndarray
    along: np.ndarray
    steps: np.ndarray
    tangents: np.ndarray

    @classmethod
    def through(cls, points: np.ndarray) -> Polyline:
        """The path through points.

        Args:
            points: (P, 2), m; repeated points are dropped.
        """
        points = np.asarray(points, dtype=float)
        if len(points) == 2:
            (x0, y0), (x1, y1) = points.tolist()
            step = math.hypot(x1 - x0, y1 - y0)
            if step > 1e-9:
                a, b = (x1 - x0) / step, (y1 - y0) / step
                normals = np.array([[-b, a], [-b, a]])
                return cls(points, normals, np.array([0.0, step]), np.array([step]), np.array([[a, b]]))
        step = np.hypot(*np.diff(points, axis=0).T)
        points = points[np.concatenate([[True], step > 1e-9])]
        if len(points) < 2:
            points = np.stack([points[0], points[0] + (1e-3, 0.0)])
        delta = np.diff(points, axis=0)
        length = np.hypot(delta[:, 0], delta[:, 1])
        tangent = delta / length[:, None]
        at_vertex = np.concatenate([tangent[:1], tangent[:-1] + tangent[1:], tangent[-1:]])
        at_vertex /= np.maximum(np.hypot(at_vertex[:, 0], at_vertex[:, 1]), 1e-9)[:, None]
        normals = np.stack([-at_vertex[:, 1], at_vertex[:, 0]], axis=1)
        return cls(points, normals, np.concatenate([[0.0], np.cumsum(length)]), length, tangent)

    @property
    def length(self) -> float:
        return float(self.along[-1])

    def at(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points and normals at arc lengths.

        Args:
            s: (N,), m; clipped to the path.

        Returns:
            (N, 2) each.
        """
        values = [np.interp(s, self.along, column) for column in (*self.points.T, *self.normals.T)]
        return np.stack(values[:2], axis=1), np.stack(values[2:], axis=1)

    def place(self, s: float) -> np.ndarray:
        """The point (2,) at one arc length (m) on the path."""
        if len(self.points) == 2:
            return self.points[0] + s * self.tangents[0]
        return self.at(np.array([s]))[0][0]

    def cut(self, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
        """A part of the path.

        Args:
            start: Arc length, m.
            end: Arc length, m.

        Returns:
            Points and normals, (N, 2) each.
        """
        if len(self.points) == 2:
            ends = [min(max(s, 0.0), self.length) for s in (start, end)]
            return self.points[0] + np.array(ends)[:, None] * self.tangents, self.normals
        inner = (self.along > start + 1e-9) & (self.along < end - 1e-9)
        return self.at(np.concatenate([[start], self.along[inner], [end]]))

    def strip(self, low: float, high: float, start: float, end: float) -> np.ndarray:
        """The outline of a band along the path.

        Args:
            low: Offset to the right of one side, m.
            high: Offset of the other side, m.
            start: Arc length, m.
            end: Arc length, m.

        Returns:
            Corners (Q, 2).
        """
        points, normals = self.cut(start, end)
        return np.concatenate([points + low * normals, (points + high * normals)[::-1]])

    def near(self, x: float, y: float, radius: float) -> tuple[float, float] | None:
        """The arc lengths that enclose the part of the path within a circle.

        Args:
            x: Of the centre, m.
            y: Of the centre, m.
            radius: m.

        Returns:
            First and last arc length; None where the path misses the circle.
        """
        length, tangent = self.steps, self.tangents
        to_centre = np.array([x, y]) - self.points[:-1]
        foot = (to_centre * tangent).sum(1)
        beside = to_centre[:, 0] * tangent[:, 1] - to_centre[:, 1] * tangent[:, 0]
        half = radius**2 - beside**2
        reach = np.sqrt(np.maximum(half, 0.0))
        first, last = np.maximum(foot - reach, 0.0), np.minimum(foot + reach, length)
        hit = np.flatnonzero((half > 0) & (first < last))
        if hit.size == 0:
            return None
        return float(self.along[hit[0]] + first[hit[0]]), float(self.along[hit[-1]] + last[hit[-1]])

    def project(self, x: float, y: float) -> tuple[float, float, np.ndarray]:
        """The point of the path nearest to a position.

        Args:
            x: m.
            y: m.

        Returns:
            Its arc length, the distance to it, and the tangent (2,) there.
        """
        start, length, tangent = self.points[:-1], self.steps, self.tangents
        foot = np.clip(((np.array([x, y]) - start) * tangent).sum(1), 0.0, length)
        nearest = start + foot[:, None] * tangent
        distance = np.hypot(nearest[:, 0] - x, nearest[:, 1] - y)
        best = int(np.argmin(distance))
        return float(self.along[best] + foot[best]), float(distance[best]), tangent[best]


@dataclass(frozen=True)
class LaneMarking:
    """One painted line: offset to the right of its lane's centre, kind, and where its dashes begin."""

    lane: int
    offset: float
    broken: bool
    phase: float


class RoadGeometry:
    """All lanes of a scene, prepared once per map.

    It is a lot (short spots), a corridor (mostly along x), or else a place (a junction or a track).
    """

    def __init__(self, shapes: Sequence[LaneShape]) -> None:
        self.widths = [shape.width for shape in shapes]
        self.lanes = [Polyline.through(shape.center) for shape in shapes]
        self.boxes = [(*lane.points.min(0).tolist(), *lane.points.max(0).tolist()) for lane in self.lanes]
        self._outlines: dict[tuple, np.ndarray] = {}
        self.borders = list(self._borders(shapes))
        self.low = np.min([lane.points.min(0) - width / 2 for lane, width in self._pairs()], axis=0, initial=np.inf)
        self.high = np.max([lane.points.max(0) + width / 2 for lane, width in self._pairs()], axis=0, initial=-np.inf)
        self.is_lot = bool(self.lanes) and all(lane.length <= LOT_SPOT for lane in self.lanes)
        level = sum(lane.length for lane in self.lanes if np.ptp(lane.points[:, 1]) < 0.1 * np.ptp(lane.points[:, 0]))
        self.is_corridor = not self.is_lot and level > 0.75 * sum(lane.length for lane in self.lanes)
        self.is_straight = self.is_corridor and all(len(lane.points) == 2 for lane in self.lanes)
        self.level = list(self._level())
        """Lowest and highest x, y and half width of every lane that runs along x, either way; None for others."""
        curved = [lane.points for lane in self.lanes if len(lane.points) > 2]
        points = np.concatenate(curved) if curved else np.array([self.low, self.high])
        self.core_low, self.core_high = points.min(0), points.max(0)

    def _pairs(self) -> list[tuple[Polyline, float]]:
        return list(zip(self.lanes, self.widths, strict=True))

    def _level(self) -> Iterator[tuple[float, float, float, float] | None]:
        for lane, width in self._pairs():
            (x0, y0), (x1, y1) = lane.points[[0, -1]].tolist()
            yield (min(x0, x1), max(x0, x1), y0, width / 2) if len(lane.points) == 2 and y0 == y1 else None

    def is_level(self, x: float, y: float, radius: float) -> bool:
        """Whether all lanes that may be visible within a circle run along x.

        Args:
            x: Of the centre, m.
            y: Of the centre, m.
            radius: m.
        """
        return all(row or self._misses(index, x, y, radius) for index, row in enumerate(self.level))

    def _borders(self, shapes: Sequence[LaneShape]) -> list[LaneMarking]:
        """Painted lines; one that two lanes share is kept once."""
        found: dict[tuple, LaneMarking] = {}
        for index, (shape, lane) in enumerate(zip(shapes, self.lanes, strict=True)):
            phase = float(lane.points[0] @ (lane.points[1] - lane.points[0]) / lane.along[1])
            for kind, offset in ((shape.left, -shape.width / 2), (shape.right, shape.width / 2)):
                if kind in ("broken", "solid"):
                    ends = (lane.points + offset * lane.normals)[[0, -1]]
                    key = (*np.round(ends[np.lexsort(ends.T)], 1).ravel().tolist(), len(lane.points))
                    if key not in found or kind == "solid":
                        found[key] = LaneMarking(index, offset, kind == "broken", phase)
        return list(found.values())

    def _misses(self, index: int, x: float, y: float, reach: float) -> bool:
        """Whether a lane's centre line is certainly farther than `reach` from a point."""
        x0, y0, x1, y1 = self.boxes[index]
        return x < x0 - reach or x > x1 + reach or y < y0 - reach or y > y1 + reach

    def _project(self, index: int, x: float, y: float) -> tuple[float, float, np.ndarray]:
        """`Polyline.project` on a lane."""
        lane = self.lanes[index]
        row = self.level[index]
        if row is None:
            return lane.project(x, y)
        x0, x1, lane_y, _ = row
        foot, tangent = min(max(x, x0), x1), lane.tangents[0]
        return foot - x0 if tangent[0] > 0 else x1 - foot, math.hypot(foot - x, lane_y - y), tangent

    def visible(self, x: float, y: float, radius: float) -> list[tuple[int, float, float]]:
        """Lanes that may be visible within a circle.

        Args:
            x: Of the centre, m.
            y: Of the centre, m.
            radius: m.

        Returns:
            Index and arc lengths; those of the whole lane where it is short.
        """
        found = []
        for index, lane in enumerate(self.lanes):
            if self._misses(index, x, y, radius):
                continue
            if lane.length < 4 * radius:
                found.append((index, 0.0, lane.length))
            elif (span := lane.near(x, y, radius)) is not None:
                found.append((index, *span))
        return found

    def surface(self, index: int, half: float, start: float, end: float) -> np.ndarray:
        """The outline of a lane's ground, longer than the lane by `SEAM`, so that no seam is visible where lanes meet.

        Args:
            index: Of the lane.
            half: Half width, m.
            start: Arc length, m.
            end: Arc length, m.
        """
        outline = self.strip(index, -half, half, start, end).copy()
        first, last = self.lanes[index].tangents[[0, -1]]
        middle = len(outline) // 2
        outline[[0, -1]] -= SEAM * first
        outline[[middle - 1, middle]] += SEAM * last
        return outline

    def strip(self, index: int, low: float, high: float, start: float, end: float) -> np.ndarray:
        """`Polyline.strip` of a lane; that of a whole lane is cached.

        Args:
            index: Of the lane.
            low: Offset to the right of one side, m.
            high: Offset of the other side, m.
            start: Arc length, m.
            end: Arc length, m.
        """
        lane = self.lanes[index]
        if start > 0.0 or end < lane.length:
            return lane.strip(low, high, start, end)
        key = (index, low, high)
        if key not in self._outlines:
            if len(self._outlines) > 2000:
                self._outlines.clear()
            self._outlines[key] = lane.strip(low, high, start, end)
        return self._outlines[key]

    def dashes(self, border: LaneMarking, start: float, end: float, half_width: float) -> np.ndarray:
        """The dashes of a broken line.

        Args:
            border: The line.
            start: Arc length, m.
            end: Arc length, m.
            half_width: m.

        Returns:
            Corners (N, 4, 2).
        """
        first = np.floor((start + border.phase) / DASH_PERIOD)
        last = np.ceil((end + border.phase) / DASH_PERIOD)
        begin = np.arange(first, last) * DASH_PERIOD - border.phase
        finish = np.minimum(begin + DASH, end)
        begin = np.maximum(begin, start)
        keep = finish - begin > 0.05
        lane = self.lanes[border.lane]
        p, n = lane.at(begin[keep])
        q, m = lane.at(finish[keep])
        low, high = border.offset - half_width, border.offset + half_width
        return np.stack([p + low * n, q + low * m, q + high * m, p + high * n], axis=1)

    def lane_at(self, x: float, y: float, heading: float) -> tuple[int, float, np.ndarray] | None:
        """The lane under a point in a direction.

        Args:
            x: m.
            y: m.
            heading: rad.

        Returns:
            Index, arc length, tangent; None beside all lanes.
        """
        direction = np.array([np.cos(heading), np.sin(heading)])
        best: tuple[float, int, float, np.ndarray] | None = None
        for index, width in enumerate(self.widths):
            if self._misses(index, x, y, width / 2 + 0.5):
                continue
            s, distance, tangent = self._project(index, x, y)
            aligned = float(tangent @ direction)
            cost = distance + 2.0 * (1.0 - aligned)
            if distance <= width / 2 + 0.5 and aligned > 0.3 and (best is None or cost < best[0] - 1e-6):
                best = (cost, index, s, tangent)
        return None if best is None else best[1:]

    def follow(self, x: float, y: float, heading: float, distance: float) -> Polyline | None:
        """The path along the lane under a point and those that continue it. It ends early where lanes end or fork.

        Args:
            x: m.
            y: m.
            heading: rad.
            distance: Largest length, m.

        Returns:
            The path; None beside all lanes.
        """
        here = self.lane_at(x, y, heading)
        if here is None:
            return None
        index, start, _ = here
        pieces, missing, seen = [], distance, set()
        while missing > 1e-6 and index not in seen:
            seen.add(index)
            lane = self.lanes[index]
            end = min(start + missing, lane.length)
            if end > start + 1e-9:
                pieces.append(lane.cut(start, end)[0])
                missing -= end - start
            tip = lane.points[-1]
            following = [i for i, other in enumerate(self.lanes) if np.hypot(*(other.points[0] - tip)) < JOIN]
            if end < lane.length or len(following) != 1:
                break
            index, start = following[0], 0.0
        return Polyline.through(np.concatenate(pieces)) if pieces else None

    def cross_section(self, x: float, y: float, normal: np.ndarray) -> tuple[float, float]:
        """The edges of the road at a point: of the parallel lanes that touch there.

        Args:
            x: m.
            y: m.
            normal: (2,), to the right of the road.

        Returns:
            Offsets of the left and the right edge along `normal`, m.
        """
        spans = []
        tangent = np.array([normal[1], -normal[0]])
        for index, (lane, width) in enumerate(self._pairs()):
            if self._misses(index, x, y, 60.0):
                continue
            s, _, direction = self._project(index, x, y)
            away = lane.place(s) - (x, y)
            if abs(away @ tangent) < 0.5 and abs(direction @ tangent) > 0.95:
                spans.append((float(away @ normal) - width / 2, float(away @ normal) + width / 2))
        low = high = 0.0
        for left, right in sorted(spans, key=lambda span: abs(span[0] + span[1])):
            if left <= high + 0.6 and right >= low - 0.6:
                low, high = min(low, left), max(high, right)
        return low, high
