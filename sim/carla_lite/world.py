"""The world behind the server: actors, time, and the frame that clients see. Knows no sockets.

Bodies live in one array (`physics.BODY`); an actor holds its row. Times in s, angles of poses in degrees at the border,
in radians inside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sim.carla_lite import codec, maps, physics
from sim.carla_lite.blueprints import FLAT, NOT_DRAWN, Blueprint, check_attributes, library
from sim.carla_lite.frames import Table
from sim.carla_lite.lights import LightGroups
from sim.carla_lite.roads import Box, RoadMap

MAP_PREFIX = "CarlaLite/Maps/"
GENERATED = "OpenDriveMap"
SPAWN_LIFT = 0.5
"""Metres above the road at which spawn points lie, as on CARLA's maps."""
MAX_STEER = math.radians(70.0)
WHEELBASE_SHARE = 0.6
"""Of a vehicle's length, between its axles."""
SPEED_LIMIT = 90.0
"""km/h for vehicles as long as the map says nothing."""
SIGN_DISTANCE = 10.0
"""Metres that a vehicle moves between two looks at the map's speed limits."""
PEDAL = 0.5
"""Pedal per m/s that the speed of an Ackermann command is missed by."""
REAL_TIME_STEP = 0.05
"""Seconds of a frame without a fixed step."""
SPECTATOR_HEIGHT = 50.0
CLIENT_SIDE = "sensor.other.lane_invasion"
"""The sensor that the client computes by itself."""


class Refused(Exception):
    """A call that cannot be carried out; the message is what the client's exception says."""


@dataclass
class Actor:
    id: int
    blueprint: Blueprint
    attributes: dict[str, str]
    parent: int = 0
    row: int = -1
    """Of its body; -1 without one."""
    offset: tuple[float, ...] = (0.0,) * 6
    """Pose from its parent, or its own pose without body and parent."""
    stream: int = 0
    """Of a sensor."""
    light: str = ""
    """OpenDRIVE id of a traffic light."""
    children: list[int] = field(default_factory=list)
    autopilot: bool = False
    volume: Box | None = None
    """Where a traffic light holds sway, from its place."""
    light_state: int = 0
    stride: tuple[float, float, float, float, bool] = (1.0, 0.0, 0.0, 0.0, False)
    """Direction, speed, jump of a walker."""
    physics: codec.Wire = None
    """VehiclePhysicsControl that a client gave it."""
    ackermann: tuple[float, float] | None = None
    """Wheel angle (rad) and speed (m/s) that a vehicle keeps by itself."""
    due: float = -math.inf
    """When a sensor fires next."""
    turned: float = 0.0
    """Degrees of a lidar."""
    dice: np.random.Generator | None = None
    """Of a sensor's noise."""

    @property
    def kind(self) -> str:
        return self.blueprint.kind


