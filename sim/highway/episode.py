"""Totals of one episode: what `EpisodeSummary` reports, added up decision by decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.env import EpisodeSummary
from sim.highway.kinds import CRASH, SUCCESS


@dataclass
class EpisodeTotals:
    """Totals since reset. The distance is the sum of straight lines from decision to decision."""

    position: np.ndarray
    lane_index: tuple[str, str, int]
    steps: int = 0
    total_reward: float = 0.0
    total_speed: float = 0.0
    distance: float = 0.0
    lane_changes: int = 0
    min_ttc: float = math.inf
    ended: bool = False

    @classmethod
    def begin(cls, ego: Any, ttc: float) -> EpisodeTotals:
        """Totals at the start of an episode."""
        return cls(position=ego.position.copy(), lane_index=ego.lane_index, min_ttc=ttc)

    def add(self, ego: Any, reward: float, ttc: float, ended: bool) -> None:
        """Add one decision; `ttc` is the time-to-collision, s, of the state that it led to."""
        self.steps += 1
        self.total_reward += reward
        self.total_speed += float(ego.speed)
        self.distance += math.dist(ego.position, self.position)
        same_road = ego.lane_index[:2] == self.lane_index[:2]
        self.lane_changes += same_road and ego.lane_index[2] != self.lane_index[2]
        self.min_ttc = min(self.min_ttc, ttc)
        self.position, self.lane_index, self.ended = ego.position.copy(), ego.lane_index, ended

    def summary(self, outcome: str, backend: str) -> EpisodeSummary:
        """The summary of the finished episode."""
        return EpisodeSummary(
            outcome=outcome,
            success=outcome == SUCCESS,
            crashed=outcome == CRASH,
            steps=self.steps,
            episode_return=self.total_reward,
            mean_speed=self.total_speed / max(self.steps, 1),
            distance=self.distance,
            lane_changes=int(self.lane_changes),
            min_ttc=self.min_ttc,
            backend=backend,
        )
