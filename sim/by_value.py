"""Equality of records that hold arrays: dataclasses compare their fields as one tuple, which raises for arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np


class ByValue:
    """Base of frozen dataclasses (declared with `eq=False`) whose fields may be arrays.

    Two are equal where they are of one class and all fields are: arrays of one shape with equal elements, NaN being
    equal to NaN. They are not hashable, because arrays are not.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return all(same_values(getattr(self, field.name), getattr(other, field.name)) for field in fields)

    __hash__ = None  # type: ignore[assignment]


def same_values(a: Any, b: Any) -> bool:
    """Whether two values are equal, element by element where they are arrays or sequences; NaN equals NaN.

    Args:
        a: An array, a sequence, or any other value.
        b: What it is compared with.
    Returns:
        Never an array.
    """
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        x, y = np.asarray(a), np.asarray(b)
        return x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same_values(x, y) for x, y in zip(a, b, strict=True))
    return a is b or bool(a == b) or (a != a and b != b)
