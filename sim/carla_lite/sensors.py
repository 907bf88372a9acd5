"""What sensors tell. Computed only for streams that somebody reads, and as often as `sensor_tick` says.

Lidars and the radar cast rays against boxes and the ground. Cameras are drawings (flat roads, coloured boxes, a sky):
good for running image code, worthless for research on perception.
"""

from __future__ import annotations

import asyncio
import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.blueprints import PROP_TAG
from sim.carla_lite.rays import Boxes, cast, ground_distance, rotation
from sim.carla_lite.rpc import Streams
from sim.carla_lite.world import Actor, World

if TYPE_CHECKING:
    from sim.carla_lite.camera import Lens, Scenery

ROUNDING = 1e-9
"""Seconds that a sum of steps may be short of a time."""
IN_ORDER = 1e-6
"""Seconds between late frames of one sensor."""
EARTH_RADIUS = 6378137.0 * 0.9996
"""Metres, times the scale of the projection that CARLA uses."""
GRAVITY = 9.81
AT_ONCE = 4096
"""Points that are looked up on the map together: more would need much memory, which takes its time."""
ROAD_TAG, TERRAIN_TAG = 1, 10
"""Semantic tags of the ground."""


class Sensors:
    """All sensors of a world."""

    def __init__(self, world: World, streams: Streams, jitter: float = 0.0) -> None:
        """With `jitter` (seconds) frames come late, and those of different sensors out of order."""
        self.world, self.streams, self.jitter = world, streams, jitter
        self.gravity = GRAVITY
        self._random = np.random.default_rng(world.seed)
        self._delivered: dict[int, float] = {}
        """When the last frame of a stream is to be sent, on the loop's clock."""
        self._scenery: Scenery | None = None

    def send(self) -> None:
        """Everything that is due in the present frame."""
        for actor in list(self.world.of_kind("sensor")):
            if not actor.stream or not self.streams.read(actor.stream):
                continue
            kind = actor.blueprint.id.removeprefix("sensor.")
            if kind == "other.collision":
                self._send_collisions(actor)
            elif self._due(actor):
                found = PAYLOADS[kind](self, actor)
                if found is not None:
                    self._send(actor, *found)

    def _due(self, actor: Actor) -> bool:
        period, late = float(actor.attributes["sensor_tick"]), self.world.time - actor.due + ROUNDING
        if late < 0:
            return False
        actor.due = self.world.time + period if late >= period else actor.due + period
        return True

    def _send(self, actor: Actor, kind: str, body: bytes) -> None:
        world = self.world
        head = codec.frame_header(world.version.sensors[kind], world.frame, world.time, world.pose(actor))
        if not self.jitter:
            self.streams.send(actor.stream, head + body)
            return
        loop = asyncio.get_running_loop()
        after = self._delivered.get(actor.stream, 0.0) + IN_ORDER
        due = max(loop.time() + self._random.uniform(0.0, self.jitter), after)
        self._delivered[actor.stream] = due
        loop.call_at(due, self.streams.send, actor.stream, head + body)

    def forget(self, stream: int) -> None:
        """A stream that is closed."""
        self._delivered.pop(stream, None)

    # -- events --------------------------------------------------------------------------------------------------------

    def _send_collisions(self, actor: Actor) -> None:
        world = self.world
        for first, second, impulse in world.contacts:
            if actor.parent not in (first, second):
                continue
            sign, other = (1.0, second) if actor.parent == first else (-1.0, first)
            if other not in world.actors:
                continue
            parties = [world.describe(world.actors[number], 0) for number in (actor.parent, other)]
            push = [float(sign * impulse[0]), float(sign * impulse[1]), 0.0]
            self._send(actor, "collision", msgpack.packb([*parties, push]))

    def obstacle(self, actor: Actor) -> tuple[str, bytes] | None:
        """The nearest body within reach straight ahead, within `hit_radius` of the line; nothing without one."""
        world, values = self.world, actor.attributes
        reach, radius = float(values["distance"]), float(values["hit_radius"])
        boxes = self._boxes(exclude=actor.parent)
        if values["only_dynamics"] == "true":
            boxes = boxes.where(boxes.tags != PROP_TAG)
        wide = replace(boxes, extents=boxes.extents + radius)
        pose = world.pose(actor)
        distance, which, _ = cast(np.array(pose[:3]), rotation(*pose[3:])[None, :, 0], wide)
        if distance[0] > reach or actor.parent not in world.actors:
            return None
        own, other = world.actors[actor.parent], world.actors[int(boxes.ids[which[0]])]
        parties = [world.describe(party, 0) for party in (own, other)]
        return "obstacle", msgpack.packb([*parties, float(distance[0])])

    # -- state ---------------------------------------------------------------------------------------------------------

    def gnss(self, actor: Actor) -> tuple[str, bytes]:
        x, y, z, *_ = self.world.pose(actor)
        latitude, longitude = geolocation(self.world.map_text, x, y)
        noise = [
            float(actor.attributes[f"noise_{name}_bias"]) + self._draw(actor, f"noise_{name}_stddev")
            for name in ("lat", "lon", "alt")
        ]
        return "gnss", msgpack.packb([latitude + noise[0], longitude + noise[1], z + noise[2]])

    def imu(self, actor: Actor) -> tuple[str, bytes]:
        world, pose = self.world, self.world.pose(actor)
        yaw = math.radians(pose[4])
        ax = ay = spin = 0.0
        if actor.parent in world.actors and world.actors[actor.parent].row >= 0:
            body = world.bodies[world.actors[actor.parent].row]
            ax = body["ax"] * math.cos(yaw) + body["ay"] * math.sin(yaw)
            ay = body["ay"] * math.cos(yaw) - body["ax"] * math.sin(yaw)
            spin = body["spin"]
        accelerations = [
            value + self._draw(actor, f"noise_accel_stddev_{axis}")
            for value, axis in zip((ax, ay, self.gravity), "xyz", strict=True)
        ]
        rates = [
            value + float(actor.attributes[f"noise_gyro_bias_{axis}"]) + self._draw(actor, f"noise_gyro_stddev_{axis}")
            for value, axis in zip((0.0, 0.0, spin), "xyz", strict=True)
        ]
        compass = math.fmod(yaw + math.pi / 2 + 2 * math.pi, 2 * math.pi)
        return "imu", msgpack.packb([[float(v) for v in accelerations], [float(v) for v in rates], compass])

    def _draw(self, actor: Actor, name: str) -> float:
        """Noise of this deviation from the sensor's own generator."""
        deviation = float(actor.attributes[name])
        return float(self.world.dice(actor).normal(0.0, deviation)) if deviation > 0 else 0.0

    # -- rays ----------------------------------------------------------------------------------------------------------

    def lidar(self, actor: Actor) -> tuple[str, bytes]:
        values, dice = actor.attributes, self.world.dice(actor)
        head, counts, points, _, _ = self._sweep(actor)
        distance = np.linalg.norm(points, axis=1)
        intensity = np.exp(-float(values["atmosphere_attenuation_rate"]) * distance)
        deviation, lost = float(values["noise_stddev"]), float(values["dropoff_general_rate"])
        if deviation > 0:
            points = points * (1.0 + dice.normal(0.0, deviation, len(points)) / np.maximum(distance, 1e-6))[:, None]
        if lost > 0:
            kept = dice.random(len(points)) >= lost
            channel = np.repeat(np.arange(len(counts)), counts)[kept]
            points, intensity, counts = points[kept], intensity[kept], np.bincount(channel, minlength=len(counts))
        body = np.column_stack([points, intensity]).astype("<f4").tobytes()
        return "lidar", head + counts.astype("<u4").tobytes() + body

    def semantic_lidar(self, actor: Actor) -> tuple[str, bytes]:
        head, counts, points, cosines, numbers = self._sweep(actor)
        record = np.zeros(len(points), [("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("tag", "<u4")])
        record["xyz"], record["cosine"], record["actor"] = points, cosines, numbers
        record["tag"] = self._tags(actor, points, numbers)
        return "semantic_lidar", head + counts.astype("<u4").tobytes() + record.tobytes()

    def radar(self, actor: Actor) -> tuple[str, bytes]:
        """Speed (m/s, positive: going away), azimuth and altitude (rad), depth (m) of what random rays meet."""
        values, dice, world = actor.attributes, self.world.dice(actor), self.world
        count = max(round(float(values["points_per_second"]) * world.step_seconds), 1)
        wide, high = (math.radians(float(values[f"{name}_fov"])) / 2 for name in ("horizontal", "vertical"))
        azimuth, altitude = dice.uniform(-wide, wide, count), dice.uniform(-high, high, count)
        rays = _rays(azimuth, altitude)
        distance, numbers, _ = self._cast(actor, rays)
        hit = distance < float(values["range"])
        going = rays[hit] @ rotation(*world.pose(actor)[3:]).T
        own = self._velocity(actor.parent)
        velocity = np.array([self._velocity(number) for number in numbers[hit]]).reshape(-1, 3) - own
        found = [(velocity * going).sum(axis=1), azimuth[hit], altitude[hit], distance[hit]]
        return "radar", np.column_stack(found).astype("<f4").tobytes()

    def _velocity(self, number: int) -> np.ndarray:
        """(3,) of an actor; zero without a body."""
        actor = self.world.actors.get(number)
        if actor is None or actor.row < 0:
            return np.zeros(3)
        body = self.world.bodies[actor.row]
        return np.array([body["vx"], body["vy"], body["vz"]])

    def _sweep(self, actor: Actor) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Header, points per channel (C,), points (N, 3) in the sensor's frame by channel, incidence, actors."""
        values = actor.attributes
        channels, reach = int(values["channels"]), float(values["range"])
        step = self.world.step_seconds
        per_channel = max(round(float(values["points_per_second"]) * step / channels), 1)
        view, turn = float(values["horizontal_fov"]), 360.0 * float(values["rotation_frequency"]) * step
        start, actor.turned = actor.turned, (actor.turned + turn) % view
        angles = np.radians(np.mod(start + turn * np.arange(per_channel) / per_channel, view) - view / 2)
        rise = np.radians(np.linspace(float(values["upper_fov"]), float(values["lower_fov"]), channels))
        rise, angles = np.repeat(rise, per_channel), np.tile(angles, channels)
        rays = _rays(angles, rise)
        distance, numbers, cosines = self._cast(actor, rays)
        hit = distance < reach
        counts = hit.reshape(channels, per_channel).sum(axis=1)
        head = struct.pack("<fI", math.degrees(angles[-1]), channels)
        return head, counts, rays[hit] * distance[hit, None], cosines[hit], numbers[hit]

    def _cast(self, actor: Actor, rays: np.ndarray) -> tuple[np.ndarray, ...]:
        """Distance, actor (0: the ground) and cosine of incidence (R,) of rays in the sensor's frame."""
        pose = self.world.pose(actor)
        world_rays = rays @ rotation(*pose[3:]).T
        origin = np.array(pose[:3])
        boxes = self._boxes(exclude=actor.parent)
        distance, which, cosine = cast(origin, world_rays, boxes)
        ground, slope = ground_distance(origin, world_rays, self._ground_height(origin))
        lower = ground < distance
        numbers, struck = np.zeros(len(rays), int), ~lower & (which >= 0)
        numbers[struck] = boxes.ids[which[struck]]
        return np.minimum(distance, ground), numbers, np.where(lower, slope, cosine)

    def _tags(self, actor: Actor, points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Semantic tags (N,) of points in a sensor's frame on actors, or on the ground (number 0)."""
        tags, ground, pose = np.zeros(len(points), int), np.flatnonzero(numbers == 0), self.world.pose(actor)
        for number in np.unique(numbers[numbers > 0]):
            tags[numbers == number] = self.world.actors[int(number)].blueprint.tag
        places = (points[ground] @ rotation(*pose[3:]).T + pose[:3])[:, :2]
        for begin in range(0, len(ground), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            tags[ground[part]] = np.where(self.world.roads.on_road(places[part]), ROAD_TAG, TERRAIN_TAG)
        return tags

    def _ground_height(self, place: np.ndarray) -> float:
        height = float(self.world.roads.height(place[None, :2], place[2:3])[0])
        return height if math.isfinite(height) else 0.0

    def _boxes(self, exclude: int = 0) -> Boxes:
        world = self.world
        rows = [row for row, number in enumerate(world.rows) if number != exclude]
        actors = [world.actors[world.rows[row]] for row in rows]
        b = world.bodies[rows]
        lift = np.array([actor.blueprint.center[2] for actor in actors])
        return Boxes(
            centers=np.column_stack([b["x"], b["y"], b["z"] + lift]).reshape(-1, 3),
            extents=np.column_stack([b["length"], b["width"], b["height"]]).reshape(-1, 3),
            yaws=b["yaw"],
            ids=np.array([actor.id for actor in actors], dtype=int),
            tags=np.array([actor.blueprint.tag for actor in actors], dtype=int),
        )

    def first_hit(self, place: Sequence[float], direction: Sequence[float], reach: float) -> codec.Wire | None:
        """What a ray meets first within `reach` metres: [place, semantic tag]."""
        origin, ray = np.array(place, float), np.array(direction, float)
        length = np.linalg.norm(ray)
        hits = self.labelled_hits(place, origin + ray / length * reach) if length > 0 else []
        return hits[0] if hits else None

    def labelled_hits(self, start: Sequence[float], end: Sequence[float]) -> codec.Wire:
        """What a segment passes through, nearest first: [place, semantic tag] each."""
        origin, ray = np.array(start, float), np.subtract(end, start)
        length = float(np.linalg.norm(ray))
        if length == 0:
            return []
        boxes, ray = self._boxes(), ray / length
        found = []
        for k in range(len(boxes.ids)):
            distance = cast(origin, ray[None], boxes.where(slice(k, k + 1)))[0][0]
            if distance <= length:
                found.append((distance, int(boxes.tags[k])))
        ground = ground_distance(origin, ray[None], self._ground_height(origin))[0][0]
        if ground <= length:
            found.append((ground, ROAD_TAG))
        return [[[float(v) for v in origin + ray * distance], tag] for distance, tag in sorted(found)]

    # -- images --------------------------------------------------------------------------------------------------------

    def rgb(self, actor: Actor) -> tuple[str, bytes]:
        return self._picture(actor, "rgb")

    def semantic(self, actor: Actor) -> tuple[str, bytes]:
        return self._picture(actor, "semantic")

    def instance(self, actor: Actor) -> tuple[str, bytes]:
        return self._picture(actor, "instance")

    def depth(self, actor: Actor) -> tuple[str, bytes]:
        return self._picture(actor, "depth")

    def _picture(self, actor: Actor, kind: str) -> tuple[str, bytes]:
        from sim.carla_lite import camera  # pygame takes its time, and most worlds have no cameras

        scenery, boxes, lens = self._drawn(), self._boxes(), self._lens(actor)
        head = struct.pack("<IIf", lens.width, lens.height, lens.fov)
        if kind == "depth":
            return kind, head + camera.depth(scenery, boxes, lens)
        return kind, head + camera.draw(scenery, boxes, lens, camera.PALETTES[kind])

    def _lens(self, actor: Actor) -> Lens:
        from sim.carla_lite.camera import Lens

        values = actor.attributes
        size = int(values["image_size_x"]), int(values["image_size_y"])
        return Lens(self.world.pose(actor), *size, float(values["fov"]))

    def _drawn(self) -> Scenery:
        """Of the present map."""
        from sim.carla_lite.camera import Scenery

        if self._scenery is None or self._scenery.roads is not self.world.roads:
            self._scenery = Scenery.of(self.world.roads)
        return self._scenery


def _rays(azimuth: np.ndarray, altitude: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3), x ahead, y to the right, z up, from angles (N,) in rad."""
    level = np.cos(altitude)
    return np.column_stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(altitude)])


def geolocation(map_text: str, x: float, y: float) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a place, as the 0.9.16 client's map tells them.

    A spherical transverse Mercator projection about the map's reference; y counts northward there.
    """
    latitude, longitude = (_reference(map_text, key) for key in ("lat_0", "lon_0"))
    north, east = math.radians(latitude) + y / EARTH_RADIUS, x / EARTH_RADIUS
    return (
        math.degrees(math.asin(math.sin(north) / math.cosh(east))),
        longitude + math.degrees(math.atan2(math.sinh(east), math.cos(north))),
    )


@lru_cache(maxsize=8)
def _reference(map_text: str, key: str) -> float:
    found = re.search(rf"\+{key}=([-+0-9.eE]+)", map_text)
    return float(found.group(1)) if found else 0.0


Payload = Callable[[Any, Actor], "tuple[str, bytes] | None"]
PAYLOADS: dict[str, Payload] = {
    "other.gnss": Sensors.gnss,
    "other.imu": Sensors.imu,
    "other.obstacle": Sensors.obstacle,
    "other.radar": Sensors.radar,
    "camera.rgb": Sensors.rgb,
    "camera.semantic_segmentation": Sensors.semantic,
    "camera.instance_segmentation": Sensors.instance,
    "camera.depth": Sensors.depth,
    "lidar.ray_cast": Sensors.lidar,
    "lidar.ray_cast_semantic": Sensors.semantic_lidar,
}
"""Sensors that speak at every tick of theirs: kind and body of a frame, None for nothing to tell."""
