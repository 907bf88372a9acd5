"""Calls that register Traffic Managers, which run inside clients."""

from __future__ import annotations

import contextlib
import socket

from sim.carla_lite.codec import Wire
from sim.carla_lite.handlers.context import ServerContext
from sim.carla_lite.handlers.registry import Handlers
from sim.carla_lite.watchdog import ManagerAddress

HANDLERS = Handlers()
CONNECT_TIMEOUT = 0.2
"""Seconds to find out whether a registered Traffic Manager still listens."""


@HANDLERS.returns()
def is_traffic_manager_running(server: ServerContext, port: int) -> Wire:
    """A Traffic Manager whose client died without deregistering it is removed, so that its port can be used again."""
    if port in server.managers and not _listens(server.managers[port]):
        del server.managers[port]
    return port in server.managers


@HANDLERS.returns()
def get_traffic_manager_running(server: ServerContext, port: int) -> Wire:
    return list(server.managers.get(port, ("", 0)))


@HANDLERS.returns()
def add_traffic_manager_running(server: ServerContext, place: Wire) -> Wire:
    host, port = place
    free = port not in server.managers
    server.managers.setdefault(port, (host, port))
    return free


@HANDLERS.returns()
def destroy_traffic_manager(server: ServerContext, port: int) -> Wire:
    return server.managers.pop(port, None) is not None


def _listens(address: ManagerAddress) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=CONNECT_TIMEOUT):
        return True
    return False
