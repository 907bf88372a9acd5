"""Calls about what carla-lite does not have: ROS, g-buffers, the recorder."""

from __future__ import annotations

from typing import Any

from sim.carla_lite.actors import CallRefused
from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers

HANDLERS = Handlers()
NO_RECORDER = "carla-lite records nothing: use a real server"
NO_BUFFERS = "carla-lite renders nothing: no g-buffers"


@HANDLERS.acts("enable_sensor_for_ros", "disable_sensor_for_ros", "send", "set_ignored_vehicles")
def use_ros(server: ServerContext, *what: Any) -> None:
    raise CallRefused("carla-lite has no ROS bridge and no V2X")


@HANDLERS.returns("is_sensor_enabled_for_ros", "are_gbuffers_enabled")
def is_enabled(server: ServerContext, number: int) -> Wire:
    return False


@HANDLERS.acts()
def enable_gbuffers(server: ServerContext, *what: Any) -> None:
    raise CallRefused(NO_BUFFERS)


@HANDLERS.returns()
def get_gbuffer_token(server: ServerContext, *what: Any) -> Wire:
    raise CallRefused(NO_BUFFERS)


@HANDLERS.returns(
    "start_recorder",
    "show_recorder_file_info",
    "show_recorder_collisions",
    "show_recorder_actors_blocked",
    "replay_file",
)
def describe_recorder(server: ServerContext, *what: Any) -> Wire:
    return NO_RECORDER


@HANDLERS.acts(
    "stop_recorder",
    "stop_replayer",
    "set_replayer_time_factor",
    "set_replayer_ignore_hero",
    "set_replayer_ignore_spectator",
    "console_command",
)
def change_recorder(server: ServerContext, *what: Any) -> None:
    """Nothing is recorded or replayed."""
