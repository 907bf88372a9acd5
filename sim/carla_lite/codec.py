"""The wire formats of CARLA 0.9.16: structs as MessagePack arrays in field order, streams as packed records.

Facts about the protocol were found with the public client; a table holds what differs between versions. Knows neither
sockets nor worlds.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.errors import UsageError


@dataclass(frozen=True)
class Version:
    """What a client version expects where versions differ. A wrong sensor number ends the client's process."""

    name: str
    sensors: Mapping[str, int]
    """Kind of a stream -> its number in a frame's header."""
    attribute_types: Mapping[str, int]


SENSORS_0_9_16 = {
    "collision": 0,
    "depth": 1,
    "gnss": 4,
    "imu": 5,
    "obstacle": 7,
    "radar": 9,
    "semantic_lidar": 10,
    "lidar": 11,
    "rgb": 13,
    "semantic": 14,
    "instance": 15,
    "world": 17,
}
VERSIONS = {
    "0.9.16": Version("0.9.16", SENSORS_0_9_16, {"bool": 1, "int": 2, "float": 3, "string": 4, "color": 5}),
}
NEWEST = "0.9.16"


def version_of(name: str) -> Version:
    """The table of a client version.

    Args:
        name: X.Y.Z.

    Returns:
        The table.

    Raises:
        UsageError: There is no table for it.
    """
    if name not in VERSIONS:
        raise UsageError(f"CARLA client {name}: carla-lite speaks {', '.join(VERSIONS)}; install one of these")
    return VERSIONS[name]


def check_client() -> Version:
    """The table for the installed client, checked against it; the newest one where no client is installed.

    Returns:
        The table.

    Raises:
        UsageError: There is no table for its version, or the client disagrees with its table.
    """
    try:
        import carla
    except ImportError:
        return VERSIONS[NEWEST]
    from importlib.metadata import version

    table = version_of(version("carla").partition("-")[0])
    names = {"bool": "Bool", "int": "Int", "float": "Float", "string": "String", "color": "RGBColor"}
    for kind, number in table.attribute_types.items():
        found = int(getattr(carla.ActorAttributeType, names[kind]))
        if found != number:
            raise UsageError(
                f"CARLA client {table.name}: attribute type {kind} is {found}, not {number}: unsupported build"
            )
    return table


# ------------------------------------------------------------------------------------------------ structs (MessagePack)

Wire = Any
"""What MessagePack can pack: numbers, str, bytes, lists."""


def transform(x: float, y: float, z: float, pitch: float = 0.0, yaw: float = 0.0, roll: float = 0.0) -> Wire:
    """Metres and degrees. A rotation is (pitch, yaw, roll)."""
    return [[float(x), float(y), float(z)], [float(pitch), float(yaw), float(roll)]]


def read_transform(wire: Wire) -> tuple[float, float, float, float, float, float]:
    """Read a transform.

    Args:
        wire: As it came from a client.

    Returns:
        x, y, z in m; pitch, yaw, roll in degrees.

    Raises:
        ValueError: The shape is wrong, or a number is not finite.
    """
    place, rotation = wire
    x, y, z = numbers(place)
    pitch, yaw, roll = numbers(rotation)
    return x, y, z, pitch, yaw, roll


def numbers(wire: Wire, count: int = 3) -> list[float]:
    """Read finite numbers: one NaN would spread through the world.

    Args:
        wire: As it came from a client.
        count: How many are expected.

    Returns:
        The numbers.

    Raises:
        ValueError: There are more or fewer, or one is not finite.
    """
    found = [float(v) for v in wire]
    if len(found) != count or not all(map(math.isfinite, found)):
        raise ValueError(f"expected {count} finite numbers, not {found}")
    return found


def bounding_box(center: Sequence[float], extent: Sequence[float], actor: int = 0, yaw: float = 0.0) -> Wire:
    """A bounding box relative to its actor.

    Args:
        center: m.
        extent: Half sizes, m.
        actor: Id of the actor.
        yaw: Degrees.
    """
    return [[float(v) for v in center], [float(v) for v in extent], [0.0, float(yaw), 0.0], actor]


TCP, NO_ADDRESS = 1, 0


def token(stream: int, port: int) -> bytes:
    """Where a stream is served, 24 bytes. Without an address the client uses the host that it is connected to."""
    return struct.pack("<IHBB16x", stream, port, TCP, NO_ADDRESS)


def optional(value: Wire | None) -> Wire:
    """A value that may be absent."""
    return [False] if value is None else [True, value]


def read_optional(wire: Wire) -> Wire | None:
    """Read a value that may be absent."""
    return wire[1] if wire[0] else None


def attribute(version: Version, name: str, kind: str, value: str, choices: Sequence[str], modifiable: bool) -> Wire:
    """An attribute of a blueprint. Choices are recommended and do not restrict, as on CARLA."""
    return [name, version.attribute_types[kind], value, list(choices), modifiable, False]


