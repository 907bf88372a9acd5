"""Traffic lights on a route. Scenes represent a red light by a standing car of length 0 at its stop line.

Car-following models are made to obey lights in this way; a driver then obeys them although its input has no lights.
Amber counts as red where the ego can still stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.carla.routes import Route
from sim.carla.session import CarlaSession

GENTLE = 3.0
"""m/s2: the ego passes an amber light where it would have to brake harder than this."""
REACH = 2.0
"""Metres beside a stop point within which it applies to a lane."""


@dataclass(frozen=True)
class StopLine:
    """Where a light applies to the route."""

    light: Any
    """The `carla.TrafficLight`."""
    s: float
    d: float


class Lights:
    """The stop lines on a route."""

    def __init__(self, session: CarlaSession, route: Route) -> None:
        self.carla = session.carla
        self.lines: list[StopLine] = []
        for light in session.world.get_actors().filter("traffic.traffic_light*"):
            for waypoint in light.get_stop_waypoints():
                place = waypoint.transform.location
                s, d, index = (values[0] for values in route.project(np.array([[place.x, place.y]])))
                along = np.cos(np.radians(waypoint.transform.rotation.yaw) - route.headings[index])
                near = np.nanmin(np.abs(route.centers[index] - d)) < REACH
                if near and along > 0.7 and route.s[0] < s < route.end:
                    self.lines.append(StopLine(light, float(s), float(d)))

    def closed(self, s: float, speed: float) -> list[StopLine]:
        """Stop lines at which a vehicle has to stop now.

        Args:
            s: Position of its front bumper, m.
            speed: m/s.

        Returns:
            Lines ahead of s.
        """
        return [line for line in self.lines if line.s > s and self._stops(line, line.s - s, speed)]

    def passed_red(self, before: float, after: float) -> bool:
        """Whether a front bumper has passed a red light.

        Args:
            before: s at the start of the movement, m.
            after: s at its end, m.
        """
        red = self.carla.TrafficLightState.Red
        return any(before < line.s <= after and line.light.state == red for line in self.lines)

    def _stops(self, line: StopLine, distance: float, speed: float) -> bool:
        states = self.carla.TrafficLightState
        if line.light.state == states.Red:
            return True
        return line.light.state == states.Yellow and speed**2 / (2 * max(distance, 0.1)) < GENTLE
