"""Sensors that cast rays against boxes and the ground: lidars, radar, obstacle detector, and ray casts of clients."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgpack
import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.actors import Actor
from sim.carla_lite.library import PROP_TAG
from sim.carla_lite.rays import Boxes, cast, ground_distance, rotation
from sim.carla_lite.sensors.payloads import Content
from sim.carla_lite.world import LiteWorld

CHUNK = 4096
"""Points that are looked up on the map at once: larger chunks need much memory and are slower."""
ROAD_TAG, TERRAIN_TAG = 1, 10
"""Semantic tags of the ground."""


class Sweep(NamedTuple):
    """What a lidar hits in one frame, ordered by channel."""

    header: bytes
    counts: np.ndarray
    """(C,) points per channel"""
    points: np.ndarray
    """(N, 3) in the sensor's frame, m"""
    cosines: np.ndarray
    """(N,) of incidence"""
    actors: np.ndarray
    """(N,) ids; 0 for the ground"""


# -- sensors -----------------------------------------------------------------------------------------------------------


def lidar(world: LiteWorld, sensor: Actor) -> Content:
    """Points with intensities."""
    values, rng = sensor.attributes, world.rng(sensor)
    head, counts, points, _, _ = _sweep(world, sensor)
    distance = np.linalg.norm(points, axis=1)
    intensity = np.exp(-float(values["atmosphere_attenuation_rate"]) * distance)
    deviation = float(values["noise_stddev"])
    if deviation > 0:
        points = points * (1.0 + rng.normal(0.0, deviation, len(points)) / np.maximum(distance, 1e-6))[:, None]
    kept = rng.random(len(points)) < share_kept(
        intensity, *(float(values[f"dropoff_{name}"]) for name in ("general_rate", "intensity_limit", "zero_intensity"))
    )
    if not kept.all():
        channel = np.repeat(np.arange(len(counts)), counts)[kept]
        points, intensity, counts = points[kept], intensity[kept], np.bincount(channel, minlength=len(counts))
    body = np.column_stack([points, intensity]).astype("<f4").tobytes()
    return "lidar", head + counts.astype("<u4").tobytes() + body


def share_kept(intensity: np.ndarray, lost: float, limit: float, lost_at_zero: float) -> np.ndarray:
    """Probability that a point is not dropped: by chance alone, and the more, the weaker it is.

    Args:
        intensity: (N,) in [0, 1].
        lost: Share that is dropped at any intensity.
        limit: Intensity from which on nothing else is dropped.
        lost_at_zero: Share that is dropped besides at intensity 0; linear from there to the limit.

    Returns:
        (N,)
    """
    weak = np.clip(1.0 - intensity / limit, 0.0, 1.0) if limit > 0 else np.zeros_like(intensity)
    return (1.0 - lost) * (1.0 - lost_at_zero * weak)


def semantic_lidar(world: LiteWorld, sensor: Actor) -> Content:
    """Points with cosine of incidence, actor and semantic tag."""
    head, counts, points, cosines, numbers = _sweep(world, sensor)
    record = np.zeros(len(points), [("xyz", "<f4", 3), ("cosine", "<f4"), ("actor", "<u4"), ("tag", "<u4")])
    record["xyz"], record["cosine"], record["actor"] = points, cosines, numbers
    record["tag"] = _tags(world, sensor, points, numbers)
    return "semantic_lidar", head + counts.astype("<u4").tobytes() + record.tobytes()


def radar(world: LiteWorld, sensor: Actor) -> Content:
    """Speed (m/s, positive away from the sensor), azimuth and altitude (rad), depth (m) of what random rays hit."""
    values, rng = sensor.attributes, world.rng(sensor)
    count = max(round(float(values["points_per_second"]) * world.step_seconds), 1)
    wide, high = (math.radians(float(values[f"{name}_fov"])) / 2 for name in ("horizontal", "vertical"))
    azimuth, altitude = rng.uniform(-wide, wide, count), rng.uniform(-high, high, count)
    rays = _rays(azimuth, altitude)
    distance, numbers, _ = _cast(world, sensor, rays)
    hit = distance < float(values["range"])
    directions = rays[hit] @ rotation(*world.pose(sensor)[3:]).T
    own = _velocity(world, sensor.parent)
    velocity = np.array([_velocity(world, number) for number in numbers[hit]]).reshape(-1, 3) - own
    found = [(velocity * directions).sum(axis=1), azimuth[hit], altitude[hit], distance[hit]]
    return "radar", np.column_stack(found).astype("<f4").tobytes()


def obstacle(world: LiteWorld, sensor: Actor) -> Content | None:
    """The nearest body straight ahead, within `hit_radius` of the line; None where there is none."""
    values = sensor.attributes
    reach, radius = float(values["distance"]), float(values["hit_radius"])
    boxes = body_boxes(world, exclude=sensor.parent)
    if values["only_dynamics"] == "true":
        boxes = boxes.where(boxes.tags != PROP_TAG)
    wide = replace(boxes, extents=boxes.extents + radius)
    pose = world.pose(sensor)
    distance, which, _ = cast(np.array(pose[:3]), rotation(*pose[3:])[None, :, 0], wide)
    if distance[0] > reach or sensor.parent not in world.actors:
        return None
    own, other = world.actors[sensor.parent], world.actors[int(boxes.ids[which[0]])]
    parties = [world.describe(party, 0) for party in (own, other)]
    return "obstacle", msgpack.packb([*parties, float(distance[0])])


# -- ray casts of clients ----------------------------------------------------------------------------------------------


