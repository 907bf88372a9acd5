"""NumPy's PCG64 stream inside compiled code: the same seed gives the same draws as `np.random.Generator`.

A stream is one row of six uint64: state high and low, increment high and low, and the half of a 64-bit draw that
32-bit draws keep for the next time (whether there is one, and its value). Algorithms as in NumPy: O'Neill's PCG XSL RR
128/64, Lemire's bounded integers, the ziggurat of Marsaglia and Tsang. SeedSequence stays in NumPy.
"""

from __future__ import annotations

import math

import numpy as np
from numba.np.random._constants import fi_double, ki_double, wi_double, ziggurat_nor_inv_r, ziggurat_nor_r

from sim.compiled import kernel

STREAM = 6
"""Numbers per stream."""
MULTIPLIER_HIGH = np.uint64(2549297995355413924)
MULTIPLIER_LOW = np.uint64(4865540595714422341)
TWO_POW_32 = np.uint64(1 << 32)
MASK32 = np.uint64(0xFFFFFFFF)
S32 = np.uint64(32)
S58 = np.uint64(58)
S64 = np.uint64(64)
S11 = np.uint64(11)
ZERO = np.uint64(0)
ONE = np.uint64(1)
TWO_POW_MINUS_53 = 1.0 / 9007199254740992.0


def stream_of(generator: np.random.Generator) -> np.ndarray:
    """The present state of a PCG64 generator as a stream.

    Args:
        generator: The generator.
    Returns:
        uint64 (STREAM,).
    Raises:
        ValueError: It is not a PCG64.
    """
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise ValueError(f"expected a PCG64 generator, found {state['bit_generator']}")
    value, increment = state["state"]["state"], state["state"]["inc"]
    low = (1 << 64) - 1
    kept = [state["has_uint32"], state["uinteger"]]
    return np.array([value >> 64, value & low, increment >> 64, increment & low, *kept], dtype=np.uint64)


def seeded_stream(seed: int | np.random.SeedSequence | None) -> np.ndarray:
    """The stream that `np.random.Generator(np.random.PCG64(seed))` starts with (gymnasium's `np_random` too).

    Args:
        seed: As for NumPy; None draws one.
    Returns:
        uint64 (STREAM,).
    """
    return stream_of(np.random.Generator(np.random.PCG64(seed)))


@kernel(inline="always")
def _multiply_64(a, b):
    """Full 128-bit product of two uint64, as (high, low)."""
    a_high, a_low = a >> S32, a & MASK32
    b_high, b_low = b >> S32, b & MASK32
    low = a_low * b_low
    middle_1 = a_high * b_low + (low >> S32)
    middle_2 = a_low * b_high + (middle_1 & MASK32)
    high = a_high * b_high + (middle_1 >> S32) + (middle_2 >> S32)
    return high, (middle_2 << S32) | (low & MASK32)


@kernel
def next_64(stream):
    """Next 64 random bits and advance of `stream` (uint64 (STREAM,))."""
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
    return mixed


@kernel
def next_double(stream):
    """Next double in [0, 1), as `Generator.random`."""
    return np.float64(next_64(stream) >> S11) * TWO_POW_MINUS_53


@kernel
def next_32(stream):
    """Next 32 random bits as uint64: the low half of a draw, then its high half."""
    if stream[4] != ZERO:
        stream[4] = ZERO
        return stream[5]
    bits = next_64(stream)
    stream[4], stream[5] = ONE, bits >> S32
    return bits & MASK32


@kernel
def next_below(stream, count):
    """Next integer in [0, count), as `Generator.integers` and `Generator.choice`; count at most 2^32 - 1."""
    if count == 1:
        return 0
    span = np.uint64(count)
    product = next_32(stream) * span
    if product & MASK32 < span:
        threshold = (TWO_POW_32 - span) % span
        while product & MASK32 < threshold:
            product = next_32(stream) * span
    return np.int64(product >> S32)


@kernel
def next_pair(stream, count):
    """Next two different integers in [0, count), as `Generator.choice(count, 2, replace=False)`; 2 <= count <= 10,000.

    Floyd's algorithm, then a shuffle.
    """
    first, second = next_below(stream, count - 1), next_below(stream, count)
    if second == first:
        second = np.int64(count - 1)
    return (second, first) if next_below(stream, 2) == 0 else (first, second)


@kernel
def next_normal(stream):
    """Next standard normal, as `Generator.standard_normal`."""
    while True:
        bits = next_64(stream)
        box = np.int64(bits & np.uint64(0xFF))
        bits >>= np.uint64(8)
        negative = bits & ONE
        magnitude = (bits >> ONE) & np.uint64(0x000FFFFFFFFFFFFF)
        x = np.float64(magnitude) * wi_double[box]
        if negative:
            x = -x
        if magnitude < ki_double[box]:
            return x
        if box == 0:
            while True:
                beyond = -ziggurat_nor_inv_r * math.log1p(-next_double(stream))
                y = -math.log1p(-next_double(stream))
                if y + y > beyond * beyond:
                    tail = ziggurat_nor_r + beyond
                    return -tail if (magnitude >> np.uint64(8)) & ONE else tail
        elif (fi_double[box - 1] - fi_double[box]) * next_double(stream) + fi_double[box] < math.exp(-0.5 * x * x):
            return x
