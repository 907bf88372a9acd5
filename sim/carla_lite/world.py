"""The world behind the server: map, actors, time, and the frame that clients see. Knows no sockets.

Times are in s. Angles of poses are in degrees on the wire and in radians inside bodies.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence

import numpy as np

from sim.carla_lite import codec, maps
from sim.carla_lite.actors import NO_ROOM, Actor, CallRefused, attached_pose
from sim.carla_lite.blueprints import Blueprint, check_attributes
from sim.carla_lite.bodies import SPAWN_LIFT, Bodies, Contact
from sim.carla_lite.controls import VehicleControls
from sim.carla_lite.frames import ActorTable
from sim.carla_lite.library import library
from sim.carla_lite.lights import TrafficLights
from sim.carla_lite.physics import GRAVITY
from sim.carla_lite.roads import RoadMap
from sim.carla_lite.sensor_blueprints import NOT_SERVED

MAP_PREFIX = "CarlaLite/Maps/"
GENERATED = "OpenDriveMap"
REAL_TIME_STEP = 0.05
"""Seconds of a frame without a fixed step."""
SPECTATOR_HEIGHT = 50.0
"""Metres above the first spawn point."""
WALKER_AI = "controller.ai.walker"
STANDING = "walkers under controller.ai.walker stand still, for want of a navigation mesh: move them with WalkerControl"
log = logging.getLogger("carla-lite")
CLIENT_SIDE = "sensor.other.lane_invasion"
"""The sensor that the client computes by itself."""


class LiteWorld:
    """One episode after another, on one map at a time."""

    def __init__(self, version: codec.Version, map_name: str, text: str, seed: int = 0, delay: bool = False) -> None:
        """Load a map.

        Args:
            version: Protocol table of the client's version.
            map_name: Name of the first map.
            text: Its OpenDRIVE text.
            seed: Of the sensors' noise.
            delay: Apply vehicle control one frame late.

        Raises:
            UsageError: The map cannot be read.
        """
        self.version = version
        self.blueprints = library()
        self.by_uid = {blueprint.uid: blueprint for blueprint in self.blueprints.values()}
        self.settings = codec.Settings()
        self.weather: codec.Wire = [0.0] * 14
        self.gravity = GRAVITY
        """m/s2 that IMUs report; bodies fall with `physics.GRAVITY`."""
        self.episode, self.frame, self.time = 0, 0, 0.0
        self.seed = seed
        self.delay = delay
        self.generated: str | None = None
        self.own_maps = {map_name: text}
        """The map that the server began with, by name: it may be a file, which clients leave and return to."""
        self.roads: RoadMap
        self.map_text: str
        self._next_stream = 2
        self.load(map_name, text)

    # -- maps ----------------------------------------------------------------------------------------------------------

    def load(self, name: str, text: str) -> None:
        """Begin a new episode on a map; all actors are removed.

        Args:
            name: Name of the map.
            text: Its OpenDRIVE text.

        Raises:
            UsageError: The map cannot be read.
        """
        roads = self.roads if self.episode and text == self.map_text else RoadMap.parse(text)
        self.bodies = Bodies(roads)
        self.map_name, self.map_text, self.roads = name, text, roads
        self.lights = TrafficLights(roads)
        self.spawn_points = [codec.transform(x, y, z + SPAWN_LIFT, 0.0, yaw) for x, y, z, yaw in roads.spawn_points()]
        self.episode += 1
        self.time = 0.0
        self.actors: dict[int, Actor] = {}
        self.controls = VehicleControls(self.actors, self.bodies, self.delay)
        self.light_actors: dict[str, Actor] = {}
        self.table = ActorTable(self.actors, self.bodies, self.lights, self.light_actors, roads.signals, self.pose)
        self._next_id = 1
        self.contacts: list[Contact] = []
        """Of the last frame."""
        self.ai_walkers = False
        """Whether a client made an AI controller of walkers in this episode."""
        self.map_changed = True
        self.spectator = self._place_spectator()
        self._place_lights()

    def load_named(self, name: str) -> None:
        """Begin a new episode on a map that the server knows.

        Args:
            name: A shipped map, the server's own one or the generated one, with or without path and without regard to
                case where that is clear, as on CARLA; "" for the present map.

        Raises:
            CallRefused: There is no such map.
        """
        if not name:
            self.load(self.map_name, self.map_text)
            return
        short = self._known_map(name)
        if short is None:
            raise CallRefused(f"carla-lite has no map '{name}' (it has: {', '.join(self.available_maps())})")
        if short == GENERATED and self.generated is not None:
            self.load(short, self.generated)
        else:
            self.load(short, self.own_maps[short] if short in self.own_maps else maps.read(short))

    def available_maps(self) -> tuple[str, ...]:
        """Names of the maps that clients can load: the server's own one first, then those that are shipped."""
        return (*self.own_maps, *(name for name in maps.available() if name not in self.own_maps))

    def _known_map(self, name: str) -> str | None:
        short = name.replace("\\", "/").rstrip("/").rpartition("/")[2].removesuffix(".xodr")
        known = [*self.available_maps(), *([GENERATED] if self.generated is not None else [])]
        if short in known:
            return short
        alike = [each for each in known if each.lower() == short.lower()]
        return alike[0] if len(alike) == 1 else None

    @property
    def full_map_name(self) -> str:
        return MAP_PREFIX + self.map_name

    def _place_spectator(self) -> Actor:
        actor = self._new_actor(self.blueprints["spectator"], {})
        x, y, z = self.spawn_points[0][0] if self.spawn_points else (0.0, 0.0, 0.0)
        actor.offset = (x, y, z + SPECTATOR_HEIGHT, -90.0, 0.0, 0.0)
        return actor

    def _place_lights(self) -> None:
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
        """An actor by id.

        Raises:
            CallRefused: It does not exist.
        """
        found = self.actors.get(number)
        if found is None:
            raise CallRefused(f"actor {number} does not exist: it was destroyed, or never was")
        return found

    def body(self, number: int) -> np.void:
        """The body of an actor by id.

        Raises:
            CallRefused: The actor does not exist, or has no body.
        """
        return self.bodies.of(self.actor(number))

    def of_kind(self, kind: str) -> Iterable[Actor]:
        """Actors of one kind of blueprint."""
        return (actor for actor in self.actors.values() if actor.kind == kind)

    def spawn(self, description: codec.Wire, pose: Sequence[float], parent: int = 0) -> Actor:
        """Create an actor.

        Args:
            description: uid and id of a blueprint, and attributes, in wire form.
            pose: x, y, z in m; pitch, yaw, roll in degrees; relative to the parent where there is one.
            parent: Id of the actor to attach to; 0 for none. An attached actor has no body of its own.

        Returns:
            The new actor.

        Raises:
            CallRefused: Blueprint or attributes are unknown, or the place is occupied.
        """
        uid, name, given = description
        blueprint = self.by_uid.get(uid)
        if blueprint is None or blueprint.id != name or blueprint.kind in ("spectator", "light"):
            raise CallRefused(f"unknown blueprint '{name}'")
        if name in NOT_SERVED:
            raise CallRefused(f"carla-lite does not serve {name}: {NOT_SERVED[name]}")
        try:
            attributes = check_attributes(blueprint, given)
        except ValueError as error:
            raise CallRefused(str(error)) from None
        carrier = self.actor(parent) if parent else None
        has_body = carrier is None and (blueprint.kind in ("vehicle", "walker") or name.startswith("static.prop."))
        if has_body and self.bodies.occupied(blueprint, pose):
            raise CallRefused(NO_ROOM)
        if name == WALKER_AI and not self.ai_walkers:
            log.warning("%s", STANDING)
        self.ai_walkers = self.ai_walkers or name == WALKER_AI
        actor = self._new_actor(blueprint, attributes)
        actor.offset = tuple(pose)
        if carrier is not None:
            actor.parent = parent
            carrier.children.append(actor.id)
        if has_body:
            self.bodies.add(actor, pose)
        if blueprint.kind == "sensor" and name != CLIENT_SIDE:
            actor.stream, self._next_stream = self._next_stream, self._next_stream + 1
        return actor

    def put(self, actor: Actor, pose: Sequence[float]) -> None:
        """Teleport an actor; an attached one moves relative to its parent.

        Args:
            actor: The actor.
            pose: x, y, z in m; pitch, yaw, roll in degrees.
        """
        if actor.row < 0:
            actor.offset = tuple(pose)
            self.table.changed()
        else:
            self.bodies.put(actor.row, pose)

    def destroy(self, number: int) -> bool:
        """Remove an actor and all actors attached to it.

        Args:
            number: Its id.

        Returns:
            False where there is no such actor, or where it is a traffic light or the spectator, which stay.
        """
        actor = self.actors.get(number)
        if actor is None or actor.kind in ("light", "spectator"):
            return False
        for child in list(actor.children):
            self.destroy(child)
        if actor.parent in self.actors:
            self.actors[actor.parent].children.remove(number)
        if actor.row >= 0:
            moved = self.bodies.remove(actor.row)
            if moved is not None:
                self.actors[moved[0]].row = moved[1]
        del self.actors[number]
        self.controls.forget(number)
        self.table.changed()
        return True

    def walk(self, actor: Actor, direction: Sequence[float], speed: float, jump: bool) -> None:
        """Let a walker walk straight on.

        Args:
            actor: The walker.
            direction: x, y, z; its length does not matter.
            speed: m/s.
            jump: Reported back to clients; bodies do not jump.

        Raises:
            CallRefused: The actor has no body.
        """
        x, y, z = direction
        length = math.hypot(x, y) or 1.0
        body = self.bodies.of(actor)
        body["vx"], body["vy"] = speed * x / length, speed * y / length
        if speed > 0:
            body["yaw"] = math.atan2(y, x)
        actor.stride = (x, y, z, speed, jump)
        self.table.changed()

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def step_seconds(self) -> float:
        return self.settings.fixed_delta_seconds or REAL_TIME_STEP

    def tick(self) -> int:
        """Compute the next frame.

        Returns:
            Its number.
        """
        dt = self.step_seconds
        self.frame += 1
        self.time += dt
        self.controls.before_step()
        self.lights.step(dt)
        self.contacts = self.bodies.step(dt)
        return self.frame

    # -- what clients see ----------------------------------------------------------------------------------------------

    def pose(self, actor: Actor) -> tuple[float, ...]:
        """The world pose of an actor: x, y, z in m; pitch, yaw, roll in degrees."""
        if actor.row >= 0:
            return self.bodies.pose(actor.row)
        if actor.parent in self.actors:
            return attached_pose(self.pose(self.actors[actor.parent]), actor.offset)
        return actor.offset

    def state_frame(self) -> bytes:
        """The present frame, as sent on the world's stream."""
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
        """The wire form of an actor's bounding box; for a traffic light, of its trigger volume."""
        if actor.volume is not None:
            box = actor.volume
            return codec.bounding_box((box.x, box.y, box.z), box.extent, actor.id, box.yaw)
        return codec.bounding_box(actor.blueprint.center, actor.blueprint.extent, actor.id)

    def rng(self, actor: Actor) -> np.random.Generator:
        """The generator of an actor's noise: its draws do not depend on other actors."""
        if actor.rng is None:
            own = int(actor.attributes.get("noise_seed", 0))
            actor.rng = np.random.default_rng([self.seed, abs(own), actor.id])
        return actor.rng
