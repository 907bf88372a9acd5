"""Calls that move bodies: teleports, velocities, impulses, and switches of their physics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers
from sim.carla_lite.world import LiteWorld

HANDLERS = Handlers()


@HANDLERS.acts()
def set_actor_location(server: ServerContext, number: int, place: Wire) -> None:
    actor = server.world.actor(number)
    server.world.put(actor, (*codec.numbers(place), *server.world.pose(actor)[3:]))


@HANDLERS.acts()
def set_actor_transform(server: ServerContext, number: int, pose: Wire) -> None:
    server.world.put(server.world.actor(number), codec.read_transform(pose))


@HANDLERS.acts()
def set_actor_target_velocity(server: ServerContext, number: int, velocity: Wire) -> None:
    body = server.world.body(number)
    body["vx"], body["vy"], body["vz"] = codec.numbers(velocity)


@HANDLERS.acts()
def set_actor_target_angular_velocity(server: ServerContext, number: int, velocity: Wire) -> None:
    """Degrees per second; bodies turn about the vertical axis only."""
    server.world.body(number)["spin"] = math.radians(codec.numbers(velocity)[2])


@HANDLERS.acts()
def enable_actor_constant_velocity(server: ServerContext, number: int, velocity: Wire) -> None:
    """In the vehicle's frame; only the forward component is used."""
    server.world.body(number)["constant"] = codec.numbers(velocity)[0]


@HANDLERS.acts()
def disable_actor_constant_velocity(server: ServerContext, number: int) -> None:
    server.world.body(number)["constant"] = np.nan


@HANDLERS.acts()
def add_actor_impulse(server: ServerContext, number: int, impulse: Wire) -> None:
    """N s, as all impulses here."""
    _push(server.world, number, codec.numbers(impulse))


@HANDLERS.acts()
def add_actor_force(server: ServerContext, number: int, force: Wire) -> None:
    """N, for one frame, as all forces here."""
    _push(server.world, number, _over_a_frame(server.world, force))


@HANDLERS.acts()
def add_actor_impulse_at_location(server: ServerContext, number: int, impulse: Wire, place: Wire) -> None:
    _push(server.world, number, codec.numbers(impulse), codec.numbers(place))


@HANDLERS.acts()
def add_actor_force_at_location(server: ServerContext, number: int, force: Wire, place: Wire) -> None:
    _push(server.world, number, _over_a_frame(server.world, force), codec.numbers(place))


@HANDLERS.acts()
def add_actor_angular_impulse(server: ServerContext, number: int, impulse: Wire) -> None:
    _turn(server.world, number, codec.numbers(impulse)[2])


@HANDLERS.acts()
def add_actor_torque(server: ServerContext, number: int, torque: Wire) -> None:
    _turn(server.world, number, _over_a_frame(server.world, torque)[2])


@HANDLERS.acts()
def set_actor_simulate_physics(server: ServerContext, number: int, enabled: bool) -> None:
    """Without physics a body stays where it is put. Lenient, as the Traffic Manager calls it for destroyed actors."""
    actor = server.world.actors.get(number)
    if actor is not None and actor.row >= 0 and actor.kind in ("vehicle", "walker"):
        body = server.world.bodies.of(actor)
        body["moves"] = enabled
        if not enabled:
            for name in ("vx", "vy", "vz", "spin"):
                body[name] = 0.0


@HANDLERS.acts()
def set_actor_collisions(server: ServerContext, number: int, enabled: bool) -> None:
    server.world.body(number)["solid"] = enabled


@HANDLERS.acts()
def set_actor_enable_gravity(server: ServerContext, number: int, enabled: bool) -> None:
    server.world.body(number)["falls"] = enabled


@HANDLERS.acts()
def set_actor_dead(server: ServerContext, number: int) -> None:
    """The body stays where it is."""
    set_actor_simulate_physics(server, number, False)


def _over_a_frame(world: LiteWorld, vector: Wire) -> list[float]:
    return [component * world.step_seconds for component in codec.numbers(vector)]


def _push(world: LiteWorld, number: int, impulse: Sequence[float], place: Sequence[float] | None = None) -> None:
    """Apply an impulse at the centre of a body, or at a place in the world."""
    body = world.body(number)
    if not body["moves"]:
        return
    for name, component in zip(("vx", "vy", "vz"), impulse, strict=True):
        body[name] += component / body["mass"]
    if place is not None:
        dx, dy = place[0] - body["x"], place[1] - body["y"]
        _turn(world, number, dx * impulse[1] - dy * impulse[0])


def _turn(world: LiteWorld, number: int, impulse: float) -> None:
    """Apply an angular impulse about the vertical axis, clockwise from above, to a solid box."""
    body = world.body(number)
    if body["moves"]:
        body["spin"] += 3.0 * impulse / (body["mass"] * (body["length"] ** 2 + body["width"] ** 2))
