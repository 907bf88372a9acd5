"""Calls about vehicles: control, physics, lights, wheels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.actors import CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers

HANDLERS = Handlers()
MASS, WHEELS, WHEEL_ANGLE, WHEEL_PLACE = 11, 15, 2, -1
"""Positions in the wire form of a VehiclePhysicsControl, and of its wheels."""
WHEEL_COUNT, WHEEL_TELEMETRY = 4, 11
WIDEST_ANGLE = 85.0
"""Largest steering angle of a wheel, degrees."""
CENTIMETRES = 100.0
"""Per metre."""


@HANDLERS.acts()
def apply_control_to_vehicle(server: ServerContext, number: int, control: Wire) -> None:
    server.world.controls.apply(server.world.actor(number), tuple(control))


@HANDLERS.acts()
def apply_ackermann_control_to_vehicle(server: ServerContext, number: int, control: Wire) -> None:
    """Steering angle (rad) and speed (m/s) are kept; the rates to reach them are ignored."""
    steer, _, speed, *_ = control
    angle, speed = codec.numbers((steer, speed), 2)
    server.world.controls.keep_speed(server.world.actor(number), angle, speed)


@HANDLERS.returns()
def get_ackermann_controller_settings(server: ServerContext, number: int) -> Wire:
    return [0.5, 0.0, 0.0, 0.0, 0.0, 0.0]


@HANDLERS.acts()
def set_actor_autopilot(server: ServerContext, number: int, enabled: bool) -> None:
    server.world.actor(number).autopilot = bool(enabled)


@HANDLERS.returns()
def get_physics_control(server: ServerContext, number: int) -> Wire:
    actor = server.world.actor(number)
    return physics_control(server.world.bodies.of(actor), server.world.pose(actor), actor.physics)


@HANDLERS.acts()
def apply_physics_control(server: ServerContext, number: int, wire: Wire) -> None:
    """Mass and steering range are used; the rest has no counterpart in this model and is only reported back."""
    body = server.world.body(number)
    body["mass"] = max(*codec.numbers([wire[MASS]], 1), 1.0)
    angles = codec.numbers([wheel[WHEEL_ANGLE] for wheel in wire[WHEELS]], len(wire[WHEELS]))
    body["max_steer"] = math.radians(min(max(angles, default=0.0), WIDEST_ANGLE)) or body["max_steer"]
    server.world.actor(number).physics = wire


@HANDLERS.returns()
def get_telemetry_data(server: ServerContext, number: int) -> Wire:
    """Speed and pedals; engine and tyres have no counterpart in a kinematic model."""
    body = server.world.body(number)
    pedals = [float(body[name]) for name in ("steer", "throttle", "brake")]
    speed = math.hypot(body["vx"], body["vy"])
    return [speed, *pedals, 0.0, int(body["gear"]), 0.0, [[0.0] * WHEEL_TELEMETRY] * WHEEL_COUNT]


@HANDLERS.returns()
def get_vehicle_light_state(server: ServerContext, number: int) -> Wire:
    return [server.world.actor(number).light_state]


@HANDLERS.returns()
def get_vehicle_light_states(server: ServerContext) -> Wire:
    return [[actor.id, actor.light_state] for actor in server.world.of_kind("vehicle")]


@HANDLERS.acts()
def set_vehicle_light_state(server: ServerContext, number: int, state: Wire) -> None:
    """The state is a struct in a call and a number in a batch."""
    server.world.actor(number).light_state = int(state[0] if isinstance(state, list) else state)


@HANDLERS.returns()
def get_wheel_steer_angle(server: ServerContext, number: int, wheel: int) -> Wire:
    body = server.world.body(number)
    return math.degrees(body["steer"] * body["max_steer"]) if wheel < 2 else 0.0


@HANDLERS.returns()
def get_wheel_pitch_angle(server: ServerContext, number: int, wheel: int) -> Wire:
    server.world.body(number)
    return 0.0


@HANDLERS.acts(
    "apply_ackermann_controller_settings",
    "set_wheel_steer_direction",
    "set_wheel_pitch_angle",
    "open_vehicle_door",
    "close_vehicle_door",
    "show_vehicle_debug_telemetry",
    "restore_physx_physics",
)
def change_without_effect(server: ServerContext, number: int, *what: Any) -> None:
    """Wheels and doors are not drawn, and controllers have no settings."""
    server.world.actor(number)


@HANDLERS.acts("enable_carsim", "use_carsim_road", "enable_chrono_physics")
def other_physics(server: ServerContext, number: int, *what: Any) -> None:
    raise CallRefused("carla-lite has kinematic physics only: no CarSim, no Chrono")


def physics_control(body: np.void, pose: Sequence[float], given: Wire = None) -> Wire:
    """The wire form of a VehiclePhysicsControl.

    Args:
        body: The vehicle's body: mass, steering range and wheel positions are its own.
        pose: x, y, z in m; pitch, yaw, roll in degrees.
        given: What a client set before; usual values where None.

    Returns:
        The struct as a list.
    """
    x, y, z, _, yaw, _ = pose
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    wheels = []
    for along in (0.5, -0.5):
        for across in (-0.8, 0.8):
            dx, dy = along * body["wheelbase"], across * body["width"]
            place = [x + cos * dx - sin * dy, y + sin * dx + cos * dy, z + 0.35]
            angle = math.degrees(body["max_steer"]) if along > 0 else 0.0
            rest = [35.0, 1500.0, 3000.0 if along < 0 else 0.0, 3.0, 20.0, 1000.0]
            wheels.append([3.5, 0.25, angle, *rest, [CENTIMETRES * float(v) for v in place]])
    if given is not None:
        wheels = [[*old[:WHEEL_PLACE], new[WHEEL_PLACE]] for old, new in zip(given[WHEELS], wheels, strict=False)]
        return [*given[:WHEELS], wheels, *given[WHEELS + 1 :]]
    torque = [[0.0, 400.0], [1890.0, 500.0], [5729.0, 400.0]]
    gears = [[ratio, 0.5, 0.65] for ratio in (4.0, 2.0, 1.5, 1.1, 1.0)]
    steering = [[0.0, 1.0], [120.0, 1.0]]
    return [
        torque, 6000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, gears,
        float(body["mass"]), 0.3, [0.0, 0.0, -0.3], steering, wheels, True,
    ]  # fmt: skip
