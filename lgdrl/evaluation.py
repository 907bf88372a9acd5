"""Evaluation: fixed seeds, the learner alone, expert off.

Executed return (while training, interventions included) and learner-alone return are different series; only the latter
is reported here. Measures that belong to driving (crash, missed, speed, time to collision) or to walking (distance,
falls) are there where the episodes have them; every scenario has a return, and those with a goal a success.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads scipy.stats, which takes most of a second, at its first use

from experts.driving import Actor, ContextsFn, run_episodes
from experts.provider import PolicyProvider
from lgdrl.memory import episodes_memory, require_memory
from lgdrl.statistics import Rate
from sim.env import ScenarioVecEnv

RATES = {"success": "success", "crash": "crashed", "missed": "crashed", "fell": "fell"}
"""Outcomes that are counted, and the measure of an episode that says whether its scenario has them."""
MEANS = {
    "mean_speed_m_s": "mean_speed",
    "lane_changes_mean": "lane_changes",
    "distance_mean_m": "distance",
    "steps_mean": "steps",
}
"""Means over episodes, and the measure of an episode that they are taken of."""


@dataclass(frozen=True)
class Evaluation:
    """Episodes of one driver, as plain summaries with their seeds."""

    episodes: list[dict[str, Any]]

    def has(self, measure: str) -> bool:
        """Whether the episodes have a measure."""
        return measure in self.episodes[0]

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Outcomes that this scenario counts: success, on driving ones crash and missed, of walking ones falls."""
        return tuple(outcome for outcome, measure in RATES.items() if self.has(measure))

    def rate(self, outcome: str) -> Rate:
        """Share of episodes that ended with success | crash | missed | fell."""
        return Rate(sum(episode.get("outcome") == outcome for episode in self.episodes), len(self.episodes))

    def mean(self, measure: str) -> float:
        """Mean of a measure over the episodes."""
        return float(np.mean([episode[measure] for episode in self.episodes]))

    @property
    def statuses(self) -> dict[str, int]:
        """Decisions of all episodes by status; empty where the driver is no expert."""
        total: Counter[str] = Counter()
        for episode in self.episodes:
            total.update(episode.get("statuses", {}))
        return dict(total)

    @property
    def return_iqm(self) -> float:
        """Interquartile mean of the episode return."""
        return float(scipy.stats.trim_mean([episode["episode_return"] for episode in self.episodes], 0.25))

    @property
    def median_min_ttc(self) -> float:
        """Median over episodes of the smallest time-to-collision, s."""
        return float(np.median([episode["min_ttc"] for episode in self.episodes]))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; measures that the scenario does not have are left out."""
        seeds = [episode["seed"] for episode in self.episodes]
        values: dict[str, Any] = {
            "episodes": len(self.episodes),
            "first_seed": min(seeds),
            "last_seed": max(seeds),
            "backend": self.episodes[0]["backend"],
        }
        values |= {outcome: self.rate(outcome).to_dict() for outcome in self.outcomes}
        values |= {"return_mean": self.mean("episode_return"), "return_iqm": self.return_iqm}
        values |= {name: self.mean(measure) for name, measure in MEANS.items() if self.has(measure)}
        if self.has("min_ttc"):
            values["median_min_ttc_s"] = self.median_min_ttc
        if self.statuses:
            values["statuses"] = self.statuses
        return values

    def curve_row(self) -> dict[str, float]:
        """Columns of a learning curve."""
        row = {f"eval/{outcome}": self.rate(outcome).value for outcome in self.outcomes}
        row["eval/learner_return"] = self.mean("episode_return")
        if self.has("mean_speed"):
            row["eval/mean_speed"] = self.mean("mean_speed")
        return row

    @property
    def outcome_letters(self) -> str:
        """The first letter of each episode's outcome, in the order of the seeds; empty where there are none."""
        return "".join(str(episode.get("outcome", ""))[:1] for episode in self.episodes)


class PolicyActor:
    """A trained policy as a driver: the greedy legal action, without an expert.

    Args:
        model: A model of Stable-Baselines3, or a learner of `lgdrl.learners`, which takes `action_masks`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, obs: Any, masks: np.ndarray, contexts: ContextsFn, running: np.ndarray) -> np.ndarray:
        actions, _ = self.model.predict(obs[running], deterministic=True, action_masks=masks[running])
        return actions


def evaluate(envs: ScenarioVecEnv, driver: PolicyProvider | Actor, seeds: Sequence[int]) -> Evaluation:
    """One episode per seed.

    Args:
        envs: The environments; they are left in the middle of some episode.
        driver: What chooses the actions.
        seeds: One per episode.
    """
    require_memory(episodes_memory(len(seeds)))
    return Evaluation(run_episodes(envs, driver, list(seeds)))
