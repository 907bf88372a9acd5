"""Actors: what a client can spawn, see and command. Their bodies are rows of `bodies.Bodies`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.blueprints import Blueprint
from sim.carla_lite.boxes import Box

NO_ROW = -1
"""Row of an actor without a body."""
NO_ROOM = "Spawn failed because of collision at spawn position"
"""CARLA's message where a spawn point is occupied."""


class CallRefused(Exception):
    """A call that cannot be carried out; the message is the text of the client's exception."""


@dataclass
class Actor:
    """One actor. Angles of poses are in degrees, as on the wire."""

    id: int
    blueprint: Blueprint
    attributes: dict[str, str]
    parent: int = 0
    row: int = NO_ROW
    """Row of its body, or `NO_ROW`."""
    offset: tuple[float, ...] = (0.0,) * 6
    """Pose relative to the parent; the world pose for an actor without body and parent."""
    stream: int = 0
    """Stream of a sensor."""
    light: str = ""
    """OpenDRIVE id of a traffic light."""
    children: list[int] = field(default_factory=list)
    autopilot: bool = False
    volume: Box | None = None
    """Trigger volume of a traffic light, relative to its position."""
    light_state: int = 0
    """Switched lights of a vehicle."""
    stride: tuple[float, float, float, float, bool] = (1.0, 0.0, 0.0, 0.0, False)
    """Direction, speed and jump of a walker."""
    physics: codec.Wire = None
    """VehiclePhysicsControl set by a client."""
    ackermann: tuple[float, float] | None = None
    """Wheel angle (rad) and speed (m/s) of the Ackermann command in force."""
    due: float = -math.inf
    """Simulation time at which a sensor sends next, s."""
    turned: float = 0.0
    """Rotation of a lidar, degrees."""
    rng: np.random.Generator | None = None
    """Generator of a sensor's noise."""

    @property
    def kind(self) -> str:
        return self.blueprint.kind


def attached_pose(parent: Sequence[float], offset: Sequence[float]) -> tuple[float, ...]:
    """The world pose of an actor that is rigidly attached to a level parent.

    Args:
        parent: World pose of the parent: x, y, z in m; pitch, yaw, roll in degrees.
        offset: Pose relative to the parent, in the same order.

    Returns:
        The world pose, in the same order.
    """
    yaw = math.radians(parent[4])
    cos, sin = math.cos(yaw), math.sin(yaw)
    x, y, z, pitch, own_yaw, roll = offset
    return (
        parent[0] + cos * x - sin * y,
        parent[1] + sin * x + cos * y,
        parent[2] + z,
        parent[3] + pitch,
        parent[4] + own_yaw,
        parent[5] + roll,
    )
