"""How an episode ended, for every environment."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """MISSED: the goal or the time limit was missed without a crash."""

    RUNNING = 0
    SUCCESS = 1
    CRASH = 2
    MISSED = 3
