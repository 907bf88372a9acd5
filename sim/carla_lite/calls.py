"""What a client can ask: one function per call of the CARLA protocol.

`value` marks calls that return something, `done` those that do not; both turn `Refused` into the client's error. Calls
of threads that cannot take an error (the Traffic Manager asks for boxes of actors that are just gone) are answered
leniently, because an error there ends the client's process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sim.carla_lite import codec, maps
from sim.carla_lite.rpc import Streams
from sim.carla_lite.sensors import Sensors
from sim.carla_lite.world import GENERATED, Actor, Refused, World
from sim.errors import UsageError

log = logging.getLogger("carla-lite")
Wire = codec.Wire
Call = Callable[..., Wire]

NO_RECORDER = "carla-lite records nothing: use a real server, or lgdrl play --save"
TABLE: dict[str, Call] = {}
GRAVITY = 9.81


def value(*names: str) -> Callable[[Call], Call]:
    """Registers a call that returns a result."""

    def register(function: Call) -> Call:
        def call(self: Calls, *arguments: Any) -> Wire:
            try:
                return codec.value(function(self, *arguments))
            except (Refused, UsageError) as error:
                return codec.failure(str(error))

        TABLE.update(dict.fromkeys(names or (function.__name__,), call))
        return function

    return register


def done(*names: str) -> Callable[[Call], Call]:
    """Registers a call without a result."""

    def register(function: Call) -> Call:
        def call(self: Calls, *arguments: Any) -> Wire:
            try:
                function(self, *arguments)
            except (Refused, UsageError) as error:
                return codec.refusal(str(error))
            return codec.DONE

        TABLE.update(dict.fromkeys(names or (function.__name__,), call))
        return function

    return register


class Calls:
    """The calls on one world."""

    def __init__(self, world: World, streams: Streams) -> None:
        self.world, self.streams = world, streams
        self.sensors = Sensors(world, streams)
        self.port = 0
        """Of the streams."""
        self._managers: dict[int, tuple[str, int]] = {}
        self._unknown: set[str] = set()

    def dispatch(self, name: str, arguments: Sequence[Any]) -> Wire:
        """The answer to a call. An unknown one is an error that names it."""
        call = TABLE.get(name)
        if call is None:
            if name not in self._unknown:
                self._unknown.add(name)
                log.warning("unknown call %r", name)
            return codec.failure(f"carla-lite does not know the call '{name}'")
        try:
            return call(self, *arguments)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            log.warning("call %r with %d arguments failed: %s", name, len(arguments), error)
            return codec.failure(f"carla-lite cannot read the arguments of '{name}': {error}")

    def advance(self) -> int:
        """One frame: sensors first, then the world, so that a client that has the frame has its sensors' data."""
        world = self.world
        frame = world.tick()
        self.sensors.send()
        self.streams.send(codec.WORLD_STREAM, world.state_frame())
        world.map_changed = False
        return frame

    # -- episode -------------------------------------------------------------------------------------------------------

    @value()
    def version(self) -> Wire:
        return self.world.version.name

    @value()
    def tick_cue(self) -> Wire:
        return self.advance()

    @value()
    def get_episode_info(self) -> Wire:
        return [self.world.episode, [codec.token(codec.WORLD_STREAM, self.port)]]

    @value()
    def get_sensor_token(self, stream: int) -> Wire:
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
        self.world.settings = codec.Settings.read(wire)
        return self.world.frame

    @done()
    def load_new_episode(self, name: str, reset_settings: bool, layers: int = 0) -> None:
        self._close_streams()
        self.world.load_named(name)
        if reset_settings:
            self.world.settings = codec.Settings()

    @done()
    def copy_opendrive_to_file(self, text: str, parameters: Wire) -> None:
        self.world.generated = text

    @done("load_map_layer", "unload_map_layer")
    def map_layer(self, layers: int) -> None:
        """A map without scenery has no layers; nothing to do is done."""

    def _close_streams(self) -> None:
        for actor in self.world.of_kind("sensor"):
            self.streams.close(actor.stream)

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

    @done("enable_environment_objects", "update_lights_state", "update_day_night_cycle", "draw_debug_shape")
    def nothing_to_change(self, *which: Any) -> None:
        """Scenery is not there, debug shapes have no screen."""

    @value()
    def project_point(self, place: Wire, direction: Wire, reach: float) -> Wire:
        """The ground below or before a point: whether there is any, and a labelled point."""
        hit = self.sensors.ground_hit(place, direction, reach)
        return [hit is not None, [hit or place, ROAD_LABEL]]

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
        return self._describe(self.world.spawn(description, codec.read_transform(pose)))

    @value()
    def spawn_actor_with_parent(
        self, description: Wire, pose: Wire, parent: int, attachment: int = 0, socket: str = ""
    ) -> Wire:
        return self._describe(self.world.spawn(description, codec.read_transform(pose), parent))

    @value()
    def destroy_actor(self, number: int) -> Wire:
        for stream in self._streams_of(number):
            self.streams.close(stream)
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
        body["vx"], body["vy"] = velocity[:2]

    @done()
    def set_actor_target_angular_velocity(self, number: int, velocity: Wire) -> None:
        self._body(number)["spin"] = math.radians(velocity[2])

    @done()
    def enable_actor_constant_velocity(self, number: int, velocity: Wire) -> None:
        self._body(number)["constant"] = velocity[0]

    @done()
    def disable_actor_constant_velocity(self, number: int) -> None:
        self._body(number)["constant"] = np.nan

    @done("add_actor_impulse", "add_actor_impulse_at_location")
    def add_impulse(self, number: int, impulse: Wire, place: Wire | None = None) -> None:
        body = self._body(number)
        body["vx"] += impulse[0] / body["mass"]
        body["vy"] += impulse[1] / body["mass"]

    @done("add_actor_force", "add_actor_force_at_location")
    def add_force(self, number: int, force: Wire, place: Wire | None = None) -> None:
        """For the length of one frame."""
        self.add_impulse(number, [component * self.world.step_seconds for component in force])

    @done("add_actor_angular_impulse", "add_actor_torque")
    def add_angular_impulse(self, number: int, impulse: Wire) -> None:
        body = self._body(number)
        inertia = body["mass"] * (body["length"] ** 2 + body["width"] ** 2) / 3
        body["spin"] += impulse[2] / inertia

    @done()
    def set_actor_simulate_physics(self, number: int, enabled: bool) -> None:
        actor = self.world.actor(number)
        if actor.row >= 0 and actor.kind in ("vehicle", "walker"):
            self.world.body(actor)["moves"] = enabled

    @done()
    def set_actor_collisions(self, number: int, enabled: bool) -> None:
        self._body(number)["solid"] = enabled

    @done("set_actor_enable_gravity", "set_actor_dead")
    def set_actor_gravity(self, number: int, enabled: bool = True) -> None:
        """Bodies stay on the ground anyway."""
        self.world.actor(number)

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
        return physics_control(self._body(number), self.world.pose(self.world.actor(number)))

    @done()
    def apply_physics_control(self, number: int, wire: Wire) -> None:
        """Mass and steering range count; the rest has no counterpart in a kinematic model."""
        body = self._body(number)
        body["mass"] = max(float(wire[MASS]), 1.0)
        wheels = wire[WHEELS]
        if wheels:
            body["max_steer"] = math.radians(max(wheel[2] for wheel in wheels)) or body["max_steer"]

    @value()
    def get_vehicle_light_states(self) -> Wire:
        return [[actor.id, actor.light_state] for actor in self.world.of_kind("vehicle")]

    @done()
    def set_vehicle_light_state(self, number: int, state: Wire) -> None:
        self.world.actor(number).light_state = state[0]

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
        self.world.lights.freeze(self._light(number).light, frozen)

    @done()
    def freeze_all_traffic_lights(self, frozen: bool) -> None:
        self.world.lights.freeze_all(frozen)

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
        return port in self._managers

    @value()
    def get_traffic_manager_running(self, port: int) -> Wire:
        return list(self._managers.get(port, ("", 0)))

    @value()
    def add_traffic_manager_running(self, place: Wire) -> Wire:
        host, port = place
        free = port not in self._managers
        self._managers.setdefault(port, (host, port))
        return free

    @value()
    def destroy_traffic_manager(self, port: int) -> Wire:
        return self._managers.pop(port, None) is not None

    # -- sensors -------------------------------------------------------------------------------------------------------

    @done("enable_sensor_for_ros", "disable_sensor_for_ros", "send")
    def ros(self, *what: Any) -> None:
        raise Refused("carla-lite has no ROS bridge and no V2X")

    @value()
    def is_sensor_enabled_for_ros(self, number: int) -> Wire:
        return False

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

    def apply_batch(self, commands: Sequence[Wire], tick: bool = False) -> Wire:
        """Results of all commands, without the wrapper of other calls. The client ticks by itself."""
        results = [self._command(command) for command in commands]
        if tick:
            self.advance()
        return results

    def _command(self, command: Wire) -> Wire:
        ((index, fields),) = command
        number = 0
        try:
            if index == SPAWN:
                number = self._spawn_command(fields)
            else:
                name = COMMANDS.get(index)
                if name is None:
                    raise Refused(f"carla-lite does not know batch command {index}")
                number = fields[0]
                answer = TABLE[name](self, *fields)
                if answer[0][0] is True:
                    raise Refused(answer[0][1][0])
                if name == "destroy_actor" and answer[0][1] is False:
                    raise Refused(f"actor {number} does not exist")
        except Refused as error:
            return codec.failure(str(error))
        return codec.value(number)

    def _spawn_command(self, fields: Wire) -> int:
        """Spawn, then what shall be done with the new actor, whose number stands in for the placeholder."""
        description, pose, parent, *_, following = fields
        mother = codec.read_optional(parent)
        actor = self.world.spawn(description, codec.read_transform(pose), mother or 0)
        for ((index, (_, *rest)),) in following:
            self._command([[index, [actor.id, *rest]]])
        return actor.id


