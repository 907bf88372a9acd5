"""Faults that are injected on purpose, so that clients can be tested against a server that misbehaves.

Frames count the ticks that clients asked for, from 1, since the server started.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sim.errors import UsageError, unknown

DEATH = 70
"""Exit code of a server that ends by the fault `die`."""
LONGEST_LOAD = 3600.0
"""Seconds."""
HELP = (
    "for testing clients, may be repeated: stall-stream@FRAME (no world frames from then on), die@FRAME, "
    "slow-load=SECONDS (of every map), refuse-spawn=N (the next N requests), version=X.Y.Z (to claim)"
)


@dataclass(frozen=True)
class Faults:
    """What to inject; None or 0 means no fault."""

    stall_stream: int | None = None  # frame from which no world frames are sent
    die: int | None = None  # frame at which the process ends
    slow_load: float = 0.0  # s before every map is loaded
    refuse_spawn: int = 0  # spawn requests to refuse
    version: str | None = None  # version to claim

    @staticmethod
    def read(words: Iterable[str]) -> Faults:
        """Parse the words of a command line.

        Args:
            words: As described in `HELP`.

        Returns:
            The faults.

        Raises:
            UsageError: A word is not a fault.
        """
        found: dict[str, Any] = {}
        for word in words:
            name, sign, value = _split(word)
            key = name.replace("-", "_")
            if key not in _KINDS:
                raise unknown("fault", name, [known.replace("_", "-") for known in _KINDS])
            expected, kind = _KINDS[key]
            try:
                if sign != expected:
                    raise ValueError
                found[key] = kind(value)
            except ValueError:
                raise UsageError(f"fault {word!r}: write {name}{expected} and a value, see --help") from None
        return Faults(**found)


def _split(word: str) -> tuple[str, str, str]:
    for sign in "@=":
        name, found, value = word.partition(sign)
        if found:
            return name, sign, value
    return word, "", ""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < LONGEST_LOAD:
        raise ValueError
    return value


_KINDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "stall_stream": ("@", _count),
    "die": ("@", _count),
    "slow_load": ("=", _seconds),
    "refuse_spawn": ("=", _count),
    "version": ("=", str),
}


class FaultInjector:
    """Injects the faults of a running server."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._ticks, self._refused = 0, 0

    def tick(self) -> None:
        """To be called before a frame that a client asked for. Ends the process where `die` says so."""
        self._ticks += 1
        if self._ticks == self.faults.die:
            os._exit(DEATH)

    @property
    def stalled(self) -> bool:
        """Whether world frames are withheld."""
        return self.faults.stall_stream is not None and self._ticks >= self.faults.stall_stream

    def load(self) -> None:
        """To be called before a map is loaded."""
        time.sleep(self.faults.slow_load)

    def refuses_spawn(self) -> bool:
        """Whether to refuse the spawn request at hand; to be called once per request."""
        refused = self._refused < self.faults.refuse_spawn
        self._refused += refused
        return refused
