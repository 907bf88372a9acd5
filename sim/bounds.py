"""Ranges of numbers in configs: `@config_dataclass` makes a frozen dataclass that refuses a number outside its range.

    @config_dataclass
    class SearchConfig:
        horizon: Annotated[int, Bounds(2, 1000)] = 12
        speed: Number = 0.3
        waits: tuple[Whole, ...] = (0, 2, 4, 7)

NaN and infinities are outside every range. What depends on several fields stays in `__post_init__`, which is called
after the numbers were found to be sound.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST = 10**12
"""Bound of every number that names no other: beyond what a run can do, below where floats lose whole numbers."""


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Numbers from `low` to `high`, one end or both excluded where they are open."""

    low: float
    high: float = LARGEST
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range; NaN never does."""
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low, high = _spelled(self.low), _spelled(self.high)
        high = f"below {high}" if self.open_high else high
        if self.open_low:
            return f"more than {low} and {high if self.open_high else f'at most {high}'}"
        return f"{low} to {high}"


def _spelled(bound: float) -> str:
    return f"{int(bound):,}" if bound == int(bound) and abs(bound) < 1e20 else f"{bound:g}"


Count = Annotated[int, Bounds(1)]
Whole = Annotated[int, Bounds(0)]
LARGEST_SEED = 2**62
"""Episodes add their number to a seed, and the engine counts in 64 bits."""
Seed = Annotated[int, Bounds(0, LARGEST_SEED)]
Share = Annotated[float, Bounds(0, 1)]
Number = Annotated[float, Bounds(-LARGEST)]
NonNegative = Annotated[float, Bounds(0)]
Positive = Annotated[float, Bounds(0, open_low=True)]
LearningRate = Annotated[float, Bounds(0, 1, open_low=True)]
BatchSize = Annotated[int, Bounds(1, 1_000_000)]


@dataclass_transform(frozen_default=True)
def config_dataclass(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass whose numbers are checked when an instance is made.

    Args:
        cls: Its numeric fields are annotated with `Bounds`, as `Annotated[int, Bounds(1, 8)]` or a name of this module.
    """
    own = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        check_numbers(self)
        if own is not None:
            own(self)

    cls.__post_init__ = __post_init__  # type: ignore[attr-defined]
    return dataclasses.dataclass(frozen=True)(cls)


def check_numbers(instance: Any) -> None:
    """Compare the numbers of a config with the ranges of its fields; nested configs check their own.

    Args:
        instance: Of a dataclass.
    Raises:
        ValueError: A number is outside its range; names the field, the value and the range.
    """
    for name, bounds in bounds_of(type(instance)).items():  # type: ignore[arg-type]  # a class is hashable
        value = getattr(instance, name)
        for found in numbers_in(value):
            if not math.isfinite(found) or (bounds and not any(each.holds(found) for each in bounds)):
                choice = " or ".join(dict.fromkeys(map(str, bounds))) or "a finite number"
                raise ValueError(f"{name} = {spelled(value)}: choose {choice}")


@functools.cache
def bounds_of(cls: type) -> Mapping[str, tuple[Bounds, ...]]:
    """The bounds of each field of a dataclass; none where a field is not numeric or has none.

    Args:
        cls: The dataclass.
    """
    hints = get_type_hints(cls, include_extras=True)
    return {name: tuple(_bounds_in(hint)) for name, hint in hints.items()}


def _bounds_in(annotation: Any) -> Iterator[Bounds]:
    if get_origin(annotation) is Annotated:
        yield from (each for each in annotation.__metadata__ if isinstance(each, Bounds))
    for part in get_args(annotation):
        yield from _bounds_in(part)


def numbers_in(value: Any) -> Iterator[float]:
    """Every number in a plain value, nested ones too; truth values are none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from numbers_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from numbers_in(item)


def spelled(value: Any) -> str:
    """A value for a message: short even where an integer has thousands of digits."""
    if isinstance(value, tuple):
        value = list(value)
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of more than 4,300 digits
        return "an integer of thousands of digits"
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text):,} characters)"
