"""A stall: the expert stands still for some seconds while the questions go on. How many come too late, and how long it
takes until answers are on time again.

The fault server is frozen itself, so that time-outs, retries and the circuit breaker of the client have their say; any
other expert is held from outside: nothing goes to it and nothing comes back until the thaw. What the car does meanwhile
is `lateness.Stall`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from math import ceil
from typing import Any

import numpy as np

from experts.provider import Context, Decision, PolicyProvider
from lgdrl.profiler.load import Answered, LoadConfig, by_car, run_load
from lgdrl.profiler.metrics import missed
from lgdrl.profiler.scenes import Asked
from sim.errors import UsageError

AFTERMATH = 2.0
"""Questions go on for this many lengths of the stall after its end ..."""
LEAST_PERIODS = 6
"""... and for so many decision periods at least; so many lie before it, too."""


@dataclass(frozen=True)
class StallConfig:
    """One stall in the middle of a clock load, and in each of some episodes."""

    seconds: float = 0.0  # 0: leave out
    cars: int = 8  # that ask at each of their decisions

    def __post_init__(self) -> None:
        if not 0 <= self.seconds <= 600:
            raise UsageError(f"stall.seconds = {self.seconds}: expected 0 to 600")
        if self.cars < 1:
            raise UsageError(f"stall.cars = {self.cars}: expected 1 or more")


@dataclass(frozen=True)
class Recovery:
    """What a stall did to the answers."""

    seconds: float
    """Length of the stall."""
    cars: int
    before_s: float
    """Median latency of the questions that were answered before it."""
    worst_s: float
    missed: int
    """Decisions that came after the deadline, from the stall on."""
    questions: int
    """Asked from the stall on."""
    longest_run: int
    """Most deadlines that one car missed in a row."""
    blind_m: float
    """Metres that a car drove in that run: its speeds times the decision period, the mean of all cars."""
    recovered_s: float | None
    """Seconds from the thaw until every question was on time again; None: not while questions were asked."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Held(PolicyProvider):
    """An expert that can be held still: questions and answers wait for the thaw."""

    def __init__(self, expert: PolicyProvider) -> None:
        self.name, self._expert = expert.name, expert
        self.needs, self.concurrent = expert.needs, expert.concurrent
        self._thaw = 0.0

    def freeze(self, seconds: float) -> None:
        """From now on nothing goes in or out for so long. From any thread."""
        self._thaw = time.perf_counter() + seconds

    def decide(self, contexts: Sequence[Context]) -> Sequence[Decision]:
        self._wait()
        decisions = self._expert.decide(contexts)
        self._wait()
        return decisions

    def _wait(self) -> None:
        while (left := self._thaw - time.perf_counter()) > 0:
            time.sleep(left)


def questions_needed(config: StallConfig, period: float) -> int:
    """How many questions `recovery` takes."""
    before, after = _periods(config, period)
    return config.cars * (before + after)


def _periods(config: StallConfig, period: float) -> tuple[int, int]:
    """Decision periods before the stall, and from its beginning on."""
    stalled = ceil(config.seconds / period)
    return LEAST_PERIODS, stalled + max(LEAST_PERIODS, ceil(AFTERMATH * stalled))


def recovery(
    expert: PolicyProvider,
    freeze: Callable[[float], None] | None,
    questions: Sequence[Asked],
    config: StallConfig,
    period: float,
    observer: Callable[[Answered], None] = lambda row: None,
) -> Recovery:
    """Ask `questions` by the clock and stall in the middle. `freeze` stalls the endpoint of `expert` for so many
    seconds; None: the expert is held from outside."""
    if freeze is None:
        expert = held = Held(expert)
        freeze = held.freeze
    begin = _periods(config, period)[0] * period - 0.25 * period  # shortly before a decision
    frozen_at: list[float] = []

    def stall() -> None:
        frozen_at.append(time.perf_counter())
        freeze(config.seconds)

    timer = threading.Timer(begin, stall)
    timer.start()
    load = LoadConfig(kind="clock", cars=config.cars)
    run = run_load(expert, load, questions, period, np.random.default_rng(0), observer)
    timer.join()
    return read_recovery(run.rows, frozen_at[0] - run.began, config, period)


def read_recovery(rows: Sequence[Answered], frozen: float, config: StallConfig, period: float) -> Recovery:
    """Read off the rows. `frozen`: when the stall began, s since the load did."""
    before = [row.latency for row in rows if row.done <= frozen]
    after = [row for row in rows if row.done > frozen]
    late = [row for row in after if missed(row, period)]
    runs: list[list[Answered]] = []
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
        questions=len(after),
        longest_run=max((len(run) for run in runs), default=0),
        blind_m=float(np.mean([sum(row.asked.speed for row in run) * period for run in runs])),
        recovered_s=recovered,
    )
