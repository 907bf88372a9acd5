"""Situations to reason about: exact states of engine environments, what a prompt shows of them, and how plans end.

A situation is met while a rule drives, now and then replaced by a random legal action, in one of several scenarios.
How good a plan of m meta-actions is, is not estimated but rolled out: the plan, then `TAIL` decisions of IDLE, in a
copy of the exact state. All 5^m plans of a situation are rolled out once (`Outcomes`); a reward is then a look-up.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import sim
from experts.language.driving_language import Facts, Picture, own_fact
from experts.rules import kernel
from experts.rules.config import RuleConfig
from sim.actions import NUM_ACTIONS, MetaAction
from sim.config import fingerprint, resolve
from sim.engine.batch import EnvBatch
from sim.engine.factory import make_batch
from sim.errors import UsageError, unknown

TAIL = 4
"""Decisions of IDLE that follow a plan: what it leads into counts too."""
TOLERANCE = 0.1
"""A plan is good if its return is this near to the best one's, as a share of the spread of all that end well."""
NUM_ENVS = 32
"""Environments that are driven side by side."""
LONGEST = 4
"""Meta-actions of the longest plan: 625 plans."""
RULE = RuleConfig()
PARAMETERS = RULE.record()


@dataclass(frozen=True)
class SituationSource:
    """Where situations come from."""

    scenario: str
    config: dict[str, Any] = field(default_factory=dict)
    """Overrides of the scenario's config, e.g. its density."""

    @property
    def name(self) -> str:
        """Names scenario and config."""
        return f"{self.scenario}-{fingerprint(self.config)}"

    def envs(self, count: int) -> EnvBatch:
        """A batch of its environments.

        Args:
            count: How many.
        Raises:
            UsageError: The engine does not have the scenario, or it does not have the five meta-actions.
        """
        known = sim.registry()
        if self.scenario not in known:
            raise unknown("scenario", self.scenario, known)
        entry = known[self.scenario]
        if "engine" not in entry.backends:
            raise UsageError(f"scenario {self.scenario!r} does not run on the engine: plans cannot be rolled out there")
        made = make_batch(entry, resolve(entry.defaults, self.config, self.scenario), count)
        if made.num_actions != NUM_ACTIONS:
            raise UsageError(f"scenario {self.scenario!r} has {made.num_actions} actions: plans need all {NUM_ACTIONS}")
        return made


@dataclass(frozen=True)
class SceneConfig:
    """How situations are met."""

    random_share: float = 0.3  # of the decisions that are random and legal
    kept_share: float = 0.08  # of the decisions before which the states of all environments are kept

    def __post_init__(self) -> None:
        if not (0 <= self.random_share <= 1 and 0 < self.kept_share <= 1):
            raise ValueError(
                f"random_share = {self.random_share}, kept_share = {self.kept_share}: choose shares, the second above 0"
            )


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How the 5^m plans from one state end; plan (a, b, c) is row 25 a + 5 b + c, actions by id."""

    good: np.ndarray
    """bool (5^m,): no crash, nothing missed, and a return within `TOLERANCE` of the best."""
    crash: np.ndarray
    """bool (5^m,)"""
    speed: np.ndarray
    """float32 (5^m,) m/s at the end"""
    best: int
    """Row of the most forgiving good plan: of the plans that differ from it in one action, most are good too, so that
    an imitation with one wrong action is often right all the same. Ties: fewest manoeuvres, then highest return."""

    def plan(self, row: int) -> tuple[int, ...]:
        """The meta-actions of a row."""
        return tuple(int(a) for a in plans(_length(len(self.good)))[row])


def row_of(plan: Sequence[int]) -> int:
    """The row of a plan in `Outcomes`.

    Args:
        plan: Meta-actions by id.
    """
    return functools.reduce(lambda row, action: NUM_ACTIONS * row + int(action), plan, 0)


@functools.cache
def plans(length: int) -> np.ndarray:
    """int64 (5^length, length): all plans, by row."""
    return np.array(list(itertools.product(range(NUM_ACTIONS), repeat=length)), np.int64)


def _length(rows: int) -> int:
    return round(np.log(rows) / np.log(NUM_ACTIONS))


@dataclass(frozen=True)
class Situation:
    """One state of one environment, and what can be said about it."""

    key: str
    source: SituationSource
    state: tuple[np.ndarray, ...] = field(repr=False)
    """One row of every state array."""
    picture: Picture
    facts: Facts
    rule: tuple[int, ...]
    """What the rule does in its next `LONGEST` decisions, of which it sees the results."""


def outcomes(situations: Sequence[Situation], length: int) -> list[Outcomes | None]:
    """How all plans end in each situation; None where none ends well.

    Args:
        situations: The situations.
        length: Meta-actions of a plan.
    """
    stage = SituationEnvs()
    return [rolled_out(stage.set(situation), length) for situation in situations]


class SituationEnvs:
    """An environment of each source, to be put into the state of one situation after the other."""

    def __init__(self) -> None:
        self._batches: dict[str, EnvBatch] = {}

    def set(self, situation: Situation) -> EnvBatch:
        """A batch of one, in the situation's state until the next is set."""
        source = situation.source
        if source.name not in self._batches:
            self._batches[source.name] = source.envs(1)
        batch = self._batches[source.name]
        for array, row in zip(batch.state, situation.state, strict=True):
            array[0] = row
        return batch