class World:
    """One episode after another on one map at a time."""

    def __init__(self, version: codec.Version, map_name: str, text: str, seed: int = 0, delay: bool = False) -> None:
        self.version = version
        self.blueprints = library()
        self.by_uid = {blueprint.uid: blueprint for blueprint in self.blueprints.values()}
        self.settings = codec.Settings()
        self.weather: codec.Wire = [0.0] * 14
        self.episode, self.frame, self.time = 0, 0, 0.0
        self.seed = seed
        self.delay = delay
        self.generated: str | None = None
        self.roads: RoadMap
        self.map_text: str
        self._next_stream = 2
        self.load(map_name, text)

    # -- maps ----------------------------------------------------------------------------------------------------------

    def load(self, name: str, text: str) -> None:
        """A new episode on this map; all actors are gone. UsageError for a map that cannot be read."""
        roads = self.roads if self.episode and text == self.map_text else RoadMap.parse(text)
        self.map_name, self.map_text, self.roads = name, text, roads
        self._flat = float(np.ptp(np.concatenate([lane.z for lane in roads.lanes]))) == 0.0
        self.lights = LightGroups(roads)
        self.spawn_points = [codec.transform(x, y, z + SPAWN_LIFT, 0.0, yaw) for x, y, z, yaw in roads.spawn_points()]
        self.episode += 1
        self.time = 0.0
        self.actors: dict[int, Actor] = {}
        self.table = Table(self)
        self.bodies = np.zeros(16, physics.BODY)
        self.rows: list[int] = []
        """Actor of each row in use."""
        self._next_id = 1
        self._waiting: list[tuple[int, tuple]] = []
        self._next: list[tuple[int, tuple]] = []
        self._steady: set[int] = set()
        """Vehicles that follow an Ackermann command."""
        self.contacts: list[tuple[int, int, np.ndarray]] = []
        self.map_changed = True
        self.spectator = self._place_spectator()
        self._place_lights()

    def load_named(self, name: str) -> None:
        """A shipped map, or the generated one, by its name with or without path; "" again. Refused for others."""
        short = name.rpartition("/")[2]
        if not name:
            self.load(self.map_name, self.map_text)
        elif short == GENERATED and self.generated is not None:
            self.load(GENERATED, self.generated)
        elif short in maps.available():
            self.load(short, maps.read(short))
        else:
            raise Refused(f"carla-lite has no map '{name}' (it has: {', '.join(maps.available())})")

    @property
    def full_map_name(self) -> str:
        return MAP_PREFIX + self.map_name

    def _place_spectator(self) -> Actor:
        actor = self._new_actor(self.blueprints["spectator"], {})
        x, y, z = self.spawn_points[0][0] if self.spawn_points else (0.0, 0.0, 0.0)
        actor.offset = (x, y, z + SPECTATOR_HEIGHT, -90.0, 0.0, 0.0)
        return actor

    def _place_lights(self) -> None:
        self.light_actors: dict[str, Actor] = {}
        for signal in self.roads.signals:
            actor = self._new_actor(self.blueprints["traffic.traffic_light"], {"role_name": ""})
            actor.light = signal.id
            self.light_actors[signal.id] = actor
            actor.volume = signal.volume
            actor.offset = (signal.x, signal.y, signal.z, 0.0, signal.actor_yaw, 0.0)

    # -- actors --------------------------------------------------------------------------------------------------------

    def _new_actor(self, blueprint: Blueprint, attributes: dict[str, str]) -> Actor:
        actor = Actor(self._next_id, blueprint, attributes)
        self._next_id += 1
        self.actors[actor.id] = actor
        self.table.changed()
        return actor

    def actor(self, number: int) -> Actor:
        """Refused for one that is not there."""
        found = self.actors.get(number)
        if found is None:
            raise Refused(f"actor {number} does not exist: it was destroyed, or never was")
        return found

    def body(self, actor: Actor) -> np.void:
        """Its row of `bodies`. Refused for actors without a body."""
        if actor.row < 0:
            raise Refused(f"actor {actor.id} ({actor.blueprint.id}) has no body that could do this")
        return self.bodies[actor.row]

    def spawn(self, description: codec.Wire, pose: Sequence[float], parent: int = 0) -> Actor:
        """Refused for unknown blueprints and attributes, and for a place that is taken.

        With a parent the pose is seen from there, and the actor is carried along: it has no body of its own.
        """
        uid, name, given = description
        blueprint = self.by_uid.get(uid)
        if blueprint is None or blueprint.id != name or blueprint.kind in ("spectator", "light"):
            raise Refused(f"unknown blueprint '{name}'")
        if name.removeprefix("sensor.camera.") in NOT_DRAWN:
            raise Refused(f"carla-lite does not draw what {name} shows: use an rgb, depth or segmentation camera")
        try:
            attributes = check_attributes(blueprint, given)
        except ValueError as error:
            raise Refused(str(error)) from None
        mother = self.actor(parent) if parent else None
        has_body = mother is None and (blueprint.kind in ("vehicle", "walker") or name.startswith("static.prop."))
        if has_body and self._taken(blueprint, pose):
            raise Refused("Spawn failed because of collision at spawn position")
        actor = self._new_actor(blueprint, attributes)
        actor.offset = tuple(pose)
        if mother is not None:
            actor.parent = parent
            mother.children.append(actor.id)
        if has_body:
            self._add_body(actor, pose)
        if blueprint.kind == "sensor" and name != CLIENT_SIDE:
            actor.stream, self._next_stream = self._next_stream, self._next_stream + 1
        return actor

    def _taken(self, blueprint: Blueprint, pose: Sequence[float]) -> bool:
        here = self.bodies[: len(self.rows)]
        if not len(here):
            return False
        candidate = np.zeros(1, physics.BODY)
        candidate["x"], candidate["y"], candidate["yaw"] = pose[0], pose[1], math.radians(pose[4])
        candidate["length"], candidate["width"] = blueprint.extent[:2]
        reach = np.hypot(here["length"], here["width"]) + math.hypot(*blueprint.extent[:2])
        near = here["solid"] & (np.hypot(here["x"] - pose[0], here["y"] - pose[1]) < reach)
        near &= np.abs(here["z"] - pose[2]) < here["height"] + blueprint.extent[2] + SPAWN_LIFT
        here = here[near]
        return bool(len(here)) and bool((physics.overlap(np.repeat(candidate, len(here)), here)[0] > 0).any())

    def _add_body(self, actor: Actor, pose: Sequence[float]) -> None:
        if len(self.rows) == len(self.bodies):
            self.bodies = np.concatenate([self.bodies, np.zeros(len(self.bodies), physics.BODY)])
        actor.row = len(self.rows)
        self.rows.append(actor.id)
        blueprint = actor.blueprint
        body = self.bodies[actor.row]
        self.bodies[actor.row] = np.zeros((), physics.BODY)
        body["length"], body["width"], body["height"] = blueprint.extent
        body["mass"] = blueprint.mass or 1.0
        body["wheelbase"] = max(2 * blueprint.extent[0] * WHEELBASE_SHARE, 0.5)
        body["max_steer"] = MAX_STEER
        body["constant"], body["limit"] = np.nan, SPEED_LIMIT
        body["moves"] = body["falls"] = blueprint.kind in ("vehicle", "walker")
        body["solid"], body["wheels"] = blueprint.extent[2] > FLAT, blueprint.kind == "vehicle"
        body["upright"] = blueprint.kind == "walker"
        self.put(actor, pose)
        if 0 < body["z"] - body["ground"] <= physics.SETTLES:
            body["z"] = body["ground"]

    def put(self, actor: Actor, pose: Sequence[float]) -> None:
        """Teleports an actor: x, y, z in m, pitch, yaw, roll in degrees. What is attached to another moves on it."""
        if actor.row < 0:
            actor.offset = tuple(pose)
            self.table.changed()
            return
        body = self.bodies[actor.row]
        body["x"], body["y"], body["z"] = pose[:3]
        body["pitch"], body["yaw"], body["roll"] = np.radians(pose[3:])
        body["ground"] = self._ground(self.bodies[actor.row : actor.row + 1])[0]
        body["sign_x"] = np.inf
        self._read_signs(self.bodies[actor.row : actor.row + 1])

    def _ground(self, b: np.ndarray) -> np.ndarray:
        """z (N,) at which bodies stand: vehicles are measured from the ground, walkers from their middle."""
        ground = self.roads.height(np.array([b["x"], b["y"]]).T, b["z"])
        ground = np.where(ground == ground, ground, 0.0)
        return ground if b["wheels"].all() else ground + np.where(b["upright"], b["height"], 0.0)

    def _read_signs(self, b: np.ndarray) -> None:
        """Speed limits of bodies that have come far enough since they last looked; kept where the map has none.

        It depends on nothing but where a body goes, so that traffic that obeys is the same in every run.
        """
        far = np.abs(b["x"] - b["sign_x"]) + np.abs(b["y"] - b["sign_y"]) > SIGN_DISTANCE
        if far.any():
            found = self.roads.speed_limit(np.array([b["x"][far], b["y"][far]]).T)
            b["limit"][far] = np.where(np.isnan(found), b["limit"][far], found)
            b["sign_x"][far], b["sign_y"][far] = b["x"][far], b["y"][far]

    def destroy(self, number: int) -> bool:
        """An actor and what is attached to it; False where there is nobody. Lights and spectator stay."""
        actor = self.actors.get(number)
        if actor is None or actor.kind in ("light", "spectator"):
            return False
        for child in list(actor.children):
            self.destroy(child)
        if actor.parent in self.actors:
            self.actors[actor.parent].children.remove(number)
        if actor.row >= 0:
            last = len(self.rows) - 1
            if actor.row != last:
                self.bodies[actor.row] = self.bodies[last]
                self.rows[actor.row] = self.rows[last]
                self.actors[self.rows[last]].row = actor.row
            self.rows.pop()
        del self.actors[number]
        self._steady.discard(number)
        self.table.changed()
        return True

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def step_seconds(self) -> float:
        return self.settings.fixed_delta_seconds or REAL_TIME_STEP

    def tick(self) -> int:
        """Compute the next frame; returns its number."""
        dt = self.step_seconds
        self.frame += 1
        self.time += dt
        self._apply_waiting()
        self._steer_steady()
        self.lights.step(dt)
        bodies = self.bodies[: len(self.rows)]
        found = physics.step(bodies, dt) if len(bodies) else physics.NO_CONTACTS
        if len(bodies):
            if not self._flat:
                bodies["ground"] = self._ground(bodies)
            self._read_signs(bodies)
        self.contacts = [
            (self.rows[i], self.rows[j], impulse)
            for i, j, impulse in zip(found.first, found.second, found.impulse, strict=True)
        ]
        return self.frame

    def control(self, number: int, values: tuple) -> None:
        """Pedals and steering of a vehicle from now on, or one frame later with `delay`.

        The Traffic Manager divides by the speed it wants; where that is 0 its brake is NaN, and taken for a full one.
        """
        body = self.body(self.actor(number))
        if math.isnan(values[2]):
            values = (*values[:2], 1.0, *values[3:])
        if not math.isfinite(values[0] + values[1] + values[2]):
            raise ValueError(f"expected finite numbers, not {values[:3]}")
        if self._steady:
            self._steady.discard(number)
        if self.delay:
            self._waiting.append((number, values))
        else:
            _press(body, values)

    def _apply_waiting(self) -> None:
        """Control that came before the last frame takes effect in this one."""
        due, self._next, self._waiting = self._next, self._waiting, []
        for number, values in due:
            if number in self.actors:
                _press(self.body(self.actors[number]), values)

    def keep_speed(self, number: int, angle: float, speed: float) -> None:
        """An Ackermann command: the wheels' angle (rad) and a speed (m/s, < 0 in reverse), until control comes."""
        codec.numbers((angle, speed), 2)
        actor = self.actor(number)
        self.body(actor)
        actor.ackermann = angle, speed
        self._steady.add(number)

    def _steer_steady(self) -> None:
        """The pedals of vehicles that keep a speed by themselves."""
        for number in self._steady:
            actor = self.actors[number]
            body, (angle, speed) = self.body(actor), actor.ackermann or (0.0, 0.0)
            own = body["vx"] * math.cos(body["yaw"]) + body["vy"] * math.sin(body["yaw"])
            reverse = speed < 0
            pedal = PEDAL * ((own - speed) if reverse else (speed - own))
            _press(body, (pedal, angle / body["max_steer"], -pedal, False, reverse, False, 0))

    # -- what clients see ----------------------------------------------------------------------------------------------

    def pose(self, actor: Actor) -> tuple[float, ...]:
        """x, y, z, pitch, yaw, roll in the world, degrees."""
        if actor.row >= 0:
            b = self.bodies[actor.row]
            return (
                float(b["x"]),
                float(b["y"]),
                float(b["z"]),
                math.degrees(b["pitch"]),
                math.degrees(b["yaw"]),
                math.degrees(b["roll"]),
            )
        if actor.parent in self.actors:
            return attached(self.pose(self.actors[actor.parent]), actor.offset)
        return actor.offset

    def state_frame(self) -> bytes:
        """The present frame for the world's stream."""
        return codec.world_state(
            self.version,
            self.frame,
            self.time,
            self.episode,
            time.time(),
            self.step_seconds,
            self.table.records(),
            self.map_changed,
        )

    def describe(self, actor: Actor, port: int) -> codec.Wire:
        """The wire form of an actor; `port` is that of the streams."""
        values = [
            codec.attribute(self.version, a.name, a.kind, actor.attributes.get(a.name, a.value), (), False)[:3]
            for a in actor.blueprint.attributes
        ]
        rows = [[name, kind, value] for name, kind, value in values]
        token = codec.token(actor.stream, port) if actor.stream else b""
        tags = bytes([actor.blueprint.tag]) if actor.blueprint.tag else b""
        description = [actor.blueprint.uid, actor.blueprint.id, rows]
        return [actor.id, actor.parent, description, self.box(actor), tags, token]

    def box(self, actor: Actor) -> codec.Wire:
        """Its bounding box; a traffic light's is that of its trigger."""
        if actor.volume is not None:
            box = actor.volume
            return codec.bounding_box((box.x, box.y, box.z), box.extent, actor.id, box.yaw)
        return codec.bounding_box(actor.blueprint.center, actor.blueprint.extent, actor.id)

    def dice(self, actor: Actor) -> np.random.Generator:
        """A generator of the actor's own: noise does not depend on what else there is."""
        if actor.dice is None:
            own = int(actor.attributes.get("noise_seed", 0))
            actor.dice = np.random.default_rng([self.seed, abs(own), actor.id])
        return actor.dice

    def of_kind(self, kind: str) -> Iterable[Actor]:
        return (actor for actor in self.actors.values() if actor.kind == kind)

    def walk(self, actor: Actor, direction: Sequence[float], speed: float, jump: bool) -> None:
        """A walker goes straight on in a direction, at a speed."""
        x, y, z = direction
        length = math.hypot(x, y) or 1.0
        body = self.body(actor)
        body["vx"], body["vy"] = speed * x / length, speed * y / length
        if speed > 0:
            body["yaw"] = math.atan2(y, x)
        actor.stride = (x, y, z, speed, jump)
        self.table.changed()


def _press(body: np.void, values: tuple) -> None:
    """Throttle, steering, brake, hand brake, reverse, gear shifted by hand, and which gear then."""
    throttle, steer, brake, hand_brake, reverse, manual, gear = values
    body["throttle"] = min(max(throttle, 0.0), 1.0)
    body["steer"] = min(max(steer, -1.0), 1.0)
    body["brake"] = min(max(brake, 0.0), 1.0)
    body["hand_brake"], body["reverse"] = hand_brake, reverse
    body["manual"], body["gear"] = manual, gear if manual else (-1 if reverse else 1)


def attached(parent: Sequence[float], offset: Sequence[float]) -> tuple[float, ...]:
    """World pose of something rigidly attached at `offset` to a level parent. Degrees."""
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
