"""What can go wrong between the client and a server. A world turns these into a truncated episode and a fresh start."""

from __future__ import annotations

from sim.errors import UsageError


class SimError(RuntimeError):
    """The simulator did not do its part. The message is one line: what happened, where, and what to do."""


class SimUnreachable(UsageError):
    """Nobody answers at an address. Waiting longer does not help, so it is bad input."""


class SimTimeout(SimError):
    """The server did not answer, or a frame did not arrive, in time."""


class SimCrashed(SimError):
    """The server process is gone."""


class SpawnRefused(SimError):
    """The server has no room for a vehicle, or does not know it."""


class SimVersionMismatch(UsageError):
    """Client and server speak different versions. Nothing but another server or client helps, so it is bad input."""
