"""Sensors of the state of one vehicle: collisions, GNSS, IMU."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache

import msgpack

from sim.carla_lite.actors import Actor
from sim.carla_lite.sensors.payloads import Content, gaussian
from sim.carla_lite.world import LiteWorld

EARTH_RADIUS = 6378137.0 * 0.9996
"""Metres, times the scale of the projection that CARLA uses."""


def collisions(world: LiteWorld, sensor: Actor) -> Iterator[Content]:
    """One content per contact of the sensor's parent in the present frame.

    Args:
        world: The world of the sensor.
        sensor: A collision sensor.

    Yields:
        Both actors and the impulse on the parent, N s.
    """
    for first, second, impulse in world.contacts:
        if sensor.parent not in (first, second):
            continue
        sign, other = (1.0, second) if sensor.parent == first else (-1.0, first)
        if other not in world.actors:
            continue
        parties = [world.describe(world.actors[number], 0) for number in (sensor.parent, other)]
        push = [float(sign * impulse[0]), float(sign * impulse[1]), 0.0]
        yield "collision", msgpack.packb([*parties, push])


def gnss(world: LiteWorld, sensor: Actor) -> Content:
    """Latitude and longitude in degrees, altitude in m."""
    x, y, z, *_ = world.pose(sensor)
    latitude, longitude = geolocation(world.map_text, x, y)
    noise = [
        float(sensor.attributes[f"noise_{name}_bias"]) + gaussian(world, sensor, f"noise_{name}_stddev")
        for name in ("lat", "lon", "alt")
    ]
    return "gnss", msgpack.packb([latitude + noise[0], longitude + noise[1], z + noise[2]])


def imu(world: LiteWorld, sensor: Actor) -> Content:
    """Accelerations in m/s2 and rates in rad/s in the sensor's frame, and the compass in rad."""
    yaw = math.radians(world.pose(sensor)[4])
    ax = ay = spin = 0.0
    if sensor.parent in world.actors and world.actors[sensor.parent].row >= 0:
        body = world.bodies.of(world.actors[sensor.parent])
        ax = body["ax"] * math.cos(yaw) + body["ay"] * math.sin(yaw)
        ay = body["ay"] * math.cos(yaw) - body["ax"] * math.sin(yaw)
        spin = body["spin"]
    values = sensor.attributes
    accelerations = [
        value + gaussian(world, sensor, f"noise_accel_stddev_{axis}")
        for value, axis in zip((ax, ay, world.gravity), "xyz", strict=True)
    ]
    rates = [
        value + float(values[f"noise_gyro_bias_{axis}"]) + gaussian(world, sensor, f"noise_gyro_stddev_{axis}")
        for value, axis in zip((0.0, 0.0, spin), "xyz", strict=True)
    ]
    compass = math.fmod(yaw + math.pi / 2 + 2 * math.pi, 2 * math.pi)
    return "imu", msgpack.packb([[float(v) for v in accelerations], [float(v) for v in rates], compass])


def geolocation(map_text: str, x: float, y: float) -> tuple[float, float]:
    """The geographic coordinates of a place, as the 0.9.16 client's map computes them.

    A spherical transverse Mercator projection about the map's reference; y counts northward there.

    Args:
        map_text: OpenDRIVE text with the reference.
        x: m, CARLA's frame.
        y: m, CARLA's frame.

    Returns:
        Latitude and longitude, degrees.
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
