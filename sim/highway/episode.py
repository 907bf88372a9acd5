"""Bookkeeping of one episode: what `EpisodeSummary` reports, gathered decision by decision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.env import EpisodeSummary
from sim.highway.families import CRASH, SUCCESS


@dataclass
class Episode:
    """Running totals since reset. Distances are summed straight from decision to decision."""

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
    def begin(cls, ego: Any, ttc: float) -> Episode:
        return cls(position=ego.position.copy(), lane_index=ego.lane_index, min_ttc=ttc)

    def add(self, ego: Any, reward: float, ttc: float, ended: bool) -> None:
        """One decision has been carried out; `ttc` is that of the state it led to."""
        self.steps += 1
        self.total_reward += reward
        self.total_speed += float(ego.speed)
        self.distance += math.dist(ego.position, self.position)
        same_road = ego.lane_index[:2] == self.lane_index[:2]
        self.lane_changes += same_road and ego.lane_index[2] != self.lane_index[2]
        self.min_ttc = min(self.min_ttc, ttc)
        self.position, self.lane_index, self.ended = ego.position.copy(), ego.lane_index, ended

    def summary(self, outcome: str, backend: str) -> EpisodeSummary:
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
