"""Calls about the server, its maps, settings and frames."""

from __future__ import annotations

import time
from dataclasses import replace

from sim.carla_lite import codec
from sim.carla_lite.actors import CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers
from sim.carla_lite.roads import RoadMap
from sim.carla_lite.world import MAP_PREFIX

HANDLERS = Handlers()
CLIENT_SETTLES = 0.05
"""Seconds that a client needs to notice a new episode."""


@HANDLERS.returns()
def version(server: ServerContext) -> Wire:
    """Delayed right after a load.

    The client asks for the version when it sees the new episode, and then closes the stream that its own thread is
    still reading. Where that thread did not run in between, the client's process dies.
    """
    if server.just_loaded:
        time.sleep(CLIENT_SETTLES)
        server.just_loaded = False
    return server.faults.faults.version or server.world.version.name


@HANDLERS.returns()
def tick_cue(server: ServerContext) -> Wire:
    server.faults.tick()
    return server.advance()


@HANDLERS.returns()
def get_episode_info(server: ServerContext) -> Wire:
    return [server.world.episode, [codec.token(codec.WORLD_STREAM, server.port)]]


@HANDLERS.returns()
def get_sensor_token(server: ServerContext, stream: int) -> Wire:
    """A client calls this before it reads a stream; frames of ticks in between must not be lost."""
    if stream != codec.WORLD_STREAM:
        server.streams.expect(stream)
    return [codec.token(stream, server.port)]


@HANDLERS.returns()
def get_map_info(server: ServerContext) -> Wire:
    return [server.world.full_map_name, server.world.spawn_points]


@HANDLERS.returns()
def get_map_data(server: ServerContext) -> Wire:
    return server.world.map_text


@HANDLERS.returns()
def get_available_maps(server: ServerContext) -> Wire:
    return [MAP_PREFIX + name for name in server.world.available_maps()]


@HANDLERS.returns()
def get_navigation_mesh(server: ServerContext) -> Wire:
    return b""


@HANDLERS.returns()
def get_required_files(server: ServerContext, folder: str = "", download: bool = False) -> Wire:
    return []


@HANDLERS.returns()
def request_file(server: ServerContext, name: str) -> Wire:
    raise CallRefused(f"carla-lite has no file '{name}'")


@HANDLERS.returns()
def get_episode_settings(server: ServerContext) -> Wire:
    return server.world.settings.pack()


@HANDLERS.returns()
def set_episode_settings(server: ServerContext, wire: Wire) -> Wire:
    """A step of 0 or less means no fixed step, as on CARLA."""
    settings = codec.Settings.read(wire)
    step = settings.fixed_delta_seconds
    server.world.settings = replace(settings, fixed_delta_seconds=step if step and step > 0 else None)
    return server.world.frame


@HANDLERS.acts()
def load_new_episode(server: ServerContext, name: str, reset_settings: bool, layers: int = 0) -> None:
    server.faults.load()
    streams = [actor.stream for actor in server.world.of_kind("sensor")]
    server.world.load_named(name)
    server.just_loaded = True
    server.watchdog.reset()
    server.close_streams(streams)
    if reset_settings:
        server.world.settings = codec.Settings()


@HANDLERS.acts()
def copy_opendrive_to_file(server: ServerContext, text: str, parameters: Wire) -> None:
    """The text is kept until it is loaded; text that cannot be read is refused here."""
    RoadMap.parse(text)
    server.world.generated = text


@HANDLERS.acts("load_map_layer", "unload_map_layer")
def change_layers(server: ServerContext, layers: int) -> None:
    """A map without scenery has no layers: there is nothing to do."""
