"""A stall: the expert freezes for some seconds while queries go on. How many decisions are late, and when are they on
time again?

The fault server itself is frozen, so that time-outs, retries and the circuit breaker of the client are measured too.
Any other expert is frozen from outside: queries and decisions are held back until the thaw. What that does to a car is
in `safety`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import ceil
from typing import Annotated, Any

import numpy as np

from experts.provider import Context, Decision, PolicyProvider
from lgdrl.profiler.load import LoadConfig, TimedQuery, by_car, run_load
from lgdrl.profiler.metrics import missed
from lgdrl.profiler.scenes import SceneQuery
from sim.bounds import Bounds, config_dataclass

AFTERMATH = 2.0
"""Queries go on after the stall for this multiple of its length ..."""
LEAST_PERIODS = 6
"""... and for at least this number of decision periods, which is also the number before the stall."""


@config_dataclass
class StallConfig:
    """One stall in the middle of a clock load, and in each of some episodes."""

    seconds: Annotated[float, Bounds(0, 600)] = 0.0  # 0: leave out
    cars: Annotated[int, Bounds(1, 100_000)] = 8  # each with a query at every decision


@dataclass(frozen=True)
class Recovery:
    """What a stall did to the decisions."""

    seconds: float
    """Length of the stall."""
    cars: int
    before_s: float
    """Median latency of the queries whose decisions came before it."""
    worst_s: float
    missed: int
    """Decisions that came after the deadline, from the stall on."""
    queries: int
    """SceneQuery from the stall on."""
    longest_run: int
    """Most deadlines that one car missed in a row."""
    blind_m: float
    """Metres that a car drove in that run: its speeds times the decision period, the mean of all cars."""
    recovered_s: float | None
    """Seconds from the thaw until every query was on time again; None: not before the last query."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class FreezableExpert(PolicyProvider):
    """An expert that can be frozen: queries and decisions wait for the thaw.

    Args:
        expert: That decides.
    """

    def __init__(self, expert: PolicyProvider) -> None:
        self.name, self._expert = expert.name, expert
        self.needs, self.concurrent = expert.needs, expert.concurrent
        self._thaw = 0.0

    def freeze(self, seconds: float) -> None:
        """Hold back queries and decisions from now on; may be called from any thread.

        Args:
            seconds: How long.
        """
        self._thaw = time.perf_counter() + seconds

    def decide(self, contexts: Sequence[Context]) -> Sequence[Decision]:
        self._wait()
        decisions = self._expert.decide(contexts)
        self._wait()
        return decisions

    def _wait(self) -> None:
        while (left := self._thaw - time.perf_counter()) > 0:
            time.sleep(left)


def queries_needed(config: StallConfig, period: float) -> int:
    """Number of queries that `recovery` takes, at a decision `period` in seconds."""
    before, after = _periods(config, period)
    return config.cars * (before + after)


def _periods(config: StallConfig, period: float) -> tuple[int, int]:
    """Decision periods before the stall, and from its beginning on."""
    stalled = ceil(config.seconds / period)
    return LEAST_PERIODS, stalled + max(LEAST_PERIODS, ceil(AFTERMATH * stalled))


def recovery(
    expert: PolicyProvider,
    freeze: Callable[[float], None] | None,
    queries: Sequence[SceneQuery],
    config: StallConfig,
    period: float,
    observer: Callable[[TimedQuery], None] = lambda row: None,
) -> Recovery:
    """Send queries by the clock and stall in the middle.

    Args:
        expert: That is queried.
        freeze: Stalls its endpoint for a number of seconds; None: the expert is frozen from outside.
        queries: As many as `queries_needed`.
        config: Length of the stall, and number of cars.
        period: Seconds between two decisions of a car.
        observer: Called with each response, from the threads that send.
    """
    if freeze is None:
        expert = freezable = FreezableExpert(expert)
        freeze = freezable.freeze
    begin = _periods(config, period)[0] * period - 0.25 * period  # shortly before a decision
    frozen_at: list[float] = []

    def stall() -> None:
        frozen_at.append(time.perf_counter())
        freeze(config.seconds)

    timer = threading.Timer(begin, stall)
    timer.start()
    load = LoadConfig(kind="clock", cars=config.cars)
    run = run_load(expert, load, queries, period, np.random.default_rng(0), observer)
    timer.join()
    return read_recovery(run.rows, frozen_at[0] - run.began, config, period)


def read_recovery(rows: Sequence[TimedQuery], frozen: float, config: StallConfig, period: float) -> Recovery:
    """A recovery from timed queries.

    Args:
        rows: In the order of the schedule.
        frozen: When the stall began, seconds since the load did.
        config: Length of the stall, and number of cars.
        period: Seconds between two decisions of a car.
    """
    before = [row.latency for row in rows if row.done <= frozen]
    after = [row for row in rows if row.done > frozen]
    late = [row for row in after if missed(row, period)]
    runs: list[list[TimedQuery]] = []
    for car in by_car(after):
        groups = [list(group) for is_late, group in groupby(car, lambda row: missed(row, period)) if is_late]
        runs.append(max(groups, key=len, default=[]))
    thaw = frozen + config.seconds
    recovered: float | None = max([0.0, *(row.done - thaw for row in late)])
    if any(row.intended == rows[-1].intended for row in late):
        recovered = None
    return Recovery(
        seconds=config.seconds,
        cars=config.cars,
        before_s=float(np.median(before)) if before else float("nan"),
        worst_s=max((row.latency for row in after), default=0.0),
        missed=len(late),
        queries=len(after),
        longest_run=max((len(run) for run in runs), default=0),
        blind_m=float(np.mean([sum(row.query.speed for row in run) * period for run in runs])),
        recovered_s=recovered,
    )
