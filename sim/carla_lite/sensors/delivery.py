"""When sensors send: what is due in a frame, on which stream, and how late."""

from __future__ import annotations

import asyncio

import numpy as np

from sim.carla_lite import codec
from sim.carla_lite.actors import Actor
from sim.carla_lite.rpc import Streams
from sim.carla_lite.sensors import ranging, state
from sim.carla_lite.sensors.cameras import Cameras
from sim.carla_lite.sensors.payloads import Payload
from sim.carla_lite.world import LiteWorld

ROUNDING = 1e-9
"""Seconds that a sum of steps may be short of a time."""
IN_ORDER = 1e-6
"""Seconds between late frames of one sensor."""


class Sensors:
    """All sensors of a world."""

    def __init__(self, world: LiteWorld, streams: Streams, jitter: float = 0.0) -> None:
        """Nothing is sent yet.

        Args:
            world: Whose sensors these are.
            streams: Where frames are sent.
            jitter: Frames arrive up to this much late, and those of different sensors out of order, s.
        """
        self._world, self._streams, self._jitter = world, streams, jitter
        self._rng = np.random.default_rng(world.seed)
        self._sent_until: dict[int, float] = {}
        """When the last frame of a stream is sent, on the event loop's clock."""
        cameras = Cameras()
        self._payloads: dict[str, Payload] = {
            "other.gnss": state.gnss,
            "other.imu": state.imu,
            "other.obstacle": ranging.obstacle,
            "other.radar": ranging.radar,
            "camera.rgb": cameras.rgb,
            "camera.semantic_segmentation": cameras.semantic,
            "camera.instance_segmentation": cameras.instance,
            "camera.depth": cameras.depth,
            "lidar.ray_cast": ranging.lidar,
            "lidar.ray_cast_semantic": ranging.semantic_lidar,
        }
        """Sensors that send at every tick of theirs."""

    def send(self) -> None:
        """Send everything that is due in the present frame."""
        for sensor in list(self._world.of_kind("sensor")):
            if not sensor.stream or not self._streams.is_read(sensor.stream):
                continue
            kind = sensor.blueprint.id.removeprefix("sensor.")
            if kind == "other.collision":
                for stream_kind, body in state.collisions(self._world, sensor):
                    self._send(sensor, stream_kind, body)
            elif self._due(sensor):
                content = self._payloads[kind](self._world, sensor)
                if content is not None:
                    self._send(sensor, *content)

    def forget(self, stream: int) -> None:
        """Drop what is kept for a stream that is closed."""
        self._sent_until.pop(stream, None)

    def _due(self, sensor: Actor) -> bool:
        now = self._world.time
        period, late = float(sensor.attributes["sensor_tick"]), now - sensor.due + ROUNDING
        if late < 0:
            return False
        sensor.due = now + period if late >= period else sensor.due + period
        return True

    def _send(self, sensor: Actor, kind: str, body: bytes) -> None:
        world = self._world
        head = codec.frame_header(world.version.sensors[kind], world.frame, world.time, world.pose(sensor))
        if not self._jitter:
            self._streams.send(sensor.stream, head + body)
            return
        loop = asyncio.get_running_loop()
        after = self._sent_until.get(sensor.stream, 0.0) + IN_ORDER
        due = max(loop.time() + self._rng.uniform(0.0, self._jitter), after)
        self._sent_until[sensor.stream] = due
        loop.call_at(due, self._streams.send, sensor.stream, head + body)
