"""A chain of states on which GRPO fails in both of the ways that BREAD is meant to repair, small enough to be exact.

States 0 to L; in each, one of `moves` moves leads on and every other one fails. Reward 1 in state L. The student is a
table of logits and moves one state at a time; the expert jumps `stride` states at a time. So (i) for stride > 1 the
student cannot express the expert's steps: their likelihood is 0 whatever the table, and imitation changes nothing;
(ii) an untrained student succeeds once in moves^L tries. The chain is this project's own (the paper's was not
available), and so is every figure. The student has no tokens, so this is no run of `lgdrl train`; the chain as a task
for language models is `baselines.language.chain`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from baselines.bread import anchors
from baselines.bread.anchors import Range
from baselines.language.grpo import group_advantages
from lgdrl.display import comparison_progress, make_console
from lgdrl.runs import write_json
from lgdrl.statistics import MeanInterval, MedianInterval, median_interval, t_interval
from sim.config import resolve
from sim.errors import UsageError, unknown
from sim.files import check_outputs

ARMS = ("grpo", "sft-grpo", "bread")
LEVELS = (4, 6, 8, 12, 16, 24, 32)


@dataclass(frozen=True)
class ToyConfig:
    moves: int = 3  # in every state; one of them is right
    stride: int = 2  # states per step of the expert
    group: int = 8  # tries per update
    learning_rate: float = 2.0  # plain gradient ascent
    low: float = 0.125  # BREAD's range of group success
    high: float = 0.9
    solved: float = 0.9  # success, computed exactly, at which training ends
    cap: int = 4000  # most updates
    sft_steps: int = 200  # of imitation, where there is any

    def __post_init__(self) -> None:
        if self.moves < 2 or self.stride < 1 or self.group < 2 or self.cap < 1:
            raise ValueError("choose moves >= 2, stride >= 1, group >= 2 and cap >= 1")


@dataclass(slots=True)
class ToyTraining:
    """One training."""

    arm: str
    level: int
    seed: int
    updates: int
    samples: int
    """Tries, those of searches included."""
    solved: bool
    success: float
    """Exact, at the end."""
    starts: list[int] = field(default_factory=list)
    """State that each update's group started from."""


class Chain:
    """The environment and the student's table in it."""

    def __init__(self, level: int, moves: int, stream: np.random.Generator) -> None:
        self.level = level
        self.right = stream.integers(0, moves, level)
        self.logits = np.zeros((level, moves))

    def policy(self) -> np.ndarray:
        """(L, moves) probabilities."""
        shifted = np.exp(self.logits - self.logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def success(self, start: int = 0) -> float:
        """Exact probability of getting from `start` to the goal."""
        return float(np.prod(self.policy()[np.arange(start, self.level), self.right[start:]]))

    def tries(self, start: int, count: int, stream: np.random.Generator) -> np.ndarray:
        """int (L, count) moves made in each state, -1 where a try did not get to (or started behind) it."""
        made = np.full((self.level, count), -1)
        alive = np.ones(count, bool)
        cumulated = self.policy().cumsum(axis=1)
        for state in range(start, self.level):
            moves = (stream.random(count)[:, None] >= cumulated[state, :-1]).sum(axis=1)
            made[state, alive] = moves[alive]
            alive &= moves == self.right[state]
            if not alive.any():
                break
        return made

    def rewards(self, made: np.ndarray) -> np.ndarray:
        """(count,) 1 for tries that reached the goal."""
        return (made[-1] == self.right[-1]).astype(float)

    def gradient(self, made: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(L, moves) of the mean over tries of weight x log-probability of the moves that were made."""
        onehot = made[:, :, None] == np.arange(self.logits.shape[1])
        visited = (made >= 0)[:, :, None]
        return ((onehot - self.policy()[:, None] * visited) * weights[:, None]).mean(axis=1)

    def imitate(self, stride: int, steps: int, learning_rate: float) -> None:
        """Gradient ascent on the log-likelihood of the expert's steps, those of probability 0 left out: a step of more
        than one state has no move of the student's behind it, hence no gradient."""
        states = np.arange(0, self.level, stride)
        expressible = states[np.minimum(states + stride, self.level) == states + 1]
        made = np.full((self.level, 1), -1)
        made[expressible, 0] = self.right[expressible]
        for _ in range(steps):
            self.logits += learning_rate * self.gradient(made, np.ones(1))


def train(arm: str, level: int, seed: int, config: ToyConfig | None = None) -> ToyTraining:
    """One training; the same for the same arguments.

    Args:
        arm: One of `ARMS`.
        level: L, the length of the chain.
        seed: Of the training.
        config: The settings.
    """
    config = config or ToyConfig()
    env, words = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, level)).spawn(2))
    chain = Chain(level, config.moves, env)
    if arm == "sft-grpo":
        chain.imitate(config.stride, config.sft_steps, config.learning_rate)
    end = ToyTraining(arm, level, seed, 0, 0, False, chain.success())
    while end.updates < config.cap and end.success <= config.solved:
        start, made = _group(arm, chain, config, words, end)
        end.updates += 1
        if made is not None:
            end.starts.append(start)
            (advantages,) = group_advantages([chain.rewards(made)])
            if advantages.any():
                chain.logits += config.learning_rate * chain.gradient(made, advantages)
                end.success = chain.success()
    end.solved = end.success > config.solved
    return end


