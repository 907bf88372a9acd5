"""Where the camera looks: along a road it keeps the ego at an anchor; at a junction it stands still while possible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sim.render.road import RoadGeometry
from sim.scene import Scene

VIEW_LENGTH = 140.0
"""Metres of road across a wide picture."""
WIDE, SHORTEST = 3.2, 90.0
"""Width over height from which a picture is wide, and metres across the narrowest one."""
ANCHOR = 0.3
"""Share of the width that lies behind the ego on a road."""
ROAD_MARGIN = 3.0
"""Metres of ground above and below a road."""
ROAD_LIMIT = 30.0
"""Metres to the side of the ego that are kept in view at most: a ramp that leaves may leave the picture."""
PLACE_HEIGHT = 56.0
"""Metres of a junction that are shown from top to bottom, at least."""
PLACE_MARGIN = 7.0
"""Metres around the middle of a junction."""
PLACE_LIMIT = 72.0
"""Metres from top to bottom at most: beyond that vehicles get too small."""
EGO_MARGIN = 14.0
"""Metres that the ego keeps from the picture's border at a junction."""
SETTLING = 0.7
"""Seconds: time constant of zoom and vertical movement on a road."""

View = tuple[int, int, int, int]
"""x, y, width and height of the part of a picture that shows the road, pixels."""


@dataclass(frozen=True)
class Camera:
    """Centre in the world (m), pixels per metre, and the part of the picture that it fills."""

    x: float
    y: float
    zoom: float
    view: View

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels of world positions.

        Args:
            points: (..., 2), m.

        Returns:
            Columns and rows, (..., 2).
        """
        left, top, width, height = self.view
        middle = np.array([left + width / 2, top + height / 2])
        return (np.asarray(points, dtype=float) - (self.x, self.y)) * self.zoom + middle

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """`project` of one position (m)."""
        left, top, width, height = self.view
        return (x - self.x) * self.zoom + (left + width / 2), (y - self.y) * self.zoom + (top + height / 2)

    @property
    def radius(self) -> float:
        """Metres from the centre to a corner."""
        return math.hypot(self.view[2], self.view[3]) / 2 / self.zoom


def aim(scene: Scene, road: RoadGeometry, view: View, last: Camera | None, elapsed: float) -> Camera:
    """The camera for a scene; along a road it moves smoothly.

    Args:
        scene: The scene.
        road: Its road.
        view: The part of the picture to fill.
        last: The camera of the last picture of the episode.
        elapsed: Seconds of simulated time since then.

    Returns:
        The camera.
    """
    if road.is_lot:
        return _whole(road, view)
    if road.is_corridor or not road.lanes:
        return _along(scene, road, view, last, elapsed)
    return _around(scene, road, view)


def _settle(now: float, goal: float, share: float, near: float) -> float:
    """A step towards the goal; onto it from within `near`, so that cached pictures can be used from then on."""
    return goal if abs(goal - now) < near else now + share * (goal - now)


def _whole(road: RoadGeometry, view: View) -> Camera:
    width, height = road.high - road.low + 2 * ROAD_MARGIN
    x, y = (road.high + road.low) / 2
    return Camera(float(x), float(y), min(view[2] / width, view[3] / height), view)


def _along(scene: Scene, road: RoadGeometry, view: View, last: Camera | None, elapsed: float) -> Camera:
    ego = scene.ego
    top, bottom = _extent(road, ego.x, ego.y)
    zoom = _fit(view, bottom - top)
    y = (top + bottom) / 2
    if last is not None:
        share = 1.0 - math.exp(-max(elapsed, 0.0) / SETTLING)
        # A picture of another size shows the same at once: only what the road asks for settles.
        before = last.zoom if last.view == view else last.zoom * zoom / _fit(last.view, bottom - top)
        zoom = _settle(before, zoom, share, 2e-4 * zoom)
        y = _settle(last.y, y, share, 0.2 / zoom)
    forward = (0.5 - ANCHOR) * math.cos(ego.heading)
    if abs(ego.heading) < 0.6:
        forward = 0.5 - ANCHOR  # steering within the lane does not move the camera
    return Camera(ego.x + forward * view[2] / zoom, y, zoom, view)


def _fit(view: View, across: float) -> float:
    """Pixels per metre for a road `across` metres wide: tall pictures show less of its length, but larger."""
    length = VIEW_LENGTH * min(max(view[2] / view[3] / WIDE, 0.0) ** 0.5, 1.0)
    return min(view[2] / max(length, SHORTEST), view[3] / (across + 2 * ROAD_MARGIN))


def _extent(road: RoadGeometry, x: float, y: float) -> tuple[float, float]:
    """y of the upper and lower edge of the lanes around x."""
    tops, bottoms = [y - 4.0], [y + 4.0]
    middle, radius = x + 0.2 * VIEW_LENGTH, 0.4 * VIEW_LENGTH
    for lane, width, row in zip(road.lanes, road.widths, road.level, strict=True):
        if row is not None:
            x0, x1, lane_y, half = row
            reach = radius**2 - (lane_y - y) ** 2
            if reach > 0 and x0 < middle + math.sqrt(reach) and x1 > middle - math.sqrt(reach):
                tops.append(lane_y - half)
                bottoms.append(lane_y + half)
        elif (span := lane.near(middle, y, radius)) is not None:
            rows = lane.cut(*span)[0][:, 1]
            tops.append(float(rows.min()) - width / 2)
            bottoms.append(float(rows.max()) + width / 2)
    return max(min(tops), y - ROAD_LIMIT), min(max(bottoms), y + ROAD_LIMIT)


def _around(scene: Scene, road: RoadGeometry, view: View) -> Camera:
    needed = float(road.core_high[1] - road.core_low[1]) + 2 * PLACE_MARGIN
    zoom = max(view[3] / min(max(needed, PLACE_HEIGHT), PLACE_LIMIT), min(view[2:]) / 120.0)
    centre = []
    for ego, low, high, size in zip((scene.ego.x, scene.ego.y), road.core_low, road.core_high, view[2:], strict=True):
        half = size / 2 / zoom
        middle = (low + high) / 2
        slack = max((high - low) / 2 + PLACE_MARGIN - 1.4 * half, 0.0)
        wanted = min(max(ego, middle - slack), middle + slack)
        reach = half - min(EGO_MARGIN, 0.5 * half)
        centre.append(float(min(max(wanted, ego - reach), ego + reach)))
    return Camera(centre[0], centre[1], zoom, view)
