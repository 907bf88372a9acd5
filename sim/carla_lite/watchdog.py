"""A workaround for a race in CARLA 0.9.16's Traffic Manager, which runs inside the client.

In synchronous mode every tick notifies the Traffic Manager's thread and waits for it. Where one of the two does not
wait yet, the other's notification is lost, and both wait for ever (later versions do without the thread). It was seen
once in 5,000 to 20,000 ticks on a machine with two CPUs. Setting the Traffic Manager to asynchronous mode through its
own port notifies it as well, and setting the mode back at once changes nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection

import msgpack

log = logging.getLogger("carla-lite")
ManagerAddress = tuple[str, int]
"""Host and port."""
SILENCE = 0.5
"""Seconds after a tick within which an active Traffic Manager must have made its calls."""
HABIT = 3
"""Consecutive ticks with calls after which a Traffic Manager counts as active."""
TRIES = 3
"""Notifications per tick."""
WATCH_EVERY = 0.25
"""Seconds between checks."""
TICK = "tick_cue"
SIGNS = frozenset(("get_vehicle_light_states", "apply_batch"))
"""Calls that a Traffic Manager makes in every step."""


class TrafficManagerWatchdog:
    """Follows the calls of clients and notifies Traffic Managers that missed a tick."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._habit, self._tries = 0, 0
        self._ticked = 0.0

    def called(self, name: str) -> None:
        """To be called after every call of a client.

        Args:
            name: Of the call.
        """
        if name == TICK:
            self._habit = self._habit + 1 if self._seen >= SIGNS else 0
            self._seen.clear()
            self._ticked, self._tries = time.monotonic(), 0
        elif name in SIGNS:
            self._seen.add(name)

    def reset(self) -> None:
        """Forget the calls so far: another map was loaded."""
        self._habit = 0

    @property
    def overdue(self) -> bool:
        """Whether an active Traffic Manager has not made its calls in time."""
        waiting = self._habit >= HABIT and not self._seen and self._tries < TRIES
        return waiting and time.monotonic() - self._ticked > SILENCE * (self._tries + 1)

    async def watch(self, managers: Collection[ManagerAddress]) -> None:
        """Check until cancelled.

        Args:
            managers: Addresses of the Traffic Managers; read again at every check.
        """
        while True:
            await asyncio.sleep(WATCH_EVERY)
            if self.overdue:
                self._tries += 1
                for address in list(managers):
                    with contextlib.suppress(OSError, TimeoutError):
                        await asyncio.wait_for(notify(address), SILENCE)
                        log.warning("the client's Traffic Manager missed a tick (a race in 0.9.16): notified again")


async def notify(address: ManagerAddress) -> None:
    """Set a Traffic Manager to asynchronous mode, which notifies it, and back to synchronous mode.

    Args:
        address: Its host and port.
    """
    reader, writer = await asyncio.open_connection(*address)
    try:
        for number, synchronous in enumerate((False, True)):
            writer.write(msgpack.packb([0, number, "set_synchronous_mode", [synchronous]]))
        await reader.read(1)
    finally:
        writer.close()
