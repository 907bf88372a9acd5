"""What a client can ask: one function per call of the CARLA protocol.

`value` marks calls that return something, `done` those that do not; both turn `Refused` into the client's error. Calls
of threads that cannot take an error (the Traffic Manager asks for boxes of actors that are just gone) are answered
leniently, because an error there ends the client's process.
"""

from __future__ import annotations

import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from sim.carla_lite import codec, maps
from sim.carla_lite.faults import Trouble
from sim.carla_lite.nudge import Nudge
from sim.carla_lite.roads import RoadMap
from sim.carla_lite.rpc import Streams
from sim.carla_lite.sensors import Sensors
from sim.carla_lite.world import Actor, Refused, World
from sim.errors import UsageError

log = logging.getLogger("carla-lite")
Wire = codec.Wire
Call = Callable[..., Wire]

NO_RECORDER = "carla-lite records nothing: use a real server, or lgdrl play --save"
NO_SKELETON = "carla-lite has boxes only: no bones, sockets or components"
NO_BUFFERS = "carla-lite renders nothing: no g-buffers"
NO_SURFACES = "carla-lite has no textures to paint"
TABLE: dict[str, Call] = {}
CLIENT_SETTLES = 0.05
"""Seconds that a client gets to notice a new episode."""
MANAGER_PATIENCE = 0.2
"""Seconds to find out whether a registered Traffic Manager still listens."""


def value(*names: str) -> Callable[[Call], Call]:
    """Registers a call that returns a result."""
    return _registered(names, codec.value, codec.failure)


def done(*names: str) -> Callable[[Call], Call]:
    """Registers a call without a result."""
    return _registered(names, lambda _: codec.DONE, codec.refusal)


def _registered(names: Sequence[str], success: Call, error: Call) -> Callable[[Call], Call]:
    """Under the function's own name if none is given. Whatever a client sends, the server lives on."""

    def register(function: Call) -> Call:
        called = names or (function.__name__,)

        def call(self: Calls, *arguments: Any) -> Wire:
            try:
                return success(function(self, *arguments))
            except (Refused, UsageError) as problem:
                return error(str(problem))
            except Exception as problem:  # the border: arguments of any shape can come from a client
                log.warning("call %r with %d arguments failed: %r", called[0], len(arguments), problem)
                return error(f"carla-lite cannot carry out '{called[0]}': {problem}")

        TABLE.update(dict.fromkeys(called, call))
        return function

    return register


