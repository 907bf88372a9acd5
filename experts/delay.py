"""Distributions of seconds, written as text: how long a person's reaction or a server's response takes."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

from sim.bounds import NonNegative, config_dataclass
from sim.errors import UsageError

P99 = NormalDist().inv_cdf(0.99)
LONGEST_S = 3600.0
"""s; a longer delay is a typing error."""
KINDS = {"constant": ("SECONDS",), "uniform": ("LOW", "HIGH"), "lognormal": ("P50", "P99"), "exponential": ("MEAN",)}
FORMS = ", ".join(":".join((kind, *names)) for kind, names in KINDS.items())


@config_dataclass
class Delay:
    """A distribution of seconds."""

    kind: Literal["constant", "uniform", "lognormal", "exponential"] = "constant"
    # s; constant: the delay; uniform: bounds; lognormal: p50, p99; exponential: mean
    values: tuple[NonNegative, ...] = (0.0,)

    def __post_init__(self) -> None:
        if len(self.values) != len(KINDS[self.kind]) or not all(0 <= value <= LONGEST_S for value in self.values):
            raise UsageError(f"delay {self.text()!r}: write {FORMS}, in seconds from 0 to {LONGEST_S:g}")
        low, high = self.values[0], self.values[-1]
        if low > high or (low == 0 and self.kind in ("lognormal", "exponential")):
            names = " <= ".join(KINDS[self.kind])
            raise UsageError(f"delay {self.text()!r}: expected {names}, a {self.kind} one above 0")

    def at(self, u: float) -> float:
        """The quantile of `u`.

        Args:
            u: In [0, 1).

        Returns:
            Seconds.
        """
        low, high = self.values[0], self.values[-1]
        if self.kind == "uniform":
            return low + u * (high - low)
        if self.kind == "lognormal":
            return low * (high / low) ** (NormalDist().inv_cdf(min(max(u, 1e-12), 1 - 1e-12)) / P99)
        return -low * math.log1p(-u) if self.kind == "exponential" else low

    def text(self) -> str:
        """As `read_delay` reads it."""
        return ":".join((self.kind, *(f"{value!r}" for value in self.values)))


def read_delay(text: str) -> Delay:
    """Read a distribution.

    Args:
        text: `0.2`, `constant:0.2`, `uniform:0.1:0.3`, `lognormal:P50:P99` or `exponential:MEAN`, in seconds.

    Raises:
        UsageError: It is anything else.
    """
    kind, *words = text.strip().split(":")
    if not words:
        kind, words = "constant", [kind]
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = ()
    if kind not in KINDS or not values:
        raise UsageError(f"delay {text!r}: write seconds, or one of {FORMS}")
    try:
        return Delay(kind, values)  # type: ignore[arg-type]
    except UsageError:
        raise
    except ValueError:
        raise UsageError(f"delay {text!r}: write {FORMS}, in seconds from 0 to {LONGEST_S:g}") from None
