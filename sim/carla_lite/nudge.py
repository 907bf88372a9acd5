"""A cure for a race in CARLA 0.9.16's Traffic Manager, which lives in the client.

In synchronous mode every tick wakes its thread, and waits for it; where one of the two has not yet fallen asleep, the
other's call is lost, and both wait for ever (later versions do without the thread). It was seen once in 5,000 to 20,000
ticks on a machine with two CPUs. Who sets its mode to asynchronous, by way of its own port, wakes it too, and a mode
that is set back at once changes nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection

import msgpack

log = logging.getLogger("carla-lite")
Place = tuple[str, int]
SILENCE = 0.5
"""Seconds after a tick in which a Traffic Manager that worked in all ticks before must have worked."""
HABIT = 3
"""Ticks in a row after which it is expected to work."""
TRIES = 3
WATCH_EVERY = 0.25
TICK = "tick_cue"
SIGNS = frozenset(("get_vehicle_light_states", "apply_batch"))
"""Calls that a Traffic Manager makes in every step."""


class Nudge:
    """Listens to the calls of clients and wakes Traffic Managers that sleep through a tick."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._habit, self._tries = 0, 0
        self._ticked = 0.0

    def called(self, name: str) -> None:
        """Some client made this call."""
        if name == TICK:
            self._habit = self._habit + 1 if self._seen >= SIGNS else 0
            self._seen.clear()
            self._ticked, self._tries = time.monotonic(), 0
        elif name in SIGNS:
            self._seen.add(name)

    def reset(self) -> None:
        """Nothing is expected any more: the world is another."""
        self._habit = 0

    @property
    def overdue(self) -> bool:
        """Is a step missing?"""
        waiting = self._habit >= HABIT and not self._seen and self._tries < TRIES
        return waiting and time.monotonic() - self._ticked > SILENCE * (self._tries + 1)

    async def watch(self, managers: Collection[Place]) -> None:
        """For ever; `managers` is looked at anew each time."""
        while True:
            await asyncio.sleep(WATCH_EVERY)
            if self.overdue:
                self._tries += 1
                for place in list(managers):
                    with contextlib.suppress(OSError, TimeoutError):
                        await asyncio.wait_for(wake(place), SILENCE)
                        log.warning("the client's Traffic Manager slept through a tick (a race in 0.9.16): woken")


async def wake(place: Place) -> None:
    """Set a Traffic Manager's mode to asynchronous, which wakes it, and back while it works."""
    reader, writer = await asyncio.open_connection(*place)
    try:
        for number, synchronous in enumerate((False, True)):
            writer.write(msgpack.packb([0, number, "set_synchronous_mode", [synchronous]]))
        await reader.read(1)
    finally:
        writer.close()