def _group(
    arm: str, chain: Chain, config: ToyConfig, words: np.random.Generator, end: ToyTraining
) -> tuple[int, np.ndarray | None]:
    """Where the group of one update starts, and its tries; None where no start had any success."""

    def tries(start: int) -> np.ndarray:
        end.samples += config.group
        return chain.tries(start, config.group, words)

    made = tries(0)
    if arm != "bread" or chain.rewards(made).mean() >= config.low:
        return 0, made
    tried: dict[int, np.ndarray] = {}

    def probe(pairs: list[tuple[int, int]]) -> list[float]:
        ((_, anchor),) = pairs
        tried[anchor] = tries(anchor * config.stride)
        return [float(chain.rewards(tried[anchor]).mean())]

    episodes = math.ceil(chain.level / config.stride)
    (found,) = anchors.run([anchors.binary(episodes, Range(config.low, config.high))], probe)
    return (0, None) if found.anchor is None else (found.anchor * config.stride, tried[found.anchor])


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ToyCell:
    """One arm at one level, over seeds."""

    arm: str
    level: int
    chance: float
    """Success of the untrained student."""
    seeds: int
    solved: int
    updates: MedianInterval
    samples: MedianInterval
    success: float
    """Mean at the end."""


@dataclass(frozen=True)
class ToyResult:
    outcomes: list[ToyTraining]
    cells: list[ToyCell]
    slopes: dict[str, MeanInterval]
    """By name: mean over seeds and 95 % t-interval of a growth rate (see `slopes_of`)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain figures."""
        return {"cells": [asdict(cell) for cell in self.cells], "slopes": self.slopes}


def run(
    levels: Sequence[int] = LEVELS,
    seeds: int = 20,
    arms: Sequence[str] = ARMS,
    config: ToyConfig | None = None,
    observer: Callable[[ToyTraining], None] | None = None,
    first_seed: int = 0,
) -> ToyResult:
    """Every arm on every level. With 20 seeds and all levels this takes a few minutes of one core.

    Args:
        levels: Lengths of the chain.
        seeds: How many seeds.
        arms: Names among `ARMS`.
        config: The settings.
        observer: Called with every training when it ends.
        first_seed: The first of the seeds.
    Raises:
        UsageError: The arguments make no sense.
    """
    if seeds < 6:
        raise UsageError(f"seeds = {seeds}: choose at least 6, a 95 % interval of a median needs them")
    if min(levels, default=0) < 2:
        raise UsageError(f"levels = {list(levels)}: choose lengths of at least 2")
    for arm in arms:
        if arm not in ARMS:
            raise unknown("arm", arm, ARMS)
    config = config or ToyConfig()
    outcomes = []
    for outcome in _outcomes(levels, range(first_seed, first_seed + seeds), arms, config):
        outcomes.append(outcome)
        if observer:
            observer(outcome)
    cells = [
        _cell([o for o in outcomes if o.arm == arm and o.level == level], config) for arm in arms for level in levels
    ]
    return ToyResult(outcomes, cells, slopes_of(outcomes))