class Calls:
    """The calls on one world."""

    def __init__(self, world: World, streams: Streams, trouble: Trouble, jitter: float = 0.0) -> None:
        """Sensors' frames come up to `jitter` seconds late."""
        self.world, self.streams, self.trouble = world, streams, trouble
        self.sensors = Sensors(world, streams, jitter)
        self.port = 0
        """Of the streams."""
        self.nudge = Nudge()
        self.managers: dict[int, tuple[str, int]] = {}
        """Traffic Managers by port."""
        self._unknown: set[str] = set()
        self._just_loaded = False

    def dispatch(self, name: str, arguments: Sequence[Any]) -> Wire:
        """The answer to a call. An unknown one is an error that names it."""
        call = TABLE.get(name)
        if call is None:
            if name not in self._unknown:
                self._unknown.add(name)
                log.warning("unknown call %r", name)
            return codec.failure(f"carla-lite does not know the call '{name}'")
        answer = call(self, *arguments)
        self.nudge.called(name)  # after it: a tick may take its time
        return answer

    def advance(self) -> int:
        """One frame: sensors first, then the world, so that a client that has the frame has its sensors' data."""
        world = self.world
        frame = world.tick()
        self.sensors.send()
        if not self.trouble.stalled:
            self.streams.send(codec.WORLD_STREAM, world.state_frame())
        world.map_changed = False
        return frame

    # -- episode -------------------------------------------------------------------------------------------------------

    @value()
    def version(self) -> Wire:
        """Right after a load it comes late: the client asks it on seeing the new episode, and then closes the stream
        that its own thread is still reading, which kills the process where that thread did not get its turn."""
        if self._just_loaded:
            time.sleep(CLIENT_SETTLES)
            self._just_loaded = False
        return self.trouble.faults.version or self.world.version.name

    @value()
    def tick_cue(self) -> Wire:
        self.trouble.tick()
        return self.advance()

    @value()
    def get_episode_info(self) -> Wire:
        return [self.world.episode, [codec.token(codec.WORLD_STREAM, self.port)]]

    @value()
    def get_sensor_token(self, stream: int) -> Wire:
        """Asked before a stream is read; a tick may come in between, and shall not be missed."""
        if stream != codec.WORLD_STREAM:
            self.streams.expect(stream)
        return [codec.token(stream, self.port)]

    @value()
    def get_map_info(self) -> Wire:
        return [self.world.full_map_name, self.world.spawn_points]

    @value()
    def get_map_data(self) -> Wire:
        return self.world.map_text

    @value()
    def get_available_maps(self) -> Wire:
        return [f"CarlaLite/Maps/{name}" for name in maps.available()]

    @value()
    def get_navigation_mesh(self) -> Wire:
        return b""

    @value()
    def get_required_files(self, folder: str = "", download: bool = False) -> Wire:
        return []

    @value()
    def request_file(self, name: str) -> Wire:
        raise Refused(f"carla-lite has no file '{name}'")

    @value()
    def get_episode_settings(self) -> Wire:
        return self.world.settings.pack()

    @value()
    def set_episode_settings(self, wire: Wire) -> Wire:
        """A step of 0 or less is none, as on CARLA."""
        settings = codec.Settings.read(wire)
        step = settings.fixed_delta_seconds
        self.world.settings = replace(settings, fixed_delta_seconds=step if step and step > 0 else None)
        return self.world.frame

    @done()
    def load_new_episode(self, name: str, reset_settings: bool, layers: int = 0) -> None:
        self.trouble.load()
        streams = [actor.stream for actor in self.world.of_kind("sensor")]
        self.world.load_named(name)
        self._just_loaded = True
        self.nudge.reset()
        for stream in streams:
            self.streams.close(stream)
            self.sensors.forget(stream)
        if reset_settings:
            self.world.settings = codec.Settings()

    @done()
    def copy_opendrive_to_file(self, text: str, parameters: Wire) -> None:
        """Kept until it is loaded; one that cannot be is refused here."""
        RoadMap.parse(text)
        self.world.generated = text

    @done("load_map_layer", "unload_map_layer")
    def map_layer(self, layers: int) -> None:
        """A map without scenery has no layers; nothing to do is done."""

    # -- scenery -------------------------------------------------------------------------------------------------------

    @value("get_weather_parameters")
    def weather(self) -> Wire:
        return self.world.weather

    @done()
    def set_weather_parameters(self, weather: Wire) -> None:
        self.world.weather = list(weather)

    @value("get_imui_gravity", "get_imui_sensor_gravity")
    def gravity(self) -> Wire:
        return self.sensors.gravity

    @done("set_imui_gravity", "set_imui_sensor_gravity")
    def set_gravity(self, gravity: float) -> None:
        self.sensors.gravity = float(gravity)

    @value("get_all_level_BBs", "get_environment_objects", "get_names_of_all_objects", "query_lights_state")
    def nothing_there(self, *which: Any) -> Wire:
        """There is no scenery: no buildings, trees or lamps."""
        return []

    @done(
        "enable_environment_objects",
        "update_lights_state",
        "update_day_night_cycle",
        "draw_debug_shape",
        "clear_debug_shape",
        "clear_debug_string",
        "set_annotations_traverse_translucency",
    )
    def nothing_to_change(self, *which: Any) -> None:
        """Scenery is not there, debug shapes have no screen."""

    @done("apply_color_texture_to_objects", "apply_float_color_texture_to_objects")
    def paint(self, *what: Any) -> None:
        raise Refused(NO_SURFACES)

    @value()
    def project_point(self, place: Wire, direction: Wire, reach: float) -> Wire:
        """What lies below or before a point first: whether there is anything, and a labelled point."""
        hit = self.sensors.first_hit(place, direction, reach)
        return [hit is not None, hit or [place, ROAD_LABEL]]

    @value()
    def cast_ray(self, start: Wire, end: Wire) -> Wire:
        return self.sensors.labelled_hits(start, end)

    # -- blueprints and actors -----------------------------------------------------------------------------------------

    @value()
    def get_actor_definitions(self) -> Wire:
        hidden = ("spectator", "light")
        return [b.pack(self.world.version) for b in self.world.blueprints.values() if b.kind not in hidden]

    @value()
    def get_spectator(self) -> Wire:
        return self._describe(self.world.spectator)

    @value()
    def get_actors_by_id(self, numbers: Sequence[int]) -> Wire:
        return [self._describe(self.world.actors[number]) for number in numbers if number in self.world.actors]

    def _describe(self, actor: Actor) -> Wire:
        return self.world.describe(actor, self.port)

    @value()
    def spawn_actor(self, description: Wire, pose: Wire) -> Wire:
        return self._describe(self._spawn(description, pose))

    @value()
    def spawn_actor_with_parent(
        self, description: Wire, pose: Wire, parent: int, attachment: int = 0, socket: str = ""
    ) -> Wire:
        return self._describe(self._spawn(description, pose, parent))

    def _spawn(self, description: Wire, pose: Wire, parent: int = 0) -> Actor:
        if self.trouble.refuses_spawn():
            raise Refused("Spawn failed because of collision at spawn position")
        return self.world.spawn(description, codec.read_transform(pose), parent)

    @value()
    def destroy_actor(self, number: int) -> Wire:
        for stream in self._streams_of(number):
            self.streams.close(stream)
            self.sensors.forget(stream)
        return self.world.destroy(number)

    def _streams_of(self, number: int) -> list[int]:
        actor = self.world.actors.get(number)
        if actor is None:
            return []
        own = [actor.stream] if actor.stream else []
        return own + [stream for child in actor.children for stream in self._streams_of(child)]

    @value()
    def get_actor_bounding_box(self, number: int) -> Wire:
        """Lenient: the Traffic Manager asks for actors that are just gone."""
        actor = self.world.actors.get(number)
        return codec.bounding_box((0, 0, 0), (0, 0, 0), number) if actor is None else self.world.box(actor)

    @value("get_actor_component_names", "get_actor_bone_names", "get_actor_socket_names")
    def names_of_parts(self, number: int) -> Wire:
        self.world.actor(number)
        return []

    @value(
        "get_actor_bone_world_transforms",
        "get_actor_bone_relative_transforms",
        "get_vehicle_bone_world_transforms",
        "get_actor_socket_world_transforms",
        "get_actor_socket_relative_transforms",
    )
    def places_of_parts(self, number: int) -> Wire:
        self.world.actor(number)
        return []

    @value("get_actor_component_world_transform", "get_actor_component_relative_transform", "get_bones_transform")
    def place_of_part(self, *what: Any) -> Wire:
        raise Refused(NO_SKELETON)

    @done("set_bones_transform", "blend_pose", "get_pose_from_animation")
    def move_parts(self, *what: Any) -> None:
        raise Refused(NO_SKELETON)

    # -- bodies --------------------------------------------------------------------------------------------------------

    def _body(self, number: int) -> np.void:
        return self.world.body(self.world.actor(number))

    @done()
    def set_actor_location(self, number: int, place: Wire) -> None:
        actor = self.world.actor(number)
        self.world.put(actor, (*codec.numbers(place), *self.world.pose(actor)[3:]))

    @done()
    def set_actor_transform(self, number: int, pose: Wire) -> None:
        self.world.put(self.world.actor(number), codec.read_transform(pose))

    @done()
    def set_actor_target_velocity(self, number: int, velocity: Wire) -> None:
        body = self._body(number)
        body["vx"], body["vy"], body["vz"] = codec.numbers(velocity)

    @done()
    def set_actor_target_angular_velocity(self, number: int, velocity: Wire) -> None:
        """Degrees per second; bodies turn about the vertical only."""
        self._body(number)["spin"] = math.radians(codec.numbers(velocity)[2])

    @done()
    def enable_actor_constant_velocity(self, number: int, velocity: Wire) -> None:
        """In the vehicle's frame; what is not forward counts for nothing."""
        self._body(number)["constant"] = codec.numbers(velocity)[0]

    @done()
    def disable_actor_constant_velocity(self, number: int) -> None:
        self._body(number)["constant"] = np.nan

    @done()
    def add_actor_impulse(self, number: int, impulse: Wire) -> None:
        """N s, as all impulses here."""
        self._push(number, codec.numbers(impulse))

    @done()
    def add_actor_force(self, number: int, force: Wire) -> None:
        """N, for the length of one frame, as all forces here."""
        self._push(number, self._over_a_frame(force))

    @done()
    def add_actor_impulse_at_location(self, number: int, impulse: Wire, place: Wire) -> None:
        self._push(number, codec.numbers(impulse), codec.numbers(place))

    @done()
    def add_actor_force_at_location(self, number: int, force: Wire, place: Wire) -> None:
        self._push(number, self._over_a_frame(force), codec.numbers(place))

    @done()
    def add_actor_angular_impulse(self, number: int, impulse: Wire) -> None:
        self._turn(number, codec.numbers(impulse)[2])

    @done()
    def add_actor_torque(self, number: int, torque: Wire) -> None:
        self._turn(number, self._over_a_frame(torque)[2])

    def _over_a_frame(self, vector: Wire) -> list[float]:
        return [component * self.world.step_seconds for component in codec.numbers(vector)]

    def _push(self, number: int, impulse: Sequence[float], place: Sequence[float] | None = None) -> None:
        """At the middle of the body, or at a place in the world."""
        body = self._body(number)
        if not body["moves"]:
            return
        for name, component in zip(("vx", "vy", "vz"), impulse, strict=True):
            body[name] += component / body["mass"]
        if place is not None:
            dx, dy = place[0] - body["x"], place[1] - body["y"]
            self._turn(number, dx * impulse[1] - dy * impulse[0])

    def _turn(self, number: int, impulse: float) -> None:
        """About the vertical, clockwise from above; the body is a solid box."""
        body = self._body(number)
        if body["moves"]:
            body["spin"] += 3.0 * impulse / (body["mass"] * (body["length"] ** 2 + body["width"] ** 2))

    @done()
    def set_actor_simulate_physics(self, number: int, enabled: bool) -> None:
        """Without physics a body stays where it is put. Lenient: the Traffic Manager asks it for actors just gone."""
        actor = self.world.actors.get(number)
        if actor is not None and actor.row >= 0 and actor.kind in ("vehicle", "walker"):
            body = self.world.body(actor)
            body["moves"] = enabled
            if not enabled:
                for name in ("vx", "vy", "vz", "spin"):
                    body[name] = 0.0

    @done()
    def set_actor_collisions(self, number: int, enabled: bool) -> None:
        self._body(number)["solid"] = enabled

    @done()
    def set_actor_enable_gravity(self, number: int, enabled: bool) -> None:
        self._body(number)["falls"] = enabled

    @done()
    def set_actor_dead(self, number: int) -> None:
        """It lies where it is."""
        self.set_actor_simulate_physics(number, False)

    # -- vehicles ------------------------------------------------------------------------------------------------------

    @done()
    def apply_control_to_vehicle(self, number: int, control: Wire) -> None:
        self.world.actor(number)
        self.world.control(number, tuple(control))

    @done()
    def apply_ackermann_control_to_vehicle(self, number: int, control: Wire) -> None:
        """Steering angle (rad) and speed (m/s) are kept; the rates at which to get there are not."""
        steer, _, speed, *_ = control
        self.world.keep_speed(number, float(steer), float(speed))

    @value()
    def get_ackermann_controller_settings(self, number: int) -> Wire:
        return [0.5, 0.0, 0.0, 0.0, 0.0, 0.0]

    @done()
    def apply_ackermann_controller_settings(self, number: int, settings: Wire) -> None:
        """Its controller has no settings."""
        self.world.actor(number)

    @done()
    def set_actor_autopilot(self, number: int, enabled: bool) -> None:
        self.world.actor(number).autopilot = bool(enabled)

    @value()
    def get_physics_control(self, number: int) -> Wire:
        actor = self.world.actor(number)
        return physics_control(self._body(number), self.world.pose(actor), actor.physics)

    @done()
    def apply_physics_control(self, number: int, wire: Wire) -> None:
        """Mass and steering range count; the rest is kept for those who ask, it has no counterpart in this model."""
        body = self._body(number)
        body["mass"] = max(*codec.numbers([wire[MASS]], 1), 1.0)
        angles = codec.numbers([wheel[WHEEL_ANGLE] for wheel in wire[WHEELS]], len(wire[WHEELS]))
        body["max_steer"] = math.radians(min(max(angles, default=0.0), WIDEST_ANGLE)) or body["max_steer"]
        self.world.actor(number).physics = wire

    @value()
    def get_telemetry_data(self, number: int) -> Wire:
        """Speed and pedals; engine and tyres have no counterpart in a kinematic model."""
        body = self._body(number)
        pedals = [float(body[name]) for name in ("steer", "throttle", "brake")]
        speed = math.hypot(body["vx"], body["vy"])
        return [speed, *pedals, 0.0, int(body["gear"]), 0.0, [[0.0] * WHEEL_TELEMETRY] * WHEEL_COUNT]

    @value()
    def get_vehicle_light_state(self, number: int) -> Wire:
        return [self.world.actor(number).light_state]

    @value()
    def get_vehicle_light_states(self) -> Wire:
        return [[actor.id, actor.light_state] for actor in self.world.of_kind("vehicle")]

    @done()
    def set_vehicle_light_state(self, number: int, state: Wire) -> None:
        """As a struct in a call, as a number in a batch."""
        self.world.actor(number).light_state = int(state[0] if isinstance(state, list) else state)

    @value()
    def get_wheel_steer_angle(self, number: int, wheel: int) -> Wire:
        body = self._body(number)
        return math.degrees(body["steer"] * body["max_steer"]) if wheel < 2 else 0.0

    @value()
    def get_wheel_pitch_angle(self, number: int, wheel: int) -> Wire:
        self._body(number)
        return 0.0

    @done("set_wheel_steer_direction", "set_wheel_pitch_angle", "open_vehicle_door", "close_vehicle_door")
    def cosmetics(self, number: int, *what: Any) -> None:
        """Doors and wheels are not drawn."""
        self.world.actor(number)

    @done("show_vehicle_debug_telemetry", "restore_physx_physics")
    def without_effect(self, number: int, *what: Any) -> None:
        self.world.actor(number)

    @done("enable_carsim", "use_carsim_road", "enable_chrono_physics")
    def other_physics(self, number: int, *what: Any) -> None:
        raise Refused("carla-lite has kinematic physics only: no CarSim, no Chrono")

    # -- walkers -------------------------------------------------------------------------------------------------------

    @done()
    def apply_control_to_walker(self, number: int, control: Wire) -> None:
        direction, speed, jump = control
        codec.numbers([*direction, speed], 4)
        self.world.walk(self.world.actor(number), direction, speed, jump)

    @done()
    def set_walker_state(self, number: int, pose: Wire, speed: float) -> None:
        actor = self.world.actor(number)
        self.world.put(actor, codec.read_transform(pose))
        body = self.world.body(actor)
        heading = float(body["yaw"])
        self.world.walk(actor, (math.cos(heading), math.sin(heading), 0.0), speed, False)

    # -- traffic lights ------------------------------------------------------------------------------------------------

    def _light(self, number: int) -> Actor:
        actor = self.world.actor(number)
        if actor.kind != "light":
            raise Refused(f"actor {number} ({actor.blueprint.id}) is no traffic light")
        return actor

    @done()
    def set_traffic_light_state(self, number: int, state: int) -> None:
        self.world.lights.set_state(self._light(number).light, state)

    @done()
    def set_traffic_light_green_time(self, number: int, seconds: float) -> None:
        self.world.lights.set_times(self._light(number).light, green=seconds)

    @done()
    def set_traffic_light_yellow_time(self, number: int, seconds: float) -> None:
        self.world.lights.set_times(self._light(number).light, yellow=seconds)

    @done()
    def set_traffic_light_red_time(self, number: int, seconds: float) -> None:
        self.world.lights.set_times(self._light(number).light, red=seconds)

    @done()
    def freeze_traffic_light(self, number: int, frozen: bool) -> None:
        self.world.lights.freeze(self._light(number).light, bool(frozen))

    @done()
    def freeze_all_traffic_lights(self, frozen: bool) -> None:
        self.world.lights.freeze_all(bool(frozen))

    @done()
    def reset_traffic_light_group(self, number: int) -> None:
        self.world.lights.group_of(self._light(number).light).reset()

    @done()
    def reset_all_traffic_lights(self) -> None:
        self.world.lights.reset()

    @value()
    def get_group_traffic_lights(self, number: int) -> Wire:
        group = self.world.lights.group_of(self._light(number).light)
        return [self.world.light_actors[light.signal].id for light in group.lights]

    @value()
    def get_light_boxes(self, number: int) -> Wire:
        """Boxes of the lamps; they are not drawn, so the light's place has to do."""
        actor = self._light(number)
        return [codec.bounding_box(actor.offset[:3], (0.2, 0.2, 0.5), actor.id)]

    # -- traffic manager -----------------------------------------------------------------------------------------------

    @value()
    def is_traffic_manager_running(self, port: int) -> Wire:
        """One whose client died without a word is forgotten here, so that its port can be used again."""
        if port in self.managers and not _listens(self.managers[port]):
            del self.managers[port]
        return port in self.managers

    @value()
    def get_traffic_manager_running(self, port: int) -> Wire:
        return list(self.managers.get(port, ("", 0)))

    @value()
    def add_traffic_manager_running(self, place: Wire) -> Wire:
        host, port = place
        free = port not in self.managers
        self.managers.setdefault(port, (host, port))
        return free

    @value()
    def destroy_traffic_manager(self, port: int) -> Wire:
        return self.managers.pop(port, None) is not None

    # -- sensors -------------------------------------------------------------------------------------------------------

    @done("enable_sensor_for_ros", "disable_sensor_for_ros", "send", "set_ignored_vehicles")
    def ros(self, *what: Any) -> None:
        raise Refused("carla-lite has no ROS bridge and no V2X")

    @value()
    def is_sensor_enabled_for_ros(self, number: int) -> Wire:
        return False

    @done()
    def enable_gbuffers(self, *what: Any) -> None:
        raise Refused(NO_BUFFERS)

    @value()
    def are_gbuffers_enabled(self, number: int) -> Wire:
        return False

    @value()
    def get_gbuffer_token(self, *what: Any) -> Wire:
        raise Refused(NO_BUFFERS)

    # -- recorder ------------------------------------------------------------------------------------------------------

    @value("start_recorder", "show_recorder_file_info", "show_recorder_collisions", "show_recorder_actors_blocked")
    def recorder(self, *what: Any) -> Wire:
        return NO_RECORDER

    @value()
    def replay_file(self, *what: Any) -> Wire:
        return NO_RECORDER

    @done(
        "stop_recorder",
        "stop_replayer",
        "set_replayer_time_factor",
        "set_replayer_ignore_hero",
        "set_replayer_ignore_spectator",
        "console_command",
    )
    def no_recorder(self, *what: Any) -> None:
        """Nothing is being recorded or replayed."""

    # -- batches -------------------------------------------------------------------------------------------------------

    def apply_batch(self, commands: Wire = None, tick: bool = False) -> Wire:
        """Results of all commands, without the wrapper of other calls. The client ticks by itself."""
        if not isinstance(commands, list):
            return codec.failure("a batch is a list of commands")
        results = [self._command(command) for command in commands]
        if tick:
            self.advance()
        return results

    def _command(self, command: Wire) -> Wire:
        """The actor it was about, or why it was not carried out."""
        try:
            ((index, fields),) = command
            return codec.value(self._spawn_command(fields) if index == SPAWN else self._act(index, fields))
        except Refused as refusal:
            return codec.failure(str(refusal))
        except Exception as problem:  # the border, as in `_registered`
            log.warning("a command of a batch failed: %r", problem)
            return codec.failure(f"carla-lite cannot carry out this command: {problem}")

    def _act(self, index: int, fields: Wire) -> int:
        """Every command but a spawn is a call, about the actor that comes first."""
        name = COMMANDS.get(index)
        if name is None:
            raise Refused(f"carla-lite does not know batch command {index}")
        (answer,) = TABLE[name](self, *fields)
        if answer[0] is True:
            raise Refused(answer[1][0])
        if name == "destroy_actor" and answer == [1, False]:
            raise Refused(f"actor {fields[0]} does not exist")
        return fields[0]

    def _spawn_command(self, fields: Wire) -> int:
        """Spawn, then what shall be done with the new actor, whose number stands in for the placeholder."""
        description, pose, parent, *_, following = fields
        actor = self._spawn(description, pose, codec.read_optional(parent) or 0)
        for ((index, (_, *rest)),) in following:
            self._command([[index, [actor.id, *rest]]])
        return actor.id


