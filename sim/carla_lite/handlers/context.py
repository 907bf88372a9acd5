"""What request handlers act on: one world, its streams and sensors, and the faults of the server."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sim.carla_lite import codec
from sim.carla_lite.faults import FaultInjector
from sim.carla_lite.rpc import Streams
from sim.carla_lite.sensors.delivery import Sensors
from sim.carla_lite.watchdog import ManagerAddress, TrafficManagerWatchdog
from sim.carla_lite.world import LiteWorld


@dataclass
class ServerContext:
    """The state of a running server."""

    world: LiteWorld
    streams: Streams
    faults: FaultInjector
    sensors: Sensors
    port: int = 0
    """Port of the streams."""
    watchdog: TrafficManagerWatchdog = field(default_factory=TrafficManagerWatchdog)
    managers: dict[int, ManagerAddress] = field(default_factory=dict)
    """Registered Traffic Managers by port."""
    just_loaded: bool = False
    """Whether a map was loaded since a client asked for the version."""

    def advance(self) -> int:
        """Compute and send one frame.

        Sensors are sent before the world, so that a client that has the frame has its sensors' data.

        Returns:
            Number of the frame.
        """
        world = self.world
        frame = world.tick()
        self.sensors.send()
        if not self.faults.stalled:
            self.streams.send(codec.WORLD_STREAM, world.state_frame())
        world.map_changed = False
        return frame

    def close_streams(self, streams: Iterable[int]) -> None:
        """Close the streams of sensors that are removed.

        Args:
            streams: Their numbers.
        """
        for stream in streams:
            self.streams.close(stream)
            self.sensors.forget(stream)
