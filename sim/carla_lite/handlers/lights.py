"""Calls about traffic lights."""

from __future__ import annotations

from sim.carla_lite import codec
from sim.carla_lite.actors import Actor, CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers

HANDLERS = Handlers()
LAMP_EXTENT = (0.2, 0.2, 0.5)
"""Half sizes of the box that stands for a light's lamps, m."""


def _light(server: ServerContext, number: int) -> Actor:
    actor = server.world.actor(number)
    if actor.kind != "light":
        raise CallRefused(f"actor {number} ({actor.blueprint.id}) is no traffic light")
    return actor


@HANDLERS.acts()
def set_traffic_light_state(server: ServerContext, number: int, state: int) -> None:
    server.world.lights.set_state(_light(server, number).light, state)


@HANDLERS.acts()
def set_traffic_light_green_time(server: ServerContext, number: int, seconds: float) -> None:
    server.world.lights.set_times(_light(server, number).light, green=seconds)


@HANDLERS.acts()
def set_traffic_light_yellow_time(server: ServerContext, number: int, seconds: float) -> None:
    server.world.lights.set_times(_light(server, number).light, yellow=seconds)


@HANDLERS.acts()
def set_traffic_light_red_time(server: ServerContext, number: int, seconds: float) -> None:
    server.world.lights.set_times(_light(server, number).light, red=seconds)


@HANDLERS.acts()
def freeze_traffic_light(server: ServerContext, number: int, frozen: bool) -> None:
    server.world.lights.freeze(_light(server, number).light, bool(frozen))


@HANDLERS.acts()
def freeze_all_traffic_lights(server: ServerContext, frozen: bool) -> None:
    server.world.lights.freeze_all(bool(frozen))


@HANDLERS.acts()
def reset_traffic_light_group(server: ServerContext, number: int) -> None:
    server.world.lights.group_of(_light(server, number).light).reset()


@HANDLERS.acts()
def reset_all_traffic_lights(server: ServerContext) -> None:
    server.world.lights.reset()


@HANDLERS.returns()
def get_group_traffic_lights(server: ServerContext, number: int) -> Wire:
    group = server.world.lights.group_of(_light(server, number).light)
    return [server.world.light_actors[light.signal].id for light in group.lights]


@HANDLERS.returns()
def get_light_boxes(server: ServerContext, number: int) -> Wire:
    """Lamps are not drawn: one box at the light's position stands for them."""
    actor = _light(server, number)
    return [codec.bounding_box(actor.offset[:3], LAMP_EXTENT, actor.id)]
