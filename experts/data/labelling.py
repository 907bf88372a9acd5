"""Label the states of a transition data set with any expert, under a budget.

An expert that needs observations alone is asked about the stored ones. One that needs scenes is asked in the states
themselves: the episodes are driven again from their seeds with the stored actions. This is exact where an episode
follows from its seed and its actions; every observation on the way is compared with the stored one.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import sim
from experts.data.transitions import NO_SEED, STATUSES, StateLabels, TransitionDataset, no_labels
from experts.driving import NEEDS, batch_decisions, contexts_of, idle_actions
from experts.provider import Context, Decision, PolicyProvider, Status, check_needs
from experts.views import ViewExpert
from sim.env import DrivingVecEnv
from sim.errors import UsageError

AT_ONCE = 64
"""States that an expert is asked about in one call."""


@dataclass
class Tally:
    """What the labels took."""

    statuses: Counter[str] = field(default_factory=Counter)
    """Decisions by status."""
    tokens: int = 0
    cost: float = 0.0
    """In the currency of the expert's price table."""
    latency_s: float = 0.0
    """Summed over decisions."""

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        self.statuses[decision.status.value] += 1
        self.tokens += decision.tokens
        self.cost += decision.cost
        self.latency_s += decision.latency_s

    @property
    def asked(self) -> int:
        """Decisions."""
        return self.statuses.total()


def choose_states(count: int, budget: int | None, seed: int, every: int | None = None) -> np.ndarray:
    """Which states to label: uniformly at random without replacement, or every k-th.

    Args:
        count: States R.
        budget: Most of them; None: no limit.
        seed: Of the random choice.
        every: k; the first, the (k + 1)-th and so on, as far as the budget reaches. None: at random.

    Returns:
        Their rows, int64, rising.
    """
    most = count if budget is None else min(budget, count)
    if every is not None:
        return np.arange(0, count, every)[:most]
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def label_states(
    dataset: TransitionDataset,
    expert: PolicyProvider,
    rows: np.ndarray,
    note: dict[str, object],
    report: Callable[[int], object] | None = None,
) -> tuple[TransitionDataset, Tally]:
    """The data set with an expert's labels.

    Args:
        dataset: Without labels.
        expert: Decides; a decision without an action counts as asked and leaves the state without a label.
        rows: States to ask about, int (any number), rising.
        note: What to keep about how the rows were chosen, plain values.
        report: Called with the states asked about so far.

    Raises:
        UsageError: There are labels already, or the expert needs what cannot be rebuilt.
    """
    if dataset.labels is not None:
        raise UsageError("the data set holds labels already: label the one without, or take them out")
    labels, tally = no_labels(dataset), Tally()
    answers = _in_replays(dataset, expert, rows) if expert.needs else _on_observations(dataset, expert, rows)
    for row, decision in answers:
        tally.add(decision)
        _enter(dataset, labels, row, decision, expert.name)
        if report is not None:
            report(tally.asked)
    about = dataset.about
    made = {"step": "label", "expert": expert.name, "asked": tally.asked, **note, "statuses": dict(tally.statuses)}
    about = dataclasses.replace(about, made=(*about.made, made | {"tokens": tally.tokens, "cost": tally.cost}))
    return dataclasses.replace(dataset, about=about, labels=labels), tally


def _enter(dataset: TransitionDataset, labels: StateLabels, row: int, decision: Decision, expert: str) -> None:
    labels.status[row] = STATUSES.index(decision.status)
    if decision.action is None or decision.status == Status.FAILED:
        return
    if dataset.legal is not None and not dataset.legal[row, int(decision.action)]:
        raise ValueError(f"expert {expert!r} chose action {decision.action}, which is not legal here")
    labels.actions[row], labels.given[row] = decision.action, True


# --- on stored observations -------------------------------------------------------------------------------------------


def _on_observations(
    dataset: TransitionDataset, expert: PolicyProvider, rows: np.ndarray
) -> Iterator[tuple[int, Decision]]:
    """Rows with the expert's decisions, from observations alone."""
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE].tolist()
        yield from zip(part, expert.decide([_context(dataset, row) for row in part]), strict=True)


def _context(dataset: TransitionDataset, row: int) -> Context:
    return Context(
        obs=dataset.observations[row],
        action_space=dataset.about.action_space,
        legal=None if dataset.legal is None else dataset.legal[row],
        episode=int(dataset.episodes[row]),
        step=int(dataset.steps[row]),
    )


# --- in the states themselves -----------------------------------------------------------------------------------------


