"""Evaluation: fixed seeds, the learner alone, expert off; rates with Wilson intervals.

Executed return (while training, take-overs included) and learner-alone return are different series; only the latter is
reported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from experts.driving import Actor, ContextsFn, run_episodes
from experts.provider import PolicyProvider
from lgdrl.statistics import Rate
from sim.env import DrivingVecEnv

CURVE_SEEDS = range(0, 300)
"""Seeds of the learning curve."""
FINAL_SEED = 10_000
"""First of the held-out seeds of a final evaluation; no curve, tuning or training run uses them."""


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one driver, as `EpisodeSummary` dicts with their seeds."""

    episodes: list[dict[str, Any]]

    def rate(self, outcome: str) -> Rate:
        """Share of episodes that ended with success | crash | missed."""
        return Rate(sum(episode["outcome"] == outcome for episode in self.episodes), len(self.episodes))

    def mean(self, field: str) -> float:
        return float(np.mean([episode[field] for episode in self.episodes]))

    @property
    def return_iqm(self) -> float:
        """Interquartile mean of the episode return."""
        return float(stats.trim_mean([episode["episode_return"] for episode in self.episodes], 0.25))

    @property
    def median_min_ttc(self) -> float:
        """Median over episodes of the smallest time-to-collision, s."""
        return float(np.median([episode["min_ttc"] for episode in self.episodes]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        seeds = [episode["seed"] for episode in self.episodes]
        return {
            "episodes": len(self.episodes),
            "first_seed": min(seeds),
            "last_seed": max(seeds),
            "backend": self.episodes[0]["backend"],
            "success": self.rate("success").to_dict(),
            "crash": self.rate("crash").to_dict(),
            "missed": self.rate("missed").to_dict(),
            "mean_speed_m_s": self.mean("mean_speed"),
            "return_mean": self.mean("episode_return"),
            "return_iqm": self.return_iqm,
            "median_min_ttc_s": self.median_min_ttc,
            "lane_changes_mean": self.mean("lane_changes"),
            "steps_mean": self.mean("steps"),
        }

    def curve_row(self) -> dict[str, float]:
        """Columns of a learning curve."""
        return {
            "eval/success": self.rate("success").value,
            "eval/crash": self.rate("crash").value,
            "eval/missed": self.rate("missed").value,
            "eval/learner_return": self.mean("episode_return"),
            "eval/mean_speed": self.mean("mean_speed"),
        }


class PolicyActor:
    """A trained policy as a driver: the greedy legal action, nobody asked."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> np.ndarray:
        actions, _ = self.model.predict(obs[running], deterministic=True, action_masks=masks[running])
        return actions


def evaluate(worlds: DrivingVecEnv, driver: PolicyProvider | Actor, seeds: Sequence[int]) -> Evaluation:
    """One episode per seed. The worlds are left in the middle of some episode."""
    return Evaluation(run_episodes(worlds, driver, list(seeds)))
