"""Circuit breaker: after several failures in a row an endpoint is not asked for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class CircuitBreaker:
    """Opens after `failures` in a row, lets one probe through after `open_s`, closes when that succeeds."""

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start closed.

        Args:
            failures: Failures in a row that open the circuit.
            open_s: Seconds before a single probe is let through.
            clock: Present time in s.
        """
        self._limit, self._open_s, self._clock = failures, open_s, clock
        self._in_a_row = 0
        self._opened: float | None = None
        self._probing = False
        self.times_opened = 0

    @property
    def state(self) -> str:
        """closed | open | half-open"""
        if self._opened is None:
            return "closed"
        return "half-open" if self._clock() - self._opened >= self._open_s else "open"

    def allow(self) -> bool:
        """Whether a request may be sent now; in half-open state only one may."""
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def release(self) -> None:
        """A request that was let through was never sent."""
        self._probing = False

    def record(self, success: bool) -> None:
        """Count the outcome of a request that was let through.

        Args:
            success: Whether it was answered.
        """
        self._probing = False
        if success:
            self._in_a_row, self._opened = 0, None
            return
        self._in_a_row += 1
        if self._opened is not None or self._in_a_row >= self._limit:
            self._opened = self._clock()
            self.times_opened += 1