def _in_replays(dataset: TransitionDataset, expert: PolicyProvider, rows: np.ndarray) -> Iterator[tuple[int, Decision]]:
    """Rows with the expert's decisions, in episodes that are driven again."""
    about = dataset.about
    if not sim.get(about.scenario).driving:
        check_needs(expert, frozenset(), about.scenario)
    if about.foreign:
        raise UsageError(
            f"expert {expert.name!r} needs driving scenes, which a foreign data set cannot give: choose one "
            "that reads observations"
        )
    wanted = np.unique(dataset.episodes[rows])
    _check_replayable(dataset, rows, wanted)
    envs = sim.make_driving_vec(
        about.scenario, min(AT_ONCE, max(len(wanted), 1)), None, about.backend, about.scenario_config
    )
    try:
        check_needs(expert, NEEDS, about.scenario)
        if not envs.exact_state:
            raise UsageError(
                f"expert {expert.name!r} needs driving scenes, and episodes of {about.backend!r} cannot be driven "
                "again exactly: choose an expert that reads observations, or collect on another backend"
            )
        for start in range(0, len(wanted), envs.num_envs):
            yield from _replay(dataset, expert, envs, wanted[start : start + envs.num_envs], rows)
    finally:
        envs.close()


def _check_replayable(dataset: TransitionDataset, rows: np.ndarray, episodes: np.ndarray) -> None:
    """UsageError unless the seeds of `episodes`, and all actions up to the states in question, are known."""
    counts = np.bincount(dataset.episodes, minlength=len(dataset.seeds))
    starts = np.cumsum(counts) - counts
    gap = dataset.steps[rows] != rows - starts[dataset.episodes[rows]]
    if gap.any() or (dataset.seeds[episodes] == NO_SEED).any():
        what = (
            "transitions were taken out of its episodes" if gap.any() else "it does not know the seeds of its episodes"
        )
        raise UsageError(
            f"the scenes of this data set cannot be rebuilt, {what}: choose an expert that reads observations, or "
            "label the data set as it was collected"
        )


def _replay(
    dataset: TransitionDataset, expert: PolicyProvider, envs: DrivingVecEnv, episodes: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[int, Decision]]:
    """Drive some episodes again, at most one per environment, up to the last state of each that is asked about."""
    starts = np.searchsorted(dataset.episodes, episodes)
    lasts = rows[np.searchsorted(dataset.episodes[rows], episodes, side="right") - 1]
    seeds = dataset.seeds[episodes]
    expert.on_episode_start(episodes.tolist())
    obs: Any = envs.reset_to([*seeds.tolist(), *[int(seeds[-1])] * (envs.num_envs - len(seeds))])
    step = 0
    while (running := np.flatnonzero(starts + step <= lasts)).size:
        here = starts[running] + step
        _check_same(dataset, here, obs[running])
        masks = envs.action_masks()
        asked = np.isin(here, rows, assume_unique=True)
        if asked.any():
            numbers = [*episodes.tolist(), *[-1] * (envs.num_envs - len(episodes))]
            decisions = _decisions(expert, envs, obs, masks, running[asked], numbers, step)
            yield from zip(here[asked].tolist(), decisions, strict=True)
        actions = idle_actions(envs.action_space, masks)
        actions[running] = dataset.actions[here]
        obs, *_ = envs.step(actions)
        step += 1


def _decisions(
    expert: PolicyProvider,
    envs: DrivingVecEnv,
    obs: np.ndarray,
    masks: np.ndarray,
    indices: np.ndarray,
    episodes: Sequence[int],
    step: int,
) -> Sequence[Decision]:
    """The expert's decisions in the present states of some environments."""
    if not isinstance(expert, ViewExpert):
        return expert.decide(contexts_of(envs, obs, masks, indices.tolist(), episodes, step))
    actions, _ = batch_decisions(expert, envs, masks, indices)
    return [Decision(int(a)) if a >= 0 else Decision(None, status=Status.FAILED) for a in actions]


def _check_same(dataset: TransitionDataset, rows: np.ndarray, obs: np.ndarray) -> None:
    differ = (obs != dataset.observations[rows]).reshape(len(rows), -1).any(axis=1)
    if differ.any():
        row = int(rows[differ][0])
        raise UsageError(
            f"episode {dataset.episodes[row]}, driven again from seed {dataset.seeds[dataset.episodes[row]]}, differs "
            f"at step {dataset.steps[row]} from what is stored, so its scenes cannot be rebuilt: collect it again "
            "with this version, or choose an expert that reads observations"
        )
