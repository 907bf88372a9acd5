"""Everything that can go wrong between a scene and a usable answer, one name each; the metrics count by these names."""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Why an attempt, an answer or a request was not used."""

    # The endpoint, per attempt.
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    """Refused, reset, or dropped in the middle of an answer."""
    AUTH = "auth"
    """401 or 403."""
    RATE_LIMITED = "rate_limited"
    """429."""
    SERVER = "server_error"
    """5xx."""
    REQUEST = "request_rejected"
    """Any other 4xx."""
    PROTOCOL = "protocol"
    """A 200 that is not a chat completion: wrong content type, cut or broken JSON, missing fields."""
    OVERSIZED = "oversized"

    # The answer.
    EMPTY = "empty"
    TRUNCATED = "truncated"
    REFUSAL = "refusal"
    MALFORMED = "malformed"
    """No action found in it."""
    TWO_ACTIONS = "two_actions"
    OUT_OF_RANGE = "out_of_range"
    """An id or label that no action has."""
    UNAVAILABLE = "unavailable"
    """An action that exists but is not legal now."""
    NAN_CONFIDENCE = "nan_confidence"
    """A probability that is not a number in [0, 1]."""
    PROMPT_ECHO = "prompt_echo"
    UNSAFE = "unsafe"
    """Refused by the action-utility analysis."""

    # This program.
    BUDGET = "budget"
    CIRCUIT_OPEN = "circuit_open"
    INTERRUPTED = "interrupted"
    """The expert was interrupted: the request was broken off, or not sent any more."""
    CACHE_MISS = "cache_miss"
    """Replay-only mode and no stored answer."""
    CACHE_IO = "cache_io"
    """The cache file could not be read or written in mid-run; the endpoint was asked instead."""
    NO_SCENE = "no_scene"
    """The context holds no driving scene with discrete meta-actions."""
    LATE = "late"


RETRYABLE = frozenset({Fault.TIMEOUT, Fault.CONNECTION, Fault.RATE_LIMITED, Fault.SERVER})
"""Endpoint faults that another attempt may cure."""

VETOES = frozenset({Fault.UNAVAILABLE, Fault.UNSAFE})
"""Readable answers that must not be executed: the fallback provider decides, nothing is repaired."""
