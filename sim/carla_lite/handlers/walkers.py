"""Calls about walkers, which walk straight on."""

from __future__ import annotations

import math

from sim.carla_lite import codec
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers

HANDLERS = Handlers()


@HANDLERS.acts()
def apply_control_to_walker(server: ServerContext, number: int, control: Wire) -> None:
    direction, speed, jump = control
    codec.numbers([*direction, speed], 4)
    server.world.walk(server.world.actor(number), direction, speed, jump)


@HANDLERS.acts()
def set_walker_state(server: ServerContext, number: int, pose: Wire, speed: float) -> None:
    actor = server.world.actor(number)
    server.world.put(actor, codec.read_transform(pose))
    heading = float(server.world.bodies.of(actor)["yaw"])
    server.world.walk(actor, (math.cos(heading), math.sin(heading), 0.0), speed, False)
