"""Dispatch of calls to their request handlers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from sim.carla_lite import codec
from sim.carla_lite.faults import FaultInjector
from sim.carla_lite.handlers import (
    actors,
    batch,
    bodies,
    episode,
    lights,
    scenery,
    traffic_managers,
    unsupported,
    vehicles,
    walkers,
)
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handler
from sim.carla_lite.rpc import Streams
from sim.carla_lite.sensors.delivery import Sensors
from sim.carla_lite.world import LiteWorld

log = logging.getLogger("carla-lite")
SUBJECTS = (episode, scenery, actors, bodies, vehicles, walkers, lights, traffic_managers, unsupported, batch)
HANDLERS: dict[str, Handler] = {name: handler for module in SUBJECTS for name, handler in module.HANDLERS.items()}
"""All calls that a client can make."""


class Dispatcher:
    """Calls on one world."""

    def __init__(self, world: LiteWorld, streams: Streams, faults: FaultInjector, jitter: float = 0.0) -> None:
        """Connect a world with its streams.

        Args:
            world: The world.
            streams: Where frames are sent.
            faults: Faults to inject.
            jitter: Sensors' frames arrive up to this much late, s.
        """
        self.server = ServerContext(world, streams, faults, Sensors(world, streams, jitter))
        self._unknown: set[str] = set()

    def dispatch(self, name: str, arguments: Sequence[Any]) -> codec.Wire:
        """Carry out a call.

        Args:
            name: Of the call.
            arguments: As they came from the client.

        Returns:
            The response; for an unknown call, an error that names it.
        """
        handler = HANDLERS.get(name)
        if handler is None:
            if name not in self._unknown:
                self._unknown.add(name)
                log.warning("unknown call %r", name)
            return codec.failure(f"carla-lite does not know the call '{name}'")
        response = handler(self.server, *arguments)
        self.server.watchdog.called(name)  # afterwards, because a tick takes time
        return response