def _outcomes(levels: Sequence[int], seeds: range, arms: Sequence[str], config: ToyConfig) -> Iterator[ToyTraining]:
    return (train(arm, level, seed, config) for level in levels for arm in arms for seed in seeds)


def _cell(outcomes: Sequence[ToyTraining], config: ToyConfig) -> ToyCell:
    first = outcomes[0]
    return ToyCell(
        first.arm,
        first.level,
        config.moves**-first.level,
        len(outcomes),
        sum(o.solved for o in outcomes),
        median_interval([o.updates for o in outcomes]),
        median_interval([o.samples for o in outcomes]),
        float(np.mean([o.success for o in outcomes])),
    )


def slopes_of(outcomes: Sequence[ToyTraining]) -> dict[str, MeanInterval]:
    """How samples grow with L, over the levels that an arm always solved: `ARM ln samples / ln L` is the exponent of a
    power law, `ARM ln samples / L` the rate of an exponential. One least-squares line per seed, then the interval."""
    found = {}
    for arm in ARMS:
        mine = [o for o in outcomes if o.arm == arm]
        levels = sorted({o.level for o in mine if all(x.solved for x in mine if x.level == o.level)})
        if len(levels) < 2:
            continue
        per_seed: dict[int, list[float]] = {}
        for o in sorted(mine, key=lambda o: o.level):
            if o.level in levels:
                per_seed.setdefault(o.seed, []).append(math.log(o.samples))
        for name, x in ((f"{arm} ln samples / ln L", np.log(levels)), (f"{arm} ln samples / L", np.array(levels))):
            found[name] = t_interval([float(np.polyfit(x, y, 1)[0]) for y in per_seed.values()])
    return found


def table(result: ToyResult, config: ToyConfig | None = None) -> str:
    """The cells as a Markdown table, then the growth rates."""
    cap = (config or ToyConfig()).cap
    lines = [
        "| Arm | L | Chance | Solved | Updates: median [95 %] | Samples: median [95 %] | Final success |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in result.cells:
        updates, samples = (
            f"{'≥ ' if cell.updates.median >= cap else ''}{x.median:,.0f} [{x.low:,.0f}, {x.high:,.0f}]"
            for x in (cell.updates, cell.samples)
        )
        lines.append(
            f"| {cell.arm} | {cell.level} | {cell.chance:.1e} | {cell.solved}/{cell.seeds} | {updates} | {samples} "
            f"| {cell.success:.3f} |"
        )
    for name, (centre, low, high) in result.slopes.items():
        lines.append(f"\n{name}: {centre:.2f} [{low:.2f}, {high:.2f}]")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    """`lgdrl bench bread-toy`: run, print the table, write plain figures where asked to."""
    parser = argparse.ArgumentParser(prog="lgdrl bench bread-toy", description="BREAD-style on a chain of states.")
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="lengths of the chain")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--seeds", type=int, default=20, help="trainings per length and arm (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--stride", type=int, default=ToyConfig.stride, help="states per step of the expert")
    parser.add_argument("--cap", type=int, default=ToyConfig.cap, help="most updates of one training")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    given = parser.parse_args(words)
    check_outputs(vars(given))
    if not all(level.isdigit() for level in given.levels.split(",")):
        raise UsageError(f"--levels {given.levels!r}: give whole numbers, e.g. 4,8,16")
    levels = [int(level) for level in given.levels.split(",")]
    config = resolve(ToyConfig(), {"stride": given.stride, "cap": given.cap}, "chain")
    done: dict[str, int] = {}
    with comparison_progress(make_console(stderr=True)) as report:

        def observe(outcome: ToyTraining) -> None:
            name = f"{outcome.arm}, L = {outcome.level}"
            done[name] = done.get(name, 0) + 1
            report(name, done[name], given.seeds, "")

        result = run(levels, given.seeds, given.arms.split(","), config, observe, given.seed)
    print(table(result, config))
    if given.json:
        write_json(given.json, result.to_dict())


if __name__ == "__main__":
    main()