def rolled_out(batch: EnvBatch, length: int) -> Outcomes | None:
    """How all plans end from environment 0's present state; None where none ends well.

    Args:
        batch: The environments.
        length: Meta-actions of a plan.
    """
    actions = plans(length)
    ends = batch.branch(0, np.hstack([actions, np.full((len(actions), TAIL), int(MetaAction.IDLE))]))
    fails = ends.crashed | (ends.ended & ~ends.success)
    if fails.all():
        return None
    returns = ends.rewards.sum(axis=1)
    best, worst = returns[~fails].max(), returns[~fails].min()
    good = ~fails & (returns >= best - TOLERANCE * (best - worst) - 1e-9)
    assert ends.final is not None
    grid = good.reshape((NUM_ACTIONS,) * length)
    forgiving = sum((grid.sum(axis=step, keepdims=True) * grid for step in range(length)), np.zeros(grid.shape))
    moves = (actions != MetaAction.IDLE).sum(axis=1)
    order = np.lexsort((-returns, moves, -forgiving.ravel()))
    return Outcomes(good, ends.crashed, ends.final[:, 4].astype(np.float32), int(order[0]))


def situations(
    sources: Sequence[SituationSource], count: int, seed: int | Sequence[int], config: SceneConfig | None = None
) -> list[Situation]:
    """Situations that are met, the same for the same arguments.

    Args:
        sources: As many situations come from each.
        count: In all.
        seed: Others for every seed.
        config: How they are met.
    Raises:
        UsageError: As in `SituationSource.envs`.
    """
    config = config or SceneConfig()
    shares = [len(part) for part in np.array_split(np.arange(count), len(sources))]
    streams = np.random.SeedSequence(seed).spawn(len(sources))
    found: list[Situation] = []
    for source, share, stream in zip(sources, shares, streams, strict=True):
        found += itertools.islice(_met(source, np.random.default_rng(stream), config), share)
    return found


def _met(source: SituationSource, rng: np.random.Generator, config: SceneConfig) -> Iterator[Situation]:
    """Situations of a source, without end."""
    batch, copies = source.envs(NUM_ENVS), source.envs(NUM_ENVS)
    everyone = np.arange(NUM_ENVS)
    batch.seed(everyone, [int(seed) for seed in rng.integers(2**31, size=NUM_ENVS)])
    batch.reset()
    name = rng.integers(2**31)
    for step in itertools.count():
        if rng.random() < config.kept_share:
            yield from _situations(source, batch, copies, f"{source.scenario}/{name}/{step}")
        chance = batch.masks * rng.random(batch.masks.shape)
        wanted = np.where(rng.random(NUM_ENVS) < config.random_share, chance.argmax(axis=1), rule_actions(batch))
        batch.step(wanted)
        ended = np.flatnonzero(batch.terminated | batch.truncated)
        if ended.size:
            batch.reset(ended)


def _situations(source: SituationSource, batch: EnvBatch, copies: EnvBatch, name: str) -> list[Situation]:
    """The situations that the environments are in; the rule drives on in the copies."""
    driven = _rule_plans(batch, copies)
    views = batch.views(np.arange(batch.num_envs)).rows
    return [
        Situation(
            f"{name}/{row}",
            source,
            tuple(array[row].copy() for array in batch.state),
            Picture.of(batch.scene(row)),
            facts_of(view),
            tuple(int(a) for a in plan),
        )
        for row, (view, plan) in enumerate(zip(views, driven, strict=True))
    ]


def _rule_plans(batch: EnvBatch, copies: EnvBatch) -> np.ndarray:
    """int64 (N, LONGEST): what the rule does from the environments' states on, in copies; IDLE after an end."""
    copies.set_state(batch.state)
    copies.masks[...] = batch.masks
    found = np.full((batch.num_envs, LONGEST), int(MetaAction.IDLE))
    over = np.zeros(batch.num_envs, bool)
    for step in range(LONGEST):
        actions = rule_actions(copies)
        found[~over, step] = actions[~over]
        copies.step(actions)
        ended = copies.terminated | copies.truncated
        over |= ended
        if ended.any():
            copies.reset(np.flatnonzero(ended))
    return found


def rule_actions(batch: EnvBatch) -> np.ndarray:
    """int64 (N,): what the rule does in every environment."""
    wanted = np.zeros(batch.num_envs, np.int64)
    kernel.drive(batch.views(np.arange(batch.num_envs)).rows, batch.masks, PARAMETERS, wanted)
    legal = batch.masks[np.arange(batch.num_envs), wanted]
    return np.where(legal, wanted, int(MetaAction.IDLE))


def facts_of(view: np.record) -> Facts:
    """The facts behind the rule's decisions in one view."""
    ahead = [view.target, view.old] if view.old_distance < RULE.old_lane_reach else [view.target]
    ttc = min(_ttc(view.speed, lane) for lane in ahead)
    return Facts(
        own_fact(ttc, float(kernel.allowed_speed(view, PARAMETERS[0]))),
        _side(view, view.left, view.has_left),
        _side(view, view.right, view.has_right),
    )


def _ttc(speed: float, lane: np.record) -> float:
    closing = speed - lane.front_speed
    return max(lane.front - kernel.CAR_LENGTH, 0.0) / closing if closing > 0 and np.isfinite(lane.front) else np.inf


_VERDICT = {
    kernel.CLEAR: "safe",
    kernel.FRONT_GAP: "unsafe F",
    kernel.FRONT_TTC: "unsafe F",
    kernel.REAR_GAP: "unsafe R",
    kernel.REAR_TTC: "unsafe R",
    kernel.NOT_STEADY: "wait",
}


def _side(view: np.record, lane: np.record, exists: bool) -> str:
    return _VERDICT[kernel.enter(view, lane, 1.0, PARAMETERS[0])] if exists else "blocked"
