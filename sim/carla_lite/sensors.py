"""What sensors tell. Computed only for streams that somebody reads, and as often as `sensor_tick` says.

Lidars cast rays against boxes and the ground. The camera is a drawing (flat roads, coloured boxes, a sky): good for
running image code, worthless for research on perception.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.blueprints import PROP_TAG
from sim.carla_lite.rays import Boxes, cast, ground_distance
from sim.carla_lite.rpc import Streams
from sim.carla_lite.world import Actor, World

EARTH_RADIUS = 6378137.0
"""Metres, of the Mercator projection that CARLA uses."""
GRAVITY = 9.81
ROAD_TAG, OTHER_TAG = 1, 22
"""Semantic tags of the ground."""


class Sensors:
    """All sensors of a world."""

    def __init__(self, world: World, streams: Streams) -> None:
        self.world, self.streams = world, streams
        self.gravity = GRAVITY
        self._spun: dict[int, float] = {}
        """Degrees that each lidar has turned."""

    def send(self) -> None:
        """Everything that is due in the present frame."""
        for actor in list(self.world.of_kind("sensor")):
            if not actor.stream or not self.streams.read(actor.stream):
                continue
            kind = actor.blueprint.id.removeprefix("sensor.")
            if kind == "other.collision":
                self._send_collisions(actor)
            elif kind == "other.obstacle":
                if self._due(actor):
                    self._send_obstacle(actor)
            elif self._due(actor):
                number, body = PAYLOADS[kind](self, actor)
                self._send(actor, number, body)

    def _due(self, actor: Actor) -> bool:
        period = float(actor.attributes["sensor_tick"])
        if self.world.time + 1e-9 < actor.due:
            return False
        actor.due = max(actor.due + period, self.world.time)
        return True

    def _send(self, actor: Actor, kind: str, body: bytes) -> None:
        world = self.world
        head = codec.frame_header(world.version.sensors[kind], world.frame, world.time, world.pose(actor))
        self.streams.send(actor.stream, head + body)

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

    def _send_obstacle(self, actor: Actor) -> None:
        """The nearest body within reach straight ahead, within `hit_radius` of the line; silent without one."""
        world, values = self.world, actor.attributes
        reach, radius = float(values["distance"]), float(values["hit_radius"])
        boxes = self._boxes(exclude=actor.parent)
        if values["only_dynamics"] == "true":
            boxes = boxes.where(boxes.tags != PROP_TAG)
        wide = replace(boxes, extents=boxes.extents + radius)
        pose = world.pose(actor)
        distance, which, _ = cast(np.array(pose[:3]), rotation(*pose[3:])[None, :, 0], wide)
        if distance[0] <= reach and actor.parent in world.actors:
            own, other = world.actors[actor.parent], world.actors[int(boxes.ids[which[0]])]
            parties = [world.describe(party, 0) for party in (own, other)]
            self._send(actor, "obstacle", msgpack.packb([*parties, float(distance[0])]))

    # -- state ---------------------------------------------------------------------------------------------------------

    def gnss(self, actor: Actor) -> tuple[str, bytes]:
        x, y, z, *_ = self.world.pose(actor)
        latitude, longitude = geolocation(self.world.map_text, x, y)
        noise = self._noise(actor, "noise_lat", "noise_lon", "noise_alt")
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

    def _noise(self, actor: Actor, *names: str) -> list[float]:
        return [float(actor.attributes[f"{name}_bias"]) + self._draw(actor, f"{name}_stddev") for name in names]

    def _draw(self, actor: Actor, name: str) -> float:
        deviation = float(actor.attributes[name])
        return float(self.world.random.normal(0.0, deviation)) if deviation > 0 else 0.0

    # -- rays ----------------------------------------------------------------------------------------------------------

    def lidar(self, actor: Actor) -> tuple[str, bytes]:
        head, points, *_ = self._sweep(actor)
        rate = float(actor.attributes["atmosphere_attenuation_rate"])
        intensity = np.exp(-rate * np.linalg.norm(points, axis=1))
        return "lidar", head + np.column_stack([points, intensity]).astype("<f4").tobytes()

    def semantic_lidar(self, actor: Actor) -> tuple[str, bytes]:
        head, points, cosines, numbers, tags = self._sweep(actor)
        record = np.zeros(len(points), [("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("tag", "<u4")])
        record["xyz"], record["cosine"], record["actor"], record["tag"] = points, cosines, numbers, tags
        return "semantic_lidar", head + record.tobytes()

    def _sweep(self, actor: Actor) -> tuple[bytes, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Header, points (N, 3) in the sensor's frame by channel, incidence (N,), actors (N,), tags (N,)."""
        values = actor.attributes
        channels, reach = int(values["channels"]), float(values["range"])
        step = self.world.step_seconds
        per_channel = max(round(float(values["points_per_second"]) * step / channels), 1)
        view, turn = float(values["horizontal_fov"]), 360.0 * float(values["rotation_frequency"]) * step
        start = self._spun.get(actor.id, 0.0)
        self._spun[actor.id] = (start + turn) % view if view else 0.0
        angles = np.radians(np.mod(start + turn * np.arange(per_channel) / per_channel, view) - view / 2)
        rise = np.radians(np.linspace(float(values["upper_fov"]), float(values["lower_fov"]), channels))
        rise, angles = np.repeat(rise, per_channel), np.tile(angles, channels)
        rays = np.column_stack([np.cos(rise) * np.cos(angles), np.cos(rise) * np.sin(angles), np.sin(rise)])
        distance, numbers, tags, cosines = self._cast(actor, rays, reach)
        hit = distance < reach
        counts = hit.reshape(channels, per_channel).sum(axis=1)
        head = struct.pack("<fI", math.degrees(angles[-1]), channels) + counts.astype("<u4").tobytes()
        return head, (rays * distance[:, None])[hit], cosines[hit], numbers[hit], tags[hit]

    def _cast(self, actor: Actor, rays: np.ndarray, reach: float) -> tuple[np.ndarray, ...]:
        """Distance, actor, tag and cosine of incidence (R,) of rays in the sensor's frame."""
        pose = self.world.pose(actor)
        world_rays = rays @ rotation(*pose[3:]).T
        origin = np.array(pose[:3])
        boxes = self._boxes(exclude=actor.parent)
        distance, which, cosine = cast(origin, world_rays, boxes)
        ground, slope = ground_distance(origin, world_rays, self._ground_height(origin))
        lower = ground < distance
        numbers = np.where(lower | (which < 0), 0, boxes.ids[which] if len(boxes.ids) else 0)
        tags = np.where(lower, ROAD_TAG, boxes.tags[which] if len(boxes.ids) else OTHER_TAG)
        return np.minimum(distance, ground), numbers, tags, np.where(lower, slope, cosine)

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

    def ground_hit(self, place: Sequence[float], direction: Sequence[float], reach: float) -> codec.Wire | None:
        """Where a ray meets the ground within `reach` metres."""
        origin, ray = np.array(place, float), np.array(direction, float)
        length = np.linalg.norm(ray)
        if length == 0:
            return None
        distance = ground_distance(origin, ray[None] / length, self._ground_height(origin))[0][0]
        return None if distance > reach else [float(v) for v in origin + ray / length * distance]

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
        from sim.carla_lite.camera import draw

        values = actor.attributes
        width, height = int(values["image_size_x"]), int(values["image_size_y"])
        fov = float(values["fov"])
        boxes = self._boxes()
        picture = draw(self.world.roads, boxes, self.world.pose(actor), (width, height), fov)
        return "rgb", struct.pack("<IIf", width, height, fov) + picture.tobytes()