TABLE["apply_batch"] = lambda self, *arguments: self.apply_batch(*arguments[:2])

SPAWN = 0
COMMANDS = {
    1: "destroy_actor",
    2: "apply_control_to_vehicle",
    3: "apply_ackermann_control_to_vehicle",
    4: "apply_control_to_walker",
    5: "apply_physics_control",
    6: "set_actor_transform",
    7: "set_walker_state",
    8: "set_actor_target_velocity",
    9: "set_actor_target_angular_velocity",
    10: "add_actor_impulse",
    11: "add_actor_force",
    12: "add_actor_angular_impulse",
    13: "add_actor_torque",
    14: "set_actor_simulate_physics",
    15: "set_actor_enable_gravity",
    16: "set_actor_autopilot",
    17: "show_vehicle_debug_telemetry",
    18: "set_vehicle_light_state",
    19: "set_actor_location",
    20: "console_command",
    21: "set_traffic_light_state",
}
"""Batch commands by their number."""
ROAD_LABEL = 1
MASS, WHEELS, WHEEL_ANGLE, WHEEL_PLACE = 11, 15, 2, -1
"""Places in the wire form of a VehiclePhysicsControl, and of its wheels."""
WHEEL_COUNT, WHEEL_TELEMETRY = 4, 11
WIDEST_ANGLE = 85.0
"""Degrees that wheels can turn at most."""
CENTIMETRES = 100.0


def physics_control(body: np.void, pose: Sequence[float], given: Wire = None) -> Wire:
    """VehiclePhysicsControl: what was `given`, else usual values; mass, steering range and places are true."""
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


def _listens(place: tuple[str, int]) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(place, timeout=MANAGER_PATIENCE):
        return True
    return False
