"""Matrix products of a layer: forward, gradient of the inputs, gradient of the weights.

Matrices live in one-dimensional float32 arrays and are named by offset and strides, so that one kernel serves weights
of either order. The right factor is first packed into panels of `COLUMNS` columns, which a tile reads in order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lgdrl.learners.fused.tile import (
    COLUMNS,
    LANES,
    ROWS,
    add_vector,
    copy_vector,
    make_tile,
    transpose_block,
)
from sim.compiled import kernel

BLOCK = 128
"""Rows of a batch that a product of gradients takes at once."""

_plain, _add, _bias, _relu, _gate = (make_tile(name) for name in ("plain", "add", "bias", "relu", "gate"))
_plain_narrow, _bias_narrow = make_tile("plain", 1), make_tile("bias", 1)


@kernel
def padded(columns: int) -> int:
    """Columns rounded up to whole panels."""
    return (columns + COLUMNS - 1) // COLUMNS * COLUMNS


@kernel
def pack(b: Any, offset: int, row: int, step: int, length: int, columns: int, out: Any, at: int) -> None:
    """out[at:] = the panels of the matrix (length, columns) with elements b[offset + k row + j step].

    One of both strides is 1. What stands in the columns behind the last one has no meaning; b has `COLUMNS` numbers
    more than the matrix.
    """
    for panel in range((columns + COLUMNS - 1) // COLUMNS):
        start, source = at + panel * length * COLUMNS, offset + panel * COLUMNS * step
        if step == 1:
            for k in range(length):
                for j in range(0, COLUMNS, LANES):
                    copy_vector(out, start + k * COLUMNS + j, b, source + k * row + j)
            continue
        last = columns - panel * COLUMNS - 1
        whole = length // LANES * LANES
        for j in range(0, COLUMNS, LANES):
            begin = min(j, last)
            for k in range(0, whole, LANES):
                transpose_block(out, start + k * COLUMNS + j, COLUMNS, b, source + k + begin * step, step, last - begin)
            for i in range(j, j + LANES):
                for k in range(whole, length):
                    out[start + k * COLUMNS + i] = b[source + k + min(i, last) * step]


@kernel
def forward(
    units: Any, source: int, row: int, rows: int, length: int, packed: Any, panels: int, columns: int, theta: Any,
    bias: int, target: int, hidden: bool,
) -> None:  # fmt: skip
    """The matrix at `target` = (matrix at `source`) packed + bias, negative numbers cut to 0 where `hidden`.

    Whole panels are written: rows have room for them.
    """
    for panel in range((columns + COLUMNS - 1) // COLUMNS):
        first = panel * COLUMNS
        narrow = columns - first <= LANES
        b, x = panels + panel * length * COLUMNS, bias + first
        for i in range(0, rows, ROWS):
            number = min(ROWS, rows - i)
            a, c = source + i * row, target + i * row + first
            if hidden:
                _relu(units, a, row, 1, number, packed, b, COLUMNS, units, c, row, length, theta, x, 0)
            elif narrow:
                _bias_narrow(units, a, row, 1, number, packed, b, COLUMNS, units, c, row, length, theta, x, 0)
            else:
                _bias(units, a, row, 1, number, packed, b, COLUMNS, units, c, row, length, theta, x, 0)


@kernel
def input_gradient(
    delta: Any, target: int, source: int, row: int, rows: int, length: int, columns: int, packed: Any, units: Any
) -> None:
    """The matrix of `delta` at `source` = (its matrix at `target`) packed, 0 where the unit of `units` is 0."""
    for panel in range((columns + COLUMNS - 1) // COLUMNS):
        first, b = panel * COLUMNS, panel * length * COLUMNS
        for i in range(0, rows, ROWS):
            a, c = target + i * row, source + i * row + first
            _gate(delta, a, row, 1, min(ROWS, rows - i), packed, b, COLUMNS, delta, c, row, length, units, c, row)


@kernel
def weight_gradient(
    a: Any, a_at: int, a_columns: int, b: Any, b_at: int, b_columns: int, row: int, rows: int, scratch: Any, out: Any,
    out_at: int,
) -> None:  # fmt: skip
    """out = a^T b, (a_columns, b_columns) in C order, for matrices of `rows` rows that begin `row` apart.

    Rows are taken in blocks, whose panels stay in the first cache while all tiles of a column are computed.
    """
    for block in range(0, rows, BLOCK):
        length = min(BLOCK, rows - block)
        for first in range(0, b_columns, COLUMNS):
            width, b_start = min(COLUMNS, b_columns - first), b_at + block * row + first
            for i in range(0, a_columns, ROWS):
                number = min(ROWS, a_columns - i)
                a_start, c = a_at + block * row + i, out_at + i * b_columns + first
                if width == COLUMNS and block == 0:
                    _plain(a, a_start, 1, row, number, b, b_start, row, out, c, b_columns, length, a, 0, 0)
                elif width == COLUMNS:
                    _add(a, a_start, 1, row, number, b, b_start, row, out, c, b_columns, length, a, 0, 0)
                else:
                    if width <= LANES:
                        _plain_narrow(a, a_start, 1, row, number, b, b_start, row, scratch, 0, COLUMNS, length, a, 0, 0)
                    else:
                        _plain(a, a_start, 1, row, number, b, b_start, row, scratch, 0, COLUMNS, length, a, 0, 0)
                    for r in range(number):
                        for j in range(width):
                            before = out[c + r * b_columns + j] if block else np.float32(0.0)
                            out[c + r * b_columns + j] = before + scratch[r * COLUMNS + j]


@kernel
def column_sums(a: Any, at: int, row: int, rows: int, columns: int, scratch: Any, out: Any, out_at: int) -> None:
    """out[out_at + j] = sum_i a[at + i row + j]."""
    for first in range(0, columns, LANES):
        scratch[:LANES] = 0.0
        for i in range(rows):
            add_vector(scratch, 0, a, at + i * row + first)
        for j in range(min(LANES, columns - first)):
            out[out_at + first + j] = scratch[j]


def scratch() -> np.ndarray:
    """Room for one tile."""
    return np.zeros(ROWS * COLUMNS, np.float32)
