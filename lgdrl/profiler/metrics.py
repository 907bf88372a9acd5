"""From timed queries to figures. Every figure is defined here, once; the report prints these texts.

Latencies are kept in HDR histograms (microseconds, three digits), so that files can be merged and compared; intervals
are percentile bootstraps over the queries of all repeats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from hdrh.histogram import HdrHistogram

from experts.llm.timeline import PARTS
from experts.provider import Status
from lgdrl.profiler.load import LoadRun, TimedQuery, by_car
from lgdrl.statistics import bootstrap

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
LONGEST_S = 3600.0

MEANINGS = {
    "e2e": "end to end: from the scheduled moment of the query to the checked decision",
    "service": "end to end, but from the moment at which the query was sent",
    "ttft": "time to first token: from sending the request to the first text that is not empty",
    "ttfa": "time to first action: from sending the request until the text so far made the action certain",
    "tpot": "time per output token: (last text - first text) / (tokens - 1), tokens as the endpoint counts them",
    "itl": "inter-token latency: between consecutive pieces of a stream",
    "goodput": "decisions per second that were on time, the expert's own and legal, and not refused by the shield",
    "missed": "share of decisions that came after the deadline of one decision period, or not at all",
    "slack": "deadline minus latency; negative is too late",
    "staleness": "metres that the car drove while it waited: its speed times the latency",
    "closing_loss": "metres of the gap ahead that were used up while it waited: closing speed times the latency",
    "after_danger": "share of decisions that took longer than the time to collision of their scene",
    "affordable_hz": "highest decision frequency at which 95 % (99 %) of these decisions are on time: 1/p95 (1/p99)",
}


@dataclass(frozen=True)
class Distribution:
    """Latencies in seconds, or metres. Percentiles of which fewer than one value lies beyond are left out (None)."""

    n: int
    mean: float
    std: float
    min: float
    max: float
    percentiles: Mapping[str, float | None]
    intervals: Mapping[str, tuple[float, float]]
    """95 % bootstrap intervals of p50, p95 and p99."""
    histogram: str
    """HDR histogram of microseconds (micrometres), in its own compressed encoding."""

    @property
    def p50(self) -> float:
        return self.percentiles["p50"] or 0.0

    def at(self, name: str) -> float:
        """A percentile, the greatest value where there are too few for it."""
        found = self.percentiles.get(name)
        return self.max if found is None else found


def distribution(values: Sequence[float], seed: int = 0) -> Distribution | None:
    """What a report says about a sample.

    Args:
        values: Seconds, or metres.
        seed: Of the bootstrap.
    Returns:
        None for an empty sample.
    """
    if not len(values):
        return None
    sample = np.asarray(values, dtype=float)
    histogram = HdrHistogram(1, int(LONGEST_S * 1e6), 3)
    for value in sample:
        histogram.record_value(int(np.clip(round(value * 1e6), 0, LONGEST_S * 1e6)))
    percentiles = {
        _name(p): histogram.get_value_at_percentile(p) / 1e6 if len(sample) * (100 - p) >= 100 else None
        for p in PERCENTILES
    }
    percentiles["p50"] = histogram.get_value_at_percentile(50) / 1e6
    return Distribution(
        n=len(sample),
        mean=float(sample.mean()),
        std=float(sample.std(ddof=1)) if len(sample) > 1 else 0.0,
        min=float(sample.min()),
        max=float(sample.max()),
        percentiles=percentiles,
        intervals={
            _name(p): _interval(sample, p, seed) for p in (50.0, 95.0, 99.0) if percentiles[_name(p)] is not None
        },
        histogram=histogram.encode().decode(),
    )


def _name(percentile: float) -> str:
    return f"p{percentile:g}"


def _interval(sample: np.ndarray, percentile: float, seed: int) -> tuple[float, float]:
    return bootstrap(sample, lambda drawn, axis: np.percentile(drawn, percentile, axis=axis), seed=seed)


@dataclass(frozen=True)
class Deadline:
    """What the latencies mean to a car that decides every `deadline_s`. See `MEANINGS`."""

    deadline_s: float
    missed: float
    longest_run: int
    """Most deadlines that one car missed in a row."""
    runs: Mapping[str, int]
    """By length: how often that number of deadlines was missed in a row."""
    slack: Mapping[str, float]
    """Percentiles p1, p5, p50 and p95 of deadline minus latency, s."""
    staleness: Distribution | None
    closing_loss: Distribution | None
    after_danger: float
    goodput: float


@dataclass(frozen=True)
class ProfileCell:
    """One expert under one load, all repeats together."""

    load: str
    open: bool
    queries: int
    seconds: float
    """From the first query to the last response, all repeats together."""
    rate: float
    """Decisions per second."""
    latencies: Mapping[str, Distribution | None]
    """e2e, service, ttft, ttfa, tpot, itl"""
    cold: Distribution | None
    """End to end, of the warm-up."""
    parts: Mapping[str, float]
    """Mean seconds of each part of the latency (`experts.llm.timeline`), over the queries that had it."""
    statuses: Mapping[str, int]
    faults: Mapping[str, int]
    refused: int
    """Valid decisions that the shield refuses."""
    tokens: int
    cost: float
    guided_km: float
    """Driven by these decisions: each speed times the decision period."""
    cached: int
    most_waiting: int
    saturated: bool
    repeats: tuple[float, ...]
    """p95 end to end of each repeat, s: how much repeats differ."""
    deadline: Deadline
    affordable_hz: Mapping[str, float]
    curve: tuple[tuple[float, float], ...] = field(default=(), repr=False)
    """(quantile, e2e s) for a plot"""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def summarise(
    load: str, is_open: bool, runs: Sequence[LoadRun], warm_up: int, deadline_s: float, seed: int = 0
) -> ProfileCell:
    """The figures of one load.

    Args:
        load: Its name.
        is_open: Whether it is an open one.
        runs: Its repeats.
        warm_up: First queries of each repeat, reported apart as `cold`.
        deadline_s: Seconds of a decision period.
        seed: Of the bootstrap.
    """
    warm = [row for run in runs for row in run.rows[warm_up:]]
    cold = [row.latency for run in runs for row in run.rows[:warm_up]]
    seconds = sum(_length(run, warm_up) for run in runs)
    e2e = [row.latency for row in warm]
    latencies = {
        "e2e": distribution(e2e, seed),
        "service": distribution([row.done - row.sent for row in warm], seed),
        **{name: distribution(values, seed) for name, values in _streamed(warm).items()},
    }
    whole = latencies["e2e"]
    assert whole is not None
    return ProfileCell(
        load=load,
        open=is_open,
        queries=len(warm),
        seconds=seconds,
        rate=len(warm) / seconds,
        latencies=latencies,
        cold=distribution(cold, seed),
        parts=_parts(warm),
        statuses={status.value: sum(row.status == status for row in warm) for status in Status},
        faults=dict(Counter(fault for row in warm for fault in row.faults)),
        refused=sum(row.valid and not row.accepted for row in warm),
        tokens=sum(row.tokens for row in warm),
        cost=sum(row.cost for row in warm),
        guided_km=sum(row.query.speed for row in warm) * deadline_s / 1000,
        cached=sum(row.cached for row in warm),
        most_waiting=max(run.most_waiting for run in runs),
        saturated=any(run.saturated for run in runs),
        repeats=tuple(float(np.percentile([row.latency for row in run.rows[warm_up:]], 95)) for run in runs),
        deadline=_deadline(runs, warm, warm_up, deadline_s, seconds, seed),
        affordable_hz={"p95": 1 / max(whole.at("p95"), 1e-6), "p99": 1 / max(whole.at("p99"), 1e-6)},
        curve=tuple((float(q), float(np.quantile(e2e, q))) for q in _QUANTILES),
    )


_QUANTILES = (*np.linspace(0, 0.9, 46), *np.linspace(0.902, 0.998, 49), 0.999, 1.0)


def _length(run: LoadRun, warm_up: int) -> float:
    rows = run.rows[warm_up:]
    return max(max(row.done for row in rows) - min(row.intended for row in rows), 1e-9)


def _streamed(rows: Sequence[TimedQuery]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"ttft": [], "ttfa": [], "tpot": [], "itl": []}
    for row in rows:
        line = row.timeline
        if line is None or line.sent is None or line.first_token is None:
            continue
        found["ttft"].append(line.first_token - line.sent)
        if line.first_action is not None:
            found["ttfa"].append(line.first_action - line.sent)
        if line.output_tokens is not None and line.output_tokens > 1 and len(line.heard) > 1:
            found["tpot"].append((line.heard[-1][0] - line.first_token) / (line.output_tokens - 1))
        found["itl"] += line.gaps
    return found


def _parts(rows: Sequence[TimedQuery]) -> dict[str, float]:
    known = [row.timeline.parts() for row in rows if row.timeline is not None and row.timeline.end is not None]
    return {
        name: float(np.mean([parts[name] for parts in known if name in parts]))
        for name in PARTS
        if any(name in parts for parts in known)
    }


def missed(row: TimedQuery, deadline_s: float) -> bool:
    """Whether the decision of a query came too late, or not at all."""
    return row.latency > deadline_s or row.action is None


def _deadline(
    runs: Sequence[LoadRun], rows: Sequence[TimedQuery], warm_up: int, deadline_s: float, seconds: float, seed: int
) -> Deadline:
    lengths: Counter[int] = Counter()
    for run in runs:
        for car in by_car(run.rows[warm_up:]):
            for late, group in groupby(missed(row, deadline_s) for row in car):
                if late:
                    lengths[len(list(group))] += 1
    good = sum(row.accepted and row.latency <= deadline_s for row in rows)
    return Deadline(
        deadline_s=deadline_s,
        missed=float(np.mean([missed(row, deadline_s) for row in rows])),
        longest_run=max(lengths, default=0),
        runs={str(length): lengths[length] for length in sorted(lengths)},
        slack={f"p{p}": float(np.percentile([deadline_s - row.latency for row in rows], p)) for p in (1, 5, 50, 95)},
        staleness=distribution([row.query.speed * row.latency for row in rows], seed),
        closing_loss=distribution([row.query.closing * row.latency for row in rows], seed),
        after_danger=float(np.mean([row.latency > row.query.ttc for row in rows])),
        goodput=good / seconds,
    )
