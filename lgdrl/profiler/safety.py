"""Success against latency: episodes under injected, measured and stalled latencies, and the latency budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Annotated

import numpy as np

from lgdrl.profiler.lateness import Delay, Late, LatencyOutcome, Policy
from lgdrl.seeds import LATE_SEED
from sim.bounds import Bounds, Whole, config_dataclass
from sim.errors import UsageError

MEASURED = "measured"
"""Name of the latencies that were measured under load, drawn anew for each query."""
STALL_BEGINS_S = 10.0
"""A stall begins at a moment before this one, drawn anew for each episode."""


@config_dataclass
class LatencySafetyConfig:
    """Episodes under injected latency."""

    episodes: Whole = 20  # for each latency and policy; 0: leave out
    latencies: tuple[Annotated[float, Bounds(0, 100)], ...] = (
        0.0,
        0.25,
        0.5,
        1.0,
        2.0,
        4.0,
    )  # in deadlines; without 0 there is no budget
    policies: tuple[Policy, ...] = ("pause", "hold-last", "rule", "unchecked")
    measured: bool = True  # also with the latencies that were measured under the first load
    novice: str | None = None  # run folder whose policy decides where the policy is `novice`
    # of success rate, which ends the latency budget
    tolerated_loss: Annotated[float, Bounds(0, 1, open_low=True, open_high=True)] = 0.05

    def __post_init__(self) -> None:
        if 0 not in self.latencies:
            raise UsageError(f"safety.latencies = {list(self.latencies)}: expected 0 among them")
        if ("novice" in self.policies) != (self.novice is not None):
            raise UsageError(f"safety.novice = {self.novice!r}: policy `novice` and a run folder need each other")


def curve(
    late: Late,
    config: LatencySafetyConfig,
    deadline_s: float,
    measured: Sequence[float] | None,
    seed: int = 0,
    stall_s: float = 0.0,
    observer: Callable[[LatencyOutcome], None] = lambda outcome: None,
) -> list[LatencyOutcome]:
    """Every policy with every latency.

    The pausing environment is driven once, with the measured latencies where there are some.

    Args:
        late: Drives the expert.
        config: Episodes, latencies and policies.
        deadline_s: Seconds of a decision period.
        measured: Seconds to draw latencies from; None: only injected ones.
        seed: Selects the episodes.
        stall_s: Length of a stall in each episode, driven apart; 0: none.
        observer: Called with each outcome.
    """
    seeds = range(LATE_SEED + 1000 * seed, LATE_SEED + 1000 * seed + config.episodes)
    delays: list[tuple[str, Delay]] = [
        (f"{latency:g} D", partial(_constant, latency * deadline_s)) for latency in config.latencies
    ]
    if measured is not None and config.measured:
        delays.append((MEASURED, partial(_drawn, np.asarray(measured))))
    last = delays[-1]
    if stall_s:
        delays.append((f"stall {stall_s:g} s", partial(stalled, last[1], stall_s)))
    constant = {name for name, _ in delays[: len(config.latencies)]}
    found: list[LatencyOutcome] = []
    timely: dict[str, LatencyOutcome] = {}  # where no decision is late, all policies are the same
    for policy in config.policies:
        for name, delay in delays if policy != "pause" else [last]:
            if policy == "pause" or name not in timely:
                outcome = late.run(policy, name, delay, seeds, seed)
                found.append(replace(outcome, injected=name in constant))
            else:
                found.append(replace(timely[name], policy=policy))
            if policy != "pause" and not found[-1].late:
                timely[name] = found[-1]
            observer(found[-1])
    return found


def _constant(seconds: float, rng: np.random.Generator, episode: int, now: float) -> float:
    return seconds


def _drawn(sample: np.ndarray, rng: np.random.Generator, episode: int, now: float) -> float:
    return float(rng.choice(sample))


def stalled(usual: Delay, seconds: float, rng: np.random.Generator, episode: int, now: float) -> float:
    """Seconds until a decision whose expert stalls: what is due during the stall comes at its end.

    Args:
        usual: Latency without the stall.
        seconds: Length of the stall.
        rng: For the latency.
        episode: Seed of the episode, which sets when the stall begins.
        now: Seconds into the episode.
    """
    begin = float(np.random.default_rng(episode).uniform(0.0, STALL_BEGINS_S))
    due = now + usual(rng, episode, now)
    return (begin + seconds if begin <= due < begin + seconds else due) - now


def budget(outcomes: Sequence[LatencyOutcome], policy: str, tolerated_loss: float) -> float | None:
    """The latency budget of a scenario: the longest injected latency that costs no more than a tolerated loss.

    Args:
        outcomes: One of the injected latencies is 0.
        policy: Whose success rate counts.
        tolerated_loss: Of the success rate, below that without latency.
    Returns:
        Seconds, interpolated between injected latencies; None where the success rate never falls that far, 0 where
        it is below `tolerated_loss` from the start.
    """
    rows = [outcome for outcome in outcomes if outcome.policy == policy and outcome.injected]
    rows.sort(key=lambda outcome: outcome.latency_s)
    floor = rows[0].success.value - tolerated_loss
    if floor <= 0:
        return 0.0
    for before, after in pairwise(rows):
        if after.success.value < floor - 1e-9:
            share = (before.success.value - floor) / (before.success.value - after.success.value)
            return before.latency_s + share * (after.latency_s - before.latency_s)
    return None