def _batch(self: Calls, *arguments: Any) -> Wire:
    return self.apply_batch(*arguments)


TABLE["apply_batch"] = _batch

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
MASS, WHEELS = 11, 15
"""Places in the wire form of a VehiclePhysicsControl."""
CENTIMETRES = 100.0


def physics_control(body: np.void, pose: Sequence[float]) -> Wire:
    """VehiclePhysicsControl: true are mass, steering range and where the wheels are; the rest are usual values."""
    x, y, _, _, yaw, _ = pose
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    wheels = []
    for along in (0.5, -0.5):
        for across in (-0.8, 0.8):
            dx, dy = along * body["wheelbase"], across * body["width"]
            place = [CENTIMETRES * (x + cos * dx - sin * dy), CENTIMETRES * (y + sin * dx + cos * dy), 35.0]
            angle = math.degrees(body["max_steer"]) if along > 0 else 0.0
            wheels.append([3.5, 0.25, angle, 35.0, 1500.0, 3000.0, 3.0, 20.0, 1000.0, [float(v) for v in place]])
    torque = [[0.0, 400.0], [1890.0, 500.0], [5729.0, 400.0]]
    gears = [[ratio, 0.5, 0.65] for ratio in (4.0, 2.0, 1.5, 1.1, 1.0)]
    steering = [[0.0, 1.0], [120.0, 1.0]]
    return [
        torque, 6000.0, 1.0, 0.15, 2.0, 0.35, True, 0.5, 10.0, 4.0, gears,
        float(body["mass"]), 0.3, [0.0, 0.0, -0.3], steering, wheels, True,
    ]  # fmt: skip


__all__ = ["GENERATED", "GRAVITY", "TABLE", "Calls"]
