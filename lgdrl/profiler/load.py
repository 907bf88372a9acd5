"""Queries to an expert on a schedule, each timed from the moment for which it was scheduled.

A *closed* load sends a query when the last one has its response, so a stalled expert gets fewer: its latencies hide the
stall (coordinated omission). The open ones send on time, whatever is still open, and count from then: `clock`
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
from typing import Annotated, Literal

import numpy as np

from experts.llm.decision import LLMDecision
from experts.llm.timeline import RequestTimeline
from experts.provider import PolicyProvider, Status
from lgdrl.profiler.scenes import SceneQuery
from sim.bounds import Bounds, config_dataclass
from sim.errors import UsageError

IN_FLIGHT = 512
"""Queries of an open load that may be open at once; further ones wait here, and that counts as latency."""
FINAL_SPIN_S = 0.0005
"""The end of a wait is spent in a loop, because sleeping is late by about this."""
GROWTH = 0.05
"""Seconds of latency gained per second of an open load above which the expert does not keep up: it is saturated."""

Kind = Literal["closed", "clock", "constant", "poisson", "trace"]


@config_dataclass
class LoadConfig:
    """When queries are sent."""

    kind: Kind = "closed"
    # closed: each with one open query; clock: each with a query at every decision
    cars: Annotated[int, Bounds(1, 100_000)] = 1
    rate: Annotated[float, Bounds(0, 100_000, open_low=True)] | None = None  # queries/s; constant and poisson
    trace: str | None = None  # file of one ascending number per line: seconds at which a query is sent

    def __post_init__(self) -> None:
        if (self.rate is None) == (self.kind in ("constant", "poisson")):
            raise UsageError(f"load {self.kind!r}, rate = {self.rate}: constant and poisson need one, others have none")
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
class TimedQuery:
    """One query and what became of it. Moments in seconds since the load began."""

    query: SceneQuery
    car: int
    intended: float
    """When it was scheduled; closed: when it was sent."""
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
        return self.valid and self.action is not None and not self.query.refuses(self.action)


@dataclass(frozen=True, slots=True)
class LoadRun:
    """All queries of one repeat."""

    rows: list[TimedQuery]
    seconds: float
    """From the first query to the last response."""
    offered_s: float
    """When an open load had sent all its queries; 0 for closed ones."""
    most_waiting: int
    began: float = 0.0
    """`time.perf_counter()` value from which the moments of the rows count."""

    @property
    def saturated(self) -> bool:
        """An open load whose queries come faster than responses: its latencies grow with the length of the run."""
        quarter = len(self.rows) // 4
        if not self.offered_s or not quarter:
            return False
        first, last = (np.median([row.latency for row in part]) for part in (self.rows[:quarter], self.rows[-quarter:]))
        return bool(last - first > GROWTH * self.offered_s)


def arrivals(load: LoadConfig, count: int, period: float, rng: np.random.Generator) -> list[tuple[float, int]]:
    """The schedule of an open load.

    Args:
        load: Not a closed one.
        count: Queries.
        period: Seconds between two decisions of a car.
        rng: For random arrivals.
    Returns:
        (seconds, car) of each query, ascending.
    """
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
    """Ascending seconds, one per line.

    Raises:
        UsageError: Names the line that is not.
    """
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
            raise UsageError(
                f"trace {str(path)!r}, line {number}: {line.strip()!r} is not an ascending number of seconds"
            )
        moments.append(moment)
    if not moments:
        raise UsageError(f"trace {str(path)!r} is empty: write one number of seconds per line")
    return moments


def run_load(
    expert: PolicyProvider,
    load: LoadConfig,
    queries: Sequence[SceneQuery],
    period: float,
    rng: np.random.Generator,
    observer: Callable[[TimedQuery], None] = lambda row: None,
) -> LoadRun:
    """Send all queries and wait for all responses.

    Args:
        expert: That is queried, one scene at a time.
        load: When queries are sent.
        queries: In this order.
        period: Seconds between two decisions of a car.
        rng: For random arrivals.
        observer: Called with each response, from the threads that send.
    """
    if load.open:
        return _open(expert, arrivals(load, len(queries), period, rng), queries, observer)
    return _closed(expert, load.cars, queries, observer)


def _closed(
    expert: PolicyProvider, cars: int, queries: Sequence[SceneQuery], observer: Callable[[TimedQuery], None]
) -> LoadRun:
    rows: list[TimedQuery] = []
    left = iter(enumerate(queries))
    lock = threading.Lock()
    begin = time.perf_counter()

    def drive(car: int) -> None:
        while True:
            with lock:
                _, query = next(left, (0, None))
            if query is None:
                return
            row = _send(expert, query, car, begin, None)
            rows.append(row)
            observer(row)

    if cars == 1:
        drive(0)  # in this thread: nothing else is measured with it
    else:
        with ThreadPoolExecutor(cars) as pool:
            for future in [pool.submit(drive, car) for car in range(cars)]:
                future.result()
    return LoadRun(rows, time.perf_counter() - begin, 0.0, min(cars, len(queries)), begin)


def _open(
    expert: PolicyProvider,
    schedule: Sequence[tuple[float, int]],
    queries: Sequence[SceneQuery],
    observer: Callable[[TimedQuery], None],
) -> LoadRun:
    rows: list[TimedQuery] = []
    waiting = _Gauge()
    with ThreadPoolExecutor(min(IN_FLIGHT, len(queries))) as pool:
        for _ in pool.map(time.sleep, [0.001] * min(IN_FLIGHT, len(queries))):
            pass  # the threads exist before they are needed
        begin = time.perf_counter() + 0.005

        def send(query: SceneQuery, car: int, intended: float) -> None:
            row = _send(expert, query, car, begin, intended)
            waiting.add(-1)
            rows.append(row)
            observer(row)

        futures = []
        for (moment, car), query in zip(schedule, queries, strict=True):
            _wait_until(begin + moment)
            waiting.add(+1)
            futures.append(pool.submit(send, query, car, moment))
        offered = time.perf_counter() - begin
        for future in futures:
            future.result()
    rows.sort(key=lambda row: (row.intended, row.car))
    return LoadRun(rows, time.perf_counter() - begin, max(offered, 1e-9), waiting.most, begin)


class _Gauge:
    """Counts open queries, and the most there were."""

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


def _send(expert: PolicyProvider, query: SceneQuery, car: int, begin: float, intended: float | None) -> TimedQuery:
    sent = time.perf_counter() - begin
    decision = expert.decide([query.context])[0]
    done = time.perf_counter() - begin
    history = decision if isinstance(decision, LLMDecision) else LLMDecision(action=None)
    action = decision.action
    return TimedQuery(
        query=query,
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


def by_car(rows: Sequence[TimedQuery]) -> Iterator[list[TimedQuery]]:
    """The queries of each car, in order."""
    cars: dict[int, list[TimedQuery]] = {}
    for row in rows:
        cars.setdefault(row.car, []).append(row)
    yield from cars.values()
