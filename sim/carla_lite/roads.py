"""The road map of an OpenDRIVE file, as the server asks it: lanes, signals, spawn points, ground and speed limits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.carla_lite import opendrive, surface
from sim.carla_lite.lanes import (
    DRIVING,
    PAVED,
    Lane,
    LaneBorder,
    build_lanes,
    lane_pose,
    painted_borders,
    speed_limit_at,
)
from sim.carla_lite.opendrive import OpenDrive
from sim.carla_lite.signals import TRAFFIC_LIGHT, Signal, build_signals
from sim.errors import UsageError

SPAWN_SPACING = 40.0
"""Metres between spawn points of a lane."""
SPAWN_MARGIN = 10.0
"""Metres to the start and the end of a lane."""
SPAWN_WIDTH = 2.5
"""Metres; narrower lanes have no spawn points."""
SPAWN_DEAD_END = 100.0
"""Metres to the end of a lane without a successor."""


@dataclass(frozen=True)
class RoadMap:
    """Lanes and signals of a map, and look-ups of its ground. Build it with `RoadMap.parse`."""

    drive: OpenDrive
    lanes: tuple[Lane, ...]
    signals: tuple[Signal, ...]
    """Traffic lights."""
    signs: tuple[Signal, ...]
    """All other signals: yield, stop, ..."""

    @staticmethod
    def parse(text: str) -> RoadMap:
        """Build the map of OpenDRIVE text.

        Args:
            text: Content of an .xodr file.

        Returns:
            The map.

        Raises:
            UsageError: Broken XML, no roads, or unsupported geometry, in one line.
        """
        drive = opendrive.parse(text)
        lanes = build_lanes(drive)
        signals = build_signals(drive, lanes)
        return RoadMap(
            drive,
            lanes,
            tuple(s for s in signals if s.type == TRAFFIC_LIGHT),
            tuple(s for s in signals if s.type != TRAFFIC_LIGHT),
        )

    @property
    def name(self) -> str:
        return self.drive.name

    def pose(self, road: str, lane: int, s: float) -> tuple[float, float, float, float]:
        """The pose of the middle of a lane.

        Args:
            road: Id of the road.
            lane: Id of the lane.
            s: Metres along the road.

        Returns:
            x, y, z in m, yaw in degrees.

        Raises:
            UsageError: There is no such road or lane.
        """
        record = self.drive.roads.get(road)
        if record is None:
            raise UsageError(f"map {self.name!r} has no road {road!r}")
        return lane_pose(record, lane, s)

    def spawn_points(self, spacing: float = SPAWN_SPACING) -> list[tuple[float, float, float, float]]:
        """Places for cars on the road's surface, lane by lane.

        Args:
            spacing: Metres between two places of a lane.

        Returns:
            x, y, z in m, yaw in degrees.
        """
        found = []
        for lane in self.lanes:
            if lane.type != DRIVING or lane.junction is not None:
                continue
            road = self.drive.roads[lane.road]
            length = abs(lane.s[-1] - lane.s[0])
            last = length - (SPAWN_MARGIN if lane.successors else SPAWN_DEAD_END)
            for along in np.arange(SPAWN_MARGIN, last + 1e-6, spacing):
                s = lane.s[0] + (along if lane.id < 0 else -along)
                if np.interp(s, np.sort(lane.s), lane.width[np.argsort(lane.s)]) >= SPAWN_WIDTH:
                    found.append(lane_pose(road, lane.id, s))
        return found

    def on_road(self, xy: np.ndarray) -> np.ndarray:
        """Which points lie on a lane of a `PAVED` type.

        Args:
            xy: (N, 2), m.

        Returns:
            bool (N,).
        """
        return self._surface.contains(np.asarray(xy, dtype=float))

    def height(self, xy: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
        """Height of the road at points; beside all roads, that of the closest lane's middle.

        Args:
            xy: (N, 2), m.
            near: Heights (N,): where roads lie above each other, the closest one counts; the highest where None.

        Returns:
            z (N,), m.
        """
        xy = np.asarray(xy, dtype=float)
        if self._level is not None:
            return np.full(len(xy), self._level)
        z = self._surface.at(xy, near)[1]
        beside = np.flatnonzero(np.isnan(z))
        places, heights = self._middles
        for k in beside:
            z[k] = heights[np.argmin(((places - xy[k]) ** 2).sum(axis=1))]
        return z

    def ground_level(self, place: np.ndarray) -> float:
        """z of the road below a place, or of the closest road.

        Args:
            place: (3,), m.

        Returns:
            Metres; 0 where the map gives no height.
        """
        height = float(self.height(place[None, :2], place[2:3])[0])
        return height if math.isfinite(height) else 0.0

    def speed_limit(self, xy: np.ndarray) -> np.ndarray:
        """Speed limits at points.

        Args:
            xy: (N, 2), m.

        Returns:
            km/h (N,); NaN beside all roads and where the map has no limit.
        """
        return self._limits[self._surface.at(np.asarray(xy, dtype=float))[0]]

    def borders(self) -> list[LaneBorder]:
        """Lane borders with their paint, to draw."""
        found: list[LaneBorder] = []
        for lane in self.lanes:
            section = self.drive.roads[lane.road].sections[lane.section]
            found += painted_borders(lane.s, lane.right, section.lanes[lane.id].marks)
            if lane.id == -1 or (lane.id == 1 and -1 not in section.lanes):
                found += painted_borders(lane.s, lane.left, section.lanes[0].marks if 0 in section.lanes else ())
        return found

    @cached_property
    def _paved(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.type in PAVED]

    @cached_property
    def _surface(self) -> surface.Surface:
        """Quadrangles whose owners index `_limits`."""
        paved = self._paved
        corners = [np.stack([lane.left[:-1], lane.left[1:], lane.right[1:], lane.right[:-1]], axis=1) for lane in paved]
        z = [np.stack([lane.z[:-1], lane.z[1:]], axis=1) for lane in paved]
        owner = np.repeat(np.arange(len(paved)), [len(c) for c in corners])
        return surface.build(
            np.concatenate([np.zeros((0, 4, 2)), *corners]), np.concatenate([np.zeros((0, 2)), *z]), owner
        )

    @cached_property
    def _limits(self) -> np.ndarray:
        """km/h of each paved lane; NaN for the last row, which is no lane."""
        limits = [speed_limit_at(self.drive.roads[lane.road], float(lane.s.min())) for lane in self._paved]
        return np.array([*limits, math.nan])

    @cached_property
    def _level(self) -> float | None:
        """The height of all roads, if they share one."""
        heights = self._middles[1]
        return float(heights[0]) if np.ptp(heights) < 1e-9 else None

    @cached_property
    def _middles(self) -> tuple[np.ndarray, np.ndarray]:
        lanes = self._paved or self.lanes
        return np.concatenate([lane.center for lane in lanes]), np.concatenate([lane.z for lane in lanes])