@dataclass(frozen=True)
class Settings:
    """EpisodeSettings, in wire order. Times in s, distances in m."""

    synchronous_mode: bool = False
    no_rendering_mode: bool = False
    fixed_delta_seconds: float | None = None
    substepping: bool = True
    max_substep_delta_time: float = 0.01
    max_substeps: int = 10
    max_culling_distance: float = 0.0
    deterministic_ragdolls: bool = True
    tile_stream_distance: float = 3000.0
    actor_active_distance: float = 2000.0
    spectator_as_ego: bool = True

    def pack(self) -> Wire:
        """The wire form."""
        values = list(vars(self).values())
        values[2] = optional(self.fixed_delta_seconds)
        return values

    @staticmethod
    def read(wire: Wire) -> Settings:
        """Read settings from their wire form."""
        values = list(wire)
        values[2] = read_optional(values[2])
        return Settings(*values)


def value(result: Wire) -> Wire:
    """A call's result."""
    return [[1, result]]


def failure(message: str) -> Wire:
    """An error where a result was expected."""
    return [[0, [message]]]


DONE: Wire = [[False]]
"""Success of a call without a result."""


def refusal(message: str) -> Wire:
    """An error of a call without a result."""
    return [[True, [message]]]


# ------------------------------------------------------------------------------------------------------------- streams

HEADER = struct.Struct("<QQd6f")
"""Sensor number, frame, time in s, pose of the sensor (x, y, z, pitch, yaw, roll)."""
WORLD = struct.Struct("<Qdf3ii")
"""Episode, wall time in s, step in s, origin of the map (3), flags."""
WORLD_STREAM = 1
"""The stream of world frames; sensors count from 2."""
MAP_CHANGED = 1
UNION_BYTES = 54
ACTOR = np.dtype(
    [
        ("id", "<u4"),
        ("active", "u1"),
        ("pose", "<f4", 6),
        ("velocity", "<f4", 3),
        ("angular_velocity", "<f4", 3),  # degrees per s
        ("acceleration", "<f4", 3),
        ("union", "u1", UNION_BYTES),
    ]
)
VEHICLE = np.dtype(
    [
        ("pedals", "<f4", 3),  # throttle, steer, brake
        ("switches", "?", 3),  # hand brake, reverse, manual gear shift
        ("gear", "<i4"),
        ("speed_limit", "<f4"),  # km/h
        ("light_state", "u1"),
        ("at_light", "?"),
        ("light", "<u4"),
        ("failure", "u1"),
    ]
)
LIGHT = np.dtype(
    [
        ("sign", "S32"),
        ("green", "<f4"),
        ("yellow", "<f4"),
        ("red", "<f4"),
        ("elapsed", "<f4"),
        ("pole", "<u4"),
        ("frozen", "?"),
        ("state", "u1"),
    ]
)
WALKER = np.dtype([("direction", "<f4", 3), ("speed", "<f4"), ("jump", "?")])
NO_LIGHT = 3
"""The light state of a vehicle that is at no light: off."""


def _actor_as(union: np.dtype) -> np.dtype:
    """`ACTOR` with the fields of one kind of actor in place of the union's bytes."""
    names, fields = [], []
    for base, dtype in ((0, ACTOR), (ACTOR.fields["union"][1], union)):  # type: ignore[index]
        for name in dtype.names or ():
            if name != "union":
                kind, offset = dtype.fields[name][:2]  # type: ignore[index]
                names.append(name)
                fields.append((kind, base + offset))
    formats, offsets = zip(*fields, strict=True)
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": ACTOR.itemsize})


ACTOR_VEHICLE, ACTOR_LIGHT, ACTOR_WALKER = _actor_as(VEHICLE), _actor_as(LIGHT), _actor_as(WALKER)
"""Views of `ACTOR`."""


def frame_header(number: int, frame: int, time: float, pose: Sequence[float]) -> bytes:
    """The header of a stream's frame.

    Args:
        number: Sensor number of the stream's kind.
        frame: Number of the frame.
        time: Simulation time, s.
        pose: Of the sensor: x, y, z in m; pitch, yaw, roll in degrees.
    """
    return HEADER.pack(number, frame, time, *pose)


def world_state(
    version: Version,
    frame: int,
    time: float,
    episode: int,
    wall_time: float,
    step: float,
    actors: np.ndarray,
    map_changed: bool = False,
) -> bytes:
    """What the client sees of the world in a frame: header, world, then one `ACTOR` record per actor.

    Args:
        version: Protocol table of the client's version.
        frame: Number of the frame.
        time: Simulation time, s.
        episode: Number of the episode.
        wall_time: Seconds since the epoch.
        step: Length of the frame, s.
        actors: `ACTOR` (N,).
        map_changed: Whether the map was loaded since the last frame.
    """
    head = frame_header(version.sensors["world"], frame, time, (0.0,) * 6)
    return head + WORLD.pack(episode, wall_time, step, 0, 0, 0, MAP_CHANGED if map_changed else 0) + actors.tobytes()
