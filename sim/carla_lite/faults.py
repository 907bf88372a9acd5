"""Faults on purpose, so that clients can be tested against a server that misbehaves. Frames count ticks that were asked
for, from 1, since the server started."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sim.errors import UsageError, unknown

DEATH = 70
"""Exit code of a server that was told to die."""
HELP = (
    "for testing clients, may be repeated: stall-stream@FRAME (no world frames from then on), die@FRAME, "
    "slow-load=SECONDS (of every map), refuse-spawn=N (the next N requests), version=X.Y.Z (to claim)"
)


@dataclass(frozen=True)
class Faults:
    """None or 0 is health."""

    stall_stream: int | None = None
    die: int | None = None
    slow_load: float = 0.0
    refuse_spawn: int = 0
    version: str | None = None

    @staticmethod
    def read(words: Iterable[str]) -> Faults:
        """From the words of `HELP`. UsageError for others."""
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
    if not 0 <= value < 3600:
        raise ValueError
    return value


_KINDS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "stall_stream": ("@", _count),
    "die": ("@", _count),
    "slow_load": ("=", _seconds),
    "refuse_spawn": ("=", _count),
    "version": ("=", str),
}


class Trouble:
    """The faults of a server that runs."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self._ticks, self._refused = 0, 0

    def tick(self) -> None:
        """Before a frame that a client asked for. May not return."""
        self._ticks += 1
        if self._ticks == self.faults.die:
            os._exit(DEATH)

    @property
    def stalled(self) -> bool:
        """Does the world's stream say nothing any more?"""
        return self.faults.stall_stream is not None and self._ticks >= self.faults.stall_stream

    def load(self) -> None:
        """Before a map is loaded."""
        time.sleep(self.faults.slow_load)

    def refuses_spawn(self) -> bool:
        """Before an actor is spawned."""
        refused = self._refused < self.faults.refuse_spawn
        self._refused += refused
        return refused
