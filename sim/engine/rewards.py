"""Pieces of highway-env's rewards."""

from __future__ import annotations

from sim.compiled import kernel

TWO = 2.0
"""For a parameter that serves as exponent where highway-env squares a number by `**`. That is libm's `pow`, which may
differ from the product in the last bit; the compiler would replace an exponent that it knows by the product."""


@kernel
def linear(value, low, high):
    """highway-env's `lmap` of [low, high] onto [0, 1]."""
    return 0 + (value - low) * (1 - 0) / (high - low)


@kernel
def clipped(share):
    """`share` within [0, 1]."""
    return min(max(share, 0.0), 1.0)
