"""The playhead: where in the episode the window is, and how fast it moves."""

from __future__ import annotations

PACES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SINGLE_STEP_S = 0.25
"""Seconds in which a single step is shown."""


class Playback:
    """Position and pace in an episode that grows while it is driven.

    Args:
        pace: Simulated seconds per second.
    """

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace
        self.head = 0.0
        """The playhead, in decisions since the episode's start."""
        self.paused = False
        self.step_to: float | None = None
        """Playhead at which a single step ends; None: no step is under way."""
        self.scrubbing = False
        """The playhead is held with the mouse."""

    def rewind(self) -> None:
        """Go to the start of a new episode."""
        self.head, self.step_to = 0.0, None

    def shown(self, length: int) -> int:
        """The decision under way on the screen.

        Args:
            length: Decisions made so far.
        Returns:
            Its index; 0 where there is none yet.
        """
        return min(int(self.head), max(length - 1, 0))

    def advance(self, elapsed: float, period: float, length: int) -> bool:
        """Move on, at most to the newest state.

        Args:
            elapsed: Seconds that passed.
            period: Seconds of one decision.
            length: Decisions made so far.
        Returns:
            Whether a further decision is needed to go on.
        """
        if self.step_to is not None:
            self.head = min(self.head + elapsed / SINGLE_STEP_S, self.step_to)
            if self.head >= self.step_to:
                self.step_to = None
        elif not self.paused:
            self.head += elapsed * self.pace / period
        due = self.head >= length and (not self.paused or self.step_to is not None)
        self.head = min(self.head, float(length))
        return due

    def toggle_pause(self) -> None:
        """Pause, or go on."""
        self.paused = not self.paused

    def step(self, last: float) -> None:
        """Pause after one decision more.

        Args:
            last: The last playhead that can be reached, infinity where the episode goes on.
        """
        self.paused = True
        self.step_to = float(int(self.head) + 1)
        if self.step_to > last:
            self.step_to = None

    def back(self) -> None:
        """Pause one decision earlier."""
        self.paused, self.step_to = True, None
        self.head = max(float(int(self.head - 1e-6)), 0.0)

    def move_to(self, head: float, length: int) -> None:
        """Pause at a playhead, at most the newest state."""
        self.head = min(head, float(length))
        self.paused = True

    def change_pace(self, steps: int) -> None:
        """Go up (or down) in `PACES`, from the one nearest to the present pace."""
        nearest = min(range(len(PACES)), key=lambda k: abs(PACES[k] - self.pace))
        self.pace = PACES[min(max(nearest + steps, 0), len(PACES) - 1)]