def geolocation(map_text: str, x: float, y: float) -> tuple[float, float]:
    """Latitude and longitude (degrees) of a place, by the map's reference, as CARLA projects it."""
    latitude, longitude = (_reference(map_text, key) for key in ("lat_0", "lon_0"))
    scale = math.cos(math.radians(latitude))
    east = scale * math.radians(longitude) * EARTH_RADIUS + x
    north = scale * EARTH_RADIUS * math.log(math.tan(math.radians(90.0 + latitude) / 2)) - y
    return (
        math.degrees(2 * math.atan(math.exp(north / (EARTH_RADIUS * scale)))) - 90.0,
        math.degrees(east / (EARTH_RADIUS * scale)),
    )


def _reference(map_text: str, key: str) -> float:
    found = re.search(rf"\+{key}=([-+0-9.eE]+)", map_text)
    return float(found.group(1)) if found else 0.0


def rotation(pitch: float, yaw: float, roll: float) -> np.ndarray:
    """(3, 3) matrix from a sensor's frame to the world's (left-handed; degrees), as in `carla.Transform.get_matrix`."""
    p, y, r = np.radians([pitch, yaw, roll])
    cp, sp, cy, sy, cr, sr = np.cos(p), np.sin(p), np.cos(y), np.sin(y), np.cos(r), np.sin(r)
    return np.array(
        [
            [cp * cy, cy * sp * sr - sy * cr, -cy * sp * cr - sy * sr],
            [cp * sy, sy * sp * sr + cy * cr, -sy * sp * cr + cy * sr],
            [sp, -cp * sr, cp * cr],
        ]
    )


Payload = Callable[[Any, Actor], tuple[str, bytes]]
PAYLOADS: dict[str, Payload] = {
    "other.gnss": Sensors.gnss,
    "other.imu": Sensors.imu,
    "camera.rgb": Sensors.rgb,
    "lidar.ray_cast": Sensors.lidar,
    "lidar.ray_cast_semantic": Sensors.semantic_lidar,
}
"""Sensors that speak at every tick of theirs."""
