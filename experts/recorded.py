"""Recordings as an expert: in every state, what was demonstrated in the most similar recorded state.

Similar is near by Euclidean distance between flattened observations. Beyond `radius` there is no decision.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from scipy.spatial import cKDTree

from experts.answers import failed, legal_mask, require_discrete
from experts.data.demonstrations import Demonstrations
from experts.data.sources import load_demonstrations
from experts.provider import Context, Decision, PolicyProvider
from sim.bounds import Positive, config_dataclass
from sim.config import resolve
from sim.errors import UsageError


@config_dataclass
class RecordedConfig:
    path: str = ""  # a recording, a folder of recordings, a data set, or minari:DATASET; required
    radius: Positive = 0.4  # of observations. lane-change, 20 episodes: a rule agreed in 81 % within it, 38 % beyond


class RecordedExpert(PolicyProvider):
    """Decides as in the nearest demonstration; FAILED where nothing legal was demonstrated within `radius`."""

    name = "recorded"

    def __init__(self, demonstrations: Demonstrations, radius: float = RecordedConfig.radius) -> None:
        self.demonstrations = demonstrations
        self.radius = radius
        self._rows = np.flatnonzero(demonstrations.given)
        points = demonstrations.obs[self._rows].reshape(len(self._rows), -1).astype(float)
        if not np.isfinite(points).all():
            raise UsageError(f"{demonstrations.source} holds observations that are not finite: record it again")
        self._tree = cKDTree(points)

    def check_spaces(self, observation_space: Space, action_space: Space, scenario: str) -> None:
        self.demonstrations.check(observation_space.shape or (), action_space)

    def decide(self, contexts: Sequence[Context]) -> list[Decision]:
        """Look each context up.

        Args:
            contexts: R states.

        Returns:
            R decisions.

        Raises:
            UsageError: Observations or actions are not like the recorded ones.
        """
        return [self._answer(context) for context in contexts]

    def _answer(self, context: Context) -> Decision:
        started = time.perf_counter()
        known = self.demonstrations
        known.check(np.shape(context.obs), context.action_space)
        point = np.asarray(context.obs, float).ravel()
        if not np.isfinite(point).all():
            return failed("the observation is not finite")
        found, distance = self._nearest(point, legal_mask(context))
        if found is None:
            return failed(f"no recorded state within {self.radius:g}{' has a legal action' if distance else ''}")
        return Decision(
            action=int(known.labels[found]),
            reason=f"as in episode {known.episodes[found]}, decision {known.steps[found]}, {distance:.2f} away",
            latency_s=time.perf_counter() - started,
        )

    def _nearest(self, point: np.ndarray, legal: np.ndarray) -> tuple[int | None, float]:
        """Row of the nearest demonstration with a legal action, and its distance.

        (None, 0) where none is within the radius at all, (None, inf) where none of those is legal.
        """
        count, total = 1, self._tree.n
        while True:
            distances, order = self._tree.query(point, np.arange(1, count + 1), distance_upper_bound=self.radius)
            rows = self._rows[order[order < total]]
            usable = np.flatnonzero(legal[self.demonstrations.labels[rows]])
            if usable.size:
                return int(rows[usable[0]]), float(distances[usable[0]])
            if len(rows) < count or count >= total:
                return None, np.inf if len(rows) else 0.0
            count = min(count * 4, total)


def make_recorded(options: Mapping[str, Any], scenario: str, seed: int) -> RecordedExpert:
    """The expert `recorded`: the action of the nearest recorded decision.

    Args:
        options: `RecordedConfig` fields.
        scenario: Name of the scenario.
        seed: Not used.

    Raises:
        UsageError: There is no path, or the recordings are unreadable or of another scenario.
    """
    require_discrete("recorded", scenario)
    config = resolve(RecordedConfig(), options, "recorded")
    if not config.path:
        raise UsageError("expert 'recorded' needs a recording: set its option path, e.g. expert_options.path=FILE")
    return RecordedExpert(load_demonstrations(config.path, scenario), config.radius)
