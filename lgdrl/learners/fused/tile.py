"""The register tile of a matrix product, in LLVM's intermediate representation.

A tile is `ROWS` x `COLUMNS` numbers of C = A B that stay in vector registers while k runs. Numba compiles it for the
processor that it runs on; no compiler has to be installed. Each number is one sum over ascending k, so it depends
neither on the number of threads nor on the rows that are computed beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_FEATURES = llvm.get_host_cpu_features()
_WIDE = bool(_FEATURES.get("avx512f"))
LANES = 16 if _WIDE else 8
"""float32 numbers of a vector register."""
ROWS = 12 if _WIDE else 6
"""Rows of a tile: with two vectors each they fill 24 of 32 registers with AVX-512, 12 of 16 with AVX2."""
COLUMNS = 2 * LANES
"""Columns of a tile, and of a packed panel of B."""

Epilogue = Literal["plain", "add", "bias", "relu", "gate"]

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INDEX = ir.IntType(32)


def _for_kernels(function: Any) -> Callable[..., None]:
    """numba's `intrinsic`: a function that compiled code may call without its first argument."""
    return intrinsic(function)


def make_tile(epilogue: Epilogue, vectors: int = 2) -> Callable[..., None]:
    """A function for compiled code: tile(a, ia, row_a, step_a, rows, b, ib, row_b, c, ic, row_c, length, x, ix, row_x).

    It computes c[ic + r row_c + j] = sum_k a[ia + r row_a + k step_a] b[ib + k row_b + j] for r < min(rows, ROWS) and
    j < vectors x LANES. All arrays are one-dimensional float32; rows and length are at least 1.

    Args:
        epilogue: "plain": as above. "add": plus what is there. "bias": plus x[ix + j]. "relu": that, and negative
            numbers become 0. "gate": 0 where x[ix + r row_x + j] is not positive.
        vectors: 1 or 2 vectors of columns.
    """

    @_for_kernels
    def tile(typing, a, ia, row_a, step_a, rows, b, ib, row_b, c, ic, row_c, length, x, ix, row_x):
        n = types.intp
        signature = types.void(a, n, n, n, n, b, n, n, c, n, n, n, x, n, n)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return _generate(context, builder, signature, arguments, epilogue, vectors)

        return signature, generate

    return tile


def _generate(context: Any, builder: Any, signature: Any, arguments: Any, epilogue: Epilogue, vectors: int) -> Any:
    _, ia, row_a, step_a, rows, _, ib, row_b, _, ic, row_c, length, _, ix, row_x = arguments
    integer, columns = ia.type, range(vectors)

    def start(position: int, offset: Any) -> Any:
        return _pointer(context, builder, signature, arguments, position, offset)

    def constant(value: int) -> Any:
        return ir.Constant(integer, value)

    def load(pointer: Any, index: int) -> Any:
        return builder.load(_vector_at(builder, pointer, constant(index * LANES)), align=4)

    a, b, c, x = start(0, ia), start(5, ib), start(8, ic), start(12, ix)
    # rows beyond the last one repeat it: they read and write the same numbers once more
    last = builder.sub(rows, constant(1))
    index = [builder.select(builder.icmp_signed("<", constant(r), last), constant(r), last) for r in range(ROWS)]
    rows_a = [builder.gep(a, [builder.mul(r, row_a)]) for r in index]
    rows_c = [builder.gep(c, [builder.mul(r, row_c)]) for r in index]
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    if epilogue == "add":
        first = [[load(rows_c[r], v) for v in columns] for r in range(ROWS)]
    else:
        first = [[load(x, v) if epilogue in ("bias", "relu") else zero for v in columns]] * ROWS

    before = builder.block
    loop, after = builder.append_basic_block("over_k"), builder.append_basic_block("epilogue")
    builder.branch(loop)
    builder.position_at_end(loop)
    k, offset_a, offset_b = (builder.phi(integer) for _ in range(3))
    sums = [[builder.phi(_VECTOR) for _ in columns] for _ in range(ROWS)]
    panel = builder.gep(b, [offset_b])
    factors = [load(panel, v) for v in columns]
    added = []
    for r in range(ROWS):
        number = _spread(builder, builder.load(builder.gep(rows_a[r], [offset_a])))
        products = [builder.fmul(number, factors[v], flags=("contract",)) for v in columns]
        added.append([builder.fadd(sums[r][v], products[v], flags=("contract",)) for v in columns])
    next_k = builder.add(k, constant(1))
    for phi, following in (
        (k, next_k),
        (offset_a, builder.add(offset_a, step_a)),
        (offset_b, builder.add(offset_b, row_b)),
    ):
        phi.add_incoming(constant(0), before)
        phi.add_incoming(following, loop)
    for r in range(ROWS):
        for v in columns:
            sums[r][v].add_incoming(first[r][v], before)
            sums[r][v].add_incoming(added[r][v], loop)
    builder.cbranch(builder.icmp_signed("<", next_k, length), loop, after)

    builder.position_at_end(after)
    for r in range(ROWS):
        for v in columns:
            value = added[r][v]
            if epilogue == "relu":
                value = builder.select(builder.fcmp_ordered("<", value, zero), zero, value)  # not a number stays one
            elif epilogue == "gate":
                gate = load(builder.gep(x, [builder.mul(index[r], row_x)]), v)
                value = builder.select(builder.fcmp_ordered(">", gate, zero), value, zero)
            builder.store(value, _vector_at(builder, rows_c[r], constant(v * LANES)), align=4)
    return context.get_dummy_value()


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any, position: int, offset: Any) -> Any:
    """Where a number of an array argument is."""
    array = context.make_array(signature.args[position])(context, builder, arguments[position])
    return builder.gep(array.data, [offset])


