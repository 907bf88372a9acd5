"""Calls about weather, scenery and ray casts. There is no scenery: no buildings, trees or lamps."""

from __future__ import annotations

from typing import Any

from sim.carla_lite.actors import CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers
from sim.carla_lite.sensors.ranging import ROAD_TAG, first_hit, labelled_hits

HANDLERS = Handlers()


@HANDLERS.returns()
def get_weather_parameters(server: ServerContext) -> Wire:
    return server.world.weather


@HANDLERS.acts()
def set_weather_parameters(server: ServerContext, weather: Wire) -> None:
    server.world.weather = list(weather)


@HANDLERS.returns("get_imui_gravity", "get_imui_sensor_gravity")
def get_gravity(server: ServerContext) -> Wire:
    return server.world.gravity


@HANDLERS.acts("set_imui_gravity", "set_imui_sensor_gravity")
def set_gravity(server: ServerContext, gravity: float) -> None:
    server.world.gravity = float(gravity)


@HANDLERS.returns("get_all_level_BBs", "get_environment_objects", "get_names_of_all_objects", "query_lights_state")
def list_scenery(server: ServerContext, *which: Any) -> Wire:
    return []


@HANDLERS.acts(
    "enable_environment_objects",
    "update_lights_state",
    "update_day_night_cycle",
    "draw_debug_shape",
    "clear_debug_shape",
    "clear_debug_string",
    "set_annotations_traverse_translucency",
)
def change_scenery(server: ServerContext, *which: Any) -> None:
    """There is nothing to change, and no screen for debug shapes."""


@HANDLERS.acts("apply_color_texture_to_objects", "apply_float_color_texture_to_objects")
def paint(server: ServerContext, *what: Any) -> None:
    raise CallRefused("carla-lite has no textures to paint")


@HANDLERS.returns()
def project_point(server: ServerContext, place: Wire, direction: Wire, reach: float) -> Wire:
    """Whether a ray hits anything, and the first labelled point."""
    hit = first_hit(server.world, place, direction, reach)
    return [hit is not None, hit or [place, ROAD_TAG]]


@HANDLERS.returns()
def cast_ray(server: ServerContext, start: Wire, end: Wire) -> Wire:
    return labelled_hits(server.world, start, end)
