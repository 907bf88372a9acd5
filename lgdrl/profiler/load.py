"""Questions to an expert on a schedule, each timed from the moment at which it was meant to be asked.

A *closed* load asks again when it has its answer, so a stalled expert is asked less: its latencies hide the stall
(coordinated omission). The open ones ask when it is time, whatever is still unanswered, and count from then: `clock`
from the simulator's clock (every car at each of its decisions, all at once), `constant`, `poisson`, and `trace` (read
from a file).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from experts.llm.decision import LLMDecision
from experts.llm.timeline import RequestTimeline
from experts.provider import PolicyProvider, Status
from lgdrl.profiler.scenes import Asked
from sim.errors import UsageError

IN_FLIGHT = 512
"""Questions of an open load that wait for an answer at most; beyond, they queue here, and that counts as latency."""
FINAL_SPIN_S = 0.0005
"""The last bit of a wait is not slept: sleeping is late by that much."""
GROWTH = 0.05
"""Seconds of latency gained per second of an open load above which the expert does not keep up: it is saturated."""

Kind = Literal["closed", "clock", "constant", "poisson", "trace"]


@dataclass(frozen=True)
class LoadConfig:
    """How an expert is asked."""

    kind: Kind = "closed"
    cars: int = 1  # closed: always waiting for an answer; clock: asking at each decision
    rate: float | None = None  # questions/s; constant and poisson
    trace: str | None = None  # file of one ascending number per line: seconds at which a question is asked

    def __post_init__(self) -> None:
        if self.cars < 1:
            raise UsageError(f"cars = {self.cars}: expected 1 or more")
        if (self.rate is None) == (self.kind in ("constant", "poisson")):
            raise UsageError(f"load {self.kind!r}, rate = {self.rate}: constant and poisson need one, others have none")
        if self.rate is not None and not 0 < self.rate <= 100_000:
            raise UsageError(f"rate = {self.rate}: expected questions per second above 0")
        if (self.trace is None) == (self.kind == "trace"):
            raise UsageError(f"load {self.kind!r}, trace = {self.trace!r}: kind trace needs a file, others have none")

    @property
    def open(self) -> bool:
        return self.kind != "closed"

    @property
    def name(self) -> str:
        """As tables call it."""
        if self.kind in ("closed", "clock"):
            return f"{self.kind} x{self.cars}"
        return f"{self.kind} {self.rate:g}/s" if self.rate else f"trace {Path(self.trace or '').name}"


@dataclass(slots=True)
class Answered:
    """One question and what became of it. Moments in seconds since the load began."""

    asked: Asked
    car: int
    intended: float
    """When it was to be asked; closed: when it was."""
    sent: float
    done: float
    status: Status
    action: int | None
    tokens: int
    cost: float
    cached: bool
    faults: tuple[str, ...]
    timeline: RequestTimeline | None

    @property
    def latency(self) -> float:
        """From the intended moment, s."""
        return self.done - self.intended

    @property
    def valid(self) -> bool:
        """The expert itself decided, not its fallback."""
        return self.status in (Status.OK, Status.REPAIRED) and self.action is not None

    @property
    def accepted(self) -> bool:
        """Valid, and the safety gate of trainings does not refuse it: the same gate for every expert."""
        return self.valid and self.action is not None and not self.asked.refuses(self.action)


@dataclass(frozen=True, slots=True)
class Answers:
    """All questions of one repeat."""

    rows: list[Answered]
    seconds: float
    """From the first question to the last answer."""
    offered_s: float
    """Until when an open load had asked all its questions; 0 for closed ones."""
    most_waiting: int
    began: float = 0.0
    """`time.perf_counter()` value from which the moments of the rows count."""

    @property
    def saturated(self) -> bool:
        """An open load that was asked faster than it answered: its latencies grow with the length of the run."""
        quarter = len(self.rows) // 4
        if not self.offered_s or not quarter:
            return False
        first, last = (np.median([row.latency for row in part]) for part in (self.rows[:quarter], self.rows[-quarter:]))
        return bool(last - first > GROWTH * self.offered_s)


def arrivals(load: LoadConfig, count: int, period: float, rng: np.random.Generator) -> list[tuple[float, int]]:
    """(seconds, car) of `count` questions of an open load, ascending. `period`: s between a car's decisions."""
    if load.kind == "clock":
        return [(k // load.cars * period, k % load.cars) for k in range(count)]
    if load.kind == "trace":
        moments = read_trace(Path(load.trace or ""))
        repeats = -(-count // len(moments))
        length = moments[-1] + (moments[-1] / max(len(moments) - 1, 1) or 1.0)
        return [(turn * length + moment, 0) for turn in range(repeats) for moment in moments][:count]
    assert load.rate is not None
    gaps = np.full(count, 1 / load.rate) if load.kind == "constant" else rng.exponential(1 / load.rate, count)
    return [(float(moment), 0) for moment in np.cumsum(gaps) - gaps[0]]


def read_trace(path: Path) -> list[float]:
    """Ascending seconds, one per line. UsageError with the line that is none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"trace {str(path)!r} cannot be read: {error}") from None
    moments: list[float] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            moment = float(line)
        except ValueError:
            moment = float("nan")
        if not (moments[-1] if moments else 0.0) <= moment < float("inf"):
            raise UsageError(f"trace {str(path)!r}, line {number}: {line.strip()!r} is no ascending number of seconds")
        moments.append(moment)
    if not moments:
        raise UsageError(f"trace {str(path)!r} is empty: write one number of seconds per line")
    return moments


def run_load(
    expert: PolicyProvider,
    load: LoadConfig,
    questions: Sequence[Asked],
    period: float,
    rng: np.random.Generator,
    observer: Callable[[Answered], None] = lambda row: None,
) -> Answers:
    """Ask all questions and wait for all answers. `observer` hears of each answer, in the asking threads."""
    if load.open:
        return _open(expert, arrivals(load, len(questions), period, rng), questions, observer)
    return _closed(expert, load.cars, questions, observer)


def _closed(
    expert: PolicyProvider, cars: int, questions: Sequence[Asked], observer: Callable[[Answered], None]
) -> Answers:
    rows: list[Answered] = []
    left = iter(enumerate(questions))
    lock = threading.Lock()
    begin = time.perf_counter()

    def drive(car: int) -> None:
        while True:
            with lock:
                _, asked = next(left, (0, None))
            if asked is None:
                return
            row = _ask(expert, asked, car, begin, None)
            rows.append(row)
            observer(row)

    if cars == 1:
        drive(0)  # in this thread: nothing else is measured with it
    else:
        with ThreadPoolExecutor(cars) as pool:
            for future in [pool.submit(drive, car) for car in range(cars)]:
                future.result()
    return Answers(rows, time.perf_counter() - begin, 0.0, min(cars, len(questions)), begin)


def _open(
    expert: PolicyProvider,
    schedule: Sequence[tuple[float, int]],
    questions: Sequence[Asked],
    observer: Callable[[Answered], None],
) -> Answers:
    rows: list[Answered] = []
    waiting = _Gauge()
    with ThreadPoolExecutor(min(IN_FLIGHT, len(questions))) as pool:
        for _ in pool.map(time.sleep, [0.001] * min(IN_FLIGHT, len(questions))):
            pass  # the threads exist before they are needed
        begin = time.perf_counter() + 0.005

        def answer(asked: Asked, car: int, intended: float) -> None:
            row = _ask(expert, asked, car, begin, intended)
            waiting.add(-1)
            rows.append(row)
            observer(row)

        futures = []
        for (moment, car), asked in zip(schedule, questions, strict=True):
            _wait_until(begin + moment)
            waiting.add(+1)
            futures.append(pool.submit(answer, asked, car, moment))
        offered = time.perf_counter() - begin
        for future in futures:
            future.result()
    rows.sort(key=lambda row: (row.intended, row.car))
    return Answers(rows, time.perf_counter() - begin, max(offered, 1e-9), waiting.most, begin)


class _Gauge:
    """How many are under way, and the most there were."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def add(self, change: int) -> None:
        with self._lock:
            self.now += change
            self.most = max(self.most, self.now)


def _wait_until(moment: float) -> None:
    left = moment - time.perf_counter()
    if left > FINAL_SPIN_S:
        time.sleep(left - FINAL_SPIN_S)
    while time.perf_counter() < moment:
        pass


def _ask(expert: PolicyProvider, asked: Asked, car: int, begin: float, intended: float | None) -> Answered:
    sent = time.perf_counter() - begin
    decision = expert.decide([asked.context])[0]
    done = time.perf_counter() - begin
    history = decision if isinstance(decision, LLMDecision) else LLMDecision(action=None)
    action = decision.action
    return Answered(
        asked=asked,
        car=car,
        intended=sent if intended is None else intended,
        sent=sent,
        done=done,
        status=decision.status,
        action=int(action) if isinstance(action, int | np.integer) else None,
        tokens=decision.tokens,
        cost=decision.cost,
        cached=history.cached,
        faults=tuple(str(fault) for fault in history.faults),
        timeline=history.timeline,
    )


def by_car(rows: Sequence[Answered]) -> Iterator[list[Answered]]:
    """The questions of each car, in order."""
    cars: dict[int, list[Answered]] = {}
    for row in rows:
        cars.setdefault(row.car, []).append(row)
    yield from cars.values()
