"""Errors of the connection to a server. An environment turns each `SimError` into a truncated episode."""

from __future__ import annotations

from sim.errors import UsageError


class SimError(RuntimeError):
    """The simulator failed. The message is one line: what happened, where, and what to do."""


class SimUnreachable(UsageError):
    """No server responds at an address. Waiting longer does not help, so it is bad input."""


class SimTimeout(SimError):
    """The server did not respond, or a frame did not arrive, in time."""


class SimCrashed(SimError):
    """The server process is gone."""


class SpawnRefused(SimError):
    """The server has no room for a vehicle, or does not know its blueprint."""


class SimVersionMismatch(UsageError):
    """Client and server speak different versions. Only another server or client helps, so it is bad input."""
