"""NumPy's PCG64 stream inside compiled code: the same seed gives the same doubles as `np.random.Generator.random`.

A stream is one row of four uint64: state high, state low, increment high, increment low.
Algorithm: O'Neill's PCG XSL RR 128/64 as in NumPy; SeedSequence stays in NumPy.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MULTIPLIER_HIGH = np.uint64(2549297995355413924)
MULTIPLIER_LOW = np.uint64(4865540595714422341)
MASK32 = np.uint64(0xFFFFFFFF)
S32 = np.uint64(32)
S58 = np.uint64(58)
S63 = np.uint64(63)
S64 = np.uint64(64)
S11 = np.uint64(11)
ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO_POW_MINUS_53 = 1.0 / 9007199254740992.0


def stream_of(generator: np.random.Generator) -> np.ndarray:
    """The present state of a PCG64 generator as a uint64 (4,) row."""
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"expected a PCG64 generator, found {state['bit_generator']}")
    value, increment = state["state"]["state"], state["state"]["inc"]
    low = (1 << 64) - 1
    return np.array([value >> 64, value & low, increment >> 64, increment & low], dtype=np.uint64)


def seeded_stream(seed: int | np.random.SeedSequence | None) -> np.ndarray:
    """The stream that `np.random.Generator(np.random.PCG64(seed))` starts with (gymnasium's `np_random` too)."""
    return stream_of(np.random.Generator(np.random.PCG64(seed)))


@njit(cache=True, inline="always")
def _multiply_64(a, b):
    """Full 128-bit product of two uint64, as (high, low)."""
    a_high, a_low = a >> S32, a & MASK32
    b_high, b_low = b >> S32, b & MASK32
    low = a_low * b_low
    middle_1 = a_high * b_low + (low >> S32)
    middle_2 = a_low * b_high + (middle_1 & MASK32)
    high = a_high * b_high + (middle_1 >> S32) + (middle_2 >> S32)
    return high, (middle_2 << S32) | (low & MASK32)


@njit(cache=True)
def next_double(stream):
    """Next double in [0, 1) and advance of `stream` (uint64 (4,)), as `Generator.random`."""
    high, low = stream[0], stream[1]
    product_high, product_low = _multiply_64(low, MULTIPLIER_LOW)
    product_high += high * MULTIPLIER_LOW + low * MULTIPLIER_HIGH
    new_low = product_low + stream[3]
    carry = ONE if new_low < product_low else ZERO
    new_high = product_high + stream[2] + carry
    stream[0], stream[1] = new_high, new_low
    mixed = new_high ^ new_low
    rotation = new_high >> S58
    if rotation != ZERO:
        mixed = (mixed >> rotation) | (mixed << (S64 - rotation))
    return np.float64(mixed >> S11) * TWO_POW_MINUS_53
