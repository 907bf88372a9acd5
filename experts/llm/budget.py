"""Hard limits on calls, tokens and money. A call is paid for before it is sent and settled after it came back.

The reservation assumes the worst: a token for every two bytes of prompt (English and numbers take three to four) and
all the tokens that the answer may have. So no limit is passed as long as the endpoint keeps to `max_tokens`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sim.bounds import NonNegative, Whole, config_dataclass

BYTES_PER_TOKEN = 2
MESSAGE_TOKENS = 16
"""Tokens that a chat template may add around a request's messages, per message."""


@config_dataclass
class Prices:
    """Price table of the model, in any currency per million tokens."""

    input: NonNegative = 0.0  # prompt tokens that were not cached
    cached_input: NonNegative = 0.0  # prompt tokens that the endpoint's prefix cache had
    output: NonNegative = 0.0  # answer tokens

    def cost(self, usage: Usage) -> float:
        """What `usage` costs."""
        fresh = usage.input - usage.cached
        return (fresh * self.input + usage.cached * self.cached_input + usage.output * self.output) / 1e6


@config_dataclass
class BudgetConfig:
    """Limits of a whole run, resumes included; None is no limit."""

    max_calls: Whole | None = None  # requests sent, retries and start-up probes included
    max_tokens: Whole | None = None  # prompt plus answer tokens
    max_cost: NonNegative | None = None  # in the currency of `prices`
    prices: Prices = field(default_factory=Prices)  # free by default: local models


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; `cached` is the part of `input` that the endpoint had in its prefix cache."""

    input: int = 0
    cached: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a call in flight may cost at most."""

    usage: Usage
    cost: float


class Budget:
    """Counts what was spent and what is in flight. Thread-safe."""

    def __init__(self, config: BudgetConfig | None = None) -> None:
        self.config = config or BudgetConfig()
        self.exhausted = False
        """Whether a call was refused."""
        self.calls = 0
        self.spent = Usage()
        self.cost = 0.0
        self._held = Usage()
        self._held_cost = 0.0
        self._lock = threading.Lock()

    def reserve(self, prompt: str, messages: int, max_tokens: int) -> Reservation | None:
        """Room for one call. It counts from now on.

        Args:
            prompt: Text of all messages.
            messages: How many messages.
            max_tokens: Most tokens that the answer may have.

        Returns:
            The reservation; None when the call might pass a limit.
        """
        wanted = Usage(
            len(prompt.encode("utf-8", "replace")) // BYTES_PER_TOKEN + messages * MESSAGE_TOKENS, 0, max_tokens
        )
        cost = max(self.config.prices.cost(wanted), 0.0)
        with self._lock:
            limits, tokens = self.config, self.spent.total + self._held.total + wanted.total
            self.exhausted = (
                _over(self.calls + 1, limits.max_calls)
                or _over(tokens, limits.max_tokens)
                or _over(self.cost + self._held_cost + cost, limits.max_cost)
            )
            if self.exhausted:
                return None
            self.calls += 1
            self._held = _add(self._held, wanted)
            self._held_cost += cost
        return Reservation(wanted, cost)

    def settle(self, reservation: Reservation, usage: Usage | None) -> float:
        """Replace a reservation by what the call really took; returns its cost.

        Args:
            reservation: Of the call.
            usage: What it took.

        `usage` None means that it is unknown (time-out, no usage reported): the whole reservation is then spent.
        """
        actual = reservation.usage if usage is None else usage
        cost = reservation.cost if usage is None else self.config.prices.cost(usage)
        with self._lock:
            self._held = _add(self._held, reservation.usage, -1)
            self._held_cost = max(self._held_cost - reservation.cost, 0.0)
            self.spent = _add(self.spent, actual)
            self.cost += cost
        return cost

    def state_dict(self) -> dict[str, Any]:
        """What was spent, in plain values; take it between calls."""
        return {"calls": self.calls, "spent": asdict(self.spent), "cost": self.cost}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue counting from a `state_dict`; what this object itself spent so far (probes) stays counted."""
        with self._lock:
            self.calls += int(state["calls"])
            self.spent = _add(self.spent, Usage(**state["spent"]))
            self.cost += float(state["cost"])


def _add(a: Usage, b: Usage, sign: int = 1) -> Usage:
    return Usage(a.input + sign * b.input, a.cached + sign * b.cached, a.output + sign * b.output)


def _over(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit
