"""Counts of a language-model expert: statuses, faults, rungs, tokens, money and latencies. Thread-safe."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experts.llm.budget import Usage
from experts.llm.decision import LLMDecision
from experts.provider import Status

MAX_LATENCIES = 10_000
"""Decisions of which latencies are kept, for percentiles."""


class Statistics:
    """What was decided since the start of the run."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        """By `status/...`, `fault/...`, `rung/...`, `cache/...`, `tokens/...`."""
        self._cost = 0.0
        self._latencies: list[float] = []
        self._lock = threading.Lock()

    def count_lookup(self, hit: bool) -> None:
        """Count a look-up in the cache.

        Args:
            hit: Whether there was a completion.
        """
        with self._lock:
            self.counters["cache/hits" if hit else "cache/misses"] += 1

    def count_usage(self, usage: Usage) -> None:
        """Count the tokens of a completion.

        Args:
            usage: As the endpoint reports them.
        """
        with self._lock:
            self.counters["tokens/input"] += usage.input
            self.counters["tokens/cached_input"] += usage.cached
            self.counters["tokens/output"] += usage.output

    def count_decisions(self, decisions: Sequence[LLMDecision]) -> None:
        """Count finished decisions.

        Args:
            decisions: Those of one call.
        """
        with self._lock:
            for decision in decisions:
                self.counters[f"status/{decision.status.value}"] += 1
                self.counters.update(f"fault/{fault}" for fault in decision.faults)
                if decision.rung is not None:
                    self.counters[f"rung/{decision.rung}"] += 1
                self._cost += decision.cost
                self.counters["tokens/total"] += decision.tokens
                self._latencies.append(decision.latency_s)
                del self._latencies[:-MAX_LATENCIES]

    def metrics(self) -> dict[str, float]:
        """Counts and money since the start of the run."""
        found: dict[str, float] = {f"status/{status.value}": 0.0 for status in Status}
        found |= {key: float(value) for key, value in sorted(self.counters.items())}
        return found | {"cost": self._cost}

    def latencies(self) -> dict[str, float]:
        """Percentiles in s of the last `MAX_LATENCIES` decisions; empty before the first one."""
        if not self._latencies:
            return {}
        p50, p95 = np.percentile(self._latencies, [50, 95])
        return {"latency/p50_s": float(p50), "latency/p95_s": float(p95)}

    def state_dict(self) -> dict[str, Any]:
        """Counts in plain values."""
        return {"counters": dict(self.counters), "cost": self._cost}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Args:
            state: What `state_dict` returned.
        """
        self.counters = Counter(state["counters"])
        self._cost = float(state["cost"])
