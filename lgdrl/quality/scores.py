"""Scores of an expert from its decisions on labelled scenes.

A safe rate alone rewards braking, so it comes with the histogram of actions and with the mean per-action AUC (0.5 = no
understanding of the scene).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from experts.labels import ActionSet
from experts.provider import Context, Decision, Status
from experts.safety import refused, unsafe_actions
from lgdrl.quality.scenes import LabelledScene
from lgdrl.statistics import Rate, bootstrap
from sim.view import views_of


@dataclass(frozen=True, slots=True)
class Interval:
    """A rate or mean with its 95 % interval; NaN where it cannot be computed."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ExpertScore:
    """One row of the table."""

    name: str
    scenes: int
    strict: Interval
    recov: Interval
    auc: Interval
    """Mean over actions of AUC(probability of the action against "it is strict-safe"); ties count half."""
    histogram: Mapping[str, int]
    """How often each action was chosen."""
    overridden: float
    """Share of decisions that a safety shield (`experts.safety`) would override."""
    vetoed: float
    """Share of decisions that the expert's own shield did replace (status VETOED)."""
    undecided: int
    """Decisions without an action; they count as unsafe."""
    latency_p50_s: float
    latency_p95_s: float
    success: Interval | None = None
    """Of the episodes that it drove alone; None where it drove none."""
    crash: float | None = None
    """Share of them that ended in a crash."""


def score(
    name: str,
    decisions: Sequence[Decision],
    seconds: Sequence[float],
    scenes: Sequence[LabelledScene],
    resamples: int = 500,
    seed: int = 0,
) -> ExpertScore:
    """The scores of one expert.

    Args:
        name: Of the expert.
        decisions: N, one per scene.
        seconds: Latency of each.
        scenes: N.
        resamples: Bootstrap resamples for the interval of the AUC.
        seed: Of the bootstrap.
    """
    chosen = [None if decision.action is None else int(decision.action) for decision in decisions]
    num_actions = len(scenes[0].strict)
    assert scenes[0].context.scene is not None
    actions = ActionSet.of(scenes[0].context.scene)
    names = [actions.name(i) for i in range(num_actions)]
    p50, p95 = np.percentile(seconds, [50, 95])
    return ExpertScore(
        name=name,
        scenes=len(scenes),
        strict=share([a is not None and bool(s.strict[a]) for a, s in zip(chosen, scenes, strict=True)]),
        recov=share([a is not None and bool(s.recov[a]) for a, s in zip(chosen, scenes, strict=True)]),
        auc=mean_auc(_score_matrix(decisions, num_actions), *_label_matrices(scenes), resamples, seed),
        histogram={name: chosen.count(i) for i, name in enumerate(names)},
        overridden=float(np.mean([_overridden(a, s.context) for a, s in zip(chosen, scenes, strict=True)])),
        vetoed=float(np.mean([decision.status is Status.VETOED for decision in decisions])),
        undecided=chosen.count(None),
        latency_p50_s=float(p50),
        latency_p95_s=float(p95),
    )


def _overridden(action: int | None, context: Context) -> bool:
    assert context.scene is not None
    return action is not None and refused(unsafe_actions(views_of([context.scene]))[0], context.legal, action)


def _score_matrix(decisions: Sequence[Decision], num_actions: int) -> np.ndarray:
    """(N, A) the experts' probabilities; a bare action counts as certain."""
    scores = np.zeros((len(decisions), num_actions))
    for row, decision in zip(scores, decisions, strict=True):
        if decision.probs is not None:
            row[:] = decision.probs
        elif decision.action is not None:
            row[int(decision.action)] = 1.0
    return scores


def _label_matrices(scenes: Sequence[LabelledScene]) -> tuple[np.ndarray, np.ndarray]:
    """bool (N, A) strict labels and legality."""
    legal = [np.asarray(scene.context.legal, dtype=bool) for scene in scenes]
    return np.array([scene.strict for scene in scenes]), np.array(legal)


def share(successes: Sequence[bool]) -> Interval:
    """Share of successes with Wilson's 95 % interval.

    Args:
        successes: One per trial, at least one.
    """
    rate = Rate(sum(successes), len(successes))
    return Interval(rate.value, *rate.interval)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve from ranks, ties half; NaN when one class is missing.

    Args:
        scores: float (N,).
        positive: The class of each, bool (N,).
    """
    from scipy.stats import rankdata

    ones = int(positive.sum())
    zeros = len(positive) - ones
    if ones == 0 or zeros == 0:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def mean_auc(
    scores: np.ndarray, strict: np.ndarray, legal: np.ndarray, resamples: int = 500, seed: int = 0
) -> Interval:
    """Mean over actions of `auc` on the scenes where the action is legal, with a bootstrap interval over scenes.

    Args:
        scores: Probabilities, (N, A).
        strict: Labels, bool (N, A).
        legal: Legal actions, bool (N, A).
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """

    def statistic(rows: np.ndarray) -> float:
        values = []
        for action in range(scores.shape[1]):
            use = rows[legal[rows, action]]
            values.append(auc(scores[use, action], strict[use, action]))
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else 0.5

    rows = np.arange(len(scores))
    value = statistic(rows)
    if len(rows) < 2:
        return Interval(value, float("nan"), float("nan"))

    def over_resamples(drawn: np.ndarray, axis: int) -> np.ndarray:
        return np.apply_along_axis(statistic, axis, drawn.astype(int))

    return Interval(value, *bootstrap(rows, over_resamples, seed=seed, resamples=resamples))
