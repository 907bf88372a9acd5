"""Records: parameters from plain values, and rows of record arrays as bare pointers.

Numba hands a record (one row) to a compiled function as a pointer, but an array as a dozen words with a reference
count, whose atomic updates cost more than the arithmetic of a traffic model. The kernels therefore pass first rows and
walk from there with `nth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


def _nth(typingctx: Any, record: Any, k: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, index = args
        offset = builder.mul(index, context.get_constant(types.intp, record.size))
        return cgutils.pointer_add(builder, pointer, offset, return_type=pointer.type)

    return record(record, types.intp), codegen


nth: Any = intrinsic(_nth)
"""nth(record, k): the k-th row after `record` in the array that it belongs to. Unchecked, as all indexing here."""


def _assign(typingctx: Any, target: Any, source: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cgutils.raw_memcpy(builder, args[0], args[1], context.get_constant(types.intp, target.size), 1)
        return context.get_dummy_value()

    return types.void(target, target), codegen


assign: Any = intrinsic(_assign)
"""assign(target, source): makes one row equal to another one of the same array."""

Field = tuple[Any, ...]
"""(kind, value) or (kind, value, shape) of one field, e.g. ("f8", 0.5)."""


def record(fields: Mapping[str, Field]) -> np.ndarray:
    """Named values as one record.

    Args:
        fields: Kind, value and perhaps shape by name.
    Returns:
        The record in an array of one, because parallel kernels take no bare records.
    """
    dtype = np.dtype([(name, kind, *shape) for name, (kind, _, *shape) in fields.items()], align=True)
    made = np.zeros(1, dtype)
    for name, (_, value, *_) in fields.items():
        made[name] = value
    return made
