"""Pieces of highway-env's rewards."""

from __future__ import annotations

from sim.compiled import kernel


@kernel
def linear(value, low, high):
    """highway-env's `lmap` of [low, high] onto [0, 1]."""
    return 0 + (value - low) * (1 - 0) / (high - low)


@kernel
def clipped(share):
    """`share` within [0, 1]."""
    return min(max(share, 0.0), 1.0)