def first_hit(world: LiteWorld, place: Sequence[float], direction: Sequence[float], reach: float) -> codec.Wire | None:
    """What a ray hits first.

    Args:
        world: The world.
        place: Origin of the ray, m.
        direction: Any length but 0.
        reach: Metres.

    Returns:
        [place, semantic tag]; None where there is nothing within reach.
    """
    origin, ray = np.array(place, float), np.array(direction, float)
    length = np.linalg.norm(ray)
    hits = labelled_hits(world, place, origin + ray / length * reach) if length > 0 else []
    return hits[0] if hits else None


def labelled_hits(world: LiteWorld, start: Sequence[float], end: Sequence[float]) -> codec.Wire:
    """What a segment passes through.

    Args:
        world: The world.
        start: x, y, z, m.
        end: x, y, z, m.

    Returns:
        [place, semantic tag] of each hit, nearest first.
    """
    origin, ray = np.array(start, float), np.subtract(end, start)
    length = float(np.linalg.norm(ray))
    if length == 0:
        return []
    boxes, ray = body_boxes(world), ray / length
    found = []
    for k in range(len(boxes.ids)):
        distance = cast(origin, ray[None], boxes.where(slice(k, k + 1)))[0][0]
        if distance <= length:
            found.append((distance, int(boxes.tags[k])))
    ground = ground_distance(origin, ray[None], world.roads.ground_level(origin))[0][0]
    if ground <= length:
        found.append((ground, ROAD_TAG))
    return [[[float(v) for v in origin + ray * distance], tag] for distance, tag in sorted(found)]


# -- geometry ----------------------------------------------------------------------------------------------------------


def body_boxes(world: LiteWorld, exclude: int = 0) -> Boxes:
    """The boxes of all bodies.

    Args:
        world: The world.
        exclude: Id of an actor to leave out.

    Returns:
        One box per body.
    """
    bodies = world.bodies
    rows = [row for row, number in enumerate(bodies.owners) if number != exclude]
    actors = [world.actors[bodies.owners[row]] for row in rows]
    b = bodies.rows[rows]
    lift = np.array([actor.blueprint.center[2] for actor in actors])
    return Boxes(
        centers=np.column_stack([b["x"], b["y"], b["z"] + lift]).reshape(-1, 3),
        extents=np.column_stack([b["length"], b["width"], b["height"]]).reshape(-1, 3),
        yaws=b["yaw"],
        ids=np.array([actor.id for actor in actors], dtype=int),
        tags=np.array([actor.blueprint.tag for actor in actors], dtype=int),
    )


def _rays(azimuth: np.ndarray, altitude: np.ndarray) -> np.ndarray:
    """Unit vectors (N, 3), x ahead, y to the right, z up, from angles (N,) in rad."""
    level = np.cos(altitude)
    return np.column_stack([level * np.cos(azimuth), level * np.sin(azimuth), np.sin(altitude)])


def _sweep(world: LiteWorld, sensor: Actor) -> Sweep:
    values = sensor.attributes
    channels, reach = int(values["channels"]), float(values["range"])
    step = world.step_seconds
    per_channel = max(round(float(values["points_per_second"]) * step / channels), 1)
    view, turn = float(values["horizontal_fov"]), 360.0 * float(values["rotation_frequency"]) * step
    start, sensor.turned = sensor.turned, (sensor.turned + turn) % view
    angles = np.radians(np.mod(start + turn * np.arange(per_channel) / per_channel, view) - view / 2)
    rise = np.radians(np.linspace(float(values["upper_fov"]), float(values["lower_fov"]), channels))
    rise, angles = np.repeat(rise, per_channel), np.tile(angles, channels)
    rays = _rays(angles, rise)
    distance, numbers, cosines = _cast(world, sensor, rays)
    hit = distance < reach
    counts = hit.reshape(channels, per_channel).sum(axis=1)
    header = struct.pack("<fI", math.degrees(angles[-1]), channels)
    return Sweep(header, counts, rays[hit] * distance[hit, None], cosines[hit], numbers[hit])


def _cast(world: LiteWorld, sensor: Actor, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance, actor (0: the ground) and cosine of incidence (R,) of rays in the sensor's frame."""
    pose = world.pose(sensor)
    world_rays = rays @ rotation(*pose[3:]).T
    origin = np.array(pose[:3])
    boxes = body_boxes(world, exclude=sensor.parent)
    distance, which, cosine = cast(origin, world_rays, boxes)
    ground, slope = ground_distance(origin, world_rays, world.roads.ground_level(origin))
    lower = ground < distance
    numbers, struck = np.zeros(len(rays), int), ~lower & (which >= 0)
    numbers[struck] = boxes.ids[which[struck]]
    return np.minimum(distance, ground), numbers, np.where(lower, slope, cosine)


def _tags(world: LiteWorld, sensor: Actor, points: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Semantic tags (N,) of points in a sensor's frame on actors, or on the ground (number 0)."""
    tags, ground, pose = np.zeros(len(points), int), np.flatnonzero(numbers == 0), world.pose(sensor)
    for number in np.unique(numbers[numbers > 0]):
        tags[numbers == number] = world.actors[int(number)].blueprint.tag
    places = (points[ground] @ rotation(*pose[3:]).T + pose[:3])[:, :2]
    for begin in range(0, len(ground), CHUNK):
        part = slice(begin, begin + CHUNK)
        tags[ground[part]] = np.where(world.roads.on_road(places[part]), ROAD_TAG, TERRAIN_TAG)
    return tags


def _velocity(world: LiteWorld, number: int) -> np.ndarray:
    """(3,) of an actor, m/s; zero without a body."""
    actor = world.actors.get(number)
    if actor is None or actor.row < 0:
        return np.zeros(3)
    body = world.bodies.of(actor)
    return np.array([body["vx"], body["vy"], body["vz"]])