def _vector_at(builder: Any, pointer: Any, offset: Any) -> Any:
    return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())


def _spread(builder: Any, number: Any) -> Any:
    """A vector of equal numbers."""
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


@_for_kernels
def copy_vector(typing, a, ia, b, ib):
    """a[ia + j] = b[ib + j] for j < LANES, in compiled code."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        to, of = (_pointer(context, builder, signature, arguments, k, arguments[k + 1]) for k in (0, 2))
        zero = ir.Constant(arguments[1].type, 0)
        builder.store(builder.load(_vector_at(builder, of, zero), align=4), _vector_at(builder, to, zero), align=4)
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp), generate


@_for_kernels
def add_vector(typing, a, ia, b, ib):
    """a[ia + j] += b[ib + j] for j < LANES, in compiled code."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(arguments[1].type, 0)
        to, of = (
            _vector_at(builder, _pointer(context, builder, signature, arguments, k, arguments[k + 1]), zero)
            for k in (0, 2)
        )
        builder.store(builder.fadd(builder.load(to, align=4), builder.load(of, align=4)), to, align=4)
        return context.get_dummy_value()

    return types.void(a, types.intp, b, types.intp), generate


@_for_kernels
def transpose_block(typing, a, ia, row_a, b, ib, row_b, last):
    """a[ia + j row_a + i] = b[ib + min(i, last) row_b + j] for i, j < LANES, in compiled code."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, ia, row_a, _, ib, row_b, last = arguments
        integer = ia.type
        to, of = (_pointer(context, builder, signature, arguments, k, offset) for k, offset in ((0, ia), (3, ib)))
        rows = []
        for i in range(LANES):
            number = ir.Constant(integer, i)
            row = builder.select(builder.icmp_signed("<", number, last), number, last)
            rows.append(builder.load(_vector_at(builder, of, builder.mul(row, row_b)), align=4))
        distance = LANES // 2
        while distance:  # swap blocks of the half, the quarter, ... across the diagonal
            for i in range(LANES):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    low = [j if not j & distance else LANES + j - distance for j in range(LANES)]
                    high = [j + distance if not j & distance else LANES + j for j in range(LANES)]
                    rows[i], rows[i + distance] = (
                        builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_INDEX, LANES), mask))
                        for mask in (low, high)
                    )
            distance //= 2
        for j in range(LANES):
            builder.store(rows[j], _vector_at(builder, to, builder.mul(ir.Constant(integer, j), row_a)), align=4)
        return context.get_dummy_value()

    n = types.intp
    return types.void(a, n, n, b, n, n, n), generate
