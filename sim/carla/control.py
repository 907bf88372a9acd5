"""Controllers from target speed and target lateral position to throttle, brake and steering, for many vehicles at once.

Speed: proportional-integral on the error, integrated only while the pedal is not saturated. Steering: highway-env's
cascade (lateral error -> heading -> heading rate), turned into a wheel angle by the bicycle model and into the share
of the vehicle's steering range at its present speed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.lane_change import KP_HEADING, KP_LATERAL


@dataclass(frozen=True)
class Gains:
    """Gains of the controllers. Those of the pedals were tuned on carla-lite."""

    pedal: float = 0.35  # throttle or brake per m/s of error
    integral: float = 0.12  # per m/s and second
    lateral: float = 1 / 0.6  # 1/s, highway-env's KP_LATERAL
    heading: float = 1 / 0.2  # 1/s, highway-env's KP_HEADING
    max_heading: float = np.pi / 4  # rad that a lane change may turn the vehicle away from the road, highway-env's
    braking: float = 3.0  # m/s2 with which sideways motion can be ended: bounds its speed on the way to a line


LANE_CHANGE_GAINS = Gains(pedal=0.8, lateral=KP_LATERAL, heading=KP_HEADING)
"""For the published lane change, whose servos are fast."""
SLOWEST = 1.0
"""m/s: at lower speeds, steering is computed as at this one."""
CENTIMETRES = 100.0
"""Per metre: wheel positions are in centimetres."""


class SpeedControl:
    """Pedal controllers of N vehicles."""

    def __init__(self, count: int, gains: Gains, period: float) -> None:
        """Start with empty integrals.

        Args:
            count: N.
            gains: Of the controllers.
            period: Seconds between two calls of `pedals`.
        """
        self.gains, self.period = gains, period
        self._integral = np.zeros(count)

    def pedals(self, speed: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The pedals for the next period.

        Args:
            speed: Present speeds (N,), m/s.
            target: Target speeds (N,), m/s.

        Returns:
            (N,) in [-1, 1]: throttle where positive, brake where negative.
        """
        gains = self.gains
        error = target - speed
        integral = self._integral + gains.integral * self.period * error
        pedal = gains.pedal * error + integral
        free = np.abs(pedal) < 1.0
        self._integral = np.clip(np.where(free, integral, self._integral), -1.0, 1.0)
        pedal = np.clip(gains.pedal * error + self._integral, -1.0, 1.0)
        standing = (target < 0.1) & (speed < 0.5)
        return np.where(standing, -1.0, pedal)


@dataclass(frozen=True)
class Steering:
    """The steering of a type of vehicle."""

    wheelbase: float
    """m"""
    max_angle: float
    """rad, at standstill"""
    curve: np.ndarray
    """(K, 2): speed in km/h, and the share of `max_angle` that is available there"""

    @classmethod
    def of(cls, physics: Any) -> Steering:
        """Read the steering from a vehicle's physics.

        Args:
            physics: A `carla.VehiclePhysicsControl`.

        Returns:
            The steering; usual values where the physics have none.
        """
        wheels = physics.wheels
        x = np.array([[wheel.position.x, wheel.position.y] for wheel in wheels]) / CENTIMETRES
        wheelbase = float(np.hypot(*(x[:2].mean(axis=0) - x[2:].mean(axis=0)))) if len(wheels) >= 4 else 0.0
        curve = np.array([[point.x, point.y] for point in physics.steering_curve]).reshape(-1, 2)
        return cls(
            wheelbase if 1.0 < wheelbase < 8.0 else 2.9,
            float(np.radians(max(wheel.max_steer_angle for wheel in wheels) or 70.0)),
            curve if len(curve) else np.array([[0.0, 1.0]]),
        )

    def share(self, speed: np.ndarray, curvature: np.ndarray) -> np.ndarray:
        """The `steer` value of a `carla.VehicleControl` that drives a curvature.

        Args:
            speed: (N,), m/s.
            curvature: (N,), 1/m, positive to the right.

        Returns:
            (N,) in [-1, 1].
        """
        available = self.max_angle * np.interp(speed * 3.6, self.curve[:, 0], self.curve[:, 1])
        return np.clip(np.arctan(self.wheelbase * curvature) / available, -1.0, 1.0)


def curvature(
    gains: Gains, speed: np.ndarray, lateral: np.ndarray, heading: np.ndarray, road: np.ndarray
) -> np.ndarray:
    """The curvature that brings vehicles onto their lines.

    Args:
        gains: Of the controllers.
        speed: (N,), m/s.
        lateral: (N,) distance to the right of the line, m.
        heading: (N,) relative to the road, rad.
        road: (N,) curvature of the road, 1/m.

    Returns:
        (N,), 1/m, positive to the right.
    """
    speed = np.maximum(speed, SLOWEST)
    sideways = np.minimum(gains.lateral * np.abs(lateral), np.sqrt(2.0 * gains.braking * np.abs(lateral)))
    wanted = -np.sign(lateral) * np.arcsin(np.clip(sideways / speed, -1.0, 1.0))
    wanted = np.clip(wanted, -gains.max_heading, gains.max_heading)
    return road + gains.heading * (wanted - heading) / speed
