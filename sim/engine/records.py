"""Rows of record arrays as bare pointers.

Numba hands a record (one row) to a compiled function as a pointer, but an array as a dozen words with a reference
count, whose atomic updates cost more than the arithmetic of a traffic model. The kernels therefore pass first rows and
walk from there with `nth`.
"""

from __future__ import annotations

from typing import Any

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
"""nth(record, k): the k-th row after `record` in the array that it belongs to. Unchecked, like all in a kernel."""
